/* The bottom of all quantized formats: bit fields, and the small functions that turn their values
 * into weights. Plain C that the host, CUDA device code and a C++ compiler share. Little endian.
 *
 * How a format is stated. Each types/NAME.h defines, and then includes type_code.inc, which turns
 * the statements into functions (and says which):
 *
 *   FR_T                       the type's name, q4_K
 *   FR_T_WEIGHTS               weights that are unpacked at a time, a whole number of blocks
 *   FR_T_FIELDS(F)             F(name, entries, C type): the integers of one row in a block
 *   FR_T_PLAIN(P, M, X)        where they stand in a block of the plain form
 *   FR_T_INTERLEAVED(P, M, X)  where they stand in a block of a group of rows
 *   FR_T_NATIVE(P, M, X)       the same for the native form's FR_NATIVE_ROWS rows; not defined
 * where there is none FR_T_VALUE(F)              weight e as an expression of F(name, entry)
 *
 * A place is P(name, byte, bit, width, shift): the `width` bits from bit `bit` (0 = least
 * significant, may exceed 7) of the little-endian integer at `byte` are bits shift.. of the entry.
 * M is the same in the row header; X has a sixth argument, a code (below) that those bits are
 * stored in. Byte and bit are expressions of the entry's number, under the name that reads best:
 *
 *   e             weight; e = 32*b + 16*h + 4*j + i with
 *   b, h, j, i    sub-block of 32, half, quad, lane: e/32, e/16%2, e/4%4, e%4
 *   s             sub-block, where there is one entry a sub-block
 *   t             codebook group, where there is one entry a group
 *   k             not the entry's: the row's number in its group
 *
 * All are unsigned. A field has 1, 2 or a multiple of 4 entries.
 *
 * Decoding is: unpack the fields, apply the value. Repacking is: unpack by one form's places, pack
 * by the other's. So an arrangement of bits is written down once. Arrangements that several types
 * share are in maps.h. */
#ifndef FR_QUANT_FIELDS_H
#define FR_QUANT_FIELDS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"

/* The size of a block's struct is part of the file format. */
#define FR_BLOCK_SIZE(T, bytes)                                                                    \
    typedef char fr_size_of_##T##_is_##bytes[sizeof(T) == (bytes) ? 1 : -1]

/* Rows that stand together in every native form: a row is 32 bits of a 512-bit register. */
#define FR_NATIVE_ROWS 16

/* ---- bit fields ----------------------------------------------------------------------------- */

static inline FR_HD uint32_t fr_bits_mask(unsigned width)
{
    return 0xFFFFFFFFu >> (32 - width);
}

/* width = 1..32 bits from bit `bit` of the integer at p + byte; touches only bytes that hold them.
 */
static inline FR_HD uint32_t fr_bits_get(const uint8_t *p, unsigned byte, unsigned bit,
                                         unsigned width)
{
    p += byte + bit / 8;
    bit %= 8;
    uint32_t v = (uint32_t)*p >> bit;
    for (unsigned have = 8 - bit; have < width; have += 8)
        v |= (uint32_t) * ++p << have;
    return v & fr_bits_mask(width);
}

/* Sets the bits, which must be 0 before, to the low bits of v. */
static inline FR_HD void fr_bits_put(uint8_t *p, unsigned byte, unsigned bit, unsigned width,
                                     uint32_t v)
{
    v &= fr_bits_mask(width);
    p += byte + bit / 8;
    bit %= 8;
    *p = (uint8_t)(*p | v << bit);
    for (unsigned done = 8 - bit; done < width; done += 8) {
        p++;
        *p = (uint8_t)(*p | v >> done);
    }
}

/* ---- codes that a part may be stored in (X places): CODE_get reads, CODE_put writes
 * ---------------- */

#define fr_code_none_get(v) (v)
#define fr_code_none_put(v) (v)

/* Bit n stored is the xor of bits 0..n of the value. */
static inline FR_HD uint32_t fr_code_running_xor_get(uint32_t v)
{
    return v ^ v << 1;
}

static inline FR_HD uint32_t fr_code_running_xor_put(uint32_t v)
{
    v ^= v << 1;
    v ^= v << 2;
    return v ^ v << 4;
}

/* A signed byte stored 128 higher, 0..255. */
static inline FR_HD uint32_t fr_code_plus_128_get(uint32_t v)
{
    return v ^ 128;
}

#define fr_code_plus_128_put(v) fr_code_plus_128_get(v)

/* ---- values --------------------------------------------------------------------------------- */

static inline FR_HD float fr_val_f16(int32_t v)
{
    return fr_f16_to_f32((uint16_t)v);
}

static inline FR_HD float fr_val_bf16(int32_t v)
{
    return fr_bf16_to_f32((uint16_t)v);
}

static inline FR_HD float fr_val_f32(int32_t v)
{
    return fr_f32_from_bits((uint32_t)v);
}

static inline FR_HD int fr_val_i8(int32_t v)
{
    return (v & 255) - 2 * (v & 128);
}

/* +1 where bit n of m is 0, else -1. */
static inline FR_HD int fr_val_sign(int32_t m, unsigned n)
{
    return 1 - 2 * (m >> n & 1);
}

static inline FR_HD int fr_val_abs(int v)
{
    return v < 0 ? -v : v;
}

/* 7 sign bits and an eighth that makes their number even. */
static inline FR_HD int32_t fr_val_par7(int32_t m)
{
    int32_t p = m ^ m >> 4;
    p ^= p >> 2;
    p ^= p >> 1;
    return m | (p & 1) << 7;
}

/* 2^n, n = -128..127; the two least are subnormal. */
static inline FR_HD float fr_val_pow2(int n)
{
    return fr_f32_from_bits(n > -127 ? (uint32_t)(n + 127) << 23 : 0x400000u >> (-127 - n));
}

/* iq6_k's values. */
static inline FR_HD float fr_val_poly6(int32_t q)
{
    float x = (float)q;
    return fmaf(x, fmaf(x, fmaf(x, 0.0011972f, -0.11218f), 6.2568f), -127.f);
}

/* Nibble n of a word of iq4_kss. */
static inline FR_HD int32_t fr_val_gray4(int32_t v, unsigned n)
{
    v &= 0xFFFE;
    return (v ^ v >> 1) >> (4 * n) & 15;
}

/* Trellis types: number n of the generator that starts at x, -126..126: the sum of the low 6 bits
 * of the bytes of x times the n + 1-th power of a constant. */
static inline FR_HD int fr_val_kt(int32_t x, unsigned n)
{
    uint32_t v = (uint32_t)x;
    for (unsigned i = 0; i <= n; i++)
        v *= 0xCBAC1FEDu;
    v &= 0x3F3F3F3Fu;
    return (int)((v & 255) + (v >> 8 & 255) + (v >> 16 & 255) + (v >> 24)) - 126;
}

#endif
