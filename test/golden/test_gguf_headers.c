/* Headers of real models, whose data lie elsewhere. The figures were counted by an independent
 * program from the sizes that the formats' description gives; 376.650 and 353.526 GiB are what the
 * makers of the two R1 files published. In all of them tensors follow one another without gaps, so
 * that one wrong size would show as a gap or an overlap. */
#include "gguf_build.h"

typedef struct {
    const char *type;
    size_t n;
    uint64_t bytes;
} share;

typedef struct {
    const char *path;
    size_t n_kv, n_tensors;
    uint64_t first, last; /* offsets of the first and last tensor's data */
    uint64_t weights, bytes;
    share shares[8];
} model;

static const model models[] = {
    {TEST_FILE("data/headers/deepseek-r1-0528-iq3_xxs.header.gguf"),
     31,
     1025,
     67040,
     265583617504,
     671026419200,
     265595592704,
     {{"q4_K", 1, 521256960},
      {"f32", 361, 429807616},
      {"q6_K", 184, 3830937600},
      {"q5_K", 305, 7846727680},
      {"iq3_s", 15, 24222105600},
      {"iq3_xxs", 159, 228744757248}}},
    {TEST_FILE("data/headers/deepseek-r1-iq4_k_r4.header.gguf"),
     31,
     1147,
     74592,
     379587568480,
     672049829376,
     379595751424,
     {{"iq4_k", 1, 521256960},
      {"f32", 361, 429807616},
      {"q6_K", 1, 760166400},
      {"iq4_k_r4", 662, 372607561728},
      {"q5_0", 61, 351797248},
      {"q5_K", 61, 4925161472}}},
    {TEST_FILE("data/headers/deepseek-r1-q4_k_r4.header.gguf"),
     31,
     1025,
     67040,
     404412909024,
     671026419200,
     404424884224,
     {{"q4_K", 1, 521256960},
      {"f32", 361, 429807616},
      {"q6_k_r4", 58, 84646410240},
      {"q4_k_r4", 605, 318827409408}}},
    {TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf"),
     30,
     377,
     25824,
     11324599520,
     15706484224,
     11329304576,
     {{"q4_K", 229, 5964374016},
      {"f32", 108, 14137344},
      {"q6_K", 13, 228802560},
      {"q8_0", 27, 5121990656}}},
    {TEST_FILE("data/headers/kimi-k2-iq2_k_r4.header.gguf"),
     33,
     1096,
     72544,
     354956444512,
     1026408232448,
     354966464512,
     {{"q4_K", 1, 660602880},
      {"f32", 365, 664721408},
      {"q6_K", 1, 963379200},
      {"iq5_k_r4", 427, 5978165248},
      {"q8_0", 122, 543686656},
      {"iq2_k_r4", 120, 200823275520},
      {"iq3_k_r4", 60, 145332633600}}},
};

enum { N_MODELS = sizeof models / sizeof *models };

static void check_shares(const fr_gguf *g, const model *m)
{
    for (const share *s = m->shares; s->type; s++) {
        size_t n = 0;
        uint64_t bytes = 0;
        for (size_t i = 0; i < fr_gguf_n_tensors(g); i++) {
            const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
            if (strcmp(fr_type_name(t->type, t->layout), s->type) != 0)
                continue;
            n++;
            bytes += t->bytes;
        }
        assert_int_equal(n, s->n);
        assert_int_equal(bytes, s->bytes);
    }
}

static void check_tensors(const fr_gguf *g, const model *m)
{
    uint64_t weights = 0, bytes = 0, next = m->first;
    for (size_t i = 0; i < fr_gguf_n_tensors(g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        assert_int_equal(t->offset, next);
        next = (t->offset + t->bytes + 31) / 32 * 32;
        weights += (uint64_t)(t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]);
        bytes += t->bytes;
        assert_ptr_equal(fr_gguf_find_tensor(g, t->name), t);
    }
    assert_int_equal(weights, m->weights);
    assert_int_equal(bytes, m->bytes);
    assert_int_equal(fr_gguf_tensor_at(g, m->n_tensors - 1)->offset, m->last);
}

static void test_real_headers(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        const model *m = &models[i];
        fr_gguf *g;
        fr_err err;
        fr_str s;
        assert_ok(fr_gguf_open(m->path, FR_GGUF_HEADERS_ONLY, &g, &err));
        assert_int_equal(fr_gguf_version(g), 3);
        assert_int_equal(fr_gguf_alignment(g), 32);
        assert_int_equal(fr_gguf_n_kv(g), m->n_kv);
        assert_int_equal(fr_gguf_n_tensors(g), m->n_tensors);
        assert_ok(fr_gguf_get_str(g, "general.architecture", &s, &err));
        assert_true(fr_str_is(s, "deepseek2"));
        check_tensors(g, m);
        check_shares(g, m);
        fr_gguf_close(g);
    }
}

static void test_data_wanted(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        fr_gguf *g;
        fr_err err;
        assert_int_equal(fr_gguf_open(models[i].path, 0, &g, &err), FR_EFORMAT);
        assert_non_null(strstr(err.text, models[i].path));
        assert_non_null(strstr(err.text, "'token_embd.weight'"));
        assert_non_null(strstr(err.text, "truncated after the header"));
    }
}

static void test_published_sizes(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(fr_format_bytes(models[2].bytes, text), "376.650 GiB");
    assert_string_equal(fr_format_bytes(models[1].bytes, text), "353.526 GiB");
}

/* Count, total bytes and FNV-1a of all strings of an array. */
static void check_strings(const fr_gguf *g, const char *key, uint64_t n, uint64_t bytes,
                          uint64_t hash)
{
    const fr_gguf_value *v;
    fr_err err;
    assert_ok(fr_gguf_get_array(g, key, true, &v, &err));
    assert_int_equal(v->n, n);
    uint64_t total = 0, h = 0xCBF29CE484222325;
    for (uint64_t i = 0; i < n; i++) {
        fr_str s = fr_gguf_elem_str(v, i);
        total += s.n;
        for (size_t k = 0; k < s.n; k++)
            h = (h ^ (uint8_t)s.p[k]) * 0x100000001B3;
    }
    assert_int_equal(total, bytes);
    assert_int_equal(h, hash);
}

static void test_demo_model(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_err err;
    assert_ok(fr_gguf_open(SOURCE_FILE("configs/demo/kjv-moe-q8_0.gguf"), 0, &g, &err));
    assert_int_equal(fr_gguf_n_kv(g), 37);
    assert_int_equal(fr_gguf_n_tensors(g), 66);
    assert_int_equal(fr_gguf_tensor_at(g, 0)->offset, 137472);
    check_strings(g, "tokenizer.ggml.tokens", 4096, 24055, 0x2a448c4ba4561adc);
    check_strings(g, "tokenizer.ggml.merges", 3832, 27336, 0xf8d55178f78f5fe9);
    fr_gguf_close(g);
    assert_int_equal(fr_mem_total().bytes_now, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_headers),
        cmocka_unit_test(test_data_wanted),
        cmocka_unit_test(test_published_sizes),
        cmocka_unit_test(test_demo_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
