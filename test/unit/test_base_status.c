/* Error texts and the log. */
#include "testing.h"

#include "base/log.h"

static void test_fail_sets_code_and_text(void **state)
{
    (void)state;
    fr_err err = {0};
    assert_int_equal(fr_fail(&err, FR_ERANGE, "x: found %d, expected %s", 7, "less"), FR_ERANGE);
    assert_int_equal(err.code, FR_ERANGE);
    assert_string_equal(err.text, "x: found 7, expected less");
    assert_int_equal(fr_fail(NULL, FR_EIO, "nobody reads this"), FR_EIO);
}

/* Texts of every length near the size of the buffer: cut ones end in "...", others are whole. */
static void test_long_texts_are_cut(void **state)
{
    (void)state;
    enum { SIZE = sizeof((fr_err *)0)->text };
    char text[SIZE + 10];
    memset(text, 'a', sizeof text);
    for (int n = SIZE - 5; n < SIZE + 5; n++) {
        fr_err err;
        fr_fail(&err, FR_EINVAL, "%.*s", n, text);
        assert_int_equal(strlen(err.text), n < SIZE ? n : SIZE - 1);
        assert_string_equal(err.text + strlen(err.text) - 3, n < SIZE ? "aaa" : "...");

        fr_fail(&err, FR_EINVAL, "%.*s", n - 8, text);
        assert_int_equal(fr_err_context(&err, FR_EINVAL, "%s", "before"), FR_EINVAL);
        assert_int_equal(strncmp(err.text, "before: aaa", 11), 0);
        assert_int_equal(strlen(err.text), n < SIZE ? n : SIZE - 1);
        assert_string_equal(err.text + strlen(err.text) - 3, n < SIZE ? "aaa" : "...");

        fr_fail(&err, FR_EINVAL, "inner");
        fr_err_context(&err, FR_EINVAL, "%.*s", n, text); /* the context alone is too long */
        assert_true(strlen(err.text) < SIZE);
        assert_string_equal(err.text + strlen(err.text) - 3, n + 7 < SIZE ? "ner" : "...");
    }
}

static void test_context_keeps_the_code(void **state)
{
    (void)state;
    fr_err err;
    fr_status st = fr_fail(&err, FR_EFORMAT, "magic: found 0, expected GGUF");
    assert_int_equal(fr_err_context(&err, st, "file %s", "a.gguf"), FR_EFORMAT);
    assert_int_equal(err.code, FR_EFORMAT);
    assert_string_equal(err.text, "file a.gguf: magic: found 0, expected GGUF");
    assert_int_equal(fr_err_context(NULL, FR_EFORMAT, "file"), FR_EFORMAT);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(fr_status_name(FR_OK), "OK");
    assert_string_equal(fr_status_name(FR_EINVAL), "EINVAL");
    assert_string_equal(fr_status_name(FR_EINTERNAL), "EINTERNAL");
    assert_string_equal(fr_status_name((fr_status)(FR_EINTERNAL + 1)), "unknown status");
    assert_string_equal(fr_status_name((fr_status)-1), "unknown status");
}

static fr_status fails_when(int fail, int *undone)
{
    fr_status st = FR_OK;
    FR_TRY_OUT(st, fail ? FR_EIO : FR_OK);
    *undone = -1;
out:
    (*undone)++;
    return st;
}

static fr_status tries(int fail, int *reached)
{
    FR_TRY(fail ? FR_ECANCELLED : FR_OK);
    *reached = 1;
    return FR_OK;
}

static void test_try(void **state)
{
    (void)state;
    int undone = 0, reached = 0;
    assert_int_equal(fails_when(1, &undone), FR_EIO);
    assert_int_equal(undone, 1);
    assert_int_equal(fails_when(0, &undone), FR_OK);
    assert_int_equal(undone, 0);
    assert_int_equal(tries(1, &reached), FR_ECANCELLED);
    assert_int_equal(reached, 0);
    assert_int_equal(tries(0, &reached), FR_OK);
    assert_int_equal(reached, 1);
}

typedef struct {
    int n;
    fr_log_level level;
    char line[4096];
} logged;

static void remember(void *user, fr_log_level level, const char *line)
{
    logged *l = user;
    l->n++;
    l->level = level;
    snprintf(l->line, sizeof l->line, "%s", line);
}

static void test_log(void **state)
{
    (void)state;
    logged got = {0};
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    fr_log_set_sink(remember, &got);
    fr_log_info("%d layers", 61);
    assert_int_equal(got.n, 1);
    assert_int_equal(got.level, FR_LOG_INFO);
    assert_string_equal(got.line, "61 layers");
    fr_log_debug("not shown by default");
    assert_int_equal(got.n, 1);
    fr_log_set_level(FR_LOG_DEBUG);
    fr_log_debug("shown");
    assert_int_equal(got.n, 2);
    fr_log_set_level(FR_LOG_ERROR);
    fr_log_warn("not shown");
    assert_int_equal(got.n, 2);
    fr_log_error("%s", text); /* over-long lines are cut, not overrun */
    assert_int_equal(got.n, 3);
    assert_int_equal(got.level, FR_LOG_ERROR);
    assert_true(strlen(got.line) >= 1000 && strlen(got.line) < sizeof text);
    fr_log_set_sink(NULL, NULL);
    fr_log_set_level(FR_LOG_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail_sets_code_and_text),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_context_keeps_the_code),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_try),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
