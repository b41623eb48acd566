/* Hyper-parameters of a model, as its GGUF metadata gives them. */
#ifndef FR_MODEL_HPARAMS_H
#define FR_MODEL_HPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "gguf/gguf.h"

typedef enum { FR_GATING_SOFTMAX = 1, FR_GATING_SIGMOID = 2 } fr_gating; /* numbered as in files */

typedef enum { FR_ROPE_SCALING_NONE, FR_ROPE_SCALING_LINEAR, FR_ROPE_SCALING_YARN } fr_rope_scaling;

typedef struct {
    /* whole model */
    int64_t n_layer; /* layers that are computed: block_count less the nextn ones */
    int64_t n_nextn; /* next-token-prediction layers at the end of the file, skipped */
    int64_t n_ctx_train;
    int64_t n_embd;
    int64_t n_vocab;
    float rms_eps;

    /* attention (multi-head latent) */
    int64_t n_head;
    int64_t q_lora_rank; /* 0: queries come from one matrix */
    int64_t kv_lora_rank;
    int64_t qk_nope; /* width per head of the part of K without rotation */
    int64_t qk_rope; /* rotated part, shared by all heads */
    int64_t v_head;  /* width of V per head */

    /* rotary embedding */
    float rope_base;
    fr_rope_scaling rope_scaling;
    float rope_factor; /* context extension, >= 1 */
    int64_t rope_n_ctx_orig;
    float yarn_log_mul; /* 0.1 * mscale_all_dim */
    float yarn_beta_fast, yarn_beta_slow;

    /* feed-forward */
    int64_t n_ff; /* of dense layers */
    int64_t n_layer_dense_lead;
    int64_t n_ff_exp;
    int64_t n_expert, n_expert_used, n_expert_shared;
    int64_t n_expert_group, n_expert_group_used; /* 1 and 1 without groups */
    fr_gating gating;
    bool expert_weights_norm;
    float expert_weights_scale;
} fr_hparams;

/* Reads the keys of the deepseek2 family and checks every range. Errors name key, found, expected.
 */
fr_status fr_hparams_read(const fr_gguf *g, const char *arch, fr_hparams *out, fr_err *err);

/* Scale of attention scores: mscale^2 / sqrt(qk_nope + qk_rope), mscale = 1 + yarn_log_mul *
 * ln(factor). */
float fr_hparams_attn_scale(const fr_hparams *hp);

/* Rotation speed of each of the qk_rope / 2 pairs, in radians per position, with linear or YaRN
 * scaling (Peng et al. 2023, "YaRN", eq. 17-23). */
void fr_hparams_rope_freqs(const fr_hparams *hp, double *freqs);

#endif
