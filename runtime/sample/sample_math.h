/* exp, log and random numbers that are the same bits on every machine.
 *
 * The C library's exp and log may differ in the last bit from one CPU or version to the next, and
 * one such bit can change which token is drawn. These use only IEEE additions, multiplications and
 * one division in a written order, so they need -ffp-contract=off (FerryBoxes.cmake) and nothing
 * else. */
#ifndef FR_SAMPLE_SAMPLE_MATH_H
#define FR_SAMPLE_SAMPLE_MATH_H

#include <stdint.h>
#include <string.h>

/* ln 2 in two parts; the first has 21 trailing zero bits, so that k * SAMPLE_LN2_HI is exact. */
#define SAMPLE_LN2_HI 0x1.62e42feep-1
#define SAMPLE_LN2_LO 0x1.a39ef35793c76p-33

static inline double sample_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, 8);
    return d;
}

/* e^x for x <= 0, relative error below 4e-16; 0 for x < -700 (-infinity too). x must not be NaN. */
static inline double sample_exp(double x)
{
    /* 1/13!, 1/12!, ..., 1/0!: on |r| <= ln(2)/2 the first term left out is below 2^-57. */
    static const double coeff[] = {1.0 / 6227020800,
                                   1.0 / 479001600,
                                   1.0 / 39916800,
                                   1.0 / 3628800,
                                   1.0 / 362880,
                                   1.0 / 40320,
                                   1.0 / 5040,
                                   1.0 / 720,
                                   1.0 / 120,
                                   1.0 / 24,
                                   1.0 / 6,
                                   1.0 / 2,
                                   1.0,
                                   1.0};
    if (x < -700)
        return 0;
    int k = (int)(x * 1.4426950408889634 - 0.5);
    double r = (x - k * SAMPLE_LN2_HI) - k * SAMPLE_LN2_LO;
    double y = coeff[0];
    for (int i = 1; i < 14; i++)
        y = y * r + coeff[i];
    return y * sample_double((uint64_t)(k + 1023) << 52);
}

/* Natural logarithm of a positive, normal, finite x; relative error below 1e-15. */
static inline double sample_log(double x)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    int k = (int)(u >> 52) - 1023;
    double m = sample_double((u & 0xFFFFFFFFFFFFFull) | 1023ull << 52); /* [1, 2) */
    if (m > 1.4142135623730951) {
        m *= 0.5;
        k++;
    }
    double s = (m - 1) / (m + 1), s2 = s * s; /* ln m = 2 atanh s, |s| < 0.172 */
    double y = 0;
    for (int i = 23; i >= 1; i -= 2)
        y = y * s2 + 1.0 / i;
    return k * SAMPLE_LN2_HI + (2 * s * y + k * SAMPLE_LN2_LO);
}

/* xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators"). */
typedef struct {
    uint64_t s[4];
} sample_rng;

/* The state is filled by SplitMix64, as its authors advise; every seed is good. */
static inline sample_rng sample_rng_make(uint64_t seed)
{
    sample_rng r;
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9E3779B97F4A7C15ull;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ z >> 27) * 0x94D049BB133111EBull;
        r.s[i] = z ^ z >> 31;
    }
    return r;
}

static inline uint64_t sample_rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

static inline uint64_t sample_rng_next(sample_rng *r)
{
    uint64_t *s = r->s, out = sample_rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = sample_rotl(s[3], 45);
    return out;
}

/* Uniform in [0, 1), a multiple of 2^-53. */
static inline double sample_rng_unit(sample_rng *r)
{
    return (double)(sample_rng_next(r) >> 11) * 0x1p-53;
}

#endif
