/* The forward pass as data: a list of nodes over values.
 *
 * A family file builds it once per (model, attention path); sizes are per token, so one graph
 * serves every batch. The executor walks the nodes; the planner asks how many bytes the values
 * need. Values are rows of float32 (expert ids: int32), one row a token, or one row an output (a
 * token whose logits are wanted). */
#ifndef FR_MODEL_GRAPH_H
#define FR_MODEL_GRAPH_H

#include "model/model.h"

typedef enum {
#define X(ID, name) FR_OP_##ID,
#include "model/ops.def"
#undef X
    FR_OP_COUNT
} fr_op;

typedef struct {
    const char *name;
    int64_t cols;    /* 4-byte elements of a row */
    bool per_output; /* one row an output instead of a token */
    int first, last; /* nodes between which it lives */
} fr_value;

/* A part of each row of a value: n pieces of `width` elements, the first at `at`, `stride` apart
 * (heads of a query). value < 0: no operand. */
typedef struct {
    int value;
    int64_t at, width, n, stride;
} fr_view;

/* op           in[0]        in[1]        in[2]      out[0]        out[1]   weight[0..2]
 * EMBED        -            -            -          x             -        token_embd
 * RMS_NORM     x            -            -          y             -        norm
 * MATMUL       x (n heads)  -            -          y             -        w (n matrices)
 * ROPE         x (n heads)  -            -          (in place)    -        -
 * KV_STORE     c, k heads   rope k       -, v heads -             -        -
 * ATTN_LATENT  q latent     q rope       -          o latent      -        -
 * ATTN_EXPAND  q            -            -          o             -        kv_b, or k_up and v_b
 * ATTN_PLAIN   q            -            -          o             -        -
 * ADD          a            b            -          y (may be a)  -        -
 * SWIGLU       gate         up           -          y (or gate)   -        -
 * ROUTER       logits       -            -          ids           weights  selection bias, or -1
 * MOE          x            ids          weights    y             -        gate, up, down
 * MATMUL_IDS   x (1 or all) ids          -          rows          -        w of the experts
 * MIX          rows         weights      -          y             -        -
 * GATHER       x            -            -          y (outputs)   -        - */
typedef struct {
    fr_op op;
    int layer; /* -1 outside layers */
    fr_view in[3], out[2];
    int weight[3]; /* indices into the model's weights, or -1 */
} fr_node;

/* MATMUL_IDS gives a row for each of a token's experts, of its one input row or of a row each; MIX
 * adds such rows up, weighted. Together with SWIGLU they are a MOE whose matrices are apart. */
typedef struct fr_graph_config {
    bool expand;       /* attention by ATTN_EXPAND instead of ATTN_LATENT (latent cache only) */
    const bool *apart; /* [n_layer]: routed experts as single products; NULL: none */
} fr_graph_config;

typedef struct fr_graph {
    fr_value *values; /* owned, as nodes */
    int n_values;
    size_t cap_values;
    fr_node *nodes;
    int n_nodes;
    size_t cap_nodes;
    int logits;            /* the value that holds the result */
    int first_output_node; /* from here on all values are per output; skipped when there is none */
} fr_graph;

/* Builds the pass of m. *out must be freed with fr_graph_free. */
fr_status fr_graph_build(const fr_model *m, const fr_graph_config *cfg, fr_graph *out, fr_err *err);
void fr_graph_free(fr_graph *g);

/* Places every value but the logits (which belong to the caller) in one workspace for up to
 * n_tokens tokens and n_outputs outputs: values that live at the same time do not overlap.
 * offsets[n_values] in bytes, each aligned to 64; the logits' is SIZE_MAX. Returns the bytes of the
 * workspace. */
size_t fr_graph_place(const fr_graph *g, int64_t n_tokens, int64_t n_outputs, size_t *offsets);

const char *fr_op_name(fr_op op);

/* ---- for the family files
 * ---------------------------------------------------------------------------- */

/* A new value; per_output is taken from the graph's state. -1 with *err set on failure. */
int graph_value(fr_graph *g, const char *name, int64_t cols, fr_err *err);
fr_view graph_all(const fr_graph *g, int value);
fr_view graph_part(int value, int64_t at, int64_t width, int64_t n, int64_t stride);
extern const fr_view GRAPH_NONE;

/* Appends a node and extends the life of its operands. Negative values among them (from a failed
 * graph_value) make it fail. */
fr_status graph_node(fr_graph *g, fr_node node, fr_err *err);

#endif
