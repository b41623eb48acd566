#include "sample/sample_list.h"

#include <string.h>

#include "sample/sample_math.h"

/* Larger = better. A float's bits, with the sign bit flipped (positive) or all bits (negative),
 * order like the number; below them stands the token, reversed. -0 counts as 0. */
static uint64_t rank_of(sample_cand c)
{
    float logit = c.logit + 0.0f;
    uint32_t u;
    memcpy(&u, &logit, 4);
    u ^= u >> 31 ? UINT32_MAX : 1u << 31;
    return (uint64_t)u << 32 | (uint32_t)~c.token;
}

enum { RADIX_BITS = 11, RADIX_SIZE = 1 << RADIX_BITS };

/* The smallest rank among the best k of n candidates, 0 < k <= n: digit by digit, by counting those
 * that agree with all higher digits. Ranks are unique, so exactly k candidates reach the result. */
static uint64_t rank_of_kth(const sample_cand *c, int32_t n, int32_t k)
{
    uint64_t prefix = 0, prefix_mask = 0;
    for (int shift = 64; shift > 0;) {
        int width = shift < RADIX_BITS ? shift : RADIX_BITS;
        shift -= width;
        int32_t count[RADIX_SIZE] = {0};
        for (int32_t i = 0; i < n; i++) {
            uint64_t r = rank_of(c[i]);
            if ((r & prefix_mask) == prefix)
                count[r >> shift & (RADIX_SIZE - 1) >> (RADIX_BITS - width)]++;
        }
        int digit = (1 << width) - 1;
        while (count[digit] < k)
            k -= count[digit--];
        prefix |= (uint64_t)digit << shift;
        prefix_mask = ~(uint64_t)0 << shift;
        if (count[digit] == k)
            break; /* all of them are among the best k: lower digits do not matter */
    }
    return prefix;
}

/* Moves the best k of n candidates to the front, in any order. */
static void move_best_to_front(sample_cand *c, int32_t n, int32_t k)
{
    uint64_t least = rank_of_kth(c, n, k);
    for (int32_t i = 0, front = 0; front < k; i++) {
        if (rank_of(c[i]) < least)
            continue;
        sample_cand t = c[i];
        c[i] = c[front];
        c[front++] = t;
    }
}

static void insertion_sort(sample_cand *c, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        sample_cand moved = c[i];
        int32_t at = i;
        for (; at > 0 && rank_of(c[at - 1]) < rank_of(moved); at--)
            c[at] = c[at - 1];
        c[at] = moved;
    }
}

/* Puts every candidate into the bucket of its digit, largest digit first: candidates that are in
 * the wrong one are swapped to where they belong until none is left. */
static void into_buckets(sample_cand *c, int shift, const int32_t *end, int32_t *next)
{
    for (int d = 255; d >= 0; d--)
        while (next[d] < end[d]) {
            sample_cand t = c[next[d]];
            int digit = (int)(rank_of(t) >> shift & 255);
            c[next[d]] = c[next[digit]];
            c[next[digit]++] = t;
        }
}

/* Radix sort in place, best first, by the 8 bits at `shift` and those below: at most 8 levels deep,
 * so no input is slow. */
static void sort_best_first(sample_cand *c, int32_t n, int shift)
{
    if (n <= 32) {
        insertion_sort(c, n);
        return;
    }
    int32_t end[256] = {0}, next[256], at = 0;
    for (int32_t i = 0; i < n; i++)
        end[rank_of(c[i]) >> shift & 255]++;
    for (int d = 255; d >= 0; d--) {
        next[d] = at;
        end[d] = at += end[d];
    }
    into_buckets(c, shift, end, next);
    at = 0;
    for (int d = 255; d >= 0; at = end[d--])
        if (end[d] - at > 1) /* at shift 0 no bucket has more than one: ranks are unique */
            sort_best_first(c + at, end[d] - at, shift - 8);
}

void sample_list_sort(sample_list *l, int32_t k)
{
    if (k > l->n)
        k = l->n;
    if (k <= l->n_sorted)
        return;
    sample_cand *rest = l->c + l->n_sorted;
    int32_t n_rest = l->n - l->n_sorted, want = k - l->n_sorted;
    if (want < n_rest)
        move_best_to_front(rest, n_rest, want);
    sort_best_first(rest, want, 56);
    l->n_sorted = k;
}

sample_cand sample_list_best(const sample_list *l)
{
    sample_cand best = l->c[0];
    if (l->n_sorted > 0)
        return best;
    for (int32_t i = 1; i < l->n; i++)
        if (rank_of(l->c[i]) > rank_of(best))
            best = l->c[i];
    return best;
}

void sample_list_cut(sample_list *l, int32_t k)
{
    if (k < l->n)
        l->n = k;
    if (l->n_sorted > l->n)
        l->n_sorted = l->n;
}

double sample_weight(float logit, float best)
{
    return logit == best ? 1.0 : sample_exp((double)logit - (double)best);
}
