/* Weights on several devices: every part of every weight, wherever a plan puts it, holds the bytes
 * that a store in RAM has there; failures of devices and memory leave nothing behind. Runs on
 * simulated GPUs. */
#include "testing.h"

#include <unistd.h>

#include "base/log.h"
#include "store/store.h"
#include "support/gguf_parts.h"
#include "support/models.h"
#include "support/tiny_models.h"

static const uint64_t MIB = 1ull << 20;
static fr_err err;

/* ---- models and plans ---------------------------------------------------------------------------
 */

typedef struct {
    const char *name;
    int n_gpus;
    bool shared;       /* all plan GPUs are physical GPU 0 */
    int64_t n_layers;  /* -ngl */
    const char *cli;   /* a value of -ot, or NULL */
    const char *lines; /* a line of a rule file, or NULL */
} placing;

static const placing placings[] = {
    {"all in RAM", 2, false, 0, NULL, NULL},
    {"as it fits", 1, false, -1, NULL, NULL},
    {"experts in RAM", 1, false, -1, "exps=CPU", NULL},
    {"experts on the second", 2, false, -1, "exps=CUDA1", NULL},
    {"slices", 3, false, -1,
     "up_exps=CUDA0[0-1],up_exps=CUDA2[2-2],gate_exps=CUDA1[1-3],down_exps=CUDA1[0-0],exps=CPU",
     NULL},
    {"slices of one GPU", 3, true, -1, "exps=CUDA2[0-0],exps=CUDA1[1-2],exps=CPU", NULL},
    {"kv_b in RAM", 2, false, -1, "attn_k.*_b=CPU", NULL},
    {"layer by layer", 2, false, -1, "blk[.]0=CUDA1,blk[.]1=CUDA0,output=CPU", NULL},
    {"neighbours", 1, false, -1, "exps=CUDA0[0-0],exps=CUDA0[1-2],exps=CPU[3-3],exps=CPU", NULL},
    {"plain on the GPU", 2, false, -1, "token_embd=CPU", "(attn|exps).*=CUDA1,layout=plain"},
    {"interleaved", 2, false, -1, NULL, "exps=CUDA0[0-1],layout=interleaved"},
};
enum { N_PLACINGS = sizeof placings / sizeof *placings };

static fr_hardware machine(const placing *at)
{
    fr_hardware hw;
    fr_hardware_defaults(&hw);
    hw.n_cores = 2;
    hw.ram_bytes = 1024 * MIB;
    hw.n_gpus = at->n_gpus;
    for (int i = 0; i < at->n_gpus; i++) {
        hw.gpus[i].device = at->shared ? 0 : i;
        hw.gpus[i].vram_bytes = 64 * MIB;
        hw.gpus[i].reserve_bytes = 1 * MIB;
    }
    return hw;
}

typedef struct {
    fr_gguf *g;
    fr_model *m;
    fr_cpu *cpu;
    fr_rules *rules;
    fr_plan *plan;
} bench;

static bench open_bench(const char *path, fr_mla_mode mla, int n_threads, const placing *at)
{
    bench b = {0};
    fr_cpu_config cpu = {.n_threads = n_threads, .max_isa = FR_ISA_AUTO};
    fr_hardware hw = machine(at);
    fr_plan_options o = fr_plan_defaults();
    fr_diagnostics found = {0};
    assert_ok(fr_gguf_open(path, 0, &b.g, &err));
    assert_ok(fr_model_open(b.g, mla, &b.m, &err));
    assert_ok(fr_cpu_open(&cpu, &b.cpu, &err));
    assert_ok(fr_rules_new(&b.rules, &err));
    if (at->cli)
        assert_ok(fr_rules_add_cli(b.rules, at->cli, &err));
    if (at->lines)
        assert_ok(fr_rules_add_line(b.rules, FR_RULE_FILE, at->lines, "test.rules", 1, &err));
    o.n_ctx = 32;
    o.n_ubatch = 8;
    o.n_gpu_layers = at->n_layers;
    o.strictness = -1;
    if (fr_plan_make(b.m, &hw, b.rules, &o, &b.plan, &found, &err) != FR_OK)
        fail_msg("%s: %s", at->name, err.text);
    fr_diagnostics_free(&found);
    return b;
}

static void close_bench(bench *b)
{
    fr_plan_free(b->plan);
    fr_rules_free(b->rules);
    fr_cpu_close(b->cpu);
    fr_model_close(b->m);
    fr_gguf_close(b->g);
}

static fr_store *all_in_ram(const bench *b)
{
    fr_store *s;
    assert_ok(fr_store_open(b->m, b->cpu, &(fr_store_config){0}, &s, &err));
    return s;
}

/* ---- comparing ----------------------------------------------------------------------------------
 */

/* The bytes of a part, in memory of the caller's. Views reach beyond what is theirs by nothing. */
static uint8_t *bytes_of(const bench *b, const fr_store_part *p, size_t bytes)
{
    const fr_gpu *gpu = fr_gpu_sim();
    uint8_t *out = malloc(bytes);
    assert_non_null(out);
    if (p->device == 0) {
        memcpy(out, p->w.data, bytes);
        return out;
    }
    fr_gpu_stream *s;
    assert_ok(gpu->stream_open(b->plan->hw.gpus[p->device - 1].device, &s, &err));
    assert_ok(gpu->copy_out(out, p->w.data, bytes, s, &err));
    assert_ok(gpu->stream_wait(s, &err));
    gpu->stream_close(s);
    return out;
}

/* Row by row: the layouts may differ, and matrices of a view stand apart. */
static void compare_part(const bench *b, const fr_store_part *p, const fr_weight *all,
                         const char *name, const char *what)
{
    size_t row = fr_row_bytes(p->w.type, p->w.layout, p->w.cols);
    size_t bytes = (size_t)(p->w.n_mat - 1) * p->w.mat_bytes + (size_t)p->w.rows * row;
    uint8_t *got = bytes_of(b, p, bytes);
    float x[1024], y[1024];
    assert_true(p->w.cols <= 1024 && p->w.type == all->type && p->w.rows == all->rows);
    for (int64_t m = 0; m < p->w.n_mat; m++) {
        const uint8_t *want = (const uint8_t *)all->data + (size_t)(p->first + m) * all->mat_bytes;
        const uint8_t *mat = got + (size_t)m * p->w.mat_bytes;
        if (all->layout == p->w.layout && memcmp(mat, want, (size_t)p->w.rows * row) != 0)
            fail_msg("%s: %s: matrix %d differs", what, name, (int)(p->first + m));
        for (int64_t r = 0; r < p->w.rows; r++) {
            fr_decode_row(all->type, all->layout, want, r, all->cols, x);
            fr_decode_row(p->w.type, p->w.layout, mat, r, p->w.cols, y);
            if (memcmp(x, y, (size_t)all->cols * sizeof *x) != 0)
                fail_msg("%s: %s: row %d of matrix %d differs", what, name, (int)r,
                         (int)(p->first + m));
        }
    }
    free(got);
}

static int planned_device(const bench *b, int weight, int64_t expert)
{
    for (int i = 0; i < b->plan->n_placements; i++) {
        const fr_placement *at = &b->plan->placements[i];
        if (at->tensor == weight && at->expert_from <= expert && expert <= at->expert_to)
            return at->device;
    }
    return -1;
}

/* Returns how many parts there are beyond one for each weight. */
static int compare_stores(const bench *b, const fr_store *s, const fr_store *ram, const char *what)
{
    int more = 0;
    for (int i = 0; i < b->m->n_weights; i++) {
        const fr_model_weight *w = &b->m->weights[i];
        const fr_weight *all = fr_store_weight(ram, i), *whole = fr_store_weight(s, i);
        int n;
        const fr_store_part *p = fr_store_parts(s, i, &n);
        int64_t next = 0;
        assert_true(n > 0);
        assert_true((whole->data != NULL) == (n == 1 && p->device == 0));
        if (whole->data)
            assert_memory_equal(whole, &p->w, sizeof *whole);
        for (int k = 0; k < n; k++) {
            assert_int_equal(p[k].first, next);
            next += p[k].w.n_mat;
            assert_true(k == 0 || p[k].device != p[k - 1].device ||
                        p[k].w.layout != p[k - 1].w.layout);
            for (int64_t e = p[k].first; e < next; e++)
                assert_int_equal(p[k].device, planned_device(b, i, e));
            compare_part(b, &p[k], all, w->name, what);
        }
        assert_int_equal(next, w->shape.n_mat);
        more += n - 1;
    }
    return more;
}

/* ---- memory -------------------------------------------------------------------------------------
 */

static uint64_t free_bytes(int device)
{
    fr_gpu_info info;
    assert_ok(fr_gpu_sim()->device_info(device, &info, &err));
    return info.free_bytes;
}

/* Each GPU holds what the store says, and no more than the plan does. */
static void check_memory(const bench *b, const fr_store *s, const uint64_t before[3])
{
    uint64_t taken[3] = {0};
    for (int d = 0; d < b->plan->n_devices; d++) {
        uint64_t bytes = fr_store_bytes(s, d);
        assert_true(bytes <= b->plan->devices[d].weights);
        if (d > 0)
            taken[b->plan->hw.gpus[d - 1].device] += (bytes + 511) / 512 * 512; /* its grain */
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(before[i] - free_bytes(i), taken[i]);
    assert_int_equal(fr_store_bytes(s, b->plan->n_devices), 0);
}

static void write_model(int i, const char *path)
{
    gguf_parts p = i == 0 ? tiny_v3() : tiny_v2();
    parts_save(&p, path);
    parts_free(&p);
}

/* ---- placements ---------------------------------------------------------------------------------
 */

static void check_placing(const char *path, const placing *at, int mode)
{
    bench b = open_bench(path, mode % 3 ? FR_MLA_AUTO : FR_MLA_PLAIN, 1 + mode % 3, at);
    fr_store *ram = all_in_ram(&b), *s;
    fr_store_config cfg = {
        .mmap = mode & 1, .check = mode & 2, .pin = mode & 4, .plan = b.plan, .gpu = fr_gpu_sim()};
    uint64_t before[3] = {free_bytes(0), free_bytes(1), free_bytes(2)};
    if (fr_store_open(b.m, b.cpu, &cfg, &s, &err) != FR_OK)
        fail_msg("%s: %s", at->name, err.text);
    int more = compare_stores(&b, s, ram, at->name);
    assert_true((more > 0) == (strstr(at->name, "slices") || strcmp(at->name, "neighbours") == 0 ||
                               strcmp(at->name, "interleaved") == 0));
    check_memory(&b, s, before);
    fr_store_close(s);
    fr_store_close(ram);
    for (int i = 0; i < 3; i++)
        assert_int_equal(free_bytes(i), before[i]);
    close_bench(&b);
}

static void test_placements(void **state)
{
    (void)state;
    static const char *const machines[] = {"seed=1,lazy=1,eager=0,guard=1", "seed=2,lazy=0,eager=1",
                                           "seed=3,lazy=0,eager=0,guard=0"};
    const char *path = model_temp_path("tiny.gguf");
    size_t memory = fr_mem_total().bytes_now;
    for (int model = 0; model < 2; model++) {
        write_model(model, path);
        for (int i = 0; i < N_PLACINGS; i++) {
            assert_ok(fr_gpu_sim_configure("devices=3,mb=256", &err));
            assert_ok(fr_gpu_sim_configure(machines[i % 3], &err));
            for (int mode = 0; mode < 8; mode += 1 + (i + model) % 2)
                check_placing(path, &placings[i], mode);
        }
    }
    assert_int_equal(fr_mem_total().bytes_now, memory);
}

/* ---- refusals -----------------------------------------------------------------------------------
 */

static void expect_failure(const bench *b, const fr_store_config *cfg, fr_status want,
                           const char *text)
{
    fr_store *s;
    assert_int_equal(fr_store_open(b->m, b->cpu, cfg, &s, &err), want);
    assert_null(s);
    if (!strstr(err.text, text))
        fail_msg("found '%s', expected '%s' in it", err.text, text);
}

static bool stop_at_once(void *user, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
    return false;
}

static void test_refusals(void **state)
{
    (void)state;
    const char *path = model_temp_path("tiny.gguf");
    write_model(0, path);
    assert_ok(fr_gpu_sim_configure("devices=3,mb=256,lazy=0,eager=0,guard=0", &err));
    bench b = open_bench(path, FR_MLA_AUTO, 1, &placings[4]);
    fr_store_config cfg = {.plan = b.plan, .gpu = fr_gpu_sim()};
    cfg.gpu = NULL;
    expect_failure(&b, &cfg, FR_EINVAL, "CUDA0: the plan puts weights there");
    cfg.gpu = fr_gpu_sim();
    cfg.progress = stop_at_once;
    expect_failure(&b, &cfg, FR_ECANCELLED, "stopped by the user");
    cfg.progress = NULL;
    for (int d = 0; d < b.plan->n_devices; d++) { /* the check is to the byte */
        uint64_t planned = b.plan->devices[d].weights;
        b.plan->devices[d].weights = planned / 2;
        expect_failure(&b, &cfg, FR_ENOMEM, b.plan->devices[d].id);
        assert_non_null(strstr(err.text, "planned"));
        b.plan->devices[d].weights = planned;
    }
    fr_placement *last = &b.plan->placements[b.plan->n_placements - 1];
    last->expert_to--;
    expect_failure(&b, &cfg, FR_EINTERNAL, "not placed exactly once");
    last->expert_to++;
    last->device = 9;
    expect_failure(&b, &cfg, FR_EINTERNAL, "not placed exactly once");
    close_bench(&b);
    b = open_bench(path, FR_MLA_AUTO, 1, &placings[4]);
    bench other = open_bench(path, FR_MLA_AUTO, 1, &placings[4]);
    cfg.plan = other.plan;
    expect_failure(&b, &cfg, FR_EINVAL, "made for another model");
    close_bench(&other);
    close_bench(&b);
}

/* A weight that is no number, wherever it goes. */
static void test_bad_weights(void **state)
{
    (void)state;
    const char *path = model_temp_path("tiny.gguf");
    static const char *const names[] = {"blk.1.ffn_gate_shexp.weight", "blk.1.attn_q_b.weight",
                                        "blk.0.ffn_up.weight"};
    static const uint8_t nan[][4] = {{0, 0, 0xC0, 0x7F}, {0, 0x7E, 0, 0x7E}, {0xC0, 0x7F, 0, 0}};
    for (int i = 0; i < 6; i++) {
        gguf_parts p = tiny_v3();
        parts_tensor *t = parts_find_tensor(&p, names[i % 3]);
        memcpy(t->data.p + 3 * t->data.n / 32 * 4, nan[i % 3], 4);
        parts_save(&p, path);
        parts_free(&p);
        bench b = open_bench(path, FR_MLA_AUTO, 2, &placings[i < 3 ? 1 : 0]);
        fr_store_config cfg = {.check = true, .plan = b.plan, .gpu = fr_gpu_sim()};
        expect_failure(&b, &cfg, FR_EFORMAT, names[i % 3]);
        assert_non_null(strstr(err.text, "NaN or infinity"));
        close_bench(&b);
    }
}

/* ---- pinning ------------------------------------------------------------------------------------
 */

static bool is_pinned(const void *p)
{
    const fr_gpu *gpu = fr_gpu_sim();
    if (gpu->host_register((void *)(uintptr_t)p, 1, &err) != FR_OK)
        return true;
    gpu->host_unregister((void *)(uintptr_t)p);
    return false;
}

static void test_pin(void **state)
{
    (void)state;
    const char *path = model_temp_path("tiny.gguf");
    write_model(0, path);
    for (int mode = 0; mode < 4; mode++) { /* pinned or not, mapped or not */
        bench b = open_bench(path, FR_MLA_AUTO, 2, &placings[mode & 2 ? 2 : 4]);
        fr_store_config cfg = {
            .mmap = mode & 2, .pin = mode & 1, .plan = b.plan, .gpu = fr_gpu_sim()};
        fr_store *s;
        int seen = 0, n;
        assert_ok(fr_store_open(b.m, b.cpu, &cfg, &s, &err));
        for (int i = 0; i < b.m->n_weights; i++) {
            const fr_store_part *p = fr_store_parts(s, i, &n);
            for (int k = 0; k < n; k++) {
                if (p[k].device != 0)
                    continue;
                bool expert = strstr(b.m->weights[i].name, "exps.weight") != NULL;
                seen += expert;
                if (expert || !cfg.mmap) /* of a small file, whole pages are pinned */
                    assert_int_equal(is_pinned(p[k].w.data), expert && cfg.pin);
            }
        }
        assert_true(seen >= 3);
        fr_store_close(s);
        close_bench(&b);
    }
}

/* ---- failures -----------------------------------------------------------------------------------
 */

static int n_warnings;

static void count_warnings(void *user, fr_log_level level, const char *line)
{
    (void)user;
    n_warnings += level == FR_LOG_WARN && strstr(line, "not pinned");
}

/* The n-th allocation, copy or operation of the devices fails, for every n; a device that is lost
 * is reset, and the next load is fine. */
static void walk_devices(const bench *b, const fr_store *ram, const char *fault)
{
    const fr_gpu *gpu = fr_gpu_sim();
    fr_store_config cfg = {.pin = true, .plan = b->plan, .gpu = gpu};
    size_t memory = fr_mem_total().bytes_now;
    for (int n = 1;; n++) {
        char text[32];
        fr_store *s;
        snprintf(text, sizeof text, "%s=%d", fault, n);
        assert_ok(fr_gpu_sim_configure(text, &err));
        err = (fr_err){0};
        fr_status st = fr_store_open(b->m, b->cpu, &cfg, &s, &err);
        snprintf(text, sizeof text, "%s=0", fault);
        assert_ok(fr_gpu_sim_configure(text, &(fr_err){0}));
        if (st == FR_OK && n_warnings == 0) {
            fr_store_close(s);
            assert_true(n > 3);
            return;
        }
        fr_store_close(s); /* opened all the same: with experts that are not pinned */
        n_warnings = 0;
        assert_true(st == FR_OK || (st == (strcmp(fault, "fail_alloc") ? FR_EIO : FR_ENOMEM) &&
                                    strlen(err.text) > 0));
        assert_int_equal(fr_mem_total().bytes_now, memory);
        for (int d = 0; d < 3; d++) {
            assert_ok(gpu->device_reset(d, &err));
            assert_int_equal(free_bytes(d), 256 * MIB);
        }
        if (n % 7 == 1) {
            assert_ok(fr_store_open(b->m, b->cpu, &cfg, &s, &err));
            compare_stores(b, s, ram, fault);
            fr_store_close(s);
        }
    }
}

static void test_device_failures(void **state)
{
    (void)state;
    const char *path = model_temp_path("tiny.gguf");
    static const char *const faults[] = {"fail_alloc", "fail_copy", "lose"};
    write_model(0, path);
    for (int i = 0; i < 9; i++) {
        assert_ok(fr_gpu_sim_configure(i < 3 ? "lazy=1,eager=0" : "lazy=0,eager=1", &err));
        bench b = open_bench(path, FR_MLA_AUTO, 1 + i / 6, &placings[4]);
        fr_store *ram = all_in_ram(&b);
        fr_log_set_sink(count_warnings, NULL);
        walk_devices(&b, ram, faults[i % 3]);
        fr_log_set_sink(NULL, NULL);
        fr_store_close(ram);
        close_bench(&b);
    }
}

static void test_out_of_memory(void **state)
{
    (void)state;
    const char *path = model_temp_path("tiny.gguf");
    for (int model = 0; model < 2; model++) {
        write_model(model, path);
        bench b = open_bench(path, FR_MLA_AUTO, 2, &placings[model ? 1 : 4]);
        fr_store_config cfg = {.pin = true, .check = true, .plan = b.plan, .gpu = fr_gpu_sim()};
        size_t memory = fr_mem_total().bytes_now;
        fr_status st = FR_ENOMEM;
        uint64_t n = 0;
        while (st != FR_OK) {
            fr_store *s;
            fr_mem_fail_at(++n, 0);
            st = fr_store_open(b.m, b.cpu, &cfg, &s, &err);
            fr_mem_fail_at(0, 0);
            fr_store_close(s);
            assert_true(st == FR_OK || (st == FR_ENOMEM && strlen(err.text) > 0));
            assert_int_equal(fr_mem_total().bytes_now, memory);
            for (int d = 0; d < 3; d++)
                assert_int_equal(free_bytes(d), 256 * MIB);
        }
        assert_true(n > 40);
        close_bench(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_placements),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bad_weights),     cmocka_unit_test(test_pin),
        cmocka_unit_test(test_device_failures), cmocka_unit_test(test_out_of_memory),
    };
    if (!fr_gpu_sim()) {
        print_message("skipped: this build has no simulated GPUs\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
