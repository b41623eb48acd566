/* What ferry-perplexity can do with a text. Each prints its results on standard output. */
#ifndef FR_TOOLS_MEASURE_H
#define FR_TOOLS_MEASURE_H

#include "perplexity/logprob_file.h"

/* Perplexity of the first n_chunks; with base_path, writes the log-probabilities there. */
fr_status measure_perplexity(fr_engine *e, const tool_chunks *chunks, int64_t n_chunks,
                             const char *base_path, fr_err *err);

/* Divergence from the base model, over the first n_chunks of its text. */
fr_status measure_divergence(fr_engine *e, const logprob_file *base, const tool_chunks *chunks,
                             int64_t n_chunks, fr_err *err);

#endif
