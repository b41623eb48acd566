/* Strings: buffer, UTF-8 over all code points and all strings of up to three bytes, edit distance.
 */
#include "testing.h"

#include <iconv.h>

#include "base/str.h"

static fr_err err;

/* ---- views and buffer ---------------------------------------------------------------------- */

static void test_views(void **state)
{
    (void)state;
    assert_true(fr_str_eq(FR_STR("abc"), fr_str_of("abc")));
    assert_false(fr_str_eq(FR_STR("abc"), FR_STR("abd")));
    assert_false(fr_str_eq(FR_STR("abc"), FR_STR("ab")));
    assert_true(fr_str_eq((fr_str){NULL, 0}, FR_STR("")));
    assert_true(fr_str_is(FR_STR("a\0b"), "a") == false);
    assert_true(fr_str_is((fr_str){"abc", 2}, "ab"));
    assert_true(fr_str_is(fr_str_trim(FR_STR(" \t\r\n\v\f x y \n")), "x y"));
    assert_int_equal(fr_str_trim(FR_STR(" \n ")).n, 0);
    assert_int_equal(fr_str_trim((fr_str){NULL, 0}).n, 0);
    assert_int_equal(fr_str_trim(FR_STR("\xC2\xA0")).n, 2); /* only ASCII white space */
}

static void test_buffer(void **state)
{
    (void)state;
    fr_buf b = {0};
    fr_buf_clear(&b);
    assert_ok(fr_buf_add(&b, NULL, 0, &err));
    assert_string_equal(b.p, "");
    for (int i = 0; i < 1000; i++) {
        assert_ok(fr_buf_putc(&b, (char)('a' + i % 26), &err));
        assert_ok(fr_buf_printf(&b, &err, "%d,", i));
        assert_ok(fr_buf_puts(&b, "xy", &err));
        assert_ok(fr_buf_add(&b, "\0z", 2, &err));
        assert_true(b.n < b.cap && b.p[b.n] == 0);
    }
    assert_int_equal(b.n, 1000 * 5 + 10 * 2 + 90 * 3 + 900 * 4);
    assert_memory_equal(b.p, "a0,xy\0zb1,xy\0z", 14);
    char *p = b.p;
    fr_buf_clear(&b);
    assert_true(b.p == p && b.n == 0 && p[0] == 0);
    assert_int_equal(fr_buf_reserve(&b, SIZE_MAX, &err), FR_ENOMEM);
    assert_int_equal(fr_buf_reserve(&b, PTRDIFF_MAX, &err), FR_ENOMEM);
    fr_buf_free(&b);
    assert_true(b.p == NULL && b.n == 0 && b.cap == 0);
    fr_buf_free(&b);
}

/* Whatever fails, the buffer keeps its text. */
static void test_buffer_out_of_memory(void **state)
{
    (void)state;
    fr_buf b = {0};
    char large[200];
    memset(large, 'l', sizeof large - 1);
    large[sizeof large - 1] = 0;
    fr_mem_fail_at(1, 0);
    assert_int_equal(fr_buf_putc(&b, 'x', &err), FR_ENOMEM);
    assert_null(b.p);
    assert_ok(fr_buf_puts(&b, "text", &err));
    fr_mem_fail_at(1, 1);
    assert_int_equal(fr_buf_puts(&b, large, &err), FR_ENOMEM);
    assert_int_equal(err.code, FR_ENOMEM);
    assert_int_equal(fr_buf_printf(&b, &err, "%s", large), FR_ENOMEM);
    assert_int_equal(fr_buf_reserve(&b, 1000, NULL), FR_ENOMEM);
    fr_mem_fail_at(0, 0);
    assert_string_equal(b.p, "text");
    assert_int_equal(b.n, 4);
    fr_buf_free(&b);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_TEXT).bytes_now, 0);
}

/* ---- UTF-8 --------------------------------------------------------------------------------- */

static bool is_surrogate(uint32_t cp)
{
    return cp >= 0xD800 && cp <= 0xDFFF;
}

/* All code points: the encoder against iconv, which also knows nothing of ours, and back. */
static void test_every_code_point(void **state)
{
    (void)state;
    enum { N = 0x110000 - 0x800 };
    char *utf8 = malloc(4 * N), *end = utf8;
    uint32_t *cps = malloc(4 * N), *back = malloc(4 * N), n = 0;
    assert_true(utf8 && cps && back);
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        if (is_surrogate(cp))
            continue;
        int len = fr_utf8_encode(cp, end);
        uint32_t got;
        assert_int_equal(fr_utf8_decode(end, (size_t)len, &got), len);
        assert_int_equal(got, cp);
        for (int cut = 1; cut < len; cut++) {
            assert_int_equal(fr_utf8_decode(end, (size_t)cut, &got), 1);
            assert_int_equal(got, UINT32_MAX);
            assert_int_equal(fr_utf8_incomplete_tail(end, (size_t)cut), cut);
        }
        assert_int_equal(fr_utf8_incomplete_tail(end, (size_t)len), 0);
        end += len;
        cps[n++] = cp;
    }
    assert_int_equal(n, N);
    iconv_t conv = iconv_open("UTF-32LE", "UTF-8");
    assert_true(conv != (iconv_t)-1);
    char *in = utf8, *out = (char *)back;
    size_t in_left = (size_t)(end - utf8), out_left = 4 * N;
    assert_int_equal(iconv(conv, &in, &in_left, &out, &out_left), 0);
    assert_true(in_left == 0 && out_left == 0);
    iconv_close(conv);
    assert_memory_equal(cps, back, 4 * N);
    free(utf8);
    free(cps);
    free(back);
}

enum { COMPLETE = 1, PREFIX = 2 };

/* What a string of 1, 2 or 3 bytes (big endian number) is: a character, the begin of one, or
 * neither. Made from the encodings of all code points. */
static uint8_t *kinds[4];

static void make_kinds(void)
{
    for (int n = 1; n <= 3; n++)
        assert_non_null(kinds[n] = calloc((size_t)1 << 8 * n, 1));
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char s[4];
        int len = is_surrogate(cp) ? 0 : fr_utf8_encode(cp, s);
        uint32_t number = 0;
        for (int n = 1; n <= len && n <= 3; n++) {
            number = number << 8 | (unsigned char)s[n - 1];
            kinds[n][number] = n == len ? COMPLETE : PREFIX;
        }
    }
}

static int want_length(uint32_t number)
{
    for (int n = 1; n <= 3; n++)
        if (kinds[n][number >> (24 - 8 * n)] == COMPLETE)
            return n;
    return 0;
}

static int want_tail(uint32_t number)
{
    for (int n = 3; n >= 1; n--)
        if (kinds[n][number & (0xFFFFFFu >> (24 - 8 * n))] == PREFIX)
            return n;
    return 0;
}

static void test_every_three_bytes(void **state)
{
    (void)state;
    make_kinds();
    for (uint32_t number = 0; number < 1u << 24; number++) {
        char s[3] = {(char)(number >> 16), (char)(number >> 8), (char)number};
        uint32_t cp;
        int len = fr_utf8_decode(s, 3, &cp), want = want_length(number);
        bool right = want ? len == want && cp != UINT32_MAX : len == 1 && cp == UINT32_MAX;
        if (!right || (int)fr_utf8_incomplete_tail(s, 3) != want_tail(number))
            fail_msg("%06x: length %d (expected %d), tail %d (expected %d)", number, len, want,
                     (int)fr_utf8_incomplete_tail(s, 3), want_tail(number));
    }
    for (uint32_t number = 0; number < 1u << 16; number++) {
        char s[2] = {(char)(number >> 8), (char)number};
        size_t want = kinds[2][number] == PREFIX ? 2 : kinds[1][number & 255] == PREFIX ? 1 : 0;
        assert_int_equal(fr_utf8_incomplete_tail(s, 2), want);
    }
    for (int n = 1; n <= 3; n++)
        free(kinds[n]);
    assert_int_equal(fr_utf8_incomplete_tail("", 0), 0);
}

/* Four bytes: all leads and second bytes with followers at their limits. */
static void test_four_bytes(void **state)
{
    (void)state;
    static const unsigned char last[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    for (int lead = 0xF0; lead <= 0xFF; lead++)
        for (int second = 0; second < 256; second++)
            for (int i = 0; i < 36; i++) {
                char s[4] = {(char)lead, (char)second, (char)last[i / 6], (char)last[i % 6]};
                uint32_t cp, want = (uint32_t)(lead & 7) << 18 | (uint32_t)(second & 63) << 12 |
                                    (uint32_t)(last[i / 6] & 63) << 6 | (last[i % 6] & 63);
                bool valid = lead <= 0xF4 && (second & 0xC0) == 0x80 && want >= 0x10000 &&
                             want <= 0x10FFFF && (last[i / 6] & 0xC0) == 0x80 &&
                             (last[i % 6] & 0xC0) == 0x80;
                assert_int_equal(fr_utf8_decode(s, 4, &cp), valid ? 4 : 1);
                assert_int_equal(cp, valid ? want : UINT32_MAX);
            }
}

/* ---- nearest names --------------------------------------------------------------------------- */

/* The definition, by recursion. */
static int ref_distance(fr_str a, fr_str b)
{
    if (a.n == 0 || b.n == 0)
        return (int)(a.n + b.n);
    char x = a.p[a.n - 1], y = b.p[b.n - 1];
    fr_str a1 = {a.p, a.n - 1}, b1 = {b.p, b.n - 1};
    int best = ref_distance(a1, b1) + (x != y), d;
    if ((d = ref_distance(a1, b) + 1) < best)
        best = d;
    if ((d = ref_distance(a, b1) + 1) < best)
        best = d;
    if (a.n > 1 && b.n > 1 && x == b.p[b.n - 2] && a.p[a.n - 2] == y) {
        d = ref_distance((fr_str){a.p, a.n - 2}, (fr_str){b.p, b.n - 2}) + 1;
        if (d < best)
            best = d;
    }
    return best;
}

static void test_edit_distance(void **state)
{
    (void)state;
    uint64_t seed = 21;
    for (int i = 0; i < 3000; i++) {
        char s[2][6];
        for (int k = 0; k < 12; k++)
            s[k / 6][k % 6] = (char)('a' + test_rand(&seed) % 3);
        fr_str a = {s[0], test_rand(&seed) % 7}, b = {s[1], test_rand(&seed) % 7};
        int want = ref_distance(a, b);
        assert_int_equal(fr_edit_distance(a, b, 100), want);
        assert_int_equal(fr_edit_distance(b, a, 100), want);
        assert_int_equal(fr_edit_distance(a, b, 2), want < 2 ? want : 2);
    }
    assert_int_equal(fr_edit_distance(FR_STR("kitten"), FR_STR("sitting"), 9), 3);
    assert_int_equal(fr_edit_distance(FR_STR("top_k"), FR_STR("tpo_k"), 9), 1);
    assert_int_equal(fr_edit_distance((fr_str){NULL, 0}, FR_STR("abc"), 9), 3);
    char huge[1000];
    memset(huge, 'a', sizeof huge);
    fr_str h = {huge, sizeof huge};
    assert_int_equal(fr_edit_distance(h, FR_STR("a"), 5), 5);
    assert_int_equal(fr_edit_distance(FR_STR("a"), h, 5), 5);
    h.n = 128;
    assert_int_equal(fr_edit_distance(h, (fr_str){huge, 127}, 5), 1);
}

static void test_nearest_name(void **state)
{
    (void)state;
    static const char *const names[] = {"top_k", "top_p", "min_p", "temperature"};
    assert_string_equal(fr_nearest_name(FR_STR("temprature"), names, 4, 3), "temperature");
    assert_string_equal(fr_nearest_name(FR_STR("top_x"), names, 4, 3), "top_k"); /* the first */
    assert_string_equal(fr_nearest_name(FR_STR("mn_p"), names, 4, 1), "min_p");
    assert_string_equal(fr_nearest_name(FR_STR("top_p"), names, 4, 0), "top_p");
    assert_null(fr_nearest_name(FR_STR("n_gpu_layers"), names, 4, 3));
    assert_null(fr_nearest_name(FR_STR("top"), names, 4, 1));
    assert_null(fr_nearest_name(FR_STR("top"), names, 0, 3));
}

static void test_format_bytes(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 B"},
                 {1023, "1023 B"},
                 {1024, "1.0 KiB"},
                 {1536, "1.5 KiB"},
                 {13841203, "13.2 MiB"},
                 {404425080013, "376.650 GiB"},
                 {(uint64_t)1 << 40, "1.000 TiB"},
                 {UINT64_MAX, "16.000 EiB"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[32];
        assert_string_equal(fr_format_bytes(cases[i].bytes, out), cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_buffer),
        cmocka_unit_test(test_buffer_out_of_memory),
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_every_three_bytes),
        cmocka_unit_test(test_four_bytes),
        cmocka_unit_test(test_edit_distance),
        cmocka_unit_test(test_nearest_name),
        cmocka_unit_test(test_format_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
