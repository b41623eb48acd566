/* Warp collectives: meeting, and what each of them computes; asynchronous copies. */
#include "cuda/sim/sim_block.hpp"

namespace fsim
{

void start_warps()
{
    for (int w = 0; w * 32 < block.n_threads; w++) {
        int n = block.n_threads - w * 32;
        Warp &warp = block.warps[w];
        warp.alive = n >= 32 ? 0xFFFFFFFFu : (1u << n) - 1;
        warp.n_meetings = 0;
        memset(warp.phase, 0, sizeof warp.phase);
    }
}

/* ---- meeting -------------------------------------------------------------------------------- */

/* All are there: computes once for all lanes, and lets all but `last` go on. */
static void complete(int i_warp, int i_meeting, Thread *last)
{
    Warp &warp = block.warps[i_warp];
    Meeting m = warp.meetings[i_meeting];
    warp.meetings[i_meeting] = warp.meetings[--warp.n_meetings];
    counts.collectives++;
    void *lanes[32] = {};
    for (int l = 0; l < 32; l++)
        if (m.arrived >> l & 1)
            lanes[l] = block.threads[(size_t)(i_warp * 32 + l)].brought;
    if (m.compute)
        m.compute(lanes);
    for (int l = 0; l < 32; l++) {
        Thread *t = &block.threads[(size_t)(i_warp * 32 + l)];
        if ((m.arrived >> l & 1) && t != last)
            make_ready(t);
    }
}

/* Lanes that have ended count as come. */
void warp_lane_exits(Thread *t)
{
    Warp &warp = block.warps[t->index / 32];
    warp.alive &= ~(1u << t->index % 32);
    for (int i = 0; i < warp.n_meetings;) {
        Meeting &m = warp.meetings[i];
        if (m.arrived == (m.mask & warp.alive))
            complete(t->index / 32, i, nullptr);
        else
            i++;
    }
}

static Meeting *find_meeting(Warp &warp, unsigned mask, WarpOp op)
{
    for (int i = 0; i < warp.n_meetings; i++)
        if (warp.meetings[i].mask == mask && warp.meetings[i].op == op)
            return &warp.meetings[i];
    return nullptr;
}

/* Two meetings at once are right only when neither needs lanes that wait in the other. */
static Meeting *open_meeting(Warp &warp, unsigned mask, WarpOp op, warp_compute compute, Site site)
{
    const Thread *t = block.running;
    unsigned me = 1u << t->index % 32;
    for (int i = 0; i < warp.n_meetings; i++) {
        const Meeting &o = warp.meetings[i];
        if ((o.arrived & mask) && (o.mask & me))
            thread_fault("different collectives of one warp: thread %d brings lanes %08x to %s:%d, "
                         "while lanes %08x of %08x wait at %s:%d",
                         t->index, mask, site.file, site.line, o.arrived, o.mask, o.site.file,
                         o.site.line);
    }
    Meeting *m = &warp.meetings[warp.n_meetings++];
    *m = {mask, 0, op, compute, site};
    return m;
}

void warp_collective(unsigned mask, WarpOp op, void *mine, warp_compute compute, Site site)
{
    Thread *t = block.running;
    int i_warp = t->index / 32;
    unsigned me = 1u << t->index % 32;
    Warp &warp = block.warps[i_warp];
    if (!(mask & me))
        thread_fault("thread %d is not in the mask %08x of the collective at %s:%d", t->index, mask,
                     site.file, site.line);
    Meeting *m = find_meeting(warp, mask, op);
    if (!m)
        m = open_meeting(warp, mask, op, compute, site);
    else if (m->site.line != site.line || m->site.file != site.file)
        thread_fault("divergent collective: thread %d at %s:%d, while lanes %08x wait at %s:%d",
                     t->index, site.file, site.line, m->arrived, m->site.file, m->site.line);
    t->mask = mask;
    t->site = site;
    t->brought = mine;
    t->state = Thread::AT_WARP;
    m->arrived |= me;
#ifdef FERRY_SIM_TSAN
    /* Of the collectives only __syncwarp orders memory. */
    int lowest = __builtin_ctz(mask);
    char *token = block.tokens + 16 + 8 * (2 * (i_warp * 32 + lowest) + (warp.phase[lowest] & 1));
    if (op == WARP_SYNC)
        __tsan_release(token);
#endif
    if (m->arrived == (mask & warp.alive)) {
        ON_TSAN(warp.phase[lowest]++;)
        complete(i_warp, (int)(m - warp.meetings), t);
        maybe_yield();
    } else {
        wait_here();
    }
    ON_TSAN(if (op == WARP_SYNC) __tsan_acquire(token);)
}

/* ---- shuffles and reductions ---------------------------------------------------------------- */

static int shfl_source(const ShflLane *s, int lane)
{
    int first = lane & ~(s->width - 1), at = lane & (s->width - 1), from;
    if (s->op == WARP_SHFL)
        return first + (s->arg & (s->width - 1));
    if (s->op == WARP_SHFL_XOR) {
        from = lane ^ s->arg;
        return from < first + s->width ? from : lane;
    }
    from = s->op == WARP_SHFL_UP ? at - s->arg : at + s->arg;
    return from >= 0 && from < s->width ? first + from : lane;
}

/* From a lane that takes no part comes a value that nobody can take for right. */
void shfl_compute(void *lanes[32])
{
    for (int l = 0; l < 32; l++) {
        ShflLane *s = (ShflLane *)lanes[l];
        if (!s)
            continue;
        const ShflLane *from = (const ShflLane *)lanes[shfl_source(s, l) & 31];
        s->result = from ? from->value : 0x7FC0DEAD7FC0DEADull;
    }
}

static int64_t fold(WarpOp op, int64_t a, int64_t b)
{
    switch (op) {
    case WARP_ADD:
        return a + b;
    case WARP_MAX:
        return a > b ? a : b;
    case WARP_MIN:
        return a < b ? a : b;
    case WARP_AND:
        return a & b;
    default:
        return a | b;
    }
}

static int64_t match_mask(void *lanes[32], int64_t value)
{
    int64_t mask = 0;
    for (int l = 0; l < 32; l++)
        if (lanes[l] && ((const ReduceLane *)lanes[l])->value == value)
            mask |= (int64_t)1 << l;
    return mask;
}

void reduce_compute(void *lanes[32])
{
    int64_t sum = 0;
    bool first = true;
    for (int l = 0; l < 32; l++) {
        const ReduceLane *r = (const ReduceLane *)lanes[l];
        if (!r)
            continue;
        int64_t v = r->op == WARP_BALLOT ? (int64_t)(r->value != 0) << l : r->value;
        sum = first ? v : fold(r->op, sum, v);
        first = false;
    }
    for (int l = 0; l < 32; l++) {
        ReduceLane *r = (ReduceLane *)lanes[l];
        if (r)
            r->result = r->op == WARP_MATCH ? match_mask(lanes, r->value) : sum;
    }
}

/* ---- tensor core instructions --------------------------------------------------------------- */

static void need_all_lanes(void *lanes[32], const char *what)
{
    for (int l = 0; l < 32; l++)
        if (!lanes[l])
            thread_fault("%s: lane %d has ended, expected all 32", what, l);
}

static float half_at(uint32_t word, int i)
{
    return fr_f16_to_f32((uint16_t)(word >> (16 * i)));
}

/* Fragments of m16n8k16: lane 4 g + q holds of A rows g, g + 8 at columns 2q.. and 2q + 8.., of B
 * column g at rows 2q.. and 2q + 8.., of C and D rows g, g + 8 at columns 2q.. */
void mma_f16_compute(void *lanes[32])
{
    float a[16][16], b[16][8];
    need_all_lanes(lanes, "mma m16n8k16");
    for (int l = 0; l < 32; l++) {
        const MmaLane *m = (const MmaLane *)lanes[l];
        int g = l / 4, q = l % 4 * 2;
        for (int i = 0; i < 2; i++) {
            a[g][q + i] = half_at(m->a[0], i);
            a[g + 8][q + i] = half_at(m->a[1], i);
            a[g][q + 8 + i] = half_at(m->a[2], i);
            a[g + 8][q + 8 + i] = half_at(m->a[3], i);
            b[q + i][g] = half_at(m->b[0], i);
            b[q + 8 + i][g] = half_at(m->b[1], i);
        }
    }
    for (int l = 0; l < 32; l++) {
        const MmaLane *m = (const MmaLane *)lanes[l];
        float d[4];
        for (int i = 0; i < 4; i++) {
            int row = l / 4 + 8 * (i / 2), col = l % 4 * 2 + i % 2;
            double sum = ((const float *)m->c)[i];
            for (int k = 0; k < 16; k++)
                sum += (double)a[row][k] * (double)b[k][col];
            d[i] = (float)sum;
        }
        memcpy(m->d, d, sizeof d);
    }
}

/* Fragments of m16n8k32: as above with four bytes a register. */
void mma_s8_compute(void *lanes[32])
{
    int8_t a[16][32], b[32][8];
    need_all_lanes(lanes, "mma m16n8k32");
    for (int l = 0; l < 32; l++) {
        const MmaLane *m = (const MmaLane *)lanes[l];
        int g = l / 4, q = l % 4 * 4;
        for (int i = 0; i < 4; i++) {
            a[g][q + i] = (int8_t)(m->a[0] >> (8 * i));
            a[g + 8][q + i] = (int8_t)(m->a[1] >> (8 * i));
            a[g][q + 16 + i] = (int8_t)(m->a[2] >> (8 * i));
            a[g + 8][q + 16 + i] = (int8_t)(m->a[3] >> (8 * i));
            b[q + i][g] = (int8_t)(m->b[0] >> (8 * i));
            b[q + 16 + i][g] = (int8_t)(m->b[1] >> (8 * i));
        }
    }
    for (int l = 0; l < 32; l++) {
        const MmaLane *m = (const MmaLane *)lanes[l];
        int d[4];
        for (int i = 0; i < 4; i++) {
            int row = l / 4 + 8 * (i / 2), col = l % 4 * 2 + i % 2;
            d[i] = ((const int *)m->c)[i];
            for (int k = 0; k < 32; k++)
                d[i] += a[row][k] * b[k][col];
        }
        memcpy(m->d, d, sizeof d);
    }
}

/* Lane 8 j + r names row r of matrix j (8 x 8 of 16 bits); lane l gets columns 2 (l % 4).. of row
 * l / 4 of each. */
void ldmatrix_compute(void *lanes[32])
{
    need_all_lanes(lanes, "ldmatrix");
    for (int l = 0; l < 32; l++) {
        LdmatrixLane *m = (LdmatrixLane *)lanes[l];
        for (int j = 0; j < m->n; j++) {
            const LdmatrixLane *row = (const LdmatrixLane *)lanes[8 * j + l / 4];
            memcpy(&m->out[j], (const char *)row->row + 4 * (l % 4), 4);
        }
    }
}

/* ---- asynchronous copies -------------------------------------------------------------------- */

/* The simulator itself is not instrumented (race mode) or copies through memcpy's own check. */
void touch_range(const void *p, size_t bytes, bool is_write)
{
    (void)p, (void)bytes, (void)is_write;
    ON_TSAN(if (is_write) __tsan_write_range((void *)p, bytes);
            else __tsan_read_range((void *)p, bytes);)
    ON_ASAN(if (void *bad = __asan_region_is_poisoned((void *)p, bytes))
                thread_fault("thread %d: %s %zu B at %p, of which %p is no valid memory",
                             block.running->index, is_write ? "writes" : "reads", bytes, p, bad);)
}

void cp_async(void *dst, const void *src, int bytes)
{
    Thread *t = block.running;
    if (((uintptr_t)dst | (uintptr_t)src) & (uintptr_t)(bytes - 1))
        thread_fault("thread %d: cp.async of %d B from %p to %p is not aligned", t->index, bytes,
                     src, dst);
    if (t->copies.size() == MAX_COPIES)
        thread_fault("thread %d: found %d cp.async that were never waited for", t->index,
                     MAX_COPIES);
    t->copies.push_back({dst, src, bytes, t->copy_groups});
}

void cp_async_commit()
{
    block.running->copy_groups++;
}

void cp_async_wait(int groups_left)
{
    Thread *t = block.running;
    size_t n = 0, n_all = t->copies.size();
    for (; n < n_all && t->copies[n].group < t->copy_groups - groups_left; n++) {
        const AsyncCopy &c = t->copies[n];
        touch_range(c.src, (size_t)c.bytes, false);
        touch_range(c.dst, (size_t)c.bytes, true);
        memcpy(c.dst, c.src, (size_t)c.bytes);
    }
    t->copies.erase(t->copies.begin(), t->copies.begin() + (ptrdiff_t)n);
}

} // namespace fsim
