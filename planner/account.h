/* Byte accounting: what tensors, caches and buffers take, to the byte that the engine allocates or
 * an upper bound of it. */
#ifndef FR_PLANNER_ACCOUNT_H
#define FR_PLANNER_ACCOUNT_H

#include "kv/kv.h"
#include "model/graph.h"
#include "planner/plan.h"

enum {
    PLAN_WEIGHT_ALIGN = 512
}; /* of blocks in a GPU's memory, as drivers count; RAM needs less */

/* Memory of experts [from, to] (all: 0, n_mat - 1) of a weight in a layout, as it is held in
 * memory: row headers included, rounded up to PLAN_WEIGHT_ALIGN; 0 for views of other weights. */
uint64_t plan_weight_bytes(const fr_model *m, int weight, int64_t from, int64_t to,
                           fr_layout layout);

/* The layout that weight w gets in memory: the model's (fr_model_set_layouts), or `wanted`
 * (fr_layout; -1: no wish) where that is possible. */
fr_layout plan_weight_layout(const fr_model *m, int weight, int wanted);

/* KV cache of one layer for n_ctx positions of one sequence, exact window included; rounded up as
 * weights are. */
uint64_t plan_kv_layer_bytes(const fr_model *m, const fr_plan_options *o, int64_t n_ctx);

/* Output logits: n rows of float32; rounded up likewise. */
uint64_t plan_logits_bytes(const fr_model *m, int64_t n);

/* Two staging buffers on a GPU, each with room for n_experts experts (up, gate and down) of the
 * layer whose experts are largest: one is computed on while the other is filled. */
uint64_t plan_staging_bytes(const fr_model *m, int64_t n_experts);

/* ---- workspace (planner/workspace.c) ----------------------------------------------------------
 */

/* The passes that an engine runs: on latents, and (-mla 2, 3) on expanded K and V. Building them
 * takes longer than measuring them, so it is done once. */
typedef struct {
    fr_graph graphs[2];
    int n_graphs;
    size_t *offsets; /* room for fr_graph_place; owned */
} plan_passes;

/* apart: [n_layer], layers whose gate, up and down matrices are on different devices; NULL: none.
 * direct_only: the pass on latents serves all batches (attention is where its weights are not). */
fr_status plan_passes_open(const fr_model *m, const bool *apart, bool direct_only, plan_passes *out,
                           fr_err *err);
void plan_passes_close(plan_passes *p); /* {0} is fine */

/* The most tokens of a batch that runs a pass (an index of plan_passes.graphs): those for which
 * expanding K and V does not pay run the first. */
int64_t plan_pass_tokens(const fr_model *m, int n_graphs, int pass, int64_t n_ubatch);

/* Workspace of a batch of n_ubatch tokens at a context of n_ctx: the values of the pass by lifetime
 * analysis (fr_graph_place) and the scratch of its operations.
 *
 *   cpu   an upper bound of what the engine allocates (fr_exec_open; a test compares)
 *   gpu   what each GPU gets that computes anything: the sum of plan_gpu_parts */
typedef struct {
    uint64_t cpu, gpu;
} plan_workspace;

plan_workspace plan_workspace_bytes(const fr_model *m, const plan_passes *p,
                                    const fr_plan_options *o, int64_t n_ctx, int64_t n_ubatch);

/* The blocks of a GPU's workspace, to the byte as the engine takes them (engine/exec_gpu.c). */
enum { PLAN_GPU_TILE_ROWS = 64 };
typedef enum {
    PLAN_GPU_VALUES, /* of the passes */
    PLAN_GPU_MOVED,  /* a part of a sum */
    PLAN_GPU_MATMUL, /* decoded rows */
    PLAN_GPU_GATE,
    PLAN_GPU_UP,
    PLAN_GPU_DOWN,
    PLAN_GPU_GROUPS, /* of routed experts */
    PLAN_GPU_LATENT,
    PLAN_GPU_K,
    PLAN_GPU_V,
    PLAN_GPU_STATE, /* expanded attention */
    PLAN_GPU_STAGED_K,
    PLAN_GPU_STAGED_V, /* exact rows of the batch */
    PLAN_GPU_TURNS,
    PLAN_GPU_TOKENS,
    PLAN_GPU_OUTPUTS,
    PLAN_GPU_FLAGS, /* of the batch */
    PLAN_GPU_PARTS
} plan_gpu_part;

typedef struct {
    uint64_t bytes[PLAN_GPU_PARTS]; /* multiples of PLAN_WEIGHT_ALIGN */
    uint64_t total;
    int64_t chunk;         /* positions that LATENT, K and V hold */
    int64_t expert_tokens; /* of a batch, that experts compute at once */
    int64_t down_rows;     /* rows of down matrices that DOWN holds for each of their pairs */
} plan_gpu_parts;

plan_gpu_parts plan_gpu_workspace(const fr_model *m, const plan_passes *p, const fr_plan_options *o,
                                  int64_t n_ctx, int64_t n_ubatch);

#endif
