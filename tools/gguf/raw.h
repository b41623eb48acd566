/* What the subcommands on raw files share (decode, encode, repack): a matrix of ROWS x COLS without
 * any header, as the tensors of a GGUF file hold them. */
#ifndef FR_TOOLS_RAW_H
#define FR_TOOLS_RAW_H

#include "base/file.h"
#include "quant/qtype.h"

typedef struct {
    const char *command; /* "decode" */
    const char *help;    /* the text of --help */
    const char *option;  /* the one option that takes a value, "--to"; NULL: none */
} raw_command;

typedef struct {
    fr_type type;
    fr_layout layout; /* as TYPE names it */
    int64_t rows, cols;
    const char *in, *out;
    const char *value; /* of the command's option; NULL: not given */
} raw_args;

/* Reads TYPE ROWS COLS IN OUT and options. -1: go on; otherwise the exit status (help was printed,
 * or an error). */
int raw_parse(const raw_command *c, int argc, char **argv, raw_args *a);

/* "ferry-gguf COMMAND: text" on standard error; returns the exit status. */
int raw_fail(const raw_command *c, const fr_err *err);

/* Turns n_rows rows from row i_row on, at src, into rows at dst. */
typedef fr_status (*raw_convert_fn)(void *user, const void *src, int64_t i_row, int64_t n_rows,
                                    void *dst, fr_err *err);

/* One side of a conversion: how a matrix stands in a file. */
typedef struct {
    fr_type type;
    fr_layout layout;
} raw_form;

/* Converts the file `a->in` of the form `from` into the file `a->out` of the form `to`, some whole
 * groups of rows at a time. Both forms must suit the matrix. The input must have exactly the size
 * of the matrix; the output appears when it is complete. */
fr_status raw_convert(const raw_args *a, raw_form from, raw_form to, raw_convert_fn fn, void *user,
                      fr_err *err);

#endif
