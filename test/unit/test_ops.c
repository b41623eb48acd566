/* The small operations of a forward pass (cpu/ops.h) against naive ones in double, with odd sizes,
 * rows that do not touch, one thread and three. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "cpu/kernels.h"
#include "cpu/norm.h"
#include "cpu/ops.h"

static uint64_t rng = 99;
static fr_cpu *cpus[4]; /* scalar and best tier, 1 and 3 threads */

enum { N_CPUS = 4, MOST = 1 << 17 };

static float buf_a[MOST], buf_b[MOST], buf_y[MOST];

static int setup(void **state)
{
    (void)state;
    fr_err err = {0};
    for (int i = 0; i < N_CPUS; i++) {
        fr_cpu_config cfg = {.n_threads = i % 2 ? 3 : 1,
                             .max_isa = i < 2 ? FR_ISA_SCALAR : FR_ISA_AUTO};
        assert_ok(fr_cpu_open(&cfg, &cpus[i], &err));
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_CPUS; i++)
        fr_cpu_close(cpus[i]);
    assert_int_equal(fr_mem_total().bytes_now, 0);
    return 0;
}

static void fill(float *x, int64_t n, float size)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = size * test_rand_f(&rng);
}

static int64_t below(int64_t n)
{
    return (int64_t)((test_rand(&rng) >> 11) % (uint64_t)n);
}

static void assert_near(double found, double expected, double bound, const char *what, int64_t at)
{
    if (!(fabs(found - expected) <= bound))
        fail_msg("%s: at %lld found %.9g, expected %.9g within %.3g", what, (long long)at, found,
                 expected, bound);
}

/* ---- rows and elements
 * ---------------------------------------------------------------------------------- */

static const int64_t widths[] = {1, 2, 3, 7, 8, 9, 31, 33, 64, 127, 1000, 4099};

enum { N_WIDTHS = sizeof widths / sizeof *widths };

static void check_norm(fr_cpu *cpu, int64_t cols, int64_t n_tokens, bool in_place)
{
    const float eps = 1e-3f;
    int64_t ldx = cols + 5, ldy = in_place ? ldx : cols + 2;
    static float w[4099], y[MOST];
    fill(buf_a, n_tokens * ldx, 3);
    fill(w, cols, 2);
    memcpy(y, buf_a, sizeof y);
    float *out = in_place ? y : buf_y;
    memset(buf_y, 0x7F, sizeof buf_y);
    fr_cpu_rms_norm(cpu, y, ldx, n_tokens, cols, w, eps, out, ldy);
    for (int64_t t = 0; t < n_tokens; t++) {
        double sum = 0;
        for (int64_t i = 0; i < cols; i++)
            sum += (double)buf_a[t * ldx + i] * (double)buf_a[t * ldx + i];
        double scale = 1 / sqrt(sum / (double)cols + (double)eps);
        for (int64_t i = 0; i < cols; i++) {
            double expected = (double)buf_a[t * ldx + i] * scale * (double)w[i];
            assert_near((double)out[t * ldy + i], expected, fabs(expected) * 0x1p-22, "rms_norm",
                        i);
        }
        if (in_place) /* what lies between the rows is not touched */
            assert_memory_equal(y + t * ldx + cols, buf_a + t * ldx + cols, 5 * sizeof *y);
    }
}

static void test_rms_norm(void **state)
{
    (void)state;
    for (int c = 0; c < N_CPUS; c++)
        for (int i = 0; i < N_WIDTHS; i++)
            for (int64_t n = 1; n <= 13; n += 4) {
                check_norm(cpus[c], widths[i], n, false);
                check_norm(cpus[c], widths[i], n, true);
            }
}

/* Wide registers give the same bits, huge and subnormal numbers included. */
static void test_norm_tiers(void **state)
{
    (void)state;
    static const float sizes[] = {1.0f, 1e30f, 1e-42f, 3e-20f};
    if (cpu_isa_detect() == FR_ISA_SCALAR)
        skip();
    for (int i = 0; i < N_WIDTHS; i++)
        for (int k = 0; k < 4; k++) {
            int64_t n = widths[i];
            float *wide = buf_y + n;
            fill(buf_a, n, sizes[k]);
            fill(buf_b, n, 2.0f);
            cpu_norm_base(buf_a, buf_b, n, 1e-6f, buf_y);
            cpu_norm_avx2(buf_a, buf_b, n, 1e-6f, wide);
            assert_memory_equal(wide, buf_y, (size_t)n * sizeof *wide);
        }
}

/* The same bits as one after the other. */
static void check_add_norm(fr_cpu *cpu, int64_t cols, int64_t n_tokens, bool two)
{
    static float w[4099], x[MOST], y[MOST];
    int64_t n = n_tokens * cols, ldy = cols + 3;
    fill(buf_a, n, 3);
    fill(buf_b, n, 3);
    fill(w, cols, 2);
    memcpy(x, buf_a, (size_t)n * sizeof *x);
    fr_cpu_add(cpu, buf_a, buf_b, n, buf_a);
    if (two)
        fr_cpu_add(cpu, buf_a, buf_b, n, buf_a);
    memset(buf_y, 0x7F, sizeof buf_y);
    memset(y, 0x7F, sizeof y);
    fr_cpu_rms_norm(cpu, buf_a, cols, n_tokens, cols, w, 1e-3f, buf_y, ldy);
    fr_cpu_add_norm(cpu, &(fr_cpu_add_norm_args){x, buf_b, two ? buf_b : NULL, n_tokens, cols, w,
                                                 1e-3f, y, ldy});
    assert_memory_equal(x, buf_a, (size_t)n * sizeof *x);
    assert_memory_equal(y, buf_y, sizeof y);
}

static void test_add_norm(void **state)
{
    (void)state;
    for (int c = 0; c < N_CPUS; c++)
        for (int i = 0; i < N_WIDTHS; i++)
            for (int64_t n = 1; n <= 13; n += 4)
                check_add_norm(cpus[c], widths[i], n, n % 8 == 1);
}

static void check_rope(fr_cpu *cpu, int64_t heads, int64_t n_rot, int64_t n_tokens)
{
    int64_t stride = n_rot + 3, ldx = heads * stride + 1;
    static float turns[8192];
    fill(buf_a, n_tokens * ldx, 3);
    for (int64_t i = 0; i < n_tokens * n_rot; i += 2) {
        double angle = 100 * (double)test_rand_f(&rng);
        turns[i] = (float)cos(angle);
        turns[i + 1] = (float)sin(angle);
    }
    memcpy(buf_y, buf_a, sizeof buf_y);
    fr_cpu_rope(cpu, buf_y, ldx, n_tokens, heads, stride, n_rot, turns);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t h = 0; h < heads; h++) {
            const float *x = buf_a + t * ldx + h * stride, *y = buf_y + t * ldx + h * stride;
            const float *turn = turns + t * n_rot;
            for (int64_t i = 0; i < n_rot; i += 2) {
                double re = (double)x[i], im = (double)x[i + 1];
                double c = (double)turn[i], s = (double)turn[i + 1];
                double bound = (fabs(re) + fabs(im)) * 0x1p-22;
                assert_near((double)y[i], re * c - im * s, bound, "rope", i);
                assert_near((double)y[i + 1], re * s + im * c, bound, "rope", i + 1);
            }
            assert_memory_equal(y + n_rot, x + n_rot, 3 * sizeof *x);
        }
}

static void test_rope(void **state)
{
    (void)state;
    static const int64_t rotated[] = {2, 4, 6, 14, 64, 66};
    for (int c = 0; c < N_CPUS; c++)
        for (int i = 0; i < 6; i++) {
            check_rope(cpus[c], 1, rotated[i], 1);
            check_rope(cpus[c], 5, rotated[i], 7);
            check_rope(cpus[c], 16, rotated[i], 31);
        }
}

static void check_pairs(fr_cpu *cpu, int64_t n)
{
    fill(buf_a, n, 8);
    fill(buf_b, n, 3);
    buf_a[0] = -100; /* exp overflows a float */
    buf_y[n] = 7;
    fr_cpu_add(cpu, buf_a, buf_b, n, buf_y);
    for (int64_t i = 0; i < n; i++)
        assert_true(buf_y[i] == buf_a[i] + buf_b[i]);
    fr_cpu_swiglu(cpu, buf_a, buf_b, n, buf_y);
    for (int64_t i = 0; i < n; i++) {
        double g = (double)buf_a[i], expected = g / (1 + exp(-g)) * (double)buf_b[i];
        assert_near((double)buf_y[i], expected, fabs(expected) * 0x1p-21 + 1e-37, "swiglu", i);
    }
    assert_true(buf_y[n] == 7);
    memcpy(buf_y, buf_a, (size_t)n * sizeof *buf_y);
    fr_cpu_add(cpu, buf_y, buf_b, n, buf_y); /* onto the first operand */
    for (int64_t i = 0; i < n; i++)
        assert_true(buf_y[i] == buf_a[i] + buf_b[i]);
}

static void test_pairs(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 5, 31, 4095, 4096, 4097, 16383, 16385, 60001};
    for (int c = 0; c < N_CPUS; c++)
        for (int i = 0; i < 9; i++)
            check_pairs(cpus[c], sizes[i]);
}

static void test_embed(void **state)
{
    (void)state;
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_Q8_0};
    enum { COLS = 96, ROWS = 50 };
    static uint8_t data[ROWS * COLS * 4];
    int32_t ids[40];
    float row[COLS];
    for (int i = 0; i < 3; i++) {
        fr_weight w = fr_weight_make(types[i], FR_LAYOUT_PLAIN, COLS, ROWS, 1);
        size_t row_bytes = fr_row_bytes(types[i], FR_LAYOUT_PLAIN, COLS);
        for (int r = 0; r < ROWS; r++) {
            fill(row, COLS, 1);
            fr_encode_row(types[i], row, COLS, NULL, data + (size_t)r * row_bytes);
        }
        w.data = data;
        for (int t = 0; t < 40; t++)
            ids[t] = (int32_t)below(ROWS);
        for (int c = 0; c < N_CPUS; c++) {
            fr_cpu_embed(cpus[c], &w, ids, 40, buf_y, COLS + 1);
            for (int t = 0; t < 40; t++) {
                fr_decode_row(types[i], FR_LAYOUT_PLAIN, data, ids[t], COLS, row);
                assert_memory_equal(buf_y + t * (COLS + 1), row, sizeof row);
            }
        }
    }
}

/* ---- router
 * -----------------------------------------------------------------------------------------------
 */

enum { MAX_EXPERTS = 64 };

static double naive_scores[MAX_EXPERTS];

static void score(const fr_cpu_router_args *a, const float *logits)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < a->n_expert; i++)
        max = fmax(max, (double)logits[i]);
    for (int64_t i = 0; i < a->n_expert; i++)
        sum += exp((double)logits[i] - max);
    for (int64_t i = 0; i < a->n_expert; i++)
        naive_scores[i] =
            a->sigmoid ? 1 / (1 + exp(-(double)logits[i])) : exp((double)logits[i] - max) / sum;
}

/* Indices of the n largest, ties to the lower index. False when two numbers around the border, or
 * in the order, are nearer than rounding could tell apart without being equal. */
static bool largest(const double *x, int64_t n, int64_t n_best, int64_t *best)
{
    bool taken[MAX_EXPERTS] = {false}, sure = true;
    for (int64_t k = 0; k < n_best; k++) {
        best[k] = -1;
        for (int64_t i = 0; i < n; i++)
            if (!taken[i] && (best[k] < 0 || x[i] > x[best[k]]))
                best[k] = i;
        taken[best[k]] = true;
        for (int64_t i = 0; i < n; i++)
            if (!taken[i] && x[i] != x[best[k]] && fabs(x[i] - x[best[k]]) < 1e-5)
                sure = false;
    }
    return sure;
}

static double judge_group(const fr_cpu_router_args *a, const double *choice)
{
    int64_t per = a->n_expert / a->n_groups, best[2];
    largest(choice, per, per > 1 ? 2 : 1, best);
    return choice[best[0]] + (a->bias && per > 1 ? choice[best[1]] : 0);
}

/* The papers' rules, step by step. False when rounding decides. */
static bool naive_route(const fr_cpu_router_args *a, const float *logits, int64_t *ids,
                        double *weights)
{
    double choice[MAX_EXPERTS], groups[MAX_EXPERTS], sum = 0;
    int64_t best[MAX_EXPERTS], per = a->n_expert / a->n_groups;
    score(a, logits);
    for (int64_t i = 0; i < a->n_expert; i++)
        choice[i] = naive_scores[i] + (a->bias ? (double)a->bias[i] : 0);
    for (int64_t g = 0; g < a->n_groups; g++)
        groups[g] = judge_group(a, choice + g * per);
    if (!largest(groups, a->n_groups, a->n_groups_used, best))
        return false;
    double allowed[MAX_EXPERTS];
    for (int64_t i = 0; i < a->n_expert; i++)
        allowed[i] = -1e9;
    for (int64_t k = 0; k < a->n_groups_used; k++)
        memcpy(allowed + best[k] * per, choice + best[k] * per, (size_t)per * sizeof *choice);
    if (!largest(allowed, a->n_expert, a->n_used, ids))
        return false;
    for (int64_t k = 0; k < a->n_used; k++)
        sum += naive_scores[ids[k]];
    for (int64_t k = 0; k < a->n_used; k++)
        weights[k] = naive_scores[ids[k]] * (double)a->scale / (a->norm ? sum : 1);
    return true;
}

static void random_router(fr_cpu_router_args *a, float *logits, float *bias)
{
    /* few different numbers: ties are frequent; no two sums of them are near to one another */
    static const float steps[] = {0.11f, 0.43f, 0.97f, 1.71f, 2.39f, -0.59f};
    static const float biases[] = {0, 0.0137f, -0.273f, 0.319f};
    static const int64_t groups[] = {1, 1, 2, 4, 8};
    bool ties = below(2);
    a->n_groups = groups[below(5)];
    a->n_expert = a->n_groups * (1 + below(8));
    a->n_groups_used = 1 + below(a->n_groups);
    a->n_used = 1 + below(a->n_expert / a->n_groups * a->n_groups_used);
    a->n_tokens = below(3) ? 1 + below(5) : 400;
    a->sigmoid = below(2);
    a->norm = below(2);
    a->scale = below(2) ? 1.0f : 2.5f;
    for (int64_t i = 0; i < a->n_tokens * a->n_expert; i++)
        logits[i] = ties ? steps[below(6)] : 3 * test_rand_f(&rng);
    for (int64_t i = 0; i < a->n_expert; i++)
        bias[i] = ties ? biases[below(4)] : 0.3f * test_rand_f(&rng);
    a->bias = below(2) ? bias : NULL;
}

static void test_router(void **state)
{
    (void)state;
    static float logits[400 * MAX_EXPERTS], scores[400 * MAX_EXPERTS], bias[MAX_EXPERTS];
    static float weights[400 * MAX_EXPERTS], scratch[400 * 2 * MAX_EXPERTS];
    static int32_t ids[400 * MAX_EXPERTS];
    int64_t n_checked = 0, n_unsure = 0;
    for (int round = 0; round < 2000; round++) {
        fr_cpu_router_args a = {.logits = logits,
                                .scores = below(2) ? scores : logits,
                                .ids = ids,
                                .weights = weights,
                                .scratch = scratch};
        random_router(&a, logits, bias);
        static float kept[400 * MAX_EXPERTS];
        memcpy(kept, logits, sizeof kept);
        fr_cpu_router(cpus[round % N_CPUS], &a);
        for (int64_t t = 0; t < a.n_tokens; t++) {
            int64_t want_ids[MAX_EXPERTS];
            double want[MAX_EXPERTS];
            n_checked++;
            if (!naive_route(&a, kept + t * a.n_expert, want_ids, want)) {
                n_unsure++;
                continue;
            }
            for (int64_t k = 0; k < a.n_used; k++) {
                assert_int_equal(ids[t * a.n_used + k], want_ids[k]);
                assert_near((double)weights[t * a.n_used + k], want[k], fabs(want[k]) * 2e-6,
                            "router weight", k);
            }
        }
    }
    assert_true(n_unsure * 20 < n_checked);
}

/* Whatever the logits are, the ids are different experts: the products index by them. */
static void test_router_without_numbers(void **state)
{
    (void)state;
    static const float evil[] = {NAN, INFINITY, -INFINITY, 3e38f, 0, 1};
    float logits[32], weights[32], scratch[64], bias[32];
    int32_t ids[32];
    for (int round = 0; round < 20000; round++) {
        int64_t groups = (int64_t)1 << below(4), per = 1 + below(4);
        fr_cpu_router_args a = {.n_tokens = 1,
                                .n_expert = groups * per,
                                .n_groups = groups,
                                .n_groups_used = 1 + below(groups),
                                .sigmoid = below(2),
                                .norm = below(2),
                                .scale = 1,
                                .logits = logits,
                                .scores = logits,
                                .bias = below(2) ? bias : NULL,
                                .ids = ids,
                                .weights = weights,
                                .scratch = scratch};
        a.n_used = 1 + below(per * a.n_groups_used);
        int64_t kinds = 1 + below(6);
        for (int64_t i = 0; i < a.n_expert; i++) {
            logits[i] = evil[below(kinds)];
            bias[i] = below(3) ? 0.1f : evil[below(6)];
        }
        fr_cpu_router(cpus[round % N_CPUS], &a);
        uint32_t seen = 0;
        for (int64_t k = 0; k < a.n_used; k++) {
            assert_in_range(ids[k], 0, a.n_expert - 1);
            assert_false(seen >> ids[k] & 1);
            seen |= 1u << ids[k];
        }
    }
}

/* ---- attention
 * ------------------------------------------------------------------------------------------ */

/* Sizes of a case; a latent cache has one row a position, whose first wv numbers are V. */
typedef struct {
    bool latent;
    fr_type type;
    int64_t heads, w1, w2, wv, window;
} attn_case;

enum { MAX_POS = 150, MAX_ROW = 3 * 64 };

/* K and V as given, and as the cache gives them back. */
static float k_exact[MAX_POS][MAX_ROW], k_read[MAX_POS][MAX_ROW];
static float v_exact[MAX_POS][MAX_ROW], v_read[MAX_POS][MAX_ROW];
static float queries[MAX_POS][3 * 64];

static void through_type(fr_type type, const float *row, int64_t width, int64_t stored, float *out)
{
    float padded[64] = {0}, decoded[64];
    uint8_t coded[256];
    memcpy(padded, row, (size_t)width * sizeof *row);
    fr_encode_row(type, padded, stored, NULL, coded);
    fr_decode_row(type, FR_LAYOUT_PLAIN, coded, 0, stored, decoded);
    memcpy(out, decoded, (size_t)width * sizeof *out);
}

static void naive_attention(const attn_case *c, int64_t t, int64_t h, double scale, double *out)
{
    double p[MAX_POS], sum = 0, max = -INFINITY;
    int64_t wk = c->w1 + c->w2, k_at = c->latent ? 0 : h * wk, v_at = c->latent ? 0 : h * c->wv;
    for (int64_t i = 0; i <= t; i++) {
        const float *k = i > t - c->window ? k_exact[i] : k_read[i];
        p[i] = 0;
        for (int64_t j = 0; j < wk; j++)
            p[i] += (double)queries[t][h * wk + j] * (double)k[k_at + j];
        p[i] *= scale;
        max = fmax(max, p[i]);
    }
    for (int64_t i = 0; i <= t; i++)
        sum += p[i] = exp(p[i] - max);
    for (int64_t j = 0; j < c->wv; j++)
        out[j] = 0;
    for (int64_t i = 0; i <= t; i++) {
        bool exact = i > t - c->window;
        const float *v =
            c->latent ? (exact ? k_exact[i] : k_read[i]) : (exact ? v_exact[i] : v_read[i]);
        for (int64_t j = 0; j < c->wv; j++)
            out[j] += p[i] / sum * (double)v[v_at + j];
    }
}

static fr_cpu_kv make_rows(const attn_case *c, int64_t width, int64_t per_pos, uint8_t *base,
                           float *recent, float *staged)
{
    int64_t block = fr_type_get(c->type)->weights, stored = (width + block - 1) / block * block;
    return (fr_cpu_kv){.type = c->type,
                       .width = width,
                       .stored = stored,
                       .per_pos = per_pos,
                       .row_bytes = fr_row_bytes(c->type, FR_LAYOUT_PLAIN, stored),
                       .base = base,
                       .window = c->window,
                       .recent = recent,
                       .staged = staged};
}

static void fill_case(const attn_case *c, const fr_cpu_kv *k, const fr_cpu_kv *v)
{
    int64_t wk = c->w1 + c->w2, rows = c->latent ? 1 : c->heads;
    for (int64_t i = 0; i < MAX_POS; i++) {
        fill(queries[i], c->heads * wk, 1);
        for (int64_t h = 0; h < rows; h++) {
            fill(k_exact[i] + h * wk, wk, 1);
            fill(v_exact[i] + h * c->wv, c->wv, 1);
            if (h > 0) /* the rotated part is shared by all heads */
                memcpy(k_exact[i] + h * wk + c->w1, k_exact[i] + c->w1,
                       (size_t)c->w2 * sizeof(float));
            through_type(c->type, k_exact[i] + h * wk, wk, k->stored, k_read[i] + h * wk);
            if (v->base)
                through_type(c->type, v_exact[i] + h * c->wv, c->wv, v->stored,
                             v_read[i] + h * c->wv);
        }
    }
}

static void check_batch(fr_cpu *cpu, const attn_case *c, fr_cpu_kv *k, fr_cpu_kv *v, int64_t pos0,
                        int64_t n)
{
    static uint8_t scratch[1 << 19];
    static float o[MAX_POS][3 * 64], state[MAX_POS * 3 * 2], row[3 * 64];
    int64_t wk = c->w1 + c->w2;
    k->pos0 = v->pos0 = pos0;
    k->exact_from = v->exact_from = pos0 > c->window ? pos0 - c->window : 0;
    fr_cpu_kv_store_args store = {.a = k_exact[pos0],
                                  .lda = MAX_ROW,
                                  .a_width = c->w1,
                                  .a_stride = wk,
                                  .b = k_exact[pos0] + c->w1,
                                  .ldb = MAX_ROW,
                                  .b_width = c->w2,
                                  .n_tokens = n,
                                  .pos0 = pos0,
                                  .dst = *k,
                                  .scratch = row};
    assert_true(fr_cpu_kv_store(cpu, &store));
    if (v->base) {
        store.a = v_exact[pos0];
        store.a_width = store.a_stride = c->wv;
        store.b_width = 0;
        store.dst = *v;
        assert_true(fr_cpu_kv_store(cpu, &store));
    }
    fr_cpu_attn_args args = {.n_tokens = n,
                             .n_heads = c->heads,
                             .pos0 = pos0,
                             .scale = 0.3f,
                             .q1 = queries[pos0],
                             .ldq1 = 3 * 64,
                             .q1_stride = wk,
                             .w1 = c->w1,
                             .q2 = queries[pos0] + c->w1,
                             .ldq2 = 3 * 64,
                             .q2_stride = wk,
                             .w2 = c->w2,
                             .wv = c->wv,
                             .o = o[0],
                             .ldo = 3 * 64,
                             .o_stride = c->wv,
                             .state = state};
    assert_true(fr_cpu_attn_cached_bytes(cpu, &args, k, v) <= sizeof scratch);
    fr_cpu_attn_cached(cpu, &args, k, v, scratch);
    fr_cpu_kv_keep(k, n);
    if (v->base)
        fr_cpu_kv_keep(v, n);
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < c->heads; h++) {
            double expected[64];
            naive_attention(c, pos0 + t, h, (double)0.3f, expected);
            for (int64_t j = 0; j < c->wv; j++)
                assert_near((double)o[t][h * c->wv + j], expected[j], 3e-6, "attention", pos0 + t);
        }
}

static void check_cached(fr_cpu *cpu, const attn_case *c)
{
    static uint8_t k_base[MAX_POS * 3 * 64 * 4], v_base[MAX_POS * 3 * 64 * 4];
    static float recent_k[MAX_POS * MAX_ROW], recent_v[MAX_POS * MAX_ROW];
    static float staged_k[MAX_POS * MAX_ROW], staged_v[MAX_POS * MAX_ROW];
    static const int64_t batches[] = {1, 1, 3, 33, 1, 40, 1, 1, 64, 5};
    int64_t rows = c->latent ? 1 : c->heads, pos = 0;
    fr_cpu_kv k = make_rows(c, c->w1 + c->w2, rows, k_base, recent_k, staged_k);
    fr_cpu_kv v =
        make_rows(c, c->latent ? 0 : c->wv, rows, c->latent ? NULL : v_base, recent_v, staged_v);
    fill_case(c, &k, &v);
    for (int i = 0; i < 10; i++) {
        check_batch(cpu, c, &k, &v, pos, batches[i]);
        pos += batches[i];
    }
}

static void test_attention_from_the_cache(void **state)
{
    (void)state;
    static const attn_case cases[] = {
        {true, FR_TYPE_F32, 3, 17, 6, 17, 0},   {true, FR_TYPE_F16, 3, 17, 6, 17, 0},
        {true, FR_TYPE_F16, 2, 16, 8, 16, 32},  {true, FR_TYPE_Q8_0, 3, 33, 2, 33, 64},
        {true, FR_TYPE_Q8_0, 1, 1, 2, 1, 0},    {true, FR_TYPE_BF16, 3, 40, 24, 40, 96},
        {false, FR_TYPE_F32, 3, 7, 2, 5, 0},    {false, FR_TYPE_F16, 3, 15, 4, 9, 32},
        {false, FR_TYPE_Q8_0, 2, 20, 4, 1, 0},  {false, FR_TYPE_F16, 1, 32, 32, 64, 128},
        {true, FR_TYPE_Q4_0, 3, 40, 24, 40, 0}, {true, FR_TYPE_Q6_0, 2, 48, 16, 48, 32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int c = 0; c < N_CPUS; c++)
            check_cached(cpus[c], &cases[i]);
}

/* ---- the same bits for any batch and threads, over many spans of positions
 * -------------------------- */

enum { LONG = 2500, LONG_HEADS = 5, LONG_W = 80, LONG_V = 64, LONG_TAIL = 50 };

static float long_rows[LONG][LONG_W], long_q[LONG_TAIL][LONG_HEADS * LONG_W];

/* The last LONG_TAIL tokens, `batch` at a time; as `plain` every head has a K and V of its own. */
static void attend_long(fr_cpu *cpu, bool plain, int64_t batch, float *o)
{
    static float base[LONG_HEADS * LONG][LONG_W], recent[32 * LONG_HEADS * LONG_W];
    static float staged[LONG_TAIL * LONG_HEADS * LONG_W], scratch[1 << 20];
    int64_t per_pos = plain ? LONG_HEADS : 1, row_floats = per_pos * LONG_W;
    fr_cpu_kv k = {.type = FR_TYPE_F32,
                   .width = LONG_W,
                   .stored = LONG_W,
                   .per_pos = per_pos,
                   .row_bytes = LONG_W * sizeof(float),
                   .base = (uint8_t *)base,
                   .window = 32,
                   .recent = recent,
                   .staged = staged};
    fr_cpu_kv v = {.base = NULL};
    for (int64_t i = 0; i < LONG * per_pos; i++)
        memcpy(base[i], long_rows[i / per_pos], sizeof base[i]);
    if (plain)
        v = k;
    for (int64_t t = 0; t < LONG_TAIL; t += batch) {
        int64_t n = t + batch < LONG_TAIL ? batch : LONG_TAIL - t, pos0 = LONG - LONG_TAIL + t;
        k.pos0 = v.pos0 = pos0;
        k.exact_from = v.exact_from = pos0 - k.window;
        for (int64_t i = pos0 - k.window; i < pos0; i++)
            memcpy(recent + i % k.window * row_floats, base[i * per_pos],
                   (size_t)row_floats * sizeof(float));
        memcpy(staged, base[pos0 * per_pos], (size_t)(n * row_floats) * sizeof(float));
        fr_cpu_attn_args a = {.n_tokens = n,
                              .n_heads = LONG_HEADS,
                              .pos0 = pos0,
                              .scale = 0.4f,
                              .q1 = long_q[t],
                              .ldq1 = LONG_HEADS * LONG_W,
                              .q1_stride = LONG_W,
                              .w1 = LONG_W,
                              .wv = LONG_V,
                              .o = o + t * LONG_HEADS * LONG_V,
                              .ldo = LONG_HEADS * LONG_V,
                              .o_stride = LONG_V};
        assert_true(fr_cpu_attn_cached_bytes(cpu, &a, &k, &v) <= sizeof scratch);
        fr_cpu_attn_cached(cpu, &a, &k, &v, scratch);
    }
}

static void test_attention_bits(void **state)
{
    (void)state;
    static const int64_t batches[] = {1, 3, 17, LONG_TAIL};
    static float first[LONG_TAIL * LONG_HEADS * LONG_V], other[LONG_TAIL * LONG_HEADS * LONG_V];
    fill(long_rows[0], LONG * LONG_W, 1);
    fill(long_q[0], LONG_TAIL * LONG_HEADS * LONG_W, 1);
    for (int plain = 0; plain < 2; plain++)
        for (int c = 0; c < N_CPUS; c++)
            for (int b = 0; b < 4; b++) {
                bool reference = c % 2 == 0 && b == 0; /* one thread, one token */
                attend_long(cpus[c], plain, batches[b], reference ? first : other);
                if (!reference)
                    assert_memory_equal(first, other, sizeof first);
            }
}

/* NaN and infinity cannot be stored; the caller learns it, and the rows around them are whole. */
static void test_cache_refuses_nan(void **state)
{
    (void)state;
    static const float evil[] = {NAN, INFINITY, -INFINITY};
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_Q8_0, FR_TYPE_IQ4_NL};
    static uint8_t base[8 * 64 * 4];
    float a[8 * 32], b[8 * 8], row[3 * 64], back[64];
    for (int i = 0; i < 12; i++)
        for (int c = 0; c < N_CPUS; c++) {
            attn_case shape = {.latent = true, .type = types[i % 4]};
            fr_cpu_kv kv = make_rows(&shape, 40, 1, base, NULL, NULL);
            fr_cpu_kv_store_args store = {.a = a,
                                          .b = b,
                                          .lda = 32,
                                          .a_width = 32,
                                          .ldb = 8,
                                          .b_width = 8,
                                          .n_tokens = 8,
                                          .dst = kv,
                                          .scratch = row};
            fill(a, 8 * 32, 1);
            fill(b, 8 * 8, 1);
            assert_true(fr_cpu_kv_store(cpus[c], &store));
            if (i % 2)
                a[3 * 32 + 31] = evil[i / 4];
            else
                b[3 * 8 + 7] = evil[i / 4];
            assert_false(fr_cpu_kv_store(cpus[c], &store));
            for (int64_t t = 0; t < 8; t++) {
                fr_decode_row(kv.type, FR_LAYOUT_PLAIN, base + (size_t)t * kv.row_bytes, 0,
                              kv.stored, back);
                for (int64_t j = 0; j < 32; j++)
                    assert_near((double)back[j], t == 3 ? 0 : (double)a[t * 32 + j], 0.2, "row", t);
            }
        }
}

/* K and V as arrays, in chunks of any size that is a multiple of the block. */
static void check_expanded(fr_cpu *cpu, int64_t pos0, int64_t n, int64_t chunk_size)
{
    enum { HEADS = 3, W1 = 13, W2 = 6, WV = 11 };
    static float o[MAX_POS][HEADS * WV], state[MAX_POS * HEADS * 2], scratch[1 << 17];
    static float k1[MAX_POS][HEADS * W1], v[MAX_POS][HEADS * WV];
    const attn_case c = {.heads = HEADS, .w1 = W1, .w2 = W2, .wv = WV, .window = MAX_POS + 1};
    int64_t end = pos0 + n;
    for (int64_t i = 0; i < end; i++)
        for (int64_t h = 0; h < HEADS; h++) {
            memcpy(k1[i] + h * W1, k_exact[i] + h * (W1 + W2), W1 * sizeof(float));
            memcpy(v[i] + h * WV, v_exact[i] + h * WV, WV * sizeof(float));
        }
    fr_cpu_attn_args args = {.n_tokens = n,
                             .n_heads = HEADS,
                             .pos0 = pos0,
                             .scale = 0.3f,
                             .q1 = queries[pos0],
                             .ldq1 = 3 * 64,
                             .q1_stride = W1 + W2,
                             .w1 = W1,
                             .q2 = queries[pos0] + W1,
                             .ldq2 = 3 * 64,
                             .q2_stride = W1 + W2,
                             .w2 = W2,
                             .wv = WV,
                             .o = o[0],
                             .ldo = HEADS * WV,
                             .o_stride = WV,
                             .state = state};
    assert_true(fr_cpu_attn_expanded_bytes(cpu, &args) <= sizeof scratch);
    for (int64_t from = 0; from < end; from += chunk_size) {
        int64_t to = from + chunk_size < end ? from + chunk_size : end;
        fr_cpu_attn_expanded(cpu, &args,
                             &(fr_cpu_attn_chunk){.from = from,
                                                  .to = to,
                                                  .first = from == 0,
                                                  .last = to == end,
                                                  .k1 = k1[from],
                                                  .ldk1 = HEADS * W1,
                                                  .k1_stride = W1,
                                                  .k2 = k_exact[from] + W1,
                                                  .ldk2 = MAX_ROW,
                                                  .v = v[from],
                                                  .ldv = HEADS * WV,
                                                  .v_stride = WV},
                             scratch);
    }
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < HEADS; h++) {
            double expected[64];
            naive_attention(&c, pos0 + t, h, (double)0.3f, expected);
            for (int64_t j = 0; j < WV; j++)
                assert_near((double)o[t][h * WV + j], expected[j], 3e-6, "expanded", pos0 + t);
        }
}

static void test_expanded_attention(void **state)
{
    (void)state;
    static const int64_t chunks[] = {32, 64, 160};
    const attn_case c = {.type = FR_TYPE_F32, .heads = 3, .w1 = 13, .w2 = 6, .wv = 11};
    fr_cpu_kv rows = make_rows(&c, 19, 3, NULL, NULL, NULL);
    fill_case(&c, &rows, &rows);
    for (int i = 0; i < N_CPUS; i++)
        for (int s = 0; s < 3; s++) {
            check_expanded(cpus[i], 0, 1, chunks[s]);
            check_expanded(cpus[i], 0, 70, chunks[s]);
            check_expanded(cpus[i], 31, 2, chunks[s]);
            check_expanded(cpus[i], 97, 50, chunks[s]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rms_norm),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_router),
        cmocka_unit_test(test_router_without_numbers),
        cmocka_unit_test(test_attention_from_the_cache),
        cmocka_unit_test(test_attention_bits),
        cmocka_unit_test(test_cache_refuses_nan),
        cmocka_unit_test(test_expanded_attention),
        cmocka_unit_test(test_add_norm),
        cmocka_unit_test(test_norm_tiers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
