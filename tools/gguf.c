/* ferry-gguf: looks at model files and raw blocks. Each subcommand is a row below and a file in
 * tools/gguf. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "gguf/commands.h"

typedef struct {
    const char *name;
    const char *usage; /* what stands behind the name */
    const char *help;
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand; returns the exit status */
} subcommand;

static const subcommand subcommands[] = {
    {"dump", "[--full] FILE", "Print a file's metadata and tensors.", gguf_dump},
    {"types", "", "List the quantized types.", gguf_types},
    {"decode", "TYPE ROWS COLS IN OUT.f32", "Turn raw blocks into float32.", gguf_decode},
    {"encode", "TYPE ROWS COLS IN.f32 OUT [--imatrix F.f32]", "Quantize float32 into raw blocks.",
     gguf_encode},
    {"repack", "TYPE ROWS COLS IN OUT [--to plain|interleaved]",
     "Rearrange raw blocks, plain to interleaved or back.", gguf_repack},
    {"synth", "--shape SHAPE --type TYPE -o FILE [options]",
     "Write a model of a real shape with random weights.", gguf_synth},
};

enum { N_SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

static int print_help(void)
{
    puts("ferry-gguf: look at GGUF model files\n\nUsage:");
    for (size_t i = 0; i < N_SUBCOMMANDS; i++)
        printf("  ferry-gguf %s%s%s\n      %s\n", subcommands[i].name,
               *subcommands[i].usage ? " " : "", subcommands[i].usage, subcommands[i].help);
    puts("\n  ferry-gguf SUBCOMMAND --help   more about one of them");
    puts("  ferry-gguf --version");
    return 0;
}

static int unknown(const char *word)
{
    const char *names[N_SUBCOMMANDS + 2] = {"--help", "--version"};
    for (size_t i = 0; i < N_SUBCOMMANDS; i++)
        names[i + 2] = subcommands[i].name;
    const char *near = fr_nearest_name(fr_str_of(word), names, N_SUBCOMMANDS + 2, 3);
    fprintf(stderr, "ferry-gguf: '%s' is neither a subcommand nor an option%s%s%s\n", word,
            near ? "; did you mean '" : "; see --help", near ? near : "", near ? "'?" : "");
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("ferry-gguf: found no subcommand; see --help\n", stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return print_help();
    if (strcmp(argv[1], "--version") == 0) {
        puts("ferry-gguf " FERRY_VERSION);
        return 0;
    }
    for (size_t i = 0; i < N_SUBCOMMANDS; i++)
        if (strcmp(argv[1], subcommands[i].name) == 0)
            return subcommands[i].run(argc - 1, argv + 1);
    return unknown(argv[1]);
}
