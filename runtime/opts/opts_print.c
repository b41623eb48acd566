/* What the table says in print: --help, --dump-config, the reference INI file. */
#include <string.h>

#include "opts/opts_internal.h"

enum { WIDTH = 100, HELP_COLUMN = 34, ORIGIN_COLUMN = 44 };

/* ---- building blocks
 * ------------------------------------------------------------------------------ */

/* Blanks up to a column of the line that begins at `line`; at least one. */
static fr_status pad_to(fr_buf *out, size_t line, size_t column, fr_err *err)
{
    do {
        FR_TRY(fr_buf_putc(out, ' ', err));
    } while (out->n - line < column);
    return FR_OK;
}

/* Adds words, breaking lines at WIDTH; a new line begins with `lead` and blanks up to `column`. */
static fr_status add_wrapped(fr_buf *out, size_t line, const char *lead, size_t column,
                             const char *words, fr_err *err)
{
    bool first = true;
    for (fr_str w = opts_next_word(&words); w.n; w = opts_next_word(&words), first = false) {
        if (!first && out->n - line + 1 + w.n > WIDTH) {
            FR_TRY(fr_buf_putc(out, '\n', err));
            line = out->n;
            FR_TRY(fr_buf_puts(out, lead, err));
            while (out->n - line < column)
                FR_TRY(fr_buf_putc(out, ' ', err));
        } else if (!first) {
            FR_TRY(fr_buf_putc(out, ' ', err));
        }
        FR_TRY(fr_buf_add(out, w.p, w.n, err));
    }
    return FR_OK;
}

/* "-m, --model FILE": all spellings for the command line. */
static fr_status add_spellings(const opts_row *row, bool many, fr_buf *out, fr_err *err)
{
    const char *sep = "";
    for (int longs = 0; longs < 2; longs++) {
        const char *rest = row->names;
        for (opts_name name; opts_next_name(&rest, &name);) {
            bool is_long = name.spelled.n > 2 && name.spelled.p[1] == '-';
            if (name.ini_only || is_long != longs)
                continue;
            FR_TRY(fr_buf_printf(out, err, "%s%.*s", sep, FR_STR_ARG(name.spelled)));
            sep = ", ";
        }
    }
    if (opts_is_switch(row) && row->dflt && strcmp(row->dflt, "true") == 0) {
        const char *rest = row->names;
        opts_name name;
        opts_next_name(&rest, &name);
        FR_TRY(fr_buf_printf(out, err, ", --no-%.*s", FR_STR_ARG(name.bare)));
    }
    const char *value = row->value ? row->value : many ? "0|1" : NULL, *more = many ? ",..." : "";
    if (!value)
        return FR_OK;
    size_t shown = out->n;
    FR_TRY(opts_is_switch(row) || (row->flags & OPTS_OPTARG)
               ? fr_buf_printf(out, err, " [%s%s]", value, more)
               : fr_buf_printf(out, err, " %s%s", value, more));
    for (size_t i = shown; many && strchr(value, ',') && i < shown + strlen(value); i++)
        if (out->p[i] == ',') /* of one value's parts */
            out->p[i] = '/';
    return FR_OK;
}

/* The help text with choices, default and limits. */
static fr_status add_help(fr_opt_id id, fr_buf *out, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    FR_TRY(fr_buf_puts(out, row->help, err));
    if (row->type == OPTS_ENUM && !(row->flags & OPTS_OPTARG)) {
        FR_TRY(fr_buf_puts(out, "; ", err));
        FR_TRY(opts_expected(id, out, err));
    }
    if (row->type == OPTS_BOOL && row->dflt && strcmp(row->dflt, "true") == 0)
        FR_TRY(fr_buf_puts(out, " (default: on)", err));
    else if (row->type != OPTS_BOOL && row->dflt)
        FR_TRY(fr_buf_printf(out, err, " (default: %s)", row->dflt));
    if (row->flags & OPTS_LATER)
        FR_TRY(fr_buf_puts(out, " [no effect in this version]", err));
    return FR_OK;
}

/* ---- --help
 * --------------------------------------------------------------------------------------- */

static fr_status help_row(fr_opt_id id, fr_tool tool, fr_buf *out, fr_buf *scratch, fr_err *err)
{
    bool many = tool == FR_TOOL_BENCH && (opts_rows[id].flags & OPTS_MANY);
    size_t line = out->n;
    FR_TRY(fr_buf_puts(out, "  ", err));
    FR_TRY(add_spellings(&opts_rows[id], many, out, err));
    if (out->n - line + 2 > HELP_COLUMN) {
        FR_TRY(fr_buf_putc(out, '\n', err));
        line = out->n;
    }
    FR_TRY(pad_to(out, line, HELP_COLUMN, err));
    fr_buf_clear(scratch);
    FR_TRY(add_help(id, scratch, err));
    FR_TRY(add_wrapped(out, line, "", HELP_COLUMN, scratch->p, err));
    return fr_buf_putc(out, '\n', err);
}

static fr_status help_section(const opts_section *section, fr_tool tool, fr_buf *out,
                              fr_buf *scratch, fr_err *err)
{
    bool begun = false;
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        const opts_row *row = &opts_rows[id];
        bool shown = (row->tools & (unsigned)tool) && !(row->flags & OPTS_REFUSED);
        if (!shown || strcmp(row->section, section->name) != 0)
            continue;
        if (!begun)
            FR_TRY(fr_buf_printf(out, err, "\n%s:\n", section->title));
        begun = true;
        FR_TRY(help_row((fr_opt_id)id, tool, out, scratch, err));
    }
    return FR_OK;
}

fr_status fr_opts_help(fr_tool tool, fr_buf *text, fr_err *err)
{
    fr_buf scratch = {0};
    fr_status st;
    FR_TRY_OUT(
        st,
        fr_buf_printf(
            text, err,
            "usage: %s %s\n\n"
            "Every option can also stand in an INI file (--config FILE) as long-name = value,\n"
            "and in the environment as FERRY_LONG_NAME. The command line counts most, then the\n"
            "environment, then the file. - and _ are the same in names; a switch --X has --no-X.\n",
            fr_tool_name(tool), opts_usage(tool)));
    if (tool == FR_TOOL_BENCH)
        FR_TRY_OUT(st, fr_buf_puts(text,
                                   "\nN,... stands for several values: 1,2,4, or ranges such as "
                                   "512-2048+512 and 1-64*2,\nor the option again. Every "
                                   "combination is measured.\n",
                                   err));
    for (const opts_section *s = opts_sections; s->name; s++)
        FR_TRY_OUT(st, help_section(s, tool, text, &scratch, err));
out:
    fr_buf_free(&scratch);
    return st;
}

/* ---- --dump-config
 * --------------------------------------------------------------------------------- */

static fr_status add_origin(fr_opt_id id, fr_opt_origin from, fr_buf *out, fr_err *err)
{
    char env[OPTS_ENV_MAX];
    switch (from.source) {
    case FR_FROM_INI:
        return fr_buf_printf(out, err, "; %s:%d\n", from.file, from.line);
    case FR_FROM_ENV:
        opts_env_name(id, env);
        return fr_buf_printf(out, err, "; environment %s\n", env);
    case FR_FROM_CLI:
        return fr_buf_puts(out, "; command line\n", err);
    default:
        return fr_buf_puts(out, "; default\n", err);
    }
}

/* One "key = value ; origin" line; `value` NULL: not set, the key is commented out. */
static fr_status dump_line(fr_opt_id id, const char *value, fr_opt_origin from, fr_buf *out,
                           fr_err *err)
{
    size_t line = out->n;
    fr_str key = opts_first_name(id).bare;
    FR_TRY(fr_buf_printf(out, err, "%s%.*s =", value ? "" : ";", FR_STR_ARG(key)));
    if (value) {
        FR_TRY(fr_buf_putc(out, ' ', err));
        FR_TRY(opts_ini_quote(value, out, err));
    }
    FR_TRY(pad_to(out, line, ORIGIN_COLUMN, err));
    return add_origin(id, from, out, err);
}

static fr_status dump_option(const fr_options *o, fr_opt_id id, fr_buf *out, fr_buf *scratch,
                             fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    const fr_opt_list *list = opts_is_list(row) ? opts_field(o, id) : NULL;
    bool is_text = row->type == OPTS_STRING || row->type == OPTS_PATH;
    bool unset = list ? list->n == 0 : is_text && !*(char *const *)opts_field(o, id);
    if (unset)
        return dump_line(id, NULL, o->origins[id], out, err);
    for (size_t i = 0; i < (list ? list->n : 1); i++) {
        fr_buf_clear(scratch);
        FR_TRY(row->flags & OPTS_SECRET ? fr_buf_puts(scratch, "********", err)
                                        : opts_format(o, id, i, scratch, err));
        fr_opt_origin from = list ? list->items[i].origin : o->origins[id];
        FR_TRY(dump_line(id, scratch->p ? scratch->p : "", from, out, err));
    }
    return FR_OK;
}

static fr_status dump_section(const fr_options *o, const opts_section *section, fr_buf *out,
                              fr_buf *scratch, fr_err *err)
{
    bool begun = false;
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        const opts_row *row = &opts_rows[id];
        bool given = o->origins[id].source != FR_FROM_DEFAULT;
        bool shown = (row->tools & (unsigned)o->tool) || given;
        if (!shown || (row->flags & (OPTS_NO_INI | OPTS_REFUSED)) ||
            strcmp(row->section, section->name) != 0)
            continue;
        if (!begun)
            FR_TRY(fr_buf_printf(out, err, "\n[%s]\n", section->name));
        begun = true;
        FR_TRY(dump_option(o, (fr_opt_id)id, out, scratch, err));
    }
    return FR_OK;
}

static fr_status dump_hardware(const fr_options *o, fr_buf *out, fr_err *err)
{
    const char *section = "";
    for (size_t i = 0; i < o->n_hw; i++) {
        const fr_hw_record *r = &o->hw[i];
        if (strcmp(r->section, section) != 0)
            FR_TRY(fr_buf_printf(out, err, "\n[%s]\n", r->section));
        section = r->section;
        size_t line = out->n;
        FR_TRY(fr_buf_printf(out, err, "%s = ", r->key));
        FR_TRY(opts_ini_quote(r->value, out, err));
        FR_TRY(pad_to(out, line, ORIGIN_COLUMN, err));
        FR_TRY(fr_buf_printf(out, err, "; %s:%d\n", r->file, r->line));
    }
    return FR_OK;
}

fr_status fr_opts_dump(const fr_options *o, fr_buf *text, fr_err *err)
{
    fr_buf scratch = {0};
    fr_status st;
    FR_TRY_OUT(st,
               fr_buf_printf(text, err,
                             "; %s: effective options and where each came from.\n"
                             "; Relative paths count from the folder in which this was printed.\n",
                             fr_tool_name(o->tool)));
    if (o->config)
        FR_TRY_OUT(st, fr_buf_printf(text, err, "; config: %s%s%s\n", o->config,
                                     o->preset ? ", preset: " : "", o->preset ? o->preset : ""));
    for (const opts_section *s = opts_sections; s->name; s++)
        FR_TRY_OUT(st, dump_section(o, s, text, &scratch, err));
    st = dump_hardware(o, text, err);
out:
    fr_buf_free(&scratch);
    return st;
}

/* ---- the reference file
 * ---------------------------------------------------------------------------- */

/* "; words words", wrapped. */
static fr_status comment(fr_buf *out, const char *words, fr_err *err)
{
    size_t line = out->n;
    FR_TRY(fr_buf_puts(out, "; ", err));
    FR_TRY(add_wrapped(out, line, "; ", 2, words, err));
    return fr_buf_putc(out, '\n', err);
}

static fr_status reference_row(fr_opt_id id, fr_buf *out, fr_buf *scratch, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    char env[OPTS_ENV_MAX];
    fr_str key = opts_first_name(id).bare;
    fr_buf_clear(scratch);
    FR_TRY(fr_buf_puts(scratch, row->help, err));
    FR_TRY(fr_buf_puts(scratch, row->flags & OPTS_LATER ? " [no effect in this version]: " : ": ",
                       err));
    FR_TRY(opts_expected(id, scratch, err));
    if (row->note)
        FR_TRY(fr_buf_printf(scratch, err, ". Has no effect: %s", row->note));
    FR_TRY(fr_buf_putc(out, '\n', err));
    FR_TRY(comment(out, scratch->p, err));
    fr_buf_clear(scratch);
    FR_TRY(add_spellings(row, false, scratch, err));
    if (!(row->flags & OPTS_NO_ENV)) {
        opts_env_name(id, env);
        FR_TRY(fr_buf_printf(scratch, err, "; %s", env));
    }
    FR_TRY(comment(out, scratch->p, err));
    FR_TRY(fr_buf_printf(out, err, ";%.*s =%s", FR_STR_ARG(key), row->dflt ? " " : ""));
    if (row->dflt)
        FR_TRY(opts_ini_quote(row->dflt, out, err));
    return fr_buf_putc(out, '\n', err);
}

static fr_status reference_section(const opts_section *section, fr_buf *out, fr_buf *scratch,
                                   fr_err *err)
{
    bool begun = false;
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        const opts_row *row = &opts_rows[id];
        if ((row->flags & (OPTS_NO_INI | OPTS_REFUSED)) || strcmp(row->section, section->name) != 0)
            continue;
        if (!begun)
            FR_TRY(
                fr_buf_printf(out, err, "\n; ---- %s ----\n[%s]\n", section->title, section->name));
        begun = true;
        FR_TRY(reference_row((fr_opt_id)id, out, scratch, err));
    }
    return FR_OK;
}

static const char reference_head[] =
    "; Every option of ferry with its default. Written by ferry-cli --print-reference-ini: do not "
    "edit,\n"
    "; copy what you need into a file of your own and use it with --config FILE.\n"
    ";\n"
    "; Below each text stand the spellings for the command line and the name of the environment\n"
    "; variable. Every spelling, without its dashes, and llama-server's LLAMA_ARG_ names are keys "
    "here\n"
    "; too. Order: default < this file < environment < command line.\n"
    ";\n"
    "; - The sections below are global, like [*] and keys before the first section; which of them "
    "a key\n"
    ";   stands in does not matter. Any other section is a preset: --preset NAME applies [NAME] "
    "over the\n"
    ";   global keys.\n"
    "; - [gpu.N] [ram] [numa.N] [links] [link.N] [disk] describe the machine.\n"
    "; - Comments begin with ; or # at the start of a line or after a blank. A value may be put "
    "between\n"
    ";   double quotes (\\\" and \\\\ are escapes) or single quotes (nothing is).\n"
    "; - A list option may be repeated; its items add up. switches: on, true, 1, enabled, yes or "
    "off,\n"
    ";   false, 0, disabled, no; no-X = on is X = off.\n"
    "; - A relative path counts from the folder of the INI file.\n";

fr_status fr_opts_reference_ini(fr_buf *text, fr_err *err)
{
    fr_buf scratch = {0};
    fr_status st;
    FR_TRY_OUT(st, fr_buf_puts(text, reference_head, err));
    for (const opts_section *s = opts_sections; s->name; s++)
        FR_TRY_OUT(st, reference_section(s, text, &scratch, err));
out:
    fr_buf_free(&scratch);
    return st;
}

/* ---- for the tools
 * --------------------------------------------------------------------------------- */

fr_status fr_opts_answer(const fr_options *o, bool *answered, fr_buf *text, fr_err *err)
{
    *answered = true;
    if (o->want_help)
        return fr_opts_help(o->tool, text, err);
    if (o->want_version)
        return fr_buf_printf(text, err, "%s %s\n", fr_tool_name(o->tool), FERRY_VERSION);
    if (o->want_reference_ini)
        return fr_opts_reference_ini(text, err);
    if (o->want_dump_config)
        return fr_opts_dump(o, text, err);
    *answered = false;
    return FR_OK;
}
