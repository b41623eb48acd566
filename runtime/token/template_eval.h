/* Evaluation: scopes, expressions, statements, and the operations of values.
 *
 * Names are looked up from the innermost frame outwards, then among the globals. A frame belongs to
 * one run of a loop body, macro, call block, filter block, set block or with block; "if" has none.
 */
#ifndef FR_TOKEN_TEMPLATE_EVAL_H
#define FR_TOKEN_TEMPLATE_EVAL_H

#include "token/template_ast.h"
#include "token/template_call.h"

typedef struct {
    uint32_t sym;
    tpl_value value;
} tpl_var;

struct tpl_frame {
    tpl_frame *parent; /* NULL: the globals */
    tpl_var *v;
    size_t n, cap;
};

typedef enum { TPL_FLOW_NORMAL, TPL_FLOW_BREAK, TPL_FLOW_CONTINUE } tpl_flow;

/* What `loop` is. With a filter, items are tested when they are needed, not before. */
struct tpl_loop {
    const tpl_node *node;
    tpl_frame *env; /* around the loop */
    const tpl_value *raw;
    size_t n_raw, i_raw;
    tpl_list passed; /* items that the loop runs over, as far as known */
    size_t index0;
    int depth0;
    tpl_value changed; /* the last argument of loop.changed, a tuple */
};

/* ---- scopes -------------------------------------------------------------------------------------
 */

fr_status tpl_lookup(tpl_run *r, const tpl_frame *f, const tpl_node *name, tpl_value *out);
fr_status tpl_bind(tpl_run *r, tpl_frame *f, uint32_t sym, tpl_value v);

/* ---- evaluation ---------------------------------------------------------------------------------
 */

fr_status tpl_eval(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out);
fr_status tpl_exec(tpl_run *r, tpl_frame *f, const tpl_node *body);

/* Evaluates the chain of arguments `list`; the arrays live in the arena. */
fr_status tpl_eval_args(tpl_run *r, tpl_frame *f, const tpl_node *list, tpl_args *out);

/* Applies one filter or test node to a value. */
fr_status tpl_eval_apply(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value self,
                         tpl_value *out);

/* Runs a loop over `iterable`; depth0 counts recursive loops. */
fr_status tpl_run_loop(tpl_run *r, const tpl_node *n, tpl_frame *env, tpl_value iterable,
                       int depth0);

/* Makes items of the loop known up to number i; *exists says whether there is one. */
fr_status tpl_loop_reach(tpl_run *r, tpl_loop *l, size_t i, bool *exists);

fr_status tpl_call_macro(tpl_run *r, const tpl_macro *m, const tpl_args *args, tpl_value *out);

/* ---- operations (template_ops.c) ----------------------------------------------------------------
 */

fr_status tpl_binary(tpl_run *r, tpl_op op, tpl_value a, tpl_value b, tpl_value *out);
fr_status tpl_contains(tpl_run *r, tpl_value item, tpl_value container, bool *out);
fr_status tpl_negate(tpl_run *r, tpl_value v, tpl_value *out);
fr_status tpl_getattr(tpl_run *r, tpl_value v, tpl_str *name, tpl_value *out);
fr_status tpl_getitem(tpl_run *r, tpl_value v, tpl_value key, tpl_value *out);
fr_status tpl_slice(tpl_run *r, tpl_value v, tpl_value start, tpl_value stop, tpl_value step,
                    tpl_value *out);

/* Attributes of `loop` that are no methods; TPL_MISSING for other names. */
fr_status tpl_loop_attr(tpl_run *r, tpl_loop *l, fr_str name, tpl_value *out);

/* A stable sort of n values by their keys; on success v is in order. */
fr_status tpl_sort(tpl_run *r, tpl_value *v, tpl_value *keys, size_t n, bool reverse);

/* ---- text of values (template_print.c) ----------------------------------------------------------
 */

fr_status tpl_emit_value(tpl_run *r, tpl_value v); /* str() */
fr_status tpl_emit_repr(tpl_run *r, tpl_value v);  /* repr() */
fr_status tpl_to_str(tpl_run *r, tpl_value v, tpl_value *out);

/* repr() of a float into out, as Python writes it: the shortest that reads back the same. */
void tpl_format_float(double f, char out[40]);

typedef struct {
    bool ascii, sort_keys;
    bool pretty;   /* a line each, indented */
    fr_str indent; /* of one level */
    fr_str item_separator, key_separator;
} tpl_json_style;

fr_status tpl_emit_json(tpl_run *r, tpl_value v, const tpl_json_style *style);

/* ---- formatting (template_format.c) -------------------------------------------------------------
 */

/* "format % values": a tuple, one value, or a dictionary for %(name)s. */
fr_status tpl_percent_format(tpl_run *r, fr_str format, tpl_value values, tpl_value *out);

/* str.format */
fr_status tpl_brace_format(tpl_run *r, fr_str format, const tpl_args *args, tpl_value *out);

/* ---- text operations shared by filters and methods (template_text.c)
 * ----------------------------- */

typedef enum {
    TPL_CASE_LOWER,
    TPL_CASE_UPPER,
    TPL_CASE_CAPITAL,
    TPL_CASE_TITLE,
    TPL_CASE_SWAP
} tpl_case;

fr_status tpl_change_case(tpl_run *r, fr_str s, tpl_case how, tpl_value *out);

enum { TPL_LEFT = 1, TPL_RIGHT = 2 };

/* Without white space at the ends: a view of s. */
fr_str tpl_trim(fr_str s, int sides);

/* Without characters of the string `chars` (white space when it is missing or none) at the ends. */
fr_status tpl_strip(tpl_run *r, fr_str s, tpl_value chars, int sides, tpl_value *out);

fr_status tpl_replace(tpl_run *r, fr_str s, fr_str from, fr_str to, int64_t max, tpl_value *out);

/* Byte position of `word` in s at or behind `from`, or SIZE_MAX. */
size_t tpl_find(fr_str s, fr_str word, size_t from);

/* Byte position of the last `word` in s, or SIZE_MAX. */
fr_status tpl_find_last(tpl_run *r, fr_str s, fr_str word, size_t *at);

/* The next line of s from *at, without its end; false when there is none. */
bool tpl_next_line(fr_str s, size_t *at, fr_str *line, fr_str *line_end);

#endif
