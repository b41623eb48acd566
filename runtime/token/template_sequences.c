#include <string.h>

#include "token/template_builtins.h"

/* ---- attributes of items
 * -------------------------------------------------------------------------- */

/* What "attribute" names: "a.b.0" goes from item to item, digits as numbers. NULL parts: the item
 * itself. */
typedef struct {
    tpl_value *parts;
    size_t n;
    bool fold; /* strings compare without regard to case */
} getter;

static bool all_digits(fr_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0 && s.n < 18;
}

static fr_status path_part(tpl_run *r, fr_str word, tpl_value *out)
{
    if (!all_digits(word))
        return tpl_str_view(r, word, out);
    int64_t i = 0;
    for (size_t k = 0; k < word.n; k++)
        i = i * 10 + (word.p[k] - '0');
    *out = tpl_int(i);
    return FR_OK;
}

static fr_status read_path(tpl_run *r, fr_str path, getter *g)
{
    size_t n = 1;
    for (size_t i = 0; i < path.n; i++)
        n += path.p[i] == '.';
    g->parts = TPL_NEW(tpl_value, r, n);
    if (!g->parts)
        return FR_ENOMEM;
    for (size_t begin = 0; g->n < n; g->n++) {
        size_t end = tpl_find(path, FR_STR("."), begin);
        end = end == SIZE_MAX ? path.n : end;
        FR_TRY(path_part(r, (fr_str){path.p + begin, end - begin}, &g->parts[g->n]));
        begin = end + 1;
    }
    return FR_OK;
}

static fr_status make_getter(tpl_run *r, tpl_value attribute, bool fold, getter *g)
{
    *g = (getter){.fold = fold};
    if (!tpl_given(attribute))
        return FR_OK;
    if (attribute.kind == TPL_STR)
        return read_path(r, tpl_text(attribute), g);
    g->parts = TPL_NEW(tpl_value, r, 1);
    if (!g->parts)
        return FR_ENOMEM;
    g->parts[g->n++] = attribute;
    return FR_OK;
}

static fr_status get_path(tpl_run *r, const getter *g, tpl_value item, tpl_value fallback,
                          tpl_value *out)
{
    *out = item;
    for (size_t i = 0; i < g->n; i++) {
        FR_TRY(tpl_getitem(r, *out, g->parts[i], out));
        if (out->kind == TPL_UNDEFINED && tpl_given(fallback))
            *out = fallback;
    }
    if (g->fold && out->kind == TPL_STR)
        return tpl_change_case(r, tpl_text(*out), TPL_CASE_LOWER, out);
    return FR_OK;
}

static fr_status get(tpl_run *r, const getter *g, tpl_value item, tpl_value *out)
{
    return get_path(r, g, item, tpl_missing(), out);
}

/* ---- results
 * -------------------------------------------------------------------------------------- */

static fr_status new_generator(tpl_run *r, size_t cap, tpl_value *out)
{
    FR_TRY(tpl_list_new(r, TPL_SEQ, cap, out));
    out->u.l->flavour = TPL_GENERATOR;
    return FR_OK;
}

fr_status tpl_dict_view(tpl_run *r, const tpl_dict *d, tpl_flavour flavour, tpl_value *out)
{
    FR_TRY(tpl_list_new(r, TPL_SEQ, d->n, out));
    tpl_list *l = out->u.l;
    l->flavour = flavour;
    for (size_t i = 0; i < d->n; i++) {
        tpl_value v = flavour == TPL_KEYS ? d->v[i].key : d->v[i].value;
        if (flavour == TPL_ITEMS)
            FR_TRY(tpl_list_copy(r, TPL_TUPLE, (tpl_value[]){d->v[i].key, d->v[i].value}, 2, &v));
        FR_TRY(tpl_list_push(r, l, v));
    }
    return FR_OK;
}

/* ---- one from many
 * -------------------------------------------------------------------------------- */

TPL_BUILTIN(tpl_filter_length)
{
    size_t n;
    if (!tpl_length(c->a[0], &n))
        return tpl_fail(r, FR_EINVAL, "object of type '%s' has no len()", tpl_type_name(c->a[0]));
    *out = tpl_int((int64_t)n);
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_first)
{
    const tpl_value *items;
    size_t n, used = c->a[0].kind == TPL_SEQ ? c->a[0].u.l->used : 0;
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    *out = n ? items[0] : tpl_undefined();
    if (c->a[0].kind == TPL_SEQ && c->a[0].u.l->flavour == TPL_GENERATOR)
        c->a[0].u.l->used = used + (n > 0); /* only one item was taken */
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_last)
{
    const tpl_value *items;
    size_t n;
    if (c->a[0].kind == TPL_SEQ && c->a[0].u.l->flavour == TPL_GENERATOR)
        return tpl_fail(r, FR_EINVAL, "'generator' object is not reversible");
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    *out = n ? items[n - 1] : tpl_undefined();
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_join)
{
    const tpl_value *items;
    tpl_value separator = c->a[1], v;
    size_t n, mark;
    getter g;
    FR_TRY(make_getter(r, c->a[2], false, &g));
    FR_TRY(tpl_to_str(r, separator, &separator));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    mark = r->out.n;
    for (size_t i = 0; i < n; i++) {
        if (i)
            FR_TRY(tpl_emit_str(r, tpl_text(separator)));
        FR_TRY(get(r, &g, items[i], &v));
        FR_TRY(tpl_emit_value(r, v));
    }
    return tpl_capture(r, mark, out);
}

TPL_BUILTIN(tpl_filter_sum)
{
    const tpl_value *items;
    tpl_value v, total = c->a[2].kind == TPL_MISSING ? tpl_int(0) : c->a[2];
    size_t n;
    getter g;
    FR_TRY(make_getter(r, c->a[1], false, &g));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    for (size_t i = 0; i < n; i++) {
        FR_TRY(get(r, &g, items[i], &v));
        FR_TRY(tpl_binary(r, TPL_OP_ADD, total, v, &total));
    }
    *out = total;
    return FR_OK;
}

static fr_status extreme(tpl_run *r, tpl_call *c, int wanted, tpl_value *out)
{
    const tpl_value *items;
    tpl_value key, best = tpl_undefined();
    size_t n;
    getter g;
    FR_TRY(make_getter(r, c->a[2], !tpl_arg_bool(c->a[1], false), &g));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    *out = best;
    for (size_t i = 0; i < n; i++) {
        int order = wanted;
        FR_TRY(get(r, &g, items[i], &key));
        if (i > 0)
            FR_TRY(tpl_compare(r, key, best, wanted < 0 ? "<" : ">", &order));
        if (order != wanted)
            continue;
        best = key;
        *out = items[i];
    }
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_min)
{
    return extreme(r, c, -1, out);
}

TPL_BUILTIN(tpl_filter_max)
{
    return extreme(r, c, 1, out);
}

/* ---- other orders
 * --------------------------------------------------------------------------------- */

TPL_BUILTIN(tpl_filter_list)
{
    const tpl_value *items;
    size_t n;
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    return tpl_list_copy(r, TPL_LIST, items, n, out);
}

TPL_BUILTIN(tpl_filter_items)
{
    if (c->a[0].kind == TPL_UNDEFINED)
        return new_generator(r, 0, out);
    if (c->a[0].kind != TPL_DICT)
        return tpl_fail(r, FR_EINVAL, "Can only get item pairs from a mapping, found '%s'",
                        tpl_type_name(c->a[0]));
    FR_TRY(tpl_dict_view(r, c->a[0].u.d, TPL_ITEMS, out));
    out->u.l->flavour = TPL_GENERATOR;
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_reverse)
{
    const tpl_value *items;
    size_t n;
    if (c->a[0].kind == TPL_STR)
        return tpl_slice(r, c->a[0], tpl_none(), tpl_none(), tpl_int(-1), out);
    bool generator = c->a[0].kind == TPL_SEQ && c->a[0].u.l->flavour == TPL_GENERATOR;
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    FR_TRY(generator ? tpl_list_new(r, TPL_LIST, n, out) : new_generator(r, n, out));
    for (size_t i = n; i-- > 0;)
        FR_TRY(tpl_list_push(r, out->u.l, items[i]));
    return FR_OK;
}

/* The key to sort an item by: a list, whose equal members need no order, even for one attribute. */
static fr_status sort_key(tpl_run *r, const getter *g, size_t n_getters, tpl_value item,
                          tpl_value *out)
{
    tpl_value list, v;
    FR_TRY(tpl_list_new(r, TPL_LIST, n_getters, &list));
    for (size_t i = 0; i < n_getters; i++) {
        FR_TRY(get(r, &g[i], item, &v));
        FR_TRY(tpl_list_push(r, list.u.l, v));
    }
    *out = list;
    return FR_OK;
}

static fr_status make_getters(tpl_run *r, tpl_value attribute, bool fold, getter **out, size_t *n)
{
    fr_str path = attribute.kind == TPL_STR ? tpl_text(attribute) : (fr_str){"", 0};
    *n = 1;
    for (size_t i = 0; i < path.n; i++)
        *n += path.p[i] == ',';
    getter *g = *out = TPL_NEW(getter, r, *n);
    if (!g)
        return FR_ENOMEM;
    if (*n == 1)
        return make_getter(r, attribute, fold, g);
    for (size_t i = 0, begin = 0; i < *n; i++) {
        size_t end = tpl_find(path, FR_STR(","), begin);
        end = end == SIZE_MAX ? path.n : end;
        g[i].fold = fold;
        FR_TRY(read_path(r, (fr_str){path.p + begin, end - begin}, &g[i]));
        begin = end + 1;
    }
    return FR_OK;
}

static fr_status sort_by(tpl_run *r, tpl_value v, tpl_value attribute, bool fold, bool reverse,
                         tpl_value *out)
{
    const tpl_value *items;
    size_t n, n_getters;
    getter *g;
    FR_TRY(make_getters(r, attribute, fold, &g, &n_getters));
    FR_TRY(tpl_items(r, v, &items, &n));
    FR_TRY(tpl_list_copy(r, TPL_LIST, items, n, out));
    tpl_value *keys = TPL_NEW(tpl_value, r, n);
    if (!keys)
        return FR_ENOMEM;
    for (size_t i = 0; i < n; i++)
        FR_TRY(sort_key(r, g, n_getters, items[i], &keys[i]));
    return tpl_sort(r, out->u.l->v, keys, n, reverse);
}

TPL_BUILTIN(tpl_filter_sort)
{
    return sort_by(r, c->a[0], c->a[3], !tpl_arg_bool(c->a[2], false), tpl_arg_bool(c->a[1], false),
                   out);
}

TPL_BUILTIN(tpl_filter_dictsort)
{
    fr_str by;
    tpl_value pairs;
    FR_TRY(tpl_arg_str(r, c->a[2], "key", &by));
    if (!fr_str_is(by, "key") && !fr_str_is(by, "value"))
        return tpl_fail(r, FR_EINVAL, "dictsort: found by='%.*s', expected \"key\" or \"value\"",
                        FR_STR_ARG(by));
    if (c->a[0].kind != TPL_DICT)
        return tpl_fail(r, FR_EINVAL, "dictsort: found '%s', expected a mapping",
                        tpl_type_name(c->a[0]));
    FR_TRY(tpl_dict_view(r, c->a[0].u.d, TPL_ITEMS, &pairs));
    return sort_by(r, pairs, tpl_int(fr_str_is(by, "value")), !tpl_arg_bool(c->a[1], false),
                   tpl_arg_bool(c->a[3], false), out);
}

TPL_BUILTIN(tpl_filter_unique)
{
    const tpl_value *items;
    tpl_value key, seen, found;
    size_t n;
    getter g;
    FR_TRY(make_getter(r, c->a[2], !tpl_arg_bool(c->a[1], false), &g));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    FR_TRY(tpl_dict_new(r, TPL_DICT, &seen));
    FR_TRY(new_generator(r, 0, out));
    for (size_t i = 0; i < n; i++) {
        FR_TRY(get(r, &g, items[i], &key));
        FR_TRY(tpl_dict_get(r, seen.u.d, key, &found));
        if (found.kind != TPL_MISSING)
            continue;
        FR_TRY(tpl_dict_set(r, seen.u.d, key, tpl_none()));
        FR_TRY(tpl_list_push(r, out->u.l, items[i]));
    }
    return FR_OK;
}

/* ---- pieces
 * --------------------------------------------------------------------------------------- */

TPL_BUILTIN(tpl_filter_batch)
{
    const tpl_value *items;
    tpl_value row = tpl_none();
    int64_t size;
    size_t n;
    FR_TRY(tpl_arg_int(r, c->a[1], 0, &size));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    if (size <= 0)
        return tpl_fail(r, FR_EINVAL, "batch: found %lld, expected a size of 1 or more",
                        (long long)size);
    FR_TRY(new_generator(r, 0, out));
    for (size_t i = 0; i < n; i++) {
        if (i % (size_t)size == 0) {
            FR_TRY(tpl_list_new(r, TPL_LIST, 0, &row));
            FR_TRY(tpl_list_push(r, out->u.l, row));
        }
        FR_TRY(tpl_list_push(r, row.u.l, items[i]));
    }
    for (int64_t k = n ? (int64_t)row.u.l->n : size; tpl_given(c->a[2]) && k < size; k++)
        FR_TRY(tpl_list_push(r, row.u.l, c->a[2]));
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_slice)
{
    const tpl_value *items;
    int64_t slices;
    size_t n, at = 0;
    FR_TRY(tpl_arg_int(r, c->a[1], 0, &slices));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    if (slices <= 0)
        return tpl_fail(r, FR_EINVAL, "slice: found %lld, expected 1 slice or more",
                        (long long)slices);
    size_t each = n / (size_t)slices, longer = n % (size_t)slices;
    FR_TRY(new_generator(r, 0, out));
    for (size_t i = 0; i < (size_t)slices; i++) {
        tpl_value part;
        size_t size = each + (i < longer);
        FR_TRY(tpl_list_copy(r, TPL_LIST, items + at, size, &part));
        at += size;
        if (tpl_given(c->a[2]) && i >= longer)
            FR_TRY(tpl_list_push(r, part.u.l, c->a[2]));
        FR_TRY(tpl_list_push(r, out->u.l, part));
    }
    return FR_OK;
}

static fr_status new_group(tpl_run *r, tpl_value key, tpl_value item, tpl_value *out)
{
    tpl_value members;
    FR_TRY(tpl_list_copy(r, TPL_LIST, &item, 1, &members));
    FR_TRY(tpl_list_copy(r, TPL_TUPLE, (tpl_value[]){key, members}, 2, out));
    out->u.l->grouped = true;
    return FR_OK;
}

/* Items in the order of their keys, one tuple (key, items) a key; the key is that of the first
 * item. */
TPL_BUILTIN(tpl_filter_groupby)
{
    const tpl_value *items;
    tpl_value list, key, group = tpl_none(), last = tpl_none();
    size_t n;
    getter folded, plain;
    bool fold = !tpl_arg_bool(c->a[3], false), same = false;
    FR_TRY(make_getter(r, c->a[1], fold, &folded));
    FR_TRY(make_getter(r, c->a[1], false, &plain));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    FR_TRY(tpl_list_copy(r, TPL_LIST, items, n, &list));
    tpl_value *keys = TPL_NEW(tpl_value, r, n);
    if (!keys)
        return FR_ENOMEM;
    for (size_t i = 0; i < n; i++)
        FR_TRY(get_path(r, &folded, items[i], c->a[2], &keys[i]));
    FR_TRY(tpl_sort(r, list.u.l->v, keys, n, false));
    FR_TRY(tpl_list_new(r, TPL_LIST, 0, out));
    for (size_t i = 0; i < n; i++) {
        tpl_value item = list.u.l->v[i];
        FR_TRY(get_path(r, &folded, item, c->a[2], &key));
        if (i > 0)
            FR_TRY(tpl_equal(r, key, last, &same));
        last = key;
        if (i > 0 && same) {
            FR_TRY(tpl_list_push(r, group.u.l->v[1].u.l, item));
            continue;
        }
        FR_TRY(get_path(r, &plain, item, c->a[2], &key));
        FR_TRY(new_group(r, key, item, &group));
        FR_TRY(tpl_list_push(r, out->u.l, group));
    }
    return FR_OK;
}

/* ---- map, select and their kin
 * --------------------------------------------------------------------- */

static fr_status find_kwarg(tpl_run *r, const tpl_call *c, const char *const allowed[2],
                            tpl_value found[2])
{
    found[0] = found[1] = tpl_missing();
    for (size_t i = 0; i < c->n_kw; i++) {
        int k = fr_str_is(c->kw[i].name, allowed[0])   ? 0
                : fr_str_is(c->kw[i].name, allowed[1]) ? 1
                                                       : 2;
        if (k == 2)
            return tpl_fail(r, FR_EINVAL, "unexpected keyword argument '%.*s'",
                            FR_STR_ARG(c->kw[i].name));
        found[k] = c->kw[i].value;
    }
    return FR_OK;
}

static fr_status map_attribute(tpl_run *r, tpl_call *c, tpl_value *out)
{
    const tpl_value *items;
    tpl_value named[2], v;
    size_t n;
    getter g;
    FR_TRY(find_kwarg(r, c, (const char *const[]){"attribute", "default"}, named));
    FR_TRY(make_getter(r, named[0], false, &g));
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    FR_TRY(new_generator(r, n, out));
    for (size_t i = 0; i < n; i++) {
        FR_TRY(get_path(r, &g, items[i], named[1], &v));
        FR_TRY(tpl_list_push(r, out->u.l, v));
    }
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_map)
{
    const tpl_value *items;
    tpl_value v;
    size_t n;
    if (!tpl_truthy(c->a[0])) /* none, too, is as good as an empty list here */
        return new_generator(r, 0, out);
    if (c->n_rest == 0 && c->n_kw)
        return map_attribute(r, c, out);
    if (c->n_rest == 0)
        return tpl_fail(r, FR_EINVAL, "map requires a filter or an attribute");
    tpl_args args = {c->rest + 1, c->n_rest - 1, c->kw, c->n_kw};
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    FR_TRY(new_generator(r, n, out));
    for (size_t i = 0; i < n; i++) {
        FR_TRY(tpl_apply(r, &tpl_filters, c->rest[0], items[i], &args, &v));
        FR_TRY(tpl_list_push(r, out->u.l, v));
    }
    return FR_OK;
}

/* Keeps the items for which the test (or, without one, truth) of the item or its attribute is
 * `wanted`. */
static fr_status filter_by(tpl_run *r, tpl_call *c, bool by_attribute, bool wanted, tpl_value *out)
{
    const tpl_value *items;
    tpl_value v;
    size_t n, off = by_attribute;
    getter g;
    if (!tpl_truthy(c->a[0]))
        return new_generator(r, 0, out);
    if (c->n_rest < off)
        return tpl_fail(r, FR_EINVAL, "missing parameter for attribute name");
    FR_TRY(make_getter(r, by_attribute ? c->rest[0] : tpl_missing(), false, &g));
    bool tests = c->n_rest > off;
    tpl_args args = {0};
    if (tests)
        args = (tpl_args){c->rest + off + 1, c->n_rest - off - 1, c->kw, c->n_kw};
    FR_TRY(tpl_items(r, c->a[0], &items, &n));
    FR_TRY(new_generator(r, 0, out));
    for (size_t i = 0; i < n; i++) {
        FR_TRY(get(r, &g, items[i], &v));
        if (tests)
            FR_TRY(tpl_apply(r, &tpl_tests, c->rest[off], v, &args, &v));
        if (tpl_truthy(v) == wanted)
            FR_TRY(tpl_list_push(r, out->u.l, items[i]));
    }
    return FR_OK;
}

TPL_BUILTIN(tpl_filter_select)
{
    return filter_by(r, c, false, true, out);
}

TPL_BUILTIN(tpl_filter_reject)
{
    return filter_by(r, c, false, false, out);
}

TPL_BUILTIN(tpl_filter_selectattr)
{
    return filter_by(r, c, true, true, out);
}

TPL_BUILTIN(tpl_filter_rejectattr)
{
    return filter_by(r, c, true, false, out);
}
