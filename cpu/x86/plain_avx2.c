/* Plain forms by AVX2: rows turned side by side (plain.inc). */
#define PLAIN_FILL  cpu_avx2_fill_plain
#define PLAIN_TIER  "avx2"
#define PLAIN_GRAIN 8
#include "cpu/x86/plain.inc"
