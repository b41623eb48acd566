/* Settings, devices and their memory. */
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

#include "cuda/sim/sim_internal.hpp"
extern "C" {
#include "base/log.h"
}

namespace fsim
{

Settings settings;
std::mutex world;
std::vector<Device *> &devices = *new std::vector<Device *>; /* outlives static objects */
Random choice = {1};
__thread int current_device;
__thread bool in_host_function;

static thread_local cudaError_t last_error = cudaSuccess;
static std::string last_text;
static std::map<uintptr_t, Allocation> allocations; /* by first byte */

enum { RUNTIME_VERSION = 13000 };
enum { GRAIN = 512, RED_BYTES = 256, RED = 0xE7, FRESH = 0xC5 };

cudaError_t fail(cudaError_t e)
{
    if (e != cudaSuccess && e != cudaErrorNotReady)
        last_error = e;
    return e;
}

void report(const char *format, ...)
{
    char text[1500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    last_text = text;
    fr_log_error("simulated GPU: %s", text);
}

const char *last_report()
{
    Locked l;
    static thread_local std::string copy;
    copy = last_text;
    return copy.c_str();
}

void clear_report()
{
    Locked l;
    last_text.clear();
}

bool injected(long *setting)
{
    return *setting > 0 && --*setting == 0;
}

/* ---- settings ------------------------------------------------------------------------------- */

static long *find_setting(const char *name, size_t n)
{
#define X(id, value, text)                                                                         \
    if (strlen(#id) == n && memcmp(#id, name, n) == 0)                                             \
        return &settings.id;
    FSIM_SETTINGS(X)
#undef X
    return nullptr;
}

/* NULL, or where the text is not understood. */
static const char *apply_settings(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "=,");
        long *setting = find_setting(text, n);
        char *end;
        if (!setting || text[n] != '=')
            return text;
        *setting = strtol(text + n + 1, &end, 10);
        if (end == text + n + 1 || (*end && *end != ','))
            return text;
        text = *end ? end + 1 : end;
    }
    choice.state = (uint64_t)settings.seed * 0x9E3779B97F4A7C15ull + 1;
    return nullptr;
}

/* ---- devices -------------------------------------------------------------------------------- */

static void make_device(int id)
{
    Device *d = new Device;
    d->id = id;
    d->total = (size_t)settings.mb << 20;
    d->region_bytes = 4 * d->total + (64u << 20);
    int access = settings.guard ? PROT_NONE : PROT_READ | PROT_WRITE;
    void *m =
        mmap(nullptr, d->region_bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->region = m == MAP_FAILED ? nullptr : (char *)m;
    if (d->region)
        d->gaps[0] = d->region_bytes;
    devices.push_back(d);
}

static bool is_started;

static void watch_accesses();

static void start_devices()
{
    if (settings.guard)
        watch_accesses();
    for (int i = 0; i < settings.devices && i < 64; i++)
        make_device(i);
    is_started = true;
}

void start_once()
{
    static bool read_environment;
    Quiet quiet;
    std::unique_lock<std::mutex> lock(world);
    if (!read_environment) {
        read_environment = true;
        const char *text = getenv("FERRY_SIM"), *bad = text ? apply_settings(text) : nullptr;
        if (bad)
            fr_log_error("FERRY_SIM: found '%s', expected NAME=NUMBER,... with a known name", bad);
    }
    if (!is_started)
        start_devices();
}

static void forget_devices()
{
    for (Device *d : devices) {
        ON_ASAN(__asan_unpoison_memory_region(d->region, d->region_bytes);)
        if (d->region)
            munmap(d->region, d->region_bytes);
        delete d;
    }
    devices.clear();
    for (auto i = allocations.begin(); i != allocations.end();)
        i = i->second.device >= 0 ? allocations.erase(i) : std::next(i);
    is_started = false;
}

bool has_blas()
{
    start_once();
    Locked l;
    return settings.blas != 0;
}

const char *configure(const char *text)
{
    start_once();
    Locked l;
    for (Device *d : devices)
        drain_device(l, d);
    Settings before = settings;
    const char *bad = apply_settings(text);
    if (before.devices != settings.devices || before.mb != settings.mb ||
        before.guard != settings.guard || before.peer != settings.peer) {
        drop_streams();
        forget_devices();
    }
    return bad;
}

/* ---- guard: only the work of a device touches its memory ------------------------------------ */

/* Says whose memory was touched by whom, and lets the signal end the process. */
static void on_illegal_access(int, siginfo_t *info, void *)
{
    char text[200];
    int owner = -1, working = -1;
    for (const Device *d : devices) {
        const char *p = (const char *)info->si_addr;
        owner = p >= d->region && p < d->region + d->region_bytes ? d->id : owner;
        working = d->n_open > 0 && working < 0 ? d->id : working;
    }
    int n = owner < 0     ? snprintf(text, sizeof text, "illegal access to %p\n", info->si_addr)
            : working < 0 ? snprintf(text, sizeof text,
                                     "illegal access to %p: device %d memory touched by "
                                     "host code\n",
                                     info->si_addr, owner)
                          : snprintf(text, sizeof text,
                                     "illegal access to %p: device %d memory touched by "
                                     "work of device %d\n",
                                     info->si_addr, owner, working);
    if (write(STDERR_FILENO, text, (size_t)n) < 0)
        n = 0;
    signal(SIGSEGV, SIG_DFL);
}

static void watch_accesses()
{
    struct sigaction action = {};
    action.sa_sigaction = on_illegal_access;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
}

void open_memory(Device *d, bool open)
{
    if (!settings.guard || !d->region)
        return;
    if (open ? d->n_open++ == 0 : --d->n_open == 0)
        mprotect(d->region, d->region_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/* ---- memory --------------------------------------------------------------------------------- */

const Allocation *find_allocation(const void *p)
{
    auto i = allocations.upper_bound((uintptr_t)p);
    if (i == allocations.begin())
        return nullptr;
    --i;
    return (uintptr_t)p < i->first + i->second.bytes ? &i->second : nullptr;
}

Device *device_of(const void *p)
{
    for (Device *d : devices)
        if ((const char *)p >= d->region && (const char *)p < d->region + d->region_bytes)
            return d;
    return nullptr;
}

static size_t room_of(size_t bytes)
{
    return (bytes + RED_BYTES + GRAIN - 1) / GRAIN * GRAIN;
}

static size_t counted(size_t bytes)
{
    return (bytes + GRAIN - 1) / GRAIN * GRAIN;
}

/* First fit. Fresh memory holds bytes that make no sense as numbers; behind it is a red zone. */
static char *take_room(Device *d, size_t bytes)
{
    size_t need = room_of(bytes);
    for (auto i = d->gaps.begin(); i != d->gaps.end(); ++i) {
        if (i->second < need)
            continue;
        size_t at = i->first, left = i->second - need;
        d->gaps.erase(i);
        if (left > 0)
            d->gaps[at + need] = left;
        char *p = d->region + at;
        ON_ASAN(__asan_unpoison_memory_region(p, need);)
        open_memory(d, true);
        memset(p, FRESH, bytes);
        memset(p + bytes, RED, need - bytes);
        open_memory(d, false);
        ON_ASAN(__asan_poison_memory_region(p + bytes, need - bytes);)
        return p;
    }
    return nullptr;
}

static void give_room(Device *d, char *p, size_t bytes)
{
    size_t at = (size_t)(p - d->region), n = room_of(bytes);
    madvise(p, n, MADV_DONTNEED);
    ON_ASAN(__asan_poison_memory_region(p, n);)
    auto next = d->gaps.lower_bound(at);
    if (next != d->gaps.end() && next->first == at + n) {
        n += next->second;
        next = d->gaps.erase(next);
    }
    if (next != d->gaps.begin()) {
        auto before = std::prev(next);
        if (before->first + before->second == at) {
            before->second += n;
            return;
        }
    }
    d->gaps[at] = n;
}

bool check_red_zones(Device *d, const char *after)
{
#if defined(__SANITIZE_ADDRESS__) || defined(FERRY_SIM_TSAN)
    (void)d, (void)after;
    return true;
#else
    for (const auto &i : allocations) {
        const Allocation &a = i.second;
        if (a.device != d->id)
            continue;
        for (size_t b = 0; b < RED_BYTES; b++)
            if ((uint8_t)a.base[a.bytes + b] != RED) {
                report("%s: something wrote %zu B beyond the end of an allocation of %zu B", after,
                       b, a.bytes);
                return false;
            }
    }
    return true;
#endif
}

static cudaError_t allocate(Device *d, void **p, size_t bytes, bool reserved)
{
    if (injected(&settings.fail_alloc))
        return cudaErrorMemoryAllocation;
    if (!reserved && counted(bytes) > d->total - d->used)
        return cudaErrorMemoryAllocation;
    char *m = take_room(d, bytes);
    if (!m)
        return cudaErrorMemoryAllocation;
    if (!reserved)
        d->used += counted(bytes);
    d->peak = d->used > d->peak ? d->used : d->peak;
    allocations[(uintptr_t)m] = {m, bytes, d->id, reserved};
    *p = m;
    return cudaSuccess;
}

static cudaError_t device_ready(Device **d)
{
    if (in_host_function)
        return cudaErrorNotPermitted;
    if (devices.empty())
        return cudaErrorNoDevice;
    if ((size_t)current_device >= devices.size())
        return cudaErrorInvalidDevice;
    *d = devices[(size_t)current_device];
    if (is_capturing(*d))
        return cudaErrorStreamCaptureUnsupported;
    return (*d)->sticky;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    start_once();
    Locked l;
    Device *d;
    *p = nullptr;
    cudaError_t e = device_ready(&d);
    if (e != cudaSuccess || bytes == 0)
        return fail(e);
    return fail(allocate(d, p, bytes, false));
}

cudaError_t reserve(ptrdiff_t bytes)
{
    start_once();
    Locked l;
    Device *d;
    cudaError_t e = device_ready(&d);
    if (bytes < 0) { /* always possible */
        if ((size_t)current_device < devices.size())
            devices[(size_t)current_device]->used -= counted((size_t)-bytes);
        return cudaSuccess;
    }
    if (e != cudaSuccess)
        return fail(e);
    if (injected(&settings.fail_alloc) || counted((size_t)bytes) > d->total - d->used)
        return fail(cudaErrorMemoryAllocation);
    d->used += counted((size_t)bytes);
    d->peak = d->used > d->peak ? d->used : d->peak;
    return cudaSuccess;
}

cudaError_t allocate_reserved(void **p, size_t bytes)
{
    start_once();
    Locked l;
    Device *d;
    *p = nullptr;
    cudaError_t e = device_ready(&d);
    return fail(e != cudaSuccess ? e : allocate(d, p, bytes, true));
}

cudaError_t cudaFree(void *p)
{
    start_once();
    if (!p)
        return cudaSuccess;
    Locked l;
    if (in_host_function)
        return fail(cudaErrorNotPermitted);
    auto i = allocations.find((uintptr_t)p);
    if (i == allocations.end() || i->second.device < 0) {
        report("cudaFree(%p): found no allocation that starts there", p);
        return fail(cudaErrorInvalidValue);
    }
    Allocation a = i->second;
    Device *d = devices[(size_t)a.device];
    cudaError_t e = drain_device(l, d);
    if (!a.reserved)
        d->used -= counted(a.bytes);
    allocations.erase((uintptr_t)p);
    give_room(d, a.base, a.bytes);
    return fail(e);
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    start_once();
    Locked l;
    if (!p || bytes == 0)
        return fail(cudaErrorInvalidValue);
    if (injected(&settings.fail_alloc))
        return fail(cudaErrorMemoryAllocation);
    auto next = allocations.lower_bound((uintptr_t)p);
    if (find_allocation(p) || (next != allocations.end() && next->first < (uintptr_t)p + bytes))
        return fail(cudaErrorHostMemoryAlreadyRegistered);
    allocations[(uintptr_t)p] = {(char *)p, bytes, -1, false};
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    start_once();
    Locked l;
    auto i = allocations.find((uintptr_t)p);
    if (i == allocations.end() || i->second.device >= 0)
        return fail(cudaErrorHostMemoryNotRegistered);
    for (Device *d : devices)
        drain_device(l, d);
    allocations.erase((uintptr_t)p);
    return cudaSuccess;
}

/* ---- questions ------------------------------------------------------------------------------ */

const char *cudaGetErrorName(cudaError_t e)
{
#define X(name, value, text)                                                                       \
    if (e == name)                                                                                 \
        return #name;
    FSIM_ERRORS(X)
#undef X
    return "unknown error";
}

const char *cudaGetErrorString(cudaError_t e)
{
#define X(name, value, text)                                                                       \
    if (e == name)                                                                                 \
        return text;
    FSIM_ERRORS(X)
#undef X
    return "unknown error";
}

cudaError_t cudaGetLastError()
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    start_once();
    Locked l;
    *n = 0;
    if (settings.driver < RUNTIME_VERSION)
        return fail(cudaErrorInsufficientDriver);
    *n = (int)devices.size();
    return fail(*n > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    start_once();
    Locked l;
    *version = (int)settings.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = RUNTIME_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    start_once();
    Locked l;
    if (device < 0 || (size_t)device >= devices.size())
        return fail(cudaErrorInvalidDevice);
    *value = (int)(attribute == cudaDevAttrClockRate         ? 1000 * settings.clock_mhz
                   : attribute == cudaDevAttrMemoryClockRate ? 1000 * settings.memory_mhz
                                                             : settings.bus_bits);
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, const void *)
{
    start_once();
    Locked l;
    *out = {1024};
    return settings.no_code ? fail(cudaErrorNoKernelImageForDevice) : cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    start_once();
    Locked l;
    if (in_host_function)
        return fail(cudaErrorNotPermitted);
    if (device < 0 || (size_t)device >= devices.size())
        return fail(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    start_once();
    Locked l;
    if (device < 0 || (size_t)device >= devices.size())
        return fail(cudaErrorInvalidDevice);
    *p = cudaDeviceProp();
    snprintf(p->name, sizeof p->name, "Simulated GPU %d", device);
    p->totalGlobalMem = devices[(size_t)device]->total;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = (size_t)settings.shared_kb << 10;
    p->major = (int)settings.capability / 10;
    p->minor = (int)settings.capability % 10;
    p->multiProcessorCount = 4;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->pciBusID = device + 1;
    p->asyncEngineCount = 2;
    p->l2CacheSize = 6 << 20;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    start_once();
    Locked l;
    if ((size_t)current_device >= devices.size())
        return fail(cudaErrorInvalidDevice);
    const Device *d = devices[(size_t)current_device];
    *free = d->total - d->used;
    *total = d->total;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset()
{
    start_once();
    Locked l;
    if ((size_t)current_device >= devices.size())
        return fail(cudaErrorInvalidDevice);
    Device *d = devices[(size_t)current_device];
    drain_device(l, d);
    for (auto i = allocations.begin(); i != allocations.end();) {
        Allocation a = i->second;
        if (a.device == d->id)
            give_room(d, a.base, a.bytes);
        i = a.device == d->id ? allocations.erase(i) : std::next(i);
    }
    d->used = 0;
    d->sticky = cudaSuccess;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    start_once();
    Locked l;
    int n = (int)devices.size();
    if (device < 0 || peer < 0 || device >= n || peer >= n)
        return fail(cudaErrorInvalidDevice);
    *can = device != peer && settings.peer;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned)
{
    start_once();
    Locked l;
    int n = (int)devices.size();
    if (peer < 0 || peer >= n || peer == current_device || current_device >= n || !settings.peer)
        return fail(cudaErrorInvalidDevice);
    Device *d = devices[(size_t)current_device];
    if (d->peers[peer])
        return fail(cudaErrorPeerAccessAlreadyEnabled);
    drain_device(l, d);
    d->peers[peer] = true;
    return cudaSuccess;
}

double virtual_now_us()
{
    Locked l;
    return host_now_us();
}

void host_works_us(double us)
{
    Locked l;
    host_advance_us(us);
}

Counters counters()
{
    Locked l;
    return counts;
}

size_t peak_bytes(int device)
{
    Locked l;
    return devices[(size_t)device]->peak;
}

} // namespace fsim
