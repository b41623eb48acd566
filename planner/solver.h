/* The solver: fills what the rules leave open, within hard budgets, so that plan_objective is
 * least.
 *
 * It has families of placements, each of which finds its best member exactly: runs (solver_runs.h),
 * spread (solver_spread.h), shares (solver_shares.h), chains (solver_chains.h), and all placements
 * of tiny models (solver_exact.h). What a family consists of does not depend on the GPUs' rooms, or
 * only so that more room adds to it. The best of all families is the answer; so with more VRAM it
 * is never slower: by construction. The same holds for more RAM.
 *
 * Where no family has anything that fits, a search is the last resort (solver_resort.h), and
 * nothing is promised for larger machines. Nor is it where the caller asks for the search's
 * placement if that is faster (fr_plan_options.search). */
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
 * under 2 s for 1,200 tensors, 8 GPUs of 8 kinds and 384 experts a layer. FR_ENOMEM when nothing
 * fits (too_small), or when an allocation failed. Not worse than first-fit by layer, all experts in
 * RAM, and last layers first. */
typedef struct {
    int64_t (*units)[FR_PLAN_MAX_DEVICES]; /* n_items rows, owned by the caller's arena */
    double objective;
    bool last_resort; /* not of the families: with more memory it may be slower */
    bool too_small;   /* set with FR_ENOMEM: nothing that fits was found, the rest is not set */
} fr_solution;
fr_status plan_solve(const fr_problem *p, fr_arena *arena, fr_solution *out, fr_err *err);

/* The search alone; fails as plan_solve does. */
fr_status plan_solve_by_search(const fr_problem *p, fr_arena *arena, fr_solution *out, fr_err *err);

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
