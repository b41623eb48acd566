/* The subcommands of ferry-gguf when memory runs out: an error, nothing kept, no file. */
#include "testing.h"

#include <unistd.h>

#include "../tools/gguf/commands.h"
#include "base/mem.h"
#include "support/models.h"

enum { MAX_WORDS = 12 };

typedef int command(int argc, char **argv);

/* Runs the command with the n-th allocation failing, for ever greater n, until it succeeds. */
static uint64_t walk(command *run, const char *const *words, const char *out)
{
    size_t before = fr_mem_total().bytes_now;
    uint64_t n = 0;
    for (int status = 1; status != 0;) {
        char *argv[MAX_WORDS];
        int argc = 0;
        for (; words[argc]; argc++)
            argv[argc] = (char *)(uintptr_t)words[argc];
        assert_true(argc < MAX_WORDS && n < 100000);
        n += 1 + n / 30;
        fr_mem_fail_at(n, 0);
        status = run(argc, argv);
        fr_mem_fail_at(0, 0);
        assert_in_range(status, 0, 2); /* 2: while the command line was read */
        assert_int_equal(access(out, F_OK) == 0, status == 0);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    return n;
}

static void synth_survives(void **state)
{
    (void)state;
    const char *out = model_temp_path("synth.gguf");
    const char *words[] = {
        "synth", "--shape", "tiny-2-layers", "--type", "q8_0_r8", "--vocab-from", MODEL_KJV, "-o",
        out,     NULL};
    assert_true(walk(gguf_synth, words, out) > 100);
}

static void raw_commands_survive(void **state)
{
    (void)state;
    const char *f32 = TEST_FILE("data/quants/quantized/q8_0.f32");
    const char *q = model_temp_path("raw.q"), *il = model_temp_path("raw.il");
    const char *back = model_temp_path("raw.f32"), *im = model_temp_path("raw.im");
    FILE *f = fopen(im, "wb");
    const float one = 1;
    assert_non_null(f);
    for (int i = 0; i < 512; i++)
        fwrite(&one, sizeof one, 1, f);
    assert_int_equal(fclose(f), 0);
    const char *encode[] = {"encode", "q8_0_r8", "16", "512", f32, il, "--imatrix", im, NULL};
    const char *repack[] = {"repack", "q8_0_r8", "16", "512", il, q, NULL};
    const char *decode[] = {"decode", "q8_0", "16", "512", q, back, NULL};
    assert_true(walk(gguf_encode, encode, il) > 4);
    assert_true(walk(gguf_repack, repack, q) > 2);
    assert_true(walk(gguf_decode, decode, back) > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synth_survives),
        cmocka_unit_test(raw_commands_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
