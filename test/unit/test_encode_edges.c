/* Encoders at the edges: strange rows, strange importance, bytes written, powers of two, threads.
 */
#include "testing.h"

#include <float.h>
#include <math.h>
#include <pthread.h>

#include "support/encoders.h"

enum { COLS = 512, GUARD = 64 };

static const char *name_of(int i)
{
    return fr_type_get(encoder_cases[i].type)->name;
}

/* ---- threads -------------------------------------------------------------------------------- */

enum { THREADS = 4, TYPES = 64, MAX_ROW = COLS * 2 + 16 };

typedef struct {
    pthread_t id;
    float x[COLS];
    uint8_t rows[TYPES][MAX_ROW];
} worker;

static void encode_all(worker *w)
{
    for (int i = 0; i < n_encoder_cases; i++)
        fr_encode_row(encoder_cases[i].type, w->x, COLS, NULL, w->rows[i]);
}

static void *work(void *arg)
{
    encode_all(arg);
    return NULL;
}

/* Runs first, so that the threads meet where encoders set things up on first use. */
static void threads_agree(void **state)
{
    (void)state;
    static worker workers[THREADS], alone;
    uint64_t seed = 3;
    assert_true(n_encoder_cases <= TYPES);
    make_weights(&seed, alone.x, COLS);
    for (int t = 0; t < THREADS; t++) {
        memcpy(workers[t].x, alone.x, sizeof alone.x);
        assert_int_equal(pthread_create(&workers[t].id, NULL, work, &workers[t]), 0);
    }
    for (int t = 0; t < THREADS; t++)
        assert_int_equal(pthread_join(workers[t].id, NULL), 0);
    encode_all(&alone);
    for (int t = 0; t < THREADS; t++)
        assert_memory_equal(workers[t].rows, alone.rows, sizeof alone.rows);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

/* The bytes depend on the weights alone, and no other bytes are touched. */
static void rows_are_written_whole(void **state)
{
    (void)state;
    uint64_t seed = 9;
    float x[COLS], w[COLS];
    make_weights(&seed, x, COLS);
    make_importance(&seed, w, COLS, 0);
    for (int i = 0; i < n_encoder_cases; i++) {
        fr_type type = encoder_cases[i].type;
        size_t n = fr_row_bytes(type, FR_LAYOUT_PLAIN, COLS);
        uint8_t a[MAX_ROW + 2 * GUARD], b[MAX_ROW + 2 * GUARD];
        memset(a, 0x5A, sizeof a);
        memset(b, 0xC3, sizeof b);
        fr_encode_row(type, x, COLS, w, a + GUARD);
        fr_encode_row(type, x, COLS, w, b + GUARD + 1); /* dst needs no alignment */
        assert_memory_equal(a + GUARD, b + GUARD + 1, n);
        for (size_t k = 0; k < GUARD; k++) {
            assert_int_equal(a[k], 0x5A);
            assert_int_equal(a[GUARD + n + k], 0x5A);
        }
    }
}

/* Larger by a power of two is the same codes and larger scales, as long as those are normal. */
static void powers_of_two_change_nothing(void **state)
{
    (void)state;
    uint64_t seed = 11;
    float x[COLS], big[COLS], w[COLS], more[COLS], out[COLS], big_out[COLS];
    make_weights(&seed, x, COLS);
    make_importance(&seed, w, COLS, 0);
    for (int i = 0; i < COLS; i++) {
        x[i] *= 64;
        big[i] = x[i] * 16;
        more[i] = w[i] * 1024;
    }
    for (int i = 0; i < n_encoder_cases; i++) {
        encode_decode(encoder_cases[i].type, x, COLS, w, out);
        encode_decode(encoder_cases[i].type, big, COLS, more, big_out);
        for (int k = 0; k < COLS; k++)
            if (big_out[k] != 16 * out[k])
                fail_msg("%s: weight %d: %g, and %g of 16 times it", name_of(i), k, out[k],
                         big_out[k]);
    }
}

/* ---- strange rows ---------------------------------------------------------------------------- */

static float magnitude(const float *x)
{
    float most = 0;
    for (int i = 0; i < COLS; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* All outputs finite, and none further than `share` of the row's largest magnitude (and the least
 * f16 scale's levels) from its weight. */
static void check_row(const char *what, const float *x, const float *w, float share)
{
    for (int i = 0; i < n_encoder_cases; i++) {
        float out[COLS], bound = share * magnitude(x) + 1e-6f;
        encode_decode(encoder_cases[i].type, x, COLS, w, out);
        for (int k = 0; k < COLS; k++) {
            if (!isfinite(out[k]))
                fail_msg("%s, %s: weight %d became %g", name_of(i), what, k, out[k]);
            if (fabsf(out[k] - x[k]) > bound)
                fail_msg("%s, %s: weight %d, %g, became %g", name_of(i), what, k, x[k], out[k]);
        }
    }
}

static void zeros_stay_zeros(void **state)
{
    (void)state;
    float x[COLS] = {0}, out[COLS];
    for (int i = 0; i < n_encoder_cases; i++) {
        encode_decode(encoder_cases[i].type, x, COLS, NULL, out);
        for (int k = 0; k < COLS; k++)
            assert_true(out[k] == 0);
    }
}

static void equal_values_stay_near(void **state)
{
    (void)state;
    static const float values[] = {1, -1, 0.7f, -0.013f, 300, -2e-3f};
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
        float x[COLS];
        for (int i = 0; i < COLS; i++)
            x[i] = values[v];
        check_row("equal values", x, NULL, 0.15f);
    }
}

static void one_sign_is_kept(void **state)
{
    (void)state;
    uint64_t seed = 21;
    for (int sign = -1; sign <= 1; sign += 2) {
        float x[COLS];
        for (int i = 0; i < COLS; i++)
            x[i] = (float)sign * (0.5f + 0.4f * test_rand_f(&seed));
        check_row("one sign", x, NULL, 0.85f);
    }
}

/* Most of the outlier must come through, and nothing else grow to it. (With levels of 8, 25 and 43
 * the least square error halves it.) */
static void outliers_come_through(void **state)
{
    (void)state;
    uint64_t seed = 22;
    for (int i = 0; i < 8; i++) {
        float x[COLS];
        for (int k = 0; k < COLS; k++)
            x[k] = 1e-3f * test_rand_f(&seed);
        x[test_rand(&seed) % COLS] = i % 2 ? 100.f : -100.f;
        check_row("an outlier", x, NULL, 0.6f);
    }
}

static void tiny_values_stay_tiny(void **state)
{
    (void)state;
    uint64_t seed = 23;
    for (int exp = -149; exp < -20; exp += 3) {
        float x[COLS];
        for (int k = 0; k < COLS; k++)
            x[k] = ldexpf(test_rand_f(&seed), exp);
        check_row("tiny values", x, NULL, 1);
        x[5] = 1;
        check_row("tiny values and a 1", x, NULL, 0.6f);
    }
}

static void huge_values_stay_finite(void **state)
{
    (void)state;
    uint64_t seed = 24;
    for (int exp = 17; exp <= 128; exp += 3) {
        float x[COLS];
        for (int k = 0; k < COLS; k++)
            x[k] = ldexpf(test_rand_f(&seed), exp);
        x[0] = exp == 128 ? FLT_MAX : x[0];
        check_row("huge values", x, NULL, 1.2f);
    }
}

static void any_importance_is_taken(void **state)
{
    (void)state;
    uint64_t seed = 25;
    float x[COLS], w[COLS];
    for (int i = 0; i < COLS; i++)
        x[i] = test_rand_f(&seed);
    static const float values[] = {0, 1e-38f, 1e38f, FLT_MAX};
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
        for (int i = 0; i < COLS; i++)
            w[i] = values[v];
        check_row("equal importance", x, w, 1);
        w[7] = 1;
        check_row("one other importance", x, w, 1.5f);
        for (int i = 0; i < COLS; i++)
            w[i] = i / 32 % 2 ? values[v] : 1;
        check_row("importance in stripes", x, w, 1.5f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_agree),
        cmocka_unit_test(rows_are_written_whole),
        cmocka_unit_test(powers_of_two_change_nothing),
        cmocka_unit_test(zeros_stay_zeros),
        cmocka_unit_test(equal_values_stay_near),
        cmocka_unit_test(one_sign_is_kept),
        cmocka_unit_test(outliers_come_through),
        cmocka_unit_test(tiny_values_stay_tiny),
        cmocka_unit_test(huge_values_stay_finite),
        cmocka_unit_test(any_importance_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
