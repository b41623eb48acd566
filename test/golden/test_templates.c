/* Templates of real models, and small ones for every corner of the language, against renderings by
 * Jinja2. */
#include "testing.h"

#include <dirent.h>

#include <jansson.h>

#include "base/file.h"
#include "gguf/gguf.h"
#include "token/template.h"

static fr_err err;
static const fr_template_env env = {.now = 1767323045}; /* 2026-01-02 03:04:05 */

static json_t *load(const char *name)
{
    char path[512];
    json_error_t e;
    snprintf(path, sizeof path, "%s/data/templates/%s", FERRY_TEST_DIR, name);
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (!json)
        fail_msg("%s:%d: %s", path, e.line, e.text);
    return json;
}

static fr_template *parse_file(const char *model)
{
    char path[512];
    fr_buf source = {0};
    fr_template *t;
    snprintf(path, sizeof path, "%s/data/templates/%s.jinja", FERRY_TEST_DIR, model);
    assert_ok(fr_file_slurp(path, 1 << 20, &source, &err));
    assert_ok(fr_template_parse(source.p, source.n, &t, &err));
    fr_buf_free(&source);
    return t;
}

/* Renders with the tokens added to the context. */
static fr_status render(const fr_template *t, const json_t *input, fr_buf *out)
{
    json_t *context = json_copy((json_t *)(uintptr_t)input);
    json_object_set_new(context, "bos_token", json_string("<BOS>"));
    json_object_set_new(context, "eos_token", json_string("<EOS>"));
    fr_status st = fr_template_render(t, context, &env, out, &err);
    json_decref(context);
    return st;
}

static void expect_output(const fr_template *t, const json_t *input, const json_t *want,
                          const char *model, const char *name)
{
    fr_buf out = {0};
    if (render(t, input, &out) != FR_OK)
        fail_msg("%s, %s: %s", model, name, err.text);
    if (out.n != json_string_length(want) || memcmp(out.p, json_string_value(want), out.n) != 0)
        fail_msg("%s, %s:\nfound    %s\nexpected %s", model, name, out.p, json_string_value(want));
    fr_buf_free(&out);
}

/* The text of raise_exception is part of the error; every error says where. */
static void expect_error(const fr_template *t, const json_t *input, const char *want,
                         const char *model, const char *name)
{
    static const char raised[] = "TemplateError: ";
    fr_buf out = {0};
    if (render(t, input, &out) == FR_OK)
        fail_msg("%s, %s: found %s, expected the error '%s'", model, name, out.p, want);
    assert_int_equal(out.n, 0);
    assert_int_equal(strncmp(err.text, "template line ", 14), 0);
    if (strncmp(want, raised, strlen(raised)) == 0)
        assert_non_null(strstr(err.text, want + strlen(raised)));
    fr_buf_free(&out);
}

static int run_cases(const char *model, const json_t *extensions)
{
    char name[300];
    const char *key;
    json_t *item;
    int n = 0;
    snprintf(name, sizeof name, "%s.json", model);
    json_t *cases = load(name);
    fr_template *t = parse_file(model);
    json_object_foreach(cases, key, item)
    {
        const json_t *input = json_object_get(item, "input");
        const json_t *want = json_object_get(item, "output");
        if (!want)
            want = json_object_get(json_object_get(extensions, model), key);
        if (want)
            expect_output(t, input, want, model, key);
        else
            expect_error(t, input, json_string_value(json_object_get(item, "error")), model, key);
        n++;
    }
    fr_template_free(t);
    json_decref(cases);
    return n;
}

static void test_models(void **state)
{
    (void)state;
    json_t *extensions = load("extensions.json");
    DIR *dir = opendir(TEST_FILE("data/templates"));
    int n_models = 0, n_cases = 0;
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));) {
        char *dot = strstr(d->d_name, ".jinja");
        if (!dot)
            continue;
        *dot = 0;
        n_cases += run_cases(d->d_name, extensions);
        n_models++;
    }
    closedir(dir);
    json_decref(extensions);
    assert_int_equal(n_models, 15);
    assert_int_equal(n_cases, 150);
}

static void test_more_contexts(void **state)
{
    (void)state;
    json_t *all = load("more.json"), *contexts = json_object_get(all, "contexts");
    const char *model, *name;
    json_t *renderings, *item;
    json_object_foreach(json_object_get(all, "renderings"), model, renderings)
    {
        fr_template *t = parse_file(model);
        json_object_foreach(renderings, name, item)
        {
            const json_t *input = json_object_get(contexts, name);
            const json_t *want = json_object_get(item, "output");
            assert_non_null(input);
            if (want)
                expect_output(t, input, want, model, name);
            else
                expect_error(t, input, json_string_value(json_object_get(item, "error")), model,
                             name);
        }
        fr_template_free(t);
    }
    json_decref(all);
}

/* "" when the template renders as expected, else what it did. */
static void check_small(const json_t *source, const json_t *context, const json_t *want,
                        fr_buf *bad)
{
    fr_template *t = NULL;
    fr_buf out = {0};
    fr_status st =
        fr_template_parse(json_string_value(source), json_string_length(source), &t, &err);
    if (st == FR_OK)
        st = fr_template_render(t, context, &env, &out, &err);
    bool is_string = json_is_string(want);
    bool same = st == FR_OK && is_string && out.n == json_string_length(want) &&
                (out.n == 0 || memcmp(out.p, json_string_value(want), out.n) == 0);
    if (!same && (st == FR_OK || is_string))
        fr_buf_printf(bad, NULL, "\n%s\n   found    %s\n   expected %s", json_string_value(source),
                      st == FR_OK ? out.p : err.text,
                      is_string ? json_string_value(want) : "an error");
    if (st != FR_OK && strncmp(err.text, "template line ", 14) != 0)
        fr_buf_printf(bad, NULL, "\n%s: no position: %s", json_string_value(source), err.text);
    fr_template_free(t);
    fr_buf_free(&out);
}

static void test_semantics(void **state)
{
    (void)state;
    json_t *all = load("semantics.json"), *cases = json_object_get(all, "cases"), *item;
    fr_buf bad = {0};
    size_t i;
    json_array_foreach(cases, i, item)
    {
        check_small(json_array_get(item, 0), json_object_get(all, "context"),
                    json_array_get(item, 1), &bad);
    }
    assert_true(i > 900);
    if (bad.n)
        fail_msg("%s", bad.p);
    json_decref(all);
}

/* The template inside the demo's model. */
static void test_demo_model(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_str source;
    fr_template *t;
    json_error_t e;
    assert_ok(fr_gguf_open(SOURCE_FILE("configs/demo/kjv-moe-q8_0.gguf"), FR_GGUF_HEADERS_ONLY, &g,
                           &err));
    assert_ok(fr_gguf_get_str(g, "tokenizer.chat_template", &source, &err));
    assert_ok(fr_template_parse(source.p, source.n, &t, &err));
    fr_gguf_close(g);
    json_t *input = json_loads("{\"messages\": [{\"role\": \"system\", \"content\": \"S\"},"
                               "{\"role\": \"user\", \"content\": \"U\"},"
                               "{\"role\": \"assistant\", \"content\": \"A\"},"
                               "{\"role\": \"user\", \"content\": \"V\"}],"
                               "\"add_generation_prompt\": true}",
                               0, &e);
    json_t *want = json_string("<BOS>S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>V"
                               "<｜Assistant｜>");
    expect_output(t, input, want, "kjv-moe", "multi");
    json_decref(input);
    json_decref(want);
    fr_template_free(t);
}

static int nothing_is_left(void **state)
{
    (void)state;
    return fr_mem_total().bytes_now != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_more_contexts),
        cmocka_unit_test(test_semantics),
        cmocka_unit_test(test_demo_model),
    };
    return cmocka_run_group_tests(tests, NULL, nothing_is_left);
}
