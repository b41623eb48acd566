#!/usr/bin/env bash
# Kernels are built by nvcc and for the simulator from the same sources, so they keep to what both have
# (cuda/README.md says why each rule is there). ferry_cuda.h is where the two differ.
. "$(dirname "$0")/lint.bash"

# forbid PATTERN EXCEPT RULE: lines of $code that match, but in the files that match EXCEPT.
forbid() {
    grep -E ":[0-9]+:.*($1)" <<< "$code" | grep -vE "^($2):" |
        sed -E "s|^([^:]*:[0-9]+):[[:space:]]*(.*)|\1: found '\2', expected $3|"
}

check() {
    local code here='cuda/ferry_cuda\.h'
    code=$(source_files "cu cuh h" cuda | grep -v '^cuda/sim/' | c_code)
    forbid '<<<' "$here" 'FERRY_LAUNCH'
    forbid '\<cudaLaunch(Kernel|CooperativeKernel)' "$here" 'FERRY_LAUNCH'
    forbid '\<__shared__\>' "$here" 'FERRY_SHARED'
    forbid '\<(asm|__asm__)\>' 'cuda/ptx\.cuh' 'a function of ptx.cuh with its emulation'
    forbid '\<_Pragma\>' "$here" 'FERRY_UNROLL'
    forbid '#[[:space:]]*pragma[[:space:]]+unroll' - 'FERRY_UNROLL'
    forbid '#[[:space:]]*include[[:space:]]*<(cuda|cooperative_groups|mma|cub)' "$here" 'only "cuda/ferry_cuda.h"'
    forbid '\<(__constant__|cudaMemcpyToSymbol\w*)\>' - 'constants as arguments by value'
    forbid '\<__managed__\>|\<cudaMallocManaged\>' - 'memory of one owner'
    forbid '\<__(shfl|shfl_up|shfl_down|shfl_xor|ballot|any|all)[[:space:]]*\(' - 'the _sync form with a mask'
    forbid '\<__activemask\>' - 'a mask that the code knows'
    forbid '\<(cudaMemcpy|cudaMemset|cudaHostAlloc|cudaMallocHost|cudaDeviceSetLimit)[[:space:]]*\(' - \
        'the asynchronous call on a stream, or registered host memory'
    forbid '\<tex(1D|2D|3D|1Dfetch)\>' - 'plain loads'
}

self_test() {
    accepts cuda/k.cu '#include "cuda/ferry_cuda.h"\n/* <<<1>>> asm */ FERRY_SHARED(float, a, [3]); __shfl_xor_sync(m, v, 1);' \
        cuda/ptx.cuh 'asm volatile("x");' cuda/ferry_cuda.h '#define S __shared__\n#include <cuda_fp16.h>' \
        cuda/sim/a.hpp '__shared__ asm' cuda/b.cu 'cudaMemcpyAsync(a, b, n, k, s); cudaHostRegister(p, n, 0);'
    catches '^cuda/k.cu:1: .*FERRY_LAUNCH' cuda/k.cu 'k<<<1, 2>>>(x);'
    catches '^cuda/k.cu:2: .*FERRY_SHARED' cuda/k.cu '\n__shared__ float a[3];'
    catches '^cuda/k.cuh:1: .*ptx.cuh' cuda/k.cuh 'asm volatile("bar.sync 0;");'
    catches '^cuda/k.cu:1: .*FERRY_UNROLL' cuda/k.cu '  #pragma unroll 4'
    catches '^cuda/k.cu:1: .*ferry_cuda.h' cuda/k.cu '#include <cuda_fp16.h>'
    catches '^cuda/k.cu:1: .*by value' cuda/k.cu '__constant__ int c;'
    catches '^cuda/k.cu:1: .*_sync form' cuda/k.cu 'v += __shfl_xor(v, 1);'
    catches '^cuda/k.cu:1: .*asynchronous' cuda/k.cu 'cudaMemcpy(a, b, n, k);'
    catches '^cuda/k.cu:1: .*the code knows' cuda/k.cu '__activemask();'
}

lint_main "$@"
