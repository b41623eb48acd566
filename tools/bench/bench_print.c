/* Results in the formats that people paste and programs read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_fields.h"
#include "common/json_out.h"

/* ---- markdown -------------------------------------------------------------------------------- */

/* A column; width < 0: left. */
typedef struct {
    const char *title;
    int width;
    bool shown;
} column;

/* The axes of the settings stand between BACKEND and TEST. */
enum {
    MODEL,
    SIZE,
    PARAMS,
    BACKEND,
    FIRST_AXIS,
    TEST = FIRST_AXIS + BENCH_AXES,
    SPEED,
    ROOFLINE,
    N_COLUMNS
};

/* The layers on GPUs are shown wherever there is a GPU. */
static void columns_of(const bench_printer *p, column *c)
{
    c[MODEL] = (column){"model", -30, true};
    c[SIZE] = (column){"size", 10, true};
    c[PARAMS] = (column){"params", 10, true};
    c[BACKEND] = (column){"backend", -10, true};
    for (int a = 0; a < BENCH_AXES; a++)
        c[FIRST_AXIS + a] = (column){bench_axes[a].column, bench_axes[a].width,
                                     p->plan->show[a] || (a == BENCH_NGL && p->show_ngl)};
    c[TEST] = (column){"test", 15, true};
    c[SPEED] = (column){"t/s", 20, true};
    c[ROOFLINE] = (column){"roofline", 12, p->roofline};
}

static void print_head(const bench_printer *p)
{
    static const char dashes[] = "------------------------------";
    column c[N_COLUMNS];
    columns_of(p, c);
    fputc('|', p->to);
    for (int i = 0; i < N_COLUMNS; i++)
        if (c[i].shown)
            fprintf(p->to, " %*s |", c[i].width, c[i].title);
    fprintf(p->to, "\n|");
    for (int i = 0; i < N_COLUMNS; i++)
        if (c[i].shown)
            fprintf(p->to, " %.*s%c |", abs(c[i].width) - 1, dashes, c[i].width > 0 ? ':' : '-');
    fputc('\n', p->to);
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
    snprintf(cell[BACKEND], sizeof *cell, "%s", r->backend);
    for (int a = 0; a < BENCH_AXES; a++)
        bench_axis_value(r, (bench_axis)a, cell[FIRST_AXIS + a], sizeof *cell);
    snprintf(cell[TEST], sizeof *cell, "%s", r->test->name);
    snprintf(cell[SPEED], sizeof *cell, "%.2f ± %.2f", speed.mean, speed.deviation);
    snprintf(cell[ROOFLINE], sizeof *cell, "%.0f %% %s", 100 * part, of);
    columns_of(p, c);
    fputc('|', p->to);
    for (int i = 0; i < N_COLUMNS; i++) /* "±" has two bytes in one column */
        if (c[i].shown)
            fprintf(p->to, " %*s |", c[i].width + (i == SPEED), cell[i]);
    fputc('\n', p->to);
}

static void print_foot(const bench_printer *p)
{
    fprintf(p->to, "\nbuild: " BENCH_COMMIT " (%d)\n", BENCH_NUMBER);
    if (p->roofline)
        fprintf(p->to, "yardsticks: reading %.1f to %.1f GB/s, int8 products %.0f to %.0f GOPS\n",
                p->least.read, p->most.read, p->least.int8, p->most.int8);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static void print_quoted(FILE *f, const char *text, char quote)
{
    fputc(quote, f);
    for (const char *c = text; *c; c++) {
        if (*c == quote)
            fputc(quote, f);
        fputc(*c, f);
    }
    fputc(quote, f);
}

static void print_csv(FILE *to, const bench_field *f, int n, bool first)
{
    for (int i = 0; first && i < n; i++)
        fprintf(to, "%s%s", i ? "," : "", f[i].name);
    if (first)
        fputc('\n', to);
    for (int i = 0; i < n; i++) {
        if (i)
            fputc(',', to);
        if (!f[i].missing)
            print_quoted(to, f[i].text.p, '"');
    }
    fputc('\n', to);
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
    if (f->kind == BENCH_BOOL)
        return json_boolean(f->text.p[0] == '1');
    if (f->kind == BENCH_INT || f->kind == BENCH_REAL)
        return json_number(f->text.p, f->kind == BENCH_REAL);
    json_t *list = json_array();
    for (const char *p = f->text.p; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        json_array_append_new(list, json_number(p, f->kind == BENCH_REALS));
    return list;
}

static fr_status print_json(FILE *to, const bench_field *f, int n, bool lines, bool first,
                            fr_err *err)
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
        fputs(first ? "[\n" : ",\n", to);
    fputs(text, to);
    if (lines)
        fputc('\n', to);
    free(text);
    return FR_OK;
}

/* ---- SQL ------------------------------------------------------------------------------------- */

static void print_sql(FILE *to, const bench_field *f, int n, bool first)
{
    static const char *const types[] = {"TEXT", "INTEGER", "INTEGER", "REAL", "TEXT", "TEXT"};
    if (first) {
        fprintf(to, "CREATE TABLE IF NOT EXISTS test (\n");
        for (int i = 0; i < n; i++)
            fprintf(to, "  %s %s%s\n", f[i].name, types[f[i].kind], i + 1 < n ? "," : "");
        fprintf(to, ");\nCREATE VIEW IF NOT EXISTS llama_bench AS SELECT * FROM test;\n");
    }
    fprintf(to, "\nINSERT INTO test (");
    for (int i = 0; i < n; i++)
        fprintf(to, "%s%s", i ? ", " : "", f[i].name);
    fprintf(to, ") VALUES (");
    for (int i = 0; i < n; i++) {
        if (i)
            fprintf(to, ", ");
        if (f[i].missing)
            fprintf(to, "NULL");
        else
            print_quoted(to, f[i].text.p, '\'');
    }
    fprintf(to, ");\n");
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
            print_csv(p->to, fields, n, first);
        else if (strcmp(p->format, "sql") == 0)
            print_sql(p->to, fields, n, first);
        else
            st = print_json(p->to, fields, n, strcmp(p->format, "jsonl") == 0, first, err);
    }
    bench_fields_free(fields, n);
    return st;
}

fr_status bench_print(bench_printer *p, const bench_result *r, fr_err *err)
{
    if (strcmp(p->format, "md") == 0) {
        if (p->n == 0) {
            p->show_ngl = strcmp(r->backend, "CPU") != 0;
            print_head(p);
        }
        print_row(p, r);
    } else {
        FR_TRY(print_fields(p, r, err));
    }
    keep_yards(p, &r->before);
    keep_yards(p, &r->after);
    p->n++;
    return fflush(p->to) != 0 || ferror(p->to) ? tool_fail_output(err) : FR_OK;
}

fr_status bench_print_end(bench_printer *p, fr_err *err)
{
    if (p->n == 0)
        return FR_OK;
    if (strcmp(p->format, "md") == 0)
        print_foot(p);
    else if (strcmp(p->format, "json") == 0)
        fprintf(p->to, "\n]\n");
    return fflush(p->to) != 0 || ferror(p->to) ? tool_fail_output(err) : FR_OK;
}
