/* Between the files of the CPU's part of a step: exec_cpu.c (products and small operations, the
 * table of operations), exec_cpu_attn.c (KV cache and attention), exec_cpu_open.c (the scratch of
 * both). */
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

/* ---- exec_cpu_attn.c ------------------------------------------------------------------------- */

/* The rows of a cache as kernels take them; base NULL where the cache has none. */
fr_cpu_kv exec_cpu_cache(const fr_kv_rows *r, uint8_t *base);

fr_status exec_cpu_kv_store(fr_exec *x, const fr_node *n, fr_err *err);
fr_status exec_cpu_attn_cached(fr_exec *x, const fr_node *n, fr_err *err);
fr_status exec_cpu_attn_expand(fr_exec *x, const fr_node *n, fr_err *err);

#endif
