/* Repacking by programs: the same bytes as the walk over fields, for every type and pair of
 * layouts and every tier; and the maps that programs can and cannot be made of.
 *
 * test_bit_moves --bench [TYPE...] times repacking from plain to the layout in memory. */
#include "testing.h"

#include <time.h>

#include "quant/bit_moves.h"
#include "quant/repack.h"

static const char *const tier_names[BIT_TIER_COUNT] = {"base", "AVX2", "AVX-512"};

static uint8_t *random_bytes(size_t n, uint64_t *seed)
{
    uint8_t *p = malloc(n); /* no byte more, so that a sanitizer sees one too far */
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(test_rand(seed) >> 32);
    return p;
}

static void compare(fr_type type, fr_layout from, fr_layout to, int64_t rows, int64_t cols,
                    uint64_t *seed)
{
    size_t n_to = (size_t)rows * fr_row_bytes(type, to, cols);
    uint8_t *src = random_bytes((size_t)rows * fr_row_bytes(type, from, cols), seed);
    uint8_t *walked = random_bytes(n_to, seed), *fast = random_bytes(n_to, seed);
    quant_repack_walk(&(repack_args){type, from, to, rows, cols, src, walked}, 0);
    for (int tier = 0; tier < BIT_TIER_COUNT; tier++) {
        if (!bit_use_tier((bit_tier)tier))
            continue;
        memset(fast, 0xA5 ^ tier, n_to);
        quant_repack(&(repack_args){type, from, to, rows, cols, src, fast});
        if (memcmp(walked, fast, n_to) != 0)
            fail_msg("%s to %s, %d x %d, %s: not the bytes of the walk", fr_type_name(type, from),
                     fr_type_name(type, to), (int)rows, (int)cols, tier_names[tier]);
    }
    free(src);
    free(walked);
    free(fast);
}

static int rows_of(fr_type type, fr_layout from, fr_layout to)
{
    int a = fr_layout_rows(type, from), b = fr_layout_rows(type, to);
    return a == 0 || b == 0 ? 0 : a > b ? a : b;
}

static void all_types(void **state)
{
    (void)state;
    uint64_t seed = 20250101;
    int n_pairs = 0;
    for (int t = 0; t < FR_TYPE_COUNT; t++)
        for (int from = 0; from < FR_LAYOUT_COUNT; from++)
            for (int to = 0; to < FR_LAYOUT_COUNT; to++) {
                int rows = rows_of((fr_type)t, (fr_layout)from, (fr_layout)to);
                if (from == to || rows == 0)
                    continue;
                n_pairs++;
                if (!quant_repack_is_fast((fr_type)t, (fr_layout)from, (fr_layout)to))
                    fail_msg("%s to %s: no program", fr_type_name((fr_type)t, (fr_layout)from),
                             fr_type_name((fr_type)t, (fr_layout)to));
                int unit = fr_type_get((fr_type)t)->il_weights;
                static const int widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 33};
                for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
                    compare((fr_type)t, (fr_layout)from, (fr_layout)to, rows * (1 + (int)i % 3),
                            (int64_t)unit * widths[i], &seed);
            }
    assert_true(n_pairs >= 80);
}

/* ---- maps ---------------------------------------------------------------------------------------
 */

typedef struct {
    size_t n;
    int kind;
} map_args;

enum { IDENTITY, REVERSED_AND_INVERTED, MIXED, PRODUCT };

static void map_bytes(void *user, const uint8_t *src, uint8_t *dst)
{
    const map_args *a = user;
    for (size_t i = 0; i < a->n; i++) {
        uint8_t x = src[i], y = src[(i + 7) % a->n];
        switch (a->kind) {
        case REVERSED_AND_INVERTED:
            dst[a->n - 1 - i] = (uint8_t) ~(x << 3 | x >> 5);
            break;
        case MIXED:
            dst[i] = (uint8_t)(x ^ x << 1 ^ y >> 2 ^ 0x35);
            break;
        case PRODUCT:
            dst[i] = x & y;
            break;
        default:
            dst[i] = x;
        }
    }
}

static void check_map(int kind, size_t n, bool expected)
{
    enum { STEPS = 3, MAX = 128 };
    uint64_t seed = 3 + n;
    map_args a = {n, kind};
    bit_strands s = {.n = 1, .head = 0, .body = n};
    const bit_program *p = bit_program_make(s, s, map_bytes, &a);
    if ((p != NULL) != expected)
        fail_msg("map %d of %zu bytes: found %s program", kind, n, p ? "a" : "no");
    if (!p)
        return;
    uint8_t *src = random_bytes(STEPS * n, &seed), *dst = malloc(STEPS * n), want[MAX];
    bit_program_run(p, src, 0, dst, 0, STEPS);
    for (size_t i = 0; i < STEPS; i++) {
        map_bytes(&a, src + i * n, want);
        assert_memory_equal(dst + i * n, want, n);
    }
    free(src);
    free(dst);
}

static void maps(void **state)
{
    (void)state;
    static const size_t sizes[] = {16, 17, 31, 32, 33, 100, 128};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_map(IDENTITY, sizes[i], true);
        check_map(REVERSED_AND_INVERTED, sizes[i], true);
        check_map(MIXED, sizes[i], true);
        check_map(PRODUCT, sizes[i], false); /* not affine */
    }
}

static void strands_that_do_not_fit(void **state)
{
    (void)state;
    static const bit_strands bad[] = {
        {0, 0, 16}, {1, 0, 15}, {17, 0, 16}, {1, 0, BIT_MAX_BYTES + 1}};
    bit_strands good = {1, 0, 16};
    map_args a = {16, IDENTITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_null(bit_program_make(bad[i], good, map_bytes, &a));
        assert_null(bit_program_make(good, bad[i], map_bytes, &a));
    }
}

/* ---- speed --------------------------------------------------------------------------------------
 */

enum { BENCH_COLS = 2048, CACHED_BYTES = 512 << 10, MEMORY_BYTES = 64 << 20 };

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* GB/s, the best of some runs of about as many bytes. */
static double speed(repack_args a, size_t bytes)
{
    enum { RUNS = 5, RUN_BYTES = 64 << 20 };
    size_t unit = 16 * fr_row_bytes(a.type, a.from, a.cols);
    double best = 1e9;
    a.n_rows = (int64_t)(bytes / unit) * 16;
    size_t moved = (size_t)a.n_rows / 16 * unit, times = RUN_BYTES / moved;
    for (int run = 0; run < RUNS; run++) {
        double start = seconds_now();
        for (size_t i = 0; i < times; i++)
            quant_repack(&a);
        double took = (seconds_now() - start) / (double)times;
        best = took < best ? took : best;
    }
    return (double)moved * 1e-9 / best;
}

/* MEMORY_BYTES as a loader has them, touched. */
static uint8_t *huge_pages(void)
{
    uint8_t *p = fr_mem_alloc(FR_MEM_MISC, MEMORY_BYTES);
    assert_non_null(p);
    fr_mem_want_huge_pages(p);
    for (size_t i = 0; i < MEMORY_BYTES; i++)
        p[i] = (uint8_t)(i * 2654435761u >> 13);
    return p;
}

static bool is_named(const char *name, int n, char **names)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return n == 0;
}

static int bench(int n_names, char **names)
{
    uint8_t *src = huge_pages(), *dst = huge_pages();
    printf(
        "| plain to | one core, GB/s in cache: base | AVX2 | AVX-512 | from memory: base | AVX2 | "
        "AVX-512 |\n| --- | --- | --- | --- | --- | --- | --- |\n");
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        fr_layout to = fr_layout_in_memory((fr_type)t, 16, BENCH_COLS);
        repack_args a = {(fr_type)t, FR_LAYOUT_PLAIN, to, 16, BENCH_COLS, src, dst};
        if (to == FR_LAYOUT_PLAIN || !quant_repack_is_fast(a.type, a.from, a.to) ||
            !is_named(fr_type_get(a.type)->name, n_names, names))
            continue;
        printf("| %s |", fr_type_name(a.type, to));
        for (int memory = 0; memory < 2; memory++)
            for (int tier = 0; tier < BIT_TIER_COUNT; tier++)
                if (bit_use_tier((bit_tier)tier))
                    printf(" %.2f |", speed(a, memory ? MEMORY_BYTES : CACHED_BYTES));
                else
                    printf(" - |");
        printf("\n");
        fflush(stdout);
    }
    fr_mem_free(src);
    fr_mem_free(dst);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return bench(argc - 2, argv + 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_types),
        cmocka_unit_test(maps),
        cmocka_unit_test(strands_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
