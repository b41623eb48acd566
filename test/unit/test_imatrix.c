/* ferry-imatrix: what is collected, for every form of the attention weights, and its files. */
#include <math.h>

#include "testing.h"

#include "imatrix/collect.h"
#include "support/models.h"
#include "support/run_logits.h"

static fr_err err;

enum { CHUNK = 48, N_CHUNKS = 2, TOKENS = CHUNK * N_CHUNKS, N_EMBD = 128, HEADS = 4, USED = 4 };

static tool_chunks chunks;

static int setup(void **state)
{
    (void)state;
    chunks = (tool_chunks){.n_ctx = CHUNK, .n_chunks = N_CHUNKS, .bos = 0};
    chunks.tokens = logits_read_ids(TEST_FILE("data/logits/ids.txt"));
    return chunks.tokens.n != TOKENS;
}

static int teardown(void **state)
{
    (void)state;
    tool_chunks_free(&chunks);
    return 0;
}

/* ---- collecting */

static void collect_into(colsum *im, const char *model, int mla, int n_threads, bool score)
{
    fr_engine_config cfg = logits_config(model);
    fr_engine *e;
    fr_gguf *g;
    tool_scorer *s;
    cfg.n_ctx = CHUNK;
    cfg.n_ubatch = 20;
    cfg.n_threads = n_threads;
    cfg.mla = (fr_mla_mode)mla;
    assert_ok(fr_gguf_open(model, FR_GGUF_HEADERS_ONLY, &g, &err));
    if (mla < 0)
        cfg.mla = (fr_mla_mode)collector_mla(g);
    assert_ok(fr_engine_open(&cfg, &e, &err));
    assert_ok(tool_scorer_open(e, &chunks, score, &s, &err));
    collector c = {.im = im, .model = g, .pool = tool_scorer_pool(s), .process_output = score};
    assert_ok(fr_engine_observe(e, collector_observe, &c, &err));
    for (int i = 0; i < N_CHUNKS; i++) {
        assert_ok(tool_scorer_run(s, i, NULL, NULL, &err));
        im->n_chunks++;
    }
    if (c.status != FR_OK)
        fail_msg("%s", c.err.text);
    assert_ok(collector_report(&c, &err));
    tool_scorer_close(s);
    fr_engine_close(e);
    fr_gguf_close(g);
}

static colsum collect(const char *model, int mla)
{
    colsum im = {.chunk_size = CHUNK};
    collect_into(&im, model, mla, 2, false);
    assert_ok(colsum_add_dataset(&im, FR_STR("some/ids.txt"), &err));
    return im;
}

static colsum_entry *entry(colsum *im, const char *name, int64_t cols, int64_t n_mat)
{
    colsum_entry *e = colsum_find(im, name);
    if (!e)
        fail_msg("%s: no entry", name);
    assert_int_equal(e->cols, cols);
    assert_int_equal(e->n_mat, n_mat);
    for (int64_t k = 0; k < cols * n_mat; k++)
        assert_true(e->sums[k] > 0 || (e->sums[k] == 0 && e->counts[k / cols] == 0));
    return e;
}

static void has_tokens(const colsum_entry *e)
{
    for (int64_t m = 0; m < e->n_mat; m++)
        assert_int_equal(e->counts[m], TOKENS);
}

static void near(const double *a, const double *b, int64_t n, double relative)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= relative * fabs(b[i])))
            fail_msg("column %lld: found %g, expected %g", (long long)i, a[i], b[i]);
}

/* The first product of the model reads rms_norm(embedding) * weight: computed here by hand. */
static void first_input_sums(const char *model, double *sums)
{
    fr_gguf *g;
    assert_ok(fr_gguf_open(model, 0, &g, &err));
    const fr_gguf_tensor *embd = fr_gguf_find_tensor(g, "token_embd.weight");
    const float *norm = fr_gguf_tensor_data(g, fr_gguf_find_tensor(g, "blk.0.attn_norm.weight"));
    memset(sums, 0, N_EMBD * sizeof *sums);
    for (int t = 0; t < TOKENS; t++) {
        float x[N_EMBD];
        double square = 0;
        int32_t id = t % CHUNK ? chunks.tokens.ids[t] : chunks.bos;
        fr_decode_row(embd->type, embd->layout, fr_gguf_tensor_data(g, embd), id, N_EMBD, x);
        for (int i = 0; i < N_EMBD; i++)
            square += (double)x[i] * (double)x[i] / N_EMBD;
        for (int i = 0; i < N_EMBD; i++) {
            double y = (double)x[i] / sqrt(square + 1e-6) * (double)norm[i];
            sums[i] += y * y;
        }
    }
    fr_gguf_close(g);
}

static void sums_of_the_model(void **state)
{
    (void)state;
    double first[N_EMBD];
    colsum im = collect(MODEL_V3, -1);
    first_input_sums(MODEL_V3, first);
    colsum_entry *q_a = entry(&im, "blk.0.attn_q_a.weight", N_EMBD, 1);
    near(q_a->sums, first, N_EMBD, 1e-5);
    near(entry(&im, "blk.0.attn_kv_a_mqa.weight", N_EMBD, 1)->sums, first, N_EMBD, 1e-5);
    has_tokens(q_a);
    has_tokens(entry(&im, "blk.1.attn_kv_b.weight", 512, 1));
    has_tokens(entry(&im, "blk.0.ffn_down.weight", 256, 1));
    has_tokens(entry(&im, "blk.1.ffn_down_shexp.weight", 128, 1));
    assert_null(colsum_find(&im, "output.weight"));
    assert_null(colsum_find(&im, "token_embd.weight"));
    colsum_entry *gate = entry(&im, "blk.1.ffn_gate_exps.weight", N_EMBD, 16);
    int64_t used = 0;
    for (int m = 0; m < 16; m++)
        used += gate->counts[m];
    assert_int_equal(used, TOKENS * USED);
    colsum_entry *up = entry(&im, "blk.1.ffn_up_exps.weight", N_EMBD, 16);
    near(up->sums, gate->sums, 16 * N_EMBD, 0);
    colsum_entry *down = entry(&im, "blk.1.ffn_down_exps.weight", 128, 16);
    assert_memory_equal(down->counts, gate->counts, 16 * sizeof *down->counts);
    /* Every token's row meets USED experts, the shared one, and the router, which sees it once. */
    colsum_entry *router = entry(&im, "blk.1.ffn_gate_inp.weight", N_EMBD, 1);
    for (int i = 0; i < N_EMBD; i++) {
        double over_experts = 0;
        for (int m = 0; m < 16; m++)
            over_experts += gate->sums[m * N_EMBD + i];
        assert_true(fabs(over_experts - USED * router->sums[i]) < 1e-9 * over_experts);
    }
    colsum_free(&im);
}

static void threads_and_scoring(void **state)
{
    (void)state;
    colsum one = {.chunk_size = CHUNK}, two = collect(MODEL_V3, 0);
    collect_into(&one, MODEL_V3, 0, 1, true);
    for (size_t i = 0; i < two.n; i++) {
        colsum_entry *e = colsum_find(&one, two.entries[i].name);
        assert_non_null(e);
        assert_memory_equal(e->sums, two.entries[i].sums,
                            (size_t)(e->cols * e->n_mat) * sizeof *e->sums);
    }
    has_tokens(entry(&one, "output.weight", N_EMBD, 1)); /* asked for, and all rows were scored */
    assert_int_equal(one.n, two.n + 1);
    colsum_free(&one);
    colsum_free(&two);
}

static colsum collect_variant(const char *name, const model_variant *v, int mla)
{
    const char *path = model_temp_path(name);
    assert_ok(model_write_variant(MODEL_V3, v, path, &err));
    return collect(path, mla);
}

/* Files with attn_k_b and attn_v_b: both get an entry, whatever their dimensions. */
static void split_kv_b(void **state)
{
    (void)state;
    const model_variant split = {.split_kv_b = true}, flat = {.split_kv_b = true, .flat_k_b = true},
                        both = {.split_kv_b = true, .keep_kv_b = true};
    colsum a = collect_variant("split.gguf", &split, -1),
           b = collect_variant("flat.gguf", &flat, -1), c = collect_variant("both.gguf", &both, -1),
           whole = collect(MODEL_V3, 0);
    colsum_entry *k = entry(&a, "blk.1.attn_k_b.weight", 128, HEADS);
    has_tokens(k);
    has_tokens(entry(&a, "blk.1.attn_v_b.weight", 512, HEADS));
    colsum_entry *flat_k = entry(&b, "blk.1.attn_k_b.weight", 128, 1);
    assert_int_equal(flat_k->counts[0], TOKENS * HEADS);
    double all_heads[128] = {0};
    for (int i = 0; i < 128 * HEADS; i++)
        all_heads[i % 128] += k->sums[i];
    near(flat_k->sums, all_heads, 128, 1e-6);
    has_tokens(entry(&c, "blk.1.attn_kv_b.weight", 512, 1));
    assert_null(colsum_find(&c, "blk.1.attn_k_b.weight"));
    near(colsum_find(&c, "blk.1.attn_kv_b.weight")->sums,
         colsum_find(&whole, "blk.1.attn_kv_b.weight")->sums, 512, 1e-6);
    colsum_free(&a);
    colsum_free(&b);
    colsum_free(&c);
    /* In plain attention every head of attn_v_b reads the latent that attn_kv_b reads. */
    colsum plain = collect_variant("split0.gguf", &split, 0);
    colsum_entry *v = entry(&plain, "blk.1.attn_v_b.weight", 512, HEADS);
    has_tokens(v);
    for (int m = 0; m < HEADS; m++)
        near(v->sums + 512 * m, colsum_find(&whole, "blk.1.attn_kv_b.weight")->sums, 512, 1e-6);
    colsum_free(&plain);
    colsum_free(&whole);
}

/* ---- what the engine tells */

/* The first rows that the experts of layer 1 read: inputs, chosen experts, and what down reads. */
enum { ROWS = 5, N_FF = 128 };
static float gate_x[ROWS * N_EMBD], down_x[ROWS * USED * N_FF];
static int32_t gate_experts[ROWS * USED], down_experts[ROWS * USED];

static void keep_rows(void *user, const fr_observation *o)
{
    (void)user;
    if (strcmp(o->weight, "blk.1.ffn_gate_exps.weight") == 0) {
        assert_true(o->n_rows >= ROWS && o->per_row == USED && o->n_mat == 16);
        for (int r = 0; r < ROWS; r++)
            memcpy(gate_x + r * N_EMBD, o->x + r * o->ldx, N_EMBD * sizeof *gate_x);
        memcpy(gate_experts, o->mats, sizeof gate_experts);
    } else if (strcmp(o->weight, "blk.1.ffn_down_exps.weight") == 0) {
        assert_true(o->per_row == 1 && o->cols == N_FF);
        for (int r = 0; r < ROWS * USED; r++)
            memcpy(down_x + r * N_FF, o->x + r * o->ldx, N_FF * sizeof *down_x);
        memcpy(down_experts, o->mats, sizeof down_experts);
    }
}

static double expert_dot(const fr_gguf *g, const char *name, int32_t expert, int row,
                         const float *x)
{
    const fr_gguf_tensor *t = fr_gguf_find_tensor(g, name);
    float w[N_EMBD];
    double dot = 0;
    fr_decode_row(t->type, t->layout, fr_gguf_tensor_data(g, t), expert * N_FF + row, N_EMBD, w);
    for (int i = 0; i < N_EMBD; i++)
        dot += (double)w[i] * (double)x[i];
    return dot;
}

static fr_status ignore_logits(void *user, int64_t pos, int64_t n_rows, const float *logits,
                               fr_err *er)
{
    (void)user, (void)pos, (void)n_rows, (void)logits, (void)er;
    return FR_OK;
}

/* Row r of down is silu(gate x) * (up x) of the expert that it is said to meet. */
static void rows_meet_their_experts(void **state)
{
    (void)state;
    fr_engine_config cfg = logits_config(MODEL_V3);
    fr_engine *e;
    fr_session *s;
    fr_gguf *g;
    assert_ok(fr_gguf_open(MODEL_V3, 0, &g, &err));
    assert_ok(fr_engine_open(&cfg, &e, &err));
    assert_ok(fr_session_open(e, &s, &err));
    assert_ok(fr_engine_observe(e, keep_rows, NULL, &err));
    assert_ok(fr_session_append_all(s, chunks.tokens.ids, 20, ignore_logits, NULL, &err));
    assert_memory_equal(gate_experts, down_experts, sizeof gate_experts);
    for (int r = 0; r < ROWS * USED; r++)
        for (int k = 0; k < N_FF; k++) {
            const float *x = gate_x + r / USED * N_EMBD;
            double gate = expert_dot(g, "blk.1.ffn_gate_exps.weight", gate_experts[r], k, x);
            double up = expert_dot(g, "blk.1.ffn_up_exps.weight", gate_experts[r], k, x);
            double hidden = gate / (1 + exp(-gate)) * up;
            assert_true(fabs(hidden - (double)down_x[r * N_FF + k]) < 1e-4 * (1 + fabs(hidden)));
        }
    fr_session_close(s);
    fr_engine_close(e);
    fr_gguf_close(g);
}

/* ---- files */

/* Two weights: dense of 3 columns; 2 experts of 2 columns, the second one never used. */
static colsum small(void)
{
    static const double dense[] = {1, 2, 3}, experts[] = {4, 10, 0, 0};
    colsum im = {.chunk_size = 8, .n_chunks = 2};
    colsum_entry *e;
    assert_ok(colsum_entry_of(&im, "blk.0.ffn_up_exps.weight", 2, 2, &e, &err));
    memcpy(e->sums, experts, sizeof experts);
    e->counts[0] = 4;
    assert_ok(colsum_entry_of(&im, "blk.0.attn_q.weight", 3, 1, &e, &err));
    memcpy(e->sums, dense, sizeof dense);
    e->counts[0] = 16;
    assert_ok(colsum_add_dataset(&im, FR_STR("a.txt"), &err));
    assert_ok(colsum_add_dataset(&im, FR_STR("b.txt"), &err));
    assert_ok(colsum_add_dataset(&im, FR_STR("a.txt"), &err));
    return im;
}

static float tensor_value(const fr_gguf *g, const char *name, int64_t dim0, int64_t dim1, int i)
{
    const fr_gguf_tensor *t = fr_gguf_find_tensor(g, name);
    assert_non_null(t);
    assert_int_equal(t->dims[0], dim0);
    assert_int_equal(t->dims[1], dim1);
    assert_int_equal(t->type, FR_TYPE_F32);
    return ((const float *)fr_gguf_tensor_data(g, t))[i];
}

static void gguf_form(void **state)
{
    (void)state;
    const char *path = model_temp_path("small.gguf");
    colsum im = small();
    fr_gguf *g;
    fr_str text;
    uint32_t n;
    const fr_gguf_value *sets;
    assert_ok(colsum_write(&im, path, &err));
    assert_ok(fr_gguf_open(path, 0, &g, &err));
    assert_ok(fr_gguf_get_str(g, "general.type", &text, &err));
    assert_true(fr_str_is(text, "imatrix"));
    assert_ok(fr_gguf_get_u32(g, "imatrix.chunk_count", &n, &err));
    assert_int_equal(n, 2);
    assert_ok(fr_gguf_get_u32(g, "imatrix.chunk_size", &n, &err));
    assert_int_equal(n, 8);
    assert_ok(fr_gguf_get_array(g, "imatrix.datasets", true, &sets, &err));
    assert_int_equal(sets->n, 2);
    assert_true(fr_str_is(fr_gguf_elem_str(sets, 1), "b.txt"));
    assert_int_equal(fr_gguf_n_tensors(g), 4);
    assert_true(tensor_value(g, "blk.0.attn_q.weight.in_sum2", 3, 1, 2) == 3);
    assert_true(tensor_value(g, "blk.0.attn_q.weight.counts", 1, 1, 0) == 16);
    assert_true(tensor_value(g, "blk.0.ffn_up_exps.weight.in_sum2", 2, 2, 1) == 10);
    assert_true(tensor_value(g, "blk.0.ffn_up_exps.weight.in_sum2", 2, 2, 2) == 0);
    assert_true(tensor_value(g, "blk.0.ffn_up_exps.weight.counts", 1, 2, 0) == 4);
    assert_true(tensor_value(g, "blk.0.ffn_up_exps.weight.counts", 1, 2, 1) == 0);
    fr_gguf_close(g);
    colsum_free(&im);
}

/* Byte for byte, written down from the description of the form. */
static void older_form(void **state)
{
    (void)state;
    const char *path = model_temp_path("small.dat");
    colsum im = small();
    fr_buf b = {0};
    int32_t i;
    float f;
    assert_ok(colsum_write(&im, path, &err));
    assert_ok(fr_file_slurp(path, 1 << 20, &b, &err));
    memcpy(&i, b.p, 4);
    assert_int_equal(i, 2);
    memcpy(&i, b.p + 4, 4);
    assert_int_equal(i, 19);
    assert_memory_equal(b.p + 8, "blk.0.attn_q.weight", 19);
    const char *p = b.p + 27;
    memcpy(&i, p, 4); /* 16 rows = 2 chunks of 8 */
    assert_int_equal(i, 2);
    memcpy(&i, p + 4, 4);
    assert_int_equal(i, 3);
    memcpy(&f, p + 8 + 2 * 4, 4);
    assert_true(f == 3.0f / 16 * 2);
    p += 8 + 12 + 4 + 24; /* values, length and name of the second entry */
    memcpy(&i, p, 4);     /* 4 rows: rounded up to 1 chunk */
    assert_int_equal(i, 1);
    memcpy(&i, p + 4, 4);
    assert_int_equal(i, 4);
    float values[4];
    memcpy(values, p + 8, sizeof values);
    assert_true(values[0] == 1 && values[1] == 2.5f && values[2] == 1 && values[3] == 1);
    p += 8 + sizeof values;
    memcpy(&i, p, 4);
    assert_int_equal(i, 2);
    memcpy(&i, p + 4, 4);
    assert_int_equal(i, 5);
    assert_memory_equal(p + 8, "b.txt", 5);
    assert_int_equal(b.p + b.n - p, 13);
    fr_buf_free(&b);
    colsum_free(&im);
}

static void same_means(colsum *a, colsum *b)
{
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const colsum_entry *x = &a->entries[i], *y = colsum_find(b, x->name);
        assert_non_null(y);
        assert_int_equal(x->cols * x->n_mat, y->cols * y->n_mat);
        for (int64_t k = 0; k < x->cols * x->n_mat; k++) {
            int64_t nx = x->counts[k / x->cols], ny = y->counts[k / y->cols];
            double mean = x->sums[k] / (double)nx, other = y->sums[k] / (double)ny;
            if (nx)
                assert_true(fabs(mean - other) <= 1e-6 * mean);
            else
                assert_true(ny == 0 || other == 1);
        }
    }
}

static void forms_agree(void **state)
{
    (void)state;
    const char *gguf = model_temp_path("v3.gguf"), *dat = model_temp_path("v3.dat");
    colsum im = collect(MODEL_V3, -1), a = {.chunk_size = CHUNK}, b = {.chunk_size = CHUNK};
    assert_ok(colsum_write(&im, gguf, &err));
    assert_ok(colsum_write(&im, dat, &err));
    assert_ok(colsum_read(&a, gguf, &err));
    assert_ok(colsum_read(&b, dat, &err));
    same_means(&im, &a);
    same_means(&im, &b);
    assert_int_equal(a.n_chunks, N_CHUNKS);
    assert_int_equal(b.n_chunks, N_CHUNKS);
    assert_string_equal(a.datasets.p, "some/ids.txt");
    assert_string_equal(b.datasets.p, "some/ids.txt");
    /* The older form does not tell experts; whoever knows their number splits the entry. */
    colsum_entry *e = colsum_find(&b, "blk.1.ffn_up_exps.weight");
    assert_int_equal(e->n_mat, 1);
    assert_ok(colsum_entry_of(&b, "blk.1.ffn_up_exps.weight", N_EMBD, 16, &e, &err));
    assert_int_equal(e->n_mat, 16);
    assert_int_equal(e->counts[15], e->counts[0]);
    colsum_free(&im);
    colsum_free(&a);
    colsum_free(&b);
}

static void merging(void **state)
{
    (void)state;
    const char *gguf = model_temp_path("m.gguf"), *dat = model_temp_path("m.dat");
    colsum im = small(), sum = {.chunk_size = 16}, other = {.chunk_size = 8};
    colsum_entry *e;
    assert_ok(colsum_write(&im, gguf, &err));
    assert_ok(colsum_write(&im, dat, &err));
    for (int i = 0; i < 2; i++)
        assert_ok(colsum_read(&sum, gguf, &err));
    assert_int_equal(sum.n_chunks, 2); /* 4 of 8 tokens */
    e = colsum_find(&sum, "blk.0.ffn_up_exps.weight");
    assert_true(e->sums[1] == 20 && e->counts[0] == 8 && e->counts[1] == 0);
    /* The older form on top of the newer, and the other way round. */
    assert_ok(colsum_read(&im, dat, &err));
    e = colsum_find(&im, "blk.0.ffn_up_exps.weight");
    assert_true(e->n_mat == 2 && e->counts[0] == 4 + 8 && e->counts[1] == 8);
    assert_true(e->sums[0] == 4 + 8 && e->sums[3] == 8);
    assert_ok(colsum_read(&other, dat, &err));
    assert_ok(colsum_read(&other, gguf, &err));
    e = colsum_find(&other, "blk.0.ffn_up_exps.weight");
    assert_true(e->n_mat == 2 && e->counts[0] == 12 && e->counts[1] == 8);
    assert_int_equal(colsum_entry_of(&other, "blk.0.attn_q.weight", 4, 1, &e, &err), FR_EINVAL);
    assert_int_equal(colsum_entry_of(&other, "blk.0.ffn_up_exps.weight", 4, 1, &e, &err),
                     FR_EINVAL);
    colsum_free(&im);
    colsum_free(&sum);
    colsum_free(&other);
}

static void write_bytes(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb"); /* without the sync of fr_file_commit: there are thousands */
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static fr_status read_bytes(const fr_buf *b, size_t n)
{
    const char *path = model_temp_path("bad");
    colsum im = {.chunk_size = 8};
    write_bytes(path, b->p, n);
    fr_status st = colsum_read(&im, path, &err);
    colsum_free(&im);
    return st;
}

static void damaged_files(void **state)
{
    (void)state;
    const char *names[] = {"d.gguf", "d.dat"};
    colsum im = small();
    for (int form = 0; form < 2; form++) {
        fr_buf good = {0};
        const char *path = model_temp_path(names[form]);
        assert_ok(colsum_write(&im, path, &err));
        assert_ok(fr_file_slurp(path, 1 << 20, &good, &err));
        /* The older form may end after its entries; the data set's name may be cut. */
        size_t may_end = form ? good.n - 13 : good.n - 31;
        for (size_t n = 0; n < may_end; n++)
            assert_int_not_equal(read_bytes(&good, n), FR_OK);
        for (size_t at = 0; at < good.n; at++) /* any answer, but no crash */
            for (int bit = 0; bit < 8; bit += 7) {
                good.p[at] ^= (char)(1 << bit);
                read_bytes(&good, good.n);
                good.p[at] ^= (char)(1 << bit);
            }
        fr_buf_free(&good);
    }
    im.entries[0].sums[0] = NAN;
    assert_int_equal(colsum_write(&im, model_temp_path("nan.gguf"), &err), FR_EFORMAT);
    im.entries[0].sums[0] = 1e300;
    assert_int_equal(colsum_write(&im, model_temp_path("inf.dat"), &err), FR_EFORMAT);
    colsum_free(&im);
    colsum none = {.chunk_size = 8};
    assert_int_equal(colsum_read(&none, "/nonexistent/x", &err), FR_ENOTFOUND);
    assert_int_equal(colsum_read(&none, MODEL_V3, &err), FR_EFORMAT);
    assert_non_null(strstr(err.text, "expected 'imatrix'"));
    colsum_free(&none);
}

/* ---- memory */

static fr_status everything(const char *gguf, const char *dat, const char *out, fr_err *er)
{
    colsum im = {.chunk_size = 8};
    fr_status st = colsum_read(&im, dat, er);
    if (st == FR_OK)
        st = colsum_read(&im, gguf, er);
    if (st == FR_OK)
        st = colsum_write(&im, out, er);
    colsum_free(&im);
    return st;
}

static void out_of_memory(void **state)
{
    (void)state;
    const char *gguf = model_temp_path("o.gguf"), *dat = model_temp_path("o.dat"),
               *outs[] = {model_temp_path("p.gguf"), model_temp_path("p.dat")};
    colsum im = small();
    assert_ok(colsum_write(&im, gguf, &err));
    assert_ok(colsum_write(&im, dat, &err));
    colsum_free(&im);
    size_t before = fr_mem_total().bytes_now;
    for (int form = 0; form < 2; form++) {
        fr_status st = FR_ENOMEM;
        uint64_t n = 0;
        while (st == FR_ENOMEM) {
            fr_mem_fail_at(++n, 0);
            st = everything(gguf, dat, outs[form], &err);
            fr_mem_fail_at(0, 0);
            assert_int_equal(fr_mem_total().bytes_now, before);
        }
        assert_ok(st);
        assert_true(n > 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_the_model), cmocka_unit_test(threads_and_scoring),
        cmocka_unit_test(split_kv_b),        cmocka_unit_test(rows_meet_their_experts),
        cmocka_unit_test(gguf_form),         cmocka_unit_test(older_form),
        cmocka_unit_test(forms_agree),       cmocka_unit_test(merging),
        cmocka_unit_test(damaged_files),     cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
