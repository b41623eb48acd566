/* ferry-bench: tokens a second of models, and the speed of kernels, beside what the machine can do.
 */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "common/placement.h"

static bench_printer printer_on(FILE *to, const char *format, const fr_options *o,
                                const bench_plan *plan)
{
    return (bench_printer){.to = to, .format = format, .plan = plan, .roofline = o->bench_roofline};
}

/* Some tables of other programs join rules by ';'. */
static void split_rules(fr_options *o)
{
    for (size_t i = 0; i < o->override_tensor.n; i++)
        for (char *p = o->override_tensor.items[i].text; *p; p++)
            if (*p == ';')
                *p = ',';
}

static fr_status bench_models(fr_options *o, fr_err *err)
{
    bench_plan plan;
    FR_TRY(bench_plan_make(o, &plan, err));
    bench_printer printers[] = {printer_on(stdout, o->bench_output, o, &plan),
                                printer_on(stderr, o->bench_output_err, o, &plan)};
    int n = strcmp(o->bench_output_err, "none") == 0 ? 1 : 2;
    split_rules(o);
    fr_status st = bench_run(o, &plan, printers, n, err);
    for (int i = 0; i < n; i++) {
        fr_err end_err = {0};
        fr_status end = bench_print_end(&printers[i], &end_err);
        if (st == FR_OK && end != FR_OK) {
            *err = end_err;
            st = end;
        }
    }
    bench_plan_free(&plan);
    return st;
}

static fr_status list_devices(const fr_options *o, fr_err *err)
{
    fr_hardware hw;
    FR_TRY(tool_hardware(o, &hw, err));
    printf("Available devices:\n");
    for (int i = 0; i < hw.n_gpus; i++)
        printf("  CUDA%d: %s (%llu MiB)\n", i, hw.gpus[i].name,
               (unsigned long long)hw.gpus[i].vram_bytes >> 20);
    return fflush(stdout) != 0 || ferror(stdout) ? tool_fail_output(err) : FR_OK;
}

static fr_status run(fr_options *o, fr_err *err)
{
    if (o->list_devices)
        return list_devices(o, err);
    if (o->bench_kernels)
        return bench_kernels(o, err);
    if (o->args.n > 0)
        return fr_fail(
            err, FR_EINVAL,
            "'%.80s': unexpected argument; a model is given with -m FILE, and types only "
            "with --kernels",
            o->args.items[0].text);
    if (o->bench_load)
        return bench_load(o, err);
    return bench_models(o, err);
}

int main(int argc, char **argv)
{
    fr_options o;
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_BENCH, &o, &status))
        return status;
    status = run(&o, &err) == FR_OK ? 0 : tool_fail(FR_TOOL_BENCH, &err);
    fr_opts_free(&o);
    return status;
}
