/* The --bench of test_kernels: the kernel meter (cpu/kernel_speed.h) on every type, beside both
 * yardsticks. Included by test_kernels.c only, so nothing is timed that was not checked. */
#ifndef FR_TEST_KERNEL_BENCH_H
#define FR_TEST_KERNEL_BENCH_H

#include "cpu/kernel_speed.h"
#include "cpu/yardstick.h"

typedef struct {
    bool on;
    int n_threads;    /* 0: all cores */
    const char *only; /* a type's name, or NULL */
    fr_isa isa;       /* of the fast side */
} bench_options;

#define BENCH_BYTES (1ull << 30) /* of a matrix for one token: beyond the caches */

static int bench_type(fr_speed_meter *m, fr_type type, fr_layout layout, double read, double int8)
{
    fr_err err = {0};
    fr_kernel_speed s;
    if (fr_kernel_speed_measure(m, type, layout, &s, &err) != FR_OK) {
        printf("%s\n", err.text);
        return 1;
    }
    printf("%-14s %-22s %8.1f %5.0f%% %8.1f %8.1f %7.1fx %10.1f %5.1f%% %7.1fx\n",
           fr_type_name(type, layout), s.kernel, s.one.bytes, 100 * s.one.bytes / read, s.cached,
           s.one.ops, s.one.scalar, s.many.ops, 100 * s.many.ops / int8, s.many.scalar);
    return 0;
}

static int bench_types(const bench_options *o, fr_cpu *fast, fr_speed_meter *m)
{
    size_t bytes;
    const void *room = fr_speed_meter_room(m, &bytes);
    double read = fr_cpu_read_speed(fast, room, bytes, 0.5), int8 = fr_cpu_int8_speed(fast, 0.2);
    int failed = 0;
    printf("%d threads, %s; reading %.1f GB/s, int8 products %.1f GOPS; cached: one thread\n",
           fr_cpu_n_threads(fast), fr_isa_name(fr_cpu_isa(fast)), read, int8);
    printf("%-14s %-22s %8s %6s %8s %8s %8s %10s %6s %8s\n", "type", "kernel", "1: GB/s", "read",
           "cached", "1: GOPS", "scalar", "512: GOPS", "int8", "scalar");
    for (int type = 0; type < FR_TYPE_COUNT; type++) {
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++) {
            const char *name = fr_type_name((fr_type)type, (fr_layout)layout);
            if (fr_speed_possible((fr_type)type, (fr_layout)layout) &&
                (!o->only || !strcasecmp(o->only, name)))
                failed |= bench_type(m, (fr_type)type, (fr_layout)layout, read, int8);
        }
    }
    return failed;
}

static int bench_all(const bench_options *o)
{
    fr_err err = {0};
    fr_cpu *fast = NULL, *scalar = NULL;
    fr_speed_meter *m = NULL;
    fr_cpu_config cfg = {.n_threads = o->n_threads, .max_isa = o->isa};
    int failed = 1;
    if (fr_cpu_open(&cfg, &fast, &err) == FR_OK) {
        cfg.max_isa = FR_ISA_SCALAR;
        if (fr_cpu_open(&cfg, &scalar, &err) == FR_OK &&
            fr_speed_meter_open(fast, scalar, BENCH_BYTES, &m, &err) == FR_OK)
            failed = bench_types(o, fast, m);
    }
    if (err.code != FR_OK)
        printf("%s\n", err.text);
    fr_speed_meter_close(m);
    fr_cpu_close(scalar);
    fr_cpu_close(fast);
    return failed;
}

#endif
