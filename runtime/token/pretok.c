#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

#include "token/pretok.h"

struct pretok {
    pcre2_general_context *general;
    int n_rules;
    pcre2_code *rules[PRETOK_MAX_RULES];
};

/* ---- the table ---------------------------------------------------------------------------------
 */

static const pretok_row rows[] = {
#define NAMES(...)                                                                                 \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define RULES(...)                                                                                 \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define PRETOK(row_flags, row_names, row_rules)                                                    \
    {.flags = (row_flags), .names = row_names, .patterns = row_rules},
#include "token/pretok.def"
#undef PRETOK
#undef RULES
#undef NAMES
};

enum { N_ROWS = sizeof rows / sizeof *rows };

fr_status pretok_find(fr_str name, const pretok_row **out, fr_err *err)
{
    fr_buf known = {0};
    for (int i = 0; i < N_ROWS; i++)
        for (int j = 0; j < PRETOK_MAX_NAMES && rows[i].names[j]; j++)
            if (fr_str_is(name, rows[i].names[j])) {
                *out = &rows[i];
                return FR_OK;
            }
    fr_status st = FR_OK;
    for (int i = 0; i < N_ROWS && st == FR_OK; i++)
        st = fr_buf_printf(&known, err, "%s%s", i ? ", " : "", rows[i].names[0]);
    if (st == FR_OK)
        st = fr_fail(err, FR_EUNSUPPORTED, "tokenizer.ggml.pre: found \"%.*s\", expected one of %s",
                     (int)(name.n < 80 ? name.n : 80), name.p, known.p);
    fr_buf_free(&known);
    return st;
}

/* ---- compiling ---------------------------------------------------------------------------------
 */

static void *pcre_alloc(PCRE2_SIZE bytes, void *user)
{
    (void)user;
    return fr_mem_alloc(FR_MEM_VOCAB, bytes);
}

static void pcre_free(void *p, void *user)
{
    (void)user;
    fr_mem_free(p);
}

static fr_status fail_memory(fr_err *err)
{
    return fr_fail(err, FR_ENOMEM, "pre-tokenizer: memory could not be had");
}

/* What a rule of the table fails with, other than for memory, is a PCRE2 without Unicode or too
 * old. */
static fr_status compile_rule(pretok *p, const char *pattern, fr_err *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(p->general);
    if (!context)
        return fail_memory(err);
    pcre2_code *rule = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!rule && code == PCRE2_ERROR_HEAP_FAILED)
        return fail_memory(err);
    if (!rule) {
        char text[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return fr_fail(
            err, FR_EUNSUPPORTED,
            "pre-tokenizer: PCRE2 found \"%s\" at byte %zu of its pattern, expected version "
            "10.40 or later with Unicode",
            text, (size_t)at);
    }
    pcre2_jit_compile(rule,
                      PCRE2_JIT_COMPLETE); /* optional: without it the same words come, later */
    p->rules[p->n_rules++] = rule;
    return FR_OK;
}

fr_status pretok_compile(const pretok_row *row, pretok **out, fr_err *err)
{
    pretok *p = FR_NEW(pretok, FR_MEM_VOCAB, 1, err);
    if (!p)
        return FR_ENOMEM;
    p->general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    fr_status st = p->general ? FR_OK : fail_memory(err);
    for (int i = 0; st == FR_OK && i < PRETOK_MAX_RULES && row->patterns[i]; i++)
        st = compile_rule(p, row->patterns[i], err);
    if (st != FR_OK) {
        pretok_free(p);
        return st;
    }
    *out = p;
    return FR_OK;
}

void pretok_free(pretok *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_rules; i++)
        pcre2_code_free(p->rules[i]);
    pcre2_general_context_free(p->general);
    fr_mem_free(p);
}

/* ---- cutting -----------------------------------------------------------------------------------
 */

static fr_status add_end(pretok_words *w, size_t end, fr_err *err)
{
    if (w->n == w->cap)
        FR_TRY(
            fr_mem_grow(FR_MEM_VOCAB, (void **)&w->ends, &w->cap, w->n + 1, sizeof *w->ends, err));
    w->ends[w->n++] = (uint32_t)end;
    return FR_OK;
}

/* No rule matches nothing; should one, it must not stop the loop from moving on. */
enum { OPTIONS = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY };

/* One search from `at`: *from and *to, or *from = n when there is no further match. */
static fr_status search(const pcre2_code *rule, const char *text, size_t n, size_t at,
                        pretok_words *w, size_t *from, size_t *to, fr_err *err)
{
    int rc = pcre2_match(rule, (PCRE2_SPTR)text, n, at, OPTIONS, w->match, w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(rule, (PCRE2_SPTR)text, n, at, OPTIONS | PCRE2_NO_JIT, w->match,
                         w->context);
    *from = *to = n;
    if (rc == PCRE2_ERROR_NOMATCH)
        return FR_OK;
    if (rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT)
        return fail_memory(err);
    if (rc < 0)
        return fr_fail(err, FR_EINTERNAL, "pre-tokenizer: PCRE2 failed with %d at byte %zu of %zu",
                       rc, at, n);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(w->match);
    *from = span[0];
    *to = span[1];
    return FR_OK;
}

/* Cuts one piece, text[begin..end), by one rule. */
static fr_status cut_piece(const pcre2_code *rule, const char *text, size_t begin, size_t end,
                           pretok_words *w, fr_err *err)
{
    const char *piece = text + begin;
    size_t n = end - begin, at = 0;
    while (at < n) {
        size_t from, to;
        FR_TRY(search(rule, piece, n, at, w, &from, &to, err));
        if (from > at)
            FR_TRY(add_end(w, begin + from, err));
        if (to > from)
            FR_TRY(add_end(w, begin + to, err));
        at = to;
    }
    return FR_OK;
}

/* The limit is far above what the rules need (a few steps a character): it is there to stop a
 * mistake. */
static fr_status prepare_match(const pretok *p, size_t n, pretok_words *w, fr_err *err)
{
    if (!w->match)
        w->match = pcre2_match_data_create(1, p->general);
    if (!w->context)
        w->context = pcre2_match_context_create(p->general);
    if (!w->match || !w->context)
        return fail_memory(err);
    pcre2_set_match_limit(w->context, (uint32_t)(10000 + (n < 100000000 ? n : 100000000) * 32));
    return FR_OK;
}

static void swap_ends(pretok_words *w)
{
    uint32_t *ends = w->ends;
    size_t cap = w->cap;
    w->ends = w->ends_before;
    w->cap = w->cap_before;
    w->ends_before = ends;
    w->cap_before = cap;
}

static fr_status cut_valid(const pretok *p, const char *text, size_t n, pretok_words *w,
                           fr_err *err)
{
    w->n = 0;
    FR_TRY(add_end(w, n, err));
    for (int i = 0; i < p->n_rules; i++) {
        size_t n_pieces = w->n, begin = 0;
        swap_ends(w);
        w->n = 0;
        for (size_t j = 0; j < n_pieces; j++) {
            FR_TRY(cut_piece(p->rules[i], text, begin, w->ends_before[j], w, err));
            begin = w->ends_before[j];
        }
    }
    return FR_OK;
}

/* ---- bytes that are not UTF-8 ------------------------------------------------------------------
 */

static bool is_valid(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        if ((unsigned char)text[i] < 0x80) {
            i++;
            continue;
        }
        i += (size_t)fr_utf8_decode(text + i, n - i, &cp);
        if (cp == UINT32_MAX)
            return false;
    }
    return true;
}

static fr_status repair(const char *text, size_t n, pretok_words *w, fr_err *err)
{
    fr_buf_clear(&w->repaired);
    w->n_repairs = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int length = fr_utf8_decode(text + i, n - i, &cp);
        if (cp != UINT32_MAX) {
            FR_TRY(fr_buf_add(&w->repaired, text + i, (size_t)length, err));
        } else {
            if (w->n_repairs == w->cap_repairs)
                FR_TRY(fr_mem_grow(FR_MEM_VOCAB, (void **)&w->repairs, &w->cap_repairs,
                                   w->n_repairs + 1, sizeof *w->repairs, err));
            w->repairs[w->n_repairs++] = (uint32_t)w->repaired.n;
            FR_TRY(fr_buf_add(&w->repaired, "\xEF\xBF\xBD", 3, err));
        }
        i += (size_t)length;
    }
    return FR_OK;
}

/* Back to the bytes of the text: every repair before an end had made it two bytes longer. */
static void move_ends_back(pretok_words *w)
{
    size_t i_repair = 0;
    for (size_t i = 0; i < w->n; i++) {
        while (i_repair < w->n_repairs && w->repairs[i_repair] < w->ends[i])
            i_repair++;
        w->ends[i] -= 2 * (uint32_t)i_repair;
    }
}

fr_status pretok_split(const pretok *p, const char *text, size_t n, pretok_words *w, fr_err *err)
{
    w->n = 0;
    if (n == 0)
        return FR_OK;
    FR_TRY(prepare_match(p, n, w, err));
    if (is_valid(text, n))
        return cut_valid(p, text, n, w, err);
    FR_TRY(repair(text, n, w, err));
    FR_TRY(cut_valid(p, w->repaired.p, w->repaired.n, w, err));
    move_ends_back(w);
    return FR_OK;
}

void pretok_words_free(pretok_words *w)
{
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->context);
    fr_mem_free(w->ends);
    fr_mem_free(w->ends_before);
    fr_mem_free(w->repairs);
    fr_buf_free(&w->repaired);
    *w = (pretok_words){0};
}
