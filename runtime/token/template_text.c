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
    return tpl_is_upper(cp) || tpl_is_lower(cp);
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

/* With `title`, only the first of several letters is upper case ("ß" gives "Ss"). */
static fr_status emit_upper(tpl_run *r, uint32_t cp, bool title)
{
    uint32_t up[3];
    int n = tpl_full_upper(cp, up);
    for (int i = 0; i < n; i++)
        FR_TRY(emit_cp(r, title && i > 0 ? tpl_to_lower(up[i]) : up[i]));
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
                     (how == TPL_CASE_SWAP && !tpl_is_upper(cp));
        bool title = how == TPL_CASE_CAPITAL || how == TPL_CASE_TITLE;
        FR_TRY(upper ? emit_upper(r, cp, title) : emit_lower(r, s, i, len, cp));
        word_before = is_cased(cp);
    }
    return tpl_capture(r, mark, out);
}

/* ---- ends
 * ----------------------------------------------------------------------------------------- */

fr_str tpl_trim(fr_str s, int sides)
{
    uint32_t cp;
    while ((sides & TPL_LEFT) && s.n) {
        size_t len = (size_t)tpl_decode(s, 0, &cp);
        if (!tpl_is_space(cp))
            break;
        s.p += len;
        s.n -= len;
    }
    while ((sides & TPL_RIGHT) && s.n) {
        size_t at = tpl_char_before(s, s.n);
        tpl_decode(s, at, &cp);
        if (!tpl_is_space(cp))
            break;
        s.n = at;
    }
    return s;
}

/* Takes characters off one side of *s while they are in `chars`. */
static fr_status strip_side(tpl_run *r, fr_str *s, fr_str chars, bool left)
{
    while (s->n) {
        uint32_t cp;
        size_t at = left ? 0 : tpl_char_before(*s, s->n);
        size_t len = left ? (size_t)tpl_decode(*s, 0, &cp) : s->n - at;
        FR_TRY(tpl_spend_bytes(r, chars.n));
        if (tpl_find(chars, (fr_str){s->p + at, len}, 0) == SIZE_MAX)
            break;
        s->p += left ? len : 0;
        s->n -= len;
    }
    return FR_OK;
}

fr_status tpl_strip(tpl_run *r, fr_str s, tpl_value chars, int sides, tpl_value *out)
{
    fr_str set;
    FR_TRY(tpl_spend_bytes(r, s.n));
    if (!tpl_given(chars))
        return tpl_str_view(r, tpl_trim(s, sides), out);
    FR_TRY(tpl_arg_str(r, chars, NULL, &set));
    if (sides & TPL_LEFT)
        FR_TRY(strip_side(r, &s, set, true));
    if (sides & TPL_RIGHT)
        FR_TRY(strip_side(r, &s, set, false));
    return tpl_str_view(r, s, out);
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

static char *reversed(tpl_run *r, fr_str s)
{
    char *p = TPL_NEW(char, r, s.n);
    for (size_t i = 0; p && i < s.n; i++)
        p[i] = s.p[s.n - 1 - i];
    return p;
}

/* Long words are sought in reversed copies, by the library's linear search. */
fr_status tpl_find_last(tpl_run *r, fr_str s, fr_str word, size_t *at)
{
    enum { SHORT_WORD = 8 };
    *at = SIZE_MAX;
    FR_TRY(tpl_spend_bytes(r, s.n));
    if (word.n > s.n)
        return FR_OK;
    if (word.n <= SHORT_WORD) {
        for (*at = s.n - word.n; *at != SIZE_MAX; --*at)
            if (word.n == 0 || memcmp(s.p + *at, word.p, word.n) == 0)
                break;
        return FR_OK;
    }
    char *text = reversed(r, s), *needle = text ? reversed(r, word) : NULL;
    if (!needle)
        return FR_ENOMEM;
    size_t hit = tpl_find((fr_str){text, s.n}, (fr_str){needle, word.n}, 0);
    if (hit != SIZE_MAX)
        *at = s.n - hit - word.n;
    return FR_OK;
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
