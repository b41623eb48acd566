/* What the operating system tells about this machine, read from /proc and /sys (Linux). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "planner/hardware_internal.h"

enum { MAX_CPUINFO = 64 << 20, MAX_SOCKETS = 64, MAX_NODES = 1024, SMALL = 4096, PATH = 512 };

/* The first bytes of ROOT + path, or nothing: none of these files must be there. */
static fr_str read_small(const char *root, const char *path, char text[SMALL])
{
    char full[PATH];
    size_t n = 0;
    text[0] = 0;
    if (snprintf(full, sizeof full, "%s%s", root, path) >= PATH)
        return (fr_str){text, 0};
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 1; fd >= 0 && got > 0 && n<SMALL - 1; n += got> 0 ? (size_t)got : 0)
        got = read(fd, text + n, SMALL - 1 - n);
    if (fd >= 0)
        close(fd);
    text[n] = 0;
    return (fr_str){text, n};
}

/* The value of the line "key : value" in a text; {NULL, 0} when there is none. */
static fr_str line_value(fr_str text, const char *key)
{
    const char *line = text.p, *stop = text.p + text.n;
    while (text.n && line < stop) {
        const char *end = memchr(line, '\n', (size_t)(stop - line));
        end = end ? end : stop;
        const char *colon = memchr(line, ':', (size_t)(end - line));
        if (colon && fr_str_is(fr_str_trim((fr_str){line, (size_t)(colon - line)}), key))
            return fr_str_trim((fr_str){colon + 1, (size_t)(end - colon - 1)});
        line = end + 1;
    }
    return (fr_str){NULL, 0};
}

/* ---- memory
 * -------------------------------------------------------------------------------------- */

/* "24684092 kB" in bytes; 0 for anything else. */
static uint64_t kilobytes(fr_str v)
{
    return v.n ? strtoull(v.p, NULL, 10) * 1024 : 0;
}

/* A limit of a control group; UINT64_MAX when there is none ("max", or a number beyond all
 * memory). */
static uint64_t group_limit(const char *root, const char *path)
{
    char text[SMALL];
    fr_str v = read_small(root, path, text);
    uint64_t limit = v.n && v.p[0] >= '0' && v.p[0] <= '9' ? strtoull(v.p, NULL, 10) : 0;
    return limit ? limit : UINT64_MAX;
}

uint64_t hw_memory_at(const char *root)
{
    char text[SMALL];
    uint64_t total = kilobytes(line_value(read_small(root, "/proc/meminfo", text), "MemTotal"));
    uint64_t v2 = group_limit(root, "/sys/fs/cgroup/memory.max");
    uint64_t v1 = group_limit(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    total = v2 < total ? v2 : total;
    return v1 < total ? v1 : total;
}

uint64_t hw_default_budget(uint64_t memory)
{
    return memory / 16 * 15 >> 20 << 20; /* whole MiB, for people */
}

/* ---- processors
 * ---------------------------------------------------------------------------------- */

static bool has_flag(fr_str flags, const char *flag)
{
    size_t n = strlen(flag);
    for (size_t i = 0; i + n <= flags.n; i++)
        if (memcmp(flags.p + i, flag, n) == 0 && (i == 0 || flags.p[i - 1] == ' ') &&
            (i + n == flags.n || flags.p[i + n] == ' '))
            return true;
    return false;
}

/* Operations of one core in a second at 2.5 GHz, a common all-core clock of vector code: two
 * multiply-add units of the widest vectors; int8 by VNNI, or by three instructions without it. */
static void core_ops(fr_str flags, double *f32, double *int8)
{
    const double clock = 2.5e9;
    bool wide = has_flag(flags, "avx512bw"), fma = has_flag(flags, "fma");
    bool vnni = has_flag(flags, wide ? "avx512_vnni" : "avx_vnni");
    double bytes = wide ? 64 : has_flag(flags, "avx2") ? 32 : 16;
    *f32 = clock * bytes / 4 * (fma ? 4 : 2);
    *int8 = clock * bytes * (vnni ? 4 : 4.0 / 3);
}

/* Cores of all sockets: "cpu cores" of the first processor of each "physical id"; without these
 * fields the number of processors. */
static int count_cores(fr_str text)
{
    bool seen[MAX_SOCKETS] = {false};
    int cores = 0, processors = 0;
    for (fr_str block; text.n; text.p += block.n, text.n -= block.n) {
        const char *blank = memmem(text.p, text.n, "\n\n", 2);
        block = (fr_str){text.p, blank ? (size_t)(blank + 2 - text.p) : text.n};
        fr_str socket = line_value(block, "physical id"), count = line_value(block, "cpu cores");
        processors += line_value(block, "processor").n > 0;
        unsigned long id = socket.n ? strtoul(socket.p, NULL, 10) : MAX_SOCKETS;
        if (id >= MAX_SOCKETS || !count.n || seen[id])
            continue;
        seen[id] = true;
        long n = strtol(count.p, NULL, 10);
        cores += n > 0 && n < 4096 ? (int)n : 0;
    }
    return cores ? cores : processors;
}

/* Without /proc/cpuinfo the presets stay. */
static fr_status probe_cpu(const char *root, fr_hardware *hw, fr_err *err)
{
    fr_buf file = {0};
    char path[PATH];
    double f32, int8;
    fr_status st = FR_EIO;
    if (snprintf(path, sizeof path, "%s/proc/cpuinfo", root) < PATH)
        st = fr_file_slurp(path, MAX_CPUINFO, &file, err);
    fr_str text = {file.n ? file.p : "", st == FR_OK ? file.n : 0};
    fr_str name = line_value(text, "model name");
    core_ops(line_value(text, "flags"), &f32, &int8);
    snprintf(hw->cpu_name, sizeof hw->cpu_name, "%.*s", (int)name.n, name.n ? name.p : "");
    hw->n_cores = count_cores(text);
    if (hw->n_cores) {
        hw->cpu_f32_ops = f32 * hw->n_cores;
        hw->cpu_int8_ops = int8 * hw->n_cores;
    }
    fr_buf_free(&file);
    return st == FR_ENOMEM ? st : FR_OK;
}

/* ---- NUMA nodes
 * ---------------------------------------------------------------------------------- */

/* The last number of a list such as "0-1,3"; -1 when there is none. */
static int last_node(const char *list)
{
    int last = -1;
    for (const char *p = list; p && *p >= '0' && *p <= '9';) {
        char *end;
        long v = strtol(p, &end, 10);
        last = v < MAX_NODES ? (int)v : -1;
        p = *end == '-' || *end == ',' ? end + 1 : NULL;
    }
    return last;
}

static void probe_node(const char *root, int i, fr_numa_hw *node)
{
    char path[96], key[40], text[SMALL];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", i);
    snprintf(key, sizeof key, "Node %d MemTotal", i);
    node->bytes = hw_default_budget(kilobytes(line_value(read_small(root, path, text), key)));
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", i);
    fr_str cpus = fr_str_trim(read_small(root, path, text));
    if (cpus.n < sizeof node->cpus) /* a cut list would be a wrong one */
        snprintf(node->cpus, sizeof node->cpus, "%.*s", FR_STR_ARG(cpus));
}

/* Nodes keep their numbers: one without memory has a budget of 0. A single node is none. */
static void probe_numa(const char *root, fr_hardware *hw)
{
    char text[SMALL];
    int last = last_node(read_small(root, "/sys/devices/system/node/has_memory", text).p);
    if (last < 1 || last >= FR_MAX_NUMA)
        return;
    hw->n_numa = last + 1;
    for (int i = 0; i < hw->n_numa; i++) {
        probe_node(root, i, &hw->numa[i]);
        hw->numa[i].bandwidth = hw->ram_bandwidth;
    }
    hw->ram_bandwidth *= hw->n_numa; /* each node has memory controllers of its own */
}

fr_status hw_probe_at(const char *root, fr_hardware *out, fr_err *err)
{
    fr_hardware_defaults(out);
    uint64_t memory = hw_memory_at(root);
    if (memory == 0)
        return fr_fail(err, FR_EIO,
                       "%s/proc/meminfo: found no line MemTotal, expected the size of the memory; "
                       "describe the machine in an INI file ([ram] budget = ...)",
                       root);
    out->ram_bytes = hw_default_budget(memory);
    FR_TRY(probe_cpu(root, out, err));
    probe_numa(root, out);
    return FR_OK;
}

fr_status fr_hardware_probe(fr_hardware *out, fr_err *err)
{
    return hw_probe_at("", out, err);
}
