/* The filters: each looks at the candidates of one pick and drops or changes some. */
#ifndef FR_SAMPLE_SAMPLE_FILTERS_H
#define FR_SAMPLE_SAMPLE_FILTERS_H

#include "sample/sample_list.h"
#include "sample/sample_math.h"
#include "sample/sampler.h"

/* What a filter may use. It leaves at least one candidate, no NaN, and keeps list.n_sorted true. */
typedef struct {
    const fr_sample_params *p;
    sample_list list;
    const int32_t
        *n_recent;      /* [n_vocab] occurrences in the last repeat_last_n tokens; NULL: none */
    sample_rng *rng;    /* for filters that draw; the token itself is drawn after the chain */
    double *weight;     /* [n_vocab] scratch */
    sample_cand *spare; /* [n_vocab] scratch */
} sample_chain;

#define X(ID, name, aliases, apply) void sample_##apply(sample_chain *chain);
#include "sample/samplers.def"
#undef X

/* The sum of sample_weight over the list, in list order; *best is the best logit. */
double sample_total_weight(const sample_list *l, float *best);

/* Drops all candidates but the best one. */
void sample_keep_best(sample_list *l);

#endif
