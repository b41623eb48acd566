#include <string.h>

#include "token/template_eval.h"

static fr_status exec_node(tpl_run *r, tpl_frame *f, const tpl_node *n);

/* ---- assignment
 * ------------------------------------------------------------------------------------ */

static fr_status assign_attr(tpl_run *r, tpl_frame *f, const tpl_node *target, tpl_value v)
{
    tpl_node name = {.sym = target->sym, .value = target->value};
    tpl_value ns;
    FR_TRY(tpl_lookup(r, f, &name, &ns));
    r->line = target->line;
    r->col = target->col;
    if (ns.kind != TPL_NAMESPACE)
        return tpl_fail(r, FR_EINVAL, "'%.*s' is no namespace: cannot assign its attribute '%.*s'",
                        FR_STR_ARG(r->t->symbols[target->sym].name),
                        FR_STR_ARG(tpl_text(target->value)));
    return tpl_dict_set(r, ns.u.d, target->value, v);
}

/* Binds a value to a name, to name.attribute, or its items to the targets of a tuple. */
static fr_status assign(tpl_run *r, tpl_frame *f, const tpl_node *target, tpl_value v)
{
    if (target->kind == TPL_N_NAME)
        return tpl_bind(r, f, target->sym, v);
    if (target->kind == TPL_N_NSREF)
        return assign_attr(r, f, target, v);
    const tpl_value *items;
    size_t n, i = 0;
    r->line = target->line;
    r->col = target->col;
    FR_TRY(tpl_items(r, v, &items, &n));
    if (n != target->n)
        return tpl_fail(r, FR_EINVAL, "cannot unpack %zu values into %u names", n, target->n);
    FR_TRY(tpl_enter(r));
    for (const tpl_node *t = target->a; t; t = t->next)
        FR_TRY(assign(r, f, t, items[i++]));
    tpl_leave(r);
    return FR_OK;
}

static fr_status exec_set(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    tpl_value v;
    FR_TRY(tpl_eval(r, f, n->b, &v));
    return assign(r, f, n->a, v);
}

/* ---- captured bodies
 * ------------------------------------------------------------------------------- */

/* Frames live in the arena: a macro that was defined in one may outlive its block. */
static tpl_frame *frame_new(tpl_run *r, tpl_frame *parent)
{
    tpl_frame *f = TPL_NEW(tpl_frame, r, 1);
    if (f)
        f->parent = parent;
    return f;
}

/* A chain of filters applied to v; the outermost is n, the innermost has no input. */
static fr_status filter_chain(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value v,
                              tpl_value *out)
{
    *out = v;
    if (!n)
        return FR_OK;
    FR_TRY(tpl_enter(r));
    FR_TRY(filter_chain(r, f, n->a, v, out));
    tpl_leave(r);
    return tpl_eval_apply(r, f, n, *out, out);
}

static fr_status exec_captured(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    tpl_frame *inner = frame_new(r, f);
    size_t mark = r->out.n;
    tpl_value v;
    if (!inner)
        return FR_ENOMEM;
    FR_TRY(tpl_exec(r, inner, n->c));
    if (r->flow != TPL_FLOW_NORMAL) { /* left by break or continue: nothing comes of it */
        r->out.n = mark;
        return FR_OK;
    }
    FR_TRY(tpl_capture(r, mark, &v));
    FR_TRY(filter_chain(r, inner, n->b, v, &v));
    if (n->kind == TPL_N_SET_BLOCK)
        return assign(r, f, n->a, v);
    return tpl_emit_value(r, v);
}

static fr_status exec_scope(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    tpl_frame *inner = frame_new(r, f);
    if (!inner)
        return FR_ENOMEM;
    for (const tpl_node *set = n->a; set; set = set->next) {
        tpl_value v;
        FR_TRY(tpl_eval(r, f, set->b, &v));
        FR_TRY(assign(r, inner, set->a, v));
    }
    return tpl_exec(r, inner, n->c);
}

/* ---- loops
 * ----------------------------------------------------------------------------------------- */

static fr_status passes_filter(tpl_run *r, tpl_loop *l, tpl_frame *f, tpl_value item, bool *out)
{
    tpl_value v;
    f->n = 0;
    FR_TRY(assign(r, f, l->node->a, item));
    FR_TRY(tpl_eval(r, f, l->node->e, &v));
    *out = tpl_truthy(v);
    return FR_OK;
}

fr_status tpl_loop_reach(tpl_run *r, tpl_loop *l, size_t i, bool *exists)
{
    if (i >= l->passed.n && l->i_raw < l->n_raw) {
        tpl_frame *f = frame_new(r, l->env);
        if (!f)
            return FR_ENOMEM;
        while (i >= l->passed.n && l->i_raw < l->n_raw) {
            tpl_value item = l->raw[l->i_raw++];
            bool passes;
            FR_TRY(passes_filter(r, l, f, item, &passes));
            if (passes)
                FR_TRY(tpl_list_push(r, &l->passed, item));
        }
    }
    *exists = i < l->passed.n;
    return FR_OK;
}

static fr_status loop_new(tpl_run *r, const tpl_node *n, tpl_frame *env, tpl_value iterable,
                          tpl_loop **out)
{
    tpl_loop *l = TPL_NEW(tpl_loop, r, 1);
    if (!l)
        return FR_ENOMEM;
    *out = l;
    l->node = n;
    l->env = env;
    FR_TRY(tpl_items(r, iterable, &l->raw, &l->n_raw));
    if (n->e)
        return FR_OK;
    l->passed.v = (tpl_value *)(uintptr_t)l->raw; /* never pushed to: all of it has passed */
    l->passed.n = l->passed.cap = l->i_raw = l->n_raw;
    return FR_OK;
}

fr_status tpl_run_loop(tpl_run *r, const tpl_node *n, tpl_frame *env, tpl_value iterable,
                       int depth0)
{
    tpl_loop *l;
    bool exists, ended = false; /* whether a body ran to its end */
    tpl_frame *f = frame_new(r, env);
    if (!f)
        return FR_ENOMEM;
    FR_TRY(loop_new(r, n, env, iterable, &l));
    l->depth0 = depth0;
    for (size_t i = 0;; i++) {
        FR_TRY(tpl_loop_reach(r, l, i, &exists));
        if (!exists)
            break;
        l->index0 = i;
        f->n = 0;
        FR_TRY(tpl_bind(r, f, TPL_SYM_LOOP, (tpl_value){.kind = TPL_LOOP, .u.loop = l}));
        FR_TRY(assign(r, f, n->a, l->passed.v[i]));
        FR_TRY(tpl_exec(r, f, n->c));
        int flow = r->flow;
        r->flow = TPL_FLOW_NORMAL;
        ended |= flow == TPL_FLOW_NORMAL;
        if (flow == TPL_FLOW_BREAK)
            break;
    }
    if (ended || !n->d)
        return FR_OK;
    tpl_frame *other = frame_new(r, env);
    return other ? tpl_exec(r, other, n->d) : FR_ENOMEM;
}

static fr_status exec_for(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    tpl_value iterable;
    FR_TRY(tpl_eval(r, f, n->b, &iterable));
    r->line = n->b->line;
    r->col = n->b->col;
    return tpl_run_loop(r, n, f, iterable, 0);
}

/* ---- macros
 * ---------------------------------------------------------------------------------------- */

static fr_status make_macro(tpl_run *r, tpl_frame *f, const tpl_node *n, tpl_value *out)
{
    tpl_macro *m = TPL_NEW(tpl_macro, r, 1);
    if (!m)
        return FR_ENOMEM;
    *m = (tpl_macro){n, f};
    *out = (tpl_value){.kind = TPL_MACRO, .u.macro = m};
    return FR_OK;
}

/* The value passed under a name, which then counts as used; TPL_MISSING when there is none. */
static tpl_value take_keyword(const tpl_args *args, bool *used, fr_str name)
{
    for (size_t i = 0; i < args->n_kw; i++)
        if (!used[i] && fr_str_eq(args->kw[i].name, name)) {
            used[i] = true;
            return args->kw[i].value;
        }
    return tpl_missing();
}

static bool is_missing(const tpl_frame *f, uint32_t sym)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->v[i].sym == sym)
            return f->v[i].value.kind == TPL_MISSING;
    return true;
}

static fr_status bind_params(tpl_run *r, tpl_frame *f, const tpl_node *macro, const tpl_args *args,
                             bool *used)
{
    size_t i = 0;
    for (const tpl_node *p = macro->a; p; p = p->next, i++) {
        fr_str name = tpl_text(p->value);
        tpl_value v = i < args->n_pos ? args->pos[i] : take_keyword(args, used, name);
        FR_TRY(tpl_bind(r, f, p->sym, v));
    }
    for (const tpl_node *p = macro->a; p; p = p->next) {
        tpl_value v; /* defaults see the parameters before them */
        if (!is_missing(f, p->sym))
            continue;
        FR_TRY(tpl_lookup(r, f, p, &v));
        if (p->a)
            FR_TRY(tpl_eval(r, f, p->a, &v));
        FR_TRY(tpl_bind(r, f, p->sym, v));
    }
    return FR_OK;
}

static bool has_param(const tpl_node *macro, uint32_t sym)
{
    for (const tpl_node *p = macro->a; p; p = p->next)
        if (p->sym == sym)
            return true;
    return false;
}

static fr_status bind_varargs(tpl_run *r, tpl_frame *f, const tpl_node *macro, const tpl_args *args)
{
    size_t n = macro->n;
    tpl_value v;
    if (args->n_pos > n && !(macro->uses & TPL_USES_VARARGS))
        return tpl_fail(r, FR_EINVAL, "macro '%.*s' takes not more than %zu argument(s)",
                        FR_STR_ARG(tpl_text(macro->value)), n);
    if (!(macro->uses & TPL_USES_VARARGS))
        return FR_OK;
    n = n < args->n_pos ? n : args->n_pos;
    FR_TRY(tpl_list_copy(r, TPL_TUPLE, args->pos + n, args->n_pos - n, &v));
    return tpl_bind(r, f, TPL_SYM_VARARGS, v);
}

static fr_status bind_kwargs(tpl_run *r, tpl_frame *f, const tpl_node *macro, const tpl_args *args,
                             const bool *used)
{
    tpl_value dict, key;
    FR_TRY(tpl_dict_new(r, TPL_DICT, &dict));
    for (size_t i = 0; i < args->n_kw; i++) {
        if (used[i])
            continue;
        if (!(macro->uses & TPL_USES_KWARGS))
            return tpl_fail(r, FR_EINVAL, "macro '%.*s' takes no keyword argument '%.*s'",
                            FR_STR_ARG(tpl_text(macro->value)), FR_STR_ARG(args->kw[i].name));
        FR_TRY(tpl_str_view(r, args->kw[i].name, &key));
        FR_TRY(tpl_dict_set(r, dict.u.d, key, args->kw[i].value));
    }
    return macro->uses & TPL_USES_KWARGS ? tpl_bind(r, f, TPL_SYM_KWARGS, dict) : FR_OK;
}

static fr_status bind_caller(tpl_run *r, tpl_frame *f, const tpl_node *macro, const tpl_args *args,
                             bool *used)
{
    if (!(macro->uses & TPL_USES_CALLER) || has_param(macro, TPL_SYM_CALLER))
        return FR_OK;
    tpl_value v = take_keyword(args, used, FR_STR("caller"));
    if (v.kind == TPL_MISSING)
        v = tpl_undefined();
    return tpl_bind(r, f, TPL_SYM_CALLER, v);
}

fr_status tpl_call_macro(tpl_run *r, const tpl_macro *m, const tpl_args *args, tpl_value *out)
{
    const tpl_node *n = m->node;
    size_t mark = r->out.n;
    tpl_frame *f = frame_new(r, m->env);
    bool *used = f ? TPL_NEW(bool, r, args->n_kw + 1) : NULL;
    if (!used)
        return FR_ENOMEM;
    FR_TRY(bind_params(r, f, n, args, used));
    FR_TRY(bind_caller(r, f, n, args, used));
    FR_TRY(bind_kwargs(r, f, n, args, used));
    FR_TRY(bind_varargs(r, f, n, args));
    FR_TRY(tpl_enter(r));
    FR_TRY(tpl_exec(r, f, n->c));
    tpl_leave(r);
    return tpl_capture(r, mark, out);
}

/* Calls what n->b calls, with the body of the block as the keyword argument "caller". */
static fr_status exec_call_block(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    tpl_value callee, caller, v;
    tpl_args args;
    FR_TRY(tpl_eval(r, f, n->b->a, &callee));
    FR_TRY(tpl_eval_args(r, f, n->b->b, &args));
    FR_TRY(make_macro(r, f, n, &caller));
    tpl_kwarg *kw = TPL_NEW(tpl_kwarg, r, args.n_kw + 1);
    if (!kw)
        return FR_ENOMEM;
    if (args.n_kw)
        memcpy(kw, args.kw, args.n_kw * sizeof *kw);
    kw[args.n_kw++] = (tpl_kwarg){FR_STR("caller"), caller};
    args.kw = kw;
    r->line = n->b->line;
    r->col = n->b->col;
    FR_TRY(tpl_call_value(r, callee, &args, &v));
    return tpl_emit_value(r, v);
}

/* ---- dispatch
 * -------------------------------------------------------------------------------------- */

static fr_status exec_if(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    for (const tpl_node *branch = n->a; branch; branch = branch->next) {
        tpl_value test = tpl_bool(true);
        if (branch->a)
            FR_TRY(tpl_eval(r, f, branch->a, &test));
        if (tpl_truthy(test))
            return tpl_exec(r, f, branch->b);
    }
    return FR_OK;
}

static fr_status exec_output(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    tpl_value v;
    FR_TRY(tpl_eval(r, f, n->a, &v));
    return tpl_emit_value(r, v);
}

static fr_status exec_macro(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    tpl_value macro;
    FR_TRY(make_macro(r, f, n, &macro));
    return tpl_bind(r, f, n->sym, macro);
}

static fr_status exec_node(tpl_run *r, tpl_frame *f, const tpl_node *n)
{
    switch (n->kind) {
    case TPL_N_DATA:
        return tpl_emit_str(r, tpl_text(n->value));
    case TPL_N_OUTPUT:
        return exec_output(r, f, n);
    case TPL_N_IF:
        return exec_if(r, f, n);
    case TPL_N_FOR:
        return exec_for(r, f, n);
    case TPL_N_SET:
        return exec_set(r, f, n);
    case TPL_N_SET_BLOCK:
    case TPL_N_FILTER_BLOCK:
        return exec_captured(r, f, n);
    case TPL_N_MACRO:
        return exec_macro(r, f, n);
    case TPL_N_CALL_BLOCK:
        return exec_call_block(r, f, n);
    case TPL_N_WITH:
    case TPL_N_SCOPE:
        return exec_scope(r, f, n);
    default:
        r->flow = n->kind == TPL_N_BREAK ? TPL_FLOW_BREAK : TPL_FLOW_CONTINUE;
        return FR_OK;
    }
}

fr_status tpl_exec(tpl_run *r, tpl_frame *f, const tpl_node *body)
{
    FR_TRY(tpl_enter(r));
    for (const tpl_node *n = body; n && r->flow == TPL_FLOW_NORMAL; n = n->next) {
        r->line = n->line;
        r->col = n->col;
        FR_TRY(tpl_spend(r, 1));
        FR_TRY(exec_node(r, f, n));
    }
    tpl_leave(r);
    return FR_OK;
}
