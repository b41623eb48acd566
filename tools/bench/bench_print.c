/* Results in the formats that people paste and programs read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_fields.h"
#include "common/json_out.h"

/* ---- markdown -------------------------------------------------------------------------------- */

/* Columns of the table, in their order. width < 0: left. */
typedef struct {
    const char *title;
    int width;
    bool shown;
} column;

enum {
    MODEL,
    SIZE,
    PARAMS,
    BACKEND,
    THREADS,
    BATCH,
    UBATCH,
    TYPE_K,
    TYPE_V,
    MLA,
    TEST,
    SPEED,
    ROOFLINE,
    N_COLUMNS
};

static void columns_of(const bench_printer *p, column *c)
{
    const bench_plan *plan = p->plan;
    c[MODEL] = (column){"model", -30, true};
    c[SIZE] = (column){"size", 10, true};
    c[PARAMS] = (column){"params", 10, true};
    c[BACKEND] = (column){"backend", -10, true};
    c[THREADS] = (column){"threads", 7, true};
    c[BATCH] = (column){"n_batch", 7, plan->show_batch};
    c[UBATCH] = (column){"n_ubatch", 8, plan->show_ubatch};
    c[TYPE_K] = (column){"type_k", 6, plan->show_type_k};
    c[TYPE_V] = (column){"type_v", 6, plan->show_type_v};
    c[MLA] = (column){"mla", 3, plan->show_mla};
    c[TEST] = (column){"test", 15, true};
    c[SPEED] = (column){"t/s", 20, true};
    c[ROOFLINE] = (column){"roofline", 12, p->roofline};
}

static void print_head(const bench_printer *p)
{
    static const char dashes[] = "------------------------------";
    column c[N_COLUMNS];
    columns_of(p, c);
    putchar('|');
    for (int i = 0; i < N_COLUMNS; i++)
        if (c[i].shown)
            printf(" %*s |", c[i].width, c[i].title);
    printf("\n|");
    for (int i = 0; i < N_COLUMNS; i++)
        if (c[i].shown)
            printf(" %.*s%c |", abs(c[i].width) - 1, dashes, c[i].width > 0 ? ':' : '-');
    putchar('\n');
}

static void print_row(const bench_printer *p, const bench_result *r)
{
    char cell[N_COLUMNS][160];
    const char *of;
    double part = bench_roofline(r, &of), gib = (double)r->model->bytes / (1 << 30);
    double speeds[1000]; /* as many as --repetitions allows */
    column c[N_COLUMNS];
    for (int i = 0; i < r->n; i++)
        speeds[i] = bench_speed(r, i);
    bench_mean speed = bench_mean_of(speeds, r->n);
    snprintf(cell[MODEL], sizeof *cell, "%s", r->model->description);
    snprintf(cell[SIZE], sizeof *cell, "%.2f %s", gib >= 1 ? gib : gib * 1024,
             gib >= 1 ? "GiB" : "MiB");
    snprintf(cell[PARAMS], sizeof *cell, "%.2f %c",
             (double)r->model->n_params * (r->model->n_params >= 1000000000 ? 1e-9 : 1e-6),
             r->model->n_params >= 1000000000 ? 'B' : 'M');
    snprintf(cell[BACKEND], sizeof *cell, "CPU");
    snprintf(cell[THREADS], sizeof *cell, "%d", r->n_threads);
    snprintf(cell[BATCH], sizeof *cell, "%lld", (long long)r->setting->n_batch);
    snprintf(cell[UBATCH], sizeof *cell, "%lld", (long long)r->setting->n_ubatch);
    snprintf(cell[TYPE_K], sizeof *cell, "%s", r->setting->type_k);
    snprintf(cell[TYPE_V], sizeof *cell, "%s", r->setting->type_v);
    snprintf(cell[MLA], sizeof *cell, "%lld", (long long)r->setting->mla);
    snprintf(cell[TEST], sizeof *cell, "%s", r->test->name);
    snprintf(cell[SPEED], sizeof *cell, "%.2f ± %.2f", speed.mean, speed.deviation);
    snprintf(cell[ROOFLINE], sizeof *cell, "%.0f %% %s", 100 * part, of);
    columns_of(p, c);
    putchar('|');
    for (int i = 0; i < N_COLUMNS; i++) /* "±" has two bytes in one column */
        if (c[i].shown)
            printf(" %*s |", c[i].width + (i == SPEED), cell[i]);
    putchar('\n');
}

static void print_foot(const bench_printer *p)
{
    printf("\nbuild: ferry %s\n", FERRY_VERSION);
    if (p->roofline)
        printf("yardsticks: reading %.1f to %.1f GB/s, int8 products %.0f to %.0f GOPS\n",
               p->least.read, p->most.read, p->least.int8, p->most.int8);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static void print_quoted(const char *text, char quote)
{
    putchar(quote);
    for (const char *c = text; *c; c++) {
        if (*c == quote)
            putchar(quote);
        putchar(*c);
    }
    putchar(quote);
}

static void print_csv(const bench_field *f, int n, bool first)
{
    for (int i = 0; first && i < n; i++)
        printf("%s%s", i ? "," : "", f[i].name);
    if (first)
        putchar('\n');
    for (int i = 0; i < n; i++) {
        if (i)
            putchar(',');
        if (!f[i].missing)
            print_quoted(f[i].text.p, '"');
    }
    putchar('\n');
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *json_number(const char *text, bool real)
{
    return real ? json_real(strtod(text, NULL)) : json_integer(strtoll(text, NULL, 10));
}

static json_t *json_of(const bench_field *f)
{
    if (f->missing)
        return json_null();
    if (f->kind == BENCH_TEXT)
        return tool_json_text(f->text.p);
    if (f->kind == BENCH_INT || f->kind == BENCH_REAL)
        return json_number(f->text.p, f->kind == BENCH_REAL);
    json_t *list = json_array();
    for (const char *p = f->text.p; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        json_array_append_new(list, json_number(p, f->kind == BENCH_REALS));
    return list;
}

static fr_status print_json(const bench_field *f, int n, bool lines, bool first, fr_err *err)
{
    json_t *o = json_object();
    bool failed = !o;
    for (int i = 0; i < n; i++)
        failed |= json_object_set_new(o, f[i].name, json_of(&f[i])) != 0;
    char *text =
        failed ? NULL
               : json_dumps(o, (lines ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(12));
    json_decref(o);
    if (!text)
        return fr_fail(err, FR_ENOMEM, "results: out of memory while writing JSON");
    if (!lines)
        fputs(first ? "[\n" : ",\n", stdout);
    fputs(text, stdout);
    if (lines)
        putchar('\n');
    free(text);
    return FR_OK;
}

/* ---- SQL ------------------------------------------------------------------------------------- */

static void print_sql(const bench_field *f, int n, bool first)
{
    static const char *const types[] = {"TEXT", "INTEGER", "REAL", "TEXT", "TEXT"};
    if (first) {
        printf("CREATE TABLE IF NOT EXISTS test (\n");
        for (int i = 0; i < n; i++)
            printf("  %s %s%s\n", f[i].name, types[f[i].kind], i + 1 < n ? "," : "");
        printf(");\n");
    }
    printf("\nINSERT INTO test (");
    for (int i = 0; i < n; i++)
        printf("%s%s", i ? ", " : "", f[i].name);
    printf(") VALUES (");
    for (int i = 0; i < n; i++) {
        if (i)
            printf(", ");
        if (f[i].missing)
            printf("NULL");
        else
            print_quoted(f[i].text.p, '\'');
    }
    printf(");\n");
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void keep_yards(bench_printer *p, const tool_yards *y)
{
    bool none = p->most.read == 0;
    p->least.read = none || y->read < p->least.read ? y->read : p->least.read;
    p->least.int8 = none || y->int8 < p->least.int8 ? y->int8 : p->least.int8;
    p->most.read = y->read > p->most.read ? y->read : p->most.read;
    p->most.int8 = y->int8 > p->most.int8 ? y->int8 : p->most.int8;
}

static fr_status print_fields(bench_printer *p, const bench_result *r, fr_err *err)
{
    bench_field fields[BENCH_FIELDS_MAX];
    int n = 0;
    bool first = p->n == 0;
    fr_status st = bench_fields_of(r, fields, &n, err);
    if (st == FR_OK) {
        if (strcmp(p->format, "csv") == 0)
            print_csv(fields, n, first);
        else if (strcmp(p->format, "sql") == 0)
            print_sql(fields, n, first);
        else
            st = print_json(fields, n, strcmp(p->format, "jsonl") == 0, first, err);
    }
    bench_fields_free(fields, n);
    return st;
}

fr_status bench_print(bench_printer *p, const bench_result *r, fr_err *err)
{
    if (strcmp(p->format, "md") == 0) {
        if (p->n == 0)
            print_head(p);
        print_row(p, r);
    } else {
        FR_TRY(print_fields(p, r, err));
    }
    keep_yards(p, &r->before);
    keep_yards(p, &r->after);
    p->n++;
    return fflush(stdout) != 0 || ferror(stdout) ? tool_fail_output(err) : FR_OK;
}

fr_status bench_print_end(bench_printer *p, fr_err *err)
{
    if (p->n == 0)
        return FR_OK;
    if (strcmp(p->format, "md") == 0)
        print_foot(p);
    else if (strcmp(p->format, "json") == 0)
        printf("\n]\n");
    return fflush(stdout) != 0 || ferror(stdout) ? tool_fail_output(err) : FR_OK;
}
