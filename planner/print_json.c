/* The plan as one JSON object; planner/README.md has the schema. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "planner/plan_internal.h"
#include "planner/print_parts.h"

/* Building fails only for want of memory: a NULL anywhere makes the whole a NULL. */
typedef struct {
    const fr_plan *p;
    fr_err *err;
    bool failed;
} writer;

/* Takes over value (NULL: failed). */
static void set(writer *w, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        w->failed = true;
}

static void append(writer *w, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        w->failed = true;
}

static void set_int(writer *w, json_t *object, const char *key, uint64_t value)
{
    set(w, object, key, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

static void set_real(writer *w, json_t *object, const char *key, double value)
{
    set(w, object, key, isfinite(value) ? json_real(value) : json_null());
}

/* Any bytes as a string: what is not UTF-8 becomes U+FFFD. */
static json_t *string_of(writer *w, fr_str s)
{
    fr_buf clean = {0};
    json_t *out = NULL;
    fr_status st = fr_buf_reserve(&clean, 1, w->err);
    for (size_t i = 0; st == FR_OK && i < s.n;) {
        uint32_t cp;
        int n = fr_utf8_decode(s.p + i, s.n - i, &cp);
        st = cp == UINT32_MAX ? fr_buf_puts(&clean, "\xEF\xBF\xBD", w->err)
                              : fr_buf_add(&clean, s.p + i, (size_t)n, w->err);
        i += (size_t)n;
    }
    if (st == FR_OK)
        out = json_stringn(clean.p, clean.n);
    fr_buf_free(&clean);
    return out;
}

static void set_text(writer *w, json_t *object, const char *key, const char *text)
{
    set(w, object, key, text ? string_of(w, fr_str_of(text)) : json_null());
}

/* ---- parts -------------------------------------------------------------------------------------
 */

static json_t *model_json(writer *w)
{
    const fr_model *m = w->p->model;
    json_t *o = json_object();
    set(w, o, "name", string_of(w, plan_model_name(m)));
    set_text(w, o, "file", fr_gguf_path(m->gguf, 0));
    set_text(w, o, "arch", m->arch_name);
    set_int(w, o, "n_layer", (uint64_t)m->hp.n_layer);
    set_int(w, o, "n_expert", (uint64_t)m->hp.n_expert);
    set_int(w, o, "n_expert_used", (uint64_t)m->hp.n_expert_used);
    set_int(w, o, "n_ctx_train", (uint64_t)m->hp.n_ctx_train);
    set_real(w, o, "bits_per_weight", 8 * (double)m->file_bytes / (double)m->n_params);
    return o;
}

static json_t *options_json(writer *w)
{
    static const char *const goals[] = {"balanced", "decode", "prefill"};
    const fr_plan_options *opts = &w->p->opts;
    json_t *o = json_object();
    set_int(w, o, "n_ctx", (uint64_t)opts->n_ctx);
    set_int(w, o, "n_ubatch", (uint64_t)opts->n_ubatch);
    set_int(w, o, "n_seq", (uint64_t)opts->n_seq);
    set_int(w, o, "mla", (uint64_t)w->p->model->mla);
    set_text(w, o, "type_k", fr_type_get(opts->type_k)->name);
    set_text(w, o, "type_v", fr_type_get(opts->type_v)->name);
    set_int(w, o, "kv_window", (uint64_t)opts->kv_window);
    set(w, o, "kv_on_cpu", json_boolean(opts->kv_on_cpu));
    set(w, o, "fit", json_boolean(opts->fit));
    set_text(w, o, "goal", goals[opts->goal]);
    return o;
}

static json_t *device_json(writer *w, const fr_plan_device *v)
{
    json_t *o = json_object();
    set_text(w, o, "id", v->id);
    set_text(w, o, "name", v->name);
    set_int(w, o, "budget_bytes", v->budget);
    set_int(w, o, "used_bytes", v->used);
    set_int(w, o, "free_bytes", v->free);
    set_int(w, o, "weights_bytes", v->weights);
    set_int(w, o, "kv_bytes", v->kv);
    set_int(w, o, "workspace_bytes", v->workspace);
    set_int(w, o, "staging_bytes", v->staging);
    set_int(w, o, "logits_bytes", v->logits);
    set_int(w, o, "reserve_bytes", v->reserve);
    return o;
}

static json_t *rule_json(writer *w, int rule)
{
    static const char *const sources[] = {[FR_RULE_CLI] = "command line",
                                          [FR_RULE_INI] = "ini",
                                          [FR_RULE_FILE] = "rule file",
                                          [FR_RULE_CPU_MOE] = "cpu-moe"};
    if (rule < 0)
        return json_null();
    const fr_rule *r = fr_rules_at(w->p->rules, (size_t)rule);
    json_t *o = json_object();
    set_text(w, o, "source", sources[r->source]);
    set_text(w, o, "file", r->file);
    set_int(w, o, "line", (uint64_t)(r->line > 0 ? r->line : 0));
    set_text(w, o, "text", r->text);
    return o;
}

static json_t *placement_json(writer *w, const fr_placement *at)
{
    const fr_model_weight *m = &w->p->model->weights[at->tensor];
    json_t *o = json_object();
    char id[16];
    set_text(w, o, "name", m->name);
    set_text(w, o, "type", fr_type_get(m->shape.type)->name);
    set_text(w, o, "layout", fr_layout_name(at->layout));
    set_int(w, o, "bytes", at->bytes);
    set_text(w, o, "device", plan_place_id(w->p, at, id));
    if (plan_role_is_expert(m->role))
        set(w, o, "experts",
            json_pack("[I,I]", (json_int_t)at->expert_from, (json_int_t)at->expert_to));
    set(w, o, "rule", rule_json(w, at->rule));
    set_text(w, o, "why", at->why);
    return o;
}

/* A tensor of the file that no weight reads. */
static json_t *unused_json(writer *w, const fr_gguf_tensor *t)
{
    json_t *o = json_object();
    set_text(w, o, "name", t->name);
    set_text(w, o, "type", fr_type_get(t->type)->name);
    set_text(w, o, "layout", fr_layout_name(t->layout));
    set_int(w, o, "bytes", 0);
    set(w, o, "device", json_null());
    set(w, o, "rule", json_null());
    set_text(w, o, "why", "not loaded: this attention mode or version does not need it");
    return o;
}

static json_t *tensors_json(writer *w)
{
    const fr_model *m = w->p->model;
    json_t *a = json_array();
    for (size_t i = 0; i < fr_gguf_n_tensors(m->gguf); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(m->gguf, i);
        int weight = plan_weight_of_tensor(m, t), from, to;
        if (weight < 0) {
            append(w, a, unused_json(w, t));
            continue;
        }
        plan_placements_of(w->p, weight, &from, &to);
        for (int k = from; k < to; k++)
            append(w, a, placement_json(w, &w->p->placements[k]));
    }
    return a;
}

/* Weights that are made at load and take memory of their own. */
static json_t *derived_json(writer *w)
{
    json_t *a = json_array();
    for (int i = 0; i < w->p->n_placements; i++) {
        const fr_placement *at = &w->p->placements[i];
        if (w->p->model->weights[at->tensor].from >= 0 && at->bytes > 0)
            append(w, a, placement_json(w, at));
    }
    return a;
}

static json_t *layers_json(writer *w)
{
    json_t *a = json_array();
    for (int il = 0; il < w->p->model->hp.n_layer; il++) {
        json_t *o = json_object();
        set_int(w, o, "layer", (uint64_t)il);
        set_text(w, o, "attention", w->p->devices[w->p->attention_device[il]].id);
        set_text(w, o, "kv", w->p->devices[w->p->kv_device[il]].id);
        append(w, a, o);
    }
    return a;
}

static json_t *rules_json(writer *w)
{
    json_t *a = json_array();
    for (size_t r = 0; r < fr_rules_count(w->p->rules); r++) {
        plan_rule_total t = plan_rule_sum(w->p, (int)r);
        json_t *o = rule_json(w, (int)r);
        set_int(w, o, "n_tensors", (uint64_t)t.n_tensors);
        set_int(w, o, "bytes", t.bytes);
        append(w, a, o);
    }
    return a;
}

static json_t *warnings_json(writer *w)
{
    static const char *const names[] = {"note", "warning", "error"};
    json_t *a = json_array();
    for (size_t i = 0; i < w->p->notes.n; i++) {
        json_t *o = json_object();
        set_text(w, o, "severity", names[w->p->notes.items[i].severity]);
        set_text(w, o, "text", w->p->notes.items[i].text);
        append(w, a, o);
    }
    return a;
}

static json_t *predictions_json(writer *w, const fr_prediction *rows, int n)
{
    json_t *a = json_array();
    for (int i = 0; i < n; i++) {
        json_t *o = json_object();
        set_int(w, o, "depth", (uint64_t)rows[i].depth);
        set_int(w, o, "n_tokens", (uint64_t)rows[i].n_tokens);
        set_real(w, o, "seconds", rows[i].seconds);
        set_real(w, o, "tokens_per_second", rows[i].tokens_per_second);
        set_text(w, o, "bound_by", rows[i].bound_by);
        append(w, a, o);
    }
    return a;
}

static json_t *predicted_json(writer *w)
{
    json_t *o = json_object();
    set(w, o, "prefill", predictions_json(w, w->p->prefill, w->p->n_prefill));
    set(w, o, "decode", predictions_json(w, w->p->decode, w->p->n_decode));
    return o;
}

static json_t *plan_json(writer *w)
{
    const fr_plan *p = w->p;
    json_t *o = json_object(), *devices = json_array();
    set_int(w, o, "ferry_plan", 1);
    set(w, o, "model", model_json(w));
    set_int(w, o, "n_tensors", fr_gguf_n_tensors(p->model->gguf));
    set_int(w, o, "n_params", (uint64_t)p->model->n_params);
    set_int(w, o, "total_bytes", p->total_bytes);
    set_int(w, o, "derived_bytes", p->model->derived_bytes);
    set_int(w, o, "kv_bytes", p->kv_bytes);
    set_int(w, o, "workspace_bytes", p->workspace_bytes);
    set(w, o, "options", options_json(w));
    for (int i = 0; i < p->n_devices; i++)
        append(w, devices, device_json(w, &p->devices[i]));
    set(w, o, "devices", devices);
    set(w, o, "layers", layers_json(w));
    set(w, o, "tensors", tensors_json(w));
    set(w, o, "derived", derived_json(w));
    set(w, o, "rules", rules_json(w));
    set(w, o, "warnings", warnings_json(w));
    set(w, o, "predicted", predicted_json(w));
    return o;
}

static int to_buffer(const char *text, size_t n, void *out)
{
    return fr_buf_add(out, text, n, NULL) == FR_OK ? 0 : -1;
}

fr_status fr_plan_print_json(const fr_plan *p, fr_buf *out, fr_err *err)
{
    writer w = {.p = p, .err = err};
    json_t *o = plan_json(&w);
    bool bad = !o || w.failed ||
               json_dump_callback(o, to_buffer, out, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) != 0;
    json_decref(o);
    if (bad)
        return fr_fail(err, FR_ENOMEM, "JSON of the plan: out of memory");
    return fr_buf_putc(out, '\n', err);
}
