/* Inside the solver: the last resort, for machines on which no family has anything that fits.
 *
 * A search, which looks for room first and then for speed. Every free item begins in RAM. Several
 * starts put parts on GPUs: packed into each GPU first, in turn; the largest first; at prices for
 * bytes (solver_prices.h); as the baselines do. From each, experts move to GPUs by gain per byte;
 * from the best few, single moves, exchanges and spreads are taken while the objective falls. The
 * best is then shaken some hundred times, and what is better after the same improvement stays
 * (iterated local search). What exceeds a budget counts before seconds, so that a start may be over
 * budget and the result is not. All of it is deterministic, and counted in steps, not in time. */
#ifndef FR_PLANNER_SOLVER_RESORT_H
#define FR_PLANNER_SOLVER_RESORT_H

#include "planner/solver_state.h"

/* Puts what it finds into *s, which belongs to the tables t; it may exceed budgets. */
fr_status plan_resort_solve(const plan_tables *t, plan_state *s, fr_arena *arena, fr_err *err);

#endif
