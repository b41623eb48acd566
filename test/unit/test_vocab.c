/* Opening vocabularies, special tokens, bytes back from tokens, streaming, and no memory. */
#include "vocab_testing.h"

#define N(a) (sizeof(a) / sizeof *(a))

#define SPM_BLANK "\xE2\x96\x81"

/* ---- what is read -----------------------------------------------------------------------------
 */

static void test_gpt2(void **state)
{
    (void)state;
    fr_vocab *v = vocab_load("ggml-vocab-gpt-2.gguf");
    assert_int_equal(fr_vocab_size(v), 50257);
    assert_int_equal(fr_vocab_bos(v), 50256);
    assert_int_equal(fr_vocab_eos(v), 50256);
    assert_false(fr_vocab_adds_bos(v));
    assert_false(fr_vocab_adds_eos(v));
    assert_true(fr_vocab_is_eog(v, 50256));
    assert_false(fr_vocab_is_eog(v, 0));
    assert_int_equal(fr_vocab_kind(v, 50256), FR_TOKEN_CONTROL);
    assert_int_equal(fr_vocab_kind(v, 1), FR_TOKEN_NORMAL);
    assert_true(fr_str_is(fr_vocab_text(v, 262), "\xC4\xA0the"));
    assert_int_equal(fr_vocab_find(v, FR_STR("\xC4\xA0the")), 262);
    assert_int_equal(fr_vocab_find(v, FR_STR("\xC4\xA0thequick")), -1);
    assert_int_equal(fr_vocab_find(v, FR_STR("")), -1);
    for (int id = -1; id < 60000; id += 50258) {
        assert_int_equal(fr_vocab_kind(v, id), FR_TOKEN_UNUSED);
        assert_int_equal(fr_vocab_text(v, id).n, 0);
        assert_false(fr_vocab_is_eog(v, id));
    }
    fr_vocab_free(v);
    fr_vocab_free(NULL);
}

static void test_llama(void **state)
{
    (void)state;
    fr_vocab *v = vocab_load("ggml-vocab-llama-spm.gguf");
    assert_int_equal(fr_vocab_bos(v), 1);
    assert_int_equal(fr_vocab_eos(v), 2);
    assert_true(fr_vocab_adds_bos(v));
    assert_int_equal(fr_vocab_kind(v, 0), FR_TOKEN_UNKNOWN);
    assert_int_equal(fr_vocab_kind(v, 3), FR_TOKEN_BYTE);
    assert_string_equal(vocab_ids(v, "", 0, false, false), "");
    assert_string_equal(vocab_ids(v, "", 0, true, false), "1");
    assert_string_equal(vocab_ids(v, "Hello", 5, true, false), "1 15043");
    assert_string_equal(vocab_ids(v, "Hello</s>Hello", 14, false, true), "15043 2 15043");
    fr_vocab_free(v);
}

static const vocab_token spm_tokens[] = {
    {"<unk>", 2, 0},
    {"<s>", 3, 0},
    {"</s>", 3, 0},
    {"<0x61>", 6, 0},
    {"<0x0A>", 6, 0},
    {SPM_BLANK, 1, -1},
    {"b", 1, -2},
    {"c", 1, -3},
    {"bc", 1, -9},
    {SPM_BLANK "b", 1, -5},
    {"<x>", 4, 0},
    {"", 1, 0},
    {SPM_BLANK SPM_BLANK, 1, -20},
};

static const vocab_spec spm_spec = {.model = "llama",
                                    .tokens = spm_tokens,
                                    .n_tokens = N(spm_tokens),
                                    .kinds = true,
                                    .scores = true};

static void test_spm_defaults(void **state)
{
    (void)state;
    vocab_spec s = spm_spec;
    fr_vocab *v;
    fr_err err;
    assert_ok(vocab_open_spec(&s, &v, &err));
    assert_int_equal(fr_vocab_bos(v), 1);
    assert_int_equal(fr_vocab_eos(v), 2);
    assert_true(fr_vocab_adds_bos(v) && !fr_vocab_adds_eos(v));
    assert_string_equal(vocab_ids(v, "bc", 2, true, false), "1 9 7");      /* _b beats bc */
    assert_string_equal(vocab_ids(v, "a\nd", 3, false, false), "5 3 4 0"); /* bytes, then unknown */
    assert_string_equal(vocab_ids(v, "  ", 2, false, false), "12 5");
    assert_string_equal(vocab_ids(v, "b<x>bc<s>", 9, false, false), "9 10 9 7 0 0 0");
    assert_string_equal(vocab_ids(v, "<s>b", 4, false, true), "1 9");
    fr_vocab_free(v);
    s.more[0].key = "add_space_prefix", s.more[0].value = VOCAB_FALSE;
    s.more[1].key = "add_bos_token", s.more[1].value = VOCAB_FALSE;
    s.more[2].key = "add_eos_token", s.more[2].value = VOCAB_TRUE;
    s.more[3].key = "unknown_token_id", s.more[3].value = 7;
    s.more[4].key = "bos_token_id", s.more[4].value = 99; /* out of range: the default stays */
    assert_ok(vocab_open_spec(&s, &v, &err));
    assert_int_equal(fr_vocab_bos(v), 1);
    assert_string_equal(vocab_ids(v, "bcd", 3, true, false), "8 7 2");
    fr_vocab_free(v);
}

static const vocab_token bpe_tokens[] = {
    {"a", 1, 0},   {"b", 1, 0},   {"c", 1, 0},        {"\xC4\xA0", 1, 0},       {"ab", 1, 0},
    {"bc", 1, 0},  {"aa", 1, 0},  {"abc", 1, 0},      {"<|im_end|>", 1, 0},     {"<u>", 4, 0},
    {"<c>", 3, 0}, {"cab", 1, 0}, {"<|user|>", 3, 0}, {"<|fim_prefix|>", 4, 0}, {"ca", 1, 0},
};
static const char *const bpe_merges[] = {"b c", "a a", "a b", "ab c", "c b", "c b", "c a", NULL};

static const vocab_spec bpe_spec = {.model = "gpt2",
                                    .pre = "gpt-2",
                                    .tokens = bpe_tokens,
                                    .n_tokens = N(bpe_tokens),
                                    .kinds = true,
                                    .merges = bpe_merges};

static void test_bpe_rules(void **state)
{
    (void)state;
    fr_vocab *v;
    fr_err err;
    vocab_spec s = bpe_spec;
    assert_ok(vocab_open_spec(&s, &v, &err));
    assert_int_equal(fr_vocab_bos(v), -1);
    assert_int_equal(fr_vocab_eos(v), -1);
    assert_false(fr_vocab_adds_bos(v));
    assert_string_equal(vocab_ids(v, "abc", 3, true, false), "0 5");  /* b c goes first */
    assert_string_equal(vocab_ids(v, "aaa", 3, false, false), "6 0"); /* leftmost */
    assert_string_equal(vocab_ids(v, "cb", 2, false, false), "2 1");  /* cb is no token */
    assert_string_equal(vocab_ids(v, "a?b", 3, false, false), "0 1"); /* "?" has none */
    assert_string_equal(vocab_ids(v, "cab", 3, false, false), "2 4");
    fr_vocab_free(v);
    s.pre = "llama-bpe"; /* whole words are taken as they are; BOS is the default */
    s.more[0].key = "bos_token_id", s.more[0].value = 10;
    assert_ok(vocab_open_spec(&s, &v, &err));
    assert_true(fr_vocab_adds_bos(v));
    assert_string_equal(vocab_ids(v, "abc", 3, true, false), "10 7");
    assert_string_equal(vocab_ids(v, "cab cab", 7, false, false), "11 3 2 4");
    fr_vocab_free(v);
}

static void test_end_tokens(void **state)
{
    (void)state;
    fr_vocab *v;
    fr_err err;
    vocab_spec s = bpe_spec;
    s.more[0].key = "eos_token_id", s.more[0].value = 10;
    s.more[1].key = "eot_token_id", s.more[1].value = 4;
    s.more[2].key = "eom_token_id", s.more[2].value = 5;
    assert_ok(vocab_open_spec(&s, &v, &err));
    for (int id = 0; id < fr_vocab_size(v); id++)
        assert_int_equal(fr_vocab_is_eog(v, id), id == 10 || id == 4 || id == 5 || id == 8);
    assert_int_equal(fr_vocab_kind(v, 8), FR_TOKEN_CONTROL);
    assert_int_equal(fr_vocab_kind(v, 13), FR_TOKEN_CONTROL);
    fr_vocab_free(v);
    s.pre = "glm4";
    assert_ok(vocab_open_spec(&s, &v, &err));
    assert_true(fr_vocab_is_eog(v, 12)); /* the next turn begins */
    fr_vocab_free(v);
}

/* ---- what is refused --------------------------------------------------------------------------
 */

static void expect_refusal(const vocab_spec *s, fr_status want, const char *part)
{
    fr_err err;
    fr_vocab *v;
    size_t before = fr_mem_total().bytes_now;
    assert_int_equal(vocab_open_spec(s, &v, &err), want);
    if (!strstr(err.text, part))
        fail_msg("found \"%s\", expected \"%s\" in it", err.text, part);
    assert_int_equal(fr_mem_total().bytes_now, before);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const no_blank[] = {"ab", NULL}, *const no_left[] = {" b", NULL},
                             *const no_right[] = {"b ", NULL};
    vocab_spec s = bpe_spec;
    s.model = NULL;
    expect_refusal(&s, FR_ENOTFOUND, "tokenizer.ggml.model");
    s.model = "bert";
    expect_refusal(&s, FR_EUNSUPPORTED, "found \"bert\", expected gpt2 or llama");
    s = bpe_spec;
    s.pre = "word2vec";
    expect_refusal(&s, FR_EUNSUPPORTED, "found \"word2vec\"");
    expect_refusal(&s, FR_EUNSUPPORTED, "kimi-k2");
    s = bpe_spec;
    s.merges = NULL;
    expect_refusal(&s, FR_ENOTFOUND, "tokenizer.ggml.merges");
    s.merges = no_blank;
    expect_refusal(&s, FR_EFORMAT, "found \"ab\" at 0");
    s.merges = no_left;
    expect_refusal(&s, FR_EFORMAT, "merges");
    s.merges = no_right;
    expect_refusal(&s, FR_EFORMAT, "merges");
    s = bpe_spec;
    s.tokens = NULL;
    expect_refusal(&s, FR_ENOTFOUND, "tokenizer.ggml.token");
    s = bpe_spec;
    s.n_tokens = 0;
    expect_refusal(&s, FR_EFORMAT, "tokenizer.ggml.tokens: found 0");
    s = bpe_spec;
    s.more[0].key = "scores", s.more[0].value = 1; /* not an array, and not wanted here */
    fr_vocab *v;
    fr_err err;
    assert_ok(vocab_open_spec(&s, &v, &err));
    fr_vocab_free(v);
    s = spm_spec;
    s.scores = false;
    s.more[0].key = "scores", s.more[0].value = 1;
    expect_refusal(&s, FR_EFORMAT, "tokenizer.ggml.scores");
}

/* ---- special tokens ---------------------------------------------------------------------------
 */

static void test_special_tokens(void **state)
{
    (void)state;
    fr_vocab *v;
    fr_err err;
    assert_ok(vocab_open_spec(&bpe_spec, &v, &err));
    assert_string_equal(vocab_ids(v, "a<u>b<c>", 8, false, false), "0 9 1 2");
    assert_string_equal(vocab_ids(v, "a<u>b<c>", 8, false, true), "0 9 1 10");
    assert_string_equal(vocab_ids(v, "<c><c>a<|im_end|>", 17, false, true), "10 10 0 8");
    assert_string_equal(vocab_ids(v, "<c", 2, false, true), "2");
    fr_vocab_free(v);
}

/* Every special token, longest first, takes its places in what is still text. */
static void naive_specials(char texts[][8], int n_texts, const char *text, int n, int *out)
{
    for (int i = 0; i < n; i++)
        out[i] = -1;
    for (int length = 7; length > 0; length--)
        for (int at = 0; at + length <= n; at++)
            for (int t = 0; t < n_texts; t++) {
                bool fits = (int)strlen(texts[t]) == length &&
                            memcmp(texts[t], text + at, (size_t)length) == 0;
                for (int i = at; fits && i < at + length; i++)
                    fits = out[i] < 0;
                for (int i = at; fits && i < at + length; i++)
                    out[i] = i == at ? t : 1000;
            }
}

enum { MAX_SPECIALS = 12 };

/* Up to MAX_SPECIALS different words of x and y. */
static int random_specials(uint64_t *seed, char texts[][8], int shortest)
{
    int n = 0;
    for (int t = 0; t < MAX_SPECIALS; t++) {
        int length = shortest + (int)(test_rand(seed) % (uint64_t)(8 - shortest)), i;
        for (i = 0; i < length; i++)
            texts[n][i] = test_rand(seed) % 4 ? 'x' : 'y';
        texts[n][i] = 0;
        for (i = 0; i < n && strcmp(texts[i], texts[n]) != 0; i++)
            ;
        n += i == n;
    }
    return n;
}

static void test_overlapping_specials(void **state)
{
    (void)state;
    static const char *const no_merges[] = {NULL};
    uint64_t seed = 7;
    for (int round = 0; round < 400; round++) {
        char texts[MAX_SPECIALS][8], text[64], want[512] = "";
        vocab_token tokens[MAX_SPECIALS];
        int n = 1 + (int)(test_rand(&seed) % 60), places[64];
        int n_texts = random_specials(&seed, texts, 1 + round % 3);
        for (int i = 0; i < n_texts; i++)
            tokens[i] = (vocab_token){texts[i], FR_TOKEN_USER_DEFINED, 0};
        for (int i = 0; i < n; i++)
            text[i] = test_rand(&seed) % 4 ? 'x' : test_rand(&seed) % 8 ? 'y' : 'z';
        naive_specials(texts, n_texts, text, n, places);
        for (int i = 0, used = 0; i < n; i++)
            if (places[i] >= 0 && places[i] < n_texts)
                used += sprintf(want + used, "%s%d", used ? " " : "", places[i]);
        vocab_spec s = {.model = "gpt2", .pre = "gpt-2", .tokens = tokens, .kinds = true};
        s.n_tokens = (size_t)n_texts;
        s.merges = no_merges;
        fr_vocab *v;
        fr_err err;
        assert_ok(vocab_open_spec(&s, &v, &err));
        assert_string_equal(vocab_ids(v, text, (size_t)n, false, false), want);
        fr_vocab_free(v);
    }
}

/* ---- bytes ------------------------------------------------------------------------------------
 */

static void decode(const fr_vocab *v, const fr_tokens *t, fr_buf *out)
{
    fr_err err;
    for (size_t i = 0; i < t->n; i++)
        assert_ok(fr_token_bytes(v, t->ids[i], true, out, &err));
}

static void check_round_trip(const fr_vocab *v, const char *text, size_t n, bool skip_blank)
{
    fr_tokens t = {0};
    fr_buf b = {0};
    fr_err err;
    assert_ok(fr_tokenize(v, text, n, false, false, &t, &err));
    decode(v, &t, &b);
    size_t from = skip_blank && n > 0;
    assert_int_equal(b.n - from, n);
    if (n)
        assert_memory_equal(b.p + from, text, n);
    fr_buf_free(&b);
    fr_tokens_free(&t);
}

/* Bytes of all kinds: random, mostly text, cut characters, NULs. */
static size_t random_bytes(uint64_t *seed, char *out, size_t max)
{
    static const char *const parts[] = {"the ",     " LORD",    "\xE6\xBC\xA2", "\xF0\x9F\xA6\x99",
                                        "\xE6\xBC", "12345",    "\r\n",         "   ",
                                        "'s",       "\xF0\x9F", "\xC3\xA9",     "!?"};
    size_t n = 0, want = test_rand(seed) % max;
    bool noise = test_rand(seed) % 2;
    while (n < want) {
        if (noise || test_rand(seed) % 8 == 0) {
            out[n++] = (char)test_rand(seed);
        } else {
            const char *part = parts[test_rand(seed) % N(parts)];
            for (; *part && n < want; part++)
                out[n++] = *part;
        }
    }
    return n;
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char *const names[] = {
        "ggml-vocab-gpt-2.gguf",     "kjv-deepseek-v3.vocab.gguf",    "kjv-deepseek-llm.vocab.gguf",
        "kjv-kimi-k2.vocab.gguf",    "kjv-deepseek-coder.vocab.gguf", "kjv-glm4.vocab.gguf",
        "kjv-qwen2.vocab.gguf",      "kjv-llama-bpe.vocab.gguf",      "kjv-gpt-4o.vocab.gguf",
        "ggml-vocab-llama-spm.gguf",
    };
    uint64_t seed = 11;
    char text[400], all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    for (size_t i = 0; i < N(names); i++) {
        fr_vocab *v = vocab_load(names[i]);
        bool is_spm = strstr(names[i], "spm") != NULL;
        check_round_trip(v, all, 256, is_spm);
        check_round_trip(v, "\0", 1, is_spm);
        check_round_trip(v, "a\0b\0\0c", 6, is_spm);
        for (int j = 0; j < 300; j++)
            check_round_trip(v, text, random_bytes(&seed, text, sizeof text), is_spm);
        fr_vocab_free(v);
    }
}

/* These vocabularies have no tokens for the 13 bytes that UTF-8 never uses: U+FFFD stands in. */
static void test_bytes_without_tokens(void **state)
{
    (void)state;
    static const char *const names[] = {"ggml-vocab-deepseek-llm.gguf",
                                        "ggml-vocab-deepseek-coder.gguf"};
    static const unsigned char missing[] = {0xC0, 0xC1, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9,
                                            0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF};
    for (size_t i = 0; i < N(names); i++) {
        fr_vocab *v = vocab_load(names[i]);
        fr_buf b = {0};
        for (int byte = 0; byte < 256; byte++) {
            fr_tokens t = {0};
            fr_err err;
            char text[3] = {'a', (char)byte, 'b'};
            assert_ok(fr_tokenize(v, text, 3, false, false, &t, &err));
            fr_buf_clear(&b);
            decode(v, &t, &b);
            if (memchr(missing, byte, sizeof missing))
                assert_string_equal(b.p, "a\xEF\xBF\xBD"
                                         "b");
            else
                assert_memory_equal(b.p, text, 3);
            fr_tokens_free(&t);
        }
        check_round_trip(v, "\xC3\xB5 \xC3\x80 \xC3\xBF", 8, false); /* the characters are tokens */
        fr_buf_free(&b);
        fr_vocab_free(v);
    }
}

static void test_hidden_tokens(void **state)
{
    (void)state;
    fr_vocab *v;
    fr_err err;
    fr_buf b = {0};
    assert_ok(vocab_open_spec(&spm_spec, &v, &err));
    for (int id = 0; id <= 2; id++) {
        assert_ok(fr_token_bytes(v, id, false, &b, &err));
        assert_int_equal(b.n, 0);
    }
    assert_ok(fr_token_bytes(v, 1, true, &b, &err));
    assert_ok(fr_token_bytes(v, 3, false, &b, &err));
    assert_ok(fr_token_bytes(v, 9, false, &b, &err));
    assert_ok(fr_token_bytes(v, 10, false, &b, &err));
    assert_string_equal(b.p, "<s>a b<x>");
    assert_int_equal(fr_token_bytes(v, -1, true, &b, &err), FR_ERANGE);
    assert_int_equal(fr_token_bytes(v, 13, true, &b, &err), FR_ERANGE);
    assert_non_null(strstr(err.text, "found id 13, expected one below 13"));
    assert_int_equal(b.n, 9);
    fr_buf_free(&b);
    fr_vocab_free(v);
}

/* ---- streaming --------------------------------------------------------------------------------
 */

/* Whether text ends inside a character that further bytes could complete. */
static bool ends_inside(const fr_buf *b)
{
    return b->n > 0 && fr_utf8_incomplete_tail(b->p, b->n) > 0;
}

static void test_streaming(void **state)
{
    (void)state;
    static const char *const names[] = {"kjv-deepseek-v3.vocab.gguf", "ggml-vocab-llama-spm.gguf"};
    uint64_t seed = 3;
    char text[200];
    for (size_t i = 0; i < N(names); i++) {
        fr_vocab *v = vocab_load(names[i]);
        for (int j = 0; j < 400; j++) {
            size_t n = random_bytes(&seed, text, sizeof text);
            fr_tokens t = {0};
            fr_buf b = {0};
            fr_detok d = {0};
            fr_err err;
            assert_ok(fr_tokenize(v, text, n, false, false, &t, &err));
            for (size_t k = 0; k < t.n; k++) {
                assert_ok(fr_detok_push(v, &d, t.ids[k], false, &b, &err));
                assert_true(d.n_held < 4);
                assert_true(d.n_held > 0 || !ends_inside(&b)); /* held: the end cannot go on */
            }
            assert_ok(fr_detok_flush(&d, &b, &err));
            assert_int_equal(d.n_held, 0);
            assert_int_equal(b.n, n);
            if (n)
                assert_memory_equal(b.p, text, n);
            fr_buf_free(&b);
            fr_tokens_free(&t);
        }
        fr_vocab_free(v);
    }
}

static void push_bytes(const fr_vocab *v, fr_detok *d, const char *bytes, const char *want)
{
    fr_buf b = {0};
    fr_err err;
    for (; *bytes; bytes++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned char)*bytes);
        int32_t id = fr_vocab_find(v, fr_str_of(name));
        assert_true(id >= 0);
        assert_ok(fr_detok_push(v, d, id, false, &b, &err));
    }
    assert_string_equal(b.p, want);
    fr_buf_free(&b);
}

static void test_split_characters(void **state)
{
    (void)state;
    fr_vocab *v = vocab_load("ggml-vocab-llama-spm.gguf");
    fr_detok d = {0};
    fr_err err;
    fr_buf b = {0};
    push_bytes(v, &d, "\xE6", "");
    push_bytes(v, &d, "\xBC", "");
    push_bytes(v, &d, "\xA2", "\xE6\xBC\xA2");
    push_bytes(v, &d, "\xF0\x9F\xA6", "");
    push_bytes(v, &d, "a",
               "\xF0\x9F\xA6"
               "a"); /* cannot be completed any more */
    push_bytes(v, &d, "\xFF", "\xFF");
    push_bytes(v, &d, "\xE6\xC3", "\xE6"); /* one gives way to the next */
    push_bytes(v, &d, "\xA9", "\xC3\xA9");
    push_bytes(v, &d, "\xED\xA0", "\xED\xA0"); /* a surrogate: never valid */
    push_bytes(v, &d, "\xF0\x9F", "");
    assert_ok(fr_detok_flush(&d, &b, &err));
    assert_string_equal(b.p, "\xF0\x9F");
    assert_ok(fr_detok_flush(&d, &b, &err));
    assert_int_equal(b.n, 2);
    fr_buf_free(&b);
    fr_vocab_free(v);
}

static void test_first_blank(void **state)
{
    (void)state;
    fr_vocab *v;
    fr_err err;
    fr_buf b = {0};
    fr_detok d = {0};
    assert_ok(vocab_open_spec(&spm_spec, &v, &err));
    assert_ok(fr_detok_push(v, &d, 1, false, &b, &err)); /* BOS gives nothing and is not first */
    assert_ok(fr_detok_push(v, &d, 9, false, &b, &err));
    assert_ok(fr_detok_push(v, &d, 9, false, &b, &err));
    assert_string_equal(b.p, "b b");
    fr_buf_clear(&b);
    d = (fr_detok){.past_first = true}; /* goes on after a prompt */
    assert_ok(fr_detok_push(v, &d, 9, false, &b, &err));
    assert_string_equal(b.p, " b");
    assert_int_equal(fr_detok_push(v, &d, 99, false, &b, &err), FR_ERANGE);
    assert_string_equal(b.p, " b");
    fr_buf_free(&b);
    fr_vocab_free(v);
}

/* ---- no memory --------------------------------------------------------------------------------
 */

static fr_status open_and_use(const fr_gguf *g, fr_err *err)
{
    static const char text[] =
        "abc <u> cab\xFF aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa<c> \xE6";
    fr_vocab *v = NULL;
    fr_tokens t = {0};
    fr_buf b = {0};
    fr_detok d = {0};
    fr_status st = fr_vocab_open(g, &v, err);
    if (st == FR_OK && (st = fr_tokenize(v, text, sizeof text - 1, true, true, &t, err)) != FR_OK)
        assert_int_equal(t.n, 0);
    for (size_t i = 0; i < t.n && st == FR_OK; i++) {
        size_t before = b.n, held = d.n_held;
        st = fr_detok_push(v, &d, t.ids[i], true, &b, err);
        if (st != FR_OK)
            assert_true(b.n == before && d.n_held == held);
    }
    if (st == FR_OK)
        st = fr_detok_flush(&d, &b, err);
    fr_buf_free(&b);
    fr_tokens_free(&t);
    fr_vocab_free(v);
    return st;
}

/* Fails each allocation in turn. The JIT compiler of PCRE2 may do without its memory, so a run may
 * also succeed. */
static void walk_failures(const vocab_spec *s)
{
    fr_buf b = {0};
    fr_gguf *g;
    fr_err err;
    vocab_build(&b, s);
    assert_ok(build_open(b.p, b.n, FR_GGUF_HEADERS_ONLY, &g, &err));
    uint64_t allocs = fr_mem_total().n_allocs;
    assert_ok(open_and_use(g, &err));
    allocs = fr_mem_total().n_allocs - allocs;
    assert_true(allocs > 15);
    size_t before = fr_mem_total().bytes_now, n_failed = 0;
    for (int sticky = 0; sticky < 2; sticky++)
        for (uint64_t n = 1; n <= allocs; n++) {
            fr_mem_fail_at(n, sticky);
            fr_status st = open_and_use(g, &err);
            fr_mem_fail_at(0, 0);
            assert_true(st == FR_OK || st == FR_ENOMEM);
            assert_int_equal(fr_mem_total().bytes_now, before);
            n_failed += st == FR_ENOMEM;
        }
    assert_true(n_failed > allocs);
    fr_gguf_close(g);
    fr_buf_free(&b);
}

static void test_no_memory(void **state)
{
    (void)state;
    vocab_spec s = bpe_spec;
    walk_failures(&s);
    s.pre = "llama-bpe";
    walk_failures(&s);
    s.pre = "deepseek-llm";
    walk_failures(&s);
    s = spm_spec;
    walk_failures(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_spm_defaults),
        cmocka_unit_test(test_bpe_rules),
        cmocka_unit_test(test_end_tokens),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_overlapping_specials),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bytes_without_tokens),
        cmocka_unit_test(test_hidden_tokens),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_split_characters),
        cmocka_unit_test(test_first_blank),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
