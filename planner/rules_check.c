/* Checking rules against a model and a machine: what has no effect, what cannot be, what is slow.
 */
#include <string.h>

#include "planner/rules_internal.h"
#include "planner/rules_scan.h"

enum { MAX_TAKERS = 4 };

typedef struct {
    const fr_rules *r;
    const fr_rules_check_args *args;
    fr_diagnostics *out;
    size_t *n_taken;  /* of each rule: tensors that it takes at least an expert of */
    bool *dead;       /* beyond the match limit: an error was reported, they are left out */
    size_t *taken_by; /* scratch of a shadowed rule: tensors that each rule takes from it */
    fr_rule_pieces pieces;
    plan_explainer *explainer; /* made when it is needed */
} check;

/* ---- reporting
 * ----------------------------------------------------------------------------------- */

/* Of rules without effect. */
static fr_severity severity_of(const check *c, const fr_rule *rule)
{
    bool file = rule->source == FR_RULE_INI || rule->source == FR_RULE_FILE;
    if (c->args->strictness != 0)
        return c->args->strictness > 0 ? FR_ERROR : FR_WARNING;
    return file ? FR_ERROR : FR_WARNING;
}

/* Reports "rule: text" and frees the text; `st` says whether it could be written. */
static fr_status report(check *c, fr_severity severity, size_t rule, fr_status st, fr_buf *text,
                        fr_err *err)
{
    fr_buf name = {0};
    if (st == FR_OK)
        st = fr_rule_describe(&c->r->items[rule].rule, &name, err);
    if (st == FR_OK)
        st = fr_diagnostics_add(c->out, severity, (int)rule, err, "%s: %s", name.p, text->p);
    fr_buf_free(&name);
    fr_buf_free(text);
    return st;
}

static int64_t experts_of(const check *c, size_t i)
{
    return c->args->n_experts && c->args->n_experts[i] > 1 ? c->args->n_experts[i] : 1;
}

/* Reports a rule that exceeds the match limit, once, and leaves it out from then on. */
static fr_status kill(check *c, size_t rule, const fr_err *why, fr_err *err)
{
    c->dead[rule] = true;
    return fr_diagnostics_add(c->out, FR_ERROR, (int)rule, err, "%s", why->text);
}

static fr_status matches(check *c, size_t rule, const char *name, bool *yes, fr_err *err)
{
    fr_err why;
    *yes = false;
    if (c->dead[rule])
        return FR_OK;
    fr_status st = plan_rule_matches(c->r, rule, name, yes, &why);
    if (st == FR_ERANGE)
        return kill(c, rule, &why, err);
    return st == FR_OK ? FR_OK : fr_fail(err, st, "%s", why.text);
}

/* fr_rules_apply into c->pieces. */
static fr_status apply(check *c, size_t name, fr_err *err)
{
    for (;;) {
        fr_err why;
        size_t failed = 0;
        fr_status st = plan_rules_apply(c->r, c->dead, c->args->names[name], experts_of(c, name),
                                        &c->pieces, &failed, &why);
        if (st != FR_ERANGE)
            return st == FR_OK ? FR_OK : fr_fail(err, st, "%s", why.text);
        FR_TRY(kill(c, failed, &why, err));
    }
}

/* Adds one to the count of each rule that takes something of the tensor in c->pieces. */
static void tally(const check *c, size_t *counts)
{
    const fr_rule_piece *p = c->pieces.items;
    for (size_t i = 0; i < c->pieces.n; i++) {
        bool again = p[i].rule < 0;
        for (size_t k = 0; k < i; k++)
            again |= p[k].rule == p[i].rule;
        if (!again)
            counts[p[i].rule]++;
    }
}

/* ---- devices
 * ------------------------------------------------------------------------------------- */

static fr_status check_device(check *c, size_t i, fr_err *err)
{
    const fr_target *t = &c->r->items[i].rule.target;
    int n_gpus = c->args->n_gpus, n_numa = c->args->n_numa > 0 ? c->args->n_numa : 1;
    fr_buf text = {0};
    fr_status st = FR_OK;
    if ((t->kind == FR_TARGET_GPU && n_gpus == 0) || (t->kind == FR_TARGET_ANY_GPU && n_gpus == 0))
        st = fr_buf_puts(&text,
                         "found a GPU, expected CPU: this machine has no GPU; if it has, describe "
                         "it in a section [gpu.0]",
                         err);
    else if (t->kind == FR_TARGET_GPU && t->index >= n_gpus)
        st = fr_buf_printf(&text, err, "found CUDA%d, expected CUDA0%s", t->index,
                           n_gpus == 1 ? ", the only GPU" : "");
    else if (t->kind == FR_TARGET_NUMA && t->index >= n_numa)
        st = fr_buf_printf(&text, err, "found NUMA%d, expected NUMA0%s", t->index,
                           n_numa == 1 ? ": there is one node" : "");
    else
        return FR_OK;
    if (st == FR_OK && t->kind == FR_TARGET_GPU && n_gpus > 1)
        st = fr_buf_printf(&text, err, " to CUDA%d: there are %d GPUs", n_gpus - 1, n_gpus);
    if (st == FR_OK && t->kind == FR_TARGET_NUMA && n_numa > 1)
        st = fr_buf_printf(&text, err, " to NUMA%d: there are %d nodes", n_numa - 1, n_numa);
    return report(c, FR_ERROR, i, st, &text, err);
}

/* ---- rules without effect
 * ------------------------------------------------------------------------ */

static fr_status report_no_match(check *c, size_t i, fr_err *err)
{
    const fr_rule *rule = &c->r->items[i].rule;
    fr_buf text = {0};
    fr_status st = FR_OK;
    if (!c->explainer)
        st = plan_explainer_new(c->r, c->args, &c->explainer, err);
    if (st == FR_OK)
        st = fr_buf_puts(&text, "found no tensor that it matches, expected at least one; ", err);
    if (st == FR_OK)
        st = plan_explain_no_match(c->explainer, rule, &text, err);
    return report(c, severity_of(c, rule), i, st, &text, err);
}

/* "-ot rule 1 `exps=CPU` (174 tensors), ...": who takes what the shadowed rule matches. */
static fr_status say_takers(check *c, fr_buf *out, fr_err *err)
{
    size_t said = 0;
    for (size_t i = 0; i < c->r->n; i++) {
        if (!c->taken_by[i])
            continue;
        if (said == MAX_TAKERS)
            return fr_buf_puts(out, ", ...", err);
        FR_TRY(fr_buf_puts(out, said++ ? ", " : "", err));
        FR_TRY(fr_rule_describe(&c->r->items[i].rule, out, err));
        FR_TRY(fr_buf_printf(out, err, " (%zu tensor%s)", c->taken_by[i],
                             c->taken_by[i] == 1 ? "" : "s"));
    }
    return FR_OK;
}

static fr_status report_shadowed(check *c, size_t i, fr_err *err)
{
    const fr_rule *rule = &c->r->items[i].rule;
    fr_buf text = {0};
    fr_status st =
        fr_buf_puts(&text,
                    "found no tensor left for it, expected at least one: the first match "
                    "wins, and all that it matches goes to ",
                    err);
    size_t first = 0;
    while (first < c->r->n && !c->taken_by[first])
        first++;
    if (st == FR_OK)
        st = say_takers(c, &text, err);
    if (st == FR_OK)
        st = fr_buf_puts(&text, "; smallest change: put it before ", err);
    if (st == FR_OK)
        st = plan_rule_where(&c->r->items[first].rule, &text, err);
    return report(c, severity_of(c, rule), i, st, &text, err);
}

/* What a sliced rule meets: plain tensors pass it, and a stack may be smaller than the slice. */
typedef struct {
    size_t n_plain;
    int64_t n_experts; /* of the smallest stack; 0: none */
} slice_facts;

static fr_status report_slice(check *c, size_t i, const slice_facts *facts, fr_err *err)
{
    const fr_rule *rule = &c->r->items[i].rule;
    const fr_target *t = &rule->target;
    bool reached = t->expert_from < facts->n_experts; /* else the rule has no effect at all */
    fr_severity severity = reached ? FR_WARNING : severity_of(c, rule);
    fr_buf text = {0};
    if (facts->n_experts && t->expert_to >= facts->n_experts) {
        fr_status st = fr_buf_printf(&text, err,
                                     "found experts up to %lld, expected at most %lld: there are "
                                     "%lld, counted from 0",
                                     (long long)t->expert_to, (long long)facts->n_experts - 1,
                                     (long long)facts->n_experts);
        FR_TRY(report(c, severity, i, st, &text, err));
    }
    if (!facts->n_plain)
        return FR_OK;
    fr_status st = fr_buf_printf(&text, err,
                                 "found %zu tensor%s without experts, expected none: a rule with a "
                                 "slice passes over them",
                                 facts->n_plain, facts->n_plain == 1 ? "" : "s");
    return report(c, severity, i, st, &text, err);
}

/* Looks at all that a rule matches, which is needed when it takes nothing or has a slice. */
static fr_status check_effect(check *c, size_t i, fr_err *err)
{
    const fr_rule *rule = &c->r->items[i].rule;
    bool sliced = rule->target.expert_from >= 0;
    slice_facts facts = {0};
    size_t n_matched = 0;
    if (c->dead[i] || (c->n_taken[i] && !sliced))
        return FR_OK;
    memset(c->taken_by, 0, c->r->n * sizeof *c->taken_by);
    for (size_t k = 0; k < c->args->n_names; k++) {
        bool yes;
        int64_t n = experts_of(c, k);
        FR_TRY(matches(c, i, c->args->names[k], &yes, err));
        if (!yes)
            continue;
        n_matched++;
        if (!c->n_taken[i]) {
            FR_TRY(apply(c, k, err));
            tally(c, c->taken_by);
        }
        facts.n_plain += n == 1;
        if (n > 1 && (facts.n_experts == 0 || n < facts.n_experts))
            facts.n_experts = n;
    }
    if (c->dead[i])
        return FR_OK;
    if (n_matched == 0)
        return report_no_match(c, i, err);
    if (sliced)
        FR_TRY(report_slice(c, i, &facts, err));
    bool reached = !sliced || rule->target.expert_from < facts.n_experts;
    bool hidden = !c->n_taken[i] && reached && rule->source != FR_RULE_CPU_MOE;
    return hidden ? report_shadowed(c, i, err) : FR_OK;
}

/* ---- experts of a layer on different devices
 * ----------------------------------------------------- */

enum { N_PARTS = 3 };
static const char *const part_names[N_PARTS] = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"};

/* Where the rules put the three matrices of one expert: rule numbers, -1 where none says. */
typedef struct {
    int rule[N_PARTS];
} placing;

static const fr_target *target_of(const check *c, int rule)
{
    return rule < 0 ? NULL : &c->r->items[rule].rule.target;
}

/* Whether two matrices surely go to different devices. */
static bool apart(const fr_target *a, const fr_target *b)
{
    if (!a || !b)
        return false;
    bool gpu_a = a->kind >= FR_TARGET_GPU, gpu_b = b->kind >= FR_TARGET_GPU;
    if (gpu_a != gpu_b)
        return true;
    return a->kind == FR_TARGET_GPU && b->kind == FR_TARGET_GPU && a->index != b->index;
}

static bool is_torn(const check *c, const placing *p)
{
    for (int i = 0; i < N_PARTS; i++)
        for (int k = 0; k < i; k++)
            if (apart(target_of(c, p->rule[i]), target_of(c, p->rule[k])))
                return true;
    return false;
}

static bool same_devices(const check *c, const placing *a, const placing *b)
{
    for (int i = 0; i < N_PARTS; i++) {
        const fr_target *x = target_of(c, a->rule[i]), *y = target_of(c, b->rule[i]);
        if (!x != !y || (x && (x->kind != y->kind || x->index != y->index)))
            return false;
    }
    return true;
}

static int rule_of_expert(const fr_rule_pieces *p, int64_t expert)
{
    for (size_t i = 0; i < p->n; i++)
        if (expert >= p->items[i].expert_from && expert <= p->items[i].expert_to)
            return p->items[i].rule;
    return -1;
}

/* The three matrices of each layer. */
typedef struct {
    size_t name[PLAN_MAX_LAYERS][N_PARTS]; /* index + 1, 0 for none */
    placing at[PLAN_MAX_LAYERS];           /* of torn layers */
    plan_layers torn;                      /* and not reported yet */
} layer_parts;

static void find_parts(const check *c, layer_parts *parts)
{
    for (size_t i = 0; i < c->args->n_names; i++) {
        int64_t layer;
        fr_str rest;
        if (!plan_name_layer(fr_str_of(c->args->names[i]), &layer, &rest))
            continue;
        for (int k = 0; k < N_PARTS; k++) {
            size_t n = strlen(part_names[k]);
            if (rest.n > n && rest.p[n] == '.' && memcmp(rest.p, part_names[k], n) == 0)
                parts->name[layer][k] = i + 1;
        }
    }
}

/* The first expert of a layer whose matrices go to different devices; *torn = false: none does. */
static fr_status find_torn(check *c, const size_t name[N_PARTS], placing *out, bool *torn,
                           fr_err *err)
{
    fr_rule_pieces pieces[N_PARTS] = {{0}};
    fr_status st = FR_OK;
    *torn = false;
    for (int k = 0; k < N_PARTS && st == FR_OK; k++) {
        if (name[k]) {
            st = apply(c, name[k] - 1, err);
            fr_rule_pieces swap = pieces[k];
            pieces[k] = c->pieces;
            c->pieces = swap;
        }
    }
    for (int k = 0; k < N_PARTS && st == FR_OK; k++) /* devices change where a piece begins */
        for (size_t i = 0; i < pieces[k].n && !*torn; i++) {
            for (int j = 0; j < N_PARTS; j++)
                out->rule[j] = rule_of_expert(&pieces[j], pieces[k].items[i].expert_from);
            *torn = is_torn(c, out);
        }
    for (int k = 0; k < N_PARTS; k++)
        fr_rule_pieces_free(&pieces[k]);
    return st;
}

static fr_status say_part(const check *c, const placing *p, int k, fr_buf *out, fr_err *err)
{
    const fr_target *t = target_of(c, p->rule[k]);
    if (!t)
        return FR_OK;
    fr_target whole = *t;
    whole.expert_from = -1;
    FR_TRY(fr_buf_printf(out, err, "%s%s on ", out->n ? ", " : "", part_names[k]));
    FR_TRY(plan_target_print(&whole, out, err));
    FR_TRY(fr_buf_puts(out, " (", err));
    FR_TRY(plan_rule_where(&c->r->items[p->rule[k]].rule, out, err));
    return fr_buf_putc(out, ')', err);
}

static fr_status report_torn(check *c, const plan_layers *layers, const placing *p, fr_err *err)
{
    fr_buf where = {0}, parts = {0};
    fr_status st = plan_layers_print(layers, &where, err);
    for (int k = 0; k < N_PARTS && st == FR_OK; k++)
        st = say_part(c, p, k, &parts, err);
    if (st == FR_OK)
        st = fr_diagnostics_add(c->out, FR_WARNING, -1, err,
                                "%s: found %s, expected the three matrices of an expert on one "
                                "device: what lies between them has to travel for every token; "
                                "let one rule name all three, ffn_(gate|up|down)_exps",
                                where.p, parts.p);
    fr_buf_free(&where);
    fr_buf_free(&parts);
    return st;
}

/* Layers that are torn in the same way are reported together, with the rules of the first. */
static fr_status check_torn(check *c, layer_parts *parts, fr_err *err)
{
    for (int64_t i = 0; i < PLAN_MAX_LAYERS; i++) {
        bool torn;
        FR_TRY(find_torn(c, parts->name[i], &parts->at[i], &torn, err));
        if (torn)
            plan_layers_add(&parts->torn, i);
    }
    for (int64_t i; (i = plan_layers_next(&parts->torn, 0)) >= 0;) {
        plan_layers same = {0};
        for (int64_t k = i; k >= 0; k = plan_layers_next(&parts->torn, k + 1))
            if (same_devices(c, &parts->at[i], &parts->at[k]))
                plan_layers_add(&same, k);
        FR_TRY(report_torn(c, &same, &parts->at[i], err));
        for (int w = 0; w < PLAN_MAX_LAYERS / 64; w++)
            parts->torn.bits[w] &= ~same.bits[w];
    }
    return FR_OK;
}

/* ---- the embedding
 * ------------------------------------------------------------------------------- */

/* A row of token_embd is read for a token: that is no work for a GPU, unless it is the output
 * matrix as well. */
static fr_status check_embedding(check *c, fr_err *err)
{
    size_t embedding = c->args->n_names;
    bool has_output = false;
    for (size_t i = 0; i < c->args->n_names; i++) {
        has_output |= strcmp(c->args->names[i], "output.weight") == 0;
        if (strcmp(c->args->names[i], "token_embd.weight") == 0)
            embedding = i;
    }
    if (!has_output || embedding == c->args->n_names)
        return FR_OK;
    FR_TRY(apply(c, embedding, err));
    int rule = c->pieces.items[0].rule;
    const fr_target *t = target_of(c, rule);
    if (!t || t->kind < FR_TARGET_GPU)
        return FR_OK;
    fr_buf text = {0};
    fr_status st =
        fr_buf_puts(&text,
                    "found token_embd.weight on a GPU, expected it in RAM: a token reads "
                    "one row of it, so it takes VRAM and makes nothing faster; put "
                    "`^token_embd=CPU` before this rule",
                    err);
    return report(c, FR_WARNING, (size_t)rule, st, &text, err);
}

/* ---- all
 * ----------------------------------------------------------------------------------------- */

static fr_status copy_notes(check *c, fr_err *err)
{
    for (size_t i = 0; i < c->r->notes.n; i++) {
        const fr_diagnostic *d = &c->r->notes.items[i];
        FR_TRY(fr_diagnostics_add(c->out, d->severity, d->rule, err, "%s", d->text));
    }
    return FR_OK;
}

static fr_status count_taken(check *c, fr_err *err)
{
    for (size_t i = 0; i < c->args->n_names; i++) {
        FR_TRY(apply(c, i, err));
        tally(c, c->n_taken);
    }
    return FR_OK;
}

static fr_status check_all(check *c, layer_parts *parts, fr_err *err)
{
    FR_TRY(copy_notes(c, err));
    FR_TRY(count_taken(c, err));
    for (size_t i = 0; i < c->r->n; i++) {
        FR_TRY(check_device(c, i, err));
        FR_TRY(check_effect(c, i, err));
    }
    find_parts(c, parts);
    FR_TRY(check_torn(c, parts, err));
    return check_embedding(c, err);
}

fr_status fr_rules_check(const fr_rules *r, const fr_rules_check_args *args, fr_diagnostics *out,
                         fr_err *err)
{
    fr_arena arena = fr_arena_make(FR_MEM_PLAN);
    check c = {.r = r, .args = args, .out = out};
    c.n_taken = FR_ARENA_NEW(size_t, &arena, r->n + 1, err);
    c.dead = FR_ARENA_NEW(bool, &arena, r->n + 1, err);
    c.taken_by = FR_ARENA_NEW(size_t, &arena, r->n + 1, err);
    layer_parts *parts = FR_ARENA_NEW(layer_parts, &arena, 1, err);
    bool ready = c.n_taken && c.dead && c.taken_by && parts;
    fr_status st = ready ? check_all(&c, parts, err) : FR_ENOMEM;
    fr_rule_pieces_free(&c.pieces);
    plan_explainer_free(c.explainer);
    fr_arena_free(&arena);
    return st;
}
