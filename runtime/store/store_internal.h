/* Shared by the files of the store box. */
#ifndef FR_STORE_INTERNAL_H
#define FR_STORE_INTERNAL_H

#include "store/store.h"

struct fr_store {
    const fr_model *model;
    fr_cpu *cpu;
    fr_weight *weights;    /* one for each of the model's */
    uint8_t **blocks;      /* memory of weights that are not mapped; owned */
    uint64_t mapped_bytes; /* accounted for the mapped ones */
};

/* Whether the weight's bytes are those of a tensor of the file. */
static inline bool store_reads(const fr_model_weight *w)
{
    return w->src && w->derive == FR_DERIVE_NONE;
}

/* Makes derived weight i; what it comes from must be there. */
fr_status store_derive(fr_store *s, int i, fr_err *err);

#endif
