/* What a run takes: its GPUs filled with experts, the best gain per byte first. */
#include <math.h>
#include <string.h>

#include "planner/solver_runs_internal.h"

static int plan_runs_count(const plan_runs *r, int class, int from, int to)
{
    const int *n = r->count + (size_t) class * plan_runs_width(r);
    return n[to] - n[from];
}

double *plan_runs_at(const plan_runs *r, const plan_run *q)
{
    size_t at = (size_t)q->from * plan_runs_width(r) + (size_t)q->to;
    if (plan_crew_is_single(&r->crews[q->crew]))
        at = (at * (size_t)r->parts + (size_t)q->in) * (size_t)r->n_out + (size_t)q->out;
    return &r->runs[q->variant][q->crew][at];
}

/* ---- filling ----------------------------------------------------------------------------------
 */

typedef struct {
    const plan_runs *r;
    const plan_run_station *st;
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
    const plan_run_station *st = f->st;
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
        int have = plan_runs_count(f->r, p->class, f->from, f->to);
        if (have > 0)
            seconds += take(f, p, &st->paths[p->class], have, &full);
    }
    return seconds;
}

/* Layers [from, to) on a station: bytes that they need whatever the filling, and seconds. */
static double unfilled(const plan_run_station *st, int from, int to, uint64_t *need)
{
    if (from == to)
        return 0;
    *need += st->bound[to] - st->bound[from];
    return st->cannot[to] > st->cannot[from] ? INFINITY : st->seconds[to] - st->seconds[from];
}

/* What is on the two GPUs of a crew beside experts that fill them. */
static void needs_of(const plan_runs *r, const plan_run *q, uint64_t need[2])
{
    need[0] = r->dense[q->to] - r->dense[q->from] + (q->variant == 1 ? r->output_bytes : 0);
    need[1] = q->variant == 2 ? r->output_bytes : 0;
    if (q->in > 0) {
        int k = r->crews[q->crew].dense, out = 1 + (q->in - 1) * r->n_kinds + k;
        need[0] += plan_runs_tail(r, k, out, r->classes.class_of[q->from - 1])->carried;
    }
}

/* A run on one GPU, or with one GPU for experts beside a dense part on the CPU, or on the CPU. */
static double simple_run(const plan_runs *r, const plan_run *q, int64_t *level)
{
    const plan_crew *w = &r->crews[q->crew];
    const plan_run_station *st = plan_runs_station_of(r, w, true);
    filling f = {.r = r, .st = st, .from = q->from, .to = q->to, .level = level};
    uint64_t need[2];
    needs_of(r, q, need);
    if (q->out > 0) {
        f.tail = plan_runs_tail(r, w->dense, q->out, r->classes.class_of[--f.to]);
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

/* ---- runs on two GPUs -------------------------------------------------------------------------
 *
 * The experts of layers up to `split` are beside the dense parts of all, those of the others on the
 * other GPU. What either has does not depend on the other. */

/* Where the k-th of the splits that are tried is. */
static int split_at(const plan_run *q, int k)
{
    return q->from + (q->to - q->from) * k / PLAN_RUNS_SPLITS;
}

/* The layers beside their dense parts; `with`: the output is there too. */
static double own_part(const plan_runs *r, const plan_crew *w, const plan_run *q, bool with,
                       int split, int64_t *level)
{
    const plan_run_station *st = plan_runs_station_of(r, w, false);
    uint64_t need = r->dense[q->to] - r->dense[q->from] + (with ? r->output_bytes : 0);
    double seconds = unfilled(st, q->from, split, &need);
    if (seconds == INFINITY || need > r->left[w->dense_d])
        return INFINITY;
    filling f = {r, st, q->from, split, NULL, r->left[w->dense_d] - need, level};
    return seconds + fill(&f);
}

/* The layers whose experts are on the other GPU. */
static double away_part(const plan_runs *r, const plan_crew *w, int split, int to, bool with,
                        int64_t *level)
{
    const plan_run_station *st = plan_runs_station_of(r, w, true);
    uint64_t need = with ? r->output_bytes : 0;
    double seconds = unfilled(st, split, to, &need);
    if (seconds == INFINITY || need > r->left[w->home_d])
        return INFINITY;
    filling f = {r, st, split, to, NULL, r->left[w->home_d] - need, level};
    return seconds + fill(&f);
}

static double *own_at(const plan_runs *r, const plan_run *q, bool with, int k)
{
    size_t n = plan_runs_width(r), kind = (size_t)r->crews[q->crew].dense;
    size_t at = (kind * n + (size_t)q->from) * n + (size_t)q->to;
    return &r->own[with][at * PLAN_RUNS_SPLITS + (size_t)k];
}

static double *away_at(const plan_runs *r, int crew, int split, int to, bool with)
{
    return &r->away[with][crew][(size_t)split * plan_runs_width(r) + (size_t)to];
}

/* The parts of all split runs of a crew; those beside dense parts once for a kind. */
static void fill_parts(plan_runs *r, int crew, bool own)
{
    const plan_crew *w = &r->crews[crew];
    for (int with = 0; with < (r->output_bytes > 0 ? 2 : 1); with++)
        for (int from = 0; from < r->n_layer; from++)
            for (int to = from + 1; to <= r->n_layer; to++) {
                plan_run q = {.crew = crew, .from = from, .to = to};
                *away_at(r, crew, from, to, with > 0) = away_part(r, w, from, to, with > 0, NULL);
                for (int k = 0; own && k < PLAN_RUNS_SPLITS; k++)
                    *own_at(r, &q, with > 0, k) =
                        own_part(r, w, &q, with > 0, split_at(&q, k), NULL);
            }
}

/* The best of the splits; *split is where. */
static double best_split(const plan_runs *r, const plan_run *q, int *split)
{
    double best = INFINITY;
    *split = q->from;
    for (int k = 0, at, last = -1; k < PLAN_RUNS_SPLITS; k++, last = at) {
        at = split_at(q, k);
        if (at == last)
            continue;
        double v =
            *own_at(r, q, q->variant == 1, k) + *away_at(r, q->crew, at, q->to, q->variant == 2);
        if (v < best) {
            best = v;
            *split = at;
        }
    }
    return best;
}

/* ---- all --------------------------------------------------------------------------------------
 */

/* Seconds of a run with the hops inside it. */
static double run_seconds(const plan_runs *r, const plan_run *q)
{
    const plan_crew *w = &r->crews[q->crew];
    const double *hops = r->hops + (size_t)(w->dense + 1) * plan_runs_width(r);
    double hop = hops[q->to] - hops[q->from + 1];
    int split;
    return (plan_crew_is_split(w) ? best_split(r, q, &split) : simple_run(r, q, NULL)) + hop;
}

void plan_run_levels(const plan_runs *r, const plan_run *q, int64_t *level, int *split)
{
    const plan_crew *w = &r->crews[q->crew];
    *split = q->from;
    if (!plan_crew_is_split(w)) {
        simple_run(r, q, level);
        return;
    }
    best_split(r, q, split);
    own_part(r, w, q, q->variant == 1, *split, level);
    away_part(r, w, *split, q->to, q->variant == 2, level);
}

/* Whether a run can be asked for so: experts are carried over from a layer to a layer. */
static bool makes_sense(const plan_runs *r, const plan_run *q)
{
    bool last = q->to == r->n_layer;
    if ((q->out > 0 && last) || (r->late && q->variant > 0 && !last))
        return false;
    if (q->in == 0)
        return true;
    int k = r->crews[q->crew].dense, out = 1 + (q->in - 1) * r->n_kinds + k;
    return q->from > 0 &&
           plan_runs_tail(r, k, out, r->classes.class_of[q->from - 1])->n_carried > 0;
}

static void fill_crew(plan_runs *r, int crew)
{
    bool single = plan_crew_is_single(&r->crews[crew]);
    plan_run q = {.crew = crew};
    for (q.variant = 0; q.variant < PLAN_RUNS_VARIANTS; q.variant++) {
        if (!plan_runs_has_variant(r, &r->crews[crew], q.variant))
            continue;
        for (q.from = 0; q.from < r->n_layer; q.from++)
            for (q.to = q.from + 1; q.to <= r->n_layer; q.to++)
                for (q.in = 0; q.in < (single ? r->parts : 1); q.in++)
                    for (q.out = 0; q.out < (single ? r->n_out : 1); q.out++)
                        *plan_runs_at(r, &q) = makes_sense(r, &q) ? run_seconds(r, &q) : INFINITY;
    }
}

void plan_runs_fill(plan_runs *r)
{
    bool own[PLAN_RUNS_GPUS] = {false};
    for (int k = 0; k < r->n_crews; k++) {
        const plan_crew *w = &r->crews[k];
        if (plan_crew_is_split(w)) {
            fill_parts(r, k, !own[w->dense]);
            own[w->dense] = true;
        }
        fill_crew(r, k);
    }
}
