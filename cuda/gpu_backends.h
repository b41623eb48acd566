/* What the backends bring; a build defines FERRY_HAVE_CUDA and FERRY_HAVE_CUDA_SIM for those it
 * has. Inside the cuda box only. */
#ifndef FR_CUDA_GPU_BACKENDS_H
#define FR_CUDA_GPU_BACKENDS_H

#include "cuda/cuda.h"

extern const fr_gpu gpu_table_cuda, gpu_table_sim;

fr_status sim_configure(const char *settings, fr_err *err);
void sim_next_cost_us(double us);
void sim_host_work_us(double us);
double sim_now_us(void);
size_t sim_peak_bytes(int device);

#endif
