/* Attention of a batch on K and V of every head, a chunk of positions at a time.
 *
 * An item of work is a head and some tokens. K and V of ATTN_PANEL positions are packed and meet
 * all tokens of the item, ATTN_TILE_ROWS at a time, so that packing shows the less the more tokens
 * an item has; sums stay in the item's room until the chunk is done. Panels start at the chunk's
 * start and every ATTN_PANEL positions, for every token, so neither batch nor threads show in the
 * bits.
 *
 * K and V are rows of floats, or products that are still to be made (fr_cpu_attn_made). Of these
 * an item makes the rows of its head and of a panel just before it packs them, in the second cache;
 * where several items have one head, all panels are packed first, in the room that the caller
 * gives. */
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/kernels.h"

enum {
    MOST_TOKENS = 512, /* of an item: their queries and sums fit the second cache */
    LEAST_TOKENS = 32,
    ITEMS_PER_THREAD = 4, /* parts of the work, so that a late thread holds up nobody */
};

/* The room of a thread, in floats. */
typedef struct {
    int64_t w, wv; /* of packed rows */
    size_t q, k, v, state, acc, rows, n;
} layout;

static layout make_layout(const fr_cpu_attn_args *a)
{
    layout l = {.w = attn_width(a->w1, a->w2), .wv = attn_padded(a->wv)};
    size_t rows = (size_t)attn_packed_rows(MOST_TOKENS);
    l.k = rows * (size_t)l.w;
    l.v = l.k + ATTN_PANEL * (size_t)l.w;
    l.acc = l.v + ATTN_PANEL * (size_t)l.wv;
    l.state = l.acc + rows * (size_t)l.wv;
    l.rows = l.state + (size_t)attn_padded((int64_t)rows * 2);
    l.n = l.rows + ATTN_PANEL * (size_t)(l.w + l.wv); /* products */
    return l;
}

size_t fr_cpu_attn_expanded_bytes(const fr_cpu *cpu, const fr_cpu_attn_args *a)
{
    return make_layout(a).n * (size_t)fr_cpu_n_threads(cpu) * sizeof(float);
}

typedef struct {
    const attn_prompt *kernels;
    const fr_cpu_attn_args *args;
    const fr_cpu_attn_chunk *chunk;
    layout l;
    float *rooms;
    int64_t tokens, n_items; /* of an item, at most; of them */
    _Atomic int64_t next;

    /* products to be made */
    fr_cpu *cpu;
    const cpu_kernel *k_kernel, *v_kernel;
    float *panels;         /* packed, panel by panel and head by head; NULL: items make their own */
    size_t panel, panel_k; /* floats of a packed panel, and of K, which comes first */
    int64_t n_panels;
    _Atomic int64_t next_panel;
} job;

/* Tokens [t0, t1) of head h. */
typedef struct {
    int64_t t0, t1, h;
} item;

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void pack_queries(const job *j, const item *it, float *room)
{
    const fr_cpu_attn_args *a = j->args;
    attn_rows rows = {.x1 = a->q1 + it->t0 * a->ldq1 + it->h * a->q1_stride,
                      .ld1 = a->ldq1,
                      .w1 = a->w1,
                      .w2 = a->w2,
                      .n = it->t1 - it->t0};
    if (a->w2 > 0) {
        rows.x2 = a->q2 + it->t0 * a->ldq2 + it->h * a->q2_stride;
        rows.ld2 = a->ldq2;
    }
    j->kernels->pack_queries(&rows, a->scale, room + j->l.q);
}

/* ---- K and V of a panel: n positions from p on, of head h */

/* The part of K that all heads share. */
static void add_shared_part(const job *j, int64_t at, attn_rows *k)
{
    const fr_cpu_attn_chunk *c = j->chunk;
    k->w2 = j->args->w2;
    if (k->w2 > 0) {
        k->x2 = c->k2 + at * c->ldk2;
        k->ld2 = c->ldk2;
    }
}

static void pack_rows(const job *j, int64_t h, int64_t p, int64_t n, float *k, float *v)
{
    const fr_cpu_attn_args *a = j->args;
    const fr_cpu_attn_chunk *c = j->chunk;
    int64_t at = p - c->from;
    attn_rows of_k = {
        .x1 = c->k1 + at * c->ldk1 + h * c->k1_stride, .ld1 = c->ldk1, .w1 = a->w1, .n = n};
    attn_rows of_v = {
        .x1 = c->v + at * c->ldv + h * c->v_stride, .ld1 = c->ldv, .w1 = a->wv, .n = n};
    add_shared_part(j, at, &of_k);
    j->kernels->pack_keys(&of_k, k);
    j->kernels->pack_values(&of_v, v);
}

/* Rows [row, row + width) of a weight times n positions of the chunk from `at` on: out[i * width].
 */
static void make_rows(const job *j, const cpu_kernel *kernel, const fr_weight *w, int64_t row,
                      int64_t width, int64_t at, int64_t n, float *out)
{
    const fr_act *act = j->chunk->made->x;
    const void *x[ATTN_PANEL];
    float *y[ATTN_PANEL];
    int64_t most = cpu_kernel_tokens(kernel);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (const char *)act->data + (size_t)(at + i) * act->row_bytes;
        y[i] = out + i * width;
    }
    for (int64_t i = 0; i < n; i += most)
        kernel->dot(&(cpu_dot_args){.type = w->type,
                                    .layout = w->layout,
                                    .act = act->type,
                                    .n_tokens = (int)min_i64(n - i, most),
                                    .cols = w->cols,
                                    .base = w->data,
                                    .row_from = row,
                                    .row_to = row + width,
                                    .x = x + i,
                                    .y = y + i});
}

static void make_panel(const job *j, int64_t h, int64_t p, int64_t n, float *room, float *k,
                       float *v)
{
    const fr_cpu_attn_args *a = j->args;
    const fr_cpu_attn_made *m = j->chunk->made;
    float *k_rows = room + j->l.rows, *v_rows = k_rows + ATTN_PANEL * j->l.w;
    int64_t at = p - j->chunk->from;
    make_rows(j, j->k_kernel, m->k, h * m->k_step, a->w1, at, n, k_rows);
    make_rows(j, j->v_kernel, m->v, m->v_at + h * m->v_step, a->wv, at, n, v_rows);
    attn_rows of_k = {.x1 = k_rows, .ld1 = a->w1, .w1 = a->w1, .n = n};
    attn_rows of_v = {.x1 = v_rows, .ld1 = a->wv, .w1 = a->wv, .n = n};
    add_shared_part(j, at, &of_k);
    j->kernels->pack_keys(&of_k, k);
    j->kernels->pack_values(&of_v, v);
}

static float *packed_panel(const job *j, int64_t h, int64_t p)
{
    int64_t i = (p - j->chunk->from) / ATTN_PANEL;
    return j->panels + (size_t)(i * j->args->n_heads + h) * j->panel;
}

/* Takes the sums up from the last chunk; the rows that fill up the last tile start anew. */
static void resume(const job *j, const item *it, float *room)
{
    const fr_cpu_attn_args *a = j->args;
    int64_t n = it->t1 - it->t0, all = attn_packed_rows(n);
    float *state = room + j->l.state, *acc = room + j->l.acc;
    memset(acc, 0, (size_t)(all * j->l.wv) * sizeof *acc);
    for (int64_t r = 0; r < all; r++) {
        state[2 * r] = -INFINITY;
        state[2 * r + 1] = 0.0f;
    }
    for (int64_t r = 0; !j->chunk->first && r < n; r++) {
        int64_t t = it->t0 + r;
        memcpy(state + 2 * r, a->state + (t * a->n_heads + it->h) * 2, 2 * sizeof *state);
        memcpy(acc + r * j->l.wv, a->o + t * a->ldo + it->h * a->o_stride,
               (size_t)a->wv * sizeof *acc);
    }
}

static void put_down(const job *j, const item *it, const float *room)
{
    const fr_cpu_attn_args *a = j->args;
    const float *state = room + j->l.state, *acc = room + j->l.acc;
    for (int64_t t = it->t0; t < it->t1; t++, state += 2, acc += j->l.wv) {
        float *o = a->o + t * a->ldo + it->h * a->o_stride;
        float factor = j->chunk->last ? 1.0f / state[1] : 1.0f;
        for (int64_t i = 0; i < a->wv; i++)
            o[i] = acc[i] * factor;
        if (!j->chunk->last)
            memcpy(a->state + (t * a->n_heads + it->h) * 2, state, 2 * sizeof *state);
    }
}

static void ask_for(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 64 / (int64_t)sizeof *x)
        __builtin_prefetch(x + i, 0, 2);
}

/* A tile asks for a part of what the next panel needs, so that it comes while the tiles of this one
 * are done. Rows of a head lie far apart, each on a page of its own: no hardware asks for them
 * ahead. */
static void ask_for_next(const job *j, const item *it, int64_t p, int64_t t)
{
    const fr_cpu_attn_args *a = j->args;
    const fr_cpu_attn_chunk *c = j->chunk;
    int64_t tiles = (it->t1 - it->t0 + ATTN_TILE_ROWS - 1) / ATTN_TILE_ROWS;
    int64_t tile = (t - it->t0) / ATTN_TILE_ROWS, rows = (ATTN_PANEL + tiles - 1) / tiles;
    int64_t from = p + ATTN_PANEL + tile * rows;
    int64_t to = min_i64(min_i64(from + rows, p + 2 * ATTN_PANEL), c->to);
    if (j->panels && p + ATTN_PANEL < c->to) {
        int64_t part = attn_padded((int64_t)j->panel / tiles);
        int64_t left = (int64_t)j->panel - tile * part;
        ask_for(packed_panel(j, it->h, p + ATTN_PANEL) + tile * part, min_i64(left, part));
    }
    for (int64_t i = from - c->from; !j->panels && i < to - c->from; i++) {
        if (a->w2 > 0)
            ask_for(c->k2 + i * c->ldk2, a->w2);
        if (c->made)
            continue;
        ask_for(c->k1 + i * c->ldk1 + it->h * c->k1_stride, a->w1);
        ask_for(c->v + i * c->ldv + it->h * c->v_stride, a->wv);
    }
}

/* The tokens that see the panel of n positions from p on; the tile's spare rows see what its last
 * token does. */
static void meet_panel(const job *j, const item *it, int64_t p, int64_t n, const float *k,
                       const float *v, float *room)
{
    const layout *l = &j->l;
    for (int64_t t = it->t0; t < it->t1; t += ATTN_TILE_ROWS) {
        int64_t last = min_i64(t + ATTN_TILE_ROWS, it->t1) - 1, r = t - it->t0;
        int32_t seen[ATTN_TILE_ROWS];
        if (j->args->pos0 + last < p)
            continue;
        ask_for_next(j, it, p, t);
        for (int i = 0; i < ATTN_TILE_ROWS; i++) {
            int64_t own = j->args->pos0 + min_i64(t + i, last) + 1 - p;
            seen[i] = own > 0 ? (int32_t)min_i64(own, n) : 0;
        }
        j->kernels->add_tile(&(attn_tile){.q = room + l->q + r * l->w,
                                          .w = l->w,
                                          .k = k,
                                          .v = v,
                                          .n = n,
                                          .wv = l->wv,
                                          .seen = seen,
                                          .state = room + l->state + r * 2,
                                          .acc = room + l->acc + r * l->wv});
    }
}

static void attend(const job *j, const item *it, float *room)
{
    int64_t end = min_i64(j->chunk->to, j->args->pos0 + it->t1);
    pack_queries(j, it, room);
    resume(j, it, room);
    for (int64_t p = j->chunk->from; p < end; p += ATTN_PANEL) {
        int64_t n = min_i64(end - p, ATTN_PANEL);
        float *k = room + j->l.k, *v = room + j->l.v;
        if (j->panels) {
            k = packed_panel(j, it->h, p);
            v = k + j->panel_k;
        } else if (j->chunk->made) {
            make_panel(j, it->h, p, n, room, k, v);
        } else {
            pack_rows(j, it->h, p, n, k, v);
        }
        meet_panel(j, it, p, n, k, v, room);
    }
    put_down(j, it, room);
}

/* ---- the job */

static void pack_all_panels(job *j, int i_thread, float *room)
{
    const fr_cpu_attn_chunk *c = j->chunk;
    int64_t heads = j->args->n_heads, i;
    while ((i = atomic_fetch_add_explicit(&j->next_panel, 1, memory_order_relaxed)) <
           j->n_panels * heads) {
        int64_t p = c->from + i / heads * ATTN_PANEL, h = i % heads;
        float *k = packed_panel(j, h, p);
        make_panel(j, h, p, min_i64(c->to - p, ATTN_PANEL), room, k, k + j->panel_k);
    }
    fr_cpu_barrier(j->cpu, i_thread);
}

/* The last tokens have the most work and come first. */
static void attend_thread(void *arg, int i_thread, int n_threads)
{
    job *j = arg;
    int64_t heads = j->args->n_heads, n_sets = j->n_items / heads, i;
    float *room = j->rooms + (size_t)i_thread * j->l.n;
    (void)n_threads;
    if (j->panels)
        pack_all_panels(j, i_thread, room);
    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->n_items) {
        int64_t t = (n_sets - 1 - i / heads) * j->tokens;
        item it = {t, min_i64(t + j->tokens, j->args->n_tokens), i % heads};
        attend(j, &it, room);
    }
}

static const attn_prompt *kernels_of(const fr_cpu *cpu, const fr_cpu_attn_args *a)
{
    static const attn_prompt *const tiers[] = {
        [FR_ISA_SCALAR] = &attn_prompt_base,
        [FR_ISA_AVX2] = &attn_prompt_avx2,
        [FR_ISA_AVX512] = &attn_prompt_avx512,
    };
    bool fits = a->w1 % ATTN_LANES == 0 && a->w2 % ATTN_LANES == 0 && a->wv % ATTN_LANES == 0 &&
                a->w1 + a->w2 >= 2 * ATTN_LANES;
    if (a->rounded && fits && fr_cpu_isa(cpu) == FR_ISA_AVX512)
        return &attn_prompt_16_avx512;
    return tiers[fr_cpu_isa(cpu)];
}

/* Whether a kernel may be given the rows of one head. */
static bool cuts(const cpu_kernel *kernel, int64_t at, int64_t step, int64_t width)
{
    return at % kernel->grain == 0 && step % kernel->grain == 0 && width % kernel->grain == 0;
}

bool fr_cpu_attn_makes(const fr_cpu *cpu, const fr_cpu_attn_args *a, const fr_cpu_attn_made *m)
{
    fr_act_type act = fr_cpu_act_type(cpu, m->k);
    return kernels_of(cpu, a) == &attn_prompt_16_avx512 && act == fr_cpu_act_type(cpu, m->v) &&
           m->k->n_mat == 1 && m->v->n_mat == 1 &&
           cuts(cpu_kernel_for(&cpu->table, m->k, act), 0, m->k_step, a->w1) &&
           cuts(cpu_kernel_for(&cpu->table, m->v, act), m->v_at, m->v_step, a->wv);
}

/* Packed once for all items where several have a head, as far as there is room. */
static void plan_products(job *j)
{
    const fr_cpu_attn_made *m = j->chunk->made;
    j->k_kernel = cpu_kernel_for(&j->cpu->table, m->k, m->x->type);
    j->v_kernel = cpu_kernel_for(&j->cpu->table, m->v, m->x->type);
    j->panel_k = attn_packed_keys_16(j->l.w);
    j->panel = j->panel_k + attn_packed_values_16(j->l.wv);
    j->n_panels = (j->chunk->to - j->chunk->from + ATTN_PANEL - 1) / ATTN_PANEL;
    size_t all = (size_t)(j->n_panels * j->args->n_heads) * j->panel;
    if (j->n_items > j->args->n_heads && all <= m->room_floats)
        j->panels = m->room;
}

void fr_cpu_attn_expanded(fr_cpu *cpu, const fr_cpu_attn_args *a, const fr_cpu_attn_chunk *chunk,
                          void *scratch)
{
    job j = {.kernels = kernels_of(cpu, a),
             .args = a,
             .chunk = chunk,
             .l = make_layout(a),
             .rooms = scratch,
             .tokens = MOST_TOKENS,
             .cpu = cpu};
    int64_t enough = ITEMS_PER_THREAD * fr_cpu_n_threads(cpu);
    while (j.tokens > LEAST_TOKENS && (a->n_tokens / j.tokens) * a->n_heads < enough)
        j.tokens /= 2;
    j.n_items = (a->n_tokens + j.tokens - 1) / j.tokens * a->n_heads;
    assert(!chunk->made || fr_cpu_attn_makes(cpu, a, chunk->made));
    if (chunk->made)
        plan_products(&j);
    fr_cpu_run(cpu, attend_thread, &j);
}
