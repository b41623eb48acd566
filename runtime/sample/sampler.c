#include "sample/sampler.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "sample/sample_filters.h"

struct fr_sampler {
    fr_sample_params p; /* logit_bias points to `bias` */
    uint64_t seed;
    sample_rng rng;
    int32_t n_vocab;
    fr_logit_bias *bias;  /* owned, like all that follow */
    sample_cand *cands;   /* [n_vocab] */
    sample_cand *spare;   /* [n_vocab] */
    double *weight;       /* [n_vocab] */
    fr_token_prob *probs; /* [p.n_probs] */
    int32_t n_probs;      /* valid ones */
    /* The last tokens, a ring, when the penalties need them (window > 0). */
    int32_t window, n_history, oldest;
    int32_t *history;  /* [window] */
    int32_t *n_recent; /* [n_vocab] occurrences in the window */
};

typedef struct {
    const char *name, *aliases;
    void (*apply)(sample_chain *);
} filter_row;

static const filter_row filters[] = {
#define X(ID, name, aliases, apply) {name, aliases, sample_##apply},
#include "sample/samplers.def"
#undef X
};

fr_sample_params fr_sample_defaults(void)
{
    fr_sample_params p = {
        .seed = UINT64_MAX,
        .temp = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .typical_p = 1,
        .repeat_last_n = 64,
        .repeat_penalty = 1,
        .n_order = FR_SAMPLER_COUNT,
    };
    for (int i = 0; i < FR_SAMPLER_COUNT; i++)
        p.order[i] = (fr_sampler_kind)i;
    return p;
}

/* ---- order --------------------------------------------------------------------------------- */

/* Whether `word` is one of the blank-separated `names`; '-' and '_' are the same. */
static bool names_contain(const char *names, fr_str word)
{
    for (const char *end; *names; names = *end ? end + 1 : end) {
        end = names + strcspn(names, " ");
        size_t n = (size_t)(end - names), i = 0;
        while (n == word.n && i < n && names[i] == (word.p[i] == '-' ? '_' : word.p[i]))
            i++;
        if (n == word.n && i == n)
            return true;
    }
    return false;
}

static fr_status unknown_name(fr_str word, fr_err *err)
{
    static const char *const names[] = {
#define X(ID, name, ...) name,
#include "sample/samplers.def"
#undef X
    };
    static const char *const elsewhere = "dry top_n_sigma xtc infill adaptive_p";
    static const char known[] =
#define X(ID, name, ...) name ";"
#include "sample/samplers.def"
#undef X
        ;
    int shown = word.n < 64 ? (int)word.n : 64;
    if (names_contain(elsewhere, word))
        return fr_fail(err, FR_EUNSUPPORTED,
                       "samplers: found '%.*s', which this version does not have, expected some of "
                       "%.*s; leave it out",
                       shown, word.p, (int)sizeof known - 2, known);
    const char *nearest = fr_nearest_name(word, names, FR_SAMPLER_COUNT, 3);
    return fr_fail(err, FR_EINVAL, "samplers: found '%.*s', expected some of %.*s%s%s%s", shown,
                   word.p, (int)sizeof known - 2, known, nearest ? "; did you mean '" : "",
                   nearest ? nearest : "", nearest ? "'?" : "");
}

static fr_status find_filter(fr_str word, fr_sampler_kind *out, fr_err *err)
{
    for (int i = 0; i < FR_SAMPLER_COUNT; i++)
        if (names_contain(filters[i].name, word) || names_contain(filters[i].aliases, word)) {
            *out = (fr_sampler_kind)i;
            return FR_OK;
        }
    return unknown_name(word, err);
}

fr_status fr_sample_parse_order(fr_str text, fr_sample_params *p, fr_err *err)
{
    fr_sampler_kind order[FR_SAMPLER_COUNT] = {0};
    bool seen[FR_SAMPLER_COUNT] = {false};
    int n = 0;
    fr_str rest = fr_str_trim(text);
    for (bool more = rest.n > 0; more;) {
        const char *end = memchr(rest.p, ';', rest.n);
        size_t len = end ? (size_t)(end - rest.p) : rest.n;
        more = end != NULL;
        fr_sampler_kind kind = FR_SAMPLER_COUNT;
        FR_TRY(find_filter(fr_str_trim((fr_str){rest.p, len}), &kind, err));
        if (seen[kind])
            return fr_fail(err, FR_EINVAL,
                           "samplers: found '%s' twice, expected it once; "
                           "leave one out",
                           filters[kind].name);
        seen[kind] = true;
        order[n++] = kind;
        rest = (fr_str){rest.p + len + more, rest.n - len - more};
    }
    memcpy(p->order, order, sizeof order);
    p->n_order = n;
    return FR_OK;
}

/* ---- parameters ---------------------------------------------------------------------------- */

static fr_status check_float(const char *name, float x, double min, double max, fr_err *err)
{
    if (isfinite(x) && x >= min && x <= max)
        return FR_OK;
    char range[64] = "a finite number";
    if (min > -HUGE_VAL && max < HUGE_VAL)
        snprintf(range, sizeof range, "%g to %g", min, max);
    else if (min > -HUGE_VAL)
        snprintf(range, sizeof range, "a finite number of at least %g", min);
    return fr_fail(err, FR_ERANGE, "%s: found %g, expected %s", name, (double)x, range);
}

static fr_status check_int(const char *name, int64_t x, int64_t min, fr_err *err)
{
    if (x >= min)
        return FR_OK;
    return fr_fail(err, FR_ERANGE, "%s: found %lld, expected at least %lld", name, (long long)x,
                   (long long)min);
}

static fr_status check_bias(const fr_sample_params *p, int32_t n_vocab, fr_err *err)
{
    if (p->n_logit_bias > 0 && !p->logit_bias)
        return fr_fail(err, FR_EINVAL, "logit_bias: found no entries, expected %zu",
                       p->n_logit_bias);
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        fr_logit_bias b = p->logit_bias[i];
        if (b.token < 0 || b.token >= n_vocab)
            return fr_fail(err, FR_ERANGE,
                           "logit_bias: found token %d, expected 0 to %d (the vocabulary)",
                           (int)b.token, (int)n_vocab - 1);
        if (!isfinite(b.bias) && b.bias != -INFINITY)
            return fr_fail(err, FR_ERANGE,
                           "logit_bias: found %g for token %d, expected a finite number or "
                           "-infinity (forbids the token)",
                           (double)b.bias, (int)b.token);
    }
    return FR_OK;
}

static fr_status check_order(const fr_sample_params *p, fr_err *err)
{
    bool seen[FR_SAMPLER_COUNT] = {false};
    if (p->n_order < 0 || p->n_order > FR_SAMPLER_COUNT)
        return fr_fail(err, FR_EINVAL, "samplers: found %d filters, expected 0 to %d", p->n_order,
                       FR_SAMPLER_COUNT);
    for (int i = 0; i < p->n_order; i++) {
        unsigned kind = p->order[i];
        if (kind >= FR_SAMPLER_COUNT || seen[kind])
            return fr_fail(err, FR_EINVAL,
                           "samplers: found number %u at %d, expected each of 0 to "
                           "%d at most once",
                           kind, i, FR_SAMPLER_COUNT - 1);
        seen[kind] = true;
    }
    return FR_OK;
}

static fr_status check_params(const fr_sample_params *p, int32_t n_vocab, int32_t max_history,
                              fr_err *err)
{
    const double inf = HUGE_VAL;
    FR_TRY(check_int("n_vocab", n_vocab, 1, err));
    FR_TRY(check_int("max_history", max_history, 0, err));
    FR_TRY(check_float("temp", p->temp, -inf, inf, err));
    FR_TRY(check_float("top_p", p->top_p, 0, inf, err));
    FR_TRY(check_float("min_p", p->min_p, -inf, 1, err));
    FR_TRY(check_float("typical_p", p->typical_p, 0, inf, err));
    FR_TRY(check_int("repeat_last_n", p->repeat_last_n, -1, err));
    FR_TRY(check_float("repeat_penalty", p->repeat_penalty, FLT_MIN, inf, err));
    FR_TRY(check_float("presence_penalty", p->presence_penalty, -inf, inf, err));
    FR_TRY(check_float("frequency_penalty", p->frequency_penalty, -inf, inf, err));
    FR_TRY(check_int("n_probs", p->n_probs, 0, err));
    FR_TRY(check_bias(p, n_vocab, err));
    return check_order(p, err);
}

/* ---- life ---------------------------------------------------------------------------------- */

/* 53 random bits: such a seed survives being a JSON number, so that a client can send it back. */
static fr_status random_seed(uint64_t *seed, fr_err *err)
{
    ssize_t got;
    do
        got = getrandom(seed, sizeof *seed, 0);
    while (got < 0 && errno == EINTR);
    if (got != sizeof *seed)
        return fr_fail(err, FR_EIO, "random seed: the system gave none: %s; set a seed",
                       strerror(errno));
    *seed >>= 11;
    return FR_OK;
}

/* How many tokens the penalties look back; 0 when they cannot change anything. */
static int32_t penalty_window(const fr_sample_params *p, int32_t max_history)
{
    bool in_order = false;
    for (int i = 0; i < p->n_order; i++)
        in_order |= p->order[i] == FR_SAMPLER_PENALTIES;
    if (!in_order ||
        (p->repeat_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0))
        return 0;
    return p->repeat_last_n < 0 || p->repeat_last_n > max_history ? max_history : p->repeat_last_n;
}

static fr_status alloc_tables(fr_sampler *s, const fr_sample_params *p, fr_err *err)
{
    size_t n = (size_t)s->n_vocab;
    s->bias = FR_NEW(fr_logit_bias, FR_MEM_SAMPLE, p->n_logit_bias, err);
    s->cands = FR_NEW(sample_cand, FR_MEM_SAMPLE, n, err);
    s->spare = FR_NEW(sample_cand, FR_MEM_SAMPLE, n, err);
    s->weight = FR_NEW(double, FR_MEM_SAMPLE, n, err);
    s->probs = FR_NEW(fr_token_prob, FR_MEM_SAMPLE, s->p.n_probs, err);
    if (!s->bias || !s->cands || !s->spare || !s->weight || !s->probs)
        return FR_ENOMEM;
    if (s->window > 0) {
        s->history = FR_NEW(int32_t, FR_MEM_SAMPLE, s->window, err);
        s->n_recent = FR_NEW(int32_t, FR_MEM_SAMPLE, n, err);
        if (!s->history || !s->n_recent)
            return FR_ENOMEM;
    }
    return FR_OK;
}

fr_status fr_sampler_open(const fr_sample_params *p, int32_t n_vocab, int32_t max_history,
                          fr_sampler **out, fr_err *err)
{
    *out = NULL;
    FR_TRY(check_params(p, n_vocab, max_history, err));
    fr_sampler *s = FR_NEW(fr_sampler, FR_MEM_SAMPLE, 1, err);
    if (!s)
        return FR_ENOMEM;
    fr_status st = FR_OK;
    s->p = *p;
    s->n_vocab = n_vocab;
    s->window = penalty_window(p, max_history);
    if (s->p.n_probs > n_vocab)
        s->p.n_probs = n_vocab;
    FR_TRY_OUT(st, alloc_tables(s, p, err));
    if (p->n_logit_bias > 0)
        memcpy(s->bias, p->logit_bias, p->n_logit_bias * sizeof *s->bias);
    s->p.logit_bias = s->bias;
    s->seed = p->seed;
    if (p->seed == UINT64_MAX)
        FR_TRY_OUT(st, random_seed(&s->seed, err));
    s->rng = sample_rng_make(s->seed);
out:
    if (st != FR_OK) {
        fr_sampler_free(s);
        s = NULL;
    }
    *out = s;
    return st;
}

void fr_sampler_free(fr_sampler *s)
{
    if (!s)
        return;
    fr_mem_free(s->bias);
    fr_mem_free(s->cands);
    fr_mem_free(s->spare);
    fr_mem_free(s->weight);
    fr_mem_free(s->probs);
    fr_mem_free(s->history);
    fr_mem_free(s->n_recent);
    fr_mem_free(s);
}

uint64_t fr_sampler_seed(const fr_sampler *s)
{
    return s->seed;
}

void fr_sampler_accept(fr_sampler *s, int32_t token)
{
    if (s->window == 0 || token < 0 || token >= s->n_vocab)
        return;
    if (s->n_history == s->window) {
        s->n_recent[s->history[s->oldest]]--;
        s->history[s->oldest] = token;
        s->oldest = (s->oldest + 1) % s->window;
    } else {
        s->history[s->n_history++] = token;
    }
    s->n_recent[token]++;
}

void fr_sampler_reset(fr_sampler *s)
{
    for (int32_t i = 0; i < s->n_history; i++)
        s->n_recent[s->history[i]] = 0;
    s->n_history = s->oldest = 0;
    s->n_probs = 0;
    s->rng = sample_rng_make(s->seed);
}

/* ---- pick ---------------------------------------------------------------------------------- */

/* The candidates in token order, with biases, without the impossible ones (-infinity). */
static fr_status fill_list(fr_sampler *s, const float *logits, sample_list *l, fr_err *err)
{
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (isnan(logits[i]))
            return fr_fail(err, FR_EINTERNAL,
                           "logits: found NaN for token %d, expected numbers; the computation or "
                           "the model file is broken",
                           (int)i);
        s->cands[i] = (sample_cand){logits[i], i};
    }
    for (size_t i = 0; i < s->p.n_logit_bias; i++) {
        float *logit = &s->cands[s->bias[i].token].logit;
        *logit = s->bias[i].bias == -INFINITY ? -INFINITY : *logit + s->bias[i].bias;
    }
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (s->cands[i].logit > -INFINITY)
            s->cands[n++] = s->cands[i];
    *l = (sample_list){s->cands, n, 0};
    if (n > 0)
        return FR_OK;
    if (s->p.n_logit_bias > 0)
        return fr_fail(err, FR_EINVAL,
                       "logit_bias: found every possible token forbidden, expected "
                       "at least one allowed");
    return fr_fail(err, FR_EINTERNAL, "logits: found only -infinity, expected a possible token");
}

static int32_t draw(fr_sampler *s, const sample_list *l)
{
    float best = sample_list_best(l).logit;
    double total = 0, sum = 0;
    for (int32_t i = 0; i < l->n; i++)
        total += s->weight[i] = sample_weight(l->c[i].logit, best);
    double wanted = sample_rng_unit(&s->rng) * total;
    int32_t last = 0; /* of the possible ones */
    for (int32_t i = 0; i < l->n && sum <= wanted; i++) {
        sum += s->weight[i];
        if (s->weight[i] > 0)
            last = i;
    }
    return l->c[last].token;
}

static void keep_probs(fr_sampler *s, sample_list *l)
{
    if (s->p.n_probs == 0)
        return;
    s->n_probs = s->p.n_probs < l->n ? s->p.n_probs : l->n;
    float best;
    double total = sample_total_weight(l, &best);
    sample_list_sort(l, s->n_probs);
    for (int32_t i = 0; i < s->n_probs; i++)
        s->probs[i] =
            (fr_token_prob){l->c[i].token, (float)(sample_weight(l->c[i].logit, best) / total)};
}

fr_status fr_sampler_pick(fr_sampler *s, const float *logits, int32_t *token, fr_err *err)
{
    sample_chain chain = {.p = &s->p,
                          .n_recent = s->n_recent,
                          .rng = &s->rng,
                          .weight = s->weight,
                          .spare = s->spare};
    s->n_probs = 0;
    FR_TRY(fill_list(s, logits, &chain.list, err));
    for (int i = 0; i < s->p.n_order; i++)
        filters[s->p.order[i]].apply(&chain);
    if (s->p.temp <= 0)
        sample_keep_best(&chain.list);
    *token = draw(s, &chain.list);
    keep_probs(s, &chain.list);
    return FR_OK;
}

const fr_token_prob *fr_sampler_probs(const fr_sampler *s, int32_t *n)
{
    *n = s->n_probs;
    return s->probs;
}
