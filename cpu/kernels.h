/* Kernel tables: which function computes dot products for a (type, layout).
 *
 * Filling goes in steps: the portable kernel that works for every type of the registry takes all
 * slots (cpu_ref_fill), the scalar kernels of cpu/ref take theirs (these are the references that
 * tests compare with), then every tier of the machine up to the one asked for overwrites what it
 * improves. Nothing else chooses kernels; there is no test of CPU features after fr_cpu_open. */
#ifndef FR_CPU_KERNELS_H
#define FR_CPU_KERNELS_H

#include "cpu/cpu.h"

#define CPU_MAX_TOKENS  64  /* most tokens of one kernel call */
#define CPU_MANY_TOKENS 512 /* of a kernel that says that it takes many */
#define CPU_FEW_TOKENS  8   /* below, a kernel that takes many gains nothing by more rows */

/* y[t][r - row_from] = dot(row r, x[t]) for row_from <= r < row_to and t < n_tokens.
 * `base` is the first byte of the matrix (as for fr_decode_row), of any alignment; x[t] is a
 * prepared row of the type `act`, aligned to 4.
 *
 * THE RULE for every kernel: an element y[t][r] is computed by the same operations in the same
 * order whatever the other rows and tokens of the call. Results then depend on neither batch nor
 * threads. */
typedef struct {
    fr_type type;
    fr_layout layout;
    fr_act_type act;
    int n_tokens; /* 1..cpu_kernel_tokens */
    int64_t cols;
    const void *base;
    int64_t row_from, row_to;
    const void *const *x;
    float *const *y;
    const void *next; /* where the thread will read on after these rows, NULL: not known. A kernel
                         for one token may ask memory for it */
    bool asked;       /* the call before had these rows as its `next` */
    bool far;         /* y is large and not read soon: a kernel for many tokens may write past the
                         caches, which else read every line from memory first */
} cpu_dot_args;

typedef void (*cpu_dot_fn)(const cpu_dot_args *a);

typedef struct {
    const char *name;
    cpu_dot_fn dot;
    fr_act_type act; /* the only one that `dot` reads */
    int grain;       /* rows that it likes to take together: cut work in multiples of it */
    int many_rows; /* the same for CPU_FEW_TOKENS and more, where it takes CPU_MANY_TOKENS; or 0 */
} cpu_kernel;

/* Most tokens of a call. */
static inline int cpu_kernel_tokens(const cpu_kernel *k)
{
    return k->many_rows > 0 ? CPU_MANY_TOKENS : CPU_MAX_TOKENS;
}

/* Rows in multiples of which to cut n_rows in all, for so many tokens and threads. */
int64_t cpu_kernel_grain(const cpu_kernel *k, int64_t n_rows, int64_t n_tokens, int n_threads);

typedef struct {
    cpu_kernel dot[FR_TYPE_COUNT][FR_LAYOUT_COUNT]; /* [type][layout] */
    cpu_kernel any;                                 /* every type, layout and activation type */
    /* fr_act_encode_row, bit for bit. */
    void (*act_encode)(fr_act_type type, const float *x, int64_t cols, void *dst);
    /* gate[i] = silu(gate[i]) * up[i]; silu(v) = v / (1 + exp(-v)). */
    void (*silu_mul)(float *gate, const float *up, int64_t n);
} cpu_table;

/* The table of a tier (not FR_ISA_AUTO), which the machine must have. */
void cpu_table_fill(cpu_table *t, fr_isa isa);

/* The best tier of this machine. */
fr_isa cpu_isa_detect(void);

/* The kernel for a weight and prepared activations of a type. */
const cpu_kernel *cpu_kernel_for(const cpu_table *t, const fr_weight *w, fr_act_type act);

/* ---- tiers
 * ------------------------------------------------------------------------------------------ */

void cpu_ref_fill(cpu_table *t);    /* everything; cpu/ref */
void cpu_avx2_fill(cpu_table *t);   /* cpu/x86; only where cpu_isa_detect says AVX2 or more */
void cpu_avx512_fill(cpu_table *t); /* what AVX-512 improves on that */

/* ---- decoding in pieces, for kernels that work on decoded weights
 * ------------------------------------ */

#define CPU_CHUNK 256 /* columns; a multiple of every type's block */

/* Room for the group headers and one chunk of a group. */
typedef struct {
    _Alignas(16) unsigned char bytes[16 * 16 + 16 * CPU_CHUNK * 2];
} cpu_chunk_room;

/* Decodes columns c0 .. c0 + n of a row (c0 a multiple of CPU_CHUNK; n <= CPU_CHUNK) into out. */
void cpu_decode_chunk(const cpu_dot_args *a, int64_t i_row, int64_t c0, int64_t n,
                      cpu_chunk_room *room, float *out);

/* The inside of an open fr_cpu, for the files of this box. */
struct cpu_pool;
struct fr_cpu {
    struct cpu_pool *pool; /* owned */
    fr_isa isa;
    cpu_table table;
    struct cpu_deal_table *deals; /* owned: how experts are dealt out */
};

/* ---- shared work (cpu/matmul.c)
 * ---------------------------------------------------------- */

/* Rows per tile, a multiple of `grain`, for n_rows rows of row_bytes in all and n_threads: several
 * tiles per thread so that a late thread does not hold up the rest, none larger than a core's
 * cache. */
int64_t cpu_tile_rows(int64_t n_rows, size_t row_bytes, int64_t grain, int n_threads);

/* Of the last tiles with few tokens, for cpu_tiles_cut_ending; *tile_rows, of the first ones,
 * becomes a multiple of it. */
int64_t cpu_least_rows(const fr_weight *w, int64_t grain, int64_t *tile_rows);

/* A thread's part of encoding n_rows rows (row r at x + r * ldx) to dst: whole rows, or pieces of
 * each row when there are fewer rows than threads. */
typedef struct {
    const cpu_table *table;
    fr_act_type type;
    const float *x;
    int64_t ldx, n_rows, cols;
    char *dst;
} cpu_encode_job;
void cpu_encode_part(const cpu_encode_job *job, int i_thread, int n_threads);

/* Runs fn on all threads, or on the caller alone (n_threads = 1, no barrier needed) when the work
 * is not worth waking the others. n_macs: multiply-adds in all. */
void cpu_run_sized(fr_cpu *cpu, int64_t n_macs, fr_cpu_fn fn, void *arg);
bool cpu_is_shared(int64_t n_macs); /* whether that is on all threads */

/* Whether results, so many rows of cols floats, are too many to find them in a core's cache. */
bool cpu_is_far(int64_t n_rows, int64_t cols);

#endif
