/* Nodes that stand together in a schedule and are one job on the CPU. Nothing but the time shows
 * the difference: bits are those of the nodes one by one. */
#include "cpu/token_ffn.h"
#include "engine/exec_cpu_internal.h"

/* The steps of a feed-forward part; NULL: it has none. */
typedef struct {
    const fr_node *logits, *router, *moe; /* routed experts */
    const fr_node *gate, *up, *down;      /* dense ones */
    const fr_node *add;                   /* the first addition to the hidden state */
    int n_steps;
} ffn_nodes;

typedef struct {
    const fr_exec *x;
    const fr_graph *g;
    const fr_step *steps;
    int n_left, n_taken;
} reader;

/* The next step's node, if it is `op` and runs on the CPU. */
static const fr_node *next(reader *r, fr_op op)
{
    if (r->n_taken == r->n_left)
        return NULL;
    const fr_step *s = &r->steps[r->n_taken];
    if (s->kind != FR_STEP_RUN || s->device != FR_PLAN_CPU || s->node == r->g->n_nodes)
        return NULL;
    const fr_node *n = &r->g->nodes[s->node];
    if (n->op != op)
        return NULL;
    r->n_taken++;
    return n;
}

static bool same_view(fr_view a, fr_view b)
{
    return a.value == b.value && a.at == b.at && a.width == b.width && a.n == b.n &&
           a.stride == b.stride;
}

static bool whole_row(const fr_graph *g, fr_view v)
{
    return v.value >= 0 && v.n == 1 && v.at == 0 && v.width == g->values[v.value].cols;
}

static bool here_as_whole(const fr_exec *x, int weight)
{
    int n;
    const fr_store_part *parts = fr_store_parts(x->store, weight, &n);
    return n == 1 && parts->device == FR_PLAN_CPU && parts->first == 0;
}

/* gate, up, swiglu, down of one input. */
static bool read_dense(reader *r, ffn_nodes *f)
{
    reader from = *r;
    const fr_node *gate, *up, *act, *down;
    if ((gate = next(r, FR_OP_MATMUL)) && (up = next(r, FR_OP_MATMUL)) &&
        (act = next(r, FR_OP_SWIGLU)) && (down = next(r, FR_OP_MATMUL)) &&
        same_view(gate->in[0], up->in[0]) && whole_row(r->g, gate->in[0]) &&
        act->in[0].value == gate->out[0].value && act->in[1].value == up->out[0].value &&
        act->out[0].value == gate->out[0].value && down->in[0].value == gate->out[0].value &&
        whole_row(r->g, down->in[0])) {
        f->gate = gate;
        f->up = up;
        f->down = down;
        return true;
    }
    *r = from;
    return false;
}

/* value += what is in `from`; *value < 0: of any value, which it then becomes. */
static const fr_node *read_add(reader *r, int from, int *value)
{
    reader before = *r;
    const fr_node *n = next(r, FR_OP_ADD);
    if (n && n->in[1].value == from && n->out[0].value == n->in[0].value &&
        (*value < 0 || n->in[0].value == *value)) {
        *value = n->in[0].value;
        return n;
    }
    *r = before;
    return NULL;
}

/* Router, shared experts, routed experts and both additions. */
static bool read_routed(reader *r, ffn_nodes *f)
{
    int sum = -1;
    const fr_node *l, *s, *moe;
    if (!(l = next(r, FR_OP_MATMUL)) || !whole_row(r->g, l->in[0]) ||
        !(s = next(r, FR_OP_ROUTER)) || s->in[0].value != l->out[0].value)
        return false;
    bool dense = read_dense(r, f);
    if (!(moe = next(r, FR_OP_MOE)) || !same_view(moe->in[0], l->in[0]) ||
        moe->in[1].value != s->out[0].value || moe->in[2].value != s->out[1].value ||
        (dense && !same_view(f->gate->in[0], l->in[0])))
        return false;
    for (int i = 0; i < 3; i++)
        if (!here_as_whole(r->x, moe->weight[i]))
            return false;
    f->logits = l;
    f->router = s;
    f->moe = moe;
    return (f->add = read_add(r, moe->out[0].value, &sum)) &&
           (!dense || read_add(r, f->down->out[0].value, &sum));
}

static ffn_nodes read_ffn(const fr_exec *x, const fr_graph *g, const fr_step *steps, int n)
{
    int sum = -1;
    reader from = {x, g, steps, n, 0}, r = from;
    ffn_nodes f = {.n_steps = 0};
    if (!read_routed(&r, &f)) {
        r = from;
        f = (ffn_nodes){.n_steps = 0};
        if (!read_dense(&r, &f))
            return f;
        f.add = read_add(&r, f.down->out[0].value, &sum);
    }
    f.n_steps = r.n_taken;
    return f;
}

/* The arguments as far as matrices go. */
static fr_cpu_token_ffn_args matrices(const fr_exec *x, const ffn_nodes *f)
{
    fr_cpu_token_ffn_args a = {.x = NULL};
    if (f->gate)
        a.dense = (fr_cpu_trio){exec_cpu_weight(x, f->gate->weight[0]),
                                exec_cpu_weight(x, f->up->weight[0]),
                                exec_cpu_weight(x, f->down->weight[0])};
    if (f->moe) {
        a.routed = (fr_cpu_trio){exec_cpu_weight(x, f->moe->weight[0]),
                                 exec_cpu_weight(x, f->moe->weight[1]),
                                 exec_cpu_weight(x, f->moe->weight[2])};
        a.router_weight = exec_cpu_weight(x, f->logits->weight[0]);
    }
    return a;
}

size_t exec_cpu_ffn_bytes(const fr_exec *x)
{
    size_t most = 0;
    for (int p = 0; p < x->n_paths; p++) {
        const fr_schedule *s = &x->schedules[p][FR_STREAM_NONE];
        for (int i = 0; i < s->n_steps; i++) {
            ffn_nodes f = read_ffn(x, &x->graphs[p], s->steps + i, s->n_steps - i);
            if (f.n_steps == 0)
                continue;
            fr_cpu_router_args select = {.n_used = x->m->hp.n_expert_used};
            fr_cpu_token_ffn_args a = matrices(x, &f);
            a.select = &select;
            size_t bytes = fr_cpu_token_ffn_bytes(x->cpu_single, &a);
            most = bytes > most ? bytes : most;
            i += f.n_steps - 1;
        }
    }
    return most;
}

static int run_ffn(fr_exec *x, const fr_step *steps, int n)
{
    ffn_nodes f = read_ffn(x, x->graph, steps, n);
    if (f.n_steps == 0)
        return 0;
    fr_cpu_token_ffn_args a = matrices(x, &f);
    fr_cpu_router_args select;
    const fr_node *last = f.down ? f.down : f.moe;
    fr_view out = f.add ? f.add->out[0] : last->out[0];
    a.x = exec_cpu_data(x, f.moe ? f.logits->in[0] : f.gate->in[0]);
    a.y = exec_cpu_data(x, out);
    a.onto = f.add ? a.y : NULL;
    a.scratch = x->moe;
    a.seconds = x->profile ? x->ffn_seconds : NULL;
    if (f.moe) {
        select = exec_cpu_router_args(x, f.router);
        a.select = &select;
    }
    fr_cpu_token_ffn(x->cpu, &a);
    return f.n_steps;
}

static bool of_same_input(const fr_exec *x, const fr_node *a, const fr_node *b)
{
    return same_view(a->in[0], b->in[0]) && exec_cpu_act_type(x, a) == exec_cpu_act_type(x, b);
}

/* Products of one input that is prepared in one way. What only turns the first one's result (q, on
 * the way to kv_a) can wait until the others are there: both values are alive all the time. */
static fr_status run_products(fr_exec *x, const fr_step *steps, int n, int *done, fr_err *err)
{
    reader r = {x, x->graph, steps, n, 0};
    const fr_node *nodes[FR_CPU_MOST_PRODUCTS], *m, *rope = NULL;
    int n_nodes = 0;
    while (n_nodes < FR_CPU_MOST_PRODUCTS && (m = next(&r, FR_OP_MATMUL)) &&
           (n_nodes == 0 || of_same_input(x, m, nodes[0]))) {
        nodes[n_nodes++] = m;
        *done = r.n_taken;
        if (n_nodes == 1 && (rope = next(&r, FR_OP_ROPE)) && rope->in[0].value != m->out[0].value)
            break;
    }
    if (n_nodes < 2) {
        *done = 0;
        return FR_OK;
    }
    exec_cpu_products(x, nodes, n_nodes);
    return rope ? exec_cpu_run(x, rope, err) : FR_OK;
}

/* Gate, up and SwiGLU of a batch, up to the input of down, which is there prepared; its floats are
 * not. */
static int run_gate_up(fr_exec *x, const fr_step *steps, int n)
{
    reader r = {x, x->graph, steps, n, 0};
    ffn_nodes f;
    if (!read_dense(&r, &f) || exec_cpu_act_type(x, f.gate) != exec_cpu_act_type(x, f.up))
        return 0;
    fr_cpu_gate_up_args a = {.gate = exec_cpu_weight(x, f.gate->weight[0]),
                             .up = exec_cpu_weight(x, f.up->weight[0]),
                             .n_tokens = exec_rows(x, f.gate->in[0].value),
                             .type = exec_cpu_act_type(x, f.down),
                             .gate_room = exec_cpu_data(x, f.gate->out[0]),
                             .up_room = exec_cpu_data(x, f.up->out[0])};
    if (!fr_cpu_gates_up(x->cpu, &a))
        return 0;
    a.x = exec_cpu_prepare(x, f.gate->in[0], exec_cpu_act_type(x, f.gate));
    a.dst = x->act + x->act_bytes - fr_cpu_act_bytes(a.type, a.n_tokens, a.gate->rows);
    x->prep.act = fr_cpu_gate_up(x->cpu, &a);
    x->prep.view = f.down->in[0];
    x->prep.valid = true;
    return r.n_taken - 1;
}

/* One or two additions to the hidden state and the norm that reads it. */
static int run_add_norm(fr_exec *x, const fr_step *steps, int n)
{
    reader r = {x, x->graph, steps, n, 0};
    const fr_node *add = next(&r, FR_OP_ADD), *second, *norm;
    if (!add || add->out[0].value != add->in[0].value)
        return 0;
    int sum = add->out[0].value;
    second = next(&r, FR_OP_ADD);
    if (second && (second->in[0].value != sum || second->out[0].value != sum))
        return 0;
    norm = next(&r, FR_OP_RMS_NORM);
    if (!norm || norm->in[0].value != sum || norm->out[0].value == sum ||
        !whole_row(x->graph, norm->in[0]))
        return 0;
    fr_cpu_add_norm(x->cpu, &(fr_cpu_add_norm_args){
                                .x = exec_cpu_data(x, add->in[0]),
                                .a = exec_cpu_data(x, add->in[1]),
                                .b = second ? exec_cpu_data(x, second->in[1]) : NULL,
                                .n_tokens = exec_rows(x, sum),
                                .cols = norm->in[0].width,
                                .w = exec_cpu_weight(x, norm->weight[0])->data,
                                .eps = x->m->hp.rms_eps,
                                .y = exec_cpu_data(x, norm->out[0]),
                                .ldy = exec_ld(x, norm->out[0]),
                            });
    return r.n_taken;
}

fr_status exec_cpu_run_fused(fr_exec *x, const fr_step *steps, int n, int *done, fr_err *err)
{
    *done = 0;
    if (x->observe)
        return FR_OK; /* who watches wants to see every product */
    if (x->batch->n_tokens == 1)
        *done = run_ffn(x, steps, n);
    else if ((*done = run_gate_up(x, steps, n)) > 0)
        return FR_OK; /* what down reads is prepared */
    else
        *done = run_add_norm(x, steps, n);
    if (*done == 0)
        return run_products(x, steps, n, done, err);
    x->prep.valid = false;
    return FR_OK;
}
