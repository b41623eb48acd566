/* The parts of ferry-quantize: names of mixes, stand-ins, rules of the mixes, failing allocations.
 */
#include "testing.h"

#include <unistd.h>

#include "../tools/quantize/quantize_write.h"
#include "base/log.h"
#include "support/models.h"

/* ---- names ---------------------------------------------------------------------------------- */

static void find(const char *text, const char *name, bool interleaved)
{
    tool_mix_id id;
    bool il;
    fr_err err;
    assert_ok(tool_mix_find(text, &id, &il, &err));
    assert_string_equal(tool_mix_get(id)->name, name);
    assert_int_equal(il, interleaved);
}

static void mixes_have_names_and_numbers(void **state)
{
    (void)state;
    tool_mix_id id;
    bool il;
    fr_err err;
    find("Q4_K_M", "Q4_K_M", false);
    find("q4_k_m", "Q4_K_M", false);
    find("Q4_K", "Q4_K_M", false);
    find("Q4_K_R4", "Q4_K_M", true);
    find("q8_0_r8", "Q8_0", true);
    find("BF16_R16", "BF16", true);
    find("15", "Q4_K_M", false);
    find("340", "IQ4_K", true);
    assert_int_equal(tool_mix_find("", &id, &il, &err), FR_EINVAL);
    assert_int_equal(tool_mix_find("Q4_K_M_", &id, &il, &err), FR_EINVAL);
    assert_int_equal(tool_mix_find("33", &id, &il, &err), FR_EINVAL);
    assert_int_equal(tool_mix_find("_R4", &id, &il, &err), FR_EINVAL);
    assert_int_equal(tool_mix_find("Q4_1_R4", &id, &il, &err), FR_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "use Q4_1"));
    for (int a = 0; a < TOOL_MIX_COUNT; a++) {
        const tool_mix *m = tool_mix_get((tool_mix_id)a);
        find(m->name, m->name, false);
        for (int b = 0; b < a; b++) /* both MXFP4 have one number */
            assert_true(m->file_type != tool_mix_get((tool_mix_id)b)->file_type ||
                        m->base == FR_TYPE_MXFP4);
    }
}

static void file_types_follow_the_type(void **state)
{
    (void)state;
    static const struct {
        fr_type type;
        int plain, interleaved;
    } known[] = {
        {FR_TYPE_F32, 0, 0},       {FR_TYPE_F16, 1, 1},        {FR_TYPE_Q8_0, 7, 207},
        {FR_TYPE_Q2_K, 10, 210},   {FR_TYPE_Q3_K, 11, 211},    {FR_TYPE_Q4_K, 14, 214},
        {FR_TYPE_Q5_K, 16, 216},   {FR_TYPE_Q6_K, 18, 218},    {FR_TYPE_IQ2_XS, 20, 220},
        {FR_TYPE_IQ2_S, 29, 229},  {FR_TYPE_IQ3_S, 26, 226},   {FR_TYPE_IQ4_XS, 30, 230},
        {FR_TYPE_IQ2_K, 138, 338}, {FR_TYPE_IQ5_KS, 150, 350}, {FR_TYPE_MXFP4, 38, 38},
        {FR_TYPE_Q8_KV, 0, 0},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(tool_file_type(known[i].type, FR_LAYOUT_PLAIN), known[i].plain);
        assert_int_equal(tool_file_type(known[i].type, FR_LAYOUT_INTERLEAVED),
                         known[i].interleaved);
    }
    assert_int_equal(tool_interleaved_file_type(15), 214);
    assert_int_equal(tool_interleaved_file_type(38), 38);
}

static void short_rows_get_stand_ins(void **state)
{
    (void)state;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *info = fr_type_get((fr_type)t);
        if (info->il_only || info->weights != 256)
            continue;
        fr_type other = tool_fitting_type((fr_type)t, 1408);
        assert_int_equal(tool_fitting_type((fr_type)t, 1024), t);
        assert_int_equal(fr_type_get(other)->weights, 32);
        assert_true(fr_row_bytes(other, FR_LAYOUT_PLAIN, 256) >=
                    fr_row_bytes((fr_type)t, FR_LAYOUT_PLAIN, 256) - (size_t)info->row_meta);
        assert_int_equal(tool_fitting_type((fr_type)t, 100), FR_TYPE_F16);
    }
    assert_int_equal(tool_fitting_type(FR_TYPE_Q4_K, 128), FR_TYPE_Q5_0);
    assert_int_equal(tool_fitting_type(FR_TYPE_Q6_K, 128), FR_TYPE_Q8_0);
    assert_int_equal(tool_fitting_layout(FR_TYPE_Q4_K, true, 6, 256), FR_LAYOUT_PLAIN);
    assert_int_equal(tool_fitting_layout(FR_TYPE_Q4_K, true, 8, 256), FR_LAYOUT_INTERLEAVED);
    assert_int_equal(tool_fitting_layout(FR_TYPE_Q4_1, true, 8, 256), FR_LAYOUT_PLAIN);
}

/* ---- rules of the mixes --------------------------------------------------------------------- */

static fr_type chosen(const quantize_model *m, tool_mix_id mix, const char *name, int64_t n_mat)
{
    fr_gguf_tensor t = {.name = name, .n_dims = 2, .dims = {2048, 512, n_mat, 1}};
    return quantize_mix_type(m, mix, &t);
}

/* Figures of well-known models' files. */
static void dense_models_get_the_usual_types(void **state)
{
    (void)state;
    quantize_model m = {.n_layer = 32, .n_gqa = 4, .has_output = true};
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.0.attn_v.weight", 1), FR_TYPE_Q6_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.4.attn_v.weight", 1), FR_TYPE_Q4_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.6.ffn_down.weight", 1), FR_TYPE_Q6_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.31.ffn_down.weight", 1), FR_TYPE_Q6_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.0.attn_q.weight", 1), FR_TYPE_Q4_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_S, "blk.3.attn_v.weight", 1), FR_TYPE_Q5_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_S, "blk.4.attn_v.weight", 1), FR_TYPE_Q4_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q3_K_M, "blk.1.ffn_down.weight", 1), FR_TYPE_Q5_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q3_K_M, "blk.2.ffn_down.weight", 1), FR_TYPE_Q4_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q2_K, "blk.9.attn_v.weight", 1), FR_TYPE_Q4_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q2_K, "blk.9.attn_output.weight", 1), FR_TYPE_Q3_K);
    assert_int_equal(chosen(&m, TOOL_MIX_IQ3_XS, "blk.3.ffn_up.weight", 1), FR_TYPE_IQ3_S);
    assert_int_equal(chosen(&m, TOOL_MIX_IQ3_XS, "blk.4.ffn_up.weight", 1), FR_TYPE_IQ3_XXS);
    assert_int_equal(chosen(&m, TOOL_MIX_IQ2_XXS, "token_embd.weight", 1), FR_TYPE_Q2_K);
    assert_int_equal(chosen(&m, TOOL_MIX_IQ2_XXS, "output.weight", 1), FR_TYPE_Q5_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_0, "output.weight", 1), FR_TYPE_Q6_K);
    assert_int_equal(chosen(&m, TOOL_MIX_Q8_0, "output.weight", 1), FR_TYPE_Q8_0);
    assert_int_equal(chosen(&m, TOOL_MIX_F16, "output.weight", 1), FR_TYPE_F16);
    assert_int_equal(chosen(&m, TOOL_MIX_IQ4_XS, "blk.0.ffn_down.weight", 1), FR_TYPE_Q5_K);
    m.has_imatrix = true;
    assert_int_equal(chosen(&m, TOOL_MIX_IQ4_XS, "blk.0.ffn_down.weight", 1), FR_TYPE_IQ4_XS);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_0, "blk.0.ffn_down.weight", 1), FR_TYPE_Q4_1);
    m.has_output = false;
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "token_embd.weight", 1), FR_TYPE_Q6_K);
}

static void experts_get_theirs(void **state)
{
    (void)state;
    quantize_model m = {.n_layer = 32, .n_expert = 8, .n_gqa = 4, .has_output = true};
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.9.attn_v.weight", 1), FR_TYPE_Q8_0);
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.9.attn_output.weight", 1), FR_TYPE_Q5_K);
    m.n_expert = 256;
    assert_int_equal(chosen(&m, TOOL_MIX_Q4_K_M, "blk.9.attn_output.weight", 1), FR_TYPE_Q4_K);
    assert_int_equal(chosen(&m, TOOL_MIX_IQ2_K, "blk.9.attn_output.weight", 1), FR_TYPE_Q5_K);
    assert_int_equal(chosen(&m, TOOL_MIX_MXFP4_MOE, "blk.9.ffn_up_exps.weight", 256),
                     FR_TYPE_MXFP4);
    assert_int_equal(chosen(&m, TOOL_MIX_MXFP4_MOE, "blk.9.ffn_up_shexp.weight", 1), FR_TYPE_Q8_0);
    assert_int_equal(chosen(&m, TOOL_MIX_MXFP4_MOE, "blk.9.attn_q_b.weight", 1), FR_TYPE_Q8_0);
    assert_int_equal(chosen(&m, TOOL_MIX_MXFP4, "blk.9.attn_q_b.weight", 1), FR_TYPE_MXFP4);
}

/* ---- failing allocations -------------------------------------------------------------------- */

static void to_nowhere(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static void no_progress(void *user, size_t i, const quantize_plan *p, const quantize_result *r)
{
    (void)user;
    (void)i;
    (void)p;
    (void)r;
}

/* A matrix of importance for one weight of the demo, in the older form. */
static void write_importance(const char *path)
{
    static const char name[] = "blk.0.attn_output.weight";
    const int32_t head[] = {1, sizeof name - 1}, counts[] = {1, 512}, tail[] = {3, 1};
    float values[512];
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 512; i++)
        values[i] = (float)(1 + i % 7);
    fwrite(head, sizeof head, 1, f);
    fwrite(name, sizeof name - 1, 1, f);
    fwrite(counts, sizeof counts, 1, f);
    fwrite(values, sizeof values, 1, f);
    fwrite(tail, sizeof tail, 1, f);
    fputc('x', f);
    assert_int_equal(fclose(f), 0);
}

typedef struct {
    fr_gguf *g;
    importance im;
    quantize_config config;
    quantize_plan plan;
    quantize_converter *converter;
} parts;

static fr_status quantize(parts *p, const char *im, const char *out, fr_err *err)
{
    char rule[] = "attn_output=q4_0,ffn_down=q4_0_r8";
    fr_opt_item item = {.text = rule};
    fr_opt_list items = {.items = &item, .n = 1};
    quantize_output o = {.path = out, .keep_split = true, .imatrix_path = im};
    p->config = (quantize_config){.mix = TOOL_MIX_Q8_0, .allow_requantize = true};
    FR_TRY(fr_gguf_open(MODEL_KJV, 0, &p->g, err));
    FR_TRY(importance_open(im, &p->im, err));
    p->config.imatrix = &p->im;
    FR_TRY(quantize_rules_open(&items, &p->config.rules, err));
    FR_TRY(quantize_plan_make(p->g, &p->config, &p->plan, err));
    FR_TRY(quantize_converter_open(1, &p->converter, err));
    return quantize_write(p->g, &p->plan, &p->im, &o, p->converter, no_progress, NULL, err);
}

static void out_of_memory(void **state)
{
    (void)state;
    const char *im = model_temp_path("im.dat"), *out = model_temp_path("out.gguf");
    write_importance(im);
    fr_log_set_sink(to_nowhere, NULL);
    size_t before = fr_mem_total().bytes_now;
    fr_status st = FR_ENOMEM;
    uint64_t n = 0;
    /* Reading and writing headers allocates for every token and tensor: steps grow with n. */
    while (st != FR_OK) {
        parts p = {0};
        fr_err err = {0};
        n += 1 + n / 40;
        assert_true(n < 100000);
        fr_mem_fail_at(n, 0);
        st = quantize(&p, im, out, &err);
        fr_mem_fail_at(0, 0);
        if (st != FR_OK)
            if (st != FR_ENOMEM)
                fail_msg("allocation %d: %s", (int)n, err.text);
        assert_int_equal(access(out, F_OK) == 0, st == FR_OK);
        quantize_converter_close(p.converter);
        quantize_plan_free(&p.plan);
        quantize_rules_close(p.config.rules);
        importance_close(&p.im);
        fr_gguf_close(p.g);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_true(n > 100);
    fr_log_set_sink(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixes_have_names_and_numbers),
        cmocka_unit_test(file_types_follow_the_type),
        cmocka_unit_test(short_rows_get_stand_ins),
        cmocka_unit_test(dense_models_get_the_usual_types),
        cmocka_unit_test(experts_get_theirs),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
