/* The table of hardware_keys.def, and values of its units. */
#ifndef FR_PLANNER_HARDWARE_INTERNAL_H
#define FR_PLANNER_HARDWARE_INTERNAL_H

#include "planner/hardware.h"

typedef enum { HW_GPU, HW_LINK, HW_LINKS, HW_RAM, HW_NUMA, HW_DISK, HW_SECTIONS } hw_section;
typedef enum { HW_SIZE, HW_SPEED, HW_TFLOPS, HW_TOPS, HW_COUNT, HW_TEXT, HW_CPUS } hw_unit;

typedef struct {
    hw_section section;
    const char *key;
    hw_unit unit;
    size_t offset, bytes;     /* of the field: in fr_gpu_hw, fr_numa_hw or fr_hardware */
    double low, high, preset; /* in the base unit; of texts: their length; preset -1: none */
    const char *help;
} hw_row;

extern const hw_row hw_rows[];
extern const int hw_n_rows;

/* "gpu" (numbered sections are called "gpu.N"), and how many there can be (0: not numbered). */
typedef struct {
    const char *name;
    int count;
} hw_section_info;
extern const hw_section_info hw_sections[HW_SECTIONS];

/* The struct that the fields of a section are in. */
void *hw_base(fr_hardware *hw, hw_section section, int index);

/* Parses a value into the field at `base`. FR_EINVAL, FR_ERANGE: the text says what was found and
 * expected, the caller says where. */
fr_status hw_value_parse(const hw_row *row, const char *text, void *base, fr_err *err);

/* The value of the field, as the parser reads it back exactly. */
fr_status hw_value_print(const hw_row *row, const void *base, fr_buf *out, fr_err *err);

/* A number of the row's base unit the same way: for presets and bounds of number units. */
fr_status hw_number_print(hw_unit unit, double v, fr_buf *out, fr_err *err);

/* Sets a field to a number of the base unit (number units only). */
void hw_number_set(const hw_row *row, double v, void *base);

/* fr_hardware_probe under another root than "", for tests: ROOT/proc, ROOT/sys. */
fr_status hw_probe_at(const char *root, fr_hardware *out, fr_err *err);

/* The memory that this process may use at most: MemTotal, or less by a control group; 0: unknown.
 */
uint64_t hw_memory_at(const char *root);

/* The budget that is the default for so much memory: the rest is for the system. */
uint64_t hw_default_budget(uint64_t memory);

#endif
