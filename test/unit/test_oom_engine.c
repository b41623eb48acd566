/* Memory that cannot be had: the n-th allocation fails, for every n, over the whole life of an
 * engine. Each failure is FR_ENOMEM with a text, leaves nothing behind, and the next run works. */
#include "testing.h"

#include <math.h>

#include "base/log.h"
#include "engine/engine.h"
#include "support/models.h"
#include "support/tiny_models.h"

enum { N_PREDICT = 20 };

/* One life of an engine, the tokens that it picked and the text that came out. */
typedef struct {
    fr_engine_config cfg;
    const char *stop;
    int32_t picked[N_PREDICT];
    size_t n_picked;
    char text[1024];
} life;

static bool keep_text(void *user, const char *text, size_t n)
{
    char *kept = user;
    size_t had = strlen(kept);
    assert_true(had + n < sizeof((life *)NULL)->text && !memchr(text, 0, n));
    memcpy(kept + had, text, n);
    return true;
}

/* Token 3 of tiny_v3 is the byte 0, which a stop text cannot hold. */
static const fr_logit_bias no_zero_byte = {3, -INFINITY};

static fr_status talk(life *l, fr_engine *e, fr_session *s, fr_err *err)
{
    const char *const stops[] = {l->stop};
    fr_tokens ids = {0};
    fr_sampler *sampler = NULL;
    fr_generate_result result;
    fr_sample_params p = fr_sample_defaults();
    fr_status st;
    p.seed = 7;
    p.n_probs = 3;
    p.logit_bias = &no_zero_byte;
    p.n_logit_bias = 1;
    FR_TRY_OUT(st, fr_tokenize(fr_engine_vocab(e), "the and then", 12, true, true, &ids, err));
    FR_TRY_OUT(st, fr_session_append(s, ids.ids, (int64_t)ids.n, err));
    FR_TRY_OUT(st, fr_sampler_open(&p, fr_vocab_size(fr_engine_vocab(e)), 64, &sampler, err));
    fr_generate_params params = {
        .n_predict = N_PREDICT, .stops = stops, .n_stops = l->stop != NULL, .special = true};
    FR_TRY_OUT(st, fr_generate(s, sampler, &params, keep_text, l->text, &result, err));
    int64_t n;
    const int32_t *tokens = fr_session_tokens(s, &n);
    l->n_picked = (size_t)n - ids.n;
    assert_true(l->n_picked <= N_PREDICT);
    memcpy(l->picked, tokens + ids.n, l->n_picked * sizeof *tokens);
    FR_TRY_OUT(st, fr_session_sync(s, ids.ids, (int64_t)ids.n, NULL, err));
out:
    fr_sampler_free(sampler);
    fr_tokens_free(&ids);
    return st;
}

static fr_status live(life *l, fr_err *err)
{
    fr_engine *e = NULL;
    fr_session *s = NULL;
    fr_status st = fr_engine_open(&l->cfg, &e, err);
    assert_true((st == FR_OK) == (e != NULL));
    if (st == FR_OK) {
        st = fr_session_open(e, &s, err);
        assert_true((st == FR_OK) == (s != NULL));
    }
    if (st == FR_OK)
        st = talk(l, e, s, err);
    fr_session_close(s);
    fr_engine_close(e);
    return st;
}

/* `bpe`: PCRE2's just-in-time compiler does without the memory that it cannot have. */
static void walk(fr_engine_config cfg, bool bpe, int sticky)
{
    /* A stop text that may come until the very end: all text is held back for it. */
    life first = {.cfg = cfg}, whole = first;
    fr_err err = {0};
    assert_ok(live(&first, &err));
    assert_true(strlen(first.text) > 0);
    char stop[sizeof first.text + 2];
    snprintf(stop, sizeof stop, "%s!", first.text);
    whole.stop = stop;
    size_t before = fr_mem_total().bytes_now;
    uint64_t allocs = fr_mem_total().n_allocs;
    assert_ok(live(&whole, &err));
    allocs = fr_mem_total().n_allocs - allocs;
    assert_int_equal(fr_mem_total().bytes_now, before);
    uint64_t n_failed = 0;
    for (uint64_t n = 1; n <= allocs; n++) {
        life l = {.cfg = cfg, .stop = stop};
        err = (fr_err){0};
        fr_mem_fail_at(n, sticky);
        fr_status st = live(&l, &err);
        fr_mem_fail_at(0, 0);
        if (st != FR_OK && (st != FR_ENOMEM || err.code != st || !err.text[0]))
            fail_msg("allocation %llu of %llu: found %s '%s', expected ENOMEM",
                     (unsigned long long)n, (unsigned long long)allocs, fr_status_name(st),
                     err.text);
        n_failed += st != FR_OK;
        if (fr_mem_total().bytes_now != before)
            fail_msg("allocation %llu of %llu: %zd bytes left behind", (unsigned long long)n,
                     (unsigned long long)allocs, (ssize_t)(fr_mem_total().bytes_now - before));
        /* A failure that was survived must not have changed what came out. */
        if (st == FR_OK)
            assert_memory_equal(l.picked, whole.picked, sizeof l.picked);
    }
    assert_true(bpe ? n_failed > allocs / 2 : n_failed == allocs);
    life again = {.cfg = cfg, .stop = stop};
    assert_ok(live(&again, &err));
    assert_memory_equal(again.picked, whole.picked, sizeof again.picked);
    assert_string_equal(again.text, first.text);
}

static void walk_parts(gguf_parts parts, bool bpe, fr_mla_mode mla, bool mmap)
{
    const char *path = model_temp_path("tiny.gguf");
    parts_save(&parts, path);
    parts_free(&parts);
    fr_engine_config cfg = fr_engine_defaults();
    cfg.model_path = path;
    cfg.n_threads = 1;
    cfg.n_threads_batch = 2;
    cfg.mla = mla;
    cfg.mmap = mmap;
    cfg.check_tensors = true;
    walk(cfg, bpe, 0);
    if (mla == FR_MLA_AUTO)
        walk(cfg, bpe, 1);
}

static void test_tiny_v3(void **state)
{
    (void)state;
    for (int mla = 0; mla <= 3; mla++)
        walk_parts(tiny_v3(), false, (fr_mla_mode)mla, mla % 2 == 0);
}

static void test_tiny_v2(void **state)
{
    (void)state;
    for (int mla = 0; mla <= 3; mla++)
        walk_parts(tiny_v2(), true, (fr_mla_mode)mla, mla % 2 == 1);
}

static void test_v3(void **state)
{
    (void)state;
    fr_engine_config cfg = fr_engine_defaults();
    cfg.model_path = MODEL_V3;
    cfg.n_threads = 2;
    walk(cfg, true, 1);
}

static void no_log(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_v3),
        cmocka_unit_test(test_tiny_v2),
        cmocka_unit_test(test_v3),
    };
    fr_log_set_sink(no_log, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
