/* Rules: reading them from the command line, INI files and rule files, and applying them. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "planner/rules_device.h"
#include "planner/rules_internal.h"
#include "quant/qtype.h"

enum { MAX_FILE_BYTES = 4 << 20, MAX_SHOWN = 160, WINDOW = 60, MAX_RULES = 100000 };

fr_status fr_rules_new(fr_rules **out, fr_err *err)
{
    fr_rules *r = FR_NEW(fr_rules, FR_MEM_PLAN, 1, err);
    if (!r)
        return FR_ENOMEM;
    r->arena = fr_arena_make(FR_MEM_PLAN);
    fr_status st = plan_matcher_new(&r->matcher, err);
    if (st != FR_OK) {
        fr_rules_free(r);
        return st;
    }
    *out = r;
    return FR_OK;
}

void fr_rules_free(fr_rules *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        plan_pattern_free(r->items[i].pattern);
    fr_mem_free(r->items);
    plan_matcher_free(r->matcher);
    fr_diagnostics_free(&r->notes);
    fr_arena_free(&r->arena);
    fr_mem_free(r);
}

size_t fr_rules_count(const fr_rules *r)
{
    return r->n;
}

const fr_rule *fr_rules_at(const fr_rules *r, size_t i)
{
    return &r->items[i].rule;
}

/* ---- what texts call a rule
 * ---------------------------------------------------------------------- */

fr_status plan_rule_where(const fr_rule *rule, fr_buf *out, fr_err *err)
{
    if (rule->source == FR_RULE_CPU_MOE)
        return fr_buf_puts(out, rule->text, err);
    if (rule->source == FR_RULE_CLI)
        return fr_buf_printf(out, err, "-ot rule %d", rule->line);
    return fr_buf_printf(out, err, "%s:%d", rule->file ? rule->file : "INI", rule->line);
}

/* Appends at most n bytes of whole characters, control characters as '?'. */
static fr_status add_shown(fr_buf *out, const char *text, size_t n, fr_err *err)
{
    size_t len = strlen(text), at = out->n;
    bool cut = len > n;
    if (cut) {
        len = n;
        len -= fr_utf8_incomplete_tail(text, len);
    }
    FR_TRY(fr_buf_add(out, text, len, err));
    for (; at < out->n; at++)
        if ((unsigned char)out->p[at] < 0x20 || out->p[at] == 0x7F)
            out->p[at] = '?';
    return cut ? fr_buf_puts(out, "...", err) : FR_OK;
}

fr_status fr_rule_describe(const fr_rule *rule, fr_buf *out, fr_err *err)
{
    FR_TRY(plan_rule_where(rule, out, err));
    if (rule->source == FR_RULE_CPU_MOE)
        return FR_OK;
    FR_TRY(fr_buf_puts(out, rule->source == FR_RULE_CLI ? " `" : ": rule `", err));
    FR_TRY(add_shown(out, rule->text, MAX_SHOWN, err));
    return fr_buf_putc(out, '`', err);
}

/* ---- errors
 * -------------------------------------------------------------------------------------- */

/* FR_EINVAL with the rule's name before *what, which it frees; `st` says whether *what could be
 * written. */
static fr_status fail_rule(const fr_rule *rule, fr_status st, fr_buf *what, fr_err *err)
{
    fr_buf name = {0};
    if (st == FR_OK)
        st = fr_rule_describe(rule, &name, err);
    if (st == FR_OK)
        st = fr_fail(err, FR_EINVAL, "%s: %s", name.p, what->p);
    fr_buf_free(&name);
    fr_buf_free(what);
    return st;
}

static size_t characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

/* The surroundings of byte `at`, and a caret below it. */
static fr_status add_caret(fr_buf *out, const char *regex, size_t at, fr_err *err)
{
    size_t from = at > WINDOW ? at - WINDOW : 0;
    while (from > 0 && ((unsigned char)regex[from] & 0xC0) == 0x80)
        from--;
    const char *lead = from ? "..." : "";
    FR_TRY(fr_buf_printf(out, err, "\n    %s", lead));
    FR_TRY(add_shown(out, regex + from, WINDOW + 20, err));
    size_t column = strlen(lead) + characters(regex + from, at - from);
    return fr_buf_printf(out, err, "\n    %*s^", (int)column, "");
}

static fr_status fail_regex(const fr_rule *rule, const plan_pattern_fault *fault, fr_err *err)
{
    fr_buf what = {0};
    const char *hint = rule->regex[0] == '*' ? "; any text is written .*" : "";
    fr_status st = fr_buf_printf(
        &what, err, "found \"%s\" at byte %zu of the expression, expected it to be valid%s",
        fault->what, fault->at, hint);
    if (st == FR_OK)
        st = add_caret(&what, rule->regex, fault->at, err);
    return fail_rule(rule, st, &what, err);
}

/* What the command line's own syntax may have done to a rule. */
static const char *cli_hint(const fr_rule *rule, fr_str regex, fr_str device)
{
    if (rule->source != FR_RULE_CLI)
        return NULL;
    if (fr_str_is(regex, "layout"))
        return "; a layout can be chosen in INI and rule files only";
    if (device.n && memchr(device.p, '=', device.n))
        return "; on the command line the first '=' ends the expression: put one that contains '=' "
               "into a rule file (--override-tensor-file)";
    return NULL;
}

static fr_status fail_device(const fr_rule *rule, fr_str regex, fr_str device, fr_err *err)
{
    fr_buf what = {0};
    int shown = device.n < 60 ? (int)device.n : 60;
    const char *hint = cli_hint(rule, regex, device);
    fr_status st = fr_buf_printf(
        &what, err, "found the device \"%.*s\", expected CPU, CUDA0 (1, 2 ...), CUDA* or NUMA0%s",
        shown, device.n ? device.p : "", hint ? hint : "");
    if (st == FR_OK && !hint)
        st = plan_device_hint(device, &what, err);
    return fail_rule(rule, st, &what, err);
}

/* A rule without '=', or with nothing before it. */
static fr_status fail_shape(const fr_rule *rule, bool has_device, fr_err *err)
{
    fr_buf what = {0};
    const char *text =
        has_device ? "found no expression before '=', expected one; all tensors are written .*"
        : rule->source == FR_RULE_CLI
            ? "found no '=', expected REGEX=DEVICE; on the command line a ',' ends a rule: put an "
              "expression that contains ',' into a rule file (--override-tensor-file)"
            : "found no '=', expected REGEX=DEVICE";
    return fail_rule(rule, fr_buf_puts(&what, text, err), &what, err);
}

/* ---- adding
 * -------------------------------------------------------------------------------------- */

static fr_status compile(fr_rules *r, const fr_rule *rule, plan_pattern **out, fr_err *err)
{
    plan_pattern_fault fault;
    fr_status st =
        plan_pattern_compile(r->matcher, fr_str_of(rule->regex), PLAN_MATCH_RULE, out, &fault, err);
    return st == FR_EINVAL ? fail_regex(rule, &fault, err) : st;
}

/* Takes the finished rule: before the rules of --cpu-moe, unless it is one. */
static fr_status insert(fr_rules *r, const fr_rule *rule, fr_err *err)
{
    plan_pattern *pattern;
    void *items = r->items;
    if (r->n >= MAX_RULES)
        return fr_fail(err, FR_ERANGE, "tensor rules: found more than %d, expected fewer",
                       MAX_RULES);
    FR_TRY(fr_mem_grow(FR_MEM_PLAN, &items, &r->cap, r->n + 1, sizeof *r->items, err));
    r->items = items;
    FR_TRY(compile(r, rule, &pattern, err));
    size_t at = rule->source == FR_RULE_CPU_MOE ? r->n : r->n - r->n_cpu_moe;
    memmove(r->items + at + 1, r->items + at, (r->n - at) * sizeof *r->items);
    r->items[at] = (plan_rule){*rule, pattern};
    r->n++;
    r->n_cpu_moe += rule->source == FR_RULE_CPU_MOE;
    return FR_OK;
}

/* Sets the texts that errors need: the rule as written. */
static fr_status set_text(fr_rules *r, fr_rule *rule, fr_str text, const char *file, fr_err *err)
{
    rule->text = fr_arena_strndup(&r->arena, text.p, text.n, err);
    rule->file = file ? fr_arena_strndup(&r->arena, file, strlen(file), err) : NULL;
    return rule->text && (rule->file || !file) ? FR_OK : FR_ENOMEM;
}

static fr_status finish(fr_rules *r, fr_rule *rule, fr_str regex, fr_str device, int layout,
                        fr_err *err)
{
    if (!plan_target_parse(device, &rule->target))
        return fail_device(rule, regex, device, err);
    if (regex.n == 0)
        return fail_shape(rule, true, err);
    rule->target.layout = layout;
    rule->regex = fr_arena_strndup(&r->arena, regex.p, regex.n, err);
    return rule->regex ? insert(r, rule, err) : FR_ENOMEM;
}

static fr_str part(const char *from, const char *to)
{
    return (fr_str){from, (size_t)(to - from)};
}

/* Says that blanks were dropped: peers keep them, and their rule then matches nothing. */
static fr_status note_blanks(fr_rules *r, const fr_rule *rule, fr_err *err)
{
    fr_buf name = {0};
    fr_status st = fr_rule_describe(rule, &name, err);
    if (st == FR_OK)
        st = fr_diagnostics_add(&r->notes, FR_NOTE, (int)(r->n - r->n_cpu_moe) - 1, err,
                                "%s: found blanks round it or its device, dropped them; other "
                                "programs keep them, and then the rule matches nothing",
                                name.p);
    fr_buf_free(&name);
    return st;
}

static fr_status add_cli_rule(fr_rules *r, fr_str raw, fr_err *err)
{
    fr_str text = fr_str_trim(raw);
    fr_rule rule = {.source = FR_RULE_CLI, .line = ++r->n_cli};
    FR_TRY(set_text(r, &rule, text, NULL, err));
    const char *end = text.p + text.n, *equals = text.n ? memchr(text.p, '=', text.n) : NULL;
    if (!equals)
        return fail_shape(&rule, false, err);
    fr_str regex = fr_str_trim(part(text.p, equals)), device = fr_str_trim(part(equals + 1, end));
    FR_TRY(finish(r, &rule, regex, device, -1, err));
    return regex.n + 1 + device.n == raw.n ? FR_OK : note_blanks(r, &rule, err);
}

fr_status fr_rules_add_cli(fr_rules *r, const char *value, fr_err *err)
{
    for (const char *p = value;;) {
        size_t n = strcspn(p, ",");
        FR_TRY(add_cli_rule(r, (fr_str){p, n}, err));
        if (!p[n])
            return FR_OK;
        p += n + 1;
    }
}

/* ---- lines and files
 * ----------------------------------------------------------------------------- */

static const char *last_of(fr_str s, char c)
{
    return s.n ? memrchr(s.p, c, s.n) : NULL;
}

/* Cuts ",layout=NAME" off the end of *text. */
static fr_status cut_layout(const fr_rule *rule, fr_str *text, int *layout, fr_err *err)
{
    const char *comma = last_of(*text, ','), *end = text->p + text->n;
    *layout = -1;
    if (!comma)
        return FR_OK;
    fr_str tail = fr_str_trim(part(comma + 1, end));
    const char *equals = last_of(tail, '=');
    if (!equals || !fr_str_is(fr_str_trim(part(tail.p, equals)), "layout"))
        return FR_OK;
    fr_str name = fr_str_trim(part(equals + 1, end));
    *text = fr_str_trim(part(text->p, comma));
    for (int i = 0; i < FR_LAYOUT_COUNT; i++)
        if (fr_str_is(name, fr_layout_name((fr_layout)i)))
            *layout = i;
    if (*layout >= 0)
        return FR_OK;
    fr_buf what = {0};
    return fail_rule(rule,
                     fr_buf_printf(&what, err,
                                   "found layout \"%.*s\", expected plain, interleaved or native",
                                   name.n < 60 ? (int)name.n : 60, name.p),
                     &what, err);
}

fr_status fr_rules_add_line(fr_rules *r, fr_rule_source source, const char *line, const char *file,
                            int number, fr_err *err)
{
    fr_str text = fr_str_trim(fr_str_of(line));
    fr_rule rule = {.source = source, .line = number};
    int layout;
    if (text.n == 0 || text.p[0] == '#' || text.p[0] == ';')
        return FR_OK;
    FR_TRY(set_text(r, &rule, text, file, err));
    FR_TRY(cut_layout(&rule, &text, &layout, err));
    const char *end = text.p + text.n, *equals = last_of(text, '=');
    if (!equals)
        return fail_shape(&rule, false, err);
    return finish(r, &rule, fr_str_trim(part(text.p, equals)), fr_str_trim(part(equals + 1, end)),
                  layout, err);
}

/* The lines of a file's text, which is terminated and may be changed. */
static fr_status add_lines(fr_rules *r, char *text, const char *path, fr_err *err)
{
    int number = 1;
    for (char *line = text; line; number++) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        FR_TRY(fr_rules_add_line(r, FR_RULE_FILE, line, path, number, err));
        line = next;
    }
    return FR_OK;
}

fr_status fr_rules_add_file(fr_rules *r, const char *path, fr_err *err)
{
    fr_buf text = {0};
    fr_status st = fr_file_slurp(path, MAX_FILE_BYTES, &text, err);
    if (st == FR_OK && text.n && memchr(text.p, 0, text.n))
        st = fr_fail(err, FR_EFORMAT, "%s: found a zero byte, expected a text, one rule a line",
                     path);
    if (st == FR_OK && text.n)
        st = add_lines(r, text.p + (strncmp(text.p, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0), path, err);
    fr_buf_free(&text);
    return st;
}

/* ---- --cpu-moe
 * ----------------------------------------------------------------------------------- */

/* Alternatives for the numbers 0 .. n - 1, one for each ten: "[0-9]|1[0-2]". */
static fr_status add_layer_numbers(fr_buf *out, int64_t n, fr_err *err)
{
    for (int64_t ten = 0; ten * 10 < n; ten++) {
        int64_t last = n - ten * 10 > 10 ? 9 : n - ten * 10 - 1;
        FR_TRY(fr_buf_puts(out, ten ? "|" : "", err));
        if (ten)
            FR_TRY(fr_buf_printf(out, err, "%lld", (long long)ten));
        FR_TRY(last ? fr_buf_printf(out, err, "[0-%lld]", (long long)last)
                    : fr_buf_putc(out, '0', err));
    }
    return FR_OK;
}

static fr_status cpu_moe_regex(int64_t n_layers, fr_buf *out, fr_err *err)
{
    FR_TRY(fr_buf_puts(out, "^blk\\.(?:", err));
    FR_TRY(n_layers < 0 ? fr_buf_puts(out, "[0-9]+", err) : add_layer_numbers(out, n_layers, err));
    return fr_buf_puts(out, ")\\.ffn_(?:gate|up|down|gate_up)_exps\\.", err);
}

/* Which layers it is about: peers count differently. */
static fr_status note_cpu_moe(fr_rules *r, int64_t n, int64_t first, fr_err *err)
{
    if (n <= first)
        return FR_OK; /* matches nothing: the check says it */
    char none[96] = "";
    if (first > 0)
        snprintf(none, sizeof none, "; the model has no routed experts before layer %lld",
                 (long long)first);
    return fr_diagnostics_add(&r->notes, FR_NOTE, -1, err,
                              "--n-cpu-moe %lld: keeps the routed experts of layers %lld to %lld "
                              "in RAM%s",
                              (long long)n, (long long)first, (long long)n - 1, none);
}

fr_status fr_rules_add_cpu_moe(fr_rules *r, int64_t n_layers, int64_t first_moe_layer, fr_err *err)
{
    enum { MAX_LAYERS = 2000 };
    fr_buf text = {0}, regex = {0};
    fr_rule rule = {.source = FR_RULE_CPU_MOE};
    if (n_layers == 0)
        return FR_OK;
    int64_t counted = n_layers > MAX_LAYERS ? -1 : n_layers; /* more than any model has: all */
    fr_status st = n_layers < 0
                       ? fr_buf_puts(&text, "--cpu-moe", err)
                       : fr_buf_printf(&text, err, "--n-cpu-moe %lld", (long long)n_layers);
    if (st == FR_OK)
        st = cpu_moe_regex(counted, &regex, err);
    if (st == FR_OK)
        st = set_text(r, &rule, (fr_str){text.p, text.n}, NULL, err);
    if (st == FR_OK)
        st = finish(r, &rule, (fr_str){regex.p, regex.n}, FR_STR("CPU"), -1, err);
    if (st == FR_OK && counted > 0)
        st = note_cpu_moe(r, n_layers, first_moe_layer, err);
    fr_buf_free(&text);
    fr_buf_free(&regex);
    return st;
}
