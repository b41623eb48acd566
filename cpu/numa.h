/* Memory near to the threads that read it, for fr_numa.
 *
 * A page of memory comes to be on the node of the thread that touches it first. So weights are put
 * in place by touching them before they are read from the file: no page ever moves, and the system
 * keeps no policy per range (it would need one for every expert and node). */
#ifndef FR_CPU_NUMA_H
#define FR_CPU_NUMA_H

#include <stddef.h>

#include "cpu/cpu.h"

/* Nodes that weights are dealt out to; 1: they are not, and the functions below do nothing. */
int fr_cpu_n_homes(const fr_cpu *cpu);

/* Touches the pages of a weight, contents unchanged, in threads of the nodes whose threads will
 * read them in fr_cpu_matmul, fr_cpu_moe and fr_cpu_expert_rows. To be called when the weight's
 * address and layout are settled and nothing was written there yet. Pages that have been touched
 * before stay where they are; the memory must be writable (not a mapped file). Huge pages, too, are
 * on the node that touches them first: at each border up to one page is on the wrong side. */
void fr_cpu_home_weight(fr_cpu *cpu, const fr_weight *w);

/* Pages of matrix `mat` that belong to a share: those that begin in its rows, and in the first
 * share of the first matrix the one in which the weight begins. Inside the cpu box. */
typedef struct {
    uint8_t *first;
    size_t n;
} cpu_pages;
cpu_pages cpu_home_pages(const fr_weight *w, int64_t mat, int n_shares, int share,
                         size_t page_bytes);

#endif
