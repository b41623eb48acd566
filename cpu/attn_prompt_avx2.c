#include <math.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/attn_vec_avx2.h"

enum { SCORE_ROWS = 6, SUM_ROWS = 6, SUM_COLUMNS = 2 };

#include "cpu/attn_prompt.inc"

const attn_prompt attn_prompt_avx2 = {pack_queries, pack_keys, pack_values, add_tile};
