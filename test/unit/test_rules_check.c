/* What the check says about rules on the headers of real models, and what its advice is made of. */
#include <regex.h>

#include "support/rule_checks.h"

#include "planner/rules_scan.h"
#include "quant/qtype.h"

/* ---- the check
 * ----------------------------------------------------------------------------------- */

/* The rule that a text proposes must match something. */
static void assert_change_works(const char *text, const model *m)
{
    const char *from = strstr(text, "smallest change: `");
    if (!from)
        return;
    from += strlen("smallest change: `");
    const char *to = strchr(from, '`');
    assert_non_null(to);
    char line[400];
    snprintf(line, sizeof line, "%.*s", (int)(to - from), from);
    fr_rules *r;
    assert_ok(fr_rules_new(&r, &err));
    assert_ok(fr_rules_add_line(r, FR_RULE_FILE, line, "x", 1, &err));
    bool found = false;
    for (size_t i = 0; i < m->n && !found; i++) {
        int number;
        assert_ok(fr_rules_match(r, m->names[i], 0, &number, &err));
        found = number == 0;
    }
    if (!found)
        fail_msg("this change does not help: %s", text);
    fr_rules_free(r);
}

static void explanations(void **state)
{
    (void)state;
    static const struct {
        const char *rule, *words;
    } cases[] = {
        /* layers */
        {"blk\\.0\\.ffn_up_exps=CPU",
         "layer 0 has no ffn_up_exps, the model has them in layers 3 to 60; smallest change: "
         "`blk\\.3\\.ffn_up_exps=CPU`"},
        {"#blk\\.(0|1|2)\\.ffn_(gate|up|down)_exps=CUDA1[0-31]",
         "layers 0, 1, 2 have no ffn_gate_exps, ffn_up_exps, ffn_down_exps|`blk\\.[3-5]\\.ffn_("
         "gate|up|down)_exps=CUDA1[0-31]`"},
        {"#blk\\.([3-9]|[1-5][0-9]|60)\\.ffn_up\\.=CPU,layout=plain",
         "layers 3 to 60 have no ffn_up, the model has them in layers 0, 1, 2; smallest change: "
         "`blk\\.[0-2]\\.ffn_up\\.=CPU,layout=plain`"},
        {"blk\\.(6[1-9]|7[0-4])\\.attn_norm=CUDA0",
         "the last layer is 60, the model has attn_norm in layers 0 to 60|`blk\\.(4[7-9]|5[0-9]|60)"
         "\\.attn_norm=CUDA0`"},
        {"blk\\.61\\.attn_norm=CPU", "`blk\\.60\\.attn_norm=CPU`"},
        {"blk\\.0?[0-2]\\.ffn_down_exps=CPU", "`blk\\.[3-5]\\.ffn_down_exps=CPU`"},
        {"\\.[12]\\.ffn_gate_inp=CPU", "layers 1, 2 have no ffn_gate_inp|`\\.[3-4]\\.ffn_gate_inp"},
        {"#^blk\\.1{2,2}0\\.ffn_norm\\.weight$=CPU", "`^blk\\.60\\.ffn_norm\\.weight$=CPU`"},
        /* misspelt */
        {"ffn_dwon_exps=CPU", "did you mean ffn_down_exps?|`ffn_down_exps=CPU`"},
        {"ffn_down_exp\\.=CPU", "did you mean ffn_down_exps?|`ffn_down_exps\\.=CPU`"},
        {"ffn_(up|gate)_expz=CPU", "did you mean exps?|`ffn_(up|gate)_exps=CPU`"},
        {"blk\\.2\\.ffn_downexps=CPU", "did you mean ffn_down_exps? Then: layer 2 has no "
                                       "ffn_down_exps|`blk\\.3\\.ffn_down_exps="},
        {"toke_embd=CPU", "did you mean token_embd?"},
        {"atn_q_a=CUDA0", "`attn_q_a=CUDA0`"},
        {"blk\\.5\\.atn_kv_b=CUDA0", "`blk\\.5\\.attn_kv_b=CUDA0`"},
        /* habits */
        {"blk\\\\.3\\\\.ffn_up=CPU", "two backslashes|`blk\\.3\\.ffn_up=CPU`"},
        {"FFN_UP_EXPS=CPU", "lower case|`ffn_up_exps=CPU`"},
        {"'exps'=CPU", "no blanks or quotes|`exps=CPU`"},
        {"^ffn_up_exps=CPU", "^ and $ stand|`ffn_up_exps=CPU`"},
        {"ffn_up_exps$=CPU", "`ffn_up_exps=CPU`"},
        {"@exps=CPU,attn=CUDA0", "a line of a file is one rule|the first is `exps=CPU`"},
        {"model\\.layers\\.3\\.mlp\\.experts=CPU", "in GGUF files, layers are blk.0|ffn_("},
        {"lm_head=CPU", "the output matrix output"},
        /* nothing near */
        {"zzz=CPU", "the nearest names: "},
        {"(x+x+)+y=CPU", "the nearest names: "},
        {"shared_down=CPU", "the nearest names: |ffn_down"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fr_rules *r = RULES(cases[i].rule);
        fr_diagnostics d = check_with(r, &r1, 3, 0, 0);
        assert_true(d.n >= 1);
        assert_words(d.items[0].text, "found no tensor that it matches, expected at least one; ");
        assert_words(d.items[0].text, cases[i].words);
        assert_change_works(d.items[0].text, &r1);
        fr_diagnostics_free(&d);
        fr_rules_free(r);
    }
}

static void shadowed(void **state)
{
    (void)state;
    fr_rules *r = RULES("up_exps=CPU", "@down_exps=CPU", "#blk\\.3\\.ffn_(up|down)_exps=CUDA0",
                        "gate_exps=CUDA0[0-127]", "gate_exps=CUDA1[128-255]", "gate_exps=CPU",
                        "attn=CUDA0", "attn=CUDA0");
    fr_diagnostics d = check_with(r, &r1, 2, 0, 0);
    assert_words(d.items[0].text,
                 "x.rules:3: rule `blk\\.3\\.ffn_(up|down)_exps=CUDA0`: found no tensor left|"
                 "-ot rule 1 `up_exps=CPU` (1 tensor), m.ini:2: rule `down_exps=CPU` (1 tensor); "
                 "smallest change: put it before -ot rule 1");
    assert_int_equal(d.items[0].severity, FR_ERROR);
    assert_words(d.items[1].text, "-ot rule 4 `gate_exps=CPU`: found no tensor left|(58 tensors), "
                                  "-ot rule 3");
    assert_int_equal(d.items[1].severity, FR_WARNING);
    assert_words(d.items[2].text, "-ot rule 6 `attn=CUDA0`|-ot rule 5 `attn=CUDA0` (");
    assert_words(d.items[3].text,
                 "layers 3 to 60: found ffn_gate_exps on CUDA0 (-ot rule 2), "
                 "ffn_up_exps on CPU (-ot rule 1), ffn_down_exps on CPU (m.ini:2)");
    assert_int_equal(d.n, 4);
    fr_diagnostics_free(&d);
    fr_rules_free(r);
}

static void severities(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        fr_severity at[3]; /* lax, default, strict */
    } cases[] = {
        {"zzz=CPU", {FR_WARNING, FR_WARNING, FR_ERROR}},
        {"@zzz=CPU", {FR_WARNING, FR_ERROR, FR_ERROR}},
        {"#zzz=CPU", {FR_WARNING, FR_ERROR, FR_ERROR}},
        {"%1", {FR_WARNING, FR_WARNING, FR_ERROR}},
        {"exps=CUDA9", {FR_ERROR, FR_ERROR, FR_ERROR}},
        {"exps=CUDA0[0-256]", {FR_WARNING, FR_WARNING, FR_WARNING}},
        {"@exps=CUDA0[256-260]", {FR_WARNING, FR_ERROR, FR_ERROR}},
        {"@attn_q_a=CUDA0[0-2]", {FR_WARNING, FR_ERROR, FR_ERROR}},
        {"@token_embd=CUDA0", {FR_WARNING, FR_WARNING, FR_WARNING}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int s = -1; s <= 1; s++) {
            fr_rules *r = RULES(cases[i].rule);
            fr_diagnostics d = check_with(r, &r1, 1, 0, s);
            assert_int_equal(d.n, 1);
            assert_int_equal(d.items[0].severity, cases[i].at[s + 1]);
            fr_diagnostics_free(&d);
            fr_rules_free(r);
        }
}

static void device_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        int n_gpus, n_numa;
        const char *words; /* NULL: fine */
    } cases[] = {
        {"exps=CUDA0", 1, 0, NULL},
        {"exps=CUDA2", 3, 0, NULL},
        {"exps=CUDA*", 1, 0, NULL},
        {"exps=NUMA0", 0, 0, NULL},
        {"exps=NUMA1", 0, 2, NULL},
        {"exps=CUDA1", 1, 0, "found CUDA1, expected CUDA0, the only GPU"},
        {"exps=CUDA3", 3, 0, "found CUDA3, expected CUDA0 to CUDA2: there are 3 GPUs"},
        {"exps=CUDA0", 0, 0, "no GPU|[gpu.0]"},
        {"exps=CUDA*", 0, 0, "no GPU"},
        {"exps=NUMA1", 0, 0, "found NUMA1, expected NUMA0: there is one node"},
        {"exps=NUMA2", 0, 2, "expected NUMA0 to NUMA1: there are 2 nodes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fr_rules *r = RULES(cases[i].rule);
        fr_diagnostics d = check_with(r, &lite, cases[i].n_gpus, cases[i].n_numa, 0);
        assert_int_equal(d.n, cases[i].words != NULL);
        if (d.n)
            assert_words(d.items[0].text, cases[i].words);
        assert_int_equal(count(&d, FR_ERROR), d.n);
        fr_diagnostics_free(&d);
        fr_rules_free(r);
    }
}

static void torn_experts(void **state)
{
    (void)state;
    static const struct {
        const char *rules[4];
        const char *words; /* of the only warning; NULL: none */
    } cases[] = {
        {{"exps=CUDA0"}, NULL},
        {{"up_exps=CUDA0"}, NULL}, /* the solver can put the others beside it */
        {{"up_exps=CUDA0", "(gate|down)_exps=CUDA*"}, NULL},
        {{"up_exps=NUMA0", "(gate|down)_exps=CPU"}, NULL},
        {{"exps=CUDA0[0-31]", "exps=CPU"}, NULL},
        {{"up_exps=CUDA0", "(gate|down)_exps=CUDA1"}, "layers 1 to 26|on CUDA0|on CUDA1"},
        {{"up_exps=CUDA*", "(gate|down)_exps=CPU"}, "ffn_up_exps on CUDA* (-ot rule 1)"},
        {{"\\.5\\.ffn_up_exps=CUDA0[8-11]", "exps=CPU"}, "layer 5:|ffn_up_exps on CUDA0"},
        {{"[79]\\.ffn_up_exps=CUDA0", "exps=CPU"}, "layers 7, 9, 17, 19:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fr_rules *r = rules_of(cases[i].rules, 4);
        fr_diagnostics d = check_with(r, &lite, 2, 2, 1);
        assert_int_equal(d.n, cases[i].words != NULL);
        if (d.n)
            assert_words(d.items[0].text, cases[i].words);
        fr_diagnostics_free(&d);
        fr_rules_free(r);
    }
}

static void embedding(void **state)
{
    (void)state;
    fr_rules *r = RULES("token_embd=CUDA0");
    fr_diagnostics d = check_with(r, &r1, 1, 0, 0);
    assert_int_equal(d.n, 1);
    assert_words(d.items[0].text, "-ot rule 1 `token_embd=CUDA0`|`^token_embd=CPU`");
    fr_diagnostics_free(&d);
    /* Where it is the output matrix as well, a GPU is its place. */
    const char *tied[] = {"token_embd.weight", "blk.0.attn_q.weight"};
    fr_rules_check_args args = {tied, NULL, 2, 1, 0, 0};
    assert_ok(fr_rules_check(r, &args, &d, &err));
    assert_int_equal(d.n, 0);
    fr_rules_free(r);
    r = RULES("^token_embd=CPU", ".*=CUDA*");
    d = check_with(r, &r1, 1, 0, 1);
    assert_int_equal(d.n, 0);
    fr_diagnostics_free(&d);
    fr_rules_free(r);
}

static void no_names(void **state)
{
    (void)state;
    fr_rules *r = RULES("exps=CPU", "%3", "%-1");
    fr_rules_check_args args = {NULL, NULL, 0, 0, 0, 0};
    fr_diagnostics d = {0};
    assert_ok(fr_rules_check(r, &args, &d, &err));
    assert_int_equal(count(&d, FR_WARNING), 3);
    fr_diagnostics_free(&d);
    fr_rules_free(r);
    static const char *const dense[] = {"output.weight", "blk.0.ffn_up.weight"};
    args = (fr_rules_check_args){dense, NULL, 2, 0, 0, 0};
    r = RULES("%-1");
    assert_ok(fr_rules_check(r, &args, &d, &err));
    assert_int_equal(d.n, 1);
    assert_words(d.items[0].text, "--cpu-moe|the model has no routed experts");
    fr_diagnostics_free(&d);
    fr_rules_free(r);
}

/* ---- limits
 * -------------------------------------------------------------------------------------- */

static void match_limit(void **state)
{
    (void)state;
    fr_rules *r = RULES("#(\\w+\\.?)*[0-9]$=CPU", "exps=CPU");
    int number;
    const char *name = "blk.3.ffn_down_exps.weight";
    assert_int_equal(fr_rules_match(r, name, 0, &number, &err), FR_ERANGE);
    assert_words(err.text, "x.rules:1: rule `(\\w+\\.?)*[0-9]$=CPU`|too many ways|(a+)+");
    assert_int_equal(fr_rules_match(r, name, 0, &number, NULL), FR_ERANGE);
    assert_ok(fr_rules_match(r, name, 1, &number, &err));
    assert_int_equal(number, 1);
    fr_diagnostics d = check_with(r, &r1, 0, 0, -1);
    assert_int_equal(d.n, 1); /* said once, and the other rule works on */
    assert_int_equal(d.items[0].severity, FR_ERROR);
    assert_int_equal(d.items[0].rule, 0);
    fr_diagnostics_free(&d);
    fr_rules_free(r);
}

/* ---- helpers of the advice
 * ----------------------------------------------------------------------- */

static void ranges(void **state)
{
    (void)state;
    uint64_t seed = 0xA5;
    for (int round = 0; round < 300; round++) {
        int from = (int)(test_rand(&seed) % 130), to = from + (int)(test_rand(&seed) % 40);
        fr_buf text = {0};
        regex_t posix;
        assert_ok(fr_buf_putc(&text, '^', &err));
        assert_ok(plan_range_regex(from, to, &text, &err));
        assert_ok(fr_buf_putc(&text, '$', &err));
        assert_null(strchr(text.p, ','));
        assert_int_equal(regcomp(&posix, text.p, REG_EXTENDED | REG_NOSUB), 0);
        for (int i = 0; i < 300; i++) {
            char number[8];
            snprintf(number, sizeof number, "%d", i);
            assert_int_equal(regexec(&posix, number, 0, NULL, 0) == 0, i >= from && i <= to);
        }
        regfree(&posix);
        fr_buf_free(&text);
    }
}

static void scanning(void **state)
{
    (void)state;
    static const struct {
        const char *regex, *numbers, *words, *sample;
    } cases[] = {
        {"blk\\.[0-2]\\.ffn_up_exps", "[0-2] ", "blk ffn_up_exps ", "blk.0.ffn_up_exps"},
        {"blk\\.(3|1[0-9])\\.attn.*q8", "(3|1[0-9]) ", "blk attn ", "blk.3.attnq8"},
        {"^blk\\.\\d+\\.(up|down)_x$", "\\d+ ", "blk down ", "blk.0.up_x"},
        {"(?:1|2){1,2}x[a-z]+\\d", "\\d ", "", "1xa0"},
        {"(?:1|2)?\\.5*|never", "(?:1|2)? 5* ", "never ", "1.5"},
        {"[", "", "", ""},
        {"(((((1)))))", "(((((1))))) ", "", "1"},
        {"(1|", "1 ", "", "1"},
        {"a{3}\\", "", "", "a"},
        {"[\\]x]abc", "", "abc ", "abc"},
        {"(?<name>abc)(?=x", "", "abc ", "abcx"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plan_span spans[8];
        fr_str regex = fr_str_of(cases[i].regex);
        fr_buf text = {0};
        assert_ok(fr_buf_puts(&text, "", &err));
        size_t n = plan_scan_numbers(regex, spans, 8);
        for (size_t k = 0; k < n; k++)
            assert_ok(fr_buf_printf(&text, &err, "%.*s ", (int)(spans[k].to - spans[k].from),
                                    regex.p + spans[k].from));
        if (strcmp(text.p, cases[i].numbers) && i != 6) /* nested too deeply: parts of it */
            fail_msg("%s: numbers %s", cases[i].regex, text.p);
        fr_buf_clear(&text);
        n = plan_scan_words(regex, spans, 8);
        for (size_t k = 0; k < n; k++)
            assert_ok(fr_buf_printf(&text, &err, "%.*s ", (int)(spans[k].to - spans[k].from),
                                    regex.p + spans[k].from));
        assert_string_equal(text.p, cases[i].words);
        fr_buf_clear(&text);
        assert_ok(plan_scan_sample(regex, &text, &err));
        assert_string_equal(text.p, cases[i].sample);
        fr_buf_free(&text);
    }
}

static void layer_sets(void **state)
{
    (void)state;
    static const struct {
        int64_t layers[8]; /* ended by -1 */
        const char *text;
    } cases[] = {
        {{3, -1}, "layer 3"},
        {{0, 1, 2, -1}, "layers 0, 1, 2"},
        {{3, 4, 5, 6, -1}, "layers 3 to 6"},
        {{0, 62, 63, 64, 65, 2000, -1}, "layers 0, 62 to 65, 2000"},
        {{2047, 2048, -1}, "layer 2047"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plan_layers set = {0};
        fr_buf text = {0};
        for (int k = 0; cases[i].layers[k] >= 0; k++)
            plan_layers_add(&set, cases[i].layers[k]);
        assert_ok(plan_layers_print(&set, &text, &err));
        assert_string_equal(text.p, cases[i].text);
        fr_buf_free(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(explanations), cmocka_unit_test(shadowed),
        cmocka_unit_test(severities),   cmocka_unit_test(device_numbers),
        cmocka_unit_test(torn_experts), cmocka_unit_test(embedding),
        cmocka_unit_test(no_names),     cmocka_unit_test(match_limit),
        cmocka_unit_test(ranges),       cmocka_unit_test(scanning),
        cmocka_unit_test(layer_sets),
    };
    return cmocka_run_group_tests(tests, models_open, models_close);
}
