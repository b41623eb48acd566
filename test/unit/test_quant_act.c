/* Quantized activations. */
#include "testing.h"

#include <math.h>

#include "quant/act.h"

enum { COLS = 512 };

static void sizes(void **state)
{
    (void)state;
    assert_int_equal(fr_act_block(FR_ACT_F32), 1);
    assert_int_equal(fr_act_block(FR_ACT_Q8_32), 32);
    assert_int_equal(fr_act_block(FR_ACT_Q8_256), 256);
    assert_int_equal(fr_act_row_bytes(FR_ACT_F32, 7), 28);
    assert_int_equal(fr_act_row_bytes(FR_ACT_Q8_32, 96), 3 * sizeof(fr_act_q8_32));
    assert_int_equal(fr_act_row_bytes(FR_ACT_Q8_256, 512), 2 * sizeof(fr_act_q8_256));
}

static void floats_are_copied(void **state)
{
    (void)state;
    float x[3] = {1.5f, -0.f, NAN}, a[3], out[3];
    fr_act_encode_row(FR_ACT_F32, x, 3, a);
    fr_act_decode_row(FR_ACT_F32, a, 3, out);
    assert_memory_equal(x, out, sizeof x);
}

/* Half a step of the block's scale, and a little for the rounding of d and of the product. */
static void expect_close(const float *x, const float *out, int block)
{
    for (int i = 0; i < COLS; i++) {
        float most = 0;
        for (int e = i / block * block; e < (i / block + 1) * block; e++)
            most = fmaxf(most, fabsf(x[e]));
        assert_true(fabsf(out[i] - x[i]) <= most / 127 * 0.50002f);
    }
}

static void error_is_half_a_step(void **state)
{
    (void)state;
    uint64_t seed = 3;
    float x[COLS], out[COLS];
    fr_act_q8_32 a[COLS / 32];
    fr_act_q8_256 b[COLS / 256];
    for (int round = 0; round < 50; round++) {
        float scale = ldexpf(1, (int)(test_rand(&seed) % 200) - 100);
        for (int i = 0; i < COLS; i++)
            x[i] = test_rand_f(&seed) * scale;
        fr_act_encode_row(FR_ACT_Q8_32, x, COLS, a);
        fr_act_decode_row(FR_ACT_Q8_32, a, COLS, out);
        expect_close(x, out, 32);
        fr_act_encode_row(FR_ACT_Q8_256, x, COLS, b);
        fr_act_decode_row(FR_ACT_Q8_256, b, COLS, out);
        expect_close(x, out, 256);
    }
}

static void sums_are_of_the_codes(void **state)
{
    (void)state;
    uint64_t seed = 4;
    float x[256];
    for (int i = 0; i < 256; i++)
        x[i] = test_rand_f(&seed);
    fr_act_q8_32 a[8];
    fr_act_encode_row(FR_ACT_Q8_32, x, 256, a);
    for (int n = 0; n < 8; n++) {
        int sum = 0;
        for (int i = 0; i < 32; i++)
            sum += a[n].q[i];
        assert_true(a[n].s == a[n].d * (float)sum);
        assert_int_equal(a[n].start, FR_ACT_MAGIC_BITS - 128 * sum);
    }
    fr_act_q8_256 b;
    fr_act_encode_row(FR_ACT_Q8_256, x, 256, &b);
    for (int n = 0; n < 16; n++) {
        int sum = 0;
        for (int i = 0; i < 16; i++)
            sum += b.q[16 * n + i];
        assert_int_equal(b.sums[n], sum);
    }
    for (int n = 0; n < 8; n++)
        assert_int_equal(b.sums_32[n], b.sums[2 * n] + b.sums[2 * n + 1]);
}

/* Kernels rely on them as bounds of sums. */
static void largest_sums_are_of_the_codes(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int try = 0; try < 100; try++) {
        float x[256];
        for (int i = 0; i < 256; i++) /* from evenly mixed signs to one sign only */
            x[i] = test_rand_f(&seed) + 0.02f * (float)(try - 50);
        fr_act_q8_256 b;
        fr_act_encode_row(FR_ACT_Q8_256, x, 256, &b);
        int most_abs = 0, most_half = 0;
        for (int i = 0; i < 256; i += 16) {
            int abs = 0, above[2] = {0, 0};
            for (int k = 0; k < 32 && i % 32 == 0; k++)
                above[b.q[i + k] < 0] += b.q[i + k] < 0 ? -b.q[i + k] : b.q[i + k];
            for (int k = 0; k < 16; k++)
                abs += b.q[i + k] < 0 ? -b.q[i + k] : b.q[i + k];
            most_abs = abs > most_abs ? abs : most_abs;
            for (int k = 0; k < 2; k++)
                most_half = above[k] > most_half ? above[k] : most_half;
        }
        assert_int_equal(b.most_abs, most_abs);
        assert_int_equal(b.most_half, most_half);
    }
}

static void codes_round_half_away(void **state)
{
    (void)state;
    float x[32] = {127, 0.5f, -0.5f, 1.5f, -2.5f, 126.4f, -127};
    static const int8_t want[7] = {127, 1, -1, 2, -3, 126, -127};
    fr_act_q8_32 a;
    fr_act_encode_row(FR_ACT_Q8_32, x, 32, &a);
    assert_true(a.d == 1);
    for (int i = 0; i < 7; i++)
        assert_int_equal(a.q[i], want[i]);
}

static void zeros_stay_zero(void **state)
{
    (void)state;
    float x[256] = {0}, out[256];
    fr_act_q8_256 b;
    fr_act_encode_row(FR_ACT_Q8_256, x, 256, &b);
    assert_true(b.d == 0);
    fr_act_decode_row(FR_ACT_Q8_256, &b, 256, out);
    assert_memory_equal(x, out, sizeof x);
}

/* Where the scale is subnormal, codes still are in range and the error is a few steps of 2^-149. */
static void subnormal_blocks_do_not_overflow(void **state)
{
    (void)state;
    for (int most = 1; most < 4000; most++) {
        float x[32] = {0}, out[32];
        x[0] = ldexpf((float)most, -149);
        x[31] = -x[0];
        fr_act_q8_32 a;
        fr_act_encode_row(FR_ACT_Q8_32, x, 32, &a);
        fr_act_decode_row(FR_ACT_Q8_32, &a, 32, out);
        assert_true(a.q[0] >= 0 && a.q[31] <= 0 && a.q[31] >= -127);
        assert_true(fabsf(out[0] - x[0]) <= ldexpf(128, -149));
    }
}

static void faults_show(void **state)
{
    (void)state;
    static const float faults[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int n = 0; n < 4; n++) {
        float x[64] = {1, 2, 3}, out[64];
        x[40] = faults[n];
        fr_act_q8_32 a[2];
        fr_act_encode_row(FR_ACT_Q8_32, x, 64, a);
        fr_act_decode_row(FR_ACT_Q8_32, a, 64, out);
        assert_true(isfinite(a[0].d));
        assert_true(isnan(a[1].d));
        assert_true(isnan(a[1].s));
        assert_true(isnan(out[63]));
        assert_true(isfinite(out[31]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(floats_are_copied),
        cmocka_unit_test(error_is_half_a_step),
        cmocka_unit_test(sums_are_of_the_codes),
        cmocka_unit_test(largest_sums_are_of_the_codes),
        cmocka_unit_test(codes_round_half_away),
        cmocka_unit_test(zeros_stay_zero),
        cmocka_unit_test(subnormal_blocks_do_not_overflow),
        cmocka_unit_test(faults_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
