#include "cpu/mix.h"

#include "cpu/x86/avx2.h"

enum { COLUMNS = 32 }; /* at a time: two lines of the cache in four registers */

static void ask_for(const cpu_mix *m, int64_t i)
{
    for (int64_t k = 0; k < m->n_used; k++) {
        if (m->next[k] < 0)
            continue;
        const float *row = m->rows + m->next[k] * m->n + i;
        _mm_prefetch((const char *)row, _MM_HINT_T0);
        _mm_prefetch((const char *)(row + 16), _MM_HINT_T0);
    }
}

/* A multiplication and an addition, rounded each: as the portable function does. */
static void mix_columns(const cpu_mix *m, int64_t i)
{
    __m256 sum[4];
    for (int j = 0; j < 4; j++)
        sum[j] = _mm256_setzero_ps();
    for (int64_t k = 0; k < m->n_used; k++) {
        if (m->places[k] < 0)
            continue;
        const float *row = m->rows + m->places[k] * m->n + i;
        const __m256 weight = _mm256_set1_ps(m->weights[k]);
        for (int j = 0; j < 4; j++)
            sum[j] = _mm256_add_ps(sum[j], _mm256_mul_ps(weight, _mm256_loadu_ps(row + 8 * j)));
    }
    float *y = m->y + i;
    for (int j = 0; j < 4; j++, y += 8) {
        if (m->add)
            _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), sum[j]));
        else if (m->far && (uintptr_t)y % 32 == 0)
            _mm256_stream_ps(y, sum[j]);
        else
            _mm256_storeu_ps(y, sum[j]);
    }
}

static void mix_column(const cpu_mix *m, int64_t i)
{
    float sum = 0;
    for (int64_t k = 0; k < m->n_used; k++)
        if (m->places[k] >= 0)
            sum += m->weights[k] * m->rows[m->places[k] * m->n + i];
    m->y[i] = m->add ? m->y[i] + sum : sum;
}

void cpu_mix_rows_avx2(const cpu_mix *m)
{
    int64_t i = 0;
    for (; i + COLUMNS <= m->n; i += COLUMNS) {
        if (m->next)
            ask_for(m, i);
        mix_columns(m, i);
    }
    for (; i < m->n; i++)
        mix_column(m, i);
}

void cpu_mix_end_avx2(void)
{
    _mm_sfence();
}
