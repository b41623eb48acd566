/* The log: one line a call, to a sink that a tool may replace (default: standard error). */
#ifndef FR_BASE_LOG_H
#define FR_BASE_LOG_H

#include "base/status.h"

typedef enum { FR_LOG_ERROR, FR_LOG_WARN, FR_LOG_INFO, FR_LOG_DEBUG } fr_log_level;

/* `line` has no newline; called from any thread, one call at a time. */
typedef void (*fr_log_sink)(void *user, fr_log_level level, const char *line);

void fr_log_set_sink(fr_log_sink sink, void *user); /* NULL: back to standard error */
void fr_log_set_level(fr_log_level most_verbose);   /* default FR_LOG_INFO */

void fr_log(fr_log_level level, const char *fmt, ...) FR_PRINTF(2, 3);

#define fr_log_error(...) fr_log(FR_LOG_ERROR, __VA_ARGS__)
#define fr_log_warn(...)  fr_log(FR_LOG_WARN, __VA_ARGS__)
#define fr_log_info(...)  fr_log(FR_LOG_INFO, __VA_ARGS__)
#define fr_log_debug(...) fr_log(FR_LOG_DEBUG, __VA_ARGS__)

#endif
