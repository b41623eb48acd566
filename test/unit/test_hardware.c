/* Hardware sections: the machines of configs/, values, what follows from several keys, errors,
 * printing and reading back, and what /proc and /sys of made-up machines say. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"

#include "base/arena.h"
#include "base/file.h"
#include "opts/opts_internal.h"
#include "planner/hardware_internal.h"

#define GIB  (1ull << 30)
#define KEYS 400

static fr_err err;

/* ---- reading a text as the tools do
 * -------------------------------------------------------------- */

typedef struct {
    fr_hw_key keys[KEYS];
    size_t n;
    fr_arena arena;
} ini;

static fr_status take(void *user, const char *section, const char *key, const char *value, int line,
                      fr_err *e)
{
    ini *t = user;
    if (!key)
        return FR_OK;
    assert_true(t->n < KEYS);
    fr_hw_key *k = &t->keys[t->n++];
    k->section = fr_arena_strndup(&t->arena, section, strlen(section), e);
    k->key = fr_arena_strndup(&t->arena, key, strlen(key), e);
    k->value = fr_arena_strndup(&t->arena, value, strlen(value), e);
    k->file = "m.ini";
    k->line = line;
    return k->section && k->key && k->value ? FR_OK : FR_ENOMEM;
}

static void parse(ini *t, const char *text)
{
    *t = (ini){.arena = fr_arena_make(FR_MEM_MISC)};
    assert_ok(opts_ini_parse("m.ini", text, strlen(text), take, t, &err));
}

static fr_status read_text(const char *text, fr_hardware *hw, fr_err *e)
{
    ini t;
    parse(&t, text);
    fr_status st = fr_hardware_read(t.keys, t.n, hw, e);
    fr_arena_free(&t.arena);
    return st;
}

static void read_file(const char *path, fr_hardware *hw)
{
    fr_buf text = {0};
    assert_ok(fr_file_slurp(path, 1 << 20, &text, &err));
    assert_ok(read_text(text.p, hw, &err));
    fr_buf_free(&text);
}

/* ---- the files of configs/
 * ----------------------------------------------------------------------- */

static const char *const configs[] = {
    SOURCE_FILE("configs/3x3090-threadripper-ddr4.ini"),
    SOURCE_FILE("configs/1x3090-epyc.ini"),
    SOURCE_FILE("configs/2x4090-xeon.ini"),
    SOURCE_FILE("configs/1x-h100.ini"),
    SOURCE_FILE("configs/cpu-only.ini"),
    SOURCE_FILE("configs/virtual-3x24g-on-one.ini"),
};

enum { N_CONFIGS = sizeof configs / sizeof *configs };

static void machine_3x3090(void **state)
{
    (void)state;
    fr_hardware hw;
    read_file(configs[0], &hw);
    assert_int_equal(hw.n_gpus, 3);
    for (int i = 0; i < 3; i++) {
        const fr_gpu_hw *g = &hw.gpus[i];
        assert_int_equal(g->device, i);
        assert_string_equal(g->name, "RTX 3090");
        assert_int_equal(g->vram_bytes, 24 * GIB);
        assert_int_equal(g->reserve_bytes, 512ull << 20);
        assert_true(g->bandwidth == 936e9 && g->f16_ops == 71e12 && g->int8_ops == 284e12);
        assert_true(g->h2d == 25e9 && g->d2h == 25e9);
    }
    assert_int_equal(hw.ram_bytes, 248 * GIB);
    assert_true(hw.ram_bandwidth == 95e9 && hw.cpu_f32_ops == 1.9e12 && hw.cpu_int8_ops == 2.6e12);
    assert_string_equal(hw.cpu_name, "Threadripper PRO 3955WX");
    assert_int_equal(hw.n_cores, 16);
    assert_int_equal(hw.n_numa, 0);
    assert_true(hw.disk_bandwidth == 6.5e9);
}

static void machine_others(void **state)
{
    (void)state;
    fr_hardware hw;
    read_file(configs[2], &hw);
    assert_int_equal(hw.n_gpus, 2);
    assert_true(hw.gpus[1].h2d == 25e9 && hw.gpus[0].d2h == 25e9); /* of [links] */
    read_file(configs[3], &hw);
    assert_int_equal(hw.n_gpus, 1);
    assert_true(hw.gpus[0].bandwidth == 3350e9 && hw.gpus[0].f16_ops == 989e12);
    read_file(configs[4], &hw);
    assert_int_equal(hw.n_gpus, 0);
    assert_int_equal(hw.n_numa, 2);
    assert_string_equal(hw.numa[1].cpus, "64-127,192-255");
    assert_int_equal(hw.numa[0].bytes + hw.numa[1].bytes, hw.ram_bytes);
    read_file(configs[5], &hw);
    assert_int_equal(hw.n_gpus, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hw.gpus[i].device, 0);
        assert_int_equal(hw.gpus[i].vram_bytes, 24 * GIB);
    }
}

/* Any tool takes them as --config. */
static void configs_with_tools(void **state)
{
    (void)state;
    static const fr_tool tools[] = {FR_TOOL_CLI, FR_TOOL_LOGITS, FR_TOOL_PLAN, FR_TOOL_BENCH,
                                    FR_TOOL_SERVER};
    for (int i = 0; i < N_CONFIGS; i++)
        for (size_t k = 0; k < sizeof tools / sizeof *tools; k++) {
            char *argv[] = {"ferry", "--log-disable", "--config", (char *)(uintptr_t)configs[i]};
            fr_options o;
            assert_ok(fr_opts_parse(4, argv, tools[k], &o, &err));
            assert_true(o.n_hw > 5);
            fr_opts_free(&o);
        }
}

/* ---- values
 * -------------------------------------------------------------------------------------- */

static void sizes_and_speeds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"24GiB", 24 * GIB},     {"24 GB", 24 * GIB},       {"24576", 24 * GIB},
                 {"24gib", 24 * GIB},     {"0.5 GiB", GIB / 2},      {"1T", 1024 * GIB},
                 {"2TB", 2048 * GIB},     {"100M", 100ull << 20},    {"1048576KiB", GIB},
                 {"600MB", 600ull << 20}, {"77309411328B", 72 * GIB}};
    static const struct {
        const char *text;
        double v;
    } speeds[] = {{"936", 936e9},        {"936 GB/s", 936e9},  {"936gb/s", 936e9},
                  {"3.35TB/s", 3.35e12}, {"1500 MB/s", 1.5e9}, {"25.5", 25.5e9}};
    fr_hardware hw;
    char text[200];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(text, sizeof text, "[gpu.0]\nreserve=0\nvram = %s\n", sizes[i].text);
        assert_ok(read_text(text, &hw, &err));
        assert_int_equal(hw.gpus[0].vram_bytes, sizes[i].bytes);
    }
    for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++) {
        snprintf(text, sizeof text, "[ram]\nbandwidth = %s\n", speeds[i].text);
        assert_ok(read_text(text, &hw, &err));
        assert_true(hw.ram_bandwidth == speeds[i].v);
    }
    assert_ok(read_text("[ram]\nf32 = 900 GFLOPS\nint8 = 0.002 POPS\n", &hw, &err));
    assert_true(hw.cpu_f32_ops == 0.9e12 && hw.cpu_int8_ops == 2e12);
}

static void defaults(void **state)
{
    (void)state;
    fr_hardware hw;
    assert_ok(fr_hardware_read(NULL, 0, &hw, &err));
    assert_int_equal(hw.n_gpus, 0);
    assert_int_equal(hw.n_numa, 0);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t all = (uint64_t)pages * (uint64_t)page;
    assert_in_range(hw.ram_bytes, 1, all); /* less where a control group limits it */
    assert_true(hw.ram_bandwidth > 0 && hw.cpu_f32_ops > 0 && hw.cpu_int8_ops > 0);
    assert_ok(read_text("[gpu.0]\nvram=8GiB\n[gpu.1]\nvram=9GiB\ndevice=4\n", &hw, &err));
    assert_int_equal(hw.gpus[0].device, 0);
    assert_int_equal(hw.gpus[1].device, 4);
    assert_string_equal(hw.gpus[1].name, "GPU 1");
    assert_int_equal(hw.gpus[0].reserve_bytes, 512ull << 20);
    assert_true(hw.gpus[0].bandwidth > 0 && hw.gpus[0].f16_ops > 0 && hw.gpus[0].int8_ops > 0 &&
                hw.gpus[0].h2d > 0 && hw.gpus[0].d2h > 0);
}

static void links_and_nodes(void **state)
{
    (void)state;
    fr_hardware hw;
    assert_ok(read_text("[links]\nh2d=10\nd2h=11\n[gpu.0]\nvram=8GiB\nh2d=20\n[gpu.1]\nvram=8GiB\n"
                        "[gpu.2]\nvram=8GiB\n[link.2]\nd2h=30\n",
                        &hw, &err));
    assert_true(hw.gpus[0].h2d == 20e9 && hw.gpus[0].d2h == 11e9);
    assert_true(hw.gpus[1].h2d == 10e9 && hw.gpus[1].d2h == 11e9);
    assert_true(hw.gpus[2].h2d == 10e9 && hw.gpus[2].d2h == 30e9);
    /* Nodes that say all give the sum; a node that says nothing gets an equal part. */
    assert_ok(read_text("[numa.0]\nbudget=64GiB\nbandwidth=100\n[numa.1]\nbudget=32GiB\n"
                        "bandwidth=50\n",
                        &hw, &err));
    assert_int_equal(hw.ram_bytes, 96 * GIB);
    assert_true(hw.ram_bandwidth == 150e9);
    assert_ok(read_text("[ram]\nbudget=100GiB\nbandwidth=200\n[numa.0]\ncpus=0-3\n[numa.1]\n"
                        "cpus=4-7,9\nbudget=1GiB\n",
                        &hw, &err));
    assert_int_equal(hw.ram_bytes, 100 * GIB);
    assert_int_equal(hw.numa[0].bytes, 50 * GIB);
    assert_int_equal(hw.numa[1].bytes, GIB);
    assert_true(hw.numa[0].bandwidth == 100e9 && hw.numa[1].bandwidth == 100e9);
}

/* ---- errors
 * -------------------------------------------------------------------------------------- */

static void errors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        fr_status code;
        const char *words; /* all of them, separated by '|' */
    } cases[] = {
        {"[gpu.0]\nvram = lots\n", FR_EINVAL,
         "m.ini:2: [gpu.0] vram|found \"lots\"|24GiB|from 64 MiB to 16 TiB"},
        {"[gpu.0]\nvram = 24 apples\n", FR_EINVAL, "\"24 apples\""},
        {"[gpu.0]\nvram = 0x20GiB\n", FR_EINVAL, "0x20GiB"},
        {"[gpu.0]\nvram = inf\n", FR_EINVAL, "inf"},
        {"[gpu.0]\nvram = -1\n", FR_EINVAL, "-1"},
        {"[gpu.0]\nvram = 1.2.3\n", FR_EINVAL, "1.2.3"},
        {"[gpu.0]\nvram = 1MiB\n", FR_ERANGE, "m.ini:2|from 64 MiB"},
        {"[gpu.0]\nvram = 999999999999999999999999TiB\n", FR_ERANGE, "16 TiB"},
        {"[gpu.0]\nvram = 99999999999999999999999999999999999999999999\n", FR_EINVAL, "a size"},
        {"[gpu.0]\nvram = 24GiB\nbandwidth = 0\n", FR_ERANGE, "m.ini:3|a speed|1 GB/s"},
        {"[gpu.0]\nvram = 24GiB\ndevice = 1.5\n", FR_EINVAL, "whole number|from 0 to 255"},
        {"[ram]\nhuge-pages = on\n", FR_EINVAL, "huge-pages"}, /* that is -thp */
        {"[numa.0]\ncpus = 0-3;\n", FR_EINVAL, "list of CPUs"},
        {"[numa.0]\ncpus = 7-3\n", FR_EINVAL, "list of CPUs"},
        {"[numa.0]\ncpus =\n", FR_EINVAL, "list of CPUs"},
        {"[gpu.0]\nvram=1GiB\nname = 0123456789012345678901234567890123456789012345678901234567890"
         "123456\n",
         FR_ERANGE, "found 67 bytes, expected at most 63"},
        {"[gpu.0]\nvrma = 24GiB\n", FR_EINVAL, "m.ini:2: [gpu.0] vrma|did you mean vram?"},
        {"[gpu.0]\nbudget = 24GiB\n", FR_EINVAL, "budget belongs into [ram]"},
        {"[ram]\nvram = 24GiB\n", FR_EINVAL, "vram belongs into [gpu.N]"},
        {"[disk]\nspeed = 7\n", FR_EINVAL, "unknown key|: read"},
        {"[gpu.0]\nvram = 1GiB\n\nvram = 2GiB\n", FR_EINVAL, "m.ini:4|second time|m.ini:2"},
        {"[gpu.1]\nvram = 1GiB\n", FR_EINVAL, "m.ini:2|[gpu.1] without [gpu.0]"},
        {"[gpu.0]\nvram=1GiB\n[gpu.2]\nvram = 1GiB\n", FR_EINVAL, "[gpu.2] without [gpu.1]"},
        {"[numa.0]\ncpus=0\n[numa.3]\ncpus=1\n", FR_EINVAL, "[numa.3] without [numa.1]"},
        {"[gpu.16]\nvram = 1GiB\n", FR_EINVAL, "[gpu.16]|from 0 to 15"},
        {"[gpu.99999]\nvram = 1GiB\n", FR_EINVAL, "[gpu.99999]"},
        {"[gpu]\nvram = 1GiB\n", FR_EINVAL, "found section [gpu]"},
        {"[gpu.x]\nvram = 1GiB\n", FR_EINVAL, "found section [gpu.x]"},
        {"[ram.0]\nbudget = 1GiB\n", FR_EINVAL, "found section [ram.0]"},
        {"[gpu.0]\nname = A card\n", FR_EINVAL, "m.ini:2: [gpu.0]: found no vram"},
        {"[gpu.0]\nvram = 1GiB\nreserve = 2GiB\n", FR_EINVAL, "reserve of 2.000 GiB|1.000 GiB"},
        {"[link.0]\nh2d = 25\n", FR_EINVAL, "m.ini:2|expected a [gpu.0]"},
        {"[gpu.0]\nvram=1GiB\nh2d=25\n[link.0]\nh2d = 26\n", FR_EINVAL, "m.ini:5|m.ini:3"},
    };
    fr_hardware hw;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char list[400], *word, *rest = list;
        snprintf(list, sizeof list, "%s", cases[i].words);
        err.text[0] = 0;
        assert_int_equal(read_text(cases[i].text, &hw, &err), cases[i].code);
        assert_int_equal(err.code, cases[i].code);
        while ((word = strsep(&rest, "|")))
            if (!strstr(err.text, word))
                fail_msg("%s: expected \"%s\" in: %s", cases[i].text, word, err.text);
        assert_int_equal(read_text(cases[i].text, &hw, NULL), cases[i].code);
    }
}

/* ---- printing
 * ------------------------------------------------------------------------------------ */

static void assert_same(const fr_hardware *a, const fr_hardware *b)
{
    assert_int_equal(a->n_gpus, b->n_gpus);
    assert_int_equal(a->n_numa, b->n_numa);
    for (int s = 0; s < HW_SECTIONS; s++) {
        int n = s == HW_GPU ? a->n_gpus : s == HW_NUMA ? a->n_numa : s == HW_RAM || s == HW_DISK;
        for (int k = 0; k < n; k++)
            for (int i = 0; i < hw_n_rows; i++) {
                const hw_row *row = &hw_rows[i];
                if ((int)row->section != s)
                    continue;
                fr_hardware x = *a, y = *b;
                const char *p = (const char *)hw_base(&x, row->section, k) + row->offset;
                const char *q = (const char *)hw_base(&y, row->section, k) + row->offset;
                bool text = row->unit == HW_TEXT || row->unit == HW_CPUS;
                if (text ? strcmp(p, q) : memcmp(p, q, row->bytes))
                    fail_msg("[%s] %s does not come back", hw_sections[s].name, row->key);
            }
    }
}

static void print_and_read(const fr_hardware *hw)
{
    fr_buf text = {0};
    fr_hardware again;
    assert_ok(fr_hardware_print_ini(hw, &text, &err));
    if (read_text(text.p, &again, &err) != FR_OK)
        fail_msg("%s\n%s", err.text, text.p);
    assert_same(hw, &again);
    for (const char *line = text.p; *line; line += strcspn(line, "\n") + 1)
        assert_in_range(strcspn(line, "\n"), 0, 100);
    fr_buf_free(&text);
}

static void print_comes_back(void **state)
{
    (void)state;
    fr_hardware hw;
    for (int i = 0; i < N_CONFIGS; i++) {
        read_file(configs[i], &hw);
        print_and_read(&hw);
    }
    fr_hardware_defaults(&hw);
    print_and_read(&hw);
    hw.n_gpus = 2;
    hw.gpus[0].vram_bytes = 25757220864ull; /* what a driver says: 24564 MiB */
    hw.gpus[1].vram_bytes = 25757220863ull;
    snprintf(hw.gpus[0].name, 64, " \"odd\"; # = \\name' ");
    hw.gpus[1].device = 0;
    hw.ram_bandwidth = 45678901234.0;
    print_and_read(&hw);
}

/* Figures that were measured come back to the last bit, or nearly. */
static void print_any_figure(void **state)
{
    (void)state;
    uint64_t seed = 0x5eed;
    for (int i = 0; i < 2000; i++) {
        fr_buf text = {0};
        double v = exp(0.5 * (test_rand_f(&seed) + 1) * 14) * 1e7; /* 10 MB/s to 12 TB/s */
        assert_ok(hw_number_print(HW_SPEED, v, &text, &err));
        double back = strtod(text.p, NULL);
        back *= strstr(text.p, "MB/s") ? 1e6 : strstr(text.p, "TB/s") ? 1e12 : 1e9;
        assert_true(fabs(back - v) <= v * 0x1p-51);
        fr_buf_free(&text);
    }
}

/* ---- the running machine, and made-up ones
 * ------------------------------------------------------- */

static char root[] = "/tmp/ferry-probe-XXXXXX";

static void put(const char *path, const char *text)
{
    char full[600];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void empty_root(void)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    assert_int_equal(system(command), 0);
}

static void probe_here(void **state)
{
    (void)state;
    fr_hardware hw;
    assert_ok(fr_hardware_probe(&hw, &err));
    assert_true(hw.ram_bytes > 0 && hw.n_cores >= 1 && hw.n_gpus == 0);
    print_and_read(&hw);
}

static void probe_two_sockets(void **state)
{
    (void)state;
    fr_hardware hw;
    fr_buf cpus = {0};
    empty_root();
    put("/proc/meminfo", "MemTotal:       527957116 kB\nMemFree: 1 kB\n");
    for (int i = 0; i < 64; i++) /* two sockets of 16 cores with two threads each */
        assert_ok(fr_buf_printf(&cpus, &err,
                                "processor\t: %d\nmodel name\t: Xeon(R)  Gold\nphysical id\t: %d\n"
                                "cpu cores\t: 16\nflags\t\t: fpu fma avx2 avx512bw avx512_vnni\n\n",
                                i, i / 16 % 2));
    put("/proc/cpuinfo", cpus.p);
    put("/sys/devices/system/node/has_memory", "0-1\n");
    put("/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:  263000000 kB\nNode 0 X: 1\n");
    put("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:  264000000 kB\n");
    put("/sys/devices/system/node/node0/cpulist", "0-15,32-47\n");
    put("/sys/devices/system/node/node1/cpulist", "16-31,48-63\n");
    assert_ok(hw_probe_at(root, &hw, &err));
    assert_int_equal(hw.ram_bytes, 527957116ull * 1024 / 16 * 15 >> 20 << 20);
    assert_int_equal(hw.n_cores, 32);
    assert_string_equal(hw.cpu_name, "Xeon(R)  Gold");
    assert_true(hw.cpu_f32_ops == 32 * 64 * 2.5e9 && hw.cpu_int8_ops == 32 * 256 * 2.5e9);
    assert_int_equal(hw.n_numa, 2);
    assert_string_equal(hw.numa[1].cpus, "16-31,48-63");
    assert_int_equal(hw.numa[0].bytes, 263000000ull * 1024 / 16 * 15 >> 20 << 20);
    assert_int_equal(hw.numa[1].bytes, 264000000ull * 1024 / 16 * 15 >> 20 << 20);
    assert_true(hw.ram_bandwidth == 2 * hw.numa[0].bandwidth);
    print_and_read(&hw);
    /* A container that may use 64 GiB of it; then the older control groups. */
    put("/sys/fs/cgroup/memory.max", "68719476736\n");
    assert_ok(hw_probe_at(root, &hw, &err));
    assert_int_equal(hw.ram_bytes, 60 * GIB);
    put("/sys/fs/cgroup/memory.max", "max\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "34359738368\n");
    assert_ok(hw_probe_at(root, &hw, &err));
    assert_int_equal(hw.ram_bytes, 30 * GIB);
    fr_buf_free(&cpus);
}

static void probe_odd_machines(void **state)
{
    (void)state;
    fr_hardware hw;
    empty_root();
    assert_int_equal(hw_probe_at(root, &hw, &err), FR_EIO);
    assert_non_null(strstr(err.text, "MemTotal"));
    put("/proc/meminfo", "MemTotal: 16777216 kB\n");
    assert_ok(hw_probe_at(root, &hw, &err)); /* no cpuinfo, no nodes */
    assert_int_equal(hw.n_cores, 0);
    assert_int_equal(hw.n_numa, 0);
    assert_true(hw.cpu_f32_ops > 0);
    put("/proc/cpuinfo", "processor : 0\n\nprocessor : 1\n\nprocessor : 2"); /* no topology */
    put("/sys/devices/system/node/has_memory", "0,2\n");
    put("/sys/devices/system/node/node2/meminfo", "Node 2 MemTotal: 8388608 kB\n");
    assert_ok(hw_probe_at(root, &hw, &err));
    assert_int_equal(hw.n_cores, 3);
    assert_int_equal(hw.n_numa, 3); /* they keep their numbers */
    assert_int_equal(hw.numa[1].bytes, 0);
    assert_int_equal(hw.numa[2].bytes, 8 * GIB / 16 * 15);
    put("/sys/devices/system/node/has_memory", "0-4000000000\n");
    put("/proc/cpuinfo", "cpu cores: 99999999999\nphysical id: -5\nprocessor: x\n: :\nflags:");
    assert_ok(hw_probe_at(root, &hw, &err));
    assert_int_equal(hw.n_numa, 0);
    put("/proc/meminfo", "MemTotal\n:::\nMemTotal: none\n");
    assert_int_equal(hw_probe_at(root, &hw, &err), FR_EIO);
}

/* ---- memory
 * -------------------------------------------------------------------------------------- */

static void failing_allocations(void **state)
{
    (void)state;
    fr_hardware hw;
    ini t;
    size_t before = fr_mem_total().bytes_now;
    parse(&t, "[gpu.0]\nvrma = 24GiB\n");
    int failures = 0;
    for (uint64_t n = 1;; n++) { /* an error's text needs memory; the error itself does not */
        fr_mem_fail_at(n, 0);
        fr_status st = fr_hardware_read(t.keys, t.n, &hw, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_EINVAL)
            break;
        assert_int_equal(st, FR_ENOMEM);
        failures++;
    }
    fr_arena_free(&t.arena);
    read_file(configs[4], &hw);
    for (uint64_t n = 1;; n++) {
        fr_buf out = {0};
        fr_mem_fail_at(n, 0);
        fr_status st = fr_hardware_print_ini(&hw, &out, &err);
        fr_mem_fail_at(0, 0);
        fr_buf_free(&out);
        if (st == FR_OK)
            break;
        assert_int_equal(st, FR_ENOMEM);
        failures++;
    }
    for (uint64_t n = 1;; n++) {
        fr_mem_fail_at(n, 0);
        fr_status st = fr_hardware_probe(&hw, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK)
            break;
        assert_int_equal(st, FR_ENOMEM);
        failures++;
    }
    assert_true(failures >= 3);
    assert_int_equal(fr_mem_total().bytes_now, before);
}

static int start(void **state)
{
    (void)state;
    clearenv();
    return mkdtemp(root) ? 0 : -1;
}

static int finish(void **state)
{
    (void)state;
    empty_root();
    return fr_mem_total().bytes_now != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machine_3x3090),
        cmocka_unit_test(machine_others),
        cmocka_unit_test(configs_with_tools),
        cmocka_unit_test(sizes_and_speeds),
        cmocka_unit_test(defaults),
        cmocka_unit_test(links_and_nodes),
        cmocka_unit_test(errors),
        cmocka_unit_test(print_comes_back),
        cmocka_unit_test(print_any_figure),
        cmocka_unit_test(probe_here),
        cmocka_unit_test(probe_two_sockets),
        cmocka_unit_test(probe_odd_machines),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
