/* ferry-gguf encode: floats to raw blocks. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "commands.h"
#include "raw.h"

static const raw_command command = {
    .command = "encode",
    .help =
        "ferry-gguf encode TYPE ROWS COLS IN.f32 OUT [--imatrix F.f32]\n\n"
        "Quantizes a matrix of ROWS x COLS little-endian float32 into raw blocks of a type. An\n"
        "interleaved type is encoded plain and then repacked.\n\n"
        "  --imatrix F.f32   COLS float32, the importance of each column\n"
        "  --help            this text",
    .option = "--imatrix",
};

typedef struct {
    const raw_args *a;
    float *importance; /* cols, or NULL; owned */
    uint8_t *plain;    /* rows before they are interleaved; grows, owned */
    size_t plain_bytes;
} encoder;

static fr_status load_importance(const raw_args *a, float **out, fr_err *err)
{
    fr_file f;
    FR_TRY(fr_file_open(a->value, &f, err));
    fr_status st = FR_OK;
    size_t bytes = (size_t)a->cols * sizeof(float);
    if (f.size != bytes)
        st = fr_fail(err, FR_EINVAL,
                     "%s: found %" PRIu64 " bytes, expected %zu: a float32 for each column",
                     a->value, f.size, bytes);
    else if (!(*out = FR_NEW(float, FR_MEM_MISC, (size_t)a->cols, err)))
        st = FR_ENOMEM;
    else
        st = fr_file_read_at(&f, 0, *out, bytes, a->value, err);
    for (int64_t i = 0; st == FR_OK && i < a->cols; i++)
        if (!((*out)[i] >= 0 && isfinite((*out)[i])))
            st = fr_fail(err, FR_EINVAL, "%s: column %" PRId64 ": found %g, expected 0 or more",
                         a->value, i, (double)(*out)[i]);
    fr_file_close(&f);
    return st;
}

static fr_status check_finite(const raw_args *a, const float *x, int64_t i_row, fr_err *err)
{
    for (int64_t i = 0; i < a->cols; i++)
        if (!isfinite(x[i]))
            return fr_fail(err, FR_EINVAL,
                           "%s: row %" PRId64 ", column %" PRId64
                           ": found %g, expected a finite number",
                           a->in, i_row, i, (double)x[i]);
    return FR_OK;
}

/* The buffer for n plain bytes. */
static fr_status reserve_plain(encoder *e, size_t n, fr_err *err)
{
    if (n <= e->plain_bytes)
        return FR_OK;
    fr_mem_free(e->plain);
    e->plain_bytes = 0;
    e->plain = fr_mem_array(FR_MEM_MISC, n, 1, err);
    if (!e->plain)
        return FR_ENOMEM;
    e->plain_bytes = n;
    return FR_OK;
}

static fr_status encode(void *user, const void *src, int64_t i_row, int64_t n_rows, void *dst,
                        fr_err *err)
{
    encoder *e = user;
    const raw_args *a = e->a;
    const float *x = src;
    bool direct = a->layout == FR_LAYOUT_PLAIN;
    size_t row_bytes = fr_row_bytes(a->type, FR_LAYOUT_PLAIN, a->cols);
    if (!direct)
        FR_TRY(reserve_plain(e, (size_t)n_rows * row_bytes, err));
    uint8_t *plain = direct ? dst : e->plain;
    for (int64_t r = 0; r < n_rows; r++) {
        FR_TRY(check_finite(a, x + r * a->cols, i_row + r, err));
        fr_encode_row(a->type, x + r * a->cols, a->cols, e->importance,
                      plain + (size_t)r * row_bytes);
    }
    if (direct)
        return FR_OK;
    return fr_repack(a->type, FR_LAYOUT_PLAIN, a->layout, n_rows, a->cols, plain, dst, err);
}

static fr_status run(const raw_args *a, fr_err *err)
{
    encoder e = {.a = a};
    raw_form from = {FR_TYPE_F32, FR_LAYOUT_PLAIN}, to = {a->type, a->layout};
    fr_status st = FR_OK;
    if (!fr_type_can_encode(a->type))
        return fr_fail(err, FR_EUNSUPPORTED,
                       "type %s: found no encoder; 'ferry-gguf types' lists "
                       "the types that have one",
                       fr_type_name(a->type, a->layout));
    if (a->value)
        st = load_importance(a, &e.importance, err);
    if (st == FR_OK)
        st = raw_convert(a, from, to, encode, &e, err);
    fr_mem_free(e.importance);
    fr_mem_free(e.plain);
    return st;
}

int gguf_encode(int argc, char **argv)
{
    raw_args a;
    fr_err err = {0};
    int status = raw_parse(&command, argc, argv, &a);
    if (status >= 0)
        return status;
    return run(&a, &err) == FR_OK ? 0 : raw_fail(&command, &err);
}
