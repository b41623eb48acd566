#include "common/chunks.h"

#include "base/file.h"

#define MAX_TEXT_BYTES ((size_t)INT32_MAX / 3)

fr_status tool_chunk_size(const fr_options *o, int64_t *n_ctx, fr_err *err)
{
    *n_ctx = o->ctx_size > 0 ? o->ctx_size : TOOL_CHUNK_TOKENS;
    if (*n_ctx < TOOL_CHUNK_MIN)
        return fr_fail(err, FR_ERANGE, "-c: found chunks of %lld tokens, expected at least %d",
                       (long long)*n_ctx, TOOL_CHUNK_MIN);
    return FR_OK;
}

int32_t tool_chunk_bos(const fr_vocab *v)
{
    return fr_vocab_adds_bos(v) ? fr_vocab_bos(v) : -1;
}

fr_status tool_chunks_read(const fr_options *o, const fr_vocab *v, int64_t n_ctx, tool_chunks *out,
                           fr_err *err)
{
    fr_buf text = {0};
    fr_status st;
    *out = (tool_chunks){.n_ctx = n_ctx, .bos = tool_chunk_bos(v)};
    FR_TRY_OUT(st, fr_file_slurp(o->prompt_file, MAX_TEXT_BYTES, &text, err));
    FR_TRY_OUT(st, fr_tokenize(v, text.n ? text.p : "", text.n, true, o->parse_special,
                               &out->tokens, err));
    if (fr_vocab_adds_eos(v) && out->tokens.n &&
        out->tokens.ids[out->tokens.n - 1] == fr_vocab_eos(v))
        out->tokens.n--;
    out->n_chunks = (int64_t)out->tokens.n / n_ctx;
    if (out->n_chunks < 2)
        st = fr_fail(err, FR_ERANGE,
                     "%s: found %zu tokens, expected at least %lld, two chunks of %lld; give a "
                     "longer text or a smaller -c",
                     o->prompt_file, out->tokens.n, (long long)(2 * n_ctx), (long long)n_ctx);
out:
    fr_buf_free(&text);
    if (st != FR_OK)
        tool_chunks_free(out);
    return st;
}

void tool_chunks_free(tool_chunks *c)
{
    fr_tokens_free(&c->tokens);
    *c = (tool_chunks){0};
}
