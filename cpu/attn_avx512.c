#include <math.h>

#include "cpu/attn.h"
#include "cpu/attn_vec_avx512.h"

#include "cpu/attn_simd.inc"

static void decode(fr_type type, const void *row, int64_t n, float *out)
{
    if (type != FR_TYPE_F16 || n % LANES != 0) {
        attn_decode_avx2(type, row, n, out);
        return;
    }
    for (int64_t i = 0; i < n; i += LANES) {
        __m256i half = _mm256_loadu_si256((const __m256i *)((const uint16_t *)row + i));
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(half));
    }
}

const attn_kernels attn_kernels_avx512 = {add_block, fold_states, fold_sums, decode,
                                          attn_kernels_16_best};
