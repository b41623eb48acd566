#include <string.h>

#include "engine/engine_internal.h"
#include "engine/exec_profile.h"

/* Text that is not given out yet: a stop string may begin in it. */
typedef struct {
    const fr_generate_params *params;
    fr_text_fn fn;
    void *user;
    fr_buf held;
    bool caller_stopped;
} outlet;

/* The earliest stop string in the held text: its offset, or -1. */
static int64_t find_stop(const outlet *o, const char **word)
{
    int64_t first = -1;
    for (size_t i = 0; i < o->params->n_stops; i++) {
        const char *stop = o->params->stops[i];
        const char *at =
            o->held.n && stop[0] ? memmem(o->held.p, o->held.n, stop, strlen(stop)) : NULL;
        if (at && (first < 0 || at - o->held.p < first)) {
            first = at - o->held.p;
            *word = stop;
        }
    }
    return first;
}

/* How many bytes at the end of the held text may be the beginning of a stop string. */
static size_t undecided(const outlet *o)
{
    size_t most = 0;
    for (size_t i = 0; i < o->params->n_stops; i++) {
        size_t n = strlen(o->params->stops[i]);
        for (size_t k = n < o->held.n ? n : o->held.n; k > most; k--)
            if (memcmp(o->held.p + o->held.n - k, o->params->stops[i], k) == 0)
                most = k;
    }
    return most;
}

static void give_out(outlet *o, size_t n)
{
    if (n == 0)
        return;
    if (!o->fn(o->user, o->held.p, n))
        o->caller_stopped = true;
    memmove(o->held.p, o->held.p + n, o->held.n - n);
    o->held.n -= n;
}

/* Gives out what is certain; true when a stop string ended the text. */
static bool flow(outlet *o, bool at_end, const char **word)
{
    int64_t stop = find_stop(o, word);
    if (stop >= 0) {
        give_out(o, (size_t)stop);
        o->held.n = 0;
        return true;
    }
    give_out(o, o->held.n - (at_end ? 0 : undecided(o)));
    return false;
}

static fr_status pick(fr_session *s, fr_sampler *sampler, int32_t *token, fr_err *err)
{
    exec_moment from = exec_profile_now(s->e->cpu_single);
    FR_TRY(fr_sampler_pick(sampler, s->last, token, err));
    fr_sampler_accept(sampler, *token);
    exec_profile_sampling(fr_exec_profiled(s->e->exec), &from);
    return FR_OK;
}

/* One token further; *done with result->reason when that was the last. */
static fr_status step(fr_session *s, fr_sampler *sampler, outlet *o, fr_detok *detok,
                      fr_generate_result *result, bool *done, fr_err *err)
{
    const fr_vocab *v = s->e->vocab;
    int32_t token;
    FR_TRY(pick(s, sampler, &token, err));
    result->n_generated++;
    *done = true;
    if (fr_vocab_is_eog(v, token)) {
        result->reason = FR_STOP_EOG;
        return FR_OK;
    }
    FR_TRY(fr_detok_push(v, detok, token, o->params->special, &o->held, err));
    if (flow(o, false, &result->stop_word))
        result->reason = FR_STOP_WORD;
    else if (o->caller_stopped)
        result->reason = FR_STOP_CALLER;
    else if (o->params->n_predict >= 0 && result->n_generated >= o->params->n_predict)
        result->reason = FR_STOP_LIMIT;
    else if (s->n_tokens >= s->e->cfg.n_ctx)
        result->reason = FR_STOP_CONTEXT;
    else
        *done = false;
    return *done ? FR_OK : fr_session_append(s, &token, 1, err);
}

fr_status fr_generate(fr_session *s, fr_sampler *sampler, const fr_generate_params *params,
                      fr_text_fn fn, void *user, fr_generate_result *result, fr_err *err)
{
    *result = (fr_generate_result){.reason = FR_STOP_LIMIT};
    if (!s->last)
        return fr_fail(err, FR_EINVAL,
                       "generation: the session has no logits; append a prompt first");
    outlet o = {.params = params, .fn = fn, .user = user};
    fr_detok detok = {0};
    bool done = params->n_predict == 0;
    fr_status st = FR_OK;
    while (!done)
        FR_TRY_OUT(st, step(s, sampler, &o, &detok, result, &done, err));
    if (result->reason != FR_STOP_WORD) {
        FR_TRY_OUT(st, fr_detok_flush(&detok, &o.held, err));
        if (flow(&o, true, &result->stop_word))
            result->reason = FR_STOP_WORD;
    }
out:
    fr_buf_free(&o.held);
    return st;
}
