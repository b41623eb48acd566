/* The files of a quantized model: metadata, one part or as many as the input has. */
#ifndef FR_TOOLS_QUANTIZE_WRITE_H
#define FR_TOOLS_QUANTIZE_WRITE_H

#include "quantize_convert.h"

typedef struct {
    const char
        *path; /* of the file; of a set: its name without "-00001-of-0000N.gguf" is derived */
    bool keep_split, allow_nan;
    const char *imatrix_path; /* for the metadata; NULL: none */
} quantize_output;

/* Called after each tensor. */
typedef void (*quantize_progress_fn)(void *user, size_t i, const quantize_plan *p,
                                     const quantize_result *r);

/* Writes all tensors of the plan. The files appear under their names when all is done; after a
 * failure there is none. */
fr_status quantize_write(const fr_gguf *g, const quantize_plan *p, const importance *im,
                         const quantize_output *o, quantize_converter *c, quantize_progress_fn fn,
                         void *user, fr_err *err);

#endif
