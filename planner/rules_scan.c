/* Numbers, words and samples of regular expressions; sets of layers. */
#include "planner/rules_scan.h"

#include <string.h>

enum { MAX_DEPTH = 4, MAX_LISTED = 3 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* ---- tokens
 * -------------------------------------------------------------------------------------- */

/* The end of the class that begins at i; `[]` is empty, `[^]` is anything. */
static size_t class_end(fr_str re, size_t i)
{
    for (i++; i < re.n && re.p[i] != ']'; i++)
        i += re.p[i] == '\\';
    return i < re.n ? i + 1 : re.n;
}

/* The end of `{2}`, `{2,}` or `{2,3}` at i, or i. */
static size_t braces_end(fr_str re, size_t i)
{
    size_t at = i + 1;
    while (at < re.n && (is_digit(re.p[at]) || re.p[at] == ','))
        at++;
    return at > i + 1 && at < re.n && re.p[at] == '}' ? at + 1 : i;
}

/* The end of the head of a group at i: behind `(`, `(?:`, `(?<name>`. */
static size_t head_end(fr_str re, size_t i)
{
    if (++i >= re.n || re.p[i] != '?')
        return i;
    while (i < re.n && !strchr(":=!>)", re.p[i]))
        i++;
    return i < re.n && re.p[i] != ')' ? i + 1 : i;
}

/* The end of the token at i < re.n, always beyond i. */
static size_t token_end(fr_str re, size_t i)
{
    size_t end = i + 1;
    if (re.p[i] == '\\')
        end = i + 2;
    else if (re.p[i] == '[')
        end = class_end(re, i);
    else if (re.p[i] == '(')
        end = head_end(re, i);
    else if (re.p[i] == '{')
        end = braces_end(re, i) > i ? braces_end(re, i) : i + 1;
    return end < re.n ? end : re.n;
}

/* ---- numbers
 * ------------------------------------------------------------------------------------- */

static size_t number_end(fr_str re, size_t i, int depth);

/* `(3|1[0-2])`: a group of numbers only; else i. */
static size_t number_group_end(fr_str re, size_t i, int depth)
{
    if (depth >= MAX_DEPTH)
        return i;
    for (size_t at = head_end(re, i); at < re.n; at++) {
        size_t end = number_end(re, at, depth + 1);
        if (end == at || end >= re.n || (re.p[end] != '|' && re.p[end] != ')'))
            return i;
        at = end;
        if (re.p[at] == ')')
            return at + 1;
    }
    return i;
}

static size_t number_class_end(fr_str re, size_t i)
{
    size_t at = i + 1;
    while (at < re.n && (is_digit(re.p[at]) || re.p[at] == '-'))
        at++;
    return at > i + 1 && at < re.n && re.p[at] == ']' ? at + 1 : i;
}

static size_t number_atom_end(fr_str re, size_t i, int depth)
{
    if (i >= re.n)
        return i;
    if (is_digit(re.p[i]))
        return i + 1;
    if (re.p[i] == '\\')
        return i + 1 < re.n && re.p[i + 1] == 'd' ? i + 2 : i;
    if (re.p[i] == '[')
        return number_class_end(re, i);
    return re.p[i] == '(' ? number_group_end(re, i, depth) : i;
}

static size_t quantifier_end(fr_str re, size_t i)
{
    if (i < re.n && re.p[i] == '{')
        i = braces_end(re, i);
    else if (i < re.n && strchr("?*+", re.p[i]))
        i++;
    else
        return i;
    return i < re.n && re.p[i] == '?' ? i + 1 : i;
}

/* The end of the longest run of numbers at i, or i. */
static size_t number_end(fr_str re, size_t i, int depth)
{
    for (;;) {
        size_t atom = number_atom_end(re, i, depth);
        if (atom == i)
            return i;
        i = quantifier_end(re, atom);
    }
}

size_t plan_scan_numbers(fr_str re, plan_span *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < re.n && n < max;) {
        size_t end = number_end(re, i, 0);
        bool alone = (i == 0 || !is_letter(re.p[i - 1])) && (end >= re.n || !is_letter(re.p[end]));
        if (end > i && alone)
            out[n++] = (plan_span){i, end};
        i = end > i ? end : token_end(re, i);
    }
    return n;
}

/* ---- words and samples
 * --------------------------------------------------------------------------- */

size_t plan_scan_words(fr_str re, plan_span *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < re.n && n < max;) {
        size_t end = i;
        bool letter = false;
        for (; end < re.n && (is_letter(re.p[end]) || is_digit(re.p[end])); end++)
            letter |= is_letter(re.p[end]) && re.p[end] != '_';
        if (letter && end - i >= 3)
            out[n++] = (plan_span){i, end};
        i = end > i ? end : token_end(re, i);
    }
    return n;
}

/* The end of the group that i is in: the ')' or the end of the expression. */
static size_t group_end(fr_str re, size_t i)
{
    for (int depth = 0; i < re.n; i = token_end(re, i)) {
        if (re.p[i] == ')' && depth-- == 0)
            return i;
        depth += re.p[i] == '(';
    }
    return re.n;
}

/* What stands in a sample for the token at i: a character, or 0 for nothing. */
static char sample_of(fr_str re, size_t i, size_t end)
{
    char c = re.p[i], next = i + 1 < re.n ? re.p[i + 1] : 0;
    if (c == '\\')
        return next == 'd' ? '0' : strchr("wWsSbBDAzZ", next) ? 0 : next;
    if (c == '[')
        return end > i + 2 && next != '^' && next != '\\' ? next : 0;
    if (c == '.')
        return next == '*' || next == '+' ? 0 : '.';
    return strchr("()|*+?^$", c) || (c == '{' && end > i + 1) ? 0 : c;
}

fr_status plan_scan_sample(fr_str re, fr_buf *out, fr_err *err)
{
    for (size_t i = 0; i < re.n;) {
        size_t end = token_end(re, i);
        char c = sample_of(re, i, end);
        if (c)
            FR_TRY(fr_buf_putc(out, c, err));
        i = re.p[i] == '|' ? group_end(re, end) : end;
    }
    return FR_OK;
}

/* ---- ranges
 * -------------------------------------------------------------------------------------- */

/* Numbers from..to of one ten: `3`, `1[0-2]`. */
static fr_status add_ten(int64_t from, int64_t to, fr_buf *out, fr_err *err)
{
    if (from == to)
        return fr_buf_printf(out, err, "%lld", (long long)from);
    if (from >= 10)
        FR_TRY(fr_buf_printf(out, err, "%lld", (long long)from / 10));
    return fr_buf_printf(out, err, "[%d-%d]", (int)(from % 10), (int)(to % 10));
}

fr_status plan_range_regex(int64_t from, int64_t to, fr_buf *out, fr_err *err)
{
    bool many = from / 10 != to / 10;
    FR_TRY(fr_buf_puts(out, many ? "(" : "", err));
    for (int64_t at = from; at <= to;) {
        int64_t last = at / 10 * 10 + 9 < to ? at / 10 * 10 + 9 : to;
        FR_TRY(fr_buf_puts(out, at > from ? "|" : "", err));
        FR_TRY(add_ten(at, last, out, err));
        at = last + 1;
    }
    return fr_buf_puts(out, many ? ")" : "", err);
}

/* ---- layers
 * -------------------------------------------------------------------------------------- */

void plan_layers_add(plan_layers *set, int64_t layer)
{
    if (layer >= 0 && layer < PLAN_MAX_LAYERS)
        set->bits[layer / 64] |= 1ull << layer % 64;
}

bool plan_layers_has(const plan_layers *set, int64_t layer)
{
    return layer >= 0 && layer < PLAN_MAX_LAYERS && (set->bits[layer / 64] >> layer % 64 & 1);
}

int64_t plan_layers_next(const plan_layers *set, int64_t from)
{
    for (from = from < 0 ? 0 : from; from < PLAN_MAX_LAYERS; from++) {
        if (set->bits[from / 64] >> from % 64 == 0)
            from |= 63; /* nothing in the rest of this word */
        else if (plan_layers_has(set, from))
            return from;
    }
    return -1;
}

static int64_t run_end(const plan_layers *set, int64_t from)
{
    while (plan_layers_has(set, from + 1))
        from++;
    return from;
}

fr_status plan_layers_print(const plan_layers *set, fr_buf *out, fr_err *err)
{
    int64_t first = plan_layers_next(set, 0);
    FR_TRY(fr_buf_puts(out, plan_layers_next(set, first + 1) >= 0 ? "layers " : "layer ", err));
    for (int64_t at = first; at >= 0;) {
        int64_t end = run_end(set, at);
        bool listed = end - at < MAX_LISTED; /* short runs, one by one */
        FR_TRY(fr_buf_printf(out, err, "%s%lld", at > first ? ", " : "", (long long)at));
        if (!listed)
            FR_TRY(fr_buf_printf(out, err, " to %lld", (long long)end));
        at = plan_layers_next(set, listed ? at + 1 : end + 1);
    }
    return FR_OK;
}

bool plan_name_layer(fr_str name, int64_t *layer, fr_str *rest)
{
    size_t at = 4;
    int64_t number = 0;
    if (name.n < 6 || memcmp(name.p, "blk.", 4) != 0)
        return false;
    for (; at < name.n && is_digit(name.p[at]) && number < PLAN_MAX_LAYERS; at++)
        number = number * 10 + (name.p[at] - '0');
    if (at == 4 || at + 1 >= name.n || name.p[at] != '.' || number >= PLAN_MAX_LAYERS)
        return false;
    *layer = number;
    *rest = (fr_str){name.p + at + 1, name.n - at - 1};
    return true;
}
