/* The host side of a GPU backend: devices, memory, streams, events, copies, graphs, and the table
 * of cuda.h. Built by nvcc for GPUs and by the C++ compiler for the simulator. */
#include <atomic>
#include <cstdio>
#include <sys/mman.h>

#include "cuda/dl_cublas.cuh"
#include "cuda/launchers.h"
extern "C" {
#include "base/mem.h"
}

struct fr_gpu_stream {
    int device;
    cudaStream_t h;
};

struct fr_gpu_event {
    int device;
    cudaEvent_t h;
};

struct fr_gpu_graph {
    int device;
    cudaGraphExec_t h;
};

/* Owns its memory: on a GPU one allocation, cut from front to back; in the simulator a reservation
 * in which every block is an allocation of its own, so that red zones stand between them. */
struct fr_gpu_arena {
    int device;
    const char *what;
    size_t bytes, used;
#ifdef FERRY_CUDA_SIM
    void **blocks; /* owned */
    size_t n_blocks, cap_blocks;
#else
    uint8_t *base_d;
#endif
};

namespace FERRY_GPU_NS
{

/* ---- errors --------------------------------------------------------------------------------- */

static fr_status status_of(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return FR_OK;
    case cudaErrorMemoryAllocation:
        return FR_ENOMEM;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorNotPermitted:
        return FR_EINTERNAL;
    default:
        return FR_EIO;
    }
}

/* What the simulator knows beyond the code. */
static const char *details()
{
#ifdef FERRY_CUDA_SIM
    return last_report();
#else
    return "";
#endif
}

static fr_status call_failed(cudaError_t e, int device, const char *call, int line, fr_err *err)
{
    cudaGetLastError(); /* or the next call would report it again */
    const char *more = details();
    return fr_fail(err, status_of(e), "GPU %d: %.*s found %s (%s) at backend.cu:%d%s%s", device,
                   (int)strcspn(call, "("), call, cudaGetErrorName(e), cudaGetErrorString(e), line,
                   *more ? ": " : "", more);
}

/* Leaves the function with an error when a call fails. */
#define GPU_TRY(device, call)                                                                      \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess)                                                                     \
            return call_failed(e_, device, #call, __LINE__, err);                                  \
    } while (0)

/* ---- finding faults: waiting after every operation ------------------------------------------ */

static std::atomic<bool> wait_always;
static std::atomic<int> n_captures; /* under way: then nothing may wait */

static void sync_debug(bool on)
{
    wait_always = on;
}

/* What every operation ends with. */
static fr_status started(fr_gpu_stream *s, const char *call, fr_err *err)
{
    if (!wait_always || n_captures > 0)
        return FR_OK;
    cudaError_t e = cudaStreamSynchronize(s->h);
    return e == cudaSuccess ? FR_OK : call_failed(e, s->device, call, __LINE__, err);
}

/* ---- devices -------------------------------------------------------------------------------- */

/* Why there are no devices: the commonest reason is a driver that is missing or older than the
 * runtime in this build. Versions count 1000 * major + 10 * minor. */
static void no_devices(cudaError_t e, fr_err *why)
{
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaGetLastError();
    if (driver == 0)
        fr_fail(why, FR_ENOTFOUND, "GPUs: found none (no driver), expected a CUDA device");
    else if (e == cudaErrorInsufficientDriver)
        fr_fail(why, FR_EUNSUPPORTED,
                "GPUs: found none (a driver for CUDA %d.%d), expected one for CUDA %d.%d or later; "
                "update the driver",
                driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    else
        fr_fail(why, FR_ENOTFOUND, "GPUs: found none (%s), expected a CUDA device",
                e == cudaSuccess ? "the driver sees no device" : cudaGetErrorString(e));
}

static int device_count(fr_err *why)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0)
        return n;
    no_devices(e, why);
    return 0;
}

/* Operations (two a multiply-add) of a processor in a cycle, dense: float16 products with float32
 * sums, int8 products. From the tables of NVIDIA's whitepapers on Turing, GA100, GA102, Ada, Hopper
 * and Blackwell: peak rate / (processors * boost clock). Where cards of one capability differ (7.5,
 * 8.6, 8.9, 12.0), those for players: some others do twice as many float16. */
struct Rates {
    int major, minor;
    double f16, int8;
};
static const Rates rates[] = {{7, 5, 512, 2048}, {8, 0, 2048, 4096}, {8, 6, 512, 2048},
                              {8, 9, 512, 2048}, {9, 0, 4096, 8192}, {10, 0, 8192, 16384},
                              {12, 0, 512, 2048}};

/* 0 for what the runtime does not know. */
static double attribute(int device, cudaDeviceAttr which)
{
    int v = 0;
    if (cudaDeviceGetAttribute(&v, which, device) != cudaSuccess)
        cudaGetLastError();
    return v > 0 ? v : 0;
}

/* Clocks are in kHz; memory moves data twice a cycle. */
static void fill_rates(int device, fr_gpu_info *out)
{
    double cycles = 1e3 * attribute(device, cudaDevAttrClockRate) * out->n_processors;
    out->bandwidth = 2 * 1e3 * attribute(device, cudaDevAttrMemoryClockRate) *
                     attribute(device, cudaDevAttrGlobalMemoryBusWidth) / 8;
    for (const Rates &r : rates)
        if (r.major == out->major && r.minor == out->minor) {
            out->f16_ops = cycles * r.f16;
            out->int8_ops = cycles * r.int8;
        }
}

/* Whether kernels can run there. */
static void check_usable(fr_gpu_info *out)
{
    if (out->major * 10 + out->minor < 75)
        snprintf(out->why_not, sizeof out->why_not,
                 "found compute capability %d.%d, expected 7.5 or newer", out->major, out->minor);
    else if (code_check() != cudaSuccess)
        snprintf(out->why_not, sizeof out->why_not,
                 "found no code for compute capability %d.%d, expected a build with it in "
                 "FERRY_CUDA_ARCHS",
                 out->major, out->minor);
    else
        out->usable = true;
    cudaGetLastError();
}

static fr_status device_info(int device, fr_gpu_info *out, fr_err *err)
{
    cudaDeviceProp p;
    size_t free_bytes = 0, total_bytes = 0;
    *out = fr_gpu_info();
    GPU_TRY(device, cudaGetDeviceProperties(&p, device));
    GPU_TRY(device, cudaSetDevice(device));
    GPU_TRY(device, cudaMemGetInfo(&free_bytes, &total_bytes));
    snprintf(out->name, sizeof out->name, "%.63s", p.name);
    snprintf(out->bus, sizeof out->bus, "%04x:%02x:%02x.0", (unsigned)p.pciDomainID & 0xFFFF,
             (unsigned)p.pciBusID & 0xFF, (unsigned)p.pciDeviceID & 0xFF);
    out->total_bytes = total_bytes;
    out->free_bytes = free_bytes;
    out->major = p.major;
    out->minor = p.minor;
    out->n_processors = p.multiProcessorCount;
    out->n_copy_engines = p.asyncEngineCount;
    out->shared_bytes = p.sharedMemPerBlockOptin;
    out->l2_bytes = (size_t)p.l2CacheSize;
#ifdef FERRY_CUDA_SIM
    out->simulated = true;
#endif
    fill_rates(device, out);
    check_usable(out);
    return FR_OK;
}

static fr_status device_wait(int device, fr_err *err)
{
    GPU_TRY(device, cudaSetDevice(device));
    GPU_TRY(device, cudaDeviceSynchronize());
    return FR_OK;
}

static fr_status device_reset(int device, fr_err *err)
{
    GPU_TRY(device, cudaSetDevice(device));
    cublas_forget(device);
    GPU_TRY(device, cudaDeviceReset());
    return FR_OK;
}

static fr_status peer_enable(int device, int peer, fr_err *err)
{
    int can = 0;
    GPU_TRY(device, cudaDeviceCanAccessPeer(&can, device, peer));
    if (!can)
        return fr_fail(err, FR_EUNSUPPORTED,
                       "GPU %d: found no way to the memory of GPU %d, expected peer access; copies "
                       "go through host memory",
                       device, peer);
    GPU_TRY(device, cudaSetDevice(device));
    cudaError_t e = cudaDeviceEnablePeerAccess(peer, 0);
    if (e != cudaErrorPeerAccessAlreadyEnabled)
        GPU_TRY(device, e);
    cudaGetLastError();
    return FR_OK;
}

/* ---- arenas --------------------------------------------------------------------------------- */

static const size_t ARENA_ALIGN = 256;

static fr_status arena_full(int device, const char *what, size_t budget, size_t used, size_t bytes,
                            fr_err *err)
{
    return fr_fail(err, FR_ENOMEM,
                   "GPU %d: %s: found %zu bytes asked for with %zu of %zu in use, expected them to "
                   "fit; place less on this GPU",
                   device, what, bytes, used, budget);
}

static cudaError_t take_budget(fr_gpu_arena *a)
{
#ifdef FERRY_CUDA_SIM
    return reserve((ptrdiff_t)a->bytes);
#else
    return cudaMalloc((void **)&a->base_d, a->bytes);
#endif
}

static fr_status arena_open(int device, size_t bytes, const char *what, fr_gpu_arena **out,
                            fr_err *err)
{
    *out = nullptr;
    GPU_TRY(device, cudaSetDevice(device));
    fr_gpu_arena *a = (fr_gpu_arena *)fr_mem_array(FR_MEM_GPU, 1, sizeof *a, err);
    if (!a)
        return FR_ENOMEM;
    a->device = device;
    a->what = what;
    a->bytes = bytes > 0 ? bytes : 1;
    cudaError_t e = take_budget(a);
    if (e == cudaSuccess) {
        *out = a;
        return FR_OK;
    }
    fr_mem_free(a);
    if (e != cudaErrorMemoryAllocation)
        return call_failed(e, device, "arena_open", __LINE__, err);
    size_t free_bytes = 0, total = 0;
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total);
    return fr_fail(err, FR_ENOMEM,
                   "GPU %d: %s: found %zu of %zu bytes free, expected %zu; place less on this GPU, "
                   "or end the programs that use it",
                   device, what, free_bytes, total, bytes);
}

#ifdef FERRY_CUDA_SIM
static fr_status cut(fr_gpu_arena *a, size_t bytes, void **out_d, fr_err *err)
{
    void *blocks = a->blocks;
    FR_TRY(
        fr_mem_grow(FR_MEM_GPU, &blocks, &a->cap_blocks, a->n_blocks + 1, sizeof *a->blocks, err));
    a->blocks = (void **)blocks;
    GPU_TRY(a->device, cudaSetDevice(a->device));
    GPU_TRY(a->device, allocate_reserved(out_d, bytes));
    a->blocks[a->n_blocks++] = *out_d;
    return FR_OK;
}

static void give_back(fr_gpu_arena *a)
{
    for (size_t i = 0; i < a->n_blocks; i++)
        cudaFree(a->blocks[i]);
    fr_mem_free(a->blocks);
    reserve(-(ptrdiff_t)a->bytes);
}
#else
static fr_status cut(fr_gpu_arena *a, size_t bytes, void **out_d, fr_err *err)
{
    (void)bytes, (void)err;
    *out_d = a->base_d + a->used;
    return FR_OK;
}

static void give_back(fr_gpu_arena *a)
{
    cudaFree(a->base_d);
}
#endif

static fr_status arena_alloc(fr_gpu_arena *a, size_t bytes, void **out_d, fr_err *err)
{
    size_t room = (bytes > 0 ? bytes : 1) + ARENA_ALIGN - 1;
    *out_d = nullptr;
    if (room < bytes || room / ARENA_ALIGN * ARENA_ALIGN > a->bytes - a->used)
        return arena_full(a->device, a->what, a->bytes, a->used, bytes, err);
    FR_TRY(cut(a, bytes > 0 ? bytes : 1, out_d, err));
    a->used += room / ARENA_ALIGN * ARENA_ALIGN;
    return FR_OK;
}

static size_t arena_used(const fr_gpu_arena *a)
{
    return a->used;
}

static void arena_close(fr_gpu_arena *a)
{
    if (!a)
        return;
    cudaSetDevice(a->device);
    cudaDeviceSynchronize();
    give_back(a);
    cudaGetLastError();
    fr_mem_free(a);
}

/* ---- host memory: mapped by us and registered, so that nothing depends on a driver's allocator --
 */

static fr_status host_register(void *p, size_t bytes, fr_err *err)
{
    cudaError_t e = cudaHostRegister(p, bytes, cudaHostRegisterPortable);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return fr_fail(err, FR_ENOMEM,
                       "pinned memory: found %zu bytes refused, expected them to fit; raise the "
                       "limit of locked memory or pin less",
                       bytes);
    }
    if (e != cudaSuccess)
        return call_failed(e, 0, "cudaHostRegister", __LINE__, err);
    return FR_OK;
}

static void host_unregister(void *p)
{
    if (p && cudaHostUnregister(p) != cudaSuccess)
        cudaGetLastError();
}

static fr_status host_alloc(size_t bytes, void **out_h, fr_err *err)
{
    bytes = bytes > 0 ? bytes : 1;
    *out_h = nullptr;
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return fr_fail(err, FR_ENOMEM, "pinned memory: found no room for %zu bytes", bytes);
    fr_status st = host_register(p, bytes, err);
    if (st != FR_OK) {
        munmap(p, bytes);
        return st;
    }
    *out_h = p;
    return FR_OK;
}

static void host_free(void *p_h, size_t bytes)
{
    if (!p_h)
        return;
    host_unregister(p_h);
    munmap(p_h, bytes > 0 ? bytes : 1);
}

/* ---- streams -------------------------------------------------------------------------------- */

static fr_status stream_open(int device, fr_gpu_stream **out, fr_err *err)
{
    *out = nullptr;
    GPU_TRY(device, cudaSetDevice(device));
    fr_gpu_stream *s = (fr_gpu_stream *)fr_mem_array(FR_MEM_GPU, 1, sizeof *s, err);
    if (!s)
        return FR_ENOMEM;
    s->device = device;
    cudaError_t e = cudaStreamCreateWithFlags(&s->h, cudaStreamNonBlocking);
    if (e != cudaSuccess) {
        fr_mem_free(s);
        return call_failed(e, device, "cudaStreamCreateWithFlags", __LINE__, err);
    }
    *out = s;
    return FR_OK;
}

static void stream_close(fr_gpu_stream *s)
{
    if (!s)
        return;
    cudaSetDevice(s->device);
    cudaStreamSynchronize(s->h);
    cudaStreamDestroy(s->h);
    cudaGetLastError();
    fr_mem_free(s);
}

static fr_status stream_wait(fr_gpu_stream *s, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaStreamSynchronize(s->h));
    return FR_OK;
}

static fr_status stream_done(fr_gpu_stream *s, bool *done, fr_err *err)
{
    cudaError_t e = cudaStreamQuery(s->h);
    *done = e == cudaSuccess;
    if (e != cudaErrorNotReady)
        GPU_TRY(s->device, e);
    return FR_OK;
}

static fr_status stream_call(fr_gpu_stream *s, void (*fn)(void *), void *user, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaLaunchHostFunc(s->h, fn, user));
    return FR_OK;
}

/* ---- events --------------------------------------------------------------------------------- */

static fr_status event_open(int device, fr_gpu_event **out, fr_err *err)
{
    *out = nullptr;
    GPU_TRY(device, cudaSetDevice(device));
    fr_gpu_event *e = (fr_gpu_event *)fr_mem_array(FR_MEM_GPU, 1, sizeof *e, err);
    if (!e)
        return FR_ENOMEM;
    e->device = device;
    cudaError_t st = cudaEventCreateWithFlags(&e->h, 0);
    if (st != cudaSuccess) {
        fr_mem_free(e);
        return call_failed(st, device, "cudaEventCreateWithFlags", __LINE__, err);
    }
    *out = e;
    return FR_OK;
}

static void event_close(fr_gpu_event *e)
{
    if (!e)
        return;
    cudaEventDestroy(e->h);
    cudaGetLastError();
    fr_mem_free(e);
}

static fr_status event_record(fr_gpu_event *e, fr_gpu_stream *s, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaEventRecord(e->h, s->h));
    return FR_OK;
}

static fr_status stream_after(fr_gpu_stream *s, fr_gpu_event *e, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaStreamWaitEvent(s->h, e->h, 0));
    return FR_OK;
}

static fr_status event_wait(fr_gpu_event *e, fr_err *err)
{
    GPU_TRY(e->device, cudaEventSynchronize(e->h));
    return FR_OK;
}

static fr_status event_done(fr_gpu_event *e, bool *done, fr_err *err)
{
    cudaError_t st = cudaEventQuery(e->h);
    *done = st == cudaSuccess;
    if (st != cudaErrorNotReady)
        GPU_TRY(e->device, st);
    return FR_OK;
}

static fr_status event_elapsed_us(fr_gpu_event *from, fr_gpu_event *to, double *us, fr_err *err)
{
    float ms = 0;
    *us = 0;
    GPU_TRY(from->device, cudaEventElapsedTime(&ms, from->h, to->h));
    *us = 1000.0 * (double)ms;
    return FR_OK;
}

/* ---- copies --------------------------------------------------------------------------------- */

static fr_status copy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                      const char *name, fr_gpu_stream *s, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaMemcpyAsync(dst, src, bytes, kind, s->h));
    return started(s, name, err);
}

static fr_status copy_in(void *dst_d, const void *src, size_t bytes, fr_gpu_stream *s, fr_err *err)
{
    return copy(dst_d, src, bytes, cudaMemcpyHostToDevice, "copy_in", s, err);
}

static fr_status copy_out(void *dst, const void *src_d, size_t bytes, fr_gpu_stream *s, fr_err *err)
{
    return copy(dst, src_d, bytes, cudaMemcpyDeviceToHost, "copy_out", s, err);
}

static fr_status copy_within(void *dst_d, const void *src_d, size_t bytes, fr_gpu_stream *s,
                             fr_err *err)
{
    return copy(dst_d, src_d, bytes, cudaMemcpyDeviceToDevice, "copy_within", s, err);
}

static fr_status copy_peer(void *dst_d, int dst_device, const void *src_d, int src_device,
                           size_t bytes, fr_gpu_stream *s, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaMemcpyPeerAsync(dst_d, dst_device, src_d, src_device, bytes, s->h));
    return started(s, "copy_peer", err);
}

static fr_status fill(void *dst_d, int byte, size_t bytes, fr_gpu_stream *s, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaMemsetAsync(dst_d, byte, bytes, s->h));
    return started(s, "fill", err);
}

/* ---- graphs --------------------------------------------------------------------------------- */

static fr_status capture_begin(fr_gpu_stream *s, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaStreamBeginCapture(s->h, cudaStreamCaptureModeThreadLocal));
    n_captures++;
    return FR_OK;
}

static fr_status capture_end(fr_gpu_stream *s, fr_gpu_graph **out, fr_err *err)
{
    cudaGraph_t graph = nullptr;
    *out = nullptr;
    n_captures--;
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaStreamEndCapture(s->h, &graph));
    fr_gpu_graph *g = (fr_gpu_graph *)fr_mem_array(FR_MEM_GPU, 1, sizeof *g, err);
    if (!g) {
        cudaGraphDestroy(graph);
        return FR_ENOMEM;
    }
    g->device = s->device;
    cudaError_t e = cudaGraphInstantiate(&g->h, graph, 0);
    cudaGraphDestroy(graph);
    if (e != cudaSuccess) {
        fr_mem_free(g);
        return call_failed(e, s->device, "cudaGraphInstantiate", __LINE__, err);
    }
    *out = g;
    return FR_OK;
}

static fr_status graph_launch(fr_gpu_graph *g, fr_gpu_stream *s, fr_err *err)
{
    GPU_TRY(s->device, cudaSetDevice(s->device));
    GPU_TRY(s->device, cudaGraphLaunch(g->h, s->h));
    return started(s, "graph_launch", err);
}

static void graph_close(fr_gpu_graph *g)
{
    if (!g)
        return;
    cudaSetDevice(g->device);
    cudaGraphExecDestroy(g->h);
    cudaGetLastError();
    fr_mem_free(g);
}

/* ---- operations: launchers with the device set and errors told ------------------------------ */

#define START(name, ...)                                                                           \
    do {                                                                                           \
        GPU_TRY(s->device, cudaSetDevice(s->device));                                              \
        GPU_TRY(s->device, launch_##name(__VA_ARGS__, s->h));                                      \
        return started(s, #name, err);                                                             \
    } while (0)
#define OPERATION(name, args_type)                                                                 \
    static fr_status name(const args_type *a, fr_gpu_stream *s, fr_err *err)                       \
    {                                                                                              \
        START(name, *a);                                                                           \
    }
OPERATION(rows, fr_gpu_rows_args)
OPERATION(matvec, fr_gpu_matmul_args)
OPERATION(matmul, fr_gpu_matmul_args)
OPERATION(rms_norm, fr_gpu_norm_args)
OPERATION(rope, fr_gpu_rope_args)
OPERATION(router, fr_gpu_router_args)
OPERATION(mix, fr_gpu_mix_args)
OPERATION(kv_store, fr_gpu_kv_store_args)
OPERATION(attn, fr_gpu_attn_args)
#undef OPERATION

static fr_status attn_expanded(const fr_gpu_attn_args *a, const fr_gpu_attn_chunk *c,
                               fr_gpu_stream *s, fr_err *err)
{
    START(attn_expanded, *a, *c);
}

static fr_status kv_load(const fr_gpu_kv *kv, int64_t from, int64_t n, float *out_d,
                         fr_gpu_stream *s, fr_err *err)
{
    START(kv_load, *kv, from, n, out_d);
}

static fr_status kv_keep(const fr_gpu_kv *kv, int64_t n_tokens, fr_gpu_stream *s, fr_err *err)
{
    START(kv_keep, *kv, n_tokens);
}

static fr_status softmax(float *x_d, int64_t ldx, int64_t n_rows, int64_t cols, fr_gpu_stream *s,
                         fr_err *err)
{
    START(softmax, x_d, ldx, n_rows, cols);
}

static fr_status add(const float *a_d, const float *b_d, int64_t n, float *y_d, fr_gpu_stream *s,
                     fr_err *err)
{
    START(add, a_d, b_d, n, y_d);
}

static fr_status swiglu(const float *gate_d, const float *up_d, int64_t n, float *y_d,
                        fr_gpu_stream *s, fr_err *err)
{
    START(swiglu, gate_d, up_d, n, y_d);
}

static fr_status scale(const float *x_d, float factor, int64_t n, float *y_d, fr_gpu_stream *s,
                       fr_err *err)
{
    START(scale, x_d, factor, n, y_d);
}
#undef START

} // namespace FERRY_GPU_NS

using namespace FERRY_GPU_NS;

#ifdef FERRY_CUDA_SIM
#define GPU_TABLE gpu_table_sim
#define GPU_NAME  "sim"
#else
#define GPU_TABLE gpu_table_cuda
#define GPU_NAME  "cuda"
#endif

extern "C" const fr_gpu GPU_TABLE;
extern "C" const fr_gpu GPU_TABLE = {GPU_NAME,      device_count,  device_info,
                                     device_wait,   sync_debug,    device_reset,
                                     peer_enable,   arena_open,    arena_alloc,
                                     arena_used,    arena_close,   host_alloc,
                                     host_free,     host_register, host_unregister,
                                     stream_open,   stream_close,  stream_wait,
                                     stream_done,   stream_call,   event_open,
                                     event_close,   event_record,  stream_after,
                                     event_wait,    event_done,    event_elapsed_us,
                                     copy_in,       copy_out,      copy_within,
                                     copy_peer,     fill,          capture_begin,
                                     capture_end,   graph_launch,  graph_close,
                                     rows,          matvec,        matmul,
                                     rms_norm,      rope,          router,
                                     mix,           kv_store,      attn,
                                     attn_expanded, kv_load,       kv_keep,
                                     softmax,       add,           swiglu,
                                     scale};
