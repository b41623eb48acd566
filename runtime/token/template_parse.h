/* The parser's state, shared by statements (template_parse.c) and expressions (template_expr.c). */
#ifndef FR_TOKEN_TEMPLATE_PARSE_H
#define FR_TOKEN_TEMPLATE_PARSE_H

#include "token/template_lex.h"

typedef struct {
    fr_template *t;
    fr_err *err;
    tpl_lexer lexer;
    tpl_token now, ahead; /* the token to be read next, and the one behind it */
    bool has_ahead;
    int depth;
    int loops;     /* loops around this place, inside the innermost macro */
    uint8_t *uses; /* TPL_USES_* of the innermost macro, or NULL */
} tpl_parser;

/* ---- tokens ------------------------------------------------------------------------------------
 */

fr_status tpl_next(tpl_parser *p); /* p->now becomes the next token */
fr_status tpl_look(tpl_parser *p); /* fills p->ahead */
bool tpl_at_name(const tpl_parser *p, const char *name);
bool tpl_at_op(const tpl_parser *p, const char *op);
fr_status tpl_skip_name(tpl_parser *p, const char *name, bool *skipped);
fr_status tpl_skip_op(tpl_parser *p, const char *op, bool *skipped);
fr_status tpl_expect_name(tpl_parser *p, const char *name);
fr_status tpl_expect_op(tpl_parser *p, const char *op);

/* "found X, expected Y" at the current token. */
fr_status tpl_unexpected(tpl_parser *p, const char *expected);

/* Guards recursion. */
fr_status tpl_nest(tpl_parser *p);

/* ---- nodes -------------------------------------------------------------------------------------
 */

/* A node at the position of the current token. */
fr_status tpl_node_new(tpl_parser *p, tpl_node_kind kind, tpl_node **out);

/* A string constant of the template. */
fr_status tpl_const_str(tpl_parser *p, fr_str s, tpl_value *out);

/* Reads a name token into n->sym and n->value. */
fr_status tpl_read_name(tpl_parser *p, tpl_node *n);
fr_status tpl_symbol_of(tpl_parser *p, fr_str name, uint32_t *sym);

/* ---- expressions -------------------------------------------------------------------------------
 */

enum {
    TPL_NO_COND = 1, /* "a if b" is not part of it */
    TPL_SIMPLE = 2,  /* names and literals only: targets */
    TPL_NSREF = 4,   /* a target may be name.attribute */
    TPL_ENDS_IN = 8, /* the word "in" ends it */
    TPL_ENDS_RECURSIVE = 16,
    TPL_PARENS = 32 /* in parentheses: may be empty */
};

fr_status tpl_parse_expression(tpl_parser *p, tpl_node **out);

/* One expression, or several with commas between them as a tuple. */
fr_status tpl_parse_tuple(tpl_parser *p, int how, tpl_node **out);

/* What may stand left of "=": a name, a tuple of targets, name.attribute with TPL_NSREF. */
fr_status tpl_parse_target(tpl_parser *p, int how, tpl_node **out);

/* "| name(args) | ..." over `input`; with `inline_first` the first has no bar. */
fr_status tpl_parse_filters(tpl_parser *p, tpl_node *input, bool inline_first, tpl_node **out);

#endif
