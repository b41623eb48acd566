/* ferry-gguf decode: raw blocks to floats. */
#include "commands.h"
#include "raw.h"

static const raw_command command = {
    .command = "decode",
    .help = "ferry-gguf decode TYPE ROWS COLS IN OUT.f32\n\n"
            "Decodes a matrix of ROWS x COLS weights of a type (plain or interleaved; 'ferry-gguf\n"
            "types' lists them) from the raw file IN into little-endian float32, row by row. IN "
            "must\n"
            "have exactly the size of the matrix.\n\n"
            "  --help   this text",
};

static fr_status decode(void *user, const void *src, int64_t i_row, int64_t n_rows, void *dst,
                        fr_err *err)
{
    const raw_args *a = user;
    (void)i_row;
    (void)err;
    for (int64_t r = 0; r < n_rows; r++)
        fr_decode_row(a->type, a->layout, src, r, a->cols, (float *)dst + r * a->cols);
    return FR_OK;
}

int gguf_decode(int argc, char **argv)
{
    raw_args a;
    fr_err err = {0};
    int status = raw_parse(&command, argc, argv, &a);
    if (status >= 0)
        return status;
    raw_form from = {a.type, a.layout}, to = {FR_TYPE_F32, FR_LAYOUT_PLAIN};
    return raw_convert(&a, from, to, decode, &a, &err) == FR_OK ? 0 : raw_fail(&command, &err);
}
