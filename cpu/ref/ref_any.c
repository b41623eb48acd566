/* The portable kernel for every type: decodes the row piece by piece and sums float products in
 * double. It fills every slot first, so a type without kernels of its own works as soon as the
 * registry knows it. */
#include <math.h>

#include "cpu/kernels.h"
#include "cpu/ref/ref.h"

#define LANES 8

static void add_products(const float *w, const float *x, int64_t n, double acc[LANES])
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++)
            acc[l] += (double)w[i + l] * (double)x[i + l];
    }
    for (int l = 0; i + l < n; l++)
        acc[l] += (double)w[i + l] * (double)x[i + l];
}

static float sum_lanes(const double a[LANES])
{
    return (float)(((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])));
}

/* Columns c0 .. c0 + n of a prepared row as floats: in place when they are, else decoded into room.
 */
static const float *act_chunk(fr_act_type act, const void *x, int64_t c0, int64_t n, float *room)
{
    const char *piece = (const char *)x + fr_act_row_bytes(act, c0);
    if (act == FR_ACT_F32)
        return (const float *)(const void *)piece;
    fr_act_decode_row(act, piece, n, room);
    return room;
}

void cpu_ref_dot_any(const cpu_dot_args *a)
{
    float w[CPU_CHUNK], x_room[CPU_CHUNK];
    double acc[CPU_MAX_TOKENS][LANES];
    cpu_chunk_room room;
    for (int64_t r = a->row_from; r < a->row_to; r++) {
        for (int t = 0; t < a->n_tokens; t++) {
            for (int l = 0; l < LANES; l++)
                acc[t][l] = 0;
        }
        for (int64_t c0 = 0; c0 < a->cols; c0 += CPU_CHUNK) {
            int64_t n = a->cols - c0 < CPU_CHUNK ? a->cols - c0 : CPU_CHUNK;
            cpu_decode_chunk(a, r, c0, n, &room, w);
            for (int t = 0; t < a->n_tokens; t++)
                add_products(w, act_chunk(a->act, a->x[t], c0, n, x_room), n, acc[t]);
        }
        for (int t = 0; t < a->n_tokens; t++)
            a->y[t][r - a->row_from] = sum_lanes(acc[t]);
    }
}

static void silu_mul_ref(float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* Types whose fast kernels read quantized activations, in all layouts: the portable kernel reads
 * them as well, so it is their reference. */
static const fr_type quantized_acts[] = {
    FR_TYPE_Q4_0,   FR_TYPE_Q4_1,     FR_TYPE_Q5_0,     FR_TYPE_Q5_1,   FR_TYPE_Q6_0,
    FR_TYPE_Q8_0,   FR_TYPE_MXFP4,    FR_TYPE_IQ4_NL,   FR_TYPE_Q2_K,   FR_TYPE_Q3_K,
    FR_TYPE_Q4_K,   FR_TYPE_Q5_K,     FR_TYPE_Q6_K,     FR_TYPE_IQ4_XS, FR_TYPE_IQ4_K,
    FR_TYPE_IQ2_K,  FR_TYPE_IQ3_XXS,  FR_TYPE_IQ3_K,    FR_TYPE_IQ5_K,  FR_TYPE_IQ4_KS,
    FR_TYPE_IQ5_KS, FR_TYPE_IQ2_XXS,  FR_TYPE_IQ2_XS,   FR_TYPE_IQ2_S,  FR_TYPE_IQ3_S,
    FR_TYPE_IQ1_S,  FR_TYPE_IQ1_M,    FR_TYPE_IQ2_KS,   FR_TYPE_IQ3_KS, FR_TYPE_IQ4_KSS,
    FR_TYPE_IQ2_KL, FR_TYPE_IQ1_S_R4, FR_TYPE_IQ1_M_R4, FR_TYPE_IQ1_KT, FR_TYPE_IQ2_KT,
    FR_TYPE_IQ3_KT, FR_TYPE_IQ4_KT};

void cpu_ref_fill(cpu_table *t)
{
    t->any = (cpu_kernel){"any", cpu_ref_dot_any, FR_ACT_F32, 1, 0};
    for (int type = 0; type < FR_TYPE_COUNT; type++) {
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++) {
            int group = fr_layout_rows((fr_type)type, (fr_layout)layout);
            t->dot[type][layout] = t->any;
            t->dot[type][layout].grain = group ? group : 1;
        }
    }
    for (size_t i = 0; i < sizeof quantized_acts / sizeof *quantized_acts; i++) {
        fr_type type = quantized_acts[i];
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++)
            t->dot[type][layout].act = fr_type_get(type)->act;
    }
    t->act_encode = fr_act_encode_row;
    t->silu_mul = silu_mul_ref;
    cpu_ref_fill_dot(t);
}
