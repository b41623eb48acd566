/* One token of each of several sessions in one step. */
#include <string.h>
#include <time.h>

#include "engine/engine_internal.h"

fr_status engine_together_open(fr_engine *e, fr_err *err)
{
    engine_together *t = &e->together;
    int64_t most = engine_n_seq(e), here = fr_exec_most_seqs(e->exec);
    t->most = most < here ? most : here;
    if (t->most <= 1)
        return FR_OK;
    t->seqs = FR_NEW(fr_exec_seq, FR_MEM_ENGINE, (size_t)t->most, err);
    t->outputs = FR_NEW(int32_t, FR_MEM_ENGINE, (size_t)t->most, err);
    t->logits = fr_mem_array(FR_MEM_WORKSPACE, (size_t)t->most,
                             (size_t)e->model->hp.n_vocab * sizeof(float), err);
    if (!t->seqs || !t->outputs || !t->logits)
        return FR_ENOMEM;
    for (int64_t i = 0; i < t->most; i++)
        t->outputs[i] = (int32_t)i;
    return FR_OK;
}

void engine_together_close(engine_together *t)
{
    fr_mem_free(t->seqs);
    fr_mem_free(t->outputs);
    fr_mem_free(t->logits);
}

uint64_t engine_together_bytes(const fr_engine *e)
{
    const engine_together *t = &e->together;
    return t->logits ? (uint64_t)t->most * (uint64_t)e->model->hp.n_vocab * sizeof(float) : 0;
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static fr_status check_sessions(const fr_engine *e, fr_session *const *sessions,
                                const int32_t *tokens, int64_t n, fr_err *err)
{
    int64_t n_vocab = e->model->hp.n_vocab;
    if (n <= 0)
        return fr_fail(err, FR_EINVAL, "sessions: found none, expected at least one");
    for (int64_t i = 0; i < n; i++) {
        if (sessions[i]->e != e)
            return fr_fail(err, FR_EINVAL, "session %lld: found one of another engine",
                           (long long)i);
        for (int64_t k = 0; k < i; k++)
            if (sessions[k] == sessions[i])
                return fr_fail(err, FR_EINVAL,
                               "session %lld: found session %lld again, expected different ones",
                               (long long)i, (long long)k);
        if (sessions[i]->n_tokens >= e->cfg.n_ctx)
            return fr_fail(err, FR_ERANGE,
                           "context of session %lld: found %lld tokens and one more, expected at "
                           "most %lld; use a larger -c",
                           (long long)i, (long long)sessions[i]->n_tokens, (long long)e->cfg.n_ctx);
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return fr_fail(err, FR_EINVAL, "token %lld: found id %d, expected 0 to %lld",
                           (long long)i, tokens[i], (long long)n_vocab - 1);
    }
    return FR_OK;
}

static void take_result(fr_session *s, int32_t token, const float *logits, double seconds)
{
    memcpy(s->logits, logits, (size_t)s->e->model->hp.n_vocab * sizeof *logits);
    s->last = s->logits;
    s->tokens[s->n_tokens] = token;
    fr_kv_appended(s->kv, s->n_tokens, 1);
    s->n_tokens++;
    s->times.n_single_tokens++;
    s->times.single_seconds += seconds;
}

static fr_status run_together(fr_engine *e, fr_session *const *sessions, const int32_t *tokens,
                              int64_t n, const atomic_bool *cancel, fr_err *err)
{
    engine_together *t = &e->together;
    for (int64_t i = 0; i < n; i++) {
        t->seqs[i] = (fr_exec_seq){sessions[i]->kv, sessions[i]->n_tokens};
        sessions[i]->last = NULL;
    }
    fr_exec_batch batch = {.tokens = tokens,
                           .n_tokens = n,
                           .seqs = t->seqs,
                           .outputs = t->outputs,
                           .n_outputs = n,
                           .logits = t->logits,
                           .cancel = cancel};
    double start = now_seconds();
    fr_status st = fr_exec_run(e->exec, &batch, err);
    double each = (now_seconds() - start) / (double)n;
    for (int64_t i = 0; i < n; i++)
        if (st == FR_OK)
            take_result(sessions[i], tokens[i], t->logits + i * e->model->hp.n_vocab, each);
        else /* some layers may have taken the row into their rings already */
            sessions[i]->kv->exact_from = sessions[i]->n_tokens;
    return st;
}

fr_status fr_engine_step(fr_engine *e, fr_session *const *sessions, const int32_t *tokens,
                         int64_t n, fr_err *err)
{
    FR_TRY(check_sessions(e, sessions, tokens, n, err));
    atomic_bool *cancel = &sessions[0]->cancel;
    atomic_store(cancel, false);
    for (int64_t at = 0; at < n;) {
        int64_t step = n - at < e->together.most ? n - at : e->together.most;
        if (step > 1) {
            FR_TRY(run_together(e, sessions + at, tokens + at, step, cancel, err));
        } else {
            step = 1;
            if (atomic_load_explicit(cancel, memory_order_relaxed))
                return fr_fail(err, FR_ECANCELLED, "computation: stopped by the user");
            FR_TRY(fr_session_append(sessions[at], tokens + at, 1, err));
        }
        at += step;
    }
    return FR_OK;
}
