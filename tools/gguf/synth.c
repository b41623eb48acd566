/* ferry-gguf synth: a model file of a real shape with random weights. */
#include "synth.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "common/interrupt.h"
#include "common/mixes.h"

typedef struct {
    const char *shape, *type, *embd_type, *vocab_from, *seed, *out; /* as given; NULL: not */
} words;

typedef struct {
    synth_shape shape;
    fr_type type, embd_type;
    fr_layout layout;
    uint64_t seed;
    const char *vocab_from, *out;
} job;

/* ---- the command line ----------------------------------------------------------------------- */

static void print_help(void)
{
    puts(
        "ferry-gguf synth --shape SHAPE --type TYPE -o FILE [options]\n\n"
        "Writes a model of a real shape with random weights: for trying out placement and speed\n"
        "without the download. Weights are scaled so that activations, routing and logits behave;\n"
        "the text it generates means nothing.\n\n"
        "  --shape SHAPE       v2-lite, v3, kimi-k2, tiny, tiny-split-kv; with -N-layers behind "
        "the name, the\n"
        "                      first N layers only: v3-4-layers\n"
        "  --type TYPE         of the matrices, as in 'ferry-gguf types'; also an interleaved one\n"
        "                      (q4_k_r4). Where rows are too short, the usual stand-in is used\n"
        "  --embd-type TYPE    of token_embd.weight, plain (as --type)\n"
        "  --vocab-from FILE   a GGUF file whose tokenizer is taken over, filled up with unused\n"
        "                      tokens (default: one token for each byte)\n"
        "  --seed N            another N, other weights (1)\n"
        "  -o, --output FILE   the file to write\n"
        "  --help              this text");
}

/* -1: go on; otherwise the exit status. */
static int parse_words(int argc, char **argv, words *o)
{
    const struct {
        const char *name;
        const char **value;
    } options[] = {
        {"--shape", &o->shape},
        {"--type", &o->type},
        {"--embd-type", &o->embd_type},
        {"--vocab-from", &o->vocab_from},
        {"--seed", &o->seed},
        {"--output", &o->out},
        {"-o", &o->out},
    };
    enum { N = sizeof options / sizeof *options };
    for (int i = 1; i < argc; i++) {
        const char *names[N + 1] = {"--help"};
        size_t k = 0;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return 0;
        }
        while (k < N && strcmp(argv[i], options[k].name) != 0) {
            names[k + 1] = options[k].name;
            k++;
        }
        if (k == N) {
            const char *near = fr_nearest_name(fr_str_of(argv[i]), names, N + 1, 3);
            fprintf(stderr, "ferry-gguf synth: '%s' is not an option%s%s%s\n", argv[i],
                    near ? "; did you mean '" : "; see --help", near ? near : "", near ? "'?" : "");
            return 2;
        }
        if (i + 1 == argc) {
            fprintf(stderr, "ferry-gguf synth: found nothing after %s, expected a value\n",
                    argv[i]);
            return 2;
        }
        *options[k].value = argv[++i];
    }
    return -1;
}

static fr_status parse_type(const char *option, const char *text, fr_type *type, fr_layout *layout,
                            fr_err *err)
{
    if (!fr_type_from_name(fr_str_of(text), type, layout))
        return fr_fail(err, FR_EINVAL, "%s: '%.40s' is not a type; 'ferry-gguf types' lists them",
                       option, text);
    const fr_type_info *info = fr_type_get(*type);
    int id = *layout == FR_LAYOUT_PLAIN ? info->gguf_id : info->il_gguf_id;
    if (id < 0)
        return fr_fail(err, FR_EUNSUPPORTED, "%s: %s does not exist in files", option, text);
    if (!fr_type_can_encode(*type))
        return fr_fail(err, FR_EUNSUPPORTED,
                       "%s: found no encoder for %s; 'ferry-gguf types' lists the types that have "
                       "one",
                       option, text);
    return FR_OK;
}

static fr_status parse_seed(const char *text, uint64_t *seed, fr_err *err)
{
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (end == text || *end || errno || *text == '-')
        return fr_fail(err, FR_EINVAL, "--seed: found '%.40s', expected a number from 0", text);
    return FR_OK;
}

static fr_status parse_job(const words *o, job *j, fr_err *err)
{
    fr_layout layout;
    *j = (job){.vocab_from = o->vocab_from, .out = o->out};
    if (!o->shape || !o->type || !o->out)
        return fr_fail(err, FR_EINVAL, "found no %s; see --help",
                       !o->shape  ? "--shape"
                       : !o->type ? "--type"
                                  : "--output");
    FR_TRY(synth_shape_find(o->shape, &j->shape, err));
    FR_TRY(parse_type("--type", o->type, &j->type, &j->layout, err));
    FR_TRY(parse_type("--embd-type", o->embd_type ? o->embd_type : o->type, &j->embd_type, &layout,
                      err));
    return parse_seed(o->seed ? o->seed : "1", &j->seed, err);
}

/* ---- writing -------------------------------------------------------------------------------- */

typedef struct {
    const job *j;
    fr_gguf_writer *w;
    synth_filler *filler;
    bool writing; /* first pass: declare tensors; second: write their data */
    uint64_t bytes;
} writer;

/* The type that a tensor gets, or the stand-in that its rows allow. */
static fr_status choose_type(const job *j, const synth_tensor *t, fr_type *type, fr_layout *layout,
                             fr_err *err)
{
    bool matrix = t->kind == SYNTH_MATRIX, lookup = t->kind == SYNTH_LOOKUP;
    *layout = FR_LAYOUT_PLAIN;
    *type = FR_TYPE_F32;
    if (!matrix && !lookup)
        return FR_OK;
    fr_type want = matrix ? j->type : j->embd_type;
    *type = tool_fitting_type(want, t->dims[0]);
    if (!fr_type_can_encode(*type))
        return fr_fail(err, FR_EUNSUPPORTED,
                       "%s: rows of %" PRId64 " weights cannot be %s, and found no encoder for "
                       "%s, the type that replaces it",
                       t->name, t->dims[0], fr_type_get(want)->name, fr_type_get(*type)->name);
    if (matrix)
        *layout =
            tool_fitting_layout(*type, j->layout == FR_LAYOUT_INTERLEAVED, t->dims[1], t->dims[0]);
    return FR_OK;
}

static fr_status put_tensor(void *user, const synth_tensor *t, fr_err *err)
{
    writer *wr = user;
    fr_type type;
    fr_layout layout;
    FR_TRY(choose_type(wr->j, t, &type, &layout, err));
    if (wr->writing) {
        FR_TRY(tool_check_interrupt(err));
        return synth_fill(wr->filler, wr->w, t, type, layout, err);
    }
    wr->bytes += (uint64_t)(t->dims[1] * t->dims[2]) * fr_row_bytes(type, layout, t->dims[0]);
    return fr_gguf_add_tensor(wr->w, t->name, type, layout, t->n_dims, t->dims, err);
}

static fr_status put_vocab(const job *j, fr_gguf_writer *w, fr_err *err)
{
    fr_gguf *from = NULL;
    if (j->vocab_from)
        FR_TRY(fr_gguf_open(j->vocab_from, FR_GGUF_HEADERS_ONLY, &from, err));
    fr_status st = synth_put_vocab(w, from, j->shape.n_vocab, err);
    fr_gguf_close(from);
    return st;
}

static fr_status put_keys(const job *j, fr_gguf_writer *w, fr_err *err)
{
    char name[80];
    snprintf(name, sizeof name, "Random weights in the shape of %s, %d layers", j->shape.title,
             (int)j->shape.n_layer);
    FR_TRY(fr_gguf_put_str(w, "general.architecture", FR_STR("deepseek2"), err));
    FR_TRY(fr_gguf_put_str(w, "general.name", fr_str_of(name), err));
    FR_TRY(fr_gguf_put_u32(w, "general.quantization_version", 2, err));
    FR_TRY(
        fr_gguf_put_u32(w, "general.file_type", (uint32_t)tool_file_type(j->type, j->layout), err));
    FR_TRY(synth_put_shape(w, &j->shape, err));
    return put_vocab(j, w, err);
}

static fr_status write_all(const job *j, writer *wr, fr_err *err)
{
    FR_TRY(put_keys(j, wr->w, err));
    FR_TRY(synth_each_tensor(&j->shape, put_tensor, wr, err));
    FR_TRY(fr_gguf_write_header(wr->w, err));
    wr->writing = true;
    return synth_each_tensor(&j->shape, put_tensor, wr, err);
}

static fr_status run(const job *j, fr_err *err)
{
    writer wr = {.j = j};
    char size[32];
    FR_TRY(synth_filler_open(j->seed, &wr.filler, err));
    fr_status st = fr_gguf_writer_create(j->out, &wr.w, err);
    if (st == FR_OK) {
        st = write_all(j, &wr, err);
        fr_status closed = fr_gguf_writer_close(wr.w, st == FR_OK, st == FR_OK ? err : NULL);
        st = st == FR_OK ? closed : st;
    }
    synth_filler_close(wr.filler);
    if (st == FR_OK)
        printf("%s: %s, %d layers, %s of weights\n", j->out, j->shape.title, (int)j->shape.n_layer,
               fr_format_bytes(wr.bytes, size));
    return st;
}

int gguf_synth(int argc, char **argv)
{
    words o = {0};
    job j;
    fr_err err = {0};
    int status = parse_words(argc, argv, &o);
    if (status >= 0)
        return status;
    status = parse_job(&o, &j, &err) == FR_OK ? 0 : 2;
    tool_catch_interrupts();
    if (status == 0 && run(&j, &err) != FR_OK)
        status = 1;
    if (status)
        fprintf(stderr, "ferry-gguf synth: %s\n", err.text);
    return status;
}
