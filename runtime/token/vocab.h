/* The vocabulary of a model, and text <-> token ids.
 *
 * Two families: byte-level BPE (tokenizer.ggml.model = "gpt2"), whose text is first cut into words
 * by the model's pre-tokenizer (pretok.h), and SentencePiece-style ("llama"), which merges by
 * score. A vocabulary is immutable after opening and may be used by any thread. */
#ifndef FR_TOKEN_VOCAB_H
#define FR_TOKEN_VOCAB_H

#include "base/str.h"
#include "gguf/gguf.h"

typedef struct fr_vocab fr_vocab;

/* tokenizer.ggml.token_type values */
typedef enum {
    FR_TOKEN_NORMAL = 1,
    FR_TOKEN_UNKNOWN = 2,
    FR_TOKEN_CONTROL = 3,
    FR_TOKEN_USER_DEFINED = 4,
    FR_TOKEN_UNUSED = 5,
    FR_TOKEN_BYTE = 6
} fr_token_kind;

/* A growable list of ids; {0} is empty. Owns ids; free with fr_tokens_free. */
typedef struct {
    int32_t *ids;
    size_t n, cap;
} fr_tokens;

fr_status fr_tokens_add(fr_tokens *t, int32_t id, fr_err *err);
void fr_tokens_free(fr_tokens *t);

/* Builds a vocabulary from metadata; nothing of g is kept. FR_EUNSUPPORTED for an unknown tokenizer
 * model or pre-tokenizer (the text lists the known ones). */
fr_status fr_vocab_open(const fr_gguf *g, fr_vocab **out, fr_err *err);
void fr_vocab_free(fr_vocab *v);

int32_t fr_vocab_size(const fr_vocab *v);
int32_t fr_vocab_bos(const fr_vocab *v); /* -1 when the model has none; the same for eos */
int32_t fr_vocab_eos(const fr_vocab *v);
bool fr_vocab_adds_bos(const fr_vocab *v); /* tokenizer.ggml.add_bos_token and its defaults */
bool fr_vocab_adds_eos(const fr_vocab *v);
/* Whether the token ends a generation: eos, eot and the other end tokens of the known families. */
bool fr_vocab_is_eog(const fr_vocab *v, int32_t id);
fr_token_kind fr_vocab_kind(const fr_vocab *v, int32_t id); /* FR_TOKEN_UNUSED for a bad id */
fr_str fr_vocab_text(const fr_vocab *v, int32_t id); /* as stored in the file; empty for a bad id */
int32_t fr_vocab_find(const fr_vocab *v, fr_str text); /* by stored text; -1 */

/* Appends the ids of text[0..n), any bytes, to *out. add_special: put BOS (EOS) where the model
 * wants it. parse_special: recognise control and unknown tokens in the text; otherwise they are
 * plain text. User-defined tokens are recognised always; the longest token first. n <= INT32_MAX /
 * 3, else FR_ERANGE. On failure *out keeps the ids that it had. Time is O(n log n). */
fr_status fr_tokenize(const fr_vocab *v, const char *text, size_t n, bool add_special,
                      bool parse_special, fr_tokens *out, fr_err *err);

/* Appends the exact bytes that a token stands for. Control and unknown tokens give nothing unless
 * `special`. FR_ERANGE for a bad id. */
fr_status fr_token_bytes(const fr_vocab *v, int32_t id, bool special, fr_buf *out, fr_err *err);

/* Streaming: bytes of tokens go in, whole UTF-8 characters come out; invalid bytes pass as they are
 * once no continuation can make them valid. {0} is the start state. */
typedef struct {
    char held[4];
    size_t n_held;
    bool past_first; /* SentencePiece: the blank before the first word is dropped */
} fr_detok;

fr_status fr_detok_push(const fr_vocab *v, fr_detok *d, int32_t id, bool special, fr_buf *out,
                        fr_err *err);
fr_status fr_detok_flush(fr_detok *d, fr_buf *out, fr_err *err); /* gives out what is held */

#endif
