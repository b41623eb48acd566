/* The KV cache of one sequence as far as it is on GPUs: of the layers whose cache the plan puts
 * there. The rest is in kv/kv.h's, which also knows from where on rows are exact. */
#ifndef FR_ENGINE_GPU_KV_H
#define FR_ENGINE_GPU_KV_H

#include "cuda/cuda.h"
#include "kv/kv.h"
#include "planner/plan.h"

typedef struct {
    uint8_t *k, *v;             /* position 0; v: NULL with the latent cache */
    float *recent_k, *recent_v; /* rings of exact rows; NULL without a window */
} gpu_kv_layer;

typedef struct {
    const fr_gpu *gpu;
    fr_gpu_arena *arenas[FR_PLAN_MAX_DEVICES]; /* owned */
    gpu_kv_layer *layers;                      /* [n_layer], owned; empty ones are in RAM */
} gpu_kv;

/* *out is owned by the caller until gpu_kv_close. FR_ENOMEM tells device and bytes; FR_EUNSUPPORTED
 * for a cache type that kernels cannot read. */
fr_status gpu_kv_open(const fr_gpu *gpu, const fr_plan *plan, const fr_kv_layout *l, int64_t n_ctx,
                      gpu_kv **out, fr_err *err);
void gpu_kv_close(gpu_kv *kv); /* no work on it may be under way; NULL is fine */

/* Whether a layer's cache is in RAM; for fr_kv_open. */
fr_status gpu_kv_in_ram(const fr_plan *plan, int64_t n_layer, bool **out, fr_err *err);

#endif
