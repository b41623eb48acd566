#include "common/gauge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cpu/yardstick.h"

enum { GIB = 1 << 30 };

/* Of the kernel's MemAvailable; where there is none, half of what the machine has. */
static uint64_t free_memory(void)
{
    fr_buf text = {0};
    uint64_t kib = 0;
    if (fr_file_slurp("/proc/meminfo", 1 << 16, &text, NULL) == FR_OK) {
        const char *line = strstr(text.p, "MemAvailable:");
        kib = line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) : 0;
    }
    fr_buf_free(&text);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return kib > 0 ? kib << 10 : (uint64_t)(pages > 0 ? pages : 0) * (uint64_t)page / 2;
}

static size_t largest_cache(void)
{
    long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return (size_t)(l3 > 0 ? l3 : l2 > 0 ? l2 : 0);
}

size_t tool_stream_bytes(void)
{
    size_t wanted = GIB, cache = largest_cache();
    uint64_t most = free_memory() / 4;
    if (wanted < 4 * cache)
        wanted = 4 * cache;
    if (wanted > most)
        wanted = (size_t)most;
    if (wanted < 2 * cache)
        fr_log_warn("reading speed: only %zu MiB of memory can be taken to measure it, the caches "
                    "have %zu MiB and will be a part of it",
                    wanted >> 20, cache >> 20);
    return wanted < 16u << 20 ? 16u << 20 : wanted >> 20 << 20;
}

fr_status tool_gauge_open(tool_gauge *out, fr_err *err)
{
    tool_gauge g = {.bytes = tool_stream_bytes()};
    *out = (tool_gauge){0};
    g.map = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED)
        return fr_fail(err, FR_ENOMEM,
                       "reading speed: %zu MiB to measure it: %s; --no-roofline "
                       "goes without",
                       g.bytes >> 20, strerror(errno));
    madvise(g.map, g.bytes, MADV_HUGEPAGE); /* or the page tables are measured as well */
    memset(g.map, 1, g.bytes);              /* untouched pages would all be the same one */
    *out = g;
    return FR_OK;
}

void tool_gauge_close(tool_gauge *g)
{
    fr_cpu_close(g->cpu);
    if (g->map)
        munmap(g->map, g->bytes);
    *g = (tool_gauge){0};
}

fr_status tool_gauge_use(tool_gauge *g, int n_threads, fr_isa isa, fr_err *err)
{
    if (g->cpu && fr_cpu_n_threads(g->cpu) == n_threads && fr_cpu_isa(g->cpu) == isa)
        return FR_OK;
    fr_cpu_close(g->cpu);
    g->cpu = NULL;
    fr_cpu_config cfg = {.n_threads = n_threads, .max_isa = isa};
    return fr_cpu_open(&cfg, &g->cpu, err);
}

tool_yards tool_gauge_measure(tool_gauge *g)
{
    return (tool_yards){fr_cpu_read_speed(g->cpu, g->map, g->bytes, 0.25),
                        fr_cpu_int8_speed(g->cpu, 0.1)};
}

fr_status tool_row_gauge_open(bool on, int n_threads, fr_isa isa, tool_row_gauge *out, fr_err *err)
{
    *out = (tool_row_gauge){.on = on};
    if (!on)
        return FR_OK;
    FR_TRY(tool_gauge_open(&out->gauge, err));
    FR_TRY(tool_gauge_use(&out->gauge, n_threads, isa, err));
    out->before = tool_gauge_measure(&out->gauge);
    return FR_OK;
}

void tool_row_gauge_close(tool_row_gauge *g)
{
    tool_gauge_close(&g->gauge);
}

tool_yards tool_row_gauge_measure(tool_row_gauge *g)
{
    if (!g->on)
        return (tool_yards){0, 0};
    tool_yards after = tool_gauge_measure(&g->gauge);
    tool_yards mean = {(g->before.read + after.read) / 2, (g->before.int8 + after.int8) / 2};
    g->before = after;
    return mean;
}
