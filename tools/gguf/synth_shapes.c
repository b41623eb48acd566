/* The shapes of models that ferry is made for, as their files state them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "synth.h"

static const synth_shape shapes[] = {
    {.name = "v2-lite",
     .title = "DeepSeek V2 Lite",
     .n_layer = 27,
     .n_dense = 1,
     .n_embd = 2048,
     .n_ff = 10944,
     .n_head = 16,
     .kv_lora = 512,
     .nope = 128,
     .rope = 64,
     .v_head = 128,
     .n_expert = 64,
     .n_expert_used = 6,
     .n_expert_shared = 2,
     .n_ff_exp = 1408,
     .n_vocab = 102400,
     .n_ctx = 163840,
     .expert_scale = 1.0f,
     .rope_base = 10000.0f,
     .yarn_factor = 40.0f,
     .yarn_log = 0.0707f},
    {.name = "v3",
     .title = "DeepSeek V3",
     .n_layer = 61,
     .n_dense = 3,
     .n_embd = 7168,
     .n_ff = 18432,
     .n_head = 128,
     .q_lora = 1536,
     .kv_lora = 512,
     .nope = 128,
     .rope = 64,
     .v_head = 128,
     .n_expert = 256,
     .n_expert_used = 8,
     .n_expert_shared = 1,
     .n_ff_exp = 2048,
     .n_vocab = 129280,
     .n_ctx = 163840,
     .sigmoid = true,
     .expert_scale = 2.5f,
     .rope_base = 10000.0f,
     .yarn_factor = 40.0f,
     .yarn_log = 0.1f},
    {.name = "kimi-k2",
     .title = "Kimi K2",
     .n_layer = 61,
     .n_dense = 1,
     .n_embd = 7168,
     .n_ff = 18432,
     .n_head = 64,
     .q_lora = 1536,
     .kv_lora = 512,
     .nope = 128,
     .rope = 64,
     .v_head = 128,
     .n_expert = 384,
     .n_expert_used = 8,
     .n_expert_shared = 1,
     .n_ff_exp = 2048,
     .n_vocab = 163840,
     .n_ctx = 131072,
     .sigmoid = true,
     .split_kv_b = true,
     .expert_scale = 2.827f,
     .rope_base = 50000.0f,
     .yarn_factor = 32.0f,
     .yarn_log = 0.1f},
    {.name = "tiny",
     .title = "tiny",
     .n_layer = 3,
     .n_dense = 1,
     .n_embd = 256,
     .n_ff = 512,
     .n_head = 4,
     .q_lora = 256,
     .kv_lora = 256,
     .nope = 64,
     .rope = 32,
     .v_head = 64,
     .n_expert = 8,
     .n_expert_used = 2,
     .n_expert_shared = 1,
     .n_ff_exp = 256,
     .n_vocab = 4096,
     .n_ctx = 4096,
     .sigmoid = true,
     .expert_scale = 1.0f,
     .rope_base = 10000.0f},
    {.name = "tiny-split-kv",
     .title = "tiny, split kv_b",
     .n_layer = 3,
     .n_dense = 1,
     .n_embd = 256,
     .n_ff = 512,
     .n_head = 4,
     .q_lora = 256,
     .kv_lora = 256,
     .nope = 64,
     .rope = 32,
     .v_head = 64,
     .n_expert = 8,
     .n_expert_used = 2,
     .n_expert_shared = 1,
     .n_ff_exp = 256,
     .n_vocab = 512,
     .n_ctx = 4096,
     .sigmoid = true,
     .split_kv_b = true,
     .expert_scale = 1.0f,
     .rope_base = 10000.0f},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_LAYERS = 1000 };

/* ---- by name -------------------------------------------------------------------------------- */

/* "-N-layers" behind a shape's name; an empty rest keeps the layers of the original. */
static bool parse_layers(const char *rest, int64_t *n_layer)
{
    char *end;
    if (!*rest)
        return true;
    if (*rest != '-' || rest[1] < '0' || rest[1] > '9')
        return false;
    long n = strtol(rest + 1, &end, 10);
    if (n < 1 || n > MAX_LAYERS || (strcmp(end, "-layers") != 0 && strcmp(end, "-layer") != 0))
        return false;
    *n_layer = n;
    return true;
}

fr_status synth_shape_find(const char *text, synth_shape *out, fr_err *err)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        size_t n = strlen(shapes[i].name);
        *out = shapes[i];
        if (strncmp(text, shapes[i].name, n) != 0 || !parse_layers(text + n, &out->n_layer))
            continue;
        /* A model of few layers still has one with experts. */
        if (out->n_dense >= out->n_layer)
            out->n_dense = out->n_layer - 1;
        return FR_OK;
    }
    char names[128] = "";
    for (size_t i = 0; i < N_SHAPES; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "",
                 shapes[i].name);
    return fr_fail(err, FR_EINVAL,
                   "--shape: found '%.80s', expected %s, or one of them with -N-layers (1 to %d) "
                   "behind it",
                   text, names, MAX_LAYERS);
}

/* ---- keys ----------------------------------------------------------------------------------- */

#define KEY "deepseek2."

static fr_status put_ints(fr_gguf_writer *w, const synth_shape *s, fr_err *err)
{
    const bool split = s->split_kv_b;
    const struct {
        const char *key;
        int64_t value;
    } ints[] = {
        {KEY "block_count", s->n_layer},
        {KEY "context_length", s->n_ctx},
        {KEY "embedding_length", s->n_embd},
        {KEY "feed_forward_length", s->n_ff},
        {KEY "attention.head_count", s->n_head},
        {KEY "attention.head_count_kv", split ? 1 : s->n_head},
        {KEY "expert_used_count", s->n_expert_used},
        {KEY "leading_dense_block_count", s->n_dense},
        {KEY "vocab_size", s->n_vocab},
        {KEY "attention.q_lora_rank", s->q_lora},
        {KEY "attention.kv_lora_rank", s->kv_lora},
        {KEY "attention.key_length", (split ? s->kv_lora : s->nope) + s->rope},
        {KEY "attention.value_length", split ? s->kv_lora : s->v_head},
        {KEY "attention.key_length_mla", split ? s->nope + s->rope : 0},
        {KEY "attention.value_length_mla", split ? s->v_head : 0},
        {KEY "expert_feed_forward_length", s->n_ff_exp},
        {KEY "expert_count", s->n_expert},
        {KEY "expert_shared_count", s->n_expert_shared},
        {KEY "expert_gating_func", s->sigmoid ? 2 : 1},
        {KEY "rope.dimension_count", s->rope},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (ints[i].value || strstr(ints[i].key, "leading_dense"))
            FR_TRY(fr_gguf_put_u32(w, ints[i].key, (uint32_t)ints[i].value, err));
    return FR_OK;
}

fr_status synth_put_shape(fr_gguf_writer *w, const synth_shape *s, fr_err *err)
{
    FR_TRY(put_ints(w, s, err));
    FR_TRY(fr_gguf_put_f32(w, KEY "rope.freq_base", s->rope_base, err));
    FR_TRY(fr_gguf_put_f32(w, KEY "attention.layer_norm_rms_epsilon", 1e-6f, err));
    FR_TRY(fr_gguf_put_f32(w, KEY "expert_weights_scale", s->expert_scale, err));
    FR_TRY(fr_gguf_put_bool(w, KEY "expert_weights_norm", s->sigmoid, err));
    if (s->yarn_factor == 0)
        return FR_OK;
    FR_TRY(fr_gguf_put_str(w, KEY "rope.scaling.type", FR_STR("yarn"), err));
    FR_TRY(fr_gguf_put_f32(w, KEY "rope.scaling.factor", s->yarn_factor, err));
    FR_TRY(fr_gguf_put_u32(w, KEY "rope.scaling.original_context_length", 4096, err));
    return fr_gguf_put_f32(w, KEY "rope.scaling.yarn_log_multiplier", s->yarn_log, err);
}

/* ---- tensors -------------------------------------------------------------------------------- */

typedef struct {
    synth_tensor_fn fn;
    void *user;
    fr_err *err;
    int64_t layer; /* -1: none */
    fr_status st;  /* of the first failure: nothing is done after it */
} walk;

/* Dimensions of 0 are left out. `fan_in`: how many products a result is the sum of. */
static void add(walk *k, const char *name, synth_kind kind, int64_t cols, int64_t rows,
                int64_t mats, int64_t fan_in)
{
    synth_tensor t = {.kind = kind,
                      .n_dims = mats   ? 3
                                : rows ? 2
                                       : 1,
                      .dims = {cols, rows ? rows : 1, mats ? mats : 1},
                      .sigma = 1.0f / sqrtf((float)fan_in)};
    if (k->st != FR_OK)
        return;
    if (k->layer < 0)
        snprintf(t.name, sizeof t.name, "%s", name);
    else
        snprintf(t.name, sizeof t.name, "blk.%d.%s", (int)k->layer, name);
    k->st = k->fn(k->user, &t, k->err);
}

static void add_matrix(walk *k, const char *name, int64_t cols, int64_t rows)
{
    add(k, name, SYNTH_MATRIX, cols, rows, 0, cols);
}

static void add_norm(walk *k, const char *name, int64_t n)
{
    add(k, name, SYNTH_NORM, n, 0, 0, 1);
}

static void add_attention(walk *k, const synth_shape *s)
{
    int64_t q_rows = s->n_head * (s->nope + s->rope);
    add_norm(k, "attn_norm.weight", s->n_embd);
    if (s->q_lora) {
        add_matrix(k, "attn_q_a.weight", s->n_embd, s->q_lora);
        add_norm(k, "attn_q_a_norm.weight", s->q_lora);
        add_matrix(k, "attn_q_b.weight", s->q_lora, q_rows);
    } else {
        add_matrix(k, "attn_q.weight", s->n_embd, q_rows);
    }
    add_matrix(k, "attn_kv_a_mqa.weight", s->n_embd, s->kv_lora + s->rope);
    add_norm(k, "attn_kv_a_norm.weight", s->kv_lora);
    if (s->split_kv_b) { /* k_b is stored transposed: its results are sums over kv_lora */
        add(k, "attn_k_b.weight", SYNTH_MATRIX, s->nope, s->kv_lora, s->n_head, s->kv_lora);
        add(k, "attn_v_b.weight", SYNTH_MATRIX, s->kv_lora, s->v_head, s->n_head, s->kv_lora);
    } else {
        add_matrix(k, "attn_kv_b.weight", s->kv_lora, s->n_head * (s->nope + s->v_head));
    }
    add_matrix(k, "attn_output.weight", s->n_head * s->v_head, s->n_embd);
}

static void add_experts(walk *k, const synth_shape *s)
{
    int64_t n = s->n_expert, shared = s->n_expert_shared * s->n_ff_exp;
    add(k, "ffn_gate_inp.weight", SYNTH_ROUTER, s->n_embd, n, 0, s->n_embd);
    if (s->sigmoid)
        add(k, "exp_probs_b.bias", SYNTH_BIAS, n, 0, 0, 1);
    add(k, "ffn_gate_exps.weight", SYNTH_MATRIX, s->n_embd, s->n_ff_exp, n, s->n_embd);
    add(k, "ffn_up_exps.weight", SYNTH_MATRIX, s->n_embd, s->n_ff_exp, n, s->n_embd);
    add(k, "ffn_down_exps.weight", SYNTH_MATRIX, s->n_ff_exp, s->n_embd, n, s->n_ff_exp);
    add_matrix(k, "ffn_gate_shexp.weight", s->n_embd, shared);
    add_matrix(k, "ffn_up_shexp.weight", s->n_embd, shared);
    add_matrix(k, "ffn_down_shexp.weight", shared, s->n_embd);
}

static void add_dense(walk *k, const synth_shape *s)
{
    add_matrix(k, "ffn_gate.weight", s->n_embd, s->n_ff);
    add_matrix(k, "ffn_up.weight", s->n_embd, s->n_ff);
    add_matrix(k, "ffn_down.weight", s->n_ff, s->n_embd);
}

fr_status synth_each_tensor(const synth_shape *s, synth_tensor_fn fn, void *user, fr_err *err)
{
    walk k = {.fn = fn, .user = user, .err = err, .layer = -1};
    add(&k, "token_embd.weight", SYNTH_LOOKUP, s->n_embd, s->n_vocab, 0, 1);
    add_norm(&k, "output_norm.weight", s->n_embd);
    add_matrix(&k, "output.weight", s->n_embd, s->n_vocab);
    for (k.layer = 0; k.layer < s->n_layer && k.st == FR_OK; k.layer++) {
        add_attention(&k, s);
        add_norm(&k, "ffn_norm.weight", s->n_embd);
        if (k.layer < s->n_dense)
            add_dense(&k, s);
        else
            add_experts(&k, s);
    }
    return k.st;
}
