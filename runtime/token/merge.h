/* The merge loop that both tokenizer families share: a chain of symbols, in which the neighbouring
 * pair of the lowest rank (the leftmost of equal ones) becomes one symbol until no pair has a rank.
 *
 * Time is O(n log n) for n symbols: the pairs wait in a heap, short chains are scanned instead. */
#ifndef FR_TOKEN_MERGE_H
#define FR_TOKEN_MERGE_H

#include "base/mem.h"

#define MERGE_NONE UINT32_MAX

typedef struct {
    uint32_t sym;
    uint32_t at, n;        /* the bytes of the text that it stands for */
    uint32_t prev, next;   /* in the chain; MERGE_NONE at its ends */
    uint32_t rank, merged; /* of the pair (this, next): MERGE_NONE when they do not merge */
} merge_node;

/* Sets *rank (below MERGE_NONE) and *merged for a pair that merges, or returns 0. */
typedef int (*merge_lookup)(const void *user, const merge_node *left, const merge_node *right,
                            uint32_t *rank, uint32_t *merged);

/* {0} is empty; used again and again. Owns its arrays. */
typedef struct {
    merge_node *nodes; /* 0 is the head of the chain */
    size_t n, cap;
    uint64_t
        *heap; /* rank << 32 | left node; entries of pairs that are gone stay until they come up */
    size_t n_heap, cap_heap;
} merge_work;

/* Appends a node at the end of the chain. At most 2^31 nodes (the caller bounds the text). */
fr_status merge_push(merge_work *w, uint32_t sym, uint32_t at, uint32_t n, fr_err *err);

/* Merges until nothing is left to merge; then walk nodes[0], nodes[nodes[0].next] ... */
fr_status merge_run(merge_work *w, merge_lookup lookup, const void *user, fr_err *err);

void merge_clear(merge_work *w); /* keeps the memory */
void merge_free(merge_work *w);

#endif
