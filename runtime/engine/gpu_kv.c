#include "engine/gpu_kv.h"

#include "base/mem.h"
#include "planner/account.h"

static fr_status check_type(const fr_kv_rows *r, fr_err *err)
{
    bool known = r->type == FR_TYPE_F32 || r->type == FR_TYPE_F16 || r->type == FR_TYPE_BF16 ||
                 r->type == FR_TYPE_Q8_0;
    if (known || r->width == 0)
        return FR_OK;
    return fr_fail(err, FR_EUNSUPPORTED,
                   "KV cache type %s: GPUs read f32, f16, bf16 and q8_0; use one of those, or keep "
                   "the cache in RAM (-nkvo)",
                   fr_type_name(r->type, FR_LAYOUT_PLAIN));
}

static size_t layer_bytes(const fr_kv_layout *l, int64_t n_ctx)
{
    return fr_kv_layer_bytes(l, n_ctx) + fr_kv_recent_bytes(l);
}

static int64_t layers_on(const fr_plan *plan, int64_t n_layer, int device)
{
    int64_t n = 0;
    for (int64_t il = 0; il < n_layer; il++)
        n += plan->kv_device[il] == device;
    return n;
}

/* K rows, V rows, then the rings, as kv.c counts them. */
static gpu_kv_layer layer_at(const fr_kv_layout *l, int64_t n_ctx, uint8_t *at)
{
    fr_kv_layout only_k = *l;
    only_k.v = (fr_kv_rows){.width = 0};
    gpu_kv_layer layer = {.k = at};
    if (l->v.width > 0)
        layer.v = at + fr_kv_layer_bytes(&only_k, n_ctx);
    if (l->window > 0) {
        layer.recent_k = (float *)(void *)(at + fr_kv_layer_bytes(l, n_ctx));
        layer.recent_v =
            l->v.width > 0 ? layer.recent_k + fr_kv_recent_bytes(&only_k) / sizeof(float) : NULL;
    }
    return layer;
}

static fr_status open_device(gpu_kv *kv, const fr_plan *plan, const fr_kv_layout *l, int64_t n_ctx,
                             int device, fr_err *err)
{
    int64_t n = layers_on(plan, l->n_layer, device);
    size_t one = layer_bytes(l, n_ctx), all;
    void *block;
    if (n == 0)
        return FR_OK;
    if (__builtin_mul_overflow(one, (size_t)n, &all))
        return fr_fail(err, FR_ENOMEM, "KV cache: %lld tokens take more than any memory",
                       (long long)n_ctx);
    int ordinal = plan->hw.gpus[device - 1].device;
    all = (all + PLAN_WEIGHT_ALIGN - 1) / PLAN_WEIGHT_ALIGN * PLAN_WEIGHT_ALIGN;
    FR_TRY(kv->gpu->arena_open(ordinal, all, "KV cache", &kv->arenas[device], err));
    FR_TRY(kv->gpu->arena_alloc(kv->arenas[device], all, &block, err));
    uint8_t *at = block;
    for (int64_t il = 0; il < l->n_layer; il++)
        if (plan->kv_device[il] == device) {
            kv->layers[il] = layer_at(l, n_ctx, at);
            at += one;
        }
    return FR_OK;
}

fr_status gpu_kv_open(const fr_gpu *gpu, const fr_plan *plan, const fr_kv_layout *l, int64_t n_ctx,
                      gpu_kv **out, fr_err *err)
{
    *out = NULL;
    gpu_kv *kv = FR_NEW(gpu_kv, FR_MEM_ENGINE, 1, err);
    if (!kv)
        return FR_ENOMEM;
    kv->gpu = gpu;
    fr_status st = FR_ENOMEM;
    kv->layers = FR_NEW(gpu_kv_layer, FR_MEM_ENGINE, (size_t)l->n_layer, err);
    if (!kv->layers)
        goto out;
    for (int d = 1; d < plan->n_devices; d++) {
        if (layers_on(plan, l->n_layer, d) == 0)
            continue;
        FR_TRY_OUT(st, check_type(&l->k, err));
        FR_TRY_OUT(st, check_type(&l->v, err));
        FR_TRY_OUT(st, open_device(kv, plan, l, n_ctx, d, err));
    }
    *out = kv;
    return FR_OK;
out:
    gpu_kv_close(kv);
    return st;
}

void gpu_kv_close(gpu_kv *kv)
{
    if (!kv)
        return;
    for (int d = 0; d < FR_PLAN_MAX_DEVICES; d++)
        kv->gpu->arena_close(kv->arenas[d]);
    fr_mem_free(kv->layers);
    fr_mem_free(kv);
}

fr_status gpu_kv_in_ram(const fr_plan *plan, int64_t n_layer, bool **out, fr_err *err)
{
    *out = FR_NEW(bool, FR_MEM_ENGINE, (size_t)n_layer, err);
    if (!*out)
        return FR_ENOMEM;
    for (int64_t il = 0; il < n_layer; il++)
        (*out)[il] = !plan || plan->kv_device[il] == FR_PLAN_CPU;
    return FR_OK;
}
