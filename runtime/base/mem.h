/* Tagged host memory.
 *
 * Every block belongs to a tag, so that a memory report can say what the bytes are for, and a test
 * can count allocations or make the n-th one fail. Blocks are aligned to FR_MEM_ALIGN. All
 * functions may be called from any thread. */
#ifndef FR_BASE_MEM_H
#define FR_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define FR_MEM_ALIGN 64

/* tag, name in reports */
#define FR_MEM_TAGS(X)                                                                             \
    X(MISC, "misc")                                                                                \
    X(TEXT, "text")                                                                                \
    X(OPTS, "options")                                                                             \
    X(GGUF, "gguf")                                                                                \
    X(VOCAB, "vocabulary")                                                                         \
    X(MODEL, "model")                                                                              \
    X(WEIGHTS, "weights")                                                                          \
    X(DERIVED, "derived weights")                                                                  \
    X(KV, "kv cache")                                                                              \
    X(WORKSPACE, "workspace")                                                                      \
    X(ENGINE, "engine")                                                                            \
    X(SAMPLE, "sampler")                                                                           \
    X(CPU, "cpu kernels")                                                                          \
    X(GPU, "gpu handles")                                                                          \
    X(PLAN, "planner")

typedef enum {
#define X(tag, name) FR_MEM_##tag,
    FR_MEM_TAGS(X)
#undef X
        FR_MEM_TAG_COUNT
} fr_mem_tag;

typedef struct {
    size_t bytes_now;  /* requested bytes of the live blocks */
    size_t bytes_peak; /* their maximum since start or fr_mem_reset_peaks */
    uint64_t n_allocs; /* calls that returned a new block, since start */
} fr_mem_stats;

/* A new block of `bytes` (0 counts as 1) zero bytes, or NULL. Free with fr_mem_free. */
void *fr_mem_alloc(fr_mem_tag tag, size_t bytes);

/* The block `p` (or NULL) with its size changed; its tag stays (a new block gets `tag`). Bytes
 * beyond the old size are not cleared. On failure NULL, and `p` is as it was. */
void *fr_mem_realloc(fr_mem_tag tag, void *p, size_t bytes);

void fr_mem_free(void *p);

/* n * size zero bytes with overflow checked; on failure NULL and *err set to FR_ENOMEM. */
void *fr_mem_array(fr_mem_tag tag, size_t n, size_t size, fr_err *err);

#define FR_NEW(T, tag, n, err) ((T *)fr_mem_array((tag), (n), sizeof(T), (err)))

/* Grows the array *items of element size `size` to hold at least `need` elements, by doubling.
 * *items keeps its old value on failure (FR_ENOMEM). */
fr_status fr_mem_grow(fr_mem_tag tag, void **items, size_t *cap, size_t need, size_t size,
                      fr_err *err);

/* A new copy of n bytes plus a terminating 0, or NULL with *err set. */
char *fr_mem_strndup(fr_mem_tag tag, const char *s, size_t n, fr_err *err);

/* Memory that was not allocated here (a mapped file) but belongs in the report. */
void fr_mem_account(fr_mem_tag tag, ptrdiff_t bytes);

/* As fr_mem_array with n = 1, in huge pages that the administrator set aside (vm.nr_hugepages).
 * NULL and FR_ENOMEM, with what is there and what is needed, when those do not suffice. */
void *fr_mem_alloc_huge(fr_mem_tag tag, size_t bytes, fr_err *err);

/* Asks for huge pages for a block that has not been touched yet. The system may not have them; that
 * is no error. */
void fr_mem_want_huge_pages(void *p);

/* Gets the pages of memory of this process ready for writing, as if something were written to each.
 * False where the system has no such call. */
bool fr_mem_populate(void *p, size_t bytes);

/* Bytes that could be had without swapping, page cache given up for them included; UINT64_MAX where
 * the system does not say. */
uint64_t fr_mem_available(void);

/* Keeps bytes of any memory from being swapped out, until it is unmapped. FR_ENOMEM says what the
 * process may lock. */
fr_status fr_mem_lock(const void *p, size_t bytes, fr_err *err);

const char *fr_mem_tag_name(fr_mem_tag tag);
fr_mem_stats fr_mem_tag_stats(fr_mem_tag tag);
fr_mem_stats fr_mem_total(void);
void fr_mem_reset_peaks(void);

/* Fault injection: the n-th allocation from now (1 = the next) fails, and all that follow it when
 * `sticky`; 0 turns it off. Also set at start from the environment by tests only. */
void fr_mem_fail_at(uint64_t n, int sticky);

#endif
