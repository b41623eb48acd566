/* Pieces of work done by all threads, with progress, cancelling and errors. */
#include <stdatomic.h>

#include "store/store_internal.h"

typedef struct {
    const store_work *work;
    fr_err *errs; /* one a thread */
    atomic_int_fast64_t begun;
    atomic_uint_fast64_t done;
    atomic_int failed; /* 0, or an fr_status */
} running;

static void fail(running *r, fr_status st)
{
    int none = 0;
    if (st != FR_OK)
        atomic_compare_exchange_strong(&r->failed, &none, (int)st);
}

/* Reads files and calls drivers, which the pool's other jobs must not: nobody waits for a token. */
static void work_thread(void *arg, int i_thread, int n_threads)
{
    (void)n_threads;
    running *r = arg;
    const store_work *w = r->work;
    fr_err *err = &r->errs[i_thread];
    while (!atomic_load(&r->failed) && atomic_fetch_add(&r->begun, 1) < w->n) {
        uint64_t bytes = 0;
        fail(r, w->piece(w->user, i_thread, &bytes, err));
        uint64_t done = atomic_fetch_add(&r->done, bytes) + bytes;
        if (i_thread == 0 && w->cfg->progress &&
            !w->cfg->progress(w->cfg->progress_user, done, w->bytes))
            fail(r, fr_fail(err, FR_ECANCELLED, "loading: stopped by the user"));
    }
    if (w->end && !atomic_load(&r->failed))
        fail(r, w->end(w->user, i_thread, err));
}

fr_status store_work_run(fr_cpu *cpu, const store_work *w, fr_err *err)
{
    int n_threads = fr_cpu_n_threads(cpu);
    running r = {.work = w};
    r.errs = FR_NEW(fr_err, FR_MEM_MISC, (size_t)n_threads, err);
    if (!r.errs)
        return FR_ENOMEM;
    fr_cpu_run(cpu, work_thread, &r);
    fr_status st = (fr_status)atomic_load(&r.failed);
    for (int i = 0; st != FR_OK && i < n_threads; i++)
        if (r.errs[i].code == st) {
            fr_fail(err, st, "%s", r.errs[i].text);
            break;
        }
    fr_mem_free(r.errs);
    if (st == FR_OK && w->cfg->progress)
        w->cfg->progress(w->cfg->progress_user, w->bytes, w->bytes);
    return st;
}
