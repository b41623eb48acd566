#include "perplexity/measure.h"

#include <stdio.h>

#include "perplexity/kld.h"

/* Records of one chunk. */
typedef struct {
    uint16_t *values; /* owned; NULL when there are none */
    size_t each, n;
} record_block;

static fr_status open_records(int64_t n_ctx, int64_t n_vocab, record_block *out, fr_err *err)
{
    out->each = logprob_record_values(n_vocab);
    out->n = (size_t)tool_scored_per_chunk(n_ctx);
    out->values = fr_mem_array(FR_MEM_MISC, out->n, out->each * sizeof(uint16_t), err);
    return out->values ? FR_OK : FR_ENOMEM;
}

/* ---- perplexity
 * -------------------------------------------------------------------------------------------- */

static void make_record(void *user, int64_t i, const float *logits, int64_t n_vocab, int32_t next,
                        const tool_row *row)
{
    (void)next;
    const record_block *records = user;
    logprob_record_make(logits, n_vocab, row, records->values + (size_t)i * records->each);
}

static fr_status run_chunks(tool_scorer *s, int64_t n_chunks, record_block *records,
                            fr_out_file *file, fr_err *err)
{
    for (int64_t i = 0; i < n_chunks; i++) {
        FR_TRY(tool_scorer_run(s, i, file ? make_record : NULL, records, err));
        if (file)
            FR_TRY(fr_file_write(file, records->values,
                                 records->n * records->each * sizeof(uint16_t), err));
        if (i == 0)
            tool_scorer_estimate(s, n_chunks);
        printf("[%lld]%.4f,", (long long)i + 1, tool_ppl(tool_scorer_total(s)));
        fflush(stdout);
    }
    putchar('\n');
    return FR_OK;
}

fr_status measure_perplexity(fr_engine *e, const tool_chunks *chunks, int64_t n_chunks,
                             const char *base_path, fr_err *err)
{
    tool_scorer *s = NULL;
    record_block records = {0};
    fr_out_file file;
    int64_t n_vocab = fr_engine_describe(e).n_vocab;
    fr_status st;
    FR_TRY(tool_scorer_open(e, chunks, true, &s, err));
    if (base_path) {
        FR_TRY_OUT(st, open_records(chunks->n_ctx, n_vocab, &records, err));
        FR_TRY_OUT(st, logprob_file_create(base_path, chunks, n_chunks, n_vocab, &file, err));
    }
    st = run_chunks(s, n_chunks, &records, base_path ? &file : NULL, err);
    if (base_path && st != FR_OK)
        fr_file_abort(&file);
    else if (base_path)
        st = fr_file_commit(&file, err);
    if (st == FR_OK)
        printf("\nFinal estimate: PPL over %lld chunks for n_ctx=%lld = %.4f +/- %.5f\n",
               (long long)n_chunks, (long long)chunks->n_ctx, tool_ppl(tool_scorer_total(s)),
               tool_ppl_error(tool_scorer_total(s)));
out:
    fr_mem_free(records.values);
    tool_scorer_close(s);
    return st;
}

/* ---- divergence
 * -------------------------------------------------------------------------------------------- */

typedef struct {
    record_block base;
    kld_row *rows; /* of one chunk, owned */
    kld_rows all;
} comparison;

static void compare_row(void *user, int64_t i, const float *logits, int64_t n_vocab, int32_t next,
                        const tool_row *row)
{
    const comparison *c = user;
    c->rows[i] =
        kld_row_make(logits, n_vocab, next, row, c->base.values + (size_t)i * c->base.each);
}

fr_status measure_divergence(fr_engine *e, const logprob_file *base, const tool_chunks *chunks,
                             int64_t n_chunks, fr_err *err)
{
    tool_scorer *s = NULL;
    comparison c = {0};
    fr_status st;
    FR_TRY_OUT(st, open_records(chunks->n_ctx, base->n_vocab, &c.base, err));
    c.rows = FR_NEW(kld_row, FR_MEM_MISC, c.base.n, err);
    if (!c.rows)
        FR_TRY_OUT(st, FR_ENOMEM);
    FR_TRY_OUT(st, tool_scorer_open(e, chunks, true, &s, err));
    kld_print_head();
    for (int64_t i = 0; i < n_chunks; i++) {
        FR_TRY_OUT(st, logprob_file_read(base, i, c.base.values, err));
        FR_TRY_OUT(st, tool_scorer_run(s, i, compare_row, &c, err));
        FR_TRY_OUT(st, kld_rows_add(&c.all, c.rows, c.base.n, err));
        if (i == 0)
            tool_scorer_estimate(s, n_chunks);
        kld_print_line(&c.all, i);
    }
    st = kld_print_summary(&c.all, err);
out:
    tool_scorer_close(s);
    kld_rows_free(&c.all);
    fr_mem_free(c.rows);
    fr_mem_free(c.base.values);
    return st;
}
