#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sweep_bench/sweep.h"

enum { MAX_COLUMNS = 32, MAX_BYTES = 64 << 20 };

fr_status sweep_add_row(sweep_table *t, const sweep_row *row, fr_err *err)
{
    void *p = t->rows;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &p, &t->cap, t->n + 1, sizeof *t->rows, err));
    t->rows = p;
    t->rows[t->n++] = *row;
    return FR_OK;
}

void sweep_table_free(sweep_table *t)
{
    fr_mem_free(t->label);
    fr_mem_free(t->rows);
    *t = (sweep_table){0};
}

/* ---- lines of cells -------------------------------------------------------------------------- */

/* The trimmed cells between the bars of a line; 0 when it is no line of a table. */
static int cells_of(fr_str line, fr_str cells[MAX_COLUMNS])
{
    int n = 0;
    line = fr_str_trim(line);
    if (line.n < 2 || line.p[0] != '|')
        return 0;
    while (line.n > 1 && n < MAX_COLUMNS) {
        const char *bar = memchr(line.p + 1, '|', line.n - 1);
        size_t width = bar ? (size_t)(bar - line.p - 1) : line.n - 1;
        cells[n++] = fr_str_trim((fr_str){line.p + 1, width});
        line.p += width + 1;
        line.n -= width + 1;
    }
    return n;
}

/* A number that fills the cell; false for words, infinities and what is below 0. */
static bool number_of(fr_str cell, double *out)
{
    char text[40], *end;
    if (cell.n == 0 || cell.n >= sizeof text)
        return false;
    memcpy(text, cell.p, cell.n);
    text[cell.n] = 0;
    *out = strtod(text, &end);
    return !*end && isfinite(*out) && *out >= 0 && *out < 1e15;
}

/* Where the columns stand; -1: not found. */
typedef enum { PP, TG, N_KV, T_PP, S_PP, T_TG, S_TG, N_NAMES } name_id;

typedef struct {
    int at[N_NAMES];
    bool known;
} head;

static const char *const names[N_NAMES] = {"PP",       "TG",     "N_KV",    "T_PP s",
                                           "S_PP t/s", "T_TG s", "S_TG t/s"};

static bool is_head(const fr_str *cells, int n, head *h)
{
    head found = {.known = true};
    for (int i = 0; i < N_NAMES; i++) {
        found.at[i] = -1;
        for (int c = 0; c < n; c++)
            if (fr_str_is(cells[c], names[i]))
                found.at[i] = c;
        if (found.at[i] < 0)
            return false;
    }
    *h = found;
    return true;
}

static bool is_row(const fr_str *cells, int n, const head *h, sweep_row *row)
{
    double v[N_NAMES];
    for (int i = 0; i < N_NAMES; i++)
        if (h->at[i] >= n || !number_of(cells[h->at[i]], &v[i]))
            return false;
    *row = (sweep_row){.pp = (int64_t)v[PP],
                       .tg = (int64_t)v[TG],
                       .n_kv = (int64_t)v[N_KV],
                       .t_pp = v[T_PP],
                       .t_tg = v[T_TG],
                       .speed_pp = v[S_PP],
                       .speed_tg = v[S_TG]};
    return true;
}

fr_status sweep_table_parse(const char *name, const char *text, size_t n, sweep_table *out,
                            fr_err *err)
{
    head h = {.known = false};
    fr_str cells[MAX_COLUMNS];
    sweep_row row;
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t length = end ? (size_t)(end - text) - at : n - at;
        int n_cells = cells_of((fr_str){text + at, length}, cells);
        if (n_cells > 0 && !is_head(cells, n_cells, &h) && h.known &&
            is_row(cells, n_cells, &h, &row))
            FR_TRY(sweep_add_row(out, &row, err));
        at += length + 1;
    }
    if (out->n > 0)
        return FR_OK;
    return fr_fail(err, FR_EFORMAT,
                   "%s: found no row of a sweep table, expected lines such as '| PP | TG | N_KV | "
                   "T_PP s | S_PP t/s | T_TG s | S_TG t/s |' and numbers below",
                   name);
}

static fr_str base_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash && slash[1] ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return (fr_str){name, dot && dot > name ? (size_t)(dot - name) : strlen(name)};
}

fr_status sweep_table_read(const char *path, sweep_table *out, fr_err *err)
{
    fr_buf text = {0};
    fr_str label = base_name(path);
    fr_status st;
    *out = (sweep_table){0};
    FR_TRY_OUT(st, fr_file_slurp(path, MAX_BYTES, &text, err));
    FR_TRY_OUT(st, sweep_table_parse(path, text.p ? text.p : "", text.n, out, err));
    out->label = fr_mem_strndup(FR_MEM_MISC, label.p, label.n, err);
    st = out->label ? FR_OK : FR_ENOMEM;
out:
    if (st != FR_OK)
        sweep_table_free(out);
    fr_buf_free(&text);
    return st;
}
