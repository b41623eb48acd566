/* How well the encoders do: against the foreign producer of data/quants (same weights, same
 * importance), against plain rounding, and against themselves. */
#include "testing.h"

#include <math.h>
#include <time.h>

#include "base/file.h"
#include "support/encoders.h"

enum { ROWS = 16, COLS = 512, N = ROWS * COLS };

static float source[N], importance[COLS];

static void load_floats(const char *path, float *out, size_t n)
{
    fr_buf b = {0};
    fr_err err;
    assert_ok(fr_file_slurp(path, 1 << 20, &b, &err));
    assert_int_equal(b.n, n * sizeof(float));
    memcpy(out, b.p, b.n);
    fr_buf_free(&b);
}

static int load(void **state)
{
    (void)state;
    load_floats(TEST_FILE("data/quants/source.f32"), source, N);
    load_floats(TEST_FILE("data/quants/importance.f32"), importance, COLS);
    return 0;
}

static double own_rmse(fr_type type, const float *w)
{
    static float out[N];
    for (int r = 0; r < ROWS; r++)
        encode_decode(type, source + r * COLS, COLS, w, out + r * COLS);
    return weighted_rmse(source, out, w, ROWS, COLS);
}

/* Millions of weights per second of this thread, for the table only. */
static double speed(fr_type type)
{
    uint8_t bytes[COLS * 2 + 16];
    struct timespec a, b;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    for (int r = 0; r < ROWS; r++)
        fr_encode_row(type, source + r * COLS, COLS, importance, bytes);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    return N / ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) * 1e-3);
}

static void every_encoder_has_a_case(void **state)
{
    (void)state;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        bool found = t == FR_TYPE_F32;
        for (int i = 0; i < n_encoder_cases; i++)
            found |= encoder_cases[i].type == (fr_type)t;
        assert_int_equal(found, fr_type_can_encode((fr_type)t));
    }
}

/* The producer had the importance; it must not win by more than 2 % with or without. */
static void no_worse_than_the_producer(void **state)
{
    (void)state;
    print_message("RMSE over the producer's: weighted by importance, without; M weights/s\n");
    for (int i = 0; i < n_encoder_cases; i++) {
        static float theirs[N];
        char path[512];
        fr_type type = encoder_cases[i].type;
        const char *name = fr_type_get(type)->name;
        snprintf(path, sizeof path, TEST_FILE("data/quants/quantized/%s.f32"), name);
        load_floats(path, theirs, N);
        double weighted =
            own_rmse(type, importance) / weighted_rmse(source, theirs, importance, ROWS, COLS);
        double plain = own_rmse(type, NULL) / weighted_rmse(source, theirs, NULL, ROWS, COLS);
        print_message("  %-8s %.4f %.4f %6.1f\n", name, weighted, plain, speed(type));
        if (weighted > 1.02 || plain > 1.02)
            fail_msg("%s: %.4f and %.4f times the producer's error", name, weighted, plain);
    }
}

/* Plain rounding: per 32 weights the extreme value becomes +-steps. */
static void round_plainly(const float *x, int n, int steps, float *out)
{
    for (int b = 0; b < n; b += 32) {
        float most = 0;
        for (int i = b; i < b + 32; i++)
            most = fmaxf(most, fabsf(x[i]));
        float d = most / (float)steps;
        for (int i = b; i < b + 32; i++)
            out[i] = d > 0 ? d * rintf(x[i] / d) : 0;
    }
}

static void better_than_plain_rounding(void **state)
{
    (void)state;
    enum { LONG = 1024 };
    uint64_t seed = 41;
    for (int round = 0; round < 6; round++) {
        float x[LONG], w[LONG], out[LONG], plain[LONG];
        const float *weights = round % 2 ? w : NULL;
        make_weights(&seed, x, LONG);
        make_importance(&seed, w, LONG, round == 3);
        for (int i = 0; i < n_encoder_cases; i++) {
            encode_decode(encoder_cases[i].type, x, LONG, weights, out);
            round_plainly(x, LONG, encoder_cases[i].steps, plain);
            double ours = weighted_rmse(x, out, weights, 1, LONG),
                   theirs = weighted_rmse(x, plain, weights, 1, LONG);
            if (ours > theirs)
                fail_msg("%s, round %d: error %g, plain rounding %g",
                         fr_type_get(encoder_cases[i].type)->name, round, ours, theirs);
        }
    }
}

/* Importance is worth having: over a wide range of it, errors go where they matter less. */
static void importance_lowers_its_errors(void **state)
{
    (void)state;
    uint64_t seed = 5;
    float w[COLS];
    make_importance(&seed, w, COLS, 1);
    for (int i = 0; i < n_encoder_cases; i++) {
        static float out[N];
        fr_type type = encoder_cases[i].type;
        for (int r = 0; r < ROWS; r++)
            encode_decode(type, source + r * COLS, COLS, NULL, out + r * COLS);
        double without = weighted_rmse(source, out, w, ROWS, COLS), with = own_rmse(type, w);
        bool deaf = type == FR_TYPE_F16 || type == FR_TYPE_BF16;
        if (deaf ? with != without : with >= without)
            fail_msg("%s: %g with importance, %g without", fr_type_get(type)->name, with, without);
    }
}

/* What was encoded once is near a fixed point: the second pass loses less than the first. */
static void encoding_again_loses_little(void **state)
{
    (void)state;
    static float once[N], twice[N];
    for (int i = 0; i < n_encoder_cases; i++) {
        fr_type type = encoder_cases[i].type;
        for (int r = 0; r < ROWS; r++) {
            encode_decode(type, source + r * COLS, COLS, importance, once + r * COLS);
            encode_decode(type, once + r * COLS, COLS, importance, twice + r * COLS);
        }
        double first = weighted_rmse(source, once, importance, ROWS, COLS),
               second = weighted_rmse(once, twice, importance, ROWS, COLS);
        if (second > 0.5 * first)
            fail_msg("%s: first pass %g, second %g", fr_type_get(type)->name, first, second);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_encoder_has_a_case),
        cmocka_unit_test(no_worse_than_the_producer),
        cmocka_unit_test(better_than_plain_rounding),
        cmocka_unit_test(importance_lowers_its_errors),
        cmocka_unit_test(encoding_again_loses_little),
    };
    return cmocka_run_group_tests(tests, load, NULL);
}
