/* Hostile vocabularies and texts: the saved corpus, seeded mutations of its metadata, and seeded
 * bytes through right vocabularies. Whatever opens must give ids that exist and bytes for each of
 * them; a failure must have a text, and nothing may be left behind.
 *
 *   test_fuzz_token [SEED [RUNS]]      or FERRY_FUZZ_SEED, FERRY_FUZZ_RUNS
 *
 * Built with -DFERRY_LIBFUZZER and a fuzzing main, LLVMFuzzerTestOneInput is the entry. */
#include <dirent.h>

#include "base/log.h"
#include "vocab_testing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- one input --------------------------------------------------------------------------------
 */

static void check_text(const fr_vocab *v, const char *text, size_t n, bool add, bool parse)
{
    fr_tokens t = {0};
    fr_buf pieces = {0}, stream = {0};
    fr_detok d = {.past_first = true};
    fr_err err;
    assert_ok(fr_tokenize(v, text, n, add, parse, &t, &err));
    assert_true(t.n <= 3 * n + 3); /* U+FFFD may stand in for a byte; BOS, blank, EOS */
    for (size_t i = 0; i < t.n; i++) {
        assert_in_range(t.ids[i], 0, fr_vocab_size(v) - 1);
        assert_ok(fr_token_bytes(v, t.ids[i], parse, &pieces, &err));
        assert_ok(fr_detok_push(v, &d, t.ids[i], parse, &stream, &err));
    }
    assert_ok(fr_detok_flush(&d, &stream, &err));
    assert_int_equal(stream.n, pieces.n);
    if (pieces.n)
        assert_memory_equal(stream.p, pieces.p, pieces.n);
    fr_buf_free(&stream);
    fr_buf_free(&pieces);
    fr_tokens_free(&t);
}

static void use_vocab(const fr_vocab *v, const char *text, size_t n)
{
    static const char fixed[] =
        "ab abc\xC3\xA9 caab<|a|>b<u><uu>    12345\r\n\n  don't \xE6\xBC\xA2\xFF\0"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xF0\x9F";
    for (int how = 0; how < 4; how++) {
        check_text(v, fixed, sizeof fixed - 1, how & 1, how & 2);
        check_text(v, text, n, how & 1, how & 2);
    }
    for (int32_t id = -1; id <= fr_vocab_size(v); id++) {
        fr_buf b = {0};
        fr_status st = fr_token_bytes(v, id, true, &b, NULL);
        assert_int_equal(st, id < 0 || id == fr_vocab_size(v) ? FR_ERANGE : FR_OK);
        fr_buf_free(&b);
        fr_str s = fr_vocab_text(v, id);
        int32_t found = fr_vocab_find(v, s);
        assert_true(s.n == 0 ? found == -1 : fr_str_eq(fr_vocab_text(v, found), s));
        assert_in_range(fr_vocab_kind(v, id), FR_TOKEN_NORMAL, FR_TOKEN_BYTE);
    }
    assert_true(!fr_vocab_adds_bos(v) || fr_vocab_bos(v) >= 0);
    assert_true(!fr_vocab_adds_eos(v) || fr_vocab_eos(v) >= 0);
    assert_true(fr_vocab_eos(v) < 0 || fr_vocab_is_eog(v, fr_vocab_eos(v)));
}

/* Whether it opened. The end of the input is a text, too: a mutation of it meets its own tokens. */
static bool try_input(const uint8_t *data, size_t size)
{
    size_t before = fr_mem_total().bytes_now, tail = size < 500 ? size : 500;
    fr_gguf *g = NULL;
    fr_vocab *v = NULL;
    fr_err err = {0};
    if (build_open(data, size, FR_GGUF_HEADERS_ONLY, &g, NULL) != FR_OK)
        return false;
    fr_mem_reset_peaks();
    fr_status st = fr_vocab_open(g, &v, &err);
    assert_true(fr_mem_total().bytes_peak - before < 1024 * 1024 + 64 * size);
    fr_gguf_close(g);
    if (st == FR_OK) {
        use_vocab(v, (const char *)data + size - tail, tail);
        fr_vocab_free(v);
    } else {
        assert_null(v);
        assert_int_equal(err.code, st);
        assert_true(st == FR_EFORMAT || st == FR_EUNSUPPORTED || st == FR_ENOTFOUND);
        assert_true(err.text[0] != 0);
    }
    assert_int_equal(fr_mem_total().bytes_now, before);
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
static char seed_names[MAX_SEEDS][64];
static size_t n_seeds;

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The corpus in the order of its names, so that a seed means the same everywhere. */
static int load_seeds(void **state)
{
    (void)state;
    DIR *d = opendir(TEST_FILE("data/tokenize/corpus"));
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        assert_true(n_seeds < MAX_SEEDS && strlen(e->d_name) < sizeof seed_names[0]);
        strcpy(seed_names[n_seeds++], e->d_name);
    }
    closedir(d);
    assert_true(n_seeds > 0);
    qsort(seed_names, n_seeds, sizeof seed_names[0], compare_names);
    for (size_t i = 0; i < n_seeds; i++) {
        char path[512];
        fr_err err;
        snprintf(path, sizeof path, TEST_FILE("data/tokenize/corpus/%s"), seed_names[i]);
        assert_ok(fr_file_slurp(path, 1 << 20, &seeds[i], &err));
    }
    return 0;
}

static int free_seeds(void **state)
{
    (void)state;
    while (n_seeds)
        fr_buf_free(&seeds[--n_seeds]);
    return 0;
}

/* ---- mutations --------------------------------------------------------------------------------
 */

static uint64_t rng;

static uint64_t below(uint64_t n)
{
    return n ? (test_rand(&rng) >> 11) % n : 0;
}

/* Bytes of the file: mostly lengths and keys, so that few of these still open. */
static void mutate_bytes(fr_buf *b)
{
    for (uint64_t n = 1 + below(3); n && b->n; n--)
        b->p[below(b->n)] ^= (char)(1 << below(8));
}

static uint32_t random_number(uint32_t old)
{
    static const uint32_t values[] = {0, 1,   2,          3,          4,          5,
                                      6, 255, 0x7FFFFFFF, 0x80000000, 0x7FC00000, 0xFFFFFFFF};
    return below(2) ? values[below(sizeof values / sizeof *values)] : old ^ 1u << below(32);
}

/* A text near the old one, another of the array, both together, a piece, nothing, or bytes. */
static void write_text(fr_buf *b, const fr_gguf_value *v, uint64_t i)
{
    fr_buf text = {0};
    fr_str s = fr_gguf_elem_str(v, i), other = fr_gguf_elem_str(v, below(v->n));
    uint64_t kind = below(6);
    if (kind == 1 || kind == 2)
        build_raw(&text, other.p, other.n);
    if (kind != 1 && kind != 4)
        build_raw(&text, s.p, kind == 3 ? below(s.n + 1) : s.n);
    if (kind == 5 && text.n)
        text.p[below(text.n)] = (char)below(256);
    build_u64(b, text.n);
    build_raw(b, text.n ? text.p : "", text.n);
    fr_buf_free(&text);
}

/* Copies a value; one element in `rarity` is changed, and an array may be cut. */
static void write_value(fr_buf *b, const fr_gguf_value *v, uint64_t rarity)
{
    uint64_t n = v->is_array && below(12) == 0 ? below(v->n + 1) : v->n;
    if (v->is_array)
        build_array(b, v->type, n);
    for (uint64_t i = 0; i < n; i++) {
        bool change = below(rarity) == 0;
        if (v->type == FR_GGUF_STR) {
            fr_str s = fr_gguf_elem_str(v, i);
            if (change) {
                write_text(b, v, i);
                continue;
            }
            build_u64(b, s.n);
            build_raw(b, s.p, s.n);
        } else if (v->type == FR_GGUF_BOOL) {
            uint8_t truth = v->bytes[i] ^ (uint8_t)change;
            build_raw(b, &truth, 1);
        } else {
            uint32_t number;
            memcpy(&number, v->bytes + 4 * i, 4); /* the corpus has no other width */
            build_u32(b, change ? random_number(number) : number);
        }
    }
}

/* The same keys with some of their elements changed: these open, and mean something else. */
static void mutate_values(fr_buf *b)
{
    fr_gguf *g;
    fr_err err;
    uint64_t rarity = 2 + below(40);
    assert_ok(build_open(b->p, b->n, FR_GGUF_HEADERS_ONLY, &g, &err));
    fr_buf_clear(b);
    build_head(b, 3, 0, fr_gguf_n_kv(g));
    for (size_t i = 0; i < fr_gguf_n_kv(g); i++) {
        const fr_gguf_kv *kv = fr_gguf_kv_at(g, i);
        bool is_name = !kv->value.is_array && kv->value.type == FR_GGUF_STR;
        build_u64(b, kv->key.n);
        build_raw(b, kv->key.p, kv->key.n);
        build_u32(b, kv->value.is_array ? FR_GGUF_ARRAY : kv->value.type);
        write_value(b, &kv->value, is_name ? 1000 : rarity);
    }
    fr_gguf_close(g);
}

/* ---- the tests --------------------------------------------------------------------------------
 */

static uint64_t start_seed = 20240918, n_runs = 1500;

static void test_corpus(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_seeds; i++) {
        bool opens = try_input((const uint8_t *)seeds[i].p, seeds[i].n);
        if (opens != (strncmp(seed_names[i], "ok-", 3) == 0))
            fail_msg("%s: %s", seed_names[i], opens ? "opens" : "does not open");
    }
}

static void test_mutations(void **state)
{
    (void)state;
    uint64_t n_open = 0;
    rng = start_seed;
    for (uint64_t run = 0; run < n_runs; run++) {
        const fr_buf *seed = &seeds[below(n_seeds)];
        fr_buf b = {0};
        build_raw(&b, seed->p, seed->n);
        if (below(4) == 0)
            mutate_bytes(&b);
        else
            mutate_values(&b);
        n_open += try_input((const uint8_t *)b.p, b.n);
        fr_buf_free(&b);
    }
    print_message("seed %llu: %llu of %llu mutations opened\n", (unsigned long long)start_seed,
                  (unsigned long long)n_open, (unsigned long long)n_runs);
    assert_true(n_runs < 100 || n_open > n_runs / 4);
}

/* Random bytes, with whole tokens of the vocabulary among them. */
static size_t random_text(const fr_vocab *v, char *out, size_t max)
{
    size_t n = 0, want = below(max);
    while (n < want) {
        fr_str s = fr_vocab_text(v, (int32_t)below((uint64_t)fr_vocab_size(v)));
        bool token = below(2) && s.n <= max - n;
        if (token)
            memcpy(out + n, s.p, s.n);
        else
            out[n] = below(2) ? (char)below(256) : " \n'aA1\xE6\xCC"[below(8)];
        n += token ? s.n : 1;
    }
    return n;
}

static void test_random_texts(void **state)
{
    (void)state;
    static const char *const names[] = {"ggml-vocab-llama-spm.gguf",
                                        "ggml-vocab-deepseek-coder.gguf",
                                        "kjv-deepseek-v3.vocab.gguf", "kjv-kimi-k2.vocab.gguf"};
    char text[600];
    rng = start_seed + 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fr_vocab *v = vocab_load(names[i]);
        for (uint64_t run = 0; run < n_runs / 4; run++) {
            size_t n = random_text(v, text, sizeof text);
            check_text(v, text, n, run & 1, run & 2);
        }
        fr_vocab_free(v);
    }
}

static void read_number(const char *text, uint64_t *out)
{
    if (text && *text)
        *out = strtoull(text, NULL, 10);
}

int main(int argc, char **argv)
{
    read_number(argc > 1 ? argv[1] : getenv("FERRY_FUZZ_SEED"), &start_seed);
    read_number(argc > 2 ? argv[2] : getenv("FERRY_FUZZ_RUNS"), &n_runs);
    start_seed += start_seed == 0;
    fr_log_set_level(FR_LOG_ERROR); /* mutations warn about ids and missing keys */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_random_texts),
    };
    return cmocka_run_group_tests(tests, load_seeds, free_seeds);
}

#endif
