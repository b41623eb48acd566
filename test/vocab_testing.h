/* Vocabularies for tests: from files of the test tree, and small ones built in memory. */
#ifndef FR_TEST_VOCAB_TESTING_H
#define FR_TEST_VOCAB_TESTING_H

#include "gguf_build.h"
#include "token/vocab.h"

/* The vocabulary of data/tokenize/NAME. */
static inline fr_vocab *vocab_load(const char *name)
{
    char path[512];
    fr_err err;
    fr_gguf *g;
    fr_vocab *v;
    snprintf(path, sizeof path, TEST_FILE("data/tokenize/%s"), name);
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_vocab_open(g, &v, &err));
    fr_gguf_close(g);
    return v;
}

typedef struct {
    const char *text;
    int kind;
    float score;
} vocab_token;

/* What becomes metadata; what is NULL, 0 or absent is left out. */
typedef struct {
    const char *model, *pre;
    const vocab_token *tokens;
    size_t n_tokens;
    bool kinds, scores;
    const char *const *merges; /* NULL-terminated */
    struct {
        const char *key; /* after "tokenizer.ggml." */
        int value;       /* ids; -1 and -2 are the bools false and true */
    } more[6];           /* ended by a NULL key */
} vocab_spec;

enum { VOCAB_FALSE = -1, VOCAB_TRUE = -2 };

static inline void vocab_key(fr_buf *b, const char *key, uint32_t type)
{
    char full[128];
    snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
    build_key(b, full, type);
}

static inline void vocab_add_tokens(fr_buf *b, const vocab_spec *s)
{
    vocab_key(b, "tokens", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_STR, s->n_tokens);
    for (size_t i = 0; i < s->n_tokens; i++)
        build_str(b, s->tokens[i].text);
    if (s->kinds) {
        vocab_key(b, "token_type", FR_GGUF_ARRAY);
        build_array(b, FR_GGUF_I32, s->n_tokens);
        for (size_t i = 0; i < s->n_tokens; i++)
            build_u32(b, (uint32_t)s->tokens[i].kind);
    }
    if (s->scores) {
        vocab_key(b, "scores", FR_GGUF_ARRAY);
        build_array(b, FR_GGUF_F32, s->n_tokens);
        for (size_t i = 0; i < s->n_tokens; i++)
            build_raw(b, &s->tokens[i].score, 4);
    }
}

static inline void vocab_add_merges(fr_buf *b, const char *const *merges)
{
    size_t n = 0;
    while (merges[n])
        n++;
    vocab_key(b, "merges", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_STR, n);
    for (size_t i = 0; i < n; i++)
        build_str(b, merges[i]);
}

/* The bytes of a GGUF file with this vocabulary. */
static inline void vocab_build(fr_buf *b, const vocab_spec *s)
{
    size_t n_more = 0;
    while (n_more < 6 && s->more[n_more].key)
        n_more++;
    size_t n_lists = s->tokens ? (size_t)1 + s->kinds + s->scores : 0;
    build_head(b, 3, 0, !!s->model + !!s->pre + n_lists + !!s->merges + n_more);
    if (s->model) {
        vocab_key(b, "model", FR_GGUF_STR);
        build_str(b, s->model);
    }
    if (s->pre) {
        vocab_key(b, "pre", FR_GGUF_STR);
        build_str(b, s->pre);
    }
    if (s->tokens)
        vocab_add_tokens(b, s);
    if (s->merges)
        vocab_add_merges(b, s->merges);
    for (size_t i = 0; i < n_more; i++) {
        bool is_bool = s->more[i].value < 0;
        uint8_t truth = s->more[i].value == VOCAB_TRUE;
        vocab_key(b, s->more[i].key, is_bool ? FR_GGUF_BOOL : FR_GGUF_U32);
        if (is_bool)
            build_raw(b, &truth, 1);
        else
            build_u32(b, (uint32_t)s->more[i].value);
    }
}

static inline fr_status vocab_open_spec(const vocab_spec *s, fr_vocab **v, fr_err *err)
{
    fr_buf b = {0};
    fr_gguf *g;
    vocab_build(&b, s);
    assert_int_equal(build_open(b.p, b.n, FR_GGUF_HEADERS_ONLY, &g, err), FR_OK);
    fr_status st = fr_vocab_open(g, v, err);
    fr_gguf_close(g);
    fr_buf_free(&b);
    return st;
}

/* "1 2 3" in a buffer that lives until the next call. */
static inline const char *vocab_ids(const fr_vocab *v, const char *text, size_t n, bool add_special,
                                    bool parse_special)
{
    static char line[1024];
    size_t used = 0;
    fr_err err;
    fr_tokens t = {0};
    assert_ok(fr_tokenize(v, text, n, add_special, parse_special, &t, &err));
    line[0] = 0;
    for (size_t i = 0; i < t.n && used < sizeof line - 16; i++)
        used += (size_t)sprintf(line + used, "%s%d", i ? " " : "", t.ids[i]);
    fr_tokens_free(&t);
    return line;
}

#endif
