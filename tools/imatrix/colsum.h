/* What importance matrices are made of: for every weight, how strongly a text drove each of its
 * input columns, as sums of squares of the activations. Quantizers spend their precision there.
 *
 * Files have two forms, both of the ecosystem, little endian. A GGUF file with general.type
 * "imatrix", imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size and for each weight
 *
 *   NAME.in_sum2   f32 [cols, matrices]   sums of squares
 *   NAME.counts    f32 [1, matrices]      rows that were added up
 *
 * and the older one, int32 and float32 throughout:
 *
 *   entries; each: name length, name, calls, values, value[values]
 *   chunks, length of the data set's name, the name
 *
 * where value / calls is the mean square of a column, matrices one after the other, calls counts
 * chunks, and a matrix without rows has a mean of 1. */
#ifndef FR_TOOLS_COLSUM_H
#define FR_TOOLS_COLSUM_H

#include <stdint.h>

#include "base/str.h"

/* A weight. */
typedef struct {
    char *name; /* owned */
    int64_t cols, n_mat;
    double *sums;    /* [n_mat][cols], owned */
    int64_t *counts; /* [n_mat], owned */
} colsum_entry;

/* {.chunk_size = N} is empty. */
typedef struct {
    colsum_entry *entries; /* owned */
    size_t n, cap;
    size_t last;      /* the entry found last: look-ups come in rounds */
    fr_buf datasets;  /* their names, each ended by a 0 */
    int64_t n_chunks; /* of chunk_size tokens */
    int64_t chunk_size;
} colsum;

void colsum_free(colsum *im);

/* NULL when there is none of this name. */
colsum_entry *colsum_find(colsum *im, const char *name);

/* Finds or makes an entry; a pointer lives until the next one is made. An entry of one matrix
 * (older files do not tell) takes the shape asked for when the size is the same. FR_EINVAL for
 * another shape. */
fr_status colsum_entry_of(colsum *im, const char *name, int64_t cols, int64_t n_mat,
                          colsum_entry **out, fr_err *err);

/* Adds a data set's name unless it is there. */
fr_status colsum_add_dataset(colsum *im, fr_str name, fr_err *err);

/* Sorts the entries by name and writes the file, as one whole; the older form when path ends in
 * ".dat". FR_EFORMAT when a sum is not a finite number. */
fr_status colsum_write(colsum *im, const char *path, fr_err *err);

/* Adds what a file of either form holds. On failure part of it may have been added. */
fr_status colsum_read(colsum *im, const char *path, fr_err *err);

#endif
