/* Chat templates: an interpreter for the Jinja subset that model files carry
 * (tokenizer.chat_template), with the settings of the ecosystem: trim_blocks, lstrip_blocks.
 *
 * Templates are untrusted: parsing and rendering are bounded in depth, steps and output size, and
 * every error names line and column. */
#ifndef FR_TOKEN_TEMPLATE_H
#define FR_TOKEN_TEMPLATE_H

#include <jansson.h>

#include "base/str.h"

typedef struct fr_template fr_template;

/* Parses n bytes of source; nothing of it is kept. *out is owned by the caller. FR_EFORMAT with
 * line and column on a syntax error; FR_EUNSUPPORTED for a construct that ferry does not know. */
fr_status fr_template_parse(const char *source, size_t n, fr_template **out, fr_err *err);
void fr_template_free(fr_template *t);

typedef struct {
    int64_t now; /* seconds since 1970, UTC, for strftime_now; the caller reads the clock */
} fr_template_env;

/* Renders with the members of the JSON object `context` as global variables (messages, tools,
 * add_generation_prompt, bos_token, eos_token, ...); appends to *out. raise_exception in the
 * template is FR_EINVAL with its text. Any thread. */
fr_status fr_template_render(const fr_template *t, const json_t *context,
                             const fr_template_env *env, fr_buf *out, fr_err *err);

#endif
