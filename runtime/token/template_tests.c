#include <math.h>

#include "token/template_builtins.h"
#include "token/template_unicode.h"

static TPL_BUILTIN(test_defined)
{
    (void)r;
    *out = tpl_bool(c->a[0].kind != TPL_UNDEFINED);
    return FR_OK;
}

static TPL_BUILTIN(test_undefined)
{
    (void)r;
    *out = tpl_bool(c->a[0].kind == TPL_UNDEFINED);
    return FR_OK;
}

/* ---- types
 * ---------------------------------------------------------------------------------------- */

#define TYPE_TEST(name, condition)                                                                 \
    static TPL_BUILTIN(name)                                                                       \
    {                                                                                              \
        tpl_value v = c->a[0];                                                                     \
        (void)r;                                                                                   \
        *out = tpl_bool(condition);                                                                \
        return FR_OK;                                                                              \
    }

TYPE_TEST(test_none, v.kind == TPL_NONE)
TYPE_TEST(test_boolean, v.kind == TPL_BOOL)
TYPE_TEST(test_true, v.kind == TPL_BOOL && v.u.b)
TYPE_TEST(test_false, v.kind == TPL_BOOL && !v.u.b)
TYPE_TEST(test_integer, v.kind == TPL_INT)
TYPE_TEST(test_float, v.kind == TPL_FLOAT)
TYPE_TEST(test_number, tpl_is_number(v))
TYPE_TEST(test_string, v.kind == TPL_STR)
TYPE_TEST(test_mapping, v.kind == TPL_DICT)
TYPE_TEST(test_iterable, tpl_is_iterable(v) || v.kind == TPL_LOOP)
TYPE_TEST(test_sequence, v.kind == TPL_STR || v.kind == TPL_LIST || v.kind == TPL_TUPLE ||
                             v.kind == TPL_DICT || v.kind == TPL_UNDEFINED ||
                             (v.kind == TPL_SEQ && v.u.l->flavour == TPL_RANGE))
TYPE_TEST(test_callable, v.kind == TPL_MACRO || v.kind == TPL_FUNCTION || v.kind == TPL_METHOD ||
                             v.kind == TPL_LOOP || v.kind == TPL_JOINER || v.kind == TPL_UNDEFINED)
TYPE_TEST(test_escaped, v.kind == TPL_MISSING) /* strings are never marked as escaped */

/* ---- numbers
 * -------------------------------------------------------------------------------------- */

static fr_status remainder_is_zero(tpl_run *r, tpl_value v, tpl_value by, bool wanted,
                                   tpl_value *out)
{
    tpl_value rest;
    bool zero;
    FR_TRY(tpl_binary(r, TPL_OP_MOD, v, by, &rest));
    FR_TRY(tpl_equal(r, rest, tpl_int(0), &zero));
    *out = tpl_bool(zero == wanted);
    return FR_OK;
}

static TPL_BUILTIN(test_even)
{
    return remainder_is_zero(r, c->a[0], tpl_int(2), true, out);
}

static TPL_BUILTIN(test_odd)
{
    tpl_value rest;
    bool one;
    FR_TRY(tpl_binary(r, TPL_OP_MOD, c->a[0], tpl_int(2), &rest));
    FR_TRY(tpl_equal(r, rest, tpl_int(1), &one));
    *out = tpl_bool(one);
    return FR_OK;
}

static TPL_BUILTIN(test_divisibleby)
{
    return remainder_is_zero(r, c->a[0], c->a[1], true, out);
}

/* ---- text
 * ----------------------------------------------------------------------------------------- */

/* Whether there are letters with case and all of them have this one. */
static fr_status has_case(tpl_run *r, tpl_value v, bool upper, tpl_value *out)
{
    bool cased = false, other = false;
    FR_TRY(tpl_to_str(r, v, &v));
    fr_str s = tpl_text(v);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += (size_t)tpl_decode(s, i, &cp);
        bool is_upper = tpl_is_upper(cp), is_lower = tpl_is_lower(cp);
        cased |= upper ? is_upper : is_lower;
        other |= upper ? is_lower : is_upper;
    }
    *out = tpl_bool(cased && !other);
    return tpl_spend_bytes(r, s.n);
}

static TPL_BUILTIN(test_lower)
{
    return has_case(r, c->a[0], false, out);
}

static TPL_BUILTIN(test_upper)
{
    return has_case(r, c->a[0], true, out);
}

static TPL_BUILTIN(test_filter)
{
    (void)r;
    *out = tpl_bool(c->a[0].kind == TPL_STR && tpl_find_row(&tpl_filters, tpl_text(c->a[0])));
    return FR_OK;
}

static TPL_BUILTIN(test_test)
{
    (void)r;
    *out = tpl_bool(c->a[0].kind == TPL_STR && tpl_find_row(&tpl_tests, tpl_text(c->a[0])));
    return FR_OK;
}

/* ---- comparison
 * ----------------------------------------------------------------------------------- */

#define OP_TEST(name, op)                                                                          \
    static TPL_BUILTIN(name)                                                                       \
    {                                                                                              \
        return tpl_binary(r, op, c->a[0], c->a[1], out);                                           \
    }

OP_TEST(test_eq, TPL_OP_EQ)
OP_TEST(test_ne, TPL_OP_NE)
OP_TEST(test_lt, TPL_OP_LT)
OP_TEST(test_le, TPL_OP_LE)
OP_TEST(test_gt, TPL_OP_GT)
OP_TEST(test_ge, TPL_OP_GE)
OP_TEST(test_in, TPL_OP_IN)

/* The same object; small values are the same when they are equal and of one type. */
static TPL_BUILTIN(test_sameas)
{
    bool same = c->a[0].kind == c->a[1].kind;
    if (same && c->a[0].kind >= TPL_LIST)
        same = c->a[0].u.ptr == c->a[1].u.ptr;
    else if (same)
        FR_TRY(tpl_equal(r, c->a[0], c->a[1], &same));
    *out = tpl_bool(same);
    return FR_OK;
}

/* ---- the table
 * ------------------------------------------------------------------------------------ */

static const tpl_row tests[] = {
    {"!=", test_ne, "value! other!"},
    {"<", test_lt, "value! other!"},
    {"<=", test_le, "value! other!"},
    {"==", test_eq, "value! other!"},
    {">", test_gt, "value! other!"},
    {">=", test_ge, "value! other!"},
    {"boolean", test_boolean, "value!"},
    {"callable", test_callable, "value!"},
    {"defined", test_defined, "value!"},
    {"divisibleby", test_divisibleby, "value! num!"},
    {"eq", test_eq, "value! other!"},
    {"equalto", test_eq, "value! other!"},
    {"escaped", test_escaped, "value!"},
    {"even", test_even, "value!"},
    {"false", test_false, "value!"},
    {"filter", test_filter, "value!"},
    {"float", test_float, "value!"},
    {"ge", test_ge, "value! other!"},
    {"greaterthan", test_gt, "value! other!"},
    {"gt", test_gt, "value! other!"},
    {"in", test_in, "value! seq!"},
    {"integer", test_integer, "value!"},
    {"iterable", test_iterable, "value!"},
    {"le", test_le, "value! other!"},
    {"lessthan", test_lt, "value! other!"},
    {"lower", test_lower, "value!"},
    {"lt", test_lt, "value! other!"},
    {"mapping", test_mapping, "value!"},
    {"ne", test_ne, "value! other!"},
    {"none", test_none, "value!"},
    {"number", test_number, "value!"},
    {"odd", test_odd, "value!"},
    {"sameas", test_sameas, "value! other!"},
    {"sequence", test_sequence, "value!"},
    {"string", test_string, "value!"},
    {"test", test_test, "value!"},
    {"true", test_true, "value!"},
    {"undefined", test_undefined, "value!"},
    {"upper", test_upper, "value!"},
};

const tpl_table tpl_tests = {"test", tests, sizeof tests / sizeof *tests};
