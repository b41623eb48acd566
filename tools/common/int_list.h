/* Lists of numbers on the command lines of benchmarks. */
#ifndef FR_TOOLS_INT_LIST_H
#define FR_TOOLS_INT_LIST_H

#include "opts/opts.h"

typedef struct {
    int64_t *v; /* n, owned: fr_mem_free */
    size_t n, cap;
} tool_ints;

/* "8", "1,2,4", "512-2048+512", "1-64*2": numbers from low to high, appended to *out. `name` is the
 * option, for errors: FR_EINVAL, FR_ERANGE. */
fr_status tool_ints_parse(const char *name, const char *text, int64_t low, int64_t high,
                          tool_ints *out, fr_err *err);

/* All items of a list option; of an empty one, the number `otherwise`. */
fr_status tool_ints_of(const char *name, const fr_opt_list *list, int64_t low, int64_t high,
                       int64_t otherwise, tool_ints *out, fr_err *err);

#endif
