#include "gguf/gguf_writer.h"

#include <inttypes.h>
#include <string.h>

#include "gguf/gguf_internal.h"

enum { WRITER_VERSION = 3 };

typedef struct {
    fr_str key;     /* owned by the arena */
    fr_buf encoded; /* value type and value as in the file; owned */
} entry;

typedef enum { ADDING, WRITING, FAILED } state;

struct fr_gguf_writer {
    fr_arena arena; /* keys, names */
    fr_out_file out;
    state state;
    entry *entries; /* owned */
    size_t n_entries, entry_cap;
    gguf_index keys;
    fr_gguf_tensor *tensors; /* owned; offset counts from data_start */
    size_t n_tensors, tensor_cap;
    gguf_index names;
    uint64_t alignment, data_start;
    size_t i_tensor; /* whose data are being written */
    uint64_t done;   /* bytes of them */
};

static fr_str entry_name(const void *entries, size_t i)
{
    return ((const entry *)entries)[i].key;
}

static fr_status add_u32(fr_buf *b, uint32_t v, fr_err *err)
{
    char le[4] = {(char)v, (char)(v >> 8), (char)(v >> 16), (char)(v >> 24)};
    return fr_buf_add(b, le, sizeof le, err);
}

static fr_status add_u64(fr_buf *b, uint64_t v, fr_err *err)
{
    FR_TRY(add_u32(b, (uint32_t)v, err));
    return add_u32(b, (uint32_t)(v >> 32), err);
}

static fr_status add_str(fr_buf *b, fr_str s, fr_err *err)
{
    FR_TRY(add_u64(b, s.n, err));
    return fr_buf_add(b, s.p, s.n, err);
}

fr_status fr_gguf_writer_create(const char *path, fr_gguf_writer **out, fr_err *err)
{
    *out = NULL;
    fr_gguf_writer *w = FR_NEW(fr_gguf_writer, FR_MEM_GGUF, 1, err);
    if (!w)
        return FR_ENOMEM;
    w->arena = fr_arena_make(FR_MEM_GGUF);
    fr_status st = fr_file_create(path, &w->out, err);
    if (st != FR_OK) {
        fr_mem_free(w);
        return st;
    }
    *out = w;
    return FR_OK;
}

/* ---- keys -------------------------------------------------------------------------------------
 */

static fr_status check_adding(const fr_gguf_writer *w, fr_err *err)
{
    if (w->state == ADDING)
        return FR_OK;
    return fr_fail(err, FR_EINVAL,
                   "%s: keys and tensors must be added before the header is written", w->out.path);
}

/* The entry of a new key, empty. */
static fr_status new_entry(fr_gguf_writer *w, fr_str key, size_t *i, fr_err *err)
{
    char quoted[GGUF_QUOTED_BYTES];
    const char *fault = gguf_name_fault(key, GGUF_MAX_KEY_BYTES);
    if (fault)
        return fr_fail(err, FR_EINVAL, "%s: key '%s' %s", w->out.path, gguf_quote(key, quoted),
                       fault);
    if (w->n_entries >= GGUF_MAX_KEYS)
        return fr_fail(err, FR_EINVAL, "%s: more than %d keys", w->out.path, GGUF_MAX_KEYS);
    void *items = w->entries;
    FR_TRY(
        fr_mem_grow(FR_MEM_GGUF, &items, &w->entry_cap, w->n_entries + 1, sizeof *w->entries, err));
    w->entries = items;
    entry *e = &w->entries[w->n_entries];
    *e = (entry){.key = {fr_arena_strndup(&w->arena, key.p, key.n, err), key.n}};
    if (!e->key.p)
        return FR_ENOMEM;
    FR_TRY(gguf_index_add(&w->keys, w->entries, entry_name, w->n_entries, i, err));
    w->n_entries++;
    return FR_OK;
}

/* Takes over *encoded, whatever the outcome. */
static fr_status put(fr_gguf_writer *w, fr_str key, fr_buf *encoded, fr_status st, fr_err *err)
{
    size_t i;
    if (st == FR_OK)
        st = check_adding(w, err);
    if (st == FR_OK && !gguf_index_find(&w->keys, w->entries, entry_name, key, &i))
        st = new_entry(w, key, &i, err);
    if (st != FR_OK) {
        fr_buf_free(encoded);
        return st;
    }
    fr_buf_free(&w->entries[i].encoded);
    w->entries[i].encoded = *encoded;
    return FR_OK;
}

static fr_status put_fixed(fr_gguf_writer *w, const char *key, fr_gguf_type type, uint64_t bits,
                           fr_err *err)
{
    fr_buf b = {0};
    fr_status st = add_u32(&b, type, err);
    for (size_t i = 0; st == FR_OK && i < gguf_type_bytes(type); i++)
        st = fr_buf_putc(&b, (char)(bits >> 8 * i), err);
    return put(w, fr_str_of(key), &b, st, err);
}

fr_status fr_gguf_put_u32(fr_gguf_writer *w, const char *key, uint32_t v, fr_err *err)
{
    return put_fixed(w, key, FR_GGUF_U32, v, err);
}

fr_status fr_gguf_put_u64(fr_gguf_writer *w, const char *key, uint64_t v, fr_err *err)
{
    return put_fixed(w, key, FR_GGUF_U64, v, err);
}

fr_status fr_gguf_put_i32(fr_gguf_writer *w, const char *key, int32_t v, fr_err *err)
{
    return put_fixed(w, key, FR_GGUF_I32, (uint32_t)v, err);
}

fr_status fr_gguf_put_f32(fr_gguf_writer *w, const char *key, float v, fr_err *err)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return put_fixed(w, key, FR_GGUF_F32, bits, err);
}

fr_status fr_gguf_put_bool(fr_gguf_writer *w, const char *key, bool v, fr_err *err)
{
    return put_fixed(w, key, FR_GGUF_BOOL, v, err);
}

fr_status fr_gguf_put_str(fr_gguf_writer *w, const char *key, fr_str v, fr_err *err)
{
    fr_buf b = {0};
    fr_status st = add_u32(&b, FR_GGUF_STR, err);
    if (st == FR_OK)
        st = add_str(&b, v, err);
    return put(w, fr_str_of(key), &b, st, err);
}

static fr_status encode_value(fr_buf *b, const fr_gguf_value *v, fr_err *err)
{
    FR_TRY(add_u32(b, v->is_array ? FR_GGUF_ARRAY : v->type, err));
    if (v->is_array) {
        FR_TRY(add_u32(b, v->type, err));
        FR_TRY(add_u64(b, v->n, err));
    }
    return fr_buf_add(b, (const char *)v->bytes, gguf_value_span(v), err);
}

static fr_status put_value(fr_gguf_writer *w, fr_str key, const fr_gguf_value *v, fr_err *err)
{
    fr_buf b = {0};
    return put(w, key, &b, encode_value(&b, v, err), err);
}

fr_status fr_gguf_put_value(fr_gguf_writer *w, const char *key, const fr_gguf_value *v, fr_err *err)
{
    return put_value(w, fr_str_of(key), v, err);
}

static bool is_listed(fr_str key, const char *const *list)
{
    for (; list && *list; list++)
        if (fr_str_is(key, *list))
            return true;
    return false;
}

fr_status fr_gguf_put_all(fr_gguf_writer *w, const fr_gguf *g, const char *const *except,
                          fr_err *err)
{
    for (size_t i = 0; i < fr_gguf_n_kv(g); i++) {
        const fr_gguf_kv *kv = fr_gguf_kv_at(g, i);
        if (!is_listed(kv->key, except))
            FR_TRY(put_value(w, kv->key, &kv->value, err));
    }
    return FR_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

/* The id in files; negative when they have none for this layout. */
static int file_id(fr_type type, fr_layout layout)
{
    const fr_type_info *info = fr_type_get(type);
    return layout == FR_LAYOUT_PLAIN ? info->gguf_id : info->il_gguf_id;
}

static fr_status check_tensor(const fr_gguf_writer *w, const char *name, fr_type type,
                              fr_layout layout, int n_dims, const int64_t *dims, fr_err *err)
{
    char quoted[GGUF_QUOTED_BYTES];
    const char *fault = gguf_name_fault(fr_str_of(name), GGUF_MAX_NAME_BYTES);
    gguf_quote(fr_str_of(name), quoted);
    if (fault)
        return fr_fail(err, FR_EINVAL, "%s: tensor '%s': the name %s", w->out.path, quoted, fault);
    if (n_dims < 1 || n_dims > FR_GGUF_MAX_DIMS)
        return fr_fail(err, FR_EINVAL, "%s: tensor '%s': found %d dimensions, expected 1 to %d",
                       w->out.path, quoted, n_dims, FR_GGUF_MAX_DIMS);
    for (int i = 0; i < n_dims; i++)
        if (dims[i] < 1)
            return fr_fail(err, FR_EINVAL,
                           "%s: tensor '%s': found dimension %d = %" PRId64 ", expected 1 or more",
                           w->out.path, quoted, i, dims[i]);
    if (file_id(type, layout) < 0)
        return fr_fail(err, FR_EINVAL, "%s: tensor '%s': type %s has no form in files", w->out.path,
                       quoted, fr_type_name(type, layout));
    if (w->n_tensors >= GGUF_MAX_TENSORS)
        return fr_fail(err, FR_EINVAL, "%s: more than %d tensors", w->out.path, GGUF_MAX_TENSORS);
    return FR_OK;
}

fr_status fr_gguf_add_tensor(fr_gguf_writer *w, const char *name, fr_type type, fr_layout layout,
                             int n_dims, const int64_t *dims, fr_err *err)
{
    FR_TRY(check_adding(w, err));
    FR_TRY(check_tensor(w, name, type, layout, n_dims, dims, err));
    fr_gguf_tensor t = {.n_dims = n_dims, .dims = {1, 1, 1, 1}, .type = type, .layout = layout};
    memcpy(t.dims, dims, (size_t)n_dims * sizeof *dims);
    if (gguf_tensor_bytes(type, layout, t.dims, &t.bytes, err) != FR_OK)
        return fr_err_context(err, FR_EINVAL, "%s: tensor '%s'", w->out.path, name);
    size_t i;
    if (gguf_index_find(&w->names, w->tensors, gguf_tensor_name, fr_str_of(name), &i))
        return fr_fail(err, FR_EINVAL, "%s: tensor '%s' is added twice", w->out.path, name);

    void *items = w->tensors;
    FR_TRY(fr_mem_grow(FR_MEM_GGUF, &items, &w->tensor_cap, w->n_tensors + 1, sizeof t, err));
    w->tensors = items;
    t.name = fr_arena_strndup(&w->arena, name, strlen(name), err);
    if (!t.name)
        return FR_ENOMEM;
    w->tensors[w->n_tensors] = t;
    FR_TRY(gguf_index_add(&w->names, w->tensors, gguf_tensor_name, w->n_tensors, &i, err));
    w->n_tensors++;
    return FR_OK;
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static fr_status choose_alignment(fr_gguf_writer *w, fr_err *err)
{
    size_t i;
    w->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (!gguf_index_find(&w->keys, w->entries, entry_name, FR_STR(GGUF_ALIGNMENT_KEY), &i))
        return FR_OK;
    const uint8_t *p = (const uint8_t *)w->entries[i].encoded.p;
    fr_gguf_value v = {.type = (fr_gguf_type)gguf_load_u32(p), .n = 1, .bytes = p + 4};
    int64_t a = gguf_type_is_int(v.type) ? fr_gguf_elem_i64(&v, 0) : 0;
    if (a < GGUF_MIN_ALIGNMENT || a > GGUF_MAX_ALIGNMENT || (a & (a - 1)) != 0)
        return fr_fail(err, FR_EINVAL,
                       "%s: key '" GGUF_ALIGNMENT_KEY "': found %s %" PRId64
                       ", expected a power of two from %d to %d",
                       w->out.path, fr_gguf_type_name(v.type), a, GGUF_MIN_ALIGNMENT,
                       GGUF_MAX_ALIGNMENT);
    w->alignment = (uint64_t)a;
    return FR_OK;
}

/* Gives every tensor its place; FR_EINVAL when they do not fit into 2^63 bytes. */
static fr_status place_tensors(fr_gguf_writer *w, fr_err *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        fr_gguf_tensor *t = &w->tensors[i];
        t->offset = at;
        if (t->bytes > INT64_MAX - at - GGUF_MAX_HEADER_BYTES - GGUF_MAX_ALIGNMENT)
            return fr_fail(err, FR_EINVAL, "%s: tensor '%s': the file would pass 2^63 bytes",
                           w->out.path, t->name);
        at = gguf_align(at + t->bytes, w->alignment);
    }
    return FR_OK;
}

static fr_status encode_tensor(fr_buf *b, const fr_gguf_tensor *t, fr_err *err)
{
    FR_TRY(add_str(b, fr_str_of(t->name), err));
    FR_TRY(add_u32(b, (uint32_t)t->n_dims, err));
    for (int i = 0; i < t->n_dims; i++)
        FR_TRY(add_u64(b, (uint64_t)t->dims[i], err));
    FR_TRY(add_u32(b, (uint32_t)file_id(t->type, t->layout), err));
    return add_u64(b, t->offset, err);
}

static fr_status encode_header(const fr_gguf_writer *w, fr_buf *b, fr_err *err)
{
    FR_TRY(fr_buf_puts(b, "GGUF", err));
    FR_TRY(add_u32(b, WRITER_VERSION, err));
    FR_TRY(add_u64(b, w->n_tensors, err));
    FR_TRY(add_u64(b, w->n_entries, err));
    for (size_t i = 0; i < w->n_entries; i++) {
        FR_TRY(add_str(b, w->entries[i].key, err));
        FR_TRY(fr_buf_add(b, w->entries[i].encoded.p, w->entries[i].encoded.n, err));
    }
    for (size_t i = 0; i < w->n_tensors; i++)
        FR_TRY(encode_tensor(b, &w->tensors[i], err));
    if (b->n > GGUF_MAX_HEADER_BYTES)
        return fr_fail(err, FR_EINVAL, "%s: a header of %zu bytes, expected at most %d",
                       w->out.path, b->n, GGUF_MAX_HEADER_BYTES);
    return FR_OK;
}

/* Zeros up to the file offset `to`. */
static fr_status pad(fr_gguf_writer *w, uint64_t to, fr_err *err)
{
    static const uint8_t zeros[4096];
    while (w->out.written < to) {
        uint64_t n = to - w->out.written;
        FR_TRY(fr_file_write(&w->out, zeros, n < sizeof zeros ? (size_t)n : sizeof zeros, err));
    }
    return FR_OK;
}

static fr_status write_header(fr_gguf_writer *w, fr_buf *b, fr_err *err)
{
    FR_TRY(choose_alignment(w, err));
    FR_TRY(place_tensors(w, err));
    FR_TRY(encode_header(w, b, err));
    w->data_start = gguf_align(b->n, w->alignment);
    FR_TRY(fr_file_write(&w->out, b->p, b->n, err));
    return pad(w, w->data_start, err);
}

fr_status fr_gguf_write_header(fr_gguf_writer *w, fr_err *err)
{
    FR_TRY(check_adding(w, err));
    fr_buf b = {0};
    fr_status st = write_header(w, &b, err);
    fr_buf_free(&b);
    w->state = st == FR_OK ? WRITING : FAILED;
    return st;
}

static fr_status write_data(fr_gguf_writer *w, const void *bytes, size_t n, fr_err *err)
{
    if (w->state != WRITING)
        return fr_fail(err, FR_EINVAL, "%s: data before the header, or after a failure",
                       w->out.path);
    while (w->i_tensor < w->n_tensors && w->done == w->tensors[w->i_tensor].bytes) {
        w->i_tensor++;
        w->done = 0;
    }
    if (w->i_tensor == w->n_tensors)
        return fr_fail(err, FR_EINVAL, "%s: found %zu bytes of data after the last tensor",
                       w->out.path, n);
    const fr_gguf_tensor *t = &w->tensors[w->i_tensor];
    if (n > t->bytes - w->done)
        return fr_fail(err, FR_EINVAL,
                       "%s: tensor '%s': found %zu bytes of data, expected at most %" PRIu64,
                       w->out.path, t->name, n, t->bytes - w->done);
    FR_TRY(pad(w, w->data_start + t->offset, err));
    w->done += n;
    return fr_file_write(&w->out, bytes, n, err);
}

fr_status fr_gguf_write_data(fr_gguf_writer *w, const void *bytes, size_t n, fr_err *err)
{
    fr_status st = n ? write_data(w, bytes, n, err) : FR_OK;
    if (st != FR_OK)
        w->state = FAILED;
    return st;
}

/* Everything was added and written. */
static fr_status check_complete(const fr_gguf_writer *w, fr_err *err)
{
    if (w->state != WRITING)
        return fr_fail(err, FR_EINVAL, "%s: not written: %s", w->out.path,
                       w->state == ADDING ? "the header is missing" : "an earlier step failed");
    bool last = w->i_tensor + 1 >= w->n_tensors;
    const fr_gguf_tensor *t = w->n_tensors ? &w->tensors[w->i_tensor] : NULL;
    if (t && (!last || w->done != t->bytes))
        return fr_fail(err, FR_EINVAL,
                       "%s: tensor '%s': found %" PRIu64 " bytes of data, expected %" PRIu64 "%s",
                       w->out.path, t->name, w->done, t->bytes,
                       last ? "" : ", and of all that follow");
    return FR_OK;
}

static void free_writer(fr_gguf_writer *w)
{
    for (size_t i = 0; i < w->n_entries; i++)
        fr_buf_free(&w->entries[i].encoded);
    fr_mem_free(w->entries);
    fr_mem_free(w->tensors);
    gguf_index_free(&w->keys);
    gguf_index_free(&w->names);
    fr_arena_free(&w->arena);
    fr_mem_free(w);
}

fr_status fr_gguf_writer_close(fr_gguf_writer *w, bool commit, fr_err *err)
{
    if (!w)
        return FR_OK;
    fr_status st = commit ? check_complete(w, err) : FR_OK;
    if (commit && st == FR_OK)
        st = pad(w, gguf_align(w->out.written, w->alignment), err);
    if (commit && st == FR_OK)
        st = fr_file_commit(&w->out, err);
    else
        fr_file_abort(&w->out);
    free_writer(w);
    return st;
}
