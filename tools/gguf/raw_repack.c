/* ferry-gguf repack: raw blocks from one layout to the other. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "raw.h"

static const raw_command command = {
    .command = "repack",
    .help = "ferry-gguf repack TYPE ROWS COLS IN OUT [--to plain|interleaved]\n\n"
            "Rearranges a raw matrix without changing a weight. TYPE is how IN stands: q4_K for "
            "rows\n"
            "one after another, q4_k_r4 for rows that stand together. The result has the other\n"
            "layout.\n\n"
            "  --to LAYOUT   plain or interleaved: fails unless IN has the other one\n"
            "  --help        this text",
    .option = "--to",
};

typedef struct {
    const raw_args *a;
    fr_layout to;
} job;

static fr_status repack(void *user, const void *src, int64_t i_row, int64_t n_rows, void *dst,
                        fr_err *err)
{
    const job *j = user;
    (void)i_row;
    return fr_repack(j->a->type, j->a->layout, j->to, n_rows, j->a->cols, src, dst, err);
}

/* False after an error message. */
static bool choose_target(const raw_args *a, fr_layout *to)
{
    bool from_plain = a->layout == FR_LAYOUT_PLAIN;
    *to = from_plain ? FR_LAYOUT_INTERLEAVED : FR_LAYOUT_PLAIN;
    if (!a->value)
        return true;
    bool to_plain = strcmp(a->value, "plain") == 0;
    if (!to_plain && strcmp(a->value, "interleaved") != 0) {
        fprintf(stderr, "ferry-gguf repack: --to: found '%s', expected plain or interleaved\n",
                a->value);
        return false;
    }
    if (to_plain != from_plain)
        return true;
    fprintf(stderr,
            "ferry-gguf repack: --to %s: TYPE %s says that IN is so already; if it is not, TYPE is "
            "%s\n",
            a->value, fr_type_name(a->type, a->layout), fr_type_name(a->type, *to));
    return false;
}

int gguf_repack(int argc, char **argv)
{
    raw_args a;
    fr_err err = {0};
    int status = raw_parse(&command, argc, argv, &a);
    if (status >= 0)
        return status;
    job j = {.a = &a};
    if (!choose_target(&a, &j.to))
        return 2;
    raw_form from = {a.type, a.layout}, to = {a.type, j.to};
    return raw_convert(&a, from, to, repack, &j, &err) == FR_OK ? 0 : raw_fail(&command, &err);
}
