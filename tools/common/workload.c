#include "common/workload.h"

#include <time.h>

#include "common/interrupt.h"

double tool_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

fr_status tool_workload_open(const fr_engine *e, int64_t n, tool_workload *out, fr_err *err)
{
    int64_t cap = n > 0 ? n : 1;
    *out = (tool_workload){.n_vocab = fr_engine_describe(e).n_vocab, .rng = 1, .cap = cap};
    out->tokens = FR_NEW(int32_t, FR_MEM_MISC, (size_t)cap, err);
    return out->tokens ? FR_OK : FR_ENOMEM;
}

void tool_workload_close(tool_workload *w)
{
    fr_mem_free(w->tokens);
    *w = (tool_workload){0};
}

/* xorshift64*: the same on every machine. */
static void draw_tokens(tool_workload *w, int32_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        w->rng ^= w->rng >> 12;
        w->rng ^= w->rng << 25;
        w->rng ^= w->rng >> 27;
        out[i] = (int32_t)((w->rng * 0x2545F4914F6CDD1Dull >> 33) % (uint64_t)w->n_vocab);
    }
}

static fr_status run(tool_workload *w, fr_session *s, int64_t n, int64_t step, double *seconds,
                     fr_err *err)
{
    if (n > w->cap)
        return fr_fail(err, FR_EINTERNAL, "workload: found %lld tokens, expected at most %lld",
                       (long long)n, (long long)w->cap);
    FR_TRY(tool_check_interrupt(err));
    draw_tokens(w, w->tokens, n);
    tool_interrupt_session(s);
    double start = tool_seconds();
    fr_status st = FR_OK;
    for (int64_t i = 0; i < n && st == FR_OK; i += step)
        st = fr_session_append(s, w->tokens + i, step, err);
    if (seconds)
        *seconds = tool_seconds() - start;
    tool_interrupt_session(NULL);
    return st == FR_OK ? tool_check_interrupt(err) : st;
}

fr_status tool_run_prompt(tool_workload *w, fr_session *s, int64_t n, double *seconds, fr_err *err)
{
    return run(w, s, n, n, seconds, err);
}

fr_status tool_fill(tool_workload *w, fr_session *s, int64_t n, bool fast, int64_t n_ubatch,
                    fr_err *err)
{
    int64_t have;
    fr_session_tokens(s, &have);
    if (have >= n)
        return FR_OK;
    int64_t computed = fast && n > n_ubatch ? n_ubatch : n;
    for (int64_t step; have < computed; have += step) {
        step = computed - have < w->cap ? computed - have : w->cap;
        FR_TRY(tool_run_prompt(w, s, step, NULL, err));
    }
    return have < n ? fr_session_repeat(s, n, err) : FR_OK;
}

fr_status tool_run_generation(tool_workload *w, fr_session *s, int64_t n, double *seconds,
                              fr_err *err)
{
    return run(w, s, n, 1, seconds, err);
}

fr_status tool_run_step(tool_workload *w, fr_engine *e, fr_session *const *sessions,
                        int32_t *tokens, int64_t n, double *seconds, fr_err *err)
{
    FR_TRY(tool_check_interrupt(err));
    draw_tokens(w, tokens, n);
    tool_interrupt_session(sessions[0]);
    double start = tool_seconds();
    fr_status st = fr_engine_step(e, sessions, tokens, n, err);
    *seconds = tool_seconds() - start;
    tool_interrupt_session(NULL);
    return st == FR_OK ? tool_check_interrupt(err) : st;
}
