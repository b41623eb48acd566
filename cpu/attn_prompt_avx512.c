#include <math.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/attn_vec_avx512.h"

enum { SCORE_ROWS = 12, SUM_ROWS = 6, SUM_COLUMNS = 4 };

#include "cpu/attn_prompt.inc"

const attn_prompt attn_prompt_avx512 = {pack_queries, pack_keys, pack_values, add_tile};
