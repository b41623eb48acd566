/* Derived weights: views, decoded copies and transposes of other weights. */
#include "store/store_internal.h"

typedef struct {
    const fr_model_weight *plan;
    const fr_weight *from;
    fr_weight *to;
    float *scratch;        /* of all threads */
    size_t scratch_floats; /* of one: a source row, then a whole target matrix */
} derive_job;

static const uint8_t *source_row(const derive_job *job, int64_t row, int64_t *in_matrix)
{
    *in_matrix = row % job->from->rows;
    return (const uint8_t *)job->from->data +
           (size_t)(row / job->from->rows) * job->from->mat_bytes;
}

static void decode_source(const derive_job *job, int64_t row, float *out)
{
    int64_t r;
    const uint8_t *mat = source_row(job, row, &r);
    fr_decode_row(job->from->type, job->from->layout, mat, r, job->from->cols, out);
}

static void make_matrix(const derive_job *job, int64_t m, float *scratch)
{
    const fr_weight *to = job->to;
    float *row = scratch, *mat = scratch + job->from->cols;
    int64_t first = m * job->plan->src_step + job->plan->src_row;
    if (job->plan->derive == FR_DERIVE_TRANSPOSE) {
        for (int64_t c = 0; c < to->cols; c++) {
            decode_source(job, first + c, row);
            for (int64_t r = 0; r < to->rows; r++)
                mat[r * to->cols + c] = row[r];
        }
    } else {
        for (int64_t r = 0; r < to->rows; r++)
            decode_source(job, first + r, mat + r * to->cols);
    }
    size_t row_bytes = fr_row_bytes(to->type, FR_LAYOUT_PLAIN, to->cols);
    uint8_t *out = (uint8_t *)(uintptr_t)to->data + (size_t)m * to->mat_bytes;
    for (int64_t r = 0; r < to->rows; r++)
        fr_encode_row(to->type, mat + r * to->cols, to->cols, NULL, out + (size_t)r * row_bytes);
}

static void derive_thread(void *arg, int i_thread, int n_threads)
{
    const derive_job *job = arg;
    int64_t from, to;
    fr_cpu_share(job->to->n_mat, 1, i_thread, n_threads, &from, &to);
    for (int64_t m = from; m < to; m++)
        make_matrix(job, m, job->scratch + (size_t)i_thread * job->scratch_floats);
}

static fr_status new_block(fr_store *s, int i, fr_err *err)
{
    s->made[i] = fr_mem_array(FR_MEM_DERIVED, s->model->weights[i].bytes, 1, err);
    if (!s->made[i])
        return FR_ENOMEM;
    s->weights[i].data = s->made[i];
    return FR_OK;
}

/* A vector of the file in another type than float32. */
static fr_status decode_vector(fr_store *s, int i, fr_err *err)
{
    const fr_gguf_tensor *t = s->model->weights[i].src;
    FR_TRY(new_block(s, i, err));
    uint8_t *raw = fr_mem_array(FR_MEM_MISC, t->bytes, 1, err);
    if (!raw)
        return FR_ENOMEM;
    fr_status st = fr_gguf_read_tensor(s->model->gguf, t, 0, t->bytes, raw, err);
    if (st == FR_OK)
        fr_decode_row(t->type, t->layout, raw, 0, t->dims[0], (float *)(void *)s->made[i]);
    fr_mem_free(raw);
    return st;
}

fr_status store_derive(fr_store *s, int i, fr_err *err)
{
    const fr_model_weight *plan = &s->model->weights[i];
    if (plan->src)
        return decode_vector(s, i, err);
    const fr_weight *from = &s->weights[plan->from];
    fr_weight *to = &s->weights[i];
    if (plan->derive == FR_DERIVE_VIEW) {
        size_t row_bytes = fr_row_bytes(from->type, from->layout, from->cols);
        to->data = (const uint8_t *)from->data + (size_t)plan->src_row * row_bytes;
        return FR_OK;
    }
    FR_TRY(new_block(s, i, err));
    derive_job job = {.plan = plan, .from = from, .to = to};
    job.scratch_floats = (size_t)(from->cols + to->rows * to->cols);
    job.scratch = fr_mem_array(FR_MEM_MISC, (size_t)fr_cpu_n_threads(s->cpu),
                               job.scratch_floats * sizeof(float), err);
    if (!job.scratch)
        return FR_ENOMEM;
    fr_cpu_run(s->cpu, derive_thread, &job);
    fr_mem_free(job.scratch);
    return FR_OK;
}
