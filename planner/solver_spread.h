/* Inside the solver: the best placement of a second family, exactly.
 *
 * The family. Some of the GPUs share the experts of every layer in proportion to their speed, so
 * that they work side by side; the dense parts are on them in runs, one after another in the order
 * of the GPUs. Layers go from RAM to the GPUs in steps, the best gain per byte first.
 *
 * As with runs (solver_runs.h), nothing depends on budgets but what fits. */
#ifndef FR_PLANNER_SOLVER_SPREAD_H
#define FR_PLANNER_SOLVER_SPREAD_H

#include "planner/solver_state.h"

/* Puts the best one into *s if it takes less than `seconds`; else *s is not touched. *found: it is
 * within the rooms, those of the RAM included. */
fr_status plan_spread_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                            bool *found, fr_err *err);

#endif
