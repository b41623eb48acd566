#include <limits.h>
#include <math.h>
#include <string.h>

#include "gguf/gguf.h"
#include "imatrix/colsum.h"

#define MAX_NAME 255

/* Chunks of a file, counted in chunks of our size. */
static void add_chunks(colsum *im, int64_t n_chunks, int64_t chunk_size)
{
    if (im->chunk_size == chunk_size)
        im->n_chunks += n_chunks;
    else
        im->n_chunks += (int64_t)((double)n_chunks * (double)chunk_size / (double)im->chunk_size);
}

/* A sum and a count of a file: numbers that squares can add up to. */
static bool is_sum(double v)
{
    return isfinite(v) && v >= 0;
}

static bool is_count(double v)
{
    return is_sum(v) && v < 0x1p53;
}

/* ---- GGUF
 * --------------------------------------------------------------------------------------------------
 */

/* *out is owned by the caller, also on failure. */
static fr_status read_floats(const fr_gguf *g, const fr_gguf_tensor *t, float **out, fr_err *err)
{
    *out = fr_mem_array(FR_MEM_MISC, t->bytes, 1, err);
    return *out ? fr_gguf_read_tensor(g, t, 0, t->bytes, *out, err) : FR_ENOMEM;
}

/* The numbers of a tensor pair are added to the entry of its weight. */
static fr_status add_floats(colsum *im, const char *name, const fr_gguf_tensor *t,
                            const float *sums, const float *counts, fr_err *err)
{
    int64_t n_mat = t->dims[1];
    colsum_entry *e = colsum_find(im, name);
    bool joined = e && n_mat == 1 && t->dims[0] == e->n_mat * e->cols; /* one count for all */
    if (!joined)
        FR_TRY(colsum_entry_of(im, name, t->dims[0], n_mat, &e, err));
    for (int64_t m = 0; m < e->n_mat; m++) {
        double count = (double)counts[joined ? 0 : m];
        if (!is_count(count))
            return fr_fail(err, FR_EFORMAT, "%s: found a count of %g, expected 0 or more", name,
                           count);
        e->counts[m] += (int64_t)count;
    }
    for (int64_t k = 0; k < e->n_mat * e->cols; k++) {
        if (!is_sum((double)sums[k]))
            return fr_fail(err, FR_EFORMAT, "%s: found a sum of %g, expected 0 or more", name,
                           (double)sums[k]);
        e->sums[k] += (double)sums[k];
    }
    return FR_OK;
}

static fr_status read_pair(colsum *im, const fr_gguf *g, const fr_gguf_tensor *sums,
                           size_t name_bytes, fr_err *err)
{
    char name[MAX_NAME + 1], other[MAX_NAME + 8];
    memcpy(name, sums->name, name_bytes);
    name[name_bytes] = 0;
    memcpy(other, name, name_bytes);
    memcpy(other + name_bytes, ".counts", sizeof ".counts");
    const fr_gguf_tensor *counts = fr_gguf_find_tensor(g, other);
    if (!counts || counts->type != FR_TYPE_F32 || counts->dims[0] != 1 ||
        counts->dims[1] != sums->dims[1] || sums->type != FR_TYPE_F32 || sums->dims[2] != 1 ||
        sums->dims[3] != 1 || counts->dims[2] != 1 || counts->dims[3] != 1)
        return fr_fail(err, FR_EFORMAT,
                       "%s: found no such pair of float32 tensors, expected in_sum2 [columns, "
                       "matrices] and counts [1, matrices]",
                       name);
    float *s = NULL, *c = NULL;
    fr_status st = read_floats(g, sums, &s, err);
    if (st == FR_OK)
        st = read_floats(g, counts, &c, err);
    if (st == FR_OK)
        st = add_floats(im, name, sums, s, c, err);
    fr_mem_free(s);
    fr_mem_free(c);
    return st;
}

static fr_status read_head(colsum *im, const fr_gguf *g, fr_err *err)
{
    static const char *const keys[] = {"imatrix.chunk_count", "imatrix.chunk_size"};
    const fr_gguf_value *datasets;
    fr_str type = FR_STR("");
    uint32_t values[2];
    fr_gguf_get_str(g, "general.type", &type, NULL);
    if (!fr_str_is(type, "imatrix"))
        return fr_fail(err, FR_EFORMAT, "general.type: found '%.*s', expected 'imatrix'",
                       FR_STR_ARG(type));
    for (int i = 0; i < 2; i++)
        FR_TRY(fr_gguf_get_u32(g, keys[i], &values[i], err));
    if (values[1] == 0)
        return fr_fail(err, FR_EFORMAT, "%s: found 0, expected at least 1", keys[1]);
    add_chunks(im, values[0], values[1]);
    FR_TRY(fr_gguf_get_array(g, "imatrix.datasets", true, &datasets, err));
    for (uint64_t i = 0; i < datasets->n; i++)
        FR_TRY(colsum_add_dataset(im, fr_gguf_elem_str(datasets, i), err));
    return FR_OK;
}

static fr_status read_gguf(colsum *im, const char *path, fr_err *err)
{
    static const char suffix[] = ".in_sum2";
    fr_gguf *g;
    FR_TRY(fr_gguf_open(path, 0, &g, err));
    fr_status st = read_head(im, g, err);
    for (size_t i = 0; i < fr_gguf_n_tensors(g) && st == FR_OK; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        size_t n = strlen(t->name), tail = sizeof suffix - 1;
        if (n > tail && n - tail <= MAX_NAME && strcmp(t->name + n - tail, suffix) == 0)
            st = read_pair(im, g, t, n - tail, err);
    }
    fr_gguf_close(g);
    return st == FR_OK ? FR_OK : fr_err_context(err, st, "%s", path);
}

/* ---- the older form
 * ---------------------------------------------------------------------------------------- */

typedef struct {
    const char *p, *end;
} cursor;

static bool take(cursor *c, void *out, size_t n)
{
    if ((size_t)(c->end - c->p) < n)
        return false;
    memcpy(out, c->p, n);
    c->p += n;
    return true;
}

/* A length and so many bytes, of which there may be at most `most`. */
static bool take_text(cursor *c, fr_str *out, int32_t most)
{
    int32_t n;
    if (!take(c, &n, sizeof n) || n < 0 || n > most || c->end - c->p < n)
        return false;
    *out = (fr_str){c->p, (size_t)n};
    c->p += n;
    return true;
}

/* Values are means times calls; they become sums over calls * chunk_size rows. */
static fr_status add_legacy(colsum *im, const char *name, int32_t calls, int32_t n,
                            const char *values, fr_err *err)
{
    colsum_entry *e = colsum_find(im, name);
    if (!e || e->n_mat * e->cols != n)
        FR_TRY(colsum_entry_of(im, name, n, 1, &e, err));
    for (int64_t m = 0; m < e->n_mat; m++)
        e->counts[m] += calls * im->chunk_size;
    for (int32_t k = 0; k < n; k++) {
        float v;
        memcpy(&v, values + (size_t)k * sizeof v, sizeof v);
        if (!is_sum((double)v))
            return fr_fail(err, FR_EFORMAT, "%s: found a value of %g, expected 0 or more", name,
                           (double)v);
        e->sums[k] += (double)v * (double)im->chunk_size;
    }
    return FR_OK;
}

static fr_status read_legacy_entry(colsum *im, cursor *c, fr_err *err)
{
    char name[MAX_NAME + 1];
    fr_str text;
    int32_t calls, n;
    if (!take_text(c, &text, MAX_NAME) || text.n == 0 || memchr(text.p, 0, text.n) ||
        !take(c, &calls, sizeof calls) || !take(c, &n, sizeof n) || calls < 0 || n < 1 ||
        (size_t)(c->end - c->p) / sizeof(float) < (size_t)n)
        return fr_fail(err, FR_EFORMAT,
                       "found no whole entry (name, calls, values), expected an importance matrix");
    memcpy(name, text.p, text.n);
    name[text.n] = 0;
    const char *values = c->p;
    c->p += (size_t)n * sizeof(float);
    return add_legacy(im, name, calls, n, values, err);
}

/* Number of chunks and name of the data set: the oldest files end before them. */
static fr_status read_legacy_tail(colsum *im, cursor *c, fr_err *err)
{
    int32_t n_chunks;
    fr_str name;
    if (!take(c, &n_chunks, sizeof n_chunks))
        return FR_OK;
    if (n_chunks > 0)
        add_chunks(im, n_chunks, im->chunk_size);
    return take_text(c, &name, INT32_MAX) ? colsum_add_dataset(im, name, err) : FR_OK;
}

static fr_status read_legacy(colsum *im, const fr_buf *text, fr_err *err)
{
    cursor c = {text->p, text->p + text->n};
    int32_t n;
    if (!take(&c, &n, sizeof n) || n < 1)
        return fr_fail(err, FR_EFORMAT,
                       "found neither GGUF nor a number of entries, expected an importance matrix");
    for (int32_t i = 0; i < n; i++)
        FR_TRY(read_legacy_entry(im, &c, err));
    return read_legacy_tail(im, &c, err);
}

fr_status colsum_read(colsum *im, const char *path, fr_err *err)
{
    fr_buf text = {0};
    char magic[4] = {0};
    fr_file f;
    FR_TRY(fr_file_open(path, &f, err));
    fr_status st =
        f.size < sizeof magic ? FR_OK : fr_file_read_at(&f, 0, magic, sizeof magic, path, err);
    fr_file_close(&f);
    FR_TRY(st);
    if (memcmp(magic, "GGUF", sizeof magic) == 0)
        return read_gguf(im, path, err);
    FR_TRY_OUT(st, fr_file_slurp(path, SIZE_MAX / 2, &text, err));
    st = read_legacy(im, &text, err);
    if (st != FR_OK)
        st = fr_err_context(err, st, "%s", path);
out:
    fr_buf_free(&text);
    return st;
}
