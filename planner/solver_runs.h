/* Inside the solver: the best placement of a family, exactly.
 *
 * The family. Layers are cut into runs, one after another. A run has a crew: the device of the
 * dense parts, and the GPU that its experts fill, which may be the same; or one GPU for the experts
 * of its first layers and another one for the others. Every GPU is in one crew at most, so its
 * room is for one run: there, experts go from RAM to it in the order of their gain per byte
 * (solver_paths.h). A run's last layer may have a part of its experts on the GPU of the next run.
 * The output is on any device.
 *
 * What of the family fits is found by dynamic programming over the layers and the GPUs that are
 * used up; nothing in it depends on budgets but what fits. So with more VRAM it has all that it
 * had with less, and its best is not slower: by construction, not by search. */
#ifndef FR_PLANNER_SOLVER_RUNS_H
#define FR_PLANNER_SOLVER_RUNS_H

#include "planner/solver_state.h"

enum {
    PLAN_RUNS_GPUS = 8,    /* more of them are not looked at */
    PLAN_RUNS_LAYERS = 256 /* more are not looked at: n^2 runs */
};

/* Puts the best one into *s, which the tables t belong to, if it takes less than `seconds`: *found.
 * Nothing is looked for where the RAM is short: the best within its room is not found here
 * (solver_chains.h). */
fr_status plan_runs_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                          bool *found, fr_err *err);

#endif
