#include "quant/encode.h"

static quant_encode_fn *const encoders[FR_TYPE_COUNT] = {
#define ENCODE(ID, fn) [FR_TYPE_##ID] = fn,
#include "quant/encode.def"
#undef ENCODE
};

bool fr_type_can_encode(fr_type type)
{
    return encoders[type] != NULL;
}

void fr_encode_row(fr_type type, const float *x, int64_t cols, const float *importance, void *dst)
{
    encoders[type](x, cols, importance, dst);
}
