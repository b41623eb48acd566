#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "token/template_eval.h"
#include "token/template_unicode.h"

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 300 };

/* How one value is set: what stands between "%" or ":" and the type letter. */
typedef struct {
    char fill[4];
    size_t fill_n;
    char align; /* '<', '>', '^', '=' or 0 */
    char sign;  /* '+', ' ' or '-' */
    bool alternate, comma;
    int64_t width, precision; /* precision -1: none */
    char type;                /* 0: the default of the value */
} spec;

/* ---- setting text
 * --------------------------------------------------------------------------------- */

/* `text` between fill characters; with '=' they go behind the sign (the first `lead` bytes). */
static fr_status emit_padded(tpl_run *r, const spec *s, fr_str text, size_t lead, char align)
{
    int64_t n = (int64_t)tpl_count_chars(text), room = s->width > n ? s->width - n : 0;
    fr_str fill = {s->fill, s->fill_n};
    if (s->align)
        align = s->align;
    int64_t left = align == '<' ? 0 : align == '^' ? room / 2 : room;
    if (align == '=') {
        FR_TRY(tpl_emit(r, text.p, lead));
        text = (fr_str){text.p + lead, text.n - lead};
    }
    FR_TRY(tpl_emit_repeat(r, fill, left));
    FR_TRY(tpl_emit_str(r, text));
    return tpl_emit_repeat(r, fill, room - left);
}

static fr_status emit_str(tpl_run *r, const spec *s, fr_str text)
{
    if (s->precision >= 0)
        text.n = tpl_char_offset(text, (size_t)s->precision);
    return emit_padded(r, s, text, 0, '<');
}

/* Commas between groups of three digits of the whole part in text[at..]. */
static void add_commas(char *text, size_t at)
{
    size_t digits = strspn(text + at, "0123456789"), n = strlen(text);
    for (size_t k = 3; k < digits; k += 3) {
        size_t pos = at + digits - k;
        memmove(text + pos + 1, text + pos, n - pos + 1);
        text[pos] = ',';
        n++;
    }
}

static size_t put_sign(char *text, const spec *s, bool negative)
{
    text[0] = negative ? '-' : s->sign;
    return negative || s->sign != '-';
}

static fr_status emit_int(tpl_run *r, const spec *s, int64_t v, bool percent)
{
    char text[160];
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    char type = s->type ? s->type : 'd';
    size_t n = put_sign(text, s, v < 0);
    if (s->alternate && strchr("xXob", type)) {
        text[n++] = '0';
        text[n++] = type;
    }
    size_t lead = n;
    if (type == 'b') {
        int bit = 63;
        while (bit > 0 && !(u >> bit & 1))
            bit--;
        for (; bit >= 0; bit--)
            text[n++] = (char)('0' + (u >> bit & 1));
        text[n] = 0;
    } else {
        const char *format = type == 'x'   ? "%0*llx"
                             : type == 'X' ? "%0*llX"
                             : type == 'o' ? "%0*llo"
                                           : "%0*llu";
        int digits = percent && s->precision > 0 ? (int)(s->precision < 64 ? s->precision : 64) : 1;
        snprintf(text + n, sizeof text - n, format, digits, (unsigned long long)u);
    }
    if (s->comma)
        add_commas(text, lead);
    return emit_padded(r, s, fr_str_of(text), lead, '>');
}

/* The default form of a float: repr(), or %g with a precision. */
static void print_float(char *text, size_t size, const spec *s, double f, bool percent)
{
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    char format[8] = "%.*f";
    format[3] = s->type == '%' ? 'f' : s->type ? s->type : 'g';
    if (s->type == 0 && s->precision < 0 && !percent)
        tpl_format_float(f, text);
    else
        snprintf(text, size, format, precision, f);
}

static fr_status emit_float(tpl_run *r, const spec *s, double f, bool percent)
{
    enum { SIZE = 2 * (MAX_PRECISION + 330) };
    char text[SIZE];
    size_t n = put_sign(text, s, signbit(f));
    print_float(text + n, SIZE - 2 - n, s, s->type == '%' ? fabs(f) * 100 : fabs(f), percent);
    if (s->comma)
        add_commas(text, n);
    if (s->type == '%')
        strcat(text, "%");
    return emit_padded(r, s, fr_str_of(text), n, '>');
}

static fr_status fail_type(tpl_run *r, char type, tpl_value v)
{
    if (v.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, v);
    return tpl_fail(r, FR_EINVAL, "format code '%c' does not fit a value of type '%s'", type,
                    tpl_type_name(v));
}

static fr_status emit_char(tpl_run *r, const spec *s, tpl_value v)
{
    char text[4];
    int64_t cp;
    if (v.kind == TPL_STR && tpl_str_chars(v.u.s) == 1)
        return emit_padded(r, s, tpl_text(v), 0, '>');
    if (!tpl_as_int(v, &cp))
        return fail_type(r, 'c', v);
    if (cp < 0 || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
        return tpl_fail(r, FR_EINVAL, "format code 'c' needs a character, found %lld",
                        (long long)cp);
    return emit_padded(r, s, (fr_str){text, (size_t)fr_utf8_encode((uint32_t)cp, text)}, 0, '>');
}

static fr_status emit_number(tpl_run *r, const spec *s, tpl_value v, bool percent)
{
    int64_t i;
    bool whole = s->type && strchr("dxXob", s->type);
    if (!tpl_is_number(v))
        return fail_type(r, s->type, v);
    if (tpl_as_int(v, &i) && (whole || !s->type))
        return emit_int(r, s, i, percent);
    if (!whole)
        return emit_float(r, s, tpl_as_double(v), percent);
    if (!percent || s->type != 'd' || !(fabs(v.u.f) < 0x1p63))
        return fail_type(r, s->type, v);
    return emit_int(r, s, (int64_t)v.u.f, percent);
}

/* ---- "%" formatting
 * ------------------------------------------------------------------------------- */

typedef struct {
    fr_str text;
    size_t at;
    tpl_value values;
    size_t next; /* of the values of a tuple */
} percent;

static fr_status next_value(tpl_run *r, percent *p, tpl_value *out)
{
    bool tuple = p->values.kind == TPL_TUPLE;
    size_t n = tuple ? p->values.u.l->n : 1;
    if (p->next >= n)
        return tpl_fail(r, FR_EINVAL, "not enough arguments for format string");
    *out = tuple ? p->values.u.l->v[p->next] : p->values;
    p->next++;
    return FR_OK;
}

static char look(const percent *p)
{
    return p->at < p->text.n ? p->text.p[p->at] : 0;
}

/* A number or "*", which takes it from the values. */
static fr_status read_count(tpl_run *r, percent *p, int64_t max, int64_t *out)
{
    if (look(p) == '*') {
        tpl_value v;
        p->at++;
        FR_TRY(next_value(r, p, &v));
        if (!tpl_as_int(v, out))
            return tpl_fail(r, FR_EINVAL, "* wants an integer, found '%s'", tpl_type_name(v));
    }
    for (; isdigit((unsigned char)look(p)) && *out <= max; p->at++)
        *out = *out * 10 + (look(p) - '0');
    if (*out > max || *out < -max)
        return tpl_fail(r, FR_ERANGE, "a width or precision of more than %lld", (long long)max);
    return FR_OK;
}

static fr_status read_percent_spec(tpl_run *r, percent *p, spec *s)
{
    *s = (spec){.fill = " ", .fill_n = 1, .sign = '-', .precision = -1};
    for (; look(p) && strchr("-+ #0", look(p)); p->at++) {
        char c = look(p);
        if (c == '-')
            s->align = '<';
        else if (c == '#')
            s->alternate = true;
        else if (c == '+' || (c == ' ' && s->sign != '+'))
            s->sign = c;
        else if (c == '0' && !s->align)
            s->fill[0] = '0';
    }
    FR_TRY(read_count(r, p, MAX_WIDTH, &s->width));
    if (s->width < 0) {
        s->align = '<';
        s->width = -s->width;
    }
    if (s->align == '<')
        s->fill[0] = ' ';
    if (look(p) == '.') {
        p->at++;
        s->precision = 0;
        FR_TRY(read_count(r, p, MAX_PRECISION, &s->precision));
        s->precision = s->precision < 0 ? 0 : s->precision;
    }
    while (look(p) && strchr("hlL", look(p)))
        p->at++;
    s->type = look(p);
    p->at++;
    return FR_OK;
}

/* "(name)" picks from a dictionary. */
static fr_status read_key(tpl_run *r, percent *p, tpl_value *out)
{
    size_t end = tpl_find(p->text, FR_STR(")"), p->at);
    tpl_value key;
    if (p->values.kind != TPL_DICT)
        return tpl_fail(r, FR_EINVAL, "format requires a mapping");
    if (end == SIZE_MAX)
        return tpl_fail(r, FR_EINVAL, "incomplete format key");
    FR_TRY(tpl_str_view(r, (fr_str){p->text.p + p->at + 1, end - p->at - 1}, &key));
    FR_TRY(tpl_dict_get(r, p->values.u.d, key, out));
    if (out->kind == TPL_MISSING)
        return tpl_fail(r, FR_EINVAL, "no value named '%.*s' to format", FR_STR_ARG(tpl_text(key)));
    p->at = end + 1;
    return FR_OK;
}

static fr_status emit_percent(tpl_run *r, spec *s, tpl_value v)
{
    size_t mark = r->out.n;
    if (s->type == 'i' || s->type == 'u')
        s->type = 'd';
    if (s->type == 's' || s->type == 'r' || s->type == 'a') {
        FR_TRY(s->type == 's' ? tpl_emit_value(r, v) : tpl_emit_repr(r, v));
        FR_TRY(tpl_capture(r, mark, &v));
        s->fill[0] = ' ';
        s->align = s->align ? s->align : '>';
        return emit_str(r, s, tpl_text(v));
    }
    if (s->type == 'c')
        return emit_char(r, s, v);
    if (!s->type || !strchr("dxXoeEfFgG", s->type))
        return tpl_fail(r, FR_EINVAL, "unsupported format character '%c'", s->type ? s->type : '?');
    if (s->fill[0] == '0' && !s->align)
        s->align = '=';
    return emit_number(r, s, v, true);
}

fr_status tpl_percent_format(tpl_run *r, fr_str format, tpl_value values, tpl_value *out)
{
    percent p = {.text = format, .values = values};
    size_t mark = r->out.n;
    bool keyed = false;
    while (p.at < format.n) {
        size_t hit = tpl_find(format, FR_STR("%"), p.at);
        size_t end = hit == SIZE_MAX ? format.n : hit;
        FR_TRY(tpl_emit(r, format.p + p.at, end - p.at));
        p.at = end + 1;
        if (hit == SIZE_MAX)
            break;
        tpl_value v = tpl_missing();
        spec s;
        if (look(&p) == '(') {
            FR_TRY(read_key(r, &p, &v));
            keyed = true;
        }
        FR_TRY(read_percent_spec(r, &p, &s));
        if (p.at > format.n)
            return tpl_fail(r, FR_EINVAL, "incomplete format");
        if (s.type == '%') {
            FR_TRY(tpl_emit(r, "%", 1));
            continue;
        }
        if (v.kind == TPL_MISSING)
            FR_TRY(next_value(r, &p, &v));
        FR_TRY(emit_percent(r, &s, v));
    }
    bool may_rest =
        values.kind == TPL_DICT || values.kind == TPL_LIST || values.kind == TPL_UNDEFINED;
    size_t n = values.kind == TPL_TUPLE ? values.u.l->n : may_rest ? 0 : 1;
    if (!keyed && p.next < n)
        return tpl_fail(r, FR_EINVAL, "not all arguments converted during string formatting");
    return tpl_capture(r, mark, out);
}

/* ---- str.format
 * ----------------------------------------------------------------------------------- */

typedef struct {
    const tpl_args *args;
    size_t next;
} braces;

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '^' || c == '=';
}

static int64_t read_digits(fr_str text, size_t *at)
{
    int64_t v = 0;
    for (; *at < text.n && isdigit((unsigned char)text.p[*at]) && v <= MAX_WIDTH; ++*at)
        v = v * 10 + (text.p[*at] - '0');
    return v;
}

static void read_fill(fr_str text, size_t *at, spec *s)
{
    uint32_t cp;
    size_t len = text.n ? (size_t)tpl_decode(text, 0, &cp) : 0;
    if (len && len < text.n && is_align(text.p[len])) {
        memcpy(s->fill, text.p, len);
        s->fill_n = len;
        s->align = text.p[len];
        *at = len + 1;
    } else if (text.n && is_align(text.p[0])) {
        s->align = text.p[0];
        *at = 1;
    }
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static fr_status read_brace_spec(tpl_run *r, fr_str text, spec *s)
{
    size_t at = 0;
    *s = (spec){.fill = " ", .fill_n = 1, .sign = '-', .precision = -1};
    read_fill(text, &at, s);
    if (at < text.n && strchr("+- ", text.p[at]))
        s->sign = text.p[at++];
    if (at < text.n && text.p[at] == '#') {
        s->alternate = true;
        at++;
    }
    if (at < text.n && text.p[at] == '0' && !s->align) {
        s->fill[0] = '0';
        s->align = '=';
    }
    s->width = read_digits(text, &at);
    if (at < text.n && text.p[at] == ',') {
        s->comma = true;
        at++;
    }
    if (at < text.n && text.p[at] == '.') {
        at++;
        s->precision = read_digits(text, &at);
    }
    if (s->width > MAX_WIDTH || s->precision > MAX_PRECISION)
        return tpl_fail(r, FR_ERANGE, "a width or precision that is too large");
    if (at < text.n)
        s->type = text.p[at++];
    if (at < text.n || (s->type && !strchr("sdcxXobeEfFgGn%", s->type)))
        return tpl_fail(r, FR_EINVAL, "invalid format specifier '%.*s'", FR_STR_ARG(text));
    return FR_OK;
}

static fr_status first_value(tpl_run *r, braces *b, fr_str name, tpl_value *out)
{
    size_t at = 0, index;
    bool number = name.n == 0 || isdigit((unsigned char)name.p[0]);
    if (!number) {
        for (size_t i = 0; i < b->args->n_kw; i++)
            if (fr_str_eq(b->args->kw[i].name, name)) {
                *out = b->args->kw[i].value;
                return FR_OK;
            }
        return tpl_fail(r, FR_EINVAL, "no value named '%.*s' to format", FR_STR_ARG(name));
    }
    index = name.n ? (size_t)read_digits(name, &at) : b->next++;
    if (index >= b->args->n_pos)
        return tpl_fail(r, FR_EINVAL, "no value number %zu to format", index);
    *out = b->args->pos[index];
    return FR_OK;
}

/* name.attr[key] */
static fr_status field_value(tpl_run *r, braces *b, fr_str field, tpl_value *out)
{
    size_t at = 0;
    while (at < field.n && field.p[at] != '.' && field.p[at] != '[')
        at++;
    FR_TRY(first_value(r, b, (fr_str){field.p, at}, out));
    while (at < field.n) {
        bool attr = field.p[at] == '.';
        size_t begin = ++at, digits = 0;
        while (at < field.n &&
               (attr ? field.p[at] != '.' && field.p[at] != '[' : field.p[at] != ']'))
            at++;
        fr_str word = {field.p + begin, at - begin};
        tpl_value key;
        FR_TRY(tpl_str_view(r, word, &key));
        if (!attr && word.n && isdigit((unsigned char)word.p[0]))
            key = tpl_int(read_digits(word, &digits));
        FR_TRY(attr ? tpl_getattr(r, *out, key.u.s, out) : tpl_getitem(r, *out, key, out));
        at += !attr;
    }
    return FR_OK;
}

static fr_status emit_formatted(tpl_run *r, fr_str text, tpl_value v)
{
    spec s;
    size_t mark = r->out.n;
    if (text.n == 0)
        return tpl_emit_value(r, v);
    FR_TRY(read_brace_spec(r, text, &s));
    if (s.type == 'n')
        s.type = v.kind == TPL_FLOAT ? 'g' : 'd';
    if (s.type == 'c')
        return emit_char(r, &s, v);
    if (s.type == 's' || (!s.type && !tpl_is_number(v))) {
        if (v.kind != TPL_STR && v.kind != TPL_UNDEFINED)
            return fail_type(r, 's', v);
        FR_TRY(tpl_emit_value(r, v));
        FR_TRY(tpl_capture(r, mark, &v));
        return emit_str(r, &s, tpl_text(v));
    }
    return emit_number(r, &s, v, false);
}

/* What stands between the braces: field[!conversion][:spec]. */
static fr_status emit_field(tpl_run *r, braces *b, fr_str inside)
{
    size_t colon = tpl_find(inside, FR_STR(":"), 0), mark = r->out.n;
    fr_str name = {inside.p, colon == SIZE_MAX ? inside.n : colon}, text = {"", 0};
    if (colon != SIZE_MAX)
        text = (fr_str){inside.p + colon + 1, inside.n - colon - 1};
    size_t bang = tpl_find(name, FR_STR("!"), 0);
    char conversion = 0;
    if (bang != SIZE_MAX) {
        conversion = bang + 2 == name.n ? name.p[bang + 1] : '?';
        name.n = bang;
    }
    tpl_value v;
    FR_TRY(field_value(r, b, name, &v));
    if (conversion && conversion != 's' && conversion != 'r')
        return tpl_fail(r, FR_EINVAL, "unknown conversion in format field");
    if (conversion) {
        FR_TRY(conversion == 's' ? tpl_emit_value(r, v) : tpl_emit_repr(r, v));
        FR_TRY(tpl_capture(r, mark, &v));
    }
    return emit_formatted(r, text, v);
}

fr_status tpl_brace_format(tpl_run *r, fr_str format, const tpl_args *args, tpl_value *out)
{
    braces b = {.args = args};
    size_t mark = r->out.n;
    for (size_t i = 0; i < format.n; i++) {
        char c = format.p[i];
        if ((c == '{' || c == '}') && i + 1 < format.n && format.p[i + 1] == c) {
            FR_TRY(tpl_emit(r, &c, 1));
            i++;
        } else if (c == '{') {
            size_t end = tpl_find(format, FR_STR("}"), i);
            if (end == SIZE_MAX)
                return tpl_fail(r, FR_EINVAL, "expected '}' before end of string");
            FR_TRY(emit_field(r, &b, (fr_str){format.p + i + 1, end - i - 1}));
            i = end;
        } else if (c == '}') {
            return tpl_fail(r, FR_EINVAL, "single '}' encountered in format string");
        } else {
            FR_TRY(tpl_emit(r, &c, 1));
        }
    }
    return tpl_capture(r, mark, out);
}
