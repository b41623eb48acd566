/* The solver: fills what the rules leave open, within hard budgets, so that plan_objective is
 * least.
 *
 * Two methods. For up to eight GPUs, each a device of its own, and up to eight kinds of layers
 * (has_families in solver.c, which asks nothing about budgets), the best of three families of
 * placements is found exactly (solver_runs.h, solver_spread.h, solver_shares.h). What is in them
 * does not depend on budgets, so more memory never gives a slower one, as long as RAM holds all
 * that may be there. Where the search is better by more than 1 %, or a baseline at all, where no
 * family has anything that fits, and for all other machines, the search has the word; larger
 * machines then are not slower than the families' best (fr_solution.bound).
 *
 * The search. Every free item begins in RAM. Several starts put parts on GPUs: packed into each GPU
 * first, in turn; in proportion to room; at prices for bytes (solver_prices.h); as the baselines
 * do. From each, experts move to GPUs by gain per byte; from the best few, single moves, exchanges
 * and spreads are taken while the objective falls. The best is then shaken some hundred times, and
 * what is better after the same improvement stays (iterated local search). What exceeds a budget
 * counts before seconds, so that a start may be over budget and the result is not. All of it is
 * deterministic, and counted in steps, not in time.
 *
 * The search is a heuristic: on tiny problems it finds the best placement nearly always, on mixed
 * machines it may miss it by tenths of a percent, and then a larger machine can predict slower by
 * as much. */
#ifndef FR_PLANNER_SOLVER_H
#define FR_PLANNER_SOLVER_H

#include "planner/cost.h"

/* A thing to place: one layer's dense part (attention, norms, dense or shared feed-forward, KV),
 * one layer's routed experts (which can be cut by expert), the output, the embedding. Bytes are
 * exact. A layer may have two items of routed experts: those that a rule binds to the GPUs (CUDA*)
 * and the others. An item that is fixed whole has bytes = 0 and its weight in fixed_bytes. */
typedef enum { FR_ITEM_DENSE, FR_ITEM_EXPERTS, FR_ITEM_OUTPUT, FR_ITEM_EMBED } fr_item_kind;

typedef struct {
    fr_item_kind kind;
    int layer;
    uint64_t bytes;                            /* free to place: not fixed by a rule */
    int64_t n_units;                           /* experts it can be cut into; 1 otherwise */
    int fixed_device;                          /* -1: free; else where all of it is */
    uint32_t allowed;                          /* devices that its units may go to: bit d */
    uint64_t fixed_bytes[FR_PLAN_MAX_DEVICES]; /* parts that already are somewhere */
} fr_item;

typedef struct {
    const fr_model *m;
    const fr_hardware *hw;
    const fr_plan_options *o;
    const fr_item *items;
    int n_items;
    uint64_t room[FR_PLAN_MAX_DEVICES]; /* for items, their fixed_bytes too, after workspace,
                                           staging, reserve, margin; at least the fixed_bytes */
} fr_problem;

/* What n units of an item take on a device, at most: the slices of its weights are rounded up to
 * FR_MEM_ALIGN one by one, so a part costs a little more than its share. */
uint64_t plan_item_bytes(const fr_item *item, int64_t n);

/* units[i][d] = units of item i on device d (sums to n_units), and its objective. Deterministic;
 * under 2 s for 1,200 tensors, 8 GPUs and 384 experts a layer. FR_ENOMEM when nothing fits. Never
 * worse than first-fit by layer, all experts in RAM, and last layers first. */
typedef struct {
    int64_t (*units)[FR_PLAN_MAX_DEVICES]; /* n_items rows, owned by the caller's arena */
    double objective;
    double bound; /* no machine with more memory has a larger objective than this, or INFINITY: not
                     known */
    bool by_search; /* not of the families */
} fr_solution;
fr_status plan_solve(const fr_problem *p, fr_arena *arena, fr_solution *out, fr_err *err);

/* ---- what it must not be worse than (planner/solver_baselines.c) ------------------------------
 */

typedef enum {
    PLAN_BASELINE_FIRST_FIT,   /* layer by layer, each whole part to the first GPU with room */
    PLAN_BASELINE_EXPERTS_RAM, /* dense parts to GPUs in proportion, all experts in RAM */
    PLAN_BASELINE_LAST_LAYERS, /* whole layers from the last one on, as -ngl N counts */
    PLAN_BASELINES
} plan_baseline;

/* FR_ENOMEM when it exceeds a budget. */
fr_status plan_solve_baseline(const fr_problem *p, plan_baseline which, fr_arena *arena,
                              fr_solution *out, fr_err *err);

#endif
