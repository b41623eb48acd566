/* Tensor rules as text: devices, lines, files, what is refused, experts in slices, and memory that
 * runs out. */
#include <unistd.h>

#include "support/rule_checks.h"

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
        cmocka_unit_test(devices),
        cmocka_unit_test(bad_rules),
        cmocka_unit_test(long_expressions),
        cmocka_unit_test(blanks),
        cmocka_unit_test(lines),
        cmocka_unit_test(rule_files),
        cmocka_unit_test(slices),
        cmocka_unit_test(slices_by_expert),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, models_open, models_close);
}
