#include "token/template_value.h"

#include <math.h>
#include <string.h>

/* ---- strings ------------------------------------------------------------------------------------
 */

size_t tpl_count_chars(fr_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) /* the text is valid UTF-8: count what is no follower */
        n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

size_t tpl_str_chars(tpl_str *s)
{
    if (s->n_chars == TPL_UNCOUNTED)
        s->n_chars = tpl_count_chars((fr_str){s->p, s->n});
    return s->n_chars;
}

fr_status tpl_str_view(tpl_run *r, fr_str text, tpl_value *out)
{
    tpl_str *s = TPL_NEW(tpl_str, r, 1);
    if (!s)
        return FR_ENOMEM;
    *s = (tpl_str){text.p, text.n, TPL_UNCOUNTED};
    *out = (tpl_value){.kind = TPL_STR, .u.s = s};
    return FR_OK;
}

fr_status tpl_str_copy(tpl_run *r, fr_str text, tpl_value *out)
{
    FR_TRY(tpl_spend_bytes(r, text.n));
    char *p = TPL_NEW(char, r, text.n + 1);
    if (!p)
        return FR_ENOMEM;
    if (text.n)
        memcpy(p, text.p, text.n);
    return tpl_str_view(r, (fr_str){p, text.n}, out);
}

fr_status tpl_str_concat(tpl_run *r, tpl_value a, tpl_value b, tpl_value *out)
{
    fr_str x = tpl_text(a), y = tpl_text(b);
    if (y.n == 0 || x.n == 0) {
        *out = y.n == 0 ? a : b;
        return FR_OK;
    }
    if (y.n > TPL_MAX_OUTPUT - x.n)
        return tpl_fail(r, FR_ERANGE, "the text grows too long: more than %zu MiB",
                        TPL_MAX_OUTPUT >> 20);
    if (x.p + x.n == r->grow_at && y.n < (size_t)(r->grow_end - r->grow_at)) {
        FR_TRY(tpl_spend_bytes(r, y.n));
        memcpy(r->grow_at, y.p, y.n);
        r->grow_at += y.n;
        return tpl_str_view(r, (fr_str){x.p, x.n + y.n}, out);
    }
    size_t n = x.n + y.n, room = n < 256 ? n + 1 : 2 * n;
    FR_TRY(tpl_spend_bytes(r, n));
    char *p = TPL_NEW(char, r, room);
    if (!p)
        return FR_ENOMEM;
    memcpy(p, x.p, x.n);
    memcpy(p + x.n, y.p, y.n);
    if (room > n + 1) {
        r->grow_at = p + n;
        r->grow_end = p + room;
    }
    return tpl_str_view(r, (fr_str){p, n}, out);
}

/* ---- lists --------------------------------------------------------------------------------------
 */

static fr_status grow_items(tpl_run *r, void **v, size_t *cap, size_t n, size_t need, size_t size)
{
    if (need <= *cap)
        return FR_OK;
    size_t want = *cap < 4 ? 4 : *cap * 2;
    if (want < need)
        want = need;
    void *p = tpl_alloc(r, want, size);
    if (!p)
        return FR_ENOMEM;
    if (n)
        memcpy(p, *v, n * size);
    *v = p;
    *cap = want;
    return FR_OK;
}

fr_status tpl_list_new(tpl_run *r, tpl_kind kind, size_t cap, tpl_value *out)
{
    tpl_list *l = TPL_NEW(tpl_list, r, 1);
    if (!l)
        return FR_ENOMEM;
    void *v = NULL;
    FR_TRY(grow_items(r, &v, &l->cap, 0, cap, sizeof(tpl_value)));
    l->v = v;
    *out = (tpl_value){.kind = (uint8_t)kind, .u.l = l};
    return FR_OK;
}

fr_status tpl_list_push(tpl_run *r, tpl_list *l, tpl_value item)
{
    FR_TRY(tpl_spend(r, 1));
    void *v = l->v;
    FR_TRY(grow_items(r, &v, &l->cap, l->n, l->n + 1, sizeof(tpl_value)));
    l->v = v;
    l->v[l->n++] = item;
    return FR_OK;
}

fr_status tpl_list_copy(tpl_run *r, tpl_kind kind, const tpl_value *v, size_t n, tpl_value *out)
{
    FR_TRY(tpl_spend(r, 1 + n / 16));
    FR_TRY(tpl_list_new(r, kind, n, out));
    if (n)
        memcpy(out->u.l->v, v, n * sizeof *v);
    out->u.l->n = n;
    return FR_OK;
}

/* ---- dictionaries -------------------------------------------------------------------------------
 */

enum { SMALL_DICT = 8 };

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9E3779B97F4A7C15ull;
    return h ^ h >> 32;
}

static uint64_t hash_text(fr_str s)
{
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 1099511628211ull;
    return mix(h, s.n);
}

/* Equal values have equal hashes: 1, 1.0 and true are one key. */
static fr_status hash_value(tpl_run *r, tpl_value v, uint64_t *out)
{
    double f;
    switch (v.kind) {
    case TPL_STR:
        *out = hash_text(tpl_text(v));
        return tpl_spend_bytes(r, v.u.s->n);
    case TPL_BOOL:
    case TPL_INT:
    case TPL_FLOAT:
        f = tpl_as_double(v) + 0.0; /* -0.0 is 0 */
        memcpy(out, &f, sizeof f);
        *out = mix(1, *out);
        return FR_OK;
    case TPL_TUPLE:
        *out = mix(2, v.u.l->n);
        FR_TRY(tpl_enter(r));
        for (size_t i = 0; i < v.u.l->n; i++) {
            uint64_t h;
            FR_TRY(hash_value(r, v.u.l->v[i], &h));
            *out = mix(*out, h);
        }
        tpl_leave(r);
        return tpl_spend(r, 1 + v.u.l->n);
    case TPL_LIST:
    case TPL_DICT:
        return tpl_fail(r, FR_EINVAL, "unhashable type: '%s'", tpl_type_name(v));
    case TPL_NONE:
    case TPL_UNDEFINED:
        *out = mix(3, v.kind);
        return FR_OK;
    default:
        *out = mix(4, (uintptr_t)v.u.ptr);
        return FR_OK;
    }
}

fr_status tpl_dict_new(tpl_run *r, tpl_kind kind, tpl_value *out)
{
    tpl_dict *d = TPL_NEW(tpl_dict, r, 1);
    if (!d)
        return FR_ENOMEM;
    *out = (tpl_value){.kind = (uint8_t)kind, .u.d = d};
    return FR_OK;
}

/* The position of a key, or d->n. */
static fr_status dict_find(tpl_run *r, const tpl_dict *d, tpl_value key, uint64_t hash, size_t *at)
{
    bool same = false;
    if (!d->index) {
        for (*at = 0; *at < d->n; ++*at) {
            if (d->v[*at].hash != hash)
                continue;
            FR_TRY(tpl_equal(r, d->v[*at].key, key, &same));
            if (same)
                return FR_OK;
        }
        return FR_OK;
    }
    size_t mask = d->index_cap - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        FR_TRY(tpl_spend(r, 1));
        if (d->index[i] == 0) {
            *at = d->n;
            return FR_OK;
        }
        *at = d->index[i] - 1;
        if (d->v[*at].hash != hash)
            continue;
        FR_TRY(tpl_equal(r, d->v[*at].key, key, &same));
        if (same)
            return FR_OK;
    }
}

static void index_add(tpl_dict *d, size_t at)
{
    size_t mask = d->index_cap - 1, i = d->v[at].hash & mask;
    while (d->index[i])
        i = (i + 1) & mask;
    d->index[i] = (uint32_t)at + 1;
}

static fr_status index_build(tpl_run *r, tpl_dict *d)
{
    size_t cap = 32;
    while (cap < d->n * 4)
        cap *= 2;
    FR_TRY(tpl_spend(r, 1 + cap / 16 + d->n));
    if (cap != d->index_cap) {
        d->index = TPL_NEW(uint32_t, r, cap);
        if (!d->index)
            return FR_ENOMEM;
        d->index_cap = cap;
    } else {
        memset(d->index, 0, cap * sizeof *d->index);
    }
    for (size_t i = 0; i < d->n; i++)
        index_add(d, i);
    return FR_OK;
}

fr_status tpl_dict_set(tpl_run *r, tpl_dict *d, tpl_value key, tpl_value value)
{
    uint64_t hash = 0;
    size_t at;
    FR_TRY(hash_value(r, key, &hash));
    FR_TRY(dict_find(r, d, key, hash, &at));
    FR_TRY(tpl_spend(r, 1));
    if (at < d->n) {
        d->v[at].value = value;
        return FR_OK;
    }
    void *v = d->v;
    FR_TRY(grow_items(r, &v, &d->cap, d->n, d->n + 1, sizeof(tpl_pair)));
    d->v = v;
    d->v[d->n++] = (tpl_pair){key, value, hash};
    if (d->n <= SMALL_DICT)
        return FR_OK;
    if (!d->index || d->n * 2 > d->index_cap)
        return index_build(r, d);
    index_add(d, d->n - 1);
    return FR_OK;
}

fr_status tpl_dict_get(tpl_run *r, const tpl_dict *d, tpl_value key, tpl_value *out)
{
    uint64_t hash = 0;
    size_t at;
    FR_TRY(hash_value(r, key, &hash));
    FR_TRY(dict_find(r, d, key, hash, &at));
    *out = at < d->n ? d->v[at].value : tpl_missing();
    return FR_OK;
}

fr_status tpl_dict_get_str(tpl_run *r, const tpl_dict *d, tpl_str *key, tpl_value *out)
{
    return tpl_dict_get(r, d, (tpl_value){.kind = TPL_STR, .u.s = key}, out);
}

fr_status tpl_dict_remove(tpl_run *r, tpl_dict *d, tpl_value key, tpl_value *out)
{
    uint64_t hash = 0;
    size_t at;
    *out = tpl_missing();
    FR_TRY(hash_value(r, key, &hash));
    FR_TRY(dict_find(r, d, key, hash, &at));
    if (at == d->n)
        return FR_OK;
    *out = d->v[at].value;
    d->n--;
    memmove(d->v + at, d->v + at + 1, (d->n - at) * sizeof *d->v);
    FR_TRY(tpl_spend(r, 1 + (d->n - at) / 4));
    return d->index ? index_build(r, d) : FR_OK;
}

/* ---- from JSON ----------------------------------------------------------------------------------
 */

static fr_status text_from_json(tpl_run *r, const char *p, size_t n, bool lives_on, tpl_value *out)
{
    return lives_on ? tpl_str_view(r, (fr_str){p, n}, out) : tpl_str_copy(r, (fr_str){p, n}, out);
}

static fr_status dict_from_json(tpl_run *r, json_t *json, bool lives_on, tpl_value *out)
{
    FR_TRY(tpl_dict_new(r, TPL_DICT, out));
    for (void *at = json_object_iter(json); at; at = json_object_iter_next(json, at)) {
        tpl_value key, value;
        fr_str k = fr_str_of(json_object_iter_key(at));
        FR_TRY(text_from_json(r, k.p, k.n, lives_on, &key));
        FR_TRY(tpl_from_json(r, json_object_iter_value(at), lives_on, &value));
        FR_TRY(tpl_dict_set(r, out->u.d, key, value));
    }
    return FR_OK;
}

static fr_status list_from_json(tpl_run *r, const json_t *json, bool lives_on, tpl_value *out)
{
    size_t n = json_array_size(json);
    FR_TRY(tpl_list_new(r, TPL_LIST, n, out));
    for (size_t i = 0; i < n; i++) {
        tpl_value v;
        FR_TRY(tpl_from_json(r, json_array_get(json, i), lives_on, &v));
        FR_TRY(tpl_list_push(r, out->u.l, v));
    }
    return FR_OK;
}

fr_status tpl_from_json(tpl_run *r, const json_t *json, bool lives_on, tpl_value *out)
{
    fr_status st = FR_OK;
    FR_TRY(tpl_enter(r));
    switch (json_typeof(json)) {
    case JSON_OBJECT: /* the iterator interface is not const, but changes nothing */
        st = dict_from_json(r, (json_t *)(uintptr_t)json, lives_on, out);
        break;
    case JSON_ARRAY:
        st = list_from_json(r, json, lives_on, out);
        break;
    case JSON_STRING:
        st = text_from_json(r, json_string_value(json), json_string_length(json), lives_on, out);
        break;
    case JSON_INTEGER:
        *out = tpl_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *out = tpl_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = tpl_bool(json_is_true(json));
        break;
    default:
        *out = tpl_none();
        break;
    }
    tpl_leave(r);
    return st;
}

/* ---- asking -------------------------------------------------------------------------------------
 */

const char *tpl_type_name(tpl_value v)
{
    static const char *const flavours[] = {"generator", "range", "dict_keys", "dict_values",
                                           "dict_items"};
    static const char *const names[] = {
        [TPL_MISSING] = "Undefined", [TPL_UNDEFINED] = "Undefined",
        [TPL_NONE] = "NoneType",     [TPL_BOOL] = "bool",
        [TPL_INT] = "int",           [TPL_FLOAT] = "float",
        [TPL_STR] = "str",           [TPL_LIST] = "list",
        [TPL_TUPLE] = "tuple",       [TPL_SEQ] = "generator",
        [TPL_DICT] = "dict",         [TPL_NAMESPACE] = "Namespace",
        [TPL_MACRO] = "Macro",       [TPL_FUNCTION] = "function",
        [TPL_METHOD] = "method",     [TPL_LOOP] = "LoopContext",
        [TPL_JOINER] = "Joiner",     [TPL_CYCLER] = "Cycler",
    };
    return v.kind == TPL_SEQ && v.u.l ? flavours[v.u.l->flavour] : names[v.kind];
}

bool tpl_truthy(tpl_value v)
{
    size_t n;
    switch (v.kind) {
    case TPL_MISSING:
    case TPL_UNDEFINED:
    case TPL_NONE:
        return false;
    case TPL_BOOL:
        return v.u.b;
    case TPL_INT:
        return v.u.i != 0;
    case TPL_FLOAT:
        return v.u.f != 0;
    default:
        return !tpl_length(v, &n) || n > 0;
    }
}

bool tpl_is_number(tpl_value v)
{
    return v.kind == TPL_INT || v.kind == TPL_FLOAT || v.kind == TPL_BOOL;
}

double tpl_as_double(tpl_value v)
{
    return v.kind == TPL_FLOAT ? v.u.f : v.kind == TPL_BOOL ? v.u.b : (double)v.u.i;
}

bool tpl_as_int(tpl_value v, int64_t *out)
{
    if (v.kind != TPL_INT && v.kind != TPL_BOOL)
        return false;
    *out = v.kind == TPL_INT ? v.u.i : v.u.b;
    return true;
}

bool tpl_length(tpl_value v, size_t *n)
{
    *n = 0;
    switch (v.kind) {
    case TPL_UNDEFINED:
        return true;
    case TPL_STR:
        *n = tpl_str_chars(v.u.s);
        return true;
    case TPL_SEQ:
        *n = v.u.l->n - v.u.l->used;
        return v.u.l->flavour != TPL_GENERATOR;
    case TPL_LIST:
    case TPL_TUPLE:
        *n = v.u.l->n;
        return true;
    case TPL_DICT:
        *n = v.u.d->n;
        return true;
    default:
        return false;
    }
}

/* ---- equality and order -------------------------------------------------------------------------
 */

/* An int64 against a double, without rounding either. */
static int order_int_float(int64_t i, double f)
{
    if (f >= 0x1p63)
        return -1;
    if (f < -0x1p63)
        return 1;
    int64_t whole = (int64_t)f;
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

/* Both are numbers; 2 when one is NaN. */
static int order_numbers(tpl_value a, tpl_value b)
{
    int64_t x, y;
    bool int_a = tpl_as_int(a, &x), int_b = tpl_as_int(b, &y);
    if (int_a && int_b)
        return x < y ? -1 : x > y;
    double f = tpl_as_double(a), g = tpl_as_double(b);
    if (isnan(f) || isnan(g))
        return 2;
    if (int_a)
        return order_int_float(x, g);
    if (int_b)
        return -order_int_float(y, f);
    return f < g ? -1 : f > g;
}

static bool is_array(tpl_value v)
{
    return v.kind == TPL_LIST || v.kind == TPL_TUPLE ||
           (v.kind == TPL_SEQ && v.u.l->flavour == TPL_RANGE);
}

static fr_status equal_lists(tpl_run *r, const tpl_list *a, const tpl_list *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && a != b && i < a->n && i < b->n; i++)
        FR_TRY(tpl_equal(r, a->v[i], b->v[i], out));
    return FR_OK;
}

static fr_status equal_dicts(tpl_run *r, const tpl_dict *a, const tpl_dict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && a != b && i < a->n; i++) {
        tpl_value other;
        FR_TRY(tpl_dict_get(r, b, a->v[i].key, &other));
        *out = other.kind != TPL_MISSING;
        if (*out)
            FR_TRY(tpl_equal(r, a->v[i].value, other, out));
    }
    return FR_OK;
}

fr_status tpl_equal(tpl_run *r, tpl_value a, tpl_value b, bool *out)
{
    FR_TRY(tpl_spend(r, 1));
    if (tpl_is_number(a) && tpl_is_number(b)) {
        *out = order_numbers(a, b) == 0;
        return FR_OK;
    }
    *out = a.kind == b.kind;
    if (!*out || a.kind == TPL_NONE || a.kind == TPL_UNDEFINED || a.kind == TPL_MISSING)
        return FR_OK;
    if (a.kind == TPL_STR) {
        *out = fr_str_eq(tpl_text(a), tpl_text(b));
        return a.u.s->n == b.u.s->n ? tpl_spend_bytes(r, a.u.s->n) : FR_OK;
    }
    fr_status st = FR_OK;
    if (is_array(a) && is_array(b)) {
        FR_TRY(tpl_enter(r));
        st = equal_lists(r, a.u.l, b.u.l, out);
        tpl_leave(r);
    } else if (a.kind == TPL_DICT) {
        FR_TRY(tpl_enter(r));
        st = equal_dicts(r, a.u.d, b.u.d, out);
        tpl_leave(r);
    } else {
        *out = a.u.ptr == b.u.ptr;
    }
    return st;
}

static fr_status compare_lists(tpl_run *r, const tpl_list *a, const tpl_list *b, const char *op,
                               int *out)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        FR_TRY(tpl_equal(r, a->v[i], b->v[i], &same));
        if (!same)
            return tpl_compare(r, a->v[i], b->v[i], op, out);
    }
    *out = a->n < b->n ? -1 : a->n > b->n;
    return FR_OK;
}

fr_status tpl_compare(tpl_run *r, tpl_value a, tpl_value b, const char *op, int *out)
{
    FR_TRY(tpl_spend(r, 1));
    if (tpl_is_number(a) && tpl_is_number(b)) {
        *out = order_numbers(a, b);
        return FR_OK;
    }
    if (a.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, a);
    if (b.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, b);
    if (a.kind == TPL_STR && b.kind == TPL_STR) { /* the order of UTF-8 is that of code points */
        fr_str x = tpl_text(a), y = tpl_text(b);
        size_t n = x.n < y.n ? x.n : y.n;
        int c = n ? memcmp(x.p, y.p, n) : 0;
        *out = c ? (c < 0 ? -1 : 1) : x.n < y.n ? -1 : x.n > y.n;
        return tpl_spend_bytes(r, n);
    }
    if (a.kind == b.kind && (a.kind == TPL_LIST || a.kind == TPL_TUPLE)) {
        FR_TRY(tpl_enter(r));
        fr_status st = compare_lists(r, a.u.l, b.u.l, op, out);
        tpl_leave(r);
        return st;
    }
    return tpl_fail(r, FR_EINVAL, "'%s' not supported between instances of '%s' and '%s'", op,
                    tpl_type_name(a), tpl_type_name(b));
}

/* ---- iteration ----------------------------------------------------------------------------------
 */

static fr_status chars_of(tpl_run *r, tpl_value v, const tpl_value **items, size_t *n)
{
    fr_str s = tpl_text(v);
    tpl_value list;
    FR_TRY(tpl_list_new(r, TPL_LIST, tpl_str_chars(v.u.s), &list));
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t cp;
        tpl_value c;
        len = (size_t)fr_utf8_decode(s.p + i, s.n - i, &cp);
        FR_TRY(tpl_str_view(r, (fr_str){s.p + i, len}, &c));
        FR_TRY(tpl_list_push(r, list.u.l, c));
    }
    *items = list.u.l->v;
    *n = list.u.l->n;
    return FR_OK;
}

static fr_status keys_of(tpl_run *r, const tpl_dict *d, const tpl_value **items, size_t *n)
{
    FR_TRY(tpl_spend(r, 1 + d->n));
    tpl_value *v = TPL_NEW(tpl_value, r, d->n);
    if (!v)
        return FR_ENOMEM;
    for (size_t i = 0; i < d->n; i++)
        v[i] = d->v[i].key;
    *items = v;
    *n = d->n;
    return FR_OK;
}

bool tpl_is_iterable(tpl_value v)
{
    return v.kind == TPL_UNDEFINED || v.kind == TPL_STR || v.kind == TPL_LIST ||
           v.kind == TPL_TUPLE || v.kind == TPL_SEQ || v.kind == TPL_DICT;
}

fr_status tpl_items(tpl_run *r, tpl_value v, const tpl_value **items, size_t *n)
{
    *items = NULL;
    *n = 0;
    switch (v.kind) {
    case TPL_UNDEFINED:
        return FR_OK;
    case TPL_STR:
        return chars_of(r, v, items, n);
    case TPL_DICT:
        return keys_of(r, v.u.d, items, n);
    case TPL_SEQ:
        *items = v.u.l->v + v.u.l->used;
        *n = v.u.l->n - v.u.l->used;
        if (v.u.l->flavour == TPL_GENERATOR)
            v.u.l->used = v.u.l->n;
        return FR_OK;
    case TPL_LIST:
    case TPL_TUPLE:
        *items = v.u.l->v;
        *n = v.u.l->n;
        return FR_OK;
    default:
        return tpl_fail(r, FR_EINVAL, "'%s' object is not iterable", tpl_type_name(v));
    }
}

fr_status tpl_fail_undefined(tpl_run *r, tpl_value v)
{
    if (v.sub == TPL_UNDEF_NAME)
        return tpl_fail(r, FR_EINVAL, "'%.*s' is undefined", FR_STR_ARG(tpl_text(v)));
    tpl_value owner = {.kind = v.owner};
    if (v.sub == TPL_UNDEF_ATTR)
        return tpl_fail(r, FR_EINVAL, "'%s object' has no attribute '%.*s'", tpl_type_name(owner),
                        FR_STR_ARG(tpl_text(v)));
    if (v.sub == TPL_UNDEF_INDEX)
        return tpl_fail(r, FR_EINVAL, "%s object has no element %lld", tpl_type_name(owner),
                        (long long)v.u.i);
    return tpl_fail(r, FR_EINVAL, "an undefined value is used");
}
