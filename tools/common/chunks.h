/* A text cut into chunks of n_ctx tokens: how perplexities and importance matrices are measured. */
#ifndef FR_TOOLS_CHUNKS_H
#define FR_TOOLS_CHUNKS_H

#include "common/tool.h"

/* Chunk i is tokens[i * n_ctx ..). What follows the last whole chunk is not used. */
typedef struct {
    fr_tokens tokens; /* owned */
    int64_t n_ctx;
    int64_t n_chunks; /* whole ones in tokens */
    int32_t bos;      /* stands in for the first token of every chunk; -1: nothing does */
} tool_chunks;

/* Tokens of a chunk without -c. */
enum { TOOL_CHUNK_TOKENS = 512, TOOL_CHUNK_MIN = 4 };

/* n_ctx of the options. FR_ERANGE when that is too short to be scored. */
fr_status tool_chunk_size(const fr_options *o, int64_t *n_ctx, fr_err *err);

/* Tokenizes the file of -f, with BOS where the model wants one. FR_ERANGE for a text of fewer than
 * two chunks. */
fr_status tool_chunks_read(const fr_options *o, const fr_vocab *v, int64_t n_ctx, tool_chunks *out,
                           fr_err *err);
void tool_chunks_free(tool_chunks *c);

/* What stands in for the first token of a chunk; -1 when the model adds no BOS. */
int32_t tool_chunk_bos(const fr_vocab *v);

#endif
