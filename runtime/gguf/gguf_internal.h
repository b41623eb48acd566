/* What the files of this box share. Not for other boxes. */
#ifndef FR_GGUF_GGUF_INTERNAL_H
#define FR_GGUF_GGUF_INTERNAL_H

#include "base/arena.h"
#include "gguf/gguf.h"

enum {
    GGUF_MAX_KEY_BYTES = 65535,      /* the specification's limit */
    GGUF_MAX_NAME_BYTES = 64,        /* of a tensor; likewise */
    GGUF_MAX_KEYS = 1 << 16,         /* the largest known models have under 100 */
    GGUF_MAX_TENSORS = 1 << 20,      /* likewise 75,000, with one tensor per expert */
    GGUF_MAX_DEPTH = 8,              /* of arrays in arrays */
    GGUF_MAX_HEADER_BYTES = 1 << 28, /* the largest known headers have 20 MB */
    GGUF_MIN_ALIGNMENT = 8,          /* the specification's limit */
    GGUF_MAX_ALIGNMENT = 16 << 20,
    GGUF_DEFAULT_ALIGNMENT = 32,
    GGUF_VALUE_TYPES = FR_GGUF_F64 + 1
};

#define GGUF_ALIGNMENT_KEY "general.alignment"

/* Names -> indices of an array elsewhere, whose i-th name a function tells. {0} is empty. */
typedef struct {
    uint32_t *slots; /* index + 1, or 0; open addressing; owned */
    size_t n_slots;  /* 0 or a power of two, at least twice n */
    size_t n;
} gguf_index;

typedef fr_str (*gguf_name_fn)(const void *items, size_t i);

/* Adds item i, or reports in *other the item (below i) that has the same name; *other = i when new.
 */
fr_status gguf_index_add(gguf_index *x, const void *items, gguf_name_fn name, size_t i,
                         size_t *other, fr_err *err);
bool gguf_index_find(const gguf_index *x, const void *items, gguf_name_fn name, fr_str wanted,
                     size_t *i);
void gguf_index_free(gguf_index *x);
fr_str gguf_kv_name(const void *kvs, size_t i);
fr_str gguf_tensor_name(const void *tensors, size_t i);

/* One file of a set. The header is read into memory of our own, never mapped: what was checked
 * cannot change under us. */
typedef struct {
    char *path; /* owned by the arena */
    fr_file file;
    uint8_t *header; /* the first header_cap bytes of the file; owned */
    size_t header_cap;
    uint64_t header_end, data_start, alignment;
    uint32_t version;
    fr_gguf_kv *kvs; /* owned; keys and values point into header */
    size_t n_kv, kv_cap;
    gguf_index keys;
} gguf_file;

struct fr_gguf {
    fr_arena arena; /* paths, tensor names, tables of array elements */
    unsigned flags;
    gguf_file *files;
    size_t n_files, file_cap;
    fr_gguf_tensor *tensors;
    size_t n_tensors, tensor_cap;
    gguf_index names;
};

/* What a part of a set must say of itself. */
typedef struct {
    int64_t no, count; /* from 0; parts of the set */
    int64_t n_tensors; /* of all parts together; -1 when the first part does not say */
} gguf_part;

/* Opens `path` as the next file of g, reads its header and adds its keys and tensors. `part` is
 * NULL for the file that the user named. */
fr_status gguf_add_file(fr_gguf *g, const char *path, const gguf_part *part, fr_err *err);

/* Whether the keys of f fit; called before its tensors are read. */
fr_status gguf_check_part(const gguf_file *first, const gguf_file *f, const gguf_part *part,
                          fr_err *err);

/* Opens the other files of the set that file 0 begins, when it begins one. */
fr_status gguf_add_split_files(fr_gguf *g, fr_err *err);

/* Checks where the data of the tensors [first, n_tensors), all of the file i_file, stand. */
fr_status gguf_check_extents(const fr_gguf *g, size_t first, size_t i_file, fr_err *err);

/* The value of `key` in one file, or NULL. */
const fr_gguf_value *gguf_file_find(const gguf_file *f, const char *key);

/* Bytes of a value of this type, or 0 for strings, arrays and unknown types. */
size_t gguf_type_bytes(uint32_t type);
bool gguf_type_is_int(fr_gguf_type type);

/* Bytes that a value's elements take in the file. For values that passed the reader's checks. */
size_t gguf_value_span(const fr_gguf_value *v);

uint32_t gguf_load_u32(const uint8_t *p);
uint64_t gguf_load_u64(const uint8_t *p);

/* NULL when the bytes can be a key or a name of at most `max` bytes; otherwise what is wrong. */
const char *gguf_name_fault(fr_str s, size_t max);

/* The text with control characters and bytes that are not UTF-8 as \xNN, cut to fit, for error
 * texts. */
enum { GGUF_QUOTED_BYTES = 100 };
const char *gguf_quote(fr_str s, char out[GGUF_QUOTED_BYTES]);

/* Rounds up to a multiple of a power of two; x must be below 2^63. */
static inline uint64_t gguf_align(uint64_t x, uint64_t alignment)
{
    return (x + alignment - 1) & ~(alignment - 1);
}

/* Total bytes of a matrix or stack of matrices. When the dims cannot be, *err says why, without the
 * tensor's name. Every dims[i] must be >= 1. */
fr_status gguf_tensor_bytes(fr_type type, fr_layout layout, const int64_t dims[FR_GGUF_MAX_DIMS],
                            uint64_t *bytes, fr_err *err);

#endif
