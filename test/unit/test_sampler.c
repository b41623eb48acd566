/* The sampler against a brute-force reference: every filter and random chains over seeded logits,
 * with the survivors and their probabilities read through fr_sampler_probs. */
#include "sampler_testing.h"

#include <float.h>
#include <math.h>

/* ---- reference ----------------------------------------------------------------------------- */

enum { MAX_VOCAB = 600, MAX_TOKENS = 200 };

typedef struct {
    int32_t token;
    float logit;
    double p, key;
} ref_cand;

typedef struct {
    ref_cand c[MAX_VOCAB];
    int n;
} ref_list;

static int better_logit(const void *a, const void *b)
{
    const ref_cand *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->token - y->token;
}

static int smaller_key(const void *a, const void *b)
{
    const ref_cand *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->token - y->token;
}

/* Sorted, with probabilities, in the plainest way. */
static void ref_softmax(ref_list *l)
{
    qsort(l->c, (size_t)l->n, sizeof *l->c, better_logit);
    long double sum = 0;
    for (int i = 0; i < l->n; i++) {
        bool equal = l->c[i].logit == l->c[0].logit;
        l->c[i].key = equal ? 1 : (double)expl((long double)l->c[i].logit - l->c[0].logit);
        sum += l->c[i].key;
    }
    for (int i = 0; i < l->n; i++)
        l->c[i].p = (double)(l->c[i].key / sum);
}

static void ref_penalties(ref_list *l, const fr_sample_params *p, const int32_t *history, int n)
{
    int last = p->repeat_last_n < 0 || p->repeat_last_n > n ? n : p->repeat_last_n;
    for (int i = 0; i < l->n; i++) {
        int count = 0;
        for (int j = n - last; j < n; j++)
            count += history[j] == l->c[i].token;
        if (count == 0)
            continue;
        double x = l->c[i].logit;
        x = x > 0 ? x / p->repeat_penalty : x * p->repeat_penalty;
        l->c[i].logit = (float)(x - (double)count * p->frequency_penalty - p->presence_penalty);
    }
}

static void ref_typ_p(ref_list *l, const fr_sample_params *p)
{
    double entropy = 0, mass = 0;
    if (p->typical_p >= 1)
        return;
    for (int i = 0; i < l->n; i++)
        if (l->c[i].p > 0)
            entropy -= l->c[i].p * log(l->c[i].p);
    for (int i = 0; i < l->n; i++)
        l->c[i].key = l->c[i].p > 0 ? (float)fabs(-log(l->c[i].p) - entropy) : INFINITY;
    qsort(l->c, (size_t)l->n, sizeof *l->c, smaller_key);
    int n = 0;
    while (n < l->n && mass <= p->typical_p)
        mass += l->c[n++].p;
    l->n = n;
}

static void ref_top_p(ref_list *l, const fr_sample_params *p)
{
    double mass = 0;
    int n = 0;
    if (p->top_p >= 1)
        return;
    do
        mass += l->c[n++].p;
    while (n < l->n && mass < p->top_p);
    l->n = n;
}

static void ref_min_p(ref_list *l, const fr_sample_params *p)
{
    int n = 0;
    while (n < l->n && (p->min_p <= 0 || l->c[n].p >= (double)p->min_p * l->c[0].p * (1 - 1e-12)))
        n++;
    l->n = n;
}

static void ref_temperature(ref_list *l, const fr_sample_params *p)
{
    if (p->temp <= 0)
        l->n = 1;
    for (int i = 0; i < l->n; i++)
        l->c[i].logit = (float)((double)l->c[i].logit / p->temp);
}

static void ref_filter(fr_sampler_kind kind, ref_list *l, const fr_sample_params *p,
                       const int32_t *history, int n_history)
{
    ref_softmax(l);
    if (kind == FR_SAMPLER_PENALTIES)
        ref_penalties(l, p, history, n_history);
    else if (kind == FR_SAMPLER_TOP_K)
        l->n = p->top_k > 0 && p->top_k < l->n ? p->top_k : l->n;
    else if (kind == FR_SAMPLER_TYP_P)
        ref_typ_p(l, p);
    else if (kind == FR_SAMPLER_TOP_P)
        ref_top_p(l, p);
    else if (kind == FR_SAMPLER_MIN_P)
        ref_min_p(l, p);
    else if (kind == FR_SAMPLER_TEMPERATURE)
        ref_temperature(l, p);
    else
        fail_msg("filter %d has no reference", (int)kind);
}

static void ref_chain(ref_list *l, const fr_sample_params *p, const float *logits, int n_vocab,
                      const int32_t *history, int n_history)
{
    l->n = 0;
    for (int i = 0; i < n_vocab; i++)
        if (logits[i] > -INFINITY)
            l->c[l->n++] = (ref_cand){.token = i, .logit = logits[i]};
    for (int i = 0; i < p->n_order; i++)
        ref_filter(p->order[i], l, p, history, n_history);
    ref_softmax(l);
}

/* ---- helpers ------------------------------------------------------------------------------- */

/* Random logits of several kinds: smooth, with many ties, with impossible tokens, peaked. */
static void random_logits(uint64_t *seed, float *logits, int n)
{
    int kind = (int)(test_rand(seed) >> 40) % 4;
    for (int i = 0; i < n; i++) {
        float x = test_rand_f(seed) * 6;
        if (kind == 1)
            x = roundf(x * 2) / 2;
        if (kind == 2 && test_rand(seed) >> 62 == 0)
            x = -INFINITY;
        if (kind == 3)
            x = x * x * x;
        logits[i] = x;
    }
    logits[n / 2] = 3;
}

/* Runs one pick and compares survivors and probabilities with the reference. */
static void check_against_reference(fr_sample_params p, const float *logits, int n_vocab,
                                    const int32_t *history, int n_history)
{
    static ref_list want;
    p.n_probs = n_vocab;
    ref_chain(&want, &p, logits, n_vocab, history, n_history);
    fr_sampler *s = open_sampler(&p, n_vocab, n_history > 0 ? n_history : 1);
    for (int i = 0; i < n_history; i++)
        fr_sampler_accept(s, history[i]);
    int32_t token = pick(s, logits), n;
    const fr_token_prob *got = fr_sampler_probs(s, &n);
    assert_int_equal(n, want.n);
    bool among = false;
    for (int i = 0; i < n; i++) {
        assert_int_equal(got[i].token, want.c[i].token);
        if (fabs(got[i].p - want.c[i].p) > 1e-6)
            fail_msg("token %d: p %.9g, reference %.9g", got[i].token, got[i].p, want.c[i].p);
        among |= got[i].token == token && got[i].p > 0;
    }
    assert_true(among);
    fr_sampler_free(s);
}

static void random_history(uint64_t *seed, int32_t *history, int n, int n_vocab)
{
    for (int i = 0; i < n; i++)
        history[i] = (int32_t)(test_rand(seed) % (uint64_t)(n_vocab < 20 ? n_vocab : 20));
}

static int random_vocab(uint64_t *seed)
{
    return test_rand(seed) >> 63 ? 1 + (int)(test_rand(seed) % 12)
                                 : 100 + (int)(test_rand(seed) % (MAX_VOCAB - 100));
}

/* ---- filters ------------------------------------------------------------------------------- */

static void check_filter(fr_sampler_kind kind, uint64_t seed, int rounds)
{
    float logits[MAX_VOCAB];
    int32_t history[MAX_TOKENS];
    for (int i = 0; i < rounds; i++) {
        int n_vocab = random_vocab(&seed), n_history = (int)(test_rand(&seed) % MAX_TOKENS);
        fr_sample_params p = plain();
        random_params(&seed, &p);
        if (kind != FR_SAMPLER_TEMPERATURE)
            p.temp = 1;
        p.order[0] = kind;
        p.n_order = 1;
        random_logits(&seed, logits, n_vocab);
        random_history(&seed, history, n_history, n_vocab);
        check_against_reference(p, logits, n_vocab, history, n_history);
    }
}

static void test_each_filter(void **state)
{
    (void)state;
    for (int kind = 0; kind < FR_SAMPLER_COUNT; kind++)
        check_filter((fr_sampler_kind)kind, 1000 + (uint64_t)kind, 300);
}

static void test_random_chains(void **state)
{
    (void)state;
    uint64_t seed = 5;
    float logits[MAX_VOCAB];
    int32_t history[MAX_TOKENS];
    for (int i = 0; i < 1500; i++) {
        int n_vocab = random_vocab(&seed), n_history = (int)(test_rand(&seed) % MAX_TOKENS);
        fr_sample_params p = plain();
        random_params(&seed, &p);
        for (int k = 0; k < FR_SAMPLER_COUNT; k++)
            p.order[k] = (fr_sampler_kind)k;
        for (int k = FR_SAMPLER_COUNT - 1; k > 0 && i % 3 > 0; k--) {
            int j = (int)(test_rand(&seed) % (uint64_t)(k + 1));
            fr_sampler_kind t = p.order[k];
            p.order[k] = p.order[j];
            p.order[j] = t;
        }
        p.n_order = i % 3 < 2 ? FR_SAMPLER_COUNT : (int)(test_rand(&seed) % FR_SAMPLER_COUNT);
        bool ends_cold = p.n_order > 0 && p.order[p.n_order - 1] == FR_SAMPLER_TEMPERATURE;
        if (p.temp <= 0 && !ends_cold)
            p.temp = 1; /* test_greedy has this case */
        random_logits(&seed, logits, n_vocab);
        random_history(&seed, history, n_history, n_vocab);
        check_against_reference(p, logits, n_vocab, history, n_history);
    }
}

/* Small cases worked out by hand. */
static void test_hand_examples(void **state)
{
    (void)state;
    int32_t n;
    /* Probabilities 0.5, 0.25, 0.125, 0.125; ties go to the lower token. */
    const float logits[] = {0, 0.69314718f, 0, 1.38629436f};
    fr_sample_params p = only(FR_SAMPLER_TOP_K);
    p.n_probs = 4;
    p.top_k = 3;
    fr_sampler *s = open_sampler(&p, 4, 0);
    pick(s, logits);
    const fr_token_prob *probs = fr_sampler_probs(s, &n);
    assert_int_equal(n, 3);
    assert_int_equal(probs[0].token, 3);
    assert_int_equal(probs[1].token, 1);
    assert_int_equal(probs[2].token, 0);
    assert_float_equal(probs[0].p, 4.0 / 7, 1e-6);
    fr_sampler_free(s);

    p = only(FR_SAMPLER_TOP_P); /* 0.5 + 0.25 < 0.8 <= 0.5 + 0.25 + 0.125 */
    p.n_probs = 4;
    p.top_p = 0.8f;
    s = open_sampler(&p, 4, 0);
    pick(s, logits);
    fr_sampler_probs(s, &n);
    assert_int_equal(n, 3);
    fr_sampler_free(s);

    p = only(FR_SAMPLER_MIN_P); /* 0.25 >= 0.3 * 0.5 > 0.125 */
    p.n_probs = 4;
    p.min_p = 0.3f;
    s = open_sampler(&p, 4, 0);
    pick(s, logits);
    fr_sampler_probs(s, &n);
    assert_int_equal(n, 2);
    fr_sampler_free(s);

    /* Entropy 1.2130, surprisals 0.6931, 1.3863, 2.0794: token 1 is nearest, then token 3. */
    p = only(FR_SAMPLER_TYP_P);
    p.n_probs = 4;
    p.typical_p = 0.2f;
    s = open_sampler(&p, 4, 0);
    assert_int_equal(pick(s, logits), 1);
    fr_sampler_probs(s, &n);
    assert_int_equal(n, 1);
    fr_sampler_free(s);

    /* Twice seen, positive: 6 / 2 - 2 * 0.5 - 0.25; once seen, negative: -1 * 2 - 0.5 - 0.25. */
    const float two[] = {6, -1, 1.75f};
    p = only(FR_SAMPLER_PENALTIES);
    p.n_probs = 3;
    p.repeat_penalty = 2;
    p.frequency_penalty = 0.5f;
    p.presence_penalty = 0.25f;
    s = open_sampler(&p, 3, 8);
    fr_sampler_accept(s, 0);
    fr_sampler_accept(s, 1);
    fr_sampler_accept(s, 0);
    pick(s, two);
    probs = fr_sampler_probs(s, &n);
    assert_int_equal(n, 3);
    assert_int_equal(probs[0].token, 0);
    assert_true(probs[0].p == probs[1].p); /* 1.75 both */
    assert_float_equal(probs[2].p / probs[0].p, exp(-2.75 - 1.75), 1e-6);
    fr_sampler_free(s);
}

/* ---- greedy, history, biases --------------------------------------------------------------- */

static void test_greedy(void **state)
{
    (void)state;
    uint64_t seed = 9;
    float logits[MAX_VOCAB];
    for (int i = 0; i < 300; i++) {
        fr_sample_params p = i % 2 ? fr_sample_defaults() : plain(); /* plain: without its filter */
        p.temp = i % 3 ? 0 : -1;
        p.n_probs = 5;
        int n_vocab = random_vocab(&seed), best = 0;
        random_logits(&seed, logits, n_vocab);
        for (int t = 1; t < n_vocab; t++)
            if (logits[t] > logits[best])
                best = t;
        fr_sampler *s = open_sampler(&p, n_vocab, 16);
        for (int again = 0; again < 3; again++)
            assert_int_equal(pick(s, logits), best);
        int32_t n;
        const fr_token_prob *probs = fr_sampler_probs(s, &n);
        assert_int_equal(n, 1);
        assert_true(probs[0].token == best && probs[0].p == 1);
        fr_sampler_free(s);
    }
}

/* A window of 1..9 over 200 tokens, checked after each, and again after a reset. */
static void test_history_ring(void **state)
{
    (void)state;
    enum { VOCAB = 6 };
    const float logits[VOCAB] = {1, 1, 1, 1, 1, 1};
    for (int32_t window = 1; window < 10; window++) {
        fr_sample_params p = only(FR_SAMPLER_PENALTIES);
        p.repeat_last_n = window < 8 ? window : window == 8 ? -1 : 1000; /* 9 by max_history */
        p.frequency_penalty = 1;
        p.n_probs = VOCAB;
        fr_sampler *s = open_sampler(&p, VOCAB, 9);
        for (int round = 0; round < 2; round++) {
            uint64_t seed = 3;
            int32_t tokens[200];
            for (int i = 0; i < 200; i++) {
                tokens[i] = (int32_t)(test_rand(&seed) >> 33) % VOCAB;
                fr_sampler_accept(s, tokens[i]);
                fr_sampler_accept(s, i % 2 ? -1 : VOCAB); /* not in the vocabulary: ignored */
                pick(s, logits);
                int32_t n;
                const fr_token_prob *got = fr_sampler_probs(s, &n);
                double weight[VOCAB], sum = 0;
                for (int t = 0; t < VOCAB; t++)
                    weight[t] = 1;
                for (int j = i; j >= 0 && j > i - (window < 8 ? window : 9); j--)
                    weight[tokens[j]] *= exp(-1);
                for (int t = 0; t < VOCAB; t++)
                    sum += weight[t];
                for (int t = 0; t < VOCAB; t++)
                    assert_float_equal(got[t].p, weight[got[t].token] / sum, 1e-6);
            }
            fr_sampler_reset(s);
            int32_t n;
            fr_sampler_probs(s, &n);
            assert_int_equal(n, 0);
        }
        fr_sampler_free(s);
    }
}

static void test_logit_bias(void **state)
{
    (void)state;
    const float logits[] = {1, 2, 3, 4, INFINITY};
    fr_logit_bias bias[] = {{4, -INFINITY}, {3, -INFINITY}, {0, 2.5f}, {0, 0.5f}, {4, 5}};
    fr_sample_params p = plain();
    p.logit_bias = bias;
    p.n_logit_bias = 5;
    p.n_probs = 5;
    fr_sampler *s = open_sampler(&p, 5, 0);
    bias[2].bias = -1000; /* the sampler has a copy */
    pick(s, logits);
    int32_t n;
    const fr_token_prob *probs = fr_sampler_probs(s, &n);
    assert_int_equal(n, 3); /* 0 (now 4), 2, 1; an addition does not bring back a forbidden token */
    assert_true(probs[0].token == 0 && probs[1].token == 2 && probs[2].token == 1);
    assert_float_equal(probs[1].p / probs[0].p, exp(-1), 1e-6);
    fr_sampler_free(s);

    p.n_logit_bias = 2;
    bias[0].token = 0;
    bias[1].token = 1;
    s = open_sampler(&p, 2, 0);
    int32_t token;
    assert_int_equal(fr_sampler_pick(s, logits, &token, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "logit_bias"));
    fr_sampler_free(s);
}

/* ---- hostile numbers ----------------------------------------------------------------------- */

static void test_infinite_and_nan_logits(void **state)
{
    (void)state;
    fr_sample_params p = fr_sample_defaults();
    p.seed = 4;
    p.n_probs = 4;
    p.typical_p = 0.9f;
    p.repeat_penalty = 1.3f;
    fr_sampler *s = open_sampler(&p, 4, 8);
    fr_sampler_accept(s, 1);
    int32_t token, n;
    assert_int_equal(pick(s, (float[]){-INFINITY, -INFINITY, -5, -INFINITY}), 2);
    for (int i = 0; i < 20; i++) { /* infinities share the probability */
        token = pick(s, (float[]){FLT_MAX, INFINITY, INFINITY, -INFINITY});
        assert_true(token == 1 || token == 2);
        const fr_token_prob *probs = fr_sampler_probs(s, &n);
        assert_true(n == 2 && probs[0].p == 0.5f);
    }
    pick(s, (float[]){-FLT_MAX, -FLT_MAX, FLT_MAX, 0});
    const float none[] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    assert_int_equal(fr_sampler_pick(s, none, &token, &err), FR_EINTERNAL);
    for (int i = 0; i < 4; i++) {
        float logits[] = {0, 0, 0, 0};
        logits[i] = i % 2 ? NAN : -NAN;
        assert_int_equal(fr_sampler_pick(s, logits, &token, &err), FR_EINTERNAL);
        assert_non_null(strstr(err.text, "NaN"));
        assert_int_equal(fr_sampler_pick(s, logits, &token, NULL), FR_EINTERNAL);
        fr_sampler_probs(s, &n);
        assert_int_equal(n, 0);
    }
    fr_sampler_free(s);
}

static void test_extreme_parameters(void **state)
{
    (void)state;
    static const float temps[] = {0x1p-149f, FLT_MIN, 1e-30f, 1e30f, FLT_MAX};
    static const float shift[] = {-1e30f, -100, 0, 100, 1e30f};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            fr_sample_params p = fr_sample_defaults();
            p.temp = temps[i];
            p.repeat_penalty = j % 2 ? FLT_MIN : FLT_MAX;
            p.frequency_penalty = j % 2 ? FLT_MAX : -FLT_MAX;
            p.n_probs = 4;
            p.seed = 8;
            fr_sampler *s = open_sampler(&p, 4, 4);
            float x = shift[j], gap = fabsf(x) * 1e-6f + 1e-6f;
            const float logits[] = {x, x + gap, x - gap, x};
            int32_t token = pick(s, logits);
            if (i < 3) /* so cold that only the best has a chance, also when it is negative */
                assert_int_equal(token, 1);
            fr_sampler_accept(s, 0);
            token = pick(s, logits);
            int32_t n;
            const fr_token_prob *probs = fr_sampler_probs(s, &n);
            float sum = 0;
            for (int k = 0; k < n; k++)
                sum += probs[k].p;
            assert_float_equal(sum, 1, 1e-6);
            fr_sampler_free(s);
        }
}

/* ---- draws --------------------------------------------------------------------------------- */

enum { DRAWS = 32 };

static void draw_many(const fr_sample_params *p, int32_t tokens[DRAWS])
{
    static float logits[MAX_VOCAB];
    uint64_t seed = 2024;
    fr_sampler *s = open_sampler(p, MAX_VOCAB, 100);
    for (int round = 0; round < 2; round++) {
        seed = 2024;
        for (int i = 0; i < DRAWS; i++) {
            for (int t = 0; t < MAX_VOCAB; t++)
                logits[t] = test_rand_f(&seed) * 4;
            int32_t token = pick(s, logits);
            if (round > 0) /* after a reset everything is repeated */
                assert_int_equal(token, tokens[i]);
            tokens[i] = token;
            fr_sampler_accept(s, token);
        }
        fr_sampler_reset(s);
    }
    assert_true(fr_sampler_seed(s) == p->seed);
    fr_sampler_free(s);
}

/* The expected tokens were written by the first build; they must come on every machine, compiler
 * and optimization level, as users repeat runs by their seed. */
static void test_same_tokens_everywhere(void **state)
{
    (void)state;
    static const int32_t want_plain[] = {39, 213, 406, 552, 593, 469, 436, 490};
    static const int32_t want_chain[] = {30, 42, 344, 460, 357, 410, 84, 258};
    int32_t tokens[DRAWS], others[DRAWS];
    fr_sample_params p = plain();
    p.seed = 42;
    draw_many(&p, tokens);
    assert_memory_equal(tokens, want_plain, sizeof want_plain);
    p.n_probs = MAX_VOCAB; /* asking for probabilities changes nothing */
    draw_many(&p, others);
    assert_memory_equal(tokens, others, sizeof tokens);
    p.seed = 43;
    draw_many(&p, others);
    assert_memory_not_equal(tokens, others, sizeof tokens);

    p = fr_sample_defaults();
    p.seed = 42;
    p.typical_p = 0.9f;
    p.repeat_penalty = 1.1f;
    draw_many(&p, tokens);
    assert_memory_equal(tokens, want_chain, sizeof want_chain);
}

static void test_random_seed(void **state)
{
    (void)state;
    fr_sample_params p = fr_sample_defaults();
    fr_sampler *a = open_sampler(&p, 10, 0), *b = open_sampler(&p, 10, 0);
    assert_true(fr_sampler_seed(a) != fr_sampler_seed(b));
    assert_true(fr_sampler_seed(a) < 1ull << 53 && fr_sampler_seed(b) < 1ull << 53);
    fr_sampler_free(a);
    fr_sampler_free(b);
}

/* 200000 draws from 60 tokens: chi-square of 59 degrees of freedom, within 5 standard deviations.
 */
static void check_distribution(const fr_sample_params *p, const float *logits)
{
    enum { VOCAB = 60, N = 200000 };
    static ref_list want;
    int count[VOCAB] = {0};
    ref_chain(&want, p, logits, VOCAB, NULL, 0);
    fr_sampler *s = open_sampler(p, VOCAB, 0);
    for (int i = 0; i < N; i++)
        count[pick(s, logits)]++;
    fr_sampler_free(s);
    double chi2 = 0;
    int total = 0;
    for (int i = 0; i < want.n; i++) {
        double expected = want.c[i].p * N, d = count[want.c[i].token] - expected;
        assert_true(expected > 5);
        chi2 += d * d / expected;
        total += count[want.c[i].token];
    }
    assert_int_equal(total, N); /* nothing that the filters dropped */
    double freedom = want.n - 1;
    assert_true(chi2 < freedom + 5 * sqrt(2 * freedom));
    assert_true(chi2 > freedom - 5 * sqrt(2 * freedom));
}

static void test_distribution(void **state)
{
    (void)state;
    float logits[60];
    uint64_t seed = 31;
    for (int i = 0; i < 60; i++)
        logits[i] = test_rand_f(&seed) * 3;
    fr_sample_params p = plain();
    check_distribution(&p, logits);
    p = fr_sample_defaults();
    p.seed = 7;
    check_distribution(&p, logits);
    p.temp = 2;
    p.typical_p = 0.6f;
    check_distribution(&p, logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_filter),
        cmocka_unit_test(test_random_chains),
        cmocka_unit_test(test_hand_examples),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_history_ring),
        cmocka_unit_test(test_logit_bias),
        cmocka_unit_test(test_infinite_and_nan_logits),
        cmocka_unit_test(test_extreme_parameters),
        cmocka_unit_test(test_same_tokens_everywhere),
        cmocka_unit_test(test_random_seed),
        cmocka_unit_test(test_distribution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
