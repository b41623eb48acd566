/* ferry-cli: loads a model and completes a text, or talks in turns. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/profile.h"

static fr_status open_stops(cli *c, fr_err *err)
{
    size_t n = c->o->reverse_prompt.n;
    c->stops = FR_NEW(const char *, FR_MEM_TEXT, n, err);
    if (!c->stops)
        return FR_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const char *given = c->o->reverse_prompt.items[i].text;
        fr_buf text = {0};
        fr_status st =
            c->o->escape ? tool_unescape(given, &text, err) : fr_buf_puts(&text, given, err);
        if (st != FR_OK) {
            fr_buf_free(&text);
            return st;
        }
        if (text.n > 0)
            c->stops[c->n_stops++] = text.p; /* now owned by stops */
        else
            fr_buf_free(&text);
    }
    return FR_OK;
}

static void close_stops(cli *c)
{
    for (size_t i = 0; i < c->n_stops; i++)
        fr_mem_free((void *)(uintptr_t)c->stops[i]);
    fr_mem_free(c->stops);
}

static bool wants_conversation(const cli *c)
{
    if (strcmp(c->o->conversation, "auto") != 0)
        return strcmp(c->o->conversation, "on") == 0;
    bool has_template =
        c->o->chat_template || c->o->chat_template_file || fr_engine_chat_template(c->engine).n > 0;
    return has_template && !c->o->prompt && !c->o->prompt_file && !c->o->interactive;
}

static bool wants_colour(const fr_options *o)
{
    if (strcmp(o->color, "auto") != 0)
        return strcmp(o->color, "on") == 0;
    return isatty(STDOUT_FILENO) && !o->simple_io;
}

/* The first pass touches every weight and wakes the threads; what it computed is forgotten. */
static fr_status warm_up(cli *c, fr_err *err)
{
    int32_t first = fr_vocab_bos(fr_engine_vocab(c->engine));
    if (first < 0)
        first = 0;
    FR_TRY(fr_session_append(c->session, &first, 1, err));
    fr_session_truncate(c->session, 0);
    return FR_OK;
}

static double rate(int64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_speeds(const cli *c, fr_session_times before)
{
    fr_session_times t = fr_session_timing(c->session);
    t.n_batch_tokens -= before.n_batch_tokens;
    t.n_single_tokens -= before.n_single_tokens;
    t.batch_seconds -= before.batch_seconds;
    t.single_seconds -= before.single_seconds;
    fprintf(stderr, "\nprompt:     %6lld tokens in %7.3f s = %8.2f tokens/s\n",
            (long long)t.n_batch_tokens, t.batch_seconds, rate(t.n_batch_tokens, t.batch_seconds));
    fprintf(stderr, "generation: %6lld tokens in %7.3f s = %8.2f tokens/s\n",
            (long long)t.n_single_tokens, t.single_seconds,
            rate(t.n_single_tokens, t.single_seconds));
}

/* *status: what to leave with after FR_OK. */
static fr_status run(const fr_options *o, int *status, fr_err *err)
{
    cli c = {.o = o, .colour = wants_colour(o)};
    fr_engine_config cfg;
    fr_status st;
    FR_TRY(fr_opts_require(o, FR_OPT_model, err));
    FR_TRY(tool_engine_config(o, &cfg, err));
    FR_TRY_OUT(st, open_stops(&c, err));
    FR_TRY_OUT(st, fr_engine_open(&cfg, &c.engine, err));
    FR_TRY_OUT(st, tool_sampler(o, c.engine, &c.sampler, err));
    FR_TRY_OUT(st, fr_session_open(c.engine, &c.session, err));
    if (!o->log_disable)
        tool_print_model(c.engine);
    if (o->warmup)
        FR_TRY_OUT(st, warm_up(&c, err));
    cli_signals_init();
    if (o->profile)
        FR_TRY_OUT(st, fr_engine_profile(c.engine, true, err));
    fr_session_times before = fr_session_timing(c.session);
    FR_TRY_OUT(st, wants_conversation(&c) ? cli_converse(&c, err) : cli_complete(&c, err));
    if (!o->log_disable)
        print_speeds(&c, before);
    if (o->memory_report)
        tool_memory_report(c.engine);
    if (o->profile)
        FR_TRY_OUT(st, tool_print_profile(c.engine, err));
    if (fflush(stdout) != 0 || ferror(stdout))
        FR_TRY_OUT(st, tool_fail_output(err));
    *status = c.interrupted ? CLI_INTERRUPTED : 0;
out:
    fr_session_close(c.session);
    fr_sampler_free(c.sampler);
    fr_engine_close(c.engine);
    close_stops(&c);
    return st;
}

int main(int argc, char **argv)
{
    fr_options o;
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_CLI, &o, &status))
        return status;
    if (run(&o, &status, &err) != FR_OK)
        status = tool_fail(FR_TOOL_CLI, &err);
    fr_opts_free(&o);
    return status;
}
