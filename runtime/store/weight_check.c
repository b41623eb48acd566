/* Looking for weights that are no numbers. */
#include <math.h>
#include <stdatomic.h>

#include "store/store_internal.h"

typedef struct {
    const fr_weight *w;
    float *scratch; /* n_threads x cols */
    atomic_int_fast64_t bad_row;
} check_job;

static void check_thread(void *arg, int i_thread, int n_threads)
{
    check_job *job = arg;
    const fr_weight *w = job->w;
    float *row = job->scratch + i_thread * w->cols;
    int64_t from, to;
    fr_cpu_share(w->rows * w->n_mat, 1, i_thread, n_threads, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const uint8_t *mat = (const uint8_t *)w->data + (size_t)(r / w->rows) * w->mat_bytes;
        fr_decode_row(w->type, w->layout, mat, r % w->rows, w->cols, row);
        for (int64_t c = 0; c < w->cols; c++)
            if (!isfinite(row[c])) {
                atomic_store(&job->bad_row, r);
                return;
            }
    }
}

fr_status store_check(fr_store *s, fr_err *err)
{
    const fr_model *m = s->model;
    for (int i = 0; i < m->n_weights; i++) {
        const fr_weight *w = &s->weights[i];
        check_job job = {.w = w, .bad_row = -1};
        job.scratch = fr_mem_array(FR_MEM_MISC, (size_t)fr_cpu_n_threads(s->cpu),
                                   (size_t)w->cols * sizeof(float), err);
        if (!job.scratch)
            return FR_ENOMEM;
        fr_cpu_run(s->cpu, check_thread, &job);
        fr_mem_free(job.scratch);
        if (job.bad_row >= 0)
            return fr_fail(err, FR_EFORMAT,
                           "tensor %s: row %lld holds NaN or infinity, expected finite weights; "
                           "the file is damaged",
                           m->weights[i].name, (long long)job.bad_row);
    }
    return FR_OK;
}
