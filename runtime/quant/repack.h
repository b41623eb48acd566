/* Inside the quant box: the two ways in which fr_repack works. Arguments are checked. */
#ifndef FR_QUANT_REPACK_H
#define FR_QUANT_REPACK_H

#include "quant/qtype.h"

typedef struct {
    fr_type type;
    fr_layout from, to;
    int64_t n_rows, cols;
    const uint8_t *src;
    uint8_t *dst;
} repack_args;

/* Field by field as the types are stated: the reference. Columns before `skip` (whole chunks, for
 * which row headers are written already) are left as they are. */
void quant_repack_walk(const repack_args *a, int64_t skip);

/* The same bytes by a program of shuffles, which is made when a type and a pair of layouts are met
 * for the first time; by the walk where there is none. */
void quant_repack(const repack_args *a);

/* Weights that the walk takes at a time. */
int quant_chunk(fr_type type);

/* Whether quant_repack has, or can make, a program. */
bool quant_repack_is_fast(fr_type type, fr_layout from, fr_layout to);

#endif
