/* The regular expressions of rules: PCRE2 in the ECMAScript manner, with limits, so that no pattern
 * can hang or grow without bound. One thread at a time for all patterns of a matcher. */
#ifndef FR_PLANNER_RULES_PATTERN_H
#define FR_PLANNER_RULES_PATTERN_H

#include "base/str.h"

/* What patterns share: memory, limits, scratch. */
typedef struct plan_matcher plan_matcher;
typedef struct plan_pattern plan_pattern;

/* How far a match may go: RULE for patterns of users, TRIAL for guesses at what they meant, which
 * are many and may be given up early. */
typedef enum { PLAN_MATCH_RULE, PLAN_MATCH_TRIAL } plan_match_effort;

fr_status plan_matcher_new(plan_matcher **out, fr_err *err);
void plan_matcher_free(plan_matcher *m);

/* What is wrong with a pattern, and where (a byte of it). */
typedef struct {
    char what[160];
    size_t at;
} plan_pattern_fault;

/* Compiles for an effort. FR_EINVAL fills *fault (which must not be NULL) and leaves *err alone:
 * the caller knows what to call the pattern. */
fr_status plan_pattern_compile(plan_matcher *m, fr_str regex, plan_match_effort effort,
                               plan_pattern **out, plan_pattern_fault *fault, fr_err *err);
void plan_pattern_free(plan_pattern *p);

/* Whether the pattern is found in a name. FR_ERANGE (and *err left alone) beyond the limits. */
fr_status plan_pattern_find(plan_matcher *m, const plan_pattern *p, fr_str name, bool *found,
                            fr_err *err);

/* After a find that succeeded: the part of the name that the named group took; {NULL, 0} when the
 * pattern has no such group or it took part in nothing. */
fr_str plan_pattern_group(const plan_matcher *m, const plan_pattern *p, fr_str name,
                          const char *group);

#endif
