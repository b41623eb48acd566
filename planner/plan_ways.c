/* A filling that does not fit: what is over, and what would help. Every way out is tried on a draft
 * of its own, first-fit, so its numbers are those that planning again would give. */
#include <stdio.h>
#include <string.h>

#include "planner/plan_internal.h"
#include "planner/rules_internal.h"

enum { MAX_WAYS = 12, MAX_SHOWN = 6, MIN_SHOWN = 4 };

typedef struct {
    uint64_t over; /* bytes that still are too much; 0: it fits */
    char text[200];
} way;

typedef struct {
    const plan_draft *d; /* that does not fit */
    uint64_t over;       /* bytes over budget, all devices */
    way ways[MAX_WAYS];
    int n;
    fr_err *err;
} search;

static uint64_t bytes_over(const plan_draft *d)
{
    uint64_t sum = 0;
    for (int dev = 0; dev < d->n_devices; dev++)
        if (d->devices[dev].used > d->devices[dev].budget)
            sum += d->devices[dev].used - d->devices[dev].budget;
    return sum;
}

/* A draft with other options or without a rule, sized and filled. */
static fr_status try_with(const search *s, const fr_plan_options *o, const bool *skip,
                          plan_draft *out)
{
    const plan_draft *d = s->d;
    FR_TRY(plan_draft_open(d->m, d->hw, d->rules, skip, o, d->passes, out, s->err));
    plan_draft_size(out, o->n_ctx, o->n_ubatch);
    plan_draft_fill(out);
    return FR_OK;
}

/* Keeps a way when it helps at all: `text` says it, what it brings is added. */
static void keep(search *s, uint64_t over, const char *text)
{
    char less[32], all[32];
    if (over >= s->over || s->n == MAX_WAYS)
        return;
    way *w = &s->ways[s->n++];
    w->over = over;
    snprintf(w->text, sizeof w->text, "%.120s", text);
    if (over > 0)
        snprintf(w->text + strlen(w->text), sizeof w->text - strlen(w->text),
                 " (%s less of the %s, not enough alone)", fr_format_bytes(s->over - over, less),
                 fr_format_bytes(s->over, all));
}

static fr_status try_context(search *s)
{
    plan_draft t;
    char text[128];
    int64_t now = s->d->o.n_ctx;
    if (now <= PLAN_CTX_STEP)
        return FR_OK;
    FR_TRY(try_with(s, &s->d->o, NULL, &t));
    int64_t n = plan_fit_context(&t, now);
    if (n == 0)
        n = t.o.n_ctx; /* the shortest one is tried last */
    snprintf(text, sizeof text, "-c %lld instead of %lld", (long long)n, (long long)now);
    keep(s, t.fits ? 0 : bytes_over(&t), text);
    plan_draft_close(&t);
    return FR_OK;
}

static fr_status try_kv_types(search *s)
{
    static const fr_type types[] = {FR_TYPE_Q8_0, FR_TYPE_Q4_0};
    fr_plan_options o = s->d->o;
    char text[128];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        plan_draft t;
        o.type_k = o.type_v = types[i];
        FR_TRY(try_with(s, &o, NULL, &t));
        if (t.kv_layer < s->d->kv_layer) {
            snprintf(text, sizeof text, "-ctk %s%s%s instead of %s", fr_type_get(types[i])->name,
                     s->d->m->mla == FR_MLA_PLAIN ? " -ctv " : "",
                     s->d->m->mla == FR_MLA_PLAIN ? fr_type_get(types[i])->name : "",
                     fr_type_get(s->d->o.type_k)->name);
            keep(s, t.fits ? 0 : bytes_over(&t), text);
        }
        bool done = t.fits;
        plan_draft_close(&t);
        if (done)
            break;
    }
    return FR_OK;
}

static fr_status try_ubatch(search *s)
{
    fr_plan_options o = s->d->o;
    plan_draft t;
    char text[128];
    if (o.n_ubatch <= PLAN_MIN_STREAM)
        return FR_OK;
    FR_TRY(try_with(s, &o, NULL, &t));
    for (int64_t n = o.n_ubatch / 2; n >= PLAN_MIN_STREAM && !t.fits; n /= 2) {
        plan_draft_size(&t, o.n_ctx, n);
        plan_draft_fill(&t);
    }
    snprintf(text, sizeof text, "-ub %lld instead of %lld", (long long)t.o.n_ubatch,
             (long long)o.n_ubatch);
    keep(s, t.fits ? 0 : bytes_over(&t), text);
    plan_draft_close(&t);
    return FR_OK;
}

/* Bytes that a rule puts on devices that are over budget. */
static uint64_t rule_bytes_over(const plan_draft *d, int rule, int *where)
{
    uint64_t sum = 0, most = 0;
    for (int dev = 0; dev < d->n_devices; dev++) {
        uint64_t here = 0;
        if (d->devices[dev].used <= d->devices[dev].budget)
            continue;
        for (int i = 0; i < d->n_pieces; i++)
            if (d->pieces[i].rule == rule && d->pieces[i].device == dev)
                here += d->pieces[i].bytes;
        sum += here;
        if (here > most) {
            most = here;
            *where = dev;
        }
    }
    return sum;
}

static fr_status try_rule(search *s, int rule, uint64_t bytes, int where)
{
    const plan_draft *d = s->d;
    plan_draft t;
    fr_buf name = {0};
    char text[160], size[32];
    bool *skip = FR_NEW(bool, FR_MEM_PLAN, fr_rules_count(d->rules), s->err);
    if (!skip)
        return FR_ENOMEM;
    skip[rule] = true;
    fr_status st;
    FR_TRY_OUT(st, fr_rule_describe(fr_rules_at(d->rules, (size_t)rule), &name, s->err));
    FR_TRY_OUT(st, try_with(s, &d->o, skip, &t));
    snprintf(text, sizeof text, "without %.80s (%s on %s)", name.p, fr_format_bytes(bytes, size),
             d->devices[where].id);
    keep(s, t.fits ? 0 : bytes_over(&t), text);
    plan_draft_close(&t);
out:
    fr_buf_free(&name);
    fr_mem_free(skip);
    return st;
}

/* The rule that puts most on full devices. */
static fr_status try_rules(search *s)
{
    int best = -1, where = 0, best_where = 0;
    uint64_t most = 0;
    for (int r = 0; r < (int)fr_rules_count(s->d->rules); r++) {
        uint64_t bytes = rule_bytes_over(s->d, r, &where);
        if (bytes > most) {
            most = bytes;
            best = r;
            best_where = where;
        }
    }
    return best < 0 ? FR_OK : try_rule(s, best, most, best_where);
}

static fr_status try_fit(search *s)
{
    fr_plan_options o = s->d->o;
    plan_draft t;
    if (s->d->n_gpus == 0)
        return FR_OK;
    if (!o.fit) {
        o.fit = true;
        FR_TRY(try_with(s, &o, NULL, &t));
        keep(s, t.fits ? 0 : bytes_over(&t), "--fit on: fills what the rules leave open by budget");
        plan_draft_close(&t);
    }
    o = s->d->o;
    if (!o.kv_on_cpu) {
        o.kv_on_cpu = true;
        FR_TRY(try_with(s, &o, NULL, &t));
        keep(s, t.fits ? 0 : bytes_over(&t), "-nkvo: the KV cache in RAM");
        plan_draft_close(&t);
    }
    return FR_OK;
}

/* The most layers on GPUs with which it fits. */
static fr_status try_layers(search *s)
{
    fr_plan_options o = s->d->o;
    int64_t all = s->d->m->hp.n_layer + 1, now = o.n_gpu_layers < 0 ? all : o.n_gpu_layers;
    char text[128];
    if (s->d->n_gpus == 0 || o.fit)
        return FR_OK;
    int64_t low = -1, high = now < all ? now : all; /* fits, does not */
    while (high - low > 1) {
        plan_draft t;
        o.n_gpu_layers = low + (high - low) / 2;
        FR_TRY(try_with(s, &o, NULL, &t));
        *(t.fits ? &low : &high) = o.n_gpu_layers;
        plan_draft_close(&t);
    }
    if (low >= 0) {
        snprintf(text, sizeof text, "-ngl %lld", (long long)low);
        keep(s, 0, text);
    }
    return FR_OK;
}

/* Larger budgets, a smaller file and a smaller model always help. */
static void add_sizes(search *s)
{
    const plan_draft *d = s->d;
    char text[160] = "";
    for (int dev = 0; dev < d->n_devices && strlen(text) < 100; dev++) {
        const fr_plan_device *v = &d->devices[dev];
        char section[24] = "[ram] budget";
        if (v->used <= v->budget)
            continue;
        if (dev != FR_PLAN_CPU)
            snprintf(section, sizeof section, "[gpu.%d] vram", dev - 1);
        bool large = v->used >= 1u << 30;
        uint64_t step = large ? 1u << 30 : 1u << 20;
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s = %llu%s",
                 text[0] ? ", " : "more memory: ", section,
                 (unsigned long long)((v->used + step - 1) / step), large ? "GiB" : "MiB");
    }
    keep(s, 0, text);
    double params = (double)d->m->n_params, now = (double)d->m->file_bytes;
    double then = now - (double)s->over;
    if (then <= 0)
        return;
    snprintf(text, sizeof text, "a file with about %.2f bits a weight instead of %.2f",
             8 * then / params, 8 * now / params);
    keep(s, 0, text);
    snprintf(text, sizeof text, "a model of about %.3g B parameters instead of %.4g B",
             params * then / now * 1e-9, params * 1e-9);
    keep(s, 0, text);
}

/* ---- the text ----------------------------------------------------------------------------------
 */

/* The piece with which a device goes over budget, in the order of the file; NULL: its buffers and
 * caches alone do. */
static const plan_piece *first_over(const plan_draft *d, int dev)
{
    const fr_plan_device *v = &d->devices[dev];
    uint64_t sum = v->used - v->weights;
    for (int i = 0; i < d->n_pieces && sum <= v->budget; i++) {
        const plan_piece *p = &d->pieces[i];
        uint64_t here = 0;
        if (p->device == dev)
            here = p->bytes;
        else if (p->device == PLAN_OPEN && d->units[p->item][dev] > 0)
            here =
                p->bytes / (uint64_t)d->items[p->item].n_units * (uint64_t)d->units[p->item][dev];
        sum += here;
        if (sum > v->budget)
            return p;
    }
    return NULL;
}

static fr_status add_part(fr_buf *out, const char *name, uint64_t bytes, const char **sep,
                          fr_err *err)
{
    char size[32];
    if (bytes == 0)
        return FR_OK;
    FR_TRY(fr_buf_printf(out, err, "%s%s %s", *sep, name, fr_format_bytes(bytes, size)));
    *sep = ", ";
    return FR_OK;
}

static fr_status print_device(const plan_draft *d, int dev, fr_buf *out, fr_err *err)
{
    const fr_plan_device *v = &d->devices[dev];
    const plan_piece *p = first_over(d, dev);
    char need[32], has[32], over[32];
    const char *sep = " (";
    FR_TRY(fr_buf_printf(out, err, "\n  %s needs %s of %s", v->id, fr_format_bytes(v->used, need),
                         fr_format_bytes(v->budget, has)));
    FR_TRY(add_part(out, "weights", v->weights, &sep, err));
    FR_TRY(add_part(out, "KV", v->kv, &sep, err));
    FR_TRY(add_part(out, "workspace", v->workspace, &sep, err));
    FR_TRY(add_part(out, "staging", v->staging, &sep, err));
    FR_TRY(add_part(out, "logits", v->logits, &sep, err));
    FR_TRY(add_part(out, "reserve", v->reserve, &sep, err));
    FR_TRY(fr_buf_printf(out, err, "): %s too much", fr_format_bytes(v->used - v->budget, over)));
    return p ? fr_buf_printf(out, err, ", the first over is %s", d->m->weights[p->weight].name)
             : FR_OK;
}

static fr_status print(const search *s, fr_buf *out, fr_err *err)
{
    const plan_draft *d = s->d;
    int n_shown = 0, n_over = 0;
    FR_TRY(fr_buf_printf(out, err,
                         "the model does not fit with a context of %lld:", (long long)d->o.n_ctx));
    for (int dev = d->n_devices - 1; dev >= 0; dev--) {
        if (d->devices[dev].used <= d->devices[dev].budget)
            continue;
        if (n_over++ < 2)
            FR_TRY(print_device(d, dev, out, err));
    }
    if (n_over > 2)
        FR_TRY(fr_buf_printf(out, err, "\n  and %d more devices", n_over - 2));
    FR_TRY(fr_buf_puts(out, "\nwhat would help:", err));
    for (int i = 0; i < s->n && n_shown < MAX_SHOWN; i++) {
        if (s->ways[i].over > 0 && n_shown >= MIN_SHOWN)
            break;
        if (out->n + strlen(s->ways[i].text) + 4 > sizeof err->text)
            break;
        FR_TRY(fr_buf_printf(out, err, "\n  %s", s->ways[i].text));
        n_shown++;
    }
    return FR_OK;
}

/* Those that are enough come first, in the order in which they were tried; then by what they bring.
 */
static void sort_ways(search *s)
{
    for (int i = 1; i < s->n; i++)
        for (int k = i; k > 0 && s->ways[k].over < s->ways[k - 1].over; k--) {
            way w = s->ways[k];
            s->ways[k] = s->ways[k - 1];
            s->ways[k - 1] = w;
        }
}

fr_status plan_fit_explain(const plan_draft *d, fr_err *err)
{
    search s = {.d = d, .over = bytes_over(d), .err = err};
    fr_buf text = {0};
    fr_status st;
    FR_TRY_OUT(st, try_context(&s));
    FR_TRY_OUT(st, try_kv_types(&s));
    FR_TRY_OUT(st, try_ubatch(&s));
    FR_TRY_OUT(st, try_rules(&s));
    FR_TRY_OUT(st, try_layers(&s));
    FR_TRY_OUT(st, try_fit(&s));
    add_sizes(&s);
    sort_ways(&s);
    FR_TRY_OUT(st, print(&s, &text, err));
    st = fr_fail(err, FR_ENOMEM, "%s", text.p);
out:
    fr_buf_free(&text);
    return st;
}
