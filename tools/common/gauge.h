/* The yardsticks (cpu/yardstick.h) of a benchmark: measured with the threads that it uses, before
 * and after what it times. */
#ifndef FR_TOOLS_GAUGE_H
#define FR_TOOLS_GAUGE_H

#include "cpu/cpu.h"

/* Memory to read, so that it does not come from caches: 1 GiB or four times the largest cache, as
 * far as a quarter of the memory that is free allows. */
size_t tool_stream_bytes(void);

typedef struct {
    fr_cpu *cpu; /* owned */
    void *map;   /* `bytes` of them, owned */
    size_t bytes;
} tool_gauge;

typedef struct {
    double read; /* GB/s */
    double int8; /* GOPS */
} tool_yards;

/* FR_ENOMEM. *out is empty on failure. */
fr_status tool_gauge_open(tool_gauge *out, fr_err *err);
void tool_gauge_close(tool_gauge *g); /* {0} is fine */

/* The threads and instruction set of the next measurements. */
fr_status tool_gauge_use(tool_gauge *g, int n_threads, fr_isa isa, fr_err *err);

/* Takes about half a second. */
tool_yards tool_gauge_measure(tool_gauge *g);

/* The yardsticks of a table's rows: what was measured before a row and after it counts. */
typedef struct {
    bool on;
    tool_gauge gauge;
    tool_yards before;
} tool_row_gauge;

/* on = false: the calls below do nothing, and their parts are 0. */
fr_status tool_row_gauge_open(bool on, int n_threads, fr_isa isa, tool_row_gauge *out, fr_err *err);
void tool_row_gauge_close(tool_row_gauge *g);

/* After a row: the mean of both measurements. */
tool_yards tool_row_gauge_measure(tool_row_gauge *g);

#endif
