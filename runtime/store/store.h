/* Weight memory: brings the weights of a model into memory and keeps them there, in RAM and on GPUs
 * as a plan says.
 *
 * Weights whose layout in memory (fr_model_set_layouts, or the plan's) is not that of the file are
 * read and repacked on the way, in parallel. Of the others, with mmap the file's pages are used in
 * place on the CPU; without, they are read. What goes to a GPU passes through pinned buffers, so
 * that reading, repacking and copying overlap. Derived weights (parts of kv_b, see model.h) are
 * computed once at load. At no time there is more than the weights, two pieces of them for each
 * thread, and a derived weight with its source. */
#ifndef FR_STORE_STORE_H
#define FR_STORE_STORE_H

#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "planner/plan.h"

/* Called from the loading thread as bytes arrive; returning false cancels (FR_ECANCELLED). */
typedef bool (*fr_progress_fn)(void *user, uint64_t done_bytes, uint64_t total_bytes);

typedef enum {
    FR_PAGES_SMALL,  /* as the system likes */
    FR_PAGES_ADVISE, /* transparent huge pages are asked for */
    FR_PAGES_HUGE    /* those that the administrator set aside; else a warning, and ADVISE */
} fr_store_pages;

/* How what is not in the page cache is read. */
typedef enum {
    FR_READ_THROUGH, /* by way of it: the next load finds it there, as far as there is room */
    FR_READ_DIRECT,  /* past it: faster, and takes no memory */
    FR_READ_AUTO     /* by way of it if weights and what is read of the files together take at most
                        three quarters of the memory that is available; images are written past it */
} fr_store_reading;

typedef struct {
    bool mmap;                /* the GGUF must be mapped then */
    fr_store_reading reading; /* from storage */
    fr_store_pages pages;     /* of the memory for what is read */
    bool lock;                /* keep the weights from being swapped out; a refusal is a warning */
    bool check; /* decode every weight once; NaN or infinity is an error that names the tensor */
    fr_progress_fn progress; /* may be NULL */
    void *progress_user;
    const fr_plan *plan; /* what goes where; NULL: everything is in RAM, in the model's layouts */
    const fr_gpu *gpu;   /* needed when the plan uses GPUs; GPU i is its hw.gpus[i].device */
    bool pin; /* pin the routed experts in RAM, so that they can be streamed to GPUs; a refusal is
                 a warning: such copies are slower */
    const char *repack_cache; /* folder for repacked weights, which the next load then finds ready,
                                 mapped or read as `mmap` says; NULL: they are not kept */
} fr_store_config;

typedef struct fr_store fr_store;

/* Loads all weights of m. m, cpu, gpu, and the GGUF must outlive the store; the plan may go. Never
 * takes more of a device than the plan says: FR_ENOMEM tells planned and needed bytes. FR_EIO when
 * a GPU fails or the file cannot be read. On failure nothing is left behind. */
fr_status fr_store_open(const fr_model *m, fr_cpu *cpu, const fr_store_config *cfg, fr_store **out,
                        fr_err *err);
void fr_store_close(fr_store *s); /* no work on its weights may be under way; NULL is fine */

/* Weight i of the model, with its data when all of it is one part in RAM; with data NULL otherwise.
 * NULL for i < 0. */
const fr_weight *fr_store_weight(const fr_store *s, int i);

/* Experts [first, first + w.n_mat) of a weight, on a device of the plan (0: CPU, 1 + i: GPU i).
 * w.data is in that device's memory. Neighbouring slices of one device and layout are one part.
 * Views (v_b in kv_b) are where what they are views of is. */
typedef struct {
    int device;
    int64_t first;
    fr_weight w;
} fr_store_part;

/* The parts of weight i, *n > 0 of them, ascending by first; together they are the whole weight. */
const fr_store_part *fr_store_parts(const fr_store *s, int i, int *n);

/* What it took to bring the weights into memory: bytes read (and repacked), bytes that are mapped
 * instead, and seconds. */
typedef struct {
    uint64_t read_bytes, mapped_bytes;
    uint64_t cached_bytes, direct_bytes; /* of those read: from the page cache, and past it; the
                                            others by way of it */
    double seconds;
    /* Where the time of reading went, in seconds of all n_threads together: getting memory ready,
     * copying from the page cache, repacking (with faults of memory that was not ready), waiting
     * for storage. read_s: of the clock. full_s of them storage waited for the threads. */
    int n_threads;
    double memory_s, copy_s, repack_s, wait_s, read_s, full_s;
} fr_store_loading;
fr_store_loading fr_store_loaded(const fr_store *s);

/* Bytes that weights take on a device of the plan; 0 for one that it does not have. */
uint64_t fr_store_bytes(const fr_store *s, int device);

#endif
