/* The options that ferry-bench measures several values of: "-t 8,16 -ctk f16,q8_0". Each has a
 * column in the table, shown when it is not the default, and a field in the other formats. */
#ifndef FR_TOOLS_BENCH_AXES_H
#define FR_TOOLS_BENCH_AXES_H

#include "common/tool.h"

/* In the order of the columns. */
typedef enum {
    BENCH_NGL,
    BENCH_N_CPU_MOE,
    BENCH_THREADS,
    BENCH_CPU_MASK,
    BENCH_CPU_STRICT,
    BENCH_BATCH,
    BENCH_UBATCH,
    BENCH_TYPE_K,
    BENCH_TYPE_V,
    BENCH_MAIN_GPU,
    BENCH_SPLIT_MODE,
    BENCH_NKVO,
    BENCH_FLASH_ATTN,
    BENCH_MLA,
    BENCH_AMB,
    BENCH_DEVICE,
    BENCH_TENSOR_SPLIT,
    BENCH_MMAP,
    BENCH_REPACK,
    BENCH_AXES
} bench_axis;

typedef enum { BENCH_TEXT, BENCH_INT, BENCH_BOOL, BENCH_REAL, BENCH_INTS, BENCH_REALS } bench_kind;

typedef struct {
    fr_opt_id option;
    const char *flag;           /* for errors */
    const char *field, *column; /* names in CSV, JSON and SQL, and in the table */
    int width;                  /* of the column; < 0: left */
    bench_kind kind;
    const char *dflt; /* what bench_axis_text says of the default */
    bool numbers;     /* ranges are expanded */
} bench_axis_info;

extern const bench_axis_info bench_axes[BENCH_AXES];

typedef struct {
    char **v; /* n, owned: values as the option reads them; threads: "8", or "8,16" with those for
                 prompts */
    size_t n, cap;
} bench_values;

/* The values given for each axis; none: n = 0. Tries each, so that *o has the last ones afterwards.
 * FR_EINVAL and FR_ERANGE name option and value. Free also after a failure. */
fr_status bench_values_read(fr_options *o, bench_values out[BENCH_AXES], fr_err *err);
void bench_values_free(bench_values v[BENCH_AXES]);

fr_status bench_axis_assign(fr_options *o, bench_axis a, const char *value, fr_err *err);

/* Assigns what was given where it can be one value only: `with` says where. FR_EINVAL. */
fr_status bench_assign_single(fr_options *o, const char *with, fr_err *err);

/* The value that *o has now, as table and fields show it. Of BENCH_THREADS and BENCH_NGL what was
 * asked for: the engine may know better. */
void bench_axis_text(const fr_options *o, bench_axis a, char *out, size_t n);

#endif
