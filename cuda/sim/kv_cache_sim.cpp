/* cuda/kv_cache.cu for the simulator; the build defines FERRY_CUDA_SIM. */
#include "cuda/kv_cache.cu"
