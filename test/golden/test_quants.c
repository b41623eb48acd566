/* All quantized types against the bytes and floats of a foreign producer (data/quants). */
#include "testing.h"

#include <math.h>

#include "base/file.h"
#include "quant/qtype.h"

enum { MAX_VECTORS = 256, N_QUANTIZED = 66, N_RANDOM = 68, MAX_COLS = 512 };

typedef struct {
    char set[16], name[16], floats[16];
    unsigned gguf_id;
    int64_t rows, cols;
    fr_type type;
    fr_layout layout;
    fr_buf bytes, want;
} vector;

typedef struct {
    vector v[MAX_VECTORS];
    size_t n;
} vectors;

static void slurp(const char *set, const char *name, const char *ext, fr_buf *out)
{
    char path[512];
    fr_err err;
    snprintf(path, sizeof path, TEST_FILE("data/quants/%s/%s.%s"), set, name, ext);
    assert_ok(fr_file_slurp(path, 1 << 20, out, &err));
}

static int load(void **state)
{
    vectors *all = calloc(1, sizeof *all);
    FILE *f = fopen(TEST_FILE("data/quants/manifest.txt"), "r");
    char line[256];
    assert_non_null(all);
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#')
            continue;
        assert_true(all->n < MAX_VECTORS);
        vector *v = &all->v[all->n++];
        long long rows, cols;
        assert_int_equal(sscanf(line, "%15s %15s %u %lld %lld %15s", v->set, v->name, &v->gguf_id,
                                &rows, &cols, v->floats),
                         6);
        v->rows = rows;
        v->cols = cols;
        if (!fr_type_from_gguf(v->gguf_id, &v->type, &v->layout))
            fail_msg("%s: GGUF id %u is unknown", v->name, v->gguf_id);
        slurp(v->set, v->name, "q", &v->bytes);
        slurp(v->set, v->floats, "f32", &v->want);
    }
    fclose(f);
    *state = all;
    return 0;
}

static int unload(void **state)
{
    vectors *all = *state;
    for (size_t i = 0; i < all->n; i++) {
        fr_buf_free(&all->v[i].bytes);
        fr_buf_free(&all->v[i].want);
    }
    free(all);
    return 0;
}

static void all_vectors_are_there(void **state)
{
    const vectors *all = *state;
    size_t n_quantized = 0, n_random = 0;
    for (size_t i = 0; i < all->n; i++) {
        n_quantized += strcmp(all->v[i].set, "quantized") == 0;
        n_random += strcmp(all->v[i].set, "random") == 0;
    }
    assert_int_equal(n_quantized, N_QUANTIZED);
    assert_int_equal(n_random, N_RANDOM);
}

static void names_and_sizes_match(void **state)
{
    const vectors *all = *state;
    fr_err err;
    for (size_t i = 0; i < all->n; i++) {
        const vector *v = &all->v[i];
        assert_string_equal(fr_type_name(v->type, v->layout), v->name);
        assert_int_equal(fr_row_bytes(v->type, v->layout, v->cols) * (size_t)v->rows, v->bytes.n);
        assert_int_equal((size_t)(v->rows * v->cols) * sizeof(float), v->want.n);
        assert_ok(fr_type_check(v->type, v->layout, v->rows, v->cols, &err));
    }
}

/* Bit for bit, but for the sign of zero; types whose decoding rounds more than once may differ by
 * 1e-6 of the row's maximum. */
static void compare_row(const vector *v, int64_t row, const float *got, const float *want)
{
    float most = 0;
    for (int64_t e = 0; e < v->cols; e++)
        most = fmaxf(most, fabsf(want[e]));
    float allowed = fr_type_get(v->type)->float_decode ? 1e-6f * most : 0;
    for (int64_t e = 0; e < v->cols; e++)
        if (!(fabsf(got[e] - want[e]) <= allowed))
            fail_msg("%s/%s row %d weight %d: decoded %a, expected %a", v->set, v->name, (int)row,
                     (int)e, (double)got[e], (double)want[e]);
}

static void decoding_is_exact(void **state)
{
    const vectors *all = *state;
    float got[MAX_COLS], want[MAX_COLS];
    for (size_t i = 0; i < all->n; i++) {
        const vector *v = &all->v[i];
        assert_true(v->cols <= MAX_COLS);
        for (int64_t r = 0; r < v->rows; r++) {
            size_t n = (size_t)v->cols * sizeof(float);
            memcpy(want, v->want.p + (size_t)r * n, n);
            fr_decode_row(v->type, v->layout, v->bytes.p, r, v->cols, got);
            compare_row(v, r, got, want);
        }
    }
}

static void dot_is_the_sum_of_decoded_products(void **state)
{
    const vectors *all = *state;
    float w[MAX_COLS], x[MAX_COLS];
    uint64_t seed = 7;
    for (int e = 0; e < MAX_COLS; e++)
        x[e] = test_rand_f(&seed);
    for (size_t i = 0; i < all->n; i++) {
        const vector *v = &all->v[i];
        int64_t r = v->rows - 1;
        fr_decode_row(v->type, v->layout, v->bytes.p, r, v->cols, w);
        double want = 0;
        for (int64_t e = 0; e < v->cols; e++)
            want += (double)w[e] * (double)x[e];
        double got = fr_dot_row(v->type, v->layout, v->bytes.p, r, v->cols, x);
        assert_memory_equal(&got, &want, sizeof got);
    }
}

/* The other form of the same weights, or NULL. */
static const vector *find_other(const vectors *all, const vector *v)
{
    for (size_t i = 0; i < all->n; i++) {
        const vector *o = &all->v[i];
        if (o->type == v->type && o->layout != v->layout && strcmp(o->set, v->set) == 0)
            return o;
    }
    return NULL;
}

static void repacking_gives_the_producers_bytes(void **state)
{
    const vectors *all = *state;
    size_t n_pairs = 0;
    fr_err err;
    for (size_t i = 0; i < all->n; i++) {
        const vector *v = &all->v[i], *o = find_other(all, v);
        if (!o)
            continue;
        uint8_t *dst = malloc(o->bytes.n);
        assert_non_null(dst);
        memset(dst, 0xA5, o->bytes.n);
        assert_ok(
            fr_repack(v->type, v->layout, o->layout, v->rows, v->cols, v->bytes.p, dst, &err));
        for (size_t b = 0; b < o->bytes.n; b++)
            if (dst[b] != (uint8_t)o->bytes.p[b])
                fail_msg("%s/%s -> %s: byte %zu is %02x, expected %02x", v->set, v->name, o->name,
                         b, dst[b], (uint8_t)o->bytes.p[b]);
        free(dst);
        n_pairs++;
    }
    assert_int_equal(n_pairs, 46 + 50); /* both ways */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_vectors_are_there),
        cmocka_unit_test(names_and_sizes_match),
        cmocka_unit_test(decoding_is_exact),
        cmocka_unit_test(dot_is_the_sum_of_decoded_products),
        cmocka_unit_test(repacking_gives_the_producers_bytes),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
