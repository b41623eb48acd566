/* What a model is called in benchmark tables, and what a token costs in it: bytes of weights to
 * read and operations on weights. From the file's header and the graph that the engine runs. */
#ifndef FR_TOOLS_MODEL_WORK_H
#define FR_TOOLS_MODEL_WORK_H

#include "model/model.h"

typedef struct {
    char description[128]; /* "deepseek2 16B Q4_K - Medium" */
    uint64_t bytes;        /* of all tensors */
    int64_t n_params;
    double token_bytes; /* of the weights that a generated token reads: all that is dense, the part
                           of the experts that it is sent to, a row of the embedding */
    double dense_bytes, expert_bytes,
        expert_part;   /* token_bytes = dense + expert_part * all experts */
    double token_ops;  /* multiplications and additions with weights of a prompt token */
    double output_ops; /* of what only the last token of a prompt goes through: what follows the
                          last layer's attention. A generated token: token_ops + output_ops. */
} tool_model_work;

/* Bytes of weights that a step reads which generates n tokens, of experts as many as even routing
 * of independent tokens meets. */
double tool_step_bytes(const tool_model_work *w, int64_t n);

/* Reads the header of a model (split: of its first file). Errors as those of fr_gguf_open and
 * fr_model_open. */
fr_status tool_model_work_read(const char *path, fr_mla_mode mla, tool_model_work *out,
                               fr_err *err);

#endif
