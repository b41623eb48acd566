/* Derived weights: views, decoded copies and transposes of other weights. They are computed in host
 * memory, and copied where they belong on a GPU. */
#include "store/store_internal.h"

typedef struct {
    const fr_model_weight *plan;
    const fr_weight *from, *to; /* in host memory */
    int64_t first_mat;          /* of `to` */
    float *scratch;             /* of all threads */
    size_t scratch_floats;      /* of one: a source row, then a whole target matrix */
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
    int64_t first = (job->first_mat + m) * job->plan->src_step + job->plan->src_row;
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

/* A vector of the file in another type than float32. */
static fr_status decode_vector(const fr_store *s, int i, const fr_weight *to, fr_err *err)
{
    const fr_gguf_tensor *t = s->model->weights[i].src;
    uint8_t *raw = fr_mem_array(FR_MEM_MISC, t->bytes, 1, err);
    if (!raw)
        return FR_ENOMEM;
    fr_status st = fr_gguf_read_tensor(s->model->gguf, t, 0, t->bytes, raw, err);
    if (st == FR_OK)
        fr_decode_row(t->type, t->layout, raw, 0, t->dims[0], (float *)(uintptr_t)to->data);
    fr_mem_free(raw);
    return st;
}

/* Weight i in host memory: its part, or, where it is elsewhere, read again into *copy. */
static fr_status host_source(const fr_store *s, int i, fr_weight *out, uint8_t **copy, fr_err *err)
{
    const fr_gguf_tensor *t = s->model->weights[i].src;
    *out = s->weights[i];
    if (out->data)
        return FR_OK;
    *copy = fr_mem_array(FR_MEM_DERIVED, t->bytes, 1, err);
    if (!*copy)
        return FR_ENOMEM;
    *out = fr_weight_make(out->type, t->layout, out->cols, out->rows, out->n_mat);
    out->data = *copy;
    return fr_gguf_read_tensor(s->model->gguf, t, 0, t->bytes, *copy, err);
}

static fr_status compute(fr_store *s, int i, int64_t first_mat, const fr_weight *to, fr_err *err)
{
    const fr_model_weight *plan = &s->model->weights[i];
    fr_weight from;
    uint8_t *copy = NULL;
    derive_job job = {.plan = plan, .from = &from, .to = to, .first_mat = first_mat};
    fr_status st = host_source(s, plan->from, &from, &copy, err);
    if (st == FR_OK) {
        job.scratch_floats = (size_t)(from.cols + to->rows * to->cols);
        job.scratch = fr_mem_array(FR_MEM_MISC, (size_t)fr_cpu_n_threads(s->cpu),
                                   job.scratch_floats * sizeof(float), err);
        st = job.scratch ? FR_OK : FR_ENOMEM;
    }
    if (st == FR_OK)
        fr_cpu_run(s->cpu, derive_thread, &job);
    fr_mem_free(job.scratch);
    fr_mem_free(copy);
    return st;
}

static void make_view(fr_store *s, int k)
{
    const fr_model_weight *plan = &s->model->weights[s->items[k].weight];
    const fr_weight *from = &s->parts[s->first[plan->from]].w;
    fr_store_part *p = &s->parts[k];
    size_t row_bytes = fr_row_bytes(from->type, from->layout, from->cols);
    p->w.data = (const uint8_t *)from->data + (size_t)plan->src_row * row_bytes +
                (size_t)p->first * p->w.mat_bytes;
}

static fr_status make_part(fr_store *s, int k, bool check, fr_err *err)
{
    fr_store_part *p = &s->parts[k];
    int i = s->items[k].weight;
    fr_weight to = p->w;
    uint8_t *made = fr_mem_array(FR_MEM_DERIVED, s->items[k].bytes, 1, err);
    if (!made)
        return FR_ENOMEM;
    to.data = made;
    fr_status st = s->model->weights[i].src ? decode_vector(s, i, &to, err)
                                            : compute(s, i, p->first, &to, err);
    if (p->device == FR_PLAN_CPU) {
        s->items[k].made = made;
        p->w.data = made;
        return st;
    }
    if (st == FR_OK && check)
        st = store_check_weight(s, i, p->first, &to, err);
    if (st == FR_OK)
        st = store_copy_wait(s, p->device, (void *)(uintptr_t)p->w.data, made, s->items[k].bytes,
                             err);
    fr_mem_free(made);
    return st;
}

fr_status store_derive(fr_store *s, int i, bool check, fr_err *err)
{
    for (int k = s->first[i]; k < s->first[i + 1]; k++) {
        if (s->model->weights[i].derive == FR_DERIVE_VIEW)
            make_view(s, k);
        else
            FR_TRY(make_part(s, k, check, err));
    }
    return FR_OK;
}
