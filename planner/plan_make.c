#include "planner/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/plan_internal.h"

enum { DEFAULT_MARGIN = 1 << 30, MAX_UBATCH = 1 << 20, MAX_SEQ = 1 << 20 };

fr_plan_options fr_plan_defaults(void)
{
    fr_plan_options o = {.n_ubatch = 512,
                         .n_seq = 1,
                         .n_outputs = 1,
                         .type_k = FR_TYPE_F16,
                         .type_v = FR_TYPE_F16,
                         .kv_window = FR_KV_WINDOW,
                         .expand_bytes = 256u << 20,
                         .n_gpu_layers = -1,
                         .fit = true};
    for (int i = 0; i < FR_MAX_GPUS; i++)
        o.margin_bytes[i] = DEFAULT_MARGIN;
    return o;
}

/* ---- checking ----------------------------------------------------------------------------------
 */

static fr_status check_range(const char *what, int64_t found, int64_t low, int64_t high,
                             fr_err *err)
{
    if (found >= low && found <= high)
        return FR_OK;
    return fr_fail(err, FR_ERANGE, "%s: found %lld, expected %lld to %lld", what, (long long)found,
                   (long long)low, (long long)high);
}

static fr_status check_options(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                               fr_err *err)
{
    fr_kv_layout l;
    FR_TRY(check_range("context", o->n_ctx, 0, INT32_MAX, err));
    FR_TRY(check_range("ubatch", o->n_ubatch, 1, MAX_UBATCH, err));
    FR_TRY(check_range("sequences", o->n_seq, 1, MAX_SEQ, err));
    FR_TRY(check_range("rows of logits", o->n_outputs, 1, MAX_UBATCH, err));
    FR_TRY(check_range("GPUs", hw->n_gpus, 0, FR_MAX_GPUS, err));
    FR_TRY(check_range("GPUs of -dev", o->n_gpus, 0, FR_MAX_GPUS, err));
    FR_TRY(check_range("shares of -ts", o->n_split, 0, FR_MAX_GPUS, err));
    return fr_kv_layout_make(m, o->type_k, o->type_v, o->kv_window, &l, err);
}

static int64_t experts_of(const fr_model *m, const fr_gguf_tensor *t)
{
    int layer;
    fr_role role;
    bool stack = fr_tensor_name_parse(t->name, &layer, &role) && plan_role_is_expert(role);
    return stack ? m->hp.n_expert : 1;
}

static fr_status check_rules(const fr_model *m, const fr_hardware *hw, const fr_rules *rules,
                             const fr_plan_options *o, fr_diagnostics *found, fr_err *err)
{
    size_t n = fr_gguf_n_tensors(m->gguf);
    fr_arena arena = fr_arena_make(FR_MEM_PLAN);
    fr_status st = FR_ENOMEM;
    const char **names = FR_ARENA_NEW(const char *, &arena, n, err);
    int64_t *n_experts = FR_ARENA_NEW(int64_t, &arena, n, err);
    if (!names || !n_experts)
        goto out;
    for (size_t i = 0; i < n; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(m->gguf, i);
        names[i] = t->name;
        n_experts[i] = experts_of(m, t);
    }
    fr_rules_check_args args = {names, n_experts, n, hw->n_gpus, hw->n_numa, o->strictness};
    st = fr_rules_check(rules, &args, found, err);
    for (size_t i = 0; st == FR_OK && i < found->n; i++)
        if (found->items[i].severity == FR_ERROR)
            st = fr_fail(err, FR_EINVAL, "%s", found->items[i].text);
out:
    fr_arena_free(&arena);
    return st;
}

/* ---- notes -------------------------------------------------------------------------------------
 */

static fr_status note_layers(const plan_draft *d, fr_diagnostics *notes, fr_err *err)
{
    int n = 0, first = -1, last = -1;
    for (int il = 0; il < d->m->hp.n_layer; il++)
        if (d->home[il] == PLAN_OPEN && d->attn_home[il] == PLAN_OPEN &&
            plan_draft_attention(d, il) == FR_PLAN_CPU) {
            n++;
            last = il;
            first = first < 0 ? il : first;
        }
    if (n == 0)
        return FR_OK;
    return fr_diagnostics_add(notes, FR_WARNING, -1, err,
                              "the attention of %d layers (%d to %d) does not fit on the GPUs and "
                              "runs on the CPU, which costs much speed; a shorter context (-c), a "
                              "smaller cache (-ctk q8_0) or a smaller -ub makes room",
                              n, first, last);
}

static fr_status note_devices(const plan_draft *d, fr_diagnostics *notes, fr_err *err)
{
    bool experts_in_ram = false;
    for (int i = 0; i < d->n_items; i++)
        experts_in_ram = experts_in_ram || (d->items[i].kind == FR_ITEM_EXPERTS &&
                                            (d->items[i].fixed_bytes[0] > 0 || d->units[i][0] > 0));
    for (int dev = 1; dev < d->n_devices; dev++) {
        const fr_plan_device *v = &d->devices[dev];
        bool used = v->weights > 0 || v->kv > 0;
        char size[32];
        if (used && experts_in_ram && v->staging == 0 && d->o.n_ubatch >= PLAN_MIN_STREAM)
            FR_TRY(fr_diagnostics_add(
                notes, FR_WARNING, -1, err,
                "%s: no room for staging buffers (two experts take %s), so prompts cannot stream "
                "experts from RAM through it; their experts are computed on the CPU",
                v->id, fr_format_bytes(plan_staging_bytes(d->m, 1), size)));
        if (used && d->o.fit && v->free < d->o.margin_bytes[dev - 1])
            FR_TRY(fr_diagnostics_add(notes, FR_NOTE, -1, err,
                                      "%s: %s stay free, less than the margin of --fit-margin: "
                                      "rules and layer options put more there",
                                      v->id, fr_format_bytes(v->free, size)));
    }
    return FR_OK;
}

/* VRAM that a rule leaves idle: the rule that keeps most experts in RAM. */
static fr_status note_idle(const plan_draft *d, fr_diagnostics *notes, fr_err *err)
{
    uint64_t idle = 0, most = 0;
    const char *why = NULL;
    char room[32], bytes[32];
    for (int g = 0; g < d->n_gpus; g++) {
        const fr_plan_device *v = &d->devices[d->gpus[g]];
        uint64_t margin = d->o.margin_bytes[d->gpus[g] - 1];
        idle += v->free > margin ? v->free - margin : 0;
    }
    for (int r = 0; r < (int)fr_rules_count(d->rules); r++) {
        uint64_t here = 0;
        const char *name = NULL;
        for (int i = 0; i < d->n_pieces; i++) {
            const plan_piece *p = &d->pieces[i];
            if (p->rule != r || p->device != FR_PLAN_CPU ||
                d->items[p->item].kind != FR_ITEM_EXPERTS)
                continue;
            here += p->bytes;
            name = p->why;
        }
        if (here > most) {
            most = here;
            why = name;
        }
    }
    if (!d->o.fit || !why || idle < (uint64_t)1 << 30)
        return FR_OK;
    return fr_diagnostics_add(notes, FR_NOTE, -1, err,
                              "%s of VRAM stay idle, while %s keeps %s of experts in RAM; without "
                              "it --fit would use that room",
                              fr_format_bytes(idle, room), why, fr_format_bytes(most, bytes));
}

static fr_status note_numa(const plan_draft *d, fr_diagnostics *notes, fr_err *err)
{
    for (int node = 0; node < d->hw->n_numa; node++) {
        uint64_t bytes = 0, has = d->hw->numa[node].bytes;
        char need[32], have[32];
        for (int i = 0; i < d->n_pieces; i++)
            bytes += d->pieces[i].numa == node ? d->pieces[i].bytes : 0;
        if (has > 0 && bytes > has)
            FR_TRY(fr_diagnostics_add(notes, FR_WARNING, -1, err,
                                      "NUMA%d: rules put %s there, but it has %s; the rest lands "
                                      "on other nodes",
                                      node, fr_format_bytes(bytes, need),
                                      fr_format_bytes(has, have)));
    }
    return FR_OK;
}

/* What was found by search promises nothing about larger machines. */
static fr_status note_search(const plan_draft *d, fr_diagnostics *notes, fr_err *err)
{
    if (d->search_gain > 0)
        return fr_diagnostics_add(notes, FR_NOTE, -1, err,
                                  "a search finds a placement that takes %.1f %% less time by this "
                                  "prediction; --fit-search takes it, but with more memory such a "
                                  "plan may be predicted to be slower",
                                  100 * d->search_gain);
    if (!d->last_resort)
        return FR_OK;
    return fr_diagnostics_add(notes, FR_NOTE, -1, err,
                              "%s; with more memory it may be predicted to be slower",
                              d->o.search ? "the placement was found by a search"
                                          : "memory is so short, or bound by rules, that the "
                                            "placement was found by a search");
}

static fr_status add_notes(const plan_draft *d, fr_diagnostics *notes, fr_err *err)
{
    if (d->o.n_ctx > d->m->hp.n_ctx_train)
        FR_TRY(fr_diagnostics_add(notes, FR_WARNING, -1, err,
                                  "context: %lld tokens, but the model was trained for %lld",
                                  (long long)d->o.n_ctx, (long long)d->m->hp.n_ctx_train));
    FR_TRY(note_layers(d, notes, err));
    FR_TRY(note_devices(d, notes, err));
    FR_TRY(note_idle(d, notes, err));
    FR_TRY(note_search(d, notes, err));
    return note_numa(d, notes, err);
}

/* ---- writing down ------------------------------------------------------------------------------
 */

static const char *why_open(const plan_draft *d, const plan_piece *p, int dev)
{
    const fr_item *it = &d->items[p->item];
    if (p->why) /* CUDA* */
        return p->why;
    if (it->kind != FR_ITEM_EXPERTS)
        return dev != FR_PLAN_CPU ? "--fit: every token needs it, so it is on a GPU"
                                  : "--fit: no GPU has room for it";
    return dev != FR_PLAN_CPU ? "--fit: fills what memory is left on the GPU"
                              : "--fit: few tokens need each expert, so RAM holds what the GPUs "
                                "have no room for";
}

/* The placements of a piece: one for each run of experts on one device. With out == NULL they are
 * only counted. */
static int write_piece(const plan_draft *d, const plan_piece *p, fr_placement *out)
{
    int n = 0;
    int64_t to;
    for (int64_t from = p->from; from <= p->to; from = to + 1, n++) {
        int dev = p->device != PLAN_OPEN ? p->device : plan_draft_expert(d, p, from);
        bool whole = p->device != PLAN_OPEN || d->items[p->item].kind != FR_ITEM_EXPERTS;
        to = whole ? p->to : from;
        while (to < p->to && plan_draft_expert(d, p, to + 1) == dev)
            to++;
        if (!out)
            continue;
        out[n] = (fr_placement){.tensor = p->weight,
                                .device = dev,
                                .numa = p->numa,
                                .expert_from = from,
                                .expert_to = to,
                                .layout = p->layout,
                                .bytes = plan_weight_bytes(d->m, p->weight, from, to, p->layout),
                                .rule = p->rule,
                                .why = p->device != PLAN_OPEN ? p->why : why_open(d, p, dev)};
    }
    return n;
}

static fr_status write_placements(const plan_draft *d, fr_plan *p, fr_err *err)
{
    int n = 0;
    for (int i = 0; i < d->n_pieces; i++)
        n += write_piece(d, &d->pieces[i], NULL);
    p->placements = FR_ARENA_NEW(fr_placement, &p->arena, (size_t)n, err);
    if (!p->placements)
        return FR_ENOMEM;
    for (int i = 0; i < d->n_pieces; i++)
        p->n_placements += write_piece(d, &d->pieces[i], p->placements + p->n_placements);
    return FR_OK;
}

/* The exact sums: slices are rounded up one by one. */
static void write_devices(const plan_draft *d, fr_plan *p)
{
    p->n_devices = d->n_devices;
    memcpy(p->devices, d->devices, sizeof p->devices);
    for (int dev = 0; dev < p->n_devices; dev++) {
        fr_plan_device *v = &p->devices[dev];
        v->used -= v->weights;
        v->weights = 0;
    }
    for (int i = 0; i < p->n_placements; i++)
        p->devices[p->placements[i].device].weights += p->placements[i].bytes;
    for (int dev = 0; dev < p->n_devices; dev++) {
        fr_plan_device *v = &p->devices[dev];
        v->used += v->weights;
        v->free = v->budget > v->used ? v->budget - v->used : 0;
        p->kv_bytes += v->kv;
        p->workspace_bytes += v->workspace;
    }
    p->total_bytes = p->model->file_bytes;
}

static int output_device(const fr_plan *p)
{
    int w = fr_model_weight_of(p->model, -1, FR_ROLE_OUTPUT);
    if (w < 0)
        w = fr_model_weight_of(p->model, -1, FR_ROLE_TOKEN_EMBD);
    for (int i = 0; i < p->n_placements; i++)
        if (p->placements[i].tensor == w)
            return p->placements[i].device;
    return FR_PLAN_CPU;
}

static fr_status predict(fr_plan *p, fr_err *err)
{
    const fr_model *m = p->model;
    fr_assignment a = {.n_devices = p->n_devices,
                       .n_layer = m->hp.n_layer,
                       .dense_device = p->attention_device,
                       .output_device = output_device(p)};
    a.expert_share = fr_arena_alloc(&p->arena, (size_t)m->hp.n_layer, sizeof *a.expert_share, err);
    if (!a.expert_share)
        return FR_ENOMEM;
    for (int i = 0; i < p->n_placements; i++) {
        const fr_model_weight *w = &m->weights[p->placements[i].tensor];
        if (plan_role_is_expert(w->role))
            a.expert_share[w->layer][p->placements[i].device] += (double)p->placements[i].bytes;
    }
    for (int il = 0; il < m->hp.n_layer; il++) {
        double all = 0;
        for (int dev = 0; dev < p->n_devices; dev++)
            all += a.expert_share[il][dev];
        for (int dev = 0; all > 0 && dev < p->n_devices; dev++)
            a.expert_share[il][dev] /= all;
    }
    plan_predictions t = plan_predict(m, &p->hw, &p->opts, &a);
    memcpy(p->prefill, t.prefill, sizeof p->prefill);
    memcpy(p->decode, t.decode, sizeof p->decode);
    p->n_prefill = t.n_prefill;
    p->n_decode = t.n_decode;
    return FR_OK;
}

/* Whether each expert of a layer has its three matrices on one device. Placements of a weight are
 * sorted by expert. */
static bool is_apart(const fr_plan *p, int layer)
{
    static const fr_role roles[] = {FR_ROLE_FFN_GATE_EXPS, FR_ROLE_FFN_UP_EXPS,
                                    FR_ROLE_FFN_DOWN_EXPS};
    const fr_placement *at[3] = {NULL, NULL, NULL};
    for (int i = 0; i < p->n_placements; i++)
        for (int r = 0; r < 3; r++)
            if (!at[r] && p->placements[i].tensor == fr_model_weight_of(p->model, layer, roles[r]))
                at[r] = &p->placements[i];
    if (!at[0] || !at[1] || !at[2])
        return false;
    for (int64_t e = 0; e < p->model->hp.n_expert; e++) {
        for (int r = 0; r < 3; r++)
            while (at[r]->expert_to < e)
                at[r]++;
        if (at[0]->device != at[1]->device || at[0]->device != at[2]->device)
            return true;
    }
    return false;
}

static int device_of(const fr_plan *p, int layer, fr_role role)
{
    int w = fr_model_weight_of(p->model, layer, role);
    for (int i = 0; w >= 0 && i < p->n_placements; i++)
        if (p->placements[i].tensor == w)
            return p->placements[i].device;
    return -1;
}

static bool is_direct(const fr_plan *p, int layer)
{
    static const fr_role roles[] = {FR_ROLE_ATTN_KV_B, FR_ROLE_ATTN_K_UP, FR_ROLE_ATTN_V_B};
    for (size_t r = 0; r < sizeof roles / sizeof *roles; r++) {
        int device = device_of(p, layer, roles[r]);
        if (device >= 0 && device != p->kv_device[layer])
            return true;
    }
    return false;
}

static fr_status write_passes(fr_plan *p, fr_err *err)
{
    p->apart = FR_ARENA_NEW(bool, &p->arena, (size_t)p->model->hp.n_layer, err);
    if (!p->apart)
        return FR_ENOMEM;
    for (int il = 0; il < p->model->hp.n_layer; il++) {
        p->apart[il] = is_apart(p, il);
        p->any_apart = p->any_apart || p->apart[il];
        p->direct_only = p->direct_only || is_direct(p, il);
    }
    return FR_OK;
}

/* Texts of placements live in the draft's arena, which becomes the plan's. */
static fr_status write_plan(plan_draft *d, fr_plan *p, fr_err *err)
{
    p->arena = d->arena;
    d->arena = fr_arena_make(FR_MEM_PLAN);
    p->model = d->m;
    p->hw = *d->hw;
    p->opts = d->o;
    p->rules = d->rules;
    p->kv_device = FR_ARENA_NEW(int, &p->arena, (size_t)d->m->hp.n_layer, err);
    p->attention_device = FR_ARENA_NEW(int, &p->arena, (size_t)d->m->hp.n_layer, err);
    if (!p->kv_device || !p->attention_device)
        return FR_ENOMEM;
    for (int il = 0; il < d->m->hp.n_layer; il++) {
        p->kv_device[il] = plan_draft_kv(d, il);
        p->attention_device[il] = plan_draft_attention(d, il);
    }
    FR_TRY(write_placements(d, p, err));
    write_devices(d, p);
    FR_TRY(write_passes(p, err));
    FR_TRY(predict(p, err));
    return add_notes(d, &p->notes, err);
}

/* ---- making ------------------------------------------------------------------------------------
 */

static fr_status settle_sizes(plan_draft *d, int64_t n_ctx, int64_t n_ubatch, fr_err *err)
{
    d->o.n_ubatch = n_ubatch;
    if (n_ctx == 0) {
        if (plan_fit_context(d, d->m->hp.n_ctx_train * d->o.n_seq) > 0)
            return FR_OK;
        return plan_fit_explain(d, err); /* of the shortest context */
    }
    plan_draft_size(d, n_ctx, n_ubatch);
    plan_draft_fill(d);
    return FR_OK;
}

static fr_status make_with(fr_plan *p, const fr_model *m, const fr_hardware *hw,
                           const fr_rules *rules, const fr_plan_options *o,
                           const plan_passes *passes, fr_err *err)
{
    plan_draft d;
    FR_TRY(plan_draft_open(m, hw, rules, NULL, o, passes, &d, err));
    fr_status st = settle_sizes(&d, o->n_ctx, o->n_ubatch, err);
    if (st == FR_OK)
        st = plan_draft_solve(&d, err);
    if (st == FR_OK && !d.fits)
        st = plan_fit_explain(&d, err);
    if (st == FR_OK)
        st = write_plan(&d, p, err);
    plan_draft_close(&d);
    return st;
}

/* One plan for passes of which all layers are apart, or none; *p is as it was on entry. */
static fr_status make_for(fr_plan *p, const fr_model *m, const fr_hardware *hw,
                          const fr_rules *rules, const fr_plan_options *o, bool any_apart,
                          bool direct_only, fr_err *err)
{
    plan_passes passes;
    bool *apart = FR_NEW(bool, FR_MEM_PLAN, (size_t)m->hp.n_layer, err);
    if (!apart)
        return FR_ENOMEM;
    for (int il = 0; il < m->hp.n_layer; il++)
        apart[il] = any_apart;
    fr_status st = plan_passes_open(m, apart, direct_only, &passes, err);
    fr_mem_free(apart);
    FR_TRY(st);
    p->any_apart = any_apart;
    p->direct_only = direct_only;
    st = make_with(p, m, hw, rules, o, &passes, err);
    plan_passes_close(&passes);
    return st;
}

/* Rules that tear apart what belongs together change the passes, whose buffers then are larger.
 * That is seen in a plan, so another one is made for those passes; two things can change, once
 * each. */
static fr_status make(fr_plan *p, const fr_model *m, const fr_hardware *hw, const fr_rules *rules,
                      const fr_plan_options *opts, fr_err *err)
{
    fr_plan_options o = *opts;
    size_t n_notes = p->notes.n;
    bool any_apart = false, direct_only = false;
    if (o.n_threads <= 0)
        o.n_threads = hw->n_cores;
    FR_TRY(make_for(p, m, hw, rules, &o, any_apart, direct_only, err));
    while (p->any_apart != any_apart || p->direct_only != direct_only) {
        any_apart = p->any_apart;
        direct_only = p->direct_only;
        fr_arena_free(&p->arena);
        *p = (fr_plan){.notes = p->notes};
        fr_diagnostics_cut(&p->notes, n_notes);
        FR_TRY(make_for(p, m, hw, rules, &o, any_apart, direct_only, err));
    }
    return FR_OK;
}

fr_status fr_plan_make(const fr_model *m, const fr_hardware *hw, const fr_rules *rules,
                       const fr_plan_options *opts, fr_plan **out, fr_diagnostics *diagnostics,
                       fr_err *err)
{
    *out = NULL;
    FR_TRY(check_options(m, hw, opts, err));
    fr_plan *p = FR_NEW(fr_plan, FR_MEM_PLAN, 1, err);
    if (!p)
        return FR_ENOMEM;
    fr_status st = check_rules(m, hw, rules, opts, &p->notes, err);
    if (st == FR_OK)
        st = make(p, m, hw, rules, opts, err);
    if (st == FR_OK) {
        *out = p;
        return FR_OK;
    }
    if (diagnostics) {
        *diagnostics = p->notes;
        p->notes = (fr_diagnostics){0};
    }
    fr_plan_free(p);
    return st;
}

void fr_plan_free(fr_plan *p)
{
    if (!p)
        return;
    fr_diagnostics_free(&p->notes);
    fr_arena_free(&p->arena);
    fr_mem_free(p);
}
