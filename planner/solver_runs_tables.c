/* Inside the family of runs: what does not depend on the way that is looked for. */
#include <stdlib.h>
#include <string.h>

#include "planner/solver_runs_internal.h"

enum {
    FEW_GPUS = 4, /* with more of them, parts of layers are not carried over, and the output is not
                     looked for everywhere */
    PARTS = 4     /* in which a layer's experts are cut that are carried over */
};

static plan_run_station *station_at(const plan_runs *r, int dense, int home, bool other)
{
    return &r->stations[((dense + 1) * (r->n_kinds + 1) + home + 1) * 2 + other];
}

plan_run_station *plan_runs_station_of(const plan_runs *r, const plan_crew *w, bool home)
{
    int to = home ? w->home : w->dense;
    return station_at(r, w->dense, to,
                      home && to >= 0 && w->home_d != w->dense_d && to == w->dense);
}

plan_path *plan_runs_tail(const plan_runs *r, int kind, int out, int class)
{
    return &r->tails[(kind * r->n_out + out) * r->classes.n_classes + class];
}

bool plan_crew_is_single(const plan_crew *w)
{
    return w->dense >= 0 && w->dense_d == w->home_d;
}

bool plan_crew_is_split(const plan_crew *w)
{
    return w->dense >= 0 && w->home >= 0 && w->dense_d != w->home_d;
}

bool plan_runs_has_variant(const plan_runs *r, const plan_crew *w, int variant)
{
    if (variant == 0)
        return true;
    return r->output_bytes > 0 && (variant == 1 ? w->dense : w->home) >= 0 &&
           !(variant == 2 && plan_crew_is_single(w));
}

int plan_runs_first(const plan_runs *r, int kind)
{
    return kind < 0 ? FR_PLAN_CPU : r->kinds[kind].gpu[0];
}

int plan_runs_other(const plan_runs *r, int kind, int d)
{
    return kind >= 0 && r->kinds[kind].gpu[0] == d && r->kinds[kind].n > 1
               ? r->kinds[kind].gpu[1]
               : plan_runs_first(r, kind);
}

/* ---- what does not depend on the way ----------------------------------------------------------
 */

static bool are_alike(const plan_runs *r, int a, int b)
{
    return r->left[a] == r->left[b] && plan_gpus_alike(r->t, a, b);
}

static void find_kinds(plan_runs *r, const int *order, int n)
{
    r->n_states = 1;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < r->n_kinds && !are_alike(r, order[i], r->kinds[k].gpu[0]))
            k++;
        r->n_kinds += k == r->n_kinds;
        r->kinds[k].gpu[r->kinds[k].n++] = order[i];
    }
    for (int k = 0; k < r->n_kinds; k++) {
        r->kinds[k].radix = r->n_states;
        r->n_states *= r->kinds[k].n + 1;
    }
}

static void add_crew(plan_runs *r, int dense, int home, bool other)
{
    plan_crew w = {dense, home, plan_runs_first(r, dense), plan_runs_first(r, home)};
    if (other)
        w.home_d = plan_runs_other(r, home, w.dense_d);
    if (!other || w.home_d != w.dense_d)
        r->crews[r->n_crews++] = w;
}

static void make_crews(plan_runs *r)
{
    add_crew(r, -1, -1, false);
    for (int a = 0; a < r->n_kinds; a++) {
        add_crew(r, a, a, false);
        add_crew(r, -1, a, false);
        for (int b = 0; b < r->n_kinds; b++)
            add_crew(r, a, b, true);
    }
}

static fr_status make_station(plan_runs *r, int dense, int home, bool other, fr_arena *arena,
                              fr_err *err)
{
    const plan_classes *c = &r->classes;
    plan_run_station *st = station_at(r, dense, home, other);
    plan_station where = {.dense = plan_runs_first(r, dense), .home = plan_runs_first(r, home)};
    if (other)
        where.home = plan_runs_other(r, home, where.dense);
    st->paths = FR_ARENA_NEW(plan_path, arena, (size_t)c->n_classes, err);
    st->seconds = FR_ARENA_NEW(double, arena, plan_runs_width(r), err);
    st->bound = FR_ARENA_NEW(uint64_t, arena, plan_runs_width(r), err);
    st->cannot = FR_ARENA_NEW(int, arena, plan_runs_width(r), err);
    if (!st->paths || !st->seconds || !st->bound || !st->cannot)
        return FR_ENOMEM;
    size_t n = 0;
    for (int k = 0; k < c->n_classes; k++) {
        FR_TRY(plan_path_make(c, k, &where, &st->paths[k], arena, err));
        n += st->paths[k].can ? (size_t)st->paths[k].n_pieces : 0;
    }
    st->pieces = FR_ARENA_NEW(plan_path_piece, arena, n + 1, err);
    if (!st->pieces)
        return FR_ENOMEM;
    for (int k = 0; k < c->n_classes; k++)
        for (int x = 0; st->paths[k].can && x < st->paths[k].n_pieces; x++)
            st->pieces[st->n_pieces++] = st->paths[k].pieces[x];
    qsort(st->pieces, n, sizeof *st->pieces, plan_piece_compare);
    for (int il = 0; il < r->n_layer; il++) {
        const plan_path *p = &st->paths[c->class_of[il]];
        st->seconds[il + 1] = st->seconds[il] + (p->can ? p->seconds : 0);
        st->bound[il + 1] = st->bound[il] + p->bound;
        st->cannot[il + 1] = st->cannot[il] + !p->can;
    }
    return FR_OK;
}

static fr_status make_stations(plan_runs *r, fr_arena *arena, fr_err *err)
{
    size_t n = (size_t)(r->n_kinds + 1) * (size_t)(r->n_kinds + 1) * 2;
    r->stations = FR_ARENA_NEW(plan_run_station, arena, n, err);
    if (!r->stations)
        return FR_ENOMEM;
    for (int a = -1; a < r->n_kinds; a++)
        for (int b = -1; b < r->n_kinds; b++)
            for (int other = 0; other < (a == b && a >= 0 && r->kinds[a].n > 1 ? 2 : 1); other++)
                if (b >= 0 || a < 0)
                    FR_TRY(make_station(r, a, b, other > 0, arena, err));
    return FR_OK;
}

static fr_status make_tails(plan_runs *r, fr_arena *arena, fr_err *err)
{
    int classes = r->classes.n_classes;
    r->tails = FR_ARENA_NEW(plan_path, arena, (size_t)(r->n_kinds * r->n_out * classes) + 1, err);
    if (!r->tails)
        return FR_ENOMEM;
    for (int k = 0; k < r->n_kinds; k++)
        for (int out = 1; out < r->n_out; out++) {
            int d = plan_runs_first(r, k), to = plan_runs_other(r, (out - 1) % r->n_kinds, d);
            plan_station where = {d, d, to, 1 + (out - 1) / r->n_kinds, r->parts};
            for (int c = 0; c < classes && to != d; c++)
                FR_TRY(plan_path_make(&r->classes, c, &where, plan_runs_tail(r, k, out, c), arena,
                                      err));
        }
    return FR_OK;
}

static void make_sums(plan_runs *r)
{
    const plan_tables *t = r->t;
    for (int il = 0; il < r->n_layer; il++) {
        r->dense[il + 1] = r->dense[il] + plan_dense_bytes(t, il);
        for (int k = 0; k < r->classes.n_classes; k++)
            r->count[(size_t)k * plan_runs_width(r) + (size_t)il + 1] =
                r->count[(size_t)k * plan_runs_width(r) + (size_t)il] +
                (r->classes.class_of[il] == k);
        for (int b = -1; b < r->n_kinds; b++) {
            double *hops = r->hops + (size_t)(b + 1) * plan_runs_width(r);
            int d = plan_runs_first(r, b);
            double hop = il > 0 ? t->hop[plan_dense_of(t, il - 1, d)][plan_dense_of(t, il, d)] : 0;
            hops[il + 1] = hops[il] + hop;
        }
    }
}

static fr_status make_tables(plan_runs *r, fr_arena *arena, fr_err *err)
{
    size_t n = plan_runs_width(r), kinds = (size_t)r->n_kinds + 1;
    r->count = FR_ARENA_NEW(int, arena, n *(size_t)r->classes.n_classes, err);
    r->dense = FR_ARENA_NEW(uint64_t, arena, n, err);
    r->hops = FR_ARENA_NEW(double, arena, n *kinds, err);
    r->level = FR_ARENA_NEW(int64_t, arena, n, err);
    r->crews = FR_ARENA_NEW(plan_crew, arena, kinds * (kinds + 2), err);
    size_t per_layer = kinds * (size_t)r->n_out;
    r->labels = FR_ARENA_NEW(plan_run_label, arena, (size_t)r->n_states * 2 * n * per_layer, err);
    if (!r->count || !r->dense || !r->hops || !r->level || !r->crews || !r->labels)
        return FR_ENOMEM;
    make_crews(r);
    for (int v = 0; v < PLAN_RUNS_VARIANTS; v++) {
        r->runs[v] = FR_ARENA_NEW(double *, arena, (size_t)r->n_crews, err);
        for (int k = 0; r->runs[v] && k < r->n_crews; k++) {
            size_t each = plan_crew_is_single(&r->crews[k]) ? (size_t)(r->parts * r->n_out) : 1;
            if (plan_runs_has_variant(r, &r->crews[k], v) &&
                !(r->runs[v][k] = FR_ARENA_NEW(double, arena, n *n *each, err)))
                return FR_ENOMEM;
        }
        if (!r->runs[v])
            return FR_ENOMEM;
    }
    return FR_OK;
}

/* Room for the parts of split runs. */
static fr_status make_parts(plan_runs *r, fr_arena *arena, fr_err *err)
{
    size_t n = plan_runs_width(r), own = (size_t)r->n_kinds * n * n * PLAN_RUNS_SPLITS;
    for (int with = 0; with < (r->output_bytes > 0 ? 2 : 1); with++) {
        r->own[with] = FR_ARENA_NEW(double, arena, own, err);
        r->away[with] = FR_ARENA_NEW(double *, arena, (size_t)r->n_crews, err);
        if (!r->own[with] || !r->away[with])
            return FR_ENOMEM;
        for (int k = 0; k < r->n_crews; k++)
            if (plan_crew_is_split(&r->crews[k]) &&
                !(r->away[with][k] = FR_ARENA_NEW(double, arena, n *n, err)))
                return FR_ENOMEM;
    }
    return FR_OK;
}

fr_status plan_runs_init(plan_runs *r, const plan_tables *t, const int *order, int n,
                         fr_arena *arena, fr_err *err)
{
    const fr_problem *p = t->p;
    int output = t->output_item;
    *r = (plan_runs){.t = t, .n_layer = t->n_layer, .late = n > FEW_GPUS};
    memcpy(r->left, p->room, sizeof r->left);
    for (int i = 0; i < p->n_items; i++)
        for (int d = 0; d < t->n_devices; d++)
            r->left[d] -= p->items[i].fixed_bytes[d];
    if (output >= 0 && p->items[output].fixed_device < 0)
        r->output_bytes = p->items[output].bytes;
    find_kinds(r, order, n);
    r->parts = n > FEW_GPUS ? 1 : PARTS;
    r->n_out = 1 + (r->parts - 1) * r->n_kinds;
    FR_TRY(plan_classes_init(&r->classes, t, arena, err));
    FR_TRY(make_tables(r, arena, err));
    FR_TRY(make_parts(r, arena, err));
    FR_TRY(make_stations(r, arena, err));
    FR_TRY(make_tails(r, arena, err));
    make_sums(r);
    plan_runs_fill(r);
    return FR_OK;
}
