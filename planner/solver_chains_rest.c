/* Inside the family of chains: the least seconds that can follow a way, whatever RAM it takes. The
 * same steps as those of the search, from the last layer to the first; as nothing is kept but one
 * figure a place, and no bytes of the RAM, that is quick. */
#include <math.h>

#include "planner/solver_chains_internal.h"

/* fmin, which has an eye on what is no number, takes most of the time here. */
static double less(double a, double b)
{
    return a < b ? a : b;
}

/* ---- places and steps -------------------------------------------------------------------------
 */

int plan_chains_used(const plan_chains *c, int state, int kind)
{
    return state / c->kinds[kind].radix % (c->kinds[kind].n + 1);
}

int plan_chains_state_with(const plan_chains *c, int state, const plan_chain_home *h)
{
    for (int g = 0; g < h->n; g++) {
        if (plan_chains_used(c, state, h->kind[g]) == c->kinds[h->kind[g]].n)
            return -1;
        state += c->kinds[h->kind[g]].radix;
    }
    return state;
}

size_t plan_chains_place(const plan_chains *c, int state, int at, int core)
{
    size_t k = (size_t)state * (size_t)c->n_cuts + (size_t)at;
    return k * (size_t)(c->n_kinds + 1) + (size_t)(core + 1);
}

double *plan_chains_inside(const plan_chains *c, int state, int at, int core)
{
    return &c->inside[plan_chains_place(c, state, at, core) * (size_t)c->n_cuts];
}

double *plan_chains_behind(const plan_chains *c, int state, int at, int core)
{
    return &c->behind[plan_chains_place(c, state, at, core)];
}

double plan_chains_way(const plan_chains *c, int before, int core, int il)
{
    const double *hops = c->hops + (size_t)(core + 1) * ((size_t)c->n_layer + 1);
    if (il == 0)
        return 0;
    int a = plan_chains_first(c, before), b = plan_chains_first(c, core);
    if (before == core && core >= 0)
        b = c->kinds[core].gpu[1];
    return c->t->hop[plan_dense_of(c->t, il - 1, a)][plan_dense_of(c->t, il, b)] -
           (hops[il + 1] - hops[il]);
}

bool plan_chains_may_output(const plan_chains *c, int device)
{
    if (c->t->output_item < 0)
        return device == FR_PLAN_CPU;
    const fr_item *it = &c->t->p->items[c->t->output_item];
    return it->fixed_device >= 0 ? it->fixed_device == device : (it->allowed >> device & 1) != 0;
}

int plan_chains_outputs(const plan_chains *c, int state, plan_chain_output *out)
{
    int n = 0;
    for (int d = 0; d < c->t->n_devices; d++)
        if (plan_chains_may_output(c, d) && (c->output_bytes == 0 || d == FR_PLAN_CPU))
            out[n++] = (plan_chain_output){d, -1};
    for (int k = 0; k < c->n_kinds && c->output_bytes > 0; k++) {
        int d = plan_chains_first(c, k);
        if (plan_chains_may_output(c, d) && plan_chains_used(c, state, k) < c->kinds[k].n &&
            c->left[d] >= c->output_bytes)
            out[n++] = (plan_chain_output){d, k};
    }
    return n;
}

double plan_chains_output_seconds(const plan_chains *c, int core, plan_chain_output o)
{
    int last = plan_dense_of(c->t, c->n_layer - 1, plan_chains_first(c, core));
    int to = o.kind >= 0 && o.kind == core ? c->kinds[o.kind].gpu[1] : o.device;
    return c->t->output[last][to];
}

/* ---- from the end -----------------------------------------------------------------------------
 */

static bool is_possible(const plan_chains *c, int state, int core)
{
    return core < 0 || plan_chains_used(c, state, core) > 0;
}

/* Places inside a segment by where it begins; those of the CPU, which has no room to share, are
 * one. */
static int n_begins(int core, int at)
{
    return core < 0 ? 1 : at + 1;
}

/* Homes that come next. */
static void go_home(plan_chains *c, int state, int at, int core)
{
    double *here = plan_chains_inside(c, state, at, core);
    int n = n_begins(core, at);
    for (int h = 0; h < c->n_homes - (core >= 0); h++) {
        int after = plan_chains_state_with(c, state, &c->homes[h]);
        if (after < 0 || !plan_chains_station(c, core, h)->paths)
            continue;
        for (int to = at + 1; to < c->n_cuts; to++) {
            const double *next = plan_chains_inside(c, after, to, core);
            double seconds = plan_chains_block(c, core, h, at, to, 0)->seconds;
            if (seconds == INFINITY)
                continue;
            for (int begin = 0; begin < n; begin++)
                here[begin] = less(here[begin], seconds + next[begin]);
        }
    }
}

/* The segment's last layers, and the output beside them. */
static void go_close(plan_chains *c, int state, int at, int core)
{
    double *here = plan_chains_inside(c, state, at, core);
    int last = c->n_cuts - 1;
    plan_chain_output o = {plan_chains_first(c, core), -1};
    bool beside = c->output_bytes > 0 && plan_chains_may_output(c, o.device);
    double output = plan_chains_output_seconds(c, core, o);
    for (int begin = 0; begin <= at; begin++) {
        for (int to = at + 1; to <= last; to++)
            here[begin] =
                less(here[begin], plan_chains_own(c, core, begin, at, to, false, 0)->seconds +
                                      *plan_chains_behind(c, state, to, core));
        if (begin < last && beside)
            here[begin] = less(
                here[begin], plan_chains_own(c, core, begin, at, last, true, 0)->seconds + output);
    }
}

/* Segments that begin here behind one on `before`. */
static void go_open(plan_chains *c, int state, int at, int before)
{
    double *behind = plan_chains_behind(c, state, at, before);
    for (int core = -1; core < c->n_kinds; core++) {
        int after = state;
        if (core >= 0)
            after = plan_chains_state_with(c, state, &c->homes[core]);
        if (after < 0 || (core < 0 && before < 0 && at > 0))
            continue;
        *behind = less(*behind, plan_chains_way(c, before, core, c->cut[at]) +
                                    plan_chains_inside(c, after, at, core)[core < 0 ? 0 : at]);
    }
}

/* The output behind the last segment. */
static void end(plan_chains *c, int state)
{
    plan_chain_output o[FR_PLAN_MAX_DEVICES];
    int n = plan_chains_outputs(c, state, o);
    for (int core = -1; core < c->n_kinds; core++) {
        double *behind = plan_chains_behind(c, state, c->n_cuts - 1, core);
        for (int k = 0; k < n; k++)
            *behind = less(*behind, plan_chains_output_seconds(c, core, o[k]));
    }
}

/* A segment may end where its last home does. */
static void end_here(plan_chains *c, int state, int at, int core)
{
    double *here = plan_chains_inside(c, state, at, core);
    double behind = *plan_chains_behind(c, state, at, core);
    if (core < 0)
        here[0] = less(here[0], behind);
    for (int begin = 0; core >= 0 && begin < at; begin++)
        here[begin] =
            less(here[begin], plan_chains_own(c, core, begin, at, at, false, 0)->seconds + behind);
}

/* All places at a cut, when those behind it are done. */
static void step_back(plan_chains *c, int at)
{
    int last = c->n_cuts - 1;
    for (int state = 0; state < c->n_states; state++)
        for (int core = -1; core < c->n_kinds; core++) {
            double *here = plan_chains_inside(c, state, at, core);
            for (int begin = 0; begin < n_begins(core, at); begin++)
                here[begin] = INFINITY;
            *plan_chains_behind(c, state, at, core) = INFINITY;
            if (!is_possible(c, state, core))
                continue;
            go_home(c, state, at, core);
            if (core >= 0)
                go_close(c, state, at, core);
        }
    for (int state = 0; state < c->n_states; state++) {
        if (at == last)
            end(c, state);
        for (int core = -1; core < c->n_kinds; core++) {
            if (at < last && is_possible(c, state, core))
                go_open(c, state, at, core); /* the CPU's first: others may go on with it */
            if (core < 0)
                end_here(c, state, at, core);
        }
    }
    for (int state = 0; state < c->n_states; state++)
        for (int core = 0; core < c->n_kinds; core++)
            end_here(c, state, at, core);
}

fr_status plan_chains_look_back(plan_chains *c, fr_arena *arena, fr_err *err)
{
    size_t n = plan_chains_place(c, c->n_states, 0, -1);
    c->inside = FR_ARENA_NEW(double, arena, n *(size_t)c->n_cuts, err);
    c->behind = FR_ARENA_NEW(double, arena, n, err);
    if (!c->inside || !c->behind)
        return FR_ENOMEM;
    for (int at = c->n_cuts - 1; at >= 0; at--)
        step_back(c, at);
    return FR_OK;
}
