/* What each device of a plan holds, a line a device. */
#include <stdio.h>

#include "common/placement.h"

/* Layers with something on a device, in runs: "layers 0-20, 30". */
static fr_status put_layers(const char *what, const bool *has, int64_t n, fr_buf *out, fr_err *err)
{
    const char *before = NULL;
    for (int64_t il = 0, to; il < n; il = to + 1) {
        to = il;
        if (!has[il])
            continue;
        while (to + 1 < n && has[to + 1])
            to++;
        if (!before)
            FR_TRY(fr_buf_printf(out, err, "%s%s ", out->n ? ", " : "", what));
        FR_TRY(fr_buf_printf(out, err, "%s%lld", before ? before : "", (long long)il));
        if (to > il)
            FR_TRY(fr_buf_printf(out, err, "-%lld", (long long)to));
        before = ", ";
    }
    return FR_OK;
}

static bool is_expert(fr_role role)
{
    return role == FR_ROLE_FFN_GATE_EXPS || role == FR_ROLE_FFN_UP_EXPS ||
           role == FR_ROLE_FFN_DOWN_EXPS;
}

/* All that the device has of a layer's experts, or a part of it only. */
static void find_experts(const fr_plan *p, int device, bool *all, bool *some)
{
    for (int64_t il = 0; il < p->model->hp.n_layer; il++) {
        uint64_t here = 0, elsewhere = 0;
        for (int i = 0; i < p->n_placements; i++) {
            const fr_model_weight *w = &p->model->weights[p->placements[i].tensor];
            if (w->layer == il && is_expert(w->role))
                *(p->placements[i].device == device ? &here : &elsewhere) += p->placements[i].bytes;
        }
        all[il] = here > 0 && elsewhere == 0;
        some[il] = here > 0 && elsewhere > 0;
    }
}

static bool holds(const fr_plan *p, int device, fr_role role)
{
    for (int i = 0; i < p->n_placements; i++)
        if (p->placements[i].device == device &&
            p->model->weights[p->placements[i].tensor].role == role)
            return true;
    return false;
}

/* "embedding, layers 0-20, experts of 3-12, part of the experts of 13, output" */
static fr_status put_content(const fr_plan *p, int device, fr_buf *out, fr_err *err)
{
    int64_t n = p->model->hp.n_layer;
    fr_status st = FR_ENOMEM;
    bool *layers = FR_NEW(bool, FR_MEM_PLAN, (size_t)n * 4, err);
    if (!layers)
        return st;
    bool *caches = layers + n, *all = caches + n, *some = all + n, other = false;
    for (int64_t il = 0; il < n; il++) {
        layers[il] = p->attention_device[il] == device;
        caches[il] = p->kv_device[il] == device;
        other = other || layers[il] != caches[il];
    }
    find_experts(p, device, all, some);
    if (holds(p, device, FR_ROLE_TOKEN_EMBD))
        FR_TRY_OUT(st, fr_buf_puts(out, "embedding", err));
    FR_TRY_OUT(st, put_layers("layers", layers, n, out, err));
    if (other)
        FR_TRY_OUT(st, put_layers("KV of", caches, n, out, err));
    FR_TRY_OUT(st, put_layers("experts of", all, n, out, err));
    FR_TRY_OUT(st, put_layers("part of the experts of", some, n, out, err));
    if (holds(p, device, FR_ROLE_OUTPUT))
        FR_TRY_OUT(st, fr_buf_printf(out, err, "%soutput", out->n ? ", " : ""));
    if (out->n == 0)
        st = fr_buf_puts(out, p->devices[device].staging > 0 ? "streamed experts" : "nothing", err);
out:
    fr_mem_free(layers);
    return st;
}

void tool_print_devices(const fr_plan *p)
{
    char used[32], budget[32];
    bool any = false;
    for (int d = 1; d < p->n_devices; d++)
        any = any || p->devices[d].used > p->devices[d].reserve;
    for (int d = 0; any && d < p->n_devices; d++) {
        const fr_plan_device *v = &p->devices[d];
        fr_buf content = {0};
        if (v->used > v->reserve && put_content(p, d, &content, NULL) == FR_OK)
            fprintf(stderr, "%s %s: %s of %s: %s\n", v->id, v->name, fr_format_bytes(v->used, used),
                    fr_format_bytes(v->budget, budget), content.p);
        fr_buf_free(&content);
    }
}

static void report_gpu(const fr_plan_device *v, fr_gpu_bytes b)
{
    const struct {
        const char *what;
        uint64_t planned, now, peak;
    } rows[] = {
        {"weights", v->weights, b.weights, b.weights},
        {"kv", v->kv, b.kv, b.kv_peak},
        {"workspace", v->workspace + v->logits, b.workspace, b.workspace},
        {"staging", v->staging, b.staging, b.staging},
    };
    fprintf(stderr, "\nmemory on %-10s planned         now        peak\n", v->id);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char planned[32], now[32], peak[32];
        if (rows[i].planned > 0 || rows[i].peak > 0)
            fprintf(stderr, "%-16s %11s %11s %11s\n", rows[i].what,
                    fr_format_bytes(rows[i].planned, planned), fr_format_bytes(rows[i].now, now),
                    fr_format_bytes(rows[i].peak, peak));
    }
}

void tool_report_gpus(const fr_engine *e)
{
    const fr_plan *p = fr_engine_plan(e);
    for (int d = 1; d < p->n_devices; d++)
        if (p->devices[d].used > p->devices[d].reserve)
            report_gpu(&p->devices[d], fr_engine_gpu_bytes(e, d));
}
