#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "token/template_builtins.h"
#include "token/template_unicode.h"

/* The value a filter applies to, as text. */
static fr_status self_text(tpl_run *r, tpl_call *c, fr_str *out)
{
    tpl_value v;
    FR_TRY(tpl_to_str(r, c->a[0], &v));
    *out = tpl_text(v);
    return FR_OK;
}

/* ---- text
 * ----------------------------------------------------------------------------------------- */

static TPL_BUILTIN(filter_string)
{
    return tpl_to_str(r, c->a[0], out);
}

static fr_status change_case(tpl_run *r, tpl_call *c, tpl_case how, tpl_value *out)
{
    fr_str s;
    FR_TRY(self_text(r, c, &s));
    return tpl_change_case(r, s, how, out);
}

static TPL_BUILTIN(filter_upper)
{
    return change_case(r, c, TPL_CASE_UPPER, out);
}

static TPL_BUILTIN(filter_lower)
{
    return change_case(r, c, TPL_CASE_LOWER, out);
}

static TPL_BUILTIN(filter_capitalize)
{
    return change_case(r, c, TPL_CASE_CAPITAL, out);
}

/* Words of the filter begin behind white space, "-" or an opening bracket, unlike those of
 * str.title. */
static TPL_BUILTIN(filter_title)
{
    fr_str s;
    size_t mark = r->out.n;
    bool start = true;
    tpl_value part;
    FR_TRY(self_text(r, c, &s));
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t cp;
        len = (size_t)tpl_decode(s, i, &cp);
        FR_TRY(tpl_change_case(r, (fr_str){s.p + i, len}, start ? TPL_CASE_UPPER : TPL_CASE_LOWER,
                               &part));
        FR_TRY(tpl_emit_str(r, tpl_text(part)));
        start = tpl_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
    }
    return tpl_capture(r, mark, out);
}

static TPL_BUILTIN(filter_trim)
{
    fr_str s;
    FR_TRY(self_text(r, c, &s));
    return tpl_strip(r, s, c->a[1], TPL_LEFT | TPL_RIGHT, out);
}

static TPL_BUILTIN(filter_replace)
{
    fr_str s;
    tpl_value from, to;
    int64_t max = -1;
    FR_TRY(self_text(r, c, &s));
    FR_TRY(tpl_to_str(r, c->a[1], &from));
    FR_TRY(tpl_to_str(r, c->a[2], &to));
    if (tpl_given(c->a[3]))
        FR_TRY(tpl_arg_int(r, c->a[3], -1, &max));
    return tpl_replace(r, s, tpl_text(from), tpl_text(to), max, out);
}

static fr_status escape_html(tpl_run *r, fr_str s, tpl_value *out)
{
    static const struct {
        char c;
        const char *text;
    } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    size_t mark = r->out.n;
    for (size_t i = 0; i < s.n; i++) {
        fr_str part = {s.p + i, 1};
        for (size_t k = 0; k < sizeof escapes / sizeof *escapes; k++)
            if (s.p[i] == escapes[k].c)
                part = fr_str_of(escapes[k].text);
        FR_TRY(tpl_emit_str(r, part));
    }
    return tpl_capture(r, mark, out);
}

static TPL_BUILTIN(filter_escape)
{
    fr_str s;
    FR_TRY(self_text(r, c, &s));
    return escape_html(r, s, out);
}

/* Indents every line but the first and blank ones, unless told otherwise. */
static TPL_BUILTIN(filter_indent)
{
    size_t mark = r->out.n, at = 0, n_lines = 0;
    int64_t width = 4;
    fr_str s, line, end, by = FR_STR(" ");
    bool first = tpl_arg_bool(c->a[2], false), blank = tpl_arg_bool(c->a[3], false), ended = true;
    FR_TRY(tpl_arg_str(r, c->a[0], NULL, &s));
    if (c->a[1].kind == TPL_STR) {
        by = tpl_text(c->a[1]);
        width = 1;
    } else {
        FR_TRY(tpl_arg_int(r, c->a[1], 4, &width));
    }
    for (; tpl_next_line(s, &at, &line, &end); n_lines++) {
        if (n_lines)
            FR_TRY(tpl_emit(r, "\n", 1));
        if (n_lines ? line.n || blank : first)
            FR_TRY(tpl_emit_repeat(r, by, width));
        FR_TRY(tpl_emit_str(r, line));
        ended = end.n > 0;
    }
    if (ended && n_lines) /* a last line end stays, with an empty line behind it */
        FR_TRY(tpl_emit(r, "\n", 1));
    if (ended && (n_lines ? blank : first))
        FR_TRY(tpl_emit_repeat(r, by, width));
    return tpl_capture(r, mark, out);
}

static TPL_BUILTIN(filter_truncate)
{
    fr_str s, end;
    int64_t length, leeway = 5;
    FR_TRY(tpl_arg_int(r, c->a[1], 255, &length));
    FR_TRY(tpl_arg_str(r, c->a[3], "...", &end));
    if (tpl_given(c->a[4]))
        FR_TRY(tpl_arg_int(r, c->a[4], 5, &leeway));
    int64_t n_end = (int64_t)tpl_count_chars(end);
    size_t n;
    if (!tpl_length(c->a[0], &n))
        return tpl_fail(r, FR_EINVAL, "object of type '%s' has no len()", tpl_type_name(c->a[0]));
    if (length < n_end || leeway < 0)
        return tpl_fail(r, FR_EINVAL,
                        "truncate: found length %lld and leeway %lld, expected at least "
                        "%lld and 0",
                        (long long)length, (long long)leeway, (long long)n_end);
    *out = c->a[0];
    if ((int64_t)n - leeway <= length)
        return FR_OK;
    FR_TRY(tpl_arg_str(r, c->a[0], NULL, &s));
    size_t mark = r->out.n;
    s.n = tpl_char_offset(s, (size_t)(length - n_end));
    size_t space = SIZE_MAX;
    if (!tpl_arg_bool(c->a[2], false))
        FR_TRY(tpl_find_last(r, s, FR_STR(" "), &space));
    FR_TRY(tpl_emit(r, s.p, space == SIZE_MAX ? s.n : space));
    FR_TRY(tpl_emit_str(r, end));
    return tpl_capture(r, mark, out);
}

static TPL_BUILTIN(filter_center)
{
    tpl_value self;
    tpl_args args = {&c->a[1], c->a[1].kind != TPL_MISSING, NULL, 0};
    tpl_value width = tpl_int(80);
    FR_TRY(tpl_to_str(r, c->a[0], &self));
    if (!args.n_pos)
        args = (tpl_args){&width, 1, NULL, 0};
    return tpl_invoke(r, tpl_find_row(&tpl_str_methods, FR_STR("center")), &self, &args, out);
}

static TPL_BUILTIN(filter_wordcount)
{
    fr_str s;
    int64_t n = 0;
    bool inside = false;
    FR_TRY(self_text(r, c, &s));
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += (size_t)tpl_decode(s, i, &cp);
        bool word = cp == '_' || tpl_is_alpha(cp) || tpl_is_decimal(cp);
        n += word && !inside;
        inside = word;
    }
    *out = tpl_int(n);
    return tpl_spend_bytes(r, s.n);
}

static TPL_BUILTIN(filter_format)
{
    fr_str s;
    tpl_value values;
    FR_TRY(self_text(r, c, &s));
    if (!c->n_kw) {
        FR_TRY(tpl_list_copy(r, TPL_TUPLE, c->rest, c->n_rest, &values));
        return tpl_percent_format(r, s, values, out);
    }
    if (c->n_rest)
        return tpl_fail(r, FR_EINVAL,
                        "can't handle positional and keyword arguments at the same time");
    FR_TRY(tpl_dict_new(r, TPL_DICT, &values));
    for (size_t i = 0; i < c->n_kw; i++) {
        tpl_value key;
        FR_TRY(tpl_str_view(r, c->kw[i].name, &key));
        FR_TRY(tpl_dict_set(r, values.u.d, key, c->kw[i].value));
    }
    return tpl_percent_format(r, s, values, out);
}

/* ---- numbers
 * -------------------------------------------------------------------------------------- */

/* A number as Python's int() and float() read one: white space around it, single underscores
 * between digits, nothing else. Copies the bare digits; false when it does not fit or cannot be
 * one. */
static bool clean_number(fr_str s, char *text, size_t size)
{
    size_t n = 0;
    s = tpl_trim(s, TPL_LEFT | TPL_RIGHT);
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        if (ch == '_' && i > 0 && i + 1 < s.n && isalnum((unsigned char)s.p[i - 1]) &&
            isalnum((unsigned char)s.p[i + 1]))
            continue;
        if (n + 1 == size || !ch || (!isalnum((unsigned char)ch) && !strchr("+-.", ch)))
            return false;
        text[n++] = ch;
    }
    text[n] = 0;
    return n > 0;
}

static bool parse_float(fr_str s, double *out)
{
    char text[512], *end;
    if (!clean_number(s, text, sizeof text) || strpbrk(text, "xXpP()"))
        return false;
    *out = strtod(text, &end);
    return *end == 0;
}

/* *over: it is an integer, but beyond 64 bits. */
static bool parse_int(fr_str s, int base, int64_t *out, bool *over)
{
    char text[512];
    *out = 0;
    *over = false;
    if (!clean_number(s, text, sizeof text))
        return false;
    const char *p = text;
    bool negative = *p == '-';
    p += *p == '-' || *p == '+';
    char mark = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : 0;
    if (mark && p[0] == '0' && (p[1] | 32) == mark)
        p += 2;
    if (!*p)
        return false;
    for (; *p; p++) {
        int d = *p >= '0' && *p <= '9'       ? *p - '0'
                : isalpha((unsigned char)*p) ? (*p | 32) - 87
                                             : 99;
        if (d >= base)
            return false;
        *over |= __builtin_mul_overflow(*out, base, out) ||
                 __builtin_add_overflow(*out, negative ? -d : d, out);
    }
    return true;
}

static TPL_BUILTIN(filter_int)
{
    int64_t base, i;
    double f = NAN;
    bool over = false;
    FR_TRY(tpl_arg_int(r, c->a[2], 10, &base));
    if (base < 2 || base > 36)
        return tpl_fail(r, FR_EINVAL, "int: found base %lld, expected 2 to 36", (long long)base);
    if (c->a[0].kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, c->a[0]);
    bool whole = tpl_as_int(c->a[0], &i);
    if (c->a[0].kind == TPL_STR)
        whole = parse_int(tpl_text(c->a[0]), (int)base, &i, &over);
    if (c->a[0].kind == TPL_FLOAT || (!whole && c->a[0].kind == TPL_STR)) {
        bool number = c->a[0].kind == TPL_FLOAT || parse_float(tpl_text(c->a[0]), &f);
        f = c->a[0].kind == TPL_FLOAT ? c->a[0].u.f : f;
        whole = number && isfinite(f);
        over = whole && !(f < 0x1p63 && f >= -0x1p63);
        i = whole && !over ? (int64_t)f : 0;
    }
    if (over)
        return tpl_fail(r, FR_ERANGE, "int: the result is an integer beyond 64 bits");
    *out = whole ? tpl_int(i) : c->a[1].kind == TPL_MISSING ? tpl_int(0) : c->a[1];
    return FR_OK;
}

static TPL_BUILTIN(filter_float)
{
    double f = 0;
    if (c->a[0].kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, c->a[0]);
    bool number = tpl_is_number(c->a[0]);
    if (number)
        f = tpl_as_double(c->a[0]);
    else if (c->a[0].kind == TPL_STR)
        number = parse_float(tpl_text(c->a[0]), &f);
    *out = number ? tpl_float(f) : c->a[1].kind == TPL_MISSING ? tpl_float(0) : c->a[1];
    return FR_OK;
}

static TPL_BUILTIN(filter_abs)
{
    tpl_value v = c->a[0];
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    if (!tpl_is_number(v))
        return tpl_fail(r, FR_EINVAL, "bad operand type for abs(): '%s'", tpl_type_name(v));
    *out = v.kind == TPL_BOOL ? tpl_int(v.u.b) : v;
    return tpl_as_double(v) < 0 ? tpl_negate(r, v, out) : FR_OK;
}

/* Halves go to the even neighbour, on the decimal value that the double really has. */
static double round_places(double f, int64_t places)
{
    char text[400];
    if (!isfinite(f) || places > 308)
        return f;
    if (places < 0)
        return places < -308 ? 0
                             : nearbyint(f / pow(10, (double)-places)) * pow(10, (double)-places);
    snprintf(text, sizeof text, "%.*f", (int)(places < 60 ? places : 60), f);
    return places < 60 ? strtod(text, NULL) : f;
}

static TPL_BUILTIN(filter_round)
{
    fr_str method;
    int64_t places, i;
    FR_TRY(tpl_arg_int(r, c->a[1], 0, &places));
    FR_TRY(tpl_arg_str(r, c->a[2], "common", &method));
    if (c->a[0].kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, c->a[0]);
    if (!tpl_is_number(c->a[0]))
        return tpl_fail(r, FR_EINVAL, "round: found '%s', expected a number",
                        tpl_type_name(c->a[0]));
    double f = tpl_as_double(c->a[0]), scale = pow(10, (double)places);
    if (fr_str_is(method, "common")) {
        bool whole = tpl_as_int(c->a[0], &i);
        double rounded = round_places(f, places);
        *out = !whole ? tpl_float(rounded) : tpl_int(places >= 0 ? i : (int64_t)rounded);
        return FR_OK;
    }
    if (!fr_str_is(method, "ceil") && !fr_str_is(method, "floor"))
        return tpl_fail(r, FR_EINVAL, "round: method must be common, ceil or floor");
    f = (fr_str_is(method, "ceil") ? ceil(f * scale) : floor(f * scale)) / scale;
    *out = tpl_float(f);
    return FR_OK;
}

/* ---- anything
 * ------------------------------------------------------------------------------------- */

static TPL_BUILTIN(filter_default)
{
    bool use =
        c->a[0].kind == TPL_UNDEFINED || (tpl_arg_bool(c->a[2], false) && !tpl_truthy(c->a[0]));
    *out = c->a[0];
    if (!use)
        return FR_OK;
    if (c->a[1].kind == TPL_MISSING)
        return tpl_str_view(r, (fr_str){"", 0}, out);
    *out = c->a[1];
    return FR_OK;
}

static TPL_BUILTIN(filter_attr)
{
    tpl_value name;
    FR_TRY(tpl_to_str(r, c->a[1], &name));
    if (c->a[0].kind == TPL_DICT) { /* attributes only, no keys */
        *out = (tpl_value){
            .kind = TPL_UNDEFINED, .sub = TPL_UNDEF_ATTR, .owner = TPL_DICT, .u.s = name.u.s};
        return FR_OK;
    }
    return tpl_getattr(r, c->a[0], name.u.s, out);
}

static fr_status read_indent(tpl_run *r, tpl_value v, tpl_json_style *style)
{
    static const char spaces[] = "                                ";
    int64_t n;
    if (!tpl_given(v))
        return FR_OK;
    style->pretty = true;
    style->item_separator = FR_STR(",");
    if (v.kind == TPL_STR) {
        style->indent = tpl_text(v);
        return FR_OK;
    }
    FR_TRY(tpl_arg_int(r, v, 0, &n));
    if (n > (int64_t)sizeof spaces - 1)
        return tpl_fail(r, FR_ERANGE, "tojson: found indent %lld, expected at most %zu",
                        (long long)n, sizeof spaces - 1);
    style->indent = (fr_str){spaces, n < 0 ? 0 : (size_t)n};
    return FR_OK;
}

static TPL_BUILTIN(filter_tojson)
{
    tpl_json_style style = {.item_separator = FR_STR(", "), .key_separator = FR_STR(": ")};
    size_t mark = r->out.n;
    style.ascii = tpl_arg_bool(c->a[1], false);
    style.sort_keys = tpl_arg_bool(c->a[4], false);
    FR_TRY(read_indent(r, c->a[2], &style));
    if (tpl_given(c->a[3])) {
        const tpl_value *items;
        size_t n;
        FR_TRY(tpl_items(r, c->a[3], &items, &n));
        if (n != 2)
            return tpl_fail(r, FR_EINVAL, "tojson: found %zu separators, expected 2", n);
        FR_TRY(tpl_arg_str(r, items[0], NULL, &style.item_separator));
        FR_TRY(tpl_arg_str(r, items[1], NULL, &style.key_separator));
    }
    FR_TRY(tpl_emit_json(r, c->a[0], &style));
    return tpl_capture(r, mark, out);
}

/* Not of Jinja: templates of newer DeepSeek models read their tool arguments with it. */
static TPL_BUILTIN(filter_from_json)
{
    fr_str s;
    json_error_t e;
    FR_TRY(tpl_arg_str(r, c->a[0], NULL, &s));
    FR_TRY(tpl_spend_bytes(r, s.n));
    json_t *json = json_loadb(s.p, s.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!json)
        return tpl_fail(r, FR_EINVAL, "from_json: %s at line %d, column %d of the text", e.text,
                        e.line, e.column);
    fr_status st = tpl_from_json(r, json, false, out);
    json_decref(json);
    return st;
}

/* ---- the table
 * ------------------------------------------------------------------------------------ */

static const tpl_row filters[] = {
    {"abs", filter_abs, "value!"},
    {"attr", filter_attr, "value! name!"},
    {"batch", tpl_filter_batch, "value! linecount! fill_with"},
    {"capitalize", filter_capitalize, "value!"},
    {"center", filter_center, "value! width"},
    {"count", tpl_filter_length, "value!"},
    {"d", filter_default, "value! default_value boolean"},
    {"default", filter_default, "value! default_value boolean"},
    {"dictsort", tpl_filter_dictsort, "value! case_sensitive by reverse"},
    {"e", filter_escape, "value!"},
    {"escape", filter_escape, "value!"},
    {"first", tpl_filter_first, "value!"},
    {"float", filter_float, "value! default"},
    {"forceescape", filter_escape, "value!"},
    {"format", filter_format, "value! * **"},
    {"from_json", filter_from_json, "value!"},
    {"fromjson", filter_from_json, "value!"},
    {"groupby", tpl_filter_groupby, "value! attribute! default case_sensitive"},
    {"indent", filter_indent, "value! width first blank"},
    {"int", filter_int, "value! default base"},
    {"items", tpl_filter_items, "value!"},
    {"join", tpl_filter_join, "value! d attribute"},
    {"last", tpl_filter_last, "value!"},
    {"length", tpl_filter_length, "value!"},
    {"list", tpl_filter_list, "value!"},
    {"lower", filter_lower, "value!"},
    {"map", tpl_filter_map, "value! * **"},
    {"max", tpl_filter_max, "value! case_sensitive attribute"},
    {"min", tpl_filter_min, "value! case_sensitive attribute"},
    {"reject", tpl_filter_reject, "value! * **"},
    {"rejectattr", tpl_filter_rejectattr, "value! * **"},
    {"replace", filter_replace, "value! old! new! count"},
    {"reverse", tpl_filter_reverse, "value!"},
    {"round", filter_round, "value! precision method"},
    {"safe", filter_string, "value!"},
    {"select", tpl_filter_select, "value! * **"},
    {"selectattr", tpl_filter_selectattr, "value! * **"},
    {"slice", tpl_filter_slice, "value! slices! fill_with"},
    {"sort", tpl_filter_sort, "value! reverse case_sensitive attribute"},
    {"string", filter_string, "value!"},
    {"sum", tpl_filter_sum, "value! attribute start"},
    {"title", filter_title, "value!"},
    {"tojson", filter_tojson, "value! ensure_ascii indent separators sort_keys"},
    {"trim", filter_trim, "value! chars"},
    {"truncate", filter_truncate, "value! length killwords end leeway"},
    {"unique", tpl_filter_unique, "value! case_sensitive attribute"},
    {"upper", filter_upper, "value!"},
    {"wordcount", filter_wordcount, "value!"},
};

const tpl_table tpl_filters = {"filter", filters, sizeof filters / sizeof *filters};
