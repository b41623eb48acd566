/* Numbers of threads: measured once, kept in a file, measured anew when the file is bad. */
#include "testing.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/engine_threads.h"

static char folder[128], path[192];
static int n_warnings;

static void count_warnings(void *user, fr_log_level level, const char *text)
{
    (void)user;
    (void)text;
    n_warnings += level == FR_LOG_WARN;
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ferry-threads-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/ferry/threads", folder);
    fr_log_set_sink(count_warnings, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char inner[192];
    snprintf(inner, sizeof inner, "%s/ferry", folder);
    unlink(path);
    rmdir(inner);
    return rmdir(folder);
}

/* A model of nothing but one weight. */
static fr_model_weight weight;
static fr_model model;

static void make_model(int64_t rows)
{
    static fr_gguf_tensor src;
    weight = (fr_model_weight){.src = &src, .role = FR_ROLE_FFN_GATE_EXPS};
    weight.shape = fr_weight_make(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, 256, rows, 4);
    model = (fr_model){.n_weights = 1, .weights = &weight};
}

static fr_thread_counts counts(void)
{
    fr_err err = {0};
    fr_thread_counts c = {0};
    fr_cpu_config cfg = {.max_isa = FR_ISA_AUTO};
    assert_ok(engine_thread_counts(&model, &cfg, path, &c, &err));
    assert_true(fr_threads_possible(&c));
    return c;
}

static void write_text(const char *text)
{
    fr_err err = {0};
    fr_out_file f;
    assert_ok(fr_file_create(path, &f, &err));
    assert_ok(fr_file_write(&f, text, strlen(text), &err));
    assert_ok(fr_file_commit(&f, &err));
}

static void read_text(fr_buf *text)
{
    fr_err err = {0};
    fr_buf_clear(text);
    assert_ok(fr_file_slurp(path, 1 << 20, text, &err));
}

static void test_counts_are_kept(void **state)
{
    (void)state;
    fr_buf first = {0}, text = {0};
    make_model(32);
    n_warnings = 0;
    fr_thread_counts a = counts(); /* the folders are made, too */
    read_text(&first);
    unsigned long long key;
    fr_thread_counts in_file;
    assert_int_equal(
        sscanf(first.p, "ferry-threads 1 %llx %d %d\n", &key, &in_file.n_single, &in_file.n_batch),
        3);
    assert_true(in_file.n_single == a.n_single && in_file.n_batch == a.n_batch);

    char line[128]; /* what is kept counts, not what would be measured */
    snprintf(line, sizeof line, "ferry-threads 1 %016llx 77 78\n", key);
    write_text(line);
    a = counts();
    assert_true(a.n_single == 77 && a.n_batch == 78);
    make_model(48); /* another model: a line of its own, and the other one stays */
    counts();
    read_text(&text);
    assert_true(strncmp(text.p, line, strlen(line)) == 0);
    assert_true(text.n > strlen(line));
    assert_int_equal(n_warnings, 0);
    fr_buf_free(&first);
    fr_buf_free(&text);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "ferry-threads 1 0123456789abcdef 1 99999\n",
        "ferry-threads 1 0123456789abcdef 1 1",
        "ferry-threads 1 0123456789abcdef 1 1 1\n",
    };
    fr_buf text = {0};
    make_model(32);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(bad[i]);
        n_warnings = 0;
        fr_thread_counts c = counts();
        assert_int_equal(n_warnings, 1);
        read_text(&text);
        assert_null(strstr(text.p, bad[i]));
        n_warnings = 0;
        fr_thread_counts again = counts();
        assert_true(again.n_single == c.n_single && again.n_batch == c.n_batch);
        assert_int_equal(n_warnings, 0);
    }
    fr_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_are_kept),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
