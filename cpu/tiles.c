#include "cpu/tiles.h"

#include <assert.h>
#include <stdatomic.h>

#include "cpu/kernels.h"
#include "cpu/pool.h"

enum { GROUP = 16, MANY = 64 }; /* rows of the widest interleaved group; of the widest tile */

const char *cpu_deal_name(cpu_deal deal)
{
    static const char *const names[] = {
        [CPU_DEAL_CLAIM] = "claimed tiles",
        [CPU_DEAL_ROWS] = "rows of each",
        [CPU_DEAL_MATS] = "whole experts",
    };
    return (unsigned)deal < CPU_DEAL_COUNT ? names[deal] : "unknown";
}

void cpu_home_rows(int64_t n_rows, int n_shares, int share, int64_t *from, int64_t *to)
{
    fr_cpu_share(n_rows, n_rows >= (int64_t)n_shares * 4 * MANY ? MANY : GROUP, share, n_shares,
                 from, to);
}

static int64_t tiles_of_mat(const cpu_tiles *t, int64_t from, int64_t to)
{
    return (to - from + t->tile_rows - 1) / t->tile_rows;
}

static void open_lanes(cpu_tiles *t, int share)
{
    const cpu_tiles_share *s = &t->shares[share];
    int64_t n = tiles_of_mat(t, s->from, s->to) * t->n_mat;
    assert(n >= 0 && n <= INT32_MAX);
    for (int l = 0; l < t->n_lanes; l++) {
        uint64_t next = (uint64_t)(n * l / t->n_lanes), end = (uint64_t)(n * (l + 1) / t->n_lanes);
        atomic_store_explicit(&t->lanes[share * t->n_lanes + l].span, end << 32 | next,
                              memory_order_relaxed);
    }
}

/* The first or the last tile that a lane has left. */
static bool take(cpu_tiles_lane *l, bool first, int64_t *tile)
{
    uint64_t span = atomic_load_explicit(&l->span, memory_order_relaxed);
    for (;;) {
        uint64_t next = (uint32_t)span, end = span >> 32;
        if (next >= end)
            return false;
        uint64_t left = first ? span + 1 : span - ((uint64_t)1 << 32);
        if (atomic_compare_exchange_weak_explicit(&l->span, &span, left, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            *tile = (int64_t)(first ? next : end - 1);
            return true;
        }
    }
}

/* Of the thread's own lane, then of the others of its share. */
static bool claim(cpu_tiles *t, const cpu_walk *w, int64_t *tile)
{
    for (int k = 0; k < t->n_lanes; k++) {
        int lane = (w->i_thread + k) % t->n_lanes;
        if (take(&t->lanes[w->share * t->n_lanes + lane], k == 0, tile))
            return true;
    }
    return false;
}

void cpu_tiles_cut(cpu_tiles *t, const fr_cpu *cpu, cpu_deal deal, int64_t n_mat, int64_t n_rows,
                   int64_t tile_rows, int64_t grain)
{
    t->cpu = cpu;
    t->deal = deal;
    t->n_mat = n_mat;
    t->tile_rows = tile_rows;
    t->grain = grain;
    t->n_shares = cpu_pool_n_shares(cpu->pool);
    int per_share = (fr_cpu_n_threads(cpu) + t->n_shares - 1) / t->n_shares;
    t->n_lanes =
        per_share < CPU_TILE_LANES / t->n_shares ? per_share : CPU_TILE_LANES / t->n_shares;
    for (int s = 0; s < t->n_shares; s++) {
        cpu_tiles_share *share = &t->shares[s];
        cpu_home_rows(n_rows, t->n_shares, s, &share->from, &share->to);
        if (deal == CPU_DEAL_CLAIM)
            open_lanes(t, s);
    }
}

cpu_walk cpu_tiles_walk(const cpu_tiles *t, int i_thread, int n_threads)
{
    if (n_threads == 1)
        return (cpu_walk){0, t->n_shares, 0, 1, 0};
    cpu_place p = cpu_pool_place(t->cpu->pool, i_thread);
    return (cpu_walk){p.share, p.share + 1, p.i_thread, p.n_threads, 0};
}

/* Tile i of `rows` = [from, to), matrix after matrix, of which the first is `mat` and each next one
 * `step` further; false when `rows` or n_mat matrices are used up. */
static bool nth_tile(const cpu_tiles *t, int64_t i, int64_t mat, int64_t step, int64_t n_mat,
                     int64_t from, int64_t to, cpu_tile *out)
{
    int64_t per_mat = tiles_of_mat(t, from, to);
    if (per_mat <= 0 || i >= per_mat * n_mat)
        return false;
    out->mat = mat + i / per_mat * step;
    out->from = from + i % per_mat * t->tile_rows;
    out->to = out->from + t->tile_rows < to ? out->from + t->tile_rows : to;
    return true;
}

/* A thread's part of the rows of a share, being number i of n that share them. */
static void part_of(const cpu_tiles *t, const cpu_tiles_share *s, int i, int n, int64_t *from,
                    int64_t *to)
{
    fr_cpu_share(s->to - s->from, t->grain, i, n, from, to);
    *from += s->from;
    *to += s->from;
}

/* ROWS, of the matrices from `first` on. */
static bool next_of_rows(const cpu_tiles *t, const cpu_walk *w, int64_t i, int64_t first,
                         cpu_tile *out)
{
    int64_t from, to;
    part_of(t, &t->shares[w->share], w->i_thread, w->n_threads, &from, &to);
    return nth_tile(t, i, first, 1, t->n_mat - first, from, to, out);
}

static bool next_of_mats(const cpu_tiles *t, const cpu_walk *w, int64_t i, cpu_tile *out)
{
    const cpu_tiles_share *s = &t->shares[w->share];
    int64_t n = w->n_threads, rounds = t->n_mat / n, from, to;
    if (t->n_mat == 0)
        return false;
    if (rounds == 0) { /* groups of threads */
        int64_t mat = w->i_thread * t->n_mat / n;
        int first = (int)((mat * n + t->n_mat - 1) / t->n_mat);
        int end = (int)(((mat + 1) * n + t->n_mat - 1) / t->n_mat);
        part_of(t, s, w->i_thread - first, end - first, &from, &to);
        return nth_tile(t, i, mat, 1, 1, from, to, out);
    }
    if (nth_tile(t, i, w->i_thread, n, rounds, s->from, s->to, out))
        return true;
    int64_t per_mat = tiles_of_mat(t, s->from, s->to);
    return next_of_rows(t, w, i - per_mat * rounds, n * rounds, out);
}

static bool next_of_share(cpu_tiles *t, cpu_walk *w, cpu_tile *out)
{
    const cpu_tiles_share *s = &t->shares[w->share];
    int64_t tile;
    switch (t->deal) {
    case CPU_DEAL_ROWS:
        return next_of_rows(t, w, w->at++, 0, out);
    case CPU_DEAL_MATS:
        return next_of_mats(t, w, w->at++, out);
    default:
        return claim(t, w, &tile) && nth_tile(t, tile, 0, 1, t->n_mat, s->from, s->to, out);
    }
}

bool cpu_tiles_next(cpu_tiles *t, cpu_walk *w, cpu_tile *out)
{
    for (; w->share < w->end_share; w->share++, w->at = 0)
        if (next_of_share(t, w, out))
            return true;
    return false;
}

bool cpu_tiles_peek(const cpu_tiles *t, const cpu_walk *w, cpu_tile *out)
{
    if (w->share >= w->end_share)
        return false;
    const cpu_tiles_share *s = &t->shares[w->share];
    if (t->deal == CPU_DEAL_ROWS)
        return next_of_rows(t, w, w->at, 0, out);
    if (t->deal == CPU_DEAL_MATS)
        return next_of_mats(t, w, w->at, out);
    int lane = w->share * t->n_lanes + w->i_thread % t->n_lanes;
    uint64_t span = atomic_load_explicit(&t->lanes[lane].span, memory_order_relaxed);
    int64_t next = (uint32_t)span, end = (int64_t)(span >> 32);
    return next < end && nth_tile(t, next, 0, 1, t->n_mat, s->from, s->to, out);
}
