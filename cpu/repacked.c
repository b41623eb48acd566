/* Rows through the kernel of another layout: a few rows at a time are repacked beside the stack and
 * multiplied there. Same codes, same activations, same order of sums: a matrix gives the same bits
 * in both layouts. */
#include "cpu/repacked.h"

#include <string.h>

#include "cpu/ref/ref.h"

enum {
    MAX_ROWS = 16,          /* what a kernel takes at a time, at most */
    ROOM_BYTES = 256 << 10, /* 16 rows of 18432 columns (DeepSeek-V3's widest) at 6.6 bits */
};

typedef struct {
    _Alignas(64) uint8_t rows[ROOM_BYTES];
    _Alignas(64) uint8_t padded[ROOM_BYTES]; /* the last rows, made up to a group */
} room;

/* Rows to repack together: as many whole groups of both layouts as fit, 0 when not even one does.
 */
static int64_t rows_at_a_time(const cpu_dot_args *a, fr_layout to, int64_t group)
{
    int64_t fit = ROOM_BYTES / (int64_t)fr_row_bytes(a->type, to, a->cols);
    return (fit < MAX_ROWS ? fit : MAX_ROWS) / group * group;
}

/* n rows from `src` on, repacked; rows beyond them up to a whole group are zeros. */
static void repack(const cpu_dot_args *a, fr_layout to, int64_t group, const uint8_t *src,
                   int64_t n, room *r)
{
    size_t row_bytes = fr_row_bytes(a->type, a->layout, a->cols);
    int64_t whole = (n + group - 1) / group * group;
    if (whole != n) {
        memcpy(r->padded, src, (size_t)n * row_bytes);
        memset(r->padded + (size_t)n * row_bytes, 0, (size_t)(whole - n) * row_bytes);
        src = r->padded;
    }
    fr_status st = fr_repack(a->type, a->layout, to, whole, a->cols, src, r->rows, NULL);
    (void)st; /* the shape has been checked when the weight was loaded */
}

void cpu_dot_repacked(const cpu_dot_args *a, fr_layout to, cpu_dot_fn kernel)
{
    room r;
    int64_t from_group = fr_layout_rows(a->type, a->layout), group = fr_layout_rows(a->type, to);
    int64_t step = rows_at_a_time(a, to, group > from_group ? group : from_group);
    size_t row_bytes = fr_row_bytes(a->type, a->layout, a->cols);
    float *y[CPU_MAX_TOKENS];
    if (step == 0) {
        cpu_ref_dot_any(a);
        return;
    }
    cpu_dot_args tile = *a;
    tile.layout = to;
    tile.base = r.rows;
    tile.y = y;
    for (int64_t row = a->row_from / from_group * from_group; row < a->row_to; row += step) {
        int64_t left = (a->row_to - row + from_group - 1) / from_group * from_group;
        int64_t n = left < step ? left : step;
        tile.row_from = row < a->row_from ? a->row_from - row : 0;
        tile.row_to = a->row_to - row < n ? a->row_to - row : n;
        repack(a, to, group, (const uint8_t *)a->base + (size_t)row * row_bytes, n, &r);
        for (int t = 0; t < a->n_tokens; t++)
            y[t] = a->y[t] + (row + tile.row_from - a->row_from);
        kernel(&tile);
    }
}
