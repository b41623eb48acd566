#include "model/hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

typedef struct {
    const fr_gguf *g;
    const char *arch;
    fr_err *err;
} reader;

static void key_name(const reader *r, const char *suffix, char out[128])
{
    snprintf(out, 128, "%s.%s", r->arch, suffix);
}

static bool has(const reader *r, const char *suffix)
{
    char key[128];
    key_name(r, suffix, key);
    return fr_gguf_find(r->g, key) != NULL;
}

/* An integer in [lo, hi]; when absent `fallback`, or an error if that is negative. */
static fr_status get_int(const reader *r, const char *suffix, int64_t lo, int64_t hi,
                         int64_t fallback, int64_t *out)
{
    char key[128];
    key_name(r, suffix, key);
    if (!fr_gguf_find(r->g, key) && fallback >= 0) {
        *out = fallback;
        return FR_OK;
    }
    FR_TRY(fr_gguf_get_i64(r->g, key, out, r->err));
    if (*out < lo || *out > hi)
        return fr_fail(r->err, FR_EFORMAT, "%s: found %lld, expected %lld to %lld", key,
                       (long long)*out, (long long)lo, (long long)hi);
    return FR_OK;
}

/* A finite float in [lo, hi]; when absent `fallback`, or an error if that is NaN. */
static fr_status get_float(const reader *r, const char *suffix, double lo, double hi,
                           float fallback, float *out)
{
    char key[128];
    key_name(r, suffix, key);
    if (!fr_gguf_find(r->g, key) && !isnan(fallback)) {
        *out = fallback;
        return FR_OK;
    }
    FR_TRY(fr_gguf_get_f32(r->g, key, out, r->err));
    if (!(*out >= lo && *out <= hi))
        return fr_fail(r->err, FR_EFORMAT, "%s: found %g, expected %g to %g", key, (double)*out, lo,
                       hi);
    return FR_OK;
}

/* Far beyond any model, and few enough for what grows with their square (fr_graph_place). */
enum { MAX_LAYERS = 1024 };

static const int64_t DIM_MAX = 1 << 24;

static fr_status read_attention(const reader *r, fr_hparams *hp)
{
    int64_t key_len, n_kv_unused;
    FR_TRY(get_int(r, "attention.head_count", 1, 65536, -1, &hp->n_head));
    FR_TRY(get_int(r, "attention.head_count_kv", 1, 65536, hp->n_head, &n_kv_unused));
    FR_TRY(get_int(r, "attention.q_lora_rank", 0, DIM_MAX, 0, &hp->q_lora_rank));
    FR_TRY(get_int(r, "attention.kv_lora_rank", 1, DIM_MAX, -1, &hp->kv_lora_rank));
    FR_TRY(get_int(r, "rope.dimension_count", 2, 65536, -1, &hp->qk_rope));
    /* Files with k_b and v_b describe the latent cache in key_length, and the heads in
     * key_length_mla. */
    const char *mla_k = "attention.key_length_mla", *mla_v = "attention.value_length_mla";
    FR_TRY(get_int(r, has(r, mla_k) ? mla_k : "attention.key_length", 1, 65536, -1, &key_len));
    FR_TRY(get_int(r, has(r, mla_v) ? mla_v : "attention.value_length", 1, 65536, -1, &hp->v_head));
    if (hp->qk_rope % 2 != 0 || hp->qk_rope >= key_len)
        return fr_fail(r->err, FR_EFORMAT,
                       "%s.rope.dimension_count: found %lld, expected an even number below the key "
                       "length %lld",
                       r->arch, (long long)hp->qk_rope, (long long)key_len);
    hp->qk_nope = key_len - hp->qk_rope;
    return FR_OK;
}

static fr_status read_rope(const reader *r, fr_hparams *hp)
{
    char key[128];
    fr_str kind = FR_STR("none");
    FR_TRY(get_float(r, "rope.freq_base", 1.5, 1e9, 10000.0f, &hp->rope_base));
    key_name(r, "rope.scaling.type", key);
    if (has(r, "rope.scaling.type"))
        FR_TRY(fr_gguf_get_str(r->g, key, &kind, r->err));
    if (fr_str_is(kind, "yarn"))
        hp->rope_scaling = FR_ROPE_SCALING_YARN;
    else if (fr_str_is(kind, "linear"))
        hp->rope_scaling = FR_ROPE_SCALING_LINEAR;
    else if (!fr_str_is(kind, "none"))
        return fr_fail(r->err, FR_EUNSUPPORTED, "%s: found '%.*s', expected none, linear or yarn",
                       key, FR_STR_ARG(kind));
    FR_TRY(get_float(r, "rope.scaling.factor", 1, 1e6, 1.0f, &hp->rope_factor));
    FR_TRY(get_int(r, "rope.scaling.original_context_length", 1, INT32_MAX, hp->n_ctx_train,
                   &hp->rope_n_ctx_orig));
    FR_TRY(get_float(r, "rope.scaling.yarn_log_multiplier", 0, 10, 0.0f, &hp->yarn_log_mul));
    FR_TRY(get_float(r, "rope.scaling.yarn_beta_fast", 0, 1e6, 32.0f, &hp->yarn_beta_fast));
    FR_TRY(get_float(r, "rope.scaling.yarn_beta_slow", 0, 1e6, 1.0f, &hp->yarn_beta_slow));
    if (hp->rope_scaling == FR_ROPE_SCALING_NONE)
        hp->rope_factor = 1.0f;
    if (hp->rope_scaling != FR_ROPE_SCALING_YARN)
        hp->yarn_log_mul = 0.0f;
    return FR_OK;
}

static fr_status read_gating(const reader *r, fr_hparams *hp)
{
    /* Files of before the key existed: softmax, except GLM-4.7-Flash, which 47 or 48 layers give
     * away. */
    int64_t gating, guess = hp->n_layer + hp->n_nextn == 47 || hp->n_layer + hp->n_nextn == 48
                                ? FR_GATING_SIGMOID
                                : FR_GATING_SOFTMAX;
    FR_TRY(get_int(r, "expert_gating_func", 0, 2, guess, &gating));
    hp->gating = gating == 0 ? (fr_gating)guess : (fr_gating)gating;

    char key[128];
    key_name(r, "expert_weights_norm", key);
    if (has(r, "expert_weights_norm"))
        FR_TRY(fr_gguf_get_bool(r->g, key, &hp->expert_weights_norm, r->err));
    FR_TRY(get_float(r, "expert_weights_scale", 0, 1e6, 1.0f, &hp->expert_weights_scale));
    if (hp->expert_weights_scale == 0)
        hp->expert_weights_scale = 1.0f; /* how writers say "not set" */
    return FR_OK;
}

static fr_status read_experts(const reader *r, fr_hparams *hp)
{
    FR_TRY(get_int(r, "leading_dense_block_count", 0, hp->n_layer, 0, &hp->n_layer_dense_lead));
    FR_TRY(get_int(r, "expert_count", 0, 65536, 0, &hp->n_expert));
    FR_TRY(get_int(r, "expert_used_count", 0, hp->n_expert, 0, &hp->n_expert_used));
    FR_TRY(get_int(r, "expert_shared_count", 0, 1024, 0, &hp->n_expert_shared));
    FR_TRY(get_int(r, "expert_feed_forward_length", 0, DIM_MAX, 0, &hp->n_ff_exp));
    FR_TRY(get_int(r, "expert_group_count", 0, 65536, 1, &hp->n_expert_group));
    if (hp->n_expert_group == 0)
        hp->n_expert_group = 1;
    FR_TRY(get_int(r, "expert_group_used_count", 0, hp->n_expert_group, hp->n_expert_group,
                   &hp->n_expert_group_used));
    FR_TRY(read_gating(r, hp));
    if (hp->n_layer_dense_lead == hp->n_layer)
        return FR_OK;
    if (hp->n_expert == 0 || hp->n_expert_used == 0 || hp->n_ff_exp == 0)
        return fr_fail(
            r->err, FR_EFORMAT,
            "%s: layers from %lld on have experts, but expert_count is %lld, expert_used_count "
            "%lld, expert_feed_forward_length %lld; expected more than 0",
            r->arch, (long long)hp->n_layer_dense_lead, (long long)hp->n_expert,
            (long long)hp->n_expert_used, (long long)hp->n_ff_exp);
    if (hp->n_expert % hp->n_expert_group != 0 || hp->n_expert_group_used == 0 ||
        hp->n_expert_used > hp->n_expert / hp->n_expert_group * hp->n_expert_group_used)
        return fr_fail(
            r->err, FR_EFORMAT,
            "%s.expert_group_count: %lld groups, %lld used, cannot give %lld of %lld experts",
            r->arch, (long long)hp->n_expert_group, (long long)hp->n_expert_group_used,
            (long long)hp->n_expert_used, (long long)hp->n_expert);
    return FR_OK;
}

static fr_status read_vocab_size(const reader *r, fr_hparams *hp)
{
    const fr_gguf_tensor *embd = fr_gguf_find_tensor(r->g, "token_embd.weight");
    if (!embd)
        return fr_fail(r->err, FR_ENOTFOUND, "token_embd.weight: missing; %s is not a whole model",
                       fr_gguf_path(r->g, 0));
    /* vocab_size may lack the padding of the matrix; the matrix decides. */
    hp->n_vocab = embd->dims[1];
    if (hp->n_vocab > INT32_MAX)
        return fr_fail(r->err, FR_EFORMAT,
                       "token_embd.weight: found %lld rows, expected at most %d",
                       (long long)hp->n_vocab, INT32_MAX);
    return FR_OK;
}

fr_status fr_hparams_read(const fr_gguf *g, const char *arch, fr_hparams *hp, fr_err *err)
{
    reader rd = {g, arch, err}, *r = &rd;
    int64_t n_block;
    *hp = (fr_hparams){0};
    FR_TRY(get_int(r, "block_count", 1, MAX_LAYERS, -1, &n_block));
    FR_TRY(get_int(r, "nextn_predict_layers", 0, n_block - 1, 0, &hp->n_nextn));
    hp->n_layer = n_block - hp->n_nextn;
    FR_TRY(get_int(r, "context_length", 1, INT32_MAX, -1, &hp->n_ctx_train));
    FR_TRY(get_int(r, "embedding_length", 1, DIM_MAX, -1, &hp->n_embd));
    FR_TRY(get_int(r, "feed_forward_length", 0, DIM_MAX, 0, &hp->n_ff));
    FR_TRY(get_float(r, "attention.layer_norm_rms_epsilon", 0, 1, NAN, &hp->rms_eps));
    FR_TRY(read_vocab_size(r, hp));
    FR_TRY(read_attention(r, hp));
    FR_TRY(read_rope(r, hp));
    FR_TRY(read_experts(r, hp));
    if (hp->n_nextn > 0)
        fr_log_info(
            "model: the last %lld of %lld layers predict further tokens (nextn); they are not used",
            (long long)hp->n_nextn, (long long)n_block);
    return FR_OK;
}

float fr_hparams_attn_scale(const fr_hparams *hp)
{
    double mscale = 1.0 + (double)hp->yarn_log_mul * log((double)hp->rope_factor);
    return (float)(mscale * mscale / sqrt((double)(hp->qk_nope + hp->qk_rope)));
}

/* The (fractional) pair that makes `turns` full turns within the original context. */
static double yarn_pair_of(const fr_hparams *hp, double turns)
{
    double ctx = (double)hp->rope_n_ctx_orig;
    return (double)hp->qk_rope * log(ctx / (turns * 2.0 * M_PI)) /
           (2.0 * log((double)hp->rope_base));
}

void fr_hparams_rope_freqs(const fr_hparams *hp, double *freqs)
{
    int64_t n = hp->qk_rope / 2;
    double low = 0, high = 0;
    if (hp->rope_scaling == FR_ROPE_SCALING_YARN) {
        low = fmax(0, floor(yarn_pair_of(hp, (double)hp->yarn_beta_fast)));
        high = fmin((double)(hp->qk_rope - 1), ceil(yarn_pair_of(hp, (double)hp->yarn_beta_slow)));
    }
    for (int64_t i = 0; i < n; i++) {
        double f = pow((double)hp->rope_base, -2.0 * (double)i / (double)hp->qk_rope);
        double slow = f / (double)hp->rope_factor;
        if (hp->rope_scaling == FR_ROPE_SCALING_YARN) {
            /* Fast pairs stay, slow ones are stretched, a ramp lies between. */
            double ramp = ((double)i - low) / fmax(0.001, high - low);
            ramp = fmin(1, fmax(0, ramp));
            freqs[i] = f * (1 - ramp) + slow * ramp;
        } else {
            freqs[i] = slow;
        }
    }
}
