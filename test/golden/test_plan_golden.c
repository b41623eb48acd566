/* The plans of three command lines that people use, printed by ferry-plan, against files that were
 * read and found right (test/data/plans). Where ferry-plan is meant to change its mind, run this
 * with FERRY_UPDATE_PLANS=1, read what git shows, and commit it.
 *
 * Speeds are predictions of the cost model: they are compared with room for rounding. */
#include "testing.h"

#include <jansson.h>
#include <math.h>

#include "base/file.h"

#define MACHINE "--config configs/3x3090-threadripper-ddr4.ini "
#define R1      "-m test/data/headers/deepseek-r1-0528-iq3_xxs.header.gguf "
#define R1_Q4   "-m test/data/headers/deepseek-r1-q4_k_r4.header.gguf "
#define R1_IQ4  "-m test/data/headers/deepseek-r1-iq4_k_r4.header.gguf "

/* The first of the three command lines behind the model, word for word. */
#define LONG_ONE                                                                                   \
    "-c 71680 -ctk q8_0 -mla 3 -fa -amb 256 -fmoe -rtr --temp 0.5 --top_p 0.95 --min_p 0.01 "      \
    "--n-gpu-layers 63 -ot \"blk\\.[0-4]\\.ffn_up_exps=CUDA0,blk\\.[0-4]\\.ffn_gate_exps=CUDA0,"   \
    "blk\\.[0-2]\\.ffn_down_exps=CUDA0\" -ot \"blk\\.1[0-2]\\.ffn_up_exps=CUDA1,blk\\.1[0-2]\\."   \
    "ffn_gate_exps=CUDA1\" -ot \"blk\\.1[3-4]\\.ffn_up_exps=CUDA2,blk\\.1[3-4]\\.ffn_gate_exps="   \
    "CUDA2\" --override-tensor exps=CPU --parallel 1 --threads 16 --threads-batch 16 --host "      \
    "0.0.0.0 --port 5002 --ubatch-size 7168 --batch-size 7168 --no-mmap "
#define SHORT_ONE                                                                                  \
    "-ctk q8_0 -mla 2 -fa 1 -amb 512 -fmoe 1 --n-gpu-layers 63 --override-tensor exps=CPU "        \
    "--threads 24 "
#define PLAIN_ONE                                                                                  \
    "--cache-type-k f16 --cache-type-v f16 --flash-attn on --ctx-size 16384 --parallel 1 "         \
    "--threads 13 --threads-batch 13 --batch-size 2048 --ubatch-size 512 --jinja --host 0.0.0.0 "  \
    "--port 8080 "

typedef struct {
    const char *name; /* of the file in test/data/plans */
    const char *args;
    int status;
} golden;

/* V3.2 is planned with R1's header, whose layers and experts are the same. */
static const golden goldens[] = {
    {"long-r1-iq3.txt", MACHINE R1 LONG_ONE, 0},
    {"long-r1-q4.txt", MACHINE R1_Q4 LONG_ONE, 3},
    {"long-r1-iq3-strict.txt", MACHINE R1 LONG_ONE "--strict-rules", 2},
    {"short-r1-iq3.txt", MACHINE R1 SHORT_ONE, 0},
    {"short-r1-iq4.txt", MACHINE R1_IQ4 SHORT_ONE, 3},
    {"plain-r1-iq3.txt", MACHINE R1 PLAIN_ONE, 0},
    {"plain-r1-iq3.ot", MACHINE R1 PLAIN_ONE "--emit-ot", 0},
    {"long-r1-iq3-explain.txt", MACHINE R1 LONG_ONE "--explain ^blk.3.ffn_.*exps", 0},
    {"long-r1-iq3.json", MACHINE R1 LONG_ONE "--json", 0},
};

/* Runs ferry-plan from the root of the sources; both of its outputs, warnings about other tools'
 * options left out. */
static int run(const char *args, fr_buf *out)
{
    fr_err err = {0};
    fr_buf command = {0};
    char line[4096];
    bool errors = strstr(args, "--json") == NULL && strstr(args, "--e") == NULL;
    assert_ok(fr_buf_printf(&command, &err, "cd '%s' && '%s/ferry-plan' --log-disable %s 2>%s",
                            FERRY_SOURCE_DIR, FERRY_BIN_DIR, args, errors ? "&1" : "/dev/null"));
    FILE *f = popen(command.p, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        assert_ok(fr_buf_puts(out, line, &err));
    fr_buf_free(&command);
    int status = pclose(f);
    return status < 0 ? status : status >> 8;
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

static bool close_to(double a, double b)
{
    return fabs(a - b) <= 0.1 + 1e-3 * fabs(a);
}

/* Lines that end in "DEPTH SPEED  bound by ..." may differ in the speed's last digit. */
static bool same_line(const char *a, const char *b)
{
    long long depth_a, depth_b;
    double speed_a, speed_b;
    char bound_a[64], bound_b[64];
    if (strcmp(a, b) == 0)
        return true;
    a += strspn(a, "abcdefghijklmnopqrstuvwxyz");
    b += strspn(b, "abcdefghijklmnopqrstuvwxyz");
    return sscanf(a, "%lld %lf %63[^\n]", &depth_a, &speed_a, bound_a) == 3 &&
           sscanf(b, "%lld %lf %63[^\n]", &depth_b, &speed_b, bound_b) == 3 && depth_a == depth_b &&
           close_to(speed_a, speed_b) && strcmp(bound_a, bound_b) == 0;
}

static void compare_text(const golden *g, char *expected, char *found)
{
    char *rest_e = expected, *rest_f = found;
    for (int n = 1; rest_e || rest_f; n++) {
        char *e = rest_e ? strsep(&rest_e, "\n") : NULL, *f = rest_f ? strsep(&rest_f, "\n") : NULL;
        if (!e || !f || !same_line(e, f))
            fail_msg("%s, line %d:\n  expected %s\n  found    %s\nferry-plan %s", g->name, n,
                     e ? e : "(nothing)", f ? f : "(nothing)", g->args);
    }
}

static bool same_json(const json_t *a, const json_t *b, char path[256])
{
    size_t n = strlen(path), i;
    const char *key;
    json_t *value;
    if (json_is_real(a) || json_is_real(b))
        return close_to(json_number_value(a), json_number_value(b));
    if (json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_array(a)) {
        if (json_array_size(a) != json_array_size(b))
            return false;
        json_array_foreach((json_t *)(uintptr_t)a, i, value)
        {
            snprintf(path + n, 256 - n, "[%zu]", i);
            if (!same_json(value, json_array_get(b, i), path))
                return false;
        }
    } else if (json_is_object(a)) {
        if (json_object_size(a) != json_object_size(b))
            return false;
        json_object_foreach((json_t *)(uintptr_t)a, key, value)
        {
            snprintf(path + n, 256 - n, ".%s", key);
            if (!json_object_get(b, key) || !same_json(value, json_object_get(b, key), path))
                return false;
        }
    } else if (!json_equal(a, b)) {
        return false;
    }
    path[n] = 0;
    return true;
}

static void compare_json(const golden *g, const char *expected, const char *found)
{
    json_error_t at;
    char path[256] = "";
    json_t *e = json_loads(expected, 0, &at), *f = json_loads(found, 0, &at);
    if (!e || !f)
        fail_msg("%s: line %d: %s", g->name, at.line, at.text);
    if (!same_json(e, f, path))
        fail_msg("%s: differs at %s", g->name, path);
    json_decref(e);
    json_decref(f);
}

static void test_golden(void **state)
{
    const golden *g = *state;
    fr_err err = {0};
    fr_buf found = {0}, expected = {0};
    char path[512];
    int status = run(g->args, &found);
    if (status != g->status)
        fail_msg("%s: status %d, expected %d\n%s", g->name, status, g->status, found.p);
    snprintf(path, sizeof path, "%s/data/plans/%s", FERRY_TEST_DIR, g->name);
    if (getenv("FERRY_UPDATE_PLANS")) {
        fr_out_file f;
        assert_ok(fr_file_create(path, &f, &err));
        assert_ok(fr_file_write(&f, found.p, found.n, &err));
        assert_ok(fr_file_commit(&f, &err));
    }
    assert_ok(fr_file_slurp(path, 1 << 24, &expected, &err));
    if (strstr(g->name, ".json"))
        compare_json(g, expected.p, found.p);
    else
        compare_text(g, expected.p, found.p);
    fr_buf_free(&found);
    fr_buf_free(&expected);
}

int main(void)
{
    enum { N = sizeof goldens / sizeof *goldens };
    struct CMUnitTest tests[N];
    for (int i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){.name = goldens[i].name,
                                       .test_func = test_golden,
                                       .initial_state = (void *)(uintptr_t)&goldens[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
