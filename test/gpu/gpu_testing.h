/* What the GPU tests share: the backends to test, and memory that goes there and back. A test runs
 * on the simulator, in several orders of threads, and on a real GPU where there is one. */
#ifndef FR_TEST_GPU_TESTING_H
#define FR_TEST_GPU_TESTING_H

#include "testing.h"

#include <math.h>

#include "cuda/cuda.h"

/* A backend with one stream on device 0, and an arena that a test refills. */
typedef struct {
    const fr_gpu *gpu;
    fr_gpu_stream *s;
    fr_gpu_arena *arena;
} gpu_bench;

static inline gpu_bench gpu_open(const fr_gpu *gpu, size_t arena_bytes)
{
    fr_err err;
    gpu_bench b = {.gpu = gpu};
    assert_ok(gpu->stream_open(0, &b.s, &err));
    assert_ok(gpu->arena_open(0, arena_bytes, "test", &b.arena, &err));
    return b;
}

static inline void gpu_close(gpu_bench *b)
{
    b->gpu->stream_close(b->s);
    b->gpu->arena_close(b->arena);
}

/* Device memory, with the n bytes of src in it when src is not NULL. */
static inline void *gpu_put(gpu_bench *b, const void *src, size_t bytes)
{
    fr_err err;
    void *p = NULL;
    assert_ok(b->gpu->arena_alloc(b->arena, bytes, &p, &err));
    if (src)
        assert_ok(b->gpu->copy_in(p, src, bytes, b->s, &err));
    return p;
}

static inline float *gpu_floats(gpu_bench *b, const float *src, int64_t n)
{
    return (float *)gpu_put(b, src, (size_t)n * sizeof *src);
}

/* n bytes of device memory, when all that is enqueued is done. */
static inline void gpu_get(gpu_bench *b, void *dst, const void *src_d, size_t bytes)
{
    fr_err err;
    assert_ok(b->gpu->copy_out(dst, src_d, bytes, b->s, &err));
    assert_ok(b->gpu->stream_wait(b->s, &err));
}

static inline void fill_random(float *x, int64_t n, float size, uint64_t *rng)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = size * test_rand_f(rng);
}

/* |got - want| <= relative * |want| + absolute, for each number. */
static inline void assert_close(const float *got, const float *want, int64_t n, double relative,
                                double absolute, const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        double g = (double)got[i], w = (double)want[i];
        if (!(fabs(g - w) <= relative * fabs(w) + absolute))
            fail_msg("%s: number %d is %.9g, expected %.9g", what, (int)i, g, w);
    }
}

/* Settings that a test of kernels runs under: every order of threads, several seeds. */
static const char *const gpu_orders[] = {"order=0,seed=1", "order=1,seed=2", "order=2,seed=3",
                                         "order=2,seed=4,lazy=1", "order=2,seed=5,eager=1"};
enum { N_GPU_ORDERS = 5 };

/* Runs check on the simulator under all settings, and on the first real GPU. */
static inline void on_every_gpu(void (*check)(const fr_gpu *gpu))
{
    fr_err err;
    for (int i = 0; i < N_GPU_ORDERS && fr_gpu_sim(); i++) {
        assert_ok(fr_gpu_sim_configure("devices=2,mb=256,lazy=0,eager=0", &err));
        assert_ok(fr_gpu_sim_configure(gpu_orders[i], &err));
        check(fr_gpu_sim());
    }
    if (fr_gpu_cuda() && fr_gpu_cuda()->device_count(NULL) > 0)
        check(fr_gpu_cuda());
}

#endif
