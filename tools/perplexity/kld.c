#include "perplexity/kld.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perplexity/logprob_file.h"

/* Logarithms that count in the divergence: files do not tell lower ones apart. */
#define LOWEST_LOG (-16.0)

kld_row kld_row_make(const float *logits, int64_t n_vocab, int32_t next, const tool_row *row,
                     const uint16_t *record)
{
    logprob_scale s = logprob_record_scale(record);
    const uint16_t *q = logprob_record_q(record);
    double scale = (double)s.scale, lowest = (double)s.lowest, kld = 0;
    uint16_t most = 0;
    for (int64_t i = 0; i < n_vocab; i++) {
        double ln_base = lowest + scale * q[i];
        most = q[i] > most ? q[i] : most;
        if (ln_base > LOWEST_LOG)
            kld += exp(ln_base) * (ln_base - ((double)logits[i] - row->log_sum));
    }
    double nll_base = -(lowest + scale * q[next]);
    return (kld_row){.nll = row->nll,
                     .nll_base = nll_base,
                     .kld = kld,
                     .dp = exp(-row->nll) - exp(-nll_base),
                     .same_top = q[row->top] == most};
}

fr_status kld_rows_add(kld_rows *r, const kld_row *rows, size_t n, fr_err *err)
{
    void *all = r->rows;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &all, &r->cap, r->n + n, sizeof *rows, err));
    r->rows = all;
    memcpy(r->rows + r->n, rows, n * sizeof *rows);
    r->n += n;
    return FR_OK;
}

void kld_rows_free(kld_rows *r)
{
    fr_mem_free(r->rows);
    *r = (kld_rows){0};
}

/* ---- figures
 * -----------------------------------------------------------------------------------------------
 */

static kld_mean mean_of(double sum, double sum2, double n)
{
    double mean = sum / n, variance = sum2 / n - mean * mean;
    return (kld_mean){mean, n > 1 && variance > 0 ? sqrt(variance / (n - 1)) : 0};
}

typedef struct {
    double nll, nll2, base, base2, both; /* sums of nll, its square, of nll_base, of products */
    double kld, kld2, dp, dp2, dp4, same;
} sums;

static sums add_rows(const kld_rows *r)
{
    sums s = {0};
    for (size_t i = 0; i < r->n; i++) {
        const kld_row *row = &r->rows[i];
        double dp2 = row->dp * row->dp;
        s.nll += row->nll;
        s.nll2 += row->nll * row->nll;
        s.base += row->nll_base;
        s.base2 += row->nll_base * row->nll_base;
        s.both += row->nll * row->nll_base;
        s.kld += row->kld;
        s.kld2 += row->kld * row->kld;
        s.dp += row->dp;
        s.dp2 += dp2;
        s.dp4 += dp2 * dp2;
        s.same += row->same_top;
    }
    return s;
}

static kld_mean perplexity_of(kld_mean nll)
{
    double ppl = exp(nll.mean);
    return (kld_mean){ppl, ppl * nll.error};
}

kld_summary kld_summarize(const kld_rows *r)
{
    double n = (double)r->n;
    sums s = add_rows(r);
    kld_mean q = mean_of(s.nll, s.nll2, n), b = mean_of(s.base, s.base2, n);
    kld_mean dp2 = mean_of(s.dp2, s.dp4, n);
    kld_summary k = {.ppl = perplexity_of(q), .ppl_base = perplexity_of(b)};
    /* Errors of the two are correlated: of the mean, covariance = E[qb] - E[q] E[b] over n - 1. */
    double covariance = n > 1 ? (s.both / n - q.mean * b.mean) / (n - 1) : 0;
    double spread = q.error * q.error + b.error * b.error - 2 * covariance;
    k.correlation = covariance / (q.error * b.error);
    k.ln_ratio = (kld_mean){q.mean - b.mean, spread > 0 ? sqrt(spread) : 0};
    k.ratio = perplexity_of(k.ln_ratio);
    spread = k.ppl.error * k.ppl.error + k.ppl_base.error * k.ppl_base.error -
             2 * k.ppl.mean * k.ppl_base.mean * covariance;
    k.diff = (kld_mean){k.ppl.mean - k.ppl_base.mean, spread > 0 ? sqrt(spread) : 0};
    k.kld = mean_of(s.kld, s.kld2, n);
    k.dp = mean_of(s.dp, s.dp2, n);
    k.rms_dp.mean = sqrt(dp2.mean);
    k.rms_dp.error = dp2.mean > 0 ? dp2.error / (2 * k.rms_dp.mean) : 0;
    k.same_top = mean_of(s.same, s.same, n);
    return k;
}

double kld_percentile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    double part = at - (double)i;
    return (1 - part) * sorted[i] + part * sorted[i + 1];
}

/* ---- printing
 * ---------------------------------------------------------------------------------------------- */

void kld_print_head(void)
{
    puts("chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence"
         "              \u0394p RMS            Same top p");
}

void kld_print_line(const kld_rows *r, int64_t i_chunk)
{
    kld_summary k = kld_summarize(r);
    printf("%4lld  %10.4f \u00b1 %10.4f  %10.5f \u00b1 %10.5f  %10.5f \u00b1 %10.5f  "
           "%6.3f \u00b1 %6.3f %%  %6.3f \u00b1 %6.3f %%\n",
           (long long)i_chunk + 1, k.ppl.mean, k.ppl.error, k.ln_ratio.mean, k.ln_ratio.error,
           k.kld.mean, k.kld.error, 100 * k.rms_dp.mean, 100 * k.rms_dp.error,
           100 * k.same_top.mean, 100 * k.same_top.error);
    fflush(stdout);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_percentiles(const double *sorted, size_t n, const char *name, const char *unit)
{
    static const double shares[] = {0.999, 0.99, 0.95, 0.9, 0.5, 0.1, 0.05, 0.01, 0.001};
    printf("Maximum %s: %10.6f%s\n", name, sorted[n - 1], unit);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        double value = kld_percentile(sorted, n, shares[i]);
        if (shares[i] == 0.5)
            printf("Median  %s: %10.6f%s\n", name, value, unit);
        else
            printf("%5.1f%%  %s: %10.6f%s\n", 100 * shares[i], name, value, unit);
    }
    printf("Minimum %s: %10.6f%s\n", name, sorted[0], unit);
}

static void print_perplexities(const kld_summary *k)
{
    printf("\n====== Perplexity statistics ======\n");
    printf("Mean PPL(Q)                   : %10.6f \u00b1 %10.6f\n", k->ppl.mean, k->ppl.error);
    printf("Mean PPL(base)                : %10.6f \u00b1 %10.6f\n", k->ppl_base.mean,
           k->ppl_base.error);
    printf("Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%\n", 100 * k->correlation);
    printf("Mean ln(PPL(Q)/PPL(base))     : %10.6f \u00b1 %10.6f\n", k->ln_ratio.mean,
           k->ln_ratio.error);
    printf("Mean PPL(Q)/PPL(base)         : %10.6f \u00b1 %10.6f\n", k->ratio.mean, k->ratio.error);
    printf("Mean PPL(Q)-PPL(base)         : %10.6f \u00b1 %10.6f\n", k->diff.mean, k->diff.error);
}

fr_status kld_print_summary(const kld_rows *r, fr_err *err)
{
    double *sorted = FR_NEW(double, FR_MEM_MISC, r->n, err);
    if (!sorted)
        return FR_ENOMEM;
    kld_summary k = kld_summarize(r);
    print_perplexities(&k);
    printf("\n====== KL divergence statistics ======\n");
    printf("Mean    KLD: %10.6f \u00b1 %10.6f\n", k.kld.mean, k.kld.error);
    for (size_t i = 0; i < r->n; i++)
        sorted[i] = r->rows[i].kld;
    qsort(sorted, r->n, sizeof *sorted, ascending);
    print_percentiles(sorted, r->n, "KLD", "");
    printf("\n====== Token probability statistics ======\n");
    printf("Mean    \u0394p: %10.6f \u00b1 %10.6f %%\n", 100 * k.dp.mean, 100 * k.dp.error);
    for (size_t i = 0; i < r->n; i++)
        sorted[i] = 100 * r->rows[i].dp;
    qsort(sorted, r->n, sizeof *sorted, ascending);
    print_percentiles(sorted, r->n, "\u0394p", "%");
    printf("RMS \u0394p    : %10.6f \u00b1 %10.6f %%\n", 100 * k.rms_dp.mean, 100 * k.rms_dp.error);
    printf("Same top p: %6.3f \u00b1 %6.3f %%\n", 100 * k.same_top.mean, 100 * k.same_top.error);
    fr_mem_free(sorted);
    return FR_OK;
}
