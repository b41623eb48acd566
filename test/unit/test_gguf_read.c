#include "gguf_build.h"

/* ---- right files ------------------------------------------------------------------------------
 */

static void check_numbers(const fr_gguf *g)
{
    fr_err err;
    int64_t i64 = 0;
    uint32_t u32 = 0;
    float f = 0;
    bool b = false;
    fr_str s;
    static const struct {
        const char *key;
        int64_t value;
    } ints[] = {{"a.u8", 255}, {"a.i8", -1},          {"a.u16", 65534},    {"a.i16", -2},
                {"a.i32", -7}, {"a.u32", 4000000000}, {"a.i64", INT64_MIN}};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        assert_ok(fr_gguf_get_i64(g, ints[i].key, &i64, &err));
        assert_int_equal(i64, ints[i].value);
    }
    assert_ok(fr_gguf_get_u32(g, "a.u8", &u32, &err));
    assert_int_equal(u32, 255);
    assert_ok(fr_gguf_get_f32(g, "a.f32", &f, &err));
    assert_true(f == 0.25f);
    assert_ok(fr_gguf_get_f32(g, "a.i32", &f, &err));
    assert_true(f == -7.0f);
    assert_true(fr_gguf_elem_f64(fr_gguf_find(g, "a.f64"), 0) == -1e100);
    assert_true(fr_gguf_elem_f64(fr_gguf_find(g, "a.u64"), 0) == 0x1p64);
    assert_true((uint64_t)fr_gguf_elem_i64(fr_gguf_find(g, "a.u64"), 0) == UINT64_MAX - 1);
    assert_ok(fr_gguf_get_bool(g, "a.bool", &b, &err));
    assert_true(b);
    assert_ok(fr_gguf_get_str(g, "general.name", &s, &err));
    assert_true(fr_str_is(s, "sample \n\xC3\xA9"));
}

static void check_refusals(const fr_gguf *g)
{
    fr_err err;
    int64_t i64 = 11;
    uint32_t u32 = 11;
    float f = 11;
    bool b = true;
    fr_str s = FR_STR("old");
    const fr_gguf_value *v = NULL;
    assert_int_equal(fr_gguf_get_i64(g, "none", &i64, &err), FR_ENOTFOUND);
    assert_non_null(strstr(err.text, "none"));
    assert_int_equal(fr_gguf_get_i64(g, "a.u64", &i64, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_i64(g, "a.f32", &i64, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_u32(g, "a.i8", &u32, &err), FR_EFORMAT);
    assert_non_null(strstr(err.text, "-1"));
    assert_int_equal(fr_gguf_get_f32(g, "general.name", &f, &err), FR_EFORMAT);
    assert_non_null(strstr(err.text, "string"));
    assert_int_equal(fr_gguf_get_bool(g, "a.u8", &b, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_str(g, "l.str", &s, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_i64(g, "l.i16", &i64, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_array(g, "a.u8", false, &v, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_array(g, "l.str", false, &v, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_array(g, "l.i16", true, &v, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_array(g, "l.nested", false, &v, &err), FR_EFORMAT);
    assert_int_equal(fr_gguf_get_array(g, "none", false, &v, NULL), FR_ENOTFOUND);
    /* nothing was touched */
    assert_true(i64 == 11 && u32 == 11 && f == 11 && b && s.n == 3 && v == NULL);
}

static void check_arrays(const fr_gguf *g)
{
    fr_err err;
    const fr_gguf_value *v;
    assert_ok(fr_gguf_get_array(g, "l.i16", false, &v, &err));
    assert_int_equal(v->n, 4);
    assert_int_equal(fr_gguf_elem_i64(v, 3), 0x0807);
    assert_true(fr_gguf_elem_f64(v, 0) == 0x0201);
    assert_int_equal(fr_gguf_elem_str(v, 0).n, 0);
    assert_ok(fr_gguf_get_array(g, "l.str", true, &v, &err));
    assert_int_equal(v->n, 3);
    assert_true(fr_str_is(fr_gguf_elem_str(v, 0), "one"));
    assert_true(fr_str_is(fr_gguf_elem_str(v, 1), ""));
    assert_true(fr_str_is(fr_gguf_elem_str(v, 2), "three"));
    assert_int_equal(fr_gguf_elem_i64(v, 0), 0);
    assert_int_equal(fr_gguf_elem_str(v, 3).n, 0);
    assert_ok(fr_gguf_get_array(g, "l.empty", false, &v, &err));
    assert_int_equal(v->n, 0);

    v = fr_gguf_find(g, "l.nested");
    assert_true(v && v->is_array && v->type == FR_GGUF_ARRAY && v->n == 3);
    fr_gguf_value strings = fr_gguf_elem_array(v, 0), bools = fr_gguf_elem_array(v, 1);
    fr_gguf_value inner = fr_gguf_elem_array(v, 2);
    assert_true(strings.type == FR_GGUF_STR && strings.n == 2);
    assert_true(fr_str_is(fr_gguf_elem_str(&strings, 1), "yy"));
    assert_true(bools.type == FR_GGUF_BOOL && bools.n == 3);
    assert_int_equal(fr_gguf_elem_i64(&bools, 2), 1);
    fr_gguf_value bytes = fr_gguf_elem_array(&inner, 0);
    assert_true(bytes.type == FR_GGUF_U8 && bytes.n == 2);
    assert_int_equal(fr_gguf_elem_i64(&bytes, 1), 9);
    assert_int_equal(fr_gguf_elem_array(v, 3).n, 0);
    assert_int_equal(fr_gguf_elem_array(&strings, 0).n, 0);
}

static void check_tensors(const fr_gguf *g, size_t data_start)
{
    assert_int_equal(fr_gguf_n_tensors(g), 3);
    const fr_gguf_tensor *f = fr_gguf_find_tensor(g, "f"), *il = fr_gguf_find_tensor(g, "il");
    assert_ptr_equal(f, fr_gguf_tensor_at(g, 0));
    assert_ptr_equal(il, fr_gguf_tensor_at(g, 2));
    assert_null(fr_gguf_find_tensor(g, "ill"));
    assert_null(fr_gguf_find_tensor(g, ""));
    assert_true(f->type == FR_TYPE_F32 && f->layout == FR_LAYOUT_PLAIN && f->n_dims == 2);
    assert_true(f->dims[0] == 5 && f->dims[1] == 3 && f->dims[2] == 1 && f->dims[3] == 1);
    assert_int_equal(f->bytes, 60);
    assert_int_equal(f->offset, data_start);
    assert_true(il->type == FR_TYPE_Q4_K && il->layout == FR_LAYOUT_INTERLEAVED);
    assert_int_equal(il->bytes, 1152);
    assert_int_equal(il->offset, data_start + 160);
}

static void check_data(const fr_gguf *g, bool mapped)
{
    fr_err err;
    uint8_t buf[1152];
    assert_true(fr_gguf_has_data(g));
    for (size_t i = 0; i < 3; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        const uint8_t *p = fr_gguf_tensor_data(g, t);
        assert_int_equal(p != NULL, mapped);
        assert_ok(fr_gguf_read_tensor(g, t, 0, t->bytes, buf, &err));
        for (size_t k = 0; k < t->bytes; k++) {
            assert_int_equal(buf[k], (uint8_t)(i + 1 + k));
            assert_int_equal(p ? p[k] : buf[k], buf[k]);
        }
        assert_ok(fr_gguf_read_tensor(g, t, t->bytes - 1, 1, buf, &err));
        assert_int_equal(buf[0], (uint8_t)(i + t->bytes));
        assert_ok(fr_gguf_read_tensor(g, t, t->bytes, 0, buf, &err));
        assert_int_equal(fr_gguf_read_tensor(g, t, t->bytes, 1, buf, &err), FR_ERANGE);
        assert_int_equal(fr_gguf_read_tensor(g, t, UINT64_MAX, 2, buf, &err), FR_ERANGE);
    }
}

static void test_sample(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        fr_buf b = {0};
        fr_err err;
        fr_gguf *g, *again;
        size_t data_start = build_sample(&b, version);
        static const unsigned flags[] = {0, FR_GGUF_NO_MMAP};
        for (int i = 0; i < 2; i++) {
            assert_ok(build_open(b.p, b.n, flags[i], &g, &err));
            assert_ok(build_open(b.p, b.n, flags[i], &again, &err));
            assert_int_equal(fr_gguf_version(g), version);
            assert_int_equal(fr_gguf_alignment(g), 32);
            assert_int_equal(fr_gguf_n_files(g), 1);
            assert_int_equal(fr_gguf_n_kv(g), 16);
            assert_true(fr_str_is(fr_gguf_kv_at(g, 3)->key, "a.u16"));
            check_numbers(g);
            check_refusals(g);
            check_arrays(g);
            check_tensors(g, data_start);
            check_data(g, flags[i] == 0);
            fr_gguf_close(g);
            check_data(again, flags[i] == 0);
            fr_gguf_close(again);
        }
        fr_buf_free(&b);
    }
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

static void test_header_only(void **state)
{
    (void)state;
    fr_buf b = {0};
    fr_err err;
    fr_gguf *g;
    uint8_t byte;
    size_t data_start = build_sample(&b, 3);
    assert_ok(build_open(b.p, data_start, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_false(fr_gguf_has_data(g));
    check_arrays(g);
    check_tensors(g, data_start);
    assert_null(fr_gguf_tensor_data(g, fr_gguf_tensor_at(g, 0)));
    assert_int_equal(fr_gguf_read_tensor(g, fr_gguf_tensor_at(g, 0), 0, 1, &byte, &err), FR_EINVAL);
    fr_gguf_close(g);
    fr_buf_free(&b);
}

/* Every cut is an error with the flags that need the bytes that are gone, and names the place. */
static void test_cut_everywhere(void **state)
{
    (void)state;
    fr_buf b = {0};
    fr_err err;
    fr_gguf *g;
    size_t data_start = build_sample(&b, 3);
    size_t header_end = data_start;
    while (b.p[header_end - 1] == 0) /* the padding, and the zero bytes of the last offset, 160 */
        header_end--;
    header_end += 7;
    size_t bytes_before = fr_mem_total().bytes_now;
    for (size_t n = 0; n < b.n; n++) {
        assert_int_equal(build_open(b.p, n, 0, &g, &err), FR_EFORMAT);
        assert_non_null(strstr(err.text, "byte"));
        assert_null(g);
        assert_int_equal(build_open(b.p, n, FR_GGUF_NO_MMAP, &g, NULL), FR_EFORMAT);
        fr_status st = build_open(b.p, n, FR_GGUF_HEADERS_ONLY, &g, &err);
        assert_int_equal(st, n < header_end ? FR_EFORMAT : FR_OK);
        fr_gguf_close(g);
        assert_int_equal(fr_mem_total().bytes_now, bytes_before);
    }
    fr_buf_free(&b);
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

/* More bytes than the first read takes: the header moves while it is parsed. */
static void test_big_vocabulary(void **state)
{
    (void)state;
    enum { N = 160000 };
    fr_buf b = {0};
    fr_err err;
    fr_gguf *g;
    char word[16];
    build_head(&b, 3, 0, 3);
    build_key_u32(&b, "before", 5);
    build_key(&b, "tokens", FR_GGUF_ARRAY);
    build_array(&b, FR_GGUF_STR, N);
    for (int i = 0; i < N; i++) {
        snprintf(word, sizeof word, "word%d", i);
        build_str(&b, word);
    }
    build_key(&b, "after", FR_GGUF_STR);
    build_str(&b, "end");
    assert_ok(build_open(b.p, b.n, 0, &g, &err));
    const fr_gguf_value *v;
    assert_ok(fr_gguf_get_array(g, "tokens", true, &v, &err));
    assert_int_equal(v->n, N);
    for (int i = 0; i < N; i += 777) {
        snprintf(word, sizeof word, "word%d", i);
        assert_true(fr_str_is(fr_gguf_elem_str(v, (uint64_t)i), word));
    }
    fr_str s;
    uint32_t five;
    assert_ok(fr_gguf_get_str(g, "after", &s, &err));
    assert_true(fr_str_is(s, "end"));
    assert_ok(fr_gguf_get_u32(g, "before", &five, &err));
    assert_int_equal(five, 5);
    fr_gguf_close(g);
    fr_buf_free(&b);
}

/* The header is read in pieces, the first of 256 KiB: values on both sides of and across the seam.
 */
static void test_seam(void **state)
{
    (void)state;
    for (size_t before = 0; before < 120; before++) {
        fr_buf b = {0};
        fr_err err;
        fr_gguf *g;
        fr_str s;
        uint32_t u32;
        int64_t i64;
        build_head(&b, 3, 0, 4);
        build_key(&b, "long", FR_GGUF_STR);
        size_t n = (1 << 18) - before - b.n - 8;
        build_u64(&b, n);
        build_data(&b, n, 0);
        build_key_u32(&b, "number", 0x12345678);
        build_key(&b, "text", FR_GGUF_STR);
        build_str(&b, "seam");
        build_key(&b, "i64", FR_GGUF_I64);
        build_u64(&b, 0x123456789ABCDEF0);
        build_data(&b, 1000, 0);
        assert_ok(build_open(b.p, b.n, 0, &g, &err));
        assert_ok(fr_gguf_get_str(g, "long", &s, &err));
        assert_true(s.n == n && (uint8_t)s.p[n - 1] == (uint8_t)(n - 1));
        assert_ok(fr_gguf_get_u32(g, "number", &u32, &err));
        assert_int_equal(u32, 0x12345678);
        assert_ok(fr_gguf_get_str(g, "text", &s, &err));
        assert_true(fr_str_is(s, "seam"));
        assert_ok(fr_gguf_get_i64(g, "i64", &i64, &err));
        assert_int_equal(i64, 0x123456789ABCDEF0);
        fr_gguf_close(g);
        fr_buf_free(&b);
    }
}

static void test_many_tensors(void **state)
{
    (void)state;
    enum { N = 3000 };
    fr_buf b = {0};
    fr_err err;
    fr_gguf *g;
    char name[32];
    build_head(&b, 3, N, 0);
    for (uint64_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blk.%d.w", (int)i);
        /* back to front: the order in the file is free */
        build_tensor(&b, name, 1, (uint64_t[]){8}, BUILD_ID_F32, (N - 1 - i) * 32);
    }
    build_pad(&b, 32);
    size_t data_start = b.n;
    build_data(&b, (size_t)N * 32, 0);
    assert_ok(build_open(b.p, b.n, 0, &g, &err));
    for (uint64_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blk.%d.w", (int)i);
        const fr_gguf_tensor *t = fr_gguf_find_tensor(g, name);
        assert_ptr_equal(t, fr_gguf_tensor_at(g, i));
        assert_int_equal(t->offset, data_start + (N - 1 - i) * 32);
    }
    assert_null(fr_gguf_find_tensor(g, "blk.3000.w"));
    fr_gguf_close(g);
    fr_buf_free(&b);
}

static void test_alignment_key(void **state)
{
    (void)state;
    fr_err err;
    for (uint32_t a = 8; a <= 1 << 16; a *= 8) {
        fr_buf b = {0};
        fr_gguf *g;
        build_head(&b, 3, 2, 1);
        build_key_u32(&b, "general.alignment", a);
        build_tensor(&b, "x", 1, (uint64_t[]){2}, BUILD_ID_F32, 0);
        build_tensor(&b, "y", 1, (uint64_t[]){2}, BUILD_ID_F32, a);
        build_pad(&b, a);
        size_t at = b.n;
        build_data(&b, a + 8, 0);
        assert_ok(build_open(b.p, b.n, 0, &g, &err));
        assert_int_equal(fr_gguf_alignment(g), a);
        assert_int_equal(fr_gguf_find_tensor(g, "y")->offset, at + a);
        fr_gguf_close(g);
        fr_buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sample),         cmocka_unit_test(test_header_only),
        cmocka_unit_test(test_cut_everywhere), cmocka_unit_test(test_big_vocabulary),
        cmocka_unit_test(test_seam),           cmocka_unit_test(test_many_tensors),
        cmocka_unit_test(test_alignment_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
