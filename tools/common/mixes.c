#include "common/mixes.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const tool_mix mixes[TOOL_MIX_COUNT] = {
#define MIX(ID, name, file_type, il_file_type, BASE, help)                                         \
    [TOOL_MIX_##ID] = {name, file_type, il_file_type, FR_TYPE_##BASE, help},
#include "common/mixes.def"
#undef MIX
};

static const struct {
    const char *name;
    tool_mix_id id;
} short_names[] = {
    {"Q3_K", TOOL_MIX_Q3_K_M},
    {"Q4_K", TOOL_MIX_Q4_K_M},
    {"Q5_K", TOOL_MIX_Q5_K_M},
};

enum { N_SHORT = sizeof short_names / sizeof *short_names };

const tool_mix *tool_mix_get(tool_mix_id id)
{
    return &mixes[id];
}

/* The length of a name before _R4, _R8 or _R16, or the whole. */
static size_t without_suffix(const char *text)
{
    static const char *const suffixes[] = {"_R4", "_R8", "_R16"};
    size_t n = strlen(text);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t len = strlen(suffixes[i]);
        if (n > len && strcasecmp(text + n - len, suffixes[i]) == 0)
            return n - len;
    }
    return n;
}

static bool find_name(const char *text, size_t n, tool_mix_id *id)
{
    for (int i = 0; i < TOOL_MIX_COUNT + N_SHORT; i++) {
        bool is_short = i >= TOOL_MIX_COUNT;
        const char *name = is_short ? short_names[i - TOOL_MIX_COUNT].name : mixes[i].name;
        if (strlen(name) == n && strncasecmp(text, name, n) == 0) {
            *id = is_short ? short_names[i - TOOL_MIX_COUNT].id : (tool_mix_id)i;
            return true;
        }
    }
    return false;
}

static bool find_number(const char *text, tool_mix_id *id, bool *interleaved)
{
    char *end;
    long n = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : -1;
    if (n < 0 || *end)
        return false;
    for (int i = 0; i < TOOL_MIX_COUNT; i++)
        if (mixes[i].file_type == n || mixes[i].il_file_type == n) {
            *id = (tool_mix_id)i;
            *interleaved = mixes[i].il_file_type == n;
            return true;
        }
    return false;
}

static fr_status unknown(const char *text, fr_err *err)
{
    const char *names[TOOL_MIX_COUNT];
    char upper[32];
    size_t n = 0;
    for (int i = 0; i < TOOL_MIX_COUNT; i++)
        names[i] = mixes[i].name;
    for (; text[n] && n + 1 < sizeof upper; n++)
        upper[n] = (char)toupper((unsigned char)text[n]);
    const char *near = fr_nearest_name((fr_str){upper, n}, names, TOOL_MIX_COUNT, 3);
    return fr_fail(err, FR_EINVAL, "TYPE: found '%.80s'%s%s%s", text,
                   near ? "; did you mean " : ", expected a name such as Q4_K_M; see --help",
                   near ? near : "", near ? "?" : "");
}

fr_status tool_mix_find(const char *text, tool_mix_id *id, bool *interleaved, fr_err *err)
{
    size_t n = without_suffix(text);
    *interleaved = text[n] != 0;
    if (find_name(text, n, id)) {
        if (!*interleaved || mixes[*id].il_file_type >= 0)
            return FR_OK;
        return fr_fail(err, FR_EUNSUPPORTED,
                       "TYPE: found '%s', but files know no interleaved form of %s that can be "
                       "written; use %s",
                       text, mixes[*id].name, mixes[*id].name);
    }
    return find_number(text, id, interleaved) ? FR_OK : unknown(text, err);
}

/* How well a mix names a file of one type: 3 for "Q6_K", 2 for "Q4_K_S", 1 for "Q3_K_L". */
static int suits(const tool_mix *m, fr_type type)
{
    const char *name = fr_type_get(type)->name;
    size_t n = strlen(name);
    if (m->base != type)
        return 0;
    if (strncasecmp(m->name, name, n) != 0)
        return 1;
    return m->name[n] == 0 ? 3 : strcmp(m->name + n, "_S") == 0 ? 2 : 1;
}

int tool_file_type(fr_type type, fr_layout layout)
{
    const tool_mix *best = &mixes[TOOL_MIX_F32];
    for (int i = 0; i < TOOL_MIX_COUNT; i++)
        if (suits(&mixes[i], type) > suits(best, type))
            best = &mixes[i];
    bool il = layout == FR_LAYOUT_INTERLEAVED && best->il_file_type >= 0;
    return il ? best->il_file_type : best->file_type;
}

int tool_interleaved_file_type(int file_type)
{
    for (int i = 0; i < TOOL_MIX_COUNT; i++)
        if (mixes[i].file_type == file_type && mixes[i].il_file_type >= 0)
            return mixes[i].il_file_type;
    return file_type;
}

/* ---- rows that are too short ---------------------------------------------------------------- */

/* Types with blocks of 256 and what replaces them. Those that are not listed have 4.5 bits or
 * fewer. */
static const struct {
    fr_type type, stand_in;
} stand_ins[] = {
    {FR_TYPE_Q4_K, FR_TYPE_Q5_0},   {FR_TYPE_Q5_K, FR_TYPE_Q5_1},  {FR_TYPE_Q6_K, FR_TYPE_Q8_0},
    {FR_TYPE_IQ4_K, FR_TYPE_Q5_0},  {FR_TYPE_IQ5_K, FR_TYPE_Q6_0}, {FR_TYPE_IQ6_K, FR_TYPE_Q8_0},
    {FR_TYPE_IQ5_KS, FR_TYPE_Q6_0},
};

static bool fits(fr_type type, int64_t cols)
{
    return cols % fr_type_get(type)->weights == 0;
}

fr_type tool_fitting_type(fr_type type, int64_t cols)
{
    if (fits(type, cols))
        return type;
    fr_type other = FR_TYPE_IQ4_NL;
    for (size_t i = 0; i < sizeof stand_ins / sizeof *stand_ins; i++)
        if (stand_ins[i].type == type)
            other = stand_ins[i].stand_in;
    return fits(other, cols) ? other : FR_TYPE_F16;
}

fr_layout tool_fitting_layout(fr_type type, bool interleaved, int64_t rows, int64_t cols)
{
    bool can = interleaved && fr_type_get(type)->il_gguf_id >= 0 &&
               fr_type_check(type, FR_LAYOUT_INTERLEAVED, rows, cols, NULL) == FR_OK;
    return can ? FR_LAYOUT_INTERLEAVED : FR_LAYOUT_PLAIN;
}
