/* Running a model over token ids and comparing logits. */
#ifndef FR_TEST_LOGITS_H
#define FR_TEST_LOGITS_H

#include "engine/engine.h"

/* Token ids of a text file; the test fails when it cannot be read. */
fr_tokens logits_read_ids(const char *path);

/* Float32 values of a file; *n gets their number. Free with free. */
float *logits_read_f32(const char *path, size_t *n);

/* An engine configuration for tests: 2 threads, logits of all tokens. */
fr_engine_config logits_config(const char *model);

/* Logits of every token, [ids->n][n_vocab], computed in one call of append_all. Free with free. */
float *logits_run(const fr_engine_config *cfg, const fr_tokens *ids);

/* Relative L2 distance over n values: |a - b| / |b|. NaN anywhere makes it infinite. */
double logits_distance(const float *a, const float *b, size_t n);

#endif
