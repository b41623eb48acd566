/* Small models for tests: files of the test tree, and variants of them made on the fly. */
#ifndef FR_TEST_MODELS_H
#define FR_TEST_MODELS_H

#include "base/status.h"
#include "quant/qtype.h"

/* The files: random weights, see test/README.md. */
#define MODEL_V3     TEST_FILE("data/logits/v3.gguf")
#define MODEL_V2LITE TEST_FILE("data/logits/v2lite.gguf")
#define MODEL_KJV    SOURCE_FILE("configs/demo/kjv-moe-q8_0.gguf")

/* How a variant differs from its source. */
typedef struct {
    bool groups;     /* experts in 4 groups of which 2 are used */
    bool split_kv_b; /* attn_k_b and attn_v_b instead of attn_kv_b */
    bool keep_kv_b;  /* with split_kv_b: attn_kv_b too */
    bool flat_k_b;   /* attn_k_b as a matrix of two dimensions */
    bool retype;     /* matrices of the type below where their rows allow it */
    fr_type type;
    fr_layout layout;
    const char *keep; /* tensors with this in their names stay as they are; NULL: none */
} model_variant;

/* Writes the variant of a deepseek2 file with kv_b to path. A matrix of another type must stay as
 * it is or get a type that ferry encodes. */
fr_status model_write_variant(const char *source, const model_variant *v, const char *path,
                              fr_err *err);

/* A path in a folder of this process that is removed at exit. */
const char *model_temp_path(const char *name);

#endif
