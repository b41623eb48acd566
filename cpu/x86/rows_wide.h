/* Sixteen rows at a time in 512-bit registers, for several tokens: rows.h's kernels with two of its
 * eights in every register and the same operations lane by lane. Only included by rows.h. */
#ifndef FR_CPU_X86_ROWS_WIDE_H
#define FR_CPU_X86_ROWS_WIDE_H

#define ROWS_WIDE_TOKENS 2 /* the fewest: with one, eight rows unpacked are eight rows used */

typedef struct {
    __m512i start[2], w[8];
} wide_codes;

CPU_INLINE __m512i wide_pair(__m256i low, __m256i high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

CPU_INLINE __m512 wide_pair_ps(__m256 low, __m256 high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

/* Unpacks sub-block b of both eights. */
CPU_INLINE void wide_unpack(const rows_at at[2], int b, const rows_form *f, rows_codes_fn *codes,
                            wide_codes *out)
{
    __m256i low[8], high[8];
    codes(&at[0], b, low);
    codes(&at[1], b, high);
    const rows_base base[2] = {rows_start(low, f), rows_start(high, f)};
    for (int j = 0; j < 8; j++)
        out->w[j] = wide_pair(low[j], high[j]);
    for (int i = 0; i < 2; i++)
        out->start[i] = wide_pair(base[0].start[i], base[1].start[i]);
}

CPU_INLINE __m512 wide_sum(__m512i start, const __m512i *w, const int8_t *x, const int n,
                           const rows_form *f)
{
    __m512i sum = start;
    for (int j = 0; j < n; j++) {
        int32_t four;
        memcpy(&four, x + 4 * j, sizeof four);
        __m512i fours = _mm512_set1_epi32(four);
        sum = f->is_signed ? _mm512_dpbusd_epi32(sum, fours, w[j])
                           : _mm512_dpbusd_epi32(sum, w[j], fours);
    }
    return _mm512_cvtepi32_ps(sum);
}

CPU_INLINE void wide_tile_32(const cpu_dot_args *a, rows_at at[2], const rows_form *f,
                             rows_head_fn *head, rows_codes_fn *codes, __m512 *acc)
{
    _Alignas(32) int8_t room[32];
    const int n = a->n_tokens;
    for (int64_t i = 0; i < a->cols / 32; i++) {
        rows_head low, high;
        wide_codes c;
        head(&at[0], &low);
        head(&at[1], &high);
        const __m512 d = wide_pair_ps(low.d, high.d);
        const __m512 m = f->min ? wide_pair_ps(low.m, high.m) : _mm512_setzero_ps();
        wide_unpack(at, 0, f, codes, &c);
        for (int t = 0; t < n; t++) {
            const fr_act_q8_32 *x = (const fr_act_q8_32 *)a->x[t] + i;
            __m512 sum = wide_sum(c.start[0], c.w, rows_x(x->q, f, room), 8, f);
            __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(x->d));
            __m512 y = _mm512_fmadd_ps(scale, sum, acc[t]);
            acc[t] = f->min ? _mm512_fmadd_ps(m, _mm512_set1_ps(x->s), y) : y;
        }
        rows_next(&at[0], f);
        rows_next(&at[1], f);
    }
}

/* Sub-block b of blocks of 256, for all tokens. */
CPU_INLINE void wide_sub_block(const cpu_dot_args *a, const rows_at at[2], int64_t i, int b,
                               const rows_head h[2], const rows_form *f, rows_codes_fn *codes,
                               __m512 *part, __m512i *mins)
{
    _Alignas(32) int8_t room[32];
    wide_codes c;
    const int n = a->n_tokens, s = f->scale_cols == 16 ? 2 * b : b;
    const bool two = f->scale_cols == 16;
    wide_unpack(at, b, f, codes, &c);
    const __m512 scale_0 = wide_pair_ps(rows_scale(&h[0], s), rows_scale(&h[1], s));
    const __m512 scale_1 =
        two ? wide_pair_ps(rows_scale(&h[0], s + 1), rows_scale(&h[1], s + 1)) : scale_0;
    const __m512i min = f->min ? wide_pair(rows_min_pair(&h[0], b, f), rows_min_pair(&h[1], b, f))
                               : _mm512_setzero_si512();
    for (int t = 0; t < n; t++) {
        const fr_act_q8_256 *x = (const fr_act_q8_256 *)a->x[t] + i;
        const int8_t *q = rows_x(x->q + 32 * b, f, room);
        __m512 y = _mm512_fmadd_ps(scale_0, wide_sum(c.start[0], c.w, q, two ? 4 : 8, f), part[t]);
        if (two)
            y = _mm512_fmadd_ps(scale_1, wide_sum(c.start[1], c.w + 4, q + 16, 4, f), y);
        part[t] = y;
        if (f->min) {
            int32_t sums;
            memcpy(&sums, x->sums + 2 * b, sizeof sums);
            mins[t] = _mm512_add_epi32(mins[t], _mm512_madd_epi16(min, _mm512_set1_epi32(sums)));
        }
    }
}

CPU_INLINE void wide_tile_256(const cpu_dot_args *a, rows_at at[2], const rows_form *f,
                              rows_head_fn *head, rows_codes_fn *codes, __m512 *acc)
{
    __m512 part[CPU_MAX_TOKENS];
    __m512i mins[CPU_MAX_TOKENS];
    const int n = a->n_tokens;
    for (int64_t i = 0; i < a->cols / 256; i++) {
        rows_head h[2];
        head(&at[0], &h[0]);
        head(&at[1], &h[1]);
        for (int t = 0; t < n; t++)
            part[t] = _mm512_setzero_ps(), mins[t] = _mm512_setzero_si512();
        for (int b = 0; b < 8; b++)
            wide_sub_block(a, at, i, b, h, f, codes, part, mins);
        const __m512 d = wide_pair_ps(h[0].d, h[1].d);
        const __m512 m = f->min ? wide_pair_ps(h[0].m, h[1].m) : d;
        for (int t = 0; t < n; t++) {
            __m512 x_d = _mm512_set1_ps(((const fr_act_q8_256 *)a->x[t] + i)->d);
            acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(d, x_d), part[t], acc[t]);
            if (f->min)
                acc[t] =
                    _mm512_fnmadd_ps(_mm512_mul_ps(m, x_d), _mm512_cvtepi32_ps(mins[t]), acc[t]);
        }
        rows_next(&at[0], f);
        rows_next(&at[1], f);
    }
}

/* Rows r0.. of which some may lie outside the call; r0 + 8 does not. */
CPU_INLINE void rows_sixteen(const cpu_dot_args *a, int64_t r0, const rows_form *f,
                             rows_head_fn *head, rows_codes_fn *codes)
{
    __m512 acc[CPU_MAX_TOKENS];
    rows_at at[2] = {rows_find(a, r0, f), rows_find(a, r0 + ROWS, f)};
    for (int t = 0; t < a->n_tokens; t++)
        acc[t] = _mm512_setzero_ps();
    if (f->weights == 32)
        wide_tile_32(a, at, f, head, codes, acc);
    else
        wide_tile_256(a, at, f, head, codes, acc);
    bool whole = r0 >= a->row_from && r0 + 2 * ROWS <= a->row_to;
    for (int t = 0; t < a->n_tokens; t++) {
        float lanes[2 * ROWS];
        _mm512_storeu_ps(whole ? a->y[t] + (r0 - a->row_from) : lanes, acc[t]);
        if (!whole)
            rows_store(a, r0, t, lanes, 2 * ROWS);
    }
}

#endif
