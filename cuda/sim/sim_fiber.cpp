/* Threads of a block as fibers: switching, choosing who runs, barriers, shared memory.
 *
 * A fiber carries one CUDA thread until it waits; a thread that never waits costs no switch, its
 * fiber goes on with the next thread. A waiting thread keeps its fiber. */
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#include "cuda/sim/sim_block.hpp"
#include "cuda/sim/sim_internal.hpp"

#if !defined(__x86_64__)
#define FSIM_UCONTEXT 1
#include <ucontext.h>
#endif

namespace fsim
{

Context context;
Counters counts;
Block block;

#ifdef FERRY_SIM_TSAN
uint3 context_thread()
{
    return context.thread;
}
uint3 context_block()
{
    return context.block;
}
uint3 context_block_dim()
{
    return context.block_dim;
}
uint3 context_grid_dim()
{
    return context.grid_dim;
}
#endif

/* ---- the switch ----------------------------------------------------------------------------- */

struct Fiber {
    void *sp = nullptr;
    const char *stack = nullptr; /* of the first fiber: learned at the first switch (ASan) */
    size_t bytes = 0;
    void *asan_fake = nullptr;
#ifdef FSIM_UCONTEXT
    ucontext_t uc;
#endif
};

static Fiber main_fiber;
static Fiber *current = &main_fiber;
static std::vector<Fiber *> &all_fibers = *new std::vector<Fiber *>; /* outlives static objects */
static std::vector<Fiber *> idle_fibers;

#ifndef FSIM_UCONTEXT
/* Saves what a call must keep, and the stack pointer; goes on where `to` was saved. */
extern "C" void fsim_switch(void **from_sp, void *to_sp);
asm(R"(
.text
.globl fsim_switch
.type fsim_switch, @function
fsim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size fsim_switch, .-fsim_switch
)");
#endif

/* The first thing on a stack after a switch to it. Who comes from outside tells its own stack. */
static void arrive(void *fake)
{
    (void)fake;
#if defined(__SANITIZE_ADDRESS__)
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake, &stack, &bytes);
    if (block.entered_from_main) {
        main_fiber.stack = (const char *)stack;
        main_fiber.bytes = bytes;
    }
#endif
    block.entered_from_main = false;
}

static void switch_to(Fiber *to)
{
    Fiber *from = current;
    counts.switches++;
    current = to;
    ON_ASAN(__sanitizer_start_switch_fiber(&from->asan_fake, to->stack, to->bytes);)
#ifdef FSIM_UCONTEXT
    swapcontext(&from->uc, &to->uc);
#else
    fsim_switch(&from->sp, to->sp);
#endif
    arrive(from->asan_fake);
}

static void fiber_loop();

static void fiber_entry()
{
    arrive(nullptr);
    fiber_loop();
}

/* The stack as if fiber_entry had just been called (rsp % 16 == 8 there). */
static void reset_fiber(Fiber *f)
{
    f->asan_fake = nullptr;
#ifdef FSIM_UCONTEXT
    getcontext(&f->uc);
    f->uc.uc_stack.ss_sp = (void *)f->stack;
    f->uc.uc_stack.ss_size = f->bytes;
    f->uc.uc_link = nullptr;
    makecontext(&f->uc, fiber_entry, 0);
#else
    void **top = (void **)(((uintptr_t)f->stack + f->bytes) & ~(uintptr_t)15);
    *--top = nullptr;
    *--top = (void *)fiber_entry;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->sp = top;
#endif
}

static Fiber *make_fiber()
{
    size_t guard = 4096, bytes = (size_t)settings.stack_kb * 1024;
    ON_ASAN(bytes = bytes < (256 << 10) ? 256 << 10 : bytes;)
    ON_TSAN(bytes = bytes < (256 << 10) ? 256 << 10 : bytes;)
    void *m = mmap(nullptr, bytes + guard, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        thread_fault("no memory for the stack of a thread");
    mprotect(m, guard, PROT_NONE);
    Fiber *f = new Fiber;
    f->stack = (char *)m + guard;
    f->bytes = bytes;
    reset_fiber(f);
    all_fibers.push_back(f);
    return f;
}

/* In race mode every CUDA thread has a stack of its own: sharing one would look like a race. */
static Fiber *fiber_for(Thread *t)
{
#ifdef FERRY_SIM_TSAN
    static Fiber *own[2][MAX_THREADS];
    Fiber *&f = own[block.parity][t->index];
    if (!f)
        f = make_fiber();
    return f;
#else
    (void)t;
    if (idle_fibers.empty())
        return make_fiber();
    Fiber *f = idle_fibers.back();
    idle_fibers.pop_back();
    return f;
#endif
}

/* ---- choosing who runs ---------------------------------------------------------------------- */

void make_ready(Thread *t)
{
    t->state = Thread::READY;
    block.ready[(block.ready_head + block.n_ready++) % MAX_THREADS] = t;
}

static Thread *next_fresh()
{
    return &block.threads[block.fresh[block.next_fresh++]];
}

static Thread *take_ready(int i)
{
    Thread *&first = block.ready[block.ready_head];
    std::swap(first, block.ready[(block.ready_head + i) % MAX_THREADS]);
    Thread *t = first;
    block.ready_head = (block.ready_head + 1) % MAX_THREADS;
    block.n_ready--;
    return t;
}

/* NULL when no thread can run. */
static Thread *pick()
{
    int n_fresh = block.n_threads - block.next_fresh, n = block.n_ready + n_fresh;
    if (n == 0)
        return nullptr;
    if (settings.order == 2) {
        int i = (int)block.random.below((size_t)n);
        return i < block.n_ready ? take_ready(i) : next_fresh();
    }
    if (block.n_ready == 0)
        return next_fresh();
    return take_ready(settings.order == 1 ? block.n_ready - 1 : 0);
}

static void enter(Thread *t)
{
    t->state = Thread::RUNNING;
    block.running = t;
    context.thread = t->id;
    ON_TSAN(__tsan_switch_to_fiber(t->tsan, 1);)
}

static void resume(Thread *t)
{
    if (!t->fiber)
        t->fiber = fiber_for(t);
    enter(t);
    if (t->fiber != current)
        switch_to(t->fiber);
}

[[noreturn]] static void deadlock();

/* Lets others run until somebody resumes the running thread, which has been marked waiting. */
void wait_here()
{
    block.running->fiber = current;
    Thread *t = pick();
    if (!t)
        deadlock();
    resume(t);
}

/* Being the last to come is no reason to run first. */
void maybe_yield()
{
    if (settings.order == 2) {
        make_ready(block.running);
        wait_here();
    } else {
        block.running->state = Thread::RUNNING;
    }
}

/* ---- faults --------------------------------------------------------------------------------- */

void thread_fault(const char *format, ...)
{
    ON_TSAN(__tsan_switch_to_fiber(block.tsan_launcher, 1);)
    char text[1024], head[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(head, sizeof head, "kernel %s, block (%u,%u,%u): ", block.launch->name,
             context.block.x, context.block.y, context.block.z);
    block.report = std::string(head) + text;
    switch_to(&main_fiber);
    abort();
}

/* One line for all threads that wait in the same place. */
static std::string describe_waiters(int from, std::vector<bool> &told)
{
    const Thread &first = block.threads[from];
    int n = 0, last = from;
    for (int i = from; i < block.n_threads; i++) {
        const Thread &t = block.threads[i];
        if (t.state != first.state || t.site.line != first.site.line ||
            t.site.file != first.site.file || t.mask != first.mask)
            continue;
        told[(size_t)i] = true;
        n++;
        last = i;
    }
    char line[512];
    if (first.state == Thread::AT_BARRIER)
        snprintf(line, sizeof line, "\n    %d threads (%d..%d) wait in __syncthreads at %s:%d", n,
                 from, last, first.site.file, first.site.line);
    else
        snprintf(line, sizeof line,
                 "\n    %d threads (%d..%d) wait in a collective of lanes %08x at %s:%d", n, from,
                 last, first.mask, first.site.file, first.site.line);
    return line;
}

static void deadlock()
{
    std::string text;
    std::vector<bool> told((size_t)block.n_threads);
    int n_exited = 0, n_lines = 0;
    for (int i = 0; i < block.n_threads; i++) {
        const Thread &t = block.threads[i];
        n_exited += t.state == Thread::EXITED;
        if (told[(size_t)i] || (t.state != Thread::AT_BARRIER && t.state != Thread::AT_WARP))
            continue;
        if (n_lines++ < 8)
            text += describe_waiters(i, told);
    }
    thread_fault("deadlock, no thread can run:%s\n    %d threads have ended", text.c_str(),
                 n_exited);
}

/* ---- barriers ------------------------------------------------------------------------------- */

static void release_barrier()
{
    counts.barriers++;
    for (int i = 0; i < block.n_threads; i++) {
        Thread *t = &block.threads[i];
        if (t->state != Thread::AT_BARRIER)
            continue;
        t->result = t->barrier == BARRIER_COUNT ? block.n_true
                    : t->barrier == BARRIER_AND ? block.n_true == block.n_waiting
                                                : block.n_true > 0;
        if (t != block.running)
            make_ready(t);
    }
    block.n_waiting = block.n_true = 0;
    block.phase++;
}

int block_barrier(BarrierKind kind, bool predicate, Site site)
{
    Thread *t = block.running;
    if (block.n_waiting > 0 &&
        (block.barrier_site.line != site.line || block.barrier_site.file != site.file))
        thread_fault("divergent __syncthreads: thread %d at %s:%d, while others wait at %s:%d",
                     t->index, site.file, site.line, block.barrier_site.file,
                     block.barrier_site.line);
    block.barrier_site = site;
    t->state = Thread::AT_BARRIER;
    t->site = site;
    t->mask = 0;
    t->barrier = kind;
    block.n_true += predicate;
    ON_TSAN(char *token = block.tokens + 8 * (block.phase & 1); __tsan_release(token);)
    if (++block.n_waiting == block.n_alive) {
        release_barrier();
        maybe_yield();
    } else {
        wait_here();
    }
    ON_TSAN(__tsan_acquire(token);)
    return t->result;
}

/* ---- the life of a thread ------------------------------------------------------------------- */

static void thread_exit()
{
    Thread *t = block.running;
    t->state = Thread::EXITED;
    t->copies.clear();
    block.n_alive--;
    warp_lane_exits(t);
    if (block.n_alive > 0 && block.n_waiting == block.n_alive)
        release_barrier();
    ON_TSAN(__tsan_release(block.launch_tokens + 8);)
}

/* What a fiber does: threads, one after the other; then it goes idle. */
static void fiber_loop()
{
    for (;;) {
        counts.threads++;
        ON_TSAN(__tsan_acquire(block.launch_tokens);)
        block.launch->body();
        thread_exit();
        Thread *t = pick();
        if (!t && block.n_alive > 0)
            deadlock();
#ifndef FERRY_SIM_TSAN
        if (t && !t->fiber) { /* fresh: stays on this fiber */
            t->fiber = current;
            enter(t);
            continue;
        }
        idle_fibers.push_back(current);
#endif
        if (t) {
            resume(t);
        } else {
            ON_TSAN(__tsan_switch_to_fiber(block.tsan_launcher, 1);)
            switch_to(&main_fiber);
        }
    }
}

/* ---- shared memory -------------------------------------------------------------------------- */

enum { ARENA_BYTES = 256 << 10, RED_ZONE = 64, STATIC_MOST = 48 << 10 };

/* Every block finds NaNs in its shared memory, and in race mode memory never seen before. */
static void reset_arena()
{
    ON_TSAN(Quiet quiet; /* an allocation counts as a write, by the block before */
            free(block.arena); block.arena = nullptr; free(block.tokens);
            block.tokens = (char *)malloc(16 + 8 * 2 * MAX_THREADS);)
    if (!block.arena) {
        block.arena = (char *)aligned_alloc(64, ARENA_BYTES);
        block.arena_used = ARENA_BYTES;
    }
    ON_ASAN(__asan_unpoison_memory_region(block.arena, ARENA_BYTES);)
#ifndef FERRY_SIM_TSAN
    for (size_t i = 0; i < block.arena_used; i += 4) {
        uint32_t nan = 0x7FC0DEAD;
        memcpy(block.arena + i, &nan, 4);
    }
#endif
    ON_ASAN(__asan_poison_memory_region(block.arena, ARENA_BYTES);)
    block.arena_used = 0;
    block.n_shared = 0;
    block.dynamic = nullptr;
}

static void *arena_take(size_t bytes, size_t align)
{
    size_t at = (block.arena_used + RED_ZONE + align - 1) / align * align;
    if (at + bytes + RED_ZONE > ARENA_BYTES)
        thread_fault("found %zu B more shared memory, expected at most %d B in all", bytes,
                     ARENA_BYTES);
    block.arena_used = (at + bytes + 7) / 8 * 8;
    ON_ASAN(__asan_unpoison_memory_region(block.arena + at, bytes);)
    return block.arena + at;
}

void *shared_static(const void *key, size_t bytes, size_t align, const char *name)
{
    size_t sum = bytes;
    for (int i = 0; i < block.n_shared; i++) {
        if (block.shared[i].key == key)
            return block.shared[i].p;
        sum += block.shared[i].bytes;
    }
    if (block.n_shared == MAX_SHARED)
        thread_fault("found over %d shared variables", MAX_SHARED);
    if (sum > STATIC_MOST)
        thread_fault("found %zu B of static shared memory (with %s), expected at most %d B", sum,
                     name, STATIC_MOST);
    if (sum + block.launch->shared_bytes > (size_t)settings.shared_kb << 10)
        thread_fault("found %zu B of shared memory (with %s), expected at most %ld KiB",
                     sum + block.launch->shared_bytes, name, settings.shared_kb);
    void *p = arena_take(bytes, align < 16 ? 16 : align);
    block.shared[block.n_shared++] = {key, bytes, p};
    return p;
}

void *shared_dynamic()
{
    if (block.launch->shared_bytes == 0)
        thread_fault("dynamic shared memory is used, but the launch gave none");
    if (!block.dynamic)
        block.dynamic = arena_take(block.launch->shared_bytes, 16);
    return block.dynamic;
}

/* ---- a grid --------------------------------------------------------------------------------- */

static void start_threads()
{
    const dim3 d = block.launch->block;
    for (int i = 0; i < block.n_threads; i++) {
        Thread *t = &block.threads[i];
        unsigned u = (unsigned)i;
        t->id = {u % d.x, u / d.x % d.y, u / d.x / d.y};
        t->index = i;
        t->state = Thread::FRESH;
        t->fiber = nullptr;
        t->copy_groups = 0;
        t->copies.clear();
        block.fresh[i] = settings.order == 1 ? block.n_threads - 1 - i : i;
#ifdef FERRY_SIM_TSAN
        static void *own[2][MAX_THREADS];
        if (!own[block.parity][i]) {
            Quiet quiet;
            char name[32];
            snprintf(name, sizeof name, "CUDA thread %d%s", i, block.parity ? "'" : "");
            own[block.parity][i] = __tsan_create_fiber(0);
            __tsan_set_fiber_name(own[block.parity][i], name);
        }
        t->tsan = own[block.parity][i];
#endif
    }
    if (settings.order == 2)
        for (size_t i = (size_t)block.n_threads; i-- > 1;)
            std::swap(block.fresh[i], block.fresh[block.random.below(i + 1)]);
}

/* After a fault fibers hang in the middle of threads that are no more. */
static void reset_fibers()
{
    idle_fibers.clear();
    for (Fiber *f : all_fibers) {
        ON_ASAN(__asan_unpoison_memory_region(f->stack, f->bytes);)
        reset_fiber(f);
        idle_fibers.push_back(f);
    }
}

static void run_block(uint64_t i_block)
{
    const Launch &l = *block.launch;
    block.parity = (int)(i_block & 1);
    block.n_threads = block.n_alive = (int)(l.block.x * l.block.y * l.block.z);
    block.n_ready = block.ready_head = block.next_fresh = 0;
    block.n_waiting = block.n_true = 0;
    block.phase = 0;
    block.random.state =
        ((uint64_t)settings.seed * 0x9E3779B97F4A7C15ull) ^ (i_block * 2654435761u + 1);
    if (block.random.state == 0)
        block.random.state = 1;
    context.block_dim = {l.block.x, l.block.y, l.block.z};
    context.grid_dim = {l.grid.x, l.grid.y, l.grid.z};
    context.block = {(unsigned)(i_block % l.grid.x), (unsigned)(i_block / l.grid.x % l.grid.y),
                     (unsigned)(i_block / l.grid.x / l.grid.y)};
    reset_arena();
    start_threads();
    start_warps();
    counts.blocks++;
    block.entered_from_main = true;
    resume(pick());
}

/* All memory that threads need, before one runs: nothing may allocate inside a thread. */
static void prepare()
{
    if (!block.threads.empty())
        return;
    all_fibers.reserve(2 * MAX_THREADS);
    idle_fibers.reserve(2 * MAX_THREADS);
    block.threads.resize(MAX_THREADS);
    for (Thread &t : block.threads)
        t.copies.reserve(MAX_COPIES);
}

bool run_grid(const Launch &launch, std::string *report)
{
    prepare();
    counts.launches++;
    block.launch = &launch;
    block.report.clear();
#ifdef FERRY_SIM_TSAN
    {
        Quiet quiet; /* fresh ones: an old token would order unrelated launches */
        free(block.launch_tokens);
        block.launch_tokens = (char *)malloc(16);
    }
    block.tsan_launcher = __tsan_get_current_fiber();
    __tsan_release(block.launch_tokens);
#endif
    uint64_t n = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    for (uint64_t i = 0; i < n && block.report.empty(); i++)
        run_block(settings.order == 1 ? n - 1 - i : i);
    ON_TSAN(__tsan_acquire(block.launch_tokens + 8);)
    if (block.report.empty())
        return true;
    reset_fibers();
    *report = block.report;
    return false;
}

} // namespace fsim
