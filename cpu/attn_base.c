#include "cpu/attn.h"

#include "cpu/attn_loops.inc"

static void decode(fr_type type, const void *row, int64_t n, float *out)
{
    fr_decode_row(type, FR_LAYOUT_PLAIN, row, 0, n, out);
}

const attn_kernels attn_kernels_base = {add_block, decode};
