#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "planner/rules_pattern.h"

/* Longer patterns are mistakes or attacks. Names have at most 64 bytes, and honest patterns take a
 * few hundred steps on them. */
enum { MAX_REGEX = 8192, HEAP_KIB = 2048, STEPS_RULE = 20000, STEPS_TRIAL = 2000, MAX_GROUPS = 64 };

struct plan_matcher {
    pcre2_general_context *general;
    pcre2_compile_context *compile;
    pcre2_match_context *match[2]; /* by effort */
    pcre2_match_data *data;
};

struct plan_pattern {
    pcre2_code *code;
    plan_match_effort effort;
};

static void *pcre_alloc(PCRE2_SIZE bytes, void *user)
{
    (void)user;
    return fr_mem_alloc(FR_MEM_PLAN, bytes);
}

static void pcre_free(void *p, void *user)
{
    (void)user;
    fr_mem_free(p);
}

static fr_status fail_memory(fr_err *err)
{
    return fr_fail(err, FR_ENOMEM, "tensor rules: memory could not be had");
}

/* ---- the matcher
 * --------------------------------------------------------------------------------- */

static pcre2_match_context *match_context(plan_matcher *m, uint32_t steps)
{
    pcre2_match_context *c = pcre2_match_context_create(m->general);
    if (c) {
        pcre2_set_match_limit(c, steps);
        pcre2_set_depth_limit(c, steps);
        pcre2_set_heap_limit(c, HEAP_KIB);
    }
    return c;
}

fr_status plan_matcher_new(plan_matcher **out, fr_err *err)
{
    plan_matcher *m = FR_NEW(plan_matcher, FR_MEM_PLAN, 1, err);
    if (!m)
        return FR_ENOMEM;
    m->general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (m->general) {
        m->compile = pcre2_compile_context_create(m->general);
        m->match[PLAN_MATCH_RULE] = match_context(m, STEPS_RULE);
        m->match[PLAN_MATCH_TRIAL] = match_context(m, STEPS_TRIAL);
        m->data = pcre2_match_data_create(MAX_GROUPS, m->general);
    }
    if (!m->compile || !m->match[0] || !m->match[1] || !m->data) {
        plan_matcher_free(m);
        return fail_memory(err);
    }
    pcre2_set_max_pattern_length(m->compile, MAX_REGEX);
    *out = m;
    return FR_OK;
}

void plan_matcher_free(plan_matcher *m)
{
    if (!m)
        return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->match[0]);
    pcre2_match_context_free(m->match[1]);
    pcre2_compile_context_free(m->compile);
    pcre2_general_context_free(m->general);
    fr_mem_free(m);
}

/* ---- patterns
 * ------------------------------------------------------------------------------------ */

/* What ECMAScript does differently from Perl, and no way out of the bytes of the name. */
#define SYNTAX                                                                                     \
    (PCRE2_DOLLAR_ENDONLY | PCRE2_ALLOW_EMPTY_CLASS | PCRE2_ALT_BSUX | PCRE2_MATCH_UNSET_BACKREF | \
     PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C)

static fr_status fail_pattern(int code, PCRE2_SIZE at, size_t n, plan_pattern_fault *fault,
                              fr_err *err)
{
    if (code == PCRE2_ERROR_HEAP_FAILED)
        return fail_memory(err);
    *fault = (plan_pattern_fault){.at = at < n ? at : n};
    pcre2_get_error_message(code, (PCRE2_UCHAR *)fault->what, sizeof fault->what);
    return FR_EINVAL;
}

fr_status plan_pattern_compile(plan_matcher *m, fr_str regex, plan_match_effort effort,
                               plan_pattern **out, plan_pattern_fault *fault, fr_err *err)
{
    int code;
    PCRE2_SIZE at;
    plan_pattern *p = FR_NEW(plan_pattern, FR_MEM_PLAN, 1, err);
    if (!p)
        return FR_ENOMEM;
    p->effort = effort;
    p->code = pcre2_compile((PCRE2_SPTR)regex.p, regex.n, SYNTAX, &code, &at, m->compile);
    if (!p->code) {
        plan_pattern_free(p);
        return fail_pattern(code, at, regex.n, fault, err);
    }
    /* Machine code where there is a compiler for it: it pays for patterns that see every name. */
    if (effort == PLAN_MATCH_RULE)
        pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
    *out = p;
    return FR_OK;
}

void plan_pattern_free(plan_pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    fr_mem_free(p);
}

fr_status plan_pattern_find(plan_matcher *m, const plan_pattern *p, fr_str name, bool *found,
                            fr_err *err)
{
    pcre2_match_context *limits = m->match[p->effort];
    int rc = pcre2_match(p->code, (PCRE2_SPTR)name.p, name.n, 0, 0, m->data, limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, (PCRE2_SPTR)name.p, name.n, 0, PCRE2_NO_JIT, m->data, limits);
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH)
        return FR_OK;
    return rc == PCRE2_ERROR_NOMEMORY ? fail_memory(err) : FR_ERANGE;
}

fr_str plan_pattern_group(const plan_matcher *m, const plan_pattern *p, fr_str name,
                          const char *group)
{
    int i = pcre2_substring_number_from_name(p->code, (PCRE2_SPTR)group);
    if (i < 0 || i >= MAX_GROUPS)
        return (fr_str){NULL, 0};
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data) + 2 * i;
    if (at[0] == PCRE2_UNSET || at[1] < at[0] || at[1] > name.n)
        return (fr_str){NULL, 0};
    return (fr_str){name.p + at[0], at[1] - at[0]};
}
