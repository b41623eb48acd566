/* Wrong files: each must be refused with a text that names the place. */
#include "gguf_build.h"

typedef struct {
    const char *name;
    void (*build)(fr_buf *b);
    fr_status status;
    const char *parts[3]; /* of the error text */
} wrong_file;

static const uint64_t dims_8[] = {8}, dims_32[] = {32};

/* ---- the head ---------------------------------------------------------------------------------
 */

static void empty_file(fr_buf *b)
{
    build_raw(b, "", 0);
}

static void other_magic(fr_buf *b)
{
    build_raw(b, "GGML", 4);
    build_data(b, 60, 0);
}

static void lfs_pointer(fr_buf *b)
{
    build_raw(b, "version https://git-lfs.github.com/spec/v1\n", 43);
}

static void version_0(fr_buf *b)
{
    build_head(b, 0, 0, 0);
}

static void version_1(fr_buf *b)
{
    build_head(b, 1, 0, 0);
}

static void version_4(fr_buf *b)
{
    build_head(b, 4, 0, 0);
}

static void big_endian(fr_buf *b)
{
    build_head(b, 3u << 24, 0, 0);
}

static void many_keys(fr_buf *b)
{
    build_head(b, 3, 0, UINT64_MAX);
    build_data(b, 1000, 0);
}

static void more_keys_than_bytes(fr_buf *b)
{
    build_head(b, 3, 0, 1000);
    build_data(b, 1000, 0);
}

static void many_tensors(fr_buf *b)
{
    build_head(b, 3, (uint64_t)1 << 40, 0);
    build_data(b, 1000, 0);
}

static void more_tensors_than_bytes(fr_buf *b)
{
    build_head(b, 3, 100, 0);
    build_data(b, 1000, 0);
}

/* ---- keys -------------------------------------------------------------------------------------
 */

static void empty_key(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key_u32(b, "", 1);
    build_data(b, 20, 0);
}

static void key_not_utf8(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key_u32(b, "ab\xC0\xAF", 1);
}

static void key_with_zero(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_u64(b, 3);
    build_raw(b, "a\0b", 3);
    build_u32(b, FR_GGUF_U32);
    build_u32(b, 1);
}

static void key_beyond_file(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_u64(b, UINT64_MAX - 4);
    build_data(b, 40, 'a');
}

static void key_too_long(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_u64(b, 70000);
    build_data(b, 80000, 'a');
}

static void key_twice(fr_buf *b)
{
    build_head(b, 3, 0, 3);
    build_key_u32(b, "one", 1);
    build_key_u32(b, "two", 1);
    build_key_u32(b, "one", 1);
}

static void value_type_13(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key_u32(b, "k", 0);
    b->p[b->n - 8] = 13;
}

static void bool_2(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "k", FR_GGUF_BOOL);
    build_raw(b, "\2", 1);
}

static void bool_in_array(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "k", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_BOOL, 4);
    build_raw(b, "\0\1\1\xFF", 4);
}

static void string_beyond_file(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "k", FR_GGUF_STR);
    build_u64(b, 41);
    build_data(b, 40, 'a');
}

static void array_overflow(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "k", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_U64, ((uint64_t)1 << 61) + 1); /* times 8 is 8 */
    build_data(b, 40, 0);
}

static void strings_beyond_file(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "k", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_STR, 5);
    for (int i = 0; i < 5; i++)
        build_u64(b, i == 4 ? 1 : 0);
}

static void nested_beyond_file(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "k", FR_GGUF_ARRAY);
    build_array(b, FR_GGUF_ARRAY, 2);
    build_array(b, FR_GGUF_U8, 3);
    build_data(b, 3, 0);
    build_array(b, FR_GGUF_U8, 3);
}

static void too_deep(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "k", FR_GGUF_ARRAY);
    for (int i = 0; i < 5000; i++)
        build_array(b, FR_GGUF_ARRAY, 1);
    build_array(b, FR_GGUF_U8, 0);
}

static void with_alignment(fr_buf *b, uint32_t a)
{
    build_head(b, 3, 1, 1);
    build_key_u32(b, "general.alignment", a);
    build_tensor(b, "x", 1, dims_8, BUILD_ID_F32, 0);
    build_pad(b, 64);
    build_data(b, 64, 0);
}

static void alignment_0(fr_buf *b)
{
    with_alignment(b, 0);
}

static void alignment_48(fr_buf *b)
{
    with_alignment(b, 48);
}

static void alignment_huge(fr_buf *b)
{
    with_alignment(b, 1u << 31);
}

static void alignment_string(fr_buf *b)
{
    build_head(b, 3, 0, 1);
    build_key(b, "general.alignment", FR_GGUF_STR);
    build_str(b, "32");
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static void one_tensor(fr_buf *b, const char *name, uint32_t n_dims, const uint64_t *dims,
                       uint32_t type, uint64_t offset)
{
    build_head(b, 3, 1, 0);
    build_tensor(b, name, n_dims, dims, type, offset);
    build_pad(b, 32);
    build_data(b, 4096, 0);
}

static void no_dims(fr_buf *b)
{
    one_tensor(b, "x", 0, dims_8, BUILD_ID_F32, 0);
}

static void five_dims(fr_buf *b)
{
    one_tensor(b, "x", 5, (uint64_t[]){1, 1, 1, 1, 1}, BUILD_ID_F32, 0);
}

static void zero_dim(fr_buf *b)
{
    one_tensor(b, "x", 3, (uint64_t[]){8, 0, 2}, BUILD_ID_F32, 0);
}

static void negative_dim(fr_buf *b)
{
    one_tensor(b, "x", 1, (uint64_t[]){UINT64_MAX}, BUILD_ID_F32, 0);
}

static void dims_overflow(fr_buf *b)
{
    const uint64_t two_32 = (uint64_t)1 << 32;
    one_tensor(b, "x", 4, (uint64_t[]){two_32, two_32, two_32, two_32}, BUILD_ID_F32, 0);
}

static void rows_overflow(fr_buf *b)
{
    one_tensor(b, "x", 3, (uint64_t[]){1, (uint64_t)1 << 62, 4}, BUILD_ID_F32, 0);
}

static void bytes_overflow(fr_buf *b)
{
    one_tensor(b, "x", 2, (uint64_t[]){(uint64_t)1 << 60, 2}, BUILD_ID_F32, 0);
}

static void offset_overflow(fr_buf *b)
{
    one_tensor(b, "x", 1, dims_8, BUILD_ID_F32, UINT64_MAX - 31);
}

static void end_overflow(fr_buf *b)
{
    one_tensor(b, "x", 1, (uint64_t[]){(uint64_t)1 << 50}, BUILD_ID_F32, UINT64_MAX - 4095);
}

static void unknown_type(fr_buf *b)
{
    one_tensor(b, "x", 1, dims_8, 4242, 0);
}

static void part_of_a_block(fr_buf *b)
{
    one_tensor(b, "x", 2, (uint64_t[]){48, 2}, BUILD_ID_Q8_0, 0);
}

static void part_of_a_group(fr_buf *b)
{
    one_tensor(b, "x", 3, (uint64_t[]){256, 6, 2}, BUILD_ID_Q4_K_R4,
               0); /* 12 rows in all, but 6 a matrix */
}

static void misaligned(fr_buf *b)
{
    one_tensor(b, "x", 1, dims_8, BUILD_ID_F32, 16);
}

static void data_beyond_file(fr_buf *b)
{
    one_tensor(b, "x", 1, (uint64_t[]){1025}, BUILD_ID_F32, 0);
}

static void name_too_long(fr_buf *b)
{
    one_tensor(b, "0123456789012345678901234567890123456789012345678901234567890123x", 1, dims_8,
               BUILD_ID_F32, 0);
}

static void name_not_utf8(fr_buf *b)
{
    one_tensor(b, "w\xFFx", 1, dims_8, BUILD_ID_F32, 0);
}

static void empty_name(fr_buf *b)
{
    one_tensor(b, "", 1, dims_8, BUILD_ID_F32, 0);
}

static void two_tensors(fr_buf *b, const char *first, const char *second, uint64_t second_offset)
{
    build_head(b, 3, 2, 0);
    build_tensor(b, first, 1, dims_32, BUILD_ID_F32, 0); /* 128 bytes */
    build_tensor(b, second, 1, dims_32, BUILD_ID_F32, second_offset);
    build_pad(b, 32);
    build_data(b, 256, 0);
}

static void name_twice(fr_buf *b)
{
    two_tensors(b, "same", "same", 128);
}

static void overlap(fr_buf *b)
{
    two_tensors(b, "one", "two", 96);
}

static void overlap_by_a_byte(fr_buf *b)
{
    build_head(b, 3, 2, 1);
    build_key_u32(b, "general.alignment", 8);
    build_tensor(b, "one", 1, dims_32, BUILD_ID_MXFP4, 0); /* 17 bytes */
    build_tensor(b, "two", 1, dims_32, BUILD_ID_MXFP4, 16);
    build_pad(b, 8);
    build_data(b, 64, 0);
}

static void same_place(fr_buf *b)
{
    two_tensors(b, "one", "two", 0);
}

/* ---- the table --------------------------------------------------------------------------------
 */

static const wrong_file files[] = {
    {"empty file", empty_file, FR_EFORMAT, {"byte 0", "4 bytes"}},
    {"other magic", other_magic, FR_EFORMAT, {"byte 0", "'GGML'", "GGUF"}},
    {"LFS pointer", lfs_pointer, FR_EFORMAT, {"LFS"}},
    {"version 0", version_0, FR_EFORMAT, {"version 0", "byte 4"}},
    {"version 1", version_1, FR_EUNSUPPORTED, {"version 1", "convert"}},
    {"version 4", version_4, FR_EUNSUPPORTED, {"version 4"}},
    {"big endian", big_endian, FR_EUNSUPPORTED, {"big-endian"}},
    {"many keys", many_keys, FR_EFORMAT, {"number of keys", "byte 16"}},
    {"more keys than bytes", more_keys_than_bytes, FR_EFORMAT, {"1000", "byte 16"}},
    {"many tensors", many_tensors, FR_EFORMAT, {"number of tensors", "byte 8"}},
    {"more tensors than bytes", more_tensors_than_bytes, FR_EFORMAT, {"of 100", "byte 8"}},
    {"empty key", empty_key, FR_EFORMAT, {"key", "is empty", "byte 24"}},
    {"key not UTF-8", key_not_utf8, FR_EFORMAT, {"ab\\xC0\\xAF", "UTF-8", "byte 24"}},
    {"key with zero", key_with_zero, FR_EFORMAT, {"a\\x00b", "zero byte", "byte 24"}},
    {"key beyond file", key_beyond_file, FR_EFORMAT, {"key 1 of 1", "the file ends at byte 72"}},
    {"key too long", key_too_long, FR_EFORMAT, {"70000", "65535", "byte 24"}},
    {"key twice", key_twice, FR_EFORMAT, {"'one'", "twice", "byte 62"}},
    {"value type 13", value_type_13, FR_EFORMAT, {"'k'", "13", "byte 33"}},
    {"bool 2", bool_2, FR_EFORMAT, {"'k'", "bool", "byte 37"}},
    {"bool in array", bool_in_array, FR_EFORMAT, {"'k'", "255", "byte 52"}},
    {"string beyond file", string_beyond_file, FR_EFORMAT, {"'k'", "41 bytes", "byte 45"}},
    {"array overflow", array_overflow, FR_EFORMAT, {"'k'", "2305843009213693953", "byte 41"}},
    {"strings beyond file", strings_beyond_file, FR_EFORMAT, {"'k'", "string", "byte 89"}},
    {"nested beyond file", nested_beyond_file, FR_EFORMAT, {"'k'", "array of 3", "byte 68"}},
    {"too deep", too_deep, FR_EUNSUPPORTED, {"'k'", "deeper"}},
    {"alignment 0", alignment_0, FR_EFORMAT, {"'general.alignment'", "found 0", "power of two"}},
    {"alignment 48", alignment_48, FR_EFORMAT, {"'general.alignment'", "found 48", "byte 53"}},
    {"alignment 2^31", alignment_huge, FR_EFORMAT, {"'general.alignment'", "2147483648"}},
    {"alignment string", alignment_string, FR_EFORMAT, {"'general.alignment'", "string"}},
    {"no dims", no_dims, FR_EFORMAT, {"'x'", "found 0 dimensions", "byte 33"}},
    {"five dims", five_dims, FR_EFORMAT, {"'x'", "found 5 dimensions", "byte 33"}},
    {"zero dim", zero_dim, FR_EFORMAT, {"'x'", "dimension 1 = 0", "byte 45"}},
    {"negative dim", negative_dim, FR_EFORMAT, {"'x'", "18446744073709551615", "byte 37"}},
    {"dims overflow", dims_overflow, FR_EFORMAT, {"'x'", "4294967296 x 4294967296", "byte"}},
    {"rows overflow", rows_overflow, FR_EFORMAT, {"'x'", "4611686018427387904", "byte"}},
    {"bytes overflow", bytes_overflow, FR_EFORMAT, {"'x'", "2^58", "byte"}},
    {"offset overflow", offset_overflow, FR_EFORMAT, {"'x'", "offset", "2^64"}},
    {"end overflow", end_overflow, FR_EFORMAT, {"'x'", "2^64", "byte"}},
    {"unknown type", unknown_type, FR_EUNSUPPORTED, {"'x'", "4242", "byte 45"}},
    {"part of a block", part_of_a_block, FR_EFORMAT, {"'x'", "48", "32"}},
    {"part of a group", part_of_a_group, FR_EFORMAT, {"'x'", "6", "4"}},
    {"misaligned", misaligned, FR_EFORMAT, {"'x'", "offset 16", "multiple of 32"}},
    {"data beyond file", data_beyond_file, FR_EFORMAT, {"'x'", "4100 bytes", "truncated"}},
    {"name too long", name_too_long, FR_EFORMAT, {"tensor 1 of 1", "65 bytes", "byte 24"}},
    {"name not UTF-8", name_not_utf8, FR_EFORMAT, {"'w\\xFFx'", "UTF-8", "byte 24"}},
    {"empty name", empty_name, FR_EFORMAT, {"tensor", "is empty", "byte 24"}},
    {"name twice", name_twice, FR_EFORMAT, {"'same'", "twice", "byte 60"}},
    {"overlap", overlap, FR_EFORMAT, {"'two'", "overlap", "'one'"}},
    {"overlap by a byte", overlap_by_a_byte, FR_EFORMAT, {"'two'", "overlap", "17 bytes"}},
    {"same place", same_place, FR_EFORMAT, {"overlap", "'one'", "'two'"}},
};

static void check_refused(const wrong_file *w, const fr_buf *b, unsigned flags)
{
    fr_err err = {0};
    fr_gguf *g = (fr_gguf *)&err;
    size_t before = fr_mem_total().bytes_now;
    fr_mem_reset_peaks();
    fr_status st = build_open(b->p, b->n, flags, &g, &err);
    if (st != w->status)
        fail_msg("%s, flags %u: %s: %s", w->name, flags, fr_status_name(st), err.text);
    assert_null(g);
    assert_int_equal(err.code, st);
    assert_non_null(strstr(err.text, "/proc/self/fd/"));
    for (int i = 0; i < 3 && w->parts[i]; i++)
        if (!strstr(err.text, w->parts[i]))
            fail_msg("%s: no \"%s\" in: %s", w->name, w->parts[i], err.text);
    assert_int_equal(fr_mem_total().bytes_now, before);
    /* two arena chunks, and what the size of the file justifies */
    assert_true(fr_mem_total().bytes_peak - before < 160 * 1024 + 16 * b->n);
}

static void test_wrong_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        fr_buf b = {0};
        files[i].build(&b);
        check_refused(&files[i], &b, 0);
        check_refused(&files[i], &b, FR_GGUF_NO_MMAP);
        if (files[i].build != data_beyond_file)
            check_refused(&files[i], &b, FR_GGUF_HEADERS_ONLY);
        fr_buf_free(&b);
    }
}

static void test_wrong_paths(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_err err;
    assert_int_equal(fr_gguf_open("/no/such/file.gguf", 0, &g, &err), FR_ENOTFOUND);
    assert_non_null(strstr(err.text, "/no/such/file.gguf"));
    assert_null(g);
    assert_int_equal(fr_gguf_open("/", 0, &g, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_open("/", 0, &g, NULL), FR_EINVAL);
    fr_gguf_close(NULL);
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

/* Counts that a huge file could hold, but does not: a sparse file of 1 TiB with an absurd array.
 * Only the bytes that were walked may be paid for. */
static void test_sparse_giant(void **state)
{
    (void)state;
    fr_buf b = {0};
    fr_err err;
    fr_gguf *g;
    build_head(&b, 3, 0, 1);
    build_key(&b, "k", FR_GGUF_ARRAY);
    build_array(&b, FR_GGUF_STR, (uint64_t)1 << 36);
    build_u64(&b, (uint64_t)1 << 50); /* the first string */
    int fd = memfd_create("giant", MFD_CLOEXEC);
    assert_int_equal(write(fd, b.p, b.n), (ssize_t)b.n);
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    size_t before = fr_mem_total().bytes_now;
    fr_mem_reset_peaks();
    assert_int_equal(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &g, &err), FR_EFORMAT);
    assert_true(fr_mem_total().bytes_peak - before < 1 << 20);
    close(fd);
    fr_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_wrong_paths),
        cmocka_unit_test(test_sparse_giant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
