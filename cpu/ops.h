/* The small operations of a forward pass on the CPU: everything but matrix products.
 *
 * All arrays are float32; `ld` is the distance between the rows of two tokens in elements. */
#ifndef FR_CPU_OPS_H
#define FR_CPU_OPS_H

#include "cpu/cpu.h"

/* y[t] = row ids[t] of w. ids must be in range. */
void fr_cpu_embed(fr_cpu *cpu, const fr_weight *w, const int32_t *ids, int64_t n_tokens, float *y,
                  int64_t ldy);

/* y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * w, over `cols`; y may be x. */
void fr_cpu_rms_norm(fr_cpu *cpu, const float *x, int64_t ldx, int64_t n_tokens, int64_t cols,
                     const float *w, float eps, float *y, int64_t ldy);

/* What often stands together, in one pass over the rows: x[t] += a[t], then += b[t] where there is
 * one, then y[t] = the norm of x[t]; rows of x, a and b are `cols` apart. The bits of fr_cpu_add
 * and fr_cpu_rms_norm. */
typedef struct {
    float *x;
    const float *a, *b; /* b may be NULL */
    int64_t n_tokens, cols;
    const float *w;
    float eps;
    float *y;
    int64_t ldy;
} fr_cpu_add_norm_args;
void fr_cpu_add_norm(fr_cpu *cpu, const fr_cpu_add_norm_args *args);

/* Rotates neighbouring pairs (x[2i], x[2i+1]) of n_heads pieces of n_rot numbers, `stride` apart,
 * in place. turns: n_tokens x n_rot, cosine and sine of pair i at 2i and 2i+1. */
void fr_cpu_rope(fr_cpu *cpu, float *x, int64_t ldx, int64_t n_tokens, int64_t n_heads,
                 int64_t stride, int64_t n_rot, const float *turns);

/* y = a + b, and y = silu(gate) * up, over n numbers; y may be the first operand. */
void fr_cpu_add(fr_cpu *cpu, const float *a, const float *b, int64_t n, float *y);
void fr_cpu_swiglu(fr_cpu *cpu, const float *gate, const float *up, int64_t n, float *y);

/* y[t] = sum over ascending k of weights[t * n_used + k] * x[(t * n_used + k) * cols ..]; with add,
 * y[t] += that. */
typedef struct {
    const float *x, *weights;
    float *y;
    int64_t n_tokens, n_used, cols, ldy;
    bool add;
} fr_cpu_mix_args;
void fr_cpu_mix(fr_cpu *cpu, const fr_cpu_mix_args *args);

/* Expert selection for each token (DeepSeek-V2 section 2.1.2, DeepSeek-V3 section 2.1.2).
 * Scores are softmax or sigmoid of the logits. The n_used best are taken by score + bias; with
 * n_groups > 1 only experts of the n_groups_used best groups stand for election, a group being
 * judged by the sum of its two best biased scores when there is a bias (V3), by its best score when
 * there is none (V2). Ties go to the lower index. Weights are the scores without bias, divided by
 * their sum when `norm`, times `scale`. ids are written in descending order of selection score. */
typedef struct {
    int64_t n_tokens, n_expert, n_used, n_groups, n_groups_used;
    bool sigmoid, norm;
    float scale;
    const float *logits; /* n_tokens x n_expert */
    float *scores;       /* n_tokens x n_expert, written; may be logits */
    const float *bias;   /* n_expert, or NULL */
    int32_t *ids;        /* n_tokens x n_used */
    float *weights;      /* n_tokens x n_used */
    float *scratch;      /* n_tokens x 2 n_expert */
} fr_cpu_router_args;
void fr_cpu_router(fr_cpu *cpu, const fr_cpu_router_args *args);

/* The same by the calling thread alone, so inside jobs too. */
void fr_cpu_router_here(const fr_cpu_router_args *args);

/* ---- KV cache and attention (cpu/attn*.c)
 * -------------------------------------------------------------- */

/* Rows of a cache: position p, head h at base + (p * per_pos + (per_pos > 1 ? h : 0)) * row_bytes.
 *
 * With a window, exact float32 copies of rows stand in two more places: `staged` has the positions
 * of the running batch (row (p - pos0) * per_pos + h), the ring `recent` the last `window` ones
 * before it (row p % window * per_pos + h), as far back as exact_from. `window` is a multiple of
 * FR_ATTN_BLOCK. A token at position t reads the exact rows of positions above t - window. */
typedef struct {
    fr_type type;
    int64_t width, stored, per_pos;
    size_t row_bytes;
    uint8_t *base;  /* NULL: there are no such rows */
    int64_t window; /* 0: the fields below are not used */
    float *recent, *staged;
    int64_t pos0, exact_from;
} fr_cpu_kv;

/* Writes n_tokens positions from pos0 on: row = [a, b] per head, a of width a_width (heads a_stride
 * apart), b of width b_width shared by all heads (b_width may be 0). `stored` is padded with zeros.
 * Also fills `staged` of dst. scratch: n_threads x stored floats. False when a row held NaN or
 * infinity, which quantized types cannot: zeros are stored in its place. */
typedef struct {
    const float *a, *b;
    int64_t lda, a_width, a_stride, ldb, b_width;
    int64_t n_tokens, pos0;
    fr_cpu_kv dst;
    float *scratch;
} fr_cpu_kv_store_args;
bool fr_cpu_kv_store(fr_cpu *cpu, const fr_cpu_kv_store_args *args);

/* Moves the last rows of the batch from `staged` to the ring, when attention has read both. */
void fr_cpu_kv_keep(const fr_cpu_kv *kv, int64_t n_tokens);

/* Reads n positions from `from` on of a cache with one row a position: out[i * stored ..]; exact
 * ones for the batch itself and the window before it. */
void fr_cpu_kv_load(fr_cpu *cpu, const fr_cpu_kv *kv, int64_t from, int64_t n, float *out);

/* Causal attention, token t at position pos0 + t seeing positions 0 .. pos0 + t:
 *     o[t][h] = sum_p softmax_p(scale * (q1[t][h] . k1[p] + q2[t][h] . k2[p])) v[p]
 * computed in blocks of FR_ATTN_BLOCK positions with a running maximum (Milakov and Gimelshein
 * 2018, "Online normalizer calculation for softmax"; Dao et al. 2022, "FlashAttention"). Blocks
 * start at multiples of FR_ATTN_BLOCK, and the spans whose sums are folded together depend on the
 * token's position only, so that a result depends neither on the batch nor on the threads.
 *
 * Two sources of K and V:
 *   cached    rows of the KV cache: k1 = the first w1 numbers of a K row, k2 = the next w2; v = the
 * first wv numbers of the V rows, or of the K rows when v.base is NULL (latent cache); expanded
 * float32 arrays for the positions [from, to) only, called chunk after chunk; o and state carry the
 * running sums, `first` starts and `last` completes them. from must be a multiple of FR_ATTN_BLOCK.
 */
enum { FR_ATTN_BLOCK = 32 };

typedef struct {
    int64_t n_tokens, n_heads, pos0;
    float scale;
    const float *q1, *q2; /* q2 may be NULL with w2 = 0 */
    int64_t ldq1, q1_stride, ldq2, q2_stride;
    int64_t w1, w2, wv;
    float *o;
    int64_t ldo, o_stride;
    float *state; /* n_tokens x n_heads x 2 */
    bool rounded; /* expanded only: 16 bits for each number are enough, where they are faster */
} fr_cpu_attn_args;

/* K and V of a chunk as products that attention makes itself, head by head, where it needs them:
 * k1 of head h are rows h * k_step .. of k times the position's row of x, v those of v from v_at +
 * h
 * * v_step on. `room`, overwritten, helps where threads share heads; it may be small. The bits are
 * those of rows that fr_cpu_matmul made. */
typedef struct {
    const fr_weight *k, *v; /* may be the same */
    int64_t k_step, v_at, v_step;
    const fr_act *x; /* from position `from` on, of the type that both kernels read */
    float *room;
    size_t room_floats;
} fr_cpu_attn_made;

typedef struct {
    int64_t from, to;
    bool first, last;
    const float *k1, *k2, *v; /* rows of position `from`; k1 and v are not used with `made` */
    int64_t ldk1, k1_stride, ldk2, ldv,
        v_stride;                 /* ld: positions apart; stride: heads apart; k2 is shared */
    const fr_cpu_attn_made *made; /* or NULL; only where fr_cpu_attn_makes */
} fr_cpu_attn_chunk;

/* Whether attention makes such products (x and the room may still be missing): with `rounded` on a
 * tier that has 16-bit kernels, where kernels can be given the rows of a head. */
bool fr_cpu_attn_makes(const fr_cpu *cpu, const fr_cpu_attn_args *args,
                       const fr_cpu_attn_made *made);

/* Bytes of scratch for all threads; of the arguments, only the widths and the number of heads
 * count, of the caches the widths and whether there are V rows. */
size_t fr_cpu_attn_cached_bytes(const fr_cpu *cpu, const fr_cpu_attn_args *args, const fr_cpu_kv *k,
                                const fr_cpu_kv *v);
size_t fr_cpu_attn_expanded_bytes(const fr_cpu *cpu, const fr_cpu_attn_args *args);

void fr_cpu_attn_cached(fr_cpu *cpu, const fr_cpu_attn_args *args, const fr_cpu_kv *k,
                        const fr_cpu_kv *v, void *scratch);
void fr_cpu_attn_expanded(fr_cpu *cpu, const fr_cpu_attn_args *args, const fr_cpu_attn_chunk *chunk,
                          void *scratch);

#endif
