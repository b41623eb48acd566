/* The methods of lists, tuples, dictionaries, the loop variable and cyclers. Lists and dictionaries
 * belong to the render, so methods that change them touch nothing of the caller's. */
#include <string.h>

#include "token/template_builtins.h"

/* ---- lists and tuples
 * ----------------------------------------------------------------------------- */

/* A place for insert: counts from the end when negative, and is kept inside. */
static size_t clamp_place(int64_t i, size_t n)
{
    if (i < 0)
        i = i + (int64_t)n < 0 ? 0 : i + (int64_t)n;
    return (size_t)i < n ? (size_t)i : n;
}

static fr_status insert_at(tpl_run *r, tpl_list *l, size_t at, tpl_value v)
{
    FR_TRY(tpl_list_push(r, l, v));
    FR_TRY(tpl_spend(r, (l->n - at) / 16));
    memmove(l->v + at + 1, l->v + at, (l->n - 1 - at) * sizeof *l->v);
    l->v[at] = v;
    return FR_OK;
}

static fr_status remove_at(tpl_run *r, tpl_list *l, size_t at)
{
    l->n--;
    memmove(l->v + at, l->v + at + 1, (l->n - at) * sizeof *l->v);
    return tpl_spend(r, (l->n - at) / 16);
}

/* The first place of an equal item; l->n when there is none. */
static fr_status place_of(tpl_run *r, const tpl_list *l, tpl_value v, size_t *at)
{
    bool same = false;
    for (*at = 0; *at < l->n; ++*at) {
        FR_TRY(tpl_equal(r, l->v[*at], v, &same));
        if (same)
            return FR_OK;
    }
    return FR_OK;
}

static TPL_BUILTIN(list_append)
{
    *out = tpl_none();
    return tpl_list_push(r, c->a[0].u.l, c->a[1]);
}

static TPL_BUILTIN(list_extend)
{
    const tpl_value *items;
    size_t n;
    FR_TRY(tpl_items(r, c->a[1], &items, &n));
    for (size_t i = 0; i < n; i++)
        FR_TRY(tpl_list_push(r, c->a[0].u.l, items[i]));
    *out = tpl_none();
    return FR_OK;
}

static TPL_BUILTIN(list_insert)
{
    int64_t i;
    FR_TRY(tpl_arg_int(r, c->a[1], 0, &i));
    *out = tpl_none();
    return insert_at(r, c->a[0].u.l, clamp_place(i, c->a[0].u.l->n), c->a[2]);
}

static TPL_BUILTIN(list_pop)
{
    tpl_list *l = c->a[0].u.l;
    int64_t i;
    FR_TRY(tpl_arg_int(r, c->a[1], -1, &i));
    i += i < 0 ? (int64_t)l->n : 0;
    if (i < 0 || (size_t)i >= l->n)
        return tpl_fail(r, FR_EINVAL, "pop from an empty list or index out of range");
    *out = l->v[i];
    return remove_at(r, l, (size_t)i);
}

static TPL_BUILTIN(list_remove)
{
    size_t at;
    FR_TRY(place_of(r, c->a[0].u.l, c->a[1], &at));
    if (at == c->a[0].u.l->n)
        return tpl_fail(r, FR_EINVAL, "list.remove(x): x not in list");
    *out = tpl_none();
    return remove_at(r, c->a[0].u.l, at);
}

static TPL_BUILTIN(list_clear)
{
    (void)r;
    c->a[0].u.l->n = 0;
    *out = tpl_none();
    return FR_OK;
}

static TPL_BUILTIN(list_copy)
{
    return tpl_list_copy(r, TPL_LIST, c->a[0].u.l->v, c->a[0].u.l->n, out);
}

static TPL_BUILTIN(list_reverse)
{
    tpl_value back;
    tpl_list *l = c->a[0].u.l;
    FR_TRY(tpl_slice(r, c->a[0], tpl_none(), tpl_none(), tpl_int(-1), &back));
    if (l->n)
        memcpy(l->v, back.u.l->v, l->n * sizeof *l->v);
    *out = tpl_none();
    return FR_OK;
}

static TPL_BUILTIN(list_sort)
{
    tpl_list *l = c->a[0].u.l;
    tpl_value keys;
    FR_TRY(tpl_list_copy(r, TPL_LIST, l->v, l->n, &keys));
    *out = tpl_none();
    return tpl_sort(r, l->v, keys.u.l->v, l->n, tpl_arg_bool(c->a[1], false));
}

static TPL_BUILTIN(list_count)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->a[0].u.l->n; i++) {
        bool same;
        FR_TRY(tpl_equal(r, c->a[0].u.l->v[i], c->a[1], &same));
        n += same;
    }
    *out = tpl_int(n);
    return FR_OK;
}

static TPL_BUILTIN(list_index)
{
    size_t at;
    FR_TRY(place_of(r, c->a[0].u.l, c->a[1], &at));
    if (at == c->a[0].u.l->n)
        return tpl_fail(r, FR_EINVAL, "the value is not in the list");
    *out = tpl_int((int64_t)at);
    return FR_OK;
}

static const tpl_row list_rows[] = {
    {"append", list_append, "self! object!"},
    {"clear", list_clear, "self!"},
    {"copy", list_copy, "self!"},
    {"count", list_count, "self! value!"},
    {"extend", list_extend, "self! items!"},
    {"index", list_index, "self! value!"},
    {"insert", list_insert, "self! index! object!"},
    {"pop", list_pop, "self! index"},
    {"remove", list_remove, "self! value!"},
    {"reverse", list_reverse, "self!"},
    {"sort", list_sort, "self! reverse"},
};

static const tpl_row tuple_rows[] = {
    {"count", list_count, "self! value!"},
    {"index", list_index, "self! value!"},
};

/* ---- dictionaries
 * --------------------------------------------------------------------------------- */

static TPL_BUILTIN(dict_items)
{
    return tpl_dict_view(r, c->a[0].u.d, TPL_ITEMS, out);
}

static TPL_BUILTIN(dict_keys)
{
    return tpl_dict_view(r, c->a[0].u.d, TPL_KEYS, out);
}

static TPL_BUILTIN(dict_values)
{
    return tpl_dict_view(r, c->a[0].u.d, TPL_VALUES, out);
}

static tpl_value or_none(tpl_value v)
{
    return v.kind == TPL_MISSING ? tpl_none() : v;
}

static TPL_BUILTIN(dict_get)
{
    FR_TRY(tpl_dict_get(r, c->a[0].u.d, c->a[1], out));
    if (out->kind == TPL_MISSING)
        *out = or_none(c->a[2]);
    return FR_OK;
}

static TPL_BUILTIN(dict_setdefault)
{
    FR_TRY(tpl_dict_get(r, c->a[0].u.d, c->a[1], out));
    if (out->kind != TPL_MISSING)
        return FR_OK;
    *out = or_none(c->a[2]);
    return tpl_dict_set(r, c->a[0].u.d, c->a[1], *out);
}

static TPL_BUILTIN(dict_pop)
{
    FR_TRY(tpl_dict_remove(r, c->a[0].u.d, c->a[1], out));
    if (out->kind != TPL_MISSING)
        return FR_OK;
    if (c->a[2].kind == TPL_MISSING)
        return tpl_fail(r, FR_EINVAL, "pop: the dictionary has no such key");
    *out = c->a[2];
    return FR_OK;
}

static TPL_BUILTIN(dict_popitem)
{
    tpl_dict *d = c->a[0].u.d;
    tpl_value gone;
    if (d->n == 0)
        return tpl_fail(r, FR_EINVAL, "popitem: the dictionary is empty");
    tpl_pair last = d->v[d->n - 1];
    FR_TRY(tpl_list_copy(r, TPL_TUPLE, (tpl_value[]){last.key, last.value}, 2, out));
    return tpl_dict_remove(r, d, last.key, &gone);
}

static fr_status add_all(tpl_run *r, tpl_dict *to, const tpl_dict *from)
{
    for (size_t i = 0; i < from->n; i++)
        FR_TRY(tpl_dict_set(r, to, from->v[i].key, from->v[i].value));
    return FR_OK;
}

static TPL_BUILTIN(dict_update)
{
    tpl_value key;
    if (c->a[1].kind == TPL_DICT)
        FR_TRY(add_all(r, c->a[0].u.d, c->a[1].u.d));
    else if (c->a[1].kind != TPL_MISSING)
        return tpl_fail(r, FR_EINVAL, "update: found '%s', expected a mapping",
                        tpl_type_name(c->a[1]));
    for (size_t i = 0; i < c->n_kw; i++) {
        FR_TRY(tpl_str_view(r, c->kw[i].name, &key));
        FR_TRY(tpl_dict_set(r, c->a[0].u.d, key, c->kw[i].value));
    }
    *out = tpl_none();
    return FR_OK;
}

static TPL_BUILTIN(dict_copy)
{
    FR_TRY(tpl_dict_new(r, TPL_DICT, out));
    return add_all(r, out->u.d, c->a[0].u.d);
}

static TPL_BUILTIN(dict_clear)
{
    (void)r;
    *c->a[0].u.d = (tpl_dict){0};
    *out = tpl_none();
    return FR_OK;
}

static const tpl_row dict_rows[] = {
    {"clear", dict_clear, "self!"},
    {"copy", dict_copy, "self!"},
    {"get", dict_get, "self! key! default"},
    {"items", dict_items, "self!"},
    {"keys", dict_keys, "self!"},
    {"pop", dict_pop, "self! key! default"},
    {"popitem", dict_popitem, "self!"},
    {"setdefault", dict_setdefault, "self! key! default"},
    {"update", dict_update, "self! other **"},
    {"values", dict_values, "self!"},
};

/* ---- loop and cycler
 * ------------------------------------------------------------------------------ */

static TPL_BUILTIN(loop_cycle)
{
    if (c->n_rest == 0)
        return tpl_fail(r, FR_EINVAL, "no items for cycling given");
    *out = c->rest[c->a[0].u.loop->index0 % c->n_rest];
    return FR_OK;
}

/* Whether the values differ from those of the call before, or there was none. */
static TPL_BUILTIN(loop_changed)
{
    tpl_loop *l = c->a[0].u.loop;
    tpl_value now;
    bool same = false;
    FR_TRY(tpl_list_copy(r, TPL_TUPLE, c->rest, c->n_rest, &now));
    if (l->changed.kind == TPL_TUPLE)
        FR_TRY(tpl_equal(r, now, l->changed, &same));
    l->changed = now;
    *out = tpl_bool(!same);
    return FR_OK;
}

static TPL_BUILTIN(cycler_next)
{
    tpl_stepper *s = c->a[0].u.stepper;
    (void)r;
    *out = s->items.v[s->at];
    s->at = (s->at + 1) % s->items.n;
    return FR_OK;
}

static TPL_BUILTIN(cycler_reset)
{
    (void)r;
    c->a[0].u.stepper->at = 0;
    *out = tpl_none();
    return FR_OK;
}

static const tpl_row loop_rows[] = {
    {"changed", loop_changed, "self! *"},
    {"cycle", loop_cycle, "self! *"},
};

static const tpl_row cycler_rows[] = {
    {"next", cycler_next, "self!"},
    {"reset", cycler_reset, "self!"},
};

#define TABLE(what, rows)                                                                          \
    {                                                                                              \
        what, rows, sizeof rows / sizeof *rows                                                     \
    }

const tpl_table tpl_list_methods = TABLE("method of lists", list_rows);
const tpl_table tpl_tuple_methods = TABLE("method of tuples", tuple_rows);
const tpl_table tpl_dict_methods = TABLE("method of dictionaries", dict_rows);
const tpl_table tpl_loop_methods = TABLE("method of loops", loop_rows);
const tpl_table tpl_cycler_methods = TABLE("method of cyclers", cycler_rows);
