/* iq2_xxs: 256 weights in 66 bytes, w = d * (0.5 + sc) / 4 * grid * sign; a grid word gives 8
 * weights.
 *
 *   plain
 *     0         d (f16)
 *     2         per 32 weights 8 bytes: 4 indices g, then a 32-bit word with 4 x 7 sign bits
 *               from bit 0 (the eighth makes their number even) and sc in bits 28..31
 *   iq2_xxs_r4: 4 rows, 264 bytes
 *     0         d of the rows
 *     8         per 32 weights 4 bytes a row: signs as their running xor in bits 1..7, sc's four
 *               bits in bit 0
 *     136       indices, 4 a row
 *   native: 16 rows, 1056 bytes
 *     0         d of the rows
 *     32        signs and sc
 *     544       indices
 */
#ifndef FR_QUANT_TYPES_IQ2_XXS_H
#define FR_QUANT_TYPES_IQ2_XXS_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq2_xxs
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 32, uint8_t) F(s7, 32, uint8_t) F(sc, 8, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(g, 2 + 8 * (t / 4) + t % 4, 0, 8, 0)                                                         \
    P(s7, 6 + 8 * (t / 4), 7 * (t % 4), 7, 0)                                                      \
    P(sc, 6 + 8 * s, 28, 4, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    X(s7, 8 + 16 * (t / 4) + 4 * k + t % 4, 1, 7, 0, fr_code_running_xor)                          \
    FR_SCALE_BITS_R4(P, sc, 8)                                                                     \
    P(g, 136 + 16 * (t / 4) + 4 * k + t % 4, 0, 8, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SIGNS_7_16(P, X, s7, sc, 32)                                                                \
    P(g, FR_GROUPS_8(544), 0, 8, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (0.5f + F(sc, e / 32)) * 0.25f *                                         \
        fr_grid_u8(FR_TABLE_AT(fr_iq2xxs_grid)[F(g, e / 8)], e % 8) *                              \
        fr_val_sign(fr_val_par7(F(s7, e / 8)), e % 8)
#include "quant/type_code.inc"

#endif
