/* The tokenizer of a synthetic model: another file's, or one token a byte. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "synth.h"

#define KEY    "tokenizer.ggml."
#define TOKENS KEY "tokens"
#define TYPES  KEY "token_type"
#define SCORES KEY "scores"

enum { NORMAL = 1, CONTROL = 3, UNUSED = 5 }; /* token types of the format */

/* The arrays under construction; all owned. */
typedef struct {
    fr_buf texts; /* length and bytes of each, as in a file */
    uint64_t *at; /* where each starts; n_vocab */
    int32_t *types;
    float *scores;
    int64_t n;
} tokens;

static fr_status add(tokens *t, fr_str text, int32_t type, float score, fr_err *err)
{
    char le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (char)((uint64_t)text.n >> 8 * i);
    t->at[t->n] = t->texts.n;
    t->types[t->n] = type;
    t->scores[t->n] = score;
    t->n++;
    FR_TRY(fr_buf_add(&t->texts, le, sizeof le, err));
    return fr_buf_add(&t->texts, text.p, text.n, err);
}

/* ---- sources -------------------------------------------------------------------------------- */

/* The character that stands for a byte in byte-level vocabularies: itself where it can be seen,
 * otherwise the next free one from U+0100 on. */
static uint32_t character_of_byte(int byte)
{
    uint32_t next = 0x100;
    for (int b = 0; b <= byte; b++) {
        bool shown = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (b == byte && shown)
            return (uint32_t)b;
        next += !shown;
    }
    return next - 1;
}

static fr_status add_bytes(tokens *t, fr_err *err)
{
    FR_TRY(add(t, FR_STR("<|begin|>"), CONTROL, 0, err));
    FR_TRY(add(t, FR_STR("<|end|>"), CONTROL, 0, err));
    for (int b = 0; b < 256; b++) {
        char text[4];
        size_t n = (size_t)fr_utf8_encode(character_of_byte(b), text);
        FR_TRY(add(t, (fr_str){text, n}, NORMAL, 0, err));
    }
    return FR_OK;
}

static fr_status put_byte_keys(fr_gguf_writer *w, fr_err *err)
{
    const fr_gguf_value no_merges = {.type = FR_GGUF_STR, .is_array = true};
    FR_TRY(fr_gguf_put_str(w, KEY "model", FR_STR("gpt2"), err));
    FR_TRY(fr_gguf_put_str(w, KEY "pre", FR_STR("deepseek-v3"), err));
    FR_TRY(fr_gguf_put_value(w, KEY "merges", &no_merges, err));
    FR_TRY(fr_gguf_put_u32(w, KEY "bos_token_id", 0, err));
    FR_TRY(fr_gguf_put_u32(w, KEY "eos_token_id", 1, err));
    FR_TRY(fr_gguf_put_bool(w, KEY "add_bos_token", true, err));
    return fr_gguf_put_bool(w, KEY "add_eos_token", false, err);
}

static fr_status add_file(tokens *t, const fr_gguf *from, const fr_gguf_value *texts, fr_err *err)
{
    const fr_gguf_value *types = fr_gguf_find(from, TYPES), *scores = fr_gguf_find(from, SCORES);
    for (uint64_t i = 0; i < texts->n; i++) {
        int64_t type = types && i < types->n ? fr_gguf_elem_i64(types, i) : NORMAL;
        double score = scores && i < scores->n ? fr_gguf_elem_f64(scores, i) : 0;
        FR_TRY(add(t, fr_gguf_elem_str(texts, i), (int32_t)type, (float)score, err));
    }
    return FR_OK;
}

/* All of a file's tokenizer.* keys but the arrays with an entry for each token. */
static fr_status put_file_keys(fr_gguf_writer *w, const fr_gguf *from, fr_err *err)
{
    for (size_t i = 0; i < fr_gguf_n_kv(from); i++) {
        const fr_gguf_kv *kv = fr_gguf_kv_at(from, i);
        char key[128];
        bool ours =
            kv->key.n > 10 && kv->key.n < sizeof key && memcmp(kv->key.p, "tokenizer.", 10) == 0;
        if (!ours || fr_str_is(kv->key, TOKENS) || fr_str_is(kv->key, TYPES) ||
            fr_str_is(kv->key, SCORES))
            continue;
        snprintf(key, sizeof key, "%.*s", FR_STR_ARG(kv->key));
        FR_TRY(fr_gguf_put_value(w, key, &kv->value, err));
    }
    return FR_OK;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static fr_status fill(tokens *t, const fr_gguf *from, const fr_gguf_value *texts, int64_t n_vocab,
                      fr_err *err)
{
    FR_TRY(from ? add_file(t, from, texts, err) : add_bytes(t, err));
    while (t->n < n_vocab) {
        char text[32];
        int n = snprintf(text, sizeof text, "<|unused_%" PRId64 "|>", t->n);
        FR_TRY(add(t, (fr_str){text, (size_t)n}, UNUSED, -1000.0f, err));
    }
    return FR_OK;
}

static fr_status put_arrays(fr_gguf_writer *w, const tokens *t, bool has_scores, fr_err *err)
{
    uint64_t n = (uint64_t)t->n;
    fr_gguf_value v = {.type = FR_GGUF_STR, .is_array = true, .n = n};
    v.bytes = (const uint8_t *)t->texts.p;
    v.at = t->at;
    FR_TRY(fr_gguf_put_value(w, TOKENS, &v, err));
    v = (fr_gguf_value){
        .type = FR_GGUF_I32, .is_array = true, .n = n, .bytes = (const uint8_t *)t->types};
    FR_TRY(fr_gguf_put_value(w, TYPES, &v, err));
    if (!has_scores)
        return FR_OK;
    v = (fr_gguf_value){
        .type = FR_GGUF_F32, .is_array = true, .n = n, .bytes = (const uint8_t *)t->scores};
    return fr_gguf_put_value(w, SCORES, &v, err);
}

fr_status synth_put_vocab(fr_gguf_writer *w, const fr_gguf *from, int64_t n_vocab, fr_err *err)
{
    tokens t = {0};
    const fr_gguf_value *texts = NULL;
    fr_status st = FR_OK;
    if (from) {
        FR_TRY(fr_gguf_get_array(from, TOKENS, true, &texts, err));
        if (texts->n > (uint64_t)n_vocab)
            return fr_fail(err, FR_EINVAL,
                           "%s: found a vocabulary of %" PRIu64
                           " tokens, expected at most the %" PRId64 " of the shape",
                           fr_gguf_path(from, 0), texts->n, n_vocab);
    }
    t.at = FR_NEW(uint64_t, FR_MEM_VOCAB, (size_t)n_vocab, err);
    t.types = FR_NEW(int32_t, FR_MEM_VOCAB, (size_t)n_vocab, err);
    t.scores = FR_NEW(float, FR_MEM_VOCAB, (size_t)n_vocab, err);
    if (!t.at || !t.types || !t.scores)
        st = FR_ENOMEM;
    if (st == FR_OK)
        st = from ? put_file_keys(w, from, err) : put_byte_keys(w, err);
    if (st == FR_OK)
        st = fill(&t, from, texts, n_vocab, err);
    if (st == FR_OK)
        st = put_arrays(w, &t, from && fr_gguf_find(from, SCORES), err);
    fr_buf_free(&t.texts);
    fr_mem_free(t.at);
    fr_mem_free(t.types);
    fr_mem_free(t.scores);
    return st;
}
