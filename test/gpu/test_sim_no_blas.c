/* A machine without cuBLAS: products of many tokens are the same, and the log says so once. */
#include "gpu_testing.h"

#include "base/log.h"

enum { ROWS = 20, COLS = 36, TOKENS = 80 };

static int n_lines;

static void count_lines(void *user, fr_log_level level, const char *line)
{
    (void)user, (void)level;
    n_lines += strstr(line, "libcublas") != NULL;
}

static void test_without(void **state)
{
    (void)state;
    static float w_h[ROWS * COLS], x[TOKENS * COLS], got[TOKENS * ROWS];
    uint64_t rng = 5;
    fr_err err;
    assert_ok(fr_gpu_sim_configure("blas=0", &err));
    fr_log_set_sink(count_lines, NULL);
    gpu_bench b = gpu_open(fr_gpu_sim(), 1 << 20);
    fill_random(w_h, ROWS * COLS, 1, &rng);
    fill_random(x, TOKENS * COLS, 1, &rng);
    fr_weight w = fr_weight_make(FR_TYPE_F32, FR_LAYOUT_PLAIN, COLS, ROWS, 1);
    w.data = gpu_floats(&b, w_h, ROWS * COLS);
    fr_gpu_matmul_args args = {.w = &w,
                               .n_tokens = TOKENS,
                               .n_pick = 1,
                               .x_d = gpu_floats(&b, x, TOKENS * COLS),
                               .ldx = COLS,
                               .y_d = gpu_floats(&b, NULL, TOKENS * ROWS),
                               .ldy = ROWS};
    for (int i = 0; i < 2; i++)
        assert_ok(b.gpu->matmul(&args, b.s, &err));
    gpu_get(&b, got, args.y_d, sizeof got);
    for (int t = 0; t < TOKENS; t++)
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int c = 0; c < COLS; c++)
                sum += (double)w_h[r * COLS + c] * (double)x[t * COLS + c];
            float want = (float)sum;
            assert_close(&got[t * ROWS + r], &want, 1, 0, 1e-5, "product");
        }
    gpu_close(&b);
    fr_log_set_sink(NULL, NULL);
    assert_int_equal(n_lines, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_without)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
