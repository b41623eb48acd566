/* Virtual time: streaming hides behind computing, and links work at once. The figures follow from
 * the settings (a copy: 8 us and 25 GB/s) and from the costs that the test gives its kernels, so
 * they hold on any machine and for every seed. */
#include "gpu_testing.h"

enum { LAYERS = 8, LAYER_FLOATS = 250000, LAYER_BYTES = LAYER_FLOATS * 4, DEVICES = 3 };
static const double copy_us = 8 + LAYER_BYTES / 25e3, compute_us = 60;

typedef struct {
    fr_gpu_stream *copy, *compute;
    fr_gpu_event *full[2], *empty[2];
    fr_gpu_arena *arena;
    float *buffer[2];
} streamer;

static void open_streamer(const fr_gpu *gpu, int device, bool overlap, streamer *s)
{
    fr_err err;
    assert_ok(gpu->stream_open(device, &s->compute, &err));
    s->copy = s->compute;
    if (overlap)
        assert_ok(gpu->stream_open(device, &s->copy, &err));
    assert_ok(gpu->arena_open(device, 4 << 20, "test", &s->arena, &err));
    for (int i = 0; i < 2; i++) {
        assert_ok(gpu->event_open(device, &s->full[i], &err));
        assert_ok(gpu->event_open(device, &s->empty[i], &err));
        assert_ok(gpu->arena_alloc(s->arena, LAYER_BYTES, (void **)&s->buffer[i], &err));
    }
}

static void close_streamer(const fr_gpu *gpu, streamer *s)
{
    if (s->copy != s->compute)
        gpu->stream_close(s->copy);
    gpu->stream_close(s->compute);
    for (int i = 0; i < 2; i++) {
        gpu->event_close(s->full[i]);
        gpu->event_close(s->empty[i]);
    }
    gpu->arena_close(s->arena);
}

/* Layer after layer through two buffers. */
static void enqueue_layers(const fr_gpu *gpu, streamer *s, const float *weights_h)
{
    fr_err err;
    for (int layer = 0; layer < LAYERS; layer++) {
        int i = layer % 2;
        if (layer >= 2)
            assert_ok(gpu->stream_after(s->copy, s->empty[i], &err));
        assert_ok(gpu->copy_in(s->buffer[i], weights_h, LAYER_BYTES, s->copy, &err));
        assert_ok(gpu->event_record(s->full[i], s->copy, &err));
        assert_ok(gpu->stream_after(s->compute, s->full[i], &err));
        fr_gpu_sim_next_cost_us(compute_us);
        assert_ok(gpu->scale(s->buffer[i], 1, 64, s->buffer[i], s->compute, &err));
        assert_ok(gpu->event_record(s->empty[i], s->compute, &err));
    }
}

static double time_layers(int n_devices, bool overlap)
{
    const fr_gpu *gpu = fr_gpu_sim();
    streamer s[DEVICES];
    float *weights_h;
    fr_err err;
    assert_ok(gpu->host_alloc(LAYER_BYTES, (void **)&weights_h, &err));
    memset(weights_h, 0, LAYER_BYTES);
    for (int d = 0; d < n_devices; d++)
        open_streamer(gpu, d, overlap, &s[d]);
    double start = fr_gpu_sim_now_us();
    for (int d = 0; d < n_devices; d++)
        enqueue_layers(gpu, &s[d], weights_h);
    for (int d = 0; d < n_devices; d++)
        assert_ok(gpu->stream_wait(s[d].compute, &err));
    double us = fr_gpu_sim_now_us() - start;
    for (int d = 0; d < n_devices; d++)
        close_streamer(gpu, &s[d]);
    gpu->host_free(weights_h, LAYER_BYTES);
    return us;
}

static void assert_us(double got, double want)
{
    if (fabs(got - want) > 1e-6 * want)
        fail_msg("took %.3f us, expected %.3f", got, want);
}

static void set_seed(int seed)
{
    char settings[64];
    fr_err err;
    snprintf(settings, sizeof settings, "devices=3,mb=64,timing=1,order=2,seed=%d", seed);
    assert_ok(fr_gpu_sim_configure(settings, &err));
}

static void streaming_overlaps_compute(void **state)
{
    (void)state;
    for (int seed = 1; seed <= 3; seed++) {
        set_seed(seed);
        assert_us(time_layers(1, false), LAYERS * (copy_us + compute_us));
        assert_us(time_layers(1, true), copy_us + LAYERS * compute_us);
    }
}

static void three_links_work_at_once(void **state)
{
    (void)state;
    for (int seed = 1; seed <= 3; seed++) {
        set_seed(seed);
        assert_us(time_layers(DEVICES, true), copy_us + LAYERS * compute_us);
    }
}

/* Copies in, out and to a peer: each direction of each link is busy for itself. */
static void directions_are_independent(void **state)
{
    (void)state;
    const fr_gpu *gpu;
    fr_err err;
    fr_gpu_stream *s[3];
    fr_gpu_arena *a[2];
    float *host, *d0, *d0b, *d1;
    set_seed(1);
    gpu = fr_gpu_sim();
    assert_ok(gpu->host_alloc(2 * LAYER_BYTES, (void **)&host, &err));
    for (int i = 0; i < 3; i++)
        assert_ok(gpu->stream_open(0, &s[i], &err));
    for (int i = 0; i < 2; i++)
        assert_ok(gpu->arena_open(i, 4 << 20, "test", &a[i], &err));
    assert_ok(gpu->arena_alloc(a[0], LAYER_BYTES, (void **)&d0, &err));
    assert_ok(gpu->arena_alloc(a[0], LAYER_BYTES, (void **)&d0b, &err));
    assert_ok(gpu->arena_alloc(a[1], LAYER_BYTES, (void **)&d1, &err));
    double start = fr_gpu_sim_now_us();
    assert_ok(gpu->copy_in(d0, host, LAYER_BYTES, s[0], &err));
    assert_ok(gpu->copy_out(host + LAYER_FLOATS, d0b, LAYER_BYTES, s[1], &err));
    for (int i = 0; i < 2; i++)
        assert_ok(gpu->stream_wait(s[i], &err));
    assert_us(fr_gpu_sim_now_us() - start, copy_us);
    start = fr_gpu_sim_now_us();
    assert_ok(gpu->copy_out(host, d0, LAYER_BYTES, s[0], &err));
    assert_ok(gpu->copy_peer(d1, 1, d0b, 0, LAYER_BYTES, s[1], &err)); /* the same link out */
    for (int i = 0; i < 2; i++)
        assert_ok(gpu->stream_wait(s[i], &err));
    assert_us(fr_gpu_sim_now_us() - start, 2 * copy_us);
    start = fr_gpu_sim_now_us();
    fr_gpu_sim_next_cost_us(100);
    assert_ok(gpu->scale(d0, 1, 64, d0, s[0], &err));
    fr_gpu_sim_host_work_us(70);
    assert_ok(gpu->stream_wait(s[0], &err)); /* the host works while the GPU does */
    assert_us(fr_gpu_sim_now_us() - start, 100);
    for (int i = 0; i < 3; i++)
        gpu->stream_close(s[i]);
    for (int i = 0; i < 2; i++)
        gpu->arena_close(a[i]);
    gpu->host_free(host, 2 * LAYER_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streaming_overlaps_compute),
        cmocka_unit_test(three_links_work_at_once),
        cmocka_unit_test(directions_are_independent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
