/* What the parts of ferry-bench share: settings, tests, results. */
#ifndef FR_TOOLS_BENCH_H
#define FR_TOOLS_BENCH_H

#include <stdio.h>
#include <time.h>

#include "bench/bench_axes.h"
#include "common/gauge.h"
#include "common/model_work.h"
#include "common/tool.h"

/* ---- what to measure (bench_plan.c) ---------------------------------------------------------- */

typedef struct {
    const char *model;
    const char *value[BENCH_AXES]; /* NULL: not given, as the options have it */
} bench_setting;

typedef struct {
    char name[48]; /* "pp512", "tg128 @ d4096", "tg64@pp512" */
    int64_t n_prompt, n_gen, n_depth;
} bench_test;

/* Every setting is measured with every test. */
typedef struct {
    bench_setting *settings; /* n_settings, owned; texts belong to `values` or to `texts` */
    size_t n_settings;
    bench_test *tests; /* n_tests, owned */
    size_t n_tests;
    int64_t n_ctx;         /* the longest test */
    int64_t longest;       /* most tokens computed in one call */
    bool show[BENCH_AXES]; /* columns: what differs from the default, or among the settings */
    bench_values values[BENCH_AXES];
    fr_opt_list texts; /* paths of models, owned */
} bench_plan;

/* Reads the lists of the options; *o has the last values of each afterwards. FR_EINVAL and
 * FR_ERANGE name option and item. */
fr_status bench_plan_make(fr_options *o, bench_plan *out, fr_err *err);
void bench_plan_free(bench_plan *p); /* {0} is fine */

/* What stands for a build's commit and number. */
#define BENCH_COMMIT "ferry-" FERRY_VERSION
enum { BENCH_NUMBER = 0 };

/* ---- one result ------------------------------------------------------------------------------ */

typedef struct {
    const fr_options *o; /* with the setting's values */
    const char *model_path, *backend, *gpu_info;
    const bench_test *test;
    const tool_model_work *model;
    int n_threads, n_threads_batch;
    fr_isa isa;
    const double *seconds; /* of n repetitions */
    int n;
    bool has_yards;
    tool_yards before, after;
    time_t when; /* the test began */
} bench_result;

typedef struct {
    double mean, deviation; /* of a sample: n - 1 */
} bench_mean;

/* Over n > 0 values; the deviation of one value is 0. */
bench_mean bench_mean_of(const double *v, int n);

/* What ran of an axis: bench_axis_text, but for threads and layers what the engine chose. */
void bench_axis_value(const bench_result *r, bench_axis a, char *out, size_t n);

/* Tokens a second of repetition i. */
double bench_speed(const bench_result *r, int i);

/* The part of what the machine can do at most, by the mean of both yardsticks: prompts of the int8
 * operations, generation of the reading speed, both: of the time that the two would take. *of is
 * "int8", "read" or "both". 0 without yardsticks. */
double bench_roofline(const bench_result *r, const char **of);

/* ---- printing (bench_print.c) ---------------------------------------------------------------- */

typedef struct {
    FILE *to;
    const char *format; /* md csv json jsonl sql */
    const bench_plan *plan;
    bool roofline;
    bool show_ngl;
    size_t n; /* results so far */
    tool_yards least, most;
} bench_printer;

/* Prints a result, before the first one the head. FR_EIO, FR_ENOMEM. */
fr_status bench_print(bench_printer *p, const bench_result *r, fr_err *err);

/* What comes after the last one; nothing when there was none. Also after a failure: what was
 * printed is then complete in its format. */
fr_status bench_print_end(bench_printer *p, fr_err *err);

/* ---- running --------------------------------------------------------------------------------- */

/* Measures every setting with every test, and prints on each of the n printers. */
fr_status bench_run(fr_options *o, const bench_plan *p, bench_printer *printers, int n,
                    fr_err *err);

/* --kernels: a table of the CPU kernels of the types in o->args, or of all. */
fr_status bench_kernels(fr_options *o, fr_err *err);

/* --load: a table of the speed of loading the models. */
fr_status bench_load(fr_options *o, fr_err *err);

#endif
