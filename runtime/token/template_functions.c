#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "token/template_builtins.h"

/* range(stop), range(start, stop), range(start, stop, step) */
static TPL_BUILTIN(fn_range)
{
    int64_t start = 0, stop, step;
    FR_TRY(tpl_arg_int(r, c->a[0], 0, &stop));
    if (c->a[1].kind != TPL_MISSING) {
        start = stop;
        FR_TRY(tpl_arg_int(r, c->a[1], 0, &stop));
    }
    FR_TRY(tpl_arg_int(r, c->a[2], 1, &step));
    if (step == 0)
        return tpl_fail(r, FR_EINVAL, "range() arg 3 must not be zero");
    __int128 way = step > 0 ? (__int128)stop - start : (__int128)start - stop;
    __int128 stride = step > 0 ? step : -(__int128)step;
    __int128 n = way > 0 ? (way - 1) / stride + 1 : 0;
    if (n > TPL_MAX_RANGE)
        return tpl_fail(r, FR_ERANGE, "range too big: more than %d items", TPL_MAX_RANGE);
    FR_TRY(tpl_list_new(r, TPL_SEQ, (size_t)n, out));
    tpl_list *l = out->u.l;
    l->flavour = TPL_RANGE;
    l->start = start;
    l->stop = stop;
    l->step = step;
    for (int64_t i = 0; i < (int64_t)n; i++)
        FR_TRY(tpl_list_push(r, l, tpl_int(start + i * step)));
    return FR_OK;
}

/* The pairs of an iterable, or the items of a dictionary, and then the keyword arguments. */
static fr_status fill_dict(tpl_run *r, tpl_call *c, tpl_dict *d)
{
    tpl_value v, key;
    const tpl_value *items, *pair;
    size_t n, two;
    if (c->a[0].kind != TPL_MISSING) {
        v = c->a[0];
        if (v.kind == TPL_DICT)
            FR_TRY(tpl_dict_view(r, v.u.d, TPL_ITEMS, &v));
        FR_TRY(tpl_items(r, v, &items, &n));
        for (size_t i = 0; i < n; i++) {
            FR_TRY(tpl_items(r, items[i], &pair, &two));
            if (two != 2)
                return tpl_fail(r, FR_EINVAL, "element %zu has length %zu, expected a pair", i,
                                two);
            FR_TRY(tpl_dict_set(r, d, pair[0], pair[1]));
        }
    }
    for (size_t i = 0; i < c->n_kw; i++) {
        FR_TRY(tpl_str_view(r, c->kw[i].name, &key));
        FR_TRY(tpl_dict_set(r, d, key, c->kw[i].value));
    }
    return FR_OK;
}

static TPL_BUILTIN(fn_dict)
{
    FR_TRY(tpl_dict_new(r, TPL_DICT, out));
    return fill_dict(r, c, out->u.d);
}

static TPL_BUILTIN(fn_namespace)
{
    FR_TRY(tpl_dict_new(r, TPL_NAMESPACE, out));
    return fill_dict(r, c, out->u.d);
}

static fr_status new_stepper(tpl_run *r, tpl_kind kind, const tpl_value *items, size_t n,
                             tpl_value *out)
{
    tpl_value list;
    tpl_stepper *s = TPL_NEW(tpl_stepper, r, 1);
    if (!s)
        return FR_ENOMEM;
    FR_TRY(tpl_list_copy(r, TPL_LIST, items, n, &list));
    s->items = *list.u.l;
    *out = (tpl_value){.kind = (uint8_t)kind, .u.stepper = s};
    return FR_OK;
}

static TPL_BUILTIN(fn_joiner)
{
    tpl_value steps[2];
    FR_TRY(tpl_str_view(r, (fr_str){"", 0}, &steps[0]));
    steps[1] = c->a[0];
    if (steps[1].kind == TPL_MISSING)
        FR_TRY(tpl_str_view(r, FR_STR(", "), &steps[1]));
    return new_stepper(r, TPL_JOINER, steps, 2, out);
}

static TPL_BUILTIN(fn_cycler)
{
    if (c->n_rest == 0)
        return tpl_fail(r, FR_EINVAL, "at least one item has to be provided");
    return new_stepper(r, TPL_CYCLER, c->rest, c->n_rest, out);
}

static TPL_BUILTIN(fn_raise_exception)
{
    tpl_value text;
    (void)out;
    FR_TRY(tpl_to_str(r, c->a[0], &text));
    return tpl_fail(r, FR_EINVAL, "%.*s", FR_STR_ARG(tpl_text(text)));
}

static TPL_BUILTIN(fn_strftime_now)
{
    enum { SIZE = 4096, MAX_FORMAT = 256 };
    fr_str format;
    char copy[MAX_FORMAT + 1], text[SIZE];
    time_t now = (time_t)r->now;
    struct tm tm;
    FR_TRY(tpl_arg_str(r, c->a[0], NULL, &format));
    if (format.n > MAX_FORMAT || (format.n && memchr(format.p, 0, format.n)))
        return tpl_fail(r, FR_ERANGE,
                        "strftime_now: found a format of %zu bytes, expected at most %d", format.n,
                        MAX_FORMAT);
    if (!gmtime_r(&now, &tm))
        return tpl_fail(r, FR_ERANGE, "strftime_now: the time is outside the calendar");
    if (format.n)
        memcpy(copy, format.p, format.n);
    copy[format.n] = 0;
    return tpl_str_copy(r, (fr_str){text, strftime(text, SIZE, copy, &tm)}, out);
}

static const tpl_row functions[] = {
    {"cycler", fn_cycler, "*"},
    {"dict", fn_dict, "mapping **"},
    {"joiner", fn_joiner, "sep"},
    {"namespace", fn_namespace, "mapping **"},
    {"raise_exception", fn_raise_exception, "message!"},
    {"range", fn_range, "start! stop step"},
    {"strftime_now", fn_strftime_now, "format!"},
};

const tpl_table tpl_functions = {"function", functions, sizeof functions / sizeof *functions};

/* ---- rendering
 * ------------------------------------------------------------------------------------ */

/* Globals are the members of the context that the template mentions, then the functions. */
static fr_status load_globals(tpl_run *r, const json_t *context)
{
    r->globals = TPL_NEW(tpl_value, r, r->t->n_symbols);
    if (!r->globals)
        return FR_ENOMEM;
    for (size_t i = 0; i < r->t->n_symbols; i++) {
        fr_str name = r->t->symbols[i].name;
        const json_t *json = json_object_get(context, name.p);
        const tpl_row *row = tpl_find_row(&tpl_functions, name);
        if (json)
            FR_TRY(tpl_from_json(r, json, true, &r->globals[i]));
        else if (row)
            r->globals[i] = (tpl_value){.kind = TPL_FUNCTION, .u.row = row};
    }
    return FR_OK;
}

fr_status fr_template_render(const fr_template *t, const json_t *context,
                             const fr_template_env *env, fr_buf *out, fr_err *err)
{
    tpl_run r = {.arena = fr_arena_make(FR_MEM_TEXT), .t = t, .err = err, .line = 1, .col = 1};
    r.now = env ? env->now : 0;
    fr_status st = load_globals(&r, context);
    if (st == FR_OK)
        st = tpl_exec(&r, NULL, t->body);
    if (st == FR_OK && r.out.n)
        st = fr_buf_add(out, r.out.p, r.out.n, err);
    fr_buf_free(&r.out);
    fr_arena_free(&r.arena);
    return st;
}
