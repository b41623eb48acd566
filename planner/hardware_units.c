/* Values of the hardware sections: text to number and back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "planner/hardware_internal.h"

/* ---- units
 * --------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    double factor;
    bool printed; /* or only read */
} unit_name;

/* The first is what a bare number counts in. Sizes are binary under either name, as everywhere in
 * ferry. */
static const unit_name size_names[] = {
    {"MiB", 0x1p20, true}, {"B", 1, true},        {"K", 0x1p10, false},  {"KB", 0x1p10, false},
    {"KiB", 0x1p10, true}, {"M", 0x1p20, false},  {"MB", 0x1p20, false}, {"G", 0x1p30, false},
    {"GB", 0x1p30, false}, {"GiB", 0x1p30, true}, {"T", 0x1p40, false},  {"TB", 0x1p40, false},
    {"TiB", 0x1p40, true}};
static const unit_name speed_names[] = {
    {"GB/s", 1e9, true}, {"MB/s", 1e6, true}, {"TB/s", 1e12, true}};
static const unit_name flops_names[] = {
    {"TFLOPS", 1e12, true}, {"GFLOPS", 1e9, true}, {"PFLOPS", 1e15, true}};
static const unit_name tops_names[] = {
    {"TOPS", 1e12, true}, {"GOPS", 1e9, true}, {"POPS", 1e15, true}};
static const unit_name count_names[] = {{"", 1, true}};

#define NAMES(list) (list), sizeof(list) / sizeof *(list)

static const struct {
    const unit_name *names;
    size_t n;
    const char *expected;
} units[] = {
    [HW_SIZE] = {NAMES(size_names), "a size such as 24GiB (a bare number counts MiB)"},
    [HW_SPEED] = {NAMES(speed_names), "a speed such as 25GB/s (a bare number counts GB/s)"},
    [HW_TFLOPS] = {NAMES(flops_names), "a rate such as 71TFLOPS (a bare number counts TFLOPS)"},
    [HW_TOPS] = {NAMES(tops_names), "a rate such as 284TOPS (a bare number counts TOPS)"},
    [HW_COUNT] = {NAMES(count_names), "a whole number"},
    [HW_TEXT] = {NAMES(count_names), "a text"},
    [HW_CPUS] = {NAMES(count_names), "a list of CPUs such as 0-15,32-47"},
};

static const unit_name *find_unit(hw_unit unit, const char *name)
{
    if (!*name)
        return units[unit].names;
    for (size_t i = 0; i < units[unit].n; i++)
        if (strcasecmp(units[unit].names[i].name, name) == 0)
            return &units[unit].names[i];
    return NULL;
}

/* ---- fields
 * -------------------------------------------------------------------------------------- */

void hw_number_set(const hw_row *row, double v, void *base)
{
    char *field = (char *)base + row->offset;
    if (row->unit == HW_SIZE)
        *(uint64_t *)(void *)field = (uint64_t)llround(v);
    else if (row->unit == HW_COUNT)
        *(int *)(void *)field = (int)lround(v);
    else
        *(double *)(void *)field = v;
}

static double number_of(const hw_row *row, const void *base)
{
    const char *field = (const char *)base + row->offset;
    if (row->unit == HW_SIZE)
        return (double)*(const uint64_t *)(const void *)field;
    if (row->unit == HW_COUNT)
        return *(const int *)(const void *)field;
    return *(const double *)(const void *)field;
}

/* ---- text to value
 * ------------------------------------------------------------------------------- */

static fr_status fail_value(const hw_row *row, fr_status code, const char *text, fr_err *err)
{
    bool number = row->unit <= HW_COUNT;
    fr_buf low = {0}, high = {0};
    fr_status st = FR_OK;
    if (number)
        st = hw_number_print(row->unit, row->low, &low, err);
    if (number && st == FR_OK)
        st = hw_number_print(row->unit, row->high, &high, err);
    if (st == FR_OK)
        st = fr_fail(err, code, "found \"%.80s\", expected %s%s%s%s%s", text,
                     units[row->unit].expected, number ? ", from " : "", number ? low.p : "",
                     number ? " to " : "", number ? high.p : "");
    fr_buf_free(&low);
    fr_buf_free(&high);
    return st;
}

/* A decimal number, no more: strtod alone would take "inf", "nan" and "0x1p3" too. */
static bool take_decimal(const char **text, double *v)
{
    size_t n = strspn(*text, "0123456789.");
    char *end;
    char copy[40];
    if (n == 0 || n >= sizeof copy)
        return false;
    memcpy(copy, *text, n);
    copy[n] = 0;
    *v = strtod(copy, &end);
    if (*end || end == copy)
        return false;
    *text += n;
    *text += strspn(*text, " \t");
    return true;
}

static fr_status parse_number(const hw_row *row, const char *text, void *base, fr_err *err)
{
    double v;
    const char *p = text;
    if (!take_decimal(&p, &v))
        return fail_value(row, FR_EINVAL, text, err);
    const unit_name *unit = find_unit(row->unit, p);
    if (!unit || (row->unit == HW_COUNT && v != floor(v)))
        return fail_value(row, FR_EINVAL, text, err);
    v *= unit->factor;
    if (!(v >= row->low && v <= row->high))
        return fail_value(row, FR_ERANGE, text, err);
    hw_number_set(row, v, base);
    return FR_OK;
}

/* NUMBER[-NUMBER] at *p, which moves behind it. */
static bool take_cpu_range(const char **p)
{
    long v[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        size_t n = strspn(*p, "0123456789");
        if (n == 0 || n > 6)
            return false;
        v[i] = strtol(*p, NULL, 10);
        *p += n;
        if (i == 0 && **p != '-')
            return true;
        *p += i == 0;
    }
    return v[0] <= v[1];
}

static bool is_cpu_list(const char *text)
{
    while (take_cpu_range(&text)) {
        if (!*text)
            return true;
        if (*text++ != ',')
            return false;
    }
    return false;
}

static fr_status parse_text(const hw_row *row, const char *text, void *base, fr_err *err)
{
    size_t n = strlen(text);
    if (row->unit == HW_CPUS && !is_cpu_list(text))
        return fail_value(row, FR_EINVAL, text, err);
    if (n >= row->bytes)
        return fr_fail(err, FR_ERANGE, "found %zu bytes, expected at most %zu", n, row->bytes - 1);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20)
            return fr_fail(err, FR_EINVAL, "found a control character, expected a text");
    memcpy((char *)base + row->offset, text, n + 1);
    return FR_OK;
}

fr_status hw_value_parse(const hw_row *row, const char *text, void *base, fr_err *err)
{
    if (row->unit == HW_TEXT || row->unit == HW_CPUS)
        return parse_text(row, text, base, err);
    return parse_number(row, text, base, err);
}

/* ---- value to text
 * ------------------------------------------------------------------------------- */

/* The shortest decimal that is read back as the same number. */
static void shortest(double v, char out[64])
{
    for (int digits = 0; digits <= 17; digits++) {
        snprintf(out, 64, "%.*f", digits, v);
        if (strtod(out, NULL) == v)
            return;
    }
}

fr_status hw_number_print(hw_unit unit, double v, fr_buf *out, fr_err *err)
{
    char best[64] = "", text[64];
    const unit_name *name = &units[unit].names[0];
    for (size_t i = 0; i < units[unit].n; i++) {
        const unit_name *u = &units[unit].names[i];
        shortest(v / u->factor, text);
        if (!u->printed || strtod(text, NULL) * u->factor != v)
            continue;
        if (!*best || strlen(text) < strlen(best)) {
            memcpy(best, text, sizeof best);
            name = u;
        }
    }
    if (!*best) /* no unit gives it back to the last bit */
        shortest(v / name->factor, best);
    return fr_buf_printf(out, err, "%s%s%s", best, *name->name ? " " : "", name->name);
}

/* Quotes what an INI file would take for something else. */
static fr_status print_text(const char *text, fr_buf *out, fr_err *err)
{
    size_t n = strlen(text);
    bool plain = n && text[0] != ' ' && text[n - 1] != ' ' && !strpbrk(text, ";#\"'\\=");
    if (plain)
        return fr_buf_puts(out, text, err);
    FR_TRY(fr_buf_putc(out, '"', err));
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            FR_TRY(fr_buf_putc(out, '\\', err));
        FR_TRY(fr_buf_putc(out, *text, err));
    }
    return fr_buf_putc(out, '"', err);
}

fr_status hw_value_print(const hw_row *row, const void *base, fr_buf *out, fr_err *err)
{
    if (row->unit == HW_TEXT || row->unit == HW_CPUS)
        return print_text((const char *)base + row->offset, out, err);
    return hw_number_print(row->unit, number_of(row, base), out, err);
}
