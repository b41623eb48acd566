#include "engine/exec_profile.h"

#include <time.h>

const char *fr_profile_class_name(fr_profile_class c)
{
    static const char *const names[] = {
#define X(ID, name) name,
        FR_PROFILE_CLASSES(X)
#undef X
    };
    return (unsigned)c < FR_PROFILE_COUNT ? names[c] : "unknown";
}

fr_profile *exec_profile_open(const fr_model *m, fr_err *err)
{
    fr_profile *p = FR_NEW(fr_profile, FR_MEM_ENGINE, 1, err);
    if (!p)
        return NULL;
    p->n_layer = m->hp.n_layer;
    for (int i = 0; i < 2; i++) {
        size_t n = (size_t)(p->n_layer + 1) * FR_PROFILE_COUNT;
        p->phases[i].cells = FR_NEW(fr_profile_cell, FR_MEM_ENGINE, n, err);
        if (!p->phases[i].cells) {
            exec_profile_close(p);
            return NULL;
        }
    }
    return p;
}

void exec_profile_close(fr_profile *p)
{
    if (!p)
        return;
    for (int i = 0; i < 2; i++)
        fr_mem_free(p->phases[i].cells);
    fr_mem_free(p);
}

static fr_profile_class matmul_class(const fr_model *m, const fr_node *n)
{
    switch (m->weights[n->weight[0]].role) {
    case FR_ROLE_OUTPUT:
    case FR_ROLE_TOKEN_EMBD:
        return FR_PROFILE_OUTPUT;
    case FR_ROLE_FFN_GATE_INP:
        return FR_PROFILE_ROUTER;
    case FR_ROLE_FFN_GATE:
    case FR_ROLE_FFN_UP:
    case FR_ROLE_FFN_DOWN:
        return FR_PROFILE_DENSE;
    case FR_ROLE_FFN_GATE_SHEXP:
    case FR_ROLE_FFN_UP_SHEXP:
    case FR_ROLE_FFN_DOWN_SHEXP:
        return FR_PROFILE_SHARED;
    case FR_ROLE_FFN_GATE_EXPS:
    case FR_ROLE_FFN_UP_EXPS:
        return FR_PROFILE_EXPERTS_UP;
    case FR_ROLE_FFN_DOWN_EXPS:
        return FR_PROFILE_EXPERTS_DOWN;
    default:
        return FR_PROFILE_PROJECTIONS;
    }
}

static fr_profile_class class_of(const fr_model *m, const fr_node *n)
{
    static const fr_profile_class classes[FR_OP_COUNT] = {
        [FR_OP_EMBED] = FR_PROFILE_EMBEDDING,  [FR_OP_RMS_NORM] = FR_PROFILE_NORM,
        [FR_OP_ROPE] = FR_PROFILE_ROPE,        [FR_OP_KV_STORE] = FR_PROFILE_CACHE,
        [FR_OP_ATTN_LATENT] = FR_PROFILE_CORE, [FR_OP_ATTN_EXPAND] = FR_PROFILE_CORE,
        [FR_OP_ATTN_PLAIN] = FR_PROFILE_CORE,  [FR_OP_ADD] = FR_PROFILE_SMALL,
        [FR_OP_SWIGLU] = FR_PROFILE_SMALL,     [FR_OP_ROUTER] = FR_PROFILE_ROUTER,
        [FR_OP_GATHER] = FR_PROFILE_SMALL,     [FR_OP_MIX] = FR_PROFILE_EXPERTS_REST,
    };
    bool product = n->op == FR_OP_MATMUL || n->op == FR_OP_MATMUL_IDS;
    return product ? matmul_class(m, n) : classes[n->op];
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

exec_moment exec_profile_now(const fr_cpu *cpu)
{
    return (exec_moment){now_seconds(), fr_cpu_clock_read(cpu)};
}

static void add(fr_profile_cell *c, double wall, double busy)
{
    c->n++;
    c->wall += wall;
    c->busy += busy;
}

/* A job of several stages: the busy time is shared out as the wall time is. */
static void add_stages(fr_profile_cell *cells, const fr_profile_class *classes, int n,
                       const double *seconds, double wall, double busy)
{
    for (int i = 0; i < n; i++)
        if (seconds[i] > 0)
            add(&cells[classes[i]], seconds[i], wall > 0 ? busy * seconds[i] / wall : 0);
}

void exec_profile_node(fr_profile *p, const fr_model *m, const fr_node *n, int64_t n_tokens,
                       const exec_moment *from, const exec_moment *to, const double *moe,
                       const double *ffn)
{
    static const fr_profile_class moe_stages[FR_CPU_MOE_STAGES] = {
        [FR_CPU_MOE_UP] = FR_PROFILE_EXPERTS_UP,
        [FR_CPU_MOE_DOWN] = FR_PROFILE_EXPERTS_DOWN,
        [FR_CPU_MOE_REST] = FR_PROFILE_EXPERTS_REST,
    };
    static const fr_profile_class dense_stages[FR_CPU_FFN_STAGES] = {
        FR_PROFILE_DENSE, FR_PROFILE_DENSE, FR_PROFILE_DENSE, FR_PROFILE_DENSE, FR_PROFILE_DENSE,
    };
    static const fr_profile_class routed_stages[FR_CPU_FFN_STAGES] = {
        [FR_CPU_FFN_ROUTER] = FR_PROFILE_ROUTER,     [FR_CPU_FFN_DENSE] = FR_PROFILE_SHARED,
        [FR_CPU_FFN_UP] = FR_PROFILE_EXPERTS_UP,     [FR_CPU_FFN_REST] = FR_PROFILE_EXPERTS_REST,
        [FR_CPU_FFN_DOWN] = FR_PROFILE_EXPERTS_DOWN,
    };
    int64_t row = n->layer < 0 ? p->n_layer : n->layer;
    fr_profile_phase *phase = &p->phases[n_tokens == 1];
    fr_profile_cell *cells = phase->cells + row * FR_PROFILE_COUNT;
    phase->n_jobs += to->cpu.n_jobs - from->cpu.n_jobs;
    phase->n_barriers += to->cpu.n_barriers - from->cpu.n_barriers;
    double wall = to->wall - from->wall;
    double busy = wall - (to->cpu.caller_wait - from->cpu.caller_wait) +
                  (to->cpu.others_busy - from->cpu.others_busy);
    if (n->op == FR_OP_MOE)
        add_stages(cells, moe_stages, FR_CPU_MOE_STAGES, moe, wall, busy);
    else if (ffn[FR_CPU_FFN_DENSE] > 0 && ffn[FR_CPU_FFN_UP] == 0)
        add_stages(cells, dense_stages, FR_CPU_FFN_STAGES, ffn, wall, busy);
    else if (ffn[FR_CPU_FFN_UP] > 0)
        add_stages(cells, routed_stages, FR_CPU_FFN_STAGES, ffn, wall, busy);
    else
        add(&cells[class_of(m, n)], wall, busy);
}

void exec_profile_sampling(fr_profile *p, const exec_moment *from)
{
    if (!p)
        return;
    fr_profile_cell *cells = p->phases[FR_PROFILE_SINGLE].cells + p->n_layer * FR_PROFILE_COUNT;
    double wall = now_seconds() - from->wall;
    add(&cells[FR_PROFILE_SAMPLING], wall, wall);
}

void exec_profile_step(fr_profile *p, int64_t n_tokens, int n_threads, double seconds)
{
    fr_profile_phase *phase = &p->phases[n_tokens == 1];
    phase->n_steps++;
    phase->n_tokens += n_tokens;
    phase->n_threads = n_threads;
    phase->seconds += seconds;
}
