/* Looking into the text of a regular expression, roughly: enough to guess what it was meant for. A
 * guess is always tried on the names before anybody hears of it. */
#ifndef FR_PLANNER_RULES_SCAN_H
#define FR_PLANNER_RULES_SCAN_H

#include "base/str.h"

/* Bytes [from, to) of an expression. */
typedef struct {
    size_t from, to;
} plan_span;

/* The parts that stand for whole numbers, as in `[0-2]`, `1[0-9]`, `(?:3|4)`, `\d+`: at most max,
 * their count. */
size_t plan_scan_numbers(fr_str regex, plan_span *out, size_t max);

/* The literal words (three or more of A-Z a-z 0-9 _, with a letter). */
size_t plan_scan_words(fr_str regex, plan_span *out, size_t max);

/* Appends a text of the kind that the expression describes: first alternatives, classes by their
 * first character, nothing for `.*`. */
fr_status plan_scan_sample(fr_str regex, fr_buf *out, fr_err *err);

/* Appends an expression for the numbers from..to: `7`, `[3-5]`, `(8|9|1[0-2])`. No ',' in it. */
fr_status plan_range_regex(int64_t from, int64_t to, fr_buf *out, fr_err *err);

/* A set of layer numbers; those from MAX on are not kept. */
enum { PLAN_MAX_LAYERS = 2048 };
typedef struct {
    uint64_t bits[PLAN_MAX_LAYERS / 64];
} plan_layers;

void plan_layers_add(plan_layers *set, int64_t layer);
bool plan_layers_has(const plan_layers *set, int64_t layer);
/* The first member from `from` on, or -1. */
int64_t plan_layers_next(const plan_layers *set, int64_t from);

/* Appends "layer 3", "layers 0, 1, 2", "layers 3 to 60", "layers 0, 1, 2, 5 to 60". */
fr_status plan_layers_print(const plan_layers *set, fr_buf *out, fr_err *err);

/* "blk.12.ffn_up.weight" -> 12 and "ffn_up.weight"; false, and nothing set, for names outside
 * layers, or of layers from PLAN_MAX_LAYERS on. */
bool plan_name_layer(fr_str name, int64_t *layer, fr_str *rest);

#endif
