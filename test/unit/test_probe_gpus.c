/* The planner's view of a backend's GPUs, on simulated ones. */
#include "testing.h"

#include <math.h>

#include "base/log.h"
#include "engine/gpu_probe.h"

static char lines[4096];

static void catch_line(void *user, fr_log_level level, const char *line)
{
    (void)user;
    size_t n = strlen(lines);
    if (level <= FR_LOG_INFO)
        snprintf(lines + n, sizeof lines - n, "%s\n", line);
}

static int open_probe(void **state)
{
    (void)state;
    fr_log_set_sink(catch_line, NULL);
    return 0;
}

static int close_probe(void **state)
{
    (void)state;
    fr_log_set_sink(NULL, NULL);
    return 0;
}

/* The GPUs that are found with these settings; what the log said is in `lines`. */
static fr_hardware probe(const char *settings)
{
    fr_err err;
    fr_hardware hw;
    if (!fr_gpu_sim())
        skip();
    assert_ok(fr_gpu_sim_configure("mb=96,capability=86,no_code=0,driver=13000,clock_mhz=0,"
                                   "memory_mhz=0,bus_bits=0",
                                   &err));
    assert_ok(fr_gpu_sim_configure(settings, &err));
    lines[0] = 0;
    fr_hardware_defaults(&hw);
    assert_ok(fr_engine_probe_gpus(fr_gpu_sim(), &hw, &err));
    return hw;
}

static void what_is_known(void **state)
{
    (void)state;
    fr_err err;
    fr_hardware preset, hw = probe("devices=3");
    fr_hardware_defaults(&preset);
    assert_int_equal(hw.n_gpus, 3);
    assert_string_equal(lines, "");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hw.gpus[i].device, i);
        assert_true(hw.gpus[i].vram_bytes == 96 << 20 && hw.gpus[i].reserve_bytes == 0);
        assert_true(hw.gpus[i].bandwidth == preset.gpus[i].bandwidth);
        assert_true(hw.gpus[i].f16_ops == preset.gpus[i].f16_ops);
        assert_true(hw.gpus[i].h2d == preset.gpus[i].h2d);
    }
    assert_string_equal(hw.gpus[2].name, "Simulated GPU 2");
    hw = probe("devices=1,clock_mhz=1000,memory_mhz=5000,bus_bits=256");
    assert_true(hw.gpus[0].bandwidth == 320e9 && hw.gpus[0].f16_ops == 4 * 512e9);
    assert_true(hw.gpus[0].int8_ops == 4 * 2048e9);
    fr_gpu_arena *a; /* a budget is what is free now */
    assert_ok(fr_gpu_sim()->arena_open(0, 32 << 20, "others", &a, &err));
    fr_hardware_defaults(&hw);
    assert_ok(fr_engine_probe_gpus(fr_gpu_sim(), &hw, &err));
    assert_true(hw.gpus[0].vram_bytes == 64 << 20);
    fr_gpu_sim()->arena_close(a);
}

static void what_cannot_be_used(void **state)
{
    (void)state;
    fr_err err;
    assert_int_equal(probe("devices=1,capability=61").n_gpus, 0);
    assert_string_equal(lines, "GPU 0 (Simulated GPU 0): not used: found compute capability 6.1, "
                               "expected 7.5 or newer\n");
    assert_int_equal(probe("devices=2,no_code=1").n_gpus, 0);
    assert_non_null(strstr(lines, "GPU 1 (Simulated GPU 1): not used: found no code"));
    assert_int_equal(probe("driver=11080").n_gpus, 0);
    assert_string_equal(lines, "GPUs: found none (a driver for CUDA 11.8), expected one for CUDA "
                               "13.0 or later; update the driver\n");
    assert_int_equal(probe("driver=0").n_gpus, 0);
    assert_string_equal(lines, ""); /* most such machines have no GPU */
    assert_int_equal(probe("devices=17,mb=1").n_gpus, FR_MAX_GPUS);
    assert_non_null(strstr(lines, "GPU 16 (Simulated GPU 16): not used: expected 16 GPUs at most"));
    fr_hardware hw = probe("devices=1,mb=32");
    fr_gpu_arena *a;
    assert_ok(fr_gpu_sim()->arena_open(0, 32 << 20, "others", &a, &err));
    hw.n_gpus = 0;
    assert_ok(fr_engine_probe_gpus(fr_gpu_sim(), &hw, &err));
    assert_int_equal(hw.n_gpus, 0);
    assert_non_null(strstr(lines, "not used: found 0 B free of 32.0 MiB, expected more"));
    fr_gpu_sim()->arena_close(a);
    assert_ok(fr_engine_probe_gpus(NULL, &hw, &err));
    assert_int_equal(hw.n_gpus, 0);
}

static void links(void **state)
{
    (void)state;
    fr_err err;
    fr_hardware hw = probe("devices=2,timing=1,h2d_gbs=20,d2h_gbs=10");
    assert_ok(fr_engine_measure_links(fr_gpu_sim(), &hw, &err));
    for (int i = 0; i < 2; i++) {
        assert_true(hw.gpus[i].h2d > 19e9 && hw.gpus[i].h2d <= 20e9);
        assert_true(hw.gpus[i].d2h > 9.8e9 && hw.gpus[i].d2h <= 10e9);
    }
    hw = probe("devices=1,mb=8"); /* too small to measure */
    double before = hw.gpus[0].h2d;
    assert_ok(fr_engine_measure_links(fr_gpu_sim(), &hw, &err));
    assert_true(hw.gpus[0].h2d == before);
    assert_non_null(strstr(lines, "its link was not measured"));
    hw = probe("devices=1,lose=1");
    assert_int_equal(fr_engine_measure_links(fr_gpu_sim(), &hw, &err), FR_EIO);
    assert_ok(fr_gpu_sim()->device_reset(0, &err));
    assert_ok(fr_gpu_sim_configure("timing=0,lose=0,h2d_gbs=25,d2h_gbs=25", &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_known),
        cmocka_unit_test(what_cannot_be_used),
        cmocka_unit_test(links),
    };
    return cmocka_run_group_tests(tests, open_probe, close_probe);
}
