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
    int test, speed; /* of a table of tests */
    bool tests;
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

/* A table with a test in each row, some of them at a depth. */
static bool is_test_head(const fr_str *cells, int n, head *h)
{
    head found = {.test = -1, .speed = -1, .tests = true};
    for (int c = 0; c < n; c++) {
        if (fr_str_is(cells[c], "test"))
            found.test = c;
        if (fr_str_is(cells[c], "t/s"))
            found.speed = c;
    }
    if (found.test < 0 || found.speed < 0)
        return false;
    *h = found;
    return true;
}

static void row_of(const double v[N_NAMES], sweep_row *row)
{
    *row = (sweep_row){.pp = (int64_t)v[PP],
                       .tg = (int64_t)v[TG],
                       .n_kv = (int64_t)v[N_KV],
                       .t_pp = v[T_PP],
                       .t_tg = v[T_TG],
                       .speed_pp = v[S_PP],
                       .speed_tg = v[S_TG]};
}

static bool is_row(const fr_str *cells, int n, const head *h, sweep_row *row)
{
    double v[N_NAMES];
    for (int i = 0; i < N_NAMES; i++)
        if (h->at[i] >= n || !number_of(cells[h->at[i]], &v[i]))
            return false;
    row_of(v, row);
    return true;
}

/* ---- lines of JSON --------------------------------------------------------------------------- */

/* "key": NUMBER in a line that is one object of numbers. */
static bool json_field(fr_str line, const char *key, double *out)
{
    size_t n = strlen(key);
    for (size_t i = 0; i + n + 3 < line.n; i++) {
        if (line.p[i] != '"' || memcmp(line.p + i + 1, key, n) != 0 || line.p[i + 1 + n] != '"')
            continue;
        fr_str rest = {line.p + i + n + 2, line.n - i - n - 2};
        rest = fr_str_trim(rest);
        if (rest.n < 2 || rest.p[0] != ':')
            return false;
        rest.p++, rest.n--;
        size_t end = 0;
        while (end < rest.n && rest.p[end] != ',' && rest.p[end] != '}')
            end++;
        return end < rest.n && number_of(fr_str_trim((fr_str){rest.p, end}), out);
    }
    return false;
}

static bool is_json_row(fr_str line, sweep_row *row)
{
    static const char *const keys[N_NAMES] = {"pp",       "tg",   "n_kv",    "t_pp",
                                              "speed_pp", "t_tg", "speed_tg"};
    double v[N_NAMES];
    line = fr_str_trim(line);
    if (line.n < 2 || line.p[0] != '{')
        return false;
    for (int i = 0; i < N_NAMES; i++)
        if (!json_field(line, keys[i], &v[i]))
            return false;
    row_of(v, row);
    return true;
}

/* ---- tables of tests at a depth ---------------------------------------------------------------
 */

/* "pp512", "tg128 @ d4096", "tg64@pp512": how many tokens, whether generated, behind how many. */
static bool read_test(fr_str cell, bool *gen, int64_t *n, int64_t *depth)
{
    char text[64], *end;
    if (cell.n < 3 || cell.n >= sizeof text)
        return false;
    memcpy(text, cell.p, cell.n);
    text[cell.n] = 0;
    *gen = memcmp(text, "tg", 2) == 0;
    if (!*gen && memcmp(text, "pp", 2) != 0)
        return false;
    const char *number = text + 2 + strspn(text + 2, " ");
    *n = strtoll(number, &end, 10);
    *depth = 0;
    if (end == number || *n < 1)
        return false;
    if (strncmp(end, " @ d", 4) == 0 || (*gen && strncmp(end, "@pp", 3) == 0)) {
        number = end + (end[0] == ' ' ? 4 : 3);
        *depth = strtoll(number, &end, 10);
        if (end == number || *depth < 0 || *depth > (int64_t)1e15)
            return false;
    }
    return *end == 0;
}

/* "123.45 ± 0.67" */
static bool read_speed(fr_str cell, double *out)
{
    size_t n = 0;
    while (n < cell.n && cell.p[n] != ' ')
        n++;
    return number_of((fr_str){cell.p, n}, out) && *out > 0;
}

/* A row of such a table has one speed; rows of one depth go together. */
static fr_status add_test_row(sweep_table *out, const fr_str *cells, int n, const head *h,
                              fr_err *err)
{
    bool gen;
    int64_t tokens, depth;
    double speed;
    size_t i = 0;
    if (h->test >= n || h->speed >= n || !read_test(cells[h->test], &gen, &tokens, &depth) ||
        !read_speed(cells[h->speed], &speed))
        return FR_OK;
    while (i < out->n && (out->rows[i].n_kv != depth || (gen ? out->rows[i].tg : out->rows[i].pp)))
        i++;
    if (i == out->n)
        FR_TRY(sweep_add_row(out, &(sweep_row){.n_kv = depth}, err));
    sweep_row *row = &out->rows[i];
    *(gen ? &row->tg : &row->pp) = tokens;
    *(gen ? &row->t_tg : &row->t_pp) = (double)tokens / speed;
    *(gen ? &row->speed_tg : &row->speed_pp) = speed;
    return FR_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static fr_status take_line(fr_str line, head *h, sweep_table *out, fr_err *err)
{
    fr_str cells[MAX_COLUMNS];
    sweep_row row;
    int n = cells_of(line, cells);
    if (n == 0)
        return is_json_row(line, &row) ? sweep_add_row(out, &row, err) : FR_OK;
    if (is_head(cells, n, h) || is_test_head(cells, n, h))
        return FR_OK;
    if (h->known && is_row(cells, n, h, &row))
        return sweep_add_row(out, &row, err);
    return h->tests ? add_test_row(out, cells, n, h, err) : FR_OK;
}

fr_status sweep_table_parse(const char *name, const char *text, size_t n, sweep_table *out,
                            fr_err *err)
{
    head h = {.known = false};
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t length = end ? (size_t)(end - text) - at : n - at;
        FR_TRY(take_line((fr_str){text + at, length}, &h, out, err));
        at += length + 1;
    }
    if (out->n > 0)
        return FR_OK;
    return fr_fail(
        err, FR_EFORMAT,
        "%s: found no row of a sweep table, expected lines such as '| PP | TG | N_KV | "
        "T_PP s | S_PP t/s | T_TG s | S_TG t/s |' and numbers below, such rows as JSON, or "
        "a table of tests such as 'pp512 @ d4096'",
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
