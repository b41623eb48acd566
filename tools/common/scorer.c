#include "common/scorer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/interrupt.h"

struct tool_scorer {
    fr_session *session;
    fr_cpu *pool;
    const tool_chunks *chunks;
    bool score;
    int64_t n_vocab, n_scored; /* of a chunk */
    int32_t *input;            /* [n_ctx], owned: the chunk as it is computed */
    const int32_t *text;       /* the chunk as it stands in the text */
    tool_row *rows;            /* [n_scored], owned */
    tool_row_fn fn;
    void *user;
    tool_nll total;
};

/* ---- one position
 * ----------------------------------------------------------------------------------------- */

tool_row tool_row_score(const float *logits, int64_t n_vocab, int32_t next)
{
    tool_row row = {.min = logits[0], .max = logits[0]};
    for (int64_t i = 1; i < n_vocab; i++) {
        if (logits[i] > row.max) {
            row.max = logits[i];
            row.top = (int32_t)i;
        }
        if (logits[i] < row.min)
            row.min = logits[i];
    }
    double sum = 0, max = (double)row.max;
    for (int64_t i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - max);
    row.log_sum = max + log(sum);
    row.nll = row.log_sum - (double)logits[next];
    return row;
}

double tool_ppl(const tool_nll *sum)
{
    return exp(sum->nll / (double)sum->n);
}

double tool_ppl_error(const tool_nll *sum)
{
    double n = (double)sum->n, mean = sum->nll / n, variance = sum->nll2 / n - mean * mean;
    return sum->n > 1 && variance > 0 ? exp(mean) * sqrt(variance / (n - 1)) : 0;
}

/* ---- chunks
 * -----------------------------------------------------------------------------------------------
 */

int64_t tool_scored_per_chunk(int64_t n_ctx)
{
    return n_ctx - 1 - n_ctx / 2;
}

fr_status tool_scorer_open(fr_engine *e, const tool_chunks *chunks, bool score, tool_scorer **out,
                           fr_err *err)
{
    *out = NULL;
    tool_scorer *s = FR_NEW(tool_scorer, FR_MEM_MISC, 1, err);
    if (!s)
        return FR_ENOMEM;
    fr_engine_info info = fr_engine_describe(e);
    fr_status st = FR_ENOMEM;
    s->chunks = chunks;
    s->score = score;
    s->n_vocab = info.n_vocab;
    s->n_scored = tool_scored_per_chunk(chunks->n_ctx);
    s->input = FR_NEW(int32_t, FR_MEM_MISC, (size_t)chunks->n_ctx, err);
    s->rows = FR_NEW(tool_row, FR_MEM_MISC, (size_t)s->n_scored, err);
    if (!s->input || !s->rows)
        goto out;
    fr_cpu_config pool = {.n_threads = info.n_threads_batch, .max_isa = FR_ISA_AUTO};
    FR_TRY_OUT(st, fr_cpu_open(&pool, &s->pool, err));
    FR_TRY_OUT(st, fr_session_open(e, &s->session, err));
    tool_interrupt_session(s->session);
    tool_catch_interrupts();
    *out = s;
    return FR_OK;
out:
    tool_scorer_close(s);
    return st;
}

void tool_scorer_close(tool_scorer *s)
{
    if (!s)
        return;
    tool_interrupt_session(NULL);
    fr_session_close(s->session);
    fr_cpu_close(s->pool);
    fr_mem_free(s->input);
    fr_mem_free(s->rows);
    fr_mem_free(s);
}

typedef struct {
    tool_scorer *s;
    const float *logits; /* of scored position `from` */
    int64_t from, to;
} score_job;

static void score_thread(void *arg, int i_thread, int n_threads)
{
    const score_job *job = arg;
    const tool_scorer *s = job->s;
    int64_t first = s->chunks->n_ctx / 2;
    for (int64_t i = job->from + i_thread; i < job->to; i += n_threads) {
        const float *logits = job->logits + (i - job->from) * s->n_vocab;
        int32_t next = s->text[first + i + 1];
        s->rows[i] = tool_row_score(logits, s->n_vocab, next);
        if (s->fn)
            s->fn(s->user, i, logits, s->n_vocab, next, &s->rows[i]);
    }
}

static fr_status take_logits(void *user, int64_t pos, int64_t n_rows, const float *logits,
                             fr_err *err)
{
    tool_scorer *s = user;
    int64_t first = s->chunks->n_ctx / 2, from = pos - first, to = pos + n_rows - first;
    if (from < 0) {
        logits += -from * s->n_vocab;
        from = 0;
    }
    if (to > s->n_scored)
        to = s->n_scored;
    if (s->score && from < to)
        fr_cpu_run(s->pool, score_thread, &(score_job){s, logits, from, to});
    return tool_check_interrupt(err);
}

static fr_status add_up(tool_scorer *s, int64_t i_chunk, fr_err *err)
{
    for (int64_t i = 0; i < s->n_scored; i++) {
        double nll = s->rows[i].nll;
        if (!isfinite(nll))
            return fr_fail(err, FR_EFORMAT,
                           "chunk %lld: found a log-probability of %g at position %lld, expected a "
                           "finite number; --check-tensors looks for bad values in the model",
                           (long long)i_chunk + 1, -nll, (long long)(s->chunks->n_ctx / 2 + i));
        s->total.nll += nll;
        s->total.nll2 += nll * nll;
    }
    s->total.n += s->n_scored;
    return FR_OK;
}

fr_status tool_scorer_run(tool_scorer *s, int64_t i_chunk, tool_row_fn fn, void *user, fr_err *err)
{
    const tool_chunks *c = s->chunks;
    s->text = c->tokens.ids + i_chunk * c->n_ctx;
    s->fn = fn;
    s->user = user;
    memcpy(s->input, s->text, (size_t)c->n_ctx * sizeof *s->input);
    if (c->bos >= 0)
        s->input[0] = c->bos;
    FR_TRY(tool_check_interrupt(err));
    fr_session_truncate(s->session, 0);
    FR_TRY(fr_session_append_all(s->session, s->input, c->n_ctx, take_logits, s, err));
    return s->score ? add_up(s, i_chunk, err) : FR_OK;
}

const tool_nll *tool_scorer_total(const tool_scorer *s)
{
    return &s->total;
}

fr_cpu *tool_scorer_pool(const tool_scorer *s)
{
    return s->pool;
}

void tool_scorer_estimate(const tool_scorer *s, int64_t n_chunks)
{
    fr_session_times t = fr_session_timing(s->session);
    double seconds = t.batch_seconds + t.single_seconds;
    fprintf(stderr, "%.2f s per chunk, about %.1f minutes in all\n", seconds,
            seconds * (double)n_chunks / 60);
}
