#include "store/store.h"

#include "base/log.h"
#include "store/store_internal.h"

/* What was read, then what is mapped; the first refusal ends it. */
static void lock_weights(const fr_store *s)
{
    fr_err err = {0};
    fr_status st = s->block ? fr_mem_lock(s->block, s->block_bytes, &err) : FR_OK;
    for (int i = 0; st == FR_OK && i < s->model->n_weights; i++)
        if (s->sources[i] == STORE_MAPPED)
            st = fr_mem_lock(s->weights[i].data, s->model->weights[i].bytes, &err);
    if (st != FR_OK)
        fr_log_warn("weights: they may be swapped out: %s", err.text);
}

static fr_status fill(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    const fr_model *m = s->model;
    size_t n = (size_t)m->n_weights;
    s->weights = FR_NEW(fr_weight, FR_MEM_MODEL, n, err);
    s->sources = FR_NEW(store_source, FR_MEM_MODEL, n, err);
    s->at = FR_NEW(uint64_t, FR_MEM_MODEL, n, err);
    s->made = FR_NEW(uint8_t *, FR_MEM_MODEL, n, err);
    if (!s->weights || !s->sources || !s->at || !s->made)
        return FR_ENOMEM;
    for (int i = 0; i < m->n_weights; i++)
        s->weights[i] = m->weights[i].shape;
    FR_TRY(store_load(s, cfg, err));
    for (int i = 0; i < m->n_weights; i++) /* sources come before what is derived from them */
        if (m->weights[i].derive != FR_DERIVE_NONE)
            FR_TRY(store_derive(s, i, err));
    if (cfg->lock)
        lock_weights(s);
    return cfg->check ? store_check(s, err) : FR_OK;
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
    fr_status st = fill(s, cfg, err);
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
    for (int i = 0; s->made && i < s->model->n_weights; i++)
        fr_mem_free(s->made[i]);
    fr_mem_account(FR_MEM_WEIGHTS, -(ptrdiff_t)s->mapped_bytes);
    fr_mem_free(s->block);
    fr_mem_free(s->made);
    fr_mem_free(s->at);
    fr_mem_free(s->sources);
    fr_mem_free(s->weights);
    fr_mem_free(s);
}

const fr_weight *fr_store_weight(const fr_store *s, int i)
{
    return i < 0 ? NULL : &s->weights[i];
}
