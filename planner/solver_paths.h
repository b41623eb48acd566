/* Inside the solver: how a layer fills a GPU.
 *
 * A path says what a layer takes while its experts go from RAM to one GPU, one after another. Its
 * pieces are the convex hull of that curve, so that filling a GPU by the gain per byte of pieces
 * is best. Nothing here knows a budget. */
#ifndef FR_PLANNER_SOLVER_PATHS_H
#define FR_PLANNER_SOLVER_PATHS_H

#include "planner/solver_state.h"

/* Where a layer's parts are: the dense part (unless a rule fixed it), the experts that are not in
 * RAM (0: all are), and `parts` of `of` of the experts, which are on a third device. */
typedef struct {
    int dense, home, carry, parts, of;
} plan_station;

/* Units of a layer from n_from to n_to, on the GPU. */
typedef struct {
    int class;
    int64_t n_from, n_to;
    uint64_t bytes;
    double seconds, rate; /* change; by byte: negative */
} plan_path_piece;

typedef struct {
    bool can;
    uint64_t bound;   /* bytes that must be on the GPU, whatever the filling */
    uint64_t carried; /* bytes on the third device */
    int64_t n_carried;
    int item;                /* whose units move, or -1 */
    double seconds;          /* with nothing but that there */
    const double *at;        /* [n]: seconds with n units there */
    const int *best;         /* [n]: the best number of at most n, of the piece that n is in */
    plan_path_piece *pieces; /* the best gain per byte first */
    int n_pieces;
} plan_path;

/* Layers that are alike share a class. */
typedef struct {
    const plan_tables *t;
    int n_classes;
    int *class_of;         /* [n_layer] */
    int *layer_of;         /* [n_classes] */
    plan_path_piece *hull; /* scratch */
} plan_classes;

fr_status plan_classes_init(plan_classes *c, const plan_tables *t, fr_arena *arena, fr_err *err);

/* Where the dense part of a layer is in a run on d: a rule may have fixed it. */
int plan_dense_of(const plan_tables *t, int il, int d);

/* Bytes of a layer's dense part that go to where its run is. */
uint64_t plan_dense_bytes(const plan_tables *t, int il);

fr_status plan_path_make(const plan_classes *c, int class, const plan_station *st, plan_path *out,
                         fr_arena *arena, fr_err *err);

/* The lower hull of a path of `most` units over their bytes, as far as it falls, into c->hull;
 * returns the number of pieces. */
int plan_path_hull(const plan_classes *c, const plan_path *p, int class, int64_t most);

/* Most units of a path's item, of `low` to `high`, that fit when `low` do. */
int64_t plan_path_fit(const plan_classes *c, const plan_path *p, int64_t low, int64_t high,
                      uint64_t room);

/* By rate; pieces of one class in their order. */
int plan_piece_compare(const void *a, const void *b);

#endif
