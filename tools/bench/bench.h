/* What the parts of ferry-bench share: settings, tests, results. */
#ifndef FR_TOOLS_BENCH_H
#define FR_TOOLS_BENCH_H

#include <time.h>

#include "common/gauge.h"
#include "common/model_work.h"
#include "common/tool.h"

/* ---- what to measure (bench_plan.c) ---------------------------------------------------------- */

typedef struct {
    const char *model;
    int64_t mla, n_batch, n_ubatch, n_threads; /* n_threads 0: one per core */
    const char *type_k, *type_v;
} bench_setting;

typedef struct {
    char name[48]; /* "pp512", "tg128 @ d4096", "tg64@pp512" */
    int64_t n_prompt, n_gen, n_depth;
} bench_test;

/* Every setting is measured with every test. Settings that the table needs a column for differ from
 * the default or among themselves. */
typedef struct {
    bench_setting *settings; /* n_settings, owned; texts belong to the options or to `texts` */
    size_t n_settings;
    bench_test *tests; /* n_tests, owned */
    size_t n_tests;
    int64_t n_ctx;   /* the longest test */
    int64_t longest; /* most tokens computed in one call */
    bool show_mla, show_batch, show_ubatch, show_type_k, show_type_v;
    fr_opt_list texts; /* items of lists, owned */
} bench_plan;

/* Reads the lists of the options. FR_EINVAL and FR_ERANGE name option and item. */
fr_status bench_plan_make(const fr_options *o, bench_plan *out, fr_err *err);
void bench_plan_free(bench_plan *p); /* {0} is fine */

/* ---- one result ------------------------------------------------------------------------------ */

typedef struct {
    const bench_setting *setting;
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

/* Tokens a second of repetition i. */
double bench_speed(const bench_result *r, int i);

/* The part of what the machine can do at most, by the mean of both yardsticks: prompts of the int8
 * operations, generation of the reading speed, both: of the time that the two would take. *of is
 * "int8", "read" or "both". 0 without yardsticks. */
double bench_roofline(const bench_result *r, const char **of);

/* ---- printing (bench_print.c) ---------------------------------------------------------------- */

typedef struct {
    const char *format; /* md csv json jsonl sql */
    const bench_plan *plan;
    bool roofline;
    size_t n; /* results so far */
    tool_yards least, most;
} bench_printer;

/* Prints a result on standard output, before the first one the head. FR_EIO, FR_ENOMEM. */
fr_status bench_print(bench_printer *p, const bench_result *r, fr_err *err);

/* What comes after the last one; nothing when there was none. Also after a failure: what was
 * printed is then complete in its format. */
fr_status bench_print_end(bench_printer *p, fr_err *err);

/* ---- running --------------------------------------------------------------------------------- */

/* Measures and prints every setting with every test. */
fr_status bench_run(const fr_options *o, const bench_plan *p, bench_printer *printer, fr_err *err);

/* --kernels: a table of the CPU kernels of the types in o->args, or of all. */
fr_status bench_kernels(const fr_options *o, fr_err *err);

/* --load: a table of the speed of loading the models. */
fr_status bench_load(const fr_options *o, fr_err *err);

#endif
