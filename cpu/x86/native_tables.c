#include "cpu/x86/native_tables.h"

#include <pthread.h>

#include "quant/tables.h"

cpu_native_codebooks cpu_native_books;

/* Tables [2][n] of words of four lanes. */
static void make_iq3(const uint32_t *grid, int n, int step, uint8_t *out)
{
    for (int i = 0; i < 2 * n; i++) {
        unsigned lane = i < n ? 0 : 2;
        int low = fr_grid_u8(grid[i % n], lane) / step;
        int high = fr_grid_u8(grid[i % n], lane + 1) / step;
        out[i] = (uint8_t)(low | high << 5);
    }
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
    make_iq3(fr_iq3xxs_grid, 256, 8, books->iq3_xxs[0]);
    make_iq3(fr_iq3s_grid, 512, 2, books->iq3_s[0]);
    make_iq2(fr_iq2xxs_grid, 256, books->iq2_xxs[0]);
    make_nibbles(fr_iq2xs_grid, 512, level_above_sign, books->iq2_xs);
    make_nibbles(fr_iq2s_grid, 1024, level_above_sign, books->iq2_s);
    make_nibbles(fr_iq1s_grid, 2048, lane_plus_1, books->iq1);
    for (int i = 0; i < 2048; i++)
        books->iq1[2048 + i] = books->iq1[i] | 0x44444444;
}

void cpu_native_tables_make(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_all);
}
