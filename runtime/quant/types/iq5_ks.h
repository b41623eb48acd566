/* iq5_ks: 256 weights in 168 bytes and a scale per row, w = d * ((sc & 254) - 127) * V5[q, sc &
 * 1] per 32 weights; bit 0 of sc picks the half of the table.
 *
 *   plain: row header d (f32)
 *     0         sc
 *     8         nibbles: 32 bytes per 64 weights
 *     136       fifth bits: bit n of a byte is for sub-block n
 *   iq5_ks_r4: 4 rows, row headers d, 672 bytes
 *     0         sc
 *     32        nibbles, N4
 *     544       fifth bits, as iq5_k_r4
 *   native: 16 rows, 2688 bytes; the rows' headers stand before all blocks
 *     0         sc, 16 bytes a sub-block
 *     128       fifth bits
 *     640       nibbles, N16
 */
#ifndef FR_QUANT_TYPES_IQ5_KS_H
#define FR_QUANT_TYPES_IQ5_KS_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq5_ks
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint32_t) F(sc, 8, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 32, 0)                                                                              \
    P(sc, s, 0, 8, 0)                                                                              \
    FR_NIBBLES_64(P, q, 8, 0)                                                                      \
    FR_BITS_256(P, q, 136, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(sc, 4 * s + k, 0, 8, 0)                                                                      \
    FR_N4(P, q, 32, 0)                                                                             \
    FR_B4(P, q, 544, 2 * h + j / 2 + 4 * (j % 2), 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(sc, 16 * s + k, 0, 8, 0)                                                                     \
    FR_B16_FIFTH(P, q, 128)                                                                        \
    FR_N16(P, q, 640)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f32(F(d, 0)) * ((F(sc, e / 32) & 254) - 127) *                                          \
        FR_TABLE_AT(fr_iq5nl_values)[F(q, e) + 32 * (F(sc, e / 32) & 1)]
#include "quant/type_code.inc"

#endif
