/* Filters whose parameter is at its "off" value return at once. */
#include "sample/sample_filters.h"

#include <math.h>

/* Candidates sorted at first when a filter walks down from the best one. */
enum { SORT_FIRST = 128, SORT_GROWTH = 8 };

double sample_total_weight(const sample_list *l, float *best)
{
    *best = sample_list_best(l).logit;
    double sum = 0;
    for (int32_t i = 0; i < l->n; i++)
        sum += sample_weight(l->c[i].logit, *best);
    return sum;
}

void sample_keep_best(sample_list *l)
{
    l->c[0] = sample_list_best(l);
    l->n = l->n_sorted = 1;
}

/* Sorts more of the list when candidate i is not in order yet; later calls sort ever larger parts,
 * so that walking over the whole list costs one sort. */
static void sort_until(sample_list *l, int32_t i)
{
    if (i < l->n_sorted)
        return;
    sample_list_sort(l, i < SORT_FIRST           ? SORT_FIRST
                        : i < l->n / SORT_GROWTH ? i * SORT_GROWTH
                                                 : l->n);
}

/* Repetition makes a token less likely: positive logits are divided by the repeat penalty and
 * others multiplied (Keskar et al., CTRL, 2019); the frequency penalty is subtracted once an
 * occurrence, the presence penalty once. Computed in double, where no overflow can make a NaN. */
void sample_penalties(sample_chain *chain)
{
    if (!chain->n_recent)
        return;
    const fr_sample_params *p = chain->p;
    sample_list *l = &chain->list;
    for (int32_t i = 0; i < l->n; i++) {
        int32_t n = chain->n_recent[l->c[i].token];
        if (n == 0)
            continue;
        double logit = l->c[i].logit;
        logit = logit > 0 ? logit / p->repeat_penalty : logit * p->repeat_penalty;
        l->c[i].logit =
            (float)(logit - (double)n * p->frequency_penalty - (double)p->presence_penalty);
    }
    l->n_sorted = 0;
}

void sample_top_k(sample_chain *chain)
{
    int32_t k = chain->p->top_k;
    if (k <= 0 || k >= chain->list.n)
        return;
    sample_list_sort(&chain->list, k);
    sample_list_cut(&chain->list, k);
}

/* Keeps the candidates whose `weight` (by token) was set below 0 by the filter. */
static void keep_marked(sample_list *l, const double *weight)
{
    int32_t n = 0, n_sorted = 0;
    for (int32_t i = 0; i < l->n; i++) {
        if (weight[l->c[i].token] >= 0)
            continue;
        n_sorted += i < l->n_sorted;
        l->c[n++] = l->c[i];
    }
    l->n = n;
    l->n_sorted = n_sorted;
}

/* -ln of a candidate's probability; log_total is the logarithm of the list's total weight. */
static double surprisal(float logit, float best, double log_total)
{
    return logit == best ? log_total : log_total - ((double)logit - (double)best);
}

/* Locally typical sampling (Meister et al., 2022): the tokens whose surprisal is nearest to the
 * entropy, as many as are needed for more than typical_p of the probability. Impossible tokens
 * stand last; of equal distances the lower token is first. */
void sample_typ_p(sample_chain *chain)
{
    sample_list *l = &chain->list;
    double *weight = chain->weight, entropy = 0, mass = 0;
    if (chain->p->typical_p >= 1)
        return;
    float best;
    double total = sample_total_weight(l, &best), log_total = sample_log(total);
    for (int32_t i = 0; i < l->n; i++) {
        double w = sample_weight(l->c[i].logit, best);
        weight[l->c[i].token] = w;
        if (w > 0)
            entropy += w / total * surprisal(l->c[i].logit, best, log_total);
    }
    sample_list by_distance = {chain->spare, l->n, 0};
    for (int32_t i = 0; i < l->n; i++) {
        sample_cand c = l->c[i];
        double distance = INFINITY;
        if (weight[c.token] > 0)
            distance = fabs(surprisal(c.logit, best, log_total) - entropy);
        chain->spare[i] = (sample_cand){(float)-distance, c.token};
    }
    for (int32_t i = 0; i < l->n && mass <= chain->p->typical_p * total; i++) {
        sort_until(&by_distance, i);
        double *w = &weight[by_distance.c[i].token];
        mass += *w;
        *w = -1;
    }
    keep_marked(l, weight);
}

/* Nucleus sampling (Holtzman et al., 2019): the best tokens, as many as are needed for top_p of the
 * probability. */
void sample_top_p(sample_chain *chain)
{
    sample_list *l = &chain->list;
    if (chain->p->top_p >= 1)
        return;
    float best;
    double wanted = chain->p->top_p * sample_total_weight(l, &best), mass = 0;
    int32_t n = 0;
    do {
        sort_until(l, n);
        mass += sample_weight(l->c[n++].logit, best);
    } while (n < l->n && mass < wanted);
    sample_list_cut(l, n);
}

/* Drops what is less probable than min_p times the best. */
void sample_min_p(sample_chain *chain)
{
    sample_list *l = &chain->list;
    if (chain->p->min_p <= 0)
        return;
    float best = sample_list_best(l).logit;
    double least = sample_log(chain->p->min_p);
    int32_t n = 0, n_sorted = 0;
    for (int32_t i = 0; i < l->n; i++) {
        float logit = l->c[i].logit;
        if (logit != best && !((double)logit - (double)best >= least))
            continue;
        n_sorted += i < l->n_sorted;
        l->c[n++] = l->c[i];
    }
    l->n = n;
    l->n_sorted = n_sorted;
}

/* Divides the logits by temp. A temperature so low that the best one overflows is the limit of low
 * temperatures: all but the best (and its equals) have no chance. */
void sample_temperature(sample_chain *chain)
{
    sample_list *l = &chain->list;
    float temp = chain->p->temp, best = sample_list_best(l).logit;
    if (temp <= 0) {
        sample_keep_best(l);
        return;
    }
    bool overflow = isinf((float)((double)best / temp));
    for (int32_t i = 0; i < l->n; i++) {
        float logit = l->c[i].logit;
        if (overflow)
            l->c[i].logit = logit == best ? 0 : -INFINITY;
        else
            l->c[i].logit = (float)((double)logit / temp);
    }
}
