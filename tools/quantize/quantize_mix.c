#include "quantize_mix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Conditions of rules, as bits. */
enum {
    ANY = 0,
    FIRST_2 = 1,
    FIRST_4 = 1 << 1,
    FIRST_8TH = 1 << 2, /* part of the layers */
    FIRST_16TH = 1 << 3,
    MIDDLE = 1 << 4,    /* neither the first nor the last 8th */
    MORE_BITS = 1 << 5, /* the first and last 8th, and every third between */
    IMATRIX = 1 << 6,
    NO_IMATRIX = 1 << 7,
    GQA_2 = 1 << 8, /* so many query heads share a key */
    GQA_4 = 1 << 9,
    EXPERTS = 1 << 10, /* 4 or more */
    EIGHT_EXPERTS = 1 << 11,
    ONE_MATRIX = 1 << 12, /* not a stack of experts */
    ODD_ROWS = 1 << 13    /* not a multiple of 256 weights */
};

/* In the order in which names are tried. */
#define ROLES(X)                                                                                   \
    X(TOKEN_EMBD, "token_embd.weight")                                                             \
    X(ATTN_V, "attn_v.weight")                                                                     \
    X(ATTN_K, "attn_k.weight")                                                                     \
    X(ATTN_Q, "attn_q.weight")                                                                     \
    X(ATTN_QKV, "attn_qkv.weight")                                                                 \
    X(ATTN_OUTPUT, "attn_output.weight")                                                           \
    X(FFN_DOWN, "ffn_down")                                                                        \
    X(FFN_GATE, "ffn_gate")                                                                        \
    X(FFN_UP, "ffn_up")

typedef enum {
#define X(ID, part) ID,
    ROLES(X)
#undef X
        OUTPUT,
    OTHER
} role;

typedef struct {
    role role;
    uint64_t mixes;
    unsigned conditions;
    fr_type type;
} rule;

_Static_assert(TOOL_MIX_COUNT <= 64, "a set of mixes is a 64-bit mask");

#define M(mix) (1ull << TOOL_MIX_##mix)
#define ALL    UINT64_MAX

static const rule rules[] = {
#define RULE(role, mixes, conditions, type) {role, mixes, conditions, FR_TYPE_##type},
#include "mix_rules.def"
#undef RULE
};

/* ---- the model ------------------------------------------------------------------------------ */

static int64_t read_key(const fr_gguf *g, const char *suffix)
{
    char key[160];
    fr_str arch;
    int64_t value;
    if (fr_gguf_get_str(g, "general.architecture", &arch, NULL) != FR_OK || arch.n > 64)
        return 0;
    snprintf(key, sizeof key, "%.*s.%s", FR_STR_ARG(arch), suffix);
    return fr_gguf_get_i64(g, key, &value, NULL) == FR_OK && value > 0 ? value : 0;
}

quantize_model quantize_model_of(const fr_gguf *g, bool has_imatrix)
{
    int64_t n_head = read_key(g, "attention.head_count"),
            n_kv = read_key(g, "attention.head_count_kv");
    return (quantize_model){
        .n_layer = read_key(g, "block_count"),
        .n_expert = read_key(g, "expert_count"),
        .n_gqa = n_head && n_kv ? n_head / n_kv : 1,
        .has_output = fr_gguf_find_tensor(g, "output.weight") != NULL,
        .has_imatrix = has_imatrix,
    };
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

bool quantize_is_matrix(const fr_gguf_tensor *t)
{
    return t->n_dims >= 2 && ends_with(t->name, "weight") && !ends_with(t->name, "_norm.weight") &&
           !strstr(t->name, "ffn_gate_inp");
}

bool quantize_is_lookup(const fr_gguf_tensor *t)
{
    return strcmp(t->name, "token_embd.weight") == 0;
}

bool quantize_is_output(const quantize_model *m, const fr_gguf_tensor *t)
{
    return strcmp(t->name, "output.weight") == 0 || (!m->has_output && quantize_is_lookup(t));
}

/* ---- rules ---------------------------------------------------------------------------------- */

static role role_of(const quantize_model *m, const fr_gguf_tensor *t)
{
    static const char *const parts[] = {
#define X(ID, part) part,
        ROLES(X)
#undef X
    };
    if (quantize_is_output(m, t))
        return OUTPUT;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(t->name, parts[i]))
            return (role)i;
    return OTHER;
}

/* Of "blk.N."; -1 without a layer. */
static int64_t layer_of(const char *name)
{
    char *end;
    if (strncmp(name, "blk.", 4) != 0)
        return -1;
    long n = strtol(name + 4, &end, 10);
    return end != name + 4 && *end == '.' && n >= 0 ? n : -1;
}

static unsigned layer_conditions(int64_t i, int64_t n)
{
    bool first = i < n / 8, last = i >= 7 * n / 8;
    unsigned c = 0;
    if (i < 0 || i >= n)
        return 0;
    c |= i < 2 ? FIRST_2 : 0;
    c |= i < 4 ? FIRST_4 : 0;
    c |= first ? FIRST_8TH : 0;
    c |= i < n / 16 ? FIRST_16TH : 0;
    c |= !first && !last ? MIDDLE : 0;
    c |= first || last || (i - n / 8) % 3 == 2 ? MORE_BITS : 0;
    return c;
}

static unsigned conditions_of(const quantize_model *m, const fr_gguf_tensor *t)
{
    unsigned c = layer_conditions(layer_of(t->name), m->n_layer);
    c |= m->has_imatrix ? IMATRIX : NO_IMATRIX;
    c |= m->n_gqa >= 2 ? GQA_2 : 0;
    c |= m->n_gqa >= 4 ? GQA_4 : 0;
    c |= m->n_expert >= 4 ? EXPERTS : 0;
    c |= m->n_expert == 8 ? EIGHT_EXPERTS : 0;
    c |= t->dims[2] == 1 ? ONE_MATRIX : 0;
    c |= t->dims[0] % 256 ? ODD_ROWS : 0;
    return c;
}

static bool is_float(fr_type type)
{
    return type == FR_TYPE_F32 || type == FR_TYPE_F16 || type == FR_TYPE_BF16;
}

fr_type quantize_mix_type(const quantize_model *m, tool_mix_id mix, const fr_gguf_tensor *t)
{
    fr_type base = tool_mix_get(mix)->base;
    role r = role_of(m, t);
    unsigned c = conditions_of(m, t);
    if (is_float(base))
        return base;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].role == r && (rules[i].mixes >> mix & 1) && (rules[i].conditions & ~c) == 0)
            return rules[i].type;
    return base;
}
