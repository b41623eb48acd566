/* Damaged INI files and command lines: any answer, but no crash, no leak, and lines that exist. */
#include <unistd.h>

#include "testing.h"

#include "base/file.h"
#include "base/log.h"
#include "opts/opts_internal.h"

#define CORPUS      16
#define INI_ROUNDS  30000
#define FILE_ROUNDS 3000
#define ARGV_ROUNDS 20000

static fr_err err;
static fr_buf corpus[CORPUS];
static size_t n_corpus;
static uint64_t seed = 0x5eed1e55;

static void to_nowhere(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static size_t below(size_t n)
{
    return (size_t)(test_rand(&seed) % n);
}

static void add_to_corpus(const char *path)
{
    assert_true(n_corpus < CORPUS);
    assert_ok(fr_file_slurp(path, 1 << 20, &corpus[n_corpus++], &err));
}

static int start(void **state)
{
    (void)state;
    clearenv();
    fr_log_set_sink(to_nowhere, NULL);
    assert_non_null(freopen("/dev/null", "r", stdin)); /* --config - reads it */
    static const char *const names[] = {"mainline.ini", "quotes.ini", "hardware.ini"};
    char path[512];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/data/ini/%s", FERRY_TEST_DIR, names[i]);
        add_to_corpus(path);
    }
    add_to_corpus(SOURCE_FILE("configs/demo.ini"));
    add_to_corpus(SOURCE_FILE("configs/reference.ini"));
    return 0;
}

static int finish(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_corpus; i++)
        fr_buf_free(&corpus[i]);
    fr_log_set_sink(NULL, NULL);
    return fr_mem_total().bytes_now != 0;
}

/* A file of the corpus with a few bytes, tokens or stretches changed. */
static void damaged(fr_buf *out)
{
    static const char *const tokens[] = {"[",     "]",         "=",     ":",         "\"",   "'",
                                         ";",     "#",         "\n",    "\\",        " ",    "\t",
                                         "[*]\n", "[gpu.0]\n", "no-",   "\r\n",      "\x01", "\x80",
                                         "ot = ", "= \"",      "\n\n[", "9999999999"};
    const fr_buf *from = &corpus[below(n_corpus)];
    size_t begin = below(from->n), n = 1 + below(from->n - begin);
    if (n > 600)
        n = 600;
    fr_buf_clear(out);
    assert_ok(fr_buf_add(out, from->p + begin, n, &err));
    for (size_t k = 1 + below(6); k > 0; k--) {
        size_t at = below(out->n), len = below(out->n - at);
        const char *token = tokens[below(sizeof tokens / sizeof *tokens)];
        fr_buf copy = {0};
        switch (below(4)) {
        case 0:
            out->p[at] = (char)below(256);
            break;
        case 1: /* a token goes in */
            assert_ok(fr_buf_add(&copy, out->p + at, out->n - at, &err));
            out->n = at;
            assert_ok(fr_buf_puts(out, token, &err));
            assert_ok(fr_buf_add(out, copy.p, copy.n, &err));
            break;
        case 2: /* a stretch comes twice */
            assert_ok(fr_buf_add(&copy, out->p + at, len, &err));
            assert_ok(fr_buf_add(out, copy.p ? copy.p : "", copy.n, &err));
            break;
        default: /* a stretch goes */
            memmove(out->p + at, out->p + at + len, out->n - at - len);
            out->n -= len;
        }
        fr_buf_free(&copy);
    }
}

typedef struct {
    int line, n_lines;
    size_t n;
} seen;

static fr_status take(void *user, const char *section, const char *key, const char *value, int line,
                      fr_err *e)
{
    seen *s = user;
    (void)e;
    assert_true(line >= 1 && line <= s->n_lines && line >= s->line);
    assert_true(strlen(section) <= s->n && !key == !value);
    if (key) {
        assert_true(line > s->line || s->line == 0);
        assert_in_range(strlen(key), 1, 49);
        assert_null(strpbrk(key, "=\n\x01\x02\x03\x04"));
        assert_true(strlen(value) <= s->n && !strpbrk(value, "\n\x01\x02\x03\x04"));
    }
    s->line = line;
    return FR_OK;
}

static void damaged_files_reader(void **state)
{
    (void)state;
    fr_buf text = {0};
    size_t n_ok = 0;
    for (int round = 0; round < INI_ROUNDS; round++) {
        damaged(&text);
        seen s = {.n_lines = 1, .n = text.n};
        for (size_t i = 0; i < text.n; i++)
            s.n_lines += text.p[i] == '\n';
        size_t before = fr_mem_total().bytes_now;
        fr_status st = opts_ini_parse("x.ini", text.p, text.n, take, &s, &err);
        assert_int_equal(fr_mem_total().bytes_now, before);
        assert_true(st == FR_OK || st == FR_EFORMAT);
        n_ok += st == FR_OK;
        int line = 0;
        if (st != FR_OK &&
            (sscanf(err.text, "x.ini:%d: found", &line) != 1 || line < 1 || line > s.n_lines))
            fail_msg("error without a line: %s", err.text);
    }
    assert_in_range(n_ok, INI_ROUNDS / 10, INI_ROUNDS * 9 / 10); /* both ways are tried */
    fr_buf_free(&text);
}

static void damaged_files_options(void **state)
{
    (void)state;
    fr_buf text = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/fuzz-%ld.ini", P_tmpdir, (long)getpid());
    for (int round = 0; round < FILE_ROUNDS; round++) {
        damaged(&text);
        size_t before = fr_mem_total().bytes_now;
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fwrite(text.p, 1, text.n, f);
        fclose(f);
        const char *args[] = {"ferry", "--config", path, "--preset", "empty"};
        fr_options o;
        fr_buf dump = {0};
        if (fr_opts_parse(round % 2 ? 3 : 5, (char **)(uintptr_t)args, FR_TOOL_SERVER, &o, &err) ==
            FR_OK)
            assert_ok(fr_opts_dump(&o, &dump, &err));
        fr_buf_free(&dump);
        fr_opts_free(&o);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    remove(path);
    fr_buf_free(&text);
}

/* A word that is, or resembles, an option or a value. */
static void some_word(char out[96])
{
    static const char *const values[] = {"",    "0",  "-1", "on", "off", "q8_0",        "1e99",
                                         "nan", "-",  "--", "=",  "a=b", "99999999999", "\xff",
                                         "-=",  "---"};
    if (below(3) == 0) {
        snprintf(out, 96, "%s", values[below(sizeof values / sizeof *values)]);
        return;
    }
    const char *rest = opts_rows[below(FR_OPT_COUNT)].names;
    opts_name name = {0};
    for (size_t skip = 0; skip < 3; skip++)
        if (below(2) == 0 || name.spelled.n == 0)
            opts_next_name(&rest, &name);
    if (name.spelled.n == 0 || name.ini_only || below(8) == 0)
        snprintf(out, 96, "--no-%.40s", "mmap");
    else
        snprintf(out, 96, "%.*s%s", (int)(name.spelled.n > 60 ? 60 : name.spelled.n),
                 name.spelled.p, below(5) == 0 ? "=7" : "");
    if (below(10) == 0 && out[0])
        out[below(strlen(out))] = (char)(1 + below(255));
}

static void damaged_command_lines(void **state)
{
    (void)state;
    size_t n_ok = 0;
    for (int round = 0; round < ARGV_ROUNDS; round++) {
        char words[8][96];
        char *argv[9] = {"ferry"};
        int argc = 1 + (int)below(8);
        for (int i = 1; i < argc; i++) {
            some_word(words[i - 1]);
            argv[i] = words[i - 1];
        }
        fr_options o;
        size_t before = fr_mem_total().bytes_now;
        n_ok += fr_opts_parse(argc, argv, (fr_tool)(1u << below(8)), &o, &err) == FR_OK;
        fr_opts_free(&o);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_in_range(n_ok, ARGV_ROUNDS / 20, ARGV_ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_files_reader),
        cmocka_unit_test(damaged_files_options),
        cmocka_unit_test(damaged_command_lines),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
