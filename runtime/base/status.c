#include "base/status.h"

#include <stdio.h>
#include <string.h>

static void mark_cut(fr_err *err, int wanted)
{
    size_t size = sizeof err->text;
    if (wanted >= (int)size)
        memcpy(err->text + size - 4, "...", 4);
}

fr_status fr_fail(fr_err *err, fr_status code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        mark_cut(err, vsnprintf(err->text, sizeof err->text, fmt, ap));
        va_end(ap);
    }
    return code;
}

fr_status fr_err_context(fr_err *err, fr_status code, const char *fmt, ...)
{
    if (err) {
        char inner[sizeof err->text];
        memcpy(inner, err->text, sizeof inner);
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        if (n >= 0 && n < (int)sizeof err->text)
            n += snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", inner);
        mark_cut(err, n);
    }
    return code;
}

const char *fr_status_name(fr_status code)
{
    static const char *const names[] = {"OK",         "EINVAL",    "ENOMEM", "EIO",
                                        "EFORMAT",    "ENOTFOUND", "ERANGE", "EUNSUPPORTED",
                                        "ECANCELLED", "EINTERNAL"};
    return (size_t)code < sizeof names / sizeof *names ? names[code] : "unknown status";
}
