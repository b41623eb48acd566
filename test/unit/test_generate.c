/* Generation: stop strings, limits, determinism. */
#include "testing.h"

#include "base/str.h"
#include "support/models.h"
#include "support/run_logits.h"

static fr_engine *engine;

static int setup(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine_config cfg = logits_config(MODEL_KJV);
    cfg.n_ctx = 128;
    cfg.all_logits = false;
    assert_ok(fr_engine_open(&cfg, &engine, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fr_engine_close(engine);
    return 0;
}

static bool collect(void *user, const char *text, size_t n)
{
    return fr_buf_add(user, text, n, NULL) == FR_OK;
}

static bool stop_at_once(void *user, const char *text, size_t n)
{
    fr_buf_add(user, text, n, NULL);
    return false;
}

/* Text generated after "In the beginning" with a seed; caller frees. */
static fr_buf generate(uint64_t seed, fr_generate_params params, fr_text_fn fn,
                       fr_generate_result *result)
{
    fr_err err = {0};
    fr_session *s = NULL;
    fr_sampler *sampler = NULL;
    fr_tokens prompt = {0};
    fr_buf text = {0};
    fr_sample_params p = fr_sample_defaults();
    p.seed = seed;
    assert_ok(fr_session_open(engine, &s, &err));
    assert_ok(fr_sampler_open(&p, 4096, 128, &sampler, &err));
    assert_int_equal(fr_generate(s, sampler, &params, fn, &text, result, &err),
                     FR_EINVAL); /* no logits yet */
    assert_ok(
        fr_tokenize(fr_engine_vocab(engine), "In the beginning", 16, true, false, &prompt, &err));
    assert_ok(fr_session_append(s, prompt.ids, (int64_t)prompt.n, &err));
    assert_ok(fr_generate(s, sampler, &params, fn, &text, result, &err));
    fr_tokens_free(&prompt);
    fr_sampler_free(sampler);
    fr_session_close(s);
    return text;
}

static void test_seed_decides(void **state)
{
    (void)state;
    fr_generate_result r;
    fr_generate_params params = {.n_predict = 24};
    fr_buf a = generate(1, params, collect, &r), b = generate(1, params, collect, &r);
    fr_buf c = generate(2, params, collect, &r);
    assert_true(a.n > 0);
    assert_string_equal(a.p, b.p);
    assert_string_not_equal(a.p, c.p);
    fr_buf_free(&a);
    fr_buf_free(&b);
    fr_buf_free(&c);
}

static void test_limits(void **state)
{
    (void)state;
    fr_generate_result r;
    fr_buf none = generate(1, (fr_generate_params){.n_predict = 0}, collect, &r);
    assert_int_equal(none.n, 0);
    assert_int_equal(r.n_generated, 0);
    fr_buf some = generate(1, (fr_generate_params){.n_predict = 5}, collect, &r);
    assert_int_equal(r.n_generated, 5);
    assert_int_equal(r.reason, FR_STOP_LIMIT);
    fr_buf all = generate(1, (fr_generate_params){.n_predict = -1}, collect, &r);
    assert_true(r.reason == FR_STOP_CONTEXT || r.reason == FR_STOP_EOG);
    assert_true(strncmp(all.p, some.p, some.n) == 0);
    fr_buf once = generate(1, (fr_generate_params){.n_predict = -1}, stop_at_once, &r);
    assert_int_equal(r.reason, FR_STOP_CALLER);
    assert_int_equal(r.n_generated, 1);
    fr_buf_free(&none);
    fr_buf_free(&some);
    fr_buf_free(&all);
    fr_buf_free(&once);
}

/* Every piece of the text, taken as a stop string, ends it right there, wherever token borders are.
 */
static void test_stop_strings(void **state)
{
    (void)state;
    fr_generate_result r;
    fr_buf whole = generate(3, (fr_generate_params){.n_predict = 24}, collect, &r);
    for (size_t at = 1; at + 7 < whole.n; at += 3) {
        char word[8] = {0};
        memcpy(word, whole.p + at, 7);
        const char *stops[] = {"\x01 never", word};
        fr_generate_params params = {.n_predict = 24, .stops = stops, .n_stops = 2};
        fr_buf cut = generate(3, params, collect, &r);
        size_t first = (size_t)(strstr(whole.p, word) - whole.p);
        assert_int_equal(r.reason, FR_STOP_WORD);
        assert_ptr_equal(r.stop_word, word);
        assert_int_equal(cut.n, first);
        assert_memory_equal(cut.n ? cut.p : "", whole.p, first);
        fr_buf_free(&cut);
    }
    fr_buf_free(&whole);
}

/* Text held back for a stop string that does not come is given out in the end. */
static void test_held_text_comes_out(void **state)
{
    (void)state;
    fr_generate_result r;
    fr_buf whole = generate(3, (fr_generate_params){.n_predict = 24}, collect, &r);
    char almost[9] = {0};
    memcpy(almost, whole.p + whole.n - 6, 6);
    almost[6] = 1;
    const char *stops[] = {almost};
    fr_buf same = generate(3, (fr_generate_params){.n_predict = 24, .stops = stops, .n_stops = 1},
                           collect, &r);
    assert_string_equal(same.p, whole.p);
    fr_buf_free(&same);
    fr_buf_free(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_decides),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_held_text_comes_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
