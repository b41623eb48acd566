/* The repack cache: weights that come from an image are those that come from the file, whatever
 * happened to the image, and no failure leaves half an image behind. */
#include "testing.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store.h"
#include "support/gguf_parts.h"
#include "support/models.h"
#include "support/tiny_models.h"

static fr_err err;

/* ---- the folder ---------------------------------------------------------------------------------
 */

static char folder[256], image[512]; /* the only image in it */

/* How many files are in the folder; `image` is the last of them. */
static int n_files(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            snprintf(image, sizeof image, "%s/%s", folder, e->d_name);
            n++;
        }
    if (d)
        closedir(d);
    return n;
}

static void empty_folder(void)
{
    while (n_files() > 0)
        assert_int_equal(remove(image), 0);
}

/* The free room that the store is told, when it is not 0. */
static unsigned long free_blocks;

int statvfs(const char *path, struct statvfs *out)
{
    (void)path;
    memset(out, 0, sizeof *out);
    out->f_frsize = 1024;
    out->f_bavail = free_blocks ? free_blocks : 1ul << 40;
    return 0;
}

/* ---- the log ------------------------------------------------------------------------------------
 */

static char log_text[8192];

static void keep_log(void *user, fr_log_level level, const char *line)
{
    (void)user, (void)level;
    size_t n = strlen(log_text);
    snprintf(log_text + n, sizeof log_text - n, "%s\n", line);
}

static bool logged(const char *text)
{
    return strstr(log_text, text) != NULL;
}

/* ---- models -------------------------------------------------------------------------------------
 */

typedef struct {
    fr_gguf *g;
    fr_model *m;
    fr_cpu *cpu;
    fr_store *s;
} loaded;

static fr_status open_all(const char *path, const fr_store_config *cfg, loaded *l)
{
    *l = (loaded){0};
    fr_cpu_config cpu = {.n_threads = 2, .max_isa = FR_ISA_AUTO};
    log_text[0] = 0;
    FR_TRY(fr_gguf_open(path, cfg->mmap ? 0 : FR_GGUF_NO_MMAP, &l->g, &err));
    FR_TRY(fr_model_open(l->g, FR_MLA_AUTO, &l->m, &err));
    FR_TRY(fr_cpu_open(&cpu, &l->cpu, &err));
    return fr_store_open(l->m, l->cpu, cfg, &l->s, &err);
}

static void close_all(loaded *l)
{
    fr_store_close(l->s);
    fr_cpu_close(l->cpu);
    fr_model_close(l->m);
    fr_gguf_close(l->g);
    *l = (loaded){0};
}

/* Loads with the cache, and compares with a store that knows nothing of it. */
static void check_load(const char *path, bool mmap, bool writes)
{
    loaded a, b;
    fr_store_config cfg = {.mmap = mmap}, cached = {.mmap = mmap, .repack_cache = folder};
    assert_ok(open_all(path, &cfg, &a));
    assert_ok(open_all(path, &cached, &b));
    if (logged("repack cache: writing") != writes)
        fail_msg("expected an image to be %s: %s", writes ? "written" : "found", log_text);
    for (int i = 0; i < a.m->n_weights; i++) {
        const fr_weight *x = fr_store_weight(a.s, i), *y = fr_store_weight(b.s, i);
        assert_int_equal(x->layout, y->layout);
        for (int64_t m = 0; m < x->n_mat; m++)
            if (memcmp((const uint8_t *)x->data + (size_t)m * x->mat_bytes,
                       (const uint8_t *)y->data + (size_t)m * y->mat_bytes,
                       (size_t)x->rows * fr_row_bytes(x->type, x->layout, x->cols)) != 0)
                fail_msg("%s differs", a.m->weights[i].name);
    }
    close_all(&a);
    close_all(&b);
    assert_int_equal(n_files(), 1);
}

static const char *write_tiny(int which)
{
    const char *path = model_temp_path("tiny.gguf");
    gguf_parts p = which == 0 ? tiny_v3() : tiny_v2();
    parts_save(&p, path);
    parts_free(&p);
    return path;
}

static const char *start(int which)
{
    snprintf(folder, sizeof folder, "%s", model_temp_path("cache"));
    empty_folder();
    return write_tiny(which);
}

/* ---- good weather -------------------------------------------------------------------------------
 */

static void test_twice(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        const char *path = start(which);
        check_load(path, true, true);
        check_load(path, true, false);
        check_load(path, false, false);
        empty_folder();
        check_load(path, false, true);
        check_load(path, true, false);
    }
}

/* Types of all kinds (those whose encoder searches a grid take long): the image is of the shape
 * that the model says. */
static void test_types(void **state)
{
    (void)state;
    const char *path = model_temp_path("typed.gguf");
    start(0);
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *info = fr_type_get((fr_type)t);
        if (info->gguf_id < 0 || !fr_type_can_encode((fr_type)t) ||
            strncmp(info->name, "iq", 2) == 0)
            continue;
        model_variant v = {.retype = true, .type = (fr_type)t};
        fr_status st = model_write_variant(MODEL_V3, &v, path, &err);
        assert_ok(st);
        if (fr_layout_in_memory((fr_type)t, 256, 256) == FR_LAYOUT_PLAIN)
            continue;
        empty_folder();
        check_load(path, true, true);
        check_load(path, true, false);
    }
}

static void test_nothing_to_keep(void **state)
{
    (void)state;
    const char *path = start(0);
    fr_store_config cfg = {.repack_cache = folder};
    fr_cpu_config cpu = {.n_threads = 1, .max_isa = FR_ISA_AUTO};
    loaded l = {0};
    assert_ok(fr_gguf_open(path, 0, &l.g, &err));
    assert_ok(fr_model_open(l.g, FR_MLA_AUTO, &l.m, &err));
    fr_model_set_layouts(l.m, false);
    assert_ok(fr_cpu_open(&cpu, &l.cpu, &err));
    assert_ok(fr_store_open(l.m, l.cpu, &cfg, &l.s, &err));
    close_all(&l);
    assert_int_equal(n_files(), 0);
}

/* Two models of one name have two images. */
static void test_same_name(void **state)
{
    (void)state;
    const char *path = start(0);
    check_load(path, true, true);
    char first[sizeof image];
    strcpy(first, image);
    write_tiny(1);
    loaded l;
    assert_ok(open_all(path, &(fr_store_config){.repack_cache = folder}, &l));
    close_all(&l);
    assert_int_equal(n_files(), 2);
    remove(first);
    check_load(path, true, false);
}

/* Parts for GPUs come from the image too, whatever the plan. */
static void test_plan(void **state)
{
    (void)state;
    const char *path = start(0);
    fr_hardware hw;
    fr_plan_options o = fr_plan_defaults();
    fr_rules *rules;
    fr_plan *plan;
    loaded a, b;
    if (!fr_gpu_sim())
        return;
    assert_ok(fr_gpu_sim_configure("devices=2,mb=256", &err));
    fr_hardware_defaults(&hw);
    hw.n_cores = hw.n_gpus = 2;
    hw.gpus[1].device = 1;
    o.n_ctx = 32;
    assert_ok(fr_rules_new(&rules, &err));
    assert_ok(fr_rules_add_cli(rules, "exps=CUDA1[0-3],exps=CPU", &err));
    assert_ok(open_all(path, &(fr_store_config){.repack_cache = folder}, &a));
    for (int i = 0; i < 2; i++)
        hw.gpus[i].vram_bytes = 64 << 20, hw.gpus[i].reserve_bytes = 0;
    assert_ok(fr_plan_make(a.m, &hw, rules, &o, &plan, NULL, &err));
    fr_store_config cfg = {.repack_cache = folder, .plan = plan, .gpu = fr_gpu_sim()};
    b = a;
    assert_ok(fr_store_open(a.m, a.cpu, &cfg, &b.s, &err));
    int down = fr_model_weight_of(a.m, 1, FR_ROLE_FFN_DOWN_EXPS), n;
    const fr_store_part *p = fr_store_parts(b.s, down, &n);
    const fr_weight *w = fr_store_weight(a.s, down);
    assert_int_equal(n, 2);
    assert_int_equal(p[0].device, 2);
    uint8_t *got = malloc(4 * w->mat_bytes);
    fr_gpu_stream *s;
    assert_ok(fr_gpu_sim()->stream_open(1, &s, &err));
    assert_ok(fr_gpu_sim()->copy_out(got, p[0].w.data, 4 * w->mat_bytes, s, &err));
    assert_ok(fr_gpu_sim()->stream_wait(s, &err));
    fr_gpu_sim()->stream_close(s);
    assert_memory_equal(got, w->data, 4 * w->mat_bytes);
    assert_memory_equal(p[1].w.data, (const uint8_t *)w->data + 4 * w->mat_bytes, 4 * w->mat_bytes);
    free(got);
    fr_store_close(b.s);
    fr_plan_free(plan);
    fr_rules_free(rules);
    close_all(&a);
}

/* ---- bad weather --------------------------------------------------------------------------------
 */

static void flip(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static off_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* Of the image: 32 bytes, which count the 40 of each file and the 72 of each weight. */
static off_t head_size(void)
{
    struct {
        uint32_t magic[3], n_files;
        uint64_t n_entries;
    } head;
    int fd = open(image, O_RDONLY);
    assert_true(fd >= 0 && read(fd, &head, sizeof head) == sizeof head);
    close(fd);
    return 32 + 40 * (off_t)head.n_files + 72 * (off_t)head.n_entries;
}

static void test_damaged(void **state)
{
    (void)state;
    const char *path = start(0);
    check_load(path, true, true);
    off_t size = size_of(image), head = head_size();
    for (off_t at = 0; at < head; at += at < 32 ? 3 : 61) {
        flip(image, at);
        check_load(path, at % 2, true);
        assert_true(logged(at < 8 ? "it is no image" : "it is damaged"));
        assert_int_equal(size_of(image), size);
    }
    static const off_t sizes[] = {0, 1, 7, 8, 100, 4096, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(truncate(image, sizes[i]), 0);
        check_load(path, true, true);
    }
    assert_int_equal(truncate(image, size - 1), 0);
    check_load(path, true, true);
    assert_true(logged("it is not complete"));
    assert_int_equal(truncate(image, size + 1), 0);
    check_load(path, true, true);
}

/* Another file of the same header: another time, or other weights. */
static void test_changed_model(void **state)
{
    (void)state;
    const char *path = start(0);
    check_load(path, true, true);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    struct timespec times[2] = {st.st_atim, st.st_mtim};
    times[1].tv_nsec ^= 1 << 20;
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    check_load(path, true, true);
    check_load(path, true, false);
    flip(path, size_of(path) - 100);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    check_load(path, true, true);
    assert_true(logged("another version of the model"));
}

/* Leaves at most n files behind. */
static void expect_failure_with(const char *path, const fr_store_config *cfg, fr_status want,
                                const char *text, int n)
{
    loaded l;
    assert_int_equal(open_all(path, cfg, &l), want);
    close_all(&l);
    if (!strstr(err.text, text))
        fail_msg("found '%s', expected '%s' in it", err.text, text);
    assert_in_range(n_files(), 0, n);
}

static void expect_failure(const char *path, const fr_store_config *cfg, fr_status want,
                           const char *text)
{
    expect_failure_with(path, cfg, want, text, 0);
}

static bool stop_at_once(void *user, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
    return false;
}

static void test_refusals(void **state)
{
    (void)state;
    const char *path = start(0);
    fr_store_config cfg = {.repack_cache = folder};
    free_blocks = 3;
    expect_failure(path, &cfg, FR_EIO, "found 3.0 KiB free, expected");
    free_blocks = 0;
    struct rlimit old, small = {10000, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect_failure(path, &cfg, FR_EIO, "no room for");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    cfg.progress = stop_at_once;
    /* The caller's thread is asked: it may come when others have made the whole image. */
    expect_failure_with(path, &cfg, FR_ECANCELLED, "stopped by the user", 1);
    assert_true(n_files() == 0 || !strstr(image, ".tmp-"));
    empty_folder();
    cfg.progress = NULL;
    cfg.repack_cache = "/nonexistent/folder";
    expect_failure(path, &cfg, FR_EIO, "repack cache /nonexistent/folder: cannot be made");
    cfg.repack_cache = path;
    expect_failure(path, &cfg, FR_EIO, "Not a directory");
    check_load(path, true, true);
    /* somebody's folder stands where the image belongs */
    char name[sizeof image];
    strcpy(name, image);
    remove(image);
    assert_int_equal(mkdir(name, 0700), 0);
    loaded l;
    cfg.repack_cache = folder;
    assert_int_equal(open_all(path, &cfg, &l), FR_EIO);
    close_all(&l);
    assert_true(logged("not a regular file"));
    assert_int_equal(n_files(), 1);
    assert_int_equal(rmdir(name), 0);
    /* what a start that was killed left behind is named, and left alone */
    strcat(name, ".tmp-1");
    assert_int_equal(close(creat(name, 0600)), 0);
    assert_ok(open_all(path, &cfg, &l));
    close_all(&l);
    assert_true(logged(name) && logged("was killed"));
    assert_int_equal(n_files(), 2);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    const char *path = start(0);
    fr_store_config cfg = {.repack_cache = folder, .mmap = true};
    size_t before = fr_mem_total().bytes_now;
    for (int found = 0; found < 2; found++) {
        fr_status st = FR_ENOMEM;
        for (uint64_t n = 1; st != FR_OK; n++) {
            loaded l;
            if (!found)
                empty_folder();
            fr_mem_fail_at(n, 0);
            st = open_all(path, &cfg, &l);
            fr_mem_fail_at(0, 0);
            close_all(&l);
            assert_int_equal(fr_mem_total().bytes_now, before);
            assert_true(st == FR_OK || (st == FR_ENOMEM && strlen(err.text) > 0));
            assert_true(n_files() == 0 || (n_files() == 1 && !strstr(image, ".tmp")));
        }
        assert_int_equal(n_files(), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twice),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_nothing_to_keep),
        cmocka_unit_test(test_same_name),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_changed_model),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_out_of_memory),
    };
    fr_log_set_sink(keep_log, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
