/* Random tokens through a session, timed: what benchmarks compute. */
#ifndef FR_TOOLS_WORKLOAD_H
#define FR_TOOLS_WORKLOAD_H

#include "engine/engine.h"

typedef struct {
    int64_t n_vocab;
    uint64_t rng;
    int32_t *tokens; /* owned */
    int64_t cap;
} tool_workload;

/* For calls of at most n tokens. The same tokens in every run of a program. */
fr_status tool_workload_open(const fr_engine *e, int64_t n, tool_workload *out, fr_err *err);
void tool_workload_close(tool_workload *w); /* {0} is fine */

/* Appends n random tokens as one prompt, or one after the other as generation does (the tokens that
 * come out are not used: speed does not depend on them). *seconds, when not NULL, is what it took.
 * FR_ECANCELLED after Ctrl-C, when tool_catch_interrupts was called. */
fr_status tool_run_prompt(tool_workload *w, fr_session *s, int64_t n, double *seconds, fr_err *err);
fr_status tool_run_generation(tool_workload *w, fr_session *s, int64_t n, double *seconds,
                              fr_err *err);

/* Brings the session to n tokens: by a prompt of random ones; fast: by one of a ubatch at most,
 * which is then repeated (fr_session_repeat). What it holds already stays. */
fr_status tool_fill(tool_workload *w, fr_session *s, int64_t n, bool fast, int64_t n_ubatch,
                    fr_err *err);

/* Appends a random token to each of n sessions, together (fr_engine_step). tokens: room for n. */
fr_status tool_run_step(tool_workload *w, fr_engine *e, fr_session *const *sessions,
                        int32_t *tokens, int64_t n, double *seconds, fr_err *err);

/* Of a clock that only goes forward. */
double tool_seconds(void);

#endif
