/* Writing GGUF version 3 files. The bytes go to a temporary name and are renamed at the end, so
 * that no half-written file is left behind.
 *
 * Order of calls: create; keys and tensors in any order; fr_gguf_write_header; then the data of
 * every tensor in the order in which they were added (fr_gguf_write_data may be called several
 * times for one tensor); close. Any failure: close with commit = false. */
#ifndef FR_GGUF_GGUF_WRITER_H
#define FR_GGUF_GGUF_WRITER_H

#include "gguf/gguf.h"

typedef struct fr_gguf_writer fr_gguf_writer;

fr_status fr_gguf_writer_create(const char *path, fr_gguf_writer **out, fr_err *err);

fr_status fr_gguf_put_u32(fr_gguf_writer *w, const char *key, uint32_t v, fr_err *err);
fr_status fr_gguf_put_u64(fr_gguf_writer *w, const char *key, uint64_t v, fr_err *err);
fr_status fr_gguf_put_i32(fr_gguf_writer *w, const char *key, int32_t v, fr_err *err);
fr_status fr_gguf_put_f32(fr_gguf_writer *w, const char *key, float v, fr_err *err);
fr_status fr_gguf_put_bool(fr_gguf_writer *w, const char *key, bool v, fr_err *err);
fr_status fr_gguf_put_str(fr_gguf_writer *w, const char *key, fr_str v, fr_err *err);
/* A value of any kind, copied from a reader: scalars, arrays, nested arrays. Replaces an earlier
 * value of the same key, as all put functions do. Values of numbers may also be made by hand: type,
 * is_array, n, and the little-endian elements at bytes; arrays of strings too: each its length (8
 * bytes) and its bytes, and where it starts in `at`. */
fr_status fr_gguf_put_value(fr_gguf_writer *w, const char *key, const fr_gguf_value *v,
                            fr_err *err);
/* All keys of g except those in the NULL-terminated list `except` (may be NULL). Who joins a split
 * set leaves out split.no, split.count and split.tensors.count. */
fr_status fr_gguf_put_all(fr_gguf_writer *w, const fr_gguf *g, const char *const *except,
                          fr_err *err);

/* Adds a tensor; its size follows from type, layout and dims. FR_EINVAL for a duplicate name or bad
 * dims. */
fr_status fr_gguf_add_tensor(fr_gguf_writer *w, const char *name, fr_type type, fr_layout layout,
                             int n_dims, const int64_t *dims, fr_err *err);

fr_status fr_gguf_write_header(fr_gguf_writer *w, fr_err *err);
/* More data, of the current tensor; padding between tensors is inserted. FR_EINVAL when it is too
 * much. */
fr_status fr_gguf_write_data(fr_gguf_writer *w, const void *bytes, size_t n, fr_err *err);

/* Ends the writer. With commit: checks that all data came, pads, syncs, renames. Frees w always. */
fr_status fr_gguf_writer_close(fr_gguf_writer *w, bool commit, fr_err *err);

#endif
