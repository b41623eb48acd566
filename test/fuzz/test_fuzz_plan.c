/* Plans of tiny models with random machines, options and rules, and names full of odd bytes: any
 * answer, but no crash and no leak; the JSON is always valid, and damaged JSON never harms --diff.
 */
#include "testing.h"

#include <jansson.h>
#include <math.h>

#include "base/log.h"
#include "planner/print.h"
#include "support/models.h"
#include "support/tiny_models.h"

enum { PLAN_ROUNDS = 3000, DIFF_ROUNDS = 3000 };

static uint64_t seed = 0x9e3779b97f4a7c15ull;
static fr_err err;

static uint64_t below(uint64_t n)
{
    return test_rand(&seed) % n;
}

static void to_nowhere(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* Bytes but no 0: letters, escapes, broken and rare UTF-8. */
static void odd_text(char *out, size_t n)
{
    static const char *const parts[] = {"a",  "<b>&\"'",      "\\u0000",  "\x01\x1f\x7f",
                                        "\"", "\xff\xfe",     "\xc3\xa9", "\xf0\x9f\x9a\xa2",
                                        "\n", "\xed\xa0\x80", "\xe2\x82", "]]>",
                                        "%s", "\xef\xbf\xbf"};
    size_t at = 0;
    out[0] = 0;
    for (uint64_t k = below(6); k > 0; k--) {
        const char *part = parts[below(sizeof parts / sizeof *parts)];
        if (at + strlen(part) >= n)
            break;
        strcpy(out + at, part);
        at += strlen(part);
    }
}

static fr_hardware odd_machine(void)
{
    fr_hardware hw;
    fr_hardware_defaults(&hw);
    hw.n_gpus = (int)below(4);
    hw.n_cores = (int)below(40) - 3;
    hw.ram_bytes = below(4) ? 1ull << (18 + below(20)) : below(UINT64_MAX);
    hw.ram_bandwidth = below(3) ? 1e11 : 0;
    odd_text(hw.cpu_name, sizeof hw.cpu_name);
    for (int i = 0; i < hw.n_gpus; i++) {
        fr_gpu_hw *g = &hw.gpus[i];
        *g = (fr_gpu_hw){.device = i,
                         .vram_bytes = below(8) ? 1ull << (16 + below(14)) : below(UINT64_MAX),
                         .reserve_bytes = below(3) ? 0 : 1ull << below(24),
                         .bandwidth = below(4) ? 9e11 : 0,
                         .f16_ops = below(4) ? 7e13 : 1e-300,
                         .int8_ops = below(4) ? 2e14 : 0,
                         .h2d = below(4) ? 2.5e10 : 0,
                         .d2h = below(4) ? 2.5e10 : 1e300};
        odd_text(g->name, sizeof g->name);
    }
    return hw;
}

static fr_plan_options odd_options(void)
{
    static const fr_type types[] = {FR_TYPE_F32, FR_TYPE_F16, FR_TYPE_Q8_0, FR_TYPE_Q4_0,
                                    FR_TYPE_Q4_K};
    fr_plan_options o = fr_plan_defaults();
    o.n_ctx = below(3) ? (int64_t)below(5000) : (int64_t)below(1ull << 40) - 5;
    o.n_ubatch = below(5) ? 1 + (int64_t)below(600) : (int64_t)below(1ull << 22) - 5;
    o.n_seq = below(5) ? 1 : (int64_t)below(70) - 3;
    o.n_outputs = 1 + (int64_t)below(300);
    o.type_k = types[below(5)];
    o.type_v = types[below(5)];
    o.kv_window = (int64_t)below(10) * 32;
    o.expand_bytes = below(1 << 20);
    o.n_gpu_layers = (int64_t)below(6) - 2;
    o.split_mode = below(4) ? FR_SPLIT_LAYER : FR_SPLIT_NONE;
    o.main_gpu = (int)below(4) - 1;
    o.n_split = below(3) ? 0 : (int)below(5);
    for (int i = 0; i < o.n_split; i++)
        o.split[i] = below(6) ? (double)below(5) : NAN;
    o.n_gpus = below(4) ? 0 : (int)below(3);
    for (int i = 0; i < o.n_gpus; i++)
        o.gpus[i] = (int)below(4) - (below(20) == 0);
    o.kv_on_cpu = below(3) == 0;
    o.fit = below(3) > 0;
    o.margin_bytes[0] = below(4) ? 0 : below(1ull << 34);
    o.goal = (fr_goal)below(3);
    o.n_threads = (int)below(70) - 2;
    o.strictness = (int)below(3) - 1;
    return o;
}

static void odd_rules(fr_rules *r)
{
    static const char *const good[] = {
        "exps=CPU",     "attn=CUDA0",      "blk\\.1\\.=CUDA*", "ffn_up_exps=CUDA0[1-2]",
        "output=CUDA1", "exps=CUDA*[0-3]", "norm=NUMA0",       "token_embd=CUDA0"};
    char odd[128], line[160];
    for (uint64_t k = below(4); k > 0; k--) {
        if (below(4))
            fr_rules_add_cli(r, good[below(8)], NULL);
        odd_text(odd, sizeof odd);
        snprintf(line, sizeof line, "%s|exps=CPU", odd);
        if (below(3) == 0)
            fr_rules_add_line(r, FR_RULE_FILE, line, below(2) ? odd : "file", (int)below(99), NULL);
    }
}

/* ---- one plan ----------------------------------------------------------------------------------
 */

static void check_json(fr_str text)
{
    json_error_t at;
    json_t *o = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &at);
    if (!o)
        fail_msg("JSON, line %d: %s", at.line, at.text);
    assert_true(json_is_array(json_object_get(o, "tensors")));
    json_decref(o);
}

/* No byte that XML 1.0 forbids, and every '<' begins a tag of ours. */
static void check_svg(fr_str text)
{
    static const char *const tags[] = {"<svg ",  "</svg>",  "<rect ",  "</rect>",
                                       "<text ", "</text>", "<title>", "</title>"};
    for (size_t i = 0; i < text.n; i++) {
        bool known = text.p[i] != '<';
        for (size_t t = 0; t < 8 && !known; t++)
            known = strncmp(text.p + i, tags[t], strlen(tags[t])) == 0;
        assert_true(known);
        assert_true((unsigned char)text.p[i] >= 32 || text.p[i] == '\n');
    }
}

static void check_outputs(const fr_plan *p)
{
    fr_buf out = {0};
    fr_print_style style = {.width = (int)below(200), .color = below(2)};
    size_t n;
    assert_ok(fr_plan_print_text(p, &style, &out, &err));
    fr_buf_clear(&out);
    assert_ok(fr_plan_print_svg(p, &out, &err));
    check_svg((fr_str){out.p, out.n});
    fr_buf_clear(&out);
    assert_ok(fr_plan_explain(p, "e", &out, &err));
    assert_ok(fr_plan_emit(p, below(2) ? FR_EMIT_OT : FR_EMIT_INI, &out, &err));
    fr_buf_clear(&out);
    assert_ok(fr_plan_print_json(p, &out, &err));
    check_json((fr_str){out.p, out.n});
    fr_str text = {out.p, out.n};
    fr_buf changes = {0};
    assert_ok(fr_plan_diff(text, text, "a", "b", &changes, &n, &err));
    assert_int_equal(n, 0);
    fr_buf_free(&changes);
    for (int d = 0; d < p->n_devices; d++)
        assert_true(p->devices[d].used <= p->devices[d].budget);
    fr_buf_free(&out);
}

static const char *write_model(int which)
{
    gguf_parts parts = which ? tiny_v2() : tiny_v3();
    char name[64];
    odd_text(name, sizeof name);
    parts_put_str(&parts, "general.name", name);
    const char *path = model_temp_path("plan.gguf");
    parts_save(&parts, path);
    parts_free(&parts);
    return path;
}

static void test_plans(void **state)
{
    (void)state;
    int n_ok = 0, n_full = 0, n_other = 0;
    for (int i = 0; i < PLAN_ROUNDS; i++) {
        fr_gguf *g;
        fr_model *m;
        fr_rules *rules;
        fr_plan *p;
        fr_diagnostics found = {0};
        const char *path = i % 50 == 0 ? write_model(i / 50 % 2) : model_temp_path("plan.gguf");
        fr_hardware hw = odd_machine();
        fr_plan_options o = odd_options();
        if (fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &g, &err) != FR_OK)
            continue; /* the odd name is not allowed */
        assert_ok(fr_model_open(g, (fr_mla_mode)below(4), &m, &err));
        assert_ok(fr_rules_new(&rules, &err));
        odd_rules(rules);
        fr_status st = fr_plan_make(m, &hw, rules, &o, &p, &found, &err);
        if (st == FR_OK)
            check_outputs(p);
        else
            assert_true(err.text[0] != 0 && !p);
        n_ok += st == FR_OK;
        n_full += st == FR_ENOMEM;
        n_other += st != FR_OK && st != FR_ENOMEM;
        fr_plan_free(p);
        fr_diagnostics_free(&found);
        fr_rules_free(rules);
        fr_model_close(m);
        fr_gguf_close(g);
    }
    print_message("%d planned, %d did not fit, %d refused\n", n_ok, n_full, n_other);
    assert_true(n_ok > 100 && n_full > 100 && n_other > 100);
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

/* ---- damaged JSON ------------------------------------------------------------------------------
 */

static void test_diff(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_model *m;
    fr_rules *rules;
    fr_plan *p;
    fr_hardware hw;
    fr_buf whole = {0}, damaged = {0}, out = {0};
    fr_plan_options o = fr_plan_defaults();
    size_t n;
    fr_hardware_defaults(&hw);
    hw.ram_bytes = 1ull << 40;
    o.n_ctx = 64;
    assert_ok(fr_gguf_open(MODEL_KJV, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
    assert_ok(fr_rules_new(&rules, &err));
    assert_ok(fr_plan_make(m, &hw, rules, &o, &p, NULL, &err));
    assert_ok(fr_plan_print_json(p, &whole, &err));
    for (int i = 0; i < DIFF_ROUNDS; i++) {
        fr_buf_clear(&damaged);
        fr_buf_clear(&out);
        assert_ok(fr_buf_add(&damaged, whole.p, whole.n, &err));
        for (uint64_t k = 1 + below(3); k > 0; k--) {
            char *at = damaged.p + below(damaged.n);
            /* mostly damage that is JSON still: another digit, another name */
            *at = below(3) == 0              ? (char)below(256)
                  : *at >= '0' && *at <= '9' ? (char)('0' + below(10))
                  : *at >= 'a' && *at <= 'z' ? (char)('a' + below(26))
                                             : *at;
        }
        if (below(20) == 0)
            damaged.n = below(damaged.n);
        fr_str a = {whole.p, whole.n}, b = {damaged.p, damaged.n};
        fr_status st = fr_plan_diff(i % 2 ? a : b, i % 2 ? b : a, "a", "b", &out, &n, &err);
        assert_true(st == FR_OK || st == FR_EFORMAT);
    }
    fr_buf_free(&whole);
    fr_buf_free(&damaged);
    fr_buf_free(&out);
    fr_plan_free(p);
    fr_rules_free(rules);
    fr_model_close(m);
    fr_gguf_close(g);
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

static int start(void **state)
{
    (void)state;
    fr_log_set_sink(to_nowhere, NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plans), cmocka_unit_test(test_diff)};
    return cmocka_run_group_tests(tests, start, NULL);
}
