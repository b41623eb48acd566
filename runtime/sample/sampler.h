/* The sampler chain: from logits to one token.
 *
 * Filters stand in one table (samplers.def), a row each, and run in the order that the parameters
 * name. Everything is deterministic: the same logits, history, parameters and seed give the same
 * token on any machine. One sampler belongs to one sequence and one thread. Filters work on a
 * candidate list; nothing is allocated after fr_sampler_open. */
#ifndef FR_SAMPLE_SAMPLER_H
#define FR_SAMPLE_SAMPLER_H

#include <stdint.h>

#include "base/str.h"

typedef struct {
    int32_t token;
    float bias; /* added to the logit; -INFINITY forbids the token */
} fr_logit_bias;

typedef enum {
#define X(ID, ...) FR_SAMPLER_##ID,
#include "sample/samplers.def"
#undef X
    FR_SAMPLER_COUNT
} fr_sampler_kind;

/* Defaults as llama-server has them (fr_sample_defaults). */
typedef struct {
    uint64_t seed;   /* UINT64_MAX: the caller asks for a random one (fr_sampler_seed tells it) */
    float temp;      /* 0.8; <= 0 = greedy */
    int32_t top_k;   /* 40; <= 0 = off */
    float top_p;     /* 0.95; >= 1 = off */
    float min_p;     /* 0.05; <= 0 = off */
    float typical_p; /* 1; >= 1 = off */
    int32_t repeat_last_n;           /* 64; 0 = off, -1 = as many as the context (max_history) */
    float repeat_penalty;            /* 1 = off */
    float presence_penalty;          /* 0 = off */
    float frequency_penalty;         /* 0 = off */
    const fr_logit_bias *logit_bias; /* n_logit_bias entries, copied */
    size_t n_logit_bias;
    fr_sampler_kind order[FR_SAMPLER_COUNT]; /* penalties;top_k;typ_p;top_p;min_p;temperature */
    int n_order;
    int32_t n_probs; /* > 0: keep the probabilities of the n best tokens after the chain */
} fr_sample_params;

typedef struct {
    int32_t token;
    float p;
} fr_token_prob;

typedef struct fr_sampler fr_sampler;

fr_sample_params fr_sample_defaults(void);

/* "penalties;top_k;temperature" -> order; unknown names are FR_EINVAL with the nearest name. */
fr_status fr_sample_parse_order(fr_str text, fr_sample_params *p, fr_err *err);

/* Checks the parameters (finite, in range). n_vocab = number of logits; max_history = the longest
 * repeat_last_n that can occur (context length). */
fr_status fr_sampler_open(const fr_sample_params *p, int32_t n_vocab, int32_t max_history,
                          fr_sampler **out, fr_err *err);
void fr_sampler_free(fr_sampler *s);
uint64_t fr_sampler_seed(const fr_sampler *s);

/* Tells the sampler that a token (of the prompt, or picked) is part of the sequence now. */
void fr_sampler_accept(fr_sampler *s, int32_t token);

/* Picks a token from n_vocab logits, which stay as they are; NaN logits are FR_EINTERNAL. Does not
 * accept it. */
fr_status fr_sampler_pick(fr_sampler *s, const float *logits, int32_t *token, fr_err *err);

/* After a pick: the n_probs best tokens with their probabilities after the chain. */
const fr_token_prob *fr_sampler_probs(const fr_sampler *s, int32_t *n);

/* Forgets the history and restarts the random numbers at the seed. */
void fr_sampler_reset(fr_sampler *s);

#endif
