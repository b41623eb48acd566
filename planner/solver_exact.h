/* Inside the solver: the best of all placements of a tiny model.
 *
 * Where a model has so few layers, and the machine so few devices, that all placements can be
 * looked at, that is done: with experts one by one, or in sixteenths, eighths, quarters, halves of
 * a layer when only these are few enough. Budgets have no say in which. */
#ifndef FR_PLANNER_SOLVER_EXACT_H
#define FR_PLANNER_SOLVER_EXACT_H

#include "planner/solver_state.h"

/* Puts the best one into *s if it takes less than `seconds`; else *s is not touched. *found: it is
 * within the rooms, those of the RAM included. */
fr_status plan_exact_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                           bool *found, fr_err *err);

#endif
