#include "cpu/x86/native_tables.h"

#include <pthread.h>

#include "quant/tables.h"

cpu_native_codebooks cpu_native_books;

static void make_iq3_xxs(void)
{
    for (int i = 0; i < 256; i++) {
        for (unsigned half = 0; half < 2; half++) {
            int low = fr_grid_u8(fr_iq3xxs_grid[i], 2 * half) / 8;
            int high = fr_grid_u8(fr_iq3xxs_grid[i], 2 * half + 1) / 8;
            cpu_native_books.iq3_xxs[half][i] = (uint8_t)(low | high << 5);
        }
    }
}

static void make_all(void)
{
    make_iq3_xxs();
}

void cpu_native_tables_make(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_all);
}
