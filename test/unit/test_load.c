/* Loading: huge pages and locked memory do what they say. */
#include "testing.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_internal.h"
#include "support/models.h"

static fr_err err;

/* ---- what the system says -----------------------------------------------------------------------
 */

/* The sum of the numbers (kB) behind a name in a file of /proc/self. */
static long proc_sum(const char *file, const char *name)
{
    char path[64], line[512];
    long sum = 0, value;
    snprintf(path, sizeof path, "/proc/self/%s", file);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0 &&
            sscanf(line + strlen(name), " %ld", &value) == 1)
            sum += value;
    fclose(f);
    return sum;
}

static long meminfo(const char *name)
{
    char line[256];
    long value = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtol(line + strlen(name), NULL, 10);
    if (f)
        fclose(f);
    return value;
}

static bool has_huge_pages(void)
{
    char text[128] = "";
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    bool read = f && fgets(text, sizeof text, f);
    if (f)
        fclose(f);
    return read && !strstr(text, "[never]");
}

static bool refuse_mlock;
static size_t locked_bytes;

int mlock(const void *p, size_t bytes)
{
    if (refuse_mlock) {
        errno = ENOMEM;
        return -1;
    }
    locked_bytes += bytes;
    return (int)syscall(SYS_mlock, p, bytes);
}

static int n_warnings, n_huge_warnings;

static void count_warnings(void *user, fr_log_level level, const char *line)
{
    (void)user;
    n_warnings += level == FR_LOG_WARN && strstr(line, "may be swapped out") != NULL &&
                  strstr(line, "ulimit -l") != NULL;
    n_huge_warnings += level == FR_LOG_WARN && strstr(line, "huge pages for weights") != NULL &&
                       strstr(line, "vm.nr_hugepages") != NULL;
}

/* ---- options ------------------------------------------------------------------------------------
 */

typedef struct {
    fr_gguf *g;
    fr_model *m;
    fr_cpu *cpu;
    fr_store *s, *plain;
} loaded;

static void open_model(const char *path, int n_threads, loaded *l)
{
    *l = (loaded){0};
    fr_cpu_config cpu = {.n_threads = n_threads, .max_isa = FR_ISA_AUTO};
    assert_ok(fr_gguf_open(path, 0, &l->g, &err));
    assert_ok(fr_model_open(l->g, FR_MLA_AUTO, &l->m, &err));
    assert_ok(fr_cpu_open(&cpu, &l->cpu, &err));
}

static void close_model(loaded *l)
{
    fr_store_close(l->s);
    fr_store_close(l->plain);
    fr_cpu_close(l->cpu);
    fr_model_close(l->m);
    fr_gguf_close(l->g);
}

static void same_weights(const loaded *a, const loaded *b)
{
    for (int i = 0; i < a->m->n_weights; i++) {
        const fr_weight *x = fr_store_weight(a->s, i), *y = fr_store_weight(b->s, i);
        assert_int_equal(x->layout, y->layout);
        if (a->m->weights[i].derive != FR_DERIVE_VIEW)
            assert_memory_equal(x->data, y->data, a->m->weights[i].bytes);
    }
}

static void test_huge_pages(void **state)
{
    (void)state;
    loaded a, b;
    open_model(MODEL_KJV, 2, &a);
    assert_ok(fr_store_open(a.m, a.cpu, &(fr_store_config){0}, &a.s, &err));
    long before = proc_sum("smaps", "AnonHugePages:");
    open_model(MODEL_KJV, 2, &b);
    assert_ok(fr_store_open(b.m, b.cpu, &(fr_store_config){.pages = FR_PAGES_ADVISE}, &b.s, &err));
    long got = proc_sum("smaps", "AnonHugePages:") - before;
    same_weights(&a, &b);
    if (!has_huge_pages() || got == 0) /* or none is left on this machine */
        print_message("the system gave no huge pages\n");
    else
        assert_true((uint64_t)got * 1024 + (6 << 20) >= fr_store_bytes(b.s, 0));
    close_model(&a);
    close_model(&b);
}

/* Pages that the administrator set aside, or a warning with their numbers and the weights all the
 * same. */
static void test_pages_set_aside(void **state)
{
    (void)state;
    loaded l;
    fr_store_config cfg = {.pages = FR_PAGES_HUGE};
    size_t before = fr_mem_total().bytes_now;
    long free_pages = meminfo("HugePages_Free:");
    open_model(MODEL_KJV, 1, &l);
    n_huge_warnings = 0;
    fr_log_set_sink(count_warnings, NULL);
    assert_ok(fr_store_open(l.m, l.cpu, &cfg, &l.s, &err));
    fr_log_set_sink(NULL, NULL);
    bool taken = meminfo("HugePages_Free:") < free_pages;
    assert_int_equal(n_huge_warnings, taken ? 0 : 1);
    if (!taken)
        print_message("no huge pages are set aside here\n");
    assert_ok(fr_store_open(l.m, l.cpu, &(fr_store_config){0}, &l.plain, &err));
    for (int i = 0; i < l.m->n_weights; i++)
        if (l.m->weights[i].derive != FR_DERIVE_VIEW)
            assert_memory_equal(fr_store_weight(l.s, i)->data, fr_store_weight(l.plain, i)->data,
                                l.m->weights[i].bytes);
    close_model(&l);
    assert_int_equal(fr_mem_total().bytes_now, before);
    assert_int_equal(meminfo("HugePages_Free:"), free_pages);
}

/* ---- memory got ready ---------------------------------------------------------------------------
 */

enum { FRESH_BYTES = 9 << 20 };

typedef struct {
    store_fresh *f;
    uint8_t *p;
    atomic_int n_worked;
} fresh_job;

static void ask_for_all(void *arg, int i_thread, int n_threads)
{
    fresh_job *job = arg;
    for (size_t i = 0; i < FRESH_BYTES; i += 300000) {
        size_t at = n_threads > 1 && i_thread == 0 ? FRESH_BYTES - 1 - i : i;
        size_t n = FRESH_BYTES - at < 400000 ? FRESH_BYTES - at : 400000;
        store_fresh_result got;
        while ((got = store_fresh_ask(job->f, job->p + at, n)) != STORE_FRESH_READY)
            job->n_worked += got == STORE_FRESH_WORKED;
    }
}

/* Every chunk once, and nothing beyond the memory; all of it is there then. */
static void test_fresh_memory(void **state)
{
    (void)state;
    long page = sysconf(_SC_PAGESIZE);
    unsigned char there[FRESH_BYTES / 4096 + 2];
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        fr_cpu_config cfg = {.n_threads = n_threads, .max_isa = FR_ISA_AUTO};
        fr_cpu *cpu;
        fresh_job job = {0};
        assert_ok(fr_cpu_open(&cfg, &cpu, &err));
        job.p = fr_mem_alloc(FR_MEM_MISC, FRESH_BYTES);
        assert_non_null(job.p);
        assert_ok(store_fresh_open(job.p, FRESH_BYTES, &job.f, &err));
        fr_cpu_run(cpu, ask_for_all, &job);
        if (job.n_worked > 1) { /* a block of 9 MiB meets 5 or 6 chunks */
            uint8_t *from = (uint8_t *)((uintptr_t)job.p / (uintptr_t)page * (uintptr_t)page);
            size_t n = (size_t)(job.p + FRESH_BYTES - from);
            assert_true(job.n_worked >= 5 && job.n_worked <= 6);
            assert_int_equal(mincore(from, n, there), 0);
            for (size_t i = 0; i < (n + (size_t)page - 1) / (size_t)page; i++)
                assert_true(there[i] & 1);
        }
        store_fresh_close(job.f);
        fr_mem_free(job.p);
        fr_cpu_close(cpu);
    }
}

static void test_lock(void **state)
{
    (void)state;
    for (int mmap = 0; mmap < 2; mmap++) {
        loaded l;
        fr_store_config cfg = {.mmap = mmap, .lock = true};
        open_model(MODEL_KJV, 1, &l);
        if (mmap)
            fr_model_set_layouts(l.m, false);
        n_warnings = 0;
        locked_bytes = 0;
        fr_log_set_sink(count_warnings, NULL);
        assert_ok(fr_store_open(l.m, l.cpu, &cfg, &l.s, &err));
        long locked = proc_sum("status", "VmLck:");
        if (n_warnings == 0) { /* else the limit of this process is too low */
            assert_true(locked_bytes >= l.m->file_bytes * 9 / 10);
            assert_true((size_t)locked * 1024 >= locked_bytes);
        }
        fr_store_close(l.s);
        refuse_mlock = true;
        n_warnings = 0;
        assert_ok(fr_store_open(l.m, l.cpu, &cfg, &l.s, &err));
        assert_int_equal(n_warnings, 1);
        refuse_mlock = false;
        fr_log_set_sink(NULL, NULL);
        close_model(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_huge_pages),
        cmocka_unit_test(test_pages_set_aside),
        cmocka_unit_test(test_fresh_memory),
        cmocka_unit_test(test_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
