/* Calls: tables of the filters, tests, functions and methods that are built in, and how arguments
 * find their parameters. A new one is a function and a row. */
#ifndef FR_TOKEN_TEMPLATE_CALL_H
#define FR_TOKEN_TEMPLATE_CALL_H

#include "token/template_value.h"

enum { TPL_MAX_PARAMS = 6 };

typedef struct {
    fr_str name;
    tpl_value value;
} tpl_kwarg;

/* What a call passes. */
typedef struct {
    const tpl_value *pos;
    size_t n_pos;
    const tpl_kwarg *kw;
    size_t n_kw;
} tpl_args;

/* What a built-in gets: one value a parameter (TPL_MISSING when not passed), and what was left
 * over. */
typedef struct {
    tpl_value a[TPL_MAX_PARAMS];
    const tpl_value *rest;
    size_t n_rest;
    const tpl_kwarg *kw;
    size_t n_kw;
} tpl_call;

struct tpl_row {
    const char *name;
    fr_status (*fn)(tpl_run *r, tpl_call *c, tpl_value *out);
    /* The parameters by name: "!" behind one that must be passed; "*" takes further values, "**"
     * further names. Filters, tests and methods get what they apply to as the first. */
    const char *params;
};

typedef struct {
    const char *what; /* "filter", for error texts */
    const tpl_row *rows;
    size_t n;
} tpl_table;

extern const tpl_table tpl_filters, tpl_tests, tpl_functions;
extern const tpl_table tpl_str_methods, tpl_list_methods, tpl_tuple_methods, tpl_dict_methods,
    tpl_loop_methods, tpl_cycler_methods;

/* NULL when the table has no such row. */
const tpl_row *tpl_find_row(const tpl_table *t, fr_str name);

/* FR_EUNSUPPORTED, naming the nearest row. */
fr_status tpl_fail_unknown(tpl_run *r, const tpl_table *t, fr_str name);

/* The method `name` of v, or NULL. */
const tpl_row *tpl_find_method(tpl_value v, fr_str name);

/* Calls a row; `self` is NULL for functions. */
fr_status tpl_invoke(tpl_run *r, const tpl_row *row, const tpl_value *self, const tpl_args *args,
                     tpl_value *out);

/* Applies the filter or test of that name; used by map, select and their kin. */
fr_status tpl_apply(tpl_run *r, const tpl_table *t, tpl_value name, tpl_value self,
                    const tpl_args *args, tpl_value *out);

/* Calls any callable value. */
fr_status tpl_call_value(tpl_run *r, tpl_value callee, const tpl_args *args, tpl_value *out);

/* ---- reading arguments -------------------------------------------------------------------------
 */

/* Each takes `fallback` when the argument was not passed, and fails when it has another type. */
fr_status tpl_arg_int(tpl_run *r, tpl_value v, int64_t fallback, int64_t *out);
fr_status tpl_arg_str(tpl_run *r, tpl_value v, const char *fallback, fr_str *out);
bool tpl_arg_bool(tpl_value v, bool fallback);

/* Whether the argument was passed and is not none. */
bool tpl_given(tpl_value v);

#endif
