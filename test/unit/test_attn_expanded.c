/* Attention on expanded K and V (fr_cpu_attn_expanded) over several panels of positions and items
 * of work: against sums in double, against itself for other batches and threads, and with products
 * that it makes itself against rows. */
#include "testing.h"

#include <math.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "cpu/ops.h"

enum {
    HEADS = 3,
    W1 = 48, /* most */
    W2 = 16,
    WV = 80,
    POSITIONS = 700,
    CHUNK = 416, /* not a multiple of the panels that are packed together */
    N_CPUS = 6,
};

/* What is used of W1, W2 and WV. */
typedef struct {
    int w1, w2, wv;
    bool rounded;
    double bound; /* of an error, where V is below 1 */
} sizes;

static const sizes odd = {40, 9, 70, false, 3e-6}, exact = {W1, W2, WV, false, 3e-6},
                   rounded = {W1, W2, WV, true, 2e-4},
                   /* errors of scores are parts of the product of two norms, which is 55 here */
    rounded_outliers = {W1, W2, WV, true, 1e-3},
                   /* the norms' product passes 1000 */
    growing = {W1, W2, WV, true, 2e-2};

static uint64_t rng = 5;
static fr_cpu *cpus[N_CPUS]; /* scalar, AVX2 and best tier; 1 and 5 threads */
static float queries[POSITIONS][HEADS * (W1 + W2)], rotated[POSITIONS][W2];
static float kv[POSITIONS][HEADS * (W1 + WV)]; /* of a head: K, then V */
static double expected[POSITIONS][HEADS * WV];

static void fill(float *x, int64_t n, float size)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = size * test_rand_f(&rng);
}

static double score(const sizes *z, int64_t t, int64_t h, int64_t p)
{
    const float *q = queries[t] + h * (W1 + W2), *k = kv[p] + h * (W1 + WV);
    double sum = 0;
    for (int i = 0; i < z->w1; i++)
        sum += (double)q[i] * (double)k[i];
    for (int i = 0; i < z->w2; i++)
        sum += (double)q[W1 + i] * (double)rotated[p][i];
    return sum * (double)0.3f;
}

static void expect(const sizes *z, int64_t t, int64_t h)
{
    static double weight[POSITIONS];
    double *o = expected[t] + h * WV, max = -INFINITY, sum = 0;
    for (int64_t p = 0; p <= t; p++)
        max = fmax(max, weight[p] = score(z, t, h, p));
    for (int64_t p = 0; p <= t; p++)
        sum += weight[p] = exp(weight[p] - max);
    memset(o, 0, WV * sizeof *o);
    for (int64_t p = 0; p <= t; p++)
        for (int i = 0; i < z->wv; i++)
            o[i] += weight[p] / sum * (double)kv[p][h * (W1 + WV) + W1 + i];
}

static int setup(void **state)
{
    (void)state;
    fr_err err = {0};
    static const fr_isa tiers[] = {FR_ISA_SCALAR, FR_ISA_AVX2, FR_ISA_AUTO};
    for (int i = 0; i < N_CPUS; i++) {
        fr_cpu_config cfg = {.n_threads = i % 2 ? 5 : 1, .max_isa = tiers[i / 2]};
        assert_ok(fr_cpu_open(&cfg, &cpus[i], &err));
    }
    fill(queries[0], (int64_t)(sizeof queries / sizeof(float)), 1.0f);
    fill(rotated[0], (int64_t)(sizeof rotated / sizeof(float)), 1.0f);
    fill(kv[0], (int64_t)(sizeof kv / sizeof(float)), 1.0f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_CPUS; i++)
        fr_cpu_close(cpus[i]);
    assert_int_equal(fr_mem_total().bytes_now, 0);
    return 0;
}

/* Scratch that ends at a page that must not be touched. */
static float *open_scratch(size_t bytes, void **pages, size_t *size)
{
    size_t whole = (bytes + 4095) / 4096 * 4096;
    *size = whole + 4096;
    *pages = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(*pages != MAP_FAILED);
    assert_int_equal(mprotect((uint8_t *)*pages + whole, 4096, PROT_NONE), 0);
    memset(*pages, 0xFF, whole); /* not a number */
    return (float *)(void *)((uint8_t *)*pages + (whole - bytes));
}

/* Tokens [from, to) as one batch; `made`: NULL, or products whose rows are in kv. */
static void attend(fr_cpu *cpu, const sizes *z, int64_t from, int64_t to,
                   const fr_cpu_attn_made *made, float (*o)[HEADS * WV])
{
    static float state[POSITIONS * HEADS * 2];
    fr_cpu_attn_args a = {.n_tokens = to - from,
                          .n_heads = HEADS,
                          .pos0 = from,
                          .scale = 0.3f,
                          .q1 = queries[from],
                          .ldq1 = HEADS * (W1 + W2),
                          .q1_stride = W1 + W2,
                          .w1 = z->w1,
                          .q2 = queries[from] + W1,
                          .ldq2 = HEADS * (W1 + W2),
                          .q2_stride = W1 + W2,
                          .w2 = z->w2,
                          .wv = z->wv,
                          .o = o[from],
                          .ldo = HEADS * WV,
                          .o_stride = WV,
                          .state = state,
                          .rounded = z->rounded};
    void *pages;
    size_t size;
    float *scratch = open_scratch(fr_cpu_attn_expanded_bytes(cpu, &a), &pages, &size);
    for (int64_t p = 0; p < to; p += CHUNK) {
        fr_act x = made ? *made->x : (fr_act){0};
        fr_cpu_attn_made m = made ? *made : (fr_cpu_attn_made){0};
        x.data = made ? (const uint8_t *)x.data + (size_t)p * x.row_bytes : NULL;
        m.x = &x;
        fr_cpu_attn_chunk c = {.from = p,
                               .to = p + CHUNK < to ? p + CHUNK : to,
                               .first = p == 0,
                               .last = p + CHUNK >= to,
                               .k1 = kv[p],
                               .ldk1 = HEADS * (W1 + WV),
                               .k1_stride = W1 + WV,
                               .k2 = rotated[p],
                               .ldk2 = W2,
                               .v = kv[p] + W1,
                               .ldv = HEADS * (W1 + WV),
                               .v_stride = W1 + WV,
                               .made = made ? &m : NULL};
        fr_cpu_attn_expanded(cpu, &a, &c, scratch);
    }
    munmap(pages, size);
}

static void attend_in(fr_cpu *cpu, const sizes *z, int64_t batch, float (*o)[HEADS * WV])
{
    for (int64_t t = 0; t < POSITIONS; t += batch)
        attend(cpu, z, t, t + batch < POSITIONS ? t + batch : POSITIONS, NULL, o);
}

static void check_token(const sizes *z, int cpu, int64_t t, const float *o)
{
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < z->wv; i++) {
            double found = (double)o[h * WV + i], e = expected[t][h * WV + i];
            if (!(fabs(found - e) <= z->bound))
                fail_msg("cpu %d: token %lld, head %d, number %d: found %.9g, expected %.9g", cpu,
                         (long long)t, h, i, found, e);
        }
}

static void check_sums(const sizes *z)
{
    static float o[POSITIONS][HEADS * WV];
    for (int64_t t = 0; t < POSITIONS; t++)
        for (int64_t h = 0; h < HEADS; h++)
            expect(z, t, h);
    for (int c = 0; c < N_CPUS; c++) {
        memset(o, 0xFF, sizeof o);
        attend(cpus[c], z, 0, POSITIONS, NULL, o);
        for (int64_t t = 0; t < POSITIONS; t++)
            check_token(z, c, t, o[t]);
    }
}

static void test_against_sums_in_double(void **state)
{
    (void)state;
    check_sums(&odd);
    check_sums(&exact);
    check_sums(&rounded);
}

/* Rows of zeros, one number that outweighs all others, numbers whose squares cannot be held, and
 * scores so far apart that one position has all the weight: no sum of integers may overflow. */
static void test_hostile_rows(void **state)
{
    (void)state;
    static float kept_q[POSITIONS][HEADS * (W1 + W2)], kept[POSITIONS][HEADS * (W1 + WV)];
    memcpy(kept_q, queries, sizeof kept_q);
    memcpy(kept, kv, sizeof kept);
    for (int64_t p = 0; p < POSITIONS; p += 7) {
        memset(kv[p], 0, sizeof kv[p]);
        for (int i = 0; i < W1; i++)
            kv[p + 1][i] = i == 5 ? 40.0f : 1e-3f;
        for (int i = 0; i < W1 + WV; i++) /* all alike: the largest sums */
            kv[p + 2][i] = 1.0f;
        for (int i = 0; i < W1 + WV; i++)
            kv[p + 3][i] = i < W1 ? 1e-22f : 1e-38f;
    }
    for (int i = 0; i < HEADS * (W1 + W2); i++) {
        queries[POSITIONS - 1][i] = 1.0f;
        queries[POSITIONS - 2][i] = i % (W1 + W2) == 5 ? 30.0f : 0.0f;
        queries[POSITIONS - 3][i] = 0.0f;
    }
    check_sums(&exact);
    check_sums(&rounded_outliers);
    memcpy(queries, kept_q, sizeof kept_q);
    memcpy(kv, kept, sizeof kept);
}

static void check_bits(const sizes *z)
{
    static const int64_t batches[] = {POSITIONS, 512, 129, 37};
    static float first[POSITIONS][HEADS * WV], other[POSITIONS][HEADS * WV];
    for (int c = 0; c < N_CPUS; c++)
        for (int b = 0; b < 4; b++) {
            bool reference = c % 2 == 0 && b == 0;
            attend_in(cpus[c], z, batches[b], reference ? first : other);
            if (!reference)
                assert_memory_equal(first, other, sizeof first);
        }
}

static void test_same_bits(void **state)
{
    (void)state;
    check_bits(&odd);
    check_bits(&rounded);
}

/* Scores that grow from panel to panel until floats could not hold weights beside those of the
 * first. */
static void test_growing_scores(void **state)
{
    (void)state;
    static float kept[POSITIONS][HEADS * (W1 + WV)];
    memcpy(kept, kv, sizeof kept);
    for (int64_t p = 0; p < POSITIONS; p++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < W1; i++)
                kv[p][h * (W1 + WV) + i] *= 1e-3f + (float)(p / 100 * p / 100);
    check_sums(&growing);
    check_bits(&growing);
    memcpy(kv, kept, sizeof kept);
}

enum { LATENT = 64 };

/* kv as products, and the products themselves in it. */
static void make_products(fr_cpu *cpu, fr_cpu_attn_made *m, fr_weight *w, fr_act *act)
{
    static float x[POSITIONS][LATENT], rows[HEADS * (W1 + WV)][LATENT];
    static _Alignas(64) uint8_t codes[sizeof rows], prepared[sizeof x];
    fill(x[0], POSITIONS * LATENT, 1.0f);
    fill(rows[0], HEADS * (W1 + WV) * LATENT, 0.2f);
    *w = fr_weight_make(FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, LATENT, HEADS * (W1 + WV), 1);
    for (int64_t r = 0; r < w->rows; r++)
        fr_encode_row(w->type, rows[r], LATENT, NULL,
                      codes + (size_t)r * fr_row_bytes(w->type, w->layout, LATENT));
    w->data = codes;
    *act =
        fr_cpu_act_prepare(cpu, fr_cpu_act_type(cpu, w), x[0], LATENT, POSITIONS, LATENT, prepared);
    fr_cpu_matmul(cpu, w, act, POSITIONS, kv[0], w->rows);
    *m = (fr_cpu_attn_made){
        .k = w, .v = w, .k_step = W1 + WV, .v_at = W1, .v_step = W1 + WV, .x = act};
}

static void test_products_made_here(void **state)
{
    (void)state;
    static float kept[POSITIONS][HEADS * (W1 + WV)];
    static float o[POSITIONS][HEADS * WV], made[POSITIONS][HEADS * WV];
    static _Alignas(64) float room[512 * HEADS * (W1 + WV)];
    memcpy(kept, kv, sizeof kept);
    for (int c = 0; c < N_CPUS; c++) {
        fr_cpu_attn_made m;
        fr_weight w;
        fr_act act;
        fr_cpu_attn_args a = {.n_heads = HEADS, .w1 = W1, .w2 = W2, .wv = WV, .rounded = true};
        make_products(cpus[c], &m, &w, &act);
        if (!fr_cpu_attn_makes(cpus[c], &a, &m)) {
            assert_true(fr_cpu_isa(cpus[c]) < FR_ISA_AVX512);
            continue;
        }
        attend(cpus[c], &rounded, 0, POSITIONS, NULL, o);
        for (size_t n = 0; n <= sizeof room; n += sizeof room) { /* without room, and with it */
            m.room = n > 0 ? room : NULL;
            m.room_floats = n / sizeof *room;
            memset(made, 0xFF, sizeof made);
            attend(cpus[c], &rounded, 0, POSITIONS, &m, made);
            assert_memory_equal(o, made, sizeof o);
            attend(cpus[c], &rounded, 0, 300, &m, made);
            attend(cpus[c], &rounded, 300, POSITIONS, &m, made);
            assert_memory_equal(o, made, sizeof o);
        }
        a.rounded = false;
        assert_false(fr_cpu_attn_makes(cpus[c], &a, &m));
    }
    memcpy(kv, kept, sizeof kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_sums_in_double),
        cmocka_unit_test(test_hostile_rows),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_growing_scores),
        cmocka_unit_test(test_products_made_here),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
