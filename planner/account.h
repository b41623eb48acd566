/* Byte accounting: what tensors, caches and buffers take, to the byte that the engine allocates or
 * an upper bound of it. */
#ifndef FR_PLANNER_ACCOUNT_H
#define FR_PLANNER_ACCOUNT_H

#include "planner/plan.h"

/* Memory of experts [from, to] (all: 0, n_mat - 1) of a weight in a layout, as it is held in
 * memory. */
uint64_t plan_weight_bytes(const fr_model *m, int weight, int64_t from, int64_t to,
                           fr_layout layout);

/* The layout that weight w gets in memory: interleaved where the type has such a form and the row
 * counts allow it; token_embd and vectors never. Unless `wanted` (fr_layout or -1) says otherwise.
 */
fr_layout plan_weight_layout(const fr_model *m, int weight, int wanted);

/* KV cache of one layer for n_ctx positions, exact window included. */
uint64_t plan_kv_layer_bytes(const fr_model *m, const fr_plan_options *o, int64_t n_ctx);

/* Workspace of the graph for n_ubatch tokens on a device that computes attention or dense parts:
 * values by lifetime analysis (fr_graph_place) plus the scratch of the operations; an upper bound
 * of what the engine takes (a test compares). */
uint64_t plan_workspace_bytes(const fr_model *m, const fr_plan_options *o, int64_t n_ctx,
                              int64_t n_ubatch);

/* Output logits: n rows of float32. */
uint64_t plan_logits_bytes(const fr_model *m, int64_t n);

/* Two staging buffers on a GPU, each as large as the largest layer's routed experts trio part that
 * is streamed to it; 0 when nothing in RAM is streamed. */
uint64_t plan_staging_bytes(const fr_model *m, int64_t n_experts_resident);

#endif
