/* Sets of files: NAME-00001-of-0000N.gguf, with split.no and split.count in each part. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gguf/gguf_internal.h"

#define KEY_NO      "split.no"
#define KEY_COUNT   "split.count"
#define KEY_TENSORS "split.tensors.count"

enum { MAX_PARTS = 99999, SUFFIX_BYTES = 40 };

static void part_suffix(char out[SUFFIX_BYTES], int64_t no, int64_t count)
{
    snprintf(out, SUFFIX_BYTES, "-%05d-of-%05d.gguf", (int)no + 1, (int)count);
}

/* An integer key in [min, max]; absent: `none`. */
static fr_status split_key(const gguf_file *f, const char *key, int64_t min, int64_t max,
                           int64_t none, int64_t *out, fr_err *err)
{
    const fr_gguf_value *v = gguf_file_find(f, key);
    *out = none;
    if (!v)
        return FR_OK;
    uint64_t at = (uint64_t)(v->bytes - f->header);
    if (v->is_array || !gguf_type_is_int(v->type))
        return fr_fail(err, FR_EFORMAT,
                       "%s: key '%s', at byte %" PRIu64 ": found %s%s, expected an integer",
                       f->path, key, at, fr_gguf_type_name(v->type), v->is_array ? " array" : "");
    *out = fr_gguf_elem_i64(v, 0);
    if (*out < min || *out > max)
        return fr_fail(err, FR_EFORMAT,
                       "%s: key '%s', at byte %" PRIu64 ": found %" PRId64 ", expected %" PRId64
                       " to %" PRId64,
                       f->path, key, at, *out, min, max);
    return FR_OK;
}

/* The part of the path of file 0, which is part `no`, before "-00001-of-0000N.gguf". */
static fr_status find_stem(const gguf_file *first, int64_t no, int64_t count, fr_str *stem,
                           fr_err *err)
{
    char suffix[SUFFIX_BYTES];
    part_suffix(suffix, no, count);
    size_t n = strlen(first->path), n_suffix = strlen(suffix);
    if (n < n_suffix || strcmp(first->path + n - n_suffix, suffix) != 0)
        return fr_fail(err, FR_EFORMAT,
                       "%s: part %d of a set of %d by its keys " KEY_NO " and " KEY_COUNT
                       ", expected a name that ends in %s; give all parts their names back",
                       first->path, (int)no + 1, (int)count, suffix);
    *stem = (fr_str){first->path, n - n_suffix};
    if (no == 0)
        return FR_OK;
    part_suffix(suffix, 0, count);
    return fr_fail(err, FR_EINVAL, "%s: part %d of a set of %d; name the first part, %.*s%s",
                   first->path, (int)no + 1, (int)count, FR_STR_ARG(*stem), suffix);
}

fr_status gguf_check_part(const gguf_file *first, const gguf_file *f, const gguf_part *part,
                          fr_err *err)
{
    int64_t no, count, n_tensors;
    FR_TRY(split_key(f, KEY_NO, 0, MAX_PARTS - 1, -1, &no, err));
    FR_TRY(split_key(f, KEY_COUNT, 0, MAX_PARTS, -1, &count, err));
    FR_TRY(split_key(f, KEY_TENSORS, 0, GGUF_MAX_TENSORS, part->n_tensors, &n_tensors, err));
    if (no != part->no || count != part->count)
        return fr_fail(err, FR_EFORMAT,
                       "%s: found split.no %" PRId64 " and split.count %" PRId64
                       ", expected %" PRId64 " and %" PRId64
                       " (-1: no such key); the parts are not of one set",
                       f->path, no, count, part->no, part->count);
    if (n_tensors != part->n_tensors)
        return fr_fail(err, FR_EFORMAT,
                       "%s: found split.tensors.count %" PRId64 ", but %s has %" PRId64
                       "; the parts are not of one set",
                       f->path, n_tensors, first->path, part->n_tensors);
    return FR_OK;
}

static fr_status add_part(fr_gguf *g, fr_str stem, const gguf_part *part, fr_err *err)
{
    char suffix[SUFFIX_BYTES];
    fr_buf path = {0};
    fr_status st;
    part_suffix(suffix, part->no, part->count);
    FR_TRY_OUT(st, fr_buf_add(&path, stem.p, stem.n, err));
    FR_TRY_OUT(st, fr_buf_puts(&path, suffix, err));
    st = gguf_add_file(g, path.p, part, err);
    if (st == FR_ENOTFOUND)
        st = fr_fail(err, FR_ENOTFOUND,
                     "%s: part %d of %d is missing; all parts must lie beside the first", path.p,
                     (int)part->no + 1, (int)part->count);
out:
    fr_buf_free(&path);
    return st;
}

fr_status gguf_add_split_files(fr_gguf *g, fr_err *err)
{
    int64_t no;
    gguf_part part;
    fr_str stem = {0};
    FR_TRY(split_key(&g->files[0], KEY_COUNT, 0, MAX_PARTS, 1, &part.count, err));
    if (part.count <= 1)
        return FR_OK;
    FR_TRY(split_key(&g->files[0], KEY_NO, 0, part.count - 1, 0, &no, err));
    FR_TRY(split_key(&g->files[0], KEY_TENSORS, 0, GGUF_MAX_TENSORS, -1, &part.n_tensors, err));
    FR_TRY(find_stem(&g->files[0], no, part.count, &stem, err));
    for (part.no = 1; part.no < part.count; part.no++)
        FR_TRY(add_part(g, stem, &part, err));
    if (part.n_tensors >= 0 && (uint64_t)part.n_tensors != g->n_tensors)
        return fr_fail(err, FR_EFORMAT,
                       "%s: key '" KEY_TENSORS "': found %" PRId64 ", but the %" PRId64
                       " parts hold %zu tensors",
                       g->files[0].path, part.n_tensors, part.count, g->n_tensors);
    return FR_OK;
}
