/* Launchers of kernels, one per operation of cuda.h; between the backend's own sources. Each starts
 * kernels on `stream` of the current device and returns the launch's error. C++ only. */
#ifndef FR_CUDA_LAUNCHERS_H
#define FR_CUDA_LAUNCHERS_H

#ifdef __cplusplus
#include "cuda/ferry_cuda.h"
extern "C" {
#include "cuda/cuda.h"
}

namespace FERRY_GPU_NS
{

/* Most blocks along y and z of a grid; launchers go on in further launches beyond. */
static const int64_t GRID_MOST = 65535;

/* dense.cu, matvec.cu, matmul.cu; cudaErrorInvalidValue for a (type, layout) that does not exist */
cudaError_t launch_rows(const fr_gpu_rows_args &a, cudaStream_t stream);
cudaError_t launch_matvec(const fr_gpu_matmul_args &a, cudaStream_t stream);
cudaError_t launch_matmul(const fr_gpu_matmul_args &a, cudaStream_t stream);

/* ops.cu; code_check: whether this build has code for the current device */
cudaError_t code_check();
cudaError_t launch_rms_norm(const fr_gpu_norm_args &a, cudaStream_t stream);
cudaError_t launch_rope(const fr_gpu_rope_args &a, cudaStream_t stream);
cudaError_t launch_router(const fr_gpu_router_args &a, cudaStream_t stream);
cudaError_t launch_mix(const fr_gpu_mix_args &a, cudaStream_t stream);
cudaError_t launch_softmax(float *x, int64_t ldx, int64_t n_rows, int64_t cols,
                           cudaStream_t stream);
cudaError_t launch_add(const float *a, const float *b, int64_t n, float *y, cudaStream_t stream);
cudaError_t launch_swiglu(const float *gate, const float *up, int64_t n, float *y,
                          cudaStream_t stream);
cudaError_t launch_scale(const float *x, float factor, int64_t n, float *y, cudaStream_t stream);

/* kv_cache.cu, attention.cu, attention_chunks.cu; cudaErrorInvalidValue for a type that caches
 * cannot have */
cudaError_t launch_kv_store(const fr_gpu_kv_store_args &a, cudaStream_t stream);
cudaError_t launch_kv_load(const fr_gpu_kv &kv, int64_t from, int64_t n, float *out_d,
                           cudaStream_t stream);
cudaError_t launch_kv_keep(const fr_gpu_kv &kv, int64_t n_tokens, cudaStream_t stream);
cudaError_t launch_attn(const fr_gpu_attn_args &a, cudaStream_t stream);
cudaError_t launch_attn_expanded(const fr_gpu_attn_args &a, const fr_gpu_attn_chunk &c,
                                 cudaStream_t stream);

} // namespace FERRY_GPU_NS
#endif
#endif
