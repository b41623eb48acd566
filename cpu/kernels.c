#include "cpu/kernels.h"

#include <assert.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)
/* Not among the names that every compiler's __builtin_cpu_supports knows. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2") && has_f16c();
}

/* Whether the system saves the mask and 512-bit registers of a thread (bits 1, 2 and 5..7 of XCR0).
 */
static bool os_saves_512(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return false;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 0xE6) == 0xE6;
}

static bool has_avx512(void)
{
    return os_saves_512() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni");
}
#endif

fr_isa cpu_isa_detect(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (has_avx2())
        return has_avx512() ? FR_ISA_AVX512 : FR_ISA_AVX2;
#endif
    return FR_ISA_SCALAR;
}

void cpu_table_fill(cpu_table *t, fr_isa isa)
{
    cpu_ref_fill(t);
#if defined(__x86_64__)
    if (isa >= FR_ISA_AVX2)
        cpu_avx2_fill(t);
    if (isa >= FR_ISA_AVX512)
        cpu_avx512_fill(t);
#else
    (void)isa;
#endif
}

const cpu_kernel *cpu_kernel_for(const cpu_table *t, const fr_weight *w, fr_act_type act)
{
    const cpu_kernel *k = &t->dot[w->type][w->layout];
    return k->act == act ? k : &t->any;
}

fr_act_type fr_cpu_act_type(const fr_cpu *cpu, const fr_weight *w)
{
    fr_act_type act = cpu->table.dot[w->type][w->layout].act;
    return w->cols % fr_act_block(act) == 0 ? act : FR_ACT_F32;
}

/* A piece of a row (plain) or of a group (interleaved) is itself a short row or group: blocks of
 * all its rows follow each other column by column. Only the header of the whole row stands apart,
 * so where there is one, header and piece are copied together first. */
void cpu_decode_chunk(const cpu_dot_args *a, int64_t i_row, int64_t c0, int64_t n,
                      cpu_chunk_room *room, float *out)
{
    const fr_type_info *info = fr_type_get(a->type);
    int64_t group = fr_layout_rows(a->type, a->layout);
    bool il = a->layout == FR_LAYOUT_INTERLEAVED;
    size_t meta = (size_t)group * (size_t)(il ? info->il_row_meta : info->row_meta);
    size_t row_bytes = fr_row_bytes(a->type, a->layout, a->cols);
    const unsigned char *src =
        (const unsigned char *)a->base + (size_t)(i_row / group * group) * row_bytes;
    const unsigned char *piece = src + (size_t)group * fr_row_bytes(a->type, a->layout, c0);
    if (meta == 0) {
        fr_decode_row(a->type, a->layout, piece, i_row % group, n, out);
        return;
    }
    size_t n_bytes = (size_t)group * fr_row_bytes(a->type, a->layout, n) - meta;
    assert(meta + n_bytes <= sizeof room->bytes);
    memcpy(room->bytes, src, meta);
    memcpy(room->bytes + meta, piece, n_bytes);
    fr_decode_row(a->type, a->layout, room->bytes, i_row % group, n, out);
}
