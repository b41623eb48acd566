/* ferry-bench: tokens a second of models, and the speed of kernels, beside what the machine can do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
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

/* --json: the text that a printer wrote. */
static fr_status write_json(const char *path, const char *text, size_t n, fr_err *err)
{
    fr_out_file f;
    FR_TRY(fr_file_create(path, &f, err));
    fr_status st = fr_file_write(&f, text, n, err);
    if (st == FR_OK)
        return fr_file_commit(&f, err);
    fr_file_abort(&f);
    return st;
}

static fr_status run_printers(fr_options *o, const bench_plan *plan, bench_printer *printers, int n,
                              fr_err *err)
{
    fr_status st = bench_run(o, plan, printers, n, err);
    for (int i = 0; i < n; i++) {
        fr_err end_err = {0};
        fr_status end = bench_print_end(&printers[i], &end_err);
        if (st == FR_OK && end != FR_OK) {
            *err = end_err;
            st = end;
        }
    }
    return st;
}

static fr_status bench_models(fr_options *o, fr_err *err)
{
    bench_plan plan;
    char *json = NULL;
    size_t n_json = 0;
    int n = 1;
    FR_TRY(bench_plan_make(o, &plan, err));
    bench_printer printers[3] = {printer_on(stdout, o->bench_output, o, &plan)};
    FILE *memory = o->table_json ? open_memstream(&json, &n_json) : NULL;
    if (strcmp(o->bench_output_err, "none") != 0)
        printers[n++] = printer_on(stderr, o->bench_output_err, o, &plan);
    if (memory)
        printers[n++] = printer_on(memory, "json", o, &plan);
    split_rules(o);
    fr_status st = o->table_json && !memory ? fr_fail(err, FR_ENOMEM, "--json: out of memory")
                                            : run_printers(o, &plan, printers, n, err);
    if (memory)
        fclose(memory);
    if (st == FR_OK && memory)
        st = write_json(o->table_json, json, n_json, err);
    free(json);
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
