/* Products where every token picks its matrices: slices, matrices that nobody picks, pairs of none,
 * in every layout; few and many vectors at a time agree, and no token depends on another. */
#include "gpu_testing.h"

#include "quant/repack.h"

enum { ARENA = 32 << 20, MATS = 5, MOST_ROWS = 160, MOST_COLS = 512, MOST_PAIRS = 200 };

static uint64_t rng = 4711;

/* ---- matrices ------------------------------------------------------------------------------- */

typedef struct {
    fr_weight w;
    uint8_t *bytes; /* what w.data points to on the device */
    float *decoded; /* n_mat x rows x cols */
} matrices;

static uint8_t plain_h[MATS * MOST_ROWS * MOST_COLS * 4], bytes_h[sizeof plain_h];
static float decoded_h[MATS * MOST_ROWS * MOST_COLS];

/* MATS random matrices; false where the type has no such layout. */
static bool make_matrices(fr_type type, fr_layout layout, int64_t rows, int64_t cols, matrices *out)
{
    static float row[MOST_COLS];
    fr_err err;
    if (fr_type_check(type, layout, rows, cols, &err) != FR_OK)
        return false;
    size_t row_bytes = fr_row_bytes(type, FR_LAYOUT_PLAIN, cols);
    for (int64_t r = 0; r < MATS * rows; r++) {
        fill_random(row, cols, 1, &rng);
        fr_encode_row(type, row, cols, NULL, plain_h + (size_t)r * row_bytes);
    }
    if (layout == FR_LAYOUT_PLAIN)
        memcpy(bytes_h, plain_h, (size_t)(MATS * rows) * row_bytes);
    else
        assert_ok(
            fr_repack(type, FR_LAYOUT_PLAIN, layout, MATS * rows, cols, plain_h, bytes_h, &err));
    *out = (matrices){fr_weight_make(type, layout, cols, rows, MATS), bytes_h, decoded_h};
    for (int64_t m = 0; m < MATS; m++)
        for (int64_t r = 0; r < rows; r++)
            fr_decode_row(type, layout, bytes_h + (size_t)m * out->w.mat_bytes, r, cols,
                          decoded_h + (m * rows + r) * cols);
    return true;
}

/* ---- products ------------------------------------------------------------------------------- */

typedef struct {
    int64_t n_tokens, n_pick, first;
    const int32_t *ids; /* NULL: pick k is matrix k */
    bool own_rows;      /* of x, for each pair; else a token's pairs share one */
} picks;

static float x_h[MOST_PAIRS * MOST_COLS], got[MOST_PAIRS * MOST_ROWS], few[MOST_PAIRS * MOST_ROWS];

/* Pairs' results to y: rows floats each, one after the other. */
static void multiply(const fr_gpu *gpu, const matrices *mats, picks p, bool matmul, float *y)
{
    fr_err err;
    gpu_bench b = gpu_open(gpu, ARENA);
    fr_weight w = mats->w;
    int64_t n_pairs = p.n_tokens * p.n_pick, per = p.own_rows ? p.n_pick : 1;
    size_t scratch =
        p.ids ? fr_gpu_grouped_scratch_bytes(n_pairs, w.n_mat) : 7 * (size_t)w.cols * sizeof(float);
    w.data = gpu_put(&b, mats->bytes, (size_t)w.n_mat * w.mat_bytes);
    fr_gpu_matmul_args args = {.w = &w,
                               .n_tokens = p.n_tokens,
                               .n_pick = p.n_pick,
                               .first = p.first,
                               .x_d = gpu_floats(&b, x_h, p.n_tokens * per * w.cols),
                               .ldx = per * w.cols,
                               .x_stride = p.own_rows ? w.cols : 0,
                               .y_d = gpu_floats(&b, NULL, n_pairs * w.rows),
                               .ldy = p.n_pick * w.rows,
                               .y_stride = w.rows,
                               .scratch_d = gpu_put(&b, NULL, scratch),
                               .scratch_bytes = scratch};
    if (p.ids)
        args.ids_d = gpu_put(&b, p.ids, (size_t)n_pairs * sizeof *p.ids);
    assert_ok((matmul ? gpu->matmul : gpu->matvec)(&args, b.s, &err));
    gpu_get(&b, y, args.y_d, (size_t)(n_pairs * w.rows) * sizeof *y);
    gpu_close(&b);
}

/* |result - sum in double| within the rounding of float sums, for all pairs. */
static void check_results(const matrices *mats, picks p, const float *y)
{
    const fr_weight *w = &mats->w;
    const char *name = fr_type_name(w->type, w->layout);
    for (int64_t i = 0; i < p.n_tokens * p.n_pick; i++) {
        int64_t m = p.ids ? p.ids[i] - p.first : i % p.n_pick;
        const float *x = x_h + (p.own_rows ? i : i / p.n_pick) * w->cols;
        for (int64_t r = 0; r < w->rows; r++) {
            double want = 0, size = 0;
            for (int64_t c = 0; c < w->cols && m >= 0 && m < w->n_mat; c++) {
                double v = (double)mats->decoded[(m * w->rows + r) * w->cols + c] * (double)x[c];
                want += v;
                size += fabs(v);
            }
            float exact = (float)want;
            assert_close(&y[i * w->rows + r], &exact, 1, 0, 0x1p-19 * size, name);
        }
    }
}

/* ids within [0, 9), so that a slice of MATS from 2 on misses some. */
static void check_form(const fr_gpu *gpu, fr_type type, fr_layout layout, int64_t rows,
                       int64_t cols)
{
    enum { TOKENS = 13, PICKS = 3 };
    int32_t ids[TOKENS * PICKS];
    matrices mats;
    if (!make_matrices(type, layout, rows, cols, &mats))
        return;
    for (int i = 0; i < TOKENS * PICKS; i++)
        ids[i] = (int32_t)(test_rand(&rng) % 9);
    fill_random(x_h, TOKENS * PICKS * cols, 1, &rng);
    picks all = {TOKENS, PICKS, 2, ids, (rows + cols) % 3 != 0};
    multiply(gpu, &mats, all, true, got);
    check_results(&mats, all, got);
    multiply(gpu, &mats, all, false, few);
    check_results(&mats, all, few);
    picks alone = {1, PICKS, 2, ids, all.own_rows};
    multiply(gpu, &mats, alone, true, few);
    assert_memory_equal(few, got, (size_t)(PICKS * rows) * sizeof *got);
}

static void check_forms(const fr_gpu *gpu)
{
    static const fr_type types[] = {FR_TYPE_F32,  FR_TYPE_F16,  FR_TYPE_BF16,   FR_TYPE_Q8_0,
                                    FR_TYPE_Q4_K, FR_TYPE_Q5_K, FR_TYPE_Q6_K,   FR_TYPE_IQ4_XS,
                                    FR_TYPE_Q2_K, FR_TYPE_Q4_0, FR_TYPE_IQ4_KS, FR_TYPE_Q8_KV};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int l = 0; l < FR_LAYOUT_COUNT; l++) {
            check_form(gpu, types[t], (fr_layout)l, 80, 512);
            check_form(gpu, types[t], (fr_layout)l, 16, 96);
            check_form(gpu, types[t], (fr_layout)l, 3, 256);
        }
    check_form(gpu, FR_TYPE_F32, FR_LAYOUT_PLAIN, 65, 7);
    check_form(gpu, FR_TYPE_F16, FR_LAYOUT_INTERLEAVED, 16, 34);
}

/* ---- who picked what ------------------------------------------------------------------------ */

static void check_picks(const fr_gpu *gpu)
{
    enum { TOKENS = 100, PICKS = 2, N = TOKENS * PICKS };
    static int32_t ids[N];
    matrices mats;
    assert_true(make_matrices(FR_TYPE_Q8_0, FR_LAYOUT_INTERLEAVED, 16, 64, &mats));
    fill_random(x_h, N * 64, 1, &rng);
    for (int kind = 0; kind < 4; kind++) {
        for (int i = 0; i < N; i++) {
            const int32_t by_kind[] = {3, i % 2 ? 0 : 4, i < 70 ? 1 : 2, i % 3 ? -7 : 1000000};
            ids[i] = by_kind[kind];
        }
        picks p = {TOKENS, PICKS, 0, ids, true};
        multiply(gpu, &mats, p, true, got);
        check_results(&mats, p, got);
    }
}

/* Every token with all matrices: by cuBLAS where it is there, floats that is, and by ourselves. */
static void check_many_tokens(const fr_gpu *gpu)
{
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_BF16, FR_TYPE_Q8_0};
    const picks p = {70, 2, 0, NULL, true};
    matrices mats;
    fill_random(x_h, 70 * 2 * 96, 1, &rng);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int l = 0; l < FR_LAYOUT_COUNT; l++)
            if (make_matrices(types[t], (fr_layout)l, 48, 96, &mats)) {
                multiply(gpu, &mats, p, true, got);
                check_results(&mats, p, got);
            }
}

/* Matrices of one number: the pair's own and its token's tell whether each went to its place. */
static void check_grouping(const fr_gpu *gpu)
{
    enum { N_MAT = 300, TOKENS = 700, PICKS = 8, N = TOKENS * PICKS };
    static float w_h[N_MAT], x[N], y[N];
    static int32_t ids[N];
    fr_err err;
    gpu_bench b = gpu_open(gpu, ARENA);
    fr_weight w = fr_weight_make(FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, 1, N_MAT);
    for (int m = 0; m < N_MAT; m++)
        w_h[m] = (float)(m + 1);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i % 4096 + 1);
        ids[i] = (int32_t)(test_rand(&rng) % (i < N / 2 ? N_MAT + 50 : 40));
    }
    w.data = gpu_floats(&b, w_h, N_MAT);
    size_t scratch = fr_gpu_grouped_scratch_bytes(N, N_MAT);
    fr_gpu_matmul_args args = {.w = &w,
                               .n_tokens = TOKENS,
                               .n_pick = PICKS,
                               .ids_d = gpu_put(&b, ids, sizeof ids),
                               .first = 20,
                               .x_d = gpu_floats(&b, x, N),
                               .ldx = PICKS,
                               .x_stride = 1,
                               .y_d = gpu_floats(&b, NULL, N),
                               .ldy = PICKS,
                               .y_stride = 1,
                               .scratch_d = gpu_put(&b, NULL, scratch),
                               .scratch_bytes = scratch};
    assert_ok(gpu->matmul(&args, b.s, &err));
    gpu_get(&b, y, args.y_d, sizeof y);
    for (int i = 0; i < N; i++) {
        int m = ids[i] - 20;
        float want = m >= 0 && m < N_MAT ? w_h[m] * x[i] : 0;
        assert_close(&y[i], &want, 1, 0, 0, "grouped");
    }
    args.scratch_bytes--;
    assert_int_equal(gpu->matmul(&args, b.s, &err), FR_EINTERNAL);
    gpu_close(&b);
}

#define TEST(name)                                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        on_every_gpu(check_##name);                                                                \
    }
TEST(forms)
TEST(picks)
TEST(many_tokens)
TEST(grouping)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_picks),
        cmocka_unit_test(test_many_tokens),
        cmocka_unit_test(test_grouping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
