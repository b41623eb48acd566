/* What is where: parts of weights from the placements of a plan, and their memory. */
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "cpu/numa.h"
#include "planner/account.h"
#include "store/store_internal.h"

/* ---- parts -------------------------------------------------------------------------------------
 */

/* A view has the layout and the place of what it is a view of. */
static fr_status view_shape(const fr_store *s, int i, fr_store_part *p, fr_err *err)
{
    const fr_model_weight *v = &s->model->weights[i];
    const fr_store_part *base = &s->parts[s->first[v->from]];
    if (s->first[v->from + 1] - s->first[v->from] != 1 || base->device != p->device)
        return fr_fail(err, FR_EINTERNAL,
                       "plan: %s is a part of %s, but is not placed with it as a whole", v->name,
                       s->model->weights[v->from].name);
    p->w.layout = base->w.layout;
    p->w.mat_bytes = (size_t)v->src_step * fr_row_bytes(p->w.type, p->w.layout, base->w.cols);
    return FR_OK;
}

/* Experts [from, to] of weight i; joins the part before where they go on with it. */
static fr_status add_part(fr_store *s, int i, const fr_placement *at, fr_err *err)
{
    const fr_weight *shape = &s->model->weights[i].shape;
    int64_t n = at->expert_to - at->expert_from + 1;
    fr_store_part *last = s->n_parts > s->first[i] ? &s->parts[s->n_parts - 1] : NULL;
    if (last && last->device == at->device && last->w.layout == at->layout) {
        last->w.n_mat += n;
        return FR_OK;
    }
    fr_store_part *p = &s->parts[s->n_parts];
    *p = (fr_store_part){.device = at->device, .first = at->expert_from};
    p->w = fr_weight_make(shape->type, at->layout, shape->cols, shape->rows, n);
    if (s->model->weights[i].derive == FR_DERIVE_VIEW)
        FR_TRY(view_shape(s, i, p, err));
    s->items[s->n_parts++].weight = i;
    return FR_OK;
}

static fr_status bad_plan(const fr_store *s, int i, fr_err *err)
{
    return fr_fail(err, FR_EINTERNAL, "plan: %s is not placed exactly once, on known devices",
                   s->model->weights[i].name);
}

static fr_status add_planned(fr_store *s, const fr_plan *plan, fr_err *err)
{
    int k = 0;
    for (int i = 0; i < s->model->n_weights; i++) {
        int64_t next = 0, n_mat = s->model->weights[i].shape.n_mat;
        s->first[i] = s->n_parts;
        for (; k < plan->n_placements && plan->placements[k].tensor == i; k++) {
            const fr_placement *at = &plan->placements[k];
            if (at->expert_from != next || at->expert_to < next || at->expert_to >= n_mat ||
                at->device < 0 || at->device >= s->n_devices)
                return bad_plan(s, i, err);
            FR_TRY(add_part(s, i, at, err));
            next = at->expert_to + 1;
        }
        if (next != n_mat)
            return bad_plan(s, i, err);
        s->first[i + 1] = s->n_parts;
    }
    return FR_OK;
}

static fr_status add_all(fr_store *s, fr_err *err)
{
    for (int i = 0; i < s->model->n_weights; i++) {
        const fr_weight *shape = &s->model->weights[i].shape;
        fr_placement at = {.expert_to = shape->n_mat - 1, .layout = shape->layout};
        s->first[i] = s->n_parts;
        FR_TRY(add_part(s, i, &at, err));
        s->first[i + 1] = s->n_parts;
    }
    return FR_OK;
}

/* ---- sources and bytes -------------------------------------------------------------------------
 */

static store_source source_of(const fr_model_weight *w, const fr_store_part *p, bool from_image,
                              const fr_store_config *cfg)
{
    if (!w->src || w->derive != FR_DERIVE_NONE)
        return STORE_MADE;
    if (w->src->layout != p->w.layout && !from_image)
        return STORE_REPACK;
    return cfg->mmap && p->device == FR_PLAN_CPU ? STORE_MAPPED : STORE_READ;
}

static uint64_t aligned(uint64_t bytes, uint64_t to)
{
    return (bytes + to - 1) / to * to;
}

static void set_sizes(fr_store *s, const fr_store_config *cfg)
{
    for (int k = 0; k < s->n_parts; k++) {
        const fr_store_part *p = &s->parts[k];
        store_item *item = &s->items[k];
        const fr_model_weight *w = &s->model->weights[item->weight];
        item->from_image =
            s->image.at && s->image.at[item->weight] > 0 && p->w.layout == w->shape.layout;
        item->source = source_of(w, p, item->from_image, cfg);
        if (w->derive != FR_DERIVE_VIEW)
            item->bytes = p->w.mat_bytes * (uint64_t)p->w.n_mat;
        s->devices[p->device].needed +=
            aligned(item->bytes, p->device == FR_PLAN_CPU ? FR_MEM_ALIGN : PLAN_WEIGHT_ALIGN);
    }
}

static fr_status check_budgets(const fr_store *s, fr_err *err)
{
    for (int d = 0; d < s->n_devices; d++) {
        const store_device *v = &s->devices[d];
        if (v->needed > v->planned)
            return fr_fail(err, FR_ENOMEM,
                           "%s: weights: planned %" PRIu64 " bytes, needed %" PRIu64
                           "; the plan was made for other layouts or another file",
                           v->id, v->planned, v->needed);
        if (v->needed > 0 && d != FR_PLAN_CPU && !s->gpu)
            return fr_fail(err, FR_EINVAL,
                           "%s: the plan puts weights there, but there is no GPU backend", v->id);
    }
    return FR_OK;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static bool is_read(const store_item *item)
{
    return item->source == STORE_READ || item->source == STORE_REPACK;
}

static bool is_expert(const fr_store *s, const store_item *item)
{
    fr_role role = s->model->weights[item->weight].role;
    return role == FR_ROLE_FFN_GATE_EXPS || role == FR_ROLE_FFN_UP_EXPS ||
           role == FR_ROLE_FFN_DOWN_EXPS;
}

/* Routed experts stand together, so that they can be pinned as one. */
static void lay_out_block(fr_store *s)
{
    for (int experts = 1; experts >= 0; experts--)
        for (int k = 0; k < s->n_parts; k++) {
            store_item *item = &s->items[k];
            if (s->parts[k].device != FR_PLAN_CPU || !is_read(item) ||
                is_expert(s, item) != (bool)experts)
                continue;
            item->at = s->block_bytes;
            s->block_bytes += aligned(item->bytes, FR_MEM_ALIGN);
        }
}

static const uint8_t *mapped(const fr_store *s, const store_item *item)
{
    if (item->from_image)
        return s->image.file.data + s->image.at[item->weight];
    return fr_gguf_tensor_data(s->model->gguf, s->model->weights[item->weight].src);
}

static fr_status take_block(fr_store *s, fr_store_pages pages, fr_err *err)
{
    fr_err why = {0};
    if (pages == FR_PAGES_HUGE) {
        s->block = fr_mem_alloc_huge(FR_MEM_WEIGHTS, s->block_bytes, &why);
        if (s->block)
            return FR_OK;
        fr_log_warn("%s; transparent ones are asked for", why.text);
    }
    s->block = fr_mem_array(FR_MEM_WEIGHTS, s->block_bytes, 1, err);
    if (!s->block)
        return FR_ENOMEM;
    if (pages != FR_PAGES_SMALL)
        fr_mem_want_huge_pages(s->block);
    return FR_OK;
}

static fr_status take_ram(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    lay_out_block(s);
    if (s->block_bytes > 0)
        FR_TRY(take_block(s, cfg->pages, err));
    for (int k = 0; k < s->n_parts; k++) {
        fr_store_part *p = &s->parts[k];
        const store_item *item = &s->items[k];
        if (p->device != FR_PLAN_CPU)
            continue;
        if (item->source == STORE_MAPPED) {
            p->w.data = mapped(s, item) + (size_t)p->first * p->w.mat_bytes;
            s->mapped_bytes += item->bytes;
        } else if (is_read(item)) {
            p->w.data = s->block + item->at;
            fr_cpu_home_weight(s->cpu, &p->w);
        }
    }
    fr_mem_account(FR_MEM_WEIGHTS, (ptrdiff_t)s->mapped_bytes);
    return FR_OK;
}

static fr_status take_gpus(fr_store *s, fr_err *err)
{
    for (int d = 1; d < s->n_devices; d++) {
        store_device *v = &s->devices[d];
        if (v->needed > 0)
            FR_TRY(s->gpu->arena_open(v->gpu, v->needed, "weights", &v->arena, err));
    }
    for (int k = 0; k < s->n_parts; k++) {
        fr_store_part *p = &s->parts[k];
        void *data;
        if (p->device == FR_PLAN_CPU || s->items[k].bytes == 0)
            continue;
        FR_TRY(s->gpu->arena_alloc(s->devices[p->device].arena, s->items[k].bytes, &data, err));
        p->w.data = data;
    }
    return FR_OK;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static fr_status set_devices(fr_store *s, const fr_plan *plan, fr_err *err)
{
    s->n_devices = plan ? plan->n_devices : 1;
    strcpy(s->devices[FR_PLAN_CPU].id, "CPU");
    s->devices[FR_PLAN_CPU].planned = UINT64_MAX;
    if (plan && plan->model != s->model)
        return fr_fail(err, FR_EINVAL, "plan: made for another model");
    for (int d = 0; plan && d < s->n_devices; d++) {
        store_device *v = &s->devices[d];
        memcpy(v->id, plan->devices[d].id, sizeof v->id);
        v->planned = plan->devices[d].weights;
        v->gpu = d > 0 ? plan->hw.gpus[d - 1].device : -1;
    }
    return FR_OK;
}

fr_status store_parts_list(fr_store *s, const fr_plan *plan, fr_err *err)
{
    size_t n = (size_t)s->model->n_weights, n_parts = plan ? (size_t)plan->n_placements : n;
    FR_TRY(set_devices(s, plan, err));
    s->parts = FR_NEW(fr_store_part, FR_MEM_MODEL, n_parts, err);
    s->items = FR_NEW(store_item, FR_MEM_MODEL, n_parts, err);
    s->first = FR_NEW(int, FR_MEM_MODEL, n + 1, err);
    s->weights = FR_NEW(fr_weight, FR_MEM_MODEL, n, err);
    if (!s->parts || !s->items || !s->first || !s->weights)
        return FR_ENOMEM;
    return plan ? add_planned(s, plan, err) : add_all(s, err);
}

fr_status store_parts_place(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    set_sizes(s, cfg);
    FR_TRY(check_budgets(s, err));
    FR_TRY(take_ram(s, cfg, err));
    return take_gpus(s, err);
}

void store_parts_close(fr_store *s)
{
    for (int d = 1; d < s->n_devices; d++)
        if (s->devices[d].arena)
            s->gpu->arena_close(s->devices[d].arena);
    for (int k = 0; k < s->n_parts; k++)
        fr_mem_free(s->items[k].made);
    fr_mem_account(FR_MEM_WEIGHTS, -(ptrdiff_t)s->mapped_bytes);
    fr_mem_free(s->block);
    fr_mem_free(s->weights);
    fr_mem_free(s->first);
    fr_mem_free(s->items);
    fr_mem_free(s->parts);
}
