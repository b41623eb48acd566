#include "cpu/attn.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/half.h"

static const attn_kernels *kernels_of(const fr_cpu *cpu)
{
    return fr_cpu_isa(cpu) >= FR_ISA_AVX2 ? &attn_kernels_avx2 : &attn_kernels_base;
}

/* ---- writing the cache
 * ----------------------------------------------------------------------------------- */

typedef struct {
    const fr_cpu_kv_store_args *args;
    atomic_bool finite;
} kv_store_job;

/* Infinity and NaN have all bits of the exponent set. */
static bool all_finite(const float *x, int64_t n)
{
    uint32_t any = 0;
    for (int64_t i = 0; i < n; i++)
        any |= (fr_f32_bits(x[i]) & 0x7F800000) == 0x7F800000;
    return !any;
}

/* What no type can hold becomes a row of zeros, and the caller is told. */
static void check_row(kv_store_job *job, float *row, int64_t n)
{
    if (all_finite(row, n))
        return;
    memset(row, 0, (size_t)n * sizeof *row);
    atomic_store(&job->finite, false);
}

static void kv_store_thread(void *arg, int i_thread, int n_threads)
{
    kv_store_job *job = arg;
    const fr_cpu_kv_store_args *a = job->args;
    const fr_cpu_kv *dst = &a->dst;
    float *row = a->scratch + (int64_t)i_thread * dst->stored;
    int64_t from, to;
    fr_cpu_share(a->n_tokens, 1, i_thread, n_threads, &from, &to);
    memset(row, 0, (size_t)dst->stored * sizeof *row);
    for (int64_t t = from; t < to; t++) {
        float *staged = dst->window ? dst->staged + t * dst->per_pos * dst->stored : NULL;
        uint8_t *out = dst->base + (size_t)((a->pos0 + t) * dst->per_pos) * dst->row_bytes;
        for (int64_t h = 0; h < dst->per_pos; h++, out += dst->row_bytes) {
            memcpy(row, a->a + t * a->lda + h * a->a_stride, (size_t)a->a_width * sizeof *row);
            if (a->b_width > 0)
                memcpy(row + a->a_width, a->b + t * a->ldb, (size_t)a->b_width * sizeof *row);
            check_row(job, row, dst->width);
            fr_encode_row(dst->type, row, dst->stored, NULL, out);
            if (staged)
                memcpy(staged + h * dst->stored, row, (size_t)dst->stored * sizeof *row);
        }
    }
}

bool fr_cpu_kv_store(fr_cpu *cpu, const fr_cpu_kv_store_args *args)
{
    kv_store_job job = {args, true};
    if (args->n_tokens == 1)
        kv_store_thread(&job, 0, 1);
    else
        fr_cpu_run(cpu, kv_store_thread, &job);
    return job.finite;
}

/* ---- reading the cache
 * ----------------------------------------------------------------------------------- */

/* The exact row of position p for a reader that takes positions above `beyond` exact; NULL: read
 * the cache. */
static const float *exact_row(const fr_cpu_kv *kv, int64_t p, int64_t beyond, int64_t h)
{
    if (kv->window == 0 || p <= beyond)
        return NULL;
    if (p >= kv->pos0)
        return kv->staged + ((p - kv->pos0) * kv->per_pos + h) * kv->stored;
    if (p >= kv->exact_from)
        return kv->recent + (p % kv->window * kv->per_pos + h) * kv->stored;
    return NULL;
}

static void read_row(const attn_kernels *kernels, const fr_cpu_kv *kv, int64_t p, int64_t beyond,
                     int64_t h, float *out)
{
    const float *exact = exact_row(kv, p, beyond, h);
    if (exact)
        memcpy(out, exact, (size_t)kv->stored * sizeof *out);
    else
        kernels->decode(kv->type, kv->base + (size_t)(p * kv->per_pos + h) * kv->row_bytes,
                        kv->stored, out);
}

/* n <= FR_ATTN_BLOCK positions from p on, for head h, as floats `ld` apart: in place where they
 * stand as floats in one place, else in `tmp`. */
static const float *read_block(const attn_kernels *kernels, const fr_cpu_kv *kv, int64_t p,
                               int64_t n, int64_t beyond, int64_t h, float *tmp, int64_t *ld)
{
    if (kv->per_pos == 1)
        h = 0;
    *ld = kv->stored * kv->per_pos;
    if (kv->type == FR_TYPE_F32 && kv->window == 0)
        return (const float *)(const void *)(kv->base +
                                             (size_t)(p * kv->per_pos + h) * kv->row_bytes);
    const float *first = exact_row(kv, p, beyond, h), *last = exact_row(kv, p + n - 1, beyond, h);
    if (first && last == first + (n - 1) * *ld)
        return first;
    *ld = kv->stored;
    for (int64_t i = 0; i < n; i++)
        read_row(kernels, kv, p + i, beyond, h, tmp + i * kv->stored);
    return tmp;
}

void fr_cpu_kv_keep(const fr_cpu_kv *kv, int64_t n_tokens)
{
    if (kv->window == 0)
        return;
    int64_t row = kv->per_pos * kv->stored,
            skip = n_tokens > kv->window ? n_tokens - kv->window : 0;
    for (int64_t t = skip; t < n_tokens; t++)
        memcpy(kv->recent + (kv->pos0 + t) % kv->window * row, kv->staged + t * row,
               (size_t)row * sizeof(float));
}

typedef struct {
    const attn_kernels *kernels;
    const fr_cpu_kv *kv;
    int64_t from, n;
    float *out;
} kv_load_job;

static void kv_load_thread(void *arg, int i_thread, int n_threads)
{
    const kv_load_job *job = arg;
    int64_t from, to, beyond = job->kv->pos0 - job->kv->window;
    fr_cpu_share(job->n, 1, i_thread, n_threads, &from, &to);
    for (int64_t i = from; i < to; i++)
        read_row(job->kernels, job->kv, job->from + i, beyond, 0, job->out + i * job->kv->stored);
}

void fr_cpu_kv_load(fr_cpu *cpu, const fr_cpu_kv *kv, int64_t from, int64_t n, float *out)
{
    kv_load_job job = {kernels_of(cpu), kv, from, n, out};
    fr_cpu_run(cpu, kv_load_thread, &job);
}

/* ---- state of one (token, head)
 * -------------------------------------------------------------------------- */

static float *state_of(const fr_cpu_attn_args *a, int64_t t, int64_t h)
{
    return a->state + (t * a->n_heads + h) * 2;
}

static float *out_of(const fr_cpu_attn_args *a, int64_t t, int64_t h)
{
    return a->o + t * a->ldo + h * a->o_stride;
}

static void start(const fr_cpu_attn_args *a, int64_t t, int64_t h)
{
    state_of(a, t, h)[0] = -INFINITY;
    state_of(a, t, h)[1] = 0.0f;
    memset(out_of(a, t, h), 0, (size_t)a->wv * sizeof(float));
}

static void finish(const fr_cpu_attn_args *a, int64_t t, int64_t h)
{
    float *o = out_of(a, t, h), inverse = 1.0f / state_of(a, t, h)[1];
    for (int64_t i = 0; i < a->wv; i++)
        o[i] *= inverse;
}

static void add_block(const attn_kernels *k, const fr_cpu_attn_args *a, int64_t t, int64_t h,
                      const attn_block *b)
{
    const float *q2 = a->q2 ? a->q2 + t * a->ldq2 + h * a->q2_stride : NULL;
    k->add_block(a->q1 + t * a->ldq1 + h * a->q1_stride, a->w1, q2, a->w2, b, a->wv, a->scale,
                 state_of(a, t, h), out_of(a, t, h));
}

/* ---- from the cache
 * --------------------------------------------------------------------------------------- */

typedef struct {
    const attn_kernels *kernels;
    const fr_cpu_attn_args *args;
    const fr_cpu_kv *k, *v;
    float *scratch; /* of all threads */
    size_t scratch_floats;
} cached_job;

static size_t block_floats(const fr_cpu_kv *kv)
{
    return kv->base ? (size_t)kv->stored * FR_ATTN_BLOCK : 0;
}

size_t fr_cpu_attn_scratch_bytes(const fr_cpu *cpu, const fr_cpu_kv *k, const fr_cpu_kv *v)
{
    return (block_floats(k) + block_floats(v)) * sizeof(float) * (size_t)fr_cpu_n_threads(cpu);
}

/* All blocks of one token for heads [h0, h1), which share the rows when the cache has one a
 * position. */
static void attend_heads(const cached_job *job, int64_t t, int64_t h0, int64_t h1, float *scratch)
{
    const fr_cpu_attn_args *a = job->args;
    int64_t n_pos = a->pos0 + t + 1, beyond = a->pos0 + t - job->k->window;
    float *k_tmp = scratch, *v_tmp = scratch + block_floats(job->k);
    for (int64_t h = h0; h < h1; h++)
        start(a, t, h);
    for (int64_t p = 0; p < n_pos; p += FR_ATTN_BLOCK) {
        attn_block b = {.n = n_pos - p < FR_ATTN_BLOCK ? n_pos - p : FR_ATTN_BLOCK};
        for (int64_t h = h0; h < h1; h++) {
            if (h == h0 || job->k->per_pos > 1) {
                b.k1 = read_block(job->kernels, job->k, p, b.n, beyond, h, k_tmp, &b.ldk1);
                b.k2 = b.k1 + a->w1;
                b.ldk2 = b.ldk1;
                b.v = b.k1;
                b.ldv = b.ldk1;
                if (job->v->base)
                    b.v = read_block(job->kernels, job->v, p, b.n, beyond, h, v_tmp, &b.ldv);
            }
            add_block(job->kernels, a, t, h, &b);
        }
    }
    for (int64_t h = h0; h < h1; h++)
        finish(a, t, h);
}

/* Tokens see more positions the later they come, so threads take (token, piece of heads) in turn.
 */
static void cached_thread(void *arg, int i_thread, int n_threads)
{
    const cached_job *job = arg;
    int64_t heads = job->args->n_heads, pieces = heads < n_threads ? heads : n_threads;
    float *scratch = job->scratch + (size_t)i_thread * job->scratch_floats;
    for (int64_t i = i_thread; i < job->args->n_tokens * pieces; i += n_threads) {
        int64_t t = i / pieces, piece = (i + t) % pieces;
        attend_heads(job, t, heads * piece / pieces, heads * (piece + 1) / pieces, scratch);
    }
}

void fr_cpu_attn_cached(fr_cpu *cpu, const fr_cpu_attn_args *args, const fr_cpu_kv *k,
                        const fr_cpu_kv *v, void *scratch)
{
    cached_job job = {kernels_of(cpu), args, k, v, scratch, block_floats(k) + block_floats(v)};
    fr_cpu_run(cpu, cached_thread, &job);
}

/* ---- from expanded chunks
 * --------------------------------------------------------------------------------- */

typedef struct {
    const attn_kernels *kernels;
    const fr_cpu_attn_args *args;
    const fr_cpu_attn_chunk *chunk;
} expanded_job;

static void attend_chunk(const expanded_job *job, int64_t t, int64_t h)
{
    const fr_cpu_attn_args *a = job->args;
    const fr_cpu_attn_chunk *c = job->chunk;
    int64_t end = a->pos0 + t + 1 < c->to ? a->pos0 + t + 1 : c->to;
    if (c->first)
        start(a, t, h);
    for (int64_t p = c->from; p < end; p += FR_ATTN_BLOCK) {
        int64_t i = p - c->from;
        attn_block b = {
            .k1 = c->k1 + i * c->ldk1 + h * c->k1_stride,
            .k2 = c->k2 + i * c->ldk2,
            .v = c->v + i * c->ldv + h * c->v_stride,
            .ldk1 = c->ldk1,
            .ldk2 = c->ldk2,
            .ldv = c->ldv,
            .n = end - p < FR_ATTN_BLOCK ? end - p : FR_ATTN_BLOCK,
        };
        add_block(job->kernels, a, t, h, &b);
    }
    if (c->last)
        finish(a, t, h);
}

static void expanded_thread(void *arg, int i_thread, int n_threads)
{
    const expanded_job *job = arg;
    int64_t heads = job->args->n_heads;
    for (int64_t i = i_thread; i < job->args->n_tokens * heads; i += n_threads)
        attend_chunk(job, i / heads, i % heads);
}

void fr_cpu_attn_expanded(fr_cpu *cpu, const fr_cpu_attn_args *args, const fr_cpu_attn_chunk *chunk)
{
    expanded_job job = {kernels_of(cpu), args, chunk};
    fr_cpu_run(cpu, expanded_thread, &job);
}
