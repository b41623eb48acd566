/* The cost model: predicted seconds of a step, from bytes and operations over the rates of the
 * hardware.
 *
 * Rates here are fixed figures of the INI file; measured ones come with the engine's calibration.
 * Each resource (a device's memory, its arithmetic, a link, RAM) is busy for a time; what can
 * overlap counts as the maximum, what cannot as the sum. */
#ifndef FR_PLANNER_COST_H
#define FR_PLANNER_COST_H

#include "planner/plan.h"

/* Where a candidate puts things, in the form that is quick to evaluate: bytes of each layer's parts
 * per device. */
typedef struct {
    int n_devices;
    int64_t n_layer;
    int *dense_device; /* [n_layer]: attention, dense parts, shared experts, KV */
    double (*expert_share)[FR_PLAN_MAX_DEVICES]; /* [n_layer]: part of the routed experts' bytes per
                                                    device */
    int output_device;
} fr_assignment;

/* Seconds of one step of n_tokens at a depth, and the name of the resource that bounds it. */
double plan_step_seconds(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                         const fr_assignment *a, int64_t depth, int64_t n_tokens,
                         char bound_by[48]);

/* The figure that the solver minimises for a goal: seconds per token, weighed over decode and
 * prefill. */
double plan_objective(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                      const fr_assignment *a);

#endif
