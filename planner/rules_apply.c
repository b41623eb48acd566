/* Which rule takes a tensor, or which experts of it. */
#include <string.h>

#include "planner/rules_internal.h"

static fr_status fail_limit(const fr_rule *rule, const char *name, fr_err *err)
{
    fr_buf text = {0};
    fr_status st = fr_rule_describe(rule, &text, err);
    if (st == FR_OK)
        st =
            fr_fail(err, FR_ERANGE,
                    "%s: found an expression that tries too many ways to match %.80s, expected a "
                    "simpler one; repetitions inside repetitions, as in (a+)+, are the usual cause",
                    text.p, name);
    fr_buf_free(&text);
    return st;
}

fr_status plan_rule_matches(const fr_rules *r, size_t i, const char *name, bool *yes, fr_err *err)
{
    const plan_rule *p = &r->items[i];
    fr_status st = plan_pattern_find(r->matcher, p->pattern, fr_str_of(name), yes, err);
    return st == FR_ERANGE ? fail_limit(&p->rule, name, err) : st;
}

fr_status fr_rules_match(const fr_rules *r, const char *name, size_t from, int *number, fr_err *err)
{
    *number = -1;
    for (size_t i = from; i < r->n; i++) {
        bool yes;
        FR_TRY(plan_rule_matches(r, i, name, &yes, err));
        if (yes) {
            *number = (int)i;
            return FR_OK;
        }
    }
    return FR_OK;
}

/* ---- pieces
 * -------------------------------------------------------------------------------------- */

static fr_status grow(fr_rule_pieces *p, size_t need, fr_err *err)
{
    void *items = p->items;
    FR_TRY(fr_mem_grow(FR_MEM_PLAN, &items, &p->cap, need, sizeof *p->items, err));
    p->items = items;
    return FR_OK;
}

/* Gives what is free of [from, to] to a rule. Returns through *left whether something is free
 * still. */
static fr_status take(fr_rule_pieces *p, int64_t from, int64_t to, int rule, bool *left,
                      fr_err *err)
{
    *left = false;
    for (size_t i = 0; i < p->n; i++) {
        fr_rule_piece whole = p->items[i];
        int64_t a = whole.expert_from > from ? whole.expert_from : from;
        int64_t b = whole.expert_to < to ? whole.expert_to : to;
        if (whole.rule >= 0 || a > b) {
            *left |= whole.rule < 0;
            continue;
        }
        size_t before = a > whole.expert_from, after = b < whole.expert_to;
        FR_TRY(grow(p, p->n + before + after, err));
        memmove(p->items + i + 1 + before + after, p->items + i + 1,
                (p->n - i - 1) * sizeof *p->items);
        p->n += before + after;
        if (before)
            p->items[i++] = (fr_rule_piece){whole.expert_from, a - 1, -1};
        p->items[i] = (fr_rule_piece){a, b, rule};
        if (after)
            p->items[++i] = (fr_rule_piece){b + 1, whole.expert_to, -1};
        *left |= before || after;
    }
    return FR_OK;
}

static void join(fr_rule_pieces *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (n && p->items[n - 1].rule == p->items[i].rule)
            p->items[n - 1].expert_to = p->items[i].expert_to;
        else
            p->items[n++] = p->items[i];
    }
    p->n = n;
}

fr_status plan_rules_apply(const fr_rules *r, const bool *skip, const char *name, int64_t n_experts,
                           fr_rule_pieces *out, size_t *failed, fr_err *err)
{
    bool left = true;
    out->n = 0;
    FR_TRY(grow(out, 1, err));
    out->items[out->n++] = (fr_rule_piece){0, n_experts - 1, -1};
    for (size_t i = 0; i < r->n && left; i++) {
        const fr_target *t = &r->items[i].rule.target;
        bool yes, sliced = t->expert_from >= 0;
        if ((skip && skip[i]) || (sliced && n_experts == 1))
            continue;
        *failed = i;
        FR_TRY(plan_rule_matches(r, i, name, &yes, err));
        if (yes)
            FR_TRY(take(out, sliced ? t->expert_from : 0, sliced ? t->expert_to : n_experts - 1,
                        (int)i, &left, err));
    }
    join(out);
    return FR_OK;
}

fr_status fr_rules_apply(const fr_rules *r, const char *name, int64_t n_experts,
                         fr_rule_pieces *out, fr_err *err)
{
    size_t failed;
    return plan_rules_apply(r, NULL, name, n_experts, out, &failed, err);
}

void fr_rule_pieces_free(fr_rule_pieces *p)
{
    fr_mem_free(p->items);
    *p = (fr_rule_pieces){0};
}
