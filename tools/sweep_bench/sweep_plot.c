#include <stdlib.h>

#include "common/chart.h"
#include "sweep_bench/sweep.h"

static int by_depth(const void *a, const void *b)
{
    const tool_point *p = a, *q = b;
    return (p->x > q->x) - (p->x < q->x);
}

/* points: room for two lists of t->n. What was not measured (a speed of 0) is left out. */
static tool_series series_of(const sweep_table *t, tool_point *points)
{
    tool_point *pp = points, *tg = points + t->n;
    size_t n_pp = 0, n_tg = 0;
    for (size_t i = 0; i < t->n; i++) {
        const sweep_row *r = &t->rows[i];
        if (r->speed_pp > 0)
            pp[n_pp++] = (tool_point){(double)r->n_kv, r->speed_pp};
        if (r->speed_tg > 0)
            tg[n_tg++] = (tool_point){(double)r->n_kv, r->speed_tg};
    }
    qsort(pp, n_pp, sizeof *pp, by_depth);
    qsort(tg, n_tg, sizeof *tg, by_depth);
    return (tool_series){t->label, {pp, tg}, {n_pp, n_tg}};
}

fr_status sweep_plot(const char *path, const sweep_table *tables, size_t n, fr_err *err)
{
    size_t n_points = 0;
    for (size_t i = 0; i < n; i++)
        n_points += 2 * tables[i].n;
    tool_series *series = FR_NEW(tool_series, FR_MEM_MISC, n, err);
    tool_point *points = FR_NEW(tool_point, FR_MEM_MISC, n_points, err);
    fr_status st = series && points ? FR_OK : FR_ENOMEM;
    tool_point *next = points;
    for (size_t i = 0; st == FR_OK && i < n; i++) {
        series[i] = series_of(&tables[i], next);
        next += 2 * tables[i].n;
    }
    tool_chart chart = {.title = "Speed over depth",
                        .x_label = "tokens in the KV cache",
                        .panels = {"Prompt, tokens/s", "Generation, tokens/s"},
                        .n_panels = 2,
                        .series = series,
                        .n_series = n};
    if (st == FR_OK)
        st = tool_chart_write(&chart, path, err);
    fr_mem_free(series);
    fr_mem_free(points);
    return st;
}
