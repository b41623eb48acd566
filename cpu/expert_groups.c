#include "cpu/expert_groups.h"

#include <string.h>

#define UNIT sizeof(int64_t)

size_t cpu_groups_bytes(int64_t n_experts, int64_t n_pairs)
{
    size_t active = ((size_t)n_experts * sizeof(int32_t) + UNIT - 1) / UNIT;
    return ((size_t)n_experts + 1 + 2 * (size_t)n_pairs + active) * UNIT;
}

static int64_t expert_of(const cpu_groups *g, int64_t id, int64_t first)
{
    int64_t expert = id - first;
    return expert >= 0 && expert < g->n_experts ? expert : -1;
}

/* starts[e + 1] = pairs of expert e, then their sums. */
static void count_pairs(cpu_groups *g, const int32_t *ids, int64_t first)
{
    memset(g->starts, 0, (size_t)(g->n_experts + 1) * sizeof *g->starts);
    for (int64_t i = 0; i < g->n_pairs; i++) {
        int64_t e = expert_of(g, ids[i], first);
        if (e >= 0)
            g->starts[e + 1]++;
    }
    for (int64_t e = 0; e < g->n_experts; e++) {
        if (g->starts[e + 1] > 0)
            g->active[g->n_active++] = (int32_t)e;
        g->starts[e + 1] += g->starts[e];
    }
    g->n_placed = g->starts[g->n_experts];
}

/* A counting sort: starts[e] walks to the end of expert e, which is the start of the next. */
cpu_groups cpu_groups_make(void *room, int64_t n_experts, int64_t n_pairs, const int32_t *ids,
                           int64_t first)
{
    cpu_groups g = {.n_experts = n_experts, .n_pairs = n_pairs, .starts = room};
    g.place_of = g.starts + n_experts + 1;
    g.pair_at = g.place_of + n_pairs;
    g.active = (int32_t *)(void *)(g.pair_at + n_pairs);
    count_pairs(&g, ids, first);
    for (int64_t i = 0; i < n_pairs; i++) {
        int64_t e = expert_of(&g, ids[i], first);
        g.place_of[i] = e >= 0 ? g.starts[e]++ : -1;
        if (e >= 0)
            g.pair_at[g.place_of[i]] = i;
    }
    for (int64_t e = n_experts; e > 0; e--)
        g.starts[e] = g.starts[e - 1];
    g.starts[0] = 0;
    return g;
}
