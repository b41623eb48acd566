/* ferry-plan: where every tensor would live, and why. Reads headers only. */
#include <stdio.h>

#include "plan/plan_tool.h"

static int run(const fr_options *o)
{
    fr_err err = {0};
    if (o->args.n > 0 && !o->plan_diff) {
        fr_fail(&err, FR_EINVAL, "found '%s', expected options only; a model is given with -m FILE",
                o->args.items[0].text);
        tool_fail(FR_TOOL_PLAN, &err);
        return TOOL_USAGE;
    }
    if (o->plan_diff)
        return plan_compare(o);
    if (o->plan_probe)
        return plan_probe(o);
    if (o->plan_kv_table)
        return plan_kv_table(o);
    return plan_run(o);
}

int main(int argc, char **argv)
{
    fr_options o = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_PLAN, &o, &status))
        return status;
    status = run(&o);
    fr_opts_free(&o);
    return status;
}
