/* Streams, events, copies, launches: what is enqueued, and what runs when.
 *
 * No thread of its own: an operation runs on a host thread inside a CUDA call. Which one runs is
 * chosen among those that their stream and events allow (pick_stream); who waits runs operations
 * until what it waits for is done, so a wait that can never end is known at once. */
#include <algorithm>
#include <condition_variable>
#include <cstdio>

#include "cuda/sim/sim_internal.hpp"

namespace fsim
{

/* Of all devices. Outlives static objects. */
static std::vector<Stream *> &streams = *new std::vector<Stream *>;
static std::condition_variable one_ended;
static bool something_runs; /* one operation at a time */
static double host_us;
static thread_local double next_cost_us = -1;
static int next_stream_id = 1;

double host_now_us()
{
    return host_us;
}

void host_advance_us(double us)
{
    host_us += us;
}

void next_launch_costs_us(double us)
{
    next_cost_us = us;
}

bool valid_stream(cudaStream_t s)
{
    return std::find(streams.begin(), streams.end(), s) != streams.end();
}

bool is_capturing(const Device *d)
{
    for (const Stream *s : streams)
        if (s->device == d->id && s->capture)
            return true;
    return false;
}

void drop_streams()
{
    for (Stream *s : streams)
        delete s;
    streams.clear();
}

/* ---- virtual time --------------------------------------------------------------------------- */

static double *engine_of(int device, Resource r)
{
    return &devices[(size_t)device]->engine_free_us[r];
}

/* When an operation at the head of a stream could start. */
static double start_us(const Stream *s, const Operation &op)
{
    double at = std::max(s->free_us, op.enqueued_us);
    if (op.event && op.is_wait)
        at = std::max(at, op.event->at_us);
    if (op.resource != NO_RESOURCE)
        at = std::max(at, *engine_of(s->device, op.resource));
    if (op.other_device >= 0)
        at = std::max(at, *engine_of(op.other_device, LINK_IN));
    return at;
}

static void account_time(Stream *s, const Operation &op)
{
    double end = start_us(s, op) + op.cost_us;
    s->free_us = end;
    if (op.resource != NO_RESOURCE)
        *engine_of(s->device, op.resource) = end;
    if (op.other_device >= 0)
        *engine_of(op.other_device, LINK_IN) = end;
    if (op.event && !op.is_wait)
        op.event->at_us = end;
}

/* ---- running one operation ------------------------------------------------------------------ */

static bool can_run(const Stream *s)
{
    if (s->running || s->queue.empty())
        return false;
    const Operation &op = *s->queue.front();
    return !op.is_wait || op.event->done >= op.generation;
}

static void open_for(Stream *s, bool open)
{
    Device *d = devices[(size_t)s->device];
    for (Device *o : devices)
        if (o == d || d->peers[o->id])
            open_memory(o, open);
}

/* The body, without the lock and, in race mode, as the stream's own thread. */
static void run_body(Locked &l, Stream *s, Operation &op)
{
    (void)s;
    open_for(s, true);
    if (op.other_device >= 0)
        open_memory(devices[(size_t)op.other_device], true);
    something_runs = s->running = true;
    l.lock.unlock();
    ON_TSAN(void *self = __tsan_get_current_fiber(); __tsan_switch_to_fiber(s->tsan, 1);
            __tsan_acquire(op.token);)
    op.body();
    ON_TSAN(__tsan_release(s->token); __tsan_switch_to_fiber(self, 1);)
    l.lock.lock();
    something_runs = s->running = false;
    if (op.other_device >= 0)
        open_memory(devices[(size_t)op.other_device], false);
    open_for(s, false);
}

static void run_edge(Stream *s, Operation &op)
{
    (void)s, (void)op;
#ifdef FERRY_SIM_TSAN
    void *self = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(s->tsan, 1);
    if (op.is_wait)
        __tsan_acquire(op.event->token);
    else
        __tsan_acquire(op.token), __tsan_release(op.event->token);
    __tsan_release(s->token);
    __tsan_switch_to_fiber(self, 1);
#endif
}

static void run_head(Locked &l, Stream *s)
{
    std::shared_ptr<Operation> op = s->queue.front();
    Device *d = devices[(size_t)s->device];
    counts.ops++;
    if (injected(&settings.lose)) {
        report("device %d: lost before %s (injected)", d->id, op->name.c_str());
        d->sticky = cudaErrorLaunchFailure;
    }
    if (!op->body)
        run_edge(s, *op);
    else if (d->sticky == cudaSuccess)
        run_body(l, s, *op);
    account_time(s, *op);
    if (op->event && !op->is_wait)
        op->event->done = std::max(op->event->done, op->generation);
    s->queue.pop_front();
    one_ended.notify_all();
}

/* ---- choosing ------------------------------------------------------------------------------- */

static std::vector<Stream *> runnable()
{
    std::vector<Stream *> out;
    if (!something_runs)
        for (Stream *s : streams)
            if (can_run(s))
                out.push_back(s);
    return out;
}

/* Lazy: the stream that must run so that s gets on. */
static Stream *needed_for(Stream *s, int depth = 0)
{
    if (can_run(s))
        return s;
    if (s->queue.empty() || depth > 64)
        return nullptr;
    const Operation &head = *s->queue.front();
    for (Stream *o : streams)
        for (const auto &op : o->queue)
            if (op->event == head.event && !op->is_wait && op->generation <= head.generation)
                if (Stream *n = needed_for(o, depth + 1))
                    return n;
    return nullptr;
}

static Stream *pick_stream(Stream *wanted)
{
    std::vector<Stream *> can = runnable();
    if (can.empty())
        return nullptr;
    if (settings.timing)
        return *std::min_element(can.begin(), can.end(), [](Stream *a, Stream *b) {
            return start_us(a, *a->queue.front()) < start_us(b, *b->queue.front());
        });
    if (settings.lazy && wanted)
        if (Stream *s = needed_for(wanted))
            return s;
    return can[choice.below(can.size())];
}

static void report_stuck()
{
    std::string heads;
    for (const Stream *s : streams) {
        if (s->queue.empty())
            continue;
        char line[200];
        snprintf(line, sizeof line, "\n    device %d, stream %d: %s, %zu operations queued",
                 s->device, s->id, s->queue.front()->name.c_str(), s->queue.size());
        heads += line;
    }
    report("a wait of the host never completes; first in the streams:%s", heads.c_str());
}

/* Runs operations until is_done(); `wanted` is what the caller waits for (or NULL). */
template <class Done> static cudaError_t run_until(Locked &l, Stream *wanted, Done is_done)
{
    while (!is_done()) {
        if (something_runs) { /* another host thread's: see when it has ended */
            one_ended.wait(l.lock);
            continue;
        }
        Stream *s = pick_stream(wanted);
        if (!s) {
            report_stuck();
            return cudaErrorLaunchTimeout;
        }
        run_head(l, s);
    }
    return cudaSuccess;
}

static void run_some(Locked &l)
{
    if (settings.timing || settings.lazy)
        return;
    while (settings.eager || choice.below(3) == 0) {
        Stream *s = pick_stream(nullptr);
        if (!s)
            return;
        run_head(l, s);
    }
}

cudaError_t enqueue(Locked &l, Stream *s, std::shared_ptr<Operation> op)
{
    if (s->capture) {
        s->capture->operations.push_back(op);
        s->capture->open.insert(s);
        return cudaSuccess;
    }
    cudaError_t sticky = devices[(size_t)s->device]->sticky;
    if (sticky != cudaSuccess)
        return sticky;
    op->enqueued_us = host_us;
    quiet_release(op->token);
    s->queue.push_back(op);
    run_some(l);
    return devices[(size_t)s->device]->sticky;
}

cudaError_t drain_device(Locked &l, Device *d)
{
    if (in_host_function)
        return cudaErrorNotPermitted;
    cudaError_t e = cudaSuccess;
    for (Stream *s : std::vector<Stream *>(streams)) {
        if (s->device != d->id)
            continue;
        cudaError_t one = run_until(l, s, [&] { return s->queue.empty(); });
        e = one != cudaSuccess ? one : e;
        host_us = std::max(host_us, s->free_us);
        quiet_acquire(s->token);
    }
    return d->sticky != cudaSuccess ? d->sticky : e;
}

/* ---- streams -------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    start_once();
    Locked l;
    *out = nullptr;
    if (in_host_function)
        return fail(cudaErrorNotPermitted);
    if ((size_t)current_device >= devices.size())
        return fail(cudaErrorInvalidDevice);
    if (injected(&settings.fail_alloc))
        return fail(cudaErrorMemoryAllocation);
    Stream *s = new Stream;
    s->device = current_device;
    s->id = next_stream_id++;
    ON_TSAN(char name[32]; snprintf(name, sizeof name, "stream %d", s->id);
            s->tsan = __tsan_create_fiber(0); __tsan_set_fiber_name(s->tsan, name);)
    streams.push_back(s);
    *out = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    Locked l;
    if (!valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    cudaError_t e = run_until(l, s, [&] { return s->queue.empty(); });
    streams.erase(std::find(streams.begin(), streams.end(), s));
    ON_TSAN(__tsan_destroy_fiber(s->tsan);)
    delete s;
    return fail(e);
}

static cudaError_t check_wait(cudaStream_t s)
{
    if (!valid_stream(s))
        return cudaErrorInvalidResourceHandle;
    if (in_host_function)
        return cudaErrorNotPermitted;
    return s->capture ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    Locked l;
    cudaError_t e = check_wait(s);
    if (e == cudaSuccess)
        e = run_until(l, s, [&] { return s->queue.empty() && !s->running; });
    if (e != cudaSuccess)
        return fail(e);
    host_us = std::max(host_us, s->free_us);
    quiet_acquire(s->token);
    return fail(devices[(size_t)s->device]->sticky);
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    Locked l;
    cudaError_t e = check_wait(s);
    if (e != cudaSuccess)
        return fail(e);
    if (!s->queue.empty()) { /* a question makes progress, or asking in a loop would not end */
        if (Stream *next = something_runs ? nullptr : pick_stream(s))
            run_head(l, next);
        if (!s->queue.empty())
            return cudaErrorNotReady;
    }
    quiet_acquire(s->token);
    return fail(devices[(size_t)s->device]->sticky);
}

cudaError_t cudaDeviceSynchronize()
{
    start_once();
    Locked l;
    if ((size_t)current_device >= devices.size())
        return fail(cudaErrorInvalidDevice);
    if (is_capturing(devices[(size_t)current_device]))
        return fail(cudaErrorStreamCaptureUnsupported);
    return fail(drain_device(l, devices[(size_t)current_device]));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *user)
{
    Locked l;
    if (!valid_stream(s) || !fn)
        return fail(cudaErrorInvalidResourceHandle);
    auto op = std::make_shared<Operation>();
    op->name = "host function";
    op->body = [fn, user] {
        in_host_function = true;
        fn(user);
        in_host_function = false;
    };
    return fail(enqueue(l, s, op));
}

/* ---- events --------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    start_once();
    Locked l;
    *out = nullptr;
    if (injected(&settings.fail_alloc))
        return fail(cudaErrorMemoryAllocation);
    *out = new Event;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    Locked l;
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    Locked l;
    if (!e || !valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    EventState &state = *e->state;
    state.captured_by = s->capture ? s : nullptr;
    if (s->capture)
        return cudaSuccess;
    auto op = std::make_shared<Operation>();
    op->name = "event record";
    op->event = e->state;
    op->generation = ++state.recorded;
    return fail(enqueue(l, s, op));
}

/* Waiting for what a capture recorded makes the stream take part in the capture. */
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    Locked l;
    if (!e || !valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    EventState &state = *e->state;
    if (state.captured_by && state.captured_by->capture) {
        Graph *g = state.captured_by->capture;
        if (!s->capture)
            g->members.push_back(s);
        s->capture = g;
        if (state.captured_by != s)
            g->open.erase(state.captured_by);
        return cudaSuccess;
    }
    if (state.recorded == 0)
        return cudaSuccess; /* nothing to wait for */
    auto op = std::make_shared<Operation>();
    op->name = "wait for an event";
    op->event = e->state;
    op->is_wait = true;
    op->generation = state.recorded;
    return fail(enqueue(l, s, op));
}

static Stream *recorder_of(const EventState &state)
{
    for (Stream *s : streams)
        for (const auto &op : s->queue)
            if (op->event.get() == &state && !op->is_wait)
                return s;
    return nullptr;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    Locked l;
    if (!e)
        return fail(cudaErrorInvalidResourceHandle);
    std::shared_ptr<EventState> state = e->state;
    if (state->done < state->recorded && !something_runs && !in_host_function)
        if (Stream *next = pick_stream(recorder_of(*state)))
            run_head(l, next);
    if (state->done < state->recorded)
        return cudaErrorNotReady;
    quiet_acquire(state->token);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    Locked l;
    if (!e)
        return fail(cudaErrorInvalidResourceHandle);
    if (in_host_function)
        return fail(cudaErrorNotPermitted);
    std::shared_ptr<EventState> state = e->state;
    uint64_t generation = state->recorded;
    Stream *s = recorder_of(*state);
    int device = s ? s->device : -1;
    cudaError_t error = run_until(l, s, [&] { return state->done >= generation; });
    if (error != cudaSuccess)
        return fail(error);
    host_us = std::max(host_us, state->at_us);
    quiet_acquire(state->token);
    return fail(device >= 0 ? devices[(size_t)device]->sticky : cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    Locked l;
    if (!from || !to || from->state->recorded == 0 || to->state->recorded == 0)
        return fail(cudaErrorInvalidResourceHandle);
    if (from->state->done < from->state->recorded || to->state->done < to->state->recorded)
        return cudaErrorNotReady;
    *ms = (float)((to->state->at_us - from->state->at_us) / 1000);
    return cudaSuccess;
}

/* ---- copies --------------------------------------------------------------------------------- */

enum Place { PAGEABLE, PINNED, ON_DEVICE, BAD_PLACE };

static Place place_of(const void *p, size_t bytes, int *device)
{
    const Allocation *a = find_allocation(p);
    *device = -1;
    if (!a)
        return device_of(p) ? BAD_PLACE : PAGEABLE;
    if ((const char *)p + bytes > a->base + a->bytes)
        return BAD_PLACE;
    *device = a->device;
    return a->device >= 0 ? ON_DEVICE : PINNED;
}

static bool fits_kind(cudaMemcpyKind kind, bool from_device, bool to_device)
{
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !from_device && !to_device;
    case cudaMemcpyHostToDevice:
        return !from_device && to_device;
    case cudaMemcpyDeviceToHost:
        return from_device && !to_device;
    case cudaMemcpyDeviceToDevice:
        return from_device && to_device;
    default:
        return true;
    }
}

static double copy_cost_us(size_t bytes, Resource r)
{
    long gbs = r == LINK_OUT ? settings.d2h_gbs : settings.h2d_gbs;
    return (double)settings.copy_us + (double)bytes / (1000.0 * (double)(gbs > 0 ? gbs : 1));
}

/* Which links a copy between these devices (-1: host) takes. The stream belongs to one of them. */
static void route(Operation *op, const Stream *s, int from, int to, size_t bytes)
{
    if (from < 0 && to >= 0) {
        op->resource = LINK_IN;
    } else if (from >= 0 && to < 0) {
        op->resource = LINK_OUT;
    } else if (from != to) {
        op->resource = from == s->device ? LINK_OUT : LINK_IN;
        op->other_device = from == s->device ? to : from;
    }
    op->cost_us = copy_cost_us(bytes, op->resource);
}

/* A copy from pageable memory has read its source when the call returns; one to pageable memory
 * has ended. Others read and write when they run. */
static cudaError_t copy(Locked &l, void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                        Stream *s)
{
    int from, to;
    Place a = place_of(src, bytes, &from), b = place_of(dst, bytes, &to);
    if (a == BAD_PLACE || b == BAD_PLACE) {
        report("copy of %zu B from %p to %p: the %s leaves its allocation, or was freed", bytes,
               src, dst, a == BAD_PLACE ? "source" : "destination");
        return cudaErrorInvalidValue;
    }
    if (!fits_kind(kind, from >= 0, to >= 0)) {
        report("copy of %zu B from %p (device %d) to %p (device %d): wrong direction", bytes, src,
               from, dst, to);
        return cudaErrorInvalidMemcpyDirection;
    }
    if (injected(&settings.fail_copy))
        return cudaErrorLaunchFailure;
    auto op = std::make_shared<Operation>();
    op->name = "copy";
    route(op.get(), s, from, to, bytes);
    if (a == PAGEABLE) {
        std::string taken((const char *)src, bytes);
        op->body = [dst, taken] { memcpy(dst, taken.data(), taken.size()); };
    } else {
        op->body = [dst, src, bytes] { memcpy(dst, src, bytes); };
    }
    cudaError_t e = enqueue(l, s, op);
    if (e != cudaSuccess || b != PAGEABLE || s->capture)
        return e;
    e = run_until(l, s, [&] { return s->queue.empty(); });
    host_us = std::max(host_us, s->free_us);
    quiet_acquire(s->token);
    return e != cudaSuccess ? e : devices[(size_t)s->device]->sticky;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t s)
{
    Locked l;
    if (!valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    if (bytes == 0)
        return cudaSuccess;
    return fail(copy(l, dst, src, bytes, kind, s));
}

cudaError_t cudaMemcpyPeerAsync(void *dst, int dst_device, const void *src, int src_device,
                                size_t bytes, cudaStream_t s)
{
    Locked l;
    int from, to;
    if (!valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    if (bytes == 0)
        return cudaSuccess;
    place_of(src, bytes, &from);
    place_of(dst, bytes, &to);
    if (from != src_device || to != dst_device) {
        report("peer copy from device %d to %d: the memory is of devices %d and %d", src_device,
               dst_device, from, to);
        return fail(cudaErrorInvalidValue);
    }
    return fail(copy(l, dst, src, bytes, cudaMemcpyDeviceToDevice, s));
}

cudaError_t cudaMemsetAsync(void *dst, int byte, size_t bytes, cudaStream_t s)
{
    Locked l;
    int device;
    if (!valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    if (place_of(dst, bytes, &device) != ON_DEVICE) {
        report("memset of %zu B at %p: found no device memory there", bytes, dst);
        return fail(cudaErrorInvalidValue);
    }
    auto op = std::make_shared<Operation>();
    op->name = "memset";
    op->resource = COMPUTE;
    op->cost_us = 2;
    op->body = [dst, byte, bytes] { memset(dst, byte, bytes); };
    return fail(enqueue(l, s, op));
}

/* ---- launches ------------------------------------------------------------------------------- */

static std::map<const void *, size_t> shared_limits; /* kernels that asked for more */

cudaError_t set_kernel_attribute(const void *kernel, int attribute, int value)
{
    start_once();
    Locked l;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        value > settings.shared_kb << 10)
        return fail(cudaErrorInvalidValue);
    shared_limits[kernel] = (size_t)value;
    return cudaSuccess;
}

static cudaError_t check_shape(const Launch &k)
{
    size_t limit = 48 << 10;
    auto asked = shared_limits.find(k.kernel);
    if (asked != shared_limits.end() && asked->second > limit)
        limit = asked->second;
    uint64_t threads = (uint64_t)k.block.x * k.block.y * k.block.z;
    bool ok = threads > 0 && threads <= 1024 && k.block.x <= 1024 && k.block.y <= 1024 &&
              k.block.z <= 64 && k.grid.x > 0 && k.grid.y > 0 && k.grid.z > 0 &&
              k.grid.x <= 0x7FFFFFFF && k.grid.y <= 65535 && k.grid.z <= 65535;
    if (!ok)
        report("launch of %s: found grid %u x %u x %u, block %u x %u x %u, beyond the limits",
               k.name, k.grid.x, k.grid.y, k.grid.z, k.block.x, k.block.y, k.block.z);
    else if (k.shared_bytes > limit)
        report("launch of %s: found %zu B of dynamic shared memory, expected at most %zu B "
               "(cudaFuncSetAttribute allows more)",
               k.name, k.shared_bytes, limit);
    return !ok                      ? cudaErrorInvalidConfiguration
           : k.shared_bytes > limit ? cudaErrorInvalidValue
                                    : cudaSuccess;
}

/* What is wrong with a pointer that a kernel on device d gets, or NULL. A word of a struct counts
 * as a pointer when it points into some device's memory. */
static const char *wrong_pointer(const Device *d, const void *p, bool is_pointer)
{
    const Device *owner = device_of(p);
    const Allocation *a = find_allocation(p);
    if (owner && !a)
        return "memory that is not allocated";
    if (owner && owner != d && !d->peers[owner->id])
        return "memory of another device, without peer access";
    if (!owner && !a && is_pointer && p)
        return "pageable host memory";
    return nullptr;
}

static cudaError_t check_arguments(const Launch &k, const Device *d, const ArgWords *args,
                                   int n_args)
{
    for (int i = 0; i < n_args; i++)
        for (size_t at = 0; at + sizeof(void *) <= args[i].bytes; at += sizeof(void *)) {
            const void *p;
            memcpy(&p, (const char *)args[i].data + at, sizeof p);
            const char *wrong = wrong_pointer(d, p, args[i].is_pointer);
            if (!wrong)
                continue;
            report("launch of %s on device %d: argument %d (byte %zu) points to %s", k.name, d->id,
                   i + 1, at, wrong);
            return cudaErrorIllegalAddress;
        }
    return cudaSuccess;
}

static void run_kernel(const Launch &k, int device)
{
    std::string text;
    bool ok = run_grid(k, &text);
    Quiet quiet;
    Device *d = devices[(size_t)device];
    if (!ok)
        report("%s", text.c_str());
    else
        ok = check_red_zones(d, k.name);
    if (!ok)
        d->sticky = cudaErrorLaunchFailure;
}

/* A guess that only orders things: tests give the cost of what they time. */
static double default_cost_us(const Launch &k)
{
    return 4 + 0.01 * (double)k.grid.x * k.grid.y * k.grid.z;
}

cudaError_t launch_checked(Launch k, cudaStream_t s, const ArgWords *args, int n_args)
{
    Locked l;
    if (!valid_stream(s)) {
        report("launch of %s: found no stream (the default stream is not used)", k.name);
        return fail(cudaErrorInvalidResourceHandle);
    }
    Device *d = devices[(size_t)s->device];
    cudaError_t e = in_host_function ? cudaErrorNotPermitted : check_shape(k);
    if (e == cudaSuccess)
        e = check_arguments(k, d, args, n_args);
    if (e == cudaSuccess && injected(&settings.fail_launch))
        e = cudaErrorLaunchFailure;
    if (e != cudaSuccess)
        return fail(e);
    auto op = std::make_shared<Operation>();
    op->name = std::string("kernel ") + k.name;
    op->resource = COMPUTE;
    op->cost_us = next_cost_us >= 0 ? next_cost_us : default_cost_us(k);
    next_cost_us = -1;
    int device = s->device;
    op->body = [k, device] { run_kernel(k, device); };
    return fail(enqueue(l, s, op));
}

} // namespace fsim
