#include "common/int_list.h"

#include <errno.h>
#include <stdlib.h>

enum { MAX_ITEMS = 4096 };

static fr_status add_int(tool_ints *list, int64_t v, fr_err *err)
{
    void *p = list->v;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &p, &list->cap, list->n + 1, sizeof *list->v, err));
    list->v = p;
    list->v[list->n++] = v;
    return FR_OK;
}

/* One item: N, A-B, A-B+STEP or A-B*FACTOR. *end is what follows it. */
typedef struct {
    long long from, to, step;
    char op;
} range;

static bool read_range(const char *text, range *r, const char **end)
{
    char *p;
    errno = 0;
    r->from = r->to = strtoll(text, &p, 10);
    r->op = '+', r->step = 1;
    if (p == text)
        return false;
    if (*p == '-') {
        text = p + 1;
        r->to = strtoll(text, &p, 10);
        if (p == text || r->to < r->from)
            return false;
    }
    if (*p == '+' || *p == '*') {
        r->op = *p;
        text = p + 1;
        r->step = strtoll(text, &p, 10);
        if (p == text || r->step < (r->op == '*' ? 2 : 1))
            return false;
    }
    *end = p;
    return errno == 0 && (*p == ',' || *p == 0) && !(r->op == '*' && r->from < 1);
}

static fr_status add_range(const char *name, const range *r, tool_ints *out, fr_err *err)
{
    for (long long v = r->from; v <= r->to; v = r->op == '+' ? v + r->step : v * r->step) {
        if (out->n >= MAX_ITEMS)
            return fr_fail(err, FR_ERANGE, "%s: found more than %d values, expected fewer", name,
                           MAX_ITEMS);
        FR_TRY(add_int(out, v, err));
    }
    return FR_OK;
}

fr_status tool_ints_parse(const char *name, const char *text, int64_t low, int64_t high,
                          tool_ints *out, fr_err *err)
{
    range r;
    for (const char *p = text; p; p = *p == ',' ? p + 1 : NULL) {
        if (!read_range(p, &r, &p))
            return fr_fail(err, FR_EINVAL,
                           "%s: found '%.80s', expected whole numbers joined by commas (1,2,4), or "
                           "ranges (512-2048+512, 1-64*2)",
                           name, text);
        if (r.from < low || r.to > high)
            return fr_fail(err, FR_ERANGE, "%s: found %lld, expected %lld to %lld", name,
                           r.from < low ? r.from : r.to, (long long)low, (long long)high);
        FR_TRY(add_range(name, &r, out, err));
    }
    return FR_OK;
}

fr_status tool_ints_of(const char *name, const fr_opt_list *list, int64_t low, int64_t high,
                       int64_t otherwise, tool_ints *out, fr_err *err)
{
    for (size_t i = 0; i < list->n; i++)
        FR_TRY(tool_ints_parse(name, list->items[i].text, low, high, out, err));
    return list->n == 0 ? add_int(out, otherwise, err) : FR_OK;
}
