/* Inside the solver: filling and local search on a plan_state. */
#ifndef FR_PLANNER_SOLVER_SEARCH_H
#define FR_PLANNER_SOLVER_SEARCH_H

#include "planner/solver_state.h"

enum { PLAN_TRAIL = 256 };

typedef struct {
    int item, from, to;
    int64_t n;
    double rate; /* change of the objective per byte: negative is good */
} plan_move;

typedef struct {
    const plan_tables *t;
    plan_state *s;          /* what is worked on; may be exchanged between calls */
    int order[FR_MAX_GPUS]; /* GPUs in use */
    int n_gpus;
    plan_move *fill;             /* [n_items] */
    plan_move trail[PLAN_TRAIL]; /* moves of a compound move, to be undone */
    int n_trail;
    double change; /* of the objective, by them */
    bool *active;  /* [n_items]: worth another look */
    bool *done;    /* [n_items]: scratch */
    uint64_t random;
    int64_t n_trials; /* layers looked at so far: what the search costs */
} plan_search;

fr_status plan_search_init(plan_search *x, plan_state *s, fr_arena *arena, fr_err *err);

/* Moves an item to the device with the most room left, the first of equal ones. */
void plan_search_roomiest(plan_search *x, int item);

/* Ends what exceeds a budget where that is possible; then experts from RAM to GPUs, the best gain
 * per byte first, while the objective falls. */
void plan_search_fill(plan_search *x);

/* Moves, alone or with others that make room for them, while what exceeds the budgets or else the
 * objective falls. */
void plan_search_improve(plan_search *x);

/* Where several layers have a part of their experts on a GPU and could change places at no cost:
 * makes it few layers with much. */
void plan_search_tidy(plan_search *x);

/* Puts neighbouring layers somewhere else, whatever it costs, and improves round them. Needs a GPU
 * and a layer. */
void plan_search_shake(plan_search *x);

#endif
