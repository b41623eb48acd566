/* Bringing the weights of the file into memory: read, or read and repacked, to RAM, to GPUs, or
 * into the file of an image.
 *
 * What is read is cut into pieces, in file order. Pieces that storage brings are read ahead
 * (read_ahead.c), and threads take what is there; from the page cache, they read into a buffer of
 * their own that stays in their cache. Either way no second copy of the weights ever exists. When
 * nothing is there yet, they make the memory of later pieces ready (fresh_pages.c). A piece for a
 * GPU ends in a pinned buffer, which is copied while the thread fills its other one. */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "store/store_internal.h"

enum {
    STEP_BYTES = 512 << 10, /* read and repacked at once, and pieces for GPUs and images */
    PIECE_BYTES = 1 << 20   /* for RAM; as long as requests may well be */
};

/* Of one thread, on cache lines of its own. */
typedef struct {
    _Alignas(FR_MEM_ALIGN) double memory_s;
    double copy_s, repack_s, wait_s;
} thread_times;

typedef struct {
    fr_store *s;
    const fr_store_config *cfg;
    fr_out_file *image;       /* where everything goes instead; or NULL */
    int64_t *first;           /* [n_parts + 1]: number of each part's first piece */
    store_span_source source; /* the model's files, then the image's */
    store_ahead *ahead;
    store_fresh *fresh;              /* of the store's block; NULL when nothing goes there */
    atomic_int_fast64_t next_memory; /* piece whose memory nobody has looked at */
    thread_times *times;             /* one a thread */
    uint8_t *staging;   /* buffers for every thread: as read, as repacked for an image */
    size_t room_bytes;  /* of one */
    size_t ready_bytes; /* of the other */
    store_lane *lanes;  /* one a thread; NULL when nothing goes to GPUs */
    float *rows;        /* a row for every thread, where pieces are checked on their way; or NULL */
    int64_t row_cols;
} load_job;

/* ---- pieces -------------------------------------------------------------------------------------
 */

static const fr_model_weight *weight_of(const fr_store *s, int part)
{
    return &s->model->weights[s->items[part].weight];
}

static bool is_read(const fr_store *s, int part)
{
    return s->items[part].source == STORE_READ || s->items[part].source == STORE_REPACK;
}

/* The layout of what is read. */
static fr_layout src_layout(const fr_store *s, int part)
{
    return s->items[part].from_image ? s->parts[part].w.layout : weight_of(s, part)->src->layout;
}

static size_t src_row_bytes(const fr_store *s, int part)
{
    const fr_weight *w = &s->parts[part].w;
    return fr_row_bytes(w->type, src_layout(s, part), w->cols);
}

static size_t dst_row_bytes(const fr_store *s, int part)
{
    const fr_weight *w = &s->parts[part].w;
    return fr_row_bytes(w->type, w->layout, w->cols);
}

/* Rows of `bytes` at most where that is possible: whole groups of both layouts, whose sizes are
 * powers of two. */
static int64_t rows_in(const fr_store *s, int part, int64_t bytes)
{
    const fr_weight *w = &s->parts[part].w;
    int from = fr_layout_rows(w->type, src_layout(s, part));
    int to = fr_layout_rows(w->type, w->layout);
    int64_t unit = from > to ? from : to;
    int64_t n = bytes / (int64_t)src_row_bytes(s, part) / unit;
    return (n > 0 ? n : 1) * unit;
}

static int64_t piece_rows(const load_job *job, int part)
{
    bool in_ram = job->s->parts[part].device == FR_PLAN_CPU && !job->image;
    return rows_in(job->s, part, in_ram ? PIECE_BYTES : STEP_BYTES);
}

static int64_t part_rows(const fr_store *s, int part)
{
    return s->parts[part].w.rows * s->parts[part].w.n_mat;
}

static int64_t n_pieces(const load_job *job, int part)
{
    if (!is_read(job->s, part))
        return 0;
    int64_t piece = piece_rows(job, part);
    return (part_rows(job->s, part) + piece - 1) / piece;
}

/* The part that a piece belongs to: the last one whose first piece is not behind it. */
static int part_of_piece(const load_job *job, int64_t piece)
{
    int low = 0, high = job->s->n_parts;
    while (high - low > 1) {
        int mid = low + (high - low) / 2;
        if (job->first[mid] <= piece)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* ---- one piece ----------------------------------------------------------------------------------
 */

/* Rows [row, row + n) of a part. */
typedef struct {
    int part;
    int64_t row, n;
} rows;

static rows rows_of_piece(const load_job *job, int64_t piece)
{
    int part = part_of_piece(job, piece);
    int64_t step = piece_rows(job, part), row = (piece - job->first[part]) * step;
    int64_t left = part_rows(job->s, part) - row;
    return (rows){part, row, left < step ? left : step};
}

/* Where rows of a part are: in the image, which is the last of the files, or in the model. */
static store_span span_of(const load_job *job, rows r)
{
    const fr_store *s = job->s;
    const fr_store_part *p = &s->parts[r.part];
    size_t row_bytes = src_row_bytes(s, r.part);
    uint64_t from = (uint64_t)(p->first * p->w.rows + r.row) * row_bytes;
    store_span span = {.n = (size_t)r.n * row_bytes};
    if (s->items[r.part].from_image) {
        span.i_file = job->source.n_files - 1;
        span.from = s->image.at[s->items[r.part].weight] + from;
    } else {
        const fr_gguf_tensor *t = weight_of(s, r.part)->src;
        span.i_file = t->i_file;
        span.from = t->offset + from;
    }
    return span;
}

static store_span span_of_piece(const void *user, int64_t piece)
{
    const load_job *job = user;
    return span_of(job, rows_of_piece(job, piece));
}

static fr_status repack_rows(const load_job *job, rows r, const uint8_t *bytes, uint8_t *dst,
                             fr_err *err)
{
    const fr_weight *w = &job->s->parts[r.part].w;
    return fr_repack(w->type, src_layout(job->s, r.part), w->layout, r.n, w->cols, bytes, dst, err);
}

/* As read; behind it, as repacked for an image. */
static uint8_t *room_of(const load_job *job, int i_thread)
{
    return job->staging + (size_t)i_thread * (job->room_bytes + job->ready_bytes);
}

/* Into host memory in the layout of the part. `bytes` are the rows as the file has them; or NULL:
 * they are read step by step, by way of `room` where they are repacked. */
static fr_status bring_rows(const load_job *job, rows all, int i_thread, const uint8_t *bytes,
                            uint8_t *dst, fr_err *err)
{
    uint8_t *room = room_of(job, i_thread);
    bool repacks = job->s->items[all.part].source == STORE_REPACK;
    if (bytes && repacks)
        return repack_rows(job, all, bytes, dst, err);
    if (bytes) {
        memcpy(dst, bytes, (size_t)all.n * src_row_bytes(job->s, all.part));
        return FR_OK;
    }
    int64_t step = rows_in(job->s, all.part, STEP_BYTES), end = all.row + all.n;
    for (rows r = all; r.row < end; r.row += step) {
        r.n = end - r.row < step ? end - r.row : step;
        store_span span = span_of(job, r);
        uint8_t *to = dst + (size_t)(r.row - all.row) * dst_row_bytes(job->s, r.part);
        double start = store_seconds();
        FR_TRY(fr_file_read_at(job->source.files[span.i_file], span.from, repacks ? room : to,
                               span.n, job->source.paths[span.i_file], err));
        job->times[i_thread].copy_s += store_seconds() - start;
        if (repacks)
            FR_TRY(repack_rows(job, r, room, to, err));
    }
    return FR_OK;
}

static fr_status check_rows(const load_job *job, rows r, const uint8_t *data, int i_thread,
                            fr_err *err)
{
    const fr_store_part *p = &job->s->parts[r.part];
    int64_t bad = store_find_bad_row(&p->w, data, r.n, job->rows + i_thread * job->row_cols);
    if (bad < 0)
        return FR_OK;
    return store_bad_row(job->s, job->s->items[r.part].weight, p->first * p->w.rows + r.row + bad,
                         err);
}

static fr_status send_rows(const load_job *job, rows r, int i_thread, const uint8_t *bytes,
                           uint8_t *dst_d, fr_err *err)
{
    store_lane *lane = store_lane_at(job->lanes, i_thread);
    uint8_t *buffer_h;
    FR_TRY(store_lane_take(job->s, lane, &buffer_h, err));
    FR_TRY(bring_rows(job, r, i_thread, bytes, buffer_h, err));
    if (job->rows)
        FR_TRY(check_rows(job, r, buffer_h, i_thread, err));
    return store_lane_send(job->s, lane, job->s->parts[r.part].device, dst_d,
                           (size_t)r.n * dst_row_bytes(job->s, r.part), err);
}

static fr_status write_rows(const load_job *job, rows r, int i_thread, const uint8_t *bytes,
                            fr_err *err)
{
    size_t row_bytes = dst_row_bytes(job->s, r.part);
    uint8_t *ready = room_of(job, i_thread) + job->room_bytes;
    FR_TRY(bring_rows(job, r, i_thread, bytes, ready, err));
    return fr_file_write_at(job->image, job->s->items[r.part].at + (uint64_t)r.row * row_bytes,
                            ready, (size_t)r.n * row_bytes, err);
}

static uint8_t *place_of(const load_job *job, rows r)
{
    const fr_store_part *p = &job->s->parts[r.part];
    return (uint8_t *)(uintptr_t)p->w.data + (size_t)r.row * dst_row_bytes(job->s, r.part);
}

/* To where the rows belong. */
static fr_status place_rows(const load_job *job, rows r, int i_thread, const uint8_t *bytes,
                            fr_err *err)
{
    if (job->image)
        return write_rows(job, r, i_thread, bytes, err);
    uint8_t *dst = place_of(job, r);
    return job->s->parts[r.part].device == FR_PLAN_CPU
               ? bring_rows(job, r, i_thread, bytes, dst, err)
               : send_rows(job, r, i_thread, bytes, dst, err);
}

/* ---- a thread's work ----------------------------------------------------------------------------
 */

/* The memory that rows go to: whether it is ready, or some of it was made so. */
static store_fresh_result ask_memory(const load_job *job, rows r)
{
    if (job->image || job->s->parts[r.part].device != FR_PLAN_CPU)
        return STORE_FRESH_READY;
    return store_fresh_ask(job->fresh, place_of(job, r),
                           (size_t)r.n * dst_row_bytes(job->s, r.part));
}

/* Makes some memory of later pieces ready; false when nothing is left to do. */
static bool work_ahead(load_job *job)
{
    int64_t end = job->first[job->s->n_parts], piece;
    while ((piece = atomic_load(&job->next_memory)) < end) {
        if (ask_memory(job, rows_of_piece(job, piece)) == STORE_FRESH_WORKED)
            return true;
        atomic_compare_exchange_strong(&job->next_memory, &piece, piece + 1);
    }
    return false;
}

/* Adds the time since *start, which becomes now. */
static void count_time(double *seconds, double *start)
{
    double now = store_seconds();
    *seconds += now - *start;
    *start = now;
}

static fr_status take_piece(load_job *job, int i_thread, store_ahead_piece *piece, fr_err *err)
{
    thread_times *t = &job->times[i_thread];
    double start = store_seconds();
    for (bool wait = false;; wait = !work_ahead(job)) {
        count_time(wait ? &t->wait_s : &t->memory_s, &start);
        fr_status st = store_ahead_take(job->ahead, wait, piece, err);
        count_time(&t->wait_s, &start);
        if (st != FR_OK || piece->number >= 0)
            return st;
    }
}

static void await_memory(load_job *job, rows r, int i_thread)
{
    double start = store_seconds();
    store_fresh_result got;
    while ((got = ask_memory(job, r)) != STORE_FRESH_READY)
        if (got == STORE_FRESH_BUSY && !work_ahead(job))
            sched_yield();
    count_time(&job->times[i_thread].memory_s, &start);
}

static fr_status load_piece(void *user, int i_thread, uint64_t *done, fr_err *err)
{
    load_job *job = user;
    store_ahead_piece piece;
    fr_status st = take_piece(job, i_thread, &piece, err);
    if (st == FR_OK) {
        thread_times *t = &job->times[i_thread];
        rows r = rows_of_piece(job, piece.number);
        *done = (uint64_t)r.n * src_row_bytes(job->s, r.part);
        await_memory(job, r, i_thread);
        double start = store_seconds(), copied = t->copy_s;
        st = place_rows(job, r, i_thread, piece.bytes, err);
        t->repack_s += store_seconds() - start - (t->copy_s - copied);
    }
    store_ahead_give_back(job->ahead, &piece);
    return st;
}

static fr_status wait_for_lane(void *user, int i_thread, fr_err *err)
{
    const load_job *job = user;
    return store_lane_wait(job->s, store_lane_at(job->lanes, i_thread), err);
}

/* ---- buffers ------------------------------------------------------------------------------------
 */

static void at_least(size_t *most, size_t bytes)
{
    bytes = (bytes + FR_MEM_ALIGN - 1) / FR_MEM_ALIGN * FR_MEM_ALIGN;
    *most = bytes > *most ? bytes : *most;
}

static fr_status open_buffers(load_job *job, size_t n_threads, fr_err *err)
{
    const fr_store *s = job->s;
    size_t slot_bytes = 0;
    for (int k = 0; k < s->n_parts; k++) {
        if (!is_read(s, k))
            continue;
        if (s->items[k].source == STORE_REPACK)
            at_least(&job->room_bytes, (size_t)rows_in(s, k, STEP_BYTES) * src_row_bytes(s, k));
        if (job->image)
            at_least(&job->ready_bytes, (size_t)piece_rows(job, k) * dst_row_bytes(s, k));
        if (s->parts[k].device == FR_PLAN_CPU)
            continue;
        at_least(&slot_bytes, (size_t)piece_rows(job, k) * dst_row_bytes(s, k));
        job->row_cols = s->parts[k].w.cols > job->row_cols ? s->parts[k].w.cols : job->row_cols;
    }
    job->first = FR_NEW(int64_t, FR_MEM_MISC, (size_t)s->n_parts + 1, err);
    job->staging = fr_mem_array(FR_MEM_MISC, n_threads, job->room_bytes + job->ready_bytes, err);
    job->times = FR_NEW(thread_times, FR_MEM_MISC, n_threads, err);
    if (!job->first || !job->staging || !job->times)
        return FR_ENOMEM;
    if (s->block && !job->image)
        FR_TRY(store_fresh_open(s->block, s->block_bytes, &job->fresh, err));
    if (slot_bytes == 0)
        return FR_OK;
    if (job->cfg->check && !(job->rows = fr_mem_array(FR_MEM_MISC, n_threads,
                                                      (size_t)job->row_cols * sizeof(float), err)))
        return FR_ENOMEM;
    return store_lanes_open(s, (int)n_threads, slot_bytes, &job->lanes, err);
}

static void close_buffers(load_job *job)
{
    store_lanes_close(job->s, job->lanes);
    fr_mem_free(job->rows);
    fr_mem_free(job->times);
    store_fresh_close(job->fresh);
    fr_mem_free(job->staging);
    fr_mem_free(job->first);
    fr_mem_free(job->source.files);
    fr_mem_free(job->source.paths);
}

static fr_status list_files(load_job *job, fr_err *err)
{
    const fr_store *s = job->s;
    int n = fr_gguf_n_files(s->model->gguf);
    job->source = (store_span_source){.n_files = n + 1, .user = job, .span = span_of_piece};
    job->source.files = FR_NEW(const fr_file *, FR_MEM_MISC, (size_t)n + 1, err);
    job->source.paths = FR_NEW(const char *, FR_MEM_MISC, (size_t)n + 1, err);
    if (!job->source.files || !job->source.paths)
        return FR_ENOMEM;
    for (int i = 0; i < n; i++) {
        job->source.files[i] = fr_gguf_file(s->model->gguf, i);
        job->source.paths[i] = fr_gguf_path(s->model->gguf, i);
    }
    job->source.files[n] = &s->image.file;
    job->source.paths[n] = s->image.path;
    return FR_OK;
}

/* Whether to leave the page cache alone. */
static bool reads_past_cache(const load_job *job, uint64_t bytes)
{
    if (job->cfg->reading != FR_READ_AUTO || job->image)
        return job->cfg->reading != FR_READ_THROUGH;
    uint64_t available = fr_mem_available();
    return bytes + job->s->block_bytes > available / 4 * 3;
}

static void account(load_job *job, double seconds)
{
    fr_store_loading *l = &job->s->loading;
    store_ahead_account a = store_ahead_accounted(job->ahead);
    l->n_threads = fr_cpu_n_threads(job->s->cpu);
    l->direct_bytes = a.direct_bytes;
    l->cached_bytes = a.cached_bytes;
    l->read_s = seconds;
    l->full_s = a.full_s;
    for (int i = 0; i < l->n_threads; i++) {
        const thread_times *t = &job->times[i];
        l->memory_s += t->memory_s;
        l->copy_s += t->copy_s;
        l->repack_s += t->repack_s;
        l->wait_s += t->wait_s;
    }
}

static fr_status run(load_job *job, store_work *work, fr_err *err)
{
    const fr_store *s = job->s;
    int n_threads = fr_cpu_n_threads(s->cpu);
    size_t most_bytes = 0;
    double start = store_seconds();
    for (int k = 0; k < s->n_parts; k++)
        if (is_read(s, k))
            at_least(&most_bytes, (size_t)piece_rows(job, k) * src_row_bytes(s, k));
    fr_status st = store_ahead_open(&job->source, work->n, most_bytes, n_threads,
                                    reads_past_cache(job, work->bytes), &job->ahead, err);
    if (st == FR_OK)
        st = store_work_run(s->cpu, work, err);
    if (st == FR_OK)
        account(job, store_seconds() - start);
    store_ahead_close(job->ahead);
    return st;
}

fr_status store_load(fr_store *s, const fr_store_config *cfg, fr_out_file *image, fr_err *err)
{
    load_job job = {.s = s, .cfg = cfg, .image = image};
    fr_status st = open_buffers(&job, (size_t)fr_cpu_n_threads(s->cpu), err);
    store_work work = {.user = &job, .piece = load_piece, .cfg = cfg};
    if (st == FR_OK)
        st = list_files(&job, err);
    for (int k = 0; st == FR_OK && k < s->n_parts; k++) {
        int64_t n = n_pieces(&job, k);
        work.n = job.first[k + 1] = job.first[k] + n;
        work.bytes += n > 0 ? (uint64_t)part_rows(s, k) * src_row_bytes(s, k) : 0;
    }
    if (job.lanes)
        work.end = wait_for_lane;
    s->loading.read_bytes = work.bytes;
    if (st == FR_OK && work.n > 0)
        st = run(&job, &work, err);
    close_buffers(&job);
    return st;
}
