/* ferry-gguf types: the registry of quantized types as a table. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "quant/qtype.h"

/* A GGUF id, or "-" when files have none. */
static const char *format_id(int id, char out[16])
{
    snprintf(out, 16, "%d", id);
    return id < 0 ? "-" : out;
}

/* Bytes of a block: what a row grows by. */
static int block_bytes(fr_type type, const fr_type_info *t)
{
    fr_layout layout = t->il_only ? FR_LAYOUT_INTERLEAVED : FR_LAYOUT_PLAIN;
    return (int)(fr_row_bytes(type, layout, 2 * t->weights) -
                 fr_row_bytes(type, layout, t->weights));
}

static void print_row(fr_type type)
{
    const fr_type_info *t = fr_type_get(type);
    char id[16], il_id[16], rows[16];
    snprintf(rows, sizeof rows, t->group ? "%d" : "-", t->group);
    int bytes = block_bytes(type, t);
    printf("%-10s  %4s  %7d  %5d  %10d  %8.4f  %-11s  %4s  %4s  %s\n", t->il_only ? "-" : t->name,
           format_id(t->gguf_id, id), t->weights, bytes, t->il_only ? t->il_row_meta : t->row_meta,
           8.0 * bytes / t->weights, t->il_name ? t->il_name : "-", format_id(t->il_gguf_id, il_id),
           rows, fr_type_can_encode(type) ? "yes" : "no");
}

int gguf_types(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        puts("ferry-gguf types\n\n"
             "Lists the types that ferry reads: name and GGUF id of the plain form, weights and "
             "bytes\nof a block, bytes of the row header, bits per weight without it, name and id "
             "of the "
             "interleaved form,\nrows that stand together there, and whether ferry can quantize "
             "into the type.");
        return 0;
    }
    if (argc > 1) {
        fprintf(stderr, "ferry-gguf types: found '%s', expected nothing\n", argv[1]);
        return 2;
    }
    printf("%-10s  %4s  %7s  %5s  %10s  %8s  %-11s  %4s  %4s  %s\n", "type", "id", "weights",
           "bytes", "row header", "bpw", "interleaved", "id", "rows", "encode");
    for (int type = 0; type < FR_TYPE_COUNT; type++)
        print_row((fr_type)type);
    return 0;
}
