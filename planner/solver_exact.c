#include "planner/solver_exact.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/solver_paths.h"

/* Placements that are looked at, and ways to place one layer, at most. */
static const double MOST_PLACEMENTS = 4e6, MOST_OPTIONS = 3000;

enum { MOST_LAYERS = 16, LEAST_PARTS = 2 };

/* A way to place a layer. */
typedef struct {
    double seconds;
    int dense;
    uint64_t bytes[FR_PLAN_MAX_DEVICES];
    short units[2][FR_PLAN_MAX_DEVICES];
} layer_option;

typedef struct {
    layer_option *options; /* the fastest first */
    int n;
} option_list;

typedef struct {
    const plan_tables *t;
    plan_classes classes;
    int device[FR_PLAN_MAX_DEVICES], n_devices; /* the CPU and the GPUs in use */
    int64_t parts;                              /* in which a layer's experts are cut; 0: units */
    option_list *lists;                         /* [n_classes] */
    double least[MOST_LAYERS + 1];              /* of the layers from one on */
    const layer_option *way[MOST_LAYERS], *best_way[MOST_LAYERS];
    uint64_t left[FR_PLAN_MAX_DEVICES];
    uint64_t output_bytes;
    double best;
    int best_output;
} exact;

/* ---- options ----------------------------------------------------------------------------------
 */

static bool is_free(const fr_item *it)
{
    return it->fixed_device < 0 && it->n_units > 0;
}

/* Units that are moved together. */
static int64_t grain_of(const exact *x, const fr_item *it)
{
    return x->parts > 0 ? (it->n_units + x->parts - 1) / x->parts : 1;
}

static int n_allowed(const exact *x, const fr_item *it)
{
    int n = 0;
    for (int k = 0; k < x->n_devices; k++)
        n += it->allowed >> x->device[k] & 1;
    return n;
}

static bool has_dense(const plan_tables *t, int il)
{
    return t->dense[il] >= 0 && is_free(&t->p->items[t->dense[il]]);
}

/* How many ways there are to place a layer. */
static double count_options(const exact *x, int il)
{
    const plan_tables *t = x->t;
    double n = has_dense(t, il) ? n_allowed(x, &t->p->items[t->dense[il]]) : 1;
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        const fr_item *it = &t->p->items[t->experts[il][k]];
        if (!is_free(it))
            continue;
        double grains = (double)((it->n_units - 1) / grain_of(x, it) + 1);
        for (int d = 1; d < n_allowed(x, it); d++)
            n *= (grains + d) / d;
    }
    return n;
}

static bool is_few(const exact *x)
{
    double n = x->n_devices;
    for (int il = 0; il < x->t->n_layer; il++) {
        double ways = count_options(x, il);
        n *= ways;
        if (ways > MOST_OPTIONS || n > MOST_PLACEMENTS)
            return false;
    }
    return true;
}

/* The finest parts of which there are few enough placements; false: there are none. */
static bool choose_parts(exact *x)
{
    if (x->t->n_layer > MOST_LAYERS)
        return false;
    for (x->parts = 0; !is_few(x); x->parts = x->parts == 0 ? 16 : x->parts / 2)
        if (x->parts == LEAST_PARTS)
            return false;
    return true;
}

/* ---- making options ---------------------------------------------------------------------------
 */

typedef struct {
    exact *x;
    option_list *list;
    int il;
    layer_option now;
} option_maker;

static void add_option(option_maker *k)
{
    const plan_tables *t = k->x->t;
    layer_option *o = &k->list->options[k->list->n++];
    double share[FR_PLAN_MAX_DEVICES];
    *o = k->now;
    memset(o->bytes, 0, sizeof o->bytes);
    memcpy(share, t->fixed_share[k->il], sizeof share);
    if (has_dense(t, k->il))
        o->bytes[o->dense] = t->p->items[t->dense[k->il]].bytes;
    for (int e = 0; e < 2 && t->experts[k->il][e] >= 0; e++) {
        int i = t->experts[k->il][e];
        for (int d = 0; d < t->n_devices; d++) {
            share[d] += t->unit_share[i] * o->units[e][d];
            if (is_free(&t->p->items[i]))
                o->bytes[d] += plan_item_bytes(&t->p->items[i], o->units[e][d]);
        }
    }
    o->seconds = plan_tables_layer(t, k->il, o->dense, share);
}

static void add_experts(option_maker *k, int e);

/* Grains of an item of experts on the devices from the at-th on; the last one may be smaller. */
static void add_grains(option_maker *k, int e, int at, int64_t rest)
{
    const exact *x = k->x;
    const fr_item *it = &x->t->p->items[x->t->experts[k->il][e]];
    int64_t grain = grain_of(x, it), less = ((it->n_units - 1) / grain + 1) * grain - it->n_units;
    if (rest == 0) {
        add_experts(k, e + 1);
        return;
    }
    if (at == x->n_devices)
        return;
    int d = x->device[at];
    for (int64_t n = 0; n <= (it->allowed >> d & 1 ? rest : 0); n++) {
        k->now.units[e][d] = (short)(n * grain - (n > 0 && n == rest ? less : 0));
        add_grains(k, e, at + 1, rest - n);
    }
    k->now.units[e][d] = 0;
}

static void add_experts(option_maker *k, int e)
{
    const plan_tables *t = k->x->t;
    if (e == 2 || t->experts[k->il][e] < 0) {
        add_option(k);
        return;
    }
    const fr_item *it = &t->p->items[t->experts[k->il][e]];
    if (is_free(it)) {
        add_grains(k, e, 0, (it->n_units - 1) / grain_of(k->x, it) + 1);
        return;
    }
    if (it->fixed_device >= 0)
        k->now.units[e][it->fixed_device] = (short)it->n_units;
    add_experts(k, e + 1);
}

/* Whether another option is as fast and takes as little anywhere. */
static bool is_beaten(const exact *x, const layer_option *o, const layer_option *by)
{
    if (by->dense != o->dense || by->seconds > o->seconds)
        return false;
    for (int d = 0; d < x->t->n_devices; d++)
        if (by->bytes[d] > o->bytes[d])
            return false;
    return true;
}

static int compare(const void *a, const void *b)
{
    const layer_option *x = a, *y = b;
    if (x->seconds != y->seconds)
        return x->seconds < y->seconds ? -1 : 1;
    if (x->dense != y->dense)
        return x->dense < y->dense ? -1 : 1;
    return memcmp(x->units, y->units, sizeof x->units);
}

static fr_status make_options(exact *x, int class, fr_arena *arena, fr_err *err)
{
    const plan_tables *t = x->t;
    int il = x->classes.layer_of[class], n = 0;
    option_list *list = &x->lists[class];
    option_maker k = {.x = x, .list = list, .il = il};
    list->options = FR_ARENA_NEW(layer_option, arena, (size_t)count_options(x, il) + 1, err);
    if (!list->options)
        return FR_ENOMEM;
    for (int d = 0; d < x->n_devices; d++) {
        k.now.dense = plan_dense_of(t, il, x->device[d]);
        bool may = !has_dense(t, il) || t->p->items[t->dense[il]].allowed >> x->device[d] & 1;
        if (may)
            add_experts(&k, 0);
        if (!has_dense(t, il))
            break;
    }
    qsort(list->options, (size_t)list->n, sizeof *list->options, compare);
    for (int i = 0; i < list->n; i++) {
        bool beaten = false;
        for (int j = 0; j < n && !beaten; j++)
            beaten = is_beaten(x, &list->options[i], &list->options[j]);
        if (!beaten)
            list->options[n++] = list->options[i];
    }
    list->n = n;
    return FR_OK;
}

/* ---- all placements ---------------------------------------------------------------------------
 */

static bool has_room(const exact *x, const layer_option *o)
{
    for (int d = 0; d < x->t->n_devices; d++)
        if (o->bytes[d] > x->left[d])
            return false;
    return true;
}

static void try_output(exact *x, int last, double seconds)
{
    const plan_tables *t = x->t;
    const fr_item *it = t->output_item >= 0 ? &t->p->items[t->output_item] : NULL;
    for (int k = 0; k < t->n_devices; k++) {
        int d = it && it->fixed_device >= 0 ? it->fixed_device : k;
        bool may = it ? it->fixed_device >= 0 || (it->allowed >> d & 1) : d == FR_PLAN_CPU;
        if (!may || x->left[d] < x->output_bytes || seconds + t->output[last][d] >= x->best)
            continue;
        x->best = seconds + t->output[last][d];
        x->best_output = d;
        memcpy(x->best_way, x->way, sizeof x->way);
    }
}

/* Layers from il on; the one before is on `last`. */
static void try_layer(exact *x, int il, int last, double seconds)
{
    const plan_tables *t = x->t;
    if (il == t->n_layer) {
        try_output(x, last, seconds);
        return;
    }
    const option_list *list = &x->lists[x->classes.class_of[il]];
    for (int k = 0; k < list->n; k++) {
        const layer_option *o = &list->options[k];
        double v = seconds + o->seconds;
        if (v + x->least[il + 1] >= x->best)
            return; /* the others take longer */
        if (il > 0)
            v += t->hop[last][o->dense];
        if (v + x->least[il + 1] >= x->best || !has_room(x, o))
            continue;
        for (int d = 0; d < t->n_devices; d++)
            x->left[d] -= o->bytes[d];
        x->way[il] = o;
        try_layer(x, il + 1, o->dense, v);
        for (int d = 0; d < t->n_devices; d++)
            x->left[d] += o->bytes[d];
    }
}

/* ---- solving ----------------------------------------------------------------------------------
 */

static void put(plan_state *s, int item, int to)
{
    if (item >= 0 && plan_state_may_move(s, item, s->device[item], to, 1))
        plan_state_move(s, item, s->device[item], to, 1);
}

static void put_all(const exact *x, plan_state *s)
{
    const plan_tables *t = x->t;
    plan_state_reset(s);
    put(s, t->output_item, x->best_output);
    for (int il = 0; il < t->n_layer; il++) {
        const layer_option *o = x->best_way[il];
        put(s, t->dense[il], o->dense);
        for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
            int64_t units[FR_PLAN_MAX_DEVICES];
            for (int d = 0; d < FR_PLAN_MAX_DEVICES; d++)
                units[d] = o->units[k][d];
            if (is_free(&t->p->items[t->experts[il][k]]))
                plan_state_set(s, t->experts[il][k], units);
        }
    }
    plan_state_recount(s);
}

static void exact_init(exact *x)
{
    const fr_problem *p = x->t->p;
    int order[FR_MAX_GPUS], n = plan_gpu_order(p, order), output = x->t->output_item;
    x->device[x->n_devices++] = FR_PLAN_CPU;
    for (int i = 0; i < n; i++)
        x->device[x->n_devices++] = order[i];
    memcpy(x->left, p->room, sizeof x->left);
    for (int i = 0; i < p->n_items; i++)
        for (int d = 0; d < x->t->n_devices; d++)
            x->left[d] -= p->items[i].fixed_bytes[d];
    if (output >= 0 && p->items[output].fixed_device < 0)
        x->output_bytes = p->items[output].bytes;
}

fr_status plan_exact_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                           bool *found, fr_err *err)
{
    *found = false;
    exact *x = FR_ARENA_NEW(exact, arena, 1, err);
    if (!x)
        return FR_ENOMEM;
    x->t = t;
    x->best = seconds;
    exact_init(x);
    if (t->n_layer == 0 || !choose_parts(x))
        return FR_OK;
    FR_TRY(plan_classes_init(&x->classes, t, arena, err));
    x->lists = FR_ARENA_NEW(option_list, arena, (size_t)x->classes.n_classes, err);
    if (!x->lists)
        return FR_ENOMEM;
    for (int k = 0; k < x->classes.n_classes; k++)
        FR_TRY(make_options(x, k, arena, err));
    for (int il = t->n_layer - 1; il >= 0; il--) {
        const option_list *list = &x->lists[x->classes.class_of[il]];
        x->least[il] = x->least[il + 1] + (list->n > 0 ? list->options[0].seconds : INFINITY);
    }
    try_layer(x, 0, FR_PLAN_CPU, 0);
    if (!x->best_way[0])
        return FR_OK;
    put_all(x, s);
    *found = plan_state_excess(s) == 0;
    return FR_OK;
}
