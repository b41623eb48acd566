#include "common/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/placement.h"

int tool_fail(fr_tool tool, const fr_err *err)
{
    fprintf(stderr, "%s: error: %s\n", fr_tool_name(tool), err->text);
    return TOOL_FAILED;
}

fr_status tool_fail_output(fr_err *err)
{
    return fr_fail(err, FR_EIO, "standard output: cannot be written: %s", strerror(errno));
}

/* A closed standard file would be the next one that is opened: a model read as what the user says,
 * a result with messages in it. What stands in instead fails when it is used, as a closed one does.
 */
static void hold_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* takes the lowest, fd */
}

/* ---- mapped files -------------------------------------------------------------------------------
 * A file that is cut short while it is mapped takes memory away that is in use: nothing can go on,
 * but the user shall hear why.
 */

static const char *guard_name; /* of the tool */

static void say(const char *text)
{
    ssize_t unused = write(STDERR_FILENO, text, strlen(text));
    (void)unused;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    const char *path = fr_file_mapped_at(info->si_addr);
    (void)context;
    if (!path) { /* not ours: as without this handler */
        signal(number, SIG_DFL);
        return;
    }
    say("\n");
    say(guard_name);
    say(": error: ");
    say(path);
    say(": cannot be read any more: it was cut short while it was in use, or its storage failed; "
        "start again with a whole file, or read it at the start (--no-mmap)\n");
    _exit(TOOL_FAILED);
}

static void guard_mapped_files(fr_tool tool)
{
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_sigaction = on_bus_error;
    act.sa_flags = SA_SIGINFO;
    guard_name = fr_tool_name(tool);
    sigaction(SIGBUS, &act, NULL);
}

/* ---- options ------------------------------------------------------------------------------------
 */

bool tool_options(int argc, char **argv, fr_tool tool, fr_options *o, int *status)
{
    fr_err err = {0};
    *status = TOOL_USAGE;
    hold_standard_files();
    guard_mapped_files(tool);
    if (fr_opts_parse(argc, argv, tool, o, &err) != FR_OK) {
        tool_fail(tool, &err);
        return false;
    }
    fr_buf text = {0};
    bool answered = false;
    fr_status st = fr_opts_answer(o, &answered, &text, &err);
    if (st != FR_OK)
        *status = tool_fail(tool, &err);
    else if (answered) {
        *status = 0;
        if (fwrite(text.p, 1, text.n, stdout) < text.n || fflush(stdout) != 0) {
            tool_fail_output(&err);
            *status = tool_fail(tool, &err);
        }
    }
    fr_buf_free(&text);
    if (st == FR_OK && !answered)
        return true;
    fr_opts_free(o);
    return false;
}

/* ---- engine
 * ---------------------------------------------------------------------------------------------- */

static bool show_progress(void *user, uint64_t done, uint64_t total)
{
    int *shown = user; /* hundredths */
    int now = total ? (int)(done * 100 / total) : 100;
    if (now != *shown) {
        char bar[41] = "";
        memset(bar, '#', (size_t)now * 40 / 100);
        char have[32], all[32];
        fprintf(stderr, "\rloading [%-40s] %3d %%  %s of %s ", bar, now,
                fr_format_bytes(done, have), fr_format_bytes(total, all));
        if (done == total)
            fputc('\n', stderr);
        *shown = now;
    }
    return true;
}

static fr_status cache_type(const char *name, fr_type *type, fr_err *err)
{
    fr_layout layout;
    if (!fr_type_from_name(fr_str_of(name), type, &layout))
        return fr_fail(err, FR_EINTERNAL, "KV cache type %s: the registry does not know it", name);
    return FR_OK;
}

/* Where numbers of threads are kept. */
static fr_status cache_threads(const fr_options *o, fr_engine_config *cfg, fr_err *err)
{
    static char path[4096];
    fr_buf file = {0};
    fr_status st = o->autotune_threads ? fr_opts_cache_file("threads", &file, err) : FR_OK;
    if (st == FR_OK && file.n > 0 && file.n < sizeof path) {
        memcpy(path, file.p, file.n + 1);
        cfg->thread_cache = path;
    }
    fr_buf_free(&file);
    return st;
}

fr_status tool_engine_config(const fr_options *o, fr_engine_config *cfg, fr_err *err)
{
    static int progress_shown = -1;
    *cfg = fr_engine_defaults();
    cfg->model_path = o->model;
    cfg->n_ctx = o->ctx_size;
    cfg->n_ubatch = o->ubatch_size < o->batch_size ? o->ubatch_size : o->batch_size;
    cfg->n_threads = o->threads;
    cfg->n_threads_batch = o->threads_batch;
    cfg->cpu_mask = o->cpu_mask;
    cfg->cpu_range = o->cpu_range;
    cfg->cpu_strict = o->cpu_strict;
    cfg->autotune_threads = o->autotune_threads;
    FR_TRY(cache_threads(o, cfg, err));
    if (!fr_numa_from_name(o->numa, &cfg->numa))
        return fr_fail(err, FR_EINTERNAL, "--numa %s: the threads do not know it", o->numa);
    cfg->mla = (fr_mla_mode)o->mla;
    cfg->kv_window = o->kv_window;
    cfg->expand_bytes = (uint64_t)o->amb_bytes;
    cfg->mmap = o->mmap;
    cfg->reading = strcmp(o->direct_io, "auto") == 0 ? FR_READ_AUTO
                   : strcmp(o->direct_io, "on") == 0 ? FR_READ_DIRECT
                                                     : FR_READ_THROUGH;
    cfg->pages = strcmp(o->huge_pages, "explicit") == 0 ? FR_PAGES_HUGE
                 : strcmp(o->huge_pages, "off") == 0    ? FR_PAGES_SMALL
                                                        : FR_PAGES_ADVISE;
    cfg->mlock = o->mlock;
    cfg->repack = o->repack && o->run_time_repack;
    cfg->repack_cache = o->repack_cache;
    cfg->check_tensors = o->check_tensors;
    if (isatty(STDERR_FILENO) && !o->log_disable) {
        cfg->progress = show_progress;
        cfg->progress_user = &progress_shown;
    }
    if (!fr_isa_from_name(o->isa, &cfg->max_isa))
        return fr_fail(err, FR_EINTERNAL, "--isa %s: the kernels do not know it", o->isa);
    FR_TRY(cache_type(o->cache_type_k, &cfg->type_k, err));
    FR_TRY(cache_type(o->cache_type_v, &cfg->type_v, err));
    return tool_placement(o, &cfg->place, err);
}

static void print_way(const fr_store_loading *l)
{
    char cached[32];
    if (l->cached_bytes == l->read_bytes) {
        fprintf(stderr, ", from the page cache");
        return;
    }
    fprintf(stderr, l->direct_bytes > 0 ? ", past the page cache" : ", by way of the page cache");
    if (l->cached_bytes > 0)
        fprintf(stderr, " but for %s that were in it", fr_format_bytes(l->cached_bytes, cached));
}

/* Speeds only of what took long enough to tell. */
static void print_loading(const fr_store_loading *l)
{
    char read[32], mapped[32];
    fprintf(stderr, "load: %s", fr_format_bytes(l->read_bytes, read));
    if (l->mapped_bytes > 0)
        fprintf(stderr, ", and %s mapped,", fr_format_bytes(l->mapped_bytes, mapped));
    fprintf(stderr, " in %.2f s", l->seconds);
    if (l->read_bytes > 0 && l->seconds > 0.1)
        fprintf(stderr, " = %.2f GB/s", (double)l->read_bytes * 1e-9 / l->seconds);
    if (l->read_bytes > 0)
        print_way(l);
    fputc('\n', stderr);
}

void tool_print_model(const fr_engine *e)
{
    fr_engine_info i = fr_engine_describe(e);
    char file[32], kv[32], work[32], derived[32];
    fprintf(stderr, "model: %s (%s), %.2f M parameters, %s, %lld layers\n",
            i.name[0] ? i.name : "unnamed", i.arch, (double)i.n_params * 1e-6,
            fr_format_bytes(i.file_bytes, file), (long long)i.n_layer);
    print_loading(&i.loading);
    fprintf(stderr, "memory: KV cache %s for %lld tokens, workspace %s, derived weights %s\n",
            fr_format_bytes(i.kv_bytes, kv), (long long)i.n_ctx,
            fr_format_bytes(i.workspace_bytes, work), fr_format_bytes(i.derived_bytes, derived));
    fprintf(stderr, "cpu: %d threads (%d for prompts), %s kernels\n", i.n_threads,
            i.n_threads_batch, fr_isa_name(i.isa));
    tool_print_devices(fr_engine_plan(e));
    fputc('\n', stderr);
}

void tool_memory_report(const fr_engine *e)
{
    fr_engine_info i = fr_engine_describe(e);
    const struct {
        fr_mem_tag tag;
        uint64_t planned;
    } planned[] = {{FR_MEM_WEIGHTS, i.planned.weights},
                   {FR_MEM_DERIVED, i.planned.derived},
                   {FR_MEM_KV, i.planned.kv},
                   {FR_MEM_WORKSPACE, i.planned.workspace}};
    fprintf(stderr, "\nmemory on the CPU    planned         now        peak\n");
    for (int t = 0; t < FR_MEM_TAG_COUNT; t++) {
        fr_mem_stats s = fr_mem_tag_stats((fr_mem_tag)t);
        if (s.n_allocs == 0 && s.bytes_peak == 0)
            continue;
        char plan[32] = "-", now[32], peak[32];
        for (size_t p = 0; p < sizeof planned / sizeof *planned; p++)
            if ((int)planned[p].tag == t)
                fr_format_bytes(planned[p].planned, plan);
        fprintf(stderr, "%-16s %11s %11s %11s\n", fr_mem_tag_name((fr_mem_tag)t), plan,
                fr_format_bytes(s.bytes_now, now), fr_format_bytes(s.bytes_peak, peak));
    }
    tool_report_gpus(e);
}

/* ---- sampler
 * -----------------------------------------------------------------------------------------------
 */

/* "ID+X" or "ID-X" */
static fr_status parse_bias(const char *text, fr_logit_bias *out, fr_err *err)
{
    char *end;
    long id = strtol(text, &end, 10);
    const char *number = end;
    float bias = strtof(number, &end);
    if (number == text || (*number != '+' && *number != '-') || end == number || *end || id < 0 ||
        id > INT32_MAX)
        return fr_fail(err, FR_EINVAL,
                       "--logit-bias: found '%s', expected ID+X or ID-X, such as 15043-1", text);
    *out = (fr_logit_bias){(int32_t)id, bias};
    return FR_OK;
}

static fr_status collect_biases(const fr_options *o, const fr_vocab *v, fr_logit_bias **out,
                                size_t *n, fr_err *err)
{
    *n = 0;
    *out = FR_NEW(fr_logit_bias, FR_MEM_SAMPLE, o->logit_bias.n + (size_t)fr_vocab_size(v), err);
    if (!*out)
        return FR_ENOMEM;
    for (size_t i = 0; i < o->logit_bias.n; i++)
        FR_TRY(parse_bias(o->logit_bias.items[i].text, &(*out)[(*n)++], err));
    for (int32_t id = 0; o->ignore_eos && id < fr_vocab_size(v); id++)
        if (fr_vocab_is_eog(v, id))
            (*out)[(*n)++] = (fr_logit_bias){id, -INFINITY};
    return FR_OK;
}

fr_status tool_sampler(const fr_options *o, const fr_engine *e, fr_sampler **out, fr_err *err)
{
    /* The output matrix may have rows beyond the vocabulary; they are never picked. */
    int32_t n_vocab = fr_vocab_size(fr_engine_vocab(e));
    int32_t n_ctx = (int32_t)fr_engine_describe(e).n_ctx;
    fr_sample_params p = fr_sample_defaults();
    fr_logit_bias *biases = NULL;
    fr_status st;
    FR_TRY(fr_sample_parse_order(fr_str_of(o->samplers), &p, err));
    p.seed = o->seed < 0 ? UINT64_MAX : (uint64_t)o->seed;
    p.temp = o->temp;
    p.top_k = o->top_k;
    p.top_p = o->top_p;
    p.min_p = o->min_p;
    p.typical_p = o->typical_p;
    p.repeat_last_n = o->repeat_last_n;
    p.repeat_penalty = o->repeat_penalty;
    p.presence_penalty = o->presence_penalty;
    p.frequency_penalty = o->frequency_penalty;
    FR_TRY_OUT(st, collect_biases(o, fr_engine_vocab(e), &biases, &p.n_logit_bias, err));
    p.logit_bias = biases;
    st = fr_sampler_open(&p, n_vocab, n_ctx, out, err);
out:
    fr_mem_free(biases);
    return st;
}

/* ---- text
 * ---------------------------------------------------------------------------------------------------
 */

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;
    return at ? (int)(at - digits) : -1;
}

fr_status tool_unescape(const char *text, fr_buf *out, fr_err *err)
{
    static const char from[] = "nrt'\"\\", to[] = "\n\r\t'\"\\";
    for (const char *p = text; *p; p++) {
        char c = *p;
        const char *known = c == '\\' && p[1] ? strchr(from, p[1]) : NULL;
        if (known) {
            c = to[known - from];
            p++;
        } else if (c == '\\' && p[1] == 'x' && hex_digit(p[2]) >= 0 && hex_digit(p[3]) >= 0) {
            c = (char)(hex_digit(p[2]) * 16 + hex_digit(p[3]));
            p += 3;
        }
        FR_TRY(fr_buf_putc(out, c, err));
    }
    return FR_OK;
}
