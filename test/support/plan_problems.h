/* Problems for the solver and the cost model: models made of shapes alone, machines, items. */
#ifndef FR_TEST_PLAN_PROBLEMS_H
#define FR_TEST_PLAN_PROBLEMS_H

#include "planner/solver.h"

/* A deepseek2 model: hyper-parameters and weights without files. n_expert 0: dense layers only. */
typedef struct {
    int64_t n_layer, n_dense_lead, n_embd, n_ff, n_ff_exp, n_expert, n_used, n_vocab, n_head;
    fr_type dense_type, expert_type,
        down_type; /* down_type: of ffn_down_exps, in every other layer */
} problem_shape;

extern const problem_shape SHAPE_R1; /* DeepSeek-R1, 61 layers, 256 experts */

typedef struct {
    fr_model m; /* its arena is the problem's */
    fr_hardware hw;
    fr_plan_options o;
    fr_arena arena;
    fr_item *items;
    fr_problem p; /* points at the above: must not move */
} plan_problem;

/* Fills all of *q but rules; free with problem_free. Aborts when memory is exhausted. */
void problem_make(plan_problem *q, const problem_shape *shape, const fr_hardware *hw,
                  const fr_plan_options *o);
void problem_free(plan_problem *q);

/* As many GPUs of one kind (3090: 24 GiB, 936 GB/s) and RAM of 80 GB/s. */
fr_hardware problem_machine(int n_gpus, uint64_t vram, uint64_t ram);

fr_plan_options problem_options(int64_t n_ctx, int64_t n_ubatch);

/* Random ones from a seed (not 0): shapes of 2 to 24 layers, 0 to 6 GPUs of mixed kinds, budgets
 * from too small to ample, and rules on some items. */
void problem_random(plan_problem *q, uint64_t seed);

/* Random ones with at most 3 layers, 2 GPUs and 4 experts: all placements can be tried. */
void problem_tiny(plan_problem *q, uint64_t seed);

/* Random ones with 1 to 8 alike GPUs of different room, at least twelve layers, enough RAM, and
 * rules on experts. */
void problem_alike(plan_problem *q, uint64_t seed);

/* Random ones with the shapes of real models and 1 to 8 GPUs of up to four real kinds, each with a
 * room of its own, and rules on experts. */
void problem_mixed(plan_problem *q, uint64_t seed);

/* The assignment that units stand for, in arena. */
fr_assignment problem_assignment(plan_problem *q, int64_t (*units)[FR_PLAN_MAX_DEVICES]);

#endif
