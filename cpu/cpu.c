#include "cpu/cpu.h"

#include <strings.h>

#include "base/mem.h"
#include "cpu/deal_choice.h"
#include "cpu/kernels.h"
#include "cpu/pool.h"

static const char *const isa_names[] = {
    [FR_ISA_SCALAR] = "scalar",
    [FR_ISA_AVX2] = "avx2",
    [FR_ISA_AVX512] = "avx512",
    [FR_ISA_AUTO] = "auto",
};

const char *fr_isa_name(fr_isa isa)
{
    return isa_names[isa];
}

bool fr_isa_from_name(const char *name, fr_isa *out)
{
    for (int i = 0; i <= FR_ISA_AUTO; i++) {
        if (strcasecmp(name, isa_names[i]) == 0) {
            *out = (fr_isa)i;
            return true;
        }
    }
    return false;
}

bool fr_numa_from_name(const char *name, fr_numa *out)
{
    static const char *const names[] = {
        [FR_NUMA_OFF] = "off",
        [FR_NUMA_DISTRIBUTE] = "distribute",
        [FR_NUMA_ISOLATE] = "isolate",
        [FR_NUMA_NUMACTL] = "numactl",
    };
    for (int i = 0; i <= FR_NUMA_NUMACTL; i++) {
        if (strcasecmp(name, names[i]) == 0) {
            *out = (fr_numa)i;
            return true;
        }
    }
    return false;
}

static fr_status choose_isa(fr_isa asked, fr_isa *out, fr_err *err)
{
    fr_isa best = cpu_isa_detect();
    if (asked == FR_ISA_AUTO)
        asked = best;
    if (asked > best)
        return fr_fail(
            err, FR_EUNSUPPORTED,
            "instruction set: found '%s' in the options, this machine has at most '%s'; use "
            "that or 'auto'",
            fr_isa_name(asked), fr_isa_name(best));
    *out = asked;
    return FR_OK;
}

fr_status cpu_open_on(const fr_cpu_config *cfg, const cpu_topology *topology, fr_cpu **out,
                      fr_err *err)
{
    fr_isa isa = FR_ISA_SCALAR;
    FR_TRY(choose_isa(cfg->max_isa, &isa, err));
    fr_cpu *cpu = FR_NEW(fr_cpu, FR_MEM_CPU, 1, err);
    if (!cpu)
        return FR_ENOMEM;
    cpu->isa = isa;
    cpu_table_fill(&cpu->table, isa);
    cpu->deals = FR_NEW(cpu_deal_table, FR_MEM_CPU, 1, err);
    fr_status st = cpu->deals ? cpu_pool_open(cfg, topology, &cpu->pool, err) : FR_ENOMEM;
    if (st != FR_OK) {
        fr_cpu_close(cpu);
        return st;
    }
    *out = cpu;
    return FR_OK;
}

fr_status fr_cpu_open(const fr_cpu_config *cfg, fr_cpu **out, fr_err *err)
{
    return cpu_open_on(cfg, NULL, out, err);
}

void fr_cpu_close(fr_cpu *cpu)
{
    if (!cpu)
        return;
    cpu_pool_close(cpu->pool);
    fr_mem_free(cpu->deals);
    fr_mem_free(cpu);
}

int fr_cpu_n_threads(const fr_cpu *cpu)
{
    return cpu_pool_n_threads(cpu->pool);
}

fr_isa fr_cpu_isa(const fr_cpu *cpu)
{
    return cpu->isa;
}

void fr_cpu_run(fr_cpu *cpu, fr_cpu_fn fn, void *arg)
{
    cpu_pool_run(cpu->pool, fn, arg);
}

void fr_cpu_barrier(fr_cpu *cpu, int i_thread)
{
    cpu_pool_barrier(cpu->pool, i_thread);
}

void fr_cpu_clock(fr_cpu *cpu, bool on)
{
    cpu_pool_clock(cpu->pool, on);
}

fr_cpu_times fr_cpu_clock_read(const fr_cpu *cpu)
{
    return cpu_pool_clock_read(cpu->pool);
}

void fr_cpu_share(int64_t n, int64_t grain, int i_thread, int n_threads, int64_t *from, int64_t *to)
{
    int64_t n_units = (n + grain - 1) / grain;
    int64_t a = n_units * i_thread / n_threads * grain;
    int64_t b = n_units * (i_thread + 1) / n_threads * grain;
    *from = a < n ? a : n;
    *to = b < n ? b : n;
}
