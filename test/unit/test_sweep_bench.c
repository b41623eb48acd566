/* Tables of sweeps, as several programs print them and as nobody should; ticks; pictures. */
#include "testing.h"

#include <math.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "common/chart.h"
#include "sweep_bench/sweep.h"

static fr_err err;

/* What fontconfig keeps for good, cairo's source of fonts, is nobody's leak here. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig";
}

static const char plain[] =
    "warning: something\n\n"
    "main: n_kv_max = 1024, n_batch = 512, n_ubatch = 512, flash_attn = 1, n_gpu_layers = 0\n\n"
    "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
    "|-------|--------|--------|----------|----------|----------|----------|\n"
    "|   512 |    128 |      0 |    2.000 |   256.00 |   10.000 |    12.80 |\n"
    "======================================== tg_start for n_kv = 512\n"
    "|   512 |    128 |    512 |    4.000 |   128.00 |   20.000 |     6.40 |\r\n"
    "llama_print_timings: | not | a | table |\n";

/* Other columns, in another order. */
static const char other[] =
    "| run | N_KV | S_TG t/s | S_PP t/s | T_TG s | T_PP s | TG | PP | RSS HWM |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    "| one | 2048 | 7.5 | 99.5 | 1 | 2 | 32 | 128 | n/a |\n"
    "| two | 1024 | inf | 99.5 | 1 | 2 | 32 | 128 | n/a |\n"
    "| two | 1024 | -1 | 99.5 | 1 | 2 | 32 | 128 | n/a |\n"
    "| two | 1024 | 1 | 99.5 |\n"
    "|";

static void parses_tables(void **state)
{
    (void)state;
    sweep_table t = {0};
    assert_ok(sweep_table_parse("plain", plain, sizeof plain - 1, &t, &err));
    assert_int_equal(t.n, 2);
    assert_int_equal(t.rows[1].n_kv, 512);
    assert_int_equal(t.rows[1].pp, 512);
    assert_int_equal(t.rows[1].tg, 128);
    assert_true(t.rows[0].speed_pp == 256 && t.rows[0].speed_tg == 12.8);
    assert_true(t.rows[1].t_pp == 4 && t.rows[1].t_tg == 20);
    assert_ok(sweep_table_parse("other", other, sizeof other - 1, &t, &err)); /* appends */
    assert_int_equal(t.n, 3);
    assert_int_equal(t.rows[2].n_kv, 2048);
    assert_true(t.rows[2].speed_pp == 99.5 && t.rows[2].speed_tg == 7.5);
    sweep_table_free(&t);
}

/* As llama-bench, ik_llama.cpp's llama-bench and sweeps with --output-format jsonl print them. */
static const char tests_at_depth[] =
    "| model                          |       size |     params | backend    | ngl | fa |          "
    "  "
    "test |                  t/s |\n"
    "| ------------------------------ | ---------: | ---------: | ---------- | --: | -: | "
    "--------------: | -------------------: |\n"
    "| deepseek2 671B Q4_K - Medium   | 376.65 GiB |   671.03 B | CUDA       |  99 |  1 |          "
    " "
    "pp512 |        120.50 \xc2\xb1 1.29 |\n"
    "| deepseek2 671B Q4_K - Medium   | 376.65 GiB |   671.03 B | CUDA       |  99 |  1 |          "
    " "
    "tg128 |         10.25 \xc2\xb1 0.01 |\n"
    "| deepseek2 671B Q4_K - Medium   | 376.65 GiB |   671.03 B | CUDA       |  99 |  1 |   pp512 "
    "@ "
    "d4096 |         90.00 \xc2\xb1 0.10 |\n"
    "| deepseek2 671B Q4_K - Medium   | 376.65 GiB |   671.03 B | CUDA       |  99 |  1 | "
    "pp512+tg128 |         30.00 \xc2\xb1 0.10 |\n"
    "| deepseek2 671B Q4_K - Medium   | 376.65 GiB |   671.03 B | CUDA       |  99 |  1 |   "
    "tg64@pp4096 |          8.50 \xc2\xb1 0.10 |\n\nbuild: 1a2b3c4d (1234)\n";
static const char json_lines[] =
    "llm_load: noise {\n"
    "{\"n_kv_max\": 1024, \"n_batch\": 2048, \"n_ubatch\": 512, \"flash_attn\": 1, "
    "\"n_gpu_layers\": "
    "63, \"n_threads\": 16, \"n_threads_batch\": 16, \"pp\": 512, \"tg\": 128, \"n_kv\": 512, "
    "\"t_pp\": 2.500000, \"speed_pp\": 204.800003, \"t_tg\": 12.800000, \"speed_tg\": 10.000000, "
    "\"rss_hwm_mib\": 1.0, \"vram_delta_mib\": null }\n"
    "{\"pp\": 512, \"tg\": 128}\n";

static void parses_other_forms(void **state)
{
    (void)state;
    sweep_table t = {0};
    assert_ok(sweep_table_parse("tests", tests_at_depth, sizeof tests_at_depth - 1, &t, &err));
    assert_int_equal(t.n, 2);
    assert_true(t.rows[0].n_kv == 0 && t.rows[0].pp == 512 && t.rows[0].tg == 128);
    assert_true(t.rows[0].speed_pp == 120.5 && t.rows[0].speed_tg == 10.25);
    assert_true(t.rows[1].n_kv == 4096 && t.rows[1].speed_pp == 90 && t.rows[1].speed_tg == 8.5);
    assert_int_equal(t.rows[1].tg, 64);
    sweep_table_free(&t);
    assert_ok(sweep_table_parse("json", json_lines, sizeof json_lines - 1, &t, &err));
    assert_int_equal(t.n, 1);
    assert_true(t.rows[0].n_kv == 512 && t.rows[0].t_tg == 12.8 &&
                t.rows[0].speed_pp == 204.800003);
    sweep_table_free(&t);
}

static void refuses_what_is_none(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "|",
        "||||",
        "\n|\n",
        "|   512 |    128 |      0 |    2.000 |   256.00 |   1 | 2 |",
        "| PP | TG | N_KV | T_PP s | S_PP t/s | T_TG s |\n| 1 | 2 | 3 "
        "| 4 | 5 | 6 |"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        sweep_table t = {0};
        assert_int_equal(sweep_table_parse("x.txt", texts[i], strlen(texts[i]), &t, &err),
                         FR_EFORMAT);
        assert_non_null(strstr(err.text, "x.txt: found no row"));
        sweep_table_free(&t);
    }
}

/* Any cut and any damage: a table or an error, and nothing read beyond the text. */
static void survives_damage(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int i = 0; i < 3000; i++) {
        static const char *const forms[] = {plain, tests_at_depth, json_lines};
        const char *form = forms[i % 3];
        size_t n = test_rand(&seed) % (strlen(form) + 1);
        char *text = test_malloc(n ? n : 1); /* exactly so long, not terminated */
        memcpy(text, form, n);
        for (size_t k = 0; n && k < test_rand(&seed) % 8; k++)
            text[test_rand(&seed) % n] = "|\n 0-e9\0\"@:}"[test_rand(&seed) % 12];
        sweep_table t = {0};
        fr_status st = sweep_table_parse("x", text, n, &t, &err);
        assert_true(st == FR_OK ? t.n > 0 : st == FR_EFORMAT);
        sweep_table_free(&t);
        test_free(text);
    }
}

static void ticks(void **state)
{
    (void)state;
    for (double max = 0.013; max < 1e7; max *= 1.37) {
        double step = tool_tick_step(max, 6), lead = step / pow(10, floor(log10(step) + 1e-9));
        assert_true(step * 6 >= max && step * 6 <= max * 6);
        assert_true(fabs(lead - 1) < 1e-6 || fabs(lead - 2) < 1e-6 || fabs(lead - 5) < 1e-6);
    }
    assert_true(tool_token_step(1, 6) == 1);
    assert_true(tool_token_step(2048, 6) == 512);
    assert_true(tool_token_step(32768, 6) == 8192);
}

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%ld-%s", P_tmpdir, (long)getpid(), name);
    return path;
}

/* With cairo the files are pictures; without, the text says what to install. */
static void draws(void **state)
{
    (void)state;
    sweep_table tables[12] = {0}; /* more than there are colours */
    for (int i = 0; i < 12; i++) {
        char label[32];
        snprintf(label, sizeof label, "a run with a long label, %d", i);
        tables[i].label = fr_mem_strndup(FR_MEM_MISC, label, strlen(label), &err);
        assert_ok(sweep_table_parse("plain", plain, sizeof plain - 1, &tables[i], &err));
    }
    tables[1].rows[0].speed_tg = tables[1].rows[1].speed_tg = 0;
    assert_int_equal(sweep_plot(path_of("x.jpg"), tables, 12, &err), FR_EINVAL);
    for (int png = 0; png < 2; png++) {
        const char *path = path_of(png ? "x.png" : "x.svg");
        fr_status st = sweep_plot(path, tables, png ? 1 : 12, &err);
        if (st == FR_EUNSUPPORTED) {
            assert_non_null(strstr(err.text, "libcairo2-dev"));
            continue;
        }
        fr_buf bytes = {0};
        assert_ok(st);
        assert_ok(fr_file_slurp(path, 16 << 20, &bytes, &err));
        assert_true(bytes.n > 1000);
        assert_memory_equal(bytes.p, png ? "\x89PNG" : "<?xm", 4);
        fr_buf_free(&bytes);
        unlink(path);
    }
    for (int i = 0; i < 12; i++)
        sweep_table_free(&tables[i]);
}

static void failing_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        sweep_table t = {0};
        fr_mem_fail_at(n, 0);
        fr_status st = sweep_table_parse("plain", plain, sizeof plain - 1, &t, &err);
        fr_mem_fail_at(0, 0);
        sweep_table_free(&t);
        assert_true(fr_mem_total().bytes_now == 0);
        if (st == FR_OK)
            break;
        assert_int_equal(st, FR_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_tables),
        cmocka_unit_test(refuses_what_is_none),
        cmocka_unit_test(survives_damage),
        cmocka_unit_test(ticks),
        cmocka_unit_test(draws),
        cmocka_unit_test(failing_memory),
        cmocka_unit_test(parses_other_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
