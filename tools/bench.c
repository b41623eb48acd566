/* ferry-bench: tokens a second of models, and the speed of kernels, beside what the machine can do.
 */
#include <stdio.h>

#include "bench/bench.h"

static fr_status bench_models(const fr_options *o, fr_err *err)
{
    bench_plan plan;
    fr_err end_err = {0};
    FR_TRY(bench_plan_make(o, &plan, err));
    bench_printer printer = {
        .format = o->bench_output, .plan = &plan, .roofline = o->bench_roofline};
    fr_status st = bench_run(o, &plan, &printer, err);
    fr_status end = bench_print_end(&printer, &end_err);
    if (st == FR_OK && end != FR_OK) {
        *err = end_err;
        st = end;
    }
    bench_plan_free(&plan);
    return st;
}

static fr_status run(const fr_options *o, fr_err *err)
{
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
