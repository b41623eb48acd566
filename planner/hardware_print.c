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
enum { HELP_COLUMN = 34, WIDTH = 100 };

/* The help as a comment behind the line that began at `line`, or on lines of its own before it. */
static fr_status print_key(const hw_row *row, const void *base, bool help, fr_buf *out, fr_err *err)
{
    if (help && HELP_COLUMN + 2 + strlen(row->help) > WIDTH)
        FR_TRY(fr_buf_printf(out, err, "; %s: %s\n", row->key, row->help));
    size_t line = out->n;
    FR_TRY(fr_buf_printf(out, err, "%s = ", row->key));
    FR_TRY(hw_value_print(row, base, out, err));
    if (help && HELP_COLUMN + 2 + strlen(row->help) <= WIDTH) {
        do
            FR_TRY(fr_buf_putc(out, ' ', err));
        while (out->n - line < HELP_COLUMN);
        FR_TRY(fr_buf_printf(out, err, "; %s", row->help));
    }
    return fr_buf_putc(out, '\n', err);
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
