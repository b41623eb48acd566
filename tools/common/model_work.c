#include "common/model_work.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "common/mixes.h"
#include "model/graph.h"

/* ---- name ------------------------------------------------------------------------------------ */

/* Most of the weights, by number. */
static const char *commonest_type(const fr_gguf *g)
{
    double count[FR_TYPE_COUNT][FR_LAYOUT_COUNT] = {0}, most = 0;
    const char *name = "unknown";
    for (size_t i = 0; i < fr_gguf_n_tensors(g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        double n = 1;
        for (int d = 0; d < FR_GGUF_MAX_DIMS; d++)
            n *= (double)t->dims[d];
        count[t->type][t->layout] += n;
        if (count[t->type][t->layout] > most) {
            most = count[t->type][t->layout];
            name = fr_type_name(t->type, t->layout);
        }
    }
    return name;
}

/* As the ecosystem's tables have it: "Q4_K - Medium" for Q4_K_M. */
static void type_text(const fr_gguf *g, char *out, size_t n)
{
    static const char *const tails[][2] = {
        {"_S", " - Small"}, {"_M", " - Medium"}, {"_L", " - Large"}};
    uint32_t number;
    char text[16];
    tool_mix_id id;
    bool il;
    const char *name = NULL;
    if (fr_gguf_get_u32(g, "general.file_type", &number, NULL) == FR_OK) {
        snprintf(text, sizeof text, "%u", number);
        if (tool_mix_find(text, &id, &il, NULL) == FR_OK)
            name = tool_mix_get(id)->name;
    }
    snprintf(out, n, "%s", name ? name : commonest_type(g));
    size_t len = strlen(out);
    for (size_t i = 0; name && len > 2 && i < 3; i++)
        if (strcmp(out + len - 2, tails[i][0]) == 0 && strncmp(out, "Q", 1) == 0) {
            snprintf(out + len - 2, n - len + 2, "%s", tails[i][1]);
            return;
        }
}

static void describe(const fr_gguf *g, const fr_model *m, tool_model_work *out)
{
    char type[64];
    double billions = (double)m->n_params * 1e-9;
    type_text(g, type, sizeof type);
    if (billions >= 1)
        snprintf(out->description, sizeof out->description, "%s %.0fB %s", m->arch_name, billions,
                 type);
    else
        snprintf(out->description, sizeof out->description, "%s %.0fM %s", m->arch_name,
                 billions * 1e3, type);
    out->bytes = m->file_bytes;
    out->n_params = m->n_params;
}

/* ---- cost ------------------------------------------------------------------------------------ */

/* The part of a weight that one token meets. */
static double part_of(const fr_model *m, const fr_node *n)
{
    const fr_weight *w = &m->weights[n->weight[0]].shape;
    if (n->op == FR_OP_MOE)
        return (double)m->hp.n_expert_used / (double)w->n_mat;
    return n->op == FR_OP_EMBED ? 1 / (double)w->rows : 1;
}

static double weight_ops(const fr_node *n, const fr_weight *w)
{
    if (n->op != FR_OP_MATMUL && n->op != FR_OP_MOE && n->op != FR_OP_ATTN_EXPAND)
        return 0;
    return 2 * (double)w->cols * (double)w->rows * (double)w->n_mat;
}

static void add_up(const fr_model *m, const fr_graph *g, tool_model_work *out, double ops[2])
{
    ops[0] = ops[1] = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const fr_node *n = &g->nodes[i];
        for (size_t k = 0; k < sizeof n->weight / sizeof *n->weight; k++) {
            if (n->weight[k] < 0)
                continue;
            const fr_weight *w = &m->weights[n->weight[k]].shape;
            double part = part_of(m, n);
            *(n->op == FR_OP_MOE ? &out->expert_bytes : &out->dense_bytes) +=
                (n->op == FR_OP_MOE ? 1 : part) * (double)w->mat_bytes * (double)w->n_mat;
            if (n->op == FR_OP_MOE)
                out->expert_part = part;
            ops[i >= g->first_output_node] += part * weight_ops(n, w);
        }
    }
}

double tool_step_bytes(const tool_model_work *w, int64_t n)
{
    return w->dense_bytes + w->expert_bytes * (1 - pow(1 - w->expert_part, (double)n));
}

/* Generation runs on latents; expanding K and V for a prompt costs each token the same operations.
 */
static fr_status measure_graph(const fr_model *m, tool_model_work *out, fr_err *err)
{
    fr_graph g = {0};
    double ops[2];
    fr_status st = fr_graph_build(m, &(fr_graph_config){.expand = false}, &g, err);
    if (st == FR_OK) {
        add_up(m, &g, out, ops);
        out->token_bytes = tool_step_bytes(out, 1);
        out->token_ops = ops[0];
        out->output_ops = ops[1];
    }
    fr_graph_free(&g);
    return st;
}

/* The engine will say the same when it opens the file. */
static void drop_line(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

fr_status tool_model_work_read(const char *path, fr_mla_mode mla, tool_model_work *out, fr_err *err)
{
    fr_gguf *g = NULL;
    fr_model *m = NULL;
    fr_status st;
    *out = (tool_model_work){0};
    fr_log_set_sink(drop_line, NULL);
    FR_TRY_OUT(st, fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &g, err));
    FR_TRY_OUT(st, fr_model_open(g, mla, &m, err));
    describe(g, m, out);
    st = measure_graph(m, out, err);
out:
    fr_log_set_sink(NULL, NULL);
    fr_model_close(m);
    fr_gguf_close(g);
    return st;
}
