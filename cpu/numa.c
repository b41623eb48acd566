#include "cpu/numa.h"

#include <unistd.h>

#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "cpu/tiles.h"

#ifdef FERRY_HAVE_NUMA
#include <numaif.h>
#endif

int fr_cpu_n_homes(const fr_cpu *cpu)
{
    return cpu_pool_n_shares(cpu->pool);
}

static uintptr_t round_up(uintptr_t at, size_t unit)
{
    return (at + unit - 1) / unit * unit;
}

cpu_pages cpu_home_pages(const fr_weight *w, int64_t mat, int n_shares, int share,
                         size_t page_bytes)
{
    int64_t from, to;
    cpu_home_rows(w->rows, n_shares, share, &from, &to);
    size_t row_bytes = fr_row_bytes(w->type, w->layout, w->cols);
    uintptr_t base = (uintptr_t)w->data + (size_t)mat * w->mat_bytes;
    uintptr_t first = round_up(base + (size_t)from * row_bytes, page_bytes);
    uintptr_t end = round_up(base + (size_t)to * row_bytes, page_bytes);
    if (mat == 0 && share == 0)
        first = base / page_bytes * page_bytes;
    return (cpu_pages){(uint8_t *)first, end > first ? (end - first) / page_bytes : 0};
}

typedef struct {
    const fr_cpu *cpu;
    const fr_weight *w;
    size_t page_bytes;
} home_job;

/* Where numactl or a parent set a policy, it would count more than who touches. */
static void prefer_own_node(void)
{
#ifdef FERRY_HAVE_NUMA
    set_mempolicy(MPOL_LOCAL, NULL, 0);
#endif
}

static void touch_pages(void *arg, int i_thread, int n_threads)
{
    const home_job *j = arg;
    cpu_place place = cpu_pool_place(j->cpu->pool, i_thread);
    (void)n_threads;
    prefer_own_node();
    for (int64_t m = 0; m < j->w->n_mat; m++) {
        cpu_pages p =
            cpu_home_pages(j->w, m, cpu_pool_n_shares(j->cpu->pool), place.share, j->page_bytes);
        int64_t from, to;
        fr_cpu_share((int64_t)p.n, 1, place.i_thread, place.n_threads, &from, &to);
        for (int64_t i = from; i < to; i++) {
            volatile uint8_t *at = p.first + (size_t)i * j->page_bytes;
            if (at < (const uint8_t *)j->w->data) /* the page may begin in a neighbour */
                at = (volatile uint8_t *)(uintptr_t)j->w->data;
            *at = *at;
        }
    }
}

void fr_cpu_home_weight(fr_cpu *cpu, const fr_weight *w)
{
    if (fr_cpu_n_homes(cpu) == 1)
        return;
    home_job j = {cpu, w, (size_t)sysconf(_SC_PAGESIZE)};
    fr_cpu_run(cpu, touch_pages, &j);
}
