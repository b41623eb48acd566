/* Kernel checker: every slot of every tier of this machine.
 *
 *   naive       decoded weights times decoded activations in double      the registry's meaning
 *   scalar      against naive: the references are right
 *   other tiers against scalar: the fast kernels compute the same
 *
 * Bounds come from the operands: each kernel may err by its own rounding, (operations in a row) *
 * 2^-24 of the sum of the sizes of what it adds, and no more. Sources and destination end at, or
 * start after, a page that cannot be touched.
 *
 *   test_kernels [--seed N]                     checks
 *   test_kernels --bench [--threads N] [--isa TIER] [TYPE]   checks, then speed of every fast
 * kernel */
#include "testing.h"

#include <math.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "cpu/kernels.h"
#include "kern/hostile_weights.h"

static uint64_t seed = 20240607;
static cpu_table tables[FR_ISA_AUTO]; /* by tier, up to best */
static fr_isa best;

/* ---- guarded memory
 * ---------------------------------------------------------------------------------- */

typedef struct {
    char *map;
    size_t map_bytes;
    void *p; /* bytes of it, before or behind a forbidden page */
} guarded;

/* Ends at the forbidden page, or starts `shift` bytes after one. */
static guarded guarded_make(size_t bytes, bool at_end, size_t shift)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (bytes + shift + page - 1) / page * page;
    guarded g = {.map_bytes = room + 2 * page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map, page, PROT_NONE), 0);
    assert_int_equal(mprotect(g.map + page + room, page, PROT_NONE), 0);
    g.p = at_end ? g.map + page + room - bytes : g.map + page + shift;
    return g;
}

static void guarded_free(guarded *g)
{
    munmap(g->map, g->map_bytes);
}

/* ---- hostile activations
 * ------------------------------------------------------------------------------ */

typedef enum { X_RANDOM, X_ZERO, X_MAX, X_MIN, X_OUTLIER, X_HUGE, X_TINY, X_HALVES, N_X } x_pattern;

static void fill_x(x_pattern pattern, int64_t n, float *x)
{
    int64_t outlier = rand_below((int)n);
    for (int64_t i = 0; i < n; i++) {
        float v = test_rand_f(&rnd);
        switch (pattern) {
        case X_ZERO:
            v = 0;
            break;
        case X_MAX:
            v = 3;
            break;
        case X_MIN:
            v = -3;
            break;
        case X_OUTLIER:
            v = i == outlier ? 3e4f : v * 1e-3f;
            break;
        case X_HUGE:
            v *= 1e20f;
            break;
        case X_TINY:
            v *= 1e-42f;
            break;
        case X_HALVES: /* lands on or beside the middle between two codes */
            v = i % 32 == 0 ? 127.0f : (float)rand_below(255) - 127 + (i % 2 ? 0.5f : 0.49999997f);
            break;
        default:
            break;
        }
        x[i] = v;
    }
}

/* ---- one case
 * ------------------------------------------------------------------------------------------ */

typedef struct {
    fr_type type;
    fr_layout layout;
    fr_act_type act;
    int64_t rows, cols;
    int n_tokens;
    w_pattern wp;
    x_pattern xp;
    guarded w, x, y;
    size_t x_row_bytes;
} dot_case;

static void run_kernel(const dot_case *c, const cpu_kernel *k, int64_t from, int64_t to, int t_from,
                       int t_to, float *y)
{
    const void *x[CPU_MANY_TOKENS];
    float *rows[CPU_MANY_TOKENS];
    for (int t = t_from; t < t_to; t++) {
        x[t - t_from] = (char *)c->x.p + (size_t)t * c->x_row_bytes;
        rows[t - t_from] = y + (t - t_from) * (to - from);
    }
    cpu_dot_args a = {.type = c->type,
                      .layout = c->layout,
                      .act = c->act,
                      .n_tokens = t_to - t_from,
                      .cols = c->cols,
                      .base = c->w.p,
                      .row_from = from,
                      .row_to = to,
                      .x = x,
                      .y = rows};
    k->dot(&a);
}

/* A row in the plain form. */
static void plain_row(const dot_case *c, int64_t row, uint8_t *out)
{
    fr_err err = {0};
    int64_t group = fr_layout_rows(c->type, c->layout);
    size_t row_bytes = fr_row_bytes(c->type, FR_LAYOUT_PLAIN, c->cols);
    if (c->layout == FR_LAYOUT_PLAIN) {
        memcpy(out, (uint8_t *)c->w.p + (size_t)row * row_bytes, row_bytes);
        return;
    }
    size_t group_bytes = (size_t)group * row_bytes;
    uint8_t *from = test_malloc(group_bytes), *to = test_malloc(group_bytes);
    memcpy(from, (uint8_t *)c->w.p + (size_t)(row / group) * group_bytes, group_bytes);
    assert_ok(fr_repack(c->type, c->layout, FR_LAYOUT_PLAIN, group, c->cols, from, to, &err));
    memcpy(out, to + (size_t)(row % group) * row_bytes, row_bytes);
    test_free(from);
    test_free(to);
}

/* The sizes of what a kernel adds up for weight i: |w| mostly, more where it adds parts of w apart.
 * Types with two scales: d * scale * q and m * min. q6_K plain: the offset of 32 comes off at the
 * end. */
static void weight_sizes(const dot_case *c, int64_t row, double *size)
{
    float *out = test_calloc((size_t)c->cols, sizeof *out);
    const scale_map *map = scale_map_of(c->type);
    bool min = map && map->n_scales == 2;
    bool six = c->type == FR_TYPE_Q6_K && c->layout == FR_LAYOUT_PLAIN;
    memset(size, 0, (size_t)c->cols * sizeof *size);
    if (!min && !six) {
        fr_decode_row(c->type, c->layout, c->w.p, row, c->cols, out);
        for (int64_t i = 0; i < c->cols; i++)
            size[i] = fabs((double)out[i]);
        test_free(out);
        return;
    }
    size_t row_bytes = fr_row_bytes(c->type, FR_LAYOUT_PLAIN, c->cols);
    size_t block = (size_t)fr_type_get(c->type)->bytes;
    uint8_t *copy = test_malloc(row_bytes);
    for (int part = 0; part < 2; part++) {
        plain_row(c, row, copy);
        for (uint8_t *b = copy; b < copy + row_bytes; b += block) {
            if (min)
                memset(b + map->at[part], 0, 2);
            else if (part == 1)
                memset(b, 0, 192);
        }
        fr_decode_row(c->type, FR_LAYOUT_PLAIN, copy, 0, c->cols, out);
        for (int64_t i = 0; i < c->cols; i++)
            size[i] += fabs((double)out[i]);
    }
    test_free(copy);
    test_free(out);
}

/* Naive dot products, and the sums of sizes that bound the errors: [t * rows + r]. */
static void naive(const dot_case *c, double *y, double *size)
{
    size_t n = (size_t)c->cols;
    float *w = test_calloc(n, sizeof *w), *x = test_calloc(n, sizeof *x);
    double *w_size = test_calloc(n, sizeof *w_size);
    for (int64_t r = 0; r < c->rows; r++) {
        fr_decode_row(c->type, c->layout, c->w.p, r, c->cols, w);
        weight_sizes(c, r, w_size);
        for (int t = 0; t < c->n_tokens; t++) {
            fr_act_decode_row(c->act, (char *)c->x.p + (size_t)t * c->x_row_bytes, c->cols, x);
            double sum = 0, sum_size = 0;
            for (size_t i = 0; i < n; i++) {
                sum += (double)w[i] * (double)x[i];
                sum_size += w_size[i] * fabs((double)x[i]);
            }
            y[t * c->rows + r] = sum;
            size[t * c->rows + r] = sum_size;
        }
    }
    test_free(w);
    test_free(x);
    test_free(w_size);
}

static void describe(const dot_case *c, const char *kernel, char *out, size_t n)
{
    snprintf(out, n,
             "%s on %s, %lld rows x %lld cols, %d tokens, weights %d, activations %d, seed %llu",
             kernel, fr_type_name(c->type, c->layout), (long long)c->rows, (long long)c->cols,
             c->n_tokens, (int)c->wp, (int)c->xp, (unsigned long long)seed);
}

/* |got - expected| <= ops * 2^-24 * size + what subnormal numbers lose. Sums beyond the range of
 * float are not judged. */
static void check_bound(const dot_case *c, const char *kernel, const float *got,
                        const double *expected, const double *size, double ops)
{
    char text[256];
    double lost = (double)c->cols * 0x1p-149 * (c->act == FR_ACT_F32 ? 1 : 127 * 128 * 64);
    for (int64_t i = 0; i < c->rows * c->n_tokens; i++) {
        if (size[i] > 1e37)
            continue;
        double bound = ops * 0x1p-24 * size[i] + lost, error = fabs((double)got[i] - expected[i]);
        if (!(error <= bound)) {
            describe(c, kernel, text, sizeof text);
            fail_msg("%s: row %lld token %lld: found %.9g, expected %.9g, error %.3g over %.3g",
                     text, (long long)(i % c->rows), (long long)(i / c->rows), (double)got[i],
                     expected[i], error, bound);
        }
    }
}

/* Any part of the rows and tokens gives the bits of the whole. */
static void check_parts(const dot_case *c, const cpu_kernel *k, const float *whole)
{
    char text[256];
    float *part = test_calloc((size_t)(c->rows * c->n_tokens), sizeof *part);
    for (int n = 0; n < 6; n++) {
        int64_t from = rand_below((int)c->rows), to = from + 1 + rand_below((int)(c->rows - from));
        int t0 = rand_below(c->n_tokens), t1 = t0 + 1 + rand_below(c->n_tokens - t0);
        run_kernel(c, k, from, to, t0, t1, part);
        for (int t = t0; t < t1; t++) {
            if (memcmp(part + (t - t0) * (to - from), whole + t * c->rows + from,
                       (size_t)(to - from) * sizeof *part)) {
                describe(c, k->name, text, sizeof text);
                fail_msg("%s: rows %lld..%lld, tokens %d..%d: other bits than in the whole", text,
                         (long long)from, (long long)to, t0, t1);
            }
        }
    }
    test_free(part);
}

/* The longest chain of roundings to one element: eight lanes, then their sum; or, with rows side by
 * side, every scale of a block and then the block. */
static double rounding_steps(const dot_case *c)
{
    if (c->act == FR_ACT_F32)
        return (double)c->cols / 8 + 8;
    int64_t blocks = c->cols / fr_act_block(c->act);
    return (c->act == FR_ACT_Q8_256 ? 20.0 : 4.0) * (double)blocks + 8;
}

static void check_case(dot_case *c)
{
    size_t n = (size_t)(c->rows * c->n_tokens);
    float *scalar = test_calloc(n, sizeof *scalar);
    double *expected = test_calloc(n, sizeof *expected), *size = test_calloc(n, sizeof *size);
    naive(c, expected, size);
    for (int isa = 0; isa <= (int)best; isa++) {
        const cpu_kernel *k = &tables[isa].dot[c->type][c->layout];
        memset(c->y.p, 0xFF, n * sizeof(float));
        run_kernel(c, k, 0, c->rows, 0, c->n_tokens, c->y.p);
        /* decoded weights are rounded three times at most, decoded activations once */
        check_bound(c, k->name, c->y.p, expected, size, (isa ? rounding_steps(c) : 0) + 6);
        check_parts(c, k, c->y.p);
        if (isa == FR_ISA_SCALAR)
            memcpy(scalar, c->y.p, n * sizeof *scalar);
        for (size_t i = 0; i < n && isa == FR_ISA_SCALAR; i++)
            expected[i] = scalar[i];
    }
    test_free(scalar);
    test_free(expected);
    test_free(size);
}

/* ---- all cases of a slot
 * --------------------------------------------------------------------------------- */

/* false when the type has no such weights. */
static bool make_case(dot_case *c, bool at_end)
{
    size_t w_bytes = (size_t)c->rows * fr_row_bytes(c->type, c->layout, c->cols);
    c->x_row_bytes = fr_act_row_bytes(c->act, c->cols);
    c->w = guarded_make(w_bytes, at_end, (size_t)rand_below(4));
    c->x = guarded_make((size_t)c->n_tokens * c->x_row_bytes, at_end, 4);
    c->y = guarded_make((size_t)(c->rows * c->n_tokens) * sizeof(float), at_end, 4);
    uint8_t *w =
        test_malloc(w_bytes); /* the source of a weight may lie at odd addresses, codecs may not */
    bool done = fill_weights(c->type, c->layout, c->wp, c->rows, c->cols, w);
    memcpy(c->w.p, w, w_bytes);
    test_free(w);
    float *x = test_calloc((size_t)c->cols, sizeof *x);
    for (int t = 0; t < c->n_tokens; t++) {
        fill_x(c->xp, c->cols, x);
        fr_act_encode_row(c->act, x, c->cols, (char *)c->x.p + (size_t)t * c->x_row_bytes);
    }
    test_free(x);
    return done;
}

static void run_case(fr_type type, fr_layout layout, int64_t rows, int64_t cols, int n_tokens,
                     w_pattern wp, x_pattern xp)
{
    dot_case c = {.type = type,
                  .layout = layout,
                  .act = tables[FR_ISA_SCALAR].dot[type][layout].act,
                  .rows = rows,
                  .cols = cols,
                  .n_tokens = n_tokens,
                  .wp = wp,
                  .xp = xp};
    if (fr_type_check(type, layout, rows, cols, NULL) == FR_OK) {
        if (make_case(&c, rand_below(2)))
            check_case(&c);
        guarded_free(&c.w);
        guarded_free(&c.x);
        guarded_free(&c.y);
    }
}

static void check_slot(fr_type type, fr_layout layout)
{
    static const int float_cols[] = {1, 2, 3, 7, 8, 9, 31, 64, 250, 256, 257, 520, 1031};
    const fr_type_info *info = fr_type_get(type);
    int group = fr_layout_rows(type, layout);
    int block = info->weights > 1 ? info->weights : 2 * 16;
    bool own = is_float_type(type) || scale_map_of(type) != NULL;
    for (int wp = 0; wp < N_W; wp++) {
        for (int xp = 0; xp < N_X; xp++) {
            if (own || wp <= W_ENCODED)
                run_case(type, layout, group > 5 ? group : 5 * group, 2 * block, 7, (w_pattern)wp,
                         (x_pattern)xp);
        }
    }
    for (int n = 0; n < 12; n++) {
        int64_t cols = info->weights > 1
                           ? (int64_t)info->weights * (1 + rand_below(1024 / info->weights))
                           : float_cols[rand_below(13)];
        run_case(type, layout, group * (1 + rand_below(group > 1 ? 2 : 11)), cols,
                 1 + rand_below(11), W_RANDOM, X_RANDOM);
    }
    run_case(type, layout, 4 * group, 2 * block, CPU_MAX_TOKENS, W_RANDOM, X_RANDOM);
    if (block == 32) /* wider than what a kernel may keep of the activations */
        run_case(type, layout, group, 32 * 1050, 1, W_RANDOM, X_RANDOM);
}

/* A token has the same bits whatever the number of tokens it comes with. */
static void check_batches(fr_type type, fr_layout layout, const cpu_kernel *k)
{
    static const int sizes[] = {1, 2, 7, 8, 17, 64, 100, 512};
    const fr_type_info *info = fr_type_get(type);
    const int most = cpu_kernel_tokens(k), rows = layout == FR_LAYOUT_PLAIN ? 40 : 80;
    dot_case c = {.type = type,
                  .layout = layout,
                  .act = k->act,
                  .rows = rows,
                  .cols = info->weights == 32 ? 256 + 96 : 512,
                  .n_tokens = most,
                  .xp = X_RANDOM};
    if (fr_type_check(type, layout, c.rows, c.cols, NULL) != FR_OK)
        return;
    if (make_case(&c, rand_below(2))) {
        char text[256];
        float *one = test_calloc((size_t)(rows * most), sizeof *one);
        for (int t = 0; t < most; t++)
            run_kernel(&c, k, 0, rows, t, t + 1, one + t * rows);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= most; i++) {
            size_t n = (size_t)(sizes[i] * rows);
            int from = rand_below(most - sizes[i] + 1);
            memset(c.y.p, 0xFF, n * sizeof *one);
            run_kernel(&c, k, 0, rows, from, from + sizes[i], c.y.p);
            describe(&c, k->name, text, sizeof text);
            if (memcmp(c.y.p, one + from * rows, n * sizeof *one))
                fail_msg("%s: %d tokens at once: other bits than one by one", text, sizes[i]);
        }
        test_free(one);
    }
    guarded_free(&c.w);
    guarded_free(&c.x);
    guarded_free(&c.y);
}

static void test_bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    for (int type = 0; type < FR_TYPE_COUNT; type++) {
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++) {
            for (int isa = FR_ISA_AVX2; isa <= (int)best; isa++)
                check_batches((fr_type)type, (fr_layout)layout, &tables[isa].dot[type][layout]);
        }
    }
}

static void test_dot_products(void **state)
{
    (void)state;
    for (int type = 0; type < FR_TYPE_COUNT; type++) {
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++) {
            bool exists = fr_layout_rows((fr_type)type, (fr_layout)layout) > 0;
            if (exists)
                check_slot((fr_type)type, (fr_layout)layout);
            for (int isa = 0; isa <= (int)best; isa++) /* tiers share prepared activations */
                assert_int_equal(tables[isa].dot[type][layout].act,
                                 tables[0].dot[type][layout].act);
        }
    }
}

/* The portable kernel takes quantized activations for any type too. */
static void test_portable_kernel_reads_every_activation(void **state)
{
    (void)state;
    for (int act = 0; act <= FR_ACT_Q8_256; act++) {
        dot_case c = {
            .type = FR_TYPE_Q8_0, .act = (fr_act_type)act, .rows = 5, .cols = 768, .n_tokens = 3};
        assert_true(make_case(&c, true));
        size_t n = (size_t)(c.rows * c.n_tokens);
        double *expected = test_calloc(n, sizeof *expected), *size = test_calloc(n, sizeof *size);
        naive(&c, expected, size);
        run_kernel(&c, &tables[best].any, 0, c.rows, 0, c.n_tokens, c.y.p);
        check_bound(&c, "any", c.y.p, expected, size, 6);
        test_free(expected);
        test_free(size);
        guarded_free(&c.w);
        guarded_free(&c.x);
        guarded_free(&c.y);
    }
}

/* A fault in the activations must show in every result that reads them. */
static void test_not_finite_activations_show(void **state)
{
    (void)state;
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    for (int type = 0; type < FR_TYPE_COUNT; type++) {
        for (int isa = 0; isa <= (int)best; isa++) {
            const cpu_kernel *k = &tables[isa].dot[type][FR_LAYOUT_PLAIN];
            dot_case c = {
                .type = (fr_type)type, .act = k->act, .rows = 4, .cols = 512, .n_tokens = 2};
            if (fr_type_check(c.type, c.layout, c.rows, c.cols, NULL) != FR_OK)
                continue;
            bool made = make_case(&c, true);
            float x[512], *y = c.y.p;
            for (int t = 0; t < 2 && made; t++) {
                fill_x(X_RANDOM, 512, x);
                x[rand_below(512)] = t == 0 ? bad[rand_below(3)] : 1;
                tables[isa].act_encode(c.act, x, 512, (char *)c.x.p + (size_t)t * c.x_row_bytes);
            }
            if (made) {
                run_kernel(&c, k, 0, c.rows, 0, 2, y);
                for (int r = 0; r < 4; r++) {
                    assert_false(isfinite(y[r]));
                    assert_true(isfinite(y[4 + r]));
                }
            }
            guarded_free(&c.w);
            guarded_free(&c.x);
            guarded_free(&c.y);
        }
    }
}

/* ---- activations and SwiGLU
 * -------------------------------------------------------------------------------- */

static void test_act_encode_is_the_reference_bit_for_bit(void **state)
{
    (void)state;
    for (int n = 0; n < 400; n++) {
        fr_act_type act = (fr_act_type)rand_below(3);
        int64_t cols = (int64_t)fr_act_block(act) * (1 + rand_below(5));
        size_t bytes = fr_act_row_bytes(act, cols), x_bytes = (size_t)cols * sizeof(float);
        guarded x = guarded_make(x_bytes, n % 2, 4), dst = guarded_make(bytes, n % 2, 4);
        void *expected = test_malloc(bytes);
        fill_x((x_pattern)(n % N_X), cols, x.p);
        if (n % 16 == 15)
            ((float *)x.p)[rand_below((int)cols)] = n % 32 == 15 ? NAN : -INFINITY;
        fr_act_encode_row(act, x.p, cols, expected);
        for (int isa = 0; isa <= (int)best; isa++) {
            memset(dst.p, 0x55, bytes);
            tables[isa].act_encode(act, x.p, cols, dst.p);
            assert_memory_equal(dst.p, expected, bytes);
        }
        test_free(expected);
        guarded_free(&x);
        guarded_free(&dst);
    }
}

static void test_silu_mul(void **state)
{
    (void)state;
    static const float special[] = {0,     -0.0f,  1e-40f, -1e-40f, 87.2f, -87.2f, 88.2f, -88.2f,
                                    88.4f, -88.4f, 103,    -103,    1e30f, -1e30f, 16.5f, -16.5f};
    for (int n = 1; n < 200; n++) {
        size_t bytes = (size_t)n * sizeof(float);
        guarded gate = guarded_make(bytes, n % 2, 4), up = guarded_make(bytes, n % 2, 4);
        float *g = gate.p, *u = up.p, g0[200], whole[200];
        for (int i = 0; i < n; i++) {
            g0[i] = i < 16 ? special[i] : test_rand_f(&rnd) * (i % 3 ? 8 : 95);
            u[i] = test_rand_f(&rnd) * 3;
        }
        for (int isa = 0; isa <= (int)best; isa++) {
            memcpy(g, g0, bytes);
            tables[isa].silu_mul(g, u, n);
            memcpy(whole, g, bytes);
            for (int i = 0; i < n; i++) {
                double v = g0[i], expected = v / (1 + exp(-v)) * u[i];
                double bound = 8 * 0x1p-24 * fabs(expected) + 1e-35 * fabs((double)u[i]);
                if (!(fabs(g[i] - expected) <= bound))
                    fail_msg("silu_mul %s: %.9g, %.9g: found %.9g, expected %.9g",
                             fr_isa_name((fr_isa)isa), v, (double)u[i], (double)g[i], expected);
            }
            int from = rand_below(n);
            memcpy(g, g0, bytes);
            tables[isa].silu_mul(g + from, u + from, n - from);
            assert_memory_equal(g + from, whole + from, (size_t)(n - from) * sizeof(float));
        }
        guarded_free(&gate);
        guarded_free(&up);
    }
}

#include "kern/kernel_bench.h"

/* ---- main
 * -------------------------------------------------------------------------------------------------
 */

int main(int argc, char **argv)
{
    bench_options bench = {.isa = FR_ISA_AUTO};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench"))
            bench.on = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
            bench.n_threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc)
            fr_isa_from_name(argv[++i], &bench.isa);
        else
            bench.only = argv[i];
    }
    rnd = seed ? seed : 1;
    printf("seed %llu\n", (unsigned long long)seed);
    best = cpu_isa_detect();
    for (int isa = 0; isa <= (int)best; isa++)
        cpu_table_fill(&tables[isa], (fr_isa)isa);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dot_products),
        cmocka_unit_test(test_bits_do_not_depend_on_the_batch),
        cmocka_unit_test(test_portable_kernel_reads_every_activation),
        cmocka_unit_test(test_not_finite_activations_show),
        cmocka_unit_test(test_act_encode_is_the_reference_bit_for_bit),
        cmocka_unit_test(test_silu_mul),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed || !bench.on ? failed : bench_all(&bench);
}
