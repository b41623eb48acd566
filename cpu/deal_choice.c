#include "cpu/deal_choice.h"

#include <string.h>

#include "cpu/kernels.h"

/* What another way must gain over CLAIM, which adapts to a thread that is held up: that is rare, so
 * medians do not show it, but worth 2 to 3 % on the average of a busy machine. */
#define WORTH 1.05

void cpu_deal_class(int64_t n_tokens, int64_t *from, int64_t *to)
{
    static const int64_t starts[] = {1, 2, 9, 65, INT64_MAX};
    int i = 0;
    while (starts[i + 1] <= n_tokens)
        i++;
    *from = starts[i];
    *to = starts[i + 1] == INT64_MAX ? INT64_MAX : starts[i + 1] - 1;
}

static bool same_key(const cpu_deal_key *a, const cpu_deal_key *b)
{
    return memcmp(a->types, b->types, sizeof a->types) == 0 &&
           memcmp(a->layouts, b->layouts, sizeof a->layouts) == 0 && a->tokens == b->tokens &&
           a->n_embd == b->n_embd && a->n_ff == b->n_ff && a->n_experts == b->n_experts &&
           a->n_used == b->n_used;
}

cpu_deal_shape *cpu_deal_find(cpu_deal_table *t, const cpu_deal_key *key)
{
    for (int i = 0; i < t->n; i++)
        if (same_key(&t->shapes[i].key, key))
            return &t->shapes[i];
    if (t->n == CPU_DEAL_SHAPES)
        return NULL;
    t->shapes[t->n] = (cpu_deal_shape){.key = *key};
    return &t->shapes[t->n++];
}

cpu_deal_shape *cpu_deal_shape_of(const fr_cpu *cpu, const fr_weight *gate, const fr_weight *up,
                                  const fr_weight *down, int64_t n_tokens, int64_t n_used,
                                  int64_t n_macs)
{
    int64_t from, to;
    if (fr_cpu_n_threads(cpu) == 1 || !cpu_is_shared(n_macs))
        return NULL;
    cpu_deal_class(n_tokens, &from, &to);
    cpu_deal_key key = {
        {(int8_t)gate->type, (int8_t)up->type, (int8_t)down->type},
        {(int8_t)gate->layout, (int8_t)up->layout, (int8_t)down->layout},
        (int32_t)from,
        gate->cols,
        gate->rows,
        gate->n_mat,
        n_used,
    };
    return cpu_deal_find(cpu->deals, &key);
}

cpu_deal cpu_deal_now(const cpu_deal_stage *s, int n_ways)
{
    if (s->decided)
        return s->chosen;
    int least = 0;
    for (int d = 1; d < n_ways; d++)
        if (s->n_samples[d] < s->n_samples[least])
            least = d;
    return (cpu_deal)least;
}

/* Of the samples after the first; they are sorted. */
static double median(double *x, int n)
{
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && x[k] < x[k - 1]; k--) {
            double swap = x[k];
            x[k] = x[k - 1];
            x[k - 1] = swap;
        }
    return x[n / 2];
}

static void decide(cpu_deal_stage *s, int n_ways)
{
    double claim = median(s->samples[CPU_DEAL_CLAIM], CPU_DEAL_ROUNDS), best = claim / WORTH;
    s->chosen = CPU_DEAL_CLAIM;
    s->gain = 1;
    for (int d = 1; d < n_ways; d++) {
        double m = median(s->samples[d], CPU_DEAL_ROUNDS);
        if (m < best) {
            best = m;
            s->chosen = (cpu_deal)d;
            s->gain = claim / m;
        }
    }
    s->decided = true;
}

void cpu_deal_took(cpu_deal_stage *s, int n_ways, cpu_deal deal, double seconds)
{
    if (s->decided)
        return;
    int i = s->n_samples[deal]++;
    if (i > 0)
        s->samples[deal][i - 1] = seconds;
    for (int d = 0; d < n_ways; d++)
        if (s->n_samples[d] <= CPU_DEAL_ROUNDS)
            return;
    decide(s, n_ways);
}
