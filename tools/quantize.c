/* ferry-quantize: writes a model with fewer bits a weight, or in the interleaved layout. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/log.h"
#include "common/interrupt.h"
#include "common/tool.h"
#include "quantize/quantize_write.h"

/* The positional arguments. */
typedef struct {
    const char *in, *type;
    fr_buf out; /* owned */
    int n_threads;
} arguments;

/* What the run holds; all owned. */
typedef struct {
    arguments args;
    quantize_config config;
    fr_gguf *g;
    importance imatrix;
    quantize_plan plan;
    quantize_converter *converter;
    uint64_t done_bytes, n_replaced;
} run_state;

/* ---- the command line ----------------------------------------------------------------------- */

static bool is_number(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && n < 6 && s[n] == 0;
}

static bool is_type(const char *s)
{
    tool_mix_id id;
    bool interleaved;
    return strcasecmp(s, "COPY") == 0 || tool_mix_find(s, &id, &interleaved, NULL) == FR_OK;
}

/* The name of the output when none is given: beside the input. */
static fr_status default_output(arguments *a, fr_err *err)
{
    const char *slash = strrchr(a->in, '/');
    int folder = slash ? (int)(slash - a->in) + 1 : 0;
    FR_TRY(fr_buf_printf(&a->out, err, "%.*sggml-model-", folder, a->in));
    for (const char *p = a->type; *p; p++)
        FR_TRY(fr_buf_putc(&a->out, (char)toupper((unsigned char)*p), err));
    return fr_buf_puts(&a->out, ".gguf", err);
}

/* IN [OUT] TYPE [THREADS] */
static fr_status read_arguments(const fr_options *o, arguments *a, fr_err *err)
{
    size_t n = o->args.n;
    const fr_opt_item *item = o->args.items;
    a->n_threads = o->threads;
    bool no_out = n == 2 || (n == 3 && is_number(item[2].text) && is_type(item[1].text));
    size_t i_type = no_out ? 1 : 2;
    if (n <= i_type)
        return fr_fail(err, FR_EINVAL,
                       "found %zu arguments, expected IN.gguf OUT.gguf TYPE; see --help", n);
    a->in = item[0].text;
    a->type = item[i_type].text;
    if (n > i_type + 1) {
        if (!is_number(item[i_type + 1].text))
            return fr_fail(err, FR_EINVAL, "THREADS: found '%.40s', expected a number",
                           item[i_type + 1].text);
        a->n_threads = atoi(item[i_type + 1].text);
    }
    return no_out ? default_output(a, err) : fr_buf_puts(&a->out, item[1].text, err);
}

static fr_status parse_type(const char *option, const char *text, bool *has, fr_type *type,
                            fr_layout *layout, fr_err *err)
{
    *has = text != NULL;
    if (text && !fr_type_from_name(fr_str_of(text), type, layout))
        return fr_fail(err, FR_EINVAL, "%s: '%.40s' is not a type; 'ferry-gguf types' lists them",
                       option, text);
    return FR_OK;
}

static fr_status read_config(const fr_options *o, run_state *s, fr_err *err)
{
    quantize_config *c = &s->config;
    fr_layout unused;
    *c = (quantize_config){.interleave = o->interleave,
                           .pure = o->pure,
                           .leave_output = o->leave_output_tensor,
                           .allow_requantize = o->allow_requantize};
    c->copy = strcasecmp(s->args.type, "COPY") == 0;
    if (!c->copy) {
        bool interleaved;
        FR_TRY(tool_mix_find(s->args.type, &c->mix, &interleaved, err));
        c->interleave |= interleaved;
    }
    FR_TRY(parse_type("--output-tensor-type", o->output_tensor_type, &c->has_output_type,
                      &c->output_type, &c->output_layout, err));
    FR_TRY(parse_type("--token-embedding-type", o->token_embedding_type, &c->has_lookup_type,
                      &c->lookup_type, &unused, err));
    if (o->custom_q.n)
        FR_TRY(quantize_rules_open(&o->custom_q, &c->rules, err));
    if (o->imatrix) {
        FR_TRY(importance_open(o->imatrix, &s->imatrix, err));
        c->imatrix = &s->imatrix;
    }
    return FR_OK;
}

/* The types, behind the options of --help. */
static void print_types(void)
{
    puts("\nTYPE:");
    for (int i = 0; i < TOOL_MIX_COUNT; i++) {
        const tool_mix *m = tool_mix_get((tool_mix_id)i);
        printf("  %-10s %s%s\n", m->name, m->help, m->il_file_type >= 0 ? " (*)" : "");
    }
    puts("  COPY       no type is changed\n\n"
         "(*) With _R4 behind the name (Q4_K_R4, Q8_0_R8, BF16_R16), tensors are written "
         "interleaved, as\n    with --repack. Q3_K, Q4_K and Q5_K mean the _M mixes. A number of "
         "general.file_type does too.\n    With OUT.gguf left out, the result is "
         "ggml-model-TYPE.gguf "
         "beside IN.gguf.");
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

/* ---- the run -------------------------------------------------------------------------------- */

static void show_progress(void *user, size_t i, const quantize_plan *p, const quantize_result *r)
{
    run_state *s = user;
    const quantize_step *step = &p->steps[i];
    char dims[QUANTIZE_DIMS_BYTES], from[32], to[32], error[48] = "";
    if (step->action == QUANTIZE_ENCODE)
        snprintf(error, sizeof error, ", error %.2e", r->error);
    s->done_bytes += step->from->bytes;
    s->n_replaced += r->n_replaced;
    fr_log_info("[%4zu/%4zu, %3.0f %%] %-32s %-20s %s -> %s, %s -> %s%s", i + 1, p->n,
                100.0 * (double)s->done_bytes / (double)p->from_bytes, step->from->name,
                quantize_dims(step->from, dims), fr_type_name(step->from->type, step->from->layout),
                fr_type_name(step->type, step->layout), fr_format_bytes(step->from->bytes, from),
                fr_format_bytes(step->bytes, to), error);
    if (r->n_replaced)
        fr_log_warn("tensor %s: %llu weights were NaN or infinite and are 0 now", step->from->name,
                    (unsigned long long)r->n_replaced);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static fr_status write_model(run_state *s, const fr_options *o, fr_err *err)
{
    quantize_output out = {.path = s->args.out.p,
                           .keep_split = o->keep_split,
                           .allow_nan = o->allow_nan,
                           .imatrix_path = o->imatrix};
    double start = seconds();
    char from[32], to[32];
    FR_TRY(quantize_converter_open(s->args.n_threads, &s->converter, err));
    tool_catch_interrupts();
    FR_TRY(quantize_write(s->g, &s->plan, s->config.imatrix, &out, s->converter, show_progress, s,
                          err));
    printf("%s: %s -> %s (%.3f bits per weight), %.1f s on %d threads\n", out.path,
           fr_format_bytes(s->plan.from_bytes, from), fr_format_bytes(s->plan.bytes, to),
           8.0 * (double)s->plan.bytes / (double)s->plan.weights, seconds() - start,
           quantize_converter_n_threads(s->converter));
    if (s->plan.n_stand_in)
        printf("%zu of %zu tensors have rows that do not suit their type and got another one "
               "(--dry-run shows which)\n",
               s->plan.n_stand_in, s->plan.n);
    return FR_OK;
}

static fr_status run(run_state *s, const fr_options *o, fr_err *err)
{
    FR_TRY(read_arguments(o, &s->args, err));
    FR_TRY(read_config(o, s, err));
    FR_TRY(fr_gguf_open(s->args.in, o->show_plan ? FR_GGUF_HEADERS_ONLY : 0, &s->g, err));
    FR_TRY(quantize_plan_make(s->g, &s->config, &s->plan, err));
    if (!o->show_plan)
        return write_model(s, o, err);
    quantize_plan_print(&s->plan);
    return FR_OK;
}

static void free_state(run_state *s)
{
    quantize_converter_close(s->converter);
    quantize_plan_free(&s->plan);
    importance_close(&s->imatrix);
    quantize_rules_close(s->config.rules);
    fr_gguf_close(s->g);
    fr_buf_free(&s->args.out);
}

int main(int argc, char **argv)
{
    fr_options o;
    run_state s = {0};
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_QUANTIZE, &o, &status)) {
        if (status == 0 && wants_help(argc, argv))
            print_types();
        return status;
    }
    status = run(&s, &o, &err) == FR_OK ? 0 : tool_fail(FR_TOOL_QUANTIZE, &err);
    if (status == 0 && (fflush(stdout) != 0 || ferror(stdout))) {
        fputs("ferry-quantize: error: standard output: cannot be written\n", stderr);
        status = TOOL_FAILED;
    }
    free_state(&s);
    fr_opts_free(&o);
    return status;
}
