#include "common/profile.h"

#include <stdio.h>

typedef struct {
    const fr_profile *profile;
    const fr_profile_phase *phase;
    double total; /* seconds with sampling */
    fr_buf *out;
    fr_err *err;
} printer;

static void add(fr_profile_cell *to, const fr_profile_cell *c)
{
    to->n += c->n;
    to->wall += c->wall;
    to->busy += c->busy;
}

static fr_profile_cell of_class(const printer *p, int c)
{
    fr_profile_cell sum = {0};
    for (int64_t row = 0; row <= p->profile->n_layer; row++)
        add(&sum, &p->phase->cells[row * FR_PROFILE_COUNT + c]);
    return sum;
}

static fr_profile_cell of_row(const printer *p, int64_t row)
{
    fr_profile_cell sum = {0};
    for (int c = 0; c < FR_PROFILE_COUNT; c++)
        add(&sum, &p->phase->cells[row * FR_PROFILE_COUNT + c]);
    return sum;
}

static fr_status print_line(const printer *p, const char *name, fr_profile_cell c)
{
    double steps = (double)p->phase->n_steps, room = c.wall * p->phase->n_threads;
    return fr_buf_printf(p->out, p->err, "%-22s %8.1f %11.1f %7.1f%% %8.1f%%\n", name,
                         (double)c.n / steps, c.wall / steps * 1e6, 100 * c.wall / p->total,
                         room > 0 ? 100 * (1 - c.busy / room) : 0);
}

static fr_status print_classes(const printer *p, fr_profile_cell *all)
{
    for (int c = 0; c < FR_PROFILE_COUNT; c++) {
        fr_profile_cell sum = of_class(p, c);
        add(all, &sum);
        if (sum.n > 0)
            FR_TRY(print_line(p, fr_profile_class_name((fr_profile_class)c), sum));
    }
    return FR_OK;
}

static fr_status print_layers(const printer *p)
{
    for (int64_t row = 0; row <= p->profile->n_layer; row++) {
        char name[32];
        snprintf(name, sizeof name, row < p->profile->n_layer ? "layer %lld" : "outside layers",
                 (long long)row);
        FR_TRY(print_line(p, name, of_row(p, row)));
    }
    return FR_OK;
}

/* Of all threads' time, what was no work on an operation: waiting, and the caller's scheduling. */
static fr_status print_overhead(const printer *p, const fr_profile_cell *all, double rest)
{
    double room = p->total * p->phase->n_threads, steps = (double)p->phase->n_steps;
    return fr_buf_printf(p->out, p->err,
                         "overhead %.1f%%: waiting %.1f%%, scheduling %.1f%% of all threads' time; "
                         "%.1f jobs, %.1f barriers a step\n",
                         100 * (room - all->busy + rest) / room, 100 * (room - all->busy) / room,
                         100 * rest / room, (double)p->phase->n_jobs / steps,
                         (double)p->phase->n_barriers / steps);
}

static fr_status print_phase(printer *p, const char *what, bool layers)
{
    int64_t n = p->phase->n_steps;
    if (n == 0)
        return FR_OK;
    double sampling = of_class(p, FR_PROFILE_SAMPLING).wall;
    p->total = p->phase->seconds + sampling;
    FR_TRY(fr_buf_printf(p->out, p->err,
                         "%s: %lld steps, %lld tokens, %d threads, %.3f ms a step\n%-22s %8s %11s "
                         "%8s %9s\n",
                         what, (long long)n, (long long)p->phase->n_tokens, p->phase->n_threads,
                         p->total / (double)n * 1e3, "", "calls", "us a step", "share", "waiting"));
    fr_profile_cell all = {0};
    FR_TRY(print_classes(p, &all));
    double rest = p->total - all.wall;
    FR_TRY(print_line(p, "scheduling", (fr_profile_cell){n, rest, rest}));
    all.wall = p->total;
    all.busy += rest;
    FR_TRY(print_line(p, "all", all));
    FR_TRY(print_overhead(p, &all, rest));
    return layers ? print_layers(p) : FR_OK;
}

fr_status tool_profile_text(const fr_profile *profile, bool layers, fr_buf *out, fr_err *err)
{
    static const char *const names[] = {"batches", "single tokens"};
    for (int i = 0; i < 2; i++) {
        printer p = {.profile = profile, .phase = &profile->phases[i], .out = out, .err = err};
        FR_TRY(print_phase(&p, names[i], layers));
    }
    return FR_OK;
}

static fr_status choices_text(const fr_engine *e, fr_buf *out, fr_err *err)
{
    fr_cpu_moe_choice choices[32];
    int n = fr_engine_moe_choices(e, choices, 32);
    for (int i = 0; i < n; i++) {
        const fr_cpu_moe_choice *c = &choices[i];
        char tokens[48];
        const char *form = "%lld to %lld";
        if (c->tokens_to == INT64_MAX)
            form = "%lld and more";
        else if (c->tokens_to == c->tokens_from)
            form = "%lld";
        snprintf(tokens, sizeof tokens, form, (long long)c->tokens_from, (long long)c->tokens_to);
        FR_TRY(fr_buf_printf(
            out, err, "experts (%lld x %lld, %lld of %lld) for batches of %s: ", (long long)c->n_ff,
            (long long)c->n_embd, (long long)c->n_used, (long long)c->n_experts, tokens));
        if (c->up && c->down)
            FR_TRY(fr_buf_printf(out, err,
                                 "gate/up by %s (%.2f x claimed tiles), down by %s (%.2f x)\n",
                                 c->up, c->up_gain, c->down, c->down_gain));
        else
            FR_TRY(fr_buf_puts(out, "how they are dealt out is still being measured\n", err));
    }
    return FR_OK;
}

fr_status tool_print_profile(const fr_engine *e, fr_err *err)
{
    fr_buf text = {0};
    fr_status st = tool_profile_text(fr_engine_profiled(e), true, &text, err);
    if (st == FR_OK)
        st = choices_text(e, &text, err);
    if (st == FR_OK && text.n > 0)
        fprintf(stderr, "\n%s", text.p);
    fr_buf_free(&text);
    return st;
}
