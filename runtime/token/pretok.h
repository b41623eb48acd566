/* Pre-tokenizers of byte-level BPE: a text is cut into words by a sequence of regular expressions
 * (PCRE2), and merges never cross a word's end. pretok.def has one row a pre-tokenizer. */
#ifndef FR_TOKEN_PRETOK_H
#define FR_TOKEN_PRETOK_H

#include "base/str.h"

enum {
    PRETOK_WHOLE_WORDS = 1, /* a word that is a token is taken as it is, whatever the merges say */
    PRETOK_ADD_BOS = 2      /* BOS is wanted unless the model says otherwise */
};

enum { PRETOK_MAX_RULES = 8, PRETOK_MAX_NAMES = 12 };

typedef struct {
    unsigned flags;
    const char *names[PRETOK_MAX_NAMES];    /* NULL-terminated unless full */
    const char *patterns[PRETOK_MAX_RULES]; /* the same */
} pretok_row;

/* The row for a value of tokenizer.ggml.pre; FR_EUNSUPPORTED with the list of the known ones. */
fr_status pretok_find(fr_str name, const pretok_row **out, fr_err *err);

typedef struct pretok pretok; /* compiled; immutable, any thread */

fr_status pretok_compile(const pretok_row *row, pretok **out, fr_err *err);
void pretok_free(pretok *p);

/* What one caller needs to cut texts. {0} is empty; used again and again. Owns all of it. */
typedef struct {
    uint32_t
        *ends; /* n words: word i is [ends[i - 1], ends[i]) of the text, the first begins at 0 */
    size_t n, cap;
    uint32_t *ends_before; /* of the previous rule */
    size_t cap_before;
    void *match, *context; /* of PCRE2 */
    fr_buf repaired;       /* the text with U+FFFD for every byte that is not UTF-8 */
    uint32_t *repairs;     /* n_repairs positions in `repaired` */
    size_t n_repairs, cap_repairs;
} pretok_words;

/* Cuts text[0..n), n <= INT32_MAX / 3, any bytes: each byte that is not part of valid UTF-8 counts
 * as a character U+FFFD. The words cover the text. Time is linear for every row. */
fr_status pretok_split(const pretok *p, const char *text, size_t n, pretok_words *w, fr_err *err);
void pretok_words_free(pretok_words *w);

#endif
