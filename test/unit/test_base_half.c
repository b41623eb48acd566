/* Half and bfloat16 conversions: every half; and floats at, round and between all halves, against
 * the compiler's _Float16 and the processor's F16C. */
#include "testing.h"

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>

#include "base/half.h"

/* IEEE 754 binary16 from its definition. */
static double half_value(uint16_t h)
{
    int exp = h >> 10 & 31, man = h & 0x3FF;
    double v;
    if (exp == 31)
        v = man ? NAN : INFINITY;
    else
        v = exp ? ldexp(1024 + man, exp - 25) : ldexp(man, -24);
    return h & 0x8000 ? -v : v;
}

static void test_every_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = fr_f16_to_f32((uint16_t)h);
        double want = half_value((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(f) && isnan(fr_f16_to_f32(fr_f32_to_f16(f))));
            assert_int_equal(fr_f32_to_f16(f), h | 0x200); /* quiet, payload and sign kept */
        } else {
            assert_true((double)f == want && !signbit(f) == !(h & 0x8000));
            assert_int_equal(fr_f32_to_f16(f), h);
        }
    }
}

/* Nearest half by comparing distances with the neighbours, ties to even: from the definition. */
static void check_rounding(double lower, double upper, uint16_t lower_h, float f)
{
    uint16_t want;
    if ((double)f - lower != upper - (double)f)
        want = (double)f - lower < upper - (double)f ? lower_h : lower_h + 1;
    else
        want = lower_h % 2 ? lower_h + 1 : lower_h;
    if (fr_f32_to_f16(f) != want || fr_f32_to_f16(-f) != (want | 0x8000))
        fail_msg("%a: got %04x, expected %04x", (double)f, fr_f32_to_f16(f), want);
}

static void test_rounding_between_halves(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7C00; h++) {
        double lower = half_value(h), upper = h == 0x7BFF ? 65536 : half_value((uint16_t)(h + 1));
        float tie = (float)((lower + upper) / 2); /* exact */
        check_rounding(lower, upper, h, tie);
        check_rounding(lower, upper, h, nextafterf(tie, 0));
        check_rounding(lower, upper, h, nextafterf(tie, INFINITY));
        check_rounding(lower, upper, h, nextafterf((float)lower, INFINITY));
        check_rounding(lower, upper, h, nextafterf((float)upper, 0));
    }
    assert_int_equal(fr_f32_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(fr_f32_to_f16(65520), 0x7C00);
    assert_int_equal(fr_f32_to_f16(3e38f), 0x7C00);
    assert_int_equal(fr_f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(fr_f32_to_f16(0x1p-149f), 0);
    assert_int_equal(fr_f32_to_f16(-0.0f), 0x8000);
}

__attribute__((target("f16c"))) static uint16_t hardware_to_f16(float f)
{
    return (uint16_t)_cvtss_sh(f, 0);
}

__attribute__((target("f16c"))) static float hardware_to_f32(uint16_t h)
{
    return _cvtsh_ss(h);
}

static bool same_float(float a, float b)
{
    return fr_f32_bits(a) == fr_f32_bits(b) || (isnan(a) && isnan(b));
}

/* 17 million floats, evenly spread over all bit patterns. */
enum { BIT_STEP = 251 };

static void test_against_f16c(void **state)
{
    (void)state;
    if (!__builtin_cpu_supports("f16c")) {
        print_message("skipped: this processor has no F16C\n");
        skip();
    }
    for (uint32_t h = 0; h < 65536; h++)
        assert_true(same_float(fr_f16_to_f32((uint16_t)h), hardware_to_f32((uint16_t)h)));
    for (uint64_t u = 0; u <= UINT32_MAX; u += BIT_STEP) {
        float f = fr_f32_from_bits((uint32_t)u);
        if (fr_f32_to_f16(f) != hardware_to_f16(f))
            fail_msg("%08x: got %04x, F16C %04x", (unsigned)u, fr_f32_to_f16(f),
                     hardware_to_f16(f));
    }
}

static void test_against_compiler(void **state)
{
    (void)state;
#ifdef __FLT16_MANT_DIG__
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t h16 = (uint16_t)h;
        _Float16 x;
        memcpy(&x, &h16, 2);
        assert_true(same_float(fr_f16_to_f32(h16), (float)x));
    }
    for (uint64_t u = 0; u <= UINT32_MAX; u += 4099) {
        float f = fr_f32_from_bits((uint32_t)u);
        _Float16 x = (_Float16)f;
        uint16_t h16;
        memcpy(&h16, &x, 2);
        assert_true(isnan(f) ? (fr_f32_to_f16(f) & 0x7FFF) > 0x7C00 : fr_f32_to_f16(f) == h16);
    }
#else
    print_message("skipped: this compiler has no _Float16\n");
    skip();
#endif
}

/* bfloat16 is the upper half of a float. */
static void test_every_bf16(void **state)
{
    (void)state;
    for (uint32_t b = 0; b < 65536; b++) {
        float f = fr_bf16_to_f32((uint16_t)b);
        assert_true(fr_f32_bits(f) == b << 16);
        assert_int_equal(fr_f32_to_bf16(f), isnan(f) ? b | 0x40 : b);
    }
}

static void test_bf16_rounding(void **state)
{
    (void)state;
    for (uint64_t u = 0; u <= 0x7F7FFFFF; u += BIT_STEP / 2) {
        float f = fr_f32_from_bits((uint32_t)u);
        uint16_t lower = (uint16_t)(u >> 16);
        double below = fr_bf16_to_f32(lower);
        double above = lower == 0x7F7F ? 0x1p128 : fr_bf16_to_f32((uint16_t)(lower + 1));
        double d = (f - below) - (above - f);
        uint16_t want = (uint16_t)(d < 0 || (d == 0 && lower % 2 == 0) ? lower : lower + 1);
        if (fr_f32_to_bf16(f) != want || fr_f32_to_bf16(-f) != (want | 0x8000))
            fail_msg("%08x: got %04x, expected %04x", (unsigned)u, fr_f32_to_bf16(f), want);
    }
    for (uint32_t b = 0; b < 0x7F80; b++) { /* all ties */
        uint32_t tie = b << 16 | 0x8000;
        assert_int_equal(fr_f32_to_bf16(fr_f32_from_bits(tie)), b + (b & 1));
        assert_int_equal(fr_f32_to_bf16(fr_f32_from_bits(tie - 1)), b);
        assert_int_equal(fr_f32_to_bf16(fr_f32_from_bits(tie + 1)), b + 1);
    }
    assert_int_equal(fr_f32_to_bf16(INFINITY), 0x7F80);
    for (uint64_t u = 0x7F800001; u <= 0x7FFFFFFF; u += 997) /* no NaN becomes an infinity */
        assert_true((fr_f32_to_bf16(fr_f32_from_bits((uint32_t)u)) & 0x7FFF) > 0x7F80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half),   cmocka_unit_test(test_rounding_between_halves),
        cmocka_unit_test(test_against_f16c), cmocka_unit_test(test_against_compiler),
        cmocka_unit_test(test_every_bf16),   cmocka_unit_test(test_bf16_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
