/* The plan as tables. */
#include <stdio.h>
#include <string.h>

#include "planner/print_parts.h"

enum { DEFAULT_WIDTH = 100, MIN_WIDTH = 60, LABEL = 8, MAX_BAR = 60 };

typedef struct {
    const fr_plan *p;
    fr_print_style style;
    const char *unit; /* of all tables */
    double unit_bytes;
    fr_buf *out;
    fr_err *err;
} printer;

#define SAY(pr, ...) fr_buf_printf((pr)->out, (pr)->err, __VA_ARGS__)

static double in_unit(const printer *pr, uint64_t bytes)
{
    return (double)bytes / pr->unit_bytes;
}

/* A colour of its own for each purpose; the letters say the same without. */
static const struct {
    char letter;
    int color;
} marks[PLAN_PURPOSES] = {{'=', 34}, {'K', 32}, {'W', 33}, {'S', 35}, {'L', 36}, {'R', 31}};

static fr_status set_color(const printer *pr, int color)
{
    return pr->style.color ? SAY(pr, "\033[%dm", color) : FR_OK;
}

static fr_status bold(const printer *pr, const char *text)
{
    FR_TRY(set_color(pr, 1));
    FR_TRY(SAY(pr, "%s", text));
    return set_color(pr, 0);
}

/* ---- head --------------------------------------------------------------------------------------
 */

static fr_status print_head(const printer *pr)
{
    static const char *const goals[] = {"balanced", "decode", "prefill"};
    const fr_plan *p = pr->p;
    const fr_model *m = p->model;
    const fr_plan_options *o = &p->opts;
    char file[32], kv[32];
    fr_str name = plan_model_name(m);
    FR_TRY(set_color(pr, 1));
    FR_TRY(SAY(pr, "%.*s", FR_STR_ARG(name)));
    FR_TRY(set_color(pr, 0));
    FR_TRY(SAY(pr, " (%s)\n%.3f B parameters in %zu tensors, %s, %.2f bits a weight\n",
               m->arch_name, (double)m->n_params * 1e-9, fr_gguf_n_tensors(m->gguf),
               fr_format_bytes(m->file_bytes, file),
               8 * (double)m->file_bytes / (double)m->n_params));
    FR_TRY(SAY(pr, "context %lld", (long long)o->n_ctx));
    if (o->n_seq > 1)
        FR_TRY(SAY(pr, " for %lld sequences", (long long)o->n_seq));
    FR_TRY(SAY(pr, ", KV cache %s %s (-mla %d), ubatch %lld", fr_type_get(o->type_k)->name,
               fr_format_bytes(p->kv_bytes, kv), (int)m->mla, (long long)o->n_ubatch));
    return SAY(pr, o->fit && p->n_devices > 1 ? ", filled for goal %s\n\n" : "\n\n",
               goals[o->goal]);
}

/* ---- devices -----------------------------------------------------------------------------------
 */

/* Cells of a bar that end at a sum of bytes. */
static int cells(uint64_t bytes, uint64_t budget, int width)
{
    if (budget == 0)
        return 0;
    double at = (double)bytes / (double)budget * width;
    return at > width ? width : (int)(at + 0.5);
}

static fr_status print_bar(const printer *pr, const fr_plan_device *v, int width)
{
    uint64_t sum = 0;
    int at = 0;
    FR_TRY(SAY(pr, "["));
    for (int i = 0; i < PLAN_PURPOSES; i++) {
        sum += plan_purpose_bytes(v, (plan_purpose)i);
        int end = cells(sum, v->budget, width);
        if (end > at)
            FR_TRY(set_color(pr, marks[i].color));
        for (; at < end; at++)
            FR_TRY(fr_buf_putc(pr->out, marks[i].letter, pr->err));
    }
    FR_TRY(set_color(pr, 0));
    for (; at < width; at++)
        FR_TRY(fr_buf_putc(pr->out, '.', pr->err));
    return SAY(pr, "]");
}

static fr_status print_device(const printer *pr, const fr_plan_device *v)
{
    const char *sep = "";
    int width = pr->style.width - LABEL - 38;
    FR_TRY(SAY(pr, "%-*s", LABEL, v->id));
    FR_TRY(print_bar(pr, v, width < MAX_BAR ? width : MAX_BAR));
    FR_TRY(SAY(pr, " %8.2f of %.2f %s, %.2f free\n%-*s", in_unit(pr, v->used),
               in_unit(pr, v->budget), pr->unit, in_unit(pr, v->free), LABEL, ""));
    if (v->name[0])
        FR_TRY(SAY(pr, "%s: ", v->name));
    for (int i = 0; i < PLAN_PURPOSES; i++) {
        double size = in_unit(pr, plan_purpose_bytes(v, (plan_purpose)i));
        if (size < 0.005)
            continue;
        FR_TRY(SAY(pr, "%s%s %.2f", sep, plan_purpose_names[i], size));
        sep = ", ";
    }
    return v->used == 0 ? SAY(pr, "not used\n") : SAY(pr, "\n");
}

static fr_status print_devices(const printer *pr)
{
    for (int dev = 0; dev < pr->p->n_devices; dev++)
        FR_TRY(print_device(pr, &pr->p->devices[dev]));
    FR_TRY(SAY(pr, "%-*s", LABEL, ""));
    for (int i = 0; i < PLAN_PURPOSES; i++) {
        FR_TRY(set_color(pr, marks[i].color));
        FR_TRY(SAY(pr, "%c", marks[i].letter));
        FR_TRY(set_color(pr, 0));
        FR_TRY(SAY(pr, " %s  ", plan_purpose_names[i]));
    }
    return SAY(pr, ". free\n\n");
}

/* ---- layers ------------------------------------------------------------------------------------
 */

/* One row of the table of layers: neighbours that say the same are one. */
typedef struct {
    int first, last;
    fr_buf dense, kv, experts;
    uint64_t bytes;
} layer_row;

static void free_row(layer_row *r)
{
    fr_buf_free(&r->dense);
    fr_buf_free(&r->kv);
    fr_buf_free(&r->experts);
}

static fr_status make_row(const printer *pr, int layer, layer_row *r)
{
    const fr_plan *p = pr->p;
    *r = (layer_row){.first = layer, .last = layer};
    FR_TRY(plan_print_dense(p, layer, &r->dense, pr->err));
    FR_TRY(fr_buf_puts(&r->kv, p->devices[p->kv_device[layer]].id, pr->err));
    FR_TRY(plan_print_experts(p, layer, &r->experts, pr->err));
    for (int dev = 0; dev < p->n_devices; dev++)
        r->bytes += plan_layer_bytes(p, layer, false, dev) + plan_layer_bytes(p, layer, true, dev);
    return FR_OK;
}

static fr_status print_row(const printer *pr, const layer_row *r)
{
    char layers[32];
    snprintf(layers, sizeof layers, r->first == r->last ? "%d" : "%d-%d", r->first, r->last);
    return SAY(pr, "%-10s %9.2f  %-14s %-7s %s\n", layers, in_unit(pr, r->bytes), r->dense.p,
               r->kv.p, r->experts.p);
}

static bool same_row(const layer_row *a, const layer_row *b)
{
    return strcmp(a->dense.p, b->dense.p) == 0 && strcmp(a->kv.p, b->kv.p) == 0 &&
           strcmp(a->experts.p, b->experts.p) == 0;
}

static fr_status print_outside(const printer *pr, const char *name, bool output)
{
    fr_buf where = {0};
    uint64_t bytes = 0;
    fr_status st = output ? plan_print_experts(pr->p, -1, &where, pr->err)
                          : plan_print_dense(pr->p, -1, &where, pr->err);
    for (int dev = 0; dev < pr->p->n_devices; dev++)
        bytes += plan_layer_bytes(pr->p, -1, output, dev);
    if (st == FR_OK)
        st = SAY(pr, "%-10s %9.2f  %s\n", name, in_unit(pr, bytes), where.p);
    fr_buf_free(&where);
    return st;
}

static fr_status print_layer_rows(const printer *pr)
{
    layer_row row = {0}, next = {0};
    fr_status st = make_row(pr, 0, &row);
    for (int il = 1; st == FR_OK && il < pr->p->model->hp.n_layer; il++) {
        st = make_row(pr, il, &next);
        if (st == FR_OK && same_row(&row, &next)) {
            row.last = il;
            row.bytes += next.bytes;
            free_row(&next);
        } else if (st == FR_OK) {
            st = print_row(pr, &row);
            free_row(&row);
            row = next;
        } else {
            free_row(&next);
        }
    }
    if (st == FR_OK)
        st = print_row(pr, &row);
    free_row(&row);
    return st;
}

static fr_status print_layers(const printer *pr)
{
    char head[96];
    snprintf(head, sizeof head, "%-10s %9s  %-14s %-7s %s\n", "layers", pr->unit, "dense parts",
             "KV", "routed experts");
    FR_TRY(bold(pr, head));
    FR_TRY(print_outside(pr, "embedding", false));
    FR_TRY(print_layer_rows(pr));
    return print_outside(pr, "output", true);
}

/* ---- rules, predictions, notes -----------------------------------------------------------------
 */

static fr_status print_rule(const printer *pr, int r)
{
    fr_buf name = {0};
    char size[32];
    plan_rule_total t = plan_rule_sum(pr->p, r);
    fr_status st = fr_rule_describe(fr_rules_at(pr->p->rules, (size_t)r), &name, pr->err);
    if (st == FR_OK && t.n_tensors == 0)
        st = SAY(pr, "%11s %11s  %s\n", "no tensor", "", name.p);
    else if (st == FR_OK)
        st = SAY(pr, "%3d tensor%s %11s  %s\n", t.n_tensors, t.n_tensors == 1 ? " " : "s",
                 fr_format_bytes(t.bytes, size), name.p);
    fr_buf_free(&name);
    return st;
}

static fr_status print_rules(const printer *pr)
{
    size_t n = fr_rules_count(pr->p->rules);
    if (n == 0)
        return FR_OK;
    FR_TRY(bold(pr, "\nrules, the first match wins\n"));
    for (size_t r = 0; r < n; r++)
        FR_TRY(print_rule(pr, (int)r));
    return FR_OK;
}

static fr_status print_predictions(const printer *pr, const char *name, const fr_prediction *rows,
                                   int n)
{
    for (int i = 0; i < n; i++)
        FR_TRY(SAY(pr, "%-10s %9lld %9.1f  %s\n", i == 0 ? name : "", (long long)rows[i].depth,
                   rows[i].tokens_per_second, rows[i].bound_by));
    return FR_OK;
}

static fr_status print_speed(const printer *pr)
{
    char head[96];
    snprintf(head, sizeof head, "\n%-10s %9s %9s  %s\n", "predicted", "at depth", "tokens/s",
             "bound by");
    FR_TRY(bold(pr, head));
    FR_TRY(print_predictions(pr, "prompt", pr->p->prefill, pr->p->n_prefill));
    return print_predictions(pr, "generation", pr->p->decode, pr->p->n_decode);
}

/* Words of a text, broken at the width; further lines begin under the first word. Line ends of the
 * text stay. */
static fr_status print_wrapped(const printer *pr, const char *lead, const char *text)
{
    size_t column = strlen(lead), indent = column, width = (size_t)pr->style.width;
    FR_TRY(SAY(pr, "%s", lead));
    for (const char *p = text; *p;) {
        size_t gap = strspn(p, " "), n = strcspn(p + gap, " \n");
        if (column + gap + n > width && column > indent) {
            FR_TRY(SAY(pr, "\n%*s", (int)indent, ""));
            column = indent;
            p += gap;
            gap = 0;
        }
        FR_TRY(fr_buf_add(pr->out, p, gap + n, pr->err));
        column += gap + n;
        p += gap + n;
        if (*p == '\n') {
            FR_TRY(SAY(pr, "\n%*s", (int)indent, ""));
            column = indent;
            p++;
        }
    }
    return SAY(pr, "\n");
}

static fr_status print_notes(const printer *pr)
{
    static const char *const leads[] = {"note: ", "warning: ", "error: "};
    const fr_diagnostics *notes = &pr->p->notes;
    if (notes->n > 0)
        FR_TRY(SAY(pr, "\n"));
    for (size_t i = 0; i < notes->n; i++)
        FR_TRY(print_wrapped(pr, leads[notes->items[i].severity], notes->items[i].text));
    return FR_OK;
}

fr_status fr_plan_print_text(const fr_plan *p, const fr_print_style *style, fr_buf *out,
                             fr_err *err)
{
    bool large = p->model->file_bytes >= (uint64_t)2 << 30;
    printer pr = {.p = p,
                  .style = *style,
                  .unit = large ? "GiB" : "MiB",
                  .unit_bytes = large ? 1 << 30 : 1 << 20,
                  .out = out,
                  .err = err};
    if (pr.style.width < MIN_WIDTH)
        pr.style.width = DEFAULT_WIDTH;
    FR_TRY(print_head(&pr));
    FR_TRY(print_devices(&pr));
    FR_TRY(print_layers(&pr));
    FR_TRY(print_rules(&pr));
    FR_TRY(print_speed(&pr));
    return print_notes(&pr);
}
