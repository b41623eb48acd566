/* The kernels of the native layout for one token: sixteen rows at a time, one 32-bit lane of a
 * 512-bit register each.
 *
 * A sub-block is 32 columns of the sixteen rows: eight registers, byte i of lane k being a code of
 * row k. A type states how its registers come out of a block (codes_), its scales (head_, scale_)
 * and, in its form, what the codes are above their weights, so that all of them are unsigned: the
 * sums start from minus that much times the sum of the activations, and nothing is subtracted.
 *
 * Where registers hold columns in another order than they come, it is the activations that are
 * rearranged (native_order).
 *
 * Sums are those of rows_avx2.h, in the same order, so all layouts of a type give the same bits. */
#ifndef FR_CPU_X86_NATIVE_AVX512_H
#define FR_CPU_X86_NATIVE_AVX512_H

#include "cpu/x86/avx512.h"
#include "cpu/x86/native_tables.h"

#define NATIVE_ROWS 16

/* The scales of a block. */
typedef struct {
    __m512 d, m;
    __m512 d_last;                  /* blocks of 32, scales of 16 columns: of the last ones */
    __m512i lanes[2];               /* 4-bit scales: number s of a row in bits 4 * (s % 8).. */
    _Alignas(64) int8_t sc[16][16]; /* others, by scale */
    _Alignas(64) uint8_t mn[8][32]; /* minima of scales 2n and 2n + 1, row by row */
} native_head;

/* What a type looks codes up in, made once a call. */
typedef struct {
    __m512i t[35];
} native_tables;

typedef void native_tables_fn(native_tables *t);
typedef void native_head_fn(const uint8_t *p, const uint8_t *meta, native_head *h);
typedef void native_codes_fn(const uint8_t *p, int b, const native_tables *t, __m512i w[8]);
typedef __m512 native_scale_fn(const uint8_t *p, const native_head *h, const native_tables *t,
                               int s);

/* Columns of register j of a sub-block: 4j, 4j + 1 ..; j, 8 + j, 16 + j, 24 + j; every second one
 * of 8 * (j / 2), from j % 2 on. */
typedef enum { NATIVE_IN_ORDER, NATIVE_BY_8, NATIVE_BY_2 } native_order;

/* What a kernel must know of a form at compile time. */
typedef struct {
    fr_type type;
    size_t bytes;   /* of a block of sixteen rows */
    size_t meta;    /* of their headers */
    int scale_cols; /* columns of one scale: 16 or 32 */
    int offset;     /* what codes are above their weights */
    int step;       /* what a weight is more where its row's bit of its scale is set */
    int bits_at;    /* where those bits stand, 16 a scale */
    int bits_bytes; /* from one scale's to the next one's: 2; 16: bit 0 of a byte a row; 256: of a
                       lane a row */
    native_order order;
    bool min;
} native_form;

/* ---- activations ----------------------------------------------------------------------------- */

/* A block of 256 activations as the sums want it. */
typedef struct {
    _Alignas(64) int8_t room[2][256];
    const int8_t *q[2];   /* BY_8 with scales of 16: with zeros for the other one's columns */
    int32_t start[2][16]; /* by scale, for rows whose bit is 0 and 1 */
    int16_t sums[16];     /* what minima are multiplied by */
} native_x;

/* In the order NATIVE_BY_2. */
CPU_INLINE void native_by_2(const int8_t *q, int8_t *room)
{
    const __m512i step = _mm512_set4_epi32(0x0F0D0B09, 0x0E0C0A08, 0x07050301, 0x06040200);
    for (int i = 0; i < 256; i += 64)
        _mm512_store_si512(room + i, _mm512_shuffle_epi8(_mm512_loadu_si512(q + i), step));
}

/* In the order NATIVE_BY_8, those of `kept`. */
CPU_INLINE void native_by_8(const int8_t *q, __mmask64 kept, int8_t *room)
{
    const __m512i step =
        _mm512_setr_epi32(0x18100800, 0x19110901, 0x1A120A02, 0x1B130B03, 0x1C140C04, 0x1D150D05,
                          0x1E160E06, 0x1F170F07, 0x38302820, 0x39312921, 0x3A322A22, 0x3B332B23,
                          0x3C342C24, 0x3D352D25, 0x3E362E26, 0x3F372F27);
    for (int i = 0; i < 256; i += 64)
        _mm512_store_si512(room + i,
                           _mm512_maskz_permutexvar_epi8(kept, step, _mm512_loadu_si512(q + i)));
}

/* -offset times the sums of 16 or of 32 activations. */
CPU_INLINE void native_starts(__m256i sums, int offset, int scale_cols, int32_t start[16])
{
    if (scale_cols == 32) {
        const __m256i factor = _mm256_set1_epi16((short)-offset);
        _mm256_storeu_si256((__m256i *)(void *)start, _mm256_madd_epi16(sums, factor));
    } else {
        const __m512i factor = _mm512_set1_epi32(-offset & 0xFFFF);
        __m512i wide = _mm512_madd_epi16(_mm512_cvtepi16_epi32(sums), factor);
        _mm512_storeu_si512(start, wide);
    }
}

CPU_INLINE void native_prepare(const fr_act_q8_256 *from, const native_form *f, native_x *x)
{
    __m256i sums = avx2_load(from->sums);
    x->q[0] = x->q[1] = from->q;
    if (f->order == NATIVE_BY_2) {
        native_by_2(from->q, x->room[0]);
        x->q[0] = x->room[0];
    }
    if (f->order == NATIVE_BY_8) {
        const bool two = f->scale_cols == 16;
        native_by_8(from->q, two ? 0x3333333333333333 : ~0ull, x->room[0]);
        if (two)
            native_by_8(from->q, 0xCCCCCCCCCCCCCCCC, x->room[1]);
        x->q[0] = x->room[0], x->q[1] = x->room[1];
    }
    if (f->offset)
        native_starts(sums, f->offset, f->scale_cols, x->start[0]);
    if (f->step)
        native_starts(sums, f->offset - f->step, f->scale_cols, x->start[1]);
    if (f->min && f->scale_cols == 32) {
        __m256i pairs = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
        _mm_storeu_si128((__m128i *)(void *)x->sums, _mm256_cvtepi32_epi16(pairs));
    } else if (f->min) {
        _mm256_storeu_si256((__m256i *)(void *)x->sums, sums);
    }
    __asm__("" : "+m"(*x)); /* or lanes are taken from registers, by shuffles, not from memory */
}

/* ---- sums ------------------------------------------------------------------------------------ */

CPU_INLINE __m512i native_four(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* The rows whose bit of scale s is set. */
CPU_INLINE __mmask16 native_step_rows(const uint8_t *p, int s, const native_form *f)
{
    const uint8_t *at = p + f->bits_at + s * f->bits_bytes;
    __mmask16 set;
    if (f->bits_bytes == 2)
        memcpy(&set, at, sizeof set);
    else if (f->bits_bytes == 16)
        set = _mm_test_epi8_mask(avx2_load_half(at), _mm_set1_epi8(1));
    else
        set = _mm512_test_epi32_mask(_mm512_loadu_si512(at), _mm512_set1_epi32(1));
    return set;
}

CPU_INLINE __m512i native_start(const uint8_t *p, const native_x *x, int s, const native_form *f)
{
    if (!f->offset)
        return _mm512_setzero_si512();
    __m512i start = _mm512_set1_epi32(x->start[0][s]);
    if (!f->step)
        return start;
    return _mm512_mask_set1_epi32(start, native_step_rows(p, s, f), x->start[1][s]);
}

/* In two chains: what waits for one of eight keeps later work out of the scheduler. */
CPU_INLINE __m512i native_sum_of_8(__m512i sum, const __m512i w[8], const int8_t *q)
{
    __m512i other = _mm512_setzero_si512();
    for (int j = 0; j < 8; j += 2) {
        sum = _mm512_dpbusd_epi32(sum, w[j], native_four(q + 4 * j));
        other = _mm512_dpbusd_epi32(other, w[j + 1], native_four(q + 4 * j + 4));
    }
    return _mm512_add_epi32(sum, other);
}

/* Scales of types of which avx512_is_whole holds: q6_K's. */
CPU_INLINE __m512i native_whole_scale(const uint8_t *p, int s)
{
    return _mm512_cvtepi8_epi32(avx2_load_half(p + 32 + 16 * s));
}

/* Integers in floats' place. */
CPU_INLINE __m512 native_add_whole(__m512 part, __m512i scale, __m512i sum)
{
    __m512i scaled = _mm512_mullo_epi32(scale, sum);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(part), scaled));
}

/* part + scale * sum for sub-block b. */
CPU_INLINE __m512 native_sub_block(__m512 part, const uint8_t *p, const __m512i w[8],
                                   const native_head *h, const native_tables *t,
                                   native_scale_fn *scale, const native_x *x, int b,
                                   const native_form *f)
{
    const bool by_8 = f->order == NATIVE_BY_8;
    const int n = 32 / f->scale_cols, per = by_8 ? 8 : 8 / n; /* registers of a scale */
    for (int i = 0; i < n; i++) {
        const int first = by_8 ? 0 : i * per;
        const int8_t *q = x->q[i] + 32 * b;
        __m512i sum = native_start(p, x, b * n + i, f);
        if (per == 8)
            sum = native_sum_of_8(sum, w, q);
        else
            for (int j = first; j < first + per; j++)
                sum = _mm512_dpbusd_epi32(sum, w[j], native_four(q + 4 * j));
        if (avx512_is_whole(f->type))
            part = native_add_whole(part, native_whole_scale(p, b * n + i), sum);
        else
            part = _mm512_fmadd_ps(scale(p, h, t, b * n + i), _mm512_cvtepi32_ps(sum), part);
    }
    return part;
}

/* The minima of a block times the sums of the activations. */
CPU_INLINE __m512i native_minima(const native_head *h, const native_x *x, const native_form *f)
{
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < (f->scale_cols == 32 ? 4 : 8); i++) {
        __m512i pairs = _mm512_cvtepu8_epi16(avx2_load(h->mn[i]));
        sum = _mm512_dpwssd_epi32(sum, pairs, native_four(x->sums + 2 * i));
    }
    return sum;
}

/* acc + what the block adds. */
CPU_INLINE __m512 native_add(__m512 acc, const native_head *h, const native_x *x, float x_d,
                             __m512 part, const native_form *f)
{
    const __m512 d = _mm512_set1_ps(x_d);
    if (avx512_is_whole(f->type))
        part = _mm512_cvtepi32_ps(_mm512_castps_si512(part));
    acc = _mm512_fmadd_ps(_mm512_mul_ps(h->d, d), part, acc);
    if (f->min)
        acc = _mm512_fnmadd_ps(_mm512_mul_ps(h->m, d), _mm512_cvtepi32_ps(native_minima(h, x, f)),
                               acc);
    return acc;
}

/* ---- sixteen rows ---------------------------------------------------------------------------- */

enum { NATIVE_KEPT = 32 }; /* blocks whose activations are prepared once a call: 8192 columns */

/* kept: the blocks' activations, or NULL. */
CPU_INLINE __m512 native_group(const cpu_dot_args *a, const uint8_t *group,
                               const avx2_stream *stream, const native_form *f,
                               const native_x *kept, const native_tables *t, native_head_fn *head,
                               native_codes_fn *codes, native_scale_fn *scale)
{
    const fr_act_q8_256 *from = a->x[0];
    const uint8_t *p = group + f->meta;
    const size_t lines = (f->bytes + 63) / 64;
    __m512 y = _mm512_setzero_ps();
    for (int64_t i = 0; i < a->cols / 256; i++, p += f->bytes, from++) {
        native_head h;
        native_x room;
        const native_x *x = kept ? kept + i : &room;
        __m512 part = _mm512_setzero_ps();
        const avx2_ahead ahead = avx2_ahead_of(stream, p);
        head(p, group, &h);
        if (!kept)
            native_prepare(from, f, &room);
#pragma GCC unroll 8
        for (int b = 0; b < 8; b++) {
            __m512i w[8];
            const size_t line = lines * (size_t)b / 8, next = lines * (size_t)(b + 1) / 8;
            avx2_ask_on(&ahead, 64 * line, 64 * (next - line));
            codes(p, b, t, w);
            part = native_sub_block(part, p, w, &h, t, scale, x, b, f);
        }
        y = native_add(y, &h, x, from->d, part, f);
    }
    return y;
}

/* Rows r0.. of which some may lie outside the call. */
CPU_INLINE void native_store(const cpu_dot_args *a, int64_t r0, int t, __m512 sums)
{
    int64_t skip = a->row_from - r0, left = a->row_to - r0;
    uint32_t lanes = left < NATIVE_ROWS ? (1u << left) - 1 : 0xFFFF;
    if (skip <= 0) {
        _mm512_mask_storeu_ps(a->y[t] - skip, (__mmask16)lanes, sums);
        return;
    }
    lanes &= 0xFFFFu << skip;
    _mm512_mask_compressstoreu_ps(a->y[t], (__mmask16)lanes, sums);
}

/* One token, blocks of 256. */
CPU_INLINE void native_dot(const cpu_dot_args *a, const native_form *f, native_tables_fn *tables,
                           native_head_fn *head, native_codes_fn *codes, native_scale_fn *scale)
{
    native_tables t;
    native_x kept[NATIVE_KEPT];
    const fr_act_q8_256 *from = a->x[0];
    const size_t row_bytes = fr_row_bytes(f->type, FR_LAYOUT_NATIVE, a->cols);
    const int64_t n_blocks = a->cols / 256;
    const bool keep = n_blocks <= NATIVE_KEPT;
    const avx2_stream stream = avx2_stream_of(a, row_bytes, NATIVE_ROWS);
    tables(&t);
    for (int64_t i = 0; i < n_blocks && keep; i++)
        native_prepare(from + i, f, &kept[i]);
    for (int64_t r = a->row_from / NATIVE_ROWS * NATIVE_ROWS; r < a->row_to; r += NATIVE_ROWS) {
        const uint8_t *group = (const uint8_t *)a->base + (size_t)r * row_bytes;
        native_store(
            a, r, 0,
            native_group(a, group, &stream, f, keep ? kept : NULL, &t, head, codes, scale));
    }
}

/* ---- blocks of 32 -----------------------------------------------------------------------------
 */

enum { NATIVE_STARTS = 1024 }; /* blocks whose sums' starts are kept: 32768 columns */

/* Of the first and the last 16 columns of a block; of all of them in [0]. */
typedef int32_t native_start_32[2];

CPU_INLINE int32_t native_sum_of_lanes(__m128i v)
{
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xB1)));
}

/* -offset times the sums of each block's activations. */
CPU_INLINE void native_starts_32(const fr_act_q8_32 *x, int64_t n, const native_form *f,
                                 native_start_32 *start)
{
    const __m256i one = _mm256_set1_epi8(1);
    for (int64_t i = 0; i < n; i++) {
        __m256i eight = _mm256_dpbusd_epi32(_mm256_setzero_si256(), one, avx2_load(x[i].q));
        __m128i first = _mm256_castsi256_si128(eight), last = _mm256_extracti128_si256(eight, 1);
        if (f->scale_cols == 32)
            first = _mm_add_epi32(first, last);
        else
            start[i][1] = -f->offset * native_sum_of_lanes(last);
        start[i][0] = -f->offset * native_sum_of_lanes(first);
    }
}

/* d * (the products' sums). */
CPU_INLINE __m512 native_block_32(const native_head *h, const __m512i w[8], const fr_act_q8_32 *x,
                                  const native_start_32 start, const native_form *f)
{
    __m512i sum = f->offset ? _mm512_set1_epi32(start[0]) : _mm512_setzero_si512();
    if (f->scale_cols == 32)
        return _mm512_mul_ps(h->d, _mm512_cvtepi32_ps(native_sum_of_8(sum, w, x->q)));
    __m512i last = f->offset ? _mm512_set1_epi32(start[1]) : _mm512_setzero_si512();
    for (int j = 0; j < 4; j++) {
        sum = _mm512_dpbusd_epi32(sum, w[j], native_four(x->q + 4 * j));
        last = _mm512_dpbusd_epi32(last, w[4 + j], native_four(x->q + 16 + 4 * j));
    }
    return _mm512_fmadd_ps(h->d_last, _mm512_cvtepi32_ps(last),
                           _mm512_mul_ps(h->d, _mm512_cvtepi32_ps(sum)));
}

/* y + n blocks from p on. meta: the rows' headers. */
CPU_INLINE __m512 native_blocks_32(__m512 y, const uint8_t *p, const uint8_t *meta,
                                   const avx2_stream *stream, const fr_act_q8_32 *x,
                                   const native_start_32 *start, int64_t n, const native_form *f,
                                   const native_tables *t, native_head_fn *head,
                                   native_codes_fn *codes)
{
    for (int64_t i = 0; i < n; i++, p += f->bytes, x++) {
        native_head h;
        __m512i w[8];
        const avx2_ahead ahead = avx2_ahead_of(stream, p);
        head(p, meta, &h);
        avx2_ask_on(&ahead, 0, f->bytes);
        codes(p, 0, t, w);
        y = _mm512_fmadd_ps(native_block_32(&h, w, x, start[i], f), _mm512_set1_ps(x->d), y);
        if (f->min)
            y = _mm512_fmadd_ps(h.m, _mm512_set1_ps(x->s), y);
    }
    return y;
}

/* Token t, blocks of 32. */
CPU_INLINE void native_dot_32(const cpu_dot_args *a, int t, const native_form *f,
                              native_tables_fn *tables, native_head_fn *head,
                              native_codes_fn *codes)
{
    native_tables room;
    native_start_32 start[NATIVE_STARTS];
    const fr_act_q8_32 *x = a->x[t];
    const int64_t n_blocks = a->cols / 32, most = NATIVE_STARTS;
    const size_t row_bytes = fr_row_bytes(f->type, FR_LAYOUT_NATIVE, a->cols);
    const avx2_stream stream = avx2_stream_of(a, row_bytes, NATIVE_ROWS);
    tables(&room);
    if (n_blocks <= most)
        native_starts_32(x, n_blocks, f, start);
    for (int64_t r = a->row_from / NATIVE_ROWS * NATIVE_ROWS; r < a->row_to; r += NATIVE_ROWS) {
        const uint8_t *group = (const uint8_t *)a->base + (size_t)r * row_bytes;
        const uint8_t *p = group + f->meta;
        __m512 y = _mm512_setzero_ps();
        for (int64_t i = 0, n; i < n_blocks; i += n) {
            n = n_blocks - i < most ? n_blocks - i : most;
            if (n_blocks > most)
                native_starts_32(x + i, n, f, start);
            y = native_blocks_32(y, p + (size_t)i * f->bytes, group, &stream, x + i, start, n, f,
                                 &room, head, codes);
        }
        native_store(a, r, t, y);
    }
}

#endif
