/* Engines on a CPU and GPUs, simulated or real: machines, placements and runs that tests compare.
 */
#ifndef FR_TEST_HYBRID_H
#define FR_TEST_HYBRID_H

#include "cuda/cuda.h"
#include "engine/engine.h"

enum { HYBRID_GPUS = 3, HYBRID_GREEDY = 16, HYBRID_GPU_MIB = 64 };

/* Where a model's parts go. Nothing is left to the solver: layers go as -ngl and -ts say, experts
 * with them. */
typedef struct {
    const char *name;
    int n_gpus;
    int ngl;                   /* -1: all */
    double split[HYBRID_GPUS]; /* -ts; all 0: by memory */
    const char *rules;         /* -ot, or NULL */
    int cpu_moe;               /* layers of --n-cpu-moe; -1: --cpu-moe */
    bool kv_on_cpu;
    bool stream; /* links so fast that batches of 32 tokens or more stream the experts in RAM */
} hybrid_shape;

/* What a configuration points at. */
typedef struct {
    const hybrid_shape *shape;
    fr_hardware hw;
} hybrid_machine;

/* Gives cfg a machine of shape->n_gpus GPUs. sim: simulated ones as they are set up; else parts of
 * the first real GPU. *m must live as long as cfg is used. */
void hybrid_place(fr_engine_config *cfg, const hybrid_shape *shape, bool sim, hybrid_machine *m);

/* Logits of n tokens, [n][n_vocab], and the most probable tokens after them. */
typedef struct {
    float *logits; /* free with free */
    size_t n;      /* numbers */
    int32_t greedy[HYBRID_GREEDY];
} hybrid_outcome;

/* One life of an engine. On failure nothing is left behind, and out->logits is NULL. When planned
 * is not NULL, it gets what the plan had for each GPU. */
fr_status hybrid_run(const fr_engine_config *cfg, const int32_t *ids, int64_t n,
                     hybrid_outcome *out, uint64_t planned[HYBRID_GPUS], fr_err *err);

/* From now on the log prints errors alone. */
void hybrid_log_errors(void);

#endif
