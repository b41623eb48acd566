#include <dirent.h>

#include "gguf/gguf_writer.h"
#include "gguf_build.h"

static char folder[64], path[128];

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ferry-write-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/out.gguf", folder);
    return 0;
}

static int count_files(void)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    int n = -2; /* . and .. */
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(fr_mem_total().bytes_now, 0);
    return 0;
}

/* ---- copies -----------------------------------------------------------------------------------
 */

static void slurp(const char *from, fr_buf *b)
{
    fr_err err;
    assert_ok(fr_file_slurp(from, 1 << 30, b, &err));
}

static fr_status copy_tensors(fr_gguf_writer *w, const fr_gguf *g, fr_err *err)
{
    for (size_t i = 0; i < fr_gguf_n_tensors(g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        FR_TRY(fr_gguf_add_tensor(w, t->name, t->type, t->layout, t->n_dims, t->dims, err));
    }
    FR_TRY(fr_gguf_write_header(w, err));
    for (size_t i = 0; i < fr_gguf_n_tensors(g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        const uint8_t *p = fr_gguf_tensor_data(g, t);
        size_t half = (size_t)t->bytes / 2;
        FR_TRY(fr_gguf_write_data(w, p, half, err));
        FR_TRY(fr_gguf_write_data(w, p + half, (size_t)t->bytes - half, err));
    }
    return FR_OK;
}

static fr_status copy_file(const fr_gguf *g, fr_err *err)
{
    fr_gguf_writer *w;
    FR_TRY(fr_gguf_writer_create(path, &w, err));
    fr_status st = fr_gguf_put_all(w, g, NULL, err);
    if (st == FR_OK)
        st = copy_tensors(w, g, err);
    fr_status closed = fr_gguf_writer_close(w, st == FR_OK, err);
    return st ? st : closed;
}

/* A copy of every key and tensor is the same file, byte for byte: the demo model was written by
 * another program. */
static void test_copy_demo(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_err err;
    fr_buf a = {0}, b = {0};
    const char *demo = SOURCE_FILE("configs/demo/kjv-moe-q8_0.gguf");
    assert_ok(fr_gguf_open(demo, 0, &g, &err));
    assert_ok(copy_file(g, &err));
    fr_gguf_close(g);
    slurp(demo, &a);
    slurp(path, &b);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.p, b.p, a.n);
    fr_buf_free(&a);
    fr_buf_free(&b);
    assert_int_equal(count_files(), 1);
}

static void test_copy_sample(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_err err;
    fr_buf a = {0}, b = {0};
    build_sample(&a, 3);
    assert_ok(build_open(a.p, a.n, 0, &g, &err));
    assert_ok(copy_file(g, &err));
    fr_gguf_close(g);
    slurp(path, &b);
    assert_true(b.n >= a.n && b.n < a.n + 32); /* the writer pads the end */
    assert_memory_equal(a.p, b.p, a.n);
    fr_buf_free(&a);
    fr_buf_free(&b);
}

/* ---- keys -------------------------------------------------------------------------------------
 */

static void put_scalars(fr_gguf_writer *w)
{
    fr_err err;
    assert_ok(fr_gguf_put_u32(w, "u32", UINT32_MAX, &err));
    assert_ok(fr_gguf_put_u64(w, "u64", UINT64_MAX, &err));
    assert_ok(fr_gguf_put_i32(w, "i32", INT32_MIN, &err));
    assert_ok(fr_gguf_put_f32(w, "f32", -1.5f, &err));
    assert_ok(fr_gguf_put_bool(w, "bool", true, &err));
    assert_ok(fr_gguf_put_str(w, "str", (fr_str){"a\0b", 3}, &err));
    assert_ok(fr_gguf_put_str(w, "twice", FR_STR("first, and long"), &err));
    assert_ok(fr_gguf_put_u32(w, "last", 1, &err));
    assert_ok(fr_gguf_put_u32(w, "twice", 2, &err));
}

static void test_keys(void **state)
{
    (void)state;
    fr_gguf_writer *w;
    fr_gguf *g;
    fr_err err;
    uint32_t u32;
    int64_t i64;
    float f32;
    bool b;
    fr_str s;
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    put_scalars(w);
    assert_ok(fr_gguf_write_header(w, &err));
    assert_ok(fr_gguf_writer_close(w, true, &err));
    assert_ok(fr_gguf_open(path, 0, &g, &err));
    assert_int_equal(fr_gguf_version(g), 3);
    assert_int_equal(fr_gguf_n_kv(g), 8);
    assert_true(fr_str_is(fr_gguf_kv_at(g, 6)->key, "twice")); /* replaced in its place */
    assert_ok(fr_gguf_get_u32(g, "u32", &u32, &err));
    assert_int_equal(u32, UINT32_MAX);
    assert_true((uint64_t)fr_gguf_elem_i64(fr_gguf_find(g, "u64"), 0) == UINT64_MAX);
    assert_ok(fr_gguf_get_i64(g, "i32", &i64, &err));
    assert_int_equal(i64, INT32_MIN);
    assert_ok(fr_gguf_get_f32(g, "f32", &f32, &err));
    assert_true(f32 == -1.5f);
    assert_ok(fr_gguf_get_bool(g, "bool", &b, &err));
    assert_true(b);
    assert_ok(fr_gguf_get_str(g, "str", &s, &err));
    assert_true(s.n == 3 && memcmp(s.p, "a\0b", 3) == 0);
    assert_ok(fr_gguf_get_u32(g, "twice", &u32, &err));
    assert_int_equal(u32, 2);
    fr_gguf_close(g);
}

static void test_put_all_except(void **state)
{
    (void)state;
    static const char *const except[] = {"l.nested", "a.u8", NULL};
    fr_buf a = {0};
    fr_gguf *g, *copy;
    fr_gguf_writer *w;
    fr_err err;
    build_sample(&a, 3);
    assert_ok(build_open(a.p, a.n, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    assert_ok(fr_gguf_put_all(w, g, except, &err));
    assert_ok(fr_gguf_write_header(w, &err));
    assert_ok(fr_gguf_writer_close(w, true, &err));
    assert_ok(fr_gguf_open(path, 0, &copy, &err));
    assert_int_equal(fr_gguf_n_kv(copy), 14);
    assert_null(fr_gguf_find(copy, "l.nested"));
    assert_null(fr_gguf_find(copy, "a.u8"));
    assert_non_null(fr_gguf_find(copy, "l.str"));
    fr_gguf_close(copy);
    fr_gguf_close(g);
    fr_buf_free(&a);
}

static void test_wrong_keys(void **state)
{
    (void)state;
    fr_gguf_writer *w;
    fr_err err;
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    assert_int_equal(fr_gguf_put_u32(w, "", 1, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_put_u32(w, "\xFF", 1, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_put_str(w, "\xED\xA0\x80", FR_STR("surrogate"), NULL), FR_EINVAL);
    char *longest = fr_mem_array(FR_MEM_TEXT, 65537, 1, &err);
    memset(longest, 'k', 65536);
    assert_int_equal(fr_gguf_put_u32(w, longest, 1, &err), FR_EINVAL);
    longest[65535] = 0;
    assert_ok(fr_gguf_put_u32(w, longest, 1, &err));
    fr_mem_free(longest);
    assert_ok(fr_gguf_put_u32(w, "general.alignment", 12, &err));
    assert_int_equal(fr_gguf_write_header(w, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "12"));
    assert_int_equal(fr_gguf_writer_close(w, true, &err), FR_EINVAL);
    assert_int_equal(count_files(), 0);
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static const int64_t dims_8_3[] = {8, 3}, dims_256_6[] = {256, 6};

static void test_wrong_tensors(void **state)
{
    (void)state;
    fr_gguf_writer *w;
    fr_err err;
    const int64_t zero[] = {8, 0}, huge[] = {(int64_t)1 << 40, (int64_t)1 << 40};
    const char *long_name = "0123456789012345678901234567890123456789012345678901234567890123x";
    const fr_layout plain = FR_LAYOUT_PLAIN;
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    assert_ok(fr_gguf_add_tensor(w, "x", FR_TYPE_F32, plain, 2, dims_8_3, &err));
    assert_int_equal(fr_gguf_add_tensor(w, "x", FR_TYPE_F32, plain, 2, dims_8_3, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "'x'"));
    assert_int_equal(fr_gguf_add_tensor(w, "", FR_TYPE_F32, plain, 2, dims_8_3, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_add_tensor(w, long_name, FR_TYPE_F32, plain, 2, dims_8_3, &err),
                     FR_EINVAL);
    assert_ok(fr_gguf_add_tensor(w, long_name + 1, FR_TYPE_F32, plain, 2, dims_8_3, &err));
    assert_int_equal(fr_gguf_add_tensor(w, "y", FR_TYPE_F32, plain, 0, dims_8_3, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_add_tensor(w, "y", FR_TYPE_F32, plain, 5, dims_8_3, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_add_tensor(w, "y", FR_TYPE_F32, plain, 2, zero, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_add_tensor(w, "y", FR_TYPE_F32, plain, 2, huge, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_add_tensor(w, "y", FR_TYPE_Q8_0, plain, 2, dims_8_3, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "'y'"));
    assert_int_equal(
        fr_gguf_add_tensor(w, "y", FR_TYPE_Q4_K, FR_LAYOUT_INTERLEAVED, 2, dims_256_6, &err),
        FR_EINVAL);
    assert_int_equal(
        fr_gguf_add_tensor(w, "y", FR_TYPE_F32, FR_LAYOUT_INTERLEAVED, 2, dims_8_3, &err),
        FR_EINVAL);
    assert_ok(fr_gguf_writer_close(w, false, &err));
    assert_int_equal(count_files(), 0);
}

/* A writer with a tensor of 96 bytes and one of 128; the header is written. */
static fr_gguf_writer *two_tensors(void)
{
    fr_gguf_writer *w;
    fr_err err;
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    assert_ok(fr_gguf_put_u32(w, "general.alignment", 64, &err));
    assert_ok(fr_gguf_add_tensor(w, "x", FR_TYPE_F32, FR_LAYOUT_PLAIN, 2, dims_8_3, &err));
    assert_ok(fr_gguf_add_tensor(w, "y", FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, (int64_t[]){32}, &err));
    assert_ok(fr_gguf_write_header(w, &err));
    return w;
}

static void test_order_of_calls(void **state)
{
    (void)state;
    static const uint8_t data[128];
    fr_err err;
    fr_gguf_writer *w = two_tensors();
    assert_int_equal(fr_gguf_put_u32(w, "late", 1, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_add_tensor(w, "z", FR_TYPE_F32, FR_LAYOUT_PLAIN, 2, dims_8_3, &err),
                     FR_EINVAL);
    assert_int_equal(fr_gguf_write_header(w, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_write_data(w, data, 97, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_writer_close(w, true, &err), FR_EINVAL);

    w = two_tensors(); /* too little */
    assert_ok(fr_gguf_write_data(w, data, 96, &err));
    assert_int_equal(fr_gguf_writer_close(w, true, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "'x'"));
    w = two_tensors();
    assert_ok(fr_gguf_write_data(w, data, 96, &err));
    assert_ok(fr_gguf_write_data(w, data, 127, &err));
    assert_int_equal(fr_gguf_writer_close(w, true, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "'y'"));
    assert_int_equal(count_files(), 0);

    w = two_tensors(); /* too much */
    assert_ok(fr_gguf_write_data(w, data, 96, &err));
    assert_ok(fr_gguf_write_data(w, data, 128, &err));
    assert_int_equal(fr_gguf_write_data(w, data, 1, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_writer_close(w, true, &err), FR_EINVAL);

    assert_ok(fr_gguf_writer_create(path, &w, &err)); /* no header */
    assert_int_equal(fr_gguf_write_data(w, data, 1, &err), FR_EINVAL);
    assert_int_equal(fr_gguf_writer_close(w, true, &err), FR_EINVAL);
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    assert_int_equal(fr_gguf_writer_close(w, true, &err), FR_EINVAL);
    assert_int_equal(count_files(), 0);
}

static void test_abort_keeps_old_file(void **state)
{
    (void)state;
    static const uint8_t data[128];
    fr_err err;
    fr_gguf *g;
    fr_gguf_writer *w = two_tensors();
    assert_ok(fr_gguf_write_data(w, data, 96, &err));
    assert_ok(fr_gguf_write_data(w, data, 128, &err));
    assert_ok(fr_gguf_writer_close(w, true, &err));
    assert_int_equal(count_files(), 1);
    w = two_tensors();
    assert_ok(fr_gguf_write_data(w, data, 96, &err));
    assert_ok(fr_gguf_writer_close(w, false, &err));
    assert_int_equal(count_files(), 1);
    assert_ok(fr_gguf_open(path, 0, &g, &err));
    assert_int_equal(fr_gguf_alignment(g), 64);
    assert_int_equal(fr_gguf_find_tensor(g, "x")->offset % 64, 0);
    assert_int_equal(fr_gguf_find_tensor(g, "y")->offset,
                     fr_gguf_find_tensor(g, "x")->offset + 128);
    fr_gguf_close(g);
}

static void test_bad_folder(void **state)
{
    (void)state;
    fr_gguf_writer *w;
    fr_err err;
    assert_int_equal(fr_gguf_writer_create("/no/such/folder/x.gguf", &w, &err), FR_EIO);
    assert_null(w);
    assert_non_null(strstr(err.text, "/no/such/folder/x.gguf"));
    assert_ok(fr_gguf_writer_close(NULL, true, &err));
}

static void test_no_memory(void **state)
{
    (void)state;
    fr_buf a = {0};
    fr_gguf *g;
    fr_err err;
    build_sample(&a, 3);
    assert_ok(build_open(a.p, a.n, 0, &g, &err));
    size_t before = fr_mem_total().bytes_now;
    uint64_t n = 0, allocs = fr_mem_total().n_allocs;
    assert_ok(copy_file(g, &err));
    allocs = fr_mem_total().n_allocs - allocs;
    unlink(path);
    fr_status st = FR_ENOMEM;
    while (st == FR_ENOMEM) {
        assert_int_equal(count_files(), 0);
        fr_mem_fail_at(++n, 0);
        st = copy_file(g, &err);
        fr_mem_fail_at(0, 0);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_ok(st);
    assert_int_equal(n, allocs + 1);
    fr_gguf_close(g);
    fr_buf_free(&a);
}

int main(void)
{
#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_copy_demo),      FILE_TEST(test_copy_sample),
        FILE_TEST(test_keys),           FILE_TEST(test_put_all_except),
        FILE_TEST(test_wrong_keys),     FILE_TEST(test_wrong_tensors),
        FILE_TEST(test_order_of_calls), FILE_TEST(test_abort_keeps_old_file),
        FILE_TEST(test_bad_folder),     FILE_TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
