/* matmul_tiles for all types that have a layout plain. */
#include "cuda/matmul.cuh"

namespace FERRY_GPU_NS
{

static const matmul_fn functions[FR_TYPE_COUNT] = {
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, IL_META, IL_WEIGHTS, IL_GGUF, IL_NAME,    \
          FLOAT, IL_ONLY, SEAL)                                                                    \
    make_matmul<form_##T##_plain, !IL_ONLY>(),
#include "quant/types.def"
#undef X
};

matmul_fn matmul_of_plain(fr_type type)
{
    return functions[type];
}

} // namespace FERRY_GPU_NS
