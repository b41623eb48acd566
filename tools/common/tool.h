/* What the tools that run a model share. Tools print and return exit statuses; nobody else does. */
#ifndef FR_TOOLS_TOOL_H
#define FR_TOOLS_TOOL_H

#include "engine/engine.h"
#include "opts/opts.h"

/* Exit statuses: 0, TOOL_FAILED, and TOOL_USAGE for a bad command line. */
enum { TOOL_FAILED = 1, TOOL_USAGE = 2 };

/* "TOOL: error: text" on standard error; returns TOOL_FAILED. */
int tool_fail(fr_tool tool, const fr_err *err);

/* Standard output cannot be written: FR_EIO with the reason from errno. */
fr_status tool_fail_output(fr_err *err);

/* Parses the options; from now on a mapped file that is cut short ends the tool with an error that
 * names it, not with a signal (SIGBUS). False when the tool shall leave at once with *status: a bad
 * command line (reported), or --help and its like (printed). */
bool tool_options(int argc, char **argv, fr_tool tool, fr_options *o, int *status);

/* Engine settings from the options; the path stays owned by o. Loading shows a progress bar on a
 * terminal. */
fr_status tool_engine_config(const fr_options *o, fr_engine_config *cfg, fr_err *err);

/* One line each about the loaded model, on standard error. */
void tool_print_model(const fr_engine *e);

/* The memory in use and its peak, by purpose, on standard error (--memory-report). */
void tool_memory_report(const fr_engine *e);

/* The sampler that the options describe, for a model's vocabulary and context. */
fr_status tool_sampler(const fr_options *o, const fr_engine *e, fr_sampler **out, fr_err *err);

/* Appends text with \n, \r, \t, \', \", \\ and \xHH replaced by what they stand for; other
 * backslashes stay. */
fr_status tool_unescape(const char *text, fr_buf *out, fr_err *err);

#endif
