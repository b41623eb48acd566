/* What the files of this box share. */
#ifndef FR_OPTS_OPTS_INTERNAL_H
#define FR_OPTS_OPTS_INTERNAL_H

#include "base/log.h"
#include "opts/opts.h"

/* ---- the table (opts_table.c)
 * -------------------------------------------------------------------- */

typedef enum {
    OPTS_BOOL,
    OPTS_INT,
    OPTS_INT64,
    OPTS_FLOAT,
    OPTS_SIZE,
    OPTS_STRING,
    OPTS_PATH,
    OPTS_ENUM,
    OPTS_LIST,
    OPTS_PATHS
} opts_type;

/* Flags of a row (options.def says what they mean). */
enum {
    OPTS_OPTARG = 1,
    OPTS_NO_INI = 2,
    OPTS_NO_ENV = 4,
    OPTS_SECRET = 8,
    OPTS_LATER = 16,
    OPTS_REFUSED = 32,
    OPTS_MANY = 64
};

typedef struct {
    opts_type type;
    size_t offset;     /* of the field in fr_options */
    const char *dflt;  /* NULL: not set */
    double low, high;  /* numbers; SIZE: in MiB */
    const char *words; /* ENUM: "name:alias ..."; INT: "word=number ..."; else NULL */
    const char *section, *names;
    unsigned tools, flags;
    const char *value, *help, *note;
} opts_row;

extern const opts_row opts_rows[FR_OPT_COUNT];

typedef struct {
    const char *name, *title;
} opts_section;

/* In the order of --help and of the reference file; ends with a NULL name. */
extern const opts_section opts_sections[];

/* Positional arguments that a tool takes, and what --help shows after its name. */
size_t opts_max_args(fr_tool tool);
const char *opts_usage(fr_tool tool);

/* The next blank-separated word of *rest, which moves on; n == 0 at the end. */
fr_str opts_next_word(const char **rest);

/* One spelling of an option: "--top-p" has the bare name "top-p". */
typedef struct {
    fr_str spelled; /* with dashes, without "!" */
    fr_str bare;
    bool negates;
    bool ini_only; /* LLAMA_ARG_* */
} opts_name;

/* The next spelling in *rest (a row's names); false at the end. */
bool opts_next_name(const char **rest, opts_name *out);

/* The first spelling: bare form = INI key. */
opts_name opts_first_name(fr_opt_id id);

typedef struct {
    fr_opt_id id;
    bool negated; /* the value counts the other way round */
} opts_match;

/* Finds the option that a bare name means to a tool; '-' and '_' are the same. Of two options with
 * one name, the tool's own wins. */
bool opts_find(fr_str bare, fr_tool tool, bool in_ini, opts_match *out);

/* The nearest spelling, or n == 0 when nothing is near. */
fr_str opts_nearest(fr_str bare, fr_tool tool, bool in_ini);

/* Whether an option can be negated with no-X. */
bool opts_is_switch(const opts_row *row);

bool opts_is_list(const opts_row *row);

/* "FERRY_TOP_P" for an option; out holds OPTS_ENV_MAX bytes. */
#define OPTS_ENV_MAX 64
void opts_env_name(fr_opt_id id, char out[OPTS_ENV_MAX]);

/* ---- values (opts_value.c)
 * ----------------------------------------------------------------------- */

/* Sets the option's field from text. A list gets one item more (an empty text adds none). On
 * failure the field is as it was and the error says "found X, expected Y", without the name of the
 * option. */
fr_status opts_set(fr_options *o, fr_opt_id id, const char *text, bool negated,
                   fr_opt_origin origin, fr_err *err);

/* Whether opts_set would take this text: for options whose value may be left out. */
bool opts_accepts(fr_opt_id id, const char *text);

/* The value as it would stand in an INI file; of a list, item i. Nothing for an unset text. */
fr_status opts_format(const fr_options *o, fr_opt_id id, size_t i, fr_buf *out, fr_err *err);

/* What the option takes: "a number from 0 to 1", "one of on, off, auto". */
fr_status opts_expected(fr_opt_id id, fr_buf *out, fr_err *err);

fr_status opts_set_defaults(fr_options *o, fr_err *err);
fr_status opts_add_many(fr_options *o, fr_opt_id id, const char *text, bool negated, fr_err *err);
void opts_clear_list(fr_opt_list *list);
fr_status opts_add_item(fr_opt_list *list, const char *text, size_t n, fr_opt_origin origin,
                        fr_err *err);

/* on/off words of INI files and of optional arguments. */
bool opts_parse_bool(const char *text, bool *out);

static inline void *opts_field(const fr_options *o, fr_opt_id id)
{
    return (char *)(uintptr_t)o + opts_rows[id].offset;
}

/* ---- INI files (opts_ini.c)
 * ---------------------------------------------------------------------- */

/* Called for every [section] (key and value NULL) and every key = value, in order. `section` is ""
 * before the first header. Texts live during the call. A failure ends the parse and is its result.
 */
typedef fr_status (*opts_ini_fn)(void *user, const char *section, const char *key,
                                 const char *value, int line, fr_err *err);

/* Reads the n bytes of text at p; `path` is for error texts, which begin with "path:line: ". */
fr_status opts_ini_parse(const char *path, const char *p, size_t n, opts_ini_fn fn, void *user,
                         fr_err *err);

/* Appends a value as it can stand in an INI file: quoted when it must be. */
fr_status opts_ini_quote(const char *value, fr_buf *out, fr_err *err);

/* ---- levels (opts_merge.c)
 * ----------------------------------------------------------------------- */

/* Who set an option last; a higher level replaces, the same level adds to a list. */
typedef enum { OPTS_AT_DEFAULT, OPTS_AT_INI, OPTS_AT_PRESET, OPTS_AT_ENV, OPTS_AT_CLI } opts_level;

typedef struct {
    fr_options *o;
    unsigned char level[FR_OPT_COUNT]; /* opts_level */
    fr_buf notes;                      /* log lines to come: level, text, 0 each */
} opts_merge;

/* opts_set for one level. `text` was written for opt.id; the error does not name the option. */
fr_status opts_apply(opts_merge *m, opts_level level, opts_match opt, const char *text,
                     fr_opt_origin origin, fr_err *err);

/* Keeps a line for the log, which has its level only when everything is read. */
fr_status opts_note(opts_merge *m, fr_log_level level, fr_err *err, const char *fmt, ...)
    FR_PRINTF(4, 5);

/* Sends the lines to the log. */
void opts_flush_notes(opts_merge *m);

/* Applies the file o->config with preset o->preset (may be NULL) and keeps its hardware sections.
 */
fr_status opts_apply_file(opts_merge *m, fr_err *err);

/* Applies FERRY_* variables: all of them, or only those of --config and --preset. */
fr_status opts_apply_env(opts_merge *m, bool only_file, fr_err *err);

/* Notes unknown FERRY_* variables, and LLAMA_ARG_* ones, which are not read. */
fr_status opts_check_env(opts_merge *m, fr_err *err);

#endif
