/* --kernels: every type's kernels beside what the machine can do. */
#include <stdio.h>
#include <strings.h>

#include "bench/bench.h"
#include "common/interrupt.h"
#include "cpu/kernel_speed.h"
#include "cpu/yardstick.h"

typedef struct {
    fr_cpu *fast, *scalar;
    fr_speed_meter *meter;
    const void *room; /* of the meter */
    size_t room_bytes;
} kernels;

static fr_status open_cpus(const fr_options *o, kernels *k, fr_err *err)
{
    fr_cpu_config cfg = {.max_isa = FR_ISA_AUTO};
    fr_status st = FR_OK;
    cfg.n_threads = o->threads;
    if (st == FR_OK && !fr_isa_from_name(o->isa, &cfg.max_isa))
        st = fr_fail(err, FR_EINTERNAL, "--isa %s: the kernels do not know it", o->isa);
    if (st == FR_OK)
        st = fr_cpu_open(&cfg, &k->fast, err);
    cfg.max_isa = FR_ISA_SCALAR;
    return st == FR_OK ? fr_cpu_open(&cfg, &k->scalar, err) : st;
}

static fr_status open_meter(kernels *k, fr_err *err)
{
    FR_TRY(fr_speed_meter_open(k->fast, k->scalar, tool_stream_bytes(), &k->meter, err));
    k->room = fr_speed_meter_room(k->meter, &k->room_bytes);
    return FR_OK;
}

static void print_head(const kernels *k)
{
    printf(
        "%d threads, %s kernels, rows of %d weights. 1 token: a matrix of %zu MiB; %d tokens: one "
        "that\nstays in the cache. Of read, of int8: parts of the yardsticks, which are measured "
        "before every type.\nx scalar: times the speed of the scalar kernels.\n\n",
        fr_cpu_n_threads(k->fast), fr_isa_name(fr_cpu_isa(k->fast)), FR_SPEED_COLS,
        k->room_bytes >> 20, FR_SPEED_TOKENS);
    printf("| %-14s | %-24s | %6s | %7s | %7s | %7s | %7s | %8s |\n", "type", "kernel", "tokens",
           "GB/s", "of read", "GOPS", "of int8", "x scalar");
    printf("| -------------- | ------------------------ | -----: | ------: | ------: | ------: | "
           "------: "
           "| -------: |\n");
}

static void print_row(const char *type, const char *kernel, int n_tokens, const fr_product_speed *s,
                      const tool_yards *y)
{
    printf("| %-14s | %-24s | %6d | %7.1f | %5.0f %% | %7.1f | %5.1f %% | %8.1f |\n", type, kernel,
           n_tokens, s->bytes, 100 * s->bytes / y->read, s->ops, 100 * s->ops / y->int8, s->scalar);
}

static fr_status measure(kernels *k, fr_type type, fr_layout layout, fr_err *err)
{
    fr_kernel_speed s;
    const char *name = fr_type_name(type, layout);
    FR_TRY(tool_check_interrupt(err));
    tool_yards y = {fr_cpu_read_speed(k->fast, k->room, k->room_bytes, 0.1),
                    fr_cpu_int8_speed(k->fast, 0.05)};
    FR_TRY(fr_kernel_speed_measure(k->meter, type, layout, &s, err));
    print_row(name, s.kernel, 1, &s.one, &y);
    print_row(name, s.kernel, FR_SPEED_TOKENS, &s.many, &y);
    return fflush(stdout) != 0 || ferror(stdout) ? tool_fail_output(err) : FR_OK;
}

/* Whether argument i is the name of a type in this layout; a plain name means all its layouts. */
static bool is_named(const fr_options *o, size_t i, fr_type type, fr_layout layout)
{
    const char *text = o->args.items[i].text, *name = fr_type_name(type, layout);
    return strcasecmp(text, name) == 0 ||
           strcasecmp(text, fr_type_name(type, FR_LAYOUT_PLAIN)) == 0;
}

static fr_status check_names(const fr_options *o, fr_err *err)
{
    for (size_t i = 0; i < o->args.n; i++) {
        bool known = false;
        for (int type = 0; type < FR_TYPE_COUNT && !known; type++)
            for (int layout = 0; layout < FR_LAYOUT_COUNT && !known; layout++)
                known = fr_speed_possible((fr_type)type, (fr_layout)layout) &&
                        is_named(o, i, (fr_type)type, (fr_layout)layout);
        if (!known)
            return fr_fail(err, FR_EINVAL,
                           "--kernels: found '%.40s', expected a type; ferry-gguf types lists them",
                           o->args.items[i].text);
    }
    return FR_OK;
}

static bool is_wanted(const fr_options *o, fr_type type, fr_layout layout)
{
    bool wanted = o->args.n == 0;
    for (size_t i = 0; i < o->args.n && !wanted; i++)
        wanted = is_named(o, i, type, layout);
    return wanted && fr_speed_possible(type, layout);
}

fr_status bench_kernels(fr_options *o, fr_err *err)
{
    kernels k = {0};
    fr_status st;
    FR_TRY(check_names(o, err));
    FR_TRY(bench_assign_single(o, "--kernels", err));
    FR_TRY_OUT(st, open_cpus(o, &k, err));
    FR_TRY_OUT(st, open_meter(&k, err));
    tool_catch_interrupts();
    print_head(&k);
    for (int type = 0; type < FR_TYPE_COUNT; type++)
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++)
            if (is_wanted(o, (fr_type)type, (fr_layout)layout))
                FR_TRY_OUT(st, measure(&k, (fr_type)type, (fr_layout)layout, err));
out:
    fr_speed_meter_close(k.meter);
    fr_cpu_close(k.scalar);
    fr_cpu_close(k.fast);
    return st;
}
