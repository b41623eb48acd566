/* Weights in memory: what the store loads, in every layout and mode, is the file's weights. */
#include "testing.h"

#include <unistd.h>

#include "base/log.h"
#include "quant/repack.h"
#include "store/store.h"
#include "support/gguf_parts.h"
#include "support/models.h"
#include "support/tiny_models.h"

static fr_err err;

/* ---- models -------------------------------------------------------------------------------------
 */

/* The matrices of the V3 model with random bytes as blocks of a type, where their rows allow it. */
static gguf_parts random_model(fr_type type, fr_layout layout, uint64_t seed)
{
    const fr_type_info *info = fr_type_get(type);
    gguf_parts p = parts_load(MODEL_V3);
    int n = 0;
    for (size_t i = 0; i < p.n_tensors; i++) {
        parts_tensor *t = &p.tensors[i];
        if (t->n_dims < 2 || strstr(t->name, "ffn_gate_inp") ||
            fr_type_check(type, layout, (int64_t)t->dims[1], (int64_t)t->dims[0], NULL) != FR_OK)
            continue;
        t->type = (uint32_t)(layout == FR_LAYOUT_PLAIN ? info->gguf_id : info->il_gguf_id);
        parts_bytes_resize(&t->data, parts_tensor_bytes(t));
        for (size_t b = 0; b < t->data.n; b++)
            t->data.p[b] = (uint8_t)(test_rand(&seed) >> 32);
        n++;
    }
    assert_true(n >= 4);
    return p;
}

typedef struct {
    fr_gguf *g;
    fr_model *m;
    fr_cpu *cpu;
    fr_store *s;
} loaded;

static fr_status open_all(const char *path, fr_mla_mode mla, bool repack, int n_threads,
                          const fr_store_config *cfg, loaded *l)
{
    *l = (loaded){0};
    fr_cpu_config cpu = {.n_threads = n_threads, .max_isa = FR_ISA_AUTO};
    FR_TRY(fr_gguf_open(path, cfg->mmap ? 0 : FR_GGUF_NO_MMAP, &l->g, &err));
    FR_TRY(fr_model_open(l->g, mla, &l->m, &err));
    if (!repack)
        fr_model_set_layouts(l->m, false);
    FR_TRY(fr_cpu_open(&cpu, &l->cpu, &err));
    return fr_store_open(l->m, l->cpu, cfg, &l->s, &err);
}

static void close_all(loaded *l)
{
    fr_store_close(l->s);
    fr_cpu_close(l->cpu);
    fr_model_close(l->m);
    fr_gguf_close(l->g);
    *l = (loaded){0};
}

/* ---- every type ---------------------------------------------------------------------------------
 */

/* Every weight of the file against its tensor, repacked here by the walk. */
static int check_weights(const loaded *l, const gguf_parts *p, const char *what)
{
    int n_repacked = 0;
    for (int i = 0; i < l->m->n_weights; i++) {
        const fr_model_weight *w = &l->m->weights[i];
        if (!w->src || w->derive != FR_DERIVE_NONE)
            continue;
        const fr_weight *f = fr_store_weight(l->s, i);
        const uint8_t *data = parts_find_tensor(p, w->name)->data.p;
        uint8_t *want = NULL;
        assert_int_equal(f->layout, w->shape.layout);
        if (w->src->layout != f->layout) {
            data = want = malloc(w->bytes);
            assert_non_null(want);
            quant_repack_walk(&(repack_args){f->type, w->src->layout, f->layout, f->rows * f->n_mat,
                                             f->cols, parts_find_tensor(p, w->name)->data.p, want},
                              0);
            n_repacked++;
        }
        if (memcmp(f->data, data, w->bytes) != 0)
            fail_msg("%s: %s differs", what, w->name);
        free(want);
    }
    return n_repacked;
}

static void check_views(const loaded *l)
{
    for (int i = 0; i < l->m->n_weights; i++) {
        const fr_model_weight *v = &l->m->weights[i];
        if (v->derive != FR_DERIVE_VIEW)
            continue;
        const fr_weight *to = fr_store_weight(l->s, i), *from = fr_store_weight(l->s, v->from);
        float a[1024], b[1024];
        assert_true(to->cols <= 1024 && to->layout == from->layout);
        for (int64_t m = 0; m < to->n_mat; m++)
            for (int64_t r = 0; r < to->rows; r++) {
                fr_decode_row(to->type, to->layout,
                              (const uint8_t *)to->data + (size_t)m * to->mat_bytes, r, to->cols,
                              a);
                fr_decode_row(from->type, from->layout, from->data,
                              m * v->src_step + v->src_row + r, to->cols, b);
                assert_memory_equal(a, b, (size_t)to->cols * sizeof *a);
            }
    }
}

/* Out of the page cache, so that what is read comes from storage. */
static void forget(const char *path)
{
    fr_file f;
    assert_ok(fr_file_open(path, &f, &err));
    fsync(f.fd);
    fr_file_forget(&f);
    fr_file_close(&f);
}

static void check_type(fr_type type, fr_layout layout)
{
    const char *name = fr_type_name(type, layout), *path = model_temp_path("random.gguf");
    gguf_parts p = random_model(type, layout, 77 + (uint64_t)type);
    parts_save(&p, path);
    for (int mode = 0; mode < 16; mode++) {
        bool repack = mode & 1;
        fr_store_config cfg = {.mmap = mode & 2,
                               .reading = mode & 8 ? FR_READ_DIRECT : FR_READ_THROUGH};
        loaded l;
        forget(path);
        assert_ok(
            open_all(path, mode & 4 ? FR_MLA_AUTO : FR_MLA_PLAIN, repack, 1 + mode % 3, &cfg, &l));
        int n = check_weights(&l, &p, name);
        bool expected =
            repack && fr_layout_in_memory(type, 256, 256) != layout; /* of most of its matrices */
        if ((n > 0) != expected)
            fail_msg("%s: %d weights repacked, mode %d", name, n, mode);
        check_views(&l);
        close_all(&l);
    }
    parts_free(&p);
}

static void test_types(void **state)
{
    (void)state;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *info = fr_type_get((fr_type)t);
        if (info->gguf_id >= 0 && t != FR_TYPE_F32)
            check_type((fr_type)t, FR_LAYOUT_PLAIN);
        if (info->il_gguf_id >= 0)
            check_type((fr_type)t, FR_LAYOUT_INTERLEAVED);
    }
}

/* ---- what stays plain ---------------------------------------------------------------------------
 */

static char log_text[4096];

static void keep_log(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    strncat(log_text, line, sizeof log_text - strlen(log_text) - 1);
}

/* Rows that make no whole group, and token_embd: the file's layout, with a note for the former. */
static void test_plain(void **state)
{
    (void)state;
    fr_store_config cfg = {.mmap = true};
    loaded l;
    const char *path = model_temp_path("odd.gguf");
    gguf_parts p = random_model(FR_TYPE_Q4_0, FR_LAYOUT_PLAIN, 5);
    uint64_t n_vocab = parts_find_tensor(&p, "token_embd.weight")->dims[1];
    const char *const padded[] = {"token_embd.weight", "output.weight"};
    for (int i = 0; i < 2; i++) { /* one row more than the vocabulary needs */
        parts_tensor *t = parts_find_tensor(&p, padded[i]);
        t->dims[1] = n_vocab + 1;
        parts_bytes_resize(&t->data, parts_tensor_bytes(t));
    }
    parts_save(&p, path);
    log_text[0] = 0;
    fr_log_set_sink(keep_log, NULL);
    assert_ok(open_all(path, FR_MLA_AUTO, true, 2, &cfg, &l));
    fr_log_set_sink(NULL, NULL);
    int output = fr_model_weight_of(l.m, -1, FR_ROLE_OUTPUT);
    int embd = fr_model_weight_of(l.m, -1, FR_ROLE_TOKEN_EMBD);
    int down = fr_model_weight_of(l.m, 1, FR_ROLE_FFN_DOWN_EXPS);
    assert_int_equal(fr_store_weight(l.s, output)->layout, FR_LAYOUT_PLAIN);
    assert_int_equal(fr_store_weight(l.s, embd)->layout, FR_LAYOUT_PLAIN);
    assert_int_equal(fr_store_weight(l.s, down)->layout, l.m->weights[down].shape.layout);
    assert_int_not_equal(l.m->weights[down].shape.layout, FR_LAYOUT_PLAIN);
    assert_non_null(strstr(log_text, "1 weight stays plain"));
    assert_non_null(strstr(log_text, "output.weight has 1025 rows"));
    check_weights(&l, &p, "odd");
    close_all(&l);
    parts_free(&p);
}

/* ---- progress and failures ----------------------------------------------------------------------
 */

typedef struct {
    uint64_t last, total;
    int calls, stop_at;
} progress;

static bool count_progress(void *user, uint64_t done, uint64_t total)
{
    progress *p = user;
    assert_true(done >= p->last && done <= total);
    p->last = done;
    p->total = total;
    return ++p->calls != p->stop_at;
}

static void test_progress(void **state)
{
    (void)state;
    const char *path = model_temp_path("random.gguf");
    gguf_parts p = random_model(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, 6);
    parts_save(&p, path);
    for (int mmap = 0; mmap < 2; mmap++) {
        progress seen = {0};
        fr_store_config cfg = {.mmap = mmap, .progress = count_progress, .progress_user = &seen};
        loaded l;
        assert_ok(open_all(path, FR_MLA_AUTO, true, 1, &cfg, &l));
        assert_true(seen.calls > 1 && seen.last == seen.total && seen.total > 0);
        close_all(&l);
        seen = (progress){.stop_at = 1};
        assert_int_equal(open_all(path, FR_MLA_AUTO, true, 1, &cfg, &l), FR_ECANCELLED);
        assert_null(l.s);
        close_all(&l);
    }
    parts_free(&p);
}

static bool is_cached(const char *path)
{
    fr_file f;
    assert_ok(fr_file_open(path, &f, &err));
    bool cached = fr_file_is_cached(&f, 0, f.size);
    fr_file_close(&f);
    return cached;
}

/* Which way was gone, and what it leaves in the page cache. */
static void test_ways(void **state)
{
    (void)state;
    const char *path = model_temp_path("random.gguf");
    gguf_parts p = random_model(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, 8);
    parts_save(&p, path);
    for (int way = FR_READ_THROUGH; way <= FR_READ_AUTO; way++) {
        fr_store_config cfg = {.reading = (fr_store_reading)way};
        loaded l;
        forget(path);
        bool forgotten = !is_cached(path);
        assert_ok(open_all(path, FR_MLA_AUTO, true, 2, &cfg, &l));
        fr_store_loading a = fr_store_loaded(l.s);
        close_all(&l);
        assert_true(a.read_bytes > 0 && a.n_threads == 2 && a.mapped_bytes == 0);
        assert_true(a.read_s > 0 && a.read_s <= a.seconds && a.repack_s > 0);
        assert_true(a.memory_s + a.copy_s + a.repack_s + a.wait_s <= 2 * a.read_s);
        if (!forgotten) {
            print_message("this file system keeps its files in memory\n");
            break;
        }
        assert_true(a.direct_bytes + a.cached_bytes <= a.read_bytes);
        if (way != FR_READ_DIRECT) { /* a small model fits twice */
            assert_int_equal(a.direct_bytes, 0);
            assert_ok(open_all(path, FR_MLA_AUTO, true, 2, &cfg, &l));
            a = fr_store_loaded(l.s);
            assert_true(a.cached_bytes == a.read_bytes && a.copy_s > 0);
            close_all(&l);
        } else if (a.direct_bytes > 0) {
            assert_false(is_cached(path));
        }
    }
    parts_free(&p);
}

/* A file that ends early while it is read: an error, not a signal. */
static void test_truncated(void **state)
{
    (void)state;
    const char *path = model_temp_path("random.gguf");
    gguf_parts p = random_model(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, 6);
    parts_save(&p, path);
    for (int direct = 0; direct < 2; direct++) {
        fr_store_config cfg = {.mmap = true, .reading = direct ? FR_READ_DIRECT : FR_READ_THROUGH};
        loaded l = {0};
        fr_cpu_config cpu = {.n_threads = 2, .max_isa = FR_ISA_AUTO};
        parts_save(&p, path);
        assert_ok(fr_gguf_open(path, 0, &l.g, &err));
        assert_ok(fr_model_open(l.g, FR_MLA_PLAIN, &l.m, &err));
        assert_ok(fr_cpu_open(&cpu, &l.cpu, &err));
        assert_int_equal(truncate(path, 300000), 0);
        forget(path);
        assert_int_equal(fr_store_open(l.m, l.cpu, &cfg, &l.s, &err), FR_EIO);
        assert_non_null(strstr(err.text, "the file ends before"));
        close_all(&l);
    }
    parts_free(&p);
}

/* The n-th allocation fails, for every n. */
static void walk_failures(const char *path, const fr_store_config *cfg)
{
    size_t before = fr_mem_total().bytes_now;
    for (uint64_t n = 1;; n++) {
        loaded l;
        fr_mem_fail_at(n, 0);
        fr_status st = open_all(path, FR_MLA_AUTO, true, 2, cfg, &l);
        fr_mem_fail_at(0, 0);
        close_all(&l);
        assert_int_equal(fr_mem_total().bytes_now, before);
        if (st == FR_OK) {
            assert_true(n > 20);
            return;
        }
        assert_int_equal(st, FR_ENOMEM);
        assert_true(strlen(err.text) > 0);
    }
}

static void test_out_of_memory(void **state)
{
    (void)state;
    const char *path = model_temp_path("tiny.gguf");
    gguf_parts tiny[] = {tiny_v2(), tiny_v3()};
    for (int i = 0; i < 4; i++) {
        parts_save(&tiny[i % 2], path);
        walk_failures(
            path,
            &(fr_store_config){.mmap = i / 2, .reading = (fr_store_reading)(i % 3), .check = true});
    }
    parts_free(&tiny[0]);
    parts_free(&tiny[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),     cmocka_unit_test(test_plain),
        cmocka_unit_test(test_progress),  cmocka_unit_test(test_ways),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
