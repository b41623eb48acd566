#include <string.h>

#include "token/template_eval.h"

const tpl_row *tpl_find_row(const tpl_table *t, fr_str name)
{
    for (size_t i = 0; i < t->n; i++)
        if (fr_str_is(name, t->rows[i].name))
            return &t->rows[i];
    return NULL;
}

fr_status tpl_fail_unknown(tpl_run *r, const tpl_table *t, fr_str name)
{
    enum { MAX_NAMES = 96 };
    const char *names[MAX_NAMES];
    size_t n = t->n < MAX_NAMES ? t->n : MAX_NAMES;
    for (size_t i = 0; i < n; i++)
        names[i] = t->rows[i].name;
    const char *near = fr_nearest_name(name, names, n, 3);
    return tpl_fail(r, FR_EUNSUPPORTED, "no %s named '%.*s'%s%s%s", t->what, FR_STR_ARG(name),
                    near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

const tpl_row *tpl_find_method(tpl_value v, fr_str name)
{
    switch (v.kind) {
    case TPL_STR:
        return tpl_find_row(&tpl_str_methods, name);
    case TPL_LIST:
        return tpl_find_row(&tpl_list_methods, name);
    case TPL_TUPLE:
        return tpl_find_row(&tpl_tuple_methods, name);
    case TPL_DICT:
        return tpl_find_row(&tpl_dict_methods, name);
    case TPL_LOOP:
        return tpl_find_row(&tpl_loop_methods, name);
    case TPL_CYCLER:
        return tpl_find_row(&tpl_cycler_methods, name);
    default:
        return NULL;
    }
}

/* ---- binding arguments to the parameters of a row
 * ------------------------------------------------- */

typedef struct {
    fr_str name;
    bool required;
} param;

/* Reads the parameter list of a row. */
static size_t read_params(const char *s, param out[TPL_MAX_PARAMS], bool *star, bool *starstar)
{
    size_t n = 0;
    *star = *starstar = false;
    while (*s) {
        size_t len = strcspn(s, " ");
        fr_str word = {s, len};
        s += len + (s[len] == ' ');
        if (fr_str_is(word, "*")) {
            *star = true;
        } else if (fr_str_is(word, "**")) {
            *starstar = true;
        } else if (n < TPL_MAX_PARAMS) {
            out[n].required = word.p[len - 1] == '!';
            word.n -= out[n].required;
            out[n++].name = word;
        }
    }
    return n;
}

static fr_status bind_keywords(tpl_run *r, const tpl_row *row, const param *params, size_t n,
                               const tpl_args *args, tpl_call *c)
{
    for (size_t i = 0; i < args->n_kw; i++) {
        size_t k = 0;
        while (k < n && !fr_str_eq(params[k].name, args->kw[i].name))
            k++;
        if (k == n)
            return tpl_fail(r, FR_EINVAL, "%s() takes no argument named '%.*s'", row->name,
                            FR_STR_ARG(args->kw[i].name));
        if (c->a[k].kind != TPL_MISSING)
            return tpl_fail(r, FR_EINVAL, "%s() got two values for '%.*s'", row->name,
                            FR_STR_ARG(args->kw[i].name));
        c->a[k] = args->kw[i].value;
    }
    return FR_OK;
}

fr_status tpl_invoke(tpl_run *r, const tpl_row *row, const tpl_value *self, const tpl_args *args,
                     tpl_value *out)
{
    param params[TPL_MAX_PARAMS];
    bool star, starstar;
    tpl_call c = {0};
    tpl_value result = tpl_undefined();
    size_t n = read_params(row->params, params, &star, &starstar), at = 0, taken = 0;
    if (self)
        c.a[at++] = *self;
    while (at < n && taken < args->n_pos)
        c.a[at++] = args->pos[taken++];
    if (taken < args->n_pos && !star)
        return tpl_fail(r, FR_EINVAL, "%s() takes at most %zu argument(s), found %zu", row->name,
                        n - (self != NULL), args->n_pos);
    c.rest = args->pos ? args->pos + taken : NULL;
    c.n_rest = args->n_pos - taken;
    if (starstar) {
        c.kw = args->kw;
        c.n_kw = args->n_kw;
    } else {
        FR_TRY(bind_keywords(r, row, params, n, args, &c));
    }
    for (size_t i = 0; i < n; i++)
        if (params[i].required && c.a[i].kind == TPL_MISSING)
            return tpl_fail(r, FR_EINVAL, "%s() needs an argument '%.*s'", row->name,
                            FR_STR_ARG(params[i].name));
    FR_TRY(tpl_spend(r, 1));
    FR_TRY(tpl_enter(r));
    FR_TRY(row->fn(r, &c, &result));
    tpl_leave(r);
    *out = result;
    return FR_OK;
}

fr_status tpl_apply(tpl_run *r, const tpl_table *t, tpl_value name, tpl_value self,
                    const tpl_args *args, tpl_value *out)
{
    if (name.kind != TPL_STR)
        return tpl_fail(r, FR_EINVAL, "the name of a %s must be a string, found '%s'", t->what,
                        tpl_type_name(name));
    const tpl_row *row = tpl_find_row(t, tpl_text(name));
    if (!row)
        return tpl_fail_unknown(r, t, tpl_text(name));
    return tpl_invoke(r, row, &self, args, out);
}

/* ---- callable values
 * ------------------------------------------------------------------------------ */

/* loop(items) inside a recursive loop: the same body over other items, as text. */
static fr_status call_loop(tpl_run *r, const tpl_loop *l, const tpl_args *args, tpl_value *out)
{
    size_t mark = r->out.n;
    if (!l->node->flag)
        return tpl_fail(r, FR_EINVAL, "the loop must have the 'recursive' marker to be called");
    if (args->n_pos != 1 || args->n_kw)
        return tpl_fail(r, FR_EINVAL, "loop() takes one argument: what to loop over");
    FR_TRY(tpl_enter(r));
    FR_TRY(tpl_run_loop(r, l->node, l->env, args->pos[0], l->depth0 + 1));
    tpl_leave(r);
    return tpl_capture(r, mark, out);
}

/* A joiner gives nothing the first time and its separator from then on. */
static fr_status call_joiner(tpl_stepper *s, tpl_value *out)
{
    *out = s->items.v[s->at];
    s->at = 1;
    return FR_OK;
}

fr_status tpl_call_value(tpl_run *r, tpl_value callee, const tpl_args *args, tpl_value *out)
{
    switch (callee.kind) {
    case TPL_MACRO:
        return tpl_call_macro(r, callee.u.macro, args, out);
    case TPL_FUNCTION:
        return tpl_invoke(r, callee.u.row, NULL, args, out);
    case TPL_METHOD:
        return tpl_invoke(r, callee.u.method->row, &callee.u.method->self, args, out);
    case TPL_LOOP:
        return call_loop(r, callee.u.loop, args, out);
    case TPL_JOINER:
        return call_joiner(callee.u.stepper, out);
    case TPL_UNDEFINED:
        return tpl_fail_undefined(r, callee);
    default:
        return tpl_fail(r, FR_EINVAL, "'%s' object is not callable", tpl_type_name(callee));
    }
}

/* ---- reading arguments
 * ---------------------------------------------------------------------------- */

bool tpl_given(tpl_value v)
{
    return v.kind != TPL_MISSING && v.kind != TPL_NONE;
}

fr_status tpl_arg_int(tpl_run *r, tpl_value v, int64_t fallback, int64_t *out)
{
    *out = fallback;
    if (v.kind == TPL_MISSING || tpl_as_int(v, out))
        return FR_OK;
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    return tpl_fail(r, FR_EINVAL, "found '%s', expected an integer", tpl_type_name(v));
}

fr_status tpl_arg_str(tpl_run *r, tpl_value v, const char *fallback, fr_str *out)
{
    if (v.kind == TPL_MISSING && fallback) {
        *out = fr_str_of(fallback);
        return FR_OK;
    }
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    if (v.kind != TPL_STR)
        return tpl_fail(r, FR_EINVAL, "found '%s', expected a string", tpl_type_name(v));
    *out = tpl_text(v);
    return FR_OK;
}

bool tpl_arg_bool(tpl_value v, bool fallback)
{
    return v.kind == TPL_MISSING ? fallback : tpl_truthy(v);
}
