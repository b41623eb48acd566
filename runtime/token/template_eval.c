#include "token/template_eval.h"

/* ---- scopes
 * -------------------------------------------------------------------------------------- */

fr_status tpl_lookup(tpl_run *r, const tpl_frame *f, const tpl_node *name, tpl_value *out)
{
    const tpl_value *found = &r->globals[name->sym];
    for (bool more = true; f && more; f = f->parent)
        for (size_t i = 0; i < f->n && more; i++)
            if (f->v[i].sym == name->sym) {
                found = &f->v[i].value;
                more = false;
            }
    *out = *found;
    if (out->kind == TPL_MISSING) {
        *out = tpl_undefined();
        out->sub = TPL_UNDEF_NAME;
        out->u.s = name->value.u.s;
    }
    return FR_OK;
}

fr_status tpl_bind(tpl_run *r, tpl_frame *f, uint32_t sym, tpl_value v)
{
    if (!f) {
        r->globals[sym] = v;
        return FR_OK;
    }
    for (size_t i = 0; i < f->n; i++)
        if (f->v[i].sym == sym) {
            f->v[i].value = v;
            return FR_OK;
        }
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 4;
        tpl_var *vars = TPL_NEW(tpl_var, r, cap);
        if (!vars)
            return FR_ENOMEM;
        for (size_t i = 0; i < f->n; i++)
            vars[i] = f->v[i];
        f->v = vars;
        f->cap = cap;
    }
    f->v[f->n++] = (tpl_var){sym, v};
    return FR_OK;
}

/* ---- literals
 * ------------------------------------------------------------------------------------- */

static fr_status eval_list(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value list;
    FR_TRY(tpl_list_new(r, n->kind == TPL_N_LIST ? TPL_LIST : TPL_TUPLE, n->n, &list));
    for (const tpl_node *i = n->a; i; i = i->next) {
        tpl_value v;
        FR_TRY(tpl_eval(r, f, i, &v));
        FR_TRY(tpl_list_push(r, list.u.l, v));
    }
    *out = list;
    return FR_OK;
}

static fr_status eval_dict(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value dict;
    FR_TRY(tpl_dict_new(r, TPL_DICT, &dict));
    for (const tpl_node *i = n->a; i; i = i->next) {
        tpl_value key, value;
        FR_TRY(tpl_eval(r, f, i->a, &key));
        FR_TRY(tpl_eval(r, f, i->b, &value));
        FR_TRY(tpl_dict_set(r, dict.u.d, key, value));
    }
    *out = dict;
    return FR_OK;
}

static fr_status eval_concat(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value all, v;
    FR_TRY(tpl_eval(r, f, n->a, &all));
    FR_TRY(tpl_to_str(r, all, &all));
    for (const tpl_node *i = n->a->next; i; i = i->next) {
        FR_TRY(tpl_eval(r, f, i, &v));
        FR_TRY(tpl_to_str(r, v, &v));
        FR_TRY(tpl_str_concat(r, all, v, &all));
    }
    *out = all;
    return FR_OK;
}

/* ---- logic
 * ---------------------------------------------------------------------------------------- */

static fr_status eval_logic(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    FR_TRY(tpl_eval(r, f, n->a, out));
    if (n->kind == TPL_N_NOT)
        *out = tpl_bool(!tpl_truthy(*out));
    else if (tpl_truthy(*out) == (n->kind == TPL_N_AND))
        return tpl_eval(r, f, n->b, out);
    return FR_OK;
}

static fr_status eval_cond(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    FR_TRY(tpl_eval(r, f, n->a, out));
    if (tpl_truthy(*out))
        return tpl_eval(r, f, n->b, out);
    if (n->c)
        return tpl_eval(r, f, n->c, out);
    *out = tpl_undefined();
    return FR_OK;
}

/* a < b < c holds when each neighbour pair does; later operands are not evaluated once one fails.
 */
static fr_status eval_compare(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value left, right;
    FR_TRY(tpl_eval(r, f, n->a, &left));
    for (const tpl_node *o = n->b; o; o = o->next) {
        FR_TRY(tpl_eval(r, f, o->a, &right));
        r->line = o->line;
        r->col = o->col;
        FR_TRY(tpl_binary(r, (tpl_op)o->op, left, right, out));
        if (!out->u.b)
            break;
        left = right;
    }
    return FR_OK;
}

/* ---- access
 * --------------------------------------------------------------------------------------- */

static fr_status eval_slice(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value v, part[3] = {tpl_none(), tpl_none(), tpl_none()};
    const tpl_node *at[3] = {n->b, n->c, n->d};
    FR_TRY(tpl_eval(r, f, n->a, &v));
    for (int i = 0; i < 3; i++)
        if (at[i])
            FR_TRY(tpl_eval(r, f, at[i], &part[i]));
    r->line = n->line;
    r->col = n->col;
    return tpl_slice(r, v, part[0], part[1], part[2], out);
}

static fr_status eval_two(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value a, b;
    FR_TRY(tpl_eval(r, f, n->a, &a));
    FR_TRY(tpl_eval(r, f, n->b, &b));
    r->line = n->line;
    r->col = n->col;
    if (n->kind == TPL_N_GETITEM)
        return tpl_getitem(r, a, b, out);
    return tpl_binary(r, (tpl_op)n->op, a, b, out);
}

static fr_status eval_one(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value a;
    FR_TRY(tpl_eval(r, f, n->a, &a));
    r->line = n->line;
    r->col = n->col;
    if (n->kind == TPL_N_GETATTR)
        return tpl_getattr(r, a, n->value.u.s, out);
    if (n->kind == TPL_N_NEG)
        return tpl_negate(r, a, out);
    if (a.kind == TPL_UNDEFINED)
        return tpl_fail_undefined(r, a);
    if (!tpl_is_number(a))
        return tpl_fail(r, FR_EINVAL, "bad operand type for unary +: '%s'", tpl_type_name(a));
    *out = a.kind == TPL_BOOL ? tpl_int(a.u.b) : a;
    return FR_OK;
}

/* ---- calls
 * ---------------------------------------------------------------------------------------- */

static size_t count_kind(const tpl_node *list, tpl_node_kind kind)
{
    size_t n = 0;
    for (; list; list = list->next)
        n += list->kind == kind;
    return n;
}

/* The values of *list and **dict arguments behind those that are there. */
static fr_status spread(tpl_run *r, tpl_value v, bool names, tpl_value *pos, tpl_kwarg *kw,
                        tpl_args *out)
{
    if (names) {
        for (size_t i = 0; i < v.u.d->n; i++) {
            tpl_value key = v.u.d->v[i].key;
            if (key.kind != TPL_STR)
                return tpl_fail(r, FR_EINVAL, "keywords must be strings");
            kw[out->n_kw++] = (tpl_kwarg){tpl_text(key), v.u.d->v[i].value};
        }
        return FR_OK;
    }
    const tpl_value *items;
    size_t n;
    FR_TRY(tpl_items(r, v, &items, &n));
    for (size_t i = 0; i < n; i++)
        pos[out->n_pos++] = items[i];
    return FR_OK;
}

static fr_status spread_size(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *v,
                             size_t *size)
{
    FR_TRY(tpl_eval(r, f, n->a, v));
    if (n->kind == TPL_N_STARSTAR) {
        if (v->kind != TPL_DICT)
            return tpl_fail(r, FR_EINVAL, "argument after ** must be a mapping, not '%s'",
                            tpl_type_name(*v));
        *size = v->u.d->n;
        return FR_OK;
    }
    const tpl_value *items;
    FR_TRY(tpl_items(r, *v, &items, size)); /* as a list, so that a generator is read once */
    return tpl_list_copy(r, TPL_LIST, items, *size, v);
}

fr_status tpl_eval_args(tpl_run *r, tpl_frame *f, const tpl_node *list, tpl_args *out)
{
    *out = (tpl_args){0};
    if (!list)
        return FR_OK;
    tpl_value star = {0}, starstar = {0};
    size_t n_star = 0, n_starstar = 0, n_kw = count_kind(list, TPL_N_KEYWORD), n_pos = 0;
    for (const tpl_node *i = list; i; i = i->next) {
        if (i->kind == TPL_N_STAR)
            FR_TRY(spread_size(r, f, i, &star, &n_star));
        else if (i->kind == TPL_N_STARSTAR)
            FR_TRY(spread_size(r, f, i, &starstar, &n_starstar));
        else
            n_pos += i->kind != TPL_N_KEYWORD;
    }
    tpl_value *pos = TPL_NEW(tpl_value, r, n_pos + n_star);
    tpl_kwarg *kw = pos ? TPL_NEW(tpl_kwarg, r, n_kw + n_starstar) : NULL;
    if (!kw)
        return FR_ENOMEM;
    for (const tpl_node *i = list; i; i = i->next) {
        if (i->kind == TPL_N_KEYWORD) {
            kw[out->n_kw].name = tpl_text(i->value);
            FR_TRY(tpl_eval(r, f, i->a, &kw[out->n_kw++].value));
        } else if (i->kind != TPL_N_STAR && i->kind != TPL_N_STARSTAR) {
            FR_TRY(tpl_eval(r, f, i, &pos[out->n_pos++]));
        }
    }
    if (n_star)
        FR_TRY(spread(r, star, false, pos, kw, out));
    if (n_starstar)
        FR_TRY(spread(r, starstar, true, pos, kw, out));
    out->pos = pos;
    out->kw = kw;
    return FR_OK;
}

/* A method call finds its row without making a method value first. */
static fr_status eval_call(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value callee, self = {0};
    const tpl_row *row = NULL;
    tpl_args args;
    if (n->a->kind == TPL_N_GETATTR) {
        FR_TRY(tpl_eval(r, f, n->a->a, &self));
        r->line = n->a->line;
        r->col = n->a->col;
        row = tpl_find_method(self, tpl_text(n->a->value));
        if (!row)
            FR_TRY(tpl_getattr(r, self, n->a->value.u.s, &callee));
    } else {
        FR_TRY(tpl_eval(r, f, n->a, &callee));
    }
    FR_TRY(tpl_eval_args(r, f, n->b, &args));
    r->line = n->line;
    r->col = n->col;
    if (row)
        return tpl_invoke(r, row, &self, &args, out);
    return tpl_call_value(r, callee, &args, out);
}

fr_status tpl_eval_apply(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value self,
                         tpl_value *out)
{
    tpl_args args;
    FR_TRY(tpl_eval_args(r, f, n->b, &args));
    r->line = n->line;
    r->col = n->col;
    if (!n->row)
        return tpl_fail_unknown(r, n->kind == TPL_N_TEST ? &tpl_tests : &tpl_filters,
                                tpl_text(n->value));
    return tpl_invoke(r, n->row, &self, &args, out);
}

static fr_status eval_apply(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_value self;
    FR_TRY(tpl_eval(r, f, n->a, &self));
    return tpl_eval_apply(r, f, n, self, out);
}

/* ---- dispatch
 * ------------------------------------------------------------------------------------- */

static fr_status eval_node(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    switch (n->kind) {
    case TPL_N_LIST:
    case TPL_N_TUPLE:
        return eval_list(r, f, n, out);
    case TPL_N_DICT:
        return eval_dict(r, f, n, out);
    case TPL_N_COND:
        return eval_cond(r, f, n, out);
    case TPL_N_OR:
    case TPL_N_AND:
    case TPL_N_NOT:
        return eval_logic(r, f, n, out);
    case TPL_N_COMPARE:
        return eval_compare(r, f, n, out);
    case TPL_N_BINARY:
    case TPL_N_GETITEM:
        return eval_two(r, f, n, out);
    case TPL_N_CONCAT:
        return eval_concat(r, f, n, out);
    case TPL_N_NEG:
    case TPL_N_POS:
    case TPL_N_GETATTR:
        return eval_one(r, f, n, out);
    case TPL_N_SLICE:
        return eval_slice(r, f, n, out);
    case TPL_N_CALL:
        return eval_call(r, f, n, out);
    case TPL_N_FILTER:
    case TPL_N_TEST:
        return eval_apply(r, f, n, out);
    default:
        return tpl_fail(r, FR_EINTERNAL, "no expression: node %d", n->kind);
    }
}

fr_status tpl_eval(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    r->line = n->line;
    r->col = n->col;
    FR_TRY(tpl_spend(r, 1));
    if (n->kind == TPL_N_CONST) {
        *out = n->value;
        return FR_OK;
    }
    if (n->kind == TPL_N_NAME)
        return tpl_lookup(r, f, n, out);
    FR_TRY(tpl_enter(r));
    tpl_value v = tpl_undefined(); /* out may be an operand that is still needed */
    fr_status st = eval_node(r, f, n, &v);
    tpl_leave(r);
    *out = v;
    return st;
}
