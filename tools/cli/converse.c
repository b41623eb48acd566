/* ferry-cli talking in turns, through the model's chat template. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "cli/cli.h"
#include "token/template.h"

typedef struct {
    cli *c;
    fr_template *template;
    json_t *messages; /* array of {role, content} */
    fr_buf prompt;    /* the conversation so far, rendered */
} conversation;

static fr_status no_json(fr_err *err)
{
    return fr_fail(err, FR_ENOMEM, "conversation: memory for a message could not be had");
}

/* An answer that was cut may end within a character, and files hold anything: what is not UTF-8
 * becomes U+FFFD. */
static fr_status make_valid(const fr_buf *text, fr_buf *out, fr_err *err)
{
    for (size_t i = 0; i < text->n;) {
        uint32_t cp;
        size_t n = (size_t)fr_utf8_decode(text->p + i, text->n - i, &cp);
        bool valid = cp != UINT32_MAX;
        FR_TRY(fr_buf_add(out, valid ? text->p + i : "\xEF\xBF\xBD", valid ? n : 3, err));
        i += n;
    }
    return FR_OK;
}

static fr_status add_message(conversation *v, const char *role, const fr_buf *text, fr_err *err)
{
    fr_buf valid = {0};
    fr_status st = make_valid(text, &valid, err);
    json_t *content = st == FR_OK ? json_stringn(valid.n ? valid.p : "", valid.n) : NULL;
    fr_buf_free(&valid);
    if (!content)
        return st == FR_OK ? no_json(err) : st;
    json_t *message = json_pack("{s:s, s:o}", "role", role, "content", content);
    return !message || json_array_append_new(v->messages, message) ? no_json(err) : FR_OK;
}

static fr_status add_system(conversation *v, fr_err *err)
{
    const fr_options *o = v->c->o;
    if (!o->system_prompt && !o->system_prompt_file)
        return FR_OK;
    fr_buf text = {0};
    fr_status st = o->system_prompt_file
                       ? fr_file_slurp(o->system_prompt_file, 1u << 26, &text, err)
                   : o->escape ? tool_unescape(o->system_prompt, &text, err)
                               : fr_buf_puts(&text, o->system_prompt, err);
    if (st == FR_OK)
        st = add_message(v, "system", &text, err);
    fr_buf_free(&text);
    return st;
}

static json_t *token_json(const fr_vocab *v, int32_t id)
{
    fr_str text = id < 0 ? FR_STR("") : fr_vocab_text(v, id);
    json_t *json = json_stringn(text.p, text.n);
    return json ? json : json_string(""); /* not UTF-8 */
}

/* The whole conversation as the template writes it, ending where the assistant speaks. */
static fr_status render(conversation *v, fr_err *err)
{
    const fr_vocab *vocab = fr_engine_vocab(v->c->engine);
    json_t *context =
        json_pack("{s:O, s:b, s:o, s:o}", "messages", v->messages, "add_generation_prompt", 1,
                  "bos_token", token_json(vocab, fr_vocab_bos(vocab)), "eos_token",
                  token_json(vocab, fr_vocab_eos(vocab)));
    if (!context)
        return no_json(err);
    fr_buf_clear(&v->prompt);
    fr_template_env env = {.now = (int64_t)time(NULL)};
    fr_status st = fr_template_render(v->template, context, &env, &v->prompt, err);
    json_decref(context);
    return st == FR_OK ? FR_OK : fr_err_context(err, st, "chat template");
}

/* Templates usually write the begin token themselves; it must not stand there twice. */
static bool begins_with_bos(const conversation *v)
{
    const fr_vocab *vocab = fr_engine_vocab(v->c->engine);
    fr_str bos = fr_vocab_bos(vocab) < 0 ? FR_STR("") : fr_vocab_text(vocab, fr_vocab_bos(vocab));
    return bos.n > 0 && v->prompt.n >= bos.n && memcmp(v->prompt.p, bos.p, bos.n) == 0;
}

/* Brings the session to the rendered conversation; what it shares with the last turn is reused. */
static fr_status sync(conversation *v, fr_err *err)
{
    cli *c = v->c;
    fr_tokens t = {0};
    int64_t n_reused = 0;
    fr_status st = fr_tokenize(fr_engine_vocab(c->engine), v->prompt.p, v->prompt.n,
                               !begins_with_bos(v), true, &t, err);
    if (st == FR_OK)
        st = fr_session_sync(c->session, t.ids, (int64_t)t.n, &n_reused, err);
    for (size_t i = (size_t)n_reused; st == FR_OK && i < t.n; i++)
        fr_sampler_accept(c->sampler, t.ids[i]);
    fr_tokens_free(&t);
    return st;
}

static fr_status turn(conversation *v, const fr_buf *said, bool *leave, fr_err *err)
{
    fr_buf answer = {0};
    fr_generate_result result = {0};
    FR_TRY(add_message(v, "user", said, err));
    FR_TRY(render(v, err));
    cli_generation_begin(v->c->session);
    fr_status st = sync(v, err);
    if (st == FR_OK)
        st = cli_generate(v->c, &answer, &result, err);
    if (cli_generation_end() && st == FR_ECANCELLED)
        st = FR_OK;
    fputs("\n", stdout);
    if (st == FR_OK)
        st = add_message(v, "assistant", &answer, err);
    *leave = result.reason == FR_STOP_CONTEXT || v->c->o->single_turn;
    if (result.reason == FR_STOP_CONTEXT)
        fprintf(stderr, "(the context is full; use a larger -c)\n");
    fr_buf_free(&answer);
    return st;
}

static fr_status open_template(conversation *v, fr_err *err)
{
    const fr_options *o = v->c->o;
    fr_buf file = {0};
    fr_str source = fr_engine_chat_template(v->c->engine);
    fr_status st = FR_OK;
    if (o->chat_template_file) {
        FR_TRY_OUT(st, fr_file_slurp(o->chat_template_file, 1u << 24, &file, err));
        source = (fr_str){file.p, file.n};
    } else if (o->chat_template) {
        source = fr_str_of(o->chat_template);
    }
    if (source.n == 0)
        FR_TRY_OUT(st, fr_fail(err, FR_ENOTFOUND,
                               "chat template: the model has none; give one with "
                               "--chat-template-file, or complete "
                               "text with -no-cnv"));
    st = fr_template_parse(source.p, source.n, &v->template, err);
    if (st != FR_OK)
        fr_err_context(err, st, "chat template");
out:
    fr_buf_free(&file);
    return st;
}

/* Without a last answer there is no turn: the first message may come from -p or -f. */
static fr_status first_message(conversation *v, fr_buf *said, fr_err *err)
{
    const fr_options *o = v->c->o;
    if (o->prompt_file)
        FR_TRY(fr_file_slurp(o->prompt_file, 1u << 30, said, err));
    else if (o->prompt)
        FR_TRY(o->escape ? tool_unescape(o->prompt, said, err) : fr_buf_puts(said, o->prompt, err));
    return FR_OK;
}

fr_status cli_converse(cli *c, fr_err *err)
{
    conversation v = {.c = c, .messages = json_array()};
    fr_buf said = {0};
    bool leave = false;
    fr_status st = v.messages ? FR_OK : no_json(err);
    if (st == FR_OK)
        FR_TRY_OUT(st, open_template(&v, err));
    FR_TRY_OUT(st, add_system(&v, err));
    FR_TRY_OUT(st, first_message(&v, &said, err));
    while (!leave) {
        if (said.n > 0)
            FR_TRY_OUT(st, turn(&v, &said, &leave, err));
        if (!leave && !cli_read_line(c, "> ", &said))
            break;
    }
out:
    fflush(stdout);
    fr_buf_free(&said);
    fr_buf_free(&v.prompt);
    fr_template_free(v.template);
    json_decref(v.messages);
    return st;
}
