#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "quantize_rules.h"

enum { MATCH_LIMIT = 100000, MAX_RULES = 4096 };

typedef struct {
    fr_str text; /* the regex; in the arena */
    pcre2_code *code;
    fr_type type;
    fr_layout layout;
    size_t n_matched; /* tensors */
} rule;

struct quantize_rules {
    fr_arena arena;
    pcre2_general_context *general;
    pcre2_match_context *context;
    pcre2_match_data *data;
    rule *rules; /* owned */
    size_t n, cap;
};

static void *pcre_alloc(PCRE2_SIZE bytes, void *user)
{
    (void)user;
    return fr_mem_alloc(FR_MEM_OPTS, bytes);
}

static void pcre_free(void *p, void *user)
{
    (void)user;
    fr_mem_free(p);
}

static fr_status no_memory(fr_err *err)
{
    return fr_fail(err, FR_ENOMEM, "--custom-q: out of memory");
}

/* ---- reading -------------------------------------------------------------------------------- */

static fr_status compile(quantize_rules *r, rule *u, fr_err *err)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[128];
    pcre2_compile_context *c = pcre2_compile_context_create(r->general);
    if (!c)
        return no_memory(err);
    u->code = pcre2_compile((PCRE2_SPTR)u->text.p, u->text.n, 0, &code, &at, c);
    pcre2_compile_context_free(c);
    if (u->code)
        return FR_OK;
    if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
        return no_memory(err);
    pcre2_get_error_message(code, why, sizeof why);
    return fr_fail(err, FR_EINVAL, "--custom-q: in '%.*s', at character %zu: %s",
                   FR_STR_ARG(u->text), (size_t)at + 1, (const char *)why);
}

static fr_status parse_type(fr_str item, fr_str name, rule *u, fr_err *err)
{
    if (!fr_type_from_name(name, &u->type, &u->layout))
        return fr_fail(err, FR_EINVAL,
                       "--custom-q: in '%.*s': '%.*s' is not a type; 'ferry-gguf types' lists them",
                       FR_STR_ARG(item), FR_STR_ARG(name));
    return FR_OK;
}

/* One REGEX=TYPE. */
static fr_status add_rule(quantize_rules *r, fr_str item, fr_err *err)
{
    size_t eq = item.n;
    while (eq > 0 && item.p[eq - 1] != '=')
        eq--;
    fr_str regex = fr_str_trim((fr_str){item.p, eq ? eq - 1 : 0});
    if (regex.n == 0)
        return fr_fail(err, FR_EINVAL, "--custom-q: found '%.*s', expected REGEX=TYPE",
                       FR_STR_ARG(item));
    if (r->n >= MAX_RULES)
        return fr_fail(err, FR_EINVAL, "--custom-q: found more than %d rules", MAX_RULES);
    void *rules = r->rules;
    FR_TRY(fr_mem_grow(FR_MEM_OPTS, &rules, &r->cap, r->n + 1, sizeof *r->rules, err));
    r->rules = rules;
    rule *u = &r->rules[r->n++];
    *u = (rule){.text = {fr_arena_strndup(&r->arena, regex.p, regex.n, err), regex.n}};
    if (!u->text.p)
        return FR_ENOMEM;
    FR_TRY(parse_type(item, fr_str_trim((fr_str){item.p + eq, item.n - eq}), u, err));
    return compile(r, u, err);
}

static fr_status add_items(quantize_rules *r, const char *text, fr_err *err)
{
    while (*text) {
        size_t n = strcspn(text, ",");
        fr_str item = fr_str_trim((fr_str){text, n});
        if (item.n)
            FR_TRY(add_rule(r, item, err));
        text += n + (text[n] == ',');
    }
    return FR_OK;
}

static fr_status open_rules(quantize_rules *r, const fr_opt_list *items, fr_err *err)
{
    r->general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (!r->general)
        return no_memory(err);
    r->context = pcre2_match_context_create(r->general);
    r->data = pcre2_match_data_create(1, r->general);
    if (!r->context || !r->data)
        return no_memory(err);
    pcre2_set_match_limit(r->context, MATCH_LIMIT);
    for (size_t i = 0; i < items->n; i++)
        FR_TRY(add_items(r, items->items[i].text, err));
    return FR_OK;
}

fr_status quantize_rules_open(const fr_opt_list *items, quantize_rules **out, fr_err *err)
{
    quantize_rules *r = FR_NEW(quantize_rules, FR_MEM_OPTS, 1, err);
    if (!r)
        return FR_ENOMEM;
    r->arena = fr_arena_make(FR_MEM_OPTS);
    fr_status st = open_rules(r, items, err);
    if (st != FR_OK) {
        quantize_rules_close(r);
        return st;
    }
    *out = r;
    return FR_OK;
}

void quantize_rules_close(quantize_rules *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        pcre2_code_free(r->rules[i].code);
    pcre2_match_data_free(r->data);
    pcre2_match_context_free(r->context);
    pcre2_general_context_free(r->general);
    fr_mem_free(r->rules);
    fr_arena_free(&r->arena);
    fr_mem_free(r);
}

/* ---- matching ------------------------------------------------------------------------------- */

fr_status quantize_rules_match(quantize_rules *r, const char *name, bool *found, fr_type *type,
                               fr_layout *layout, fr_err *err)
{
    *found = false;
    for (size_t i = 0; i < r->n; i++) {
        rule *u = &r->rules[i];
        int rc = pcre2_match(u->code, (PCRE2_SPTR)name, strlen(name), 0, PCRE2_NO_UTF_CHECK,
                             r->data, r->context);
        if (rc == PCRE2_ERROR_NOMATCH)
            continue;
        if (rc == PCRE2_ERROR_NOMEMORY)
            return no_memory(err);
        if (rc < 0)
            return fr_fail(err, FR_EINVAL,
                           "--custom-q: '%.*s' takes too many steps on the name %s; write it "
                           "without nested repeats",
                           FR_STR_ARG(u->text), name);
        u->n_matched++;
        *found = true;
        *type = u->type;
        *layout = u->layout;
        return FR_OK;
    }
    return FR_OK;
}

void quantize_rules_report(const quantize_rules *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->rules[i].n_matched == 0)
            fr_log_warn("--custom-q: '%.*s=%s' has no effect: it matches no matrix, or an earlier "
                        "rule matches all of them",
                        FR_STR_ARG(r->rules[i].text),
                        fr_type_name(r->rules[i].type, r->rules[i].layout));
}
