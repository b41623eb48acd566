/* The table of predictions. */
#include <stdio.h>

#include "planner/cost.h"

enum { N_DEPTHS = 4 };
static const int64_t depths[N_DEPTHS] = {0, 4096, 16384, 32768};

static fr_prediction predict(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                             const fr_assignment *a, int64_t depth, int64_t n_tokens)
{
    fr_prediction p = {.depth = depth, .n_tokens = n_tokens};
    p.seconds = plan_step_seconds(m, hw, o, a, depth, n_tokens, p.bound_by);
    p.tokens_per_second = p.seconds > 0 ? (double)n_tokens / p.seconds : 0;
    return p;
}

static int fill(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                const fr_assignment *a, int64_t n_ctx, int64_t n_tokens, fr_prediction out[4])
{
    int n = 0;
    int64_t deepest = n_ctx - n_tokens;
    for (int i = 0; i < N_DEPTHS; i++) {
        int64_t depth = depths[i] < deepest ? depths[i] : deepest;
        if (i == 0 || depth > out[n - 1].depth)
            out[n++] = predict(m, hw, o, a, depth > 0 ? depth : 0, n_tokens);
    }
    return n;
}

plan_predictions plan_predict(const fr_model *m, const fr_hardware *hw, const fr_plan_options *o,
                              const fr_assignment *a)
{
    plan_predictions p = {.n_prefill = 0};
    int64_t n_ctx = o->n_ctx > 0 ? o->n_ctx : m->hp.n_ctx_train;
    n_ctx /= o->n_seq > 1 ? o->n_seq : 1;
    int64_t n_ubatch = o->n_ubatch < n_ctx ? o->n_ubatch : n_ctx;
    p.n_prefill = fill(m, hw, o, a, n_ctx, n_ubatch > 1 ? n_ubatch : 1, p.prefill);
    p.n_decode = fill(m, hw, o, a, n_ctx, 1, p.decode);
    return p;
}
