/* Streamed experts in the simulator's virtual time: they travel while GPUs compute, and over all
 * links at once. The speed of links is a setting, so the figures are the same on any machine. */
#include "testing.h"

#include "support/hybrid.h"
#include "support/models.h"
#include "support/run_logits.h"

enum { N_TOKENS = 40 };

static const hybrid_shape alone = {"streamed", 1, -1, {0}, NULL, -1, false, true};
static const hybrid_shape three = {"streamed to three", 3, -1, {1, 0, 0}, NULL, -1, false, true};
static const hybrid_shape resident = {"resident", 1, -1, {0}, NULL, 0, false, false};

static fr_status ignore(void *user, int64_t pos, int64_t n_rows, const float *logits, fr_err *err)
{
    (void)user, (void)pos, (void)n_rows, (void)logits, (void)err;
    return FR_OK;
}

/* Microseconds of a batch of which all logits are wanted, after one that was not counted. */
static double batch_us(const hybrid_shape *shape, const char *settings)
{
    fr_err err = {0};
    fr_engine *e;
    fr_session *s;
    hybrid_machine machine;
    fr_tokens ids = logits_read_ids(TEST_FILE("data/logits/ids.txt"));
    fr_engine_config cfg = logits_config(MODEL_V3);
    cfg.n_ctx = 128;
    cfg.n_ubatch = N_TOKENS;
    assert_ok(fr_gpu_sim_configure(settings, &err));
    hybrid_place(&cfg, shape, true, &machine);
    assert_ok(fr_engine_open(&cfg, &e, &err));
    assert_ok(fr_session_open(e, &s, &err));
    assert_ok(fr_session_append_all(s, ids.ids, N_TOKENS, ignore, NULL, &err));
    double start = fr_gpu_sim_now_us();
    assert_ok(fr_session_append_all(s, ids.ids, N_TOKENS, ignore, NULL, &err));
    double us = fr_gpu_sim_now_us() - start;
    fr_session_close(s);
    fr_engine_close(e);
    fr_tokens_free(&ids);
    return us;
}

static double with_links_of(const hybrid_shape *shape, int n_gpus, int gbs)
{
    char settings[128];
    snprintf(settings, sizeof settings, "devices=%d,mb=64,seed=5,timing=1,copy_us=0,h2d_gbs=%d",
             n_gpus, gbs);
    return batch_us(shape, settings);
}

/* With links for nothing a batch takes what its kernels take; with links as slow as those, much of
 * one hides behind the other (attention and the first expert cannot). */
static void test_overlap(void **state)
{
    (void)state;
    if (!fr_gpu_sim())
        skip();
    double compute = with_links_of(&alone, 1, 1000000);
    double travel = 2 * (with_links_of(&alone, 1, 1) - with_links_of(&alone, 1, 2)); /* 1 GB/s */
    int even = (int)(travel / compute + 0.5);
    double both = with_links_of(&alone, 1, even), sum = compute + travel / even;
    print_message("kernels %.0f us, links %.0f us: together %.0f us\n", compute, travel / even,
                  both);
    double hidden = sum - both, most = compute < travel / even ? compute : travel / even;
    assert_true(even >= 1);
    assert_true(hidden > 0.4 * most);
}

static void test_all_links(void **state)
{
    (void)state;
    if (!fr_gpu_sim())
        skip();
    double rest = with_links_of(&resident, 1, 1);
    double one = with_links_of(&alone, 1, 1) - rest, all = with_links_of(&three, 3, 1) - rest;
    print_message("bound by links: one GPU %.0f us, three %.0f us\n", one, all);
    assert_true(all < 0.5 * one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_all_links),
    };
    hybrid_log_errors();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
