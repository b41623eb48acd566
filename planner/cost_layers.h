/* Inside the cost model: what a layer asks for, what a device can do, and the time of one layer.
 * The solver works with these, because a move of its changes a layer or two. */
#ifndef FR_PLANNER_COST_LAYERS_H
#define FR_PLANNER_COST_LAYERS_H

#include "planner/cost.h"

/* Bytes that are read once a step and the quantized weights among them, and operations a token: on
 * integers (with quantized weights) and on floats. */
typedef struct {
    double bytes, weights, int_ops, float_ops;
} plan_work;

typedef struct {
    plan_work attn[2]; /* weights of attention, norms, router: on latents; on expanded K and V */
    plan_work ffn;     /* dense or shared feed-forward */
    plan_work experts; /* bytes of all routed experts; operations of those that a token uses */
} plan_layer_work;

plan_layer_work plan_layer_work_of(const fr_model *m, int layer);
plan_work plan_output_work(const fr_model *m);

/* Attention over the cache of one layer. */
typedef struct {
    double pos_bytes;   /* of one position */
    double pair_ops[2]; /* of a token and a position: on latents; expanded */
    double expand_ops;  /* of a position whose K and V are expanded, once a batch */
} plan_attn_work;

plan_attn_work plan_attn_work_of(const fr_model *m, const fr_plan_options *o);

/* What devices do in a second; 0: unknown, bounds nothing. */
typedef struct {
    double bandwidth, int_ops, float_ops;
    double decode_ops; /* integer operations that the decoding of a weight costs, once a step */
    double to, from;   /* its link, seen from the host; 0 for the CPU */
    int twin;          /* the first device that is the same physical GPU */
} plan_rates;

typedef struct {
    int n_devices;
    plan_rates rates[FR_PLAN_MAX_DEVICES];
    bool has_twins;                        /* virtual GPUs */
    double all_links;                      /* host to all GPUs at once, RAM bandwidth not counted */
    double link_part[FR_PLAN_MAX_DEVICES]; /* of what is sent over all links: each one's */
    bool kv_on_cpu;
} plan_machine;

plan_machine plan_machine_of(const fr_hardware *hw, const fr_plan_options *o);

/* Seconds for which each resource is what a step waits for. */
typedef struct {
    double memory[FR_PLAN_MAX_DEVICES], compute[FR_PLAN_MAX_DEVICES];
    double links, latency;
} plan_busy;

/* A step of n_tokens at a depth. */
typedef struct {
    const plan_machine *machine;
    double n_tokens, n_outputs;
    double expert_part;  /* of the routed experts: those that at least one token uses */
    double hidden_bytes; /* of the hidden state of one token */
    bool expanded;       /* attention on expanded K and V */
    bool streams;        /* experts may be sent to the GPUs */
    plan_work cache;     /* attention over the cache, all tokens */
    double hop[FR_PLAN_MAX_DEVICES][FR_PLAN_MAX_DEVICES];  /* seconds of the hidden state of all
                                                              tokens from a device to another */
    double trip[FR_PLAN_MAX_DEVICES][FR_PLAN_MAX_DEVICES]; /* there and back */
} plan_step;

plan_step plan_step_of(const plan_machine *machine, const fr_model *m, const fr_plan_options *o,
                       int64_t depth, int64_t n_tokens);

/* Seconds of the parts of one layer in one step, on each device that could have them. */
typedef struct {
    double attention[FR_PLAN_MAX_DEVICES]; /* with the cache and the way to it */
    double own[FR_PLAN_MAX_DEVICES];       /* dense or shared feed-forward */
    double experts[FR_PLAN_MAX_DEVICES];   /* all routed experts; a share takes its share */
    double sent;                           /* all routed experts over all links */
} plan_layer_times;

plan_layer_times plan_layer_times_of(const plan_step *s, const plan_layer_work *w);

/* What a layer waits for. */
typedef struct {
    bool streamed; /* the experts of the RAM are sent to the GPUs ... */
    bool by_links; /* ... and that takes longest */
    int slowest;   /* the device whose feed-forward part takes longest */
} plan_layer_wait;

/* Seconds of a layer whose dense part is on `dense` and whose experts are shared out so; *wait may
 * be NULL. */
double plan_layer_seconds(const plan_step *s, const plan_layer_times *t, int dense,
                          const double share[FR_PLAN_MAX_DEVICES], plan_layer_wait *wait);

/* Seconds that the output takes on a device, when the last layer was on `from`. */
double plan_output_seconds(const plan_step *s, const plan_work *w, int from, int device,
                           plan_busy *busy);

/* The two steps that the objective looks at, and their weights: its value is the sum of weight *
 * seconds. */
typedef struct {
    plan_machine machine;
    plan_step steps[2]; /* decode, prefill */
    double weights[2];
} plan_goal;

void plan_goal_init(plan_goal *g, const fr_model *m, const fr_hardware *hw,
                    const fr_plan_options *o); /* g must not move afterwards */

#endif
