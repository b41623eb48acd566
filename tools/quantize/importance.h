/* Importance matrices: for each column of a weight, how large its inputs were (mean squares).
 *
 * Read in both forms that the ecosystem's tools write: GGUF files (general.type = "imatrix",
 * tensors NAME.in_sum2 and NAME.counts) and the older .dat. Only names and sizes are kept in
 * memory; values are read for the tensor at hand. Files are not trusted. */
#ifndef FR_TOOLS_IMPORTANCE_H
#define FR_TOOLS_IMPORTANCE_H

#include "base/arena.h"
#include "gguf/gguf.h"

typedef struct {
    const char *name; /* of the weight, "blk.0.attn_q.weight" */
    int64_t n;        /* values: columns, or columns of one matrix of a stack after the other */
    uint64_t offset;  /* .dat: of the values */
    double n_calls;   /* .dat: what the sums were made of */
    const fr_gguf_tensor *sums, *counts; /* GGUF */
} importance_entry;

typedef struct {
    const char *path;
    fr_file file; /* .dat; or closed */
    fr_gguf *g;   /* GGUF; or NULL */
    fr_arena arena;
    importance_entry *entries; /* sorted by name; owned */
    size_t n, cap;
    fr_buf dataset;   /* what it was computed on; may be empty */
    int64_t n_chunks; /* 0: not known */
} importance;

/* Opens `path`, which must outlive *out. FR_EFORMAT when it is neither form, or damaged. */
fr_status importance_open(const char *path, importance *out, fr_err *err);
void importance_close(importance *im); /* {0} is fine */

const importance_entry *importance_find(const importance *im, const char *name); /* or NULL */

/* Writes the values for n_mat matrices of `cols` columns to out (n_mat * cols); an entry with cols
 * values counts for all matrices. has[m] = whether matrix m ever was used: its values are all 0
 * otherwise. FR_EFORMAT for values that are negative or not finite, FR_EINVAL for another number of
 * values. */
fr_status importance_read(const importance *im, const importance_entry *e, int64_t cols,
                          int64_t n_mat, float *out, bool *has, fr_err *err);

/* Whether the entry suits such a weight; FR_EINVAL names both sizes. */
fr_status importance_check(const importance *im, const importance_entry *e, int64_t cols,
                           int64_t n_mat, fr_err *err);

/* The two forms. Each appends entries; the caller sorts them. */
fr_status importance_open_gguf(importance *im, fr_err *err);
fr_status importance_open_dat(importance *im, fr_err *err);
fr_status importance_add(importance *im, fr_str name, importance_entry e, fr_err *err);
fr_status importance_read_gguf(const importance *im, const importance_entry *e, float *out,
                               fr_err *err);
fr_status importance_read_dat(const importance *im, const importance_entry *e, float *out,
                              fr_err *err);

#endif
