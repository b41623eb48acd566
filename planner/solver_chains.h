/* Inside the solver: the best placement of a fourth family, exactly.
 *
 * The family. Layers are cut into segments, one after another. The dense parts of a segment are on
 * one device, its core: a GPU that is core of no other segment, or the CPU. The experts of a
 * segment's layers go to homes, one after another: a GPU, or a team of two whose shares take
 * equally long; the last layers' stay on the core, beside what is left of its room. Every GPU is a
 * core once, or (in) one home. In a home, experts go from RAM to it in the order of their gain per
 * byte, as in a run (solver_runs.h), which this family has without its finer points: here a core
 * may have any number of homes.
 *
 * Here the RAM may be short: ways that take more of it and are not slower are kept beside the
 * others, so that what is found is the best within the room of the RAM too, and experts may be on a
 * GPU that is slower than the RAM to spare that.
 *
 * As with runs, nothing depends on budgets but what fits.
 *
 * How it is found. A way is extended from the first layer to the last, home by home and segment by
 * segment; of ways that lead to the same place (the cut between layers, the GPUs taken, the core
 * and where its segment began) only those are kept that no other one beats in seconds and in RAM.
 * Before, the same steps are gone through from the last layer to the first with the RAM's room left
 * out (solver_chains_rest.c). That gives, for every place, seconds that what follows takes at
 * least; where RAM does not bind, exactly. A way that with these is not faster than a limit is
 * dropped. That loses nothing: of a way that ends below the limit every part is below it too, as
 * what follows it there takes no less than the least; and a dropped way beats only ways to the same
 * place that are dropped as well. The limit is at first just above the least of all, and raised
 * only when nothing is found, so few ways are looked at. Bound and way add the same numbers in
 * another order; a margin of 1e-9 covers what rounding makes of that. */
#ifndef FR_PLANNER_SOLVER_CHAINS_H
#define FR_PLANNER_SOLVER_CHAINS_H

#include "planner/solver_state.h"

enum { PLAN_CHAINS_GPUS = 8 /* more of them are not looked at */ };

/* Puts the best one into *s if it takes less than `seconds`; else *s is not touched. *found: it is
 * within the rooms, those of the RAM included. */
fr_status plan_chains_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                            bool *found, fr_err *err);

#endif
