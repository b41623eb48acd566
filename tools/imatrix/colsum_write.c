#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf_writer.h"
#include "imatrix/colsum.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(((const colsum_entry *)a)->name, ((const colsum_entry *)b)->name);
}

static fr_status check_finite(const colsum *im, fr_err *err)
{
    for (size_t i = 0; i < im->n; i++) {
        const colsum_entry *e = &im->entries[i];
        for (int64_t k = 0; k < e->n_mat * e->cols; k++)
            if (!isfinite((float)e->sums[k]))
                return fr_fail(err, FR_EFORMAT,
                               "%s: found a sum of %g in column %lld of matrix %lld, expected a "
                               "finite number; --check-tensors looks for bad values in the model",
                               e->name, e->sums[k], (long long)(k % e->cols),
                               (long long)(k / e->cols));
    }
    return FR_OK;
}

/* Room for the floats of the largest entry. */
static fr_status open_floats(const colsum *im, float **out, fr_err *err)
{
    int64_t most = 1;
    for (size_t i = 0; i < im->n; i++)
        if (im->entries[i].n_mat * im->entries[i].cols > most)
            most = im->entries[i].n_mat * im->entries[i].cols;
    *out = FR_NEW(float, FR_MEM_MISC, (size_t)most, err);
    return *out ? FR_OK : FR_ENOMEM;
}

/* ---- GGUF
 * --------------------------------------------------------------------------------------------------
 */

/* The array of strings as GGUF stores it: length, bytes. */
static fr_status put_datasets(fr_gguf_writer *w, const colsum *im, fr_err *err)
{
    fr_buf bytes = {0}, at = {0};
    fr_gguf_value v = {.type = FR_GGUF_STR, .is_array = true};
    fr_status st = FR_OK;
    for (size_t i = 0; i < im->datasets.n && st == FR_OK;) {
        const char *name = im->datasets.p + i;
        uint64_t n = strlen(name), offset = bytes.n;
        st = fr_buf_add(&at, (const char *)&offset, sizeof offset, err);
        if (st == FR_OK)
            st = fr_buf_add(&bytes, (const char *)&n, sizeof n, err);
        if (st == FR_OK)
            st = fr_buf_add(&bytes, name, n, err);
        i += n + 1;
        v.n++;
    }
    v.bytes = (const uint8_t *)(bytes.p ? bytes.p : "");
    v.at = (const uint64_t *)(const void *)at.p;
    if (st == FR_OK)
        st = fr_gguf_put_value(w, "imatrix.datasets", &v, err);
    fr_buf_free(&bytes);
    fr_buf_free(&at);
    return st;
}

static fr_status put_head(fr_gguf_writer *w, const colsum *im, fr_err *err)
{
    FR_TRY(fr_gguf_put_str(w, "general.type", FR_STR("imatrix"), err));
    FR_TRY(put_datasets(w, im, err));
    FR_TRY(fr_gguf_put_u32(w, "imatrix.chunk_count", (uint32_t)im->n_chunks, err));
    FR_TRY(fr_gguf_put_u32(w, "imatrix.chunk_size", (uint32_t)im->chunk_size, err));
    for (size_t i = 0; i < im->n; i++) {
        const colsum_entry *e = &im->entries[i];
        char name[512];
        int64_t dims[] = {e->cols, e->n_mat};
        snprintf(name, sizeof name, "%s.in_sum2", e->name);
        FR_TRY(fr_gguf_add_tensor(w, name, FR_TYPE_F32, FR_LAYOUT_PLAIN, 2, dims, err));
        dims[0] = 1;
        snprintf(name, sizeof name, "%s.counts", e->name);
        FR_TRY(fr_gguf_add_tensor(w, name, FR_TYPE_F32, FR_LAYOUT_PLAIN, 2, dims, err));
    }
    return fr_gguf_write_header(w, err);
}

static fr_status put_entry(fr_gguf_writer *w, const colsum_entry *e, float *floats, fr_err *err)
{
    int64_t n = e->n_mat * e->cols;
    for (int64_t k = 0; k < n; k++)
        floats[k] = (float)e->sums[k];
    FR_TRY(fr_gguf_write_data(w, floats, (size_t)n * sizeof *floats, err));
    for (int64_t m = 0; m < e->n_mat; m++)
        floats[m] = (float)e->counts[m];
    return fr_gguf_write_data(w, floats, (size_t)e->n_mat * sizeof *floats, err);
}

static fr_status write_gguf(const colsum *im, const char *path, float *floats, fr_err *err)
{
    fr_gguf_writer *w;
    FR_TRY(fr_gguf_writer_create(path, &w, err));
    fr_status st = put_head(w, im, err);
    for (size_t i = 0; i < im->n && st == FR_OK; i++)
        st = put_entry(w, &im->entries[i], floats, err);
    fr_status end = fr_gguf_writer_close(w, st == FR_OK, st == FR_OK ? err : NULL);
    return st != FR_OK ? st : end;
}

/* ---- the older form
 * ---------------------------------------------------------------------------------------- */

static fr_status put_i32(fr_out_file *f, int64_t v, fr_err *err)
{
    int32_t i = v < INT32_MAX ? (int32_t)v : INT32_MAX;
    return fr_file_write(f, &i, sizeof i, err);
}

static fr_status put_text(fr_out_file *f, const char *text, fr_err *err)
{
    FR_TRY(put_i32(f, (int64_t)strlen(text), err));
    return fr_file_write(f, text, strlen(text), err);
}

/* In chunks, rounded up: 0 would say that nothing was seen. */
static int64_t calls_of(const colsum_entry *e, int64_t chunk_size)
{
    int64_t most = 0;
    for (int64_t m = 0; m < e->n_mat; m++)
        most = e->counts[m] > most ? e->counts[m] : most;
    return (most + chunk_size - 1) / chunk_size;
}

static fr_status put_legacy_entry(fr_out_file *f, const colsum_entry *e, int64_t chunk_size,
                                  float *floats, fr_err *err)
{
    int64_t calls = calls_of(e, chunk_size), n = e->n_mat * e->cols;
    for (int64_t k = 0; k < n; k++) {
        int64_t count = e->counts[k / e->cols];
        double mean = count ? e->sums[k] / (double)count : 1;
        floats[k] = (float)(mean * (double)calls);
    }
    FR_TRY(put_text(f, e->name, err));
    FR_TRY(put_i32(f, calls, err));
    FR_TRY(put_i32(f, n, err));
    return fr_file_write(f, floats, (size_t)n * sizeof *floats, err);
}

static fr_status put_legacy(fr_out_file *f, const colsum *im, float *floats, fr_err *err)
{
    FR_TRY(put_i32(f, (int64_t)im->n, err));
    for (size_t i = 0; i < im->n; i++)
        FR_TRY(put_legacy_entry(f, &im->entries[i], im->chunk_size, floats, err));
    FR_TRY(put_i32(f, im->n_chunks, err));
    const char *last = ""; /* there is room for one data set */
    for (size_t at = 0; at < im->datasets.n; at += strlen(last) + 1)
        last = im->datasets.p + at;
    return put_text(f, last, err);
}

static fr_status write_legacy(const colsum *im, const char *path, float *floats, fr_err *err)
{
    fr_out_file f;
    FR_TRY(fr_file_create(path, &f, err));
    fr_status st = put_legacy(&f, im, floats, err);
    if (st == FR_OK)
        return fr_file_commit(&f, err);
    fr_file_abort(&f);
    return st;
}

fr_status colsum_write(colsum *im, const char *path, fr_err *err)
{
    float *floats;
    size_t n = strlen(path);
    bool legacy = n >= 4 && strcmp(path + n - 4, ".dat") == 0;
    if (im->n > 1)
        qsort(im->entries, im->n, sizeof *im->entries, by_name);
    FR_TRY(check_finite(im, err));
    FR_TRY(open_floats(im, &floats, err));
    fr_status st = legacy ? write_legacy(im, path, floats, err) : write_gguf(im, path, floats, err);
    fr_mem_free(floats);
    return st;
}
