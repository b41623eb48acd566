/* The table of options as data, and finding an option by name. */
#include <float.h>
#include <limits.h>
#include <string.h>

#include "opts/opts_internal.h"

/* Short names that options.def uses. */
enum {
    CLI = FR_TOOL_CLI,
    TOKENIZE = FR_TOOL_TOKENIZE,
    LOGITS = FR_TOOL_LOGITS,
    GGUF = FR_TOOL_GGUF,
    SERVER = FR_TOOL_SERVER,
    PLAN = FR_TOOL_PLAN,
    BENCH = FR_TOOL_BENCH,
    QUANTIZE = FR_TOOL_QUANTIZE,
    PERPLEXITY = FR_TOOL_PERPLEXITY,
    IMATRIX = FR_TOOL_IMATRIX,
    SWEEP = FR_TOOL_SWEEP,
    BATCHED = FR_TOOL_BATCHED,
    ONE_RUN = CLI | LOGITS | SERVER | PERPLEXITY | IMATRIX | SWEEP | BATCHED,
    RUN = ONE_RUN | BENCH, /* they compute with a model; BENCH with several settings */
    ALL = RUN | TOKENIZE | GGUF | PLAN | QUANTIZE,

    OPTARG = OPTS_OPTARG,
    NO_INI = OPTS_NO_INI,
    NO_ENV = OPTS_NO_ENV,
    SECRET = OPTS_SECRET,
    LATER = OPTS_LATER,
    REFUSED = OPTS_REFUSED,
    MANY = OPTS_MANY
};

#define ANY                  .low = -DBL_MAX, .high = DBL_MAX
#define IN(lo, hi)           .low = (lo), .high = (hi)
#define IN_OR(lo, hi, names) .low = (lo), .high = (hi), .words = (names)
#define ONE_OF(names)        .words = (names)

const opts_row opts_rows[FR_OPT_COUNT] = {
#define OPT(TYPE, field, dflt_, check, section_, names_, tools_, flags_, value_, help_, note_)     \
    [FR_OPT_##field] = {.type = OPTS_##TYPE,                                                       \
                        .offset = offsetof(fr_options, field),                                     \
                        .dflt = dflt_,                                                             \
                        check,                                                                     \
                        .section = section_,                                                       \
                        .names = names_,                                                           \
                        .tools = tools_,                                                           \
                        .flags = flags_,                                                           \
                        .value = value_,                                                           \
                        .help = help_,                                                             \
                        .note = note_},
#include "opts/options.def"
#undef OPT
};

const opts_section opts_sections[] = {
    {"general", "General"},
    {"model", "Model"},
    {"run", "Context, batches, threads, memory"},
    {"prompt", "Prompt and output of ferry-cli"},
    {"sampling", "Sampling"},
    {"place", "Placement on GPUs"},
    {"server", "Server"},
    {"draft", "Draft model"},
    {"plan", "ferry-plan"},
    {"bench", "Benchmarks"},
    {"logits", "ferry-logits"},
    {"tokenize", "ferry-tokenize"},
    {"perplexity", "ferry-perplexity and ferry-imatrix"},
    {"imatrix", "ferry-imatrix"},
    {"quantize", "ferry-quantize"},
    {"compat", "Accepted from other programs' command lines; not needed in ferry"},
    {"refused", "Not supported"},
    {NULL, NULL},
};

static const struct {
    fr_tool tool;
    const char *name;
    size_t max_args; /* positional arguments */
    const char *usage;
} tools[] = {
    {FR_TOOL_CLI, "ferry-cli", 0, "-m FILE [-p TEXT] [options]"},
    {FR_TOOL_TOKENIZE, "ferry-tokenize", 0, "-m FILE -p TEXT [options]"},
    {FR_TOOL_LOGITS, "ferry-logits", 0, "-m FILE --ids FILE -o FILE [options]"},
    {FR_TOOL_GGUF, "ferry-gguf", 16, "FILE... [options]"},
    {FR_TOOL_SERVER, "ferry-server", 0, "-m FILE [options]"},
    {FR_TOOL_PLAN, "ferry-plan", 2, "-m FILE [options] | --diff OLD.json NEW.json [options]"},
    {FR_TOOL_BENCH, "ferry-bench", 64, "-m FILE [options] | --kernels [TYPE...] [options]"},
    {FR_TOOL_QUANTIZE, "ferry-quantize", 4, "[options] IN.gguf [OUT.gguf] TYPE [THREADS]"},
    {FR_TOOL_PERPLEXITY, "ferry-perplexity", 0, "-m FILE -f TEXT [options]"},
    {FR_TOOL_IMATRIX, "ferry-imatrix", 0, "-m FILE -f TEXT [-o FILE] [options]"},
    {FR_TOOL_SWEEP, "ferry-sweep-bench", 16,
     "-m FILE [options] | --plot OUT.svg TABLE... [options]"},
    {FR_TOOL_BATCHED, "ferry-batched-bench", 0,
     "-m FILE -npp N,... -ntg N,... -npl N,... [options]"},
};

static size_t tool_row(fr_tool tool)
{
    size_t i = sizeof tools / sizeof *tools - 1;
    while (i > 0 && tools[i].tool != tool)
        i--;
    return i;
}

const char *fr_tool_name(fr_tool tool)
{
    return tools[tool_row(tool)].name;
}

size_t opts_max_args(fr_tool tool)
{
    return tools[tool_row(tool)].max_args;
}

const char *opts_usage(fr_tool tool)
{
    return tools[tool_row(tool)].usage;
}

fr_str opts_next_word(const char **rest)
{
    *rest += strspn(*rest, " ");
    fr_str w = {*rest, strcspn(*rest, " ")};
    *rest += w.n;
    return w;
}

bool opts_next_name(const char **rest, opts_name *out)
{
    fr_str w = opts_next_word(rest);
    if (w.n == 0)
        return false;
    out->negates = w.p[0] == '!';
    if (out->negates)
        w.p++, w.n--;
    out->spelled = w;
    out->ini_only = w.p[0] != '-';
    while (w.n && w.p[0] == '-')
        w.p++, w.n--;
    out->bare = w;
    return true;
}

opts_name opts_first_name(fr_opt_id id)
{
    const char *rest = opts_rows[id].names;
    opts_name name = {0};
    opts_next_name(&rest, &name);
    return name;
}

bool opts_is_switch(const opts_row *row)
{
    return row->type == OPTS_BOOL || (row->type == OPTS_ENUM && (row->flags & OPTS_OPTARG));
}

bool opts_is_list(const opts_row *row)
{
    return row->type == OPTS_LIST || row->type == OPTS_PATHS;
}

static char fold_dash(char c)
{
    return c == '_' ? '-' : c;
}

static bool same_name(fr_str a, fr_str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (fold_dash(a.p[i]) != fold_dash(b.p[i]))
            return false;
    return true;
}

/* Whether `bare` is a spelling of the row, or of its negation. */
static bool row_has(const opts_row *row, fr_str bare, bool in_ini, bool *negated)
{
    bool no = bare.n > 3 && same_name((fr_str){bare.p, 3}, FR_STR("no-")) && opts_is_switch(row);
    fr_str rest_of_no = no ? (fr_str){bare.p + 3, bare.n - 3} : (fr_str){0};
    const char *rest = row->names;
    opts_name name;
    while (opts_next_name(&rest, &name)) {
        if (name.ini_only && !in_ini)
            continue;
        *negated = name.negates;
        if (same_name(name.bare, bare))
            return true;
        *negated = !name.negates;
        if (no && same_name(name.bare, rest_of_no))
            return true;
    }
    return false;
}

bool opts_find(fr_str bare, fr_tool tool, bool in_ini, opts_match *out)
{
    bool found = false;
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        bool negated, own = opts_rows[id].tools & (unsigned)tool;
        if ((found && !own) || !row_has(&opts_rows[id], bare, in_ini, &negated))
            continue;
        *out = (opts_match){(fr_opt_id)id, negated};
        found = true;
        if (own)
            break;
    }
    return found;
}

fr_str opts_nearest(fr_str bare, fr_tool tool, bool in_ini)
{
    fr_str best = {0};
    int best_d = bare.n <= 3 ? 2 : bare.n <= 8 ? 3 : 4;
    bool best_own = false;
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        bool own = opts_rows[id].tools & (unsigned)tool;
        const char *rest = opts_rows[id].names;
        opts_name name;
        while (opts_next_name(&rest, &name)) {
            if (name.ini_only && !in_ini)
                continue;
            int d = fr_edit_distance(bare, name.bare, best_d + 1);
            if (d < best_d || (d == best_d && best.n && own && !best_own)) {
                best = name.spelled;
                best_d = d;
                best_own = own;
            }
        }
    }
    return best;
}

void opts_env_name(fr_opt_id id, char out[OPTS_ENV_MAX])
{
    fr_str key = opts_first_name(id).bare;
    size_t n = 6;
    memcpy(out, "FERRY_", n);
    for (size_t i = 0; i < key.n && n + 1 < OPTS_ENV_MAX; i++) {
        char c = key.p[i];
        out[n++] = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
    }
    out[n] = 0;
}
