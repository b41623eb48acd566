#include "perplexity/logprob_file.h"

#include <math.h>
#include <string.h>

static const char magic[8] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};

enum { HEADER_BYTES = sizeof magic + 3 * sizeof(int32_t), SCALE_VALUES = 4 };

/* How far below the most probable token the scale reaches. */
#define RANGE 16.0f

size_t logprob_record_values(int64_t n_vocab)
{
    return SCALE_VALUES + (size_t)(n_vocab + 1) / 2 * 2;
}

void logprob_record_make(const float *logits, int64_t n_vocab, const tool_row *row,
                         uint16_t *record)
{
    float lowest = row->min > row->max - RANGE ? row->min : row->max - RANGE;
    logprob_scale s = {(row->max - lowest) / 65535, (float)((double)lowest - row->log_sum)};
    float per_scale = s.scale > 0 ? 1 / s.scale : 0;
    uint16_t *q = record + SCALE_VALUES;
    memcpy(record, &s, sizeof s);
    for (int64_t i = 0; i < n_vocab; i++) {
        float steps = (logits[i] - lowest) * per_scale;
        q[i] = steps >= 65535 ? 65535 : steps > 0 ? (uint16_t)(steps + 0.5f) : 0;
    }
    if (n_vocab % 2)
        q[n_vocab] = 0;
}

logprob_scale logprob_record_scale(const uint16_t *record)
{
    logprob_scale s;
    memcpy(&s, record, sizeof s);
    return s;
}

const uint16_t *logprob_record_q(const uint16_t *record)
{
    return record + SCALE_VALUES;
}

fr_status logprob_file_create(const char *path, const tool_chunks *chunks, int64_t n_chunks,
                              int64_t n_vocab, fr_out_file *out, fr_err *err)
{
    int32_t sizes[] = {(int32_t)chunks->n_ctx, (int32_t)n_vocab, (int32_t)n_chunks};
    FR_TRY(fr_file_create(path, out, err));
    fr_status st = fr_file_write(out, magic, sizeof magic, err);
    if (st == FR_OK)
        st = fr_file_write(out, sizes, sizeof sizes, err);
    if (st == FR_OK)
        st = fr_file_write(out, chunks->tokens.ids,
                           (size_t)(n_chunks * chunks->n_ctx) * sizeof(int32_t), err);
    if (st != FR_OK)
        fr_file_abort(out);
    return st;
}

/* ---- reading
 * ---------------------------------------------------------------------------------------------- */

static uint64_t chunk_bytes(const logprob_file *f)
{
    return (uint64_t)tool_scored_per_chunk(f->chunks.n_ctx) * logprob_record_values(f->n_vocab) *
           sizeof(uint16_t);
}

static fr_status read_sizes(logprob_file *f, fr_err *err)
{
    char found[sizeof magic] = {0};
    int32_t sizes[3];
    if (f->file.size >= HEADER_BYTES)
        FR_TRY(fr_file_read_at(&f->file, 0, found, sizeof found, f->path, err));
    if (memcmp(found, magic, sizeof magic) != 0)
        return fr_fail(err, FR_EFORMAT,
                       "%s: found no log-probabilities, expected a file that --kl-divergence-base "
                       "wrote",
                       f->path);
    FR_TRY(fr_file_read_at(&f->file, sizeof magic, sizes, sizeof sizes, f->path, err));
    f->chunks.n_ctx = sizes[0];
    f->n_vocab = sizes[1];
    f->chunks.n_chunks = sizes[2];
    if (sizes[0] < TOOL_CHUNK_MIN || sizes[0] > 1 << 24 || sizes[1] < 1 || sizes[1] > 1 << 24 ||
        sizes[2] < 1)
        return fr_fail(err, FR_EFORMAT,
                       "%s: found %d chunks of %d tokens and a vocabulary of %d in the header, "
                       "expected sizes of a real text",
                       f->path, sizes[2], sizes[0], sizes[1]);
    return FR_OK;
}

/* No product overflows: chunks < 2^31, chunk bytes < 2^51 and checked by a division. */
static fr_status check_size(logprob_file *f, fr_err *err)
{
    uint64_t n_chunks = (uint64_t)f->chunks.n_chunks;
    uint64_t each = (uint64_t)f->chunks.n_ctx * sizeof(int32_t) + chunk_bytes(f);
    uint64_t body = f->file.size - HEADER_BYTES;
    if (body % each || body / each != n_chunks)
        return fr_fail(err, FR_EFORMAT,
                       "%s: found %llu bytes, expected %d and %llu for each of %llu chunks; the "
                       "file was cut or is another one",
                       f->path, (unsigned long long)f->file.size, HEADER_BYTES,
                       (unsigned long long)each, (unsigned long long)n_chunks);
    f->records_at = HEADER_BYTES + n_chunks * (uint64_t)f->chunks.n_ctx * sizeof(int32_t);
    return FR_OK;
}

static fr_status read_tokens(logprob_file *f, fr_err *err)
{
    fr_tokens *t = &f->chunks.tokens;
    size_t n = (size_t)(f->chunks.n_chunks * f->chunks.n_ctx);
    t->ids = FR_NEW(int32_t, FR_MEM_TEXT, n, err);
    if (!t->ids)
        return FR_ENOMEM;
    t->n = t->cap = n;
    FR_TRY(fr_file_read_at(&f->file, HEADER_BYTES, t->ids, n * sizeof *t->ids, f->path, err));
    for (size_t i = 0; i < n; i++)
        if (t->ids[i] < 0 || t->ids[i] >= f->n_vocab)
            return fr_fail(err, FR_EFORMAT, "%s: found token %d at %zu, expected 0 to %lld",
                           f->path, t->ids[i], i, (long long)f->n_vocab - 1);
    return FR_OK;
}

fr_status logprob_file_open(const char *path, logprob_file *out, fr_err *err)
{
    fr_status st;
    *out = (logprob_file){.path = path, .file = FR_FILE_CLOSED, .chunks = {.bos = -1}};
    FR_TRY_OUT(st, fr_file_open(path, &out->file, err));
    FR_TRY_OUT(st, read_sizes(out, err));
    FR_TRY_OUT(st, check_size(out, err));
    FR_TRY_OUT(st, read_tokens(out, err));
    return FR_OK;
out:
    logprob_file_close(out);
    return st;
}

void logprob_file_close(logprob_file *f)
{
    if (f->path)
        fr_file_close(&f->file);
    tool_chunks_free(&f->chunks);
    f->path = NULL;
}

fr_status logprob_file_read(const logprob_file *f, int64_t i_chunk, uint16_t *records, fr_err *err)
{
    uint64_t bytes = chunk_bytes(f);
    return fr_file_read_at(&f->file, f->records_at + (uint64_t)i_chunk * bytes, records,
                           (size_t)bytes, f->path, err);
}
