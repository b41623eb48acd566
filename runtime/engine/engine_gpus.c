/* The GPUs of an engine: this machine's, or simulated ones; what the plan uses must be there. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "engine/engine_internal.h"
#include "engine/gpu_probe.h"

/* ---- which ones --------------------------------------------------------------------------------
 */

/* Engines that use the machine's GPUs, and the simulated ones, of which a process has one set. */
static atomic_int n_users[2];
static char sim_devices[32]; /* as they were set up last by sim_open */

static fr_status sim_open(const char *sim, const fr_gpu **out, fr_err *err)
{
    if (sim[0] && atomic_load(&n_users[true]) == 0)
        FR_TRY(fr_gpu_sim_devices(sim, err));
    else if (sim[0] && strcmp(sim, sim_devices) != 0)
        return fr_fail(err, FR_EINVAL,
                       "simulated GPUs: found '%s', expected '%s', which another engine uses", sim,
                       sim_devices);
    *out = fr_gpu_sim();
    if (!*out)
        return fr_gpu_sim_devices(sim, err); /* says why */
    if (sim[0])
        snprintf(sim_devices, sizeof sim_devices, "%s", sim);
    return FR_OK;
}

/* The backend whose devices a plan's GPUs are: *out is NULL in a build without one. */
static fr_status pick_backend(const char *sim, const fr_gpu **out, fr_err *err)
{
    if (sim)
        return sim_open(sim, out, err);
    *out = fr_gpu_cuda();
    return FR_OK;
}

fr_status fr_engine_hardware(const char *sim, fr_hardware *out, fr_err *err)
{
    const fr_gpu *gpu;
    FR_TRY(pick_backend(sim, &gpu, err));
    FR_TRY(fr_hardware_probe(out, err));
    FR_TRY(fr_engine_probe_gpus(gpu, out, err));
    return sim ? FR_OK : fr_engine_measure_links(gpu, out, err);
}

/* ---- what the plan uses of them ----------------------------------------------------------------
 */

/* What ferry itself allocates: the reserve is the driver's. */
static uint64_t needed_bytes(const fr_plan_device *d)
{
    return d->used - d->reserve;
}

static bool is_used(const fr_plan *p, int i_gpu)
{
    return needed_bytes(&p->devices[1 + i_gpu]) > 0;
}

#define GPU_REMEDY "use --device none, --sim, or the hardware sections of this machine"

/* A device that an earlier engine lost gets another chance, unless it would harm engines that are
 * open. */
static fr_status wake(const fr_gpu *gpu, int device, bool sim, fr_err *err)
{
    fr_status st = gpu->device_wait(device, err);
    if (st == FR_OK || atomic_load(&n_users[sim]) > 0)
        return st;
    FR_TRY(gpu->device_reset(device, err));
    return gpu->device_wait(device, err);
}

static fr_status check_there(const fr_plan *p, int i_gpu, const fr_gpu *gpu, fr_err *err)
{
    const fr_gpu_hw *hw = &p->hw.gpus[i_gpu];
    fr_err why = {0};
    char need[32];
    int n = gpu ? gpu->device_count(&why) : 0;
    if (!gpu)
        fr_fail(&why, FR_EUNSUPPORTED, "this build has no CUDA backend");
    if (hw->device >= 0 && hw->device < n)
        return FR_OK;
    return fr_fail(err, FR_ENOTFOUND,
                   "GPU %d (%s): the plan puts %s on device %d, but the machine has %d "
                   "devices%s%s; " GPU_REMEDY,
                   i_gpu, hw->name, fr_format_bytes(needed_bytes(&p->devices[1 + i_gpu]), need),
                   hw->device, n, n == 0 && why.text[0] ? ": " : "", n == 0 ? why.text : "");
}

/* Virtual GPUs share a device: all that the plan puts there must fit into what is free of it. */
static fr_status check_memory(const fr_plan *p, int i_gpu, const fr_gpu *gpu, fr_err *err)
{
    const fr_gpu_hw *hw = &p->hw.gpus[i_gpu];
    fr_gpu_info info;
    uint64_t need = 0;
    char needs[32], has[32], total[32];
    FR_TRY(gpu->device_info(hw->device, &info, err));
    for (int i = 0; i < p->hw.n_gpus; i++)
        if (p->hw.gpus[i].device == hw->device)
            need += needed_bytes(&p->devices[1 + i]);
    if (!info.usable)
        return fr_fail(
            err, FR_EUNSUPPORTED,
            "GPU %d (%s): found compute capability %d.%d, expected 8.0 or newer; " GPU_REMEDY,
            i_gpu, info.name, info.major, info.minor);
    if (need <= info.free_bytes)
        return FR_OK;
    return fr_fail(err, FR_ENOMEM,
                   "GPU %d (%s): the plan puts %s on device %d, a %s with %s free of %s; give it "
                   "a smaller budget ([gpu.%d] vram), or use --device none",
                   i_gpu, hw->name, fr_format_bytes(need, needs), hw->device, info.name,
                   fr_format_bytes(info.free_bytes, has), fr_format_bytes(info.total_bytes, total),
                   i_gpu);
}

fr_status engine_take_gpus(fr_engine *e, fr_err *err)
{
    const fr_gpu *gpu;
    bool any = false, sim = e->cfg.place.sim != NULL;
    FR_TRY(pick_backend(e->cfg.place.sim, &gpu, err));
    for (int i = 0; i < e->plan->hw.n_gpus; i++) {
        if (!is_used(e->plan, i))
            continue;
        FR_TRY(check_there(e->plan, i, gpu, err));
        FR_TRY(wake(gpu, e->plan->hw.gpus[i].device, sim, err));
        FR_TRY(check_memory(e->plan, i, gpu, err));
        any = true;
    }
    if (!any)
        return FR_OK;
    e->gpu = gpu;
    e->on_sim = sim;
    atomic_fetch_add(&n_users[sim], 1);
    gpu->sync_debug(e->cfg.place.sync_debug);
    return FR_OK;
}

void engine_give_gpus(fr_engine *e)
{
    if (e->gpu)
        atomic_fetch_sub(&n_users[e->on_sim], 1);
    e->gpu = NULL;
}
