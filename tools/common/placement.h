/* What the options say about placement, in the planner's terms. */
#ifndef FR_TOOLS_PLACEMENT_H
#define FR_TOOLS_PLACEMENT_H

#include "opts/opts.h"
#include "planner/plan.h"

/* The machine: the hardware sections of the INI file, else what this machine says of itself. */
fr_status tool_hardware(const fr_options *o, fr_hardware *out, fr_err *err);

/* All rules in the order in which they apply: -ot, rule files, --cpu-moe and --n-cpu-moe. *out is
 * owned by the caller. */
fr_status tool_rules(const fr_options *o, const fr_model *m, fr_rules **out, fr_err *err);

/* Sizes, layers, GPUs. Logs what is planned in another way than asked. */
fr_status tool_plan_options(const fr_options *o, const fr_hardware *hw, fr_plan_options *out,
                            fr_err *err);

#endif
