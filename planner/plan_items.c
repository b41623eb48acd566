/* From a model, rules and layer options to pieces and items. */
#include <stdio.h>
#include <string.h>

#include "planner/plan_internal.h"
#include "planner/rules_internal.h"

bool plan_role_is_expert(fr_role role)
{
    return role == FR_ROLE_FFN_GATE_EXPS || role == FR_ROLE_FFN_UP_EXPS ||
           role == FR_ROLE_FFN_DOWN_EXPS;
}

bool plan_role_is_attention(fr_role role)
{
    return role >= FR_ROLE_ATTN_NORM && role <= FR_ROLE_ATTN_OUTPUT;
}

/* A text of the draft's own. */
static const char *text_of(plan_draft *d, const char *s, fr_err *err)
{
    return fr_arena_strndup(&d->arena, s, strlen(s), err);
}

/* ---- devices -----------------------------------------------------------------------------------
 */

static fr_status check_gpu(const plan_draft *d, const char *option, int gpu, fr_err *err)
{
    if (gpu >= 0 && gpu < d->hw->n_gpus)
        return FR_OK;
    return fr_fail(err, FR_EINVAL, "%s: found GPU %d, but the machine has %d of them", option, gpu,
                   d->hw->n_gpus);
}

static fr_status choose_gpus(plan_draft *d, fr_err *err)
{
    const fr_plan_options *o = &d->o;
    int n = o->n_gpus > 0 ? o->n_gpus : d->hw->n_gpus;
    for (int i = 0; i < n; i++) {
        int gpu = o->n_gpus > 0 ? o->gpus[i] : i;
        FR_TRY(check_gpu(d, "-dev", gpu, err));
        for (int j = 0; j < i; j++)
            if (d->gpus[j] == 1 + gpu)
                return fr_fail(err, FR_EINVAL, "-dev: found CUDA%d twice, expected it once", gpu);
        d->gpus[i] = 1 + gpu;
    }
    d->n_gpus = n;
    if (o->split_mode == FR_SPLIT_NONE && n > 0) {
        if (o->main_gpu < 0 || o->main_gpu >= n)
            return fr_fail(err, FR_EINVAL, "-mg: found %d, expected 0 to %d, a GPU in use",
                           o->main_gpu, n - 1);
        d->gpus[0] = d->gpus[o->main_gpu];
        d->n_gpus = 1;
    }
    d->usable = 1u << FR_PLAN_CPU;
    for (int i = 0; i < d->n_gpus; i++)
        d->usable |= 1u << d->gpus[i];
    return FR_OK;
}

/* ---- layers (-ngl, -ts, -sm) -------------------------------------------------------------------
 */

/* The GPU of the part [at, at + 1) / n of the layers: shares are laid side by side. */
static int gpu_of_part(const plan_draft *d, const double *share, double at)
{
    double sum = 0, end = 0;
    for (int i = 0; i < d->n_gpus; i++)
        sum += share[i];
    for (int i = 0; i < d->n_gpus; i++) {
        end += share[i];
        if (at < end / sum)
            return d->gpus[i];
    }
    return d->gpus[d->n_gpus - 1];
}

static fr_status read_shares(const plan_draft *d, double share[FR_MAX_GPUS], fr_err *err)
{
    double sum = 0;
    if (d->o.n_split > d->n_gpus && d->o.split_mode == FR_SPLIT_LAYER)
        return fr_fail(err, FR_EINVAL,
                       "-ts: found %d shares, expected at most %d, one for each GPU", d->o.n_split,
                       d->n_gpus);
    for (int i = 0; i < d->n_gpus; i++) {
        const fr_gpu_hw *gpu = &d->hw->gpus[d->gpus[i] - 1];
        share[i] =
            (double)(gpu->vram_bytes > gpu->reserve_bytes ? gpu->vram_bytes - gpu->reserve_bytes
                                                          : 1);
        if (d->o.n_split > 0)
            share[i] = i < d->o.n_split ? d->o.split[i] : 0;
        if (!(share[i] >= 0))
            return fr_fail(err, FR_EINVAL, "-ts: found the share %g, expected 0 or more", share[i]);
        sum += share[i];
    }
    if (sum > 0)
        return FR_OK;
    return fr_fail(err, FR_EINVAL, "-ts: found shares of 0 only, expected one above 0");
}

static const char *split_text(const plan_draft *d)
{
    if (d->o.split_mode == FR_SPLIT_NONE)
        return "-sm none: the one GPU in use";
    return d->o.n_split > 0 ? "-ts: its share of the layers"
                            : "layers are split by the memory of the GPUs";
}

/* home[il] of layers on a GPU that an option or --fit off names; others stay open. */
static fr_status place_layers(plan_draft *d, fr_err *err)
{
    int n_layer = (int)d->m->hp.n_layer;
    double share[FR_MAX_GPUS];
    int64_t ngl = d->o.n_gpu_layers < 0 ? n_layer + 1 : d->o.n_gpu_layers;
    int64_t first = ngl < n_layer ? n_layer - ngl : 0, n = ngl < n_layer + 1 ? ngl : n_layer + 1;
    bool named = !d->o.fit || d->o.n_split > 0;
    if (d->n_gpus > 0)
        FR_TRY(read_shares(d, share, err));
    for (int il = 0; il <= n_layer; il++) {
        bool on_gpu = d->n_gpus > 0 && il >= first && (il < n_layer || ngl > n_layer);
        d->home[il] = PLAN_OPEN;
        if (!on_gpu) {
            d->home[il] = FR_PLAN_CPU;
            d->home_why[il] = d->n_gpus == 0 ? "no GPU is in use"
                              : il == n_layer
                                  ? "-ngl: the output is on a GPU only when N exceeds the layers"
                                  : "-ngl: not among the last N layers";
        } else if (named) {
            d->home[il] = gpu_of_part(d, share, (double)(il - first) / (double)n);
            d->home_why[il] = split_text(d);
        }
    }
    return FR_OK;
}

/* ---- pieces ------------------------------------------------------------------------------------
 */

typedef struct {
    plan_draft *d;
    fr_rule_pieces found;
    const char **rule_why; /* [n_rules], made when first wanted */
    size_t cap;
} cutter;

static fr_status add_piece(cutter *c, plan_piece p, fr_err *err)
{
    plan_draft *d = c->d;
    if ((size_t)d->n_pieces == c->cap) {
        /* Arena memory cannot grow: a larger copy takes over, the total stays below twice. */
        size_t cap = c->cap ? 2 * c->cap : (size_t)d->m->n_weights + 64;
        plan_piece *more = FR_ARENA_NEW(plan_piece, &d->arena, cap, err);
        if (!more)
            return FR_ENOMEM;
        if (d->n_pieces > 0)
            memcpy(more, d->pieces, (size_t)d->n_pieces * sizeof *more);
        d->pieces = more;
        c->cap = cap;
    }
    p.bytes = plan_weight_bytes(d->m, p.weight, p.from, p.to, p.layout);
    d->pieces[d->n_pieces++] = p;
    return FR_OK;
}

static fr_status why_of_rule(cutter *c, int rule, const char **out, fr_err *err)
{
    if (!c->rule_why[rule]) {
        fr_buf text = {0};
        fr_status st = fr_rule_describe(fr_rules_at(c->d->rules, (size_t)rule), &text, err);
        if (st == FR_OK && !(c->rule_why[rule] = text_of(c->d, text.p, err)))
            st = FR_ENOMEM;
        fr_buf_free(&text);
        FR_TRY(st);
    }
    *out = c->rule_why[rule];
    return FR_OK;
}

static bool gpu_in_use(const plan_draft *d, int gpu)
{
    for (int i = 0; i < d->o.n_gpus; i++)
        if (d->o.gpus[i] == gpu)
            return true;
    return d->o.n_gpus == 0;
}

/* A piece that a rule takes. */
static fr_status apply_rule(cutter *c, plan_piece *p, fr_err *err)
{
    plan_draft *d = c->d;
    const fr_target *t = &fr_rules_at(d->rules, (size_t)p->rule)->target;
    FR_TRY(why_of_rule(c, p->rule, &p->why, err));
    p->layout = plan_weight_layout(d->m, p->weight, t->layout);
    switch (t->kind) {
    case FR_TARGET_CPU:
        p->device = FR_PLAN_CPU;
        return FR_OK;
    case FR_TARGET_NUMA:
        p->device = FR_PLAN_CPU;
        p->numa = t->index;
        return FR_OK;
    case FR_TARGET_GPU:
        if (!gpu_in_use(d, t->index))
            return fr_fail(err, FR_EINVAL, "%s: CUDA%d is not among the GPUs of -dev", p->why,
                           t->index);
        p->device = 1 + t->index;
        return FR_OK;
    case FR_TARGET_ANY_GPU:
        if (d->n_gpus == 0)
            return fr_fail(err, FR_EINVAL, "%s: no GPU is in use", p->why);
        return FR_OK;
    }
    return FR_OK;
}

/* A piece that no rule takes. */
static void apply_layer(const plan_draft *d, plan_piece *p)
{
    const fr_model_weight *w = &d->m->weights[p->weight];
    int row = w->layer < 0 ? (int)d->m->hp.n_layer : w->layer;
    bool expert = plan_role_is_expert(w->role);
    if (w->role == FR_ROLE_TOKEN_EMBD) {
        p->device = FR_PLAN_CPU;
        p->why = "the embedding is read row by row: a GPU would not gain by it";
    } else if (d->home[row] != PLAN_OPEN && !(expert && d->o.fit && d->home[row] != FR_PLAN_CPU)) {
        p->device = d->home[row];
        p->why = d->home_why[row];
    }
}

/* A derived weight goes where its source went (its first piece). */
static void apply_source(const plan_draft *d, plan_piece *p)
{
    int from = d->m->weights[p->weight].from;
    for (int i = d->n_pieces - 1; i >= 0; i--)
        if (d->pieces[i].weight == from && d->pieces[i].from == 0) {
            p->device = d->pieces[i].device;
            p->numa = d->pieces[i].numa;
            p->rule = d->pieces[i].rule;
            p->why = "made at load, beside the tensor that it comes from";
            return;
        }
}

static fr_status cut_weight(cutter *c, int i, fr_err *err)
{
    plan_draft *d = c->d;
    const fr_model_weight *w = &d->m->weights[i];
    plan_piece p = {.weight = i,
                    .to = w->shape.n_mat - 1,
                    .rule = -1,
                    .device = PLAN_OPEN,
                    .numa = -1,
                    .layout = plan_weight_layout(d->m, i, -1)};
    if (w->from >= 0) {
        apply_source(d, &p);
        return add_piece(c, p, err);
    }
    int64_t n_experts = plan_role_is_expert(w->role) ? w->shape.n_mat : 1;
    size_t failed;
    FR_TRY(plan_rules_apply(d->rules, d->skip, w->name, n_experts, &c->found, &failed, err));
    for (size_t k = 0; k < c->found.n; k++) {
        plan_piece part = p;
        part.rule = c->found.items[k].rule;
        if (n_experts > 1) {
            part.from = c->found.items[k].expert_from;
            part.to = c->found.items[k].expert_to;
        }
        if (part.rule >= 0)
            FR_TRY(apply_rule(c, &part, err));
        else
            apply_layer(d, &part);
        FR_TRY(add_piece(c, part, err));
    }
    return FR_OK;
}

static fr_status cut(plan_draft *d, fr_err *err)
{
    cutter c = {.d = d};
    fr_status st = FR_ENOMEM;
    c.rule_why = FR_ARENA_NEW(const char *, &d->arena, fr_rules_count(d->rules) + 1, err);
    if (!c.rule_why)
        goto out;
    for (int i = 0; i < d->m->n_weights; i++)
        FR_TRY_OUT(st, cut_weight(&c, i, err));
    st = FR_OK;
out:
    fr_rule_pieces_free(&c.found);
    return st;
}

/* ---- items -------------------------------------------------------------------------------------
 */

static fr_item_kind kind_of(const fr_model_weight *w)
{
    if (plan_role_is_expert(w->role))
        return FR_ITEM_EXPERTS;
    if (w->role == FR_ROLE_TOKEN_EMBD)
        return FR_ITEM_EMBED;
    return w->layer < 0 ? FR_ITEM_OUTPUT : FR_ITEM_DENSE;
}

/* The item of a kind and layer that binds its units as `allowed` says (0 for settled pieces, which
 * any item of the kind takes), made when there is none. */
static int item_for(plan_draft *d, fr_item_kind kind, int layer, uint32_t allowed)
{
    for (int i = d->n_items - 1; i >= 0; i--) { /* the last ones are of this layer */
        fr_item *it = &d->items[i];
        if (it->kind != kind || it->layer != layer)
            continue;
        if (it->allowed == 0)
            it->allowed = allowed;
        if (allowed == 0 || it->allowed == allowed)
            return i;
        if (kind != FR_ITEM_EXPERTS) {
            it->allowed &= allowed; /* a part that is bound binds the others of a dense part */
            return i;
        }
    }
    d->items[d->n_items] =
        (fr_item){.kind = kind, .layer = layer, .allowed = allowed, .fixed_device = PLAN_OPEN};
    return d->n_items++;
}

/* Bytes go to what is settled, or to what is open. */
static void add_to_item(plan_draft *d, plan_piece *p)
{
    const fr_model_weight *w = &d->m->weights[p->weight];
    uint32_t allowed = 0;
    if (p->device == PLAN_OPEN)
        allowed = p->rule >= 0 ? d->usable & ~(1u << FR_PLAN_CPU) : d->usable;
    p->item = item_for(d, kind_of(w), w->layer, allowed);
    fr_item *it = &d->items[p->item];
    if (p->device != PLAN_OPEN) {
        it->fixed_bytes[p->device] += p->bytes;
        d->settled[p->device] += p->bytes;
        return;
    }
    d->item_weights[p->item] += p->bytes;
    int64_t units = it->kind == FR_ITEM_EXPERTS ? p->to - p->from + 1 : 1;
    it->n_units = units > it->n_units ? units : it->n_units;
}

/* Slices leave several pieces of one tensor open: their experts count together. */
static void count_units(plan_draft *d)
{
    for (int i = 0; i < d->n_pieces; i++) {
        int64_t open = 0;
        const plan_piece *p = &d->pieces[i];
        for (int k = i; k < d->n_pieces && d->pieces[k].weight == p->weight; k++)
            if (d->pieces[k].device == PLAN_OPEN && d->pieces[k].item == p->item)
                open += d->pieces[k].to - d->pieces[k].from + 1;
        fr_item *it = &d->items[p->item];
        if (it->kind == FR_ITEM_EXPERTS && open > it->n_units)
            it->n_units = open;
    }
}

/* Where rules settled all of an item (or the layer options did). */
static void find_fixed(plan_draft *d, int i)
{
    fr_item *it = &d->items[i];
    if (d->item_weights[i] > 0)
        return;
    it->n_units = 0;
    uint64_t most = 0;
    for (int dev = 0; dev < d->n_devices; dev++)
        if (it->fixed_bytes[dev] > most) {
            most = it->fixed_bytes[dev];
            it->fixed_device = dev;
        }
    it->allowed = it->fixed_device >= 0 ? 1u << it->fixed_device : 1u << FR_PLAN_CPU;
}

/* The attention of a layer is computed where most of its weights are. */
static void find_attention(plan_draft *d, int layer)
{
    uint64_t at[FR_PLAN_MAX_DEVICES] = {0}, open = 0, all = 0;
    for (int i = 0; i < d->n_pieces; i++) {
        const plan_piece *p = &d->pieces[i];
        const fr_model_weight *w = &d->m->weights[p->weight];
        if (w->layer != layer || !plan_role_is_attention(w->role))
            continue;
        *(p->device == PLAN_OPEN ? &open : &at[p->device]) += p->bytes;
        all += p->bytes;
    }
    int *home = &d->attn_home[layer];
    *home = open * 2 >= all && open > 0 ? PLAN_OPEN : FR_PLAN_CPU;
    for (int dev = 0; *home != PLAN_OPEN && dev < d->n_devices; dev++)
        if (at[dev] > at[*home])
            *home = dev;
}

static fr_status make_items(plan_draft *d, fr_err *err)
{
    int n_layer = (int)d->m->hp.n_layer;
    size_t most = (size_t)n_layer * 3 + 2;
    d->items = FR_ARENA_NEW(fr_item, &d->arena, most, err);
    d->item_weights = FR_ARENA_NEW(uint64_t, &d->arena, most, err);
    d->units = fr_arena_alloc(&d->arena, most, sizeof *d->units, err);
    d->dense_item = FR_ARENA_NEW(int, &d->arena, (size_t)n_layer, err);
    d->attn_home = FR_ARENA_NEW(int, &d->arena, (size_t)n_layer, err);
    d->settled = FR_ARENA_NEW(uint64_t, &d->arena, (size_t)d->n_devices, err);
    if (!d->items || !d->item_weights || !d->units || !d->dense_item || !d->attn_home ||
        !d->settled)
        return FR_ENOMEM;
    for (int i = 0; i < d->n_pieces; i++)
        add_to_item(d, &d->pieces[i]);
    count_units(d);
    for (int i = 0; i < d->n_items; i++) {
        find_fixed(d, i);
        if (d->items[i].kind == FR_ITEM_DENSE)
            d->dense_item[d->items[i].layer] = i;
    }
    for (int il = 0; il < n_layer; il++)
        find_attention(d, il);
    return FR_OK;
}

/* ---- the draft ---------------------------------------------------------------------------------
 */

static void name_devices(plan_draft *d)
{
    for (int i = 0; i < d->n_devices; i++) {
        fr_plan_device *dev = &d->devices[i];
        if (i == FR_PLAN_CPU) {
            snprintf(dev->id, sizeof dev->id, "CPU");
            snprintf(dev->name, sizeof dev->name, "%s",
                     d->hw->cpu_name[0] ? d->hw->cpu_name : "RAM");
            dev->budget = d->hw->ram_bytes;
            continue;
        }
        snprintf(dev->id, sizeof dev->id, "CUDA%d", i - 1);
        snprintf(dev->name, sizeof dev->name, "%s", d->hw->gpus[i - 1].name);
        dev->budget = d->hw->gpus[i - 1].vram_bytes;
    }
}

fr_status plan_draft_open(const fr_model *m, const fr_hardware *hw, const fr_rules *rules,
                          const bool *skip, const fr_plan_options *o, const plan_passes *passes,
                          plan_draft *d, fr_err *err)
{
    size_t rows = (size_t)m->hp.n_layer + 1;
    *d = (plan_draft){.m = m,
                      .hw = hw,
                      .rules = rules,
                      .skip = skip,
                      .passes = passes,
                      .o = *o,
                      .arena = fr_arena_make(FR_MEM_PLAN),
                      .n_devices = 1 + hw->n_gpus};
    fr_status st = FR_ENOMEM;
    d->home = FR_ARENA_NEW(int, &d->arena, rows, err);
    d->home_why = FR_ARENA_NEW(const char *, &d->arena, rows, err);
    if (!d->home || !d->home_why)
        goto out;
    name_devices(d);
    FR_TRY_OUT(st, choose_gpus(d, err));
    FR_TRY_OUT(st, place_layers(d, err));
    FR_TRY_OUT(st, cut(d, err));
    FR_TRY_OUT(st, make_items(d, err));
    return FR_OK;
out:
    plan_draft_close(d);
    return st;
}

void plan_draft_close(plan_draft *d)
{
    fr_arena_free(&d->arena);
}
