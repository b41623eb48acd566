/* Tagged memory and the arena: alignment, zeroing, accounting, overflow, injected failures. */
#include "testing.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/mem.h"

static fr_err err;

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* Small blocks, and blocks round the size from which memory is mapped. */
static const size_t sizes[] = {0,
                               1,
                               63,
                               64,
                               65,
                               4095,
                               100000,
                               (4 << 20) - 129,
                               (4 << 20) - 128,
                               (4 << 20) - 64,
                               (4 << 20) - 63,
                               4 << 20,
                               (9 << 20) + 1};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void test_blocks_are_aligned_and_zero(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) /* later rounds meet used memory */
        for (int i = 0; i < N_SIZES; i++) {
            unsigned char *p = fr_mem_alloc(FR_MEM_MISC, sizes[i]);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % FR_MEM_ALIGN, 0);
            assert_true(all_zero(p, sizes[i]));
            memset(p, 0xA5, sizes[i]);
            fr_mem_free(p);
        }
    fr_mem_free(NULL);
}

static void test_realloc_keeps_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++)
        for (int j = 0; j < N_SIZES; j++) {
            unsigned char *p = fr_mem_realloc(FR_MEM_MISC, NULL, sizes[i]);
            assert_non_null(p);
            memset(p, 0x5A, sizes[i]);
            p = fr_mem_realloc(FR_MEM_MISC, p, sizes[j]);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % FR_MEM_ALIGN, 0);
            size_t kept = sizes[i] < sizes[j] ? sizes[i] : sizes[j];
            for (size_t k = 0; k < kept; k += k + 64 < kept ? 61 : 1)
                assert_int_equal(p[k], 0x5A);
            memset(p, 1, sizes[j]);
            fr_mem_free(p);
        }
}

static void test_accounting(void **state)
{
    (void)state;
    fr_mem_stats total = fr_mem_total(), tag = fr_mem_tag_stats(FR_MEM_KV);
    void *a = fr_mem_alloc(FR_MEM_KV, 1000), *b = fr_mem_alloc(FR_MEM_KV, 5 << 20);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_KV).bytes_now, tag.bytes_now + 1000 + (5 << 20));
    assert_int_equal(fr_mem_total().bytes_now, total.bytes_now + 1000 + (5 << 20));
    assert_int_equal(fr_mem_tag_stats(FR_MEM_KV).n_allocs, tag.n_allocs + 2);
    fr_mem_free(b);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_KV).bytes_now, tag.bytes_now + 1000);
    assert_true(fr_mem_tag_stats(FR_MEM_KV).bytes_peak >= tag.bytes_now + 1000 + (5 << 20));
    a = fr_mem_realloc(FR_MEM_MISC, a, 3000); /* the tag stays */
    assert_int_equal(fr_mem_tag_stats(FR_MEM_KV).bytes_now, tag.bytes_now + 3000);
    fr_mem_reset_peaks();
    assert_int_equal(fr_mem_tag_stats(FR_MEM_KV).bytes_peak, tag.bytes_now + 3000);
    assert_int_equal(fr_mem_total().bytes_peak, fr_mem_total().bytes_now);
    fr_mem_free(a);
    assert_int_equal(fr_mem_total().bytes_now, total.bytes_now);

    fr_mem_account(FR_MEM_WEIGHTS, 1 << 30);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_WEIGHTS).bytes_now, 1 << 30);
    assert_int_equal(fr_mem_total().bytes_now, total.bytes_now + (1 << 30));
    fr_mem_account(FR_MEM_WEIGHTS, -(1 << 30));
    assert_int_equal(fr_mem_tag_stats(FR_MEM_WEIGHTS).bytes_now, 0);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_WEIGHTS).bytes_peak, 1 << 30);
    assert_string_equal(fr_mem_tag_name(FR_MEM_KV), "kv cache");
    assert_string_equal(fr_mem_tag_name(FR_MEM_TAG_COUNT), "unknown");
    assert_string_equal(fr_mem_tag_name((fr_mem_tag)-1), "unknown");
}

static void test_overflow(void **state)
{
    (void)state;
    static const size_t pairs[][2] = {
        {SIZE_MAX, 2},     {SIZE_MAX / 2, 3}, {(size_t)1 << 32, (size_t)1 << 32},
        {SIZE_MAX, 1},     {PTRDIFF_MAX, 1},  {(size_t)PTRDIFF_MAX - 64, 1},
        {SIZE_MAX - 63, 1}};
    fr_arena arena = fr_arena_make(FR_MEM_MISC);
    size_t before = fr_mem_total().bytes_now;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        err.code = FR_OK;
        assert_null(fr_mem_array(FR_MEM_KV, pairs[i][0], pairs[i][1], &err));
        assert_int_equal(err.code, FR_ENOMEM);
        assert_non_null(strstr(err.text, "kv cache"));
        assert_null(fr_mem_array(FR_MEM_KV, pairs[i][0], pairs[i][1], NULL));
        err.code = FR_OK;
        assert_null(fr_arena_alloc(&arena, pairs[i][0], pairs[i][1], &err));
        assert_int_equal(err.code, FR_ENOMEM);

        void *items = NULL;
        size_t cap = 0;
        assert_int_equal(fr_mem_grow(FR_MEM_MISC, &items, &cap, pairs[i][0], pairs[i][1] + 1, &err),
                         FR_ENOMEM);
        assert_true(items == NULL && cap == 0);
    }
    assert_null(fr_mem_alloc(FR_MEM_MISC, SIZE_MAX));
    assert_null(fr_mem_alloc(FR_MEM_MISC, (size_t)1 << 60));
    assert_int_equal(fr_mem_total().bytes_now, before);
    fr_arena_free(&arena);
}

static void test_grow(void **state)
{
    (void)state;
    void *items = NULL;
    size_t cap = 0;
    uint64_t before = fr_mem_total().n_allocs;
    for (size_t n = 1; n <= 10000; n++) {
        assert_ok(fr_mem_grow(FR_MEM_MISC, &items, &cap, n, sizeof(size_t), &err));
        assert_true(cap >= n);
        ((size_t *)items)[n - 1] = n;
    }
    for (size_t i = 0; i < 10000; i++)
        assert_int_equal(((size_t *)items)[i], i + 1);
    assert_true(fr_mem_total().n_allocs - before < 20); /* doubling */
    void *old = items;
    size_t old_cap = cap;
    fr_mem_fail_at(1, 0);
    assert_int_equal(fr_mem_grow(FR_MEM_MISC, &items, &cap, cap + 1, sizeof(size_t), &err),
                     FR_ENOMEM);
    assert_true(items == old && cap == old_cap);
    assert_ok(fr_mem_grow(FR_MEM_MISC, &items, &cap, 0, sizeof(size_t), &err));
    fr_mem_free(items);
}

static void test_strndup(void **state)
{
    (void)state;
    char *s = fr_mem_strndup(FR_MEM_TEXT, "expert", 3, &err);
    assert_string_equal(s, "exp");
    fr_mem_free(s);
    s = fr_mem_strndup(FR_MEM_TEXT, NULL, 0, &err);
    assert_string_equal(s, "");
    fr_mem_free(s);
    fr_mem_fail_at(1, 0);
    assert_null(fr_mem_strndup(FR_MEM_TEXT, "expert", 3, &err));
    assert_int_equal(err.code, FR_ENOMEM);
}

/* The n-th allocation fails and no other; sticky: and all that follow. */
static void test_injected_failures(void **state)
{
    (void)state;
    for (int sticky = 0; sticky < 2; sticky++)
        for (int at = 1; at <= 5; at++) {
            fr_mem_fail_at((uint64_t)at, sticky);
            for (int i = 1; i <= 8; i++) {
                void *p =
                    i % 2 ? fr_mem_alloc(FR_MEM_MISC, 10) : fr_mem_realloc(FR_MEM_MISC, NULL, 10);
                bool want_failure = sticky ? i >= at : i == at;
                assert_int_equal(p == NULL, want_failure);
                fr_mem_free(p);
            }
            fr_mem_fail_at(0, 0);
            void *p = fr_mem_alloc(FR_MEM_MISC, 10);
            assert_non_null(p);
            fr_mem_fail_at(1, 0); /* a failed realloc leaves the block */
            memset(p, 7, 10);
            assert_null(fr_mem_realloc(FR_MEM_MISC, p, 100));
            assert_int_equal(((char *)p)[9], 7);
            fr_mem_free(p);
        }
}

static void *alloc_and_free(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    void *held[16] = {0};
    for (int i = 0; i < 20000; i++) {
        size_t at = test_rand(&seed) % 16;
        fr_mem_free(held[at]);
        held[at] = fr_mem_alloc(FR_MEM_CPU, test_rand(&seed) % 300);
    }
    for (int i = 0; i < 16; i++)
        fr_mem_free(held[i]);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    fr_mem_stats before = fr_mem_tag_stats(FR_MEM_CPU);
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, alloc_and_free, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    fr_mem_stats after = fr_mem_tag_stats(FR_MEM_CPU);
    assert_int_equal(after.bytes_now, before.bytes_now);
    assert_int_equal(after.n_allocs - before.n_allocs, 80000);
    assert_true(after.bytes_peak > 0 && after.bytes_peak <= 4 * 16 * 300);
}

/* ---- arena --------------------------------------------------------------------------------- */

static void test_arena_blocks(void **state)
{
    (void)state;
    enum { N = 3000 };
    static unsigned char *blocks[N];
    static size_t bytes[N];
    size_t before = fr_mem_total().bytes_now;
    fr_arena a = fr_arena_make(FR_MEM_MODEL);
    uint64_t seed = 12;
    for (int i = 0; i < N; i++) {
        bytes[i] = i % 200 == 7 ? 60000 + test_rand(&seed) % 20000 : test_rand(&seed) % 400;
        blocks[i] = fr_arena_alloc(&a, bytes[i], 1, &err);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        assert_true(all_zero(blocks[i], bytes[i])); /* so no block overlaps an earlier one */
        memset(blocks[i], i % 255 + 1, bytes[i]);
    }
    for (int i = 0; i < N; i++)
        for (size_t k = 0; k < bytes[i]; k++)
            assert_int_equal(blocks[i][k], i % 255 + 1);
    assert_true(fr_mem_tag_stats(FR_MEM_MODEL).bytes_now > 0);
    fr_arena_free(&a);
    fr_arena_free(&a); /* twice is harmless */
    assert_int_equal(fr_mem_total().bytes_now, before);
}

/* A block larger than a chunk does not waste what is left of the current one. */
static void test_arena_keeps_current_chunk(void **state)
{
    (void)state;
    fr_arena a = fr_arena_make(FR_MEM_MODEL);
    assert_non_null(fr_arena_alloc(&a, 100, 1, &err));
    assert_non_null(fr_arena_alloc(&a, 1 << 20, 1, &err));
    uint64_t before = fr_mem_total().n_allocs;
    for (int i = 0; i < 100; i++)
        assert_non_null(fr_arena_alloc(&a, 100, 1, &err));
    assert_int_equal(fr_mem_total().n_allocs, before);
    char *s = fr_arena_strndup(&a, "blk.0.attn", 5, &err);
    assert_string_equal(s, "blk.0");
    s = fr_arena_strndup(&a, NULL, 0, &err);
    assert_string_equal(s, "");
    fr_arena_free(&a);
}

static void test_arena_failures(void **state)
{
    (void)state;
    fr_arena a = fr_arena_make(FR_MEM_MODEL);
    fr_mem_fail_at(1, 1);
    assert_null(fr_arena_alloc(&a, 1, 1, &err));
    assert_int_equal(err.code, FR_ENOMEM);
    assert_null(fr_arena_strndup(&a, "abc", 3, &err));
    fr_mem_fail_at(0, 0);
    int *p = FR_ARENA_NEW(int, &a, 4, &err); /* and works afterwards */
    assert_non_null(p);
    fr_mem_fail_at(1, 1);
    assert_null(fr_arena_alloc(&a, 1 << 20, 1, &err));
    assert_non_null(fr_arena_alloc(&a, 16, 1, &err)); /* from the chunk that is there */
    fr_mem_fail_at(0, 0);
    fr_arena_free(&a);
}

static void test_populate(void **state)
{
    (void)state;
    uint8_t *p = fr_mem_alloc(FR_MEM_MISC, 5 << 20);
    assert_non_null(p);
    p[1000] = 7;
    fr_mem_populate(p + 1, (5 << 20) - 1); /* only makes it ready, where the system can */
    assert_int_equal(p[1000], 7);
    assert_int_equal(p[(5 << 20) - 1], 0);
    fr_mem_free(p);
    assert_true(fr_mem_available() > 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_aligned_and_zero),
        cmocka_unit_test(test_realloc_keeps_bytes),
        cmocka_unit_test(test_accounting),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_strndup),
        cmocka_unit_test(test_injected_failures),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_arena_blocks),
        cmocka_unit_test(test_arena_keeps_current_chunk),
        cmocka_unit_test(test_arena_failures),
        cmocka_unit_test(test_populate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
