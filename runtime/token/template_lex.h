/* Tokens of a template: text between tags, and the words inside them. Applies the white-space
 * rules: trim_blocks, lstrip_blocks, and the signs - and + at the ends of tags. Comments and raw
 * blocks end here; the parser never sees them. */
#ifndef FR_TOKEN_TEMPLATE_LEX_H
#define FR_TOKEN_TEMPLATE_LEX_H

#include "token/template_ast.h"

typedef enum {
    TPL_T_EOF,
    TPL_T_DATA, /* text */
    TPL_T_VAR_BEGIN,
    TPL_T_VAR_END,
    TPL_T_BLOCK_BEGIN,
    TPL_T_BLOCK_END,
    TPL_T_NAME,   /* text */
    TPL_T_STRING, /* text, escapes resolved */
    TPL_T_INT,    /* i */
    TPL_T_FLOAT,  /* f */
    TPL_T_OP      /* text is one of + - / // * % ** ~ [ ] ( ) { } == != > >= < <= = . : | , ; */
} tpl_token_kind;

typedef struct {
    tpl_token_kind kind;
    uint32_t line, col;
    fr_str text;
    int64_t i;
    double f;
} tpl_token;

typedef struct {
    fr_arena *arena;
    fr_err *err;
    fr_str s;  /* the source with \n line ends, in the arena */
    size_t at; /* byte position */
    size_t mark;
    uint32_t mark_line, mark_col; /* position of byte `mark`, to find those of later ones */
    int state;
    bool line_starting, tag_pending;
    char open[TPL_MAX_NESTING]; /* brackets that wait for their end */
    size_t n_open;
} tpl_lexer;

/* Copies the source into the arena. FR_EFORMAT when it is not UTF-8, FR_ERANGE when too long. */
fr_status tpl_lex_init(tpl_lexer *x, fr_arena *arena, const char *source, size_t n, fr_err *err);

fr_status tpl_lex_next(tpl_lexer *x, tpl_token *out);

/* An error at a position, with "template line L, column C: " before the text. */
fr_status tpl_fail_at(fr_err *err, fr_status code, uint32_t line, uint32_t col, const char *fmt,
                      ...) FR_PRINTF(5, 6);

#endif
