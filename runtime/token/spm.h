/* SentencePiece-style merging: the characters of a text merge into tokens, the pair whose token has
 * the highest score first. Blanks are written as U+2581; a character without a token becomes the
 * tokens of its bytes, "<0x00>" to "<0xFF>". */
#ifndef FR_TOKEN_SPM_H
#define FR_TOKEN_SPM_H

#include "token/merge.h"
#include "token/symbols.h"
#include "token/vocab.h"

/* {0} is empty. Owns ranks; the symbols belong to the vocabulary. */
typedef struct {
    const symbols *sy;
    uint32_t *ranks; /* of each token: a higher score has a lower rank */
    size_t longest;  /* bytes of the longest token text */
    bool splits;     /* no token has a blank after another character: words merge on their own */
    int32_t unknown; /* for a byte without a token; -1: such bytes give nothing */
    int32_t byte_token[256]; /* -1: none */
} spm_table;

/* sy holds the tokens; `scores` may be NULL (all equal) and has an element for each token
 * otherwise. */
fr_status spm_init(spm_table *t, const symbols *sy, const fr_gguf_value *scores, int32_t unknown,
                   fr_err *err);
void spm_free(spm_table *t);

/* Appends the tokens of text[0..n), n <= INT32_MAX / 3 bytes, with a blank put before it when
 * `prefix`. */
fr_status spm_encode(const spm_table *t, const char *text, size_t n, bool prefix, merge_work *work,
                     fr_buf *scratch, fr_tokens *out, fr_err *err);

/* Appends a token text with blanks for U+2581. */
fr_status spm_decode_text(fr_str text, fr_buf *out, fr_err *err);

/* The byte of a text of the form "<0xNN>", or -1. */
int spm_byte_of(fr_str text);

#endif
