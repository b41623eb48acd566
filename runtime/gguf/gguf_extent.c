/* Sizes of tensors, and where their data stand in the file. */
#include <inttypes.h>
#include <stdlib.h>

#include "gguf/gguf_internal.h"

/* No type takes more than 2^4 bytes a weight, row headers included, so that bytes stay below 2^63.
 */
#define MAX_WEIGHTS ((int64_t)1 << 58)

fr_status gguf_tensor_bytes(fr_type type, fr_layout layout, const int64_t dims[FR_GGUF_MAX_DIMS],
                            uint64_t *bytes, fr_err *err)
{
    int64_t rows = 1, weights = dims[0];
    for (int i = 1; i < FR_GGUF_MAX_DIMS; i++)
        if (__builtin_mul_overflow(rows, dims[i], &rows) ||
            __builtin_mul_overflow(weights, dims[i], &weights))
            weights = INT64_MAX;
    if (weights > MAX_WEIGHTS)
        return fr_fail(err, FR_EFORMAT,
                       "found dims %" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64
                       ", expected at most 2^58 weights",
                       dims[0], dims[1], dims[2], dims[3]);
    /* Matrices of a stack are repacked one by one: groups must not span two. */
    FR_TRY(fr_type_check(type, layout, dims[1], dims[0], err));
    *bytes = (uint64_t)rows * fr_row_bytes(type, layout, dims[0]);
    return FR_OK;
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = (*(const fr_gguf_tensor *const *)a)->offset,
             y = (*(const fr_gguf_tensor *const *)b)->offset;
    return (x > y) - (x < y);
}

static fr_status check_end(const fr_gguf *g, const gguf_file *f, const fr_gguf_tensor *t,
                           fr_err *err)
{
    uint64_t end;
    if (__builtin_add_overflow(t->offset, t->bytes, &end))
        return fr_fail(err, FR_EFORMAT,
                       "%s: tensor '%s': %" PRIu64 " bytes at byte %" PRIu64 " end beyond 2^64",
                       f->path, t->name, t->bytes, t->offset);
    if (end > f->file.size && !(g->flags & FR_GGUF_HEADERS_ONLY))
        return fr_fail(err, FR_EFORMAT,
                       "%s: tensor '%s': %" PRIu64 " bytes of data at byte %" PRIu64
                       ", but the file ends at byte %" PRIu64 "; truncated%s, get it again",
                       f->path, t->name, t->bytes, t->offset, f->file.size,
                       f->file.size <= f->data_start ? " after the header" : "");
    return FR_OK;
}

static fr_status check_sorted(const fr_gguf *g, const gguf_file *f, fr_gguf_tensor *const *sorted,
                              size_t n, fr_err *err)
{
    for (size_t i = 0; i < n; i++) {
        const fr_gguf_tensor *t = sorted[i], *next = i + 1 < n ? sorted[i + 1] : NULL;
        FR_TRY(check_end(g, f, t, err));
        if (next && next->offset - t->offset < t->bytes)
            return fr_fail(err, FR_EFORMAT,
                           "%s: tensor '%s': data at byte %" PRIu64 " overlap tensor '%s' (%" PRIu64
                           " bytes at byte %" PRIu64 ")",
                           f->path, next->name, next->offset, t->name, t->bytes, t->offset);
    }
    return FR_OK;
}

fr_status gguf_check_extents(const fr_gguf *g, size_t first, size_t i_file, fr_err *err)
{
    size_t n = g->n_tensors - first;
    if (n == 0)
        return FR_OK;
    fr_gguf_tensor **sorted = FR_NEW(fr_gguf_tensor *, FR_MEM_GGUF, n, err);
    if (!sorted)
        return FR_ENOMEM;
    for (size_t i = 0; i < n; i++)
        sorted[i] = &g->tensors[first + i];
    qsort(sorted, n, sizeof *sorted, by_offset);
    fr_status st = check_sorted(g, &g->files[i_file], sorted, n, err);
    fr_mem_free(sorted);
    return st;
}
