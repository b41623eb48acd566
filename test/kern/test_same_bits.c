/* A matrix gives the same results whatever its layout: what users of a file may not notice when
 * they repack it. Bit for bit, but for the scalar kernels of five types, which sum in double in
 * another order. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "cpu/kernels.h"
#include "kern/hostile_weights.h"

enum { ROWS = 48, COLS = 768, N_TOKENS = 9 };

static fr_weight weight_of(fr_type type, fr_layout layout)
{
    fr_weight w = fr_weight_make(type, layout, COLS, ROWS, 1);
    w.data = test_calloc(1, w.mat_bytes);
    return w;
}

static float *product(fr_cpu *cpu, const fr_weight *w, const float *x, int64_t n_tokens)
{
    fr_act_type type = fr_cpu_act_type(cpu, w);
    void *room = test_malloc(fr_cpu_act_bytes(type, n_tokens, COLS));
    fr_act act = fr_cpu_act_prepare(cpu, type, x, COLS, n_tokens, COLS, room);
    float *y = test_calloc((size_t)(n_tokens * ROWS), sizeof *y);
    fr_cpu_matmul(cpu, w, &act, n_tokens, y, ROWS);
    test_free(room);
    return y;
}

/* One of the five with a scalar kernel of their own (cpu/ref/ref_dot.c). */
static bool sums_otherwise(fr_isa isa, fr_type type)
{
    static const fr_type own[] = {FR_TYPE_Q4_0, FR_TYPE_Q8_0, FR_TYPE_Q4_K, FR_TYPE_Q5_K,
                                  FR_TYPE_Q6_K};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (isa == FR_ISA_SCALAR && type == own[i])
            return true;
    return false;
}

static void compare(fr_cpu *cpu, const fr_weight *plain, const fr_weight *other, const float *x,
                    int64_t n_tokens)
{
    float *y = product(cpu, plain, x, n_tokens), *z = product(cpu, other, x, n_tokens);
    bool bits = !sums_otherwise(fr_cpu_isa(cpu), plain->type);
    size_t n = (size_t)(n_tokens * ROWS);
    double size = 0;
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs((double)y[i]));
    assert_true(size > 0);
    for (size_t i = 0; i < n; i++) {
        double apart = fabs((double)y[i] - (double)z[i]);
        if (bits ? memcmp(&y[i], &z[i], sizeof *y) != 0 : !(apart <= 1e-6 * size))
            fail_msg("%s, tier %s, %d tokens: plain %.9g, %s %.9g", fr_type_get(plain->type)->name,
                     fr_isa_name(fr_cpu_isa(cpu)), (int)n_tokens, (double)y[i],
                     fr_type_name(other->type, other->layout), (double)z[i]);
    }
    test_free(y);
    test_free(z);
}

/* Returns how many layouts were compared with the plain one. */
static int check_type(fr_cpu *cpu, fr_type type, const float *x)
{
    int n = 0;
    fr_err err = {0};
    if (fr_type_check(type, FR_LAYOUT_PLAIN, ROWS, COLS, NULL) != FR_OK)
        return 0;
    fr_weight plain = weight_of(type, FR_LAYOUT_PLAIN);
    bool filled =
        fill_weights(type, FR_LAYOUT_PLAIN, W_RANDOM, ROWS, COLS, (uint8_t *)(uintptr_t)plain.data);
    for (int layout = FR_LAYOUT_PLAIN + 1; filled && layout < FR_LAYOUT_COUNT; layout++) {
        if (fr_type_check(type, (fr_layout)layout, ROWS, COLS, NULL) != FR_OK)
            continue;
        fr_weight other = weight_of(type, (fr_layout)layout);
        assert_ok(fr_repack(type, FR_LAYOUT_PLAIN, (fr_layout)layout, ROWS, COLS, plain.data,
                            (void *)(uintptr_t)other.data, &err));
        if (fr_cpu_act_type(cpu, &plain) == fr_cpu_act_type(cpu, &other)) {
            compare(cpu, &plain, &other, x, 1);
            compare(cpu, &plain, &other, x, N_TOKENS);
            n++;
        }
        test_free((void *)(uintptr_t)other.data);
    }
    test_free((void *)(uintptr_t)plain.data);
    return n;
}

static void check_tier(fr_isa isa)
{
    fr_err err = {0};
    fr_cpu *cpu = NULL;
    fr_cpu_config cfg = {.n_threads = 2, .max_isa = isa};
    fr_status st = fr_cpu_open(&cfg, &cpu, &err);
    if (st == FR_EUNSUPPORTED)
        return;
    assert_ok(st);
    float *x = test_calloc(COLS * N_TOKENS, sizeof *x);
    for (int i = 0; i < COLS * N_TOKENS; i++)
        x[i] = test_rand_f(&rnd);
    int n = 0;
    for (int type = 0; type < FR_TYPE_COUNT; type++)
        n += check_type(cpu, (fr_type)type, x);
    printf("%s: %d forms give what the plain one gives\n", fr_isa_name(isa), n);
    assert_true(n >= 25);
    test_free(x);
    fr_cpu_close(cpu);
}

static void test_scalar(void **state)
{
    (void)state;
    check_tier(FR_ISA_SCALAR);
}

static void test_avx2(void **state)
{
    (void)state;
    check_tier(FR_ISA_AVX2);
}

static void test_avx512(void **state)
{
    (void)state;
    check_tier(FR_ISA_AVX512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
