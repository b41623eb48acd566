/* The candidates of one pick: a list in place, selected and sorted only as far as somebody needs.
 *
 * Candidates have a total order: the higher logit is better, of equal logits the lower token. So
 * the result of selecting or sorting depends on the set alone, not on the algorithm. */
#ifndef FR_SAMPLE_SAMPLE_LIST_H
#define FR_SAMPLE_SAMPLE_LIST_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    float logit; /* not NaN; +-infinity may occur */
    int32_t token;
} sample_cand;

typedef struct {
    sample_cand *c; /* n candidates, not owned */
    int32_t n;
    int32_t n_sorted; /* the first n_sorted are the best of all, best first */
} sample_list;

/* Makes the first k (at most n) candidates the best k, best first. O(n), also for the worst input.
 */
void sample_list_sort(sample_list *l, int32_t k);

/* The best candidate; n must be > 0. */
sample_cand sample_list_best(const sample_list *l);

/* Keeps only the first k. */
void sample_list_cut(sample_list *l, int32_t k);

/* e^(logit - best): the probability of a candidate, but for a common factor. The best has 1, also
 * when it is infinite. */
double sample_weight(float logit, float best);

#endif
