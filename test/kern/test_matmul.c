/* fr_cpu_matmul and fr_cpu_moe: the same bits for any number of threads and any split of the batch,
 * and the right values against naive sums. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "cpu/ops.h"
#include "kern/hostile_weights.h"

static const int thread_counts[] = {1, 2, 3, 5};
enum { N_COUNTS = 4 };

static fr_cpu *open_cpu(int n_threads, fr_isa isa)
{
    fr_err err = {0};
    fr_cpu *cpu = NULL;
    fr_cpu_config cfg = {.n_threads = n_threads, .max_isa = isa};
    assert_ok(fr_cpu_open(&cfg, &cpu, &err));
    assert_int_equal(fr_cpu_n_threads(cpu), n_threads);
    return cpu;
}

static float *random_floats(int64_t n)
{
    float *x = test_calloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = test_rand_f(&rnd);
    return x;
}

/* A stack of random matrices; free w.data with test_free. */
static fr_weight random_weight(fr_type type, fr_layout layout, int64_t cols, int64_t rows,
                               int64_t n_mat)
{
    fr_weight w = fr_weight_make(type, layout, cols, rows, n_mat);
    uint8_t *data = test_malloc(w.mat_bytes * (size_t)n_mat);
    assert_true(fill_weights(type, layout, W_ENCODED, rows * n_mat, cols, data));
    w.data = data;
    return w;
}

static void free_weight(fr_weight *w)
{
    test_free((void *)(uintptr_t)w->data);
}

static const void *matrix(const fr_weight *w, int64_t m)
{
    return (const char *)w->data + (size_t)m * w->mat_bytes;
}

/* ---- matmul
 * ------------------------------------------------------------------------------------------- */

typedef struct {
    fr_type type;
    fr_layout layout;
    int64_t cols, rows, n_mat, n_tokens;
} shape;

static const shape shapes[] = {
    {FR_TYPE_F32, FR_LAYOUT_PLAIN, 67, 129, 1, 70},
    {FR_TYPE_F16, FR_LAYOUT_PLAIN, 301, 77, 3, 5},
    {FR_TYPE_BF16, FR_LAYOUT_PLAIN, 300, 50, 1, 9},
    {FR_TYPE_F16, FR_LAYOUT_INTERLEAVED, 256, 48, 2, 6},
    {FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, 320, 131, 2, 7},
    {FR_TYPE_Q4_0, FR_LAYOUT_PLAIN, 288, 90, 1, 66},
    {FR_TYPE_Q8_0, FR_LAYOUT_INTERLEAVED, 320, 136, 1, 3},
    {FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, 512, 111, 2, 13},
    {FR_TYPE_Q5_K, FR_LAYOUT_PLAIN, 256, 64, 1, 130},
    {FR_TYPE_Q6_K, FR_LAYOUT_PLAIN, 768, 65, 1, 4},
    {FR_TYPE_Q4_K, FR_LAYOUT_INTERLEAVED, 512, 12, 2, 2},
    {FR_TYPE_F32, FR_LAYOUT_PLAIN, 16, 4, 1, 1},
    {FR_TYPE_Q4_K, FR_LAYOUT_INTERLEAVED, 256, 512, 1, 600}, /* results past the caches */
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* Tokens [from, to) of x as one call; y has rows of ldy. */
static void multiply(fr_cpu *cpu, const fr_weight *w, const float *x, int64_t from, int64_t to,
                     float *y, int64_t ldy)
{
    int64_t n_rows = (to - from) * w->n_mat;
    fr_act_type type = fr_cpu_act_type(cpu, w);
    void *room = test_malloc(fr_cpu_act_bytes(type, n_rows, w->cols) + 1);
    const float *first = x + from * w->n_mat * w->cols;
    fr_act act = fr_cpu_act_prepare(cpu, type, first, w->cols, n_rows, w->cols,
                                    type == FR_ACT_F32 ? NULL : room);
    fr_cpu_matmul(cpu, w, &act, to - from, y + from * ldy, ldy);
    test_free(room);
}

/* Activations lie within -1..1 and are rounded to 1/127 of their block's largest: each product errs
 * by up to |w| / 254. */
static void check_values(const fr_weight *w, const float *x, int64_t n_tokens, const float *y,
                         int64_t ldy)
{
    float *row = test_calloc((size_t)w->cols, sizeof *row);
    for (int64_t i = 0; i < w->n_mat * w->rows; i++) {
        int64_t m = i / w->rows, r = i % w->rows;
        double size = 0;
        fr_decode_row(w->type, w->layout, matrix(w, m), r, w->cols, row);
        for (int64_t c = 0; c < w->cols; c++)
            size += fabs((double)row[c]);
        for (int64_t t = 0; t < n_tokens; t++) {
            const float *xt = x + (t * w->n_mat + m) * w->cols;
            double expected = fr_dot_row(w->type, w->layout, matrix(w, m), r, w->cols, xt);
            assert_true(fabs((double)y[t * ldy + i] - expected) < size / 250 + 1e-30);
        }
    }
    test_free(row);
}

static void check_shape(const shape *s, fr_isa isa)
{
    fr_weight w = random_weight(s->type, s->layout, s->cols, s->rows, s->n_mat);
    int64_t ldy = s->n_mat * s->rows + 3, n = s->n_tokens * ldy;
    float *x = random_floats(s->n_tokens * s->n_mat * s->cols);
    float *first = test_calloc((size_t)n, sizeof(float)),
          *y = test_calloc((size_t)n, sizeof(float));
    for (int i = 0; i < N_COUNTS; i++) {
        fr_cpu *cpu = open_cpu(thread_counts[i], isa);
        multiply(cpu, &w, x, 0, s->n_tokens, i ? y : first, ldy);
        assert_memory_equal(first, i ? y : first, (size_t)n * sizeof(float));
        memset(y, 0, (size_t)n * sizeof(float));
        for (int64_t t = 0, step = 1; t < s->n_tokens; t += step, step = step % 5 + 1)
            multiply(cpu, &w, x, t, t + step < s->n_tokens ? t + step : s->n_tokens, y, ldy);
        assert_memory_equal(first, y, (size_t)n * sizeof(float));
        fr_cpu_close(cpu);
    }
    check_values(&w, x, s->n_tokens, first, ldy);
    test_free(x);
    test_free(first);
    test_free(y);
    free_weight(&w);
}

static void test_matmul(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++) {
        check_shape(&shapes[i], FR_ISA_AUTO);
        check_shape(&shapes[i], FR_ISA_SCALAR);
    }
}

/* ---- gate and up of dense experts --------------------------------------------------------------
 */

/* gate, up, SwiGLU and preparing, one after the other. */
static void gate_up_apart(fr_cpu *cpu, const fr_cpu_gate_up_args *a, void *dst)
{
    int64_t n = a->n_tokens * a->gate->rows;
    float *gate = test_calloc((size_t)n, sizeof *gate), *up = test_calloc((size_t)n, sizeof *up);
    fr_cpu_matmul(cpu, a->gate, a->x, a->n_tokens, gate, a->gate->rows);
    fr_cpu_matmul(cpu, a->up, a->x, a->n_tokens, up, a->up->rows);
    fr_cpu_swiglu(cpu, gate, up, n, gate);
    fr_cpu_act_prepare(cpu, a->type, gate, a->gate->rows, a->n_tokens, a->gate->rows, dst);
    test_free(gate);
    test_free(up);
}

static void check_gate_up(fr_cpu *cpu, fr_type type, fr_act_type down, int64_t n_ff,
                          int64_t n_tokens, bool expected)
{
    enum { COLS = 256 };
    fr_weight gate = random_weight(type, FR_LAYOUT_PLAIN, COLS, n_ff, 1);
    fr_weight up = random_weight(type, FR_LAYOUT_PLAIN, COLS, n_ff, 1);
    fr_act_type x_type = fr_cpu_act_type(cpu, &gate);
    size_t bytes = fr_cpu_act_bytes(down, n_tokens, n_ff);
    float *x = random_floats(n_tokens * COLS);
    void *room = test_malloc(fr_cpu_act_bytes(x_type, n_tokens, COLS));
    fr_act act = fr_cpu_act_prepare(cpu, x_type, x, COLS, n_tokens, COLS, room);
    fr_cpu_gate_up_args a = {.gate = &gate,
                             .up = &up,
                             .x = &act,
                             .n_tokens = n_tokens,
                             .type = down,
                             .gate_room = random_floats(n_tokens * n_ff),
                             .up_room = random_floats(n_tokens * n_ff),
                             .dst = test_malloc(bytes)};
    assert_int_equal(fr_cpu_gates_up(cpu, &a), expected);
    if (expected) {
        void *apart = test_malloc(bytes);
        gate_up_apart(cpu, &a, apart);
        fr_act got = fr_cpu_gate_up(cpu, &a);
        assert_int_equal(got.type, down);
        assert_int_equal(got.n_rows, n_tokens);
        assert_int_equal(got.cols, n_ff);
        assert_int_equal(got.row_bytes * (size_t)n_tokens, bytes);
        assert_ptr_equal(got.data, a.dst);
        assert_memory_equal(a.dst, apart, bytes);
        test_free(apart);
    }
    test_free(a.gate_room);
    test_free(a.up_room);
    test_free(a.dst);
    test_free(room);
    test_free(x);
    free_weight(&gate);
    free_weight(&up);
}

static void test_gate_up(void **state)
{
    (void)state;
    for (int i = 0; i < N_COUNTS; i++) {
        fr_cpu *cpu = open_cpu(thread_counts[i], FR_ISA_AUTO);
        check_gate_up(cpu, FR_TYPE_Q4_K, FR_ACT_Q8_256, 1536, 270, true);
        check_gate_up(cpu, FR_TYPE_Q4_K, FR_ACT_Q8_32, 1984, 130, true);
        check_gate_up(cpu, FR_TYPE_Q8_0, FR_ACT_Q8_256, 2048, 600, true);
        check_gate_up(cpu, FR_TYPE_Q4_K, FR_ACT_Q8_256, 1536, 63, false);  /* too few tokens */
        check_gate_up(cpu, FR_TYPE_Q4_K, FR_ACT_Q8_256, 1504, 300, false); /* not whole blocks */
        check_gate_up(cpu, FR_TYPE_Q4_K, FR_ACT_F32, 1536, 300, false);    /* nothing to prepare */
        fr_cpu_close(cpu);
    }
    fr_cpu *scalar = open_cpu(2, FR_ISA_SCALAR);
    check_gate_up(scalar, FR_TYPE_Q4_K, FR_ACT_Q8_256, 512, 70, true);
    fr_cpu_close(scalar);
}

static void test_act_prepare_any_split(void **state)
{
    (void)state;
    enum { ROWS = 37, COLS = 512, LD = 600 };
    float *x = random_floats(ROWS * LD);
    for (int type = 0; type <= FR_ACT_Q8_256; type++) {
        size_t bytes = fr_cpu_act_bytes((fr_act_type)type, ROWS, COLS);
        char *expected = test_malloc(bytes), *got = test_malloc(bytes);
        for (int r = 0; r < ROWS; r++)
            fr_act_encode_row((fr_act_type)type, x + r * LD, COLS,
                              expected + (size_t)r * fr_act_row_bytes((fr_act_type)type, COLS));
        for (int i = 0; i < N_COUNTS; i++) {
            fr_cpu *cpu = open_cpu(thread_counts[i], FR_ISA_AUTO);
            memset(got, 0x55, bytes);
            fr_act a = fr_cpu_act_prepare(cpu, (fr_act_type)type, x, LD, ROWS, COLS, got);
            assert_memory_equal(got, expected, bytes);
            assert_ptr_equal(a.data, got);
            fr_cpu_close(cpu);
        }
        test_free(expected);
        test_free(got);
    }
    test_free(x);
}

/* Products in one job are products. */
static void test_products_together(void **state)
{
    (void)state;
    enum { COLS = 512, N = 9 };
    fr_weight w[3] = {random_weight(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, COLS, 300, 1),
                      random_weight(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, COLS, 77, 1),
                      random_weight(FR_TYPE_F32, FR_LAYOUT_PLAIN, COLS, 40, 1)};
    float *x = random_floats(N * COLS);
    for (int i = 0; i < N_COUNTS; i++) {
        fr_cpu *cpu = open_cpu(thread_counts[i], FR_ISA_AUTO);
        fr_act act[3];
        fr_cpu_product products[3];
        float *alone[3];
        for (int k = 0; k < 3; k++) {
            fr_act_type type = fr_cpu_act_type(cpu, &w[k]);
            void *room = test_malloc(fr_cpu_act_bytes(type, N, COLS));
            act[k] = fr_cpu_act_prepare(cpu, type, x, COLS, N, COLS, room);
            products[k] = (fr_cpu_product){&w[k], &act[k], random_floats(N * 310), 310};
            alone[k] = random_floats(N * 310);
            fr_cpu_matmul(cpu, &w[k], &act[k], N, alone[k], 310);
        }
        fr_cpu_products(cpu, products, 3, N);
        for (int k = 0; k < 3; k++) {
            for (int t = 0; t < N; t++)
                assert_memory_equal(products[k].y + t * 310, alone[k] + t * 310,
                                    (size_t)w[k].rows * sizeof(float));
            test_free(alone[k]);
            test_free(products[k].y);
            test_free((void *)(uintptr_t)act[k].data);
        }
        fr_cpu_close(cpu);
    }
    for (int k = 0; k < 3; k++)
        free_weight(&w[k]);
    test_free(x);
}

/* ---- experts
 * ------------------------------------------------------------------------------------------- */

typedef struct {
    fr_type gate, up, down;
    fr_layout layout; /* of all three */
    int64_t n_embd, n_ff, n_experts, n_used, n_tokens;
} moe_shape;

static const moe_shape moe_shapes[] = {
    {FR_TYPE_F32, FR_TYPE_F32, FR_TYPE_F32, FR_LAYOUT_PLAIN, 64, 40, 9, 4, 23},
    {FR_TYPE_F16, FR_TYPE_BF16, FR_TYPE_F16, FR_LAYOUT_PLAIN, 70, 51, 5, 2, 80},
    {FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, 192, 96, 8, 3, 17},
    {FR_TYPE_Q4_K, FR_TYPE_Q4_K, FR_TYPE_Q6_K, FR_LAYOUT_PLAIN, 512, 256, 16, 6, 9},
    {FR_TYPE_Q4_K, FR_TYPE_Q8_0, FR_TYPE_F32, FR_LAYOUT_PLAIN, 256, 300, 4, 4, 6},
    {FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_LAYOUT_INTERLEAVED, 128, 64, 6, 2, 5},
    {FR_TYPE_Q5_K, FR_TYPE_Q5_K, FR_TYPE_Q5_K, FR_LAYOUT_PLAIN, 768, 512, 3, 1, 1},
    /* many tokens of an expert: what down reads is encoded tile by tile */
    {FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, 192, 352, 4, 3, 23},
    {FR_TYPE_Q4_K, FR_TYPE_Q4_K, FR_TYPE_Q6_K, FR_LAYOUT_PLAIN, 256, 768, 4, 2, 31},
    {FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, 512, 32, 4, 2, 520}, /* far sums */
};
enum { N_MOE_SHAPES = sizeof moe_shapes / sizeof *moe_shapes };

typedef struct {
    fr_weight gate, up, down;
    int32_t *ids;
    float *weights, *x;
} moe_case;

static moe_case moe_make(const moe_shape *s)
{
    moe_case c = {.gate = random_weight(s->gate, s->layout, s->n_embd, s->n_ff, s->n_experts),
                  .up = random_weight(s->up, s->layout, s->n_embd, s->n_ff, s->n_experts),
                  .down = random_weight(s->down, s->layout, s->n_ff, s->n_embd, s->n_experts),
                  .ids = test_calloc((size_t)(s->n_tokens * s->n_used), sizeof(int32_t)),
                  .weights = random_floats(s->n_tokens * s->n_used),
                  .x = random_floats(s->n_tokens * s->n_embd)};
    for (int64_t t = 0; t < s->n_tokens; t++) {
        for (int64_t k = 0; k < s->n_used; k++) { /* no expert twice */
            int32_t *id = &c.ids[t * s->n_used + k];
            *id = (int32_t)(test_rand(&rnd) >> 40) % (int32_t)s->n_experts;
            for (int64_t i = 0; i < k; i++) {
                if (c.ids[t * s->n_used + i] == *id)
                    *id = (*id + 1) % (int32_t)s->n_experts, i = -1;
            }
        }
    }
    return c;
}

static void moe_free(moe_case *c)
{
    free_weight(&c->gate);
    free_weight(&c->up);
    free_weight(&c->down);
    test_free(c->ids);
    test_free(c->weights);
    test_free(c->x);
}

static void moe_run(fr_cpu *cpu, const moe_shape *s, const moe_case *c, int64_t from, int64_t to,
                    float *y)
{
    size_t bytes = fr_cpu_moe_scratch_bytes(cpu, &c->gate, &c->up, &c->down, to - from, s->n_used);
    fr_cpu_moe_args a = {.gate = &c->gate,
                         .up = &c->up,
                         .down = &c->down,
                         .n_tokens = to - from,
                         .n_used = s->n_used,
                         .ids = c->ids + from * s->n_used,
                         .weights = c->weights + from * s->n_used,
                         .x = c->x + from * s->n_embd,
                         .y = y + from * s->n_embd,
                         .scratch = test_malloc(bytes)};
    memset(a.scratch, 0xFF, bytes);
    fr_cpu_moe(cpu, &a);
    test_free(a.scratch);
}

static void round_trip(fr_act_type type, float *x, int64_t n)
{
    void *room = test_malloc(fr_act_row_bytes(type, n));
    fr_act_encode_row(type, x, n, room);
    fr_act_decode_row(type, room, n, x);
    test_free(room);
}

/* One token in double, activations rounded as the kernels round them. */
static void moe_naive(const fr_cpu *cpu, const moe_shape *s, const moe_case *c, int64_t t,
                      double *y)
{
    float *xg = test_calloc((size_t)s->n_embd, sizeof *xg),
          *xu = test_calloc((size_t)s->n_embd, sizeof *xu);
    float *h = test_calloc((size_t)s->n_ff, sizeof *h);
    memset(y, 0, (size_t)s->n_embd * sizeof *y);
    memcpy(xg, c->x + t * s->n_embd, (size_t)s->n_embd * sizeof *xg);
    memcpy(xu, xg, (size_t)s->n_embd * sizeof *xg);
    round_trip(fr_cpu_act_type(cpu, &c->gate), xg, s->n_embd);
    round_trip(fr_cpu_act_type(cpu, &c->up), xu, s->n_embd);
    for (int64_t k = 0; k < s->n_used; k++) {
        int64_t e = c->ids[t * s->n_used + k];
        for (int64_t i = 0; i < s->n_ff; i++) {
            double g = fr_dot_row(s->gate, s->layout, matrix(&c->gate, e), i, s->n_embd, xg);
            double u = fr_dot_row(s->up, s->layout, matrix(&c->up, e), i, s->n_embd, xu);
            h[i] = (float)(g / (1 + exp(-g)) * u);
        }
        round_trip(fr_cpu_act_type(cpu, &c->down), h, s->n_ff);
        for (int64_t i = 0; i < s->n_embd; i++)
            y[i] += (double)c->weights[t * s->n_used + k] *
                    fr_dot_row(s->down, s->layout, matrix(&c->down, e), i, s->n_ff, h);
    }
    test_free(xg);
    test_free(xu);
    test_free(h);
}

/* Relative L2 error. A value of h may fall on the other side of a rounding step of its activation:
 * rare, and one step of 1/254. */
static void moe_check_values(const fr_cpu *cpu, const moe_shape *s, const moe_case *c,
                             const float *y)
{
    double *expected = test_calloc((size_t)s->n_embd, sizeof *expected), error = 0, size = 0;
    for (int64_t t = 0; t < s->n_tokens; t++) {
        moe_naive(cpu, s, c, t, expected);
        for (int64_t i = 0; i < s->n_embd; i++) {
            double d = (double)y[t * s->n_embd + i] - expected[i];
            error += d * d;
            size += expected[i] * expected[i];
        }
    }
    test_free(expected);
    bool exact = fr_cpu_act_type(cpu, &c->down) == FR_ACT_F32;
    assert_true(size > 0);
    if (!(sqrt(error / size) < (exact ? 2e-6 : 2e-3)))
        fail_msg("experts: relative error %.3g", sqrt(error / size));
}

static void check_moe(const moe_shape *s, fr_isa isa)
{
    moe_case c = moe_make(s);
    size_t bytes = (size_t)(s->n_tokens * s->n_embd) * sizeof(float);
    float *first = test_malloc(bytes), *y = test_malloc(bytes);
    for (int i = 0; i < N_COUNTS; i++) {
        fr_cpu *cpu = open_cpu(thread_counts[i], isa);
        memset(y, 0xFF, bytes);
        moe_run(cpu, s, &c, 0, s->n_tokens, i ? y : first);
        assert_memory_equal(first, i ? y : first, bytes);
        memset(y, 0xFF, bytes);
        for (int64_t t = 0, step = 1; t < s->n_tokens; t += step, step = step % 4 + 1)
            moe_run(cpu, s, &c, t, t + step < s->n_tokens ? t + step : s->n_tokens, y);
        assert_memory_equal(first, y, bytes);
        if (i == 0)
            moe_check_values(cpu, s, &c, first);
        fr_cpu_close(cpu);
    }
    test_free(first);
    test_free(y);
    moe_free(&c);
}

static void test_moe(void **state)
{
    (void)state;
    for (int i = 0; i < N_MOE_SHAPES; i++) {
        check_moe(&moe_shapes[i], FR_ISA_AUTO);
        check_moe(&moe_shapes[i], FR_ISA_SCALAR);
    }
}

/* ---- slices of the experts, and the parts of fr_cpu_moe apart
 * ------------------------------------------------------------------------------------------- */

static fr_weight slice(const fr_weight *w, int64_t from, int64_t to)
{
    fr_weight part = *w;
    part.data = matrix(w, from);
    part.n_mat = to - from;
    return part;
}

/* All tokens by the experts [from, to). */
static void moe_slice(fr_cpu *cpu, const moe_shape *s, const moe_case *c, int64_t from, int64_t to,
                      bool add, float *y)
{
    fr_weight gate = slice(&c->gate, from, to), up = slice(&c->up, from, to),
              down = slice(&c->down, from, to);
    size_t bytes = fr_cpu_moe_scratch_bytes(cpu, &gate, &up, &down, s->n_tokens, s->n_used);
    void *scratch = test_malloc(bytes);
    memset(scratch, 0xFF, bytes);
    fr_cpu_moe(cpu, &(fr_cpu_moe_args){.gate = &gate,
                                       .up = &up,
                                       .down = &down,
                                       .n_tokens = s->n_tokens,
                                       .n_used = s->n_used,
                                       .first_expert = from,
                                       .ids = c->ids,
                                       .weights = c->weights,
                                       .x = c->x,
                                       .y = y,
                                       .add = add,
                                       .scratch = scratch});
    test_free(scratch);
}

/* How many of a token's picks are in [from, to). */
static int64_t picks_in(const moe_shape *s, const moe_case *c, int64_t t, int64_t from, int64_t to)
{
    int64_t n = 0;
    for (int64_t k = 0; k < s->n_used; k++)
        n += c->ids[t * s->n_used + k] >= from && c->ids[t * s->n_used + k] < to;
    return n;
}

/* Two slices make the whole: the same bits for tokens of one slice, else but for rounding, as two
 * sums take the place of one. */
static void check_slices(const moe_shape *s, fr_isa isa, int n_threads)
{
    moe_case c = moe_make(s);
    fr_cpu *cpu = open_cpu(n_threads, isa);
    int64_t cut = s->n_experts / 2, n = s->n_tokens * s->n_embd;
    float *whole = random_floats(n), *low = random_floats(n), *both = test_calloc((size_t)n, 4);
    moe_run(cpu, s, &c, 0, s->n_tokens, whole);
    moe_slice(cpu, s, &c, 0, cut, false, low);
    memcpy(both, low, (size_t)n * sizeof *both);
    moe_slice(cpu, s, &c, cut, s->n_experts, true, both);
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t n_low = picks_in(s, &c, i / s->n_embd, 0, cut);
        if (n_low == 0)
            assert_true(low[i] == 0);
        if (n_low == 0 || n_low == s->n_used)
            assert_memory_equal(&both[i], &whole[i], sizeof(float));
        error += pow((double)both[i] - (double)whole[i], 2);
        size += pow((double)whole[i], 2);
    }
    assert_true(sqrt(error) < 1e-6 * sqrt(size));
    /* none of the picks are here: zeros, or nothing added */
    memcpy(low, both, (size_t)n * sizeof *low);
    for (int64_t i = 0; i < s->n_tokens * s->n_used; i++)
        c.ids[i] += (int32_t)s->n_experts;
    moe_slice(cpu, s, &c, 0, s->n_experts, true, both);
    assert_memory_equal(both, low, (size_t)n * sizeof *low);
    moe_slice(cpu, s, &c, 0, s->n_experts, false, both);
    for (int64_t i = 0; i < n; i++)
        assert_true(both[i] == 0);
    fr_cpu_close(cpu);
    test_free(whole);
    test_free(low);
    test_free(both);
    moe_free(&c);
}

static void test_moe_slices(void **state)
{
    (void)state;
    for (int i = 0; i < N_MOE_SHAPES; i++) {
        check_slices(&moe_shapes[i], FR_ISA_AUTO, 3);
        check_slices(&moe_shapes[i], FR_ISA_SCALAR, 1);
    }
}

/* y has rows of w->rows; x_stride 0: rows of x are tokens, else pairs. */
static void expert_rows(fr_cpu *cpu, const moe_shape *s, const int32_t *ids, const fr_weight *w,
                        int64_t first, const float *x, int64_t ldx, int64_t x_stride, float *y)
{
    size_t bytes = fr_cpu_expert_rows_scratch_bytes(cpu, w, s->n_tokens, s->n_used, x_stride);
    void *scratch = test_malloc(bytes);
    memset(scratch, 0xFF, bytes);
    fr_cpu_expert_rows(cpu, &(fr_cpu_expert_rows_args){.w = w,
                                                       .n_tokens = s->n_tokens,
                                                       .n_used = s->n_used,
                                                       .first_expert = first,
                                                       .ids = ids,
                                                       .x = x,
                                                       .ldx = ldx,
                                                       .x_stride = x_stride,
                                                       .y = y,
                                                       .ldy = w->rows,
                                                       .scratch = scratch});
    test_free(scratch);
}

/* gate, up, silu, down and sum as calls of their own are fr_cpu_moe, bit for bit. */
static void check_parts_apart(const moe_shape *s, fr_isa isa, int n_threads)
{
    moe_case c = moe_make(s);
    fr_cpu *cpu = open_cpu(n_threads, isa);
    int64_t n_pairs = s->n_tokens * s->n_used, n = s->n_tokens * s->n_embd, ff = s->n_ff;
    float *whole = random_floats(n), *y = random_floats(n), *gate = random_floats(n_pairs * ff),
          *up = random_floats(n_pairs * ff), *out = random_floats(n_pairs * s->n_embd);
    moe_run(cpu, s, &c, 0, s->n_tokens, whole);
    expert_rows(cpu, s, c.ids, &c.gate, 0, c.x, s->n_embd, 0, gate);
    expert_rows(cpu, s, c.ids, &c.up, 0, c.x, s->n_embd, 0, up);
    fr_cpu_swiglu(cpu, gate, up, n_pairs * ff, gate);
    expert_rows(cpu, s, c.ids, &c.down, 0, gate, s->n_used * ff, ff, out);
    fr_cpu_mix_args mix = {.x = out,
                           .weights = c.weights,
                           .y = y,
                           .n_tokens = s->n_tokens,
                           .n_used = s->n_used,
                           .cols = s->n_embd,
                           .ldy = s->n_embd};
    fr_cpu_mix(cpu, &mix);
    assert_memory_equal(y, whole, (size_t)n * sizeof *y);
    mix.add = true;
    fr_cpu_mix(cpu, &mix);
    for (int64_t i = 0; i < n; i++)
        assert_true(y[i] == whole[i] + whole[i]);
    /* a slice: its rows are those of the whole, the rest is zero */
    int64_t from = s->n_experts / 3, to = s->n_experts - 1;
    fr_weight part = slice(&c.up, from, to);
    float *some = random_floats(n_pairs * ff);
    expert_rows(cpu, s, c.ids, &c.up, 0, c.x, s->n_embd, 0, up);
    expert_rows(cpu, s, c.ids, &part, from, c.x, s->n_embd, 0, some);
    for (int64_t i = 0; i < n_pairs * ff; i++) {
        bool here = c.ids[i / ff] >= from && c.ids[i / ff] < to;
        assert_true(some[i] == (here ? up[i] : 0));
    }
    fr_cpu_close(cpu);
    float *all[] = {whole, y, gate, up, out, some};
    for (int i = 0; i < 6; i++)
        test_free(all[i]);
    moe_free(&c);
}

static void test_experts_in_parts(void **state)
{
    (void)state;
    for (int i = 0; i < N_MOE_SHAPES; i++) {
        check_parts_apart(&moe_shapes[i], FR_ISA_AUTO, 1);
        check_parts_apart(&moe_shapes[i], FR_ISA_AUTO, 4);
        check_parts_apart(&moe_shapes[i], FR_ISA_SCALAR, 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_products_together),
        cmocka_unit_test(test_gate_up),
        cmocka_unit_test(test_act_prepare_any_split),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_moe_slices),
        cmocka_unit_test(test_experts_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
