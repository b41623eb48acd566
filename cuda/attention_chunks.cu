/* Attention over K and V that were expanded to floats, chunk after chunk: for many tokens at once.
 *
 * A block has the tokens of a tile and one head. It goes through the chunk in steps of 32
 * positions: scores as a small matrix product, a thread 4 x 4 of them, from pieces of Q and K in
 * shared memory; then the running softmax (Milakov and Gimelshein 2018), a warp a token; then the
 * weighted sums, a thread 16 tokens x 4 columns in registers. A token's sums depend neither on the
 * tile's other tokens nor on where chunks end. */
#include "cuda/device_code.cuh"
#include "cuda/launchers.h"

namespace FERRY_GPU_NS
{

enum {
    STEP = 32,        /* positions; chunks start at multiples of it */
    PIECE = 32,       /* numbers of Q and K that stand in shared memory at a time */
    LD = PIECE + 4,   /* of shared rows: neighbouring rows start 4 banks apart */
    THREAD_ROWS = 16, /* tokens of a thread's sums */
    MAX_TILE = 64,
    MAX_BLOCK = 256,
};

/* A tile as its threads see it. */
struct Tile {
    int64_t t0, h;
    int n_tokens;                    /* of the tile: 16 times the groups of threads that own sums */
    int lane_column, group, columns; /* first column, group, and distance of columns of a thread */
};

static __device__ __forceinline__ float query(const fr_gpu_attn_args &a, int64_t t, int64_t h,
                                              int64_t i)
{
    if (t >= a.n_tokens || i >= a.w1 + a.w2)
        return 0.0f;
    return i < a.w1 ? a.q1_d[t * a.ldq1 + h * a.q1_stride + i]
                    : a.q2_d[t * a.ldq2 + h * a.q2_stride + i - a.w1];
}

static __device__ __forceinline__ float key(const fr_gpu_attn_args &a, const fr_gpu_attn_chunk &c,
                                            int64_t p, int64_t h, int64_t i)
{
    if (p >= c.to || i >= a.w1 + a.w2)
        return 0.0f;
    p -= c.from;
    return i < a.w1 ? c.k1_d[p * c.ldk1 + h * c.k1_stride + i] : c.k2_d[p * c.ldk2 + i - a.w1];
}

/* scores[token * LD + position] of the step at p. */
static __device__ void score_step(const fr_gpu_attn_args &a, const fr_gpu_attn_chunk &c,
                                  const Tile &tile, int64_t p, float *q, float *k, float *scores)
{
    int x = threadIdx.x % 8, y = threadIdx.x / 8, quarter = tile.n_tokens / 4;
    float sums[4][4] = {};
    for (int64_t from = 0; from < a.w1 + a.w2; from += PIECE) {
        int64_t i = from + threadIdx.x % PIECE;
        __syncthreads();
        for (int r = threadIdx.x / PIECE; r < tile.n_tokens; r += blockDim.x / PIECE)
            q[r * LD + threadIdx.x % PIECE] = query(a, tile.t0 + r, tile.h, i);
        for (int r = threadIdx.x / PIECE; r < STEP; r += blockDim.x / PIECE)
            k[r * LD + threadIdx.x % PIECE] = key(a, c, p + r, tile.h, i);
        __syncthreads();
        for (int j = 0; j < PIECE && y < quarter; j += 4) {
            float4 kx[4];
            FERRY_UNROLL
            for (int u = 0; u < 4; u++)
                kx[u] = *(const float4 *)(k + (x + 8 * u) * LD + j);
            FERRY_UNROLL
            for (int r = 0; r < 4; r++) {
                float4 qy = *(const float4 *)(q + (y + quarter * r) * LD + j);
                FERRY_UNROLL
                for (int u = 0; u < 4; u++)
                    sums[r][u] = dot_four(qy, kx[u], sums[r][u]);
            }
        }
    }
    FERRY_UNROLL
    for (int r = 0; r < 4 && y < quarter; r++)
        FERRY_UNROLL
    for (int u = 0; u < 4; u++)
        scores[(y + quarter * r) * LD + x + 8 * u] = sums[r][u] * a.scale;
}

/* Scores become weights; each token's sums will shrink by shrinks[token]. */
static __device__ void weigh_step(const fr_gpu_attn_args &a, const fr_gpu_attn_chunk &c,
                                  const Tile &tile, int64_t p, float *scores, float *most,
                                  float *sums, float *shrinks)
{
    int lane = threadIdx.x % WARP;
    for (int r = threadIdx.x / WARP; r < tile.n_tokens; r += blockDim.x / WARP) {
        int64_t end = a.pos0 + tile.t0 + r + 1;
        bool seen = p + lane < (end < c.to ? end : c.to);
        float before = most[r], s = seen ? scores[r * LD + lane] : -INFINITY;
        float now = fmaxf(before, warp_max(s));
        float weight = seen ? expf(s - now) : 0.0f,
              shrink = now > before ? expf(before - now) : 1.0f;
        float sum = warp_sum(weight);
        scores[r * LD + lane] = weight;
        __syncwarp(); /* all have read what now changes */
        if (lane == 0) {
            most[r] = now;
            sums[r] = sums[r] * shrink + sum;
            shrinks[r] = shrink;
        }
    }
}

/* acc = acc * shrink + weights x values of the step at p. */
static __device__ void add_step(const fr_gpu_attn_args &a, const fr_gpu_attn_chunk &c,
                                const Tile &tile, int64_t p, const float *weights,
                                const float *shrinks, float (&acc)[THREAD_ROWS][4])
{
    int first = tile.group * THREAD_ROWS;
    FERRY_UNROLL
    for (int r = 0; r < THREAD_ROWS; r++)
        FERRY_UNROLL
    for (int e = 0; e < 4; e++)
        acc[r][e] *= shrinks[first + r];
    for (int j = 0; j < STEP && p + j < c.to; j += 4) {
        float v[4][4];
        FERRY_UNROLL
        for (int u = 0; u < 4; u++)
            FERRY_UNROLL
        for (int e = 0; e < 4; e++) {
            int64_t at = p + j + u, i = tile.lane_column + e * tile.columns;
            bool there = at < c.to && i < a.wv;
            v[u][e] = there ? c.v_d[(at - c.from) * c.ldv + tile.h * c.v_stride + i] : 0.0f;
        }
        FERRY_UNROLL
        for (int r = 0; r < THREAD_ROWS; r++) {
            float4 w = *(const float4 *)(weights + (first + r) * LD + j);
            FERRY_UNROLL
            for (int e = 0; e < 4; e++) {
                float sum = fmaf(w.x, v[0][e], acc[r][e]);
                sum = fmaf(w.y, v[1][e], sum);
                acc[r][e] = fmaf(w.w, v[3][e], fmaf(w.z, v[2][e], sum));
            }
        }
    }
}

/* The sums of earlier chunks come from o, or go there. */
static __device__ void carry(const fr_gpu_attn_args &a, const fr_gpu_attn_chunk &c,
                             const Tile &tile, bool put, const float *sums,
                             float (&acc)[THREAD_ROWS][4])
{
    FERRY_UNROLL
    for (int r = 0; r < THREAD_ROWS; r++) {
        int64_t row = tile.group * THREAD_ROWS + r, t = tile.t0 + row;
        float divisor = c.last ? sums[row] : 1.0f;
        FERRY_UNROLL
        for (int e = 0; e < 4; e++) {
            int64_t i = tile.lane_column + e * tile.columns;
            bool there = t < a.n_tokens && i < a.wv;
            float *o = a.o_d + t * a.ldo + tile.h * a.o_stride + i;
            if (put && there)
                *o = acc[r][e] / divisor;
            else if (!put)
                acc[r][e] = there && !c.first ? *o : 0.0f;
        }
    }
}

static __global__ void __launch_bounds__(MAX_BLOCK)
    attend_chunk(fr_gpu_attn_args a, fr_gpu_attn_chunk c, int64_t columns)
{
    FERRY_SHARED(float, q, [MAX_TILE * LD]);
    FERRY_SHARED(float, k, [STEP * LD]);
    FERRY_SHARED(float, scores, [MAX_TILE * LD]);
    FERRY_SHARED(float, most, [MAX_TILE]);
    FERRY_SHARED(float, sums, [MAX_TILE]);
    FERRY_SHARED(float, shrinks, [MAX_TILE]);
    float acc[THREAD_ROWS][4];
    Tile tile;
    tile.columns = (int)columns;
    tile.lane_column = (int)(threadIdx.x % columns);
    tile.group = (int)(threadIdx.x / columns);
    tile.n_tokens = (int)(blockDim.x / columns) * THREAD_ROWS;
    /* the last tokens have the most work and come first */
    tile.t0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * tile.n_tokens;
    tile.h = blockIdx.y;
    int64_t end = a.pos0 + tile.t0 + tile.n_tokens;
    end = end < a.pos0 + a.n_tokens ? end : a.pos0 + a.n_tokens;
    end = end < c.to ? end : c.to;
    for (int r = threadIdx.x; r < tile.n_tokens; r += blockDim.x) {
        int64_t t = tile.t0 + r;
        const float *state =
            a.n_tokens > t && !c.first ? c.state_d + (t * a.n_heads + tile.h) * 2 : nullptr;
        most[r] = state ? state[0] : -INFINITY;
        sums[r] = state ? state[1] : 0.0f;
    }
    carry(a, c, tile, false, sums, acc);
    for (int64_t p = c.from; p < end; p += STEP) {
        score_step(a, c, tile, p, q, k, scores);
        __syncthreads();
        weigh_step(a, c, tile, p, scores, most, sums, shrinks);
        __syncthreads();
        add_step(a, c, tile, p, scores, shrinks, acc);
    }
    __syncthreads();
    carry(a, c, tile, true, sums, acc);
    for (int r = threadIdx.x; r < tile.n_tokens && !c.last; r += blockDim.x)
        if (tile.t0 + r < a.n_tokens) {
            float *state = c.state_d + ((tile.t0 + r) * a.n_heads + tile.h) * 2;
            state[0] = most[r];
            state[1] = sums[r];
        }
}

cudaError_t launch_attn_expanded(const fr_gpu_attn_args &a, const fr_gpu_attn_chunk &c,
                                 cudaStream_t stream)
{
    unsigned block = MAX_BLOCK / 2, columns = WARP;
    while (columns * 4 < (unsigned)a.wv)
        columns *= 2;
    if (columns > MAX_BLOCK || c.from % STEP != 0 || a.n_heads > GRID_MOST)
        return cudaErrorInvalidValue;
    if (a.n_tokens <= 0)
        return cudaSuccess;
    block = block > columns ? block : columns;
    int64_t tile = block / columns * THREAD_ROWS;
    dim3 grid((unsigned)((a.n_tokens + tile - 1) / tile), (unsigned)a.n_heads);
    return FERRY_LAUNCH(attend_chunk, grid, dim3(block), 0, stream, a, c, (int64_t)columns);
}

} // namespace FERRY_GPU_NS
