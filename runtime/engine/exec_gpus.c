/* The GPUs that take part: their memory and streams, and values travelling between devices.
 *
 * Each GPU has one stream for its work, copies included, so that what is overwritten there was read
 * before. Where two streams meet, an event makes one wait for the other: a copy between GPUs is in
 * the stream of its target, and the source goes on when it is done. The host's workspace is one
 * more memory that all streams read and write: before a copy writes to it, the other streams'
 * copies from it are waited for; before the CPU runs a node, all copies from and to it are. */
#include <string.h>

#include "base/log.h"
#include "engine/exec_internal.h"

/* ---- travelling --------------------------------------------------------------------------------
 */

static bool takes_part(const fr_exec *x, int d)
{
    return x->gpus && x->gpus[d].s;
}

/* Work that follows in `later` waits for what is in `earlier` now. */
static fr_status follow(const fr_exec *x, const exec_gpu *later, const exec_gpu *earlier,
                        fr_err *err)
{
    FR_TRY(x->gpu->event_record(earlier->point, earlier->s, err));
    return x->gpu->stream_after(later->s, earlier->point, err);
}

static fr_status send(const fr_exec *x, exec_gpu *to, void *dst_d, const void *src_h, size_t bytes,
                      fr_err *err)
{
    FR_TRY(x->gpu->copy_in(dst_d, src_h, bytes, to->s, err));
    to->sending = true;
    return x->gpu->event_record(to->sent, to->s, err);
}

static fr_status receive(fr_exec *x, exec_gpu *from, void *dst_h, const void *src_d, size_t bytes,
                         fr_err *err)
{
    for (int d = 1; d < x->places.n_devices; d++)
        if (&x->gpus[d] != from && x->gpus[d].sending)
            FR_TRY(x->gpu->stream_after(from->s, x->gpus[d].sent, err));
    FR_TRY(x->gpu->copy_out(dst_h, src_d, bytes, from->s, err));
    from->receiving = true;
    return x->gpu->event_record(from->received, from->s, err);
}

static fr_status pass_on(const fr_exec *x, const exec_gpu *to, void *dst_d, const exec_gpu *from,
                         const void *src_d, size_t bytes, fr_err *err)
{
    FR_TRY(follow(x, to, from, err));
    FR_TRY(x->gpu->copy_peer(dst_d, to->device, src_d, from->device, bytes, to->s, err));
    return follow(x, from, to, err);
}

fr_status exec_gpus_copy(fr_exec *x, const fr_step *step, fr_err *err)
{
    int v = step->value;
    size_t bytes = (size_t)exec_count(x, v) * sizeof(float);
    if (step->from == FR_PLAN_CPU)
        return send(x, &x->gpus[step->device], exec_on_gpu(x, step->device, v), exec_host(x, v),
                    bytes, err);
    if (step->device == FR_PLAN_CPU)
        return receive(x, &x->gpus[step->from], exec_host(x, v), exec_on_gpu(x, step->from, v),
                       bytes, err);
    return pass_on(x, &x->gpus[step->device], exec_on_gpu(x, step->device, v), &x->gpus[step->from],
                   exec_on_gpu(x, step->from, v), bytes, err);
}

static fr_status sum_on_cpu(fr_exec *x, const fr_step *step, fr_err *err)
{
    int64_t count = exec_count(x, step->value);
    float *y = exec_host(x, step->value);
    FR_TRY(receive(x, &x->gpus[step->from], x->moved_h, exec_on_gpu(x, step->from, step->value),
                   (size_t)count * sizeof(float), err));
    FR_TRY(exec_gpus_meet(x, err));
    fr_cpu_add(x->cpu, y, x->moved_h, count, y);
    return FR_OK;
}

fr_status exec_gpus_sum(fr_exec *x, const fr_step *step, fr_err *err)
{
    if (step->device == FR_PLAN_CPU)
        return sum_on_cpu(x, step, err);
    exec_gpu *to = &x->gpus[step->device];
    float *y = exec_on_gpu(x, step->device, step->value);
    float *moved = (float *)(void *)to->part[PLAN_GPU_MOVED];
    int64_t count = exec_count(x, step->value);
    size_t bytes = (size_t)count * sizeof(float);
    if (step->from == FR_PLAN_CPU)
        FR_TRY(send(x, to, moved, exec_host(x, step->value), bytes, err));
    else
        FR_TRY(pass_on(x, to, moved, &x->gpus[step->from], exec_on_gpu(x, step->from, step->value),
                       bytes, err));
    return x->gpu->add(y, moved, count, y, to->s, err);
}

/* ---- batches -----------------------------------------------------------------------------------
 */

fr_status exec_gpus_meet(fr_exec *x, fr_err *err)
{
    for (int d = 1; x->gpu && d < x->places.n_devices; d++) {
        exec_gpu *g = &x->gpus[d];
        if (g->receiving)
            FR_TRY(x->gpu->event_wait(g->received, err));
        if (g->sending)
            FR_TRY(x->gpu->event_wait(g->sent, err));
        g->receiving = g->sending = false;
    }
    return FR_OK;
}

static fr_status begin_on(fr_exec *x, exec_gpu *g, fr_err *err)
{
    const fr_exec_batch *b = x->batch;
    size_t turns = (size_t)(b->n_tokens * x->m->hp.qk_rope) * sizeof(float);
    FR_TRY(send(x, g, g->part[PLAN_GPU_TURNS], x->turns, turns, err));
    FR_TRY(send(x, g, g->part[PLAN_GPU_TOKENS], b->tokens, (size_t)b->n_tokens * sizeof *b->tokens,
                err));
    if (b->n_outputs > 0)
        FR_TRY(send(x, g, g->part[PLAN_GPU_OUTPUTS], b->outputs,
                    (size_t)b->n_outputs * sizeof *b->outputs, err));
    return x->gpu->fill(g->part[PLAN_GPU_FLAGS], 0, (size_t)x->m->hp.n_layer * sizeof(int32_t),
                        g->s, err);
}

fr_status exec_gpus_begin(fr_exec *x, uint32_t used, fr_err *err)
{
    for (int d = 1; d < x->places.n_devices; d++)
        if (used >> d & 1)
            FR_TRY(begin_on(x, &x->gpus[d], err));
    return FR_OK;
}

static int32_t *flags_of(const fr_exec *x, int d)
{
    return x->flags_h + (int64_t)d * x->m->hp.n_layer;
}

fr_status exec_gpus_end(fr_exec *x, uint32_t used, fr_err *err)
{
    int64_t n_layer = x->m->hp.n_layer;
    for (int d = 1; d < x->places.n_devices; d++)
        if (used >> d & 1)
            FR_TRY(x->gpu->copy_out(flags_of(x, d), x->gpus[d].part[PLAN_GPU_FLAGS],
                                    (size_t)n_layer * sizeof(int32_t), x->gpus[d].s, err));
    for (int d = 1; d < x->places.n_devices; d++)
        if (used >> d & 1) {
            FR_TRY(x->gpu->stream_wait(x->gpus[d].s, err));
            x->gpus[d].sending = x->gpus[d].receiving = false;
        }
    for (int d = 1; d < x->places.n_devices; d++)
        for (int il = 0; (used >> d & 1) && il < n_layer; il++)
            if (flags_of(x, d)[il])
                return exec_not_finite(il, err);
    return FR_OK;
}

void exec_gpus_settle(fr_exec *x)
{
    for (int d = 1; d < x->places.n_devices; d++)
        if (takes_part(x, d)) {
            if (x->gpus[d].links)
                x->gpu->stream_wait(x->gpus[d].links, NULL);
            x->gpu->stream_wait(x->gpus[d].s, NULL);
            x->gpus[d].sending = x->gpus[d].receiving = false;
        }
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static fr_status open_arena(fr_exec *x, exec_gpu *g, int d, fr_err *err)
{
    const fr_plan_device *planned = &x->cfg.plan->devices[d];
    size_t need = x->parts.total + planned->logits;
    void *block;
    if (x->parts.total > planned->workspace)
        return fr_fail(err, FR_EINTERNAL,
                       "workspace of %s: planned %llu bytes, needed %llu; this is a fault of ferry",
                       planned->id, (unsigned long long)planned->workspace,
                       (unsigned long long)x->parts.total);
    FR_TRY(x->gpu->arena_open(g->device, need, "workspace", &g->arena, err));
    for (int i = 0; i < PLAN_GPU_PARTS; i++) {
        if (x->parts.bytes[i] == 0)
            continue;
        FR_TRY(x->gpu->arena_alloc(g->arena, x->parts.bytes[i], &block, err));
        g->part[i] = block;
    }
    if (planned->logits == 0)
        return FR_OK;
    FR_TRY(x->gpu->arena_alloc(g->arena, planned->logits, &block, err));
    g->logits = block;
    return FR_OK;
}

static fr_status open_staging(fr_exec *x, exec_gpu *g, int d, fr_err *err)
{
    size_t bytes = x->cfg.plan->devices[d].staging;
    void *block;
    if (bytes == 0)
        return FR_OK;
    g->stage_bytes = bytes / 2 / PLAN_WEIGHT_ALIGN * PLAN_WEIGHT_ALIGN;
    FR_TRY(x->gpu->arena_open(g->device, bytes, "experts on their way", &g->staging, err));
    FR_TRY(x->gpu->stream_open(g->device, &g->links, err));
    for (int i = 0; i < 2; i++) {
        FR_TRY(x->gpu->arena_alloc(g->staging, g->stage_bytes, &block, err));
        g->stage[i] = block;
        FR_TRY(x->gpu->event_open(g->device, &g->filled[i], err));
        FR_TRY(x->gpu->event_open(g->device, &g->emptied[i], err));
    }
    return FR_OK;
}

static fr_status open_gpu(fr_exec *x, int d, fr_err *err)
{
    exec_gpu *g = &x->gpus[d];
    g->device = x->cfg.plan->hw.gpus[d - 1].device;
    FR_TRY(x->gpu->stream_open(g->device, &g->s, err));
    FR_TRY(x->gpu->event_open(g->device, &g->point, err));
    FR_TRY(x->gpu->event_open(g->device, &g->sent, err));
    FR_TRY(x->gpu->event_open(g->device, &g->received, err));
    FR_TRY(open_arena(x, g, d, err));
    return open_staging(x, g, d, err);
}

static void close_gpu(const fr_gpu *gpu, exec_gpu *g)
{
    gpu->stream_close(g->links);
    gpu->stream_close(g->s);
    fr_gpu_event *events[] = {g->point,     g->sent,       g->received,  g->filled[0],
                              g->filled[1], g->emptied[0], g->emptied[1]};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        gpu->event_close(events[i]);
    gpu->arena_close(g->arena);
    gpu->arena_close(g->staging);
}

static fr_status measure(fr_exec *x, fr_err *err)
{
    plan_passes passes = {.n_graphs = x->n_paths};
    int most = 0;
    for (int p = 0; p < x->n_paths; p++) {
        passes.graphs[p] = x->graphs[p];
        most = x->graphs[p].n_values > most ? x->graphs[p].n_values : most;
    }
    passes.offsets = FR_NEW(size_t, FR_MEM_ENGINE, (size_t)most, err);
    if (!passes.offsets)
        return FR_ENOMEM;
    x->parts = plan_gpu_workspace(x->m, &passes, &x->cfg.plan->opts, x->cfg.n_ctx, x->cfg.n_ubatch);
    fr_mem_free(passes.offsets);
    return FR_OK;
}

/* Host memory that copies go through; one that cannot be pinned is slower. */
static void pin(fr_exec *x, bool on)
{
    const struct {
        void *p;
        size_t bytes;
    } blocks[] = {
        {x->work, x->work_bytes},
        {x->moved_h, x->parts.bytes[PLAN_GPU_MOVED]},
        {x->turns, x->parts.bytes[PLAN_GPU_TURNS]},
    };
    fr_err why;
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        uint32_t bit = 1u << i;
        if (!on && (x->pinned & bit))
            x->gpu->host_unregister(blocks[i].p);
        else if (on && blocks[i].p && blocks[i].bytes > 0) {
            if (x->gpu->host_register(blocks[i].p, blocks[i].bytes, &why) == FR_OK)
                x->pinned |= bit;
            else
                fr_log_warn("workspace: cannot be pinned, so copies to GPUs are slower: %s",
                            why.text);
        }
    }
    x->pinned = on ? x->pinned : 0;
}

static uint32_t used_devices(const fr_exec *x)
{
    uint32_t used = 0;
    for (int p = 0; p < x->n_paths; p++)
        for (int mode = 0; mode < FR_STREAM_MODES; mode++)
            used |= x->schedules[p][mode].used;
    return used & ~(1u << FR_PLAN_CPU);
}

fr_status exec_gpus_open(fr_exec *x, fr_err *err)
{
    uint32_t used = used_devices(x);
    if (!used)
        return FR_OK;
    if (!x->cfg.gpu)
        return fr_fail(err, FR_EINTERNAL, "plan: it uses GPUs, but no backend was given");
    x->gpus = FR_NEW(exec_gpu, FR_MEM_ENGINE, (size_t)x->places.n_devices, err);
    if (!x->gpus)
        return FR_ENOMEM;
    x->gpu = x->cfg.gpu;
    FR_TRY(measure(x, err));
    x->flags_h =
        FR_NEW(int32_t, FR_MEM_ENGINE, (size_t)x->places.n_devices * (size_t)x->m->hp.n_layer, err);
    if (!x->flags_h)
        return FR_ENOMEM;
    pin(x, true);
    for (int d = 1; d < x->places.n_devices; d++)
        if (used >> d & 1)
            FR_TRY(open_gpu(x, d, err));
    for (int d = 1; d < x->places.n_devices; d++)
        for (int e = 1; e < x->places.n_devices; e++)
            if (takes_part(x, d) && takes_part(x, e) && x->gpus[d].device != x->gpus[e].device)
                x->gpu->peer_enable(x->gpus[d].device, x->gpus[e].device, NULL);
    return FR_OK;
}

void exec_gpus_close(fr_exec *x)
{
    if (!x->gpus)
        return;
    for (int d = 1; d < x->places.n_devices; d++)
        close_gpu(x->gpu, &x->gpus[d]);
    pin(x, false);
    fr_mem_free(x->flags_h);
    fr_mem_free(x->gpus);
}
