/* Tokens that are recognised in the text itself, before it is cut into words: the longest one first
 * over the whole text, the leftmost of equal length first, as the ecosystem does. */
#ifndef FR_TOKEN_SPECIAL_H
#define FR_TOKEN_SPECIAL_H

#include "token/symbols.h"

/* {0} is the empty set. Owns its arrays, points into the texts of the symbols. */
typedef struct {
    fr_str *texts;     /* n, sorted by their bytes, all different, none empty */
    uint32_t *ids;     /* token of each */
    uint32_t *shorter; /* of each: the longest other member that it begins with, or SYMBOL_NONE */
    uint32_t n;
    uint32_t first[257]; /* members whose first byte is b: [first[b], first[b + 1]) */
} special_set;

/* Collects the given tokens, n of them; a token whose text belongs to a later token too is left
 * out. */
fr_status special_init(special_set *s, const symbols *sy, const uint32_t *ids, uint32_t n,
                       fr_err *err);
void special_free(special_set *s);

/* A special token at text[at]. */
typedef struct {
    size_t at;
    uint32_t member;
} special_hit;

/* The hits of one text. Owns hits. */
typedef struct {
    special_hit *hits; /* in the order of the text, none overlapping another */
    size_t n, cap;
} special_hits;

/* Finds the special tokens of text[0..n). Time: n * (length of the longest match that starts
 * there), and O(h log h) for h places where one starts. */
fr_status special_find(const special_set *s, const char *text, size_t n, special_hits *out,
                       fr_err *err);

#endif
