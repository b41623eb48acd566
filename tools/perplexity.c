/* ferry-perplexity: how well a model predicts a text, and how far it is from another model. */
#include <stdio.h>
#include <string.h>

#include "perplexity/measure.h"

static int64_t fewer(int64_t n_chunks, int32_t limit)
{
    return limit >= 0 && limit < n_chunks ? limit : n_chunks;
}

static fr_status check_options(const fr_options *o, fr_err *err)
{
    FR_TRY(fr_opts_require(o, FR_OPT_model, err));
    if (o->kl_divergence && !o->kl_base)
        return fr_fail(
            err, FR_EINVAL,
            "--kl-divergence: found no base, expected --kl-divergence-base FILE as well");
    if (!o->kl_divergence)
        FR_TRY(fr_opts_require(o, FR_OPT_prompt_file, err));
    if (o->chunks == 0)
        return fr_fail(err, FR_ERANGE, "--chunks: found 0, expected at least 1");
    return FR_OK;
}

static void announce(const fr_options *o, const fr_engine *e, const tool_chunks *c, int64_t n)
{
    if (o->log_disable)
        return;
    tool_print_model(e);
    fprintf(stderr, "%zu tokens of text; computing %lld of %lld chunks of %lld tokens\n",
            c->tokens.n, (long long)n, (long long)c->n_chunks, (long long)c->n_ctx);
}

/* ---- perplexity
 * -------------------------------------------------------------------------------------------- */

static fr_status perplexity(const fr_options *o, fr_engine_config *cfg, fr_err *err)
{
    fr_engine *e = NULL;
    tool_chunks chunks = {0};
    fr_status st;
    FR_TRY(tool_chunk_size(o, &cfg->n_ctx, err));
    FR_TRY_OUT(st, fr_engine_open(cfg, &e, err));
    FR_TRY_OUT(st, tool_chunks_read(o, fr_engine_vocab(e), cfg->n_ctx, &chunks, err));
    int64_t n = fewer(chunks.n_chunks, o->chunks);
    announce(o, e, &chunks, n);
    FR_TRY_OUT(st, measure_perplexity(e, &chunks, n, o->kl_base, err));
    if (o->memory_report)
        tool_memory_report(e);
out:
    tool_chunks_free(&chunks);
    fr_engine_close(e);
    return st;
}

/* ---- divergence
 * -------------------------------------------------------------------------------------------- */

static fr_status check_vocab(const logprob_file *base, const fr_engine *e, fr_err *err)
{
    int64_t n_vocab = fr_engine_describe(e).n_vocab;
    if (base->n_vocab != n_vocab)
        return fr_fail(err, FR_EINVAL,
                       "%s: found a vocabulary of %lld tokens, expected the model's %lld; a model "
                       "can only be compared with one of the same vocabulary",
                       base->path, (long long)base->n_vocab, (long long)n_vocab);
    return FR_OK;
}

/* The text of -f, when given, must be the one that the base was computed on. */
static fr_status check_text(const fr_options *o, const logprob_file *base, const fr_engine *e,
                            fr_err *err)
{
    if (!o->prompt_file)
        return FR_OK;
    tool_chunks text;
    const fr_tokens *t = &text.tokens, *b = &base->chunks.tokens;
    FR_TRY(tool_chunks_read(o, fr_engine_vocab(e), base->chunks.n_ctx, &text, err));
    size_t n = b->n < t->n ? b->n : t->n, i = 0;
    while (i < n && t->ids[i] == b->ids[i])
        i++;
    fr_status st = FR_OK;
    if (i < b->n)
        st = fr_fail(err, FR_EINVAL,
                     "%s: differs from the text of %s at token %zu, expected the same text; leave "
                     "out -f to take the text of the base",
                     o->prompt_file, base->path, i);
    tool_chunks_free(&text);
    return st;
}

static fr_status divergence(const fr_options *o, fr_engine_config *cfg, fr_err *err)
{
    fr_engine *e = NULL;
    logprob_file base;
    fr_status st;
    FR_TRY(logprob_file_open(o->kl_base, &base, err));
    if (o->ctx_size > 0 && o->ctx_size != base.chunks.n_ctx)
        FR_TRY_OUT(st, fr_fail(err, FR_EINVAL,
                               "-c: found %d, expected %lld, the chunks of %s; leave out -c",
                               o->ctx_size, (long long)base.chunks.n_ctx, base.path));
    cfg->n_ctx = base.chunks.n_ctx;
    FR_TRY_OUT(st, fr_engine_open(cfg, &e, err));
    FR_TRY_OUT(st, check_vocab(&base, e, err));
    FR_TRY_OUT(st, check_text(o, &base, e, err));
    base.chunks.bos = tool_chunk_bos(fr_engine_vocab(e));
    int64_t n = fewer(base.chunks.n_chunks, o->chunks);
    announce(o, e, &base.chunks, n);
    FR_TRY_OUT(st, measure_divergence(e, &base, &base.chunks, n, err));
    if (o->memory_report)
        tool_memory_report(e);
out:
    fr_engine_close(e);
    logprob_file_close(&base);
    return st;
}

static fr_status run(const fr_options *o, fr_err *err)
{
    fr_engine_config cfg;
    FR_TRY(check_options(o, err));
    FR_TRY(tool_engine_config(o, &cfg, err));
    cfg.all_logits = true;
    FR_TRY(o->kl_divergence ? divergence(o, &cfg, err) : perplexity(o, &cfg, err));
    if (fflush(stdout) != 0 || ferror(stdout))
        return fr_fail(err, FR_EIO, "standard output: the results could not be written");
    return FR_OK;
}

int main(int argc, char **argv)
{
    fr_options o;
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_PERPLEXITY, &o, &status))
        return status;
    status = run(&o, &err) == FR_OK ? 0 : tool_fail(FR_TOOL_PERPLEXITY, &err);
    fr_opts_free(&o);
    return status;
}
