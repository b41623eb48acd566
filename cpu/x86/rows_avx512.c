/* The interleaved forms by AVX-512 VNNI: rows side by side (rows_avx2.h). */
#define ROWS_FILL  cpu_avx512_fill_rows
#define ROWS_TIER  "avx512"
#define ROWS_GRAIN 16
#include "cpu/x86/avx512.h"
#include "cpu/x86/rows.inc"
