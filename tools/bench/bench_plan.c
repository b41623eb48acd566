/* The lists of the command line: settings and tests. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "common/int_list.h"

enum { MAX_SETTINGS = 4096, MAX_TOKENS = 1 << 24 };

/* ---- texts ----------------------------------------------------------------------------------- */

typedef struct {
    const char **v; /* owned; the texts are not */
    size_t n, cap;
} texts;

static fr_status add_text(texts *t, const char *text, fr_err *err)
{
    void *p = t->v;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &p, &t->cap, t->n + 1, sizeof *t->v, err));
    t->v = p;
    t->v[t->n++] = text;
    return FR_OK;
}

/* A piece of an item, kept until the plan is freed. */
static fr_status keep(bench_plan *p, const char *text, size_t n, const char **out, fr_err *err)
{
    void *items = p->texts.items;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &items, &p->texts.cap, p->texts.n + 1, sizeof *p->texts.items,
                       err));
    p->texts.items = items;
    char *copy = fr_mem_strndup(FR_MEM_MISC, text, n, err);
    if (!copy)
        return FR_ENOMEM;
    p->texts.items[p->texts.n++] = (fr_opt_item){.text = copy};
    *out = copy;
    return FR_OK;
}

/* -m a.gguf -m b.gguf, or -m a.gguf,b.gguf where no file has that name. */
static fr_status models_of(const fr_options *o, bench_plan *p, texts *out, fr_err *err)
{
    for (size_t i = 0; i < o->bench_model.n; i++) {
        const char *text = o->bench_model.items[i].text;
        fr_file f;
        bool whole = !strchr(text, ',') || fr_file_open(text, &f, NULL) == FR_OK;
        if (whole && strchr(text, ','))
            fr_file_close(&f);
        for (const char *at = text; at;) {
            const char *path = NULL;
            size_t n = whole ? strlen(at) : strcspn(at, ",");
            FR_TRY(keep(p, at, n, &path, err));
            FR_TRY(add_text(out, path, err));
            at = at[n] ? at + n + 1 : NULL;
        }
    }
    if (out->n == 0 && o->model) /* from the environment */
        FR_TRY(add_text(out, o->model, err));
    return out->n > 0 ? FR_OK : fr_opts_require(o, FR_OPT_model, err);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static fr_status add_test(bench_plan *p, const char *name, int64_t n_prompt, int64_t n_gen,
                          int64_t n_depth, fr_err *err)
{
    bench_test *grown = fr_mem_realloc(FR_MEM_MISC, p->tests, (p->n_tests + 1) * sizeof *p->tests);
    if (!grown)
        return fr_fail(err, FR_ENOMEM, "tests: out of memory");
    p->tests = grown;
    bench_test *t = &p->tests[p->n_tests++];
    *t = (bench_test){.n_prompt = n_prompt, .n_gen = n_gen, .n_depth = n_depth};
    snprintf(t->name, sizeof t->name, "%s", name);
    int64_t all = n_prompt + n_gen + n_depth;
    const int64_t calls[] = {n_prompt, n_gen, n_depth};
    p->n_ctx = all > p->n_ctx ? all : p->n_ctx;
    for (int i = 0; i < 3; i++)
        p->longest = calls[i] > p->longest ? calls[i] : p->longest;
    return FR_OK;
}

/* " @ d4096" where there is a depth, as the ecosystem's tables have it. */
static fr_status add_at_depth(bench_plan *p, int64_t n_prompt, int64_t n_gen, int64_t depth,
                              fr_err *err)
{
    char name[48];
    int n = 0;
    if (n_prompt > 0)
        n = snprintf(name, sizeof name, "pp%lld", (long long)n_prompt);
    if (n_gen > 0)
        n +=
            snprintf(name + n, sizeof name - (size_t)n, "%stg%lld", n ? "+" : "", (long long)n_gen);
    if (depth > 0)
        snprintf(name + n, sizeof name - (size_t)n, " @ d%lld", (long long)depth);
    return add_test(p, name, n_prompt, n_gen, depth, err);
}

static fr_status parse_pair(const char *name, const char *text, int64_t pair[2], fr_err *err)
{
    tool_ints v = {0};
    fr_status st = tool_ints_parse(name, text, 1, MAX_TOKENS, &v, err);
    if (st == FR_OK && v.n != 2)
        st = fr_fail(err, FR_EINVAL, "%s: found '%.80s', expected two numbers, such as 512,128",
                     name, text);
    if (st == FR_OK)
        pair[0] = v.v[0], pair[1] = v.v[1];
    fr_mem_free(v.v);
    return st;
}

static fr_status tests_at_depth(const fr_options *o, bench_plan *p, const tool_ints *pp,
                                const tool_ints *tg, int64_t depth, fr_err *err)
{
    int64_t pair[2];
    for (size_t i = 0; i < pp->n; i++)
        if (pp->v[i] > 0)
            FR_TRY(add_at_depth(p, pp->v[i], 0, depth, err));
    for (size_t i = 0; i < tg->n; i++)
        if (tg->v[i] > 0)
            FR_TRY(add_at_depth(p, 0, tg->v[i], depth, err));
    for (size_t i = 0; i < o->bench_pg.n; i++) {
        FR_TRY(parse_pair("-pg", o->bench_pg.items[i].text, pair, err));
        FR_TRY(add_at_depth(p, pair[0], pair[1], depth, err));
    }
    return FR_OK;
}

static fr_status make_tests(const fr_options *o, bench_plan *p, fr_err *err)
{
    tool_ints pp = {0}, tg = {0}, depth = {0};
    int64_t pair[2];
    char name[48];
    fr_status st;
    FR_TRY_OUT(st, tool_ints_of("-p", &o->bench_prompt, 0, MAX_TOKENS, 512, &pp, err));
    FR_TRY_OUT(st, tool_ints_of("-n", &o->bench_gen, 0, MAX_TOKENS, 128, &tg, err));
    FR_TRY_OUT(st, tool_ints_of("-d", &o->bench_depth, 0, MAX_TOKENS, 0, &depth, err));
    for (size_t i = 0; i < depth.n; i++)
        FR_TRY_OUT(st, tests_at_depth(o, p, &pp, &tg, depth.v[i], err));
    for (size_t i = 0; i < o->bench_gp.n; i++) {
        FR_TRY_OUT(st, parse_pair("-gp", o->bench_gp.items[i].text, pair, err));
        snprintf(name, sizeof name, "tg%lld@pp%lld", (long long)pair[1], (long long)pair[0]);
        FR_TRY_OUT(st, add_test(p, name, 0, pair[1], pair[0], err));
    }
    if (p->n_tests == 0)
        st = fr_fail(err, FR_EINVAL,
                     "tests: found none, expected -p N, -n N, -pg PP,TG or -gp PP,TG above 0");
out:
    fr_mem_free(pp.v);
    fr_mem_free(tg.v);
    fr_mem_free(depth.v);
    return st;
}

/* ---- settings -------------------------------------------------------------------------------- */

/* From what changes slowest to what changes fastest; the model before all of them. */
static const bench_axis order[BENCH_AXES] = {
    BENCH_NGL,    BENCH_N_CPU_MOE,    BENCH_SPLIT_MODE, BENCH_MMAP,       BENCH_MAIN_GPU,
    BENCH_DEVICE, BENCH_TENSOR_SPLIT, BENCH_REPACK,     BENCH_BATCH,      BENCH_UBATCH,
    BENCH_TYPE_K, BENCH_TYPE_V,       BENCH_NKVO,       BENCH_FLASH_ATTN, BENCH_MLA,
    BENCH_AMB,    BENCH_THREADS,      BENCH_CPU_MASK,   BENCH_CPU_STRICT};

static bench_setting setting_at(const bench_plan *p, const texts *models, size_t i)
{
    bench_setting s = {.model = NULL};
    for (int k = BENCH_AXES - 1; k >= 0; k--) {
        const bench_values *v = &p->values[order[k]];
        if (v->n > 0)
            s.value[order[k]] = v->v[i % v->n], i /= v->n;
    }
    s.model = models->v[i];
    return s;
}

static fr_status make_settings(const fr_options *o, bench_plan *p, const texts *models, fr_err *err)
{
    size_t n = models->n;
    for (int a = 0; a < BENCH_AXES; a++)
        if (p->values[a].n > 1 && (n *= p->values[a].n) > MAX_SETTINGS)
            return fr_fail(err, FR_ERANGE,
                           "settings: found more than %d combinations, expected fewer",
                           MAX_SETTINGS);
    p->settings = FR_NEW(bench_setting, FR_MEM_MISC, n, err);
    if (!p->settings)
        return FR_ENOMEM;
    p->n_settings = n;
    for (size_t i = 0; i < n; i++)
        p->settings[i] = setting_at(p, models, i);
    for (int a = 0; a < BENCH_AXES; a++) {
        char text[160];
        bench_axis_text(o, (bench_axis)a, text, sizeof text);
        p->show[a] = a == BENCH_THREADS || p->values[a].n > 1 ||
                     (a != BENCH_NGL && strcmp(text, bench_axes[a].dflt) != 0);
    }
    return FR_OK;
}

fr_status bench_plan_make(fr_options *o, bench_plan *out, fr_err *err)
{
    texts models = {0};
    fr_status st;
    *out = (bench_plan){0};
    FR_TRY_OUT(st, models_of(o, out, &models, err));
    FR_TRY_OUT(st, bench_values_read(o, out->values, err));
    FR_TRY_OUT(st, make_settings(o, out, &models, err));
    st = make_tests(o, out, err);
out:
    fr_mem_free(models.v);
    if (st != FR_OK)
        bench_plan_free(out);
    return st;
}

void bench_plan_free(bench_plan *p)
{
    for (size_t i = 0; i < p->texts.n; i++)
        fr_mem_free(p->texts.items[i].text);
    fr_mem_free(p->texts.items);
    bench_values_free(p->values);
    fr_mem_free(p->settings);
    fr_mem_free(p->tests);
    *p = (bench_plan){0};
}
