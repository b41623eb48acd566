/* Weights for the kernel tests, from every corner of a type: random bytes, extreme codes, extreme
 * scales. Included by the tests of this folder. */
#ifndef FR_TEST_HOSTILE_WEIGHTS_H
#define FR_TEST_HOSTILE_WEIGHTS_H

#include "testing.h"

#include <math.h>

#include "base/half.h"
#include "quant/qtype.h"

static uint64_t rnd = 1; /* state of the generator */

static inline int rand_below(int n)
{
    return (int)(test_rand(&rnd) >> 33) % n;
}

typedef enum { W_RANDOM, W_ENCODED, W_LOW, W_HIGH, W_SIGN, W_HUGE, W_TINY, N_W } w_pattern;

/* Where a block keeps its f16 scales, for the types with kernels of their own. */
typedef struct {
    fr_type type;
    int n_scales;
    size_t at[2];
} scale_map;

static const scale_map scale_maps[] = {
    {FR_TYPE_Q8_0, 1, {0}},    {FR_TYPE_Q4_0, 1, {0}},      {FR_TYPE_Q4_K, 2, {0, 2}},
    {FR_TYPE_Q5_K, 2, {0, 2}}, {FR_TYPE_Q6_K, 1, {208}},    {FR_TYPE_Q4_1, 2, {0, 2}},
    {FR_TYPE_Q5_0, 1, {0}},    {FR_TYPE_Q5_1, 2, {0, 2}},   {FR_TYPE_Q6_0, 1, {0}},
    {FR_TYPE_IQ4_NL, 1, {0}},  {FR_TYPE_Q2_K, 2, {80, 82}}, {FR_TYPE_Q3_K, 1, {108}},
    {FR_TYPE_IQ4_XS, 1, {0}},  {FR_TYPE_IQ4_K, 1, {0}},     {FR_TYPE_IQ2_K, 1, {0}},
    {FR_TYPE_IQ3_K, 1, {0}},   {FR_TYPE_IQ5_K, 1, {0}},     {FR_TYPE_IQ2_XXS, 1, {0}},
    {FR_TYPE_IQ2_XS, 1, {0}},  {FR_TYPE_IQ2_S, 1, {0}},     {FR_TYPE_IQ3_S, 1, {0}},
    {FR_TYPE_IQ3_XXS, 1, {0}}};

static const scale_map *scale_map_of(fr_type type)
{
    for (size_t i = 0; i < sizeof scale_maps / sizeof *scale_maps; i++) {
        if (scale_maps[i].type == type)
            return &scale_maps[i];
    }
    return NULL;
}

static bool is_float_type(fr_type type)
{
    return type == FR_TYPE_F32 || type == FR_TYPE_F16 || type == FR_TYPE_BF16;
}

static void fill_random(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(test_rand(&rnd) >> 40);
}

/* A float of a pattern, within the range of f16 where it matters. */
static float float_of(w_pattern pattern, fr_type type)
{
    float v = test_rand_f(&rnd);
    switch (pattern) {
    case W_LOW:
        return 0;
    case W_HIGH:
        return 65504;
    case W_SIGN:
        return -1;
    case W_HUGE:
        return v * (type == FR_TYPE_F16 ? 65504 : 1e9f);
    case W_TINY:
        return v * (type == FR_TYPE_F16 ? 6e-8f : 1e-40f);
    default:
        return v;
    }
}

static void encode_rows(fr_type type, w_pattern pattern, int64_t rows, int64_t cols, uint8_t *dst)
{
    float *x = test_calloc((size_t)cols, sizeof *x);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < cols; i++)
            x[i] = float_of(pattern, type);
        fr_encode_row(type, x, cols, NULL,
                      dst + (size_t)r * fr_row_bytes(type, FR_LAYOUT_PLAIN, cols));
    }
    test_free(x);
}

/* Codes of one byte value (or random) with the scales of the pattern. */
static void fill_blocks(const scale_map *map, w_pattern pattern, size_t n_blocks, uint8_t *dst)
{
    static const int code[N_W] = {[W_LOW] = 0, [W_HIGH] = 0xFF, [W_SIGN] = 0x80};
    static const float scale[N_W] = {[W_ENCODED] = 0.002f, [W_LOW] = 0.01f,  [W_HIGH] = 0.5f,
                                     [W_SIGN] = -0.02f,    [W_HUGE] = 65504, [W_TINY] = 6e-8f};
    size_t bytes = (size_t)fr_type_get(map->type)->bytes;
    for (size_t b = 0; b < n_blocks; b++, dst += bytes) {
        fill_random(dst, bytes);
        if (pattern == W_LOW || pattern == W_HIGH || pattern == W_SIGN)
            memset(dst, code[pattern], bytes);
        for (int i = 0; i < map->n_scales; i++) {
            float v = pattern == W_RANDOM ? test_rand_f(&rnd) : scale[pattern];
            uint16_t h = fr_f32_to_f16(pattern == W_HUGE && b % 2 ? -v : v);
            memcpy(dst + map->at[i], &h, sizeof h);
        }
    }
}

/* Random bytes until all of them decode to numbers of a sane size; false when that does not happen.
 */
static bool fill_until_sane(fr_type type, fr_layout layout, int64_t rows, int64_t cols,
                            uint8_t *dst)
{
    int64_t group = fr_layout_rows(type, layout);
    size_t group_bytes = (size_t)group * fr_row_bytes(type, layout, cols);
    float *out = test_calloc((size_t)cols, sizeof *out);
    bool sane = true;
    for (int64_t g = 0; g < rows / group && sane; g++, dst += group_bytes) {
        sane = false;
        for (int tries = 0; tries < 20000 && !sane; tries++) {
            fill_random(dst, group_bytes);
            sane = true;
            for (int64_t r = 0; r < group && sane; r++) {
                fr_decode_row(type, layout, dst, r, cols, out);
                for (int64_t i = 0; i < cols && sane; i++)
                    sane = fabsf(out[i]) < 1e15f;
            }
        }
    }
    test_free(out);
    return sane;
}

/* Rows of a pattern; false when the type cannot have it. */
static bool fill_plain(fr_type type, w_pattern pattern, int64_t rows, int64_t cols, uint8_t *dst)
{
    const scale_map *map = scale_map_of(type);
    if (is_float_type(type) || (pattern == W_ENCODED && fr_type_can_encode(type))) {
        encode_rows(type, pattern, rows, cols, dst);
        return true;
    }
    if (map) {
        fill_blocks(map, pattern, (size_t)rows * (size_t)(cols / fr_type_get(type)->weights), dst);
        return true;
    }
    return pattern == W_RANDOM && fill_until_sane(type, FR_LAYOUT_PLAIN, rows, cols, dst);
}

static bool fill_weights(fr_type type, fr_layout layout, w_pattern pattern, int64_t rows,
                         int64_t cols, uint8_t *dst)
{
    fr_err err = {0};
    if (layout == FR_LAYOUT_PLAIN)
        return fill_plain(type, pattern, rows, cols, dst);
    if (fr_type_check(type, FR_LAYOUT_PLAIN, rows, cols, NULL) != FR_OK)
        return pattern == W_RANDOM && fill_until_sane(type, layout, rows, cols, dst);
    uint8_t *plain = test_malloc((size_t)rows * fr_row_bytes(type, FR_LAYOUT_PLAIN, cols));
    bool done = fill_plain(type, pattern, rows, cols, plain);
    if (done)
        assert_ok(fr_repack(type, FR_LAYOUT_PLAIN, layout, rows, cols, plain, dst, &err));
    test_free(plain);
    return done;
}

#endif
