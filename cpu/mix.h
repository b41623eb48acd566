/* The weighted sum of what a token's experts gave, of some columns. Inside the cpu box. */
#ifndef FR_CPU_MIX_H
#define FR_CPU_MIX_H

#include <stdbool.h>
#include <stdint.h>

/* y[i] = sum over ascending k < n_used of weights[k] * rows[places[k] * n + i], for i < n; places
 * below 0 are left out. With add, y[i] += that. */
typedef struct {
    const float *rows, *weights;
    const int64_t *places;
    const int64_t *next; /* the places of the next token, to be asked for; or NULL */
    int64_t n_used, n;
    bool add;
    bool far; /* y is not read soon: may be written past the caches, so end with cpu_mix_end */
    float *y;
} cpu_mix;

void cpu_mix_rows(const cpu_mix *m);      /* cpu/moe.c */
void cpu_mix_rows_avx2(const cpu_mix *m); /* the same bits */
void cpu_mix_end_avx2(void);              /* before others are told of what was written far */

#endif
