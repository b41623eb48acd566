/* A machine as the INI text that fr_hardware_read understands. */
#include "planner/hardware_internal.h"

#include <string.h>

static const char *const titles[HW_SECTIONS] = {
    [HW_GPU] = "GPUs. Sizes: B, KiB, MiB, GiB, TiB; speeds: GB/s.",
    [HW_RAM] = "RAM, and the CPU beside it.",
    [HW_NUMA] = "NUMA nodes.",
    [HW_DISK] = "The disk that holds the model.",
};

/* Columns of "key = value" before the help. */
enum { HELP_COLUMN = 30, WIDTH = 100 };

/* "; key: help" in lines of WIDTH, broken at blanks. */
static fr_status print_help(const char *key, const char *help, fr_buf *out, fr_err *err)
{
    size_t column = strlen(key) + 3;
    FR_TRY(fr_buf_printf(out, err, "; %s:", key));
    while (*help) {
        size_t word = strcspn(help, " ");
        bool fits = column + 1 + word <= WIDTH;
        FR_TRY(fr_buf_puts(out, fits ? " " : "\n; ", err));
        FR_TRY(fr_buf_add(out, help, word, err));
        column = fits ? column + 1 + word : 2 + word;
        help += word + strspn(help + word, " ");
    }
    return fr_buf_putc(out, '\n', err);
}

/* The help is a comment behind a short "key = value", or stands before it. */
static fr_status print_key(const hw_row *row, const void *base, bool help, fr_buf *out, fr_err *err)
{
    fr_buf value = {0};
    fr_status st = hw_value_print(row, base, &value, err);
    int used = (int)(strlen(row->key) + 3 + value.n);
    bool behind = used < HELP_COLUMN && HELP_COLUMN + 2 + strlen(row->help) <= WIDTH;
    if (st == FR_OK && help && !behind)
        st = print_help(row->key, row->help, out, err);
    if (st == FR_OK && help && behind)
        st = fr_buf_printf(out, err, "%s = %s%*s; %s\n", row->key, value.p, HELP_COLUMN - used, "",
                           row->help);
    else if (st == FR_OK)
        st = fr_buf_printf(out, err, "%s = %s\n", row->key, value.p);
    fr_buf_free(&value);
    return st;
}

static bool is_empty_text(const hw_row *row, const void *base)
{
    return (row->unit == HW_TEXT || row->unit == HW_CPUS) && !((const char *)base)[row->offset];
}

static fr_status print_section(fr_hardware *hw, hw_section section, int index, fr_buf *out,
                               fr_err *err)
{
    const void *base = hw_base(hw, section, index);
    if (index == 0)
        FR_TRY(fr_buf_printf(out, err, "%s; %s\n", out->n ? "\n" : "", titles[section]));
    FR_TRY(hw_sections[section].count
               ? fr_buf_printf(out, err, "%s[%s.%d]\n", index ? "\n" : "",
                               hw_sections[section].name, index)
               : fr_buf_printf(out, err, "[%s]\n", hw_sections[section].name));
    for (int i = 0; i < hw_n_rows; i++)
        if (hw_rows[i].section == section && !is_empty_text(&hw_rows[i], base))
            FR_TRY(print_key(&hw_rows[i], base, index == 0, out, err));
    return FR_OK;
}

fr_status fr_hardware_print_ini(const fr_hardware *hw, fr_buf *out, fr_err *err)
{
    fr_hardware copy = *hw; /* hw_base gives writable fields */
    for (int i = 0; i < hw->n_gpus; i++)
        FR_TRY(print_section(&copy, HW_GPU, i, out, err));
    FR_TRY(print_section(&copy, HW_RAM, 0, out, err));
    for (int i = 0; i < hw->n_numa; i++)
        FR_TRY(print_section(&copy, HW_NUMA, i, out, err));
    return print_section(&copy, HW_DISK, 0, out, err);
}
