/* Fills an importance matrix from what the products of a running model read. */
#ifndef FR_TOOLS_COLLECT_H
#define FR_TOOLS_COLLECT_H

#include "common/scorer.h"
#include "imatrix/colsum.h"

typedef struct {
    colsum *im;
    const fr_gguf *model; /* shapes of the weights as the file has them */
    fr_cpu *pool;
    bool process_output; /* output.weight too, not only weights of layers */
    fr_status status;    /* the first failure; afterwards nothing is collected */
    fr_err err;
} collector;

/* An fr_observe_fn; user is a collector. */
void collector_observe(void *user, const fr_observation *o);

/* Whether the weights that only plain attention reads (-mla 0) or only absorbed attention (-mla 1)
 * are in the model: 0 or 1. */
int collector_mla(const fr_gguf *model);

/* Prints on standard error which experts no token used, and which weights of the model's layers
 * have no entry. */
fr_status collector_report(collector *c, fr_err *err);

#endif
