/* The step schedule: which device runs each node of a graph, and when values move between devices.
 *
 * A pure function of the graph and of where things are; nothing runs here. Steps are in the order
 * in which one thread issues them: GPUs work behind, the CPU's steps are done when they return.
 *
 * A node runs where its weights are; attention where its cache is; what adds to the hidden state,
 * in the home of its layer; everything else where its input was made. Routed experts may be on
 * several devices: each computes the sum over those it has, and one of them adds the parts up, in
 * the order of the devices. A value is sent to who will need it as soon as it is made, so that it
 * travels while the maker goes on. */
#ifndef FR_ENGINE_SCHEDULE_H
#define FR_ENGINE_SCHEDULE_H

#include "model/graph.h"
#include "planner/plan.h"

typedef enum {
    FR_STEP_RUN,    /* node `node` on `device`, with all experts that are there */
    FR_STEP_STREAM, /* the experts of node `node` that are in RAM, on all devices of `devices`, with
                       their weights sent there meanwhile */
    FR_STEP_COPY,   /* value `value` from device `from` to `device`, for node `node` */
    FR_STEP_SUM     /* the part of value `value` that `from` has is added to that of `device` */
} fr_step_kind;

typedef struct {
    fr_step_kind kind;
    int node; /* steps for nodes that are left out are left out as well; COPY of the logits to the
                 caller: n_nodes */
    int device, from, value;
    uint32_t devices; /* STREAM: bit d */
} fr_step;

/* Where things are, by device of the plan. */
typedef struct {
    int n_devices;
    uint32_t *weights;  /* [n_weights]: bit d: a part of the weight is on device d */
    uint32_t streaming; /* bit d: device d has staging buffers for experts */
    const int *home;    /* [n_layer]: of the hidden state in a layer's additions */
    const int *kv;      /* [n_layer] */
    int64_t n_layer;
} fr_places;

/* Reads them off a plan, whose arrays it refers to; NULL: everything on the CPU (then home and kv
 * are NULL). Freed with fr_places_free. */
fr_status fr_places_make(const fr_model *m, const fr_plan *plan, fr_places *out, fr_err *err);
void fr_places_free(fr_places *p);

typedef struct {
    fr_step *steps; /* owned */
    int n_steps;
    size_t cap_steps;
    uint32_t used; /* devices that take part */
} fr_schedule;

/* Whether experts in RAM are sent to the GPUs that have staging buffers, if there are any, instead
 * of being computed by the CPU: not; for values with a row a token; for those with a row an output,
 * too, of which there may be few. */
typedef enum { FR_STREAM_NONE, FR_STREAM_TOKENS, FR_STREAM_ALL, FR_STREAM_MODES } fr_stream_mode;

/* *out is freed with fr_schedule_free. */
fr_status fr_schedule_make(const fr_model *m, const fr_graph *g, const fr_places *places,
                           fr_stream_mode stream, fr_schedule *out, fr_err *err);
void fr_schedule_free(fr_schedule *s);

/* The batch from which on streaming is faster than computing on the CPU, by the fixed rates of the
 * plan's machine: `hit` = n_expert * (1 - (1 - n_used / n_expert)^n) experts are read by whoever
 * computes n tokens; the links of the GPUs with staging buffers work at once. Never less than
 * FR_STREAM_LEAST; INT64_MAX: never. */
enum { FR_STREAM_LEAST = 32 };
int64_t fr_schedule_stream_from(const fr_model *m, const fr_plan *plan);

/* A line a step, for people and tests. */
fr_status fr_schedule_print(const fr_schedule *s, const fr_graph *g, fr_buf *out, fr_err *err);

#endif
