/* Arrangements of bits that several formats share, as places (fields.h). `at` is the first byte,
 * `shift` the place of these bits in the entry. P is handed through. */
#ifndef FR_QUANT_MAPS_H
#define FR_QUANT_MAPS_H

/* ---- plain ---------------------------------------------------------------------------------- */

/* 32 nibbles in 16 bytes: byte n has weight n low, weight n + 16 high; of 256 weights: 8 such. */
#define FR_NIBBLES_32(P, q, at, shift) P(q, (at) + 16 * b + e % 16, 4 * h, 4, shift)

/* 64 nibbles in 32 bytes: byte n has weight n low, weight n + 32 high. */
#define FR_NIBBLES_64(P, q, at, shift) P(q, (at) + 32 * (e / 64) + e % 32, 4 * (b % 2), 4, shift)

/* 128 2-bit codes in 32 bytes: byte n has weights n, n + 32, n + 64, n + 96 from bit 0 up. */
#define FR_PAIRS_128(P, q, at, shift) P(q, (at) + 32 * (e / 128) + e % 32, 2 * (b % 4), 2, shift)

/* One bit of each of 256 weights in 32 bytes: bit n of a byte is for sub-block n. */
#define FR_BITS_256(P, q, at, shift) P(q, (at) + e % 32, b, 1, shift)

/* Nibbles of the scales, in order, or s and s + 4 together; two further bits of each, in order. */
#define FR_SCALE_NIBBLES(P, sc, at)   P(sc, (at) + s / 2, 4 * (s % 2), 4, 0)
#define FR_SCALE_NIBBLES_4(P, sc, at) P(sc, (at) + s % 4, 4 * (s / 4), 4, 0)
#define FR_SCALE_HIGH_2(P, sc, at)    P(sc, (at) + s / 4, 2 * (s % 4), 2, 4)

/* 8 scales and 8 minima of 6 bits in 12 bytes S: below sub-block 4 they are the low six bits of
 * S[s] and S[s+4]; from 4 on the low and high nibble of S[s+4] with the top two bits of S[s-4] and
 * S[s]. */
#define FR_SCALES_6X8(P, sc, mn, at)                                                               \
    P(sc, (at) + s + 4 * (s / 4), 0, 4, 0)                                                         \
    P(sc, (at) + s % 4, 4 + 2 * (s / 4), 2, 4)                                                     \
    P(mn, (at) + 4 + s, 4 * (s / 4), 4, 0)                                                         \
    P(mn, (at) + 4 + s % 4, 4 + 2 * (s / 4), 2, 4)

/* ---- interleaved, 8 rows --------------------------------------------------------------------- */

/* FR_NIBBLES_32's bytes moved whole: 32 bytes per 4 quant bytes of 8 rows. */
#define FR_NIBBLES_R8(P, q, at) P(q, (at) + 32 * j + 4 * k + i, 4 * h, 4, 0)

/* ---- interleaved, 4 rows --------------------------------------------------------------------- */

/* Nibbles, 64 bytes per 32 weights of 4 rows: byte 16*l + 4*k + i has weight o + i low and o + 8 +
 * i high, with o = 0, 16, 4, 20 for l = 0..3. */
#define FR_N4(P, q, at, shift)                                                                     \
    P(q, (at) + 64 * b + 32 * (j % 2) + 16 * h + 4 * k + i, 4 * (j / 2), 4, shift)

/* 2-bit codes, 32 bytes per 32 weights of 4 rows: byte 16*h + 4*k + i has weights 16*h + i + 0,
 * 4, 8, 12 from bit 0 up. */
#define FR_T4(P, q, at, shift) P(q, (at) + 32 * b + 16 * h + 4 * k + i, 2 * j, 2, shift)

/* Single bits, 16 bytes per 32 weights of 4 rows; `bit` says which of the 8 bits of byte 4*k + i.
 */
#define FR_B4(P, q, at, bit, shift) P(q, (at) + 16 * b + 4 * k + i, bit, 1, shift)

/* Scale number m = R*s + k, all rows of sub-block 0 first. Nibbles: m and m + 32 share a byte.
 * 2-bit codes: m, m + 16, m + 32, m + 48 share one. */
#define FR_SPLIT_NIBBLES(P, sc, at, R) P(sc, (at) + (R * s + k) % 32, 4 * ((R * s + k) / 32), 4, 0)
#define FR_SPLIT_NIBBLES_8(P, sc, at)  /* 8 sub-blocks, 4 rows: m and m + 16 */                    \
    P(sc, (at) + (4 * s + k) % 16, 4 * ((4 * s + k) / 16), 4, 0)
#define FR_SPLIT_HIGH_2(P, sc, at, R) P(sc, (at) + (R * s + k) % 16, 2 * ((R * s + k) / 16), 2, 4)

/* 6-bit scales and minima of 8 sub-blocks: nibbles (scale low, minimum high) in 32 bytes at + 16,
 * two further bits of each in 16 bytes at `at`. */
#define FR_SCALES_6X8_R4(P, sc, mn, at)                                                            \
    P(sc, (at) + 16 + 4 * s + k, 0, 4, 0)                                                          \
    P(sc, (at) + (4 * s + k) % 16, 4 * ((4 * s + k) / 16), 2, 4)                                   \
    P(mn, (at) + 16 + 4 * s + k, 4, 4, 0)                                                          \
    P(mn, (at) + (4 * s + k) % 16, 4 * ((4 * s + k) / 16) + 2, 2, 4)

/* A 4-bit scale of 32 weights in bit 0 of the four bytes of row k. */
#define FR_SCALE_BITS_R4(P, sc, at)                                                                \
    P(sc, (at) + 16 * s + 4 * k, 0, 1, 0)                                                          \
    P(sc, (at) + 16 * s + 4 * k + 1, 0, 1, 1)                                                      \
    P(sc, (at) + 16 * s + 4 * k + 2, 0, 1, 2)                                                      \
    P(sc, (at) + 16 * s + 4 * k + 3, 0, 1, 3)

/* ---- native, 16 rows -------------------------------------------------------------------------
 *
 * Codes stand in registers of 64 bytes, four of them a row: byte 4k + i. Per-row bytes and bits of
 * one scale stand together, 16 bytes or 16 bits. */

/* Nibbles, 256 bytes per 32 weights: byte 64j + 4k + i has weight 4j + i low, 16 + 4j + i high. */
#define FR_N16(P, q, at) P(q, (at) + 256 * b + 64 * j + 4 * k + i, 4 * h, 4, 0)

/* 2-bit codes, 128 bytes per 32 weights: byte 64h + 4k + i has weights 16h + i + 0, 4, 8, 12. */
#define FR_T16(P, q, at) P(q, (at) + 128 * b + 64 * h + 4 * k + i, 2 * j, 2, 0)

/* Two bits above nibbles, 128 bytes per 32 weights: as T16, but the quads from bit 4, 6, 0 and 2
 * on. */
#define FR_T16_UPPER(P, q, at) P(q, (at) + 128 * b + 64 * h + 4 * k + i, 2 * ((j + 2) % 4), 2, 4)

/* Third bits, 64 bytes per 32 weights: bit 4 + j of byte 4k + i for weights below 16, bit j above.
 */
#define FR_B16_THIRD(P, q, at) P(q, (at) + 64 * b + 4 * k + i, 4 - 4 * h + j, 1, 2)

/* Fifth bits: bit j for weights below 16, bit 4 + j above. */
#define FR_B16_FIFTH(P, q, at) P(q, (at) + 64 * b + 4 * k + i, 4 * h + j, 1, 4)

/* One bit of each row per scale. */
#define FR_ROW_BITS_16(P, x, at, shift) P(x, (at) + 2 * s + k / 8, k % 8, 1, shift)

/* 16 scales of 4 bits as 64-byte registers of 32-bit lanes: scales 0..7 of row k, then 8..15. */
#define FR_SCALE_LANES_16(P, sc, at)                                                               \
    P(sc, (at) + 64 * (s / 8) + 4 * k + s % 8 / 2, 4 * (s % 2), 4, 0)

/* 8 scales of 4 bits in one such register. */
#define FR_SCALE_LANES_8(P, sc, at) P(sc, (at) + 4 * k + s / 2, 4 * (s % 2), 4, 0)

/* 16 scales of 6 bits: high bits (64 bytes), then nibbles (128). Entry m = 16s + k: nibbles of m
 * and m + 128 share a byte, high bits of m, m + 64, m + 128, m + 192. */
#define FR_SCALES_6X16(P, sc, at)                                                                  \
    P(sc, (at) + (16 * s + k) % 64, 2 * (s / 4), 2, 4)                                             \
    P(sc, (at) + 64 + (16 * s + k) % 128, 4 * (s / 8), 4, 0)

/* 8 scales and minima of 6 bits: high bits, then nibbles, as above with the scales below and the
 * minima above; the minima of sub-blocks 2n and 2n + 1 of a row stand together. */
#define FR_SCALES_6X8_16(P, sc, mn, at)                                                            \
    P(sc, (at) + (16 * s + k) % 64, 2 * (s / 4), 2, 4)                                             \
    P(sc, (at) + 64 + 16 * s + k, 0, 4, 0)                                                         \
    P(mn, (at) + (32 * (s / 2) + 2 * k + s % 2) % 64, 4 + 2 * (s / 4), 2, 4)                       \
    P(mn, (at) + 64 + 32 * (s / 2) + 2 * k + s % 2, 4, 4, 0)

/* Codebook types. Groups of 8 weights: 64 bytes per 32 weights, byte 4k + t % 4 for group t. */
#define FR_GROUPS_8(at) ((at) + 64 * (t / 4) + 4 * k + t % 4)

/* Groups of 4: of the two registers per 32 weights the first has the even groups. */
#define FR_GROUPS_4(at) ((at) + 128 * (t / 8) + 64 * (t % 2) + 4 * k + t % 8 / 2)

/* 7 signs of 8 weights as their running xor, and in bit 7 of the four bytes of a row a scale. */
#define FR_SIGNS_7_16(P, X, s7, sc, at)                                                            \
    X(s7, FR_GROUPS_8(at), 0, 7, 0, fr_code_running_xor)                                           \
    P(sc, (at) + 64 * s + 4 * k, 7, 1, 0)                                                          \
    P(sc, (at) + 64 * s + 4 * k + 1, 7, 1, 1)                                                      \
    P(sc, (at) + 64 * s + 4 * k + 2, 7, 1, 2)                                                      \
    P(sc, (at) + 64 * s + 4 * k + 3, 7, 1, 3)

#endif
