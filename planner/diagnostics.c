/* The list of what a check found. */
#include <stdio.h>

#include "planner/rules.h"

static fr_status format(char **out, fr_err *err, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0)
        return fr_fail(err, FR_EINTERNAL, "format '%s' failed", fmt);
    char *text = FR_NEW(char, FR_MEM_PLAN, (size_t)n + 1, err);
    if (!text)
        return FR_ENOMEM;
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    *out = text;
    return FR_OK;
}

fr_status fr_diagnostics_add(fr_diagnostics *d, fr_severity severity, int rule, fr_err *err,
                             const char *fmt, ...)
{
    void *items = d->items;
    FR_TRY(fr_mem_grow(FR_MEM_PLAN, &items, &d->cap, d->n + 1, sizeof *d->items, err));
    d->items = items;
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    fr_status st = format(&text, err, fmt, ap);
    va_end(ap);
    if (st == FR_OK)
        d->items[d->n++] = (fr_diagnostic){severity, text, rule};
    return st;
}

void fr_diagnostics_cut(fr_diagnostics *d, size_t n)
{
    while (d->n > n)
        fr_mem_free(d->items[--d->n].text);
}

void fr_diagnostics_free(fr_diagnostics *d)
{
    fr_diagnostics_cut(d, 0);
    fr_mem_free(d->items);
    *d = (fr_diagnostics){0};
}
