/* The type that a mix gives a tensor (mix_rules.def). */
#ifndef FR_TOOLS_QUANTIZE_MIX_H
#define FR_TOOLS_QUANTIZE_MIX_H

#include "common/mixes.h"
#include "gguf/gguf.h"

/* What the rules ask about a model. */
typedef struct {
    int64_t n_layer, n_expert, n_gqa; /* n_gqa: query heads that share a key */
    bool has_output;                  /* else token_embd is the output too */
    bool has_imatrix;
} quantize_model;

/* Reads the keys of any architecture; absent ones count as 0. */
quantize_model quantize_model_of(const fr_gguf *g, bool has_imatrix);

/* Whether a tensor is quantized at all: matrices, but neither norms nor routers. */
bool quantize_is_matrix(const fr_gguf_tensor *t);

/* Whether it is the matrix that makes logits. */
bool quantize_is_output(const quantize_model *m, const fr_gguf_tensor *t);
bool quantize_is_lookup(const fr_gguf_tensor *t); /* token_embd, read row by row */

/* The type for a matrix, whatever the length of its rows. */
fr_type quantize_mix_type(const quantize_model *m, tool_mix_id mix, const fr_gguf_tensor *t);

#endif
