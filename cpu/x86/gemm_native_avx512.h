/* From the native layout to strips (gemm.inc): sixteen rows are a register of a strip. */
#ifndef FR_CPU_X86_GEMM_NATIVE_AVX512_H
#define FR_CPU_X86_GEMM_NATIVE_AVX512_H

#include "cpu/x86/native_avx512.h"
#include "cpu/x86/rows_avx2.h"

/* `step` in all bytes of the rows whose bit of scale s is set. */
CPU_INLINE __m512i gemm_native_step(const uint8_t *p, int s, const native_form *f)
{
    return _mm512_maskz_mov_epi32(native_step_rows(p, s, f), _mm512_set1_epi8((char)f->step));
}

/* BY_8: of each lane of four registers, in place, byte i of register k becomes byte k of register
 * i. So registers of columns 8i + j for j = 0..3 are then of columns 8i .. 8i + 3 for i = 0..3. */
CPU_INLINE void gemm_native_transpose(__m512i w[4])
{
    const __m512i up_2 = _mm512_set4_epi32(0x0D0C0D0C, 0x09080908, 0x05040504, 0x01000100);
    const __m512i down_2 = _mm512_set4_epi32(0x0F0E0F0E, 0x0B0A0B0A, 0x07060706, 0x03020302);
    const __m512i up_1 = _mm512_set4_epi32(0x0E0E0C0C, 0x0A0A0808, 0x06060404, 0x02020000);
    const __m512i down_1 = _mm512_set4_epi32(0x0F0F0D0D, 0x0B0B0909, 0x07070505, 0x03030101);
    const __mmask64 upper_2 = 0xCCCCCCCCCCCCCCCC, upper_1 = 0xAAAAAAAAAAAAAAAA;
    __m512i v[4];
    for (int i = 0; i < 2; i++) {
        v[i] = _mm512_mask_shuffle_epi8(w[i], upper_2, w[i + 2], up_2);
        v[i + 2] = _mm512_mask_shuffle_epi8(w[i + 2], ~upper_2, w[i], down_2);
    }
    for (int i = 0; i < 4; i += 2) {
        w[i] = _mm512_mask_shuffle_epi8(v[i], upper_1, v[i + 1], up_1);
        w[i + 1] = _mm512_mask_shuffle_epi8(v[i + 1], ~upper_1, v[i], down_1);
    }
}

/* BY_2: registers of every second column of eight become those of the first and last four. */
CPU_INLINE void gemm_native_weave(__m512i w[8])
{
    const __m512i first = _mm512_set4_epi32(0x0D0D0C0C, 0x09090808, 0x05050404, 0x01010000);
    const __m512i last = _mm512_set4_epi32(0x0F0F0E0E, 0x0B0B0A0A, 0x07070606, 0x03030202);
    const __mmask64 odd = 0xAAAAAAAAAAAAAAAA;
    for (int j = 0; j < 8; j += 2) {
        const __m512i a = w[j], b = w[j + 1];
        w[j] = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(a, first), odd, b, first);
        w[j + 1] = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(a, last), odd, b, last);
    }
}

/* Registers of another order become those of columns 4j .. 4j + 3. */
CPU_INLINE void gemm_native_in_order(__m512i w[8], const native_order order)
{
    if (order == NATIVE_BY_2)
        gemm_native_weave(w);
    if (order != NATIVE_BY_8)
        return;
    gemm_native_transpose(w);
    gemm_native_transpose(w + 4);
    const __m512i v[8] = {w[0], w[4], w[1], w[5], w[2], w[6], w[3], w[7]};
    memcpy(w, v, sizeof v);
}

/* What is read of sixteen rows while pieces are made. */
typedef struct {
    native_head h;
    const uint8_t *p;     /* their block, or blocks */
    const uint8_t *ahead; /* the next one's of these rows, or of those which follow */
} gemm_native_rows;

/* Where strips of a native matrix come from. */
typedef struct {
    gemm_source base;
    size_t row_bytes;
    native_tables t;
    gemm_native_rows rows[GEMM_ROWS / NATIVE_ROWS];
} gemm_native_source;

/* Where columns 256 * i of a group stand, `bytes` a chunk. */
CPU_INLINE const uint8_t *gemm_native_at(const gemm_native_source *g, int64_t r, int64_t i,
                                         size_t bytes, size_t meta)
{
    return (const uint8_t *)g->base.a->base + (size_t)r * g->row_bytes + meta + (size_t)i * bytes;
}

/* Rows r.. of a part. What is asked for while they are expanded: the next chunk's, or behind the
 * last column the first ones of the rows of the next pass. */
CPU_INLINE void gemm_native_open(const gemm_native_source *g, gemm_native_rows *rows, int64_t r,
                                 int64_t chunk, size_t bytes, size_t meta)
{
    rows->p = gemm_native_at(g, r, chunk, bytes, meta);
    rows->ahead = (chunk + 1) * GEMM_COLS < g->base.a->cols
                      ? rows->p + bytes
                      : gemm_native_at(g, r + GEMM_STRIPS * GEMM_ROWS, 0, bytes, meta);
}

/* A piece's part of what is asked for. */
CPU_INLINE void gemm_native_ask(const gemm_native_rows *rows, int b, const size_t bytes)
{
    const size_t lines = (bytes + 63) / 64, n = (lines + 7) / 8;
    const uint8_t *from = rows->ahead + 64 * n * (size_t)b;
    for (size_t i = 0; i < n; i++)
        _mm_prefetch((const char *)from + 64 * i, _MM_HINT_T1);
}

CPU_INLINE void gemm_native_put_scale(gemm_strip *strip, int s, int k, __m512 scale,
                                      const native_form *f)
{
    if (gemm_whole_of(f->type).most_abs)
        _mm512_store_si512(strip->whole[s] + k,
                           _mm512_and_si512(_mm512_cvtps_epi32(scale), _mm512_set1_epi32(0xFFFF)));
    else
        _mm512_store_ps(strip->scale[s] + k, scale);
}

/* 32 columns of sixteen rows, k.. of the strip. */
CPU_INLINE void gemm_native_codes(const gemm_native_rows *rows, const native_tables *t, int k,
                                  const int b, gemm_strip *strip, const native_form *f,
                                  native_codes_fn *codes, native_scale_fn *scale_of)
{
    const int n = 32 / f->scale_cols;
    const uint8_t *p = rows->p;
    __m512i w[8];
    codes(p, b, t, w);
    gemm_native_in_order(w, f->order);
    for (int j = 0; j < 8; j++) {
        if (f->step)
            w[j] = _mm512_add_epi8(w[j], gemm_native_step(p, n * b + j * n / 8, f));

        _mm512_store_si512(strip->codes[8 * b + j][k], w[j]);
    }
    for (int s = n * b; s < n * (b + 1); s++)
        gemm_native_put_scale(strip, s, k, scale_of(p, &rows->h, t, s), f);
}

CPU_INLINE void gemm_native_heads(gemm_native_source *g, const gemm_part *part, gemm_strip *strip,
                                  const native_form *f, native_head_fn *head)
{
    for (int i = 0; i < part->n_sixteens; i++) {
        gemm_native_rows *rows = &g->rows[i];
        const int k = i * NATIVE_ROWS;
        gemm_native_open(g, rows, part->r + k, part->chunk, f->bytes, f->meta);
        head(rows->p, gemm_native_at(g, part->r + k, 0, f->bytes, 0), &rows->h);
        _mm512_store_ps(strip->d + k, rows->h.d);
        if (!f->min)
            continue;
        _mm512_store_ps(strip->m[0] + k, rows->h.m);
        for (int s = 0; s < 128 / f->scale_cols; s++)
            _mm512_store_si512(strip->min[s][k], _mm512_cvtepu8_epi16(avx2_load(rows->h.mn[s])));
    }
}

/* gemm_source.expand, blocks of 256. */
CPU_INLINE void gemm_native_expand(gemm_native_source *g, const gemm_part *part, int b,
                                   gemm_strip *strip, const native_form *f, native_head_fn *head,
                                   native_codes_fn *codes, native_scale_fn *scale_of)
{
    if (b == 0)
        gemm_native_heads(g, part, strip, f, head);
    for (int i = 0; i < part->n_sixteens; i++) {
        const gemm_native_rows *rows = &g->rows[i];
        gemm_native_ask(rows, b, f->bytes);
#define PIECE(B)                                                                                   \
    case B:                                                                                        \
        gemm_native_codes(rows, &g->t, i *NATIVE_ROWS, B, strip, f, codes, scale_of);              \
        break;
        switch (b) { /* so that shifts by it are known */
            PIECE(0)
            PIECE(1)
            PIECE(2)
            PIECE(3)
            PIECE(4)
            PIECE(5)
            PIECE(6)
            PIECE(7)
        }
#undef PIECE
    }
}

CPU_INLINE void gemm_native_dot(const cpu_dot_args *a, gemm_native_source *g, const native_form *f,
                                native_tables_fn *tables)
{
    const gemm_form form = {.weights = 256,
                            .scale_cols = f->scale_cols,
                            .offset = f->offset,
                            .min = f->min,
                            .whole = gemm_whole_of(f->type),
                            .exact = avx512_is_whole(f->type)};
    g->row_bytes = fr_row_bytes(a->type, FR_LAYOUT_NATIVE, a->cols);
    tables(&g->t);
    gemm_run(a, &form, a->row_from / NATIVE_ROWS * NATIVE_ROWS, &g->base);
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

/* gemm_source.expand: block b. */
CPU_INLINE void gemm_native_expand_32(gemm_native_source *g, const gemm_part *part, int b,
                                      gemm_strip *strip, const native_form *f, native_head_fn *head,
                                      native_codes_fn *codes)
{
    const size_t bytes = GEMM_COLS / 32 * f->bytes;
    const __m512i more = _mm512_set1_epi8((char)(128 - f->offset));
    const bool is_there = b < gemm_blocks_32(g->base.a, part->chunk);
    for (int i = 0; i < part->n_sixteens; i++) {
        gemm_native_rows *rows = &g->rows[i];
        const int k = i * NATIVE_ROWS;
        __m512i w[8];
        if (b == 0)
            gemm_native_open(g, rows, part->r + k, part->chunk, bytes, f->meta);
        gemm_native_ask(rows, b, bytes);
        if (!is_there)
            continue;
        const uint8_t *p = rows->p + (size_t)b * f->bytes;
        head(p, gemm_native_at(g, part->r + k, 0, 0, 0), &rows->h);
        codes(p, 0, &g->t, w);
        for (int j = 0; j < 8; j++)
            _mm512_store_si512(strip->codes[8 * b + j][k],
                               f->offset == 128 ? w[j] : _mm512_add_epi8(w[j], more));
        const __m512 d = rows->h.d;
        _mm512_store_ps(strip->scale[b] + k, d);
        _mm512_store_ps(strip->offset[b] + k, _mm512_mul_ps(d, _mm512_set1_ps(FR_ACT_MAGIC)));
        if (f->min)
            _mm512_store_ps(strip->m[b] + k, rows->h.m);
    }
}

CPU_INLINE void gemm_native_dot_32(const cpu_dot_args *a, gemm_native_source *g,
                                   const native_form *f, native_tables_fn *tables)
{
    const gemm_form form = {.weights = 32, .scale_cols = 32, .offset = 128, .min = f->min};
    g->row_bytes = fr_row_bytes(a->type, FR_LAYOUT_NATIVE, a->cols);
    tables(&g->t);
    gemm_run(a, &form, a->row_from / NATIVE_ROWS * NATIVE_ROWS, &g->base);
}

#endif
