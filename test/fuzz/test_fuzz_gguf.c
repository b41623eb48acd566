/* Hostile GGUF files: the saved corpus, then seeded mutations of right files, then a failure of
 * every single allocation. Each input is opened in every way; what opens is read to the last
 * element. A failure must have a text, and nothing may be left behind.
 *
 *   test_fuzz_gguf [SEED [RUNS]]      or FERRY_FUZZ_SEED, FERRY_FUZZ_RUNS
 *
 * Built with -DFERRY_LIBFUZZER and a fuzzing main, LLVMFuzzerTestOneInput is the entry. */
#include <dirent.h>

#include "gguf/gguf_writer.h"
#include "gguf_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t sink; /* keeps reads alive */

/* ---- one input --------------------------------------------------------------------------------
 */

static void read_value(const fr_gguf_value *v)
{
    for (uint64_t i = 0; i < v->n; i++) {
        fr_str s = fr_gguf_elem_str(v, i);
        for (size_t k = 0; k < s.n; k++)
            sink += (uint8_t)s.p[k];
        sink += (uint64_t)fr_gguf_elem_i64(v, i);
        sink += fr_gguf_elem_f64(v, i) > 0;
        if (v->type == FR_GGUF_ARRAY) {
            fr_gguf_value inner = fr_gguf_elem_array(v, i);
            read_value(&inner);
        }
    }
}

static void read_key(const fr_gguf *g, const fr_gguf_kv *kv)
{
    static char key[1 << 16];
    int64_t i64;
    uint32_t u32;
    float f;
    bool b;
    fr_str s;
    const fr_gguf_value *array;
    memcpy(key, kv->key.p, kv->key.n);
    key[kv->key.n] = 0;
    assert_ptr_equal(fr_gguf_find(g, key), &kv->value);
    int fits = (fr_gguf_get_i64(g, key, &i64, NULL) == FR_OK) +
               (fr_gguf_get_bool(g, key, &b, NULL) == FR_OK) +
               (fr_gguf_get_str(g, key, &s, NULL) == FR_OK) +
               (fr_gguf_get_array(g, key, false, &array, NULL) == FR_OK) +
               (fr_gguf_get_array(g, key, true, &array, NULL) == FR_OK);
    assert_true(fits <= 1);
    sink += fr_gguf_get_u32(g, key, &u32, NULL) + fr_gguf_get_f32(g, key, &f, NULL);
    read_value(&kv->value);
}

static void read_tensor(const fr_gguf *g, const fr_gguf_tensor *t)
{
    fr_err err;
    uint8_t ends[2];
    assert_ptr_equal(fr_gguf_find_tensor(g, t->name), t);
    assert_true(t->bytes > 0);
    const uint8_t *p = fr_gguf_tensor_data(g, t);
    if (!fr_gguf_has_data(g)) {
        assert_null(p);
        return;
    }
    assert_ok(fr_gguf_read_tensor(g, t, 0, 1, &ends[0], &err));
    assert_ok(fr_gguf_read_tensor(g, t, t->bytes - 1, 1, &ends[1], &err));
    if (p)
        assert_true(p[0] == ends[0] && p[t->bytes - 1] == ends[1]);
}

static void read_all(const fr_gguf *g)
{
    for (size_t i = 0; i < fr_gguf_n_kv(g); i++)
        read_key(g, fr_gguf_kv_at(g, i));
    for (size_t i = 0; i < fr_gguf_n_tensors(g); i++)
        read_tensor(g, fr_gguf_tensor_at(g, i));
}

/* What was accepted can be written again. */
static void encode_all(const fr_gguf *g)
{
    fr_gguf_writer *w;
    fr_err err;
    assert_ok(fr_gguf_writer_create("/tmp/ferry-fuzz.gguf", &w, &err));
    assert_ok(fr_gguf_put_all(w, g, NULL, &err));
    assert_ok(fr_gguf_writer_close(w, false, &err));
}

/* Whether it opened with all its data. */
static bool try_input(const uint8_t *data, size_t size)
{
    static const unsigned flags[] = {FR_GGUF_HEADERS_ONLY, FR_GGUF_NO_MMAP, 0};
    fr_status first = FR_OK, st = FR_OK;
    for (int i = 0; i < 3; i++) {
        size_t before = fr_mem_total().bytes_now;
        fr_gguf *g = NULL;
        fr_err err = {0};
        fr_mem_reset_peaks();
        st = build_open(data, size, flags[i], &g, &err);
        assert_true(fr_mem_total().bytes_peak - before < 256 * 1024 + 16 * size);
        if (st == FR_OK) {
            read_all(g);
            if (i == 0)
                encode_all(g);
            fr_gguf_close(g);
        } else {
            assert_null(g);
            assert_int_equal(err.code, st);
            assert_true(st == FR_EFORMAT || st == FR_EUNSUPPORTED || st == FR_EINVAL);
            assert_true(err.text[0] != 0);
        }
        assert_int_equal(fr_mem_total().bytes_now, before);
        if (i == 1)
            first = st;
    }
    assert_int_equal(st, first); /* mapped or not makes no difference */
    return st == FR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_input(data, size);
    return 0;
}

#ifndef FERRY_LIBFUZZER

/* ---- seeds ------------------------------------------------------------------------------------
 */

enum { MAX_SEEDS = 128 };

static fr_buf seeds[MAX_SEEDS];
static size_t n_seeds;

static void add_seed(const char *path)
{
    fr_err err;
    assert_true(n_seeds < MAX_SEEDS);
    assert_ok(fr_file_slurp(path, 1 << 20, &seeds[n_seeds], &err));
    n_seeds++;
}

/* Every scalar type as an array of three, and tensors of many types. */
static void write_seed(const char *path)
{
    static const uint8_t zeros[1 << 14];
    static const struct {
        fr_type type;
        fr_layout layout;
        int64_t cols, rows;
    } tensors[] = {
        {FR_TYPE_F16, FR_LAYOUT_PLAIN, 24, 3},          {FR_TYPE_Q6_K, FR_LAYOUT_PLAIN, 256, 2},
        {FR_TYPE_Q8_0, FR_LAYOUT_INTERLEAVED, 64, 16},  {FR_TYPE_IQ4_KS, FR_LAYOUT_PLAIN, 512, 3},
        {FR_TYPE_IQ2_K, FR_LAYOUT_INTERLEAVED, 256, 8},
    };
    enum { N_TENSORS = sizeof tensors / sizeof *tensors };
    fr_gguf_writer *w;
    fr_err err;
    char name[16];
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    assert_ok(fr_gguf_put_u32(w, "general.alignment", 64, &err));
    for (int type = FR_GGUF_U8; type <= FR_GGUF_F64; type++) {
        if (type == FR_GGUF_STR || type == FR_GGUF_ARRAY)
            continue;
        fr_gguf_value v = {.type = (fr_gguf_type)type, .is_array = true, .n = 3, .bytes = zeros};
        snprintf(name, sizeof name, "array.%d", type);
        assert_ok(fr_gguf_put_value(w, name, &v, &err));
    }
    for (int i = 0; i < N_TENSORS; i++) {
        snprintf(name, sizeof name, "blk.%d.weight", i);
        assert_ok(fr_gguf_add_tensor(w, name, tensors[i].type, tensors[i].layout, 2,
                                     (int64_t[]){tensors[i].cols, tensors[i].rows}, &err));
    }
    assert_ok(fr_gguf_write_header(w, &err));
    for (int i = 0; i < N_TENSORS; i++)
        assert_ok(fr_gguf_write_data(w, zeros,
                                     (size_t)tensors[i].rows * fr_row_bytes(tensors[i].type,
                                                                            tensors[i].layout,
                                                                            tensors[i].cols),
                                     &err));
    assert_ok(fr_gguf_writer_close(w, true, &err));
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The corpus in the order of its names, so that a seed means the same everywhere. */
static void add_corpus(void)
{
    static char names[MAX_SEEDS][64];
    size_t n = 0;
    DIR *d = opendir(TEST_FILE("data/gguf"));
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        assert_true(n < MAX_SEEDS && strlen(e->d_name) < sizeof names[0]);
        strcpy(names[n++], e->d_name);
    }
    closedir(d);
    assert_true(n > 0);
    qsort(names, n, sizeof names[0], compare_names);
    for (size_t i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", TEST_FILE("data/gguf"), names[i]);
        add_seed(path);
        bool opens = try_input((const uint8_t *)seeds[n_seeds - 1].p, seeds[n_seeds - 1].n);
        if (opens != (strncmp(names[i], "ok-", 3) == 0))
            fail_msg("%s: %s", names[i], opens ? "opens" : "does not open");
    }
}

static void free_seeds(void)
{
    while (n_seeds)
        fr_buf_free(&seeds[--n_seeds]);
}

/* ---- mutations --------------------------------------------------------------------------------
 */

static uint64_t rng;

static uint64_t below(uint64_t n)
{
    return n ? (test_rand(&rng) >> 11) % n : 0;
}

static uint64_t interesting(uint64_t size)
{
    static const uint64_t values[] = {0,      1,      2,          3,          4,         7,
                                      8,      9,      0x7F,       0x80,       0xFF,      0x100,
                                      0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    switch (below(5)) {
    case 0:
        return UINT64_MAX - below(40);
    case 1:
        return ((uint64_t)1 << below(64)) + below(3) - 1;
    case 2:
        return size + below(33) - 16;
    case 3:
        return test_rand(&rng);
    default:
        return values[below(sizeof values / sizeof *values)];
    }
}

static void overwrite(fr_buf *b, size_t at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width && at + i < b->n; i++)
        b->p[at + i] = (char)(value >> 8 * i);
}

static void flip_bits(fr_buf *b)
{
    for (uint64_t n = 1 + below(8); n && b->n; n--)
        b->p[below(b->n)] ^= (char)(1 << below(8));
}

static void overwrite_some(fr_buf *b)
{
    overwrite(b, below(b->n), interesting(b->n), (size_t)1 << below(4));
}

static void cut(fr_buf *b)
{
    b->n = below(b->n + 1);
}

/* Changes eight bytes that could be a length, count or offset: a number not above the file's size.
 */
static void attack_length(fr_buf *b)
{
    for (int tries = 0; tries < 200 && b->n >= 8; tries++) {
        size_t at = below(b->n - 7);
        uint64_t v;
        memcpy(&v, b->p + at, 8);
        if (v == 0 || v > b->n)
            continue;
        const uint64_t changed[] = {v - 1,
                                    v + 1,
                                    2 * v,
                                    b->n - at,
                                    b->n - at - 8,
                                    v | (uint64_t)1 << 63,
                                    interesting(b->n)};
        overwrite(b, at, changed[below(7)], 8);
        return;
    }
}

/* Replaces a piece by a piece of another seed; either may be empty. */
static void splice(fr_buf *b)
{
    const fr_buf *other = &seeds[below(n_seeds)];
    size_t at = below(b->n + 1), drop = below(below(b->n - at + 1) + 1);
    size_t from = below(other->n + 1), n = below(below(other->n - from + 1) + 1);
    fr_buf out = {0};
    build_raw(&out, b->p, at);
    build_raw(&out, other->p + from, n);
    build_raw(&out, b->p + at + drop, b->n - at - drop);
    fr_buf_free(b);
    *b = out;
}

static void mutate(fr_buf *b)
{
    static void (*const kinds[])(fr_buf *) = {flip_bits,     overwrite_some, overwrite_some,
                                              cut,           attack_length,  attack_length,
                                              attack_length, splice};
    for (uint64_t n = 1 + below(3); n; n--)
        kinds[below(sizeof kinds / sizeof *kinds)](b);
}

/* ---- the tests --------------------------------------------------------------------------------
 */

static uint64_t start_seed = 20240917, n_runs = 1000;

static void test_corpus_and_mutations(void **state)
{
    (void)state;
    char path[] = "/tmp/ferry-fuzz-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_seed(path);
    add_seed(path);
    unlink(path);
    build_sample(&seeds[n_seeds++], 3);
    add_seed(TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf"));
    add_seed(TEST_FILE("data/headers/kimi-k2-iq2_k_r4.header.gguf"));
    assert_true(try_input((const uint8_t *)seeds[0].p, seeds[0].n));
    assert_true(try_input((const uint8_t *)seeds[1].p, seeds[1].n));
    add_corpus();
    uint64_t n_opened = 0;
    for (uint64_t run = 0; run < n_runs; run++) {
        rng = (start_seed + run) * 0x9E3779B97F4A7C15ull | 1;
        /* half of the runs start from the two small right files */
        const fr_buf *from = &seeds[below(2) ? below(2) : below(n_seeds)];
        fr_buf b = {0};
        build_raw(&b, from->p, from->n);
        mutate(&b);
        n_opened += try_input((const uint8_t *)b.p, b.n);
        fr_buf_free(&b);
    }
    print_message("seed %llu: %llu runs, %llu inputs opened\n", (unsigned long long)start_seed,
                  (unsigned long long)n_runs, (unsigned long long)n_opened);
    free_seeds();
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

static void walk_failures(const fr_buf *b, unsigned flags)
{
    fr_gguf *g;
    fr_err err;
    size_t before = fr_mem_total().bytes_now;
    uint64_t n = 0, allocs = fr_mem_total().n_allocs;
    assert_ok(build_open(b->p, b->n, flags, &g, &err));
    fr_gguf_close(g);
    allocs = fr_mem_total().n_allocs - allocs;
    for (fr_status st = FR_ENOMEM; st != FR_OK;) {
        fr_mem_fail_at(++n, 0);
        st = build_open(b->p, b->n, flags, &g, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK)
            fr_gguf_close(g);
        else
            assert_true(st == FR_ENOMEM && err.code == st && err.text[0] && !g);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_int_equal(n, allocs + 1); /* no failure was swallowed */
}

static void test_no_memory(void **state)
{
    (void)state;
    fr_buf b = {0};
    fr_err err;
    build_sample(&b, 3);
    walk_failures(&b, 0);
    walk_failures(&b, FR_GGUF_NO_MMAP);
    fr_buf_clear(&b);
    assert_ok(
        fr_file_slurp(TEST_FILE("data/headers/kimi-k2-iq2_k_r4.header.gguf"), 1 << 20, &b, &err));
    walk_failures(&b, FR_GGUF_HEADERS_ONLY);
    fr_buf_free(&b);
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

int main(int argc, char **argv)
{
    const char *seed = argc > 1 ? argv[1] : getenv("FERRY_FUZZ_SEED");
    const char *runs = argc > 2 ? argv[2] : getenv("FERRY_FUZZ_RUNS");
    start_seed = seed ? strtoull(seed, NULL, 10) : start_seed;
    n_runs = runs ? strtoull(runs, NULL, 10) : n_runs;
    print_message("seed %llu, %llu runs\n", (unsigned long long)start_seed,
                  (unsigned long long)n_runs);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus_and_mutations),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
