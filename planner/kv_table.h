/* KV tables: what the cache of a model costs, by type and length of the context.
 *
 * For model files that ferry opens, the figures are those of the cache itself (kv/kv.h). The
 * built-in shapes say the same about published models, also those that this version cannot run,
 * from rows: a kind of row is kept by n_layers layers, once for every `every` tokens, `width`
 * numbers wide, for at most the last `most` tokens (0: all). Then
 *
 *     bytes(n) = sum over kinds of n_layers * (min(n, most) / every) * bytes of a row
 *
 * A row is rounded up to whole blocks of its type. Sources, all public:
 *
 *   V2-Lite, V3, R1, Kimi-K2   DeepSeek-V2 (2024) section 2.1: one latent row a token and layer,
 *                              kv_lora_rank + qk_rope_head_dim = 512 + 64; num_hidden_layers of
 *                              each config.json
 *   V3.2                       DeepSeek-V3.2 (2025): V3 and one key of the lightning indexer a
 *                              token and layer, index_head_dim = 128
 *   GLM-5                      its config.json: 78 layers, kv_lora_rank 512, qk_rope_head_dim 64,
 *                              index_head_dim 128
 *   GLM-5.2                    as GLM-5, but only layers whose indexer_types is "full" have an
 *                              indexer (0, 1, 2, then every fourth from 6 to 74: 21 of 78); the
 *                              others use its choice again (IndexShare)
 *   V4-Pro, V4-Flash           DeepSeek-V4 (2026) and its config.json: one row of head_dim = 512
 *                              serves as K and V. Compressed sparse attention keeps one row and one
 *                              indexer key (128) for every 4 tokens, heavily compressed attention
 *                              one row for every 128; every layer keeps the last 128 tokens whole
 *                              (sliding_window). Pro: 61 layers, 30 sparse and 31 heavily
 *                              compressed. Flash: 43 layers, the first two with the window only,
 *                              then 21 sparse and 20 heavily compressed in turn. */
#ifndef FR_PLANNER_KV_TABLE_H
#define FR_PLANNER_KV_TABLE_H

#include "model/model.h"

enum { PLAN_KV_KINDS = 4 };

typedef struct {
    int n_layers; /* 0: no such kind */
    int width, every;
    int64_t most;
} plan_kv_kind;

typedef struct {
    const char *name;
    int n_layer;
    int64_t n_ctx_train;
    plan_kv_kind kinds[PLAN_KV_KINDS];
} plan_kv_shape;

size_t plan_kv_n_shapes(void);
const plan_kv_shape *plan_kv_shape_at(size_t i);
const plan_kv_shape *plan_kv_shape_find(const char *name); /* NULL: none; without case */

/* Of one sequence of n_tokens. */
uint64_t plan_kv_shape_bytes(const plan_kv_shape *s, fr_type type, int64_t n_tokens);
/* What a long sequence grows by, on average over whole groups: the kinds without `most`. */
double plan_kv_shape_token_bytes(const plan_kv_shape *s, fr_type type);

typedef struct {
    const fr_model *model; /* NULL: the built-in shapes */
    const fr_type *types;  /* rows */
    size_t n_types;
    const int64_t *lengths; /* columns */
    size_t n_lengths;
    int64_t kv_window; /* named below the table of a model */
} fr_kv_table_args;

/* Appends the table for people. FR_EUNSUPPORTED for a type that no cache can have. */
fr_status fr_kv_table_print(const fr_kv_table_args *args, fr_buf *out, fr_err *err);

#endif
