/* cuda/dl_cublas.cu for the simulator; the build defines FERRY_CUDA_SIM. */
#include "cuda/dl_cublas.cu"
