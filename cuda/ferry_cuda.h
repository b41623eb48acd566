/* The one header that kernels include: CUDA by nvcc, or by the simulator (FERRY_CUDA_SIM). C++
 * only.
 *
 *   FERRY_LAUNCH(kernel, grid, block, shared_bytes, stream, args...) -> cudaError_t
 *       a kernel that is a template with a comma stands in parentheses: (k<float, 3>)
 *   FERRY_SHARED(float, tile, [32][33])   static shared memory, aligned to 16
 *   FERRY_SHARED_DYN(float, tile)         all of the dynamic shared memory, as float *tile
 *   FERRY_UNROLL                          before a loop of constant length
 *   FERRY_ROLLED                          before a loop that is to stay one
 *   FERRY_GPU_NS                          the namespace of kernels and their host code: both
 *                                         backends are built from the same sources */
#ifndef FR_CUDA_FERRY_CUDA_H
#define FR_CUDA_FERRY_CUDA_H

#ifdef __cplusplus
#ifdef FERRY_CUDA_SIM

#include "cuda/sim/cuda_sim.hpp"
using namespace fsim;

#define FERRY_GPU_NS ferry_gpu_sim
#define FERRY_SHARED(T, name, dims)                                                                \
    static const char name##_key = 0;                                                              \
    typedef T name##_array dims;                                                                   \
    name##_array &name = *(name##_array *)::fsim::shared_static(&name##_key, sizeof(name##_array), \
                                                                alignof(T), #name)
#define FERRY_SHARED_DYN(T, name) T *name = (T *)::fsim::shared_dynamic()
#define FERRY_LAUNCH(kernel, ...) ::fsim::launch(#kernel, kernel, __VA_ARGS__)
#define FERRY_UNROLL
#define FERRY_ROLLED

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <tuple>
#include <utility>

#define FERRY_GPU_NS                ferry_gpu_cuda
#define FERRY_SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define FERRY_SHARED_DYN(T, name)                                                                  \
    extern __shared__ __align__(16) unsigned char ferry_dynamic_shared[];                          \
    T *name = (T *)ferry_dynamic_shared
#define FERRY_LAUNCH(kernel, ...) FERRY_GPU_NS::launch_typed(kernel, __VA_ARGS__)
#define FERRY_UNROLL              _Pragma("unroll")
#define FERRY_ROLLED              _Pragma("unroll 1")

namespace FERRY_GPU_NS
{
/* Arguments are converted to the kernel's own types before their addresses are taken. */
template <class... P, class... A>
inline cudaError_t launch_typed(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                cudaStream_t stream, A &&...args)
{
    static_assert(sizeof...(P) == sizeof...(A), "number of kernel arguments");
    std::tuple<std::decay_t<P>...> values(static_cast<std::decay_t<P>>(args)...);
    return std::apply(
        [&](auto &...v) {
            void *at[] = {(void *)&v..., nullptr};
            return cudaLaunchKernel((const void *)kernel, grid, block, at, shared_bytes, stream);
        },
        values);
}
} // namespace FERRY_GPU_NS

#endif
#endif
#endif
