/* Files: maps, positional reads, whole reads, and writing that never leaves half a file. */
#include "testing.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static fr_err err;
static char folder[] = "/tmp/ferry-test-file-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[4][320];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void put_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static int n_files(void)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void assert_holds(const char *path, const char *text)
{
    fr_buf b = {0};
    assert_ok(fr_file_slurp(path, 1 << 20, &b, &err));
    assert_string_equal(b.p, text);
    fr_buf_free(&b);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    DIR *d = opendir(folder);
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            remove(in_folder(e->d_name));
    closedir(d);
    return rmdir(folder);
}

/* ---- reading ------------------------------------------------------------------------------- */

static void test_open_map_read(void **state)
{
    (void)state;
    static unsigned char bytes[10000], got[10000];
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(test_rand(&seed) >> 56);
    const char *path = in_folder("data");
    put_file(path, bytes, sizeof bytes);
    fr_file f;
    assert_ok(fr_file_open(path, &f, &err));
    assert_int_equal(f.size, sizeof bytes);
    assert_null(f.data);
    assert_ok(fr_file_read_at(&f, 0, got, sizeof got, path, &err));
    assert_memory_equal(got, bytes, sizeof bytes);
    assert_ok(fr_file_read_at(&f, 9990, got, 10, path, &err));
    assert_memory_equal(got, bytes + 9990, 10);
    assert_ok(fr_file_read_at(&f, 10000, got, 0, path, &err));
    assert_int_equal(fr_file_read_at(&f, 9990, got, 11, path, &err), FR_EIO);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(fr_file_read_at(&f, (uint64_t)1 << 40, got, 1, path, &err), FR_EIO);
    assert_int_equal(fr_file_read_at(&f, UINT64_MAX, got, 1, path, &err), FR_EIO);
    assert_ok(fr_file_map(&f, path, &err));
    assert_memory_equal(f.data, bytes, sizeof bytes);
    fr_file_close(&f);
    assert_true(f.fd == -1 && !f.data);
    fr_file_close(&f);
}

/* What is read past the page cache is what is in the file, wherever it begins and ends. */
static void test_direct(void **state)
{
    (void)state;
    enum { N = 3 * FR_FILE_BLOCK + 777 };
    static uint8_t bytes[N];
    static _Alignas(FR_FILE_BLOCK) uint8_t room[N + 2 * FR_FILE_BLOCK];
    const char *path = in_folder("direct");
    const uint8_t *got;
    fr_file f, d;
    for (size_t i = 0; i < N; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 251);
    put_file(path, bytes, N);
    assert_ok(fr_file_open(path, &f, &err));
    if (fr_file_open_direct(&f, &d, &err) != FR_OK) {
        assert_int_equal(err.code, FR_EUNSUPPORTED);
        print_message("this file system has no direct reading\n");
        fr_file_close(&f);
        return;
    }
    const size_t from[] = {0, 1, 4095, 4096, 4097, 8191, N - 1}, most[] = {1, 2, 4096, 4097, N};
    for (size_t i = 0; i < 7; i++)
        for (size_t k = 0; k < 5; k++) {
            size_t n = most[k] < N - from[i] ? most[k] : N - from[i];
            assert_true(fr_file_direct_room(n) <= sizeof room);
            memset(room, 0, sizeof room);
            assert_ok(fr_file_read_direct(&d, from[i], n, room, &got, path, &err));
            assert_memory_equal(got, bytes + from[i], n);
        }
    assert_int_equal(fr_file_read_direct(&d, N - 1, 2, room, &got, path, &err), FR_EIO);
    assert_non_null(strstr(err.text, "the file ends before"));
    assert_int_equal(truncate(path, FR_FILE_BLOCK), 0); /* on the border of a block */
    assert_ok(fr_file_read_direct(&d, 0, FR_FILE_BLOCK, room, &got, path, &err));
    assert_int_equal(fr_file_read_direct(&d, 0, FR_FILE_BLOCK + 1, room, &got, path, &err), FR_EIO);
    fr_file_close(&d);
    fr_file_close(&f);
}

/* Written and read: in the page cache. Synced and forgotten: not, unless the file system has no
 * other place for it. */
static void test_is_cached(void **state)
{
    (void)state;
    static uint8_t bytes[3 << 20];
    const char *path = in_folder("cached");
    fr_file f;
    put_file(path, bytes, sizeof bytes);
    assert_ok(fr_file_open(path, &f, &err));
    assert_ok(fr_file_read_at(&f, 0, bytes, sizeof bytes, path, &err));
    assert_true(fr_file_is_cached(&f, 0, sizeof bytes));
    assert_true(fr_file_is_cached(&f, 4095, 4098));
    fsync(f.fd);
    fr_file_forget(&f);
    if (fr_file_is_cached(&f, 0, 1)) {
        print_message("the system forgets nothing\n");
    } else {
        uint8_t one;
        assert_ok(fr_file_read_at(&f, 2 << 20, &one, 1, path, &err));
        assert_false(fr_file_is_cached(&f, 0, sizeof bytes));
        assert_true(fr_file_is_cached(&f, 2 << 20, 1));
    }
    fr_file_close(&f);
}

static void test_mapped_at(void **state)
{
    (void)state;
    fr_file f[300]; /* more than are known */
    put_file(in_folder("mapped"), "0123456789", 10);
    for (int i = 0; i < 300; i++) {
        assert_ok(fr_file_open(in_folder("mapped"), &f[i], &err));
        assert_ok(fr_file_map(&f[i], in_folder("mapped"), &err));
    }
    const uint8_t *at = f[7].data;
    assert_string_equal(fr_file_mapped_at(at), in_folder("mapped"));
    assert_string_equal(fr_file_mapped_at(at + 9), in_folder("mapped"));
    assert_null(fr_file_mapped_at(at + 10));
    assert_null(fr_file_mapped_at(&at));
    for (int i = 0; i < 300; i++)
        fr_file_close(&f[i]);
    assert_null(fr_file_mapped_at(at));
}

static void test_open_failures(void **state)
{
    (void)state;
    fr_file f;
    assert_int_equal(fr_file_open(in_folder("missing"), &f, &err), FR_ENOTFOUND);
    assert_non_null(strstr(err.text, "missing"));
    assert_int_equal(f.fd, -1);
    assert_int_equal(fr_file_open(folder, &f, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, folder));
    assert_int_equal(f.fd, -1);
    put_file(in_folder("plain"), "x", 1);
    assert_int_equal(fr_file_open(in_folder("plain/below"), &f, &err), FR_EIO);
    fr_file_close(&f);
}

static void test_empty_file(void **state)
{
    (void)state;
    const char *path = in_folder("empty");
    put_file(path, "", 0);
    fr_file f;
    assert_ok(fr_file_open(path, &f, &err));
    assert_ok(fr_file_map(&f, path, &err));
    assert_true(f.size == 0 && f.data);
    fr_file_close(&f);
    assert_holds(path, "");
}

static void test_slurp(void **state)
{
    (void)state;
    const char *path = in_folder("text");
    char *text = malloc(200001);
    memset(text, 't', 200000);
    text[200000] = 0;
    put_file(path, text, 200000);
    fr_buf b = {0};
    assert_ok(fr_buf_puts(&b, "before ", &err));
    assert_ok(fr_file_slurp(path, 200000, &b, &err)); /* appends; the limit counts the file alone */
    assert_int_equal(b.n, 200007);
    assert_memory_equal(b.p, "before ttt", 10);
    assert_string_equal(b.p + 7, text);
    fr_buf_free(&b);
    assert_int_equal(fr_file_slurp(path, 199999, &b, &err), FR_ERANGE);
    assert_true(b.cap < 1 << 20);
    fr_buf_free(&b);
    assert_int_equal(fr_file_slurp("/dev/zero", 100000, &b, &err), FR_ERANGE); /* no end, no size */
    assert_true(b.cap < 1 << 20);
    fr_buf_free(&b);
    assert_int_equal(fr_file_slurp(in_folder("missing"), 10, &b, &err), FR_ENOTFOUND);
    assert_int_equal(fr_file_slurp(folder, 10, &b, &err), FR_EIO);
    fr_buf_free(&b);
    fr_mem_fail_at(1, 1);
    assert_int_equal(fr_file_slurp(path, 200000, &b, &err), FR_ENOMEM);
    fr_mem_fail_at(0, 0);
    fr_buf_free(&b);
    free(text);
}

static void test_slurp_standard_input(void **state)
{
    (void)state;
    const char *path = in_folder("stdin");
    put_file(path, "from a pipe", 11);
    int saved = dup(STDIN_FILENO), fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_true(dup2(fd, STDIN_FILENO) == STDIN_FILENO);
    close(fd);
    assert_holds("-", "from a pipe");
    assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0); /* stays open */
    if (saved >= 0) {
        dup2(saved, STDIN_FILENO);
        close(saved);
    }
}

/* ---- writing ------------------------------------------------------------------------------- */

static void test_commit_replaces_at_once(void **state)
{
    (void)state;
    const char *path = in_folder("out");
    put_file(path, "old", 3);
    int before = n_files();
    fr_out_file f;
    assert_ok(fr_file_create(path, &f, &err));
    assert_ok(fr_file_write(&f, "new ", 4, &err));
    assert_ok(fr_file_write(&f, "text", 4, &err));
    assert_ok(fr_file_write(&f, NULL, 0, &err));
    assert_int_equal(f.written, 8);
    assert_holds(path, "old"); /* until the commit */
    assert_int_equal(n_files(), before + 1);
    assert_ok(fr_file_commit(&f, &err));
    assert_holds(path, "new text");
    assert_int_equal(n_files(), before);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(st.st_mode & 0777, 0644 & ~mask);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_TEXT).bytes_now, 0);
}

static void test_abort_leaves_nothing(void **state)
{
    (void)state;
    const char *path = in_folder("aborted");
    int before = n_files();
    fr_out_file f;
    assert_ok(fr_file_create(path, &f, &err));
    assert_ok(fr_file_write(&f, "half", 4, &err));
    fr_file_abort(&f);
    assert_int_equal(n_files(), before);
    assert_int_equal(f.fd, -1);
    fr_file_abort(&f); /* twice is harmless */

    put_file(path, "kept", 4);
    assert_ok(fr_file_create(path, &f, &err));
    fr_file_abort(&f);
    assert_holds(path, "kept");
    assert_int_equal(fr_mem_tag_stats(FR_MEM_TEXT).bytes_now, 0);
}

static void test_write_failures(void **state)
{
    (void)state;
    int before = n_files();
    fr_out_file f;
    assert_int_equal(fr_file_create(in_folder("no/such/folder"), &f, &err), FR_EIO);
    assert_int_equal(f.fd, -1);

    assert_ok(fr_file_create(in_folder("full"), &f, &err));
    int full = open("/dev/full", O_WRONLY), own = f.fd; /* every write fails: no space */
    assert_true(full >= 0);
    f.fd = full;
    assert_int_equal(fr_file_write(&f, "x", 1, &err), FR_EIO);
    assert_non_null(strstr(err.text, "full"));
    assert_int_equal(f.written, 0);
    close(own);
    fr_file_abort(&f);
    assert_int_equal(n_files(), before);

    assert_int_equal(mkdir(in_folder("taken"), 0755), 0); /* a rename onto a folder fails */
    before = n_files();
    assert_ok(fr_file_create(in_folder("taken"), &f, &err));
    assert_ok(fr_file_write(&f, "x", 1, &err));
    assert_int_equal(fr_file_commit(&f, &err), FR_EIO);
    assert_non_null(strstr(err.text, "taken"));
    assert_int_equal(n_files(), before);

    for (uint64_t n = 1; n <= 2; n++) {
        fr_mem_fail_at(n, 0);
        assert_int_equal(fr_file_create(in_folder("oom"), &f, &err), FR_ENOMEM);
        fr_mem_fail_at(0, 0);
    }
    assert_int_equal(n_files(), before);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_TEXT).bytes_now, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_map_read),
        cmocka_unit_test(test_open_failures),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_slurp),
        cmocka_unit_test(test_slurp_standard_input),
        cmocka_unit_test(test_commit_replaces_at_once),
        cmocka_unit_test(test_abort_leaves_nothing),
        cmocka_unit_test(test_write_failures),
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_is_cached),
        cmocka_unit_test(test_mapped_at),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
