/* Programs with one bug each, and right ones beside them: what test_sim_bugs.c runs to see that the
 * simulator reports them. Usage: sim_bugs NAME. Prints every error by name, and what the kernel
 * computed as "right" or "wrong". */
#include <cstdio>
#include <vector>

#include "cuda/ptx.cuh"

using namespace FERRY_GPU_NS;

static const unsigned ALL = 0xFFFFFFFFu;

/* ---- kernels -------------------------------------------------------------------------------- */

__global__ void divergent_barrier(float *y)
{
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        y[threadIdx.x] = 1;
        __syncthreads();
    }
}

__global__ void missing_lanes(float *y)
{
    if (threadIdx.x < 16)
        y[threadIdx.x] = __shfl_sync(ALL, 1.0f, 0);
    __syncthreads();
}

__global__ void bad_mask(float *y)
{
    if (threadIdx.x & 1)
        y[threadIdx.x] = __shfl_sync(0x55555555u, 1.0f, 0);
}

__global__ void different_collectives(float *y)
{
    if (threadIdx.x < 16)
        y[threadIdx.x] = __shfl_sync(ALL, 1.0f, 0);
    else
        y[threadIdx.x] = (float)__ballot_sync(ALL, 1);
}

__global__ void shared_overrun(float *y)
{
    FERRY_SHARED(float, a, [64]);
    const float *next = &a[0] + 1; /* an array's index UBSan would see first */
    a[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = next[threadIdx.x];
}

__global__ void dynamic_overrun(float *y)
{
    FERRY_SHARED_DYN(float, a);
    a[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x + 1];
}

__global__ void global_overrun(float *y, int n)
{
    if ((int)threadIdx.x <= n)
        y[threadIdx.x] = 1;
}

__global__ void misaligned_load(const float *x, float *y)
{
    float4 v = *(const float4 *)(x + 1);
    y[threadIdx.x] = v.x;
}

__global__ void misaligned_copy(const float *x, float *y)
{
    FERRY_SHARED(float, a, [128]);
    copy_async_16(&a[0], x + 1);
    copy_async_commit();
    copy_async_wait<0>();
    y[threadIdx.x] = a[0];
}

/* y[i] = 63 - i, through shared memory. */
__global__ void reverse_64(float *y, bool with_barrier)
{
    FERRY_SHARED(float, a, [64]);
    a[threadIdx.x] = (float)threadIdx.x;
    if (with_barrier)
        __syncthreads();
    y[threadIdx.x] = a[63 - threadIdx.x];
}

/* y[i] = 31 - i, through shared memory of a warp. */
enum { NOTHING, SYNCWARP, SHUFFLE };
__global__ void reverse_32(float *y, int between)
{
    FERRY_SHARED(float, a, [32]);
    a[threadIdx.x] = (float)threadIdx.x;
    float zero = 0;
    if (between == SYNCWARP)
        __syncwarp();
    if (between == SHUFFLE)
        zero = __shfl_xor_sync(ALL, 0.0f, 1);
    y[threadIdx.x] = a[31 - threadIdx.x] + zero;
}

__global__ void blocks_write_same(float *y)
{
    y[threadIdx.x] = 63 - (float)threadIdx.x;
}

__global__ void blocks_add(float *y, int *count)
{
    atomicAdd(count, 1);
    if (blockIdx.x == 0)
        y[threadIdx.x] = 63 - (float)threadIdx.x;
}

__global__ void uninitialised_shared(float *y)
{
    FERRY_SHARED(float, a, [64]);
    if (threadIdx.x < 32)
        a[threadIdx.x] = 63 - (float)threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x];
}

__global__ void copy_floats(const float *x, float *y)
{
    y[threadIdx.x] = x[threadIdx.x];
}

__global__ void copy_async(const float *x, float *y, bool with_wait)
{
    FERRY_SHARED(float, a, [64]);
    if (threadIdx.x < 16) {
        copy_async_16(&a[4 * threadIdx.x], x + 4 * threadIdx.x);
        copy_async_commit();
        if (with_wait)
            copy_async_wait<0>();
    }
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x];
}

__global__ void big_static(float *y)
{
    FERRY_SHARED(float, a, [16384]);
    a[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x];
}

__global__ void mma_ended_lane(float *y)
{
    if (threadIdx.x == 5)
        return;
    uint32_t a[4] = {}, b[2] = {};
    float c[4] = {}, d[4];
    mma_16x8x16_f16(d, a, b, c);
    y[threadIdx.x] = d[0];
}

/* Half the threads end before the barrier, and masks of half warps diverge: both are legal. */
__global__ void legal_divergence(float *y)
{
    FERRY_SHARED(float, a, [64]);
    int i = threadIdx.x;
    float v = 63 - (float)i;
    if (i % 32 < 16)
        v += (float)__shfl_sync(0x0000FFFFu, 0, 0);
    else
        v += (float)__reduce_add_sync(0xFFFF0000u, 0);
    y[i] = v;
    if (i >= 32)
        return;
    a[i] = v;
    __syncthreads();
    y[i] = a[i];
}

struct Hidden {
    int64_t n;
    float *y;
};
__global__ void through_struct(Hidden h)
{
    h.y[threadIdx.x] = 1;
}

/* ---- host ----------------------------------------------------------------------------------- */

static cudaStream_t s, s2;
static float *x, *y, *staging;
static int *count;

static void say(const char *what, cudaError_t e)
{
    if (e != cudaSuccess)
        printf("%s: %s\n", what, cudaGetErrorName(e));
}

#define RUN(kernel, blocks, threads, shared, ...)                                                  \
    say("launch", FERRY_LAUNCH(kernel, dim3(blocks), dim3(threads), shared, s, __VA_ARGS__))

/* The value of a right program: number i is n - 1 - i. */
static void judge(const float *p, int n)
{
    int bad = 0;
    for (int i = 0; i < n; i++)
        bad += !(p[i] == (float)(n - 1 - i));
    printf("%s\n", bad ? "wrong" : "right");
}

static void wait_and_judge(int n)
{
    std::vector<float> got(64);
    say("wait", cudaStreamSynchronize(s));
    say("copy", cudaMemcpyAsync(got.data(), y, 256, cudaMemcpyDeviceToHost, s));
    judge(got.data(), n);
}

static void bug_global_overrun()
{
    float *p;
    cudaMalloc((void **)&p, 256);
    RUN(global_overrun, 1, 65, 0, p, 64);
}

static void bug_freed_argument()
{
    float *p;
    cudaMalloc((void **)&p, 256);
    cudaFree(p);
    RUN(copy_floats, 1, 64, 0, p, y);
}

static float *memory_of_other_device()
{
    float *p = nullptr;
    cudaSetDevice(1);
    cudaMalloc((void **)&p, 256);
    cudaSetDevice(0);
    return p;
}

static void bug_hidden_pointer()
{
    RUN(through_struct, 1, 64, 0, Hidden{1, memory_of_other_device()});
}

static void bug_uninitialised_global()
{
    float *p;
    cudaMalloc((void **)&p, 256);
    RUN(copy_floats, 1, 64, 0, p, y);
    wait_and_judge(64);
}

/* The second stream reads what the first copies in. */
static void two_streams(bool with_event)
{
    cudaEvent_t e;
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    cudaMemsetAsync(x, 0, 256, s2);
    cudaStreamSynchronize(s2);
    cudaMemcpyAsync(x, staging, 256, cudaMemcpyHostToDevice, s2);
    cudaEventRecord(e, s2);
    if (with_event)
        cudaStreamWaitEvent(s, e, 0);
    RUN(copy_floats, 1, 64, 0, x, y);
    wait_and_judge(64);
    cudaStreamSynchronize(s2);
    cudaEventDestroy(e);
}

static void staged_copy(bool with_wait)
{
    cudaMemcpyAsync(y, staging, 256, cudaMemcpyHostToDevice, s);
    if (with_wait)
        cudaStreamSynchronize(s);
    for (int i = 0; i < 64; i++)
        staging[i] = -1;
    wait_and_judge(64);
}

static void result_read(bool with_wait)
{
    float *back = staging + 64;
    cudaMemcpyAsync(y, staging, 256, cudaMemcpyHostToDevice, s);
    cudaMemcpyAsync(back, y, 256, cudaMemcpyDeviceToHost, s);
    if (with_wait)
        cudaStreamSynchronize(s);
    judge(back, 64);
    cudaStreamSynchronize(s);
}

static void call_cuda(void *)
{
    void *p;
    say("in a host function", cudaMalloc(&p, 256));
}

static void bug_unjoined_capture()
{
    cudaEvent_t e;
    cudaGraph_t g;
    cudaEventCreateWithFlags(&e, 0);
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    cudaEventRecord(e, s);
    cudaStreamWaitEvent(s2, e, 0);
    cudaMemsetAsync(y, 0, 256, s2);
    say("end", cudaStreamEndCapture(s, &g));
    cudaEventDestroy(e);
}

static void bug_malloc_in_capture()
{
    void *p;
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    say("malloc", cudaMalloc(&p, 256));
}

static void graph_replay()
{
    cudaGraph_t g;
    cudaGraphExec_t exec;
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    cudaMemcpyAsync(x, staging, 256, cudaMemcpyHostToDevice, s);
    RUN(copy_floats, 1, 64, 0, x, y);
    say("end", cudaStreamEndCapture(s, &g));
    say("instantiate", cudaGraphInstantiate(&exec, g, 0));
    say("launch", cudaGraphLaunch(exec, s));
    wait_and_judge(64);
    cudaGraphDestroy(g);
    cudaGraphExecDestroy(exec);
}

static void bug_over_budget()
{
    void *p;
    say("half", cudaMalloc(&p, 32 << 20));
    say("too much", cudaMalloc(&p, 33 << 20));
}

static void bug_lost_device()
{
    fsim::configure("lose=1");
    say("memset", cudaMemsetAsync(y, 0, 256, s));
    say("wait", cudaStreamSynchronize(s));
    say("later", cudaMemsetAsync(y, 0, 256, s));
}

static void bug_host_touches()
{
    fsim::configure("guard=1");
    float *p;
    cudaMalloc((void **)&p, 256);
    p[3] = 1;
}

static void put_input()
{
    for (int i = 0; i < 64; i++)
        staging[i] = (float)(63 - i);
    cudaMemcpyAsync(x, staging, 256, cudaMemcpyHostToDevice, s);
    cudaStreamSynchronize(s);
}

static float pageable[64];

static const struct {
    const char *name;
    void (*run)();
} programs[] = {
    {"divergent_barrier", [] { RUN(divergent_barrier, 1, 64, 0, y); }},
    {"missing_lanes", [] { RUN(missing_lanes, 1, 32, 0, y); }},
    {"bad_mask", [] { RUN(bad_mask, 1, 32, 0, y); }},
    {"different_collectives", [] { RUN(different_collectives, 1, 32, 0, y); }},
    {"shared_overrun", [] { RUN(shared_overrun, 1, 64, 0, y); }},
    {"dynamic_overrun", [] { RUN(dynamic_overrun, 1, 64, 256, y); }},
    {"global_overrun", bug_global_overrun},
    {"misaligned_load", [] { RUN(misaligned_load, 1, 1, 0, x, y); }},
    {"misaligned_copy", [] { RUN(misaligned_copy, 1, 1, 0, x, y); }},
    {"missing_barrier", [] { RUN(reverse_64, 1, 64, 0, y, false), wait_and_judge(64); }},
    {"missing_syncwarp", [] { RUN(reverse_32, 1, 32, 0, y, (int)NOTHING), wait_and_judge(32); }},
    {"shuffle_as_fence", [] { RUN(reverse_32, 1, 32, 0, y, (int)SHUFFLE), wait_and_judge(32); }},
    {"block_race", [] { RUN(blocks_write_same, 2, 64, 0, y); }},
    {"uninitialised_shared", [] { RUN(uninitialised_shared, 1, 64, 0, y), wait_and_judge(64); }},
    {"uninitialised_global", bug_uninitialised_global},
    {"copy_without_wait", [] { RUN(copy_async, 1, 64, 0, x, y, false), wait_and_judge(64); }},
    {"big_static", [] { RUN(big_static, 1, 64, 0, y); }},
    {"big_dynamic", [] { RUN(dynamic_overrun, 1, 64, 50000, y); }},
    {"big_block", [] { RUN(blocks_write_same, 1, 1025, 0, y); }},
    {"mma_ended_lane", [] { RUN(mma_ended_lane, 1, 32, 0, y); }},
    {"freed_argument", bug_freed_argument},
    {"pageable_argument", [] { RUN(copy_floats, 1, 64, 0, pageable, y); }},
    {"other_device_argument", [] { RUN(copy_floats, 1, 64, 0, memory_of_other_device(), y); }},
    {"hidden_pointer", bug_hidden_pointer},
    {"default_stream",
     [] { say("launch", FERRY_LAUNCH(blocks_write_same, dim3(1), dim3(64), 0, nullptr, y)); }},
    {"wrong_direction", [] { say("copy", cudaMemcpyAsync(y, x, 256, cudaMemcpyHostToDevice, s)); }},
    {"long_copy", [] { say("copy", cudaMemcpyAsync(y, x, 4096, cudaMemcpyDeviceToDevice, s)); }},
    {"missing_event_wait", [] { two_streams(false); }},
    {"early_refill", [] { staged_copy(false); }},
    {"early_read", [] { result_read(false); }},
    {"call_in_host_function", [] { say("call", cudaLaunchHostFunc(s, call_cuda, nullptr)); }},
    {"malloc_in_capture", bug_malloc_in_capture},
    {"unjoined_capture", bug_unjoined_capture},
    {"over_budget", bug_over_budget},
    {"lost_device", bug_lost_device},
    {"host_touches", bug_host_touches},
    {"right_barrier", [] { RUN(reverse_64, 1, 64, 0, y, true), wait_and_judge(64); }},
    {"right_syncwarp", [] { RUN(reverse_32, 1, 32, 0, y, (int)SYNCWARP), wait_and_judge(32); }},
    {"right_copy", [] { RUN(copy_async, 1, 64, 0, x, y, true), wait_and_judge(64); }},
    {"right_blocks", [] { RUN(blocks_add, 4, 64, 0, y, count), wait_and_judge(64); }},
    {"right_divergence", [] { RUN(legal_divergence, 1, 64, 0, y), wait_and_judge(64); }},
    {"right_event", [] { two_streams(true); }},
    {"right_refill", [] { staged_copy(true); }},
    {"right_read", [] { result_read(true); }},
    {"right_graph", graph_replay},
};

int main(int argc, char **argv)
{
    static float staging_memory[128] __attribute__((aligned(4096)));
    staging = staging_memory;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&s2, cudaStreamNonBlocking);
    cudaMalloc((void **)&x, 1024);
    cudaMalloc((void **)&y, 1024);
    cudaMalloc((void **)&count, 256);
    cudaHostRegister(staging, sizeof staging_memory, 0);
    put_input();
    if (argc == 3) /* settings that shall not hold for the above */
        fsim::configure(argv[2]);
    for (const auto &p : programs)
        if (argc > 1 && strcmp(p.name, argv[1]) == 0) {
            p.run();
            say("wait", cudaStreamSynchronize(s));
            printf("end of %s\n", p.name);
            return 0;
        }
    fprintf(stderr, "usage: sim_bugs NAME [SETTINGS]\n");
    return 2;
}
