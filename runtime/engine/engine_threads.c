#include "engine/engine_threads.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/log.h"
#include "cpu/topology.h"
#include "engine/engine_internal.h"

/* A line of the file: version, key, counts. */
#define LINE       "ferry-threads 1 %016" PRIx64 " %d %d\n"
#define LINE_BYTES (14 + 2 + 16 + 2 * 12 + 1)

enum { MOST_BYTES = 64 << 10 };

/* FNV-1a. */
static uint64_t mix(uint64_t h, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t mix_int(uint64_t h, int64_t x)
{
    return mix(h, &x, sizeof x);
}

/* The processor's name, as far as Linux says it. */
static uint64_t mix_processor(uint64_t h)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0) {
            h = mix(h, line, strlen(line));
            break;
        }
    if (f)
        fclose(f);
    return h;
}

/* Machine, the CPUs that may be used of it, how threads are bound, and the shape of the weights. */
static fr_status make_key(const fr_cpu_config *cfg, const fr_weight *w, uint64_t *key, fr_err *err)
{
    cpu_topology t;
    FR_TRY(cpu_topology_read(&t, err));
    fr_status st = cpu_topology_restrict(&t, cfg, err);
    uint64_t h = mix_processor(0xcbf29ce484222325u);
    for (int i = 0; i < t.n_units; i++)
        h = mix(h, &t.units[i], sizeof t.units[i]);
    cpu_topology_free(&t);
    const int64_t numbers[] = {cfg->bind_cores, cfg->numa, cfg->max_isa, w->type,
                               w->layout,       w->cols,   w->rows};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        h = mix_int(h, numbers[i]);
    *key = h;
    return st;
}

/* The weight that most of a step is spent on: routed experts where there are any. */
static const fr_weight *heaviest(const fr_model *m)
{
    const fr_weight *most = NULL;
    for (int i = 0; i < m->n_weights; i++) {
        const fr_weight *w = &m->weights[i].shape;
        bool is_more =
            !most || w->mat_bytes * (size_t)w->n_mat > most->mat_bytes * (size_t)most->n_mat;
        if (m->weights[i].src && m->weights[i].role != FR_ROLE_TOKEN_EMBD && is_more)
            most = w;
    }
    return most;
}

/* Copies the lines of other keys to *rest; true when the key's is there. Anything that is no line
 * of ours makes the whole file bad. */
static bool find(fr_str text, uint64_t key, fr_thread_counts *out, fr_buf *rest, bool *bad)
{
    bool found = false;
    for (size_t at = 0, n; at < text.n; at += n) {
        const char *end = memchr(text.p + at, '\n', text.n - at);
        n = end ? (size_t)(end - (text.p + at)) + 1 : text.n - at;
        char line[LINE_BYTES + 1] = "", again[LINE_BYTES + 1] = "";
        uint64_t k;
        fr_thread_counts c;
        if (n <= LINE_BYTES)
            memcpy(line, text.p + at, n);
        if (sscanf(line, "ferry-threads 1 %" SCNx64 " %d %d", &k, &c.n_single, &c.n_batch) != 3 ||
            !fr_threads_possible(&c) ||
            snprintf(again, sizeof again, LINE, k, c.n_single, c.n_batch) != (int)n ||
            memcmp(line, again, n) != 0) {
            *bad = true;
            return false;
        }
        if (k == key) {
            *out = c;
            found = true;
        } else if (fr_buf_add(rest, line, n, NULL) != FR_OK) {
            return found;
        }
    }
    return found;
}

/* True when the counts are in the file; *rest has its other lines then or when they are not. */
static bool look_up(const char *path, uint64_t key, fr_thread_counts *out, fr_buf *rest)
{
    fr_buf text = {0};
    fr_err err = {0};
    bool bad = false, found = false;
    fr_status st = fr_file_slurp(path, MOST_BYTES, &text, &err);
    if (st == FR_OK)
        found = find((fr_str){text.p, text.n}, key, out, rest, &bad);
    else if (st != FR_ENOTFOUND)
        fr_log_warn("%s", err.text);
    if (bad) {
        fr_log_warn("%s: found something else than numbers of threads; they are measured anew",
                    path);
        fr_buf_clear(rest);
    }
    fr_buf_free(&text);
    return found;
}

/* The folders of a path that are missing. */
static void make_folders(const char *path)
{
    char folder[4096];
    for (const char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        if ((size_t)(at - path) >= sizeof folder)
            return;
        memcpy(folder, path, (size_t)(at - path));
        folder[at - path] = 0;
        mkdir(folder, 0700);
    }
}

static fr_status keep(const char *path, uint64_t key, const fr_thread_counts *c, fr_buf *rest,
                      fr_err *err)
{
    fr_out_file f;
    FR_TRY(fr_buf_printf(rest, err, LINE, key, c->n_single, c->n_batch));
    make_folders(path);
    FR_TRY(fr_file_create(path, &f, err));
    fr_status st = fr_file_write(&f, rest->p, rest->n, err);
    if (st == FR_OK)
        return fr_file_commit(&f, err);
    fr_file_abort(&f);
    return st;
}

fr_status engine_thread_counts(const fr_model *m, const fr_cpu_config *cfg, const char *path,
                               fr_thread_counts *out, fr_err *err)
{
    const fr_weight *w = heaviest(m);
    bool keeps = path && path[0];
    uint64_t key = 0;
    fr_buf rest = {0};
    fr_err why = {0};
    if (!w)
        return fr_fail(err, FR_EFORMAT, "--autotune-threads: the model has no weights");
    FR_TRY(make_key(cfg, w, &key, err));
    fr_status st = FR_OK;
    if (!keeps || !look_up(path, key, out, &rest)) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        st = fr_threads_tune(cfg, w, out, err);
        clock_gettime(CLOCK_MONOTONIC, &to);
        fr_log_info("threads: measuring took %.1f s",
                    (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec));
        if (st == FR_OK && keeps && keep(path, key, out, &rest, &why) != FR_OK)
            fr_log_warn("numbers of threads are not kept: %s", why.text);
    }
    fr_buf_free(&rest);
    return st;
}

int fr_engine_moe_choices(const fr_engine *e, fr_cpu_moe_choice *out, int most)
{
    int n = fr_cpu_moe_choices(e->cpu_single, out, most);
    if (e->cpu_batch != e->cpu_single)
        n += fr_cpu_moe_choices(e->cpu_batch, out + n, most - n);
    return n;
}
