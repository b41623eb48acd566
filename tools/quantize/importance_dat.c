/* The older form of importance matrices. All numbers are little endian, 32 bits:
 *
 *   int n_entries
 *   n_entries times: int n_name, name, int n_calls, int n_values, float values[n_values] (sums)
 *   optionally: int n_chunks, int n_dataset, dataset */
#include <inttypes.h>
#include <string.h>

#include "importance.h"

enum { MAX_NAME = 256, MAX_DATASET = 65536 };

typedef struct {
    importance *im;
    uint64_t at;
    fr_err *err;
} reader;

static fr_status take(reader *r, void *dst, size_t n, const char *what)
{
    uint64_t size = r->im->file.size;
    if (n > size - r->at)
        return fr_fail(r->err, FR_EFORMAT,
                       "%s: at byte %" PRIu64 ": found the end of the file, expected %s; it is no "
                       "importance matrix, or cut off",
                       r->im->path, r->at, what);
    FR_TRY(fr_file_read_at(&r->im->file, r->at, dst, n, r->im->path, r->err));
    r->at += n;
    return FR_OK;
}

/* An int in [lo, hi]. */
static fr_status take_int(reader *r, const char *what, int64_t lo, int64_t hi, int32_t *out)
{
    uint64_t at = r->at;
    FR_TRY(take(r, out, sizeof *out, what));
    if (*out >= lo && *out <= hi)
        return FR_OK;
    return fr_fail(r->err, FR_EFORMAT,
                   "%s: at byte %" PRIu64 ": found %d as %s, expected %" PRId64 " to %" PRId64
                   "; it is no importance matrix, or damaged",
                   r->im->path, at, *out, what, lo, hi);
}

static fr_status take_entry(reader *r)
{
    char name[MAX_NAME];
    int32_t n_name, n_calls, n;
    FR_TRY(take_int(r, "the length of a name", 1, MAX_NAME, &n_name));
    FR_TRY(take(r, name, (size_t)n_name, "a name"));
    if (memchr(name, 0, (size_t)n_name))
        return fr_fail(r->err, FR_EFORMAT, "%s: before byte %" PRIu64 ": found a zero in a name",
                       r->im->path, r->at);
    FR_TRY(take_int(r, "a number of calls", 0, INT32_MAX, &n_calls));
    FR_TRY(take_int(r, "a number of values", 1, INT32_MAX, &n));
    importance_entry e = {.n = n, .offset = r->at, .n_calls = n_calls};
    uint64_t bytes = (uint64_t)n * sizeof(float);
    if (bytes > r->im->file.size - r->at)
        return fr_fail(r->err, FR_EFORMAT,
                       "%s: at byte %" PRIu64 ": found the end of the file, expected %d values of "
                       "%.*s; it is cut off",
                       r->im->path, r->at, n, n_name, name);
    r->at += bytes;
    return importance_add(r->im, (fr_str){name, (size_t)n_name}, e, r->err);
}

/* What newer writers put at the end. */
static fr_status take_trailer(reader *r)
{
    int32_t n_chunks, n_text;
    if (r->at == r->im->file.size)
        return FR_OK;
    FR_TRY(take_int(r, "a number of chunks", 0, INT32_MAX, &n_chunks));
    FR_TRY(take_int(r, "the length of the dataset's name", 0, MAX_DATASET, &n_text));
    r->im->n_chunks = n_chunks;
    FR_TRY(fr_buf_reserve(&r->im->dataset, (size_t)n_text + 1, r->err));
    FR_TRY(take(r, r->im->dataset.p, (size_t)n_text, "the dataset's name"));
    r->im->dataset.n = (size_t)n_text;
    r->im->dataset.p[n_text] = 0;
    return FR_OK;
}

fr_status importance_open_dat(importance *im, fr_err *err)
{
    reader r = {.im = im, .err = err};
    int32_t n;
    FR_TRY(take_int(&r, "the number of entries", 1, INT32_MAX, &n));
    for (int32_t i = 0; i < n; i++)
        FR_TRY(take_entry(&r));
    return take_trailer(&r);
}

fr_status importance_read_dat(const importance *im, const importance_entry *e, float *out,
                              fr_err *err)
{
    FR_TRY(fr_file_read_at(&im->file, e->offset, out, (size_t)e->n * sizeof *out, im->path, err));
    for (int64_t i = 0; e->n_calls > 0 && i < e->n; i++)
        out[i] = (float)((double)out[i] / e->n_calls);
    return FR_OK;
}
