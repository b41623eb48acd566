#include "support/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "gguf/gguf_writer.h"

/* ---- temporary files
 * -------------------------------------------------------------------------------------- */

static char folder[64];

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        fprintf(stderr, "could not remove %s\n", folder);
}

const char *model_temp_path(const char *name)
{
    static char paths[8][192];
    static int next;
    if (!folder[0]) {
        strcpy(folder, "/tmp/ferry-test-XXXXXX");
        if (!mkdtemp(folder))
            abort();
        atexit(remove_folder);
    }
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* ---- variants
 * --------------------------------------------------------------------------------------------- */

typedef struct {
    const fr_gguf *g;
    const model_variant *v;
    fr_gguf_writer *w;
    int64_t heads, lora, nope, v_head;
    bool adding; /* first pass: declare tensors; second: write their data */
    fr_err *err;
} job;

static fr_status put_metadata(job *j)
{
    FR_TRY(fr_gguf_put_all(j->w, j->g, NULL, j->err));
    if (j->v->groups) {
        FR_TRY(fr_gguf_put_u32(j->w, "deepseek2.expert_group_count", 4, j->err));
        FR_TRY(fr_gguf_put_u32(j->w, "deepseek2.expert_group_used_count", 2, j->err));
    }
    if (!j->v->split_kv_b)
        return FR_OK;
    uint32_t rope = 0;
    FR_TRY(fr_gguf_get_u32(j->g, "deepseek2.rope.dimension_count", &rope, j->err));
    FR_TRY(fr_gguf_put_u32(j->w, "deepseek2.attention.head_count_kv", 1, j->err));
    FR_TRY(
        fr_gguf_put_u32(j->w, "deepseek2.attention.key_length", (uint32_t)j->lora + rope, j->err));
    FR_TRY(fr_gguf_put_u32(j->w, "deepseek2.attention.value_length", (uint32_t)j->lora, j->err));
    FR_TRY(fr_gguf_put_u32(j->w, "deepseek2.attention.key_length_mla", (uint32_t)j->nope + rope,
                           j->err));
    return fr_gguf_put_u32(j->w, "deepseek2.attention.value_length_mla", (uint32_t)j->v_head,
                           j->err);
}

/* The type that a tensor gets: matrices only, and only where the shape allows it. */
static void choose_type(const job *j, const char *name, fr_type from, int n_dims,
                        const int64_t *dims, fr_type *type, fr_layout *layout)
{
    *type = from;
    *layout = FR_LAYOUT_PLAIN;
    int64_t rows = n_dims > 1 ? dims[1] : 1;
    bool is_router = strstr(name, "ffn_gate_inp") != NULL; /* small and sensitive: stays */
    bool kept = j->v->keep && strstr(name, j->v->keep);
    if (!j->v->retype || n_dims < 2 || is_router || kept)
        return;
    bool lookup = strcmp(name, "token_embd.weight") == 0; /* read row by row: never interleaved */
    fr_layout want = lookup ? FR_LAYOUT_PLAIN : j->v->layout;
    if (fr_type_check(j->v->type, want, rows, dims[0], NULL) == FR_OK) {
        *type = j->v->type;
        *layout = want;
    }
}

/* One tensor from its float values: declared in the first pass, written in the second. */
static fr_status put(job *j, const char *name, fr_type from, int n_dims, const int64_t *dims,
                     const float *values)
{
    fr_type type;
    fr_layout layout;
    choose_type(j, name, from, n_dims, dims, &type, &layout);
    if (j->adding)
        return fr_gguf_add_tensor(j->w, name, type, layout, n_dims, dims, j->err);
    int64_t cols = dims[0], rows = 1;
    for (int i = 1; i < n_dims; i++)
        rows *= dims[i];
    size_t row_bytes = fr_row_bytes(type, FR_LAYOUT_PLAIN, cols);
    uint8_t *plain = calloc((size_t)rows, row_bytes), *out = plain;
    for (int64_t r = 0; r < rows; r++)
        fr_encode_row(type, values + r * cols, cols, NULL, plain + (size_t)r * row_bytes);
    fr_status st = FR_OK;
    size_t bytes = (size_t)rows * row_bytes;
    if (layout == FR_LAYOUT_INTERLEAVED) {
        bytes = (size_t)rows * fr_row_bytes(type, layout, cols);
        out = calloc(1, bytes);
        st = fr_repack(type, FR_LAYOUT_PLAIN, layout, rows, cols, plain, out, j->err);
    }
    if (st == FR_OK)
        st = fr_gguf_write_data(j->w, out, bytes, j->err);
    if (out != plain)
        free(out);
    free(plain);
    return st;
}

static float *decode_all(const fr_gguf *g, const fr_gguf_tensor *t)
{
    int64_t cols = t->dims[0], rows = t->dims[1] * t->dims[2] * t->dims[3];
    float *values = malloc((size_t)(cols * rows) * sizeof *values);
    const void *data = fr_gguf_tensor_data(g, t);
    for (int64_t r = 0; r < rows; r++)
        fr_decode_row(t->type, t->layout, data, r, cols, values + r * cols);
    return values;
}

/* k_b[h][r][c] = kv_b[h * (nope + v) + c][r];  v_b[h][r] = kv_b[h * (nope + v) + nope + r] */
static fr_status put_split(job *j, const fr_gguf_tensor *t, const float *kv_b)
{
    char name[96];
    int layer = atoi(t->name + 4);
    int64_t step = j->nope + j->v_head;
    float *k_b = malloc((size_t)(j->heads * j->lora * j->nope) * sizeof *k_b);
    float *v_b = malloc((size_t)(j->heads * j->v_head * j->lora) * sizeof *v_b);
    for (int64_t h = 0; h < j->heads; h++) {
        for (int64_t r = 0; r < j->lora; r++)
            for (int64_t c = 0; c < j->nope; c++)
                k_b[(h * j->lora + r) * j->nope + c] = kv_b[(h * step + c) * j->lora + r];
        memcpy(v_b + h * j->v_head * j->lora, kv_b + (h * step + j->nope) * j->lora,
               (size_t)(j->v_head * j->lora) * sizeof *v_b);
    }
    snprintf(name, sizeof name, "blk.%d.attn_k_b.weight", layer);
    int64_t k_dims[] = {j->nope, j->lora * (j->v->flat_k_b ? j->heads : 1), j->heads};
    fr_status st = put(j, name, t->type, j->v->flat_k_b ? 2 : 3, k_dims, k_b);
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", layer);
    int64_t v_dims[] = {j->lora, j->v_head, j->heads};
    if (st == FR_OK)
        st = put(j, name, t->type, 3, v_dims, v_b);
    free(k_b);
    free(v_b);
    return st;
}

/* A tensor that stays as it is. */
static fr_status copy(job *j, const fr_gguf_tensor *t)
{
    if (j->adding)
        return fr_gguf_add_tensor(j->w, t->name, t->type, t->layout, t->n_dims, t->dims, j->err);
    return fr_gguf_write_data(j->w, fr_gguf_tensor_data(j->g, t), t->bytes, j->err);
}

static fr_status put_tensors(job *j)
{
    for (size_t i = 0; i < fr_gguf_n_tensors(j->g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(j->g, i);
        bool split = j->v->split_kv_b && strstr(t->name, ".attn_kv_b.");
        fr_type type;
        fr_layout layout;
        choose_type(j, t->name, t->type, t->n_dims, t->dims, &type, &layout);
        if (!split && type == t->type && layout == t->layout) {
            FR_TRY(copy(j, t));
            continue;
        }
        float *values = decode_all(j->g, t);
        fr_status st = FR_OK;
        if (!split || j->v->keep_kv_b)
            st = put(j, t->name, t->type, t->n_dims, t->dims, values);
        if (st == FR_OK && split)
            st = put_split(j, t, values);
        free(values);
        FR_TRY(st);
    }
    return FR_OK;
}

static fr_status read_shape(job *j)
{
    int64_t key = 0, rope = 0;
    FR_TRY(fr_gguf_get_i64(j->g, "deepseek2.attention.head_count", &j->heads, j->err));
    FR_TRY(fr_gguf_get_i64(j->g, "deepseek2.attention.kv_lora_rank", &j->lora, j->err));
    FR_TRY(fr_gguf_get_i64(j->g, "deepseek2.attention.key_length", &key, j->err));
    FR_TRY(fr_gguf_get_i64(j->g, "deepseek2.rope.dimension_count", &rope, j->err));
    FR_TRY(fr_gguf_get_i64(j->g, "deepseek2.attention.value_length", &j->v_head, j->err));
    j->nope = key - rope;
    return FR_OK;
}

static fr_status write_all(job *j)
{
    FR_TRY(read_shape(j));
    FR_TRY(put_metadata(j));
    j->adding = true;
    FR_TRY(put_tensors(j));
    FR_TRY(fr_gguf_write_header(j->w, j->err));
    j->adding = false;
    return put_tensors(j);
}

fr_status model_write_variant(const char *source, const model_variant *v, const char *path,
                              fr_err *err)
{
    fr_gguf *g = NULL;
    job j = {.v = v, .err = err};
    FR_TRY(fr_gguf_open(source, 0, &g, err));
    fr_status st = fr_gguf_writer_create(path, &j.w, err);
    if (st == FR_OK) {
        j.g = g;
        st = write_all(&j);
        fr_status closed = fr_gguf_writer_close(j.w, st == FR_OK, st == FR_OK ? err : NULL);
        st = st == FR_OK ? closed : st;
    }
    fr_gguf_close(g);
    return st;
}
