#include "planner/solver_resort.h"

#include "planner/solver_search.h"

enum {
    FINALISTS = 4,
    MAX_SHAKES = 400,
    SHAKE_TRIALS = 1500000, /* some 0.2 s */
    MORE_SHAKES = 4         /* times as many where nothing that fits is known */
};

/* ---- starts -----------------------------------------------------------------------------------
 */

/* Dense parts and the output packed into one GPU after the other, beginning with the k-th. */
static void start_packed(plan_search *x, int k)
{
    const plan_tables *t = x->t;
    int order[FR_MAX_GPUS];
    for (int i = 0; i < x->n_gpus; i++)
        order[i] = x->order[(k + i) % x->n_gpus];
    for (int il = 0; il < t->n_layer; il++)
        if (t->dense[il] >= 0)
            plan_state_first_fit(x->s, t->dense[il], order, x->n_gpus);
    if (t->output_item >= 0)
        plan_state_first_fit(x->s, t->output_item, order, x->n_gpus);
}

/* What cannot be cut, the largest first, to the device with the most room left: a start that finds
 * room for everything where room is short. */
static void start_tight(plan_search *x)
{
    const plan_tables *t = x->t;
    uint64_t below = UINT64_MAX;
    for (;;) {
        uint64_t largest = 0;
        for (int i = 0; i < t->p->n_items; i++)
            if (t->p->items[i].kind != FR_ITEM_EXPERTS && t->p->items[i].bytes < below &&
                t->p->items[i].bytes > largest)
                largest = t->p->items[i].bytes;
        if (largest == 0)
            return;
        for (int i = 0; i < t->p->n_items; i++)
            if (t->p->items[i].kind != FR_ITEM_EXPERTS && t->p->items[i].bytes == largest)
                plan_search_roomiest(x, i);
        below = largest;
    }
}

static bool start(plan_search *x, plan_prices *prices, int which)
{
    plan_state_reset(x->s);
    if (which < PLAN_BASELINES)
        plan_state_baseline(x->s, (plan_baseline)which);
    else if (which == PLAN_BASELINES)
        start_tight(x);
    else if (which <= PLAN_BASELINES + x->n_gpus)
        start_packed(x, which - PLAN_BASELINES - 1);
    else
        return plan_prices_next(prices, x->s);
    return true;
}

/* ---- solve ------------------------------------------------------------------------------------
 */

static bool is_better(const plan_state *a, const plan_state *b)
{
    uint64_t ea = plan_state_excess(a), eb = plan_state_excess(b);
    return ea != eb ? ea < eb : a->seconds < b->seconds;
}

/* Keeps the best FINALISTS, the best first. */
static void enter(plan_state *finalists, int *n, const plan_state *s)
{
    int at = *n;
    while (at > 0 && is_better(s, &finalists[at - 1]))
        at--;
    if (at == FINALISTS)
        return;
    plan_state last = finalists[*n < FINALISTS ? *n : FINALISTS - 1];
    for (int k = *n < FINALISTS ? *n : FINALISTS - 1; k > at; k--)
        finalists[k] = finalists[k - 1];
    finalists[at] = last;
    plan_state_copy(&finalists[at], s);
    *n += *n < FINALISTS;
}

/* Iterated local search from the best; returns where the best is then. */
static int shake(plan_search *x, plan_prices *prices, plan_state *finalists, int best)
{
    int other = best == 0 ? 1 : 0;
    int64_t begin = x->n_trials;
    bool can = x->n_gpus > 0 && x->t->n_layer > 0;
    for (int k = 0; can; k++) {
        int more = plan_state_excess(&finalists[best]) > 0 ? MORE_SHAKES : 1;
        if (k >= more * MAX_SHAKES || x->n_trials - begin >= (int64_t)more * SHAKE_TRIALS)
            break;
        plan_state_copy(&finalists[other], &finalists[best]);
        x->s = &finalists[other];
        plan_search_shake(x, prices);
        if (is_better(&finalists[other], &finalists[best])) {
            int last = best;
            best = other;
            other = last;
        }
    }
    x->s = &finalists[best];
    x->least_gain = PLAN_FINAL_GAIN;
    plan_search_improve(x);
    plan_search_tidy(x);
    return best;
}

/* ---- all --------------------------------------------------------------------------------------
 */

fr_status plan_resort_solve(const plan_tables *t, plan_state *s, fr_arena *arena, fr_err *err)
{
    plan_state finalists[FINALISTS];
    plan_search *x = FR_ARENA_NEW(plan_search, arena, 1, err);
    plan_prices *prices = FR_ARENA_NEW(plan_prices, arena, 1, err);
    int n = 0, best = 0;
    if (!x || !prices)
        return FR_ENOMEM;
    for (int k = 0; k < FINALISTS; k++)
        FR_TRY(plan_state_init(&finalists[k], t, arena, err));
    FR_TRY(plan_search_init(x, s, arena, err));
    FR_TRY(plan_prices_init(prices, t, arena, err));
    for (int k = 0; start(x, prices, k); k++) {
        plan_search_fill(x);
        enter(finalists, &n, s);
    }
    for (int k = 0; k < n; k++) {
        x->s = &finalists[k];
        plan_search_improve(x);
        if (is_better(&finalists[k], &finalists[best]))
            best = k;
    }
    plan_state_copy(s, &finalists[shake(x, prices, finalists, best)]);
    return FR_OK;
}
