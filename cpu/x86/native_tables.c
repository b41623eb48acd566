#include "cpu/x86/native_tables.h"

#include <pthread.h>

#include "quant/tables.h"

cpu_native_codebooks cpu_native_books;

/* Tables [2][n] of words of four lanes. */
static void make_iq3_s(const uint32_t *grid, int n, uint8_t *out)
{
    for (int i = 0; i < 2 * n; i++) {
        unsigned lane = i < n ? 0 : 2;
        int low = fr_grid_u8(grid[i % n], lane) / 2;
        int high = fr_grid_u8(grid[i % n], lane + 1) / 2;
        out[i] = (uint8_t)(low | high << 5);
    }
}

/* Which of the pairs of levels that a lane has so far this is; a new one if need be. */
static unsigned label_of(uint8_t pairs[16][2], unsigned *n, uint8_t first, uint8_t second)
{
    unsigned label = 0;
    while (label < *n && (pairs[label][0] != first || pairs[label][1] != second))
        label++;
    if (label == *n && *n < 16) {
        pairs[label][0] = first;
        pairs[label][1] = second;
        ++*n;
    }
    return label;
}

/* One lane's labels of words 0..127 (and 128.. with them), and its values. */
static void make_iq3_xxs_lane(unsigned lane, cpu_native_codebooks *books)
{
    const cpu_iq3_xxs_lane at = cpu_iq3_xxs_lanes[lane];
    const unsigned below = (1u << at.sign) - 1;
    uint8_t pairs[16][2] = {{0}};
    unsigned n = 0;
    for (int i = 0; i < 128; i++) {
        unsigned label = label_of(pairs, &n, (uint8_t)fr_grid_u8(books->iq3_xxs[i], lane),
                                  (uint8_t)fr_grid_u8(books->iq3_xxs[128 + i], lane));
        unsigned apart = (label & below) | (label & ~below) << 1;
        books->iq3_xxs_labels[lane / 2][i] |= (uint8_t)(apart << at.shift);
    }
    for (unsigned i = 0; i < 64; i++) {
        int value = pairs[(i & below) | (i >> 1 & 15 & ~below)][i >> 5];
        books->iq3_xxs_values[lane][i] = (uint8_t)(i >> at.sign & 1 ? 64 - value : 64 + value);
    }
}

static void make_iq3_xxs(cpu_native_codebooks *books)
{
    for (int i = 0; i < 256; i++)
        books->iq3_xxs[i] = fr_iq3xxs_grid[fr_iq3xxs_words[i]];
    for (unsigned lane = 0; lane < 4; lane++)
        make_iq3_xxs_lane(lane, books);
}

/* Tables [2][n] of words of eight lanes. */
static void make_iq2(const uint64_t *grid, int n, uint8_t *out)
{
    for (int i = 0; i < 2 * n; i++) {
        int levels = 0;
        for (unsigned lane = 0; lane < 4; lane++)
            levels |= fr_grid_u8(grid[i % n], lane + (i < n ? 0 : 4)) / 16 << (2 * lane);
        out[i] = (uint8_t)levels;
    }
}

/* Words of eight lanes as nibbles: what `nibble` makes of a lane. */
static void make_nibbles(const uint64_t *grid, int n, uint32_t (*nibble)(int), uint32_t *out)
{
    for (int i = 0; i < n; i++) {
        out[i] = 0;
        for (unsigned lane = 0; lane < 8; lane++)
            out[i] |= nibble(fr_grid_u8(grid[i], lane)) << (8 * (lane % 4) + 4 * (lane / 4));
    }
}

static uint32_t level_above_sign(int value)
{
    return (uint32_t)(value / 16) << 1;
}

static uint32_t lane_plus_1(int byte)
{
    return (uint32_t)(byte + 1) & 3;
}

static void make_all(void)
{
    cpu_native_codebooks *books = &cpu_native_books;
    make_iq3_xxs(books);
    make_iq3_s(fr_iq3s_grid, 512, books->iq3_s[0]);
    make_iq2(fr_iq2xxs_grid, 256, books->iq2_xxs[0]);
    make_nibbles(fr_iq2xs_grid, 512, level_above_sign, books->iq2_xs);
    make_nibbles(fr_iq2s_grid, 1024, level_above_sign, books->iq2_s);
    make_nibbles(fr_iq1s_grid, 2048, lane_plus_1, books->iq1);
    for (int i = 0; i < 64; i++)
        books->iq2_kl[i / 32][i % 32] = (int8_t)fr_grid_i8(fr_iq2kl_values[i % 32], i / 32);
    for (int i = 0; i < 2048; i++)
        books->iq1[2048 + i] = books->iq1[i] | 0x44444444;
}

void cpu_native_tables_make(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_all);
}
