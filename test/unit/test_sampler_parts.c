/* The parts of the sampler below the chain (numbers, candidate list), and what surrounds it:
 * parameter checks, filter names, memory. */
#include "sampler_testing.h"

#include <float.h>
#include <math.h>

#include "base/mem.h"
#include "sample/sample_list.h"
#include "sample/sample_math.h"

/* ---- numbers ------------------------------------------------------------------------------- */

static void test_exp_and_log(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int i = 0; i < 200000; i++) {
        double x = -fabs((double)test_rand_f(&seed)) * (i % 2 ? 1 : 690);
        long double want = expl(x);
        assert_true(fabsl(sample_exp(x) - want) <= 4e-16L * want);
        double y = ldexp(1.5 + test_rand_f(&seed) / 2.5, (int)(test_rand(&seed) % 1000) - 500);
        assert_true(fabsl(sample_log(y) - logl(y)) <= 1e-15L * fabsl(logl(y)));
        double near_one = 1 + (double)test_rand_f(&seed) * 1e-3;
        assert_true(fabsl(sample_log(near_one) - logl(near_one)) <= 1e-15L * fabsl(logl(near_one)));
    }
    assert_true(sample_exp(0) == 1 && sample_exp(-0.0) == 1 && sample_log(1) == 0);
    assert_true(sample_exp(-INFINITY) == 0 && sample_exp(-701) == 0 && sample_exp(-699) > 0);
}

/* Published outputs: xoshiro256** from the state 1, 2, 3, 4; SplitMix64 from the seed 1234567. */
static void test_random_numbers(void **state)
{
    (void)state;
    static const uint64_t xoshiro[] = {11520,
                                       0,
                                       1509978240,
                                       1215971899390074240,
                                       1216172134540287360,
                                       607988272756665600,
                                       16172922978634559625u,
                                       8476171486693032832,
                                       10595114339597558777u,
                                       2904607092377533576};
    static const uint64_t splitmix[] = {6457827717110365317, 3203168211198807973,
                                        9817491932198370423u, 4593380528125082431};
    sample_rng r = {{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof xoshiro / sizeof *xoshiro; i++)
        assert_true(sample_rng_next(&r) == xoshiro[i]);
    r = sample_rng_make(1234567);
    assert_memory_equal(r.s, splitmix, sizeof splitmix);
    for (int i = 0; i < 100000; i++) {
        double u = sample_rng_unit(&r);
        assert_true(u >= 0 && u < 1);
    }
}

/* ---- the candidate list -------------------------------------------------------------------- */

static int better_cand(const void *a, const void *b)
{
    const sample_cand *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->token - y->token;
}

enum { LIST_MAX = 3000 };

static void fill_cands(uint64_t *seed, sample_cand *c, int n, int kind)
{
    static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 0x1p-149f};
    for (int i = 0; i < n; i++) {
        float x = test_rand_f(seed) * 10;
        if (kind == 1)
            x = 0;
        else if (kind == 2)
            x = roundf(x);
        else if (kind == 3)
            x = special[test_rand(seed) % 7];
        c[i] = (sample_cand){x, i};
    }
    for (int i = n - 1; i > 0; i--) { /* the order of the input must not matter */
        int j = (int)(test_rand(seed) % (uint64_t)(i + 1));
        sample_cand t = c[i];
        c[i] = c[j];
        c[j] = t;
    }
}

static void check_sort(uint64_t *seed, int kind)
{
    static sample_cand c[LIST_MAX], want[LIST_MAX];
    int n = 1 + (int)(test_rand(seed) % (kind == 1 ? LIST_MAX : 300));
    fill_cands(seed, c, n, kind);
    memcpy(want, c, (size_t)n * sizeof *c);
    qsort(want, (size_t)n, sizeof *want, better_cand);
    sample_list l = {c, n, 0};
    assert_int_equal(sample_list_best(&l).token, want[0].token);
    for (int k = 0, step = 1 + (int)(test_rand(seed) % 40); k < n + 50; k += step, step *= 2) {
        sample_list_sort(&l, k);
        assert_int_equal(l.n_sorted, k < n ? k : n);
        for (int i = 0; i < l.n_sorted; i++)
            assert_int_equal(c[i].token, want[i].token);
    }
    assert_int_equal(sample_list_best(&l).token, want[0].token);
    sample_list_cut(&l, n / 2 + 1);
    assert_int_equal(l.n, n / 2 + 1 < n ? n / 2 + 1 : n);
    assert_true(l.n_sorted <= l.n);
}

static void test_partial_sort(void **state)
{
    (void)state;
    uint64_t seed = 77;
    for (int i = 0; i < 400; i++)
        check_sort(&seed, i % 4);
}

/* ---- parameters ---------------------------------------------------------------------------- */

static void expect_refused(fr_sample_params p, fr_status status, const char *name)
{
    fr_sampler *s = (fr_sampler *)1;
    assert_int_equal(fr_sampler_open(&p, 100, 10, &s, &err), status);
    assert_null(s);
    assert_int_equal(err.code, status);
    if (strncmp(err.text, name, strlen(name)) != 0)
        fail_msg("'%s' does not begin with '%s'", err.text, name);
    assert_int_equal(fr_sampler_open(&p, 100, 10, &s, NULL), status);
}

static void test_parameter_checks(void **state)
{
    (void)state;
    fr_sampler *s;
    fr_sample_params ok = fr_sample_defaults(), p;
#define REFUSE(field, value, status) (p = ok, p.field = (value), expect_refused(p, status, #field))
#define REFUSE_NOT_FINITE(field)                                                                   \
    (REFUSE(field, NAN, FR_ERANGE), REFUSE(field, INFINITY, FR_ERANGE),                            \
     REFUSE(field, -INFINITY, FR_ERANGE))
    REFUSE_NOT_FINITE(temp);
    REFUSE_NOT_FINITE(top_p);
    REFUSE_NOT_FINITE(min_p);
    REFUSE_NOT_FINITE(typical_p);
    REFUSE_NOT_FINITE(repeat_penalty);
    REFUSE_NOT_FINITE(presence_penalty);
    REFUSE_NOT_FINITE(frequency_penalty);
    REFUSE(top_p, -0.1f, FR_ERANGE);
    REFUSE(min_p, 1.1f, FR_ERANGE);
    REFUSE(typical_p, -0.1f, FR_ERANGE);
    REFUSE(repeat_last_n, -2, FR_ERANGE);
    REFUSE(repeat_penalty, 0, FR_ERANGE);
    REFUSE(repeat_penalty, -1, FR_ERANGE);
    REFUSE(n_probs, -1, FR_ERANGE);

    static const fr_logit_bias bad[] = {{-1, 0}, {100, 0}, {0, NAN}, {0, INFINITY}};
    for (int i = 0; i < 4; i++) {
        p = ok;
        p.logit_bias = &bad[i];
        p.n_logit_bias = 1;
        expect_refused(p, FR_ERANGE, "logit_bias");
    }
    p = ok;
    p.n_logit_bias = 1;
    expect_refused(p, FR_EINVAL, "logit_bias");
    p = ok;
    p.order[1] = p.order[0];
    expect_refused(p, FR_EINVAL, "samplers");
    p.order[1] = (fr_sampler_kind)-1;
    expect_refused(p, FR_EINVAL, "samplers");
    p = ok;
    p.n_order = FR_SAMPLER_COUNT + 1;
    expect_refused(p, FR_EINVAL, "samplers");
    p.n_order = -1;
    expect_refused(p, FR_EINVAL, "samplers");
    assert_int_equal(fr_sampler_open(&ok, 0, 10, &s, &err), FR_ERANGE);
    assert_int_equal(fr_sampler_open(&ok, 10, -1, &s, &err), FR_ERANGE);
}

static void test_defaults(void **state)
{
    (void)state;
    fr_sample_params p = fr_sample_defaults();
    assert_true(p.seed == UINT64_MAX && p.temp == 0.8f && p.top_k == 40 && p.top_p == 0.95f);
    assert_true(p.min_p == 0.05f && p.typical_p == 1 && p.repeat_last_n == 64);
    assert_true(p.repeat_penalty == 1 && p.presence_penalty == 0 && p.frequency_penalty == 0);
    assert_true(p.n_logit_bias == 0 && p.n_probs == 0);
    fr_sample_params q = {.n_order = 0};
    assert_ok(
        fr_sample_parse_order(FR_STR("penalties;top_k;typ_p;top_p;min_p;temperature"), &q, &err));
    assert_int_equal(p.n_order, q.n_order);
    assert_memory_equal(p.order, q.order, sizeof p.order);
}

/* ---- order --------------------------------------------------------------------------------- */

static void expect_order(const char *text, int n, const fr_sampler_kind *want)
{
    fr_sample_params p = fr_sample_defaults();
    assert_ok(fr_sample_parse_order(fr_str_of(text), &p, &err));
    assert_int_equal(p.n_order, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(p.order[i], want[i]);
}

static void expect_bad_order(const char *text, fr_status status, const char *part)
{
    fr_sample_params p = fr_sample_defaults(), before = p;
    assert_int_equal(fr_sample_parse_order(fr_str_of(text), &p, &err), status);
    assert_memory_equal(&p, &before, sizeof p);
    if (!strstr(err.text, part))
        fail_msg("'%s' does not name '%s'", err.text, part);
    assert_int_equal(fr_sample_parse_order(fr_str_of(text), &p, NULL), status);
}

static void test_order_names(void **state)
{
    (void)state;
#define ORDER(text, ...)                                                                           \
    expect_order(text, sizeof((fr_sampler_kind[]){__VA_ARGS__}) / sizeof(fr_sampler_kind),         \
                 (fr_sampler_kind[]){__VA_ARGS__})
    ORDER("temperature;top_k", FR_SAMPLER_TEMPERATURE, FR_SAMPLER_TOP_K);
    ORDER(" temp ; top-k ", FR_SAMPLER_TEMPERATURE, FR_SAMPLER_TOP_K);
    ORDER("typical;nucleus;min-p", FR_SAMPLER_TYP_P, FR_SAMPLER_TOP_P, FR_SAMPLER_MIN_P);
    ORDER("typical-p", FR_SAMPLER_TYP_P);
    ORDER("typ_p", FR_SAMPLER_TYP_P);
    ORDER("typ", FR_SAMPLER_TYP_P);
    ORDER("penalties", FR_SAMPLER_PENALTIES);
    expect_order("", 0, NULL);
    expect_order("  ", 0, NULL);
    expect_bad_order("top_kk", FR_EINVAL, "did you mean 'top_k'?");
    expect_bad_order("penalties;temprature", FR_EINVAL, "did you mean 'temperature'?");
    expect_bad_order("topp", FR_EINVAL, "did you mean 'top_");
    expect_bad_order("something_else", FR_EINVAL, "penalties;top_k;typ_p;");
    expect_bad_order("top_k;;top_p", FR_EINVAL, "found ''");
    expect_bad_order("top_k;", FR_EINVAL, "found ''");
    expect_bad_order(";", FR_EINVAL, "found ''");
    expect_bad_order("typical typical_p", FR_EINVAL, "found 'typical typical_p'");
    expect_bad_order("top_k;min_p;top-k", FR_EINVAL, "'top_k' twice");
    expect_bad_order("penalties;dry;top_k", FR_EUNSUPPORTED, "'dry'");
    expect_bad_order("temperature;xtc", FR_EUNSUPPORTED, "'xtc'");
    char longer[500];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    expect_bad_order(longer, FR_EINVAL, "expected");
}

/* ---- memory -------------------------------------------------------------------------------- */

static void test_pick_allocates_nothing(void **state)
{
    (void)state;
    enum { VOCAB = 50000 };
    float *logits = malloc(VOCAB * sizeof *logits);
    assert_non_null(logits);
    uint64_t seed = 6;
    for (int i = 0; i < 12; i++) {
        fr_sample_params p = fr_sample_defaults();
        random_params(&seed, &p);
        p.n_probs = 20;
        p.top_k = i % 2 ? 0 : 40;
        fr_sampler *s = open_sampler(&p, VOCAB, 4096);
        for (int t = 0; t < VOCAB; t++)
            logits[t] = test_rand_f(&seed) * 8;
        uint64_t before = fr_mem_total().n_allocs;
        for (int k = 0; k < 5; k++)
            fr_sampler_accept(s, pick(s, logits));
        fr_sampler_reset(s);
        assert_true(fr_mem_total().n_allocs == before);
        fr_sampler_free(s);
    }
    free(logits);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    static const fr_logit_bias bias[] = {{1, 1}};
    size_t before = fr_mem_total().bytes_now;
    fr_sample_params p = fr_sample_defaults();
    p.repeat_penalty = 1.2f;
    p.n_probs = 3;
    p.logit_bias = bias;
    p.n_logit_bias = 1;
    int failures = 0;
    for (uint64_t n = 1;; n++) {
        fr_sampler *s = NULL;
        fr_mem_fail_at(n, 0);
        fr_status st = fr_sampler_open(&p, 100, 10, &s, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK) {
            fr_sampler_free(s);
            break;
        }
        assert_int_equal(st, FR_ENOMEM);
        assert_int_equal(err.code, FR_ENOMEM);
        assert_null(s);
        assert_true(fr_mem_total().bytes_now == before);
        failures++;
    }
    assert_true(failures >= 8);
    assert_true(fr_mem_total().bytes_now == before);
    fr_sampler_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_and_log),
        cmocka_unit_test(test_random_numbers),
        cmocka_unit_test(test_partial_sort),
        cmocka_unit_test(test_parameter_checks),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_order_names),
        cmocka_unit_test(test_pick_allocates_nothing),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
