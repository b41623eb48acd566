#include "common/placement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* ---- the machine -------------------------------------------------------------------------------
 */

static fr_status read_sections(const fr_options *o, fr_hardware *out, fr_err *err)
{
    fr_hw_key *keys = FR_NEW(fr_hw_key, FR_MEM_PLAN, o->n_hw, err);
    if (!keys)
        return FR_ENOMEM;
    for (size_t i = 0; i < o->n_hw; i++) {
        const fr_hw_record *r = &o->hw[i];
        keys[i] = (fr_hw_key){r->section, r->key, r->value, r->file, r->line};
    }
    fr_status st = fr_hardware_read(keys, o->n_hw, out, err);
    fr_mem_free(keys);
    return st;
}

/* The next part of a list, at most up to one of the separators; false at its end. */
static bool next_part(const char **rest, const char *separators, fr_str *part)
{
    if (!*rest)
        return false;
    size_t n = strcspn(*rest, separators);
    *part = fr_str_trim((fr_str){*rest, n});
    *rest = (*rest)[n] ? *rest + n + 1 : NULL;
    return true;
}

/* The sizes are read as those of an INI file are. */
static fr_status set_budgets(const char *text, fr_hardware *hw, fr_err *err)
{
    char sections[FR_MAX_GPUS][16], values[FR_MAX_GPUS][32];
    fr_hw_key keys[2 * FR_MAX_GPUS]; /* the reserve is not known here: any budget will do */
    fr_hardware read;
    fr_str part;
    int n = 0;
    bool right = true;
    for (const char *rest = text; next_part(&rest, ",", &part); n++) {
        right = right && n < FR_MAX_GPUS && part.n > 0 && part.n < sizeof values[0];
        if (!right)
            break;
        snprintf(sections[n], sizeof sections[n], "gpu.%d", n);
        snprintf(values[n], sizeof values[n], "%.*s", FR_STR_ARG(part));
        keys[2 * n] = (fr_hw_key){sections[n], "vram", values[n], NULL, 0};
        keys[2 * n + 1] = (fr_hw_key){sections[n], "reserve", "0", NULL, 0};
    }
    if (!right || (n != 1 && n != hw->n_gpus) ||
        fr_hardware_read(keys, 2 * (size_t)n, &read, NULL) != FR_OK)
        return fr_fail(err, FR_EINVAL,
                       "--vram-budget: found '%s', expected a size such as 20GiB, or one for each "
                       "of %d GPUs",
                       text, hw->n_gpus);
    for (int i = 0; i < hw->n_gpus; i++)
        hw->gpus[i].vram_bytes = read.gpus[n == 1 ? 0 : i].vram_bytes;
    return FR_OK;
}

fr_status tool_hardware(const fr_options *o, fr_hardware *out, fr_err *err)
{
    if (o->n_hw > 0)
        FR_TRY(read_sections(o, out, err));
    if (o->n_hw == 0 || (o->sim && out->n_gpus == 0)) {
        fr_hardware here;
        FR_TRY(fr_engine_hardware(o->sim, &here, err));
        if (o->n_hw == 0)
            *out = here;
        memcpy(out->gpus, here.gpus, sizeof out->gpus);
        out->n_gpus = here.n_gpus;
    }
    if (o->device && strcmp(o->device, "none") == 0)
        out->n_gpus = 0;
    return o->vram_budget ? set_budgets(o->vram_budget, out, err) : FR_OK;
}

/* ---- rules -------------------------------------------------------------------------------------
 */

static fr_status add_rules(const fr_options *o, const fr_model *m, fr_rules *r, fr_err *err)
{
    for (size_t i = 0; i < o->override_tensor.n; i++) {
        const fr_opt_item *item = &o->override_tensor.items[i];
        if (item->origin.source == FR_FROM_INI)
            FR_TRY(fr_rules_add_line(r, FR_RULE_INI, item->text, item->origin.file,
                                     item->origin.line, err));
        else
            FR_TRY(fr_rules_add_cli(r, item->text, err));
    }
    for (size_t i = 0; i < o->override_tensor_file.n; i++)
        FR_TRY(fr_rules_add_file(r, o->override_tensor_file.items[i].text, err));
    if (o->cpu_moe || o->n_cpu_moe > 0)
        FR_TRY(
            fr_rules_add_cpu_moe(r, o->cpu_moe ? -1 : o->n_cpu_moe, m->hp.n_layer_dense_lead, err));
    return FR_OK;
}

fr_status tool_rules(const fr_options *o, const fr_model *m, fr_rules **out, fr_err *err)
{
    FR_TRY(fr_rules_new(out, err));
    fr_status st = add_rules(o, m, *out, err);
    if (st != FR_OK) {
        fr_rules_free(*out);
        *out = NULL;
    }
    return st;
}

/* ---- options -----------------------------------------------------------------------------------
 */

/* A number that takes all of the part. */
static bool part_number(fr_str part, double *out)
{
    char text[64], *end;
    if (part.n == 0 || part.n >= sizeof text)
        return false;
    memcpy(text, part.p, part.n);
    text[part.n] = 0;
    *out = strtod(text, &end);
    return *end == 0;
}

static fr_status read_devices(const char *text, int n_gpus, fr_plan_options *out, fr_err *err)
{
    fr_str part;
    for (const char *rest = text; next_part(&rest, ",", &part);) {
        double n;
        fr_str number = {part.p + 4, part.n > 4 ? part.n - 4 : 0};
        if (part.n < 5 || memcmp(part.p, "CUDA", 4) != 0 || !part_number(number, &n) || !(n >= 0) ||
            n >= n_gpus || n != (int)n)
            return fr_fail(err, FR_EINVAL,
                           "--device: found '%.*s', expected names like CUDA0,CUDA1, or none; the "
                           "machine has %d GPUs",
                           FR_STR_ARG(part), n_gpus);
        if (out->n_gpus == FR_MAX_GPUS)
            return fr_fail(err, FR_EINVAL, "--device: found more than %d GPUs", FR_MAX_GPUS);
        out->gpus[out->n_gpus++] = (int)n;
    }
    return FR_OK;
}

static fr_status read_split(const char *text, fr_plan_options *out, fr_err *err)
{
    fr_str part;
    for (const char *rest = text; next_part(&rest, ",/", &part);) {
        double share;
        if (!part_number(part, &share) || !(share >= 0) || share > 1e12)
            return fr_fail(err, FR_EINVAL,
                           "--tensor-split: found '%.*s', expected shares like 3,2,2",
                           FR_STR_ARG(part));
        if (out->n_split == FR_MAX_GPUS)
            return fr_fail(err, FR_EINVAL, "--tensor-split: found more than %d shares",
                           FR_MAX_GPUS);
        out->split[out->n_split++] = share;
    }
    return FR_OK;
}

static fr_status read_margins(const char *text, fr_plan_options *out, fr_err *err)
{
    fr_str part;
    double gpu, mib;
    for (const char *rest = text; next_part(&rest, ",", &part);) {
        fr_str second;
        if (!part_number(part, &gpu) || !(gpu >= 0) || gpu >= FR_MAX_GPUS || gpu != (int)gpu ||
            !next_part(&rest, ",", &second) || !part_number(second, &mib) || !(mib >= 0) ||
            mib > 1e9)
            return fr_fail(err, FR_EINVAL,
                           "--gpu-fit-margin: found '%s', expected pairs of GPU and MiB like "
                           "0,1024,1,2048",
                           text);
        out->margin_bytes[(int)gpu] = (uint64_t)(mib * (1 << 20));
    }
    return FR_OK;
}

static fr_status cache_type(const char *name, fr_type *type, fr_err *err)
{
    fr_layout layout;
    if (!fr_type_from_name(fr_str_of(name), type, &layout))
        return fr_fail(err, FR_EINTERNAL, "KV cache type %s: the registry does not know it", name);
    return FR_OK;
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

static fr_goal goal_of(const char *name)
{
    if (strcmp(name, "decode") == 0)
        return FR_GOAL_DECODE;
    return strcmp(name, "prefill") == 0 ? FR_GOAL_PREFILL : FR_GOAL_BALANCED;
}

static void read_numbers(const fr_options *o, fr_plan_options *out)
{
    out->n_ctx = o->ctx_size;
    out->n_ubatch = o->ubatch_size < o->batch_size ? o->ubatch_size : o->batch_size;
    out->n_seq = o->parallel > 0 ? o->parallel : 1;
    out->kv_window = o->kv_window;
    out->expand_bytes = (uint64_t)o->amb_bytes;
    out->n_gpu_layers = o->n_gpu_layers;
    out->main_gpu = o->main_gpu;
    out->kv_on_cpu = !o->kv_offload;
    out->fit = strcmp(o->fit, "on") == 0;
    out->goal = goal_of(o->goal);
    out->search = o->fit_search;
    out->n_threads = max_int(o->threads, o->threads_batch);
    out->strictness = o->strict_rules ? 1 : o->lax_rules ? -1 : 0;
}

/* The default is meant for large cards. */
static void read_margin(const fr_options *o, const fr_hardware *hw, fr_plan_options *out)
{
    bool given = fr_opts_origin(o, FR_OPT_fit_margin_bytes).source != FR_FROM_DEFAULT;
    for (int i = 0; i < FR_MAX_GPUS; i++) {
        uint64_t margin = (uint64_t)o->fit_margin_bytes, most = hw->gpus[i].vram_bytes / 16;
        out->margin_bytes[i] = !given && i < hw->n_gpus && most < margin ? most : margin;
    }
}

fr_status tool_plan_options(const fr_options *o, const fr_hardware *hw, fr_plan_options *out,
                            fr_err *err)
{
    *out = fr_plan_defaults();
    read_numbers(o, out);
    read_margin(o, hw, out);
    FR_TRY(cache_type(o->cache_type_k, &out->type_k, err));
    FR_TRY(cache_type(o->cache_type_v, &out->type_v, err));
    out->split_mode = strcmp(o->split_mode, "none") == 0 ? FR_SPLIT_NONE : FR_SPLIT_LAYER;
    if (out->split_mode == FR_SPLIT_LAYER && strcmp(o->split_mode, "layer") != 0)
        fr_log_warn("--split-mode %s: this version plans whole layers, as 'layer' does",
                    o->split_mode);
    if (o->device && strcmp(o->device, "none") != 0)
        FR_TRY(read_devices(o->device, hw->n_gpus, out, err));
    if (o->tensor_split)
        FR_TRY(read_split(o->tensor_split, out, err));
    return o->gpu_fit_margin ? read_margins(o->gpu_fit_margin, out, err) : FR_OK;
}

/* ---- for an engine -----------------------------------------------------------------------------
 */

static fr_status make_rules(void *user, const fr_model *m, fr_rules **out, fr_err *err)
{
    return tool_rules(user, m, out, err);
}

fr_status tool_placement(const fr_options *o, fr_placement_config *out, fr_err *err)
{
    static fr_hardware hw;
    FR_TRY(tool_hardware(o, &hw, err));
    *out = (fr_placement_config){.hardware = &hw,
                                 .rules = make_rules,
                                 .rules_user = (void *)(uintptr_t)o,
                                 .sim = o->sim,
                                 .sync_debug = o->cuda_sync_debug};
    FR_TRY(tool_plan_options(o, &hw, &out->options, err));
    if (o->n_gpu_layers > 0 && hw.n_gpus == 0)
        fr_log_info("--n-gpu-layers %d: there is no GPU to use; everything is on the CPU",
                    o->n_gpu_layers);
    return FR_OK;
}

int tool_n_gpu_layers(const fr_options *o, const fr_engine *e)
{
    const fr_plan *p = fr_engine_plan(e);
    bool used = false;
    for (int d = 1; d < p->n_devices; d++)
        used = used || p->devices[d].used > p->devices[d].reserve;
    return o->n_gpu_layers >= 0 ? o->n_gpu_layers : used ? 999 : 0;
}
