/* ferry-bench without an engine: lists, tests, means, the roofline, and the memory that fails. */
#include "testing.h"

#include <math.h>

#include "base/log.h"
#include "base/mem.h"
#include "bench/bench_fields.h"
#include "common/int_list.h"

static fr_options o;
static fr_err err;

static fr_status parse(int argc, const char **argv)
{
    fr_opts_free(&o);
    return fr_opts_parse(argc, (char **)(uintptr_t)argv, FR_TOOL_BENCH, &o, &err);
}
#define PARSE(...)                                                                                 \
    parse((int)(sizeof((const char *[]){"ferry-bench", __VA_ARGS__}) / sizeof(char *)),            \
          (const char *[]){"ferry-bench", __VA_ARGS__})

/* ---- lists ----------------------------------------------------------------------------------- */

static void ints(const char *text, const char *expected)
{
    tool_ints list = {0};
    fr_buf found = {0};
    fr_status st = tool_ints_parse("-p", text, 0, 100000, &list, &err);
    for (size_t i = 0; st == FR_OK && i < list.n; i++)
        assert_ok(fr_buf_printf(&found, &err, "%lld ", (long long)list.v[i]));
    if (st != FR_OK)
        assert_ok(fr_buf_puts(&found, fr_status_name(st), NULL));
    if (strcmp(found.p, expected) != 0)
        fail_msg("%s: found '%s', expected '%s'", text, found.p, expected);
    fr_buf_free(&found);
    fr_mem_free(list.v);
}

static void lists_of_numbers(void **state)
{
    (void)state;
    ints("512", "512 ");
    ints("1,2,4", "1 2 4 ");
    ints("1-4", "1 2 3 4 ");
    ints("512-2048+512", "512 1024 1536 2048 ");
    ints("1-64*4,7", "1 4 16 64 7 ");
    ints("5-5", "5 ");
    ints("0", "0 ");
    ints("", "EINVAL");
    ints("1,", "EINVAL");
    ints(",1", "EINVAL");
    ints("1 2", "EINVAL");
    ints("4-1", "EINVAL");
    ints("1-8*1", "EINVAL");
    ints("0-8*2", "EINVAL");
    ints("1-8+0", "EINVAL");
    ints("x", "EINVAL");
    ints("99999999999999999999", "EINVAL");
    ints("100001", "ERANGE");
    ints("1-100000", "ERANGE"); /* too many */
}

static void check_tests(const char *expected, int64_t n_ctx, int64_t longest)
{
    bench_plan p;
    fr_buf found = {0};
    assert_ok(bench_plan_make(&o, &p, &err));
    for (size_t i = 0; i < p.n_tests; i++)
        assert_ok(fr_buf_printf(&found, &err, "%s%s", i ? ", " : "", p.tests[i].name));
    assert_string_equal(found.p, expected);
    assert_int_equal(p.n_ctx, n_ctx);
    assert_int_equal(p.longest, longest);
    bench_plan_free(&p);
    fr_buf_free(&found);
}

static void names_of_tests(void **state)
{
    (void)state;
    assert_ok(PARSE("-m", "x"));
    check_tests("pp512, tg128", 512, 512);
    assert_ok(PARSE("-m", "x", "-p", "0", "-pg", "512,128", "-gp", "512,64"));
    check_tests("tg128, pp512+tg128, tg64@pp512", 640, 512);
    assert_ok(PARSE("-m", "x", "-p", "64,128", "-n", "0", "-d", "0,4096"));
    check_tests("pp64, pp128, pp64 @ d4096, pp128 @ d4096", 4224, 4096);
    bench_plan p;
    assert_ok(PARSE("-m", "x", "-p", "0", "-n", "0"));
    assert_int_equal(bench_plan_make(&o, &p, &err), FR_EINVAL);
    assert_ok(PARSE("-m", "x", "-pg", "512"));
    assert_int_equal(bench_plan_make(&o, &p, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "-pg: found '512', expected two numbers"));
    assert_ok(PARSE("-m", "x", "-ctk", "f16,nothing"));
    assert_int_equal(bench_plan_make(&o, &p, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "-ctk: found 'nothing'"));
    assert_ok(PARSE("-p", "1"));
    assert_int_equal(bench_plan_make(&o, &p, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "--model FILE"));
}

static void all_combinations(void **state)
{
    (void)state;
    bench_plan p;
    assert_ok(PARSE("-m", "a,b", "-m", "c", "-t", "1,2", "-ctk", "f16,Q8_0", "-ub", "64", "-fa",
                    "1", "-fmoe", "1", "-mmp", "0"));
    assert_ok(bench_plan_make(&o, &p, &err));
    assert_false(o.mmap);
    assert_int_equal(o.ubatch_size, 64);
    assert_int_equal(p.n_settings, 12);
    assert_true(p.show[BENCH_TYPE_K] && p.show[BENCH_UBATCH] && p.show[BENCH_FLASH_ATTN] &&
                p.show[BENCH_MMAP]);
    assert_false(p.show[BENCH_TYPE_V] || p.show[BENCH_BATCH] || p.show[BENCH_MLA]);
    assert_string_equal(p.settings[0].model, "a");
    assert_string_equal(p.settings[0].value[BENCH_THREADS], "1");
    assert_string_equal(p.settings[1].value[BENCH_THREADS], "2");
    assert_string_equal(p.settings[2].value[BENCH_TYPE_K], "Q8_0");
    assert_string_equal(p.settings[4].model, "b");
    assert_string_equal(p.settings[11].model, "c");
    assert_string_equal(p.settings[11].value[BENCH_UBATCH], "64");
    assert_null(p.settings[0].value[BENCH_BATCH]);
    bench_plan_free(&p);
}

/* ---- figures --------------------------------------------------------------------------------- */

static const double seconds[] = {2, 4};
static const tool_model_work model = {.description = "a model",
                                      .bytes = 5000,
                                      .n_params = 1000,
                                      .token_bytes = 3e9,
                                      .token_ops = 2e9,
                                      .output_ops = 1e9};

static bench_result result_of(const bench_test *t)
{
    assert_ok(PARSE("-m", "x"));
    return (bench_result){.o = &o,
                          .model_path = "it's \"a\".gguf",
                          .backend = "CPU",
                          .gpu_info = "",
                          .test = t,
                          .model = &model,
                          .n_threads = 2,
                          .seconds = seconds,
                          .n = 2,
                          .has_yards = true,
                          .before = {9, 40},
                          .after = {11, 60}};
}

static void means(void **state)
{
    (void)state;
    static const double v[] = {1, 2, 3, 4};
    bench_mean m = bench_mean_of(v, 4);
    assert_true(m.mean == 2.5 && fabs(m.deviation - sqrt(5.0 / 3)) < 1e-12);
    assert_true(bench_mean_of(v, 1).deviation == 0);
}

/* Worked out by hand: 3 s on average, 10 GB/s, 50 GOPS. */
static void parts_of_the_machine(void **state)
{
    (void)state;
    const char *of;
    bench_test tg = {"tg5", 0, 5, 0}, pp = {"pp10", 10, 0, 0}, both = {"pp10+tg5", 10, 5, 0};
    bench_result r = result_of(&tg);
    assert_true(fabs(bench_roofline(&r, &of) - 5 * 3.0 / 10 / 3) < 1e-12);
    assert_string_equal(of, "read");
    r = result_of(&pp);
    assert_true(fabs(bench_roofline(&r, &of) - (10 * 2.0 + 1) / 50 / 3) < 1e-12);
    assert_string_equal(of, "int8");
    r = result_of(&both);
    assert_true(fabs(bench_roofline(&r, &of) - (1.5 + 21.0 / 50) / 3) < 1e-12);
    assert_string_equal(of, "both");
    assert_true(bench_speed(&r, 0) == 7.5 && bench_speed(&r, 1) == 3.75);
    r.has_yards = false;
    assert_true(bench_roofline(&r, &of) == 0);
}

/* The work of the demo model's tokens, against a count by hand from its file. */
static void work_of_a_token(void **state)
{
    (void)state;
    tool_model_work w;
    assert_ok(
        tool_model_work_read(SOURCE_FILE("configs/demo/kjv-moe-q8_0.gguf"), FR_MLA_AUTO, &w, &err));
    assert_string_equal(w.description, "deepseek2 12M Q8_0");
    assert_int_equal(w.n_params, 12266776);
    assert_int_equal(w.bytes, 13067360);
    assert_true(w.token_bytes > 0 && w.token_bytes < (double)w.bytes * 1.2);
    assert_true(w.token_ops > 0 && w.output_ops > 2.0 * 4096 * 256); /* the output matrix */
    assert_true(w.token_ops + w.output_ops < 2.0 * 1.2 * (double)w.n_params);
    assert_int_equal(tool_model_work_read("nothing.gguf", FR_MLA_AUTO, &w, &err), FR_ENOTFOUND);
}

static void failing_memory(void **state)
{
    (void)state;
    bench_test tg = {"tg5", 0, 5, 0};
    bench_result r = result_of(&tg);
    assert_ok(PARSE("-m", "a,b", "-ctk", "f16,q8_0", "-pg", "1,2", "-gp", "3,4", "-d", "1-3"));
    size_t before = fr_mem_tag_stats(FR_MEM_MISC).bytes_now; /* the options change */
    for (uint64_t n = 1;; n++) {
        bench_plan p;
        fr_mem_fail_at(n, 0);
        fr_status st = bench_plan_make(&o, &p, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK) {
            bench_plan_free(&p);
            assert_true(n > 10);
            break;
        }
        assert_int_equal(st, FR_ENOMEM);
        assert_true(fr_mem_tag_stats(FR_MEM_MISC).bytes_now == before);
    }
    for (uint64_t n = 1;; n++) {
        bench_field fields[BENCH_FIELDS_MAX];
        int n_fields = 0;
        fr_mem_fail_at(n, 0);
        fr_status st = bench_fields_of(&r, fields, &n_fields, &err);
        fr_mem_fail_at(0, 0);
        bench_fields_free(fields, n_fields);
        assert_true(fr_mem_tag_stats(FR_MEM_MISC).bytes_now == before);
        if (st == FR_OK)
            break;
        assert_int_equal(st, FR_ENOMEM);
    }
}

static int tear_down(void **state)
{
    (void)state;
    fr_opts_free(&o);
    return fr_mem_total().bytes_now != 0;
}

int main(void)
{
    fr_log_set_level(FR_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(lists_of_numbers, tear_down),
        cmocka_unit_test_teardown(names_of_tests, tear_down),
        cmocka_unit_test_teardown(all_combinations, tear_down),
        cmocka_unit_test_teardown(means, tear_down),
        cmocka_unit_test_teardown(parts_of_the_machine, tear_down),
        cmocka_unit_test_teardown(work_of_a_token, tear_down),
        cmocka_unit_test_teardown(failing_memory, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
