/* Models whose file is not as it should be, and variants that must compute the same: shapes,
 * missing tensors, hyper-parameters, nextn layers, types and layouts of weights, tied output. */
#include "testing.h"

#include <math.h>
#include <time.h>

#include "base/log.h"
#include "engine/engine.h"
#include "kv/kv.h"
#include "model/graph.h"
#include "support/models.h"
#include "support/run_logits.h"
#include "support/tiny_models.h"

/* ---- what the log says
 * ---------------------------------------------------------------------------------- */

static char last_log[4096];

static void keep_log(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    size_t n = strlen(last_log);
    snprintf(last_log + n, sizeof last_log - n, "%s\n", line);
}

/* ---- opening
 * ------------------------------------------------------------------------------------------ */

static const char *save(const gguf_parts *p)
{
    const char *path = model_temp_path("model.gguf");
    parts_save(p, path);
    return path;
}

static fr_status open_parts(const gguf_parts *p, fr_mla_mode mla, fr_err *err)
{
    fr_gguf *g = NULL;
    fr_model *m = NULL;
    *err = (fr_err){0};
    last_log[0] = 0;
    size_t before = fr_mem_total().bytes_now;
    if (fr_gguf_open(save(p), 0, &g, err) != FR_OK)
        fail_msg("the reader refuses: %s", err->text);
    fr_status st = fr_model_open(g, mla, &m, err);
    assert_true((st == FR_OK) == (m != NULL));
    fr_model_close(m);
    fr_gguf_close(g);
    assert_int_equal(fr_mem_total().bytes_now, before);
    return st;
}

/* `words`: texts that the error must have, separated by '|'. */
static void assert_refused(const gguf_parts *p, fr_mla_mode mla, fr_status code, const char *words)
{
    fr_err err;
    char list[256];
    fr_status st = open_parts(p, mla, &err);
    if (st != code)
        fail_msg("found %s '%s', expected %s about '%s'", fr_status_name(st), err.text,
                 fr_status_name(code), words);
    snprintf(list, sizeof list, "%s", words);
    for (char *word = strtok(list, "|"); word; word = strtok(NULL, "|"))
        if (!strstr(err.text, word))
            fail_msg("found '%s', expected '%s' in it", err.text, word);
}

static void assert_opens(const gguf_parts *p)
{
    fr_err err;
    for (int mla = 0; mla <= 3; mla++)
        assert_ok(open_parts(p, (fr_mla_mode)mla, &err));
}

/* ---- tensors
 * -----------------------------------------------------------------------------------------------
 */

static void repeat_data(parts_tensor *t)
{
    size_t had = t->data.n;
    parts_bytes_resize(&t->data, parts_tensor_bytes(t));
    for (size_t i = had; i < t->data.n; i++)
        t->data.p[i] = t->data.p[i - had];
}

/* "[a, b" as shapes begin in error texts. */
static const char *shape(const char *before, uint64_t cols, uint64_t rows, bool vector)
{
    static char texts[2][96];
    static int next;
    char *out = texts[next++ % 2];
    if (vector)
        snprintf(out, sizeof texts[0], "%s [%llu", before, (unsigned long long)cols);
    else
        snprintf(out, sizeof texts[0], "%s [%llu, %llu", before, (unsigned long long)cols,
                 (unsigned long long)rows);
    return out;
}

/* Every tensor of a model with twice the columns, and with twice the rows. */
static void check_shapes(gguf_parts (*make)(void))
{
    gguf_parts whole = make();
    for (size_t i = 0; i < whole.n_tensors; i++)
        for (int dim = 0; dim < 2; dim++) {
            gguf_parts p = parts_copy(&whole);
            parts_tensor *t = &p.tensors[i];
            bool vector = t->n_dims == 1;
            uint64_t cols = t->dims[0], rows = t->dims[1];
            /* the rows of token_embd are the vocabulary's size, checked by the engine */
            if (!(dim == 1 && (vector || strcmp(t->name, "token_embd.weight") == 0))) {
                t->dims[dim] *= 2;
                repeat_data(t);
                char words[256];
                snprintf(words, sizeof words, "%s:|%s|%s", t->name,
                         shape("found shape", t->dims[0], t->dims[1], vector),
                         shape("expected", cols, rows, vector));
                assert_refused(&p, FR_MLA_AUTO, FR_EFORMAT, words);
            }
            parts_free(&p);
        }
    parts_free(&whole);
}

static void test_shapes(void **state)
{
    (void)state;
    check_shapes(tiny_v3);
    check_shapes(tiny_v2);
}

static void check_missing(gguf_parts (*make)(void), const char *optional)
{
    gguf_parts whole = make();
    for (size_t i = 0; i < whole.n_tensors; i++) {
        gguf_parts p = parts_copy(&whole);
        char name[96];
        snprintf(name, sizeof name, "%s", p.tensors[i].name);
        parts_drop_tensor(&p, name);
        if (strstr(optional, name))
            assert_opens(&p);
        else if (strstr(name, "attn_kv_b")) /* then k_b and v_b should be there */
            assert_refused(&p, FR_MLA_AUTO, FR_ENOTFOUND, "attn_k_b.weight|missing");
        else
            assert_refused(&p, FR_MLA_AUTO, FR_ENOTFOUND, strcat(name, ":|missing"));
        parts_free(&p);
    }
    parts_free(&whole);
}

static void test_missing_tensors(void **state)
{
    (void)state;
    check_missing(tiny_v3, "output.weight blk.1.exp_probs_b.bias");
    check_missing(tiny_v2, "");
}

static void test_tensors_nobody_reads(void **state)
{
    (void)state;
    fr_err err;
    gguf_parts p = tiny_v3();
    assert_ok(open_parts(&p, FR_MLA_AUTO, &err));
    assert_string_equal(last_log, "");
    parts_add_tensor(&p, "blk.0.attn_q.bias", FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, (int64_t[]){4});
    parts_add_tensor(&p, "rope_freqs.weight", FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, (int64_t[]){4});
    assert_ok(open_parts(&p, FR_MLA_AUTO, &err));
    assert_non_null(strstr(last_log, "2 tensors"));
    assert_non_null(strstr(last_log, "blk.0.attn_q.bias"));
    parts_free(&p);
}

/* ---- metadata
 * ---------------------------------------------------------------------------------------------- */

static void test_architectures(void **state)
{
    (void)state;
    gguf_parts p = tiny_v3();
    parts_put_str(&p, "general.architecture", "llama");
    assert_refused(&p, FR_MLA_AUTO, FR_EUNSUPPORTED, "general.architecture|'llama'|deepseek2");
    parts_put_u32(&p, "general.architecture", 7);
    assert_refused(&p, FR_MLA_AUTO, FR_EFORMAT, "general.architecture");
    parts_drop_key(&p, "general.architecture");
    assert_refused(&p, FR_MLA_AUTO, FR_ENOTFOUND, "general.architecture");
    parts_free(&p);
}

static void test_numbers_out_of_range(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        const char *words; /* besides the key; NULL: it opens */
    } rows[] = {
        {"block_count", 0, "found 0"},
        {"block_count", 1025, "found 1025"},
        {"block_count", UINT32_MAX, "4294967295"},
        {"nextn_predict_layers", 2, "expected 0 to 1"},
        {"context_length", 0, "found 0"},
        {"context_length", 1u << 31, "2147483648"},
        {"context_length", INT32_MAX, NULL},
        {"embedding_length", 0, "found 0"},
        {"embedding_length", UINT32_MAX, "4294967295"},
        {"attention.head_count", 0, "found 0"},
        {"attention.head_count", 65537, "65537"},
        {"attention.kv_lora_rank", 0, "found 0"},
        {"attention.q_lora_rank", UINT32_MAX, "4294967295"},
        {"attention.key_length", 8, "rope.dimension_count|below the key length 8"},
        {"attention.value_length", 0, "found 0"},
        {"rope.dimension_count", 0, "found 0"},
        {"rope.dimension_count", 7, "found 7|even"},
        {"rope.dimension_count", 32, "below the key length 32"},
        {"expert_used_count", 9, "expected 0 to 8"},
        {"expert_used_count", 0, "expert_used_count 0"},
        {"expert_count", 65537, "65537"},
        {"expert_feed_forward_length", 0, "expert_feed_forward_length 0"},
        {"expert_group_count", 3, "3 groups"},
        {"expert_group_count", 16, "16 groups"},
        {"expert_group_used_count", 0, "0 used"},
        {"expert_group_used_count", 5, "expected 0 to 4"},
        {"expert_group_used_count", 1, "cannot give 3 of 8"},
        {"expert_gating_func", 3, "found 3"},
        {"expert_shared_count", 1025, "1025"},
        {"leading_dense_block_count", 3, "expected 0 to 2"},
        {"vocab_size", 1, NULL},
    };
    gguf_parts whole = tiny_v3();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gguf_parts p = parts_copy(&whole);
        char key[96], words[256];
        snprintf(key, sizeof key, "deepseek2.%s", rows[i].key);
        parts_put_u32(&p, key, rows[i].value);
        /* some are found by what they do to another */
        snprintf(words, sizeof words, "deepseek2|%s", rows[i].words ? rows[i].words : "");
        if (rows[i].words)
            assert_refused(&p, FR_MLA_AUTO, FR_EFORMAT, words);
        else
            assert_opens(&p);
        parts_free(&p);
    }
    parts_free(&whole);
}

static void test_floats_out_of_range(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        float value;
    } rows[] = {
        {"attention.layer_norm_rms_epsilon", -1e-6f},
        {"attention.layer_norm_rms_epsilon", NAN},
        {"rope.freq_base", 1.0f},
        {"rope.freq_base", NAN},
        {"rope.freq_base", INFINITY},
        {"rope.scaling.factor", 0.5f},
        {"rope.scaling.factor", INFINITY},
        {"rope.scaling.yarn_log_multiplier", -1.0f},
        {"rope.scaling.yarn_beta_fast", NAN},
        {"expert_weights_scale", -2.0f},
    };
    gguf_parts whole = tiny_v3();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gguf_parts p = parts_copy(&whole);
        char key[96];
        snprintf(key, sizeof key, "deepseek2.%s", rows[i].key);
        parts_put_f32(&p, key, rows[i].value);
        assert_refused(&p, FR_MLA_AUTO, FR_EFORMAT, strcat(key, "|expected"));
        parts_free(&p);
    }
    parts_put_str(&whole, "deepseek2.rope.scaling.type", "longrope");
    assert_refused(&whole, FR_MLA_AUTO, FR_EUNSUPPORTED, "rope.scaling.type|'longrope'|yarn");
    parts_free(&whole);
}

/* Keys without which there is no model; text where a number should be. */
static void test_keys_missing_or_of_another_type(void **state)
{
    (void)state;
    static const char *const needed[] = {
        "block_count",          "context_length",         "embedding_length",
        "attention.head_count", "attention.key_length",   "attention.layer_norm_rms_epsilon",
        "rope.dimension_count", "attention.kv_lora_rank",
    };
    gguf_parts whole = tiny_v3();
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        char key[96];
        snprintf(key, sizeof key, "deepseek2.%s", needed[i]);
        gguf_parts p = parts_copy(&whole);
        parts_put_str(&p, key, "32");
        assert_refused(&p, FR_MLA_AUTO, FR_EFORMAT, key);
        parts_drop_key(&p, key);
        assert_refused(&p, FR_MLA_AUTO, FR_ENOTFOUND, key);
        parts_free(&p);
    }
    parts_free(&whole);
}

/* ---- equal logits
 * ------------------------------------------------------------------------------------------ */

enum { N_TOKENS = 24 };

static float *run_parts(const gguf_parts *p, fr_mla_mode mla, size_t *n)
{
    const parts_tensor *embd = parts_find_tensor(p, "token_embd.weight");
    int32_t tokens[N_TOKENS];
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((uint64_t)(i * 37 + 5) % embd->dims[1]);
    fr_tokens ids = {tokens, N_TOKENS, N_TOKENS};
    fr_engine_config cfg = logits_config(save(p));
    cfg.mla = mla;
    cfg.n_threads = 1;
    *n = N_TOKENS * embd->dims[1];
    size_t before = fr_mem_total().bytes_now;
    float *logits = logits_run(&cfg, &ids);
    assert_int_equal(fr_mem_total().bytes_now, before);
    return logits;
}

static void assert_same_logits(const gguf_parts *a, const gguf_parts *b)
{
    for (int mla = 0; mla <= 3; mla++) {
        size_t n, m;
        float *x = run_parts(a, (fr_mla_mode)mla, &n), *y = run_parts(b, (fr_mla_mode)mla, &m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n * sizeof *x);
        free(x);
        free(y);
    }
}

static parts_tensor *copy_as(gguf_parts *p, const char *from, const char *to)
{
    parts_tensor copy = *parts_find_tensor(p, from);
    parts_tensor *t = parts_add_tensor(p, to, FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, (int64_t[]){1});
    t->type = copy.type;
    t->n_dims = copy.n_dims;
    memcpy(t->dims, copy.dims, sizeof t->dims);
    t->data.n = 0;
    parts_bytes_add(&t->data, copy.data.p, copy.data.n);
    return t;
}

/* The layer that predicts a further token, as DeepSeek-V3 files have it, changes nothing. */
static void test_nextn_layers(void **state)
{
    (void)state;
    gguf_parts p = tiny_v3(), q = parts_copy(&p);
    for (size_t i = 0; i < p.n_tensors; i++)
        if (strncmp(p.tensors[i].name, "blk.1.", 6) == 0) {
            char name[96];
            snprintf(name, sizeof name, "blk.2.%s", p.tensors[i].name + 6);
            copy_as(&q, p.tensors[i].name, name);
        }
    copy_as(&q, "output_norm.weight", "blk.2.nextn.enorm.weight");
    copy_as(&q, "token_embd.weight", "blk.2.nextn.embed_tokens.weight");
    parts_put_u32(&q, "deepseek2.block_count", 3);
    parts_put_u32(&q, "deepseek2.nextn_predict_layers", 1);
    fr_err err;
    assert_ok(open_parts(&q, FR_MLA_AUTO, &err));
    assert_non_null(strstr(last_log, "nextn"));
    assert_null(strstr(last_log, "not used by"));
    assert_same_logits(&p, &q);
    /* Without the key it is one more layer, whose extra tensors are named. */
    parts_drop_key(&q, "deepseek2.nextn_predict_layers");
    assert_ok(open_parts(&q, FR_MLA_AUTO, &err));
    assert_non_null(strstr(last_log, "blk.2.nextn"));
    parts_free(&p);
    parts_free(&q);
}

static void test_tied_output(void **state)
{
    (void)state;
    gguf_parts tied = tiny_v3(), own = parts_copy(&tied);
    parts_drop_tensor(&tied, "output.weight");
    parts_drop_tensor(&own, "output.weight");
    copy_as(&own, "token_embd.weight", "output.weight");
    assert_same_logits(&tied, &own);
    parts_free(&tied);
    parts_free(&own);
}

/* Vectors may be stored as f16 or bf16: the same as their values in f32. */
static void test_types_of_vectors(void **state)
{
    (void)state;
    static const fr_type types[] = {FR_TYPE_F16, FR_TYPE_BF16, FR_TYPE_Q8_0};
    for (int i = 0; i < 3; i++) {
        gguf_parts small = tiny_v3();
        int n_changed = 0;
        for (size_t t = 0; t < small.n_tensors; t++)
            if (small.tensors[t].n_dims == 1 &&
                (types[i] != FR_TYPE_Q8_0 || small.tensors[t].dims[0] % 32 == 0)) {
                parts_retype(&small.tensors[t], types[i], FR_LAYOUT_PLAIN);
                n_changed++;
            }
        assert_true(n_changed >= 8);
        gguf_parts whole = parts_copy(&small);
        for (size_t t = 0; t < whole.n_tensors; t++)
            if (whole.tensors[t].n_dims == 1)
                parts_retype(&whole.tensors[t], FR_TYPE_F32, FR_LAYOUT_PLAIN);
        assert_same_logits(&small, &whole);
        parts_free(&small);
        parts_free(&whole);
    }
}

/* A matrix of experts flattened into two dimensions is the same weights. */
static void test_flat_stacks(void **state)
{
    (void)state;
    gguf_parts p = tiny_v3(), q = parts_copy(&p);
    int n_changed = 0;
    for (size_t i = 0; i < q.n_tensors; i++)
        if (q.tensors[i].n_dims == 3) {
            q.tensors[i].dims[1] *= q.tensors[i].dims[2];
            q.tensors[i].dims[2] = 1;
            q.tensors[i].n_dims = 2;
            n_changed++;
        }
    assert_true(n_changed == 3);
    assert_same_logits(&p, &q);
    parts_free(&p);
    parts_free(&q);
}

/* ---- quantized variants
 * ----------------------------------------------------------------------------------- */

/* With K and V of every head cached nothing is derived from the weights, which would round them. */
static float *run_file(const char *path, const fr_tokens *ids, bool repack)
{
    fr_engine_config cfg = logits_config(path);
    cfg.mla = FR_MLA_PLAIN;
    cfg.repack = repack;
    return logits_run(&cfg, ids);
}

static float *run_variant(fr_type type, fr_layout layout, const fr_tokens *ids, const char *path)
{
    fr_err err = {0};
    model_variant v = {.retype = true, .type = type, .layout = layout};
    assert_ok(model_write_variant(MODEL_V3, &v, path, &err));
    return run_file(path, ids, false);
}

/* How many of the tokens have the same logits. */
static size_t n_same(const float *a, const float *b, size_t n_tokens)
{
    size_t n = 0;
    for (size_t t = 0; t < n_tokens; t++)
        n += logits_distance(a + t * 1024, b + t * 1024, 1024) <= 1e-5;
    return n;
}

/* Relative distances. To the f16 file: rounding of the weights, of the activations, and now and
 * then another expert elected. Of interleaved to plain: the same products, which a tier may sum in
 * another order; where that makes an activation round to another int8 code, what follows differs by
 * as much as int8 does (1e-2). Wrong bits would leave no token alike, and give distances near 1. */
static void check_quantized(fr_type type, double bound, const float *f16, const fr_tokens *ids)
{
    const char *name = fr_type_name(type, FR_LAYOUT_PLAIN);
    char path[256];
    size_t n = ids->n * 1024;
    snprintf(path, sizeof path, "%s", model_temp_path("variant.gguf"));
    float *plain = run_variant(type, FR_LAYOUT_PLAIN, ids, path);
    float *repacked = run_file(path, ids, true);
    float *interleaved = run_variant(type, FR_LAYOUT_INTERLEAVED, ids, path);
    float *from_interleaved = run_file(path, ids, true);
    /* However they stand in the file, in memory they are the same. */
    if (memcmp(repacked, from_interleaved, n * sizeof *repacked) != 0)
        fail_msg("%s: repacked from plain and from interleaved rows differ", name);
    if (!(logits_distance(repacked, plain, n) <= 0.03))
        fail_msg("%s: repacked differs from plain by %.3g", name,
                 logits_distance(repacked, plain, n));
    double to_f16 = logits_distance(plain, f16, n),
           to_plain = logits_distance(interleaved, plain, n);
    if (!(to_f16 > 1e-4 && to_f16 <= bound))
        fail_msg("%s: distance to f16 %.3g, expected 1e-4 to %.3g", name, to_f16, bound);
    if (!(to_plain <= 0.03) || n_same(interleaved, plain, ids->n) < ids->n / 20)
        fail_msg("%s: interleaved differs from plain by %.3g, %zu of %zu tokens are the same", name,
                 to_plain, n_same(interleaved, plain, ids->n), ids->n);
    free(plain);
    free(repacked);
    free(interleaved);
    free(from_interleaved);
}

static void test_quantized_variants(void **state)
{
    (void)state;
    fr_tokens ids = logits_read_ids(TEST_FILE("data/logits/ids.txt"));
    float *f16 = run_file(MODEL_V3, &ids, true);
    check_quantized(FR_TYPE_BF16, 0.06, f16, &ids);
    check_quantized(FR_TYPE_Q8_0, 0.12, f16, &ids);
    check_quantized(FR_TYPE_Q6_K, 0.15, f16, &ids);
    check_quantized(FR_TYPE_Q4_K, 0.3, f16, &ids);
    check_quantized(FR_TYPE_Q4_0, 0.45, f16, &ids);
    free(f16);
    fr_tokens_free(&ids);
}

/* ---- vocabulary
 * ------------------------------------------------------------------------------------------- */

/* The matrices may have more rows than there are tokens (padding), not fewer. */
static void test_vocabulary_size(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_engine *e = NULL;
    gguf_parts whole = tiny_v3();
    uint64_t n_tokens = parts_find_tensor(&whole, "token_embd.weight")->dims[1];
    for (int more = -1; more <= 1; more++) {
        gguf_parts p = parts_copy(&whole);
        parts_tensor *embd = parts_find_tensor(&p, "token_embd.weight");
        parts_tensor *output = parts_find_tensor(&p, "output.weight");
        embd->dims[1] = output->dims[1] = n_tokens + (uint64_t)more;
        repeat_data(embd);
        repeat_data(output);
        fr_engine_config cfg = fr_engine_defaults();
        cfg.model_path = save(&p);
        cfg.n_threads = 1;
        fr_status st = fr_engine_open(&cfg, &e, &err);
        assert_int_equal(st, more < 0 ? FR_EFORMAT : FR_OK);
        if (st == FR_OK) {
            assert_int_equal(fr_engine_describe(e).n_vocab, embd->dims[1]);
            assert_int_equal(fr_vocab_size(fr_engine_vocab(e)), n_tokens);
        } else {
            assert_non_null(strstr(err.text, "token_embd.weight"));
        }
        fr_engine_close(e);
        parts_free(&p);
    }
    parts_free(&whole);
}

/* ---- sizes
 * ------------------------------------------------------------------------------------------------
 */

/* Products of dimensions that files may hold, and that no 64-bit number does. */
static void test_sizes_that_overflow(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_kv *kv = NULL;
    fr_kv_layout layout;
    fr_model m = {.mla = FR_MLA_PLAIN,
                  .hp = {.n_layer = 1,
                         .n_head = 65536,
                         .qk_nope = 65534,
                         .qk_rope = 2,
                         .v_head = 65536,
                         .kv_lora_rank = 1 << 24}};
    for (int mla = 0; mla <= 1; mla++)
        for (int64_t layers = 1; layers <= 1024; layers *= 32) {
            m.mla = (fr_mla_mode)mla;
            m.hp.n_layer = layers;
            assert_ok(fr_kv_layout_make(&m, FR_TYPE_F32, FR_TYPE_F32, 0, &layout, &err));
            for (int64_t n_ctx = 1 << 29; n_ctx <= INT32_MAX; n_ctx += 1 << 29) {
                assert_int_equal(fr_kv_open(&layout, n_ctx, NULL, &kv, &err), FR_ENOMEM);
                assert_non_null(strstr(err.text, "KV cache"));
                assert_null(kv);
            }
        }
    assert_int_equal(fr_kv_layout_make(&m, FR_TYPE_F16, FR_TYPE_F16, INT64_MAX - 31, &layout, &err),
                     FR_ERANGE);
}

/* A context of 2^31 - 1 tokens is either refused or costs nothing until it is used. */
static void test_longest_context(void **state)
{
    (void)state;
    fr_err err = {0};
    gguf_parts p = tiny_v3();
    parts_put_u32(&p, "deepseek2.context_length", INT32_MAX);
    for (int mla = 0; mla <= 3; mla++) {
        fr_engine *e = NULL;
        fr_session *s = NULL;
        fr_engine_config cfg = fr_engine_defaults();
        cfg.model_path = save(&p);
        cfg.mla = (fr_mla_mode)mla;
        cfg.n_threads = 1;
        cfg.expand_bytes = 0; /* no bound */
        fr_status st = fr_engine_open(&cfg, &e, &err);
        if (st == FR_OK)
            st = fr_session_open(e, &s, &err);
        assert_true(st == FR_OK || (st == FR_ENOMEM && err.text[0]));
        if (st == FR_OK)
            assert_ok(fr_session_append(s, (int32_t[]){1, 2, 3}, 3, &err));
        fr_session_close(s);
        fr_engine_close(e);
    }
    parts_free(&p);
}

/* The most layers there may be: opening must not take a time that grows with their square. */
static void test_many_layers(void **state)
{
    (void)state;
    enum { LAYERS = 1024 };
    gguf_parts whole = tiny_v3(), p = {0};
    for (size_t i = 0; i < whole.n_keys; i++)
        parts_put(&p, whole.keys[i].name, whole.keys[i].type, whole.keys[i].value.p,
                  whole.keys[i].value.n);
    parts_put_u32(&p, "deepseek2.block_count", LAYERS);
    parts_put_u32(&p, "deepseek2.leading_dense_block_count", LAYERS);
    for (size_t i = 0; i < whole.n_tensors; i++) {
        const parts_tensor *t = &whole.tensors[i];
        if (strncmp(t->name, "blk.1.", 6) == 0)
            continue;
        bool in_layer = strncmp(t->name, "blk.0.", 6) == 0;
        for (int il = 0; il < (in_layer ? LAYERS : 1); il++) {
            char name[96];
            snprintf(name, sizeof name, "blk.%d.%s", il, t->name + 6);
            parts_tensor *n = parts_add_tensor(&p, in_layer ? name : t->name, FR_TYPE_F32,
                                               FR_LAYOUT_PLAIN, 1, (int64_t[]){1});
            n->type = t->type;
            n->n_dims = t->n_dims;
            memcpy(n->dims, t->dims, sizeof n->dims);
            n->data.n = 0;
            parts_bytes_add(&n->data, t->data.p, t->data.n);
        }
    }
    fr_err err = {0};
    fr_engine *e = NULL;
    fr_engine_config cfg = fr_engine_defaults();
    cfg.model_path = save(&p);
    cfg.n_threads = 1;
    clock_t start = clock();
    assert_ok(fr_engine_open(&cfg, &e, &err));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    print_message("%d layers opened in %.2f s\n", LAYERS, seconds);
    assert_true(seconds < 30);
    fr_engine_close(e);
    parts_free(&whole);
    parts_free(&p);
}

static int setup(void **state)
{
    (void)state;
    fr_log_set_sink(keep_log, NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_missing_tensors),
        cmocka_unit_test(test_tensors_nobody_reads),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_numbers_out_of_range),
        cmocka_unit_test(test_floats_out_of_range),
        cmocka_unit_test(test_keys_missing_or_of_another_type),
        cmocka_unit_test(test_nextn_layers),
        cmocka_unit_test(test_tied_output),
        cmocka_unit_test(test_types_of_vectors),
        cmocka_unit_test(test_flat_stacks),
        cmocka_unit_test(test_quantized_variants),
        cmocka_unit_test(test_vocabulary_size),
        cmocka_unit_test(test_sizes_that_overflow),
        cmocka_unit_test(test_longest_context),
        cmocka_unit_test(test_many_layers),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
