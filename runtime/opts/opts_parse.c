/* The command line, and the order in which the levels are applied. */
#include <string.h>

#include "opts/opts_internal.h"

/* ---- one argument after the other
 * ----------------------------------------------------------------- */

typedef struct {
    int argc;
    char **argv;
    int i;          /* the next one to look at */
    bool only_args; /* after "--" */
    fr_tool tool;
} scan;

typedef struct {
    bool is_option;
    opts_match opt;
    const char *text; /* value, or the positional argument */
    int at;           /* index in argv */
} argument;

/* The spelling of an option in argv: up to '='. */
static fr_str spelling(const char *arg)
{
    return (fr_str){arg, strcspn(arg, "=")};
}

static fr_str bare_name(const char *arg)
{
    fr_str s = spelling(arg);
    for (int i = 0; i < 2 && s.n && s.p[0] == '-'; i++)
        s.p++, s.n--;
    return s;
}

static bool looks_like_option(const char *arg)
{
    return arg[0] == '-' && arg[1];
}

static fr_status unknown_option(const scan *s, const char *arg, fr_err *err)
{
    fr_str shown = spelling(arg), near = opts_nearest(bare_name(arg), s->tool, false);
    if (shown.n > 80)
        shown.n = 80;
    if (near.n)
        return fr_fail(err, FR_EINVAL, "%.*s: unknown option; did you mean %.*s?",
                       FR_STR_ARG(shown), FR_STR_ARG(near));
    return fr_fail(err, FR_EINVAL, "%.*s: unknown option; %s --help lists them", FR_STR_ARG(shown),
                   fr_tool_name(s->tool));
}

static fr_status no_value(const scan *s, const argument *a, fr_err *err)
{
    fr_str shown = spelling(s->argv[a->at]);
    fr_buf expected = {0};
    fr_status st = opts_expected(a->opt.id, &expected, err);
    if (st == FR_OK && s->i < s->argc)
        st =
            fr_fail(err, FR_EINVAL,
                    "%.*s: found the option %.40s, expected %s; a value like that is "
                    "written %.*s=%.40s",
                    FR_STR_ARG(shown), s->argv[s->i], expected.p, FR_STR_ARG(shown), s->argv[s->i]);
    else if (st == FR_OK)
        st = fr_fail(err, FR_EINVAL, "%.*s: found nothing after it, expected %s", FR_STR_ARG(shown),
                     expected.p);
    fr_buf_free(&expected);
    return st;
}

/* Whether the next argument is a switch's value. ferry-bench takes "-nkvo 1", and "0,1" where it
 * takes several values; the other tools only a value that the table announces. */
static bool is_switch_value(const scan *s, const argument *a, const char *next)
{
    const opts_row *row = &opts_rows[a->opt.id];
    bool bench = s->tool == FR_TOOL_BENCH;
    if (!next || (!bench && (!(row->flags & OPTS_OPTARG) || a->opt.negated)))
        return false;
    if (!bench || !(row->flags & OPTS_MANY))
        return opts_accepts(a->opt.id, next);
    for (const char *p = next;; p++) {
        char item[16];
        size_t n = strcspn(p, ",");
        if (n >= sizeof item)
            return false;
        memcpy(item, p, n);
        item[n] = 0;
        if (!opts_accepts(a->opt.id, item) && strcmp(item, "auto") != 0) /* -rtr auto */
            return false;
        p += n;
        if (!*p)
            return true;
    }
}

/* The value after an option, when it has one. */
static fr_status take_value(scan *s, argument *a, fr_err *err)
{
    const opts_row *row = &opts_rows[a->opt.id];
    const char *next = s->i < s->argc ? s->argv[s->i] : NULL, *equals = strchr(s->argv[a->at], '=');
    opts_match unused;
    if (equals) {
        a->text = equals + 1;
        return FR_OK;
    }
    if (opts_is_switch(row)) {
        a->text = is_switch_value(s, a, next) ? s->argv[s->i++] : "on";
        return FR_OK;
    }
    if (row->flags & OPTS_REFUSED) {
        a->text = "";
        return FR_OK;
    }
    if (!next || (looks_like_option(next) && opts_find(bare_name(next), s->tool, false, &unused)))
        return no_value(s, a, err);
    a->text = s->argv[s->i++];
    return FR_OK;
}

/* The next argument; *more = false at the end. */
static fr_status next_argument(scan *s, bool *more, argument *out, fr_err *err)
{
    while (s->i < s->argc && !s->only_args && strcmp(s->argv[s->i], "--") == 0) {
        s->only_args = true;
        s->i++;
    }
    *more = s->i < s->argc;
    if (!*more)
        return FR_OK;
    *out = (argument){.at = s->i++};
    const char *arg = s->argv[out->at];
    if (s->only_args || !looks_like_option(arg)) {
        out->text = arg;
        return FR_OK;
    }
    out->is_option = true;
    if (!opts_find(bare_name(arg), s->tool, false, &out->opt))
        return unknown_option(s, arg, err);
    return take_value(s, out, err);
}

static fr_status take_positional(opts_merge *m, const argument *a, fr_err *err)
{
    fr_tool tool = m->o->tool;
    fr_opt_origin origin = {FR_FROM_CLI, NULL, a->at};
    if (m->o->args.n >= opts_max_args(tool))
        return fr_fail(err, FR_EINVAL,
                       "'%.80s': unexpected argument; %s takes %zu of them besides its "
                       "options (a model is given with -m FILE)",
                       a->text, fr_tool_name(tool), opts_max_args(tool));
    return opts_add_item(&m->o->args, a->text, strlen(a->text), origin, err);
}

/* Applies the whole command line, or only --config and --preset. */
static fr_status apply_args(opts_merge *m, int argc, char **argv, bool only_file, fr_err *err)
{
    scan s = {.argc = argc, .argv = argv, .i = 1, .tool = m->o->tool};
    for (;;) {
        argument a;
        bool more;
        FR_TRY(next_argument(&s, &more, &a, err));
        if (!more)
            return FR_OK;
        bool of_file = a.is_option && (a.opt.id == FR_OPT_config || a.opt.id == FR_OPT_preset);
        if (of_file != only_file)
            continue;
        if (!a.is_option) {
            FR_TRY(take_positional(m, &a, err));
            continue;
        }
        fr_opt_origin origin = {FR_FROM_CLI, NULL, a.at};
        fr_status st = opts_apply(m, OPTS_AT_CLI, a.opt, a.text, origin, err);
        if (st != FR_OK)
            return fr_err_context(err, st, "%.*s", FR_STR_ARG(spelling(argv[a.at])));
    }
}

/* ---- what the user must know
 * ---------------------------------------------------------------------- */

/* "--port", "FERRY_PORT" or "my.ini:12: port": what set the option last. */
static fr_status source_name(const fr_options *o, fr_opt_id id, char **argv, fr_buf *out,
                             fr_err *err)
{
    fr_opt_origin from = o->origins[id];
    char env[OPTS_ENV_MAX];
    fr_buf_clear(out);
    switch (from.source) {
    case FR_FROM_CLI:
        return fr_buf_printf(out, err, "%.*s", FR_STR_ARG(spelling(argv[from.line])));
    case FR_FROM_ENV:
        opts_env_name(id, env);
        return fr_buf_puts(out, env, err);
    default:
        return fr_buf_printf(out, err, "%s:%d: %.*s", from.file, from.line,
                             FR_STR_ARG(opts_first_name(id).bare));
    }
}

static fr_status is_default(const fr_options *o, fr_opt_id id, bool *out, fr_err *err)
{
    fr_buf text = {0};
    const fr_opt_list *list = opts_is_list(&opts_rows[id]) ? opts_field(o, id) : NULL;
    if (list) {
        *out = list->n == 0;
        return FR_OK;
    }
    fr_status st = opts_format(o, id, 0, &text, err);
    *out = fr_str_is((fr_str){text.p, text.n}, opts_rows[id].dflt ? opts_rows[id].dflt : "");
    fr_buf_free(&text);
    return st;
}

static fr_status note_option(opts_merge *m, fr_opt_id id, const char *name, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    fr_tool tool = m->o->tool;
    bool unchanged;
    if (!(row->tools & (unsigned)tool)) /* files and environment serve several tools */
        return opts_note(m, m->level[id] == OPTS_AT_CLI ? FR_LOG_WARN : FR_LOG_DEBUG, err,
                         "%s: has no effect in %s", name, fr_tool_name(tool));
    if (row->note && !(row->flags & OPTS_REFUSED))
        return opts_note(m, FR_LOG_INFO, err, "%s: accepted, has no effect: %s", name, row->note);
    if (!(row->flags & OPTS_LATER))
        return FR_OK;
    FR_TRY(is_default(m->o, id, &unchanged, err));
    return unchanged ? FR_OK
                     : opts_note(m, FR_LOG_WARN, err,
                                 "%s: not in this version of ferry, has no effect", name);
}

static fr_status note_options(opts_merge *m, char **argv, fr_err *err)
{
    fr_buf name = {0};
    fr_status st = FR_OK;
    for (int id = 0; id < FR_OPT_COUNT && st == FR_OK; id++) {
        if (m->o->origins[id].source == FR_FROM_DEFAULT)
            continue;
        FR_TRY_OUT(st, source_name(m->o, (fr_opt_id)id, argv, &name, err));
        st = note_option(m, (fr_opt_id)id, name.p, err);
    }
out:
    fr_buf_free(&name);
    return st;
}

static void set_log_level(const fr_options *o)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    int level = FR_LOG_ERROR;
    while (level < FR_LOG_DEBUG && strcmp(names[level], o->log_level) != 0)
        level++;
    fr_log_set_level(o->log_disable ? FR_LOG_ERROR
                     : o->verbose   ? FR_LOG_DEBUG
                                    : (fr_log_level)level);
}

/* ---- all together
 * --------------------------------------------------------------------------------- */

static fr_status check_together(const fr_options *o, fr_err *err)
{
    if (o->preset && !o->config)
        return fr_fail(err, FR_EINVAL,
                       "--preset: found '%.80s' without an INI file, expected --config FILE "
                       "as well",
                       o->preset);
    if (o->strict_rules && o->lax_rules)
        return fr_fail(err, FR_EINVAL,
                       "--strict-rules: found together with --lax-rules, expected one of them");
    return FR_OK;
}

static fr_status parse_all(opts_merge *m, int argc, char **argv, fr_err *err)
{
    FR_TRY(opts_set_defaults(m->o, err));
    FR_TRY(opts_apply_env(m, true, err));
    FR_TRY(apply_args(m, argc, argv, true, err));
    if (m->o->config)
        FR_TRY(opts_apply_file(m, err));
    FR_TRY(opts_apply_env(m, false, err));
    FR_TRY(opts_check_env(m, err));
    FR_TRY(apply_args(m, argc, argv, false, err));
    FR_TRY(check_together(m->o, err));
    bool only_text = m->o->want_help || m->o->want_version || m->o->want_reference_ini;
    return only_text ? FR_OK : note_options(m, argv, err);
}

fr_status fr_opts_parse(int argc, char **argv, fr_tool tool, fr_options *out, fr_err *err)
{
    *out = (fr_options){.tool = tool};
    opts_merge m = {.o = out};
    fr_status st = parse_all(&m, argc, argv, err);
    if (st == FR_OK) {
        set_log_level(out);
        opts_flush_notes(&m);
    } else {
        fr_opts_free(out);
    }
    fr_buf_free(&m.notes);
    return st;
}

void fr_opts_free(fr_options *o)
{
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        opts_type type = opts_rows[id].type;
        if (opts_is_list(&opts_rows[id]))
            opts_clear_list(opts_field(o, (fr_opt_id)id));
        else if (type == OPTS_STRING || type == OPTS_PATH || type == OPTS_ENUM)
            fr_mem_free(*(char **)opts_field(o, (fr_opt_id)id));
    }
    opts_clear_list(&o->args);
    for (size_t i = 0; i < o->n_hw; i++) {
        fr_mem_free(o->hw[i].section);
        fr_mem_free(o->hw[i].key);
        fr_mem_free(o->hw[i].value);
    }
    fr_mem_free(o->hw);
    for (size_t i = 0; i < o->n_many; i++)
        fr_mem_free(o->many[i].text);
    fr_mem_free(o->many);
    *o = (fr_options){0};
}

fr_opt_origin fr_opts_origin(const fr_options *o, fr_opt_id id)
{
    return o->origins[id];
}

fr_status fr_opts_require(const fr_options *o, fr_opt_id id, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    char env[OPTS_ENV_MAX];
    opts_name name = opts_first_name(id);
    if (o->origins[id].source != FR_FROM_DEFAULT || row->dflt)
        return FR_OK;
    opts_env_name(id, env);
    return fr_fail(err, FR_EINVAL,
                   "%.*s: not given, expected %.*s %s, or '%.*s = ...' in an INI file, or %s",
                   FR_STR_ARG(name.spelled), FR_STR_ARG(name.spelled), row->value ? row->value : "",
                   FR_STR_ARG(name.bare), env);
}
