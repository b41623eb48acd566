#include "planner/solver_prices.h"

#include <math.h>
#include <string.h>

enum { N_ROUNDS = 48, PARTS = 8 };

/* Prices below this part of a high one are none. */
static const double LEAST_PRICE = 1e-3;

static double *seconds_at(const plan_prices *pr, int il, int dense)
{
    return pr->seconds + (size_t)(il * pr->t->n_devices + dense) * (size_t)pr->n_options;
}

static double *bytes_at(const plan_prices *pr, int il, int option)
{
    return pr->bytes + (size_t)(il * pr->n_options + option) * FR_PLAN_MAX_DEVICES;
}

/* ---- options ----------------------------------------------------------------------------------
 */

/* Units of an item that an option puts on each device; what may not go there goes elsewhere. */
static void option_units(const plan_tables *t, const fr_item *it, const plan_option *o,
                         int64_t units[FR_PLAN_MAX_DEVICES])
{
    int64_t on_b = it->n_units * o->eighths / PARTS;
    memset(units, 0, FR_PLAN_MAX_DEVICES * sizeof *units);
    if (it->fixed_device >= 0) {
        units[it->fixed_device] = it->n_units;
        return;
    }
    int a = o->a, b = o->b, other = 0;
    while (other + 1 < t->n_devices && !(it->allowed >> other & 1))
        other++;
    if (!(it->allowed >> a & 1))
        a = it->allowed >> b & 1 ? b : other;
    if (!(it->allowed >> b & 1))
        b = a;
    units[b] += on_b;
    units[a] += it->n_units - on_b;
}

static void make_options(plan_prices *pr)
{
    int n = pr->t->n_devices;
    for (int d = 0; d < n; d++) {
        pr->options[pr->n_options++] = (plan_option){d, d, 0};
        for (int k = 1; k < PARTS && d != FR_PLAN_CPU; k++)
            pr->options[pr->n_options++] = (plan_option){FR_PLAN_CPU, d, k};
    }
}

/* What an option of a layer takes in bytes, and for every place of the dense part in seconds. */
static void fill_option(plan_prices *pr, int il, int option)
{
    const plan_tables *t = pr->t;
    double share[FR_PLAN_MAX_DEVICES], *bytes = bytes_at(pr, il, option);
    int64_t units[FR_PLAN_MAX_DEVICES];
    memcpy(share, t->fixed_share[il], sizeof share);
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        const fr_item *it = &t->p->items[t->experts[il][k]];
        option_units(t, it, &pr->options[option], units);
        for (int d = 0; d < t->n_devices; d++) {
            share[d] += t->unit_share[t->experts[il][k]] * (double)units[d];
            bytes[d] += (double)plan_item_bytes(it, units[d]);
        }
    }
    for (int d = 0; d < t->n_devices; d++)
        seconds_at(pr, il, d)[option] = plan_tables_layer(t, il, d, share);
}

fr_status plan_prices_init(plan_prices *pr, const plan_tables *t, fr_arena *arena, fr_err *err)
{
    size_t places = (size_t)(t->n_layer * t->n_devices);
    *pr = (plan_prices){.t = t};
    pr->options = FR_ARENA_NEW(plan_option, arena, FR_PLAN_MAX_DEVICES * PARTS, err);
    if (!pr->options)
        return FR_ENOMEM;
    make_options(pr);
    size_t n_options = (size_t)pr->n_options;
    pr->seconds = FR_ARENA_NEW(double, arena, places *n_options, err);
    pr->bytes =
        FR_ARENA_NEW(double, arena, (size_t)t->n_layer *n_options *FR_PLAN_MAX_DEVICES, err);
    pr->least = FR_ARENA_NEW(double, arena, places, err);
    pr->before = FR_ARENA_NEW(int, arena, places, err);
    pr->option = FR_ARENA_NEW(int, arena, places, err);
    if (!pr->seconds || !pr->bytes || !pr->least || !pr->before || !pr->option)
        return FR_ENOMEM;
    double seconds = 0, bytes = 1;
    for (int il = 0; il < t->n_layer; il++) {
        for (int k = 0; k < pr->n_options; k++)
            fill_option(pr, il, k);
        seconds += seconds_at(pr, il, FR_PLAN_CPU)[0];
    }
    for (int i = 0; i < t->p->n_items; i++)
        bytes += (double)t->p->items[i].bytes;
    pr->unit = seconds / bytes;
    return FR_OK;
}

void plan_prices_restart(plan_prices *pr)
{
    pr->round = 0;
    memset(pr->price, 0, sizeof pr->price);
}

/* ---- one round --------------------------------------------------------------------------------
 */

static bool may_be(const plan_tables *t, int item, int d)
{
    if (item < 0)
        return d == FR_PLAN_CPU;
    const fr_item *it = &t->p->items[item];
    return it->fixed_device >= 0 ? it->fixed_device == d : (it->allowed >> d & 1) != 0;
}

static double item_price(const plan_prices *pr, int item, int d)
{
    return item < 0 ? 0 : pr->price[d] * (double)pr->t->p->items[item].bytes;
}

/* Priced seconds of a layer by itself, with the best option. */
static double layer_price(plan_prices *pr, int il, int dense)
{
    const double *seconds = seconds_at(pr, il, dense);
    double least = INFINITY;
    for (int k = 0; k < pr->n_options; k++) {
        const plan_option *o = &pr->options[k];
        const double *bytes = bytes_at(pr, il, k);
        double v = seconds[k] + pr->price[o->a] * bytes[o->a];
        if (o->b != o->a)
            v += pr->price[o->b] * bytes[o->b];
        if (v < least) {
            least = v;
            pr->option[il * pr->t->n_devices + dense] = k;
        }
    }
    return least + item_price(pr, pr->t->dense[il], dense);
}

/* The cheapest ways to have layers [from, to) on each device, from where the layer before stands.
 */
static void forward(plan_prices *pr, const plan_state *s, int from, int to)
{
    const plan_tables *t = pr->t;
    int n = t->n_devices;
    for (int il = from; il < to; il++)
        for (int d = 0; d < n; d++) {
            double *least = &pr->least[il * n + d], way = il > 0 ? INFINITY : 0;
            for (int k = 0; k < n && il > 0; k++) {
                double v = il > from ? pr->least[(il - 1) * n + k] + t->hop[k][d]
                                     : t->hop[plan_state_device(s, t->dense[il - 1])][d];
                if (v < way) {
                    way = v;
                    pr->before[il * n + d] = k;
                }
            }
            *least = may_be(t, t->dense[il], d) ? way + layer_price(pr, il, d) : INFINITY;
        }
}

/* The end of the cheapest way: device of the last layer, and of the output. */
static int cheapest_end(const plan_prices *pr, int *output)
{
    const plan_tables *t = pr->t;
    int n = t->n_devices, best = FR_PLAN_CPU;
    double least = INFINITY;
    for (int d = 0; d < n; d++)
        for (int e = 0; e < n; e++) {
            double v = pr->least[(t->n_layer - 1) * n + d] + t->output[d][e] +
                       item_price(pr, t->output_item, e);
            if (may_be(t, t->output_item, e) && v < least) {
                least = v;
                best = d;
                *output = e;
            }
        }
    return best;
}

/* The same when the layer `next` stays where it is. */
static int cheapest_before(const plan_prices *pr, const plan_state *s, int next)
{
    const plan_tables *t = pr->t;
    int n = t->n_devices, best = FR_PLAN_CPU, to = plan_state_device(s, t->dense[next]);
    double least = INFINITY;
    for (int d = 0; d < n; d++) {
        double v = pr->least[(next - 1) * n + d] + t->hop[d][to];
        if (v < least) {
            least = v;
            best = d;
        }
    }
    return best;
}

static void put(plan_state *s, int item, int to)
{
    if (item >= 0 && plan_state_may_move(s, item, s->device[item], to, 1))
        plan_state_move(s, item, s->device[item], to, 1);
}

/* Experts of a layer as the option says. */
static void put_experts(const plan_prices *pr, plan_state *s, int il, const plan_option *o)
{
    const plan_tables *t = pr->t;
    for (int k = 0; k < 2 && t->experts[il][k] >= 0; k++) {
        int item = t->experts[il][k];
        int64_t units[FR_PLAN_MAX_DEVICES];
        if (t->p->items[item].fixed_device >= 0)
            continue;
        option_units(t, &t->p->items[item], o, units);
        plan_state_set(s, item, units);
    }
}

/* Follows the cheapest way back from its end. */
static void backward(const plan_prices *pr, plan_state *s, int from, int to)
{
    const plan_tables *t = pr->t;
    int output = FR_PLAN_CPU, d;
    if (to == t->n_layer) {
        d = cheapest_end(pr, &output);
        put(s, t->output_item, output);
    } else {
        d = cheapest_before(pr, s, to);
    }
    for (int il = to - 1; il >= from; il--) {
        int at = il * t->n_devices + d;
        put(s, t->dense[il], d);
        put_experts(pr, s, il, &pr->options[pr->option[at]]);
        d = pr->before[at];
    }
}

/* Dearer where too much was asked for, cheaper elsewhere, by smaller and smaller steps. */
static void adjust(plan_prices *pr, const plan_state *s)
{
    double step = 2.0 / (1 + 0.2 * pr->round), all = 1;
    for (int d = 0; d < pr->t->n_devices; d++)
        all += (double)pr->t->p->room[d];
    for (int d = 0; d < pr->t->n_devices; d++) {
        double room = (double)pr->t->p->room[d];
        double asked = ((double)s->used[d] - room) / fmax(room, all / 256);
        double price = fmax(pr->price[d], LEAST_PRICE * pr->unit);
        price *= exp(step * fmin(1, fmax(-1, asked)));
        pr->price[d] = price > LEAST_PRICE * pr->unit ? price : 0;
    }
}

bool plan_prices_next(plan_prices *pr, plan_state *s)
{
    if (pr->round == N_ROUNDS || pr->t->n_layer == 0)
        return false;
    forward(pr, s, 0, pr->t->n_layer);
    backward(pr, s, 0, pr->t->n_layer);
    adjust(pr, s);
    pr->round++;
    return true;
}

void plan_prices_place(plan_prices *pr, const double price[FR_PLAN_MAX_DEVICES], int from, int to,
                       plan_state *s)
{
    double kept[FR_PLAN_MAX_DEVICES];
    memcpy(kept, pr->price, sizeof kept);
    memcpy(pr->price, price, sizeof kept);
    forward(pr, s, from, to);
    backward(pr, s, from, to);
    memcpy(pr->price, kept, sizeof kept);
}
