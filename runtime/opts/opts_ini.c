/* INI files, read by inih through a reader that takes its limits away.
 *
 * The inih library of Debian cuts lines at 200 bytes, tells no line numbers, takes an indented line
 * for the continuation of the one before, and ends a value at " ;" even inside quotes. So the
 * reader here sees the file first: it counts lines, takes indentation, comments and quotes away,
 * and hands each "key = value" on as one line and as many marked continuations as it needs. inih
 * then calls the handler once for each piece, which puts them together again:
 *
 *     key = <BEGIN>piece<MORE>
 *      <BEGIN>piece<END>
 *
 * The marks keep blanks at the ends of a piece; SHIELD stands for ';'. Section names, which inih
 * cuts at 49 bytes, go through it as a number. */
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "opts/opts_internal.h"

enum { BEGIN = 1, MORE, END, SHIELD }; /* control characters, refused in the file itself */

#define MAX_KEY 49 /* inih keeps this much of a key for continuations */
#define PIECE   64 /* fits 200 bytes, with the longest key and the marks */

typedef struct {
    const char *path;
    const char *p, *end; /* what is left of the file */
    int line;            /* the one that was read last */
    char key[MAX_KEY + 1];
    fr_buf value; /* of the line being handed on, without quotes */
    size_t i_piece;
    bool handing; /* pieces of it are left */

    fr_buf section; /* the current one */
    int n_sections;

    fr_buf joined; /* what the handler has of the value */
    opts_ini_fn fn;
    void *user;
    fr_status st;
    fr_err *err;
} reader;

FR_PRINTF(2, 3) static fr_status line_fail(reader *r, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fr_fail(r->err, FR_EFORMAT, "%s:%d: %s", r->path, r->line, text);
}

/* ---- lines
 * --------------------------------------------------------------------------------------- */

/* The next line without its end; false at the end of the file. */
static bool next_line(reader *r, fr_str *out)
{
    if (r->p == r->end)
        return false;
    const char *nl = memchr(r->p, '\n', (size_t)(r->end - r->p));
    const char *stop = nl ? nl : r->end;
    *out = fr_str_trim((fr_str){r->p, (size_t)(stop - r->p)});
    r->p = nl ? nl + 1 : r->end;
    r->line++;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Whether s begins a comment, or is empty. */
static bool is_comment(fr_str s)
{
    return s.n == 0 || s.p[0] == ';' || s.p[0] == '#';
}

/* Cuts a bare value at a comment: ';' or '#' after a blank, unless between double quotes. */
static fr_str cut_comment(fr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool begins = (s.p[i] == ';' || s.p[i] == '#') && (i == 0 || is_blank(s.p[i - 1]));
        if (begins)
            return fr_str_trim((fr_str){s.p, i});
        const char *quote = s.p[i] == '"' ? memchr(s.p + i + 1, '"', s.n - i - 1) : NULL;
        if (quote)
            i = (size_t)(quote - s.p);
    }
    return s;
}

/* Takes the quotes off a value that begins with one. Between single quotes all is as it stands;
 * between double quotes \" and \\ stand for the second character, every other \ for itself. */
static fr_status unquote(reader *r, fr_str s)
{
    char quote = s.p[0];
    size_t i = 1;
    for (; i < s.n && s.p[i] != quote; i++) {
        bool escape = quote == '"' && s.p[i] == '\\' && i + 1 < s.n &&
                      (s.p[i + 1] == '"' || s.p[i + 1] == '\\');
        i += escape;
        FR_TRY(fr_buf_putc(&r->value, s.p[i], r->err));
    }
    if (i >= s.n)
        return line_fail(r,
                         "found a value that begins with %c and does not end with it, "
                         "expected a closing %c",
                         quote, quote);
    if (!is_comment(fr_str_trim((fr_str){s.p + i + 1, s.n - i - 1})))
        return line_fail(r,
                         "found text after the closing %c, expected the end of the line; put the "
                         "whole value between %s",
                         quote, quote == '"' ? "single quotes" : "double quotes");
    return FR_OK;
}

static fr_status check_text(reader *r, fr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 32 && c != '\t') || c == 127)
            return line_fail(r, "found the control character 0x%02x, expected text", c);
    }
    return FR_OK;
}

static fr_status begin_section(reader *r, fr_str line)
{
    const char *close = memchr(line.p, ']', line.n);
    if (!close)
        return line_fail(r, "found '[' without ']', expected [section]");
    size_t n = (size_t)(close - line.p) - 1;
    fr_str name = fr_str_trim((fr_str){line.p + 1, n});
    if (!is_comment(fr_str_trim((fr_str){close + 1, line.n - n - 2})))
        return line_fail(r, "found text after ']', expected the end of the line");
    if (name.n == 0)
        return line_fail(r, "found an empty section name, expected [section]");
    fr_buf_clear(&r->section);
    r->n_sections++;
    FR_TRY(fr_buf_add(&r->section, name.p, name.n, r->err));
    return r->fn(r->user, r->section.p, NULL, NULL, r->line, r->err);
}

static fr_status begin_value(reader *r, fr_str line)
{
    size_t split = 0;
    while (split < line.n && line.p[split] != '=' && line.p[split] != ':')
        split++;
    fr_str key = fr_str_trim((fr_str){line.p, split});
    if (split == line.n)
        return line_fail(r, "found '%.*s', expected key = value", (int)(key.n > 60 ? 60 : key.n),
                         key.p);
    if (key.n == 0)
        return line_fail(r, "found no key before '%c', expected key = value", line.p[split]);
    if (key.n > MAX_KEY)
        return line_fail(r, "found a key of %zu bytes, expected at most %d", key.n, MAX_KEY);
    memcpy(r->key, key.p, key.n);
    r->key[key.n] = 0;
    if (strchr(r->key, ';') || r->key[0] == '[')
        return line_fail(r, "found the key '%s', expected letters, digits and dashes", r->key);
    fr_str value = fr_str_trim((fr_str){line.p + split + 1, line.n - split - 1});
    fr_buf_clear(&r->value);
    r->i_piece = 0;
    r->handing = true;
    if (value.n && (value.p[0] == '"' || value.p[0] == '\''))
        return unquote(r, value);
    value = cut_comment(value);
    return fr_buf_add(&r->value, value.p, value.n, r->err);
}

/* ---- to inih and back
 * ---------------------------------------------------------------------------- */

/* Writes the next piece of the value as a line that inih passes on unchanged. */
static void hand_piece(reader *r, char *to)
{
    size_t left = r->value.n - r->i_piece, n = left < PIECE ? left : PIECE;
    to += r->i_piece ? sprintf(to, " %c", BEGIN) : sprintf(to, "%s = %c", r->key, BEGIN);
    for (size_t i = 0; i < n; i++) {
        char c = r->value.p[r->i_piece + i];
        *to++ = c == ';' ? SHIELD : c;
    }
    r->i_piece += n;
    r->handing = r->i_piece < r->value.n;
    *to++ = r->handing ? MORE : END;
    *to = 0;
}

/* ini_reader: the next line for inih, or NULL at the end and after a failure. */
static char *read_line(char *to, int size, void *user)
{
    reader *r = user;
    fr_str line;
    (void)size; /* at least 200 */
    while (r->st == FR_OK && !r->handing) {
        if (!next_line(r, &line))
            return NULL;
        if ((r->st = check_text(r, line)) != FR_OK || is_comment(line))
            continue;
        if (line.p[0] != '[') {
            r->st = begin_value(r, line);
        } else if ((r->st = begin_section(r, line)) == FR_OK) {
            sprintf(to, "[%d]", r->n_sections);
            return to;
        }
    }
    if (r->st != FR_OK)
        return NULL;
    hand_piece(r, to);
    return to;
}

/* ini_handler: puts the pieces together and passes whole values on. */
static int take_piece(void *user, const char *section, const char *key, const char *piece)
{
    reader *r = user;
    (void)section;
    for (const char *c = piece; *c && r->st == FR_OK; c++) {
        if (*c == END)
            r->st = r->fn(r->user, r->section.p ? r->section.p : "", key,
                          r->joined.p ? r->joined.p : "", r->line, r->err);
        if (*c == END)
            fr_buf_clear(&r->joined);
        else if (*c == SHIELD)
            r->st = fr_buf_putc(&r->joined, ';', r->err);
        else if (*c != BEGIN && *c != MORE)
            r->st = fr_buf_putc(&r->joined, *c, r->err);
    }
    return r->st == FR_OK;
}

fr_status opts_ini_parse(const char *path, const char *p, size_t n, opts_ini_fn fn, void *user,
                         fr_err *err)
{
    reader r = {.path = path, .p = p, .end = p + n, .fn = fn, .user = user, .err = err};
    if (n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
        r.p += 3;
    int bad = ini_parse_stream(read_line, &r, take_piece, &r);
    if (bad && r.st == FR_OK)
        r.st = fr_fail(err, FR_EINTERNAL, "%s:%d: the INI library refused a line", path, r.line);
    fr_buf_free(&r.value);
    fr_buf_free(&r.section);
    fr_buf_free(&r.joined);
    return r.st;
}

/* ---- writing
 * ------------------------------------------------------------------------------------- */

static bool needs_quotes(const char *v)
{
    size_t n = strlen(v);
    return n == 0 || strpbrk(v, ";#\"\n\r") || v[0] == '\'' || is_blank(v[0]) || is_blank(v[n - 1]);
}

fr_status opts_ini_quote(const char *value, fr_buf *out, fr_err *err)
{
    if (!needs_quotes(value))
        return fr_buf_puts(out, value, err);
    FR_TRY(fr_buf_putc(out, '"', err));
    for (const char *c = value; *c; c++) {
        if (*c == '"' || *c == '\\')
            FR_TRY(fr_buf_putc(out, '\\', err));
        if (*c == '\n' || *c == '\r')
            FR_TRY(fr_buf_puts(out, *c == '\n' ? "\\n" : "\\r", err));
        else
            FR_TRY(fr_buf_putc(out, *c, err));
    }
    return fr_buf_putc(out, '"', err);
}
