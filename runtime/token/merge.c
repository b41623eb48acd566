#include "token/merge.h"

enum { SHORT_CHAIN = 32 };

fr_status merge_push(merge_work *w, uint32_t sym, uint32_t at, uint32_t n, fr_err *err)
{
    if (w->n == w->cap)
        FR_TRY(fr_mem_grow(FR_MEM_VOCAB, (void **)&w->nodes, &w->cap, w->n + 1, sizeof *w->nodes,
                           err));
    uint32_t i = (uint32_t)w->n++;
    w->nodes[i] = (merge_node){.sym = sym,
                               .at = at,
                               .n = n,
                               .prev = i ? i - 1 : MERGE_NONE,
                               .next = MERGE_NONE,
                               .rank = MERGE_NONE};
    if (i)
        w->nodes[i - 1].next = i;
    return FR_OK;
}

static void rate_pair(merge_work *w, uint32_t left, merge_lookup lookup, const void *user)
{
    merge_node *l = &w->nodes[left];
    if (l->next == MERGE_NONE || !lookup(user, l, &w->nodes[l->next], &l->rank, &l->merged))
        l->rank = MERGE_NONE;
}

/* Joins a node with its right neighbour, which leaves the chain. */
static void join(merge_work *w, uint32_t left)
{
    merge_node *l = &w->nodes[left], *r = &w->nodes[l->next];
    l->sym = l->merged;
    l->n += r->n;
    l->next = r->next;
    if (l->next != MERGE_NONE)
        w->nodes[l->next].prev = left;
    r->rank = MERGE_NONE; /* what the heap still holds of it is dead */
}

static void run_short(merge_work *w, merge_lookup lookup, const void *user)
{
    for (;;) {
        uint32_t best = 0;
        for (uint32_t i = w->nodes[0].next; i != MERGE_NONE; i = w->nodes[i].next)
            if (w->nodes[i].rank < w->nodes[best].rank)
                best = i;
        if (w->nodes[best].rank == MERGE_NONE)
            return;
        join(w, best);
        rate_pair(w, best, lookup, user);
        if (w->nodes[best].prev != MERGE_NONE)
            rate_pair(w, w->nodes[best].prev, lookup, user);
    }
}

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t x = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (heap[child] >= x)
            break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static uint64_t pop(merge_work *w)
{
    uint64_t top = w->heap[0];
    w->heap[0] = w->heap[--w->n_heap];
    sift_down(w->heap, w->n_heap, 0);
    return top;
}

static fr_status push_pair(merge_work *w, uint32_t left, fr_err *err)
{
    if (w->nodes[left].rank == MERGE_NONE)
        return FR_OK;
    if (w->n_heap == w->cap_heap)
        FR_TRY(fr_mem_grow(FR_MEM_VOCAB, (void **)&w->heap, &w->cap_heap, w->n_heap + 1,
                           sizeof *w->heap, err));
    uint64_t x = (uint64_t)w->nodes[left].rank << 32 | left;
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > x; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = x;
    return FR_OK;
}

static fr_status run_heap(merge_work *w, merge_lookup lookup, const void *user, fr_err *err)
{
    FR_TRY(fr_mem_grow(FR_MEM_VOCAB, (void **)&w->heap, &w->cap_heap, w->n, sizeof *w->heap, err));
    w->n_heap = 0;
    for (uint32_t i = 0; i < w->n; i++)
        if (w->nodes[i].rank != MERGE_NONE)
            w->heap[w->n_heap++] = (uint64_t)w->nodes[i].rank << 32 | i;
    for (size_t i = w->n_heap / 2; i-- > 0;)
        sift_down(w->heap, w->n_heap, i);
    while (w->n_heap > 0) {
        uint64_t top = pop(w);
        uint32_t left = (uint32_t)top, rank = (uint32_t)(top >> 32);
        if (w->nodes[left].rank != rank)
            continue; /* the pair is gone; a new pair of the same rank is as good here */
        join(w, left);
        rate_pair(w, left, lookup, user);
        FR_TRY(push_pair(w, left, err));
        uint32_t prev = w->nodes[left].prev;
        if (prev != MERGE_NONE) {
            rate_pair(w, prev, lookup, user);
            FR_TRY(push_pair(w, prev, err));
        }
    }
    return FR_OK;
}

fr_status merge_run(merge_work *w, merge_lookup lookup, const void *user, fr_err *err)
{
    if (w->n < 2)
        return FR_OK;
    for (uint32_t i = 0; i < w->n; i++)
        rate_pair(w, i, lookup, user);
    if (w->n > SHORT_CHAIN)
        return run_heap(w, lookup, user, err);
    run_short(w, lookup, user);
    return FR_OK;
}

void merge_clear(merge_work *w)
{
    w->n = 0;
    w->n_heap = 0;
}

void merge_free(merge_work *w)
{
    fr_mem_free(w->nodes);
    fr_mem_free(w->heap);
    *w = (merge_work){0};
}
