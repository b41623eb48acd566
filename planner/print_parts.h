/* What the printers share: a plan seen by layer, by rule and by file tensor. */
#ifndef FR_PLANNER_PRINT_PARTS_H
#define FR_PLANNER_PRINT_PARTS_H

#include "planner/print.h"

/* Purposes of a device's bytes, in the order of the bars. */
typedef enum {
    PLAN_WEIGHTS,
    PLAN_KV,
    PLAN_WORKSPACE,
    PLAN_STAGING,
    PLAN_LOGITS,
    PLAN_RESERVE,
    PLAN_PURPOSES
} plan_purpose;

extern const char *const plan_purpose_names[PLAN_PURPOSES];
uint64_t plan_purpose_bytes(const fr_plan_device *v, plan_purpose p);

/* The name of a model for people: general.name, or its file. Views the GGUF. */
fr_str plan_model_name(const fr_model *m);

/* Placements [*from, *to) of weight w. */
void plan_placements_of(const fr_plan *p, int weight, int *from, int *to);

/* The weight that a tensor of the file is read for, or -1. */
int plan_weight_of_tensor(const fr_model *m, const fr_gguf_tensor *t);

/* "CUDA1", or "NUMA0" where a rule asked for a node. */
const char *plan_place_id(const fr_plan *p, const fr_placement *at, char out[16]);

/* Appends where the dense part of a layer is ("CUDA0", "CUDA0 + CPU", most bytes first) and where
 * its routed experts are ("CPU", "CUDA0 0-31, CPU 32-255", "gate, up CUDA0; down CPU"; "-" when it
 * has none). Layer -1: the embedding (dense) and the output (experts). */
fr_status plan_print_dense(const fr_plan *p, int layer, fr_buf *out, fr_err *err);
fr_status plan_print_experts(const fr_plan *p, int layer, fr_buf *out, fr_err *err);

/* Bytes of a layer's weights on a device: dense parts, or routed experts. */
uint64_t plan_layer_bytes(const fr_plan *p, int layer, bool experts, int device);

/* What a rule did. */
typedef struct {
    int n_tensors;
    uint64_t bytes, on[FR_PLAN_MAX_DEVICES];
} plan_rule_total;
plan_rule_total plan_rule_sum(const fr_plan *p, int rule);

#endif
