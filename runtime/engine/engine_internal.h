/* Shared by the files of the engine box. */
#ifndef FR_ENGINE_INTERNAL_H
#define FR_ENGINE_INTERNAL_H

#include "cuda/cuda.h"
#include "engine/engine.h"
#include "engine/exec.h"

/* What a step of several sessions is made in; empty when only one can be computed at a time. */
typedef struct {
    int64_t most;      /* sessions */
    fr_exec_seq *seqs; /* [most] */
    int32_t *outputs;  /* [most]: 0, 1, 2 ... */
    float *logits;     /* [most][n_vocab] */
} engine_together;

struct fr_engine {
    fr_engine_config cfg; /* with its defaults filled in; what it points at is not kept */
    fr_gguf *gguf;
    fr_vocab *vocab;
    fr_cpu *cpu_single;
    fr_cpu *cpu_batch; /* may be cpu_single */
    fr_model *model;
    fr_store *store;
    fr_kv_layout kv;
    fr_exec *exec;
    char *name;
    fr_rules *rules;
    fr_plan *plan;
    const fr_gpu *gpu; /* the GPUs that the plan uses; NULL: it uses none */
    bool on_sim;       /* they are simulated ones */
    engine_together together;
    fr_planned_bytes planned;
    uint64_t kv_now[FR_PLAN_MAX_DEVICES], kv_peak[FR_PLAN_MAX_DEVICES]; /* of GPUs */
};

struct fr_session {
    fr_engine *e;
    fr_kv *kv;
    gpu_kv *gpu_kv;  /* NULL: all of the cache is in RAM */
    int32_t *tokens; /* n_ctx of them, n_tokens valid */
    int64_t n_tokens;
    float *logits;     /* n_outputs rows of n_vocab */
    const float *last; /* the row of the last token, or NULL */
    int32_t *outputs;  /* n_outputs indices */
    int64_t n_outputs; /* rows there is room for */
    atomic_bool cancel;
    fr_session_times times;
};

/* Plans: settles n_ctx and n_ubatch, and what is foreseen; keeps rules and plan. FR_ENOMEM with the
 * planner's advice when the model does not fit. */
fr_status engine_plan(fr_engine *e, fr_err *err);

/* Takes the GPUs that the plan uses: they must be there, and have the memory that it counts on. */
fr_status engine_take_gpus(fr_engine *e, fr_err *err);
void engine_give_gpus(fr_engine *e);

/* Rows of logits that one ubatch of a session can deliver, and one step of several. */
static inline int64_t engine_n_outputs(const fr_engine *e)
{
    return e->cfg.all_logits ? e->cfg.n_ubatch : 1;
}

static inline int64_t engine_n_seq(const fr_engine *e)
{
    int64_t n = e->cfg.n_seq > 1 ? e->cfg.n_seq : 1;
    return n < e->cfg.n_ubatch ? n : e->cfg.n_ubatch;
}

/* engine_step.c */
fr_status engine_together_open(fr_engine *e, fr_err *err);
void engine_together_close(engine_together *t);
uint64_t engine_together_bytes(const fr_engine *e);

#endif
