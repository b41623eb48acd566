/* Tensor override rules: regular expression = device, the first match wins.
 *
 * Semantics of -ot (llama.cpp, ik_llama.cpp): ECMAScript-like search on the full tensor name,
 * unanchored, case sensitive, on PCRE2 with match limits. On top: CUDA* (the solver picks the GPU),
 * NUMAn, expert slices (CUDA1[0-31]: those experts go there, the others on to the next rule that
 * matches), and in files
 * ",layout=plain|interleaved". */
#ifndef FR_PLANNER_RULES_H
#define FR_PLANNER_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

typedef enum { FR_TARGET_CPU, FR_TARGET_NUMA, FR_TARGET_GPU, FR_TARGET_ANY_GPU } fr_target_kind;

typedef struct {
    fr_target_kind kind;
    int index;                      /* of the GPU or NUMA node */
    int64_t expert_from, expert_to; /* slice [from, to]; -1, -1: all */
    int layout;                     /* fr_layout, or -1 when the rule does not say */
} fr_target;

typedef enum { FR_RULE_CLI, FR_RULE_INI, FR_RULE_FILE, FR_RULE_CPU_MOE } fr_rule_source;

typedef struct {
    const char *regex, *text; /* owned by the fr_rules; text = the whole rule as written, trimmed */
    fr_target target;
    fr_rule_source source;
    const char *file; /* INI and FILE: owned; else NULL */
    int line;         /* INI and FILE: line; CLI: number of the rule, from 1 */
} fr_rule;

/* One thread at a time, also for matching: the matcher's scratch memory is shared. */
typedef struct fr_rules fr_rules;

fr_status fr_rules_new(fr_rules **out, fr_err *err);
void fr_rules_free(fr_rules *r);

/* A value of -ot: rules split at every ',', each at its first '='; blanks round both parts are
 * trimmed with a note in the diagnostics. */
fr_status fr_rules_add_cli(fr_rules *r, const char *value, fr_err *err);
/* One line of an INI key or rule file: may contain ',' and '='; the last '=' separates (before a
 * ",layout=..." suffix). Empty lines and lines that begin with # or ; are skipped. */
fr_status fr_rules_add_line(fr_rules *r, fr_rule_source source, const char *line, const char *file,
                            int number, fr_err *err);
/* Reads a rule file, one rule a line. */
fr_status fr_rules_add_file(fr_rules *r, const char *path, fr_err *err);
/* --cpu-moe, --n-cpu-moe N: experts of all layers, or of the first n. Come after all other rules.
 */
fr_status fr_rules_add_cpu_moe(fr_rules *r, int64_t n_layers /* < 0: all */,
                               int64_t first_moe_layer, fr_err *err);

size_t fr_rules_count(const fr_rules *r);
const fr_rule *fr_rules_at(const fr_rules *r, size_t i);

/* The first rule from number `from` on that matches a tensor name: its number, or -1. FR_ERANGE
 * when the pattern exceeds the match limit (the text names the rule). */
fr_status fr_rules_match(const fr_rules *r, const char *name, size_t from, int *number,
                         fr_err *err);

/* "-ot rule 2 `exps=CPU`", "my.rules:12: rule `...`", "--n-cpu-moe 10": how texts call a rule. */
fr_status fr_rule_describe(const fr_rule *rule, fr_buf *out, fr_err *err);

/* Experts [expert_from, expert_to] of a tensor and the rule that takes them, -1: none does. */
typedef struct {
    int64_t expert_from, expert_to;
    int rule;
} fr_rule_piece;

typedef struct {
    fr_rule_piece *items; /* owned */
    size_t n, cap;
} fr_rule_pieces;

/* Who takes what of a tensor with n_experts matrices (1: a plain tensor): pieces in the order of
 * the experts, without gaps, neighbours of one rule joined. A rule with a slice passes over plain
 * tensors. *out is emptied first ({0} at the first call). */
fr_status fr_rules_apply(const fr_rules *r, const char *name, int64_t n_experts,
                         fr_rule_pieces *out, fr_err *err);
void fr_rule_pieces_free(fr_rule_pieces *p);

/* ---- checking
 * --------------------------------------------------------------------------------------------- */

typedef enum { FR_NOTE, FR_WARNING, FR_ERROR } fr_severity;

typedef struct {
    fr_severity severity;
    char *text; /* owned by the list */
    int rule;   /* number, or -1 */
} fr_diagnostic;

typedef struct {
    fr_diagnostic *items;
    size_t n, cap;
} fr_diagnostics;

fr_status fr_diagnostics_add(fr_diagnostics *d, fr_severity severity, int rule, fr_err *err,
                             const char *fmt, ...) FR_PRINTF(5, 6);
void fr_diagnostics_cut(fr_diagnostics *d, size_t n); /* forgets all but the first n */
void fr_diagnostics_free(fr_diagnostics *d);

typedef struct {
    const char *const *names; /* all tensor names of the model */
    const int64_t *n_experts; /* of each: matrices in the stack, 1 for plain tensors; NULL: all 1 */
    size_t n_names;
    int n_gpus, n_numa;
    int strictness; /* -1 --lax-rules, 0 default, 1 --strict-rules */
} fr_rules_check_args;

/* Looks at all rules against all names: rules that match nothing (with the nearest names, and for a
 * layer range what of it exists), fully shadowed rules (and by which), unknown devices, slices
 * beyond the expert count, up/gate/down of one layer's experts on different devices, token_embd on
 * a GPU. Severity of the first two: error in INI and rule files, warning on the command line, moved
 * by strictness; unknown devices always are errors; the rest are warnings. FR_OK even with errors
 * in the list. */
fr_status fr_rules_check(const fr_rules *r, const fr_rules_check_args *args, fr_diagnostics *out,
                         fr_err *err);

#endif
