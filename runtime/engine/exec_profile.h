/* Measures the nodes of a pass for fr_engine_profile. Inside the engine box. */
#ifndef FR_ENGINE_EXEC_PROFILE_H
#define FR_ENGINE_EXEC_PROFILE_H

#include "cpu/token_ffn.h"
#include "engine/engine.h"
#include "model/graph.h"

/* Of one model; owned by the caller until exec_profile_close (NULL is allowed). */
fr_profile *exec_profile_open(const fr_model *m, fr_err *err);
void exec_profile_close(fr_profile *p);

/* A reading of both clocks: what follows it until the next reading belongs to one node. */
typedef struct {
    double wall;
    fr_cpu_times cpu;
} exec_moment;

exec_moment exec_profile_now(const fr_cpu *cpu);

/* Adds a node of a step of n_tokens that ran from `from` until `to`. moe: FR_CPU_MOE_STAGES
 * numbers for FR_OP_MOE. ffn: FR_CPU_FFN_STAGES numbers, all 0 but for a node that was run with
 * those behind it as one feed-forward part. */
void exec_profile_node(fr_profile *p, const fr_model *m, const fr_node *n, int64_t n_tokens,
                       const exec_moment *from, const exec_moment *to, const double *moe,
                       const double *ffn);

/* Adds a token's sampling since `from`, the caller's work alone; p may be NULL. */
void exec_profile_sampling(fr_profile *p, const exec_moment *from);

/* Adds a whole step, on n_threads. */
void exec_profile_step(fr_profile *p, int64_t n_tokens, int n_threads, double seconds);

#endif
