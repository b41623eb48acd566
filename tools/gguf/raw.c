#include "raw.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int raw_fail(const raw_command *c, const fr_err *err)
{
    fprintf(stderr, "ferry-gguf %s: %s\n", c->command, err->text);
    return 1;
}

/* ---- the command line ----------------------------------------------------------------------- */

static bool parse_count(const raw_command *c, const char *what, const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (end != text && !*end && !errno && n > 0) {
        *out = n;
        return true;
    }
    fprintf(stderr, "ferry-gguf %s: %s: found '%s', expected a number from 1\n", c->command, what,
            text);
    return false;
}

/* The registry's names, for "did you mean". */
static const char *nearest_type(const char *text)
{
    const char *names[2 * FR_TYPE_COUNT];
    size_t n = 0;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *info = fr_type_get((fr_type)t);
        if (!info->il_only)
            names[n++] = info->name;
        if (info->il_name)
            names[n++] = info->il_name;
    }
    return fr_nearest_name(fr_str_of(text), names, n, 3);
}

static bool parse_type(const raw_command *c, const char *text, raw_args *a)
{
    if (fr_type_from_name(fr_str_of(text), &a->type, &a->layout))
        return true;
    const char *near = nearest_type(text);
    fprintf(stderr, "ferry-gguf %s: '%s' is not a type%s%s%s\n", c->command, text,
            near ? "; did you mean '" : "; 'ferry-gguf types' lists them", near ? near : "",
            near ? "'?" : "");
    return false;
}

static int bad_option(const raw_command *c, const char *word)
{
    const char *names[] = {"--help", c->option};
    const char *near = fr_nearest_name(fr_str_of(word), names, c->option ? 2 : 1, 3);
    fprintf(stderr, "ferry-gguf %s: '%s' is not an option%s%s%s\n", c->command, word,
            near ? "; did you mean '" : "; see --help", near ? near : "", near ? "'?" : "");
    return 2;
}

enum { N_WORDS = 5 };

/* Splits argv into positional words and options; as raw_parse. */
static int split(const raw_command *c, int argc, char **argv, const char *words[N_WORDS],
                 const char **value)
{
    int n = 0;
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        bool is_option = !only_words && a[0] == '-' && a[1];
        if (is_option && strcmp(a, "--") == 0) {
            only_words = true;
        } else if (is_option && (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)) {
            puts(c->help);
            return 0;
        } else if (is_option && c->option && strcmp(a, c->option) == 0) {
            if (i + 1 == argc) {
                fprintf(stderr, "ferry-gguf %s: found nothing after %s, expected a value\n",
                        c->command, a);
                return 2;
            }
            *value = argv[++i];
        } else if (is_option) {
            return bad_option(c, a);
        } else if (n == N_WORDS) {
            fprintf(stderr, "ferry-gguf %s: found '%s' after '%s', expected nothing\n", c->command,
                    a, words[n - 1]);
            return 2;
        } else {
            words[n++] = a;
        }
    }
    if (n == N_WORDS)
        return -1;
    fprintf(stderr, "ferry-gguf %s: found %d arguments, expected TYPE ROWS COLS IN OUT\n",
            c->command, n);
    return 2;
}

int raw_parse(const raw_command *c, int argc, char **argv, raw_args *a)
{
    const char *words[N_WORDS];
    *a = (raw_args){0};
    int status = split(c, argc, argv, words, &a->value);
    if (status >= 0)
        return status;
    if (!parse_type(c, words[0], a) || !parse_count(c, "ROWS", words[1], &a->rows) ||
        !parse_count(c, "COLS", words[2], &a->cols))
        return 2;
    a->in = words[3];
    a->out = words[4];
    return -1;
}

/* ---- converting ----------------------------------------------------------------------------- */

enum { CHUNK_BYTES = 4 << 20 };

static int64_t group_rows(raw_form f)
{
    return f.layout == FR_LAYOUT_INTERLEAVED ? fr_type_get(f.type)->group : 1;
}

/* Rows to convert at a time: whole groups of both sides, about CHUNK_BYTES of output. */
static int64_t chunk_rows(raw_form from, raw_form to, size_t to_row)
{
    int64_t step = group_rows(from) > group_rows(to) ? group_rows(from) : group_rows(to);
    int64_t n = (int64_t)(CHUNK_BYTES / (to_row < CHUNK_BYTES ? to_row : CHUNK_BYTES));
    return n > step ? n / step * step : step;
}

static fr_status check_size(const raw_args *a, raw_form from, const fr_file *in, size_t row_bytes,
                            fr_err *err)
{
    uint64_t want = (uint64_t)a->rows * row_bytes;
    if (in->size == want)
        return FR_OK;
    return fr_fail(err, FR_EINVAL,
                   "%s: found %" PRIu64 " bytes, expected %" PRIu64 ": %" PRId64 " rows of %" PRId64
                   " weights are %zu bytes each as %s",
                   a->in, in->size, want, a->rows, a->cols, row_bytes,
                   fr_type_name(from.type, from.layout));
}

/* Row by row in chunks; `step` rows of output fit into buf. */
static fr_status convert_all(const raw_args *a, const uint8_t *src, size_t from_row, size_t to_row,
                             int64_t step, uint8_t *buf, raw_convert_fn fn, void *user,
                             fr_out_file *out, fr_err *err)
{
    for (int64_t r = 0; r < a->rows; r += step) {
        int64_t n = a->rows - r < step ? a->rows - r : step;
        FR_TRY(fn(user, src + (size_t)r * from_row, r, n, buf, err));
        FR_TRY(fr_file_write(out, buf, (size_t)n * to_row, err));
    }
    return FR_OK;
}

fr_status raw_convert(const raw_args *a, raw_form from, raw_form to, raw_convert_fn fn, void *user,
                      fr_err *err)
{
    fr_file in = FR_FILE_CLOSED;
    fr_out_file out;
    fr_status st;
    uint8_t *buf = NULL;
    FR_TRY(fr_type_check(from.type, from.layout, a->rows, a->cols, err));
    FR_TRY(fr_type_check(to.type, to.layout, a->rows, a->cols, err));
    size_t from_row = fr_row_bytes(from.type, from.layout, a->cols);
    size_t to_row = fr_row_bytes(to.type, to.layout, a->cols);
    int64_t step = chunk_rows(from, to, to_row);
    FR_TRY_OUT(st, fr_file_open(a->in, &in, err));
    FR_TRY_OUT(st, check_size(a, from, &in, from_row, err));
    FR_TRY_OUT(st, fr_file_map(&in, a->in, err));
    buf = fr_mem_array(FR_MEM_MISC, (size_t)(step < a->rows ? step : a->rows), to_row, err);
    FR_TRY_OUT(st, buf ? FR_OK : FR_ENOMEM);
    FR_TRY_OUT(st, fr_file_create(a->out, &out, err));
    st = convert_all(a, in.data, from_row, to_row, step, buf, fn, user, &out, err);
    if (st == FR_OK)
        st = fr_file_commit(&out, err);
    else
        fr_file_abort(&out);
out:
    fr_mem_free(buf);
    fr_file_close(&in);
    return st;
}
