#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define X(ID, name, ops) extern const fr_arch_ops ops;
#include "model/arch.def"
#undef X

static const struct {
    const char *name;
    const fr_arch_ops *ops;
} archs[] = {
    {NULL, NULL},
#define X(ID, name, ops) {name, &ops},
#include "model/arch.def"
#undef X
};

static const struct {
    const char *name;
    bool per_layer;
} roles[] = {
#define X(ID, name, per_layer) {name, per_layer},
#include "model/roles.def"
#undef X
};

enum { N_ARCHS = sizeof archs / sizeof *archs };

const fr_arch_ops *fr_model_arch_ops(const fr_model *m)
{
    return archs[m->arch].ops;
}

static int *index_slot(const fr_model *m, int layer, fr_role role)
{
    int64_t row = layer < 0 ? m->hp.n_layer : layer;
    return &m->index[row * FR_ROLE_COUNT + role];
}

int fr_model_weight_of(const fr_model *m, int layer, fr_role role)
{
    return *index_slot(m, layer, role);
}

bool fr_tensor_name_parse(const char *name, int *layer, fr_role *role)
{
    *layer = -1;
    const char *rest = name;
    if (strncmp(name, "blk.", 4) == 0) {
        char *end;
        long n = strtol(name + 4, &end, 10);
        if (end == name + 4 || *end != '.' || n < 0 || n > 1 << 20)
            return false;
        *layer = (int)n;
        rest = end + 1;
    }
    for (int r = 0; r < FR_ROLE_COUNT; r++)
        if (roles[r].per_layer == (*layer >= 0) && strcmp(rest, roles[r].name) == 0) {
            *role = (fr_role)r;
            return true;
        }
    return false;
}

/* ---- declaring weights
 * ------------------------------------------------------------------------------- */

static void full_name(int layer, fr_role role, char out[128])
{
    if (layer < 0)
        snprintf(out, 128, "%s", roles[role].name);
    else
        snprintf(out, 128, "blk.%d.%s", layer, roles[role].name);
}

static fr_model_weight *add_weight(fr_model *m, int layer, fr_role role)
{
    int i = m->n_weights++;
    *index_slot(m, layer, role) = i;
    m->weights[i] = (fr_model_weight){.role = role, .layer = layer, .from = -1};
    return &m->weights[i];
}

static fr_status check_dims(const fr_gguf_tensor *t, int64_t cols, int64_t rows, int64_t mats,
                            fr_err *err)
{
    int64_t found = t->dims[1] * t->dims[2] * t->dims[3];
    bool stacked = t->dims[1] == rows && t->dims[2] == mats && t->dims[3] == 1;
    bool flat = found == rows * mats && t->dims[2] == 1 && t->dims[3] == 1;
    if (t->dims[0] == cols && (stacked || flat))
        return FR_OK;
    char expected[96];
    if (mats > 1)
        snprintf(expected, sizeof expected, "[%" PRId64 ", %" PRId64 ", %" PRId64 "]", cols, rows,
                 mats);
    else if (rows > 1)
        snprintf(expected, sizeof expected, "[%" PRId64 ", %" PRId64 "]", cols, rows);
    else
        snprintf(expected, sizeof expected, "[%" PRId64 "]", cols);
    return fr_fail(
        err, FR_EFORMAT,
        "tensor %s: found shape [%" PRId64 ", %" PRId64 ", %" PRId64
        "], expected %s from the file's metadata; the file is damaged or of another architecture",
        t->name, t->dims[0], t->dims[1], t->dims[2] * t->dims[3], expected);
}

fr_status model_expect(fr_model *m, int layer, fr_role role, int64_t cols, int64_t rows,
                       int64_t mats, bool required, fr_err *err)
{
    char name[128];
    full_name(layer, role, name);
    const fr_gguf_tensor *t = fr_gguf_find_tensor(m->gguf, name);
    if (!t && required)
        return fr_fail(err, FR_ENOTFOUND,
                       "tensor %s: missing; the metadata says that this layer has it, the file is "
                       "not complete",
                       name);
    if (!t)
        return FR_OK;
    FR_TRY(check_dims(t, cols, rows, mats, err));
    if (t->layout == FR_LAYOUT_INTERLEAVED && mats > 1 && rows % fr_type_get(t->type)->group != 0)
        return fr_fail(err, FR_EUNSUPPORTED,
                       "tensor %s: interleaved by %d rows, but its matrices have %" PRId64
                       " rows each; use a file with the plain type",
                       name, fr_type_get(t->type)->group, rows);
    fr_model_weight *w = add_weight(m, layer, role);
    w->name = t->name;
    w->src = t;
    bool is_vector = rows == 1 && mats == 1;
    if (is_vector && t->type != FR_TYPE_F32) {
        /* Norms and biases are read as floats by the kernels. */
        w->derive = FR_DERIVE_DECODE;
        w->shape = fr_weight_make(FR_TYPE_F32, FR_LAYOUT_PLAIN, cols, rows, mats);
        w->bytes = w->shape.mat_bytes;
        return FR_OK;
    }
    w->shape = fr_weight_make(t->type, t->layout, cols, rows, mats);
    w->bytes = t->bytes;
    return FR_OK;
}

/* Exact for floats. Quantized weights go to f16, whose rounding is far below theirs; k_b, which is
 * read for every token, to q8_0: half the bytes, and its rounding is still far below. */
static fr_type derived_type(const fr_weight *from, fr_role role, int64_t cols)
{
    if (from->type == FR_TYPE_F32 || from->type == FR_TYPE_BF16)
        return from->type;
    bool quantized = fr_type_get(from->type)->weights > 1;
    bool fits = cols % fr_type_get(FR_TYPE_Q8_0)->weights == 0;
    return role == FR_ROLE_ATTN_K_B && quantized && fits ? FR_TYPE_Q8_0 : FR_TYPE_F16;
}

/* A view needs whole row groups. */
static bool can_view(const fr_weight *from, int64_t src_row, int64_t src_step, int64_t rows)
{
    int group = from->layout == FR_LAYOUT_INTERLEAVED ? fr_type_get(from->type)->group : 1;
    return src_row % group == 0 && src_step % group == 0 && rows % group == 0;
}

fr_status model_derive(fr_model *m, int layer, fr_role role, fr_derive how, int from,
                       int64_t src_row, int64_t src_step, int64_t cols, int64_t rows, int64_t mats,
                       fr_err *err)
{
    const fr_weight *src = &m->weights[from].shape;
    char name[256];
    snprintf(name, sizeof name, "blk.%d.%s from %s", layer, roles[role].name,
             m->weights[from].name);
    if (how == FR_DERIVE_VIEW && !can_view(src, src_row, src_step, rows))
        how = FR_DERIVE_DECODE;
    fr_model_weight *w = add_weight(m, layer, role);
    w->name = fr_arena_strndup(&m->arena, name, strlen(name), err);
    if (!w->name)
        return FR_ENOMEM;
    w->derive = how;
    w->from = from;
    w->src_row = src_row;
    w->src_step = src_step;
    if (how == FR_DERIVE_VIEW) {
        w->shape = fr_weight_make(src->type, src->layout, cols, rows, mats);
        w->shape.mat_bytes = (size_t)src_step * fr_row_bytes(src->type, src->layout, cols);
        return FR_OK;
    }
    w->shape = fr_weight_make(derived_type(src, role, cols), FR_LAYOUT_PLAIN, cols, rows, mats);
    w->bytes = w->shape.mat_bytes * (uint64_t)mats;
    return FR_OK;
}

/* ---- opening
 * ----------------------------------------------------------------------------------------- */

static fr_status find_arch(fr_model *m, fr_err *err)
{
    fr_str name;
    FR_TRY(fr_gguf_get_str(m->gguf, "general.architecture", &name, err));
    for (int i = 1; i < N_ARCHS; i++)
        if (fr_str_is(name, archs[i].name)) {
            m->arch = (fr_arch)i;
            m->arch_name = archs[i].name;
            return FR_OK;
        }
    char known[256] = "";
    for (int i = 1; i < N_ARCHS; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), " %s", archs[i].name);
    return fr_fail(err, FR_EUNSUPPORTED,
                   "general.architecture: found '%.*s', this version knows:%s", FR_STR_ARG(name),
                   known);
}

static fr_status alloc_tables(fr_model *m, fr_err *err)
{
    size_t n = (size_t)(m->hp.n_layer + 1) * FR_ROLE_COUNT;
    m->index = FR_ARENA_NEW(int, &m->arena, n, err);
    m->weights = FR_ARENA_NEW(fr_model_weight, &m->arena, n, err); /* at most one a slot */
    if (!m->index || !m->weights)
        return FR_ENOMEM;
    for (size_t i = 0; i < n; i++)
        m->index[i] = -1;
    return FR_OK;
}

static void add_up(fr_model *m)
{
    for (size_t i = 0; i < fr_gguf_n_tensors(m->gguf); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(m->gguf, i);
        m->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        m->file_bytes += t->bytes;
    }
    for (int i = 0; i < m->n_weights; i++)
        if (m->weights[i].derive != FR_DERIVE_NONE)
            m->derived_bytes += m->weights[i].bytes;
}

static bool is_used(const fr_model *m, const fr_gguf_tensor *t)
{
    int layer;
    fr_role role;
    if (!fr_tensor_name_parse(t->name, &layer, &role) || layer >= m->hp.n_layer)
        return false;
    /* Which of the three forms of kv_b is read depends on -mla; the others are no news. */
    if (role == FR_ROLE_ATTN_KV_B || role == FR_ROLE_ATTN_K_B || role == FR_ROLE_ATTN_V_B)
        return true;
    return fr_model_weight_of(m, layer, role) >= 0;
}

/* Nothing in a file is dropped in silence (the nextn layers were announced already). */
static void report_unused(const fr_model *m)
{
    int n = 0, layer;
    const char *first = NULL;
    for (size_t i = 0; i < fr_gguf_n_tensors(m->gguf); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(m->gguf, i);
        bool nextn = sscanf(t->name, "blk.%d.", &layer) == 1 && layer >= m->hp.n_layer;
        if (nextn || is_used(m, t))
            continue;
        if (n++ == 0)
            first = t->name;
    }
    if (n > 0)
        fr_log_warn("model: %d tensors of the file are not used by %s, the first is %s", n,
                    m->arch_name, first);
}

fr_status fr_model_open(const fr_gguf *g, fr_mla_mode mla, fr_model **out, fr_err *err)
{
    *out = NULL;
    fr_model *m = FR_NEW(fr_model, FR_MEM_MODEL, 1, err);
    if (!m)
        return FR_ENOMEM;
    m->gguf = g;
    m->mla = mla;
    m->arena = fr_arena_make(FR_MEM_MODEL);
    fr_status st;
    FR_TRY_OUT(st, find_arch(m, err));
    FR_TRY_OUT(st, fr_hparams_read(g, m->arch_name, &m->hp, err));
    FR_TRY_OUT(st, alloc_tables(m, err));
    FR_TRY_OUT(st, archs[m->arch].ops->declare(m, err));
    fr_model_set_layouts(m, true);
    add_up(m);
    report_unused(m);
    *out = m;
    return FR_OK;
out:
    fr_model_close(m);
    return st;
}

void fr_model_close(fr_model *m)
{
    if (!m)
        return;
    fr_arena_free(&m->arena);
    fr_mem_free(m);
}
