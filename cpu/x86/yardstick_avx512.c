/* The loops of the yardsticks (cpu/yardstick.h) for AVX-512. */
#include "cpu/x86/avx512.h"
#include "cpu/yardstick_loops.h"

enum { AHEAD = 2048 }; /* bytes; prefetched */

static uint64_t fold(__m512i v)
{
    __m256i a = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    __m128i b = _mm_xor_si128(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    return (uint64_t)_mm_extract_epi64(b, 0) ^ (uint64_t)_mm_extract_epi64(b, 1);
}

uint64_t cpu_read_avx512(const uint8_t *p, size_t n)
{
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (size_t i = 0; i < n; i += 256) {
        const uint8_t *q = p + i;
        avx2_prefetch(q + AHEAD, 256);
        a = _mm512_xor_si512(a, _mm512_loadu_si512(q));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(q + 64));
        c = _mm512_xor_si512(c, _mm512_loadu_si512(q + 128));
        d = _mm512_xor_si512(d, _mm512_loadu_si512(q + 192));
    }
    return fold(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}

/* As many independent sums as keep both multipliers busy, each in a register. The empty statements
 * tell the compiler that x may have changed: it must not take equal sums together.
 * The result: all lanes of all sums, each of which begins with 0x03030303. */
uint64_t cpu_int8_avx512(int64_t n, int64_t *ops)
{
    __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
    __m512i a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x, p = x, q = x, r = x, s = x;
    *ops = 12 * 2 * 64;
#define ADD_PRODUCTS(sum)                                                                          \
    __asm__ volatile("" : "+v"(x));                                                                \
    sum = _mm512_dpbusd_epi32(sum, x, y)
    for (int64_t i = 0; i < n; i++) {
        ADD_PRODUCTS(a);
        ADD_PRODUCTS(b);
        ADD_PRODUCTS(c);
        ADD_PRODUCTS(d);
        ADD_PRODUCTS(e);
        ADD_PRODUCTS(f);
        ADD_PRODUCTS(g);
        ADD_PRODUCTS(h);
        ADD_PRODUCTS(p);
        ADD_PRODUCTS(q);
        ADD_PRODUCTS(r);
        ADD_PRODUCTS(s);
    }
    a = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
    e = _mm512_add_epi32(_mm512_add_epi32(e, f), _mm512_add_epi32(g, h));
    p = _mm512_add_epi32(_mm512_add_epi32(p, q), _mm512_add_epi32(r, s));
    a = _mm512_add_epi32(_mm512_add_epi32(a, e), p);
    uint32_t lanes[16], sum = 0; /* wraps, as the products do */
    _mm512_storeu_si512(lanes, a);
    for (int i = 0; i < 16; i++)
        sum += lanes[i];
    return sum;
}
