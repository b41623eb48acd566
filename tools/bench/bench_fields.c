#include "bench/bench_fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    bench_field *fields;
    int n;
    fr_err *err;
    fr_status st;
} filler;

static fr_buf *next(filler *f, const char *name, bench_kind kind)
{
    bench_field *field = &f->fields[f->n++];
    *field = (bench_field){.name = name, .kind = kind};
    return &field->text;
}

static void text(filler *f, const char *name, const char *value)
{
    fr_buf *out = next(f, name, BENCH_TEXT);
    if (f->st == FR_OK)
        f->st = fr_buf_puts(out, value, f->err);
}

static void integer(filler *f, const char *name, int64_t value)
{
    fr_buf *out = next(f, name, BENCH_INT);
    if (f->st == FR_OK)
        f->st = fr_buf_printf(out, f->err, "%lld", (long long)value);
}

static void real(filler *f, const char *name, double value, int decimals, bool known)
{
    fr_buf *out = next(f, name, BENCH_REAL);
    f->fields[f->n - 1].missing = !known || !isfinite(value);
    if (f->st == FR_OK && known && isfinite(value))
        f->st = fr_buf_printf(out, f->err, "%.*f", decimals, value);
}

static void axis(filler *f, const bench_result *r, bench_axis a)
{
    char value[160];
    fr_buf *out = next(f, bench_axes[a].field, bench_axes[a].kind);
    bench_axis_value(r, a, value, sizeof value);
    if (f->st == FR_OK)
        f->st = fr_buf_puts(out, value, f->err);
}

static void flag(filler *f, const char *name, bool on)
{
    integer(f, name, on);
    f->fields[f->n - 1].kind = BENCH_BOOL;
}

/* "a=CPU;b=CPU" */
static void overrides(filler *f, const fr_options *o)
{
    fr_buf *out = next(f, "tensor_buft_overrides", BENCH_TEXT);
    if (o->override_tensor.n == 0 && f->st == FR_OK)
        f->st = fr_buf_puts(out, "none", f->err);
    for (size_t i = 0; i < o->override_tensor.n && f->st == FR_OK; i++)
        f->st = fr_buf_printf(out, f->err, "%s%s", i ? ";" : "", o->override_tensor.items[i].text);
    for (size_t i = 0; i < out->n; i++)
        out->p[i] = out->p[i] == ',' ? ';' : out->p[i];
}

static void samples(filler *f, const bench_result *r)
{
    fr_buf *ns = next(f, "samples_ns", BENCH_INTS), *ts = next(f, "samples_ts", BENCH_REALS);
    for (int i = 0; i < r->n && f->st == FR_OK; i++) {
        const char *comma = i ? "," : "";
        f->st = fr_buf_printf(ns, f->err, "%s%.0f", comma, r->seconds[i] * 1e9);
        if (f->st == FR_OK)
            f->st = fr_buf_printf(ts, f->err, "%s%.6f", comma, bench_speed(r, i));
    }
}

/* "model name" of the first processor; empty where there is none. */
static void processor(filler *f)
{
    fr_buf all = {0}, *out = next(f, "cpu_info", BENCH_TEXT);
    if (f->st == FR_OK)
        f->st = fr_buf_puts(out, "", f->err);
    if (f->st == FR_OK && fr_file_slurp("/proc/cpuinfo", 8 << 20, &all, NULL) == FR_OK) {
        const char *line = strstr(all.p, "model name"), *colon = line ? strchr(line, ':') : NULL;
        if (colon) {
            fr_str name = fr_str_trim((fr_str){colon + 1, strcspn(colon + 1, "\n")});
            f->st = fr_buf_add(out, name.p, name.n, f->err);
        }
    }
    fr_buf_free(&all);
}

static void times(filler *f, const bench_result *r)
{
    double ns[1000], ts[1000]; /* as many as --repetitions allows */
    for (int i = 0; i < r->n; i++) {
        ns[i] = r->seconds[i] * 1e9;
        ts[i] = bench_speed(r, i);
    }
    bench_mean time = bench_mean_of(ns, r->n), speed = bench_mean_of(ts, r->n);
    integer(f, "avg_ns", (int64_t)(time.mean + 0.5));
    integer(f, "stddev_ns", (int64_t)(time.deviation + 0.5));
    real(f, "avg_ts", speed.mean, 6, true);
    real(f, "stddev_ts", speed.deviation, 6, true);
}

static void yards(filler *f, const bench_result *r)
{
    const char *of;
    double part = bench_roofline(r, &of);
    real(f, "roofline", part, 4, r->has_yards);
    text(f, "roofline_of", of);
    real(f, "read_gbs_before", r->before.read, 2, r->has_yards);
    real(f, "read_gbs_after", r->after.read, 2, r->has_yards);
    real(f, "int8_gops_before", r->before.int8, 1, r->has_yards);
    real(f, "int8_gops_after", r->after.int8, 1, r->has_yards);
    integer(f, "token_bytes", (int64_t)r->model->token_bytes);
    integer(f, "token_ops", (int64_t)r->model->token_ops);
}

/* The fields that all have, in the ecosystem's order. */
static void known_fields(filler *f, const bench_result *r)
{
    text(f, "build_commit", BENCH_COMMIT);
    integer(f, "build_number", BENCH_NUMBER);
    processor(f);
    text(f, "gpu_info", r->gpu_info);
    text(f, "backends", r->backend);
    text(f, "model_filename", r->model_path);
    text(f, "model_type", r->model->description);
    integer(f, "model_size", (int64_t)r->model->bytes);
    integer(f, "model_n_params", r->model->n_params);
    axis(f, r, BENCH_BATCH);
    axis(f, r, BENCH_UBATCH);
    axis(f, r, BENCH_THREADS);
    axis(f, r, BENCH_CPU_MASK);
    axis(f, r, BENCH_CPU_STRICT);
    integer(f, "poll", r->o->poll);
    axis(f, r, BENCH_TYPE_K);
    axis(f, r, BENCH_TYPE_V);
    axis(f, r, BENCH_NGL);
    axis(f, r, BENCH_N_CPU_MOE);
    axis(f, r, BENCH_SPLIT_MODE);
    axis(f, r, BENCH_MAIN_GPU);
    axis(f, r, BENCH_NKVO);
    axis(f, r, BENCH_FLASH_ATTN);
    axis(f, r, BENCH_DEVICE);
    axis(f, r, BENCH_TENSOR_SPLIT);
    overrides(f, r->o);
    axis(f, r, BENCH_MMAP);
    flag(f, "embeddings", false);
    integer(f, "no_op_offload", 0);
    flag(f, "no_host", false);
    integer(f, "n_prompt", r->test->n_prompt);
    integer(f, "n_gen", r->test->n_gen);
    integer(f, "n_depth", r->test->n_depth);
}

fr_status bench_fields_of(const bench_result *r, bench_field *fields, int *n, fr_err *err)
{
    filler f = {.fields = fields, .err = err};
    char when[32] = "";
    struct tm utc;
    if (gmtime_r(&r->when, &utc))
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    known_fields(&f, r);
    text(&f, "test_time", when);
    times(&f, r);
    text(&f, "test", r->test->name);
    axis(&f, r, BENCH_MLA);
    axis(&f, r, BENCH_AMB);
    axis(&f, r, BENCH_REPACK);
    text(&f, "isa", fr_isa_name(r->isa));
    integer(&f, "n_threads_batch", r->n_threads_batch);
    yards(&f, r);
    samples(&f, r);
    *n = f.n;
    return f.st;
}

void bench_fields_free(bench_field *fields, int n)
{
    for (int i = 0; i < n; i++)
        fr_buf_free(&fields[i].text);
}
