/* GGUF files, versions 2 and 3, little endian: a reader that trusts nothing, and a writer.
 *
 * The reader parses the header of one file or of a split set (NAME-00001-of-0000N.gguf: name the
 * first), checks every length against the real size of the file before it is used, and leaves the
 * tensor data where it is. Source: the GGUF specification of the ggml project. */
#ifndef FR_GGUF_GGUF_H
#define FR_GGUF_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "quant/qtype.h"

typedef enum {
    FR_GGUF_U8,
    FR_GGUF_I8,
    FR_GGUF_U16,
    FR_GGUF_I16,
    FR_GGUF_U32,
    FR_GGUF_I32,
    FR_GGUF_F32,
    FR_GGUF_BOOL,
    FR_GGUF_STR,
    FR_GGUF_ARRAY,
    FR_GGUF_U64,
    FR_GGUF_I64,
    FR_GGUF_F64
} fr_gguf_type; /* numbered as in the file */

/* A value inside the file's bytes. Array elements are read with fr_gguf_elem_*; nested arrays are
 * validated and kept, and can be walked with fr_gguf_elem_array. */
typedef struct {
    fr_gguf_type type; /* of the value, or of the elements when is_array */
    bool is_array;
    uint64_t n;           /* elements; 1 for a scalar */
    const uint8_t *bytes; /* first element's bytes */
    const uint64_t *at; /* for strings and nested arrays: byte offset of each element; else NULL */
} fr_gguf_value;

typedef struct {
    fr_str key;
    fr_gguf_value value;
} fr_gguf_kv;

enum { FR_GGUF_MAX_DIMS = 4 };

typedef struct {
    const char *name; /* terminated */
    int n_dims;
    int64_t dims[FR_GGUF_MAX_DIMS]; /* dims[0] = cols; unused ones are 1 */
    fr_type type;
    fr_layout layout;
    uint64_t offset; /* of the data, from the start of its file */
    uint64_t bytes;
    int i_file; /* which file of a split set */
} fr_gguf_tensor;

typedef struct fr_gguf fr_gguf;

enum {
    FR_GGUF_HEADERS_ONLY = 1, /* the tensor data may be missing; fr_gguf_tensor_data is NULL */
    FR_GGUF_NO_MMAP = 2       /* map nothing; data is read with fr_gguf_read_tensor */
};

/* Opens and checks `path`. On success *out is owned by the caller until fr_gguf_close; everything
 * that the getters return lives as long. FR_EFORMAT texts name file, key or tensor, and byte
 * offset. */
fr_status fr_gguf_open(const char *path, unsigned flags, fr_gguf **out, fr_err *err);
void fr_gguf_close(fr_gguf *g);

int fr_gguf_version(const fr_gguf *g);
uint64_t fr_gguf_alignment(const fr_gguf *g);
bool fr_gguf_has_data(const fr_gguf *g); /* false after HEADERS_ONLY, or when data is missing */
int fr_gguf_n_files(const fr_gguf *g);
const char *fr_gguf_path(const fr_gguf *g, int i_file);
const fr_file *fr_gguf_file(const fr_gguf *g, int i_file); /* open; NULL after HEADERS_ONLY */

/* Metadata, in file order (split sets: of the first file). */
size_t fr_gguf_n_kv(const fr_gguf *g);
const fr_gguf_kv *fr_gguf_kv_at(const fr_gguf *g, size_t i);
const fr_gguf_value *fr_gguf_find(const fr_gguf *g, const char *key); /* NULL when absent */

/* Typed look-up. Any integer type that holds the value is accepted where an integer is wanted; any
 * number for a float. FR_ENOTFOUND when absent, FR_EFORMAT when of another type or out of range. */
fr_status fr_gguf_get_i64(const fr_gguf *g, const char *key, int64_t *out, fr_err *err);
fr_status fr_gguf_get_u32(const fr_gguf *g, const char *key, uint32_t *out, fr_err *err);
fr_status fr_gguf_get_f32(const fr_gguf *g, const char *key, float *out, fr_err *err);
fr_status fr_gguf_get_bool(const fr_gguf *g, const char *key, bool *out, fr_err *err);
fr_status fr_gguf_get_str(const fr_gguf *g, const char *key, fr_str *out, fr_err *err);
/* The array itself, whose elements must be strings (want_strings) or numbers and bools. */
fr_status fr_gguf_get_array(const fr_gguf *g, const char *key, bool want_strings,
                            const fr_gguf_value **out, fr_err *err);

/* "u32", "string" and so on; never NULL. */
const char *fr_gguf_type_name(fr_gguf_type type);

/* Element i of an array value, or a scalar with i = 0; the wrong kind, or i >= n, gives 0, 0.0, an
 * empty string or an empty array. fr_gguf_elem_i64 takes integers and bools (a u64 above INT64_MAX
 * comes as the same 64 bits), fr_gguf_elem_f64 floats too. */
fr_str fr_gguf_elem_str(const fr_gguf_value *v, uint64_t i);
int64_t fr_gguf_elem_i64(const fr_gguf_value *v, uint64_t i);
double fr_gguf_elem_f64(const fr_gguf_value *v, uint64_t i);
fr_gguf_value fr_gguf_elem_array(const fr_gguf_value *v, uint64_t i);

/* Tensors of all files of the set, in file order. */
size_t fr_gguf_n_tensors(const fr_gguf *g);
const fr_gguf_tensor *fr_gguf_tensor_at(const fr_gguf *g, size_t i);
const fr_gguf_tensor *fr_gguf_find_tensor(const fr_gguf *g,
                                          const char *name); /* NULL when absent */

/* The mapped bytes of a tensor, or NULL (headers only, or no mmap). */
const void *fr_gguf_tensor_data(const fr_gguf *g, const fr_gguf_tensor *t);

/* Reads bytes [from, from + n) of a tensor's data into dst, mapped or not. Any thread. */
fr_status fr_gguf_read_tensor(const fr_gguf *g, const fr_gguf_tensor *t, uint64_t from, size_t n,
                              void *dst, fr_err *err);

#endif
