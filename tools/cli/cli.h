/* The parts of ferry-cli. */
#ifndef FR_TOOLS_CLI_H
#define FR_TOOLS_CLI_H

#include "common/tool.h"

/* Exit status after Ctrl-C, as shells have it. */
enum { CLI_INTERRUPTED = 130 };

typedef struct {
    const fr_options *o;
    fr_engine *engine;
    fr_session *session;
    fr_sampler *sampler;
    const char **stops; /* texts of --reverse-prompt, unescaped; owned */
    size_t n_stops;
    bool colour;      /* the terminal shows colours and the user wants them */
    bool interrupted; /* Ctrl-C ended a text that nobody can take up again */
} cli;

/* Ctrl-C stops a running generation; otherwise, and a second time, it leaves. Between begin and end
 * a generation runs; end tells whether it was interrupted. */
void cli_signals_init(void);
void cli_generation_begin(fr_session *s);
bool cli_generation_end(void);
bool cli_interrupted(void);

/* Generates after what the session holds, printing as text comes (and appending it to *text unless
 * NULL). */
fr_status cli_generate(cli *c, fr_buf *text, fr_generate_result *result, fr_err *err);

/* Reads a line from standard input, without its newline. False at the end of input or after Ctrl-C.
 */
bool cli_read_line(const cli *c, const char *prompt, fr_buf *line);

/* Prints to standard output, coloured as what the user gave. */
void cli_print_given(const cli *c, const char *text, size_t n);

/* The two ways to run: continue a text (then, with -i, what the user adds), or talk in turns. */
fr_status cli_complete(cli *c, fr_err *err);
fr_status cli_converse(cli *c, fr_err *err);

#endif
