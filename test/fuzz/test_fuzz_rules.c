/* Rules from anybody: expressions that explode, damaged lines, and rules that were meant for
 * something. Any answer, but it comes soon, nothing leaks, and advice works. */
#include "testing.h"

#include "planner/rules_internal.h"

#define DAMAGED_ROUNDS 20000
#define SOUP_ROUNDS    20000
#define TYPO_ROUNDS    1500
#define NAMES          400

static fr_err err;
static uint64_t seed = 0x0705;
static char texts[NAMES][64];
static const char *names[NAMES];
static int64_t n_experts[NAMES];
static size_t n_names;

static size_t below(size_t n)
{
    return (size_t)(test_rand(&seed) % n);
}

static void add_name(const char *text, int64_t experts)
{
    assert_true(n_names < NAMES);
    snprintf(texts[n_names], sizeof *texts, "%s", text);
    names[n_names] = texts[n_names];
    n_experts[n_names++] = experts;
}

/* A model of 24 layers, of which the first has no routed experts. */
static int start(void **state)
{
    (void)state;
    static const char *const parts[] = {"attn_norm", "attn_q_a",    "attn_kv_a_mqa",
                                        "attn_kv_b", "attn_output", "ffn_norm"};
    static const char *const experts[] = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps",
                                          "ffn_up_shexp"};
    char text[64];
    add_name("token_embd.weight", 1);
    add_name("output.weight", 1);
    for (int layer = 0; layer < 24; layer++) {
        for (int i = 0; i < 6; i++) {
            snprintf(text, sizeof text, "blk.%d.%s.weight", layer, parts[i]);
            add_name(text, 1);
        }
        for (int i = 0; i < 4; i++) {
            snprintf(text, sizeof text, "blk.%d.%.*s.weight", layer,
                     layer ? 20 : (int)(strrchr(experts[i], '_') - experts[i]), experts[i]);
            add_name(text, layer && i < 3 ? 64 : 1);
        }
    }
    /* Names that GGUF allows and no model has. */
    add_name("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1);
    add_name("blk.99999999999999999999.x", 3);
    add_name("blk.999999999.ffn_up_exps.weight", 3);
    add_name("blk..", 1);
    add_name("blk.7", 1);
    add_name("\xC3\xA9.\xE2\x82\xAC.weight", 2);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    return fr_mem_total().bytes_now != 0;
}

static fr_diagnostics check(const fr_rules *r)
{
    fr_diagnostics d = {0};
    fr_rules_check_args args = {names, n_experts, n_names, 2, 2, 0};
    assert_ok(fr_rules_check(r, &args, &d, &err));
    for (size_t i = 0; i < d.n; i++) {
        assert_true(d.items[i].rule >= -1 && d.items[i].rule < (int)fr_rules_count(r));
        assert_in_range(strlen(d.items[i].text), 10, 4000);
    }
    return d;
}

/* ---- expressions that explode
 * -------------------------------------------------------------------- */

/* Each ends with a result or with the match limit; the test's time limit catches what does not. */
static void explosions(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "(a+)+$b",
        "(a+)+b",
        "(a|a)*b",
        "(a|aa)+$x",
        "(\\w+\\.?)*[0-9]$",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        "(.*)*(.*)*(.*)*!",
        "(.*?,){11}P",
        "((a{0,30}){0,30}){0,30}b",
        "(x+x+)+y",
        "^(.*)(.*)(.*)(.*)(.*)(.*)(.*)\\7\\6\\5\\4\\3\\2\\1!$",
        "(?:(?:(?:(?:(?:a*)*)*)*)*)*b",
        "(?R)?a",
        "(?:a(?R)?)+b",
        "(?<=a)(?<=aa)((a*)*)*b",
        "(*NO_JIT)(a+)+b",
        "(*LIMIT_MATCH=4000000000)(a+)+b",
        "(?(DEFINE)(?<x>a+a+))((?&x)+)+b",
        "([ab_.]*[a-z_]*)*\\d{9}",
        "(a?){60}a{60}",
    };
    size_t n_limits = 0;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        char line[200];
        fr_rules *r;
        assert_ok(fr_rules_new(&r, &err));
        snprintf(line, sizeof line, "%s=CPU", patterns[i]);
        assert_ok(fr_rules_add_line(r, FR_RULE_FILE, line, "x.rules", (int)i + 1, &err));
        for (size_t k = 0; k < n_names; k++) {
            int number;
            fr_status st = fr_rules_match(r, names[k], 0, &number, &err);
            assert_true(st == FR_OK || st == FR_ERANGE);
            n_limits += st == FR_ERANGE;
            if (st == FR_ERANGE)
                assert_non_null(strstr(err.text, "x.rules:"));
        }
        fr_diagnostics d = check(r);
        fr_diagnostics_free(&d);
        fr_rules_free(r);
    }
    assert_in_range(n_limits, 5, 5000);
}

/* Expressions that are large once compiled are refused, not built. */
static void large_expressions(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "((((((((a{1,99}){1,99}){1,99}){1,99}){1,99}){1,99}){1,99}){1,99})=CPU",
        "[a-z]{65535}{65535}=CPU",
        "(abc){1,60000}=CPU",
    };
    fr_rules *r;
    fr_buf nested = {0};
    assert_ok(fr_rules_new(&r, &err));
    for (size_t i = 0; i < 3; i++) {
        fr_status st = fr_rules_add_line(r, FR_RULE_FILE, patterns[i], "x", 1, &err);
        assert_true(st == FR_OK || st == FR_EINVAL);
    }
    for (int i = 0; i < 3000; i++)
        assert_ok(fr_buf_putc(&nested, '(', &err));
    assert_ok(fr_buf_puts(&nested, "=CPU", &err));
    assert_int_equal(fr_rules_add_cli(r, nested.p, &err), FR_EINVAL);
    assert_in_range(fr_mem_total().bytes_now, 0, 4 << 20);
    fr_buf_free(&nested);
    fr_rules_free(r);
}

/* ---- damage
 * -------------------------------------------------------------------------------------- */

static const char *const seeds[] = {
    "blk\\.[0-4]\\.ffn_up_exps=CUDA0",
    "blk\\.(3|4|1[0-9])\\.ffn_(gate|up|down)_exps\\.weight$=CUDA1[0-31],layout=plain",
    "^token_embd|^output=CPU",
    "attn_kv_(a|b)=NUMA1",
    "exps=CPU",
    "  (?=x)blk\\.\\d{1,2}\\.=CUDA*  ",
};

static void random_line(fr_buf *out)
{
    static const char tokens[] = "\\.|*+?()[]{}^$-,=<>:!0123abfnpx_ \t\x80\xC3\x01";
    fr_buf_clear(out);
    assert_ok(fr_buf_puts(out, seeds[below(sizeof seeds / sizeof *seeds)], &err));
    for (size_t k = 1 + below(5); k > 0 && out->n > 1; k--) {
        size_t at = below(out->n);
        switch (below(3)) {
        case 0:
            out->p[at] = tokens[below(sizeof tokens - 1)];
            break;
        case 1:
            memmove(out->p + at, out->p + at + 1, out->n - at); /* with the 0 */
            out->n--;
            break;
        default:
            assert_ok(fr_buf_putc(out, ' ', &err));
            memmove(out->p + at + 1, out->p + at, out->n - 1 - at);
            out->p[at] = tokens[below(sizeof tokens - 1)];
        }
    }
}

/* Adds a text in one of the ways, and looks at what became of it. */
static fr_status add_any(fr_rules *r, const char *text)
{
    size_t n = fr_rules_count(r);
    fr_status st = below(2) ? fr_rules_add_cli(r, text, &err)
                            : fr_rules_add_line(r, FR_RULE_INI, text, "m.ini", 3, &err);
    assert_true(st == FR_OK || st == FR_EINVAL);
    if (st == FR_EINVAL)
        assert_true(strstr(err.text, ": found ") && strstr(err.text, "expected"));
    for (size_t i = n; i < fr_rules_count(r); i++) {
        const fr_rule *rule = fr_rules_at(r, i);
        assert_true(rule->regex[0] && rule->text[0]);
        assert_non_null(strstr(rule->text, rule->regex));
    }
    return st;
}

static void damaged_rules(void **state)
{
    (void)state;
    fr_buf text = {0};
    size_t n_ok = 0;
    for (int round = 0; round < DAMAGED_ROUNDS; round++) {
        fr_rules *r;
        assert_ok(fr_rules_new(&r, &err));
        for (size_t k = 1 + below(2); k > 0; k--) {
            random_line(&text);
            n_ok += add_any(r, text.p) == FR_OK;
        }
        if (below(6) == 0)
            assert_ok(fr_rules_add_cpu_moe(r, (int64_t)below(40) - 3, (int64_t)below(5), &err));
        if (round % 8 == 0) {
            fr_diagnostics d = check(r);
            fr_diagnostics_free(&d);
        }
        fr_rules_free(r);
    }
    fr_buf_free(&text);
    assert_in_range(n_ok, DAMAGED_ROUNDS / 10, DAMAGED_ROUNDS * 9 / 5); /* both ways are tried */
}

/* Expressions of random tokens: mostly wrong, some of them slow. */
static void token_soup(void **state)
{
    (void)state;
    static const char *const tokens[] = {
        "(", ")",     "(?:",   "*",     "+",     "?",   "|",   "a",  "[a-z]", "\\d", "\\w",
        ".", "{2,9}", "{3}",   "blk",   "\\.",   "^",   "$",   "[^", "]",     "(?=", "\\1",
        "_", "exps",  "(a+)+", "[0-9]", "(?<n>", "(?!", "ffn", "7",  "+?",    "{,3}"};
    fr_buf text = {0};
    size_t n_ok = 0;
    for (int round = 0; round < SOUP_ROUNDS; round++) {
        fr_rules *r;
        fr_buf_clear(&text);
        assert_ok(fr_rules_new(&r, &err));
        for (size_t k = 1 + below(14); k > 0; k--)
            assert_ok(fr_buf_puts(&text, tokens[below(sizeof tokens / sizeof *tokens)], &err));
        assert_ok(fr_buf_puts(&text, "=CUDA*", &err));
        fr_status st = fr_rules_add_line(r, FR_RULE_FILE, text.p, "x", 1, &err);
        assert_true(st == FR_OK || st == FR_EINVAL);
        if (st == FR_OK && n_ok++ % 4 == 0) {
            fr_diagnostics d = check(r);
            fr_diagnostics_free(&d);
        }
        fr_rules_free(r);
    }
    fr_buf_free(&text);
    assert_in_range(n_ok, SOUP_ROUNDS / 10, SOUP_ROUNDS);
}

/* ---- advice
 * -------------------------------------------------------------------------------------- */

static bool matches_something(const char *line)
{
    fr_rules *r;
    bool found = false;
    assert_ok(fr_rules_new(&r, &err));
    assert_ok(fr_rules_add_line(r, FR_RULE_FILE, line, "x", 1, &err));
    for (size_t i = 0; i < n_names && !found; i++) {
        int number;
        assert_ok(fr_rules_match(r, names[i], 0, &number, &err));
        found = number == 0;
    }
    fr_rules_free(r);
    return found;
}

/* Checks a rule that matches nothing: 1 when it is told a change, which works, else 0. */
static size_t advised(const char *line)
{
    fr_rules *r;
    assert_ok(fr_rules_new(&r, &err));
    assert_ok(fr_rules_add_line(r, FR_RULE_FILE, line, "x", 1, &err));
    fr_diagnostics d = check(r);
    assert_int_equal(d.items[0].severity, FR_ERROR);
    char *advice = strstr(d.items[0].text, "smallest change: `");
    if (advice) {
        advice = strchr(advice, '`') + 1;
        *strchr(advice, '`') = 0;
        if (!matches_something(advice))
            fail_msg("this does not help: %s", d.items[0].text);
    } else {
        assert_non_null(strstr(d.items[0].text, "the nearest names: "));
    }
    fr_diagnostics_free(&d);
    fr_rules_free(r);
    return advice != NULL;
}

/* Rules for a tensor of the model with a wrong letter or digit. */
static void typos(void **state)
{
    (void)state;
    size_t n_typos = 0, n_advised = 0;
    for (int round = 0; round < TYPO_ROUNDS; round++) {
        char line[100];
        snprintf(line, sizeof line, "%s=CPU", names[below(n_names - 6)]);
        size_t at = below(strlen(line) - 4);
        if (line[at] == '.' || line[at] == '_')
            continue;
        bool digit = line[at] >= '0' && line[at] <= '9';
        line[at] = (char)(digit ? '0' + below(10) : 'a' + below(26));
        if (matches_something(line))
            continue;
        n_typos++;
        n_advised += advised(line);
    }
    assert_in_range(n_typos, TYPO_ROUNDS / 2, TYPO_ROUNDS);
    assert_in_range(n_advised, n_typos * 9 / 10, n_typos);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(explosions),    cmocka_unit_test(large_expressions),
        cmocka_unit_test(damaged_rules), cmocka_unit_test(token_soup),
        cmocka_unit_test(typos),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
