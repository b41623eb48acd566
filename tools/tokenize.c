/* ferry-tokenize: text to token ids with the vocabulary of a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf.h"
#include "token/vocab.h"

static const char help[] =
    "usage: ferry-tokenize -m MODEL (-p TEXT | -f FILE | --batch0 FILE) [options]\n"
    "\n"
    "Prints the token ids of a text, separated by blanks. Only the header of MODEL is read.\n"
    "\n"
    "  -m, --model FILE      the GGUF file with the vocabulary\n"
    "  -p, --prompt TEXT     the text\n"
    "  -f, --file FILE       the text is in a file; - is standard input\n"
    "      --batch0 FILE     many texts, each ended by a NUL byte; one line of ids for each\n"
    "      --bos             put BOS and EOS where the model wants them\n"
    "      --parse-special   recognise control tokens in the text\n"
    "      --pieces          one token a line: id and text\n"
    "  -h, --help            this text\n";

typedef struct {
    const char *model, *prompt, *file, *batch;
    bool bos, parse_special, pieces, help;
} options;

enum { MAX_INPUT = 1 << 30 };

static fr_status parse_args(int argc, char **argv, options *o, fr_err *err)
{
    const struct {
        const char *brief, *name;
        const char **text;
        bool *flag;
    } known[] = {
        {"-m", "--model", &o->model, NULL}, {"-p", "--prompt", &o->prompt, NULL},
        {"-f", "--file", &o->file, NULL},   {"", "--batch0", &o->batch, NULL},
        {"", "--bos", NULL, &o->bos},       {"", "--parse-special", NULL, &o->parse_special},
        {"", "--pieces", NULL, &o->pieces}, {"-h", "--help", NULL, &o->help},
    };
    for (int i = 1; i < argc; i++) {
        size_t k = 0, n = sizeof known / sizeof *known;
        while (k < n && strcmp(argv[i], known[k].brief) != 0 && strcmp(argv[i], known[k].name) != 0)
            k++;
        if (k == n || !*argv[i])
            return fr_fail(err, FR_EINVAL, "%s: found an unknown argument, expected one of --help",
                           argv[i]);
        if (known[k].flag)
            *known[k].flag = true;
        else if (i + 1 < argc)
            *known[k].text = argv[++i];
        else
            return fr_fail(err, FR_EINVAL, "%s: found nothing after it, expected a value", argv[i]);
    }
    if (o->help)
        return FR_OK;
    if (!o->model)
        return fr_fail(err, FR_EINVAL, "--model: found nothing, expected a GGUF file");
    if (!!o->prompt + !!o->file + !!o->batch != 1)
        return fr_fail(err, FR_EINVAL,
                       "input: found %d, expected one of --prompt, --file, --batch0",
                       !!o->prompt + !!o->file + !!o->batch);
    return FR_OK;
}

/* The text of a token between quotes, with what does not print as \xNN. */
static fr_status print_piece(const fr_vocab *v, int32_t id, fr_buf *piece, fr_err *err)
{
    fr_buf_clear(piece);
    FR_TRY(fr_token_bytes(v, id, true, piece, err));
    printf("%6d  \"", id);
    for (size_t i = 0; i < piece->n;) {
        uint32_t cp;
        int n = fr_utf8_decode(piece->p + i, piece->n - i, &cp);
        if (cp == UINT32_MAX || cp < 0x20 || cp == 0x7F)
            printf("\\x%02X", (unsigned char)piece->p[i]);
        else
            printf("%s%.*s", cp == '"' || cp == '\\' ? "\\" : "", n, piece->p + i);
        i += (size_t)n;
    }
    puts("\"");
    return FR_OK;
}

static fr_status print_text(const fr_vocab *v, const options *o, const char *text, size_t n,
                            fr_tokens *tokens, fr_err *err)
{
    tokens->n = 0;
    FR_TRY(fr_tokenize(v, text, n, o->bos, o->parse_special, tokens, err));
    fr_buf piece = {0};
    fr_status st = FR_OK;
    for (size_t i = 0; i < tokens->n && st == FR_OK; i++) {
        if (o->pieces)
            st = print_piece(v, tokens->ids[i], &piece, err);
        else
            printf("%s%d", i ? " " : "", tokens->ids[i]);
    }
    if (!o->pieces)
        putchar('\n');
    fr_buf_free(&piece);
    return st;
}

static fr_status print_all(const fr_vocab *v, const options *o, fr_err *err)
{
    fr_buf input = {0};
    fr_tokens tokens = {0};
    fr_status st = FR_OK;
    if (o->prompt) {
        st = print_text(v, o, o->prompt, strlen(o->prompt), &tokens, err);
    } else {
        FR_TRY_OUT(st, fr_file_slurp(o->file ? o->file : o->batch, MAX_INPUT, &input, err));
        if (o->file)
            st = print_text(v, o, input.n ? input.p : "", input.n, &tokens, err);
        for (size_t at = 0; o->batch && at < input.n && st == FR_OK;) {
            size_t n = strlen(input.p + at); /* the buffer ends in a NUL of its own */
            st = print_text(v, o, input.p + at, n, &tokens, err);
            at += n + 1;
        }
    }
out:
    fr_tokens_free(&tokens);
    fr_buf_free(&input);
    return st;
}

static fr_status run(const options *o, fr_err *err)
{
    fr_gguf *g = NULL;
    fr_vocab *v = NULL;
    fr_status st = fr_gguf_open(o->model, FR_GGUF_HEADERS_ONLY, &g, err);
    if (st == FR_OK)
        st = fr_vocab_open(g, &v, err);
    fr_gguf_close(g);
    if (st == FR_OK)
        st = print_all(v, o, err);
    fr_vocab_free(v);
    if (st == FR_OK && (fflush(stdout) != 0 || ferror(stdout)))
        st = fr_fail(err, FR_EIO, "standard output: the ids could not be written");
    return st;
}

int main(int argc, char **argv)
{
    options o = {0};
    fr_err err = {0};
    fr_status st = parse_args(argc, argv, &o, &err);
    if (st == FR_OK && o.help)
        return fputs(help, stdout) < 0;
    if (st == FR_OK)
        st = run(&o, &err);
    if (st != FR_OK)
        fprintf(stderr, "ferry-tokenize: %s\n", err.text);
    return st != FR_OK;
}
