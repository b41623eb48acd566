/* What the simulator's sources share. */
#ifndef FR_CUDA_SIM_INTERNAL_HPP
#define FR_CUDA_SIM_INTERNAL_HPP

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cuda/sim/cuda_sim.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ON_ASAN(...) __VA_ARGS__
#else
#define ON_ASAN(...)
#endif

/* Race mode: kernels and host code are instrumented, the simulator is not. Each CUDA thread and
 * each stream is a fiber of ThreadSanitizer, switched without an edge; the only edges are those
 * that CUDA promises, made by hand. Inside the simulator everything is ignored (Quiet). */
#ifdef FERRY_SIM_TSAN
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_set_fiber_name(void *fiber, const char *name);
void __tsan_acquire(void *token);
void __tsan_release(void *token);
void __tsan_read_range(void *p, unsigned long bytes);
void __tsan_write_range(void *p, unsigned long bytes);
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
#define ON_TSAN(...) __VA_ARGS__
#else
#define ON_TSAN(...)
#endif

namespace fsim
{

/* While one lives, ThreadSanitizer sees nothing of this thread (or fiber). */
struct Quiet {
    Quiet()
    {
        ON_TSAN(AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
                AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
                AnnotateIgnoreWritesBegin(__FILE__, __LINE__);)
    }
    ~Quiet()
    {
        ON_TSAN(AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
                AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
                AnnotateIgnoreSyncEnd(__FILE__, __LINE__);)
    }
    Quiet(const Quiet &) = delete;
    Quiet &operator=(const Quiet &) = delete;
};

/* Edges made while Quiet: they too would be ignored. */
static inline void quiet_acquire(void *token)
{
    (void)token;
    ON_TSAN(AnnotateIgnoreSyncEnd(__FILE__, __LINE__); __tsan_acquire(token);
            AnnotateIgnoreSyncBegin(__FILE__, __LINE__);)
}
static inline void quiet_release(void *token)
{
    (void)token;
    ON_TSAN(AnnotateIgnoreSyncEnd(__FILE__, __LINE__); __tsan_release(token);
            AnnotateIgnoreSyncBegin(__FILE__, __LINE__);)
}

/* name, default, what it does */
#define FSIM_SETTINGS(X)                                                                           \
    X(devices, 2, "how many")                                                                      \
    X(mb, 256, "memory of each in MiB")                                                            \
    X(seed, 1, "of every random choice")                                                           \
    X(order, 0, "of threads and blocks: 0 forward, 1 reverse, 2 random")                           \
    X(eager, 0, "1: operations run when they are enqueued, if they can")                           \
    X(lazy, 0, "1: only what somebody waits for runs, as late as possible")                        \
    X(timing, 0, "1: virtual time decides what runs next")                                         \
    X(guard, 0, "1: device memory can be touched by that device's work only")                      \
    X(peer, 1, "0: no peer access between devices")                                                \
    X(h2d_gbs, 25, "speed of a link to a device")                                                  \
    X(d2h_gbs, 25, "and from it")                                                                  \
    X(copy_us, 8, "start of a copy")                                                               \
    X(shared_kb, 99, "most shared memory of a block")                                              \
    X(capability, 86, "compute capability of the devices, without its point")                      \
    X(clock_mhz, 0, "of their processors; 0: not known")                                           \
    X(memory_mhz, 0, "of their memory; 0: not known")                                              \
    X(bus_bits, 0, "width of their memory's bus; 0: not known")                                    \
    X(blas, 1, "0: no cuBLAS")                                                                     \
    X(no_code, 0, "1: kernels have no code for the devices")                                       \
    X(driver, 13000, "version of the driver; 13000 is the runtime's, 0: there is none")            \
    X(stack_kb, 64, "stack of a CUDA thread (256 under sanitizers)")                               \
    X(fail_alloc, 0, "n: the n-th allocation from now on fails")                                   \
    X(fail_copy, 0, "n: the n-th copy fails")                                                      \
    X(fail_launch, 0, "n: the n-th launch fails")                                                  \
    X(lose, 0, "n: the device of the n-th operation is lost")

struct Settings {
#define X(name, value, text) long name = value;
    FSIM_SETTINGS(X)
#undef X
};
extern Settings settings;

/* xorshift64 */
struct Random {
    uint64_t state;
    uint64_t next()
    {
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    }
    size_t below(size_t n)
    {
        return (size_t)(next() % n);
    }
};

/* Runs a whole grid on the calling OS thread. False on a fault; *report says which. */
bool run_grid(const Launch &launch, std::string *report);
[[noreturn]] void thread_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

extern Counters counts;

/* ---- devices and memory --------------------------------------------------------------------- */

struct Allocation {
    char *base;
    size_t bytes;
    int device;    /* -1: host memory that was registered */
    bool reserved; /* lies in a reservation: does not count itself */
};

struct Device {
    int id;
    size_t total, used = 0, peak = 0;
    char *region; /* address space of its memory, never given to anybody else */
    size_t region_bytes;
    std::map<size_t, size_t> gaps; /* free pieces of the region: offset -> bytes */
    int n_open = 0;                /* operations that may touch it (guard) */
    bool peers[64] = {};
    cudaError_t sticky = cudaSuccess;
    std::vector<Stream *> streams;
    double engine_free_us[3] = {0, 0, 0}; /* by Resource */
};

enum Resource { NO_RESOURCE = -1, LINK_IN, LINK_OUT, COMPUTE };

/* Everything below holds `world`; operations run without it. */
extern std::mutex world;
extern std::vector<Device *> &devices;
extern Random choice;
/* __thread: extern thread_local is read through a wrapper that GCC 12 gets wrong under UBSan. */
extern __thread int current_device;
extern __thread bool in_host_function;

void start_once();
cudaError_t fail(cudaError_t e);
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
const Allocation *find_allocation(const void *p);
Device *device_of(const void *p); /* by address, whether allocated or not */
bool injected(long *setting);     /* counts down a fail_* setting */
void open_memory(Device *d, bool open);
/* The red zone behind each allocation; false and a report when something wrote there. */
bool check_red_zones(Device *d, const char *after);
void drop_streams();

struct Locked {
    Quiet quiet;
    std::unique_lock<std::mutex> lock;
    Locked() : lock(world)
    {
    }
};

/* ---- operations ----------------------------------------------------------------------------- */

struct EventState {
    uint64_t recorded = 0, done = 0; /* generations */
    double at_us = 0;
    char token[8];
    Stream *captured_by = nullptr;
};

struct Operation {
    std::string name;
    std::function<void()> body; /* empty: record or wait */
    std::shared_ptr<EventState> event;
    bool is_wait = false;
    uint64_t generation = 0;
    Resource resource = NO_RESOURCE;
    int other_device = -1; /* of a peer copy: its link in is used too */
    double cost_us = 0, enqueued_us = 0;
    char token[8];
};

struct Stream {
    int device, id;
    std::deque<std::shared_ptr<Operation>> queue;
    bool running = false;
    Graph *capture = nullptr; /* being recorded */
    double free_us = 0;
    char token[8];
    void *tsan = nullptr;
};

struct Event {
    std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

/* A recorded sequence of operations; replay is in recorded order. */
struct Graph {
    std::vector<std::shared_ptr<Operation>> operations;
    std::vector<Stream *> members; /* origin first, then those that joined */
    std::set<Stream *> open;       /* have work that no other stream of the graph waits for */
};
struct GraphExec {
    std::vector<std::shared_ptr<Operation>> operations;
};

bool valid_stream(cudaStream_t s);
/* Appends to the stream (or to the graph it records); may run something. */
cudaError_t enqueue(Locked &l, Stream *s, std::shared_ptr<Operation> op);
cudaError_t drain_device(Locked &l, Device *d);
bool is_capturing(const Device *d);
double host_now_us();
void host_advance_us(double us);

} // namespace fsim
#endif
