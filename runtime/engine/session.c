#include <string.h>
#include <time.h>

#include "engine/engine_internal.h"

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* sign: 1 when the session's cache comes, -1 when it goes. */
static void count_cache(fr_session *s, int sign)
{
    fr_engine *e = s->e;
    for (int d = 1; s->gpu_kv && d < e->plan->n_devices; d++) {
        const fr_gpu_arena *a = s->gpu_kv->arenas[d];
        uint64_t bytes = a ? e->gpu->arena_used(a) : 0;
        e->kv_now[d] += sign > 0 ? bytes : -bytes;
        e->kv_peak[d] = e->kv_now[d] > e->kv_peak[d] ? e->kv_now[d] : e->kv_peak[d];
    }
}

static fr_status open_cache(fr_session *s, fr_err *err)
{
    const fr_engine *e = s->e;
    bool *in_ram;
    if (e->gpu)
        FR_TRY(gpu_kv_open(e->gpu, e->plan, &e->kv, e->cfg.n_ctx, &s->gpu_kv, err));
    count_cache(s, 1);
    FR_TRY(gpu_kv_in_ram(e->plan, e->kv.n_layer, &in_ram, err));
    fr_status st = fr_kv_open(&e->kv, e->cfg.n_ctx, in_ram, &s->kv, err);
    fr_mem_free(in_ram);
    return st;
}

fr_status fr_session_open(fr_engine *e, fr_session **out, fr_err *err)
{
    *out = NULL;
    fr_session *s = FR_NEW(fr_session, FR_MEM_ENGINE, 1, err);
    if (!s)
        return FR_ENOMEM;
    fr_status st = FR_ENOMEM;
    s->e = e;
    s->n_outputs = engine_n_outputs(e);
    s->tokens = FR_NEW(int32_t, FR_MEM_ENGINE, (size_t)e->cfg.n_ctx, err);
    s->outputs = FR_NEW(int32_t, FR_MEM_ENGINE, (size_t)s->n_outputs, err);
    s->logits = fr_mem_array(FR_MEM_WORKSPACE, (size_t)s->n_outputs,
                             (size_t)e->model->hp.n_vocab * sizeof(float), err);
    if (!s->tokens || !s->outputs || !s->logits)
        goto out;
    FR_TRY_OUT(st, open_cache(s, err));
    *out = s;
    return FR_OK;
out:
    fr_session_close(s);
    return st;
}

void fr_session_close(fr_session *s)
{
    if (!s)
        return;
    fr_kv_close(s->kv);
    count_cache(s, -1);
    gpu_kv_close(s->gpu_kv);
    fr_mem_free(s->tokens);
    fr_mem_free(s->outputs);
    fr_mem_free(s->logits);
    fr_mem_free(s);
}

const int32_t *fr_session_tokens(const fr_session *s, int64_t *n)
{
    *n = s->n_tokens;
    return s->tokens;
}

void fr_session_truncate(fr_session *s, int64_t n)
{
    if (n < 0 || n >= s->n_tokens)
        return;
    s->n_tokens = n;
    s->last = NULL;
    fr_kv_truncated(s->kv, n);
}

/* Rows on a GPU are out of reach here. */
static fr_status check_in_ram(const fr_session *s, fr_err *err)
{
    for (int64_t il = 0; il < s->e->kv.n_layer; il++)
        if (s->kv->slot[il] < 0)
            return fr_fail(err, FR_EUNSUPPORTED,
                           "copied tokens: found the KV cache of layer %lld on a GPU, expected all "
                           "of it in RAM; compute a prompt, or use --no-kv-offload",
                           (long long)il);
    return FR_OK;
}

fr_status fr_session_repeat(fr_session *s, int64_t n, fr_err *err)
{
    int64_t have = s->n_tokens, n_ctx = s->e->cfg.n_ctx;
    if (have < 1 || have > n)
        return fr_fail(err, FR_EINVAL,
                       "repeated tokens: found %lld in the session, expected 1 to %lld",
                       (long long)have, (long long)n);
    if (n > n_ctx)
        return fr_fail(err, FR_ERANGE,
                       "context: found %lld tokens, expected at most %lld; use a larger -c",
                       (long long)n, (long long)n_ctx);
    FR_TRY(check_in_ram(s, err));
    fr_kv_repeat(s->kv, have, n);
    for (int64_t i = have; i < n; i++)
        s->tokens[i] = s->tokens[i - have];
    s->n_tokens = n;
    s->last = NULL;
    return FR_OK;
}

fr_status fr_session_copy(fr_session *to, const fr_session *from, fr_err *err)
{
    if (to->e != from->e)
        return fr_fail(err, FR_EINVAL, "copied session: found one of another engine");
    FR_TRY(check_in_ram(to, err));
    fr_kv_copy(to->kv, from->kv, from->n_tokens);
    memcpy(to->tokens, from->tokens, (size_t)from->n_tokens * sizeof *to->tokens);
    to->n_tokens = from->n_tokens;
    to->last = NULL;
    return FR_OK;
}

const float *fr_session_logits(const fr_session *s)
{
    return s->last;
}

void fr_session_cancel(fr_session *s)
{
    atomic_store_explicit(&s->cancel, true, memory_order_relaxed);
}

fr_session_times fr_session_timing(const fr_session *s)
{
    return s->times;
}

static fr_status check_tokens(const fr_session *s, int64_t n_before, const int32_t *tokens,
                              int64_t n, fr_err *err)
{
    int64_t n_vocab = s->e->model->hp.n_vocab, n_ctx = s->e->cfg.n_ctx;
    if (n <= 0)
        return fr_fail(err, FR_EINVAL, "tokens: found none, expected at least one");
    if (n > n_ctx - n_before)
        return fr_fail(err, FR_ERANGE,
                       "context: found %lld tokens, expected at most %lld; use a larger -c",
                       (long long)(n_before + n), (long long)n_ctx);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return fr_fail(err, FR_EINVAL, "token %lld: found id %d, expected 0 to %lld",
                           (long long)i, tokens[i], (long long)n_vocab - 1);
    return FR_OK;
}

static void add_time(fr_session *s, int64_t n_tokens, double seconds)
{
    if (n_tokens == 1) {
        s->times.n_single_tokens++;
        s->times.single_seconds += seconds;
    } else {
        s->times.n_batch_tokens += n_tokens;
        s->times.batch_seconds += seconds;
    }
}

/* Computes one ubatch after what the session holds. */
static fr_status run_ubatch(fr_session *s, const int32_t *tokens, int64_t n, int64_t n_outputs,
                            fr_err *err)
{
    for (int64_t i = 0; i < n_outputs; i++)
        s->outputs[i] = (int32_t)(n - n_outputs + i);
    fr_exec_batch batch = {
        .tokens = tokens,
        .n_tokens = n,
        .pos0 = s->n_tokens,
        .outputs = s->outputs,
        .n_outputs = n_outputs,
        .kv = s->kv,
        .gpu_kv = s->gpu_kv,
        .logits = s->logits,
        .cancel = &s->cancel,
    };
    double start = now_seconds();
    s->last = NULL;
    fr_status st = fr_exec_run(s->e->exec, &batch, err);
    if (st != FR_OK) {
        /* Some layers may have taken rows of this batch into their rings already. */
        s->kv->exact_from = s->n_tokens;
        return st;
    }
    add_time(s, n, now_seconds() - start);
    memcpy(s->tokens + s->n_tokens, tokens, (size_t)n * sizeof *tokens);
    fr_kv_appended(s->kv, s->n_tokens, n);
    s->n_tokens += n;
    if (n_outputs > 0)
        s->last = s->logits + (n_outputs - 1) * s->e->model->hp.n_vocab;
    return FR_OK;
}

static fr_status append(fr_session *s, const int32_t *tokens, int64_t n, fr_logits_fn fn,
                        void *user, fr_err *err)
{
    FR_TRY(check_tokens(s, s->n_tokens, tokens, n, err));
    atomic_store(&s->cancel, false);
    for (int64_t at = 0; at < n;) {
        int64_t step = n - at < s->e->cfg.n_ubatch ? n - at : s->e->cfg.n_ubatch;
        bool last = at + step == n;
        int64_t pos = s->n_tokens;
        FR_TRY(run_ubatch(s, tokens + at, step, fn ? step : last ? 1 : 0, err));
        if (fn)
            FR_TRY(fn(user, pos, step, s->logits, err));
        at += step;
    }
    return FR_OK;
}

fr_status fr_session_append(fr_session *s, const int32_t *tokens, int64_t n, fr_err *err)
{
    return append(s, tokens, n, NULL, NULL, err);
}

fr_status fr_session_append_all(fr_session *s, const int32_t *tokens, int64_t n, fr_logits_fn fn,
                                void *user, fr_err *err)
{
    if (!s->e->cfg.all_logits)
        return fr_fail(err, FR_EINVAL,
                       "logits of all tokens: the engine was opened without all_logits");
    return append(s, tokens, n, fn, user, err);
}

fr_status fr_session_sync(fr_session *s, const int32_t *tokens, int64_t n, int64_t *n_reused,
                          fr_err *err)
{
    FR_TRY(check_tokens(s, 0, tokens, n, err));
    int64_t same = 0;
    while (same < n && same < s->n_tokens && tokens[same] == s->tokens[same])
        same++;
    if (same == n && (s->n_tokens > n || !s->last))
        same = n - 1; /* the last token is computed again for its logits */
    fr_session_truncate(s, same);
    if (n_reused)
        *n_reused = same;
    return same == n ? FR_OK : append(s, tokens + same, n - same, NULL, NULL, err);
}
