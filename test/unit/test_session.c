/* Sessions: prefix reuse, determinism, limits, cancelling, and no allocation per token. */
#include "testing.h"

#include <math.h>

#include "kv/kv.h"
#include "support/models.h"
#include "support/run_logits.h"

static fr_tokens ids;

static int setup(void **state)
{
    (void)state;
    ids = logits_read_ids(TEST_FILE("data/logits/ids.txt"));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fr_tokens_free(&ids);
    return 0;
}

static fr_engine *open_engine(fr_engine_config cfg)
{
    fr_err err = {0};
    fr_engine *e = NULL;
    assert_ok(fr_engine_open(&cfg, &e, &err));
    return e;
}

static fr_session *open_session(fr_engine *e)
{
    fr_err err = {0};
    fr_session *s = NULL;
    assert_ok(fr_session_open(e, &s, &err));
    return s;
}

/* The last token's logits after one whole batch. */
static void batch_logits(fr_engine *e, float *out)
{
    fr_err err = {0};
    fr_session *s = open_session(e);
    assert_ok(fr_session_append(s, ids.ids, (int64_t)ids.n, &err));
    memcpy(out, fr_session_logits(s), 1024 * sizeof *out);
    fr_session_close(s);
}

/* One by one, in two pieces, and over a prefix that was reused. */
static void test_same_logits(void **state)
{
    (void)state;
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16};
    fr_err err = {0};
    for (int model = 0; model < 2; model++)
        for (int mla = 0; mla <= 3; mla++)
            for (int t = 0; t < 2; t++) {
                fr_engine_config cfg = logits_config(model ? MODEL_V2LITE : MODEL_V3);
                cfg.mla = (fr_mla_mode)mla;
                cfg.type_k = cfg.type_v = types[t];
                fr_engine *e = open_engine(cfg);
                float whole[1024];
                batch_logits(e, whole);

                fr_session *s = open_session(e);
                for (size_t i = 0; i < ids.n; i++)
                    assert_ok(fr_session_append(s, &ids.ids[i], 1, &err));
                assert_true(logits_distance(fr_session_logits(s), whole, 1024) <= 1e-5);

                /* Another text with the first half in common, then back. */
                int64_t n = (int64_t)ids.n, half = n / 2, reused = -1;
                int32_t other[256];
                memcpy(other, ids.ids, ids.n * sizeof *other);
                for (int64_t i = half; i < n; i++)
                    other[i] = (other[i] + 1) % 1024;
                assert_ok(fr_session_sync(s, other, n, &reused, &err));
                assert_int_equal(reused, half);
                assert_true(logits_distance(fr_session_logits(s), whole, 1024) > 1e-2);
                assert_ok(fr_session_sync(s, ids.ids, n, &reused, &err));
                assert_int_equal(reused, half);
                assert_true(logits_distance(fr_session_logits(s), whole, 1024) <= 1e-5);

                /* The same text again costs nothing; a shorter one computes its last token. */
                assert_ok(fr_session_sync(s, ids.ids, n, &reused, &err));
                assert_int_equal(reused, n);
                assert_ok(fr_session_sync(s, ids.ids, n - 5, &reused, &err));
                assert_int_equal(reused, n - 6);
                fr_session_close(s);
                fr_engine_close(e);
            }
}

static void test_same_bits_for_any_threads(void **state)
{
    (void)state;
    static const char *const models[] = {MODEL_V3, MODEL_V2LITE, MODEL_KJV};
    for (int m = 0; m < 3; m++) {
        fr_engine_config cfg = logits_config(models[m]);
        cfg.n_threads = 1;
        size_t n = ids.n * (m == 2 ? 4096 : 1024);
        float *one = logits_run(&cfg, &ids);
        for (int threads = 2; threads <= 5; threads++) {
            cfg.n_threads = threads;
            cfg.n_threads_batch = threads == 5 ? 3 : 0;
            float *many = logits_run(&cfg, &ids);
            assert_memory_equal(one, many, n * sizeof *one);
            free(many);
        }
        free(one);
    }
}

static void test_limits(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine_config cfg = logits_config(MODEL_V3);
    cfg.n_ctx = 50;
    cfg.all_logits = false;
    fr_engine *e = open_engine(cfg);
    fr_session *s = open_session(e);
    assert_null(fr_session_logits(s));
    assert_int_equal(fr_session_append(s, ids.ids, 51, &err), FR_ERANGE);
    assert_non_null(strstr(err.text, "51"));
    assert_int_equal(fr_session_append(s, ids.ids, 0, &err), FR_EINVAL);
    int32_t bad[] = {1, 1024};
    assert_int_equal(fr_session_append(s, bad, 2, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "1024"));
    bad[1] = -1;
    assert_int_equal(fr_session_append(s, bad, 2, &err), FR_EINVAL);
    assert_int_equal(fr_session_append_all(s, ids.ids, 2, NULL, NULL, &err), FR_EINVAL);
    assert_ok(fr_session_append(s, ids.ids, 50, &err));
    assert_int_equal(fr_session_append(s, ids.ids, 1, &err), FR_ERANGE);
    int64_t n;
    assert_memory_equal(fr_session_tokens(s, &n), ids.ids, 50 * sizeof *ids.ids);
    assert_int_equal(n, 50);
    fr_session_close(s);
    fr_engine_close(e);
}

static void test_bad_configs(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine *e = NULL;
    fr_engine_config cfg = logits_config(MODEL_V3);
    cfg.n_ubatch = 0;
    assert_int_equal(fr_engine_open(&cfg, &e, &err), FR_ERANGE);
    cfg = logits_config(NULL);
    assert_int_equal(fr_engine_open(&cfg, &e, &err), FR_EINVAL);
    cfg = logits_config("/nowhere/model.gguf");
    assert_int_equal(fr_engine_open(&cfg, &e, &err), FR_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nowhere/model.gguf"));
    cfg = logits_config(MODEL_V3);
    cfg.kv_window = 7;
    assert_int_equal(fr_engine_open(&cfg, &e, &err), FR_ERANGE);
    cfg = logits_config(TEST_FILE("data/tokenize/kjv-gpt-2.vocab.gguf")); /* a vocabulary only */
    assert_int_not_equal(fr_engine_open(&cfg, &e, &err), FR_OK);
    assert_true(err.text[0] != 0);
    assert_null(e);
}

static fr_status cancel_second(void *user, int64_t pos, int64_t n_rows, const float *logits,
                               fr_err *err)
{
    (void)n_rows, (void)logits, (void)err;
    if (pos > 0)
        fr_session_cancel(user);
    return FR_OK;
}

static void test_cancel(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine_config cfg = logits_config(MODEL_V3);
    cfg.n_ubatch = 10;
    cfg.type_k = FR_TYPE_F32; /* a rounded cache has no exact window left after cancelling */
    fr_engine *e = open_engine(cfg);
    fr_session *s = open_session(e);
    assert_int_equal(fr_session_append_all(s, ids.ids, 60, cancel_second, s, &err), FR_ECANCELLED);
    int64_t n;
    fr_session_tokens(s, &n);
    assert_int_equal(n, 20); /* whole ubatches stay */
    assert_null(fr_session_logits(s));

    /* It goes on unharmed. */
    float whole[1024];
    batch_logits(e, whole);
    assert_ok(fr_session_sync(s, ids.ids, (int64_t)ids.n, NULL, &err));
    assert_true(logits_distance(fr_session_logits(s), whole, 1024) <= 1e-5);
    fr_session_close(s);
    fr_engine_close(e);
}

static void test_no_allocation_per_token(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine *e = open_engine(logits_config(MODEL_KJV));
    fr_session *s = open_session(e);
    assert_ok(fr_session_append(s, ids.ids, 40, &err));
    uint64_t before = fr_mem_total().n_allocs;
    assert_ok(fr_session_append(s, ids.ids, 40, &err));
    for (int i = 0; i < 20; i++)
        assert_ok(fr_session_append(s, &ids.ids[i], 1, &err));
    assert_int_equal(fr_mem_total().n_allocs, before);
    fr_session_close(s);
    fr_engine_close(e);
}

static double cells_seconds(const fr_profile *p, const fr_profile_phase *phase)
{
    double sum = 0;
    for (int64_t i = 0; i < (p->n_layer + 1) * FR_PROFILE_COUNT; i++) {
        const fr_profile_cell *c = &phase->cells[i];
        assert_true(c->wall >= 0 && c->busy <= c->wall * phase->n_threads * 1.001 + 1e-5);
        sum += c->wall;
    }
    return sum;
}

/* Measuring changes no bit and takes no memory per token; what was measured adds up. */
static void test_profile(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine_config cfg = logits_config(MODEL_KJV);
    cfg.n_threads = 3;
    fr_engine *e = open_engine(cfg);
    fr_session *s = open_session(e);
    assert_null(fr_engine_profiled(e));
    assert_ok(fr_session_append(s, ids.ids, 40, &err));
    assert_ok(fr_session_append(s, ids.ids, 1, &err));
    float plain[4096];
    memcpy(plain, fr_session_logits(s), sizeof plain);
    fr_session_truncate(s, 0);

    assert_ok(fr_engine_profile(e, true, &err));
    uint64_t before = fr_mem_total().n_allocs;
    assert_ok(fr_session_append(s, ids.ids, 40, &err));
    assert_ok(fr_session_append(s, ids.ids, 1, &err));
    assert_int_equal(fr_mem_total().n_allocs, before);
    assert_memory_equal(fr_session_logits(s), plain, sizeof plain);
    const fr_profile *p = fr_engine_profiled(e);
    static const int64_t tokens[] = {[FR_PROFILE_BATCH] = 40, [FR_PROFILE_SINGLE] = 1};
    for (int i = 0; i < 2; i++) {
        const fr_profile_phase *phase = &p->phases[i];
        assert_int_equal(phase->n_steps, 1);
        assert_int_equal(phase->n_tokens, tokens[i]);
        assert_int_equal(phase->n_threads, 3);
        double sum = cells_seconds(p, phase);
        assert_true(sum > 0 && sum <= phase->seconds * 1.001 + 1e-5);
        const fr_profile_cell *last = phase->cells + (p->n_layer - 1) * FR_PROFILE_COUNT;
        assert_in_range(phase->n_jobs, i == FR_PROFILE_BATCH, 100 * (p->n_layer + 1));
        assert_true(last[FR_PROFILE_CORE].n == 1 && last[FR_PROFILE_EXPERTS_DOWN].wall > 0);
    }
    assert_ok(fr_engine_profile(e, false, &err));
    assert_null(fr_engine_profiled(e));
    fr_session_close(s);
    fr_engine_close(e);
}

/* What the engine says it needs is what it takes. */
static void test_memory_as_described(void **state)
{
    (void)state;
    for (int mla = 0; mla <= 3; mla++) {
        fr_engine_config cfg = logits_config(MODEL_V3);
        cfg.mla = (fr_mla_mode)mla;
        fr_engine *e = open_engine(cfg);
        fr_session *s = open_session(e);
        fr_engine_info i = fr_engine_describe(e);
        assert_int_equal(fr_mem_tag_stats(FR_MEM_KV).bytes_now, i.kv_bytes);
        assert_int_equal(fr_mem_tag_stats(FR_MEM_DERIVED).bytes_now, i.derived_bytes);
        assert_int_equal(fr_mem_tag_stats(FR_MEM_WORKSPACE).bytes_now,
                         i.workspace_bytes + i.logits_bytes);
        fr_session_close(s);
        fr_engine_close(e);
        assert_int_equal(fr_mem_total().bytes_now, ids.cap * sizeof *ids.ids);
    }
}

/* A depth that was not computed: tokens and rows follow one another as they were, in every kind of
 * cache, and what is computed next starts from there. */
static void test_repeat(void **state)
{
    (void)state;
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_Q8_0};
    fr_err err = {0};
    for (int mla = 0; mla <= 1; mla++)
        for (int t = 0; t < 3; t++) {
            fr_engine_config cfg = logits_config(MODEL_V3);
            cfg.mla = (fr_mla_mode)mla;
            cfg.type_k = cfg.type_v = types[t];
            cfg.kv_window = 32;
            cfg.n_ctx = 256;
            fr_engine *e = open_engine(cfg);
            fr_session *s = open_session(e);
            int64_t n = 0;
            assert_int_equal(fr_session_repeat(s, 8, &err), FR_EINVAL);
            assert_ok(fr_session_append(s, ids.ids, 40, &err));
            assert_int_equal(fr_session_repeat(s, 39, &err), FR_EINVAL);
            assert_int_equal(fr_session_repeat(s, 257, &err), FR_ERANGE);
            assert_ok(fr_session_repeat(s, 40, &err));
            assert_ok(fr_session_repeat(s, 210, &err));
            assert_null(fr_session_logits(s));
            const int32_t *tokens = fr_session_tokens(s, &n);
            assert_int_equal(n, 210);
            for (int64_t i = 0; i < n; i++)
                assert_int_equal(tokens[i], ids.ids[i % 40]);
            assert_ok(fr_session_append(s, ids.ids, 30, &err));
            float once[1024];
            memcpy(once, fr_session_logits(s), sizeof once);
            for (int i = 0; i < 1024; i++)
                assert_true(isfinite(once[i]));
            fr_session_truncate(s, 40); /* what was computed is still there */
            assert_ok(fr_session_append(s, ids.ids + 40, 1, &err));
            fr_session *plain = open_session(e);
            assert_ok(fr_session_append(plain, ids.ids, 40, &err));
            assert_ok(fr_session_append(plain, ids.ids + 40, 1, &err));
            assert_true(logits_distance(fr_session_logits(s), fr_session_logits(plain), 1024) <=
                        (t == 2 ? 5e-2 : 2e-3));
            fr_session_close(plain);
            fr_session_close(s);
            fr_engine_close(e);
        }
}

/* Of rows of known bytes, layer by layer. */
static void test_repeated_rows(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_kv_layout l = {
        .n_layer = 2, .k = {FR_TYPE_F16, 3, 3, 2, 6}, .v = {FR_TYPE_F16, 2, 2, 2, 4}, .window = 0};
    fr_kv *kv;
    assert_ok(fr_kv_open(&l, 23, NULL, &kv, &err));
    for (int il = 0; il < 2; il++) {
        for (int i = 0; i < 23 * 12; i++)
            fr_kv_k(kv, il)[i] = i < 7 * 12 ? (uint8_t)(100 * il + i) : 255;
        for (int i = 0; i < 23 * 8; i++)
            fr_kv_v(kv, il)[i] = i < 7 * 8 ? (uint8_t)(10 * il + i) : 254;
    }
    fr_kv_appended(kv, 0, 7);
    fr_kv_repeat(kv, 7, 22);
    for (int il = 0; il < 2; il++) {
        for (int i = 0; i < 22 * 12; i++)
            assert_int_equal(fr_kv_k(kv, il)[i], (uint8_t)(100 * il + i % (7 * 12)));
        for (int i = 0; i < 22 * 8; i++)
            assert_int_equal(fr_kv_v(kv, il)[i], (uint8_t)(10 * il + i % (7 * 8)));
        assert_int_equal(fr_kv_k(kv, il)[22 * 12], 255); /* beyond: untouched */
        assert_int_equal(fr_kv_v(kv, il)[22 * 8], 254);
    }
    fr_kv_close(kv);
}

enum { N_TOGETHER = 5, N_STEPS = 12 };

/* The logits of sessions of different lengths after steps of one token each; most = 0: one after
 * the other. */
static void step_logits(fr_engine_config cfg, int64_t most, float out[N_TOGETHER][1024])
{
    fr_err err = {0};
    fr_session *s[N_TOGETHER];
    int32_t tokens[N_TOGETHER];
    cfg.n_seq = most;
    fr_engine *e = open_engine(cfg);
    for (int i = 0; i < N_TOGETHER; i++) {
        s[i] = open_session(e);
        assert_ok(fr_session_append(s[i], ids.ids + i, 3 + 17 * i, &err));
    }
    for (int step = 0; step < N_STEPS; step++) {
        for (int i = 0; i < N_TOGETHER; i++)
            tokens[i] = ids.ids[5 * i + step];
        if (most)
            assert_ok(fr_engine_step(e, s, tokens, N_TOGETHER, &err));
        for (int i = 0; !most && i < N_TOGETHER; i++)
            assert_ok(fr_session_append(s[i], &tokens[i], 1, &err));
    }
    for (int i = 0; i < N_TOGETHER; i++) {
        int64_t n;
        const int32_t *held = fr_session_tokens(s[i], &n);
        assert_int_equal(n, 3 + 17 * i + N_STEPS);
        assert_int_equal(held[n - 1], ids.ids[5 * i + N_STEPS - 1]);
        assert_int_equal(fr_session_timing(s[i]).n_single_tokens, N_STEPS);
        memcpy(out[i], fr_session_logits(s[i]), sizeof out[i]);
        fr_session_close(s[i]);
    }
    fr_engine_close(e);
}

/* Sessions that are computed together get what each would get alone. */
static void test_together(void **state)
{
    (void)state;
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_Q8_0};
    static float alone[N_TOGETHER][1024], together[N_TOGETHER][1024];
    for (int model = 0; model < 2; model++)
        for (int mla = 0; mla <= 3; mla++)
            for (int t = 0; t < 3; t++) {
                fr_engine_config cfg = logits_config(model ? MODEL_V2LITE : MODEL_V3);
                cfg.mla = (fr_mla_mode)mla;
                cfg.type_k = cfg.type_v = types[t];
                cfg.kv_window = 32;
                cfg.n_threads = 2;
                step_logits(cfg, 0, alone);
                for (int64_t most = 1; most <= 8; most += most < 2 ? 1 : 3) {
                    step_logits(cfg, most, together);
                    for (int i = 0; i < N_TOGETHER; i++)
                        assert_memory_equal(together[i], alone[i], sizeof alone[i]);
                }
            }
}

/* A copy goes on as the original does; what cannot be computed together is refused. */
static void test_copy_and_refusals(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine_config cfg = logits_config(MODEL_V3);
    cfg.n_seq = 4;
    cfg.kv_window = 32;
    cfg.n_ctx = 64;
    fr_engine *e = open_engine(cfg), *other = open_engine(cfg);
    fr_session *a = open_session(e), *b = open_session(e), *far = open_session(other);
    assert_ok(fr_session_append(a, ids.ids, 50, &err));
    assert_ok(fr_session_copy(b, a, &err));
    assert_null(fr_session_logits(b));
    fr_session *both[] = {a, b}, *same[] = {a, a}, *apart[] = {a, far};
    const int32_t tokens[] = {5, 5}, wrong[] = {5, 1 << 20};
    assert_int_equal(fr_engine_step(e, same, tokens, 2, &err), FR_EINVAL);
    assert_int_equal(fr_engine_step(e, apart, tokens, 2, &err), FR_EINVAL);
    assert_int_equal(fr_engine_step(e, both, wrong, 2, &err), FR_EINVAL);
    assert_int_equal(fr_engine_step(e, both, tokens, 0, &err), FR_EINVAL);
    assert_int_equal(fr_session_copy(far, a, &err), FR_EINVAL);
    uint64_t before = fr_mem_total().n_allocs;
    for (int i = 0; i < 14; i++)
        assert_ok(fr_engine_step(e, both, tokens, 2, &err));
    assert_int_equal(fr_mem_total().n_allocs, before);
    assert_memory_equal(fr_session_logits(a), fr_session_logits(b), 1024 * sizeof(float));
    assert_int_equal(fr_engine_step(e, both, tokens, 2, &err), FR_ERANGE);
    fr_engine_info i = fr_engine_describe(e);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_WORKSPACE).bytes_now,
                     2 * i.workspace_bytes + 3 * i.logits_bytes);
    assert_true(i.planned.workspace >= i.workspace_bytes + i.logits_bytes);
    fr_session_close(a);
    fr_session_close(b);
    fr_session_close(far);
    fr_engine_close(e);
    fr_engine_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_logits), cmocka_unit_test(test_same_bits_for_any_threads),
        cmocka_unit_test(test_limits),      cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_cancel),      cmocka_unit_test(test_no_allocation_per_token),
        cmocka_unit_test(test_profile),     cmocka_unit_test(test_memory_as_described),
        cmocka_unit_test(test_repeat),      cmocka_unit_test(test_repeated_rows),
        cmocka_unit_test(test_together),    cmocka_unit_test(test_copy_and_refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
