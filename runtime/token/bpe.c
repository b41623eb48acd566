#include "token/bpe.h"

#include <string.h>

/* ---- bytes as characters -----------------------------------------------------------------------
 */

static bool stands_for_itself(uint32_t b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
}

/* The bytes that do not stand for themselves, in order: 0x00-0x20, 0x7F-0xA0, 0xAD. */
static uint32_t char_of_byte(uint32_t b)
{
    if (stands_for_itself(b))
        return b;
    return 256 + (b <= 0x20 ? b : b <= 0xA0 ? b - 0x7F + 33 : 67);
}

/* The byte of a character, or -1. */
static int byte_of_char(uint32_t cp)
{
    if (cp < 256)
        return stands_for_itself(cp) ? (int)cp : -1;
    uint32_t i = cp - 256;
    if (i > 67)
        return -1;
    return (int)(i <= 0x20 ? i : i < 67 ? i - 33 + 0x7F : 0xAD);
}

fr_status bpe_decode_text(fr_str text, fr_buf *out, fr_err *err)
{
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        int length = fr_utf8_decode(text.p + i, text.n - i, &cp);
        int byte = cp == UINT32_MAX ? -1 : byte_of_char(cp);
        if (byte >= 0)
            FR_TRY(fr_buf_putc(out, (char)byte, err));
        else
            FR_TRY(fr_buf_add(out, text.p + i, (size_t)length, err));
        i += (size_t)length;
    }
    return FR_OK;
}

/* ---- merge rules -------------------------------------------------------------------------------
 */

static bpe_rule *rule_slot(const bpe_table *b, uint32_t left, uint32_t right)
{
    size_t mask = b->n_slots - 1;
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15ull;
    for (size_t i = (h >> 32) & mask;; i = (i + 1) & mask) {
        bpe_rule *r = &b->rules[i];
        if (r->left == SYMBOL_NONE || (r->left == left && r->right == right))
            return r;
    }
}

static fr_status intern(symbols *sy, fr_arena *arena, fr_str text, uint32_t *out, fr_err *err)
{
    *out = symbols_find(sy, text.p, text.n);
    if (*out != SYMBOL_NONE)
        return FR_OK;
    char *copy = fr_arena_strndup(arena, text.p, text.n, err);
    if (!copy)
        return FR_ENOMEM;
    *out = (uint32_t)sy->n;
    return symbols_add(sy, (fr_str){copy, text.n}, err);
}

static fr_status add_rule(bpe_table *b, symbols *sy, fr_arena *arena, fr_str rule, uint32_t rank,
                          fr_buf *joined, fr_err *err)
{
    const char *blank = rule.n > 2 ? memchr(rule.p + 1, ' ', rule.n - 2) : NULL;
    if (!blank)
        return fr_fail(
            err, FR_EFORMAT,
            "tokenizer.ggml.merges: found \"%.*s\" at %u, expected two texts with a blank "
            "between them",
            (int)(rule.n < 80 ? rule.n : 80), rule.p, rank);
    fr_str left = {rule.p, (size_t)(blank - rule.p)};
    fr_str right = {blank + 1, rule.n - left.n - 1};
    fr_buf_clear(joined);
    FR_TRY(fr_buf_add(joined, left.p, left.n, err));
    FR_TRY(fr_buf_add(joined, right.p, right.n, err));
    bpe_rule r = {.rank = rank};
    FR_TRY(intern(sy, arena, left, &r.left, err));
    FR_TRY(intern(sy, arena, right, &r.right, err));
    FR_TRY(intern(sy, arena, (fr_str){joined->p, joined->n}, &r.merged, err));
    bpe_rule *slot = rule_slot(b, r.left, r.right);
    if (slot->left == SYMBOL_NONE)
        *slot = r;
    return FR_OK;
}

static fr_status add_rules(bpe_table *b, symbols *sy, fr_arena *arena, const fr_gguf_value *merges,
                           fr_err *err)
{
    size_t n_slots = 64;
    if (merges->n > INT32_MAX / 4)
        return fr_fail(err, FR_ERANGE,
                       "tokenizer.ggml.merges: found %llu rules, expected at most %d",
                       (unsigned long long)merges->n, INT32_MAX / 4);
    while (n_slots < merges->n * 2)
        n_slots *= 2;
    b->rules = FR_NEW(bpe_rule, FR_MEM_VOCAB, n_slots, err);
    if (!b->rules)
        return FR_ENOMEM;
    b->n_slots = n_slots;
    for (size_t i = 0; i < n_slots; i++)
        b->rules[i].left = SYMBOL_NONE;
    fr_buf joined = {0};
    fr_status st = FR_OK;
    for (uint64_t i = 0; i < merges->n && st == FR_OK; i++)
        st = add_rule(b, sy, arena, fr_gguf_elem_str(merges, i), (uint32_t)i, &joined, err);
    fr_buf_free(&joined);
    return st;
}

/* Some vocabularies give the texts of the 13 bytes that UTF-8 never uses to tokens that mean the
 * character: such a token must not stand for the byte. */
static fr_status add_bytes(bpe_table *b, symbols *sy, fr_arena *arena, const uint8_t *kinds,
                           fr_err *err)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        char text[4];
        int n = fr_utf8_encode(char_of_byte(byte), text);
        uint32_t *sym = &b->byte_sym[byte];
        FR_TRY(intern(sy, arena, (fr_str){text, (size_t)n}, sym, err));
        bool in_utf8 = byte < 0xF5 && byte != 0xC0 && byte != 0xC1;
        bool own =
            *sym < b->n_tokens && (kinds[*sym] == FR_TOKEN_NORMAL || kinds[*sym] == FR_TOKEN_BYTE);
        b->replaced[byte] = !in_utf8 && !own;
    }
    return FR_OK;
}

fr_status bpe_init(bpe_table *b, symbols *sy, fr_arena *arena, const uint8_t *kinds,
                   const fr_gguf_value *merges, fr_err *err)
{
    *b = (bpe_table){.sy = sy, .n_tokens = (uint32_t)sy->n};
    for (size_t i = 0; i < sy->n; i++)
        if (sy->texts[i].n > b->longest)
            b->longest = sy->texts[i].n;
    fr_status st = add_bytes(b, sy, arena, kinds, err);
    if (st == FR_OK)
        st = add_rules(b, sy, arena, merges, err);
    if (st != FR_OK)
        bpe_free(b);
    return st;
}

void bpe_free(bpe_table *b)
{
    fr_mem_free(b->rules);
    *b = (bpe_table){0};
}

/* ---- encoding ----------------------------------------------------------------------------------
 */

static int look_up(const void *user, const merge_node *left, const merge_node *right,
                   uint32_t *rank, uint32_t *merged)
{
    const bpe_rule *r = rule_slot(user, left->sym, right->sym);
    *rank = r->rank;
    *merged = r->merged;
    return r->left != SYMBOL_NONE;
}

/* *sym = the token whose text the whole word is, or SYMBOL_NONE. */
static fr_status find_whole(const bpe_table *b, const char *word, size_t n, fr_buf *scratch,
                            uint32_t *sym, fr_err *err)
{
    *sym = SYMBOL_NONE;
    if (!b->whole_words || n > b->longest)
        return FR_OK;
    fr_buf_clear(scratch);
    for (size_t i = 0; i < n; i++) {
        char text[4];
        int length = fr_utf8_encode(char_of_byte((unsigned char)word[i]), text);
        FR_TRY(fr_buf_add(scratch, text, (size_t)length, err));
    }
    *sym = symbols_find(b->sy, scratch->p, scratch->n);
    if (*sym >= b->n_tokens)
        *sym = SYMBOL_NONE;
    return FR_OK;
}

static fr_status push_byte(const bpe_table *b, unsigned char byte, merge_work *work, fr_err *err)
{
    static const unsigned char replacement[3] = {0xEF, 0xBF, 0xBD};
    if (!b->replaced[byte])
        return merge_push(work, b->byte_sym[byte], 0, 0, err);
    for (int i = 0; i < 3; i++)
        FR_TRY(merge_push(work, b->byte_sym[replacement[i]], 0, 0, err));
    return FR_OK;
}

/* A symbol that is no token falls back to the tokens of its bytes; a byte without one gives
 * nothing, as in the ecosystem. */
static fr_status add_symbol(const bpe_table *b, uint32_t sym, fr_tokens *out, fr_err *err)
{
    if (sym < b->n_tokens)
        return fr_tokens_add(out, (int32_t)sym, err);
    fr_str text = b->sy->texts[sym];
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        i += (size_t)fr_utf8_decode(text.p + i, text.n - i, &cp);
        int byte = cp == UINT32_MAX ? -1 : byte_of_char(cp);
        if (byte >= 0 && b->byte_sym[byte] < b->n_tokens)
            FR_TRY(fr_tokens_add(out, (int32_t)b->byte_sym[byte], err));
    }
    return FR_OK;
}

fr_status bpe_encode_word(const bpe_table *b, const char *word, size_t n, merge_work *work,
                          fr_buf *scratch, fr_tokens *out, fr_err *err)
{
    uint32_t whole;
    FR_TRY(find_whole(b, word, n, scratch, &whole, err));
    if (whole != SYMBOL_NONE)
        return fr_tokens_add(out, (int32_t)whole, err);
    merge_clear(work);
    for (size_t i = 0; i < n; i++)
        FR_TRY(push_byte(b, (unsigned char)word[i], work, err));
    FR_TRY(merge_run(work, look_up, b, err));
    for (uint32_t i = work->n ? 0 : MERGE_NONE; i != MERGE_NONE; i = work->nodes[i].next)
        FR_TRY(add_symbol(b, work->nodes[i].sym, out, err));
    return FR_OK;
}
