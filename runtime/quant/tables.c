#include "quant/tables.h"

#define FR_TABLE(T, name, n, ...) const T name[n] = {__VA_ARGS__};
#include "quant/tables.def"
