#include <stdio.h>

#include "planner/solver_state.h"

enum {
    MAX_STARTS = PLAN_BASELINES + 2 + FR_MAX_GPUS,
    MAX_PASSES = 40 /* of local search; it ends by itself long before */
};

/* Changes smaller than this part of the objective are rounding, not progress. */
static const double LEAST_GAIN = 1e-12;

typedef struct {
    const plan_tables *t;
    plan_state *s;
    int order[FR_MAX_GPUS], n_gpus;
} search;

/* ---- single moves -----------------------------------------------------------------------------
 */

/* Excess first, seconds second: whether a move that changed them so is progress. */
static bool better(const search *x, uint64_t excess0, uint64_t excess1, double change)
{
    if (excess1 != excess0)
        return excess1 < excess0;
    return change < -LEAST_GAIN * x->s->seconds;
}

static bool try_move(search *x, int item, int from, int to, int64_t n)
{
    if (!plan_state_may_move(x->s, item, from, to, n))
        return false;
    uint64_t before = plan_state_excess(x->s);
    double change = plan_state_move(x->s, item, from, to, n);
    if (better(x, before, plan_state_excess(x->s), change))
        return true;
    plan_state_move(x->s, item, to, from, n);
    return false;
}

/* The change of the objective if n units moved; nothing is moved in the end. */
static double trial(search *x, int item, int from, int to, int64_t n)
{
    double change = plan_state_move(x->s, item, from, to, n);
    plan_state_move(x->s, item, to, from, n);
    return change;
}

/* The number of units, at most `most`, whose move gains most: the gain has one peak below "all",
 * where both sides take equally long, and "all" may beat it, because it saves a hop. */
static int64_t best_count(search *x, int item, int from, int to, int64_t most, double *change)
{
    int64_t low = 1, high = most;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (trial(x, item, from, to, mid + 1) < trial(x, item, from, to, mid))
            low = mid + 1;
        else
            high = mid;
    }
    *change = trial(x, item, from, to, low);
    double all = low < most ? trial(x, item, from, to, most) : *change;
    if (all < *change) {
        *change = all;
        return most;
    }
    return low;
}

/* ---- filling ----------------------------------------------------------------------------------
 */

typedef struct {
    int item, from, to;
    int64_t n;
    double rate; /* change of the objective per byte: negative is good */
} fill_move;

static fill_move best_fill(search *x, int item, int from)
{
    fill_move best = {.item = item, .from = from, .rate = 0};
    const fr_item *it = &x->t->p->items[item];
    for (int k = 0; k < x->n_gpus; k++) {
        int to = x->order[k];
        int64_t most = plan_state_fit(x->s, item, from, to);
        if (!plan_state_may_move(x->s, item, from, to, most))
            continue;
        double change;
        int64_t n = best_count(x, item, from, to, most, &change);
        double rate = change / ((double)plan_item_bytes(it, n) + 1);
        if (rate < best.rate)
            best = (fill_move){item, from, to, n, rate};
    }
    return best;
}

/* Experts from RAM to GPUs, the best gain per byte first. */
static void fill(search *x, fill_move *moves)
{
    const plan_tables *t = x->t;
    int n_items = t->p->n_items;
    for (int i = 0; i < n_items; i++) {
        moves[i] = (fill_move){.item = i};
        if (t->p->items[i].kind == FR_ITEM_EXPERTS)
            moves[i] = best_fill(x, i, FR_PLAN_CPU);
    }
    for (;;) {
        int best = -1;
        for (int i = 0; i < n_items; i++)
            if (moves[i].rate < 0 && (best < 0 || moves[i].rate < moves[best].rate))
                best = i;
        if (best < 0)
            return;
        fill_move mv = moves[best];
        if (plan_state_fit(x->s, best, mv.from, mv.to) >= mv.n)
            plan_state_move(x->s, best, mv.from, mv.to, mv.n);
        moves[best] = best_fill(x, best, FR_PLAN_CPU);
    }
}

/* ---- within the budgets -----------------------------------------------------------------------
 */

/* Moves what it can from devices over budget to those with room, the least loss per byte first. */
static void repair(search *x)
{
    const plan_tables *t = x->t;
    for (int d = 0; d < t->n_devices; d++)
        for (int i = 0; i < t->p->n_items && x->s->used[d] > t->p->room[d]; i++)
            for (int to = 0; to < t->n_devices && x->s->used[d] > t->p->room[d]; to++) {
                int64_t most = plan_state_fit(x->s, i, d, to);
                if (!plan_state_may_move(x->s, i, d, to, most))
                    continue;
                int64_t low = 1; /* the fewest that end the excess */
                while (low < most) {
                    int64_t mid = low + (most - low) / 2;
                    const fr_item *it = &t->p->items[i];
                    uint64_t freed = plan_item_bytes(it, x->s->units[i][d]) -
                                     plan_item_bytes(it, x->s->units[i][d] - mid);
                    if (freed >= x->s->used[d] - t->p->room[d])
                        most = mid;
                    else
                        low = mid + 1;
                }
                plan_state_move(x->s, i, d, to, most);
            }
}

/* ---- local search -----------------------------------------------------------------------------
 */

static bool improve_item(search *x, int item)
{
    const plan_tables *t = x->t;
    bool any = false;
    for (int from = 0; from < t->n_devices; from++)
        for (int to = 0; to < t->n_devices; to++) {
            int64_t most = plan_state_fit(x->s, item, from, to);
            if (!plan_state_may_move(x->s, item, from, to, most))
                continue;
            double change;
            any |= try_move(x, item, from, to, best_count(x, item, from, to, most, &change));
        }
    return any;
}

static void improve(search *x)
{
    for (int pass = 0; pass < MAX_PASSES; pass++) {
        bool any = false;
        for (int i = 0; i < x->t->p->n_items; i++)
            any |= improve_item(x, i);
        if (!any)
            return;
        plan_state_objective(x->s);
    }
}

/* ---- starts -----------------------------------------------------------------------------------
 */

/* Dense parts packed into one GPU after the other, beginning with the k-th. */
static void start_packed(search *x, int k)
{
    const plan_tables *t = x->t;
    int order[FR_MAX_GPUS];
    for (int i = 0; i < x->n_gpus; i++)
        order[i] = x->order[(k + i) % x->n_gpus];
    plan_state_reset(x->s);
    for (int il = 0; il < t->n_layer; il++)
        if (t->dense[il] >= 0)
            plan_state_first_fit(x->s, t->dense[il], order, x->n_gpus);
    if (t->output_item >= 0)
        plan_state_first_fit(x->s, t->output_item, order, x->n_gpus);
}

static bool start(search *x, int which)
{
    if (which < PLAN_BASELINES) {
        plan_state_baseline(x->s, (plan_baseline)which);
        return true;
    }
    which -= PLAN_BASELINES;
    if (which >= x->n_gpus)
        return false;
    start_packed(x, which);
    return true;
}

static fr_status too_small(const fr_problem *p, const plan_state *s, fr_err *err)
{
    int most = 0;
    for (int d = 0; d <= p->hw->n_gpus; d++)
        if (s->used[d] > p->room[d] && (s->used[most] <= p->room[most] ||
                                        s->used[d] - p->room[d] > s->used[most] - p->room[most]))
            most = d;
    char need[32], room[32], name[16] = "CPU";
    if (most > 0)
        snprintf(name, sizeof name, "CUDA%d", most - 1);
    fr_format_bytes(s->used[most], need);
    fr_format_bytes(p->room[most], room);
    return fr_fail(err, FR_ENOMEM, "%s: found %s of room, expected %s for what must go there", name,
                   room, need);
}

fr_status plan_solve(const fr_problem *p, fr_arena *arena, fr_solution *out, fr_err *err)
{
    plan_tables t;
    plan_state s, best;
    FR_TRY(plan_tables_init(&t, p, arena, err));
    FR_TRY(plan_state_init(&s, &t, arena, err));
    FR_TRY(plan_state_init(&best, &t, arena, err));
    fill_move *moves = FR_ARENA_NEW(fill_move, arena, (size_t)p->n_items, err);
    if (!moves)
        return FR_ENOMEM;
    search x = {.t = &t, .s = &s};
    x.n_gpus = plan_gpu_order(p, x.order);
    for (int k = 0; k < MAX_STARTS; k++) {
        if (!start(&x, k))
            continue;
        repair(&x);
        fill(&x, moves);
        plan_state_objective(&s);
        improve(&x);
        plan_state_objective(&s);
        uint64_t excess = plan_state_excess(&s), least = plan_state_excess(&best);
        if (k == 0 || excess < least || (excess == least && s.seconds < best.seconds))
            plan_state_copy(&best, &s);
    }
    if (plan_state_excess(&best) > 0)
        return too_small(p, &best, err);
    *out = (fr_solution){best.units, best.seconds};
    return FR_OK;
}
