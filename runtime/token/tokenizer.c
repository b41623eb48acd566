/* Text to tokens: special tokens are found first, what lies between them goes to the model's
 * family. */
#include "token/vocab_internal.h"

fr_status fr_tokens_add(fr_tokens *t, int32_t id, fr_err *err)
{
    if (t->n == t->cap)
        FR_TRY(fr_mem_grow(FR_MEM_TEXT, (void **)&t->ids, &t->cap, t->n + 1, sizeof *t->ids, err));
    t->ids[t->n++] = id;
    return FR_OK;
}

void fr_tokens_free(fr_tokens *t)
{
    fr_mem_free(t->ids);
    *t = (fr_tokens){0};
}

/* Both families may write three bytes for one, and count bytes in 32 bits. */
enum { MAX_BYTES = INT32_MAX / 3 };

/* The memory of one call. */
typedef struct {
    const fr_vocab *v;
    special_hits hits;
    pretok_words words;
    merge_work work;
    fr_buf scratch;
} encoder;

static fr_status encode_words(encoder *e, const char *text, size_t n, fr_tokens *out, fr_err *err)
{
    FR_TRY(pretok_split(e->v->pre, text, n, &e->words, err));
    size_t begin = 0;
    for (size_t i = 0; i < e->words.n; i++) {
        size_t end = e->words.ends[i];
        FR_TRY(bpe_encode_word(&e->v->bpe, text + begin, end - begin, &e->work, &e->scratch, out,
                               err));
        begin = end;
    }
    return FR_OK;
}

/* A text between special tokens is a beginning of its own: SentencePiece puts its blank before
 * each. */
static fr_status encode_plain(encoder *e, const char *text, size_t n, fr_tokens *out, fr_err *err)
{
    if (n == 0)
        return FR_OK;
    if (e->v->is_spm)
        return spm_encode(&e->v->spm, text, n, e->v->adds_blank, &e->work, &e->scratch, out, err);
    return encode_words(e, text, n, out, err);
}

static fr_status encode(encoder *e, const char *text, size_t n, bool parse_special, fr_tokens *out,
                        fr_err *err)
{
    const special_set *set = parse_special ? &e->v->all : &e->v->user;
    FR_TRY(special_find(set, text, n, &e->hits, err));
    size_t at = 0;
    for (size_t i = 0; i < e->hits.n; i++) {
        special_hit hit = e->hits.hits[i];
        FR_TRY(encode_plain(e, text + at, hit.at - at, out, err));
        FR_TRY(fr_tokens_add(out, (int32_t)set->ids[hit.member], err));
        at = hit.at + set->texts[hit.member].n;
    }
    return encode_plain(e, text + at, n - at, out, err);
}

fr_status fr_tokenize(const fr_vocab *v, const char *text, size_t n, bool add_special,
                      bool parse_special, fr_tokens *out, fr_err *err)
{
    if (n > MAX_BYTES)
        return fr_fail(err, FR_ERANGE, "text: found %zu bytes, expected at most %d", n, MAX_BYTES);
    encoder e = {.v = v};
    size_t n_before = out->n;
    fr_status st = FR_OK;
    if (add_special && fr_vocab_adds_bos(v))
        FR_TRY_OUT(st, fr_tokens_add(out, v->bos, err));
    FR_TRY_OUT(st, encode(&e, text, n, parse_special, out, err));
    if (add_special && fr_vocab_adds_eos(v))
        st = fr_tokens_add(out, v->eos, err);
out:
    if (st != FR_OK)
        out->n = n_before;
    fr_mem_free(e.hits.hits);
    pretok_words_free(&e.words);
    merge_free(&e.work);
    fr_buf_free(&e.scratch);
    return st;
}
