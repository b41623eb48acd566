#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#include "gguf/gguf_internal.h"

fr_status fr_gguf_open(const char *path, unsigned flags, fr_gguf **out, fr_err *err)
{
    *out = NULL;
    fr_gguf *g = FR_NEW(fr_gguf, FR_MEM_GGUF, 1, err);
    if (!g)
        return FR_ENOMEM;
    g->arena = fr_arena_make(FR_MEM_GGUF);
    g->flags = flags;
    fr_status st = gguf_add_file(g, path, NULL, err);
    if (st == FR_OK)
        st = gguf_add_split_files(g, err);
    if (st != FR_OK) {
        fr_gguf_close(g);
        return st;
    }
    *out = g;
    return FR_OK;
}

static void close_file(gguf_file *f)
{
    fr_file_close(&f->file);
    fr_mem_free(f->header);
    fr_mem_free(f->kvs);
    gguf_index_free(&f->keys);
}

void fr_gguf_close(fr_gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_files; i++)
        close_file(&g->files[i]);
    fr_mem_free(g->files);
    fr_mem_free(g->tensors);
    gguf_index_free(&g->names);
    fr_arena_free(&g->arena);
    fr_mem_free(g);
}

int fr_gguf_version(const fr_gguf *g)
{
    return (int)g->files[0].version;
}

uint64_t fr_gguf_alignment(const fr_gguf *g)
{
    return g->files[0].alignment;
}

bool fr_gguf_has_data(const fr_gguf *g)
{
    return !(g->flags & FR_GGUF_HEADERS_ONLY);
}

int fr_gguf_n_files(const fr_gguf *g)
{
    return (int)g->n_files;
}

const char *fr_gguf_path(const fr_gguf *g, int i_file)
{
    return g->files[i_file].path;
}

const fr_file *fr_gguf_file(const fr_gguf *g, int i_file)
{
    return fr_gguf_has_data(g) ? &g->files[i_file].file : NULL;
}

/* ---- keys -------------------------------------------------------------------------------------
 */

size_t fr_gguf_n_kv(const fr_gguf *g)
{
    return g->files[0].n_kv;
}

const fr_gguf_kv *fr_gguf_kv_at(const fr_gguf *g, size_t i)
{
    return &g->files[0].kvs[i];
}

const fr_gguf_value *gguf_file_find(const gguf_file *f, const char *key)
{
    size_t i;
    return gguf_index_find(&f->keys, f->kvs, gguf_kv_name, fr_str_of(key), &i) ? &f->kvs[i].value
                                                                               : NULL;
}

const fr_gguf_value *fr_gguf_find(const fr_gguf *g, const char *key)
{
    return gguf_file_find(&g->files[0], key);
}

static fr_status find(const fr_gguf *g, const char *key, const fr_gguf_value **v, fr_err *err)
{
    *v = fr_gguf_find(g, key);
    return *v ? FR_OK
              : fr_fail(err, FR_ENOTFOUND, "%s: key '%s' is missing", g->files[0].path, key);
}

static fr_status wrong_type(const fr_gguf *g, const char *key, const fr_gguf_value *v,
                            const char *wanted, fr_err *err)
{
    return fr_fail(err, FR_EFORMAT, "%s: key '%s', at byte %td: found %s%s, expected %s",
                   g->files[0].path, key, v->bytes - g->files[0].header,
                   v->is_array ? "an array of " : "", fr_gguf_type_name(v->type), wanted);
}

/* An integer between min and max. A u64 beyond INT64_MAX is in no such range. */
static fr_status get_int(const fr_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                         fr_err *err)
{
    const fr_gguf_value *v;
    FR_TRY(find(g, key, &v, err));
    if (v->is_array || !gguf_type_is_int(v->type))
        return wrong_type(g, key, v, "an integer", err);
    int64_t x = fr_gguf_elem_i64(v, 0);
    bool too_big = v->type == FR_GGUF_U64 && gguf_load_u64(v->bytes) > INT64_MAX;
    if (too_big || x < min || x > max)
        return fr_fail(err, FR_EFORMAT,
                       "%s: key '%s', at byte %td: found %.0f, expected %" PRId64 " to %" PRId64,
                       g->files[0].path, key, v->bytes - g->files[0].header, fr_gguf_elem_f64(v, 0),
                       min, max);
    *out = x;
    return FR_OK;
}

fr_status fr_gguf_get_i64(const fr_gguf *g, const char *key, int64_t *out, fr_err *err)
{
    return get_int(g, key, INT64_MIN, INT64_MAX, out, err);
}

fr_status fr_gguf_get_u32(const fr_gguf *g, const char *key, uint32_t *out, fr_err *err)
{
    int64_t x = 0;
    FR_TRY(get_int(g, key, 0, UINT32_MAX, &x, err));
    *out = (uint32_t)x;
    return FR_OK;
}

fr_status fr_gguf_get_f32(const fr_gguf *g, const char *key, float *out, fr_err *err)
{
    const fr_gguf_value *v;
    FR_TRY(find(g, key, &v, err));
    bool is_float = v->type == FR_GGUF_F32 || v->type == FR_GGUF_F64;
    if (v->is_array || !(is_float || gguf_type_is_int(v->type)))
        return wrong_type(g, key, v, "a number", err);
    *out = (float)fr_gguf_elem_f64(v, 0);
    return FR_OK;
}

fr_status fr_gguf_get_bool(const fr_gguf *g, const char *key, bool *out, fr_err *err)
{
    const fr_gguf_value *v;
    FR_TRY(find(g, key, &v, err));
    if (v->is_array || v->type != FR_GGUF_BOOL)
        return wrong_type(g, key, v, "a bool", err);
    *out = v->bytes[0] != 0;
    return FR_OK;
}

fr_status fr_gguf_get_str(const fr_gguf *g, const char *key, fr_str *out, fr_err *err)
{
    const fr_gguf_value *v;
    FR_TRY(find(g, key, &v, err));
    if (v->is_array || v->type != FR_GGUF_STR)
        return wrong_type(g, key, v, "a string", err);
    *out = fr_gguf_elem_str(v, 0);
    return FR_OK;
}

fr_status fr_gguf_get_array(const fr_gguf *g, const char *key, bool want_strings,
                            const fr_gguf_value **out, fr_err *err)
{
    const fr_gguf_value *v;
    FR_TRY(find(g, key, &v, err));
    bool fits = want_strings ? v->type == FR_GGUF_STR : gguf_type_bytes(v->type) != 0;
    if (!v->is_array || !fits)
        return wrong_type(g, key, v, want_strings ? "an array of strings" : "an array of numbers",
                          err);
    *out = v;
    return FR_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

size_t fr_gguf_n_tensors(const fr_gguf *g)
{
    return g->n_tensors;
}

const fr_gguf_tensor *fr_gguf_tensor_at(const fr_gguf *g, size_t i)
{
    return &g->tensors[i];
}

const fr_gguf_tensor *fr_gguf_find_tensor(const fr_gguf *g, const char *name)
{
    size_t i;
    return gguf_index_find(&g->names, g->tensors, gguf_tensor_name, fr_str_of(name), &i)
               ? &g->tensors[i]
               : NULL;
}

const void *fr_gguf_tensor_data(const fr_gguf *g, const fr_gguf_tensor *t)
{
    const uint8_t *data = g->files[t->i_file].file.data;
    return data ? data + t->offset : NULL;
}

fr_status fr_gguf_read_tensor(const fr_gguf *g, const fr_gguf_tensor *t, uint64_t from, size_t n,
                              void *dst, fr_err *err)
{
    const gguf_file *f = &g->files[t->i_file];
    if (!fr_gguf_has_data(g))
        return fr_fail(err, FR_EINVAL, "%s: tensor '%s': the file was opened for its header only",
                       f->path, t->name);
    if (from > t->bytes || n > t->bytes - from)
        return fr_fail(err, FR_ERANGE,
                       "%s: tensor '%s': bytes %" PRIu64 " to %" PRIu64 " wanted of %" PRIu64,
                       f->path, t->name, from, from + n, t->bytes);
    return fr_file_read_at(&f->file, t->offset + from, dst, n, f->path, err);
}
