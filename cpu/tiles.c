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

static int64_t parts_of(int64_t from, int64_t to, int64_t rows)
{
    return (to - from + rows - 1) / rows;
}

static void open_lanes(cpu_tiles *t, int share)
{
    const cpu_tiles_share *s = &t->shares[share];
    int64_t n = parts_of(s->from, s->to, t->unit_rows) * t->n_mat;
    assert(n >= 0 && n <= INT32_MAX);
    for (int l = 0; l < t->n_lanes; l++) {
        int64_t next = n * l / t->n_lanes, end = n * (l + 1) / t->n_lanes;
        atomic_store_explicit(&t->lanes[share * t->n_lanes + l].span,
                              (uint64_t)end << 32 | (uint64_t)next, memory_order_relaxed);
    }
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Units of a claim where `left` are left. */
static int64_t n_claimed(const cpu_tiles *t, int64_t left)
{
    int64_t n = t->tile_units > 1 ? left / 2 : 1;
    return n < 1 ? 1 : min_i64(n, t->tile_units);
}

/* The tile at the beginning or the end of the units [next, end) of a share; returns how many of
 * them it has. It stays within a matrix. */
static int64_t tile_at(const cpu_tiles *t, const cpu_tiles_share *s, bool first, int64_t next,
                       int64_t end, cpu_tile *out)
{
    int64_t per_mat = parts_of(s->from, s->to, t->unit_rows), n = n_claimed(t, end - next);
    int64_t at = first ? next : end - 1;
    out->mat = at / per_mat;
    at -= out->mat * per_mat;
    n = min_i64(n, first ? per_mat - at : at + 1);
    out->from = s->from + (first ? at : at + 1 - n) * t->unit_rows;
    out->to = min_i64(out->from + n * t->unit_rows, s->to);
    return n;
}

/* The first or the last tile that a lane of a share has left. */
static bool take(const cpu_tiles *t, const cpu_tiles_share *s, cpu_tiles_lane *l, bool first,
                 cpu_tile *out)
{
    uint64_t span = atomic_load_explicit(&l->span, memory_order_relaxed);
    for (;;) {
        uint64_t next = (uint32_t)span, end = span >> 32;
        if (next >= end)
            return false;
        uint64_t n = (uint64_t)tile_at(t, s, first, (int64_t)next, (int64_t)end, out);
        uint64_t left = first ? span + n : span - (n << 32);
        if (atomic_compare_exchange_weak_explicit(&l->span, &span, left, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
}

/* Of the thread's own lane, then of the others of its share. */
static bool claim(cpu_tiles *t, const cpu_walk *w, cpu_tile *out)
{
    for (int k = 0; k < t->n_lanes; k++) {
        int lane = (w->i_thread + k) % t->n_lanes;
        if (take(t, &t->shares[w->share], &t->lanes[w->share * t->n_lanes + lane], k == 0, out))
            return true;
    }
    return false;
}

void cpu_tiles_cut_ending(cpu_tiles *t, const fr_cpu *cpu, cpu_deal deal, int64_t n_mat,
                          int64_t n_rows, int64_t tile_rows, int64_t least_rows, int64_t grain)
{
    assert(least_rows <= tile_rows && tile_rows % least_rows == 0);
    t->cpu = cpu;
    t->deal = deal;
    t->n_mat = n_mat;
    t->tile_rows = tile_rows;
    t->grain = grain;
    t->unit_rows = least_rows;
    t->tile_units = tile_rows / least_rows;
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

void cpu_tiles_cut(cpu_tiles *t, const fr_cpu *cpu, cpu_deal deal, int64_t n_mat, int64_t n_rows,
                   int64_t tile_rows, int64_t grain)
{
    cpu_tiles_cut_ending(t, cpu, deal, n_mat, n_rows, tile_rows, tile_rows, grain);
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
    int64_t per_mat = parts_of(from, to, t->tile_rows);
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
    int64_t per_mat = parts_of(s->from, s->to, t->tile_rows);
    return next_of_rows(t, w, i - per_mat * rounds, n * rounds, out);
}

static bool next_of_share(cpu_tiles *t, cpu_walk *w, cpu_tile *out)
{
    switch (t->deal) {
    case CPU_DEAL_ROWS:
        return next_of_rows(t, w, w->at++, 0, out);
    case CPU_DEAL_MATS:
        return next_of_mats(t, w, w->at++, out);
    default:
        return claim(t, w, out);
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
    return next < end && tile_at(t, s, true, next, end, out) > 0;
}
