/* The interleaved forms by AVX2: rows side by side (rows_avx2.h). */
#define ROWS_FILL  cpu_avx2_fill_rows
#define ROWS_TIER  "avx2"
#define ROWS_GRAIN 8
#include "cpu/x86/rows.inc"
