/* What people do by hand: the placements that the solver must not be worse than. */
#include "planner/solver_state.h"

/* Layer by layer: dense part, then experts, then at last the output. */
static void first_fit(plan_state *s)
{
    const plan_tables *t = s->t;
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    for (int il = 0; il < t->n_layer; il++) {
        if (t->dense[il] >= 0)
            plan_state_first_fit(s, t->dense[il], order, n);
        for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++)
            plan_state_first_fit(s, t->experts[il][k], order, n);
    }
    if (t->output_item >= 0)
        plan_state_first_fit(s, t->output_item, order, n);
}

/* The GPU that a layer falls to when layers are shared out in proportion to room. */
static int proportional(const plan_tables *t, const int *order, int n, int il)
{
    double all = 0, sum = 0, at = (il + 0.5) / t->n_layer;
    for (int k = 0; k < n; k++)
        all += (double)t->p->room[order[k]];
    for (int k = 0; k < n; k++) {
        sum += (double)t->p->room[order[k]];
        if (sum >= at * all)
            return k;
    }
    return n - 1;
}

static void experts_ram(plan_state *s)
{
    const plan_tables *t = s->t;
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    if (n == 0)
        return;
    for (int il = 0; il < t->n_layer; il++) {
        int k = proportional(t, order, n, il);
        if (t->dense[il] >= 0)
            plan_state_first_fit(s, t->dense[il], order + k, n - k);
    }
    if (t->output_item >= 0)
        plan_state_first_fit(s, t->output_item, order + n - 1, 1);
}

/* Output first, then whole layers from the last one on, until one does not fit. */
static void last_layers(plan_state *s)
{
    const plan_tables *t = s->t;
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    if (n == 0)
        return;
    if (t->output_item >= 0)
        plan_state_first_fit(s, t->output_item, order + n - 1, 1);
    int k = n - 1;
    for (int il = t->n_layer - 1; il >= 0; il--) {
        int items[PLAN_LAYER_ITEMS] = {t->dense[il], t->experts[il][0], t->experts[il][1]};
        bool fits = true;
        for (int j = 0; j < PLAN_LAYER_ITEMS && fits; j++)
            if (items[j] >= 0 && t->p->items[items[j]].fixed_device < 0)
                fits = plan_state_first_fit(s, items[j], order + k, 1);
        if (!fits && --k < 0)
            return;
        il += !fits; /* once more, on the GPU before */
    }
}

void plan_state_baseline(plan_state *s, plan_baseline which)
{
    plan_state_reset(s);
    if (which == PLAN_BASELINE_FIRST_FIT)
        first_fit(s);
    else if (which == PLAN_BASELINE_EXPERTS_RAM)
        experts_ram(s);
    else
        last_layers(s);
    plan_state_objective(s);
}

fr_status plan_solve_baseline(const fr_problem *p, plan_baseline which, fr_arena *arena,
                              fr_solution *out, fr_err *err)
{
    plan_tables t;
    plan_state s;
    FR_TRY(plan_tables_init(&t, p, arena, err));
    FR_TRY(plan_state_init(&s, &t, arena, err));
    plan_state_baseline(&s, which);
    *out = (fr_solution){s.units, s.seconds, false, false};
    if (plan_state_excess(&s) > 0)
        return fr_fail(err, FR_ENOMEM, "plan: a fixed order of placement exceeds a budget");
    return FR_OK;
}
