#include <math.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/attn_vec_avx512.h"

#define KERNELS_16 attn_kernels_16_avx512
#include "cpu/attn_16.inc"
