#include "token/template_parse.h"

#include <string.h>

#include "token/template_call.h"

/* Operators that chain to the left, weakest first. "~" binds tighter than "+". */
enum { LEVEL_SUM, LEVEL_CONCAT, LEVEL_PRODUCT, LEVEL_POWER, LEVEL_UNARY };

static fr_status parse_unary(tpl_parser *p, bool filters, tpl_node **out);
static fr_status parse_binary(tpl_parser *p, int level, tpl_node **out);
static fr_status parse_or(tpl_parser *p, tpl_node **out);

/* ---- literals -----------------------------------------------------------------------------------
 */

/* Reads "item, item, ... END", END included, with a comma allowed before it. */
static fr_status parse_items(tpl_parser *p, const char *end, bool pairs, tpl_node *list)
{
    tpl_node **tail = &list->a;
    while (!tpl_at_op(p, end)) {
        if (list->n) {
            FR_TRY(tpl_expect_op(p, ","));
            if (tpl_at_op(p, end))
                break;
        }
        tpl_node *item;
        FR_TRY(tpl_parse_expression(p, &item));
        if (pairs) {
            tpl_node *pair;
            FR_TRY(tpl_node_new(p, TPL_N_PAIR, &pair));
            FR_TRY(tpl_expect_op(p, ":"));
            pair->a = item;
            FR_TRY(tpl_parse_expression(p, &pair->b));
            item = pair;
        }
        *tail = item;
        tail = &item->next;
        list->n++;
    }
    return tpl_next(p);
}

/* Strings that stand side by side are one. */
static fr_status parse_strings(tpl_parser *p, tpl_node *n)
{
    fr_str s = p->now.text;
    FR_TRY(tpl_next(p));
    while (p->now.kind == TPL_T_STRING) {
        char *both = fr_arena_alloc(&p->t->arena, s.n + p->now.text.n + 1, 1, p->err);
        if (!both)
            return FR_ENOMEM;
        memcpy(both, s.p, s.n);
        memcpy(both + s.n, p->now.text.p, p->now.text.n);
        s = (fr_str){both, s.n + p->now.text.n};
        FR_TRY(tpl_next(p));
    }
    return tpl_const_str(p, s, &n->value);
}

static bool constant_name(fr_str name, tpl_value *out)
{
    if (fr_str_is(name, "true") || fr_str_is(name, "True"))
        *out = tpl_bool(true);
    else if (fr_str_is(name, "false") || fr_str_is(name, "False"))
        *out = tpl_bool(false);
    else if (fr_str_is(name, "none") || fr_str_is(name, "None"))
        *out = tpl_none();
    else
        return false;
    return true;
}

static fr_status parse_name(tpl_parser *p, int how, tpl_node *n)
{
    if (constant_name(p->now.text, &n->value))
        return tpl_next(p);
    n->kind = TPL_N_NAME;
    FR_TRY(tpl_read_name(p, n));
    if (p->uses && n->sym >= TPL_SYM_CALLER && n->sym <= TPL_SYM_KWARGS)
        *p->uses |= (uint8_t)(1 << (n->sym - TPL_SYM_CALLER));
    if (!(how & TPL_NSREF) || !tpl_at_op(p, "."))
        return FR_OK;
    uint32_t sym = n->sym;
    n->kind = TPL_N_NSREF;
    FR_TRY(tpl_next(p));
    FR_TRY(tpl_read_name(p, n));
    n->sym = sym;
    return FR_OK;
}

static fr_status parse_primary(tpl_parser *p, int how, tpl_node **out)
{
    tpl_node *n;
    FR_TRY(tpl_node_new(p, TPL_N_CONST, &n));
    *out = n;
    switch (p->now.kind) {
    case TPL_T_NAME:
        return parse_name(p, how, n);
    case TPL_T_STRING:
        return parse_strings(p, n);
    case TPL_T_INT:
        n->value = tpl_int(p->now.i);
        return tpl_next(p);
    case TPL_T_FLOAT:
        n->value = tpl_float(p->now.f);
        return tpl_next(p);
    default:
        break;
    }
    if (tpl_at_op(p, "(")) {
        FR_TRY(tpl_next(p));
        FR_TRY(tpl_parse_tuple(p, TPL_PARENS, out));
        return tpl_expect_op(p, ")");
    }
    if (tpl_at_op(p, "[")) {
        n->kind = TPL_N_LIST;
        FR_TRY(tpl_next(p));
        return parse_items(p, "]", false, n);
    }
    if (tpl_at_op(p, "{")) {
        n->kind = TPL_N_DICT;
        FR_TRY(tpl_next(p));
        return parse_items(p, "}", true, n);
    }
    return tpl_unexpected(p, "an expression");
}

static bool tuple_ends(const tpl_parser *p, int how)
{
    return p->now.kind == TPL_T_VAR_END || p->now.kind == TPL_T_BLOCK_END || tpl_at_op(p, ")") ||
           ((how & TPL_ENDS_IN) && tpl_at_name(p, "in")) ||
           ((how & TPL_ENDS_RECURSIVE) && tpl_at_name(p, "recursive"));
}

static fr_status parse_one(tpl_parser *p, int how, tpl_node **out)
{
    if (how & TPL_SIMPLE)
        return parse_primary(p, how & TPL_NSREF, out);
    if (how & TPL_NO_COND)
        return parse_or(p, out);
    return tpl_parse_expression(p, out);
}

fr_status tpl_parse_tuple(tpl_parser *p, int how, tpl_node **out)
{
    tpl_node *tuple, **tail;
    bool commas = false;
    FR_TRY(tpl_node_new(p, TPL_N_TUPLE, &tuple));
    tail = &tuple->a;
    while (!tuple_ends(p, how)) {
        FR_TRY(parse_one(p, how, tail));
        tail = &(*tail)->next;
        tuple->n++;
        bool comma;
        FR_TRY(tpl_skip_op(p, ",", &comma));
        commas |= comma;
        if (!comma)
            break;
    }
    if (!commas && tuple->n == 0 && !(how & TPL_PARENS))
        return tpl_unexpected(p, "an expression");
    *out = !commas && tuple->n == 1 ? tuple->a : tuple;
    return FR_OK;
}

static fr_status check_target(tpl_parser *p, const tpl_node *n)
{
    if (n->kind == TPL_N_NAME || n->kind == TPL_N_NSREF)
        return FR_OK;
    if (n->kind != TPL_N_TUPLE)
        return tpl_fail_at(p->err, FR_EFORMAT, n->line, n->col,
                           "found an expression, expected a name to assign to");
    for (const tpl_node *i = n->a; i; i = i->next)
        FR_TRY(check_target(p, i));
    return FR_OK;
}

fr_status tpl_parse_target(tpl_parser *p, int how, tpl_node **out)
{
    FR_TRY(tpl_parse_tuple(p, TPL_SIMPLE | how, out));
    return check_target(p, *out);
}

/* ---- calls, subscripts, filters, tests
 * ----------------------------------------------------------- */

static fr_status parse_argument(tpl_parser *p, tpl_node **out, int *phase)
{
    tpl_node *n;
    int kind =
        0; /* 0 positional, 1 keyword, 2 *list, 3 **dict: never backwards, the last two once */
    FR_TRY(tpl_node_new(p, TPL_N_KEYWORD, &n));
    if (tpl_at_op(p, "*") || tpl_at_op(p, "**")) {
        kind = tpl_at_op(p, "*") ? 2 : 3;
        n->kind = kind == 2 ? TPL_N_STAR : TPL_N_STARSTAR;
        FR_TRY(tpl_next(p));
    } else if (p->now.kind == TPL_T_NAME) {
        FR_TRY(tpl_look(p));
        if (p->ahead.kind == TPL_T_OP && fr_str_is(p->ahead.text, "=")) {
            kind = 1;
            FR_TRY(tpl_read_name(p, n));
            FR_TRY(tpl_next(p));
        }
    }
    bool allowed = kind > *phase || (kind == *phase && kind < 2) || (kind == 1 && *phase == 2);
    if (!allowed)
        return tpl_fail_at(
            p->err, FR_EFORMAT, n->line, n->col,
            "an argument at a wrong place: expected values, then names, *list, **dict");
    *phase = kind > *phase ? kind : *phase;
    if (kind == 0)
        return tpl_parse_expression(p, out);
    *out = n;
    return tpl_parse_expression(p, &n->a);
}

/* "(a, b=c, *d, **e)" into a chain. */
static fr_status parse_arguments(tpl_parser *p, tpl_node **tail)
{
    int phase = 0;
    bool first = true;
    FR_TRY(tpl_expect_op(p, "("));
    while (!tpl_at_op(p, ")")) {
        if (!first) {
            FR_TRY(tpl_expect_op(p, ","));
            if (tpl_at_op(p, ")"))
                break;
        }
        first = false;
        FR_TRY(parse_argument(p, tail, &phase));
        tail = &(*tail)->next;
    }
    return tpl_next(p);
}

static fr_status parse_call(tpl_parser *p, tpl_node **node)
{
    tpl_node *call;
    FR_TRY(tpl_node_new(p, TPL_N_CALL, &call));
    call->a = *node;
    *node = call;
    return parse_arguments(p, &call->b);
}

static bool subscript_ends(const tpl_parser *p)
{
    return tpl_at_op(p, ":") || tpl_at_op(p, "]") || tpl_at_op(p, ",");
}

/* Inside the brackets: an expression into n->b, or a slice, which makes n one. */
static fr_status parse_slice(tpl_parser *p, tpl_node *n)
{
    tpl_node **part[] = {&n->b, &n->c, &n->d};
    if (!tpl_at_op(p, ":"))
        FR_TRY(tpl_parse_expression(p, &n->b));
    for (int i = 1; i < 3 && tpl_at_op(p, ":"); i++) {
        n->kind = TPL_N_SLICE;
        FR_TRY(tpl_next(p));
        if (!subscript_ends(p))
            FR_TRY(tpl_parse_expression(p, part[i]));
    }
    return FR_OK;
}

/* "[a, b]": a tuple as the key; n->b holds its first item. */
static fr_status parse_tuple_key(tpl_parser *p, tpl_node *n)
{
    tpl_node *tuple, **tail = &n->b->next;
    if (n->kind == TPL_N_SLICE)
        return tpl_unexpected(p, "']' behind a slice");
    FR_TRY(tpl_node_new(p, TPL_N_TUPLE, &tuple));
    tuple->a = n->b;
    n->b = tuple;
    tuple->n = 1;
    while (tpl_at_op(p, ",")) {
        FR_TRY(tpl_next(p));
        FR_TRY(tpl_parse_expression(p, tail));
        tail = &(*tail)->next;
        tuple->n++;
    }
    return FR_OK;
}

static fr_status parse_subscript(tpl_parser *p, tpl_node **node)
{
    tpl_node *n;
    FR_TRY(tpl_node_new(p, TPL_N_GETITEM, &n));
    n->a = *node;
    *node = n;
    bool dot = tpl_at_op(p, ".");
    FR_TRY(tpl_next(p));
    if (!dot) {
        FR_TRY(parse_slice(p, n));
        if (tpl_at_op(p, ","))
            FR_TRY(parse_tuple_key(p, n));
        return tpl_expect_op(p, "]");
    }
    if (p->now.kind == TPL_T_NAME) {
        n->kind = TPL_N_GETATTR;
        return tpl_read_name(p, n);
    }
    if (p->now.kind != TPL_T_INT)
        return tpl_unexpected(p, "a name or number");
    FR_TRY(tpl_node_new(p, TPL_N_CONST, &n->b));
    n->b->value = tpl_int(p->now.i);
    return tpl_next(p);
}

static fr_status parse_postfix(tpl_parser *p, tpl_node **node)
{
    for (;;) {
        if (tpl_at_op(p, ".") || tpl_at_op(p, "["))
            FR_TRY(parse_subscript(p, node));
        else if (tpl_at_op(p, "("))
            FR_TRY(parse_call(p, node));
        else
            return FR_OK;
    }
}

/* The name of a filter or test; none that is built in has dots, but the grammar allows them. */
static fr_status read_dotted_name(tpl_parser *p, tpl_node *n)
{
    FR_TRY(tpl_read_name(p, n));
    while (tpl_at_op(p, ".")) {
        fr_str first = tpl_text(n->value);
        FR_TRY(tpl_next(p));
        FR_TRY(tpl_read_name(p, n));
        fr_str last = tpl_text(n->value);
        char *both = fr_arena_alloc(&p->t->arena, first.n + last.n + 2, 1, p->err);
        if (!both)
            return FR_ENOMEM;
        memcpy(both, first.p, first.n);
        both[first.n] = '.';
        memcpy(both + first.n + 1, last.p, last.n);
        FR_TRY(tpl_const_str(p, (fr_str){both, first.n + 1 + last.n}, &n->value));
    }
    return FR_OK;
}

fr_status tpl_parse_filters(tpl_parser *p, tpl_node *input, bool inline_first, tpl_node **out)
{
    while (inline_first || tpl_at_op(p, "|")) {
        tpl_node *n;
        if (!inline_first)
            FR_TRY(tpl_next(p));
        FR_TRY(tpl_node_new(p, TPL_N_FILTER, &n));
        FR_TRY(read_dotted_name(p, n));
        n->row = tpl_find_row(&tpl_filters, tpl_text(n->value));
        n->a = input;
        if (tpl_at_op(p, "("))
            FR_TRY(parse_arguments(p, &n->b));
        input = n;
        inline_first = false;
    }
    *out = input;
    return FR_OK;
}

/* Whether an argument without parentheses follows a test: "x is divisibleby 3". */
static bool bare_argument(const tpl_parser *p)
{
    switch (p->now.kind) {
    case TPL_T_NAME:
        return !tpl_at_name(p, "else") && !tpl_at_name(p, "or") && !tpl_at_name(p, "and");
    case TPL_T_STRING:
    case TPL_T_INT:
    case TPL_T_FLOAT:
        return true;
    default:
        return tpl_at_op(p, "[") || tpl_at_op(p, "{");
    }
}

static fr_status parse_test(tpl_parser *p, tpl_node **node)
{
    tpl_node *n, *not_node = NULL;
    FR_TRY(tpl_next(p)); /* is */
    if (tpl_at_name(p, "not")) {
        FR_TRY(tpl_node_new(p, TPL_N_NOT, &not_node));
        FR_TRY(tpl_next(p));
    }
    FR_TRY(tpl_node_new(p, TPL_N_TEST, &n));
    FR_TRY(read_dotted_name(p, n));
    n->row = tpl_find_row(&tpl_tests, tpl_text(n->value));
    n->a = *node;
    if (tpl_at_op(p, "(")) {
        FR_TRY(parse_arguments(p, &n->b));
    } else if (bare_argument(p)) {
        if (tpl_at_name(p, "is"))
            return tpl_unexpected(p, "'and' or 'or' between two tests");
        FR_TRY(parse_primary(p, 0, &n->b));
        FR_TRY(parse_postfix(p, &n->b));
    }
    *node = n;
    if (not_node) {
        not_node->a = n;
        *node = not_node;
    }
    return FR_OK;
}

static fr_status parse_filters_and_tests(tpl_parser *p, tpl_node **node)
{
    for (;;) {
        if (tpl_at_op(p, "|"))
            FR_TRY(tpl_parse_filters(p, *node, false, node));
        else if (tpl_at_name(p, "is"))
            FR_TRY(parse_test(p, node));
        else if (tpl_at_op(p, "("))
            FR_TRY(parse_call(p, node));
        else
            return FR_OK;
    }
}

/* ---- operators
 * ----------------------------------------------------------------------------------- */

static fr_status parse_unary_in(tpl_parser *p, bool filters, tpl_node **out)
{
    tpl_node *n;
    if (tpl_at_op(p, "-") || tpl_at_op(p, "+")) {
        FR_TRY(tpl_node_new(p, tpl_at_op(p, "-") ? TPL_N_NEG : TPL_N_POS, &n));
        FR_TRY(tpl_next(p));
        FR_TRY(parse_unary(p, false, &n->a));
    } else {
        FR_TRY(parse_primary(p, 0, &n));
    }
    FR_TRY(parse_postfix(p, &n));
    if (filters)
        FR_TRY(parse_filters_and_tests(p, &n));
    *out = n;
    return FR_OK;
}

static fr_status parse_unary(tpl_parser *p, bool filters, tpl_node **out)
{
    FR_TRY(tpl_nest(p));
    fr_status st = parse_unary_in(p, filters, out);
    p->depth--;
    return st;
}

static bool binary_op(const tpl_parser *p, int level, uint8_t *op)
{
    static const struct {
        const char *text;
        int level, op;
    } ops[] = {
        {"+", LEVEL_SUM, TPL_OP_ADD},     {"-", LEVEL_SUM, TPL_OP_SUB},
        {"~", LEVEL_CONCAT, 0},           {"*", LEVEL_PRODUCT, TPL_OP_MUL},
        {"/", LEVEL_PRODUCT, TPL_OP_DIV}, {"//", LEVEL_PRODUCT, TPL_OP_FLOORDIV},
        {"%", LEVEL_PRODUCT, TPL_OP_MOD}, {"**", LEVEL_POWER, TPL_OP_POW},
    };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i].level == level && tpl_at_op(p, ops[i].text)) {
            *op = (uint8_t)ops[i].op;
            return true;
        }
    return false;
}

/* The second part of a concatenation makes the node, later ones only join its chain. */
static fr_status parse_concat(tpl_parser *p, tpl_node **out)
{
    tpl_node *concat, **tail;
    FR_TRY(tpl_node_new(p, TPL_N_CONCAT, &concat));
    concat->a = *out;
    tail = &concat->a->next;
    while (tpl_at_op(p, "~")) {
        FR_TRY(tpl_next(p));
        FR_TRY(parse_binary(p, LEVEL_CONCAT + 1, tail));
        tail = &(*tail)->next;
    }
    *out = concat;
    return FR_OK;
}

static fr_status parse_binary(tpl_parser *p, int level, tpl_node **out)
{
    if (level == LEVEL_UNARY)
        return parse_unary(p, true, out);
    uint8_t op;
    FR_TRY(parse_binary(p, level + 1, out));
    while (binary_op(p, level, &op)) {
        if (level == LEVEL_CONCAT)
            return parse_concat(p, out);
        tpl_node *n;
        FR_TRY(tpl_node_new(p, TPL_N_BINARY, &n));
        FR_TRY(tpl_next(p));
        n->op = op;
        n->a = *out;
        FR_TRY(parse_binary(p, level + 1, &n->b));
        *out = n;
    }
    return FR_OK;
}

/* Whether a comparison follows; "not in" is the one of two words. */
static fr_status compare_op(tpl_parser *p, uint8_t *op, bool *found)
{
    static const struct {
        const char *text;
        int op;
    } ops[] = {{"==", TPL_OP_EQ}, {"!=", TPL_OP_NE}, {"<", TPL_OP_LT},
               {"<=", TPL_OP_LE}, {">", TPL_OP_GT},  {">=", TPL_OP_GE}};
    *found = true;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (tpl_at_op(p, ops[i].text)) {
            *op = (uint8_t)ops[i].op;
            return FR_OK;
        }
    *op = TPL_OP_IN;
    if (tpl_at_name(p, "in"))
        return FR_OK;
    *op = TPL_OP_NOT_IN;
    *found = tpl_at_name(p, "not");
    if (!*found)
        return FR_OK;
    FR_TRY(tpl_look(p));
    *found = p->ahead.kind == TPL_T_NAME && fr_str_is(p->ahead.text, "in");
    return FR_OK;
}

static fr_status parse_compare(tpl_parser *p, tpl_node **out)
{
    tpl_node *compare = NULL, **tail = NULL;
    uint8_t op;
    bool found;
    FR_TRY(parse_binary(p, LEVEL_SUM, out));
    for (;;) {
        FR_TRY(compare_op(p, &op, &found));
        if (!found)
            return FR_OK;
        if (!compare) {
            FR_TRY(tpl_node_new(p, TPL_N_COMPARE, &compare));
            compare->a = *out;
            tail = &compare->b;
            *out = compare;
        }
        tpl_node *operand;
        FR_TRY(tpl_node_new(p, TPL_N_OPERAND, &operand));
        operand->op = op;
        FR_TRY(tpl_next(p));
        if (op == TPL_OP_NOT_IN)
            FR_TRY(tpl_next(p));
        FR_TRY(parse_binary(p, LEVEL_SUM, &operand->a));
        *tail = operand;
        tail = &operand->next;
    }
}

static fr_status parse_not(tpl_parser *p, tpl_node **out)
{
    if (!tpl_at_name(p, "not"))
        return parse_compare(p, out);
    tpl_node *n;
    FR_TRY(tpl_node_new(p, TPL_N_NOT, &n));
    FR_TRY(tpl_next(p));
    *out = n;
    FR_TRY(tpl_nest(p));
    FR_TRY(parse_not(p, &n->a));
    p->depth--;
    return FR_OK;
}

static fr_status parse_and(tpl_parser *p, tpl_node **out)
{
    FR_TRY(parse_not(p, out));
    while (tpl_at_name(p, "and")) {
        tpl_node *n;
        FR_TRY(tpl_node_new(p, TPL_N_AND, &n));
        FR_TRY(tpl_next(p));
        n->a = *out;
        FR_TRY(parse_not(p, &n->b));
        *out = n;
    }
    return FR_OK;
}

static fr_status parse_or(tpl_parser *p, tpl_node **out)
{
    FR_TRY(parse_and(p, out));
    while (tpl_at_name(p, "or")) {
        tpl_node *n;
        FR_TRY(tpl_node_new(p, TPL_N_OR, &n));
        FR_TRY(tpl_next(p));
        n->a = *out;
        FR_TRY(parse_and(p, &n->b));
        *out = n;
    }
    return FR_OK;
}

fr_status tpl_parse_expression(tpl_parser *p, tpl_node **out)
{
    FR_TRY(tpl_nest(p));
    FR_TRY(parse_or(p, out));
    while (tpl_at_name(p, "if")) {
        tpl_node *n;
        bool has_else;
        FR_TRY(tpl_node_new(p, TPL_N_COND, &n));
        FR_TRY(tpl_next(p));
        n->b = *out;
        FR_TRY(parse_or(p, &n->a));
        FR_TRY(tpl_skip_name(p, "else", &has_else));
        if (has_else)
            FR_TRY(tpl_parse_expression(p, &n->c));
        *out = n;
    }
    p->depth--;
    return FR_OK;
}
