/* iq4_nl: 32 weights in 18 bytes, w = d * V4[q], V4 a table of 16 unevenly spaced values.
 *
 *   plain
 *     0         d (f16)
 *     2..17     nibbles, as q4_0
 *   iq4_nl_r4: 4 rows, 72 bytes
 *     0         d of the rows
 *     8         nibbles, N4
 *   native: 16 rows, 288 bytes
 *     0         d of the rows
 *     32        nibbles, N16
 */
#ifndef FR_QUANT_TYPES_IQ4_NL_H
#define FR_QUANT_TYPES_IQ4_NL_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

typedef struct {
    uint16_t d;
    uint8_t q[16];
} fr_block_iq4_nl;
FR_BLOCK_SIZE(fr_block_iq4_nl, 18);

typedef struct {
    uint16_t d[4];
    uint8_t q[64];
} fr_block_iq4_nl_r4;
FR_BLOCK_SIZE(fr_block_iq4_nl_r4, 72);

#define FR_T                      iq4_nl
#define FR_T_WEIGHTS              32
#define FR_T_FIELDS(F)            F(d, 1, uint16_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)       P(d, 0, 0, 16, 0) FR_NIBBLES_32(P, q, 2, 0)
#define FR_T_INTERLEAVED(P, M, X) P(d, 2 * k, 0, 16, 0) FR_N4(P, q, 8, 0)
#define FR_T_NATIVE(P, M, X)      P(d, 2 * k, 0, 16, 0) FR_N16(P, q, 32)
#define FR_T_VALUE(F)             fr_val_f16(F(d, 0)) * FR_TABLE_AT(fr_iq4k_values)[F(q, e)]
#include "quant/type_code.inc"

#endif
