/* Inside the solver: the best placement of a second family, exactly.
 *
 * The family. Some of the GPUs, all of one speed, share the experts of every layer, so that they
 * work side by side: the GPU of the layer's dense part has a part of them that is the same in all
 * layers, from an even one to seven eighths, because the others' share costs the way there and
 * back; the others have equal parts of the rest. The dense parts are on them in runs, one after
 * another in the order of the GPUs. Layers go from RAM to the GPUs in steps, the best gain per byte
 * first.
 *
 * As with runs (solver_runs.h), nothing depends on budgets but what fits. */
#ifndef FR_PLANNER_SOLVER_SPREAD_H
#define FR_PLANNER_SOLVER_SPREAD_H

#include "planner/solver_state.h"

/* For GPUs of one speed, each a device of its own. Puts the best one into *s if it takes less than
 * `seconds`; else *s is not touched. *found: it is within the rooms, those of the RAM included. */
fr_status plan_spread_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                            bool *found, fr_err *err);

#endif
