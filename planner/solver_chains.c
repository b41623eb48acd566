#include <math.h>
#include <string.h>

#include "planner/solver_chains_internal.h"

enum { CHUNK = 1 << 14, MOST_CHUNKS = 1 << 12, NONE = -1 };

/* Of the RAM: bytes of ways are rounded up to a part of it, so that there are not too many. */
enum { RAM_STEPS = 4096 };

/* Sums of the same seconds in another order differ by a smaller part. */
#define ROUNDING 1e-9

typedef enum { OPENS, HOME, CLOSES } step_kind;

/* A way to have layers up to a cut placed, by its last step. */
typedef struct {
    double seconds;
    uint64_t ram;
    int before, next; /* label before; next one of the same place */
    short from, begin;
    signed char kind, core, home, stop;
} chain_label;

typedef struct {
    plan_chains c;
    chain_label *chunks[MOST_CHUNKS];
    int n_labels;
    int *open;   /* [state][cut][1 + core][begin]: labels inside a segment */
    int *closed; /* [state][cut][1 + core]: labels behind one */
    size_t n_places;
    uint64_t ram, ram_step;
    double best;
    int best_label;
    plan_chain_output best_output;
    bool best_beside; /* the output is on the last core */
    fr_arena *arena;
    fr_err *err;
} chain_search;

static chain_label *label_of(const chain_search *x, int n)
{
    return &x->chunks[n / CHUNK][n % CHUNK];
}

static int *open_at(const chain_search *x, int state, int at, int core, int begin)
{
    size_t k = plan_chains_place(&x->c, state, at, core);
    return &x->open[k * (size_t)x->c.n_cuts + (size_t)begin];
}

static int *closed_at(const chain_search *x, int state, int at, int core)
{
    return &x->closed[plan_chains_place(&x->c, state, at, core)];
}

/* ---- labels -----------------------------------------------------------------------------------
 */

static fr_status new_label(chain_search *x, const chain_label *l, int *out)
{
    if (x->n_labels / CHUNK == MOST_CHUNKS)
        return fr_fail(x->err, FR_ENOMEM, "plan: found too many ways to look at");
    chain_label **chunk = &x->chunks[x->n_labels / CHUNK];
    if (!*chunk && !(*chunk = FR_ARENA_NEW(chain_label, x->arena, CHUNK, x->err)))
        return FR_ENOMEM;
    *out = x->n_labels++;
    *label_of(x, *out) = *l;
    return FR_OK;
}

/* Adds a way to a place unless another one there is as fast and takes as little RAM, or it cannot
 * lead to a better one than the best: `rest` follows at least. */
static fr_status enter(chain_search *x, int *place, double rest, const chain_label *l)
{
    if (l->seconds + rest >= x->best * (1 + ROUNDING) || l->ram > x->ram)
        return FR_OK;
    for (int k = *place; k != NONE; k = label_of(x, k)->next)
        if (label_of(x, k)->seconds <= l->seconds && label_of(x, k)->ram <= l->ram)
            return FR_OK;
    int n, *link = place;
    FR_TRY(new_label(x, l, &n));
    while (*link != NONE) {
        chain_label *k = label_of(x, *link);
        if (l->seconds <= k->seconds && l->ram <= k->ram)
            *link = k->next;
        else
            link = &k->next;
    }
    label_of(x, n)->next = *place;
    *place = n;
    return FR_OK;
}

static uint64_t stepped(const chain_search *x, uint64_t ram)
{
    return (ram + x->ram_step - 1) / x->ram_step * x->ram_step;
}

/* ---- steps ------------------------------------------------------------------------------------
 */

/* Segments that begin at a cut, behind a way. */
static fr_status open_from(chain_search *x, int state, int at, int before, int from)
{
    const plan_chains *c = &x->c;
    chain_label l = *label_of(x, from);
    for (int core = -1; core < c->n_kinds; core++) {
        int after = state;
        if (core >= 0)
            after = plan_chains_state_with(c, state, &c->homes[core]);
        if (after < 0 || (core < 0 && before < 0 && at > 0))
            continue;
        chain_label o = {.seconds = l.seconds + plan_chains_way(c, before, core, c->cut[at]),
                         .ram = l.ram,
                         .before = from,
                         .from = (short)at,
                         .begin = (short)at,
                         .kind = OPENS,
                         .core = (signed char)core};
        int begin = core < 0 ? 0 : at;
        double rest = plan_chains_inside(c, after, at, core)[begin];
        FR_TRY(enter(x, open_at(x, after, at, core, begin), rest, &o));
    }
    return FR_OK;
}

/* Layers whose experts go to a home, behind a way inside a segment. */
static fr_status extend_to(chain_search *x, int state, int at, int core, int begin, int from,
                           int home)
{
    const plan_chains *c = &x->c;
    int after = plan_chains_state_with(c, state, &c->homes[home]);
    if (after < 0 || !plan_chains_station(c, core, home)->paths)
        return FR_OK;
    for (int to = at + 1; to < c->n_cuts; to++)
        for (int s = 0; s < c->n_stops; s++) {
            const chain_label *l = label_of(x, from);
            const plan_chain_block *b = plan_chains_block(c, core, home, at, to, s);
            if (b->seconds == INFINITY)
                continue;
            chain_label o = {.seconds = l->seconds + b->seconds,
                             .ram = l->ram + stepped(x, b->ram),
                             .before = from,
                             .from = (short)at,
                             .begin = (short)begin,
                             .kind = HOME,
                             .core = (signed char)core,
                             .home = (signed char)home,
                             .stop = (signed char)s};
            double rest = plan_chains_inside(c, after, to, core)[begin];
            FR_TRY(enter(x, open_at(x, after, to, core, begin), rest, &o));
        }
    return FR_OK;
}

/* The end of a segment: layers up to `to` beside their dense parts. */
static fr_status close_at(chain_search *x, int state, int at, int core, int begin, int from, int to)
{
    const plan_chains *c = &x->c;
    for (int s = 0; s < (at < to && core >= 0 ? c->n_stops : 1); s++) {
        const chain_label *l = label_of(x, from);
        plan_chain_block b = {0, 0};
        if (core >= 0)
            b = *plan_chains_own(c, core, begin, at, to, false, s);
        if (b.seconds == INFINITY)
            continue;
        chain_label o = {.seconds = l->seconds + b.seconds,
                         .ram = l->ram + stepped(x, b.ram),
                         .before = from,
                         .from = (short)at,
                         .begin = (short)begin,
                         .kind = CLOSES,
                         .core = (signed char)core,
                         .stop = (signed char)s};
        double rest = *plan_chains_behind(c, state, to, core);
        FR_TRY(enter(x, closed_at(x, state, to, core), rest, &o));
    }
    return FR_OK;
}

/* ---- the end ----------------------------------------------------------------------------------
 */

/* Keeps an end if it is the best one: behind a label, with the output on a device. */
static void keep(chain_search *x, int label, const chain_label *l, double output,
                 plan_chain_output o, bool beside)
{
    const plan_chains *c = &x->c;
    double v = l->seconds + output;
    uint64_t ram = l->ram;
    if (o.device == FR_PLAN_CPU && c->is_short)
        ram += stepped(x, c->output_bytes);
    if (v >= x->best || ram > x->ram)
        return;
    x->best = v;
    x->best_label = label;
    x->best_output = o;
    x->best_beside = beside;
}

/* The output where it takes no room of the last core. */
static void end_with(chain_search *x, int state, int label)
{
    const plan_chains *c = &x->c;
    const chain_label *l = label_of(x, label);
    plan_chain_output o[FR_PLAN_MAX_DEVICES];
    int n = plan_chains_outputs(c, state, o);
    for (int k = 0; k < n; k++)
        keep(x, label, l, plan_chains_output_seconds(c, l->core, o[k]), o[k], false);
}

/* The last segment's end with the output beside it, behind a way inside it. */
static fr_status end_beside(chain_search *x, int at, int core, int begin, int from)
{
    const plan_chains *c = &x->c;
    int last = c->n_cuts - 1, n;
    plan_chain_output beside = {plan_chains_first(c, core), NONE};
    if (c->output_bytes == 0 || !plan_chains_may_output(c, beside.device))
        return FR_OK;
    for (int s = 0; s < (at < last ? c->n_stops : 1); s++) {
        const chain_label *l = label_of(x, from);
        plan_chain_block b = *plan_chains_own(c, core, begin, at, last, true, s);
        double before = x->best;
        if (b.seconds == INFINITY)
            continue;
        chain_label o = {.seconds = l->seconds + b.seconds,
                         .ram = l->ram + stepped(x, b.ram),
                         .before = from,
                         .next = NONE,
                         .from = (short)at,
                         .begin = (short)begin,
                         .kind = CLOSES,
                         .core = (signed char)core,
                         .stop = (signed char)s};
        keep(x, x->n_labels, &o, plan_chains_output_seconds(c, core, beside), beside, true);
        if (x->best < before)
            FR_TRY(new_label(x, &o, &n));
    }
    return FR_OK;
}

/* ---- all ways ---------------------------------------------------------------------------------
 */

/* What a way inside a segment leads to. */
static fr_status go_on(chain_search *x, int state, int at, int core, int begin, int from)
{
    const plan_chains *c = &x->c;
    int last = c->n_cuts - 1;
    for (int h = 0; at < last && h < c->n_homes - (core >= 0); h++)
        FR_TRY(extend_to(x, state, at, core, begin, from, h));
    for (int to = at + 1; core >= 0 && to <= last; to++)
        FR_TRY(close_at(x, state, at, core, begin, from, to));
    return core >= 0 ? end_beside(x, at, core, begin, from) : FR_OK;
}

typedef fr_status (*visitor)(chain_search *x, int state, int at, int core, int begin, int from);

static fr_status close_here(chain_search *x, int state, int at, int core, int begin, int from)
{
    if (label_of(x, from)->kind == OPENS)
        return FR_OK;
    return close_at(x, state, at, core, begin, from, at);
}

static fr_status for_open(chain_search *x, int at, visitor visit)
{
    const plan_chains *c = &x->c;
    for (int state = 0; state < c->n_states; state++)
        for (int core = -1; core < c->n_kinds; core++)
            for (int begin = 0; begin <= (core < 0 ? 0 : at); begin++)
                for (int k = *open_at(x, state, at, core, begin); k != NONE;
                     k = label_of(x, k)->next)
                    FR_TRY(visit(x, state, at, core, begin, k));
    return FR_OK;
}

/* The best way of less than `seconds`. */
static fr_status find_ways(chain_search *x, double seconds)
{
    const plan_chains *c = &x->c;
    int last = c->n_cuts - 1, first;
    memset(x->open, 0xff, x->n_places * (size_t)c->n_cuts * sizeof *x->open); /* NONE */
    memset(x->closed, 0xff, x->n_places * sizeof *x->closed);
    x->n_labels = 0;
    x->best = seconds;
    x->best_label = NONE;
    const chain_label start = {.next = NONE, .before = NONE, .kind = CLOSES, .core = -1};
    FR_TRY(new_label(x, &start, &first));
    *closed_at(x, 0, 0, -1) = first;
    for (int at = 0; at <= last; at++) {
        FR_TRY(for_open(x, at, close_here));
        for (int state = 0; state < c->n_states; state++)
            for (int core = -1; core < c->n_kinds; core++)
                for (int k = *closed_at(x, state, at, core); k != NONE; k = label_of(x, k)->next) {
                    if (at < last)
                        FR_TRY(open_from(x, state, at, core, k));
                    else
                        end_with(x, state, k);
                }
        FR_TRY(for_open(x, at, go_on));
    }
    return FR_OK;
}

/* The same, first among those that are little slower than the least that can be, then among more:
 * the fewer there are, the less there is to look at. */
static fr_status find_best(chain_search *x, double seconds)
{
    static const double parts[] = {ROUNDING, 0.01, 0.1, INFINITY};
    double least =
        fmin(*plan_chains_behind(&x->c, 0, 0, NONE), *plan_chains_inside(&x->c, 0, 0, NONE));
    x->best_label = NONE;
    if (least == INFINITY)
        return FR_OK;
    for (int k = 0; k < 4 && least * (1 - ROUNDING) < seconds && x->best_label == NONE; k++) {
        double most = least * (1 + parts[k]);
        FR_TRY(find_ways(x, fmin(most, seconds)));
        if (most >= seconds)
            break;
    }
    return FR_OK;
}

/* ---- placing ----------------------------------------------------------------------------------
 */

typedef struct {
    int used[PLAN_CHAINS_GPUS];
    int core; /* device */
} placing;

static int next_gpu(const chain_search *x, placing *pl, int kind)
{
    return kind < 0 ? FR_PLAN_CPU : x->c.kinds[kind].gpu[pl->used[kind]++];
}

static void put(plan_state *s, int item, int to)
{
    if (item >= 0 && plan_state_may_move(s, item, s->device[item], to, 1))
        plan_state_move(s, item, s->device[item], to, 1);
}

static void put_layer(const chain_search *x, plan_state *s, const plan_chain_station *st, int il,
                      int core, const int *device)
{
    const plan_tables *t = x->c.t;
    int class = x->c.classes.class_of[il], first = x->c.classes.layer_of[class];
    put(s, t->dense[il], core);
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        const fr_item *it = &t->p->items[t->experts[il][k]];
        int64_t units[FR_PLAN_MAX_DEVICES] = {0}, n = it->allowed & 1 ? 0 : it->n_units;
        if (it->fixed_device >= 0)
            continue;
        if (st->paths[class].item == t->experts[first][k])
            n = x->c.level[il];
        for (int g = 0; n > 0 && g < st->home->n; g++)
            units[device[g]] = st->home->units[g][n];
        units[FR_PLAN_CPU] = it->n_units - n;
        plan_state_set(s, t->experts[il][k], units);
    }
}

/* A step of the best way, which ends at a cut. */
static void put_step(const chain_search *x, plan_state *s, placing *pl, const chain_label *l,
                     int to, bool output)
{
    const plan_chains *c = &x->c;
    const plan_chain_station *st;
    int device[PLAN_CHAINS_TEAM] = {pl->core};
    if (l->kind == OPENS) {
        pl->core = next_gpu(x, pl, l->core);
        return;
    }
    memset(c->level, 0, (size_t)c->n_layer * sizeof *c->level);
    if (l->kind == HOME) {
        st = plan_chains_station(c, l->core, l->home);
        for (int g = 0; g < st->home->n; g++)
            device[g] = next_gpu(x, pl, st->home->kind[g]);
        plan_chains_fill_block(c, l->core, l->home, l->from, to, l->stop, c->level);
    } else if (l->core >= 0) {
        st = &c->own[l->core];
        plan_chains_fill_own(c, l->core, l->begin, l->from, to, output, l->stop, c->level);
    } else {
        return;
    }
    for (int il = c->cut[l->from]; il < c->cut[to]; il++)
        put_layer(x, s, st, il, pl->core, device);
}

static fr_status place(const chain_search *x, plan_state *s)
{
    const plan_chains *c = &x->c;
    placing pl = {.core = FR_PLAN_CPU};
    int n = 0, output = x->best_output.device;
    int *way = FR_ARENA_NEW(int, x->arena, (size_t)c->n_cuts * 4 + 4, x->err);
    if (!way)
        return FR_ENOMEM;
    for (int k = x->best_label; label_of(x, k)->before != NONE; k = label_of(x, k)->before)
        way[n++] = k;
    plan_state_reset(s);
    for (int k = n - 1; k >= 0; k--) {
        int to = k > 0 ? label_of(x, way[k - 1])->from : c->n_cuts - 1;
        put_step(x, s, &pl, label_of(x, way[k]), to, k == 0 && x->best_beside);
    }
    if (x->best_beside)
        output = pl.core;
    else if (x->best_output.kind >= 0)
        output = next_gpu(x, &pl, x->best_output.kind);
    put(s, c->t->output_item, output);
    plan_state_recount(s);
    return FR_OK;
}

/* ---- solving ----------------------------------------------------------------------------------
 */

static fr_status search_init(chain_search *x, const plan_tables *t, const int *order, int n)
{
    plan_chains *c = &x->c;
    FR_TRY(plan_chains_init(c, t, order, n, x->arena, x->err));
    x->n_places = plan_chains_place(c, c->n_states, 0, -1);
    x->open = FR_ARENA_NEW(int, x->arena, x->n_places *(size_t)c->n_cuts, x->err);
    x->closed = FR_ARENA_NEW(int, x->arena, x->n_places, x->err);
    if (!x->open || !x->closed)
        return FR_ENOMEM;
    x->ram = c->is_short ? c->left[FR_PLAN_CPU] : 0;
    x->ram_step = x->ram / RAM_STEPS + 1;
    return plan_chains_look_back(c, x->arena, x->err);
}

fr_status plan_chains_solve(const plan_tables *t, double seconds, plan_state *s, fr_arena *arena,
                            bool *found, fr_err *err)
{
    int order[FR_MAX_GPUS], n = plan_gpu_order(t->p, order);
    plan_state trial;
    *found = false;
    if (n == 0 || n > PLAN_CHAINS_GPUS || t->n_layer == 0)
        return FR_OK;
    chain_search *x = FR_ARENA_NEW(chain_search, arena, 1, err);
    if (!x)
        return FR_ENOMEM;
    x->arena = arena;
    x->err = err;
    FR_TRY(search_init(x, t, order, n));
    FR_TRY(find_best(x, seconds));
    if (x->best_label == NONE)
        return FR_OK;
    FR_TRY(plan_state_init(&trial, t, arena, err));
    FR_TRY(place(x, &trial));
    *found = plan_state_excess(&trial) == 0;
    if (*found)
        plan_state_copy(s, &trial);
    return FR_OK;
}
