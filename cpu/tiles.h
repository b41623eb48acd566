/* Cutting the rows of matrices into tiles, and dealing them out to threads. A tile is computed
 * whole by one thread, so neither the cut nor the dealing shows in results.
 *
 * On a machine whose memory is in several nodes (fr_numa), every matrix's rows are first dealt out
 * to the nodes ("shares", cpu_home_rows), and a thread takes tiles of its node only. Inside the cpu
 * box. */
#ifndef FR_CPU_TILES_H
#define FR_CPU_TILES_H

#include "cpu/topology.h"

/* How the tiles of a share come to its threads. */
typedef enum {
    CPU_DEAL_CLAIM, /* each begins with a part of its own, matrix after matrix, so that it reads one
                       stream; who is done takes the last ones of others */
    CPU_DEAL_ROWS,  /* each has its part of the rows of every matrix */
    CPU_DEAL_MATS,  /* each has whole matrices; where they are fewer than threads, groups of threads
                       have one; what is left over is cut as ROWS */
    CPU_DEAL_COUNT
} cpu_deal;

const char *cpu_deal_name(cpu_deal deal);

typedef struct {
    int64_t from, to; /* rows of every matrix */
} cpu_tiles_share;

enum { CPU_TILE_LANES = 32 };

/* CLAIM: some units in a row of a share, whose threads begin with one of its lanes each (with many
 * threads, several with one). */
typedef struct {
    _Alignas(64) _Atomic uint64_t span; /* next unit, and above it 32 bits of the end */
} cpu_tiles_lane;

typedef struct {
    const fr_cpu *cpu;
    cpu_deal deal;
    int64_t n_mat, tile_rows, grain;
    int64_t unit_rows, tile_units; /* CLAIM: tiles are of 1 to tile_units units */
    int n_shares, n_lanes;         /* lanes of each share; those of share s begin at s * n_lanes */
    cpu_tiles_share shares[CPU_MAX_NODES];
    cpu_tiles_lane lanes[CPU_TILE_LANES];
} cpu_tiles;

/* The rows of every matrix of n_rows that belong to a share: [*from, *to). Borders are multiples of
 * 64 rows where there are many, so of every interleaved group, else of a group of 16. */
void cpu_home_rows(int64_t n_rows, int n_shares, int share, int64_t *from, int64_t *to);

/* n_mat matrices of n_rows, for the threads of a job of this cpu. tile_rows: of a tile at most, a
 * multiple of grain. */
void cpu_tiles_cut(cpu_tiles *t, const fr_cpu *cpu, cpu_deal deal, int64_t n_mat, int64_t n_rows,
                   int64_t tile_rows, int64_t grain);

/* The same, but claimed tiles get smaller towards the end of a lane, by halves of what is left,
 * down to least_rows (a multiple of grain, at most tile_rows, which is a multiple of it): threads
 * then end together. For kernels to which short tiles cost little. */
void cpu_tiles_cut_ending(cpu_tiles *t, const fr_cpu *cpu, cpu_deal deal, int64_t n_mat,
                          int64_t n_rows, int64_t tile_rows, int64_t least_rows, int64_t grain);

/* A thread's way through the tiles. n_threads as the job's function gets it: 1 = the caller alone
 * takes all shares. */
typedef struct {
    int share, end_share, i_thread, n_threads;
    int64_t at;
} cpu_walk;

typedef struct {
    int64_t mat, from, to;
} cpu_tile;

cpu_walk cpu_tiles_walk(const cpu_tiles *t, int i_thread, int n_threads);
bool cpu_tiles_next(cpu_tiles *t, cpu_walk *w, cpu_tile *out);

/* What that will give next unless another thread takes it; false: nothing of the thread's own. */
bool cpu_tiles_peek(const cpu_tiles *t, const cpu_walk *w, cpu_tile *out);

#endif
