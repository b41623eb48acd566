/* The KV cache and attention on the CPU. */
#include "engine/exec_cpu_internal.h"

fr_cpu_kv exec_cpu_cache(const fr_kv_rows *r, uint8_t *base)
{
    return (fr_cpu_kv){.type = r->type,
                       .width = r->width,
                       .stored = r->stored,
                       .per_pos = r->per_pos,
                       .row_bytes = r->row_bytes,
                       .base = r->width ? base : NULL};
}

/* Tokens [from, from + n) of the batch that follow one another in one sequence. */
typedef struct {
    const fr_kv *kv;
    int64_t from, n, pos0;
} span;

static int64_t n_spans(const fr_exec *x)
{
    return x->batch->seqs ? x->batch->n_tokens : 1;
}

static span span_at(const fr_exec *x, int64_t i)
{
    const fr_exec_batch *b = x->batch;
    if (b->seqs)
        return (span){b->seqs[i].kv, i, 1, b->seqs[i].pos};
    return (span){b->kv, 0, b->n_tokens, b->pos0};
}

static fr_cpu_kv with_window(const fr_exec *x, const span *s, fr_cpu_kv rows, float *recent,
                             float *staged)
{
    rows.window = rows.base ? x->cfg.kv.window : 0;
    rows.recent = recent;
    rows.staged = staged && rows.window ? staged + s->from * rows.per_pos * rows.stored : staged;
    rows.pos0 = s->pos0;
    rows.exact_from = s->kv->exact_from;
    return rows;
}

static fr_cpu_kv cache_k(const fr_exec *x, const span *s, int layer)
{
    return with_window(x, s, exec_cpu_cache(&x->cfg.kv.k, fr_kv_k(s->kv, layer)),
                       fr_kv_recent_k(s->kv, layer), x->staged_k);
}

static fr_cpu_kv cache_v(const fr_exec *x, const span *s, int layer)
{
    return with_window(x, s, exec_cpu_cache(&x->cfg.kv.v, fr_kv_v(s->kv, layer)),
                       fr_kv_recent_v(s->kv, layer), x->staged_v);
}

static bool store_span(fr_exec *x, const fr_node *n, const span *s)
{
    fr_view k = n->in[0], rope = n->in[1], v = n->in[2];
    fr_cpu_kv_store_args args = {
        .a = exec_cpu_data(x, k) + s->from * exec_ld(x, k),
        .lda = exec_ld(x, k),
        .a_width = k.width,
        .a_stride = k.stride,
        .b = exec_cpu_data(x, rope) + s->from * exec_ld(x, rope),
        .ldb = exec_ld(x, rope),
        .b_width = rope.width,
        .n_tokens = s->n,
        .pos0 = s->pos0,
        .dst = cache_k(x, s, n->layer),
        .scratch = x->kv_row,
    };
    if (!fr_cpu_kv_store(x->cpu, &args))
        return false;
    if (v.value < 0)
        return true;
    args.a = exec_cpu_data(x, v) + s->from * exec_ld(x, v);
    args.lda = exec_ld(x, v);
    args.a_width = v.width;
    args.a_stride = v.stride;
    args.b_width = 0;
    args.dst = cache_v(x, s, n->layer);
    return fr_cpu_kv_store(x->cpu, &args);
}

fr_status exec_cpu_kv_store(fr_exec *x, const fr_node *n, fr_err *err)
{
    for (int64_t i = 0; i < n_spans(x); i++) {
        span s = span_at(x, i);
        if (!store_span(x, n, &s))
            return exec_not_finite(n->layer, err);
    }
    return FR_OK;
}

void exec_cpu_kv_keep(const fr_exec *x, int layer)
{
    for (int64_t i = 0; i < n_spans(x); i++) {
        span s = span_at(x, i);
        fr_cpu_kv k = cache_k(x, &s, layer), v = cache_v(x, &s, layer);
        fr_cpu_kv_keep(&k, s.n);
        fr_cpu_kv_keep(&v, s.n);
    }
}

/* q1 and q2 are the parts of each head's query that meet k1 and k2. */
static fr_cpu_attn_args attn_args(const fr_exec *x, const span *s, fr_view q1, fr_view q2,
                                  fr_view o)
{
    return (fr_cpu_attn_args){
        .n_tokens = s->n,
        .n_heads = q1.n,
        .pos0 = s->pos0,
        .scale = fr_hparams_attn_scale(&x->m->hp),
        .q1 = exec_cpu_data(x, q1) + s->from * exec_ld(x, q1),
        .ldq1 = exec_ld(x, q1),
        .q1_stride = q1.stride,
        .w1 = q1.width,
        .q2 = q2.value >= 0 ? exec_cpu_data(x, q2) + s->from * exec_ld(x, q2) : NULL,
        .ldq2 = q2.value >= 0 ? exec_ld(x, q2) : 0,
        .q2_stride = q2.stride,
        .w2 = q2.value >= 0 ? q2.width : 0,
        .wv = o.width,
        .o = exec_cpu_data(x, o) + s->from * exec_ld(x, o),
        .ldo = exec_ld(x, o),
        .o_stride = o.stride,
        .state = x->state,
    };
}

fr_status exec_cpu_attn_cached(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    for (int64_t i = 0; i < n_spans(x); i++) {
        span s = span_at(x, i);
        fr_cpu_attn_args args = attn_args(x, &s, n->in[0], n->in[1], n->out[0]);
        fr_cpu_kv k = cache_k(x, &s, n->layer), v = cache_v(x, &s, n->layer);
        fr_cpu_attn_cached(x->cpu, &args, &k, &v, x->attn);
    }
    exec_cpu_kv_keep(x, n->layer);
    return FR_OK;
}

/* Whether products with a weight read activations that were rounded to 8 bits. */
static bool rounds(const fr_exec *x, const fr_weight *w)
{
    return fr_cpu_act_type(x->cpu, w) != FR_ACT_F32;
}

/* The latents of n positions, as products with a weight read them. */
static fr_act prepare_latents(fr_exec *x, const fr_weight *w, int64_t n)
{
    const exec_expand *e = &x->expand;
    return fr_cpu_act_prepare(x->cpu, fr_cpu_act_type(x->cpu, w), e->latent, x->cfg.kv.k.stored, n,
                              w->cols, e->act);
}

static void expand(fr_exec *x, const fr_weight *w, int64_t n, float *rows)
{
    fr_act act = prepare_latents(x, w, n);
    fr_cpu_matmul(x->cpu, w, &act, n, rows, w->rows);
}

/* K and V of `chunk`, but for what of K comes from the cache: as products that attention is to
 * make, or as rows. */
static void give_heads(fr_exec *x, const exec_expanded *f, const fr_cpu_attn_args *args,
                       fr_cpu_attn_made *made, fr_act *act, fr_cpu_attn_chunk *chunk)
{
    const exec_expand *e = &x->expand;
    int64_t n = chunk->to - chunk->from;
    if (fr_cpu_attn_makes(x->cpu, args, made)) {
        *act = prepare_latents(x, made->k, n);
        chunk->made = made;
        return;
    }
    expand(x, made->k, n, e->k);
    if (!f->whole)
        expand(x, made->v, n, e->v);
    chunk->k1 = e->k;
    chunk->ldk1 = args->n_heads * f->k_stride;
    chunk->k1_stride = f->k_stride;
    chunk->v = f->whole ? e->k + args->w1 : e->v;
    chunk->ldv = args->n_heads * f->v_stride;
    chunk->v_stride = f->v_stride;
}

fr_status exec_cpu_attn_expand(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    const fr_hparams *hp = &x->m->hp;
    const exec_expand *e = &x->expand;
    const exec_expanded f = exec_expanded_of(x, n);
    const fr_view one = {.n = 1};
    const span s = span_at(x, 0); /* all of the batch: several sequences take the other path */
    int64_t n_pos = s.pos0 + s.n;
    fr_cpu_attn_args args = attn_args(x, &s, f.q_nope, f.q_rope, n->out[0]);
    fr_cpu_kv cache = cache_k(x, &s, n->layer);
    fr_weight k = exec_as_read_by(exec_cpu_weight(x, n->weight[0]), one);
    fr_weight v = f.whole ? k : exec_as_read_by(exec_cpu_weight(x, n->weight[1]), one);
    fr_act act;
    fr_cpu_attn_made made = {.k = &k,
                             .v = &v,
                             .k_step = f.k_stride,
                             .v_at = f.whole ? args.w1 : 0,
                             .v_step = f.v_stride,
                             .x = &act,
                             .room = e->k,
                             .room_floats = (size_t)(e->chunk * hp->n_head * f.k_stride)};
    args.rounded = rounds(x, &k) && rounds(x, &v);
    for (int64_t from = 0; from < n_pos; from += e->chunk) {
        int64_t to = from + e->chunk < n_pos ? from + e->chunk : n_pos;
        fr_cpu_attn_chunk chunk = {.from = from,
                                   .to = to,
                                   .first = from == 0,
                                   .last = to == n_pos,
                                   .k2 = e->latent + hp->kv_lora_rank,
                                   .ldk2 = cache.stored};
        fr_cpu_kv_load(x->cpu, &cache, from, to - from, e->latent);
        give_heads(x, &f, &args, &made, &act, &chunk);
        fr_cpu_attn_expanded(x->cpu, &args, &chunk, x->attn);
    }
    exec_cpu_kv_keep(x, n->layer);
    return FR_OK;
}
