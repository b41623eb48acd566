/* The small operations on the GPU, against plain loops in double. */
#include "gpu_testing.h"

enum { ARENA = 16 << 20, MOST = 1 << 16 };

static float a_h[MOST], b_h[MOST], got[MOST], want[MOST];
static uint64_t rng = 99;

static void check_norm(gpu_bench *b, int64_t cols, int64_t n_tokens)
{
    fr_err err;
    int64_t ldx = cols + 3, ldy = cols + 1;
    fill_random(a_h, n_tokens * ldx, 4, &rng);
    fill_random(b_h, cols, 1, &rng);
    fr_gpu_norm_args args = {.x_d = gpu_floats(b, a_h, n_tokens * ldx),
                             .w_d = gpu_floats(b, b_h, cols),
                             .y_d = gpu_floats(b, NULL, n_tokens * ldy),
                             .ldx = ldx,
                             .ldy = ldy,
                             .n_tokens = n_tokens,
                             .cols = cols,
                             .eps = 1e-6f};
    assert_ok(b->gpu->rms_norm(&args, b->s, &err));
    gpu_get(b, got, args.y_d, (size_t)(n_tokens * ldy) * sizeof *got);
    for (int64_t t = 0; t < n_tokens; t++) {
        double sum = 0;
        for (int64_t i = 0; i < cols; i++)
            sum += (double)a_h[t * ldx + i] * (double)a_h[t * ldx + i];
        double factor = 1 / sqrt(sum / (double)cols + (double)args.eps);
        for (int64_t i = 0; i < cols; i++)
            want[i] = (float)((double)a_h[t * ldx + i] * factor * (double)b_h[i]);
        assert_close(got + t * ldy, want, cols, 4e-6, 1e-30, "rms_norm");
    }
}

static void check_softmax(gpu_bench *b, int64_t cols, int64_t n_rows)
{
    fr_err err;
    int64_t ld = cols + 2;
    fill_random(a_h, n_rows * ld, 30, &rng);
    float *x_d = gpu_floats(b, a_h, n_rows * ld);
    assert_ok(b->gpu->softmax(x_d, ld, n_rows, cols, b->s, &err));
    gpu_get(b, got, x_d, (size_t)(n_rows * ld) * sizeof *got);
    for (int64_t r = 0; r < n_rows; r++) {
        double most = -INFINITY, sum = 0;
        for (int64_t i = 0; i < cols; i++)
            most = fmax(most, (double)a_h[r * ld + i]);
        for (int64_t i = 0; i < cols; i++)
            sum += exp((double)a_h[r * ld + i] - most);
        for (int64_t i = 0; i < cols; i++)
            want[i] = (float)(exp((double)a_h[r * ld + i] - most) / sum);
        assert_close(got + r * ld, want, cols, 1e-5, 1e-30, "softmax");
        assert_true(got[r * ld + cols] == a_h[r * ld + cols]);
    }
}

static void norms(const fr_gpu *gpu)
{
    gpu_bench b = gpu_open(gpu, ARENA);
    check_norm(&b, 1, 1);
    check_norm(&b, 255, 3);
    check_norm(&b, 1536, 2);
    check_softmax(&b, 1, 2);
    check_softmax(&b, 31, 3);
    check_softmax(&b, 1000, 2);
    gpu_close(&b);
}

static void check_rope(gpu_bench *b, int64_t n_heads, int64_t n_rot, int64_t n_tokens, bool turns)
{
    fr_err err;
    double freqs[64];
    static float turns_h[4096];
    int64_t stride = n_rot + 3, ldx = n_heads * stride + 1, pos0 = 100000;
    fill_random(a_h, n_tokens * ldx, 1, &rng);
    for (int64_t i = 0; i < n_rot / 2; i++)
        freqs[i] = pow(10000, -2.0 * (double)i / (double)n_rot);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t i = 0; i < n_rot / 2; i++) {
            double angle = (double)(pos0 + t) * freqs[i];
            turns_h[t * n_rot + 2 * i] = (float)cos(angle);
            turns_h[t * n_rot + 2 * i + 1] = (float)sin(angle);
        }
    fr_gpu_rope_args args = {.x_d = gpu_floats(b, a_h, n_tokens * ldx),
                             .ldx = ldx,
                             .n_tokens = n_tokens,
                             .n_heads = n_heads,
                             .stride = stride,
                             .n_rot = n_rot,
                             .pos0 = pos0};
    if (turns)
        args.turns_d = gpu_floats(b, turns_h, n_tokens * n_rot);
    else
        args.freqs_d = gpu_put(b, freqs, (size_t)(n_rot / 2) * sizeof *freqs);
    assert_ok(b->gpu->rope(&args, b->s, &err));
    gpu_get(b, got, args.x_d, (size_t)(n_tokens * ldx) * sizeof *got);
    memcpy(want, a_h, (size_t)(n_tokens * ldx) * sizeof *want);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t h = 0; h < n_heads; h++)
            for (int64_t i = 0; i < n_rot; i += 2) {
                float *x = want + t * ldx + h * stride + i, x0 = x[0], x1 = x[1];
                double c = (double)turns_h[t * n_rot + i], s = (double)turns_h[t * n_rot + i + 1];
                x[0] = (float)((double)x0 * c - (double)x1 * s);
                x[1] = (float)((double)x0 * s + (double)x1 * c);
            }
    assert_close(got, want, n_tokens * ldx, 0, 4e-7, "rope");
}

static void rotations(const fr_gpu *gpu)
{
    gpu_bench b = gpu_open(gpu, ARENA);
    check_rope(&b, 1, 2, 1, true);
    check_rope(&b, 5, 64, 7, true);
    check_rope(&b, 16, 64, 3, false);
    gpu_close(&b);
}

static void elements(const fr_gpu *gpu)
{
    static const int64_t sizes[] = {1, 1023, 1024, 5000};
    fr_err err;
    gpu_bench b = gpu_open(gpu, ARENA);
    for (int k = 0; k < 4; k++) {
        int64_t n = sizes[k];
        size_t bytes = (size_t)n * sizeof(float);
        fill_random(a_h, n, 8, &rng);
        fill_random(b_h, n, 3, &rng);
        a_h[0] = -100; /* exp overflows a float */
        float *x = gpu_floats(&b, a_h, n), *y = gpu_floats(&b, b_h, n);
        float *z = gpu_floats(&b, NULL, n);
        assert_ok(gpu->add(x, y, n, z, b.s, &err));
        gpu_get(&b, got, z, bytes);
        for (int64_t i = 0; i < n; i++)
            assert_true(got[i] == a_h[i] + b_h[i]);
        assert_ok(gpu->scale(x, 2.5f, n, z, b.s, &err));
        gpu_get(&b, got, z, bytes);
        for (int64_t i = 0; i < n; i++)
            assert_true(got[i] == 2.5f * a_h[i]);
        assert_ok(gpu->swiglu(x, y, n, x, b.s, &err));
        gpu_get(&b, got, x, bytes);
        for (int64_t i = 0; i < n; i++)
            want[i] = (float)((double)a_h[i] / (1 + exp(-(double)a_h[i])) * (double)b_h[i]);
        assert_close(got, want, n, 2e-6, 1e-37, "swiglu");
    }
    gpu_close(&b);
}

/* ---- router --------------------------------------------------------------------------------- */

enum { MAX_EXPERTS = 256, MAX_USED = 8, TOKENS = 6 };

typedef struct {
    int64_t n_expert, n_used, n_groups, n_groups_used;
    bool sigmoid, norm, bias, ties;
} route;

static float group_score(const float *choice, int64_t n, bool best_two)
{
    float first = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        second = fmaxf(second, fminf(first, choice[i]));
        first = fmaxf(first, choice[i]);
    }
    return best_two && n > 1 ? first + second : first;
}

/* The n_best of n numbers, of equals the first; -1 ends the list. */
static void best_of(const float *x, int64_t n, int64_t n_best, const bool *barred, int *out)
{
    bool taken[MAX_EXPERTS] = {false};
    for (int64_t k = 0; k < n_best; k++) {
        out[k] = -1;
        for (int i = 0; i < n; i++)
            if (!taken[i] && !(barred && barred[i]) && (out[k] < 0 || x[i] > x[out[k]]))
                out[k] = i;
        if (out[k] >= 0)
            taken[out[k]] = true;
    }
}

/* One token, as cpu/ops.h says it. Scores in float, as selection among equals depends on it. */
static void route_one(const route *r, const float *logits, const float *bias, int *ids,
                      double *weights)
{
    float score[MAX_EXPERTS], choice[MAX_EXPERTS], group[MAX_EXPERTS], most = -INFINITY;
    bool barred[MAX_EXPERTS];
    int good[MAX_EXPERTS];
    double sum = 0;
    int64_t per = r->n_expert / r->n_groups;
    for (int64_t i = 0; i < r->n_expert; i++)
        most = fmaxf(most, logits[i]);
    for (int64_t i = 0; i < r->n_expert; i++) {
        score[i] = r->sigmoid ? 1 / (1 + expf(-logits[i])) : expf(logits[i] - most);
        sum += (double)score[i];
    }
    for (int64_t i = 0; i < r->n_expert; i++) {
        score[i] = r->sigmoid ? score[i] : (float)((double)score[i] / sum);
        choice[i] = score[i] + (r->bias ? bias[i] : 0);
        barred[i] = true;
    }
    for (int64_t g = 0; g < r->n_groups; g++)
        group[g] = group_score(choice + g * per, per, r->bias);
    best_of(group, r->n_groups, r->n_groups_used, NULL, good);
    for (int64_t g = 0; g < r->n_groups_used; g++)
        for (int64_t i = 0; i < per; i++)
            barred[good[g] * per + i] = false;
    best_of(choice, r->n_expert, r->n_used, barred, ids);
    sum = 0;
    for (int64_t k = 0; k < r->n_used; k++)
        sum += (double)score[ids[k]];
    for (int64_t k = 0; k < r->n_used; k++)
        weights[k] = (double)score[ids[k]] * 2.5 / (r->norm ? sum : 1);
}

static void check_router(gpu_bench *b, route r)
{
    static float logits[TOKENS * MAX_EXPERTS], bias[MAX_EXPERTS];
    int32_t ids[TOKENS * MAX_USED];
    float weights[TOKENS * MAX_USED];
    fr_err err;
    int64_t n = TOKENS * r.n_expert, n_ids = TOKENS * r.n_used;
    for (int64_t i = 0; i < n; i++)
        logits[i] = r.ties ? (float)(test_rand(&rng) % 3) : 3 * test_rand_f(&rng);
    fill_random(bias, r.n_expert, 0.2f, &rng);
    if (r.ties)
        memset(bias, 0, sizeof bias);
    fr_gpu_router_args args = {.n_tokens = TOKENS,
                               .n_expert = r.n_expert,
                               .n_used = r.n_used,
                               .n_groups = r.n_groups,
                               .n_groups_used = r.n_groups_used,
                               .sigmoid = r.sigmoid,
                               .norm = r.norm,
                               .scale = 2.5f,
                               .logits_d = gpu_floats(b, logits, n),
                               .bias_d = r.bias ? gpu_floats(b, bias, r.n_expert) : NULL,
                               .ids_d = gpu_put(b, NULL, (size_t)n_ids * sizeof *ids),
                               .weights_d = gpu_floats(b, NULL, n_ids)};
    assert_ok(b->gpu->router(&args, b->s, &err));
    gpu_get(b, ids, args.ids_d, (size_t)n_ids * sizeof *ids);
    gpu_get(b, weights, args.weights_d, (size_t)n_ids * sizeof *weights);
    for (int64_t t = 0; t < TOKENS; t++) {
        int best[MAX_USED];
        double exact[MAX_USED];
        route_one(&r, logits + t * r.n_expert, bias, best, exact);
        for (int64_t k = 0; k < r.n_used; k++) {
            float weight = (float)exact[k];
            assert_int_equal(ids[t * r.n_used + k], best[k]);
            assert_close(&weights[t * r.n_used + k], &weight, 1, 4e-6, 0, "router");
        }
    }
}

static void routes(const fr_gpu *gpu)
{
    static const route all[] = {
        {64, 6, 1, 1, false, false, false, false}, {160, 6, 8, 3, false, false, false, false},
        {256, 8, 8, 4, true, true, true, false},   {7, 3, 1, 1, true, true, false, true},
        {32, 8, 4, 2, true, false, true, true},    {2, 2, 2, 2, false, true, false, true},
    };
    gpu_bench b = gpu_open(gpu, ARENA);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        check_router(&b, all[i]);
    gpu_close(&b);
}

/* NaN logits must not hang or write beyond. */
static void route_nan(const fr_gpu *gpu)
{
    fr_err err;
    int32_t ids[2];
    gpu_bench b = gpu_open(gpu, ARENA);
    for (int i = 0; i < 8; i++)
        a_h[i] = NAN;
    fr_gpu_router_args args = {.n_tokens = 1,
                               .n_expert = 8,
                               .n_used = 2,
                               .n_groups = 2,
                               .n_groups_used = 1,
                               .sigmoid = true,
                               .scale = 1,
                               .logits_d = gpu_floats(&b, a_h, 8),
                               .ids_d = gpu_put(&b, NULL, sizeof ids),
                               .weights_d = gpu_floats(&b, NULL, 2)};
    assert_ok(gpu->router(&args, b.s, &err));
    gpu_get(&b, ids, args.ids_d, sizeof ids);
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 1);
    gpu_close(&b);
}

static void mixes(const fr_gpu *gpu)
{
    enum { N = 3, USED = 4, COLS = 300 };
    fr_err err;
    gpu_bench b = gpu_open(gpu, ARENA);
    fill_random(a_h, N * USED * COLS, 1, &rng);
    fill_random(b_h, N * USED, 1, &rng);
    fr_gpu_mix_args args = {.x_d = gpu_floats(&b, a_h, N * USED * COLS),
                            .weights_d = gpu_floats(&b, b_h, N * USED),
                            .y_d = gpu_floats(&b, NULL, N * COLS),
                            .n_tokens = N,
                            .n_used = USED,
                            .cols = COLS,
                            .ldy = COLS};
    assert_ok(gpu->mix(&args, b.s, &err));
    gpu_get(&b, got, args.y_d, N * COLS * sizeof *got);
    for (int t = 0; t < N; t++)
        for (int i = 0; i < COLS; i++) {
            double sum = 0;
            for (int k = 0; k < USED; k++)
                sum += (double)b_h[t * USED + k] * (double)a_h[(t * USED + k) * COLS + i];
            want[t * COLS + i] = (float)sum;
        }
    assert_close(got, want, N * COLS, 0, 1e-6, "mix");
    args.add = 1;
    assert_ok(gpu->mix(&args, b.s, &err));
    gpu_get(&b, got, args.y_d, N * COLS * sizeof *got);
    for (int i = 0; i < N * COLS; i++)
        want[i] *= 2;
    assert_close(got, want, N * COLS, 0, 2e-6, "mix added");
    gpu_close(&b);
}

#define TEST(name)                                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        on_every_gpu(name);                                                                        \
    }
TEST(norms)
TEST(rotations)
TEST(elements)
TEST(routes)
TEST(route_nan)
TEST(mixes)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),     cmocka_unit_test(test_rotations),
        cmocka_unit_test(test_elements),  cmocka_unit_test(test_routes),
        cmocka_unit_test(test_route_nan), cmocka_unit_test(test_mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
