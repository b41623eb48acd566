/* Status codes and error texts.
 *
 * Every function that can fail returns an fr_status (0 = ok) and takes a last parameter `fr_err
 * *err`, which may be NULL. On failure it holds the code and one text of the form "object: found,
 * expected, remedy". */
#ifndef FR_BASE_STATUS_H
#define FR_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>

typedef enum {
    FR_OK = 0,
    FR_EINVAL,       /* an argument, option or request is wrong */
    FR_ENOMEM,       /* memory, or a memory budget, is exhausted */
    FR_EIO,          /* the operating system refused a read, write or map */
    FR_EFORMAT,      /* a file does not follow its format */
    FR_ENOTFOUND,    /* a key, tensor, file or option does not exist */
    FR_ERANGE,       /* a number is outside its range */
    FR_EUNSUPPORTED, /* valid, but this build or version cannot do it */
    FR_ECANCELLED,   /* stopped by the user */
    FR_EINTERNAL     /* an invariant of ferry itself does not hold */
} fr_status;

typedef struct {
    fr_status code;
    char text[1024];
} fr_err;

#define FR_PRINTF(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))

/* Sets *err (when not NULL) and returns `code`. Over-long texts are cut, ending in "...". */
fr_status fr_fail(fr_err *err, fr_status code, const char *fmt, ...) FR_PRINTF(3, 4);

/* Puts "context: " before the text of an error that already is in *err; returns its code, so that
 * `return fr_err_context(err, status, "%s", path)` works with err == NULL too. */
fr_status fr_err_context(fr_err *err, fr_status code, const char *fmt, ...) FR_PRINTF(3, 4);

/* "EFORMAT" and so on; never NULL. */
const char *fr_status_name(fr_status code);

/* Leaves the function with the status of a failed expression: for functions with nothing to undo.
 */
#define FR_TRY(expr)                                                                               \
    do {                                                                                           \
        fr_status fr_try_status_ = (expr);                                                         \
        if (fr_try_status_ != FR_OK)                                                               \
            return fr_try_status_;                                                                 \
    } while (0)

/* Stores the status in `st` and goes to the label `out`: for functions that have something to undo.
 */
#define FR_TRY_OUT(st, expr)                                                                       \
    do {                                                                                           \
        if (((st) = (expr)) != FR_OK)                                                              \
            goto out;                                                                              \
    } while (0)

#endif
