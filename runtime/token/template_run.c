#include "token/template_value.h"

#include <stdio.h>
#include <string.h>

#include "token/template_lex.h"

fr_status tpl_fail_at(fr_err *err, fr_status code, uint32_t line, uint32_t col, const char *fmt,
                      ...)
{
    char text[sizeof err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fr_fail(err, code, "template line %u, column %u: %s", line, col, text);
}

fr_status tpl_fail(tpl_run *r, fr_status code, const char *fmt, ...)
{
    fr_err inner;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(inner.text, sizeof inner.text, fmt, ap);
    va_end(ap);
    return tpl_fail_at(r->err, code, r->line, r->col, "%s", inner.text);
}

fr_status tpl_spend(tpl_run *r, uint64_t steps)
{
    r->steps += steps;
    if (r->steps > TPL_MAX_STEPS)
        return tpl_fail(r, FR_ERANGE, "the template does too much work: more than %u steps",
                        TPL_MAX_STEPS);
    return FR_OK;
}

fr_status tpl_spend_bytes(tpl_run *r, size_t bytes)
{
    return tpl_spend(r, 1 + bytes / 16);
}

fr_status tpl_enter(tpl_run *r)
{
    if (r->depth >= TPL_MAX_DEPTH)
        return tpl_fail(r, FR_ERANGE, "nested too deeply: more than %d levels", TPL_MAX_DEPTH);
    r->depth++;
    return FR_OK;
}

void tpl_leave(tpl_run *r)
{
    r->depth--;
}

void *tpl_alloc(tpl_run *r, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > TPL_MAX_MEMORY - r->bytes) {
        tpl_fail(r, FR_ENOMEM, "the template needs too much memory: more than %zu MiB",
                 TPL_MAX_MEMORY >> 20);
        return NULL;
    }
    void *p = fr_arena_alloc(&r->arena, n, size, NULL);
    if (!p) {
        tpl_fail(r, FR_ENOMEM, "memory for template values: %zu bytes could not be had", bytes);
        return NULL;
    }
    r->bytes += (bytes + 15) & ~(size_t)15;
    return p;
}

static fr_status append(tpl_run *r, const char *p, size_t n)
{
    if (fr_buf_add(&r->out, p, n, NULL) != FR_OK)
        return tpl_fail(r, FR_ENOMEM, "memory for the text: %zu bytes could not be had",
                        r->out.n + n);
    return FR_OK;
}

static fr_status fail_too_long(tpl_run *r)
{
    return tpl_fail(r, FR_ERANGE, "the text grows too long: more than %zu MiB",
                    TPL_MAX_OUTPUT >> 20);
}

fr_status tpl_emit(tpl_run *r, const char *p, size_t n)
{
    if (n > TPL_MAX_OUTPUT - r->out.n)
        return fail_too_long(r);
    FR_TRY(tpl_spend_bytes(r, n));
    return append(r, p, n);
}

fr_status tpl_emit_str(tpl_run *r, fr_str s)
{
    return tpl_emit(r, s.p, s.n);
}

fr_status tpl_emit_repeat(tpl_run *r, fr_str s, int64_t times)
{
    if (s.n == 0 || times <= 0)
        return FR_OK;
    if ((uint64_t)times > (TPL_MAX_OUTPUT - r->out.n) / s.n)
        return fail_too_long(r);
    FR_TRY(tpl_spend(r, (uint64_t)times));
    for (int64_t i = 0; i < times; i++)
        FR_TRY(append(r, s.p, s.n));
    return FR_OK;
}

fr_status tpl_capture(tpl_run *r, size_t mark, tpl_value *out)
{
    fr_str text = {r->out.n > mark ? r->out.p + mark : "", r->out.n - mark};
    FR_TRY(tpl_str_copy(r, text, out));
    r->out.n = mark;
    return FR_OK;
}
