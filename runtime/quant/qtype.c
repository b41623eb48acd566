#include "quant/qtype.h"

#include <string.h>
#include <strings.h>

#include "quant/repack.h"
#include "quant/types.h"

/* Bytes of a run of blocks of one row (plain) or group (interleaved). */
typedef struct {
    const uint8_t *meta; /* row header, or the group's row headers */
    const uint8_t *blk;  /* first chunk */
    size_t step;         /* bytes from chunk to chunk */
    unsigned k;          /* row in the group */
} run;

typedef void decode_fn(run from, int64_t n, float *out);
typedef void move_fn(fr_layout from_layout, fr_layout to_layout, run from, run to, int64_t n);

/* The code of a type. A chunk is what the type's header unpacks at a time: FR_T_WEIGHTS weights, a
 * whole number of blocks. */
typedef struct {
    int chunk;                          /* weights */
    decode_fn *decode[FR_LAYOUT_COUNT]; /* [layout]: n chunks */
    move_fn *move;                      /* n chunks */
    void (*seal)(uint8_t *row, int64_t cols);
} type_code;

/* Destination bytes of a run are writable: moves are called with runs into the caller's dst only.
 */
#define DEFINE_DECODE(T, L)                                                                        \
    static void decode_##T##_##L(run from, int64_t n, float *out)                                  \
    {                                                                                              \
        fr_##T##_fields x;                                                                         \
        for (; n > 0; n--, from.blk += from.step, out += fr_##T##_chunk) {                         \
            fr_##T##_unpack_##L(from.meta, from.blk, from.k, &x);                                  \
            for (unsigned e = 0; e < fr_##T##_chunk; e++)                                          \
                out[e] = fr_##T##_value(&x, e);                                                    \
        }                                                                                          \
    }

#define DEFINE_MOVE(T)                                                                             \
    static void move_##T(fr_layout from_layout, fr_layout to_layout, run from, run to, int64_t n)  \
    {                                                                                              \
        fr_##T##_fields x;                                                                         \
        for (; n > 0; n--, from.blk += from.step, to.blk += to.step) {                             \
            if (from_layout == FR_LAYOUT_PLAIN)                                                    \
                fr_##T##_unpack_plain(from.meta, from.blk, from.k, &x);                            \
            else if (from_layout == FR_LAYOUT_INTERLEAVED)                                         \
                fr_##T##_unpack_il(from.meta, from.blk, from.k, &x);                               \
            else                                                                                   \
                fr_##T##_unpack_native(from.meta, from.blk, from.k, &x);                           \
            if (to_layout == FR_LAYOUT_PLAIN)                                                      \
                fr_##T##_pack_plain(&x, (uint8_t *)to.meta, (uint8_t *)to.blk, to.k);              \
            else if (to_layout == FR_LAYOUT_INTERLEAVED)                                           \
                fr_##T##_pack_il(&x, (uint8_t *)to.meta, (uint8_t *)to.blk, to.k);                 \
            else                                                                                   \
                fr_##T##_pack_native(&x, (uint8_t *)to.meta, (uint8_t *)to.blk, to.k);             \
        }                                                                                          \
    }

#define X(ID, T, ...)                                                                              \
    DEFINE_DECODE(T, plain)                                                                        \
    DEFINE_DECODE(T, il)                                                                           \
    DEFINE_DECODE(T, native)                                                                       \
    DEFINE_MOVE(T)
#include "quant/types.def"
#undef X

static const fr_type_info infos[FR_TYPE_COUNT] = {
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, IL_META, IL_WEIGHTS, IL_GGUF, IL_NAME,    \
          FLOAT, IL_ONLY, SEAL)                                                                    \
    [FR_TYPE_##ID] = {.name = #T,                                                                  \
                      .weights = WEIGHTS,                                                          \
                      .bytes = BYTES,                                                              \
                      .act = FR_ACT_##ACT,                                                         \
                      .gguf_id = GGUF,                                                             \
                      .row_meta = META,                                                            \
                      .group = GROUP,                                                              \
                      .il_row_meta = IL_META,                                                      \
                      .il_gguf_id = IL_GGUF,                                                       \
                      .il_name = IL_NAME,                                                          \
                      .native_group = fr_##T##_native_rows,                                        \
                      .native_name = fr_##T##_native_rows ? #T "_native" : NULL,                   \
                      .float_decode = FLOAT,                                                       \
                      .il_weights = IL_WEIGHTS,                                                    \
                      .il_only = IL_ONLY},
#include "quant/types.def"
#undef X
};

static const type_code codes[FR_TYPE_COUNT] = {
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, IL_META, IL_WEIGHTS, IL_GGUF, IL_NAME,    \
          FLOAT, IL_ONLY, SEAL)                                                                    \
    [FR_TYPE_##ID] = {fr_##T##_chunk,                                                              \
                      {decode_##T##_plain, decode_##T##_il, decode_##T##_native},                  \
                      move_##T,                                                                    \
                      SEAL},
#include "quant/types.def"
#undef X
};

/* ---- the registry --------------------------------------------------------------------------- */

const fr_type_info *fr_type_get(fr_type type)
{
    return &infos[type];
}

bool fr_type_from_gguf(uint32_t id, fr_type *type, fr_layout *layout)
{
    if (id > INT32_MAX)
        return false;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        bool plain = infos[t].gguf_id == (int)id;
        if (plain || infos[t].il_gguf_id == (int)id) {
            *type = (fr_type)t;
            *layout = plain ? FR_LAYOUT_PLAIN : FR_LAYOUT_INTERLEAVED;
            return true;
        }
    }
    return false;
}

static bool same_name(fr_str a, const char *b)
{
    return b && a.n == strlen(b) && strncasecmp(a.p, b, a.n) == 0;
}

bool fr_type_from_name(fr_str name, fr_type *type, fr_layout *layout)
{
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        bool plain = !infos[t].il_only && same_name(name, infos[t].name);
        if (plain || same_name(name, infos[t].il_name)) {
            *type = (fr_type)t;
            *layout = plain ? FR_LAYOUT_PLAIN : FR_LAYOUT_INTERLEAVED;
            return true;
        }
    }
    return false;
}

const char *fr_type_name(fr_type type, fr_layout layout)
{
    const fr_type_info *t = &infos[type];
    if (layout == FR_LAYOUT_NATIVE && t->native_name)
        return t->native_name;
    return layout == FR_LAYOUT_INTERLEAVED && t->il_name ? t->il_name : t->name;
}

const char *fr_layout_name(fr_layout layout)
{
    static const char *const names[] = {"plain", "interleaved", "native"};
    return names[layout];
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static size_t meta_bytes(const fr_type_info *t, fr_layout layout)
{
    return (size_t)(layout == FR_LAYOUT_INTERLEAVED ? t->il_row_meta : t->row_meta);
}

int fr_layout_rows(fr_type type, fr_layout layout)
{
    const fr_type_info *t = &infos[type];
    if (layout == FR_LAYOUT_PLAIN)
        return t->il_only ? 0 : 1;
    return layout == FR_LAYOUT_INTERLEAVED ? t->group : t->native_group;
}

static size_t weights_bytes(const fr_type_info *t, int64_t n)
{
    return (size_t)(n / t->weights) * (size_t)t->bytes;
}

size_t fr_row_bytes(fr_type type, fr_layout layout, int64_t cols)
{
    const fr_type_info *t = &infos[type];
    return meta_bytes(t, layout) + weights_bytes(t, cols);
}

fr_status fr_type_check(fr_type type, fr_layout layout, int64_t rows, int64_t cols, fr_err *err)
{
    const fr_type_info *t = &infos[type];
    const char *name = fr_type_name(type, layout);
    const int group = fr_layout_rows(type, layout);
    if (group == 0)
        return fr_fail(err, FR_EUNSUPPORTED, "type %s: found no %s form, expected another one",
                       name, fr_layout_name(layout));
    int weights = layout == FR_LAYOUT_INTERLEAVED ? t->il_weights : t->weights;
    if (cols <= 0 || cols % weights)
        return fr_fail(err, FR_EINVAL,
                       "type %s: found rows of %lld weights, expected a multiple of %d", name,
                       (long long)cols, weights);
    if (rows <= 0 || rows % group)
        return fr_fail(err, FR_EINVAL, "type %s: found %lld rows, expected a multiple of %d", name,
                       (long long)rows, group);
    int64_t blocks = cols / t->weights, most = INT64_MAX - t->row_meta - t->il_row_meta;
    if (blocks > most / t->bytes || rows > INT64_MAX / (int64_t)fr_row_bytes(type, layout, cols))
        return fr_fail(err, FR_ERANGE,
                       "type %s: found %lld x %lld weights, expected less than 2^63 bytes", name,
                       (long long)rows, (long long)cols);
    return FR_OK;
}

fr_layout fr_layout_in_memory(fr_type type, int64_t rows, int64_t cols)
{
    const fr_type_info *t = &infos[type];
    bool is_float = t->weights == 1; /* wide enough as they stand */
    if (is_float)
        return FR_LAYOUT_PLAIN;
    if (fr_type_check(type, FR_LAYOUT_NATIVE, rows, cols, NULL) == FR_OK)
        return FR_LAYOUT_NATIVE;
    bool fits = fr_type_check(type, FR_LAYOUT_INTERLEAVED, rows, cols, NULL) == FR_OK;
    return fits ? FR_LAYOUT_INTERLEAVED : FR_LAYOUT_PLAIN;
}

fr_weight fr_weight_make(fr_type type, fr_layout layout, int64_t cols, int64_t rows, int64_t n_mat)
{
    return (fr_weight){.type = type,
                       .layout = layout,
                       .cols = cols,
                       .rows = rows,
                       .n_mat = n_mat,
                       .mat_bytes = (size_t)rows * fr_row_bytes(type, layout, cols)};
}

/* ---- decode --------------------------------------------------------------------------------- */

enum {
    MAX_CHUNK = 256,        /* weights */
    MAX_CHUNK_BYTES = 8192, /* of a group: 16 rows of 258 bytes are the most */
    MAX_ROW_META = 8
};

#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, ...)                                      \
    _Static_assert(                                                                                \
        (int)fr_##T##_chunk <= (int)MAX_CHUNK && fr_##T##_chunk % WEIGHTS == 0 &&                  \
            fr_##T##_chunk / WEIGHTS * BYTES * (GROUP ? GROUP : 1) <= (int)MAX_CHUNK_BYTES &&      \
            fr_##T##_chunk / WEIGHTS * BYTES * (int)fr_##T##_native_rows <= (int)MAX_CHUNK_BYTES,  \
        #T ": a chunk is some blocks and at most MAX_CHUNK weights");
#include "quant/types.def"
#undef X

/* Where row i_row starts. */
static run run_of_row(fr_type type, fr_layout layout, const void *base, int64_t i_row, int64_t cols)
{
    const fr_type_info *t = &infos[type];
    int group = fr_layout_rows(type, layout);
    const uint8_t *at =
        (const uint8_t *)base + (size_t)(i_row / group * group) * fr_row_bytes(type, layout, cols);
    return (run){.meta = at,
                 .blk = at + (size_t)group * meta_bytes(t, layout),
                 .step = (size_t)group * weights_bytes(t, codes[type].chunk),
                 .k = (unsigned)(i_row % group)};
}

/* Bytes of the incomplete chunk at the end of a row (group), where blocks are smaller than chunks.
 */
static size_t tail_bytes(fr_type type, fr_layout layout, int64_t cols)
{
    const fr_type_info *t = &infos[type];
    return (size_t)fr_layout_rows(type, layout) * weights_bytes(t, cols % codes[type].chunk);
}

/* Decodes chunk by chunk; calls for the incomplete one go through a padded copy. */
static void decode_run(fr_type type, fr_layout layout, run from, int64_t cols, float *out)
{
    const type_code *c = &codes[type];
    int64_t n = cols / c->chunk, rest = cols % c->chunk;
    c->decode[layout](from, n, out);
    if (rest == 0)
        return;
    uint8_t padded[MAX_CHUNK_BYTES] = {0};
    float last[MAX_CHUNK];
    memcpy(padded, from.blk + (size_t)n * from.step, tail_bytes(type, layout, cols));
    from.blk = padded;
    c->decode[layout](from, 1, last);
    memcpy(out + n * c->chunk, last, (size_t)rest * sizeof(float));
}

void fr_decode_row(fr_type type, fr_layout layout, const void *base, int64_t i_row, int64_t cols,
                   float *out)
{
    decode_run(type, layout, run_of_row(type, layout, base, i_row, cols), cols, out);
}

double fr_dot_row(fr_type type, fr_layout layout, const void *base, int64_t i_row, int64_t cols,
                  const float *x)
{
    run from = run_of_row(type, layout, base, i_row, cols);
    const int chunk = codes[type].chunk;
    float w[MAX_CHUNK];
    double sum = 0;
    for (int64_t i = 0; i < cols; i += chunk, from.blk += from.step) {
        int n = cols - i < chunk ? (int)(cols - i) : chunk;
        decode_run(type, layout, from, n, w);
        for (int e = 0; e < n; e++)
            sum += (double)w[e] * x[i + e];
    }
    return sum;
}

/* ---- repack --------------------------------------------------------------------------------- */

static void repack_row(fr_type type, fr_layout from_layout, fr_layout to_layout, run from, run to,
                       int64_t cols)
{
    const type_code *c = &codes[type];
    int64_t n = cols / c->chunk;
    c->move(from_layout, to_layout, from, to, n);
    if (cols % c->chunk == 0)
        return;
    uint8_t padded[MAX_CHUNK_BYTES] = {0}, moved[MAX_CHUNK_BYTES] = {0};
    const uint8_t *src = from.blk + (size_t)n * from.step;
    uint8_t *dst = (uint8_t *)to.blk + (size_t)n * to.step;
    size_t to_bytes = tail_bytes(type, to_layout, cols);
    memcpy(padded, src, tail_bytes(type, from_layout, cols));
    memcpy(moved, dst, to_bytes); /* rows of the group that are already there */
    from.blk = padded;
    to.blk = moved;
    c->move(from_layout, to_layout, from, to, 1);
    memcpy(dst, moved, to_bytes);
}

int quant_chunk(fr_type type)
{
    return codes[type].chunk;
}

/* Packing ORs bits into zero bytes. Clears the group at dst from column `skip` on; row headers
 * stand before all columns. */
static void clear_group(fr_type type, fr_layout layout, int64_t cols, int64_t skip, uint8_t *dst)
{
    size_t group = (size_t)fr_layout_rows(type, layout);
    size_t all = group * fr_row_bytes(type, layout, cols);
    size_t kept = skip > 0 ? group * fr_row_bytes(type, layout, skip) : 0;
    memset(dst + kept, 0, all - kept);
}

void quant_repack_walk(const repack_args *a, int64_t skip)
{
    const size_t to_row = fr_row_bytes(a->type, a->to, a->cols);
    const int64_t group = fr_layout_rows(a->type, a->to);
    const size_t chunks = (size_t)(skip / codes[a->type].chunk);
    for (int64_t r = 0; r < a->n_rows; r++) {
        if (r % group == 0)
            clear_group(a->type, a->to, a->cols, skip, a->dst + (size_t)r * to_row);
        run from = run_of_row(a->type, a->from, a->src, r, a->cols);
        run to = run_of_row(a->type, a->to, a->dst, r, a->cols);
        from.blk += chunks * from.step;
        to.blk += chunks * to.step;
        repack_row(a->type, a->from, a->to, from, to, a->cols - skip);
    }
}

fr_status fr_repack(fr_type type, fr_layout from, fr_layout to, int64_t n_rows, int64_t cols,
                    const void *src, void *dst, fr_err *err)
{
    if (n_rows == 0)
        return FR_OK;
    FR_TRY(fr_type_check(type, from, n_rows, cols, err));
    FR_TRY(fr_type_check(type, to, n_rows, cols, err));
    const size_t to_row = fr_row_bytes(type, to, cols);
    if (from == to) {
        memcpy(dst, src, (size_t)n_rows * to_row);
        return FR_OK;
    }
    quant_repack(&(repack_args){type, from, to, n_rows, cols, src, dst});
    for (int64_t r = 0; to == FR_LAYOUT_PLAIN && codes[type].seal && r < n_rows; r++)
        codes[type].seal((uint8_t *)dst + (size_t)r * to_row, cols);
    return FR_OK;
}
