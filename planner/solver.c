#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/solver_prices.h"
#include "planner/solver_runs.h"
#include "planner/solver_search.h"
#include "planner/solver_shares.h"
#include "planner/solver_spread.h"

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

/* Where most is missing; all devices together when together they are too small. */
static fr_status too_small(const fr_problem *p, const plan_state *s, fr_err *err)
{
    int most = FR_PLAN_CPU;
    uint64_t all_room = 0, all_used = 0, worst = 0;
    char need[32], room[32], name[16] = "CPU";
    for (int d = 0; d <= p->hw->n_gpus; d++) {
        all_room += p->room[d];
        all_used += s->used[d];
        if (s->used[d] > p->room[d] && s->used[d] - p->room[d] > worst) {
            worst = s->used[d] - p->room[d];
            most = d;
        }
    }
    if (all_used > all_room)
        return fr_fail(err, FR_ENOMEM, "all devices: found %s of room, expected %s",
                       fr_format_bytes(all_room, room), fr_format_bytes(all_used, need));
    if (most > 0)
        snprintf(name, sizeof name, "CUDA%d", most - 1);
    return fr_fail(err, FR_ENOMEM, "%s: found %s of room, expected %s for what must go there", name,
                   fr_format_bytes(p->room[most], room), fr_format_bytes(s->used[most], need));
}

typedef struct {
    fr_problem p; /* with the rooms that are solved for */
    plan_tables t;
    plan_state s, finalists[FINALISTS], best, family;
    plan_search x;
    plan_prices prices;
} solver;

static fr_status solver_init(solver *v, const fr_problem *p, fr_arena *arena, fr_err *err)
{
    v->p = *p;
    FR_TRY(plan_tables_init(&v->t, &v->p, arena, err));
    FR_TRY(plan_state_init(&v->s, &v->t, arena, err));
    FR_TRY(plan_state_init(&v->best, &v->t, arena, err));
    FR_TRY(plan_state_init(&v->family, &v->t, arena, err));
    for (int k = 0; k < FINALISTS; k++)
        FR_TRY(plan_state_init(&v->finalists[k], &v->t, arena, err));
    FR_TRY(plan_search_init(&v->x, &v->s, arena, err));
    return plan_prices_init(&v->prices, &v->t, arena, err);
}

/* Solves for rooms; returns which of the finalists is best. */
static int solve_for(solver *v, const uint64_t room[FR_PLAN_MAX_DEVICES])
{
    int n = 0, best = 0;
    memcpy(v->p.room, room, sizeof v->p.room);
    plan_search_restart(&v->x);
    plan_prices_restart(&v->prices);
    v->x.s = &v->s;
    for (int k = 0; start(&v->x, &v->prices, k); k++) {
        plan_search_fill(&v->x);
        enter(v->finalists, &n, &v->s);
    }
    for (int k = 0; k < n; k++) {
        v->x.s = &v->finalists[k];
        plan_search_improve(&v->x);
        if (is_better(&v->finalists[k], &v->finalists[best]))
            best = k;
    }
    return shake(&v->x, &v->prices, v->finalists, best);
}

/* ---- more memory than is needed ---------------------------------------------------------------
 *
 * Where alike GPUs have room for everything, more of it gains little, and whatever the search
 * misses would make the larger machine the slower one. So there the machine is solved as if its
 * GPUs were smaller, with room for some multiple of all items: for each multiple that it has, so
 * that a larger machine has all plans of the smaller ones. */

static const double MULTIPLES[] = {1.02, 1.25, 2, 4, 8, 16};
static const double ALIKE = 0.9;
enum { N_MULTIPLES = sizeof MULTIPLES / sizeof *MULTIPLES, ROOM_STEP = 1 << 16 };

/* GPUs of one speed with about the same room beside what is fixed on them. */
static bool are_alike(const fr_problem *p, const uint64_t fixed[FR_PLAN_MAX_DEVICES])
{
    for (int i = 1; i < p->hw->n_gpus; i++) {
        double room_a = (double)(p->room[1] - fixed[1]);
        double room_b = (double)(p->room[1 + i] - fixed[1 + i]);
        if (!plan_gpus_alike(&p->hw->gpus[0], &p->hw->gpus[i]) || room_a < ALIKE * room_b ||
            room_b < ALIKE * room_a)
            return false;
    }
    return true;
}

static void sum_fixed(const fr_problem *p, uint64_t fixed[FR_PLAN_MAX_DEVICES])
{
    memset(fixed, 0, FR_PLAN_MAX_DEVICES * sizeof *fixed);
    for (int i = 0; i < p->n_items; i++)
        for (int d = 0; d <= p->hw->n_gpus; d++)
            fixed[d] += p->items[i].fixed_bytes[d];
}

/* The room of the GPUs beside what is fixed there, as a multiple of what is to be placed. */
static double multiple_of(const fr_problem *p, const uint64_t fixed[FR_PLAN_MAX_DEVICES])
{
    double room = 0, bytes = 1;
    for (int i = 0; i < p->n_items; i++)
        bytes += (double)p->items[i].bytes;
    for (int d = 1; d <= p->hw->n_gpus; d++)
        room += (double)(p->room[d] - fixed[d]);
    return room / bytes;
}

/* Keeps what is better than v->best; true when it does. */
static bool take(solver *v, const plan_state *s, bool any)
{
    if (plan_state_excess(s) > 0 || (any && !is_better(s, &v->best)))
        return any;
    plan_state_copy(&v->best, s);
    return true;
}

/* Solves for all smaller rooms; true when there is something in v->best that fits. */
static bool solve_smaller(solver *v, const fr_problem *p)
{
    uint64_t fixed[FR_PLAN_MAX_DEVICES], room[FR_PLAN_MAX_DEVICES];
    bool any = false;
    sum_fixed(p, fixed);
    if (!are_alike(p, fixed))
        return false;
    double multiple = multiple_of(p, fixed);
    for (int k = 0; k < N_MULTIPLES && MULTIPLES[k] <= multiple; k++) {
        memcpy(room, p->room, sizeof room);
        for (int d = 1; d <= p->hw->n_gpus; d++) {
            double part = (double)(p->room[d] - fixed[d]) * MULTIPLES[k] / multiple;
            room[d] = fixed[d] + (uint64_t)(part / ROOM_STEP) * ROOM_STEP;
        }
        any = take(v, &v->finalists[solve_for(v, room)], any);
    }
    memcpy(v->p.room, p->room, sizeof v->p.room);
    for (int k = 0; any && k < PLAN_BASELINES; k++) {
        plan_state_baseline(&v->s, (plan_baseline)k);
        take(v, &v->s, any);
    }
    return any;
}

static void solve_by_search(solver *v, const fr_problem *p)
{
    if (!solve_smaller(v, p))
        plan_state_copy(&v->best, &v->finalists[solve_for(v, p->room)]);
}

/* ---- families of placements -------------------------------------------------------------------
 *
 * This must not depend on budgets. Nobody shall have a much slower plan for the promise about
 * larger machines, so what the search finds counts where it is better by much; the promise then is
 * what the families give. */

enum { MOST_CLASSES = 8, LEAST_LAYERS = 12 };
static const double MUCH = 0.0099; /* of the objective: 1 % of the search's */

static bool has_families(const fr_problem *p, const plan_tables *t)
{
    int order[FR_MAX_GPUS], n = plan_gpu_order(p, order), n_classes = 0;
    for (int il = 0; il < t->n_layer; il++)
        n_classes += t->twin[il] == il;
    return n > 0 && n <= PLAN_RUNS_GPUS && t->n_layer >= LEAST_LAYERS &&
           n_classes <= MOST_CLASSES && !t->goal.machine.has_twins;
}

/* RAM holds all that may be there, so that no placement is lost for want of it. */
static bool ram_is_ample(const fr_problem *p)
{
    uint64_t bytes = 0;
    for (int i = 0; i < p->n_items; i++)
        bytes += p->items[i].fixed_bytes[FR_PLAN_CPU] +
                 (p->items[i].allowed & 1 ? p->items[i].bytes : 0);
    return bytes <= p->room[FR_PLAN_CPU];
}

typedef fr_status (*family_solver)(const plan_tables *t, double seconds, plan_state *s,
                                   fr_arena *arena, bool *found, fr_err *err);

/* The best of the families in v->family; *found: there is one. */
static fr_status solve_families(solver *v, fr_arena *arena, bool *found, fr_err *err)
{
    static const family_solver others[] = {plan_spread_solve, plan_shares_solve};
    FR_TRY(plan_runs_solve(&v->t, &v->s, arena, found, err));
    if (*found)
        plan_state_copy(&v->family, &v->s);
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
        double less = *found ? v->family.seconds : INFINITY;
        bool better;
        FR_TRY(others[k](&v->t, less, &v->s, arena, &better, err));
        if (better)
            plan_state_copy(&v->family, &v->s);
        *found = *found || better;
    }
    return FR_OK;
}

/* A baseline that fits takes less than the best of the families. */
static bool baseline_is_better(solver *v)
{
    for (int k = 0; k < PLAN_BASELINES; k++) {
        plan_state_baseline(&v->s, (plan_baseline)k);
        if (plan_state_excess(&v->s) == 0 &&
            v->s.seconds < v->family.seconds * (1 - PLAN_FINAL_GAIN))
            return true;
    }
    return false;
}

fr_status plan_solve(const fr_problem *p, fr_arena *arena, fr_solution *out, fr_err *err)
{
    solver *v = FR_ARENA_NEW(solver, arena, 1, err);
    if (!v)
        return FR_ENOMEM;
    FR_TRY(solver_init(v, p, arena, err));
    bool found = false;
    if (has_families(p, &v->t))
        FR_TRY(solve_families(v, arena, &found, err));
    double bound = found && ram_is_ample(p) ? v->family.seconds : INFINITY;
    solve_by_search(v, p);
    bool by_search =
        !found || (plan_state_excess(&v->best) == 0 &&
                   (v->best.seconds <= v->family.seconds * (1 - MUCH) || baseline_is_better(v)));
    if (!by_search)
        plan_state_copy(&v->best, &v->family);
    if (plan_state_excess(&v->best) > 0)
        return too_small(p, &v->best, err);
    plan_state_recount(&v->best);
    *out = (fr_solution){v->best.units, v->best.seconds, bound, by_search};
    return FR_OK;
}
