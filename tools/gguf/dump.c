/* ferry-gguf dump: a file's header in readable form. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "gguf/gguf.h"

enum { STRING_SHOWN = 100, ELEMENTS_SHOWN = 6, ELEMENT_SHOWN = 24, KEY_WIDTH = 48 };

typedef struct {
    const char *path;
    bool full; /* whole strings and arrays */
} options;

/* ---- values -----------------------------------------------------------------------------------
 */

/* The text with quotes, control characters and bytes that are not UTF-8 escaped. */
static void print_text(fr_str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        int n = fr_utf8_decode(s.p + i, s.n - i, &cp);
        if (cp == '\n' || cp == '\t' || cp == '\r')
            printf("\\%c", cp == '\n' ? 'n' : cp == '\t' ? 't' : 'r');
        else if (cp == '"' || cp == '\\')
            printf("\\%c", (char)cp);
        else if (cp == UINT32_MAX || cp < 0x20 || (cp >= 0x7F && cp < 0xA0))
            for (int k = 0; k < n; k++)
                printf("\\x%02X", (uint8_t)s.p[i + (size_t)k]);
        else
            fwrite(s.p + i, 1, (size_t)n, stdout);
        i += (size_t)n;
    }
}

/* In quotes; cut after about `max` bytes, at the end of a character, with a note. */
static void print_str(fr_str s, size_t max)
{
    fr_str shown = {s.p, s.n > max ? max : s.n};
    if (shown.n < s.n)
        shown.n -= fr_utf8_incomplete_tail(shown.p, shown.n);
    putchar('"');
    print_text(shown);
    putchar('"');
    if (shown.n < s.n)
        printf("... (%zu bytes)", s.n);
}

/* With the fewest digits that give the same bits back. */
static void print_float(double x, bool is_f32)
{
    char text[32];
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, x);
        if (is_f32 ? strtof(text, NULL) == (float)x : strtod(text, NULL) == x)
            break;
    }
    fputs(text, stdout);
}

static void print_value(const fr_gguf_value *v, const options *o);

static void print_elem(const fr_gguf_value *v, uint64_t i, const options *o)
{
    fr_gguf_value inner;
    switch (v->type) {
    case FR_GGUF_STR:
        print_str(fr_gguf_elem_str(v, i), o->full       ? SIZE_MAX
                                          : v->is_array ? ELEMENT_SHOWN
                                                        : STRING_SHOWN);
        break;
    case FR_GGUF_ARRAY:
        inner = fr_gguf_elem_array(v, i);
        print_value(&inner, o);
        break;
    case FR_GGUF_F32:
    case FR_GGUF_F64:
        print_float(fr_gguf_elem_f64(v, i), v->type == FR_GGUF_F32);
        break;
    case FR_GGUF_BOOL:
        fputs(fr_gguf_elem_i64(v, i) ? "true" : "false", stdout);
        break;
    case FR_GGUF_U64: /* may be beyond int64_t */
        printf("%" PRIu64, (uint64_t)fr_gguf_elem_i64(v, i));
        break;
    default:
        printf("%" PRId64, fr_gguf_elem_i64(v, i));
    }
}

static void print_value(const fr_gguf_value *v, const options *o)
{
    if (!v->is_array) {
        print_elem(v, 0, o);
        return;
    }
    uint64_t shown = o->full || v->n <= ELEMENTS_SHOWN ? v->n : ELEMENTS_SHOWN;
    putchar('[');
    for (uint64_t i = 0; i < shown; i++) {
        if (i)
            fputs(", ", stdout);
        print_elem(v, i, o);
    }
    fputs(shown < v->n ? ", ...]" : "]", stdout);
    if (shown < v->n)
        printf(" (%" PRIu64 " elements)", v->n);
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static int digits(uint64_t x)
{
    return snprintf(NULL, 0, "%" PRIu64, x);
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

enum { DIMS_BYTES = 96 };

static const char *format_dims(const fr_gguf_tensor *t, char out[DIMS_BYTES])
{
    int n = 0;
    for (int i = 0; i < t->n_dims; i++)
        n += snprintf(out + n, DIMS_BYTES - (size_t)n, "%s%" PRId64, i ? " x " : "", t->dims[i]);
    return out;
}

static uint64_t n_weights(const fr_gguf_tensor *t)
{
    uint64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= (uint64_t)t->dims[i];
    return n;
}

/* Columns take the width of their widest cell. */
static void print_tensors(const fr_gguf *g)
{
    int name = 4, dims = 4, type = 4, bytes = 5, offset = 6;
    char text[DIMS_BYTES];
    size_t n = fr_gguf_n_tensors(g);
    for (size_t i = 0; i < n; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        name = max_int(name, (int)strlen(t->name));
        dims = max_int(dims, (int)strlen(format_dims(t, text)));
        type = max_int(type, (int)strlen(fr_type_name(t->type, t->layout)));
        bytes = max_int(bytes, digits(t->bytes));
        offset = max_int(offset, digits(t->offset));
    }
    bool split = fr_gguf_n_files(g) > 1;
    printf("\n%-*s  %-*s  %-*s  %*s  %*s%s\n", name, "name", dims, "dims", type, "type", bytes,
           "bytes", offset, "offset", split ? "  part" : "");
    for (size_t i = 0; i < n; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        print_text(fr_str_of(t->name));
        printf("%*s  %-*s  %-*s  %*" PRIu64 "  %*" PRIu64, name - (int)strlen(t->name), "", dims,
               format_dims(t, text), type, fr_type_name(t->type, t->layout), bytes, t->bytes,
               offset, t->offset);
        printf(split ? "  %4d\n" : "\n", t->i_file + 1);
    }
}

typedef struct {
    size_t n;
    uint64_t weights, bytes;
} total;

static void add(total *sum, const fr_gguf_tensor *t)
{
    sum->n++;
    sum->weights += n_weights(t);
    sum->bytes += t->bytes;
}

static void print_total(const char *label, const total *sum, const total *all)
{
    char size[32];
    printf("%-10s  %7zu  %15" PRIu64 "  %15" PRIu64 "  %13s  %5.1f %%  %6.3f\n", label, sum->n,
           sum->weights, sum->bytes, fr_format_bytes(sum->bytes, size),
           all->bytes ? 100.0 * (double)sum->bytes / (double)all->bytes : 0.0,
           sum->weights ? 8.0 * (double)sum->bytes / (double)sum->weights : 0.0);
}

static void print_totals(const fr_gguf *g)
{
    total by_type[FR_TYPE_COUNT][2] = {0}, all = {0};
    for (size_t i = 0; i < fr_gguf_n_tensors(g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        add(&by_type[t->type][t->layout == FR_LAYOUT_INTERLEAVED], t);
        add(&all, t);
    }
    printf("\n%-10s  %7s  %15s  %15s  %13s  %7s  %6s\n", "type", "tensors", "parameters", "bytes",
           "size", "share", "bpw");
    for (int type = 0; type < FR_TYPE_COUNT; type++)
        for (int il = 0; il < 2; il++)
            if (by_type[type][il].n)
                print_total(
                    fr_type_name((fr_type)type, il ? FR_LAYOUT_INTERLEAVED : FR_LAYOUT_PLAIN),
                    &by_type[type][il], &all);
    print_total("total", &all, &all);
}

/* ---- the whole --------------------------------------------------------------------------------
 */

static void print_files(const fr_gguf *g)
{
    for (int i = 0; i < fr_gguf_n_files(g); i++) {
        const char *path = fr_gguf_path(g, i);
        char size[32];
        fr_file f;
        if (fr_file_open(path, &f, NULL) == FR_OK) {
            printf("file:       %s (%" PRIu64 " bytes, %s)\n", path, f.size,
                   fr_format_bytes(f.size, size));
            fr_file_close(&f);
        }
    }
}

static void print_keys(const fr_gguf *g, const options *o)
{
    int width = 0;
    size_t n = fr_gguf_n_kv(g);
    for (size_t i = 0; i < n; i++)
        width = max_int(width, (int)fr_gguf_kv_at(g, i)->key.n);
    width = width > KEY_WIDTH ? KEY_WIDTH : width;
    for (size_t i = 0; i < n; i++) {
        const fr_gguf_kv *kv = fr_gguf_kv_at(g, i);
        char type[16];
        snprintf(type, sizeof type, "%s%s", fr_gguf_type_name(kv->value.type),
                 kv->value.is_array ? "[]" : "");
        print_text(kv->key);
        printf("%*s  %-8s  ", kv->key.n < (size_t)width ? width - (int)kv->key.n : 0, "", type);
        print_value(&kv->value, o);
        putchar('\n');
    }
}

static void print_all(const fr_gguf *g, const options *o)
{
    print_files(g);
    printf("version:    %d\nalignment:  %" PRIu64 "\nkeys:       %zu\ntensors:    %zu\n",
           fr_gguf_version(g), fr_gguf_alignment(g), fr_gguf_n_kv(g), fr_gguf_n_tensors(g));
    if (fr_gguf_n_kv(g)) {
        putchar('\n');
        print_keys(g, o);
    }
    if (fr_gguf_n_tensors(g)) {
        print_tensors(g);
        print_totals(g);
    }
}

/* Opens a whole file, or the header of one whose data are not there, with a note. */
static fr_status open_any(const char *path, fr_gguf **g, fr_err *err)
{
    fr_err why;
    fr_status st = fr_gguf_open(path, FR_GGUF_NO_MMAP, g, &why);
    if (st != FR_OK) {
        st = fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, g, err);
        if (st == FR_OK)
            printf("note:       header only: %s\n", why.text);
    }
    return st;
}

static void print_help(void)
{
    puts("ferry-gguf dump [--full] FILE\n\n"
         "Prints version, metadata, tensors and totals of a GGUF file, or of a split set whose "
         "first\n"
         "part is FILE. Files that end after their header are read too.\n\n"
         "  --full   print long strings and arrays whole\n"
         "  --help   this text");
}

/* -1: go on; otherwise the exit status. */
static int parse_options(int argc, char **argv, options *o)
{
    static const char *const names[] = {"--full", "--help"};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--full") == 0) {
            o->full = true;
        } else if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            print_help();
            return 0;
        } else if (a[0] == '-') {
            const char *near = fr_nearest_name(fr_str_of(a), names, 2, 3);
            fprintf(stderr, "ferry-gguf dump: '%s' is not an option%s%s%s\n", a,
                    near ? "; did you mean '" : "; see --help", near ? near : "", near ? "'?" : "");
            return 2;
        } else if (o->path) {
            fprintf(stderr, "ferry-gguf dump: found '%s' after '%s', expected one file\n", a,
                    o->path);
            return 2;
        } else {
            o->path = a;
        }
    }
    if (o->path)
        return -1;
    fputs("ferry-gguf dump: found no file, expected one; see --help\n", stderr);
    return 2;
}

int gguf_dump(int argc, char **argv)
{
    options o = {0};
    int status = parse_options(argc, argv, &o);
    if (status >= 0)
        return status;
    fr_gguf *g;
    fr_err err;
    if (open_any(o.path, &g, &err) != FR_OK) {
        fprintf(stderr, "ferry-gguf dump: %s\n", err.text);
        return 1;
    }
    print_all(g, &o);
    fr_gguf_close(g);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("ferry-gguf dump: standard output: cannot be written\n", stderr);
        return 1;
    }
    return 0;
}
