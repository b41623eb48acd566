/* What an executor took. */
#include "engine/exec_internal.h"

void fr_exec_gpu_bytes(const fr_exec *x, int device, uint64_t *workspace, uint64_t *staging)
{
    *workspace = *staging = 0;
    if (!x->gpu)
        return;
    const exec_gpu *g = &x->gpus[device];
    *workspace = g->arena ? x->gpu->arena_used(g->arena) : 0;
    *staging = g->staging ? x->gpu->arena_used(g->staging) : 0;
}
