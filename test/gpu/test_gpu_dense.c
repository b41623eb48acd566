/* Matrices of every type and layout on the GPU: decoding against a foreign producer's floats,
 * products against sums in double. */
#include "gpu_testing.h"

#include "base/file.h"

enum { MAX_VECTORS = 256, MAX_COLS = 512, ARENA = 32 << 20 };

typedef struct {
    char name[64];
    int64_t rows, cols;
    fr_type type;
    fr_layout layout;
    fr_buf bytes, want;
} vector;

static vector vectors[MAX_VECTORS];
static size_t n_vectors;
static bool is_covered[FR_TYPE_COUNT][FR_LAYOUT_COUNT];

static void slurp(const char *set, const char *name, const char *ext, fr_buf *out)
{
    char path[512];
    fr_err err;
    snprintf(path, sizeof path, TEST_FILE("data/quants/%s/%s.%s"), set, name, ext);
    assert_ok(fr_file_slurp(path, 1 << 20, out, &err));
}

static int load(void **state)
{
    (void)state;
    FILE *f = fopen(TEST_FILE("data/quants/manifest.txt"), "r");
    char line[256], set[16], name[16], floats[16];
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        unsigned id;
        long long rows, cols;
        if (line[0] == '#')
            continue;
        assert_true(n_vectors < MAX_VECTORS);
        vector *v = &vectors[n_vectors++];
        assert_int_equal(
            sscanf(line, "%15s %15s %u %lld %lld %15s", set, name, &id, &rows, &cols, floats), 6);
        snprintf(v->name, sizeof v->name, "%s/%s", set, name);
        v->rows = rows;
        v->cols = cols;
        assert_true(fr_type_from_gguf(id, &v->type, &v->layout));
        slurp(set, name, "q", &v->bytes);
        slurp(set, floats, "f32", &v->want);
    }
    fclose(f);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_vectors; i++) {
        fr_buf_free(&vectors[i].bytes);
        fr_buf_free(&vectors[i].want);
    }
    return 0;
}

/* The vector's weights in another layout of its type; false when they have none. */
static bool in_layout(const vector *v, fr_layout layout, uint8_t *dst)
{
    fr_err err;
    if (fr_type_check(v->type, layout, v->rows, v->cols, &err) != FR_OK)
        return false;
    if (layout == v->layout)
        memcpy(dst, v->bytes.p, v->bytes.n);
    else
        assert_ok(fr_repack(v->type, v->layout, layout, v->rows, v->cols, v->bytes.p, dst, &err));
    is_covered[v->type][layout] = true;
    return true;
}

static void check_decoding(gpu_bench *b, const vector *v, fr_layout layout)
{
    static uint8_t bytes[MAX_VECTORS * MAX_COLS * 8];
    static float got[64 * MAX_COLS];
    fr_err err;
    if (!in_layout(v, layout, bytes))
        return;
    fr_weight w = fr_weight_make(v->type, layout, v->cols, v->rows, 1);
    w.data = gpu_put(b, bytes, w.mat_bytes);
    int64_t ld = v->cols + 3, n = v->rows * ld;
    assert_true((size_t)n <= sizeof got / sizeof *got);
    fr_gpu_rows_args args = {&w, 0, 0, v->rows, NULL, gpu_floats(b, NULL, n), ld};
    assert_ok(b->gpu->rows(&args, b->s, &err));
    gpu_get(b, got, args.y_d, (size_t)n * sizeof *got);
    const float *want = (const float *)(const void *)v->want.p;
    for (int64_t r = 0; r < v->rows; r++) {
        float most = 0;
        for (int64_t i = 0; i < v->cols; i++)
            most = fmaxf(most, fabsf(want[r * v->cols + i]));
        double allowed = fr_type_get(v->type)->float_decode ? 1e-6 * (double)most : 0;
        assert_close(got + r * ld, want + r * v->cols, v->cols, 0, allowed, v->name);
    }
}

static void decode_all(const fr_gpu *gpu)
{
    for (size_t i = 0; i < n_vectors; i++) {
        gpu_bench b = gpu_open(gpu, ARENA);
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++)
            check_decoding(&b, &vectors[i], (fr_layout)layout);
        gpu_close(&b);
    }
}

static void test_decoding(void **state)
{
    (void)state;
    on_every_gpu(decode_all);
    for (int t = 0; t < FR_TYPE_COUNT; t++)
        for (int l = 0; l < FR_LAYOUT_COUNT; l++)
            if (t != FR_TYPE_F32 && fr_layout_rows((fr_type)t, (fr_layout)l) > 0 &&
                !is_covered[t][l])
                fail_msg("%s: no vector", fr_type_name((fr_type)t, (fr_layout)l));
}

/* ---- products ------------------------------------------------------------------------------- */

typedef struct {
    int64_t n_tokens, n_pick;
    const int32_t *ids; /* NULL: all matrices */
    bool matmul;
} product;

/* Matrix m is the vector's rows; several matrices are the same bytes with their rows turned. */
static void check_product(gpu_bench *b, const vector *v, fr_layout layout, product p, uint64_t seed)
{
    enum { MATS = 3, MOST = 64 * MAX_COLS };
    static uint8_t bytes[MATS * MAX_VECTORS * MAX_COLS];
    static float x[MOST], got[MOST], row[MAX_COLS];
    fr_err err;
    fr_weight w = fr_weight_make(v->type, layout, v->cols, v->rows, MATS);
    if (!in_layout(v, layout, bytes))
        return;
    for (size_t m = 1; m < MATS; m++)
        memcpy(bytes + m * w.mat_bytes, bytes, w.mat_bytes);
    int64_t n_x = p.n_tokens * p.n_pick, ldy = p.n_pick * v->rows + 1;
    fill_random(x, n_x * v->cols, 1, &seed);
    const void *data = w.data = gpu_put(b, bytes, MATS * w.mat_bytes);
    size_t scratch = 5 * (size_t)v->cols * sizeof(float);
    fr_gpu_matmul_args args = {.w = &w,
                               .n_tokens = p.n_tokens,
                               .n_pick = p.n_pick,
                               .x_d = gpu_floats(b, x, n_x * v->cols),
                               .ldx = p.n_pick * v->cols,
                               .x_stride = v->cols,
                               .y_d = gpu_floats(b, NULL, p.n_tokens * ldy),
                               .ldy = ldy,
                               .y_stride = v->rows,
                               .scratch_d = gpu_put(b, NULL, scratch),
                               .scratch_bytes = scratch};
    if (p.ids)
        args.ids_d = gpu_put(b, p.ids, (size_t)n_x * sizeof *p.ids);
    assert_ok((p.matmul ? b->gpu->matmul : b->gpu->matvec)(&args, b->s, &err));
    gpu_get(b, got, args.y_d, (size_t)(p.n_tokens * ldy) * sizeof *got);
    assert_ptr_equal(data, w.data);
    for (int64_t r = 0; r < v->rows; r++) {
        fr_decode_row(v->type, layout, bytes, r, v->cols, row);
        for (int64_t i = 0; i < n_x; i++) {
            double want = 0, size = 0;
            for (int64_t c = 0; c < v->cols; c++) {
                want += (double)row[c] * (double)x[i * v->cols + c];
                size += fabs((double)row[c] * (double)x[i * v->cols + c]);
            }
            float y = got[i / p.n_pick * ldy + i % p.n_pick * v->rows + r], exact = (float)want;
            assert_close(&y, &exact, 1, 0, 0x1p-19 * size + 1e-37, v->name);
        }
    }
}

static void multiply_all(const fr_gpu *gpu)
{
    static const int32_t ids[] = {2, 0, 1, 2, 0, 1};
    for (size_t i = 0; i < n_vectors; i++) {
        if (strncmp(vectors[i].name, "quantized/", 10) != 0)
            continue;
        gpu_bench b = gpu_open(gpu, ARENA);
        for (int l = 0; l < FR_LAYOUT_COUNT; l++) {
            fr_layout layout = (fr_layout)l;
            check_product(&b, &vectors[i], layout, (product){1, 1, NULL, false}, i + 1);
            check_product(&b, &vectors[i], layout, (product){1, 3, NULL, i % 2}, i + 1);
        }
        check_product(&b, &vectors[i], vectors[i].layout, (product){3, 2, ids, false}, i + 2);
        check_product(&b, &vectors[i], vectors[i].layout, (product){33, 1, NULL, true}, i + 3);
        gpu_close(&b);
    }
}

static void test_products(void **state)
{
    (void)state;
    on_every_gpu(multiply_all);
}

/* f32 weights, odd shapes: rows and columns that fill no tile. */
static void check_shape(gpu_bench *b, int64_t rows, int64_t cols, int64_t n_tokens, bool matmul)
{
    static float w_h[4000], x[8000], got[8000];
    uint64_t rng = 77;
    fr_err err;
    fill_random(w_h, rows * cols, 1, &rng);
    fill_random(x, n_tokens * cols, 1, &rng);
    fr_weight w = fr_weight_make(FR_TYPE_F32, FR_LAYOUT_PLAIN, cols, rows, 1);
    w.data = gpu_floats(b, w_h, rows * cols);
    size_t scratch = fr_gpu_matmul_scratch_bytes(&w);
    fr_gpu_matmul_args args = {.w = &w,
                               .n_tokens = n_tokens,
                               .n_pick = 1,
                               .x_d = gpu_floats(b, x, n_tokens * cols),
                               .ldx = cols,
                               .y_d = gpu_floats(b, NULL, n_tokens * rows),
                               .ldy = rows,
                               .scratch_d = gpu_put(b, NULL, scratch),
                               .scratch_bytes = scratch};
    assert_ok((matmul ? b->gpu->matmul : b->gpu->matvec)(&args, b->s, &err));
    gpu_get(b, got, args.y_d, (size_t)(n_tokens * rows) * sizeof *got);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < rows; r++) {
            double want = 0;
            for (int64_t c = 0; c < cols; c++)
                want += (double)w_h[r * cols + c] * (double)x[t * cols + c];
            float exact = (float)want;
            assert_close(&got[t * rows + r], &exact, 1, 0, 1e-4, "f32 product");
        }
}

static void multiply_shapes(const fr_gpu *gpu)
{
    static const int64_t shapes[][3] = {{1, 1, 1}, {7, 33, 2}, {65, 5, 33}, {31, 100, 70}};
    gpu_bench b = gpu_open(gpu, ARENA);
    for (int i = 0; i < 4; i++) {
        check_shape(&b, shapes[i][0], shapes[i][1], shapes[i][2], false);
        check_shape(&b, shapes[i][0], shapes[i][1], shapes[i][2], true);
    }
    gpu_close(&b);
}

static void test_shapes(void **state)
{
    (void)state;
    on_every_gpu(multiply_shapes);
}

/* A form that does not exist is an error, not a crash. */
static void refuse(const fr_gpu *gpu)
{
    fr_err err;
    gpu_bench b = gpu_open(gpu, ARENA);
    fr_weight w = fr_weight_make(FR_TYPE_F32, FR_LAYOUT_PLAIN, 32, 4, 1);
    float *p = gpu_floats(&b, NULL, 256);
    w.data = p;
    w.layout = FR_LAYOUT_INTERLEAVED;
    fr_gpu_rows_args args = {&w, 0, 0, 4, NULL, p, 32};
    assert_int_equal(gpu->rows(&args, b.s, &err), FR_EINTERNAL);
    assert_non_null(strstr(err.text, "launch_rows"));
    gpu_close(&b);
}

static void test_missing_form(void **state)
{
    (void)state;
    on_every_gpu(refuse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_missing_form),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
