#include "planner/solver_runs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/solver_paths.h"

enum {
    MOST_GPUS = 4,     /* more of them are not looked at */
    SPLITS = 8,        /* places where a run's experts may change from one GPU to the other */
    MOST_LAYERS = 256, /* more are not looked at: n^2 runs */
    VARIANTS = 3       /* of a run: output elsewhere, on dense, on home */
};

/* In how many parts a layer's experts are cut that are carried over, by the kinds of GPUs: the more
 * kinds, the more there is to try. */
static const int PARTS[MOST_GPUS + 1] = {1, 4, 4, 3, 3};

/* GPUs that are equal in all that matters. */
typedef struct {
    int gpu[MOST_GPUS], n; /* in the order of -dev */
    int radix;             /* of the number of used ones in a state */
} gpu_kind;

typedef struct {
    int dense, home;     /* kinds; -1: the CPU, nothing */
    int dense_d, home_d; /* the first devices of these kinds that differ */
} crew;

/* All layers with the dense part on one device and their experts filling another. */
typedef struct {
    plan_path *paths;        /* [n_classes] */
    plan_path_piece *pieces; /* of all classes, the best first */
    int n_pieces;
    double *seconds; /* [n_layer + 1]: sums before a layer, of unfilled layers */
    uint64_t *bound; /* [n_layer + 1] */
    int *cannot;     /* [n_layer + 1] */
} station;

/* The best way to have layers up to one placed. */
typedef struct {
    double seconds;
    short state, from;            /* before the last run */
    signed char crew, dense, out; /* of the last run; of the one before */
    signed char variant;          /* of the last run */
} label;

typedef struct {
    const plan_tables *t;
    plan_classes classes;
    int n_layer, n_kinds, n_states, parts, n_out;
    gpu_kind kinds[MOST_GPUS];
    crew *crews;
    int n_crews;
    station *stations; /* [1 + kind][1 + kind][other GPU of the kind] */
    plan_path *tails;  /* [kind][out][class]: with experts carried over */
    int *count;        /* [class][n_layer + 1] layers of it before one */
    uint64_t *dense;   /* [n_layer + 1] bytes of dense parts before one */
    double *hops;      /* [1 + kind][n_layer + 1] inside a run on it, before a layer */
    uint64_t left[FR_PLAN_MAX_DEVICES]; /* room beside what is fixed */
    uint64_t output_bytes;
    int64_t *level;          /* [n_layer + 1] scratch */
    double **runs[VARIANTS]; /* [crew][from][to][in][out]; in and out for crews of one GPU only */
    label *labels;           /* [state][output is placed][layer][1 + kind][out] */
} runs;

/* What a run is asked for. */
typedef struct {
    int crew, from, to, variant;
    int in;  /* parts of the layer before it that its GPU has */
    int out; /* 0, or 1 + (parts - 1) * n_kinds + kind of the GPU that has some of the last layer */
} run;

static size_t width(const runs *r)
{
    return (size_t)r->n_layer + 1;
}

static station *station_at(const runs *r, int dense, int home, bool other)
{
    return &r->stations[((dense + 1) * (r->n_kinds + 1) + home + 1) * 2 + other];
}

static station *station_of(const runs *r, const crew *w, bool home)
{
    int to = home ? w->home : w->dense;
    return station_at(r, w->dense, to,
                      home && to >= 0 && w->home_d != w->dense_d && to == w->dense);
}

static plan_path *tail_at(const runs *r, int k, int out, int class)
{
    return &r->tails[(k * r->n_out + out) * r->classes.n_classes + class];
}

static int count_of(const runs *r, int class, int from, int to)
{
    const int *n = r->count + (size_t) class * width(r);
    return n[to] - n[from];
}

/* A crew of one GPU, which can be given experts by its neighbours. */
static bool is_single(const crew *w)
{
    return w->dense >= 0 && w->dense_d == w->home_d;
}

static double *run_at(const runs *r, const run *q)
{
    size_t at = (size_t)q->from * width(r) + (size_t)q->to;
    if (is_single(&r->crews[q->crew]))
        at = (at * (size_t)r->parts + (size_t)q->in) * (size_t)r->n_out + (size_t)q->out;
    return &r->runs[q->variant][q->crew][at];
}

static size_t labels_of_layer(const runs *r)
{
    return (size_t)(r->n_kinds + 1) * (size_t)r->n_out;
}

static label *label_at(const runs *r, int state, bool output, int il, int dense, int out)
{
    size_t at = ((size_t)state * 2 + output) * width(r) + (size_t)il;
    return &r->labels[at * labels_of_layer(r) + (size_t)((dense + 1) * r->n_out + out)];
}

static int first_of(const runs *r, int k)
{
    return k < 0 ? FR_PLAN_CPU : r->kinds[k].gpu[0];
}

static int other_than(const runs *r, int k, int d)
{
    return k >= 0 && r->kinds[k].gpu[0] == d && r->kinds[k].n > 1 ? r->kinds[k].gpu[1]
                                                                  : first_of(r, k);
}

/* ---- filling ----------------------------------------------------------------------------------
 */

typedef struct {
    const runs *r;
    const station *st;
    int from, to;          /* layers whose experts fill the GPU */
    const plan_path *tail; /* of layer `to`, which does too; NULL: none */
    uint64_t room;
    int64_t *level; /* [n_layer] units of each layer, or NULL */
} filling;

/* Takes a piece of so many layers as often as it fits, then what fits of one more. */
static double take(filling *f, const plan_path_piece *p, const plan_path *path, int have,
                   bool *full)
{
    int n = have;
    if (p->bytes * (uint64_t)have > f->room)
        n = (int)(f->room / p->bytes);
    double seconds = n * p->seconds;
    int64_t part = p->n_from;
    f->room -= (uint64_t)n * p->bytes;
    *full = n < have;
    if (*full) {
        part = plan_path_fit(&f->r->classes, path, p->n_from, p->n_to, f->room);
        part = part > p->n_from ? path->best[part] : part;
        seconds += path->at[part] - path->at[p->n_from];
    }
    if (!f->level)
        return seconds;
    int seen = 0, from = path == f->tail ? f->to : f->from, to = from + (path == f->tail);
    for (int il = from; il < (path == f->tail ? to : f->to); il++)
        if (f->r->classes.class_of[il] == p->class) {
            if (seen <= n)
                f->level[il] = seen < n ? p->n_to : part;
            if (++seen > n || (seen == n && !*full))
                break;
        }
    return seconds;
}

/* Fills a GPU: the change of seconds. */
static double fill(filling *f)
{
    const station *st = f->st;
    double seconds = 0;
    bool full = false;
    int k = 0, x = 0, n_tail = f->tail ? f->tail->n_pieces : 0;
    while (!full && (k < st->n_pieces || x < n_tail)) {
        const plan_path_piece *p = k < st->n_pieces ? &st->pieces[k] : NULL;
        if (x < n_tail && (!p || f->tail->pieces[x].rate < p->rate)) {
            seconds += take(f, &f->tail->pieces[x++], f->tail, 1, &full);
            continue;
        }
        k++;
        int have = count_of(f->r, p->class, f->from, f->to);
        if (have > 0)
            seconds += take(f, p, &st->paths[p->class], have, &full);
    }
    return seconds;
}

/* Layers [from, to) on a station: bytes that they need whatever the filling, and seconds. */
static double unfilled(const station *st, int from, int to, uint64_t *need)
{
    if (from == to)
        return 0;
    *need += st->bound[to] - st->bound[from];
    return st->cannot[to] > st->cannot[from] ? INFINITY : st->seconds[to] - st->seconds[from];
}

/* What is on the two GPUs of a crew beside experts that fill them. */
static void needs_of(const runs *r, const run *q, uint64_t need[2])
{
    need[0] = r->dense[q->to] - r->dense[q->from] + (q->variant == 1 ? r->output_bytes : 0);
    need[1] = q->variant == 2 ? r->output_bytes : 0;
    if (q->in > 0) {
        int k = r->crews[q->crew].dense, out = 1 + (q->in - 1) * r->n_kinds + k;
        need[0] += tail_at(r, k, out, r->classes.class_of[q->from - 1])->carried;
    }
}

/* A run on one GPU, or with one GPU for experts beside a dense part on the CPU, or on the CPU. */
static double simple_run(const runs *r, const run *q, int64_t *level)
{
    const crew *w = &r->crews[q->crew];
    const station *st = station_of(r, w, true);
    filling f = {.r = r, .st = st, .from = q->from, .to = q->to, .level = level};
    uint64_t need[2];
    needs_of(r, q, need);
    if (q->out > 0) {
        f.tail = tail_at(r, w->dense, q->out, r->classes.class_of[--f.to]);
        if (!f.tail->can)
            return INFINITY;
        need[0] += f.tail->bound;
    }
    double seconds = unfilled(st, f.from, f.to, &need[w->home != w->dense]);
    seconds += f.tail ? f.tail->seconds : 0;
    if (w->home < 0)
        return seconds;
    uint64_t wanted = w->home == w->dense ? need[0] + need[1] : need[1];
    if (wanted > r->left[w->home_d])
        return INFINITY;
    f.room = r->left[w->home_d] - wanted;
    return seconds + fill(&f);
}

/* A run whose layers from `split` on have their experts on another GPU than its dense parts. */
static double split_run(const runs *r, const run *q, int split, int64_t *level)
{
    const crew *w = &r->crews[q->crew];
    const station *st[2] = {station_of(r, w, false), station_of(r, w, true)};
    uint64_t need[2];
    needs_of(r, q, need);
    double seconds = unfilled(st[0], q->from, split, &need[0]);
    seconds += unfilled(st[1], split, q->to, &need[1]);
    if (seconds == INFINITY || need[0] > r->left[w->dense_d] || need[1] > r->left[w->home_d])
        return INFINITY;
    filling own = {r, st[0], q->from, split, NULL, r->left[w->dense_d] - need[0], level};
    filling away = {r, st[1], split, q->to, NULL, r->left[w->home_d] - need[1], level};
    return seconds + fill(&own) + fill(&away);
}

static bool is_split(const crew *w)
{
    return w->dense >= 0 && w->home >= 0 && w->dense_d != w->home_d;
}

/* Seconds of a run with the hops inside it; *split: the best one of a crew of two GPUs. */
static double run_seconds(const runs *r, const run *q, int *split)
{
    const crew *w = &r->crews[q->crew];
    const double *hops = r->hops + (size_t)(w->dense + 1) * width(r);
    double best = INFINITY, hop = hops[q->to] - hops[q->from + 1];
    *split = q->from;
    if (!is_split(w))
        return simple_run(r, q, NULL) + hop;
    for (int k = 0, at, last = -1; k < SPLITS; k++, last = at) {
        at = q->from + (q->to - q->from) * k / SPLITS;
        double v = at == last ? INFINITY : split_run(r, q, at, NULL);
        if (v < best) {
            best = v;
            *split = at;
        }
    }
    return best + hop;
}

static bool has_variant(const runs *r, const crew *w, int variant)
{
    if (variant == 0)
        return true;
    return r->output_bytes > 0 && (variant == 1 ? w->dense : w->home) >= 0 &&
           !(variant == 2 && is_single(w));
}

/* Whether a run can be asked for so: experts are carried over from a layer to a layer. */
static bool makes_sense(const runs *r, const run *q)
{
    if (!has_variant(r, &r->crews[q->crew], q->variant) || (q->out > 0 && q->to == r->n_layer))
        return false;
    if (q->in == 0)
        return true;
    int k = r->crews[q->crew].dense, out = 1 + (q->in - 1) * r->n_kinds + k;
    return q->from > 0 && tail_at(r, k, out, r->classes.class_of[q->from - 1])->n_carried > 0;
}

static void make_runs(runs *r)
{
    int split;
    for (int k = 0; k < r->n_crews; k++) {
        bool single = is_single(&r->crews[k]);
        run q = {.crew = k};
        for (q.from = 0; q.from < r->n_layer; q.from++)
            for (q.to = q.from + 1; q.to <= r->n_layer; q.to++)
                for (q.variant = 0; q.variant < VARIANTS; q.variant++)
                    for (q.in = 0; q.in < (single ? r->parts : 1); q.in++)
                        for (q.out = 0; q.out < (single ? r->n_out : 1); q.out++)
                            if (has_variant(r, &r->crews[k], q.variant))
                                *run_at(r, &q) =
                                    makes_sense(r, &q) ? run_seconds(r, &q, &split) : INFINITY;
    }
}

/* ---- all runs ---------------------------------------------------------------------------------
 */

typedef struct {
    double seconds;
    int state, dense; /* after the last run */
    int output;       /* device */
    bool placed;      /* with a run */
} ending;

/* The kind of the GPU that has the output, when it counts; -1 otherwise. */
static int output_kind(const runs *r, int output)
{
    for (int k = 0; k < r->n_kinds && r->output_bytes > 0; k++)
        if (r->kinds[k].gpu[0] == output)
            return k;
    return -1;
}

/* GPUs of a kind that are used in a state. */
static int used_of(const runs *r, int state, int k)
{
    return state / r->kinds[k].radix % (r->kinds[k].n + 1);
}

static int state_after(const runs *r, int state, const crew *w)
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
static beginning way_to(const runs *r, int state, bool output, int from, int dense, int in)
{
    beginning best = {from == 0 && state == 0 && in == 0 && !output ? 0 : INFINITY, -1, 0};
    int out = in > 0 ? 1 + (in - 1) * r->n_kinds + dense : 0;
    for (int b = -1; from > 0 && b < r->n_kinds; b++) {
        double v = label_at(r, state, output, from, b, out)->seconds;
        if (v == INFINITY)
            continue;
        int at = first_of(r, b), to = b == dense ? other_than(r, dense, at) : first_of(r, dense);
        v += r->t->hop[plan_dense_of(r->t, from - 1, at)][plan_dense_of(r->t, from, to)];
        if (v < best.seconds)
            best = (beginning){v, b, out};
    }
    return best;
}

/* What the output takes after the last run, when it is on a GPU of kind k: with a variant of the
 * run, or on another GPU. */
static double output_seconds(const runs *r, const crew *w, int variant, int k)
{
    int to = variant == 2 ? w->home_d : w->dense_d;
    if (variant == 0)
        to = w->dense == k ? other_than(r, k, w->dense_d) : first_of(r, k);
    return r->t->output[plan_dense_of(r->t, r->n_layer - 1, w->dense_d)][to];
}

typedef struct {
    int state, from;
    bool output; /* is placed */
    int kind;    /* of its GPU, or -1 */
} place_from;

static void extend(runs *r, const place_from *s, int crew_at, int in, int variant)
{
    const crew *w = &r->crews[crew_at];
    int after = state_after(r, s->state, w);
    if (after < 0)
        return;
    beginning begin = way_to(r, s->state, s->output, s->from, w->dense, in);
    if (begin.seconds == INFINITY)
        return;
    bool output = s->output || variant > 0;
    run q = {crew_at, s->from, 0, variant, in, 0};
    for (q.to = s->from + 1; q.to <= r->n_layer; q.to++)
        for (q.out = 0; q.out < (is_single(w) ? r->n_out : 1); q.out++) {
            double v = begin.seconds + *run_at(r, &q);
            if (q.to == r->n_layer && output)
                v += output_seconds(r, w, variant, s->kind);
            label *l = label_at(r, after, output, q.to, w->dense, q.out);
            if (v < l->seconds)
                *l = (label){v,
                             (short)s->state,
                             (short)s->from,
                             (signed char)crew_at,
                             (signed char)begin.dense,
                             (signed char)begin.out,
                             (signed char)variant};
        }
}

/* All runs that begin somewhere. */
static void extend_all(runs *r, const place_from *s)
{
    for (int k = 0; k < r->n_crews; k++) {
        const crew *w = &r->crews[k];
        for (int in = 0; in < (is_single(w) ? r->parts : 1); in++) {
            extend(r, s, k, in, 0);
            if (s->output || s->kind < 0)
                continue;
            if (w->dense == s->kind)
                extend(r, s, k, in, 1);
            if (w->home == s->kind && !is_single(w))
                extend(r, s, k, in, 2);
        }
    }
}

/* The end of the best way whose output is placed, or is to be placed on a device. */
static void end_at(const runs *r, const place_from *s, int output, ending *best)
{
    for (int b = -1; b < r->n_kinds; b++) {
        double v = label_at(r, s->state, s->output, r->n_layer, b, 0)->seconds;
        int at = first_of(r, b);
        if (v == INFINITY)
            continue;
        if (!s->output) {
            int to = s->kind >= 0 && b == s->kind ? other_than(r, b, at) : output;
            if (s->kind >= 0 && (used_of(r, s->state, s->kind) == r->kinds[s->kind].n ||
                                 r->left[output] < r->output_bytes))
                continue;
            v += r->t->output[plan_dense_of(r->t, r->n_layer - 1, at)][to];
        }
        if (v < best->seconds)
            *best = (ending){v, s->state, b, output, s->output};
    }
}

/* All ways with the output on a device; returns whether one is better. */
static bool search(runs *r, int output, ending *best)
{
    size_t n = (size_t)r->n_states * 2 * width(r) * labels_of_layer(r);
    double before = best->seconds;
    place_from s = {.kind = output_kind(r, output)};
    for (size_t k = 0; k < n; k++)
        r->labels[k].seconds = INFINITY;
    for (s.state = 0; s.state < r->n_states; s.state++)
        for (int x = 0; x < (s.kind >= 0 ? 2 : 1); x++) {
            s.output = x > 0;
            for (s.from = 0; s.from < r->n_layer; s.from++)
                extend_all(r, &s);
            end_at(r, &s, output, best);
        }
    return best->seconds < before;
}

/* ---- placing ----------------------------------------------------------------------------------
 */

typedef struct {
    run q;
    int device[2]; /* of dense parts, of experts */
} placed_run;

static void put(plan_state *s, int item, int to)
{
    if (item >= 0 && plan_state_may_move(s, item, s->device[item], to, 1))
        plan_state_move(s, item, s->device[item], to, 1);
}

/* Experts of a layer: `level` of the item that moves on a GPU, some of it on a third device. */
static void put_experts(const runs *r, plan_state *s, int il, const plan_path *p, int home,
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

static void place_run(runs *r, plan_state *s, const placed_run *b, const placed_run *next)
{
    const run *q = &b->q;
    const crew *w = &r->crews[q->crew];
    int split = q->from;
    memset(r->level, 0, width(r) * sizeof *r->level);
    run_seconds(r, q, &split);
    if (is_split(w))
        split_run(r, q, split, r->level);
    else
        simple_run(r, q, r->level);
    for (int il = q->from; il < q->to; il++) {
        int class = r->classes.class_of[il];
        bool home = il >= split, tail = q->out > 0 && il == q->to - 1;
        const plan_path *p =
            tail ? tail_at(r, w->dense, q->out, class) : &station_of(r, w, home)->paths[class];
        put(s, r->t->dense[il], b->device[0]);
        put_experts(r, s, il, p, b->device[home], tail ? next->device[0] : FR_PLAN_CPU,
                    r->level[il]);
    }
}

/* The runs of a way, the last one first; returns their number. */
static int walk_back(const runs *r, const ending *end, placed_run *out)
{
    int n = 0, state = end->state, dense = end->dense, at = r->n_layer, next_out = 0;
    bool output = end->placed;
    while (at > 0) {
        const label *l = label_at(r, state, output, at, dense, next_out);
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
static void place(runs *r, const ending *end, placed_run *way, plan_state *s)
{
    int used[MOST_GPUS] = {0}, n = walk_back(r, end, way), output = end->output;
    for (int k = n - 1; k >= 0; k--) {
        const crew *w = &r->crews[way[k].q.crew];
        int kinds[2] = {w->dense, w->home};
        for (int x = 0; x < 2; x++) {
            way[k].device[x] = x == 1 && is_single(w) ? way[k].device[0] : FR_PLAN_CPU;
            if (kinds[x] >= 0 && !(x == 1 && is_single(w)))
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

/* ---- what does not depend on the way ----------------------------------------------------------
 */

static bool has_fixed(const fr_problem *p, int d)
{
    for (int i = 0; i < p->n_items; i++)
        if (p->items[i].fixed_device == d || p->items[i].fixed_bytes[d] > 0)
            return true;
    return false;
}

/* GPUs of one speed (plan_runs_solve is asked for no others) that are equal in all else. */
static bool are_alike(const runs *r, int a, int b)
{
    const fr_problem *p = r->t->p;
    for (int i = 0; i < p->n_items; i++)
        if ((p->items[i].allowed >> a & 1) != (p->items[i].allowed >> b & 1))
            return false;
    return r->left[a] == r->left[b] && !has_fixed(p, a) && !has_fixed(p, b);
}

static void find_kinds(runs *r, const int *order, int n)
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

static void add_crew(runs *r, int dense, int home, bool other)
{
    crew w = {dense, home, first_of(r, dense), first_of(r, home)};
    if (other)
        w.home_d = other_than(r, home, w.dense_d);
    if (!other || w.home_d != w.dense_d)
        r->crews[r->n_crews++] = w;
}

static void make_crews(runs *r)
{
    add_crew(r, -1, -1, false);
    for (int a = 0; a < r->n_kinds; a++) {
        add_crew(r, a, a, false);
        add_crew(r, -1, a, false);
        for (int b = 0; b < r->n_kinds; b++)
            add_crew(r, a, b, true);
    }
}

static fr_status make_station(runs *r, int dense, int home, bool other, fr_arena *arena,
                              fr_err *err)
{
    const plan_classes *c = &r->classes;
    station *st = station_at(r, dense, home, other);
    plan_station where = {.dense = first_of(r, dense), .home = first_of(r, home)};
    if (other)
        where.home = other_than(r, home, where.dense);
    st->paths = FR_ARENA_NEW(plan_path, arena, (size_t)c->n_classes, err);
    st->seconds = FR_ARENA_NEW(double, arena, width(r), err);
    st->bound = FR_ARENA_NEW(uint64_t, arena, width(r), err);
    st->cannot = FR_ARENA_NEW(int, arena, width(r), err);
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

static fr_status make_stations(runs *r, fr_arena *arena, fr_err *err)
{
    size_t n = (size_t)(r->n_kinds + 1) * (size_t)(r->n_kinds + 1) * 2;
    r->stations = FR_ARENA_NEW(station, arena, n, err);
    if (!r->stations)
        return FR_ENOMEM;
    for (int a = -1; a < r->n_kinds; a++)
        for (int b = -1; b < r->n_kinds; b++)
            for (int other = 0; other < (a == b && a >= 0 && r->kinds[a].n > 1 ? 2 : 1); other++)
                if (b >= 0 || a < 0)
                    FR_TRY(make_station(r, a, b, other > 0, arena, err));
    return FR_OK;
}

static fr_status make_tails(runs *r, fr_arena *arena, fr_err *err)
{
    int classes = r->classes.n_classes;
    r->tails = FR_ARENA_NEW(plan_path, arena, (size_t)(r->n_kinds * r->n_out * classes) + 1, err);
    if (!r->tails)
        return FR_ENOMEM;
    for (int k = 0; k < r->n_kinds; k++)
        for (int out = 1; out < r->n_out; out++) {
            int d = first_of(r, k), to = other_than(r, (out - 1) % r->n_kinds, d);
            plan_station where = {d, d, to, 1 + (out - 1) / r->n_kinds, r->parts};
            for (int c = 0; c < classes && to != d; c++)
                FR_TRY(plan_path_make(&r->classes, c, &where, tail_at(r, k, out, c), arena, err));
        }
    return FR_OK;
}

static void make_sums(runs *r)
{
    const plan_tables *t = r->t;
    for (int il = 0; il < r->n_layer; il++) {
        r->dense[il + 1] = r->dense[il] + plan_dense_bytes(t, il);
        for (int k = 0; k < r->classes.n_classes; k++)
            r->count[(size_t)k * width(r) + (size_t)il + 1] =
                r->count[(size_t)k * width(r) + (size_t)il] + (r->classes.class_of[il] == k);
        for (int b = -1; b < r->n_kinds; b++) {
            double *hops = r->hops + (size_t)(b + 1) * width(r);
            int d = first_of(r, b);
            double hop = il > 0 ? t->hop[plan_dense_of(t, il - 1, d)][plan_dense_of(t, il, d)] : 0;
            hops[il + 1] = hops[il] + hop;
        }
    }
}

static fr_status make_tables(runs *r, fr_arena *arena, fr_err *err)
{
    size_t n = width(r), kinds = (size_t)r->n_kinds + 1;
    r->count = FR_ARENA_NEW(int, arena, n *(size_t)r->classes.n_classes, err);
    r->dense = FR_ARENA_NEW(uint64_t, arena, n, err);
    r->hops = FR_ARENA_NEW(double, arena, n *kinds, err);
    r->level = FR_ARENA_NEW(int64_t, arena, n, err);
    r->crews = FR_ARENA_NEW(crew, arena, kinds * (kinds + 2), err);
    r->labels = FR_ARENA_NEW(label, arena, (size_t)r->n_states * 2 * n * labels_of_layer(r), err);
    if (!r->count || !r->dense || !r->hops || !r->level || !r->crews || !r->labels)
        return FR_ENOMEM;
    make_crews(r);
    for (int v = 0; v < VARIANTS; v++) {
        r->runs[v] = FR_ARENA_NEW(double *, arena, (size_t)r->n_crews, err);
        for (int k = 0; r->runs[v] && k < r->n_crews; k++) {
            size_t each = is_single(&r->crews[k]) ? (size_t)(r->parts * r->n_out) : 1;
            if (has_variant(r, &r->crews[k], v) &&
                !(r->runs[v][k] = FR_ARENA_NEW(double, arena, n *n *each, err)))
                return FR_ENOMEM;
        }
        if (!r->runs[v])
            return FR_ENOMEM;
    }
    FR_TRY(make_stations(r, arena, err));
    FR_TRY(make_tails(r, arena, err));
    make_sums(r);
    make_runs(r);
    return FR_OK;
}

static fr_status runs_init(runs *r, const int *order, int n, fr_arena *arena, fr_err *err)
{
    const fr_problem *p = r->t->p;
    int output = r->t->output_item;
    memcpy(r->left, p->room, sizeof r->left);
    for (int i = 0; i < p->n_items; i++)
        for (int d = 0; d < r->t->n_devices; d++)
            r->left[d] -= p->items[i].fixed_bytes[d];
    if (output >= 0 && p->items[output].fixed_device < 0)
        r->output_bytes = p->items[output].bytes;
    find_kinds(r, order, n);
    r->parts = PARTS[r->n_kinds];
    r->n_out = 1 + (r->parts - 1) * r->n_kinds;
    FR_TRY(plan_classes_init(&r->classes, r->t, arena, err));
    return make_tables(r, arena, err);
}

static bool output_may_be(const plan_tables *t, int d)
{
    if (t->output_item < 0)
        return d == FR_PLAN_CPU;
    const fr_item *it = &t->p->items[t->output_item];
    return it->fixed_device >= 0 ? it->fixed_device == d : (it->allowed >> d & 1) != 0;
}

fr_status plan_runs_solve(const plan_tables *t, plan_state *s, fr_arena *arena, bool *found,
                          fr_err *err)
{
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    ending end = {.seconds = INFINITY};
    *found = false;
    if (n > MOST_GPUS || t->n_layer == 0 || t->n_layer > MOST_LAYERS)
        return FR_OK;
    runs *r = FR_ARENA_NEW(runs, arena, 1, err);
    placed_run *way = FR_ARENA_NEW(placed_run, arena, (size_t)t->n_layer, err);
    if (!r || !way)
        return FR_ENOMEM;
    *r = (runs){.t = t, .n_layer = t->n_layer};
    FR_TRY(runs_init(r, order, n, arena, err));
    for (int d = 0; d < t->n_devices; d++) {
        bool fixed = r->output_bytes == 0 || d == FR_PLAN_CPU;
        if (output_may_be(t, d) && (fixed || output_kind(r, d) >= 0) && search(r, d, &end))
            place(r, &end, way, s);
    }
    *found = end.seconds < INFINITY && plan_state_excess(s) == 0;
    return FR_OK;
}
