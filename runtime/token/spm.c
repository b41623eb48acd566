#include "token/spm.h"

#include <stdio.h>
#include <string.h>

static const char blank[] = "\xE2\x96\x81";
enum { BLANK_BYTES = 3 };

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int spm_byte_of(fr_str text)
{
    if (text.n != 6 || memcmp(text.p, "<0x", 3) != 0 || text.p[5] != '>')
        return -1;
    int high = hex_value(text.p[3]), low = hex_value(text.p[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

fr_status spm_decode_text(fr_str text, fr_buf *out, fr_err *err)
{
    size_t done = 0;
    for (const char *p; (p = memmem(text.p + done, text.n - done, blank, BLANK_BYTES));) {
        FR_TRY(fr_buf_add(out, text.p + done, (size_t)(p - text.p) - done, err));
        FR_TRY(fr_buf_putc(out, ' ', err));
        done = (size_t)(p - text.p) + BLANK_BYTES;
    }
    return fr_buf_add(out, text.p + done, text.n - done, err);
}

/* A number that falls as the score rises: the bits of a float in the order of its values, turned
 * round. */
static uint32_t rank_of_score(double score)
{
    float f = (float)score;
    uint32_t bits;
    if (f == 0 || f != f)
        f = 0; /* one zero; and no order for what is no number */
    memcpy(&bits, &f, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return ~bits < MERGE_NONE ? ~bits : MERGE_NONE - 1;
}

static int32_t find_byte_token(const symbols *sy, int byte)
{
    char text[8];
    snprintf(text, sizeof text, "<0x%02X>", byte);
    uint32_t sym = symbols_find(sy, text, 6);
    if (sym == SYMBOL_NONE) {
        char raw = (char)byte;
        sym = symbols_find(sy, &raw, 1);
    }
    return sym == SYMBOL_NONE ? -1 : (int32_t)sym;
}

/* Whether a blank comes after something else than a blank. */
static bool has_inner_blank(fr_str text)
{
    for (const char *p = text.p; (p = memmem(p, text.n - (size_t)(p - text.p), blank, BLANK_BYTES));
         p += BLANK_BYTES)
        if (p > text.p &&
            (p - text.p < BLANK_BYTES || memcmp(p - BLANK_BYTES, blank, BLANK_BYTES) != 0))
            return true;
    return false;
}

fr_status spm_init(spm_table *t, const symbols *sy, const fr_gguf_value *scores, int32_t unknown,
                   fr_err *err)
{
    *t = (spm_table){.sy = sy, .splits = true, .unknown = unknown};
    t->ranks = FR_NEW(uint32_t, FR_MEM_VOCAB, sy->n, err);
    if (!t->ranks)
        return FR_ENOMEM;
    for (size_t i = 0; i < sy->n; i++) {
        t->ranks[i] = rank_of_score(scores ? fr_gguf_elem_f64(scores, i) : 0);
        if (sy->texts[i].n > t->longest)
            t->longest = sy->texts[i].n;
        t->splits = t->splits && !has_inner_blank(sy->texts[i]);
    }
    for (int b = 0; b < 256; b++)
        t->byte_token[b] = find_byte_token(sy, b);
    return FR_OK;
}

void spm_free(spm_table *t)
{
    fr_mem_free(t->ranks);
    *t = (spm_table){0};
}

/* ---- encoding ----------------------------------------------------------------------------------
 */

typedef struct {
    const spm_table *table;
    const char *text;
} spm_lookup;

/* Neighbours in the chain are neighbours in the text. */
static int look_up(const void *user, const merge_node *left, const merge_node *right,
                   uint32_t *rank, uint32_t *merged)
{
    const spm_lookup *l = user;
    uint32_t n = left->n + right->n;
    if (n > l->table->longest)
        return 0;
    *merged = symbols_find(l->table->sy, l->text + left->at, n);
    if (*merged == SYMBOL_NONE)
        return 0;
    *rank = l->table->ranks[*merged];
    return 1;
}

static fr_status mark_blanks(const char *text, size_t n, bool prefix, fr_buf *out, fr_err *err)
{
    fr_buf_clear(out);
    if (prefix)
        FR_TRY(fr_buf_add(out, blank, BLANK_BYTES, err));
    for (size_t i = 0; i < n;) {
        const char *p = memchr(text + i, ' ', n - i);
        size_t end = p ? (size_t)(p - text) : n;
        FR_TRY(fr_buf_add(out, text + i, end - i, err));
        if (p)
            FR_TRY(fr_buf_add(out, blank, BLANK_BYTES, err));
        i = end + (p != NULL);
    }
    return FR_OK;
}

static fr_status add_bytes(const spm_table *t, const char *p, size_t n, fr_tokens *out, fr_err *err)
{
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_token[(unsigned char)p[i]];
        if (id < 0)
            id = t->unknown;
        if (id >= 0)
            FR_TRY(fr_tokens_add(out, id, err));
    }
    return FR_OK;
}

/* The end of the piece of text[at..n) that merges on its own: the next word's first blank. */
static size_t piece_end(const spm_table *t, const char *text, size_t at, size_t n)
{
    while (t->splits && at < n) {
        const char *p = memmem(text + at, n - at, blank, BLANK_BYTES);
        if (!p)
            break;
        size_t found = (size_t)(p - text);
        if (found > at)
            return found;
        at += BLANK_BYTES;
    }
    return n;
}

static fr_status encode_piece(const spm_table *t, const char *text, size_t at, size_t end,
                              merge_work *work, fr_tokens *out, fr_err *err)
{
    merge_clear(work);
    while (at < end) {
        uint32_t cp;
        uint32_t length = (uint32_t)fr_utf8_decode(text + at, end - at, &cp);
        FR_TRY(merge_push(work, symbols_find(t->sy, text + at, length), (uint32_t)at, length, err));
        at += length;
    }
    spm_lookup l = {t, text};
    FR_TRY(merge_run(work, look_up, &l, err));
    for (uint32_t i = work->n ? 0 : MERGE_NONE; i != MERGE_NONE; i = work->nodes[i].next) {
        const merge_node *node = &work->nodes[i];
        if (node->sym != SYMBOL_NONE)
            FR_TRY(fr_tokens_add(out, (int32_t)node->sym, err));
        else
            FR_TRY(add_bytes(t, text + node->at, node->n, out, err));
    }
    return FR_OK;
}

fr_status spm_encode(const spm_table *t, const char *text, size_t n, bool prefix, merge_work *work,
                     fr_buf *scratch, fr_tokens *out, fr_err *err)
{
    FR_TRY(mark_blanks(text, n, prefix, scratch, err));
    for (size_t at = 0; at < scratch->n;) {
        size_t end = piece_end(t, scratch->p, at, scratch->n);
        FR_TRY(encode_piece(t, scratch->p, at, end, work, out, err));
        at = end;
    }
    return FR_OK;
}
