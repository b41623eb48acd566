#include "cpu/kernel_speed.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/mem.h"
#include "cpu/kernels.h"

enum {
    MADE_ROWS = 16,          /* encoded; a multiple of every group. The rest repeats them. */
    ROWS_A_THREAD = 64,      /* of the matrix that stays in the cache */
    SCALAR_TOKENS = 8,       /* enough for the slow side */
    SLOW_PART = 64,          /* of the room is enough for kernels that decode to floats */
    CACHED_BYTES = 256 << 10 /* in the second-level cache of any machine */
};

struct fr_speed_meter {
    fr_cpu *fast, *scalar;
    uint8_t *weights; /* `bytes` of them, owned */
    size_t bytes;
    int64_t small_rows;
    float *x, *y, *y_scalar; /* owned */
    void *act;               /* owned */
    uint64_t rng;
};

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* xorshift64* */
static uint64_t draw(fr_speed_meter *m)
{
    m->rng ^= m->rng >> 12;
    m->rng ^= m->rng << 25;
    m->rng ^= m->rng >> 27;
    return m->rng * 0x2545F4914F6CDD1Dull;
}

/* Bell-shaped, deviation 1: the sum of four uniform numbers. */
static float draw_normal(fr_speed_meter *m)
{
    uint64_t u = draw(m);
    uint32_t sum = (uint32_t)(u & 0xFFFF) + (uint32_t)(u >> 16 & 0xFFFF) +
                   (uint32_t)(u >> 32 & 0xFFFF) + (uint32_t)(u >> 48);
    return ((float)sum - 131070.0f) * (1.7320508f / 65536.0f);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The longest result: one token and the whole room in the smallest type there is, or all tokens of
 * the small matrix. */
static size_t most_results(const fr_speed_meter *m)
{
    size_t least = fr_row_bytes(FR_TYPE_F32, FR_LAYOUT_PLAIN, FR_SPEED_COLS);
    for (int type = 0; type < FR_TYPE_COUNT; type++)
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++)
            if (fr_speed_possible((fr_type)type, (fr_layout)layout)) {
                size_t row = fr_row_bytes((fr_type)type, (fr_layout)layout, FR_SPEED_COLS);
                least = row < least ? row : least;
            }
    size_t one = m->bytes / least, many = (size_t)m->small_rows * FR_SPEED_TOKENS;
    return one > many ? one : many;
}

fr_status fr_speed_meter_open(fr_cpu *fast, fr_cpu *scalar, size_t bytes, fr_speed_meter **out,
                              fr_err *err)
{
    fr_speed_meter *m = FR_NEW(fr_speed_meter, FR_MEM_CPU, 1, err);
    if (!m)
        return FR_ENOMEM;
    size_t n_x = (size_t)FR_SPEED_TOKENS * FR_SPEED_COLS;
    *m = (fr_speed_meter){.fast = fast, .scalar = scalar, .rng = 0x9E3779B97F4A7C15ull};
    m->small_rows =
        (int64_t)ROWS_A_THREAD * (fr_cpu_n_threads(fast) < 4 ? 4 : fr_cpu_n_threads(fast));
    size_t small = (size_t)m->small_rows * FR_SPEED_COLS * sizeof(float);
    m->bytes = bytes < SLOW_PART * small ? SLOW_PART * small : bytes;
    m->weights = FR_NEW(uint8_t, FR_MEM_CPU, m->bytes, err);
    m->x = FR_NEW(float, FR_MEM_CPU, n_x, err);
    m->y = FR_NEW(float, FR_MEM_CPU, most_results(m), err);
    m->y_scalar = FR_NEW(float, FR_MEM_CPU, (size_t)m->small_rows *SCALAR_TOKENS, err);
    m->act = FR_NEW(float, FR_MEM_CPU, n_x, err);
    if (!m->weights || !m->x || !m->y || !m->y_scalar || !m->act) {
        fr_speed_meter_close(m);
        return FR_ENOMEM;
    }
    madvise(m->weights, m->bytes, MADV_HUGEPAGE); /* or the page tables are measured as well */
    memset(m->weights, 1, m->bytes);
    for (size_t i = 0; i < n_x; i++)
        m->x[i] = draw_normal(m);
    *out = m;
    return FR_OK;
}

void fr_speed_meter_close(fr_speed_meter *m)
{
    if (!m)
        return;
    fr_mem_free(m->weights);
    fr_mem_free(m->x);
    fr_mem_free(m->y);
    fr_mem_free(m->y_scalar);
    fr_mem_free(m->act);
    fr_mem_free(m);
}

const void *fr_speed_meter_room(const fr_speed_meter *m, size_t *bytes)
{
    *bytes = m->bytes;
    return m->weights;
}

bool fr_speed_possible(fr_type type, fr_layout layout)
{
    return fr_type_check(type, layout, MADE_ROWS, FR_SPEED_COLS, NULL) == FR_OK;
}

/* ---- weights --------------------------------------------------------------------------------- */

static bool all_sane(fr_type type, fr_layout layout, const uint8_t *group, int n_rows, float *room)
{
    for (int r = 0; r < n_rows; r++) {
        fr_decode_row(type, layout, group, r, FR_SPEED_COLS, room);
        for (int i = 0; i < FR_SPEED_COLS; i++)
            if (!(fabsf(room[i]) < 1e15f) || (room[i] != 0 && fabsf(room[i]) < 1e-30f))
                return false;
    }
    return true;
}

/* For types that nothing encodes: random codes, and random scales as far as they are numbers, and
 * none that computing with would take processors longer (subnormal ones). Every
 * group of rows is drawn until it decodes to numbers; zeros when that takes too long. */
static void draw_rows(fr_speed_meter *m, fr_type type, fr_layout layout, uint8_t *dst)
{
    enum { TRIES = 400 };
    int group = fr_layout_rows(type, layout);
    size_t bytes = (size_t)group * fr_row_bytes(type, layout, FR_SPEED_COLS);
    for (uint8_t *p = dst; p < dst + MADE_ROWS / group * bytes; p += bytes) {
        int tries = 0;
        do {
            for (size_t i = 0; i < bytes; i++)
                p[i] = (uint8_t)(draw(m) >> 40);
        } while (!all_sane(type, layout, p, group, m->y) && ++tries < TRIES);
        if (tries == TRIES)
            memset(p, 0, bytes);
    }
}

static void draw_or_encode(fr_speed_meter *m, fr_type type, fr_layout layout, uint8_t *dst)
{
    size_t row = fr_row_bytes(type, layout, FR_SPEED_COLS);
    if (!fr_type_can_encode(type) || layout != FR_LAYOUT_PLAIN) {
        draw_rows(m, type, layout, dst);
        return;
    }
    for (int r = 0; r < MADE_ROWS; r++) /* the activations are as good as any numbers */
        fr_encode_row(type, m->x + r * FR_SPEED_COLS, FR_SPEED_COLS, NULL, dst + (size_t)r * row);
}

/* MADE_ROWS rows at the start of the room. */
static fr_status make_rows(fr_speed_meter *m, fr_type type, fr_layout layout, fr_err *err)
{
    if (fr_type_get(type)->il_only || layout == FR_LAYOUT_PLAIN) {
        draw_or_encode(m, type, layout, m->weights);
        return FR_OK;
    }
    uint8_t *plain = m->weights + m->bytes / 2;
    draw_or_encode(m, type, FR_LAYOUT_PLAIN, plain);
    return fr_repack(type, FR_LAYOUT_PLAIN, layout, MADE_ROWS, FR_SPEED_COLS, plain, m->weights,
                     err);
}

static fr_status make_weights(fr_speed_meter *m, fr_type type, fr_layout layout, size_t bytes,
                              fr_err *err)
{
    FR_TRY(make_rows(m, type, layout, err));
    size_t made = MADE_ROWS * fr_row_bytes(type, layout, FR_SPEED_COLS);
    for (size_t at = made; at < bytes; at += made)
        memcpy(m->weights + at, m->weights, bytes - at < made ? bytes - at : made);
    return FR_OK;
}

/* ---- measuring ------------------------------------------------------------------------------- */

/* Seconds of one product: the best within about a quarter of a second. */
static double time_product(fr_cpu *cpu, const fr_weight *w, const fr_act *x, float *y)
{
    double least = 1e9, begin = now_seconds(), end = begin;
    for (int i = 0; i < 3 || (end - begin < 0.25 && i < 1000); i++) {
        double start = end;
        fr_cpu_matmul(cpu, w, x, x->n_rows, y, w->rows);
        end = now_seconds();
        least = end - start < least ? end - start : least;
    }
    return least;
}

/* GB/s of one kernel call after the other, by the caller alone: the best of 20 times a few
 * milliseconds. */
static double cached_speed(const cpu_kernel *k, const fr_weight *w, const fr_act *x, float *y)
{
    size_t row = fr_row_bytes(w->type, w->layout, w->cols);
    int64_t rows = (int64_t)(CACHED_BYTES / row) / k->grain * k->grain;
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
        double start = now_seconds(), s;
        int n = 0;
        do {
            k->dot(&a);
            n++;
            s = now_seconds() - start;
        } while (s < 3e-3);
        least = s / n < least ? s / n : least;
    }
    return (double)a.row_to * (double)row / least * 1e-9;
}

static fr_product_speed speed_of(const fr_weight *w, int64_t n_tokens, double seconds,
                                 double scalar)
{
    double bytes = (double)w->rows * (double)fr_row_bytes(w->type, w->layout, w->cols);
    double ops = 2 * (double)w->rows * (double)w->cols * (double)n_tokens;
    return (fr_product_speed){bytes / seconds * 1e-9, ops / seconds * 1e-9, scalar};
}

/* Both tiers take the same activations, so only the order of float sums may differ. */
static fr_status check(const fr_speed_meter *m, const char *kernel, const fr_weight *w,
                       int64_t n_tokens, fr_err *err)
{
    double size = 0, off = 0;
    for (int64_t i = 0; i < w->rows * n_tokens; i++) {
        double d = (double)m->y[i] - (double)m->y_scalar[i];
        size += (double)m->y_scalar[i] * (double)m->y_scalar[i];
        off += d * d;
    }
    if (off <= 1e-6 * size)
        return FR_OK;
    return fr_fail(err, FR_EINTERNAL,
                   "kernel %s on %s: found results %.2g off those of the scalar kernel, expected "
                   "rounding only; it was not timed",
                   kernel, fr_type_name(w->type, w->layout), size > 0 ? sqrt(off / size) : 1.0);
}

fr_status fr_kernel_speed_measure(fr_speed_meter *m, fr_type type, fr_layout layout,
                                  fr_kernel_speed *out, fr_err *err)
{
    const cpu_kernel *k = &m->fast->table.dot[type][layout];
    size_t row = fr_row_bytes(type, layout, FR_SPEED_COLS);
    size_t room = strncmp(k->name, "any", 3) ? m->bytes : m->bytes / SLOW_PART;
    int64_t rows = (int64_t)(room / row) / MADE_ROWS * MADE_ROWS;
    fr_weight big = fr_weight_make(type, layout, FR_SPEED_COLS, rows, 1), small = big;
    small.rows = m->small_rows;
    big.data = small.data = m->weights;
    *out = (fr_kernel_speed){.kernel = k->name};
    FR_TRY(make_weights(m, type, layout, (size_t)rows * row, err));
    fr_act x = fr_cpu_act_prepare(m->fast, k->act, m->x, FR_SPEED_COLS, FR_SPEED_TOKENS,
                                  FR_SPEED_COLS, m->act);
    fr_act one = x, few = x;
    one.n_rows = 1;
    few.n_rows = SCALAR_TOKENS;

    double few_scalar = time_product(m->scalar, &small, &few, m->y_scalar);
    fr_cpu_matmul(m->fast, &small, &few, few.n_rows, m->y, small.rows);
    FR_TRY(check(m, k->name, &small, few.n_rows, err));
    double many = time_product(m->fast, &small, &x, m->y);
    double one_scalar = time_product(m->scalar, &small, &one, m->y_scalar);
    double one_small = time_product(m->fast, &small, &one, m->y);
    FR_TRY(check(m, k->name, &small, 1, err));
    out->one = speed_of(&big, 1, time_product(m->fast, &big, &one, m->y), one_scalar / one_small);
    out->many =
        speed_of(&small, x.n_rows, many, few_scalar * FR_SPEED_TOKENS / SCALAR_TOKENS / many);
    out->cached = cached_speed(k, &small, &one, m->y);
    return FR_OK;
}
