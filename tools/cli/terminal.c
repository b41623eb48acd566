/* Signals, input lines and streaming output of ferry-cli. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static _Atomic(fr_session *) running;
static atomic_int interrupts;

static void on_interrupt(int sig)
{
    (void)sig;
    fr_session *s = atomic_load(&running);
    if (!s || atomic_fetch_add(&interrupts, 1) > 0) {
        static const char end[] = "\033[0m\n";
        if (isatty(STDOUT_FILENO) && write(STDOUT_FILENO, end, sizeof end - 1) < 0)
            _exit(CLI_INTERRUPTED);
        _exit(CLI_INTERRUPTED);
    }
    fr_session_cancel(s);
}

void cli_signals_init(void)
{
    struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

void cli_generation_begin(fr_session *s)
{
    atomic_store(&interrupts, 0);
    atomic_store(&running, s);
}

bool cli_interrupted(void)
{
    return atomic_load(&interrupts) > 0;
}

bool cli_generation_end(void)
{
    atomic_store(&running, NULL);
    return cli_interrupted();
}

/* ---- output
 * ---------------------------------------------------------------------------------------------- */

typedef struct {
    fr_buf *text; /* or NULL */
    fr_status st;
    fr_err *err;
} printer;

static bool print_text(void *user, const char *text, size_t n)
{
    printer *p = user;
    if (fwrite(text, 1, n, stdout) < n || fflush(stdout) != 0)
        p->st = tool_fail_output(p->err);
    else if (p->text)
        p->st = fr_buf_add(p->text, text, n, p->err);
    return p->st == FR_OK && !cli_interrupted();
}

fr_status cli_generate(cli *c, fr_buf *text, fr_generate_result *result, fr_err *err)
{
    printer p = {text, FR_OK, err};
    fr_generate_params params = {
        .n_predict = c->o->n_predict < 0 ? -1 : c->o->n_predict,
        .stops = c->stops,
        .n_stops = c->n_stops,
        .special = c->o->special,
    };
    fr_status st = fr_generate(c->session, c->sampler, &params, print_text, &p, result, err);
    if (p.st != FR_OK)
        return p.st;
    if (st == FR_ECANCELLED && cli_interrupted()) {
        result->reason = FR_STOP_CALLER;
        return FR_OK;
    }
    return st;
}

void cli_print_given(const cli *c, const char *text, size_t n)
{
    if (c->colour)
        fputs("\033[33m", stdout);
    fwrite(text, 1, n, stdout);
    if (c->colour)
        fputs("\033[0m", stdout);
    fflush(stdout);
}

/* ---- input
 * -----------------------------------------------------------------------------------------------
 */

bool cli_read_line(const cli *c, const char *prompt, fr_buf *line)
{
    bool terminal = isatty(STDIN_FILENO) && !c->o->simple_io;
    if (terminal)
        cli_print_given(c, prompt, strlen(prompt));
    fr_buf_clear(line);
    char *read = NULL;
    size_t cap = 0;
    errno = 0;
    ssize_t n = getline(&read, &cap, stdin);
    if (n > 0 && read[n - 1] == '\n')
        n--;
    bool ok = n >= 0 && fr_buf_add(line, read, (size_t)n, NULL) == FR_OK;
    free(read);
    return ok;
}
