/* Files of log-probabilities (--kl-divergence-base): what a base model said about every scored
 * position of a text. The layout is the ecosystem's, so that files can be exchanged. Little endian:
 *
 *   "_logits_"                       8 bytes
 *   n_ctx, n_vocab, n_chunks         int32 each
 *   tokens                           int32[n_chunks * n_ctx], the text (no BOS put in)
 *   a record for each scored position of each chunk (tool_scored_per_chunk), uint16[record values]:
 *     scale, lowest                  float32 each
 *     q                              uint16[n_vocab]: ln(probability) = lowest + scale * q
 *     one uint16 0                   when n_vocab is odd
 *
 * Tokens more than 16 below the most probable one are stored as 16 below it: q = 0. */
#ifndef FR_TOOLS_LOGPROB_FILE_H
#define FR_TOOLS_LOGPROB_FILE_H

#include "base/file.h"
#include "common/scorer.h"

/* uint16 values of a record. */
size_t logprob_record_values(int64_t n_vocab);

/* Fills a record from a position's logits. Any thread. */
void logprob_record_make(const float *logits, int64_t n_vocab, const tool_row *row,
                         uint16_t *record);

/* Header of a record: what makes a logarithm of a q. */
typedef struct {
    float scale, lowest;
} logprob_scale;
logprob_scale logprob_record_scale(const uint16_t *record);

/* The n_vocab q of a record. */
const uint16_t *logprob_record_q(const uint16_t *record);

/* ---- writing: create, then the records of every chunk, then fr_file_commit or fr_file_abort */

fr_status logprob_file_create(const char *path, const tool_chunks *chunks, int64_t n_chunks,
                              int64_t n_vocab, fr_out_file *out, fr_err *err);

/* ---- reading */

typedef struct {
    const char *path; /* not owned */
    fr_file file;
    tool_chunks chunks; /* bos is not in the file: -1 */
    int64_t n_vocab;
    uint64_t records_at; /* byte offset */
} logprob_file;

/* Checks header, size and tokens: FR_EFORMAT. */
fr_status logprob_file_open(const char *path, logprob_file *out, fr_err *err);
void logprob_file_close(logprob_file *f);

/* The records of chunk i: tool_scored_per_chunk * logprob_record_values values. */
fr_status logprob_file_read(const logprob_file *f, int64_t i_chunk, uint16_t *records, fr_err *err);

#endif
