/* Inside the solver: starts from prices.
 *
 * Lagrangian relaxation: instead of budgets, every byte on a device has a price. Layers then no
 * longer compete, and the best placement is found layer by layer with the hops between neighbours
 * (dynamic programming over the device of each dense part). Prices of devices that are asked for
 * too much rise, the others fall; every round gives a start that budgets, filling and local search
 * make a solution. (Geoffrion 1974, "Lagrangean relaxation for integer programming".) */
#ifndef FR_PLANNER_SOLVER_PRICES_H
#define FR_PLANNER_SOLVER_PRICES_H

#include "planner/solver_state.h"

/* A way to share out a layer's free experts: `eighths` of 8 on b, the others on a. */
typedef struct {
    int a, b, eighths;
} plan_option;

typedef struct {
    const plan_tables *t;
    plan_option *options;
    int n_options;
    double *seconds; /* [layer][dense device][option] */
    double *bytes;   /* [layer][option][device]: of the free experts */
    double price[FR_PLAN_MAX_DEVICES];
    double unit;   /* what is a high price: seconds of the objective over bytes */
    double *least; /* [layer][dense device]: priced seconds up to this layer */
    int *before;   /* [layer][dense device]: of the layer before it */
    int *option;   /* [layer][dense device] */
    int round;
} plan_prices;

fr_status plan_prices_init(plan_prices *pr, const plan_tables *t, fr_arena *arena, fr_err *err);

/* As after init. */
void plan_prices_restart(plan_prices *pr);

/* Puts the next start into *s, which has been reset; false after the last round. Budgets may be
 * exceeded. */
bool plan_prices_next(plan_prices *pr, plan_state *s);

/* Places layers [from, to) anew, the cheapest way at these prices, and the output when they are the
 * last. Budgets may be exceeded. */
void plan_prices_place(plan_prices *pr, const double price[FR_PLAN_MAX_DEVICES], int from, int to,
                       plan_state *s);

#endif
