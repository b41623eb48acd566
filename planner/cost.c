#include "planner/cost.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/cost_layers.h"

/* ---- what of a rate is reached in practice -----------------------------------------------------
 *
 * CPU: what a mature runtime reaches of a streaming read and of the int8 dot-product peak with
 * DeepSeek-V2-Lite's shapes on two Zen 4 cores: 0.80 - 0.9 of the read at 8 bits, 0.70 - 0.88 of
 * the peak at 512 tokens. GPU and links: the least that ferry's own benchmarks must hold. */
static const double CPU_READ = 0.85, CPU_DOT = 0.80;
static const double GPU_READ = 0.80, GPU_GEMM = 0.60;
static const double LINK = 0.85;

/* Operations of a CPU that decoding a quantized weight costs beside its product, which counts where
 * few tokens share it. In the same runs single tokens took 30 (3 bits), 43 (4 bits), 66 (2 bits) e9
 * weights a second at an int8 peak of 360e9; this gives 41. */
static const double CPU_DECODE_OPS = 5;

/* Seconds to hand a few KiB from one device to another and have it go on there: the host submits a
 * copy in 5 - 7 us (Wu et al. 2026, arXiv 2602.21548, section 5.2) and a kernel in 4 - 6 us, and an
 * event is waited for as long. */
static const double HOP_SECONDS = 20e-6;

/* Seconds of the host for each further device that a layer's experts are on: one copy more, and one
 * after another. */
static const double JOIN_SECONDS = 6e-6;

/* Seconds between the kernels of a layer, some 30 of 1 us, when launched as a graph. */
static const double GPU_LAYER_SECONDS = 30e-6;

/* Experts are sent to GPUs for at least as many tokens: below, the ids are not known early enough
 * and too few tokens share what was sent. */
static const int64_t STREAM_TOKENS = 32;

/* The depth that the objective looks at, if the context is as long. */
static const int64_t GOAL_DEPTH = 4096;

/* Prompt tokens that are computed for every token that is generated, by goal. */
static double prompt_tokens(fr_goal goal)
{
    switch (goal) {
    case FR_GOAL_DECODE:
        return 0.25;
    case FR_GOAL_PREFILL:
        return 64;
    default:
        return 4;
    }
}

/* ---- machine ----------------------------------------------------------------------------------
 */

static bool gpu_is_used(const fr_plan_options *o, int gpu)
{
    bool used = o->n_gpus == 0;
    for (int i = 0; i < o->n_gpus; i++)
        used = used || o->gpus[i] == gpu;
    return used;
}

/* With fewer threads than cores, arithmetic shrinks; a few threads still saturate RAM. */
static double cpu_share(const fr_hardware *hw, const fr_plan_options *o)
{
    if (o->n_threads <= 0 || hw->n_cores <= 0 || o->n_threads >= hw->n_cores)
        return CPU_DOT;
    return CPU_DOT * o->n_threads / hw->n_cores;
}

plan_machine plan_machine_of(const fr_hardware *hw, const fr_plan_options *o)
{
    plan_machine m = {.n_devices = 1 + hw->n_gpus, .kv_on_cpu = o->kv_on_cpu};
    m.rates[FR_PLAN_CPU] = (plan_rates){.bandwidth = hw->ram_bandwidth * CPU_READ,
                                        .int_ops = hw->cpu_int8_ops * cpu_share(hw, o),
                                        .float_ops = hw->cpu_f32_ops * cpu_share(hw, o),
                                        .decode_ops = CPU_DECODE_OPS};
    for (int i = 0; i < hw->n_gpus; i++) {
        const fr_gpu_hw *g = &hw->gpus[i];
        int twin = 0;
        while (hw->gpus[twin].device != g->device)
            twin++;
        m.rates[1 + i] = (plan_rates){.bandwidth = g->bandwidth * GPU_READ,
                                      .int_ops = fmax(g->int8_ops, g->f16_ops) * GPU_GEMM,
                                      .float_ops = g->f16_ops * GPU_GEMM,
                                      .to = g->h2d * LINK,
                                      .from = g->d2h * LINK,
                                      .twin = 1 + twin};
        m.has_twins = m.has_twins || twin != i;
        if (twin == i && gpu_is_used(o, i)) {
            m.link_part[1 + i] = m.rates[1 + i].to;
            m.all_links += m.rates[1 + i].to;
        }
    }
    for (int d = 1; d < m.n_devices && m.all_links > 0; d++)
        m.link_part[d] /= m.all_links;
    return m;
}

/* ---- a step -----------------------------------------------------------------------------------
 */

static plan_work scaled(plan_work w, double bytes, double ops)
{
    return (plan_work){w.bytes * bytes, w.weights * bytes, w.int_ops * ops, w.float_ops * ops};
}

/* Attention of one layer over the cache. Tokens of a batch share what is read of their sequence's
 * cache, and each sees those before it. */
static void add_cache(plan_step *s, const fr_model *m, const plan_attn_work *w, double depth,
                      bool one_sequence)
{
    double n = s->n_tokens;
    double positions = one_sequence ? depth + n : n * (depth + 1);
    double pairs = one_sequence ? n * (depth + (n + 1) / 2) : n * (depth + 1);
    double direct = pairs * w->pair_ops[0];
    double expanded = pairs * w->pair_ops[1] + positions * w->expand_ops;
    if (m->mla == FR_MLA_EXPAND || m->mla == FR_MLA_AUTO)
        s->expanded = one_sequence && (m->mla == FR_MLA_EXPAND || expanded < direct);
    s->cache = (plan_work){.bytes = positions * w->pos_bytes,
                           .float_ops = s->expanded ? expanded : direct};
}

/* Seconds of work on a device: the larger of reading and computing. *busy may be NULL. */
static double work_seconds(const plan_machine *m, plan_work w, int d, plan_busy *busy)
{
    const plan_rates *r = &m->rates[d];
    double memory = r->bandwidth > 0 ? w.bytes / r->bandwidth : 0;
    double ints = w.int_ops + w.weights * r->decode_ops;
    double compute = (r->int_ops > 0 ? ints / r->int_ops : 0) +
                     (r->float_ops > 0 ? w.float_ops / r->float_ops : 0);
    if (busy)
        *(memory >= compute ? &busy->memory[d] : &busy->compute[d]) += fmax(memory, compute);
    return fmax(memory, compute);
}

static double hop_seconds(const plan_machine *m, double bytes, int from, int to, plan_busy *busy)
{
    if (from == to)
        return 0;
    double out = m->rates[from].from, in = m->rates[to].to; /* 0: the CPU, or unknown */
    double rate = out > 0 && (in <= 0 || out < in) ? out : in;
    double link = rate > 0 ? bytes / rate : 0;
    if (busy) {
        busy->latency += HOP_SECONDS;
        busy->links += link;
    }
    return HOP_SECONDS + link;
}

plan_step plan_step_of(const plan_machine *machine, const fr_model *m, const fr_plan_options *o,
                       int64_t depth, int64_t n_tokens)
{
    const fr_hparams *hp = &m->hp;
    int64_t n_seq = o->n_seq > 1 ? o->n_seq : 1;
    bool one_sequence = n_tokens > n_seq;
    plan_attn_work attn = plan_attn_work_of(m, o);
    plan_step s = {.machine = machine,
                   .n_tokens = (double)n_tokens,
                   .n_outputs = one_sequence ? 1 : (double)n_tokens,
                   .hidden_bytes = (double)hp->n_embd * sizeof(float),
                   .streams = n_tokens >= STREAM_TOKENS && machine->all_links > 0};
    if (hp->n_expert > 0)
        s.expert_part =
            1 - pow(1 - (double)hp->n_expert_used / (double)hp->n_expert, (double)n_tokens);
    add_cache(&s, m, &attn, (double)depth, one_sequence);
    for (int a = 0; a < machine->n_devices; a++)
        for (int b = 0; b < machine->n_devices; b++)
            s.hop[a][b] = hop_seconds(machine, s.hidden_bytes * s.n_tokens, a, b, NULL);
    for (int a = 0; a < machine->n_devices; a++)
        for (int b = 0; b < machine->n_devices; b++)
            s.trip[a][b] = s.hop[a][b] + s.hop[b][a];
    return s;
}

double plan_output_seconds(const plan_step *s, const plan_work *w, int from, int device,
                           plan_busy *busy)
{
    double t = hop_seconds(s->machine, s->hidden_bytes * s->n_outputs, from, device, busy);
    return t + work_seconds(s->machine, scaled(*w, 1, s->n_outputs), device, busy);
}

/* ---- a layer ----------------------------------------------------------------------------------
 */

/* Attention, router and norms on a device. */
static double attention_seconds(const plan_step *s, const plan_layer_work *w, int d,
                                plan_busy *busy)
{
    const plan_machine *m = s->machine;
    double bytes = s->hidden_bytes * s->n_tokens;
    int cache = m->kv_on_cpu ? FR_PLAN_CPU : d;
    double t = work_seconds(m, scaled(w->attn[s->expanded], 1, s->n_tokens), d, busy);
    t += work_seconds(m, s->cache, cache, busy);
    t += hop_seconds(m, bytes, d, cache, busy) + hop_seconds(m, bytes, cache, d, busy);
    if (d == FR_PLAN_CPU)
        return t;
    if (busy)
        busy->latency += GPU_LAYER_SECONDS;
    return t + GPU_LAYER_SECONDS;
}

static double own_seconds(const plan_step *s, const plan_layer_work *w, int d, plan_busy *busy)
{
    return work_seconds(s->machine, scaled(w->ffn, 1, s->n_tokens), d, busy);
}

/* A share of the routed experts. */
static double expert_seconds(const plan_step *s, const plan_layer_work *w, int d, double share,
                             plan_busy *busy)
{
    plan_work part = scaled(w->experts, share * s->expert_part, share * s->n_tokens);
    return work_seconds(s->machine, part, d, busy);
}

plan_layer_times plan_layer_times_of(const plan_step *s, const plan_layer_work *w)
{
    const plan_machine *m = s->machine;
    plan_layer_times t = {.sent = 0};
    for (int d = 0; d < m->n_devices; d++) {
        t.attention[d] = attention_seconds(s, w, d, NULL);
        t.own[d] = own_seconds(s, w, d, NULL);
        t.experts[d] = expert_seconds(s, w, d, 1, NULL);
    }
    if (s->streams) {
        double ram = m->rates[FR_PLAN_CPU].bandwidth;
        t.sent =
            w->experts.bytes * s->expert_part / (ram > 0 ? fmin(ram, m->all_links) : m->all_links);
    }
    return t;
}

/* Seconds of a device in the feed-forward part. */
static inline double device_seconds(const plan_step *s, const plan_layer_times *lt, int d,
                                    int dense, double share)
{
    double own = d == dense ? lt->own[d] : 0;
    return share > 0 ? own + share * lt->experts[d] + s->trip[dense][d] : own;
}

/* The same for virtual GPUs of one physical GPU, of which d is the first: they take turns. */
static double twins_seconds(const plan_step *s, const plan_layer_times *lt, int d, int dense,
                            const double share[FR_PLAN_MAX_DEVICES])
{
    const plan_machine *m = s->machine;
    double t = 0;
    for (int k = d; k < m->n_devices; k++)
        if (m->rates[k].twin == d)
            t += device_seconds(s, lt, k, dense, share[k]);
    return t;
}

/* The feed-forward part with experts shared out so: devices work side by side. */
static double ffn_seconds(const plan_step *s, const plan_layer_times *lt, int dense,
                          const double share[FR_PLAN_MAX_DEVICES], int *slowest)
{
    const plan_machine *m = s->machine;
    double most = -1, join = share[dense] > 0 ? -JOIN_SECONDS : 0;
    for (int d = 0; d < m->n_devices; d++) {
        double t = m->has_twins ? twins_seconds(s, lt, d, dense, share)
                                : device_seconds(s, lt, d, dense, share[d]);
        if (t > most) {
            most = t;
            *slowest = d;
        }
        join += share[d] > 0 ? JOIN_SECONDS : 0;
    }
    return most + join;
}

/* What each device computes when the experts of the RAM are sent to the GPUs, each link carrying
 * what it can. */
static void streamed_share(const plan_machine *m, const double share[FR_PLAN_MAX_DEVICES],
                           double out[FR_PLAN_MAX_DEVICES])
{
    out[FR_PLAN_CPU] = 0;
    for (int d = 1; d < m->n_devices; d++)
        out[d] = share[d] + share[FR_PLAN_CPU] * m->link_part[d];
}

double plan_layer_seconds(const plan_step *s, const plan_layer_times *t, int dense,
                          const double share[FR_PLAN_MAX_DEVICES], plan_layer_wait *wait)
{
    plan_layer_wait w = {.streamed = false};
    double least = t->attention[dense] + ffn_seconds(s, t, dense, share, &w.slowest);
    if (s->streams && share[FR_PLAN_CPU] > 0) {
        double part[FR_PLAN_MAX_DEVICES], link = share[FR_PLAN_CPU] * t->sent;
        int slowest;
        streamed_share(s->machine, share, part);
        double gpus = t->attention[dense] + ffn_seconds(s, t, dense, part, &slowest);
        if (fmax(gpus, link) < least) {
            least = fmax(gpus, link);
            w = (plan_layer_wait){true, link >= gpus, slowest};
        }
    }
    if (wait)
        *wait = w;
    return least;
}

/* Charges a layer's seconds to what it waits for. */
static void charge_layer(const plan_step *s, const plan_layer_work *w, const plan_layer_times *t,
                         int dense, const double share[FR_PLAN_MAX_DEVICES], plan_busy *busy)
{
    const plan_machine *m = s->machine;
    plan_layer_wait wait;
    double part[FR_PLAN_MAX_DEVICES], bytes = s->hidden_bytes * s->n_tokens;
    double seconds = plan_layer_seconds(s, t, dense, share, &wait);
    if (wait.by_links) {
        double ram = m->rates[FR_PLAN_CPU].bandwidth;
        *(ram > 0 && ram < m->all_links ? &busy->memory[FR_PLAN_CPU] : &busy->links) += seconds;
        return;
    }
    if (wait.streamed)
        streamed_share(m, share, part);
    else
        memcpy(part, share, sizeof part);
    attention_seconds(s, w, dense, busy);
    for (int d = 0; d < m->n_devices; d++) {
        if (part[d] > 0 && d != dense)
            busy->latency += JOIN_SECONDS;
        if (m->rates[d].twin != wait.slowest)
            continue;
        if (d == dense)
            own_seconds(s, w, d, busy);
        if (part[d] > 0) {
            expert_seconds(s, w, d, part[d], busy);
            hop_seconds(m, bytes, dense, d, busy);
            hop_seconds(m, bytes, d, dense, busy);
        }
    }
}

/* ---- whole steps ------------------------------------------------------------------------------
 */

/* The largest entry in words. */
static void name_bound(const plan_machine *m, const plan_busy *b, char out[48])
{
    double most = b->latency;
    int n_links = 0, link = 0;
    snprintf(out, 48, "latency");
    for (int d = 1; d < m->n_devices; d++)
        if (m->rates[d].twin == d && m->rates[d].to > 0) {
            n_links++;
            link = d - 1;
        }
    if (b->links > most) {
        most = b->links;
        if (n_links == 1)
            snprintf(out, 48, "link of CUDA%d", link);
        else
            snprintf(out, 48, "links of the GPUs");
    }
    for (int d = 0; d < m->n_devices; d++) {
        if (b->memory[d] > most) {
            most = b->memory[d];
            if (d == FR_PLAN_CPU)
                snprintf(out, 48, "RAM bandwidth");
            else
                snprintf(out, 48, "CUDA%d bandwidth", d - 1);
        }
        if (b->compute[d] > most) {
            most = b->compute[d];
            if (d == FR_PLAN_CPU)
                snprintf(out, 48, "CPU compute");
            else
                snprintf(out, 48, "CUDA%d compute", d - 1);
        }
    }
}

static double step_seconds(const plan_step *s, const fr_model *m, const fr_assignment *a,
                           plan_busy *busy)
{
    double seconds = 0, bytes = s->hidden_bytes * s->n_tokens;
    int at = a->n_layer > 0 ? a->dense_device[0] : a->output_device;
    for (int il = 0; il < a->n_layer; il++) {
        plan_layer_work w = plan_layer_work_of(m, il);
        plan_layer_times t = plan_layer_times_of(s, &w);
        int dense = a->dense_device[il];
        seconds += hop_seconds(s->machine, bytes, at, dense, busy);
        seconds += plan_layer_seconds(s, &t, dense, a->expert_share[il], NULL);
        if (busy)
            charge_layer(s, &w, &t, dense, a->expert_share[il], busy);
        at = dense;
    }
    plan_work out = plan_output_work(m);
    return seconds + plan_output_seconds(s, &out, at, a->output_device, busy);
}

double plan_step_seconds(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                         const fr_assignment *a, int64_t depth, int64_t n_tokens, char bound_by[48])
{
    plan_machine machine = plan_machine_of(hw, o);
    plan_step s = plan_step_of(&machine, m, o, depth, n_tokens);
    plan_busy busy = {.links = 0};
    double t = step_seconds(&s, m, a, bound_by ? &busy : NULL);
    if (bound_by)
        name_bound(&machine, &busy, bound_by);
    return t;
}

void plan_goal_init(plan_goal *g, const fr_model *m, const fr_hardware *hw,
                    const fr_plan_options *o)
{
    int64_t n_ctx = o->n_ctx > 0 ? o->n_ctx : m->hp.n_ctx_train;
    int64_t depth = n_ctx / 2 < GOAL_DEPTH ? n_ctx / 2 : GOAL_DEPTH;
    int64_t n_ubatch = o->n_ubatch > 0 ? o->n_ubatch : 1;
    g->machine = plan_machine_of(hw, o);
    g->steps[0] = plan_step_of(&g->machine, m, o, depth, 1);
    g->steps[1] = plan_step_of(&g->machine, m, o, depth, n_ubatch);
    g->weights[0] = 1;
    g->weights[1] = prompt_tokens(o->goal) / (double)n_ubatch;
}

double plan_objective(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                      const fr_assignment *a)
{
    plan_goal g;
    plan_goal_init(&g, m, hw, o);
    return g.weights[0] * step_seconds(&g.steps[0], m, a, NULL) +
           g.weights[1] * step_seconds(&g.steps[1], m, a, NULL);
}
