/* The simulator must report every seeded bug (sim_bugs.cpp), and nothing in the right programs. In
 * the build that runs: plain, AddressSanitizer, or ThreadSanitizer's race mode. */
#include "testing.h"

#if defined(__SANITIZE_THREAD__)
enum { MODE = 2 };
#elif defined(__SANITIZE_ADDRESS__)
enum { MODE = 1 };
#else
enum { MODE = 0 };
#endif

/* What must be in the output in each mode; NULL: this mode cannot see it. */
typedef struct {
    const char *name, *settings;
    const char *expected[3];
} bug;

#define EVERYWHERE(text)                                                                           \
    {                                                                                              \
        text, text, text                                                                           \
    }
#define POISON "AddressSanitizer: use-after-poison"
#define RACE   "ThreadSanitizer: data race"

static const bug bugs[] = {
    {"divergent_barrier", "order=0", EVERYWHERE("divergent __syncthreads: thread 32 at ")},
    {"missing_lanes", "order=0",
     EVERYWHERE("deadlock, no thread can run:\n    16 threads (0..15)")},
    {"missing_lanes", "order=2", EVERYWHERE("in a collective of lanes ffffffff at ")},
    {"bad_mask", "order=0", EVERYWHERE("thread 1 is not in the mask 55555555")},
    {"different_collectives", "order=2", EVERYWHERE("different collectives of one warp")},
    {"shared_overrun", "order=0", {NULL, POISON, NULL}},
    {"dynamic_overrun", "order=0", {NULL, POISON, NULL}},
    {"global_overrun", "order=0", {"wrote 0 B beyond the end of an allocation", POISON, NULL}},
    {"misaligned_load", "order=0", {NULL, "misaligned address", NULL}},
    {"misaligned_copy", "order=0", EVERYWHERE("cp.async of 16 B")},
    {"missing_barrier", "order=0", {"wrong", "wrong", RACE}},
    {"missing_barrier", "order=2", {"wrong", "wrong", RACE}},
    {"missing_syncwarp", "order=1", {"wrong", "wrong", RACE}},
    {"shuffle_as_fence", "order=0", {NULL, NULL, RACE}},
    {"block_race", "order=0", {NULL, NULL, RACE}},
    {"uninitialised_shared", "order=0", {"wrong", "wrong", NULL}},
    {"uninitialised_global", "order=0", EVERYWHERE("wrong")},
    {"copy_without_wait", "order=0", {"wrong", "wrong", NULL}},
    {"big_static", "order=0", EVERYWHERE("65536 B of static shared memory (with a)")},
    {"big_dynamic", "order=0", EVERYWHERE("found 50000 B of dynamic shared memory")},
    {"big_block", "order=0", EVERYWHERE("cudaErrorInvalidConfiguration")},
    {"mma_ended_lane", "order=0", EVERYWHERE("lane 5 has ended")},
    {"freed_argument", "order=0", EVERYWHERE("argument 1 (byte 0) points to memory that is not")},
    {"pageable_argument", "order=0", EVERYWHERE("points to pageable host memory")},
    {"other_device_argument", "order=0", EVERYWHERE("points to memory of another device")},
    {"hidden_pointer", "order=0", EVERYWHERE("argument 1 (byte 8) points to memory of another")},
    {"default_stream", "order=0", EVERYWHERE("found no stream")},
    {"wrong_direction", "order=0", EVERYWHERE("cudaErrorInvalidMemcpyDirection")},
    {"long_copy", "order=0", EVERYWHERE("the source leaves its allocation")},
    {"missing_event_wait", "lazy=1", {"wrong", "wrong", RACE}},
    {"early_refill", "lazy=1", {"wrong", "wrong", RACE}},
    {"early_read", "lazy=1", {"wrong", "wrong", RACE}},
    {"early_read", "eager=1", {NULL, NULL, RACE}},
    {"call_in_host_function", "order=0", EVERYWHERE("in a host function: cudaErrorNotPermitted")},
    {"malloc_in_capture", "order=0", EVERYWHERE("malloc: cudaErrorStreamCaptureUnsupported")},
    {"unjoined_capture", "order=0", EVERYWHERE("end: cudaErrorStreamCaptureUnjoined")},
    {"over_budget", "order=0", EVERYWHERE("too much: cudaErrorMemoryAllocation")},
    {"lost_device", "order=0", EVERYWHERE("later: cudaErrorLaunchFailure")},
    {"host_touches", "order=0", {"device 0 memory touched by host code", NULL, NULL}},
};
enum { N_BUGS = sizeof bugs / sizeof bugs[0] };

static const char *const right[] = {"right_barrier", "right_syncwarp",   "right_copy",
                                    "right_blocks",  "right_divergence", "right_event",
                                    "right_refill",  "right_read",       "right_graph"};
enum { N_RIGHT = sizeof right / sizeof right[0] };

static void run(const char *name, const char *settings, char *out, size_t n)
{
    char command[512];
    snprintf(command, sizeof command,
             "FERRY_SIM=devices=2,mb=64 UBSAN_OPTIONS=halt_on_error=0 %s/sim_bugs %s %s 2>&1",
             FERRY_BIN_DIR, name, settings);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t got = fread(out, 1, n - 1, f);
    out[got] = 0;
    while (fgetc(f) != EOF)
        continue;
    pclose(f);
}

static void every_bug_is_reported(void **state)
{
    (void)state;
    static char out[1 << 16];
    int n_silent = 0;
    for (int i = 0; i < N_BUGS; i++) {
        const char *expected = bugs[i].expected[MODE];
        if (!expected)
            continue;
        run(bugs[i].name, bugs[i].settings, out, sizeof out);
        if (strstr(out, expected))
            continue;
        print_error("%s (%s): expected '%s', found:\n%s\n", bugs[i].name, bugs[i].settings,
                    expected, out);
        n_silent++;
    }
    assert_int_equal(n_silent, 0);
}

static void right_programs_pass(void **state)
{
    (void)state;
    static const char *const settings[] = {"order=0",        "order=1,eager=1", "order=2,seed=3",
                                           "order=2,lazy=1", "order=2,seed=9",  "timing=1"};
    static char out[1 << 16];
    int n_reports = 0;
    for (int i = 0; i < N_RIGHT; i++)
        for (int k = 0; k < 6; k++) {
            char want[64];
            run(right[i], settings[k], out, sizeof out);
            snprintf(want, sizeof want, "right\nend of %s\n", right[i]);
            if (strcmp(out, want) == 0)
                continue;
            print_error("%s (%s): expected no report, found:\n%s\n", right[i], settings[k], out);
            n_reports++;
        }
    assert_int_equal(n_reports, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bug_is_reported),
        cmocka_unit_test(right_programs_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
