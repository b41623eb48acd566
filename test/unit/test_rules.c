/* Tensor rules: reading, matching (against POSIX regular expressions on real names), experts in
 * slices, and what the check says about rules on the headers of real models. */
#include <regex.h>
#include <unistd.h>

#include "testing.h"

#include "gguf/gguf.h"
#include "planner/rules_internal.h"
#include "planner/rules_scan.h"
#include "quant/qtype.h"

#define MAX_NAMES 2000

static fr_err err;

/* ---- models
 * -------------------------------------------------------------------------------------- */

typedef struct {
    fr_gguf *gguf;
    const char *names[MAX_NAMES];
    int64_t n_experts[MAX_NAMES];
    size_t n;
} model;

static model r1, lite, kimi;

static void open_model(model *m, const char *path)
{
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &m->gguf, &err));
    m->n = fr_gguf_n_tensors(m->gguf);
    assert_in_range(m->n, 1, MAX_NAMES);
    for (size_t i = 0; i < m->n; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(m->gguf, i);
        m->names[i] = t->name;
        m->n_experts[i] = strstr(t->name, "_exps.") ? t->dims[2] : 1;
    }
}

static int start(void **state)
{
    (void)state;
    open_model(&r1, TEST_FILE("data/headers/deepseek-r1-q4_k_r4.header.gguf"));
    open_model(&lite, TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf"));
    open_model(&kimi, TEST_FILE("data/headers/kimi-k2-iq2_k_r4.header.gguf"));
    return 0;
}

static int finish(void **state)
{
    (void)state;
    fr_gguf_close(r1.gguf);
    fr_gguf_close(lite.gguf);
    fr_gguf_close(kimi.gguf);
    return fr_mem_total().bytes_now != 0;
}

/* ---- rules and checks
 * ---------------------------------------------------------------------------- */

/* Rules of a list: "value of -ot", "@line of an INI file", "#line of a rule file", "%N" for
 * --n-cpu-moe N. */
static fr_rules *rules_of(const char *const *list, size_t n)
{
    fr_rules *r;
    assert_ok(fr_rules_new(&r, &err));
    for (size_t i = 0; i < n && list[i]; i++) {
        const char *text = list[i] + 1;
        if (*list[i] == '@')
            assert_ok(fr_rules_add_line(r, FR_RULE_INI, text, "m.ini", (int)i + 1, &err));
        else if (*list[i] == '#')
            assert_ok(fr_rules_add_line(r, FR_RULE_FILE, text, "x.rules", (int)i + 1, &err));
        else if (*list[i] == '%')
            assert_ok(fr_rules_add_cpu_moe(r, atoi(text), 3, &err));
        else
            assert_ok(fr_rules_add_cli(r, list[i], &err));
    }
    return r;
}

#define RULES(...)                                                                                 \
    rules_of((const char *const[]){__VA_ARGS__},                                                   \
             sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static fr_diagnostics check_with(const fr_rules *r, const model *m, int n_gpus, int n_numa,
                                 int strictness)
{
    fr_diagnostics d = {0};
    fr_rules_check_args args = {m->names, m->n_experts, m->n, n_gpus, n_numa, strictness};
    assert_ok(fr_rules_check(r, &args, &d, &err));
    return d;
}

/* Whether a text has all words, which '|' separates. */
static bool has_words(const char *text, const char *words)
{
    char list[1000], *word, *rest = list;
    snprintf(list, sizeof list, "%s", words);
    while ((word = strsep(&rest, "|")))
        if (!strstr(text, word))
            return false;
    return true;
}

static void assert_words(const char *text, const char *words)
{
    if (!has_words(text, words))
        fail_msg("expected \"%s\" in: %s", words, text);
}

static size_t count(const fr_diagnostics *d, fr_severity severity)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        n += d->items[i].severity == severity;
    return n;
}

/* The rule that takes expert 0 of a tensor: its target, or NULL. */
static const fr_target *target_at(const fr_rules *r, const char *name, int64_t n_experts,
                                  int64_t expert)
{
    fr_rule_pieces p = {0};
    const fr_target *t = NULL;
    assert_ok(fr_rules_apply(r, name, n_experts, &p, &err));
    for (size_t i = 0; i < p.n; i++)
        if (p.items[i].expert_from <= expert && expert <= p.items[i].expert_to &&
            p.items[i].rule >= 0)
            t = &fr_rules_at(r, (size_t)p.items[i].rule)->target;
    fr_rule_pieces_free(&p);
    return t;
}

static void assert_device(const fr_rules *r, const char *name, int64_t n_experts, int64_t expert,
                          const char *device)
{
    fr_buf text = {0};
    const fr_target *t = target_at(r, name, n_experts, expert);
    if (t) {
        fr_target whole = *t;
        whole.expert_from = -1;
        assert_ok(plan_target_print(&whole, &text, &err));
    } else {
        assert_ok(fr_buf_puts(&text, "-", &err));
    }
    if (strcmp(text.p, device))
        fail_msg("%s [%d]: %s, expected %s", name, (int)expert, text.p, device);
    fr_buf_free(&text);
}

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

/* ---- reading
 * ------------------------------------------------------------------------------------- */

static void devices(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        fr_target t;
    } good[] = {
        {"CPU", {FR_TARGET_CPU, 0, -1, -1, -1}},
        {"CUDA0", {FR_TARGET_GPU, 0, -1, -1, -1}},
        {"CUDA15", {FR_TARGET_GPU, 15, -1, -1, -1}},
        {"CUDA*", {FR_TARGET_ANY_GPU, 0, -1, -1, -1}},
        {"NUMA1", {FR_TARGET_NUMA, 1, -1, -1, -1}},
        {"CUDA1[0-31]", {FR_TARGET_GPU, 1, 0, 31, -1}},
        {"CUDA*[7]", {FR_TARGET_ANY_GPU, 0, 7, 7, -1}},
        {"CPU[128-255]", {FR_TARGET_CPU, 0, 128, 255, -1}},
    };
    static const char *const bad[] = {"",
                                      "cpu",
                                      "CUDA",
                                      "CUDA-1",
                                      "CUDA1x",
                                      "CPU0",
                                      "CUDA1[",
                                      "CUDA1[]",
                                      "CUDA1[1-",
                                      "CUDA1[1-2",
                                      "CUDA1[1-2]x",
                                      "CUDA1[3-2]",
                                      "CUDA1[-1]",
                                      "CUDA1[a-b]",
                                      "NUMA",
                                      "NUMA*",
                                      "CUDA99999999999",
                                      "CUDA 1",
                                      "GPU0",
                                      "CUDA1[0-9999999999]"};
    fr_target t;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        fr_buf text = {0};
        assert_true(plan_target_parse(fr_str_of(good[i].text), &t));
        assert_true(t.kind == good[i].t.kind && t.index == good[i].t.index);
        assert_true(t.expert_from == good[i].t.expert_from && t.layout == good[i].t.layout);
        assert_true(t.expert_to == good[i].t.expert_to);
        assert_ok(plan_target_print(&t, &text, &err));
        assert_string_equal(text.p, good[i].text);
        fr_buf_free(&text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (plan_target_parse(fr_str_of(bad[i]), &t))
            fail_msg("%s is accepted", bad[i]);
}

static void bad_rules(void **state)
{
    (void)state;
    static const struct {
        const char *text; /* '@' begins a line of a file */
        const char *words;
    } cases[] = {
        {"exps", "-ot rule 1 `exps`: found no '='|REGEX=DEVICE|rule file"},
        {"", "found no '='"},
        {"a=CPU,", "-ot rule 2 ``: found no '='"},
        {"=CPU", "no expression before '='|.*"},
        {"exps=", "found the device \"\", expected CPU, CUDA0"},
        {"exps=cuda0", "found the device \"cuda0\"|write CUDA0"},
        {"exps=Cpu", "write CPU"},
        {"exps=CUDA", "CUDA0 is the first GPU|CUDA*"},
        {"exps=GPU1", "GPUs are called CUDA0"},
        {"exps=CUDA_Host", "write CPU: ferry pins"},
        {"exps=Vulkan0", "CUDA only"},
        {"exps=RPC[10.0.0.1:50052]", "a part of the experts is written CUDA0[0-31]"},
        {"exps=CUDAO", "did you mean CUDA0?"},
        {"exps=CUDA1[31-0]", "upwards"},
        {"exps=CUDA1[0:31]", "CUDA0[0-31]"},
        {"exps=CPU,layout=plain", "in INI and rule files only"},
        {"(?=x)y=CPU", "first '=' ends the expression|rule file"},
        {"blk\\.(3=CPU", "at byte 7|\n    blk\\.(3\n           ^"},
        {"*ffn*=CPU", "at byte 0|any text is written .*\n    *ffn*\n    ^"},
        {"blk\\.[3-=CPU", "\n    blk\\.[3-\n            ^"},
        {"a{2,1}=CPU", "found no '='"}, /* the ',' ended the rule */
        {"@a{2,1}=CPU", "m.ini:7: rule `a{2,1}=CPU`|\n    a{2,1}\n    |^"},
        {"@exps=CPU,layout=r4",
         "m.ini:7|found layout \"r4\", expected plain, interleaved or native"},
        {"@exps", "m.ini:7: rule `exps`: found no '='"},
        {"@exps=CPU plain", "found the device \"CPU plain\""},
        {"@\xC3\xA9\xC3\xA9(=CPU", "\n    \xC3\xA9\xC3\xA9(\n       ^"},
        {"a\x01(=CPU", "`a?(=CPU`|\n    a?("},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fr_rules *r;
        bool line = cases[i].text[0] == '@';
        assert_ok(fr_rules_new(&r, &err));
        err = (fr_err){0};
        fr_status st = line ? fr_rules_add_line(r, FR_RULE_INI, cases[i].text + 1, "m.ini", 7, &err)
                            : fr_rules_add_cli(r, cases[i].text, &err);
        assert_int_equal(st, FR_EINVAL);
        assert_int_equal(err.code, FR_EINVAL);
        assert_words(err.text, cases[i].words);
        assert_int_equal(line ? FR_EINVAL : fr_rules_add_cli(r, cases[i].text, NULL), FR_EINVAL);
        fr_rules_free(r);
    }
}

/* The place of an error far into a long expression is still shown. */
static void long_expressions(void **state)
{
    (void)state;
    fr_buf text = {0};
    fr_rules *r;
    for (int i = 0; i < 300; i++)
        assert_ok(fr_buf_printf(&text, &err, "blk\\.%d\\.|", i));
    assert_ok(fr_buf_puts(&text, "here[=CPU", &err));
    assert_ok(fr_rules_new(&r, &err));
    assert_int_equal(fr_rules_add_cli(r, text.p, &err), FR_EINVAL);
    assert_words(err.text, "|here[\n|...");
    const char *caret = strrchr(err.text, '\n'), *shown = caret;
    while (shown[-1] != '\n')
        shown--;
    assert_int_equal(strlen(caret + 1), (size_t)(caret - shown) + 1); /* behind the last byte */
    for (int i = 0; i < 20000; i++)
        assert_ok(fr_buf_putc(&text, 'a', &err));
    assert_int_equal(fr_rules_add_cli(r, text.p, &err), FR_EINVAL);
    fr_rules_free(r);
    fr_buf_free(&text);
}

static void blanks(void **state)
{
    (void)state;
    fr_rules *r = RULES("a=CPU, b = CUDA0 ,c=CPU", "\td=CPU");
    static const char *const texts[] = {"a=CPU", "b = CUDA0", "c=CPU", "d=CPU"};
    static const char *const regexes[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(fr_rules_at(r, i)->text, texts[i]);
        assert_string_equal(fr_rules_at(r, i)->regex, regexes[i]);
    }
    fr_diagnostics d = check_with(r, &r1, 1, 0, -1);
    assert_int_equal(count(&d, FR_NOTE), 2);
    assert_words(d.items[0].text, "-ot rule 2 `b = CUDA0`: found blanks");
    assert_int_equal(d.items[0].rule, 1);
    assert_int_equal(d.items[1].rule, 3);
    fr_diagnostics_free(&d);
    fr_rules_free(r);
}

static void lines(void **state)
{
    (void)state;
    fr_rules *r =
        RULES("#  blk\\.\\d{1,2}\\.ffn(?=_up)_up = CUDA1[0-31] , layout = plain  ", "#", "#   ",
              "## a comment", "#; another", "#a,b=c=NUMA1", "#x=CPU,layout=interleaved\r");
    assert_int_equal(fr_rules_count(r), 3);
    const fr_rule *a = fr_rules_at(r, 0), *b = fr_rules_at(r, 1), *c = fr_rules_at(r, 2);
    assert_string_equal(a->regex, "blk\\.\\d{1,2}\\.ffn(?=_up)_up");
    assert_int_equal(a->target.layout, FR_LAYOUT_PLAIN);
    assert_int_equal(a->target.expert_to, 31);
    assert_int_equal(a->line, 1);
    assert_string_equal(a->file, "x.rules");
    assert_string_equal(b->regex, "a,b=c");
    assert_int_equal(b->target.layout, -1);
    assert_int_equal(b->line, 6);
    assert_string_equal(c->text, "x=CPU,layout=interleaved");
    assert_int_equal(c->target.layout, FR_LAYOUT_INTERLEAVED);
    fr_rules_free(r);
}

static void rule_files(void **state)
{
    (void)state;
    char path[] = "/tmp/ferry-rules-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char text[] = "\xEF\xBB\xBF# experts\r\nexps=CPU\r\n\r\nattn=CUDA0\n(=CPU";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    fr_rules *r;
    assert_ok(fr_rules_new(&r, &err));
    assert_int_equal(fr_rules_add_file(r, path, &err), FR_EINVAL);
    char want[100];
    snprintf(want, sizeof want, "%s:5: rule `(=CPU`", path);
    assert_words(err.text, want);
    assert_int_equal(fr_rules_count(r), 2);
    assert_string_equal(fr_rules_at(r, 0)->regex, "exps");
    assert_int_equal(fr_rules_at(r, 1)->line, 4);
    assert_int_equal(write(fd, "\0", 1), 1);
    assert_int_equal(fr_rules_add_file(r, path, &err), FR_EFORMAT);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_ok(fr_rules_add_file(r, path, &err));
    close(fd);
    unlink(path);
    assert_int_equal(fr_rules_add_file(r, path, &err), FR_ENOTFOUND);
    assert_int_equal(fr_rules_add_file(r, "/tmp", &err), FR_EIO);
    fr_rules_free(r);
}

/* ---- slices
 * -------------------------------------------------------------------------------------- */

static void slices(void **state)
{
    (void)state;
    fr_rules *r = RULES("exps=CUDA0[0-31]", "exps=CUDA1[16-63]", "down=CUDA*[200-300]", "exps=CPU");
    fr_rule_pieces p = {0};
    assert_ok(fr_rules_apply(r, "blk.3.ffn_down_exps.weight", 256, &p, &err));
    static const fr_rule_piece want[] = {{0, 31, 0}, {32, 63, 1}, {64, 199, 3}, {200, 255, 2}};
    assert_int_equal(p.n, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(p.items[i].expert_from, want[i].expert_from);
        assert_int_equal(p.items[i].expert_to, want[i].expert_to);
        assert_int_equal(p.items[i].rule, want[i].rule);
    }
    assert_ok(fr_rules_apply(r, "blk.3.ffn_up_exps.weight", 20, &p, &err));
    assert_int_equal(p.n, 1); /* all within the first slice */
    assert_int_equal(p.items[0].rule, 0);
    assert_ok(fr_rules_apply(r, "exps", 1, &p, &err)); /* slices pass over plain tensors */
    assert_int_equal(p.n, 1);
    assert_int_equal(p.items[0].rule, 3);
    assert_ok(fr_rules_apply(r, "attn", 5, &p, &err));
    assert_int_equal(p.n, 1);
    assert_int_equal(p.items[0].rule, -1);
    assert_int_equal(p.items[0].expert_to, 4);
    fr_rule_pieces_free(&p);
    fr_rules_free(r);
}

/* Random slices against asking each expert by itself. */
static void slices_by_expert(void **state)
{
    (void)state;
    uint64_t seed = 0x511CE5;
    fr_rule_pieces p = {0};
    for (int round = 0; round < 2000; round++) {
        int64_t n = 1 + (int64_t)(test_rand(&seed) % 40);
        int from[12], to[12];
        size_t n_rules = test_rand(&seed) % 12;
        fr_rules *r;
        assert_ok(fr_rules_new(&r, &err));
        for (size_t i = 0; i < n_rules; i++) {
            char text[40];
            from[i] = (int)(test_rand(&seed) % 45);
            to[i] = from[i] + (int)(test_rand(&seed) % 20);
            if (test_rand(&seed) % 12 == 0)
                from[i] = -1;
            if (from[i] < 0)
                snprintf(text, sizeof text, "x=CPU");
            else
                snprintf(text, sizeof text, "x=CUDA0[%d-%d]", from[i], to[i]);
            assert_ok(fr_rules_add_cli(r, text, &err));
        }
        assert_ok(fr_rules_apply(r, "x", n, &p, &err));
        int64_t expert = 0;
        for (size_t k = 0; k < p.n; k++) {
            assert_int_equal(p.items[k].expert_from, expert);
            assert_true(k == 0 || p.items[k].rule != p.items[k - 1].rule);
            for (; expert <= p.items[k].expert_to; expert++) {
                int want = -1;
                for (size_t i = 0; i < n_rules && want < 0; i++)
                    if (from[i] < 0 || (n > 1 && expert >= from[i] && expert <= to[i]))
                        want = (int)i;
                assert_int_equal(p.items[k].rule, want);
            }
        }
        assert_int_equal(expert, n);
        fr_rules_free(r);
    }
    fr_rule_pieces_free(&p);
}

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

/* ---- memory
 * -------------------------------------------------------------------------------------- */

static fr_status whole_life(fr_err *e)
{
    static const char *const names[] = {"token_embd.weight", "blk.0.ffn_up.weight",
                                        "blk.1.ffn_up_exps.weight", "blk.1.ffn_down_exps.weight",
                                        "blk.1.ffn_gate_exps.weight"};
    static const int64_t n_experts[] = {1, 1, 8, 8, 8};
    fr_rules_check_args args = {names, n_experts, 5, 1, 0, 0};
    fr_diagnostics d = {0};
    fr_rules *r = NULL;
    fr_status st = fr_rules_new(&r, e);
    if (st == FR_OK)
        st =
            fr_rules_add_cli(r, "up_exps=CUDA0[0-3], up_exps=CPU,blk\\.0\\.ffn_down_exps=CUDA1", e);
    if (st == FR_OK)
        st = fr_rules_add_line(r, FR_RULE_INI, "ffn_dwon_exps=CPU,layout=plain", "m.ini", 1, e);
    if (st == FR_OK)
        st = fr_rules_add_cpu_moe(r, 2, 1, e);
    if (st == FR_OK)
        st = fr_rules_check(r, &args, &d, e);
    if (st == FR_OK)
        assert_true(d.n >= 5);
    fr_diagnostics_free(&d);
    fr_rules_free(r);
    return st;
}

static void failing_allocations(void **state)
{
    (void)state;
    size_t before = fr_mem_total().bytes_now;
    uint64_t n = 1;
    for (;; n++) {
        fr_mem_fail_at(n, 0);
        fr_status st = whole_life(n % 2 ? &err : NULL);
        fr_mem_fail_at(0, 0);
        assert_int_equal(fr_mem_total().bytes_now, before);
        if (st == FR_OK && n > 100)
            break;
        /* Without memory for machine code a pattern is interpreted. */
        assert_true(st == FR_ENOMEM || st == FR_OK);
        assert_true(n < 2000);
    }
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(command_line_3x3090),
        cmocka_unit_test(command_line_exps_cpu),
        cmocka_unit_test(matches_as_posix),
        cmocka_unit_test(ecmascript),
        cmocka_unit_test(first_match_wins),
        cmocka_unit_test(cpu_moe),
        cmocka_unit_test(devices),
        cmocka_unit_test(bad_rules),
        cmocka_unit_test(long_expressions),
        cmocka_unit_test(blanks),
        cmocka_unit_test(lines),
        cmocka_unit_test(rule_files),
        cmocka_unit_test(slices),
        cmocka_unit_test(slices_by_expert),
        cmocka_unit_test(explanations),
        cmocka_unit_test(shadowed),
        cmocka_unit_test(severities),
        cmocka_unit_test(device_numbers),
        cmocka_unit_test(torn_experts),
        cmocka_unit_test(embedding),
        cmocka_unit_test(no_names),
        cmocka_unit_test(match_limit),
        cmocka_unit_test(ranges),
        cmocka_unit_test(scanning),
        cmocka_unit_test(layer_sets),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
