/* Loading: huge pages and locked memory do what they say, and --bench MODEL [THREADS [ROUNDS]]
 * measures the speed of loading beside that of reading alone: the same threads, the same pieces. */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store.h"
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

static int n_warnings;

static void count_warnings(void *user, fr_log_level level, const char *line)
{
    (void)user;
    n_warnings += level == FR_LOG_WARN && strstr(line, "may be swapped out") != NULL &&
                  strstr(line, "ulimit -l") != NULL;
}

/* ---- options ------------------------------------------------------------------------------------
 */

typedef struct {
    fr_gguf *g;
    fr_model *m;
    fr_cpu *cpu;
    fr_store *s;
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
    assert_ok(fr_store_open(b.m, b.cpu, &(fr_store_config){.huge_pages = true}, &b.s, &err));
    long got = proc_sum("smaps", "AnonHugePages:") - before;
    same_weights(&a, &b);
    if (!has_huge_pages() || got == 0) /* or none is left on this machine */
        print_message("the system gave no huge pages\n");
    else
        assert_true((uint64_t)got * 1024 + (6 << 20) >= fr_store_bytes(b.s, 0));
    close_model(&a);
    close_model(&b);
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

/* ---- the bench ----------------------------------------------------------------------------------
 */

enum { PIECE = 512 << 10 };

typedef struct {
    const loaded *l;
    const int *weights; /* that the store reads */
    int64_t *first;     /* [n + 1] pieces */
    int n;
    uint8_t *rooms;
    atomic_int_fast64_t next;
} reading;

static void read_thread(void *arg, int i_thread, int n_threads)
{
    (void)n_threads;
    reading *r = arg;
    uint8_t *room = r->rooms + (size_t)i_thread * PIECE;
    int64_t k;
    for (int i = 0; (k = atomic_fetch_add(&r->next, 1)) < r->first[r->n];) {
        while (r->first[i + 1] <= k)
            i++;
        const fr_gguf_tensor *t = r->l->m->weights[r->weights[i]].src;
        uint64_t from = (uint64_t)(k - r->first[i]) * PIECE, left = t->bytes - from;
        fr_gguf_read_tensor(r->l->g, t, from, left < PIECE ? left : PIECE, room, NULL);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double read_seconds(const loaded *l, const int *weights, int n)
{
    size_t n_threads = (size_t)fr_cpu_n_threads(l->cpu);
    reading r = {.l = l, .weights = weights, .n = n};
    r.first = calloc((size_t)n + 1, sizeof *r.first);
    r.rooms = malloc(n_threads * PIECE);
    memset(r.rooms, 1, n_threads * PIECE);
    for (int i = 0; i < n; i++)
        r.first[i + 1] =
            r.first[i] + (int64_t)((l->m->weights[weights[i]].src->bytes + PIECE - 1) / PIECE);
    double start = now();
    fr_cpu_run(l->cpu, read_thread, &r);
    double seconds = now() - start;
    free(r.first);
    free(r.rooms);
    return seconds;
}

/* Memory that was touched and given back: a virtual machine may have to be given it first. */
static double touch_seconds(uint64_t bytes)
{
    double start = now();
    uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    madvise(p, bytes, MADV_HUGEPAGE);
    for (uint64_t i = 0; i < bytes; i += 4096)
        p[i] = 1;
    munmap(p, bytes);
    return now() - start;
}

static void evict(const loaded *l)
{
    for (int i = 0; i < fr_gguf_n_files(l->g); i++) {
        fr_file f;
        assert_ok(fr_file_open(fr_gguf_path(l->g, i), &f, &err));
        posix_fadvise(f.fd, 0, 0, POSIX_FADV_DONTNEED);
        fr_file_close(&f);
    }
}

static void bench_round(loaded *l, const int *weights, int n, uint64_t bytes, bool cold, bool huge)
{
    double touch = touch_seconds(bytes), read, load, start;
    if (cold)
        evict(l);
    read = read_seconds(l, weights, n);
    if (cold)
        evict(l);
    start = now();
    assert_ok(fr_store_open(l->m, l->cpu, &(fr_store_config){.mmap = true, .huge_pages = huge},
                            &l->s, &err));
    load = now() - start;
    fr_store_close(l->s);
    l->s = NULL;
    double gb = (double)bytes / 1e9;
    printf(
        "%-10s %-5s read %6.2f GB/s   load %6.2f GB/s   %3.0f %%   (memory touched once: %.2f)\n",
        cold ? "storage" : "page cache", huge ? "-thp" : "", gb / read, gb / load,
        100 * read / load, gb / touch);
}

static int bench(const char *path, int n_threads, int n_rounds)
{
    loaded l;
    int n = 0;
    uint64_t bytes = 0;
    open_model(path, n_threads, &l);
    int *weights = calloc((size_t)l.m->n_weights, sizeof *weights);
    for (int i = 0; i < l.m->n_weights; i++) {
        const fr_model_weight *w = &l.m->weights[i];
        if (!w->src || w->derive != FR_DERIVE_NONE || w->src->layout == w->shape.layout)
            continue;
        weights[n++] = i;
        bytes += w->src->bytes;
    }
    printf("%s: %.2f GB are repacked, %d threads\n", path, (double)bytes / 1e9,
           fr_cpu_n_threads(l.cpu));
    read_seconds(&l, weights, n); /* into the page cache */
    for (int i = 0; i < n_rounds; i++)
        for (int huge = 0; huge < 2; huge++)
            bench_round(&l, weights, n, bytes, false, huge);
    bench_round(&l, weights, n, bytes, true, false);
    free(weights);
    close_model(&l);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_huge_pages),
        cmocka_unit_test(test_lock),
    };
    if (argc > 2 && strcmp(argv[1], "--bench") == 0)
        return bench(argv[2], argc > 3 ? atoi(argv[3]) : 0, argc > 4 ? atoi(argv[4]) : 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
