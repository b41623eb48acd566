/* Plain rows through the kernel of the interleaved form: a few rows at a time are repacked beside
 * the stack and multiplied there. Same codes, same activations, same order of sums: a matrix gives
 * the same bits in both layouts. */
#include "cpu/repacked.h"

#include <string.h>

#include "cpu/ref/ref.h"

enum {
    MAX_ROWS = 16,          /* what an interleaved kernel takes at a time, at most */
    ROOM_BYTES = 192 << 10, /* 8 rows of 18432 columns (DeepSeek-V3's widest) at 9 bits */
};

typedef struct {
    _Alignas(64) uint8_t rows[ROOM_BYTES];
    _Alignas(64) uint8_t padded[ROOM_BYTES]; /* the last rows, made up to a group */
} room;

/* Rows to repack together: as many whole groups as fit, 0 when not even one does. */
static int64_t rows_at_a_time(const cpu_dot_args *a, int64_t group)
{
    int64_t fit = ROOM_BYTES / (int64_t)fr_row_bytes(a->type, FR_LAYOUT_INTERLEAVED, a->cols);
    return (fit < MAX_ROWS ? fit : MAX_ROWS) / group * group;
}

/* n rows from `src` on, repacked; rows beyond them up to a whole group repeat the first. */
static void repack(const cpu_dot_args *a, int64_t group, const uint8_t *src, int64_t n, room *r)
{
    size_t row_bytes = fr_row_bytes(a->type, FR_LAYOUT_PLAIN, a->cols);
    int64_t whole = (n + group - 1) / group * group;
    if (whole != n) {
        memcpy(r->padded, src, (size_t)n * row_bytes);
        for (int64_t i = n; i < whole; i++)
            memcpy(r->padded + (size_t)i * row_bytes, src, row_bytes);
        src = r->padded;
    }
    fr_status st = fr_repack(a->type, FR_LAYOUT_PLAIN, FR_LAYOUT_INTERLEAVED, whole, a->cols, src,
                             r->rows, NULL);
    (void)st; /* the shape has been checked when the weight was loaded */
}

void cpu_dot_repacked(const cpu_dot_args *a, cpu_dot_fn interleaved)
{
    room r;
    int64_t group = fr_type_get(a->type)->group, step = rows_at_a_time(a, group);
    size_t row_bytes = fr_row_bytes(a->type, FR_LAYOUT_PLAIN, a->cols);
    float *y[CPU_MAX_TOKENS];
    if (step == 0) {
        cpu_ref_dot_any(a);
        return;
    }
    cpu_dot_args tile = *a;
    tile.layout = FR_LAYOUT_INTERLEAVED;
    tile.base = r.rows;
    tile.row_from = 0;
    tile.y = y;
    for (int64_t row = a->row_from; row < a->row_to; row += tile.row_to) {
        int64_t left = a->row_to - row;
        tile.row_to = left < step ? left : step;
        repack(a, group, (const uint8_t *)a->base + (size_t)row * row_bytes, tile.row_to, &r);
        for (int t = 0; t < a->n_tokens; t++)
            y[t] = a->y[t] + (row - a->row_from);
        interleaved(&tile);
    }
}
