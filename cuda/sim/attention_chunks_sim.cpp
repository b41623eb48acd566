/* cuda/attention_chunks.cu for the simulator; the build defines FERRY_CUDA_SIM. */
#include "cuda/attention_chunks.cu"
