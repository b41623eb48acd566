/* Weight memory: brings the weights of a model into memory and keeps them there.
 *
 * Weights whose layout in memory (fr_model_set_layouts) is not that of the file are read and
 * repacked on the way, in parallel. Of the others, with mmap the file's pages are used in place;
 * without, they are read. Derived weights (parts of kv_b, see model.h) are computed once at load.
 * At no time there is more than the weights and a piece of them for each thread. */
#ifndef FR_STORE_STORE_H
#define FR_STORE_STORE_H

#include "cpu/cpu.h"
#include "model/model.h"

/* Called from the loading thread as bytes arrive; returning false cancels (FR_ECANCELLED). */
typedef bool (*fr_progress_fn)(void *user, uint64_t done_bytes, uint64_t total_bytes);

typedef struct {
    bool mmap;       /* the GGUF must be mapped then */
    bool huge_pages; /* ask for them for what is read */
    bool lock;       /* keep the weights from being swapped out; a refusal is a warning */
    bool check; /* decode every weight once; NaN or infinity is an error that names the tensor */
    fr_progress_fn progress; /* may be NULL */
    void *progress_user;
} fr_store_config;

typedef struct fr_store fr_store;

/* Loads all weights of m. m and cpu must outlive the store; the GGUF must too. */
fr_status fr_store_open(const fr_model *m, fr_cpu *cpu, const fr_store_config *cfg, fr_store **out,
                        fr_err *err);
void fr_store_close(fr_store *s);

/* Weight i of the model, with its data. NULL for i < 0. */
const fr_weight *fr_store_weight(const fr_store *s, int i);

#endif
