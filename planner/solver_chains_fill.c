/* Inside the family of chains: what does not depend on the way that is looked for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/solver_chains_internal.h"

enum {
    FEW_GPUS = 4, /* with more of them, fewer cuts and no teams of three */
    FEW_CUTS = 32
};

/* Points of a path closer than this to a line, as a part of a layer's seconds, are on it; shares
 * below this are what subtracting leaves of none. */
static const double STRAIGHT = 1e-12, NO_SHARE = 1e-12;

int plan_chains_first(const plan_chains *c, int kind)
{
    return kind < 0 ? FR_PLAN_CPU : c->kinds[kind].gpu[0];
}

plan_chain_station *plan_chains_station(const plan_chains *c, int core, int home)
{
    return &c->stations[(core + 1) * c->n_homes + home];
}

plan_chain_block *plan_chains_block(const plan_chains *c, int core, int home, int from, int to,
                                    int stop)
{
    size_t at = (size_t)((core + 1) * c->n_homes + home);
    at = (at * (size_t)c->n_cuts + (size_t)from) * (size_t)c->n_cuts + (size_t)to;
    return &c->blocks[at * (size_t)c->n_stops + (size_t)stop];
}

plan_chain_block *plan_chains_own(const plan_chains *c, int core, int begin, int from, int to,
                                  bool output, int stop)
{
    size_t at = (size_t)core * (size_t)c->n_cuts + (size_t)begin;
    at = (at * (size_t)c->n_cuts + (size_t)from) * (size_t)c->n_cuts + (size_t)to;
    return &c->owns[(at * 2 + output) * (size_t)c->n_stops + (size_t)stop];
}

/* ---- filling ----------------------------------------------------------------------------------
 */

typedef struct {
    const plan_chains *c;
    const plan_chain_station *st;
    int from, to; /* layers */
    uint64_t room[PLAN_CHAINS_TEAM];
    int64_t *level; /* [n_layer], or NULL */
    plan_chain_block sum;
} filling;

static int count_of(const filling *f, int class)
{
    const int *n = f->c->count + (size_t) class * ((size_t)f->c->n_layer + 1);
    return n[f->to] - n[f->from];
}

/* Bytes of n units of a class in RAM. */
static uint64_t ram_of(const filling *f, const plan_chain_path *p, int64_t n)
{
    uint64_t bytes = p->rest;
    if (p->item >= 0)
        bytes += plan_item_bytes(&f->c->t->p->items[p->item], p->n - n);
    return bytes;
}

/* Before any experts are moved: false when that is not possible. */
static bool unfilled(filling *f)
{
    for (int k = 0; k < f->c->classes.n_classes; k++) {
        const plan_chain_path *p = &f->st->paths[k];
        int n = count_of(f, k);
        if (n == 0)
            continue;
        if (!p->can)
            return false;
        for (int g = 0; g < f->st->home->n; g++) {
            if (p->bound[g] * (uint64_t)n > f->room[g])
                return false;
            f->room[g] -= p->bound[g] * (uint64_t)n;
        }
        f->sum.seconds += n * p->at[0];
        f->sum.ram += (uint64_t)n * ram_of(f, p, 0);
    }
    return true;
}

static void set_levels(filling *f, const plan_chain_piece *q, int n, int64_t part)
{
    int seen = 0;
    for (int il = f->from; f->level && il < f->to && seen <= n; il++)
        if (f->c->classes.class_of[il] == q->class) {
            if (seen < n || part > q->n_from)
                f->level[il] = seen < n ? q->n_to : part;
            seen++;
        }
}

/* How many layers of `most` have room for a piece. */
static int layers_that_fit(const filling *f, const plan_chain_piece *q, int most)
{
    for (int g = 0; g < f->st->home->n; g++)
        if (q->bytes[g] * (uint64_t)most > f->room[g])
            most = (int)(f->room[g] / q->bytes[g]);
    return most;
}

/* Most units up to which a piece has room in one more layer. */
static int64_t units_that_fit(const filling *f, const plan_chain_piece *q)
{
    const plan_chain_path *p = &f->st->paths[q->class];
    const plan_chain_home *h = f->st->home;
    const fr_item *it = &f->c->t->p->items[p->item];
    int64_t low = q->n_from, high = q->n_to;
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        bool fits = true;
        for (int g = 0; g < h->n; g++)
            fits = fits && plan_item_bytes(it, h->units[g][mid]) -
                                   plan_item_bytes(it, h->units[g][q->n_from]) <=
                               f->room[g];
        if (fits)
            low = mid;
        else
            high = mid - 1;
    }
    return p->best[low] > q->n_from && low > q->n_from ? p->best[low] : q->n_from;
}

/* Takes a piece in n layers, and what fits of it in one more. */
static void take(filling *f, const plan_chain_piece *q, int n, bool more)
{
    const plan_chain_path *p = &f->st->paths[q->class];
    for (int g = 0; g < f->st->home->n; g++)
        f->room[g] -= q->bytes[g] * (uint64_t)n;
    int64_t part = more ? units_that_fit(f, q) : q->n_from;
    f->sum.seconds += n * q->seconds + p->at[part] - p->at[q->n_from];
    f->sum.ram -= (uint64_t)n * (ram_of(f, p, q->n_from) - ram_of(f, p, q->n_to)) +
                  ram_of(f, p, q->n_from) - ram_of(f, p, part);
    set_levels(f, q, n, part);
}

/* Fills a home: as far as that is faster, or (stop > 0) on until so many quarters of what is in RAM
 * at first are there. */
static plan_chain_block fill(filling *f, int stop)
{
    const plan_chain_block no = {INFINITY, 0};
    if (!unfilled(f))
        return no;
    uint64_t target = f->sum.ram / 4 * (uint64_t)(4 - stop);
    for (int k = 0; k < f->st->n_gains; k++) {
        const plan_chain_piece *q = &f->st->pieces[k];
        int have = count_of(f, q->class), n = layers_that_fit(f, q, have);
        if (have == 0)
            continue;
        take(f, q, n, n < have);
        if (n < have)
            return stop > 0 ? no : f->sum;
    }
    if (stop == 0)
        return f->sum;
    if (f->sum.ram <= target)
        return no; /* as without a stop */
    for (int k = f->st->n_gains; k < f->st->n_pieces && f->sum.ram > target; k++) {
        const plan_chain_piece *q = &f->st->pieces[k];
        const plan_chain_path *p = &f->st->paths[q->class];
        uint64_t less = ram_of(f, p, q->n_from) - ram_of(f, p, q->n_to);
        int have = count_of(f, q->class), wanted = have;
        if (less > 0 && (f->sum.ram - target - 1) / less + 1 < (uint64_t)have)
            wanted = (int)((f->sum.ram - target - 1) / less + 1);
        if (layers_that_fit(f, q, wanted) < wanted)
            return no;
        take(f, q, wanted, false);
    }
    return f->sum.ram <= target ? f->sum : no;
}

static plan_chain_block finish(const filling *f, plan_chain_block b)
{
    const double *hops = f->c->hops + (size_t)(f->st->core + 1) * ((size_t)f->c->n_layer + 1);
    b.seconds += hops[f->to] - hops[f->from];
    if (f->st->core < 0)
        b.ram += f->c->dense[f->to] - f->c->dense[f->from];
    if (!f->c->is_short)
        b.ram = 0;
    return b;
}

plan_chain_block plan_chains_fill_block(const plan_chains *c, int core, int home, int from, int to,
                                        int stop, int64_t *level)
{
    const plan_chain_station *st = plan_chains_station(c, core, home);
    filling f = {.c = c, .st = st, .from = c->cut[from], .to = c->cut[to], .level = level};
    if (!st->paths)
        return (plan_chain_block){INFINITY, 0};
    for (int g = 0; g < st->home->n; g++)
        f.room[g] = c->left[st->device[g]];
    return finish(&f, fill(&f, stop));
}

plan_chain_block plan_chains_fill_own(const plan_chains *c, int core, int begin, int from, int to,
                                      bool output, int stop, int64_t *level)
{
    const plan_chain_station *st = &c->own[core];
    filling f = {.c = c, .st = st, .from = c->cut[from], .to = c->cut[to], .level = level};
    uint64_t need = c->dense[f.to] - c->dense[c->cut[begin]] + (output ? c->output_bytes : 0);
    if (need > c->left[st->device[0]])
        return (plan_chain_block){INFINITY, 0};
    f.room[0] = c->left[st->device[0]] - need;
    return finish(&f, fill(&f, stop));
}

/* ---- paths ------------------------------------------------------------------------------------
 */

static bool may_be_on_all(const plan_chain_station *st, const fr_item *it)
{
    for (int g = 0; g < st->home->n; g++)
        if (!(it->allowed >> st->device[g] & 1))
            return false;
    return st->home->n > 0;
}

/* Puts an item's units where they are before any is moved; false when they may not be there. */
static bool put_item(const plan_chains *c, int item, const plan_chain_station *st,
                     plan_chain_path *p, double share[FR_PLAN_MAX_DEVICES])
{
    const fr_item *it = &c->t->p->items[item];
    double unit = c->t->unit_share[item];
    if (it->fixed_device >= 0) {
        share[it->fixed_device] += unit * (double)it->n_units;
    } else if (it->allowed & 1) {
        share[FR_PLAN_CPU] += unit * (double)it->n_units;
        if (p->item < 0 && may_be_on_all(st, it)) {
            p->item = item;
            p->n = it->n_units;
        } else {
            p->rest += it->bytes;
        }
    } else if (may_be_on_all(st, it)) {
        for (int g = 0; g < st->home->n; g++) {
            share[st->device[g]] += unit * st->home->units[g][it->n_units];
            p->bound[g] += plan_item_bytes(it, st->home->units[g][it->n_units]);
        }
    } else {
        return false;
    }
    return true;
}

static fr_status make_path(const plan_chains *c, int class, const plan_chain_station *st,
                           plan_chain_path *p, fr_arena *arena, fr_err *err)
{
    const plan_tables *t = c->t;
    int il = c->classes.layer_of[class],
        dense = plan_dense_of(t, il, plan_chains_first(c, st->core));
    double share[FR_PLAN_MAX_DEVICES], moved[FR_PLAN_MAX_DEVICES];
    *p = (plan_chain_path){.item = -1};
    if (plan_dense_bytes(t, il) > 0 && !(t->p->items[t->dense[il]].allowed >> dense & 1))
        return FR_OK;
    memcpy(share, t->fixed_share[il], sizeof share);
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++)
        if (!put_item(c, t->experts[il][k], st, p, share))
            return FR_OK;
    p->at = FR_ARENA_NEW(double, arena, (size_t)p->n + 1, err);
    p->best = FR_ARENA_NEW(int, arena, (size_t)p->n + 1, err);
    if (!p->at || !p->best)
        return FR_ENOMEM;
    for (int64_t n = 0; n <= p->n; n++) {
        double unit = p->item >= 0 ? t->unit_share[p->item] : 0;
        memcpy(moved, share, sizeof moved);
        moved[FR_PLAN_CPU] -= unit * (double)n;
        if (moved[FR_PLAN_CPU] < NO_SHARE)
            moved[FR_PLAN_CPU] = 0;
        for (int g = 0; n > 0 && g < st->home->n; g++)
            moved[st->device[g]] += unit * st->home->units[g][n];
        p->at[n] = plan_tables_layer(t, il, dense, moved);
    }
    p->can = true;
    return FR_OK;
}

/* ---- pieces -----------------------------------------------------------------------------------
 */

static plan_chain_piece piece_between(const plan_chains *c, const plan_chain_station *st, int class,
                                      int64_t from, int64_t to)
{
    const plan_chain_path *p = &st->paths[class];
    const fr_item *it = &c->t->p->items[p->item];
    plan_chain_piece q = {.class = class, .n_from = from, .n_to = to};
    double bytes = 0;
    for (int g = 0; g < st->home->n; g++) {
        q.bytes[g] = plan_item_bytes(it, st->home->units[g][to]) -
                     plan_item_bytes(it, st->home->units[g][from]);
        bytes += (double)q.bytes[g];
    }
    q.seconds = p->at[to] - p->at[from];
    q.rate = q.seconds / (bytes > 0 ? bytes : 1);
    return q;
}

/* The lower hull of a path over its bytes; returns the number of pieces. */
static int add_pieces(const plan_chains *c, plan_chain_station *st, int class,
                      plan_chain_piece *out)
{
    plan_chain_path *p = &st->paths[class];
    int n = 0;
    if (!p->can || p->item < 0 || st->home->n == 0)
        return 0;
    for (int64_t k = 1; k <= p->n; k++) {
        plan_chain_piece q = piece_between(c, st, class, n > 0 ? out[n - 1].n_to : 0, k);
        while (n > 0 && q.rate <= out[n - 1].rate + STRAIGHT * fabs(out[n - 1].rate))
            q = piece_between(c, st, class, out[--n].n_from, k);
        out[n++] = q;
    }
    for (int k = 0; k < n; k++) {
        int least = (int)out[k].n_from;
        for (int64_t m = out[k].n_from + 1; m <= out[k].n_to; m++) {
            if (p->at[m] < p->at[least])
                least = (int)m;
            p->best[m] = least;
        }
        if (k > 0 && out[k].rate < out[k - 1].rate) /* by rounding */
            out[k].rate = out[k - 1].rate;
    }
    return n;
}

static int compare(const void *a, const void *b)
{
    const plan_chain_piece *x = a, *y = b;
    if (x->rate != y->rate)
        return x->rate < y->rate ? -1 : 1;
    if (x->class != y->class)
        return x->class < y->class ? -1 : 1;
    return x->n_from < y->n_from ? -1 : x->n_from > y->n_from;
}

static fr_status make_station(plan_chains *c, int core, const plan_chain_home *home,
                              plan_chain_station *st, fr_arena *arena, fr_err *err)
{
    size_t most = 1;
    st->paths = FR_ARENA_NEW(plan_chain_path, arena, (size_t)c->classes.n_classes, err);
    if (!st->paths)
        return FR_ENOMEM;
    for (int k = 0; k < c->classes.n_classes; k++) {
        FR_TRY(make_path(c, k, st, &st->paths[k], arena, err));
        most += st->paths[k].can && home->n > 0 ? (size_t)st->paths[k].n : 0;
    }
    (void)core;
    st->pieces = FR_ARENA_NEW(plan_chain_piece, arena, most, err);
    if (!st->pieces)
        return FR_ENOMEM;
    for (int k = 0; k < c->classes.n_classes; k++)
        st->n_pieces += add_pieces(c, st, k, st->pieces + st->n_pieces);
    qsort(st->pieces, (size_t)st->n_pieces, sizeof *st->pieces, compare);
    while (st->n_gains < st->n_pieces && st->pieces[st->n_gains].rate < 0)
        st->n_gains++;
    return FR_OK;
}

/* The GPUs of a home beside a core, the first of their kinds that differ; false: too few. */
static bool find_devices(const plan_chains *c, int core, const plan_chain_home *h, int *device)
{
    int used[PLAN_CHAINS_GPUS] = {0};
    if (core >= 0)
        used[core]++;
    for (int g = 0; g < h->n; g++) {
        const plan_chain_kind *k = &c->kinds[h->kind[g]];
        if (used[h->kind[g]] == k->n)
            return false;
        device[g] = k->gpu[used[h->kind[g]]++];
    }
    return true;
}

static fr_status make_stations(plan_chains *c, fr_arena *arena, fr_err *err)
{
    size_t n = (size_t)(c->n_kinds + 1) * (size_t)c->n_homes;
    c->stations = FR_ARENA_NEW(plan_chain_station, arena, n, err);
    c->own = FR_ARENA_NEW(plan_chain_station, arena, (size_t)c->n_kinds + 1, err);
    if (!c->stations || !c->own)
        return FR_ENOMEM;
    for (int core = -1; core < c->n_kinds; core++) {
        for (int h = 0; h < c->n_homes; h++) {
            plan_chain_station *st = plan_chains_station(c, core, h);
            *st = (plan_chain_station){.core = core, .home = &c->homes[h]};
            if (find_devices(c, core, st->home, st->device))
                FR_TRY(make_station(c, core, st->home, st, arena, err));
        }
        if (core < 0)
            continue;
        plan_chain_station *own = &c->own[core];
        *own = (plan_chain_station){.core = core, .home = &c->homes[core]};
        own->device[0] = plan_chains_first(c, core);
        FR_TRY(make_station(c, core, own->home, own, arena, err));
    }
    return FR_OK;
}

/* ---- homes ------------------------------------------------------------------------------------
 */

/* Units go one by one to the GPU that is done first. */
static fr_status share_units(const plan_chains *c, plan_chain_home *h, int64_t most,
                             fr_arena *arena, fr_err *err)
{
    const plan_tables *t = c->t;
    double each[PLAN_CHAINS_TEAM] = {0};
    for (int g = 0; g < h->n; g++) {
        int d = plan_chains_first(c, h->kind[g]);
        for (int il = 0; il < t->n_layer && each[g] == 0; il++)
            for (int k = 0; k < 2; k++)
                each[g] += t->goal.weights[k] * t->layers[il][k].experts[d];
        if (!(each[g] > 0))
            each[g] = 1;
        h->units[g] = FR_ARENA_NEW(int, arena, (size_t)most + 1, err);
        if (!h->units[g])
            return FR_ENOMEM;
    }
    for (int64_t n = 1; n <= most && h->n > 0; n++) {
        int next = 0;
        for (int g = 0; g < h->n; g++) {
            h->units[g][n] = h->units[g][n - 1];
            if ((h->units[g][n] + 1) * each[g] < (h->units[next][n] + 1) * each[next])
                next = g;
        }
        h->units[next][n]++;
    }
    return FR_OK;
}

static fr_status make_homes(plan_chains *c, int n_gpus, fr_arena *arena, fr_err *err)
{
    size_t k = (size_t)c->n_kinds, most = k + k * (k + 1) / 2 + k * (k + 1) * (k + 2) / 6 + 1;
    int64_t units = 1;
    c->homes = FR_ARENA_NEW(plan_chain_home, arena, most, err);
    if (!c->homes)
        return FR_ENOMEM;
    for (int a = 0; a < c->n_kinds; a++)
        c->homes[c->n_homes++] = (plan_chain_home){.n = 1, .kind = {a}};
    for (int a = 0; a < c->n_kinds; a++)
        for (int b = a; b < c->n_kinds; b++)
            c->homes[c->n_homes++] = (plan_chain_home){.n = 2, .kind = {a, b}};
    for (int a = 0; a < c->n_kinds && n_gpus <= 8; a++)
        for (int b = a; b < c->n_kinds; b++)
            for (int d = b; d < c->n_kinds; d++)
                c->homes[c->n_homes++] = (plan_chain_home){.n = 3, .kind = {a, b, d}};
    c->homes[c->n_homes++] = (plan_chain_home){.n = 0};
    for (int i = 0; i < c->t->p->n_items; i++)
        units = c->t->p->items[i].n_units > units ? c->t->p->items[i].n_units : units;
    for (int h = 0; h < c->n_homes; h++)
        FR_TRY(share_units(c, &c->homes[h], units, arena, err));
    return FR_OK;
}

/* ---- kinds ------------------------------------------------------------------------------------
 */

static bool are_alike(const plan_chains *c, int a, int b)
{
    return c->left[a] == c->left[b] && plan_gpus_alike(c->t, a, b);
}

static void find_kinds(plan_chains *c, const int *order, int n)
{
    c->n_states = 1;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < c->n_kinds && !are_alike(c, order[i], c->kinds[k].gpu[0]))
            k++;
        c->n_kinds += k == c->n_kinds;
        c->kinds[k].gpu[c->kinds[k].n++] = order[i];
    }
    for (int k = 0; k < c->n_kinds; k++) {
        c->kinds[k].radix = c->n_states;
        c->n_states *= c->kinds[k].n + 1;
    }
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static void make_sums(plan_chains *c)
{
    const plan_tables *t = c->t;
    size_t width = (size_t)c->n_layer + 1;
    for (int il = 0; il < c->n_layer; il++) {
        c->dense[il + 1] = c->dense[il] + plan_dense_bytes(t, il);
        for (int k = 0; k < c->classes.n_classes; k++)
            c->count[(size_t)k * width + (size_t)il + 1] =
                c->count[(size_t)k * width + (size_t)il] + (c->classes.class_of[il] == k);
        for (int core = -1; core < c->n_kinds; core++) {
            double *hops = c->hops + (size_t)(core + 1) * width;
            int d = plan_chains_first(c, core);
            double hop = il > 0 ? t->hop[plan_dense_of(t, il - 1, d)][plan_dense_of(t, il, d)] : 0;
            hops[il + 1] = hops[il] + hop;
        }
    }
}

static fr_status make_blocks(plan_chains *c, fr_arena *arena, fr_err *err)
{
    size_t cuts = (size_t)c->n_cuts, stops = (size_t)c->n_stops, kinds = (size_t)c->n_kinds;
    c->blocks = FR_ARENA_NEW(plan_chain_block, arena,
                             (kinds + 1) * (size_t)c->n_homes * cuts * cuts * stops, err);
    c->owns = FR_ARENA_NEW(plan_chain_block, arena, kinds * cuts * cuts * cuts * 2 * stops, err);
    if (!c->blocks || !c->owns)
        return FR_ENOMEM;
    for (int core = -1; core < c->n_kinds; core++)
        for (int h = 0; h < c->n_homes; h++)
            for (int from = 0; from < c->n_cuts; from++)
                for (int to = from + 1; to < c->n_cuts; to++)
                    for (int s = 0; s < c->n_stops; s++)
                        *plan_chains_block(c, core, h, from, to, s) =
                            plan_chains_fill_block(c, core, h, from, to, s, NULL);
    for (int core = 0; core < c->n_kinds; core++)
        for (int begin = 0; begin < c->n_cuts; begin++)
            for (int from = begin; from < c->n_cuts; from++)
                for (int to = from > begin ? from : from + 1; to < c->n_cuts; to++)
                    for (int o = 0; o < (to == c->n_cuts - 1 ? 2 : 1); o++)
                        for (int s = 0; s < (from < to ? c->n_stops : 1); s++)
                            *plan_chains_own(c, core, begin, from, to, o > 0, s) =
                                plan_chains_fill_own(c, core, begin, from, to, o > 0, s, NULL);
    return FR_OK;
}

static void make_cuts(plan_chains *c, int n_gpus)
{
    int most = n_gpus > FEW_GPUS || c->is_short ? FEW_CUTS : PLAN_CHAINS_CUTS;
    int step = 1;
    while ((c->n_layer + step - 1) / step + 1 > most)
        step *= 2; /* more GPUs or less RAM: a part of the cuts */
    for (int il = 0; il < c->n_layer; il += step)
        c->cut[c->n_cuts++] = il;
    c->cut[c->n_cuts++] = c->n_layer;
}

fr_status plan_chains_init(plan_chains *c, const plan_tables *t, const int *order, int n,
                           fr_arena *arena, fr_err *err)
{
    const fr_problem *p = t->p;
    size_t width = (size_t)t->n_layer + 1;
    int output = t->output_item;
    *c = (plan_chains){.t = t, .n_layer = t->n_layer, .is_short = !plan_ram_is_ample(p)};
    c->n_stops = c->is_short ? PLAN_CHAINS_STOPS : 1;
    memcpy(c->left, p->room, sizeof c->left);
    for (int i = 0; i < p->n_items; i++)
        for (int d = 0; d < t->n_devices; d++)
            c->left[d] -= p->items[i].fixed_bytes[d];
    if (output >= 0 && p->items[output].fixed_device < 0)
        c->output_bytes = p->items[output].bytes;
    find_kinds(c, order, n);
    make_cuts(c, n);
    FR_TRY(plan_classes_init(&c->classes, t, arena, err));
    FR_TRY(make_homes(c, n, arena, err));
    c->count = FR_ARENA_NEW(int, arena, width *(size_t)c->classes.n_classes, err);
    c->dense = FR_ARENA_NEW(uint64_t, arena, width, err);
    c->hops = FR_ARENA_NEW(double, arena, width *((size_t)c->n_kinds + 1), err);
    c->level = FR_ARENA_NEW(int64_t, arena, width, err);
    if (!c->count || !c->dense || !c->hops || !c->level)
        return FR_ENOMEM;
    FR_TRY(make_stations(c, arena, err));
    make_sums(c);
    return make_blocks(c, arena, err);
}
