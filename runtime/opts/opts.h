/* Options: one table (options.def) gives struct, command line, INI keys, environment, --help,
 * --dump-config and configs/reference.ini.
 *
 * Order: default < INI file < environment (FERRY_*) < command line. Within the INI file the section
 * chosen with --preset goes before everything global. A level replaces the level below it, also for
 * lists; inside one level, repeated list options accumulate. This box is the only reader of the
 * environment. One thread at a time. */
#ifndef FR_OPTS_OPTS_H
#define FR_OPTS_OPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

/* The tools, as a mask: an option says which of them take it. */
typedef enum {
    FR_TOOL_CLI = 1,
    FR_TOOL_TOKENIZE = 2,
    FR_TOOL_LOGITS = 4,
    FR_TOOL_GGUF = 8,
    FR_TOOL_SERVER = 16,
    FR_TOOL_PLAN = 32,
    FR_TOOL_BENCH = 64,
    FR_TOOL_QUANTIZE = 128,
    FR_TOOL_PERPLEXITY = 256,
    FR_TOOL_IMATRIX = 512,
    FR_TOOL_SWEEP = 1024,
    FR_TOOL_BATCHED = 2048
} fr_tool;

typedef enum {
#define OPT(TYPE, field, ...) FR_OPT_##field,
#include "opts/options.def"
#undef OPT
    FR_OPT_COUNT
} fr_opt_id;

typedef enum { FR_FROM_DEFAULT, FR_FROM_INI, FR_FROM_ENV, FR_FROM_CLI } fr_opt_source;

/* Where a value came from. */
typedef struct {
    fr_opt_source source;
    const char *file; /* INI: its path, owned by the fr_options */
    int line;         /* INI: line; CLI: index in argv */
} fr_opt_origin;

/* One item of a list option, or a positional argument. */
typedef struct {
    char *text; /* owned by the fr_options */
    fr_opt_origin origin;
} fr_opt_item;

typedef struct {
    fr_opt_item *items; /* n, in the order given; owned */
    size_t n, cap;
} fr_opt_list;

/* A value of an option that ferry-bench takes several of (MANY in options.def), as it stands on the
 * command line: "1,2,4". The option's field keeps its default, or what the INI file says. */
typedef struct {
    fr_opt_id id;
    bool negated; /* switches: the values count the other way round */
    char *text;   /* owned by the fr_options */
} fr_opt_many;

/* A key of a hardware section ([gpu.N] [ram] [numa.N] [links] [link.N] [disk]), kept as written. */
typedef struct {
    char *section, *key, *value; /* owned; quotes and comments are off, a bare key cannot occur */
    const char *file;            /* owned by the fr_options */
    int line;
} fr_hw_record;

/* The C types of the struct's fields. Texts and paths are owned and NULL when not given; an ENUM is
 * the canonical name of the choice (never NULL); a SIZE is in bytes (-1 where the option allows
 * it). */
#define FR_OPT_C_BOOL   bool
#define FR_OPT_C_INT    int32_t
#define FR_OPT_C_INT64  int64_t
#define FR_OPT_C_FLOAT  float
#define FR_OPT_C_SIZE   int64_t
#define FR_OPT_C_STRING char *
#define FR_OPT_C_PATH   char * /* relative ones of an INI file are relative to the file's folder */
#define FR_OPT_C_ENUM   char *
#define FR_OPT_C_LIST   fr_opt_list
#define FR_OPT_C_PATHS  fr_opt_list

typedef struct {
#define OPT(TYPE, field, ...) FR_OPT_C_##TYPE field;
#include "opts/options.def"
#undef OPT
    fr_opt_list args;  /* positional arguments */
    fr_opt_many *many; /* n_many, in the order given; owned; ferry-bench only */
    size_t n_many, cap_many;
    fr_hw_record *hw;
    size_t n_hw, cap_hw;
    fr_tool tool;
    fr_opt_origin origins[FR_OPT_COUNT]; /* of a list: its last item */
} fr_options;

/* Parses argv[1..argc), the environment and the INI file of --config into *out, for one tool. Sets
 * the log level (--log-level, -v, --log-disable), then logs what the user must know: options of
 * other tools, options that ferry does not need, unknown FERRY_ variables. On failure *out is
 * empty: FR_EINVAL for an unknown name (with the nearest one) or a malformed value, FR_ERANGE,
 * FR_EUNSUPPORTED for an option that is refused, FR_EFORMAT for an INI file, FR_ENOTFOUND, FR_EIO,
 * FR_ENOMEM. */
fr_status fr_opts_parse(int argc, char **argv, fr_tool tool, fr_options *out, fr_err *err);

/* Frees what the struct owns and empties it; {0} is fine. */
void fr_opts_free(fr_options *o);

fr_opt_origin fr_opts_origin(const fr_options *o, fr_opt_id id);

/* FR_EINVAL, naming all spellings, when an option that the tool cannot do without was not given. */
fr_status fr_opts_require(const fr_options *o, fr_opt_id id, fr_err *err);

/* Sets one option (no list) as the command line would: for a tool that runs through several
 * settings. The error says "found X, expected Y" without the option's name. */
fr_status fr_opts_assign(fr_options *o, fr_opt_id id, const char *text, bool negated, fr_err *err);

/* Path of a file that ferry keeps between runs: in $XDG_CACHE_HOME/ferry or ~/.cache/ferry; empty
 * when neither is there. Folders may be missing. FR_ENOMEM. */
fr_status fr_opts_cache_file(const char *name, fr_buf *out, fr_err *err);

/* The text that --help, --version, --dump-config or --print-reference-ini asks for: a tool prints
 * it and leaves. *answered = false when none of them was given. */
fr_status fr_opts_answer(const fr_options *o, bool *answered, fr_buf *text, fr_err *err);

/* The parts of it; each appends to *text. The dump is an INI file again, its comments are the
 * origins (default, FILE:LINE, environment, command line); secrets are masked. */
fr_status fr_opts_help(fr_tool tool, fr_buf *text, fr_err *err);
fr_status fr_opts_dump(const fr_options *o, fr_buf *text, fr_err *err);
fr_status fr_opts_reference_ini(fr_buf *text, fr_err *err);

/* "ferry-cli"; never NULL. */
const char *fr_tool_name(fr_tool tool);

#endif
