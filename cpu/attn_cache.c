/* The KV cache's rows: writing, keeping and reading them. */
#include <stdatomic.h>
#include <string.h>

#include "base/half.h"
#include "cpu/attn.h"

const attn_kernels *attn_kernels_of(const fr_cpu *cpu)
{
    static const attn_kernels *const tiers[] = {
        [FR_ISA_SCALAR] = &attn_kernels_base,
        [FR_ISA_AVX2] = &attn_kernels_avx2,
        [FR_ISA_AVX512] = &attn_kernels_avx512,
    };
    return tiers[fr_cpu_isa(cpu)];
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

const float *attn_read_block(const attn_kernels *kernels, const fr_cpu_kv *kv, int64_t p, int64_t n,
                             int64_t beyond, int64_t h, bool padded, float *tmp, int64_t *ld)
{
    if (kv->per_pos == 1)
        h = 0;
    *ld = kv->stored * kv->per_pos;
    if (kv->type == FR_TYPE_F32 && kv->window == 0 && !padded)
        return (const float *)(const void *)(kv->base +
                                             (size_t)(p * kv->per_pos + h) * kv->row_bytes);
    const float *first = exact_row(kv, p, beyond, h), *last = exact_row(kv, p + n - 1, beyond, h);
    if (first && last == first + (n - 1) * *ld && !padded)
        return first;
    *ld = attn_padded(kv->stored);
    for (int64_t i = 0; i < n; i++, tmp += *ld) {
        read_row(kernels, kv, p + i, beyond, h, tmp);
        memset(tmp + kv->stored, 0, (size_t)(*ld - kv->stored) * sizeof *tmp);
    }
    return tmp - n * *ld;
}

void attn_find_rows(const attn_kernels *kernels, const fr_cpu_kv *kv, int64_t p, int64_t n,
                    int64_t beyond, float *tmp, attn_block_16 *b)
{
    b->n = n;
    b->type = kv->type;
    b->rows = kv->base + (size_t)p * kv->row_bytes;
    b->row_bytes = kv->row_bytes;
    if (kernels->in_16()->reads(kv->type) && !exact_row(kv, p + n - 1, beyond, 0))
        return;
    int64_t ld;
    b->rows = (const uint8_t *)attn_read_block(kernels, kv, p, n, beyond, 0, false, tmp, &ld);
    b->type = FR_TYPE_F32;
    b->row_bytes = (size_t)ld * sizeof(float);
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
    kv_load_job job = {attn_kernels_of(cpu), kv, from, n, out};
    fr_cpu_run(cpu, kv_load_thread, &job);
}
