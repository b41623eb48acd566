/* Attention on the cache. Queries that meet the same K and V (the heads of a token on the latent
 * cache, the tokens of one head elsewhere) are rows of a small matrix product with a block of
 * positions.
 *
 * The positions of a token are cut into spans of blocks that depend on its own position only
 * (cut_of). Each span has a softmax of its own and all are folded in order, so that threads may
 * share the positions of one token without showing in the result. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/kernels.h"

enum {
    MAX_SPANS = 32,       /* of a token */
    MIN_SPAN = 64,        /* positions, in floats */
    GRAIN_16 = 8,         /* positions that integers take together */
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

enum { END = 4 }; /* what a span leaves besides sums: the state, and what rounding did */

/* Of all heads and spans: [span][head][wv], then [head][span][END]. */
static size_t part_floats(const layout *l)
{
    return (size_t)(l->wv + END);
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

/* How the positions of a token are cut: spans that are folded, of blocks that are read together. */
typedef struct {
    int64_t span, block;
} cut;

/* Tokens [t0, t1) times heads [h0, h1) of a list or, without one, of all: row
 * (t - t0) * (h1 - h0) + h - h0. */
typedef struct {
    int64_t t0, t1, h0, h1;
    bool in_16;
    const int32_t *list;
    cut cut; /* of every token */
} rowset;

static int64_t rounded_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* In floats, as even as whole blocks allow. In integers a span costs as much as some 8 positions do
 * besides: first 2 for two threads, and more where there is work enough. */
static cut cut_of(bool in_16, int64_t n_pos)
{
    if (!in_16) {
        int64_t even = rounded_up((n_pos + MAX_SPANS - 1) / MAX_SPANS, FR_ATTN_BLOCK);
        return (cut){even > MIN_SPAN ? even : MIN_SPAN, FR_ATTN_BLOCK};
    }
    int64_t n_spans = n_pos <= GRAIN_16 ? 1 : 2;
    while (n_spans < MAX_SPANS && n_pos > 32 * n_spans * n_spans)
        n_spans *= 2;
    int64_t span = rounded_up((n_pos + n_spans - 1) / n_spans, GRAIN_16);
    int64_t n_blocks = (span + ATTN_BLOCK_16 - 1) / ATTN_BLOCK_16;
    return (cut){span, rounded_up((span + n_blocks - 1) / n_blocks, GRAIN_16)};
}

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
    if (acc)
        memset(acc, 0, (size_t)(n_rows * wv) * sizeof *acc);
}

static void finish(const fr_cpu_attn_args *a, int64_t t, int64_t h, const float *state,
                   const float *acc, const attn_kernels_16 *in_16)
{
    float *o = a->o + t * a->ldo + h * a->o_stride, inverse = 1.0f / state[1];
    if (in_16) {
        in_16->finish(acc, a->wv, inverse, o);
        return;
    }
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

/* The risk of a further span joins that of earlier ones as their sums do. */
static void fold_risk(float *squares, float *most, float shrink, float weight, float part_squares,
                      float part_most)
{
    *squares = *squares * shrink * shrink + part_squares * weight * weight;
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
    float *rooms, *parts, *ends;
    int64_t tokens, heads; /* of a row set */
    int64_t n_items;
    _Atomic int64_t next;
    /* one token alone */
    int64_t t, n_spans;
    cut cut;
} cached_job;

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

/* A block of positions, and where the thread goes on behind it. */
typedef struct {
    int64_t p, end, next;
    bool fresh; /* the first of a span: sums hold nothing yet */
} piece;

/* A block for the tokens [t0, t1) of a set that all read the same rows. */
static void add_same(const cached_job *j, const rowset *s, int64_t t0, int64_t t1, piece at,
                     float *acc, float *room)
{
    const fr_cpu_attn_args *a = j->args;
    const layout *l = &j->l;
    int64_t p = at.p, n_pos = a->pos0 + t1, n = min_i64(n_pos, at.end) - p;
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
                    .acc = acc + row * l->wv};
    read_block(j, p, n, a->pos0 + t0 - j->k->window, s->h0, room, &b);
    if (j->k->per_pos == 1 && p + 2 * FR_ATTN_BLOCK <= n_pos) {
        b.next = j->k->base + (size_t)(p + FR_ATTN_BLOCK) * j->k->row_bytes;
        b.next_bytes = FR_ATTN_BLOCK * j->k->row_bytes;
    }
    j->kernels->add_block(&b);
}

/* add_same in integers. Groups of rows stay whole: the others of the set see nothing. */
static void add_same_16(const cached_job *j, const rowset *s, int64_t t0, int64_t t1, piece at,
                        float *acc, float *room)
{
    const layout *l = &j->l;
    const fr_cpu_kv *k = j->k;
    int64_t pos0 = j->args->pos0, p = at.p, n_pos = pos0 + t1, n = min_i64(n_pos, at.end) - p;
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
                       .acc = acc,
                       .fresh = at.fresh,
                       .risk = risk_at(room, l->risk)};
    attn_find_rows(j->kernels, k, p, n, pos0 + t0 - k->window, room + l->k, &b);
    if (at.next + s->cut.block <= n_pos) {
        b.next = k->base + (size_t)at.next * k->row_bytes;
        b.next_bytes = (size_t)s->cut.block * k->row_bytes;
    }
    j->kernels->in_16()->add_block(&b);
}

/* A block for the tokens of a set that see it, together where they read the same rows: near the
 * border of the exact window, they do not. acc: rows x wv. */
static void add_block(const cached_job *j, const rowset *s, piece at, float *acc, float *room)
{
    int64_t pos0 = j->args->pos0, p = at.p,
            window = j->k->window > j->v->window ? j->k->window : j->v->window;
    int64_t t0 = p - pos0 > s->t0 ? p - pos0 : s->t0, last = pos0 + s->t1 - 1;
    bool all_rounded = at.end - 1 <= pos0 + t0 - window, all_exact = p > last - window;
    bool together = window == 0 || all_rounded || all_exact;
    for (int64_t t = t0, t1; t < s->t1; t = t1) {
        t1 = together ? s->t1 : t + 1;
        if (s->in_16)
            add_same_16(j, s, t, t1, at, acc, room);
        else
            add_same(j, s, t, t1, at, acc, room);
    }
}

/* Ends a span of a token: its softmax joins that of the spans before. */
static void fold_token(const cached_job *j, const rowset *s, int64_t t, float *room)
{
    const layout *l = &j->l;
    int64_t heads = n_heads_of(s);
    for (int64_t r = (t - s->t0) * heads; r < (t - s->t0 + 1) * heads; r++) {
        float *state = room + l->state + r * 2, *acc = room + l->acc + r * l->wv;
        float *total = room + l->total_state + r * 2, shrink[1], weight[1];
        j->kernels->fold_states(total, state, 2, 1, shrink, weight);
        if (s->in_16) {
            attn_risk_16 *risk = risk_at(room, l->risk), *all = risk_at(room, l->total_risk);
            fold_risk(&all->squares[r], &all->most[r], *shrink, *weight, risk->squares[r],
                      risk->most[r]);
            risk->squares[r] = risk->most[r] = 0.0f;
        }
        j->kernels->fold_sums(room + l->total + r * l->wv, acc, 0, 1, shrink, weight, l->wv);
        start(state, acc, 1, l->wv);
    }
}

/* acc: NULL where the first block of a span sets it. */
static void start_rows(const rowset *s, int64_t n_rows, float *state, float *acc, int64_t wv,
                       float *risk)
{
    start(state, acc, n_rows, wv);
    if (s->in_16)
        memset(risk, 0, sizeof(attn_risk_16));
}

/* The blocks of all spans. */
static void attend_spans(const cached_job *j, const rowset *s, float *room)
{
    int64_t pos0 = j->args->pos0, n_pos = pos0 + s->t1;
    for (int64_t from = 0; from < n_pos; from += s->cut.span) {
        int64_t to = min_i64(from + s->cut.span, n_pos);
        for (int64_t p = from, end; p < to; p = end) {
            end = min_i64(p + s->cut.block, to);
            add_block(j, s, (piece){p, end, end, false}, room + j->l.acc, room);
        }
        for (int64_t t = from > pos0 + s->t0 ? from - pos0 : s->t0; t < s->t1; t++)
            fold_token(j, s, t, room);
    }
}

/* Everything for one set of rows. Returns those whose result is not safe, as bits; the others' are
 * written. */
static uint32_t attend_set(const cached_job *j, const rowset *s, float *room)
{
    const layout *l = &j->l;
    int64_t heads = n_heads_of(s), n_rows = (s->t1 - s->t0) * heads;
    uint32_t unsafe = 0;
    load_queries(j, s, room);
    start_rows(s, n_rows, room + l->state, room + l->acc, l->wv, room + l->risk);
    start_rows(s, n_rows, room + l->total_state, room + l->total, l->wv, room + l->total_risk);
    attend_spans(j, s, room);
    for (int64_t r = 0; r < n_rows; r++) {
        const float *state = room + l->total_state + r * 2;
        const attn_risk_16 *risk = risk_at(room, l->total_risk);
        if (s->in_16 && !is_safe(state[1], risk->squares[r], risk->most[r]))
            unsafe |= 1u << r;
        else
            finish(j->args, s->t0 + r / heads, head_of(s, s->h0 + r % heads), state,
                   room + l->total + r * l->wv, s->in_16 ? j->kernels->in_16() : NULL);
    }
    return unsafe;
}

/* In floats: what was not safe in integers. */
static void attend_again(const cached_job *j, int64_t t, const int32_t *list, int64_t n,
                         float *room)
{
    rowset s = {
        .t0 = t, .t1 = t + 1, .h1 = n, .list = list, .cut = cut_of(false, j->args->pos0 + t + 1)};
    if (n > 0)
        attend_set(j, &s, room);
}

/* Tokens that are cut alike, and again what was not safe. */
static void attend_alike(const cached_job *j, const rowset *s, float *room)
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

static void attend_tokens(const cached_job *j, rowset s, float *room)
{
    for (int64_t end = s.t1, pos0 = j->args->pos0; s.t0 < end; s.t0 = s.t1) {
        s.cut = cut_of(s.in_16, pos0 + s.t0 + 1);
        for (s.t1 = s.t0 + 1; s.t1 < end; s.t1++)
            if (cut_of(s.in_16, pos0 + s.t1 + 1).span != s.cut.span)
                break;
        attend_alike(j, &s, room);
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
        attend_tokens(j, s, room);
    }
}

static float *part_of(const cached_job *j, int64_t i_span, int64_t h)
{
    return j->parts + (i_span * j->args->n_heads + h) * j->l.wv;
}

/* Where the thread goes on behind the span, if no other is faster. */
static int64_t likely_next(cached_job *j, int64_t from)
{
    int64_t i = atomic_load_explicit(&j->next, memory_order_relaxed);
    return i < j->n_items ? i % j->n_spans * j->cut.span : from;
}

/* Span i_span of a set of heads of the token, whose queries are in the room. */
static void attend_span(cached_job *j, int64_t i_span, const rowset *s, float *room)
{
    const layout *l = &j->l;
    int64_t from = i_span * j->cut.span, n = n_heads_of(s);
    int64_t to = min_i64(from + j->cut.span, j->args->pos0 + j->t + 1);
    float *acc = part_of(j, i_span, s->h0);
    const attn_risk_16 *risk = risk_at(room, l->risk);
    start_rows(s, n, room + l->state, s->in_16 ? NULL : acc, l->wv, room + l->risk);
    for (int64_t p = from, end; p < to; p = end) {
        end = min_i64(p + j->cut.block, to);
        piece at = {p, end, end < to ? end : likely_next(j, to), s->in_16 && p == from};
        add_block(j, s, at, acc, room);
    }
    for (int64_t r = 0; r < n; r++) {
        float *end = j->ends + ((s->h0 + r) * j->n_spans + i_span) * END;
        memcpy(end, room + l->state + r * 2, 2 * sizeof *end);
        end[2] = s->in_16 ? risk->squares[r] : 0.0f;
        end[3] = s->in_16 ? risk->most[r] : 0.0f;
    }
}

/* False where the result is not safe; then nothing is written. */
static bool fold_spans(const cached_job *j, int64_t h, float *room)
{
    const layout *l = &j->l;
    const float *ends = j->ends + h * j->n_spans * END;
    float *state = room + l->total_state, *acc = room + l->total, squares = 0.0f, most = 0.0f;
    float shrink[MAX_SPANS], weight[MAX_SPANS];
    start(state, acc, 1, l->wv);
    j->kernels->fold_states(state, ends, END, j->n_spans, shrink, weight);
    for (int64_t i = 0; l->in_16 && i < j->n_spans; i++)
        fold_risk(&squares, &most, shrink[i], weight[i], ends[i * END + 2], ends[i * END + 3]);
    if (l->in_16 && !is_safe(state[1], squares, most))
        return false;
    j->kernels->fold_sums(acc, part_of(j, 0, h), j->args->n_heads * l->wv, j->n_spans, shrink,
                          weight, l->wv);
    finish(j->args, j->t, h, state, acc, l->in_16 ? j->kernels->in_16() : NULL);
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
                    .in_16 = j->l.in_16,
                    .cut = j->cut};
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
    j->cut = cut_of(j->l.in_16, n_pos);
    j->n_spans = (n_pos + j->cut.span - 1) / j->cut.span;
    j->ends = j->parts + n_heads * j->n_spans * j->l.wv;
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
