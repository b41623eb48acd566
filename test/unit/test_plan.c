/* The planner: layer options, rules, budgets, fitting, and every form of output. */
#include "testing.h"

#include <jansson.h>

#include "planner/plan_internal.h"
#include "planner/print.h"
#include "support/models.h"

#define R1     TEST_FILE("data/headers/deepseek-r1-0528-iq3_xxs.header.gguf")
#define R1_IQ4 TEST_FILE("data/headers/deepseek-r1-iq4_k_r4.header.gguf")
#define R1_Q4  TEST_FILE("data/headers/deepseek-r1-q4_k_r4.header.gguf")
#define LITE   TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf")

static const uint64_t GIB = 1ull << 30;
static fr_err err;

/* What a plan is made of. */
typedef struct {
    fr_gguf *g;
    fr_model *m;
    fr_hardware hw;
    fr_rules *rules;
    fr_plan_options o;
    fr_diagnostics found;
    fr_plan *p;
} bench;

static fr_hardware machine(int n_gpus, double vram_gib, double ram_gib)
{
    fr_hardware hw;
    fr_hardware_defaults(&hw);
    hw.n_cores = 16;
    hw.ram_bytes = (uint64_t)(ram_gib * (double)GIB);
    hw.ram_bandwidth = 95e9;
    hw.cpu_int8_ops = 2.6e12;
    hw.cpu_f32_ops = 1.9e12;
    hw.n_gpus = n_gpus;
    for (int i = 0; i < n_gpus; i++) {
        hw.gpus[i] = (fr_gpu_hw){.device = i,
                                 .vram_bytes = (uint64_t)(vram_gib * (double)GIB),
                                 .reserve_bytes = GIB / 2,
                                 .bandwidth = 936e9,
                                 .f16_ops = 71e12,
                                 .int8_ops = 284e12,
                                 .h2d = 25e9,
                                 .d2h = 25e9};
        snprintf(hw.gpus[i].name, sizeof hw.gpus[i].name, "RTX 3090");
    }
    return hw;
}

static bench start(const char *path, fr_mla_mode mla, fr_hardware hw)
{
    bench b = {.hw = hw, .o = fr_plan_defaults()};
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &b.g, &err));
    assert_ok(fr_model_open(b.g, mla, &b.m, &err));
    assert_ok(fr_rules_new(&b.rules, &err));
    b.o.n_ctx = 4096;
    return b;
}

static void finish(bench *b)
{
    fr_plan_free(b->p);
    fr_diagnostics_free(&b->found);
    fr_rules_free(b->rules);
    fr_model_close(b->m);
    fr_gguf_close(b->g);
}

static fr_status plan(bench *b)
{
    fr_plan_free(b->p);
    fr_diagnostics_free(&b->found);
    return fr_plan_make(b->m, &b->hw, b->rules, &b->o, &b->p, &b->found, &err);
}

static const fr_placement *placement(const bench *b, int layer, fr_role role, int64_t expert)
{
    int w = fr_model_weight_of(b->m, layer, role);
    assert_true(w >= 0);
    for (int i = 0; i < b->p->n_placements; i++) {
        const fr_placement *at = &b->p->placements[i];
        if (at->tensor == w && at->expert_from <= expert && expert <= at->expert_to)
            return at;
    }
    fail_msg("no placement of expert %lld", (long long)expert);
    return NULL;
}

static int device_of(const bench *b, int layer, fr_role role)
{
    return placement(b, layer, role, 0)->device;
}

/* ---- what holds for every plan -----------------------------------------------------------------
 */

/* Every expert of every weight is somewhere exactly once; sums and budgets are right. */
static void check_plan(const bench *b)
{
    const fr_plan *p = b->p;
    uint64_t weights[FR_PLAN_MAX_DEVICES] = {0}, kv[FR_PLAN_MAX_DEVICES] = {0}, kv_sum = 0;
    int next = 0;
    int64_t expert = 0;
    for (int i = 0; i < p->n_placements; i++) {
        const fr_placement *at = &p->placements[i];
        const fr_weight *shape = &b->m->weights[at->tensor].shape;
        assert_int_equal(at->tensor, next);
        assert_int_equal(at->expert_from, expert);
        assert_true(at->expert_to >= at->expert_from && at->expert_to < shape->n_mat);
        assert_true(at->device >= 0 && at->device < p->n_devices);
        assert_int_equal(at->bytes, plan_weight_bytes(b->m, at->tensor, at->expert_from,
                                                      at->expert_to, at->layout));
        assert_non_null(at->why);
        weights[at->device] += at->bytes;
        expert = at->expert_to + 1;
        if (expert == shape->n_mat) {
            expert = 0;
            next++;
        }
    }
    assert_int_equal(next, b->m->n_weights);
    for (int il = 0; il < b->m->hp.n_layer; il++)
        kv[p->kv_device[il]] +=
            plan_kv_layer_bytes(b->m, &p->opts, p->opts.n_ctx) * (uint64_t)p->opts.n_seq;
    for (int d = 0; d < p->n_devices; d++) {
        const fr_plan_device *v = &p->devices[d];
        assert_int_equal(v->weights, weights[d]);
        if (p->opts.n_seq == 1)
            assert_int_equal(v->kv, kv[d]);
        assert_int_equal(v->used,
                         v->weights + v->kv + v->workspace + v->staging + v->logits + v->reserve);
        assert_true(v->used <= v->budget);
        assert_int_equal(v->free, v->budget - v->used);
        kv_sum += v->kv;
    }
    assert_int_equal(p->kv_bytes, kv_sum);
}

/* ---- figures of files --------------------------------------------------------------------------
 */

static void test_figures(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t n_tensors;
        int64_t n_params;
        double gib;
    } rows[] = {{R1_Q4, 1025, 671026419200, 376.650}, {R1_IQ4, 1147, 672049829376, 353.526}};
    for (int i = 0; i < 2; i++) {
        bench b = start(rows[i].path, FR_MLA_AUTO, machine(0, 0, 512));
        assert_ok(plan(&b));
        check_plan(&b);
        assert_int_equal(fr_gguf_n_tensors(b.g), rows[i].n_tensors);
        assert_int_equal(b.m->n_params, rows[i].n_params);
        double off = (double)b.p->total_bytes / (double)GIB - rows[i].gib;
        assert_true(off < 0.0005 && off > -0.0005);
        finish(&b);
    }
}

/* ---- layers ------------------------------------------------------------------------------------
 */

static void test_layers_on_gpus(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(2, 24, 64));
    int n = (int)b.m->hp.n_layer; /* 27 */
    b.o.fit = false;
    static const struct {
        int64_t ngl;
        int first; /* layer on a GPU */
        bool output;
    } rows[] = {{0, 27, false}, {1, 26, false}, {10, 17, false}, {27, 0, false},
                {28, 0, true},  {999, 0, true}, {-1, 0, true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        b.o.n_gpu_layers = rows[i].ngl;
        assert_ok(plan(&b));
        check_plan(&b);
        for (int il = 0; il < n; il++) {
            assert_int_equal(device_of(&b, il, FR_ROLE_ATTN_OUTPUT) > 0, il >= rows[i].first);
            assert_int_equal(b.p->kv_device[il] > 0, il >= rows[i].first);
            if (il > 0) /* without --fit experts are with their layer */
                assert_int_equal(device_of(&b, il, FR_ROLE_FFN_UP_EXPS),
                                 device_of(&b, il, FR_ROLE_ATTN_OUTPUT));
        }
        assert_int_equal(device_of(&b, -1, FR_ROLE_OUTPUT) > 0, rows[i].output);
        assert_int_equal(device_of(&b, -1, FR_ROLE_TOKEN_EMBD), 0);
    }
    finish(&b);
}

static void test_split(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(3, 24, 64));
    int count[4] = {0};
    b.o.fit = false;
    b.o.split[0] = 3, b.o.split[1] = 0, b.o.split[2] = 1;
    b.o.n_split = 3;
    assert_ok(plan(&b));
    check_plan(&b);
    for (int il = 0; il < b.m->hp.n_layer; il++)
        count[b.p->attention_device[il]]++;
    /* 28 with the output: three quarters are 21 */
    assert_int_equal(count[1], 21);
    assert_int_equal(count[2], 0);
    assert_int_equal(count[3], 6);
    assert_int_equal(device_of(&b, -1, FR_ROLE_OUTPUT), 3);
    b.o.n_split = 0;
    b.o.split_mode = FR_SPLIT_NONE;
    b.o.main_gpu = 1;
    assert_ok(plan(&b));
    for (int il = 0; il < b.m->hp.n_layer; il++)
        assert_int_equal(b.p->attention_device[il], 2);
    b.o.main_gpu = 3;
    assert_int_equal(plan(&b), FR_EINVAL);
    b.o.split_mode = FR_SPLIT_LAYER;
    b.o.gpus[0] = 2, b.o.gpus[1] = 0;
    b.o.n_gpus = 2;
    assert_ok(plan(&b));
    assert_int_equal(b.p->attention_device[0], 3);
    assert_int_equal(b.p->attention_device[26], 1);
    assert_int_equal(b.p->devices[2].used, 0);
    assert_ok(fr_rules_add_cli(b.rules, "exps=CUDA1", &err));
    assert_int_equal(plan(&b), FR_EINVAL);
    assert_non_null(strstr(err.text, "CUDA1 is not among the GPUs of -dev"));
    b.o.gpus[1] = 2;
    assert_int_equal(plan(&b), FR_EINVAL);
    assert_non_null(strstr(err.text, "twice"));
    finish(&b);
}

static void test_bad_options(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(1, 24, 64));
    const fr_plan_options good = b.o;
    b.o.n_ubatch = 0;
    assert_int_equal(plan(&b), FR_ERANGE);
    b.o = good;
    b.o.n_ctx = -1;
    assert_int_equal(plan(&b), FR_ERANGE);
    b.o = good;
    b.o.type_k = FR_TYPE_IQ4_KS;
    assert_int_equal(plan(&b), FR_EUNSUPPORTED);
    b.o = good;
    b.o.kv_window = 33;
    assert_int_equal(plan(&b), FR_ERANGE);
    b.o = good;
    b.o.n_split = 2;
    assert_int_equal(plan(&b), FR_EINVAL);
    b.o.n_split = 1;
    assert_int_equal(plan(&b), FR_EINVAL); /* a share of 0 only */
    finish(&b);
}

/* ---- rules -------------------------------------------------------------------------------------
 */

static void test_rules(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(2, 24, 64));
    b.hw.n_numa = 2;
    b.o.fit = false;
    assert_ok(fr_rules_add_cli(b.rules,
                               "blk\\.1\\.ffn_up_exps=CPU,blk\\.1\\.=CUDA0,blk\\.2\\.ffn_.*exps="
                               "CUDA1[0-15],blk\\.2\\.ffn_.*exps=CUDA0[10-31],exps=NUMA1",
                               &err));
    assert_ok(plan(&b));
    check_plan(&b);
    assert_int_equal(device_of(&b, 1, FR_ROLE_FFN_UP_EXPS), 0);
    assert_int_equal(device_of(&b, 1, FR_ROLE_FFN_DOWN_EXPS), 1);
    assert_int_equal(device_of(&b, 1, FR_ROLE_ATTN_OUTPUT), 1);
    assert_int_equal(placement(&b, 2, FR_ROLE_FFN_UP_EXPS, 15)->device, 2);
    assert_int_equal(placement(&b, 2, FR_ROLE_FFN_UP_EXPS, 16)->device, 1);
    assert_int_equal(placement(&b, 2, FR_ROLE_FFN_UP_EXPS, 31)->rule, 3);
    const fr_placement *rest = placement(&b, 2, FR_ROLE_FFN_UP_EXPS, 32);
    assert_int_equal(rest->device, 0);
    assert_int_equal(rest->numa, 1);
    assert_int_equal(rest->expert_to, 63);
    assert_string_equal(rest->why, "-ot rule 5 `exps=NUMA1`");
    assert_int_equal(placement(&b, 0, FR_ROLE_ATTN_OUTPUT, 0)->rule, -1);
    finish(&b);
}

/* The cache goes with attention, whatever rules do to the rest; what is derived with its source. */
static void test_kv_follows(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(2, 24, 64));
    b.o.n_split = 2;
    b.o.split[0] = 1;
    assert_ok(fr_rules_add_cli(
        b.rules, "blk\\.5\\.attn=CPU,blk\\.6\\.ffn=CPU,blk\\.7\\.attn_.*=CUDA1", &err));
    assert_ok(plan(&b));
    check_plan(&b);
    assert_int_equal(b.p->kv_device[4], 1);
    assert_int_equal(b.p->kv_device[5], 0);
    assert_int_equal(b.p->kv_device[6], 1);
    assert_int_equal(b.p->kv_device[7], 2);
    assert_int_equal(device_of(&b, 7, FR_ROLE_ATTN_K_B), 2);
    b.o.kv_on_cpu = true;
    assert_ok(plan(&b));
    check_plan(&b);
    for (int il = 0; il < b.m->hp.n_layer; il++)
        assert_int_equal(b.p->kv_device[il], 0);
    assert_int_equal(b.p->attention_device[4], 1);
    finish(&b);
}

/* CUDA* leaves the choice of the GPU, and only that, to the solver; with --fit and without. */
static void test_any_gpu(void **state)
{
    (void)state;
    for (int fit = 0; fit <= 1; fit++) {
        bench b = start(LITE, FR_MLA_AUTO, machine(2, 6, 64));
        b.o.fit = fit;
        b.o.n_gpu_layers = fit ? -1 : 0;
        assert_ok(fr_rules_add_cli(
            b.rules, "blk\\.(1[0-9])\\..*_exps=CUDA*,blk\\.5\\..*_exps=CUDA*[0-31]", &err));
        assert_ok(plan(&b));
        check_plan(&b);
        for (int il = 10; il < 20; il++)
            for (int e = 0; e < 64; e++)
                assert_true(placement(&b, il, FR_ROLE_FFN_UP_EXPS, e)->device > 0);
        for (int e = 0; e < 32; e++)
            assert_true(placement(&b, 5, FR_ROLE_FFN_DOWN_EXPS, e)->device > 0);
        if (!fit) {
            assert_int_equal(placement(&b, 5, FR_ROLE_FFN_DOWN_EXPS, 32)->device, 0);
            assert_int_equal(device_of(&b, 9, FR_ROLE_FFN_UP_EXPS), 0);
        }
        finish(&b);
    }
}

static void test_layouts(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(0, 0, 64));
    fr_status st = fr_rules_add_line(b.rules, FR_RULE_INI, "blk\\.1\\.ffn_up=CPU,layout=plain",
                                     "x.ini", 7, &err);
    assert_ok(st);
    assert_ok(plan(&b));
    assert_int_equal(placement(&b, 1, FR_ROLE_FFN_UP_EXPS, 0)->layout, FR_LAYOUT_PLAIN);
    assert_int_not_equal(placement(&b, 2, FR_ROLE_FFN_UP_EXPS, 0)->layout, FR_LAYOUT_PLAIN);
    finish(&b);
}

static void test_rule_errors(void **state)
{
    (void)state;
    bench b = start(R1, FR_MLA_AUTO, machine(1, 24, 512));
    assert_ok(fr_rules_add_cli(b.rules, "blk\\.[0-2]\\.ffn_down_exps=CUDA0", &err));
    assert_ok(plan(&b)); /* a rule without effect on the command line is a warning */
    assert_true(b.p->notes.n > 0);
    assert_int_equal(b.p->notes.items[0].severity, FR_WARNING);
    assert_non_null(strstr(b.p->notes.items[0].text, "layers 0, 1, 2 have no ffn_down_exps"));
    b.o.strictness = 1;
    assert_int_equal(plan(&b), FR_EINVAL);
    assert_null(b.p);
    assert_non_null(strstr(err.text, "ffn_down_exps"));
    assert_true(b.found.n > 0);
    finish(&b);
}

/* ---- budgets -----------------------------------------------------------------------------------
 */

static int lines_after(const char *text, const char *head)
{
    int n = 0;
    const char *at = strstr(text, head);
    assert_non_null(at);
    for (at = strchr(at, '\n'); at; at = strchr(at + 1, '\n'))
        n++;
    return n;
}

static void test_does_not_fit(void **state)
{
    (void)state;
    bench b = start(R1_Q4, FR_MLA_AUTO, machine(3, 24, 248));
    assert_int_equal(plan(&b), FR_ENOMEM);
    assert_non_null(strstr(err.text, "CPU needs "));
    assert_non_null(strstr(err.text, " of 248.000 GiB (weights "));
    assert_non_null(strstr(err.text, "the first over is blk."));
    assert_true(lines_after(err.text, "what would help:") >= 3);
    assert_true(strlen(err.text) < sizeof err.text - 4);
    finish(&b);

    b = start(LITE, FR_MLA_AUTO, machine(2, 4, 64));
    b.o.fit = false;
    assert_int_equal(plan(&b), FR_ENOMEM);
    assert_non_null(strstr(err.text, "CUDA1 needs "));
    assert_non_null(strstr(err.text, "CUDA0 needs "));
    assert_non_null(strstr(err.text, "--fit on"));
    finish(&b);
}

/* The number behind `option` in the error, e.g. "\n  -c 512 instead of". */
static int64_t advised(const char *option)
{
    char head[32];
    snprintf(head, sizeof head, "\n  %s ", option);
    const char *at = strstr(err.text, head);
    return at && !strstr(at, "not enough alone") ? strtoll(at + strlen(head), NULL, 10) : -1;
}

/* What is advised as enough is enough, and no more than needed. */
static void test_advice_holds(void **state)
{
    (void)state;
    bench b = start(R1, FR_MLA_AUTO, machine(3, 24, 248));
    b.o.n_ctx = 163840;
    b.o.n_ubatch = 2048;
    assert_ok(fr_rules_add_cli(b.rules, "blk\\.[0-9]+\\.attn=CUDA0,blk\\.3\\..*exps=CUDA0", &err));
    assert_ok(
        fr_rules_add_cli(b.rules, "exps=CPU,ffn_.*_shexp=CUDA0,blk\\.[0-2]\\.ffn=CUDA0", &err));
    assert_int_equal(plan(&b), FR_ENOMEM);
    int64_t n_ctx = advised("-c");
    if (!(n_ctx > 0 && n_ctx < 163840))
        fail_msg("no context in: %s", err.text);
    assert_non_null(strstr(err.text, "\n  -ctk q8_0 instead of f16\n"));
    assert_non_null(strstr(err.text, "\n  -nkvo"));
    b.o.n_ctx = n_ctx;
    assert_ok(plan(&b));
    check_plan(&b);
    b.o.n_ctx = n_ctx + PLAN_CTX_STEP;
    assert_int_equal(plan(&b), FR_ENOMEM);
    b.o.n_ctx = 163840;
    b.o.type_k = FR_TYPE_Q8_0;
    assert_ok(plan(&b));
    b.o.type_k = FR_TYPE_F16;
    b.o.kv_on_cpu = true;
    assert_ok(plan(&b));
    finish(&b);
}

static void test_context_fits(void **state)
{
    (void)state;
    int64_t last = 0;
    static const double vram[] = {3, 4, 6, 24};
    for (int i = 0; i < 4; i++) {
        bench b = start(LITE, FR_MLA_AUTO, machine(1, vram[i], 64));
        b.o.n_ctx = 0;
        assert_ok(plan(&b));
        check_plan(&b);
        assert_true(b.p->opts.n_ctx >= last && b.p->opts.n_ctx <= b.m->hp.n_ctx_train);
        last = b.p->opts.n_ctx;
        finish(&b);
    }
    assert_int_equal(last, 163840);
    bench b = start(LITE, FR_MLA_AUTO, machine(0, 0, 12));
    b.o.n_ctx = 0;
    assert_ok(plan(&b));
    check_plan(&b);
    assert_true(b.p->opts.n_ctx < 163840 && b.p->opts.n_ctx % PLAN_CTX_STEP == 0);
    b.o.n_ctx = b.p->opts.n_ctx + PLAN_CTX_STEP;
    assert_int_equal(plan(&b), FR_ENOMEM);
    b.hw.ram_bytes = 10 * GIB; /* below the weights */
    b.o.n_ctx = 0;
    assert_int_equal(plan(&b), FR_ENOMEM);
    assert_non_null(strstr(err.text, "with a context of 256:"));
    assert_true(lines_after(err.text, "what would help:") >= 3);
    finish(&b);
}

/* With --fit the GPUs are full up to the margin, and dense parts are on them. */
static void test_fit_fills(void **state)
{
    (void)state;
    bench b = start(R1, FR_MLA_AUTO, machine(3, 24, 248));
    b.o.margin_bytes[1] = 3 * GIB;
    assert_ok(plan(&b));
    check_plan(&b);
    for (int il = 0; il < b.m->hp.n_layer; il++)
        assert_true(b.p->attention_device[il] > 0);
    for (int d = 1; d <= 3; d++) {
        assert_true(b.p->devices[d].free >= b.o.margin_bytes[d - 1]);
        assert_true(b.p->devices[d].free < b.o.margin_bytes[d - 1] + GIB / 4);
    }
    assert_true(b.p->n_prefill > 0 && b.p->n_decode > 0);
    assert_true(b.p->decode[0].tokens_per_second > 1 && b.p->decode[0].tokens_per_second < 100);
    finish(&b);
}

/* Sequences share the context, each with a cache of its own. */
static void test_sequences(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(0, 0, 64));
    b.o.n_ctx = 8192;
    assert_ok(plan(&b));
    uint64_t one = b.p->kv_bytes, layers = (uint64_t)b.m->hp.n_layer;
    b.o.n_seq = 4;
    assert_ok(plan(&b));
    fr_kv_layout l;
    assert_ok(fr_kv_layout_make(b.m, FR_TYPE_F16, FR_TYPE_F16, 256, &l, &err));
    assert_int_equal(b.p->kv_bytes, one + 3 * layers * fr_kv_recent_bytes(&l));
    finish(&b);
}

/* Random options, rules and budgets: a plan within its budgets, or a reason. */
static void test_random_plans(void **state)
{
    (void)state;
    static const char *const rules[] = {
        "exps=CPU",     "blk\\.[0-9]\\..*exps=CUDA0", "blk\\.1[0-9]\\..*exps=CUDA1[3-40]",
        "attn=CUDA1",   "ffn_down_exps=CUDA*",        "ffn_(up|gate)_exps=CUDA*[0-7]",
        "output=CUDA0", "token_embd=CUDA0",           "shexp=CPU"};
    uint64_t seed = 77;
    int n_ok = 0, n_full = 0;
    for (int i = 0; i < 120; i++) {
        double vram = 1 + (double)(test_rand(&seed) % 24) / 2;
        double ram = 2 + (double)(test_rand(&seed) % 16);
        bench b = start(LITE, (fr_mla_mode)(test_rand(&seed) % 4), machine(2, vram, ram));
        for (int r = (int)(test_rand(&seed) % 4); r > 0; r--)
            assert_ok(fr_rules_add_cli(b.rules, rules[test_rand(&seed) % 9], &err));
        b.o.n_ctx = (int64_t)(test_rand(&seed) % 5) * 7001;
        b.o.n_ubatch = 1 + (int64_t)(test_rand(&seed) % 3000);
        b.o.fit = test_rand(&seed) % 3 > 0;
        b.o.kv_on_cpu = test_rand(&seed) % 5 == 0;
        b.o.n_gpu_layers = (int64_t)(test_rand(&seed) % 40) - 5;
        b.o.margin_bytes[0] = test_rand(&seed) % GIB;
        b.o.goal = (fr_goal)(test_rand(&seed) % 3);
        fr_status st = plan(&b);
        if (st == FR_OK) {
            check_plan(&b);
            n_ok++;
        } else {
            if (st != FR_ENOMEM)
                fail_msg("round %d: %s", i, err.text);
            assert_non_null(strstr(err.text, "does not fit"));
            assert_true(lines_after(err.text, "what would help:") >= 3);
            n_full++;
        }
        finish(&b);
    }
    assert_true(n_ok > 20 && n_full > 20);
}

/* ---- output ------------------------------------------------------------------------------------
 */

static void test_text(void **state)
{
    (void)state;
    bench b = start(R1_IQ4, FR_MLA_AUTO, machine(3, 24, 400));
    fr_buf out = {0};
    assert_ok(fr_rules_add_cli(b.rules, "blk\\.3\\..*_exps=CUDA1[0-7],exps=CPU", &err));
    assert_ok(plan(&b));
    fr_print_style plain = {.width = 100};
    assert_ok(fr_plan_print_text(b.p, &plain, &out, &err));
    static const char *const parts[] = {
        "672.050 B parameters in 1147 tensors, 353.526 GiB",
        "CPU     [=====",
        "of 24.00 GiB",
        "embedding       0.49  CPU\n",
        "CUDA1 0-7, CPU 8-255\n",
        "rules, the first match wins\n  3 tensors ",
        "prompt             0 ",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(out.p, parts[i]))
            fail_msg("'%s' is not in\n%s", parts[i], out.p);
    assert_null(strchr(out.p, '\033'));
    for (const char *line = out.p; *line; line += strcspn(line, "\n") + 1)
        if (strcspn(line, "\n") > 100)
            fail_msg("a line of more than 100 columns in\n%s", out.p);
    fr_buf_clear(&out);
    plain.color = true;
    assert_ok(fr_plan_print_text(b.p, &plain, &out, &err));
    assert_non_null(strstr(out.p, "\033[34m="));
    fr_buf_free(&out);
    finish(&b);
}

static json_t *as_json(const fr_plan *p)
{
    fr_buf out = {0};
    json_error_t at;
    assert_ok(fr_plan_print_json(p, &out, &err));
    json_t *o = json_loadb(out.p, out.n, JSON_REJECT_DUPLICATES, &at);
    if (!o)
        fail_msg("line %d: %s", at.line, at.text);
    fr_buf_free(&out);
    return o;
}

static void test_json(void **state)
{
    (void)state;
    bench b = start(R1_IQ4, FR_MLA_PLAIN, machine(3, 24, 400));
    assert_ok(fr_rules_add_line(b.rules, FR_RULE_INI, "exps = CPU", "my.ini", 12, &err));
    assert_ok(plan(&b));
    json_t *o = as_json(b.p), *t, *tensors = json_object_get(o, "tensors");
    assert_int_equal(json_integer_value(json_object_get(o, "n_tensors")), 1147);
    assert_int_equal(json_integer_value(json_object_get(o, "n_params")), 672049829376);
    assert_int_equal(json_integer_value(json_object_get(o, "total_bytes")), 379595751424);
    assert_int_equal(json_array_size(tensors), 1147); /* nothing is sliced */
    size_t i, n_unused = 0;
    json_int_t bytes = 0;
    json_array_foreach(tensors, i, t)
    {
        bytes += json_integer_value(json_object_get(t, "bytes"));
        n_unused += json_is_null(json_object_get(t, "device"));
        if (strcmp(json_string_value(json_object_get(t, "name")), "blk.9.ffn_up_exps.weight") ==
            0) {
            json_t *rule = json_object_get(t, "rule");
            assert_string_equal(json_string_value(json_object_get(t, "device")), "CPU");
            assert_string_equal(json_string_value(json_object_get(rule, "file")), "my.ini");
            assert_int_equal(json_integer_value(json_object_get(rule, "line")), 12);
            assert_string_equal(json_string_value(json_object_get(rule, "text")), "exps = CPU");
        }
    }
    assert_int_equal(n_unused, 122); /* k_b and v_b, which only latent caches use */
    json_int_t used = 0;
    json_array_foreach(json_object_get(o, "devices"), i, t) used +=
        json_integer_value(json_object_get(t, "weights_bytes"));
    assert_int_equal(used, bytes);
    json_decref(o);
    finish(&b);
}

static void test_svg(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_AUTO, machine(2, 24, 64));
    fr_buf out = {0};
    snprintf(b.hw.gpus[0].name, sizeof b.hw.gpus[0].name, "<&\"'>\x01\xff");
    assert_ok(plan(&b));
    assert_ok(fr_plan_print_svg(b.p, &out, &err));
    assert_non_null(strstr(out.p, "&#60;&#38;&#34;&#39;&#62;??"));
    assert_non_null(strstr(out.p, "</svg>\n"));
    fr_buf_free(&out);
    finish(&b);
}

static void test_explain(void **state)
{
    (void)state;
    bench b = start(LITE, FR_MLA_PLAIN, machine(2, 24, 64));
    fr_buf out = {0};
    assert_ok(fr_rules_add_cli(b.rules, "blk\\.2\\.ffn_up_exps=CUDA1,exps=CPU", &err));
    assert_ok(plan(&b));
    assert_ok(fr_plan_explain(b.p, "^blk\\.2\\.ffn_up_exps", &out, &err));
    const char *first = "CUDA1, experts 0-63, 99.0 MiB, native: -ot rule 1 `";
    if (!strstr(out.p, first))
        fail_msg("no '%s' in\n%s", first, out.p);
    assert_non_null(strstr(out.p, "-ot rule 2 `exps=CPU` matches too, but comes later"));
    assert_non_null(strstr(out.p, "not on CPU: it has room ("));
    fr_buf_clear(&out);
    assert_ok(fr_plan_explain(b.p, ".", &out, &err)); /* all: one line each */
    size_t lines = 0;
    for (size_t i = 0; i < out.n; i++)
        lines += out.p[i] == '\n';
    assert_int_equal(lines, b.p->n_placements);
    assert_int_equal(fr_plan_explain(b.p, "no_such", &out, &err), FR_ENOTFOUND);
    assert_int_equal(fr_plan_explain(b.p, "(", &out, &err), FR_EINVAL);
    assert_int_equal(fr_plan_explain(b.p, "^([a-z._0-9]+)+[^a-z._0-9]", &out, &err), FR_ERANGE);
    fr_buf_free(&out);
    finish(&b);
}

/* The rules that a plan is written as give the same plan. */
static void test_emit(void **state)
{
    (void)state;
    static const char *const rules[] = {
        "exps=CPU", "blk\\.[3-6]\\..*exps=CUDA0[2-9],blk\\.9\\.attn_out=CPU,norm=CUDA1", NULL};
    for (int i = 0; i < 3; i++) {
        bench b = start(LITE, FR_MLA_AUTO, machine(2, 6, 64)), again;
        fr_buf out = {0};
        if (rules[i])
            assert_ok(fr_rules_add_cli(b.rules, rules[i], &err));
        if (i == 1)
            assert_ok(
                fr_rules_add_line(b.rules, FR_RULE_INI, "blk.2.=NUMA0,layout=plain", "f", 1, &err));
        b.hw.n_numa = 1;
        assert_ok(plan(&b));
        assert_ok(fr_plan_emit(b.p, FR_EMIT_INI, &out, &err));
        again = start(LITE, FR_MLA_AUTO, b.hw);
        again.o.n_gpu_layers = 0; /* all is named: options have no say */
        again.o.strictness = 1;
        for (const char *line = out.p; *line;) {
            size_t n = strcspn(line, "\n");
            char *copy = strndup(line, n);
            if (strncmp(copy, "override-tensor = ", 18) == 0)
                assert_ok(fr_rules_add_line(again.rules, FR_RULE_INI, copy + 18, "f", 1, &err));
            free(copy);
            line += n + (line[n] == '\n');
        }
        assert_ok(plan(&again));
        for (int k = 0; k < b.p->n_placements; k++) {
            const fr_placement *x = &b.p->placements[k];
            const fr_model_weight *w = &b.m->weights[x->tensor];
            for (int64_t e = x->expert_from; e <= x->expert_to; e++) {
                const fr_placement *y = placement(&again, w->layer, w->role, e);
                if (x->device != y->device || x->numa != y->numa || x->layout != y->layout)
                    fail_msg("%s, expert %lld: another place", w->name, (long long)e);
            }
        }
        fr_buf_clear(&out);
        assert_ok(fr_plan_emit(b.p, FR_EMIT_OT, &out, &err));
        assert_non_null(strstr(out.p, "-ngl 999 -ot '"));
        assert_null(strstr(out.p, "=CUDA0["));
        fr_buf_free(&out);
        finish(&again);
        finish(&b);
    }
}

static void test_diff(void **state)
{
    (void)state;
    bench a = start(LITE, FR_MLA_AUTO, machine(2, 24, 64)), b = start(LITE, FR_MLA_AUTO, a.hw);
    fr_buf x = {0}, y = {0}, out = {0};
    size_t n;
    assert_ok(fr_rules_add_cli(b.rules, "blk\\.20\\.ffn_up_exps=CPU", &err));
    b.o.n_ctx = 8192;
    assert_ok(plan(&a));
    assert_ok(plan(&b));
    assert_ok(fr_plan_print_json(a.p, &x, &err));
    assert_ok(fr_plan_print_json(b.p, &y, &err));
    fr_str from = {x.p, x.n}, to = {y.p, y.n};
    assert_ok(fr_plan_diff(from, from, "a", "b", &out, &n, &err));
    assert_int_equal(n, 0);
    fr_buf_clear(&out);
    assert_ok(fr_plan_diff(from, to, "a", "b", &out, &n, &err));
    assert_true(n >= 3);
    assert_non_null(strstr(out.p, "n_ctx: 4096 -> 8192"));
    assert_non_null(strstr(out.p, "-> CPU[0-63] native\n    blk.20.ffn_up_exps.weight\n"));
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "{}",
                                      "{\"ferry_plan\": 1}",
                                      "{\"ferry_plan\":1,\"devices\":[],\"tensors\":{}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fr_plan_diff(fr_str_of(bad[i]), to, "a", "b", &out, &n, &err), FR_EFORMAT);
    assert_ok(fr_plan_diff(FR_STR("{\"ferry_plan\":1,\"devices\":[3],\"tensors\":[4,{}]}"), to, "a",
                           "b", &out, &n, &err));
    fr_buf_free(&x);
    fr_buf_free(&y);
    fr_buf_free(&out);
    finish(&a);
    finish(&b);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/* One plan with everything that can be made of it. */
static fr_status all_of_it(bench *b)
{
    fr_buf out = {0};
    fr_print_style style = {.width = 80};
    fr_status st = fr_plan_make(b->m, &b->hw, b->rules, &b->o, &b->p, &b->found, &err);
    if (st == FR_OK)
        st = fr_plan_print_text(b->p, &style, &out, &err);
    if (st == FR_OK)
        st = fr_plan_print_json(b->p, &out, &err);
    if (st == FR_OK)
        st = fr_plan_print_svg(b->p, &out, &err);
    if (st == FR_OK)
        st = fr_plan_explain(b->p, "exps|norm", &out, &err);
    if (st == FR_OK)
        st = fr_plan_emit(b->p, FR_EMIT_INI, &out, &err);
    if (st == FR_OK)
        st = fr_plan_emit(b->p, FR_EMIT_OT, &out, &err);
    fr_buf_free(&out);
    fr_plan_free(b->p);
    b->p = NULL;
    fr_diagnostics_free(&b->found);
    return st;
}

static void test_out_of_memory(void **state)
{
    (void)state;
    static const double ram[] = {1, 0.001}; /* one that fits, one that does not */
    for (int i = 0; i < 2; i++) {
        size_t before = fr_mem_total().bytes_now;
        bench b = start(MODEL_KJV, FR_MLA_AUTO, machine(2, 1, ram[i]));
        if (i == 1)
            b.hw.gpus[0].vram_bytes = b.hw.gpus[1].vram_bytes = 1 << 20;
        b.o.n_ctx = 256;
        b.o.fit = false; /* the solver has a test of its own */
        assert_ok(
            fr_rules_add_cli(b.rules, "blk\\.2\\..*exps=CUDA1[0-2],blk\\.3\\.attn=CPU", &err));
        uint64_t n_allocs = fr_mem_total().n_allocs;
        assert_int_equal(all_of_it(&b), i == 0 ? FR_OK : FR_ENOMEM);
        n_allocs = fr_mem_total().n_allocs - n_allocs;
        int n_failed = 0;
        /* every one of the first, then ever fewer */
        for (uint64_t n = 1; n <= n_allocs; n += 1 + n / 100) {
            fr_mem_fail_at(n, n % 2);
            fr_status st = all_of_it(&b);
            fr_mem_fail_at(0, 0);
            assert_true(st == FR_OK || st == FR_ENOMEM);
            n_failed += st == FR_ENOMEM;
        }
        assert_true(n_failed > 20);
        finish(&b);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),      cmocka_unit_test(test_layers_on_gpus),
        cmocka_unit_test(test_split),        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_rules),        cmocka_unit_test(test_kv_follows),
        cmocka_unit_test(test_any_gpu),      cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_rule_errors),  cmocka_unit_test(test_does_not_fit),
        cmocka_unit_test(test_advice_holds), cmocka_unit_test(test_context_fits),
        cmocka_unit_test(test_fit_fills),    cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_random_plans), cmocka_unit_test(test_text),
        cmocka_unit_test(test_json),         cmocka_unit_test(test_svg),
        cmocka_unit_test(test_explain),      cmocka_unit_test(test_emit),
        cmocka_unit_test(test_diff),         cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
