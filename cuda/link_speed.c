/* How fast a GPU's link is: pinned copies, timed by the device's events. */
#include "cuda/cuda.h"

enum { COPY_BYTES = 16 << 20, MAX_COPIES = 256 };
static const double ENOUGH_US = 25e3; /* one way */

typedef struct {
    const fr_gpu *gpu;
    fr_gpu_arena *arena;
    fr_gpu_stream *stream;
    fr_gpu_event *from, *to;
    void *device, *host;
} bench;

static fr_status open_bench(bench *b, int device, fr_err *err)
{
    FR_TRY(b->gpu->arena_open(device, COPY_BYTES, "link speed", &b->arena, err));
    FR_TRY(b->gpu->arena_alloc(b->arena, COPY_BYTES, &b->device, err));
    FR_TRY(b->gpu->host_alloc(COPY_BYTES, &b->host, err));
    FR_TRY(b->gpu->stream_open(device, &b->stream, err));
    FR_TRY(b->gpu->event_open(device, &b->from, err));
    return b->gpu->event_open(device, &b->to, err);
}

static void close_bench(bench *b)
{
    b->gpu->stream_close(b->stream);
    b->gpu->event_close(b->from);
    b->gpu->event_close(b->to);
    b->gpu->host_free(b->host, COPY_BYTES);
    b->gpu->arena_close(b->arena);
}

static fr_status copy(bench *b, bool in, fr_err *err)
{
    return in ? b->gpu->copy_in(b->device, b->host, COPY_BYTES, b->stream, err)
              : b->gpu->copy_out(b->host, b->device, COPY_BYTES, b->stream, err);
}

static fr_status time_copies(bench *b, bool in, int n, double *us, fr_err *err)
{
    FR_TRY(b->gpu->event_record(b->from, b->stream, err));
    for (int i = 0; i < n; i++)
        FR_TRY(copy(b, in, err));
    FR_TRY(b->gpu->event_record(b->to, b->stream, err));
    FR_TRY(b->gpu->event_wait(b->to, err));
    return b->gpu->event_elapsed_us(b->from, b->to, us, err);
}

/* Twice as many copies each time, until they last long enough; the first ones wake the link up. */
static fr_status one_way(bench *b, bool in, double *speed, fr_err *err)
{
    double us = 0;
    *speed = 0;
    for (int n = 1; n <= MAX_COPIES && us < ENOUGH_US; n *= 2) {
        FR_TRY(time_copies(b, in, n, &us, err));
        *speed = us > 0 ? (double)n * COPY_BYTES / us * 1e6 : 0;
    }
    return FR_OK;
}

fr_status fr_gpu_link_speed(const fr_gpu *gpu, int device, double *h2d, double *d2h, fr_err *err)
{
    bench b = {.gpu = gpu};
    *h2d = *d2h = 0;
    fr_status st = open_bench(&b, device, err);
    if (st == FR_OK)
        st = one_way(&b, true, h2d, err);
    if (st == FR_OK)
        st = one_way(&b, false, d2h, err);
    close_bench(&b);
    return st;
}
