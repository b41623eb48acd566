/* On the way to GPUs: pinned buffers, and a stream for each thread and device, so that nobody waits
 * for anybody else's copies. */
#include "store/store_internal.h"

enum { N_SLOTS = 2 };

typedef struct {
    uint8_t *buffer_h;
    fr_gpu_event *sent[FR_PLAN_MAX_DEVICES];
    int device; /* that it was sent to last; 0: none */
} slot;

struct store_lane {
    slot slots[N_SLOTS];
    int taken; /* the slot that was taken last */
    fr_gpu_stream *streams[FR_PLAN_MAX_DEVICES];
    void *all_h; /* of lane 0: the buffers of all lanes; owned */
    size_t all_bytes;
    int n_lanes;
};

static fr_status open_lane(const fr_store *s, store_lane *l, uint8_t *buffers_h, size_t slot_bytes,
                           fr_err *err)
{
    for (int k = 0; k < N_SLOTS; k++)
        l->slots[k].buffer_h = buffers_h + (size_t)k * slot_bytes;
    for (int d = 1; d < s->n_devices; d++) {
        const store_device *v = &s->devices[d];
        if (!v->arena)
            continue;
        FR_TRY(s->gpu->stream_open(v->gpu, &l->streams[d], err));
        for (int k = 0; k < N_SLOTS; k++)
            FR_TRY(s->gpu->event_open(v->gpu, &l->slots[k].sent[d], err));
    }
    return FR_OK;
}

fr_status store_lanes_open(const fr_store *s, int n_lanes, size_t slot_bytes, store_lane **out,
                           fr_err *err)
{
    store_lane *lanes = FR_NEW(store_lane, FR_MEM_MISC, (size_t)n_lanes, err);
    *out = lanes;
    if (!lanes)
        return FR_ENOMEM;
    lanes->n_lanes = n_lanes;
    lanes->all_bytes = (size_t)n_lanes * N_SLOTS * slot_bytes;
    FR_TRY(s->gpu->host_alloc(lanes->all_bytes, &lanes->all_h, err));
    for (int i = 0; i < n_lanes; i++)
        FR_TRY(open_lane(s, &lanes[i], (uint8_t *)lanes->all_h + (size_t)i * N_SLOTS * slot_bytes,
                         slot_bytes, err));
    return FR_OK;
}

void store_lanes_close(const fr_store *s, store_lane *lanes)
{
    for (int i = 0; lanes && i < lanes->n_lanes; i++)
        for (int d = 1; d < s->n_devices; d++) {
            s->gpu->stream_close(lanes[i].streams[d]);
            for (int k = 0; k < N_SLOTS; k++)
                s->gpu->event_close(lanes[i].slots[k].sent[d]);
        }
    if (lanes)
        s->gpu->host_free(lanes->all_h, lanes->all_bytes);
    fr_mem_free(lanes);
}

store_lane *store_lane_at(store_lane *lanes, int i)
{
    return &lanes[i];
}

fr_status store_lane_take(const fr_store *s, store_lane *l, uint8_t **out_h, fr_err *err)
{
    l->taken = (l->taken + 1) % N_SLOTS;
    slot *k = &l->slots[l->taken];
    *out_h = k->buffer_h;
    if (k->device == FR_PLAN_CPU)
        return FR_OK;
    fr_gpu_event *sent = k->sent[k->device];
    k->device = FR_PLAN_CPU;
    return s->gpu->event_wait(sent, err);
}

fr_status store_lane_send(const fr_store *s, store_lane *l, int device, void *dst_d, size_t bytes,
                          fr_err *err)
{
    slot *k = &l->slots[l->taken];
    FR_TRY(s->gpu->copy_in(dst_d, k->buffer_h, bytes, l->streams[device], err));
    k->device = device;
    return s->gpu->event_record(k->sent[device], l->streams[device], err);
}

fr_status store_lane_wait(const fr_store *s, store_lane *l, fr_err *err)
{
    for (int d = 1; d < s->n_devices; d++)
        if (l->streams[d])
            FR_TRY(s->gpu->stream_wait(l->streams[d], err));
    return FR_OK;
}

fr_status store_copy_wait(const fr_store *s, int device, void *dst_d, const void *src, size_t bytes,
                          fr_err *err)
{
    fr_gpu_stream *stream;
    FR_TRY(s->gpu->stream_open(s->devices[device].gpu, &stream, err));
    fr_status st = s->gpu->copy_in(dst_d, src, bytes, stream, err);
    if (st == FR_OK)
        st = s->gpu->stream_wait(stream, err);
    s->gpu->stream_close(stream);
    return st;
}
