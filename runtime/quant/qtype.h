/* Quantized types: the public face of the registry in types.def.
 *
 * A weight matrix is rows x cols, stored row by row. A *type* says how numbers are coded; a
 * *layout* says how rows are arranged in memory: PLAIN        rows one after another; a row is
 * `row_meta` bytes and then its blocks; INTERLEAVED  `group` rows stand together (the _r4, _r8,
 * _r16 forms of GGUF files): first their row headers, then block 0 of all rows, block 1 of all
 * rows, ...; NATIVE  the same with 16 rows and the bits of a block arranged as kernels read them
 * fastest, ferry's own. All hold the same bits, so repacking is lossless both ways.
 *
 * Source of all formats: the ecosystem's GGUF files; each type's header has its byte map. */
#ifndef FR_QUANT_QTYPE_H
#define FR_QUANT_QTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

typedef enum {
#define X(ID, ...) FR_TYPE_##ID,
#include "quant/types.def"
#undef X
    FR_TYPE_COUNT
} fr_type;

typedef enum {
    FR_LAYOUT_PLAIN,
    FR_LAYOUT_INTERLEAVED,
    FR_LAYOUT_NATIVE, /* in memory only: no file, no GGUF id */
    FR_LAYOUT_COUNT
} fr_layout;

/* How a kernel wants the other operand of a dot product (quant/act.h). */
typedef enum {
    FR_ACT_F32,   /* float32, for weights that are floats themselves */
    FR_ACT_Q8_32, /* int8 with a scale per 32, for types with blocks of 32 */
    FR_ACT_Q8_256 /* int8 with a scale per 256 and sums per 16, for types with blocks of 256 */
} fr_act_type;

/* One row of the registry. */
typedef struct {
    const char *name;        /* as GGUF tools print it: "q4_K" */
    int weights;             /* per block */
    int bytes;               /* per block */
    fr_act_type act;         /* of the dot product */
    int gguf_id;             /* of the plain form in files; -1 when files have none */
    int row_meta;            /* bytes of the row header, plain and native */
    int group;               /* rows per group when interleaved; 0 = no interleaved form */
    int il_row_meta;         /* bytes of the row header, interleaved (differs for q8_KV only) */
    int il_gguf_id;          /* of the interleaved form in files; -1 when files have none */
    const char *il_name;     /* "q4_k_r4"; NULL without an interleaved form */
    int native_group;        /* rows per group in the native form, 16; 0 = no native form */
    const char *native_name; /* "q4_K_native"; NULL without one */
    bool float_decode; /* decode is not (integer times float): results may differ by rounding */
    int il_weights; /* per block when interleaved; cols must be a multiple (differs for f16, bf16)
                     */
    bool il_only;   /* has no plain form; name is il_name then */
} fr_type_info;

const fr_type_info *fr_type_get(fr_type type); /* never NULL for a valid type */

/* The (type, layout) of a GGUF type id, or of a name ("q4_K", "Q4_K", "q4_k_r4"); false when
 * unknown. Names compare without case. */
bool fr_type_from_gguf(uint32_t id, fr_type *type, fr_layout *layout);
bool fr_type_from_name(fr_str name, fr_type *type, fr_layout *layout);
const char *fr_type_name(fr_type type, fr_layout layout);
const char *fr_layout_name(fr_layout layout); /* "plain", "interleaved", "native" */

/* Bytes of one row. THE function: nobody else multiplies blocks by bytes. `cols` must be a multiple
 * of the type's weights per block (fr_type_check). Interleaved: group bytes / group. */
size_t fr_row_bytes(fr_type type, fr_layout layout, int64_t cols);

/* Rows that stand together: 1 when plain, 0 where the type has no such layout. A matrix's rows are
 * a multiple of it. */
int fr_layout_rows(fr_type type, fr_layout layout);

/* Whether a matrix of rows x cols can be stored so. FR_EINVAL names the multiple that is needed. */
fr_status fr_type_check(fr_type type, fr_layout layout, int64_t rows, int64_t cols, fr_err *err);

/* The layout that kernels read fastest of those in which a matrix of rows x cols can stand: what a
 * plain matrix is repacked to when it is loaded: NATIVE, or else INTERLEAVED, or, where rows or
 * cols fit no group, PLAIN. Does not depend on the machine. */
fr_layout fr_layout_in_memory(fr_type type, int64_t rows, int64_t cols);

/* Reference decode of row i_row of a matrix at `base` (the first byte of row 0; interleaved: of
 * group 0) into cols floats. Scalar C, exact as the formats say. */
void fr_decode_row(fr_type type, fr_layout layout, const void *base, int64_t i_row, int64_t cols,
                   float *out);

/* Reference dot product: decoded row times x, accumulated in double. */
double fr_dot_row(fr_type type, fr_layout layout, const void *base, int64_t i_row, int64_t cols,
                  const float *x);

/* Whether fr_encode_row can write this type. */
bool fr_type_can_encode(fr_type type);

/* Quantizes one row of cols floats into the plain form at dst (fr_row_bytes bytes). `importance`
 * (cols floats, or NULL) weighs the squared errors. x must be finite. */
void fr_encode_row(fr_type type, const float *x, int64_t cols, const float *importance, void *dst);

/* Repacks whole groups between layouts: n_rows (a multiple of the group) of `cols` from src to dst,
 * which must not overlap. FR_EUNSUPPORTED when the type has one layout only. */
fr_status fr_repack(fr_type type, fr_layout from, fr_layout to, int64_t n_rows, int64_t cols,
                    const void *src, void *dst, fr_err *err);

/* A stack of n_mat equal matrices (experts, heads; 1 for a plain weight) in memory that somebody
 * else owns. Row r of matrix m starts its group at data + m * mat_bytes + ... (fr_decode_row). */
typedef struct {
    fr_type type;
    fr_layout layout;
    int64_t cols, rows, n_mat;
    size_t mat_bytes; /* rows * fr_row_bytes */
    const void *data;
} fr_weight;

/* Fills everything but data. */
fr_weight fr_weight_make(fr_type type, fr_layout layout, int64_t cols, int64_t rows, int64_t n_mat);

#endif
