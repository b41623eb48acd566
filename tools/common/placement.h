/* What the options say about placement, in the planner's terms. */
#ifndef FR_TOOLS_PLACEMENT_H
#define FR_TOOLS_PLACEMENT_H

#include "engine/engine.h"
#include "opts/opts.h"

/* The machine: the hardware sections of the INI file, else what this machine says of itself; with
 * the GPUs of --sim where there are no [gpu.N], the budgets of --vram-budget, and without GPUs
 * after
 * --device none. */
fr_status tool_hardware(const fr_options *o, fr_hardware *out, fr_err *err);

/* All rules in the order in which they apply: -ot, rule files, --cpu-moe and --n-cpu-moe. *out is
 * owned by the caller. */
fr_status tool_rules(const fr_options *o, const fr_model *m, fr_rules **out, fr_err *err);

/* Sizes, layers, GPUs. Logs what is planned in another way than asked. */
fr_status tool_plan_options(const fr_options *o, const fr_hardware *hw, fr_plan_options *out,
                            fr_err *err);

/* The placement part of an engine's configuration. It points at o and at memory of this function,
 * and is good until the next call. */
fr_status tool_placement(const fr_options *o, fr_placement_config *out, fr_err *err);

/* -ngl as tables show it: what was asked for; auto = 999 where GPUs are used, 0 where there are
 * none. */
int tool_n_gpu_layers(const fr_options *o, const fr_engine *e);

/* One line for each device in use: memory, and what is there. Nothing for a plan without GPUs. */
void tool_print_devices(const fr_plan *p);

/* The memory of each GPU in use: planned, taken now, and at most so far. */
void tool_report_gpus(const fr_engine *e);

#endif
