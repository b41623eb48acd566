/* ferry-quantize as users run it: small models in, files out, checked against the library. */
#include "testing.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gguf/gguf_writer.h"
#include "support/models.h"

enum { COLS = 256, ROWS = 8, EXPERTS = 4, OUTPUT_BYTES = 16384, MAX_WORDS = 24 };

/* ---- running the tool ----------------------------------------------------------------------- */

static char output[OUTPUT_BYTES]; /* of the last run */

static pid_t start(int out, const char *const *words, int n)
{
    char *argv[MAX_WORDS + 2] = {FERRY_BIN_DIR "/ferry-quantize"};
    for (int i = 0; i < n; i++)
        argv[i + 1] = (char *)(uintptr_t)words[i];
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out, 1);
        dup2(out, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    return pid;
}

static int finish(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* The exit status, 1000 + signal when it was killed; what it printed is in `output`. */
static int run_words(const char *const *words, int n)
{
    char path[] = "/tmp/ferry-quantize-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && n <= MAX_WORDS);
    unlink(path);
    int status = finish(start(fd, words, n));
    ssize_t got = pread(fd, output, sizeof output - 1, 0);
    output[got > 0 ? got : 0] = 0;
    close(fd);
    return status;
}

#define RUN(...)                                                                                   \
    run_words((const char *const[]){__VA_ARGS__},                                                  \
              (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

#define assert_run(...)                                                                            \
    do {                                                                                           \
        int status_ = RUN(__VA_ARGS__);                                                            \
        if (status_ != 0)                                                                          \
            fail_msg("status %d: %s", status_, output);                                            \
    } while (0)

/* Status 1, a text that contains `text`, and no file at `path` or beside it. */
static void expect_failure(int status, const char *text, const char *path)
{
    char folder[256], *slash;
    if (status != 1 || !strstr(output, text))
        fail_msg("status %d, expected 1 and '%s': %s", status, text, output);
    if (access(path, F_OK) == 0)
        fail_msg("%s: found it, expected nothing", path);
    snprintf(folder, sizeof folder, "%s", path);
    slash = strrchr(folder, '/');
    *slash = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (strstr(e->d_name, ".tmp-"))
            fail_msg("%s: found a temporary file", e->d_name);
    closedir(dir);
}

/* ---- the model ------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    int n_dims;
    int64_t dims[3];
} shape;

static const shape shapes[] = {
    {"token_embd.weight", 2, {COLS, 32, 1}},
    {"output.weight", 2, {COLS, 32, 1}},
    {"output_norm.weight", 1, {COLS, 1, 1}},
    {"blk.0.attn_output.weight", 2, {COLS, ROWS, 1}},
    {"blk.0.attn_k_b.weight", 3, {64, ROWS, 2}},
    {"blk.0.ffn_gate_inp.weight", 2, {COLS, EXPERTS, 1}},
    {"blk.0.ffn_gate_exps.weight", 3, {COLS, ROWS, EXPERTS}},
    {"blk.0.ffn_down_exps.weight", 3, {COLS, ROWS, EXPERTS}},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes, BIG = COLS * ROWS * EXPERTS };

static int64_t n_weights(const shape *s)
{
    return s->dims[0] * s->dims[1] * s->dims[2];
}

static void make_weights(const shape *s, float *x)
{
    uint64_t seed = 1 + (uint64_t)(s - shapes);
    for (int64_t i = 0; i < n_weights(s); i++)
        x[i] = test_rand_f(&seed) * test_rand_f(&seed);
}

/* How one weight is spoilt, and the file cut in parts. */
typedef struct {
    const char *tensor; /* NULL: none */
    int64_t at;
    float value;
    fr_type type; /* of matrices */
} variant;

static void put_tensors(fr_gguf_writer *w, const variant *v, size_t from, size_t to)
{
    fr_err err;
    static float x[BIG];
    static uint8_t row[COLS * 4];
    for (size_t i = from; i < to; i++)
        assert_ok(fr_gguf_add_tensor(w, shapes[i].name,
                                     shapes[i].n_dims > 1 ? v->type : FR_TYPE_F32, FR_LAYOUT_PLAIN,
                                     shapes[i].n_dims, shapes[i].dims, &err));
    assert_ok(fr_gguf_write_header(w, &err));
    for (size_t i = from; i < to; i++) {
        const shape *s = &shapes[i];
        fr_type type = s->n_dims > 1 ? v->type : FR_TYPE_F32;
        make_weights(s, x);
        if (v->tensor && strcmp(v->tensor, s->name) == 0)
            x[v->at] = v->value;
        for (int64_t r = 0; r < n_weights(s) / s->dims[0]; r++) {
            fr_encode_row(type, x + r * s->dims[0], s->dims[0], NULL, row);
            assert_ok(
                fr_gguf_write_data(w, row, fr_row_bytes(type, FR_LAYOUT_PLAIN, s->dims[0]), &err));
        }
    }
}

static void put_keys(fr_gguf_writer *w)
{
    fr_err err;
    assert_ok(fr_gguf_put_str(w, "general.architecture", FR_STR("deepseek2"), &err));
    assert_ok(fr_gguf_put_u32(w, "general.alignment", 64, &err));
    assert_ok(fr_gguf_put_u32(w, "general.file_type", 0, &err));
    assert_ok(fr_gguf_put_u32(w, "deepseek2.block_count", 2, &err));
    assert_ok(fr_gguf_put_u32(w, "deepseek2.expert_count", EXPERTS, &err));
}

static void write_variant(const char *path, const variant *v)
{
    fr_gguf_writer *w;
    fr_err err;
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    put_keys(w);
    put_tensors(w, v, 0, N_SHAPES);
    assert_ok(fr_gguf_writer_close(w, true, &err));
}

static const char *f32_model(void)
{
    static char path[256];
    if (!path[0]) {
        snprintf(path, sizeof path, "%s", model_temp_path("f32.gguf"));
        write_variant(path, &(variant){.type = FR_TYPE_F32});
    }
    return path;
}

static fr_gguf *open_model(const char *path)
{
    fr_gguf *g;
    fr_err err;
    assert_ok(fr_gguf_open(path, 0, &g, &err));
    return g;
}

/* What an error counts: its column's importance times the size of the weight, against the others of
 * the row; with 8 bits and more all count the same. */
static const float *error_weights(fr_type type, const float *x, int64_t cols,
                                  const float *importance)
{
    static float w[COLS];
    double mean = 0;
    if (type == FR_TYPE_F32 || type == FR_TYPE_F16 || type == FR_TYPE_Q8_0)
        return NULL;
    for (int64_t i = 0; i < cols; i++)
        mean += (double)x[i] * (double)x[i];
    for (int64_t i = 0; i < cols; i++)
        w[i] = (importance ? importance[i] : 1) * sqrtf((float)(mean / (double)cols) + x[i] * x[i]);
    return w;
}

/* The tensor's bytes are what encoding the weights gives; `importance` has a row for each matrix,
 * NULL rows have none. */
static void assert_encoded(const fr_gguf *g, const char *name, fr_type type, fr_layout layout,
                           const float *const *importance)
{
    static float x[BIG];
    static uint8_t plain[BIG * 4], want[BIG * 4];
    fr_err err;
    const shape *s = shapes;
    while (strcmp(s->name, name) != 0)
        s++;
    const fr_gguf_tensor *t = fr_gguf_find_tensor(g, name);
    assert_non_null(t);
    assert_string_equal(fr_type_name(t->type, t->layout), fr_type_name(type, layout));
    size_t row = fr_row_bytes(type, FR_LAYOUT_PLAIN, s->dims[0]);
    int64_t rows = n_weights(s) / s->dims[0];
    make_weights(s, x);
    for (int64_t r = 0; r < rows; r++) {
        const float *xr = x + r * s->dims[0], *im = importance ? importance[r / s->dims[1]] : NULL;
        fr_encode_row(type, xr, s->dims[0], error_weights(type, xr, s->dims[0], im),
                      plain + (size_t)r * row);
    }
    assert_ok(fr_repack(type, FR_LAYOUT_PLAIN, layout, rows, s->dims[0], plain, want, &err));
    assert_int_equal(t->bytes, (size_t)rows * fr_row_bytes(type, layout, s->dims[0]));
    if (memcmp(fr_gguf_tensor_data(g, t), want, t->bytes) != 0)
        fail_msg("%s: found other bytes than encoding gives", name);
}

static void assert_key(const fr_gguf *g, const char *key, int64_t want)
{
    int64_t got;
    fr_err err;
    assert_ok(fr_gguf_get_i64(g, key, &got, &err));
    assert_int_equal(got, want);
}

/* ---- what is written ------------------------------------------------------------------------ */

static void bytes_are_those_of_the_encoders(void **state)
{
    (void)state;
    const char *out = model_temp_path("q8_0.gguf");
    assert_run(f32_model(), out, "Q8_0", "3");
    fr_gguf *g = open_model(out);
    assert_key(g, "general.file_type", 7);
    assert_key(g, "general.quantization_version", 2);
    assert_key(g, "general.alignment", 64);
    assert_int_equal(fr_gguf_alignment(g), 64);
    assert_int_equal(fr_gguf_n_tensors(g), N_SHAPES);
    for (size_t i = 0; i < N_SHAPES; i++) {
        bool kept = shapes[i].n_dims == 1 || strstr(shapes[i].name, "gate_inp");
        assert_encoded(g, shapes[i].name, kept ? FR_TYPE_F32 : FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, NULL);
        assert_int_equal(fr_gguf_find_tensor(g, shapes[i].name)->offset % 64, 0);
    }
    fr_gguf_close(g);
}

static void interleaved_forms(void **state)
{
    (void)state;
    const char *out = model_temp_path("iq4_k_r4.gguf"), *again = model_temp_path("again.gguf");
    const char *plain = model_temp_path("iq4_k.gguf");
    assert_run(f32_model(), out, "IQ4_K_R4", "2", "--pure");
    fr_gguf *g = open_model(out);
    assert_key(g, "general.file_type", 340);
    assert_encoded(g, "token_embd.weight", FR_TYPE_IQ4_K, FR_LAYOUT_PLAIN, NULL);
    assert_encoded(g, "output.weight", FR_TYPE_IQ4_K, FR_LAYOUT_INTERLEAVED, NULL);
    assert_encoded(g, "blk.0.ffn_gate_exps.weight", FR_TYPE_IQ4_K, FR_LAYOUT_INTERLEAVED, NULL);
    assert_encoded(g, "blk.0.attn_k_b.weight", FR_TYPE_Q5_0, FR_LAYOUT_INTERLEAVED, NULL);
    assert_encoded(g, "blk.0.ffn_gate_inp.weight", FR_TYPE_F32, FR_LAYOUT_PLAIN, NULL);
    fr_gguf_close(g);

    /* The same by repacking what is quantized already, whatever the TYPE says. */
    assert_run(f32_model(), plain, "IQ4_K", "1", "--pure");
    assert_run("--repack", plain, again, "Q8_0");
    g = open_model(again);
    assert_key(g, "general.file_type", 340);
    assert_encoded(g, "output.weight", FR_TYPE_IQ4_K, FR_LAYOUT_INTERLEAVED, NULL);
    assert_encoded(g, "blk.0.ffn_down_exps.weight", FR_TYPE_IQ4_K, FR_LAYOUT_INTERLEAVED, NULL);
    fr_gguf_close(g);
    assert_run("--repack", plain, again, "COPY");
    g = open_model(again);
    assert_key(g, "general.file_type", 340);
    assert_encoded(g, "blk.0.attn_k_b.weight", FR_TYPE_Q5_0, FR_LAYOUT_INTERLEAVED, NULL);
    fr_gguf_close(g);
}

static void threads_do_not_show(void **state)
{
    (void)state;
    const char *paths[] = {model_temp_path("t1.gguf"), model_temp_path("t5.gguf")};
    fr_buf a = {0}, b = {0};
    fr_err err;
    assert_run("-t", "1", f32_model(), paths[0], "Q4_K_R4");
    assert_run("-t", "5", f32_model(), paths[1], "Q4_K_R4");
    assert_ok(fr_file_slurp(paths[0], 1 << 24, &a, &err));
    assert_ok(fr_file_slurp(paths[1], 1 << 24, &b, &err));
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.p, b.p, a.n);
    fr_buf_free(&a);
    fr_buf_free(&b);
}

static void rules_options_and_mix(void **state)
{
    (void)state;
    const char *out = model_temp_path("rules.gguf");
    assert_run(f32_model(), out, "Q4_K_M", "--custom-q", "exps=q6_K , ffn_down=q8_0,norm=q8_0",
               "--custom-q", "attn_output=q8_0_r8", "--token-embedding-type", "f16");
    assert_non_null(strstr(output, "'ffn_down=q8_0' has no effect"));
    assert_non_null(strstr(output, "'norm=q8_0' has no effect"));
    fr_gguf *g = open_model(out);
    assert_key(g, "general.file_type", 15);
    assert_encoded(g, "blk.0.ffn_down_exps.weight", FR_TYPE_Q6_K, FR_LAYOUT_PLAIN, NULL);
    assert_encoded(g, "blk.0.attn_output.weight", FR_TYPE_Q8_0, FR_LAYOUT_INTERLEAVED, NULL);
    assert_encoded(g, "token_embd.weight", FR_TYPE_F16, FR_LAYOUT_PLAIN, NULL);
    assert_encoded(g, "output.weight", FR_TYPE_Q6_K, FR_LAYOUT_PLAIN, NULL);
    assert_encoded(g, "output_norm.weight", FR_TYPE_F32, FR_LAYOUT_PLAIN, NULL);
    fr_gguf_close(g);

    assert_run(f32_model(), out, "Q8_0", "--leave-output-tensor");
    g = open_model(out);
    assert_encoded(g, "output.weight", FR_TYPE_F32, FR_LAYOUT_PLAIN, NULL);
    assert_encoded(g, "token_embd.weight", FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, NULL);
    fr_gguf_close(g);

    assert_run(f32_model(), out, "Q8_0", "--output-tensor-type", "Q5_0");
    g = open_model(out);
    assert_encoded(g, "output.weight", FR_TYPE_Q5_0, FR_LAYOUT_PLAIN, NULL);
    fr_gguf_close(g);
}

/* ---- importance matrices -------------------------------------------------------------------- */

static float importance_rows[EXPERTS][COLS];

/* Values for ffn_gate_exps; matrix 2 was never used. */
static const float *const *make_importance(void)
{
    static const float *rows[EXPERTS];
    uint64_t seed = 99;
    for (int m = 0; m < EXPERTS; m++) {
        for (int i = 0; i < COLS; i++)
            importance_rows[m][i] = m == 2 ? 0 : 0.5f + 100 * fabsf(test_rand_f(&seed));
        rows[m] = m == 2 ? NULL : importance_rows[m];
    }
    return rows;
}

static const char imatrix_weight[] = "blk.0.ffn_gate_exps.weight";

static void write_imatrix_gguf(const char *path, const char *name, int cols, const char *type)
{
    fr_gguf_writer *w;
    fr_err err;
    char full[96];
    make_importance();
    assert_ok(fr_gguf_writer_create(path, &w, &err));
    assert_ok(fr_gguf_put_str(w, "general.type", fr_str_of(type), &err));
    assert_ok(fr_gguf_put_u32(w, "imatrix.chunk_count", 7, &err));
    static const char text[] = "\3\0\0\0\0\0\0\0a.x";
    const uint64_t at[] = {0};
    const fr_gguf_value sets = {
        .type = FR_GGUF_STR, .is_array = true, .n = 1, .bytes = (const uint8_t *)text, .at = at};
    assert_ok(fr_gguf_put_value(w, "imatrix.datasets", &sets, &err));
    snprintf(full, sizeof full, "%s.in_sum2", name);
    assert_ok(fr_gguf_add_tensor(w, full, FR_TYPE_F32, FR_LAYOUT_PLAIN, 2,
                                 (int64_t[]){cols, EXPERTS}, &err));
    snprintf(full, sizeof full, "%s.counts", name);
    assert_ok(fr_gguf_add_tensor(w, full, FR_TYPE_F32, FR_LAYOUT_PLAIN, 2, (int64_t[]){1, EXPERTS},
                                 &err));
    assert_ok(fr_gguf_write_header(w, &err));
    for (int m = 0; m < EXPERTS; m++) { /* sums of 4 terms; of none for matrix 2 */
        float sums[COLS];
        for (int i = 0; i < cols; i++)
            sums[i] = 4 * importance_rows[m][i];
        assert_ok(fr_gguf_write_data(w, sums, (size_t)cols * sizeof *sums, &err));
    }
    const float counts[EXPERTS] = {4, 4, 0, 4};
    assert_ok(fr_gguf_write_data(w, counts, sizeof counts, &err));
    assert_ok(fr_gguf_writer_close(w, true, &err));
}

static void add_int(fr_buf *b, int32_t v)
{
    fr_err err;
    assert_ok(fr_buf_add(b, (const char *)&v, sizeof v, &err));
}

static void make_imatrix_dat(fr_buf *b)
{
    fr_err err;
    make_importance();
    add_int(b, 1);
    add_int(b, (int32_t)strlen(imatrix_weight));
    assert_ok(fr_buf_puts(b, imatrix_weight, &err));
    add_int(b, 2);
    add_int(b, EXPERTS * COLS);
    for (int i = 0; i < EXPERTS * COLS; i++) {
        float sum = 2 * importance_rows[i / COLS][i % COLS];
        assert_ok(fr_buf_add(b, (const char *)&sum, sizeof sum, &err));
    }
    add_int(b, 7);
    add_int(b, 3);
    assert_ok(fr_buf_puts(b, "a.x", &err));
}

static void write_file(const char *path, const char *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void importance_weighs_the_errors(void **state)
{
    (void)state;
    const char *im = model_temp_path("im.gguf"), *dat = model_temp_path("im.dat");
    const char *out = model_temp_path("im-out.gguf");
    fr_buf b = {0};
    write_imatrix_gguf(im, imatrix_weight, COLS, "imatrix");
    make_imatrix_dat(&b);
    write_file(dat, b.p, b.n);
    fr_buf_free(&b);
    for (int form = 0; form < 2; form++) {
        const char *path = form ? dat : im;
        fr_str text;
        fr_err err;
        assert_run("--imatrix", path, f32_model(), out, "IQ4_NL", "--pure");
        assert_non_null(strstr(output, "has no entry for 3 of 6 tensors"));
        fr_gguf *g = open_model(out);
        assert_encoded(g, imatrix_weight, FR_TYPE_IQ4_NL, FR_LAYOUT_PLAIN, make_importance());
        assert_encoded(g, "blk.0.ffn_down_exps.weight", FR_TYPE_IQ4_NL, FR_LAYOUT_PLAIN, NULL);
        assert_key(g, "quantize.imatrix.entries_count", 1);
        assert_key(g, "quantize.imatrix.chunks_count", 7);
        assert_ok(fr_gguf_get_str(g, "quantize.imatrix.file", &text, &err));
        assert_true(fr_str_is(text, path));
        assert_ok(fr_gguf_get_str(g, "quantize.imatrix.dataset", &text, &err));
        assert_true(fr_str_is(text, "a.x"));
        fr_gguf_close(g);
    }
}

static void wrong_importance_is_refused(void **state)
{
    (void)state;
    const char *im = model_temp_path("bad.gguf"), *out = model_temp_path("bad-out.gguf");
    write_imatrix_gguf(im, "blk.0.attn_qkv.weight", COLS, "imatrix");
    expect_failure(RUN("--imatrix", im, f32_model(), out, "Q4_0"), "it belongs to another model",
                   out);
    write_imatrix_gguf(im, imatrix_weight, COLS - 1, "imatrix");
    expect_failure(RUN("--imatrix", im, f32_model(), out, "Q4_0"),
                   "found 1020 values, expected 1024 for 4 matrices with rows of 256", out);
    write_imatrix_gguf(im, imatrix_weight, COLS, "model");
    expect_failure(RUN("--imatrix", im, f32_model(), out, "Q4_0"), "without general.type = imatrix",
                   out);
    expect_failure(RUN("--imatrix", f32_model(), f32_model(), out, "Q4_0"),
                   "without general.type = imatrix", out);
    expect_failure(RUN("--imatrix", "/no/such/file", f32_model(), out, "Q4_0"), "/no/such/file",
                   out);
    write_file(im, "", 0);
    expect_failure(RUN("--imatrix", im, f32_model(), out, "Q4_0"),
                   "no importance matrix, or cut off", out);
}

/* Every length and many flipped bits: an answer, never a crash. */
static void damaged_importance_is_survived(void **state)
{
    (void)state;
    const char *dat = model_temp_path("cut.dat"), *out = model_temp_path("cut-out.gguf");
    fr_buf b = {0};
    uint64_t seed = 5;
    make_imatrix_dat(&b);
    size_t values_at = 4 + 4 + sizeof imatrix_weight - 1 + 8, end = b.n;
    for (size_t n = 0; n < end; n = n == values_at ? end - 12 : n + 1) {
        bool whole = n == end - 11; /* without the trailer, as old writers left it */
        write_file(dat, b.p, n);
        int status = RUN("--imatrix", dat, "--dry-run", f32_model(), out, "Q4_0");
        if (status != (whole ? 0 : 1))
            fail_msg("%zu of %zu bytes: status %d: %s", n, end, status, output);
    }
    for (int i = 0; i < 100; i++) {
        size_t at = (size_t)(test_rand(&seed) % (values_at + 8));
        char old = b.p[at];
        b.p[at] = (char)(old ^ 1 << test_rand(&seed) % 8);
        write_file(dat, b.p, end);
        int status = RUN("--imatrix", dat, "--dry-run", f32_model(), out, "Q4_0");
        assert_true(status == 0 || status == 1);
        b.p[at] = old;
    }
    float nan = NAN;
    memcpy(b.p + values_at + 40, &nan, sizeof nan);
    write_file(dat, b.p, end);
    expect_failure(RUN("--imatrix", dat, f32_model(), out, "Q4_0"), "as value 10, expected", out);
    fr_buf_free(&b);
}

/* ---- bad input ------------------------------------------------------------------------------ */

static void bad_weights_are_counted(void **state)
{
    (void)state;
    const char *in = model_temp_path("nan.gguf"), *out = model_temp_path("nan-out.gguf");
    const char *text =
        "tensor blk.0.ffn_down_exps.weight: found 1 NaN and 0 infinite weights of 8192";
    write_variant(in, &(variant){"blk.0.ffn_down_exps.weight", 5000, NAN, FR_TYPE_F32});
    expect_failure(RUN(in, out, "Q4_0"), text, out);
    expect_failure(RUN(in, out, "COPY"), text, out);
    assert_run(in, out, "F32", "--allow-nan");
    assert_non_null(strstr(output, "1 weights were NaN or infinite and are 0 now"));
    fr_gguf *g = open_model(out);
    const float *x = fr_gguf_tensor_data(g, fr_gguf_find_tensor(g, "blk.0.ffn_down_exps.weight"));
    assert_true(x[5000] == 0 && x[4999] != 0 && isfinite(x[5001]));
    fr_gguf_close(g);
    unlink(out);

    write_variant(in, &(variant){"output_norm.weight", 3, -INFINITY, FR_TYPE_F16});
    expect_failure(RUN(in, out, "Q8_0"),
                   "tensor output_norm.weight: found 0 NaN and 1 infinite weights of 256", out);
    write_variant(in, &(variant){"output.weight", 300, 1e30f, FR_TYPE_F32});
    expect_failure(RUN(in, out, "Q8_0"), "tensor output.weight: row 1 is too large for q8_0", out);
    expect_failure(RUN(in, out, "F16"), "tensor output.weight: row 1 is too large for f16", out);
    assert_run(in, out, "BF16");
}

static void bad_files_are_refused(void **state)
{
    (void)state;
    const char *in = model_temp_path("cut.gguf"), *out = model_temp_path("cut-out2.gguf");
    fr_buf b = {0};
    fr_err err;
    assert_ok(fr_file_slurp(f32_model(), 1 << 24, &b, &err));
    write_file(in, b.p, b.n - 1000);
    expect_failure(RUN(in, out, "Q8_0"), "truncated", out);
    assert_run("--dry-run", in, "Q8_0");
    assert_non_null(strstr(output, "total: 8 tensors, "));
    write_file(in, b.p, 100);
    expect_failure(RUN("--dry-run", in, "Q8_0"), "cut.gguf", out);
    write_file(in, "", 0);
    expect_failure(RUN(in, out, "Q8_0"), "cut.gguf", out);
    fr_buf_free(&b);
    expect_failure(RUN("/no/such.gguf", out, "Q8_0"), "/no/such.gguf", out);
    expect_failure(RUN(TEST_FILE("data/gguf/ok-nothing.gguf"), out, "Q8_0"), "found no tensors",
                   out);
    expect_failure(RUN(f32_model(), "/no/such/folder/x.gguf", "Q8_0"), "cannot be created", out);
    if (RUN(f32_model(), f32_model(), "Q8_0") != 1 || !strstr(output, "is the input too"))
        fail_msg("%s", output);
    assert_true(access(f32_model(), F_OK) == 0);
}

/* All files of the reader's tests, right and wrong: an answer, never a crash. */
static void strange_files_are_survived(void **state)
{
    (void)state;
    const char *out = model_temp_path("strange.gguf");
    DIR *dir = opendir(TEST_FILE("data/gguf"));
    int n = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)); n++) {
        char path[512];
        snprintf(path, sizeof path, TEST_FILE("data/gguf/%s"), e->d_name);
        bool bad = strncmp(e->d_name, "ok-", 3) != 0;
        int status = RUN("--allow-requantize", path, out, "Q4_K_M");
        if (status > 1 || (bad && status == 0))
            fail_msg("%s: status %d: %s", path, status, output);
        assert_true(RUN("--repack", "--dry-run", path, "COPY") <= 1);
    }
    closedir(dir);
    assert_true(n > 50);
}

static void bad_command_lines_are_refused(void **state)
{
    (void)state;
    const char *out = model_temp_path("never.gguf");
    const char *in = f32_model();
    expect_failure(RUN(in), "found 1 arguments", out);
    expect_failure(RUN(in, out, "Q4_K_N"), "did you mean Q4_K_", out);
    expect_failure(RUN(in, out, "IQ1_S_R4"), "no interleaved form of IQ1_S", out);
    expect_failure(RUN(in, out, "Q8_0", "many"), "THREADS: found 'many'", out);
    expect_failure(RUN(in, out, "Q8_0", "--output-tensor-type", "q9"), "'q9' is not a type", out);
    expect_failure(RUN(in, out, "Q8_0", "--custom-q", "exps"), "expected REGEX=TYPE", out);
    expect_failure(RUN(in, out, "Q8_0", "--custom-q", "exps=q9"), "'q9' is not a type", out);
    expect_failure(RUN(in, out, "Q8_0", "--custom-q", "a(b=q8_0"), "in 'a(b', at character 4", out);
    expect_failure(RUN(in, out, "Q8_0", "--custom-q", "(([a-z_]+)*)+\\d=q8_0"), "too many steps",
                   out);
    expect_failure(RUN(in, out, "Q8_0", "--custom-q", "exps=q8_k_r8"), "cannot write", out);

    /* Quantized input needs a word more. */
    const char *q8 = model_temp_path("q8.gguf");
    assert_run(in, q8, "Q8_0");
    expect_failure(RUN(q8, out, "Q4_0"), "6 tensors are quantized already, the first is token_embd",
                   out);
    assert_run("--allow-requantize", q8, out, "Q4_0");
    assert_run(q8, out, "Q8_0"); /* nothing to do */
}

static void interrupted_runs_leave_nothing(void **state)
{
    (void)state;
    const char *out = model_temp_path("interrupted.gguf");
    const char *words[] = {"--allow-requantize", "--pure", MODEL_KJV, out, "IQ5_K", "1"};
    int fd = open("/dev/null", O_WRONLY);
    pid_t pid = start(fd, words, sizeof words / sizeof *words);
    nanosleep(&(struct timespec){0, 300 * 1000 * 1000}, NULL);
    kill(pid, SIGINT);
    int status = finish(pid);
    close(fd);
    output[0] = 0;
    expect_failure(status, "", out);
}

/* ---- split sets ----------------------------------------------------------------------------- */

static void put_int(fr_gguf_writer *w, const char *key, uint32_t v)
{
    fr_err err;
    assert_ok(fr_gguf_put_u32(w, key, v, &err));
}

/* Three parts of the same model; the path of the first. */
static const char *split_model(void)
{
    static const size_t first[] = {0, 2, 5, N_SHAPES};
    static char path[256];
    for (uint32_t no = 3; no-- > 0;) {
        char name[64];
        fr_gguf_writer *w;
        fr_err err;
        snprintf(name, sizeof name, "set-%05u-of-00003.gguf", no + 1);
        snprintf(path, sizeof path, "%s", model_temp_path(name));
        assert_ok(fr_gguf_writer_create(path, &w, &err));
        if (no == 0)
            put_keys(w);
        put_int(w, "split.no", no);
        put_int(w, "split.count", 3);
        put_int(w, "split.tensors.count", N_SHAPES);
        put_tensors(w, &(variant){.type = FR_TYPE_F32}, first[no], first[no + 1]);
        assert_ok(fr_gguf_writer_close(w, true, &err));
    }
    return path;
}

static void split_sets_are_joined_or_kept(void **state)
{
    (void)state;
    const char *in = split_model(), *out = model_temp_path("joined.gguf");
    assert_run(in, out, "Q8_0");
    fr_gguf *g = open_model(out);
    assert_int_equal(fr_gguf_n_files(g), 1);
    assert_null(fr_gguf_find(g, "split.count"));
    assert_encoded(g, "blk.0.ffn_down_exps.weight", FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, NULL);
    fr_gguf_close(g);

    assert_run("--keep-split", in, model_temp_path("kept.gguf"), "Q8_0");
    g = open_model(model_temp_path("kept-00001-of-00003.gguf"));
    assert_int_equal(fr_gguf_n_files(g), 3);
    assert_int_equal(fr_gguf_n_tensors(g), N_SHAPES);
    assert_key(g, "split.tensors.count", N_SHAPES);
    assert_key(g, "general.file_type", 7);
    assert_int_equal(fr_gguf_find_tensor(g, "blk.0.ffn_down_exps.weight")->i_file, 2);
    assert_encoded(g, "blk.0.ffn_down_exps.weight", FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, NULL);
    assert_encoded(g, "output.weight", FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, NULL);
    fr_gguf_close(g);

    /* Onto itself, by the name that the parts would get. */
    if (RUN("--keep-split", in, model_temp_path("set.gguf"), "Q8_0") != 1 ||
        !strstr(output, "is the input too"))
        fail_msg("%s", output);
    assert_run("--keep-split", in, model_temp_path("kept2-00001-of-00009.gguf"), "Q8_0");
    assert_true(access(model_temp_path("kept2-00003-of-00003.gguf"), F_OK) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_the_encoders),
        cmocka_unit_test(interleaved_forms),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(rules_options_and_mix),
        cmocka_unit_test(importance_weighs_the_errors),
        cmocka_unit_test(wrong_importance_is_refused),
        cmocka_unit_test(damaged_importance_is_survived),
        cmocka_unit_test(bad_weights_are_counted),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(strange_files_are_survived),
        cmocka_unit_test(bad_command_lines_are_refused),
        cmocka_unit_test(interrupted_runs_leave_nothing),
        cmocka_unit_test(split_sets_are_joined_or_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
