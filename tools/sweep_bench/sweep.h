/* What the parts of ferry-sweep-bench share: a run, measured here or read from a table. */
#ifndef FR_TOOLS_SWEEP_H
#define FR_TOOLS_SWEEP_H

#include "base/file.h"
#include "common/tool.h"

/* One depth: a prompt of pp tokens, and tg generated ones, both behind n_kv tokens. */
typedef struct {
    int64_t pp, tg, n_kv;
    double t_pp, t_tg;         /* seconds */
    double speed_pp, speed_tg; /* tokens a second */
    double of_int8, of_read;   /* parts of what the machine can do; 0: not measured */
} sweep_row;

typedef struct {
    char *label;     /* owned */
    sweep_row *rows; /* n, owned */
    size_t n, cap;
} sweep_table;

fr_status sweep_add_row(sweep_table *t, const sweep_row *row, fr_err *err);
void sweep_table_free(sweep_table *t); /* {0} is fine */

/* Finds the tables in the output of a sweep bench, this one's or another's: lines of cells between
 * bars, the first of which names the columns (also those of a batched bench), or such rows as lines
 * of JSON; and tables of tests (ferry-bench, llama-bench) at depths: "pp512 @ d4096",
 * "tg64@pp4096". Other columns and other text are passed over. Rows of several tables in one text
 * follow one another; of a test at one depth that is there more than once, each is a row.
 * FR_EFORMAT without a row. `name` is for errors. */
fr_status sweep_table_parse(const char *name, const char *text, size_t n, sweep_table *out,
                            fr_err *err);

/* Reads such a file; the label is its name without folder and ending. */
fr_status sweep_table_read(const char *path, sweep_table *out, fr_err *err);

/* Measures with the options' model, printing as it goes, and writes --json. *out is empty on
 * failure. */
fr_status sweep_measure(const fr_options *o, sweep_table *out, fr_err *err);

/* Draws both speeds of all tables over the depth. */
fr_status sweep_plot(const char *path, const sweep_table *tables, size_t n, fr_err *err);

#endif
