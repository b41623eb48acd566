/* Names of devices in rules. */
#include <string.h>
#include <strings.h>

#include "planner/rules_device.h"
#include "planner/rules_internal.h"

/* A whole number of at most nine digits at the start of *s, which moves behind it. */
static bool take_number(fr_str *s, int64_t *out)
{
    size_t n = 0;
    for (*out = 0; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++)
        *out = n < 9 ? *out * 10 + (s->p[n] - '0') : -1;
    if (n == 0 || n > 9)
        return false;
    s->p += n;
    s->n -= n;
    return true;
}

static bool take_text(fr_str *s, const char *text)
{
    size_t n = strlen(text);
    if (s->n < n || memcmp(s->p, text, n) != 0)
        return false;
    s->p += n;
    s->n -= n;
    return true;
}

static bool take_slice(fr_str *s, fr_target *out)
{
    if (!take_text(s, "["))
        return true;
    if (!take_number(s, &out->expert_from))
        return false;
    out->expert_to = out->expert_from;
    if (take_text(s, "-") && !take_number(s, &out->expert_to))
        return false;
    return take_text(s, "]") && out->expert_from <= out->expert_to;
}

bool plan_target_parse(fr_str text, fr_target *out)
{
    int64_t index = 0;
    *out = (fr_target){.expert_from = -1, .expert_to = -1, .layout = -1};
    if (take_text(&text, "CPU"))
        out->kind = FR_TARGET_CPU;
    else if (take_text(&text, "CUDA*"))
        out->kind = FR_TARGET_ANY_GPU;
    else if (take_text(&text, "CUDA") && take_number(&text, &index))
        out->kind = FR_TARGET_GPU;
    else if (take_text(&text, "NUMA") && take_number(&text, &index))
        out->kind = FR_TARGET_NUMA;
    else
        return false;
    out->index = (int)index;
    return take_slice(&text, out) && text.n == 0;
}

fr_status plan_target_print(const fr_target *t, fr_buf *out, fr_err *err)
{
    static const char *const names[] = {"CPU", "NUMA", "CUDA", "CUDA*"};
    FR_TRY(fr_buf_puts(out, names[t->kind], err));
    if (t->kind == FR_TARGET_GPU || t->kind == FR_TARGET_NUMA)
        FR_TRY(fr_buf_printf(out, err, "%d", t->index));
    if (t->expert_from < 0)
        return FR_OK;
    if (t->expert_from == t->expert_to)
        return fr_buf_printf(out, err, "[%lld]", (long long)t->expert_from);
    return fr_buf_printf(out, err, "[%lld-%lld]", (long long)t->expert_from,
                         (long long)t->expert_to);
}

/* ---- what people write instead
 * ------------------------------------------------------------------- */

static bool starts_with(fr_str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.n >= n && strncasecmp(s.p, prefix, n) == 0;
}

static const struct {
    const char *prefix, *hint;
} foreign[] = {
    {"CUDA_Host", "; write CPU: ferry pins memory where that helps"},
    {"CPU_", "; write CPU: ferry chooses the layout itself"},
    {"ROCm", "; ferry drives GPUs with CUDA only"},
    {"Vulkan", "; ferry drives GPUs with CUDA only"},
    {"SYCL", "; ferry drives GPUs with CUDA only"},
    {"Metal", "; ferry drives GPUs with CUDA only"},
    {"RPC", "; ferry runs on one machine"},
    {"GPU", "; GPUs are called CUDA0, CUDA1 ..."},
    {"RAM", "; the machine's memory is called CPU"},
};

/* The same without regard to case is a device: "cuda0". */
static bool in_capitals(fr_str text, char out[16])
{
    fr_target t;
    if (text.n == 0 || text.n >= 16)
        return false;
    for (size_t i = 0; i < text.n; i++)
        out[i] = (char)(text.p[i] >= 'a' && text.p[i] <= 'z' ? text.p[i] - 32 : text.p[i]);
    out[text.n] = 0;
    return plan_target_parse((fr_str){out, text.n}, &t);
}

static bool upside_down(fr_str text)
{
    const char *open = text.n ? memchr(text.p, '[', text.n) : NULL;
    fr_target t = {0};
    if (!open)
        return false;
    fr_str slice = {open, text.n - (size_t)(open - text.p)};
    return !take_slice(&slice, &t) && slice.n == 0 && t.expert_from > t.expert_to;
}

fr_status plan_device_hint(fr_str text, fr_buf *out, fr_err *err)
{
    static const char *const names[] = {"CPU",   "CUDA0", "CUDA1", "CUDA2",
                                        "CUDA3", "CUDA*", "NUMA0"};
    char capitals[16];
    if (in_capitals(text, capitals))
        return fr_buf_printf(out, err, "; write %s", capitals);
    if (fr_str_is(text, "CUDA"))
        return fr_buf_puts(
            out, "; CUDA0 is the first GPU, CUDA* leaves the choice of the GPU to ferry", err);
    if (upside_down(text))
        return fr_buf_puts(out, "; experts are counted upwards, the first is 0", err);
    if (text.n && memchr(text.p, '[', text.n))
        return fr_buf_puts(out, "; a part of the experts is written CUDA0[0-31]", err);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (starts_with(text, foreign[i].prefix))
            return fr_buf_puts(out, foreign[i].hint, err);
    const char *near = fr_nearest_name(text, names, sizeof names / sizeof *names, 2);
    return near ? fr_buf_printf(out, err, "; did you mean %s?", near) : FR_OK;
}
