/* Computes the chunks of a text one by one and scores the second half of each: how probable did the
 * model find every token that came next? The scoring itself runs on all threads, in double. */
#ifndef FR_TOOLS_SCORER_H
#define FR_TOOLS_SCORER_H

#include "common/chunks.h"

/* What one position's logits say. */
typedef struct {
    double log_sum; /* ln of the sum of exp(logit): log-probability = logit - log_sum */
    double nll;     /* -ln(probability) of the token that came next */
    float min, max; /* of the logits */
    int32_t top;    /* the first token whose logit is max */
} tool_row;

tool_row tool_row_score(const float *logits, int64_t n_vocab, int32_t next);

/* Sums over scored positions, and what follows from them. */
typedef struct {
    double nll, nll2;
    int64_t n;
} tool_nll;

double tool_ppl(const tool_nll *sum);
double tool_ppl_error(const tool_nll *sum); /* standard error of the perplexity */

typedef struct tool_scorer tool_scorer;

/* e, which must deliver all logits, and chunks must outlive it. With score = false chunks are only
 * computed: all tokens in all layers, while an engine without logits would leave out the end of the
 * last one. From here on Ctrl-C stops the computation (FR_ECANCELLED); a second one ends the
 * process. */
fr_status tool_scorer_open(fr_engine *e, const tool_chunks *chunks, bool score, tool_scorer **out,
                           fr_err *err);
void tool_scorer_close(tool_scorer *s);

/* Scored positions of a chunk: n_ctx/2 .. n_ctx-2, each of which predicts its successor. */
int64_t tool_scored_per_chunk(int64_t n_ctx);

/* Called once for every scored position i of a chunk, 0 .. n-1, by several threads at once: it must
 * not lock, allocate or log. */
typedef void (*tool_row_fn)(void *user, int64_t i, const float *logits, int64_t n_vocab,
                            int32_t next, const tool_row *row);

/* Computes chunk i from an empty session; fn may be NULL. */
fr_status tool_scorer_run(tool_scorer *s, int64_t i_chunk, tool_row_fn fn, void *user, fr_err *err);

/* Over all chunks so far; the same for any number of threads. */
const tool_nll *tool_scorer_total(const tool_scorer *s);

/* The threads that score. */
fr_cpu *tool_scorer_pool(const tool_scorer *s);

/* "12.3 s per chunk, about 5 minutes in all" on standard error, after the first of n chunks. */
void tool_scorer_estimate(const tool_scorer *s, int64_t n_chunks);

#endif
