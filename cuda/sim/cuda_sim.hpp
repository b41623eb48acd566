/* CUDA executed on the CPU: the device language and the runtime API that ferry uses.
 *
 * A translation unit that includes this through cuda/ferry_cuda.h (with FERRY_CUDA_SIM) is ordinary
 * C++. Everything lives in namespace fsim, so the symbols do not meet those of libcudart and one
 * program can hold both. README.md in the folder above says how it works and what it reports.
 *
 * Threads of a block are fibers of one OS thread; operations of streams run on the host thread that
 * waits for them or enqueues them, in an order that the seed decides. Nothing runs by itself: a
 * host loop that polls memory without a CUDA call would wait for ever. */
#ifndef FR_CUDA_SIM_HPP
#define FR_CUDA_SIM_HPP

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/sim/sim_types.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

namespace fsim
{

/* ---- the running thread --------------------------------------------------------------------- */

struct Context {
    uint3 thread, block, block_dim, grid_dim;
};
extern Context context;

#ifdef FERRY_SIM_TSAN
/* Read through functions that are not instrumented: the context is not the kernel's data. */
uint3 context_thread();
uint3 context_block();
uint3 context_block_dim();
uint3 context_grid_dim();
#define threadIdx (::fsim::context_thread())
#define blockIdx  (::fsim::context_block())
#define blockDim  (::fsim::context_block_dim())
#define gridDim   (::fsim::context_grid_dim())
#else
#define threadIdx (::fsim::context.thread)
#define blockIdx  (::fsim::context.block)
#define blockDim  (::fsim::context.block_dim)
#define gridDim   (::fsim::context.grid_dim)
#endif

/* Where a barrier or collective stands in the source; a default argument sees its caller. */
struct Site {
    const char *file;
    int line;
};
#define FSIM_SITE ::fsim::Site site = {__builtin_FILE(), __builtin_LINE()}

/* ---- barriers and shared memory ------------------------------------------------------------- */

enum BarrierKind { BARRIER, BARRIER_COUNT, BARRIER_AND, BARRIER_OR };
int block_barrier(BarrierKind kind, bool predicate, Site site);

static inline void __syncthreads(FSIM_SITE)
{
    block_barrier(BARRIER, false, site);
}
static inline int __syncthreads_count(int p, FSIM_SITE)
{
    return block_barrier(BARRIER_COUNT, p != 0, site);
}
static inline int __syncthreads_and(int p, FSIM_SITE)
{
    return block_barrier(BARRIER_AND, p != 0, site);
}
static inline int __syncthreads_or(int p, FSIM_SITE)
{
    return block_barrier(BARRIER_OR, p != 0, site);
}

/* The block's copy of a shared variable; `key` is the same for all its threads. */
void *shared_static(const void *key, size_t bytes, size_t align, const char *name);
void *shared_dynamic();

/* ---- warp collectives (sim_warp.cpp) -------------------------------------------------------- */

/* Meets the lanes of `mask` in operation `op`; the last one to come calls compute, which sees
 * what each lane brought (NULL: lane not in mask, or exited). */
enum WarpOp {
    WARP_SYNC,
    WARP_SHFL,
    WARP_SHFL_XOR,
    WARP_SHFL_UP,
    WARP_SHFL_DOWN,
    WARP_BALLOT,
    WARP_ADD,
    WARP_MAX,
    WARP_MIN,
    WARP_OR,
    WARP_AND,
    WARP_MATCH,
    WARP_MMA_F16,
    WARP_MMA_S8,
    WARP_LDMATRIX
};
typedef void (*warp_compute)(void *lanes[32]);
void warp_collective(unsigned mask, WarpOp op, void *mine, warp_compute compute, Site site);

struct ShflLane {
    uint64_t value, result;
    WarpOp op;
    int arg, width;
};
void shfl_compute(void *lanes[32]);

template <class T> inline T shfl(unsigned mask, T v, WarpOp op, int arg, int width, Site site)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    ShflLane mine = {0, 0, op, arg, width};
    memcpy(&mine.value, &v, sizeof v);
    warp_collective(mask, op, &mine, shfl_compute, site);
    T out;
    memcpy(&out, &mine.result, sizeof out);
    return out;
}
template <class T> inline T __shfl_sync(unsigned m, T v, int lane, int width = 32, FSIM_SITE)
{
    return shfl(m, v, WARP_SHFL, lane, width, site);
}
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int bits, int width = 32, FSIM_SITE)
{
    return shfl(m, v, WARP_SHFL_XOR, bits, width, site);
}
template <class T> inline T __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32, FSIM_SITE)
{
    return shfl(m, v, WARP_SHFL_UP, (int)d, width, site);
}
template <class T> inline T __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32, FSIM_SITE)
{
    return shfl(m, v, WARP_SHFL_DOWN, (int)d, width, site);
}

struct ReduceLane {
    int64_t value, result;
    WarpOp op;
};
void reduce_compute(void *lanes[32]);

static inline int64_t reduce(unsigned mask, int64_t v, WarpOp op, Site site)
{
    ReduceLane mine = {v, 0, op};
    warp_collective(mask, op, &mine, reduce_compute, site);
    return mine.result;
}
static inline void __syncwarp(unsigned m = 0xFFFFFFFFu, FSIM_SITE)
{
    warp_collective(m, WARP_SYNC, nullptr, nullptr, site);
}
static inline unsigned __ballot_sync(unsigned m, int p, FSIM_SITE)
{
    return (unsigned)reduce(m, p != 0, WARP_BALLOT, site);
}
static inline int __any_sync(unsigned m, int p, FSIM_SITE)
{
    return reduce(m, p != 0, WARP_BALLOT, site) != 0;
}
static inline int __all_sync(unsigned m, int p, FSIM_SITE)
{
    return reduce(m, p == 0, WARP_BALLOT, site) == 0;
}
template <class T> inline unsigned __match_any_sync(unsigned m, T v, FSIM_SITE)
{
    int64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    return (unsigned)reduce(m, bits, WARP_MATCH, site);
}
#define FSIM_REDUCE(NAME, OP)                                                                      \
    static inline int NAME(unsigned m, int v, FSIM_SITE)                                           \
    {                                                                                              \
        return (int)reduce(m, v, OP, site);                                                        \
    }                                                                                              \
    static inline unsigned NAME(unsigned m, unsigned v, FSIM_SITE)                                 \
    {                                                                                              \
        return (unsigned)reduce(m, (int64_t)v, OP, site);                                          \
    }
FSIM_REDUCE(__reduce_add_sync, WARP_ADD)
FSIM_REDUCE(__reduce_max_sync, WARP_MAX)
FSIM_REDUCE(__reduce_min_sync, WARP_MIN)
FSIM_REDUCE(__reduce_or_sync, WARP_OR)
FSIM_REDUCE(__reduce_and_sync, WARP_AND)
#undef FSIM_REDUCE

/* ---- what ptx.cuh emulates ------------------------------------------------------------------ */

struct MmaLane {
    const uint32_t *a, *b;
    const void *c;
    void *d;
};
void mma_f16_compute(void *lanes[32]);
void mma_s8_compute(void *lanes[32]);

struct LdmatrixLane {
    const void *row;
    uint32_t *out;
    int n;
};
void ldmatrix_compute(void *lanes[32]);

/* A range that an emulated instruction reads or writes: checked like code of the kernel. */
void touch_range(const void *p, size_t bytes, bool is_write);

/* Copies of a thread land when it waits for their group, as late as the hardware may. */
void cp_async(void *dst, const void *src, int bytes);
void cp_async_commit();
void cp_async_wait(int groups_left);

/* ---- atomics -------------------------------------------------------------------------------- */

template <class T> inline T atomicAdd(T *p, T v)
{
    if constexpr (std::is_integral_v<T>) {
        return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
    } else {
        T seen, sum;
        __atomic_load(p, &seen, __ATOMIC_RELAXED);
        do
            sum = seen + v;
        while (
            !__atomic_compare_exchange(p, &seen, &sum, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
        return seen;
    }
}
template <class T> inline T atomicMax(T *p, T v)
{
    T seen = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (seen < v &&
           !__atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        continue;
    return seen;
}
template <class T> inline T atomicMin(T *p, T v)
{
    T seen = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v < seen &&
           !__atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        continue;
    return seen;
}
template <class T> inline T atomicCAS(T *p, T expected, T v)
{
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return expected;
}
template <class T> inline T atomicExch(T *p, T v)
{
    return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL);
}
static inline void __threadfence()
{
}
static inline void __threadfence_block()
{
}

/* ---- runtime API ---------------------------------------------------------------------------- */

#define FSIM_ERRORS(X)                                                                             \
    X(cudaSuccess, 0, "no error")                                                                  \
    X(cudaErrorInvalidValue, 1, "invalid argument")                                                \
    X(cudaErrorMemoryAllocation, 2, "out of memory")                                               \
    X(cudaErrorInvalidConfiguration, 9, "invalid configuration argument")                          \
    X(cudaErrorInsufficientDriver, 35,                                                             \
      "CUDA driver version is insufficient for CUDA runtime "                                      \
      "version")                                                                                   \
    X(cudaErrorInvalidMemcpyDirection, 21, "invalid copy direction")                               \
    X(cudaErrorNoDevice, 100, "no CUDA-capable device is detected")                                \
    X(cudaErrorInvalidDevice, 101, "invalid device ordinal")                                       \
    X(cudaErrorInvalidResourceHandle, 400, "invalid resource handle")                              \
    X(cudaErrorNoKernelImageForDevice, 209,                                                        \
      "no kernel image is available for execution on the device")                                  \
    X(cudaErrorNotReady, 600, "device not ready")                                                  \
    X(cudaErrorIllegalAddress, 700, "an illegal memory access was encountered")                    \
    X(cudaErrorLaunchTimeout, 702, "a wait never completes")                                       \
    X(cudaErrorPeerAccessAlreadyEnabled, 704, "peer access is already enabled")                    \
    X(cudaErrorHostMemoryAlreadyRegistered, 712, "the memory is already registered")               \
    X(cudaErrorHostMemoryNotRegistered, 713, "the memory is not registered")                       \
    X(cudaErrorLaunchFailure, 719, "unspecified launch failure")                                   \
    X(cudaErrorNotPermitted, 800, "operation not permitted")                                       \
    X(cudaErrorStreamCaptureUnsupported, 900, "operation not permitted during capture")            \
    X(cudaErrorStreamCaptureUnjoined, 904, "capture with a stream that was not joined")

enum cudaError_t {
#define X(name, value, text) name = value,
    FSIM_ERRORS(X)
#undef X
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum {
    cudaStreamNonBlocking = 1,
    cudaEventDisableTiming = 2,
    cudaHostRegisterPortable = 1,
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaStreamCaptureModeThreadLocal = 1
};
enum cudaDeviceAttr {
    cudaDevAttrClockRate = 13,
    cudaDevAttrMemoryClockRate = 36,
    cudaDevAttrGlobalMemoryBusWidth = 37
};
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
typedef struct Stream *cudaStream_t;
typedef struct Event *cudaEvent_t;
typedef struct Graph *cudaGraph_t;
typedef struct GraphExec *cudaGraphExec_t;
typedef void (*cudaHostFn_t)(void *);

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock;
    int pciDomainID, pciBusID, pciDeviceID, asyncEngineCount, l2CacheSize;
};

struct cudaFuncAttributes {
    int maxThreadsPerBlock;
};

const char *cudaGetErrorName(cudaError_t e);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, const void *kernel);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaDeviceReset();
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer);
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpyPeerAsync(void *dst, int dst_device, const void *src, int src_device,
                                size_t bytes, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *dst, int byte, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *user);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t set_kernel_attribute(const void *kernel, int attribute, int value);
template <class F> inline cudaError_t cudaFuncSetAttribute(F kernel, int attribute, int value)
{
    return set_kernel_attribute((const void *)kernel, attribute, value);
}

/* Memory of the current device in two steps: room under its budget (negative: given back), and
 * allocations inside that room, each with red zones of its own. Free these with cudaFree. */
cudaError_t reserve(ptrdiff_t bytes);
cudaError_t allocate_reserved(void **p, size_t bytes);

/* ---- launch --------------------------------------------------------------------------------- */

/* Words of an argument that may be device pointers: the argument itself, or what a struct holds. */
struct ArgWords {
    const void *data;
    size_t bytes;
    bool is_pointer;
};
struct Launch {
    const char *name;
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    std::function<void()> body;
};
cudaError_t launch_checked(Launch launch, cudaStream_t stream, const ArgWords *args, int n_args);

template <class... P, class... A>
inline cudaError_t launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                          size_t shared_bytes, cudaStream_t stream, A &&...args)
{
    static_assert(sizeof...(P) == sizeof...(A), "number of kernel arguments");
    std::tuple<std::decay_t<P>...> values(static_cast<std::decay_t<P>>(args)...);
    return std::apply(
        [&](auto &...v) {
            ArgWords words[sizeof...(P) + 1] = {
                {&v, sizeof v, std::is_pointer_v<std::decay_t<decltype(v)>>}...};
            return launch_checked({name, (const void *)kernel, grid, block, shared_bytes,
                                   [kernel, values] { std::apply(kernel, values); }},
                                  stream, words, (int)sizeof...(P));
        },
        values);
}

/* ---- the simulator's own controls (sim_device.cpp) ------------------------------------------ */

/* "devices=3,mb=256,seed=7": changes settings. Waits for all work, then forgets all devices when
 * `devices`, `mb` or `guard` change. NULL, or the name that is unknown. */
const char *configure(const char *text);

/* The text of the last report (a fault in a kernel, a refused launch, a wait that never ends). */
const char *last_report();
void clear_report();

/* Virtual time (timing=1): microseconds since start, the cost of the next launch, host work. */
double virtual_now_us();
void next_launch_costs_us(double us);
void host_works_us(double us);

/* Counts since start, for tests. */
struct Counters {
    uint64_t launches, blocks, threads, switches, barriers, collectives, ops;
};
Counters counters();
size_t peak_bytes(int device);

} // namespace fsim
#endif
