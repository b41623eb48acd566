#include "quantize_write.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPLIT_NO      "split.no"
#define SPLIT_COUNT   "split.count"
#define SPLIT_TENSORS "split.tensors.count"

typedef struct {
    fr_buf path;       /* owned */
    fr_gguf_writer *w; /* NULL: closed */
    bool done;         /* stands under its name */
} part;

typedef struct {
    const fr_gguf *g;
    const quantize_plan *plan;
    const importance *im;
    const quantize_output *o;
    part *parts; /* n; owned */
    int n;
    fr_err *err;
} output;

/* ---- names ---------------------------------------------------------------------------------- */

/* The length of a path before "-00001-of-00003.gguf" or ".gguf". */
static size_t stem_length(const char *path)
{
    size_t n = strlen(path);
    int no, count, used = 0;
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0)
        n -= 5;
    if (n > 15 && sscanf(path + n - 15, "-%5d-of-%5d%n", &no, &count, &used) == 2 && used == 15)
        n -= 15;
    return n;
}

static fr_status name_part(output *x, int i)
{
    const char *path = x->o->path;
    if (x->n == 1)
        return fr_buf_puts(&x->parts[i].path, path, x->err);
    return fr_buf_printf(&x->parts[i].path, x->err, "%.*s-%05d-of-%05d.gguf",
                         (int)stem_length(path), path, i + 1, x->n);
}

/* An input must not be overwritten: it is still being read. */
static fr_status check_not_input(const output *x, const char *path)
{
    struct stat ours, theirs;
    if (stat(path, &ours) != 0)
        return FR_OK;
    for (int i = 0; i < fr_gguf_n_files(x->g); i++)
        if (stat(fr_gguf_path(x->g, i), &theirs) == 0 && ours.st_dev == theirs.st_dev &&
            ours.st_ino == theirs.st_ino)
            return fr_fail(x->err, FR_EINVAL,
                           "%s: is the input too; name another file for the output", path);
    return FR_OK;
}

/* ---- metadata ------------------------------------------------------------------------------- */

static fr_status put_u16(fr_gguf_writer *w, const char *key, int v, fr_err *err)
{
    const uint8_t le[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    const fr_gguf_value value = {.type = FR_GGUF_U16, .n = 1, .bytes = le};
    return fr_gguf_put_value(w, key, &value, err);
}

static fr_status put_split(const output *x, int i)
{
    fr_gguf_writer *w = x->parts[i].w;
    FR_TRY(put_u16(w, SPLIT_NO, i, x->err));
    FR_TRY(put_u16(w, SPLIT_COUNT, x->n, x->err));
    return fr_gguf_put_i32(w, SPLIT_TENSORS, (int32_t)x->plan->n, x->err);
}

static fr_status put_importance(const output *x, fr_gguf_writer *w)
{
    fr_str dataset = {x->im->dataset.p, x->im->dataset.n};
    FR_TRY(fr_gguf_put_str(w, "quantize.imatrix.file", fr_str_of(x->o->imatrix_path), x->err));
    if (dataset.n)
        FR_TRY(fr_gguf_put_str(w, "quantize.imatrix.dataset", dataset, x->err));
    FR_TRY(fr_gguf_put_i32(w, "quantize.imatrix.entries_count", (int32_t)x->im->n, x->err));
    if (x->im->n_chunks <= 0)
        return FR_OK;
    return fr_gguf_put_i32(w, "quantize.imatrix.chunks_count", (int32_t)x->im->n_chunks, x->err);
}

static fr_status put_metadata(const output *x)
{
    static const char *const split_keys[] = {SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS, NULL};
    fr_gguf_writer *w = x->parts[0].w;
    FR_TRY(fr_gguf_put_all(w, x->g, split_keys, x->err));
    FR_TRY(fr_gguf_put_u32(w, "general.quantization_version", 2, x->err));
    if (x->plan->file_type >= 0)
        FR_TRY(fr_gguf_put_u32(w, "general.file_type", (uint32_t)x->plan->file_type, x->err));
    return x->im ? put_importance(x, w) : FR_OK;
}

/* ---- writing -------------------------------------------------------------------------------- */

static int part_of(const output *x, const quantize_step *s)
{
    return x->n > 1 ? s->from->i_file : 0;
}

static fr_status open_parts(output *x)
{
    x->n = x->o->keep_split ? fr_gguf_n_files(x->g) : 1;
    x->parts = FR_NEW(part, FR_MEM_MISC, (size_t)x->n, x->err);
    if (!x->parts)
        return FR_ENOMEM;
    for (int i = 0; i < x->n; i++) {
        FR_TRY(name_part(x, i));
        FR_TRY(check_not_input(x, x->parts[i].path.p));
        FR_TRY(fr_gguf_writer_create(x->parts[i].path.p, &x->parts[i].w, x->err));
    }
    return FR_OK;
}

static fr_status write_headers(output *x)
{
    FR_TRY(put_metadata(x));
    for (int i = 0; x->n > 1 && i < x->n; i++)
        FR_TRY(put_split(x, i));
    for (size_t i = 0; i < x->plan->n; i++) {
        const quantize_step *s = &x->plan->steps[i];
        FR_TRY(fr_gguf_add_tensor(x->parts[part_of(x, s)].w, s->from->name, s->type, s->layout,
                                  s->from->n_dims, s->from->dims, x->err));
    }
    for (int i = 0; i < x->n; i++)
        FR_TRY(fr_gguf_write_header(x->parts[i].w, x->err));
    return FR_OK;
}

static fr_status commit_parts(output *x)
{
    for (int i = 0; i < x->n; i++) {
        fr_gguf_writer *w = x->parts[i].w;
        x->parts[i].w = NULL;
        FR_TRY(fr_gguf_writer_close(w, true, x->err));
        x->parts[i].done = true;
    }
    return FR_OK;
}

/* Removes temporary files, and after a failure those parts that were ready. */
static void close_parts(output *x, bool failed)
{
    for (int i = 0; x->parts && i < x->n; i++) {
        fr_gguf_writer_close(x->parts[i].w, false, NULL);
        if (failed && x->parts[i].done)
            unlink(x->parts[i].path.p);
        fr_buf_free(&x->parts[i].path);
    }
    fr_mem_free(x->parts);
}

fr_status quantize_write(const fr_gguf *g, const quantize_plan *p, const importance *im,
                         const quantize_output *o, quantize_converter *c, quantize_progress_fn fn,
                         void *user, fr_err *err)
{
    output x = {.g = g, .plan = p, .im = im, .o = o, .err = err};
    fr_status st;
    FR_TRY_OUT(st, open_parts(&x));
    FR_TRY_OUT(st, write_headers(&x));
    for (size_t i = 0; i < p->n; i++) {
        quantize_result r;
        const quantize_step *s = &p->steps[i];
        FR_TRY_OUT(st,
                   quantize_convert(c, g, s, im, o->allow_nan, x.parts[part_of(&x, s)].w, &r, err));
        fn(user, i, p, &r);
    }
    st = commit_parts(&x);
out:
    close_parts(&x, st != FR_OK);
    return st;
}
