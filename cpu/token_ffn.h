/* The feed-forward part of a layer for one token, as one job of the pool: for this few rows of
 * work, starting and ending a job for each matrix would take as long as a matrix.
 *
 * Stages, a barrier between them: router logits; selection by one thread while the others are at
 * gate and up of the dense experts already; gate and up of the chosen experts; encoding of both
 * hidden rows; down of all, with the sums. Bits are those of fr_cpu_matmul, fr_cpu_router,
 * fr_cpu_swiglu, fr_cpu_moe and fr_cpu_add one after the other. */
#ifndef FR_CPU_TOKEN_FFN_H
#define FR_CPU_TOKEN_FFN_H

#include "cpu/ops.h"

/* gate, up: n_ff x n_embd; down: n_embd x n_ff. gate NULL: there are none. */
typedef struct {
    const fr_weight *gate, *up, *down;
} fr_cpu_trio;

/* Where the time of a job goes; DENSE and DOWN: see the stages. */
enum {
    FR_CPU_FFN_ROUTER,
    FR_CPU_FFN_DENSE,
    FR_CPU_FFN_UP,
    FR_CPU_FFN_REST,
    FR_CPU_FFN_DOWN,
    FR_CPU_FFN_STAGES
};

/* y = onto + routed + dense, in this order, where
 *   routed   sum over ascending k < n_used of weights[k] * down_e(silu(gate_e x) * (up_e x)) with
 *            e = ids[k]; all experts are here
 *   dense    down(silu(gate x) * (up x)), of matrices that every token reads
 * and what is NULL (the onto, the trio's gate) is left out; one of the trios is there.
 *
 * With routed experts, logits = router_weight x go to select->logits, which then makes ids and
 * weights (its n_tokens is 1). */
typedef struct {
    const float *x;    /* n_embd */
    const float *onto; /* n_embd, or NULL; may be y */
    float *y;          /* n_embd */
    fr_cpu_trio routed, dense;
    const fr_weight *router_weight;
    const fr_cpu_router_args *select;
    void *scratch;   /* fr_cpu_token_ffn_bytes */
    double *seconds; /* NULL, or FR_CPU_FFN_STAGES numbers to which the time spent is added */
} fr_cpu_token_ffn_args;

/* Of the arguments, the matrices and select->n_used count. */
size_t fr_cpu_token_ffn_bytes(const fr_cpu *cpu, const fr_cpu_token_ffn_args *args);
void fr_cpu_token_ffn(fr_cpu *cpu, const fr_cpu_token_ffn_args *args);

#endif
