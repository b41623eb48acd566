#include "planner/cost.h"

#include <math.h>
#include <stdio.h>

#include "planner/cost_layers.h"

/* ---- what of a rate is reached in practice -----------------------------------------------------
 *
 * CPU: the shares that mature CPU kernels reach of a streaming read and of the int8 dot-product
 * peak, measured on DeepSeek-V2-Lite's shapes on two Zen 4 cores: 0.80 - 0.9 of the read at 8 bits
 * (less at fewer bits where decoding bounds), 0.70 - 0.88 of the peak at 512 tokens. GPU and links:
 * the least that ferry's own benchmarks must hold. */
static const double CPU_READ = 0.85, CPU_DOT = 0.80;
static const double GPU_READ = 0.80, GPU_GEMM = 0.60;
static const double LINK = 0.85;

/* Seconds to hand a few KiB from one device to another and have the other side begin: a copy, its
 * event, and the wait for it. */
static const double HOP_SECONDS = 20e-6;

/* Seconds of a GPU between the kernels of a layer, when launched as one graph. */
static const double GPU_LAYER_SECONDS = 30e-6;

/* Experts are sent to GPUs for at least as many tokens: below, the ids are not known early enough
 * and too few tokens share what was sent. */
static const double STREAM_TOKENS = 32;

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
                                        .float_ops = hw->cpu_f32_ops * cpu_share(hw, o)};
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
        if (twin == i && gpu_is_used(o, i))
            m.all_links += m.rates[1 + i].to;
    }
    return m;
}

/* ---- a step -----------------------------------------------------------------------------------
 */

static plan_work scaled(plan_work w, double bytes, double ops)
{
    return (plan_work){w.bytes * bytes, w.int_ops * ops, w.float_ops * ops};
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
    s->cache = (plan_work){positions * w->pos_bytes, 0, s->expanded ? expanded : direct};
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
                   .hidden_bytes = (double)n_tokens * (double)hp->n_embd * sizeof(float),
                   .streams = (double)n_tokens >= STREAM_TOKENS && machine->all_links > 0};
    if (hp->n_expert > 0)
        s.expert_part =
            1 - pow(1 - (double)hp->n_expert_used / (double)hp->n_expert, (double)n_tokens);
    add_cache(&s, m, &attn, (double)depth, one_sequence);
    return s;
}

/* Seconds of work for all tokens on a device: the larger of reading and computing. */
static double work_seconds(const plan_step *s, const plan_work *w, int d, plan_busy *busy)
{
    const plan_rates *r = &s->machine->rates[d];
    double memory = r->bandwidth > 0 ? w->bytes / r->bandwidth : 0;
    double compute = (r->int_ops > 0 ? w->int_ops / r->int_ops : 0) +
                     (r->float_ops > 0 ? w->float_ops / r->float_ops : 0);
    if (busy)
        *(memory >= compute ? &busy->memory[d] : &busy->compute[d]) += fmax(memory, compute);
    return fmax(memory, compute);
}

static double move_seconds(const plan_step *s, double bytes, int from, int to, plan_busy *busy)
{
    const plan_rates *a = &s->machine->rates[from], *b = &s->machine->rates[to];
    double slowest = from == FR_PLAN_CPU ? b->to : a->from;
    if (from != FR_PLAN_CPU && to != FR_PLAN_CPU && b->to > 0 && b->to < slowest)
        slowest = b->to;
    double link = slowest > 0 ? bytes / slowest : 0;
    if (busy) {
        busy->latency += HOP_SECONDS;
        busy->links += link;
    }
    return HOP_SECONDS + link;
}

double plan_hop_seconds(const plan_step *s, double tokens, int from, int to, plan_busy *busy)
{
    if (from == to)
        return 0;
    return move_seconds(s, s->hidden_bytes * tokens / s->n_tokens, from, to, busy);
}

double plan_output_seconds(const plan_step *s, const plan_work *w, int device, plan_busy *busy)
{
    plan_work all = scaled(*w, 1, s->n_outputs);
    return work_seconds(s, &all, device, busy);
}

/* ---- a layer ----------------------------------------------------------------------------------
 */

static void add_busy(plan_busy *to, const plan_busy *b)
{
    for (int d = 0; d < FR_PLAN_MAX_DEVICES; d++) {
        to->memory[d] += b->memory[d];
        to->compute[d] += b->compute[d];
    }
    to->links += b->links;
    to->latency += b->latency;
}

/* Attention, router and norms. */
static double attention_seconds(const plan_step *s, const plan_layer_work *w, int dense,
                                plan_busy *busy)
{
    plan_work weights = scaled(w->attn[s->expanded], 1, s->n_tokens);
    double t = work_seconds(s, &weights, dense, busy);
    int cache = s->machine->kv_on_cpu ? FR_PLAN_CPU : dense;
    t += work_seconds(s, &s->cache, cache, busy);
    t += plan_hop_seconds(s, s->n_tokens, dense, cache, busy);
    t += plan_hop_seconds(s, s->n_tokens, cache, dense, busy);
    if (dense != FR_PLAN_CPU) {
        t += GPU_LAYER_SECONDS;
        if (busy)
            busy->latency += GPU_LAYER_SECONDS;
    }
    return t;
}

/* The experts on one device, and the way there and back. */
static double expert_seconds(const plan_step *s, const plan_layer_work *w, int d, int dense,
                             double share, plan_busy *busy)
{
    if (share <= 0)
        return 0;
    plan_work part = scaled(w->experts, share * s->expert_part, share * s->n_tokens);
    double t = work_seconds(s, &part, d, busy);
    t += plan_hop_seconds(s, s->n_tokens, dense, d, busy);
    return t + plan_hop_seconds(s, s->n_tokens, d, dense, busy);
}

/* The feed-forward part with experts shared out so; devices work side by side, except virtual GPUs
 * of one physical GPU, which take turns. */
static double ffn_seconds(const plan_step *s, const plan_layer_work *w, int dense,
                          const double share[FR_PLAN_MAX_DEVICES], plan_busy *busy)
{
    double t[FR_PLAN_MAX_DEVICES] = {0}, most = 0;
    int n = s->machine->n_devices, slowest = dense;
    plan_work own = scaled(w->ffn, 1, s->n_tokens);
    t[s->machine->rates[dense].twin] = work_seconds(s, &own, dense, NULL);
    for (int d = 0; d < n; d++)
        t[s->machine->rates[d].twin] += expert_seconds(s, w, d, dense, share[d], NULL);
    for (int d = 0; d < n; d++)
        if (t[d] > most) {
            most = t[d];
            slowest = d;
        }
    for (int d = 0; d < n && busy; d++) {
        if (s->machine->rates[d].twin != s->machine->rates[slowest].twin)
            continue;
        if (d == dense)
            work_seconds(s, &own, d, busy);
        expert_seconds(s, w, d, dense, share[d], busy);
    }
    return most;
}

/* The same with the experts of the RAM sent to the GPUs, each link carrying what it can; *link =
 * the seconds of the links, which run beside the whole layer. */
static double streamed_seconds(const plan_step *s, const plan_layer_work *w, int dense,
                               const double share[FR_PLAN_MAX_DEVICES], double *link,
                               plan_busy *busy)
{
    const plan_machine *mc = s->machine;
    double sent = share[FR_PLAN_CPU], part[FR_PLAN_MAX_DEVICES] = {0};
    double ram = mc->rates[FR_PLAN_CPU].bandwidth;
    for (int d = 1; d < mc->n_devices; d++) {
        bool first = mc->rates[d].twin == d;
        part[d] = share[d] + (first ? sent * mc->rates[d].to / mc->all_links : 0);
    }
    double rate = ram > 0 ? fmin(ram, mc->all_links) : mc->all_links;
    *link = w->experts.bytes * s->expert_part * sent / rate;
    return ffn_seconds(s, w, dense, part, busy);
}

double plan_layer_seconds(const plan_step *s, const plan_layer_work *w, int dense,
                          const double share[FR_PLAN_MAX_DEVICES], plan_busy *busy)
{
    plan_busy attn_busy = {.links = 0}, ffn_busy = {.links = 0};
    double attn = attention_seconds(s, w, dense, busy ? &attn_busy : NULL);
    double ffn = ffn_seconds(s, w, dense, share, busy ? &ffn_busy : NULL), all = attn + ffn;
    if (s->streams && share[FR_PLAN_CPU] > 0) {
        plan_busy stream_busy = {.links = 0};
        double link;
        double ffn_s = streamed_seconds(s, w, dense, share, &link, busy ? &stream_busy : NULL);
        if (fmax(attn + ffn_s, link) < all) {
            all = fmax(attn + ffn_s, link);
            ffn_busy = stream_busy;
            if (busy && link >= attn + ffn_s) {
                double ram = s->machine->rates[FR_PLAN_CPU].bandwidth;
                bool by_ram = ram > 0 && ram < s->machine->all_links;
                *(by_ram ? &busy->memory[FR_PLAN_CPU] : &busy->links) += link;
                return all;
            }
        }
    }
    if (busy) {
        add_busy(busy, &attn_busy);
        add_busy(busy, &ffn_busy);
    }
    return all;
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
    double t = 0;
    int at = a->n_layer > 0 ? a->dense_device[0] : a->output_device;
    for (int il = 0; il < a->n_layer; il++) {
        plan_layer_work w = plan_layer_work_of(m, il);
        t += plan_hop_seconds(s, s->n_tokens, at, a->dense_device[il], busy);
        at = a->dense_device[il];
        t += plan_layer_seconds(s, &w, at, a->expert_share[il], busy);
    }
    plan_work out = plan_output_work(m);
    t += plan_hop_seconds(s, s->n_outputs, at, a->output_device, busy);
    return t + plan_output_seconds(s, &out, a->output_device, busy);
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
