/* Bringing the weights of the file into memory: mapped, read, or read and repacked.
 *
 * What is read is cut into pieces that the threads take in file order. A piece that is repacked
 * goes through a buffer of the thread's own that stays in its cache, so that no second copy of the
 * weights ever exists. */
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "store/store_internal.h"

enum { PIECE_BYTES = 512 << 10 };

typedef struct {
    fr_store *s;
    const fr_store_config *cfg;
    int64_t *first;    /* [n_weights + 1]: number of each weight's first piece */
    uint8_t *staging;  /* a buffer for every thread */
    size_t room_bytes; /* of one */
    uint64_t total;
    atomic_int_fast64_t next; /* piece */
    atomic_uint_fast64_t done;
    atomic_int failed; /* 0, or an fr_status */
    fr_err *errs;      /* one a thread */
} load_job;

/* ---- pieces -------------------------------------------------------------------------------------
 */

/* Rows that are read together: whole groups of both layouts; group sizes are powers of two. */
static int64_t unit_rows(const fr_model_weight *w)
{
    int from = fr_layout_rows(w->shape.type, w->src->layout);
    int to = fr_layout_rows(w->shape.type, w->shape.layout);
    return from > to ? from : to;
}

static int64_t piece_rows(const fr_model_weight *w)
{
    int64_t unit = unit_rows(w);
    size_t row = fr_row_bytes(w->shape.type, w->src->layout, w->shape.cols);
    int64_t n = PIECE_BYTES / (int64_t)row / unit;
    return (n > 0 ? n : 1) * unit;
}

/* A weight that is read as it is, is read in bytes. */
static int64_t n_pieces(const fr_store *s, int i)
{
    const fr_model_weight *w = &s->model->weights[i];
    if (s->sources[i] == STORE_READ)
        return (int64_t)((w->bytes + PIECE_BYTES - 1) / PIECE_BYTES);
    if (s->sources[i] != STORE_REPACK)
        return 0;
    int64_t rows = w->shape.rows * w->shape.n_mat, piece = piece_rows(w);
    return (rows + piece - 1) / piece;
}

/* The weight that a piece belongs to: the last one whose first piece is not behind it. */
static int weight_of_piece(const load_job *job, int64_t piece)
{
    int low = 0, high = job->s->model->n_weights;
    while (high - low > 1) {
        int mid = low + (high - low) / 2;
        if (job->first[mid] <= piece)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static fr_status read_piece(load_job *job, int i, int64_t piece, uint64_t *bytes, fr_err *err)
{
    const fr_model_weight *w = &job->s->model->weights[i];
    uint64_t from = (uint64_t)piece * PIECE_BYTES;
    *bytes = w->bytes - from < PIECE_BYTES ? w->bytes - from : PIECE_BYTES;
    return fr_gguf_read_tensor(job->s->model->gguf, w->src, from, *bytes,
                               job->s->block + job->s->at[i] + from, err);
}

static fr_status repack_piece(load_job *job, int i, int64_t piece, uint8_t *room, uint64_t *bytes,
                              fr_err *err)
{
    const fr_model_weight *w = &job->s->model->weights[i];
    const fr_weight *to = &w->shape;
    int64_t step = piece_rows(w), row = piece * step, left = to->rows * to->n_mat - row;
    int64_t n = left < step ? left : step;
    size_t src_row = fr_row_bytes(to->type, w->src->layout, to->cols);
    size_t dst_row = fr_row_bytes(to->type, to->layout, to->cols);
    *bytes = (uint64_t)n * src_row;
    FR_TRY(fr_gguf_read_tensor(job->s->model->gguf, w->src, (uint64_t)row * src_row, *bytes, room,
                               err));
    return fr_repack(to->type, w->src->layout, to->layout, n, to->cols, room,
                     job->s->block + job->s->at[i] + (size_t)row * dst_row, err);
}

/* ---- the job ------------------------------------------------------------------------------------
 */

static void fail_job(load_job *job, fr_status st)
{
    int none = 0;
    atomic_compare_exchange_strong(&job->failed, &none, (int)st);
}

static void load_thread(void *arg, int i_thread, int n_threads)
{
    (void)n_threads;
    load_job *job = arg;
    uint8_t *room = job->staging + (size_t)i_thread * job->room_bytes;
    fr_err *err = &job->errs[i_thread];
    int64_t end = job->first[job->s->model->n_weights], piece;
    while (!atomic_load(&job->failed) && (piece = atomic_fetch_add(&job->next, 1)) < end) {
        int i = weight_of_piece(job, piece);
        uint64_t bytes = 0;
        piece -= job->first[i];
        fr_status st = job->s->sources[i] == STORE_READ
                           ? read_piece(job, i, piece, &bytes, err)
                           : repack_piece(job, i, piece, room, &bytes, err);
        if (st != FR_OK)
            fail_job(job, st);
        uint64_t done = atomic_fetch_add(&job->done, bytes) + bytes;
        if (i_thread == 0 && job->cfg->progress &&
            !job->cfg->progress(job->cfg->progress_user, done, job->total))
            fail_job(job, fr_fail(err, FR_ECANCELLED, "loading: stopped by the user"));
    }
}

static fr_status first_error(const load_job *job, int n_threads, fr_err *err)
{
    fr_status st = (fr_status)atomic_load(&job->failed);
    for (int i = 0; st != FR_OK && i < n_threads; i++)
        if (job->errs[i].code == st)
            return fr_fail(err, st, "%s", job->errs[i].text);
    return st;
}

static size_t room_bytes(const fr_store *s)
{
    size_t most = 0;
    for (int i = 0; i < s->model->n_weights; i++) {
        const fr_model_weight *w = &s->model->weights[i];
        if (s->sources[i] != STORE_REPACK)
            continue;
        size_t row = fr_row_bytes(w->shape.type, w->src->layout, w->shape.cols);
        size_t bytes = (size_t)piece_rows(w) * row;
        most = bytes > most ? bytes : most;
    }
    return (most + FR_MEM_ALIGN - 1) / FR_MEM_ALIGN * FR_MEM_ALIGN;
}

static fr_status read_all(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    const fr_model *m = s->model;
    size_t n_threads = (size_t)fr_cpu_n_threads(s->cpu);
    load_job job = {.s = s, .cfg = cfg, .room_bytes = room_bytes(s)};
    fr_status st = FR_ENOMEM;
    job.first = FR_NEW(int64_t, FR_MEM_MISC, (size_t)m->n_weights + 1, err);
    job.errs = FR_NEW(fr_err, FR_MEM_MISC, n_threads, err);
    job.staging = fr_mem_array(FR_MEM_MISC, n_threads, job.room_bytes, err);
    if (!job.first || !job.errs || !job.staging)
        goto out;
    for (int i = 0; i < m->n_weights; i++) {
        int64_t n = n_pieces(s, i);
        job.first[i + 1] = job.first[i] + n;
        job.total += n > 0 ? m->weights[i].src->bytes : 0;
    }
    fr_cpu_run(s->cpu, load_thread, &job);
    st = first_error(&job, (int)n_threads, err);
    if (st == FR_OK && cfg->progress)
        cfg->progress(cfg->progress_user, job.total, job.total);
out:
    fr_mem_free(job.first);
    fr_mem_free(job.errs);
    fr_mem_free(job.staging);
    return st;
}

/* ---- sources ------------------------------------------------------------------------------------
 */

static store_source source_of(const fr_model_weight *w, const fr_store_config *cfg)
{
    if (!w->src || w->derive != FR_DERIVE_NONE)
        return STORE_MADE;
    if (w->src->layout != w->shape.layout)
        return STORE_REPACK;
    return cfg->mmap ? STORE_MAPPED : STORE_READ;
}

static void choose_sources(fr_store *s, const fr_store_config *cfg)
{
    const fr_model *m = s->model;
    for (int i = 0; i < m->n_weights; i++) {
        const fr_model_weight *w = &m->weights[i];
        s->sources[i] = source_of(w, cfg);
        if (s->sources[i] == STORE_MAPPED) {
            s->weights[i].data = fr_gguf_tensor_data(m->gguf, w->src);
            s->mapped_bytes += w->bytes;
        } else if (s->sources[i] != STORE_MADE) {
            s->at[i] = s->block_bytes;
            s->block_bytes += (w->bytes + FR_MEM_ALIGN - 1) / FR_MEM_ALIGN * FR_MEM_ALIGN;
        }
    }
    fr_mem_account(FR_MEM_WEIGHTS, (ptrdiff_t)s->mapped_bytes);
}

fr_status store_load(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    choose_sources(s, cfg);
    if (s->block_bytes == 0)
        return FR_OK;
    s->block = fr_mem_array(FR_MEM_WEIGHTS, s->block_bytes, 1, err);
    if (!s->block)
        return FR_ENOMEM;
    if (cfg->huge_pages)
        fr_mem_want_huge_pages(s->block);
    for (int i = 0; i < s->model->n_weights; i++)
        if (s->sources[i] == STORE_READ || s->sources[i] == STORE_REPACK)
            s->weights[i].data = s->block + s->at[i];
    return read_all(s, cfg, err);
}
