#include <math.h>
#include <string.h>

#include "token/template_eval.h"
#include "token/template_unicode.h"

/* ---- arithmetic
 * ----------------------------------------------------------------------------------- */

static const char *op_text(tpl_op op)
{
    static const char *const text[] = {
        "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
    return text[op];
}

static fr_status fail_operands(tpl_run *r, tpl_op op, tpl_value a, tpl_value b)
{
    if (a.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, a);
    if (b.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, b);
    return tpl_fail(r, FR_EINVAL, "unsupported operand type(s) for %s: '%s' and '%s'", op_text(op),
                    tpl_type_name(a), tpl_type_name(b));
}

static fr_status fail_overflow(tpl_run *r)
{
    return tpl_fail(r, FR_ERANGE, "the result is an integer beyond 64 bits");
}

/* The quotient rounds down and the remainder has the sign of the divisor, as in Python. */
static fr_status divide_ints(tpl_run *r, tpl_op op, int64_t a, int64_t b, tpl_value *out)
{
    if (b == 0)
        return tpl_fail(r, FR_EINVAL, "integer division or modulo by zero");
    if (b == -1) {
        if (op == TPL_OP_MOD)
            *out = tpl_int(0);
        else if (a == INT64_MIN)
            return fail_overflow(r);
        else
            *out = tpl_int(-a);
        return FR_OK;
    }
    int64_t q = a / b, m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) {
        q--;
        m += b;
    }
    *out = tpl_int(op == TPL_OP_MOD ? m : q);
    return FR_OK;
}

static fr_status power_ints(tpl_run *r, int64_t base, int64_t exp, tpl_value *out)
{
    if (exp < 0) {
        if (base == 0)
            return tpl_fail(r, FR_EINVAL, "0 cannot be raised to a negative power");
        *out = tpl_float(pow((double)base, (double)exp));
        return FR_OK;
    }
    int64_t result = 1;
    for (;;) {
        if ((exp & 1) && __builtin_mul_overflow(result, base, &result))
            return fail_overflow(r);
        exp >>= 1;
        if (exp == 0)
            break;
        if (__builtin_mul_overflow(base, base, &base))
            return fail_overflow(r);
    }
    *out = tpl_int(result);
    return FR_OK;
}

static fr_status int_math(tpl_run *r, tpl_op op, int64_t a, int64_t b, tpl_value *out)
{
    int64_t c = 0;
    bool over = false;
    switch (op) {
    case TPL_OP_ADD:
        over = __builtin_add_overflow(a, b, &c);
        break;
    case TPL_OP_SUB:
        over = __builtin_sub_overflow(a, b, &c);
        break;
    case TPL_OP_MUL:
        over = __builtin_mul_overflow(a, b, &c);
        break;
    case TPL_OP_DIV:
        if (b == 0)
            return tpl_fail(r, FR_EINVAL, "division by zero");
        *out = tpl_float((double)a / (double)b);
        return FR_OK;
    case TPL_OP_POW:
        return power_ints(r, a, b, out);
    default:
        return divide_ints(r, op, a, b, out);
    }
    *out = tpl_int(c);
    return over ? fail_overflow(r) : FR_OK;
}

static fr_status float_math(tpl_run *r, tpl_op op, double a, double b, tpl_value *out)
{
    double m;
    if (b == 0 && (op == TPL_OP_DIV || op == TPL_OP_FLOORDIV || op == TPL_OP_MOD))
        return tpl_fail(r, FR_EINVAL, "float division by zero");
    switch (op) {
    case TPL_OP_ADD:
        *out = tpl_float(a + b);
        return FR_OK;
    case TPL_OP_SUB:
        *out = tpl_float(a - b);
        return FR_OK;
    case TPL_OP_MUL:
        *out = tpl_float(a * b);
        return FR_OK;
    case TPL_OP_DIV:
        *out = tpl_float(a / b);
        return FR_OK;
    case TPL_OP_POW:
        if ((a == 0 && b < 0) || (a < 0 && b != floor(b)))
            return tpl_fail(r, FR_EINVAL, "the power is no real number");
        *out = tpl_float(pow(a, b));
        return FR_OK;
    default:
        break;
    }
    m = fmod(a, b);
    if (m != 0 && (m < 0) != (b < 0))
        m += b;
    double q = (a - m) / b, whole = floor(q);
    *out = tpl_float(op == TPL_OP_MOD ? m : q - whole > 0.5 ? whole + 1 : whole);
    return FR_OK;
}

static fr_status add_lists(tpl_run *r, const tpl_list *a, const tpl_list *b, tpl_kind kind,
                           tpl_value *out)
{
    FR_TRY(tpl_spend(r, 1 + (a->n + b->n) / 16));
    FR_TRY(tpl_list_new(r, kind, a->n + b->n, out));
    tpl_list *l = out->u.l;
    if (a->n)
        memcpy(l->v, a->v, a->n * sizeof *l->v);
    if (b->n)
        memcpy(l->v + a->n, b->v, b->n * sizeof *l->v);
    l->n = a->n + b->n;
    return FR_OK;
}

static fr_status repeat(tpl_run *r, tpl_value v, int64_t times, tpl_value *out)
{
    if (v.kind == TPL_STR) {
        size_t mark = r->out.n;
        FR_TRY(tpl_emit_repeat(r, tpl_text(v), times));
        return tpl_capture(r, mark, out);
    }
    tpl_value list;
    FR_TRY(tpl_list_new(r, v.kind, 0, &list));
    for (int64_t k = 0; k < times && v.u.l->n; k++)
        for (size_t i = 0; i < v.u.l->n; i++)
            FR_TRY(tpl_list_push(r, list.u.l, v.u.l->v[i]));
    *out = list;
    return FR_OK;
}

static bool is_repeatable(tpl_value v)
{
    return v.kind == TPL_STR || v.kind == TPL_LIST || v.kind == TPL_TUPLE;
}

static fr_status arithmetic(tpl_run *r, tpl_op op, tpl_value a, tpl_value b, tpl_value *out)
{
    int64_t x, y;
    bool int_a = tpl_as_int(a, &x), int_b = tpl_as_int(b, &y);
    if (int_a && int_b)
        return int_math(r, op, x, y, out);
    if (tpl_is_number(a) && tpl_is_number(b))
        return float_math(r, op, tpl_as_double(a), tpl_as_double(b), out);
    if (op == TPL_OP_ADD && a.kind == b.kind) {
        if (a.kind == TPL_STR)
            return tpl_str_concat(r, a, b, out);
        if (a.kind == TPL_LIST || a.kind == TPL_TUPLE)
            return add_lists(r, a.u.l, b.u.l, a.kind, out);
    }
    if (op == TPL_OP_MUL && int_b && is_repeatable(a))
        return repeat(r, a, y, out);
    if (op == TPL_OP_MUL && int_a && is_repeatable(b))
        return repeat(r, b, x, out);
    if (op == TPL_OP_MOD && a.kind == TPL_STR)
        return tpl_percent_format(r, tpl_text(a), b, out);
    if (op == TPL_OP_ADD && a.kind == TPL_STR && b.kind != TPL_UNDEFINED)
        return tpl_fail(r, FR_EINVAL, "can only concatenate str (not \"%s\") to str",
                        tpl_type_name(b));
    return fail_operands(r, op, a, b);
}

fr_status tpl_negate(tpl_run *r, tpl_value v, tpl_value *out)
{
    int64_t i;
    if (v.kind == TPL_FLOAT) {
        *out = tpl_float(-v.u.f);
        return FR_OK;
    }
    if (tpl_as_int(v, &i))
        return int_math(r, TPL_OP_SUB, 0, i, out);
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    return tpl_fail(r, FR_EINVAL, "bad operand type for unary -: '%s'", tpl_type_name(v));
}

/* ---- comparison
 * ----------------------------------------------------------------------------------- */

fr_status tpl_contains(tpl_run *r, tpl_value item, tpl_value container, bool *out)
{
    *out = false;
    if (container.kind == TPL_STR) {
        if (item.kind != TPL_STR)
            return tpl_fail(r, FR_EINVAL, "'in <string>' requires string as left operand, not %s",
                            tpl_type_name(item));
        FR_TRY(tpl_spend_bytes(r, container.u.s->n));
        *out = tpl_find(tpl_text(container), tpl_text(item), 0) != SIZE_MAX;
        return FR_OK;
    }
    if (container.kind == TPL_DICT) {
        tpl_value v;
        FR_TRY(tpl_dict_get(r, container.u.d, item, &v));
        *out = v.kind != TPL_MISSING;
        return FR_OK;
    }
    if (!tpl_is_iterable(container))
        return tpl_fail(r, FR_EINVAL, "argument of type '%s' is not iterable",
                        tpl_type_name(container));
    const tpl_value *items;
    size_t n;
    FR_TRY(tpl_items(r, container, &items, &n));
    size_t i = 0;
    while (i < n && !*out)
        FR_TRY(tpl_equal(r, items[i++], item, out));
    if (container.kind == TPL_SEQ && container.u.l->flavour == TPL_GENERATOR)
        container.u.l->used -= n - i; /* the search read no further */
    return FR_OK;
}

static fr_status ordering(tpl_run *r, tpl_op op, tpl_value a, tpl_value b, bool *out)
{
    int c;
    FR_TRY(tpl_compare(r, a, b, op_text(op), &c));
    switch (op) { /* 2 stands for NaN: neither less nor greater nor equal */
    case TPL_OP_LT:
        *out = c == -1;
        break;
    case TPL_OP_LE:
        *out = c == -1 || c == 0;
        break;
    case TPL_OP_GT:
        *out = c == 1;
        break;
    default:
        *out = c == 1 || c == 0;
        break;
    }
    return FR_OK;
}

fr_status tpl_binary(tpl_run *r, tpl_op op, tpl_value a, tpl_value b, tpl_value *out)
{
    bool holds = false;
    switch (op) {
    case TPL_OP_EQ:
    case TPL_OP_NE:
        FR_TRY(tpl_equal(r, a, b, &holds));
        *out = tpl_bool(holds == (op == TPL_OP_EQ));
        return FR_OK;
    case TPL_OP_IN:
    case TPL_OP_NOT_IN:
        FR_TRY(tpl_contains(r, a, b, &holds));
        *out = tpl_bool(holds == (op == TPL_OP_IN));
        return FR_OK;
    case TPL_OP_LT:
    case TPL_OP_LE:
    case TPL_OP_GT:
    case TPL_OP_GE:
        FR_TRY(ordering(r, op, a, b, &holds));
        *out = tpl_bool(holds);
        return FR_OK;
    default:
        return arithmetic(r, op, a, b, out);
    }
}

/* ---- attributes and items
 * ------------------------------------------------------------------------- */

static tpl_value undefined_attr(tpl_value owner, tpl_str *name)
{
    return (tpl_value){
        .kind = TPL_UNDEFINED, .sub = TPL_UNDEF_ATTR, .owner = owner.kind, .u.s = name};
}

static fr_status make_method(tpl_run *r, tpl_value self, const tpl_row *row, tpl_value *out)
{
    tpl_method *m = TPL_NEW(tpl_method, r, 1);
    if (!m)
        return FR_ENOMEM;
    *m = (tpl_method){self, row};
    *out = (tpl_value){.kind = TPL_METHOD, .u.method = m};
    return FR_OK;
}

/* Attributes that are values, not methods; TPL_MISSING when there is none. */
static fr_status plain_attr(tpl_run *r, tpl_value v, tpl_str *name, tpl_value *out)
{
    fr_str word = {name->p, name->n};
    *out = tpl_missing();
    switch (v.kind) {
    case TPL_DICT:
    case TPL_NAMESPACE:
        return tpl_dict_get_str(r, v.u.d, name, out);
    case TPL_LOOP:
        return tpl_loop_attr(r, v.u.loop, word, out);
    case TPL_TUPLE:
        if (v.u.l->grouped && fr_str_is(word, "grouper"))
            *out = v.u.l->v[0];
        else if (v.u.l->grouped && fr_str_is(word, "list"))
            *out = v.u.l->v[1];
        return FR_OK;
    case TPL_MACRO:
        if (fr_str_is(word, "name"))
            *out = v.u.macro->node->value;
        return FR_OK;
    case TPL_CYCLER:
        if (fr_str_is(word, "current"))
            *out = v.u.stepper->items.v[v.u.stepper->at];
        return FR_OK;
    default:
        return FR_OK;
    }
}

fr_status tpl_getattr(tpl_run *r, tpl_value v, tpl_str *name, tpl_value *out)
{
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    const tpl_row *row = tpl_find_method(v, (fr_str){name->p, name->n});
    if (row)
        return make_method(r, v, row, out);
    FR_TRY(plain_attr(r, v, name, out));
    if (out->kind == TPL_MISSING)
        *out = undefined_attr(v, name);
    return FR_OK;
}

static tpl_value undefined_item(tpl_value owner, tpl_value key)
{
    tpl_value v = tpl_undefined();
    int64_t i;
    if (tpl_as_int(key, &i)) {
        v.sub = TPL_UNDEF_INDEX;
        v.owner = owner.kind;
        v.u.i = i;
    }
    return v;
}

/* Position of an index that may count from the end; false when outside. */
static bool place_index(int64_t i, size_t n, size_t *at)
{
    if (i < 0)
        i += (int64_t)n;
    *at = (size_t)i;
    return i >= 0 && (size_t)i < n;
}

static fr_status char_at(tpl_run *r, tpl_str *s, size_t k, tpl_value *out)
{
    fr_str text = {s->p, s->n};
    uint32_t cp;
    bool bytes = tpl_str_chars(s) == s->n;
    size_t at = bytes ? k : tpl_char_offset(text, k);
    if (!bytes)
        FR_TRY(tpl_spend_bytes(r, at));
    return tpl_str_view(r, (fr_str){s->p + at, (size_t)tpl_decode(text, at, &cp)}, out);
}

fr_status tpl_getitem(tpl_run *r, tpl_value v, tpl_value key, tpl_value *out)
{
    int64_t i;
    size_t n, at;
    *out = tpl_missing();
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    if (v.kind == TPL_DICT && key.kind != TPL_LIST && key.kind != TPL_DICT) {
        FR_TRY(tpl_dict_get(r, v.u.d, key, out));
    } else if (tpl_as_int(key, &i) && tpl_length(v, &n) && place_index(i, n, &at)) {
        if (v.kind == TPL_STR)
            return char_at(r, v.u.s, at, out);
        bool indexed = v.kind == TPL_LIST || v.kind == TPL_TUPLE ||
                       (v.kind == TPL_SEQ && v.u.l->flavour == TPL_RANGE);
        if (indexed)
            *out = v.u.l->v[at];
    }
    if (out->kind != TPL_MISSING)
        return FR_OK;
    if (key.kind == TPL_STR)
        return tpl_getattr(r, v, key.u.s, out);
    *out = undefined_item(v, key);
    return FR_OK;
}

/* ---- slices
 * --------------------------------------------------------------------------------------- */

typedef struct {
    int64_t start, step;
    size_t n; /* how many items */
} span;

static fr_status slice_bound(tpl_run *r, tpl_value v, int64_t fallback, int64_t low, int64_t high,
                             int64_t n, int64_t *out)
{
    *out = fallback;
    if (v.kind == TPL_NONE)
        return FR_OK;
    if (!tpl_as_int(v, out))
        return tpl_fail(r, FR_EINVAL, "slice indices must be integers or none, found '%s'",
                        tpl_type_name(v));
    if (*out < 0)
        *out = *out < -n ? low : *out + n;
    *out = *out < low ? low : *out > high ? high : *out;
    return FR_OK;
}

static fr_status slice_span(tpl_run *r, size_t length, tpl_value start, tpl_value stop,
                            tpl_value step, span *out)
{
    int64_t n = (int64_t)length, first, last, by = 1;
    if (step.kind != TPL_NONE && !tpl_as_int(step, &by))
        return tpl_fail(r, FR_EINVAL, "slice indices must be integers or none, found '%s'",
                        tpl_type_name(step));
    if (by == 0)
        return tpl_fail(r, FR_EINVAL, "slice step cannot be zero");
    if (by < -INT64_MAX)
        by = -INT64_MAX;
    bool back = by < 0;
    int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
    FR_TRY(slice_bound(r, start, back ? high : low, low, high, n, &first));
    FR_TRY(slice_bound(r, stop, back ? low : high, low, high, n, &last));
    int64_t distance = back ? first - last : last - first, stride = back ? -by : by;
    *out = (span){first, by, distance > 0 ? (size_t)((distance - 1) / stride + 1) : 0};
    return FR_OK;
}

/* Characters of a string one by one, for steps other than 1. */
static fr_status slice_chars(tpl_run *r, tpl_value v, span s, tpl_value *out)
{
    const tpl_value *chars;
    size_t n, mark = r->out.n;
    FR_TRY(tpl_items(r, v, &chars, &n));
    for (size_t k = 0; k < s.n; k++)
        FR_TRY(tpl_emit_value(r, chars[s.start + (int64_t)k * s.step]));
    return tpl_capture(r, mark, out);
}

static fr_status slice_str(tpl_run *r, tpl_value v, span s, tpl_value *out)
{
    fr_str text = tpl_text(v);
    if (s.n == 0)
        return tpl_str_view(r, (fr_str){"", 0}, out);
    if (s.step != 1)
        return slice_chars(r, v, s, out);
    if (tpl_str_chars(v.u.s) == text.n)
        return tpl_str_view(r, (fr_str){text.p + s.start, s.n}, out);
    FR_TRY(tpl_spend_bytes(r, text.n));
    size_t from = tpl_char_offset(text, (size_t)s.start);
    fr_str rest = {text.p + from, text.n - from};
    return tpl_str_view(r, (fr_str){rest.p, tpl_char_offset(rest, s.n)}, out);
}

fr_status tpl_slice(tpl_run *r, tpl_value v, tpl_value start, tpl_value stop, tpl_value step,
                    tpl_value *out)
{
    size_t length;
    span s = {0};
    bool range = v.kind == TPL_SEQ && v.u.l->flavour == TPL_RANGE;
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    if (!is_repeatable(v) && !range)
        return tpl_fail(r, FR_EINVAL, "'%s' object cannot be sliced", tpl_type_name(v));
    tpl_length(v, &length);
    FR_TRY(slice_span(r, length, start, stop, step, &s));
    if (v.kind == TPL_STR)
        return slice_str(r, v, s, out);
    tpl_value list;
    FR_TRY(tpl_spend(r, 1 + s.n / 16));
    FR_TRY(tpl_list_new(r, range ? TPL_LIST : v.kind, s.n, &list));
    for (size_t k = 0; k < s.n; k++)
        list.u.l->v[k] = v.u.l->v[s.start + (int64_t)k * s.step];
    list.u.l->n = s.n;
    *out = list;
    return FR_OK;
}

/* ---- the loop variable
 * ---------------------------------------------------------------------------- */

static fr_status loop_length(tpl_run *r, tpl_loop *l, int64_t *out)
{
    bool exists;
    FR_TRY(tpl_loop_reach(r, l, SIZE_MAX - 1, &exists));
    *out = (int64_t)l->passed.n;
    return FR_OK;
}

static fr_status loop_neighbour(tpl_run *r, tpl_loop *l, bool next, tpl_value *out)
{
    bool exists = l->index0 > 0;
    size_t at = l->index0 + (next ? 1 : (size_t)-1);
    if (next)
        FR_TRY(tpl_loop_reach(r, l, at, &exists));
    *out = exists ? l->passed.v[at] : tpl_undefined();
    return FR_OK;
}

fr_status tpl_loop_attr(tpl_run *r, tpl_loop *l, fr_str name, tpl_value *out)
{
    int64_t at = (int64_t)l->index0, n;
    bool exists;
    if (fr_str_is(name, "index0"))
        *out = tpl_int(at);
    else if (fr_str_is(name, "index"))
        *out = tpl_int(at + 1);
    else if (fr_str_is(name, "first"))
        *out = tpl_bool(at == 0);
    else if (fr_str_is(name, "depth"))
        *out = tpl_int(l->depth0 + 1);
    else if (fr_str_is(name, "depth0"))
        *out = tpl_int(l->depth0);
    else if (fr_str_is(name, "previtem") || fr_str_is(name, "nextitem"))
        return loop_neighbour(r, l, name.p[0] == 'n', out);
    else if (fr_str_is(name, "last")) {
        FR_TRY(tpl_loop_reach(r, l, l->index0 + 1, &exists));
        *out = tpl_bool(!exists);
    } else if (fr_str_is(name, "length") || fr_str_is(name, "revindex") ||
               fr_str_is(name, "revindex0")) {
        FR_TRY(loop_length(r, l, &n));
        *out = tpl_int(name.p[0] == 'l' ? n : name.n == 8 ? n - at : n - at - 1);
    }
    return FR_OK;
}

/* ---- sorting
 * -------------------------------------------------------------------------------------- */

typedef struct {
    tpl_value value, key;
} sort_item;

/* Merges the halves of src[0, n) into dst; equal items keep their order. */
static fr_status merge(tpl_run *r, const sort_item *src, size_t half, size_t n, bool reverse,
                       sort_item *dst)
{
    size_t i = 0, j = half, k = 0;
    while (i < half && j < n) {
        int c;
        FR_TRY(tpl_compare(r, src[j].key, src[i].key, "<", &c));
        bool second = reverse ? c == 1 : c == -1;
        dst[k++] = second ? src[j++] : src[i++];
    }
    while (i < half)
        dst[k++] = src[i++];
    while (j < n)
        dst[k++] = src[j++];
    return FR_OK;
}

fr_status tpl_sort(tpl_run *r, tpl_value *v, tpl_value *keys, size_t n, bool reverse)
{
    sort_item *a = TPL_NEW(sort_item, r, n), *b = TPL_NEW(sort_item, r, n);
    if (!a || !b)
        return FR_ENOMEM;
    for (size_t i = 0; i < n; i++)
        a[i] = (sort_item){v[i], keys[i]};
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t i = 0; i < n; i += 2 * width) {
            size_t left = n - i, run = left < 2 * width ? left : 2 * width;
            FR_TRY(merge(r, a + i, width < run ? width : run, run, reverse, b + i));
        }
        sort_item *t = a;
        a = b;
        b = t;
    }
    for (size_t i = 0; i < n; i++)
        v[i] = a[i].value;
    return FR_OK;
}
