#include "planner/solver_runs.h"

#include <math.h>
#include <string.h>

#include "planner/solver_runs_internal.h"

static size_t labels_of_layer(const plan_runs *r)
{
    return (size_t)(r->n_kinds + 1) * (size_t)r->n_out;
}

static plan_run_label *label_at(const plan_runs *r, int state, bool output, int il, int dense,
                                int out)
{
    size_t at = ((size_t)state * 2 + output) * plan_runs_width(r) + (size_t)il;
    return &r->labels[at * labels_of_layer(r) + (size_t)((dense + 1) * r->n_out + out)];
}

/* ---- all runs ---------------------------------------------------------------------------------
 */

typedef struct {
    double seconds;
    int state, dense; /* after the last run */
    int output;       /* device */
    bool placed;      /* with a run */
} ending;

static bool output_may_be(const plan_tables *t, int d)
{
    if (t->output_item < 0)
        return d == FR_PLAN_CPU;
    const fr_item *it = &t->p->items[t->output_item];
    return it->fixed_device >= 0 ? it->fixed_device == d : (it->allowed >> d & 1) != 0;
}

/* The kind of the GPU that has the output, when it counts; -1 otherwise. */
static int output_kind(const plan_runs *r, int output)
{
    for (int k = 0; k < r->n_kinds && r->output_bytes > 0; k++)
        if (r->kinds[k].gpu[0] == output)
            return k;
    return -1;
}

/* GPUs of a kind that are used in a state. */
static int used_of(const plan_runs *r, int state, int k)
{
    return state / r->kinds[k].radix % (r->kinds[k].n + 1);
}

static int state_after(const plan_runs *r, int state, const plan_crew *w)
{
    int kinds[2] = {w->dense, w->home_d != w->dense_d || w->dense < 0 ? w->home : -1};
    for (int i = 0; i < 2; i++) {
        if (kinds[i] < 0)
            continue;
        if (used_of(r, state, kinds[i]) == r->kinds[kinds[i]].n)
            return -1;
        state += r->kinds[kinds[i]].radix;
    }
    return state;
}

typedef struct {
    double seconds;
    int dense, out; /* of the label before */
} beginning;

/* The best way to begin a run at a layer, on a dense device, with so many parts carried in. */
static beginning way_to(const plan_runs *r, int state, bool output, int from, int dense, int in)
{
    beginning best = {from == 0 && state == 0 && in == 0 && !output ? 0 : INFINITY, -1, 0};
    int out = in > 0 ? 1 + (in - 1) * r->n_kinds + dense : 0;
    for (int b = -1; from > 0 && b < r->n_kinds; b++) {
        double v = label_at(r, state, output, from, b, out)->seconds;
        if (v == INFINITY)
            continue;
        int at = plan_runs_first(r, b),
            to = b == dense ? plan_runs_other(r, dense, at) : plan_runs_first(r, dense);
        v += r->t->hop[plan_dense_of(r->t, from - 1, at)][plan_dense_of(r->t, from, to)];
        if (v < best.seconds)
            best = (beginning){v, b, out};
    }
    return best;
}

/* What the output takes after the last run, when it is on a GPU of kind k: with a variant of the
 * run, or on another GPU. */
static double output_seconds(const plan_runs *r, const plan_crew *w, int variant, int k)
{
    int to = variant == 2 ? w->home_d : w->dense_d;
    if (variant == 0)
        to = w->dense == k ? plan_runs_other(r, k, w->dense_d) : plan_runs_first(r, k);
    return r->t->output[plan_dense_of(r->t, r->n_layer - 1, w->dense_d)][to];
}

typedef struct {
    int state, from;
    bool output; /* is placed */
    int kind;    /* of its GPU, or -1 */
} place_from;

static void extend(plan_runs *r, const place_from *s, int crew_at, int in, int variant)
{
    const plan_crew *w = &r->crews[crew_at];
    int after = state_after(r, s->state, w);
    if (after < 0)
        return;
    beginning begin = way_to(r, s->state, s->output, s->from, w->dense, in);
    if (begin.seconds == INFINITY)
        return;
    bool output = s->output || variant > 0;
    plan_run q = {crew_at, s->from, 0, variant, in, 0};
    for (q.to = r->late && variant > 0 ? r->n_layer : s->from + 1; q.to <= r->n_layer; q.to++)
        for (q.out = 0; q.out < (plan_crew_is_single(w) ? r->n_out : 1); q.out++) {
            double v = begin.seconds + *plan_runs_at(r, &q);
            if (q.to == r->n_layer && output)
                v += output_seconds(r, w, variant, s->kind);
            plan_run_label *l = label_at(r, after, output, q.to, w->dense, q.out);
            if (v < l->seconds)
                *l = (plan_run_label){v,
                                      (short)s->state,
                                      (short)s->from,
                                      (signed char)crew_at,
                                      (signed char)begin.dense,
                                      (signed char)begin.out,
                                      (signed char)variant};
        }
}

/* Whether the output may be on a crew's GPU, with a variant. */
static bool takes_output(const plan_runs *r, const place_from *s, const plan_crew *w, int variant)
{
    int kind = variant == 1 ? w->dense : w->home;
    if (!plan_runs_has_variant(r, w, variant))
        return false;
    return r->late ? output_may_be(r->t, plan_runs_first(r, kind)) : !s->output && kind == s->kind;
}

/* All runs that begin somewhere. */
static void extend_all(plan_runs *r, const place_from *s)
{
    for (int k = 0; k < r->n_crews; k++) {
        const plan_crew *w = &r->crews[k];
        for (int in = 0; in < (plan_crew_is_single(w) ? r->parts : 1); in++) {
            extend(r, s, k, in, 0);
            for (int variant = 1; variant < PLAN_RUNS_VARIANTS; variant++)
                if (takes_output(r, s, w, variant))
                    extend(r, s, k, in, variant);
        }
    }
}

/* The end of the best way whose output is placed, or is to be placed on a device. */
static void end_at(const plan_runs *r, const place_from *s, int output, ending *best)
{
    for (int b = -1; b < r->n_kinds; b++) {
        double v = label_at(r, s->state, s->output, r->n_layer, b, 0)->seconds;
        int at = plan_runs_first(r, b);
        if (v == INFINITY)
            continue;
        if (!s->output) {
            int to = s->kind >= 0 && b == s->kind ? plan_runs_other(r, b, at) : output;
            if (s->kind >= 0 && (used_of(r, s->state, s->kind) == r->kinds[s->kind].n ||
                                 r->left[output] < r->output_bytes))
                continue;
            v += r->t->output[plan_dense_of(r->t, r->n_layer - 1, at)][to];
        }
        if (v < best->seconds)
            *best = (ending){v, s->state, b, output, s->output};
    }
}

/* All ways of runs, the output on a GPU of a kind if that has room for it and a run. */
static void make_labels(plan_runs *r, int kind)
{
    size_t n = (size_t)r->n_states * 2 * plan_runs_width(r) * labels_of_layer(r);
    place_from s = {.kind = kind};
    for (size_t k = 0; k < n; k++)
        r->labels[k].seconds = INFINITY;
    for (s.state = 0; s.state < r->n_states; s.state++)
        for (int x = 0; x < (kind >= 0 ? 2 : 1); x++) {
            s.output = x > 0;
            for (s.from = 0; s.from < r->n_layer; s.from++)
                extend_all(r, &s);
        }
}

/* The best end with the output on a device: not with a run, or (placed) with one. */
static bool end_with(const plan_runs *r, int output, bool placed, ending *best)
{
    double before = best->seconds;
    place_from s = {.kind = output_kind(r, output), .output = placed};
    for (s.state = 0; s.state < r->n_states; s.state++)
        end_at(r, &s, output, best);
    return best->seconds < before;
}

/* ---- placing ----------------------------------------------------------------------------------
 */

typedef struct {
    plan_run q;
    int device[2]; /* of dense parts, of experts */
} placed_run;

static void put(plan_state *s, int item, int to)
{
    if (item >= 0 && plan_state_may_move(s, item, s->device[item], to, 1))
        plan_state_move(s, item, s->device[item], to, 1);
}

/* Experts of a layer: `level` of the item that moves on a GPU, some of it on a third device. */
static void put_experts(const plan_runs *r, plan_state *s, int il, const plan_path *p, int home,
                        int carry, int64_t level)
{
    for (int k = 0; k < 2 && r->t->experts[il][k] >= 0; k++) {
        int item = r->t->experts[il][k],
            first = r->t->experts[r->classes.layer_of[r->classes.class_of[il]]][k];
        const fr_item *it = &r->t->p->items[item];
        int64_t units[FR_PLAN_MAX_DEVICES] = {0};
        if (it->fixed_device >= 0)
            continue;
        if (p->item == first) {
            units[home] = level;
            units[carry] += p->n_carried;
            units[FR_PLAN_CPU] += it->n_units - level - p->n_carried;
        } else {
            units[it->allowed & 1 ? FR_PLAN_CPU : home] = it->n_units;
        }
        plan_state_set(s, item, units);
    }
}

static void place_run(plan_runs *r, plan_state *s, const placed_run *b, const placed_run *next)
{
    const plan_run *q = &b->q;
    const plan_crew *w = &r->crews[q->crew];
    int split;
    memset(r->level, 0, plan_runs_width(r) * sizeof *r->level);
    plan_run_levels(r, q, r->level, &split);
    for (int il = q->from; il < q->to; il++) {
        int class = r->classes.class_of[il];
        bool home = il >= split, tail = q->out > 0 && il == q->to - 1;
        const plan_path *p = tail ? plan_runs_tail(r, w->dense, q->out, class)
                                  : &plan_runs_station_of(r, w, home)->paths[class];
        put(s, r->t->dense[il], b->device[0]);
        put_experts(r, s, il, p, b->device[home], tail ? next->device[0] : FR_PLAN_CPU,
                    r->level[il]);
    }
}

/* The runs of a way, the last one first; returns their number. */
static int walk_back(const plan_runs *r, const ending *end, placed_run *out)
{
    int n = 0, state = end->state, dense = end->dense, at = r->n_layer, next_out = 0;
    bool output = end->placed;
    while (at > 0) {
        const plan_run_label *l = label_at(r, state, output, at, dense, next_out);
        out[n++] = (placed_run){.q = {l->crew, l->from, at, l->variant, 0, next_out}};
        out[n - 1].q.in = l->out > 0 ? 1 + (l->out - 1) / r->n_kinds : 0;
        next_out = l->out;
        output = output && l->variant == 0;
        at = l->from;
        state = l->state;
        dense = l->dense;
    }
    return n;
}

/* GPUs of their kinds, as they come. */
static void place(plan_runs *r, const ending *end, placed_run *way, plan_state *s)
{
    int used[PLAN_RUNS_GPUS] = {0}, n = walk_back(r, end, way), output = end->output;
    for (int k = n - 1; k >= 0; k--) {
        const plan_crew *w = &r->crews[way[k].q.crew];
        int kinds[2] = {w->dense, w->home};
        for (int x = 0; x < 2; x++) {
            way[k].device[x] = x == 1 && plan_crew_is_single(w) ? way[k].device[0] : FR_PLAN_CPU;
            if (kinds[x] >= 0 && !(x == 1 && plan_crew_is_single(w)))
                way[k].device[x] = r->kinds[kinds[x]].gpu[used[kinds[x]]++];
        }
        if (way[k].q.variant > 0)
            output = way[k].device[way[k].q.variant - 1];
    }
    int kind = output_kind(r, end->output);
    if (!end->placed && kind >= 0)
        output = r->kinds[kind].gpu[used[kind]];
    plan_state_reset(s);
    put(s, r->t->output_item, output);
    for (int k = n - 1; k >= 0; k--)
        place_run(r, s, &way[k], k > 0 ? &way[k - 1] : NULL);
    plan_state_recount(s);
}
/* ---- all --------------------------------------------------------------------------------------
 */

/* The output beside any run: labels are made for each kind of its GPU. */
static void solve_any(plan_runs *r, placed_run *way, ending *end, plan_state *s)
{
    for (int d = 0; d < r->t->n_devices; d++) {
        int kind = output_kind(r, d);
        bool counts = r->output_bytes > 0 && d != FR_PLAN_CPU;
        if (!output_may_be(r->t, d) || (counts && kind < 0))
            continue;
        make_labels(r, kind);
        bool better = end_with(r, d, false, end);
        better = (kind >= 0 && end_with(r, d, true, end)) || better;
        if (better)
            place(r, end, way, s);
    }
}

/* The output beside the last run, or where there is none. */
static void solve_late(plan_runs *r, placed_run *way, ending *end, plan_state *s)
{
    make_labels(r, -1);
    bool better = end_with(r, FR_PLAN_CPU, true, end);
    for (int d = 0; d < r->t->n_devices; d++) {
        bool counts = r->output_bytes > 0 && d != FR_PLAN_CPU;
        if (output_may_be(r->t, d) && (!counts || output_kind(r, d) >= 0))
            better = end_with(r, d, false, end) || better;
    }
    if (better)
        place(r, end, way, s);
}

fr_status plan_runs_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                          bool *found, fr_err *err)
{
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    ending end = {.seconds = seconds};
    *found = false;
    if (n == 0 || n > PLAN_RUNS_GPUS || t->n_layer == 0 || t->n_layer > PLAN_RUNS_LAYERS ||
        !plan_ram_is_ample(t->p))
        return FR_OK;
    plan_runs *r = FR_ARENA_NEW(plan_runs, arena, 1, err);
    placed_run *way = FR_ARENA_NEW(placed_run, arena, (size_t)t->n_layer, err);
    if (!r || !way)
        return FR_ENOMEM;
    FR_TRY(plan_runs_init(r, t, order, n, arena, err));
    if (r->late)
        solve_late(r, way, &end, s);
    else
        solve_any(r, way, &end, s);
    *found = end.seconds < seconds && plan_state_excess(s) == 0;
    return FR_OK;
}
