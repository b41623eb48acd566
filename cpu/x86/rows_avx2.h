/* The kernels with rows side by side: eight rows at a time, one lane each.
 *
 * A sub-block is 32 columns. Its codes stand in eight registers: byte 4k + i of register j is the
 * code of row k, column 4j + i. So four activations in every lane meet four codes of every row, the
 * sums need no folding at the end, and what eight rows share is loaded once. A weight's form says
 * how to get there (rows_head_fn, rows_codes_fn); the rest is the same for all types.
 *
 * The order of every row, in every tile shape and tier that includes this file:
 *
 * sum: of the 16 or 32 columns of one scale, exact, 32-bit integers.
 *
 * part: += scale * sum by ascending columns (blocks of 256). With VNNI in float, unless
 * avx512_is_whole; else exact, in 32-bit integers, and a float at the end of the block.
 *
 * y: += (d * x.d) * part; minima come off once a block.
 *
 * Lanes never mix, so 8 rows, 16 rows, one token or many give the same bits in a tier. */
#ifndef FR_CPU_X86_ROWS_AVX2_H
#define FR_CPU_X86_ROWS_AVX2_H

#include "cpu/x86/avx2.h"

#define ROWS 8

#define ROWS_MANY 64 /* cpu_kernel.many_rows */

/* Before the loop over sub-blocks: a file whose unpacking shifts by their number unrolls it. */
#ifndef ROWS_UNROLL
#define ROWS_UNROLL
#endif

/* The scales of a block of eight rows. */
typedef struct {
    __m256 d, m;         /* w = d * sc * q - m * mn (blocks of 256), d * q + m (blocks of 32) */
    int8_t sc[16][ROWS]; /* by ascending columns */
    int8_t mn[16][ROWS];
} rows_head;

/* p: the block of each unit of rows (a row, or a group that stands together); meta: their headers.
 */
typedef struct {
    const uint8_t *p[ROWS], *meta[ROWS];
    int half;         /* which eight rows of a unit of sixteen */
    avx2_ahead ahead; /* of native forms: what to ask for while the block is met */
} rows_at;

typedef void rows_head_fn(const rows_at *at, rows_head *h);
typedef void rows_codes_fn(const rows_at *at, int b, __m256i w[8]);

/* What a kernel must know of a form at compile time. */
typedef struct {
    fr_type type;
    fr_layout layout;
    int unit;       /* rows that stand together: 1, 4, 8 or 16 */
    int weights;    /* of a block: 32 or 256 */
    size_t bytes;   /* of a block of a unit */
    size_t meta;    /* of the header of a unit */
    int scale_cols; /* columns of one scale: 16 or 32 */
    int fits;       /* registers whose products, in pairs, may be added in 16 bits: 1, 2, 4, 8 */
    bool is_signed; /* codes; others are below 128 */
    bool min;
} rows_form;

/* Units that eight rows are of. */
CPU_INLINE int rows_units(const rows_form *f)
{
    return f->unit < ROWS ? ROWS / f->unit : 1;
}

/* ---- sums of products
 * ------------------------------------------------------------------------------------- */

CPU_INLINE __m256i rows_load_4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

/* The minima of scales 2 * i and 2 * i + 1 of a row in the halves of its lane. */
CPU_INLINE __m256i rows_min_pair(const rows_head *h, int i)
{
    const __m256i order =
        _mm256_setr_epi8(0, -1, 8, -1, 1, -1, 9, -1, 2, -1, 10, -1, 3, -1, 11, -1, 4, -1, 12, -1, 5,
                         -1, 13, -1, 6, -1, 14, -1, 7, -1, 15, -1);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(avx2_load_half(h->mn[2 * i])), order);
}

/* The minima times the sums of a block's activations. */
CPU_INLINE __m256i rows_minima(const rows_head *h, const fr_act_q8_256 *x, const rows_form *f)
{
    const int16_t *sums = f->scale_cols == 16 ? x->sums : x->sums_32;
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 128 / f->scale_cols; i++) {
        __m256i pair = rows_load_4((const int8_t *)(sums + 2 * i));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(rows_min_pair(h, i), pair));
    }
    return sum;
}

#ifdef __AVX512VNNI__
#include "cpu/x86/avx512.h"

/* The instruction wants one side unsigned. Signed codes therefore meet x + 128, and the 128 times
 * the sum of the codes, which all tokens share, is what the sums start from. */
typedef struct {
    __m256i start[2]; /* for columns 0..15 and 16..31, or 0..31 */
} rows_base;

CPU_INLINE rows_base rows_start(const __m256i w[8], const rows_form *f)
{
    rows_base base = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
    if (!f->is_signed)
        return base;
    const __m256i offset = _mm256_set1_epi8(-128); /* 128, unsigned */
    const int per = f->scale_cols / 4;
    for (int j = 0; j < 8; j++)
        base.start[j / per] = _mm256_dpbusd_epi32(base.start[j / per], offset, w[j]);
    for (int i = 0; i < 2; i++)
        base.start[i] = _mm256_sub_epi32(_mm256_setzero_si256(), base.start[i]);
    return base;
}

/* 32 activations as the sums want them; room holds them when they must change. */
CPU_INLINE const int8_t *rows_x(const int8_t *x, const rows_form *f, int8_t *room)
{
    if (!f->is_signed)
        return x;
    __m256i moved = _mm256_xor_si256(avx2_load(x), _mm256_set1_epi8(-128));
    _mm256_store_si256((__m256i *)(void *)room, moved);
    return room;
}

CPU_INLINE __m256i rows_sum(__m256i start, const __m256i *w, const int8_t *x, const int n,
                            const rows_form *f)
{
    __m256i sum = start;
    for (int j = 0; j < n; j++) {
        __m256i four = rows_load_4(x + 4 * j);
        sum = f->is_signed ? _mm256_dpbusd_epi32(sum, four, w[j])
                           : _mm256_dpbusd_epi32(sum, w[j], four);
    }
    return sum;
}

CPU_INLINE __m256 rows_scale(const rows_head *h, int s)
{
    __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)h->sc[s]);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
}

/* The sums of a block of 256, each times its scale, so far; integers in it if avx512_is_whole. */
typedef __m256 rows_part;

CPU_INLINE __m256 rows_part_float(rows_part part, const rows_form *f)
{
    return avx512_is_whole(f->type) ? _mm256_cvtepi32_ps(_mm256_castps_si256(part)) : part;
}

CPU_INLINE rows_part rows_add_whole(rows_part part, const rows_head *h, int s, __m256i sum)
{
    __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)h->sc[s]);
    __m256i scaled = _mm256_mullo_epi32(_mm256_cvtepi8_epi32(eight), sum);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(part), scaled));
}

/* part + scale * sum for sub-block b. */
CPU_INLINE rows_part rows_sub_block(rows_part part, const __m256i w[8], const rows_base *base,
                                    const rows_head *h, int b, const int8_t *x, const rows_form *f)
{
    const int n = 32 / f->scale_cols, per = 8 / n;
    for (int s = 0; s < n; s++) {
        __m256i sum = rows_sum(base->start[s], w + per * s, x + 4 * per * s, per, f);
        if (avx512_is_whole(f->type))
            part = rows_add_whole(part, h, n * b + s, sum);
        else
            part = _mm256_fmadd_ps(rows_scale(h, n * b + s), _mm256_cvtepi32_ps(sum), part);
    }
    return part;
}

#else

typedef struct {
    __m256i start[2];
} rows_base;

CPU_INLINE rows_base rows_start(const __m256i w[8], const rows_form *f)
{
    (void)w;
    (void)f;
    return (rows_base){{_mm256_setzero_si256(), _mm256_setzero_si256()}};
}

CPU_INLINE const int8_t *rows_x(const int8_t *x, const rows_form *f, int8_t *room)
{
    (void)f;
    (void)room;
    return x;
}

/* start + scale * the sum of n registers, scale being twice in each lane. The multiplication of
 * bytes wants one side unsigned: |w| * (x with the sign of w). */
CPU_INLINE __m256i rows_sum_scaled(__m256i start, const __m256i *w, const int8_t *x, const int n,
                                   __m256i scale, const rows_form *f)
{
    __m256i sum = start, pairs = _mm256_setzero_si256();
    for (int j = 0; j < n; j++) {
        __m256i four = rows_load_4(x + 4 * j);
        __m256i both =
            f->is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(w[j]), _mm256_sign_epi8(four, w[j]))
                         : _mm256_maddubs_epi16(w[j], four);
        pairs = j % f->fits == 0 ? both : _mm256_add_epi16(pairs, both);
        if (j % f->fits == f->fits - 1 || j == n - 1)
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, scale));
    }
    return sum;
}

CPU_INLINE __m256i rows_sum(__m256i start, const __m256i *w, const int8_t *x, const int n,
                            const rows_form *f)
{
    return rows_sum_scaled(start, w, x, n, _mm256_set1_epi16(1), f);
}

/* A row's scale s twice in its lane. */
CPU_INLINE __m256i rows_scale_twice(const rows_head *h, int s)
{
    const __m256i order = _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3,
                                           -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7);
    __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)h->sc[s]);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(_mm256_broadcastq_epi64(eight), order), 8);
}

typedef __m256i rows_part;

CPU_INLINE __m256 rows_part_float(rows_part part, const rows_form *f)
{
    (void)f;
    return _mm256_cvtepi32_ps(part);
}

CPU_INLINE rows_part rows_sub_block(rows_part part, const __m256i w[8], const rows_base *base,
                                    const rows_head *h, int b, const int8_t *x, const rows_form *f)
{
    const int n = 32 / f->scale_cols, per = 8 / n;
    (void)base;
    for (int s = 0; s < n; s++)
        part = rows_sum_scaled(part, w + per * s, x + 4 * per * s, per,
                               rows_scale_twice(h, n * b + s), f);
    return part;
}

#endif

/* ---- eight rows times n tokens
 * ---------------------------------------------------------------------------- */

CPU_INLINE void rows_next(rows_at *at, const rows_form *f)
{
    for (int u = 0; u < rows_units(f); u++)
        at->p[u] += f->bytes;
}

/* Asks for the block at the same place of the next eight rows. */
CPU_INLINE void rows_prefetch(const rows_at *at, const rows_form *f, size_t row_bytes)
{
    for (int u = 0; u < rows_units(f); u++)
        avx2_prefetch(at->p[u] + ROWS * row_bytes, f->bytes);
}

/* Block i of 32: acc[t] for t < n. */
CPU_INLINE void rows_block_32(const cpu_dot_args *a, const rows_at *at, int64_t i, const int n,
                              const rows_form *f, rows_head_fn *head, rows_codes_fn *codes,
                              __m256 *acc)
{
    _Alignas(32) int8_t room[32];
    rows_head h;
    __m256i w[8];
    head(at, &h);
    codes(at, 0, w);
    const rows_base base = rows_start(w, f);
    for (int t = 0; t < n; t++) {
        const fr_act_q8_32 *x = (const fr_act_q8_32 *)a->x[t] + i;
        __m256i sum = rows_sum(base.start[0], w, rows_x(x->q, f, room), 8, f);
        __m256 scaled = _mm256_mul_ps(h.d, _mm256_cvtepi32_ps(sum));
        acc[t] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(x->d), acc[t]);
        if (f->min)
            acc[t] = _mm256_fmadd_ps(h.m, _mm256_set1_ps(x->s), acc[t]);
    }
}

CPU_INLINE void rows_tile_32(const cpu_dot_args *a, rows_at at, const int n, const rows_form *f,
                             rows_head_fn *head, rows_codes_fn *codes, __m256 *acc)
{
    size_t row_bytes = f->bytes / (size_t)f->unit * (size_t)(a->cols / 32);
    const uint8_t *eight = at.p[0];
    const bool one_stream = f->unit == 1 && ROWS * row_bytes <= AVX2_MIDDLE; /* short rows */
    for (int64_t i = 0; i < a->cols / 32; i++, rows_next(&at, f)) {
        if (n == 1 && one_stream)
            avx2_ask(eight + (size_t)i * ROWS * f->bytes, ROWS * f->bytes);
        else if (n == 1)
            rows_prefetch(&at, f, row_bytes);
        rows_block_32(a, &at, i, n, f, head, codes, acc);
    }
}

/* Block i of 256. */
CPU_INLINE void rows_block_256(const cpu_dot_args *a, const rows_at *at, int64_t i, const int n,
                               const rows_form *f, rows_head_fn *head, rows_codes_fn *codes,
                               __m256 *acc)
{
    _Alignas(32) int8_t room[32];
    rows_part part[CPU_MAX_TOKENS];
    rows_head h;
    head(at, &h);
    for (int t = 0; t < n; t++)
        part[t] = (rows_part)_mm256_setzero_si256();
    ROWS_UNROLL
    for (int b = 0; b < 8; b++) {
        __m256i w[8];
        codes(at, b, w);
        const rows_base base = rows_start(w, f);
        for (int t = 0; t < n; t++) {
            const fr_act_q8_256 *x = (const fr_act_q8_256 *)a->x[t] + i;
            const int8_t *q = rows_x(x->q + 32 * b, f, room);
            part[t] = rows_sub_block(part[t], w, &base, &h, b, q, f);
        }
    }
    for (int t = 0; t < n; t++) {
        const fr_act_q8_256 *x = (const fr_act_q8_256 *)a->x[t] + i;
        __m256 x_d = _mm256_set1_ps(x->d);
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(h.d, x_d), rows_part_float(part[t], f), acc[t]);
        if (f->min)
            acc[t] = _mm256_fnmadd_ps(_mm256_mul_ps(h.m, x_d),
                                      _mm256_cvtepi32_ps(rows_minima(&h, x, f)), acc[t]);
    }
}

CPU_INLINE void rows_tile_256(const cpu_dot_args *a, rows_at at, const int n, const rows_form *f,
                              rows_head_fn *head, rows_codes_fn *codes, __m256 *acc)
{
    size_t row_bytes = f->bytes / (size_t)f->unit * (size_t)(a->cols / 256);
    for (int64_t i = 0; i < a->cols / 256; i++, rows_next(&at, f)) {
        if (n == 1)
            rows_prefetch(&at, f, row_bytes);
        rows_block_256(a, &at, i, n, f, head, codes, acc);
    }
}

/* Where the eight rows from r0 on start; units that begin at row `to` or later repeat the first. */
CPU_INLINE rows_at rows_find(const cpu_dot_args *a, int64_t r0, const rows_form *f)
{
    rows_at at = {.half = (int)(r0 % f->unit) / ROWS};
    size_t unit_bytes = (size_t)f->unit * fr_row_bytes(f->type, f->layout, a->cols);
    for (int u = 0; u < rows_units(f); u++) {
        int64_t row = r0 + u * f->unit;
        int64_t unit = (row < a->row_to ? row : r0) / f->unit;
        at.meta[u] = (const uint8_t *)a->base + (size_t)unit * unit_bytes;
        at.p[u] = at.meta[u] + f->meta;
    }
    return at;
}

/* Lanes of rows r0.. that the call asks for. */
CPU_INLINE void rows_store(const cpu_dot_args *a, int64_t r0, int t, const float *lanes,
                           int n_lanes)
{
    for (int k = 0; k < n_lanes; k++) {
        if (r0 + k >= a->row_from && r0 + k < a->row_to)
            a->y[t][r0 + k - a->row_from] = lanes[k];
    }
}

CPU_INLINE void rows_put(const cpu_dot_args *a, int64_t r0, const int n, const __m256 *acc)
{
    bool whole = r0 >= a->row_from && r0 + ROWS <= a->row_to;
    for (int t = 0; t < n; t++) {
        float lanes[ROWS];
        if (whole) {
            _mm256_storeu_ps(a->y[t] + (r0 - a->row_from), acc[t]);
        } else {
            _mm256_storeu_ps(lanes, acc[t]);
            rows_store(a, r0, t, lanes, ROWS);
        }
    }
}

CPU_INLINE void rows_eight(const cpu_dot_args *a, int64_t r0, const int n, const rows_form *f,
                           rows_head_fn *head, rows_codes_fn *codes)
{
    __m256 acc[CPU_MAX_TOKENS];
    rows_at at = rows_find(a, r0, f);
    for (int t = 0; t < n; t++)
        acc[t] = _mm256_setzero_ps();
    if (f->weights == 32)
        rows_tile_32(a, at, n, f, head, codes, acc);
    else
        rows_tile_256(a, at, n, f, head, codes, acc);
    rows_put(a, r0, n, acc);
}

#ifdef __AVX512VNNI__
#include "cpu/x86/gemm.inc"
#else
#include "cpu/x86/gemm_avx2.inc"
#endif

CPU_INLINE void rows_dot(const cpu_dot_args *a, const rows_form *f, rows_head_fn *head,
                         rows_codes_fn *codes)
{
    for (int64_t r = a->row_from / f->unit * f->unit; r < a->row_to; r += ROWS) {
        if (a->n_tokens == 1)
            rows_eight(a, r, 1, f, head, codes);
        else
            rows_eight(a, r, a->n_tokens, f, head, codes);
    }
}

/* DOT from FORM, HEAD and CODES; ROWS_KERNEL: dot_NAME from form_NAME, head_NAME and codes_NAME. */
#ifdef __AVX512VNNI__
#define ROWS_KERNEL_OF(DOT, FORM, HEAD, CODES)                                                     \
    static void expand_##DOT(gemm_source *g, const gemm_part *part, int b, gemm_strip *s)          \
    {                                                                                              \
        gemm_rows_expand(g->a, part, b, s, &FORM, HEAD, CODES);                                    \
    }                                                                                              \
    static void DOT(const cpu_dot_args *a)                                                         \
    {                                                                                              \
        const gemm_form form = gemm_form_of(&FORM);                                                \
        gemm_source from = {a, expand_##DOT};                                                      \
        if (a->n_tokens >= GEMM_MIN_TOKENS)                                                        \
            gemm_run(a, &form, a->row_from / FORM.unit * FORM.unit, &from);                        \
        else                                                                                       \
            rows_dot(a, &FORM, HEAD, CODES);                                                       \
    }
#else
#define ROWS_KERNEL_OF(DOT, FORM, HEAD, CODES)                                                     \
    static void expand_##DOT(const cpu_dot_args *a, int64_t r, int64_t chunk, gemm8_strip *s)      \
    {                                                                                              \
        gemm8_expand(a, r, chunk, s, &FORM, HEAD, CODES);                                          \
    }                                                                                              \
    static void DOT(const cpu_dot_args *a)                                                         \
    {                                                                                              \
        const gemm8_form form = gemm8_form_of(&FORM);                                              \
        if (a->n_tokens >= gemm8_min_tokens(&form))                                                \
            gemm8_run(a, &form, a->row_from / FORM.unit * FORM.unit, expand_##DOT);                \
        else                                                                                       \
            rows_dot(a, &FORM, HEAD, CODES);                                                       \
    }
#endif
#define ROWS_KERNEL(NAME) ROWS_KERNEL_OF(dot_##NAME, form_##NAME, head_##NAME, codes_##NAME)

#endif
