#include "cpu/ops.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "cpu/norm.h"

/* Rows are shared out over the threads from this many numbers on; below, waking them costs more. */
enum { PARALLEL_FROM = 16384 };

/* Runs fn over rows [0, n_rows), each worth `cols` numbers. */
typedef void (*rows_fn)(const void *arg, int64_t row);

typedef struct {
    rows_fn fn;
    const void *arg;
    int64_t n_rows;
} rows_job;

static void rows_thread(void *arg, int i_thread, int n_threads)
{
    const rows_job *job = arg;
    int64_t from, to;
    fr_cpu_share(job->n_rows, 1, i_thread, n_threads, &from, &to);
    for (int64_t r = from; r < to; r++)
        job->fn(job->arg, r);
}

static void for_rows(fr_cpu *cpu, int64_t n_rows, int64_t cols, rows_fn fn, const void *arg)
{
    rows_job job = {fn, arg, n_rows};
    if (n_rows * cols < PARALLEL_FROM)
        rows_thread(&job, 0, 1);
    else
        fr_cpu_run(cpu, rows_thread, &job);
}

/* ---- embedding
 * ------------------------------------------------------------------------------------------ */

typedef struct {
    const fr_weight *w;
    const int32_t *ids;
    float *y;
    int64_t ldy;
} embed_args;

static void embed_row(const void *arg, int64_t t)
{
    const embed_args *a = arg;
    fr_decode_row(a->w->type, a->w->layout, a->w->data, a->ids[t], a->w->cols, a->y + t * a->ldy);
}

void fr_cpu_embed(fr_cpu *cpu, const fr_weight *w, const int32_t *ids, int64_t n_tokens, float *y,
                  int64_t ldy)
{
    for_rows(cpu, n_tokens, w->cols, embed_row, &(embed_args){w, ids, y, ldy});
}

/* ---- normalisation
 * -------------------------------------------------------------------------------------- */

/* In eight sums side by side: one alone would wait for every addition. */
static double sum_of_squares(const float *x, int64_t n)
{
    double part[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++)
            part[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    for (int k = 0; k < 8; k++)
        sum += part[k];
    return sum;
}

void cpu_norm_base(const float *x, const float *w, int64_t n, float eps, float *y)
{
    float scale = (float)(1.0 / sqrt(sum_of_squares(x, n) / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static cpu_norm_fn *norm_of(const fr_cpu *cpu)
{
    return cpu->isa == FR_ISA_SCALAR ? cpu_norm_base : cpu_norm_avx2;
}

typedef struct {
    cpu_norm_fn *norm;
    const float *x, *w;
    float *y;
    int64_t ldx, ldy, cols;
    float eps;
} norm_args;

static void norm_row(const void *arg, int64_t t)
{
    const norm_args *a = arg;
    a->norm(a->x + t * a->ldx, a->w, a->cols, a->eps, a->y + t * a->ldy);
}

void fr_cpu_rms_norm(fr_cpu *cpu, const float *x, int64_t ldx, int64_t n_tokens, int64_t cols,
                     const float *w, float eps, float *y, int64_t ldy)
{
    for_rows(cpu, n_tokens, cols, norm_row,
             &(norm_args){norm_of(cpu), x, w, y, ldx, ldy, cols, eps});
}

typedef struct {
    cpu_norm_fn *norm;
    const fr_cpu_add_norm_args *args;
} add_norm_job;

static void add_norm_row(const void *arg, int64_t t)
{
    const add_norm_job *j = arg;
    const fr_cpu_add_norm_args *a = j->args;
    float *x = a->x + t * a->cols;
    for (int64_t i = 0; i < a->cols; i++)
        x[i] += a->a[t * a->cols + i];
    for (int64_t i = 0; a->b && i < a->cols; i++)
        x[i] += a->b[t * a->cols + i];
    j->norm(x, a->w, a->cols, a->eps, a->y + t * a->ldy);
}

void fr_cpu_add_norm(fr_cpu *cpu, const fr_cpu_add_norm_args *args)
{
    for_rows(cpu, args->n_tokens, args->cols, add_norm_row, &(add_norm_job){norm_of(cpu), args});
}

/* ---- rotary embedding
 * ------------------------------------------------------------------------------------ */

typedef struct {
    float *x;
    int64_t ldx, n_heads, stride, n_rot;
    const float *turns;
} rope_args;

static void rope_row(const void *arg, int64_t t)
{
    const rope_args *a = arg;
    const float *turn = a->turns + t * a->n_rot;
    for (int64_t h = 0; h < a->n_heads; h++) {
        float *x = a->x + t * a->ldx + h * a->stride;
        for (int64_t i = 0; i < a->n_rot; i += 2) {
            float x0 = x[i], x1 = x[i + 1];
            x[i] = x0 * turn[i] - x1 * turn[i + 1];
            x[i + 1] = x0 * turn[i + 1] + x1 * turn[i];
        }
    }
}

void fr_cpu_rope(fr_cpu *cpu, float *x, int64_t ldx, int64_t n_tokens, int64_t n_heads,
                 int64_t stride, int64_t n_rot, const float *turns)
{
    for_rows(cpu, n_tokens, n_heads * n_rot, rope_row,
             &(rope_args){x, ldx, n_heads, stride, n_rot, turns});
}

/* ---- element by element
 * ---------------------------------------------------------------------------------- */

typedef struct {
    const float *a, *b;
    float *y;
    int64_t n;
    const cpu_table *table;
} pair_args;

enum { PIECE = 4096 }; /* elements a row of for_rows */

static int64_t piece_end(const pair_args *a, int64_t piece)
{
    int64_t end = (piece + 1) * PIECE;
    return end < a->n ? end : a->n;
}

static void add_piece(const void *arg, int64_t piece)
{
    const pair_args *a = arg;
    for (int64_t i = piece * PIECE, end = piece_end(a, piece); i < end; i++)
        a->y[i] = a->a[i] + a->b[i];
}

static void swiglu_piece(const void *arg, int64_t piece)
{
    const pair_args *a = arg;
    int64_t from = piece * PIECE, n = piece_end(a, piece) - from;
    if (a->y != a->a)
        memcpy(a->y + from, a->a + from, (size_t)n * sizeof *a->y);
    a->table->silu_mul(a->y + from, a->b + from, n);
}

void fr_cpu_add(fr_cpu *cpu, const float *a, const float *b, int64_t n, float *y)
{
    for_rows(cpu, (n + PIECE - 1) / PIECE, PIECE, add_piece, &(pair_args){a, b, y, n, NULL});
}

void fr_cpu_swiglu(fr_cpu *cpu, const float *gate, const float *up, int64_t n, float *y)
{
    for_rows(cpu, (n + PIECE - 1) / PIECE, PIECE, swiglu_piece,
             &(pair_args){gate, up, y, n, &cpu->table});
}

enum { MIX_COLS = 256 }; /* a row of for_rows: the sums of so many columns stay in the cache */

static void mix_piece(const void *arg, int64_t piece)
{
    const fr_cpu_mix_args *a = arg;
    int64_t per_token = (a->cols + MIX_COLS - 1) / MIX_COLS, t = piece / per_token;
    int64_t from = piece % per_token * MIX_COLS;
    int64_t n = a->cols - from < MIX_COLS ? a->cols - from : MIX_COLS;
    float *y = a->y + t * a->ldy + from, sum[MIX_COLS] = {0};
    for (int64_t pair = t * a->n_used; pair < (t + 1) * a->n_used; pair++) {
        const float *x = a->x + pair * a->cols + from;
        float weight = a->weights[pair];
        for (int64_t i = 0; i < n; i++)
            sum[i] += weight * x[i];
    }
    for (int64_t i = 0; i < n; i++)
        y[i] = a->add ? y[i] + sum[i] : sum[i];
}

void fr_cpu_mix(fr_cpu *cpu, const fr_cpu_mix_args *args)
{
    int64_t n_pieces = args->n_tokens * ((args->cols + MIX_COLS - 1) / MIX_COLS);
    for_rows(cpu, n_pieces, MIX_COLS * args->n_used, mix_piece, args);
}

/* ---- router
 * -----------------------------------------------------------------------------------------------
 */

static void softmax(float *x, int64_t n)
{
    float max = x[0];
    for (int64_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += (double)x[i];
    }
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] / sum);
}

static void sigmoid(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = 1.0f / (1.0f + expf(-x[i]));
}

/* How good a group is: see fr_cpu_router_args. */
static float group_score(const float *choice, int64_t n, bool best_two)
{
    float first = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return best_two && n > 1 ? first + second : first;
}

/* Bars the experts of all but the best groups. */
static void bar_groups(const fr_cpu_router_args *a, const float *choice, float *barred)
{
    int64_t per = a->n_expert / a->n_groups;
    for (int64_t g = 0; g < a->n_groups; g++) {
        float mine = group_score(choice + g * per, per, a->bias != NULL);
        int64_t n_better = 0;
        for (int64_t o = 0; o < a->n_groups; o++) {
            float other = group_score(choice + o * per, per, a->bias != NULL);
            n_better += other > mine || (other == mine && o < g);
        }
        for (int64_t i = 0; i < per; i++)
            barred[g * per + i] = n_better >= a->n_groups_used;
    }
}

/* The best that is not barred; some expert always is left. A NaN never wins against a number. */
static int64_t elect(const float *choice, const float *barred, int64_t n)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (!barred[i] && (best < 0 || choice[i] > choice[best] || isnan(choice[best])))
            best = i;
    return best;
}

static void router_row(const void *arg, int64_t t)
{
    const fr_cpu_router_args *a = arg;
    int64_t n = a->n_expert;
    float *score = a->scores + t * n;
    float *choice = a->scratch + t * 2 * n, *barred = choice + n;
    int32_t *ids = a->ids + t * a->n_used;
    float *weights = a->weights + t * a->n_used;

    if (score != a->logits + t * n)
        memcpy(score, a->logits + t * n, (size_t)n * sizeof *score);
    (a->sigmoid ? sigmoid : softmax)(score, n);
    for (int64_t i = 0; i < n; i++) {
        choice[i] = score[i] + (a->bias ? a->bias[i] : 0.0f);
        barred[i] = 0.0f;
    }
    if (a->n_groups > 1)
        bar_groups(a, choice, barred);
    double sum = 0;
    for (int64_t k = 0; k < a->n_used; k++) {
        int64_t best = elect(choice, barred, n);
        barred[best] = 1.0f;
        ids[k] = (int32_t)best;
        weights[k] = score[best];
        sum += (double)score[best];
    }
    double factor = (double)a->scale / (a->norm ? sum + 1e-20 : 1.0);
    for (int64_t k = 0; k < a->n_used; k++)
        weights[k] = (float)((double)weights[k] * factor);
}

void fr_cpu_router(fr_cpu *cpu, const fr_cpu_router_args *args)
{
    for_rows(cpu, args->n_tokens, args->n_expert * args->n_used, router_row, args);
}

void fr_cpu_router_here(const fr_cpu_router_args *args)
{
    for (int64_t t = 0; t < args->n_tokens; t++)
        router_row(args, t);
}
