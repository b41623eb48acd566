#include "quantize_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

typedef struct {
    const fr_gguf *g;
    const quantize_config *c;
    quantize_model model;
    fr_err *err;
} planner;

static bool is_float(fr_type type)
{
    return type == FR_TYPE_F32 || type == FR_TYPE_F16 || type == FR_TYPE_BF16;
}

static int64_t n_matrices(const fr_gguf_tensor *t)
{
    return t->dims[2] * t->dims[3];
}

/* ---- types ---------------------------------------------------------------------------------- */

/* The type that mix, options and rules ask for, most special last. */
static fr_status wanted_type(const planner *p, const fr_gguf_tensor *t, fr_type *type,
                             bool *interleaved)
{
    const quantize_config *c = p->c;
    fr_type by_rule;
    fr_layout layout;
    bool found = false;
    *type = c->pure ? tool_mix_get(c->mix)->base : quantize_mix_type(&p->model, c->mix, t);
    *interleaved = c->interleave;
    if (c->has_output_type && quantize_is_output(&p->model, t)) {
        *type = c->output_type;
        *interleaved |= c->output_layout == FR_LAYOUT_INTERLEAVED;
    } else if (c->has_lookup_type && quantize_is_lookup(t)) {
        *type = c->lookup_type;
    }
    if (c->rules)
        FR_TRY(quantize_rules_match(c->rules, t->name, &found, &by_rule, &layout, p->err));
    if (found) {
        *type = by_rule;
        *interleaved |= layout == FR_LAYOUT_INTERLEAVED;
    }
    if (quantize_is_lookup(t))
        *interleaved = false;
    return FR_OK;
}

/* Whether a tensor that could be quantized keeps its type. */
static bool keeps_type(const planner *p, const fr_gguf_tensor *t)
{
    const quantize_config *c = p->c;
    if (c->copy || (c->leave_output && quantize_is_output(&p->model, t)))
        return true;
    return c->interleave && !c->allow_requantize && !is_float(t->type);
}

/* The bits stay; a matrix may be rearranged. */
static void plan_kept(const planner *p, quantize_step *s)
{
    const fr_gguf_tensor *t = s->from;
    bool leave = p->c->leave_output && quantize_is_output(&p->model, t);
    s->type = s->wanted = t->type;
    s->layout = t->layout;
    if (p->c->interleave && !leave && quantize_is_matrix(t) && !quantize_is_lookup(t) &&
        t->layout == FR_LAYOUT_PLAIN)
        s->layout = tool_fitting_layout(t->type, true, t->dims[1], t->dims[0]);
}

static fr_status plan_type(const planner *p, quantize_step *s)
{
    const fr_gguf_tensor *t = s->from;
    bool interleaved;
    if (!quantize_is_matrix(t) || keeps_type(p, t)) {
        plan_kept(p, s);
        return FR_OK;
    }
    FR_TRY(wanted_type(p, t, &s->wanted, &interleaved));
    s->type = tool_fitting_type(s->wanted, t->dims[0]);
    s->layout = tool_fitting_layout(s->type, interleaved, t->dims[1], t->dims[0]);
    return FR_OK;
}

static fr_status plan_step(const planner *p, quantize_step *s)
{
    const fr_gguf_tensor *t = s->from;
    FR_TRY(plan_type(p, s));
    s->action = s->type != t->type       ? QUANTIZE_ENCODE
                : s->layout != t->layout ? QUANTIZE_REPACK
                                         : QUANTIZE_COPY;
    s->bytes =
        (uint64_t)(t->dims[1] * n_matrices(t)) * fr_row_bytes(s->type, s->layout, t->dims[0]);
    if (s->action == QUANTIZE_ENCODE && !fr_type_can_encode(s->type))
        return fr_fail(p->err, FR_EUNSUPPORTED,
                       "tensor %s: would become %s, which ferry cannot write; 'ferry-gguf types' "
                       "lists what it can, --custom-q gives single tensors another type",
                       t->name, fr_type_name(s->type, s->layout));
    return FR_OK;
}

/* ---- checks over all tensors ---------------------------------------------------------------- */

/* The input must not be quantized already. */
static fr_status check_requantize(const planner *p, const quantize_plan *plan)
{
    const quantize_step *first = NULL;
    size_t n = 0;
    if (p->c->allow_requantize)
        return FR_OK;
    for (size_t i = 0; i < plan->n; i++) {
        const quantize_step *s = &plan->steps[i];
        if (s->action != QUANTIZE_ENCODE || is_float(s->from->type))
            continue;
        first = first ? first : s;
        n++;
    }
    if (n == 0)
        return FR_OK;
    return fr_fail(p->err, FR_EINVAL,
                   "%s: %zu tensors are quantized already, the first is %s (%s); quantize the "
                   "original, or give --allow-requantize, which costs quality",
                   fr_gguf_path(p->g, 0), n, first->from->name,
                   fr_type_name(first->from->type, first->from->layout));
}

/* Types that lose too much without an importance matrix. */
static bool needs_importance(fr_type type)
{
    return type == FR_TYPE_IQ1_S || type == FR_TYPE_IQ1_M || type == FR_TYPE_IQ2_XXS ||
           type == FR_TYPE_IQ2_XS;
}

static fr_status no_common_names(const planner *p, const quantize_plan *plan)
{
    const char *ours = "none";
    for (size_t i = 0; i < plan->n; i++)
        if (plan->steps[i].action == QUANTIZE_ENCODE)
            ours = plan->steps[i].from->name;
    return fr_fail(p->err, FR_EINVAL,
                   "%s: found %zu entries (such as %s), none for a tensor to be quantized (such as "
                   "%s); it belongs to another model",
                   p->c->imatrix->path, p->c->imatrix->n, p->c->imatrix->entries[0].name, ours);
}

/* Entries for all tensors that use one; sizes must agree. */
static fr_status find_importance(const planner *p, quantize_plan *plan)
{
    size_t n_used = 0, n_encoded = 0, n_missing = 0;
    const char *missing = NULL;
    for (size_t i = 0; i < plan->n; i++) {
        quantize_step *s = &plan->steps[i];
        if (s->action != QUANTIZE_ENCODE || is_float(s->type))
            continue;
        n_encoded++;
        s->importance = importance_find(p->c->imatrix, s->from->name);
        if (s->importance) {
            n_used++;
            FR_TRY(importance_check(p->c->imatrix, s->importance, s->from->dims[0],
                                    n_matrices(s->from), p->err));
        } else if (!quantize_is_lookup(s->from) && !quantize_is_output(&p->model, s->from)) {
            missing = missing ? missing : s->from->name;
            n_missing++;
        }
    }
    if (n_encoded && !n_used)
        return no_common_names(p, plan);
    if (n_missing)
        fr_log_warn("%s: has no entry for %zu of %zu tensors, the first is %s", p->c->imatrix->path,
                    n_missing, n_encoded, missing);
    return FR_OK;
}

static void warn_of_poor_types(const quantize_plan *plan)
{
    size_t n = 0;
    const quantize_step *first = NULL;
    for (size_t i = 0; i < plan->n; i++) {
        const quantize_step *s = &plan->steps[i];
        if (s->action != QUANTIZE_ENCODE || s->importance || !needs_importance(s->type))
            continue;
        first = first ? first : s;
        n++;
    }
    if (n)
        fr_log_warn("%zu tensors (the first is %s) become %s or the like without an importance "
                    "matrix: expect nonsense from the model; ferry-imatrix makes one, --imatrix "
                    "takes it",
                    n, first->from->name, fr_type_name(first->type, first->layout));
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* Of the mix; of the input where no tensor gets another type. */
static int choose_file_type(const planner *p, const quantize_plan *plan)
{
    int64_t old;
    size_t n_encoded = 0;
    for (size_t i = 0; i < plan->n; i++)
        n_encoded += plan->steps[i].action == QUANTIZE_ENCODE;
    bool has_old =
        fr_gguf_get_i64(p->g, "general.file_type", &old, NULL) == FR_OK && old >= 0 && old < 10000;
    int type = !p->c->copy ? tool_mix_get(p->c->mix)->file_type : -1;
    if (p->c->copy || (p->c->interleave && n_encoded == 0))
        type = has_old ? (int)old : type;
    return p->c->interleave ? tool_interleaved_file_type(type) : type;
}

static void add_up(quantize_plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        const quantize_step *s = &plan->steps[i];
        const int64_t *d = s->from->dims;
        plan->n_stand_in += s->type != s->wanted;
        plan->from_bytes += s->from->bytes;
        plan->bytes += s->bytes;
        plan->weights += (uint64_t)(d[0] * d[1] * d[2] * d[3]);
    }
}

static fr_status make_steps(planner *p, quantize_plan *plan)
{
    plan->n = fr_gguf_n_tensors(p->g);
    if (plan->n == 0)
        return fr_fail(p->err, FR_EINVAL, "%s: found no tensors, expected a model",
                       fr_gguf_path(p->g, 0));
    plan->steps = FR_NEW(quantize_step, FR_MEM_MISC, plan->n, p->err);
    if (!plan->steps)
        return FR_ENOMEM;
    for (size_t i = 0; i < plan->n; i++) {
        plan->steps[i].from = fr_gguf_tensor_at(p->g, i);
        FR_TRY(plan_step(p, &plan->steps[i]));
    }
    FR_TRY(check_requantize(p, plan));
    if (p->c->imatrix)
        FR_TRY(find_importance(p, plan));
    return FR_OK;
}

fr_status quantize_plan_make(const fr_gguf *g, const quantize_config *c, quantize_plan *out,
                             fr_err *err)
{
    planner p = {.g = g, .c = c, .model = quantize_model_of(g, c->imatrix != NULL), .err = err};
    *out = (quantize_plan){0};
    fr_status st = make_steps(&p, out);
    if (st != FR_OK) {
        quantize_plan_free(out);
        return st;
    }
    out->file_type = choose_file_type(&p, out);
    add_up(out);
    warn_of_poor_types(out);
    if (c->rules)
        quantize_rules_report(c->rules);
    return FR_OK;
}

void quantize_plan_free(quantize_plan *p)
{
    fr_mem_free(p->steps);
    *p = (quantize_plan){0};
}

/* ---- printing ------------------------------------------------------------------------------- */

const char *quantize_dims(const fr_gguf_tensor *t, char out[QUANTIZE_DIMS_BYTES])
{
    int n = 0;
    for (int i = 0; i < t->n_dims; i++)
        n += snprintf(out + n, (size_t)(QUANTIZE_DIMS_BYTES - n), "%s%" PRId64, i ? " x " : "",
                      t->dims[i]);
    return out;
}

void quantize_plan_print(const quantize_plan *p)
{
    int width = 4;
    char dims[QUANTIZE_DIMS_BYTES], from[32], to[32];
    for (size_t i = 0; i < p->n; i++) {
        int n = (int)strlen(p->steps[i].from->name);
        width = n > width ? n : width;
    }
    printf("%-*s  %-20s  %-10s  %-10s  %15s  %s\n", width, "name", "dims", "from", "to", "bytes",
           "note");
    for (size_t i = 0; i < p->n; i++) {
        const quantize_step *s = &p->steps[i];
        const fr_gguf_tensor *t = s->from;
        printf("%-*s  %-20s  %-10s  %-10s  %15" PRIu64, width, t->name, quantize_dims(t, dims),
               fr_type_name(t->type, t->layout), fr_type_name(s->type, s->layout), s->bytes);
        printf(s->type != s->wanted ? "  for %s: rows of %" PRId64 "\n" : "\n",
               fr_type_get(s->wanted)->name, t->dims[0]);
    }
    printf("\ntotal: %zu tensors, %" PRIu64 " weights, %s -> %s (%" PRIu64 " bytes, %.3f bits per "
           "weight)\n",
           p->n, p->weights, fr_format_bytes(p->from_bytes, from), fr_format_bytes(p->bytes, to),
           p->bytes, 8.0 * (double)p->bytes / (double)p->weights);
}
