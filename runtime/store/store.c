#include "store/store.h"

#include <time.h>

#include "base/log.h"
#include "store/store_internal.h"

/* What was read, then what is mapped; the first refusal ends it. */
static void lock_weights(const fr_store *s)
{
    fr_err err = {0};
    fr_status st = s->block ? fr_mem_lock(s->block, s->block_bytes, &err) : FR_OK;
    for (int k = 0; st == FR_OK && k < s->n_parts; k++)
        if (s->items[k].source == STORE_MAPPED)
            st = fr_mem_lock(s->parts[k].w.data, s->items[k].bytes, &err);
    if (st != FR_OK)
        fr_log_warn("weights: they may be swapped out: %s", err.text);
}

/* What the engine sees of a weight that is wholly in RAM. */
static void set_weight(fr_store *s, int i)
{
    const fr_store_part *p = &s->parts[s->first[i]];
    s->weights[i] = s->model->weights[i].shape;
    if (s->first[i + 1] - s->first[i] == 1 && p->device == FR_PLAN_CPU)
        s->weights[i] = p->w;
}

static fr_status fill(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    const fr_model *m = s->model;
    FR_TRY(store_parts_list(s, cfg->plan, err));
    if (cfg->repack_cache)
        FR_TRY(store_image_open(s, cfg, err));
    FR_TRY(store_parts_place(s, cfg, err));
    FR_TRY(store_load(s, cfg, NULL, err));
    for (int i = 0; i < m->n_weights; i++) { /* sources come before what is derived from them */
        if (m->weights[i].derive != FR_DERIVE_NONE)
            FR_TRY(store_derive(s, i, cfg->check, err));
        set_weight(s, i);
    }
    if (cfg->check)
        FR_TRY(store_check(s, err));
    if (cfg->lock)
        lock_weights(s);
    return cfg->pin ? store_pin(s, err) : FR_OK;
}

double store_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

fr_status fr_store_open(const fr_model *m, fr_cpu *cpu, const fr_store_config *cfg, fr_store **out,
                        fr_err *err)
{
    *out = NULL;
    if (!fr_gguf_has_data(m->gguf))
        return fr_fail(err, FR_EFORMAT, "%s: holds headers only, expected the weights too",
                       fr_gguf_path(m->gguf, 0));
    fr_store *s = FR_NEW(fr_store, FR_MEM_MODEL, 1, err);
    if (!s)
        return FR_ENOMEM;
    s->model = m;
    s->cpu = cpu;
    s->gpu = cfg->gpu;
    s->image.file = FR_FILE_CLOSED;
    double start = store_seconds();
    fr_status st = fill(s, cfg, err);
    s->loading.seconds = store_seconds() - start;
    s->loading.mapped_bytes = s->mapped_bytes;
    if (st != FR_OK) {
        fr_store_close(s);
        return st;
    }
    *out = s;
    return FR_OK;
}

void fr_store_close(fr_store *s)
{
    if (!s)
        return;
    store_unpin(s);
    store_parts_close(s);
    store_image_close(s);
    fr_mem_free(s);
}

const fr_weight *fr_store_weight(const fr_store *s, int i)
{
    return i < 0 ? NULL : &s->weights[i];
}

const fr_store_part *fr_store_parts(const fr_store *s, int i, int *n)
{
    *n = s->first[i + 1] - s->first[i];
    return &s->parts[s->first[i]];
}

fr_store_loading fr_store_loaded(const fr_store *s)
{
    return s->loading;
}

uint64_t fr_store_bytes(const fr_store *s, int device)
{
    return device < s->n_devices ? s->devices[device].needed : 0;
}
