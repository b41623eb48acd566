/* The template interpreter corner by corner: white space, scopes, operators, text, errors and where
 * they stand, bounds, memory failures, threads. Expectations are those of Jinja2 with trim_blocks
 * and lstrip_blocks; test/golden/test_templates.c has many more of them. */
#include "testing.h"

#include <pthread.h>

#include "base/str.h"
#include "token/template.h"

static fr_err err;
static const fr_template_env env = {.now = 1767323045}; /* 2026-01-02 03:04:05 */

/* One context for all small templates. */
static const char context_text[] =
    "{\"n\": 5, \"f\": 2.5, \"s\": \"Hello W\u00f6rld\", \"none_\": null, \"yes\": true,"
    " \"l\": [3, 1, 2], \"ll\": [[1, 2], [3, 4]], \"d\": {\"a\": 1, \"items\": \"I\", \"k\": []},"
    " \"m\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"tool\", \"content\": "
    "\"ok\"}],"
    " \"u\": \"\u65e5\u672c\u8a9e\"}";

typedef struct {
    const char *source, *want;
} expectation;

static fr_status render_text(const char *source, fr_buf *out)
{
    fr_template *t = NULL;
    json_t *context = json_loads(context_text, 0, NULL);
    assert_non_null(context);
    err.text[0] = 0;
    fr_status st = fr_template_parse(source, strlen(source), &t, &err);
    if (st == FR_OK)
        st = fr_template_render(t, context, &env, out, &err);
    fr_template_free(t);
    json_decref(context);
    return st;
}

static void expect(const expectation *e, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        fr_buf out = {0};
        if (render_text(e[i].source, &out) != FR_OK)
            fail_msg("%s: %s", e[i].source, err.text);
        if (strcmp(out.p ? out.p : "", e[i].want) != 0)
            fail_msg("%s\nfound    '%s'\nexpected '%s'", e[i].source, out.p, e[i].want);
        fr_buf_free(&out);
    }
}

#define EXPECT(table) expect(table, sizeof table / sizeof *table)

/* ---- text between tags
 * ---------------------------------------------------------------------------- */

static void test_white_space(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"a\n{% if n %}\nb\n{% endif %}\nc\n", "a\nb\nc"},
        {"a\n  {% if n %}  \n  b\n  {% endif %}\nc\n\n", "a\n  \n  b\nc\n"},
        {"a {%- if n -%} b {%- endif -%} c", "abc"},
        {"a\n  {%+ if n +%}\nb{% endif %}", "a\n  \nb"},
        {"x  {% set a = 1 %}\ny", "x  y"},
        {"  {{ 1 }}  \n  {{- 2 -}}  \n 3", "  123"},
        {"{# c #}\nx\n  {# c #}  \ny {#- c -#} z", "x\n  \nyz"},
        {"x\n{#+ c +#}\ny", "x\n\ny"},
        {"{% raw %}{{ x }}{% if %}{% endraw %}", "{{ x }}{% if %}"},
        {"{% raw -%}  {{ a }}  {%- endraw %}\nb", "{{ a }}b"},
        {"a\r\nb\rc\n", "a\nb\nc"},
        {"\n\n", "\n"},
        {"{{ {'a': {'b': 1}}}}", "{'a': {'b': 1}}"},
        {"{{ '}}' }}{{ \"%}\" }}", "}}%}"},
        {"{{-1}}{{- 1 -}} a", "11a"},
        {"\xe3\x80\x80{%- set a = 1 -%}\xc2\xa0x", "x"}, /* U+3000, U+00A0 */
        {"", ""},
    };
    EXPECT(e);
}

/* ---- scopes
 * --------------------------------------------------------------------------------------- */

static void test_scopes(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}",
         "4,2,3,1"},
        {"{% if yes %}{% set x = 2 %}{% endif %}{{ x }}", "2"},
        {"{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ "
         "ns.x }}",
         "7"},
        {"{% for i in l %}{% if loop.first %}{% set y = 'S' %}{% endif %}{{ y }};{% endfor %}",
         "S;;;"},
        {"{% for n in l %}{% endfor %}{{ n }}", "5"},
        {"{% macro m() %}{% set q = n %}{{ q }}{% endmacro %}{{ m() }}{{ q }}", "5"},
        {"{% set a = 1 %}{% macro m() %}{{ a }}{% endmacro %}{% set a = 2 %}{{ m() }}", "2"},
        {"{% macro m() %}{{ a }}{% endmacro %}{% for a in l %}{{ m() }}{% endfor %}", ""},
        {"{% for a in l %}{% macro m() %}{{ a }}{% endmacro %}{{ m() }}{% endfor %}", "312"},
        {"{% set ns = namespace() %}{% for a in l %}{% macro m() %}{{ a }}{% endmacro %}"
         "{% set ns.m = m %}{% endfor %}{{ ns.m() }}",
         "2"}, /* a macro outlives its scope */
        {"{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}", "155"},
        {"{% set x %}{% set y = 2 %}{{ y }}{% endset %}{{ x }}{{ y }}", "2"},
        {"{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}", "1"},
        {"{% set m = m[1:] %}{{ m|length }}", "1"},
        {"{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
         "321"},
        {"{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(b=2, a=3) }}{{ f() }}",
         "1132"},
        {"{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, c=3) }}",
         "1(2,){'c': 3}"},
        {"{% macro w(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) w(7) %}{{ y }}{{ n }}{% "
         "endcall %}",
         "<75>"},
    };
    EXPECT(e);
}

static void test_loops(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}"
         "{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
         "1032TrueFalse3 2121FalseFalse3 3210FalseTrue3 "},
        {"{% for i in l %}{{ loop.previtem }}<{{ i }}<{{ loop.nextitem }} {% endfor %}",
         "<3<1 3<1<2 1<2< "},
        {"{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}",
         "1/2:3 2/2:2 "},
        {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
        {"{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "32"},
        {"{% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}", "3"},
        {"{% for i in l %}{% set x %}{% break %}{% endset %}{% endfor %}end", "end"},
        {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;items=I;k=[];"},
        {"{% for k in d %}{{ k }}{% endfor %}", "aitemsk"},
        {"{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
        {"{% for c in u %}{{ c }}.{% endfor %}", "日.本.語."},
        {"{% for i in nothing %}x{% endfor %}", ""},
        {"{% for i in [1, [2, [3]]] recursive %}{% if i is iterable %}({{ loop(i) }})"
         "{% else %}{{ i }}:{{ loop.depth }}{% endif %}{% endfor %}",
         "1:1(2:2(3:3))"},
        {"{% for i in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{% endfor %}",
         "aTruebTrueaTrue"},
        {"{% set g = l|select %}{{ g|first }}{{ g|list }}{{ g|list }}", "3[1, 2][]"},
        {"{% set x = namespace(n=0) %}{% for i in [1, 2, 3] if x.n < 2 %}{% set x.n = x.n + 1 %}"
         "{{ i }}{% endfor %}",
         "12"}, /* the filter runs when its item is due */
    };
    EXPECT(e);
}

/* ---- expressions
 * ---------------------------------------------------------------------------------- */

static void test_operators(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{{ 1 + 2 * 3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ~ 3 * 2 }}", "7 64 4 26"},
        {"{{ -10 // 3 }} {{ -10 % 3 }} {{ 10 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}",
         "-4 2 -2 3.0 0.5"},
        {"{{ 4 / 2 }} {{ 2 ** -1 }} {{ true + 1 }} {{ - true }}", "2.0 0.5 2 -1"},
        {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 == true }}", "True False True"},
        {"{{ not n is string }} {{ n is not defined }} {{ not nothing }}", "True False True"},
        {"{{ 0 or '' or 'x' }} {{ n and 'y' }} {{ 1 if false }}|{{ 1 if false else 2 }}", "x y |2"},
        {"{{ 'a' if 0 else 'b' if 0 else 'c' }} {{ n|string ~ 'x'|upper }}", "c 5X"},
        {"{{ 'b' in 'abc' }} {{ 4 not in l }} {{ 'a' in d }} {{ none in [none] }}",
         "True True True True"},
        {"{{ [1, 2] == (1, 2) }} {{ {'a': 1} == {'a': 1.0} }} {{ [1, 2] < [1, 3] }}",
         "False True True"},
        {"{{ 'ab' * 2 }} {{ [1] * 3 }} {{ [1] + [2] }} {{ (1,) + (2,) }}",
         "abab [1, 1, 1] [1, 2] (1, 2)"},
        {"{{ 9223372036854775807 }} {{ 0x1F + 0o17 + 0b11 }} {{ 1_000 }}",
         "9223372036854775807 49 1000"},
        {"{{ 'a' 'b' \"c\" }} {{ 'it\\'s \\x41\\u00e9\\101\\q' }}", "abc it's AéA\\q"},
        {"{{ none }} {{ [none, true, 1.5, 'x', nothing] }} {{ () }} {{ (1,) }} {{ {} }}",
         "None [None, True, 1.5, 'x', Undefined] () (1,) {}"},
        {"{{ nothing }}|{{ d.nothing }}|{{ l[9] }}|{{ nothing ~ 'a' }}|{{ nothing == nix }}",
         "|||a|True"},
        {"{{ d.a }} {{ d['a'] }} {{ d['items'] }} {{ ll.1.0 }} {{ m[0].role }} {{ m[-1]['role'] }}",
         "1 1 I 3 user tool"},
    };
    EXPECT(e);
}

static void test_slices(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{{ s[0] }}{{ s[-1] }}{{ s[7] }}|{{ s[99] }}", "Hdö|"},
        {"{{ s[1:3] }} {{ s[:-6] }} {{ s[-3:] }} {{ s[7:9] }}", "el Hello rld ör"},
        {"{{ s[::-1] }} {{ s[::2] }} {{ s[5:1:-1] }} {{ s[100:] }}|", "dlröW olleH HloWrd  oll |"},
        {"{{ u[::-1] }} {{ u[1:] }} {{ u[-2] }} {{ u|length }}", "語本日 本語 本 3"},
        {"{{ l[1:] }} {{ l[::-1] }} {{ l[:-9] }} {{ l[-9:2] }} {{ (1, 2, 3)[1:] }}",
         "[1, 2] [2, 1, 3] [] [3, 1] (2, 3)"},
        {"{{ range(9)[2:8:3]|list }} {{ m[::-1][0].content }}", "[2, 5] ok"},
    };
    EXPECT(e);
}

static void test_floats(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{{ 1.0 }} {{ 0.1 }} {{ 0.1 + 0.2 }} {{ 1/3 }}",
         "1.0 0.1 0.30000000000000004 0.3333333333333333"},
        {"{{ 1e15 }} {{ 1e16 }} {{ 123456789012345678.0 }}",
         "1000000000000000.0 1e+16 1.2345678901234568e+17"},
        {"{{ 0.0001 }} {{ 0.00001 }} {{ 1e100 }} {{ -0.0 }} {{ 5e-324 }}",
         "0.0001 1e-05 1e+100 -0.0 5e-324"},
        {"{{ 1e308 * 10 }} {{ -1e308 * 10 }} {{ 'nan'|float }}", "inf -inf nan"},
        {"{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(0, 'ceil') }} {{ "
         "7|round }}",
         "2.0 4.0 2.67 3.0 7"},
        {"{{ '42.7'|int }} {{ ' 1_0 '|int }} {{ 'x'|int(3) }} {{ 'ff'|int(0, 16) }} {{ -1.9|int }}",
         "42 10 3 255 -1"},
    };
    EXPECT(e);
}

static void test_json(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{{ {'b': [1, 2.0, none, true], 'a': 'é<>&\\'\"'}|tojson }}",
         "{\"b\": [1, 2.0, null, true], \"a\": \"é<>&'\\\"\"}"},
        {"{{ '\\\\ \\n\\t\\r\\f\\b\\x01\\x7f/'|tojson }}", "\"\\\\ \\n\\t\\r\\f\\b\\u0001\x7f/\""},
        {"{{ 'é\\U0001F600'|tojson(ensure_ascii=true) }}", "\"\\u00e9\\ud83d\\ude00\""},
        {"{{ {'a': [1, {}], 'b': []}|tojson(indent=2) }}",
         "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"},
        {"{{ {'b': 1, 'a': [1]}|tojson(separators=(',', ':'), sort_keys=true) }}",
         "{\"a\":[1],\"b\":1}"},
        {"{{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }}",
         "{\"1\": 4, \"null\": 3, \"1.5\": 5}"}, /* 1 and true are one key */
        {"{{ [1e999, -1e999, 'nan'|float, 1e16]|tojson }}", "[Infinity, -Infinity, NaN, 1e+16]"},
        {"{{ '{\"a\": [1, 2.5, \"\\u00e9\"]}'|from_json }}", "{'a': [1, 2.5, 'é']}"},
        {"{{ m|map(attribute='role')|tojson }}", "[\"user\", \"tool\"]"},
    };
    EXPECT(e);
}

static void test_text(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{{ 'straße ﬁ'|upper }} {{ 'ΑΣ ΣΑΣ İ'|lower }} {{ 'éa'.capitalize() }}",
         "STRASSE FI ας σας i̇ Éa"},
        {"{{ \"it's a-b\"|title }} {{ \"it's a-b\".title() }}", "It's A-B It'S A-B"},
        {"{{ ['a\\'b', 'a\"b\\'c', '\\n\\x01\\u200b'] }}",
         "[\"a'b\", 'a\"b\\'c', '\\n\\x01\\u200b']"},
        {"{{ ' a  b '.split() }} {{ 'a,b,'.split(',') }} {{ ' a b  c '.split(none, 1) }}",
         "['a', 'b'] ['a', 'b', ''] ['a', 'b  c ']"},
        {"{{ 'a</t>b</t>c'.split('</t>')[-1] }} {{ 'a b c'.rsplit(' ', 1) }}", "c ['a b', 'c']"},
        {"[{{ '\\u3000 x '.strip() }}{{ 'xyx'.lstrip('x') }}{{ 'xyx'|trim('x') }}]", "[xyxy]"},
        {"{{ 'aaa'.replace('a', 'b', 2) }} {{ 'ab'|replace('', '-') }}", "bba -a-b-"},
        {"{{ s.find('W') }} {{ s.find('d') }} {{ s.rfind('l') }} {{ s.count('l') }}", "6 10 9 3"},
        {"{{ s.startswith('Hell') }} {{ s.endswith(('x', 'ld')) }} {{ s.isalpha() }}",
         "True True False"},
        {"{{ '%s-%05.1f-%x-%%' % ('a', 3.14159, 255) }} {{ '%(a)s' % d }}", "a-003.1-ff-% 1"},
        {"{{ '{0} {1!r:>5} {x[a]:03d}|{2:^5}|{3:,.2f}'.format('p', 'q', 'r', 1234.5, x=d) }}",
         "p   'q' 001|  r  |1,234.50"},
        {"{{ 'a\\nb\\n\\nc'|indent(2) }}|{{ 'a\\n'|indent(2, true, true) }}|",
         "a\n  b\n\n  c|  a\n  |"},
        {"{{ l|join('-') }} {{ m|join(',', attribute='role') }} {{ '<&\"\\'>'|e }}",
         "3-1-2 user,tool &lt;&amp;&#34;&#39;&gt;"},
        {"{{ strftime_now('%Y-%m-%d %H:%M:%S') }}", "2026-01-02 03:04:05"},
    };
    EXPECT(e);
}

static void test_sequences(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{{ l|sort }}{{ l|sort(reverse=true) }}{{ ['b', 'A']|sort }}",
         "[1, 2, 3][3, 2, 1]['A', 'b']"},
        {"{{ m|selectattr('role', 'equalto', 'user')|list|length }}{{ "
         "m|rejectattr('x')|list|length }}",
         "12"},
        {"{{ [1, 2, 3, 4]|select('even')|list }}{{ l|reject('==', 1)|list }}", "[2, 4][3, 2]"},
        {"{{ ['a', 'b']|map('upper')|join }}{{ ll|map(attribute=0)|list }}", "AB[1, 3]"},
        {"{{ 'T' if l|select('string') else 'F' }}{{ (l|select('string')|list)|length }}", "T0"},
        {"{{ [1, 1.0, true, 2]|unique|list }}{{ l|sum }}{{ l|min }}{{ l|max }}", "[1, 2]613"},
        {"{{ {'b': 1, 'A': 2}|dictsort }}{{ d.get('zz', 7) }}{{ d.get('zz') }}",
         "[('A', 2), ('b', 1)]7None"},
        {"{{ m|groupby('role')|map(attribute='grouper')|list }}", "['tool', 'user']"},
        {"{{ [1, 2, 3]|batch(2, 0)|list }}{{ [1, 2, 3]|slice(2)|list }}",
         "[[1, 2], [3, 0]][[1, 2], [3]]"},
        {"{% set q = [] %}{% for i in l %}{% set _ = q.append(i) %}{% endfor %}{{ q.pop(0) }}{{ q "
         "}}",
         "3[1, 2]"},
        {"{{ d.items() }}{{ d.keys()|list }}{{ range(3) }}",
         "dict_items([('a', 1), ('items', 'I'), ('k', [])])['a', 'items', 'k']range(0, 3)"},
        {"{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba"},
        {"{% set j = joiner('|') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}", "3|1|2"},
        {"{{ dict(a=1, **{'b': 2}) }}{{ namespace(a=1).a }}", "{'a': 1, 'b': 2}1"},
        {"{{ none|selectattr('x')|list }}{{ nothing|map('upper')|list }}", "[][]"},
    };
    EXPECT(e);
}

/* A dictionary with many keys changes to an index; order and removal stay right. */
static void test_large_dictionaries(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{% set d = {} %}{% for i in range(500) %}{% set _ = d.update({i: i, i ~ '': 0}) %}{% "
         "endfor %}"
         "{% for i in range(0, 500, 2) %}{% set _ = d.pop(i) %}{% endfor %}"
         "{{ d|length }} {{ d[7] }} {{ d.get(8) }} {{ d['8'] }} {{ (d|list)[:3] }}",
         "750 7 None 0 ['0', 1, '1']"},
    };
    EXPECT(e);
}

/* ---- errors
 * --------------------------------------------------------------------------------------- */

static void test_errors_say_where(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        fr_status code;
        const char *text; /* the whole text, or its beginning */
    } e[] = {
        {"{{ 1", FR_EFORMAT,
         "template line 1, column 5: found the end of the template, expected '}}'"},
        {"a\n  {% fro x in l %}", FR_EUNSUPPORTED,
         "template line 2, column 6: unknown tag 'fro', did you mean 'for'?"},
        {"{% include 'x' %}", FR_EUNSUPPORTED,
         "template line 1, column 4: the tag 'include' is not supported"},
        {"{% import 'x' as y %}", FR_EUNSUPPORTED, "template line 1, column 4: the tag 'import'"},
        {"{% if n %}", FR_EFORMAT,
         "template line 1, column 11: found the end of the template, expected 'endif'"},
        {"{% for i in l %}{% endif %}", FR_EUNSUPPORTED,
         "template line 1, column 20: unknown tag 'endif'"},
        {"{% break %}", FR_EFORMAT, "template line 1, column 4: found 'break', expected a loop"},
        {"é {{ 'x }}", FR_EFORMAT, "template line 1, column 6: a string without end"},
        {"{{ (1] }}", FR_EFORMAT, "template line 1, column 6: unexpected ']', expected ')'"},
        {"{{ 1 § 2 }}", FR_EFORMAT, "template line 1, column 6: unexpected character '§'"},
        {"{{ '\\ud800' }}", FR_EFORMAT,
         "template line 1, column 5: an escape that names no character"},
        {"{{ 99999999999999999999 }}", FR_EFORMAT, "template line 1, column 4: an integer beyond"},
        {"{# x", FR_EFORMAT, "template line 1, column 1: a comment without end"},
        {"{% raw %}x", FR_EFORMAT, "template line 1, column 1: a raw block without end"},
        {"a\xff", FR_EFORMAT, "template line 1, column 2: found a byte that is not UTF-8"},
        {"{% macro m(a=1, b) %}{% endmacro %}", FR_EFORMAT,
         "template line 1, column 17: a parameter"},
        {"{{ n|lenght }}", FR_EUNSUPPORTED,
         "template line 1, column 6: no filter named 'lenght', did you mean 'length'?"},
        {"{{ n is strng }}", FR_EUNSUPPORTED,
         "template line 1, column 9: no test named 'strng', did you mean 'string'?"},
        {"x\n\n{{ nothing.x }}", FR_EINVAL, "template line 3, column 11: 'nothing' is undefined"},
        {"{{ d.x.y }}", FR_EINVAL, "template line 1, column 7: 'dict object' has no attribute 'x'"},
        {"{{ l[7].y }}", FR_EINVAL, "template line 1, column 8: list object has no element 7"},
        {"{{ s.nope() }}", FR_EINVAL,
         "template line 1, column 10: 'str object' has no attribute 'nope'"},
        {"{{ 'a' + n }}", FR_EINVAL,
         "template line 1, column 8: can only concatenate str (not \"int\") to str"},
        {"{{ none_ + 1 }}", FR_EINVAL,
         "template line 1, column 10: unsupported operand type(s) for +"},
        {"{{ 1 < 'a' }}", FR_EINVAL, "template line 1, column 6: '<' not supported between"},
        {"{{ 1 / 0 }}", FR_EINVAL, "template line 1, column 6: division by zero"},
        {"{{ 1 % 0 }}", FR_EINVAL, "template line 1, column 6: integer division"},
        {"{{ 9223372036854775807 + 1 }}", FR_ERANGE, "template line 1, column 24: the result"},
        {"{% for a, b in l %}{% endfor %}", FR_EINVAL,
         "template line 1, column 8: 'int' object is not"},
        {"{% for x in n %}{% endfor %}", FR_EINVAL,
         "template line 1, column 13: 'int' object is not"},
        {"{{ {[]: 1} }}", FR_EINVAL, "template line 1"},
        {"{% set n.x = 1 %}", FR_EINVAL, "template line 1, column 8: 'n' is no namespace"},
        {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", FR_EINVAL,
         "template line 1, column 35: macro 'm' takes not more than 1 argument(s)"},
        {"{{ l|join(x=1) }}", FR_EINVAL,
         "template line 1, column 6: join() takes no argument named 'x'"},
        {"{{ s|replace('a') }}", FR_EINVAL,
         "template line 1, column 6: replace() needs an argument 'new'"},
        {"a\n{{ raise_exception('No ' ~ n) }}", FR_EINVAL, "template line 2, column 19: No 5"},
    };
    for (size_t i = 0; i < sizeof e / sizeof *e; i++) {
        fr_buf out = {0};
        fr_status st = render_text(e[i].source, &out);
        if (st != e[i].code || strncmp(err.text, e[i].text, strlen(e[i].text)) != 0)
            fail_msg("%s\nfound    %s: %s\nexpected %s: %s", e[i].source, fr_status_name(st),
                     err.text, fr_status_name(e[i].code), e[i].text);
        assert_int_equal(out.n, 0);
        fr_buf_free(&out);
    }
}

/* An unknown filter matters only where it is reached. */
static void test_unreached_errors(void **state)
{
    (void)state;
    static const expectation e[] = {
        {"{% if false %}{{ n|nope }}{{ nothing.x.y }}{% endif %}ok", "ok"},
        {"{{ 'ok' if yes else n|nope }}{{ '' and (n is nope) }}", "ok"},
    };
    EXPECT(e);
}

/* ---- bounds
 * --------------------------------------------------------------------------------------- */

/* `unit` n times, between `head` and `tail`. */
static fr_status render_repeated(const char *head, const char *unit, size_t n, const char *tail)
{
    fr_buf source = {0}, out = {0};
    assert_ok(fr_buf_puts(&source, head, &err));
    for (size_t i = 0; i < n; i++)
        assert_ok(fr_buf_puts(&source, unit, &err));
    assert_ok(fr_buf_puts(&source, tail, &err));
    fr_status st = render_text(source.p, &out);
    fr_buf_free(&source);
    fr_buf_free(&out);
    return st;
}

static void test_deep_templates(void **state)
{
    (void)state;
    static const struct {
        const char *head, *unit, *tail;
    } deep[] = {
        {"{{ ", "(", "1 }}"},       {"{{ ", "[", "1 }}"},         {"{{ ", "{1:", "1 }}"},
        {"{{ ", "-", "1 }}"},       {"{{ ", "not ", "1 }}"},      {"{{ 1", "+1", " }}"},
        {"{{ 1", "|string", " }}"}, {"{{ d", ".d", " }}"},        {"{{ l", "[l", " }}"},
        {"", "{% if n %}", ""},     {"", "{% for i in l %}", ""}, {"{{ n", "()", " }}"},
        {"{{ 1", " if 1", " }}"},   {"{{ 1", " and 1", " }}"},    {"{{ f", "(f", " }}"},
    };
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        fr_status st = render_repeated(deep[i].head, deep[i].unit, 20000, deep[i].tail);
        if (st != FR_ERANGE && st != FR_EFORMAT)
            fail_msg("%s...: %s %s", deep[i].unit, fr_status_name(st), err.text);
        assert_non_null(strstr(err.text, "nested too deeply"));
    }
    /* what is long but not deep is fine */
    assert_ok(render_repeated("{{ 1", " ~ 1", 20000, " }}"));
    assert_ok(render_repeated("{{ [", "1, ", 20000, "] }}"));
    assert_ok(render_repeated("{% if 0 %}", "{% elif 0 %}", 20000, "{% endif %}"));
    assert_ok(render_repeated("{{ 1", " + 1", 400, " }}"));
    assert_int_equal(render_repeated("", "0123456789abcdef", 1 << 17, ""), FR_ERANGE);
}

static void test_endless_templates(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        fr_status code;
    } e[] = {
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", FR_ERANGE},
        {"{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", FR_ERANGE},
        {"{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
         FR_ERANGE},
        {"{% set a = [] %}{% set _ = a.append(a) %}{{ a }}", FR_ERANGE},
        {"{% set a = [] %}{% set _ = a.append(a) %}{{ a|tojson }}", FR_ERANGE},
        {"{% set a = [] %}{% set _ = a.append(a) %}{% set b = [a] %}{{ a == [b] }}", FR_OK},
        {"{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
         "{% endfor %}",
         FR_ENOMEM},
        {"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
         "{% endfor %}",
         FR_ENOMEM},
        {"{{ 'a' * 10000000000 }}", FR_ERANGE},
        {"{{ 'a'.center(10000000000) }}", FR_ERANGE},
        {"{{ '%1000000000d' % 1 }}", FR_ERANGE},
        {"{{ '{:1000000000}'.format(1) }}", FR_ERANGE},
        {"{{ range(1000000000) }}", FR_ERANGE},
        {"{{ 'x'|batch(100000000000, 'y')|list|length }}", FR_ENOMEM},
        {"{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
         FR_ERANGE},
        {"{% set s = 'x' * 60000 %}{% for a in range(99999) %}{{ s.strip(s) }}{% endfor %}",
         FR_ERANGE},
        {"{{ ('a' * 10000000).rfind('a' * 5000000 ~ 'b') }}", FR_OK},
        {"{{ strftime_now('%' * 300) }}", FR_ERANGE},
        {"{{ ('[' * 3000)|from_json }}", FR_EINVAL},
    };
    for (size_t i = 0; i < sizeof e / sizeof *e; i++) {
        fr_buf out = {0};
        fr_status st = render_text(e[i].source, &out);
        if (st != e[i].code || (st != FR_OK && strncmp(err.text, "template line 1", 15) != 0))
            fail_msg("%s: found %s %s", e[i].source, fr_status_name(st), err.text);
        fr_buf_free(&out);
    }
}

/* A prompt that grows piece by piece in a namespace costs memory in proportion to its length. */
static void test_growing_text_is_linear(void **state)
{
    (void)state;
    fr_buf out = {0};
    fr_mem_reset_peaks();
    assert_ok(
        render_text("{% set ns = namespace(x='') %}{% for i in range(20000) %}"
                    "{% set ns.x = ns.x + 'a piece of text ' + (i|string) ~ '\n' %}{% endfor %}"
                    "{{ ns.x }}",
                    &out));
    assert_int_equal(out.n, 20000 * 17 + 88890);
    assert_true(fr_mem_total().bytes_peak < 32 << 20);
    fr_buf_free(&out);
}

/* ---- use
 * ------------------------------------------------------------------------------------------ */

static void test_output_is_appended(void **state)
{
    (void)state;
    fr_template *t;
    fr_buf out = {0};
    json_t *context = json_pack("{s:[i,i]}", "l", 1, 2);
    static const char source[] = "{{ l }}{% set _ = l.append(3) %}{{ l.pop(0) }}{{ l }}";
    assert_ok(fr_template_parse(source, strlen(source), &t, &err));
    assert_ok(fr_buf_puts(&out, "> ", &err));
    assert_ok(fr_template_render(t, context, &env, &out, &err));
    assert_string_equal(out.p, "> [1, 2]1[2, 3]");
    assert_int_equal(json_array_size(json_object_get(context, "l")),
                     2); /* the caller's is untouched */
    assert_ok(fr_template_render(t, context, NULL, &out, NULL));
    assert_int_equal(fr_template_render(t, NULL, NULL, &out, NULL), FR_EINVAL);
    assert_string_equal(out.p, "> [1, 2]1[2, 3][1, 2]1[2, 3]");
    fr_template_free(t);
    fr_template_free(NULL);
    json_decref(context);
    fr_buf_free(&out);
}

static const char busy[] =
    "{%- macro show(x, y=[1, 2]) %}<{{ x }}{{ y }}{{ kwargs }}{{ caller() if caller }}>{% endmacro "
    "-%}\n"
    "{%- set ns = namespace(text='', n=0) %}\n"
    "{%- for x in m if x.role recursive %}\n"
    "  {%- set ns.text = ns.text + x.content ~ loop.nextitem ~ loop.length %}\n"
    "  {%- set ns.n = ns.n + 1 %}\n"
    "  {{- show(x.role, z=loop.index) }}{{ loop([]) }}\n"
    "{%- endfor %}\n"
    "{%- call(a) show('c') %}{{ a }}{% endcall %}\n"
    "{%- set big %}{% filter upper|replace('A', 'b') %}{{ ns.text }}{% endfilter %}{% endset %}\n"
    "{{ big }}{{ m|tojson(indent=1, sort_keys=true) }}{{ '{\"a\": [1, \"x\"]}'|from_json }}\n"
    "{{ l|sort|join(',') }}{{ m|groupby('role')|list }}{{ m|map(attribute='role')|unique|list }}\n"
    "{{ s.split()|map('upper')|list }}{{ s[::-1] }}{{ u[1:] }}{{ s|title|indent(2, true) }}\n"
    "{{ '%s %5.2f' % (s, f) }}{{ '{:>9}{x}'.format(n, x=d) }}{{ dict(a=1, **d) }}{{ d.items() }}\n"
    "{{ s.partition(' ') }}{{ s.rfind('Hello W\u00f6rl') }}{{ s.encode is defined }}{{ s.upper }}\n"
    "{% set q = {} %}{% for i in range(40) %}{% set _ = q.update({i: i}) %}{% endfor %}{{ q|length "
    "}}\n"
    "{{ cycler(1, 2).next() }}{{ joiner()() }}{{ strftime_now('%Y') }}{{ l|batch(2)|list }}\n"
    "{% with a = 1, b = l %}{{ a }}{{ b|sum }}{% endwith %}{% raw %}{{ x }}{% endraw %}{{ 'e\\x41' "
    "}}";

/* Every allocation of a parse and a render fails once: a status, a text, nothing left behind. */
static void test_memory_failures(void **state)
{
    (void)state;
    json_t *context = json_loads(context_text, 0, NULL);
    for (int sticky = 0; sticky < 2; sticky++)
        for (uint64_t n = 1, done = 0; !done; n++) {
            fr_template *t = NULL;
            fr_buf out = {0};
            size_t before = fr_mem_total().bytes_now;
            fr_mem_fail_at(n, sticky);
            fr_status st = fr_template_parse(busy, strlen(busy), &t, &err);
            if (st == FR_OK)
                st = fr_template_render(t, context, &env, &out, &err);
            fr_mem_fail_at(0, 0);
            fr_template_free(t);
            done = st == FR_OK;
            if (!done) {
                assert_int_equal(st, FR_ENOMEM);
                assert_int_equal(err.code, FR_ENOMEM);
                assert_true(err.text[0] != 0);
                assert_int_equal(out.n, 0);
            } else {
                assert_true(n > 10);
            }
            fr_buf_free(&out);
            assert_int_equal(fr_mem_total().bytes_now, before);
        }
    json_decref(context);
}

static void *render_often(void *user)
{
    const fr_template *t = user;
    fr_err local;
    char *first = NULL;
    json_t *context = json_loads(context_text, 0, NULL);
    for (int i = 0; i < 50; i++) {
        fr_buf out = {0};
        if (fr_template_render(t, context, &env, &out, &local) != FR_OK ||
            (first && strcmp(first, out.p)))
            i = 1000; /* leaves with a result that the caller does not expect */
        free(first);
        first = strdup(out.p ? out.p : "");
        fr_buf_free(&out);
    }
    json_decref(context);
    return first;
}

static void test_threads_share_a_template(void **state)
{
    (void)state;
    fr_template *t;
    fr_buf want = {0};
    pthread_t threads[4];
    assert_ok(fr_template_parse(busy, strlen(busy), &t, &err));
    assert_ok(render_text(busy, &want));
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *text;
        assert_int_equal(pthread_join(threads[i], &text), 0);
        assert_string_equal(text, want.p);
        free(text);
    }
    fr_buf_free(&want);
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
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_loops),
        cmocka_unit_test(test_operators),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_large_dictionaries),
        cmocka_unit_test(test_errors_say_where),
        cmocka_unit_test(test_unreached_errors),
        cmocka_unit_test(test_deep_templates),
        cmocka_unit_test(test_endless_templates),
        cmocka_unit_test(test_growing_text_is_linear),
        cmocka_unit_test(test_output_is_appended),
        cmocka_unit_test(test_memory_failures),
        cmocka_unit_test(test_threads_share_a_template),
    };
    return cmocka_run_group_tests(tests, NULL, nothing_is_left);
}
