#include "common/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static volatile sig_atomic_t interrupted;
static _Atomic(fr_session *) session;

static void note(int signal)
{
    (void)signal;
    interrupted = 1;
    fr_session *s = atomic_load(&session);
    if (s)
        fr_session_cancel(s);
}

void tool_interrupt_session(fr_session *s)
{
    atomic_store(&session, s);
}

void tool_catch_interrupts(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = note;
    act.sa_flags = (int)(SA_RESTART | SA_RESETHAND);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &act, NULL);
}

fr_status tool_check_interrupt(fr_err *err)
{
    if (!interrupted)
        return FR_OK;
    return fr_fail(err, FR_ECANCELLED, "interrupted; no file was left unfinished");
}
