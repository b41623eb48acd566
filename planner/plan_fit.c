/* Sizes, the first-fit filling, and looking for what fits. */
#include <string.h>

#include "planner/plan_internal.h"

/* No machine holds it, and the sum over all layers still is a uint64_t. */
static const uint64_t MAX_KV_LAYER = (uint64_t)1 << 50;

/* ---- sizes -------------------------------------------------------------------------------------
 */

/* Positions of one sequence. */
static int64_t seq_ctx(const plan_draft *d, int64_t n_ctx)
{
    return (n_ctx + d->o.n_seq - 1) / d->o.n_seq;
}

void plan_draft_size(plan_draft *d, int64_t n_ctx, int64_t n_ubatch)
{
    int64_t each = seq_ctx(d, n_ctx);
    d->o.n_ctx = n_ctx;
    d->o.n_ubatch = n_ubatch < each ? n_ubatch : each;
    if (__builtin_mul_overflow(plan_kv_layer_bytes(d->m, &d->o, each), (uint64_t)d->o.n_seq,
                               &d->kv_layer) ||
        d->kv_layer > MAX_KV_LAYER)
        d->kv_layer = MAX_KV_LAYER;
    d->ws = plan_workspace_bytes(d->m, d->passes, &d->o, each, d->o.n_ubatch);
    for (int i = 0; i < d->n_items; i++) {
        fr_item *it = &d->items[i];
        it->bytes = d->item_weights[i];
        if (it->kind == FR_ITEM_DENSE && it->bytes > 0 && !d->o.kv_on_cpu &&
            d->attn_home[it->layer] == PLAN_OPEN)
            it->bytes += d->kv_layer;
    }
}

static bool is_usable(const plan_draft *d, int dev)
{
    return d->usable >> dev & 1;
}

/* Bytes that are on a device whatever the filling: settled pieces and caches. */
static uint64_t settled_bytes(const plan_draft *d, int dev)
{
    uint64_t bytes = d->settled[dev];
    for (int il = 0; il < d->m->hp.n_layer; il++)
        if (d->o.kv_on_cpu ? dev == FR_PLAN_CPU : d->attn_home[il] == dev)
            bytes += d->kv_layer;
    return bytes;
}

/* What a GPU must be able to hold of the dense parts, which matter more than staging: an even part,
 * as layers, which are not cut, pack. It does not depend on what any GPU has. */
static uint64_t dense_part(const plan_draft *d)
{
    uint64_t wanted = 0, largest = 0;
    for (int i = 0; i < d->n_items; i++) {
        if (d->items[i].kind == FR_ITEM_EXPERTS)
            continue;
        wanted += d->items[i].bytes;
        largest = d->items[i].bytes > largest ? d->items[i].bytes : largest;
    }
    uint64_t n = d->n_gpus > 0 ? (uint64_t)d->n_gpus : 1;
    return (wanted + largest * (n - 1)) / n;
}

typedef struct {
    uint64_t one;   /* two buffers of an expert each */
    uint64_t most;  /* of them: a GPU's part of a layer */
    uint64_t dense; /* what is kept for dense parts */
    uint64_t taken; /* what the GPU holds besides */
} staging_need;

static uint64_t left_of(const staging_need *s, uint64_t budget)
{
    return budget > s->taken ? budget - s->taken : 0;
}

/* Experts of one staging buffer: a GPU's part of a layer, no more than a sixteenth of its memory,
 * and what is left of it beside its part of the dense weights. */
static uint64_t staged_experts(const staging_need *s, uint64_t budget)
{
    uint64_t left = left_of(s, budget), most = s->most;
    uint64_t bound = budget / 8 / s->one, room = left > s->dense ? (left - s->dense) / s->one : 0;
    most = most < bound ? most : bound;
    return most < room ? most : room;
}

static uint64_t beside_staging(const staging_need *s, uint64_t budget)
{
    return left_of(s, budget) - staged_experts(s, budget) * s->one;
}

/* Room beside staging that any GPU with more memory has too: staging grows by whole experts, and
 * where it is about to, more memory would leave less. */
static uint64_t sure_room(const staging_need *s, uint64_t budget)
{
    uint64_t steps[2] = {budget, budget}, least = beside_staging(s, budget);
    steps[0] = (budget / (8 * s->one) + 1) * 8 * s->one;
    if (left_of(s, budget) >= s->dense)
        steps[1] += s->one - (left_of(s, budget) - s->dense) % s->one;
    else
        steps[1] = s->taken + s->dense + s->one;
    for (int k = 0; k < 2; k++)
        if (beside_staging(s, steps[k]) < least)
            least = beside_staging(s, steps[k]);
    return least;
}

/* Sets a GPU's staging, and what must not be used so that more memory is not less room. */
static void set_staging(plan_draft *d, int dev, uint64_t taken)
{
    staging_need s = {.one = plan_staging_bytes(d->m, 1), .dense = dense_part(d), .taken = taken};
    fr_plan_device *v = &d->devices[dev];
    d->spare[dev] = 0;
    if (s.one == 0 || d->o.n_ubatch < PLAN_MIN_STREAM || dev == FR_PLAN_CPU || !is_usable(d, dev))
        return;
    s.most = (uint64_t)((d->m->hp.n_expert + d->n_gpus - 1) / d->n_gpus);
    v->staging = staged_experts(&s, v->budget) * s.one;
    d->spare[dev] = beside_staging(&s, v->budget) - sure_room(&s, v->budget);
}

/* What a device keeps for other things than items, before it is known what it gets. */
static void set_overheads(plan_draft *d)
{
    for (int dev = 0; dev < d->n_devices; dev++) {
        fr_plan_device *v = &d->devices[dev];
        bool cpu = dev == FR_PLAN_CPU, used = cpu || is_usable(d, dev) || d->settled[dev] > 0;
        v->workspace = v->logits = v->reserve = v->staging = 0;
        if (!used)
            continue;
        v->workspace = cpu ? d->ws.cpu : d->ws.gpu;
        v->logits = plan_logits_bytes(d->m, d->o.n_outputs) * (uint64_t)(cpu ? d->o.n_seq : 1);
        v->reserve = cpu ? 0 : d->hw->gpus[dev - 1].reserve_bytes;
        uint64_t taken = v->workspace + v->logits + v->reserve + settled_bytes(d, dev);
        if (!cpu && d->o.fit)
            taken += d->o.margin_bytes[dev - 1];
        set_staging(d, dev, taken);
    }
}

void plan_draft_rooms(const plan_draft *d, uint64_t room[FR_PLAN_MAX_DEVICES])
{
    for (int dev = 0; dev < FR_PLAN_MAX_DEVICES; dev++) {
        room[dev] = 0;
        if (dev >= d->n_devices)
            continue;
        const fr_plan_device *v = &d->devices[dev];
        uint64_t fixed = settled_bytes(d, dev);
        uint64_t taken = v->workspace + v->staging + v->logits + v->reserve + d->spare[dev];
        if (dev != FR_PLAN_CPU && d->o.fit)
            taken += d->o.margin_bytes[dev - 1];
        if (is_usable(d, dev) && v->budget > taken)
            room[dev] = v->budget - taken;
        if (room[dev] < fixed)
            room[dev] = fixed;
    }
}

/* ---- first fit ---------------------------------------------------------------------------------
 */

typedef struct {
    plan_draft *d;
    uint64_t room[FR_PLAN_MAX_DEVICES]; /* that is left */
    bool over;
} filling;

static bool allowed(const fr_item *it, int dev)
{
    return it->allowed >> dev & 1;
}

static void put(filling *f, int item, int dev, int64_t units)
{
    fr_item *it = &f->d->items[item];
    uint64_t bytes = plan_item_bytes(it, units);
    f->d->units[item][dev] += units;
    f->room[dev] = bytes < f->room[dev] ? f->room[dev] - bytes : 0;
}

/* Somewhere it must be: in RAM, or the first device that it may be on. */
static void put_over(filling *f, int item, int64_t units)
{
    int dev = 0;
    while (!allowed(&f->d->items[item], dev))
        dev++;
    put(f, item, dev, units);
    f->over = true;
}

/* Layers go to one GPU after another, as the parts of their sum follow the rooms, so that
 * neighbours stay together; then to whatever has room. */
static void fill_dense(filling *f)
{
    plan_draft *d = f->d;
    uint64_t wanted = 0, rooms = 0, done = 0, start[FR_MAX_GPUS];
    for (int i = 0; i < d->n_items; i++)
        if (d->items[i].kind != FR_ITEM_EXPERTS)
            wanted += d->items[i].bytes;
    for (int g = 0; g < d->n_gpus; g++) {
        start[g] = rooms;
        rooms += f->room[d->gpus[g]];
    }
    for (int i = 0; i < d->n_items; i++) {
        fr_item *it = &d->items[i];
        if (it->kind == FR_ITEM_EXPERTS || it->bytes == 0)
            continue;
        int best = -1;
        for (int g = 0; g < d->n_gpus; g++) {
            int dev = d->gpus[g];
            double at = (double)start[g] / (double)(rooms + 1) * (double)wanted;
            if (!allowed(it, dev) || f->room[dev] < it->bytes)
                continue;
            if (best < 0 || (double)done >= at)
                best = dev;
        }
        if (best < 0 && allowed(it, FR_PLAN_CPU) && f->room[FR_PLAN_CPU] >= it->bytes)
            best = FR_PLAN_CPU;
        if (best >= 0)
            put(f, i, best, 1);
        else
            put_over(f, i, 1);
        done += it->bytes;
    }
}

static int64_t units_that_fit(const filling *f, const fr_item *it, int dev, int64_t left)
{
    if (!allowed(it, dev))
        return 0;
    uint64_t n = f->room[dev] / (it->bytes / (uint64_t)it->n_units);
    int64_t units = n < (uint64_t)left ? (int64_t)n : left;
    while (units > 0 && plan_item_bytes(it, units) > f->room[dev])
        units--; /* parts are rounded up */
    return units;
}

static void fill_experts(filling *f)
{
    plan_draft *d = f->d;
    for (int i = 0; i < d->n_items; i++) {
        fr_item *it = &d->items[i];
        if (it->kind != FR_ITEM_EXPERTS || it->bytes == 0)
            continue;
        int64_t left = it->n_units;
        for (int dev = 0; dev < d->n_devices && left > 0; dev++) {
            int64_t n = units_that_fit(f, it, dev, left);
            put(f, i, dev, n);
            left -= n;
        }
        if (left > 0)
            put_over(f, i, left);
    }
}

/* ---- what each device holds --------------------------------------------------------------------
 */

static bool holds_experts(const plan_draft *d, int dev, bool open)
{
    for (int i = 0; i < d->n_items; i++)
        if (d->items[i].kind == FR_ITEM_EXPERTS &&
            ((!open && d->items[i].fixed_bytes[dev] > 0) || d->units[i][dev] > 0))
            return true;
    return false;
}

static uint64_t open_weights(const plan_draft *d, int dev)
{
    uint64_t bytes = 0;
    for (int i = 0; i < d->n_items; i++)
        if (d->units[i][dev] > 0)
            bytes +=
                d->item_weights[i] / (uint64_t)d->items[i].n_units * (uint64_t)d->units[i][dev];
    return bytes;
}

static bool has_output(const plan_draft *d, int dev)
{
    for (int i = 0; i < d->n_items; i++)
        if (d->items[i].kind == FR_ITEM_OUTPUT)
            return d->units[i][dev] > 0 || d->items[i].fixed_bytes[dev] > 0;
    return false;
}

/* Nobody streams when RAM holds no experts; GPUs that neither hold nor stream anything give back
 * what was kept for work. */
static void drop_unused(plan_draft *d)
{
    bool streams = holds_experts(d, FR_PLAN_CPU, false);
    for (int dev = 1; dev < d->n_devices; dev++) {
        fr_plan_device *v = &d->devices[dev];
        if (!streams)
            v->staging = 0;
        if (!has_output(d, dev))
            v->logits = 0;
        if (v->weights == 0 && v->kv == 0 && v->staging == 0)
            v->workspace = v->reserve = 0;
    }
}

/* Weights that the filling gives a device, slices counted as plan_items cut them. */
static void sum_devices(plan_draft *d)
{
    bool over = false;
    for (int dev = 0; dev < d->n_devices; dev++) {
        fr_plan_device *v = &d->devices[dev];
        v->weights = d->settled[dev] + open_weights(d, dev);
        v->kv = 0;
        for (int il = 0; il < d->m->hp.n_layer; il++)
            v->kv += plan_draft_kv(d, il) == dev ? d->kv_layer : 0;
    }
    drop_unused(d);
    for (int dev = 0; dev < d->n_devices; dev++) {
        fr_plan_device *v = &d->devices[dev];
        v->used = v->weights + v->kv + v->workspace + v->staging + v->logits + v->reserve;
        v->free = v->budget > v->used ? v->budget - v->used : 0;
        over = over || v->used > v->budget;
    }
    d->fits = !over;
}

int plan_draft_attention(const plan_draft *d, int layer)
{
    if (d->attn_home[layer] != PLAN_OPEN)
        return d->attn_home[layer];
    const int64_t *units = d->units[d->dense_item[layer]];
    for (int dev = d->n_devices - 1; dev > 0; dev--)
        if (units[dev] > 0)
            return dev;
    return FR_PLAN_CPU;
}

int plan_draft_kv(const plan_draft *d, int layer)
{
    return d->o.kv_on_cpu ? FR_PLAN_CPU : plan_draft_attention(d, layer);
}

void plan_draft_fill(plan_draft *d)
{
    filling f = {.d = d};
    memset(d->units, 0, (size_t)d->n_items * sizeof *d->units);
    set_overheads(d);
    plan_draft_rooms(d, f.room);
    for (int dev = 0; dev < d->n_devices; dev++)
        f.room[dev] -= settled_bytes(d, dev);
    fill_dense(&f);
    fill_experts(&f);
    sum_devices(d);
}

/* What a search would gain over the families' best *s, which it replaces only where that is asked
 * for: with more memory its plans may be predicted to be slower. */
static fr_status compare_search(plan_draft *d, const fr_problem *p, fr_solution *s, fr_err *err)
{
    static const double worth_it = 0.01;
    fr_solution found;
    fr_status st = plan_solve_by_search(p, &d->arena, &found, err);
    if (st == FR_ENOMEM && found.too_small)
        return FR_OK;
    FR_TRY(st);
    double gain = 1.0 - found.objective / s->objective;
    if (gain < worth_it)
        return FR_OK;
    if (d->o.search)
        *s = found;
    else
        d->search_gain = gain;
    return FR_OK;
}

fr_status plan_draft_solve(plan_draft *d, fr_err *err)
{
    fr_problem p = {.m = d->m, .hw = d->hw, .o = &d->o, .items = d->items, .n_items = d->n_items};
    fr_solution s;
    bool any_open = false;
    plan_draft_fill(d);
    for (int i = 0; i < d->n_items; i++)
        any_open = any_open || d->items[i].bytes > 0;
    if (!any_open || d->n_gpus == 0)
        return FR_OK;
    set_overheads(d);
    plan_draft_rooms(d, p.room);
    for (int dev = 0; dev < d->n_devices; dev++) /* caches of settled layers are no items */
        p.room[dev] -= settled_bytes(d, dev) - d->settled[dev];
    fr_status st = plan_solve(&p, &d->arena, &s, err);
    if (st == FR_OK && !s.last_resort)
        st = compare_search(d, &p, &s, err);
    if (st == FR_OK) {
        memcpy(d->units, s.units, (size_t)d->n_items * sizeof *d->units);
        d->last_resort = s.last_resort;
    }
    sum_devices(d);
    return st == FR_ENOMEM && s.too_small ? FR_OK : st;
}

/* ---- pieces of the filling ---------------------------------------------------------------------
 */

int plan_draft_expert(const plan_draft *d, const plan_piece *p, int64_t expert)
{
    const fr_item *it = &d->items[p->item];
    const int64_t *units = d->units[p->item];
    int64_t before = 0, open = 0, end = 0;
    if (it->kind == FR_ITEM_EXPERTS) {
        /* Which of the tensor's open experts it is; they stand in one place with those of the
         * other tensors of the layer. */
        const plan_piece *q = p;
        while (q > d->pieces && q[-1].weight == p->weight)
            q--;
        for (; q < d->pieces + d->n_pieces && q->weight == p->weight; q++) {
            if (q->device != PLAN_OPEN || q->item != p->item)
                continue;
            open += q->to - q->from + 1;
            if (q->to < expert)
                before += q->to - q->from + 1;
            else if (q->from <= expert)
                before += expert - q->from;
        }
        before = before * it->n_units / open;
    }
    for (int i = 1; i <= d->n_devices; i++) {
        int dev = i % d->n_devices; /* the GPUs take the first experts */
        end += units[dev];
        if (before < end)
            return dev;
    }
    return FR_PLAN_CPU;
}

/* ---- the context -------------------------------------------------------------------------------
 */

int plan_draft_dense_in_ram(const plan_draft *d)
{
    int n = 0;
    for (int il = 0; il < d->m->hp.n_layer; il++)
        n += plan_draft_attention(d, il) == FR_PLAN_CPU;
    return n;
}

static void fill_with(plan_draft *d, int64_t n_ctx, int64_t n_ubatch)
{
    plan_draft_size(d, n_ctx, n_ubatch);
    plan_draft_fill(d);
}

int64_t plan_fit_context(plan_draft *d, int64_t n_max)
{
    int64_t n_ubatch = d->o.n_ubatch, least = n_max < PLAN_CTX_STEP ? n_max : PLAN_CTX_STEP;
    fill_with(d, least, n_ubatch);
    if (!d->fits)
        return 0;
    int in_ram = plan_draft_dense_in_ram(d); /* a long context must not drive more of them out */
    fill_with(d, n_max, n_ubatch);
    if (d->fits && plan_draft_dense_in_ram(d) <= in_ram)
        return n_max;
    int64_t low = 1, high = (n_max - 1) / PLAN_CTX_STEP + 1; /* steps that fit, that do not */
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        fill_with(d, mid * PLAN_CTX_STEP, n_ubatch);
        *(d->fits && plan_draft_dense_in_ram(d) <= in_ram ? &low : &high) = mid;
    }
    fill_with(d, low * PLAN_CTX_STEP, n_ubatch);
    return low * PLAN_CTX_STEP;
}
