/* The small operations of a forward pass: everything but matrices and attention. */
#include "cuda/device_code.cuh"
#include "cuda/launchers.h"

namespace FERRY_GPU_NS
{

enum { BLOCK = 256 };

/* A block a row; rows go along x, which has room for 2^31 blocks. */
static dim3 row_blocks(int64_t n_rows)
{
    return dim3((unsigned)n_rows);
}

/* ---- normalisation, softmax ----------------------------------------------------------------- */

static __global__ void __launch_bounds__(BLOCK) rms_norm(fr_gpu_norm_args a)
{
    FERRY_SHARED(float, part, [WARP]);
    const float *x = a.x_d + blockIdx.x * a.ldx;
    float *y = a.y_d + blockIdx.x * a.ldy;
    float sum = 0;
    for (int64_t i = threadIdx.x; i < a.cols; i += BLOCK)
        sum = fmaf(x[i], x[i], sum);
    sum = block_sum<BLOCK>(sum, part);
    float factor = 1.0f / sqrtf(sum / (float)a.cols + a.eps);
    for (int64_t i = threadIdx.x; i < a.cols; i += BLOCK)
        y[i] = x[i] * factor * a.w_d[i];
}

cudaError_t code_check()
{
    cudaFuncAttributes found;
    return cudaFuncGetAttributes(&found, (const void *)rms_norm);
}

cudaError_t launch_rms_norm(const fr_gpu_norm_args &a, cudaStream_t stream)
{
    return FERRY_LAUNCH(rms_norm, row_blocks(a.n_tokens), dim3(BLOCK), 0, stream, a);
}

static __global__ void __launch_bounds__(BLOCK) softmax_rows(float *x, int64_t ldx, int64_t cols)
{
    FERRY_SHARED(float, part, [WARP]);
    float *row = x + blockIdx.x * ldx;
    float most = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < cols; i += BLOCK)
        most = fmaxf(most, row[i]);
    most = block_max<BLOCK>(most, part);
    for (int64_t i = threadIdx.x; i < cols; i += BLOCK)
        sum += row[i] = expf(row[i] - most);
    sum = block_sum<BLOCK>(sum, part);
    for (int64_t i = threadIdx.x; i < cols; i += BLOCK)
        row[i] /= sum;
}

cudaError_t launch_softmax(float *x, int64_t ldx, int64_t n_rows, int64_t cols, cudaStream_t stream)
{
    return FERRY_LAUNCH(softmax_rows, row_blocks(n_rows), dim3(BLOCK), 0, stream, x, ldx, cols);
}

/* ---- rotary embedding ----------------------------------------------------------------------- */

/* A thread a pair of a token; it turns the pair of every head. The angle is computed in double: at
 * position 10^5 a float has no digits left behind the point. */
static __global__ void rope_pairs(fr_gpu_rope_args a)
{
    int64_t t = blockIdx.x, i = threadIdx.x;
    float c, s;
    if (a.turns_d) {
        c = a.turns_d[t * a.n_rot + 2 * i];
        s = a.turns_d[t * a.n_rot + 2 * i + 1];
    } else {
        double angle = (double)(a.pos0 + t) * a.freqs_d[i];
        c = (float)cos(angle);
        s = (float)sin(angle);
    }
    for (int64_t h = threadIdx.y; h < a.n_heads; h += blockDim.y) {
        float *x = a.x_d + t * a.ldx + h * a.stride + 2 * i;
        float x0 = x[0], x1 = x[1];
        x[0] = x0 * c - x1 * s;
        x[1] = x0 * s + x1 * c;
    }
}

cudaError_t launch_rope(const fr_gpu_rope_args &a, cudaStream_t stream)
{
    unsigned pairs = (unsigned)(a.n_rot / 2), heads = 1;
    if (a.n_rot < 2 || pairs > 1024)
        return cudaErrorInvalidValue;
    while (heads < a.n_heads && pairs * (heads + 1) <= BLOCK)
        heads++;
    return FERRY_LAUNCH(rope_pairs, row_blocks(a.n_tokens), dim3(pairs, heads), 0, stream, a);
}

/* ---- element by element --------------------------------------------------------------------- */

enum { PIECE = 4 * BLOCK }; /* numbers a block; neighbouring threads have neighbouring numbers */

static __global__ void add_numbers(const float *a, const float *b, int64_t n, float *y)
{
    int64_t first = (int64_t)blockIdx.x * PIECE + threadIdx.x;
    for (int64_t i = first; i < first + PIECE && i < n; i += BLOCK)
        y[i] = a[i] + b[i];
}

static __global__ void swiglu_numbers(const float *gate, const float *up, int64_t n, float *y)
{
    int64_t first = (int64_t)blockIdx.x * PIECE + threadIdx.x;
    for (int64_t i = first; i < first + PIECE && i < n; i += BLOCK)
        y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static __global__ void scale_numbers(const float *x, float factor, int64_t n, float *y)
{
    int64_t first = (int64_t)blockIdx.x * PIECE + threadIdx.x;
    for (int64_t i = first; i < first + PIECE && i < n; i += BLOCK)
        y[i] = factor * x[i];
}

static dim3 piece_blocks(int64_t n)
{
    return dim3((unsigned)((n + PIECE - 1) / PIECE));
}

cudaError_t launch_add(const float *a, const float *b, int64_t n, float *y, cudaStream_t stream)
{
    return FERRY_LAUNCH(add_numbers, piece_blocks(n), dim3(BLOCK), 0, stream, a, b, n, y);
}

cudaError_t launch_swiglu(const float *gate, const float *up, int64_t n, float *y,
                          cudaStream_t stream)
{
    return FERRY_LAUNCH(swiglu_numbers, piece_blocks(n), dim3(BLOCK), 0, stream, gate, up, n, y);
}

cudaError_t launch_scale(const float *x, float factor, int64_t n, float *y, cudaStream_t stream)
{
    return FERRY_LAUNCH(scale_numbers, piece_blocks(n), dim3(BLOCK), 0, stream, x, factor, n, y);
}

/* ---- router: a warp a token ----------------------------------------------------------------- */

/* Scores of the logits in shared memory, by all lanes. */
static __device__ void score(const fr_gpu_router_args &a, const float *logits, float *scores)
{
    int lane = threadIdx.x;
    float most = -INFINITY;
    double sum = 0;
    for (int64_t i = lane; i < a.n_expert; i += WARP)
        most = fmaxf(most, logits[i]);
    most = warp_max(most);
    for (int64_t i = lane; i < a.n_expert; i += WARP) {
        scores[i] = a.sigmoid ? 1.0f / (1.0f + expf(-logits[i])) : expf(logits[i] - most);
        sum += (double)scores[i];
    }
    sum = warp_sum(sum);
    for (int64_t i = lane; i < a.n_expert && !a.sigmoid; i += WARP)
        scores[i] = (float)((double)scores[i] / sum);
    __syncwarp();
}

/* A group's best, or the sum of its two best. */
static __device__ float judge_group(const float *choice, int64_t n, bool best_two)
{
    float first = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return best_two && n > 1 ? first + second : first;
}

/* Bars the experts of all but the best groups: their choice becomes NaN, which never wins. */
static __device__ void bar_groups(const fr_gpu_router_args &a, float *choice, float *judged)
{
    int64_t per = a.n_expert / a.n_groups;
    for (int64_t g = threadIdx.x; g < a.n_groups; g += WARP)
        judged[g] = judge_group(choice + g * per, per, a.bias_d != nullptr);
    __syncwarp();
    for (int64_t g = threadIdx.x; g < a.n_groups; g += WARP) {
        int64_t n_better = 0;
        for (int64_t o = 0; o < a.n_groups; o++)
            n_better += judged[o] > judged[g] || (judged[o] == judged[g] && o < g);
        for (int64_t i = 0; i < per && n_better >= a.n_groups_used; i++)
            choice[g * per + i] = NAN;
    }
    __syncwarp();
}

/* Whether (v, i) goes before (w, j); index -1: nobody. */
static __device__ bool goes_before(float v, int i, float w, int j)
{
    if (i < 0 || j < 0)
        return i >= 0;
    return v > w || (v == w && i < j);
}

/* The best of those left, or the first expert not taken when all are NaN. */
static __device__ int elect(const fr_gpu_router_args &a, const float *choice, const uint8_t *taken)
{
    int best = -1, any = 1 << 30;
    float value = 0;
    for (int64_t i = threadIdx.x; i < a.n_expert; i += WARP) {
        if (taken[i])
            continue;
        any = any < (int)i ? any : (int)i;
        if (!isnan(choice[i]) && goes_before(choice[i], (int)i, value, best)) {
            best = (int)i;
            value = choice[i];
        }
    }
    for (int d = WARP / 2; d > 0; d /= 2) {
        float v = __shfl_xor_sync(ALL_LANES, value, d);
        int i = __shfl_xor_sync(ALL_LANES, best, d), n = __shfl_xor_sync(ALL_LANES, any, d);
        any = any < n ? any : n;
        if (goes_before(v, i, value, best)) {
            best = i;
            value = v;
        }
    }
    return best >= 0 ? best : any;
}

static __global__ void __launch_bounds__(WARP) route(fr_gpu_router_args a)
{
    FERRY_SHARED(float, scores, [FR_GPU_MAX_EXPERTS]);
    FERRY_SHARED(float, choice, [FR_GPU_MAX_EXPERTS]);
    FERRY_SHARED(float, judged, [FR_GPU_MAX_EXPERTS]);
    FERRY_SHARED(uint8_t, taken, [FR_GPU_MAX_EXPERTS]);
    int64_t t = blockIdx.x;
    int32_t *ids = a.ids_d + t * a.n_used;
    float *weights = a.weights_d + t * a.n_used;
    score(a, a.logits_d + t * a.n_expert, scores);
    for (int64_t i = threadIdx.x; i < a.n_expert; i += WARP) {
        choice[i] = scores[i] + (a.bias_d ? a.bias_d[i] : 0.0f);
        taken[i] = 0;
    }
    __syncwarp();
    if (a.n_groups > 1)
        bar_groups(a, choice, judged);
    double sum = 0;
    for (int64_t k = 0; k < a.n_used; k++) {
        int best = elect(a, choice, taken);
        sum += (double)scores[best];
        __syncwarp();
        if (threadIdx.x == 0) {
            taken[best] = 1;
            ids[k] = best;
        }
        __syncwarp();
    }
    double factor = (double)a.scale / (a.norm ? sum + 1e-20 : 1.0);
    for (int64_t k = threadIdx.x; k < a.n_used; k += WARP)
        weights[k] = (float)((double)scores[ids[k]] * factor);
}

cudaError_t launch_router(const fr_gpu_router_args &a, cudaStream_t stream)
{
    if (a.n_expert > FR_GPU_MAX_EXPERTS || a.n_used > a.n_expert)
        return cudaErrorInvalidValue;
    return FERRY_LAUNCH(route, row_blocks(a.n_tokens), dim3(WARP), 0, stream, a);
}

/* ---- the experts' weighted sum -------------------------------------------------------------- */

static __global__ void __launch_bounds__(BLOCK) mix_rows(fr_gpu_mix_args a)
{
    int64_t t = blockIdx.x;
    const float *x = a.x_d + t * a.n_used * a.cols, *weights = a.weights_d + t * a.n_used;
    for (int64_t i = threadIdx.x; i < a.cols; i += BLOCK) {
        float sum = 0;
        for (int64_t k = 0; k < a.n_used; k++)
            sum = fmaf(weights[k], x[k * a.cols + i], sum);
        float *y = a.y_d + t * a.ldy + i;
        *y = a.add ? *y + sum : sum;
    }
}

cudaError_t launch_mix(const fr_gpu_mix_args &a, cudaStream_t stream)
{
    return FERRY_LAUNCH(mix_rows, row_blocks(a.n_tokens), dim3(BLOCK), 0, stream, a);
}

} // namespace FERRY_GPU_NS
