/* The executor: walks a graph's nodes on the CPU for one ubatch. Inside the engine box. */
#ifndef FR_ENGINE_EXEC_H
#define FR_ENGINE_EXEC_H

#include <stdatomic.h>

#include "cpu/ops.h"
#include "cuda/cuda.h"
#include "engine/engine.h"
#include "engine/gpu_kv.h"
#include "kv/kv.h"
#include "model/graph.h"
#include "store/store.h"

typedef struct fr_exec fr_exec;

typedef struct {
    int64_t n_ctx, n_ubatch, n_outputs; /* the most that a batch may bring */
    uint64_t expand_bytes;
    fr_kv_layout kv;
    const fr_plan *plan; /* must outlive the executor */
    const fr_gpu *gpu;   /* whose devices the plan's GPUs are; NULL: the plan uses none */
    bool huge_pages;     /* asked for, for the workspace in RAM */
} fr_exec_config;

/* A token of a batch with tokens of several sequences. */
typedef struct {
    fr_kv *kv;
    int64_t pos;
} fr_exec_seq;

/* Consecutive tokens of one sequence, or one token of each of several. */
typedef struct {
    const int32_t *tokens;
    int64_t n_tokens, pos0;
    const fr_exec_seq
        *seqs; /* NULL, or for each token a sequence of its own: then pos0, kv and gpu_kv
                  do not count, and there are fr_exec_most_seqs tokens at most */
    const int32_t *outputs; /* indices of tokens whose logits are wanted, ascending */
    int64_t n_outputs;
    fr_kv *kv;
    const gpu_kv *gpu_kv; /* NULL: all of the cache is in RAM */
    float *logits;        /* n_outputs x n_vocab */
    const atomic_bool *cancel;
} fr_exec_batch;

/* All memory for the largest batch is taken here; fr_exec_run takes none. m, store and the pools
 * must outlive it. cpu_single runs batches of one token, cpu_batch the others. */
fr_status fr_exec_open(const fr_model *m, const fr_store *store, fr_cpu *cpu_single,
                       fr_cpu *cpu_batch, const fr_exec_config *cfg, fr_exec **out, fr_err *err);
void fr_exec_close(fr_exec *x);
/* Sequences that one batch can have tokens of: 1 where GPUs compute, or where several tokens take a
 * path that reads one cache only. */
int64_t fr_exec_most_seqs(const fr_exec *x);
uint64_t fr_exec_bytes(const fr_exec *x);

/* What it took of GPU `device` - 1: workspace with logits, and staging buffers. */
void fr_exec_gpu_bytes(const fr_exec *x, int device, uint64_t *workspace, uint64_t *staging);

/* fr_engine_observe */
fr_status fr_exec_observe(fr_exec *x, fr_observe_fn fn, void *user, fr_err *err);

/* fr_engine_profile, fr_engine_profiled */
fr_status fr_exec_profile(fr_exec *x, bool on, fr_err *err);
fr_profile *fr_exec_profiled(const fr_exec *x);

/* FR_ECANCELLED when *cancel was set: K and V of these positions are then undefined. */
fr_status fr_exec_run(fr_exec *x, const fr_exec_batch *batch, fr_err *err);

#endif
