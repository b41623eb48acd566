#include "token/template_lex.h"

#include <stdlib.h>
#include <string.h>

#include "token/template_unicode.h"

enum { IN_TEXT, IN_VARIABLE, IN_BLOCK };

/* ---- positions ----------------------------------------------------------------------------------
 */

/* Line and column of byte `at`; positions are asked for in order, so this walks the source once. */
static void locate(tpl_lexer *x, size_t at, uint32_t *line, uint32_t *col)
{
    if (at < x->mark) {
        x->mark = 0;
        x->mark_line = x->mark_col = 1;
    }
    for (; x->mark < at; x->mark++) {
        unsigned char c = (unsigned char)x->s.p[x->mark];
        if (c == '\n') {
            x->mark_line++;
            x->mark_col = 1;
        } else if ((c & 0xC0) != 0x80) {
            x->mark_col++;
        }
    }
    *line = x->mark_line;
    *col = x->mark_col;
}

static fr_status fail_here(tpl_lexer *x, size_t at, const char *text)
{
    uint32_t line, col;
    locate(x, at, &line, &col);
    return tpl_fail_at(x->err, FR_EFORMAT, line, col, "%s", text);
}

/* ---- the source ---------------------------------------------------------------------------------
 */

/* \r\n and \r become \n; one newline at the very end goes. */
static size_t normalize_newlines(char *dst, const char *src, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        char c = src[i];
        if (c == '\r') {
            c = '\n';
            if (i + 1 < n && src[i + 1] == '\n')
                i++;
        }
        dst[k++] = c;
    }
    return k && dst[k - 1] == '\n' ? k - 1 : k;
}

fr_status tpl_lex_init(tpl_lexer *x, fr_arena *arena, const char *source, size_t n, fr_err *err)
{
    *x = (tpl_lexer){
        .arena = arena, .err = err, .mark_line = 1, .mark_col = 1, .line_starting = true};
    if (n > TPL_MAX_SOURCE)
        return fr_fail(err, FR_ERANGE,
                       "template line 1, column 1: %zu bytes, expected at most %zu bytes", n,
                       TPL_MAX_SOURCE);
    char *p = fr_arena_alloc(arena, n + 1, 1, err);
    if (!p)
        return FR_ENOMEM;
    x->s = (fr_str){p, normalize_newlines(p, source, n)};
    for (size_t i = 0, len; i < x->s.n; i += len) {
        uint32_t cp;
        len = (size_t)tpl_decode(x->s, i, &cp);
        if (cp == UINT32_MAX)
            return fail_here(x, i, "found a byte that is not UTF-8, expected UTF-8 text");
    }
    return FR_OK;
}

/* ---- small scanners
 * ------------------------------------------------------------------------------ */

static char peek(const tpl_lexer *x, size_t at)
{
    return at < x->s.n ? x->s.p[at] : 0;
}

static bool has(const tpl_lexer *x, size_t at, const char *word)
{
    size_t n = strlen(word);
    return x->s.n - at >= n && memcmp(x->s.p + at, word, n) == 0;
}

static size_t skip_space(const tpl_lexer *x, size_t at)
{
    uint32_t cp;
    while (at < x->s.n) {
        int len = tpl_decode(x->s, at, &cp);
        if (!tpl_is_space(cp))
            break;
        at += (size_t)len;
    }
    return at;
}

/* The end of a tag at `at` whose last characters are `word` ("%}", "#}", "}}"): the position behind
 * it and the white space that goes with it, or 0 when there is none here. */
static size_t tag_end(const tpl_lexer *x, size_t at, const char *word, bool trims)
{
    if (peek(x, at) == '-' && has(x, at + 1, word))
        return skip_space(x, at + 3);
    if (trims && peek(x, at) == '+' && has(x, at + 1, word))
        return at + 3;
    if (!has(x, at, word))
        return 0;
    return at + 2 + (trims && peek(x, at + 2) == '\n');
}

/* Text before a tag that starts at `end`, without what the sign of the tag or lstrip_blocks strips.
 */
static fr_str strip_before(const tpl_lexer *x, size_t begin, size_t end, char sign, bool lstrips)
{
    fr_str text = {x->s.p + begin, end - begin};
    uint32_t cp;
    if (sign == '+' || (sign != '-' && !lstrips))
        return text;
    size_t n = text.n;
    while (n > 0) {
        size_t before = tpl_char_before(text, n);
        tpl_decode(text, before, &cp);
        if (!tpl_is_space(cp) || (sign != '-' && cp == '\n'))
            break;
        n = before;
    }
    bool line_start = n > 0 ? text.p[n - 1] == '\n' : x->line_starting;
    if (sign == '-' || line_start)
        text.n = n;
    return text;
}

static char sign_at(const tpl_lexer *x, size_t at)
{
    char c = peek(x, at);
    return c == '-' || c == '+' ? c : 0;
}

/* ---- text, comments, raw blocks
 * ------------------------------------------------------------------ */

static size_t find_tag(const tpl_lexer *x, size_t at)
{
    for (; at + 1 < x->s.n; at++) {
        const char *brace = memchr(x->s.p + at, '{', x->s.n - 1 - at);
        if (!brace)
            break;
        at = (size_t)(brace - x->s.p);
        if (brace[1] == '{' || brace[1] == '%' || brace[1] == '#')
            return at;
    }
    return x->s.n;
}

/* Behind "{% raw %}" when that is what stands at `at`, else 0. */
static size_t raw_begin(const tpl_lexer *x, size_t at)
{
    if (!has(x, at, "{%"))
        return 0;
    at += 2;
    at = skip_space(x, at + (sign_at(x, at) != 0));
    if (!has(x, at, "raw"))
        return 0;
    at = skip_space(x, at + 3);
    return peek(x, at) == '+' ? 0 : tag_end(x, at, "%}", false);
}

/* Behind "{% endraw %}" at `at`, else 0. */
static size_t raw_end(const tpl_lexer *x, size_t at)
{
    if (!has(x, at, "{%"))
        return 0;
    at += 2;
    at = skip_space(x, at + (sign_at(x, at) != 0));
    if (!has(x, at, "endraw"))
        return 0;
    return tag_end(x, skip_space(x, at + 6), "%}", true);
}

static bool give_data(tpl_lexer *x, size_t at, fr_str text, tpl_token *out)
{
    if (text.n == 0)
        return false;
    *out = (tpl_token){.kind = TPL_T_DATA, .text = text};
    locate(x, at, &out->line, &out->col);
    return true;
}

/* x->at stands behind the begin tag of a raw block: its text as one token. */
static fr_status lex_raw(tpl_lexer *x, size_t tag, tpl_token *out, bool *given)
{
    size_t begin = x->at, end = begin, behind = 0;
    for (; end < x->s.n && !behind; end++)
        behind = raw_end(x, end);
    if (!behind)
        return fail_here(x, tag, "a raw block without end, expected {% endraw %}");
    end--;
    fr_str text = strip_before(x, begin, end, sign_at(x, end + 2), true);
    *given = give_data(x, begin, text, out);
    x->at = behind;
    x->line_starting = x->s.p[behind - 1] == '\n';
    return FR_OK;
}

static fr_status skip_comment(tpl_lexer *x, size_t tag)
{
    size_t begin = tag + 2, at;
    begin += sign_at(x, begin) != 0;
    for (at = begin; at < x->s.n; at++) {
        size_t behind = tag_end(x, at, "#}", true);
        if (!behind)
            continue;
        x->at = behind;
        x->line_starting = x->s.p[behind - 1] == '\n';
        return FR_OK;
    }
    return fail_here(x, tag, "a comment without end, expected #}");
}

/* Enters the tag at `tag`: a comment is skipped, a raw block gives its text, others their begin. */
static fr_status enter_tag(tpl_lexer *x, size_t tag, tpl_token *out, bool *given)
{
    x->tag_pending = false;
    if (x->s.p[tag + 1] == '#')
        return skip_comment(x, tag);
    size_t raw = raw_begin(x, tag);
    if (raw) {
        x->at = raw;
        x->line_starting = x->s.p[raw - 1] == '\n';
        return lex_raw(x, tag, out, given);
    }
    bool block = x->s.p[tag + 1] == '%';
    *out = (tpl_token){.kind = block ? TPL_T_BLOCK_BEGIN : TPL_T_VAR_BEGIN};
    locate(x, tag, &out->line, &out->col);
    x->state = block ? IN_BLOCK : IN_VARIABLE;
    x->at = tag + 2 + (sign_at(x, tag + 2) != 0);
    x->n_open = 0;
    *given = true;
    return FR_OK;
}

static fr_status lex_text(tpl_lexer *x, tpl_token *out, bool *given)
{
    if (x->tag_pending)
        return enter_tag(x, x->at, out, given);
    size_t begin = x->at, tag = find_tag(x, begin);
    x->at = tag;
    if (tag == x->s.n) {
        *given = give_data(x, begin, (fr_str){x->s.p + begin, tag - begin}, out);
        if (!*given) {
            *out = (tpl_token){.kind = TPL_T_EOF};
            locate(x, tag, &out->line, &out->col);
            *given = true;
        }
        return FR_OK;
    }
    fr_str text = strip_before(x, begin, tag, sign_at(x, tag + 2), x->s.p[tag + 1] != '{');
    *given = give_data(x, begin, text, out);
    if (*given) {
        x->tag_pending = true;
        return FR_OK;
    }
    return enter_tag(x, tag, out, given);
}

/* ---- numbers ------------------------------------------------------------------------------------
 */

static bool is_digit(char c, int base)
{
    int v = c >= '0' && c <= '9'                 ? c - '0'
            : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 87
                                                 : 99;
    return v < base;
}

/* Behind the digits at `at`, single underscores between them allowed. */
static size_t skip_digits(const tpl_lexer *x, size_t at, int base)
{
    while (is_digit(peek(x, at), base)) {
        at++;
        if (peek(x, at) == '_' && is_digit(peek(x, at + 1), base))
            at++;
    }
    return at;
}

/* Behind a float at `at`, else 0. */
static size_t float_end(const tpl_lexer *x, size_t at)
{
    size_t end = skip_digits(x, at, 10);
    bool fraction = peek(x, end) == '.' && is_digit(peek(x, end + 1), 10);
    if (fraction)
        end = skip_digits(x, end + 1, 10);
    if ((peek(x, end) | 32) != 'e')
        return fraction ? end : 0;
    size_t exp = end + 1;
    exp += peek(x, exp) == '+' || peek(x, exp) == '-';
    if (is_digit(peek(x, exp), 10))
        return skip_digits(x, exp, 10);
    return fraction ? end : 0;
}

static size_t int_end(const tpl_lexer *x, size_t at, int *base)
{
    char mark = (char)(peek(x, at + 1) | 32);
    *base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    if (peek(x, at) == '0' && *base != 10) {
        size_t digits = at + 2 + (peek(x, at + 2) == '_');
        if (is_digit(peek(x, digits), *base))
            return skip_digits(x, digits, *base);
    }
    *base = 10;
    if (peek(x, at) != '0')
        return skip_digits(x, at, 10);
    do { /* a leading zero takes only zeros with it */
        at++;
    } while (peek(x, at) == '0' || (peek(x, at) == '_' && peek(x, at + 1) == '0'));
    return at;
}

static fr_status lex_number(tpl_lexer *x, tpl_token *out)
{
    enum { MAX_NUMBER = 320 };
    char text[MAX_NUMBER];
    int base = 10;
    size_t begin = x->at, n = 0;
    size_t end = begin > 0 && x->s.p[begin - 1] == '.' ? 0 : float_end(x, begin);
    out->kind = end ? TPL_T_FLOAT : TPL_T_INT;
    if (!end)
        end = int_end(x, begin, &base);
    x->at = end;
    for (size_t i = begin + (base != 10 ? 2 : 0); i < end; i++) {
        if (x->s.p[i] == '_')
            continue;
        if (n + 1 == MAX_NUMBER)
            return fail_here(x, begin, "a number with too many digits");
        text[n++] = x->s.p[i];
    }
    text[n] = 0;
    if (out->kind == TPL_T_FLOAT) {
        out->f = strtod(text, NULL);
        return FR_OK;
    }
    for (size_t i = 0; i < n; i++) {
        int d = text[i] <= '9' ? text[i] - '0' : (text[i] | 32) - 87;
        if (__builtin_mul_overflow(out->i, base, &out->i) ||
            __builtin_add_overflow(out->i, d, &out->i))
            return fail_here(x, begin, "an integer beyond 64 bits");
    }
    return FR_OK;
}

/* ---- strings ------------------------------------------------------------------------------------
 */

static int hex_digits(const tpl_lexer *x, size_t at, size_t end, int n, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++, at++) {
        if (at >= end || !is_digit(x->s.p[at], 16))
            return 0;
        char c = x->s.p[at];
        *out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 87);
    }
    return n;
}

static size_t simple_escape(char c, char *dst)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *at = c ? strchr(from, c) : NULL;
    if (c == '\n')
        return 0;
    if (at) {
        dst[0] = to[at - from];
        return 1;
    }
    dst[0] = '\\'; /* unknown escapes stay as they are */
    dst[1] = c;
    return 2;
}

/* \x, \u, \U and octal escapes at `at` (the character behind the backslash): bytes read, 0 when
 * malformed. A pair of \u surrogates makes one character. */
static size_t code_escape(const tpl_lexer *x, size_t at, size_t end, uint32_t *cp)
{
    char c = x->s.p[at];
    if (c >= '0' && c <= '7') {
        size_t n = 0;
        for (*cp = 0; n < 3 && at + n < end && is_digit(x->s.p[at + n], 8); n++)
            *cp = *cp * 8 + (uint32_t)(x->s.p[at + n] - '0');
        return n;
    }
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
    if (!hex_digits(x, at + 1, end, digits, cp))
        return 0;
    size_t n = 1 + (size_t)digits;
    uint32_t low;
    if (c == 'u' && *cp >= 0xD800 && *cp < 0xDC00 && at + n + 1 < end && x->s.p[at + n] == '\\' &&
        x->s.p[at + n + 1] == 'u' && hex_digits(x, at + n + 2, end, 4, &low) && low >= 0xDC00 &&
        low < 0xE000) {
        *cp = 0x10000 + ((*cp - 0xD800) << 10) + (low - 0xDC00);
        n += 6;
    }
    return *cp > 0x10FFFF || (*cp >= 0xD800 && *cp < 0xE000) ? 0 : n;
}

/* Escapes of s[begin, end) resolved into a copy. No escape grows: \0 to \377 take 2 to 4 bytes for
 * at most 2, and unknown ones stay. */
static fr_status unescape(tpl_lexer *x, size_t begin, size_t end, fr_str *out)
{
    char *p = fr_arena_alloc(x->arena, end - begin + 1, 1, x->err);
    size_t k = 0;
    if (!p)
        return FR_ENOMEM;
    for (size_t i = begin; i < end; i++) {
        if (x->s.p[i] != '\\') {
            p[k++] = x->s.p[i];
            continue;
        }
        char c = x->s.p[++i]; /* a string cannot end in a lone backslash */
        if (c == 'N')
            return fail_here(x, i - 1, "an escape by character name, expected \\u and its number");
        if (!strchr("xuU01234567", c) || !c) {
            k += simple_escape(c, p + k);
            continue;
        }
        uint32_t cp;
        size_t used = code_escape(x, i, end, &cp);
        if (!used)
            return fail_here(x, i - 1, "an escape that names no character");
        k += (size_t)fr_utf8_encode(cp, p + k);
        i += used - 1;
    }
    *out = (fr_str){p, k};
    return FR_OK;
}

static fr_status lex_string(tpl_lexer *x, tpl_token *out)
{
    size_t begin = x->at + 1, end = begin;
    char quote = x->s.p[x->at];
    bool escapes = false;
    while (end < x->s.n && x->s.p[end] != quote) {
        escapes |= x->s.p[end] == '\\';
        end += x->s.p[end] == '\\' ? 2 : 1;
    }
    if (end >= x->s.n)
        return fail_here(x, x->at, "a string without end, expected its closing quote");
    out->kind = TPL_T_STRING;
    out->text = (fr_str){x->s.p + begin, end - begin};
    x->at = end + 1;
    return escapes ? unescape(x, begin, end, &out->text) : FR_OK;
}

/* ---- names and operators
 * ------------------------------------------------------------------------- */

static size_t skip_name(const tpl_lexer *x, size_t at)
{
    uint32_t cp;
    while (at < x->s.n) {
        int len = tpl_decode(x->s, at, &cp);
        if (cp != '_' && !tpl_is_alpha(cp) && !tpl_is_decimal(cp))
            break;
        at += (size_t)len;
    }
    return at;
}

static char closing(char c)
{
    return c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : 0;
}

static fr_status balance(tpl_lexer *x, char c)
{
    char text[64];
    if (closing(c)) {
        if (x->n_open == TPL_MAX_NESTING)
            return fail_here(x, x->at, "brackets nested too deeply");
        x->open[x->n_open++] = closing(c);
        return FR_OK;
    }
    if (c != ')' && c != ']' && c != '}')
        return FR_OK;
    if (x->n_open > 0 && x->open[x->n_open - 1] == c) {
        x->n_open--;
        return FR_OK;
    }
    if (x->n_open == 0)
        snprintf(text, sizeof text, "unexpected '%c'", c);
    else
        snprintf(text, sizeof text, "unexpected '%c', expected '%c'", c, x->open[x->n_open - 1]);
    return fail_here(x, x->at, text);
}

static fr_status lex_operator(tpl_lexer *x, tpl_token *out)
{
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (has(x, x->at, two[i]))
            n = 2;
    char c = x->s.p[x->at];
    if (n == 1 && (!c || !strchr("+-/*%~[](){}><=.:|,;", c))) {
        char text[64], shown[8] = "";
        uint32_t cp;
        memcpy(shown, x->s.p + x->at, (size_t)tpl_decode(x->s, x->at, &cp));
        snprintf(text, sizeof text, "unexpected character '%s'", shown);
        return fail_here(x, x->at, text);
    }
    FR_TRY(balance(x, c));
    out->kind = TPL_T_OP;
    out->text = (fr_str){x->s.p + x->at, n};
    x->at += n;
    return FR_OK;
}

static fr_status lex_word(tpl_lexer *x, tpl_token *out)
{
    char c = peek(x, x->at);
    if (c >= '0' && c <= '9')
        return lex_number(x, out);
    size_t end = skip_name(x, x->at);
    if (end > x->at) {
        out->kind = TPL_T_NAME;
        out->text = (fr_str){x->s.p + x->at, end - x->at};
        x->at = end;
        return FR_OK;
    }
    if (c == '"' || c == '\'')
        return lex_string(x, out);
    return lex_operator(x, out);
}

static fr_status lex_tag(tpl_lexer *x, tpl_token *out)
{
    bool block = x->state == IN_BLOCK;
    const char *end_word = block ? "%}" : "}}";
    size_t behind = 0;
    if (x->n_open == 0)
        behind = tag_end(x, x->at, end_word, block);
    if (!behind) {
        x->at = skip_space(x, x->at);
        if (x->n_open == 0)
            behind = tag_end(x, x->at, end_word, block);
    }
    *out = (tpl_token){.kind = TPL_T_EOF};
    locate(x, x->at, &out->line, &out->col);
    if (behind) {
        out->kind = block ? TPL_T_BLOCK_END : TPL_T_VAR_END;
        x->state = IN_TEXT;
        x->at = behind;
        x->line_starting = x->s.p[behind - 1] == '\n';
        return FR_OK;
    }
    return x->at < x->s.n ? lex_word(x, out) : FR_OK;
}

fr_status tpl_lex_next(tpl_lexer *x, tpl_token *out)
{
    if (x->state != IN_TEXT)
        return lex_tag(x, out);
    for (bool given = false; !given;)
        FR_TRY(lex_text(x, out, &given));
    return FR_OK;
}
