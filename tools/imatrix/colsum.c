#include "imatrix/colsum.h"

#include <string.h>

static void free_entry(colsum_entry *e)
{
    fr_mem_free(e->name);
    fr_mem_free(e->sums);
    fr_mem_free(e->counts);
}

void colsum_free(colsum *im)
{
    for (size_t i = 0; i < im->n; i++)
        free_entry(&im->entries[i]);
    fr_mem_free(im->entries);
    fr_buf_free(&im->datasets);
    *im = (colsum){0};
}

colsum_entry *colsum_find(colsum *im, const char *name)
{
    for (size_t k = 0; k < im->n; k++) {
        size_t i = (im->last + 1 + k) % im->n;
        if (strcmp(im->entries[i].name, name) == 0) {
            im->last = i;
            return &im->entries[i];
        }
    }
    return NULL;
}

static fr_status new_entry(colsum *im, const char *name, int64_t cols, int64_t n_mat, fr_err *err)
{
    void *all = im->entries;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &all, &im->cap, im->n + 1, sizeof *im->entries, err));
    im->entries = all;
    colsum_entry e = {.cols = cols, .n_mat = n_mat};
    e.name = fr_mem_strndup(FR_MEM_MISC, name, strlen(name), err);
    e.sums = fr_mem_array(FR_MEM_MISC, (size_t)n_mat, (size_t)cols * sizeof *e.sums, err);
    e.counts = FR_NEW(int64_t, FR_MEM_MISC, (size_t)n_mat, err);
    if (!e.name || !e.sums || !e.counts) {
        free_entry(&e);
        return FR_ENOMEM;
    }
    im->entries[im->n++] = e;
    return FR_OK;
}

/* One matrix of n_mat * cols values becomes n_mat matrices; each of them saw all the rows. */
static fr_status split_entry(colsum_entry *e, int64_t cols, int64_t n_mat, fr_err *err)
{
    int64_t *counts = FR_NEW(int64_t, FR_MEM_MISC, (size_t)n_mat, err);
    if (!counts)
        return FR_ENOMEM;
    for (int64_t m = 0; m < n_mat; m++)
        counts[m] = e->counts[0];
    fr_mem_free(e->counts);
    e->counts = counts;
    e->cols = cols;
    e->n_mat = n_mat;
    return FR_OK;
}

fr_status colsum_entry_of(colsum *im, const char *name, int64_t cols, int64_t n_mat,
                          colsum_entry **out, fr_err *err)
{
    colsum_entry *e = colsum_find(im, name);
    if (!e) {
        FR_TRY(new_entry(im, name, cols, n_mat, err));
        e = &im->entries[im->n - 1];
        im->last = im->n - 1;
    } else if (e->n_mat == 1 && n_mat > 1 && e->cols == cols * n_mat) {
        FR_TRY(split_entry(e, cols, n_mat, err));
    }
    if (e->cols != cols || e->n_mat != n_mat)
        return fr_fail(err, FR_EINVAL,
                       "%s: found %lld matrices of %lld columns and %lld of %lld, expected one "
                       "shape; the importance matrices belong to different models",
                       name, (long long)e->n_mat, (long long)e->cols, (long long)n_mat,
                       (long long)cols);
    *out = e;
    return FR_OK;
}

fr_status colsum_add_dataset(colsum *im, fr_str name, fr_err *err)
{
    for (size_t at = 0; at < im->datasets.n; at += strlen(im->datasets.p + at) + 1)
        if (fr_str_is(name, im->datasets.p + at))
            return FR_OK;
    if (memchr(name.p, 0, name.n) || name.n == 0)
        return FR_OK;
    FR_TRY(fr_buf_add(&im->datasets, name.p, name.n, err));
    return fr_buf_putc(&im->datasets, 0, err);
}
