/* The --bench of test_kernels: speed of the best tier through fr_cpu_matmul, beside the scalar tier
 * and the machine's read bandwidth; and of one thread whose weights stay in its cache, which is
 * what the arithmetic allows when memory does not hold it up. Included by test_kernels.c only, so
 * nothing is timed that was not checked. */
#ifndef FR_TEST_KERNEL_BENCH_H
#define FR_TEST_KERNEL_BENCH_H

typedef struct {
    bool on;
    int n_threads;    /* 0: all cores */
    const char *only; /* a type's name, or NULL */
    fr_isa isa;       /* of the fast side */
} bench_options;

#define BENCH_BYTES                                                                                \
    (512ll << 20) /* of a matrix for the matrix-vector product: beyond the caches                  \
                   */
#define BENCH_COLS 4096

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    const uint64_t *p;
    int64_t n;
    uint64_t sums[CPU_MAX_TOKENS];
} read_job;

static void read_part(void *arg, int i_thread, int n_threads)
{
    read_job *j = arg;
    int64_t from, to;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    fr_cpu_share(j->n, 512, i_thread, n_threads, &from, &to);
    for (int64_t i = from; i < to; i += 8) {
        const uint64_t *p = j->p + i;
        __builtin_prefetch(p + 512);
        a += p[0] + p[1], b += p[2] + p[3], c += p[4] + p[5], d += p[6] + p[7];
    }
    j->sums[i_thread % CPU_MAX_TOKENS] = a + b + c + d;
}

/* Best of five, in GB/s. */
static double read_bandwidth(fr_cpu *cpu, const void *p)
{
    read_job j = {.p = p, .n = BENCH_BYTES / 8};
    double least = 1e9;
    for (int i = 0; i < 5; i++) {
        double start = now_s();
        fr_cpu_run(cpu, read_part, &j);
        double s = now_s() - start;
        least = s < least ? s : least;
    }
    return (double)BENCH_BYTES / least * 1e-9;
}

/* Seconds of one product: the best of some within about a quarter of a second. */
static double time_matmul(fr_cpu *cpu, const fr_weight *w, const fr_act *x, float *y)
{
    double least = 1e9, begin = now_s();
    for (int i = 0; i < 3 || (now_s() - begin < 0.25 && i < 1000); i++) {
        double start = now_s();
        fr_cpu_matmul(cpu, w, x, x->n_rows, y, w->rows);
        double s = now_s() - start;
        least = s < least ? s : least;
    }
    return least;
}

#define CACHED_BYTES (256 << 10) /* of weights: in the second-level cache of any machine */

/* GB/s of weights of one kernel call after the other on rows that stay in the cache, by the caller
 * alone: the best of 20 times a few milliseconds. */
static double cached_speed(const cpu_kernel *k, const fr_weight *w, const fr_act *x, float *y)
{
    size_t row_bytes = fr_row_bytes(w->type, w->layout, w->cols);
    int64_t rows = (int64_t)(CACHED_BYTES / row_bytes) / k->grain * k->grain;
    const void *rows_x[1] = {x->data};
    float *rows_y[1] = {y};
    cpu_dot_args a = {.type = w->type,
                      .layout = w->layout,
                      .act = x->type,
                      .n_tokens = 1,
                      .cols = w->cols,
                      .base = w->data,
                      .row_to = rows > 0 ? rows : k->grain,
                      .x = rows_x,
                      .y = rows_y};
    double least = 1e9;
    for (int i = 0; i < 20; i++) {
        double start = now_s(), s;
        int n = 0;
        do {
            k->dot(&a);
            n++;
            s = now_s() - start;
        } while (s < 3e-3);
        least = s / n < least ? s / n : least;
    }
    return (double)a.row_to * (double)row_bytes / least * 1e-9;
}

/* 10^9 multiply-adds a second, times two. */
static double gops(const fr_weight *w, int64_t n_tokens, double s)
{
    return 2e-9 * (double)w->rows * (double)w->cols * (double)n_tokens / s;
}

static void bench_type(fr_cpu *fast, fr_cpu *scalar, fr_type type, fr_layout layout, uint8_t *data,
                       float *x, float *y, void *room, double peak)
{
    enum { TOKENS = 256, SMALL = 256 };
    size_t row_bytes = fr_row_bytes(type, layout, BENCH_COLS);
    bool own = strncmp(fast->table.dot[type][layout].name, "any", 3) != 0;
    int64_t bytes = own ? BENCH_BYTES : BENCH_BYTES / 64; /* decoding is far slower than memory */
    int64_t rows = bytes / (int64_t)row_bytes / 64 * 64;
    if (fr_type_check(type, layout, rows, BENCH_COLS, NULL) != FR_OK ||
        !fill_weights(type, layout, W_RANDOM, SMALL, BENCH_COLS, data))
        return;
    size_t filled = SMALL * row_bytes, all = (size_t)rows * row_bytes;
    for (size_t at = filled; at < all; at += filled)
        memcpy(data + at, data, all - at < filled ? all - at : filled);
    fr_weight big = fr_weight_make(type, layout, BENCH_COLS, rows, 1), small = big;
    small.rows = SMALL;
    big.data = small.data = data;
    fr_act_type act = fr_cpu_act_type(fast, &big);
    fr_act one = fr_cpu_act_prepare(fast, act, x, BENCH_COLS, 1, BENCH_COLS, room);
    double vector = time_matmul(fast, &big, &one, y);
    double vector_small = time_matmul(fast, &small, &one, y);
    double cached = cached_speed(&fast->table.dot[type][layout], &small, &one, y);
    double vector_ref = time_matmul(scalar, &small, &one, y);
    fr_act many = fr_cpu_act_prepare(fast, act, x, BENCH_COLS, TOKENS, BENCH_COLS, room);
    double matrix = time_matmul(fast, &small, &many, y);
    many.n_rows = 8;
    double matrix_ref = time_matmul(scalar, &small, &many, y);
    printf("%-14s %-22s %8.1f %5.0f%% %8.1f %8.1f %7.1fx %10.1f %7.1fx\n",
           fr_type_name(type, layout), fast->table.dot[type][layout].name,
           (double)all / vector * 1e-9, (double)all / vector * 1e-7 / peak, cached,
           gops(&big, 1, vector), vector_ref / vector_small, gops(&small, TOKENS, matrix),
           gops(&small, TOKENS, matrix) / gops(&small, 8, matrix_ref));
}

static int bench_all(const bench_options *o)
{
    fr_err err = {0};
    fr_cpu *fast, *scalar;
    fr_cpu_config cfg = {.n_threads = o->n_threads, .max_isa = o->isa};
    if (fr_cpu_open(&cfg, &fast, &err) != FR_OK)
        return 1;
    cfg.max_isa = FR_ISA_SCALAR;
    if (fr_cpu_open(&cfg, &scalar, &err) != FR_OK)
        return 1;
    uint8_t *data = fr_mem_alloc(FR_MEM_MISC, BENCH_BYTES + 4096);
    float *x = fr_mem_alloc(FR_MEM_MISC, 256 * BENCH_COLS * sizeof(float));
    float *y = fr_mem_alloc(FR_MEM_MISC, 64ll << 20);
    void *room = fr_mem_alloc(FR_MEM_MISC, 256 * BENCH_COLS * sizeof(float));
    memset(data, 1, BENCH_BYTES);
    fill_x(X_RANDOM, 256 * BENCH_COLS, x);
    double peak = read_bandwidth(fast, data);
    printf("%d threads, %s; reading %.1f GB/s\n", fr_cpu_n_threads(fast),
           fr_isa_name(fr_cpu_isa(fast)), peak);
    printf("%-14s %-22s %8s %6s %8s %8s %8s %10s %8s\n", "type", "kernel", "1: GB/s", "read",
           "cached", "1: GOPS", "scalar", "256: GOPS", "scalar");
    for (int type = 0; type < FR_TYPE_COUNT; type++) {
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++) {
            if (!o->only || !strcasecmp(o->only, fr_type_name((fr_type)type, (fr_layout)layout)))
                bench_type(fast, scalar, (fr_type)type, (fr_layout)layout, data, x, y, room, peak);
        }
    }
    fr_mem_free(data);
    fr_mem_free(x);
    fr_mem_free(y);
    fr_mem_free(room);
    fr_cpu_close(fast);
    fr_cpu_close(scalar);
    return 0;
}

#endif
