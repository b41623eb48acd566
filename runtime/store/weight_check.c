/* Looking for weights that are no numbers. */
#include <math.h>
#include <stdatomic.h>

#include "store/store_internal.h"

typedef struct {
    const fr_weight *w;
    float *scratch; /* n_threads x cols */
    atomic_int_fast64_t bad_row;
} check_job;

int64_t store_find_bad_row(const fr_weight *w, const uint8_t *rows, int64_t n, float *scratch)
{
    for (int64_t r = 0; r < n; r++) {
        fr_decode_row(w->type, w->layout, rows, r, w->cols, scratch);
        for (int64_t c = 0; c < w->cols; c++)
            if (!isfinite(scratch[c]))
                return r;
    }
    return -1;
}

fr_status store_bad_row(const fr_store *s, int i, int64_t row, fr_err *err)
{
    return fr_fail(err, FR_EFORMAT,
                   "tensor %s: row %lld holds NaN or infinity, expected finite weights; the file "
                   "is damaged",
                   s->model->weights[i].name, (long long)row);
}

static void check_thread(void *arg, int i_thread, int n_threads)
{
    check_job *job = arg;
    const fr_weight *w = job->w;
    int64_t from, to, group = fr_layout_rows(w->type, w->layout);
    fr_cpu_share(w->rows, group, i_thread, n_threads, &from, &to);
    for (int64_t m = 0; m < w->n_mat; m++) {
        const uint8_t *rows = (const uint8_t *)w->data + (size_t)m * w->mat_bytes +
                              (size_t)from * fr_row_bytes(w->type, w->layout, w->cols);
        int64_t bad = store_find_bad_row(w, rows, to - from, job->scratch + i_thread * w->cols);
        if (bad >= 0) {
            atomic_store(&job->bad_row, m * w->rows + from + bad);
            return;
        }
    }
}

fr_status store_check_weight(fr_store *s, int i, int64_t first, const fr_weight *w, fr_err *err)
{
    check_job job = {.w = w, .bad_row = -1};
    job.scratch = fr_mem_array(FR_MEM_MISC, (size_t)fr_cpu_n_threads(s->cpu),
                               (size_t)w->cols * sizeof(float), err);
    if (!job.scratch)
        return FR_ENOMEM;
    fr_cpu_run(s->cpu, check_thread, &job);
    fr_mem_free(job.scratch);
    return job.bad_row < 0 ? FR_OK : store_bad_row(s, i, first * w->rows + job.bad_row, err);
}

fr_status store_check(fr_store *s, fr_err *err)
{
    for (int k = 0; k < s->n_parts; k++)
        if (s->parts[k].device == FR_PLAN_CPU)
            FR_TRY(
                store_check_weight(s, s->items[k].weight, s->parts[k].first, &s->parts[k].w, err));
    return FR_OK;
}
