/* A plan as rules again. Most tensors follow one rule for their layer, and most experts one rule
 * for all; only what departs from these gets rules of its own, which come first. */
#include <stdlib.h>
#include <string.h>

#include "planner/plan_internal.h"
#include "planner/print_parts.h"

/* Where something is put, as a rule can say it. */
typedef struct {
    int device, numa;
    int64_t from, to; /* experts, or -1, -1: all */
    int layout;       /* or -1: as ferry would choose anyway */
} place;

/* Tensors of one place in several layers. */
typedef struct {
    place at;
    bool roles[FR_ROLE_COUNT];
    bool *layers; /* [n_layer] */
} group;

typedef struct {
    const fr_plan *p;
    fr_emit_form form;
    fr_arena arena;
    group *groups;
    int n_groups, cap_groups;
    int *home;     /* [n_layer] most of the dense part is there */
    bool *at_home; /* [n_layer] and some of it follows the rule for that */
    place experts; /* most experts are there */
    bool experts_used;
    int n_cut; /* sliced stacks that went whole to one device */
    int n_rules;
    fr_buf *out;
    fr_err *err;
} emitter;

#define SAY(e, ...) fr_buf_printf((e)->out, (e)->err, __VA_ARGS__)

static const char *const role_names[] = {
#define X(ID, name, per_layer) name,
#include "model/roles.def"
#undef X
};

static bool same_place(const place *a, const place *b)
{
    return a->device == b->device && a->numa == b->numa && a->from == b->from && a->to == b->to &&
           a->layout == b->layout;
}

/* ---- gathering ---------------------------------------------------------------------------------
 */

static place place_of(const emitter *e, const fr_placement *at)
{
    const fr_model_weight *w = &e->p->model->weights[at->tensor];
    bool whole = at->expert_from == 0 && at->expert_to == w->shape.n_mat - 1;
    bool usual = at->layout == plan_weight_layout(e->p->model, at->tensor, -1);
    place out = {at->device, -1, -1, -1, -1};
    if (e->form == FR_EMIT_OT)
        return out;
    out.numa = at->numa;
    if (!whole) {
        out.from = at->expert_from;
        out.to = at->expert_to;
    }
    if (!usual)
        out.layout = (int)at->layout;
    return out;
}

/* The device with most of a weight that is cut in slices. */
static const fr_placement *largest(const emitter *e, int from, int to)
{
    uint64_t on[FR_PLAN_MAX_DEVICES] = {0};
    const fr_placement *best = &e->p->placements[from];
    for (int i = from; i < to; i++)
        on[e->p->placements[i].device] += e->p->placements[i].bytes;
    for (int i = from; i < to; i++)
        if (on[e->p->placements[i].device] > on[best->device])
            best = &e->p->placements[i];
    return best;
}

static group *group_for(emitter *e, fr_role role, const place *at)
{
    for (int i = 0; i < e->n_groups; i++)
        if (e->groups[i].roles[role] && same_place(&e->groups[i].at, at))
            return &e->groups[i];
    if (e->n_groups == e->cap_groups) {
        int cap = e->cap_groups ? 2 * e->cap_groups : 32;
        group *more = FR_ARENA_NEW(group, &e->arena, (size_t)cap, e->err);
        if (!more)
            return NULL;
        if (e->n_groups > 0)
            memcpy(more, e->groups, (size_t)e->n_groups * sizeof *more);
        e->groups = more;
        e->cap_groups = cap;
    }
    group *g = &e->groups[e->n_groups];
    *g = (group){.at = *at};
    g->roles[role] = true;
    g->layers = FR_ARENA_NEW(bool, &e->arena, (size_t)e->p->model->hp.n_layer, e->err);
    if (!g->layers)
        return NULL;
    e->n_groups++;
    return g;
}

static fr_status note_place(emitter *e, const fr_model_weight *w, place at)
{
    place usual = {e->home[w->layer], -1, -1, -1, -1}, all = at;
    if (plan_role_is_expert(w->role))
        usual = e->experts;
    all.from = all.to = -1; /* what slices leave over falls to the rule for all */
    if (same_place(&all, &usual)) {
        *(plan_role_is_expert(w->role) ? &e->experts_used : &e->at_home[w->layer]) = true;
        return FR_OK;
    }
    group *g = group_for(e, w->role, &at);
    if (!g)
        return FR_ENOMEM;
    g->layers[w->layer] = true;
    return FR_OK;
}

static fr_status gather(emitter *e)
{
    const fr_model *m = e->p->model;
    for (int i = 0; i < m->n_weights; i++) {
        const fr_model_weight *w = &m->weights[i];
        int from, to;
        if (w->from >= 0 || w->layer < 0)
            continue;
        plan_placements_of(e->p, i, &from, &to);
        if (e->form == FR_EMIT_OT) {
            e->n_cut += to - from > 1;
            FR_TRY(note_place(e, w, place_of(e, largest(e, from, to))));
            continue;
        }
        for (int k = from; k < to; k++)
            FR_TRY(note_place(e, w, place_of(e, &e->p->placements[k])));
    }
    return FR_OK;
}

/* Where most of the layers' dense parts, and most expert stacks, are. */
static fr_status find_homes(emitter *e)
{
    const fr_model *m = e->p->model;
    int stacks[FR_PLAN_MAX_DEVICES] = {0};
    e->home = FR_ARENA_NEW(int, &e->arena, (size_t)m->hp.n_layer, e->err);
    e->at_home = FR_ARENA_NEW(bool, &e->arena, (size_t)m->hp.n_layer, e->err);
    if (!e->home || !e->at_home)
        return FR_ENOMEM;
    for (int il = 0; il < m->hp.n_layer; il++) {
        uint64_t most = 0;
        for (int dev = 0; dev < e->p->n_devices; dev++) {
            uint64_t bytes = plan_layer_bytes(e->p, il, false, dev);
            if (bytes > most) {
                most = bytes;
                e->home[il] = dev;
            }
        }
    }
    for (int i = 0; i < e->p->n_placements; i++)
        if (plan_role_is_expert(m->weights[e->p->placements[i].tensor].role))
            stacks[e->p->placements[i].device]++;
    e->experts = (place){0, -1, -1, -1, -1};
    for (int dev = 1; dev < e->p->n_devices; dev++)
        if (stacks[dev] > stacks[e->experts.device])
            e->experts.device = dev;
    return FR_OK;
}

/* Groups of one place and the same layers become one, of several roles. */
static void merge(emitter *e)
{
    size_t n_layer = (size_t)e->p->model->hp.n_layer;
    for (int i = 0; i < e->n_groups; i++)
        for (int k = i + 1; k < e->n_groups;) {
            group *a = &e->groups[i], *b = &e->groups[k];
            if (!same_place(&a->at, &b->at) ||
                memcmp(a->layers, b->layers, n_layer * sizeof(bool)) != 0) {
                k++;
                continue;
            }
            for (int r = 0; r < FR_ROLE_COUNT; r++)
                a->roles[r] |= b->roles[r];
            *b = e->groups[--e->n_groups];
        }
}

static int first_layer(const group *g)
{
    int il = 0;
    while (!g->layers[il])
        il++;
    return il;
}

static int compare_groups(const void *a, const void *b)
{
    const group *x = a, *y = b;
    int layers = first_layer(x) - first_layer(y);
    if (layers != 0)
        return layers;
    if (x->at.from != y->at.from)
        return x->at.from < y->at.from ? -1 : 1;
    return memcmp(x->roles, y->roles, sizeof x->roles); /* never equal: groups are disjoint */
}

/* ---- rules -------------------------------------------------------------------------------------
 */

static fr_status begin_rule(emitter *e)
{
    bool first = e->n_rules++ == 0;
    if (e->form == FR_EMIT_INI)
        return SAY(e, "override-tensor = ");
    return first ? FR_OK : SAY(e, ",");
}

static fr_status end_rule(emitter *e, const place *at)
{
    if (at->numa >= 0)
        FR_TRY(SAY(e, "=NUMA%d", at->numa));
    else
        FR_TRY(SAY(e, "=%s", e->p->devices[at->device].id));
    if (at->from >= 0)
        FR_TRY(SAY(e, "[%lld-%lld]", (long long)at->from, (long long)at->to));
    if (at->layout >= 0)
        FR_TRY(SAY(e, ",layout=%s", fr_layout_name((fr_layout)at->layout)));
    return e->form == FR_EMIT_INI ? SAY(e, "\n") : FR_OK;
}

/* "blk\.3\.", "blk\.(3|4)\." */
static fr_status say_layers(emitter *e, const bool *layers)
{
    int n = (int)e->p->model->hp.n_layer, count = 0;
    for (int il = 0; il < n; il++)
        count += layers[il];
    if (count == n)
        return SAY(e, "blk\\.[0-9]+\\.");
    const char *sep = count > 1 ? "blk\\.(" : "blk\\.";
    for (int il = 0; il < n; il++)
        if (layers[il]) {
            FR_TRY(SAY(e, "%s%d", sep, il));
            sep = "|";
        }
    return SAY(e, count > 1 ? ")\\." : "\\.");
}

/* "ffn_(gate|up|down)_exps", "attn_output", "(ffn_norm|attn_norm)" */
static fr_status say_roles(emitter *e, const bool *roles)
{
    int count = 0, experts = 0;
    for (int r = 0; r < FR_ROLE_COUNT; r++) {
        count += roles[r];
        experts += roles[r] && plan_role_is_expert((fr_role)r);
    }
    if (experts == 3 && count == 3)
        return SAY(e, "ffn_(gate|up|down)_exps");
    const char *sep = count > 1 ? "(" : "";
    for (int r = 0; r < FR_ROLE_COUNT; r++)
        if (roles[r]) {
            FR_TRY(SAY(e, "%s%.*s", sep, (int)strcspn(role_names[r], "."), role_names[r]));
            sep = "|";
        }
    return count > 1 ? SAY(e, ")") : FR_OK;
}

static fr_status say_group(emitter *e, const group *g)
{
    FR_TRY(begin_rule(e));
    FR_TRY(say_layers(e, g->layers));
    FR_TRY(say_roles(e, g->roles));
    FR_TRY(SAY(e, "\\."));
    return end_rule(e, &g->at);
}

static fr_status say_homes(emitter *e)
{
    int n_layer = (int)e->p->model->hp.n_layer;
    bool *layers = FR_ARENA_NEW(bool, &e->arena, (size_t)n_layer, e->err);
    if (!layers)
        return FR_ENOMEM;
    for (int dev = 0; dev < e->p->n_devices; dev++) {
        bool any = false;
        for (int il = 0; il < n_layer; il++) {
            layers[il] = e->home[il] == dev && e->at_home[il];
            any = any || layers[il];
        }
        if (!any)
            continue;
        FR_TRY(begin_rule(e));
        FR_TRY(say_layers(e, layers));
        FR_TRY(end_rule(e, &(place){dev, -1, -1, -1, -1}));
    }
    return FR_OK;
}

static fr_status say_outside(emitter *e)
{
    const fr_model *m = e->p->model;
    for (int i = 0; i < m->n_weights; i++) {
        const fr_model_weight *w = &m->weights[i];
        int from, to;
        if (w->layer >= 0 || w->from >= 0)
            continue;
        plan_placements_of(e->p, i, &from, &to);
        place at = place_of(e, &e->p->placements[from]);
        FR_TRY(begin_rule(e));
        FR_TRY(SAY(e, "^%.*s\\.", (int)strcspn(w->name, "."), w->name));
        FR_TRY(end_rule(e, &at));
    }
    return FR_OK;
}

static fr_status say_rules(emitter *e)
{
    for (int i = 0; i < e->n_groups; i++)
        FR_TRY(say_group(e, &e->groups[i]));
    if (e->experts_used) {
        FR_TRY(begin_rule(e));
        FR_TRY(SAY(e, "exps"));
        FR_TRY(end_rule(e, &e->experts));
    }
    FR_TRY(say_homes(e));
    return say_outside(e);
}

/* ---- forms -------------------------------------------------------------------------------------
 */

static fr_status say_ot(emitter *e)
{
    if (e->n_cut > 0)
        FR_TRY(SAY(e,
                   "# %d stacks of experts are cut over devices in the plan; here they are whole, "
                   "where most of them is.\n",
                   e->n_cut));
    FR_TRY(SAY(e, "-ngl 999 -ot '"));
    FR_TRY(say_rules(e));
    return SAY(e, "'\n");
}

static fr_status say_ini(emitter *e)
{
    const fr_plan_options *o = &e->p->opts;
    FR_TRY(SAY(e,
               "; A plan of ferry-plan as rules: every tensor is named, nothing is left to "
               "--fit.\n\n[run]\nctx-size = %lld\nbatch-size = %lld\nubatch-size = %lld\n",
               (long long)o->n_ctx, (long long)(o->n_ubatch > 2048 ? o->n_ubatch : 2048),
               (long long)o->n_ubatch));
    FR_TRY(SAY(e, "cache-type-k = %s\ncache-type-v = %s\nmla = %d\nkv-window = %lld\n\n[place]\n",
               fr_type_get(o->type_k)->name, fr_type_get(o->type_v)->name, (int)e->p->model->mla,
               (long long)o->kv_window));
    if (o->kv_on_cpu)
        FR_TRY(SAY(e, "kv-offload = false\n"));
    FR_TRY(say_rules(e));
    FR_TRY(SAY(e, "\n"));
    return fr_hardware_print_ini(&e->p->hw, e->out, e->err);
}

fr_status fr_plan_emit(const fr_plan *p, fr_emit_form form, fr_buf *out, fr_err *err)
{
    emitter e = {.p = p, .form = form, .arena = fr_arena_make(FR_MEM_PLAN), .out = out, .err = err};
    fr_status st = find_homes(&e);
    if (st == FR_OK)
        st = gather(&e);
    if (st == FR_OK) {
        merge(&e);
        if (e.n_groups > 0)
            qsort(e.groups, (size_t)e.n_groups, sizeof *e.groups, compare_groups);
        st = form == FR_EMIT_OT ? say_ot(&e) : say_ini(&e);
    }
    fr_arena_free(&e.arena);
    return st;
}
