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

/* ---- SentencePiece against a plain loop -------------------------------------------------------
 */

enum { MAX_PIECES = 40 };

typedef struct {
    char texts[MAX_PIECES][32]; /* with "_" for the blank's mark */
    float scores[MAX_PIECES];
    int n;
} piece_set;

static int find_piece(const piece_set *s, const char *text)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->texts[i], text) == 0)
            return i;
    return -1;
}

/* The three characters, and words of up to five of them; few scores, so that many are equal. */
static void random_pieces(uint64_t *seed, piece_set *s, bool inner_blanks)
{
    static const char chars[] = "_ab";
    *s = (piece_set){.n = 3};
    for (int i = 0; i < 3; i++)
        s->texts[i][0] = chars[i];
    while (s->n < MAX_PIECES) {
        char text[8] = "";
        int length = 2 + (int)(test_rand(seed) % 4);
        for (int i = 0; i < length; i++)
            text[i] = chars[test_rand(seed) % 3];
        bool inner = strstr(text, "a_") || strstr(text, "b_");
        if (find_piece(s, text) < 0 && (inner_blanks || !inner))
            strcpy(s->texts[s->n++], text);
    }
    for (int i = 0; i < s->n; i++)
        s->scores[i] = (float)(test_rand(seed) % 9) - 4;
}

/* The ids of a text of the three characters, as a line. */
static void encode_plainly(const piece_set *s, const char *text, char *line)
{
    static char parts[200][32];
    int n = 0;
    for (; *text; text++, n++)
        memcpy(parts[n], (char[]){*text, 0}, 2);
    for (;;) {
        char joined[64];
        int best = -1, best_id = -1;
        for (int i = 0; i + 1 < n; i++) {
            snprintf(joined, sizeof joined, "%.31s%.31s", parts[i], parts[i + 1]);
            int id = find_piece(s, joined);
            if (id >= 0 && (best < 0 || s->scores[id] > s->scores[best_id])) {
                best = i;
                best_id = id;
            }
        }
        if (best < 0)
            break;
        strcpy(parts[best], s->texts[best_id]);
        memmove(parts[best + 1], parts[best + 2], (size_t)(n - best - 2) * sizeof parts[0]);
        n--;
    }
    *line = 0;
    for (int i = 0, used = 0; i < n; i++)
        used += sprintf(line + used, "%s%d", i ? " " : "", find_piece(s, parts[i]));
}

static fr_vocab *open_pieces(const piece_set *s)
{
    static char texts[MAX_PIECES][64];
    vocab_token tokens[MAX_PIECES];
    for (int i = 0; i < s->n; i++) {
        int used = 0;
        for (const char *c = s->texts[i]; *c; c++)
            used += sprintf(texts[i] + used, "%s", *c == '_' ? "\xE2\x96\x81" : (char[]){*c, 0});
        tokens[i] = (vocab_token){texts[i], 1, s->scores[i]};
    }
    vocab_spec spec = {
        .model = "llama", .tokens = tokens, .n_tokens = (size_t)s->n, .scores = true};
    spec.more[0].key = "add_space_prefix", spec.more[0].value = VOCAB_FALSE;
    fr_vocab *v;
    fr_err err;
    assert_ok(vocab_open_spec(&spec, &v, &err));
    return v;
}

static void test_scores(void **state)
{
    (void)state;
    uint64_t seed = 13;
    for (int round = 0; round < 100; round++) {
        piece_set s;
        random_pieces(&seed, &s, round % 2);
        fr_vocab *v = open_pieces(&s);
        for (int k = 0; k < 20; k++) {
            char marked[128] = "", text[128] = "", want[1024];
            int n = 1 + (int)(test_rand(&seed) % 100);
            for (int i = 0; i < n; i++) {
                marked[i] = "_ab"[test_rand(&seed) % 3];
                text[i] = marked[i] == '_' ? ' ' : marked[i];
            }
            encode_plainly(&s, marked, want);
            assert_string_equal(vocab_ids(v, text, (size_t)n, false, false), want);
        }
        fr_vocab_free(v);
    }
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
        cmocka_unit_test(test_order),       cmocka_unit_test(test_scores),
        cmocka_unit_test(test_long_inputs), cmocka_unit_test(test_many_overlapping_specials),
        cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
