/* What becomes of each tensor: decided before anything is read or written. */
#ifndef FR_TOOLS_QUANTIZE_PLAN_H
#define FR_TOOLS_QUANTIZE_PLAN_H

#include "importance.h"
#include "quantize_mix.h"
#include "quantize_rules.h"

typedef struct {
    bool copy; /* TYPE is COPY: all tensors keep their types */
    tool_mix_id mix;
    bool interleave; /* write interleaved forms where they exist */
    bool pure, leave_output, allow_requantize;
    bool has_output_type, has_lookup_type;
    fr_type output_type, lookup_type;
    fr_layout output_layout;
    quantize_rules *rules;     /* NULL: none */
    const importance *imatrix; /* NULL: none */
} quantize_config;

typedef enum {
    QUANTIZE_COPY,   /* the bytes as they are */
    QUANTIZE_REPACK, /* the same weights in the other layout */
    QUANTIZE_ENCODE  /* decoded and encoded */
} quantize_action;

typedef struct {
    const fr_gguf_tensor *from;
    fr_type type, wanted; /* wanted: what rules asked for; type may be its stand-in */
    fr_layout layout;
    quantize_action action;
    uint64_t bytes;                     /* of the result */
    const importance_entry *importance; /* or NULL */
} quantize_step;

typedef struct {
    quantize_step *steps; /* one a tensor, in file order; owned */
    size_t n;
    size_t n_stand_in;                   /* tensors whose rows did not suit the type */
    uint64_t from_bytes, bytes, weights; /* of all tensors */
    int file_type;                       /* -1: as it was */
} quantize_plan;

/* FR_EINVAL for an input that is quantized already, an importance matrix of another model;
 * FR_EUNSUPPORTED for types without an encoder. The plan refers to g, c and its members. */
fr_status quantize_plan_make(const fr_gguf *g, const quantize_config *c, quantize_plan *out,
                             fr_err *err);
void quantize_plan_free(quantize_plan *p);

/* A line for each tensor, and totals, on standard output (--dry-run). */
void quantize_plan_print(const quantize_plan *p);

/* "2048 x 1408 x 64", into out. */
enum { QUANTIZE_DIMS_BYTES = 96 };
const char *quantize_dims(const fr_gguf_tensor *t, char out[QUANTIZE_DIMS_BYTES]);

#endif
