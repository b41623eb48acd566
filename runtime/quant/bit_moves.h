/* Fast rearranging of bits: a map from source to destination bits, turned once into a short program
 * of 16-byte shuffles, which wider registers run on several steps at a time.
 *
 * The map is given as a function that does it slowly. It must be affine over bits: every
 * destination bit is a fixed source bit, or the exclusive or of some, or a constant, or such a bit
 * inverted. This holds for all repacking between layouts. What the function does is found out by
 * trying, and the program is compared with it on random bytes before it is used. */
#ifndef FR_QUANT_BIT_MOVES_H
#define FR_QUANT_BIT_MOVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Source and destination of one step are some strands of equal length; each strand is `head` bytes
 * and then `body` bytes. Bodies move to bodies and heads to heads. */
typedef struct {
    int n;             /* strands */
    size_t head, body; /* bytes of each; body >= 16 */
} bit_strands;

/* All strands back to back; dst is written whole. */
typedef void bit_map_fn(void *user, const uint8_t *src, uint8_t *dst);

enum { BIT_MAX_STRANDS = 16, BIT_MAX_BYTES = 8192 }; /* of all strands of a step */

typedef struct bit_program bit_program;

/* NULL when the map is not of this kind, or the room for programs (static, for all of them) is
 * used up. One thread at a time. A program lives as long as the process. */
const bit_program *bit_program_make(bit_strands src, bit_strands dst, bit_map_fn *map, void *user);

/* Code that runs programs: the best that the processor knows is in use from the start. */
typedef enum { BIT_TIER_BASE, BIT_TIER_AVX2, BIT_TIER_AVX512, BIT_TIER_COUNT } bit_tier;

/* Has programs run by the code of a tier (for tests); false where the processor lacks it. All give
 * the same bytes. */
bool bit_use_tier(bit_tier tier);

/* Moves the heads, and the bodies of n_steps steps. Strand i is at src + i * src_stride: its head,
 * then the bodies of the steps one after another. The same for dst. Any thread. */
void bit_program_run(const bit_program *p, const uint8_t *src, size_t src_stride, uint8_t *dst,
                     size_t dst_stride, int64_t n_steps);

/* Makes every one of n bytes table[byte], by the code in use. Any thread. */
void bit_replace_bytes(uint8_t *p, size_t n, const uint8_t table[256]);

#endif
