/* Reading one file's header. Nothing is believed: each length is compared with what is left of the
 * file before it is used, and memory grows with the bytes really read, not with the counts that are
 * claimed. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gguf/gguf_internal.h"

enum {
    FIRST_READ = 1 << 18,
    MIN_KV_BYTES = 8 + 1 + 4 + 1,             /* key length, key, type, value */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* name length, name, n_dims, one dim, type, offset */
    MIN_INNER_ARRAY_BYTES = 4 + 8             /* type, count */
};

typedef struct {
    fr_gguf *g;
    size_t i_file;
    gguf_file *f;
    const gguf_part *part; /* what the file must say of itself, or NULL */
    uint64_t pos;
    bool dry;                             /* arrays are walked and checked, their tables not made */
    char subject[GGUF_QUOTED_BYTES + 32]; /* what is being read, for error texts: "key 'x'" */
    fr_err *err;
} reader;

static fr_status bad(const reader *r, fr_status code, uint64_t at, const char *fmt, ...)
    FR_PRINTF(4, 5);

static fr_status bad(const reader *r, fr_status code, uint64_t at, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fr_fail(r->err, code, "%s: %s, at byte %" PRIu64 ": %s", r->f->path, r->subject, at,
                   text);
}

static void set_subject(reader *r, const char *kind, fr_str name)
{
    char quoted[GGUF_QUOTED_BYTES];
    snprintf(r->subject, sizeof r->subject, "%s '%s'", kind, gguf_quote(name, quoted));
}

/* ---- the bytes of the header ------------------------------------------------------------------
 */

/* Moves the header to a block of `cap` bytes; keys and values follow it. */
static fr_status move_header(reader *r, size_t cap)
{
    gguf_file *f = r->f;
    uint8_t *to = FR_NEW(uint8_t, FR_MEM_GGUF, cap, r->err);
    if (!to)
        return FR_ENOMEM;
    size_t kept = f->header_cap < cap ? f->header_cap : cap;
    if (kept)
        memcpy(to, f->header, kept);
    for (size_t i = 0; i < f->n_kv; i++) {
        fr_gguf_kv *kv = &f->kvs[i];
        kv->key.p = (const char *)to + (kv->key.p - (const char *)f->header);
        kv->value.bytes = to + (kv->value.bytes - f->header);
    }
    fr_mem_free(f->header);
    f->header = to;
    f->header_cap = cap;
    return FR_OK;
}

/* Reads on until the first `end` bytes are there; end is within the file. */
static fr_status load(reader *r, uint64_t end)
{
    gguf_file *f = r->f;
    if (end <= f->header_cap)
        return FR_OK;
    if (end > GGUF_MAX_HEADER_BYTES)
        return bad(r, FR_EUNSUPPORTED, r->pos,
                   "the header goes on beyond %d bytes, more than ferry accepts",
                   GGUF_MAX_HEADER_BYTES);
    size_t have = f->header_cap;
    uint64_t want = have ? 4 * (uint64_t)have : FIRST_READ;
    if (want < end)
        want = end;
    if (want > f->file.size)
        want = f->file.size;
    FR_TRY(move_header(r, (size_t)want));
    return fr_file_read_at(&f->file, have, f->header + have, (size_t)want - have, f->path, r->err);
}

/* The next n bytes can be read at r->pos: size checked and loaded. */
static fr_status need(reader *r, uint64_t n, const char *what)
{
    if (n > r->f->file.size - r->pos)
        return bad(r, FR_EFORMAT, r->pos,
                   "%s takes %" PRIu64 " bytes, but the file ends at byte %" PRIu64
                   "; truncated or damaged, get it again",
                   what, n, r->f->file.size);
    return load(r, r->pos + n);
}

static const uint8_t *here(const reader *r)
{
    return r->f->header + r->pos;
}

static fr_status read_u32(reader *r, const char *what, uint32_t *out)
{
    FR_TRY(need(r, 4, what));
    *out = gguf_load_u32(here(r));
    r->pos += 4;
    return FR_OK;
}

static fr_status read_u64(reader *r, const char *what, uint64_t *out)
{
    FR_TRY(need(r, 8, what));
    *out = gguf_load_u64(here(r));
    r->pos += 8;
    return FR_OK;
}

/* The view is good until the next read. */
static fr_status read_str(reader *r, const char *what, fr_str *out)
{
    uint64_t n;
    FR_TRY(read_u64(r, what, &n));
    FR_TRY(need(r, n, what));
    *out = (fr_str){(const char *)here(r), (size_t)n};
    r->pos += n;
    return FR_OK;
}

/* A key or tensor name: its length is judged before its bytes are read. */
static fr_status read_name(reader *r, const char *kind, size_t max, fr_str *out)
{
    uint64_t at = r->pos, n;
    FR_TRY(read_u64(r, "length of the name", &n));
    if (n <= r->f->file.size - r->pos && n > max)
        return bad(r, FR_EFORMAT, at, "found a name of %" PRIu64 " bytes, expected at most %zu", n,
                   max);
    r->pos = at;
    FR_TRY(read_str(r, "name", out));
    set_subject(r, kind, *out);
    const char *fault = gguf_name_fault(*out, max);
    return fault ? bad(r, FR_EFORMAT, at, "the name %s", fault) : FR_OK;
}

/* ---- values -----------------------------------------------------------------------------------
 */

static fr_status read_type(reader *r, uint32_t *type)
{
    uint64_t at = r->pos;
    FR_TRY(read_u32(r, "value type", type));
    if (*type >= GGUF_VALUE_TYPES)
        return bad(r, FR_EFORMAT, at, "found value type %" PRIu32 ", expected 0 to %d", *type,
                   GGUF_VALUE_TYPES - 1);
    return FR_OK;
}

static fr_status check_bools(const reader *r, uint64_t at, uint64_t n)
{
    const uint8_t *p = r->f->header + at;
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return bad(r, FR_EFORMAT, at + i, "found the byte %d as a bool, expected 0 or 1", p[i]);
    return FR_OK;
}

static fr_status read_fixed(reader *r, uint32_t type, uint64_t n)
{
    uint64_t at = r->pos, bytes;
    if (__builtin_mul_overflow(n, (uint64_t)gguf_type_bytes(type), &bytes))
        return bad(r, FR_EFORMAT, at,
                   "found an array of %" PRIu64 " elements, more than any file holds", n);
    FR_TRY(need(r, bytes, "value"));
    r->pos += bytes;
    return type == FR_GGUF_BOOL ? check_bools(r, at, n) : FR_OK;
}

static fr_status read_count(reader *r, uint64_t min_bytes, uint64_t *n)
{
    uint64_t at = r->pos;
    FR_TRY(read_u64(r, "array length", n));
    if (*n > (r->f->file.size - r->pos) / min_bytes)
        return bad(r, FR_EFORMAT, at,
                   "found an array of %" PRIu64 " elements, but only %" PRIu64
                   " bytes of the file are left",
                   *n, r->f->file.size - r->pos);
    return FR_OK;
}

static fr_status new_table(reader *r, uint64_t n, uint64_t **table)
{
    *table = n && !r->dry ? FR_ARENA_NEW(uint64_t, &r->g->arena, n, r->err) : NULL;
    return n && !r->dry && !*table ? FR_ENOMEM : FR_OK;
}

static fr_status read_strings(reader *r, uint64_t n, const uint64_t **at)
{
    uint64_t first = r->pos, *table;
    FR_TRY(new_table(r, n, &table));
    for (uint64_t i = 0; i < n; i++) {
        fr_str s;
        if (table)
            table[i] = r->pos - first;
        FR_TRY(read_str(r, "string", &s));
    }
    *at = table;
    return FR_OK;
}

static fr_status read_array(reader *r, int depth, fr_gguf_value *v);

static fr_status read_inner(reader *r, uint64_t n, int depth, const uint64_t **at)
{
    uint64_t first = r->pos, *table;
    if (depth == GGUF_MAX_DEPTH)
        return bad(r, FR_EUNSUPPORTED, r->pos, "found arrays nested deeper than %d",
                   GGUF_MAX_DEPTH);
    FR_TRY(new_table(r, 2 * n, &table));
    for (uint64_t i = 0; i < n; i++) {
        fr_gguf_value inner = {0};
        uint64_t from = r->pos - first;
        FR_TRY(read_array(r, depth + 1, &inner));
        if (table) {
            table[i] = from;
            table[n + i] = (uint64_t)(uintptr_t)inner.at;
        }
    }
    *at = table;
    return FR_OK;
}

/* Element type, count, elements; `depth` is 1 for an array that is in no other. The caller sets
 * v->bytes, once it knows where the header stays. */
static fr_status read_array(reader *r, int depth, fr_gguf_value *v)
{
    uint32_t type;
    FR_TRY(read_type(r, &type));
    size_t each = gguf_type_bytes(type);
    FR_TRY(read_count(r, each ? each : type == FR_GGUF_STR ? 8 : MIN_INNER_ARRAY_BYTES, &v->n));
    v->type = (fr_gguf_type)type;
    v->is_array = true;
    if (type == FR_GGUF_STR)
        return read_strings(r, v->n, &v->at);
    if (type == FR_GGUF_ARRAY)
        return read_inner(r, v->n, depth, &v->at);
    return read_fixed(r, type, v->n);
}

/* Twice: dry for the checks, then with tables, whose memory is so paid for by bytes that are there.
 */
static fr_status read_outer_array(reader *r, fr_gguf_value *v)
{
    uint64_t at = r->pos;
    r->dry = true;
    fr_status st = read_array(r, 1, v);
    r->dry = false;
    FR_TRY(st);
    r->pos = at;
    return read_array(r, 1, v);
}

static fr_status read_value(reader *r, fr_gguf_value *v)
{
    uint32_t type;
    uint64_t first;
    FR_TRY(read_type(r, &type));
    *v = (fr_gguf_value){.type = (fr_gguf_type)type, .n = 1};
    if (type == FR_GGUF_ARRAY) {
        first = r->pos + 12;
        FR_TRY(read_outer_array(r, v));
    } else if (type == FR_GGUF_STR) {
        fr_str s;
        first = r->pos;
        FR_TRY(read_str(r, "string", &s));
    } else {
        first = r->pos;
        FR_TRY(read_fixed(r, type, 1));
    }
    v->bytes = r->f->header + first;
    return FR_OK;
}

/* ---- keys -------------------------------------------------------------------------------------
 */

static fr_status read_kv(reader *r)
{
    gguf_file *f = r->f;
    fr_gguf_kv kv;
    uint64_t at = r->pos;
    FR_TRY(read_name(r, "key", GGUF_MAX_KEY_BYTES, &kv.key));
    FR_TRY(read_value(r, &kv.value));
    kv.key.p = (const char *)f->header + at + 8; /* the header may have moved meanwhile */

    void *items = f->kvs;
    FR_TRY(fr_mem_grow(FR_MEM_GGUF, &items, &f->kv_cap, f->n_kv + 1, sizeof kv, r->err));
    f->kvs = items;
    f->kvs[f->n_kv] = kv;
    size_t other;
    FR_TRY(gguf_index_add(&f->keys, f->kvs, gguf_kv_name, f->n_kv, &other, r->err));
    if (other != f->n_kv)
        return bad(r, FR_EFORMAT, at, "the key stands twice in the file");
    f->n_kv++;
    return FR_OK;
}

static fr_status set_alignment(reader *r)
{
    gguf_file *f = r->f;
    const fr_gguf_value *v = gguf_file_find(f, GGUF_ALIGNMENT_KEY);
    f->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (!v)
        return FR_OK;
    set_subject(r, "key", FR_STR(GGUF_ALIGNMENT_KEY));
    uint64_t at = (uint64_t)(v->bytes - f->header);
    if (v->is_array || !gguf_type_is_int(v->type))
        return bad(r, FR_EFORMAT, at, "found %s %s, expected a u32",
                   v->is_array ? "an array of" : "a", fr_gguf_type_name(v->type));
    int64_t a = fr_gguf_elem_i64(v, 0);
    if (a < GGUF_MIN_ALIGNMENT || a > GGUF_MAX_ALIGNMENT || (a & (a - 1)) != 0)
        return bad(r, FR_EFORMAT, at, "found %" PRId64 ", expected a power of two from %d to %d", a,
                   GGUF_MIN_ALIGNMENT, GGUF_MAX_ALIGNMENT);
    f->alignment = (uint64_t)a;
    return FR_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static fr_status read_dims(reader *r, fr_gguf_tensor *t)
{
    uint32_t n;
    uint64_t at = r->pos, dim;
    FR_TRY(read_u32(r, "number of dimensions", &n));
    if (n < 1 || n > FR_GGUF_MAX_DIMS)
        return bad(r, FR_EFORMAT, at, "found %" PRIu32 " dimensions, expected 1 to %d", n,
                   FR_GGUF_MAX_DIMS);
    t->n_dims = (int)n;
    for (uint32_t i = 0; i < FR_GGUF_MAX_DIMS; i++)
        t->dims[i] = 1;
    for (uint32_t i = 0; i < n; i++) {
        at = r->pos;
        FR_TRY(read_u64(r, "dimension", &dim));
        if (dim == 0 || dim > INT64_MAX)
            return bad(r, FR_EFORMAT, at,
                       "found dimension %" PRIu32 " = %" PRIu64 ", expected 1 to 2^63 - 1", i, dim);
        t->dims[i] = (int64_t)dim;
    }
    return FR_OK;
}

static fr_status read_tensor_type(reader *r, fr_gguf_tensor *t)
{
    uint32_t id;
    uint64_t at = r->pos;
    fr_err why;
    FR_TRY(read_u32(r, "tensor type", &id));
    if (!fr_type_from_gguf(id, &t->type, &t->layout))
        return bad(r, FR_EUNSUPPORTED, at,
                   "found tensor type id %" PRIu32 ", which this version does not know", id);
    if (gguf_tensor_bytes(t->type, t->layout, t->dims, &t->bytes, &why) != FR_OK)
        return bad(r, FR_EFORMAT, at, "%s", why.text);
    return FR_OK;
}

/* The offset in the file counts from the start of the data, which is not known yet. */
static fr_status read_offset(reader *r, fr_gguf_tensor *t)
{
    uint64_t at = r->pos;
    FR_TRY(read_u64(r, "data offset", &t->offset));
    if (t->offset % r->f->alignment)
        return bad(r, FR_EFORMAT, at,
                   "found data offset %" PRIu64 ", expected a multiple of %" PRIu64, t->offset,
                   r->f->alignment);
    return FR_OK;
}

static fr_status add_tensor(reader *r, fr_gguf_tensor t, uint64_t at)
{
    fr_gguf *g = r->g;
    void *items = g->tensors;
    FR_TRY(fr_mem_grow(FR_MEM_GGUF, &items, &g->tensor_cap, g->n_tensors + 1, sizeof t, r->err));
    g->tensors = items;
    g->tensors[g->n_tensors] = t;
    size_t other;
    FR_TRY(gguf_index_add(&g->names, g->tensors, gguf_tensor_name, g->n_tensors, &other, r->err));
    if (other != g->n_tensors)
        return bad(r, FR_EFORMAT, at, "the name stands twice%s%s",
                   g->tensors[other].i_file == t.i_file ? "" : ", first in ",
                   g->tensors[other].i_file == t.i_file ? ""
                                                        : g->files[g->tensors[other].i_file].path);
    g->n_tensors++;
    return FR_OK;
}

static fr_status read_tensor_info(reader *r)
{
    fr_gguf_tensor t = {.i_file = (int)r->i_file};
    fr_str name;
    uint64_t at = r->pos;
    FR_TRY(read_name(r, "tensor", GGUF_MAX_NAME_BYTES, &name));
    t.name = fr_arena_strndup(&r->g->arena, name.p, name.n, r->err);
    if (!t.name)
        return FR_ENOMEM;
    FR_TRY(read_dims(r, &t));
    FR_TRY(read_tensor_type(r, &t));
    FR_TRY(read_offset(r, &t));
    return add_tensor(r, t, at);
}

/* ---- the whole header -------------------------------------------------------------------------
 */

static fr_status read_magic(reader *r)
{
    FR_TRY(need(r, 4, "magic number"));
    const uint8_t *p = here(r);
    char quoted[GGUF_QUOTED_BYTES];
    if (memcmp(p, "GGUF", 4) != 0)
        return bad(r, FR_EFORMAT, 0, "found '%s', expected 'GGUF'; %s",
                   gguf_quote((fr_str){(const char *)p, 4}, quoted),
                   memcmp(p, "vers", 4) == 0 ? "a Git LFS pointer? fetch the file itself"
                                             : "not a GGUF file");
    r->pos = 4;
    return FR_OK;
}

static fr_status read_version(reader *r)
{
    uint32_t v;
    FR_TRY(read_u32(r, "version", &v));
    if (v != 0 && (v & 0xFFFFFF) == 0)
        return bad(r, FR_EUNSUPPORTED, 4,
                   "a big-endian file; ferry reads little-endian files only");
    if (v == 1 || v > 3)
        return bad(r, FR_EUNSUPPORTED, 4, "found version %" PRIu32 ", ferry reads 2 and 3%s", v,
                   v == 1 ? "; convert it with a newer tool" : "");
    if (v == 0)
        return bad(r, FR_EFORMAT, 4, "found version 0, expected 2 or 3");
    r->f->version = v;
    return FR_OK;
}

static fr_status read_total(reader *r, const char *what, uint64_t limit, uint64_t min_bytes,
                            uint64_t *n)
{
    uint64_t at = r->pos;
    FR_TRY(read_u64(r, what, n));
    if (*n > limit)
        return bad(r, FR_EFORMAT, at, "found a %s of %" PRIu64 ", expected at most %" PRIu64, what,
                   *n, limit);
    if (*n > (r->f->file.size - r->pos) / min_bytes)
        return bad(r, FR_EFORMAT, at,
                   "found a %s of %" PRIu64 ", but only %" PRIu64 " bytes of the file are left",
                   what, *n, r->f->file.size - r->pos);
    return FR_OK;
}

static fr_status read_header(reader *r)
{
    uint64_t n_tensors, n_kv;
    FR_TRY(read_magic(r));
    FR_TRY(read_version(r));
    FR_TRY(read_total(r, "number of tensors", GGUF_MAX_TENSORS, MIN_TENSOR_BYTES, &n_tensors));
    FR_TRY(read_total(r, "number of keys", GGUF_MAX_KEYS, MIN_KV_BYTES, &n_kv));
    for (uint64_t i = 0; i < n_kv; i++) {
        snprintf(r->subject, sizeof r->subject, "key %" PRIu64 " of %" PRIu64, i + 1, n_kv);
        FR_TRY(read_kv(r));
    }
    FR_TRY(set_alignment(r));
    if (r->part)
        FR_TRY(gguf_check_part(&r->g->files[0], r->f, r->part, r->err));
    for (uint64_t i = 0; i < n_tensors; i++) {
        snprintf(r->subject, sizeof r->subject, "tensor %" PRIu64 " of %" PRIu64, i + 1, n_tensors);
        FR_TRY(read_tensor_info(r));
    }
    return FR_OK;
}

static fr_status append_file(fr_gguf *g, const char *path, fr_err *err)
{
    void *items = g->files;
    FR_TRY(fr_mem_grow(FR_MEM_GGUF, &items, &g->file_cap, g->n_files + 1, sizeof *g->files, err));
    g->files = items;
    gguf_file *f = &g->files[g->n_files];
    *f = (gguf_file){.file = FR_FILE_CLOSED};
    f->path = fr_arena_strndup(&g->arena, path, strlen(path), err);
    if (!f->path)
        return FR_ENOMEM;
    FR_TRY(fr_file_open(path, &f->file, err));
    g->n_files++;
    return FR_OK;
}

fr_status gguf_add_file(fr_gguf *g, const char *path, const gguf_part *part, fr_err *err)
{
    FR_TRY(append_file(g, path, err));
    size_t i_file = g->n_files - 1, first = g->n_tensors;
    reader r = {.g = g,
                .i_file = i_file,
                .f = &g->files[i_file],
                .part = part,
                .subject = "header",
                .err = err};
    FR_TRY(read_header(&r));
    gguf_file *f = r.f;
    f->header_end = r.pos;
    f->data_start = gguf_align(f->header_end, f->alignment);
    for (size_t i = first; i < g->n_tensors; i++)
        if (__builtin_add_overflow(g->tensors[i].offset, f->data_start, &g->tensors[i].offset))
            return fr_fail(err, FR_EFORMAT, "%s: tensor '%s': data offset beyond 2^64", path,
                           g->tensors[i].name);
    FR_TRY(gguf_check_extents(g, first, i_file, err));
    if (f->header_cap > f->header_end) /* drop what was read beyond it */
        FR_TRY(move_header(&r, (size_t)f->header_end));
    if (!(g->flags & (FR_GGUF_HEADERS_ONLY | FR_GGUF_NO_MMAP)))
        FR_TRY(fr_file_map(&f->file, path, err));
    return FR_OK;
}
