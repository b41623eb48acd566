/* The command line, the environment, the levels, and what is printed. */
#include <unistd.h>

#include "testing.h"

#include "base/file.h"
#include "base/log.h"
#include "opts/opts_internal.h"

static fr_err err;
static fr_options o;
static fr_buf logged; /* "level text\n" each */

static void to_buffer(void *user, fr_log_level level, const char *line)
{
    (void)user;
    fr_buf_printf(&logged, NULL, "%d %s\n", level, line);
}

static bool was_logged(const char *text)
{
    return logged.p && strstr(logged.p, text);
}

static size_t n_logged(void)
{
    size_t n = 0;
    for (const char *p = logged.p; p && *p; p++)
        n += *p == '\n';
    return n;
}

static int start(void **state)
{
    (void)state;
    clearenv();
    fr_log_set_sink(to_buffer, NULL);
    fr_buf_clear(&logged);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    fr_opts_free(&o);
    fr_buf_free(&logged);
    fr_log_set_sink(NULL, NULL);
    return fr_mem_total().bytes_now != 0;
}

static fr_status parse_args(fr_tool tool, int n, const char **args)
{
    fr_opts_free(&o);
    return fr_opts_parse(n, (char **)(uintptr_t)args, tool, &o, &err);
}

#define PARSE(tool, ...)                                                                           \
    parse_args(tool, (int)(sizeof((const char *[]){"ferry", __VA_ARGS__}) / sizeof(char *)),       \
               (const char *[]){"ferry", __VA_ARGS__})
#define CLI(...) PARSE(FR_TOOL_CLI, __VA_ARGS__)

static void fails(fr_status st, fr_status expected, const char *text)
{
    assert_int_equal(st, expected);
    assert_int_equal(err.code, expected);
    if (strcmp(err.text, text) != 0)
        fail_msg("found error '%s', expected '%s'", err.text, text);
}

static char *write_file(const char *name, const char *text)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s-%ld", P_tmpdir, name, (long)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

/* ---- the table
 * -------------------------------------------------------------------------------------- */

static void every_name_finds_its_row(void **state)
{
    (void)state;
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        const opts_row *row = &opts_rows[id];
        const char *rest = row->names;
        for (opts_name name; opts_next_name(&rest, &name);) {
            for (unsigned tool = 1; tool <= FR_TOOL_IMATRIX; tool *= 2) {
                opts_match m;
                assert_true(opts_find(name.bare, (fr_tool)tool, true, &m));
                if (!(row->tools & tool))
                    continue;
                if ((int)m.id != id || m.negated != name.negates)
                    fail_msg("%.*s of tool %u finds %s", FR_STR_ARG(name.spelled), tool,
                             opts_rows[m.id].names);
            }
        }
    }
}

static void every_row_is_sound(void **state)
{
    (void)state;
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        const opts_row *row = &opts_rows[id];
        bool section = false;
        char env[OPTS_ENV_MAX], other[OPTS_ENV_MAX];
        for (const opts_section *s = opts_sections; s->name; s++)
            section |= strcmp(s->name, row->section) == 0;
        assert_true(section);
        assert_true(row->tools != 0);
        assert_true(strncmp(opts_first_name((fr_opt_id)id).spelled.p, "--", 2) == 0);
        assert_true(opts_first_name((fr_opt_id)id).bare.n < 50);
        assert_true(row->help[0] && row->help[strlen(row->help) - 1] != '.');
        assert_true(!(row->flags & OPTS_REFUSED) || row->note);
        assert_true((row->type == OPTS_BOOL) == !row->value || (row->flags & OPTS_OPTARG));
        if (row->dflt)
            assert_true(opts_accepts((fr_opt_id)id, row->dflt));
        opts_env_name((fr_opt_id)id, env);
        for (int i = 0; i < id; i++) {
            opts_env_name((fr_opt_id)i, other);
            if (!((row->flags | opts_rows[i].flags) & OPTS_NO_ENV))
                assert_string_not_equal(env, other);
        }
    }
}

static void defaults(void **state)
{
    (void)state;
    assert_ok(parse_args(FR_TOOL_CLI, 1, (const char *[]){"ferry"}));
    assert_null(o.model);
    assert_int_equal(o.ctx_size, 0);
    assert_int_equal(o.batch_size, 2048);
    assert_int_equal(o.ubatch_size, 512);
    assert_int_equal(o.n_predict, -1);
    assert_int_equal(o.mla, 3);
    assert_int_equal(o.seed, -1);
    assert_string_equal(o.cache_type_k, "f16");
    assert_true(o.temp == 0.8f && o.top_p == 0.95f && o.min_p == 0.05f && o.typical_p == 1);
    assert_int_equal(o.top_k, 40);
    assert_int_equal(o.repeat_last_n, 64);
    assert_true(o.repeat_penalty == 1 && o.presence_penalty == 0);
    assert_true(o.mmap && o.escape && o.warmup && o.display_prompt && o.cont_batching);
    assert_int_equal(o.port, 8080);
    assert_string_equal(o.host, "127.0.0.1");
    assert_true(o.cache_ram_bytes == 8192ll << 20);
    assert_int_equal(o.n_gpu_layers, -1);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_temp).source, FR_FROM_DEFAULT);
    assert_int_equal(n_logged(), 0);
}

/* ---- spellings
 * -------------------------------------------------------------------------------------- */

static void spellings(void **state)
{
    (void)state;
    const char *forms[][3] = {
        {"--top-p", "0.5"}, {"--top_p", "0.5"}, {"--top-p=0.5"}, {"-top_p=0.5"}};
    for (size_t i = 0; i < 4; i++) {
        assert_ok(parse_args(FR_TOOL_CLI, forms[i][1] ? 3 : 2,
                             (const char *[]){"ferry", forms[i][0], forms[i][1]}));
        assert_true(o.top_p == 0.5f);
        assert_int_equal(fr_opts_origin(&o, FR_OPT_top_p).line, 1);
    }
    assert_ok(
        CLI("-n", "-1", "-ngl", "5", "-t", "+8", "--temp", "-0.5", "-s", "4294967295", "-c", "16"));
    assert_int_equal(o.n_predict, -1);
    assert_int_equal(o.n_gpu_layers, 5);
    assert_int_equal(o.threads, 8);
    assert_true(o.temp == -0.5f);
    assert_int_equal(o.seed, 4294967295);
    assert_ok(CLI("--predict", "3", "--gpu-layers", "all", "-p", "-", "--seed", "-1"));
    assert_int_equal(o.n_predict, 3);
    assert_int_equal(o.n_gpu_layers, 999);
    assert_string_equal(o.prompt, "-");
    assert_ok(CLI("-ngl", "auto", "-p", "", "-r=--temp", "-r", "b"));
    assert_int_equal(o.n_gpu_layers, -1);
    assert_string_equal(o.prompt, "");
    assert_int_equal(o.reverse_prompt.n, 2);
    assert_string_equal(o.reverse_prompt.items[0].text, "--temp");
    assert_string_equal(o.reverse_prompt.items[1].text, "b");
    assert_int_equal(o.reverse_prompt.items[1].origin.line, 6);
}

static void switches(void **state)
{
    (void)state;
    assert_ok(CLI("--no-mmap", "--no-warmup", "--no_escape", "-no-cnv", "--special", "-v"));
    assert_false(o.mmap || o.warmup || o.escape);
    assert_true(o.special && o.verbose);
    assert_string_equal(o.conversation, "off");
    assert_ok(CLI("--mmap=off", "-nkvo", "--no-display-prompt", "-cnv"));
    assert_false(o.mmap || o.kv_offload || o.display_prompt);
    assert_string_equal(o.conversation, "on");
    assert_ok(PARSE(FR_TOOL_SERVER, "-nocb", "--no-slots", "--metrics", "-kvo"));
    assert_false(o.cont_batching || o.slots);
    assert_true(o.metrics && o.kv_offload);
    fails(CLI("--mmap=maybe"), FR_EINVAL, "--mmap: found 'maybe', expected on or off");
    fails(CLI("--mmap", "on"), FR_EINVAL,
          "'on': unexpected argument; ferry-cli takes 0 of them besides its options (a model is "
          "given "
          "with -m FILE)");
}

static void optional_values(void **state)
{
    (void)state;
    assert_ok(CLI("-fa", "-amb", "256", "-fmoe", "-c", "9"));
    assert_string_equal(o.flash_attn, "on");
    assert_true(o.fused_moe);
    assert_ok(CLI("-fa", "0", "-fmoe", "0", "--fit", "off"));
    assert_string_equal(o.flash_attn, "off");
    assert_false(o.fused_moe);
    assert_string_equal(o.fit, "off");
    assert_ok(CLI("-fa", "1", "-no-fmoe", "--fit"));
    assert_string_equal(o.flash_attn, "on");
    assert_false(o.fused_moe);
    assert_string_equal(o.fit, "on");
    assert_ok(CLI("-fa", "auto", "--no-fit", "-fmoe", "1"));
    assert_string_equal(o.flash_attn, "auto");
    assert_string_equal(o.fit, "off");
    assert_true(o.fused_moe);
    assert_ok(PARSE(FR_TOOL_QUANTIZE, "in.gguf", "-v", "out.gguf", "--", "-t"));
    assert_int_equal(o.args.n, 3);
    assert_string_equal(o.args.items[2].text, "-t");
}

/* One spelling, two options: each tool gets its own. */
static void same_name_in_two_tools(void **state)
{
    (void)state;
    assert_ok(PARSE(FR_TOOL_LOGITS, "-m", "a", "--ids", "x.txt", "-o", "y.f32", "-ctk", "f32",
                    "-mla", "0", "-ub", "32", "-t", "2"));
    assert_string_equal(o.ids_file, "x.txt");
    assert_string_equal(o.output, "y.f32");
    assert_string_equal(o.cache_type_k, "f32");
    assert_int_equal(o.mla, 0);
    assert_int_equal(o.ubatch_size, 32);
    assert_int_equal(o.threads, 2);
    assert_ok(PARSE(FR_TOOL_TOKENIZE, "--ids", "-p", "x", "--bos"));
    assert_true(o.ids_only && o.bos);
    assert_null(o.ids_file);
}

static void sizes(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int64_t bytes;
    } cases[] = {{"256", 256 << 20}, {"0.5", 512 << 10},  {"1GiB", 1 << 30}, {"1 gb", 1 << 30},
                 {"64K", 64 << 10},  {"10MiB", 10 << 20}, {"4096B", 4096},   {"0", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(CLI("-amb", cases[i].text));
        assert_true(o.amb_bytes == cases[i].bytes);
    }
    assert_ok(PARSE(FR_TOOL_SERVER, "-cram", "-1"));
    assert_int_equal(o.cache_ram_bytes, -1);
    const char *bad[] = {"", "x", "1Q", "1GiBs", "nan", "0x10", "-1", "1e30", "GiB"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_not_equal(CLI("-amb", bad[i]), FR_OK);
}

/* ---- errors
 * ------------------------------------------------------------------------------------------ */

static void bad_values(void **state)
{
    (void)state;
    fails(CLI("--temp", "hot"), FR_EINVAL, "--temp: found 'hot', expected a number from -1 to 100");
    fails(CLI("--top_p=1.5"), FR_ERANGE, "--top_p: found '1.5', expected a number from 0 to 1");
    fails(CLI("-c", "12x"), FR_EINVAL,
          "-c: found '12x', expected a whole number from 0 to 16777216");
    fails(CLI("-c", "99999999999999999999"), FR_ERANGE,
          "-c: found '99999999999999999999', expected a whole number from 0 to 16777216");
    fails(CLI("-mla", "4"), FR_ERANGE, "-mla: found '4', expected a whole number from 0 to 3");
    fails(CLI("--isa", "mmx"), FR_EINVAL,
          "--isa: found 'mmx', expected one of auto, scalar, avx2, avx512");
    fails(CLI("-ngl", "some"), FR_EINVAL,
          "-ngl: found 'some', expected a whole number from -1 to 100000, auto, all");
    fails(CLI("--temp", "nan"), FR_EINVAL, "--temp: found 'nan', expected a number from -1 to 100");
    fails(CLI("--temp", "inf"), FR_EINVAL, "--temp: found 'inf', expected a number from -1 to 100");
    fails(CLI("-s", "1e3"), FR_EINVAL,
          "-s: found '1e3', expected a whole number from -1 to 9007199254740992");
    fails(CLI("-amb", "1ZiB"), FR_EINVAL,
          "-amb: found '1ZiB', expected a size in MiB from 0 to 1048576, or with a unit (KiB, MiB, "
          "GiB)");
    fails(CLI("-m"), FR_EINVAL, "-m: found nothing after it, expected a path");
    fails(CLI("-m", "--temp", "1"), FR_EINVAL,
          "-m: found the option --temp, expected a path; a value like that is written -m=--temp");
    char prompt[3000];
    memset(prompt, 'x', sizeof prompt);
    prompt[sizeof prompt - 1] = 0;
    assert_int_equal(CLI("-c", prompt), FR_EINVAL);
    assert_true(strlen(err.text) < 250);
    assert_int_equal(PARSE(FR_TOOL_CLI, prompt), FR_EINVAL);
}

static void unknown_names(void **state)
{
    (void)state;
    fails(CLI("--tmep", "1"), FR_EINVAL, "--tmep: unknown option; did you mean --temp?");
    fails(CLI("--thread=4"), FR_EINVAL, "--thread: unknown option; did you mean --threads?");
    fails(CLI("-nglx", "4"), FR_EINVAL, "-nglx: unknown option; did you mean -ngl?");
    fails(CLI("--cache-type-q", "4"), FR_EINVAL,
          "--cache-type-q: unknown option; did you mean --cache-type-k?");
    fails(CLI("--ctxsize", "4"), FR_EINVAL, "--ctxsize: unknown option; did you mean --ctx-size?");
    fails(CLI("--LLAMA_ARG_CTX_SIZE", "4"), FR_EINVAL,
          "--LLAMA_ARG_CTX_SIZE: unknown option; ferry-cli --help lists them");
    fails(CLI("--no-temp"), FR_EINVAL, "--no-temp: unknown option; ferry-cli --help lists them");
    fails(CLI("--strict-rules", "--lax-rules"), FR_EINVAL,
          "--strict-rules: found together with --lax-rules, expected one of them");
    fails(CLI("--preset", "x"), FR_EINVAL,
          "--preset: found 'x' without an INI file, expected --config FILE as well");
    fails(CLI("--config", "/nonexistent/x.ini"), FR_ENOTFOUND,
          "/nonexistent/x.ini: cannot be opened: No such file or directory");
}

static void refused(void **state)
{
    (void)state;
    fails(
        CLI("--rpc", "host:50052"), FR_EUNSUPPORTED,
        "--rpc: not supported: ferry runs on one machine; describe its GPUs and RAM in an INI file "
        "(--config) instead");
    assert_int_equal(CLI("-hf", "a/b"), FR_EUNSUPPORTED);
    assert_int_equal(CLI("--embedding"), FR_EUNSUPPORTED);
    assert_ok(CLI("--no-embedding"));
}

static void required(void **state)
{
    (void)state;
    assert_ok(CLI("-v"));
    fails(fr_opts_require(&o, FR_OPT_model, &err), FR_EINVAL,
          "--model: not given, expected --model FILE, or 'model = ...' in an INI file, or "
          "FERRY_MODEL");
    assert_ok(CLI("-m", "x"));
    assert_ok(fr_opts_require(&o, FR_OPT_model, &err));
    assert_ok(fr_opts_require(&o, FR_OPT_ctx_size, &err));
}

/* ---- notes
 * -------------------------------------------------------------------------------------------- */

static void notes(void **state)
{
    (void)state;
    assert_ok(CLI("-ser", "7,1", "-op", "27,0", "-op", "29,0", "-no-ooae", "--port", "80",
                  "--prompt-cache", "x"));
    assert_true(was_logged("2 -ser: accepted, has no effect: it changes the model's output"));
    assert_true(was_logged("2 -op: accepted, has no effect: "));
    assert_true(was_logged("2 -no-ooae: accepted, has no effect: "));
    assert_true(was_logged("1 --port: has no effect in ferry-cli\n"));
    assert_true(was_logged("1 --prompt-cache: not in this version of ferry, has no effect\n"));
    assert_int_equal(n_logged(), 5);
    assert_int_equal(o.port, 80);
    assert_int_equal(o.offload_policy.n, 2);

    fr_buf_clear(&logged);
    assert_ok(CLI("-ot=exps=CPU", "-ngl", "99", "--mirostat", "0"));
    assert_ok(PARSE(FR_TOOL_PLAN, "-ot=exps=CPU", "-ngl", "99"));
    assert_ok(PARSE(FR_TOOL_SERVER, "--port", "80"));
    assert_ok(CLI("--port", "80", "--log-level", "error"));
    assert_ok(CLI("--port", "80", "--help"));
    assert_ok(CLI("--port", "80", "--log-disable"));
    assert_int_equal(n_logged(), 0);
}

/* ---- levels
 * ------------------------------------------------------------------------------------------- */

static void precedence(void **state)
{
    (void)state;
    char *path =
        write_file("levels", "[*]\ntemp = 0.1\ntop-k = 1\nmin-p = 0.1\ntop-p=0.1\nr = a\nr = b\n"
                             "[p]\ntop-k = 2\nmin-p = 0.2\ntop-p = 0.2\n");
    setenv("FERRY_MIN_P", "0.3", 1);
    setenv("FERRY_TOP_P", "0.3", 1);
    assert_ok(CLI("--top-p", "0.4", "--config", path, "--preset", "p"));
    assert_true(o.temp == 0.1f && o.top_k == 2 && o.min_p == 0.3f && o.top_p == 0.4f);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_temp).source, FR_FROM_INI);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_temp).line, 2);
    assert_string_equal(fr_opts_origin(&o, FR_OPT_temp).file, path);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_top_k).line, 9);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_min_p).source, FR_FROM_ENV);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_top_p).source, FR_FROM_CLI);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_typical_p).source, FR_FROM_DEFAULT);
    assert_int_equal(o.reverse_prompt.n, 2);

    setenv("FERRY_CONFIG", path, 1);
    setenv("FERRY_REVERSE_PROMPT", "c\nd;e\n\nf", 1);
    assert_ok(CLI("-v"));
    assert_int_equal(o.top_k, 1);
    assert_int_equal(o.reverse_prompt.n, 3);
    assert_string_equal(o.reverse_prompt.items[1].text, "d;e");
    setenv("FERRY_PRESET", "p", 1);
    assert_ok(CLI("-r", "x"));
    assert_int_equal(o.top_k, 2);
    assert_int_equal(o.reverse_prompt.n, 1);
    assert_string_equal(o.reverse_prompt.items[0].text, "x");
    assert_ok(CLI("-r", ""));
    assert_int_equal(o.reverse_prompt.n, 0);
    remove(path);
}

static void environment(void **state)
{
    (void)state;
    setenv("FERRY_TMEP", "1", 1);
    setenv("LLAMA_ARG_CTX_SIZE", "1", 1);
    setenv("FERRY_NO_MMAP", "1", 1);
    setenv("FERRY_MMAP", "off", 1);
    setenv("FERRY_THREADS", "", 1);
    setenv("FERRY_PORT", "1", 1);
    assert_ok(CLI("-n", "1"));
    assert_true(was_logged("1 environment variable FERRY_TMEP: no option has it"));
    assert_true(was_logged("1 environment variable FERRY_NO_MMAP: no option has it"));
    assert_true(was_logged("1 environment variable LLAMA_ARG_CTX_SIZE: not read"));
    assert_int_equal(n_logged(), 3);
    assert_false(o.mmap);
    assert_int_equal(o.ctx_size, 0);
    assert_int_equal(o.port, 1);
    setenv("FERRY_TEMP", "warm", 1);
    fails(CLI("-n", "1"), FR_EINVAL,
          "environment variable FERRY_TEMP: found 'warm', expected a number from -1 to 100");
}

/* ---- command lines that people have
 * ------------------------------------------------------------------- */

static void r1_on_three_gpus(void **state)
{
    (void)state;
    const char *g0 = "blk\\.[0-4]\\.ffn_up_exps=CUDA0,blk\\.[0-4]\\.ffn_gate_exps=CUDA0,"
                     "blk\\.[0-2]\\.ffn_down_exps=CUDA0";
    const char *g1 = "blk\\.1[0-2]\\.ffn_up_exps=CUDA1,blk\\.1[0-2]\\.ffn_gate_exps=CUDA1";
    const char *g2 = "blk\\.1[3-4]\\.ffn_up_exps=CUDA2,blk\\.1[3-4]\\.ffn_gate_exps=CUDA2";
    assert_ok(PARSE(FR_TOOL_SERVER, "--model", "R1.gguf", "-c", "71680", "-ctk", "q8_0", "-mla",
                    "3", "-fa", "-amb", "256", "-fmoe", "-rtr", "--temp", "0.5", "--top_p", "0.95",
                    "--min_p", "0.01", "--n-gpu-layers", "63", "-ot", g0, "-ot", g1, "-ot", g2,
                    "--override-tensor", "exps=CPU", "--parallel", "1", "--threads", "16",
                    "--threads-batch", "16", "--host", "0.0.0.0", "--port", "5002", "--ubatch-size",
                    "7168", "--batch-size", "7168", "--no-mmap"));
    assert_string_equal(o.model, "R1.gguf");
    assert_int_equal(o.ctx_size, 71680);
    assert_string_equal(o.cache_type_k, "q8_0");
    assert_int_equal(o.mla, 3);
    assert_string_equal(o.flash_attn, "on");
    assert_int_equal(o.amb_bytes, 256 << 20);
    assert_true(o.fused_moe && o.run_time_repack && !o.mmap);
    assert_true(o.temp == 0.5f && o.top_p == 0.95f && o.min_p == 0.01f);
    assert_int_equal(o.n_gpu_layers, 63);
    assert_int_equal(o.override_tensor.n, 4);
    assert_string_equal(o.override_tensor.items[0].text, g0);
    assert_string_equal(o.override_tensor.items[1].text, g1);
    assert_string_equal(o.override_tensor.items[2].text, g2);
    assert_string_equal(o.override_tensor.items[3].text, "exps=CPU");
    assert_int_equal(o.parallel, 1);
    assert_int_equal(o.threads, 16);
    assert_int_equal(o.threads_batch, 16);
    assert_string_equal(o.host, "0.0.0.0");
    assert_int_equal(o.port, 5002);
    assert_int_equal(o.ubatch_size, 7168);
    assert_int_equal(o.batch_size, 7168);
    assert_false(was_logged("1 "));
}

static void r1_short(void **state)
{
    (void)state;
    assert_ok(PARSE(FR_TOOL_SERVER, "-m", "R1.gguf", "-ctk", "q8_0", "-mla", "2", "-fa", "1",
                    "-amb", "512", "-fmoe", "1", "--n-gpu-layers", "63", "--override-tensor",
                    "exps=CPU", "--threads", "24"));
    assert_string_equal(o.model, "R1.gguf");
    assert_string_equal(o.cache_type_k, "q8_0");
    assert_int_equal(o.mla, 2);
    assert_string_equal(o.flash_attn, "on");
    assert_int_equal(o.amb_bytes, 512 << 20);
    assert_true(o.fused_moe);
    assert_int_equal(o.n_gpu_layers, 63);
    assert_int_equal(o.override_tensor.n, 1);
    assert_int_equal(o.threads, 24);
}

static void v32_server(void **state)
{
    (void)state;
    assert_ok(PARSE(FR_TOOL_SERVER, "-m", "DeepSeek-V3.2-Speciale.gguf", "--cache-type-k", "f16",
                    "--cache-type-v", "f16", "--flash-attn", "on", "--ctx-size", "16384",
                    "--parallel", "1", "--threads", "13", "--threads-batch", "13", "--batch-size",
                    "2048", "--ubatch-size", "512", "--jinja", "--host", "0.0.0.0", "--port",
                    "8080"));
    assert_string_equal(o.model, "DeepSeek-V3.2-Speciale.gguf");
    assert_string_equal(o.cache_type_v, "f16");
    assert_string_equal(o.flash_attn, "on");
    assert_int_equal(o.ctx_size, 16384);
    assert_int_equal(o.threads_batch, 13);
    assert_true(o.jinja);
    assert_int_equal(o.port, 8080);
    assert_int_equal(fr_opts_origin(&o, FR_OPT_port).source, FR_FROM_CLI);
}

/* ---- print
 * -------------------------------------------------------------------------------------------- */

static void help(void **state)
{
    (void)state;
    fr_buf text = {0};
    assert_ok(fr_opts_help(FR_TOOL_CLI, &text, &err));
    assert_non_null(strstr(text.p, "usage: ferry-cli"));
    assert_non_null(strstr(text.p, "\n  -m, --model FILE                GGUF file to load"));
    assert_non_null(strstr(text.p, "\n  -mmp, --mmap, --no-mmap "));
    assert_non_null(strstr(text.p, "\n  -fa, --flash-attn [on|off|auto]"));
    assert_null(strstr(text.p, "--port"));
    assert_null(strstr(text.p, "--rpc"));
    assert_null(strstr(text.p, "LLAMA_ARG"));
    for (char *line = strtok(text.p, "\n"); line; line = strtok(NULL, "\n"))
        if (strlen(line) > 100)
            fail_msg("line of %zu columns: %s", strlen(line), line);
    fr_buf_free(&text);
}

static void answers(void **state)
{
    (void)state;
    const char *asks[] = {"--help", "--version", "--dump-config", "--print-reference-ini", "-v"};
    const char *begins[] = {"usage: ferry-cli ", "ferry-cli 0.", "; ferry-cli: effective",
                            "; Every option", ""};
    for (int i = 0; i < 5; i++) {
        fr_buf text = {0};
        bool answered;
        assert_ok(CLI(asks[i]));
        assert_ok(fr_opts_answer(&o, &answered, &text, &err));
        assert_int_equal(answered, i < 4);
        assert_int_equal(strncmp(text.p ? text.p : "", begins[i], strlen(begins[i])), 0);
        fr_buf_free(&text);
    }
}

static void dump_is_an_ini_file(void **state)
{
    (void)state;
    fr_buf once = {0}, again = {0};
    setenv("FERRY_TOP_K", "7", 1);
    assert_ok(PARSE(FR_TOOL_SERVER, "-m", "/a b/;x.gguf", "--temp", "0.123456789", "-r", " a ",
                    "-r", "b\"c\\", "-ot", "a.*=CPU", "--api-key", "hush", "-amb", "1000KiB",
                    "-ngl", "all", "--samplers", "top_k;temperature", "--seed", "12345678901"));
    assert_ok(fr_opts_dump(&o, &once, &err));
    assert_null(strstr(once.p, "hush"));
    assert_non_null(
        strstr(once.p, "\napi-key = ********                          ; command line\n"));
    assert_non_null(strstr(
        once.p, "\ntop-k = 7                                   ; environment FERRY_TOP_K\n"));
    assert_non_null(strstr(once.p, "\nmin-p = 0.05                                ; default\n"));
    assert_non_null(strstr(once.p, "\n;grammar =                                  ; default\n"));
    float temp = o.temp;
    char *path = write_file("dump", once.p);
    clearenv();
    assert_ok(PARSE(FR_TOOL_SERVER, "--config", path));
    assert_string_equal(o.model, "/a b/;x.gguf");
    assert_true(o.temp == temp);
    assert_int_equal(o.top_k, 7);
    assert_int_equal(o.reverse_prompt.n, 2);
    assert_string_equal(o.reverse_prompt.items[0].text, " a ");
    assert_string_equal(o.reverse_prompt.items[1].text, "b\"c\\");
    assert_int_equal(o.amb_bytes, 1000 << 10);
    assert_int_equal(o.n_gpu_layers, 999);
    assert_string_equal(o.samplers, "top_k;temperature");
    assert_int_equal(o.seed, 12345678901);
    assert_ok(fr_opts_dump(&o, &again, &err));
    char origin[400];
    snprintf(origin, sizeof origin, "\nseed = 12345678901                          ; %s:", path);
    assert_non_null(strstr(again.p, origin));
    remove(path);
    fr_buf_free(&once);
    fr_buf_free(&again);
}

/* ---- allocation failures
 * ------------------------------------------------------------------------------ */

static fr_status everything(void)
{
    fr_buf text = {0};
    setenv("FERRY_REVERSE_PROMPT", "x\ny", 1);
    setenv("FERRY_TMEP", "x", 1);
    fr_status st =
        CLI("--config", TEST_FILE("data/ini/mainline.ini"), "--preset", "DeepSeek-R1-0528-IQ2_K_R4",
            "-ot", "a", "-ot", "b", "--port", "1", "-ser", "1,1", "-fa", "-c", "4");
    if (st == FR_OK)
        st = fr_opts_dump(&o, &text, &err);
    if (st == FR_OK)
        st = fr_opts_help(FR_TOOL_CLI, &text, &err);
    if (st == FR_OK)
        st = fr_opts_reference_ini(&text, &err);
    fr_opts_free(&o);
    if (st == FR_OK)
        st = CLI("--config", TEST_FILE("data/ini/hardware.ini"));
    if (st == FR_OK)
        st = fr_opts_dump(&o, &text, &err);
    fr_opts_free(&o);
    fr_buf_free(&text);
    return st;
}

static void to_nowhere(void *user, fr_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static void out_of_memory(void **state)
{
    (void)state;
    fr_log_set_sink(to_nowhere, NULL); /* the other sink allocates */
    fr_buf_free(&logged);
    fr_status st = FR_ENOMEM;
    int n = 0;
    for (; st != FR_OK && n < 10000; n++) {
        fr_mem_fail_at((uint64_t)n + 1, 0);
        st = everything();
        if (st != FR_OK)
            assert_int_equal(st, FR_ENOMEM);
        assert_int_equal(fr_mem_total().bytes_now, 0);
    }
    fr_mem_fail_at(0, 0);
    assert_int_equal(st, FR_OK);
    assert_in_range(n, 100, 9999); /* as many allocations were walked */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, start, finish)
        T(every_name_finds_its_row),
        T(every_row_is_sound),
        T(defaults),
        T(spellings),
        T(switches),
        T(optional_values),
        T(sizes),
        T(same_name_in_two_tools),
        T(bad_values),
        T(unknown_names),
        T(refused),
        T(required),
        T(notes),
        T(precedence),
        T(environment),
        T(r1_on_three_gpus),
        T(r1_short),
        T(v32_server),
        T(help),
        T(answers),
        T(dump_is_an_ini_file),
        T(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
