/* iq3_xxs: 256 weights in 98 bytes, w = d * (0.5 + sc) / 2 * grid * sign; a grid word gives 4
 * weights.
 *
 *   plain
 *     0         d (f16)
 *     2         indices g
 *     66        per 32 weights a 32-bit word: 4 x 7 sign bits, sc, as iq2_xxs
 *   iq3_xxs_r4: 4 rows, 392 bytes
 *     0         d of the rows
 *     8         signs and sc, as iq2_xxs_r4
 *     136       indices, 8 a row
 *   native: 16 rows, 1568 bytes
 *     0         d of the rows
 *     32        signs and sc
 *     544       indices, in an order of their own (fr_iq3xxs_words)
 */
#ifndef FR_QUANT_TYPES_IQ3_XXS_H
#define FR_QUANT_TYPES_IQ3_XXS_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

/* The number of a codebook word as the native form stores it. */
static inline FR_HD uint32_t fr_code_iq3xxs_get(uint32_t v)
{
    return FR_TABLE_AT(fr_iq3xxs_words)[v];
}

static inline FR_HD uint32_t fr_code_iq3xxs_put(uint32_t v)
{
    return FR_TABLE_AT(fr_iq3xxs_numbers)[v];
}

#define FR_T           iq3_xxs
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 64, uint8_t) F(s7, 32, uint8_t) F(sc, 8, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(g, 2 + t, 0, 8, 0)                                                                           \
    P(s7, 66 + 4 * (t / 4), 7 * (t % 4), 7, 0)                                                     \
    P(sc, 66 + 4 * s, 28, 4, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    X(s7, 8 + 16 * (t / 4) + 4 * k + t % 4, 1, 7, 0, fr_code_running_xor)                          \
    FR_SCALE_BITS_R4(P, sc, 8)                                                                     \
    P(g, 136 + 32 * (t / 8) + 8 * k + t % 8, 0, 8, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SIGNS_7_16(P, X, s7, sc, 32)                                                                \
    X(g, FR_GROUPS_4(544), 0, 8, 0, fr_code_iq3xxs)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (0.5f + F(sc, e / 32)) * 0.5f *                                          \
        fr_grid_u8(FR_TABLE_AT(fr_iq3xxs_grid)[F(g, e / 4)], e % 4) *                              \
        fr_val_sign(fr_val_par7(F(s7, e / 8)), e % 8)
#include "quant/type_code.inc"

#endif
