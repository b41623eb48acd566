/* The syntax tree of a template. One node type serves all kinds; lists are chains through `next`.
 * Nodes live in the arena of the template and are read only once it is parsed. */
#ifndef FR_TOKEN_TEMPLATE_AST_H
#define FR_TOKEN_TEMPLATE_AST_H

#include "token/template_value.h"

#define TPL_MAX_SOURCE  ((size_t)1 << 20) /* bytes of a template */
#define TPL_MAX_NESTING 150               /* expressions and blocks inside one another */

/* What the fields of a node mean, by kind; [x] is a chain. Fields that are not named are zero. */
typedef enum {
    /* expressions */
    TPL_N_CONST,    /* value */
    TPL_N_NAME,     /* sym, value = the name */
    TPL_N_LIST,     /* a = [items], n */
    TPL_N_TUPLE,    /* a = [items], n; as a target too */
    TPL_N_DICT,     /* a = [PAIR] */
    TPL_N_PAIR,     /* a = key, b = value */
    TPL_N_COND,     /* a = test, b = then, c = else or NULL */
    TPL_N_OR,       /* a, b */
    TPL_N_AND,      /* a, b */
    TPL_N_NOT,      /* a */
    TPL_N_COMPARE,  /* a, b = [OPERAND] */
    TPL_N_OPERAND,  /* op, a */
    TPL_N_BINARY,   /* op, a, b */
    TPL_N_CONCAT,   /* a = [parts] */
    TPL_N_NEG,      /* a */
    TPL_N_POS,      /* a */
    TPL_N_GETATTR,  /* a, value = the name */
    TPL_N_GETITEM,  /* a, b */
    TPL_N_SLICE,    /* a sliced by b, c, d; each may be NULL */
    TPL_N_CALL,     /* a = callee, b = [arguments] */
    TPL_N_FILTER,   /* a = input (NULL in a filter block), b = [arguments], row, value = the name */
    TPL_N_TEST,     /* the same */
    TPL_N_KEYWORD,  /* an argument: sym, value = the name, a */
    TPL_N_STAR,     /* an argument: *a */
    TPL_N_STARSTAR, /* an argument: **a */
    TPL_N_NSREF,    /* as a target: sym, value = the attribute */
    /* statements; every body is a chain */
    TPL_N_DATA,   /* value = the text */
    TPL_N_OUTPUT, /* a */
    TPL_N_IF,     /* a = [BRANCH] */
    TPL_N_BRANCH, /* a = test (NULL: else), b = [body] */
    TPL_N_FOR, /* a = target, b = iterable, c = [body], d = [else], e = filter, flag = recursive */
    TPL_N_SET, /* a = target, b = value */
    TPL_N_SET_BLOCK,    /* a = target, b = filters (innermost first) or NULL, c = [body] */
    TPL_N_MACRO,        /* sym, value = the name, a = [PARAM], c = [body], n = parameters, uses */
    TPL_N_PARAM,        /* sym, value = the name, a = default or NULL */
    TPL_N_CALL_BLOCK,   /* b = the CALL; otherwise as MACRO */
    TPL_N_FILTER_BLOCK, /* b = filters, c = [body] */
    TPL_N_WITH,         /* a = [SET], c = [body] */
    TPL_N_SCOPE,        /* c = [body]: generation blocks */
    TPL_N_BREAK,
    TPL_N_CONTINUE
} tpl_node_kind;

typedef enum {
    TPL_OP_ADD,
    TPL_OP_SUB,
    TPL_OP_MUL,
    TPL_OP_DIV,
    TPL_OP_FLOORDIV,
    TPL_OP_MOD,
    TPL_OP_POW,
    TPL_OP_EQ,
    TPL_OP_NE,
    TPL_OP_LT,
    TPL_OP_LE,
    TPL_OP_GT,
    TPL_OP_GE,
    TPL_OP_IN,
    TPL_OP_NOT_IN
} tpl_op;

/* Names with a meaning inside a macro that mentions them. */
enum { TPL_USES_CALLER = 1, TPL_USES_VARARGS = 2, TPL_USES_KWARGS = 4 };

struct tpl_node {
    uint8_t kind; /* tpl_node_kind */
    uint8_t op;   /* tpl_op */
    uint8_t uses; /* TPL_USES_* */
    bool flag;
    uint32_t line, col; /* from 1; columns in characters */
    uint32_t sym;
    uint32_t n;
    tpl_node *next;
    tpl_node *a, *b, *c, *d, *e;
    const tpl_row *row; /* NULL: no such filter or test, an error once it is evaluated */
    tpl_value value;
};

/* Symbols with a fixed number, in the order in which the parser enters them. */
enum { TPL_SYM_LOOP, TPL_SYM_CALLER, TPL_SYM_VARARGS, TPL_SYM_KWARGS, TPL_SYM_FIXED };

typedef struct {
    fr_str name; /* terminated */
    uint32_t hash_next;
} tpl_symbol;

struct fr_template {
    fr_arena arena;
    const tpl_node *body;
    tpl_symbol *symbols; /* owned */
    size_t n_symbols, cap_symbols;
    uint32_t buckets[256]; /* symbol + 1 */
};

#endif
