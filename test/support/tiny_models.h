/* Tiny whole models (about 100 KB), built in memory from a fixed seed, for tests that open
 * thousands. */
#ifndef FR_TEST_TINY_MODELS_H
#define FR_TEST_TINY_MODELS_H

#include "support/gguf_parts.h"

/* As DeepSeek-V3: 1 dense and 1 routed layer, q_lora, kv_b whole, 8 experts in 4 groups with a
 * selection bias, sigmoid, a shared expert, YaRN; rows of 32; SentencePiece vocabulary. */
gguf_parts tiny_v3(void);

/* As DeepSeek-V2-Lite: 2 layers, one query matrix, k_b and v_b, softmax, tied output; K-quants and
 * interleaved types with rows of 256; BPE vocabulary. */
gguf_parts tiny_v2(void);

#endif
