#include "kv/kv.h"

#include <string.h>

static fr_status make_rows(fr_type type, int64_t width, int64_t per_pos, fr_kv_rows *out,
                           fr_err *err)
{
    const fr_type_info *info = fr_type_get(type);
    if (!fr_type_can_encode(type) || info->row_meta != 0)
        return fr_fail(err, FR_EUNSUPPORTED,
                       "KV cache type %s: cannot be written row by row; use f16 or q8_0",
                       info->name);
    int64_t stored = (width + info->weights - 1) / info->weights * info->weights;
    *out = (fr_kv_rows){type, width, stored, per_pos, fr_row_bytes(type, FR_LAYOUT_PLAIN, stored)};
    return FR_OK;
}

fr_status fr_kv_layout_make(const fr_model *m, fr_type type_k, fr_type type_v, int64_t window,
                            fr_kv_layout *out, fr_err *err)
{
    if (window < 0 || window > FR_KV_WINDOW_MAX || window % FR_KV_WINDOW_STEP != 0)
        return fr_fail(err, FR_ERANGE,
                       "KV cache window: found %lld positions, expected a multiple of %d up to %d",
                       (long long)window, FR_KV_WINDOW_STEP, FR_KV_WINDOW_MAX);
    const fr_hparams *hp = &m->hp;
    *out = (fr_kv_layout){.n_layer = hp->n_layer};
    bool exact = type_k == FR_TYPE_F32 && (m->mla != FR_MLA_PLAIN || type_v == FR_TYPE_F32);
    out->window = exact ? 0 : window;
    if (m->mla != FR_MLA_PLAIN)
        return make_rows(type_k, hp->kv_lora_rank + hp->qk_rope, 1, &out->k, err);
    FR_TRY(make_rows(type_k, hp->qk_nope + hp->qk_rope, hp->n_head, &out->k, err));
    return make_rows(type_v, hp->v_head, hp->n_head, &out->v, err);
}

static size_t rows_pos_bytes(const fr_kv_rows *r)
{
    return r->row_bytes * (size_t)r->per_pos;
}

size_t fr_kv_pos_bytes(const fr_kv_layout *l)
{
    return (rows_pos_bytes(&l->k) + rows_pos_bytes(&l->v)) * (size_t)l->n_layer;
}

static size_t aligned(size_t bytes)
{
    return (bytes + FR_MEM_ALIGN - 1) / FR_MEM_ALIGN * FR_MEM_ALIGN;
}

/* More than this no machine has; two of it still are a size_t. */
static const size_t TOO_MUCH = SIZE_MAX / 4 / FR_MEM_ALIGN * FR_MEM_ALIGN;

static size_t rows_bytes(const fr_kv_rows *r, int64_t n_ctx)
{
    size_t bytes;
    if (__builtin_mul_overflow(rows_pos_bytes(r), (size_t)n_ctx, &bytes) || bytes > TOO_MUCH)
        return TOO_MUCH;
    return aligned(bytes);
}

size_t fr_kv_layer_bytes(const fr_kv_layout *l, int64_t n_ctx)
{
    return rows_bytes(&l->k, n_ctx) + rows_bytes(&l->v, n_ctx);
}

static size_t recent_floats(const fr_kv_layout *l, const fr_kv_rows *r)
{
    return (size_t)(l->window * r->per_pos * r->stored);
}

size_t fr_kv_recent_bytes(const fr_kv_layout *l)
{
    return (recent_floats(l, &l->k) + recent_floats(l, &l->v)) * sizeof(float);
}

static fr_status too_large(const fr_kv *kv, size_t n_layers, fr_err *err)
{
    char need[32];
    uint64_t bytes;
    if (__builtin_mul_overflow(kv->layer_bytes, (uint64_t)n_layers, &bytes))
        bytes = UINT64_MAX;
    return fr_fail(
        err, FR_ENOMEM,
        "KV cache: %s for %lld tokens in %s could not be had; use a shorter context (-c) or a "
        "smaller type (-ctk q8_0)",
        fr_format_bytes(bytes, need), (long long)kv->n_ctx,
        fr_type_name(kv->layout.k.type, FR_LAYOUT_PLAIN));
}

fr_status fr_kv_open(const fr_kv_layout *l, int64_t n_ctx, const bool *here, fr_kv **out,
                     fr_err *err)
{
    *out = NULL;
    fr_kv *kv = FR_NEW(fr_kv, FR_MEM_ENGINE, 1, err);
    if (!kv)
        return FR_ENOMEM;
    kv->layout = *l;
    kv->n_ctx = n_ctx;
    kv->layer_bytes = fr_kv_layer_bytes(l, n_ctx);
    kv->slot = FR_NEW(int, FR_MEM_ENGINE, (size_t)l->n_layer, err);
    int n = 0;
    for (int64_t il = 0; kv->slot && il < l->n_layer; il++)
        kv->slot[il] = !here || here[il] ? n++ : -1;
    kv->data = fr_mem_array(FR_MEM_KV, (size_t)n, kv->layer_bytes, err);
    kv->recent = fr_mem_array(FR_MEM_KV, (size_t)n, fr_kv_recent_bytes(l), err);
    if (kv->slot && kv->data && kv->recent) {
        *out = kv;
        return FR_OK;
    }
    fr_status st = too_large(kv, (size_t)n, err);
    fr_kv_close(kv);
    return st;
}

void fr_kv_close(fr_kv *kv)
{
    if (!kv)
        return;
    fr_mem_free(kv->slot);
    fr_mem_free(kv->data);
    fr_mem_free(kv->recent);
    fr_mem_free(kv);
}

uint8_t *fr_kv_k(const fr_kv *kv, int layer)
{
    return kv->data + (size_t)kv->slot[layer] * kv->layer_bytes;
}

uint8_t *fr_kv_v(const fr_kv *kv, int layer)
{
    return fr_kv_k(kv, layer) + rows_bytes(&kv->layout.k, kv->n_ctx);
}

void fr_kv_appended(fr_kv *kv, int64_t pos0, int64_t n)
{
    int64_t oldest = pos0 + n - kv->layout.window;
    if (oldest > kv->exact_from)
        kv->exact_from = oldest;
}

void fr_kv_truncated(fr_kv *kv, int64_t n)
{
    if (n < kv->exact_from)
        kv->exact_from = n;
}

/* Each copy doubles what there is to copy. */
static void repeat_rows(const fr_kv_rows *r, uint8_t *base, int64_t have, int64_t n)
{
    size_t pos = rows_pos_bytes(r);
    for (int64_t done = have, step; pos > 0 && done < n; done += step) {
        step = n - done < done ? n - done : done;
        memcpy(base + pos * (size_t)done, base, pos * (size_t)step);
    }
}

void fr_kv_repeat(fr_kv *kv, int64_t have, int64_t n)
{
    bool full = kv->exact_from == have - kv->layout.window;
    for (int64_t il = 0; il < kv->layout.n_layer; il++)
        if (kv->slot[il] >= 0) {
            repeat_rows(&kv->layout.k, fr_kv_k(kv, (int)il), have, n);
            repeat_rows(&kv->layout.v, fr_kv_v(kv, (int)il), have, n);
        }
    /* A full ring is taken as that of the new end: as exact as the copies are right. */
    kv->exact_from = full ? n - kv->layout.window : n;
}

void fr_kv_copy(fr_kv *to, const fr_kv *from, int64_t n)
{
    for (int il = 0; il < to->layout.n_layer; il++) {
        if (to->slot[il] < 0)
            continue;
        memcpy(fr_kv_k(to, il), fr_kv_k(from, il), rows_pos_bytes(&to->layout.k) * (size_t)n);
        memcpy(fr_kv_v(to, il), fr_kv_v(from, il), rows_pos_bytes(&to->layout.v) * (size_t)n);
        if (to->layout.window > 0)
            memcpy(fr_kv_recent_k(to, il), fr_kv_recent_k(from, il),
                   fr_kv_recent_bytes(&to->layout));
    }
    to->exact_from = from->exact_from;
}

float *fr_kv_recent_k(const fr_kv *kv, int layer)
{
    if (kv->layout.window == 0)
        return NULL;
    return kv->recent + (size_t)kv->slot[layer] * fr_kv_recent_bytes(&kv->layout) / sizeof(float);
}

float *fr_kv_recent_v(const fr_kv *kv, int layer)
{
    float *k = fr_kv_recent_k(kv, layer);
    return k ? k + recent_floats(&kv->layout, &kv->layout.k) : NULL;
}
