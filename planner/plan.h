/* The plan: where every tensor lives, what is left, and why. A pure function of the model's
 * headers, the machine, the rules and the options; no weights are read and no device is asked. */
#ifndef FR_PLANNER_PLAN_H
#define FR_PLANNER_PLAN_H

#include "model/graph.h"
#include "model/model.h"
#include "planner/hardware.h"
#include "planner/rules.h"

/* Devices of a plan are numbered: 0 = CPU (RAM), 1 + i = GPU i. */
enum { FR_PLAN_CPU = 0, FR_PLAN_MAX_DEVICES = 1 + FR_MAX_GPUS };

typedef enum { FR_GOAL_BALANCED, FR_GOAL_DECODE, FR_GOAL_PREFILL } fr_goal;
typedef enum { FR_SPLIT_LAYER, FR_SPLIT_NONE } fr_split_mode;

typedef struct {
    int64_t n_ctx; /* 0: fitted: as long as fits, at most what the model was trained for */
    int64_t n_ubatch;
    int64_t n_seq;     /* sequences that share n_ctx evenly (-np), each with a cache of its own */
    int64_t n_outputs; /* rows of logits that a ubatch can deliver */
    fr_type type_k, type_v;
    int64_t kv_window;     /* exact positions beside a rounded cache (kv.h) */
    uint64_t expand_bytes; /* -amb; 0 = no limit */
    int64_t n_gpu_layers;  /* -ngl; < 0: as many as fit (all with a GPU) */
    fr_split_mode split_mode;
    int main_gpu;
    double split[FR_MAX_GPUS]; /* -ts; n_split = 0: by free memory */
    int n_split;
    int gpus[FR_MAX_GPUS]; /* -dev: the GPUs to use, in the order in which layers go to them; a rule
                              for another one is an error */
    int n_gpus;            /* 0: all, in their order */
    bool kv_on_cpu;        /* -nkvo */
    bool fit;              /* fill what the rules leave open (--fit) */
    uint64_t margin_bytes[FR_MAX_GPUS]; /* left free on each GPU */
    fr_goal goal;
    bool search;    /* take what a search finds where that is faster (--fit-search) */
    int n_threads;  /* of the CPU; <= 0: as many as the machine has cores */
    int strictness; /* as fr_rules_check_args */
} fr_plan_options;

fr_plan_options fr_plan_defaults(void);

/* A slice of a tensor on one device: all of it, or experts [expert_from, expert_to]. */
typedef struct {
    int tensor; /* index into the model's weights */
    int device;
    int numa;                       /* NUMA node that a rule asked for, or -1 */
    int64_t expert_from, expert_to; /* inclusive; 0, n_mat - 1 for all */
    fr_layout layout;               /* in memory */
    uint64_t bytes;                 /* there, row headers and alignment included; 0 for views */
    int rule;        /* number of the rule that put it there, or -1: the solver did */
    const char *why; /* one line for people */
} fr_placement;

/* What one device holds, by purpose. All in bytes. */
typedef struct {
    char id[16]; /* "CPU", "CUDA0" */
    char name[64];
    uint64_t budget; /* what ferry may use */
    uint64_t weights, kv, workspace, staging, logits, reserve;
    uint64_t used, free;
} fr_plan_device;

/* Predicted speed at a depth of the context, and what bounds it. */
typedef struct {
    int64_t depth, n_tokens; /* positions before; tokens computed together */
    double seconds, tokens_per_second;
    char bound_by[48]; /* "RAM bandwidth", "CUDA1 compute", "link of CUDA0" ... */
} fr_prediction;

typedef struct {
    fr_arena arena;        /* owns all below */
    const fr_model *model; /* not owned */
    fr_hardware hw;
    fr_plan_options opts; /* with n_ctx and n_ubatch as fitted */
    fr_plan_device devices[FR_PLAN_MAX_DEVICES];
    int n_devices;
    fr_placement *placements; /* sorted by tensor, then expert */
    int n_placements;
    int *attention_device; /* [n_layer]: where a layer's attention is computed */
    int *kv_device;        /* [n_layer]: where its cache is: the same, or the CPU with kv_on_cpu */
    bool *apart; /* [n_layer]: gate, up and down of an expert are on different devices: they run as
                    single products, with all their rows as values between them */
    bool any_apart;
    bool direct_only; /* a cache is not where the matrices are that expand K and V: all attention
                         runs on latents */
    uint64_t total_bytes, kv_bytes, workspace_bytes;
    fr_diagnostics notes;  /* of the rules and of the solver */
    const fr_rules *rules; /* not owned */
    fr_prediction prefill[4], decode[4];
    int n_prefill, n_decode;
} fr_plan;

/* Plans, or says why not: FR_ENOMEM with the sum per device, the first tensor over budget and at
 * least three ways out with their numbers; FR_EINVAL with the first error of the rules (on failure
 * all that the check found is in *diagnostics, when not NULL; the caller frees it). m and rules
 * must outlive the plan. */
fr_status fr_plan_make(const fr_model *m, const fr_hardware *hw, const fr_rules *rules,
                       const fr_plan_options *opts, fr_plan **out, fr_diagnostics *diagnostics,
                       fr_err *err);
void fr_plan_free(fr_plan *p);

#endif
