#include "quant/repack.h"

#include <stdatomic.h>

#include "quant/bit_moves.h"
#include "quant/tables.h"

/* What a program does at a time: a unit of rows, whole groups of both layouts, and some columns. */
typedef struct {
    int rows, cols;
    bit_strands from, to; /* a strand is a group of rows */
} step;

static bool strands_of(fr_type type, fr_layout layout, step s, bit_strands *out)
{
    int group = fr_layout_rows(type, layout);
    *out = (bit_strands){.n = s.rows / group};
    if (fr_type_check(type, layout, s.rows, s.cols, NULL) != FR_OK)
        return false;
    size_t one = fr_row_bytes(type, layout, s.cols), two = fr_row_bytes(type, layout, 2 * s.cols);
    out->body = (size_t)group * (two - one);
    out->head = (size_t)group * one - out->body;
    return out->body >= 16 && out->n <= BIT_MAX_STRANDS;
}

/* The fewest columns that make strands long enough. */
static bool step_of(fr_type type, fr_layout from, fr_layout to, step *s)
{
    int a = fr_layout_rows(type, from), b = fr_layout_rows(type, to), chunk = quant_chunk(type);
    if (from == to || a == 0 || b == 0)
        return false;
    s->rows = a > b ? a : b; /* powers of two */
    for (s->cols = chunk; s->cols <= 16 * chunk; s->cols += chunk)
        if (strands_of(type, from, *s, &s->from) && strands_of(type, to, *s, &s->to))
            return true;
    return false;
}

/* ---- codebooks in another order
 * ----------------------------------------------------------------------------------- */

/* Programs move bits and cannot number words anew, so this is done by itself, in the destination.
 * In blocks of each layout, `n` bytes from `at` on are numbers of words. */
typedef struct {
    const uint8_t *to_native, *from_native;
    struct {
        size_t at, n;
    } in[FR_LAYOUT_COUNT];
} numbering;

static const numbering *numbering_of(fr_type type, fr_layout from, fr_layout to)
{
    static const numbering iq3_xxs = {fr_iq3xxs_numbers,
                                      fr_iq3xxs_words,
                                      {[FR_LAYOUT_PLAIN] = {2, 64},
                                       [FR_LAYOUT_INTERLEAVED] = {136, 256},
                                       [FR_LAYOUT_NATIVE] = {544, 1024}}};
    bool native = from == FR_LAYOUT_NATIVE || to == FR_LAYOUT_NATIVE;
    return type == FR_TYPE_IQ3_XXS && native ? &iq3_xxs : NULL;
}

/* Strands of whole blocks; back: as they are numbered in `from`, as a program leaves them. */
static void renumber(fr_type type, fr_layout from, fr_layout to, uint8_t *p, size_t bytes,
                     bool back)
{
    const numbering *n = numbering_of(type, from, to);
    if (!n)
        return;
    const uint8_t *table = (to == FR_LAYOUT_NATIVE) != back ? n->to_native : n->from_native;
    const size_t block =
        (size_t)fr_layout_rows(type, to) * fr_row_bytes(type, to, fr_type_get(type)->weights);
    for (size_t i = 0; i + block <= bytes; i += block)
        bit_replace_bytes(p + i + n->in[to].at, n->in[to].n, table);
}

/* ---- programs -----------------------------------------------------------------------------------
 */

static struct {
    const bit_program *_Atomic program; /* NULL: none */
    atomic_bool known;
} programs[FR_TYPE_COUNT][FR_LAYOUT_COUNT][FR_LAYOUT_COUNT];
static atomic_flag making = ATOMIC_FLAG_INIT;

typedef struct {
    fr_type type;
    fr_layout from, to;
    step s;
} walk_args;

static void walk_step(void *user, const uint8_t *src, uint8_t *dst)
{
    const walk_args *w = user;
    const size_t bytes = (size_t)w->s.rows * fr_row_bytes(w->type, w->to, w->s.cols);
    quant_repack_walk(&(repack_args){w->type, w->from, w->to, w->s.rows, w->s.cols, src, dst}, 0);
    renumber(w->type, w->from, w->to, dst, bytes, true);
}

/* NULL also while another thread makes one: the walk gives the same bytes. */
static const bit_program *program_for(fr_type type, fr_layout from, fr_layout to, const step *s)
{
    if (atomic_load(&programs[type][from][to].known))
        return atomic_load(&programs[type][from][to].program);
    if (atomic_flag_test_and_set(&making))
        return NULL;
    if (!atomic_load(&programs[type][from][to].known)) {
        walk_args w = {type, from, to, *s};
        atomic_store(&programs[type][from][to].program,
                     bit_program_make(s->from, s->to, walk_step, &w));
        atomic_store(&programs[type][from][to].known, true);
    }
    atomic_flag_clear(&making);
    return atomic_load(&programs[type][from][to].program);
}

bool quant_repack_is_fast(fr_type type, fr_layout from, fr_layout to)
{
    step s;
    return step_of(type, from, to, &s) && program_for(type, from, to, &s) != NULL;
}

/* ---- repacking ----------------------------------------------------------------------------------
 */

void quant_repack(const repack_args *a)
{
    step s = {0};
    const bit_program *p = NULL;
    if (step_of(a->type, a->from, a->to, &s) && a->cols >= s.cols)
        p = program_for(a->type, a->from, a->to, &s);
    if (!p) {
        quant_repack_walk(a, 0);
        return;
    }
    size_t src_row = fr_row_bytes(a->type, a->from, a->cols),
           dst_row = fr_row_bytes(a->type, a->to, a->cols);
    int64_t n_steps = a->cols / s.cols;
    for (int64_t r = 0; r < a->n_rows; r += s.rows) {
        uint8_t *dst = a->dst + (size_t)r * dst_row;
        bit_program_run(p, a->src + (size_t)r * src_row, (size_t)(s.rows / s.from.n) * src_row, dst,
                        (size_t)(s.rows / s.to.n) * dst_row, n_steps);
        renumber(a->type, a->from, a->to, dst, (size_t)s.rows * dst_row, false);
    }
    if (n_steps * s.cols < a->cols)
        quant_repack_walk(a, n_steps * s.cols);
}
