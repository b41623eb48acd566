#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "token/template_eval.h"
#include "token/template_unicode.h"

/* ---- numbers
 * -------------------------------------------------------------------------------------- */

/* The digits and exponent of "d.ddde[+-]dd" without trailing zeros. */
static int split_digits(const char *text, char *digits, int *exponent)
{
    int n = 0;
    for (; *text && *text != 'e'; text++)
        if (*text >= '0' && *text <= '9')
            digits[n++] = *text;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    *exponent = (int)strtol(text + 1, NULL, 10);
    return n;
}

void tpl_format_float(double f, char out[40])
{
    char text[40], digits[24];
    int exponent, precision = fabs(f) < DBL_MIN ? 1 : 15;
    if (isnan(f) || isinf(f)) {
        snprintf(out, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    do { /* 15 digits tell normal doubles apart from any shorter text, 17 tell all apart */
        snprintf(text, sizeof text, "%.*e", precision - 1, fabs(f));
    } while (strtod(text, NULL) != fabs(f) && precision++ < 17);
    int n = split_digits(text, digits, &exponent);
    char *o = out;
    if (signbit(f))
        *o++ = '-';
    if (exponent >= 16 || exponent < -4) {
        o += sprintf(o, "%c%s%.*s", digits[0], n > 1 ? "." : "", n - 1, digits + 1);
        sprintf(o, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0)
        sprintf(o, "0.%.*s%.*s", -exponent - 1, "0000", n, digits);
    else if (exponent >= n - 1)
        sprintf(o, "%.*s%.*s.0", n, digits, exponent - n + 1, "0000000000000000");
    else
        sprintf(o, "%.*s.%.*s", exponent + 1, digits, n - exponent - 1, digits + exponent + 1);
}

static fr_status emit_text(tpl_run *r, const char *s)
{
    return tpl_emit(r, s, strlen(s));
}

static fr_status emit_number(tpl_run *r, tpl_value v)
{
    char text[40];
    if (v.kind == TPL_FLOAT)
        tpl_format_float(v.u.f, text);
    else
        snprintf(text, sizeof text, "%lld", (long long)v.u.i);
    return emit_text(r, text);
}

/* ---- repr
 * ----------------------------------------------------------------------------------------- */

static fr_status emit_char_repr(tpl_run *r, const char *p, int len, uint32_t cp, char quote)
{
    char text[16];
    if (cp == '\\' || cp == (uint32_t)(unsigned char)quote)
        snprintf(text, sizeof text, "\\%c", (char)cp);
    else if (cp == '\n' || cp == '\r' || cp == '\t')
        snprintf(text, sizeof text, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    else if (tpl_is_printable(cp))
        return tpl_emit(r, p, (size_t)len);
    else
        snprintf(text, sizeof text,
                 cp < 0x100     ? "\\x%02x"
                 : cp < 0x10000 ? "\\u%04x"
                                : "\\U%08x",
                 cp);
    return emit_text(r, text);
}

static fr_status emit_str_repr(tpl_run *r, fr_str s)
{
    bool single = s.n && memchr(s.p, '\'', s.n), twice = s.n && memchr(s.p, '"', s.n);
    char quote = single && !twice ? '"' : '\'';
    FR_TRY(tpl_emit(r, &quote, 1));
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        int len = tpl_decode(s, i, &cp);
        FR_TRY(emit_char_repr(r, s.p + i, len, cp, quote));
        i += (size_t)len;
    }
    return tpl_emit(r, &quote, 1);
}

static fr_status emit_list_repr(tpl_run *r, const tpl_list *l, const char *open, const char *close)
{
    FR_TRY(emit_text(r, open));
    for (size_t i = l->used; i < l->n; i++) {
        if (i > l->used)
            FR_TRY(emit_text(r, ", "));
        FR_TRY(tpl_emit_repr(r, l->v[i]));
    }
    return emit_text(r, close);
}

static fr_status emit_dict_repr(tpl_run *r, const tpl_dict *d)
{
    FR_TRY(emit_text(r, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            FR_TRY(emit_text(r, ", "));
        FR_TRY(tpl_emit_repr(r, d->v[i].key));
        FR_TRY(emit_text(r, ": "));
        FR_TRY(tpl_emit_repr(r, d->v[i].value));
    }
    return emit_text(r, "}");
}

static fr_status emit_seq_repr(tpl_run *r, const tpl_list *l)
{
    static const char *const open[] = {"<generator object>", "range(", "dict_keys([",
                                       "dict_values([", "dict_items(["};
    char text[80];
    if (l->flavour == TPL_GENERATOR)
        return emit_text(r, open[0]);
    if (l->flavour != TPL_RANGE)
        return emit_list_repr(r, l, open[l->flavour], "])");
    if (l->step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)l->start, (long long)l->stop);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)l->start,
                 (long long)l->stop, (long long)l->step);
    return emit_text(r, text);
}

static fr_status emit_object_repr(tpl_run *r, tpl_value v)
{
    if (v.kind == TPL_NAMESPACE) {
        FR_TRY(emit_text(r, "<Namespace "));
        FR_TRY(emit_dict_repr(r, v.u.d));
        return emit_text(r, ">");
    }
    FR_TRY(emit_text(r, "<"));
    FR_TRY(emit_text(r, tpl_type_name(v)));
    if (v.kind == TPL_MACRO) {
        FR_TRY(emit_text(r, " "));
        FR_TRY(emit_str_repr(r, tpl_text(v.u.macro->node->value)));
    }
    return emit_text(r, ">");
}

static fr_status emit_repr_in(tpl_run *r, tpl_value v)
{
    switch (v.kind) {
    case TPL_MISSING:
    case TPL_UNDEFINED:
        return emit_text(r, "Undefined");
    case TPL_NONE:
        return emit_text(r, "None");
    case TPL_BOOL:
        return emit_text(r, v.u.b ? "True" : "False");
    case TPL_INT:
    case TPL_FLOAT:
        return emit_number(r, v);
    case TPL_STR:
        return emit_str_repr(r, tpl_text(v));
    case TPL_LIST:
        return emit_list_repr(r, v.u.l, "[", "]");
    case TPL_TUPLE:
        return emit_list_repr(r, v.u.l, "(", v.u.l->n == 1 ? ",)" : ")");
    case TPL_SEQ:
        return emit_seq_repr(r, v.u.l);
    case TPL_DICT:
        return emit_dict_repr(r, v.u.d);
    default:
        return emit_object_repr(r, v);
    }
}

fr_status tpl_emit_repr(tpl_run *r, tpl_value v)
{
    FR_TRY(tpl_enter(r));
    FR_TRY(emit_repr_in(r, v));
    tpl_leave(r);
    return FR_OK;
}

/* ---- str
 * ------------------------------------------------------------------------------------------ */

fr_status tpl_emit_value(tpl_run *r, tpl_value v)
{
    if (v.kind == TPL_STR)
        return tpl_emit_str(r, tpl_text(v));
    if (v.kind == TPL_UNDEFINED || v.kind == TPL_MISSING)
        return FR_OK;
    return tpl_emit_repr(r, v);
}

fr_status tpl_to_str(tpl_run *r, tpl_value v, tpl_value *out)
{
    *out = v;
    if (v.kind == TPL_STR)
        return FR_OK;
    size_t mark = r->out.n;
    FR_TRY(tpl_emit_value(r, v));
    return tpl_capture(r, mark, out);
}

/* ---- JSON
 * ----------------------------------------------------------------------------------------- */

static fr_status emit_json_value(tpl_run *r, tpl_value v, const tpl_json_style *style, int level);

static fr_status emit_unicode_escape(tpl_run *r, uint32_t cp)
{
    char text[16];
    if (cp < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", cp);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10),
                 0xDC00 + ((cp - 0x10000) & 0x3FF));
    return emit_text(r, text);
}

static fr_status emit_json_str(tpl_run *r, fr_str s, bool ascii)
{
    static const char short_from[] = "\"\\\n\r\t\f\b", short_to[] = "\"\\nrtfb";
    size_t plain = 0; /* what was not written yet begins here */
    FR_TRY(emit_text(r, "\""));
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = (size_t)tpl_decode(s, i, &cp);
        const char *at = cp && cp < 0x80 ? strchr(short_from, (int)cp) : NULL;
        if (at || cp < 0x20 || (ascii && cp >= 0x7F)) {
            FR_TRY(tpl_emit(r, s.p + plain, i - plain));
            if (at)
                FR_TRY(tpl_emit(r, (char[]){'\\', short_to[at - short_from]}, 2));
            else
                FR_TRY(emit_unicode_escape(r, cp));
            plain = i + len;
        }
        i += len;
    }
    FR_TRY(tpl_emit(r, s.p + plain, s.n - plain));
    return emit_text(r, "\"");
}

static fr_status emit_json_number(tpl_run *r, tpl_value v)
{
    if (v.kind == TPL_FLOAT && isnan(v.u.f))
        return emit_text(r, "NaN");
    if (v.kind == TPL_FLOAT && isinf(v.u.f))
        return emit_text(r, v.u.f < 0 ? "-Infinity" : "Infinity");
    return emit_number(r, v);
}

static fr_status emit_json_key(tpl_run *r, tpl_value key, const tpl_json_style *style)
{
    if (key.kind == TPL_STR)
        return emit_json_str(r, tpl_text(key), style->ascii);
    if (key.kind != TPL_NONE && !tpl_is_number(key))
        return tpl_fail(r, FR_EINVAL, "keys of JSON must be strings or numbers, not %s",
                        tpl_type_name(key));
    FR_TRY(emit_text(r, "\""));
    FR_TRY(emit_json_value(r, key, style, 0));
    return emit_text(r, "\"");
}

static fr_status emit_json_line(tpl_run *r, const tpl_json_style *style, int level)
{
    if (!style->pretty)
        return FR_OK;
    FR_TRY(emit_text(r, "\n"));
    return tpl_emit_repeat(r, style->indent, level);
}

static fr_status emit_json_list(tpl_run *r, const tpl_value *v, size_t n,
                                const tpl_json_style *style, int level)
{
    if (n == 0)
        return emit_text(r, "[]");
    FR_TRY(emit_text(r, "["));
    for (size_t i = 0; i < n; i++) {
        if (i)
            FR_TRY(tpl_emit_str(r, style->item_separator));
        FR_TRY(emit_json_line(r, style, level + 1));
        FR_TRY(emit_json_value(r, v[i], style, level + 1));
    }
    FR_TRY(emit_json_line(r, style, level));
    return emit_text(r, "]");
}

/* The positions of the pairs in the order in which they are written. */
static fr_status sorted_pairs(tpl_run *r, const tpl_dict *d, const tpl_pair **out)
{
    tpl_value *at = TPL_NEW(tpl_value, r, d->n), *keys = TPL_NEW(tpl_value, r, d->n);
    tpl_pair *pairs = TPL_NEW(tpl_pair, r, d->n);
    if (!at || !keys || !pairs)
        return FR_ENOMEM;
    for (size_t i = 0; i < d->n; i++) {
        at[i] = tpl_int((int64_t)i);
        keys[i] = d->v[i].key;
    }
    FR_TRY(tpl_sort(r, at, keys, d->n, false));
    for (size_t i = 0; i < d->n; i++)
        pairs[i] = d->v[at[i].u.i];
    *out = pairs;
    return FR_OK;
}

static fr_status emit_json_dict(tpl_run *r, const tpl_dict *d, const tpl_json_style *style,
                                int level)
{
    const tpl_pair *pairs = d->v;
    if (d->n == 0)
        return emit_text(r, "{}");
    if (style->sort_keys)
        FR_TRY(sorted_pairs(r, d, &pairs));
    FR_TRY(emit_text(r, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            FR_TRY(tpl_emit_str(r, style->item_separator));
        FR_TRY(emit_json_line(r, style, level + 1));
        FR_TRY(emit_json_key(r, pairs[i].key, style));
        FR_TRY(tpl_emit_str(r, style->key_separator));
        FR_TRY(emit_json_value(r, pairs[i].value, style, level + 1));
    }
    FR_TRY(emit_json_line(r, style, level));
    return emit_text(r, "}");
}

static fr_status emit_json_in(tpl_run *r, tpl_value v, const tpl_json_style *style, int level)
{
    const tpl_value *items;
    size_t n;
    switch (v.kind) {
    case TPL_NONE:
        return emit_text(r, "null");
    case TPL_BOOL:
        return emit_text(r, v.u.b ? "true" : "false");
    case TPL_INT:
    case TPL_FLOAT:
        return emit_json_number(r, v);
    case TPL_STR:
        return emit_json_str(r, tpl_text(v), style->ascii);
    case TPL_LIST:
    case TPL_TUPLE:
    case TPL_SEQ:
        FR_TRY(tpl_items(r, v, &items, &n));
        return emit_json_list(r, items, n, style, level);
    case TPL_DICT:
        return emit_json_dict(r, v.u.d, style, level);
    default:
        return tpl_fail(r, FR_EINVAL, "Object of type %s is not JSON serializable",
                        tpl_type_name(v));
    }
}

static fr_status emit_json_value(tpl_run *r, tpl_value v, const tpl_json_style *style, int level)
{
    FR_TRY(tpl_enter(r));
    FR_TRY(emit_json_in(r, v, style, level));
    tpl_leave(r);
    return FR_OK;
}

fr_status tpl_emit_json(tpl_run *r, tpl_value v, const tpl_json_style *style)
{
    return emit_json_value(r, v, style, 0);
}
