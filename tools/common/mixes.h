/* What kinds of quantized files there are, and what stands in for a type that rows are too short
 * for. The ecosystem's names, numbers and habits. */
#ifndef FR_TOOLS_MIXES_H
#define FR_TOOLS_MIXES_H

#include "quant/qtype.h"

typedef enum {
#define MIX(ID, ...) TOOL_MIX_##ID,
#include "common/mixes.def"
#undef MIX
    TOOL_MIX_COUNT
} tool_mix_id;

typedef struct {
    const char *name;
    int file_type;    /* value of general.file_type */
    int il_file_type; /* when tensors are interleaved; -1: files have no number for it */
    fr_type base;     /* of most tensors */
    const char *help;
} tool_mix;

const tool_mix *tool_mix_get(tool_mix_id id);

/* The mix of a name ("q4_k_m", case does not matter; "Q4_K" means Q4_K_M) or a file type's number.
 * *interleaved: the name ends in _R4, _R8 or _R16. FR_EINVAL with the nearest name. */
fr_status tool_mix_find(const char *text, tool_mix_id *id, bool *interleaved, fr_err *err);

/* general.file_type of a file of one type; 0 (as for f32) when files have no number for it. */
int tool_file_type(fr_type type, fr_layout layout);

/* The number of the same mix with interleaved tensors; the number itself when there is none. */
int tool_interleaved_file_type(int file_type);

/* The type for rows of `cols` weights: `type` when cols is a multiple of its block, otherwise the
 * usual stand-in with blocks of 32 and no fewer bits, and f16 when that does not fit either. */
fr_type tool_fitting_type(fr_type type, int64_t cols);

/* The layout that rows x cols of a type can have in files: interleaved if wanted and possible. */
fr_layout tool_fitting_layout(fr_type type, bool interleaved, int64_t rows, int64_t cols);

#endif
