/* Experts in RAM, sent to the GPUs that compute them: what a batch of many tokens does instead of
 * computing them on the CPU.
 *
 * Only experts that some token chose travel. They are dealt out to the GPUs in ascending order, in
 * proportion to the links, so that all links work at once. A GPU takes them in chunks of
 * neighbouring ids, as many as a staging buffer holds; while one buffer is computed on, the other
 * one is filled by the stream `links`. In a chunk, experts that nobody chose leave a hole. */
#include "engine/exec_internal.h"

/* A GPU's experts of a layer travel in at least so many chunks, if there are as many: only the
 * first one's way and the last one's products are not hidden. */
enum { LEAST_CHUNKS = 8 };

/* The three matrices of the experts in RAM that follow `first`. */
typedef struct {
    int64_t first;
    const fr_weight *gate, *up, *down;
} ram_part;

/* What a GPU still has to take: its experts are those active ones with ranks below `to`. */
typedef struct {
    int64_t rank, to; /* of active experts; the next one, the end */
    int64_t step;     /* active experts of a chunk, at most */
    int64_t id;       /* no active expert of the GPU is before this one */
    bool add;         /* there is a sum already */
} share;

typedef struct {
    const fr_node *node;
    bool active[FR_GPU_MAX_EXPERTS];
    int64_t n_expert, n_active;
    share shares[FR_PLAN_MAX_DEVICES];
} stream_job;

/* ---- whose is what -----------------------------------------------------------------------------
 */

static bool find_part(const fr_exec *x, const fr_node *n, int64_t id, ram_part *out)
{
    for (int64_t at = 0;;) {
        const fr_store_part *gate = exec_part(x, n->weight[0], FR_PLAN_CPU, &at);
        if (!gate)
            return false;
        if (id < gate->first || id >= gate->first + gate->w.n_mat)
            continue;
        int64_t same_up = gate->first, same_down = gate->first;
        *out =
            (ram_part){gate->first, &gate->w, &exec_part(x, n->weight[1], FR_PLAN_CPU, &same_up)->w,
                       &exec_part(x, n->weight[2], FR_PLAN_CPU, &same_down)->w};
        return true;
    }
}

static void find_active(const fr_exec *x, stream_job *job)
{
    const fr_node *n = job->node;
    const int32_t *ids = (const int32_t *)(const void *)exec_host(x, n->in[1].value);
    int64_t n_pairs = exec_count(x, n->in[1].value);
    ram_part part;
    job->n_expert = x->m->hp.n_expert;
    for (int64_t i = 0; i < n_pairs; i++)
        job->active[ids[i]] = true;
    for (int64_t e = 0; e < job->n_expert; e++) {
        job->active[e] = job->active[e] && find_part(x, n, e, &part);
        job->n_active += job->active[e];
    }
}

static double link_of(const fr_exec *x, int d)
{
    double rate = x->cfg.plan->hw.gpus[d - 1].h2d;
    return rate > 0 ? rate : 1;
}

static int64_t nth_active(const stream_job *job, int64_t n)
{
    int64_t id = 0;
    for (; id < job->n_expert; id++)
        if (job->active[id] && n-- == 0)
            break;
    return id;
}

static void deal_out(const fr_exec *x, uint32_t devices, stream_job *job)
{
    double all = 0, before = 0;
    for (int d = 1; d < x->places.n_devices; d++)
        all += devices >> d & 1 ? link_of(x, d) : 0;
    for (int d = 1; d < x->places.n_devices; d++) {
        if (!(devices >> d & 1))
            continue;
        share *s = &job->shares[d];
        s->rank = (int64_t)((double)job->n_active * before / all + 0.5);
        before += link_of(x, d);
        s->to = (int64_t)((double)job->n_active * before / all + 0.5);
        s->add = x->places.weights[job->node->weight[0]] >> d & 1;
        s->step = (s->to - s->rank + LEAST_CHUNKS - 1) / LEAST_CHUNKS;
        s->id = nth_active(job, s->rank);
    }
}

/* ---- chunks ------------------------------------------------------------------------------------
 */

static size_t aligned(size_t bytes)
{
    return (bytes + PLAN_WEIGHT_ALIGN - 1) / PLAN_WEIGHT_ALIGN * PLAN_WEIGHT_ALIGN;
}

static size_t chunk_bytes(const ram_part *p, int64_t n)
{
    return aligned((size_t)n * p->gate->mat_bytes) + aligned((size_t)n * p->up->mat_bytes) +
           aligned((size_t)n * p->down->mat_bytes);
}

/* Experts that a staging buffer holds. */
static int64_t slots_of(const exec_gpu *g, const ram_part *p)
{
    size_t one = p->gate->mat_bytes + p->up->mat_bytes + p->down->mat_bytes;
    int64_t n = (int64_t)(g->stage_bytes / one);
    while (n > 0 && chunk_bytes(p, n) > g->stage_bytes)
        n--;
    return n;
}

/* The active experts from s->id on that are in this chunk: up to *end; moves on to the next. */
static void cut_chunk(const stream_job *job, const ram_part *p, int64_t slots, share *s,
                      int64_t *end)
{
    int64_t most = s->id + slots, part_end = p->first + p->gate->n_mat, n = 0;
    *end = s->id;
    for (int64_t e = s->id; n < s->step && s->rank < s->to && e < most && e < part_end; e++)
        if (job->active[e]) {
            *end = e + 1;
            s->rank++;
            n++;
        }
}

/* A buffer's place for the matrices of one kind of n experts, and what the kernels read there. */
static fr_weight staged(const fr_weight *w, int64_t n, uint8_t **at)
{
    fr_weight here = *w;
    here.n_mat = n;
    here.data = *at;
    *at += aligned((size_t)n * w->mat_bytes);
    return here;
}

static fr_status send_expert(const fr_exec *x, const exec_gpu *g, const fr_weight *from, int64_t i,
                             const fr_weight *to, int64_t slot, fr_err *err)
{
    const uint8_t *src = (const uint8_t *)from->data + (size_t)i * from->mat_bytes;
    uint8_t *dst = (uint8_t *)(uintptr_t)to->data + (size_t)slot * to->mat_bytes;
    return x->gpu->copy_in(dst, src, from->mat_bytes, g->links, err);
}

static fr_status run_chunk(fr_exec *x, const stream_job *job, int d, const ram_part *p,
                           int64_t from, int64_t to, bool add, fr_err *err)
{
    exec_gpu *g = &x->gpus[d];
    int buffer = g->n_staged++ & 1;
    uint8_t *at = g->stage[buffer];
    fr_weight gate = staged(p->gate, to - from, &at), up = staged(p->up, to - from, &at),
              down = staged(p->down, to - from, &at);
    if (g->n_staged > 2)
        FR_TRY(x->gpu->stream_after(g->links, g->emptied[buffer], err));
    for (int64_t e = from; e < to; e++) {
        if (!job->active[e])
            continue;
        FR_TRY(send_expert(x, g, p->gate, e - p->first, &gate, e - from, err));
        FR_TRY(send_expert(x, g, p->up, e - p->first, &up, e - from, err));
        FR_TRY(send_expert(x, g, p->down, e - p->first, &down, e - from, err));
    }
    FR_TRY(x->gpu->event_record(g->filled[buffer], g->links, err));
    FR_TRY(x->gpu->stream_after(g->s, g->filled[buffer], err));
    FR_TRY(exec_gpu_experts(x, job->node, d, from, &gate, &up, &down, add, err));
    return x->gpu->event_record(g->emptied[buffer], g->s, err);
}

/* One chunk of a GPU, if it has any left. */
static fr_status next_chunk(fr_exec *x, stream_job *job, int d, bool *any, fr_err *err)
{
    share *s = &job->shares[d];
    ram_part p;
    int64_t end, slots = 0;
    if (s->rank >= s->to)
        return FR_OK;
    while (!job->active[s->id])
        s->id++;
    int64_t from = s->id;
    if (find_part(x, job->node, from, &p))
        slots = slots_of(&x->gpus[d], &p);
    if (slots < 1)
        return fr_fail(err, FR_EINTERNAL,
                       "experts of layer %d: one does not fit a staging buffer of %zu bytes",
                       job->node->layer, x->gpus[d].stage_bytes);
    cut_chunk(job, &p, slots, s, &end);
    FR_TRY(run_chunk(x, job, d, &p, from, end, s->add, err));
    s->id = end;
    s->add = true;
    *any = true;
    return FR_OK;
}

/* A GPU without any expert still has a part of the sum: zero. */
static fr_status clear_unused(fr_exec *x, const stream_job *job, int d, fr_err *err)
{
    int y = job->node->out[0].value;
    if (job->shares[d].add)
        return FR_OK;
    return x->gpu->fill(exec_on_gpu(x, d, y), 0, (size_t)exec_count(x, y) * sizeof(float),
                        x->gpus[d].s, err);
}

fr_status exec_stream(fr_exec *x, const fr_step *step, fr_err *err)
{
    stream_job job = {.node = &x->graph->nodes[step->node]};
    FR_TRY(exec_gpus_meet(x, err)); /* the choice of experts has come */
    find_active(x, &job);
    deal_out(x, step->devices, &job);
    for (bool any = true; any;) {
        any = false;
        for (int d = 1; d < x->places.n_devices; d++)
            if (step->devices >> d & 1)
                FR_TRY(next_chunk(x, &job, d, &any, err));
    }
    for (int d = 1; d < x->places.n_devices; d++)
        if (step->devices >> d & 1)
            FR_TRY(clear_unused(x, &job, d, err));
    return FR_OK;
}
