/* ferry-logits: writes the logits of every token of a text given as ids: float32, little endian,
 * [n_tokens][n_vocab]. For comparing ferry with other implementations, and with itself. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "common/interrupt.h"
#include "common/tool.h"

static fr_status read_ids(const char *path, fr_tokens *out, fr_err *err)
{
    fr_buf text = {0};
    fr_status st;
    FR_TRY_OUT(st, fr_file_slurp(path, 1u << 30, &text, err));
    for (const char *p = text.p; p && p < text.p + text.n;) {
        if (isspace((unsigned char)*p) || *p == ',') {
            p++;
            continue;
        }
        char *end;
        long id = strtol(p, &end, 10);
        if (end == p || id < 0 || id > INT32_MAX)
            FR_TRY_OUT(st,
                       fr_fail(err, FR_EFORMAT, "%s: found '%.10s' at byte %zu, expected token ids",
                               path, p, (size_t)(p - text.p)));
        FR_TRY_OUT(st, fr_tokens_add(out, (int32_t)id, err));
        p = end;
    }
out:
    fr_buf_free(&text);
    return st;
}

typedef struct {
    fr_out_file file;
    int64_t n_vocab;
} sink;

static fr_status write_rows(void *user, int64_t pos, int64_t n_rows, const float *logits,
                            fr_err *err)
{
    (void)pos;
    sink *s = user;
    FR_TRY(tool_check_interrupt(err));
    return fr_file_write(&s->file, logits, (size_t)(n_rows * s->n_vocab) * sizeof *logits, err);
}

static fr_status compute(fr_engine *e, const fr_tokens *ids, const char *path, fr_err *err)
{
    sink s = {.n_vocab = fr_engine_describe(e).n_vocab};
    fr_session *session = NULL;
    FR_TRY(fr_session_open(e, &session, err));
    tool_catch_interrupts();
    fr_status st = fr_file_create(path, &s.file, err);
    if (st == FR_OK) {
        st = fr_session_append_all(session, ids->ids, (int64_t)ids->n, write_rows, &s, err);
        if (st == FR_OK)
            st = fr_file_commit(&s.file, err);
        else
            fr_file_abort(&s.file);
    }
    fr_session_close(session);
    return st;
}

static fr_status run(const fr_options *o, fr_err *err)
{
    fr_engine_config cfg;
    fr_engine *e = NULL;
    fr_tokens ids = {0};
    fr_status st;
    FR_TRY(fr_opts_require(o, FR_OPT_model, err));
    FR_TRY(fr_opts_require(o, FR_OPT_ids_file, err));
    FR_TRY(fr_opts_require(o, FR_OPT_output, err));
    FR_TRY(tool_engine_config(o, &cfg, err));
    cfg.all_logits = true;
    FR_TRY_OUT(st, read_ids(o->ids_file, &ids, err));
    FR_TRY_OUT(st, fr_engine_open(&cfg, &e, err));
    FR_TRY_OUT(st, compute(e, &ids, o->output, err));
    if (o->memory_report)
        tool_memory_report(e);
out:
    fr_engine_close(e);
    fr_tokens_free(&ids);
    return st;
}

int main(int argc, char **argv)
{
    fr_options o;
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_LOGITS, &o, &status))
        return status;
    status = run(&o, &err) == FR_OK ? 0 : tool_fail(FR_TOOL_LOGITS, &err);
    fr_opts_free(&o);
    return status;
}
