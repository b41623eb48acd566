#include "model/graph.h"

#include <string.h>

const fr_view GRAPH_NONE = {.value = -1};

const char *fr_op_name(fr_op op)
{
    static const char *const names[] = {
#define X(ID, name) name,
#include "model/ops.def"
#undef X
    };
    return (unsigned)op < FR_OP_COUNT ? names[op] : "unknown";
}

int graph_value(fr_graph *g, const char *name, int64_t cols, fr_err *err)
{
    void *items = g->values;
    if (fr_mem_grow(FR_MEM_MODEL, &items, &g->cap_values, (size_t)g->n_values + 1,
                    sizeof *g->values, err))
        return -1;
    g->values = items;
    g->values[g->n_values] = (fr_value){
        .name = name, .cols = cols, .per_output = g->first_output_node >= 0, .first = -1};
    return g->n_values++;
}

fr_view graph_all(const fr_graph *g, int value)
{
    if (value < 0)
        return GRAPH_NONE;
    int64_t cols = g->values[value].cols;
    return (fr_view){value, 0, cols, 1, cols};
}

fr_view graph_part(int value, int64_t at, int64_t width, int64_t n, int64_t stride)
{
    return (fr_view){value, at, width, n, stride};
}

static void touch(fr_graph *g, fr_view v, int node)
{
    if (v.value < 0)
        return;
    fr_value *val = &g->values[v.value];
    if (val->first < 0)
        val->first = node;
    val->last = node;
}

fr_status graph_node(fr_graph *g, fr_node node, fr_err *err)
{
    void *items = g->nodes;
    FR_TRY(fr_mem_grow(FR_MEM_MODEL, &items, &g->cap_nodes, (size_t)g->n_nodes + 1,
                       sizeof *g->nodes, err));
    g->nodes = items;
    for (int i = 0; i < 3; i++)
        touch(g, node.in[i], g->n_nodes);
    for (int i = 0; i < 2; i++)
        touch(g, node.out[i], g->n_nodes);
    g->nodes[g->n_nodes++] = node;
    return FR_OK;
}

fr_status fr_graph_build(const fr_model *m, const fr_graph_config *cfg, fr_graph *out, fr_err *err)
{
    *out = (fr_graph){.logits = -1, .first_output_node = -1};
    fr_status st = fr_model_arch_ops(m)->build(m, cfg, out, err);
    if (st != FR_OK)
        fr_graph_free(out);
    return st;
}

void fr_graph_free(fr_graph *g)
{
    fr_mem_free(g->values);
    fr_mem_free(g->nodes);
    *g = (fr_graph){0};
}

static size_t value_bytes(const fr_value *v, int64_t n_tokens, int64_t n_outputs)
{
    size_t bytes = (size_t)v->cols * 4 * (size_t)(v->per_output ? n_outputs : n_tokens);
    return (bytes + FR_MEM_ALIGN - 1) / FR_MEM_ALIGN * FR_MEM_ALIGN;
}

static bool live_together(const fr_value *a, const fr_value *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* First fit in order of first use: the lowest offset at which a value meets none of those that are
 * placed and live at the same time. */
size_t fr_graph_place(const fr_graph *g, int64_t n_tokens, int64_t n_outputs, size_t *offsets)
{
    size_t total = 0;
    for (int i = 0; i < g->n_values; i++) {
        const fr_value *v = &g->values[i];
        offsets[i] = i == g->logits ? SIZE_MAX : 0;
        if (i == g->logits || v->first < 0)
            continue;
        size_t bytes = value_bytes(v, n_tokens, n_outputs);
        bool moved = true;
        while (moved) {
            moved = false;
            for (int j = 0; j < i; j++) {
                const fr_value *u = &g->values[j];
                if (offsets[j] == SIZE_MAX || u->first < 0 || !live_together(u, v))
                    continue;
                size_t end = offsets[j] + value_bytes(u, n_tokens, n_outputs);
                if (offsets[i] < end && offsets[j] < offsets[i] + bytes) {
                    offsets[i] = end;
                    moved = true;
                }
            }
        }
        if (offsets[i] + bytes > total)
            total = offsets[i] + bytes;
    }
    return total;
}
