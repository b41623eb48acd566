/* The GPU backend: everything that C code can ask of GPUs, as a table of functions. No CUDA type
 * escapes. Two tables exist, made from the same sources: the CUDA one, and the simulator's, which
 * runs kernels on the CPU (README.md). A build may hold both, one or none.
 *
 * Pointers ending in _d are device memory, _h host memory that was pinned or registered. Work is
 * put on streams and runs later; functions that block end in _wait. Host memory that enqueued work
 * reads or writes must stay as it is until that work is done. Errors of work that already runs come
 * out of a later call on the same device: FR_EIO, "the device is lost" until device_reset.
 *
 * All functions may be called from any thread, one thread at a time per stream, event and arena. */
#ifndef FR_CUDA_CUDA_H
#define FR_CUDA_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "quant/qtype.h"

typedef struct fr_gpu_stream fr_gpu_stream;
typedef struct fr_gpu_event fr_gpu_event;
typedef struct fr_gpu_arena fr_gpu_arena;
typedef struct fr_gpu_graph fr_gpu_graph;

typedef struct {
    char name[64];
    char bus[16]; /* "0000:65:00.0" */
    uint64_t total_bytes, free_bytes;
    int major, minor; /* compute capability */
    int n_processors, n_copy_engines;
    size_t shared_bytes; /* most of a block */
    size_t l2_bytes;
    double bandwidth;         /* of its memory, bytes a second; 0: not known */
    double f16_ops, int8_ops; /* dense matrix products, operations a second; 0: not known */
    bool usable;              /* new enough, and this build has code for it */
    bool simulated;
    char why_not[126]; /* "" when usable, else "found ..., expected ..." */
} fr_gpu_info;

/* ---- operations -----------------------------------------------------------------------------
 * All values are float32, ids int32. Sizes in elements; ld = distance of the rows of two tokens. */

/* y[i] = row ids_d[i] (NULL: row first + i) of matrix i_mat of w, as floats: decoding, and the
 * embedding. w->data is device memory. */
typedef struct {
    const fr_weight *w;
    int64_t i_mat, first, n_rows;
    const int32_t *ids_d;
    float *y_d;
    int64_t ldy;
} fr_gpu_rows_args;

/* For token t and pick k < n_pick, with m = ids_d[t * n_pick + k] - first (ids_d NULL: m = k,
 * n_pick = n_mat):
 *     y[t * ldy + k * y_stride + r] = dot(row r of matrix m, x[t * ldx + k * x_stride ..])
 * or 0 where m is not in [0, w->n_mat): w may be a slice of the experts. matvec reads a matrix once
 * per (token, pick): for few tokens. matmul reads it once for all tokens. With ids_d it groups the
 * pairs by matrix first (fr_gpu_grouped_scratch_bytes); without, f32, f16 and bf16 weights go to
 * cuBLAS from FR_GPU_CUBLAS_TOKENS tokens on where a machine has it, decoded into scratch_d if they
 * are not plain f32 (fr_gpu_matmul_scratch_bytes; less: ferry's own kernel). Sums are float32 in an
 * order that does not depend on the other tokens, but cuBLAS's may depend on how many there are. */
enum { FR_GPU_CUBLAS_TOKENS = 64 };
typedef struct {
    const fr_weight *w;
    int64_t n_tokens, n_pick;
    const int32_t *ids_d;
    int64_t first;
    const float *x_d;
    int64_t ldx, x_stride;
    float *y_d;
    int64_t ldy, y_stride;
    void *scratch_d; /* matmul: what the functions below say, or more */
    size_t scratch_bytes;
} fr_gpu_matmul_args;

/* Least scratch: FR_GPU_TILE_ROWS rows as floats. More saves launches, up to all rows. */
enum { FR_GPU_TILE_ROWS = 64 };
static inline size_t fr_gpu_matmul_scratch_bytes(const fr_weight *w)
{
    return FR_GPU_TILE_ROWS * (size_t)w->cols * sizeof(float);
}

/* For n_pairs = n_tokens * n_pick: each pair's place, and where each matrix's pairs begin. */
static inline size_t fr_gpu_grouped_scratch_bytes(int64_t n_pairs, int64_t n_mat)
{
    return (size_t)(n_pairs + n_mat + 1) * sizeof(int32_t);
}

/* y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * w_d; y may be x. */
typedef struct {
    const float *x_d, *w_d;
    float *y_d;
    int64_t ldx, ldy, n_tokens;
    int32_t cols;
    float eps;
} fr_gpu_norm_args;

/* Rotates neighbouring pairs of n_heads pieces of n_rot numbers, `stride` apart, in place.
 * Either turns_d (n_tokens x n_rot: cosine, sine of each pair), or, where that is NULL, token t is
 * at pos0 + t and pair i turns by position * freqs_d[i] (n_rot / 2 doubles: YaRN's and other
 * scalings are in the frequencies). */
typedef struct {
    float *x_d;
    int64_t ldx, n_tokens, n_heads, stride, n_rot, pos0;
    const float *turns_d;
    const double *freqs_d;
} fr_gpu_rope_args;

/* As fr_cpu_router_args of cpu/ops.h: scores, choice by score + bias within the best groups, ties
 * to the lower index. n_expert <= FR_GPU_MAX_EXPERTS. */
enum { FR_GPU_MAX_EXPERTS = 1024 };
typedef struct {
    int64_t n_tokens, n_expert, n_used, n_groups, n_groups_used;
    bool sigmoid, norm;
    float scale;
    const float *logits_d; /* n_tokens x n_expert */
    const float *bias_d;   /* n_expert, or NULL */
    int32_t *ids_d;        /* n_tokens x n_used */
    float *weights_d;      /* n_tokens x n_used */
} fr_gpu_router_args;

/* y[t] = sum over ascending k of weights[t * n_used + k] * x[(t * n_used + k) * cols ..]; with add,
 * y[t] += that. */
typedef struct {
    const float *x_d, *weights_d;
    float *y_d;
    int64_t n_tokens, n_used, cols, ldy, add;
} fr_gpu_mix_args;

/* Rows of a cache: position p, head h at base_d + (p * per_pos + (per_pos > 1 ? h : 0)) *
 * row_bytes, `stored` numbers each. Types: F32, F16, BF16, Q8_0.
 *
 * With window > 0 the last positions are kept exact besides, as fr_cpu_kv of cpu/ops.h does: the
 * rows of the running batch (positions pos0 ..) are in staged_d, those of the `window` positions
 * before it that are not before exact_from in the ring recent_d (position p is row p % window).
 * Token at position t reads exact rows for positions > t - window, rounded ones for the rest. */
typedef struct {
    fr_type type;
    int32_t per_pos;
    int64_t stored;
    size_t row_bytes;
    uint8_t *base_d; /* NULL: there are no such rows */
    int64_t window, pos0, exact_from;
    float *recent_d, *staged_d; /* rows of per_pos * stored floats */
} fr_gpu_kv;

/* Writes n_tokens positions from pos0 on: row = [a, b] per head, a of width a_width (heads a_stride
 * apart), b of width b_width shared by all heads, zeros up to `stored`. */
typedef struct {
    const float *a_d, *b_d;
    int64_t lda, a_width, a_stride, ldb, b_width;
    int64_t n_tokens, pos0;
    int32_t *not_finite_d;
    fr_gpu_kv dst;
} fr_gpu_kv_store_args;

/* Causal attention from the cache, token t at position pos0 + t seeing positions 0 .. pos0 + t:
 *     o[t][h] = sum_p softmax_p(scale * (q1[t][h] . k1[p] + q2[t][h] . k2[p])) v[p]
 * k1 = the first w1 numbers of a K row, k2 = the next w2; v = the first wv numbers of the V rows,
 * or of the K rows when v.base_d is NULL: absorbed MLA on the latent cache. wv <= 1024. */
typedef struct {
    int64_t n_tokens, n_heads, pos0;
    int32_t wv;
    float scale;
    const float *q1_d, *q2_d; /* q2_d may be NULL with w2 = 0 */
    int64_t ldq1, q1_stride, ldq2, q2_stride;
    int64_t w1, w2;
    float *o_d;
    int64_t ldo, o_stride;
    fr_gpu_kv k, v;
    void *scratch_d; /* NULL, or what the function below says for one token or more: then few tokens
                        are done by many blocks. The result is the same. */
    size_t scratch_bytes;
} fr_gpu_attn_args;

/* Partial sums of the spans that a token's positions are cut into. */
enum { FR_GPU_ATTN_SPANS = 32 };
static inline size_t fr_gpu_attn_scratch_bytes(int64_t n_tokens, int64_t n_heads, int64_t wv)
{
    return (size_t)(n_tokens * n_heads * FR_GPU_ATTN_SPANS * (wv + 2)) * sizeof(float);
}

/* The same from K and V expanded to floats, for the positions [from, to) only, called chunk after
 * chunk: o and state_d (n_tokens x n_heads x 2) carry the running sums, `first` starts and `last`
 * completes them. As fr_cpu_attn_chunk; k and v of the args are not used. */
typedef struct {
    int64_t from, to, first, last;
    const float *k1_d, *k2_d, *v_d; /* rows of position `from` */
    int64_t ldk1, k1_stride, ldk2, ldv, v_stride;
    float *state_d;
} fr_gpu_attn_chunk;

/* ---- the table ------------------------------------------------------------------------------ */

typedef struct {
    const char *name; /* "cuda", "sim" */

    /* Devices. device_count never fails: without a driver or a device it is 0 and, when asked,
     * *why says so in one line: FR_EUNSUPPORTED for a driver that is too old, else FR_ENOTFOUND. */
    int (*device_count)(fr_err *why);
    fr_status (*device_info)(int device, fr_gpu_info *out, fr_err *err);
    fr_status (*device_wait)(int device, fr_err *err);
    /* For finding faults: every operation then waits until it is done, so that an error names the
     * call that made it. Of all devices. */
    void (*sync_debug)(bool on);
    /* Frees all of the device's memory and clears a lost device; streams and events of it that are
     * still open may only be closed. */
    fr_status (*device_reset)(int device, fr_err *err);
    /* Lets kernels and copies of `device` reach memory of `peer` directly. FR_EUNSUPPORTED when the
     * machine cannot; copy_peer works all the same. */
    fr_status (*peer_enable)(int device, int peer, fr_err *err);

    /* Device memory: an arena takes its whole budget at once, so that what the plan promised is
     * there; blocks are aligned to 256 and live until the arena is closed. FR_ENOMEM names device,
     * budget and what was asked. `what` ("weights") goes into errors and must outlive the arena. */
    fr_status (*arena_open)(int device, size_t bytes, const char *what, fr_gpu_arena **out,
                            fr_err *err);
    fr_status (*arena_alloc)(fr_gpu_arena *a, size_t bytes, void **out_d, fr_err *err);
    size_t (*arena_used)(const fr_gpu_arena *a);
    void (*arena_close)(fr_gpu_arena *a); /* NULL is fine; waits for the device */

    /* Pinned host memory of our own, and pinning of memory that is there (mapped files too). */
    fr_status (*host_alloc)(size_t bytes, void **out_h, fr_err *err);
    void (*host_free)(void *p_h, size_t bytes);
    fr_status (*host_register)(void *p, size_t bytes, fr_err *err);
    void (*host_unregister)(void *p);

    /* Streams belong to a device; what one holds runs in order. */
    fr_status (*stream_open)(int device, fr_gpu_stream **out, fr_err *err);
    void (*stream_close)(fr_gpu_stream *s); /* waits; NULL is fine */
    fr_status (*stream_wait)(fr_gpu_stream *s, fr_err *err);
    fr_status (*stream_done)(fr_gpu_stream *s, bool *done, fr_err *err);
    /* fn runs on another thread's account: it must not call this table. */
    fr_status (*stream_call)(fr_gpu_stream *s, void (*fn)(void *), void *user, fr_err *err);

    /* Events: points in streams, for waiting across streams and devices, and for timing. */
    fr_status (*event_open)(int device, fr_gpu_event **out, fr_err *err);
    void (*event_close)(fr_gpu_event *e);
    fr_status (*event_record)(fr_gpu_event *e, fr_gpu_stream *s, fr_err *err);
    fr_status (*stream_after)(fr_gpu_stream *s, fr_gpu_event *e, fr_err *err);
    fr_status (*event_wait)(fr_gpu_event *e, fr_err *err);
    fr_status (*event_done)(fr_gpu_event *e, bool *done, fr_err *err);
    fr_status (*event_elapsed_us)(fr_gpu_event *from, fr_gpu_event *to, double *us, fr_err *err);

    /* Copies. Host memory that is not pinned is copied in the call (a slow way). */
    fr_status (*copy_in)(void *dst_d, const void *src, size_t bytes, fr_gpu_stream *s, fr_err *err);
    fr_status (*copy_out)(void *dst, const void *src_d, size_t bytes, fr_gpu_stream *s,
                          fr_err *err);
    fr_status (*copy_within)(void *dst_d, const void *src_d, size_t bytes, fr_gpu_stream *s,
                             fr_err *err);
    fr_status (*copy_peer)(void *dst_d, int dst_device, const void *src_d, int src_device,
                           size_t bytes, fr_gpu_stream *s, fr_err *err);
    fr_status (*fill)(void *dst_d, int byte, size_t bytes, fr_gpu_stream *s, fr_err *err);

    /* Graphs: what is enqueued between begin and end is recorded instead of run. Streams that join
     * through events must be waited for by s before the end. */
    fr_status (*capture_begin)(fr_gpu_stream *s, fr_err *err);
    fr_status (*capture_end)(fr_gpu_stream *s, fr_gpu_graph **out, fr_err *err);
    fr_status (*graph_launch)(fr_gpu_graph *g, fr_gpu_stream *s, fr_err *err);
    void (*graph_close)(fr_gpu_graph *g);

    /* Operations. */
    fr_status (*rows)(const fr_gpu_rows_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*matvec)(const fr_gpu_matmul_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*matmul)(const fr_gpu_matmul_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*rms_norm)(const fr_gpu_norm_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*rope)(const fr_gpu_rope_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*router)(const fr_gpu_router_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*mix)(const fr_gpu_mix_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*kv_store)(const fr_gpu_kv_store_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*attn)(const fr_gpu_attn_args *a, fr_gpu_stream *s, fr_err *err);
    fr_status (*attn_expanded)(const fr_gpu_attn_args *a, const fr_gpu_attn_chunk *c,
                               fr_gpu_stream *s, fr_err *err);
    /* out[i * stored ..] = position from + i of a cache with one row a position; exact ones where
     * there are (of the batch and the window before it). */
    fr_status (*kv_load)(const fr_gpu_kv *kv, int64_t from, int64_t n, float *out_d,
                         fr_gpu_stream *s, fr_err *err);
    /* After attention: the batch's last exact rows go from staged_d into the ring. */
    fr_status (*kv_keep)(const fr_gpu_kv *kv, int64_t n_tokens, fr_gpu_stream *s, fr_err *err);
    /* rows of x replaced by their softmax */
    fr_status (*softmax)(float *x_d, int64_t ldx, int64_t n_rows, int64_t cols, fr_gpu_stream *s,
                         fr_err *err);
    /* y = a + b; y = silu(gate) * up; y = factor * x: over n numbers, y may be the first operand */
    fr_status (*add)(const float *a_d, const float *b_d, int64_t n, float *y_d, fr_gpu_stream *s,
                     fr_err *err);
    fr_status (*swiglu)(const float *gate_d, const float *up_d, int64_t n, float *y_d,
                        fr_gpu_stream *s, fr_err *err);
    fr_status (*scale)(const float *x_d, float factor, int64_t n, float *y_d, fr_gpu_stream *s,
                       fr_err *err);
} fr_gpu;

/* The backends of this build; NULL where it has none. */
const fr_gpu *fr_gpu_cuda(void);
const fr_gpu *fr_gpu_sim(void);

/* Bytes a second that copies of pinned memory reach, from and to the host, one way at a time. Takes
 * some 50 ms and 16 MiB of the device and of RAM; the device should have nothing else to do. */
fr_status fr_gpu_link_speed(const fr_gpu *gpu, int device, double *h2d, double *d2h, fr_err *err);

/* ---- the simulator's controls (FR_EUNSUPPORTED in a build without it) ------------------------ */

/* Settings, "devices=3,mb=256,seed=7" (README.md lists them); also read once from the environment
 * as FERRY_SIM. Changing devices, mb, guard or peer closes the simulated machine: nothing of it may
 * be open. */
fr_status fr_gpu_sim_configure(const char *settings, fr_err *err);

/* "3x256MiB": that many devices of that size. */
fr_status fr_gpu_sim_devices(const char *text, fr_err *err);

/* Virtual time (timing=1): what the next operation costs, and host work. */
void fr_gpu_sim_next_cost_us(double us);
void fr_gpu_sim_host_work_us(double us);
double fr_gpu_sim_now_us(void);
size_t fr_gpu_sim_peak_bytes(int device);

#endif
