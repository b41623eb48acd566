/* Why a tensor is where it is, and not elsewhere. */
#include <stdio.h>
#include <string.h>

#include "planner/plan_internal.h"
#include "planner/print_parts.h"
#include "planner/rules_internal.h"
#include "planner/rules_names.h"

enum { MAX_DETAILED = 40 }; /* more tensors than this get one line each */

typedef struct {
    const fr_plan *p;
    plan_matcher *matcher;
    plan_pattern *pattern;
    bool detailed;
    fr_buf *out;
    fr_err *err;
} explainer;

#define SAY(x, ...) fr_buf_printf((x)->out, (x)->err, __VA_ARGS__)

/* ---- one tensor --------------------------------------------------------------------------------
 */

/* The rules behind the one that won that match as well. */
static fr_status say_later_rules(const explainer *x, const char *name, int rule)
{
    const fr_rules *rules = x->p->rules;
    for (size_t r = (size_t)rule + 1; r < fr_rules_count(rules); r++) {
        bool yes;
        fr_buf text = {0};
        FR_TRY(plan_rule_matches(rules, r, name, &yes, x->err));
        if (!yes)
            continue;
        fr_status st = fr_rule_describe(fr_rules_at(rules, r), &text, x->err);
        if (st == FR_OK)
            st = SAY(x, "      %s matches too, but comes later\n", text.p);
        fr_buf_free(&text);
        FR_TRY(st);
    }
    return FR_OK;
}

static bool holds(const fr_plan *p, int from, int to, int dev)
{
    for (int i = from; i < to; i++)
        if (p->placements[i].device == dev)
            return true;
    return false;
}

static fr_status say_others(const explainer *x, int from, int to)
{
    const fr_plan *p = x->p;
    const fr_placement *at = &p->placements[from];
    const char *chosen = at->rule >= 0                       ? "the rule comes first"
                         : strncmp(at->why, "--fit", 5) == 0 ? "--fit expects a slower plan from it"
                         : p->model->weights[at->tensor].from >= 0 ? "it goes with its source"
                                                                   : "the option decides";
    uint64_t bytes = 0;
    for (int i = from; i < to; i++)
        bytes += p->placements[i].bytes;
    for (int dev = 0; dev < p->n_devices; dev++) {
        char room[32], need[32];
        const fr_plan_device *v = &p->devices[dev];
        if (holds(p, from, to, dev))
            continue;
        fr_format_bytes(v->free, room);
        if (v->free >= bytes)
            FR_TRY(SAY(x, "    not on %s: it has room (%s free), but %s\n", v->id, room, chosen));
        else
            FR_TRY(SAY(x, "    not on %s: %s free there, %s needed\n", v->id, room,
                       fr_format_bytes(bytes, need)));
    }
    return FR_OK;
}

static fr_status say_placement(const explainer *x, const char *name, const fr_placement *at)
{
    const fr_model_weight *w = &x->p->model->weights[at->tensor];
    char id[16], size[32];
    FR_TRY(SAY(x, "    %s, ", plan_place_id(x->p, at, id)));
    if (plan_role_is_expert(w->role))
        FR_TRY(SAY(x, "experts %lld-%lld, ", (long long)at->expert_from, (long long)at->expert_to));
    FR_TRY(SAY(x, "%s, %s: %s\n", fr_format_bytes(at->bytes, size), fr_layout_name(at->layout),
               at->why));
    return at->rule >= 0 && w->src ? say_later_rules(x, name, at->rule) : FR_OK;
}

static fr_status say_short(const explainer *x, const char *name, const fr_placement *at)
{
    char id[16], size[32], slice[48] = "";
    const fr_model_weight *w = &x->p->model->weights[at->tensor];
    if (plan_role_is_expert(w->role) && at->expert_to - at->expert_from + 1 < w->shape.n_mat)
        snprintf(slice, sizeof slice, "[%lld-%lld]", (long long)at->expert_from,
                 (long long)at->expert_to);
    return SAY(x, "%s%s %s %s %s: %s\n", plan_place_id(x->p, at, id), slice, name,
               fr_type_name(w->shape.type, at->layout), fr_format_bytes(at->bytes, size), at->why);
}

static fr_status say_weight(const explainer *x, int weight)
{
    const fr_model_weight *w = &x->p->model->weights[weight];
    int from, to;
    plan_placements_of(x->p, weight, &from, &to);
    if (x->detailed) {
        FR_TRY(SAY(x, "%s\n    %s, %lld x %lld", w->name, fr_type_get(w->shape.type)->name,
                   (long long)w->shape.cols, (long long)w->shape.rows));
        FR_TRY(w->shape.n_mat > 1 ? SAY(x, " x %lld\n", (long long)w->shape.n_mat) : SAY(x, "\n"));
    }
    for (int i = from; i < to; i++)
        FR_TRY(x->detailed ? say_placement(x, w->name, &x->p->placements[i])
                           : say_short(x, w->name, &x->p->placements[i]));
    return x->detailed ? say_others(x, from, to) : FR_OK;
}

static fr_status say_unused(const explainer *x, const char *name)
{
    return SAY(x, "%s\n    not loaded: this attention mode or version does not need it\n", name);
}

/* ---- choosing tensors --------------------------------------------------------------------------
 */

static fr_status matches(const explainer *x, const char *name, bool *yes)
{
    fr_status st = plan_pattern_find(x->matcher, x->pattern, fr_str_of(name), yes, x->err);
    if (st != FR_ERANGE)
        return st;
    return fr_fail(x->err, FR_ERANGE,
                   "--explain: found an expression that tries too many ways to match %.80s, "
                   "expected a simpler one",
                   name);
}

/* Tensors of the file, then what is derived; counted, or told when `say`. */
static fr_status each_match(const explainer *x, bool say, int *n)
{
    const fr_model *m = x->p->model;
    bool yes;
    *n = 0;
    for (size_t i = 0; i < fr_gguf_n_tensors(m->gguf); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(m->gguf, i);
        FR_TRY(matches(x, t->name, &yes));
        *n += yes;
        int weight = yes && say ? plan_weight_of_tensor(m, t) : -1;
        if (weight >= 0)
            FR_TRY(say_weight(x, weight));
        else if (yes && say)
            FR_TRY(say_unused(x, t->name));
    }
    for (int i = 0; i < m->n_weights; i++) {
        if (m->weights[i].from < 0)
            continue;
        FR_TRY(matches(x, m->weights[i].name, &yes));
        *n += yes;
        if (yes && say)
            FR_TRY(say_weight(x, i));
    }
    return FR_OK;
}

/* No tensor of that name: the nearest ones. */
static fr_status fail_none(const explainer *x, const char *regex)
{
    const fr_gguf *g = x->p->model->gguf;
    size_t n = fr_gguf_n_tensors(g);
    fr_arena arena = fr_arena_make(FR_MEM_PLAN);
    fr_buf near = {0};
    plan_name_index index;
    fr_status st = FR_ENOMEM;
    const char **names = FR_ARENA_NEW(const char *, &arena, n, x->err);
    if (!names)
        goto out;
    for (size_t i = 0; i < n; i++)
        names[i] = fr_gguf_tensor_at(g, i)->name;
    FR_TRY_OUT(st, plan_names_index(names, n, &arena, &index, x->err));
    FR_TRY_OUT(st, plan_names_nearest(&index, fr_str_of(regex), &near, x->err));
    st = fr_fail(x->err, FR_ENOTFOUND,
                 "--explain: no tensor's name matches '%.120s'; the nearest are %s", regex,
                 near.n ? near.p : "unknown");
out:
    fr_buf_free(&near);
    fr_arena_free(&arena);
    return st;
}

fr_status fr_plan_explain(const fr_plan *p, const char *regex, fr_buf *out, fr_err *err)
{
    explainer x = {.p = p, .out = out, .err = err};
    plan_pattern_fault fault;
    int n;
    FR_TRY(plan_matcher_new(&x.matcher, err));
    fr_status st =
        plan_pattern_compile(x.matcher, fr_str_of(regex), PLAN_MATCH_RULE, &x.pattern, &fault, err);
    if (st == FR_EINVAL)
        fr_fail(err, FR_EINVAL,
                "--explain: found \"%s\" at byte %zu of '%.120s', expected a valid expression",
                fault.what, fault.at, regex);
    if (st == FR_OK)
        st = each_match(&x, false, &n);
    if (st == FR_OK && n == 0)
        st = fail_none(&x, regex);
    if (st == FR_OK) {
        x.detailed = n <= MAX_DETAILED;
        st = each_match(&x, true, &n);
    }
    plan_pattern_free(x.pattern);
    plan_matcher_free(x.matcher);
    return st;
}
