/* Between the files of the CPU's part of a step: exec_cpu.c (products and small operations, the
 * table of operations), exec_cpu_fuse.c (several nodes as one job), exec_cpu_attn.c (KV cache and
 * attention), exec_cpu_open.c (the scratch of all). */
#ifndef FR_ENGINE_EXEC_CPU_INTERNAL_H
#define FR_ENGINE_EXEC_CPU_INTERNAL_H

#include "engine/exec_internal.h"

static inline float *exec_cpu_data(const fr_exec *x, fr_view v)
{
    return exec_host(x, v.value) + v.at;
}

static inline const fr_weight *exec_cpu_weight(const fr_exec *x, int i)
{
    return fr_store_weight(x->store, i);
}

/* ---- exec_cpu.c ------------------------------------------------------------------------------ */

/* How a MATMUL's input is prepared for its weight. */
fr_act_type exec_cpu_act_type(const fr_exec *x, const fr_node *n);

/* The rows of an input for kernels that read `type`; those prepared last are kept. */
const fr_act *exec_cpu_prepare(fr_exec *x, fr_view in, fr_act_type type);

/* MATMULs of one input, prepared in one way; n <= FR_CPU_MOST_PRODUCTS. */
void exec_cpu_products(fr_exec *x, const fr_node *const *nodes, int n);

fr_cpu_router_args exec_cpu_router_args(const fr_exec *x, const fr_node *n);

/* ---- exec_cpu_fuse.c ------------------------------------------------------------------------- */

/* Scratch of the feed-forward parts that are one job for a single token. */
size_t exec_cpu_ffn_bytes(const fr_exec *x);

/* ---- exec_cpu_attn.c ------------------------------------------------------------------------- */

/* The rows of a cache as kernels take them; base NULL where the cache has none. */
fr_cpu_kv exec_cpu_cache(const fr_kv_rows *r, uint8_t *base);

fr_status exec_cpu_kv_store(fr_exec *x, const fr_node *n, fr_err *err);

/* After attention, which does it itself, the last rows of the batch become those that stay exact.
 */
void exec_cpu_kv_keep(const fr_exec *x, int layer);
fr_status exec_cpu_attn_cached(fr_exec *x, const fr_node *n, fr_err *err);
fr_status exec_cpu_attn_expand(fr_exec *x, const fr_node *n, fr_err *err);

#endif
