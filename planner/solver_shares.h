/* Inside the solver: the best placement of a third family, exactly.
 *
 * The family. Every layer's experts are shared in the same way: a part of them is beside the dense
 * part; each GPU of the core (alike GPUs that have the dense parts in runs, one after another) has
 * a level of all other layers; helpers have a level of all layers, a smaller one where they have
 * no room for it; RAM has the rest. Helpers of one speed have one level, and the one with most
 * room reaches it. Parts and levels are of a fixed set.
 *
 * Nothing depends on budgets but what fits. Which GPUs of one speed are core and which help is
 * settled by their rooms, the core first; that loses nothing: whoever has room to be core has room
 * for its level. A helper that is given more room takes experts from RAM, up to a level that
 * another one has; no device is busy longer than before. So more VRAM is not slower. */
#ifndef FR_PLANNER_SOLVER_SHARES_H
#define FR_PLANNER_SOLVER_SHARES_H

#include "planner/solver_state.h"

/* For GPUs that are each a device of its own. Puts the best one into *s if it takes less than
 * `seconds`; else *s is not touched. *found: it is within the rooms, those of the RAM included. */
fr_status plan_shares_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                            bool *found, fr_err *err);

#endif
