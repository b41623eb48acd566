#include "planner/solver_shares.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/solver_paths.h"

enum { MOST_GPUS = 8, MOST_LAYERS = 256, MOST_STEPS = 64 };

/* The parts of a layer's experts that are tried, of 64: by the speeds that GPUs have, as the more
 * of them, the more there is to try. */
static const signed char FINE[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
                                   17, 18, 19, 20, 21, 22, 23, 24, 26, 28, 30, 32, 34, 36, 38, 40,
                                   42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 61, 62, 63, 64, 0};
static const signed char MIDDLE[] = {1,  2,  3,  4,  5,  6,  7,  8,  10, 12, 14, 16,
                                     18, 20, 24, 28, 32, 40, 48, 56, 60, 62, 64, 0};
static const signed char COARSE[] = {2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 0};
static const signed char ROUGH[] = {4, 8, 12, 16, 32, 64, 0};
static const signed char *const STEPS[MOST_GPUS + 1] = {FINE,   FINE,  FINE,  MIDDLE, COARSE,
                                                        COARSE, ROUGH, ROUGH, ROUGH};

/* GPUs of one speed, the one with most room first. */
typedef struct {
    int gpu[MOST_GPUS], n;
    int64_t most[MOST_GPUS]; /* of all layers' experts, as a helper: in parts of n_parts */
} speed;

typedef struct {
    double seconds;
    int from, before; /* first layer of the run; number in the core of the GPU before, or -1 */
} share_label;

/* Parts of each layer's experts, of n_parts; the RAM has the rest. */
typedef struct {
    int kind, n_core;                  /* the speed of the core; it is the first of that speed */
    int64_t lead, level;               /* beside the dense part; on the others of the core */
    int64_t help[FR_PLAN_MAX_DEVICES]; /* on devices that are no core */
} sharing;

typedef struct {
    const plan_tables *t;
    plan_classes classes;
    int n_layer, n_speeds;
    const signed char *steps; /* of MOST_STEPS, 0 ends them */
    int *count;               /* [n_classes] layers */
    speed speeds[MOST_GPUS];
    uint64_t left[FR_PLAN_MAX_DEVICES]; /* room beside what is fixed */
    uint64_t output_bytes;
    int64_t n_parts;     /* experts of a layer */
    uint64_t *bytes;     /* [n_parts + 1]: of so many parts of all layers */
    double *seconds;     /* [n_layer + 1] sums before a layer, with hops inside a run */
    int64_t *own;        /* [n_layer + 1] sums of the bytes that come with the dense parts */
    share_label *labels; /* [n_layer + 1][MOST_GPUS] */
    double output;       /* least seconds */
    double best;
    sharing best_sharing;
    int *best_dense, best_output; /* [n_layer]: device */
} shares;

/* ---- parts ------------------------------------------------------------------------------------
 */

static int64_t units_of(const shares *x, const fr_item *it, int64_t part)
{
    return it->fixed_device >= 0 ? 0 : it->n_units * part / x->n_parts;
}

static uint64_t layer_bytes(const shares *x, int il, int64_t part)
{
    uint64_t bytes = 0;
    for (int k = 0; k < 2 && x->t->experts[il][k] >= 0; k++) {
        const fr_item *it = &x->t->p->items[x->t->experts[il][k]];
        bytes += plan_item_bytes(it, units_of(x, it, part));
    }
    return bytes;
}

/* Units of an item on each device, with the dense part on d. What RAM would have is there, or on d
 * where a rule keeps it out of RAM. */
static void units_on(const shares *x, const sharing *q, const fr_item *it, int d,
                     int64_t units[FR_PLAN_MAX_DEVICES])
{
    int64_t rest = it->n_units;
    memset(units, 0, FR_PLAN_MAX_DEVICES * sizeof *units);
    if (it->fixed_device >= 0) {
        units[it->fixed_device] = rest;
        return;
    }
    for (int b = 1; b < x->t->n_devices; b++) {
        int64_t part = b == d ? q->lead : q->help[b];
        units[b] = part > 0 ? units_of(x, it, part) : 0;
        rest -= units[b];
    }
    for (int k = 0; q->level > 0 && k < q->n_core; k++) {
        int b = x->speeds[q->kind].gpu[k];
        units[b] = b == d ? units[b] : units_of(x, it, q->level);
        rest -= b == d ? 0 : units[b];
    }
    units[it->allowed & 1 ? FR_PLAN_CPU : d] += rest;
}

/* Seconds of a layer with the dense part on d; *bytes, when wanted: of its experts there. */
static double seconds_of(const shares *x, const sharing *q, int il, int d, uint64_t *bytes)
{
    const plan_tables *t = x->t;
    double share[FR_PLAN_MAX_DEVICES];
    memcpy(share, t->fixed_share[il], sizeof share);
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        int64_t units[FR_PLAN_MAX_DEVICES];
        const fr_item *it = &t->p->items[t->experts[il][k]];
        units_on(x, q, it, d, units);
        for (int b = 0; b < t->n_devices; b++)
            share[b] += t->unit_share[t->experts[il][k]] * (double)units[b];
        if (bytes && it->fixed_device < 0)
            *bytes += plan_item_bytes(it, units[d]);
    }
    return plan_tables_layer(t, il, plan_dense_of(t, il, d), share);
}

/* ---- dense parts ------------------------------------------------------------------------------
 */

static share_label *label_at(const shares *x, int il, int k)
{
    return &x->labels[il * MOST_GPUS + k];
}

static double hop(const shares *x, int il, int a, int b)
{
    return x->t->hop[plan_dense_of(x->t, il - 1, a)][plan_dense_of(x->t, il, b)];
}

/* The runs on the k-th of the core that begin at a layer. */
static void run_from(shares *x, const sharing *q, int k, int from, uint64_t room)
{
    const int *gpu = x->speeds[q->kind].gpu;
    share_label way = {from == 0 ? 0 : INFINITY, from, -1};
    for (int b = 0; b < k && from > 0; b++) {
        double v = label_at(x, from, b)->seconds;
        v += v < INFINITY ? hop(x, from, gpu[b], gpu[k]) : 0;
        if (v < way.seconds)
            way = (share_label){v, from, b};
    }
    if (way.seconds == INFINITY)
        return;
    double base = x->seconds[from] + (from > 0 ? hop(x, from, gpu[k], gpu[k]) : 0);
    for (int to = from + 1; to <= x->n_layer; to++) {
        double v = way.seconds + x->seconds[to] - base;
        if (x->own[to] - x->own[from] > (int64_t)room)
            break;
        if (v < label_at(x, to, k)->seconds)
            *label_at(x, to, k) = (share_label){v, from, way.before};
    }
}

static void sum_up(shares *x, const sharing *q)
{
    int d = x->speeds[q->kind].gpu[0];
    for (int il = 0; il < x->n_layer; il++) {
        uint64_t bytes = plan_dense_bytes(x->t, il);
        double v = seconds_of(x, q, il, d, &bytes) + (il > 0 ? hop(x, il, d, d) : 0);
        x->seconds[il + 1] = x->seconds[il] + v;
        x->own[il + 1] = x->own[il] + (int64_t)bytes - (int64_t)layer_bytes(x, il, q->level);
    }
}

static void keep(shares *x, const sharing *q, int last, int output, double seconds)
{
    x->best = seconds;
    x->best_sharing = *q;
    x->best_output = output;
    for (int at = x->n_layer, k = last; at > 0;) {
        const share_label *l = label_at(x, at, k);
        for (int il = l->from; il < at; il++)
            x->best_dense[il] = x->speeds[q->kind].gpu[k];
        at = l->from;
        k = l->before;
    }
}

static bool is_core(const shares *x, const sharing *q, int d)
{
    for (int k = 0; k < q->n_core; k++)
        if (x->speeds[q->kind].gpu[k] == d)
            return true;
    return false;
}

/* Whether the output may be on a device beside all else, the core not counted. */
static bool output_fits(const shares *x, const sharing *q, int d)
{
    int i = x->t->output_item;
    if (i < 0)
        return d == FR_PLAN_CPU;
    const fr_item *it = &x->t->p->items[i];
    if (it->fixed_device >= 0)
        return d == it->fixed_device;
    if (!(it->allowed >> d & 1))
        return false;
    return d == FR_PLAN_CPU || is_core(x, q, d) ||
           (q->help[d] == 0 && x->left[d] >= x->output_bytes);
}

/* Where each layer's run begins best, with the output on a device. */
static void place(shares *x, const sharing *q, int output)
{
    for (int k = 0; k < (x->n_layer + 1) * MOST_GPUS; k++)
        x->labels[k].seconds = INFINITY;
    for (int k = 0; k < q->n_core; k++) {
        int d = x->speeds[q->kind].gpu[k];
        uint64_t taken = x->bytes[q->level] + (d == output ? x->output_bytes : 0);
        for (int from = 0; taken <= x->left[d] && from < x->n_layer; from++)
            run_from(x, q, k, from, x->left[d] - taken);
    }
    for (int k = 0; k < q->n_core; k++) {
        int last = plan_dense_of(x->t, x->n_layer - 1, x->speeds[q->kind].gpu[k]);
        double v = label_at(x, x->n_layer, k)->seconds;
        if (v + x->t->output[last][output] < x->best)
            keep(x, q, k, output, v + x->t->output[last][output]);
    }
}

/* ---- all sharings -----------------------------------------------------------------------------
 */

/* Bytes of experts in RAM; the dense parts are on GPUs. */
static uint64_t ram_bytes(const shares *x, const sharing *q)
{
    const plan_tables *t = x->t;
    uint64_t bytes = 0;
    for (int c = 0; c < x->classes.n_classes; c++) {
        int il = x->classes.layer_of[c];
        for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
            int64_t units[FR_PLAN_MAX_DEVICES];
            const fr_item *it = &t->p->items[t->experts[il][k]];
            units_on(x, q, it, x->speeds[q->kind].gpu[0], units);
            if (it->fixed_device < 0)
                bytes += (uint64_t)x->count[c] * plan_item_bytes(it, units[FR_PLAN_CPU]);
        }
    }
    return bytes;
}

static void try_sharing(shares *x, const sharing *q)
{
    double least = x->output;
    uint64_t ram = ram_bytes(x, q), room = x->left[FR_PLAN_CPU];
    if (ram > room)
        return;
    for (int c = 0; c < x->classes.n_classes && least < x->best; c++)
        least +=
            x->count[c] * seconds_of(x, q, x->classes.layer_of[c], x->speeds[q->kind].gpu[0], NULL);
    if (least >= x->best)
        return;
    sum_up(x, q);
    for (int d = 0; d < x->t->n_devices; d++)
        if (output_fits(x, q, d) && (d != FR_PLAN_CPU || room - ram >= x->output_bytes))
            place(x, q, d);
}

/* Helpers of one speed, from the first that is no core on: n of them at a level, as far as they
 * have room and there are experts left; false when not all of them have some. */
static bool add_helpers(const shares *x, sharing *q, int kind, int n, int64_t level, int64_t *rest)
{
    const speed *v = &x->speeds[kind];
    int first = kind == q->kind ? q->n_core : 0;
    bool reached = kind == q->kind && q->n_core > 1;
    if (v->most[first] < level && !reached)
        return false;
    for (int k = first; k < first + n; k++) {
        int64_t part = v->most[k] < level ? v->most[k] : level;
        part = part < *rest ? part : *rest;
        if (part == 0)
            return false;
        q->help[v->gpu[k]] = part;
        *rest -= part;
    }
    return true;
}

static void try_helpers(shares *x, const sharing *base, int kind, int64_t rest)
{
    if (kind == x->n_speeds) {
        try_sharing(x, base);
        return;
    }
    bool own = kind == base->kind;
    int most = x->speeds[kind].n - (own ? base->n_core : 0);
    try_helpers(x, base, kind + 1, rest);
    for (int n = 1; n <= most && rest > 0; n++)
        for (const signed char *step = x->steps; *step > 0; step++) {
            int64_t level = x->n_parts * *step / MOST_STEPS, left = rest;
            sharing q = *base;
            if (own && base->n_core > 1 && level != base->level)
                continue;
            if (add_helpers(x, &q, kind, n, level, &left))
                try_helpers(x, &q, kind + 1, left);
        }
}

/* The core has room for dense parts and experts, seen together. */
static bool has_room(const shares *x, const sharing *q)
{
    const speed *v = &x->speeds[q->kind];
    uint64_t room = 0, need = x->bytes[q->lead];
    for (int k = 0; k < q->n_core; k++) {
        uint64_t level = q->n_core > 1 ? x->bytes[q->level] : 0;
        if (x->left[v->gpu[k]] < level)
            return false;
        room += x->left[v->gpu[k]] - level;
    }
    for (int il = 0; il < x->n_layer; il++)
        need += plan_dense_bytes(x->t, il);
    need -= q->n_core > 1 ? x->bytes[q->level] : 0;
    return need <= room;
}

static void try_lead(shares *x, int kind, int n_core, int64_t lead, int64_t level)
{
    sharing q = {.kind = kind, .n_core = n_core, .lead = lead, .level = level};
    int64_t rest = x->n_parts - lead - (n_core - 1) * level;
    if (rest >= 0 && level <= lead && has_room(x, &q))
        try_helpers(x, &q, 0, rest);
}

static void try_core(shares *x, int kind, int n_core)
{
    try_lead(x, kind, n_core, 0, 0);
    for (const signed char *lead = x->steps; *lead > 0; lead++) {
        int64_t n = x->n_parts * *lead / MOST_STEPS;
        try_lead(x, kind, n_core, n, 0);
        for (const signed char *k = x->steps; n_core > 1 && *k > 0; k++)
            try_lead(x, kind, n_core, n, x->n_parts * *k / MOST_STEPS);
    }
}

/* ---- the best one -----------------------------------------------------------------------------
 */

static void put(plan_state *s, int item, int to)
{
    if (item >= 0 && plan_state_may_move(s, item, s->device[item], to, 1))
        plan_state_move(s, item, s->device[item], to, 1);
}

static void put_all(const shares *x, plan_state *s)
{
    const plan_tables *t = x->t;
    plan_state_reset(s);
    put(s, t->output_item, x->best_output);
    for (int il = 0; il < x->n_layer; il++) {
        put(s, t->dense[il], x->best_dense[il]);
        for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
            const fr_item *it = &t->p->items[t->experts[il][k]];
            int64_t units[FR_PLAN_MAX_DEVICES];
            units_on(x, &x->best_sharing, it, x->best_dense[il], units);
            if (it->fixed_device < 0)
                plan_state_set(s, t->experts[il][k], units);
        }
    }
    plan_state_recount(s);
}

/* ---- tables -----------------------------------------------------------------------------------
 */

/* Rules leave all GPUs to what they do not settle. */
static bool is_free(const plan_tables *t, const int *order, int n)
{
    for (int i = 0; i < t->p->n_items; i++) {
        const fr_item *it = &t->p->items[i];
        for (int k = 0; k < n; k++)
            if (it->kind != FR_ITEM_OUTPUT && it->kind != FR_ITEM_EMBED && it->fixed_device < 0 &&
                !(it->allowed >> order[k] & 1))
                return false;
    }
    return true;
}

static int64_t most_parts(const shares *x, uint64_t room)
{
    int64_t n = x->n_parts;
    while (n > 0 && x->bytes[n] > room)
        n--;
    return n;
}

static void find_speeds(shares *x, const int *order, int n)
{
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < x->n_speeds && !plan_gpus_alike(x->t, order[i], x->speeds[k].gpu[0]))
            k++;
        speed *v = &x->speeds[k];
        int at = v->n++;
        for (; at > 0 && x->left[v->gpu[at - 1]] < x->left[order[i]]; at--)
            v->gpu[at] = v->gpu[at - 1];
        v->gpu[at] = order[i];
        x->n_speeds += k == x->n_speeds;
    }
    for (int k = 0; k < x->n_speeds; k++)
        for (int i = 0; i < x->speeds[k].n; i++)
            x->speeds[k].most[i] = most_parts(x, x->left[x->speeds[k].gpu[i]]);
    x->steps = STEPS[x->n_speeds];
}

static void find_output(shares *x, const int *order, int n)
{
    int last = x->n_layer - 1;
    x->output = INFINITY;
    for (int d = 0; d < x->t->n_devices; d++)
        for (int k = 0; k < n; k++)
            x->output = fmin(x->output, x->t->output[plan_dense_of(x->t, last, order[k])][d]);
}

static fr_status shares_init(shares *x, const int *order, int n, fr_arena *arena, fr_err *err)
{
    const plan_tables *t = x->t;
    size_t width = (size_t)t->n_layer + 1;
    FR_TRY(plan_classes_init(&x->classes, t, arena, err));
    for (int i = 0; i < t->p->n_items; i++)
        x->n_parts = t->p->items[i].n_units > x->n_parts ? t->p->items[i].n_units : x->n_parts;
    x->count = FR_ARENA_NEW(int, arena, (size_t)x->classes.n_classes, err);
    x->bytes = FR_ARENA_NEW(uint64_t, arena, (size_t)x->n_parts + 1, err);
    x->seconds = FR_ARENA_NEW(double, arena, width, err);
    x->own = FR_ARENA_NEW(int64_t, arena, width, err);
    x->labels = FR_ARENA_NEW(share_label, arena, width * MOST_GPUS, err);
    x->best_dense = FR_ARENA_NEW(int, arena, width, err);
    if (!x->count || !x->bytes || !x->seconds || !x->own || !x->labels || !x->best_dense)
        return FR_ENOMEM;
    memcpy(x->left, t->p->room, sizeof x->left);
    for (int i = 0; i < t->p->n_items; i++)
        for (int d = 0; d < t->n_devices; d++)
            x->left[d] -= t->p->items[i].fixed_bytes[d];
    for (int il = 0; il < t->n_layer; il++) {
        x->count[x->classes.class_of[il]]++;
        for (int64_t k = 0; k <= x->n_parts; k++)
            x->bytes[k] += layer_bytes(x, il, k);
    }
    if (t->output_item >= 0 && t->p->items[t->output_item].fixed_device < 0)
        x->output_bytes = t->p->items[t->output_item].bytes;
    find_speeds(x, order, n);
    find_output(x, order, n);
    return FR_OK;
}

fr_status plan_shares_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                            bool *found, fr_err *err)
{
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    plan_state trial;
    *found = false;
    if (n == 0 || n > MOST_GPUS || t->n_layer == 0 || t->n_layer > MOST_LAYERS ||
        !is_free(t, order, n))
        return FR_OK;
    shares *x = FR_ARENA_NEW(shares, arena, 1, err);
    if (!x)
        return FR_ENOMEM;
    *x = (shares){.t = t, .n_layer = t->n_layer, .best = seconds};
    FR_TRY(shares_init(x, order, n, arena, err));
    for (int kind = 0; kind < x->n_speeds; kind++)
        for (int n_core = 1; n_core <= x->speeds[kind].n; n_core++)
            try_core(x, kind, n_core);
    if (x->best == seconds)
        return FR_OK;
    FR_TRY(plan_state_init(&trial, t, arena, err));
    put_all(x, &trial);
    *found = plan_state_excess(&trial) == 0;
    if (*found)
        plan_state_copy(s, &trial);
    return FR_OK;
}
