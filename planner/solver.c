#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/solver_chains.h"
#include "planner/solver_exact.h"
#include "planner/solver_resort.h"
#include "planner/solver_runs.h"
#include "planner/solver_shares.h"
#include "planner/solver_spread.h"

/* ---- what rules bind --------------------------------------------------------------------------
 *
 * The families know parts that are settled, free, or kept out of RAM. A part that a rule binds to
 * some devices is settled before, in several ways, which budgets have no say in. */

typedef enum {
    LEAVE,   /* as it is: families put it where their order asks for it, if it may be there */
    RAM,     /* to RAM where it may be, else as FASTEST */
    FASTEST, /* to the fastest of its GPUs */
    IN_TURN, /* to one of its GPUs after the other */
    N_WAYS
} settling;

static uint32_t usable(const fr_problem *p)
{
    int order[FR_MAX_GPUS], n = plan_gpu_order(p, order);
    uint32_t all = 1u << FR_PLAN_CPU;
    for (int i = 0; i < n; i++)
        all |= 1u << order[i];
    return all;
}

static bool is_bound(const fr_problem *p, int item)
{
    const fr_item *it = &p->items[item];
    uint32_t all = usable(p);
    return it->fixed_device < 0 && it->bytes > 0 && it->kind != FR_ITEM_OUTPUT &&
           it->kind != FR_ITEM_EMBED && (it->allowed & all) != all;
}

/* The k-th of the GPUs that an item may be on, or for k < 0 the fastest; -1: there is none. */
static int gpu_of(const fr_problem *p, const fr_item *it, int k)
{
    int n = 0, best = -1;
    for (int d = 1; d <= p->hw->n_gpus; d++)
        n += it->allowed >> d & 1;
    for (int d = 1, at = 0; d <= p->hw->n_gpus; d++) {
        if (!(it->allowed >> d & 1))
            continue;
        bool faster = best < 0 || p->hw->gpus[d - 1].bandwidth > p->hw->gpus[best - 1].bandwidth;
        if (k < 0 ? faster : at == k % n)
            best = d;
        at++;
    }
    return best;
}

static void settle(fr_item *it, int d)
{
    it->fixed_bytes[d] += it->bytes;
    it->bytes = 0;
    it->fixed_device = d;
    it->allowed = 1u << d;
}

/* Settles items in a copy; false when a device has no room for what is there then. */
static bool settle_all(const fr_problem *p, settling way, bool has_output, fr_item *items)
{
    int n = 0;
    for (int i = 0; i < p->n_items; i++) {
        fr_item *it = &items[i];
        *it = p->items[i];
        bool embed = it->kind == FR_ITEM_EMBED && has_output && it->fixed_device < 0;
        if (!embed && (way == LEAVE || !is_bound(p, i)))
            continue;
        int d = way == RAM || embed ? -1 : gpu_of(p, it, way == IN_TURN ? n++ : -1);
        if (d < 0)
            d = it->allowed & 1u << FR_PLAN_CPU ? FR_PLAN_CPU : gpu_of(p, it, -1);
        settle(it, d);
    }
    for (int d = 0; d <= p->hw->n_gpus; d++) {
        uint64_t sum = 0;
        for (int i = 0; i < p->n_items; i++)
            sum += items[i].fixed_bytes[d];
        if (sum > p->room[d])
            return false;
    }
    return true;
}

/* ---- families of placements -------------------------------------------------------------------
 */

typedef struct {
    const fr_problem *p;
    plan_tables t;
    plan_state best;
    bool found;
} solver;

typedef fr_status (*family_solver)(const plan_tables *t, double seconds, plan_state *s,
                                   fr_arena *arena, bool *found, fr_err *err);

/* Keeps what a family placed: the units, as the settled items of its problem stay where they are.
 */
static void keep(solver *v, const plan_state *s)
{
    const fr_problem *p = v->p;
    for (int i = 0; i < p->n_items; i++) {
        memcpy(v->best.units[i], s->units[i], sizeof s->units[i]);
        v->best.device[i] = s->device[i];
    }
    memcpy(v->best.used, s->used, sizeof s->used);
    plan_state_recount(&v->best);
    v->found = true;
}

/* The best of the families, with the items settled in one way. */
static fr_status try_way(solver *v, settling way, fr_arena *arena, fr_err *err)
{
    static const family_solver families[] = {plan_runs_solve, plan_spread_solve, plan_shares_solve,
                                             plan_chains_solve, plan_exact_solve};
    const fr_problem *p = v->p;
    fr_problem q = *p;
    plan_tables t;
    plan_state s;
    bool output = v->t.output_item >= 0 && p->items[v->t.output_item].kind == FR_ITEM_OUTPUT;
    fr_item *items = FR_ARENA_NEW(fr_item, arena, (size_t)p->n_items, err);
    if (!items)
        return FR_ENOMEM;
    q.items = items;
    if (!settle_all(p, way, output, items))
        return FR_OK;
    FR_TRY(plan_tables_init(&t, &q, arena, err));
    FR_TRY(plan_state_init(&s, &t, arena, err));
    for (size_t k = 0; k < sizeof families / sizeof *families; k++) {
        double less = v->found ? v->best.seconds : INFINITY;
        bool better;
        FR_TRY(families[k](&t, less, &s, arena, &better, err));
        if (better)
            keep(v, &s);
    }
    return FR_OK;
}

static fr_status solve_families(solver *v, fr_arena *arena, fr_err *err)
{
    bool bound = false;
    for (int i = 0; i < v->p->n_items; i++)
        bound = bound || is_bound(v->p, i);
    v->found = plan_state_excess(&v->best) == 0; /* all in RAM, or where rules want it */
    for (int way = LEAVE; way < (bound ? N_WAYS : LEAVE + 1); way++)
        FR_TRY(try_way(v, (settling)way, arena, err));
    return FR_OK;
}

/* ---- all --------------------------------------------------------------------------------------
 */

/* Where most is missing; all devices together when together they are too small. */
static fr_status too_small(const fr_problem *p, const plan_state *s, fr_solution *out, fr_err *err)
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
    out->too_small = true;
    if (all_used > all_room)
        return fr_fail(err, FR_ENOMEM, "all devices: found %s of room, expected %s",
                       fr_format_bytes(all_room, room), fr_format_bytes(all_used, need));
    if (most > 0)
        snprintf(name, sizeof name, "CUDA%d", most - 1);
    return fr_fail(err, FR_ENOMEM, "%s: found %s of room, expected %s for what must go there", name,
                   fr_format_bytes(p->room[most], room), fr_format_bytes(s->used[most], need));
}

/* More than all devices together hold. */
static bool is_too_much(const fr_problem *p)
{
    uint64_t bytes = 0, room = 0;
    for (int i = 0; i < p->n_items; i++) {
        bytes += p->items[i].bytes;
        for (int d = 0; d <= p->hw->n_gpus; d++)
            bytes += p->items[i].fixed_bytes[d];
    }
    for (int d = 0; d <= p->hw->n_gpus; d++)
        room += p->room[d];
    return bytes > room;
}

fr_status plan_solve_by_search(const fr_problem *p, fr_arena *arena, fr_solution *out, fr_err *err)
{
    solver *v = FR_ARENA_NEW(solver, arena, 1, err);
    *out = (fr_solution){0};
    if (!v)
        return FR_ENOMEM;
    FR_TRY(plan_tables_init(&v->t, p, arena, err));
    FR_TRY(plan_state_init(&v->best, &v->t, arena, err));
    FR_TRY(plan_resort_solve(&v->t, &v->best, arena, err));
    plan_state_recount(&v->best);
    if (plan_state_excess(&v->best) > 0)
        return too_small(p, &v->best, out, err);
    *out = (fr_solution){v->best.units, v->best.seconds, true, false};
    return FR_OK;
}

fr_status plan_solve(const fr_problem *p, fr_arena *arena, fr_solution *out, fr_err *err)
{
    solver *v = FR_ARENA_NEW(solver, arena, 1, err);
    *out = (fr_solution){0};
    if (!v)
        return FR_ENOMEM;
    v->p = p;
    FR_TRY(plan_tables_init(&v->t, p, arena, err));
    FR_TRY(plan_state_init(&v->best, &v->t, arena, err));
    FR_TRY(solve_families(v, arena, err));
    int order[FR_MAX_GPUS];
    bool last_resort = !v->found || plan_gpu_order(p, order) > PLAN_CHAINS_GPUS;
    if (last_resort && !is_too_much(p)) {
        FR_TRY(plan_resort_solve(&v->t, &v->best, arena, err));
        plan_state_recount(&v->best);
    }
    if (plan_state_excess(&v->best) > 0)
        return too_small(p, &v->best, out, err);
    *out = (fr_solution){v->best.units, v->best.seconds, last_resort, false};
    return FR_OK;
}
