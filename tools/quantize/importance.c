#include "importance.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENTRIES = 1 << 20 };

fr_status importance_add(importance *im, fr_str name, importance_entry e, fr_err *err)
{
    void *entries = im->entries;
    if (im->n >= MAX_ENTRIES)
        return fr_fail(err, FR_EFORMAT, "%s: found more than %d entries", im->path, MAX_ENTRIES);
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &entries, &im->cap, im->n + 1, sizeof e, err));
    im->entries = entries;
    e.name = fr_arena_strndup(&im->arena, name.p, name.n, err);
    if (!e.name)
        return FR_ENOMEM;
    im->entries[im->n++] = e;
    return FR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const importance_entry *)a)->name, ((const importance_entry *)b)->name);
}

static fr_status finish(importance *im, fr_err *err)
{
    if (im->n == 0)
        return fr_fail(err, FR_EFORMAT, "%s: found no entries, expected an importance matrix",
                       im->path);
    qsort(im->entries, im->n, sizeof *im->entries, by_name);
    for (size_t i = 1; i < im->n; i++)
        if (by_name(&im->entries[i - 1], &im->entries[i]) == 0)
            return fr_fail(err, FR_EFORMAT, "%s: found %s twice, expected once", im->path,
                           im->entries[i].name);
    return FR_OK;
}

fr_status importance_open(const char *path, importance *im, fr_err *err)
{
    char magic[4] = "";
    *im = (importance){.path = path, .file = FR_FILE_CLOSED, .arena = fr_arena_make(FR_MEM_MISC)};
    fr_status st = fr_file_open(path, &im->file, err);
    if (st == FR_OK && im->file.size >= sizeof magic)
        st = fr_file_read_at(&im->file, 0, magic, sizeof magic, path, err);
    if (st == FR_OK && memcmp(magic, "GGUF", 4) == 0)
        st = importance_open_gguf(im, err);
    else if (st == FR_OK)
        st = importance_open_dat(im, err);
    if (st == FR_OK)
        st = finish(im, err);
    if (st != FR_OK)
        importance_close(im);
    return st;
}

void importance_close(importance *im)
{
    if (!im->path)
        return;
    fr_file_close(&im->file);
    fr_gguf_close(im->g);
    fr_mem_free(im->entries);
    fr_buf_free(&im->dataset);
    fr_arena_free(&im->arena);
    *im = (importance){.file = FR_FILE_CLOSED};
}

const importance_entry *importance_find(const importance *im, const char *name)
{
    importance_entry key = {.name = name};
    if (im->n == 0)
        return NULL;
    return bsearch(&key, im->entries, im->n, sizeof key, by_name);
}

fr_status importance_check(const importance *im, const importance_entry *e, int64_t cols,
                           int64_t n_mat, fr_err *err)
{
    if (e->n == cols || (n_mat <= INT64_MAX / cols && e->n == cols * n_mat))
        return FR_OK;
    return fr_fail(err, FR_EINVAL,
                   "%s: %s: found %" PRId64 " values, expected %" PRId64 " for %" PRId64
                   " matrices with rows of %" PRId64 " weights; it belongs to another model",
                   im->path, e->name, e->n, cols * n_mat, n_mat, cols);
}

/* Checks one matrix's values and whether there are any. */
static fr_status check_values(const importance *im, const importance_entry *e, int64_t first,
                              int64_t cols, const float *x, bool *has, fr_err *err)
{
    *has = false;
    for (int64_t i = 0; i < cols; i++) {
        if (!(x[i] >= 0 && isfinite(x[i])))
            return fr_fail(err, FR_EFORMAT,
                           "%s: %s: found %g as value %" PRId64 ", expected a number from 0",
                           im->path, e->name, (double)x[i], first + i);
        *has |= x[i] > 0;
    }
    return FR_OK;
}

fr_status importance_read(const importance *im, const importance_entry *e, int64_t cols,
                          int64_t n_mat, float *out, bool *has, fr_err *err)
{
    FR_TRY(importance_check(im, e, cols, n_mat, err));
    FR_TRY(im->g ? importance_read_gguf(im, e, out, err) : importance_read_dat(im, e, out, err));
    int64_t n_own = e->n / cols;
    for (int64_t m = 0; m < n_own; m++)
        FR_TRY(check_values(im, e, m * cols, cols, out + m * cols, &has[m], err));
    for (int64_t m = n_own; m < n_mat; m++) {
        memcpy(out + m * cols, out, (size_t)cols * sizeof *out);
        has[m] = has[0];
    }
    return FR_OK;
}
