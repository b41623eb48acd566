/* The executor's state, shared by its files:
 *
 *   exec.c          opening; walking the steps of a batch
 *   exec_cpu.c      nodes on the CPU (exec_cpu_fuse.c, exec_cpu_attn.c, exec_cpu_open.c)
 *   exec_gpus.c     devices: memory, streams, values travelling between them
 *   exec_gpu_ops.c  nodes on a GPU
 *   exec_stream.c   experts in RAM sent to the GPUs that compute them
 *
 * A value has the same offset in the workspace of every device, so that nothing has to be kept of
 * where it is: whatever the schedule sends somewhere is there. */
#ifndef FR_ENGINE_EXEC_INTERNAL_H
#define FR_ENGINE_EXEC_INTERNAL_H

#include "cpu/ops.h"
#include "cpu/token_ffn.h"
#include "engine/exec.h"
#include "engine/exec_profile.h"
#include "engine/schedule.h"
#include "planner/account.h"

/* Ways to compute attention; each has its graph. */
enum { PATH_DIRECT, PATH_EXPAND, N_PATHS };

/* What the activation buffer holds: a view of a value, prepared for one kind of weights. */
typedef struct {
    fr_view view;
    fr_act act;
    bool valid;
} exec_prepared;

/* Buffers of the expanding attention, for `chunk` positions. */
typedef struct {
    int64_t chunk;
    float *latent; /* chunk x stored */
    float *k, *v;  /* chunk x n_head x ...; v is empty when kv_b always gives both */
    uint8_t *act;
} exec_expand;

/* A GPU of the plan that takes part. */
typedef struct {
    int device;               /* of the backend */
    fr_gpu_stream *s, *links; /* work; weights of experts on their way */
    fr_gpu_arena *arena, *staging;
    uint8_t *part[PLAN_GPU_PARTS]; /* blocks of the workspace; sizes in fr_exec.parts */
    float *logits;                 /* NULL: the output is elsewhere */

    fr_gpu_event *point;           /* wherever another stream has to wait */
    fr_gpu_event *sent, *received; /* after the last copy to, from the host's workspace */
    bool sending, receiving;       /* such copies may be under way */
    uint8_t *stage[2];             /* experts on their way, stage_bytes each */
    size_t stage_bytes;
    uint32_t n_staged; /* chunks so far; their buffers alternate */
    fr_gpu_event *filled[2], *emptied[2];
} exec_gpu;

struct fr_exec {
    const fr_model *m;
    const fr_store *store;
    fr_cpu *cpu_single, *cpu_batch;
    fr_exec_config cfg;
    fr_graph graphs[N_PATHS];
    size_t *offsets[N_PATHS];
    int64_t path_tokens[N_PATHS]; /* the most that a batch on it has */
    int n_paths;
    fr_places places;
    fr_schedule schedules[N_PATHS][FR_STREAM_MODES];
    int64_t stream_from; /* rows */
    const fr_gpu *gpu;   /* NULL: the CPU is alone */
    exec_gpu *gpus;      /* [places.n_devices]; device 0 is empty */
    plan_gpu_parts parts;
    float *moved_h;   /* a part of a sum on its way to the CPU; NULL: no sum has parts */
    int32_t *flags_h; /* [n_layer] of each device: rows of the cache that are not finite */
    size_t work_bytes;
    uint32_t pinned; /* bits of pin() in exec_gpus.c */
    uint8_t *work;   /* all values but the logits */
    uint8_t *act, *moe;
    size_t act_bytes;
    float *router, *state, *attn, *kv_row, *turns;
    float *staged_k, *staged_v; /* exact rows of the running batch, one layer at a time */
    double *freqs;
    exec_expand expand;
    uint64_t bytes;
    fr_observe_fn observe;
    void *observe_user;
    float *hidden;       /* while observing: inputs of the experts' down matrices */
    fr_profile *profile; /* owned; NULL: nothing is measured */
    double moe_seconds[FR_CPU_MOE_STAGES], ffn_seconds[FR_CPU_FFN_STAGES];

    /* of the running batch */
    const fr_exec_batch *batch;
    const fr_graph *graph;
    const size_t *at;
    fr_cpu *cpu;
    exec_prepared prep;
    fr_act floats; /* of an input that is not prepared but read as it is */
};

/* ---- values ------------------------------------------------------------------------------------
 */

static inline int64_t exec_rows(const fr_exec *x, int value)
{
    return x->graph->values[value].per_output ? x->batch->n_outputs : x->batch->n_tokens;
}

static inline int64_t exec_ld(const fr_exec *x, fr_view v)
{
    return x->graph->values[v.value].cols;
}

static inline int64_t exec_count(const fr_exec *x, int value)
{
    return exec_rows(x, value) * x->graph->values[value].cols;
}

static inline float *exec_host(const fr_exec *x, int value)
{
    if (value == x->graph->logits)
        return x->batch->logits;
    return (float *)(void *)(x->work + x->at[value]);
}

static inline float *exec_on_gpu(const fr_exec *x, int device, int value)
{
    const exec_gpu *g = &x->gpus[device];
    if (value == x->graph->logits)
        return g->logits;
    return (float *)(void *)(g->part[PLAN_GPU_VALUES] + x->at[value]);
}

/* How an expanding attention reads its query and the K and V rows of a chunk. */
typedef struct {
    fr_view q_nope, q_rope;
    int64_t k_stride, v_stride; /* floats between heads of a row */
    bool whole;                 /* one matrix, kv_b, gives K and V side by side */
} exec_expanded;

static inline exec_expanded exec_expanded_of(const fr_exec *x, const fr_node *n)
{
    const fr_hparams *hp = &x->m->hp;
    const int64_t nope = hp->qk_nope, v = hp->v_head;
    const bool whole = n->weight[1] < 0;
    const fr_view q = n->in[0];
    return (exec_expanded){
        .q_nope = graph_part(q.value, q.at, nope, hp->n_head, q.stride),
        .q_rope = graph_part(q.value, q.at + nope, hp->qk_rope, hp->n_head, q.stride),
        .k_stride = whole ? nope + v : nope,
        .v_stride = whole ? nope + v : v,
        .whole = whole,
    };
}

/* A stack of matrices that all read the same input is one tall matrix. */
static inline fr_weight exec_as_read_by(const fr_weight *w, fr_view in)
{
    fr_weight tall = *w;
    if (w->n_mat > 1 && in.n == 1) {
        tall.rows = w->rows * w->n_mat;
        tall.mat_bytes = w->mat_bytes * (size_t)w->n_mat;
        tall.n_mat = 1;
    }
    return tall;
}

/* The part of weight i that is on a device from expert *from on, or NULL; *from then becomes where
 * to look for the next one. */
const fr_store_part *exec_part(const fr_exec *x, int i, int device, int64_t *from);

/* Host memory of the workspace, counted; NULL with *err set. */
void *exec_take(fr_exec *x, size_t bytes, fr_err *err);

/* "layer N: found NaN or infinity for the KV cache ..." */
fr_status exec_not_finite(int layer, fr_err *err);

/* ---- exec_cpu.c --------------------------------------------------------------------------------
 */

fr_status exec_cpu_open(fr_exec *x, fr_err *err);
void exec_cpu_close(fr_exec *x);

/* Of the running batch, before its first node. */
void exec_cpu_begin(fr_exec *x);

fr_status exec_cpu_run(fr_exec *x, const fr_node *n, fr_err *err);

/* Runs the first steps of n as one job, where some are one; *done: how many those were, or 0. */
fr_status exec_cpu_run_fused(fr_exec *x, const fr_step *steps, int n, int *done, fr_err *err);

/* ---- exec_gpus.c -------------------------------------------------------------------------------
 */

/* Opens the devices that a schedule uses. */
fr_status exec_gpus_open(fr_exec *x, fr_err *err);
void exec_gpus_close(fr_exec *x);

/* Sends what all nodes of a batch need; ends a batch: waits for everything, and tells errors. */
fr_status exec_gpus_begin(fr_exec *x, uint32_t used, fr_err *err);
fr_status exec_gpus_end(fr_exec *x, uint32_t used, fr_err *err);

/* After a failure: waits until no device touches host memory any more, whatever it says. */
void exec_gpus_settle(fr_exec *x);

/* The CPU is about to run a node: waits for what travels from and to the host. */
fr_status exec_gpus_meet(fr_exec *x, fr_err *err);

fr_status exec_gpus_copy(fr_exec *x, const fr_step *step, fr_err *err);
fr_status exec_gpus_sum(fr_exec *x, const fr_step *step, fr_err *err);

/* ---- exec_gpu_ops.c ----------------------------------------------------------------------------
 */

fr_status exec_gpu_run(fr_exec *x, const fr_node *n, int device, fr_err *err);

/* Routed experts [first, first + gate->n_mat) of a node on a device, with weights in its memory:
 * y = their sum; with add, y += it. */
fr_status exec_gpu_experts(fr_exec *x, const fr_node *n, int device, int64_t first,
                           const fr_weight *gate, const fr_weight *up, const fr_weight *down,
                           bool add, fr_err *err);

/* ---- exec_stream.c -----------------------------------------------------------------------------
 */

/* The experts of a node that are in RAM, on the devices of a STREAM step. */
fr_status exec_stream(fr_exec *x, const fr_step *step, fr_err *err);

#endif
