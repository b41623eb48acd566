/* The KV cache of one sequence.
 *
 * With the latent cache a position has one row a layer: c_kv after its norm, then the rotated part
 * of K; V is a view of c_kv. With the plain cache (-mla 0) a position has a K row and a V row for
 * every head. A row is stored in the cache type, its width rounded up to whole blocks of that type
 * (zero padded).
 *
 * In every type but f32 the last `window` positions are kept a second time, exact, in a ring of
 * float32 rows; attention reads those for the neighbours of a token and the rounded rows for the
 * rest. Rounding hurts most where attention looks most, and near-ties in expert selection then flip
 * far less often (the idea is the residual of Liu et al. 2024, "KIVI"). It costs as much as 2 *
 * window positions of f16.
 *
 * Bytes per token of the latent cache: n_layer * (kv_lora_rank + qk_rope) * bytes per number;
 * DeepSeek-R1 at 16384 tokens in f16: 61 * 576 * 2 * 16384 = 1098.00 MiB. */
#ifndef FR_KV_KV_H
#define FR_KV_KV_H

#include "model/model.h"

typedef struct {
    fr_type type;
    int64_t width;   /* numbers that mean something; 0: no such rows */
    int64_t stored;  /* width rounded up to whole blocks */
    int64_t per_pos; /* rows of one position: 1 (latent) or n_head */
    size_t row_bytes;
} fr_kv_rows;

enum {
    FR_KV_WINDOW = 256,         /* the default */
    FR_KV_WINDOW_STEP = 32,     /* what it must be a multiple of */
    FR_KV_WINDOW_MAX = 1 << 20, /* and the most */
};

typedef struct {
    int64_t n_layer;
    fr_kv_rows k, v; /* latent: all in k */
    int64_t window;  /* exact positions; 0 when the cache is exact itself */
} fr_kv_layout;

/* The layout for a model; type_v counts for the plain cache only. FR_EUNSUPPORTED for a type that
 * cannot be written row by row, FR_ERANGE for a window below 0, off the step or above the most. */
fr_status fr_kv_layout_make(const fr_model *m, fr_type type_k, fr_type type_v, int64_t window,
                            fr_kv_layout *out, fr_err *err);

size_t fr_kv_pos_bytes(const fr_kv_layout *l); /* of one position, all layers */
/* Of one layer, 64-byte aligned; what is too much to count is more than can be allocated. */
size_t fr_kv_layer_bytes(const fr_kv_layout *l, int64_t n_ctx);
size_t fr_kv_recent_bytes(const fr_kv_layout *l); /* of one layer's ring of exact rows */

typedef struct {
    fr_kv_layout layout;
    int64_t n_ctx; /* positions */
    size_t layer_bytes;
    int *slot;          /* [n_layer], owned: which of the layers below, or -1: not here */
    uint8_t *data;      /* owned */
    float *recent;      /* owned; position p is row p % window of a layer's ring */
    int64_t exact_from; /* the rings hold positions from here to the end of the sequence */
} fr_kv;

/* here: [n_layer], the layers that are kept in RAM; NULL: all. The others must not be asked for. */
fr_status fr_kv_open(const fr_kv_layout *l, int64_t n_ctx, const bool *here, fr_kv **out,
                     fr_err *err);
void fr_kv_close(fr_kv *kv);

/* Tells that positions [pos0, pos0 + n) were written to all layers, or that all from n on are
 * forgotten. */
void fr_kv_appended(fr_kv *kv, int64_t pos0, int64_t n);
void fr_kv_truncated(fr_kv *kv, int64_t n);

/* Writes the rows of positions [0, have) again and again behind themselves, up to position n: a
 * cache to measure speeds on, not one to get text from. 0 < have <= n <= n_ctx. */
void fr_kv_repeat(fr_kv *kv, int64_t have, int64_t n);

/* Copies positions [0, n) of another cache of the same layout and size, and its rings. */
void fr_kv_copy(fr_kv *to, const fr_kv *from, int64_t n);

/* The ring of exact rows of a layer (row 0); NULL without a window. */
float *fr_kv_recent_k(const fr_kv *kv, int layer);
float *fr_kv_recent_v(const fr_kv *kv, int layer);

/* First row of position 0 of a layer; position p starts per_pos * row_bytes * p further. */
uint8_t *fr_kv_k(const fr_kv *kv, int layer);
uint8_t *fr_kv_v(const fr_kv *kv, int layer);

#endif
