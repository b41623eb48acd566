/* Texts to values and back, for every type of the table. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "opts/opts_internal.h"

#define MIB 1048576.0

/* A parsed value, before it goes into its field. */
typedef union {
    bool b;
    int64_t i;
    double f;
    fr_str s; /* ENUM: the canonical name, in the table */
} scalar;

/* How much of a bad value an error repeats. */
#define SHOWN 80
#define FOUND "found '%.*s%s'"
#define FOUND_ARG(text)                                                                            \
    (int)(strlen(text) > SHOWN ? SHOWN : strlen(text)), (text), strlen(text) > SHOWN ? "..." : ""

/* ---- what is expected
 * ---------------------------------------------------------------------------- */

static fr_status expected_names(const char *words, fr_buf *out, fr_err *err)
{
    for (fr_str w = opts_next_word(&words); w.n; w = opts_next_word(&words)) {
        size_t n = strcspn(w.p, ":= ");
        FR_TRY(fr_buf_printf(out, err, ", %.*s", (int)(n < w.n ? n : w.n), w.p));
    }
    return FR_OK;
}

static fr_status expected_number(const opts_row *row, const char *what, fr_buf *out, fr_err *err)
{
    bool any = row->low < -1e300;
    FR_TRY(fr_buf_puts(out, what, err));
    if (!any)
        FR_TRY(fr_buf_printf(out, err, " from %.16g to %.16g", row->low, row->high));
    return row->words ? expected_names(row->words, out, err) : FR_OK;
}

fr_status opts_expected(fr_opt_id id, fr_buf *out, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    switch (row->type) {
    case OPTS_BOOL:
        return fr_buf_puts(out, "on or off", err);
    case OPTS_INT:
    case OPTS_INT64:
        return expected_number(row, "a whole number", out, err);
    case OPTS_FLOAT:
        return expected_number(row, "a number", out, err);
    case OPTS_SIZE:
        FR_TRY(expected_number(row, "a size in MiB", out, err));
        return fr_buf_puts(out, ", or with a unit (KiB, MiB, GiB)", err);
    case OPTS_ENUM:
        FR_TRY(fr_buf_puts(out, "one of", err));
        size_t comma = out->n;
        FR_TRY(expected_names(row->words, out, err));
        memmove(out->p + comma, out->p + comma + 1, out->n - comma); /* the first comma goes */
        out->n--;
        return FR_OK;
    case OPTS_PATH:
    case OPTS_PATHS:
        return fr_buf_puts(out, "a path", err);
    case OPTS_STRING:
    case OPTS_LIST:
        break;
    }
    return fr_buf_puts(out, "a text", err);
}

static fr_status bad_value(fr_opt_id id, fr_status code, const char *text, fr_err *err)
{
    fr_buf expected = {0};
    if (!err)
        return code;
    fr_status st = opts_expected(id, &expected, err);
    if (st == FR_OK)
        st = fr_fail(err, code, FOUND ", expected %s", FOUND_ARG(text), expected.p);
    fr_buf_free(&expected);
    return st;
}

/* ---- parsing
 * ------------------------------------------------------------------------------------- */

bool opts_parse_bool(const char *text, bool *out)
{
    static const char *const on[] = {"true", "on", "1", "enabled", "yes"};
    static const char *const off[] = {"false", "off", "0", "disabled", "no"};
    for (size_t i = 0; i < sizeof on / sizeof *on; i++) {
        *out = strcasecmp(text, on[i]) == 0;
        if (*out || strcasecmp(text, off[i]) == 0)
            return true;
    }
    return false;
}

/* Finds `text` among "name:alias ..." or "word=number ..."; *name is the first form, *number what
 * follows the '='. */
static bool find_word(const char *words, const char *text, fr_str *name, long *number)
{
    size_t n = strlen(text);
    for (fr_str w = opts_next_word(&words); w.n; w = opts_next_word(&words)) {
        const char *end = w.p + w.n, *equals = memchr(w.p, '=', w.n);
        if (equals) {
            *number = strtol(equals + 1, NULL, 10);
            end = equals;
        }
        *name = (fr_str){w.p, 0};
        for (const char *p = w.p; p < end;) {
            const char *stop = memchr(p, ':', (size_t)(end - p));
            stop = stop ? stop : end;
            if (name->n == 0)
                name->n = (size_t)(stop - p);
            if (n == (size_t)(stop - p) && strncasecmp(p, text, n) == 0)
                return true;
            p = stop + 1;
        }
    }
    return false;
}

static fr_status parse_int(fr_opt_id id, const char *text, scalar *out, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    int64_t least = row->type == OPTS_INT ? INT32_MIN : INT64_MIN;
    int64_t most = row->type == OPTS_INT ? INT32_MAX : INT64_MAX;
    fr_str name;
    long number = 0;
    if (row->words && find_word(row->words, text, &name, &number)) {
        out->i = number;
        return FR_OK;
    }
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end)
        return bad_value(id, FR_EINVAL, text, err);
    if (errno || v < least || v > most || (double)v < row->low || (double)v > row->high)
        return bad_value(id, FR_ERANGE, text, err);
    out->i = v;
    return FR_OK;
}

static fr_status parse_float(fr_opt_id id, const char *text, scalar *out, fr_err *err)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || text[strcspn(text, "xXnN")])
        return bad_value(id, FR_EINVAL, text, err);
    if (!(v >= opts_rows[id].low && v <= opts_rows[id].high) || fabs(v) > 3e38)
        return bad_value(id, FR_ERANGE, text, err);
    out->f = v;
    return FR_OK;
}

/* "", "B", "K", "KB", "KiB", ...: bytes in one of it, 0 when unknown. */
static double unit_bytes(const char *unit)
{
    static const char letters[] = "KMGT";
    if (!*unit)
        return MIB;
    if (strcasecmp(unit, "b") == 0)
        return 1;
    double v = 1024;
    for (const char *l = letters; *l; l++, v *= 1024) {
        char k[2] = {*l, 0};
        bool tail_ok =
            !unit[1] || strcasecmp(unit + 1, "b") == 0 || strcasecmp(unit + 1, "ib") == 0;
        if (strncasecmp(unit, k, 1) == 0 && tail_ok)
            return v;
    }
    return 0;
}

static fr_status parse_size(fr_opt_id id, const char *text, scalar *out, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    char *end;
    double v = strtod(text, &end);
    if (end == text || text[strcspn(text, "xXnN")])
        return bad_value(id, FR_EINVAL, text, err);
    double unit = unit_bytes(end + strspn(end, " "));
    if (unit == 0)
        return bad_value(id, FR_EINVAL, text, err);
    if (!(v * unit >= row->low * MIB && v * unit <= row->high * MIB) || (v < 0 && v != -1))
        return bad_value(id, FR_ERANGE, text, err);
    out->i = v < 0 ? -1 : (int64_t)llround(v * unit);
    return FR_OK;
}

static fr_status parse_enum(fr_opt_id id, const char *text, bool negated, scalar *out, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    bool on;
    long unused;
    bool is_bool = opts_is_switch(row) && opts_parse_bool(text, &on);
    if (negated && !is_bool)
        return fr_fail(err, FR_EINVAL, FOUND ", expected on or off", FOUND_ARG(text));
    if (!find_word(row->words, is_bool ? on != negated ? "on" : "off" : text, &out->s, &unused))
        return bad_value(id, FR_EINVAL, text, err);
    return FR_OK;
}

static fr_status parse_scalar(fr_opt_id id, const char *text, bool negated, scalar *out,
                              fr_err *err)
{
    switch (opts_rows[id].type) {
    case OPTS_BOOL:
        if (!opts_parse_bool(text, &out->b))
            return bad_value(id, FR_EINVAL, text, err);
        out->b = out->b != negated;
        return FR_OK;
    case OPTS_INT:
    case OPTS_INT64:
        return parse_int(id, text, out, err);
    case OPTS_FLOAT:
        return parse_float(id, text, out, err);
    case OPTS_SIZE:
        return parse_size(id, text, out, err);
    case OPTS_ENUM:
        return parse_enum(id, text, negated, out, err);
    default:
        out->s = fr_str_of(text);
        return FR_OK;
    }
}

bool opts_accepts(fr_opt_id id, const char *text)
{
    scalar unused = {0};
    return parse_scalar(id, text, false, &unused, NULL) == FR_OK;
}

/* ---- setting
 * ------------------------------------------------------------------------------------- */

/* A relative path of an INI file starts at the file's folder: *prefix is that part, or empty. */
static fr_str ini_folder(fr_str path, fr_opt_origin origin)
{
    if (origin.source != FR_FROM_INI || path.n == 0 || path.p[0] == '/' || fr_str_is(path, "-"))
        return (fr_str){"", 0};
    const char *slash = strrchr(origin.file, '/');
    return (fr_str){origin.file, slash ? (size_t)(slash - origin.file) + 1 : 0};
}

static fr_status new_text(fr_str prefix, fr_str text, char **out, fr_err *err)
{
    char *p = fr_mem_array(FR_MEM_OPTS, prefix.n + text.n + 1, 1, err);
    if (!p)
        return FR_ENOMEM;
    memcpy(p, prefix.p, prefix.n);
    memcpy(p + prefix.n, text.p, text.n);
    *out = p;
    return FR_OK;
}

static fr_status take_item(fr_opt_list *list, char *text, fr_opt_origin origin, fr_err *err)
{
    void *items = list->items;
    fr_status st =
        fr_mem_grow(FR_MEM_OPTS, &items, &list->cap, list->n + 1, sizeof *list->items, err);
    list->items = items;
    if (st == FR_OK)
        list->items[list->n++] = (fr_opt_item){text, origin};
    else
        fr_mem_free(text);
    return st;
}

fr_status opts_add_item(fr_opt_list *list, const char *text, size_t n, fr_opt_origin origin,
                        fr_err *err)
{
    char *copy;
    FR_TRY(new_text((fr_str){"", 0}, (fr_str){text, n}, &copy, err));
    return take_item(list, copy, origin, err);
}

void opts_clear_list(fr_opt_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        fr_mem_free(list->items[i].text);
    fr_mem_free(list->items);
    *list = (fr_opt_list){0};
}

fr_status opts_add_many(fr_options *o, fr_opt_id id, const char *text, bool negated, fr_err *err)
{
    void *many = o->many;
    FR_TRY(fr_mem_grow(FR_MEM_OPTS, &many, &o->cap_many, o->n_many + 1, sizeof *o->many, err));
    o->many = many;
    char *copy = fr_mem_strndup(FR_MEM_OPTS, text, strlen(text), err);
    if (!copy)
        return FR_ENOMEM;
    o->many[o->n_many++] = (fr_opt_many){id, negated, copy};
    return FR_OK;
}

static fr_status store_text(fr_options *o, fr_opt_id id, fr_str text, fr_opt_origin origin,
                            fr_err *err)
{
    opts_type type = opts_rows[id].type;
    bool is_path = type == OPTS_PATH || type == OPTS_PATHS;
    fr_str prefix = is_path ? ini_folder(text, origin) : (fr_str){"", 0};
    char *copy = NULL, **field = opts_field(o, id);
    if (text.n == 0 && opts_is_list(&opts_rows[id]))
        return FR_OK;
    FR_TRY(new_text(prefix, text, &copy, err));
    if (opts_is_list(&opts_rows[id]))
        return take_item(opts_field(o, id), copy, origin, err);
    fr_mem_free(*field);
    *field = copy;
    return FR_OK;
}

fr_status opts_set(fr_options *o, fr_opt_id id, const char *text, bool negated,
                   fr_opt_origin origin, fr_err *err)
{
    scalar v = {0};
    void *field = opts_field(o, id);
    FR_TRY(parse_scalar(id, text, negated, &v, err));
    switch (opts_rows[id].type) {
    case OPTS_BOOL:
        *(bool *)field = v.b;
        break;
    case OPTS_INT:
        *(int32_t *)field = (int32_t)v.i;
        break;
    case OPTS_INT64:
    case OPTS_SIZE:
        *(int64_t *)field = v.i;
        break;
    case OPTS_FLOAT:
        *(float *)field = (float)v.f;
        break;
    default:
        FR_TRY(store_text(o, id, v.s, origin, err));
    }
    o->origins[id] = origin;
    return FR_OK;
}

fr_status fr_opts_assign(fr_options *o, fr_opt_id id, const char *text, bool negated, fr_err *err)
{
    return opts_set(o, id, text, negated, (fr_opt_origin){FR_FROM_CLI, NULL, 0}, err);
}

fr_status opts_set_defaults(fr_options *o, fr_err *err)
{
    fr_opt_origin origin = {FR_FROM_DEFAULT, NULL, 0};
    for (int id = 0; id < FR_OPT_COUNT; id++)
        if (opts_rows[id].dflt)
            FR_TRY(opts_set(o, (fr_opt_id)id, opts_rows[id].dflt, false, origin, err));
    return FR_OK;
}

/* ---- formatting
 * ---------------------------------------------------------------------------------- */

static fr_status format_int(const opts_row *row, int64_t v, fr_buf *out, fr_err *err)
{
    const char *words = row->words ? row->words : "";
    for (fr_str w = opts_next_word(&words); w.n; w = opts_next_word(&words)) {
        const char *equals = memchr(w.p, '=', w.n);
        if (equals && strtol(equals + 1, NULL, 10) == v)
            return fr_buf_add(out, w.p, (size_t)(equals - w.p), err);
    }
    return fr_buf_printf(out, err, "%lld", (long long)v);
}

/* The shortest decimal that reads back as the same float. */
static fr_status format_float(float v, fr_buf *out, fr_err *err)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    return fr_buf_puts(out, text, err);
}

static fr_status format_size(int64_t bytes, fr_buf *out, fr_err *err)
{
    if (bytes < 0 || bytes % (1 << 20) == 0)
        return fr_buf_printf(out, err, "%lld", (long long)(bytes < 0 ? bytes : bytes >> 20));
    return fr_buf_printf(out, err, "%lldB", (long long)bytes);
}

fr_status opts_format(const fr_options *o, fr_opt_id id, size_t i, fr_buf *out, fr_err *err)
{
    const opts_row *row = &opts_rows[id];
    const void *field = opts_field(o, id);
    switch (row->type) {
    case OPTS_BOOL:
        return fr_buf_puts(out, *(const bool *)field ? "true" : "false", err);
    case OPTS_INT:
        return format_int(row, *(const int32_t *)field, out, err);
    case OPTS_INT64:
        return format_int(row, *(const int64_t *)field, out, err);
    case OPTS_FLOAT:
        return format_float(*(const float *)field, out, err);
    case OPTS_SIZE:
        return format_size(*(const int64_t *)field, out, err);
    case OPTS_LIST:
    case OPTS_PATHS:
        return fr_buf_puts(out, ((const fr_opt_list *)field)->items[i].text, err);
    default:
        break;
    }
    const char *text = *(char *const *)field;
    return text ? fr_buf_puts(out, text, err) : FR_OK;
}
