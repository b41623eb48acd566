/* Attention on the latent cache with many heads, which AVX-512 computes in integers of 16 bits:
 * against sums in double, with numbers that integers hardly hold, and against itself for other
 * batches, threads and instructions. */
#include "testing.h"

#include <float.h>
#include <math.h>

#include "base/mem.h"
#include "cpu/attn.h"

enum {
    HEADS = 20, /* most */
    W1 = 128,
    W2 = 64,
    W = W1 + W2,
    LONG = 1500,
    N_CPUS = 4,
};

typedef struct {
    fr_type type;
    int64_t heads, window, n_pos;
} shape;

static uint64_t rng = 11;
static fr_cpu *cpus[N_CPUS]; /* best tier with 1 and 5 threads, AVX2, scalar */
static float rows[LONG][W], seen_rows[LONG][W], queries[LONG][HEADS * W];
static uint8_t base[LONG * W * sizeof(float)];
static float recent[LONG * W], staged[LONG * W], out[LONG][HEADS * W1];

static int setup(void **state)
{
    (void)state;
    fr_err err = {0};
    static const fr_cpu_config cfg[N_CPUS] = {{.n_threads = 1, .max_isa = FR_ISA_AUTO},
                                              {.n_threads = 5, .max_isa = FR_ISA_AUTO},
                                              {.n_threads = 2, .max_isa = FR_ISA_AVX2},
                                              {.n_threads = 2, .max_isa = FR_ISA_SCALAR}};
    for (int i = 0; i < N_CPUS; i++)
        assert_ok(fr_cpu_open(&cfg[i], &cpus[i], &err));
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

/* ---- one batch */

static fr_cpu_kv cache_of(const shape *s, int64_t pos0)
{
    return (fr_cpu_kv){.type = s->type,
                       .width = W,
                       .stored = W,
                       .per_pos = 1,
                       .row_bytes = fr_row_bytes(s->type, FR_LAYOUT_PLAIN, W),
                       .base = base,
                       .window = s->window,
                       .recent = recent,
                       .staged = staged,
                       .pos0 = pos0,
                       .exact_from = pos0 > s->window ? pos0 - s->window : 0};
}

/* Tokens [from, from + n) into out. */
static void attend(fr_cpu *cpu, const shape *s, int64_t from, int64_t n)
{
    fr_cpu_kv k = cache_of(s, from), none = {.base = NULL};
    for (int64_t i = 0; i < s->n_pos; i++)
        fr_encode_row(s->type, rows[i], W, NULL, base + (size_t)i * k.row_bytes);
    for (int64_t i = k.exact_from; s->window && i < from; i++)
        memcpy(recent + i % s->window * W, rows[i], sizeof rows[i]);
    memcpy(staged, rows[from], (size_t)(n * W) * sizeof(float));
    fr_cpu_attn_args a = {.n_tokens = n,
                          .n_heads = s->heads,
                          .pos0 = from,
                          .scale = 0.1f,
                          .q1 = queries[from],
                          .ldq1 = HEADS * W,
                          .q1_stride = W,
                          .w1 = W1,
                          .q2 = queries[from] + W1,
                          .ldq2 = HEADS * W,
                          .q2_stride = W,
                          .w2 = W2,
                          .wv = W1,
                          .o = out[from],
                          .ldo = HEADS * W1,
                          .o_stride = W1};
    void *scratch = malloc(fr_cpu_attn_cached_bytes(cpu, &a, &k, &none));
    assert_non_null(scratch);
    memset(scratch, 0xFF, fr_cpu_attn_cached_bytes(cpu, &a, &k, &none)); /* not a number */
    fr_cpu_attn_cached(cpu, &a, &k, &none, scratch);
    free(scratch);
}

/* The largest error of token t in parts of the largest number of V. */
static double error_of(const shape *s, int64_t t)
{
    static double weight[LONG];
    double worst = 0, most = DBL_MIN;
    uint8_t coded[W * sizeof(float)];
    for (int64_t p = 0; p <= t; p++) {
        fr_encode_row(s->type, rows[p], W, NULL, coded);
        fr_decode_row(s->type, FR_LAYOUT_PLAIN, coded, 0, W, seen_rows[p]);
        if (p > t - s->window)
            memcpy(seen_rows[p], rows[p], sizeof rows[p]);
        for (int j = 0; j < W1; j++)
            most = fmax(most, fabs((double)seen_rows[p][j]));
    }
    for (int64_t h = 0; h < s->heads; h++) {
        double max = -INFINITY, sum = 0;
        for (int64_t p = 0; p <= t; p++) {
            weight[p] = 0;
            for (int j = 0; j < W; j++)
                weight[p] += (double)queries[t][h * W + j] * (double)seen_rows[p][j];
            max = fmax(max, weight[p] *= (double)0.1f);
        }
        for (int64_t p = 0; p <= t; p++)
            sum += weight[p] = exp(weight[p] - max);
        for (int j = 0; j < W1; j++) {
            double expected = 0;
            for (int64_t p = 0; p <= t; p++)
                expected += weight[p] / sum * (double)seen_rows[p][j];
            worst = fmax(worst, fabs((double)out[t][h * W1 + j] - expected));
        }
    }
    return worst / most;
}

/* ---- what rows may hold */

static void plain(void)
{
}

static void one_large_position(void)
{
    for (int j = 0; j < W; j++)
        rows[70][j] *= 1000.0f;
}

/* The same for all positions: it drops out of the softmax, and leaves few bits to the others. */
static void one_large_column(void)
{
    for (int i = 0; i < LONG; i++)
        rows[i][3] = 1000.0f;
}

static void large_rotated_part(void)
{
    for (int i = 0; i < LONG; i++)
        rows[i][W1 + 5] = 300.0f;
}

static void columns_of_all_sizes(void)
{
    for (int i = 0; i < LONG; i++)
        for (int j = 0; j < W; j++)
            rows[i][j] *= ldexpf(1.0f, -j % 20);
}

static void largest_f16(void)
{
    for (int i = 0; i < LONG; i += 13)
        rows[i][i % W] = 65504.0f;
}

static void equal_rows(void)
{
    for (int i = 1; i < LONG; i++)
        memcpy(rows[i], rows[0], sizeof rows[0]);
}

static void equal_numbers(void)
{
    for (int i = 0; i < LONG; i++)
        for (int j = 0; j < W; j++)
            rows[i][j] = 0.7f;
}

static void zeros(void)
{
    memset(rows[20], 0, sizeof rows[0] * 40);
    memset(queries[0], 0, sizeof queries / 2);
}

static void denormal_f16(void)
{
    for (int i = 0; i < LONG; i++)
        for (int j = 0; j < W; j++)
            rows[i][j] *= 3e-6f;
}

/* Beyond what integers are tried with, in formats that have it. */
static void tiny_and_huge(void)
{
    for (int j = 0; j < W; j++) {
        rows[33][j] *= 1e-30f;
        rows[34][j] *= 1e-38f;
        rows[90][j] *= 1e25f;
    }
}

static void wild_queries(void)
{
    for (int i = 0; i < LONG; i++) {
        queries[i][7] = 5000.0f;
        queries[i][2 * W + W1] = -1e20f;
        for (int j = 0; j < W; j++)
            queries[i][3 * W + j] *= 1e-25f;
    }
}

/* Scores so far apart that weights are 0 or 1. */
static void steep(void)
{
    for (int i = 0; i < LONG; i++)
        for (int j = 0; j < HEADS * W; j++)
            queries[i][j] *= 200.0f;
}

static void refill(void (*spoil)(void))
{
    fill(rows[0], LONG * W, 1);
    fill(queries[0], LONG * HEADS * W, 1);
    spoil();
}

/* Where scores are so large that rounding them moves weights, rows above the tolerance of attn.c
 * are computed in floats; it is an estimate, so twice as much is allowed. */
static const double GENTLE = 2e-4, STEEP = 4e-3;

static void test_against_sums_in_double(void **state)
{
    (void)state;
    static const shape shapes[] = {{FR_TYPE_F16, 16, 0, 150},  {FR_TYPE_F32, 16, 0, 150},
                                   {FR_TYPE_BF16, 20, 0, 150}, {FR_TYPE_Q8_0, 16, 32, 150},
                                   {FR_TYPE_F16, 20, 96, 150}, {FR_TYPE_Q4_0, 8, 0, 150}};
    static void (*const spoils[])(void) = {
        plain,
        one_large_position,
        one_large_column,
        large_rotated_part,
        zeros,
        largest_f16,
        equal_rows,
        equal_numbers,
        denormal_f16,
        tiny_and_huge,
        wild_queries,
        steep,
        columns_of_all_sizes,
    };
    for (size_t i = 0; i < sizeof spoils / sizeof *spoils; i++) {
        refill(spoils[i]);
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            bool wide = shapes[j].type == FR_TYPE_F32 || shapes[j].type == FR_TYPE_BF16;
            if (spoils[i] == tiny_and_huge && !wide)
                continue;
            for (int c = 0; c < N_CPUS; c++) {
                attend(cpus[c], &shapes[j], 149, 1);
                double error = error_of(&shapes[j], 149);
                bool steps = spoils[i] == one_large_position || spoils[i] == large_rotated_part ||
                             spoils[i] == wild_queries || spoils[i] == steep;
                if (!(error <= (steps ? STEEP : GENTLE)))
                    fail_msg("case %zu, shape %zu, cpu %d: error %g", i, j, c, error);
            }
        }
    }
}

static void test_many_tokens(void **state)
{
    (void)state;
    const shape s = {FR_TYPE_F16, 16, 0, 120};
    refill(one_large_position);
    for (int c = 0; c < 2; c++) {
        attend(cpus[c], &s, 0, 120);
        for (int64_t t = 0; t < 120; t += 7)
            assert_true(error_of(&s, t) <= STEEP);
    }
}

static void test_long_context(void **state)
{
    (void)state;
    const shape s = {FR_TYPE_F16, 16, 0, LONG};
    refill(plain);
    attend(cpus[0], &s, LONG - 1, 1);
    assert_true(error_of(&s, LONG - 1) <= 2e-5);
}

/* ---- the same bits */

static void test_bits(void **state)
{
    (void)state;
    enum { TAIL = 40 };
    static float first[TAIL][HEADS * W1];
    static const int64_t batches[] = {1, 3, 17, TAIL};
    static const shape shapes[] = {
        {FR_TYPE_F16, 16, 0, LONG}, {FR_TYPE_F16, 20, 64, LONG}, {FR_TYPE_Q8_0, 12, 96, LONG}};
    static void (*const spoils[])(void) = {plain, one_large_column, wild_queries};
    for (int i = 0; i < 9; i++) {
        const shape *s = &shapes[i % 3];
        refill(spoils[i / 3]);
        for (int c = 0; c < 2; c++)
            for (int b = 0; b < 4; b++) {
                for (int64_t t = 0; t < TAIL; t += batches[b]) {
                    int64_t n = t + batches[b] < TAIL ? batches[b] : TAIL - t;
                    attend(cpus[c], s, LONG - TAIL + t, n);
                }
                for (int64_t t = 0; t < TAIL; t++) {
                    size_t size = (size_t)(s->heads * W1) * sizeof(float);
                    if (c == 0 && b == 0)
                        memcpy(first[t], out[LONG - TAIL + t], size);
                    assert_memory_equal(first[t], out[LONG - TAIL + t], size);
                }
            }
    }
}

static void test_instructions_for_f16(void **state)
{
    (void)state;
    enum { N = 53 };
    if (fr_cpu_isa(cpus[0]) != FR_ISA_AVX512)
        skip();
    static const float sizes[] = {1e-6f, 1e-3f, 0.1f, 1.0f, 1e4f};
    static uint16_t k[N][W];
    static float q[ATTN_ROWS * (W + 64)], acc[2][ATTN_ROWS][W1], sums[2][2 * ATTN_ROWS];
    const attn_kernels_16 *kernels[2] = {attn_kernels_16_best(), &attn_kernels_16_avx512};
    int32_t seen[ATTN_ROWS] = {0};
    for (int i = 0; i < 18; i++)
        seen[i] = i < 9 ? N : 1 + 2 * i;
    for (int i = 0; i < 5; i++) {
        refill(plain);
        for (int p = 0; p < N; p++) {
            for (int j = 0; j < W; j++)
                rows[p][j] *= sizes[(i + (p % 5 == 0)) % 5];
            fr_encode_row(FR_TYPE_F16, rows[p], W, NULL, k[p]);
        }
        memset(acc, 0, sizeof acc);
        for (int j = 0; j < 2; j++) {
            attn_risk_16 risk = {0};
            for (int r = 0; r < 2 * ATTN_ROWS; r++)
                sums[j][r] = r % 2 ? 0.0f : -INFINITY;
            kernels[j]->pack_queries(queries[0], 18, W, W1, 0.1f, q);
            kernels[j]->add_block(&(attn_block_16){.q = q,
                                                   .n_rows = 18,
                                                   .w = W,
                                                   .wv = W1,
                                                   .type = FR_TYPE_F16,
                                                   .rows = (const uint8_t *)k,
                                                   .row_bytes = sizeof k[0],
                                                   .n = N,
                                                   .seen = seen,
                                                   .scale = 0.1f,
                                                   .state = sums[j],
                                                   .acc = acc[j][0],
                                                   .risk = &risk});
        }
        for (int j = 0; j < 2; j++)
            for (int r = 0; r < 18; r++) {
                float ordered[W1];
                kernels[j]->finish(acc[j][r], W1, 1.0f, ordered);
                memcpy(acc[j][r], ordered, sizeof ordered);
            }
        assert_memory_equal(acc[0], acc[1], sizeof acc[0]);
        assert_memory_equal(sums[0], sums[1], 36 * sizeof(float));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_sums_in_double), cmocka_unit_test(test_many_tokens),
        cmocka_unit_test(test_long_context),           cmocka_unit_test(test_bits),
        cmocka_unit_test(test_instructions_for_f16),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
