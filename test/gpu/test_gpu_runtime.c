/* The host side of a backend: budgets, streams, events, copies, graphs, faults. On the simulator
 * under many schedules; what a real GPU can show too runs there as well. */
#include "gpu_testing.h"

#include "base/mem.h"
#include "cuda/dl_nvml.h"

enum { MB = 1 << 20, N = 4096, BYTES = N * 4 };

static uint64_t rng = 5;

static void budgets(const fr_gpu *gpu)
{
    fr_err err;
    fr_gpu_arena *a, *b;
    fr_gpu_info info, after;
    void *p, *q;
    assert_ok(gpu->device_info(0, &info, &err));
    assert_true(info.usable && info.total_bytes >= info.free_bytes && info.major >= 8);
    assert_ok(gpu->arena_open(0, 8 * MB, "weights", &a, &err));
    assert_ok(gpu->arena_alloc(a, 5 * MB + 1, &p, &err));
    assert_ok(gpu->arena_alloc(a, 2 * MB, &q, &err));
    assert_true((uintptr_t)p % 256 == 0 && (uintptr_t)q % 256 == 0);
    assert_true(gpu->arena_used(a) > 7 * MB && gpu->arena_used(a) <= 7 * MB + 512);
    assert_int_equal(gpu->arena_alloc(a, 1 * MB, &q, &err), FR_ENOMEM);
    assert_non_null(strstr(err.text, "GPU 0: weights: found 1048576 bytes"));
    assert_null(q);
    assert_int_equal(gpu->arena_alloc(a, SIZE_MAX, &q, &err), FR_ENOMEM);
    assert_int_equal(gpu->arena_open(0, (size_t)info.total_bytes, "kv", &b, &err), FR_ENOMEM);
    assert_non_null(strstr(err.text, "GPU 0: kv: found"));
    gpu->arena_close(a);
    assert_ok(gpu->device_info(0, &after, &err));
    if (gpu == fr_gpu_sim())
        assert_true(after.free_bytes == info.free_bytes && info.total_bytes == 64 * MB);
    assert_int_not_equal(gpu->device_info(99, &info, &err), FR_OK);
}

/* Every way that data can go, through two devices when there are two. */
static void copies(const fr_gpu *gpu)
{
    fr_err err;
    int last = gpu->device_count(NULL) - 1;
    fr_gpu_arena *a[2];
    fr_gpu_stream *s[2];
    fr_gpu_event *copied;
    void *in, *out, *x, *y, *z;
    static float pageable[N];
    assert_ok(gpu->host_alloc(BYTES, &in, &err));
    assert_ok(gpu->host_alloc(BYTES, &out, &err));
    for (int i = 0; i < 2; i++) {
        assert_ok(gpu->arena_open(i * last, MB, "test", &a[i], &err));
        assert_ok(gpu->stream_open(i * last, &s[i], &err));
    }
    assert_ok(gpu->event_open(0, &copied, &err));
    assert_ok(gpu->arena_alloc(a[0], BYTES, &x, &err));
    assert_ok(gpu->arena_alloc(a[0], BYTES, &y, &err));
    assert_ok(gpu->arena_alloc(a[1], BYTES, &z, &err));
    fill_random((float *)in, N, 1, &rng);
    memset(out, 0, BYTES);
    assert_ok(gpu->copy_in(x, in, BYTES, s[0], &err));
    assert_ok(gpu->scale((float *)x, 2, N, (float *)x, s[0], &err));
    assert_ok(gpu->copy_within(y, x, BYTES, s[0], &err));
    assert_ok(gpu->fill(x, 0, BYTES, s[0], &err));
    assert_ok(gpu->copy_peer(z, last, y, 0, BYTES, s[0], &err));
    assert_ok(gpu->event_record(copied, s[0], &err));
    assert_ok(gpu->stream_after(s[1], copied, &err));
    assert_ok(gpu->add((float *)z, (float *)z, N, (float *)z, s[1], &err));
    assert_ok(gpu->copy_out(out, z, BYTES, s[1], &err));
    assert_ok(gpu->stream_wait(s[1], &err));
    for (int i = 0; i < N; i++)
        assert_true(((float *)out)[i] == 4 * ((float *)in)[i]);
    assert_ok(gpu->copy_in(x, in, BYTES, s[0], &err));
    assert_ok(gpu->copy_out(pageable, x, BYTES, s[0], &err)); /* pageable: has ended */
    assert_memory_equal(pageable, in, BYTES);
    assert_ok(gpu->device_wait(0, &err));
    for (int i = 0; i < 2; i++) {
        gpu->stream_close(s[i]);
        gpu->arena_close(a[i]);
    }
    gpu->event_close(copied);
    gpu->host_free(in, BYTES);
    gpu->host_free(out, BYTES);
}

static void count_call(void *user)
{
    ++*(int *)user;
}

/* Asking in a loop ends; host functions run in order. */
static void questions(const fr_gpu *gpu)
{
    fr_err err;
    int n_calls = 0;
    bool done = false;
    fr_gpu_event *e;
    double us = -1;
    gpu_bench b = gpu_open(gpu, MB);
    fr_gpu_event *before;
    assert_ok(gpu->event_open(0, &e, &err));
    assert_ok(gpu->event_open(0, &before, &err));
    assert_ok(gpu->event_record(before, b.s, &err));
    for (int i = 0; i < 5; i++)
        assert_ok(gpu->stream_call(b.s, count_call, &n_calls, &err));
    assert_ok(gpu->event_record(e, b.s, &err));
    while (!done)
        assert_ok(gpu->event_done(e, &done, &err));
    assert_int_equal(n_calls, 5);
    assert_ok(gpu->event_elapsed_us(before, e, &us, &err));
    assert_true(us >= 0);
    assert_ok(gpu->stream_call(b.s, count_call, &n_calls, &err));
    for (done = false; !done;)
        assert_ok(gpu->stream_done(b.s, &done, &err));
    assert_int_equal(n_calls, 6);
    assert_ok(gpu->event_wait(e, &err));
    gpu->event_close(e);
    gpu->event_close(before);
    gpu_close(&b);
}

/* A pass of two streams, recorded once and replayed with other inputs. */
static void graphs(const fr_gpu *gpu)
{
    fr_err err;
    float *in, out[64];
    fr_gpu_stream *side;
    fr_gpu_event *fork, *join;
    fr_gpu_graph *g;
    gpu_bench b = gpu_open(gpu, MB);
    assert_ok(gpu->stream_open(0, &side, &err));
    assert_ok(gpu->event_open(0, &fork, &err));
    assert_ok(gpu->event_open(0, &join, &err));
    assert_ok(gpu->host_alloc(256, (void **)&in, &err));
    float *x = gpu_floats(&b, NULL, 64), *y = gpu_floats(&b, NULL, 64);
    assert_ok(gpu->capture_begin(b.s, &err));
    assert_ok(gpu->copy_in(x, in, 256, b.s, &err));
    assert_ok(gpu->event_record(fork, b.s, &err));
    assert_ok(gpu->stream_after(side, fork, &err));
    assert_ok(gpu->scale(x, 3, 64, y, side, &err));
    assert_ok(gpu->event_record(join, side, &err));
    assert_ok(gpu->stream_after(b.s, join, &err));
    assert_ok(gpu->add(x, y, 64, y, b.s, &err));
    assert_ok(gpu->capture_end(b.s, &g, &err));
    for (int round = 0; round < 3; round++) {
        fill_random(in, 64, 1, &rng);
        assert_ok(gpu->graph_launch(g, b.s, &err));
        gpu_get(&b, out, y, sizeof out);
        for (int i = 0; i < 64; i++)
            assert_true(out[i] == in[i] + 3 * in[i]);
    }
    gpu->graph_close(g);
    gpu->host_free(in, 256);
    gpu->event_close(fork);
    gpu->event_close(join);
    gpu->stream_close(side);
    gpu_close(&b);
}

static void on_schedules(void (*check)(const fr_gpu *gpu))
{
    char settings[96];
    fr_err err;
    for (int seed = 1; seed <= 20 && fr_gpu_sim(); seed++) {
        snprintf(settings, sizeof settings,
                 "devices=3,mb=64,seed=%d,order=2,lazy=%d,eager=%d,timing=0,guard=%d", seed,
                 seed % 4 == 1, seed % 4 == 2, seed % 4 == 3);
        assert_ok(fr_gpu_sim_configure(settings, &err));
        check(fr_gpu_sim());
    }
    if (fr_gpu_cuda() && fr_gpu_cuda()->device_count(NULL) > 0)
        check(fr_gpu_cuda());
}

#define TEST(name)                                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        on_schedules(name);                                                                        \
    }
TEST(budgets)
TEST(copies)
TEST(questions)
TEST(graphs)

/* ---- the simulator's faults ----------------------------------------------------------------- */

static const fr_gpu *fresh_simulator(void)
{
    fr_err err;
    if (!fr_gpu_sim())
        skip();
    assert_ok(fr_gpu_sim_configure("devices=2,mb=64,seed=1,order=0,lazy=0,eager=0,guard=0", &err));
    return fr_gpu_sim();
}

/* Opens what a small engine opens; on failure closes what it had. */
static fr_status open_all(const fr_gpu *gpu, fr_err *err)
{
    fr_status st;
    fr_gpu_arena *a = NULL;
    fr_gpu_stream *s = NULL;
    fr_gpu_event *e = NULL;
    void *p_h = NULL, *p_d;
    FR_TRY_OUT(st, gpu->arena_open(0, MB, "weights", &a, err));
    FR_TRY_OUT(st, gpu->arena_alloc(a, 1000, &p_d, err));
    FR_TRY_OUT(st, gpu->stream_open(0, &s, err));
    FR_TRY_OUT(st, gpu->event_open(0, &e, err));
    FR_TRY_OUT(st, gpu->host_alloc(5000, &p_h, err));
    FR_TRY_OUT(st, gpu->copy_in(p_d, p_h, 1000, s, err));
    FR_TRY_OUT(st, gpu->scale((float *)p_d, 2, 250, (float *)p_d, s, err));
    st = gpu->stream_wait(s, err);
out:
    gpu->stream_close(s);
    gpu->event_close(e);
    gpu->host_free(p_h, 5000);
    gpu->arena_close(a);
    return st;
}

/* Each allocation of the device and of the host fails in turn: an error, nothing left, and the next
 * try works. */
static void test_failing_allocations(void **state)
{
    (void)state;
    const fr_gpu *gpu = fresh_simulator();
    fr_err err;
    char settings[32];
    size_t before = fr_mem_total().bytes_now;
    int n_failed = 0;
    for (int n = 1; n < 20; n++) {
        snprintf(settings, sizeof settings, "fail_alloc=%d", n);
        assert_ok(fr_gpu_sim_configure(settings, &err));
        fr_status st = open_all(gpu, &err);
        n_failed += st != FR_OK;
        assert_true(st == FR_OK || st == FR_ENOMEM);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_int_equal(n_failed, 5);
    assert_ok(fr_gpu_sim_configure("fail_alloc=0", &err));
    n_failed = 0;
    for (uint64_t n = 1; n < 12; n++) {
        fr_mem_fail_at(n, 0);
        fr_status st = open_all(gpu, &err);
        fr_mem_fail_at(0, 0);
        n_failed += st != FR_OK;
        assert_true(st == FR_OK || st == FR_ENOMEM);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_true(n_failed >= 3);
    fr_gpu_info info;
    assert_ok(gpu->device_info(0, &info, &err));
    assert_true(info.free_bytes == info.total_bytes);
    assert_ok(open_all(gpu, &err));
}

/* A failing copy or launch is one error; a lost device stays lost until it is reset, and the other
 * device goes on. */
static void test_lost_device(void **state)
{
    (void)state;
    const fr_gpu *gpu = fresh_simulator();
    fr_err err;
    assert_ok(fr_gpu_sim_configure("fail_copy=1", &err));
    assert_int_equal(open_all(gpu, &err), FR_EIO);
    assert_non_null(strstr(err.text, "GPU 0: cudaMemcpyAsync found cudaErrorLaunchFailure"));
    assert_ok(fr_gpu_sim_configure("fail_launch=1", &err));
    assert_int_equal(open_all(gpu, &err), FR_EIO);
    assert_ok(open_all(gpu, &err));
    assert_ok(fr_gpu_sim_configure("lose=2", &err));
    assert_int_equal(open_all(gpu, &err), FR_EIO);
    assert_non_null(strstr(err.text, "lost"));
    assert_int_equal(open_all(gpu, &err), FR_EIO);
    gpu_bench other = {.gpu = gpu};
    assert_ok(gpu->stream_open(1, &other.s, &err));
    assert_ok(gpu->stream_wait(other.s, &err));
    gpu->stream_close(other.s);
    assert_ok(gpu->device_reset(0, &err));
    assert_ok(open_all(gpu, &err));
}

/* With sync_debug, what goes wrong on the device comes out of the call that asked for it. */
static void test_sync_debug(void **state)
{
    (void)state;
    const fr_gpu *gpu = fresh_simulator();
    fr_err err;
    float *x;
    for (int on = 0; on < 2; on++) {
        assert_ok(fr_gpu_sim_configure("lazy=1", &err));
        gpu_bench b = gpu_open(gpu, MB);
        x = gpu_floats(&b, NULL, 64);
        assert_ok(gpu->fill(x, 0, 256, b.s, &err));
        assert_ok(gpu->stream_wait(b.s, &err));
        gpu->sync_debug(on);
        assert_ok(fr_gpu_sim_configure("lose=1", &err));
        assert_int_equal(gpu->scale(x, 2, 64, x, b.s, &err), on ? FR_EIO : FR_OK);
        if (on)
            assert_non_null(strstr(err.text, "GPU 0: scale found"));
        else
            assert_int_equal(gpu->stream_wait(b.s, &err), FR_EIO);
        assert_ok(gpu->device_reset(0, &err));
        gpu_close(&b);
    }
    gpu_bench b = gpu_open(gpu, MB); /* waiting would spoil a capture */
    fr_gpu_graph *g;
    x = gpu_floats(&b, NULL, 64);
    assert_ok(gpu->capture_begin(b.s, &err));
    assert_ok(gpu->scale(x, 2, 64, x, b.s, &err));
    assert_ok(gpu->capture_end(b.s, &g, &err));
    assert_ok(gpu->graph_launch(g, b.s, &err));
    gpu->graph_close(g);
    gpu->sync_debug(false);
    gpu_close(&b);
    assert_ok(fr_gpu_sim_configure("lazy=0,lose=0", &err));
}

/* Facts for planning, from what the runtime tells. */
static void test_device_facts(void **state)
{
    (void)state;
    const fr_gpu *gpu = fresh_simulator();
    fr_err err;
    fr_gpu_info info;
    assert_ok(gpu->device_info(0, &info, &err));
    assert_true(info.bandwidth == 0 && info.f16_ops == 0 && info.int8_ops == 0);
    assert_true(info.usable && info.simulated && !info.why_not[0]);
    assert_ok(fr_gpu_sim_configure("clock_mhz=1695,memory_mhz=9751,bus_bits=384", &err));
    assert_ok(gpu->device_info(0, &info, &err));
    /* a GeForce RTX 3090 (936 GB/s; 71 TFLOPS and 284 TOPS of 82 processors), with 4 of them */
    assert_true(fabs(info.bandwidth - 936e9) < 1e9);
    assert_true(fabs(info.f16_ops - 71e12 * 4 / 82) < 0.01e12);
    assert_true(fabs(info.int8_ops - 284e12 * 4 / 82) < 0.1e12);
    assert_ok(fr_gpu_sim_configure("capability=70", &err));
    assert_ok(gpu->device_info(0, &info, &err));
    assert_false(info.usable);
    assert_string_equal(info.why_not, "found compute capability 7.0, expected 7.5 or newer");
    assert_ok(fr_gpu_sim_configure("capability=130,no_code=1", &err));
    assert_ok(gpu->device_info(0, &info, &err));
    assert_false(info.usable);
    assert_non_null(strstr(info.why_not, "found no code for compute capability 13.0"));
    assert_true(info.f16_ops == 0); /* a table does not know the future */
    assert_ok(fr_gpu_sim_configure(
        "capability=86,no_code=0,clock_mhz=0,memory_mhz=0,bus_bits=0,driver=12040", &err));
    assert_int_equal(gpu->device_count(&err), 0);
    assert_non_null(strstr(err.text, "a driver for CUDA 12.4), expected one for CUDA 13.0"));
    assert_ok(fr_gpu_sim_configure("driver=0", &err));
    assert_int_equal(gpu->device_count(&err), 0);
    assert_non_null(strstr(err.text, "no driver"));
    assert_ok(fr_gpu_sim_configure("driver=13000", &err));
    assert_int_equal(gpu->device_count(&err), 2);
}

/* In virtual time a copy takes 8 us and its bytes at the link's speed. */
static void test_link_speed(void **state)
{
    (void)state;
    const fr_gpu *gpu = fresh_simulator();
    fr_err err;
    double h2d, d2h;
    assert_ok(fr_gpu_sim_configure("timing=1,h2d_gbs=2,d2h_gbs=1", &err));
    assert_ok(fr_gpu_link_speed(gpu, 1, &h2d, &d2h, &err));
    assert_true(h2d > 1.9e9 && h2d <= 2e9 && d2h > 0.9e9 && d2h <= 1e9);
    for (int n = 1; n <= 3; n++) { /* nothing is left behind by failures */
        char text[32];
        snprintf(text, sizeof text, "fail_alloc=%d", n);
        size_t before = fr_mem_total().bytes_now;
        assert_ok(fr_gpu_sim_configure(text, &err));
        assert_int_equal(fr_gpu_link_speed(gpu, 1, &h2d, &d2h, &err), FR_ENOMEM);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_ok(fr_gpu_sim_configure("timing=0,fail_alloc=0,h2d_gbs=25,d2h_gbs=25", &err));
    assert_ok(fr_gpu_link_speed(gpu, 0, &h2d, &d2h, &err)); /* ends, whatever the clock says */
}

/* The driver's management library, played by these. */
static int played_status;
static int play_init(void)
{
    return played_status;
}
static int play_bus(const char *bus, nvml_device **out)
{
    *out = NULL;
    return strcmp(bus, "0000:01:00.0") != 0;
}
static int play_memory(nvml_device *d, nvml_memory *out)
{
    (void)d;
    *out = (nvml_memory){24, 20, 4};
    return played_status;
}
static int play_number(nvml_device *d, unsigned *out)
{
    (void)d;
    *out = 4;
    return played_status;
}

static void test_nvml(void **state)
{
    (void)state;
    static const nvml_api api = {play_init, play_bus, play_memory, play_number, play_number};
    fr_nvml_facts f;
    assert_false(nvml_ask_api(&api, "0000:02:00.0", &f));
    assert_true(nvml_ask_api(&api, "0000:01:00.0", &f));
    assert_true(f.pcie_generation == 4 && f.pcie_lanes == 4 && f.used_bytes == 4);
    played_status = 3; /* not supported */
    assert_true(nvml_ask_api(&api, "0000:01:00.0", &f));
    assert_true(f.pcie_generation == 0 && f.pcie_lanes == 0 && f.used_bytes == 0);
    assert_false(fr_nvml_ask("ffff:ff:1f.0", &f)); /* with and without the library */
    assert_true(fabs(fr_pcie_speed(3, 16) - 15.75e9) < 0.01e9);
    assert_true(fabs(fr_pcie_speed(1, 1) - 0.25e9) < 1e3);
    assert_true(fabs(fr_pcie_speed(6, 16) - 121e9) < 0.1e9);
    assert_true(fr_pcie_speed(0, 16) == 0 && fr_pcie_speed(7, 16) == 0 &&
                fr_pcie_speed(4, 99) == 0);
}

static void test_settings(void **state)
{
    (void)state;
    const fr_gpu *gpu = fresh_simulator();
    fr_err err;
    assert_ok(fr_gpu_sim_devices("3x32MiB", &err));
    assert_int_equal(gpu->device_count(&err), 3);
    fr_gpu_info info;
    assert_ok(gpu->device_info(2, &info, &err));
    assert_int_equal(info.total_bytes, 32 * MB);
    static const char *const bad[] = {"3", "x32MiB", "3x32", "3x32MiB ", "0x1MiB", "-1x1MiB", ""};
    for (int i = 0; i < 7; i++)
        assert_int_equal(fr_gpu_sim_devices(bad[i], &err), FR_EINVAL);
    assert_int_equal(fr_gpu_sim_configure("seed=3,colour=4", &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "'colour=4'"));
    assert_int_equal(fr_gpu_sim_configure("seed=x", &err), FR_EINVAL);
    assert_ok(fr_gpu_sim_configure("devices=0", &err));
    assert_int_equal(gpu->device_count(&err), 0);
    assert_non_null(strstr(err.text, "GPUs: found none"));
}

/* A build with CUDA starts without a driver and says so. */
static void test_no_driver(void **state)
{
    (void)state;
    fr_err err = {.text = ""};
    if (!fr_gpu_cuda())
        skip();
    int n = fr_gpu_cuda()->device_count(&err);
    assert_true(n > 0 || strstr(err.text, "GPUs: found none (") != NULL);
    if (n == 0) {
        void *p;
        fr_gpu_info info;
        assert_int_not_equal(fr_gpu_cuda()->device_info(0, &info, &err), FR_OK);
        assert_int_not_equal(fr_gpu_cuda()->host_alloc(4096, &p, &err), FR_OK);
        assert_null(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budgets),     cmocka_unit_test(test_copies),
        cmocka_unit_test(test_questions),   cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_settings),    cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_lost_device), cmocka_unit_test(test_no_driver),
        cmocka_unit_test(test_sync_debug),  cmocka_unit_test(test_device_facts),
        cmocka_unit_test(test_link_speed),  cmocka_unit_test(test_nvml),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
