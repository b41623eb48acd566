/* Importance matrices as GGUF files: for each weight NAME the tensors NAME.in_sum2, sums of squares
 * for each column of each matrix, and NAME.counts, a number of terms for each matrix; both f32. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "importance.h"

#define SUMS   ".in_sum2"
#define COUNTS ".counts"

static int64_t n_values(const fr_gguf_tensor *t)
{
    return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

static fr_status add_weight(importance *im, const fr_gguf_tensor *sums, size_t n_name, fr_err *err)
{
    char name[128];
    int len = snprintf(name, sizeof name, "%.*s" COUNTS, (int)n_name, sums->name);
    const fr_gguf_tensor *counts = len < (int)sizeof name ? fr_gguf_find_tensor(im->g, name) : NULL;
    if (!counts)
        return fr_fail(err, FR_EFORMAT, "%s: found %s, expected %.*s" COUNTS " too", im->path,
                       sums->name, (int)n_name, sums->name);
    if (sums->type != FR_TYPE_F32 || counts->type != FR_TYPE_F32)
        return fr_fail(err, FR_EFORMAT, "%s: %s: found type %s, expected f32", im->path, sums->name,
                       fr_type_name(sums->type, sums->layout));
    if (n_values(sums) % n_values(counts) != 0)
        return fr_fail(err, FR_EFORMAT,
                       "%s: %s: found %" PRId64 " sums and %" PRId64
                       " counts, expected a count for each matrix",
                       im->path, sums->name, n_values(sums), n_values(counts));
    importance_entry e = {.n = n_values(sums), .sums = sums, .counts = counts};
    return importance_add(im, (fr_str){sums->name, n_name}, e, err);
}

static fr_status read_keys(importance *im, fr_err *err)
{
    fr_str type;
    int64_t chunks;
    const fr_gguf_value *sets;
    if (fr_gguf_get_str(im->g, "general.type", &type, NULL) != FR_OK || !fr_str_is(type, "imatrix"))
        return fr_fail(err, FR_EFORMAT,
                       "%s: found a GGUF file without general.type = imatrix, expected an "
                       "importance matrix",
                       im->path);
    if (fr_gguf_get_i64(im->g, "imatrix.chunk_count", &chunks, NULL) == FR_OK && chunks > 0)
        im->n_chunks = chunks;
    if (fr_gguf_get_array(im->g, "imatrix.datasets", true, &sets, NULL) != FR_OK)
        return FR_OK;
    for (uint64_t i = 0; i < sets->n; i++) {
        fr_str s = fr_gguf_elem_str(sets, i);
        if (i)
            FR_TRY(fr_buf_putc(&im->dataset, ',', err));
        FR_TRY(fr_buf_add(&im->dataset, s.p, s.n, err));
    }
    return FR_OK;
}

fr_status importance_open_gguf(importance *im, fr_err *err)
{
    fr_file_close(&im->file);
    FR_TRY(fr_gguf_open(im->path, FR_GGUF_NO_MMAP, &im->g, err));
    FR_TRY(read_keys(im, err));
    for (size_t i = 0; i < fr_gguf_n_tensors(im->g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(im->g, i);
        size_t n = strlen(t->name), k = sizeof SUMS - 1;
        if (n > k && strcmp(t->name + n - k, SUMS) == 0)
            FR_TRY(add_weight(im, t, n - k, err));
    }
    return FR_OK;
}

fr_status importance_read_gguf(const importance *im, const importance_entry *e, float *out,
                               fr_err *err)
{
    int64_t n_mat = n_values(e->counts), cols = e->n / n_mat;
    FR_TRY(fr_gguf_read_tensor(im->g, e->sums, 0, (size_t)e->n * sizeof *out, out, err));
    for (int64_t m = 0; m < n_mat; m++) {
        float count;
        FR_TRY(fr_gguf_read_tensor(im->g, e->counts, (uint64_t)m * sizeof count, sizeof count,
                                   &count, err));
        for (int64_t i = m * cols; i < (m + 1) * cols; i++)
            out[i] = count > 0 ? (float)((double)out[i] / (double)count) : 0.0f;
    }
    return FR_OK;
}
