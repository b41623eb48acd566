#include "token/special.h"

#include <string.h>

static int compare_texts(fr_str a, fr_str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static void sift_down_id(const symbols *sy, uint32_t *ids, size_t n, size_t i)
{
    uint32_t x = ids[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && compare_texts(sy->texts[ids[child + 1]], sy->texts[ids[child]]) > 0)
            child++;
        if (compare_texts(sy->texts[ids[child]], sy->texts[x]) <= 0)
            break;
        ids[i] = ids[child];
    }
    ids[i] = x;
}

/* Heap sort: qsort has no way to reach the texts. */
static void sort_ids(const symbols *sy, uint32_t *ids, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down_id(sy, ids, n, i);
    for (size_t end = n; end > 1; end--) {
        uint32_t top = ids[0];
        ids[0] = ids[end - 1];
        ids[end - 1] = top;
        sift_down_id(sy, ids, end - 1, 0);
    }
}

/* In members [lo, hi), which share `depth` bytes and are longer than that: the first whose next
 * byte is at least c. */
static uint32_t first_at_least(const special_set *s, uint32_t lo, uint32_t hi, size_t depth, int c)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)s->texts[mid].p[depth] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The longest member shorter than `below` that p[0..n) begins with, or SYMBOL_NONE. */
static uint32_t longest_at(const special_set *s, const char *p, size_t n, size_t below)
{
    uint32_t best = SYMBOL_NONE;
    uint32_t lo = s->first[(unsigned char)p[0]], hi = s->first[(unsigned char)p[0] + 1];
    for (size_t depth = 1; lo < hi && depth < below; depth++) {
        if (s->texts[lo].n == depth)
            best = lo++;
        if (lo == hi || depth == n)
            break;
        unsigned char c = (unsigned char)p[depth];
        if ((unsigned char)s->texts[lo].p[depth] == c &&
            (unsigned char)s->texts[hi - 1].p[depth] == c)
            continue;
        lo = first_at_least(s, lo, hi, depth, c);
        hi = first_at_least(s, lo, hi, depth, c + 1);
    }
    return best;
}

static void index_members(special_set *s)
{
    uint32_t i = 0;
    for (int b = 0; b < 256; b++) {
        s->first[b] = i;
        while (i < s->n && (unsigned char)s->texts[i].p[0] == b)
            i++;
    }
    s->first[256] = i;
    for (i = 0; i < s->n; i++)
        s->shorter[i] = longest_at(s, s->texts[i].p, s->texts[i].n, s->texts[i].n);
}

fr_status special_init(special_set *s, const symbols *sy, const uint32_t *ids, uint32_t n,
                       fr_err *err)
{
    *s = (special_set){0};
    if (n == 0)
        return FR_OK;
    s->texts = FR_NEW(fr_str, FR_MEM_VOCAB, n, err);
    s->ids = FR_NEW(uint32_t, FR_MEM_VOCAB, n, err);
    s->shorter = FR_NEW(uint32_t, FR_MEM_VOCAB, n, err);
    if (!s->texts || !s->ids || !s->shorter) {
        special_free(s);
        return FR_ENOMEM;
    }
    for (uint32_t i = 0; i < n; i++)
        if (symbols_find(sy, sy->texts[ids[i]].p, sy->texts[ids[i]].n) == ids[i])
            s->ids[s->n++] = ids[i];
    sort_ids(sy, s->ids, s->n);
    for (uint32_t i = 0; i < s->n; i++)
        s->texts[i] = sy->texts[s->ids[i]];
    index_members(s);
    return FR_OK;
}

void special_free(special_set *s)
{
    fr_mem_free(s->texts);
    fr_mem_free(s->ids);
    fr_mem_free(s->shorter);
    *s = (special_set){0};
}

/* ---- which of overlapping hits win -------------------------------------------------------------
 */

/* Hits that wait for their turn: a heap of (longest first, then leftmost). */
typedef struct {
    const special_set *set;
    special_hit *hits;
    uint64_t *heap; /* ~length << 32 | index of the hit */
    size_t n;
} turn_queue;

static uint64_t turn_of(const turn_queue *q, uint32_t i_hit)
{
    return (uint64_t)(UINT32_MAX - (uint32_t)q->set->texts[q->hits[i_hit].member].n) << 32 | i_hit;
}

static void sink(turn_queue *q, size_t i)
{
    uint64_t x = q->heap[i];
    for (size_t child; (child = 2 * i + 1) < q->n; i = child) {
        child += child + 1 < q->n && q->heap[child + 1] < q->heap[child];
        if (q->heap[child] >= x)
            break;
        q->heap[i] = q->heap[child];
    }
    q->heap[i] = x;
}

/* Settles every hit: it keeps its place when nothing longer covers it, tries its next shorter
 * member when only its end is covered, and is dropped (member = SYMBOL_NONE) otherwise. An earlier
 * winner is at least as long, so a free first and last byte mean that all of it is free. */
static void settle(turn_queue *q, unsigned char *covered)
{
    while (q->n > 0) {
        special_hit *hit = &q->hits[(uint32_t)q->heap[0]];
        size_t length = q->set->texts[hit->member].n;
        if (!covered[hit->at] && covered[hit->at + length - 1]) {
            hit->member = q->set->shorter[hit->member];
            if (hit->member != SYMBOL_NONE) {
                q->heap[0] = turn_of(q, (uint32_t)q->heap[0]);
                sink(q, 0);
                continue;
            }
        } else if (covered[hit->at]) {
            hit->member = SYMBOL_NONE;
        } else {
            memset(covered + hit->at, 1, length);
        }
        q->heap[0] = q->heap[--q->n];
        if (q->n > 0)
            sink(q, 0);
    }
}

static fr_status resolve(const special_set *s, size_t n_text, special_hits *h, fr_err *err)
{
    turn_queue q = {s, h->hits, NULL, h->n};
    unsigned char *covered = FR_NEW(unsigned char, FR_MEM_VOCAB, n_text, err);
    q.heap = FR_NEW(uint64_t, FR_MEM_VOCAB, h->n, err);
    if (!covered || !q.heap) {
        fr_mem_free(covered);
        fr_mem_free(q.heap);
        return FR_ENOMEM;
    }
    for (size_t i = 0; i < h->n; i++)
        q.heap[i] = turn_of(&q, (uint32_t)i);
    for (size_t i = q.n / 2; i-- > 0;)
        sink(&q, i);
    settle(&q, covered);
    size_t kept = 0;
    for (size_t i = 0; i < h->n; i++)
        if (h->hits[i].member != SYMBOL_NONE)
            h->hits[kept++] = h->hits[i];
    h->n = kept;
    fr_mem_free(covered);
    fr_mem_free(q.heap);
    return FR_OK;
}

fr_status special_find(const special_set *s, const char *text, size_t n, special_hits *out,
                       fr_err *err)
{
    out->n = 0;
    if (s->n == 0)
        return FR_OK;
    size_t free_from = 0;
    bool overlap = false;
    for (size_t at = 0; at < n; at++) {
        unsigned char b = (unsigned char)text[at];
        if (s->first[b] == s->first[b + 1])
            continue;
        uint32_t member = longest_at(s, text + at, n - at, SIZE_MAX);
        if (member == SYMBOL_NONE)
            continue;
        if (out->n == out->cap)
            FR_TRY(fr_mem_grow(FR_MEM_VOCAB, (void **)&out->hits, &out->cap, out->n + 1,
                               sizeof *out->hits, err));
        out->hits[out->n++] = (special_hit){at, member};
        overlap |= at < free_from;
        if (at + s->texts[member].n > free_from)
            free_from = at + s->texts[member].n;
    }
    return overlap ? resolve(s, n, out, err) : FR_OK;
}
