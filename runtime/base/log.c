#include "base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fr_log_sink current_sink;
static void *current_user;
static atomic_int current_level = FR_LOG_INFO;

static void to_stderr(fr_log_level level, const char *line)
{
    static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
    fprintf(stderr, "%s%s\n", prefix[level], line);
}

void fr_log_set_sink(fr_log_sink sink, void *user)
{
    pthread_mutex_lock(&lock);
    current_sink = sink;
    current_user = user;
    pthread_mutex_unlock(&lock);
}

void fr_log_set_level(fr_log_level most_verbose)
{
    atomic_store(&current_level, (int)most_verbose);
}

void fr_log(fr_log_level level, const char *fmt, ...)
{
    if ((int)level > atomic_load(&current_level))
        return;
    char line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&lock);
    if (current_sink)
        current_sink(current_user, level, line);
    else
        to_stderr(level, line);
    pthread_mutex_unlock(&lock);
}
