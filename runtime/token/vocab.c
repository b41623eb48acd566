#include "token/vocab_internal.h"

#include <string.h>

#include "base/log.h"

#define KEY "tokenizer.ggml."

enum { MAX_TEXT = 65536 };

/* ---- end tokens --------------------------------------------------------------------------------
 */

/* Tokens that model files often leave without their meaning. `ends`: generation stops there.
 * `control`: the ecosystem treats it as a control token whatever the file says, unless a key names
 * another one. */
typedef struct {
    const char *text;
    bool ends, control;
} known_token;

static const known_token known_tokens[] = {
    {"<|eot_id|>", true, true},
    {"<|im_end|>", true, true},
    {"<|end|>", true, true},
    {"<|return|>", true, true},
    {"<|call|>", true, true},
    {"<end_of_turn>", true, true},
    {"<|endoftext|>", true, true},
    {"</s>", true, true},
    {"<|eom_id|>", true, true},
    {"<EOT>", true, true},
    {"_<EOT>", true, true},
    {"[EOT]", true, true},
    {"[EOS]", true, true},
    {"<|end_of_text|>", true, true},
    {"<end_of_utterance>", true, true},
    {"<\xEF\xBD\x9C"
     "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     true, true},
    {"<|EOT|>", true, false},
    {"<|fim_prefix|>", false, true},
    {"<fim-prefix>", false, true},
    {"<fim_prefix>", false, true},
    {"<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "begin\xEF\xBD\x9C>",
     false, true},
    {"<PRE>", false, true},
    {"\xE2\x96\x81<PRE>", false, true},
    {"<|code_prefix|>", false, true},
    {"<|fim_suffix|>", false, true},
    {"<fim-suffix>", false, true},
    {"<fim_suffix>", false, true},
    {"<\xEF\xBD\x9C"
     "fim\xE2\x96\x81hole\xEF\xBD\x9C>",
     false, true},
    {"<SUF>", false, true},
    {"\xE2\x96\x81<SUF>", false, true},
    {"<|code_suffix|>", false, true},
    {"<|fim_middle|>", false, true},
    {"<fim-middle>", false, true},
    {"<fim_middle>", false, true},
    {"<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "end\xEF\xBD\x9C>",
     false, true},
    {"<MID>", false, true},
    {"\xE2\x96\x81<MID>", false, true},
    {"<|code_middle|>", false, true},
    {"<|fim_pad|>", true, true},
    {"<fim-pad>", true, true},
    {"<fim_pad>", true, true},
    {"<PAD>", true, true},
    {"[PAD]", true, true},
    {"<|fim_repo|>", true, true},
    {"<|repo_name|>", true, true},
    {"<fim-repo>", true, true},
    {"<REPO>", true, true},
    {"<reponame>", true, true},
    {"<|file_sep|>", true, true},
};

/* GLM ends its turn by opening the next one. */
static const char *const glm_ends[] = {"<|user|>", "<|observation|>"};

static void mark_known_tokens(fr_vocab *v)
{
    for (size_t i = 0; i < sizeof known_tokens / sizeof *known_tokens; i++) {
        int32_t id = fr_vocab_find(v, fr_str_of(known_tokens[i].text));
        if (id < 0)
            continue;
        if (known_tokens[i].ends)
            v->eog[id] = true;
        if (known_tokens[i].control)
            v->kinds[id] = FR_TOKEN_CONTROL;
    }
}

/* ---- metadata ----------------------------------------------------------------------------------
 */

/* A token id from a key; the default when the key is absent or names no token. */
static int32_t read_id(const fr_gguf *g, const fr_vocab *v, const char *key, int32_t otherwise)
{
    int64_t id;
    if (fr_gguf_get_i64(g, key, &id, NULL) == FR_OK) {
        if (id >= 0 && id < (int64_t)v->n)
            return (int32_t)id;
        fr_log_warn("%s: found %lld, expected a token below %u; ignored", key, (long long)id, v->n);
    }
    return otherwise >= 0 && (uint32_t)otherwise < v->n ? otherwise : -1;
}

static bool read_bool(const fr_gguf *g, const char *key, bool otherwise)
{
    bool value;
    return fr_gguf_get_bool(g, key, &value, NULL) == FR_OK ? value : otherwise;
}

/* Absent is NULL; of another type, or with fewer elements than there are tokens, is an error. */
static fr_status read_numbers(const fr_gguf *g, const char *key, uint32_t n,
                              const fr_gguf_value **out, fr_err *err)
{
    *out = NULL;
    if (!fr_gguf_find(g, key))
        return FR_OK;
    FR_TRY(fr_gguf_get_array(g, key, false, out, err));
    if ((*out)->n < n)
        return fr_fail(err, FR_EFORMAT,
                       "%s: found %llu elements, expected one for each of %u tokens", key,
                       (unsigned long long)(*out)->n, n);
    return FR_OK;
}

static fr_status read_texts(fr_vocab *v, const fr_gguf *g, fr_err *err)
{
    const fr_gguf_value *tokens;
    FR_TRY(fr_gguf_get_array(g, KEY "tokens", true, &tokens, err));
    if (tokens->n == 0 || tokens->n > INT32_MAX / 8)
        return fr_fail(err, FR_EFORMAT, KEY "tokens: found %llu, expected 1 to %d",
                       (unsigned long long)tokens->n, INT32_MAX / 8);
    v->n = (uint32_t)tokens->n;
    size_t bytes = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        size_t n = fr_gguf_elem_str(tokens, i).n;
        if (n > MAX_TEXT)
            return fr_fail(err, FR_EFORMAT,
                           KEY "tokens: found %zu bytes at %u, expected at most %d", n, i,
                           MAX_TEXT);
        bytes += n;
    }
    char *all = fr_arena_alloc(&v->arena, bytes + 1, 1, err);
    if (!all)
        return FR_ENOMEM;
    FR_TRY(symbols_reserve(&v->sy, v->n, err));
    for (uint32_t i = 0; i < v->n; i++) {
        fr_str text = fr_gguf_elem_str(tokens, i);
        if (text.n)
            memcpy(all, text.p, text.n);
        FR_TRY(symbols_add(&v->sy, (fr_str){all, text.n}, err));
        all += text.n;
    }
    return FR_OK;
}

static fr_status read_kinds(fr_vocab *v, const fr_gguf *g, fr_err *err)
{
    const fr_gguf_value *types;
    FR_TRY(read_numbers(g, KEY "token_type", v->n, &types, err));
    v->kinds = FR_NEW(uint8_t, FR_MEM_VOCAB, v->n, err);
    v->eog = FR_NEW(bool, FR_MEM_VOCAB, v->n, err);
    if (!v->kinds || !v->eog)
        return FR_ENOMEM;
    for (uint32_t i = 0; i < v->n; i++) {
        int64_t kind = types ? fr_gguf_elem_i64(types, i) : FR_TOKEN_NORMAL;
        bool known = kind >= FR_TOKEN_NORMAL && kind <= FR_TOKEN_BYTE;
        v->kinds[i] = (uint8_t)(known ? kind : FR_TOKEN_UNUSED);
    }
    mark_known_tokens(v);
    return FR_OK;
}

static void read_special_ids(fr_vocab *v, const fr_gguf *g, bool adds_bos)
{
    v->bos = read_id(g, v, KEY "bos_token_id", v->is_spm ? 1 : -1);
    v->eos = read_id(g, v, KEY "eos_token_id", v->is_spm ? 2 : -1);
    v->adds_bos = read_bool(g, KEY "add_bos_token", adds_bos);
    v->adds_eos = read_bool(g, KEY "add_eos_token", false);
    static const char *const end_keys[] = {KEY "eot_token_id", KEY "eom_token_id"};
    for (size_t i = 0; i < sizeof end_keys / sizeof *end_keys; i++) {
        int32_t id = read_id(g, v, end_keys[i], -1);
        if (id >= 0)
            v->eog[id] = true;
    }
    if (v->eos >= 0)
        v->eog[v->eos] = true;
}

static fr_status collect_special(fr_vocab *v, fr_err *err)
{
    uint32_t *ids = FR_NEW(uint32_t, FR_MEM_VOCAB, v->n, err);
    if (!ids)
        return FR_ENOMEM;
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->kinds[i] == FR_TOKEN_USER_DEFINED)
            ids[n++] = i;
    fr_status st = special_init(&v->user, &v->sy, ids, n, err);
    for (uint32_t i = 0; i < v->n; i++)
        if (v->kinds[i] == FR_TOKEN_CONTROL || v->kinds[i] == FR_TOKEN_UNKNOWN)
            ids[n++] = i;
    if (st == FR_OK)
        st = special_init(&v->all, &v->sy, ids, n, err);
    fr_mem_free(ids);
    return st;
}

/* ---- the two families --------------------------------------------------------------------------
 */

static fr_status open_bpe(fr_vocab *v, const fr_gguf *g, fr_err *err)
{
    fr_str name = {0};
    const pretok_row *row;
    const fr_gguf_value *merges;
    if (fr_gguf_find(g, KEY "pre"))
        FR_TRY(fr_gguf_get_str(g, KEY "pre", &name, err));
    if (name.n == 0) {
        fr_log_warn(KEY "pre: found none, so the default is used; convert the model again if its "
                        "answers are poor");
        name = FR_STR("default");
    }
    FR_TRY(pretok_find(name, &row, err));
    FR_TRY(fr_gguf_get_array(g, KEY "merges", true, &merges, err));
    FR_TRY(pretok_compile(row, &v->pre, err));
    read_special_ids(v, g, (row->flags & PRETOK_ADD_BOS) != 0);
    if (fr_str_is(fr_str_of(row->names[0]), "glm4"))
        for (size_t i = 0; i < sizeof glm_ends / sizeof *glm_ends; i++) {
            int32_t id = fr_vocab_find(v, fr_str_of(glm_ends[i]));
            if (id >= 0)
                v->eog[id] = true;
        }
    FR_TRY(bpe_init(&v->bpe, &v->sy, &v->arena, v->kinds, merges, err));
    v->bpe.whole_words = (row->flags & PRETOK_WHOLE_WORDS) != 0;
    return FR_OK;
}

static fr_status open_spm(fr_vocab *v, const fr_gguf *g, fr_err *err)
{
    const fr_gguf_value *scores;
    FR_TRY(read_numbers(g, KEY "scores", v->n, &scores, err));
    v->is_spm = true;
    v->adds_blank = read_bool(g, KEY "add_space_prefix", true);
    read_special_ids(v, g, true);
    return spm_init(&v->spm, &v->sy, scores, read_id(g, v, KEY "unknown_token_id", 0), err);
}

static fr_status open_vocab(fr_vocab *v, const fr_gguf *g, fr_err *err)
{
    fr_str model;
    FR_TRY(fr_gguf_get_str(g, KEY "model", &model, err));
    bool is_bpe = fr_str_is(model, "gpt2");
    if (!is_bpe && !fr_str_is(model, "llama"))
        return fr_fail(err, FR_EUNSUPPORTED, KEY "model: found \"%.*s\", expected gpt2 or llama",
                       (int)(model.n < 80 ? model.n : 80), model.p);
    FR_TRY(read_texts(v, g, err));
    FR_TRY(read_kinds(v, g, err));
    FR_TRY(collect_special(v, err));
    return is_bpe ? open_bpe(v, g, err) : open_spm(v, g, err);
}

fr_status fr_vocab_open(const fr_gguf *g, fr_vocab **out, fr_err *err)
{
    fr_vocab *v = FR_NEW(fr_vocab, FR_MEM_VOCAB, 1, err);
    if (!v)
        return FR_ENOMEM;
    v->arena = fr_arena_make(FR_MEM_VOCAB);
    fr_status st = open_vocab(v, g, err);
    if (st != FR_OK) {
        const char *path = fr_gguf_path(g, 0); /* the reader's own texts name it already */
        if (err && strncmp(err->text, path, strlen(path)) != 0)
            fr_err_context(err, st, "%s", path);
        fr_vocab_free(v);
        return st;
    }
    *out = v;
    return FR_OK;
}

void fr_vocab_free(fr_vocab *v)
{
    if (!v)
        return;
    spm_free(&v->spm);
    bpe_free(&v->bpe);
    pretok_free(v->pre);
    special_free(&v->user);
    special_free(&v->all);
    fr_mem_free(v->kinds);
    fr_mem_free(v->eog);
    symbols_free(&v->sy);
    fr_arena_free(&v->arena);
    fr_mem_free(v);
}

/* ---- questions ---------------------------------------------------------------------------------
 */

static bool is_token(const fr_vocab *v, int32_t id)
{
    return id >= 0 && (uint32_t)id < v->n;
}

int32_t fr_vocab_size(const fr_vocab *v)
{
    return (int32_t)v->n;
}

int32_t fr_vocab_bos(const fr_vocab *v)
{
    return v->bos;
}

int32_t fr_vocab_eos(const fr_vocab *v)
{
    return v->eos;
}

bool fr_vocab_adds_bos(const fr_vocab *v)
{
    return v->adds_bos && v->bos >= 0;
}

bool fr_vocab_adds_eos(const fr_vocab *v)
{
    return v->adds_eos && v->eos >= 0;
}

bool fr_vocab_is_eog(const fr_vocab *v, int32_t id)
{
    return is_token(v, id) && v->eog[id];
}

fr_token_kind fr_vocab_kind(const fr_vocab *v, int32_t id)
{
    return is_token(v, id) ? (fr_token_kind)v->kinds[id] : FR_TOKEN_UNUSED;
}

fr_str fr_vocab_text(const fr_vocab *v, int32_t id)
{
    return is_token(v, id) ? v->sy.texts[id] : (fr_str){0};
}

int32_t fr_vocab_find(const fr_vocab *v, fr_str text)
{
    uint32_t sym = symbols_find(&v->sy, text.p, text.n);
    return sym < v->n ? (int32_t)sym : -1;
}
