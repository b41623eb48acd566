#include "cuda/gpu_backends.h"

#include <stdio.h>

#ifdef FERRY_HAVE_CUDA
const fr_gpu *fr_gpu_cuda(void)
{
    return &gpu_table_cuda;
}
#else
const fr_gpu *fr_gpu_cuda(void)
{
    return NULL;
}
#endif

#ifdef FERRY_HAVE_CUDA_SIM

const fr_gpu *fr_gpu_sim(void)
{
    return &gpu_table_sim;
}

fr_status fr_gpu_sim_configure(const char *settings, fr_err *err)
{
    return sim_configure(settings, err);
}

fr_status fr_gpu_sim_devices(const char *text, fr_err *err)
{
    int n = 0, mb = 0, end = 0;
    char settings[64];
    if (sscanf(text, "%dx%dMiB%n", &n, &mb, &end) != 2 || text[end] || n < 1 || n > 64 || mb < 1)
        return fr_fail(err, FR_EINVAL, "simulated GPUs: found '%s', expected like '3x256MiB'",
                       text);
    snprintf(settings, sizeof settings, "devices=%d,mb=%d", n, mb);
    return sim_configure(settings, err);
}

void fr_gpu_sim_next_cost_us(double us)
{
    sim_next_cost_us(us);
}

void fr_gpu_sim_host_work_us(double us)
{
    sim_host_work_us(us);
}

double fr_gpu_sim_now_us(void)
{
    return sim_now_us();
}

size_t fr_gpu_sim_peak_bytes(int device)
{
    return sim_peak_bytes(device);
}

#else

static fr_status no_simulator(fr_err *err)
{
    return fr_fail(err, FR_EUNSUPPORTED,
                   "simulated GPUs: found a build without them, expected FERRY_CUDA_SIM=ON");
}

const fr_gpu *fr_gpu_sim(void)
{
    return NULL;
}

fr_status fr_gpu_sim_configure(const char *settings, fr_err *err)
{
    (void)settings;
    return no_simulator(err);
}

fr_status fr_gpu_sim_devices(const char *text, fr_err *err)
{
    (void)text;
    return no_simulator(err);
}

void fr_gpu_sim_next_cost_us(double us)
{
    (void)us;
}

void fr_gpu_sim_host_work_us(double us)
{
    (void)us;
}

double fr_gpu_sim_now_us(void)
{
    return 0;
}

size_t fr_gpu_sim_peak_bytes(int device)
{
    (void)device;
    return 0;
}

#endif
