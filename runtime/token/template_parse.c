#include "token/template_parse.h"

#include <string.h>

#include "token/template_call.h"

static fr_status parse_body(tpl_parser *p, const char *const *ends, tpl_node **out);

/* ---- tokens
 * -------------------------------------------------------------------------------------- */

fr_status tpl_next(tpl_parser *p)
{
    if (p->has_ahead) {
        p->now = p->ahead;
        p->has_ahead = false;
        return FR_OK;
    }
    return tpl_lex_next(&p->lexer, &p->now);
}

fr_status tpl_look(tpl_parser *p)
{
    if (!p->has_ahead)
        FR_TRY(tpl_lex_next(&p->lexer, &p->ahead));
    p->has_ahead = true;
    return FR_OK;
}

bool tpl_at_name(const tpl_parser *p, const char *name)
{
    return p->now.kind == TPL_T_NAME && fr_str_is(p->now.text, name);
}

bool tpl_at_op(const tpl_parser *p, const char *op)
{
    return p->now.kind == TPL_T_OP && fr_str_is(p->now.text, op);
}

fr_status tpl_skip_name(tpl_parser *p, const char *name, bool *skipped)
{
    *skipped = tpl_at_name(p, name);
    return *skipped ? tpl_next(p) : FR_OK;
}

fr_status tpl_skip_op(tpl_parser *p, const char *op, bool *skipped)
{
    *skipped = tpl_at_op(p, op);
    return *skipped ? tpl_next(p) : FR_OK;
}

fr_status tpl_unexpected(tpl_parser *p, const char *expected)
{
    static const char *const kinds[] = {
        [TPL_T_EOF] = "the end of the template",
        [TPL_T_DATA] = "text",
        [TPL_T_VAR_BEGIN] = "'{{'",
        [TPL_T_VAR_END] = "'}}'",
        [TPL_T_BLOCK_BEGIN] = "'{%'",
        [TPL_T_BLOCK_END] = "'%}'",
        [TPL_T_STRING] = "a string",
        [TPL_T_INT] = "an integer",
        [TPL_T_FLOAT] = "a number",
    };
    const tpl_token *t = &p->now;
    if (t->kind == TPL_T_NAME || t->kind == TPL_T_OP)
        return tpl_fail_at(p->err, FR_EFORMAT, t->line, t->col, "found '%.*s', expected %s",
                           FR_STR_ARG(t->text), expected);
    return tpl_fail_at(p->err, FR_EFORMAT, t->line, t->col, "found %s, expected %s", kinds[t->kind],
                       expected);
}

static fr_status unexpected_word(tpl_parser *p, const char *word)
{
    char text[64];
    snprintf(text, sizeof text, "'%s'", word);
    return tpl_unexpected(p, text);
}

fr_status tpl_expect_name(tpl_parser *p, const char *name)
{
    return tpl_at_name(p, name) ? tpl_next(p) : unexpected_word(p, name);
}

fr_status tpl_expect_op(tpl_parser *p, const char *op)
{
    return tpl_at_op(p, op) ? tpl_next(p) : unexpected_word(p, op);
}

fr_status tpl_nest(tpl_parser *p)
{
    if (p->depth >= TPL_MAX_NESTING)
        return tpl_fail_at(p->err, FR_ERANGE, p->now.line, p->now.col,
                           "nested too deeply: more than %d levels", TPL_MAX_NESTING);
    p->depth++;
    return FR_OK;
}

/* ---- nodes and symbols
 * ---------------------------------------------------------------------------- */

fr_status tpl_node_new(tpl_parser *p, tpl_node_kind kind, tpl_node **out)
{
    tpl_node *n = FR_ARENA_NEW(tpl_node, &p->t->arena, 1, p->err);
    if (!n)
        return FR_ENOMEM;
    n->kind = (uint8_t)kind;
    n->line = p->now.line;
    n->col = p->now.col;
    *out = n;
    return FR_OK;
}

fr_status tpl_const_str(tpl_parser *p, fr_str text, tpl_value *out)
{
    tpl_str *s = FR_ARENA_NEW(tpl_str, &p->t->arena, 1, p->err);
    if (!s)
        return FR_ENOMEM;
    *s = (tpl_str){text.p, text.n, tpl_count_chars(text)};
    *out = (tpl_value){.kind = TPL_STR, .u.s = s};
    return FR_OK;
}

static uint32_t name_bucket(fr_str name)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.n; i++)
        h = (h ^ (unsigned char)name.p[i]) * 16777619u;
    return (h ^ h >> 16) & 255;
}

fr_status tpl_symbol_of(tpl_parser *p, fr_str name, uint32_t *sym)
{
    fr_template *t = p->t;
    uint32_t *bucket = &t->buckets[name_bucket(name)];
    for (uint32_t i = *bucket; i; i = t->symbols[i - 1].hash_next)
        if (fr_str_eq(t->symbols[i - 1].name, name)) {
            *sym = i - 1;
            return FR_OK;
        }
    void *items = t->symbols;
    FR_TRY(fr_mem_grow(FR_MEM_TEXT, &items, &t->cap_symbols, t->n_symbols + 1, sizeof *t->symbols,
                       p->err));
    t->symbols = items;
    char *copy = fr_arena_strndup(&t->arena, name.p, name.n, p->err);
    if (!copy)
        return FR_ENOMEM;
    *sym = (uint32_t)t->n_symbols;
    t->symbols[t->n_symbols++] = (tpl_symbol){{copy, name.n}, *bucket};
    *bucket = *sym + 1;
    return FR_OK;
}

fr_status tpl_read_name(tpl_parser *p, tpl_node *n)
{
    if (p->now.kind != TPL_T_NAME)
        return tpl_unexpected(p, "a name");
    FR_TRY(tpl_symbol_of(p, p->now.text, &n->sym));
    FR_TRY(tpl_const_str(p, p->now.text, &n->value));
    return tpl_next(p);
}

/* ---- statements
 * ----------------------------------------------------------------------------------- */

/* The words that may end a body; the one that ends the whole statement is the last. */
#define ENDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* "%}", a body, and "{%" with one of the end words, which becomes the current token. */
static fr_status parse_block_body(tpl_parser *p, const char *const *ends, tpl_node **out)
{
    bool colon;
    FR_TRY(tpl_skip_op(p, ":", &colon));
    if (p->now.kind != TPL_T_BLOCK_END)
        return tpl_unexpected(p, "'%}'");
    FR_TRY(tpl_next(p));
    return parse_body(p, ends, out);
}

static fr_status parse_body_to(tpl_parser *p, const char *end, tpl_node **out)
{
    FR_TRY(parse_block_body(p, ENDS(end), out));
    return tpl_next(p);
}

static fr_status parse_if(tpl_parser *p, tpl_node *n)
{
    tpl_node **tail = &n->a;
    n->kind = TPL_N_IF;
    for (bool more = true; more;) {
        tpl_node *branch;
        FR_TRY(tpl_node_new(p, TPL_N_BRANCH, &branch));
        *tail = branch;
        tail = &branch->next;
        bool is_else = tpl_at_name(p, "else");
        FR_TRY(tpl_next(p)); /* if, elif or else */
        if (is_else)
            return parse_body_to(p, "endif", &branch->b);
        FR_TRY(tpl_parse_tuple(p, TPL_NO_COND, &branch->a));
        FR_TRY(parse_block_body(p, ENDS("elif", "else", "endif"), &branch->b));
        more = !tpl_at_name(p, "endif");
    }
    return tpl_next(p);
}

static fr_status parse_for(tpl_parser *p, tpl_node *n)
{
    bool found;
    n->kind = TPL_N_FOR;
    FR_TRY(tpl_next(p));
    FR_TRY(tpl_parse_target(p, TPL_ENDS_IN, &n->a));
    FR_TRY(tpl_expect_name(p, "in"));
    FR_TRY(tpl_parse_tuple(p, TPL_NO_COND | TPL_ENDS_RECURSIVE, &n->b));
    FR_TRY(tpl_skip_name(p, "if", &found));
    if (found)
        FR_TRY(tpl_parse_expression(p, &n->e));
    FR_TRY(tpl_skip_name(p, "recursive", &n->flag));
    p->loops++;
    FR_TRY(parse_block_body(p, ENDS("else", "endfor"), &n->c));
    p->loops--;
    FR_TRY(tpl_skip_name(p, "endfor", &found));
    if (found)
        return FR_OK;
    FR_TRY(tpl_next(p)); /* else */
    return parse_body_to(p, "endfor", &n->d);
}

static fr_status parse_set(tpl_parser *p, tpl_node *n)
{
    bool assign;
    FR_TRY(tpl_next(p));
    FR_TRY(tpl_parse_target(p, TPL_NSREF, &n->a));
    FR_TRY(tpl_skip_op(p, "=", &assign));
    if (assign) {
        n->kind = TPL_N_SET;
        return tpl_parse_tuple(p, 0, &n->b);
    }
    n->kind = TPL_N_SET_BLOCK;
    FR_TRY(tpl_parse_filters(p, NULL, false, &n->b));
    return parse_body_to(p, "endset", &n->c);
}

/* "(a, b=1)" into n->a. */
static fr_status parse_signature(tpl_parser *p, tpl_node *n)
{
    tpl_node **tail = &n->a;
    bool defaults = false, assign;
    FR_TRY(tpl_expect_op(p, "("));
    while (!tpl_at_op(p, ")")) {
        tpl_node *param;
        if (n->n)
            FR_TRY(tpl_expect_op(p, ","));
        FR_TRY(tpl_node_new(p, TPL_N_PARAM, &param));
        FR_TRY(tpl_read_name(p, param));
        FR_TRY(tpl_skip_op(p, "=", &assign));
        if (assign)
            FR_TRY(tpl_parse_expression(p, &param->a));
        else if (defaults)
            return tpl_fail_at(p->err, FR_EFORMAT, param->line, param->col,
                               "a parameter without default behind one that has one");
        defaults = assign;
        *tail = param;
        tail = &param->next;
        n->n++;
    }
    return tpl_next(p);
}

/* The body of a macro or call block: a scope in which loops outside do not count. */
static fr_status parse_macro_body(tpl_parser *p, const char *end, tpl_node *n)
{
    uint8_t *uses = p->uses;
    int loops = p->loops;
    p->uses = &n->uses;
    p->loops = 0;
    FR_TRY(parse_body_to(p, end, &n->c));
    p->uses = uses;
    p->loops = loops;
    if (uses)
        *uses |= n->uses;
    return FR_OK;
}

static fr_status parse_macro(tpl_parser *p, tpl_node *n)
{
    n->kind = TPL_N_MACRO;
    FR_TRY(tpl_next(p));
    FR_TRY(tpl_read_name(p, n));
    FR_TRY(parse_signature(p, n));
    return parse_macro_body(p, "endmacro", n);
}

static fr_status parse_call_block(tpl_parser *p, tpl_node *n)
{
    n->kind = TPL_N_CALL_BLOCK;
    FR_TRY(tpl_next(p));
    FR_TRY(tpl_const_str(p, FR_STR("caller"), &n->value));
    if (tpl_at_op(p, "("))
        FR_TRY(parse_signature(p, n));
    FR_TRY(tpl_parse_expression(p, &n->b));
    if (n->b->kind != TPL_N_CALL)
        return tpl_fail_at(p->err, FR_EFORMAT, n->b->line, n->b->col,
                           "found no call, expected one");
    return parse_macro_body(p, "endcall", n);
}

static fr_status parse_filter_block(tpl_parser *p, tpl_node *n)
{
    n->kind = TPL_N_FILTER_BLOCK;
    FR_TRY(tpl_next(p));
    FR_TRY(tpl_parse_filters(p, NULL, true, &n->b));
    return parse_body_to(p, "endfilter", &n->c);
}

static fr_status parse_with(tpl_parser *p, tpl_node *n)
{
    tpl_node **tail = &n->a;
    n->kind = TPL_N_WITH;
    FR_TRY(tpl_next(p));
    while (p->now.kind != TPL_T_BLOCK_END) {
        tpl_node *set;
        if (n->a)
            FR_TRY(tpl_expect_op(p, ","));
        FR_TRY(tpl_node_new(p, TPL_N_SET, &set));
        FR_TRY(tpl_parse_target(p, 0, &set->a));
        FR_TRY(tpl_expect_op(p, "="));
        FR_TRY(tpl_parse_expression(p, &set->b));
        *tail = set;
        tail = &set->next;
    }
    return parse_body_to(p, "endwith", &n->c);
}

/* A generation block marks what the model writes; its text passes through. */
static fr_status parse_generation(tpl_parser *p, tpl_node *n)
{
    int loops = p->loops;
    n->kind = TPL_N_SCOPE;
    FR_TRY(tpl_next(p));
    p->loops = 0;
    FR_TRY(parse_body_to(p, "endgeneration", &n->c));
    p->loops = loops;
    return FR_OK;
}

static fr_status parse_jump(tpl_parser *p, tpl_node *n)
{
    n->kind = tpl_at_name(p, "break") ? TPL_N_BREAK : TPL_N_CONTINUE;
    if (p->loops == 0)
        return tpl_unexpected(p, "a loop around it");
    return tpl_next(p);
}

static fr_status parse_print(tpl_parser *p, tpl_node *n)
{
    n->kind = TPL_N_OUTPUT;
    FR_TRY(tpl_next(p));
    return tpl_parse_expression(p, &n->a);
}

static const struct {
    const char *word;
    fr_status (*parse)(tpl_parser *p, tpl_node *n);
} statements[] = {
    {"if", parse_if},           {"for", parse_for},
    {"set", parse_set},         {"macro", parse_macro},
    {"call", parse_call_block}, {"filter", parse_filter_block},
    {"with", parse_with},       {"generation", parse_generation},
    {"break", parse_jump},      {"continue", parse_jump},
    {"print", parse_print},
};

static fr_status fail_unknown_tag(tpl_parser *p)
{
    static const char *const known[] = {"include", "import",     "from", "extends",
                                        "block",   "autoescape", "do",   "trans"};
    const char *words[sizeof statements / sizeof *statements];
    fr_str name = p->now.text;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (fr_str_is(name, known[i]))
            return tpl_fail_at(p->err, FR_EUNSUPPORTED, p->now.line, p->now.col,
                               "the tag '%s' is not supported", known[i]);
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        words[i] = statements[i].word;
    const char *near = fr_nearest_name(name, words, sizeof words / sizeof *words, 2);
    return tpl_fail_at(p->err, FR_EUNSUPPORTED, p->now.line, p->now.col, "unknown tag '%.*s'%s%s%s",
                       FR_STR_ARG(name), near ? ", did you mean '" : "", near ? near : "",
                       near ? "'?" : "");
}

static fr_status parse_statement(tpl_parser *p, tpl_node **out)
{
    if (p->now.kind != TPL_T_NAME)
        return tpl_unexpected(p, "the name of a tag");
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!tpl_at_name(p, statements[i].word))
            continue;
        FR_TRY(tpl_nest(p));
        FR_TRY(tpl_node_new(p, TPL_N_IF, out));
        FR_TRY(statements[i].parse(p, *out));
        p->depth--;
        if (p->now.kind != TPL_T_BLOCK_END)
            return tpl_unexpected(p, "'%}'");
        return tpl_next(p);
    }
    return fail_unknown_tag(p);
}

static bool at_end(const tpl_parser *p, const char *const *ends)
{
    for (; *ends; ends++)
        if (tpl_at_name(p, *ends))
            return true;
    return false;
}

static fr_status parse_output(tpl_parser *p, tpl_node **out)
{
    FR_TRY(tpl_next(p));
    FR_TRY(tpl_node_new(p, TPL_N_OUTPUT, out));
    FR_TRY(tpl_parse_tuple(p, 0, &(*out)->a));
    if (p->now.kind != TPL_T_VAR_END)
        return tpl_unexpected(p, "'}}'");
    return tpl_next(p);
}

static const char *last_of(const char *const *ends)
{
    while (ends[1])
        ends++;
    return ends[0];
}

/* Statements up to "{% END", with END as the current token; or to the end of the template. */
static fr_status parse_body(tpl_parser *p, const char *const *ends, tpl_node **out)
{
    tpl_node **tail = out;
    for (;;) {
        switch (p->now.kind) {
        case TPL_T_EOF:
            return ends[0] ? unexpected_word(p, last_of(ends)) : FR_OK;
        case TPL_T_DATA:
            FR_TRY(tpl_node_new(p, TPL_N_DATA, tail));
            FR_TRY(tpl_const_str(p, p->now.text, &(*tail)->value));
            FR_TRY(tpl_next(p));
            break;
        case TPL_T_VAR_BEGIN:
            FR_TRY(parse_output(p, tail));
            break;
        default:
            FR_TRY(tpl_next(p)); /* only "{%" is left */
            if (at_end(p, ends))
                return FR_OK;
            FR_TRY(parse_statement(p, tail));
            break;
        }
        tail = &(*tail)->next;
    }
}

/* ---- the template
 * --------------------------------------------------------------------------------- */

static fr_status parse_template(fr_template *t, const char *source, size_t n, fr_err *err)
{
    static const char *const fixed[] = {"loop", "caller", "varargs", "kwargs"};
    tpl_parser p = {.t = t, .err = err};
    tpl_node *body = NULL;
    uint32_t sym;
    FR_TRY(tpl_lex_init(&p.lexer, &t->arena, source, n, err));
    for (size_t i = 0; i < TPL_SYM_FIXED; i++)
        FR_TRY(tpl_symbol_of(&p, fr_str_of(fixed[i]), &sym));
    FR_TRY(tpl_next(&p));
    FR_TRY(parse_body(&p, ENDS(NULL), &body));
    t->body = body;
    return FR_OK;
}

fr_status fr_template_parse(const char *source, size_t n, fr_template **out, fr_err *err)
{
    *out = NULL;
    fr_template *t = FR_NEW(fr_template, FR_MEM_TEXT, 1, err);
    if (!t)
        return FR_ENOMEM;
    t->arena = fr_arena_make(FR_MEM_TEXT);
    fr_status st = parse_template(t, source, n, err);
    if (st != FR_OK) {
        fr_template_free(t);
        return st;
    }
    *out = t;
    return FR_OK;
}

void fr_template_free(fr_template *t)
{
    if (!t)
        return;
    fr_arena_free(&t->arena);
    fr_mem_free(t->symbols);
    fr_mem_free(t);
}
