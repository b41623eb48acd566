/* Inside the solver: filling and local search on a plan_state. */
#ifndef FR_PLANNER_SOLVER_SEARCH_H
#define FR_PLANNER_SOLVER_SEARCH_H

#include "planner/solver_prices.h"

enum { PLAN_TRAIL = 1024 };

/* Changes smaller than this part of the objective are no progress while many placements are looked
 * at; to the one that is kept, smaller ones are made too. */
#define PLAN_LEAST_GAIN 1e-5
#define PLAN_FINAL_GAIN 1e-9

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
    double change;     /* of the objective, by them */
    double least_gain; /* part of the objective that counts as progress */
    bool *active;      /* [n_items]: worth another look */
    uint64_t *seen;    /* [n_items]: marks of items that were looked at: scratch */
    uint64_t *failed;  /* [n_items]: marks of items that gain nothing as things stand */
    int n_failed;
    bool *done; /* [n_items]: scratch */
    uint64_t random;
    int64_t n_trials; /* layers looked at so far: what the search costs */
} plan_search;

fr_status plan_search_init(plan_search *x, plan_state *s, fr_arena *arena, fr_err *err);

/* As after init. */
void plan_search_restart(plan_search *x);

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

/* Puts some layers somewhere else, whatever it costs: a run of them to one device, two devices or
 * two runs exchanged, or layers placed anew at other prices. Improves round them. Needs a GPU and a
 * layer. */
void plan_search_shake(plan_search *x, plan_prices *prices);

#endif
