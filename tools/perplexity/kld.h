/* How far a model (Q) is from a base model, position by position: Kullback-Leibler divergence,
 * change of the next token's probability, same first choice. The figures and their names are those
 * that people compare. */
#ifndef FR_TOOLS_KLD_H
#define FR_TOOLS_KLD_H

#include "common/scorer.h"

/* One scored position. */
typedef struct {
    double nll, nll_base; /* of the token that came next */
    double kld;           /* sum of p_base * (ln p_base - ln p), over tokens with ln p_base > -16 */
    double dp;            /* p - p_base of the token that came next */
    bool same_top;        /* Q's first choice is one of the base's */
} kld_row;

/* `record`: the base's (logprob_file.h). Any thread. */
kld_row kld_row_make(const float *logits, int64_t n_vocab, int32_t next, const tool_row *row,
                     const uint16_t *record);

/* All positions so far. {0} is empty. */
typedef struct {
    kld_row *rows; /* owned */
    size_t n, cap;
} kld_rows;

fr_status kld_rows_add(kld_rows *r, const kld_row *rows, size_t n, fr_err *err);
void kld_rows_free(kld_rows *r);

/* A mean and its standard error. */
typedef struct {
    double mean, error;
} kld_mean;

/* What is known after some chunks. Probabilities and shares are fractions of 1. */
typedef struct {
    kld_mean ppl, ppl_base; /* perplexities */
    kld_mean ln_ratio;      /* ln(PPL(Q) / PPL(base)) */
    kld_mean ratio, diff;   /* PPL(Q) / PPL(base), PPL(Q) - PPL(base) */
    double correlation;     /* of the two models' nll; NaN when one of them does not vary */
    kld_mean kld, dp, rms_dp, same_top;
} kld_summary;

kld_summary kld_summarize(const kld_rows *r);

/* The value below which the share p of n > 0 ascending values lies, interpolated. */
double kld_percentile(const double *sorted, size_t n, double p);

/* The table's head, its line after chunk i (from 0), and the final figures, on standard output. */
void kld_print_head(void);
void kld_print_line(const kld_rows *r, int64_t i_chunk);
fr_status kld_print_summary(const kld_rows *r, fr_err *err);

#endif
