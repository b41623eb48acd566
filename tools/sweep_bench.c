/* ferry-sweep-bench: tokens a second at growing depth; and pictures of such tables, of any program.
 */
#include <stdio.h>

#include "common/chart.h"
#include "sweep_bench/sweep.h"

static fr_status check_options(const fr_options *o, fr_err *err)
{
    bool only_plot = o->plot && o->args.n > 0;
    if (o->args.n > 0 && !o->plot)
        return fr_fail(
            err, FR_EINVAL,
            "'%.80s': unexpected argument; a model is given with -m FILE, and tables only "
            "with --plot FILE",
            o->args.items[0].text);
    if (o->plot)
        FR_TRY(tool_chart_check(o->plot, err));
    if (o->table_json && !o->model)
        return fr_fail(err, FR_EINVAL,
                       "--json: found no model to measure, expected -m FILE as well");
    return only_plot && !o->model ? FR_OK : fr_opts_require(o, FR_OPT_model, err);
}

static fr_status run(const fr_options *o, fr_err *err)
{
    sweep_table *tables;
    size_t n = 0;
    fr_status st;
    FR_TRY(check_options(o, err));
    tables = FR_NEW(sweep_table, FR_MEM_MISC, o->args.n + 1, err);
    if (!tables)
        return FR_ENOMEM;
    for (size_t i = 0; i < o->args.n; i++) /* first: what is wrong with them shows at once */
        FR_TRY_OUT(st, sweep_table_read(o->args.items[i].text, &tables[n++], err));
    if (o->model)
        FR_TRY_OUT(st, sweep_measure(o, &tables[n++], err));
    st = o->plot ? sweep_plot(o->plot, tables, n, err) : FR_OK;
out:
    for (size_t i = 0; i < n; i++)
        sweep_table_free(&tables[i]);
    fr_mem_free(tables);
    return st;
}

int main(int argc, char **argv)
{
    fr_options o;
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_SWEEP, &o, &status))
        return status;
    status = run(&o, &err) == FR_OK ? 0 : tool_fail(FR_TOOL_SWEEP, &err);
    fr_opts_free(&o);
    return status;
}
