#include "planner/solver_paths.h"

#include <math.h>
#include <string.h>

/* Points of a path closer than this to a line, as a part of a layer's seconds, are on it. */
static const double STRAIGHT = 1e-12;

/* Shares below this are what subtracting leaves of none. */
static const double NO_SHARE = 1e-12;

/* ---- classes ----------------------------------------------------------------------------------
 */

fr_status plan_classes_init(plan_classes *c, const plan_tables *t, fr_arena *arena, fr_err *err)
{
    int64_t most = 1;
    *c = (plan_classes){.t = t};
    for (int i = 0; i < t->p->n_items; i++)
        most = t->p->items[i].n_units > most ? t->p->items[i].n_units : most;
    c->class_of = FR_ARENA_NEW(int, arena, (size_t)t->n_layer, err);
    c->layer_of = FR_ARENA_NEW(int, arena, (size_t)t->n_layer, err);
    c->hull = FR_ARENA_NEW(plan_path_piece, arena, (size_t)most, err);
    if (!c->class_of || !c->layer_of || !c->hull)
        return FR_ENOMEM;
    for (int il = 0; il < t->n_layer; il++) {
        if (t->twin[il] == il)
            c->layer_of[c->n_classes++] = il;
        c->class_of[il] = t->twin[il] == il ? c->n_classes - 1 : c->class_of[t->twin[il]];
    }
    return FR_OK;
}

int plan_dense_of(const plan_tables *t, int il, int d)
{
    int item = t->dense[il];
    if (item < 0)
        return FR_PLAN_CPU;
    int fixed = t->p->items[item].fixed_device;
    return fixed >= 0 ? fixed : d;
}

uint64_t plan_dense_bytes(const plan_tables *t, int il)
{
    int item = t->dense[il];
    return item >= 0 && t->p->items[item].fixed_device < 0 ? t->p->items[item].bytes : 0;
}

/* ---- pieces -----------------------------------------------------------------------------------
 */

static plan_path_piece piece_between(const plan_classes *c, const plan_path *p, int class,
                                     int64_t from, int64_t to)
{
    const fr_item *it = &c->t->p->items[p->item];
    return (plan_path_piece){class,
                             from,
                             to,
                             plan_item_bytes(it, to) - plan_item_bytes(it, from),
                             p->at[to] - p->at[from],
                             0};
}

int plan_path_hull(const plan_classes *c, const plan_path *p, int class, int64_t most)
{
    int n = 0;
    for (int64_t k = 1; k <= most; k++) {
        plan_path_piece q = piece_between(c, p, class, n > 0 ? c->hull[n - 1].n_to : 0, k);
        while (n > 0) {
            const plan_path_piece *last = &c->hull[n - 1];
            if (q.seconds * (double)last->bytes >
                last->seconds * (double)q.bytes - STRAIGHT * p->at[0] * (double)last->bytes)
                break;
            q = piece_between(c, p, class, c->hull[--n].n_from, k);
        }
        if (q.bytes > 0)
            c->hull[n++] = q;
    }
    for (int k = 0; k < n; k++) {
        plan_path_piece *q = &c->hull[k];
        q->rate = q->seconds / (double)q->bytes;
        if (k > 0 && q->rate < q[-1].rate) /* by rounding */
            q->rate = q[-1].rate;
    }
    while (n > 0 && c->hull[n - 1].rate >= 0)
        n--;
    return n;
}

static fr_status keep_pieces(const plan_classes *c, plan_path *p, int class, int64_t most,
                             fr_arena *arena, fr_err *err)
{
    int n = plan_path_hull(c, p, class, most);
    int *best = FR_ARENA_NEW(int, arena, (size_t)most + 1, err);
    p->pieces = FR_ARENA_NEW(plan_path_piece, arena, (size_t)n + 1, err);
    if (!best || !p->pieces)
        return FR_ENOMEM;
    for (int k = 0; k < n; k++) {
        int least = (int)c->hull[k].n_from;
        for (int64_t m = c->hull[k].n_from + 1; m <= c->hull[k].n_to; m++) {
            if (p->at[m] < p->at[least])
                least = (int)m;
            best[m] = least;
        }
        p->pieces[k] = c->hull[k];
    }
    p->best = best;
    p->n_pieces = n;
    return FR_OK;
}

/* ---- paths ------------------------------------------------------------------------------------
 */

/* Puts an item's units where they are before any is moved; false when they may not be there. */
static bool put_item(const plan_classes *c, int item, const plan_station *st, plan_path *p,
                     double share[FR_PLAN_MAX_DEVICES])
{
    const fr_item *it = &c->t->p->items[item];
    double all = c->t->unit_share[item] * (double)it->n_units;
    bool gpu = st->home != FR_PLAN_CPU && (it->allowed >> st->home & 1);
    if (it->fixed_device >= 0) {
        share[it->fixed_device] += all;
    } else if (it->allowed & 1) {
        share[FR_PLAN_CPU] += all;
        if (gpu && p->item < 0)
            p->item = item;
    } else if (gpu) {
        share[st->home] += all;
        p->bound += it->bytes;
    } else {
        return false;
    }
    return true;
}

/* The part on the third device. */
static bool carry(const plan_classes *c, const plan_station *st, plan_path *p,
                  double share[FR_PLAN_MAX_DEVICES])
{
    if (st->parts == 0)
        return true;
    if (p->item < 0 || !(c->t->p->items[p->item].allowed >> st->carry & 1))
        return false;
    p->n_carried = c->t->p->items[p->item].n_units * st->parts / st->of;
    p->carried = plan_item_bytes(&c->t->p->items[p->item], p->n_carried);
    share[st->carry] += c->t->unit_share[p->item] * (double)p->n_carried;
    share[FR_PLAN_CPU] -= c->t->unit_share[p->item] * (double)p->n_carried;
    return p->n_carried > 0;
}

fr_status plan_path_make(const plan_classes *c, int class, const plan_station *st, plan_path *out,
                         fr_arena *arena, fr_err *err)
{
    const plan_tables *t = c->t;
    int il = c->layer_of[class], dense = plan_dense_of(t, il, st->dense);
    double share[FR_PLAN_MAX_DEVICES], moved[FR_PLAN_MAX_DEVICES];
    plan_path p = {.item = -1};
    *out = p;
    if (plan_dense_bytes(t, il) > 0 && !(t->p->items[t->dense[il]].allowed >> dense & 1))
        return FR_OK;
    memcpy(share, t->fixed_share[il], sizeof share);
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++)
        if (!put_item(c, t->experts[il][k], st, &p, share))
            return FR_OK;
    if (!carry(c, st, &p, share))
        return FR_OK;
    int64_t most = p.item >= 0 ? t->p->items[p.item].n_units - p.n_carried : 0;
    double *at = FR_ARENA_NEW(double, arena, (size_t)most + 1, err);
    if (!at)
        return FR_ENOMEM;
    for (int64_t k = 0; k <= most; k++) {
        double part = p.item >= 0 ? t->unit_share[p.item] * (double)k : 0;
        memcpy(moved, share, sizeof moved);
        moved[FR_PLAN_CPU] -= part;
        if (moved[FR_PLAN_CPU] < NO_SHARE)
            moved[FR_PLAN_CPU] = 0;
        moved[st->home] += part;
        at[k] = plan_tables_layer(t, il, dense, moved);
    }
    p.at = at;
    p.seconds = at[0];
    FR_TRY(keep_pieces(c, &p, class, most, arena, err));
    p.can = true;
    *out = p;
    return FR_OK;
}

int64_t plan_path_fit(const plan_classes *c, const plan_path *p, int64_t low, int64_t high,
                      uint64_t room)
{
    const fr_item *it = &c->t->p->items[p->item];
    uint64_t had = plan_item_bytes(it, low);
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        if (plan_item_bytes(it, mid) - had <= room)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

int plan_piece_compare(const void *a, const void *b)
{
    const plan_path_piece *x = a, *y = b;
    if (x->rate != y->rate)
        return x->rate < y->rate ? -1 : 1;
    if (x->class != y->class)
        return x->class < y->class ? -1 : 1;
    return x->n_from < y->n_from ? -1 : x->n_from > y->n_from;
}
