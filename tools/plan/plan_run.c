/* Planning, and printing in the form that was asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "plan/plan_tool.h"
#include "planner/print.h"

fr_status plan_open_model(const fr_options *o, fr_gguf **g, fr_model **m, fr_err *err)
{
    *g = NULL;
    *m = NULL;
    FR_TRY(fr_opts_require(o, FR_OPT_model, err));
    FR_TRY(fr_gguf_open(o->model, FR_GGUF_HEADERS_ONLY, g, err));
    FR_TRY(fr_model_open(*g, (fr_mla_mode)o->mla, m, err));
    if (!o->repack || !o->run_time_repack)
        fr_model_set_layouts(*m, false);
    return FR_OK;
}

int plan_write(fr_buf *text)
{
    fr_err err = {0};
    int status = 0;
    if (text->n != fwrite(text->p ? text->p : "", 1, text->n, stdout) || fflush(stdout) != 0) {
        tool_fail_output(&err);
        status = tool_fail(FR_TOOL_PLAN, &err);
    }
    fr_buf_free(text);
    return status;
}

/* Of the terminal; piped text is as wide as a document. */
static fr_print_style style(void)
{
    struct winsize size;
    fr_print_style s = {.width = 100, .color = isatty(STDOUT_FILENO)};
    if (s.color && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        s.width = size.ws_col < 160 ? size.ws_col : 160;
    return s;
}

static void report(const fr_diagnostics *found)
{
    static const char *const names[] = {"note", "warning", "error"};
    for (size_t i = 0; i < found->n; i++)
        fprintf(stderr, "ferry-plan: %s: %s\n", names[found->items[i].severity],
                found->items[i].text);
}

static bool has_error(const fr_diagnostics *found)
{
    for (size_t i = 0; i < found->n; i++)
        if (found->items[i].severity == FR_ERROR)
            return true;
    return false;
}

static fr_status write_svg(const fr_plan *p, const char *path, fr_err *err)
{
    fr_buf text = {0};
    fr_out_file file;
    fr_status st = fr_plan_print_svg(p, &text, err);
    if (st == FR_OK)
        st = fr_file_create(path, &file, err);
    if (st == FR_OK) {
        st = fr_file_write(&file, text.p, text.n, err);
        if (st == FR_OK)
            st = fr_file_commit(&file, err);
        else
            fr_file_abort(&file);
    }
    fr_buf_free(&text);
    return st;
}

static fr_status print(const fr_options *o, const fr_plan *p, fr_buf *out, fr_err *err)
{
    fr_print_style s = style();
    bool any = false;
    if (o->plan_json)
        FR_TRY(fr_plan_print_json(p, out, err));
    if (o->plan_emit_ot)
        FR_TRY(fr_plan_emit(p, FR_EMIT_OT, out, err));
    if (o->plan_emit_ini)
        FR_TRY(fr_plan_emit(p, FR_EMIT_INI, out, err));
    if (o->plan_explain)
        FR_TRY(fr_plan_explain(p, o->plan_explain, out, err));
    if (o->plan_svg)
        FR_TRY(write_svg(p, o->plan_svg, err));
    any = o->plan_json || o->plan_emit_ot || o->plan_emit_ini || o->plan_explain;
    if (any)
        report(&p->notes);
    else
        FR_TRY(fr_plan_print_text(p, &s, out, err));
    return FR_OK;
}

static fr_status make(const fr_options *o, const fr_model *m, fr_rules **rules, fr_plan **p,
                      fr_diagnostics *found, fr_err *err)
{
    fr_hardware hw;
    fr_plan_options options;
    FR_TRY(tool_hardware(o, &hw, err));
    FR_TRY(tool_rules(o, m, rules, err));
    FR_TRY(tool_plan_options(o, &hw, &options, err));
    return fr_plan_make(m, &hw, *rules, &options, p, found, err);
}

int plan_run(const fr_options *o)
{
    fr_err err = {0};
    fr_gguf *g = NULL;
    fr_model *m = NULL;
    fr_rules *rules = NULL;
    fr_plan *p = NULL;
    fr_diagnostics found = {0};
    fr_buf text = {0};
    int status = 0;
    fr_status st;
    FR_TRY_OUT(st, plan_open_model(o, &g, &m, &err));
    FR_TRY_OUT(st, make(o, m, &rules, &p, &found, &err));
    st = print(o, p, &text, &err);
out:
    report(&found);
    if (st == FR_OK)
        status = plan_write(&text);
    else if (!has_error(&found)) /* else the error has been reported among the others */
        status = tool_fail(FR_TOOL_PLAN, &err);
    if (st == FR_EINVAL || st == FR_ERANGE)
        status = TOOL_USAGE;
    if (st == FR_ENOMEM && !p)
        status = PLAN_NO;
    fr_buf_free(&text);
    fr_diagnostics_free(&found);
    fr_plan_free(p);
    fr_rules_free(rules);
    fr_model_close(m);
    fr_gguf_close(g);
    return status;
}
