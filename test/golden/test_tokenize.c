/* Token ids and words against other implementations: every line of every pre-tokenizer is exact
 * (data/tokenize/README.md says what the files are). */
#include "token/pretok.h"
#include "vocab_testing.h"

static fr_buf slurp(const char *name)
{
    char path[512];
    fr_err err;
    fr_buf b = {0};
    snprintf(path, sizeof path, TEST_FILE("data/tokenize/%s"), name);
    assert_ok(fr_file_slurp(path, 1 << 24, &b, &err));
    return b;
}

/* The next line at *at, without its end; fails when there is none. */
static fr_str next_line(const fr_buf *b, size_t *at)
{
    assert_true(*at < b->n);
    char *end = memchr(b->p + *at, '\n', b->n - *at);
    assert_non_null(end);
    fr_str line = {b->p + *at, (size_t)(end - b->p) - *at};
    *at += line.n + 1;
    return line;
}

static void print_ids(const fr_tokens *t, fr_buf *line)
{
    fr_buf_clear(line);
    for (size_t i = 0; i < t->n; i++)
        assert_int_equal(fr_buf_printf(line, NULL, "%s%d", i ? " " : "", t->ids[i]), FR_OK);
}

/* ---- ids --------------------------------------------------------------------------------------
 */

static void check_ids(const char *vocab, const char *expected)
{
    fr_vocab *v = vocab_load(vocab);
    fr_buf inputs = slurp("inputs.bin"), ids = slurp(expected), line = {0};
    fr_tokens t = {0};
    fr_err err;
    size_t at_ids = 0, n_lines = 0;
    for (size_t at = 0; at < inputs.n; n_lines++) {
        size_t n = strlen(inputs.p + at);
        fr_str want = next_line(&ids, &at_ids);
        t.n = 0;
        assert_ok(fr_tokenize(v, inputs.p + at, n, false, false, &t, &err));
        print_ids(&t, &line);
        if (!fr_str_eq((fr_str){line.p ? line.p : "", line.n}, want))
            fail_msg("%s, string %zu: found %s, expected %.*s", vocab, n_lines, line.p,
                     FR_STR_ARG(want));
        at += n + 1;
    }
    assert_int_equal(at_ids, ids.n);
    assert_int_equal(n_lines, 300);
    fr_tokens_free(&t);
    fr_buf_free(&line);
    fr_buf_free(&ids);
    fr_buf_free(&inputs);
    fr_vocab_free(v);
}

static void test_real_vocabularies(void **state)
{
    (void)state;
    check_ids("ggml-vocab-gpt-2.gguf", "gpt-2.ids");
    check_ids("ggml-vocab-deepseek-llm.gguf", "deepseek-llm.ids");
    check_ids("ggml-vocab-deepseek-coder.gguf", "deepseek-coder.ids");
}

static void test_llama_spm(void **state)
{
    (void)state;
    check_ids("ggml-vocab-llama-spm.gguf", "llama-spm.ids");
}

static const char *const pretokenizers[] = {
    "deepseek-v3", "deepseek-llm", "deepseek-coder", "kimi-k2", "glm4",
    "qwen2",       "llama-bpe",    "gpt-4o",         "gpt-2",
};

enum { N_PRETOKENIZERS = sizeof pretokenizers / sizeof *pretokenizers };

static void test_every_pretokenizer(void **state)
{
    (void)state;
    for (int i = 0; i < N_PRETOKENIZERS; i++) {
        char vocab[64], ids[64];
        snprintf(vocab, sizeof vocab, "kjv-%s.vocab.gguf", pretokenizers[i]);
        snprintf(ids, sizeof ids, "kjv-%s.ids", pretokenizers[i]);
        check_ids(vocab, ids);
    }
}

/* ---- words ------------------------------------------------------------------------------------
 */

static void check_words(const char *name)
{
    char file[64];
    fr_err err;
    const pretok_row *row;
    pretok *p;
    pretok_words w = {0};
    snprintf(file, sizeof file, "splits-%s.txt", name);
    fr_buf inputs = slurp("splits.bin"), lengths = slurp(file), line = {0};
    assert_ok(pretok_find(fr_str_of(name), &row, &err));
    assert_ok(pretok_compile(row, &p, &err));
    size_t at_line = 0, n_lines = 0;
    for (size_t at = 0; at < inputs.n; n_lines++) {
        size_t n = strlen(inputs.p + at);
        fr_str want = next_line(&lengths, &at_line);
        assert_ok(pretok_split(p, inputs.p + at, n, &w, &err));
        fr_buf_clear(&line);
        for (size_t i = 0; i < w.n; i++)
            assert_ok(fr_buf_printf(&line, &err, "%s%u", i ? " " : "",
                                    w.ends[i] - (i ? w.ends[i - 1] : 0)));
        if (!fr_str_eq((fr_str){line.p, line.n}, want))
            fail_msg("%s, string %zu: found %s, expected %.*s", name, n_lines, line.p,
                     FR_STR_ARG(want));
        at += n + 1;
    }
    assert_int_equal(at_line, lengths.n);
    assert_true(n_lines > 500);
    pretok_words_free(&w);
    pretok_free(p);
    fr_buf_free(&line);
    fr_buf_free(&lengths);
    fr_buf_free(&inputs);
}

static void test_words(void **state)
{
    (void)state;
    for (int i = 0; i < N_PRETOKENIZERS; i++)
        check_words(pretokenizers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_vocabularies),
        cmocka_unit_test(test_llama_spm),
        cmocka_unit_test(test_every_pretokenizer),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
