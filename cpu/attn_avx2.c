#include "cpu/attn.h"

#include <immintrin.h>

#include "cpu/attn_loops.inc"

static void decode(fr_type type, const void *row, int64_t n, float *out)
{
    if (type != FR_TYPE_F16 || n % 8 != 0) {
        fr_decode_row(type, FR_LAYOUT_PLAIN, row, 0, n, out);
        return;
    }
    for (int64_t i = 0; i < n; i += 8) {
        __m128i half = _mm_loadu_si128((const __m128i *)((const uint16_t *)row + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(half));
    }
}

const attn_kernels attn_kernels_avx2 = {add_block, decode};
