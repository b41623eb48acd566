/* Hybrid engines: whatever part of a model lives on whichever simulated GPU (and on parts of a real
 * one, where there is one), logits agree with the CPU's and the most probable tokens are the same;
 * no GPU gets more than the plan said. */
#include "testing.h"

#include "support/hybrid.h"
#include "support/models.h"
#include "support/run_logits.h"
#include "support/tiny_models.h"

/* Sanitized builds take many times as long: a selection; race mode a small one. */
#if defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1, IS_RACE_MODE = 1 };
#elif defined(__SANITIZE_ADDRESS__)
enum { IS_SANITIZED = 1, IS_RACE_MODE = 0 };
#else
enum { IS_SANITIZED = 0, IS_RACE_MODE = 0 };
#endif

/* ---- models and shapes -------------------------------------------------------------------------
 */

typedef struct {
    const char *name, *source;
    gguf_parts (*tiny)(void); /* makes the model, instead of source; with float weights */
    int64_t n_ids;            /* tokens to compute; 34: enough for streaming */
    bool rounded; /* the weights are quantized: the CPU then rounds what it multiplies with them, a
                     GPU does not, and random models differ by some percent */
    model_variant variant; /* all false: source itself */
} model_case;

static const model_case models[] = {
    {"tiny v3", NULL, tiny_v3, 34, false, {0}},
    {"tiny v2", NULL, tiny_v2, 34, false, {0}},
    {"tiny v2, quantized", NULL, tiny_v2, 34, true, {0}},
    {"v3", MODEL_V3, NULL, 34, false, {0}},
    {"v3-groups", MODEL_V3, NULL, 16, false, {.groups = true}},
    {"v3-splitkv", MODEL_V3, NULL, 16, false, {.split_kv_b = true}},
    {"v3-flatkv", MODEL_V3, NULL, 16, false, {.split_kv_b = true, .flat_k_b = true}},
    {"v3-bothkv", MODEL_V3, NULL, 16, false, {.split_kv_b = true, .keep_kv_b = true}},
    {"v3-q4",
     MODEL_V3,
     NULL,
     16,
     true,
     {.retype = true, .type = FR_TYPE_Q4_0, .layout = FR_LAYOUT_INTERLEAVED}},
    {"v2lite", MODEL_V2LITE, NULL, 34, false, {0}},
    {"demo", MODEL_KJV, NULL, 16, true, {0}},
};

enum { TINY_V3, TINY_V2, OTHERS, N_MODELS = sizeof models / sizeof *models };

static const hybrid_shape shapes[] = {
    {"all on a GPU", 1, -1, {0}, NULL, 0, false, false},
    {"all on two GPUs", 2, -1, {1, 1}, NULL, 0, false, false},
    {"all on three GPUs", 3, -1, {1, 1, 1}, NULL, 0, false, false},
    {"the last layer on a GPU", 1, 1, {0}, NULL, 0, false, false},
    {"the last layer and the output on two GPUs", 2, 2, {1, 1}, NULL, 0, false, false},
    {"cpu-moe", 1, -1, {0}, NULL, -1, false, false},
    {"cpu-moe, three GPUs", 3, -1, {2, 1, 1}, NULL, -1, false, false},
    {"cpu-moe, streamed", 1, -1, {0}, NULL, -1, false, true},
    {"cpu-moe, streamed to three GPUs", 3, -1, {1, 1, 1}, NULL, -1, false, true},
    {"n-cpu-moe", 2, -1, {1, 1}, NULL, 2, false, false},
    {"experts sliced", 1, -1, {0}, "blk\\.1\\.ffn_.*_exps=CUDA0[0-3],exps=CPU", 0, false, false},
    {"experts sliced, streamed",
     2,
     -1,
     {0},
     "_exps=CUDA0[0-1],_exps=CUDA1[3-5],exps=CPU",
     0,
     false,
     true},
    {"experts sliced over three GPUs",
     3,
     -1,
     {1, 0, 0},
     "_exps=CUDA1[0-2],_exps=CUDA2[3-5],_exps=CPU[6-6],exps=CUDA0",
     0,
     false,
     false},
    {"experts on GPUs, the rest in RAM", 2, 0, {0}, "_exps=CUDA0[0-3],exps=CUDA1", 0, false, false},
    {"down in RAM", 1, -1, {0}, "ffn_down_exps=CPU", 0, false, false},
    {"down in RAM, streamed", 1, -1, {0}, "ffn_down_exps=CPU", 0, false, true},
    {"up and gate in RAM", 2, -1, {1, 1}, "ffn_(up|gate)_exps=CPU", 0, false, false},
    {"up, gate and down apart",
     3,
     -1,
     {1, 0, 0},
     "ffn_up_exps=CUDA1,ffn_gate_exps=CUDA2,ffn_down_exps=CUDA0",
     0,
     false,
     false},
    {"attention and experts apart", 2, 0, {0}, "attn=CUDA0,exps=CUDA1", 0, false, false},
    {"attention in RAM, experts on a GPU", 1, 0, {0}, "attn=CPU,ffn=CUDA0", 0, false, false},
    {"parts of attention apart",
     2,
     -1,
     {1, 0},
     "attn_output=CUDA1,attn_kv_a_mqa=CPU,attn_norm=CPU",
     0,
     false,
     false},
    {"expansion apart", 2, -1, {1, 0}, "attn_(kv|k|v)_b=CUDA1", 0, false, false},
    {"router and shared experts apart",
     2,
     -1,
     {1, 0},
     "gate_inp=CPU,exp_probs=CPU,shexp=CUDA1,ffn_norm=CUDA1",
     0,
     false,
     false},
    {"output in RAM", 1, -1, {0}, "^output=CPU", 0, false, false},
    {"KV in RAM", 1, -1, {0}, NULL, 0, true, false},
    {"KV in RAM, two GPUs, cpu-moe", 2, -1, {1, 1}, NULL, -1, true, false},
    {"no GPU", 0, -1, {0}, NULL, 0, false, false},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static char paths[N_MODELS][256];
static int32_t ids[64];

static int setup(void **state)
{
    (void)state;
    fr_err err = {0};
    for (int i = 0; i < 64; i++)
        ids[i] = 3 + (i * 37 + i * i) % 60;
    for (int i = 0; i < N_MODELS; i++) {
        const model_case *c = &models[i];
        char file[64];
        snprintf(file, sizeof file, "%s.gguf", c->name);
        snprintf(paths[i], sizeof paths[i], "%s", model_temp_path(file));
        if (c->tiny) {
            gguf_parts parts = c->tiny();
            for (size_t t = 0; t < parts.n_tensors && !c->rounded; t++)
                if (parts.tensors[t].n_dims > 1)
                    parts_retype(&parts.tensors[t], FR_TYPE_F16, FR_LAYOUT_PLAIN);
            parts_save(&parts, paths[i]);
            parts_free(&parts);
        } else if (c->variant.groups || c->variant.split_kv_b || c->variant.retype) {
            assert_ok(model_write_variant(c->source, &c->variant, paths[i], &err));
        } else {
            snprintf(paths[i], sizeof paths[i], "%s", c->source);
        }
    }
    return 0;
}

/* ---- runs --------------------------------------------------------------------------------------
 */

/* What is varied besides the shape. */
typedef struct {
    int model;
    fr_mla_mode mla;
    int64_t n_ubatch;
    fr_type kv;
    int64_t kv_window;
} run_case;

static fr_engine_config config_of(const run_case *c)
{
    fr_engine_config cfg = logits_config(paths[c->model]);
    cfg.n_ctx = 64;
    cfg.n_ubatch = c->n_ubatch;
    cfg.mla = c->mla;
    cfg.type_k = cfg.type_v = c->kv;
    cfg.kv_window = c->kv_window;
    return cfg;
}

static bool same_case(const run_case *a, const run_case *b)
{
    return a->model == b->model && a->mla == b->mla && a->n_ubatch == b->n_ubatch &&
           a->kv == b->kv && a->kv_window == b->kv_window;
}

/* The CPU's outcome, kept for later cases. */
static const hybrid_outcome *on_cpu(const run_case *c)
{
    static struct {
        run_case c;
        hybrid_outcome out;
    } known[512];
    static size_t n_known;
    fr_err err = {0};
    for (size_t i = 0; i < n_known; i++)
        if (same_case(&known[i].c, c))
            return &known[i].out;
    assert_true(n_known < sizeof known / sizeof *known);
    fr_engine_config cfg = config_of(c);
    static const hybrid_shape none = {.name = "CPU"};
    hybrid_machine machine;
    hybrid_place(&cfg, &none, false, &machine);
    known[n_known].c = *c;
    assert_ok(hybrid_run(&cfg, ids, models[c->model].n_ids, &known[n_known].out, NULL, &err));
    return &known[n_known++].out;
}

/* Fresh simulated GPUs: their peak counts begin again. */
static void fresh_gpus(const char *settings)
{
    char text[160];
    fr_err err = {0};
    assert_ok(fr_gpu_sim_configure("devices=1,mb=1,lazy=0,eager=0,guard=0,order=0", &err));
    snprintf(text, sizeof text, "devices=%d,mb=%d,%s", HYBRID_GPUS, HYBRID_GPU_MIB, settings);
    assert_ok(fr_gpu_sim_configure(text, &err));
    assert_int_equal(fr_gpu_sim()->device_count(NULL), HYBRID_GPUS);
}

static const char *describe(const run_case *c, const hybrid_shape *s, const char *settings)
{
    static char text[256];
    snprintf(text, sizeof text, "%s, %s, -mla %d, -ub %d, KV %s, window %d, %s",
             models[c->model].name, s->name, (int)c->mla, (int)c->n_ubatch,
             fr_type_name(c->kv, FR_LAYOUT_PLAIN), (int)c->kv_window, settings);
    return text;
}

static double worst;
static int n_runs;

/* settings: of the simulator; NULL: the real GPU. */
static void check(const run_case *c, const hybrid_shape *s, const char *settings)
{
    fr_err err = {0};
    const hybrid_outcome *want = on_cpu(c);
    hybrid_outcome got;
    hybrid_machine machine;
    uint64_t planned[HYBRID_GPUS];
    fr_engine_config cfg = config_of(c);
    hybrid_place(&cfg, s, settings != NULL, &machine);
    if (settings)
        fresh_gpus(settings);
    const char *what = describe(c, s, settings ? settings : "real GPU");
    if (hybrid_run(&cfg, ids, models[c->model].n_ids, &got, planned, &err) != FR_OK)
        fail_msg("%s: %s", what, err.text);
    double d = logits_distance(got.logits, want->logits, want->n);
    worst = d > worst ? d : worst;
    n_runs++;
    double bound = models[c->model].rounded ? 2e-1 : 2e-3;
    if (!(d <= bound))
        fail_msg("%s: relative distance %.3g from the CPU, expected at most %g", what, d, bound);
    for (int i = 0; !models[c->model].rounded && i < HYBRID_GREEDY; i++)
        if (got.greedy[i] != want->greedy[i])
            fail_msg("%s: token %d after the text is %d, on the CPU %d", what, i, got.greedy[i],
                     want->greedy[i]);
    for (int i = 0; settings && i < HYBRID_GPUS; i++)
        if (fr_gpu_sim_peak_bytes(i) > planned[i])
            fail_msg("%s: GPU %d took %zu bytes, planned %llu", what, i, fr_gpu_sim_peak_bytes(i),
                     (unsigned long long)planned[i]);
    free(got.logits);
}

static bool has_sim(void)
{
    return fr_gpu_sim() != NULL;
}

static void report(void)
{
    print_message("%d runs, at most %.2g from the CPU\n", n_runs, worst);
    worst = 0;
    n_runs = 0;
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static const run_case plain = {TINY_V3, FR_MLA_AUTO, 7, FR_TYPE_F16, 256};

/* Every shape, with small batches and with one that is large enough for streaming. */
static void test_shapes(void **state)
{
    (void)state;
    for (int i = IS_RACE_MODE ? 2 : 0; has_sim() && i < N_SHAPES; i += IS_RACE_MODE ? 6 : 1)
        for (int k = 0; k < (IS_SANITIZED ? 1 : 2); k++) {
            run_case c = plain;
            c.model = k % 2 == i % 2 ? TINY_V3 : TINY_V2;
            c.n_ubatch = k == 0 ? 512 : 7;
            check(&c, &shapes[i], "seed=1");
        }
    report();
}

/* The models with known logits (test_logits has them), each with some of the shapes. */
static void test_models(void **state)
{
    (void)state;
    static const int chosen[] = {2, 8, 11, 14, 18, 21};
    for (int m = OTHERS; has_sim() && m < N_MODELS && !IS_RACE_MODE; m++)
        for (int i = 0; i < (IS_SANITIZED || models[m].variant.split_kv_b ? 1 : 2); i++) {
            run_case c = plain;
            c.model = m;
            c.n_ubatch = i % 2 ? 7 : 512;
            c.mla = (fr_mla_mode)((m + i) % 4);
            check(&c, &shapes[chosen[(2 * m + i) % 6]], "seed=1");
        }
    report();
}

/* Attention modes, batch sizes and KV types, each with several shapes; windows that end within the
 * text, so that rounded rows are read. */
static void test_modes(void **state)
{
    (void)state;
    static const int ubatches[] = {1, 7, 512}, windows[] = {256, 32, 0};
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_BF16, FR_TYPE_Q8_0};
    static const int chosen[] = {1, 4, 8, 17, 18, 21, 24, 25};
    int i = 0, step = IS_RACE_MODE ? 23 : IS_SANITIZED ? 7 : 1;
    for (int mla = 0; has_sim() && mla <= 3; mla++)
        for (int u = 0; u < 3; u++)
            for (int t = 0; t < 4; t++, i++) {
                run_case c = {i % 2 ? TINY_V3 : TINY_V2, (fr_mla_mode)mla, ubatches[u], types[t],
                              windows[(mla + u + t) % 3]};
                if (i % step == 0)
                    check(&c, &shapes[chosen[i % 8]], "seed=1");
                if (i % 3 == 0 && !IS_SANITIZED)
                    check(&c, &shapes[chosen[(i + 3) % 8]], "seed=1");
            }
    report();
}

/* The order in which streams, blocks and threads take turns does not matter. */
static void test_schedules(void **state)
{
    (void)state;
    static const int chosen[] = {2, 8, 12, 17, 25};
    static const char *const modes[] = {"lazy=1,seed=3",         "eager=1,seed=3", "guard=1,seed=3",
                                        "guard=1,lazy=1,seed=4", "order=1,seed=3", "order=2,seed=3",
                                        "peer=0,seed=3"};
    int n_seeds = IS_RACE_MODE ? 1 : IS_SANITIZED ? 4 : 20;
    char seed[32];
    for (int i = 0; has_sim() && i < n_seeds; i++) {
        run_case c = plain;
        c.n_ubatch = i % 2 ? 512 : 7;
        snprintf(seed, sizeof seed, "seed=%d", 100 + i);
        check(&c, &shapes[chosen[i % 5]], seed);
    }
    for (size_t i = 0; has_sim() && i < (IS_RACE_MODE ? 1 : sizeof modes / sizeof *modes); i++)
        for (int k = 0; k < (IS_SANITIZED ? 1 : 3); k++) {
            run_case c = plain;
            c.n_ubatch = k % 2 ? 7 : 512;
            check(&c, &shapes[chosen[(k + i) % 5]], modes[i]);
        }
    if (has_sim())
        fresh_gpus("peer=1,seed=1");
    report();
}

/* On a real GPU, where there is one: parts of it stand for several. */
static void test_real_gpu(void **state)
{
    (void)state;
    fr_err why = {0};
    if (!fr_gpu_cuda() || fr_gpu_cuda()->device_count(&why) == 0) {
        print_message("no real GPU here: %s\n", why.text);
        return;
    }
    for (int m = 0; m < N_MODELS; m++)
        for (int i = 0; i < N_SHAPES; i++) {
            run_case c = plain;
            c.model = m;
            c.mla = (fr_mla_mode)(i % 4);
            c.n_ubatch = i % 3 ? 512 : 7;
            c.kv_window = i % 5 ? 256 : 32;
            check(&c, &shapes[i], NULL);
        }
    report();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),   cmocka_unit_test(test_models),
        cmocka_unit_test(test_modes),    cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_real_gpu),
    };
    hybrid_log_errors();
    return cmocka_run_group_tests(tests, setup, NULL);
}
