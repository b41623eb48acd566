/* ferry-cli continuing a text. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"

static fr_status read_prompt(const cli *c, fr_buf *text, fr_err *err)
{
    if (c->o->prompt_file) {
        FR_TRY(fr_file_slurp(c->o->prompt_file, 1u << 30, text, err));
        if (text->n && text->p[text->n - 1] == '\n')
            text->p[--text->n] = 0; /* the newline that editors put at the end */
        return FR_OK;
    }
    const char *prompt = c->o->prompt ? c->o->prompt : "";
    return c->o->escape ? tool_unescape(prompt, text, err) : fr_buf_puts(text, prompt, err);
}

/* Appends text to the session and tells the sampler. */
static fr_status feed(cli *c, const fr_buf *text, bool first, fr_err *err)
{
    fr_tokens t = {0};
    fr_status st = fr_tokenize(fr_engine_vocab(c->engine), text->n ? text->p : "", text->n, first,
                               true, &t, err);
    if (st == FR_OK && t.n == 0)
        st = fr_fail(err, FR_EINVAL, "prompt: empty; give one with -p TEXT or -f FILE");
    if (st == FR_OK)
        st = fr_session_append(c->session, t.ids, (int64_t)t.n, err);
    for (size_t i = 0; st == FR_OK && i < t.n; i++)
        fr_sampler_accept(c->sampler, t.ids[i]);
    fr_tokens_free(&t);
    return st;
}

/* Feeds and generates; *leave when the user stopped it twice or nothing more can follow. */
static fr_status run_once(cli *c, const fr_buf *text, bool first, bool *leave, fr_err *err)
{
    fr_generate_result result = {0};
    cli_generation_begin(c->session);
    fr_status st = feed(c, text, first, err);
    if (st == FR_OK)
        st = cli_generate(c, NULL, &result, err);
    bool interrupted = cli_generation_end();
    if (st == FR_ECANCELLED && interrupted)
        st = FR_OK;
    c->interrupted = interrupted && !c->o->interactive;
    *leave = result.reason == FR_STOP_CONTEXT;
    if (*leave)
        fprintf(stderr, "\n(the context is full; use a larger -c)\n");
    return st;
}

fr_status cli_complete(cli *c, fr_err *err)
{
    fr_buf text = {0};
    bool leave = false;
    fr_status st;
    FR_TRY_OUT(st, read_prompt(c, &text, err));
    if (c->o->display_prompt)
        cli_print_given(c, text.n ? text.p : "", text.n);
    FR_TRY_OUT(st, run_once(c, &text, true, &leave, err));
    while (c->o->interactive && !leave && cli_read_line(c, "\n> ", &text)) {
        if (text.n == 0)
            continue;
        FR_TRY_OUT(st, fr_buf_putc(&text, '\n', err));
        FR_TRY_OUT(st, run_once(c, &text, false, &leave, err));
    }
    fputc('\n', stdout);
out:
    fflush(stdout);
    fr_buf_free(&text);
    return st;
}
