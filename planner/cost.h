/* The cost model: predicted seconds of a step, from bytes and operations over the rates of the
 * hardware.
 *
 * Rates here are fixed figures of the INI file; measured ones come with the engine's calibration.
 * Each resource (a device's memory, its arithmetic, a link, RAM) is busy for a time; what can
 * overlap counts as the maximum, what cannot as the sum:
 *
 *   a part of a layer   the larger of bytes / bandwidth and operations / arithmetic
 *   a layer             attention, then its feed-forward part. Shared experts and the resident
 *                       experts of the layer's device, those of the CPU, and those of each other
 *                       GPU run side by side; a device that is not the layer's gets the hidden
 *                       state and sends its part back
 *   experts in RAM      computed by the CPU; or, in batches, sent to all GPUs over all links at
 *                       once while the layer is computed, when that is faster
 *   a step              its layers one after another, the moves of the hidden state between them,
 *                       and the output
 *
 * Routed experts are drawn evenly, so each device gets its share of what is read. A rate of 0 is
 * unknown and bounds nothing. Nothing here allocates or fails. */
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

/* Seconds of one step of n_tokens at a depth, and the name of the resource that bounds it (NULL:
 * not wanted). Up to o->n_seq tokens are one of each sequence, all at that depth; more are a piece
 * of one prompt. */
double plan_step_seconds(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                         const fr_assignment *a, int64_t depth, int64_t n_tokens,
                         char bound_by[48]);

/* The figure that the solver minimises for a goal: seconds per generated token and the prompt
 * tokens that come with it. */
double plan_objective(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                      const fr_assignment *a);

/* The table of predictions: at depths 0, 4k, 16k, 32k, or what of them fits and the deepest that
 * does. A prefill row is one ubatch, a decode row one token. */
typedef struct {
    fr_prediction prefill[4], decode[4];
    int n_prefill, n_decode;
} plan_predictions;

plan_predictions plan_predict(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                              const fr_assignment *a);

#endif
