/* What the files of the rules share. */
#ifndef FR_PLANNER_RULES_INTERNAL_H
#define FR_PLANNER_RULES_INTERNAL_H

#include "base/arena.h"
#include "planner/rules.h"
#include "planner/rules_pattern.h"

typedef struct {
    fr_rule rule;
    plan_pattern *pattern; /* owned */
} plan_rule;

struct fr_rules {
    fr_arena arena; /* the texts */
    plan_matcher *matcher;
    plan_rule *items; /* n, in the order in which they apply; owned */
    size_t n, cap;
    size_t n_cpu_moe; /* of them, the last ones */
    int n_cli;
    fr_diagnostics notes; /* from reading; fr_rules_check hands out copies */
};

/* Whether rule i matches a name; FR_ERANGE beyond the limits, with a text. */
fr_status plan_rule_matches(const fr_rules *r, size_t i, const char *name, bool *yes, fr_err *err);

/* fr_rules_apply without the rules whose `skip` is set (NULL: none); *failed = the rule that a
 * FR_ERANGE is about. */
fr_status plan_rules_apply(const fr_rules *r, const bool *skip, const char *name, int64_t n_experts,
                           fr_rule_pieces *out, size_t *failed, fr_err *err);

/* Where a rule was written, without its text: "-ot rule 2", "my.rules:12", "--n-cpu-moe 10". */
fr_status plan_rule_where(const fr_rule *rule, fr_buf *out, fr_err *err);

/* "CUDA1[0-31]". */
fr_status plan_target_print(const fr_target *t, fr_buf *out, fr_err *err);

/* Parses "CUDA1[0-31]"; false when it is no device, or a slice is upside down. `layout` becomes -1.
 */
bool plan_target_parse(fr_str text, fr_target *out);

/* What helps to explain rules that match nothing: an index of the names, made on first use. */
typedef struct plan_explainer plan_explainer;
fr_status plan_explainer_new(const fr_rules *r, const fr_rules_check_args *args,
                             plan_explainer **out, fr_err *err);
void plan_explainer_free(plan_explainer *x);

/* Appends why a rule that matches no name does not, and what would: the layers that have what it
 * names, the smallest change, the nearest names. */
fr_status plan_explain_no_match(plan_explainer *x, const fr_rule *rule, fr_buf *out, fr_err *err);

#endif
