/* The parts of ferry-plan. */
#ifndef FR_TOOLS_PLAN_TOOL_H
#define FR_TOOLS_PLAN_TOOL_H

#include "common/placement.h"
#include "common/tool.h"

/* Exit status for "no": the model does not fit, or two plans differ. */
enum { PLAN_NO = 3 };

/* Each writes to standard output and returns an exit status, after reporting what went wrong. */
int plan_run(const fr_options *o);      /* plans, and prints what the options ask for */
int plan_kv_table(const fr_options *o); /* --kv-table */
int plan_compare(const fr_options *o);  /* --diff */
int plan_probe(const fr_options *o);    /* --probe */

/* Writes text to standard output and frees it; returns 0, or TOOL_FAILED after a report. */
int plan_write(fr_buf *text);

/* Opens the headers of -m and what they describe; both are closed by the caller. */
fr_status plan_open_model(const fr_options *o, fr_gguf **g, fr_model **m, fr_err *err);

#endif
