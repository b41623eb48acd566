/* Tensor rules: real command lines, and matching against POSIX regular expressions on real names.
 */
#include <regex.h>

#include "support/rule_checks.h"

/* ---- real command lines
 * -------------------------------------------------------------------------- */

/* Three RTX 3090: the down matrices of layers 0 to 2 do not exist. */
static void command_line_3x3090(void **state)
{
    (void)state;
    fr_rules *r =
        RULES("blk\\.[0-4]\\.ffn_up_exps=CUDA0,blk\\.[0-4]\\.ffn_gate_exps=CUDA0,"
              "blk\\.[0-2]\\.ffn_down_exps=CUDA0",
              "blk\\.1[0-2]\\.ffn_up_exps=CUDA1,blk\\.1[0-2]\\.ffn_gate_exps=CUDA1",
              "blk\\.1[3-4]\\.ffn_up_exps=CUDA2,blk\\.1[3-4]\\.ffn_gate_exps=CUDA2", "exps=CPU");
    assert_int_equal(fr_rules_count(r), 8);
    for (int layer = 0; layer < 61; layer++) {
        const char *device = layer >= 3 && layer <= 4     ? "CUDA0"
                             : layer >= 10 && layer <= 12 ? "CUDA1"
                             : layer >= 13 && layer <= 14 ? "CUDA2"
                                                          : "CPU";
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_up_exps.weight", layer);
        assert_device(r, name, 256, 100, layer < 3 ? "CUDA0" : device);
        snprintf(name, sizeof name, "blk.%d.ffn_gate_exps.weight", layer);
        assert_device(r, name, 256, 255, layer < 3 ? "CUDA0" : device);
        snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", layer);
        assert_device(r, name, 256, 0, layer < 3 ? "CUDA0" : "CPU");
        snprintf(name, sizeof name, "blk.%d.attn_q_a.weight", layer);
        assert_device(r, name, 1, 0, "-");
    }
    fr_diagnostics d = check_with(r, &r1, 3, 0, 0);
    assert_int_equal(count(&d, FR_ERROR), 0); /* it must start */
    assert_int_equal(d.n, 4);
    assert_string_equal(
        d.items[0].text,
        "-ot rule 3 `blk\\.[0-2]\\.ffn_down_exps=CUDA0`: found no tensor that it matches, expected "
        "at least one; layers 0, 1, 2 have no ffn_down_exps, the model has them in layers 3 to 60; "
        "smallest change: `blk\\.[3-5]\\.ffn_down_exps=CUDA0`");
    assert_int_equal(d.items[0].rule, 2);
    assert_words(d.items[1].text, "layers 3, 4:|ffn_gate_exps on CUDA0 (-ot rule 2)|"
                                  "ffn_up_exps on CUDA0 (-ot rule 1)|ffn_down_exps on CPU (-ot "
                                  "rule 8)");
    assert_words(d.items[2].text, "layers 10, 11, 12:|CUDA1");
    assert_words(d.items[3].text, "layers 13, 14:|CUDA2");
    fr_diagnostics_free(&d);
    d = check_with(r, &r1, 2, 0, 0); /* a machine with two GPUs */
    assert_int_equal(count(&d, FR_ERROR), 2);
    fr_diagnostics_free(&d);
    fr_rules_free(r);
}

static void command_line_exps_cpu(void **state)
{
    (void)state;
    const model *models[] = {&r1, &lite, &kimi};
    const size_t want[] = {58 * 3, 26 * 3, 60 * 3};
    fr_rules *r = RULES("exps=CPU");
    for (int k = 0; k < 3; k++) {
        size_t n = 0;
        for (size_t i = 0; i < models[k]->n; i++)
            n += target_at(r, models[k]->names[i], models[k]->n_experts[i], 0) != NULL;
        assert_int_equal(n, want[k]);
        fr_diagnostics d = check_with(r, models[k], 1, 0, 1);
        assert_int_equal(d.n, 0);
        fr_diagnostics_free(&d);
    }
    fr_rules_free(r);
}

/* ---- matching
 * ------------------------------------------------------------------------------------ */

/* Patterns of people, which POSIX understands too, on all names of three models. */
static void matches_as_posix(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "exps",
        "ffn_.*_exps",
        "^blk\\.[0-9]\\.",
        "blk\\.(3|4|5)\\.ffn_(up|gate)_exps",
        "blk\\.([0-9]|1[0-9]|2[0-4])\\.attn_",
        "blk.1.ffn",
        "\\.weight$",
        "^token_embd|^output",
        "attn_k_b|attn_v_b",
        "blk\\.[3-9]\\.ffn_down_exps\\.weight$",
        "(gate|up|down)_shexp",
        "exp_probs_b",
        "blk\\.(1|2)?[05]\\.",
        "blk\\.6[0-9]*\\.",
        "q_a.*norm",
        "[^a-z]b\\.bias",
        "nextn|indexer",
        "",
    };
    const model *models[] = {&r1, &lite, &kimi};
    size_t n_matched = 0;
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns - 1; p++) {
        regex_t posix;
        char rule[100];
        assert_int_equal(regcomp(&posix, patterns[p], REG_EXTENDED | REG_NOSUB), 0);
        snprintf(rule, sizeof rule, "%s=CPU", patterns[p]);
        fr_rules *r = RULES(rule);
        for (size_t i = 0; i < 3; i++)
            for (size_t k = 0; k < models[i]->n; k++) {
                int number;
                const char *name = models[i]->names[k];
                assert_ok(fr_rules_match(r, name, 0, &number, &err));
                assert_int_equal(number, regexec(&posix, name, 0, NULL, 0) == 0 ? 0 : -1);
                n_matched += number == 0;
            }
        fr_rules_free(r);
        regfree(&posix);
    }
    assert_in_range(n_matched, 5000, 20000);
}

/* Where ECMAScript and Perl differ, and case. */
static void ecmascript(void **state)
{
    (void)state;
    static const struct {
        const char *regex, *name;
        bool yes;
    } cases[] = {
        {"a$", "a", true},
        {"a$", "a\n", false},
        {"[]", "a", false},
        {"[^]", "a", true},
        {"\\x61", "a", true},
        {"\\u0061", "a", true},
        {"(?:(a)|b)\\1c", "bc", true},
        {"A", "a", false},
        {"\\bexp", "x_exp", false},
        {"(?=ffn)f", "ffn", true},
        {"\\d{2,3}", "12", true},
        {"\\d{2,3}\\.", "1.", false},
        {"a{,2}", "aa", false},
        {"\xC3\xA9", "\xC3\xA9", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[100];
        int number;
        snprintf(line, sizeof line, "#%s=CPU", cases[i].regex);
        fr_rules *r = RULES(line);
        assert_ok(fr_rules_match(r, cases[i].name, 0, &number, &err));
        if ((number == 0) != cases[i].yes)
            fail_msg("%s on %s", cases[i].regex, cases[i].name);
        fr_rules_free(r);
    }
}

static void first_match_wins(void **state)
{
    (void)state;
    fr_rules *r = RULES("a=CUDA0", "%-1", "b=CUDA1", "%5", "@ab=NUMA0", "a=CPU");
    int number;
    assert_int_equal(fr_rules_count(r), 6);
    static const fr_rule_source order[] = {FR_RULE_CLI, FR_RULE_CLI,     FR_RULE_INI,
                                           FR_RULE_CLI, FR_RULE_CPU_MOE, FR_RULE_CPU_MOE};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(fr_rules_at(r, i)->source, order[i]);
    static const int chain[] = {0, 1, 2, 3, -1};
    size_t from = 0;
    for (int i = 0; i < 5; i++, from = (size_t)number + 1) {
        assert_ok(fr_rules_match(r, "ab", from, &number, &err));
        assert_int_equal(number, chain[i]);
    }
    assert_ok(fr_rules_match(r, "blk.2.ffn_up_exps.weight", 0, &number, &err));
    assert_int_equal(number, 1); /* the b of blk: before --cpu-moe */
    assert_int_equal(fr_rules_at(r, 0)->line, 1);
    assert_int_equal(fr_rules_at(r, 3)->line, 3);
    assert_int_equal(fr_rules_at(r, 2)->line, 5);
    assert_string_equal(fr_rules_at(r, 2)->file, "m.ini");
    fr_rules_free(r);
}

static void cpu_moe(void **state)
{
    (void)state;
    char text[8], name[64];
    int number;
    for (int n = 1; n < 130; n++) {
        snprintf(text, sizeof text, "%%%d", n);
        fr_rules *r = RULES(text);
        for (int layer = 0; layer < 140; layer++) {
            snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", layer,
                     layer % 3 == 0   ? "up"
                     : layer % 3 == 1 ? "gate"
                                      : "down");
            assert_ok(fr_rules_match(r, name, 0, &number, &err));
            assert_int_equal(number, layer < n ? 0 : -1);
        }
        fr_rules_free(r);
    }
    fr_rules *r = RULES("%-1");
    for (size_t i = 0; i < kimi.n; i++) {
        assert_ok(fr_rules_match(r, kimi.names[i], 0, &number, &err));
        assert_int_equal(number, strstr(kimi.names[i], "_exps.") ? 0 : -1);
    }
    assert_ok(fr_rules_match(r, "blk.100000.ffn_gate_up_exps.weight", 0, &number, &err));
    assert_int_equal(number, 0);
    fr_rules_free(r);
    r = RULES("%0");
    assert_int_equal(fr_rules_count(r), 0);
    fr_rules_free(r);
    r = RULES("%10", "%2", "exps=CPU");
    fr_diagnostics d = check_with(r, &r1, 1, 0, 1);
    assert_int_equal(d.n, 2);
    assert_words(d.items[0].text, "--n-cpu-moe 10|layers 3 to 9 in RAM|before layer 3");
    assert_words(d.items[1].text, "--n-cpu-moe 2: found no tensor|layers 0, 1 have no|in layers 3 "
                                  "to 60; smallest change: --n-cpu-moe 4");
    fr_diagnostics_free(&d);
    fr_rules_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(command_line_3x3090), cmocka_unit_test(command_line_exps_cpu),
        cmocka_unit_test(matches_as_posix),    cmocka_unit_test(ecmascript),
        cmocka_unit_test(first_match_wins),    cmocka_unit_test(cpu_moe),
    };
    return cmocka_run_group_tests(tests, models_open, models_close);
}
