/* The methods of strings, as Python has them. Positions and widths count characters. */
#include <string.h>

#include "token/template_builtins.h"
#include "token/template_unicode.h"

static fr_str self(const tpl_call *c)
{
    return tpl_text(c->a[0]);
}

static fr_status push_text(tpl_run *r, tpl_list *l, const char *p, size_t n)
{
    tpl_value v;
    FR_TRY(tpl_str_view(r, (fr_str){p, n}, &v));
    return tpl_list_push(r, l, v);
}

/* ---- case and white space
 * -------------------------------------------------------------------------- */

static TPL_BUILTIN(str_upper)
{
    return tpl_change_case(r, self(c), TPL_CASE_UPPER, out);
}

static TPL_BUILTIN(str_lower)
{
    return tpl_change_case(r, self(c), TPL_CASE_LOWER, out);
}

static TPL_BUILTIN(str_capitalize)
{
    return tpl_change_case(r, self(c), TPL_CASE_CAPITAL, out);
}

static TPL_BUILTIN(str_title)
{
    return tpl_change_case(r, self(c), TPL_CASE_TITLE, out);
}

static TPL_BUILTIN(str_swapcase)
{
    return tpl_change_case(r, self(c), TPL_CASE_SWAP, out);
}

static fr_status strip(tpl_run *r, tpl_call *c, int sides, tpl_value *out)
{
    return tpl_strip(r, self(c), c->a[1], sides, out);
}

static TPL_BUILTIN(str_strip)
{
    return strip(r, c, TPL_LEFT | TPL_RIGHT, out);
}

static TPL_BUILTIN(str_lstrip)
{
    return strip(r, c, TPL_LEFT, out);
}

static TPL_BUILTIN(str_rstrip)
{
    return strip(r, c, TPL_RIGHT, out);
}

/* ---- what it is
 * ----------------------------------------------------------------------------------- */

typedef bool char_test(uint32_t cp);

static bool is_alnum(uint32_t cp)
{
    return tpl_is_alpha(cp) || tpl_is_decimal(cp);
}

static fr_status all_chars(tpl_run *r, tpl_call *c, char_test *test, tpl_value *out)
{
    fr_str s = self(c);
    bool all = s.n > 0;
    for (size_t i = 0; i < s.n && all;) {
        uint32_t cp;
        i += (size_t)tpl_decode(s, i, &cp);
        all = test(cp);
    }
    *out = tpl_bool(all);
    return tpl_spend_bytes(r, s.n);
}

static TPL_BUILTIN(str_isalpha)
{
    return all_chars(r, c, tpl_is_alpha, out);
}

static TPL_BUILTIN(str_isdigit)
{
    return all_chars(r, c, tpl_is_decimal, out);
}

static TPL_BUILTIN(str_isalnum)
{
    return all_chars(r, c, is_alnum, out);
}

static TPL_BUILTIN(str_isspace)
{
    return all_chars(r, c, tpl_is_space, out);
}

static TPL_BUILTIN(str_isascii)
{
    (void)r;
    *out = tpl_bool(tpl_str_chars(c->a[0].u.s) == self(c).n);
    return FR_OK;
}

static TPL_BUILTIN(str_islower)
{
    return tpl_apply(r, &tpl_tests, (tpl_value){.kind = TPL_STR, .u.s = &(tpl_str){"lower", 5, 5}},
                     c->a[0], &(tpl_args){0}, out);
}

static TPL_BUILTIN(str_isupper)
{
    return tpl_apply(r, &tpl_tests, (tpl_value){.kind = TPL_STR, .u.s = &(tpl_str){"upper", 5, 5}},
                     c->a[0], &(tpl_args){0}, out);
}

/* ---- searching
 * ------------------------------------------------------------------------------------ */

/* The part of the string that the arguments "start" and "end" (a[2], a[3]) leave, and how many
 * characters stand before it. `beyond` is set when start lies behind the end of the string. */
static fr_status searched_part(tpl_run *r, tpl_call *c, fr_str *part, int64_t *before, bool *beyond)
{
    int64_t start = 0, n = (int64_t)tpl_str_chars(c->a[0].u.s);
    tpl_value v, from = tpl_none(), to = tpl_none();
    if (tpl_given(c->a[2])) {
        from = c->a[2];
        FR_TRY(tpl_arg_int(r, from, 0, &start));
        start = start < 0 ? (start + n < 0 ? 0 : start + n) : start;
    }
    if (tpl_given(c->a[3]))
        to = c->a[3];
    *before = start;
    *beyond = start > n;
    FR_TRY(tpl_spend_bytes(r, self(c).n));
    FR_TRY(tpl_slice(r, c->a[0], from, to, tpl_none(), &v));
    *part = tpl_text(v);
    return FR_OK;
}

/* The character position of a word, -1 when it is not there. */
static fr_status find_word(tpl_run *r, tpl_call *c, bool last, int64_t *out)
{
    fr_str part, word;
    bool beyond;
    FR_TRY(tpl_arg_str(r, c->a[1], NULL, &word));
    FR_TRY(searched_part(r, c, &part, out, &beyond));
    size_t at = SIZE_MAX;
    if (!beyond && last)
        FR_TRY(tpl_find_last(r, part, word, &at));
    else if (!beyond)
        at = tpl_find(part, word, 0);
    *out = at == SIZE_MAX ? -1 : *out + (int64_t)tpl_count_chars((fr_str){part.p, at});
    return FR_OK;
}

static fr_status find_position(tpl_run *r, tpl_call *c, bool last, bool must, tpl_value *out)
{
    int64_t at;
    FR_TRY(find_word(r, c, last, &at));
    if (must && at < 0)
        return tpl_fail(r, FR_EINVAL, "substring not found");
    *out = tpl_int(at);
    return FR_OK;
}

static TPL_BUILTIN(str_find)
{
    return find_position(r, c, false, false, out);
}

static TPL_BUILTIN(str_rfind)
{
    return find_position(r, c, true, false, out);
}

static TPL_BUILTIN(str_index)
{
    return find_position(r, c, false, true, out);
}

static TPL_BUILTIN(str_rindex)
{
    return find_position(r, c, true, true, out);
}

static TPL_BUILTIN(str_count)
{
    fr_str part, word;
    int64_t before, n = 0;
    bool beyond;
    FR_TRY(tpl_arg_str(r, c->a[1], NULL, &word));
    FR_TRY(searched_part(r, c, &part, &before, &beyond));
    if (word.n == 0)
        n = beyond ? 0 : (int64_t)tpl_count_chars(part) + 1;
    else
        for (size_t at = 0; (at = tpl_find(part, word, at)) != SIZE_MAX; at += word.n)
            n++;
    *out = tpl_int(n);
    return FR_OK;
}

static bool has_end(fr_str s, fr_str word, bool at_start)
{
    if (word.n > s.n)
        return false;
    return fr_str_eq((fr_str){at_start ? s.p : s.p + s.n - word.n, word.n}, word);
}

/* startswith and endswith take one word or a tuple of them. */
static fr_status test_end(tpl_run *r, tpl_call *c, bool at_start, tpl_value *out)
{
    const tpl_value *words = &c->a[1];
    size_t n = 1;
    int64_t before;
    fr_str part, word;
    bool hit = false, beyond;
    if (c->a[1].kind == TPL_TUPLE)
        FR_TRY(tpl_items(r, c->a[1], &words, &n));
    FR_TRY(searched_part(r, c, &part, &before, &beyond));
    for (size_t i = 0; i < n; i++) {
        FR_TRY(tpl_arg_str(r, words[i], NULL, &word));
        hit |= !beyond && has_end(part, word, at_start);
    }
    *out = tpl_bool(hit);
    return FR_OK;
}

static TPL_BUILTIN(str_startswith)
{
    return test_end(r, c, true, out);
}

static TPL_BUILTIN(str_endswith)
{
    return test_end(r, c, false, out);
}

/* ---- taking apart
 * --------------------------------------------------------------------------------- */

/* Words between white space; `max` cuts, the rest stays whole. */
static fr_status split_space(tpl_run *r, fr_str s, int64_t max, tpl_list *l)
{
    for (s = tpl_trim(s, TPL_LEFT); s.n; s = tpl_trim(s, TPL_LEFT)) {
        size_t n = 0;
        if (max-- == 0)
            return push_text(r, l, s.p, s.n);
        while (n < s.n) {
            uint32_t cp;
            int len = tpl_decode(s, n, &cp);
            if (tpl_is_space(cp))
                break;
            n += (size_t)len;
        }
        FR_TRY(push_text(r, l, s.p, n));
        s = (fr_str){s.p + n, s.n - n};
    }
    return FR_OK;
}

static fr_status split_word(tpl_run *r, fr_str s, fr_str word, int64_t max, tpl_list *l)
{
    size_t begin = 0, at;
    while (max-- != 0 && (at = tpl_find(s, word, begin)) != SIZE_MAX) {
        FR_TRY(push_text(r, l, s.p + begin, at - begin));
        begin = at + word.n;
    }
    return push_text(r, l, s.p + begin, s.n - begin);
}

/* The same from the end; pieces come last first. */
static fr_status rsplit_space(tpl_run *r, fr_str s, int64_t max, tpl_list *l)
{
    for (s = tpl_trim(s, TPL_RIGHT); s.n; s = tpl_trim(s, TPL_RIGHT)) {
        size_t at = s.n;
        if (max-- == 0)
            return push_text(r, l, s.p, s.n);
        while (at > 0) {
            uint32_t cp;
            size_t before = tpl_char_before(s, at);
            tpl_decode(s, before, &cp);
            if (tpl_is_space(cp))
                break;
            at = before;
        }
        FR_TRY(push_text(r, l, s.p + at, s.n - at));
        s.n = at;
    }
    return FR_OK;
}

static fr_status rsplit_word(tpl_run *r, fr_str s, fr_str word, int64_t max, tpl_list *l)
{
    size_t at;
    for (; max != 0; max--) {
        FR_TRY(tpl_find_last(r, s, word, &at));
        if (at == SIZE_MAX)
            break;
        FR_TRY(push_text(r, l, s.p + at + word.n, s.n - at - word.n));
        s.n = at;
    }
    return push_text(r, l, s.p, s.n);
}

static fr_status split(tpl_run *r, tpl_call *c, bool from_end, tpl_value *out)
{
    int64_t max;
    fr_str word;
    FR_TRY(tpl_arg_int(r, c->a[2], -1, &max));
    FR_TRY(tpl_spend_bytes(r, self(c).n));
    FR_TRY(tpl_list_new(r, TPL_LIST, 0, out));
    tpl_list *l = out->u.l;
    if (!tpl_given(c->a[1])) {
        FR_TRY((from_end ? rsplit_space : split_space)(r, self(c), max, l));
    } else {
        FR_TRY(tpl_arg_str(r, c->a[1], NULL, &word));
        if (word.n == 0)
            return tpl_fail(r, FR_EINVAL, "empty separator");
        FR_TRY((from_end ? rsplit_word : split_word)(r, self(c), word, max, l));
    }
    for (size_t i = 0; from_end && i < l->n / 2; i++) {
        tpl_value t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    return FR_OK;
}

static TPL_BUILTIN(str_split)
{
    return split(r, c, false, out);
}

static TPL_BUILTIN(str_rsplit)
{
    return split(r, c, true, out);
}

static TPL_BUILTIN(str_splitlines)
{
    fr_str line, end;
    size_t at = 0;
    bool keep = tpl_arg_bool(c->a[1], false);
    FR_TRY(tpl_spend_bytes(r, self(c).n));
    FR_TRY(tpl_list_new(r, TPL_LIST, 0, out));
    while (tpl_next_line(self(c), &at, &line, &end))
        FR_TRY(push_text(r, out->u.l, line.p, line.n + (keep ? end.n : 0)));
    return FR_OK;
}

static fr_status partition(tpl_run *r, tpl_call *c, bool last, tpl_value *out)
{
    fr_str s = self(c), word;
    FR_TRY(tpl_arg_str(r, c->a[1], NULL, &word));
    if (word.n == 0)
        return tpl_fail(r, FR_EINVAL, "empty separator");
    FR_TRY(tpl_spend_bytes(r, s.n));
    size_t at = tpl_find(s, word, 0);
    if (last)
        FR_TRY(tpl_find_last(r, s, word, &at));
    FR_TRY(tpl_list_new(r, TPL_TUPLE, 3, out));
    tpl_list *l = out->u.l;
    if (at == SIZE_MAX) {
        FR_TRY(push_text(r, l, s.p, last ? 0 : s.n));
        FR_TRY(push_text(r, l, s.p, 0));
        return push_text(r, l, s.p, last ? s.n : 0);
    }
    FR_TRY(push_text(r, l, s.p, at));
    FR_TRY(push_text(r, l, s.p + at, word.n));
    return push_text(r, l, s.p + at + word.n, s.n - at - word.n);
}

static TPL_BUILTIN(str_partition)
{
    return partition(r, c, false, out);
}

static TPL_BUILTIN(str_rpartition)
{
    return partition(r, c, true, out);
}

static fr_status remove_end(tpl_run *r, tpl_call *c, bool at_start, tpl_value *out)
{
    fr_str s = self(c), word;
    FR_TRY(tpl_arg_str(r, c->a[1], NULL, &word));
    if (has_end(s, word, at_start)) {
        s.p += at_start ? word.n : 0;
        s.n -= word.n;
    }
    return tpl_str_view(r, s, out);
}

static TPL_BUILTIN(str_removeprefix)
{
    return remove_end(r, c, true, out);
}

static TPL_BUILTIN(str_removesuffix)
{
    return remove_end(r, c, false, out);
}

/* ---- putting together
 * ------------------------------------------------------------------------------ */

static TPL_BUILTIN(str_join)
{
    const tpl_value *items;
    size_t n, mark = r->out.n;
    FR_TRY(tpl_items(r, c->a[1], &items, &n));
    for (size_t i = 0; i < n; i++) {
        if (items[i].kind != TPL_STR)
            return tpl_fail(r, FR_EINVAL, "sequence item %zu: expected str instance, %s found", i,
                            tpl_type_name(items[i]));
        if (i)
            FR_TRY(tpl_emit_str(r, self(c)));
        FR_TRY(tpl_emit_str(r, tpl_text(items[i])));
    }
    return tpl_capture(r, mark, out);
}

static TPL_BUILTIN(str_replace)
{
    fr_str from, to;
    int64_t max;
    FR_TRY(tpl_arg_str(r, c->a[1], NULL, &from));
    FR_TRY(tpl_arg_str(r, c->a[2], NULL, &to));
    FR_TRY(tpl_arg_int(r, c->a[3], -1, &max));
    return tpl_replace(r, self(c), from, to, max, out);
}

static TPL_BUILTIN(str_format)
{
    tpl_args args = {c->rest, c->n_rest, c->kw, c->n_kw};
    return tpl_brace_format(r, self(c), &args, out);
}

/* Fill characters on one side or both. Centred, the odd one goes left when the width is odd. */
static fr_status pad(tpl_run *r, tpl_call *c, int sides, tpl_value *out)
{
    int64_t width, n = (int64_t)tpl_str_chars(c->a[0].u.s);
    size_t mark = r->out.n;
    fr_str fill;
    FR_TRY(tpl_arg_int(r, c->a[1], 0, &width));
    FR_TRY(tpl_arg_str(r, c->a[2], " ", &fill));
    if (tpl_count_chars(fill) != 1)
        return tpl_fail(r, FR_EINVAL, "the fill character must be exactly one character long");
    int64_t room = width > n ? width - n : 0;
    int64_t left = sides == TPL_LEFT    ? room
                   : sides == TPL_RIGHT ? 0
                                        : room / 2 + (room & width & 1);
    FR_TRY(tpl_emit_repeat(r, fill, left));
    FR_TRY(tpl_emit_str(r, self(c)));
    FR_TRY(tpl_emit_repeat(r, fill, room - left));
    return tpl_capture(r, mark, out);
}

static TPL_BUILTIN(str_center)
{
    return pad(r, c, TPL_LEFT | TPL_RIGHT, out);
}

static TPL_BUILTIN(str_ljust)
{
    return pad(r, c, TPL_RIGHT, out);
}

static TPL_BUILTIN(str_rjust)
{
    return pad(r, c, TPL_LEFT, out);
}

static TPL_BUILTIN(str_zfill)
{
    int64_t width, n = (int64_t)tpl_str_chars(c->a[0].u.s);
    size_t mark = r->out.n;
    fr_str s = self(c);
    FR_TRY(tpl_arg_int(r, c->a[1], 0, &width));
    size_t lead = s.n && (s.p[0] == '-' || s.p[0] == '+');
    FR_TRY(tpl_emit(r, s.p, lead));
    FR_TRY(tpl_emit_repeat(r, FR_STR("0"), width > n ? width - n : 0));
    FR_TRY(tpl_emit(r, s.p + lead, s.n - lead));
    return tpl_capture(r, mark, out);
}

/* ---- the table
 * ------------------------------------------------------------------------------------ */

static const tpl_row methods[] = {
    {"capitalize", str_capitalize, "self!"},
    {"center", str_center, "self! width! fillchar"},
    {"count", str_count, "self! sub! start end"},
    {"endswith", str_endswith, "self! suffix! start end"},
    {"find", str_find, "self! sub! start end"},
    {"format", str_format, "self! * **"},
    {"index", str_index, "self! sub! start end"},
    {"isalnum", str_isalnum, "self!"},
    {"isalpha", str_isalpha, "self!"},
    {"isascii", str_isascii, "self!"},
    {"isdecimal", str_isdigit, "self!"},
    {"isdigit", str_isdigit, "self!"},
    {"islower", str_islower, "self!"},
    {"isnumeric", str_isdigit, "self!"},
    {"isspace", str_isspace, "self!"},
    {"isupper", str_isupper, "self!"},
    {"join", str_join, "self! iterable!"},
    {"ljust", str_ljust, "self! width! fillchar"},
    {"lower", str_lower, "self!"},
    {"lstrip", str_lstrip, "self! chars"},
    {"partition", str_partition, "self! sep!"},
    {"removeprefix", str_removeprefix, "self! prefix!"},
    {"removesuffix", str_removesuffix, "self! suffix!"},
    {"replace", str_replace, "self! old! new! count"},
    {"rfind", str_rfind, "self! sub! start end"},
    {"rindex", str_rindex, "self! sub! start end"},
    {"rjust", str_rjust, "self! width! fillchar"},
    {"rpartition", str_rpartition, "self! sep!"},
    {"rsplit", str_rsplit, "self! sep maxsplit"},
    {"rstrip", str_rstrip, "self! chars"},
    {"split", str_split, "self! sep maxsplit"},
    {"splitlines", str_splitlines, "self! keepends"},
    {"startswith", str_startswith, "self! prefix! start end"},
    {"strip", str_strip, "self! chars"},
    {"swapcase", str_swapcase, "self!"},
    {"title", str_title, "self!"},
    {"upper", str_upper, "self!"},
    {"zfill", str_zfill, "self! width!"},
};

const tpl_table tpl_str_methods = {"method of strings", methods, sizeof methods / sizeof *methods};
