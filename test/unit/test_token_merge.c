/* Merging: the order of merges against a plain loop, and the time of long inputs (the bound is the
 * timeout of the test: quadratic time would take hours). */
#include "token/merge.h"
#include "vocab_testing.h"

#define N(a) (sizeof(a) / sizeof *(a))

/* ---- the engine against a plain loop ----------------------------------------------------------
 */

enum { N_SYMBOLS = 24 };

typedef struct {
    uint32_t rank[N_SYMBOLS][N_SYMBOLS], merged[N_SYMBOLS][N_SYMBOLS];
} rule_set;

static int look_up(const void *user, const merge_node *l, const merge_node *r, uint32_t *rank,
                   uint32_t *merged)
{
    const rule_set *rules = user;
    *rank = rules->rank[l->sym][r->sym];
    *merged = rules->merged[l->sym][r->sym];
    return *rank != MERGE_NONE;
}

static size_t merge_plainly(const rule_set *rules, uint32_t *syms, size_t n)
{
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++) {
            uint32_t rank = rules->rank[syms[i]][syms[i + 1]];
            if (rank != MERGE_NONE && (best == n || rank < rules->rank[syms[best]][syms[best + 1]]))
                best = i;
        }
        if (best == n)
            return n;
        syms[best] = rules->merged[syms[best]][syms[best + 1]];
        memmove(syms + best + 1, syms + best + 2, (n - best - 2) * sizeof *syms);
        n--;
    }
}

/* Many pairs share a rank when n_ranks is small. */
static void random_rules(uint64_t *seed, rule_set *rules, uint32_t n_ranks)
{
    for (int l = 0; l < N_SYMBOLS; l++)
        for (int r = 0; r < N_SYMBOLS; r++) {
            bool merges = test_rand(seed) % 3 == 0;
            rules->rank[l][r] = merges ? (uint32_t)(test_rand(seed) % n_ranks) : MERGE_NONE;
            rules->merged[l][r] = (uint32_t)(test_rand(seed) % N_SYMBOLS);
        }
}

static void test_order(void **state)
{
    (void)state;
    uint64_t seed = 5;
    merge_work w = {0};
    fr_err err;
    for (int round = 0; round < 3000; round++) {
        rule_set rules;
        uint32_t syms[200];
        size_t n = 1 + test_rand(&seed) % (round % 4 ? 40 : 200);
        random_rules(&seed, &rules, round % 2 ? 7 : 100000);
        merge_clear(&w);
        for (size_t i = 0; i < n; i++) {
            syms[i] = (uint32_t)(test_rand(&seed) % 6);
            assert_ok(merge_push(&w, syms[i], (uint32_t)i, 1, &err));
        }
        assert_ok(merge_run(&w, look_up, &rules, &err));
        size_t n_want = merge_plainly(&rules, syms, n), at = 0, i_want = 0;
        for (uint32_t i = 0; i != MERGE_NONE; i = w.nodes[i].next) {
            assert_true(i_want < n_want);
            assert_int_equal(w.nodes[i].sym, syms[i_want++]);
            assert_int_equal(w.nodes[i].at, at);
            at += w.nodes[i].n;
        }
        assert_int_equal(i_want, n_want);
        assert_int_equal(at, n);
    }
    merge_free(&w);
}

/* ---- long inputs ------------------------------------------------------------------------------
 */

typedef struct {
    const char *name, *part, *end; /* the part again and again, then the end */
} long_input;

static const long_input long_inputs[] = {
    {"one letter", "a", ""},
    {"one capital", "A", ""},
    {"blanks", " ", ""},
    {"blanks before a letter", " ", "x"},
    {"blanks before Han", " ", "\xE6\xBC\xA2"},
    {"newlines", "\n", ""},
    {"newlines and blanks", " \n", "x"},
    {"tabs and blanks", "\t ", "x"},
    {"wide blanks", " \xE3\x80\x80", "x"},
    {"digits", "7", ""},
    {"apostrophes", "'", ""},
    {"contractions", "'s", ""},
    {"Han", "\xE6\xBC\xA2", ""},
    {"marks", "\xCC\x81", ""},
    {"letters with marks", "e\xCC\x81", ""},
    {"punctuation", "!", ""},
    {"punctuation and newlines", "!\n", ""},
    {"tildes", "~", ""},
    {"not UTF-8", "\xFF", ""},
    {"cut characters", "\xE6\xBC", ""},
    {"capitals and small letters", "Aa", ""},
    {"words", " the LORD said unto", ""},
};

/* `bytes` or a little less, the end included. */
static void fill(const long_input *in, size_t bytes, fr_buf *b)
{
    fr_buf_clear(b);
    while (b->n + strlen(in->part) + strlen(in->end) <= bytes)
        assert_int_equal(fr_buf_puts(b, in->part, NULL), FR_OK);
    assert_int_equal(fr_buf_puts(b, in->end, NULL), FR_OK);
}

/* Whether the model has a token for every byte: the real DeepSeek ones leave out what UTF-8 never
 * uses. */
static bool is_exact(const char *vocab)
{
    return !strstr(vocab, "ggml-vocab-deepseek");
}

static void check_long(const char *vocab)
{
    fr_vocab *v = vocab_load(vocab);
    fr_buf text = {0}, back = {0};
    fr_err err;
    for (size_t i = 0; i < N(long_inputs); i++) {
        fr_tokens t = {0};
        fr_detok d = {0};
        fill(&long_inputs[i], i == 0 ? 1 << 20 : 1 << 18, &text);
        fr_buf_clear(&back);
        assert_ok(fr_tokenize(v, text.p, text.n, false, true, &t, &err));
        for (size_t k = 0; k < t.n; k++)
            assert_ok(fr_detok_push(v, &d, t.ids[k], false, &back, &err));
        assert_ok(fr_detok_flush(&d, &back, &err));
        if (is_exact(vocab) && (back.n != text.n || memcmp(back.p, text.p, text.n) != 0))
            fail_msg("%s: %s did not come back", vocab, long_inputs[i].name);
        fr_tokens_free(&t);
    }
    fr_buf_free(&text);
    fr_buf_free(&back);
    fr_vocab_free(v);
}

static void test_long_inputs(void **state)
{
    (void)state;
    static const char *const names[] = {
        "ggml-vocab-llama-spm.gguf",     "ggml-vocab-deepseek-llm.gguf",
        "kjv-deepseek-coder.vocab.gguf", "kjv-deepseek-v3.vocab.gguf",
        "kjv-kimi-k2.vocab.gguf",        "kjv-gpt-4o.vocab.gguf",
        "kjv-llama-bpe.vocab.gguf",      "kjv-gpt-2.vocab.gguf",
    };
    for (size_t i = 0; i < N(names); i++)
        check_long(names[i]);
}

/* Runs of blanks as tokens, 2 to 31 long: every place of a run of blanks begins with 30 of them. */
static void test_many_overlapping_specials(void **state)
{
    (void)state;
    static const char *const no_merges[] = {NULL};
    static char texts[30][32];
    vocab_token tokens[30];
    for (int i = 0; i < 30; i++) {
        memset(texts[i], ' ', (size_t)i + 2);
        tokens[i] = (vocab_token){texts[i], FR_TOKEN_USER_DEFINED, 0};
    }
    vocab_spec s = {
        .model = "gpt2", .pre = "gpt-2", .tokens = tokens, .n_tokens = 30, .kinds = true};
    s.merges = no_merges;
    fr_vocab *v;
    fr_err err;
    fr_buf text = {0};
    fr_tokens t = {0};
    fill(&long_inputs[2], 31 * 30000 + 6, &text);
    assert_ok(vocab_open_spec(&s, &v, &err));
    assert_ok(fr_tokenize(v, text.p, text.n, false, false, &t, &err));
    assert_int_equal(t.n, 30001);
    for (int i = 0; i < 30000; i++)
        assert_int_equal(t.ids[i], 29);
    assert_int_equal(t.ids[30000], 4);
    fr_tokens_free(&t);
    fr_buf_free(&text);
    fr_vocab_free(v);
}

static void test_too_long(void **state)
{
    (void)state;
    static const char *const names[] = {"ggml-vocab-llama-spm.gguf", "kjv-gpt-2.vocab.gguf"};
    for (int i = 0; i < 2; i++) {
        fr_vocab *v = vocab_load(names[i]);
        fr_tokens t = {0};
        fr_err err;
        static const char one = 'x'; /* the length is refused before any byte is read */
        assert_int_equal(fr_tokenize(v, &one, (size_t)INT32_MAX / 3 + 1, true, false, &t, &err),
                         FR_ERANGE);
        assert_int_equal(t.n, 0);
        fr_tokens_free(&t);
        fr_vocab_free(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_long_inputs),
        cmocka_unit_test(test_many_overlapping_specials),
        cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
