/* Weights of the common forms by words: what one thread decodes at a time, an *atom*: for ROWS rows
 * the same columns of one sub-block of 32. The byte maps are in the headers of runtime/quant/types
 * and in maps.h; the forms that are not here are decoded weight by weight (RowOf).
 *
 * Atoms<F> for a form F:
 *   rows, runs      of an atom; a run is 4 neighbouring columns
 *   per             atoms in a sub-block (of `rows` rows)
 *   together        of them that a thread of a matrix-vector kernel takes, neighbours
 *   align           of blocks
 *   column(a, i)    first column of run i of atom a in the sub-block
 *   load(blk, r, b, a)   of the chunk at blk: rows r * `rows` .. of the group, sub-block b, atom a
 */
#ifndef FR_CUDA_ATOMS_CUH
#define FR_CUDA_ATOMS_CUH

#include "cuda/device_code.cuh"

namespace FERRY_GPU_NS
{

/* Weight = scale * q - low. */
template <int ROWS, int RUNS> struct Atom {
    float q[ROWS][RUNS][4], scale[ROWS][RUNS], low[ROWS];
};

template <class F> struct Atoms {
    static constexpr bool there = false;
};

/* ---- words ---------------------------------------------------------------------------------- */

struct Words4 {
    uint32_t w[4];
};

__device__ __forceinline__ uint32_t load_4(const uint8_t *p)
{
    return __ldg((const uint32_t *)p);
}

__device__ __forceinline__ uint2 load_8(const uint8_t *p)
{
    return __ldg((const uint2 *)p);
}

/* 16 bytes aligned to ALIGN = 16 or 8. */
template <int ALIGN> __device__ __forceinline__ Words4 load_16(const uint8_t *p)
{
    if constexpr (ALIGN >= 16) {
        uint4 v = __ldg((const uint4 *)p);
        return Words4{{v.x, v.y, v.z, v.w}};
    } else {
        uint2 a = load_8(p), b = load_8(p + 8);
        return Words4{{a.x, a.y, b.x, b.y}};
    }
}

__device__ __forceinline__ uint32_t load_2(const uint8_t *p)
{
    return __ldg((const uint16_t *)p);
}

/* N words aligned to 2; reads nothing else. */
template <int N> __device__ __forceinline__ void load_halves(const uint8_t *p, uint32_t (&out)[N])
{
    if ((uintptr_t)p % 4 == 0) {
        FERRY_UNROLL
        for (int i = 0; i < N; i++)
            out[i] = load_4(p + 4 * i);
        return;
    }
    uint32_t low = load_2(p);
    FERRY_UNROLL
    for (int i = 0; i < N - 1; i++) {
        uint32_t w = load_4(p + 2 + 4 * i);
        out[i] = low | w << 16;
        low = w >> 16;
    }
    out[N - 1] = low | load_2(p + 4 * N - 2) << 16;
}

/* Byte i of v, less `offset`, as a float: put below the exponent of 2^23 and subtracted again, as
 * conversions from int are slow. */
__device__ __forceinline__ float byte_float(uint32_t v, int i, float offset = 0)
{
    return __int_as_float((int)__byte_perm(v, 0x4B000000u, 0x7440u | (unsigned)i)) -
           (8388608.0f + offset);
}

/* The same of a signed byte. */
__device__ __forceinline__ float signed_byte_float(uint32_t v, int i)
{
    return byte_float(v ^ 0x80808080u, i, 128);
}

/* Numbers of 16 bits: number i % 2 of a word. */
__device__ __forceinline__ float f16_float(uint32_t v, int i)
{
    return __half2float(__ushort_as_half((unsigned short)(v >> (16 * i))));
}

__device__ __forceinline__ float bf16_float(uint32_t v, int i)
{
    return __int_as_float((int)(i ? v & 0xFFFF0000u : v << 16));
}

/* d of four rows in 8 bytes. */
__device__ __forceinline__ void load_scales(const uint8_t *p, float (&d)[4])
{
    uint2 v = load_8(p);
    FERRY_UNROLL
    for (int r = 0; r < 4; r++)
        d[r] = f16_float(r < 2 ? v.x : v.y, r % 2);
}

/* ---- floats --------------------------------------------------------------------------------- */

template <> struct Atoms<form_f32_plain> {
    static constexpr bool there = true, has_low = false;
    static constexpr int rows = 1, runs = 1, per = 8, together = 1, align = 16;
    static __device__ __forceinline__ int column(int a, int)
    {
        return 4 * a;
    }
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int, int a,
                                                Atom<rows, runs> &out)
    {
        Words4 v = load_16<align>(blk + 16 * a);
        out.scale[0][0] = 1;
        FERRY_UNROLL
        for (int i = 0; i < 4; i++)
            out.q[0][0][i] = __int_as_float((int)v.w[i]);
    }
};

/* Two of 16 bits in a word, one row: 8 columns. */
template <float (*VALUE)(uint32_t, int)> struct HalvesPlain {
    static constexpr bool there = true, has_low = false;
    static constexpr int rows = 1, runs = 2, per = 4, together = 1, align = 16;
    static __device__ __forceinline__ int column(int a, int run)
    {
        return 8 * a + 4 * run;
    }
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int, int a,
                                                Atom<rows, runs> &out)
    {
        Words4 v = load_16<align>(blk + 16 * a);
        FERRY_UNROLL
        for (int run = 0; run < runs; run++) {
            out.scale[0][run] = 1;
            FERRY_UNROLL
            for (int i = 0; i < 4; i++)
                out.q[0][run][i] = VALUE(v.w[2 * run + i / 2], i % 2);
        }
    }
};
template <> struct Atoms<form_f16_plain> : HalvesPlain<f16_float> {
};
template <> struct Atoms<form_bf16_plain> : HalvesPlain<bf16_float> {
};

/* 16 rows, 64 bytes per pair of columns. */
template <float (*VALUE)(uint32_t, int)> struct HalvesR16 {
    static constexpr bool there = true, has_low = false;
    static constexpr int rows = 4, runs = 1, per = 8, together = 1, align = 16;
    static __device__ __forceinline__ int column(int a, int)
    {
        return 4 * a;
    }
    static __device__ __forceinline__ void load(const uint8_t *blk, int quad, int, int a,
                                                Atom<rows, runs> &out)
    {
        Words4 v[2] = {load_16<align>(blk + 128 * a + 16 * quad),
                       load_16<align>(blk + 128 * a + 64 + 16 * quad)};
        FERRY_UNROLL
        for (int r = 0; r < rows; r++) {
            out.scale[r][0] = 1;
            FERRY_UNROLL
            for (int i = 0; i < 4; i++)
                out.q[r][0][i] = VALUE(v[i / 2].w[r], i % 2);
        }
    }
};
template <> struct Atoms<form_f16_il> : HalvesR16<f16_float> {
};
template <> struct Atoms<form_bf16_il> : HalvesR16<bf16_float> {
};

/* ---- q8_0 ----------------------------------------------------------------------------------- */

template <> struct Atoms<form_q8_0_plain> {
    static constexpr bool there = true, has_low = false;
    static constexpr int rows = 1, runs = 2, per = 4, together = 1, align = 2;
    static __device__ __forceinline__ int column(int a, int run)
    {
        return 8 * a + 4 * run;
    }
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int, int a,
                                                Atom<rows, runs> &out)
    {
        uint32_t w[2];
        load_halves(blk + 2 + 8 * a, w);
        FERRY_UNROLL
        for (int run = 0; run < runs; run++) {
            out.scale[0][run] = f16_float(load_2(blk), 0);
            FERRY_UNROLL
            for (int i = 0; i < 4; i++)
                out.q[0][run][i] = signed_byte_float(w[run], i);
        }
    }
};

template <> struct Atoms<form_q8_0_il> {
    static constexpr bool there = true, has_low = false;
    static constexpr int rows = 4, runs = 1, per = 8, together = 2, align = 16;
    static __device__ __forceinline__ int column(int a, int)
    {
        return 4 * a;
    }
    static __device__ __forceinline__ void load(const uint8_t *blk, int quad, int, int a,
                                                Atom<rows, runs> &out)
    {
        float d[4];
        load_scales(blk + 8 * quad, d);
        Words4 v = load_16<align>(blk + 16 + 32 * a + 16 * quad);
        FERRY_UNROLL
        for (int r = 0; r < rows; r++) {
            out.scale[r][0] = d[r];
            FERRY_UNROLL
            for (int i = 0; i < 4; i++)
                out.q[r][0][i] = signed_byte_float(v.w[r], i);
        }
    }
};

template <> struct Atoms<form_q8_0_native> {
    static constexpr bool there = true, has_low = false;
    static constexpr int rows = 4, runs = 1, per = 8, together = 2, align = 16;
    static __device__ __forceinline__ int column(int a, int)
    {
        return 4 * a;
    }
    static __device__ __forceinline__ void load(const uint8_t *blk, int quad, int, int a,
                                                Atom<rows, runs> &out)
    {
        float d[4];
        load_scales(blk + 8 * quad, d);
        Words4 v = load_16<align>(blk + 32 + 64 * a + 16 * quad);
        FERRY_UNROLL
        for (int r = 0; r < rows; r++) {
            out.scale[r][0] = d[r];
            FERRY_UNROLL
            for (int i = 0; i < 4; i++)
                out.q[r][0][i] = byte_float(v.w[r], i, 128);
        }
    }
};

/* ---- q4_K, q5_K: scales and minima of 6 bits ------------------------------------------------ */

static const uint32_t NIBBLES = 0x0F0F0F0Fu, PAIRS = 0x03030303u, ONES = 0x01010101u;

/* scale and low of sub-block b from four rows' bytes. */
template <int RUNS>
__device__ __forceinline__ void set_scales(const float (&d)[4], const float (&m)[4], uint32_t sc,
                                           uint32_t mn, Atom<4, RUNS> &out)
{
    FERRY_UNROLL
    for (int r = 0; r < 4; r++) {
        out.low[r] = m[r] * byte_float(mn, r);
        FERRY_UNROLL
        for (int run = 0; run < RUNS; run++)
            out.scale[r][run] = d[r] * byte_float(sc, r);
    }
}

/* Native: FR_SCALES_6X8_16 at 64. Minima of rows stand in every other byte. */
__device__ __forceinline__ void scales_native(const uint8_t *blk, int quad, int b, Atom<4, 2> &out)
{
    const unsigned every_other = b % 2 ? 0x7531u : 0x6420u;
    float d[4], m[4];
    load_scales(blk + 8 * quad, d);
    load_scales(blk + 32 + 8 * quad, m);
    uint32_t sc_high = load_4(blk + 64 + 16 * (b % 4) + 4 * quad) >> (2 * (b / 4));
    uint32_t sc_low = load_4(blk + 128 + 16 * b + 4 * quad);
    uint2 high = load_8(blk + 64 + 32 * (b / 2 % 2) + 8 * quad);
    uint2 low = load_8(blk + 128 + 32 * (b / 2) + 8 * quad);
    uint32_t mn_high = __byte_perm(high.x, high.y, every_other) >> (4 + 2 * (b / 4));
    uint32_t mn_low = __byte_perm(low.x, low.y, every_other) >> 4;
    set_scales(d, m, (sc_low & NIBBLES) | (sc_high & PAIRS) << 4,
               (mn_low & NIBBLES) | (mn_high & PAIRS) << 4, out);
}

/* Four rows: FR_SCALES_6X8_R4 at 16. */
__device__ __forceinline__ void scales_r4(const uint8_t *blk, int b, Atom<4, 2> &out)
{
    float d[4], m[4];
    load_scales(blk, d);
    load_scales(blk + 8, m);
    uint32_t high = load_4(blk + 16 + 4 * (b % 4)) >> (4 * (b / 4));
    uint32_t low = load_4(blk + 32 + 4 * b);
    set_scales(d, m, (low & NIBBLES) | (high & PAIRS) << 4,
               (low >> 4 & NIBBLES) | (high >> 2 & PAIRS) << 4, out);
}

/* Plain: FR_SCALES_6X8 at 4. */
__device__ __forceinline__ void scales_plain(const uint8_t *blk, int b, Atom<1, 4> &out)
{
    uint32_t dm = load_4(blk);
    int at = 8 * (b % 4), top = b < 4 ? 4 : 6;
    uint32_t first = load_4(blk + 4) >> at, second = load_4(blk + 8) >> at;
    uint32_t third = load_4(blk + 12) >> at;
    uint32_t sc = ((b < 4 ? first : third) & 15) | (first >> top & 3) << 4;
    uint32_t mn = ((b < 4 ? second : third >> 4) & 15) | (second >> top & 3) << 4;
    out.low[0] = f16_float(dm, 1) * (float)mn;
    FERRY_UNROLL
    for (int run = 0; run < 4; run++)
        out.scale[0][run] = f16_float(dm, 0) * (float)sc;
}

/* Nibbles of four rows, the low ones one run and the high ones another; high[run] has the bits
 * above them in place. */
__device__ __forceinline__ void split_nibbles(const Words4 &v, const uint32_t (&high)[2][4],
                                              float offset, Atom<4, 2> &out)
{
    FERRY_UNROLL
    for (int r = 0; r < 4; r++)
        FERRY_UNROLL
    for (int run = 0; run < 2; run++) {
        uint32_t w = (v.w[r] >> (4 * run) & NIBBLES) | high[run][r];
        FERRY_UNROLL
        for (int i = 0; i < 4; i++)
            out.q[r][run][i] = byte_float(w, i, offset);
    }
}

/* Where the runs stand: N16 (maps.h). */
struct ColumnsNative {
    static constexpr bool there = true;
    static constexpr int rows = 4, runs = 2, per = 4, together = 4, align = 16;
    static __device__ __forceinline__ int column(int a, int run)
    {
        return 4 * a + 16 * run;
    }
};

/* N4: atom a is h = a % 2, j = a / 2 and a / 2 + 2. */
struct ColumnsR4 {
    static constexpr bool there = true;
    static constexpr int rows = 4, runs = 2, per = 4, together = 4;
    static __device__ __forceinline__ int column(int a, int run)
    {
        return 16 * (a % 2) + 4 * (a / 2) + 8 * run;
    }
};

/* Half a sub-block of one row. */
struct ColumnsPlain {
    static constexpr bool there = true;
    static constexpr int rows = 1, runs = 4, per = 2, together = 1;
    static __device__ __forceinline__ int column(int a, int run)
    {
        return 16 * a + 4 * run;
    }
};

template <> struct Atoms<form_q4_K_native> : ColumnsNative {
    static constexpr bool has_low = true;
    static __device__ __forceinline__ void load(const uint8_t *blk, int quad, int b, int a,
                                                Atom<rows, runs> &out)
    {
        const uint32_t none[2][4] = {};
        scales_native(blk, quad, b, out);
        split_nibbles(load_16<align>(blk + 256 + 256 * b + 64 * a + 16 * quad), none, 0, out);
    }
};

template <> struct Atoms<form_q4_K_il> : ColumnsR4 {
    static constexpr bool has_low = true;
    static constexpr int align = 16;
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int b, int a,
                                                Atom<rows, runs> &out)
    {
        const uint32_t none[2][4] = {};
        scales_r4(blk, b, out);
        split_nibbles(load_16<align>(blk + 64 + 64 * b + 16 * a), none, 0, out);
    }
};

/* Nibbles of one row, and what stands above them. */
__device__ __forceinline__ void set_nibbles(const Words4 &v, int half, const uint32_t (&high)[4],
                                            float offset, Atom<1, 4> &out)
{
    FERRY_UNROLL
    for (int run = 0; run < 4; run++) {
        uint32_t w = (v.w[run] >> (4 * half) & NIBBLES) | high[run];
        FERRY_UNROLL
        for (int i = 0; i < 4; i++)
            out.q[0][run][i] = byte_float(w, i, offset);
    }
}

template <> struct Atoms<form_q4_K_plain> : ColumnsPlain {
    static constexpr bool has_low = true;
    static constexpr int align = 16;
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int b, int a,
                                                Atom<rows, runs> &out)
    {
        const uint32_t none[4] = {};
        scales_plain(blk, b, out);
        set_nibbles(load_16<align>(blk + 16 + 32 * (b / 2) + 16 * a), b % 2, none, 0, out);
    }
};

/* The fifth bits of two runs, from bits `bit` and `bit` + `step` of each byte. */
__device__ __forceinline__ void fifth_bits(const Words4 &v, int bit, int step,
                                           uint32_t (&high)[2][4])
{
    FERRY_UNROLL
    for (int r = 0; r < 4; r++) {
        high[0][r] = (v.w[r] >> bit & ONES) << 4;
        high[1][r] = (v.w[r] >> (bit + step) & ONES) << 4;
    }
}

template <> struct Atoms<form_q5_K_native> : ColumnsNative {
    static constexpr bool has_low = true;
    static __device__ __forceinline__ void load(const uint8_t *blk, int quad, int b, int a,
                                                Atom<rows, runs> &out)
    {
        uint32_t high[2][4];
        scales_native(blk, quad, b, out);
        fifth_bits(load_16<align>(blk + 256 + 64 * b + 16 * quad), a, 4, high);
        split_nibbles(load_16<align>(blk + 768 + 256 * b + 64 * a + 16 * quad), high, 0, out);
    }
};

template <> struct Atoms<form_q5_K_il> : ColumnsR4 {
    static constexpr bool has_low = true;
    static constexpr int align = 16;
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int b, int a,
                                                Atom<rows, runs> &out)
    {
        uint32_t high[2][4];
        scales_r4(blk, b, out);
        fifth_bits(load_16<align>(blk + 64 + 16 * b), 4 * (a % 2) + 2 * (a / 2), 1, high);
        split_nibbles(load_16<align>(blk + 192 + 64 * b + 16 * a), high, 0, out);
    }
};

template <> struct Atoms<form_q5_K_plain> : ColumnsPlain {
    static constexpr bool has_low = true;
    static constexpr int align = 16;
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int b, int a,
                                                Atom<rows, runs> &out)
    {
        Words4 fifth = load_16<align>(blk + 16 + 16 * a);
        uint32_t high[4];
        FERRY_UNROLL
        for (int run = 0; run < 4; run++)
            high[run] = (fifth.w[run] >> b & ONES) << 4;
        scales_plain(blk, b, out);
        set_nibbles(load_16<align>(blk + 48 + 32 * (b / 2) + 16 * a), b % 2, high, 0, out);
    }
};

/* ---- q6_K: a signed scale per 16 weights ---------------------------------------------------- */

template <> struct Atoms<form_q6_K_native> : ColumnsNative {
    static constexpr bool has_low = false;
    static __device__ __forceinline__ void load(const uint8_t *blk, int quad, int b, int a,
                                                Atom<rows, runs> &out)
    {
        const int bit = 2 * ((a + 2) % 4);
        float d[4];
        uint32_t high[2][4];
        load_scales(blk + 8 * quad, d);
        FERRY_UNROLL
        for (int run = 0; run < runs; run++) {
            uint32_t sc = load_4(blk + 32 + 16 * (2 * b + run) + 4 * quad);
            Words4 v = load_16<align>(blk + 288 + 128 * b + 64 * run + 16 * quad);
            FERRY_UNROLL
            for (int r = 0; r < rows; r++) {
                out.scale[r][run] = d[r] * signed_byte_float(sc, r);
                high[run][r] = (v.w[r] >> bit & PAIRS) << 4;
            }
        }
        split_nibbles(load_16<align>(blk + 1312 + 256 * b + 64 * a + 16 * quad), high, 32, out);
    }
};

template <> struct Atoms<form_q6_K_il> : ColumnsR4 {
    static constexpr bool has_low = false;
    static constexpr int align = 8;
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int b, int a,
                                                Atom<rows, runs> &out)
    {
        float d[4];
        uint32_t high[2][4], sc = load_4(blk + 8 + 4 * (2 * b + a % 2));
        Words4 v = load_16<align>(blk + 72 + 32 * b + 16 * (a % 2));
        load_scales(blk, d);
        FERRY_UNROLL
        for (int r = 0; r < rows; r++)
            FERRY_UNROLL
        for (int run = 0; run < runs; run++) {
            out.scale[r][run] = d[r] * signed_byte_float(sc, r);
            high[run][r] = (v.w[r] >> (4 * (a / 2) + 2 * run) & PAIRS) << 4;
        }
        split_nibbles(load_16<align>(blk + 328 + 64 * b + 16 * a), high, 32, out);
    }
};

template <> struct Atoms<form_q6_K_plain> : ColumnsPlain {
    static constexpr bool has_low = false;
    static constexpr int align = 2;
    static __device__ __forceinline__ void load(const uint8_t *blk, int, int b, int a,
                                                Atom<rows, runs> &out)
    {
        Words4 v;
        uint32_t high[4];
        load_halves(blk + 64 * (b / 4) + 32 * (b % 2) + 16 * a, v.w);
        load_halves(blk + 128 + 32 * (b / 4) + 16 * a, high);
        float scale = f16_float(load_2(blk + 208), 0) * (float)(int8_t)blk[192 + 2 * b + a];
        FERRY_UNROLL
        for (int run = 0; run < runs; run++) {
            out.scale[0][run] = scale;
            high[run] = (high[run] >> (2 * (b % 4)) & PAIRS) << 4;
        }
        set_nibbles(v, b / 2 % 2, high, 32, out);
    }
};

/* ---- where atoms are ------------------------------------------------------------------------ */

/* Whether a matrix of form F may be read by atoms, with vectors read by float4. */
template <class F>
static bool fits_atoms(const uint8_t *base, size_t mat_bytes, int64_t cols, const float *x,
                       int64_t ldx, int64_t x_stride)
{
    return cols % 32 == 0 && (uintptr_t)base % Atoms<F>::align == 0 &&
           mat_bytes % Atoms<F>::align == 0 && (uintptr_t)x % 16 == 0 && ldx % 4 == 0 &&
           x_stride % 4 == 0;
}

/* The block of a row's (group's) sub-block number `sub`, and the sub-block's number in it. */
template <class F>
__device__ __forceinline__ const uint8_t *block_of(const uint8_t *blocks, int64_t sub, int &b)
{
    constexpr int per_chunk = F::chunk / 32;
    b = (int)(sub % per_chunk);
    return blocks + sub / per_chunk * F::step;
}

} // namespace FERRY_GPU_NS
#endif
