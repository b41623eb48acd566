/* Memory made ready ahead of who writes it: faulted in, 2 MiB at a time, each by one thread. Left
 * to the writers, two that fault the same huge page would both clear one. */
#include <sched.h>
#include <stdatomic.h>

#include "store/store_internal.h"

enum { CHUNK_BYTES = 2 << 20 };

typedef enum { CHUNK_FRESH, CHUNK_BUSY, CHUNK_READY } chunk_state;

struct store_fresh {
    uint8_t *from, *to;
    uintptr_t first;   /* number of the first chunk; chunks lie on multiples of their size */
    atomic_bool given; /* false: the system does not know how */
    atomic_uchar states[];
};

fr_status store_fresh_open(uint8_t *p, size_t bytes, store_fresh **out, fr_err *err)
{
    uintptr_t first = (uintptr_t)p / CHUNK_BYTES, last = ((uintptr_t)p + bytes) / CHUNK_BYTES;
    store_fresh *f = *out = fr_mem_array(FR_MEM_MISC, 1, sizeof *f + (last - first + 1), err);
    if (!f)
        return FR_ENOMEM;
    f->from = p;
    f->to = p + bytes;
    f->first = first;
    atomic_init(&f->given, true);
    return FR_OK;
}

void store_fresh_close(store_fresh *f)
{
    fr_mem_free(f);
}

static void make_ready(store_fresh *f, uintptr_t i)
{
    uint8_t *from = (uint8_t *)((f->first + i) * CHUNK_BYTES), *to = from + CHUNK_BYTES;
    from = from < f->from ? f->from : from;
    to = to > f->to ? f->to : to;
    if (!fr_mem_populate(from, (size_t)(to - from)))
        atomic_store(&f->given, false);
    atomic_store(&f->states[i], CHUNK_READY);
}

store_fresh_result store_fresh_ask(store_fresh *f, const uint8_t *p, size_t n)
{
    store_fresh_result result = STORE_FRESH_READY;
    if (!atomic_load(&f->given) || n == 0)
        return STORE_FRESH_READY;
    uintptr_t end = ((uintptr_t)p + n - 1) / CHUNK_BYTES - f->first;
    for (uintptr_t i = (uintptr_t)p / CHUNK_BYTES - f->first; i <= end; i++) {
        unsigned char state = CHUNK_FRESH;
        if (atomic_compare_exchange_strong(&f->states[i], &state, CHUNK_BUSY)) {
            make_ready(f, i);
            return STORE_FRESH_WORKED;
        }
        if (state == CHUNK_BUSY)
            result = STORE_FRESH_BUSY;
    }
    return result;
}
