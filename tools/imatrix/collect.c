#include "imatrix/collect.h"

#include <string.h>

static bool is_wanted(const collector *c, const char *name)
{
    return strncmp(name, "blk.", 4) == 0 ||
           (c->process_output && strcmp(name, "output.weight") == 0);
}

/* A product may see the weight as one tall matrix, or a flat matrix of the file as several. */
static fr_status entry_for(collector *c, const fr_observation *o, colsum_entry **out, fr_err *err)
{
    const fr_gguf_tensor *t = fr_gguf_find_tensor(c->model, o->weight);
    int64_t n_mat = t ? t->dims[2] * t->dims[3] : 0;
    bool fits = t && t->dims[0] == o->cols && (o->n_mat == n_mat || o->n_mat == 1 || n_mat == 1);
    if (!fits)
        return fr_fail(err, FR_EINTERNAL,
                       "%s: observed %lld matrices of %lld columns, which are not the file's",
                       o->weight, (long long)o->n_mat, (long long)o->cols);
    return colsum_entry_of(c->im, o->weight, o->cols, n_mat, out, err);
}

/* The matrices of the entry that row r meets: *n of them, the k-th is first + k, or listed. */
static const int32_t *matrices_of(const fr_observation *o, const colsum_entry *e, int64_t r,
                                  int64_t *first, int64_t *n)
{
    *first = 0;
    *n = 1;
    if (e->n_mat == 1)
        return NULL;
    if (o->mats) {
        *n = o->per_row;
        return o->mats + r * o->per_row;
    }
    if (o->n_mat == 1)
        *n = e->n_mat;
    else
        *first = r % o->n_mat;
    return NULL;
}

typedef struct {
    const fr_observation *o;
    colsum_entry *e;
} sum_job;

/* Every thread has columns of its own, so sums do not depend on their number. */
static void sum_thread(void *arg, int i_thread, int n_threads)
{
    const sum_job *job = arg;
    const fr_observation *o = job->o;
    colsum_entry *e = job->e;
    int64_t from, to, first, n;
    fr_cpu_share(o->cols, 16, i_thread, n_threads, &from, &to);
    for (int64_t r = 0; r < o->n_rows; r++) {
        const float *x = o->x + r * o->ldx;
        const int32_t *list = matrices_of(o, e, r, &first, &n);
        for (int64_t k = 0; k < n; k++) {
            int64_t m = list ? list[k] : first + k;
            double *sums = e->sums + m * e->cols;
            for (int64_t i = from; i < to; i++)
                sums[i] += (double)x[i] * (double)x[i];
            if (i_thread == 0)
                e->counts[m]++;
        }
    }
}

void collector_observe(void *user, const fr_observation *o)
{
    collector *c = user;
    colsum_entry *e;
    if (c->status != FR_OK || !is_wanted(c, o->weight))
        return;
    c->status = entry_for(c, o, &e, &c->err);
    if (c->status == FR_OK)
        fr_cpu_run(c->pool, sum_thread, &(sum_job){o, e});
}

int collector_mla(const fr_gguf *model)
{
    bool split = false;
    for (size_t i = 0; i < fr_gguf_n_tensors(model); i++) {
        int layer;
        fr_role role;
        if (!fr_tensor_name_parse(fr_gguf_tensor_at(model, i)->name, &layer, &role))
            continue;
        if (role == FR_ROLE_ATTN_KV_B)
            return FR_MLA_PLAIN;
        split |= role == FR_ROLE_ATTN_K_B;
    }
    return split ? FR_MLA_ABSORB : FR_MLA_PLAIN;
}
