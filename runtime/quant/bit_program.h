/* Inside the quant box: what a program of bit_moves.h is made of, for the code that runs it.
 *
 * Every 16 bytes of the destination (a unit) are the exclusive or of some terms; a term is 16 bytes
 * of a source, shuffled, shifted by less than a byte, and masked.
 *
 * Where rows are interleaved from plain ones, a unit has four bytes of each of four rows. So many
 * strands are first woven: 16 bytes from the same place of every strand become words that stand
 * side by side, strand after strand, and the terms read the woven bytes, which mostly stand as the
 * destination wants them.
 *
 * Code for wider registers does several steps at a time, one in each 16 bytes of a register. */
#ifndef FR_QUANT_BIT_PROGRAM_H
#define FR_QUANT_BIT_PROGRAM_H

#include <tmmintrin.h>

#include "quant/bit_moves.h"

typedef struct {
    __m128i index, mask;
    uint32_t off; /* of the 16 bytes in their strand; or in the woven bytes, a multiple of 16 */
    uint16_t strand;
    uint8_t shift;  /* bits, to the left or to the right */
    uint8_t rotate; /* the same as bits by which words rotate to the left */
} bit_term;

typedef struct {
    __m128i constant;
    uint32_t off;   /* in the destination's strand */
    uint32_t first; /* of its terms */
    uint16_t strand;
    uint8_t n_left, n_right; /* terms, in this order; those that are not shifted are to the left */
} bit_unit;

typedef struct {
    uint8_t src_strand, src_at, dst_strand, dst_at, mask;
    int8_t shift; /* > 0: to the left */
} bit_head_move;

enum { BIT_MAX_WEAVES = 64, BIT_MAX_HEAD_MOVES = 512 };

struct bit_program {
    bit_strands src, dst;
    int n_weaves; /* 0: terms read the strands themselves */
    int n_units, n_head_moves;
    uint32_t weaves[BIT_MAX_WEAVES]; /* places of 16 bytes in every source strand */
    const bit_unit *units;           /* those with as many terms stand together */
    const bit_term *terms;
    const bit_head_move *head_moves;
    const uint8_t *head_constant; /* of all destination heads, back to back */
};

/* Bodies of the first step to run, of strand 0. */
typedef struct {
    const uint8_t *src;
    uint8_t *dst;
    size_t src_stride, dst_stride;      /* from strand to strand */
    const uint8_t *soon_src, *soon_dst; /* to be asked for from memory meanwhile */
} bit_place;

/* Two and four steps. */
void bit_run_2_avx2(const bit_program *p, bit_place at);
void bit_run_4_avx512(const bit_program *p, bit_place at);

/* bit_replace_bytes, n a multiple of 64. */
void bit_replace_avx2(uint8_t *p, size_t n, const uint8_t table[256]);
void bit_replace_avx512(uint8_t *p, size_t n, const uint8_t table[256]);

#endif
