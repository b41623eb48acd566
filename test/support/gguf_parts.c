#include "support/gguf_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf.h"

enum { ALIGNMENT = 32 };

static void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "test support: memory exhausted or file damaged\n");
        abort();
    }
    return p;
}

static char *copy_text(const char *s, size_t n)
{
    char *p = need(malloc(n + 1));
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

/* ---- bytes
 * ---------------------------------------------------------------------------------------------- */

void parts_bytes_resize(parts_bytes *b, size_t n)
{
    if (n > b->cap || !b->p) {
        b->cap = n + n / 2 + 64;
        b->p = need(realloc(b->p, b->cap));
    }
    if (n > b->n)
        memset(b->p + b->n, 0, n - b->n);
    b->n = n;
}

void parts_bytes_add(parts_bytes *b, const void *bytes, size_t n)
{
    size_t at = b->n;
    parts_bytes_resize(b, at + n);
    if (n)
        memcpy(b->p + at, bytes, n);
}

void parts_bytes_free(parts_bytes *b)
{
    free(b->p);
    *b = (parts_bytes){0};
}

static parts_bytes copy_bytes(const parts_bytes *b)
{
    parts_bytes out = {0};
    parts_bytes_add(&out, b->p, b->n);
    return out;
}

static void add_u32(parts_bytes *b, uint32_t v)
{
    parts_bytes_add(b, &v, sizeof v);
}

static void add_u64(parts_bytes *b, uint64_t v)
{
    parts_bytes_add(b, &v, sizeof v);
}

static void add_str(parts_bytes *b, const char *s, size_t n)
{
    add_u64(b, n);
    parts_bytes_add(b, s, n);
}

/* ---- taking apart
 * --------------------------------------------------------------------------------------- */

static size_t scalar_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

/* A reader's value as the file's bytes. */
static void add_value(parts_bytes *b, const fr_gguf_value *v)
{
    if (v->is_array) {
        add_u32(b, v->type);
        add_u64(b, v->n);
    }
    for (uint64_t i = 0; i < v->n; i++) {
        fr_str s = v->type == FR_GGUF_STR ? fr_gguf_elem_str(v, i) : (fr_str){0};
        fr_gguf_value inner;
        if (v->type == FR_GGUF_STR) {
            add_str(b, s.p, s.n);
        } else if (v->type == FR_GGUF_ARRAY) {
            inner = fr_gguf_elem_array(v, i);
            add_value(b, &inner);
        } else {
            parts_bytes_add(b, v->bytes + i * scalar_bytes(v->type), scalar_bytes(v->type));
        }
    }
}

static void load_tensor(const fr_gguf *g, const fr_gguf_tensor *from, parts_tensor *t)
{
    *t = (parts_tensor){.name = copy_text(from->name, strlen(from->name))};
    const fr_type_info *info = fr_type_get(from->type);
    t->type = (uint32_t)(from->layout == FR_LAYOUT_PLAIN ? info->gguf_id : info->il_gguf_id);
    t->n_dims = (uint32_t)from->n_dims;
    for (int i = 0; i < 4; i++)
        t->dims[i] = (uint64_t)from->dims[i];
    parts_bytes_add(&t->data, fr_gguf_tensor_data(g, from), from->bytes);
}

gguf_parts parts_load(const char *path)
{
    gguf_parts p = {0};
    fr_gguf *g = NULL;
    fr_err err = {0};
    if (fr_gguf_open(path, 0, &g, &err) != FR_OK)
        fprintf(stderr, "%s\n", err.text);
    need(g);
    p.n_keys = fr_gguf_n_kv(g);
    p.keys = need(calloc(p.n_keys + 1, sizeof *p.keys));
    for (size_t i = 0; i < p.n_keys; i++) {
        const fr_gguf_kv *kv = fr_gguf_kv_at(g, i);
        p.keys[i].name = copy_text(kv->key.p, kv->key.n);
        p.keys[i].type = kv->value.is_array ? FR_GGUF_ARRAY : kv->value.type;
        add_value(&p.keys[i].value, &kv->value);
    }
    p.n_tensors = fr_gguf_n_tensors(g);
    p.tensors = need(calloc(p.n_tensors + 1, sizeof *p.tensors));
    for (size_t i = 0; i < p.n_tensors; i++)
        load_tensor(g, fr_gguf_tensor_at(g, i), &p.tensors[i]);
    fr_gguf_close(g);
    return p;
}

gguf_parts parts_copy(const gguf_parts *p)
{
    gguf_parts c = {.n_keys = p->n_keys, .n_tensors = p->n_tensors};
    c.keys = need(calloc(p->n_keys + 1, sizeof *c.keys));
    c.tensors = need(calloc(p->n_tensors + 1, sizeof *c.tensors));
    for (size_t i = 0; i < p->n_keys; i++) {
        c.keys[i] = p->keys[i];
        c.keys[i].name = copy_text(p->keys[i].name, strlen(p->keys[i].name));
        c.keys[i].value = copy_bytes(&p->keys[i].value);
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        c.tensors[i] = p->tensors[i];
        c.tensors[i].name = copy_text(p->tensors[i].name, strlen(p->tensors[i].name));
        c.tensors[i].data = copy_bytes(&p->tensors[i].data);
    }
    return c;
}

static void free_key(parts_key *k)
{
    free(k->name);
    parts_bytes_free(&k->value);
}

static void free_tensor(parts_tensor *t)
{
    free(t->name);
    parts_bytes_free(&t->data);
}

void parts_free(gguf_parts *p)
{
    for (size_t i = 0; i < p->n_keys; i++)
        free_key(&p->keys[i]);
    for (size_t i = 0; i < p->n_tensors; i++)
        free_tensor(&p->tensors[i]);
    free(p->keys);
    free(p->tensors);
    *p = (gguf_parts){0};
}

/* ---- putting together
 * ----------------------------------------------------------------------------------- */

static void pad(parts_bytes *b)
{
    parts_bytes_resize(b, (b->n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

void parts_write(const gguf_parts *p, parts_bytes *out, size_t *header_bytes)
{
    uint64_t offset = 0;
    parts_bytes_add(out, "GGUF", 4);
    add_u32(out, 3);
    add_u64(out, p->n_tensors);
    add_u64(out, p->n_keys);
    for (size_t i = 0; i < p->n_keys; i++) {
        add_str(out, p->keys[i].name, strlen(p->keys[i].name));
        add_u32(out, p->keys[i].type);
        parts_bytes_add(out, p->keys[i].value.p, p->keys[i].value.n);
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        const parts_tensor *t = &p->tensors[i];
        add_str(out, t->name, strlen(t->name));
        add_u32(out, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++)
            add_u64(out, d < 4 ? t->dims[d] : 1);
        add_u32(out, t->type);
        add_u64(out, offset);
        offset += (t->data.n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    if (header_bytes)
        *header_bytes = out->n;
    pad(out);
    for (size_t i = 0; i < p->n_tensors; i++) {
        parts_bytes_add(out, p->tensors[i].data.p, p->tensors[i].data.n);
        pad(out);
    }
}

void parts_save(const gguf_parts *p, const char *path)
{
    parts_bytes b = {0};
    parts_write(p, &b, NULL);
    FILE *f = need(fopen(path, "wb"));
    bool ok = fwrite(b.p, 1, b.n, f) == b.n;
    need(fclose(f) == 0 && ok ? f : NULL);
    parts_bytes_free(&b);
}

/* ---- keys
 * -----------------------------------------------------------------------------------------------
 */

parts_key *parts_find_key(const gguf_parts *p, const char *name)
{
    for (size_t i = 0; i < p->n_keys; i++)
        if (strcmp(p->keys[i].name, name) == 0)
            return &p->keys[i];
    return NULL;
}

void parts_put(gguf_parts *p, const char *name, uint32_t type, const void *value, size_t n)
{
    parts_key *k = parts_find_key(p, name);
    if (!k) {
        p->keys = need(realloc(p->keys, (p->n_keys + 2) * sizeof *p->keys));
        k = &p->keys[p->n_keys++];
        *k = (parts_key){.name = copy_text(name, strlen(name))};
    }
    k->type = type;
    k->value.n = 0;
    parts_bytes_add(&k->value, value, n);
}

void parts_put_u32(gguf_parts *p, const char *name, uint32_t v)
{
    parts_put(p, name, FR_GGUF_U32, &v, sizeof v);
}

void parts_put_f32(gguf_parts *p, const char *name, float v)
{
    parts_put(p, name, FR_GGUF_F32, &v, sizeof v);
}

void parts_put_bool(gguf_parts *p, const char *name, bool v)
{
    uint8_t byte = v;
    parts_put(p, name, FR_GGUF_BOOL, &byte, 1);
}

void parts_put_str(gguf_parts *p, const char *name, const char *v)
{
    parts_bytes b = {0};
    add_str(&b, v, strlen(v));
    parts_put(p, name, FR_GGUF_STR, b.p, b.n);
    parts_bytes_free(&b);
}

void parts_drop_key(gguf_parts *p, const char *name)
{
    parts_key *k = need(parts_find_key(p, name));
    free_key(k);
    memmove(k, k + 1, (size_t)(p->keys + --p->n_keys - k) * sizeof *k);
}

uint32_t parts_u32(const gguf_parts *p, const char *name)
{
    const parts_key *k = need(parts_find_key(p, name));
    uint32_t v;
    memcpy(&v, need(k->type == FR_GGUF_U32 ? k->value.p : NULL), sizeof v);
    return v;
}

/* ---- tensors
 * -------------------------------------------------------------------------------------------- */

parts_tensor *parts_find_tensor(const gguf_parts *p, const char *name)
{
    for (size_t i = 0; i < p->n_tensors; i++)
        if (strcmp(p->tensors[i].name, name) == 0)
            return &p->tensors[i];
    return NULL;
}

static uint32_t type_id(fr_type type, fr_layout layout)
{
    const fr_type_info *info = fr_type_get(type);
    return (uint32_t)(layout == FR_LAYOUT_PLAIN ? info->gguf_id : info->il_gguf_id);
}

parts_tensor *parts_add_tensor(gguf_parts *p, const char *name, fr_type type, fr_layout layout,
                               int n_dims, const int64_t *dims)
{
    p->tensors = need(realloc(p->tensors, (p->n_tensors + 2) * sizeof *p->tensors));
    parts_tensor *t = &p->tensors[p->n_tensors++];
    *t = (parts_tensor){.name = copy_text(name, strlen(name)),
                        .n_dims = (uint32_t)n_dims,
                        .type = type_id(type, layout),
                        .dims = {1, 1, 1, 1}};
    for (int i = 0; i < n_dims; i++)
        t->dims[i] = (uint64_t)dims[i];
    size_t bytes = parts_tensor_bytes(t);
    need(bytes == SIZE_MAX ? NULL : t);
    parts_bytes_resize(&t->data, bytes);
    return t;
}

void parts_drop_tensor(gguf_parts *p, const char *name)
{
    parts_tensor *t = need(parts_find_tensor(p, name));
    free_tensor(t);
    memmove(t, t + 1, (size_t)(p->tensors + --p->n_tensors - t) * sizeof *t);
}

void parts_rename_tensor(gguf_parts *p, const char *from, const char *to)
{
    parts_tensor *t = need(parts_find_tensor(p, from));
    free(t->name);
    t->name = copy_text(to, strlen(to));
}

bool parts_type(const parts_tensor *t, fr_type *type, fr_layout *layout)
{
    return fr_type_from_gguf(t->type, type, layout);
}

/* All rows of all matrices, or 0 when there are more than a test can have. */
static int64_t count_rows(const parts_tensor *t)
{
    uint64_t rows = 1;
    for (uint32_t i = 1; i < t->n_dims && i < 4; i++)
        if (__builtin_mul_overflow(rows, t->dims[i], &rows) || rows > 1 << 30)
            return 0;
    return t->dims[0] > 1 << 30 ? 0 : (int64_t)rows;
}

size_t parts_tensor_bytes(const parts_tensor *t)
{
    fr_type type;
    fr_layout layout;
    int64_t rows = count_rows(t), cols = (int64_t)t->dims[0];
    if (rows < 1 || cols < 1 || !parts_type(t, &type, &layout) ||
        fr_type_check(type, layout, rows, cols, NULL) != FR_OK)
        return SIZE_MAX;
    return (size_t)rows * fr_row_bytes(type, layout, cols);
}

void parts_set_values(parts_tensor *t, const float *values)
{
    fr_type type;
    fr_layout layout;
    need(parts_type(t, &type, &layout) && fr_type_can_encode(type) ? t : NULL);
    int64_t rows = count_rows(t), cols = (int64_t)t->dims[0];
    size_t row_bytes = fr_row_bytes(type, FR_LAYOUT_PLAIN, cols);
    uint8_t *plain = need(calloc((size_t)rows, row_bytes));
    for (int64_t r = 0; r < rows; r++)
        fr_encode_row(type, values + r * cols, cols, NULL, plain + (size_t)r * row_bytes);
    parts_bytes_resize(&t->data, parts_tensor_bytes(t));
    if (layout == FR_LAYOUT_PLAIN)
        memcpy(t->data.p, plain, t->data.n);
    else if (fr_repack(type, FR_LAYOUT_PLAIN, layout, rows, cols, plain, t->data.p, NULL) != FR_OK)
        need(NULL);
    free(plain);
}

float *parts_get_values(const parts_tensor *t)
{
    fr_type type;
    fr_layout layout;
    need(parts_type(t, &type, &layout) ? t->data.p : NULL);
    int64_t rows = count_rows(t), cols = (int64_t)t->dims[0];
    float *values = need(calloc((size_t)rows, (size_t)cols * sizeof *values));
    for (int64_t r = 0; r < rows; r++)
        fr_decode_row(type, layout, t->data.p, r, cols, values + r * cols);
    return values;
}

void parts_retype(parts_tensor *t, fr_type type, fr_layout layout)
{
    float *values = parts_get_values(t);
    t->type = type_id(type, layout);
    t->data.n = 0;
    parts_set_values(t, values);
    free(values);
}
