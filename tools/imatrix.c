/* ferry-imatrix: importance matrices for quantizers, from a model and a text. */
#include <stdio.h>

#include "imatrix/collect.h"

static const char *output_of(const fr_options *o)
{
    return o->imatrix_output ? o->imatrix_output : "imatrix.gguf";
}

/* -f alone, --in-file alone, or both. */
static fr_status check_options(const fr_options *o, fr_err *err)
{
    if (o->in_file.n == 0)
        FR_TRY(fr_opts_require(o, FR_OPT_prompt_file, err));
    if (o->prompt_file)
        FR_TRY(fr_opts_require(o, FR_OPT_model, err));
    if (o->chunks == 0)
        return fr_fail(err, FR_ERANGE, "--chunks: found 0, expected at least 1");
    return FR_OK;
}

static fr_status read_inputs(const fr_options *o, colsum *im, fr_err *err)
{
    for (size_t i = 0; i < o->in_file.n; i++)
        FR_TRY(colsum_read(im, o->in_file.items[i].text, err));
    return FR_OK;
}

static fr_status save(const fr_options *o, colsum *im, fr_err *err)
{
    FR_TRY(colsum_write(im, output_of(o), err));
    if (!o->log_disable)
        fprintf(stderr, "%s%s: %zu weights, %lld chunks of %lld tokens\n", o->ppl ? "\n" : "",
                output_of(o), im->n, (long long)im->n_chunks, (long long)im->chunk_size);
    return FR_OK;
}

/* ---- collecting
 * -------------------------------------------------------------------------------------------- */

typedef struct {
    const fr_options *o;
    fr_gguf *model; /* its header */
    fr_engine *engine;
    tool_chunks chunks;
    int64_t from, to; /* the chunks to compute */
    tool_scorer *scorer;
    collector collector;
} job;

static fr_status open_engine(job *j, fr_err *err)
{
    const fr_options *o = j->o;
    fr_engine_config cfg;
    FR_TRY(fr_gguf_open(o->model, FR_GGUF_HEADERS_ONLY, &j->model, err));
    FR_TRY(tool_engine_config(o, &cfg, err));
    FR_TRY(tool_chunk_size(o, &cfg.n_ctx, err));
    cfg.all_logits = true; /* the last layer is computed only where logits are wanted */
    if (fr_opts_origin(o, FR_OPT_mla).source == FR_FROM_DEFAULT)
        cfg.mla = (fr_mla_mode)collector_mla(j->model);
    return fr_engine_open(&cfg, &j->engine, err);
}

static fr_status open_text(job *j, fr_err *err)
{
    const fr_options *o = j->o;
    FR_TRY(tool_chunks_read(o, fr_engine_vocab(j->engine), fr_engine_describe(j->engine).n_ctx,
                            &j->chunks, err));
    j->from = o->from_chunk;
    j->to = j->chunks.n_chunks;
    if (j->from >= j->to)
        return fr_fail(err, FR_ERANGE, "--from-chunk: found %lld, expected less than %lld chunks",
                       (long long)j->from, (long long)j->to);
    if (o->chunks > 0 && o->chunks < j->to - j->from)
        j->to = j->from + o->chunks;
    if (o->log_disable)
        return FR_OK;
    tool_print_model(j->engine);
    fprintf(stderr, "%zu tokens of text; computing %lld of %lld chunks of %lld tokens\n",
            j->chunks.tokens.n, (long long)(j->to - j->from), (long long)j->chunks.n_chunks,
            (long long)j->chunks.n_ctx);
    return FR_OK;
}

static fr_status run_chunk(job *j, int64_t i, fr_err *err)
{
    collector *c = &j->collector;
    int64_t done = i - j->from + 1;
    FR_TRY(tool_scorer_run(j->scorer, i, NULL, NULL, err));
    if (c->status != FR_OK)
        return fr_fail(err, c->status, "%s", c->err.text);
    c->im->n_chunks++;
    if (done == 1)
        tool_scorer_estimate(j->scorer, j->to - j->from);
    if (j->o->ppl) {
        printf("[%lld]%.4f,", (long long)done, tool_ppl(tool_scorer_total(j->scorer)));
        fflush(stdout);
    }
    bool due = j->o->output_frequency > 0 && done % j->o->output_frequency == 0;
    return due && i + 1 < j->to ? save(j->o, c->im, err) : FR_OK;
}

static fr_status run_chunks(job *j, fr_err *err)
{
    const tool_chunks *c = &j->chunks;
    FR_TRY(colsum_add_dataset(j->collector.im, fr_str_of(j->o->prompt_file), err));
    for (int64_t i = j->from; i < j->to; i++)
        FR_TRY(run_chunk(j, i, err));
    FR_TRY(save(j->o, j->collector.im, err));
    if (j->o->ppl)
        printf("\nFinal estimate: PPL over %lld chunks for n_ctx=%lld = %.4f +/- %.5f\n",
               (long long)(j->to - j->from), (long long)c->n_ctx,
               tool_ppl(tool_scorer_total(j->scorer)),
               tool_ppl_error(tool_scorer_total(j->scorer)));
    return j->o->log_disable ? FR_OK : collector_report(&j->collector, err);
}

static fr_status collect(const fr_options *o, colsum *im, fr_err *err)
{
    job j = {.o = o};
    fr_status st;
    FR_TRY_OUT(st, open_engine(&j, err));
    FR_TRY_OUT(st, open_text(&j, err));
    FR_TRY_OUT(st, tool_scorer_open(j.engine, &j.chunks, o->ppl, &j.scorer, err));
    j.collector = (collector){.im = im,
                              .model = j.model,
                              .pool = tool_scorer_pool(j.scorer),
                              .process_output = o->process_output};
    FR_TRY_OUT(st, fr_engine_observe(j.engine, collector_observe, &j.collector, err));
    FR_TRY_OUT(st, run_chunks(&j, err));
    if (o->memory_report)
        tool_memory_report(j.engine);
out:
    tool_scorer_close(j.scorer);
    tool_chunks_free(&j.chunks);
    fr_engine_close(j.engine);
    fr_gguf_close(j.model);
    return st;
}

static fr_status run(const fr_options *o, fr_err *err)
{
    colsum im = {0};
    fr_status st;
    FR_TRY(check_options(o, err));
    FR_TRY(tool_chunk_size(o, &im.chunk_size, err));
    FR_TRY_OUT(st, read_inputs(o, &im, err));
    st = o->prompt_file ? collect(o, &im, err) : save(o, &im, err);
    if (st == FR_OK && (fflush(stdout) != 0 || ferror(stdout)))
        st = fr_fail(err, FR_EIO, "standard output: the results could not be written");
out:
    colsum_free(&im);
    return st;
}

int main(int argc, char **argv)
{
    fr_options o;
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_IMATRIX, &o, &status))
        return status;
    status = run(&o, &err) == FR_OK ? 0 : tool_fail(FR_TOOL_IMATRIX, &err);
    fr_opts_free(&o);
    return status;
}
