#include "store/store.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "store/store_internal.h"

/* ---- reading
 * --------------------------------------------------------------------------------------------- */

enum { PIECE_BYTES = 8 << 20 };

/* The tensors to read, cut into pieces that the threads take in file order. */
typedef struct {
    fr_store *s;
    const fr_store_config *cfg;
    uint64_t total;
    atomic_uint_fast64_t done;
    atomic_int next;         /* weight to take pieces of */
    atomic_int_fast64_t *at; /* per weight: bytes given out */
    atomic_int failed;       /* 0, or an fr_status */
    fr_err *errs;            /* one a thread */
} read_job;

static void fail_job(read_job *job, fr_status st)
{
    int none = 0;
    atomic_compare_exchange_strong(&job->failed, &none, (int)st);
}

static bool take_piece(read_job *job, int *weight, uint64_t *from, size_t *n)
{
    const fr_model *m = job->s->model;
    for (int i; (i = atomic_load(&job->next)) < m->n_weights;) {
        uint64_t bytes = store_reads(&m->weights[i]) ? m->weights[i].bytes : 0;
        int_fast64_t at = atomic_fetch_add(&job->at[i], PIECE_BYTES);
        if ((uint64_t)at < bytes) {
            *weight = i;
            *from = (uint64_t)at;
            *n = (size_t)(bytes - *from < PIECE_BYTES ? bytes - *from : PIECE_BYTES);
            return true;
        }
        int expected = i;
        atomic_compare_exchange_strong(&job->next, &expected, i + 1);
    }
    return false;
}

static void read_thread(void *arg, int i_thread, int n_threads)
{
    (void)n_threads;
    read_job *job = arg;
    int i;
    uint64_t from;
    size_t n;
    while (!atomic_load(&job->failed) && take_piece(job, &i, &from, &n)) {
        const fr_model_weight *w = &job->s->model->weights[i];
        fr_status st = fr_gguf_read_tensor(job->s->model->gguf, w->src, from, n,
                                           job->s->blocks[i] + from, &job->errs[i_thread]);
        if (st != FR_OK)
            fail_job(job, st);
        uint64_t done = atomic_fetch_add(&job->done, n) + n;
        if (i_thread == 0 && job->cfg->progress &&
            !job->cfg->progress(job->cfg->progress_user, done, job->total))
            fail_job(job, fr_fail(&job->errs[0], FR_ECANCELLED, "loading: stopped by the user"));
    }
}

static fr_status first_error(const read_job *job, int n_threads, fr_err *err)
{
    fr_status st = (fr_status)atomic_load(&job->failed);
    for (int i = 0; st != FR_OK && i < n_threads; i++)
        if (job->errs[i].code == st)
            return fr_fail(err, st, "%s", job->errs[i].text);
    return st;
}

static fr_status read_all(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    const fr_model *m = s->model;
    int n_threads = fr_cpu_n_threads(s->cpu);
    read_job job = {.s = s, .cfg = cfg};
    fr_status st = FR_ENOMEM;
    job.at = FR_NEW(atomic_int_fast64_t, FR_MEM_MISC, (size_t)m->n_weights, err);
    job.errs = FR_NEW(fr_err, FR_MEM_MISC, (size_t)n_threads, err);
    if (!job.at || !job.errs)
        goto out;
    for (int i = 0; i < m->n_weights; i++) {
        if (!store_reads(&m->weights[i]))
            continue;
        job.total += m->weights[i].bytes;
        s->blocks[i] = fr_mem_array(FR_MEM_WEIGHTS, m->weights[i].bytes, 1, err);
        if (!s->blocks[i])
            goto out;
        s->weights[i].data = s->blocks[i];
    }
    fr_cpu_run(s->cpu, read_thread, &job);
    st = first_error(&job, n_threads, err);
    if (st == FR_OK && cfg->progress)
        cfg->progress(cfg->progress_user, job.total, job.total);
out:
    fr_mem_free(job.at);
    fr_mem_free(job.errs);
    return st;
}

static void map_all(fr_store *s)
{
    const fr_model *m = s->model;
    for (int i = 0; i < m->n_weights; i++)
        if (store_reads(&m->weights[i])) {
            s->weights[i].data = fr_gguf_tensor_data(m->gguf, m->weights[i].src);
            s->mapped_bytes += m->weights[i].bytes;
        }
    fr_mem_account(FR_MEM_WEIGHTS, (ptrdiff_t)s->mapped_bytes);
}

/* ---- checking
 * -------------------------------------------------------------------------------------------- */

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

static fr_status check_all(fr_store *s, fr_err *err)
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

/* ---- the store
 * ------------------------------------------------------------------------------------------- */

fr_status fr_store_open(const fr_model *m, fr_cpu *cpu, const fr_store_config *cfg, fr_store **out,
                        fr_err *err)
{
    *out = NULL;
    if (!fr_gguf_has_data(m->gguf))
        return fr_fail(err, FR_EFORMAT, "%s: holds headers only, expected the weights too",
                       fr_gguf_path(m->gguf, 0));
    fr_store *s = FR_NEW(fr_store, FR_MEM_MODEL, 1, err);
    if (!s)
        return FR_ENOMEM;
    fr_status st = FR_ENOMEM;
    s->model = m;
    s->cpu = cpu;
    s->weights = FR_NEW(fr_weight, FR_MEM_MODEL, (size_t)m->n_weights, err);
    s->blocks = FR_NEW(uint8_t *, FR_MEM_MODEL, (size_t)m->n_weights, err);
    if (!s->weights || !s->blocks)
        goto out;
    for (int i = 0; i < m->n_weights; i++)
        s->weights[i] = m->weights[i].shape;
    if (cfg->mmap)
        map_all(s);
    else
        FR_TRY_OUT(st, read_all(s, cfg, err));
    for (int i = 0; i < m->n_weights; i++) /* sources come before what is derived from them */
        if (m->weights[i].derive != FR_DERIVE_NONE)
            FR_TRY_OUT(st, store_derive(s, i, err));
    if (cfg->check)
        FR_TRY_OUT(st, check_all(s, err));
    *out = s;
    return FR_OK;
out:
    fr_store_close(s);
    return st;
}

void fr_store_close(fr_store *s)
{
    if (!s)
        return;
    for (int i = 0; s->blocks && i < s->model->n_weights; i++)
        fr_mem_free(s->blocks[i]);
    fr_mem_account(FR_MEM_WEIGHTS, -(ptrdiff_t)s->mapped_bytes);
    fr_mem_free(s->blocks);
    fr_mem_free(s->weights);
    fr_mem_free(s);
}

const fr_weight *fr_store_weight(const fr_store *s, int i)
{
    return i < 0 ? NULL : &s->weights[i];
}
