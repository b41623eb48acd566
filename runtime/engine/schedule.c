#include "engine/schedule.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* ---- places ------------------------------------------------------------------------------------
 */

fr_status fr_places_make(const fr_model *m, const fr_plan *plan, fr_places *out, fr_err *err)
{
    *out = (fr_places){.n_devices = 1, .n_layer = m->hp.n_layer};
    out->weights = FR_NEW(uint32_t, FR_MEM_ENGINE, (size_t)m->n_weights, err);
    if (!out->weights)
        return FR_ENOMEM;
    if (!plan) {
        for (int i = 0; i < m->n_weights; i++)
            out->weights[i] = 1u << FR_PLAN_CPU;
        return FR_OK;
    }
    for (int i = 0; i < plan->n_placements; i++)
        out->weights[plan->placements[i].tensor] |= 1u << plan->placements[i].device;
    for (int d = 1; d < plan->n_devices; d++)
        if (plan->devices[d].staging > 0)
            out->streaming |= 1u << d;
    out->n_devices = plan->n_devices;
    out->home = plan->attention_device;
    out->kv = plan->kv_device;
    return FR_OK;
}

void fr_places_free(fr_places *p)
{
    fr_mem_free(p->weights);
    *p = (fr_places){.n_devices = 0};
}

/* ---- building ----------------------------------------------------------------------------------
 */

/* A value that must travel, when the node that last wrote it has run. */
typedef struct {
    int after; /* node */
    fr_step step;
} planned_copy;

typedef struct {
    const fr_model *m;
    const fr_graph *g;
    const fr_places *at;
    fr_stream_mode stream;
    uint32_t *valid;       /* [n_values]: devices that have the value as it is now */
    int *writer, *made_on; /* [n_values]: node and device of the last writer */
    uint32_t *runs_on;     /* [n_nodes]; STREAM's devices are in streams_on */
    uint32_t *streams_on;
    int *sums_on; /* [n_nodes]: device that has the result */
    planned_copy *copies;
    int n_copies;
    size_t cap_copies;
    fr_schedule *out;
    fr_err *err;
} builder;

static int lowest(uint32_t devices)
{
    return __builtin_ctz(devices);
}

static int home_of(const builder *b, int layer)
{
    return b->at->home && layer >= 0 ? b->at->home[layer] : FR_PLAN_CPU;
}

static bool has_expert_weights(fr_op op)
{
    return op == FR_OP_MOE || op == FR_OP_MATMUL_IDS;
}

static int device_of(const builder *b, const fr_node *n)
{
    switch (n->op) {
    case FR_OP_KV_STORE:
    case FR_OP_ATTN_LATENT:
    case FR_OP_ATTN_EXPAND:
    case FR_OP_ATTN_PLAIN:
        return b->at->kv ? b->at->kv[n->layer] : FR_PLAN_CPU;
    case FR_OP_ADD:
        return home_of(b, n->layer);
    default:
        break;
    }
    if (n->weight[0] >= 0)
        return lowest(b->at->weights[n->weight[0]]);
    return n->in[0].value >= 0 ? b->made_on[n->in[0].value] : FR_PLAN_CPU;
}

static bool streams(const builder *b, const fr_node *n)
{
    if (n->op != FR_OP_MOE || !b->at->streaming)
        return false;
    bool few = b->g->values[n->in[0].value].per_output;
    return b->stream >= (few ? FR_STREAM_ALL : FR_STREAM_TOKENS);
}

static void choose_devices(builder *b, int i)
{
    const fr_node *n = &b->g->nodes[i];
    b->runs_on[i] =
        has_expert_weights(n->op) ? b->at->weights[n->weight[0]] : 1u << device_of(b, n);
    uint32_t ram = 1u << FR_PLAN_CPU;
    if (streams(b, n) && (b->runs_on[i] & ram)) {
        b->runs_on[i] &= ~ram;
        b->streams_on[i] = b->at->streaming;
    }
    uint32_t all = b->runs_on[i] | b->streams_on[i], home = 1u << home_of(b, n->layer);
    b->sums_on[i] = lowest(all & home ? home : all);
}

static fr_status need(builder *b, int i, int value, int device)
{
    uint32_t bit = 1u << device;
    if (b->valid[value] == 0 || (b->valid[value] & bit))
        return FR_OK;
    void *items = b->copies;
    FR_TRY(fr_mem_grow(FR_MEM_ENGINE, &items, &b->cap_copies, (size_t)b->n_copies + 1,
                       sizeof *b->copies, b->err));
    b->copies = items;
    b->copies[b->n_copies++] = (planned_copy){
        .after = b->writer[value],
        .step = {FR_STEP_COPY, i, device, b->made_on[value], value, 0},
    };
    b->valid[value] |= bit;
    return FR_OK;
}

static fr_status need_all(builder *b, int i, int value, uint32_t devices)
{
    for (int d = 0; d < b->at->n_devices && value >= 0; d++)
        if (devices >> d & 1)
            FR_TRY(need(b, i, value, d));
    return FR_OK;
}

static void written(builder *b, int i, int value)
{
    if (value < 0)
        return;
    b->valid[value] = 1u << b->sums_on[i];
    b->made_on[value] = b->sums_on[i];
    b->writer[value] = i;
}

/* What a node reads must be there, and so must the rest of what it writes a part of. The CPU also
 * gets the chosen experts of what it only sends on. */
static fr_status visit(builder *b, int i)
{
    const fr_node *n = &b->g->nodes[i];
    choose_devices(b, i);
    uint32_t all = b->runs_on[i] | b->streams_on[i];
    for (int k = 0; k < 3; k++)
        FR_TRY(need_all(b, i, n->in[k].value, all));
    if (b->streams_on[i])
        FR_TRY(need_all(b, i, n->in[1].value, 1u << FR_PLAN_CPU));
    if (n->op == FR_OP_ROPE)
        written(b, i, n->in[0].value);
    for (int k = 0; k < 2; k++) {
        int value = n->out[k].value;
        if (value >= 0 && !has_expert_weights(n->op))
            FR_TRY(need_all(b, i, value, all)); /* nothing to do for new values */
        written(b, i, value);
    }
    return FR_OK;
}

/* ---- writing the steps -------------------------------------------------------------------------
 */

static fr_status add_step(builder *b, fr_step step)
{
    fr_schedule *s = b->out;
    void *items = s->steps;
    FR_TRY(fr_mem_grow(FR_MEM_ENGINE, &items, &s->cap_steps, (size_t)s->n_steps + 1,
                       sizeof *s->steps, b->err));
    s->steps = items;
    s->steps[s->n_steps++] = step;
    s->used |= 1u << step.device | step.devices;
    return FR_OK;
}

/* GPUs first: they work while the CPU does. */
static fr_status write_node(builder *b, int i)
{
    uint32_t runs = b->runs_on[i], all = runs | b->streams_on[i];
    for (int d = 1; d < b->at->n_devices; d++)
        if (runs >> d & 1)
            FR_TRY(add_step(b, (fr_step){FR_STEP_RUN, i, d, d, -1, 0}));
    if (b->streams_on[i])
        FR_TRY(add_step(
            b, (fr_step){FR_STEP_STREAM, i, FR_PLAN_CPU, FR_PLAN_CPU, -1, b->streams_on[i]}));
    if (runs >> FR_PLAN_CPU & 1)
        FR_TRY(add_step(b, (fr_step){FR_STEP_RUN, i, FR_PLAN_CPU, FR_PLAN_CPU, -1, 0}));
    for (int d = 0; d < b->at->n_devices; d++)
        if ((all >> d & 1) && d != b->sums_on[i])
            FR_TRY(add_step(
                b, (fr_step){FR_STEP_SUM, i, b->sums_on[i], d, b->g->nodes[i].out[0].value, 0}));
    return FR_OK;
}

static fr_status write_copies(builder *b, int after)
{
    for (int c = 0; c < b->n_copies; c++)
        if (b->copies[c].after == after)
            FR_TRY(add_step(b, b->copies[c].step));
    return FR_OK;
}

static fr_status build(builder *b)
{
    for (int i = 0; i < b->g->n_nodes; i++)
        FR_TRY(visit(b, i));
    FR_TRY(need(b, b->g->n_nodes, b->g->logits, FR_PLAN_CPU));
    for (int i = 0; i < b->g->n_nodes; i++) {
        FR_TRY(write_node(b, i));
        FR_TRY(write_copies(b, i));
    }
    return FR_OK;
}

fr_status fr_schedule_make(const fr_model *m, const fr_graph *g, const fr_places *places,
                           fr_stream_mode stream, fr_schedule *out, fr_err *err)
{
    *out = (fr_schedule){.n_steps = 0};
    size_t n_values = (size_t)g->n_values, n_nodes = (size_t)g->n_nodes;
    builder b = {.m = m, .g = g, .at = places, .stream = stream, .out = out, .err = err};
    b.valid = FR_NEW(uint32_t, FR_MEM_ENGINE, n_values, err);
    b.writer = FR_NEW(int, FR_MEM_ENGINE, n_values, err);
    b.made_on = FR_NEW(int, FR_MEM_ENGINE, n_values, err);
    b.runs_on = FR_NEW(uint32_t, FR_MEM_ENGINE, n_nodes, err);
    b.streams_on = FR_NEW(uint32_t, FR_MEM_ENGINE, n_nodes, err);
    b.sums_on = FR_NEW(int, FR_MEM_ENGINE, n_nodes, err);
    fr_status st = FR_ENOMEM;
    if (b.valid && b.writer && b.made_on && b.runs_on && b.streams_on && b.sums_on)
        st = build(&b);
    void *blocks[] = {b.valid, b.writer, b.made_on, b.runs_on, b.streams_on, b.sums_on, b.copies};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        fr_mem_free(blocks[i]);
    if (st != FR_OK)
        fr_schedule_free(out);
    return st;
}

void fr_schedule_free(fr_schedule *s)
{
    fr_mem_free(s->steps);
    *s = (fr_schedule){.n_steps = 0};
}

/* ---- streaming or not --------------------------------------------------------------------------
 */

/* Bytes and weights of one layer's experts, of the layer that has most in RAM. */
static void ram_experts(const fr_model *m, const fr_plan *plan, double *bytes, double *weights)
{
    *bytes = *weights = 0;
    for (int il = 0; il < m->hp.n_layer; il++) {
        double b = 0, w = 0;
        for (int i = 0; i < plan->n_placements; i++) {
            const fr_placement *p = &plan->placements[i];
            const fr_model_weight *mw = &m->weights[p->tensor];
            bool routed = mw->role == FR_ROLE_FFN_GATE_EXPS || mw->role == FR_ROLE_FFN_UP_EXPS ||
                          mw->role == FR_ROLE_FFN_DOWN_EXPS;
            if (p->device != FR_PLAN_CPU || mw->layer != il || !routed)
                continue;
            b += (double)p->bytes;
            w += (double)(mw->shape.rows * mw->shape.cols) *
                 (double)(p->expert_to - p->expert_from + 1);
        }
        if (b > *bytes) {
            *bytes = b;
            *weights = w;
        }
    }
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double over(double amount, double rate)
{
    return rate > 0 ? amount / rate : 0;
}

int64_t fr_schedule_stream_from(const fr_model *m, const fr_plan *plan)
{
    double links = 0, gpu_ops = 0, bytes, weights, n_expert = (double)m->hp.n_expert;
    int n_gpus = 0;
    for (int d = 1; d < plan->n_devices; d++)
        if (plan->devices[d].staging > 0) {
            links += plan->hw.gpus[d - 1].h2d;
            gpu_ops += plan->hw.gpus[d - 1].f16_ops;
            n_gpus++;
        }
    ram_experts(m, plan, &bytes, &weights);
    if (n_gpus == 0 || bytes == 0 || n_expert == 0)
        return INT64_MAX;
    double used = (double)m->hp.n_expert_used / n_expert;
    for (int64_t n = FR_STREAM_LEAST; n <= 1 << 20; n *= 2) {
        double hit = 1 - pow(1 - used, (double)n), ops = 2 * weights * used * (double)n;
        double cpu =
            larger(over(bytes * hit, plan->hw.ram_bandwidth), over(ops, plan->hw.cpu_int8_ops));
        double gpu = larger(over(bytes * hit, links), over(ops, gpu_ops));
        if (links <= 0 || gpu < cpu) /* unknown links: as early as it makes sense */
            return n;
    }
    return INT64_MAX;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static fr_status device_name(int device, fr_buf *out, fr_err *err)
{
    if (device == FR_PLAN_CPU)
        return fr_buf_puts(out, "CPU", err);
    return fr_buf_printf(out, err, "CUDA%d", device - 1);
}

static fr_status print_step(const fr_step *s, const fr_graph *g, fr_buf *out, fr_err *err)
{
    const fr_node *n = s->node < g->n_nodes ? &g->nodes[s->node] : NULL;
    switch (s->kind) {
    case FR_STEP_RUN:
        FR_TRY(fr_buf_printf(out, err, "%3d %-11s layer %2d on ", s->node, fr_op_name(n->op),
                             n->layer));
        break;
    case FR_STEP_STREAM:
        FR_TRY(fr_buf_printf(out, err, "%3d %-11s layer %2d streamed to", s->node,
                             fr_op_name(n->op), n->layer));
        for (int d = 1; d < 32; d++)
            if (s->devices >> d & 1)
                FR_TRY(fr_buf_printf(out, err, " CUDA%d", d - 1));
        return fr_buf_puts(out, "\n", err);
    case FR_STEP_COPY:
    case FR_STEP_SUM:
        FR_TRY(fr_buf_printf(out, err, "    %s %s from ", s->kind == FR_STEP_COPY ? "copy" : "sum ",
                             g->values[s->value].name));
        FR_TRY(device_name(s->from, out, err));
        FR_TRY(fr_buf_puts(out, " to ", err));
        break;
    }
    FR_TRY(device_name(s->device, out, err));
    return fr_buf_puts(out, "\n", err);
}

fr_status fr_schedule_print(const fr_schedule *s, const fr_graph *g, fr_buf *out, fr_err *err)
{
    for (int i = 0; i < s->n_steps; i++)
        FR_TRY(print_step(&s->steps[i], g, out, err));
    return FR_OK;
}
