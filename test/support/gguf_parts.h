/* GGUF files taken apart, for tests that need a model with something changed or broken: keys with
 * the raw bytes of their values, tensors with their raw data. Nothing is checked when it is put
 * together again. Memory comes from malloc, so that neither leak counts nor injected failures of
 * base/mem.h see it; the process aborts when there is none. */
#ifndef FR_TEST_GGUF_PARTS_H
#define FR_TEST_GGUF_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/qtype.h"

/* A growable block; {0} is empty. */
typedef struct {
    uint8_t *p;
    size_t n, cap;
} parts_bytes;

void parts_bytes_add(parts_bytes *b, const void *bytes, size_t n);
void parts_bytes_resize(parts_bytes *b, size_t n); /* new bytes are 0 */
void parts_bytes_free(parts_bytes *b);

typedef struct {
    char *name;
    uint32_t type;     /* fr_gguf_type as the file has it */
    parts_bytes value; /* all that follows the type */
} parts_key;

typedef struct {
    char *name;
    uint32_t n_dims, type; /* type: GGUF id */
    uint64_t dims[4];
    parts_bytes data;
} parts_tensor;

typedef struct {
    parts_key *keys;
    size_t n_keys;
    parts_tensor *tensors;
    size_t n_tensors;
} gguf_parts;

/* A right file of one part, alignment 32. */
gguf_parts parts_load(const char *path);
gguf_parts parts_copy(const gguf_parts *p);
void parts_free(gguf_parts *p);

/* The file's bytes, appended to *out; *header_bytes (or NULL): where the padding before the data
 * begins. */
void parts_write(const gguf_parts *p, parts_bytes *out, size_t *header_bytes);
void parts_save(const gguf_parts *p, const char *path);

/* ---- keys: put replaces or adds; the value is raw */
parts_key *parts_find_key(const gguf_parts *p, const char *name); /* NULL when absent */
void parts_put(gguf_parts *p, const char *name, uint32_t type, const void *value, size_t n);
void parts_put_u32(gguf_parts *p, const char *name, uint32_t v);
void parts_put_f32(gguf_parts *p, const char *name, float v);
void parts_put_bool(gguf_parts *p, const char *name, bool v);
void parts_put_str(gguf_parts *p, const char *name, const char *v);
void parts_drop_key(gguf_parts *p, const char *name);
uint32_t parts_u32(const gguf_parts *p, const char *name); /* of a u32 key that is there */

/* ---- tensors */
parts_tensor *parts_find_tensor(const gguf_parts *p, const char *name); /* NULL when absent */
parts_tensor *parts_add_tensor(gguf_parts *p, const char *name, fr_type type, fr_layout layout,
                               int n_dims, const int64_t *dims); /* with zero data */
void parts_drop_tensor(gguf_parts *p, const char *name);
void parts_rename_tensor(gguf_parts *p, const char *from, const char *to);

/* The tensor's type; false when the registry does not know its id. */
bool parts_type(const parts_tensor *t, fr_type *type, fr_layout *layout);
/* Bytes that its type and dims ask for, or SIZE_MAX when they cannot be stored. */
size_t parts_tensor_bytes(const parts_tensor *t);
/* Encodes values (all rows) into the tensor's data: an encodable type, plain or interleaved. */
void parts_set_values(parts_tensor *t, const float *values);
/* Decodes all rows; free with free. */
float *parts_get_values(const parts_tensor *t);
/* Gives a tensor another type, keeping its values. */
void parts_retype(parts_tensor *t, fr_type type, fr_layout layout);

#endif
