/* The golden model whose attention is as wide as that of DeepSeek-V2-Lite (data/logits/wide.gguf,
 * golden/make_wide.py), in forms of the same weights, and how far logits are from its reference. */
#ifndef FR_TEST_WIDE_MODEL_H
#define FR_TEST_WIDE_MODEL_H

#include "engine/engine.h"

typedef enum {
    WIDE_FILE,  /* as it is: every matrix in q4_0 */
    WIDE_F16,   /* every matrix in f16, which holds the same values */
    WIDE_KV_B_0 /* so too, but for kv_b of the first layer in q4_0 */
} wide_form;

typedef enum {
    WIDE_EXACT, /* what the weights give */
    WIDE_ACT,   /* where kv_b of the first layer reads latents that were rounded to 8 bits */
    WIDE_REFERENCES
} wide_reference;

enum { WIDE_TOKENS = 600 };

/* Before all else, with the folder of the files, and at the end. What cannot be read ends the
 * process. */
void wide_open(const char *folder);
void wide_close(void);

const char *wide_path(wide_form form);

/* Logits at the positions of the references, [positions][vocabulary], of a run over all tokens.
 * Free with free. */
float *wide_run(const fr_engine_config *cfg);
size_t wide_n_logits(void);

typedef struct {
    double all;   /* relative L2 distance of all logits */
    double worst; /* of those of one position */
    double kl;    /* mean divergence of the reference's probabilities from ours, in nats */
} wide_distance;

wide_distance wide_compare(const float *logits, wide_reference reference);

#endif
