#include "planner/solver_spread.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/solver_paths.h"

enum {
    MOST_GPUS = 4, /* all sets of them are tried */
    MOST_LAYERS = 256,
    LEADS = 8 /* parts of a layer's experts beside its dense part: the even one, some of these */
};

/* A step: layers of a class from n_from to n_to units on the GPUs, one layer after another. */
typedef plan_path_piece step;

typedef struct {
    int item;              /* whose units move, or -1 */
    int64_t n;             /* units of it */
    double *at[MOST_GPUS]; /* [n + 1] seconds with so many on the GPUs, dense part on one */
    uint64_t bound[2]; /* bytes of what must be on GPUs, on one: away from the dense part, at it */
    uint64_t rest;     /* bytes of what stays in RAM */
} spread_class;

typedef struct {
    double seconds;
    int from, before; /* first layer of the run; GPU of the one before, or -1 */
} spread_label;

typedef struct {
    const plan_tables *t;
    plan_classes classes;
    int n_layer, n_gpus;
    int gpu[MOST_GPUS]; /* of the set */
    double away;        /* part of a layer's experts on each GPU that has not the dense part */
    uint64_t left[MOST_GPUS]; /* room beside what is fixed */
    uint64_t ram;             /* the same of the RAM */
    spread_class *of;         /* [n_classes] */
    step *steps;
    int n_steps;
    int64_t *level, *best_level; /* [n_layer] */
    uint64_t experts[2];         /* bytes of them on a GPU, were all away, at it: at these levels */
    uint64_t *dense;             /* [n_layer + 1] bytes of dense parts before a layer */
    uint64_t *own;               /* [n_layer + 1] the same, with the experts that go there for it */
    double *seconds[MOST_GPUS];  /* [n_layer + 1] sums before a layer, in a run on that GPU */
    spread_label *labels;        /* [n_layer + 1][n_gpus] */
    uint64_t output_bytes;
    double best;
    int *best_dense, best_output; /* [n_layer]: number in the set; -1: the CPU */
} spread;

/* Units of n on a GPU of the set: on that of the dense part, on each other one. */
static int64_t units_on(const spread *x, bool home, int64_t n)
{
    int64_t away = (int64_t)(x->away * (double)n + 1e-9);
    return home ? n - (x->n_gpus - 1) * away : away;
}

/* ---- a set of GPUs ----------------------------------------------------------------------------
 */

static bool may_be_on_all(const spread *x, const fr_item *it)
{
    for (int g = 0; g < x->n_gpus; g++)
        if (!(it->allowed >> x->gpu[g] & 1))
            return false;
    return true;
}

/* Adds what must be on the GPUs, with the dense part on the g-th. */
static void share_bound(const spread *x, int class, int g, double share[FR_PLAN_MAX_DEVICES])
{
    const plan_tables *t = x->t;
    int il = x->classes.layer_of[class];
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        int i = t->experts[il][k];
        const fr_item *it = &t->p->items[i];
        for (int b = 0; it->fixed_device < 0 && !(it->allowed & 1) && b < x->n_gpus; b++)
            share[x->gpu[b]] += t->unit_share[i] * (double)units_on(x, b == g, it->n_units);
    }
}

/* Puts what does not move where it is; false when a rule is against spreading. */
static bool settle(spread *x, int class, double share[FR_PLAN_MAX_DEVICES])
{
    const plan_tables *t = x->t;
    spread_class *c = &x->of[class];
    int il = x->classes.layer_of[class];
    memcpy(share, t->fixed_share[il], FR_PLAN_MAX_DEVICES * sizeof *share);
    *c = (spread_class){.item = -1};
    if (plan_dense_bytes(t, il) > 0 && !may_be_on_all(x, &t->p->items[t->dense[il]]))
        return false;
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        int i = t->experts[il][k];
        const fr_item *it = &t->p->items[i];
        if (it->fixed_device >= 0) {
            share[it->fixed_device] += t->unit_share[i] * (double)it->n_units;
        } else if (it->allowed & 1) {
            share[FR_PLAN_CPU] += t->unit_share[i] * (double)it->n_units;
            if (c->item < 0 && may_be_on_all(x, it)) {
                c->item = i;
                c->n = it->n_units;
            } else {
                c->rest += it->bytes;
            }
        } else if (!may_be_on_all(x, it)) {
            return false;
        }
    }
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        int i = t->experts[il][k];
        const fr_item *it = &t->p->items[i];
        for (int home = 0; it->fixed_device < 0 && !(it->allowed & 1) && home < 2; home++)
            c->bound[home] += plan_item_bytes(it, units_on(x, home > 0, it->n_units));
    }
    return true;
}

static fr_status fill_class(spread *x, int class, const double share[FR_PLAN_MAX_DEVICES],
                            fr_arena *arena, fr_err *err)
{
    const plan_tables *t = x->t;
    spread_class *c = &x->of[class];
    int il = x->classes.layer_of[class];
    double unit = c->item >= 0 ? t->unit_share[c->item] : 0, moved[FR_PLAN_MAX_DEVICES];
    for (int g = 0; g < x->n_gpus; g++) {
        c->at[g] = FR_ARENA_NEW(double, arena, (size_t)c->n + 1, err);
        if (!c->at[g])
            return FR_ENOMEM;
        for (int64_t n = 0; n <= c->n; n++) {
            memcpy(moved, share, sizeof moved);
            moved[FR_PLAN_CPU] =
                n == c->n && c->item >= 0 && share[FR_PLAN_CPU] - unit * (double)n < 1e-12
                    ? 0
                    : share[FR_PLAN_CPU] - unit * (double)n;
            for (int k = 0; k < x->n_gpus; k++)
                moved[x->gpu[k]] += unit * (double)units_on(x, k == g, n);
            share_bound(x, class, g, moved);
            c->at[g][n] = plan_tables_layer(t, il, plan_dense_of(t, il, x->gpu[g]), moved);
        }
    }
    return FR_OK;
}

/* The steps of all classes: the hull of the mean over the places of the dense part. */
static fr_status make_steps(spread *x, fr_arena *arena, fr_err *err)
{
    size_t most = 1;
    for (int c = 0; c < x->classes.n_classes; c++)
        most += (size_t)x->of[c].n;
    x->steps = FR_ARENA_NEW(step, arena, most, err);
    if (!x->steps)
        return FR_ENOMEM;
    x->n_steps = 0;
    for (int c = 0; c < x->classes.n_classes; c++) {
        const spread_class *k = &x->of[c];
        double *mean = FR_ARENA_NEW(double, arena, (size_t)k->n + 1, err);
        if (!mean)
            return FR_ENOMEM;
        for (int64_t n = 0; n <= k->n; n++)
            for (int g = 0; g < x->n_gpus; g++)
                mean[n] += k->at[g][n] / x->n_gpus;
        plan_path p = {.item = k->item, .at = mean};
        int n = k->item >= 0 ? plan_path_hull(&x->classes, &p, c, k->n) : 0;
        memcpy(x->steps + x->n_steps, x->classes.hull, (size_t)n * sizeof *x->steps);
        x->n_steps += n;
    }
    qsort(x->steps, (size_t)x->n_steps, sizeof *x->steps, plan_piece_compare);
    return FR_OK;
}

/* ---- placing dense parts ----------------------------------------------------------------------
 */

static spread_label *label_at(const spread *x, int il, int g)
{
    return &x->labels[il * x->n_gpus + g];
}

/* Bytes of a layer's experts on the GPU of its dense part, on each other one. */
static uint64_t experts_on(const spread *x, int il, bool home)
{
    const spread_class *c = &x->of[x->classes.class_of[il]];
    uint64_t bytes = c->bound[home];
    if (c->item >= 0)
        bytes += plan_item_bytes(&x->t->p->items[c->item], units_on(x, home, x->level[il]));
    return bytes;
}

/* Sums for the levels as they are; returns the least seconds that any placement takes. */
static double sum_up(spread *x)
{
    const plan_tables *t = x->t;
    double least = 0;
    for (int il = 0; il < x->n_layer; il++) {
        const spread_class *c = &x->of[x->classes.class_of[il]];
        double low = INFINITY;
        for (int g = 0; g < x->n_gpus; g++) {
            int d = x->gpu[g];
            double v = c->at[g][x->level[il]];
            low = v < low ? v : low;
            if (il > 0)
                v += t->hop[plan_dense_of(t, il - 1, d)][plan_dense_of(t, il, d)];
            x->seconds[g][il + 1] = x->seconds[g][il] + v;
        }
        x->own[il + 1] = x->own[il] + x->dense[il + 1] - x->dense[il] + experts_on(x, il, true) -
                         experts_on(x, il, false);
        least += low;
    }
    return least;
}

/* Where each layer's run begins best; runs in the order of the GPUs. `output`: the number of the
 * GPU that keeps room for the output, or -1. */
static void place_dense(spread *x, int output)
{
    const plan_tables *t = x->t;
    for (int k = 0; k < (x->n_layer + 1) * x->n_gpus; k++)
        x->labels[k].seconds = INFINITY;
    for (int g = 0; g < x->n_gpus; g++) {
        uint64_t taken = x->experts[0] + (g == output ? x->output_bytes : 0);
        if (taken > x->left[g])
            return;
        for (int from = 0; from < x->n_layer; from++) {
            spread_label way = {from == 0 ? 0 : INFINITY, from, -1};
            for (int b = 0; b < g && from > 0; b++) {
                double v = label_at(x, from, b)->seconds;
                if (v < INFINITY)
                    v += t->hop[plan_dense_of(t, from - 1, x->gpu[b])]
                               [plan_dense_of(t, from, x->gpu[g])];
                if (v < way.seconds)
                    way = (spread_label){v, from, b};
            }
            if (way.seconds == INFINITY)
                continue;
            double base = x->seconds[g][from];
            if (from > 0)
                base += t->hop[plan_dense_of(t, from - 1, x->gpu[g])]
                              [plan_dense_of(t, from, x->gpu[g])];
            for (int to = from + 1; to <= x->n_layer; to++) {
                double v = way.seconds + x->seconds[g][to] - base;
                if (x->own[to] - x->own[from] > x->left[g] - taken)
                    break;
                if (v < label_at(x, to, g)->seconds)
                    *label_at(x, to, g) = (spread_label){v, from, way.before};
            }
        }
    }
}

static void keep(spread *x, int last, int output, double seconds)
{
    x->best = seconds;
    x->best_output = output;
    memcpy(x->best_level, x->level, (size_t)x->n_layer * sizeof *x->level);
    for (int at = x->n_layer, g = last; at > 0;) {
        const spread_label *l = label_at(x, at, g);
        for (int il = l->from; il < at; il++)
            x->best_dense[il] = g;
        at = l->from;
        g = l->before;
    }
}

/* The device of the output when it is with number g of the set, or -1: where it may be besides. */
static int output_device(const spread *x, int g)
{
    int i = x->t->output_item;
    if (i >= 0 && x->t->p->items[i].fixed_device >= 0)
        return x->t->p->items[i].fixed_device;
    return g < 0 ? FR_PLAN_CPU : x->gpu[g];
}

/* Bytes of experts in RAM at these levels. */
static uint64_t ram_bytes(const spread *x)
{
    uint64_t bytes = 0;
    for (int il = 0; il < x->n_layer; il++) {
        const spread_class *c = &x->of[x->classes.class_of[il]];
        bytes += c->rest;
        if (c->item >= 0)
            bytes += plan_item_bytes(&x->t->p->items[c->item], c->n - x->level[il]);
    }
    return bytes;
}

static void try_levels(spread *x)
{
    int n = x->n_layer, outputs = x->output_bytes > 0 ? x->n_gpus : 0;
    uint64_t ram = ram_bytes(x);
    if (ram > x->ram || sum_up(x) >= x->best)
        return;
    for (int o = -1; o < outputs; o++) {
        int d = output_device(x, o);
        if (x->t->output_item >= 0 && !(x->t->p->items[x->t->output_item].allowed >> d & 1))
            continue;
        if (d == FR_PLAN_CPU && x->ram - ram < x->output_bytes)
            continue;
        place_dense(x, o);
        for (int g = 0; g < x->n_gpus; g++) {
            double v = label_at(x, n, g)->seconds;
            if (v < INFINITY)
                v += x->t->output[plan_dense_of(x->t, n - 1, x->gpu[g])][d];
            if (v < x->best)
                keep(x, g, o, v);
        }
    }
}

/* ---- levels -----------------------------------------------------------------------------------
 */

static bool has_room(const spread *x)
{
    uint64_t room = 0;
    for (int g = 0; g < x->n_gpus; g++) {
        if (x->experts[0] > x->left[g])
            return false;
        room += x->left[g] - x->experts[0];
    }
    return room >= x->dense[x->n_layer] + x->experts[1] - x->experts[0];
}

/* Adds a layer's experts, or takes them away. */
static void count_layer(spread *x, int il, bool add)
{
    for (int home = 0; home < 2; home++) {
        uint64_t bytes = experts_on(x, il, home > 0);
        x->experts[home] += add ? bytes : -bytes;
    }
}

/* All levels in their order, from none on the GPUs to as many as there is room for. */
static void try_all(spread *x)
{
    memset(x->level, 0, (size_t)x->n_layer * sizeof *x->level);
    memset(x->experts, 0, sizeof x->experts);
    for (int il = 0; il < x->n_layer; il++)
        count_layer(x, il, true);
    if (has_room(x))
        try_levels(x);
    for (int k = 0; k < x->n_steps; k++)
        for (int il = 0; il < x->n_layer; il++) {
            if (x->classes.class_of[il] != x->steps[k].class)
                continue;
            count_layer(x, il, false);
            x->level[il] = x->steps[k].n_to;
            count_layer(x, il, true);
            if (!has_room(x))
                return;
            try_levels(x);
        }
}

static void put_layer(const spread *x, plan_state *s, int il)
{
    const plan_tables *t = x->t;
    const spread_class *c = &x->of[x->classes.class_of[il]];
    int first = x->classes.layer_of[x->classes.class_of[il]], dense = t->dense[il];
    int to = x->gpu[x->best_dense[il]];
    if (dense >= 0 && plan_state_may_move(s, dense, s->device[dense], to, 1))
        plan_state_move(s, dense, s->device[dense], to, 1);
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        const fr_item *it = &t->p->items[t->experts[il][k]];
        int64_t units[FR_PLAN_MAX_DEVICES] = {0}, n = it->allowed & 1 ? 0 : it->n_units;
        if (it->fixed_device >= 0)
            continue;
        if (t->experts[first][k] == c->item)
            n = x->best_level[il];
        for (int g = 0; g < x->n_gpus; g++)
            units[x->gpu[g]] = units_on(x, g == x->best_dense[il], n);
        units[FR_PLAN_CPU] = it->n_units - n;
        plan_state_set(s, t->experts[il][k], units);
    }
}

static void put_all(const spread *x, plan_state *s)
{
    int o = x->t->output_item, to = output_device(x, x->best_output);
    plan_state_reset(s);
    if (o >= 0 && plan_state_may_move(s, o, s->device[o], to, 1))
        plan_state_move(s, o, s->device[o], to, 1);
    for (int il = 0; il < x->n_layer; il++)
        put_layer(x, s, il);
    plan_state_recount(s);
}

/* ---- solving ----------------------------------------------------------------------------------
 */

static fr_status spread_init(spread *x, const plan_tables *t, fr_arena *arena, fr_err *err)
{
    size_t n = (size_t)t->n_layer + 1;
    *x = (spread){.t = t, .n_layer = t->n_layer};
    FR_TRY(plan_classes_init(&x->classes, t, arena, err));
    x->of = FR_ARENA_NEW(spread_class, arena, (size_t)x->classes.n_classes, err);
    x->level = FR_ARENA_NEW(int64_t, arena, n, err);
    x->best_level = FR_ARENA_NEW(int64_t, arena, n, err);
    x->best_dense = FR_ARENA_NEW(int, arena, n, err);
    x->dense = FR_ARENA_NEW(uint64_t, arena, n, err);
    x->own = FR_ARENA_NEW(uint64_t, arena, n, err);
    x->labels = FR_ARENA_NEW(spread_label, arena, n * MOST_GPUS, err);
    for (int g = 0; g < MOST_GPUS; g++)
        if (!(x->seconds[g] = FR_ARENA_NEW(double, arena, n, err)))
            return FR_ENOMEM;
    if (!x->of || !x->level || !x->best_level || !x->best_dense || !x->dense || !x->own ||
        !x->labels)
        return FR_ENOMEM;
    for (int il = 0; il < t->n_layer; il++)
        x->dense[il + 1] = x->dense[il] + plan_dense_bytes(t, il);
    if (t->output_item >= 0 && t->p->items[t->output_item].fixed_device < 0)
        x->output_bytes = t->p->items[t->output_item].bytes;
    return FR_OK;
}

/* The best with the set of GPUs, sharing as x->away says. */
static fr_status try_shares(spread *x, plan_state *s, bool *found, fr_arena *arena, fr_err *err)
{
    double share[FR_PLAN_MAX_DEVICES], before = x->best;
    for (int c = 0; c < x->classes.n_classes; c++) {
        if (!settle(x, c, share))
            return FR_OK;
        FR_TRY(fill_class(x, c, share, arena, err));
    }
    FR_TRY(make_steps(x, arena, err));
    try_all(x);
    if (x->best < before) {
        put_all(x, s);
        *found = plan_state_excess(s) == 0;
    }
    return FR_OK;
}

/* The best with a set of GPUs, bit g for the g-th of `order`. */
static fr_status try_set(spread *x, const int *order, uint32_t set, plan_state *s, bool *found,
                         fr_arena *arena, fr_err *err)
{
    x->n_gpus = 0;
    for (int g = 0; g < MOST_GPUS; g++)
        if (set >> g & 1) {
            int d = order[g];
            x->left[x->n_gpus] = x->t->p->room[d];
            for (int i = 0; i < x->t->p->n_items; i++)
                x->left[x->n_gpus] -= x->t->p->items[i].fixed_bytes[d];
            x->gpu[x->n_gpus++] = d;
        }
    x->away = 1.0 / x->n_gpus;
    FR_TRY(try_shares(x, s, found, arena, err));
    for (int lead = LEADS / x->n_gpus + 1; lead < LEADS; lead++) {
        x->away = (double)(LEADS - lead) / (LEADS * (x->n_gpus - 1));
        FR_TRY(try_shares(x, s, found, arena, err));
    }
    return FR_OK;
}

fr_status plan_spread_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                            bool *found, fr_err *err)
{
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    *found = false;
    if (n < 2 || n > MOST_GPUS || t->n_layer == 0 || t->n_layer > MOST_LAYERS)
        return FR_OK;
    spread *x = FR_ARENA_NEW(spread, arena, 1, err);
    if (!x)
        return FR_ENOMEM;
    FR_TRY(spread_init(x, t, arena, err));
    x->best = seconds;
    x->ram = t->p->room[FR_PLAN_CPU];
    for (int i = 0; i < t->p->n_items; i++)
        x->ram -= t->p->items[i].fixed_bytes[FR_PLAN_CPU];
    for (uint32_t set = 1; set < 1u << n; set++)
        if (set & (set - 1))
            FR_TRY(try_set(x, order, set, s, found, arena, err));
    return FR_OK;
}
