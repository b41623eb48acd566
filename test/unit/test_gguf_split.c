/* Split sets: three parts with one tensor each. */
#include <sys/stat.h>

#include "gguf/gguf_writer.h"
#include "gguf_build.h"

static char folder[64];

typedef struct {
    const char *file; /* name in the folder */
    int no, count;    /* its keys; -1: none */
    int n_tensors;    /* key split.tensors.count; -1: none */
    const char *tensor;
} part;

static const part good[3] = {
    {"m-00001-of-00003.gguf", 0, 3, 3, "a"},
    {"m-00002-of-00003.gguf", 1, 3, 3, "b"},
    {"m-00003-of-00003.gguf", 2, 3, 3, "c"},
};

static const char *in_folder(const char *file)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return path;
}

static void put_u16(fr_gguf_writer *w, const char *key, int x)
{
    uint8_t le[2] = {(uint8_t)x, (uint8_t)(x >> 8)};
    fr_gguf_value v = {.type = FR_GGUF_U16, .n = 1, .bytes = le};
    fr_err err;
    assert_ok(fr_gguf_put_value(w, key, &v, &err));
}

static void write_part(const part *p)
{
    fr_gguf_writer *w;
    fr_err err;
    const int64_t dims[] = {4, 2};
    float data[8];
    assert_ok(fr_gguf_writer_create(in_folder(p->file), &w, &err));
    if (p->no == 0)
        assert_ok(fr_gguf_put_str(w, "general.name", FR_STR("whole"), &err));
    if (p->no >= 0)
        put_u16(w, "split.no", p->no);
    if (p->count >= 0)
        put_u16(w, "split.count", p->count);
    if (p->n_tensors >= 0)
        assert_ok(fr_gguf_put_i32(w, "split.tensors.count", p->n_tensors, &err));
    assert_ok(fr_gguf_add_tensor(w, p->tensor, FR_TYPE_F32, FR_LAYOUT_PLAIN, 2, dims, &err));
    assert_ok(fr_gguf_write_header(w, &err));
    for (int i = 0; i < 8; i++)
        data[i] = (float)p->tensor[0];
    assert_ok(fr_gguf_write_data(w, data, sizeof data, &err));
    assert_ok(fr_gguf_writer_close(w, true, &err));
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ferry-split-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 3; i++)
        write_part(&good[i]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        unlink(in_folder(good[i].file));
    unlink(in_folder("renamed.gguf"));
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(fr_mem_total().bytes_now, 0);
    return 0;
}

static void test_whole_set(void **state)
{
    (void)state;
    static const unsigned flags[] = {0, FR_GGUF_NO_MMAP, FR_GGUF_HEADERS_ONLY};
    for (int f = 0; f < 3; f++) {
        fr_gguf *g;
        fr_err err;
        assert_ok(fr_gguf_open(in_folder(good[0].file), flags[f], &g, &err));
        assert_int_equal(fr_gguf_n_files(g), 3);
        assert_int_equal(fr_gguf_n_tensors(g), 3);
        assert_int_equal(fr_gguf_n_kv(g), 4);
        for (int i = 0; i < 3; i++) {
            assert_string_equal(fr_gguf_path(g, i), in_folder(good[i].file));
            const fr_gguf_tensor *t = fr_gguf_find_tensor(g, good[i].tensor);
            assert_int_equal(t->i_file, i);
            assert_ptr_equal(t, fr_gguf_tensor_at(g, (size_t)i));
            float x[8], want = (float)good[i].tensor[0];
            if (!fr_gguf_has_data(g))
                continue;
            assert_ok(fr_gguf_read_tensor(g, t, 0, sizeof x, x, &err));
            assert_true(x[0] == want && x[7] == want);
            const float *mapped = fr_gguf_tensor_data(g, t);
            assert_int_equal(mapped != NULL, flags[f] == 0);
            assert_true(!mapped || mapped[7] == want);
        }
        fr_gguf_close(g);
    }
}

static void check_refused(const char *file, fr_status status, const char *part_1,
                          const char *part_2)
{
    fr_gguf *g;
    fr_err err;
    fr_status st = fr_gguf_open(in_folder(file), FR_GGUF_HEADERS_ONLY, &g, &err);
    if (st != status)
        fail_msg("%s: %s: %s", file, fr_status_name(st), err.text);
    if (!strstr(err.text, part_1) || !strstr(err.text, part_2))
        fail_msg("no \"%s\" or \"%s\" in: %s", part_1, part_2, err.text);
    assert_null(g);
}

static void test_other_part_named(void **state)
{
    (void)state;
    check_refused(good[1].file, FR_EINVAL, "part 2 of a set of 3", "m-00001-of-00003.gguf");
    check_refused(good[2].file, FR_EINVAL, "part 3 of a set of 3", "m-00001-of-00003.gguf");
}

static void test_missing_part(void **state)
{
    (void)state;
    unlink(in_folder(good[2].file));
    check_refused(good[0].file, FR_ENOTFOUND, "part 3 of 3 is missing", "m-00003-of-00003.gguf");
}

static void test_renamed(void **state)
{
    (void)state;
    part p = good[0];
    p.file = "renamed.gguf";
    write_part(&p);
    check_refused(p.file, FR_EFORMAT, "-00001-of-00003.gguf", "renamed.gguf");
}

static void test_parts_disagree(void **state)
{
    (void)state;
    static const struct {
        part p; /* in the place of part 2 */
        const char *parts[2];
    } wrong[] = {
        {{"m-00002-of-00003.gguf", 2, 3, 3, "b"}, {"split.no 2", "expected 1"}},
        {{"m-00002-of-00003.gguf", 1, 4, 3, "b"}, {"split.count 4", "and 3"}},
        {{"m-00002-of-00003.gguf", -1, -1, -1, "b"}, {"split.no -1", "not of one set"}},
        {{"m-00002-of-00003.gguf", 1, 3, 7, "b"}, {"split.tensors.count 7", "has 3"}},
        {{"m-00002-of-00003.gguf", 1, 3, 3, "a"}, {"tensor 'a'", "twice, first in"}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_part(&wrong[i].p);
        check_refused(good[0].file, FR_EFORMAT, wrong[i].parts[0], wrong[i].parts[1]);
    }
}

static void test_wrong_total(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        part p = good[i];
        p.n_tensors = 5;
        write_part(&p);
    }
    check_refused(good[0].file, FR_EFORMAT, "split.tensors.count", "3 parts hold 3 tensors");
}

/* Without split.tensors.count, and a "set" of one. */
static void test_sparse_keys(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_err err;
    for (int i = 0; i < 3; i++) {
        part p = good[i];
        p.n_tensors = -1;
        write_part(&p);
    }
    assert_ok(fr_gguf_open(in_folder(good[0].file), 0, &g, &err));
    assert_int_equal(fr_gguf_n_tensors(g), 3);
    fr_gguf_close(g);
    const part alone = {"renamed.gguf", 0, 1, 1, "a"};
    write_part(&alone);
    assert_ok(fr_gguf_open(in_folder(alone.file), 0, &g, &err));
    assert_int_equal(fr_gguf_n_files(g), 1);
    fr_gguf_close(g);
}

static void test_no_memory(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_err err;
    fr_status st = FR_ENOMEM;
    uint64_t n = 0, allocs = fr_mem_total().n_allocs;
    assert_ok(fr_gguf_open(in_folder(good[0].file), 0, &g, &err));
    fr_gguf_close(g);
    allocs = fr_mem_total().n_allocs - allocs;
    while (st == FR_ENOMEM) {
        fr_mem_fail_at(++n, 0);
        st = fr_gguf_open(in_folder(good[0].file), 0, &g, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK)
            fr_gguf_close(g);
        assert_int_equal(fr_mem_total().bytes_now, 0);
    }
    assert_ok(st);
    assert_int_equal(n, allocs + 1);
}

int main(void)
{
#define SET_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        SET_TEST(test_whole_set),   SET_TEST(test_other_part_named), SET_TEST(test_missing_part),
        SET_TEST(test_renamed),     SET_TEST(test_parts_disagree),   SET_TEST(test_wrong_total),
        SET_TEST(test_sparse_keys), SET_TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
