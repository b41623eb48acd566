/* --load: how fast weights come into memory, beside reading the file and doing nothing with it. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "common/interrupt.h"

enum {
    N_REQUESTS = 8, /* in flight, when storage is read alone */
    STORAGE_PIECE = 1 << 20,
    TOUCH_PIECE = 2 << 20,
    CACHE_PIECE = 512 << 10 /* stays in a core's cache */
};

/* Reading files alone: pieces that threads take in their order. */
typedef struct {
    const fr_gguf *g;
    fr_file *direct; /* [n files]; or NULL: through the page cache */
    size_t piece;
    uint8_t *rooms; /* one a thread */
    size_t room;
    atomic_uint_fast64_t next; /* byte, of all files back to back; pieces begin anew in each */
    atomic_bool failed;
} reading;

/* Where byte `at` of all files is; false behind the last one. */
static bool find_file(const reading *r, uint64_t at, int *i_file, uint64_t *from)
{
    for (int i = 0; i < fr_gguf_n_files(r->g); i++) {
        uint64_t pieces = (fr_gguf_file(r->g, i)->size + r->piece - 1) / r->piece;
        if (at < pieces * r->piece) {
            *i_file = i;
            *from = at;
            return true;
        }
        at -= pieces * r->piece;
    }
    return false;
}

static void read_pieces(void *arg, int i_thread, int n_threads)
{
    reading *r = arg;
    uint8_t *room = r->rooms + (size_t)i_thread * r->room;
    const uint8_t *bytes;
    int i;
    uint64_t from;
    (void)n_threads;
    while (!atomic_load(&r->failed) &&
           find_file(r, atomic_fetch_add(&r->next, r->piece), &i, &from)) {
        const fr_file *f = fr_gguf_file(r->g, i);
        const char *path = fr_gguf_path(r->g, i);
        size_t n = f->size - from < r->piece ? (size_t)(f->size - from) : r->piece;
        fr_status st = r->direct
                           ? fr_file_read_direct(&r->direct[i], from, n, room, &bytes, path, NULL)
                           : fr_file_read_at(f, from, room, n, path, NULL);
        if (st != FR_OK)
            atomic_store(&r->failed, true);
    }
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Reads all files by the threads of cpu; *seconds. */
static fr_status time_reading(reading *r, fr_cpu *cpu, double *seconds, fr_err *err)
{
    size_t n = (size_t)fr_cpu_n_threads(cpu);
    r->room = fr_file_direct_room(r->piece);
    uint8_t *rooms = fr_mem_array(FR_MEM_MISC, n * r->room + FR_FILE_BLOCK, 1, err);
    if (!rooms)
        return FR_ENOMEM;
    r->rooms = rooms + (FR_FILE_BLOCK - (uintptr_t)rooms % FR_FILE_BLOCK);
    atomic_init(&r->next, 0);
    double start = seconds_now();
    fr_cpu_run(cpu, read_pieces, r);
    *seconds = seconds_now() - start;
    fr_mem_free(rooms);
    return atomic_load(&r->failed)
               ? fr_fail(err, FR_EIO, "%s: cannot be read", fr_gguf_path(r->g, 0))
               : FR_OK;
}

static fr_status read_cached(const fr_gguf *g, fr_cpu *cpu, double *seconds, fr_err *err)
{
    reading r = {.g = g, .piece = CACHE_PIECE};
    return time_reading(&r, cpu, seconds, err);
}

static fr_status read_storage(const fr_gguf *g, fr_cpu *cpu, double *seconds, fr_err *err)
{
    reading r = {.g = g, .piece = STORAGE_PIECE};
    int n = fr_gguf_n_files(g);
    r.direct = FR_NEW(fr_file, FR_MEM_MISC, (size_t)n, err);
    fr_status st = r.direct ? FR_OK : FR_ENOMEM;
    for (int i = 0; r.direct && i < n; i++)
        r.direct[i] = FR_FILE_CLOSED;
    for (int i = 0; st == FR_OK && i < n; i++)
        st = fr_file_open_direct(fr_gguf_file(g, i), &r.direct[i], err);
    if (st == FR_OK)
        st = time_reading(&r, cpu, seconds, err);
    for (int i = 0; r.direct && i < n; i++)
        fr_file_close(&r.direct[i]);
    fr_mem_free(r.direct);
    return st;
}

/* ---- one round ------------------------------------------------------------------------------- */

typedef struct {
    fr_engine_config cfg;
    fr_gguf *g;                /* to read alone; owned */
    fr_cpu *cached, *requests; /* threads that read alone; owned */
    uint64_t bytes;            /* of the files */
    uint8_t *memory;           /* as much, while it is got ready; owned */
    atomic_uint_fast64_t touched;
} load_bench;

static void forget(const load_bench *b)
{
    for (int i = 0; i < fr_gguf_n_files(b->g); i++)
        fr_file_forget(fr_gguf_file(b->g, i));
}

static void touch_pieces(void *arg, int i_thread, int n_threads)
{
    load_bench *b = arg;
    uint64_t at;
    (void)i_thread, (void)n_threads;
    while ((at = atomic_fetch_add(&b->touched, TOUCH_PIECE)) < b->bytes)
        fr_mem_populate(b->memory + at, b->bytes - at < TOUCH_PIECE ? b->bytes - at : TOUCH_PIECE);
}

/* Takes as much memory as the files and has the system get it ready. What is given back then comes
 * at once for a while, which other memory of a virtual machine may not. */
static fr_status take_memory(load_bench *b, double *seconds, fr_err *err)
{
    b->memory = fr_mem_array(FR_MEM_MISC, b->bytes, 1, err);
    if (!b->memory)
        return FR_ENOMEM;
    double start = seconds_now();
    fr_mem_want_huge_pages(b->memory);
    atomic_init(&b->touched, 0);
    fr_cpu_run(b->cached, touch_pieces, b);
    *seconds = seconds_now() - start;
    return FR_OK;
}

/* What the threads did, in parts of the time of reading. */
static void print_row(const char *from, const load_bench *b, double reading_s, double memory_s,
                      const fr_store_loading *l)
{
    double read = (double)b->bytes * 1e-9 / reading_s;
    double load = (double)l->read_bytes * 1e-9 / l->seconds;
    printf("| %-10s | %12.2f |", from, read);
    if (memory_s > 0)
        printf(" %11.2f |", (double)b->bytes * 1e-9 / memory_s);
    else
        printf(" %11s |", "not ready");
    printf(" %9.2f | %9.2f |", l->seconds, (double)l->mapped_bytes * 1e-9);
    if (l->read_bytes == 0) {
        printf(" %12s | %9s | %6s | %6s | %6s | %6s | %6s |\n", "mapped", "-", "-", "-", "-", "-",
               "-");
        return;
    }
    double part = 100 / (l->read_s * l->n_threads);
    printf(" %12.2f | %7.0f %% |", load, 100 * load / read);
    printf(" %4.0f %% | %4.0f %% | %4.0f %% | %4.0f %% |", part * l->memory_s, part * l->copy_s,
           part * l->repack_s, part * l->wait_s);
    if (l->cached_bytes > l->read_bytes / 2) /* buffers wait for the threads then */
        printf(" %6s |\n", "-");
    else
        printf(" %4.0f %% |\n", 100 * l->full_s / l->read_s);
}

static fr_status load_once(const load_bench *b, fr_store_loading *out, fr_err *err)
{
    fr_engine *e;
    FR_TRY(tool_check_interrupt(err));
    FR_TRY(fr_engine_open(&b->cfg, &e, err));
    *out = fr_engine_describe(e).loading;
    fr_engine_close(e);
    return FR_OK;
}

/* Reading alone comes last before loading, and in all rounds after the same. */
static fr_status run_round(load_bench *b, bool storage, bool ready, fr_err *err)
{
    double seconds, memory_s = 0;
    fr_store_loading l;
    if (ready)
        FR_TRY(take_memory(b, &memory_s, err));
    if (storage)
        forget(b);
    else
        FR_TRY(read_cached(b->g, b->cached, &seconds, err)); /* brings it there */
    FR_TRY(storage ? read_storage(b->g, b->requests, &seconds, err)
                   : read_cached(b->g, b->cached, &seconds, err));
    if (storage)
        forget(b);
    fr_mem_free(b->memory);
    b->memory = NULL;
    FR_TRY(load_once(b, &l, err));
    print_row(storage ? "storage" : "page cache", b, seconds, memory_s, &l);
    return fflush(stdout) != 0 || ferror(stdout) ? tool_fail_output(err) : FR_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static fr_status open_bench(const fr_options *o, load_bench *b, fr_err *err)
{
    fr_cpu_config cpu = {.n_threads = N_REQUESTS, .max_isa = FR_ISA_AUTO};
    FR_TRY(tool_engine_config(o, &b->cfg, err));
    b->cfg.n_ctx = 512;
    b->cfg.progress = NULL;
    FR_TRY(fr_cpu_open(&cpu, &b->requests, err));
    cpu.n_threads = b->cfg.n_threads;
    return fr_cpu_open(&cpu, &b->cached, err);
}

static fr_status bench_file(const fr_options *o, load_bench *b, const char *path, fr_err *err)
{
    char size[32];
    fr_status st = FR_OK;
    b->cfg.model_path = path;
    b->bytes = 0;
    FR_TRY(fr_gguf_open(path, FR_GGUF_NO_MMAP, &b->g, err));
    for (int i = 0; i < fr_gguf_n_files(b->g); i++)
        b->bytes += fr_gguf_file(b->g, i)->size;
    printf("\n%s: %s, %d threads\n\n", path, fr_format_bytes(b->bytes, size),
           fr_cpu_n_threads(b->cached));
    printf("| from       | reading GB/s | memory GB/s | loading s | mapped GB | loading GB/s | of "
           "reading | memory |   copy | repack | await  | full   |\n"
           "| ---------- | -----------: | ----------: | --------: | --------: | -----------: | "
           "---------: | -----: | -----: | -----: | -----: | -----: |\n");
    for (int i = 0; st == FR_OK && i < 4 * o->bench_repetitions; i++)
        st = run_round(b, i % 2 == 0, i % 4 >= 2, err);
    fr_mem_free(b->memory);
    b->memory = NULL;
    fr_gguf_close(b->g);
    return st;
}

fr_status bench_load(fr_options *o, fr_err *err)
{
    load_bench b = {0};
    fr_status st;
    FR_TRY(fr_opts_require(o, FR_OPT_bench_model, err));
    FR_TRY(bench_assign_single(o, "--load", err));
    FR_TRY_OUT(st, open_bench(o, &b, err));
    tool_catch_interrupts();
    for (size_t i = 0; i < o->bench_model.n; i++)
        FR_TRY_OUT(st, bench_file(o, &b, o->bench_model.items[i].text, err));
out:
    fr_cpu_close(b.cached);
    fr_cpu_close(b.requests);
    return st;
}
