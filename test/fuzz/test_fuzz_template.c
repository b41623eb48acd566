/* Damaged templates and contexts: any text or error, but no crash, no leak, and errors that say
 * where. */
#include "testing.h"

#include <dirent.h>

#include <jansson.h>

#include "base/file.h"
#include "token/template.h"

#define MAX_SOURCES 64
#define ROUNDS      6000

static fr_err err;
static fr_buf sources[MAX_SOURCES]; /* templates of models, then the corpus */
static size_t n_sources;
static json_t *contexts[32];
static size_t n_contexts;
static uint64_t seed = 0x7e3a11ed;
static size_t n_rendered, n_failed;

static size_t below(size_t n)
{
    return n ? (size_t)(test_rand(&seed) % n) : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The templates of a folder in the order of their names, so that a seed means the same everywhere.
 */
static void load_folder(const char *path)
{
    char names[MAX_SOURCES][256], file[768];
    size_t n = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));)
        if (strstr(d->d_name, ".jinja") && n < MAX_SOURCES)
            snprintf(names[n++], sizeof *names, "%s", d->d_name);
    closedir(dir);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        assert_true(n_sources < MAX_SOURCES);
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        assert_ok(fr_file_slurp(file, 1 << 20, &sources[n_sources++], &err));
    }
}

static int start(void **state)
{
    (void)state;
    json_error_t e;
    const char *name;
    json_t *all, *context;
    load_folder(TEST_FILE("data/templates"));
    load_folder(TEST_FILE("data/templates/corpus"));
    all = json_load_file(TEST_FILE("data/templates/more.json"), 0, &e);
    assert_non_null(all);
    json_object_foreach(json_object_get(all, "contexts"), name, context)
    {
        contexts[n_contexts++] = json_incref(context);
    }
    json_decref(all);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_sources; i++)
        fr_buf_free(&sources[i]);
    for (size_t i = 0; i < n_contexts; i++)
        json_decref(contexts[i]);
    return fr_mem_total().bytes_now != 0;
}

static void check_error(fr_status st, const fr_buf *source)
{
    bool placed = strncmp(err.text, "template line ", 14) == 0;
    if (err.code != st || !placed || strlen(err.text) < 30)
        fail_msg("%.*s\n%s: %s", (int)source->n, source->p, fr_status_name(st), err.text);
    n_failed++;
}

static void run(const fr_buf *source, const json_t *context)
{
    fr_template *t = NULL;
    fr_buf out = {0};
    size_t before = fr_mem_total().bytes_now;
    memset(&err, 0, sizeof err);
    fr_status st = fr_template_parse(source->p, source->n, &t, &err);
    assert_int_equal(t == NULL, st != FR_OK);
    if (st == FR_OK)
        st = fr_template_render(t, context, NULL, &out, &err);
    if (st != FR_OK)
        check_error(st, source);
    else
        n_rendered++;
    assert_true(st == FR_OK || out.n == 0);
    fr_template_free(t);
    fr_buf_free(&out);
    assert_int_equal(fr_mem_total().bytes_now, before);
}

static void replace(fr_buf *b, size_t at, size_t n, const char *with, size_t n_with)
{
    fr_buf copy = {0};
    assert_ok(fr_buf_add(&copy, b->p, at, &err));
    assert_ok(fr_buf_add(&copy, with, n_with, &err));
    assert_ok(fr_buf_add(&copy, b->p + at + n, b->n - at - n, &err));
    fr_buf_free(b);
    *b = copy;
}

/* A position just before "{%", "{{", "|", "(" and the like, so that more of the damage parses. */
static size_t word_at(const fr_buf *b)
{
    size_t at = below(b->n + 1);
    while (at < b->n && !strchr("{|([.%}", b->p[at]))
        at++;
    return at;
}

static void damage(fr_buf *b)
{
    static const char *const words[] = {
        "{% if m %}",
        "{% endif %}",
        "{% for x in messages %}",
        "{% endfor %}",
        "{{ loop.nextitem }}",
        "{% endmacro %}",
        "|tojson",
        "|list",
        "|first",
        "|map('upper')",
        "|join",
        "[::-1]",
        "[1:]",
        ".items()",
        ".x",
        "|length",
        " ~ none",
        " + 1",
        " is mapping",
        "{%- set x = messages -%}",
        "{% set x %}",
        "{% endset %}",
        "(",
        ")",
        "[",
        "]",
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "-",
        "'",
        "\\",
        "|sort",
        "|reverse",
        " if x",
        " else ",
        "*2",
        "|selectattr('role')",
        "|string",
        "{% break %}",
        "{{ caller() }}",
        "|groupby('role')",
        "|batch(2)",
        "|default(x)",
        "|from_json",
        "\xc3",
        "\xe6\x97\xa5",
        ".split('a')",
        "%s",
        "|format(1)",
        " not ",
        " in messages",
        "**2",
        "//0",
        "0",
        "999999999999",
        ",",
    };
    const fr_buf *other;
    const char *word = words[below(sizeof words / sizeof *words)];
    size_t at = below(8) ? word_at(b) : below(b->n + 1),
           n = below(b->n - at < 40 ? b->n - at + 1 : 40);
    switch (below(5)) {
    case 0:
        replace(b, at, n, "", 0);
        break;
    case 1:
    case 2:
        replace(b, at, 0, word, strlen(word));
        break;
    case 3:
        replace(b, at, n, word, strlen(word));
        break;
    default:
        other = &sources[below(n_sources)];
        n = below(other->n + 1);
        replace(b, at, 0, other->p + n, below(other->n - n < 300 ? other->n - n + 1 : 300));
        break;
    }
}

/* A copy of a JSON value with some of its parts exchanged for others. */
static json_t *damaged_json(const json_t *v)
{
    const char *key;
    json_t *item, *copy;
    size_t i;
    switch (below(40)) {
    case 0:
        return json_null();
    case 1:
        return json_integer((json_int_t)test_rand(&seed));
    case 2:
        return json_real(test_rand_f(&seed) * 1e20);
    case 3:
        return json_pack("[s, {s:[]}]", "\xf0\x9f\x98\x80", "role");
    case 4:
        return json_string("<think>\n</think>{}[]%s");
    default:
        break;
    }
    if (json_is_object(v)) {
        copy = json_object();
        json_object_foreach((json_t *)(uintptr_t)v, key, item)
        {
            json_object_set_new(copy, key, damaged_json(item));
        }
        return copy;
    }
    if (json_is_array(v)) {
        copy = json_array();
        json_array_foreach(v, i, item)
        {
            json_array_append_new(copy, damaged_json(item));
        }
        return copy;
    }
    return json_deep_copy(v);
}

static void test_corpus(void **state)
{
    (void)state;
    assert_true(n_sources > 30);
    for (size_t i = 0; i < n_sources; i++)
        for (size_t k = 0; k < n_contexts; k++)
            run(&sources[i], contexts[k]);
    assert_true(n_rendered > 50);
}

static void test_damaged_contexts(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS / 2; round++) {
        json_t *context = damaged_json(contexts[below(n_contexts)]);
        run(&sources[below(15)], context);
        json_decref(context);
    }
    assert_true(n_rendered > ROUNDS / 20);
}

static void test_damaged_templates(void **state)
{
    (void)state;
    n_rendered = n_failed = 0;
    for (int round = 0; round < ROUNDS; round++) {
        fr_buf b = {0};
        const fr_buf *from = &sources[below(n_sources)];
        assert_ok(fr_buf_add(&b, from->p, from->n, &err));
        for (size_t k = 1 + below(4); k > 0; k--)
            damage(&b);
        run(&b, contexts[below(n_contexts)]);
        fr_buf_free(&b);
    }
    assert_true(n_rendered > ROUNDS / 50); /* the damage leaves some whole */
    assert_true(n_failed > ROUNDS / 2);
}

/* Every beginning of a template, and every end. */
static void test_cut_templates(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_sources; i++)
        for (size_t at = 0, step = 1 + sources[i].n / 60; at < sources[i].n; at += step) {
            fr_buf b = {0};
            assert_ok(fr_buf_add(&b, sources[i].p, at, &err));
            run(&b, contexts[0]);
            fr_buf_clear(&b);
            assert_ok(fr_buf_add(&b, sources[i].p + at, sources[i].n - at, &err));
            run(&b, contexts[0]);
            fr_buf_free(&b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_damaged_contexts),
        cmocka_unit_test(test_damaged_templates),
        cmocka_unit_test(test_cut_templates),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
