/* What the files of the family of chains share: solver_chains.c looks for the best way,
 * solver_chains_fill.c makes the tables and says what a block of layers takes. */
#ifndef FR_PLANNER_SOLVER_CHAINS_INTERNAL_H
#define FR_PLANNER_SOLVER_CHAINS_INTERNAL_H

#include "planner/solver_chains.h"
#include "planner/solver_paths.h"

enum {
    PLAN_CHAINS_TEAM = 3,  /* GPUs of a home, at most */
    PLAN_CHAINS_STOPS = 5, /* how far a home is filled where RAM is short: as far as that is faster;
                              until it has a quarter, a half, three quarters, all of the experts */
    PLAN_CHAINS_CUTS = 64  /* places between layers where something may begin, at most */
};

/* GPUs that are equal in all that matters, rooms too: for speed, not for what is in the family. */
typedef struct {
    int gpu[PLAN_CHAINS_GPUS], n; /* in the order of -dev */
    int radix;                    /* of the number of used ones in a state */
} plan_chain_kind;

typedef struct {
    int n, kind[PLAN_CHAINS_TEAM];
    int *units[PLAN_CHAINS_TEAM]; /* [units of the home]: those of each GPU, never less with more */
} plan_chain_home;

/* Units of a layer from n_from to n_to. */
typedef struct {
    int class;
    int64_t n_from, n_to;
    uint64_t bytes[PLAN_CHAINS_TEAM];
    double seconds, rate;
} plan_chain_piece;

/* A layer of a class, with its experts between RAM and a home. */
typedef struct {
    bool can;
    int item;                         /* whose units move, or -1 */
    int64_t n;                        /* of them */
    double *at;                       /* [n + 1]: seconds with so many in the home */
    int *best;                        /* [n + 1]: the best number of at most so many, of a piece */
    uint64_t bound[PLAN_CHAINS_TEAM]; /* bytes that must be on the GPUs */
    uint64_t rest;                    /* bytes that stay in RAM */
} plan_chain_path;

/* Layers with the dense part on a core and the experts between RAM and a home. */
typedef struct {
    int core, device[PLAN_CHAINS_TEAM]; /* the first devices of these kinds that differ */
    const plan_chain_home *home;
    plan_chain_path *paths;   /* [n_classes] */
    plan_chain_piece *pieces; /* of all classes, the best first */
    int n_pieces, n_gains;    /* all; those that make it faster */
} plan_chain_station;

/* Where the output is: a device, and its kind where it takes room of a GPU that is free, or -1. */
typedef struct {
    int device, kind;
} plan_chain_output;

/* Seconds of a block of layers, and bytes of its experts in RAM (0 where that is ample). */
typedef struct {
    double seconds;
    uint64_t ram;
} plan_chain_block;

typedef struct {
    const plan_tables *t;
    plan_classes classes;
    int n_layer, n_kinds, n_states, n_homes, n_cuts, n_stops;
    bool is_short; /* the RAM */
    int cut[PLAN_CHAINS_CUTS + 1];
    plan_chain_kind kinds[PLAN_CHAINS_GPUS];
    plan_chain_home *homes;             /* those of one GPU first, by kind; the last has none */
    uint64_t left[FR_PLAN_MAX_DEVICES]; /* room beside what is fixed */
    uint64_t output_bytes;
    plan_chain_station *stations; /* [1 + core][home] */
    plan_chain_station *own;      /* [1 + core]: the core is the home */
    int *count;                   /* [class][n_layer + 1] layers of it before one */
    uint64_t *dense;              /* [n_layer + 1] bytes of dense parts before one */
    double *hops;                 /* [1 + core][n_layer + 1] inside a segment on it, before one */
    plan_chain_block *blocks;     /* [1 + core][home][from][to][stop] */
    plan_chain_block *owns;       /* [core][begin][from][to][output there][stop] */
    double *inside;               /* [state][cut][1 + core][begin]: least seconds that follow */
    double *behind;               /* [state][cut][1 + core]: the same behind a segment */
    int64_t *level;               /* [n_layer] scratch */
} plan_chains;

/* ---- planner/solver_chains_fill.c ------------------------------------------------------------ */

/* Makes everything. */
fr_status plan_chains_init(plan_chains *c, const plan_tables *t, const int *order, int n,
                           fr_arena *arena, fr_err *err);

/* The first GPU of a kind, or the CPU for -1. */
int plan_chains_first(const plan_chains *c, int kind);

plan_chain_station *plan_chains_station(const plan_chains *c, int core, int home);

/* Layers [from, to), numbers of cuts, whose experts are in a home; those on their core, which has
 * the dense parts from `begin` on (and the output). */
plan_chain_block *plan_chains_block(const plan_chains *c, int core, int home, int from, int to,
                                    int stop);
plan_chain_block *plan_chains_own(const plan_chains *c, int core, int begin, int from, int to,
                                  bool output, int stop);

/* The same, worked out; units of each layer into level, when that is not NULL. */
plan_chain_block plan_chains_fill_block(const plan_chains *c, int core, int home, int from, int to,
                                        int stop, int64_t *level);
plan_chain_block plan_chains_fill_own(const plan_chains *c, int core, int begin, int from, int to,
                                      bool output, int stop, int64_t *level);

/* ---- planner/solver_chains_rest.c ------------------------------------------------------------ */

/* How many GPUs of a kind a state has taken; the state with those of a home too, -1: they are not
 * all free. */
int plan_chains_used(const plan_chains *c, int state, int kind);
int plan_chains_state_with(const plan_chains *c, int state, const plan_chain_home *h);

/* The number of [state][cut][1 + core]. */
size_t plan_chains_place(const plan_chains *c, int state, int at, int core);

/* Seconds of the way from a core to another one before a layer, less what its sums have for it; of
 * the output behind the last core. */
double plan_chains_way(const plan_chains *c, int before, int core, int il);
double plan_chains_output_seconds(const plan_chains *c, int core, plan_chain_output o);

/* Whether the output may be on a device; where it can be but on the last core, of
 * FR_PLAN_MAX_DEVICES; returns their number. */
bool plan_chains_may_output(const plan_chains *c, int device);
int plan_chains_outputs(const plan_chains *c, int state, plan_chain_output *out);

/* Works out what follows each place at least. */
fr_status plan_chains_look_back(plan_chains *c, fr_arena *arena, fr_err *err);

/* The least seconds that follow a way that is inside a segment on a core ([begin]; of the CPU, 0),
 * or behind one. */
double *plan_chains_inside(const plan_chains *c, int state, int at, int core);
double *plan_chains_behind(const plan_chains *c, int state, int at, int core);

#endif
