#include "quant/bit_moves.h"

#include <stdlib.h>
#include <string.h>
#include <tmmintrin.h>

/* How a program works: every 16 bytes of the destination (a unit) are the exclusive or of some
 * terms; a term is 16 bytes of a source, shuffled, shifted by less than a byte, and masked.
 *
 * Where rows are interleaved from plain ones, a unit has four bytes of each of four rows. So many
 * strands are first woven: 16 bytes from the same place of every strand become words that stand
 * side by side, strand after strand, and the terms read the woven bytes, which mostly stand as the
 * destination wants them. */
typedef struct {
    __m128i index, mask;
    uint32_t off; /* of the 16 bytes in their strand (or in the woven bytes) */
    uint16_t strand;
    uint16_t shift; /* bits */
} term;

typedef struct {
    __m128i constant;
    uint32_t off; /* in the destination's strand */
    uint16_t strand;
    uint8_t n_still, n_left, n_right; /* terms, in this order */
} unit;

typedef struct {
    uint8_t src_strand, src_at, dst_strand, dst_at, mask;
    int8_t shift; /* > 0: to the left */
} head_move;

enum {
    MAX_WEAVES = 64,
    MAX_UNITS = BIT_MAX_BYTES / 16 + BIT_MAX_STRANDS,
    MAX_HEAD_MOVES = 512,
    MAX_UNIT_MOVES = 512,
    POOL_BYTES = 6 << 20,
    N_CHECKS = 4
};

struct bit_program {
    bit_strands src, dst;
    int n_weaves; /* 0: terms read the strands themselves */
    int n_units, n_head_moves;
    uint32_t weaves[MAX_WEAVES]; /* places of 16 bytes in every source strand */
    const unit *units;
    const term *terms;
    const head_move *head_moves;
    const uint8_t *head_constant; /* of all destination heads, back to back */
};

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

static inline __m128i shuffled(const term *t, const uint8_t *const *src)
{
    return _mm_shuffle_epi8(load(src[t->strand] + t->off), t->index);
}

static void run_units(const bit_program *p, const uint8_t *const *src, uint8_t *const *dst)
{
    const term *t = p->terms;
    for (const unit *u = p->units, *end = u + p->n_units; u < end; u++) {
        __m128i sum = u->constant;
        for (const term *e = t + u->n_still; t < e; t++)
            sum = _mm_xor_si128(sum, _mm_and_si128(shuffled(t, src), t->mask));
        for (const term *e = t + u->n_left; t < e; t++) {
            __m128i x = _mm_sll_epi16(shuffled(t, src), _mm_cvtsi32_si128(t->shift));
            sum = _mm_xor_si128(sum, _mm_and_si128(x, t->mask));
        }
        for (const term *e = t + u->n_right; t < e; t++) {
            __m128i x = _mm_srl_epi16(shuffled(t, src), _mm_cvtsi32_si128(t->shift));
            sum = _mm_xor_si128(sum, _mm_and_si128(x, t->mask));
        }
        store(dst[u->strand] + u->off, sum);
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
    for (const head_move *m = p->head_moves, *end = m + p->n_head_moves; m < end; m++) {
        unsigned v = src[m->src_strand * src_stride + m->src_at];
        v = m->shift >= 0 ? v << m->shift : v >> -m->shift;
        dst[m->dst_strand * dst_stride + m->dst_at] ^= (uint8_t)(v & m->mask);
    }
}

void bit_program_run(const bit_program *p, const uint8_t *src, size_t src_stride, uint8_t *dst,
                     size_t dst_stride, int64_t n_steps)
{
    _Alignas(16) uint8_t woven[MAX_WEAVES * 16 * BIT_MAX_STRANDS];
    const uint8_t *from[BIT_MAX_STRANDS] = {woven};
    uint8_t *to[BIT_MAX_STRANDS];
    run_heads(p, src, src_stride, dst, dst_stride);
    for (int i = 0; i < p->dst.n; i++)
        to[i] = dst + (size_t)i * dst_stride + p->dst.head;
    for (int i = 0; i < p->src.n && p->n_weaves == 0; i++)
        from[i] = src + (size_t)i * src_stride + p->src.head;
    src += p->src.head;
    for (int64_t step = 0; step < n_steps; step++, src += p->src.body) {
        if (p->n_weaves > 0)
            weave(p, src, src_stride, woven);
        run_units(p, from, to);
        for (int i = 0; i < p->dst.n; i++)
            to[i] += p->dst.body;
        for (int i = 0; i < p->src.n && p->n_weaves == 0; i++)
            from[i] += p->src.body;
    }
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
    if (p->n_weaves == MAX_WEAVES)
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
static int cover(unit_move *moves, int n, int shift, place at, term *t)
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
        t->shift = (uint16_t)abs(shift);
    }
    return taken;
}

/* Terms for all moves of one shift, each the one that takes most of what is left. */
static bool add_terms(unit_move *moves, int n, int shift, uint32_t limit, uint8_t *count)
{
    for (;;) {
        int most = 0;
        place best = {0, 0};
        for (int i = 0; i < n; i++) {
            if (moves[i].done || moves[i].shift != shift)
                continue;
            place at = moves[i].from;
            at.off = at.off < limit ? at.off : limit;
            int taken = cover(moves, n, shift, at, NULL);
            if (taken > most) {
                most = taken;
                best = at;
            }
        }
        if (most == 0)
            return true;
        term *t = take(sizeof *t);
        if (!t || *count == UINT8_MAX)
            return false;
        cover(moves, n, shift, best, t);
        ++*count;
    }
}

static bool add_unit(const maker *m, const bit_program *p, const weaving *v, int strand, size_t off,
                     unit *u)
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
    *u = (unit){.constant = load(work.zero + at), .off = (uint32_t)off, .strand = (uint16_t)strand};
    size_t room = p->n_weaves > 0 ? (size_t)p->n_weaves * 16 * (size_t)m->src.n : m->src.body;
    uint32_t limit = (uint32_t)room - 16;
    if (!add_terms(moves, n, 0, limit, &u->n_still))
        return false;
    for (int shift = 1; shift < 8; shift++)
        if (!add_terms(moves, n, shift, limit, &u->n_left))
            return false;
    for (int shift = -1; shift > -8; shift--)
        if (!add_terms(moves, n, shift, limit, &u->n_right))
            return false;
    return true;
}

static bool add_units(const maker *m, bit_program *p, const weaving *v)
{
    size_t per_strand = (m->dst.body + 15) / 16;
    p->n_units = (int)per_strand * m->dst.n;
    unit *units = take((size_t)p->n_units * sizeof *units);
    p->units = units;
    p->terms = (const term *)(void *)(pool + pool_used);
    for (int s = 0; units && s < m->dst.n; s++)
        for (size_t off = 0; off < m->dst.body; off += 16) {
            size_t at = off + 16 <= m->dst.body ? off : m->dst.body - 16;
            if (!add_unit(m, p, v, s, at, units++))
                return false;
        }
    return units != NULL;
}

static bool add_heads(const maker *m, bit_program *p)
{
    size_t dst_strand = m->dst.head + m->dst.body;
    uint8_t *constant = take((size_t)m->dst.n * m->dst.head);
    head_move *moves = take(MAX_HEAD_MOVES * sizeof *moves);
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
        if (from >= m->src.head || p->n_head_moves == MAX_HEAD_MOVES)
            return false;
        moves[p->n_head_moves++] = (head_move){(uint8_t)strand_of(m->src, a.src),
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
