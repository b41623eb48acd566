#include "planner/print_parts.h"

#include <stdio.h>
#include <string.h>

#include "planner/plan_internal.h"

const char *const plan_purpose_names[PLAN_PURPOSES] = {"weights", "KV",     "workspace",
                                                       "staging", "logits", "reserve"};

uint64_t plan_purpose_bytes(const fr_plan_device *v, plan_purpose p)
{
    const uint64_t bytes[] = {v->weights, v->kv, v->workspace, v->staging, v->logits, v->reserve};
    return bytes[p];
}

fr_str plan_model_name(const fr_model *m)
{
    fr_str name;
    if (fr_gguf_get_str(m->gguf, "general.name", &name, NULL) == FR_OK && name.n > 0)
        return name;
    const char *path = fr_gguf_path(m->gguf, 0), *slash = strrchr(path, '/');
    return fr_str_of(slash ? slash + 1 : path);
}

void plan_placements_of(const fr_plan *p, int weight, int *from, int *to)
{
    int low = 0, high = p->n_placements;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (p->placements[mid].tensor < weight)
            low = mid + 1;
        else
            high = mid;
    }
    *from = *to = low;
    while (*to < p->n_placements && p->placements[*to].tensor == weight)
        ++*to;
}

int plan_weight_of_tensor(const fr_model *m, const fr_gguf_tensor *t)
{
    int layer;
    fr_role role;
    if (!fr_tensor_name_parse(t->name, &layer, &role) || layer >= m->hp.n_layer)
        return -1;
    int w = fr_model_weight_of(m, layer, role);
    return w >= 0 && m->weights[w].src == t ? w : -1;
}

const char *plan_place_id(const fr_plan *p, const fr_placement *at, char out[16])
{
    if (at->numa >= 0)
        snprintf(out, 16, "NUMA%d", at->numa);
    else
        snprintf(out, 16, "%s", p->devices[at->device].id);
    return out;
}

/* ---- layers ------------------------------------------------------------------------------------
 */

static bool is_part(fr_role role, int layer, bool experts)
{
    return (layer < 0 ? role != FR_ROLE_TOKEN_EMBD : plan_role_is_expert(role)) == experts;
}

uint64_t plan_layer_bytes(const fr_plan *p, int layer, bool experts, int device)
{
    uint64_t sum = 0;
    for (int r = 0; r < FR_ROLE_COUNT; r++) {
        int w = fr_model_weight_of(p->model, layer, (fr_role)r), from, to;
        if (w < 0 || !is_part((fr_role)r, layer, experts))
            continue;
        plan_placements_of(p, w, &from, &to);
        for (int i = from; i < to; i++)
            sum += p->placements[i].device == device ? p->placements[i].bytes : 0;
    }
    return sum;
}

static fr_status print_devices(const fr_plan *p, int layer, bool experts, fr_buf *out, fr_err *err)
{
    uint64_t bytes[FR_PLAN_MAX_DEVICES];
    bool any = false;
    for (int dev = 0; dev < p->n_devices; dev++)
        bytes[dev] = plan_layer_bytes(p, layer, experts, dev);
    for (;;) {
        int most = 0;
        for (int dev = 1; dev < p->n_devices; dev++)
            if (bytes[dev] > bytes[most])
                most = dev;
        if (bytes[most] == 0)
            break;
        FR_TRY(fr_buf_printf(out, err, "%s%s", any ? " + " : "", p->devices[most].id));
        bytes[most] = 0;
        any = true;
    }
    return any ? FR_OK : fr_buf_putc(out, '-', err);
}

fr_status plan_print_dense(const fr_plan *p, int layer, fr_buf *out, fr_err *err)
{
    return print_devices(p, layer, false, out, err);
}

/* "CPU", or "CUDA0 0-31, CPU 32-255". */
static fr_status print_slices(const fr_plan *p, int weight, fr_buf *out, fr_err *err)
{
    int from, to;
    char id[16];
    plan_placements_of(p, weight, &from, &to);
    if (to - from == 1)
        return fr_buf_puts(out, plan_place_id(p, &p->placements[from], id), err);
    for (int i = from; i < to; i++)
        FR_TRY(fr_buf_printf(out, err, "%s%s %lld-%lld", i > from ? ", " : "",
                             plan_place_id(p, &p->placements[i], id),
                             (long long)p->placements[i].expert_from,
                             (long long)p->placements[i].expert_to));
    return FR_OK;
}

fr_status plan_print_experts(const fr_plan *p, int layer, fr_buf *out, fr_err *err)
{
    static const fr_role trio[] = {FR_ROLE_FFN_GATE_EXPS, FR_ROLE_FFN_UP_EXPS,
                                   FR_ROLE_FFN_DOWN_EXPS};
    static const char *const names[] = {"gate", "up", "down"};
    fr_buf texts[3] = {{0}};
    fr_status st = FR_OK;
    if (layer < 0)
        return print_devices(p, layer, true, out, err);
    if (fr_model_weight_of(p->model, layer, trio[0]) < 0)
        return fr_buf_putc(out, '-', err);
    for (int r = 0; r < 3 && st == FR_OK; r++)
        st = print_slices(p, fr_model_weight_of(p->model, layer, trio[r]), &texts[r], err);
    if (st == FR_OK && strcmp(texts[0].p, texts[1].p) == 0 && strcmp(texts[0].p, texts[2].p) == 0)
        st = fr_buf_puts(out, texts[0].p, err);
    else if (st == FR_OK && strcmp(texts[0].p, texts[1].p) == 0)
        st = fr_buf_printf(out, err, "gate, up %s; down %s", texts[0].p, texts[2].p);
    else
        for (int r = 0; r < 3 && st == FR_OK; r++)
            st = fr_buf_printf(out, err, "%s%s %s", r ? "; " : "", names[r], texts[r].p);
    for (int r = 0; r < 3; r++)
        fr_buf_free(&texts[r]);
    return st;
}

/* ---- rules -------------------------------------------------------------------------------------
 */

plan_rule_total plan_rule_sum(const fr_plan *p, int rule)
{
    plan_rule_total t = {0};
    int last = -1;
    for (int i = 0; i < p->n_placements; i++) {
        const fr_placement *at = &p->placements[i];
        if (at->rule != rule || p->model->weights[at->tensor].from >= 0)
            continue;
        t.n_tensors += at->tensor != last;
        last = at->tensor;
        t.bytes += at->bytes;
        t.on[at->device] += at->bytes;
    }
    return t;
}
