/* Hybrid engines against outside truth: the logits of an independent reference (data/logits), on
 * simulated GPUs. test_hybrid has more placements, against the CPU. */
#include "testing.h"

#include <stdlib.h>

#include "support/hybrid.h"
#include "support/models.h"
#include "support/run_logits.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STEP = 4 }; /* they take many times as long */
#else
enum { STEP = 1 };
#endif

static const hybrid_shape shapes[] = {
    {"all on a GPU", 1, -1, {0}, NULL, 0, false, false},
    {"cpu-moe, streamed to three GPUs", 3, -1, {1, 1, 1}, NULL, -1, false, true},
    {"experts sliced",
     3,
     -1,
     {1, 0, 0},
     "_exps=CUDA1[0-2],_exps=CPU[3-4],exps=CUDA2",
     0,
     false,
     false},
    {"up and gate in RAM", 2, -1, {1, 1}, "ffn_(up|gate)_exps=CPU", 0, false, false},
    {"KV in RAM", 2, -1, {1, 1}, NULL, 0, true, false},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static float *run_on(const char *model, const fr_tokens *ids, const hybrid_shape *shape,
                     fr_mla_mode mla)
{
    fr_err err = {0};
    hybrid_machine machine;
    fr_engine_config cfg = logits_config(model);
    cfg.mla = mla;
    assert_ok(fr_gpu_sim_configure("devices=3,mb=64,seed=1", &err));
    hybrid_place(&cfg, shape, true, &machine);
    return logits_run(&cfg, ids);
}

static void compare(const char *what, const hybrid_shape *shape, const float *got,
                    const float *want, size_t n, double bound)
{
    double d = logits_distance(got, want, n);
    print_message("%s, %s: %.2g\n", what, shape->name, d);
    if (!(d <= bound))
        fail_msg("%s, %s: relative distance %.3g, expected at most %g", what, shape->name, d,
                 bound);
}

static void check(const char *model, const char *ids_file, const char *reference, int from,
                  double bound)
{
    size_t n;
    fr_tokens ids = logits_read_ids(ids_file);
    float *want = logits_read_f32(reference, &n);
    for (int i = from; i < N_SHAPES; i += STEP) {
        float *got = run_on(model, &ids, &shapes[i], (fr_mla_mode)(i % 4));
        compare(strrchr(reference, '/') + 1, &shapes[i], got, want, n, bound);
        free(got);
    }
    free(want);
    fr_tokens_free(&ids);
}

static void test_references(void **state)
{
    (void)state;
    if (!fr_gpu_sim())
        skip();
    fr_err err = {0};
    const char *ids = TEST_FILE("data/logits/ids.txt");
    const char *groups = model_temp_path("groups.gguf");
    assert_ok(model_write_variant(MODEL_V3, &(model_variant){.groups = true}, groups, &err));
    check(MODEL_V3, ids, TEST_FILE("data/logits/v3.logits.f32"), 0, 2e-3);
    check(groups, ids, TEST_FILE("data/logits/v3-groups.logits.f32"), 1, 2e-3);
    check(MODEL_V2LITE, ids, TEST_FILE("data/logits/v2lite.logits.f32"), 2, 2e-3);
}

/* The demo model is q8_0, its reference comes from its f16 file. Where GPUs compute every product,
 * none rounds what it multiplies weights with: the placements then agree as exact models do. */
static void test_quantized(void **state)
{
    (void)state;
    if (!fr_gpu_sim())
        skip();
    size_t n;
    fr_tokens ids = logits_read_ids(TEST_FILE("data/logits/kjv.ids.txt"));
    float *want = logits_read_f32(TEST_FILE("data/logits/kjv.logits.f32"), &n);
    static const hybrid_shape spread = {"experts sliced over GPUs",    3, -1,    {1, 1, 1},
                                        "_exps=CUDA1[0-2],exps=CUDA2", 0, false, false};
    float *one = run_on(MODEL_KJV, &ids, &shapes[0], FR_MLA_AUTO);
    compare("demo, f16 reference", &shapes[0], one, want, n, 2e-2);
    for (int i = 0; i < (STEP > 1 ? 1 : 2); i++) {
        const hybrid_shape *shape = i == 0 ? &spread : &shapes[1];
        float *other = run_on(MODEL_KJV, &ids, shape, FR_MLA_AUTO);
        compare("demo, one GPU", shape, other, one, n, 2e-3);
        free(other);
    }
    free(one);
    free(want);
    fr_tokens_free(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_quantized),
    };
    hybrid_log_errors();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
