/* Why a rule matches nothing, and the smallest change with which it would: changes of a few kinds
 * are tried on the names, and only what works is said. */
#include <stdio.h>
#include <string.h>

#include "planner/rules_internal.h"
#include "planner/rules_names.h"
#include "quant/qtype.h"

/* How many rules of a check get the full treatment, which takes some milliseconds each. */
enum { FULL_TREATMENTS = 16, MAX_SPANS = 8, MAX_THINGS = 3, MAX_GUESSES = 32, PENALTY = 2 };

struct plan_explainer {
    const fr_rules *r;
    const fr_rules_check_args *args;
    fr_arena arena;
    plan_name_index index;
    int left; /* full treatments */
};

fr_status plan_explainer_new(const fr_rules *r, const fr_rules_check_args *args,
                             plan_explainer **out, fr_err *err)
{
    plan_explainer *x = FR_NEW(plan_explainer, FR_MEM_PLAN, 1, err);
    if (!x)
        return FR_ENOMEM;
    *x = (plan_explainer){r, args, fr_arena_make(FR_MEM_PLAN), {0}, FULL_TREATMENTS};
    fr_status st = plan_names_index(args->names, args->n_names, &x->arena, &x->index, err);
    if (st != FR_OK) {
        plan_explainer_free(x);
        return st;
    }
    *out = x;
    return FR_OK;
}

void plan_explainer_free(plan_explainer *x)
{
    if (!x)
        return;
    fr_arena_free(&x->arena);
    fr_mem_free(x);
}

/* ---- trying
 * -------------------------------------------------------------------------------------- */

/* What a changed expression matches. */
typedef struct {
    size_t n;
    plan_layers layers;        /* of the numbers that its group took */
    bool only_layers;          /* all of these numbers are layers */
    fr_str things[MAX_THINGS]; /* stems of the names behind the number */
    size_t n_things;           /* of all of them */
} trial;

/* The group that stands for the number in a changed expression. */
#define GROUP  "fr_number"
#define NUMBER "(?<" GROUP ">(?<![0-9])[0-9]+(?![0-9]))"

static void note_match(trial *t, fr_str name, fr_str number)
{
    fr_str thing = name;
    int64_t layer = -1;
    t->n++;
    t->only_layers &= number.n && number.p == name.p + 4 && plan_name_layer(name, &layer, &thing);
    plan_layers_add(&t->layers, layer);
    thing = plan_name_stem(thing);
    for (size_t i = 0; i < t->n_things && i < MAX_THINGS; i++)
        if (fr_str_eq(t->things[i], thing))
            return;
    if (t->n_things++ < MAX_THINGS)
        t->things[t->n_things - 1] = thing;
}

/* Tries an expression on all names, or until one matches when t is NULL. Bad or exhausting ones
 * match nothing. */
static fr_status try_regex(const plan_explainer *x, fr_str regex, bool *found, trial *t,
                           fr_err *err)
{
    plan_pattern *p;
    plan_pattern_fault fault;
    *found = false;
    fr_status st = plan_pattern_compile(x->r->matcher, regex, PLAN_MATCH_TRIAL, &p, &fault, err);
    if (st != FR_OK)
        return st == FR_EINVAL ? FR_OK : st;
    if (t)
        *t = (trial){.only_layers = true};
    for (size_t i = 0; st == FR_OK && i < x->args->n_names && (t || !*found); i++) {
        fr_str name = fr_str_of(x->args->names[i]);
        bool yes;
        st = plan_pattern_find(x->r->matcher, p, name, &yes, err);
        if (st == FR_OK && yes && t)
            note_match(t, name, plan_pattern_group(x->r->matcher, p, name, GROUP));
        *found |= st == FR_OK && yes;
    }
    plan_pattern_free(p);
    if (st == FR_ERANGE)
        *found = false;
    return st == FR_ERANGE ? FR_OK : st;
}

/* The numbers up to beyond the last layer that an expression for a number stands for. */
static fr_status numbers_of(const plan_explainer *x, fr_str number, plan_layers *out, fr_err *err)
{
    fr_buf regex = {0};
    plan_pattern *p = NULL;
    plan_pattern_fault fault;
    char text[24];
    *out = (plan_layers){0};
    fr_status st = fr_buf_printf(&regex, err, "^(?:%.*s)$", FR_STR_ARG(number));
    if (st == FR_OK)
        st = plan_pattern_compile(x->r->matcher, (fr_str){regex.p, regex.n}, PLAN_MATCH_TRIAL, &p,
                                  &fault, err);
    for (int64_t i = 0; st == FR_OK && i <= x->index.last_layer + 100; i++) {
        bool yes;
        int n = snprintf(text, sizeof text, "%lld", (long long)i);
        st = plan_pattern_find(x->r->matcher, p, (fr_str){text, (size_t)n}, &yes, err);
        if (st == FR_OK && yes)
            plan_layers_add(out, i);
    }
    plan_pattern_free(p);
    fr_buf_free(&regex);
    return st == FR_EINVAL || st == FR_ERANGE ? FR_OK : st;
}

/* *out = text with [from, to) replaced. */
static fr_status replaced(fr_str text, plan_span at, fr_str by, fr_buf *out, fr_err *err)
{
    fr_buf_clear(out);
    FR_TRY(fr_buf_add(out, text.p, at.from, err));
    FR_TRY(fr_buf_add(out, by.p, by.n, err));
    return fr_buf_add(out, text.p + at.to, text.n - at.to, err);
}

static fr_str view(const fr_buf *b)
{
    return (fr_str){b->n ? b->p : "", b->n};
}

/* ---- saying
 * -------------------------------------------------------------------------------------- */

/* "; smallest change: `REGEX=DEVICE`" */
static fr_status say_change(const fr_rule *rule, fr_str regex, fr_buf *out, fr_err *err)
{
    bool has_layout = rule->target.layout >= 0;
    FR_TRY(fr_buf_printf(out, err, "; smallest change: `%.*s=", FR_STR_ARG(regex)));
    FR_TRY(plan_target_print(&rule->target, out, err));
    return fr_buf_printf(out, err, "%s%s`", has_layout ? ",layout=" : "",
                         has_layout ? fr_layout_name((fr_layout)rule->target.layout) : "");
}

static fr_status say_things(const trial *t, fr_buf *out, fr_err *err)
{
    size_t n = t->n_things < MAX_THINGS ? t->n_things : MAX_THINGS;
    for (size_t i = 0; i < n; i++)
        FR_TRY(fr_buf_printf(out, err, "%s%.*s", i ? ", " : "", FR_STR_ARG(t->things[i])));
    return fr_buf_puts(out, t->n_things > n ? " ..." : "", err);
}

/* "layers 0, 1, 2 have no X, the model has them in layers 3 to 60"; for numbers that are not layers
 * or name none, what is there. */
static fr_status say_layers(const plan_explainer *x, const plan_layers *asked, const trial *t,
                            fr_buf *out, fr_err *err)
{
    plan_layers lacking = {0}, beyond = {0};
    for (int64_t i = plan_layers_next(asked, 0); i >= 0; i = plan_layers_next(asked, i + 1))
        plan_layers_add(i <= x->index.last_layer ? &lacking : &beyond, i);
    bool some = plan_layers_next(&lacking, 0) >= 0;
    if (some) {
        FR_TRY(plan_layers_print(&lacking, out, err));
        bool one = plan_layers_next(&lacking, plan_layers_next(&lacking, 0) + 1) < 0;
        FR_TRY(fr_buf_puts(out, one ? " has no " : " have no ", err));
        FR_TRY(say_things(t, out, err));
    }
    if (plan_layers_next(&beyond, 0) >= 0) {
        FR_TRY(fr_buf_printf(out, err, "%sthe last layer is %lld", some ? ", " : "",
                             (long long)x->index.last_layer));
        some = true;
    }
    FR_TRY(fr_buf_puts(out, some ? ", the model has " : "the model has ", err));
    FR_TRY(plan_layers_next(&lacking, 0) >= 0 ? fr_buf_puts(out, "them", err)
                                              : say_things(t, out, err));
    FR_TRY(fr_buf_puts(out, " in ", err));
    return plan_layers_print(&t->layers, out, err);
}

/* ---- layer numbers that have no such tensor
 * ------------------------------------------------------ */

/* As many neighbouring layers as were asked for, of those that there are, nearest to what was
 * asked. */
static void nearest_range(const plan_layers *have, const plan_layers *asked, int64_t *from,
                          int64_t *to)
{
    int64_t want = 0, first = plan_layers_next(asked, 0), best = -1;
    for (int64_t i = first; i >= 0; i = plan_layers_next(asked, i + 1))
        want++;
    for (int64_t i = plan_layers_next(have, 0); i >= 0; i = plan_layers_next(have, i + 1))
        if (best < 0 ||
            (i > first ? i - first : first - i) < (best > first ? best - first : first - best))
            best = i;
    *from = *to = best;
    while (*to - *from + 1 < want && plan_layers_has(have, *to + 1))
        ++*to;
    while (*to - *from + 1 < want && plan_layers_has(have, *from - 1))
        --*from;
}

/* Puts "any number" for the number at `which` (and for all others too when `all`). */
static fr_status relaxed(fr_str regex, const plan_span *numbers, size_t n, size_t which, bool all,
                         fr_buf *out, fr_err *err)
{
    size_t at = 0;
    fr_buf_clear(out);
    for (size_t i = 0; i < n; i++) {
        if (i != which && !all)
            continue;
        FR_TRY(fr_buf_add(out, regex.p + at, numbers[i].from - at, err));
        FR_TRY(fr_buf_puts(out, i == which ? NUMBER : "[0-9]+", err));
        at = numbers[i].to;
    }
    return fr_buf_add(out, regex.p + at, regex.n - at, err);
}

/* The number whose release makes the expression match, and what it matches then; *which = -1 when
 * there is none. First one alone, then all at once. */
static fr_status release(const plan_explainer *x, fr_str regex, const plan_span *numbers, size_t n,
                         int *which, trial *t, fr_err *err)
{
    fr_buf changed = {0};
    fr_status st = FR_OK;
    bool found = false;
    *which = -1;
    for (size_t i = 0; i < n + (n > 1) && st == FR_OK && !found; i++) {
        st = relaxed(regex, numbers, n, i % n, i == n, &changed, err);
        if (st == FR_OK)
            st = try_regex(x, view(&changed), &found, t, err);
        if (found)
            *which = (int)(i % n);
    }
    fr_buf_free(&changed);
    return st;
}

/* The smallest change of a rule of the user's, when it works; of --n-cpu-moe the smallest N. */
static fr_status say_range(const plan_explainer *x, const fr_rule *rule, fr_str regex,
                           plan_span number, const plan_layers *asked, const trial *t, fr_buf *out,
                           fr_err *err)
{
    fr_buf range = {0}, changed = {0};
    bool found = false;
    int64_t from, to;
    nearest_range(&t->layers, asked, &from, &to);
    if (rule->source == FR_RULE_CPU_MOE)
        return fr_buf_printf(out, err, "; smallest change: --n-cpu-moe %lld", (long long)from + 1);
    fr_status st = plan_range_regex(from, to, &range, err);
    if (st == FR_OK)
        st = replaced(regex, number, view(&range), &changed, err);
    if (st == FR_OK)
        st = try_regex(x, view(&changed), &found, NULL, err);
    if (st == FR_OK && found)
        st = say_change(rule, view(&changed), out, err);
    fr_buf_free(&range);
    fr_buf_free(&changed);
    return st;
}

/* Explains a rule that asks for the wrong numbers; *done when it is one. */
static fr_status explain_numbers(const plan_explainer *x, const fr_rule *rule, fr_str regex,
                                 fr_buf *out, bool *done, fr_err *err)
{
    plan_span numbers[MAX_SPANS];
    size_t n = plan_scan_numbers(regex, numbers, MAX_SPANS);
    int which;
    trial t;
    plan_layers asked;
    FR_TRY(release(x, regex, numbers, n, &which, &t, err));
    *done = which >= 0 && t.only_layers && plan_layers_next(&t.layers, 0) >= 0;
    if (!*done)
        return FR_OK;
    plan_span at = numbers[which];
    FR_TRY(numbers_of(x, (fr_str){regex.p + at.from, at.to - at.from}, &asked, err));
    FR_TRY(say_layers(x, &asked, &t, out, err));
    return say_range(x, rule, regex, at, &asked, &t, out, err);
}

/* ---- misspelt words
 * ------------------------------------------------------------------------------ */

typedef struct {
    plan_span at;
    fr_str word;
    bool before, after; /* '_' that the user's word has at its ends */
    int distance;
    int rank; /* the distance, and of equal ones words of the same length first */
} guess;

static void add_guess(guess *list, size_t *n, guess g)
{
    size_t at = *n;
    while (at > 0 && list[at - 1].rank > g.rank)
        at--;
    if (at >= MAX_GUESSES)
        return;
    *n += *n < MAX_GUESSES;
    memmove(list + at + 1, list + at, (*n - 1 - at) * sizeof *list);
    list[at] = g;
}

/* The words of the names that are near to words of the expression, nearest first. */
static size_t collect_guesses(const plan_explainer *x, fr_str regex, guess *list)
{
    plan_span words[MAX_SPANS];
    size_t n = 0, n_words = plan_scan_words(regex, words, MAX_SPANS);
    for (size_t i = 0; i < n_words; i++) {
        fr_str word = {regex.p + words[i].from, words[i].to - words[i].from};
        guess g = {.at = words[i]};
        g.before = word.p[0] == '_';
        g.after = word.p[word.n - 1] == '_';
        word.p += g.before;
        word.n -= (size_t)g.before + (word.n > 1 && g.after);
        int cap = 1 + (int)(word.n / 4);
        for (size_t k = 0; k < x->index.n_words; k++) {
            g.word = x->index.words[k];
            g.distance = fr_edit_distance(word, g.word, cap + 1);
            g.rank = 2 * g.distance + (g.word.n != word.n);
            if (g.distance > 0 && g.distance <= cap)
                add_guess(list, &n, g);
        }
    }
    return n;
}

static fr_status apply_guess(fr_str regex, const guess *g, fr_buf *out, fr_err *err)
{
    fr_buf word = {0};
    fr_status st = fr_buf_printf(&word, err, "%s%.*s%s", g->before ? "_" : "", FR_STR_ARG(g->word),
                                 g->after ? "_" : "");
    if (st == FR_OK)
        st = replaced(regex, g->at, view(&word), out, err);
    fr_buf_free(&word);
    return st;
}

/* Whether the expression matches, as it is or (*numbers) with other numbers. */
static fr_status try_both(const plan_explainer *x, fr_str regex, bool *found, bool *numbers,
                          fr_err *err)
{
    plan_span spans[MAX_SPANS];
    int which;
    trial t;
    FR_TRY(try_regex(x, regex, found, NULL, err));
    *numbers = false;
    if (*found)
        return FR_OK;
    size_t n = plan_scan_numbers(regex, spans, MAX_SPANS);
    FR_TRY(release(x, regex, spans, n, &which, &t, err));
    *found = *numbers = which >= 0 && t.only_layers;
    return FR_OK;
}

static fr_status best_guess(const plan_explainer *x, fr_str regex, const guess *list, size_t n,
                            int *best, bool *numbers, fr_err *err)
{
    fr_buf changed = {0};
    fr_status st = FR_OK;
    int cost = 1000;
    *best = -1;
    for (size_t i = 0; i < n && st == FR_OK && list[i].distance < cost; i++) {
        bool found = false, with_numbers = false;
        st = apply_guess(regex, &list[i], &changed, err);
        if (st == FR_OK)
            st = try_both(x, view(&changed), &found, &with_numbers, err);
        int c = list[i].distance + (with_numbers ? PENALTY : 0);
        if (st == FR_OK && found && c < cost) {
            cost = c;
            *best = (int)i;
            *numbers = with_numbers;
        }
    }
    fr_buf_free(&changed);
    return st;
}

static fr_status explain_words(const plan_explainer *x, const fr_rule *rule, fr_str regex,
                               fr_buf *out, bool *done, fr_err *err)
{
    guess list[MAX_GUESSES + 1];
    size_t n = collect_guesses(x, regex, list);
    fr_buf changed = {0};
    bool numbers = false;
    int best;
    FR_TRY(best_guess(x, regex, list, n, &best, &numbers, err));
    *done = best >= 0;
    if (!*done)
        return FR_OK;
    const guess *g = &list[best];
    fr_status st = fr_buf_printf(out, err, "no name contains %.*s here, did you mean %.*s?%s",
                                 (int)(g->at.to - g->at.from), regex.p + g->at.from,
                                 FR_STR_ARG(g->word), numbers ? " Then: " : "");
    if (st == FR_OK)
        st = apply_guess(regex, g, &changed, err);
    if (st == FR_OK && numbers)
        st = explain_numbers(x, rule, view(&changed), out, &numbers, err);
    else if (st == FR_OK)
        st = say_change(rule, view(&changed), out, err);
    fr_buf_free(&changed);
    return st;
}

/* ---- habits of other places
 * ---------------------------------------------------------------------- */

/* Two backslashes where a shell or a file wanted them doubled. */
static fr_status halve_backslashes(fr_str re, fr_buf *out, fr_err *err)
{
    for (size_t i = 0; i < re.n; i++) {
        FR_TRY(fr_buf_putc(out, re.p[i], err));
        i += re.p[i] == '\\' && i + 1 < re.n && re.p[i + 1] == '\\';
    }
    return FR_OK;
}

static fr_status to_lower(fr_str re, fr_buf *out, fr_err *err)
{
    for (size_t i = 0; i < re.n; i++) {
        bool upper = re.p[i] >= 'A' && re.p[i] <= 'Z' && (i == 0 || re.p[i - 1] != '\\');
        FR_TRY(fr_buf_putc(out, (char)(upper ? re.p[i] + 32 : re.p[i]), err));
    }
    return FR_OK;
}

static fr_status drop_blanks_and_quotes(fr_str re, fr_buf *out, fr_err *err)
{
    for (size_t i = 0; i < re.n; i++)
        if (!strchr(" \t\"'", re.p[i]))
            FR_TRY(fr_buf_putc(out, re.p[i], err));
    return FR_OK;
}

static fr_status drop_anchors(fr_str re, fr_buf *out, fr_err *err)
{
    bool front = re.n && re.p[0] == '^', back = re.n > 1 && re.p[re.n - 1] == '$';
    return fr_buf_add(out, re.p + front, re.n - front - back, err);
}

static const struct {
    fr_status (*rewrite)(fr_str re, fr_buf *out, fr_err *err);
    const char *why;
} habits[] = {
    {halve_backslashes, "two backslashes stand for one in the name, and names have none"},
    {to_lower, "names are in lower case"},
    {drop_blanks_and_quotes, "names have no blanks or quotes"},
    {drop_anchors, "^ and $ stand for the begin and the end of the whole name, as in "
                   "^blk\\.3\\.ffn_up\\.weight$"},
};

static fr_status explain_habits(const plan_explainer *x, const fr_rule *rule, fr_str regex,
                                fr_buf *out, bool *done, fr_err *err)
{
    fr_buf changed = {0};
    fr_status st = FR_OK;
    *done = false;
    for (size_t i = 0; i < sizeof habits / sizeof *habits && st == FR_OK && !*done; i++) {
        fr_buf_clear(&changed);
        st = habits[i].rewrite(regex, &changed, err);
        if (st == FR_OK && !fr_str_eq(view(&changed), regex))
            st = try_regex(x, view(&changed), done, NULL, err);
        if (st == FR_OK && *done)
            st = fr_buf_puts(out, habits[i].why, err);
    }
    if (st == FR_OK && *done)
        st = say_change(rule, view(&changed), out, err);
    fr_buf_free(&changed);
    return st;
}

/* Names of tensors outside GGUF files. */
static const struct {
    const char *there, *here;
} other_names[] = {
    {"layers", "layers are blk.0, blk.1 ..."},
    {"experts", "routed experts ffn_(gate|up|down)_exps"},
    {"mlp", "feed-forward parts ffn_"},
    {"self_attn", "attention parts attn_"},
    {"embed_tokens", "the embedding token_embd"},
    {"lm_head", "the output matrix output"},
};

static fr_status explain_other_names(fr_str regex, fr_buf *out, bool *done, fr_err *err)
{
    for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++) {
        if (!memmem(regex.p, regex.n, other_names[i].there, strlen(other_names[i].there)))
            continue;
        FR_TRY(
            fr_buf_printf(out, err, "%s%s", *done ? ", " : "in GGUF files, ", other_names[i].here));
        *done = true;
    }
    return FR_OK;
}

/* A line of a file that holds several rules, as on a command line: "a=CPU,b=CUDA0". */
static fr_status explain_list(const fr_rule *rule, fr_buf *out, bool *done, fr_err *err)
{
    const char *comma = strchr(rule->regex, ',');
    fr_target ignored;
    *done = false;
    if (rule->source == FR_RULE_CLI || !comma)
        return FR_OK;
    fr_str first = {rule->regex, (size_t)(comma - rule->regex)};
    const char *equals = first.n ? memrchr(first.p, '=', first.n) : NULL;
    if (!equals)
        return FR_OK;
    fr_str device = fr_str_trim((fr_str){equals + 1, (size_t)(comma - equals - 1)});
    *done = plan_target_parse(device, &ignored);
    return *done ? fr_buf_printf(out, err,
                                 "a line of a file is one rule and may contain ','; write the "
                                 "rules on lines of their own, the first is `%.*s`",
                                 FR_STR_ARG(first))
                 : FR_OK;
}

/* ---- all together
 * -------------------------------------------------------------------------------- */

static fr_status explain_nearest(const plan_explainer *x, fr_str regex, fr_buf *out, fr_err *err)
{
    fr_buf sample = {0};
    fr_status st = plan_scan_sample(regex, &sample, err);
    if (st == FR_OK)
        st = fr_buf_puts(out, "the nearest names: ", err);
    if (st == FR_OK)
        st = plan_names_nearest(&x->index, view(&sample), out, err);
    fr_buf_free(&sample);
    return st;
}

fr_status plan_explain_no_match(plan_explainer *x, const fr_rule *rule, fr_buf *out, fr_err *err)
{
    fr_str regex = fr_str_of(rule->regex);
    bool done = false, full = x->left > 0;
    x->left -= full;
    if (x->index.n_kinds == 0)
        return fr_buf_puts(out, "the model has no tensors", err);
    FR_TRY(explain_list(rule, out, &done, err));
    if (full && !done)
        FR_TRY(explain_numbers(x, rule, regex, out, &done, err));
    if (!done && rule->source == FR_RULE_CPU_MOE)
        return fr_buf_puts(out, "the model has no routed experts", err);
    if (full && !done)
        FR_TRY(explain_habits(x, rule, regex, out, &done, err));
    if (full && !done)
        FR_TRY(explain_words(x, rule, regex, out, &done, err));
    if (!done)
        FR_TRY(explain_other_names(regex, out, &done, err));
    return done ? FR_OK : explain_nearest(x, regex, out, err);
}
