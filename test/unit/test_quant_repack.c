/* All layouts of every type on random bytes: repacking is lossless both ways, and the weights
 * stay. */
#include "testing.h"

#include "quant/qtype.h"
#include "quant/types.h"

/* A matrix in exactly as many bytes as it needs, so that a sanitizer sees a byte too far. */
static uint8_t *new_matrix(fr_type type, fr_layout layout, int64_t rows, int64_t cols,
                           uint64_t *seed)
{
    size_t n = (size_t)rows * fr_row_bytes(type, layout, cols);
    uint8_t *m = malloc(n);
    assert_non_null(m);
    for (size_t i = 0; i < n; i++)
        m[i] = seed ? (uint8_t)(test_rand(seed) >> 32) : 0xA5;
    return m;
}

static uint8_t *repacked(fr_type type, fr_layout from, fr_layout to, int64_t rows, int64_t cols,
                         const uint8_t *src)
{
    fr_err err;
    uint8_t *dst = new_matrix(type, to, rows, cols, NULL);
    assert_ok(fr_repack(type, from, to, rows, cols, src, dst, &err));
    return dst;
}

static void expect_same(const char *what, const char *name, int64_t rows, int64_t cols,
                        const void *a, const void *b, size_t n)
{
    if (memcmp(a, b, n) != 0)
        fail_msg("%s: %s differ at %d x %d", name, what, (int)rows, (int)cols);
}

static void expect_same_weights(fr_type type, fr_layout layout, int64_t rows, int64_t cols,
                                const uint8_t *plain, const uint8_t *other)
{
    float *a = malloc((size_t)cols * sizeof *a), *b = malloc((size_t)cols * sizeof *b);
    assert_true(a && b);
    for (int64_t r = 0; r < rows; r++) {
        fr_decode_row(type, FR_LAYOUT_PLAIN, plain, r, cols, a);
        fr_decode_row(type, layout, other, r, cols, b);
        for (int64_t e = 0; e < cols; e++)
            if (a[e] == a[e] || b[e] == b[e]) /* random scales can be NaN */
                assert_memory_equal(&a[e], &b[e], sizeof *a);
    }
    free(a);
    free(b);
}

static void check_round_trips(fr_type type, fr_layout il, int64_t rows, int64_t cols,
                              uint64_t *seed)
{
    const fr_layout plain = FR_LAYOUT_PLAIN;
    const char *name = fr_type_get(type)->name;
    uint8_t *a = new_matrix(type, il, rows, cols, seed);
    uint8_t *b = repacked(type, il, plain, rows, cols, a);
    uint8_t *c = repacked(type, plain, il, rows, cols, b);
    expect_same("grouped -> plain -> grouped bytes", name, rows, cols, a, c,
                (size_t)rows * fr_row_bytes(type, il, cols));
    expect_same_weights(type, il, rows, cols, b, a);

    uint8_t *d = new_matrix(type, plain, rows, cols, seed);
    if (type == FR_TYPE_Q8_KV) /* its row header holds a sum, which random bytes do not */
        memcpy(d, b, (size_t)rows * fr_row_bytes(type, plain, cols));
    uint8_t *e = repacked(type, plain, il, rows, cols, d);
    uint8_t *f = repacked(type, il, plain, rows, cols, e);
    expect_same("plain -> grouped -> plain bytes", name, rows, cols, d, f,
                (size_t)rows * fr_row_bytes(type, plain, cols));
    expect_same_weights(type, il, rows, cols, d, e);
    uint8_t *all[] = {a, b, c, d, e, f};
    for (int i = 0; i < 6; i++)
        free(all[i]);
}

static void round_trips(void **state)
{
    (void)state;
    uint64_t seed = 20240607;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *info = fr_type_get((fr_type)t);
        if (info->il_only)
            continue;
        static const int blocks[] = {1, 2, 3, 7, 17, 33};
        for (int l = FR_LAYOUT_INTERLEAVED; l < FR_LAYOUT_COUNT; l++) {
            int group = fr_layout_rows((fr_type)t, (fr_layout)l);
            for (size_t i = 0; i < sizeof blocks / sizeof *blocks && group > 0; i++)
                for (int groups = 1; groups <= 3; groups += 2)
                    check_round_trips((fr_type)t, (fr_layout)l, group * groups,
                                      info->il_weights * blocks[i], &seed);
        }
    }
}

static void between_grouped_layouts(void **state)
{
    (void)state;
    const fr_layout il = FR_LAYOUT_INTERLEAVED, native = FR_LAYOUT_NATIVE;
    uint64_t seed = 77;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *info = fr_type_get((fr_type)t);
        if (info->native_group == 0)
            continue;
        assert_true(info->group > 0 && info->native_group % info->group == 0);
        int64_t rows = info->native_group * 3, cols = info->weights * 3;
        uint8_t *a = new_matrix((fr_type)t, native, rows, cols, &seed);
        uint8_t *b = repacked((fr_type)t, native, il, rows, cols, a);
        uint8_t *c = repacked((fr_type)t, il, native, rows, cols, b);
        size_t n = (size_t)rows * fr_row_bytes((fr_type)t, native, cols);
        expect_same("native -> il -> native bytes", info->name, rows, cols, a, c, n);
        if (!info->il_only) {
            uint8_t *d = repacked((fr_type)t, native, FR_LAYOUT_PLAIN, rows, cols, a);
            uint8_t *e = repacked((fr_type)t, il, FR_LAYOUT_PLAIN, rows, cols, b);
            expect_same("plain rows of both", info->name, rows, cols, d, e, n);
            free(d);
            free(e);
        }
        free(a);
        free(b);
        free(c);
    }
}

static void what_a_matrix_becomes_in_memory(void **state)
{
    (void)state;
    assert_int_equal(fr_layout_in_memory(FR_TYPE_IQ3_XXS, 32, 512), FR_LAYOUT_NATIVE);
    assert_int_equal(fr_layout_in_memory(FR_TYPE_IQ3_XXS, 20, 512), FR_LAYOUT_INTERLEAVED);
    assert_int_equal(fr_layout_in_memory(FR_TYPE_IQ3_XXS, 18, 512), FR_LAYOUT_PLAIN);
    assert_int_equal(fr_layout_in_memory(FR_TYPE_F16, 32, 512), FR_LAYOUT_PLAIN);
    assert_string_equal(fr_type_name(FR_TYPE_IQ3_XXS, FR_LAYOUT_NATIVE), "iq3_xxs_native");
}

static void q8_kv_gets_its_sum_back(void **state)
{
    (void)state;
    uint64_t seed = 5;
    enum { COLS = 96, ROWS = 8 };
    uint8_t *il = new_matrix(FR_TYPE_Q8_KV, FR_LAYOUT_INTERLEAVED, ROWS, COLS, &seed);
    uint8_t *plain =
        repacked(FR_TYPE_Q8_KV, FR_LAYOUT_INTERLEAVED, FR_LAYOUT_PLAIN, ROWS, COLS, il);
    for (int r = 0; r < ROWS; r++) {
        const uint8_t *row = plain + (size_t)r * fr_row_bytes(FR_TYPE_Q8_KV, FR_LAYOUT_PLAIN, COLS);
        int32_t stored, sum = 0;
        memcpy(&stored, row + 4, 4);
        for (int e = 0; e < COLS; e++)
            sum += (int8_t)row[8 + e];
        assert_int_equal(stored, sum);
    }
    free(il);
    free(plain);
}

static void impossible_repacking_is_refused(void **state)
{
    (void)state;
    const fr_layout plain = FR_LAYOUT_PLAIN, il = FR_LAYOUT_INTERLEAVED;
    uint8_t a[4096] = {0}, b[4096];
    fr_err err;
    assert_int_equal(fr_repack(FR_TYPE_F32, plain, il, 4, 32, a, b, &err), FR_EUNSUPPORTED);
    assert_int_equal(fr_repack(FR_TYPE_IQ1_S_R4, il, plain, 4, 32, a, b, &err), FR_EUNSUPPORTED);
    assert_int_equal(fr_repack(FR_TYPE_Q4_K, plain, il, 3, 256, a, b, &err), FR_EINVAL);
    assert_int_equal(fr_repack(FR_TYPE_Q4_K, plain, il, 4, 128, a, b, &err), FR_EINVAL);
    assert_int_equal(fr_repack(FR_TYPE_Q4_K, plain, il, 3, 256, a, b, NULL), FR_EINVAL);
    assert_ok(fr_repack(FR_TYPE_Q4_K, plain, il, 0, 256, a, b, &err));
}

static void same_layout_is_a_copy(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (int l = 0; l < FR_LAYOUT_NATIVE; l++) {
        uint8_t *a = new_matrix(FR_TYPE_IQ5_KS, (fr_layout)l, 4, 512, &seed);
        uint8_t *b = repacked(FR_TYPE_IQ5_KS, (fr_layout)l, (fr_layout)l, 4, 512, a);
        assert_memory_equal(a, b, 4 * fr_row_bytes(FR_TYPE_IQ5_KS, (fr_layout)l, 512));
        free(a);
        free(b);
    }
}

/* The functions that unpack one entry or one weight agree with those that unpack a block. */
static void compare_weight(const char *name, unsigned e, float one, float block)
{
    if ((one == one || block == block) && memcmp(&one, &block, sizeof one) != 0)
        fail_msg("%s weight %u alone is %a, in its block %a", name, e, (double)one, (double)block);
}

enum { MAX_META = 16 * 8, MAX_GROUP_BLOCK = 8192 };

static void single_weights_agree(void **state)
{
    (void)state;
    uint64_t seed = 11;
    uint8_t meta[MAX_META], blk[MAX_GROUP_BLOCK];
    for (size_t i = 0; i < sizeof meta; i++)
        meta[i] = (uint8_t)(test_rand(&seed) >> 32);
    for (size_t i = 0; i < sizeof blk; i++)
        blk[i] = (uint8_t)(test_rand(&seed) >> 32);
#define CHECK(T, L, k)                                                                             \
    do {                                                                                           \
        fr_##T##_fields x;                                                                         \
        fr_##T##_unpack_##L(meta, blk, (unsigned)(k), &x);                                         \
        for (unsigned e = 0; e < fr_##T##_chunk; e++)                                              \
            compare_weight(#T, e, fr_##T##_weight_##L(meta, blk, (unsigned)(k), e),                \
                           fr_##T##_value(&x, e));                                                 \
    } while (0);
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, ...)                                      \
    CHECK(T, plain, 0)                                                                             \
    for (int k = 0; k < GROUP; k++)                                                                \
        CHECK(T, il, k)                                                                            \
    for (int k = 0; k < (int)fr_##T##_native_rows; k++)                                            \
    CHECK(T, native, k)
#include "quant/types.def"
#undef X
#undef CHECK
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(between_grouped_layouts),
        cmocka_unit_test(what_a_matrix_becomes_in_memory),
        cmocka_unit_test(q8_kv_gets_its_sum_back),
        cmocka_unit_test(impossible_repacking_is_refused),
        cmocka_unit_test(same_layout_is_a_copy),
        cmocka_unit_test(single_weights_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
