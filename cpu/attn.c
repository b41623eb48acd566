/* Attention on the cache. Queries that meet the same K and V (the heads of a token on the latent
 * cache, the tokens of one head elsewhere) are rows of a small matrix product with a block of
 * positions.
 *
 * The positions of a token are cut into spans that depend on its own position only
 * (span_of). Each span has a softmax of its own and all are folded in order, so that threads may
 * share the positions of one token without showing in the result. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/kernels.h"

enum {
    MAX_SPANS = 32,       /* of a token */
    MIN_SPAN = 64,        /* positions */
    ITEMS_PER_THREAD = 4, /* parts of the work, so that a late thread holds up nobody */
};

/* Rooms of one thread, in floats. */
typedef struct {
    int64_t w, wv, ldk, ldv; /* padded */
    int64_t rows;
    size_t k, v, q, state, acc, total_state, total, n;
} layout;

static size_t take(layout *l, int64_t n)
{
    size_t at = l->n;
    l->n += (size_t)attn_padded(n);
    return at;
}

static layout make_layout(int64_t wk, int64_t wv, int64_t stored_k, int64_t stored_v, int64_t rows)
{
    layout l = {.w = attn_padded(wk), .wv = attn_padded(wv), .rows = rows};
    l.ldk = attn_padded(stored_k);
    l.ldv = attn_padded(stored_v);
    l.k = take(&l, l.ldk * FR_ATTN_BLOCK);
    l.v = take(&l, l.ldv * FR_ATTN_BLOCK);
    l.q = take(&l, rows * l.w);
    l.state = take(&l, rows * 2);
    l.acc = take(&l, rows * l.wv);
    l.total_state = take(&l, rows * 2);
    l.total = take(&l, rows * l.wv);
    return l;
}

static layout cached_layout(const fr_cpu_attn_args *a, const fr_cpu_kv *k, const fr_cpu_kv *v)
{
    return make_layout(a->w1 + a->w2, a->wv, k->stored, v->base ? v->stored : 0, ATTN_ROWS);
}

static size_t part_floats(const layout *l)
{
    return (size_t)l->wv + ATTN_LANES; /* sums, then the state */
}

size_t fr_cpu_attn_cached_bytes(const fr_cpu *cpu, const fr_cpu_attn_args *a, const fr_cpu_kv *k,
                                const fr_cpu_kv *v)
{
    layout l = cached_layout(a, k, v);
    size_t parts = (size_t)a->n_heads * MAX_SPANS * part_floats(&l);
    return (l.n * (size_t)fr_cpu_n_threads(cpu) + parts) * sizeof(float);
}

/* ---- rows of queries
 * ---------------------------------------------------------------------------------------- */

/* Tokens [t0, t1) times heads [h0, h1): row (t - t0) * (h1 - h0) + h - h0. */
typedef struct {
    int64_t t0, t1, h0, h1;
} rowset;

static int64_t n_heads_of(const rowset *s)
{
    return s->h1 - s->h0;
}

static void load_queries(const fr_cpu_attn_args *a, const layout *l, const rowset *s, float *q)
{
    int64_t w = a->w1 + a->w2;
    for (int64_t t = s->t0; t < s->t1; t++)
        for (int64_t h = s->h0; h < s->h1; h++, q += l->w) {
            memcpy(q, a->q1 + t * a->ldq1 + h * a->q1_stride, (size_t)a->w1 * sizeof *q);
            if (a->w2 > 0)
                memcpy(q + a->w1, a->q2 + t * a->ldq2 + h * a->q2_stride,
                       (size_t)a->w2 * sizeof *q);
            memset(q + w, 0, (size_t)(l->w - w) * sizeof *q);
        }
}

static void start(float *state, float *acc, int64_t n_rows, int64_t wv)
{
    for (int64_t r = 0; r < n_rows; r++) {
        state[2 * r] = -INFINITY;
        state[2 * r + 1] = 0.0f;
    }
    memset(acc, 0, (size_t)(n_rows * wv) * sizeof *acc);
}

static void finish(const fr_cpu_attn_args *a, int64_t t, int64_t h, const float *state,
                   const float *acc)
{
    float *o = a->o + t * a->ldo + h * a->o_stride, inverse = 1.0f / state[1];
    for (int64_t i = 0; i < a->wv; i++)
        o[i] = acc[i] * inverse;
}

/* ---- from the cache
 * --------------------------------------------------------------------------------------- */

typedef struct {
    const attn_kernels *kernels;
    const fr_cpu_attn_args *args;
    const fr_cpu_kv *k, *v;
    layout l;
    fr_cpu *cpu;
    float *rooms, *parts;
    int64_t tokens, heads; /* of a row set */
    int64_t n_items;
    _Atomic int64_t next;
    /* one token alone */
    int64_t t, span, n_spans;
} cached_job;

/* Positions of a span of the token that sees n_pos of them: as even as whole blocks allow. */
static int64_t span_of(int64_t n_pos)
{
    int64_t even = (n_pos + MAX_SPANS - 1) / MAX_SPANS;
    even = (even + FR_ATTN_BLOCK - 1) / FR_ATTN_BLOCK * FR_ATTN_BLOCK;
    return even > MIN_SPAN ? even : MIN_SPAN;
}

/* K and V of the block at p for a reader that takes positions above `beyond` exact. */
static void read_block(const cached_job *j, int64_t p, int64_t n, int64_t beyond, int64_t h,
                       float *room, attn_block *b)
{
    const layout *l = &j->l;
    bool pad_k = l->w != j->args->w1 + j->args->w2, pad_v = l->wv != j->args->wv;
    bool pad = pad_k || (pad_v && !j->v->base);
    b->n = n;
    b->k = attn_read_block(j->kernels, j->k, p, n, beyond, h, pad, room + l->k, &b->ldk);
    b->v = b->k;
    b->ldv = b->ldk;
    if (j->v->base)
        b->v = attn_read_block(j->kernels, j->v, p, n, beyond, h, pad_v, room + l->v, &b->ldv);
}

/* The block at p for the tokens [t0, t1) of a set that all read the same rows. */
static void add_same(const cached_job *j, const rowset *s, int64_t t0, int64_t t1, int64_t p,
                     float *room)
{
    const fr_cpu_attn_args *a = j->args;
    const layout *l = &j->l;
    int64_t n_pos = a->pos0 + t1, n = n_pos - p < FR_ATTN_BLOCK ? n_pos - p : FR_ATTN_BLOCK;
    int64_t heads = n_heads_of(s), row = (t0 - s->t0) * heads, n_rows = (t1 - t0) * heads;
    int32_t seen[ATTN_ROWS];
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t own = a->pos0 + t0 + r / heads + 1 - p;
        seen[r] = (int32_t)(own < n ? own : n);
    }
    attn_block b = {.q = room + l->q + row * l->w,
                    .n_rows = n_rows,
                    .w = l->w,
                    .wv = l->wv,
                    .seen = seen,
                    .scale = a->scale,
                    .state = room + l->state + row * 2,
                    .acc = room + l->acc + row * l->wv};
    read_block(j, p, n, a->pos0 + t0 - j->k->window, s->h0, room, &b);
    if (j->k->per_pos == 1 && p + 2 * FR_ATTN_BLOCK <= n_pos) {
        b.next = j->k->base + (size_t)(p + FR_ATTN_BLOCK) * j->k->row_bytes;
        b.next_bytes = FR_ATTN_BLOCK * j->k->row_bytes;
    }
    j->kernels->add_block(&b);
}

/* The block at p for the tokens of a set that see it, together where they read the same rows: near
 * the border of the exact window, they do not. */
static void add_block(const cached_job *j, const rowset *s, int64_t p, float *room)
{
    int64_t pos0 = j->args->pos0,
            window = j->k->window > j->v->window ? j->k->window : j->v->window;
    int64_t t0 = p - pos0 > s->t0 ? p - pos0 : s->t0, last = pos0 + s->t1 - 1;
    bool all_rounded = p + FR_ATTN_BLOCK - 1 <= pos0 + t0 - window, all_exact = p > last - window;
    if (window == 0 || all_rounded || all_exact) {
        add_same(j, s, t0, s->t1, p, room);
        return;
    }
    for (int64_t t = t0; t < s->t1; t++)
        add_same(j, s, t, t + 1, p, room);
}

/* Ends a span of a token: its softmax joins that of the spans before. */
static void fold_token(const cached_job *j, const rowset *s, int64_t t, float *room)
{
    const layout *l = &j->l;
    int64_t heads = n_heads_of(s);
    for (int64_t r = (t - s->t0) * heads; r < (t - s->t0 + 1) * heads; r++) {
        float *state = room + l->state + r * 2, *acc = room + l->acc + r * l->wv;
        j->kernels->fold(room + l->total_state + r * 2, room + l->total + r * l->wv, state, acc,
                         l->wv);
        start(state, acc, 1, l->wv);
    }
}

/* Everything for one set of rows. */
static void attend_set(const cached_job *j, const rowset *s, float *room)
{
    const layout *l = &j->l;
    int64_t pos0 = j->args->pos0, heads = n_heads_of(s), n_rows = (s->t1 - s->t0) * heads;
    load_queries(j->args, l, s, room + l->q);
    start(room + l->state, room + l->acc, n_rows, l->wv);
    start(room + l->total_state, room + l->total, n_rows, l->wv);
    for (int64_t p = 0; p < pos0 + s->t1; p += FR_ATTN_BLOCK) {
        for (int64_t t = s->t0; p > 0 && t < s->t1; t++)
            if (p <= pos0 + t && p % span_of(pos0 + t + 1) == 0)
                fold_token(j, s, t, room);
        add_block(j, s, p, room);
    }
    for (int64_t t = s->t0; t < s->t1; t++) {
        fold_token(j, s, t, room);
        for (int64_t h = s->h0; h < s->h1; h++) {
            int64_t r = (t - s->t0) * heads + h - s->h0;
            finish(j->args, t, h, room + l->total_state + r * 2, room + l->total + r * l->wv);
        }
    }
}

static int64_t claim(_Atomic int64_t *next)
{
    return atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Sets of many tokens; the last tokens have the most work and come first. */
static void sets_thread(void *arg, int i_thread, int n_threads)
{
    cached_job *j = arg;
    const fr_cpu_attn_args *a = j->args;
    float *room = j->rooms + (size_t)i_thread * j->l.n;
    int64_t by_heads = (a->n_heads + j->heads - 1) / j->heads;
    (void)n_threads;
    for (int64_t i; (i = claim(&j->next)) < j->n_items;) {
        int64_t t = j->n_items / by_heads - 1 - i / by_heads, h = i % by_heads;
        rowset s = {t * j->tokens, min_i64((t + 1) * j->tokens, a->n_tokens), h * j->heads,
                    min_i64((h + 1) * j->heads, a->n_heads)};
        attend_set(j, &s, room);
    }
}

/* One span of some heads of the token. */
static void attend_span(const cached_job *j, int64_t i_span, int64_t h0, int64_t h1, float *room)
{
    const layout *l = &j->l;
    rowset s = {j->t, j->t + 1, h0, h1};
    int64_t from = i_span * j->span, to = min_i64(from + j->span, j->args->pos0 + j->t + 1);
    load_queries(j->args, l, &s, room + l->q);
    start(room + l->state, room + l->acc, h1 - h0, l->wv);
    for (int64_t p = from; p < to; p += FR_ATTN_BLOCK)
        add_block(j, &s, p, room);
    for (int64_t h = h0; h < h1; h++) {
        float *part = j->parts + (size_t)(h * j->n_spans + i_span) * part_floats(l);
        memcpy(part, room + l->acc + (h - h0) * l->wv, (size_t)l->wv * sizeof *part);
        memcpy(part + l->wv, room + l->state + (h - h0) * 2, 2 * sizeof *part);
    }
}

static void fold_spans(const cached_job *j, int64_t h, float *room)
{
    const layout *l = &j->l;
    const float *part = j->parts + (size_t)(h * j->n_spans) * part_floats(l);
    float *state = room + l->total_state, *acc = room + l->total;
    start(state, acc, 1, l->wv);
    for (int64_t i = 0; i < j->n_spans; i++, part += part_floats(l))
        j->kernels->fold(state, acc, part + l->wv, part, l->wv);
    finish(j->args, j->t, h, state, acc);
}

static void spans_thread(void *arg, int i_thread, int n_threads)
{
    cached_job *j = arg;
    float *room = j->rooms + (size_t)i_thread * j->l.n;
    int64_t n_heads = j->args->n_heads, from, to;
    for (int64_t i; (i = claim(&j->next)) < j->n_items;) {
        int64_t h = i / j->n_spans * j->heads;
        attend_span(j, i % j->n_spans, h, min_i64(h + j->heads, n_heads), room);
    }
    if (n_threads > 1)
        fr_cpu_barrier(j->cpu, i_thread);
    fr_cpu_share(n_heads, 1, i_thread, n_threads, &from, &to);
    for (int64_t h = from; h < to; h++)
        fold_spans(j, h, room);
}

static int64_t n_macs(const cached_job *j, int64_t n_tokens)
{
    return n_tokens * j->args->n_heads * (j->args->pos0 + j->args->n_tokens) * (j->l.w + j->l.wv);
}

static void run_token(cached_job *j, int64_t t)
{
    int64_t n_pos = j->args->pos0 + t + 1, n_heads = j->args->n_heads;
    int64_t enough = ITEMS_PER_THREAD * fr_cpu_n_threads(j->cpu);
    bool shared = j->k->per_pos == 1; /* by all heads */
    j->t = t;
    j->span = span_of(n_pos);
    j->n_spans = (n_pos + j->span - 1) / j->span;
    j->heads = shared ? min_i64(ATTN_ROWS, n_heads) : 1;
    while (j->heads > 4 && j->n_spans * ((n_heads + j->heads - 1) / j->heads) < enough)
        j->heads = (j->heads + 1) / 2;
    j->n_items = j->n_spans * ((n_heads + j->heads - 1) / j->heads);
    atomic_store_explicit(&j->next, 0, memory_order_relaxed);
    cpu_run_sized(j->cpu, n_macs(j, 1), spans_thread, j);
}

void fr_cpu_attn_cached(fr_cpu *cpu, const fr_cpu_attn_args *a, const fr_cpu_kv *k,
                        const fr_cpu_kv *v, void *scratch)
{
    cached_job j = {.kernels = attn_kernels_of(cpu),
                    .args = a,
                    .k = k,
                    .v = v,
                    .l = cached_layout(a, k, v),
                    .cpu = cpu,
                    .rooms = scratch};
    j.parts = j.rooms + j.l.n * (size_t)fr_cpu_n_threads(cpu);
    j.heads = k->per_pos == 1 ? min_i64(ATTN_ROWS, a->n_heads) : 1;
    j.tokens = ATTN_ROWS / j.heads;
    j.n_items = (a->n_tokens + j.tokens - 1) / j.tokens * ((a->n_heads + j.heads - 1) / j.heads);
    if (j.n_items >= ITEMS_PER_THREAD * fr_cpu_n_threads(cpu)) {
        cpu_run_sized(cpu, n_macs(&j, a->n_tokens), sets_thread, &j);
        return;
    }
    for (int64_t t = 0; t < a->n_tokens; t++)
        run_token(&j, t);
}
