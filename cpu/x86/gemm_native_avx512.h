/* From the native layout to strips (gemm.inc): sixteen rows are a register of a strip. */
#ifndef FR_CPU_X86_GEMM_NATIVE_AVX512_H
#define FR_CPU_X86_GEMM_NATIVE_AVX512_H

#include "cpu/x86/native_avx512.h"
#include "cpu/x86/rows_avx2.h"

/* `step` in all bytes of the rows whose bit of scale s is set. */
CPU_INLINE __m512i gemm_native_step(const uint8_t *p, int s, const native_form *f)
{
    const uint8_t *at = p + f->bits_at + s * f->bits_bytes;
    __mmask16 rows;
    memcpy(&rows, at, sizeof rows);
    if (f->bits_bytes == 16)
        rows = _mm_test_epi8_mask(avx2_load_half(at), _mm_set1_epi8(1));
    return _mm512_maskz_mov_epi32(rows, _mm512_set1_epi8((char)f->step));
}

/* Registers j and 4 + j of a `by_8` form hold two bytes of each scale of 16: trades them, so that
 * the first four registers are of the first scale. */
CPU_INLINE void gemm_native_part_scales(__m512i w[8])
{
    for (int j = 0; j < 4; j++) {
        const __m512i a = w[j], c = w[4 + j];
        w[j] = _mm512_mask_blend_epi16(0xAAAAAAAA, a, _mm512_slli_epi32(c, 16));
        w[4 + j] = _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(a, 16), c);
    }
}

/* A block of sixteen rows, k.. of the strip. */
CPU_INLINE void gemm_native_expand(const uint8_t *p, const uint8_t *meta, int k, gemm_strip *strip,
                                   const native_form *f, const native_tables *t,
                                   native_head_fn *head, native_codes_fn *codes,
                                   native_scale_fn *scale_of)
{
    const int n = 32 / f->scale_cols;
    native_head h;
    head(p, meta, &h);
    _mm512_store_ps(strip->d + k, h.d);
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) {
        __m512i w[8];
        codes(p, b, t, w);
        if (f->by_8 && f->scale_cols == 16)
            gemm_native_part_scales(w);
        for (int j = 0; j < 8; j++) {
            if (f->step)
                w[j] = _mm512_add_epi8(w[j], gemm_native_step(p, n * b + j * n / 8, f));
            _mm512_store_si512(strip->codes[8 * b + j][k], w[j]);
        }
        for (int s = n * b; s < n * (b + 1); s++) {
            __m512 scale = scale_of(p, &h, t, s);
            if (gemm_whole_of(f->type).most_abs)
                _mm512_store_si512(
                    strip->whole[s] + k,
                    _mm512_and_si512(_mm512_cvtps_epi32(scale), _mm512_set1_epi32(0xFFFF)));
            else
                _mm512_store_ps(strip->scale[s] + k, scale);
        }
    }
    if (f->min) {
        _mm512_store_ps(strip->m[0] + k, h.m);
        for (int i = 0; i < 128 / f->scale_cols; i++)
            _mm512_store_si512(strip->min[i][k], _mm512_cvtepu8_epi16(avx2_load(h.mn[i])));
    }
}

/* Where block i of 256 columns of a group stands (of 32: 8 * i), or, behind the last column, the
 * first block of the group that follows the call's strips. */
CPU_INLINE const uint8_t *gemm_native_at(const cpu_dot_args *a, int64_t r, int64_t i, size_t bytes,
                                         size_t meta)
{
    const size_t row_bytes = fr_row_bytes(a->type, FR_LAYOUT_NATIVE, a->cols);
    if (i * GEMM_COLS >= a->cols)
        i = 0, r += GEMM_STRIPS * GEMM_ROWS;
    return (const uint8_t *)a->base + (size_t)r * row_bytes + meta + (size_t)i * bytes;
}

/* What follows chunk i of n groups from row r on. */
CPU_INLINE gemm_ahead gemm_native_next(const cpu_dot_args *a, int64_t r, int n, int64_t i,
                                       size_t bytes, size_t meta)
{
    gemm_ahead g = {.n = n, .bytes = bytes};
    for (int k = 0; k < n; k++)
        g.p[k] = gemm_native_at(a, r + k * NATIVE_ROWS, i + 1, bytes, meta);
    return g;
}

/* All columns of rows r0 .. r0 + 16 * n, of which some may lie outside the call. */
CPU_INLINE void gemm_native_pass(const cpu_dot_args *a, int64_t r0, int n, const native_form *f,
                                 const native_tables *t, native_head_fn *head,
                                 native_codes_fn *codes, native_scale_fn *scale_of, gemm_room *room)
{
    const gemm_form form = {256, f->scale_cols, f->offset, f->min, f->by_8, gemm_whole_of(f->type)};
    gemm_clear(a, n, room);
    for (int64_t i = 0; i < a->cols / GEMM_COLS; i++) {
        for (int g = 0; g < n; g++)
            gemm_native_expand(gemm_native_at(a, r0 + g * NATIVE_ROWS, i, f->bytes, f->meta),
                               gemm_native_at(a, r0 + g * NATIVE_ROWS, 0, f->bytes, 0),
                               g % (GEMM_ROWS / NATIVE_ROWS) * NATIVE_ROWS,
                               &room->strip[g / (GEMM_ROWS / NATIVE_ROWS)], f, t, head, codes,
                               scale_of);
        gemm_ahead ahead = gemm_native_next(a, r0, n, i, f->bytes, f->meta);
        gemm_add(a, &form, i, 1, n, &ahead, room);
    }
    gemm_store(a, r0, n, room);
}

CPU_INLINE void gemm_native_dot(const cpu_dot_args *a, const native_form *f,
                                native_tables_fn *tables, native_head_fn *head,
                                native_codes_fn *codes, native_scale_fn *scale_of)
{
    gemm_room room;
    native_tables t;
    tables(&t);
    for (int64_t r = a->row_from / NATIVE_ROWS * NATIVE_ROWS, n; r < a->row_to;
         r += n * NATIVE_ROWS) {
        n = (a->row_to - r + NATIVE_ROWS - 1) / NATIVE_ROWS;
        n = n < GEMM_SIXTEENS ? n : GEMM_SIXTEENS;
        gemm_native_pass(a, r, (int)n, f, &t, head, codes, scale_of, &room);
    }
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

/* n_blocks of sixteen rows, k.. of the strip. */
CPU_INLINE void gemm_native_expand_32(const uint8_t *p, int n_blocks, int k, gemm_strip *strip,
                                      const native_form *f, const native_tables *t,
                                      native_head_fn *head, native_codes_fn *codes)
{
    const __m512i offset = _mm512_set1_epi8((char)f->offset), top = _mm512_set1_epi8(-128);
    for (int b = 0; b < n_blocks; b++, p += f->bytes) {
        native_head h;
        __m512i w[8], sum = _mm512_setzero_si512();
        head(p, NULL, &h);
        codes(p, 0, t, w);
        for (int j = 0; j < 8; j++) {
            w[j] = f->offset ? _mm512_sub_epi8(w[j], offset) : w[j];
            sum = _mm512_dpbusd_epi32(sum, top, w[j]);
            _mm512_store_si512(strip->codes[8 * b + j][k], w[j]);
        }
        _mm512_store_si512(strip->start[b] + k,
                           _mm512_sub_epi32(_mm512_set1_epi32(GEMM_MAGIC_BITS), sum));
        _mm512_store_ps(strip->scale[b] + k, h.d);
        _mm512_store_ps(strip->offset[b] + k, _mm512_mul_ps(h.d, _mm512_set1_ps(GEMM_MAGIC)));
        if (f->min)
            _mm512_store_ps(strip->m[b] + k, h.m);
    }
}

/* As gemm_native_pass. */
CPU_INLINE void gemm_native_pass_32(const cpu_dot_args *a, int64_t r0, int n, const native_form *f,
                                    const native_tables *t, native_head_fn *head,
                                    native_codes_fn *codes, gemm_room *room)
{
    const gemm_form form = {32, 32, 0, f->min, false, {0, 0}};
    const size_t bytes = GEMM_COLS / 32 * f->bytes;
    gemm_clear(a, n, room);
    for (int64_t i = 0; i * GEMM_COLS < a->cols; i++) {
        const int64_t left = a->cols - i * GEMM_COLS;
        const int n_blocks = (int)(left < GEMM_COLS ? left : GEMM_COLS) / 32;
        for (int g = 0; g < n; g++)
            gemm_native_expand_32(gemm_native_at(a, r0 + g * NATIVE_ROWS, i, bytes, 0), n_blocks,
                                  g % (GEMM_ROWS / NATIVE_ROWS) * NATIVE_ROWS,
                                  &room->strip[g / (GEMM_ROWS / NATIVE_ROWS)], f, t, head, codes);
        gemm_ahead ahead = gemm_native_next(a, r0, n, i, bytes, 0);
        gemm_add(a, &form, i, n_blocks, n, &ahead, room);
    }
    gemm_store(a, r0, n, room);
}

CPU_INLINE void gemm_native_dot_32(const cpu_dot_args *a, const native_form *f,
                                   native_tables_fn *tables, native_head_fn *head,
                                   native_codes_fn *codes)
{
    gemm_room room;
    native_tables t;
    tables(&t);
    for (int64_t r = a->row_from / NATIVE_ROWS * NATIVE_ROWS, n; r < a->row_to;
         r += n * NATIVE_ROWS) {
        n = (a->row_to - r + NATIVE_ROWS - 1) / NATIVE_ROWS;
        n = n < GEMM_SIXTEENS ? n : GEMM_SIXTEENS;
        gemm_native_pass_32(a, r, (int)n, f, &t, head, codes, &room);
    }
}

#endif
