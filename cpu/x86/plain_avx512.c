/* Plain forms by AVX-512 VNNI: rows turned side by side (plain.inc). */
#define PLAIN_FILL  cpu_avx512_fill_plain
#define PLAIN_TIER  "avx512"
#define PLAIN_GRAIN 16
#include "cpu/x86/avx512.h"
#include "cpu/x86/plain.inc"
