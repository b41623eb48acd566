/* What the files of the family of runs share: solver_runs.c looks for the best runs,
 * solver_runs_fill.c says what a run takes, solver_runs_tables.c makes what both ask. */
#ifndef FR_PLANNER_SOLVER_RUNS_INTERNAL_H
#define FR_PLANNER_SOLVER_RUNS_INTERNAL_H

#include "planner/solver_paths.h"
#include "planner/solver_runs.h"

enum {
    PLAN_RUNS_SPLITS = 8,  /* places where a run's experts may change from one GPU to the other */
    PLAN_RUNS_VARIANTS = 3 /* of a run: output elsewhere, on dense, on home */
};

/* GPUs that are equal in all that matters, rooms too: for speed, not for what is in the family. */
typedef struct {
    int gpu[PLAN_RUNS_GPUS], n; /* in the order of -dev */
    int radix;                  /* of the number of used ones in a state */
} plan_gpu_kind;

typedef struct {
    int dense, home;     /* kinds; -1: the CPU, nothing */
    int dense_d, home_d; /* the first devices of these kinds that differ */
} plan_crew;

/* All layers with the dense part on one device and their experts filling another. */
typedef struct {
    plan_path *paths;        /* [n_classes] */
    plan_path_piece *pieces; /* of all classes, the best first */
    int n_pieces;
    double *seconds; /* [n_layer + 1]: sums before a layer, of unfilled layers */
    uint64_t *bound; /* [n_layer + 1] */
    int *cannot;     /* [n_layer + 1] */
} plan_run_station;

/* The best way to have layers up to one placed. */
typedef struct {
    double seconds;
    short state, from;            /* before the last run */
    signed char crew, dense, out; /* of the last run; of the one before */
    signed char variant;          /* of the last run */
} plan_run_label;

typedef struct {
    const plan_tables *t;
    plan_classes classes;
    int n_layer, n_kinds, n_states, parts, n_out;
    bool late; /* the output is beside the last run, on a GPU without one, or on the CPU */
    plan_gpu_kind kinds[PLAN_RUNS_GPUS];
    plan_crew *crews;
    int n_crews;
    plan_run_station *stations; /* [1 + kind][1 + kind][other GPU of the kind] */
    plan_path *tails;           /* [kind][out][class]: with experts carried over */
    int *count;                 /* [class][n_layer + 1] layers of it before one */
    uint64_t *dense;            /* [n_layer + 1] bytes of dense parts before one */
    double *hops;               /* [1 + kind][n_layer + 1] inside a run on it, before a layer */
    uint64_t left[FR_PLAN_MAX_DEVICES]; /* room beside what is fixed */
    uint64_t output_bytes;
    int64_t *level;                    /* [n_layer + 1] scratch */
    double **runs[PLAN_RUNS_VARIANTS]; /* [crew][from][to][in][out]; in and out for crews of one
                                          GPU only */
    double *own[2];         /* [kind][from][to][split]: the part of a split run on its first GPU */
    double **away[2];       /* [crew][from][to]: the part on its other one; second: with output */
    plan_run_label *labels; /* [state][output is placed][layer][1 + kind][out] */
} plan_runs;

/* What a run is asked for. */
typedef struct {
    int crew, from, to, variant;
    int in;  /* parts of the layer before it that its GPU has */
    int out; /* 0, or 1 + (parts - 1) * n_kinds + kind of the GPU that has some of the last layer */
} plan_run;

/* ---- planner/solver_runs_tables.c ------------------------------------------------------------ */

/* Makes everything but the labels' contents. */
fr_status plan_runs_init(plan_runs *r, const plan_tables *t, const int *order, int n,
                         fr_arena *arena, fr_err *err);

static inline size_t plan_runs_width(const plan_runs *r)
{
    return (size_t)r->n_layer + 1;
}

/* The first GPU of a kind, or the CPU for -1; the same, but not d when there is another one. */
int plan_runs_first(const plan_runs *r, int kind);
int plan_runs_other(const plan_runs *r, int kind, int d);

plan_run_station *plan_runs_station_of(const plan_runs *r, const plan_crew *w, bool home);
plan_path *plan_runs_tail(const plan_runs *r, int kind, int out, int class);

/* A crew of one GPU, which can be given experts by its neighbours; one of two. */
bool plan_crew_is_single(const plan_crew *w);
bool plan_crew_is_split(const plan_crew *w);
bool plan_runs_has_variant(const plan_runs *r, const plan_crew *w, int variant);

/* ---- planner/solver_runs_fill.c -------------------------------------------------------------- */

/* Where the seconds of a run are kept; works out all of them. */
double *plan_runs_at(const plan_runs *r, const plan_run *q);
void plan_runs_fill(plan_runs *r);

/* Units of each layer of a run that are on its GPUs, into level; *split: the first layer whose
 * experts are on the crew's second GPU. */
void plan_run_levels(const plan_runs *r, const plan_run *q, int64_t *level, int *split);

#endif
