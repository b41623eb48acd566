/* What the tests of tensor rules share: headers of real models, rules from a list, and assertions
 * about what they take. For one test file each. */
#ifndef FR_TEST_RULE_CHECKS_H
#define FR_TEST_RULE_CHECKS_H

#include "testing.h"

#include "gguf/gguf.h"
#include "planner/rules_internal.h"

#define MAX_NAMES 2000

static fr_err err;

/* ---- models
 * -------------------------------------------------------------------------------------- */

typedef struct {
    fr_gguf *gguf;
    const char *names[MAX_NAMES];
    int64_t n_experts[MAX_NAMES];
    size_t n;
} model;

static model r1, lite, kimi;

static inline void open_model(model *m, const char *path)
{
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &m->gguf, &err));
    m->n = fr_gguf_n_tensors(m->gguf);
    assert_in_range(m->n, 1, MAX_NAMES);
    for (size_t i = 0; i < m->n; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(m->gguf, i);
        m->names[i] = t->name;
        m->n_experts[i] = strstr(t->name, "_exps.") ? t->dims[2] : 1;
    }
}

static inline int models_open(void **state)
{
    (void)state;
    open_model(&r1, TEST_FILE("data/headers/deepseek-r1-q4_k_r4.header.gguf"));
    open_model(&lite, TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf"));
    open_model(&kimi, TEST_FILE("data/headers/kimi-k2-iq2_k_r4.header.gguf"));
    return 0;
}

static inline int models_close(void **state)
{
    (void)state;
    fr_gguf_close(r1.gguf);
    fr_gguf_close(lite.gguf);
    fr_gguf_close(kimi.gguf);
    return fr_mem_total().bytes_now != 0;
}

/* ---- rules and checks
 * ---------------------------------------------------------------------------- */

/* Rules of a list: "value of -ot", "@line of an INI file", "#line of a rule file", "%N" for
 * --n-cpu-moe N. */
static inline fr_rules *rules_of(const char *const *list, size_t n)
{
    fr_rules *r;
    assert_ok(fr_rules_new(&r, &err));
    for (size_t i = 0; i < n && list[i]; i++) {
        const char *text = list[i] + 1;
        if (*list[i] == '@')
            assert_ok(fr_rules_add_line(r, FR_RULE_INI, text, "m.ini", (int)i + 1, &err));
        else if (*list[i] == '#')
            assert_ok(fr_rules_add_line(r, FR_RULE_FILE, text, "x.rules", (int)i + 1, &err));
        else if (*list[i] == '%')
            assert_ok(fr_rules_add_cpu_moe(r, atoi(text), 3, &err));
        else
            assert_ok(fr_rules_add_cli(r, list[i], &err));
    }
    return r;
}

#define RULES(...)                                                                                 \
    rules_of((const char *const[]){__VA_ARGS__},                                                   \
             sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static inline fr_diagnostics check_with(const fr_rules *r, const model *m, int n_gpus, int n_numa,
                                        int strictness)
{
    fr_diagnostics d = {0};
    fr_rules_check_args args = {m->names, m->n_experts, m->n, n_gpus, n_numa, strictness};
    assert_ok(fr_rules_check(r, &args, &d, &err));
    return d;
}

/* Whether a text has all words, which '|' separates. */
static inline bool has_words(const char *text, const char *words)
{
    char list[1000], *word, *rest = list;
    snprintf(list, sizeof list, "%s", words);
    while ((word = strsep(&rest, "|")))
        if (!strstr(text, word))
            return false;
    return true;
}

static inline void assert_words(const char *text, const char *words)
{
    if (!has_words(text, words))
        fail_msg("expected \"%s\" in: %s", words, text);
}

static inline size_t count(const fr_diagnostics *d, fr_severity severity)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        n += d->items[i].severity == severity;
    return n;
}

/* The rule that takes expert 0 of a tensor: its target, or NULL. */
static inline const fr_target *target_at(const fr_rules *r, const char *name, int64_t n_experts,
                                         int64_t expert)
{
    fr_rule_pieces p = {0};
    const fr_target *t = NULL;
    assert_ok(fr_rules_apply(r, name, n_experts, &p, &err));
    for (size_t i = 0; i < p.n; i++)
        if (p.items[i].expert_from <= expert && expert <= p.items[i].expert_to &&
            p.items[i].rule >= 0)
            t = &fr_rules_at(r, (size_t)p.items[i].rule)->target;
    fr_rule_pieces_free(&p);
    return t;
}

static inline void assert_device(const fr_rules *r, const char *name, int64_t n_experts,
                                 int64_t expert, const char *device)
{
    fr_buf text = {0};
    const fr_target *t = target_at(r, name, n_experts, expert);
    if (t) {
        fr_target whole = *t;
        whole.expert_from = -1;
        assert_ok(plan_target_print(&whole, &text, &err));
    } else {
        assert_ok(fr_buf_puts(&text, "-", &err));
    }
    if (strcmp(text.p, device))
        fail_msg("%s [%d]: %s, expected %s", name, (int)expert, text.p, device);
    fr_buf_free(&text);
}

#endif
