/* Pinning the routed experts in RAM. */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_internal.h"

static bool wanted(const fr_store *s, int k)
{
    const store_item *item = &s->items[k];
    fr_role role = s->model->weights[item->weight].role;
    return s->parts[k].device == FR_PLAN_CPU && item->source != STORE_MADE &&
           (role == FR_ROLE_FFN_GATE_EXPS || role == FR_ROLE_FFN_UP_EXPS ||
            role == FR_ROLE_FFN_DOWN_EXPS);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const store_range *)a)->p,
              y = (uintptr_t)((const store_range *)b)->p;
    return (x > y) - (x < y);
}

/* A page can be pinned once only: ranges that meet on a page, or next to it, become one. */
static int join(store_range *r, int n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    int joined = 0;
    qsort(r, (size_t)n, sizeof *r, by_address);
    for (int i = 0; i < n; i++) {
        store_range *last = joined > 0 ? &r[joined - 1] : NULL;
        uintptr_t begin = (uintptr_t)r[i].p;
        if (last && begin / page <= ((uintptr_t)last->p + last->bytes - 1) / page + 1)
            last->bytes = (size_t)(begin + r[i].bytes - (uintptr_t)last->p);
        else
            r[joined++] = r[i];
    }
    return joined;
}

fr_status store_pin(fr_store *s, fr_err *err)
{
    int n = 0;
    fr_err why = {0};
    if (!s->gpu)
        return FR_OK;
    s->pinned = FR_NEW(store_range, FR_MEM_MODEL, (size_t)s->n_parts, err);
    if (!s->pinned)
        return FR_ENOMEM;
    for (int k = 0; k < s->n_parts; k++)
        if (wanted(s, k))
            s->pinned[n++] =
                (store_range){(uint8_t *)(uintptr_t)s->parts[k].w.data, s->items[k].bytes};
    n = join(s->pinned, n);
    for (; s->n_pinned < n; s->n_pinned++) {
        const store_range *r = &s->pinned[s->n_pinned];
        if (s->gpu->host_register(r->p, r->bytes, &why) == FR_OK)
            continue;
        fr_log_warn("weights: routed experts are not pinned, copies to GPUs are slower: %s",
                    why.text);
        break;
    }
    return FR_OK;
}

void store_unpin(fr_store *s)
{
    for (int i = 0; i < s->n_pinned; i++)
        s->gpu->host_unregister(s->pinned[i].p);
    fr_mem_free(s->pinned);
}
