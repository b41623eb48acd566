/* How many threads are fastest on this machine, for single tokens and for batches. */
#ifndef FR_CPU_THREAD_TUNE_H
#define FR_CPU_THREAD_TUNE_H

#include "cpu/cpu.h"

typedef struct {
    int n_single, n_batch;
} fr_thread_counts;

/* Times products with weights of one shape (its type, layout, cols, rows; data and n_mat do not
 * count), such as a model's experts: one token with weights that come from memory, and 256 tokens.
 * Tries parts of the cores, all cores, and their second hardware threads (cfg without n_threads),
 * by turns, for at most 5 seconds; the fewest threads within 2 % of the fastest win. FR_ENOMEM:
 * there is no room for FR_TUNE_BYTES of weights. */
enum { FR_TUNE_BYTES = 512 << 20 };
fr_status fr_threads_tune(const fr_cpu_config *cfg, const fr_weight *shape, fr_thread_counts *out,
                          fr_err *err);

/* Whether counts are possible: what was kept on disk may come from elsewhere. */
bool fr_threads_possible(const fr_thread_counts *c);

#endif
