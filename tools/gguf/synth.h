/* Inside of ferry-gguf synth: models of real shapes with random weights. */
#ifndef FR_TOOLS_SYNTH_H
#define FR_TOOLS_SYNTH_H

#include "gguf/gguf_writer.h"

/* ---- shapes (synth_shapes.c) ---------------------------------------------------------------- */

typedef struct {
    const char *name, *title;
    int64_t n_layer, n_dense; /* layers, of which the first have no experts */
    int64_t n_embd, n_ff, n_head, q_lora, kv_lora, nope, rope, v_head;
    int64_t n_expert, n_expert_used, n_expert_shared, n_ff_exp;
    int64_t n_vocab, n_ctx;
    bool sigmoid; /* gating with a selection bias and normalised weights; else softmax */
    bool split_kv_b;
    float expert_scale, rope_base, yarn_factor, yarn_log; /* yarn_factor 0: no scaling */
} synth_shape;

/* The shape of "v3", or "v3-4-layers". FR_EINVAL with the names. */
fr_status synth_shape_find(const char *text, synth_shape *out, fr_err *err);

/* The hyper-parameters as keys of the file. */
fr_status synth_put_shape(fr_gguf_writer *w, const synth_shape *s, fr_err *err);

typedef enum {
    SYNTH_MATRIX, /* of --type */
    SYNTH_LOOKUP, /* token_embd: of --embd-type, never interleaved */
    SYNTH_ROUTER, /* f32, no two rows alike */
    SYNTH_NORM,   /* f32, near 1 */
    SYNTH_BIAS    /* f32, small */
} synth_kind;

typedef struct {
    char name[64];
    synth_kind kind;
    int n_dims;
    int64_t dims[3]; /* cols, rows, matrices */
    float sigma;     /* of the weights: outputs keep the size of their inputs */
} synth_tensor;

/* Calls fn for each tensor of the model, in file order. */
typedef fr_status (*synth_tensor_fn)(void *user, const synth_tensor *t, fr_err *err);
fr_status synth_each_tensor(const synth_shape *s, synth_tensor_fn fn, void *user, fr_err *err);

/* ---- vocabulary (synth_vocab.c) ------------------------------------------------------------- */

/* The tokenizer of another file, or (from == NULL) one of single bytes, padded with unused tokens
 * to n_vocab. FR_EINVAL when it has more. */
fr_status synth_put_vocab(fr_gguf_writer *w, const fr_gguf *from, int64_t n_vocab, fr_err *err);

/* ---- weights (synth_fill.c) ----------------------------------------------------------------- */

typedef struct synth_filler synth_filler;

fr_status synth_filler_open(uint64_t seed, synth_filler **out, fr_err *err);
void synth_filler_close(synth_filler *f);

/* Writes a tensor's data. Matrices repeat the blocks of a few encoded rows, shuffled; the others
 * are drawn number by number. */
fr_status synth_fill(synth_filler *f, fr_gguf_writer *w, const synth_tensor *t, fr_type type,
                     fr_layout layout, fr_err *err);

#endif
