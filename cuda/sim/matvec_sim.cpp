/* cuda/matvec.cu for the simulator; the build defines FERRY_CUDA_SIM. */
#include "cuda/matvec.cu"
