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
    MIN_HEADS_16 = 8,     /* for which integers of 16 bits pay */
    ITEMS_PER_THREAD = 4, /* parts of the work, so that a late thread holds up nobody */
};

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rooms of one thread, in floats. */
typedef struct {
    int64_t w, wv, ldk, ldv; /* padded */
    int64_t rows;
    size_t k, v, q, state, acc, total_state, total, n;
    bool in_16;
    size_t q16, risk, total_risk;
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

/* Whether K and V are turned into integers. That takes about as long as four rows in floats do. */
static bool fits_16(const fr_cpu_attn_args *a, const fr_cpu_kv *k, const fr_cpu_kv *v)
{
    int64_t w = a->w1 + a->w2;
    return k->type != FR_TYPE_F32 && k->per_pos == 1 && !v->base && a->n_heads >= MIN_HEADS_16 &&
           w <= ATTN_STRIDE_16 && w % ATTN_COLUMNS_16 == 0 && a->wv % ATTN_COLUMNS_16 == 0;
}

static layout cached_layout(const fr_cpu *cpu, const fr_cpu_attn_args *a, const fr_cpu_kv *k,
                            const fr_cpu_kv *v)
{
    layout l = make_layout(a->w1 + a->w2, a->wv, k->stored, v->base ? v->stored : 0, ATTN_ROWS);
    l.in_16 = attn_kernels_of(cpu)->in_16 && fits_16(a, k, v);
    if (l.in_16) {
        l.k = take(&l, l.ldk * ATTN_BLOCK_16);
        l.q16 = take(&l, ATTN_ROWS / ATTN_LANES * attn_group_floats_16(l.w));
        l.risk = take(&l, sizeof(attn_risk_16) / sizeof(float));
        l.total_risk = take(&l, sizeof(attn_risk_16) / sizeof(float));
    }
    return l;
}

static size_t part_floats(const layout *l)
{
    return (size_t)l->wv + ATTN_LANES; /* sums, then the state */
}

size_t fr_cpu_attn_cached_bytes(const fr_cpu *cpu, const fr_cpu_attn_args *a, const fr_cpu_kv *k,
                                const fr_cpu_kv *v)
{
    layout l = cached_layout(cpu, a, k, v);
    size_t parts = (size_t)a->n_heads * MAX_SPANS * part_floats(&l);
    return (l.n * (size_t)fr_cpu_n_threads(cpu) + parts) * sizeof(float);
}

/* ---- rows of queries
 * ---------------------------------------------------------------------------------------- */

/* Tokens [t0, t1) times heads [h0, h1) of a list or, without one, of all: row
 * (t - t0) * (h1 - h0) + h - h0. */
typedef struct {
    int64_t t0, t1, h0, h1;
    bool in_16;
    const int32_t *list;
} rowset;

static int64_t n_heads_of(const rowset *s)
{
    return s->h1 - s->h0;
}

static int64_t head_of(const rowset *s, int64_t h)
{
    return s->list ? s->list[h] : h;
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

/* ---- what rounding does to a result
 * ---------------------------------------------------------------------------------------- */

/* Of the error that rounded scores bring into a row's result, in parts of V. On a trained model
 * with an f16 cache one row in a hundred is above it, and rounding all scores, even those, changes
 * probabilities less than storing K and V in f16 does (cpu/README.md). */
static const float TOLERANCE = 2e-3f;

static attn_risk_16 *risk_at(float *room, size_t at)
{
    return (attn_risk_16 *)(void *)(room + at);
}

/* The risk of a span whose largest score is part_max joins that of earlier ones, with max. */
static void fold_risk(float *squares, float *most, float max, float part_squares, float part_most,
                      float part_max)
{
    if (part_max > max)
        *squares = *squares * expf(2.0f * (max - part_max)) + part_squares;
    else
        *squares += part_squares * expf(2.0f * (part_max - max));
    *most = part_most > *most ? part_most : *most;
}

/* Errors of scores are errors of weights, so of the result, but for what all weights share. Where
 * one position has nearly all of the sum, only the others' part of it counts. */
static bool is_safe(float sum, float squares, float most)
{
    float others = sum - 1.0f, few = 2.0f * most * most * others * others;
    float error = few < squares ? few : squares;
    return error <= TOLERANCE * TOLERANCE * sum * sum;
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
    int64_t block;         /* positions that are read together */
    int64_t tokens, heads; /* of a row set */
    int64_t n_items;
    _Atomic int64_t next;
    /* one token alone */
    int64_t t, span, n_spans;
} cached_job;

/* Positions of a span of the token that sees n_pos of them: as even as whole blocks allow. */
static int64_t span_of(const cached_job *j, int64_t n_pos)
{
    int64_t even = (n_pos + MAX_SPANS - 1) / MAX_SPANS;
    even = (even + j->block - 1) / j->block * j->block;
    return even > MIN_SPAN ? even : MIN_SPAN;
}

static void load_queries(const cached_job *j, const rowset *s, float *room)
{
    const fr_cpu_attn_args *a = j->args;
    const layout *l = &j->l;
    int64_t w = a->w1 + a->w2, n_rows = (s->t1 - s->t0) * n_heads_of(s);
    float *q = room + l->q;
    for (int64_t t = s->t0; t < s->t1; t++)
        for (int64_t h = s->h0; h < s->h1; h++, q += l->w) {
            int64_t head = head_of(s, h);
            memcpy(q, a->q1 + t * a->ldq1 + head * a->q1_stride, (size_t)a->w1 * sizeof *q);
            if (a->w2 > 0)
                memcpy(q + a->w1, a->q2 + t * a->ldq2 + head * a->q2_stride,
                       (size_t)a->w2 * sizeof *q);
            memset(q + w, 0, (size_t)(l->w - w) * sizeof *q);
        }
    if (s->in_16)
        j->kernels->in_16()->pack_queries(room + l->q, n_rows, w, a->wv, a->scale, room + l->q16);
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

/* add_same in integers. Groups of rows stay whole: the others of the set see nothing. */
static void add_same_16(const cached_job *j, const rowset *s, int64_t t0, int64_t t1, int64_t p,
                        float *room)
{
    const layout *l = &j->l;
    const fr_cpu_kv *k = j->k;
    int64_t pos0 = j->args->pos0, n_pos = pos0 + t1, n = min_i64(n_pos - p, ATTN_BLOCK_16);
    int64_t heads = n_heads_of(s);
    int32_t seen[ATTN_ROWS] = {0};
    for (int64_t r = (t0 - s->t0) * heads; r < (t1 - s->t0) * heads; r++)
        seen[r] = (int32_t)min_i64(pos0 + s->t0 + r / heads + 1 - p, n);
    attn_block_16 b = {.q = room + l->q16,
                       .n_rows = (s->t1 - s->t0) * heads,
                       .w = l->w,
                       .wv = l->wv,
                       .seen = seen,
                       .scale = j->args->scale,
                       .state = room + l->state,
                       .acc = room + l->acc,
                       .risk = risk_at(room, l->risk)};
    attn_find_rows(j->kernels, k, p, n, pos0 + t0 - k->window, room + l->k, &b);
    if (p + 2 * ATTN_BLOCK_16 <= n_pos) {
        b.next = k->base + (size_t)(p + ATTN_BLOCK_16) * k->row_bytes;
        b.next_bytes = ATTN_BLOCK_16 * k->row_bytes;
    }
    j->kernels->in_16()->add_block(&b);
}

/* Positions that a set reads together. */
static int64_t block_of(const rowset *s)
{
    return s->in_16 ? ATTN_BLOCK_16 : FR_ATTN_BLOCK;
}

/* The block at p for the tokens of a set that see it, together where they read the same rows: near
 * the border of the exact window, they do not. */
static void add_block(const cached_job *j, const rowset *s, int64_t p, float *room)
{
    int64_t pos0 = j->args->pos0,
            window = j->k->window > j->v->window ? j->k->window : j->v->window;
    int64_t t0 = p - pos0 > s->t0 ? p - pos0 : s->t0, last = pos0 + s->t1 - 1;
    bool all_rounded = p + block_of(s) - 1 <= pos0 + t0 - window, all_exact = p > last - window;
    bool together = window == 0 || all_rounded || all_exact;
    for (int64_t t = t0, t1; t < s->t1; t = t1) {
        t1 = together ? s->t1 : t + 1;
        if (s->in_16)
            add_same_16(j, s, t, t1, p, room);
        else
            add_same(j, s, t, t1, p, room);
    }
}

/* Ends a span of a token: its softmax joins that of the spans before. */
static void fold_token(const cached_job *j, const rowset *s, int64_t t, float *room)
{
    const layout *l = &j->l;
    int64_t heads = n_heads_of(s);
    for (int64_t r = (t - s->t0) * heads; r < (t - s->t0 + 1) * heads; r++) {
        float *state = room + l->state + r * 2, *acc = room + l->acc + r * l->wv;
        float *total = room + l->total_state + r * 2;
        if (s->in_16) {
            attn_risk_16 *risk = risk_at(room, l->risk), *all = risk_at(room, l->total_risk);
            fold_risk(&all->squares[r], &all->most[r], total[0], risk->squares[r], risk->most[r],
                      state[0]);
            risk->squares[r] = risk->most[r] = 0.0f;
        }
        j->kernels->fold(total, room + l->total + r * l->wv, state, acc, l->wv);
        start(state, acc, 1, l->wv);
    }
}

static void start_rows(const cached_job *j, const rowset *s, float *room)
{
    const layout *l = &j->l;
    int64_t n_rows = (s->t1 - s->t0) * n_heads_of(s);
    start(room + l->state, room + l->acc, n_rows, l->wv);
    if (s->in_16)
        memset(room + l->risk, 0, sizeof(attn_risk_16));
}

/* Everything for one set of rows. Returns those whose result is not safe, as bits; the others' are
 * written. */
static uint32_t attend_set(const cached_job *j, const rowset *s, float *room)
{
    const layout *l = &j->l;
    int64_t pos0 = j->args->pos0, heads = n_heads_of(s), n_rows = (s->t1 - s->t0) * heads;
    uint32_t unsafe = 0;
    load_queries(j, s, room);
    start_rows(j, s, room);
    start(room + l->total_state, room + l->total, n_rows, l->wv);
    if (s->in_16)
        memset(room + l->total_risk, 0, sizeof(attn_risk_16));
    for (int64_t p = 0; p < pos0 + s->t1; p += block_of(s)) {
        for (int64_t t = s->t0; p > 0 && t < s->t1; t++)
            if (p <= pos0 + t && p % span_of(j, pos0 + t + 1) == 0)
                fold_token(j, s, t, room);
        add_block(j, s, p, room);
    }
    for (int64_t t = s->t0; t < s->t1; t++)
        fold_token(j, s, t, room);
    for (int64_t r = 0; r < n_rows; r++) {
        const float *state = room + l->total_state + r * 2;
        const attn_risk_16 *risk = risk_at(room, l->total_risk);
        if (s->in_16 && !is_safe(state[1], risk->squares[r], risk->most[r]))
            unsafe |= 1u << r;
        else
            finish(j->args, s->t0 + r / heads, head_of(s, s->h0 + r % heads), state,
                   room + l->total + r * l->wv);
    }
    return unsafe;
}

/* In floats: what was not safe in integers. */
static void attend_again(const cached_job *j, int64_t t, const int32_t *list, int64_t n,
                         float *room)
{
    rowset s = {.t0 = t, .t1 = t + 1, .h1 = n, .list = list};
    if (n > 0)
        attend_set(j, &s, room);
}

static void attend_tokens(const cached_job *j, const rowset *s, float *room)
{
    uint32_t unsafe = attend_set(j, s, room);
    int64_t heads = n_heads_of(s);
    for (int64_t t = s->t0; unsafe && t < s->t1; t++) {
        int32_t list[ATTN_ROWS];
        int64_t n = 0;
        for (int64_t h = 0; h < heads; h++)
            if (unsafe >> ((t - s->t0) * heads + h) & 1)
                list[n++] = (int32_t)(s->h0 + h);
        attend_again(j, t, list, n, room);
    }
}

static int64_t claim(_Atomic int64_t *next)
{
    return atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
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
        rowset s = {.t0 = t * j->tokens,
                    .t1 = min_i64((t + 1) * j->tokens, a->n_tokens),
                    .h0 = h * j->heads,
                    .h1 = min_i64((h + 1) * j->heads, a->n_heads),
                    .in_16 = j->l.in_16};
        attend_tokens(j, &s, room);
    }
}

/* Span i_span of a set of heads of the token, whose queries are in the room. */
static void attend_span(const cached_job *j, int64_t i_span, const rowset *s, float *room)
{
    const layout *l = &j->l;
    int64_t from = i_span * j->span, to = min_i64(from + j->span, j->args->pos0 + j->t + 1);
    const attn_risk_16 *risk = risk_at(room, l->risk);
    start_rows(j, s, room);
    for (int64_t p = from; p < to; p += block_of(s))
        add_block(j, s, p, room);
    for (int64_t r = 0; r < n_heads_of(s); r++) {
        float *part = j->parts + (size_t)((s->h0 + r) * j->n_spans + i_span) * part_floats(l);
        memcpy(part, room + l->acc + r * l->wv, (size_t)l->wv * sizeof *part);
        memcpy(part + l->wv, room + l->state + r * 2, 2 * sizeof *part);
        if (s->in_16) {
            part[l->wv + 2] = risk->squares[r];
            part[l->wv + 3] = risk->most[r];
        }
    }
}

/* False where the result is not safe; then nothing is written. */
static bool fold_spans(const cached_job *j, int64_t h, float *room)
{
    const layout *l = &j->l;
    const float *part = j->parts + (size_t)(h * j->n_spans) * part_floats(l);
    float *state = room + l->total_state, *acc = room + l->total, squares = 0.0f, most = 0.0f;
    start(state, acc, 1, l->wv);
    for (int64_t i = 0; i < j->n_spans; i++, part += part_floats(l)) {
        const float *end = part + l->wv;
        if (l->in_16)
            fold_risk(&squares, &most, state[0], end[2], end[3], end[0]);
        j->kernels->fold(state, acc, end, part, l->wv);
    }
    if (l->in_16 && !is_safe(state[1], squares, most))
        return false;
    finish(j->args, j->t, h, state, acc);
    return true;
}

/* Heads [from, to). */
static void fold_heads(const cached_job *j, int64_t from, int64_t to, float *room)
{
    int32_t unsafe[ATTN_ROWS];
    int64_t n = 0;
    for (int64_t h = from; h < to; h++) {
        if (!fold_spans(j, h, room))
            unsafe[n++] = (int32_t)h;
        if (n == ATTN_ROWS || h == to - 1) {
            attend_again(j, j->t, unsafe, n, room);
            n = 0;
        }
    }
}

static void spans_thread(void *arg, int i_thread, int n_threads)
{
    cached_job *j = arg;
    float *room = j->rooms + (size_t)i_thread * j->l.n;
    int64_t n_heads = j->args->n_heads, loaded = -1, from, to;
    for (int64_t i; (i = claim(&j->next)) < j->n_items;) {
        int64_t h = i / j->n_spans * j->heads;
        rowset s = {.t0 = j->t,
                    .t1 = j->t + 1,
                    .h0 = h,
                    .h1 = min_i64(h + j->heads, n_heads),
                    .in_16 = j->l.in_16};
        if (h != loaded)
            load_queries(j, &s, room);
        loaded = h;
        attend_span(j, i % j->n_spans, &s, room);
    }
    if (n_threads > 1)
        fr_cpu_barrier(j->cpu, i_thread);
    fr_cpu_share(n_heads, 1, i_thread, n_threads, &from, &to);
    fold_heads(j, from, to, room);
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
    j->span = span_of(j, n_pos);
    j->n_spans = (n_pos + j->span - 1) / j->span;
    j->heads = shared ? min_i64(ATTN_ROWS, n_heads) : 1;
    int64_t fewest = j->l.in_16 ? ATTN_LANES : 4; /* fewer take no less time */
    while (j->heads > fewest && j->n_spans * ((n_heads + j->heads - 1) / j->heads) < enough)
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
                    .l = cached_layout(cpu, a, k, v),
                    .cpu = cpu,
                    .rooms = scratch};
    j.block = j.l.in_16 ? ATTN_BLOCK_16 : FR_ATTN_BLOCK;
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
