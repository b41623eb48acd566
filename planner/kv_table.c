#include "planner/kv_table.h"

#include <string.h>
#include <strings.h>

#include "kv/kv.h"
#include "planner/print_parts.h"

static const plan_kv_shape shapes[] = {
    {"DeepSeek-V2-Lite", 27, 163840, {{27, 576, 1, 0}}},
    {"DeepSeek-V3", 61, 163840, {{61, 576, 1, 0}}},
    {"DeepSeek-R1", 61, 163840, {{61, 576, 1, 0}}},
    {"Kimi-K2", 61, 131072, {{61, 576, 1, 0}}},
    {"DeepSeek-V3.2", 61, 163840, {{61, 576, 1, 0}, {61, 128, 1, 0}}},
    {"GLM-5", 78, 202752, {{78, 576, 1, 0}, {78, 128, 1, 0}}},
    {"GLM-5.2", 78, 1048576, {{78, 576, 1, 0}, {21, 128, 1, 0}}},
    {"DeepSeek-V4-Pro",
     61,
     1048576,
     {{30, 512, 4, 0}, {30, 128, 4, 0}, {31, 512, 128, 0}, {61, 512, 1, 128}}},
    {"DeepSeek-V4-Flash",
     43,
     1048576,
     {{21, 512, 4, 0}, {21, 128, 4, 0}, {20, 512, 128, 0}, {43, 512, 1, 128}}},
};

size_t plan_kv_n_shapes(void)
{
    return sizeof shapes / sizeof *shapes;
}

const plan_kv_shape *plan_kv_shape_at(size_t i)
{
    return &shapes[i];
}

const plan_kv_shape *plan_kv_shape_find(const char *name)
{
    for (size_t i = 0; i < plan_kv_n_shapes(); i++)
        if (strcasecmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

static uint64_t row_bytes(fr_type type, int width)
{
    int block = fr_type_get(type)->weights;
    return fr_row_bytes(type, FR_LAYOUT_PLAIN, (width + block - 1) / block * block);
}

uint64_t plan_kv_shape_bytes(const plan_kv_shape *s, fr_type type, int64_t n_tokens)
{
    uint64_t bytes = 0;
    for (int k = 0; k < PLAN_KV_KINDS && s->kinds[k].n_layers > 0; k++) {
        const plan_kv_kind *kind = &s->kinds[k];
        int64_t n = kind->most > 0 && n_tokens > kind->most ? kind->most : n_tokens;
        bytes += (uint64_t)(kind->n_layers * (n / kind->every)) * row_bytes(type, kind->width);
    }
    return bytes;
}

double plan_kv_shape_token_bytes(const plan_kv_shape *s, fr_type type)
{
    double bytes = 0;
    for (int k = 0; k < PLAN_KV_KINDS && s->kinds[k].n_layers > 0; k++) {
        const plan_kv_kind *kind = &s->kinds[k];
        if (kind->most == 0)
            bytes += (double)kind->n_layers * (double)row_bytes(type, kind->width) / kind->every;
    }
    return bytes;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static fr_status check_type(fr_type type, fr_err *err)
{
    if (fr_type_can_encode(type) && fr_type_get(type)->row_meta == 0)
        return FR_OK;
    return fr_fail(err, FR_EUNSUPPORTED,
                   "KV cache type %s: cannot be written row by row; use f16 or q8_0",
                   fr_type_get(type)->name);
}

enum { NAME_WIDTH = 18 };

static fr_status print_size(uint64_t bytes, fr_buf *out, fr_err *err)
{
    double mib = (double)bytes / (1 << 20);
    if (mib < 4096)
        return fr_buf_printf(out, err, "%9.2f MiB", mib);
    return fr_buf_printf(out, err, "%9.3f GiB", mib / 1024);
}

static fr_status print_head(const fr_kv_table_args *a, const char *first, fr_buf *out, fr_err *err)
{
    FR_TRY(fr_buf_printf(out, err, "%-*s%-5s %8s", a->model ? 0 : NAME_WIDTH, first, "type",
                         "B/token"));
    for (size_t i = 0; i < a->n_lengths; i++)
        FR_TRY(fr_buf_printf(out, err, "%13lld", (long long)a->lengths[i]));
    return fr_buf_putc(out, '\n', err);
}

static fr_status print_shape(const fr_kv_table_args *a, const plan_kv_shape *s, fr_type type,
                             fr_buf *out, fr_err *err)
{
    FR_TRY(fr_buf_printf(out, err, "%-*s%-5s %8.10g", NAME_WIDTH, s->name, fr_type_get(type)->name,
                         plan_kv_shape_token_bytes(s, type)));
    for (size_t i = 0; i < a->n_lengths; i++)
        FR_TRY(print_size(plan_kv_shape_bytes(s, type, a->lengths[i]), out, err));
    return fr_buf_putc(out, '\n', err);
}

static fr_status print_model_row(const fr_kv_table_args *a, fr_type type, fr_buf *out, fr_err *err)
{
    fr_kv_layout l;
    FR_TRY(fr_kv_layout_make(a->model, type, type, a->kv_window, &l, err));
    FR_TRY(fr_buf_printf(out, err, "%-5s %8llu", fr_type_get(type)->name,
                         (unsigned long long)fr_kv_pos_bytes(&l)));
    for (size_t i = 0; i < a->n_lengths; i++)
        FR_TRY(print_size(fr_kv_layer_bytes(&l, a->lengths[i]) * (uint64_t)l.n_layer, out, err));
    return fr_buf_putc(out, '\n', err);
}

static fr_status print_model(const fr_kv_table_args *a, fr_buf *out, fr_err *err)
{
    const fr_model *m = a->model;
    fr_kv_layout l;
    char bytes[32];
    FR_TRY(fr_buf_printf(out, err, "KV cache of %.*s (-mla %d, trained for %lld tokens)\n",
                         FR_STR_ARG(plan_model_name(m)), (int)m->mla,
                         (long long)m->hp.n_ctx_train));
    FR_TRY(print_head(a, "", out, err));
    for (size_t t = 0; t < a->n_types; t++)
        FR_TRY(print_model_row(a, a->types[t], out, err));
    FR_TRY(fr_kv_layout_make(m, FR_TYPE_F16, FR_TYPE_F16, a->kv_window, &l, err));
    if (a->kv_window == 0)
        return FR_OK;
    fr_format_bytes(fr_kv_recent_bytes(&l) * (uint64_t)l.n_layer, bytes);
    return fr_buf_printf(out, err,
                         "\nBesides, in every type but f32: %s for the last %lld positions in "
                         "float32 (--kv-window).\n",
                         bytes, (long long)a->kv_window);
}

fr_status fr_kv_table_print(const fr_kv_table_args *a, fr_buf *out, fr_err *err)
{
    for (size_t t = 0; t < a->n_types; t++)
        FR_TRY(check_type(a->types[t], err));
    if (a->model)
        return print_model(a, out, err);
    FR_TRY(print_head(a, "KV cache of", out, err));
    for (size_t s = 0; s < plan_kv_n_shapes(); s++)
        for (size_t t = 0; t < a->n_types; t++)
            FR_TRY(print_shape(a, &shapes[s], a->types[t], out, err));
    return fr_buf_puts(
        out,
        "\nOf one sequence. Formulas and sources: planner/kv_table.h. V3.2, GLM-5 and V4 "
        "stand here for comparison:\nthis version runs the deepseek2 "
        "architecture only.\n",
        err);
}
