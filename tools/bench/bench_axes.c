#include "bench/bench_axes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/int_list.h"

#define NUMBERS .numbers = true
#define ONE     .numbers = false
#define AXIS(ID, opt, flag_, field_, column_, width_, kind_, dflt_, ...)                           \
    [BENCH_##ID] = {.option = FR_OPT_##opt,                                                        \
                    .flag = flag_,                                                                 \
                    .field = field_,                                                               \
                    .column = column_,                                                             \
                    .width = width_,                                                               \
                    .kind = BENCH_##kind_,                                                         \
                    .dflt = dflt_,                                                                 \
                    __VA_ARGS__}

/* Names and widths are the ecosystem's. */
/* clang-format off */
const bench_axis_info bench_axes[BENCH_AXES] = {
    AXIS(NGL, n_gpu_layers, "-ngl", "n_gpu_layers", "ngl", 3, INT, "-1", NUMBERS),
    AXIS(N_CPU_MOE, n_cpu_moe, "-ncmoe", "n_cpu_moe", "n_cpu_moe", 10, INT, "0", NUMBERS),
    AXIS(THREADS, threads, "-t", "n_threads", "threads", 7, INT, "0", NUMBERS),
    AXIS(CPU_MASK, cpu_mask, "-C", "cpu_mask", "cpu_mask", -10, TEXT, "0x0", ONE),
    AXIS(CPU_STRICT, cpu_strict, "--cpu-strict", "cpu_strict", "cpu_strict", 10, BOOL, "0", ONE),
    AXIS(BATCH, batch_size, "-b", "n_batch", "n_batch", 7, INT, "2048", NUMBERS),
    AXIS(UBATCH, ubatch_size, "-ub", "n_ubatch", "n_ubatch", 8, INT, "512", NUMBERS),
    AXIS(TYPE_K, cache_type_k, "-ctk", "type_k", "type_k", 6, TEXT, "f16", ONE),
    AXIS(TYPE_V, cache_type_v, "-ctv", "type_v", "type_v", 6, TEXT, "f16", ONE),
    AXIS(MAIN_GPU, main_gpu, "-mg", "main_gpu", "main_gpu", 10, INT, "0", NUMBERS),
    AXIS(SPLIT_MODE, split_mode, "-sm", "split_mode", "sm", 6, TEXT, "layer", ONE),
    AXIS(NKVO, kv_offload, "-nkvo", "no_kv_offload", "nkvo", 10, BOOL, "0", ONE),
    AXIS(FLASH_ATTN, flash_attn, "-fa", "flash_attn", "fa", 3, INT, "-1", ONE),
    AXIS(MLA, mla, "-mla", "mla_attn", "mla", 3, INT, "3", NUMBERS),
    AXIS(AMB, amb_bytes, "-amb", "attn_max_batch", "amb", 5, INT, "256", NUMBERS),
    AXIS(DEVICE, device, "-dev", "devices", "dev", -12, TEXT, "auto", ONE),
    AXIS(TENSOR_SPLIT, tensor_split, "-ts", "tensor_split", "ts", -12, TEXT, "0.00", ONE),
    AXIS(MMAP, mmap, "-mmp", "use_mmap", "mmap", 4, BOOL, "1", ONE),
    AXIS(REPACK, run_time_repack, "-rtr", "repack", "rtr", 3, BOOL, "1", ONE),
};
/* clang-format on */

/* ---- reading ---------------------------------------------------------------------------------
 */

void bench_values_free(bench_values v[BENCH_AXES])
{
    for (int a = 0; a < BENCH_AXES; a++) {
        for (size_t i = 0; i < v[a].n; i++)
            fr_mem_free(v[a].v[i]);
        fr_mem_free(v[a].v);
        v[a] = (bench_values){0};
    }
}

static fr_status add_value(bench_values *list, const char *text, size_t n, fr_err *err)
{
    void *v = list->v;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &v, &list->cap, list->n + 1, sizeof *list->v, err));
    list->v = v;
    char *copy = fr_mem_strndup(FR_MEM_MISC, text, n, err);
    if (!copy)
        return FR_ENOMEM;
    list->v[list->n++] = copy;
    return FR_OK;
}

/* Of an item with '-', '+' or '*' behind its first digit: all numbers of the range. */
static fr_status add_range(const bench_axis_info *a, const char *item, bench_values *out,
                           fr_err *err)
{
    tool_ints ints = {0};
    char text[24];
    fr_status st = tool_ints_parse(a->flag, item, -1, INT32_MAX, &ints, err);
    for (size_t i = 0; st == FR_OK && i < ints.n; i++) {
        snprintf(text, sizeof text, "%lld", (long long)ints.v[i]);
        st = add_value(out, text, strlen(text), err);
    }
    fr_mem_free(ints.v);
    return st;
}

static bool is_off(const char *word)
{
    return strchr("0fFdDnN", *word) || strncasecmp(word, "off", 3) == 0;
}

/* What a negated spelling of a switch says is turned round here. */
static fr_status add_item(const bench_axis_info *a, const char *text, size_t n, bool negated,
                          bench_values *out, fr_err *err)
{
    char item[80];
    if (n >= sizeof item || n == 0)
        return n ? add_value(out, text, n, err)
                 : fr_fail(err, FR_EINVAL, "%s: found an empty value, expected some between commas",
                           a->flag);
    snprintf(item, sizeof item, "%.*s", (int)n, text);
    if (a->kind == BENCH_BOOL && negated)
        return add_value(out, is_off(item) ? "1" : "0", 1, err);
    if (a->option == FR_OPT_run_time_repack && strcmp(item, "auto") == 0)
        return add_value(out, "1", 1, err);
    return a->numbers && strpbrk(item + 1, "-+*") ? add_range(a, item, out, err)
                                                  : add_value(out, item, n, err);
}

static fr_status read_given(const fr_options *o, bench_axis axis, bench_values *out, fr_err *err)
{
    const bench_axis_info *a = &bench_axes[axis];
    for (size_t i = 0; i < o->n_many; i++) {
        const fr_opt_many *m = &o->many[i];
        if (m->id != a->option)
            continue;
        for (const char *p = m->text; p;) {
            size_t n = strcspn(p, ",");
            FR_TRY(add_item(a, p, n, m->negated, out, err));
            p = p[n] ? p + n + 1 : NULL;
        }
    }
    return FR_OK;
}

/* -tgb 8,16;4,8 */
static fr_status read_pairs(const fr_options *o, bench_values *out, fr_err *err)
{
    for (size_t i = 0; i < o->bench_thread_pairs.n; i++)
        for (const char *p = o->bench_thread_pairs.items[i].text; p;) {
            size_t n = strcspn(p, ";");
            FR_TRY(add_value(out, p, n, err));
            const char *pair = out->v[out->n - 1], *comma = strchr(pair, ',');
            if (!comma || strchr(comma + 1, ','))
                return fr_fail(err, FR_EINVAL,
                               "-tgb: found '%.40s', expected threads for generation and for "
                               "prompts, such as 8,16",
                               pair);
            p = p[n] ? p + n + 1 : NULL;
        }
    return FR_OK;
}

fr_status bench_axis_assign(fr_options *o, bench_axis a, const char *value, fr_err *err)
{
    char text[512];
    const char *comma = a == BENCH_THREADS ? strchr(value, ',') : NULL;
    snprintf(text, sizeof text, "%s", value);
    if (comma)
        text[comma - value] = 0;
    for (char *p = text; *p; p++) /* devices and shares of one setting are joined by slashes */
        if (((a == BENCH_DEVICE || a == BENCH_TENSOR_SPLIT) && *p == '/') ||
            (a == BENCH_TENSOR_SPLIT && *p == ';'))
            *p = ',';
    fr_status st = fr_opts_assign(o, bench_axes[a].option, text, false, err);
    if (st == FR_OK && comma)
        st = fr_opts_assign(o, FR_OPT_threads_batch, comma + 1, false, err);
    return st == FR_OK ? st : fr_err_context(err, st, "%s", comma ? "-tgb" : bench_axes[a].flag);
}

fr_status bench_values_read(fr_options *o, bench_values out[BENCH_AXES], fr_err *err)
{
    memset(out, 0, BENCH_AXES * sizeof *out);
    for (int a = 0; a < BENCH_AXES; a++) {
        FR_TRY(read_given(o, (bench_axis)a, &out[a], err));
        if (a == BENCH_THREADS)
            FR_TRY(read_pairs(o, &out[a], err));
        for (size_t i = 0; i < out[a].n; i++)
            FR_TRY(bench_axis_assign(o, (bench_axis)a, out[a].v[i], err));
    }
    return FR_OK;
}

fr_status bench_assign_single(fr_options *o, const char *with, fr_err *err)
{
    bench_values v[BENCH_AXES];
    fr_status st = bench_values_read(o, v, err);
    for (int a = 0; st == FR_OK && a < BENCH_AXES; a++)
        if (v[a].n > 1)
            st = fr_fail(err, FR_EINVAL, "%s: found %zu values, expected one with %s",
                         bench_axes[a].flag, v[a].n, with);
    bench_values_free(v);
    return st;
}

/* ---- showing --------------------------------------------------------------------------------- */

static void split_text(const char *shares, char *out, size_t n)
{
    size_t at = 0;
    snprintf(out, n, "0.00");
    for (const char *p = shares; p && at < n;) {
        at += (size_t)snprintf(out + at, n - at, "%s%.2f", at ? "/" : "", strtod(p, NULL));
        p = strpbrk(p, ",/");
        p = p ? p + 1 : NULL;
    }
}

static void device_text(const char *device, char *out, size_t n)
{
    snprintf(out, n, "%s", device ? device : "auto");
    for (char *p = out; *p; p++)
        *p = *p == ',' ? '/' : *p;
}

static int flash_number(const char *mode)
{
    return strcmp(mode, "on") == 0 ? 1 : strcmp(mode, "off") == 0 ? 0 : -1;
}

static int64_t number_of(const fr_options *o, bench_axis a)
{
    switch (a) {
    case BENCH_NGL:
        return o->n_gpu_layers;
    case BENCH_N_CPU_MOE:
        return o->n_cpu_moe;
    case BENCH_THREADS:
        return o->threads;
    case BENCH_CPU_STRICT:
        return o->cpu_strict;
    case BENCH_BATCH:
        return o->batch_size;
    case BENCH_UBATCH:
        return o->ubatch_size;
    case BENCH_MAIN_GPU:
        return o->main_gpu;
    case BENCH_NKVO:
        return !o->kv_offload;
    case BENCH_FLASH_ATTN:
        return flash_number(o->flash_attn);
    case BENCH_MLA:
        return o->mla;
    case BENCH_AMB:
        return o->amb_bytes >> 20;
    case BENCH_MMAP:
        return o->mmap;
    default:
        return o->repack && o->run_time_repack;
    }
}

void bench_axis_text(const fr_options *o, bench_axis a, char *out, size_t n)
{
    if (a == BENCH_CPU_MASK)
        snprintf(out, n, "%s", o->cpu_mask ? o->cpu_mask : "0x0");
    else if (a == BENCH_TYPE_K || a == BENCH_TYPE_V)
        snprintf(out, n, "%s", a == BENCH_TYPE_K ? o->cache_type_k : o->cache_type_v);
    else if (a == BENCH_SPLIT_MODE)
        snprintf(out, n, "%s", o->split_mode);
    else if (a == BENCH_DEVICE)
        device_text(o->device, out, n);
    else if (a == BENCH_TENSOR_SPLIT)
        split_text(o->tensor_split, out, n);
    else
        snprintf(out, n, "%lld", (long long)number_of(o, a));
}
