/* The KV cache and attention on the GPU, against plain loops in double over the rows that each
 * token reads: exact ones within its window, what the cache made of them before. */
#include "gpu_testing.h"

enum { ARENA = 48 << 20 };

/* ---- a cache and what should be in it ------------------------------------------------------- */

typedef struct {
    fr_type type;
    int64_t width, stored, per_pos, window;
} cache_shape;

typedef struct {
    fr_gpu_kv kv;
    cache_shape shape;
    int64_t n_pos;
    float *exact, *rounded; /* host: rows of `stored` */
} cache;

static int64_t row_floats(const cache *c)
{
    return c->shape.per_pos * c->shape.stored;
}

static cache open_cache(gpu_bench *b, cache_shape s, int64_t n_pos, int64_t max_batch)
{
    cache c = {.shape = s, .n_pos = n_pos};
    size_t row = fr_row_bytes(s.type, FR_LAYOUT_PLAIN, s.stored);
    size_t floats = (size_t)(n_pos * s.per_pos * s.stored);
    c.exact = test_calloc(floats, sizeof(float));
    c.rounded = test_calloc(floats, sizeof(float));
    c.kv = (fr_gpu_kv){.type = s.type,
                       .per_pos = (int32_t)s.per_pos,
                       .stored = s.stored,
                       .row_bytes = row,
                       .window = s.window};
    c.kv.base_d = gpu_put(b, NULL, (size_t)(n_pos * s.per_pos) * row);
    if (s.window > 0) {
        c.kv.recent_d = gpu_floats(b, NULL, s.window * row_floats(&c));
        c.kv.staged_d = gpu_floats(b, NULL, max_batch * row_floats(&c));
    }
    return c;
}

static void close_cache(cache *c)
{
    test_free(c->exact);
    test_free(c->rounded);
}

/* The error of rounding, relative to numbers of size 1. */
static double step_of(fr_type t)
{
    return t == FR_TYPE_F32    ? 0
           : t == FR_TYPE_F16  ? 0x1p-11
           : t == FR_TYPE_BF16 ? 0x1p-8
                               : 0.51 / 127 + 0x1p-11;
}

/* Stores n positions from pos0 on, and reads back what became of them. */
static void store(gpu_bench *b, cache *c, int64_t pos0, int64_t n, int64_t a_width)
{
    fr_err err;
    int32_t bad = 0;
    const cache_shape *s = &c->shape;
    int64_t b_width = s->width - a_width, lda = s->per_pos * a_width + 1;
    size_t row = c->kv.row_bytes, n_rows = (size_t)(n * s->per_pos);
    float *a_h = test_calloc((size_t)(n * lda), sizeof *a_h);
    float *b_h = test_calloc((size_t)(n * b_width + 1), sizeof *b_h);
    uint8_t *bytes = test_calloc(n_rows, row);
    for (int64_t t = 0; t < n; t++) { /* what stands at a position depends on nothing else */
        uint64_t seed = (uint64_t)((pos0 + t) * 4 + 1 + (a_width != s->width));
        fill_random(a_h + t * lda, lda, 1, &seed);
        fill_random(b_h + t * b_width, b_width, 1, &seed);
        for (int64_t h = 0; h < s->per_pos; h++) {
            float *x = c->exact + ((pos0 + t) * s->per_pos + h) * s->stored;
            memcpy(x, a_h + t * lda + h * a_width, (size_t)a_width * sizeof *x);
            memcpy(x + a_width, b_h + t * b_width, (size_t)b_width * sizeof *x);
        }
    }
    c->kv.pos0 = pos0;
    fr_gpu_kv_store_args args = {.a_d = gpu_floats(b, a_h, n * lda),
                                 .b_d = gpu_floats(b, b_h, n * b_width + 1),
                                 .lda = lda,
                                 .a_width = a_width,
                                 .a_stride = a_width,
                                 .ldb = b_width,
                                 .b_width = b_width,
                                 .n_tokens = n,
                                 .pos0 = pos0,
                                 .not_finite_d = gpu_put(b, &bad, sizeof bad),
                                 .dst = c->kv};
    assert_ok(b->gpu->kv_store(&args, b->s, &err));
    gpu_get(b, &bad, args.not_finite_d, sizeof bad);
    assert_int_equal(bad, 0);
    gpu_get(b, bytes, c->kv.base_d + (size_t)(pos0 * s->per_pos) * row, n_rows * row);
    for (size_t r = 0; r < n_rows; r++) {
        size_t at = ((size_t)(pos0 * s->per_pos) + r) * (size_t)s->stored;
        fr_decode_row(s->type, FR_LAYOUT_PLAIN, bytes + r * row, 0, s->stored, c->rounded + at);
        assert_close(c->rounded + at, c->exact + at, s->stored, 0, step_of(s->type), "kv_store");
    }
    test_free(a_h);
    test_free(b_h);
    test_free(bytes);
}

/* The batch of n goes into the ring. */
static void keep(gpu_bench *b, cache *c, int64_t n)
{
    fr_err err;
    int64_t oldest = c->kv.pos0 + n - c->kv.window;
    assert_ok(b->gpu->kv_keep(&c->kv, n, b->s, &err));
    if (oldest > c->kv.exact_from)
        c->kv.exact_from = oldest;
}

/* The row that a reader sees who takes positions above `beyond` exact. */
static const float *row_seen(const cache *c, int64_t p, int64_t h, int64_t beyond)
{
    int64_t from = c->kv.exact_from < c->kv.pos0 ? c->kv.exact_from : c->kv.pos0;
    bool exact = c->kv.window > 0 && p > beyond && p >= from;
    int64_t row = p * c->shape.per_pos + (c->shape.per_pos > 1 ? h : 0);
    return (exact ? c->exact : c->rounded) + row * c->shape.stored;
}

static void check_load(gpu_bench *b, const cache *c, int64_t from, int64_t n)
{
    fr_err err;
    int64_t stored = c->shape.stored;
    float *got = test_calloc((size_t)(n * stored), sizeof *got);
    float *out_d = gpu_floats(b, NULL, n * stored);
    assert_ok(b->gpu->kv_load(&c->kv, from, n, out_d, b->s, &err));
    gpu_get(b, got, out_d, (size_t)(n * stored) * sizeof *got);
    for (int64_t i = 0; i < n; i++)
        assert_memory_equal(got + i * stored, row_seen(c, from + i, 0, c->kv.pos0 - c->kv.window),
                            (size_t)stored * sizeof *got);
    test_free(got);
}

/* ---- attention in double -------------------------------------------------------------------- */

/* Where the rows of a position are: k1 and k2 may be parts of one row. */
typedef struct {
    const float *k1, *k2, *v;
} rows_of_position;
typedef rows_of_position (*find_rows)(const void *user, int64_t p, int64_t h, int64_t t);

typedef struct {
    int64_t w1, w2, wv;
    double scale;
} widths;

static void attend(const widths *w, int64_t t, int64_t h, const float *q, find_rows find,
                   const void *user, float *out)
{
    double *p = test_calloc((size_t)(t + 1), sizeof *p), most = -INFINITY, sum = 0;
    double *o = test_calloc((size_t)w->wv, sizeof *o);
    for (int64_t i = 0; i <= t; i++) {
        rows_of_position r = find(user, i, h, t);
        for (int64_t j = 0; j < w->w1; j++)
            p[i] += (double)q[j] * (double)r.k1[j];
        for (int64_t j = 0; j < w->w2; j++)
            p[i] += (double)q[w->w1 + j] * (double)r.k2[j];
        most = fmax(most, p[i] *= w->scale);
    }
    for (int64_t i = 0; i <= t; i++) {
        const float *v = find(user, i, h, t).v;
        sum += p[i] = exp(p[i] - most);
        for (int64_t j = 0; j < w->wv; j++)
            o[j] += p[i] * (double)v[j];
    }
    for (int64_t j = 0; j < w->wv; j++)
        out[j] = (float)(o[j] / sum);
    test_free(p);
    test_free(o);
}

/* ---- from the cache ------------------------------------------------------------------------- */

typedef struct {
    fr_type type, type_v;
    int64_t n_heads, w1, w2, wv, per_pos, window;
    bool own_v;
} attention;

typedef struct {
    attention a;
    cache k, v;
    gpu_bench *b;
    bool split; /* scratch for spans */
} scene;

static rows_of_position cached_rows(const void *user, int64_t p, int64_t h, int64_t t)
{
    const scene *s = user;
    const float *k = row_seen(&s->k, p, h, t - s->a.window);
    const float *v = s->a.own_v ? row_seen(&s->v, p, h, t - s->a.window) : k;
    return (rows_of_position){k, k + s->a.w1, v};
}

static int64_t whole_blocks(fr_type t, int64_t n)
{
    return t == FR_TYPE_Q8_0 ? (n + 31) / 32 * 32 : n;
}

static scene open_scene(gpu_bench *b, attention a, int64_t n_pos, int64_t max_batch)
{
    scene s = {.a = a, .b = b};
    int64_t w = a.w1 + a.w2;
    s.k = open_cache(b, (cache_shape){a.type, w, whole_blocks(a.type, w), a.per_pos, a.window},
                     n_pos, max_batch);
    s.v.kv.type = a.type_v;
    if (a.own_v)
        s.v = open_cache(
            b, (cache_shape){a.type_v, a.wv, whole_blocks(a.type_v, a.wv), a.per_pos, a.window},
            n_pos, max_batch);
    return s;
}

static void close_scene(scene *s)
{
    close_cache(&s->k);
    if (s->a.own_v)
        close_cache(&s->v);
}

static void fill_queries(float *q, int64_t n, uint64_t seed)
{
    fill_random(q, n, 1, &seed);
}

/* Attention of n tokens from pos0 on; queries depend on the position only. */
static void run_attention(scene *s, int64_t pos0, int64_t n, float *out)
{
    fr_err err;
    const attention *a = &s->a;
    int64_t w = a->w1 + a->w2, ldq = a->n_heads * w, ldo = a->n_heads * a->wv;
    float *q = test_calloc((size_t)(n * ldq), sizeof *q);
    for (int64_t t = 0; t < n; t++)
        fill_queries(q + t * ldq, ldq, (uint64_t)(pos0 + t + 1));
    float *q_d = gpu_floats(s->b, q, n * ldq);
    fr_gpu_attn_args args = {.n_tokens = n,
                             .n_heads = a->n_heads,
                             .pos0 = pos0,
                             .wv = (int32_t)a->wv,
                             .scale = 0.7f,
                             .q1_d = q_d,
                             .q2_d = a->w2 ? q_d + a->w1 : NULL,
                             .ldq1 = ldq,
                             .q1_stride = w,
                             .ldq2 = ldq,
                             .q2_stride = w,
                             .w1 = a->w1,
                             .w2 = a->w2,
                             .o_d = gpu_floats(s->b, NULL, n * ldo),
                             .ldo = ldo,
                             .o_stride = a->wv,
                             .k = s->k.kv,
                             .v = s->v.kv};
    if (s->split) { /* room for two tokens */
        args.scratch_bytes = fr_gpu_attn_scratch_bytes(2, a->n_heads, a->wv) + 4;
        args.scratch_d = gpu_put(s->b, NULL, args.scratch_bytes);
    }
    assert_ok(s->b->gpu->attn(&args, s->b->s, &err));
    gpu_get(s->b, out, args.o_d, (size_t)(n * ldo) * sizeof *out);
    test_free(q);
}

static void check_tokens(const scene *s, int64_t pos0, int64_t n, const float *got)
{
    const attention *a = &s->a;
    widths w = {a->w1, a->w2, a->wv, 0.7f};
    int64_t ldq = a->n_heads * (a->w1 + a->w2);
    float *q = test_calloc((size_t)ldq, sizeof *q), *want = test_calloc((size_t)a->wv, sizeof *q);
    for (int64_t t = 0; t < n; t++) {
        fill_queries(q, ldq, (uint64_t)(pos0 + t + 1));
        for (int64_t h = 0; h < a->n_heads; h++) {
            attend(&w, pos0 + t, h, q + h * (a->w1 + a->w2), cached_rows, s, want);
            assert_close(got + (t * a->n_heads + h) * a->wv, want, a->wv, 0, 1e-5, "attn");
        }
    }
    test_free(q);
    test_free(want);
}

/* A sequence in batches; a negative size: so many tokens, before which the ring is forgotten but
 * for seven positions. Only the last `checked` batches attend. */
static void run_sequence(const fr_gpu *gpu, attention a, const int *batches, int n_batches,
                         int checked)
{
    gpu_bench b = gpu_open(gpu, ARENA);
    int64_t n_pos = 0, most = 0, pos0 = 0;
    for (int i = 0; i < n_batches; i++) {
        n_pos += abs(batches[i]);
        most = abs(batches[i]) > most ? abs(batches[i]) : most;
    }
    scene s = open_scene(&b, a, n_pos, most);
    for (int i = 0; i < n_batches; i++) {
        int64_t n = abs(batches[i]), n_out = n * a.n_heads * a.wv;
        if (batches[i] < 0)
            s.k.kv.exact_from = s.v.kv.exact_from = pos0 - 7;
        store(&b, &s.k, pos0, n, a.w1);
        if (a.own_v)
            store(&b, &s.v, pos0, n, a.wv);
        if (i >= n_batches - checked) {
            float *got = test_calloc((size_t)n_out, sizeof *got);
            float *again = test_calloc((size_t)n_out, sizeof *got);
            run_attention(&s, pos0, n, got);
            check_tokens(&s, pos0, n, got);
            s.split = true;
            run_attention(&s, pos0, n, again);
            assert_memory_equal(again, got, (size_t)n_out * sizeof *got);
            s.split = false;
            test_free(got);
            test_free(again);
        }
        if (a.per_pos == 1)
            check_load(&b, &s.k, 0, pos0 + n);
        keep(&b, &s.k, n);
        if (a.own_v)
            keep(&b, &s.v, n);
        pos0 += n;
    }
    close_scene(&s);
    gpu_close(&b);
}

/* Latent caches: heads share the rows. */
static void latent(const fr_gpu *gpu)
{
    static const int one[] = {1}, some[] = {31, 2}, deep[] = {65, 3};
    run_sequence(gpu, (attention){FR_TYPE_F32, FR_TYPE_F32, 1, 32, 0, 32, 1, 0, false}, one, 1, 1);
    run_sequence(gpu, (attention){FR_TYPE_F32, FR_TYPE_F32, 3, 64, 16, 64, 1, 0, false}, some, 2,
                 2);
    run_sequence(gpu, (attention){FR_TYPE_F16, FR_TYPE_F16, 9, 64, 16, 64, 1, 0, false}, deep, 2,
                 1);
    run_sequence(gpu, (attention){FR_TYPE_BF16, FR_TYPE_BF16, 2, 33, 7, 33, 1, 0, false}, deep, 2,
                 1);
    run_sequence(gpu, (attention){FR_TYPE_F16, FR_TYPE_F16, 17, 32, 5, 31, 1, 0, false}, some, 2,
                 1);
    run_sequence(gpu, (attention){FR_TYPE_Q8_0, FR_TYPE_Q8_0, 2, 96, 32, 96, 1, 0, false}, deep, 2,
                 1);
}

/* Rows of each head: tokens share them. */
static void per_head(const fr_gpu *gpu)
{
    static const int batches[] = {20, 2, 17, 70};
    run_sequence(gpu, (attention){FR_TYPE_F16, FR_TYPE_F16, 3, 24, 8, 20, 3, 0, true}, batches, 3,
                 3);
    run_sequence(gpu, (attention){FR_TYPE_Q8_0, FR_TYPE_Q8_0, 2, 32, 32, 32, 2, 0, true}, batches,
                 4, 2);
    run_sequence(gpu, (attention){FR_TYPE_Q8_0, FR_TYPE_F16, 2, 24, 6, 13, 2, 0, true}, batches, 3,
                 1);
}

/* Exact rows: batches shorter and longer than the window, a ring that goes round, one whose
 * beginning was forgotten. */
static void windows(const fr_gpu *gpu)
{
    static const int batches[] = {40, 1, 50, -3, 1, 70, 2}, few[] = {34, -3, 1, 35};
    run_sequence(gpu, (attention){FR_TYPE_Q8_0, FR_TYPE_Q8_0, 3, 32, 32, 32, 1, 32, false}, batches,
                 7, 7);
    run_sequence(gpu, (attention){FR_TYPE_F16, FR_TYPE_F16, 9, 20, 4, 20, 1, 64, false}, batches, 5,
                 2);
    run_sequence(gpu, (attention){FR_TYPE_BF16, FR_TYPE_BF16, 2, 33, 7, 33, 1, 32, false}, few, 4,
                 4);
    run_sequence(gpu, (attention){FR_TYPE_Q8_0, FR_TYPE_Q8_0, 2, 24, 8, 32, 2, 32, true}, few, 4,
                 4);
    run_sequence(gpu, (attention){FR_TYPE_F16, FR_TYPE_Q8_0, 2, 24, 8, 17, 2, 64, true}, batches, 5,
                 2);
}

/* Wide rows, and spans longer than the shortest. */
static void large(const fr_gpu *gpu)
{
    static const int shallow[] = {70, 1}, deep[] = {2047, 2};
    run_sequence(gpu, (attention){FR_TYPE_F16, FR_TYPE_F16, 16, 512, 64, 512, 1, 32, false},
                 shallow, 2, 1);
    run_sequence(gpu, (attention){FR_TYPE_F16, FR_TYPE_F16, 1, 520, 60, 520, 1, 0, false}, shallow,
                 2, 1);
    run_sequence(gpu, (attention){FR_TYPE_Q8_0, FR_TYPE_Q8_0, 1, 32, 0, 32, 1, 64, false}, deep, 2,
                 1);
}

/* All positions in batches that end at `cuts`; every token's result. */
static void run_cuts(const fr_gpu *gpu, attention a, const int64_t *cuts, int n_cuts, bool split,
                     float *out)
{
    gpu_bench b = gpu_open(gpu, ARENA);
    int64_t n_pos = cuts[n_cuts - 1], pos0 = 0;
    scene s = open_scene(&b, a, n_pos, n_pos);
    s.split = split;
    for (int i = 0; i < n_cuts; pos0 = cuts[i++]) {
        int64_t n = cuts[i] - pos0;
        store(&b, &s.k, pos0, n, a.w1);
        if (a.own_v)
            store(&b, &s.v, pos0, n, a.wv);
        run_attention(&s, pos0, n, out + pos0 * a.n_heads * a.wv);
        keep(&b, &s.k, n);
        if (a.own_v)
            keep(&b, &s.v, n);
    }
    close_scene(&s);
    gpu_close(&b);
}

/* A token's result does not depend on its batch. */
static void same_bits(const fr_gpu *gpu)
{
    enum { N = 81, WV = 20 };
    static const attention kinds[] = {
        {FR_TYPE_F16, FR_TYPE_F16, 2, WV, 4, WV, 1, 32, false},
        {FR_TYPE_F16, FR_TYPE_F16, 2, 24, 8, WV, 2, 32, true},
    };
    static const int64_t whole[] = {N}, cuts[] = {33, 34, 64, 80, N};
    static float a[N * 2 * WV], b[N * 2 * WV];
    for (size_t k = 0; k < 2; k++) {
        run_cuts(gpu, kinds[k], whole, 1, false, a);
        run_cuts(gpu, kinds[k], cuts, 5, true, b);
        assert_memory_equal(a, b, sizeof a);
    }
}

/* ---- from expanded chunks ------------------------------------------------------------------- */

typedef struct {
    int64_t n_heads, w1, w2, wv;
    const float *k1, *k2, *v; /* k1, v: n_heads rows a position, one number apart */
} expanded;

static rows_of_position expanded_rows(const void *user, int64_t p, int64_t h, int64_t t)
{
    const expanded *e = user;
    (void)t;
    return (rows_of_position){e->k1 + (p * e->n_heads + h) * (e->w1 + 1), e->k2 + p * e->w2,
                              e->v + (p * e->n_heads + h) * (e->wv + 1)};
}

/* Tokens [pos0, pos0 + n) over chunks that end at `ends`. */
static void run_expanded(gpu_bench *b, const expanded *e, const float *q, int64_t pos0, int64_t n,
                         const int64_t *ends, int n_ends, float *out)
{
    fr_err err;
    int64_t w = e->w1 + e->w2, ldq = e->n_heads * w, ldo = e->n_heads * e->wv + 3, from = 0;
    int64_t n_pos = pos0 + n, ldk = e->n_heads * (e->w1 + 1), ldv = e->n_heads * (e->wv + 1);
    float *q_d = gpu_floats(b, q, n * ldq);
    fr_gpu_attn_args args = {.n_tokens = n,
                             .n_heads = e->n_heads,
                             .pos0 = pos0,
                             .wv = (int32_t)e->wv,
                             .scale = 0.5f,
                             .q1_d = q_d,
                             .q2_d = e->w2 ? q_d + e->w1 : NULL,
                             .ldq1 = ldq,
                             .q1_stride = w,
                             .ldq2 = ldq,
                             .q2_stride = w,
                             .w1 = e->w1,
                             .w2 = e->w2,
                             .o_d = gpu_floats(b, NULL, n * ldo),
                             .ldo = ldo,
                             .o_stride = e->wv};
    const float *k1 = gpu_floats(b, e->k1, n_pos * ldk), *v = gpu_floats(b, e->v, n_pos * ldv);
    const float *k2 = e->w2 ? gpu_floats(b, e->k2, n_pos * e->w2) : NULL;
    float *state = gpu_floats(b, NULL, n * e->n_heads * 2);
    for (int i = 0; i < n_ends; from = ends[i++]) {
        fr_gpu_attn_chunk c = {.from = from,
                               .to = ends[i],
                               .first = i == 0,
                               .last = i == n_ends - 1,
                               .k1_d = k1 + from * ldk,
                               .k2_d = k2 ? k2 + from * e->w2 : NULL,
                               .v_d = v + from * ldv,
                               .ldk1 = ldk,
                               .k1_stride = e->w1 + 1,
                               .ldk2 = e->w2,
                               .ldv = ldv,
                               .v_stride = e->wv + 1,
                               .state_d = state};
        assert_ok(b->gpu->attn_expanded(&args, &c, b->s, &err));
    }
    float *padded = test_calloc((size_t)(n * ldo), sizeof *padded);
    gpu_get(b, padded, args.o_d, (size_t)(n * ldo) * sizeof *padded);
    for (int64_t t = 0; t < n; t++)
        memcpy(out + t * (ldo - 3), padded + t * ldo, (size_t)(ldo - 3) * sizeof *out);
    test_free(padded);
}

static float *random_floats(int64_t n, uint64_t *rng)
{
    float *x = test_calloc((size_t)n, sizeof *x);
    fill_random(x, n, 1, rng);
    return x;
}

static void check_expanded(const fr_gpu *gpu, int64_t pos0, int64_t n, expanded e)
{
    uint64_t rng = 31;
    int64_t n_pos = pos0 + n, w = e.w1 + e.w2, n_out = n * e.n_heads * e.wv;
    int64_t ends[] = {32, n_pos / 2 / 32 * 32, n_pos}, whole[] = {n_pos};
    int skip_ends = n_pos <= 32 ? 2 : ends[1] <= 32 ? 1 : 0;
    ends[1] = skip_ends == 1 ? 32 : ends[1];
    widths ws = {e.w1, e.w2, e.wv, 0.5};
    float *k1 = random_floats(n_pos * e.n_heads * (e.w1 + 1), &rng);
    float *k2 = random_floats(n_pos * e.w2 + 1, &rng), *q = random_floats(n * e.n_heads * w, &rng);
    float *v = random_floats(n_pos * e.n_heads * (e.wv + 1), &rng);
    float *got = random_floats(n_out, &rng), *again = random_floats(n_out, &rng);
    float *want = random_floats(e.wv, &rng);
    e.k1 = k1, e.k2 = k2, e.v = v;
    gpu_bench b = gpu_open(gpu, ARENA);
    run_expanded(&b, &e, q, pos0, n, whole, 1, got);
    run_expanded(&b, &e, q, pos0, n, ends + skip_ends, 3 - skip_ends, again);
    gpu_close(&b);
    assert_memory_equal(again, got, (size_t)n_out * sizeof *got);
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < e.n_heads; h++) {
            int64_t at = t * e.n_heads + h;
            attend(&ws, pos0 + t, h, q + at * w, expanded_rows, &e, want);
            assert_close(got + at * e.wv, want, e.wv, 0, 1e-5, "attn_expanded");
        }
    float *all[] = {k1, k2, q, v, got, again, want};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        test_free(all[i]);
}

static void chunks(const fr_gpu *gpu)
{
    check_expanded(gpu, 0, 1, (expanded){.n_heads = 1, .w1 = 8, .w2 = 0, .wv = 8});
    check_expanded(gpu, 0, 100, (expanded){.n_heads = 2, .w1 = 24, .w2 = 8, .wv = 20});
    check_expanded(gpu, 61, 70, (expanded){.n_heads = 1, .w1 = 33, .w2 = 7, .wv = 130});
    check_expanded(gpu, 40, 3, (expanded){.n_heads = 3, .w1 = 128, .w2 = 64, .wv = 128});
    check_expanded(gpu, 30, 5, (expanded){.n_heads = 1, .w1 = 10, .w2 = 3, .wv = 515});
}

/* ---- what the cache and the launchers refuse ------------------------------------------------ */

static void store_infinite(const fr_gpu *gpu)
{
    fr_err err;
    int32_t bad = 0;
    uint64_t rng = 5;
    float a_h[64], exact[64];
    gpu_bench b = gpu_open(gpu, ARENA);
    cache c = open_cache(&b, (cache_shape){FR_TYPE_F16, 32, 32, 1, 32}, 2, 2);
    fill_random(a_h, 64, 1, &rng);
    a_h[32 + 5] = INFINITY;
    a_h[3] = 1e9f; /* beyond f16: its greatest number is stored */
    fr_gpu_kv_store_args args = {.a_d = gpu_floats(&b, a_h, 64),
                                 .lda = 32,
                                 .a_width = 32,
                                 .n_tokens = 2,
                                 .not_finite_d = gpu_put(&b, &bad, sizeof bad),
                                 .dst = c.kv};
    uint16_t rows[64];
    assert_ok(gpu->kv_store(&args, b.s, &err));
    gpu_get(&b, &bad, args.not_finite_d, sizeof bad);
    gpu_get(&b, rows, c.kv.base_d, sizeof rows);
    gpu_get(&b, exact, c.kv.staged_d, sizeof exact);
    assert_int_equal(bad, 1);
    assert_int_equal(rows[3], 0x7BFF);
    assert_true(exact[3] == 1e9f);
    for (int i = 32; i < 64; i++)
        assert_true(rows[i] == 0 && exact[i] == 0);
    close_cache(&c);
    gpu_close(&b);
}

static void refusals(const fr_gpu *gpu)
{
    fr_err err;
    gpu_bench b = gpu_open(gpu, ARENA);
    cache c = open_cache(&b, (cache_shape){FR_TYPE_F16, 32, 32, 1, 32}, 2, 2);
    fr_gpu_attn_args args = {.n_tokens = 1, .n_heads = 1, .wv = 1025, .k = c.kv};
    assert_int_equal(gpu->attn(&args, b.s, &err), FR_EINTERNAL);
    args.wv = 32;
    args.k.window = 33;
    assert_int_equal(gpu->attn(&args, b.s, &err), FR_EINTERNAL);
    args.k = c.kv;
    args.k.type = FR_TYPE_Q4_K;
    assert_int_equal(gpu->attn(&args, b.s, &err), FR_EINTERNAL);
    fr_gpu_attn_chunk chunk = {.from = 1, .to = 2, .first = 1, .last = 1};
    assert_int_equal(gpu->attn_expanded(&args, &chunk, b.s, &err), FR_EINTERNAL);
    c.kv.per_pos = 2;
    assert_int_equal(gpu->kv_load(&c.kv, 0, 1, c.kv.staged_d, b.s, &err), FR_EINTERNAL);
    close_cache(&c);
    gpu_close(&b);
}

#define TEST(name)                                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        on_every_gpu(name);                                                                        \
    }
TEST(latent)
TEST(per_head)
TEST(windows)
TEST(large)
TEST(same_bits)
TEST(chunks)
TEST(store_infinite)
TEST(refusals)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latent),         cmocka_unit_test(test_per_head),
        cmocka_unit_test(test_windows),        cmocka_unit_test(test_large),
        cmocka_unit_test(test_same_bits),      cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_store_infinite), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
