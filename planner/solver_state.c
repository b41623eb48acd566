#include "planner/solver_state.h"

#include <string.h>

/* Slices of three weights, a few runs of experts each, every one rounded up to FR_MEM_ALIGN. */
enum { SLICE_SLACK = 16 * FR_MEM_ALIGN };

static uint64_t unit_bytes(const fr_item *item)
{
    return item->bytes > 0 ? (item->bytes - 1) / (uint64_t)item->n_units + 1 : 0;
}

/* With the bytes of a unit at hand: the search asks often. */
static inline uint64_t part_bytes(const fr_item *item, uint64_t unit, int64_t n)
{
    uint64_t part = unit * (uint64_t)n + SLICE_SLACK;
    return n <= 0 ? 0 : part < item->bytes ? part : item->bytes;
}

uint64_t plan_item_bytes(const fr_item *item, int64_t n)
{
    return part_bytes(item, unit_bytes(item), n);
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static void index_item(plan_tables *t, int i)
{
    const fr_item *it = &t->p->items[i];
    int il = it->layer;
    if (it->kind == FR_ITEM_OUTPUT || (it->kind == FR_ITEM_EMBED && t->output_item < 0))
        t->output_item = i;
    if (it->kind == FR_ITEM_DENSE)
        t->dense[il] = i;
    if (it->kind == FR_ITEM_EXPERTS)
        t->experts[il][t->experts[il][0] >= 0] = i;
}

/* What parts of a layer's experts its units and its fixed bytes are. */
static void share_out(plan_tables *t, int il)
{
    double all = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
            const fr_item *it = &t->p->items[t->experts[il][k]];
            if (pass == 1 && all > 0)
                t->unit_share[t->experts[il][k]] = (double)it->bytes / all / (double)it->n_units;
            all += pass == 0 ? (double)it->bytes : 0;
            for (int d = 0; d < t->n_devices; d++)
                if (pass == 0)
                    all += (double)it->fixed_bytes[d];
                else if (all > 0)
                    t->fixed_share[il][d] += (double)it->fixed_bytes[d] / all;
        }
}

/* A number without pattern (the finalizer of splitmix64). */
static uint64_t scatter(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

/* What a unit of an item adds to its layer's mark on a device. */
static uint64_t unit_mark(const plan_tables *t, int item, int d)
{
    const fr_item *it = &t->p->items[item];
    int slot = it->kind == FR_ITEM_DENSE ? 0 : 1 + (item == t->experts[it->layer][1]);
    return scatter((uint64_t)(1 + slot * FR_PLAN_MAX_DEVICES + d));
}

static bool same_item(const plan_tables *t, int a, int b)
{
    const fr_item *x, *y;
    if (a < 0 || b < 0)
        return a == b;
    x = &t->p->items[a];
    y = &t->p->items[b];
    return x->bytes == y->bytes && x->n_units == y->n_units && x->allowed == y->allowed &&
           x->fixed_device == y->fixed_device &&
           memcmp(x->fixed_bytes, y->fixed_bytes, sizeof x->fixed_bytes) == 0;
}

static bool same_layer(const plan_tables *t, int a, int b)
{
    return same_item(t, t->dense[a], t->dense[b]) &&
           same_item(t, t->experts[a][0], t->experts[b][0]) &&
           same_item(t, t->experts[a][1], t->experts[b][1]) &&
           memcmp(t->layers[a], t->layers[b], sizeof t->layers[a]) == 0;
}

static void find_twins(plan_tables *t)
{
    for (int il = 0; il < t->n_layer; il++) {
        int k = 0;
        while (t->twin[k] != k || !same_layer(t, k, il))
            if (++k == il)
                break;
        t->twin[il] = k;
    }
}

/* The times of the parts of all layers and of the output. */
static void fill_times(plan_tables *t)
{
    const fr_model *m = t->p->m;
    const plan_goal *g = &t->goal;
    plan_work output = plan_output_work(m);
    for (int k = 0; k < 2; k++) {
        for (int il = 0; il < t->n_layer; il++) {
            plan_layer_work w = plan_layer_work_of(m, il);
            t->layers[il][k] = plan_layer_times_of(&g->steps[k], &w);
        }
        for (int a = 0; a < t->n_devices; a++)
            for (int b = 0; b < t->n_devices; b++) {
                t->hop[a][b] += g->weights[k] * g->steps[k].hop[a][b];
                t->output[a][b] +=
                    g->weights[k] * plan_output_seconds(&g->steps[k], &output, a, b, NULL);
            }
    }
}

fr_status plan_tables_init(plan_tables *t, const fr_problem *p, fr_arena *arena, fr_err *err)
{
    size_t n = (size_t)p->m->hp.n_layer;
    *t =
        (plan_tables){.p = p, .n_layer = (int)n, .n_devices = 1 + p->hw->n_gpus, .output_item = -1};
    plan_goal_init(&t->goal, p->m, p->hw, p->o);
    t->layers = fr_arena_alloc(arena, n, sizeof *t->layers, err);
    t->hop = fr_arena_alloc(arena, FR_PLAN_MAX_DEVICES, sizeof *t->hop, err);
    t->output = fr_arena_alloc(arena, FR_PLAN_MAX_DEVICES, sizeof *t->output, err);
    t->dense = FR_ARENA_NEW(int, arena, n, err);
    t->unit_mark = fr_arena_alloc(arena, (size_t)p->n_items, sizeof *t->unit_mark, err);
    t->known = FR_ARENA_NEW(plan_known_layer, arena, PLAN_KNOWN_LAYERS, err);
    t->twin = FR_ARENA_NEW(int, arena, n, err);
    t->experts = fr_arena_alloc(arena, n, sizeof *t->experts, err);
    t->fixed_share = fr_arena_alloc(arena, n, sizeof *t->fixed_share, err);
    t->unit_share = FR_ARENA_NEW(double, arena, (size_t)p->n_items, err);
    t->unit_bytes = FR_ARENA_NEW(uint64_t, arena, (size_t)p->n_items, err);
    if (!t->layers || !t->hop || !t->output || !t->dense || !t->twin || !t->experts ||
        !t->fixed_share || !t->unit_share || !t->unit_bytes || !t->unit_mark || !t->known)
        return FR_ENOMEM;
    for (int il = 0; il < t->n_layer; il++)
        t->dense[il] = t->experts[il][0] = t->experts[il][1] = -1;
    for (int i = 0; i < p->n_items; i++) {
        t->unit_bytes[i] = unit_bytes(&p->items[i]);
        index_item(t, i);
    }
    for (int i = 0; i < p->n_items; i++)
        for (int d = 0; d < t->n_devices && p->items[i].layer >= 0; d++)
            t->unit_mark[i][d] = unit_mark(t, i, d);
    for (int il = 0; il < t->n_layer; il++)
        share_out(t, il);
    fill_times(t);
    find_twins(t);
    return FR_OK;
}

int plan_gpu_order(const fr_problem *p, int order[FR_MAX_GPUS])
{
    int n = p->o->n_gpus > 0 ? p->o->n_gpus : p->hw->n_gpus;
    for (int i = 0; i < n; i++)
        order[i] = 1 + (p->o->n_gpus > 0 ? p->o->gpus[i] : i);
    return n;
}

bool plan_ram_is_ample(const fr_problem *p)
{
    uint64_t bytes = 0;
    for (int i = 0; i < p->n_items; i++)
        bytes += p->items[i].fixed_bytes[FR_PLAN_CPU] +
                 (p->items[i].allowed & 1 ? p->items[i].bytes : 0);
    return bytes <= p->room[FR_PLAN_CPU];
}

static bool are_as_fast(const fr_gpu_hw *a, const fr_gpu_hw *b)
{
    return a->bandwidth == b->bandwidth && a->f16_ops == b->f16_ops && a->int8_ops == b->int8_ops &&
           a->h2d == b->h2d && a->d2h == b->d2h;
}

static bool has_fixed(const fr_problem *p, int d)
{
    for (int i = 0; i < p->n_items; i++)
        if (p->items[i].fixed_device == d || p->items[i].fixed_bytes[d] > 0)
            return true;
    return false;
}

bool plan_gpus_alike(const plan_tables *t, int a, int b)
{
    const fr_problem *p = t->p;
    if (t->goal.machine.has_twins || !are_as_fast(&p->hw->gpus[a - 1], &p->hw->gpus[b - 1]))
        return false;
    for (int i = 0; i < p->n_items; i++)
        if ((p->items[i].allowed >> a & 1) != (p->items[i].allowed >> b & 1))
            return false;
    return !has_fixed(p, a) && !has_fixed(p, b);
}

/* ---- state ------------------------------------------------------------------------------------
 */

fr_status plan_state_init(plan_state *s, const plan_tables *t, fr_arena *arena, fr_err *err)
{
    size_t n = (size_t)t->p->n_items;
    *s = (plan_state){.t = t};
    s->units = fr_arena_alloc(arena, n, sizeof *s->units, err);
    s->device = FR_ARENA_NEW(int, arena, n, err);
    s->marks = FR_ARENA_NEW(uint64_t, arena, (size_t)t->n_layer, err);
    s->layers = FR_ARENA_NEW(double, arena, (size_t)t->n_layer + 1, err);
    if (!s->units || !s->device || !s->marks || !s->layers)
        return FR_ENOMEM;
    plan_state_reset(s);
    return FR_OK;
}

void plan_state_copy(plan_state *to, const plan_state *from)
{
    const plan_tables *t = from->t;
    memcpy(to->units, from->units, (size_t)t->p->n_items * sizeof *to->units);
    memcpy(to->used, from->used, sizeof to->used);
    memcpy(to->device, from->device, (size_t)t->p->n_items * sizeof *to->device);
    memcpy(to->marks, from->marks, (size_t)t->n_layer * sizeof *to->marks);
    memcpy(to->layers, from->layers, ((size_t)t->n_layer + 1) * sizeof *to->layers);
    to->seconds = from->seconds;
}

static int first_device(const plan_tables *t, const fr_item *it)
{
    if (it->fixed_device >= 0)
        return it->fixed_device;
    for (int d = 0; d < t->n_devices; d++)
        if (it->allowed >> d & 1)
            return d;
    return FR_PLAN_CPU;
}

int plan_state_device(const plan_state *s, int item)
{
    return item >= 0 ? s->device[item] : FR_PLAN_CPU;
}

static int layer_device(const plan_state *s, int il)
{
    return plan_state_device(s, s->t->dense[il]);
}

static void layer_share(const plan_state *s, int il, double share[FR_PLAN_MAX_DEVICES])
{
    const plan_tables *t = s->t;
    for (int d = 0; d < t->n_devices; d++)
        share[d] = t->fixed_share[il][d];
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        int i = t->experts[il][k];
        for (int d = 0; d < t->n_devices; d++)
            share[d] += t->unit_share[i] * (double)s->units[i][d];
    }
}

double plan_tables_layer(const plan_tables *t, int il, int dense,
                         const double share[FR_PLAN_MAX_DEVICES])
{
    const plan_goal *g = &t->goal;
    const plan_layer_times *lt = t->layers[il];
    return g->weights[0] * plan_layer_seconds(&g->steps[0], &lt[0], dense, share, NULL) +
           g->weights[1] * plan_layer_seconds(&g->steps[1], &lt[1], dense, share, NULL);
}

static void mark_layer(plan_state *s, int il)
{
    const plan_tables *t = s->t;
    int items[PLAN_LAYER_ITEMS] = {t->dense[il], t->experts[il][0], t->experts[il][1]};
    s->marks[il] = scatter((uint64_t)(1000 + t->twin[il]));
    for (int k = 0; k < PLAN_LAYER_ITEMS; k++)
        for (int d = 0; items[k] >= 0 && d < t->n_devices; d++)
            s->marks[il] += (uint64_t)s->units[items[k]][d] * t->unit_mark[items[k]][d];
}

/* Seconds of a layer as it is placed, without the way to it. */
static double part_seconds(const plan_state *s, int il)
{
    double share[FR_PLAN_MAX_DEVICES];
    layer_share(s, il, share);
    return plan_tables_layer(s->t, il, layer_device(s, il), share);
}

static double with_hop(const plan_state *s, int il, double seconds)
{
    if (il == 0)
        return seconds;
    return seconds + s->t->hop[layer_device(s, il - 1)][layer_device(s, il)];
}

static double layer_seconds(const plan_state *s, int il)
{
    plan_known_layer *k = &s->t->known[s->marks[il] % PLAN_KNOWN_LAYERS];
    if (k->mark != s->marks[il])
        *k = (plan_known_layer){s->marks[il], part_seconds(s, il)};
    return with_hop(s, il, k->seconds);
}

static double output_seconds(const plan_state *s)
{
    int d = plan_state_device(s, s->t->output_item);
    return s->t->output[s->t->n_layer > 0 ? layer_device(s, s->t->n_layer - 1) : d][d];
}

void plan_state_reset(plan_state *s)
{
    const plan_tables *t = s->t;
    memset(s->used, 0, sizeof s->used);
    for (int i = 0; i < t->p->n_items; i++) {
        const fr_item *it = &t->p->items[i];
        int to = first_device(t, it);
        memset(s->units[i], 0, sizeof s->units[i]);
        s->units[i][to] = it->n_units;
        s->device[i] = to;
        s->used[to] += it->bytes;
        for (int d = 0; d < t->n_devices; d++)
            s->used[d] += it->fixed_bytes[d];
    }
    for (int il = 0; il < t->n_layer; il++)
        mark_layer(s, il);
    plan_state_recount(s);
}

void plan_state_recount(plan_state *s)
{
    for (int il = 0; il < s->t->n_layer; il++)
        s->layers[il] = with_hop(s, il, part_seconds(s, il));
    s->layers[s->t->n_layer] = output_seconds(s);
    plan_state_objective(s);
}

double plan_state_objective(plan_state *s)
{
    s->seconds = 0;
    for (int il = 0; il <= s->t->n_layer; il++)
        s->seconds += s->layers[il];
    return s->seconds;
}

uint64_t plan_state_excess(const plan_state *s)
{
    uint64_t sum = 0;
    for (int d = 0; d < s->t->n_devices; d++)
        if (s->used[d] > s->t->p->room[d])
            sum += s->used[d] - s->t->p->room[d];
    return sum;
}

static uint64_t neighbour(const plan_state *s, int il)
{
    int d = -1;
    if (il == s->t->n_layer)
        d = FR_PLAN_MAX_DEVICES + plan_state_device(s, s->t->output_item);
    else if (il >= 0)
        d = layer_device(s, il);
    return (uint64_t)(d + 2);
}

uint64_t plan_state_mark(const plan_state *s, int item)
{
    const plan_tables *t = s->t;
    const fr_item *it = &t->p->items[item];
    int il = it->layer;
    if (il < 0)
        return (uint64_t)item;
    if (it->kind == FR_ITEM_EXPERTS)
        return s->marks[il] + (item == t->experts[il][0] ? 1 : 2);
    return s->marks[il] + (neighbour(s, il - 1) << 8) + (neighbour(s, il + 1) << 16);
}

bool plan_state_may_move(const plan_state *s, int item, int from, int to, int64_t n)
{
    const fr_item *it = &s->t->p->items[item];
    return it->fixed_device < 0 && from != to && n > 0 && s->units[item][from] >= n &&
           (it->allowed >> to & 1);
}

static double update(double *place, double value)
{
    double change = value - *place;
    *place = value;
    return change;
}

double plan_state_move(plan_state *s, int item, int from, int to, int64_t n)
{
    const plan_tables *t = s->t;
    const fr_item *it = &t->p->items[item];
    int64_t *u = s->units[item];
    uint64_t unit = t->unit_bytes[item];
    s->used[from] -= part_bytes(it, unit, u[from]) - part_bytes(it, unit, u[from] - n);
    s->used[to] += part_bytes(it, unit, u[to] + n) - part_bytes(it, unit, u[to]);
    u[from] -= n;
    u[to] += n;
    if (it->layer >= 0)
        s->marks[it->layer] += (uint64_t)n * (t->unit_mark[item][to] - t->unit_mark[item][from]);
    double change = 0;
    if (it->kind == FR_ITEM_EXPERTS)
        return update(&s->layers[it->layer], layer_seconds(s, it->layer));
    s->device[item] = to;
    if (item == t->output_item)
        change += update(&s->layers[t->n_layer], output_seconds(s));
    if (it->kind != FR_ITEM_DENSE)
        return change;
    change += update(&s->layers[it->layer], layer_seconds(s, it->layer));
    if (it->layer + 1 < t->n_layer)
        return change + update(&s->layers[it->layer + 1], layer_seconds(s, it->layer + 1));
    return change + update(&s->layers[t->n_layer], output_seconds(s));
}

void plan_state_set(plan_state *s, int item, const int64_t units[FR_PLAN_MAX_DEVICES])
{
    for (int from = 0; from < s->t->n_devices; from++)
        for (int to = 0; to < s->t->n_devices; to++) {
            int64_t extra = s->units[item][from] - units[from];
            int64_t wanted = units[to] - s->units[item][to], n = extra < wanted ? extra : wanted;
            if (plan_state_may_move(s, item, from, to, n))
                plan_state_move(s, item, from, to, n);
        }
}

double plan_state_trial(plan_state *s, int item, int from, int to, int64_t n)
{
    int il = s->t->p->items[item].layer;
    uint64_t mark = s->marks[il];
    s->marks[il] += (uint64_t)n * (s->t->unit_mark[item][to] - s->t->unit_mark[item][from]);
    s->units[item][from] -= n;
    s->units[item][to] += n;
    double change = layer_seconds(s, il) - s->layers[il];
    s->units[item][from] += n;
    s->units[item][to] -= n;
    s->marks[il] = mark;
    return change;
}

uint64_t plan_state_freed(const plan_state *s, int item, int d, int64_t n)
{
    const fr_item *it = &s->t->p->items[item];
    uint64_t unit = s->t->unit_bytes[item];
    int64_t have = s->units[item][d];
    return part_bytes(it, unit, have) - part_bytes(it, unit, have - n);
}

int64_t plan_state_fit(const plan_state *s, int item, int from, int to)
{
    const fr_item *it = &s->t->p->items[item];
    uint64_t room = s->t->p->room[to], used = s->used[to], unit = s->t->unit_bytes[item];
    int64_t have = s->units[item][to], low = 0, high = s->units[item][from];
    if (used > room)
        return 0;
    while (low < high) { /* the most that fits, by halving; all of it first */
        int64_t mid = low == 0 && high == s->units[item][from] ? high : low + (high - low + 1) / 2;
        uint64_t more = part_bytes(it, unit, have + mid) - part_bytes(it, unit, have);
        if (more <= room - used)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

bool plan_state_first_fit(plan_state *s, int item, const int *order, int n)
{
    int64_t units = s->t->p->items[item].n_units;
    int from = s->device[item];
    for (int k = 0; k < n; k++) {
        int to = order[k];
        if (to == from && s->units[item][from] == units)
            return true;
        if (plan_state_may_move(s, item, from, to, units) &&
            plan_state_fit(s, item, from, to) == units) {
            plan_state_move(s, item, from, to, units);
            s->device[item] = to;
            return true;
        }
    }
    return false;
}
