/* The encoders that need no search. */
#include "testing.h"

#include <math.h>

#include "base/file.h"
#include "base/half.h"
#include "quant/qtype.h"

enum { ROWS = 16, COLS = 512 };

static void slurp(const char *path, fr_buf *out)
{
    fr_err err;
    assert_ok(fr_file_slurp(path, 1 << 20, out, &err));
}

/* The producer's bytes for f16, bf16 and q8_0, whose encoding has no freedom. */
static void bytes_are_the_producers(void **state)
{
    (void)state;
    static const struct {
        fr_type type;
        const char *path;
    } cases[] = {{FR_TYPE_F16, TEST_FILE("data/quants/quantized/f16.q")},
                 {FR_TYPE_BF16, TEST_FILE("data/quants/quantized/bf16.q")},
                 {FR_TYPE_Q8_0, TEST_FILE("data/quants/quantized/q8_0.q")}};
    fr_buf source = {0};
    slurp(TEST_FILE("data/quants/source.f32"), &source);
    assert_int_equal(source.n, ROWS * COLS * sizeof(float));
    for (int i = 0; i < 3; i++) {
        fr_buf want = {0};
        uint8_t got[COLS * 4];
        slurp(cases[i].path, &want);
        size_t row = fr_row_bytes(cases[i].type, FR_LAYOUT_PLAIN, COLS);
        assert_int_equal(want.n, ROWS * row);
        for (size_t r = 0; r < ROWS; r++) {
            float x[COLS];
            memcpy(x, source.p + r * sizeof x, sizeof x);
            fr_encode_row(cases[i].type, x, COLS, NULL, got);
            assert_memory_equal(got, want.p + r * row, row);
        }
        fr_buf_free(&want);
    }
    fr_buf_free(&source);
}

static void decoded(fr_type type, const float *x, int64_t cols, float *out)
{
    uint8_t bytes[COLS * 4];
    assert_true(fr_type_can_encode(type));
    assert_true(fr_row_bytes(type, FR_LAYOUT_PLAIN, cols) <= sizeof bytes);
    fr_encode_row(type, x, cols, NULL, bytes);
    fr_decode_row(type, FR_LAYOUT_PLAIN, bytes, 0, cols, out);
}

static void f32_is_a_copy(void **state)
{
    (void)state;
    float x[5] = {0.f, -0.f, 1e-42f, -3e38f, 1.f / 3}, out[5];
    decoded(FR_TYPE_F32, x, 5, out);
    assert_memory_equal(x, out, sizeof x);
}

/* Half a step of the block's maximum / 127, and the scale's rounding to f16. */
static void q8_0_errs_by_half_a_step(void **state)
{
    (void)state;
    uint64_t seed = 8;
    float x[COLS], out[COLS];
    for (int round = 0; round < 40; round++) {
        float scale = ldexpf(1, (int)(test_rand(&seed) % 16) - 4);
        for (int i = 0; i < COLS; i++)
            x[i] = test_rand_f(&seed) * scale;
        decoded(FR_TYPE_Q8_0, x, COLS, out);
        for (int b = 0; b < COLS; b += 32) {
            float most = 0;
            for (int i = b; i < b + 32; i++)
                most = fmaxf(most, fabsf(x[i]));
            for (int i = b; i < b + 32; i++)
                assert_true(fabsf(out[i] - x[i]) <= most * (0.5f / 127 + 0x1p-10f));
        }
    }
}

static void zeros_stay_zero(void **state)
{
    (void)state;
    float x[32] = {0}, out[32];
    static const fr_type types[] = {FR_TYPE_F16, FR_TYPE_BF16, FR_TYPE_Q8_0};
    for (int t = 0; t < 3; t++) {
        decoded(types[t], x, 32, out);
        for (int i = 0; i < 32; i++)
            assert_true(out[i] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_producers),
        cmocka_unit_test(f32_is_a_copy),
        cmocka_unit_test(q8_0_errs_by_half_a_step),
        cmocka_unit_test(zeros_stay_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
