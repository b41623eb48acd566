/* What the planner adds up against what the engine allocates, per purpose; and the KV figures that
 * were published. */
#include "testing.h"

#include "engine/engine.h"
#include "planner/account.h"
#include "planner/kv_table.h"
#include "support/models.h"

enum {
    N_THREADS = 3,
    EMPTY_BLOCK = 1,  /* an allocation of nothing counts one byte */
    SMALL = 128 << 10 /* what tiny models may be planned too much beside the tolerance */
};

static char splitkv[256], flatkv[256], bothkv[256], groups[256], q4[256];

static int setup(void **state)
{
    (void)state;
    fr_err err = {0};
    const struct {
        char *path;
        const char *file;
        model_variant v;
    } variants[] = {
        {splitkv, "splitkv.gguf", {.split_kv_b = true}},
        {flatkv, "flatkv.gguf", {.split_kv_b = true, .flat_k_b = true}},
        {bothkv, "bothkv.gguf", {.split_kv_b = true, .keep_kv_b = true}},
        {groups, "groups.gguf", {.groups = true}},
        {q4, "q4.gguf", {.retype = true, .type = FR_TYPE_Q4_0, .layout = FR_LAYOUT_INTERLEAVED}},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        snprintf(variants[i].path, 256, "%s", model_temp_path(variants[i].file));
        assert_ok(model_write_variant(MODEL_V3, &variants[i].v, variants[i].path, &err));
    }
    return 0;
}

/* ---- against the engine ------------------------------------------------------------------------
 */

typedef struct {
    uint64_t weights, derived, kv, workspace;
} totals;

static size_t now(fr_mem_tag tag)
{
    return fr_mem_tag_stats(tag).bytes_now;
}

static totals read_tags(void)
{
    return (totals){now(FR_MEM_WEIGHTS), now(FR_MEM_DERIVED), now(FR_MEM_KV),
                    now(FR_MEM_WORKSPACE)};
}

/* Bytes that engine and session hold. */
static totals measure(const char *path, fr_engine_config cfg)
{
    fr_err err = {0};
    fr_engine *e;
    fr_session *s;
    totals before = read_tags();
    cfg.model_path = path;
    assert_ok(fr_engine_open(&cfg, &e, &err));
    assert_ok(fr_session_open(e, &s, &err));
    totals t = read_tags();
    fr_session_close(s);
    fr_engine_close(e);
    return (totals){t.weights - before.weights, t.derived - before.derived, t.kv - before.kv,
                    t.workspace - before.workspace};
}

static fr_plan_options options_of(const fr_engine_config *cfg)
{
    int64_t n_ubatch = cfg->n_ubatch < cfg->n_ctx ? cfg->n_ubatch : cfg->n_ctx;
    return (fr_plan_options){.n_ctx = cfg->n_ctx,
                             .n_ubatch = n_ubatch,
                             .n_seq = 1,
                             .n_outputs = cfg->all_logits ? n_ubatch : 1,
                             .type_k = cfg->type_k,
                             .type_v = cfg->type_v,
                             .kv_window = cfg->kv_window,
                             .expand_bytes = cfg->expand_bytes,
                             .n_threads = cfg->n_threads};
}

static totals plan(const char *path, const fr_engine_config *cfg)
{
    fr_err err = {0};
    fr_gguf *g;
    fr_model *m;
    plan_passes passes;
    fr_plan_options o = options_of(cfg);
    totals t = {0, 0, 0, 0};
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_model_open(g, cfg->mla, &m, &err));
    assert_ok(plan_passes_open(m, NULL, false, &passes, &err));
    for (int i = 0; i < m->n_weights; i++) {
        const fr_model_weight *w = &m->weights[i];
        uint64_t bytes =
            plan_weight_bytes(m, i, 0, w->shape.n_mat - 1, plan_weight_layout(m, i, -1));
        *(w->derive == FR_DERIVE_NONE ? &t.weights : &t.derived) += bytes;
    }
    t.kv = plan_kv_layer_bytes(m, &o, o.n_ctx) * (uint64_t)m->hp.n_layer;
    t.workspace = plan_workspace_bytes(m, &passes, &o, o.n_ctx, o.n_ubatch).cpu +
                  plan_logits_bytes(m, o.n_outputs);
    plan_passes_close(&passes);
    fr_model_close(m);
    fr_gguf_close(g);
    return t;
}

static void check(const char *what, const char *path, const fr_engine_config *cfg, uint64_t planned,
                  uint64_t actual, double tolerance)
{
    if (planned + EMPTY_BLOCK < actual ||
        (double)planned > (double)actual * (1 + tolerance) + SMALL)
        fail_msg("%s of %s, -mla %d, -ub %d, -c %d, KV %s: planned %llu, actual %llu", what,
                 strrchr(path, '/') + 1, (int)cfg->mla, (int)cfg->n_ubatch, (int)cfg->n_ctx,
                 fr_type_name(cfg->type_k, FR_LAYOUT_PLAIN), (unsigned long long)planned,
                 (unsigned long long)actual);
}

static double worst_workspace;

static void compare(const char *path, const fr_engine_config *cfg)
{
    totals p = plan(path, cfg), a = measure(path, *cfg);
    check("weights", path, cfg, p.weights, a.weights, 0.02);
    check("derived weights", path, cfg, p.derived, a.derived, 0.02);
    check("KV cache", path, cfg, p.kv, a.kv, 0.02);
    check("workspace", path, cfg, p.workspace, a.workspace, 0.5);
    double over = (double)p.workspace / (double)a.workspace;
    worst_workspace = over > worst_workspace ? over : worst_workspace;
}

static void test_engine(void **state)
{
    (void)state;
    const char *paths[] = {MODEL_V3, MODEL_V2LITE, MODEL_KJV, splitkv, flatkv, bothkv, groups, q4};
    static const int ubatches[] = {1, 7, 512};
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_Q8_0, FR_TYPE_Q4_0};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        for (int mla = 0; mla <= 3; mla++)
            for (int u = 0; u < 3; u++)
                for (int t = 0; t < 4; t++) {
                    fr_engine_config cfg = fr_engine_defaults();
                    cfg.mla = (fr_mla_mode)mla;
                    cfg.n_ubatch = ubatches[u];
                    cfg.n_ctx = u == 1 ? 100 : 640;
                    cfg.type_k = cfg.type_v = types[t];
                    cfg.n_threads = cfg.n_threads_batch = N_THREADS;
                    cfg.all_logits = t % 2 == 0;
                    compare(paths[i], &cfg);
                }
    print_message("workspace: planned is at most %.2f times the actual\n", worst_workspace);
}

/* Read instead of mapped; other windows; expansion in chunks of all sizes. */
static void test_engine_settings(void **state)
{
    (void)state;
    static const uint64_t expand[] = {1, 1 << 16, 1 << 20, 0};
    for (int i = 0; i < 4; i++) {
        fr_engine_config cfg = fr_engine_defaults();
        cfg.n_ctx = 333;
        cfg.n_threads = cfg.n_threads_batch = 1 + i;
        cfg.expand_bytes = expand[i];
        cfg.kv_window = 32 * i;
        cfg.mmap = false;
        compare(i % 2 ? splitkv : MODEL_V3, &cfg);
    }
}

/* What does not fit is refused before anything is loaded, with the planner's own words. */
static void test_refusal(void **state)
{
    (void)state;
    fr_err err = {0}, planned = {0};
    fr_engine_config cfg = fr_engine_defaults();
    fr_engine *e = NULL;
    fr_gguf *g;
    fr_model *m;
    fr_rules *rules;
    fr_plan *p = NULL;
    fr_hardware hw;
    cfg.model_path = MODEL_V3;
    cfg.n_ctx = INT32_MAX;
    cfg.type_k = cfg.type_v = FR_TYPE_F32;
    cfg.n_threads = cfg.n_threads_batch = N_THREADS;
    size_t before = now(FR_MEM_WEIGHTS);
    fr_plan_options o = fr_plan_defaults(), own = options_of(&cfg);
    o.n_ctx = own.n_ctx;
    o.n_ubatch = own.n_ubatch;
    o.type_k = o.type_v = FR_TYPE_F32;
    o.kv_window = own.kv_window;
    o.expand_bytes = own.expand_bytes;
    o.n_threads = own.n_threads;
    assert_ok(fr_hardware_probe(&hw, &err));
    hw.n_gpus = 0;
    assert_ok(fr_gguf_open(MODEL_V3, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_model_open(g, cfg.mla, &m, &err));
    assert_ok(fr_rules_new(&rules, &err));
    fr_status st = fr_plan_make(m, &hw, rules, &o, &p, NULL, &planned);
    if (st == FR_OK) {
        print_message("this machine is too large for the test\n");
    } else {
        assert_int_equal(st, FR_ENOMEM);
        assert_int_equal(fr_engine_open(&cfg, &e, &err), FR_ENOMEM);
        assert_string_equal(err.text, planned.text);
        assert_non_null(strstr(err.text, "the model does not fit with a context of 2147483647:"));
        assert_non_null(strstr(err.text, "what would help:"));
        assert_int_equal(now(FR_MEM_WEIGHTS), before);
    }
    fr_plan_free(p);
    fr_rules_free(rules);
    fr_model_close(m);
    fr_gguf_close(g);
}

/* ---- layouts and slices ------------------------------------------------------------------------
 */

static void test_slices(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_gguf *g;
    fr_model *m;
    const char *path = TEST_FILE("data/headers/deepseek-r1-q4_k_r4.header.gguf");
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
    int down = fr_model_weight_of(m, 3, FR_ROLE_FFN_DOWN_EXPS);
    uint64_t all = plan_weight_bytes(m, down, 0, 255, FR_LAYOUT_INTERLEAVED);
    assert_int_equal(all, 3082813440);
    assert_int_equal(plan_weight_bytes(m, down, 0, 31, FR_LAYOUT_INTERLEAVED), all / 8);
    assert_int_equal(plan_weight_bytes(m, down, 7, 7, FR_LAYOUT_PLAIN), all / 256);
    assert_int_equal(plan_staging_bytes(m, 256), 2 * (3082813440ull + 2 * 2113929216ull));
    assert_int_equal(plan_staging_bytes(m, 0), 0);
    assert_int_equal(plan_logits_bytes(m, 2), 2 * 129280 * 4);
    fr_model_close(m);
    fr_gguf_close(g);
}

static void test_layouts(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_gguf *g;
    fr_model *m;
    const char *path = TEST_FILE("data/headers/deepseek-r1-0528-iq3_xxs.header.gguf");
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
    const fr_layout plain = FR_LAYOUT_PLAIN, best = FR_LAYOUT_COUNT, il = FR_LAYOUT_INTERLEAVED;
    const struct {
        int layer;
        fr_role role;
        int wanted;
        fr_layout expected; /* best: what fr_layout_in_memory says */
    } rows[] = {
        {-1, FR_ROLE_TOKEN_EMBD, -1, plain},
        {-1, FR_ROLE_TOKEN_EMBD, FR_LAYOUT_INTERLEAVED, plain},
        {-1, FR_ROLE_OUTPUT_NORM, -1, plain},
        {-1, FR_ROLE_OUTPUT, -1, best},
        {3, FR_ROLE_FFN_UP_EXPS, -1, best},
        {3, FR_ROLE_FFN_UP_EXPS, FR_LAYOUT_PLAIN, plain},
        {3, FR_ROLE_FFN_UP_EXPS, FR_LAYOUT_INTERLEAVED, il},
        {3, FR_ROLE_FFN_GATE_INP, -1, plain}, /* float32 has no such form */
        {3, FR_ROLE_ATTN_KV_B, -1, best},     /* v_b begins at row 128 */
        {3, FR_ROLE_ATTN_K_B, -1, plain},     /* derived */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int w = fr_model_weight_of(m, rows[i].layer, rows[i].role);
        assert_true(w >= 0);
        const fr_weight *shape = &m->weights[w].shape;
        fr_layout expected = rows[i].expected;
        if (expected == best)
            expected = fr_layout_in_memory(shape->type, shape->rows, shape->cols);
        if (plan_weight_layout(m, w, rows[i].wanted) != expected)
            fail_msg("row %zu, %s: not the expected layout", i, m->weights[w].name);
    }
    fr_model_close(m);
    fr_gguf_close(g);
}

/* ---- KV tables ---------------------------------------------------------------------------------
 */

static void test_published_kv(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double per_token; /* 16 bit; 0: not published */
        double gib_at_1m; /* 0: not published */
        double tolerance; /* of the published digits */
    } rows[] = {
        {"DeepSeek-V2-Lite", 31104, 0, 0},
        {"DeepSeek-V3", 70272, 68.625, 1e-9},
        {"DeepSeek-R1", 70272, 68.625, 1e-9},
        {"Kimi-K2", 70272, 0, 0},
        {"DeepSeek-V3.2", 85888, 83.875, 1e-9},
        {"GLM-5", 109824, 0, 0},
        {"GLM-5.2", 95232, 0, 0},
        {"DeepSeek-V4-Pro", 0, 9.6246, 5e-5},
        {"DeepSeek-V4-Flash", 0, 6.72, 5e-3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const plan_kv_shape *s = plan_kv_shape_find(rows[i].name);
        assert_non_null(s);
        double gib = (double)plan_kv_shape_bytes(s, FR_TYPE_F16, 1 << 20) / (1 << 30);
        double token = plan_kv_shape_token_bytes(s, FR_TYPE_F16);
        if (rows[i].per_token > 0)
            assert_true(token == rows[i].per_token);
        if (rows[i].gib_at_1m > 0 && !(gib - rows[i].gib_at_1m <= rows[i].tolerance &&
                                       rows[i].gib_at_1m - gib <= rows[i].tolerance))
            fail_msg("%s: found %.6f GiB, expected %.6f", s->name, gib, rows[i].gib_at_1m);
    }
    assert_int_equal(plan_kv_shape_bytes(plan_kv_shape_find("deepseek-r1"), FR_TYPE_F16, 16384),
                     1098 << 20);
    /* q8_0: 34 bytes for 32 numbers; 576 and 128 are whole blocks */
    assert_int_equal(plan_kv_shape_bytes(plan_kv_shape_find("DeepSeek-V3.2"), FR_TYPE_Q8_0, 1),
                     61 * (576 + 128) / 32 * 34);
    assert_null(plan_kv_shape_find("DeepSeek-V5"));
}

/* The built-in shapes agree with the cache of a real model file. */
static void test_kv_of_files(void **state)
{
    (void)state;
    static const struct {
        const char *file, *shape;
    } rows[] = {
        {TEST_FILE("data/headers/deepseek-r1-iq4_k_r4.header.gguf"), "DeepSeek-R1"},
        {TEST_FILE("data/headers/kimi-k2-iq2_k_r4.header.gguf"), "Kimi-K2"},
        {TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf"), "DeepSeek-V2-Lite"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fr_err err = {0};
        fr_gguf *g;
        fr_model *m;
        fr_buf text = {0};
        fr_plan_options o = {.type_k = FR_TYPE_F16, .type_v = FR_TYPE_F16};
        assert_ok(fr_gguf_open(rows[i].file, FR_GGUF_HEADERS_ONLY, &g, &err));
        assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
        assert_int_equal(
            plan_kv_layer_bytes(m, &o, 16384) * (uint64_t)m->hp.n_layer,
            plan_kv_shape_bytes(plan_kv_shape_find(rows[i].shape), FR_TYPE_F16, 16384));
        fr_type types[] = {FR_TYPE_F16, FR_TYPE_Q8_0};
        int64_t lengths[] = {16384, 1 << 20};
        fr_kv_table_args args = {m, types, 2, lengths, 2, 256};
        assert_ok(fr_kv_table_print(&args, &text, &err));
        if (i == 0) {
            assert_non_null(strstr(text.p, "1098.00 MiB"));
            assert_non_null(strstr(text.p, "68.625 GiB"));
        }
        types[1] = FR_TYPE_Q4_K; /* no encoder writes rows of 576 */
        fr_buf_clear(&text);
        assert_int_equal(fr_kv_table_print(&args, &text, &err),
                         fr_type_can_encode(FR_TYPE_Q4_K) ? FR_OK : FR_EUNSUPPORTED);
        fr_buf_free(&text);
        fr_model_close(m);
        fr_gguf_close(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine),      cmocka_unit_test(test_engine_settings),
        cmocka_unit_test(test_refusal),     cmocka_unit_test(test_slices),
        cmocka_unit_test(test_layouts),     cmocka_unit_test(test_published_kv),
        cmocka_unit_test(test_kv_of_files),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
