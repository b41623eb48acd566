/* The planner's working state, shared by its files.
 *
 * A draft is a plan in the making: tensors cut into pieces that rules and layer options settle or
 * leave open, and items for the solver made of the open ones. It is built once for a set of rules
 * and options (plan_items.c), then sized for a context and a batch and filled (plan_fit.c), many
 * times while a fitting one is looked for, and at last written down as a plan (plan.c). */
#ifndef FR_PLANNER_PLAN_INTERNAL_H
#define FR_PLANNER_PLAN_INTERNAL_H

#include "planner/account.h"
#include "planner/solver.h"

enum {
    PLAN_OPEN = -1,      /* a device that is not settled yet */
    PLAN_CTX_STEP = 256, /* fitted contexts are multiples of it */
    PLAN_MIN_STREAM = 32 /* smallest ubatch for which experts are streamed to GPUs */
};

/* Experts [from, to] of a weight (0, n_mat - 1: all of it). */
typedef struct {
    int weight;
    int64_t from, to;
    int rule;   /* that settled it or bound it to the GPUs; -1: none */
    int device; /* or PLAN_OPEN */
    int numa;   /* -1: no wish */
    int item;   /* that it belongs to */
    fr_layout layout;
    uint64_t bytes;
    const char *why; /* of settled ones */
} plan_piece;

typedef struct {
    const fr_model *m;
    const fr_hardware *hw;
    const fr_rules *rules;
    const bool *skip; /* rules to leave out; NULL: none */
    const plan_passes *passes;
    fr_plan_options o;
    fr_arena arena; /* owns what follows */
    int n_devices;
    int gpus[FR_MAX_GPUS]; /* devices that layers and solver may use, in the order of -dev */
    int n_gpus;
    uint32_t usable; /* the same and the CPU, bit d */
    int *home;       /* [n_layer + 1] where -ngl and -ts put a layer (last: the output), or OPEN */
    const char **home_why; /* [n_layer + 1] */
    plan_piece *pieces;    /* by weight, then expert */
    int n_pieces;
    fr_item *items;         /* every layer's dense part, then its experts; output; embedding */
    uint64_t *item_weights; /* [n_items] open bytes without KV */
    int n_items;
    int *dense_item; /* [n_layer] */
    int *attn_home;  /* [n_layer] where attention is settled to be, or OPEN: with its dense item */
    uint64_t *settled;                     /* [n_devices] bytes of settled pieces */
    int64_t (*units)[FR_PLAN_MAX_DEVICES]; /* [n_items] the filling */

    /* of the size (plan_draft_size) */
    uint64_t kv_layer; /* all sequences */
    plan_workspace ws;
    uint64_t spare[FR_PLAN_MAX_DEVICES]; /* room that a larger budget would have less of: unused */
    fr_plan_device devices[FR_PLAN_MAX_DEVICES]; /* after plan_draft_fill: what each would hold */
    bool fits;
    bool last_resort;   /* of the solver: with more memory the prediction may be worse */
    double search_gain; /* part of the objective that a search, not taken, would save; or 0 */
} plan_draft;

/* Builds a draft; n_ctx, n_ubatch and n_threads of o must be settled. passes, m, hw, rules must
 * outlive it. FR_EINVAL for options that contradict the machine. */
fr_status plan_draft_open(const fr_model *m, const fr_hardware *hw, const fr_rules *rules,
                          const bool *skip, const fr_plan_options *o, const plan_passes *passes,
                          plan_draft *out, fr_err *err);
void plan_draft_close(plan_draft *d);

/* Sets the sizes of caches and buffers for a context and a batch. */
void plan_draft_size(plan_draft *d, int64_t n_ctx, int64_t n_ubatch);

/* Fills first-fit: dense parts on the GPUs in order, experts in RAM and what is left over on GPUs;
 * sets devices and fits. What fits nowhere goes to RAM, or to where it must be, and over budget. */
void plan_draft_fill(plan_draft *d);

/* Fills by the solver, within the rooms that are left; the first-fit filling stays when the solver
 * finds none. Sets devices and fits. */
fr_status plan_draft_solve(plan_draft *d, fr_err *err);

/* Where the attention of a layer is in the filling, and where its cache is. */
int plan_draft_attention(const plan_draft *d, int layer);
int plan_draft_kv(const plan_draft *d, int layer);

/* Layers whose attention is on the CPU in the filling. */
int plan_draft_dense_in_ram(const plan_draft *d);

/* The device of expert `expert` of an open piece in the filling. */
int plan_draft_expert(const plan_draft *d, const plan_piece *p, int64_t expert);

/* The longest context of at most n_max tokens that fits, without driving layers off the GPUs that a
 * short one leaves there; the draft is filled with it. 0: none. */
int64_t plan_fit_context(plan_draft *d, int64_t n_max);

/* Writes the error of a filling that does not fit (plan_ways.c): sums per device, the first tensor
 * over budget, ways out. Returns FR_ENOMEM. */
fr_status plan_fit_explain(const plan_draft *d, fr_err *err);

/* Room that the solver gets on each device. */
void plan_draft_rooms(const plan_draft *d, uint64_t room[FR_PLAN_MAX_DEVICES]);

bool plan_role_is_expert(fr_role role);
bool plan_role_is_attention(fr_role role);

#endif
