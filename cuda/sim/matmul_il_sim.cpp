/* cuda/matmul_il.cu for the simulator; the build defines FERRY_CUDA_SIM. */
#include "cuda/matmul_il.cu"
