/* Which way to deal the tiles of routed experts out is fastest: found out while computing, as all
 * give the same bits. For every shape of experts and number of tokens the ways take turns for some
 * calls; then the one with the best median stays. Inside the cpu box. */
#ifndef FR_CPU_DEAL_CHOICE_H
#define FR_CPU_DEAL_CHOICE_H

#include "cpu/cpu.h"
#include "cpu/tiles.h"

enum { CPU_DEAL_SHAPES = 24, CPU_DEAL_ROUNDS = 7 };

/* Where tiles are dealt out: gate and up, and down (whose tiles are rows of all experts, so that
 * CLAIM and ROWS are all the ways there are). */
enum { CPU_STAGE_UP, CPU_STAGE_DOWN, CPU_STAGES };
enum { CPU_UP_WAYS = CPU_DEAL_COUNT, CPU_DOWN_WAYS = CPU_DEAL_ROWS + 1 };

typedef struct {
    int8_t types[3], layouts[3]; /* gate, up, down */
    int32_t tokens;              /* fewest of its class */
    int64_t n_embd, n_ff, n_experts, n_used;
} cpu_deal_key;

/* Fewest and most tokens (INT64_MAX: any more) of the class that n_tokens are in. */
void cpu_deal_class(int64_t n_tokens, int64_t *from, int64_t *to);

typedef struct {
    int n_samples[CPU_DEAL_COUNT]; /* the first one of each way does not count */
    double samples[CPU_DEAL_COUNT][CPU_DEAL_ROUNDS];
    bool decided;
    cpu_deal chosen;
    double gain; /* median of CLAIM over that of the chosen one */
} cpu_deal_stage;

typedef struct {
    cpu_deal_key key;
    cpu_deal_stage stages[CPU_STAGES];
} cpu_deal_shape;

typedef struct cpu_deal_table {
    int n;
    cpu_deal_shape shapes[CPU_DEAL_SHAPES];
} cpu_deal_table;

/* The row of a key, made when it is new; NULL when the table is full. */
cpu_deal_shape *cpu_deal_find(cpu_deal_table *t, const cpu_deal_key *key);

/* The row of a job of n_macs on these experts; also NULL where nothing is dealt out. */
cpu_deal_shape *cpu_deal_shape_of(const fr_cpu *cpu, const fr_weight *gate, const fr_weight *up,
                                  const fr_weight *down, int64_t n_tokens, int64_t n_used,
                                  int64_t n_macs);

/* The way to take now, in a stage that has the first n_ways of them; and what it took, in seconds
 * for a unit of work. */
cpu_deal cpu_deal_now(const cpu_deal_stage *s, int n_ways);
void cpu_deal_took(cpu_deal_stage *s, int n_ways, cpu_deal deal, double seconds);

#endif
