/* --custom-q: types for tensors by regular expression, the first match wins. */
#ifndef FR_TOOLS_QUANTIZE_RULES_H
#define FR_TOOLS_QUANTIZE_RULES_H

#include "opts/opts.h"
#include "quant/qtype.h"

typedef struct quantize_rules quantize_rules;

/* From items "REGEX=TYPE,REGEX=TYPE...": split at commas, then at the last '='. A regex is searched
 * anywhere in the name, case counts. FR_EINVAL for a bad regex (with the position) or type. */
fr_status quantize_rules_open(const fr_opt_list *items, quantize_rules **out, fr_err *err);
void quantize_rules_close(quantize_rules *r);

/* The type of the first rule that matches; *found = false without one. Counts matches. */
fr_status quantize_rules_match(quantize_rules *r, const char *name, bool *found, fr_type *type,
                               fr_layout *layout, fr_err *err);

/* Warns of each rule that never was the first to match. */
void quantize_rules_report(const quantize_rules *r);

#endif
