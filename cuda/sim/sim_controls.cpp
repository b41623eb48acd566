/* The simulator's controls for C code (cuda.h). */
#include <cstdio>

#include "cuda/sim/cuda_sim.hpp"
extern "C" {
#include "cuda/cuda.h"
}

extern "C" fr_status sim_configure(const char *settings, fr_err *err)
{
    const char *bad = fsim::configure(settings);
    if (bad)
        return fr_fail(err, FR_EINVAL,
                       "simulated GPUs: found '%s', expected NAME=NUMBER,... (cuda/README.md lists "
                       "the names)",
                       bad);
    return FR_OK;
}

extern "C" void sim_next_cost_us(double us)
{
    fsim::next_launch_costs_us(us);
}

extern "C" void sim_host_work_us(double us)
{
    fsim::host_works_us(us);
}

extern "C" double sim_now_us(void)
{
    return fsim::virtual_now_us();
}

extern "C" size_t sim_peak_bytes(int device)
{
    return fsim::peak_bytes(device);
}
