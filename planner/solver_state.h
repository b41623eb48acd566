/* Inside the solver: a placement under change, with its objective kept up to date. */
#ifndef FR_PLANNER_SOLVER_STATE_H
#define FR_PLANNER_SOLVER_STATE_H

#include "planner/cost_layers.h"
#include "planner/solver.h"

enum { PLAN_LAYER_ITEMS = 3, PLAN_KNOWN_LAYERS = 1 << 14 };

/* Seconds of a layer that were worked out before, by its mark. */
typedef struct {
    uint64_t mark;
    double seconds;
} plan_known_layer;

/* What does not change: tables of a problem (but what is known of layers so far). */
typedef struct {
    const fr_problem *p;
    plan_goal goal; /* points into itself: a plan_tables must not move */
    int n_layer, n_devices;
    plan_layer_times (*layers)[2];         /* [n_layer], of the goal's steps */
    double (*hop)[FR_PLAN_MAX_DEVICES];    /* of the objective: a layer's way to the next one */
    double (*output)[FR_PLAN_MAX_DEVICES]; /* the same for [last layer's device][output's] */
    int *dense;                            /* [n_layer]: item, or -1 */
    int *twin;         /* [n_layer]: the first layer with the same times and items, maybe itself */
    int (*experts)[2]; /* [n_layer]: items, or -1 */
    int output_item;   /* the output, or the embedding when that is the output too */
    double (*fixed_share)[FR_PLAN_MAX_DEVICES]; /* [n_layer]: of the routed experts, by rules */
    double *unit_share;                         /* [n_items]: of a unit of experts */
    uint64_t *unit_bytes;                       /* [n_items]: rounded up */
    uint64_t (*unit_mark)[FR_PLAN_MAX_DEVICES]; /* [n_items]: what a unit adds to the mark */
    plan_known_layer *known;                    /* [PLAN_KNOWN_LAYERS]: by the mark's low bits */
} plan_tables;

fr_status plan_tables_init(plan_tables *t, const fr_problem *p, fr_arena *arena, fr_err *err);

/* A layer's part of the objective, without the way to it. */
double plan_tables_layer(const plan_tables *t, int il, int dense,
                         const double share[FR_PLAN_MAX_DEVICES]);

typedef struct {
    const plan_tables *t;
    int64_t (*units)[FR_PLAN_MAX_DEVICES];
    uint64_t used[FR_PLAN_MAX_DEVICES];
    int *device;     /* [n_items]: of a part that is not cut: where it is */
    uint64_t *marks; /* [n_layer]: a number of a layer's twin and of where its items are: layers
                        with one mark take equally long */
    double *layers;  /* [n_layer + 1]: seconds of the objective; the last is the output */
    double seconds;  /* their sum when last added up */
} plan_state;

/* All free items in RAM, or the first device they may go to; budgets are not looked at. */
fr_status plan_state_init(plan_state *s, const plan_tables *t, fr_arena *arena, fr_err *err);
void plan_state_reset(plan_state *s);
void plan_state_copy(plan_state *to, const plan_state *from);

/* Works out all layers anew. */
void plan_state_recount(plan_state *s);

/* Bytes beyond the budgets, all devices. */
uint64_t plan_state_excess(const plan_state *s);

/* Adds up anew; what plan_objective says of the placement. */
double plan_state_objective(plan_state *s);

/* A number of an item: items that have the same are of layers that are alike, placed alike, between
 * neighbours that are placed alike, so that what a move of the one does, a move of the other does
 * too. */
uint64_t plan_state_mark(const plan_state *s, int item);

/* Whether n units of an item may move, budgets aside. */
bool plan_state_may_move(const plan_state *s, int item, int from, int to, int64_t n);

/* Moves n units and brings `layers` up to date; returns by how much the objective changes. Moving
 * back restores everything exactly. */
double plan_state_move(plan_state *s, int item, int from, int to, int64_t n);

/* Moves the units of an item to where `units` says. */
void plan_state_set(plan_state *s, int item, const int64_t units[FR_PLAN_MAX_DEVICES]);

/* Where a part that is not cut is; the CPU for none (-1). */
int plan_state_device(const plan_state *s, int item);

/* What plan_state_move would return, for an item of experts; nothing is moved. */
double plan_state_trial(plan_state *s, int item, int from, int to, int64_t n);

/* Most units of an item that can move without exceeding the budget of `to`. */
int64_t plan_state_fit(const plan_state *s, int item, int from, int to);

/* Bytes that device d holds less when n units of an item leave it. */
uint64_t plan_state_freed(const plan_state *s, int item, int d, int64_t n);

/* The baselines and the starts: whole items to the first of n devices in `order` that have room
 * for them; false (nothing moved) when none has. */
bool plan_state_first_fit(plan_state *s, int item, const int *order, int n);

/* Fills a state as a baseline does. */
void plan_state_baseline(plan_state *s, plan_baseline which);

/* GPUs in the order of -dev; returns their number. */
int plan_gpu_order(const fr_problem *p, int order[FR_MAX_GPUS]);

/* RAM holds all that may be there, so that no placement is lost for want of it. */
bool plan_ram_is_ample(const fr_problem *p);

/* Whether two devices, GPUs, are the same but for their room: one speed, the same things allowed,
 * and nothing on either by a rule. */
bool plan_gpus_alike(const plan_tables *t, int a, int b);

#endif
