/* Attention from the KV cache, reading its rows in place.
 *
 * Queries that meet the same rows stand together: up to 16 heads of a token on the latent cache,
 * neighbouring tokens of one head elsewhere. A block of threads goes through the positions in steps
 * of 32: scores (a warp takes four positions at a time and all queries, its lanes four numbers each
 * of every row), weights with a running maximum (Milakov and Gimelshein 2018, "Online normalizer
 * calculation for softmax"), weighted sums in registers (a thread has four columns of all queries).
 *
 * A token's positions are cut into spans, which depend on its own position only. Each span has a
 * softmax of its own, and they are folded in order. So it makes no difference to the result whether
 * one block goes through all spans of a token, or, for few tokens and long caches, every span has a
 * block of its own and a second kernel folds (Dao et al. 2023, "Flash-Decoding"). */
#include <type_traits>

#include "cuda/kv_rows.cuh"

namespace FERRY_GPU_NS
{

enum {
    BLOCK = 128,
    MAX_BLOCK = 256,
    FOLD_BLOCK = 128,
    ENOUGH_BLOCKS = 256,        /* that many keep a GPU busy without cutting at spans */
    MAX_QUERY_BYTES = 64 << 10, /* of a block, in shared memory */
};
static constexpr int STEP = 32; /* positions; what windows and spans are multiples of */
static constexpr int64_t MIN_SPAN = 64, MAX_SPANS = FR_GPU_ATTN_SPANS;

/* Positions of a span of a token that sees n_pos of them. It only changes where n_pos passes a
 * multiple of 32 steps. */
static __device__ __host__ __forceinline__ int64_t span_of(int64_t n_pos)
{
    int64_t steps = (n_pos + MAX_SPANS * STEP - 1) / (MAX_SPANS * STEP);
    return steps * STEP > MIN_SPAN ? steps * STEP : MIN_SPAN;
}

/* ---- which queries a block has -------------------------------------------------------------- */

/* How a grid is laid out: along x groups of tokens, times n_spans where spans have blocks of their
 * own; along y heads, or groups of heads. */
struct AttnGrid {
    int64_t by_tokens; /* rows are tokens of one head; else heads of one token */
    int64_t first;     /* group of the first token, when groups are counted from position 0 */
    int64_t n_spans;   /* 0: a block goes through all */
    float *sums_d, *states_d; /* of spans */
};

/* Rows of a block: row r is token t + by_tokens * r, head h + !by_tokens * r; some may lie outside.
 * Groups of tokens start at multiples of their size, counted from position 0, so that all tokens of
 * one have the same spans and end in the same step. */
struct Rows {
    int64_t t, h, n_tokens, n_heads;
    int by_tokens;

    __device__ __forceinline__ int64_t token(int r) const
    {
        return t + by_tokens * r;
    }
    __device__ __forceinline__ int64_t head(int r) const
    {
        return h + !by_tokens * r;
    }
    __device__ __forceinline__ bool has(int r) const
    {
        return token(r) >= 0 && token(r) < n_tokens && head(r) < n_heads;
    }
};

template <int ROWS>
static __device__ __forceinline__ Rows rows_of(const fr_gpu_attn_args &a, const AttnGrid &g)
{
    int64_t group = blockIdx.x;
    group = g.n_spans > 0 ? group / g.n_spans : group;
    Rows rows = {group, (int64_t)blockIdx.y, a.n_tokens, a.n_heads, (int)g.by_tokens};
    if (g.by_tokens)
        rows.t = (g.first + group) * ROWS - a.pos0;
    else
        rows.h *= ROWS;
    return rows;
}

/* ---- rows of the cache ---------------------------------------------------------------------- */

/* Where a row stands; lowest bit: it is exact. Rows are aligned to two bytes at least. */
typedef uint64_t RowAt;

static __device__ __forceinline__ RowAt find_row(const fr_gpu_kv &kv, int64_t p, int64_t beyond,
                                                 int64_t head)
{
    int64_t h = kv.per_pos > 1 ? head : 0;
    const float *exact = exact_row(kv, p, beyond, h);
    return exact ? (RowAt)(uintptr_t)exact | 1 : (RowAt)(uintptr_t)cache_row(kv, p, h);
}

static __device__ __forceinline__ const uint8_t *row_bytes_at(RowAt at)
{
    return (const uint8_t *)(uintptr_t)(at & ~(RowAt)1);
}

/* Reading numbers i .. i + 3 of four rows at a time: of the cache type C, whose rows are aligned.
 */
template <class C> struct Aligned {
    static __device__ __forceinline__ void load(const fr_gpu_kv &, const RowAt (&row)[4], int i,
                                                float4 (&out)[4])
    {
        if (!((row[0] | row[1] | row[2] | row[3]) & 1)) {
            FERRY_UNROLL
            for (int u = 0; u < 4; u++)
                out[u] = C::four(row_bytes_at(row[u]), i);
            return;
        }
        FERRY_UNROLL
        for (int u = 0; u < 4; u++)
            out[u] = row[u] & 1 ? CacheF32::four(row_bytes_at(row[u]), i)
                                : C::four(row_bytes_at(row[u]), i);
    }
};

/* Of any type, width and alignment. */
struct Odd {
    static __device__ float number(const fr_gpu_kv &kv, RowAt row, int i)
    {
        if (i >= kv.stored)
            return 0.0f;
        return row & 1 ? CacheF32::at(row_bytes_at(row), i)
                       : cache_number(kv.type, row_bytes_at(row), i);
    }
    static __device__ void load(const fr_gpu_kv &kv, const RowAt (&row)[4], int i, float4 (&out)[4])
    {
        for (int u = 0; u < 4; u++)
            out[u] = make_float4(number(kv, row[u], i), number(kv, row[u], i + 1),
                                 number(kv, row[u], i + 2), number(kv, row[u], i + 3));
    }
};

/* Rows of positions j .. j + 3 of a step of n; the last stands in for those beyond. */
static __device__ __forceinline__ void four_rows(const RowAt *at, int j, int n, RowAt (&row)[4])
{
    FERRY_UNROLL
    for (int u = 0; u < 4; u++)
        row[u] = at[j + u < n ? j + u : n - 1];
}

/* ---- a step of positions -------------------------------------------------------------------- */

/* Sums over the lanes, by the tree of warp_sum, of four numbers at once: lane 8 u has that of v[u].
 */
static __device__ __forceinline__ float warp_sum_four(const float (&v)[4])
{
    bool upper = threadIdx.x & 16, odd = threadIdx.x & 8;
    float a = upper ? v[2] : v[0], b = upper ? v[3] : v[1];
    float give_a = upper ? v[0] : v[2], give_b = upper ? v[1] : v[3];
    a += __shfl_xor_sync(ALL_LANES, give_a, 16);
    b += __shfl_xor_sync(ALL_LANES, give_b, 16);
    float sum = odd ? b : a, give = odd ? a : b;
    sum += __shfl_xor_sync(ALL_LANES, give, 8);
    sum += __shfl_xor_sync(ALL_LANES, sum, 4);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    return sum + __shfl_xor_sync(ALL_LANES, sum, 1);
}

/* scores[r * STEP + j]: of n positions. */
template <class Read, int ROWS>
static __device__ __forceinline__ void score_step(const fr_gpu_kv &k, const RowAt *at, int n,
                                                  const float *q, int width, float scale,
                                                  float *scores)
{
    int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    for (int j = threadIdx.x / WARP * 4; j < n; j += warps * 4) {
        RowAt row[4];
        float sums[ROWS][4] = {};
        four_rows(at, j, n, row);
        for (int i = lane * 4; i < width; i += WARP * 4) {
            float4 x[4];
            Read::load(k, row, i, x);
            FERRY_UNROLL
            for (int r = 0; r < ROWS; r++) {
                float4 y = *(const float4 *)(q + r * width + i);
                FERRY_UNROLL
                for (int u = 0; u < 4; u++)
                    sums[r][u] = dot_four(y, x[u], sums[r][u]);
            }
        }
        __syncwarp();
        FERRY_UNROLL
        for (int r = 0; r < ROWS; r++) {
            float sum = warp_sum_four(sums[r]);
            if (lane % 8 == 0)
                scores[r * STEP + j + lane / 8] = sum * scale;
        }
    }
}

/* What a block knows of its rows' softmax, in shared memory. */
template <int ROWS> struct Softmax {
    float most[ROWS], sum[ROWS];             /* of the span */
    float shrink[ROWS];                      /* of the step */
    float total_most[ROWS], total_sum[ROWS]; /* of the spans before */
};

/* Scores of the step at p, of n positions, become weights: for rows [from, to), 0 for others. */
template <int ROWS>
static __device__ __forceinline__ void weigh_step(const Rows &rows, int64_t pos0, int64_t p, int n,
                                                  int from, int to, float *scores, Softmax<ROWS> &s)
{
    int lane = threadIdx.x % WARP;
    for (int r = threadIdx.x / WARP; r < ROWS; r += blockDim.x / WARP) {
        bool seen = r >= from && r < to && lane < n && p + lane <= pos0 + rows.token(r);
        float before = s.most[r], score = seen ? scores[r * STEP + lane] : -INFINITY;
        float now = fmaxf(before, warp_max(score));
        float weight = seen ? expf(score - now) : 0.0f;
        float shrink = now > before ? expf(before - now) : 1.0f, sum = warp_sum(weight);
        scores[r * STEP + lane] = weight;
        __syncwarp(); /* all have read what now changes */
        if (lane == 0) {
            s.most[r] = now;
            s.sum[r] = s.sum[r] * shrink + sum;
            s.shrink[r] = shrink;
        }
    }
}

/* The threads that own columns: `columns` / 4 neighbours have all of a row, and there are as many
 * groups of them as the block has room for, which take turns at four positions. */
struct Owner {
    int column, group, n_groups, threads; /* of a group */
};

static __device__ __forceinline__ Owner owner_of(int wv)
{
    int threads = WARP;
    while (threads * 4 < wv)
        threads *= 2;
    int me = (int)threadIdx.x;
    return {me % threads * 4, me / threads, (int)blockDim.x / threads, threads};
}

template <class Read, int ROWS>
static __device__ __forceinline__ void add_step(const fr_gpu_kv &v, const RowAt *at, int n,
                                                const Owner &own, int wv, const float *weights,
                                                const Softmax<ROWS> &s, float4 (&acc)[ROWS])
{
    if (own.column >= wv)
        return;
    FERRY_UNROLL
    for (int r = 0; r < ROWS; r++) {
        float f = s.shrink[r];
        acc[r] = make_float4(acc[r].x * f, acc[r].y * f, acc[r].z * f, acc[r].w * f);
    }
    for (int j = own.group * 4; j < n; j += own.n_groups * 4) {
        RowAt row[4];
        float4 x[4];
        four_rows(at, j, n, row);
        Read::load(v, row, own.column, x);
        FERRY_UNROLL
        for (int r = 0; r < ROWS; r++) {
            float4 w = *(const float4 *)(weights + r * STEP + j);
            add_scaled(acc[r], w.x, x[0]);
            add_scaled(acc[r], w.y, x[1]);
            add_scaled(acc[r], w.z, x[2]);
            add_scaled(acc[r], w.w, x[3]);
        }
    }
}

/* ---- spans ---------------------------------------------------------------------------------- */

/* How two softmaxes become one: the sums of the first times `old` plus those of the second times
 * `fresh`. Nothing is folded into nothing: then the second counts as it is. */
struct Fold {
    float most, old, fresh, sum;

    __device__ __forceinline__ Fold(float most1, float sum1, float most2, float sum2)
    {
        most = fmaxf(most1, most2);
        old = most > most1 ? expf(most1 - most) : 1.0f;
        fresh = most > most2 ? expf(most2 - most) : 1.0f;
        sum = sum1 * old + sum2 * fresh;
    }
};

/* Group 0 gets the sums of all groups, for one row. */
static __device__ __forceinline__ float4 merge_groups(const Owner &own, float4 mine, float *part)
{
    if (own.n_groups == 1)
        return mine;
    float4 *parts = (float4 *)part;
    __syncthreads();
    parts[threadIdx.x] = mine;
    __syncthreads();
    for (int g = 1; own.group == 0 && g < own.n_groups; g++)
        add_scaled(mine, 1.0f, parts[g * own.threads + threadIdx.x]);
    return mine;
}

static __device__ __forceinline__ float part_of(const float4 &v, int e)
{
    return e == 0 ? v.x : e == 1 ? v.y : e == 2 ? v.z : v.w;
}

/* A span ends: its sums go into o, divided when it was the last one of the token. */
template <int ROWS>
static __device__ __forceinline__ void fold_span(const fr_gpu_attn_args &a, const Rows &rows,
                                                 const Owner &own, bool first, bool last,
                                                 Softmax<ROWS> &s, float *part, float4 (&acc)[ROWS])
{
    FERRY_UNROLL
    for (int r = 0; r < ROWS; r++) {
        acc[r] = merge_groups(own, acc[r], part);
        Fold f(s.total_most[r], s.total_sum[r], s.most[r], s.sum[r]);
        float *o = a.o_d + rows.token(r) * a.ldo + rows.head(r) * a.o_stride + own.column;
        for (int e = 0; e < 4 && own.group == 0 && own.column + e < a.wv && rows.has(r); e++) {
            float v = f.fresh * part_of(acc[r], e);
            v = first ? v : fmaf(o[e], f.old, v);
            o[e] = last ? v / f.sum : v;
        }
        acc[r] = make_float4(0, 0, 0, 0);
    }
    __syncthreads();
    int r = threadIdx.x;
    if (r < ROWS) {
        Fold f(s.total_most[r], s.total_sum[r], s.most[r], s.sum[r]);
        s.total_most[r] = f.most;
        s.total_sum[r] = f.sum;
        s.most[r] = -INFINITY;
        s.sum[r] = 0.0f;
    }
}

/* A span that has a block of its own: its sums go to the second kernel. */
template <int ROWS>
static __device__ __forceinline__ void
put_span(const fr_gpu_attn_args &a, const AttnGrid &g, const Rows &rows, int64_t i_span,
         const Owner &own, const Softmax<ROWS> &s, float *part, float4 (&acc)[ROWS])
{
    FERRY_UNROLL
    for (int r = 0; r < ROWS; r++) {
        acc[r] = merge_groups(own, acc[r], part);
        int64_t at = (rows.token(r) * a.n_heads + rows.head(r)) * g.n_spans + i_span;
        for (int e = 0; e < 4 && own.group == 0 && own.column + e < a.wv && rows.has(r); e++)
            g.sums_d[at * a.wv + own.column + e] = part_of(acc[r], e);
    }
    int r = threadIdx.x;
    if (r < ROWS && rows.has(r)) {
        float *state =
            g.states_d + ((rows.token(r) * a.n_heads + rows.head(r)) * g.n_spans + i_span) * 2;
        state[0] = s.most[r];
        state[1] = s.sum[r];
    }
}

/* ---- the kernel ----------------------------------------------------------------------------- */

template <int ROWS>
static __device__ __forceinline__ void load_queries(const fr_gpu_attn_args &a, const Rows &rows,
                                                    int width, float *q)
{
    for (int i = threadIdx.x; i < ROWS * width; i += blockDim.x) {
        int r = i / width, j = i % width;
        float x = 0.0f;
        if (rows.has(r) && j < a.w1)
            x = a.q1_d[rows.token(r) * a.ldq1 + rows.head(r) * a.q1_stride + j];
        else if (rows.has(r) && j < a.w1 + a.w2)
            x = a.q2_d[rows.token(r) * a.ldq2 + rows.head(r) * a.q2_stride + j - a.w1];
        q[i] = x;
    }
}

template <class Read, int ROWS>
__global__ void __launch_bounds__(MAX_BLOCK, 1) attend(fr_gpu_attn_args a, AttnGrid g)
{
    FERRY_SHARED_DYN(float, q);
    FERRY_SHARED(RowAt, k_at, [STEP]);
    FERRY_SHARED(RowAt, v_at, [STEP]);
    FERRY_SHARED(Softmax<ROWS>, states, [1]);
    Softmax<ROWS> &s = states[0];
    int width = (int)(a.w1 + a.w2 + 3) / 4 * 4, me = (int)threadIdx.x;
    float *scores = q + ROWS * width, *part = scores + ROWS * STEP;
    Rows rows = rows_of<ROWS>(a, g);
    int64_t first = a.pos0 + (rows.t > 0 ? rows.t : 0), last = first; /* positions of tokens */
    if (g.by_tokens) {
        last = a.pos0 + rows.t + ROWS - 1;
        last = last < a.pos0 + a.n_tokens ? last : a.pos0 + a.n_tokens - 1;
    }
    int64_t span = span_of(last + 1), from = 0, to = last + 1, i_span = 0;
    if (g.n_spans > 0) {
        i_span = blockIdx.x % g.n_spans;
        from = i_span * span;
        to = from + span < to ? from + span : to;
        if (from >= to)
            return; /* this token has fewer spans */
    }
    load_queries<ROWS>(a, rows, width, q);
    if (me < ROWS) {
        s.most[me] = s.total_most[me] = -INFINITY;
        s.sum[me] = s.total_sum[me] = 0.0f;
    }
    Owner own = owner_of(a.wv);
    float4 acc[ROWS] = {};
    int64_t next = from + span;
    for (int64_t p = from; p < to; p += STEP) {
        int n = (int)(to - p < STEP ? to - p : STEP);
        if (p == next) {
            fold_span<ROWS>(a, rows, own, next == span, false, s, part, acc);
            next += span;
        }
        /* near the border of the exact window, tokens read different rows: one by one */
        bool mixed = a.k.window > 0 && p + STEP - 1 > first - a.k.window &&
                     p <= last - a.k.window && first < last;
        for (int r = 0; r < ROWS; r += mixed ? 1 : ROWS) {
            int64_t beyond = a.pos0 + rows.token(r) - a.k.window;
            if (mixed && !rows.has(r))
                continue;
            __syncthreads();
            if (me < n)
                k_at[me] = find_row(a.k, p + me, mixed ? beyond : first - a.k.window, rows.h);
            else if (me >= STEP && me < STEP + n)
                v_at[me - STEP] =
                    find_row(a.v, p + me - STEP, mixed ? beyond : first - a.k.window, rows.h);
            __syncthreads();
            score_step<Read, ROWS>(a.k, k_at, n, q, width, a.scale, scores);
            __syncthreads();
            weigh_step<ROWS>(rows, a.pos0, p, n, r, mixed ? r + 1 : ROWS, scores, s);
            __syncthreads();
            add_step<Read, ROWS>(a.v, v_at, n, own, a.wv, scores, s, acc);
        }
    }
    if (g.n_spans > 0)
        put_span<ROWS>(a, g, rows, i_span, own, s, part, acc);
    else
        fold_span<ROWS>(a, rows, own, next == span, true, s, part, acc);
}

/* A block a (token, head): its spans, in order. */
static __global__ void __launch_bounds__(FOLD_BLOCK) fold_spans(fr_gpu_attn_args a, AttnGrid g)
{
    int64_t t = blockIdx.x, h = blockIdx.y, n_pos = a.pos0 + t + 1, span = span_of(n_pos);
    int64_t n = (n_pos + span - 1) / span, at = (t * a.n_heads + h) * g.n_spans;
    const float *state = g.states_d + at * 2;
    for (int64_t i = threadIdx.x; i < a.wv; i += FOLD_BLOCK) {
        const float *sums = g.sums_d + at * a.wv + i;
        float most = -INFINITY, sum = 0.0f, v = 0.0f;
        for (int64_t k = 0; k < n; k++) {
            Fold f(most, sum, state[2 * k], state[2 * k + 1]);
            float fresh = f.fresh * sums[k * a.wv];
            v = k == 0 ? fresh : fmaf(v, f.old, fresh);
            most = f.most;
            sum = f.sum;
        }
        a.o_d[t * a.ldo + h * a.o_stride + i] = v / sum;
    }
}

/* ---- launching ------------------------------------------------------------------------------ */

/* Tokens from t on, n of them. */
static fr_gpu_attn_args some_tokens(const fr_gpu_attn_args &a, int64_t t, int64_t n)
{
    fr_gpu_attn_args b = a;
    b.n_tokens = n;
    b.pos0 += t;
    b.q1_d += t * a.ldq1;
    b.q2_d = a.q2_d ? a.q2_d + t * a.ldq2 : nullptr;
    b.o_d += t * a.ldo;
    return b;
}

static int64_t pieces(int64_t n, int64_t piece)
{
    return (n + piece - 1) / piece;
}

template <class Read, int ROWS>
static cudaError_t start(const fr_gpu_attn_args &a, const AttnGrid &g, dim3 grid,
                         cudaStream_t stream)
{
    unsigned block = a.wv > BLOCK * 4 ? MAX_BLOCK : BLOCK;
    size_t floats = ROWS * ((size_t)(a.w1 + a.w2 + 3) / 4 * 4 + STEP) + block * 4;
    cudaError_t e = cudaSuccess;
    if (floats * sizeof(float) > 40 << 10)
        e = cudaFuncSetAttribute((attend<Read, ROWS>), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(floats * sizeof(float)));
    if (e != cudaSuccess)
        return e;
    return FERRY_LAUNCH((attend<Read, ROWS>), grid, dim3(block), floats * sizeof(float), stream, a,
                        g);
}

/* Every span in a block of its own, for as many tokens at a time as the scratch has room for. */
template <class Read, int ROWS>
static cudaError_t attend_spans(const fr_gpu_attn_args &a, cudaStream_t stream)
{
    int64_t room = (int64_t)(a.scratch_bytes / fr_gpu_attn_scratch_bytes(1, a.n_heads, a.wv));
    for (int64_t t = 0; t < a.n_tokens; t += room) {
        int64_t n = a.n_tokens - t < room ? a.n_tokens - t : room;
        fr_gpu_attn_args b = some_tokens(a, t, n);
        AttnGrid g = {};
        g.n_spans = pieces(b.pos0 + n, MIN_SPAN);
        g.n_spans = g.n_spans < MAX_SPANS ? g.n_spans : MAX_SPANS;
        g.sums_d = (float *)a.scratch_d;
        g.states_d = g.sums_d + n * a.n_heads * g.n_spans * a.wv;
        dim3 grid((unsigned)(n * g.n_spans), (unsigned)pieces(a.n_heads, ROWS));
        cudaError_t e = start<Read, ROWS>(b, g, grid, stream);
        if (e == cudaSuccess)
            e = FERRY_LAUNCH(fold_spans, dim3((unsigned)n, (unsigned)a.n_heads), dim3(FOLD_BLOCK),
                             0, stream, b, g);
        if (e != cudaSuccess)
            return e;
    }
    return cudaSuccess;
}

template <class Read, int ROWS>
static cudaError_t attend_tokens(const fr_gpu_attn_args &a, cudaStream_t stream)
{
    AttnGrid g = {};
    dim3 grid((unsigned)a.n_tokens, (unsigned)pieces(a.n_heads, ROWS));
    if (a.k.per_pos > 1) {
        g.by_tokens = 1;
        g.first = a.pos0 / ROWS;
        grid =
            dim3((unsigned)((a.pos0 + a.n_tokens - 1) / ROWS - g.first + 1), (unsigned)a.n_heads);
    }
    return start<Read, ROWS>(a, g, grid, stream);
}

/* Whether cutting at spans makes a grid that is worth it. */
static bool wants_spans(const fr_gpu_attn_args &a)
{
    int64_t rows = a.k.per_pos == 1 ? 16 : 1;
    return a.pos0 + a.n_tokens > MIN_SPAN && a.scratch_d &&
           a.scratch_bytes >= fr_gpu_attn_scratch_bytes(1, a.n_heads, a.wv) &&
           a.n_tokens * pieces(a.n_heads, rows) < ENOUGH_BLOCKS;
}

/* The number of rows makes no difference to the result, only to the speed. */
template <class Read>
static cudaError_t attend_with(const fr_gpu_attn_args &a, bool many, cudaStream_t stream)
{
    bool shared = a.k.per_pos == 1, spans = wants_spans(a);
    int64_t n = shared ? a.n_heads : a.n_tokens, fit = MAX_QUERY_BYTES / (4 * (a.w1 + a.w2 + 3));
    if (!shared && spans)
        return attend_spans<Read, 1>(a, stream);
    if constexpr (!std::is_same_v<Read, Odd>) {
        if (many && n >= 8 && fit >= 16)
            return spans ? attend_spans<Read, 16>(a, stream) : attend_tokens<Read, 16>(a, stream);
    }
    if (n >= 2 && fit >= 4)
        return spans ? attend_spans<Read, 4>(a, stream) : attend_tokens<Read, 4>(a, stream);
    return spans ? attend_spans<Read, 1>(a, stream) : attend_tokens<Read, 1>(a, stream);
}

/* Whether rows may be read by vector loads. */
static bool is_aligned(const fr_gpu_kv &kv, int align)
{
    uintptr_t exact = kv.window > 0 ? (uintptr_t)kv.recent_d | (uintptr_t)kv.staged_d : 0;
    return kv.stored % 4 == 0 && ((uintptr_t)kv.base_d | kv.row_bytes) % (size_t)align == 0 &&
           exact % sizeof(float4) == 0;
}

cudaError_t launch_attn(const fr_gpu_attn_args &a, cudaStream_t stream)
{
    fr_gpu_attn_args b = a;
    cudaError_t e = cudaErrorInvalidValue;
    if (!b.v.base_d)
        b.v = b.k;
    if (b.wv > MAX_BLOCK * 4 || b.k.window % STEP != 0 || b.v.window != b.k.window ||
        b.n_heads > GRID_MOST || !with_cache_type(b.v.type, [](auto) {}))
        return e;
    with_cache_type(b.k.type, [&](auto c) {
        typedef decltype(c) C;
        if (b.n_tokens <= 0)
            e = cudaSuccess;
        else if (b.v.type == b.k.type && is_aligned(b.k, C::align) && is_aligned(b.v, C::align))
            e = attend_with<Aligned<C>>(b, true, stream);
        else
            e = attend_with<Odd>(b, false, stream);
    });
    return e;
}

} // namespace FERRY_GPU_NS
