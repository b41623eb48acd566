#include "planner/solver_search.h"

#include <math.h>
#include <string.h>

enum {
    MAX_PASSES = 30, /* of local search: it ends by itself before */
    MAX_REFILL = 4,
    MIN_SHAKE = 6 /* layers, at most, that are shaken in a small model */
};

/* Objectives that differ by less than this part are equal. */
static const double EQUAL = 1e-12;

/* What a device costs at times where there was room left: part of a high price. */
static const double LOW_PRICE = 0.01;

fr_status plan_search_init(plan_search *x, plan_state *s, fr_arena *arena, fr_err *err)
{
    *x = (plan_search){.t = s->t, .s = s};
    x->n_gpus = plan_gpu_order(s->t->p, x->order);
    x->fill = FR_ARENA_NEW(plan_move, arena, (size_t)s->t->p->n_items, err);
    x->active = FR_ARENA_NEW(bool, arena, (size_t)s->t->p->n_items, err);
    x->done = FR_ARENA_NEW(bool, arena, (size_t)s->t->p->n_items, err);
    x->seen = FR_ARENA_NEW(uint64_t, arena, (size_t)s->t->p->n_items, err);
    x->failed = FR_ARENA_NEW(uint64_t, arena, (size_t)s->t->p->n_items, err);
    plan_search_restart(x);
    return x->fill && x->active && x->done && x->seen && x->failed ? FR_OK : FR_ENOMEM;
}

void plan_search_restart(plan_search *x)
{
    x->random = 0x9E3779B97F4A7C15ull;
    x->n_trials = 0;
    x->least_gain = PLAN_LEAST_GAIN;
}

static bool is_experts(const plan_search *x, int item)
{
    return x->t->p->items[item].kind == FR_ITEM_EXPERTS;
}

/* Whether an item's mark is in a list; if not, it is added. */
static bool is_known(const plan_search *x, int item, uint64_t *list, int *n)
{
    uint64_t mark = plan_state_mark(x->s, item);
    for (int k = *n - 1; k >= 0; k--)
        if (list[k] == mark)
            return true;
    list[(*n)++] = mark;
    return false;
}

/* ---- compound moves ---------------------------------------------------------------------------
 */

static void begin(plan_search *x)
{
    x->n_trail = 0;
    x->change = 0;
}

static bool move(plan_search *x, int item, int from, int to, int64_t n)
{
    if (x->n_trail == PLAN_TRAIL || !plan_state_may_move(x->s, item, from, to, n))
        return false;
    x->change += plan_state_move(x->s, item, from, to, n);
    x->trail[x->n_trail++] = (plan_move){item, from, to, n, 0};
    return true;
}

static void undo(plan_search *x)
{
    while (x->n_trail > 0) {
        const plan_move *m = &x->trail[--x->n_trail];
        plan_state_move(x->s, m->item, m->to, m->from, m->n);
    }
    x->change = 0;
}

/* Keeps the moves since begin() if they are progress: excess first, seconds second. */
static bool keep(plan_search *x, uint64_t excess_before)
{
    uint64_t excess = plan_state_excess(x->s);
    bool better = excess != excess_before ? excess < excess_before
                                          : x->change < -x->least_gain * x->s->seconds;
    if (!better)
        undo(x);
    return better;
}

/* ---- how many units ---------------------------------------------------------------------------
 */

static double trial(plan_search *x, int item, int from, int to, int64_t n)
{
    x->n_trials++;
    if (is_experts(x, item))
        return plan_state_trial(x->s, item, from, to, n);
    double change = plan_state_move(x->s, item, from, to, n);
    plan_state_move(x->s, item, to, from, n);
    return change;
}

/* The number of units, at most `most`, whose move gains most. The gain has one peak below "all",
 * where both sides take equally long, and "all" may beat it, because it saves a hop. */
static int64_t best_count(plan_search *x, int item, int from, int to, int64_t most, double *change)
{
    double all = trial(x, item, from, to, most);
    *change = all;
    if (most == 1)
        return 1;
    int64_t low = 1, high = most - 1;
    double first = trial(x, item, from, to, 1), second = trial(x, item, from, to, 2);
    if (second >= first) {
        *change = first < all ? first : all;
        return first < all ? 1 : most;
    }
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (trial(x, item, from, to, mid + 1) < trial(x, item, from, to, mid))
            low = mid + 1;
        else
            high = mid;
    }
    double peak = trial(x, item, from, to, low);
    if (all < peak)
        return most;
    *change = peak;
    return low;
}

/* The fewest units, at most `most`, that free so many bytes when they leave d; `most` if none do.
 */
static int64_t fewest_for(const plan_search *x, int item, int d, int64_t most, uint64_t bytes)
{
    int64_t low = 1;
    while (low < most) {
        int64_t mid = low + (most - low) / 2;
        if (plan_state_freed(x->s, item, d, mid) >= bytes)
            most = mid;
        else
            low = mid + 1;
    }
    return most;
}

/* ---- making room ------------------------------------------------------------------------------
 */

static uint64_t over(const plan_search *x, int d)
{
    uint64_t used = x->s->used[d], room = x->t->p->room[d];
    return used > room ? used - room : 0;
}

/* Whether it is likely that an item is at home on a device: in RAM, beside its layer, beside the
 * layers round it. Others cost a hop. */
static bool at_home(const plan_search *x, int item, int d)
{
    const plan_tables *t = x->t;
    int il = t->p->items[item].layer, lead = is_experts(x, item) ? 0 : 1;
    if (d == FR_PLAN_CPU || il < 0 || x->s->units[item][d] > 0)
        return true;
    for (int k = il - lead; k <= il + lead; k++)
        if (k >= 0 && k < t->n_layer && t->dense[k] >= 0 && x->s->device[t->dense[k]] == d)
            return true;
    return false;
}

/* The cheapest move, per byte that helps, of something else than `stays` off device d. */
static plan_move cheapest_eviction(plan_search *x, int d, int stays)
{
    const plan_tables *t = x->t;
    plan_move best = {.item = -1};
    uint64_t want = over(x, d);
    int n_seen = 0;
    for (int i = 0; i < t->p->n_items; i++) {
        int64_t here = x->s->units[i][d];
        if (i == stays || here == 0 || t->p->items[i].bytes == 0 ||
            is_known(x, i, x->seen, &n_seen))
            continue;
        for (int to = 0; to < t->n_devices; to++) {
            if (!plan_state_may_move(x->s, i, d, to, 1) || (stays >= 0 && !at_home(x, i, to)))
                continue;
            int64_t n = plan_state_fit(x->s, i, d, to);
            if (n == 0)
                continue;
            n = fewest_for(x, i, d, n, want);
            uint64_t freed = plan_state_freed(x->s, i, d, n);
            double helps = (double)(freed < want ? freed : want) + 1;
            double rate = trial(x, i, d, to, n) / helps;
            if (best.item < 0 || rate < best.rate)
                best = (plan_move){i, d, to, n, rate};
        }
    }
    return best;
}

/* Ends the excess of d. */
static bool make_room(plan_search *x, int d, int stays)
{
    while (over(x, d) > 0) {
        plan_move m = cheapest_eviction(x, d, stays);
        if (m.item < 0 || !move(x, m.item, m.from, m.to, m.n))
            return false;
    }
    return over(x, d) == 0;
}

/* The best move of an item's experts from RAM to one device, by gain per byte. */
static plan_move fill_move(plan_search *x, int item, int to)
{
    plan_move best = {.item = item, .from = FR_PLAN_CPU, .to = to, .rate = 0};
    if (x->s->units[item][FR_PLAN_CPU] == 0)
        return best;
    int64_t most = plan_state_fit(x->s, item, FR_PLAN_CPU, to);
    if (!plan_state_may_move(x->s, item, FR_PLAN_CPU, to, most))
        return best;
    double change;
    best.n = best_count(x, item, FR_PLAN_CPU, to, most, &change);
    best.rate = change / ((double)plan_item_bytes(&x->t->p->items[item], best.n) + 1);
    return best;
}

static plan_move best_fill(plan_search *x, int item)
{
    plan_move best = {.item = item, .rate = 0};
    for (int k = 0; k < x->n_gpus; k++) {
        plan_move m = fill_move(x, item, x->order[k]);
        if (m.rate < best.rate)
            best = m;
    }
    return best;
}

/* Experts from RAM to what a move has freed on a GPU. */
static void refill(plan_search *x, int d)
{
    for (int k = 0; k < MAX_REFILL && d != FR_PLAN_CPU; k++) {
        plan_move best = {.rate = 0};
        int n_seen = 0;
        for (int i = 0; i < x->t->p->n_items; i++)
            if (is_experts(x, i) && x->s->units[i][FR_PLAN_CPU] > 0 &&
                !is_known(x, i, x->seen, &n_seen)) {
                plan_move m = fill_move(x, i, d);
                if (m.rate < best.rate)
                    best = m;
            }
        if (best.rate >= 0 || !move(x, best.item, best.from, best.to, best.n))
            return;
    }
}

/* Moves units, and others out of their way if need be; undone unless that is progress. */
static bool try_move(plan_search *x, int item, int from, int to, int64_t n)
{
    uint64_t excess = plan_state_excess(x->s);
    begin(x);
    if (!move(x, item, from, to, n))
        return false;
    make_room(x, to, item);
    refill(x, from);
    return keep(x, excess);
}

void plan_search_roomiest(plan_search *x, int item)
{
    const fr_problem *p = x->t->p;
    int from = x->s->device[item], best = -1;
    uint64_t most = 0;
    for (int d = 0; d < x->t->n_devices; d++) {
        uint64_t used = x->s->used[d] - (d == from ? p->items[item].bytes : 0);
        uint64_t left = p->room[d] > used ? p->room[d] - used : 0;
        if ((p->items[item].allowed >> d & 1) && left > most) {
            most = left;
            best = d;
        }
    }
    if (best >= 0 && plan_state_may_move(x->s, item, from, best, 1))
        plan_state_move(x->s, item, from, best, 1);
}

/* ---- filling ----------------------------------------------------------------------------------
 */

static void fill_experts(plan_search *x)
{
    int n_items = x->t->p->n_items;
    for (int i = 0; i < n_items; i++)
        x->fill[i] = is_experts(x, i) ? best_fill(x, i) : (plan_move){.item = i};
    for (;;) {
        int best = -1;
        for (int i = 0; i < n_items; i++)
            if (x->fill[i].rate < 0 && (best < 0 || x->fill[i].rate < x->fill[best].rate))
                best = i;
        if (best < 0)
            return;
        plan_move m = x->fill[best];
        if (plan_state_fit(x->s, best, m.from, m.to) >= m.n)
            plan_state_move(x->s, best, m.from, m.to, m.n);
        x->fill[best] = best_fill(x, best);
    }
}

void plan_search_fill(plan_search *x)
{
    for (int d = 0; d < x->t->n_devices; d++)
        while (over(x, d) > 0) {
            plan_move m = cheapest_eviction(x, d, -1);
            if (m.item < 0)
                break;
            plan_state_move(x->s, m.item, m.from, m.to, m.n);
        }
    fill_experts(x);
    plan_state_objective(x->s);
}

/* ---- local search -----------------------------------------------------------------------------
 */

/* Whether it may pay to drive others off a device for an item. */
static bool worth_room(const plan_search *x, int item, int from, int to)
{
    if (to == FR_PLAN_CPU)
        return false;
    return at_home(x, item, to) || (from == FR_PLAN_CPU && !is_experts(x, item));
}

static bool improve_pair(plan_search *x, int item, int from, int to)
{
    if (!plan_state_may_move(x->s, item, from, to, 1))
        return false;
    int64_t here = x->s->units[item][from], fits = plan_state_fit(x->s, item, from, to);
    double change;
    if (fits > 0 && try_move(x, item, from, to, best_count(x, item, from, to, fits, &change)))
        return true;
    if (fits == here && is_experts(x, item) && to == FR_PLAN_CPU && /* others take its place */
        try_move(x, item, from, to, here))
        return true;
    if (fits == here || !(plan_state_excess(x->s) > 0 || worth_room(x, item, from, to)))
        return false;
    return try_move(x, item, from, to, best_count(x, item, from, to, here, &change));
}

/* Where devices share a layer evenly, none of them gains alone: moves between all at once. Brings a
 * device in, or takes it out, and the others keep their proportions. */
static bool try_spread(plan_search *x, int item, int d, bool in)
{
    const int64_t *units = x->s->units[item];
    uint64_t excess = plan_state_excess(x->s);
    int others = 0;
    for (int k = 0; k < x->t->n_devices; k++)
        others += k != d && units[k] > 0;
    if ((units[d] > 0) == in || others < (in ? 2 : 1))
        return false;
    begin(x);
    int left = others;
    for (int k = 0; k < x->t->n_devices; k++) {
        if (k == d || units[k] == 0)
            continue;
        if (in)
            move(x, item, k, d, units[k] / (others + 1));
        else
            move(x, item, d, k, units[d] / left--);
    }
    for (int k = 0; k < x->t->n_devices; k++)
        make_room(x, k, item);
    return keep(x, excess);
}

/* What an item has on two devices changes places. */
static void exchange(plan_search *x, int item, int a, int b)
{
    if (item < 0)
        return;
    int64_t on_a = x->s->units[item][a], on_b = x->s->units[item][b];
    move(x, item, a, b, on_a);
    move(x, item, b, a, on_b);
}

/* A layer's dense part goes to another device, and the layer's experts there come in exchange, so
 * that they stay beside it and apart from it as they were. */
static bool try_exchange(plan_search *x, int item, int to)
{
    const plan_tables *t = x->t;
    int from = x->s->device[item], il = t->p->items[item].layer;
    uint64_t excess = plan_state_excess(x->s);
    begin(x);
    if (!move(x, item, from, to, 1))
        return false;
    for (int k = 0; k < 2; k++)
        exchange(x, t->experts[il][k], from, to);
    make_room(x, to, item);
    make_room(x, from, item);
    refill(x, from);
    return keep(x, excess);
}

/* Those that a kept move may have opened something for. */
static void activate(plan_search *x)
{
    const plan_tables *t = x->t;
    for (int k = 0; k < x->n_trail; k++) {
        int item = x->trail[k].item, il = t->p->items[item].layer;
        x->active[item] = true;
        for (int j = il - 1; j <= il + 1; j++) {
            if (j < 0 || j >= t->n_layer)
                continue;
            if (t->dense[j] >= 0)
                x->active[t->dense[j]] = true;
            for (int e = 0; e < 2 && t->experts[j][e] >= 0; e++)
                x->active[t->experts[j][e]] = true;
        }
    }
}

static bool improve_item(plan_search *x, int item)
{
    int n = x->t->n_devices;
    bool any = false;
    for (int from = 0; from < n; from++)
        for (int to = 0; to < n && x->s->units[item][from] > 0; to++)
            if (improve_pair(x, item, from, to)) {
                activate(x);
                any = true;
            }
    for (int to = 0; to < n && x->t->p->items[item].kind == FR_ITEM_DENSE; to++)
        if (try_exchange(x, item, to)) {
            activate(x);
            any = true;
        }
    for (int d = 0; d < n && is_experts(x, item); d++)
        if (try_spread(x, item, d, true) || try_spread(x, item, d, false)) {
            activate(x);
            any = true;
        }
    return any;
}

/* Works on the active items until none is. */
static bool settle(plan_search *x)
{
    bool any = false, more = true;
    x->n_failed = 0;
    for (int pass = 0; pass < MAX_PASSES && more; pass++) {
        more = false;
        for (int i = 0; i < x->t->p->n_items; i++) {
            if (!x->active[i])
                continue;
            x->active[i] = false;
            if (is_known(x, i, x->failed, &x->n_failed) || !improve_item(x, i))
                continue;
            more = true;
            x->n_failed = 0;
        }
        any |= more;
    }
    plan_state_objective(x->s);
    return any;
}

void plan_search_improve(plan_search *x)
{
    bool any = true;
    for (int pass = 0; pass < MAX_PASSES && any; pass++) {
        for (int i = 0; i < x->t->p->n_items; i++)
            x->active[i] = true;
        any = settle(x);
    }
}

/* ---- tidying ----------------------------------------------------------------------------------
 */

static bool is_split(const plan_search *x, int item, int d)
{
    return is_experts(x, item) && x->s->units[item][d] > 0 && x->s->units[item][FR_PLAN_CPU] > 0;
}

/* The item with the fewest, or most, units on d among those that are split and not done. */
static int extreme_split(const plan_search *x, int d, const bool *done, bool most)
{
    int best = -1;
    for (int i = 0; i < x->t->p->n_items; i++) {
        if (done[i] || !is_split(x, i, d))
            continue;
        int64_t n = x->s->units[i][d], m = best >= 0 ? x->s->units[best][d] : 0;
        if (best < 0 || (most ? n > m : n < m))
            best = i;
    }
    return best;
}

/* The most units of an item that fit into d and gain at least `rate` (negative) each. */
static int64_t as_good(plan_search *x, int item, int d, double rate)
{
    int64_t low = 0, high = plan_state_fit(x->s, item, FR_PLAN_CPU, d);
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        if (trial(x, item, FR_PLAN_CPU, d, mid) <= (double)mid * rate * (1 - EQUAL))
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

/* Gives what an item has on d to the other items that are split there, the largest first, if they
 * can do as much with it. */
static void try_merge(plan_search *x, int item, int d, bool *done)
{
    int64_t n = x->s->units[item][d];
    uint64_t excess = plan_state_excess(x->s);
    begin(x);
    done[item] = true;
    move(x, item, d, FR_PLAN_CPU, n);
    double rate = -x->change / (double)n;
    for (int j; x->change > 0 && (j = extreme_split(x, d, done, true)) >= 0;) {
        done[j] = true;
        move(x, j, FR_PLAN_CPU, d, as_good(x, j, d, rate));
    }
    if (x->change > EQUAL * x->s->seconds || plan_state_excess(x->s) > excess)
        undo(x);
}

void plan_search_tidy(plan_search *x)
{
    int n_items = x->t->p->n_items;
    for (int d = 1; d < x->t->n_devices; d++) {
        bool *tried = x->active;
        memset(tried, 0, (size_t)n_items * sizeof *tried);
        for (int i; (i = extreme_split(x, d, tried, false)) >= 0;) {
            memcpy(x->done, tried, (size_t)n_items * sizeof *tried);
            try_merge(x, i, d, x->done);
            tried[i] = true;
        }
    }
    plan_state_objective(x->s);
}

/* ---- shaking ----------------------------------------------------------------------------------
 */

/* xorshift64*: the same numbers every time. */
static int pick(plan_search *x, int n)
{
    x->random ^= x->random >> 12;
    x->random ^= x->random << 25;
    x->random ^= x->random >> 27;
    return (int)((x->random * 0x2545F4914F6CDD1Dull >> 33) % (uint64_t)n);
}

/* Moves what a layer's dense part or experts have anywhere to one device. */
static void gather(plan_search *x, int item, int to)
{
    for (int from = 0; item >= 0 && from < x->t->n_devices; from++)
        move(x, item, from, to, x->s->units[item][from]);
}

/* Everything of a run of layers, or their dense parts or experts alone, to one device. */
static void shake_gather(plan_search *x, int first, int n, int to)
{
    const plan_tables *t = x->t;
    int kind = pick(x, 3);
    for (int il = first; il < first + n; il++) {
        if (kind != 0)
            gather(x, t->dense[il], to);
        if (kind != 1)
            gather(x, t->experts[il][0], to);
    }
    if (first + n == t->n_layer && pick(x, 2))
        gather(x, t->output_item, to);
}

/* Two devices change places in a run of layers. */
static void shake_exchange(plan_search *x, int first, int n, int a, int b)
{
    const plan_tables *t = x->t;
    for (int il = first; il < first + n; il++) {
        exchange(x, t->dense[il], a, b);
        exchange(x, t->experts[il][0], a, b);
        exchange(x, t->experts[il][1], a, b);
    }
    if (first + n == t->n_layer)
        exchange(x, t->output_item, a, b);
}

/* Puts an item where another one is. */
static void imitate(plan_search *x, int item, const int64_t units[FR_PLAN_MAX_DEVICES])
{
    for (int from = 0; from < x->t->n_devices; from++)
        for (int to = 0; to < x->t->n_devices; to++) {
            int64_t extra = x->s->units[item][from] - units[from];
            int64_t wanted = units[to] - x->s->units[item][to];
            if (extra > 0 && wanted > 0)
                move(x, item, from, to, extra < wanted ? extra : wanted);
        }
}

static void swap_items(plan_search *x, int a, int b)
{
    int64_t units[2][FR_PLAN_MAX_DEVICES];
    if (a < 0 || b < 0 || x->t->p->items[a].n_units != x->t->p->items[b].n_units)
        return;
    memcpy(units[0], x->s->units[a], sizeof units[0]);
    memcpy(units[1], x->s->units[b], sizeof units[1]);
    imitate(x, a, units[1]);
    imitate(x, b, units[0]);
}

/* Two runs of layers change places. */
static void shake_swap(plan_search *x, int first, int other, int n)
{
    const plan_tables *t = x->t;
    for (int k = 0; k < n; k++) {
        swap_items(x, t->dense[first + k], t->dense[other + k]);
        swap_items(x, t->experts[first + k][0], t->experts[other + k][0]);
    }
}

/* Layers anew, at prices up to eight times as high or as low as the last ones. */
static void shake_prices(plan_search *x, plan_prices *prices, int first, int n)
{
    double price[FR_PLAN_MAX_DEVICES], low = prices->unit * LOW_PRICE;
    for (int d = 0; d < x->t->n_devices; d++) {
        double last = prices->price[d];
        if (last < low)
            last = pick(x, 2) ? 0 : low;
        price[d] = last * exp2(0.25 * (pick(x, 25) - 12));
    }
    plan_prices_place(prices, price, first, first + n, x->s);
    for (int i = 0; i < x->t->p->n_items; i++)
        x->active[i] = true;
}

void plan_search_shake(plan_search *x, plan_prices *prices)
{
    const plan_tables *t = x->t;
    int most = t->n_layer / 3 > MIN_SHAKE ? t->n_layer / 3 : MIN_SHAKE;
    int n = 1 + pick(x, most < t->n_layer ? most : t->n_layer);
    int first = pick(x, t->n_layer - n + 1);
    int a = pick(x, 8) == 0 ? FR_PLAN_CPU : x->order[pick(x, x->n_gpus)];
    int b = pick(x, 4) == 0 ? FR_PLAN_CPU : x->order[pick(x, x->n_gpus)];
    begin(x);
    switch (pick(x, 8)) {
    case 0:
    case 1:
        shake_gather(x, first, n, a);
        break;
    case 2:
        shake_exchange(x, 0, t->n_layer, a, b);
        break;
    case 3:
        shake_exchange(x, first, n, a, b);
        break;
    case 4:
        shake_swap(x, first, pick(x, t->n_layer - n + 1), n);
        break;
    case 5:
        shake_prices(x, prices, 0, t->n_layer);
        break;
    default:
        shake_prices(x, prices, first, n);
    }
    for (int d = 0; d < t->n_devices; d++)
        make_room(x, d, -1);
    for (int d = 1; d < t->n_devices; d++)
        refill(x, d);
    activate(x);
    settle(x);
}
