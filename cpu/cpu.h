/* The CPU backend: threads, kernel tables, and the operations that the executor calls.
 *
 * It knows numbers and shapes: no model, no files. An fr_cpu is used by one caller thread at a time
 * (the engine's); operations split their work over the pool and return when it is done. Results are
 * the same bits for any number of threads: a reduction is never split. */
#ifndef FR_CPU_CPU_H
#define FR_CPU_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "quant/act.h"
#include "quant/qtype.h"

typedef enum {
    FR_ISA_SCALAR, /* the reference kernels */
    FR_ISA_AVX2,   /* AVX2, FMA, F16C */
    FR_ISA_AVX512, /* AVX-512 F, BW, DQ, VL, VNNI, VBMI, GFNI, and all of the above */
    FR_ISA_AUTO    /* the best tier of this machine */
} fr_isa;

/* Machines whose memory is in several nodes, each near to some of the cores:
 *   OFF         the system puts threads and memory where it likes
 *   DISTRIBUTE  threads are spread over all nodes and stay on theirs; the rows of every weight are
 *               dealt out to the nodes, and threads read those of their node only (cpu/numa.h)
 *   ISOLATE     threads stay on the node that the caller is on while opening, and so does memory
 *               that they touch first
 *   NUMACTL     threads are spread over the nodes that numactl or taskset left, and stay on theirs;
 *               memory is where numactl's policy puts it */
typedef enum { FR_NUMA_OFF, FR_NUMA_DISTRIBUTE, FR_NUMA_ISOLATE, FR_NUMA_NUMACTL } fr_numa;
bool fr_numa_from_name(const char *name, fr_numa *out); /* "off", "distribute", ... */

typedef struct {
    int n_threads; /* <= 0: one per physical core that this process may use */
    fr_isa max_isa;
    const char *cpu_mask, *cpu_range; /* hexadecimal mask, list ("0-7,16"): use these CPUs, or, with
                                         both, those of either; NULL: all of the process's */
    bool bind_cores; /* each thread stays on a core, as far as there are enough; see below */
    fr_numa numa;
} fr_cpu_config;

typedef struct fr_cpu fr_cpu;

/* Where cfg keeps threads on some of the CPUs, that holds for the caller of jobs too, from its
 * first job until fr_cpu_close (on its own thread), and for threads that it starts meanwhile.
 *
 * FR_EUNSUPPORTED when the machine lacks the tier asked for, FR_EINVAL for CPUs that make no sense
 * or are not there. Owned by the caller. */
fr_status fr_cpu_open(const fr_cpu_config *cfg, fr_cpu **out, fr_err *err);
void fr_cpu_close(fr_cpu *cpu);
int fr_cpu_n_threads(const fr_cpu *cpu);
fr_isa fr_cpu_isa(const fr_cpu *cpu); /* the tier in use */
const char *fr_isa_name(fr_isa isa);
bool fr_isa_from_name(const char *name, fr_isa *out);

/* ---- pool
 * ---------------------------------------------------------------------------------------- */

/* Runs fn on every thread of the pool (the caller is thread 0) and returns when all are done. fn
 * must not lock, allocate or log. */
typedef void (*fr_cpu_fn)(void *arg, int i_thread, int n_threads);
void fr_cpu_run(fr_cpu *cpu, fr_cpu_fn fn, void *arg);

/* Inside fn: waits until all threads have come here. */
void fr_cpu_barrier(fr_cpu *cpu, int i_thread);

/* Time and events on the pool's clock since it was switched on (which costs two readings a thread
 * and job): what the caller waited for the others, at barriers and at the end of jobs, and what all
 * the others together computed. In a span of w seconds the n threads were busy for w - caller_wait
 * + others_busy of n * w seconds. Between jobs only. */
typedef struct {
    double caller_wait, others_busy; /* seconds */
    int64_t n_jobs, n_barriers;      /* that all threads took part in */
} fr_cpu_times;
void fr_cpu_clock(fr_cpu *cpu, bool on);
fr_cpu_times fr_cpu_clock_read(const fr_cpu *cpu);

/* The part of n items, in multiples of `grain`, that belongs to a thread: [*from, *to). */
void fr_cpu_share(int64_t n, int64_t grain, int i_thread, int n_threads, int64_t *from,
                  int64_t *to);

/* ---- matrix products (cpu/matmul.c)
 * ---------------------------------------------------------------- */

/* Prepared activations: n_rows rows of `cols`; row r is at data + r * row_bytes. For n_mat > 1
 * (heads), row t * n_mat + m belongs to token t and matrix m. */
typedef struct {
    fr_act_type type;
    int64_t n_rows, cols;
    size_t row_bytes;
    const void *data;
} fr_act;

/* The activation type that the kernel for this weight wants, the same in every tier: the registry's
 * for types with integer kernels, F32 for all others (their rows are decoded to floats) and when
 * cols is not a multiple of the activation block. Any other type works as well, through the
 * portable kernel. */
fr_act_type fr_cpu_act_type(const fr_cpu *cpu, const fr_weight *w);
size_t fr_cpu_act_bytes(fr_act_type type, int64_t n_rows, int64_t cols);

/* Prepares n_rows rows of x (row r at x + r * ldx) into dst (fr_cpu_act_bytes). For F32 with ldx ==
 * cols, dst may be NULL: the result then refers to x itself. */
fr_act fr_cpu_act_prepare(fr_cpu *cpu, fr_act_type type, const float *x, int64_t ldx,
                          int64_t n_rows, int64_t cols, void *dst);

/* y = W x for every token. x has n_tokens * w->n_mat rows (see fr_act);
 * y[t * ldy + m * w->rows + r] = dot(row r of matrix m, x row t * n_mat + m). */
void fr_cpu_matmul(fr_cpu *cpu, const fr_weight *w, const fr_act *x, int64_t n_tokens, float *y,
                   int64_t ldy);

/* Several products of the same tokens as one job: threads that are done with one go on to the next.
 * The bits are those of fr_cpu_matmul. n <= FR_CPU_MOST_PRODUCTS. */
enum { FR_CPU_MOST_PRODUCTS = 4 };
typedef struct {
    const fr_weight *w;
    const fr_act *x; /* may be shared by products */
    float *y;
    int64_t ldy;
} fr_cpu_product;
void fr_cpu_products(fr_cpu *cpu, const fr_cpu_product *products, int n, int64_t n_tokens);

/* ---- gate and up of dense experts, many tokens (cpu/gate_up.c)
 * ---------------------------------------------------------------- */

/* silu(gate x) * (up x), prepared as `type` (what down reads): the bits of fr_cpu_matmul twice,
 * fr_cpu_swiglu and fr_cpu_act_prepare, but floats do not leave the cache. gate_room and up_room:
 * n_tokens x gate->rows floats each, overwritten with anything. */
typedef struct {
    const fr_weight *gate, *up;
    const fr_act *x; /* of the type that both kernels read */
    int64_t n_tokens;
    fr_act_type type;
    float *gate_room, *up_room;
    void *dst; /* fr_cpu_act_bytes of n_tokens rows */
} fr_cpu_gate_up_args;

/* Whether it is worth it and possible (x, the rooms and dst may still be missing): with enough
 * tokens for all threads, rows in whole blocks of `type`, and memory in one node. */
bool fr_cpu_gates_up(const fr_cpu *cpu, const fr_cpu_gate_up_args *args);
fr_act fr_cpu_gate_up(fr_cpu *cpu, const fr_cpu_gate_up_args *args);

/* ---- mixture of experts (cpu/moe.c)
 * ---------------------------------------------------------------- */

/* Where the time of routed experts goes; REST: grouping tokens and preparing inputs. */
enum { FR_CPU_MOE_UP, FR_CPU_MOE_DOWN, FR_CPU_MOE_REST, FR_CPU_MOE_STAGES };

/* Routed feed-forward, SwiGLU: for token t and each of its n_used picks e = ids[t * n_used + k]:
 *     y[t] += weights[t * n_used + k] * down_e( silu(gate_e x_t) * (up_e x_t) )
 * gate, up: [n_mat experts] of n_ff x n_embd; down: n_embd x n_ff. They may be a slice of the
 * experts, matrix m being expert first_expert + m: picks of others are left out. Tokens are grouped
 * by expert; the sum runs over k in ascending order whatever the grouping, so results do not depend
 * on batch or threads. y (n_tokens x n_embd) is overwritten, with zeros where a token has no picks
 * here; with `add` the sum is added to it (a token without picks stays as it is). A token picks no
 * expert twice. */
typedef struct {
    const fr_weight *gate, *up, *down;
    int64_t n_tokens, n_used, first_expert;
    const int32_t *ids;
    const float *weights;
    const float *x; /* n_tokens x n_embd */
    float *y;
    bool add;
    void *scratch;   /* fr_cpu_moe_scratch_bytes */
    float *hidden;   /* NULL, or [n_tokens][n_used][n_ff]: gets what down is applied to; rows of
                        picks that are left out are not written */
    double *seconds; /* NULL, or FR_CPU_MOE_STAGES numbers to which the time spent is added */
} fr_cpu_moe_args;

size_t fr_cpu_moe_scratch_bytes(const fr_cpu *cpu, const fr_weight *gate, const fr_weight *up,
                                const fr_weight *down, int64_t n_tokens, int64_t n_used);
void fr_cpu_moe(fr_cpu *cpu, const fr_cpu_moe_args *args);

/* How the work of routed experts is dealt out to threads is chosen by measuring, in the first calls
 * for a shape and a class of numbers of tokens (all ways give the same bits). Writes what was found
 * for at most `most` of them, and returns how many those are. */
typedef struct {
    int64_t tokens_from, tokens_to; /* the class, both inclusive */
    int64_t n_embd, n_ff, n_experts, n_used;
    const char *up, *down;     /* for gate and up, and for down; NULL: not decided yet */
    double up_gain, down_gain; /* how many times as fast as claimed tiles */
} fr_cpu_moe_choice;
int fr_cpu_moe_choices(const fr_cpu *cpu, fr_cpu_moe_choice *out, int most);

/* One of its matrices alone (cpu/expert_rows.c), where the three are in different places. For token
 * t and pick k, with m = ids[t * n_used + k] - first_expert:
 *     y[(t * n_used + k) * ldy + r] = dot(row r of matrix m, x[t * ldx + k * x_stride ..])
 * or 0 for all rows r where m is not in [0, w->n_mat). x_stride 0: all picks read the token's row.
 * Grouped by expert; the bits are those of fr_cpu_moe, which is this for gate and up (x_stride 0),
 * fr_cpu_swiglu, this for down, and fr_cpu_mix (both in cpu/ops.h). */
typedef struct {
    const fr_weight *w;
    int64_t n_tokens, n_used, first_expert;
    const int32_t *ids;
    const float *x;
    int64_t ldx, x_stride;
    float *y;
    int64_t ldy;
    void *scratch; /* fr_cpu_expert_rows_scratch_bytes */
} fr_cpu_expert_rows_args;

size_t fr_cpu_expert_rows_scratch_bytes(const fr_cpu *cpu, const fr_weight *w, int64_t n_tokens,
                                        int64_t n_used, int64_t x_stride);
void fr_cpu_expert_rows(fr_cpu *cpu, const fr_cpu_expert_rows_args *args);

#endif
