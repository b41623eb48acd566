#include "support/tiny_models.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf.h"
#include "testing.h"

#define ARCH(key) "deepseek2." key

/* ---- vocabularies
 * --------------------------------------------------------------------------------------- */

typedef struct {
    parts_bytes texts, kinds, scores;
    uint32_t n;
} token_list;

static void add_str(parts_bytes *b, const char *s)
{
    uint64_t n = strlen(s);
    parts_bytes_add(b, &n, sizeof n);
    parts_bytes_add(b, s, n);
}

static void add_token(token_list *l, const char *text, int32_t kind, float score)
{
    add_str(&l->texts, text);
    parts_bytes_add(&l->kinds, &kind, sizeof kind);
    parts_bytes_add(&l->scores, &score, sizeof score);
    l->n++;
}

static void put_array(gguf_parts *p, const char *key, uint32_t type, uint64_t n,
                      const parts_bytes *elements)
{
    parts_bytes b = {0};
    parts_bytes_add(&b, &type, sizeof type);
    parts_bytes_add(&b, &n, sizeof n);
    parts_bytes_add(&b, elements->p, elements->n);
    parts_put(p, key, FR_GGUF_ARRAY, b.p, b.n);
    parts_bytes_free(&b);
}

static void put_tokens(gguf_parts *p, token_list *l, bool scores)
{
    put_array(p, "tokenizer.ggml.tokens", FR_GGUF_STR, l->n, &l->texts);
    put_array(p, "tokenizer.ggml.token_type", FR_GGUF_I32, l->n, &l->kinds);
    if (scores)
        put_array(p, "tokenizer.ggml.scores", FR_GGUF_F32, l->n, &l->scores);
    parts_bytes_free(&l->texts);
    parts_bytes_free(&l->kinds);
    parts_bytes_free(&l->scores);
}

static uint32_t put_spm(gguf_parts *p)
{
    static const char *const words[] = {"\xE2\x96\x81",     "e",  "t",   "a",
                                        "\xE2\x96\x81t",    "he", "h",   "\xE2\x96\x81the",
                                        "\xE2\x96\x81\xC3", "an", "n\n", "\xC3\xA9"};
    token_list l = {0};
    add_token(&l, "<unk>", 2, 0);
    add_token(&l, "<s>", 3, 0);
    add_token(&l, "</s>", 3, 0);
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        add_token(&l, text, 6, 0);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        add_token(&l, words[i], 1, -(float)i);
    add_token(&l, "<|own|>", 4, 0);
    uint32_t n = l.n;
    parts_put_str(p, "tokenizer.ggml.model", "llama");
    put_tokens(p, &l, true);
    parts_put_u32(p, "tokenizer.ggml.bos_token_id", 1);
    parts_put_u32(p, "tokenizer.ggml.eos_token_id", 2);
    parts_put_u32(p, "tokenizer.ggml.unknown_token_id", 0);
    return n;
}

/* Only letters and a blank: other bytes have no token. */
static uint32_t put_bpe(gguf_parts *p)
{
    static const char *const merges[] = {"t h", "th e", "\xC4\xA0 the", "a n", "an d"};
    static const char *const merged[] = {"th", "the", "\xC4\xA0the", "an", "and"};
    token_list l = {0};
    parts_bytes m = {0};
    add_token(&l, "<|begin|>", 3, 0);
    add_token(&l, "<|end|>", 3, 0);
    add_token(&l, "\xC4\xA0", 1, 0);
    for (char c = 'A'; c <= 'z'; c++)
        add_token(&l, (char[]){c, 0}, 1, 0);
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        add_token(&l, merged[i], 1, 0);
        add_str(&m, merges[i]);
    }
    uint32_t n = l.n;
    parts_put_str(p, "tokenizer.ggml.model", "gpt2");
    parts_put_str(p, "tokenizer.ggml.pre", "deepseek-llm");
    put_tokens(p, &l, false);
    put_array(p, "tokenizer.ggml.merges", FR_GGUF_STR, sizeof merges / sizeof *merges, &m);
    parts_put_u32(p, "tokenizer.ggml.bos_token_id", 0);
    parts_put_u32(p, "tokenizer.ggml.eos_token_id", 1);
    parts_put_bool(p, "tokenizer.ggml.add_bos_token", true);
    parts_put_str(
        p, "tokenizer.chat_template",
        "{{ bos_token }}{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}");
    parts_bytes_free(&m);
    return n;
}

/* ---- tensors
 * -------------------------------------------------------------------------------------------- */

typedef struct {
    gguf_parts p;
    uint64_t rng;
    int layer;
} builder;

static void put_float(builder *b, const char *name, int64_t n, float middle, float spread)
{
    parts_tensor *t = parts_add_tensor(&b->p, name, FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, &n);
    float *values = (float *)(void *)t->data.p;
    for (int64_t i = 0; i < n; i++)
        values[i] = middle + spread * test_rand_f(&b->rng);
}

/* Random numbers that keep the size of what they multiply. */
static void put_matrices(builder *b, const char *name, fr_type type, fr_layout layout, int64_t cols,
                         int64_t rows, int64_t mats)
{
    parts_tensor *t = parts_add_tensor(&b->p, name, type, layout, mats > 1 ? 3 : 2,
                                       (int64_t[]){cols, rows, mats});
    float *values = calloc((size_t)(rows * mats), (size_t)cols * sizeof *values);
    for (int64_t i = 0; values && i < rows * mats * cols; i++)
        values[i] = test_rand_f(&b->rng) * 1.7f / sqrtf((float)cols);
    parts_set_values(t, values);
    free(values);
}

static const char *in_layer(const builder *b, const char *rest)
{
    static char name[96];
    snprintf(name, sizeof name, "blk.%d.%s.weight", b->layer, rest);
    return name;
}

static void put(builder *b, const char *rest, fr_type type, int64_t cols, int64_t rows)
{
    put_matrices(b, in_layer(b, rest), type, FR_LAYOUT_PLAIN, cols, rows, 1);
}

static void put_norm(builder *b, const char *rest, int64_t n)
{
    put_float(b, in_layer(b, rest), n, 1.0f, 0.2f);
}

typedef struct {
    const char *key;
    uint32_t value;
} number;

static void put_numbers(gguf_parts *p, const number *n, size_t count)
{
    for (size_t i = 0; i < count; i++)
        parts_put_u32(p, n[i].key, n[i].value);
}

#define PUT_NUMBERS(p, list) put_numbers(p, list, sizeof(list) / sizeof *(list))

/* ---- V3
 * ------------------------------------------------------------------------------------------------
 */

enum { V3_EMBD = 32, V3_HEADS = 2, V3_NOPE = 24, V3_ROPE = 8, V3_V = 16, V3_LORA = 32, V3_EXP = 8 };

static void v3_numbers(gguf_parts *p)
{
    static const number numbers[] = {
        {ARCH("block_count"), 2},
        {ARCH("context_length"), 64},
        {ARCH("embedding_length"), V3_EMBD},
        {ARCH("feed_forward_length"), 64},
        {ARCH("leading_dense_block_count"), 1},
        {ARCH("attention.head_count"), V3_HEADS},
        {ARCH("attention.head_count_kv"), V3_HEADS},
        {ARCH("attention.q_lora_rank"), 32},
        {ARCH("attention.kv_lora_rank"), V3_LORA},
        {ARCH("attention.key_length"), V3_NOPE + V3_ROPE},
        {ARCH("attention.value_length"), V3_V},
        {ARCH("rope.dimension_count"), V3_ROPE},
        {ARCH("rope.scaling.original_context_length"), 16},
        {ARCH("expert_count"), V3_EXP},
        {ARCH("expert_used_count"), 3},
        {ARCH("expert_shared_count"), 1},
        {ARCH("expert_feed_forward_length"), 32},
        {ARCH("expert_group_count"), 4},
        {ARCH("expert_group_used_count"), 2},
        {ARCH("expert_gating_func"), 2},
    };
    PUT_NUMBERS(p, numbers);
    parts_put_f32(p, ARCH("attention.layer_norm_rms_epsilon"), 1e-6f);
    parts_put_f32(p, ARCH("rope.freq_base"), 10000.0f);
    parts_put_str(p, ARCH("rope.scaling.type"), "yarn");
    parts_put_f32(p, ARCH("rope.scaling.factor"), 4.0f);
    parts_put_f32(p, ARCH("rope.scaling.yarn_log_multiplier"), 0.1f);
    parts_put_bool(p, ARCH("expert_weights_norm"), true);
    parts_put_f32(p, ARCH("expert_weights_scale"), 2.5f);
}

static void v3_attention(builder *b)
{
    put_norm(b, "attn_norm", V3_EMBD);
    put(b, "attn_q_a", FR_TYPE_Q8_0, V3_EMBD, 32);
    put_norm(b, "attn_q_a_norm", 32);
    put(b, "attn_q_b", FR_TYPE_F16, 32, V3_HEADS * (V3_NOPE + V3_ROPE));
    put(b, "attn_kv_a_mqa", FR_TYPE_Q8_0, V3_EMBD, V3_LORA + V3_ROPE);
    put_norm(b, "attn_kv_a_norm", V3_LORA);
    put(b, "attn_kv_b", FR_TYPE_Q8_0, V3_LORA, V3_HEADS * (V3_NOPE + V3_V));
    put(b, "attn_output", FR_TYPE_Q4_0, V3_HEADS * V3_V, V3_EMBD);
}

gguf_parts tiny_v3(void)
{
    builder b = {.rng = 3};
    parts_put_str(&b.p, "general.architecture", "deepseek2");
    parts_put_str(&b.p, "general.name", "tiny v3");
    v3_numbers(&b.p);
    uint32_t n_vocab = put_spm(&b.p);
    put_matrices(&b, "token_embd.weight", FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, V3_EMBD, n_vocab, 1);
    put_float(&b, "output_norm.weight", V3_EMBD, 1.0f, 0.2f);
    put_matrices(&b, "output.weight", FR_TYPE_F16, FR_LAYOUT_PLAIN, V3_EMBD, n_vocab, 1);
    v3_attention(&b);
    put_norm(&b, "ffn_norm", V3_EMBD);
    put(&b, "ffn_gate", FR_TYPE_Q8_0, V3_EMBD, 64);
    put(&b, "ffn_up", FR_TYPE_BF16, V3_EMBD, 64);
    put(&b, "ffn_down", FR_TYPE_Q5_0, 64, V3_EMBD);
    b.layer = 1;
    v3_attention(&b);
    put_norm(&b, "ffn_norm", V3_EMBD);
    put(&b, "ffn_gate_inp", FR_TYPE_F32, V3_EMBD, V3_EXP);
    put_float(&b, "blk.1.exp_probs_b.bias", V3_EXP, 0.0f, 0.1f);
    put_matrices(&b, "blk.1.ffn_gate_exps.weight", FR_TYPE_Q8_0, FR_LAYOUT_INTERLEAVED, V3_EMBD, 32,
                 V3_EXP);
    put_matrices(&b, "blk.1.ffn_up_exps.weight", FR_TYPE_Q4_0, FR_LAYOUT_PLAIN, V3_EMBD, 32,
                 V3_EXP);
    put_matrices(&b, "blk.1.ffn_down_exps.weight", FR_TYPE_Q6_0, FR_LAYOUT_PLAIN, 32, V3_EMBD,
                 V3_EXP);
    put(&b, "ffn_gate_shexp", FR_TYPE_F32, V3_EMBD, 32);
    put(&b, "ffn_up_shexp", FR_TYPE_F16, V3_EMBD, 32);
    put(&b, "ffn_down_shexp", FR_TYPE_IQ4_NL, 32, V3_EMBD);
    return b.p;
}

/* ---- V2
 * ------------------------------------------------------------------------------------------------
 */

enum { V2_EMBD = 256, V2_HEADS = 2, V2_NOPE = 32, V2_ROPE = 8, V2_V = 32, V2_LORA = 32 };

static void v2_numbers(gguf_parts *p)
{
    static const number numbers[] = {
        {ARCH("block_count"), 2},
        {ARCH("context_length"), 48},
        {ARCH("embedding_length"), V2_EMBD},
        {ARCH("feed_forward_length"), 64},
        {ARCH("leading_dense_block_count"), 1},
        {ARCH("attention.head_count"), V2_HEADS},
        {ARCH("attention.head_count_kv"), 1},
        {ARCH("attention.kv_lora_rank"), V2_LORA},
        {ARCH("attention.key_length"), V2_LORA + V2_ROPE},
        {ARCH("attention.value_length"), V2_LORA},
        {ARCH("attention.key_length_mla"), V2_NOPE + V2_ROPE},
        {ARCH("attention.value_length_mla"), V2_V},
        {ARCH("rope.dimension_count"), V2_ROPE},
        {ARCH("expert_count"), 4},
        {ARCH("expert_used_count"), 2},
        {ARCH("expert_shared_count"), 0},
        {ARCH("expert_feed_forward_length"), 32},
    };
    PUT_NUMBERS(p, numbers);
    parts_put_f32(p, ARCH("attention.layer_norm_rms_epsilon"), 1e-5f);
}

static void v2_attention(builder *b)
{
    char name[96];
    put_norm(b, "attn_norm", V2_EMBD);
    put(b, "attn_q", FR_TYPE_Q6_K, V2_EMBD, V2_HEADS * (V2_NOPE + V2_ROPE));
    put(b, "attn_kv_a_mqa", FR_TYPE_IQ4_XS, V2_EMBD, V2_LORA + V2_ROPE);
    put_norm(b, "attn_kv_a_norm", V2_LORA);
    snprintf(name, sizeof name, "blk.%d.attn_k_b.weight", b->layer);
    put_matrices(b, name, FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, V2_NOPE, V2_LORA, V2_HEADS);
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", b->layer);
    put_matrices(b, name, FR_TYPE_F16, FR_LAYOUT_PLAIN, V2_LORA, V2_V, V2_HEADS);
    put(b, "attn_output", FR_TYPE_Q8_0, V2_HEADS * V2_V, V2_EMBD);
}

gguf_parts tiny_v2(void)
{
    builder b = {.rng = 2};
    parts_put_str(&b.p, "general.architecture", "deepseek2");
    v2_numbers(&b.p);
    uint32_t n_vocab = put_bpe(&b.p);
    put_matrices(&b, "token_embd.weight", FR_TYPE_Q6_K, FR_LAYOUT_PLAIN, V2_EMBD, n_vocab, 1);
    put_float(&b, "output_norm.weight", V2_EMBD, 1.0f, 0.2f);
    v2_attention(&b);
    put_norm(&b, "ffn_norm", V2_EMBD);
    put(&b, "ffn_gate", FR_TYPE_Q6_K, V2_EMBD, 64);
    put_matrices(&b, "blk.0.ffn_up.weight", FR_TYPE_Q6_K, FR_LAYOUT_INTERLEAVED, V2_EMBD, 64, 1);
    put(&b, "ffn_down", FR_TYPE_Q8_0, 64, V2_EMBD);
    b.layer = 1;
    v2_attention(&b);
    put_norm(&b, "ffn_norm", V2_EMBD);
    put(&b, "ffn_gate_inp", FR_TYPE_F32, V2_EMBD, 4);
    put_matrices(&b, "blk.1.ffn_gate_exps.weight", FR_TYPE_Q4_K, FR_LAYOUT_INTERLEAVED, V2_EMBD, 32,
                 4);
    put_matrices(&b, "blk.1.ffn_up_exps.weight", FR_TYPE_IQ4_K, FR_LAYOUT_PLAIN, V2_EMBD, 32, 4);
    put_matrices(&b, "blk.1.ffn_down_exps.weight", FR_TYPE_Q8_0, FR_LAYOUT_INTERLEAVED, 32, V2_EMBD,
                 4);
    return b.p;
}
