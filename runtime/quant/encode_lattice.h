/* Codebooks whose words give 8 or 4 neighbouring weights, each from 3 or 8 levels, and the exact
 * search for the word nearest to some weights.
 *
 * The error of a word is a sum over lanes, so it is the sum of the errors of its two halves. A half
 * has few distinct contents (3^4 or 8^2): their errors are tabulated, and the words, kept sorted by
 * first half, are only looked at where the first half's error plus the least second one is below
 * the best so far. */
#ifndef FR_QUANT_ENCODE_LATTICE_H
#define FR_QUANT_ENCODE_LATTICE_H

#include <stdbool.h>
#include <stdint.h>

enum { ENC_LANES_MAX = 8, ENC_HALVES_MAX = 81, ENC_WORDS_MAX = 2048 };

typedef struct {
    int lanes, n_levels;
    int n_halves;                  /* distinct contents of half a word */
    float level[8];                /* ascending */
    int start[ENC_HALVES_MAX + 1]; /* words with first half a are entries start[a] .. */
    uint8_t second[ENC_WORDS_MAX]; /* their second halves */
    uint16_t index[ENC_WORDS_MAX]; /* their places in the codebook */
    /* Of any level numbers, first lane most significant: the entry of the nearest word. */
    uint16_t near[ENC_HALVES_MAX * ENC_HALVES_MAX];
    int8_t at[ENC_WORDS_MAX][ENC_LANES_MAX]; /* of a codebook index: number of the level per lane */
} enc_lattice;

/* Word i of a codebook: its lanes are levels times scale. Level numbers of the lanes into `at`. */
typedef void enc_lanes_fn(int i, int8_t *at);

void enc_lattice_init(enc_lattice *l, int lanes, int n_levels, const float *level, int n_words,
                      enc_lanes_fn *lanes_of);

/* The codebook index of the word that makes  sum of w (x - s level)^2  over `lanes` values least.
 * s >= 0. */
int enc_lattice_nearest(const enc_lattice *l, const float *x, const float *w, float s);

/* The codebooks, made on first use; any thread. Levels are as in the words (iq1's -1, 0, 1). */
typedef enum {
    ENC_IQ2_XXS,
    ENC_IQ2_XS,
    ENC_IQ2_S,
    ENC_IQ3_XXS,
    ENC_IQ3_S,
    ENC_IQ1,
    ENC_CODEBOOKS
} enc_codebook;

const enc_lattice *enc_lattice_get(enc_codebook which);

#endif
