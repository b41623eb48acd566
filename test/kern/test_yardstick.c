/* The yardsticks' loops do all of the work that they are counted for, and the kernel meter measures
 * what exists. How fast they are is nobody's test. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "cpu/kernel_speed.h"
#include "cpu/kernels.h"
#include "cpu/yardstick.h"
#include "cpu/yardstick_loops.h"

static fr_cpu *open_cpu(int n_threads, fr_isa isa)
{
    fr_err err = {0};
    fr_cpu *cpu = NULL;
    fr_cpu_config cfg = {.n_threads = n_threads, .max_isa = isa};
    assert_ok(fr_cpu_open(&cfg, &cpu, &err));
    return cpu;
}

/* The result is the exclusive or of all words: a byte that is not read shows. */
static void check_read(cpu_read_fn loop)
{
    enum { N = 8192, PAD = 8192 }; /* prefetches may point behind */
    uint64_t seed = 7, expected = 0, *words = test_calloc((N + PAD) / 8, 8);
    for (size_t i = 0; i < N / 8; i++)
        expected ^= words[i] = test_rand(&seed);
    assert_true(loop((const uint8_t *)words, N) == expected);
    for (size_t at = 0; at < N; at += 37) {
        ((uint8_t *)words)[at] ^= 0x10;
        assert_true(loop((const uint8_t *)words, N) != expected);
        ((uint8_t *)words)[at] ^= 0x10;
    }
    test_free(words);
}

/* Counted by hand: in a round each lane of a sum gains 3 * 5 for every byte of the lane. */
static void loops_do_their_work(void **state)
{
    (void)state;
#if defined(__x86_64__)
    int64_t ops;
    for (int64_t n = 0; n < 10; n++) {
        if (cpu_isa_detect() >= FR_ISA_AVX2) {
            uint64_t lane = 8 * (0x0303 + 2 * 15 * (uint64_t)n) & 0xFFFF;
            assert_true(cpu_int8_avx2(n, &ops) == 2 * lane);
            assert_int_equal(ops, 8 * 64);
        }
        if (cpu_isa_detect() >= FR_ISA_AVX512) {
            uint64_t all = 12 * 16 * (0x03030303 + 4 * 15 * (uint64_t)n) & 0xFFFFFFFF;
            assert_true(cpu_int8_avx512(n, &ops) == all);
            assert_int_equal(ops, 12 * 128);
        }
    }
    if (cpu_isa_detect() >= FR_ISA_AVX2)
        check_read(cpu_read_avx2);
    if (cpu_isa_detect() >= FR_ISA_AVX512)
        check_read(cpu_read_avx512);
#endif
}

static void every_tier_has_yardsticks(void **state)
{
    (void)state;
    size_t bytes = 4 << 20;
    void *p = test_calloc(1, bytes + 8192);
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++)
        for (int n = 1; n <= 3; n += 2) {
            fr_cpu *cpu = open_cpu(n, (fr_isa)isa);
            double read = fr_cpu_read_speed(cpu, p, bytes, 0), int8 = fr_cpu_int8_speed(cpu, 0);
            assert_true(isfinite(read) && read > 0);
            assert_true(isfinite(int8) && int8 > 0);
            assert_true(fr_cpu_read_speed(cpu, p, 100, 0) == 0); /* too little to measure */
            fr_cpu_close(cpu);
        }
    test_free(p);
}

static void the_meter_measures_every_layout(void **state)
{
    (void)state;
    static const fr_type types[] = {FR_TYPE_Q4_K, FR_TYPE_IQ1_S, FR_TYPE_F16};
    fr_err err = {0};
    fr_cpu *fast = open_cpu(2, FR_ISA_AUTO), *scalar = open_cpu(2, FR_ISA_SCALAR);
    fr_speed_meter *m = NULL;
    size_t bytes;
    assert_ok(fr_speed_meter_open(fast, scalar, 1 << 20, &m, &err));
    assert_non_null(fr_speed_meter_room(m, &bytes));
    assert_true(bytes >= 1 << 20);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++) {
            fr_kernel_speed s;
            if (!fr_speed_possible(types[i], (fr_layout)layout))
                continue;
            assert_ok(fr_kernel_speed_measure(m, types[i], (fr_layout)layout, &s, &err));
            assert_non_null(s.kernel);
            const double v[] = {s.one.bytes, s.one.ops,     s.one.scalar, s.many.bytes,
                                s.many.ops,  s.many.scalar, s.cached};
            for (size_t k = 0; k < sizeof v / sizeof *v; k++)
                assert_true(isfinite(v[k]) && v[k] > 0);
        }
    fr_speed_meter_close(m);
    fr_cpu_close(fast);
    fr_cpu_close(scalar);
}

static void wrong_result(const cpu_dot_args *a)
{
    for (int t = 0; t < a->n_tokens; t++)
        for (int64_t r = a->row_from; r < a->row_to; r++)
            a->y[t][r - a->row_from] = 1;
}

/* Nothing is timed that computes something else than the scalar kernel. */
static void the_meter_refuses_wrong_kernels(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_cpu *fast = open_cpu(1, FR_ISA_AUTO), *scalar = open_cpu(1, FR_ISA_SCALAR);
    fr_speed_meter *m = NULL;
    fr_kernel_speed s;
    fast->table.dot[FR_TYPE_Q8_0][FR_LAYOUT_PLAIN].dot = wrong_result;
    assert_ok(fr_speed_meter_open(fast, scalar, 1 << 20, &m, &err));
    assert_int_equal(fr_kernel_speed_measure(m, FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, &s, &err),
                     FR_EINTERNAL);
    assert_non_null(strstr(err.text, "on q8_0: found results"));
    fr_speed_meter_close(m);
    fr_cpu_close(fast);
    fr_cpu_close(scalar);
}

static void the_meter_survives_failing_memory(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_cpu *cpu = open_cpu(1, FR_ISA_SCALAR);
    fr_speed_meter *m = NULL;
    size_t before = fr_mem_total().bytes_now;
    for (uint64_t n = 1;; n++) {
        fr_mem_fail_at(n, 0);
        fr_status st = fr_speed_meter_open(cpu, cpu, 1 << 20, &m, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK)
            break;
        assert_int_equal(st, FR_ENOMEM);
        assert_true(fr_mem_total().bytes_now == before);
    }
    fr_speed_meter_close(m);
    assert_true(fr_mem_total().bytes_now == before);
    fr_cpu_close(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_do_their_work),
        cmocka_unit_test(every_tier_has_yardsticks),
        cmocka_unit_test(the_meter_measures_every_layout),
        cmocka_unit_test(the_meter_refuses_wrong_kernels),
        cmocka_unit_test(the_meter_survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
