/* Byte-level BPE: every byte is a symbol, and neighbouring symbols merge by the rank of their merge
 * rule. Token texts hold bytes as printable characters (GPT-2's table): 0x21-0x7E, 0xA1-0xAC and
 * 0xAE-0xFF stand for themselves, the other 68 bytes, in order, are U+0100 and up. */
#ifndef FR_TOKEN_BPE_H
#define FR_TOKEN_BPE_H

#include "gguf/gguf.h"
#include "token/merge.h"
#include "token/symbols.h"
#include "token/vocab.h"

typedef struct {
    uint32_t left, right; /* left == SYMBOL_NONE: the slot is free */
    uint32_t rank, merged;
} bpe_rule;

/* {0} is empty. Owns rules; the symbols belong to the vocabulary. */
typedef struct {
    const symbols *sy;
    uint32_t n_tokens; /* symbols below it are tokens */
    bool whole_words;  /* a word that is a token needs no merges */
    size_t longest;    /* bytes of the longest token text */
    bpe_rule *rules;   /* n_slots, a power of two, open addressing by pair */
    size_t n_slots;
    uint32_t byte_sym[256];
    bool replaced[256]; /* the byte has no token of its own: U+FFFD stands in for it */
} bpe_table;

/* Reads the merge rules ("left right" strings in the order of their ranks; of equal ones the first
 * counts). sy holds the tokens already; texts that are no tokens are added, their bytes copied to
 * `arena`. FR_EFORMAT for a rule without a blank. */
fr_status bpe_init(bpe_table *b, symbols *sy, fr_arena *arena, const uint8_t *kinds,
                   const fr_gguf_value *merges, fr_err *err);
void bpe_free(bpe_table *b);

/* Appends the tokens of one word, n <= INT32_MAX / 3 bytes. `work` and `scratch` keep nothing
 * between calls but their memory. */
fr_status bpe_encode_word(const bpe_table *b, const char *word, size_t n, merge_work *work,
                          fr_buf *scratch, fr_tokens *out, fr_err *err);

/* Appends the bytes that a token text stands for; characters outside the table stay as they are. */
fr_status bpe_decode_text(fr_str text, fr_buf *out, fr_err *err);

#endif
