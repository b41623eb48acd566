/* Hybrid engines when something fails: what does not fit or is not there, GPU calls that fail at
 * any moment, lost devices, memory that cannot be had, cancelling. Each is an error with a text,
 * nothing stays behind, and the next engine works. */
#include "testing.h"

#include "base/log.h"
#include "support/hybrid.h"
#include "support/models.h"
#include "support/run_logits.h"
#include "support/tiny_models.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

enum { N_IDS = 34 };

/* Layers on two GPUs, experts on one, in RAM, and streamed. */
static const hybrid_shape mixed = {"mixed", 2,     -1,  {1, 1}, "_exps=CUDA0[0-2],exps=CPU",
                                   0,       false, true};

static char path[256];
static int32_t ids[N_IDS];
static hybrid_outcome whole; /* of `mixed`, undisturbed */

static void gpus(const char *settings)
{
    char text[160];
    fr_err err = {0};
    snprintf(text, sizeof text, "devices=%d,mb=%d,seed=1,%s", HYBRID_GPUS, HYBRID_GPU_MIB,
             settings);
    assert_ok(fr_gpu_sim_configure(text, &err));
}

static const char calm[] = "lazy=0,fail_alloc=0,fail_copy=0,fail_launch=0,lose=0";

static fr_engine_config config(hybrid_machine *machine)
{
    fr_engine_config cfg = logits_config(path);
    cfg.n_ctx = 64;
    hybrid_place(&cfg, &mixed, true, machine);
    return cfg;
}

static int setup(void **state)
{
    (void)state;
    fr_err err = {0};
    hybrid_machine machine;
    gguf_parts parts = tiny_v3();
    snprintf(path, sizeof path, "%s", model_temp_path("tiny.gguf"));
    parts_save(&parts, path);
    parts_free(&parts);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = 3 + (i * 37 + i * i) % 60;
    fr_engine_config cfg = config(&machine);
    gpus(calm);
    assert_ok(hybrid_run(&cfg, ids, N_IDS, &whole, NULL, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(whole.logits);
    return 0;
}

/* All that was taken is given back, in RAM and on the GPUs. */
static void assert_nothing_left(size_t ram, const char *what)
{
    fr_err err = {0};
    if (fr_mem_total().bytes_now != ram)
        fail_msg("%s: %zd bytes of RAM left behind", what,
                 (ssize_t)(fr_mem_total().bytes_now - ram));
    for (int i = 0; i < HYBRID_GPUS; i++) {
        fr_gpu_info info;
        assert_ok(fr_gpu_sim()->device_info(i, &info, &err));
        if (info.free_bytes != info.total_bytes)
            fail_msg("%s: %llu bytes of GPU %d left behind", what,
                     (unsigned long long)(info.total_bytes - info.free_bytes), i);
    }
}

/* The next engine is unharmed. */
static void assert_works(const char *what)
{
    fr_err err = {0};
    hybrid_machine machine;
    hybrid_outcome out;
    fr_engine_config cfg = config(&machine);
    if (hybrid_run(&cfg, ids, N_IDS, &out, NULL, &err) != FR_OK)
        fail_msg("after %s: %s", what, err.text);
    if (memcmp(out.logits, whole.logits, whole.n * sizeof *whole.logits) != 0)
        fail_msg("after %s: other logits than before", what);
    free(out.logits);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static void refuse(const fr_engine_config *cfg, fr_status status, const char *const *texts)
{
    fr_err err = {0};
    fr_engine *e = NULL;
    size_t ram = fr_mem_total().bytes_now;
    assert_int_equal(fr_engine_open(cfg, &e, &err), status);
    assert_null(e);
    for (; *texts; texts++)
        if (!strstr(err.text, *texts))
            fail_msg("found '%s', expected it to say '%s'", err.text, *texts);
    assert_nothing_left(ram, err.text);
    assert_works(err.text);
}

static void test_refusals(void **state)
{
    (void)state;
    hybrid_machine m;
    fr_engine_config cfg = config(&m);
    m.hw.gpus[1].vram_bytes = 1 << 14;
    refuse(&cfg, FR_ENOMEM,
           (const char *[]){"the model does not fit with a context of 64", "CUDA1 needs",
                            "what would help:", NULL});
    cfg = config(&m);
    m.hw.gpus[1].device = HYBRID_GPUS;
    snprintf(m.hw.gpus[1].name, sizeof m.hw.gpus[1].name, "RTX 3090");
    refuse(&cfg, FR_ENOTFOUND,
           (const char *[]){"GPU 1 (RTX 3090): the plan puts ", " on device 3, ",
                            "the machine has 3 devices", "--device none", NULL});
    cfg = config(&m);
    hybrid_shape all_cards = mixed;
    all_cards.rules = "exps=CUDA5";
    cfg.place.rules_user = &all_cards;
    refuse(&cfg, FR_EINVAL, (const char *[]){"exps=CUDA5", NULL});
    cfg = config(&m);
    cfg.place.sim = "3x64GiB";
    refuse(&cfg, FR_EINVAL, (const char *[]){"3x64GiB", "expected like '3x256MiB'", NULL});
    cfg = config(&m);
    cfg.place.sim = NULL; /* real ones: there are none, or not so many */
    m.hw.gpus[0].device = m.hw.gpus[1].device = 63;
    refuse(&cfg, FR_ENOTFOUND, (const char *[]){"GPU 0 (GPU 0): the plan puts ", NULL});
}

/* The plan counts on memory that the GPU does not have. */
static void test_small_gpu(void **state)
{
    (void)state;
    hybrid_machine m;
    fr_err err = {0};
    fr_engine *e = NULL;
    fr_engine_config cfg = config(&m);
    assert_ok(fr_gpu_sim_configure("mb=1", &err));
    assert_int_equal(fr_engine_open(&cfg, &e, &err), FR_ENOMEM);
    assert_non_null(strstr(err.text, "GPU 0 (GPU 0): the plan puts "));
    assert_non_null(strstr(err.text, "1.0 MiB free of 1.0 MiB"));
    gpus(calm);
    assert_works("a small GPU");
}

/* Engines share the simulated GPUs, and none may change them under another. */
static void test_two_engines(void **state)
{
    (void)state;
    hybrid_machine m;
    fr_err err = {0};
    fr_engine *e = NULL, *other = NULL;
    fr_engine_config cfg = config(&m);
    cfg.place.sim = "3x64MiB";
    assert_ok(fr_engine_open(&cfg, &e, &err));
    fr_engine_config second = cfg;
    assert_ok(fr_engine_open(&second, &other, &err));
    fr_engine_close(other);
    second.place.sim = "2x64MiB";
    assert_int_equal(fr_engine_open(&second, &other, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "expected '3x64MiB', which another engine uses"));
    fr_engine_close(e);
    assert_works("two engines");
}

/* ---- faults ------------------------------------------------------------------------------------
 */

/* Whole lives with the n-th operation failing, for growing n, until none fails any more. */
static void walk(const char *fault, const char *mode)
{
    fr_err err = {0};
    hybrid_machine machine;
    fr_engine_config cfg = config(&machine);
    size_t ram = fr_mem_total().bytes_now;
    int n_failed = 0;
    fr_status st = FR_EIO;
    for (int n = 1; st != FR_OK; n += 1 + n / (IS_SANITIZED ? 2 : 8)) {
        char settings[64];
        hybrid_outcome out;
        snprintf(settings, sizeof settings, "%s,%s=%d", mode, fault, n);
        gpus(calm);
        gpus(settings);
        err = (fr_err){0};
        st = hybrid_run(&cfg, ids, N_IDS, &out, NULL, &err);
        gpus(calm);
        if (st == FR_OK) {
            assert_memory_equal(out.logits, whole.logits, whole.n * sizeof *whole.logits);
            free(out.logits);
            break;
        }
        n_failed++;
        if (!err.text[0] || err.code != st || !strstr(err.text, "GPU "))
            fail_msg("%s: found %s '%s', expected it to name the GPU", settings, fr_status_name(st),
                     err.text);
        bool lost = strcmp(fault, "lose") == 0;
        for (int i = 0; lost && i < HYBRID_GPUS; i++)
            assert_ok(fr_gpu_sim()->device_reset(i, &err));
        assert_nothing_left(ram, settings);
        if (n_failed % 8 == 1)
            assert_works(settings);
    }
    assert_true(n_failed > 2);
    assert_works(fault);
    print_message("%s, %s: %d failures\n", fault, mode, n_failed);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    walk("fail_alloc", "lazy=0");
}

static void test_failing_copies(void **state)
{
    (void)state;
    walk("fail_copy", "lazy=0");
}

static void test_failing_launches(void **state)
{
    (void)state;
    walk("fail_launch", "lazy=0");
}

static void test_lost_devices(void **state)
{
    (void)state;
    walk("lose", "lazy=0");
    walk("lose", "lazy=1");
}

/* The engine itself clears a device that an earlier one lost. */
static void test_lost_before(void **state)
{
    (void)state;
    fr_err err = {0};
    hybrid_machine machine;
    hybrid_outcome out;
    fr_engine_config cfg = config(&machine);
    gpus("lose=40");
    assert_int_equal(hybrid_run(&cfg, ids, N_IDS, &out, NULL, &err), FR_EIO);
    gpus(calm);
    assert_works("a lost device");
}

/* Memory of the host that cannot be had, at every n-th allocation of a life. */
static void test_no_memory(void **state)
{
    (void)state;
    hybrid_machine machine;
    hybrid_outcome out;
    fr_err err = {0};
    fr_engine_config cfg = config(&machine);
    size_t ram = fr_mem_total().bytes_now;
    uint64_t allocs = fr_mem_total().n_allocs;
    assert_ok(hybrid_run(&cfg, ids, N_IDS, &out, NULL, &err));
    free(out.logits);
    allocs = fr_mem_total().n_allocs - allocs;
    uint64_t step = allocs / (IS_SANITIZED ? 20 : 100) + 1;
    for (uint64_t n = 1; n <= allocs; n += step) {
        err = (fr_err){0};
        fr_mem_fail_at(n, 0);
        fr_status st = hybrid_run(&cfg, ids, N_IDS, &out, NULL, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK)
            free(out.logits);
        else if (st != FR_ENOMEM || !err.text[0])
            fail_msg("allocation %llu: found %s '%s', expected ENOMEM", (unsigned long long)n,
                     fr_status_name(st), err.text);
        assert_nothing_left(ram, "no memory");
    }
    assert_works("no memory");
}

/* ---- cancelling --------------------------------------------------------------------------------
 */

static fr_status cancel_at(void *user, int64_t pos, int64_t n_rows, const float *logits,
                           fr_err *err)
{
    (void)n_rows;
    (void)logits;
    (void)err;
    if (pos == 12)
        fr_session_cancel(user);
    return FR_OK;
}

static void test_cancel(void **state)
{
    (void)state;
    hybrid_machine machine;
    fr_err err = {0};
    fr_engine *e = NULL;
    fr_session *s = NULL, *calm_one = NULL;
    fr_engine_config cfg = config(&machine);
    cfg.n_ubatch = 6;
    cfg.type_k = cfg.type_v = FR_TYPE_F32; /* what is computed again reads no rounded rows */
    assert_ok(fr_engine_open(&cfg, &e, &err));
    assert_ok(fr_session_open(e, &s, &err));
    int64_t n_vocab = fr_engine_describe(e).n_vocab, n;
    for (int i = 0; i < 3; i++) {
        fr_session_truncate(s, 0);
        assert_int_equal(fr_session_append_all(s, ids, N_IDS, cancel_at, s, &err), FR_ECANCELLED);
        fr_session_tokens(s, &n);
        assert_int_equal(n, 18);
        assert_null(fr_session_logits(s));
    }
    assert_ok(fr_session_sync(s, ids, N_IDS, NULL, &err));
    assert_ok(fr_session_open(e, &calm_one, &err));
    assert_ok(fr_session_append(calm_one, ids, N_IDS, &err));
    assert_true(
        logits_distance(fr_session_logits(s), fr_session_logits(calm_one), (size_t)n_vocab) < 1e-5);
    fr_session_close(calm_one);
    fr_session_close(s);
    fr_engine_close(e);
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
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_small_gpu),
        cmocka_unit_test(test_two_engines),    cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_failing_copies), cmocka_unit_test(test_failing_launches),
        cmocka_unit_test(test_lost_devices),   cmocka_unit_test(test_lost_before),
        cmocka_unit_test(test_no_memory),      cmocka_unit_test(test_cancel),
    };
    fr_log_set_sink(no_log, NULL);
    if (!fr_gpu_sim()) {
        print_message("this build has no simulated GPUs\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
