/* The registry of types: look-up, sizes, checks. */
#include "testing.h"

#include <ctype.h>

#include "base/file.h"
#include "quant/qtype.h"

static void ids_and_names_are_unique(void **state)
{
    (void)state;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *a = fr_type_get((fr_type)t);
        for (int u = 0; u < FR_TYPE_COUNT; u++) {
            const fr_type_info *b = fr_type_get((fr_type)u);
            if (t != u) {
                assert_string_not_equal(a->name, b->name);
                assert_true(a->gguf_id < 0 || a->gguf_id != b->gguf_id);
                assert_true(a->il_gguf_id < 0 || a->il_gguf_id != b->il_gguf_id);
            }
            assert_true(a->gguf_id < 0 || a->gguf_id != b->il_gguf_id);
        }
    }
}

/* Every form is found by its id and, in any case, by its name. */
static void forms_are_found(void **state)
{
    (void)state;
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *info = fr_type_get((fr_type)t);
        for (int l = 0; l < 2; l++) {
            if (l == FR_LAYOUT_PLAIN ? info->il_only : info->group == 0)
                continue;
            fr_type type;
            fr_layout layout;
            int id = l == FR_LAYOUT_PLAIN ? info->gguf_id : info->il_gguf_id;
            if (id >= 0) {
                assert_true(fr_type_from_gguf((uint32_t)id, &type, &layout));
                assert_int_equal(type, t);
                assert_int_equal(layout, l);
            }
            char upper[32];
            const char *name = fr_type_name((fr_type)t, (fr_layout)l);
            size_t n = strlen(name);
            assert_true(n < sizeof upper);
            for (size_t i = 0; i <= n; i++)
                upper[i] = (char)toupper((unsigned char)name[i]);
            assert_true(fr_type_from_name(fr_str_of(upper), &type, &layout));
            assert_int_equal(type, t);
            assert_int_equal(layout, l);
        }
    }
}

static void unknown_ids_and_names_are_refused(void **state)
{
    (void)state;
    static const uint32_t ids[] = {4, 5, 9999, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    fr_type type;
    fr_layout layout;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        assert_false(fr_type_from_gguf(ids[i], &type, &layout));
    static const char *const names[] = {"", "q4", "q4_Kx", "q4_k_r", "null"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_false(fr_type_from_name(fr_str_of(names[i]), &type, &layout));
    assert_true(fr_type_from_name((fr_str){"q4_K_r4 ", 7}, &type, &layout));
    assert_int_equal(layout, FR_LAYOUT_INTERLEAVED);
}

static void row_bytes_of_known_sizes(void **state)
{
    (void)state;
    const fr_layout plain = FR_LAYOUT_PLAIN, il = FR_LAYOUT_INTERLEAVED;
    assert_int_equal(fr_row_bytes(FR_TYPE_F32, plain, 7), 28);
    assert_int_equal(fr_row_bytes(FR_TYPE_BF16, plain, 7), 14);
    assert_int_equal(fr_row_bytes(FR_TYPE_BF16, il, 8), 16);
    assert_int_equal(fr_row_bytes(FR_TYPE_Q8_0, plain, 7168), 7168 / 32 * 34);
    assert_int_equal(fr_row_bytes(FR_TYPE_Q4_K, il, 7168), 7168 / 256 * 144);
    assert_int_equal(fr_row_bytes(FR_TYPE_IQ4_KS, plain, 512), 4 + 2 * 136);
    assert_int_equal(fr_row_bytes(FR_TYPE_IQ2_KL, plain, 256), 2 + 86);
    assert_int_equal(fr_row_bytes(FR_TYPE_Q8_KV, plain, 64), 8 + 64);
    assert_int_equal(fr_row_bytes(FR_TYPE_Q8_KV, il, 64), 4 + 64);
    assert_int_equal(fr_row_bytes(FR_TYPE_IQ1_M_R4, il, 256), 2 + 8 * 7);
}

static void check_expects(fr_type type, fr_layout layout, int64_t rows, int64_t cols, fr_status st,
                          const char *text)
{
    fr_err err = {0};
    assert_int_equal(fr_type_check(type, layout, rows, cols, &err), st);
    assert_int_equal(fr_type_check(type, layout, rows, cols, NULL), st);
    if (st != FR_OK && !strstr(err.text, text))
        fail_msg("'%s' does not say '%s'", err.text, text);
}

static void check_names_the_multiple(void **state)
{
    (void)state;
    const fr_layout plain = FR_LAYOUT_PLAIN, il = FR_LAYOUT_INTERLEAVED;
    check_expects(FR_TYPE_Q4_K, plain, 3, 512, FR_OK, "");
    check_expects(FR_TYPE_Q4_K, plain, 3, 576, FR_EINVAL, "multiple of 256");
    check_expects(FR_TYPE_Q4_K, il, 3, 512, FR_EINVAL, "multiple of 4");
    check_expects(FR_TYPE_Q4_K, il, 8, 512, FR_OK, "");
    check_expects(FR_TYPE_Q8_K_R16, il, 8, 256, FR_EINVAL, "multiple of 16");
    check_expects(FR_TYPE_BF16, plain, 1, 7, FR_OK, "");
    check_expects(FR_TYPE_BF16, il, 16, 7, FR_EINVAL, "multiple of 2");
    check_expects(FR_TYPE_F32, plain, 0, 7, FR_EINVAL, "rows");
    check_expects(FR_TYPE_F32, plain, -4, 7, FR_EINVAL, "rows");
    check_expects(FR_TYPE_F32, plain, 4, 0, FR_EINVAL, "weights");
    check_expects(FR_TYPE_F32, plain, 4, -256, FR_EINVAL, "weights");
    check_expects(FR_TYPE_F32, il, 4, 256, FR_EUNSUPPORTED, "interleaved");
    check_expects(FR_TYPE_IQ1_S_R4, plain, 4, 256, FR_EUNSUPPORTED, "plain");
}

static void check_refuses_sizes_beyond_63_bits(void **state)
{
    (void)state;
    const int64_t huge = INT64_MAX / 256 * 256;
    check_expects(FR_TYPE_F32, FR_LAYOUT_PLAIN, 1, INT64_MAX, FR_ERANGE, "2^63");
    check_expects(FR_TYPE_F32, FR_LAYOUT_PLAIN, INT64_MAX, 1, FR_ERANGE, "2^63");
    check_expects(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, (int64_t)1 << 40, (int64_t)1 << 40, FR_ERANGE,
                  "2^63");
    check_expects(FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, 1, huge, FR_ERANGE, "2^63");
    check_expects(FR_TYPE_Q4_K, FR_LAYOUT_PLAIN, 1, huge, FR_OK, "");
}

static void weight_has_its_size(void **state)
{
    (void)state;
    fr_weight w = fr_weight_make(FR_TYPE_Q6_K, FR_LAYOUT_INTERLEAVED, 512, 12, 256);
    assert_int_equal(w.type, FR_TYPE_Q6_K);
    assert_int_equal(w.layout, FR_LAYOUT_INTERLEAVED);
    assert_int_equal(w.cols, 512);
    assert_int_equal(w.rows, 12);
    assert_int_equal(w.n_mat, 256);
    assert_int_equal(w.mat_bytes, 12 * 2 * 210);
    assert_null(w.data);
}

static void number_or_dash(char out[16], int id)
{
    snprintf(out, 16, id < 0 ? "-" : "%d", id);
}

static void readme_has_the_table(void **state)
{
    (void)state;
    fr_buf readme = {0};
    fr_err err;
    assert_ok(fr_file_slurp(SOURCE_FILE("runtime/quant/README.md"), 1 << 20, &readme, &err));
    for (int t = 0; t < FR_TYPE_COUNT; t++) {
        const fr_type_info *i = fr_type_get((fr_type)t);
        char id[16], il_id[16], line[256];
        number_or_dash(id, i->gguf_id);
        number_or_dash(il_id, i->il_gguf_id);
        snprintf(line, sizeof line, "\n| %s | %s | %d | %d | %d | %.6g | %s | %s | %d |\n",
                 i->il_only ? "-" : i->name, id, i->weights, i->bytes, i->row_meta,
                 8.0 * i->bytes / i->weights, i->il_name ? i->il_name : "-", il_id, i->group);
        if (!strstr(readme.p, line))
            fail_msg("runtime/quant/README.md lacks the line %s", line);
    }
    fr_buf_free(&readme);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_and_names_are_unique),
        cmocka_unit_test(forms_are_found),
        cmocka_unit_test(unknown_ids_and_names_are_refused),
        cmocka_unit_test(row_bytes_of_known_sizes),
        cmocka_unit_test(check_names_the_multiple),
        cmocka_unit_test(check_refuses_sizes_beyond_63_bits),
        cmocka_unit_test(weight_has_its_size),
        cmocka_unit_test(readme_has_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
