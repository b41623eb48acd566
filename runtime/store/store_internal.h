/* Shared by the files of the store box. */
#ifndef FR_STORE_INTERNAL_H
#define FR_STORE_INTERNAL_H

#include "store/store.h"

/* Where the bytes of a weight come from. */
typedef enum {
    STORE_MADE,   /* derived from others (derive.c) */
    STORE_MAPPED, /* the file's pages, in place */
    STORE_READ,   /* read as the file has them */
    STORE_REPACK  /* read and repacked */
} store_source;

struct fr_store {
    const fr_model *model;
    fr_cpu *cpu;
    fr_weight *weights;    /* one for each of the model's */
    store_source *sources; /* one a weight */
    uint64_t *at;          /* one a weight: where in `block`, of those that are read */
    uint8_t *block;        /* memory of the weights that are read; owned */
    uint64_t block_bytes;
    uint8_t **made;        /* memory of derived weights; owned */
    uint64_t mapped_bytes; /* accounted for the mapped ones */
};

/* Decides the sources, and brings everything into memory that is not derived. */
fr_status store_load(fr_store *s, const fr_store_config *cfg, fr_err *err);

/* Makes derived weight i; what it comes from must be there. */
fr_status store_derive(fr_store *s, int i, fr_err *err);

/* Decodes every weight once: FR_EFORMAT names the tensor and row of a NaN or infinity. */
fr_status store_check(fr_store *s, fr_err *err);

#endif
