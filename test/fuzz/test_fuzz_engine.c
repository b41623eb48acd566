/* Hostile models: seeded mutations of small whole models are opened, run and closed. Half of the
 * mutations change the file's parts and put it together again with data of the right size, so that
 * they get past the reader; the others damage bytes.
 *
 * No crash, no hang, nothing left behind; a failure has its code and a text; what loads either
 * generates tokens or says what is wrong with the numbers.
 *
 *   test_fuzz_engine [SEED [RUNS]]      or FERRY_FUZZ_SEED, FERRY_FUZZ_RUNS */
#include <math.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/kernels.h"
#include "engine/engine.h"
#include "support/models.h"
#include "support/tiny_models.h"
#include "testing.h"

static uint64_t start_seed = 20240923, n_runs = 1000;
static uint64_t rng, current_run;

static uint64_t below(uint64_t n)
{
    return n ? (test_rand(&rng) >> 11) % n : 0;
}

static bool one_in(uint64_t n)
{
    return below(n) == 0;
}

/* ---- mutations of the parts
 * ----------------------------------------------------------------------------- */

static uint64_t interesting(void)
{
    static const uint64_t values[] = {
        0,     1,     2,       3,       4,          5,          6,          7,
        8,     9,     16,      17,      31,         32,         33,         48,
        63,    64,    65,      100,     127,        128,        255,        256,
        257,   1000,  4096,    4097,    65535,      65536,      1024,       65537,
        16384, 99999, 1 << 24, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 24) + 1};
    switch (below(6)) {
    case 0:
        return UINT64_MAX - below(40);
    case 1:
        return ((uint64_t)1 << below(64)) + below(3) - 1;
    case 2:
        return test_rand(&rng);
    default:
        return values[below(sizeof values / sizeof *values)];
    }
}

static float interesting_float(void)
{
    static const float values[] = {0.0f,      -0.0f,  1.0f,     -1.0f, 0x1p-149f, 1e-30f, 1e30f,
                                   3e38f,     -3e38f, INFINITY, NAN,   65504.0f,  1e6f,   0.5f,
                                   -INFINITY, 1.5f,   1e9f,     1e-6f, 40.0f};
    return one_in(4) ? test_rand_f(&rng) * 100 : values[below(sizeof values / sizeof *values)];
}

static parts_key *any_key(gguf_parts *p)
{
    return &p->keys[below(p->n_keys)];
}

static parts_tensor *any_tensor(gguf_parts *p)
{
    return &p->tensors[below(p->n_tensors)];
}

static bool is_number(uint32_t type)
{
    return type <= FR_GGUF_BOOL || type >= FR_GGUF_U64;
}

/* A number of the metadata takes another value. */
static void change_value(gguf_parts *p)
{
    parts_key *k = any_key(p);
    for (int tries = 0; tries < 50 && !is_number(k->type); tries++)
        k = any_key(p);
    uint64_t v = interesting();
    float f = interesting_float();
    if (k->type == FR_GGUF_F32)
        memcpy(k->value.p, &f, sizeof f);
    else
        memcpy(k->value.p, &v, k->value.n < 8 ? k->value.n : 8);
}

/* A number is stored as another type, or as something that is no number. */
static void change_value_type(gguf_parts *p)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
    parts_key *k = any_key(p);
    k->type = (uint32_t)below(14);
    if (k->type < sizeof bytes && k->value.n < bytes[k->type])
        parts_bytes_resize(&k->value, bytes[k->type]);
    if (k->type < sizeof bytes && one_in(2))
        k->value.n = bytes[k->type];
}

/* Keys that the small models may lack. */
static void add_key(gguf_parts *p)
{
    static const char *const keys[] = {
        "deepseek2.nextn_predict_layers",
        "deepseek2.expert_group_count",
        "deepseek2.expert_group_used_count",
        "deepseek2.attention.q_lora_rank",
        "deepseek2.attention.key_length_mla",
        "deepseek2.attention.value_length_mla",
        "deepseek2.rope.scaling.original_context_length",
        "deepseek2.expert_shared_count",
        "deepseek2.expert_gating_func",
        "deepseek2.vocab_size",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.padding_token_id",
        "general.alignment",
        "split.count",
        "split.no",
    };
    static const char *const floats[] = {
        "deepseek2.rope.freq_base",
        "deepseek2.rope.scaling.factor",
        "deepseek2.rope.scaling.yarn_log_multiplier",
        "deepseek2.rope.scaling.yarn_beta_fast",
        "deepseek2.rope.scaling.yarn_beta_slow",
        "deepseek2.expert_weights_scale",
    };
    static const char *const scalings[] = {"yarn", "linear", "none", "", "longrope"};
    uint64_t kind = below(4);
    if (kind == 0)
        parts_put_f32(p, floats[below(sizeof floats / sizeof *floats)], interesting_float());
    else if (kind == 1)
        parts_put_str(p, "deepseek2.rope.scaling.type", scalings[below(5)]);
    else
        parts_put_u32(p, keys[below(sizeof keys / sizeof *keys)], (uint32_t)interesting());
}

static void misspell(char *name)
{
    size_t n = strlen(name);
    if (n)
        name[below(n)] ^= (char)(1 << below(7));
}

static void drop_or_rename_key(gguf_parts *p)
{
    parts_key *k = any_key(p);
    if (one_in(3))
        misspell(k->name);
    else
        parts_drop_key(p, k->name);
}

static void drop_or_rename_tensor(gguf_parts *p)
{
    parts_tensor *t = any_tensor(p), *u = any_tensor(p);
    switch (below(4)) {
    case 0:
        misspell(t->name);
        break;
    case 1: {
        char *name = t->name;
        t->name = u->name;
        u->name = name;
        break;
    }
    default:
        parts_drop_tensor(p, t->name);
    }
}

/* Fills data up, or cuts it, to what type and dims ask for, as long as that is little. */
static void fit_data(parts_tensor *t)
{
    size_t want = parts_tensor_bytes(t), had = t->data.n;
    if (want > 1 << 20 || one_in(16))
        return;
    parts_bytes_resize(&t->data, want);
    for (size_t i = had; had && i < want; i++)
        t->data.p[i] = t->data.p[i % had];
}

static void change_dims(gguf_parts *p)
{
    parts_tensor *t = any_tensor(p);
    switch (below(4)) {
    case 0:
        t->n_dims = (uint32_t)below(6);
        break;
    case 1: {
        uint64_t d = t->dims[0];
        t->dims[0] = t->dims[1];
        t->dims[1] = d;
        break;
    }
    default:
        t->dims[below(3)] = interesting();
    }
    fit_data(t);
}

static void change_type(gguf_parts *p)
{
    parts_tensor *t = any_tensor(p);
    fr_type type;
    fr_layout layout;
    t->type = (uint32_t)(one_in(8) ? interesting() : below(400));
    for (int tries = 0; tries < 2000 && !parts_type(t, &type, &layout); tries++)
        t->type = (uint32_t)below(400);
    fit_data(t);
}

/* One size of the model changes everywhere: in the keys and in all tensors. */
static void change_size(gguf_parts *p)
{
    uint64_t from = any_tensor(p)->dims[below(2)], to = one_in(3) ? below(80) : 32 * (1 + below(9));
    for (size_t i = 0; i < p->n_keys; i++)
        if (p->keys[i].type == FR_GGUF_U32) {
            uint32_t v;
            memcpy(&v, p->keys[i].value.p, sizeof v);
            if (v == from)
                parts_put_u32(p, p->keys[i].name, (uint32_t)to);
        }
    for (size_t i = 0; i < p->n_tensors; i++) {
        for (int d = 0; d < 3; d++)
            if (p->tensors[i].dims[d] == from)
                p->tensors[i].dims[d] = to;
        fit_data(&p->tensors[i]);
    }
}

static void copy_tensor(gguf_parts *p)
{
    static const char *const names[] = {
        "output.weight",
        "blk.0.attn_kv_b.weight",
        "blk.1.attn_k_b.weight",
        "blk.1.attn_v_b.weight",
        "blk.1.exp_probs_b.bias",
        "blk.2.nextn.eh_proj.weight",
        "blk.99999999999999999999.x",
        "blk.-1.attn_norm.weight",
        "rope_freqs.weight",
    };
    const char *name = names[below(sizeof names / sizeof *names)];
    if (parts_find_tensor(p, name))
        return;
    const parts_tensor *t = any_tensor(p);
    parts_tensor *n = parts_add_tensor(p, name, FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, (int64_t[]){1});
    t = any_tensor(p);
    n->n_dims = t->n_dims;
    n->type = t->type;
    memcpy(n->dims, t->dims, sizeof n->dims);
    n->data.n = 0;
    if (t != n)
        parts_bytes_add(&n->data, t->data.p, t->data.n);
}

/* Numbers as no training gives them. */
static void change_data(gguf_parts *p)
{
    parts_tensor *t = any_tensor(p);
    uint64_t how = below(5);
    for (uint64_t n = how == 0 ? t->data.n / 4 : 1 + below(64); n && t->data.n >= 4; n--) {
        size_t at = below(t->data.n - 3);
        float f = interesting_float();
        uint32_t r = (uint32_t)test_rand(&rng);
        if (t->type == 0 || how == 1)
            memcpy(t->data.p + at / 4 * 4, &f, sizeof f);
        else
            memcpy(t->data.p + at, &r, how == 2 ? 1 : sizeof r);
    }
    if (how == 4)
        memset(t->data.p, one_in(2) ? 0xFF : 0, t->data.n);
}

/* Counts, element types and elements of the tokenizer's arrays. */
static void change_array(gguf_parts *p)
{
    parts_key *k = any_key(p);
    for (int tries = 0; tries < 50 && k->type != FR_GGUF_ARRAY; tries++)
        k = any_key(p);
    if (k->value.n < 13)
        return;
    uint64_t n;
    memcpy(&n, k->value.p + 4, sizeof n);
    switch (below(4)) {
    case 0:
        k->value.p[0] = (uint8_t)below(14);
        break;
    case 1:
        n = one_in(2) ? n - below(n + 1) : interesting();
        memcpy(k->value.p + 4, &n, sizeof n);
        break;
    case 2:
        parts_bytes_resize(&k->value, below(k->value.n + 64));
        break;
    default:
        for (uint64_t i = 1 + below(20); i; i--)
            k->value.p[12 + below(k->value.n - 12)] = (uint8_t)interesting();
    }
}

/* Rows of the vocabulary's matrices: fewer or more than there are tokens. */
static void change_vocabulary(gguf_parts *p)
{
    static const char *const names[] = {"token_embd.weight", "output.weight"};
    uint64_t rows = one_in(2) ? below(300) : 200 + below(400);
    for (int i = 0; i < 2; i++) {
        parts_tensor *t = parts_find_tensor(p, names[i]);
        if (!t)
            continue;
        t->dims[1] = rows;
        fit_data(t);
    }
}

static void mutate_parts(gguf_parts *p)
{
    static void (*const kinds[])(gguf_parts *) = {
        change_value, change_value, change_value, change_value_type,     add_key,
        add_key,      change_dims,  change_type,  change_type,           change_size,
        change_size,  change_data,  change_data,  drop_or_rename_tensor, copy_tensor,
        change_array, change_value, change_type,  drop_or_rename_key,    change_vocabulary,
    };
    for (uint64_t n = 1 + below(3); n && p->n_keys > 4 && p->n_tensors > 4; n--)
        kinds[below(sizeof kinds / sizeof *kinds)](p);
}

/* ---- mutations of the bytes
 * ----------------------------------------------------------------------------- */

static void damage(parts_bytes *b, size_t header)
{
    size_t end = one_in(4) ? b->n : header;
    uint64_t v = interesting();
    switch (below(4)) {
    case 0:
        b->n = below(b->n + 1);
        break;
    case 1: {
        size_t at = below(end), width = (size_t)1 << below(4);
        memcpy(b->p + at, &v, at + width <= b->n ? width : 1);
        break;
    }
    case 2:
        memmove(b->p + below(end), b->p + below(end), below(b->n - end + 1) % 16);
        break;
    default:
        for (uint64_t n = 1 + below(8); n; n--)
            b->p[below(end)] ^= (uint8_t)(1 << below(8));
    }
}

/* ---- one input
 * ------------------------------------------------------------------------------------------ */

static uint64_t n_opened, n_generated;

static void check_failure(fr_status st, const fr_err *err)
{
    assert_int_equal(err->code, st);
    assert_true(err->text[0] != 0);
    assert_true(st != FR_ECANCELLED);
}

static bool swallow(void *user, const char *text, size_t n)
{
    (void)text;
    *(size_t *)user += n;
    return true;
}

static fr_status prompt(const fr_engine *e, fr_tokens *ids, fr_err *err)
{
    static const char text[] = "the and\xC3\xA9 \xF0\x9F\x98\x80 a<|own|>";
    FR_TRY(fr_tokenize(fr_engine_vocab(e), text, 1 + below(sizeof text - 1), one_in(2), one_in(2),
                       ids, err));
    return ids->n ? FR_OK : fr_tokens_add(ids, 0, err);
}

/* Some tokens in one or two batches, then four picked ones. */
static fr_status run_session(fr_engine *e, fr_session *s, fr_err *err)
{
    fr_tokens ids = {0};
    fr_sampler *sampler = NULL;
    fr_sample_params params = fr_sample_defaults();
    fr_generate_result result;
    size_t n_text = 0;
    fr_status st;
    params.seed = rng;
    params.temp = one_in(2) ? 0 : 1;
    FR_TRY_OUT(st, prompt(e, &ids, err));
    size_t first = below(ids.n);
    if (first > 0)
        FR_TRY_OUT(st, fr_session_append(s, ids.ids, (int64_t)first, err));
    FR_TRY_OUT(st, fr_session_append(s, ids.ids + first, (int64_t)(ids.n - first), err));
    int32_t n_vocab = fr_vocab_size(fr_engine_vocab(e));
    FR_TRY_OUT(
        st, fr_sampler_open(&params, n_vocab, (int32_t)fr_engine_describe(e).n_ctx, &sampler, err));
    st = fr_generate(s, sampler, &(fr_generate_params){.n_predict = 4, .special = one_in(2)},
                     swallow, &n_text, &result, err);
    n_generated += st == FR_OK;
out:
    fr_sampler_free(sampler);
    fr_tokens_free(&ids);
    return st;
}

static fr_engine_config any_config(const char *path)
{
    static const fr_type types[] = {FR_TYPE_F16,  FR_TYPE_F32,  FR_TYPE_BF16, FR_TYPE_Q8_0,
                                    FR_TYPE_Q4_0, FR_TYPE_Q5_0, FR_TYPE_Q6_0, FR_TYPE_IQ4_NL};
    fr_engine_config cfg = fr_engine_defaults();
    cfg.model_path = path;
    cfg.n_threads = one_in(32) ? 2 : 1;
    cfg.mla = (fr_mla_mode)below(4);
    cfg.type_k = types[below(8)];
    cfg.type_v = types[below(8)];
    cfg.kv_window = one_in(2) ? 256 : 0;
    cfg.n_ubatch = one_in(2) ? 512 : 1 + (int64_t)below(8);
    cfg.n_ctx = one_in(2) ? 0 : 32;
    cfg.expand_bytes = one_in(4) ? 1 : 1 << 20;
    cfg.max_isa = (fr_isa)below((uint64_t)cpu_isa_detect() + 1);
    cfg.mmap = !one_in(4);
    cfg.check_tensors = one_in(8);
    cfg.all_logits = one_in(8);
    return cfg;
}

/* FR_OK when tokens came out. */
static fr_status try_model(const char *path)
{
    fr_err err = {0};
    fr_engine *e = NULL;
    fr_session *s = NULL;
    fr_engine_config cfg = any_config(path);
    fr_status st = fr_engine_open(&cfg, &e, &err);
    if (st == FR_OK) {
        n_opened++;
        assert_true(fr_engine_describe(e).n_vocab > 0);
        st = fr_session_open(e, &s, &err);
    }
    if (st == FR_OK)
        st = run_session(e, s, &err);
    if (st != FR_OK)
        check_failure(st, &err);
    fr_session_close(s);
    fr_engine_close(e);
    return st;
}

static fr_status try_bytes(const parts_bytes *b)
{
    char path[64];
    int fd = memfd_create("model", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b->p, b->n), (ssize_t)b->n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    size_t before = fr_mem_total().bytes_now;
    fr_status st = try_model(path);
    assert_int_equal(fr_mem_total().bytes_now, before);
    close(fd);
    return st;
}

/* ---- the tests
 * ------------------------------------------------------------------------------------------ */

static gguf_parts sources[3];

enum { N_SOURCES = 3 };

static void no_log(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static void on_alarm(int sig)
{
    (void)sig;
    char text[96];
    int n = snprintf(text, sizeof text, "run %llu hangs\n", (unsigned long long)current_run);
    if (write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(2);
    abort();
}

static int setup(void **state)
{
    (void)state;
    sources[0] = tiny_v3();
    sources[1] = tiny_v2();
    sources[2] = parts_load(MODEL_V2LITE);
    fr_log_set_sink(no_log, NULL);
    signal(SIGALRM, on_alarm);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_SOURCES; i++)
        parts_free(&sources[i]);
    fr_log_set_sink(NULL, NULL);
    return 0;
}

static void test_unchanged_models_run(void **state)
{
    (void)state;
    rng = start_seed | 1;
    for (int i = 0; i < N_SOURCES; i++)
        for (int n = 0; n < 20; n++) {
            parts_bytes b = {0};
            parts_write(&sources[i], &b, NULL);
            assert_int_equal(try_bytes(&b), FR_OK);
            parts_bytes_free(&b);
        }
}

static void run_one(uint64_t run)
{
    current_run = run;
    rng = (start_seed + run) * 0x9E3779B97F4A7C15ull | 1;
    test_rand(&rng);
    parts_bytes b = {0};
    size_t header;
    gguf_parts p = parts_copy(&sources[one_in(64) ? 2 : below(2)]);
    bool parts = !one_in(4);
    if (parts)
        mutate_parts(&p);
    parts_write(&p, &b, &header);
    if (!parts || one_in(16))
        damage(&b, header);
    parts_free(&p);
    alarm(60);
    try_bytes(&b);
    alarm(0);
    parts_bytes_free(&b);
}

static void test_mutations(void **state)
{
    (void)state;
    n_opened = n_generated = 0;
    for (uint64_t run = 0; run < n_runs; run++)
        run_one(run);
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    print_message("seed %llu: %llu runs, %llu opened, %llu generated, %ld MiB at most\n",
                  (unsigned long long)start_seed, (unsigned long long)n_runs,
                  (unsigned long long)n_opened, (unsigned long long)n_generated,
                  use.ru_maxrss / 1024);
    if (n_runs >= 1000) { /* the mutations must neither miss nor always be caught by the reader */
        assert_true(n_opened > n_runs / 10);
        assert_true(n_generated > n_runs / 20 && n_generated < n_runs * 3 / 4);
    }
    assert_true(use.ru_maxrss < 1 << 20); /* KiB */
}

int main(int argc, char **argv)
{
    const char *seed = argc > 1 ? argv[1] : getenv("FERRY_FUZZ_SEED");
    const char *runs = argc > 2 ? argv[2] : getenv("FERRY_FUZZ_RUNS");
    start_seed = seed ? strtoull(seed, NULL, 10) : start_seed;
    n_runs = runs ? strtoull(runs, NULL, 10) : n_runs;
    print_message("seed %llu, %llu runs\n", (unsigned long long)start_seed,
                  (unsigned long long)n_runs);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unchanged_models_run),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
