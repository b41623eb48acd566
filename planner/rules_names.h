/* The tensor names of a model by kind: "blk.3.ffn_up.weight" ... "blk.60.ffn_up.weight" are one. */
#ifndef FR_PLANNER_RULES_NAMES_H
#define FR_PLANNER_RULES_NAMES_H

#include "base/arena.h"
#include "planner/rules_scan.h"

typedef struct {
    fr_str rest; /* behind the layer number, or the whole name outside layers */
    bool in_layers;
    plan_layers layers;
} plan_name_kind;

typedef struct {
    plan_name_kind *kinds;
    size_t n_kinds;
    fr_str *words; /* parts of names between '.' and '_', joined or not: "ffn_down_exps", "exps" */
    size_t n_words;
    int64_t last_layer; /* -1: none */
} plan_name_index;

/* Kinds and words beyond fixed numbers are left out: they only serve for advice. Views into the
 * names. */
fr_status plan_names_index(const char *const *names, size_t n, fr_arena *arena,
                           plan_name_index *out, fr_err *err);

/* Without ".weight" or ".bias". */
fr_str plan_name_stem(fr_str name);

/* Appends the kinds whose names are nearest to a sample: "ffn_up.weight (layers 0 to 60), ..." */
fr_status plan_names_nearest(const plan_name_index *x, fr_str sample, fr_buf *out, fr_err *err);

#endif
