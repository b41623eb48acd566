#include "engine/gpu_probe.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "cuda/dl_nvml.h"

/* Of a link's raw speed, what big copies of pinned memory reach at least: 12.5 of 15.75 GB/s with
 * 16 lanes of the third generation, 25 of 31.5 of the fourth. */
static const double LINK_SHARE = 0.79;

/* Unknown rates leave what is there. */
static void set_known(double *field, double v)
{
    if (v > 0)
        *field = v;
}

/* What is left to the driver; simulated GPUs have none. */
static uint64_t reserve_of(const fr_gpu_info *info, const fr_gpu_hw *preset)
{
    return info->simulated ? 0 : preset->reserve_bytes;
}

static void add_gpu(fr_hardware *hw, int device, const fr_gpu_info *info)
{
    fr_gpu_hw *g = &hw->gpus[hw->n_gpus++];
    fr_nvml_facts facts;
    g->reserve_bytes = reserve_of(info, g);
    snprintf(g->name, sizeof g->name, "%s", info->name);
    g->device = device;
    g->vram_bytes = info->free_bytes;
    set_known(&g->bandwidth, info->bandwidth);
    set_known(&g->f16_ops, info->f16_ops);
    set_known(&g->int8_ops, info->int8_ops);
    if (!fr_nvml_ask(info->bus, &facts))
        return;
    set_known(&g->h2d, LINK_SHARE * fr_pcie_speed(facts.pcie_generation, facts.pcie_lanes));
    g->d2h = g->h2d;
    fr_log_debug("GPU %d (%s): PCIe generation %u, %u lanes, %llu MiB in use", device, info->name,
                 facts.pcie_generation, facts.pcie_lanes,
                 (unsigned long long)(facts.used_bytes >> 20));
}

/* Whether a plan may use the device; says why not. */
static bool is_wanted(const fr_hardware *hw, int device, const fr_gpu_info *info)
{
    char has[32], total[32], least[32];
    if (info->usable && hw->n_gpus >= FR_MAX_GPUS) {
        fr_log_warn("GPU %d (%s): not used: expected %d GPUs at most", device, info->name,
                    FR_MAX_GPUS);
        return false;
    }
    if (!info->usable) {
        fr_log_warn("GPU %d (%s): not used: %s", device, info->name, info->why_not);
        return false;
    }
    uint64_t reserve = reserve_of(info, &hw->gpus[hw->n_gpus]);
    if (info->free_bytes > reserve)
        return true;
    fr_log_warn("GPU %d (%s): not used: found %s free of %s, expected more than %s; end the "
                "programs that use it",
                device, info->name, fr_format_bytes(info->free_bytes, has),
                fr_format_bytes(info->total_bytes, total), fr_format_bytes(reserve, least));
    return false;
}

fr_status fr_engine_probe_gpus(const fr_gpu *gpu, fr_hardware *hw, fr_err *err)
{
    fr_err why = {.text = ""};
    int n = gpu ? gpu->device_count(&why) : 0;
    if (why.code == FR_EUNSUPPORTED)
        fr_log_warn("%s", why.text);
    else if (gpu && n == 0) /* most machines without a driver have no GPU: nothing to tell */
        fr_log_debug("%s", why.text);
    for (int i = 0; i < n; i++) {
        fr_gpu_info info;
        FR_TRY(gpu->device_info(i, &info, err));
        if (is_wanted(hw, i, &info))
            add_gpu(hw, i, &info);
    }
    return FR_OK;
}

fr_status fr_engine_measure_links(const fr_gpu *gpu, fr_hardware *hw, fr_err *err)
{
    for (int i = 0; i < hw->n_gpus; i++) {
        fr_gpu_hw *g = &hw->gpus[i];
        fr_err why = {.text = ""};
        double h2d, d2h;
        fr_status st = fr_gpu_link_speed(gpu, g->device, &h2d, &d2h, &why);
        if (st == FR_ENOMEM)
            fr_log_warn("GPU %d (%s): its link was not measured: %s", g->device, g->name, why.text);
        else if (st != FR_OK)
            return fr_fail(err, st, "%s", why.text);
        set_known(&g->h2d, h2d);
        set_known(&g->d2h, d2h);
    }
    return FR_OK;
}
