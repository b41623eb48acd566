#include "quant/bit_moves.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "quant/bit_program.h"

enum { MAX_UNIT_MOVES = 512, POOL_BYTES = 8 << 20, N_CHECKS = 4 };

/* ---- running ------------------------------------------------------------------------------------
 */

static inline __m128i load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline void store(uint8_t *p, __m128i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, v);
}

/* Four strands' words side by side, for four words. */
static inline void weave_4(const uint8_t *src, size_t stride, uint8_t *out, size_t out_step)
{
    __m128i a = load(src), b = load(src + stride), c = load(src + 2 * stride),
            d = load(src + 3 * stride);
    __m128i ab = _mm_unpacklo_epi32(a, b), cd = _mm_unpacklo_epi32(c, d);
    __m128i ef = _mm_unpackhi_epi32(a, b), gh = _mm_unpackhi_epi32(c, d);
    store(out, _mm_unpacklo_epi64(ab, cd));
    store(out + out_step, _mm_unpackhi_epi64(ab, cd));
    store(out + 2 * out_step, _mm_unpacklo_epi64(ef, gh));
    store(out + 3 * out_step, _mm_unpackhi_epi64(ef, gh));
}

static void weave(const bit_program *p, const uint8_t *src, size_t stride, uint8_t *out)
{
    size_t row = (size_t)p->src.n * 4;
    for (int i = 0; i < p->n_weaves; i++, out += 4 * row)
        for (int s = 0; s < p->src.n; s += 4)
            weave_4(src + (size_t)s * stride + p->weaves[i], stride, out + 4 * s, row);
}

static inline __m128i shuffled(const bit_term *t, const uint8_t *src, size_t stride)
{
    return _mm_shuffle_epi8(load(src + t->strand * stride + t->off), t->index);
}

/* The reference. Terms of a woven program have strand 0. */
static void run_step(const bit_program *p, bit_place at)
{
    _Alignas(16) uint8_t woven[BIT_MAX_WEAVES * 16 * BIT_MAX_STRANDS];
    const uint8_t *src = at.src;
    if (p->n_weaves > 0) {
        weave(p, at.src, at.src_stride, woven);
        src = woven;
    }
    for (const bit_unit *u = p->units, *end = u + p->n_units; u < end; u++) {
        const bit_term *t = p->terms + u->first;
        __m128i sum = u->constant;
        for (const bit_term *e = t + u->n_left; t < e; t++) {
            __m128i x = _mm_sll_epi16(shuffled(t, src, at.src_stride), _mm_cvtsi32_si128(t->shift));
            sum = _mm_xor_si128(sum, _mm_and_si128(x, t->mask));
        }
        for (const bit_term *e = t + u->n_right; t < e; t++) {
            __m128i x = _mm_srl_epi16(shuffled(t, src, at.src_stride), _mm_cvtsi32_si128(t->shift));
            sum = _mm_xor_si128(sum, _mm_and_si128(x, t->mask));
        }
        store(at.dst + u->strand * at.dst_stride + u->off, sum);
    }
}

static void run_heads(const bit_program *p, const uint8_t *src, size_t src_stride, uint8_t *dst,
                      size_t dst_stride)
{
    if (p->dst.head == 0)
        return;
    for (int i = 0; i < p->dst.n; i++)
        memcpy(dst + (size_t)i * dst_stride, p->head_constant + (size_t)i * p->dst.head,
               p->dst.head);
    for (const bit_head_move *m = p->head_moves, *end = m + p->n_head_moves; m < end; m++) {
        unsigned v = src[m->src_strand * src_stride + m->src_at];
        v = m->shift >= 0 ? v << m->shift : v >> -m->shift;
        dst[m->dst_strand * dst_stride + m->dst_at] ^= (uint8_t)(v & m->mask);
    }
}

/* ---- tiers --------------------------------------------------------------------------------------
 */

typedef struct {
    int n_steps; /* at a time */
    void (*run)(const bit_program *p, bit_place at);
} tier_code;

static const tier_code tiers[] = {
    [BIT_TIER_BASE] = {1, run_step},
    [BIT_TIER_AVX2] = {2, bit_run_2_avx2},
    [BIT_TIER_AVX512] = {4, bit_run_4_avx512},
};

static atomic_int tier_in_use; /* 1 + tier; 0: nobody has looked yet */

static bool has_tier(bit_tier tier)
{
    if (tier == BIT_TIER_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("gfni") && has_tier(BIT_TIER_AVX2);
    return tier == BIT_TIER_BASE ||
           (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
            __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2"));
}

bool bit_use_tier(bit_tier tier)
{
    if (!has_tier(tier))
        return false;
    atomic_store(&tier_in_use, 1 + (int)tier);
    return true;
}

static bit_tier best_tier(void)
{
    int known = atomic_load_explicit(&tier_in_use, memory_order_relaxed);
    if (known == 0 && !bit_use_tier(BIT_TIER_AVX512) && !bit_use_tier(BIT_TIER_AVX2))
        bit_use_tier(BIT_TIER_BASE);
    return (bit_tier)(known > 0 ? known - 1 : atomic_load(&tier_in_use) - 1);
}

/* Strands mostly stand one behind the other, and those of the next run behind the last one: as many
 * bytes of them as are moved now will be needed soon.
 *
 * Steps by the widest code; what is left over at the end is done by it too, some steps twice, or,
 * where there are too few, by narrower ones. */
void bit_program_run(const bit_program *p, const uint8_t *src, size_t src_stride, uint8_t *dst,
                     size_t dst_stride, int64_t n_steps)
{
    run_heads(p, src, src_stride, dst, dst_stride);
    bit_place start = {.src = src + p->src.head,
                       .dst = dst + p->dst.head,
                       .src_stride = src_stride,
                       .dst_stride = dst_stride};
    const tier_code *c = &tiers[best_tier()];
    while (c->n_steps > n_steps && c > tiers)
        c--;
    for (int64_t step = 0; step < n_steps; step += c->n_steps) {
        int64_t from = step + c->n_steps <= n_steps ? step : n_steps - c->n_steps;
        bit_place at = start;
        at.src += (size_t)from * p->src.body;
        at.dst += (size_t)from * p->dst.body;
        at.soon_src = src + (size_t)p->src.n * (src_stride + (size_t)from * p->src.body);
        at.soon_dst = at.dst + (size_t)c->n_steps * p->dst.body;
        c->run(p, at);
    }
}

void bit_replace_bytes(uint8_t *p, size_t n, const uint8_t table[256])
{
    const bit_tier tier = best_tier();
    size_t done = tier == BIT_TIER_BASE ? 0 : n / 64 * 64;
    if (tier == BIT_TIER_AVX512)
        bit_replace_avx512(p, done, table);
    if (tier == BIT_TIER_AVX2)
        bit_replace_avx2(p, done, table);
    for (; done < n; done++)
        p[done] = table[p[done]];
}

/* ---- finding the map ----------------------------------------------------------------------------
 */

/* A source bit that a destination bit depends on; bits of all strands back to back. */
typedef struct {
    uint32_t dst, src;
} bit_link;

/* The same for the bits that move together from byte to byte. */
typedef struct {
    uint32_t dst, src; /* bytes of all strands back to back */
    int shift;
    uint8_t mask;
} byte_move;

enum { MAX_LINKS = 2 * 8 * BIT_MAX_BYTES, N_PROBES = 17 };

/* Too large for a stack; used by one thread at a time, as bit_program_make is. */
static struct {
    uint8_t src[BIT_MAX_BYTES], zero[BIT_MAX_BYTES], out[BIT_MAX_BYTES], again[BIT_MAX_BYTES];
    uint32_t source_of[8 * BIT_MAX_BYTES];
    bit_link links[MAX_LINKS];
    byte_move moves[MAX_LINKS];
    uint32_t first_move[BIT_MAX_BYTES + 1]; /* of a destination byte */
    uint32_t n_links, n_moves;
} work;

static _Alignas(16) uint8_t pool[POOL_BYTES];
static size_t pool_used;

typedef struct {
    bit_strands src, dst;
    bit_map_fn *map;
    void *user;
} maker;

static size_t all_bytes(bit_strands s)
{
    return (size_t)s.n * (s.head + s.body);
}

static bool get_bit(const uint8_t *p, uint32_t i)
{
    return p[i / 8] >> (i % 8) & 1;
}

/* Bits that differ from the constants. */
static void probe(const maker *m)
{
    m->map(m->user, work.src, work.out);
    for (size_t i = 0; i < all_bytes(m->dst); i++)
        work.out[i] ^= work.zero[i];
}

static bool add_link(uint32_t dst, uint32_t src)
{
    if (work.n_links == MAX_LINKS)
        return false;
    work.links[work.n_links++] = (bit_link){dst, src};
    return true;
}

/* When every destination bit has at most one source: probe p sets all source bits whose number + 1
 * has bit p, and a destination bit spells its source's number. */
static bool find_numbers(const maker *m)
{
    uint32_t n_src = (uint32_t)all_bytes(m->src) * 8, n_dst = (uint32_t)all_bytes(m->dst) * 8;
    work.n_links = 0;
    memset(work.source_of, 0, sizeof work.source_of);
    for (uint32_t p = 0; p < N_PROBES; p++) {
        memset(work.src, 0, sizeof work.src);
        for (uint32_t i = 0; i < n_src; i++)
            work.src[i / 8] |= (uint8_t)(((i + 1) >> p & 1) << (i % 8));
        probe(m);
        for (uint32_t i = 0; i < n_dst; i++)
            work.source_of[i] |= (uint32_t)get_bit(work.out, i) << p;
    }
    for (uint32_t i = 0; i < n_dst; i++)
        if (work.source_of[i] > n_src ||
            (work.source_of[i] > 0 && !add_link(i, work.source_of[i] - 1)))
            return false;
    return true;
}

static int by_dst(const void *a, const void *b)
{
    const bit_link *x = a, *y = b;
    if (x->dst != y->dst)
        return x->dst < y->dst ? -1 : 1;
    return x->src < y->src ? -1 : x->src > y->src;
}

/* In general: one source bit at a time. */
static bool find_one_by_one(const maker *m)
{
    uint32_t n_src = (uint32_t)all_bytes(m->src) * 8, n_dst = (uint32_t)all_bytes(m->dst);
    work.n_links = 0;
    memset(work.src, 0, sizeof work.src);
    for (uint32_t i = 0; i < n_src; i++) {
        work.src[i / 8] = (uint8_t)(1 << (i % 8));
        probe(m);
        work.src[i / 8] = 0;
        for (uint32_t b = 0; b < n_dst; b++)
            for (unsigned left = work.out[b]; left; left &= left - 1)
                if (!add_link(8 * b + (uint32_t)__builtin_ctz(left), i))
                    return false;
    }
    qsort(work.links, work.n_links, sizeof *work.links, by_dst);
    return true;
}

/* Links of one destination byte that come from one byte with one shift are one move. */
static void join_links(const maker *m)
{
    uint32_t n_dst = (uint32_t)all_bytes(m->dst), i = 0;
    work.n_moves = 0;
    for (uint32_t b = 0; b < n_dst; b++) {
        uint32_t first = work.first_move[b] = work.n_moves;
        for (; i < work.n_links && work.links[i].dst / 8 == b; i++) {
            bit_link l = work.links[i];
            int shift = (int)(l.dst % 8) - (int)(l.src % 8);
            uint8_t bit = (uint8_t)(1 << (l.dst % 8));
            uint32_t k = first;
            while (k < work.n_moves &&
                   (work.moves[k].src != l.src / 8 || work.moves[k].shift != shift))
                k++;
            if (k == work.n_moves)
                work.moves[work.n_moves++] = (byte_move){b, l.src / 8, shift, 0};
            work.moves[k].mask |= bit;
        }
    }
    work.first_move[n_dst] = work.n_moves;
}

/* ---- writing the program ------------------------------------------------------------------------
 */

static void *take(size_t bytes)
{
    bytes = (bytes + 15) / 16 * 16;
    if (bytes > POOL_BYTES - pool_used)
        return NULL;
    void *p = pool + pool_used;
    pool_used += bytes;
    return p;
}

static uint32_t strand_of(bit_strands s, uint32_t byte)
{
    return byte / (uint32_t)(s.head + s.body);
}

static uint32_t place_of(bit_strands s, uint32_t byte)
{
    return byte % (uint32_t)(s.head + s.body);
}

/* Where a body byte is read: woven or in its strand. */
typedef struct {
    uint32_t strand, off;
} place;

/* Weaves are chosen so that the words which the destination has whole are words of the weave. */
typedef struct {
    bool used[BIT_MAX_BYTES], word[BIT_MAX_BYTES]; /* body bytes; those that begin a word */
    int16_t weave_of[BIT_MAX_BYTES];               /* or -1 */
} weaving;

static void mark_words(const maker *m, weaving *v)
{
    size_t dst_strand = m->dst.head + m->dst.body;
    for (uint32_t i = 0; i < work.n_moves; i++) {
        byte_move a = work.moves[i];
        uint32_t at = place_of(m->src, a.src), to = place_of(m->dst, a.dst);
        if (at < m->src.head)
            continue;
        v->used[at - m->src.head] = true;
        if (to < m->dst.head || (to - m->dst.head) % 4 != 0 || to + 3 >= dst_strand ||
            at + 3 >= m->src.head + m->src.body)
            continue;
        int n = 1;
        for (uint32_t b = 1; b < 4; b++)
            for (uint32_t k = work.first_move[a.dst + b]; k < work.first_move[a.dst + b + 1]; k++)
                n += work.moves[k].src == a.src + b && work.moves[k].shift == a.shift;
        if (n == 4)
            v->word[at - m->src.head] = true;
    }
}

static bool add_weave(const maker *m, bit_program *p, weaving *v, size_t at)
{
    if (p->n_weaves == BIT_MAX_WEAVES)
        return false;
    for (size_t b = at; b < at + 16 && b < m->src.body; b++) {
        if (v->weave_of[b] < 0)
            v->weave_of[b] = (int16_t)p->n_weaves;
        if ((b - at) % 4 == 0)
            v->word[b] = false;
    }
    p->weaves[p->n_weaves++] = (uint32_t)at;
    return true;
}

static bool choose_weaves(const maker *m, bit_program *p, weaving *v)
{
    size_t last = m->src.body - 16;
    memset(v, 0, sizeof *v);
    memset(v->weave_of, -1, sizeof v->weave_of);
    mark_words(m, v);
    for (size_t b = 0; b < m->src.body; b++) {
        size_t back = b > last ? (b - last + 3) / 4 * 4 : 0; /* a load must end within the body */
        if (v->word[b] && back <= b && !add_weave(m, p, v, b - back))
            return false;
    }
    for (size_t b = 0; b < m->src.body; b++)
        if (v->used[b] && v->weave_of[b] < 0 && !add_weave(m, p, v, b < last ? b : last))
            return false;
    return true;
}

static place source_place(const maker *m, const bit_program *p, const weaving *v, uint32_t byte)
{
    uint32_t strand = strand_of(m->src, byte), at = place_of(m->src, byte) - (uint32_t)m->src.head;
    if (p->n_weaves == 0)
        return (place){strand, at};
    uint32_t w = (uint32_t)v->weave_of[at], in = at - p->weaves[w];
    return (place){0, (w * 4 + in / 4) * (uint32_t)m->src.n * 4 + 4 * strand + in % 4};
}

/* The moves of a unit that no term has taken yet. */
typedef struct {
    uint8_t dst; /* 0..15 */
    uint8_t mask;
    int shift;
    place from;
    bool done;
} unit_move;

/* How many moves of this shift a term reading 16 bytes at (strand, off) takes; with `t`, takes
 * them. A destination byte has one source in a term. */
static int cover(unit_move *moves, int n, int shift, place at, bit_term *t)
{
    int taken = 0;
    unsigned seen = 0;
    uint8_t index[16], mask[16] = {0};
    memset(index, 0x80, sizeof index);
    for (int i = 0; i < n; i++) {
        unit_move *a = &moves[i];
        if (a->done || a->shift != shift || a->from.strand != at.strand || a->from.off < at.off ||
            a->from.off >= at.off + 16 || (seen >> a->dst & 1))
            continue;
        seen |= 1u << a->dst;
        taken++;
        if (!t)
            continue;
        a->done = true;
        index[a->dst] = (uint8_t)(a->from.off - at.off);
        mask[a->dst] = a->mask;
    }
    if (t) {
        t->index = load(index);
        t->mask = load(mask);
        t->off = at.off;
        t->strand = (uint16_t)at.strand;
        t->shift = (uint8_t)abs(shift);
        t->rotate = (uint8_t)((32 + shift) % 32);
    }
    return taken;
}

/* Where terms may read: up to `limit`, at multiples of `grain`. */
typedef struct {
    uint32_t limit, grain;
} source_room;

/* Terms for all moves of one shift, each the one that takes most of what is left. */
static bool add_terms(unit_move *moves, int n, int shift, source_room room, uint8_t *count)
{
    for (;;) {
        int most = 0;
        place best = {0, 0};
        for (int i = 0; i < n; i++) {
            if (moves[i].done || moves[i].shift != shift)
                continue;
            place at = moves[i].from;
            at.off = (at.off < room.limit ? at.off : room.limit) / room.grain * room.grain;
            int taken = cover(moves, n, shift, at, NULL);
            if (taken > most) {
                most = taken;
                best = at;
            }
        }
        if (most == 0)
            return true;
        bit_term *t = take(sizeof *t);
        if (!t || *count == UINT8_MAX)
            return false;
        cover(moves, n, shift, best, t);
        ++*count;
    }
}

static bool add_unit(const maker *m, const bit_program *p, const weaving *v, int strand, size_t off,
                     bit_unit *u)
{
    unit_move moves[MAX_UNIT_MOVES];
    int n = 0;
    size_t at = (size_t)strand * (m->dst.head + m->dst.body) + m->dst.head + off;
    for (uint32_t k = work.first_move[at]; k < work.first_move[at + 16]; k++) {
        byte_move a = work.moves[k];
        if (n == MAX_UNIT_MOVES || place_of(m->src, a.src) < m->src.head)
            return false;
        moves[n++] = (unit_move){(uint8_t)(a.dst - at), a.mask, a.shift,
                                 source_place(m, p, v, a.src), false};
    }
    *u = (bit_unit){.constant = load(work.zero + at),
                    .off = (uint32_t)off,
                    .first = (uint32_t)((const bit_term *)(void *)(pool + pool_used) - p->terms),
                    .strand = (uint16_t)strand};
    source_room room = {(uint32_t)m->src.body - 16, 1};
    if (p->n_weaves > 0)
        room = (source_room){((uint32_t)p->n_weaves * (uint32_t)m->src.n - 1) * 16, 16};
    for (int shift = 0; shift < 8; shift++)
        if (!add_terms(moves, n, shift, room, &u->n_left))
            return false;
    for (int shift = -1; shift > -8; shift--)
        if (!add_terms(moves, n, shift, room, &u->n_right))
            return false;
    return true;
}

/* Loops over terms that all have the same length are foreseen by the processor. */
static int by_terms(const void *a, const void *b)
{
    const bit_unit *x = a, *y = b;
    int n = x->n_left + x->n_right, m = y->n_left + y->n_right;
    if (n != m)
        return n - m;
    if (x->n_left != y->n_left)
        return x->n_left - y->n_left;
    return x->first < y->first ? -1 : x->first > y->first;
}

static bool add_units(const maker *m, bit_program *p, const weaving *v)
{
    size_t per_strand = (m->dst.body + 15) / 16;
    p->n_units = (int)per_strand * m->dst.n;
    bit_unit *units = take((size_t)p->n_units * sizeof *units);
    p->units = units;
    p->terms = (const bit_term *)(void *)(pool + pool_used);
    int n = 0;
    for (int s = 0; units && s < m->dst.n; s++)
        for (size_t off = 0; off < m->dst.body; off += 16) {
            size_t at = off + 16 <= m->dst.body ? off : m->dst.body - 16;
            if (!add_unit(m, p, v, s, at, &units[n++]))
                return false;
        }
    if (units)
        qsort(units, (size_t)n, sizeof *units, by_terms);
    return units != NULL;
}

static bool add_heads(const maker *m, bit_program *p)
{
    size_t dst_strand = m->dst.head + m->dst.body;
    uint8_t *constant = take((size_t)m->dst.n * m->dst.head);
    bit_head_move *moves = take(BIT_MAX_HEAD_MOVES * sizeof *moves);
    if (!constant || !moves)
        return false;
    p->head_constant = constant;
    p->head_moves = moves;
    for (int s = 0; s < m->dst.n; s++)
        memcpy(constant + (size_t)s * m->dst.head, work.zero + (size_t)s * dst_strand, m->dst.head);
    for (uint32_t i = 0; i < work.n_moves; i++) {
        byte_move a = work.moves[i];
        uint32_t to = place_of(m->dst, a.dst), from = place_of(m->src, a.src);
        if (to >= m->dst.head)
            continue;
        if (from >= m->src.head || p->n_head_moves == BIT_MAX_HEAD_MOVES)
            return false;
        moves[p->n_head_moves++] = (bit_head_move){(uint8_t)strand_of(m->src, a.src),
                                                   (uint8_t)from,
                                                   (uint8_t)strand_of(m->dst, a.dst),
                                                   (uint8_t)to,
                                                   a.mask,
                                                   (int8_t)a.shift};
    }
    return true;
}

/* ---- checking and making ------------------------------------------------------------------------
 */

static bool agrees(const maker *m, const bit_program *p)
{
    uint64_t seed = 0x9E3779B97F4A7C15u;
    for (int n = 0; n < N_CHECKS; n++) {
        for (size_t i = 0; i < all_bytes(m->src); i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            work.src[i] = (uint8_t)(seed >> 56);
        }
        m->map(m->user, work.src, work.out);
        bit_program_run(p, work.src, m->src.head + m->src.body, work.again,
                        m->dst.head + m->dst.body, 1);
        if (memcmp(work.out, work.again, all_bytes(m->dst)) != 0)
            return false;
    }
    return true;
}

static const bit_program *write_program(const maker *m)
{
    static weaving v;
    size_t before = pool_used;
    bit_program *p = take(sizeof *p);
    if (!p)
        return NULL;
    *p = (bit_program){.src = m->src, .dst = m->dst};
    join_links(m);
    bool woven = m->src.n % 4 == 0 && m->dst.n < m->src.n;
    if ((woven && !choose_weaves(m, p, &v)) || !add_heads(m, p) || !add_units(m, p, &v) ||
        !agrees(m, p)) {
        pool_used = before;
        return NULL;
    }
    return p;
}

static bool fits(bit_strands s)
{
    return s.n >= 1 && s.n <= BIT_MAX_STRANDS && s.body >= 16 && s.head < UINT8_MAX &&
           all_bytes(s) <= BIT_MAX_BYTES;
}

const bit_program *bit_program_make(bit_strands src, bit_strands dst, bit_map_fn *map, void *user)
{
    maker m = {src, dst, map, user};
    if (!fits(src) || !fits(dst))
        return NULL;
    memset(work.src, 0, sizeof work.src);
    map(user, work.src, work.zero);
    const bit_program *p = find_numbers(&m) ? write_program(&m) : NULL;
    if (!p && find_one_by_one(&m))
        p = write_program(&m);
    return p;
}
