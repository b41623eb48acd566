/* The loops of the yardsticks (cpu/yardstick.h) for AVX2. */
#include "cpu/x86/avx2.h"
#include "cpu/yardstick_loops.h"

enum { AHEAD = 2048 }; /* bytes; prefetched */

uint64_t cpu_read_avx2(const uint8_t *p, size_t n)
{
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    for (size_t i = 0; i < n; i += 128) {
        _mm_prefetch((const char *)p + i + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)p + i + AHEAD + 64, _MM_HINT_T0);
        for (int k = 0; k < 4; k++)
            sum[k] = _mm256_xor_si256(sum[k], avx2_load(p + i + 32 * (size_t)k));
    }
    __m256i all =
        _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
    uint64_t w[4];
    _mm256_storeu_si256((__m256i *)w, all);
    return w[0] ^ w[1] ^ w[2] ^ w[3];
}

/* As many independent sums as keep both multipliers busy, each in a register. The empty statements
 * tell the compiler that x may have changed: it must not take equal products or sums together.
 * The result: the first and the last lane of all sums, each of which begins with 0x0303. */
uint64_t cpu_int8_avx2(int64_t n, int64_t *ops)
{
    __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5);
    __m256i a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x;
    *ops = 8 * 2 * 32;
#define ADD_PRODUCTS(sum)                                                                          \
    __asm__ volatile("" : "+x"(x));                                                                \
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, y))
    for (int64_t i = 0; i < n; i++) {
        ADD_PRODUCTS(a);
        ADD_PRODUCTS(b);
        ADD_PRODUCTS(c);
        ADD_PRODUCTS(d);
        ADD_PRODUCTS(e);
        ADD_PRODUCTS(f);
        ADD_PRODUCTS(g);
        ADD_PRODUCTS(h);
    }
    a = _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d));
    e = _mm256_add_epi16(_mm256_add_epi16(e, f), _mm256_add_epi16(g, h));
    a = _mm256_add_epi16(a, e);
    return (uint64_t)_mm256_extract_epi16(a, 0) + (uint64_t)_mm256_extract_epi16(a, 15);
}
