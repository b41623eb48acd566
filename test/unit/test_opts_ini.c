/* INI files: the dialect, its limits lifted, errors with their lines, presets, hardware sections.
 */
#include <unistd.h>

#include "testing.h"

#include "base/file.h"
#include "base/log.h"
#include "opts/opts_internal.h"

static fr_err err;
static fr_options o;
static fr_buf logged;

static void to_buffer(void *user, fr_log_level level, const char *line)
{
    (void)user;
    fr_buf_printf(&logged, NULL, "%d %s\n", level, line);
}

static int start(void **state)
{
    (void)state;
    clearenv();
    fr_log_set_sink(to_buffer, NULL);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    fr_opts_free(&o);
    fr_buf_free(&logged);
    fr_log_set_sink(NULL, NULL);
    return fr_mem_total().bytes_now != 0;
}

static fr_status load(const char *path, const char *preset)
{
    const char *args[] = {"ferry", "--config", path, "--preset", preset};
    fr_opts_free(&o);
    fr_buf_clear(&logged);
    return fr_opts_parse(preset ? 5 : 3, (char **)(uintptr_t)args, FR_TOOL_SERVER, &o, &err);
}

static char path[128];

static fr_status load_bytes(const char *text, size_t n, const char *preset)
{
    snprintf(path, sizeof path, "%s/opts-%ld.ini", P_tmpdir, (long)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
    fr_status st = load(path, preset);
    remove(path);
    return st;
}

static fr_status load_text(const char *text)
{
    return load_bytes(text, strlen(text), NULL);
}

/* The error is "path" followed by `text`. */
static void fails(fr_status st, fr_status expected, const char *text)
{
    assert_int_equal(st, expected);
    size_t n = strlen(path);
    if (strncmp(err.text, path, n) != 0 || strcmp(err.text + n, text) != 0)
        fail_msg("found error '%s', expected 'FILE%s'", err.text, text);
}

static bool was_logged(const char *text)
{
    return logged.p && strstr(logged.p, text);
}

/* ---- the dialect
 * ------------------------------------------------------------------------------------ */

static void quotes_and_comments(void **state)
{
    (void)state;
    static const char *const expected[] = {"bare",
                                           "x;y#z",
                                           "  blanks kept  ",
                                           "say \"hi\" \\ and \\n",
                                           "{\"a\": \"b ; c\"}",
                                           "indented",
                                           "no blanks",
                                           "colon",
                                           "a = b : c",
                                           "don't stop",
                                           "last"};
    assert_ok(load(TEST_FILE("data/ini/quotes.ini"), NULL));
    assert_string_equal(o.prompt, "a ; b # c");
    assert_string_equal(o.system_prompt, "single \"quoted\" ; text # here");
    assert_int_equal(o.reverse_prompt.n, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < o.reverse_prompt.n; i++)
        assert_string_equal(o.reverse_prompt.items[i].text, expected[i]);
    assert_int_equal(o.reverse_prompt.items[0].origin.line, 5);
    assert_int_equal(o.reverse_prompt.items[10].origin.line, 16);
}

static void line_ends(void **state)
{
    (void)state;
    assert_ok(load_text("\xEF\xBB\xBF[run]\r\nctx-size = 5\r\n\r\nthreads=3"));
    assert_int_equal(o.ctx_size, 5);
    assert_int_equal(o.threads, 3);
    assert_int_equal(o.origins[FR_OPT_threads].line, 4);
    assert_ok(load_text(""));
    assert_ok(load_text("\n\n;x\n#y\n   \n"));
    assert_ok(load_text("model ="));
    assert_string_equal(o.model, "");
}

static void booleans(void **state)
{
    (void)state;
    static const char *const words[] = {"true", "on", "1", "enabled", "yes", "TRUE", "On"};
    static const char *const no_words[] = {"false", "off", "0", "disabled", "no", "FALSE", "Off"};
    for (size_t i = 0; i < 7; i++) {
        char text[128];
        snprintf(text, sizeof text,
                 "mlock=%s\nmmap=%s\nno-warmup=%s\nno-slots=%s\nno-cnv=%s\nfit=%s\n", words[i],
                 no_words[i], words[i], no_words[i], words[i], no_words[i]);
        assert_ok(load_text(text));
        assert_true(o.mlock && !o.mmap && !o.warmup && o.slots);
        assert_string_equal(o.conversation, "off");
        assert_string_equal(o.fit, "off");
    }
    assert_ok(load_text("no-conversation = 0\nLLAMA_ARG_NO_MMAP = 1\nno-fit = 1"));
    assert_string_equal(o.conversation, "on");
    assert_string_equal(o.fit, "off");
    assert_false(o.mmap);
}

/* Values as long as real rules are, with every hard character at every distance from a cut. */
static void long_lines(void **state)
{
    (void)state;
    static const size_t lengths[] = {1,   63,  64,  65,  127, 128,  129,  190,
                                     199, 200, 201, 255, 256, 4096, 4097, 100000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        fr_buf text = {0}, rule = {0};
        while (rule.n < lengths[i])
            assert_ok(fr_buf_printf(&rule, &err, "blk\\.%zu\\.(a|b);[^ ]  x=CUDA0,", rule.n));
        rule.p[rule.n = lengths[i]] = 0;
        rule.p[rule.n - 1] = 'x'; /* no blank, no backslash before the closing quote */
        assert_ok(fr_buf_printf(&text, &err, "[place]\not = %s\n  ot = \"%s\" ; both\nngl = 3\n",
                                rule.p, rule.p));
        for (char *c = text.p; *c; c++) /* a backslash before \ or " would count in quotes */
            assert_true(*c != '\\' || (c[1] != '\\' && c[1] != '"'));
        assert_ok(load_text(text.p));
        assert_int_equal(o.override_tensor.n, 2);
        assert_string_equal(o.override_tensor.items[0].text, rule.p);
        assert_string_equal(o.override_tensor.items[1].text, rule.p);
        assert_int_equal(o.override_tensor.items[1].origin.line, 3);
        assert_int_equal(o.origins[FR_OPT_n_gpu_layers].line, 4);
        fr_buf_free(&text);
        fr_buf_free(&rule);
    }
}

/* What opts_ini_quote writes, the parser reads. */
static void random_values_survive(void **state)
{
    (void)state;
    uint64_t seed = 20240817;
    static const char hard[] = " \t;#\"'\\=:[],.abcdefghij\xC3\xA9";
    for (int round = 0; round < 300; round++) {
        fr_buf text = {0}, values[4] = {{0}};
        for (int v = 0; v < 4; v++) {
            size_t n = 1 + test_rand(&seed) % (round % 3 == 0 ? 300 : 20);
            for (size_t i = 0; i < n; i++)
                assert_ok(
                    fr_buf_putc(&values[v], hard[test_rand(&seed) % (sizeof hard - 1)], &err));
            assert_ok(fr_buf_puts(&text, "r = ", &err));
            assert_ok(opts_ini_quote(values[v].p, &text, &err));
            assert_ok(fr_buf_puts(&text, v % 2 ? "\n" : " ; comment\n", &err));
        }
        assert_ok(load_text(text.p));
        assert_int_equal(o.reverse_prompt.n, 4);
        for (int v = 0; v < 4; v++) {
            assert_string_equal(o.reverse_prompt.items[v].text, values[v].p);
            fr_buf_free(&values[v]);
        }
        fr_buf_free(&text);
    }
}

/* ---- presets
 * ------------------------------------------------------------------------------------------- */

static void mainline_preset(void **state)
{
    (void)state;
    const char *file = TEST_FILE("data/ini/mainline.ini");
    assert_ok(load(file, "DeepSeek-R1-0528-IQ2_K_R4"));
    assert_string_equal(o.model, TEST_FILE("data/ini/models/R1.gguf"));
    assert_int_equal(o.ctx_size, 71680);
    assert_int_equal(o.n_gpu_layers, 99);
    assert_int_equal(o.origins[FR_OPT_n_gpu_layers].line, 6);
    assert_string_equal(o.flash_attn, "on");
    assert_string_equal(o.cache_type_k, "q8_0");
    assert_false(o.mmap || o.cont_batching);
    assert_int_equal(o.override_tensor.n, 2);
    assert_string_equal(o.override_tensor.items[0].text,
                        "blk\\.[0-4]\\.ffn_up_exps=CUDA0,blk\\.[0-4]\\.ffn_gate_exps=CUDA0");
    assert_string_equal(o.override_tensor.items[1].text, "exps=CPU");
    assert_int_equal(o.override_tensor.items[1].origin.line, 17);
    assert_true(o.temp == 0.5f && o.top_p == 0.9f);
    assert_false(was_logged("presets"));

    assert_ok(load(
        file, "unsloth/DeepSeek-V3.2-Speciale-GGUF:UD-Q4_K_XL-00001-of-00009-with-a-long-name"));
    assert_string_equal(o.model, "/abs/speciale.gguf");
    assert_int_equal(o.n_gpu_layers, 0);
    assert_int_equal(o.ctx_size, 8192);
    assert_true(o.mmap);
    assert_ok(load(file, "empty"));
    assert_null(o.model);
    assert_ok(load(file, NULL));
    assert_int_equal(o.ctx_size, 8192);
    assert_true(was_logged("has the presets DeepSeek-R1-0528-IQ2_K_R4, unsloth/"));
}

static void presets_that_fail(void **state)
{
    (void)state;
    const char text[] = "[*]\nc = 1\n[a]\nc = 2\nthread = 3\n[b]\nc = x\n[run]\nt = 4\n";
    assert_ok(load_bytes(text, strlen(text), NULL));
    assert_int_equal(o.ctx_size, 1);
    assert_true(was_logged(
        ":5: [a] thread: unknown key, expected an option's name; did you mean 'threads'?"));
    fails(load_bytes(text, strlen(text), "a"), FR_EINVAL,
          ":5: thread: unknown key, expected an option's name; did you mean 'threads'?");
    fails(load_bytes(text, strlen(text), "b"), FR_EINVAL,
          ":7: c: found 'x', expected a whole number from 0 to 16777216");
    assert_int_equal(load_bytes(text, strlen(text), "c"), FR_ENOTFOUND);
    assert_non_null(strstr(err.text, "--preset: found 'c', expected a section of "));
    assert_non_null(strstr(err.text, ": a, b"));
    assert_int_equal(load_bytes(text, strlen(text), "run"), FR_EINVAL);
    assert_non_null(strstr(err.text, "--preset: found 'run', whose section is always applied"));
    assert_int_equal(load_bytes("c=1", 3, "x"), FR_ENOTFOUND);
}

/* ---- hardware
 * ------------------------------------------------------------------------------------------ */

static void hardware(void **state)
{
    (void)state;
    static const struct {
        const char *section, *key, *value;
        int line;
    } expected[] = {{"gpu.0", "name", "RTX 3090", 2}, {"gpu.0", "vram", "24GiB ; all of it", 3},
                    {"gpu.12", "vram", "24GiB", 5},   {"ram", "budget", "256GiB", 7},
                    {"numa.0", "cpus", "0-15", 9},    {"links", "p2p", "off", 11},
                    {"link.3", "h2d", "25GB/s", 13},  {"disk", "read", "7GB/s", 15}};
    assert_ok(load(TEST_FILE("data/ini/hardware.ini"), NULL));
    assert_int_equal(o.n_hw, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < o.n_hw; i++) {
        assert_string_equal(o.hw[i].section, expected[i].section);
        assert_string_equal(o.hw[i].key, expected[i].key);
        assert_string_equal(o.hw[i].value, expected[i].value);
        assert_string_equal(o.hw[i].file, TEST_FILE("data/ini/hardware.ini"));
        assert_int_equal(o.hw[i].line, expected[i].line);
    }
    assert_int_equal(o.threads, 16);
    assert_false(was_logged("presets"));
    static const char *const bad[] = {"gpu",   "gpu.",  "gpu.x",   "gpu.1x",   "numa",
                                      "link.", "ram.0", "links.1", "gpu.12345"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[64], expect[200];
        snprintf(text, sizeof text, "\n[%s]\n", bad[i]);
        snprintf(expect, sizeof expect,
                 ":2: found [%s], expected [gpu.N], [numa.N] or [link.N] with a number, or [ram], "
                 "[links], [disk]",
                 bad[i]);
        fails(load_text(text), FR_EFORMAT, expect);
    }
}

/* ---- errors
 * --------------------------------------------------------------------------------------------- */

static void errors_have_lines(void **state)
{
    (void)state;
    fails(load_text("\n\ntemp = hot\n"), FR_EINVAL,
          ":3: temp: found 'hot', expected a number from -1 to 100");
    fails(load_text("; x\n[run]\nctx-size = -1"), FR_ERANGE,
          ":3: ctx-size: found '-1', expected a whole number from 0 to 16777216");
    fails(load_text("trheads = 2"), FR_EINVAL,
          ":1: trheads: unknown key, expected an option's name; did you mean 'threads'?");
    fails(load_text("LLAMA_ARG_CTX_SIZ = 2"), FR_EINVAL,
          ":1: LLAMA_ARG_CTX_SIZ: unknown key, expected an option's name; did you mean "
          "'LLAMA_ARG_CTX_SIZE'?");
    fails(load_text("qwertyuiop = 2"), FR_EINVAL,
          ":1: qwertyuiop: unknown key, expected an option's name; --print-reference-ini lists "
          "them all");
    fails(load_text("\ncontext"), FR_EFORMAT, ":2: found 'context', expected key = value");
    fails(load_text("= 3"), FR_EFORMAT, ":1: found no key before '=', expected key = value");
    fails(load_text("[run\nc=1"), FR_EFORMAT, ":1: found '[' without ']', expected [section]");
    fails(load_text("[ ]"), FR_EFORMAT, ":1: found an empty section name, expected [section]");
    fails(load_text("[run] c = 1"), FR_EFORMAT,
          ":1: found text after ']', expected the end of the line");
    fails(load_text("[run]; fine\n[model] # fine\np = \"abc"), FR_EFORMAT,
          ":3: found a value that begins with \" and does not end with it, expected a closing \"");
    fails(load_text("p = 'a' b"), FR_EFORMAT,
          ":1: found text after the closing ', expected the end of the line; put the whole value "
          "between double quotes");
    fails(load_bytes("c = 1\np = a\0b", 13, NULL), FR_EFORMAT,
          ":2: found the control character 0x00, expected text");
    fails(load_text("p = a\001b"), FR_EFORMAT,
          ":1: found the control character 0x01, expected text");
    fails(load_text("version = 2"), FR_EUNSUPPORTED,
          ":1: version: found '2', expected 1, the version of the file format");
    fails(load_text("c = 1\nconfig = x"), FR_EINVAL,
          ":2: config: not for INI files, expected on the command line");
    fails(load_text("rpc = a:1"), FR_EUNSUPPORTED,
          ":1: rpc: not supported: ferry runs on one machine; describe its GPUs and RAM in an INI "
          "file "
          "(--config) instead");
    fails(load_text("k0123456789k0123456789k0123456789k0123456789k01234567 = 1"), FR_EFORMAT,
          ":1: found a key of 53 bytes, expected at most 49");
    assert_int_equal(load("/", NULL), FR_EIO);
}

static void repeated_keys(void **state)
{
    (void)state;
    assert_ok(load_text("c = 1\nr = a\n[run]\nctx-size = 2\nr = b\n"));
    assert_int_equal(o.ctx_size, 2);
    assert_int_equal(o.reverse_prompt.n, 2);
    assert_true(was_logged(":4: ctx-size: given again after line 1; this one counts"));
}

static void too_large(void **state)
{
    (void)state;
    size_t n = (4u << 20) + 100;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, ';', n);
    assert_int_equal(load_bytes(text, n, NULL), FR_ERANGE);
    free(text);
}

/* ---- paths
 * -----------------------------------------------------------------------------------------------
 */

static void paths_count_from_the_file(void **state)
{
    (void)state;
    assert_ok(load_text(
        "model = a/b.gguf\nfile = -\noverride-tensor-file = r.txt\noverride-tensor-file = /r\n"
        "api-key-file = ../k"));
    char expected[256];
    snprintf(expected, sizeof expected, "%s/a/b.gguf", P_tmpdir);
    assert_string_equal(o.model, expected);
    assert_string_equal(o.prompt_file, "-");
    snprintf(expected, sizeof expected, "%s/r.txt", P_tmpdir);
    assert_string_equal(o.override_tensor_file.items[0].text, expected);
    assert_string_equal(o.override_tensor_file.items[1].text, "/r");
    snprintf(expected, sizeof expected, "%s/../k", P_tmpdir);
    assert_string_equal(o.api_key_file, expected);
    assert_int_equal(chdir(P_tmpdir), 0);
    FILE *f = fopen("opts-here.ini", "w");
    assert_non_null(f);
    fputs("model = x.gguf", f);
    fclose(f);
    assert_ok(load("opts-here.ini", NULL));
    assert_string_equal(o.model, "x.gguf");
    remove("opts-here.ini");
}

/* ---- files of the project
 * --------------------------------------------------------------------------------- */

static void demo_file(void **state)
{
    (void)state;
    const char *args[] = {"ferry-cli", "--config", SOURCE_FILE("configs/demo.ini")};
    assert_ok(fr_opts_parse(3, (char **)(uintptr_t)args, FR_TOOL_CLI, &o, &err));
    assert_null(logged.p);
    assert_string_equal(o.model, SOURCE_FILE("configs/demo/kjv-moe-q8_0.gguf"));
    assert_int_equal(access(o.model, R_OK), 0);
    assert_string_equal(o.prompt, "In the beginning");
    assert_int_equal(o.n_predict, 64);
    assert_true(o.seed >= 0 && o.temp > 0 && o.temp < 1);
}

static void reference_is_up_to_date(void **state)
{
    (void)state;
    fr_buf made = {0}, there = {0};
    assert_ok(fr_opts_reference_ini(&made, &err));
    assert_ok(fr_file_slurp(SOURCE_FILE("configs/reference.ini"), 1 << 20, &there, &err));
    if (strcmp(made.p, there.p) != 0)
        fail_msg("configs/reference.ini is old: ferry-cli --print-reference-ini > "
                 "configs/reference.ini");
    fr_buf_free(&made);
    fr_buf_free(&there);
}

/* With its comment marks off, every default is there and comes from the file. */
static void reference_parses(void **state)
{
    (void)state;
    fr_buf made = {0};
    assert_ok(fr_opts_reference_ini(&made, &err));
    assert_ok(load_text(made.p));
    for (int id = 0; id < FR_OPT_COUNT; id++)
        assert_true(o.origins[id].source == FR_FROM_DEFAULT || id == FR_OPT_config);
    for (char *c = made.p; (c = strchr(c, '\n')); c++)
        if (c[1] == ';' && c[2] != ' ' && c[2] != '\n')
            c[1] = ' ';
    for (char *c; (c = strstr(made.p, " =\n"));) { /* options without a default stay out */
        c[1] = '-';
        while (*c != '\n')
            c--;
        c[1] = ';';
    }
    assert_ok(load_text(made.p));
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        const opts_row *row = &opts_rows[id];
        fr_buf value = {0};
        if (!row->dflt || (row->flags & (OPTS_NO_INI | OPTS_REFUSED)))
            continue;
        assert_int_equal(o.origins[id].source, FR_FROM_INI);
        assert_ok(opts_format(&o, (fr_opt_id)id, 0, &value, &err));
        assert_string_equal(value.p, row->dflt);
        fr_buf_free(&value);
    }
    fr_buf_free(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, start, finish)
        T(quotes_and_comments),
        T(line_ends),
        T(booleans),
        T(long_lines),
        T(random_values_survive),
        T(mainline_preset),
        T(presets_that_fail),
        T(hardware),
        T(errors_have_lines),
        T(repeated_keys),
        T(too_large),
        T(paths_count_from_the_file),
        T(demo_file),
        T(reference_is_up_to_date),
        T(reference_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
