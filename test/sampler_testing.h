/* What the sampler tests share: parameter sets, opening and picking with checks. */
#ifndef FR_TEST_SAMPLER_TESTING_H
#define FR_TEST_SAMPLER_TESTING_H

#include "sample/sampler.h"
#include "testing.h"

static fr_err err;

/* A chain of no filters, temperature 1, everything off, a fixed seed. */
static inline fr_sample_params plain(void)
{
    fr_sample_params p = fr_sample_defaults();
    p.seed = 1;
    p.temp = 1;
    p.top_k = 0;
    p.top_p = 1;
    p.min_p = 0;
    p.n_order = 0;
    return p;
}

static inline fr_sample_params only(fr_sampler_kind kind)
{
    fr_sample_params p = plain();
    p.order[0] = kind;
    p.n_order = 1;
    return p;
}

static inline fr_sampler *open_sampler(const fr_sample_params *p, int n_vocab, int max_history)
{
    fr_sampler *s = NULL;
    assert_ok(fr_sampler_open(p, n_vocab, max_history, &s, &err));
    assert_non_null(s);
    return s;
}

static inline int32_t pick(fr_sampler *s, const float *logits)
{
    int32_t token = -1;
    assert_ok(fr_sampler_pick(s, logits, &token, &err));
    return token;
}

static inline float random_pick(uint64_t *seed, const float *from, size_t n)
{
    return from[test_rand(seed) % n];
}

#define PICK(seed, ...)                                                                            \
    random_pick((seed), (const float[]){__VA_ARGS__}, sizeof((float[]){__VA_ARGS__}) / 4)

static inline void random_params(uint64_t *seed, fr_sample_params *p)
{
    p->temp = PICK(seed, 0, 0.1f, 0.6f, 1, 1.7f, 5);
    p->top_k = (int32_t)PICK(seed, 0, 1, 5, 40, 1000);
    p->top_p = PICK(seed, 0, 0.1f, 0.5f, 0.95f, 0.999f, 1);
    p->min_p = PICK(seed, 0, 0.01f, 0.05f, 0.3f, 0.99f);
    p->typical_p = PICK(seed, 0, 0.2f, 0.7f, 0.98f, 1);
    p->repeat_last_n = (int32_t)PICK(seed, -1, 0, 1, 7, 64, 500);
    p->repeat_penalty = PICK(seed, 0.7f, 1, 1.1f, 2);
    p->presence_penalty = PICK(seed, -1, 0, 0.5f);
    p->frequency_penalty = PICK(seed, -0.1f, 0, 0.25f);
}

#endif
