/* The hardware sections of an INI file. */
#include "planner/hardware_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB  0x1p20
#define TIB  0x1p40
#define ONE  1e9
#define KILO 1e12
#define NONE -1

/* The struct that the fields of a section are in. */
typedef fr_gpu_hw in_GPU, in_LINK, in_LINKS;
typedef fr_numa_hw in_NUMA;
typedef fr_hardware in_RAM, in_DISK;

const hw_row hw_rows[] = {
#define ROW(SECTION, key, UNIT, field, low, high, preset, help)                                    \
    {HW_##SECTION,                                                                                 \
     key,                                                                                          \
     HW_##UNIT,                                                                                    \
     offsetof(in_##SECTION, field),                                                                \
     sizeof(((in_##SECTION *)0)->field),                                                           \
     low,                                                                                          \
     high,                                                                                         \
     preset,                                                                                       \
     help},
#include "planner/hardware_keys.def"
#undef ROW
};

enum { N_ROWS = sizeof hw_rows / sizeof *hw_rows };
const int hw_n_rows = N_ROWS;

const hw_section_info hw_sections[HW_SECTIONS] = {
    [HW_GPU] = {"gpu", FR_MAX_GPUS}, [HW_LINK] = {"link", FR_MAX_GPUS}, [HW_LINKS] = {"links", 0},
    [HW_RAM] = {"ram", 0},           [HW_NUMA] = {"numa", FR_MAX_NUMA}, [HW_DISK] = {"disk", 0},
};

_Static_assert(FR_MAX_GPUS == FR_MAX_NUMA, "one size for all numbered sections");

/* ---- defaults
 * ------------------------------------------------------------------------------------ */

void *hw_base(fr_hardware *hw, hw_section section, int index)
{
    if (section == HW_GPU || section == HW_LINK)
        return &hw->gpus[index];
    if (section == HW_NUMA)
        return &hw->numa[index];
    return hw;
}

static void set_presets(fr_hardware *hw, hw_section section, int index)
{
    for (int i = 0; i < N_ROWS; i++)
        if (hw_rows[i].section == section && hw_rows[i].preset >= 0)
            hw_number_set(&hw_rows[i], hw_rows[i].preset, hw_base(hw, section, index));
}

void fr_hardware_defaults(fr_hardware *hw)
{
    memset(hw, 0, sizeof *hw);
    for (int i = 0; i < FR_MAX_GPUS; i++) {
        set_presets(hw, HW_GPU, i);
        hw->gpus[i].device = i;
        snprintf(hw->gpus[i].name, sizeof hw->gpus[i].name, "GPU %d", i);
    }
    set_presets(hw, HW_RAM, 0);
    set_presets(hw, HW_DISK, 0);
    hw->ram_bytes = hw_default_budget(hw_memory_at(""));
}

/* ---- reading
 * ------------------------------------------------------------------------------------- */

/* Which key set what; [row][number of the section]. */
typedef struct {
    fr_hardware *hw;
    fr_gpu_hw links; /* what [links] says */
    const fr_hw_key *set[N_ROWS][FR_MAX_GPUS];
    const fr_hw_key *first[HW_SECTIONS][FR_MAX_GPUS]; /* key of a section */
} reader;

static const char *file_of(const fr_hw_key *k)
{
    return k->file ? k->file : "INI";
}

/* Splits "gpu.3"; false when there is no such section. */
static bool parse_section(const char *text, hw_section *section, int *index)
{
    size_t n = strcspn(text, ".");
    const char *number = text + n + (text[n] == '.');
    size_t digits = strspn(number, "0123456789");
    *index = 0;
    for (int s = 0; s < HW_SECTIONS; s++) {
        if (strlen(hw_sections[s].name) != n || memcmp(text, hw_sections[s].name, n) != 0)
            continue;
        *section = (hw_section)s;
        if (hw_sections[s].count == 0)
            return text[n] == 0;
        *index = digits > 0 && digits <= 4 ? atoi(number) : -1;
        return *index >= 0 && number[digits] == 0;
    }
    return false;
}

static bool same_key(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (*a != *b && !(*a == '_' && *b == '-'))
            return false;
    return *a == *b;
}

static int find_row(hw_section section, const char *key)
{
    for (int i = 0; i < N_ROWS; i++)
        if (hw_rows[i].section == section && same_key(key, hw_rows[i].key))
            return i;
    return -1;
}

static fr_status fail_section(const fr_hw_key *k, fr_err *err)
{
    return fr_fail(err, FR_EINVAL,
                   "%s:%d: found section [%.40s], expected [gpu.N], [numa.N], [link.N] with N from "
                   "0 to %d, [links], [ram] or [disk]",
                   file_of(k), k->line, k->section, FR_MAX_GPUS - 1);
}

/* Names the nearest key of the section, the section that has the key, or all keys. */
static fr_status fail_key(const fr_hw_key *k, hw_section section, fr_err *err)
{
    const char *names[N_ROWS];
    fr_buf hint = {0};
    size_t n = 0;
    for (int i = 0; i < N_ROWS; i++)
        if (hw_rows[i].section == section)
            names[n++] = hw_rows[i].key;
    fr_status st = FR_OK;
    const char *near = fr_nearest_name(fr_str_of(k->key), names, n, 2);
    if (near)
        st = fr_buf_printf(&hint, err, "; did you mean %s?", near);
    for (int i = 0; !near && hint.n == 0 && st == FR_OK && i < N_ROWS; i++)
        if (same_key(k->key, hw_rows[i].key))
            st = fr_buf_printf(&hint, err, "; %s belongs into [%s%s]", k->key,
                               hw_sections[hw_rows[i].section].name,
                               hw_sections[hw_rows[i].section].count ? ".N" : "");
    for (size_t i = 0; hint.n == 0 || (i > 0 && i < n); i++)
        if (st != FR_OK || (st = fr_buf_printf(&hint, err, "%s%s", i ? ", " : ": ", names[i])))
            break;
    if (st == FR_OK)
        st =
            fr_fail(err, FR_EINVAL, "%s:%d: [%s] %.60s: unknown key, expected one of the section%s",
                    file_of(k), k->line, k->section, k->key, hint.p);
    fr_buf_free(&hint);
    return st;
}

static fr_status read_key(reader *r, const fr_hw_key *k, fr_err *err)
{
    hw_section section;
    int index;
    if (!parse_section(k->section, &section, &index) ||
        (hw_sections[section].count && index >= hw_sections[section].count))
        return fail_section(k, err);
    int i = find_row(section, k->key);
    if (i < 0)
        return fail_key(k, section, err);
    const fr_hw_key *before = r->set[i][index];
    if (before)
        return fr_fail(err, FR_EINVAL,
                       "%s:%d: [%s] %s: found it a second time, expected it once; %s:%d has it too",
                       file_of(k), k->line, k->section, k->key, file_of(before), before->line);
    r->set[i][index] = k;
    if (!r->first[section][index])
        r->first[section][index] = k;
    void *base = section == HW_LINKS ? &r->links : hw_base(r->hw, section, index);
    fr_status st = hw_value_parse(&hw_rows[i], k->value, base, err);
    return st == FR_OK
               ? FR_OK
               : fr_err_context(err, st, "%s:%d: [%s] %s", file_of(k), k->line, k->section, k->key);
}

/* ---- what follows from several keys
 * -------------------------------------------------------------- */

static const fr_hw_key *key_of(const reader *r, hw_section section, const char *key, int index)
{
    return r->set[find_row(section, key)][index];
}

/* The number of sections, which must be numbered from 0 without a gap. */
static fr_status count_sections(const reader *r, hw_section section, int *n, fr_err *err)
{
    const fr_hw_key *const *first = r->first[section];
    for (*n = 0; *n < FR_MAX_GPUS && first[*n];)
        ++*n;
    for (int i = *n; i < FR_MAX_GPUS; i++)
        if (first[i])
            return fr_fail(err, FR_EINVAL,
                           "%s:%d: found [%s.%d] without [%s.%d], expected the sections to be "
                           "numbered from 0 without a gap",
                           file_of(first[i]), first[i]->line, hw_sections[section].name, i,
                           hw_sections[section].name, *n);
    return FR_OK;
}

static fr_status check_gpu(const reader *r, int i, fr_err *err)
{
    const fr_hw_key *k = r->first[HW_GPU][i];
    const fr_gpu_hw *g = &r->hw->gpus[i];
    if (!key_of(r, HW_GPU, "vram", i))
        return fr_fail(err, FR_EINVAL,
                       "%s:%d: [gpu.%d]: found no vram, expected what ferry may use of the GPU's "
                       "memory, such as vram = 24GiB",
                       file_of(k), k->line, i);
    if (g->reserve_bytes >= g->vram_bytes) {
        char reserve[32], vram[32];
        return fr_fail(err, FR_EINVAL,
                       "%s:%d: [gpu.%d]: found a reserve of %s, expected less than vram = %s",
                       file_of(k), k->line, i, fr_format_bytes(g->reserve_bytes, reserve),
                       fr_format_bytes(g->vram_bytes, vram));
    }
    return FR_OK;
}

/* One direction of the links: [gpu.N] or [link.N], else [links], else the preset. */
static fr_status join_links(reader *r, const char *key, fr_err *err)
{
    int row = find_row(HW_GPU, key), common = find_row(HW_LINKS, key);
    size_t offset = hw_rows[row].offset;
    for (int i = 0; i < FR_MAX_GPUS; i++) {
        const fr_hw_key *a = r->set[row][i], *b = key_of(r, HW_LINK, key, i);
        if (r->first[HW_LINK][i] && i >= r->hw->n_gpus)
            return fr_fail(err, FR_EINVAL, "%s:%d: found [link.%d], expected a [gpu.%d] to it",
                           file_of(r->first[HW_LINK][i]), r->first[HW_LINK][i]->line, i, i);
        if (a && b)
            return fr_fail(err, FR_EINVAL,
                           "%s:%d: [link.%d] %s: found it a second time, expected it once; %s:%d "
                           "has it too",
                           file_of(b), b->line, i, key, file_of(a), a->line);
        if (!a && !b && r->set[common][0])
            memcpy((char *)&r->hw->gpus[i] + offset, (char *)&r->links + offset, sizeof(double));
    }
    return FR_OK;
}

/* What the nodes do not say is an equal part of the RAM; what the RAM does not say is the sum of
 * nodes that all say it. */
static void share_numa(reader *r)
{
    fr_hardware *hw = r->hw;
    uint64_t bytes = 0;
    double bandwidth = 0;
    bool all_bytes = hw->n_numa > 0, all_bandwidth = hw->n_numa > 0;
    for (int i = 0; i < hw->n_numa; i++) {
        all_bytes &= key_of(r, HW_NUMA, "budget", i) != NULL;
        all_bandwidth &= key_of(r, HW_NUMA, "bandwidth", i) != NULL;
        bytes += hw->numa[i].bytes;
        bandwidth += hw->numa[i].bandwidth;
    }
    if (all_bytes && !key_of(r, HW_RAM, "budget", 0))
        hw->ram_bytes = bytes;
    if (all_bandwidth && !key_of(r, HW_RAM, "bandwidth", 0))
        hw->ram_bandwidth = bandwidth;
    for (int i = 0; i < hw->n_numa; i++) {
        if (!key_of(r, HW_NUMA, "budget", i))
            hw->numa[i].bytes = hw->ram_bytes / (uint64_t)hw->n_numa;
        if (!key_of(r, HW_NUMA, "bandwidth", i))
            hw->numa[i].bandwidth = hw->ram_bandwidth / hw->n_numa;
    }
}

fr_status fr_hardware_read(const fr_hw_key *keys, size_t n, fr_hardware *out, fr_err *err)
{
    reader r = {.hw = out};
    fr_hardware_defaults(out);
    for (size_t i = 0; i < n; i++)
        FR_TRY(read_key(&r, &keys[i], err));
    FR_TRY(count_sections(&r, HW_GPU, &out->n_gpus, err));
    FR_TRY(count_sections(&r, HW_NUMA, &out->n_numa, err));
    for (int i = 0; i < out->n_gpus; i++)
        FR_TRY(check_gpu(&r, i, err));
    FR_TRY(join_links(&r, "h2d", err));
    FR_TRY(join_links(&r, "d2h", err));
    share_numa(&r);
    return FR_OK;
}
