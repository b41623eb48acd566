/* Pairs (token, pick) grouped by the expert that they picked. Inside the cpu box. */
#ifndef FR_CPU_EXPERT_GROUPS_H
#define FR_CPU_EXPERT_GROUPS_H

#include <stddef.h>
#include <stdint.h>

/* Pair t * n_used + k picked expert ids[pair] - first of n_experts; where that is none of them, the
 * pair is left out. The others have places 0 .. n_placed - 1: experts in ascending order, the pairs
 * of an expert in theirs. */
typedef struct {
    int64_t n_experts, n_pairs, n_placed, n_active;
    int64_t *starts;   /* [n_experts + 1] first place of each expert */
    int32_t *active;   /* [n_active] experts that have pairs */
    int64_t *place_of; /* [n_pairs] pair -> place, -1 when left out */
    int64_t *pair_at;  /* [n_placed] place -> pair */
} cpu_groups;

/* What cpu_groups_make needs; a multiple of the alignment of its numbers. */
size_t cpu_groups_bytes(int64_t n_experts, int64_t n_pairs);

/* `room`: cpu_groups_bytes, aligned for int64_t; it must outlive the groups. */
cpu_groups cpu_groups_make(void *room, int64_t n_experts, int64_t n_pairs, const int32_t *ids,
                           int64_t first);

#endif
