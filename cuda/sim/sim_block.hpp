/* The block that runs: its threads and warps (sim_fiber.cpp, sim_warp.cpp). One at a time in the
 * whole process. */
#ifndef FR_CUDA_SIM_BLOCK_HPP
#define FR_CUDA_SIM_BLOCK_HPP

#include "cuda/sim/sim_internal.hpp"

namespace fsim
{

enum { MAX_THREADS = 1024, MAX_SHARED = 64, MAX_COPIES = 256 };

struct Fiber;

struct AsyncCopy {
    void *dst;
    const void *src;
    int bytes, group;
};

struct Thread {
    enum State { FRESH, READY, RUNNING, AT_BARRIER, AT_WARP, EXITED };
    uint3 id;
    int index;
    State state;
    Fiber *fiber; /* NULL before it runs */
    Site site;    /* where it waits */
    unsigned mask;
    BarrierKind barrier;
    int result;
    void *brought; /* to a collective */
    int copy_groups;
    std::vector<AsyncCopy> copies; /* not yet landed */
    void *tsan;
};

/* Lanes that meet in one collective. */
struct Meeting {
    unsigned mask, arrived;
    WarpOp op;
    warp_compute compute;
    Site site;
};

struct Warp {
    unsigned alive;
    int n_meetings;
    Meeting meetings[32];
    unsigned phase[32]; /* of race mode's tokens, by lowest lane of the mask */
};

struct SharedVariable {
    const void *key;
    size_t bytes;
    void *p;
};

struct Block {
    const Launch *launch;
    std::vector<Thread> threads;
    Warp warps[MAX_THREADS / 32];
    int n_threads, n_alive;
    Thread *running;
    Thread *ready[MAX_THREADS]; /* ring */
    int ready_head, n_ready;
    int fresh[MAX_THREADS], next_fresh;
    int n_waiting, n_true; /* in the barrier */
    Site barrier_site;
    unsigned phase;
    Random random;
    char *arena;
    size_t arena_used;
    SharedVariable shared[MAX_SHARED];
    int n_shared;
    void *dynamic;
    std::string report; /* of a fault */
    bool entered_from_main;
    int parity; /* race mode: neighbouring blocks are different threads */
    void *tsan_launcher;
    char *tokens, *launch_tokens; /* launch: start, end */
};

extern Block block;

void make_ready(Thread *t);
void wait_here();
void maybe_yield();
void start_warps();
void warp_lane_exits(Thread *t);

} // namespace fsim
#endif
