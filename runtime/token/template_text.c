#include <string.h>

#include "token/template_eval.h"
#include "token/template_unicode.h"

/* ---- case
 * ----------------------------------------------------------------------------------------- */

static fr_status emit_cp(tpl_run *r, uint32_t cp)
{
    char text[4];
    return tpl_emit(r, text, (size_t)fr_utf8_encode(cp, text));
}

static bool is_cased(uint32_t cp)
{
    return tpl_to_lower(cp) != cp || tpl_to_upper(cp) != cp;
}

/* A capital sigma at the end of a word becomes the final form. */
static bool is_final_sigma(fr_str s, size_t at, size_t len)
{
    uint32_t cp;
    if (at == 0)
        return false;
    tpl_decode(s, tpl_char_before(s, at), &cp);
    if (!tpl_is_alpha(cp))
        return false;
    if (at + len >= s.n)
        return true;
    tpl_decode(s, at + len, &cp);
    return !tpl_is_alpha(cp);
}

static fr_status emit_lower(tpl_run *r, fr_str s, size_t at, size_t len, uint32_t cp)
{
    if (cp == 0x3A3)
        return emit_cp(r, is_final_sigma(s, at, len) ? 0x3C2 : 0x3C3);
    FR_TRY(emit_cp(r, cp == 0x130 ? 'i' : tpl_to_lower(cp)));
    return cp == 0x130 ? emit_cp(r, 0x307) : FR_OK; /* the one letter whose lower case is two */
}

static fr_status emit_upper(tpl_run *r, uint32_t cp)
{
    uint32_t up[3];
    int n = tpl_full_upper(cp, up);
    for (int i = 0; i < n; i++)
        FR_TRY(emit_cp(r, up[i]));
    return FR_OK;
}

fr_status tpl_change_case(tpl_run *r, fr_str s, tpl_case how, tpl_value *out)
{
    size_t mark = r->out.n;
    bool word_before = false;
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t cp;
        len = (size_t)tpl_decode(s, i, &cp);
        bool upper = how == TPL_CASE_UPPER || (how == TPL_CASE_CAPITAL && i == 0) ||
                     (how == TPL_CASE_TITLE && !word_before) ||
                     (how == TPL_CASE_SWAP && tpl_to_lower(cp) == cp);
        FR_TRY(upper ? emit_upper(r, cp) : emit_lower(r, s, i, len, cp));
        word_before = is_cased(cp);
    }
    return tpl_capture(r, mark, out);
}

/* ---- ends
 * ----------------------------------------------------------------------------------------- */

static bool strips(fr_str chars, const char *p, size_t len, uint32_t cp)
{
    if (!chars.p)
        return tpl_is_space(cp);
    return tpl_find(chars, (fr_str){p, len}, 0) != SIZE_MAX;
}

fr_str tpl_strip(fr_str s, fr_str chars, int sides)
{
    uint32_t cp;
    while ((sides & TPL_LEFT) && s.n) {
        size_t len = (size_t)tpl_decode(s, 0, &cp);
        if (!strips(chars, s.p, len, cp))
            break;
        s.p += len;
        s.n -= len;
    }
    while ((sides & TPL_RIGHT) && s.n) {
        size_t at = tpl_char_before(s, s.n);
        tpl_decode(s, at, &cp);
        if (!strips(chars, s.p + at, s.n - at, cp))
            break;
        s.n = at;
    }
    return s;
}

/* ---- searching
 * ------------------------------------------------------------------------------------ */

size_t tpl_find(fr_str s, fr_str word, size_t from)
{
    if (from > s.n || word.n > s.n - from)
        return SIZE_MAX;
    if (word.n == 0)
        return from;
    const char *at = memmem(s.p + from, s.n - from, word.p, word.n);
    return at ? (size_t)(at - s.p) : SIZE_MAX;
}

size_t tpl_find_last(fr_str s, fr_str word)
{
    if (word.n > s.n)
        return SIZE_MAX;
    for (size_t at = s.n - word.n + 1; at-- > 0;)
        if (word.n == 0 || (s.p[at] == word.p[0] && memcmp(s.p + at, word.p, word.n) == 0))
            return at;
    return SIZE_MAX;
}

/* An empty word stands before every character and at the end. */
static fr_status replace_empty(tpl_run *r, fr_str s, fr_str to, int64_t max)
{
    size_t i = 0;
    for (; max > 0; max--) {
        uint32_t cp;
        FR_TRY(tpl_emit_str(r, to));
        if (i == s.n)
            break;
        size_t len = (size_t)tpl_decode(s, i, &cp);
        FR_TRY(tpl_emit(r, s.p + i, len));
        i += len;
    }
    return tpl_emit(r, s.p + i, s.n - i);
}

fr_status tpl_replace(tpl_run *r, fr_str s, fr_str from, fr_str to, int64_t max, tpl_value *out)
{
    size_t mark = r->out.n, at = 0, hit;
    max = max < 0 ? INT64_MAX : max;
    FR_TRY(tpl_spend_bytes(r, s.n));
    if (from.n == 0) {
        FR_TRY(replace_empty(r, s, to, max));
        return tpl_capture(r, mark, out);
    }
    while (max-- > 0 && (hit = tpl_find(s, from, at)) != SIZE_MAX) {
        FR_TRY(tpl_emit(r, s.p + at, hit - at));
        FR_TRY(tpl_emit_str(r, to));
        at = hit + from.n;
    }
    FR_TRY(tpl_emit(r, s.p + at, s.n - at));
    return tpl_capture(r, mark, out);
}

bool tpl_next_line(fr_str s, size_t *at, fr_str *line, fr_str *line_end)
{
    size_t begin = *at, i = begin;
    if (begin >= s.n)
        return false;
    *line = (fr_str){s.p + begin, s.n - begin};
    *line_end = (fr_str){s.p + s.n, 0};
    while (i < s.n) {
        uint32_t cp;
        size_t len = (size_t)tpl_decode(s, i, &cp);
        if (tpl_is_line_end(cp)) {
            len += cp == '\r' && i + 1 < s.n && s.p[i + 1] == '\n';
            line->n = i - begin;
            *line_end = (fr_str){s.p + i, len};
            *at = i + len;
            return true;
        }
        i += len;
    }
    *at = s.n;
    return true;
}
