/* cuda/matmul_native.cu for the simulator; the build defines FERRY_CUDA_SIM. */
#include "cuda/matmul_native.cu"
