/* GGUF files byte by byte, right and wrong, for the tests of the reader; and files that live in
 * memory. */
#ifndef FR_TEST_GGUF_BUILD_H
#define FR_TEST_GGUF_BUILD_H

#include <sys/mman.h>
#include <unistd.h>

#include "gguf/gguf.h"
#include "testing.h"

static inline void build_raw(fr_buf *b, const void *bytes, size_t n)
{
    assert_int_equal(fr_buf_add(b, bytes, n, NULL), FR_OK);
}

static inline void build_u32(fr_buf *b, uint32_t v)
{
    build_raw(b, &v, 4);
}

static inline void build_u64(fr_buf *b, uint64_t v)
{
    build_raw(b, &v, 8);
}

static inline void build_str(fr_buf *b, const char *s)
{
    build_u64(b, strlen(s));
    build_raw(b, s, strlen(s));
}

static inline void build_head(fr_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    build_raw(b, "GGUF", 4);
    build_u32(b, version);
    build_u64(b, n_tensors);
    build_u64(b, n_kv);
}

/* The key and the type; the value follows. */
static inline void build_key(fr_buf *b, const char *key, uint32_t type)
{
    build_str(b, key);
    build_u32(b, type);
}

static inline void build_key_u32(fr_buf *b, const char *key, uint32_t v)
{
    build_key(b, key, FR_GGUF_U32);
    build_u32(b, v);
}

/* An array's element type and count; the elements follow. */
static inline void build_array(fr_buf *b, uint32_t type, uint64_t n)
{
    build_u32(b, type);
    build_u64(b, n);
}

static inline void build_tensor(fr_buf *b, const char *name, uint32_t n_dims, const uint64_t *dims,
                                uint32_t type, uint64_t offset)
{
    build_str(b, name);
    build_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        build_u64(b, dims[i]);
    build_u32(b, type);
    build_u64(b, offset);
}

static inline void build_pad(fr_buf *b, size_t alignment)
{
    while (b->n % alignment)
        build_raw(b, "", 1);
}

/* n bytes that count up from `from`. */
static inline void build_data(fr_buf *b, size_t n, int from)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(from + (int)i);
        build_raw(b, &byte, 1);
    }
}

enum { BUILD_ID_F32 = 0, BUILD_ID_Q8_0 = 8, BUILD_ID_MXFP4 = 39, BUILD_ID_Q4_K_R4 = 212 };

/* Every value type, arrays in arrays, and three tensors: F32 5 x 3 (60 bytes at 0), Q8_0 32 x 2 (68
 * at 64) and Q4_K_R4 256 x 4 x 2 (1152 at 160). 16 keys. Returns the number of bytes before the
 * data. */
static inline size_t build_sample(fr_buf *b, uint32_t version)
{
    static const uint8_t one_to_eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float f = 0.25f;
    const double d = -1e100;
    build_head(b, version, 3, 16);
    build_key(b, "general.name", FR_GGUF_STR);
    build_str(b, "sample \n\xC3\xA9");
    build_key(b, "a.u8", FR_GGUF_U8);
    build_raw(b, "\xFF", 1);
    build_key(b, "a.i8", FR_GGUF_I8);
    build_raw(b, "\xFF", 1);
    build_key(b, "a.u16", FR_GGUF_U16);
    build_raw(b, "\xFE\xFF", 2);
    build_key(b, "a.i16", FR_GGUF_I16);
    build_raw(b, "\xFE\xFF", 2);
    build_key_u32(b, "a.u32", 4000000000u);
    build_key(b, "a.i32", FR_GGUF_I32);
    build_u32(b, (uint32_t)-7);
    build_key(b, "a.f32", FR_GGUF_F32);
    build_raw(b, &f, 4);
    build_key(b, "a.bool", FR_GGUF_BOOL);
    build_raw(b, "\x01", 1);
    build_key(b, "a.u64", FR_GGUF_U64);
    build_u64(b, UINT64_MAX - 1);
    build_key(b, "a.i64", FR_GGUF_I64);
    build_u64(b, (uint64_t)INT64_MIN);
    build_key(b, "a.f64", FR_GGUF_F64);
    build_raw(b, &d, 8);
    build_key(b, "l.i16", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_I16, 4);
    build_raw(b, one_to_eight, 8);
    build_key(b, "l.str", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_STR, 3);
    build_str(b, "one");
    build_str(b, "");
    build_str(b, "three");
    build_key(b, "l.nested", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_ARRAY, 3);
    build_array(b, FR_GGUF_STR, 2);
    build_str(b, "x");
    build_str(b, "yy");
    build_array(b, FR_GGUF_BOOL, 3);
    build_raw(b, "\0\1\1", 3);
    build_array(b, FR_GGUF_ARRAY, 1);
    build_array(b, FR_GGUF_U8, 2);
    build_raw(b, "\x08\x09", 2);
    build_key(b, "l.empty", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_F32, 0);
    build_tensor(b, "f", 2, (uint64_t[]){5, 3}, BUILD_ID_F32, 0);
    build_tensor(b, "q", 2, (uint64_t[]){32, 2}, BUILD_ID_Q8_0, 64);
    build_tensor(b, "il", 3, (uint64_t[]){256, 4, 2}, BUILD_ID_Q4_K_R4, 160);
    build_pad(b, 32);
    size_t data_start = b->n;
    build_data(b, 60, 1);
    build_pad(b, 32);
    build_data(b, 68, 2);
    build_pad(b, 32);
    build_data(b, 1152, 3);
    return data_start;
}

/* Opens bytes as a file without a name on disk. */
static inline fr_status build_open(const void *bytes, size_t n, unsigned flags, fr_gguf **g,
                                   fr_err *err)
{
    int fd = memfd_create("gguf", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    fr_status st = fr_gguf_open(path, flags, g, err);
    close(fd);
    return st;
}

#endif
