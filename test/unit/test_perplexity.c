/* ferry-perplexity: scores of positions, files of log-probabilities, divergences. */
#include <math.h>

#include "testing.h"

#include "perplexity/kld.h"
#include "perplexity/logprob_file.h"
#include "support/models.h"
#include "support/run_logits.h"

static fr_err err;

/* ---- one position */

static void row_scores(void **state)
{
    (void)state;
    const float logits[] = {5, 5 + logf(2), 5 + logf(3), 5 + logf(2)}; /* 1 : 2 : 3 : 2 */
    tool_row row = tool_row_score(logits, 4, 1);
    assert_true(fabs(row.nll - log(4)) < 1e-6);
    assert_true(fabs(row.log_sum - (5 + log(8))) < 1e-6);
    assert_int_equal(row.top, 2);
    assert_true(row.max == logits[2] && row.min == logits[0]);
    const float large[] = {-1000, 3000, 2999};
    assert_true(fabs(tool_row_score(large, 3, 2).nll - (1 + log1p(exp(-1)))) < 1e-12);
    const float nan[] = {0, NAN, 1};
    assert_true(isnan(tool_row_score(nan, 3, 0).nll));
}

static void perplexity_and_error(void **state)
{
    (void)state;
    tool_nll s = {.nll = 1 + 2 + 6, .nll2 = 1 + 4 + 36, .n = 3};
    assert_true(fabs(tool_ppl(&s) - exp(3)) < 1e-12);
    double variance = 41.0 / 3 - 9; /* over n */
    assert_true(fabs(tool_ppl_error(&s) - exp(3) * sqrt(variance / 2)) < 1e-12);
    tool_nll one = {.nll = 2, .nll2 = 4, .n = 1};
    assert_true(tool_ppl_error(&one) == 0);
}

/* ---- chunks of a model */

enum { CHUNK = 24 };

static tool_chunks ids_in_chunks(void)
{
    tool_chunks c = {.n_ctx = CHUNK, .bos = 0};
    c.tokens = logits_read_ids(TEST_FILE("data/logits/ids.txt"));
    c.n_chunks = (int64_t)c.tokens.n / CHUNK;
    return c;
}

/* The definition: every chunk by itself, BOS first, the second half scored. */
static tool_nll naive_sum(const fr_engine_config *cfg, const tool_chunks *c, int64_t n_vocab)
{
    tool_nll sum = {0};
    for (int64_t i = 0; i < c->n_chunks; i++) {
        fr_tokens chunk = {0};
        for (int64_t t = 0; t < c->n_ctx; t++)
            assert_ok(fr_tokens_add(&chunk, t ? c->tokens.ids[i * c->n_ctx + t] : c->bos, &err));
        float *logits = logits_run(cfg, &chunk);
        for (int64_t t = c->n_ctx / 2; t < c->n_ctx - 1; t++) {
            double total = 0;
            for (int64_t v = 0; v < n_vocab; v++)
                total += exp((double)logits[t * n_vocab + v]);
            double nll = log(total) - (double)logits[t * n_vocab + chunk.ids[t + 1]];
            sum.nll += nll;
            sum.nll2 += nll * nll;
            sum.n++;
        }
        free(logits);
        fr_tokens_free(&chunk);
    }
    return sum;
}

static tool_nll score_all(const fr_engine_config *cfg, const tool_chunks *c)
{
    fr_engine *e;
    tool_scorer *s;
    assert_ok(fr_engine_open(cfg, &e, &err));
    assert_ok(tool_scorer_open(e, c, true, &s, &err));
    for (int64_t i = 0; i < c->n_chunks; i++)
        assert_ok(tool_scorer_run(s, i, NULL, NULL, &err));
    tool_nll sum = *tool_scorer_total(s);
    tool_scorer_close(s);
    fr_engine_close(e);
    return sum;
}

static void chunks_are_scored(void **state)
{
    (void)state;
    tool_chunks c = ids_in_chunks();
    fr_engine_config cfg = logits_config(MODEL_V3);
    cfg.n_ctx = CHUNK;
    assert_int_equal(c.n_chunks, 4);
    tool_nll truth = naive_sum(&cfg, &c, 1024), found = score_all(&cfg, &c);
    assert_int_equal(found.n, 4 * (CHUNK - 1 - CHUNK / 2));
    assert_int_equal(found.n, truth.n);
    assert_true(fabs(found.nll - truth.nll) < 1e-9 * truth.nll);
    assert_true(fabs(found.nll2 - truth.nll2) < 1e-9 * truth.nll2);
    cfg.n_threads = 1;
    tool_nll one = score_all(&cfg, &c);
    assert_true(one.nll == found.nll && one.nll2 == found.nll2);
    cfg.n_ubatch = 5; /* batches across the middle of the chunk */
    assert_true(fabs(score_all(&cfg, &c).nll - truth.nll) < 1e-4 * truth.nll);
    tool_chunks_free(&c);
}

static void text_becomes_chunks(void **state)
{
    (void)state;
    fr_gguf *g;
    fr_vocab *v;
    fr_options o = {.prompt_file = (char *)(uintptr_t)TEST_FILE("data/text/kjv-heldout.txt")};
    tool_chunks c;
    int64_t n_ctx;
    assert_ok(fr_gguf_open(MODEL_KJV, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_vocab_open(g, &v, &err));
    assert_ok(tool_chunk_size(&o, &n_ctx, &err));
    assert_int_equal(n_ctx, 512);
    assert_ok(tool_chunks_read(&o, v, n_ctx, &c, &err));
    assert_int_equal(c.n_chunks, 38); /* as the leading peer counts them */
    assert_int_equal(c.bos, fr_vocab_bos(v));
    assert_int_equal(c.tokens.ids[0], c.bos);
    tool_chunks_free(&c);
    assert_int_equal(tool_chunks_read(&o, v, 10000, &c, &err), FR_ERANGE);
    assert_non_null(strstr(err.text, "expected at least 20000, two chunks of 10000"));
    o.ctx_size = 3;
    assert_int_equal(tool_chunk_size(&o, &n_ctx, &err), FR_ERANGE);
    fr_vocab_free(v);
    fr_gguf_close(g);
}

/* ---- records and their files */

static void records_keep_logarithms(void **state)
{
    (void)state;
    enum { N = 1001 };
    static float logits[N];
    static uint16_t record[2000];
    uint64_t seed = 7;
    assert_int_equal(logprob_record_values(N), 4 + 1002);
    assert_int_equal(logprob_record_values(1000), 4 + 1000);
    for (int wide = 0; wide < 2; wide++) {
        for (int i = 0; i < N; i++)
            logits[i] = test_rand_f(&seed) * (wide ? 30 : 3);
        tool_row row = tool_row_score(logits, N, 0);
        logprob_record_make(logits, N, &row, record);
        logprob_scale s = logprob_record_scale(record);
        const uint16_t *q = logprob_record_q(record);
        assert_true(s.scale * 65535 <= 16.001f);
        assert_int_equal(q[row.top], 65535);
        assert_int_equal(q[N], 0);
        for (int i = 0; i < N; i++) {
            double truth = (double)logits[i] - row.log_sum;
            double floor = (double)row.max - 16 - row.log_sum;
            double found = (double)s.lowest + (double)s.scale * q[i];
            double expected = truth > floor ? truth : floor;
            assert_true(fabs(found - expected) < 0.51 * (double)s.scale + 1e-5);
        }
    }
    float flat[4] = {2, 2, 2, 2};
    tool_row row = tool_row_score(flat, 4, 0);
    logprob_record_make(flat, 4, &row, record);
    assert_true(fabs((double)logprob_record_scale(record).lowest - log(0.25)) < 1e-6);
    assert_int_equal(logprob_record_q(record)[3], 0);
}

/* A file of 3 chunks of 4 tokens (1 record each) over 5 tokens. */
static void write_small(const char *path)
{
    static const float logits[3][5] = {{1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}, {0, 0, 9, 0, 0}};
    static int32_t ids[12] = {0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1};
    tool_chunks c = {.tokens = {ids, 12, 12}, .n_ctx = 4, .n_chunks = 3};
    uint16_t record[10];
    fr_out_file f;
    assert_ok(logprob_file_create(path, &c, 3, 5, &f, &err));
    for (int i = 0; i < 3; i++) {
        tool_row row = tool_row_score(logits[i], 5, ids[4 * i + 3]);
        logprob_record_make(logits[i], 5, &row, record);
        assert_ok(fr_file_write(&f, record, sizeof record, &err));
    }
    assert_ok(fr_file_commit(&f, &err));
}

static void write_bytes(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb"); /* without the sync of fr_file_commit: there are thousands */
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void files_come_back(void **state)
{
    (void)state;
    const char *path = model_temp_path("small.bin");
    logprob_file f;
    uint16_t record[10];
    write_small(path);
    assert_ok(logprob_file_open(path, &f, &err));
    assert_int_equal(f.n_vocab, 5);
    assert_int_equal(f.chunks.n_ctx, 4);
    assert_int_equal(f.chunks.n_chunks, 3);
    assert_int_equal(f.chunks.tokens.n, 12);
    assert_int_equal(f.chunks.tokens.ids[11], 1);
    assert_ok(logprob_file_read(&f, 1, record, &err));
    assert_int_equal(logprob_record_q(record)[0], 65535);
    assert_int_equal(logprob_record_q(record)[4], 0);
    assert_ok(logprob_file_read(&f, 2, record, &err));
    assert_int_equal(logprob_record_q(record)[2], 65535);
    logprob_file_close(&f);
}

static void damaged_files(void **state)
{
    (void)state;
    const char *path = model_temp_path("good.bin"), *bad = model_temp_path("bad.bin");
    fr_buf good = {0}, b = {0};
    logprob_file f;
    write_small(path);
    assert_ok(fr_file_slurp(path, 1 << 20, &good, &err));
    for (size_t n = 0; n < good.n; n++) {
        write_bytes(bad, good.p, n);
        assert_int_equal(logprob_file_open(bad, &f, &err), FR_EFORMAT);
    }
    /* offset, value: sizes of the header, then a token */
    static const int32_t changes[][2] = {{8, 3},  {8, -1},       {8, INT32_MAX},  {12, 0},
                                         {12, 7}, {12, 1 << 30}, {16, 2},         {16, INT32_MAX},
                                         {20, 5}, {24, -1},      {64, INT32_MIN}, {16, -3}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        fr_buf_clear(&b);
        assert_ok(fr_buf_add(&b, good.p, good.n, &err));
        memcpy(b.p + changes[i][0], &changes[i][1], 4);
        write_bytes(bad, b.p, b.n);
        assert_int_equal(logprob_file_open(bad, &f, &err), FR_EFORMAT);
    }
    assert_int_equal(logprob_file_open("/nonexistent/x", &f, &err), FR_ENOTFOUND);
    fr_buf_free(&b);
    fr_buf_free(&good);
}

/* ---- divergence */

static double ln_p(const float *logits, int n, int i)
{
    double total = 0;
    for (int k = 0; k < n; k++)
        total += exp((double)logits[k]);
    return (double)logits[i] - log(total);
}

static void divergence_of_rows(void **state)
{
    (void)state;
    enum { N = 300 };
    static float base[N], model[N];
    static uint16_t record[N + 4];
    uint64_t seed = 3;
    for (int i = 0; i < N; i++) {
        base[i] = 4 * test_rand_f(&seed);
        model[i] = base[i] + test_rand_f(&seed);
    }
    double kld = 0;
    for (int i = 0; i < N; i++)
        kld += exp(ln_p(base, N, i)) * (ln_p(base, N, i) - ln_p(model, N, i));
    tool_row of_base = tool_row_score(base, N, 17), of_model = tool_row_score(model, N, 17);
    logprob_record_make(base, N, &of_base, record);
    kld_row r = kld_row_make(model, N, 17, &of_model, record);
    assert_true(kld > 0.01);
    assert_true(fabs(r.kld - kld) < 1e-4);
    assert_true(fabs(r.nll + ln_p(model, N, 17)) < 1e-6);
    assert_true(fabs(r.nll_base + ln_p(base, N, 17)) < 1e-4);
    assert_true(fabs(r.dp - (exp(ln_p(model, N, 17)) - exp(ln_p(base, N, 17)))) < 1e-5);
    kld_row same = kld_row_make(base, N, 17, &of_base, record);
    assert_true(fabs(same.kld) < 1e-5 && fabs(same.dp) < 1e-5 && same.same_top);
    model[(of_base.top + 1) % N] = 20;
    of_model = tool_row_score(model, N, 17);
    assert_false(kld_row_make(model, N, 17, &of_model, record).same_top);
}

static void summary_of_rows(void **state)
{
    (void)state;
    const kld_row rows[] = {
        {1, 1.5, 0.1, 0.2, true}, {2, 2, 0.3, -0.1, true}, {6, 4, 0.2, 0, false}};
    kld_rows all = {0};
    assert_ok(kld_rows_add(&all, rows, 1, &err));
    assert_ok(kld_rows_add(&all, rows + 1, 2, &err));
    kld_summary k = kld_summarize(&all);
    assert_true(fabs(k.ppl.mean - exp(3)) < 1e-9);
    assert_true(fabs(k.ppl.error - exp(3) * sqrt((41.0 / 3 - 9) / 2)) < 1e-9);
    assert_true(fabs(k.ppl_base.mean - exp(2.5)) < 1e-9);
    assert_true(fabs(k.ln_ratio.mean - 0.5) < 1e-9);
    /* differences -0.5, 0, 2: variance over n = 4.25 / 3 - 0.25 */
    assert_true(fabs(k.ln_ratio.error - sqrt((4.25 / 3 - 0.25) / 2)) < 1e-9);
    assert_true(fabs(k.ratio.mean - exp(0.5)) < 1e-9);
    assert_true(fabs(k.kld.mean - 0.2) < 1e-9);
    assert_true(fabs(k.rms_dp.mean - sqrt(0.05 / 3)) < 1e-9);
    assert_true(fabs(k.same_top.mean - 2.0 / 3) < 1e-9);
    assert_true(fabs(k.same_top.error - sqrt(2.0 / 9 / 2)) < 1e-9);
    /* nll 1, 2, 6 and 1.5, 2, 4 about their means */
    double cor = (2 * 1 + 1 * 0.5 + 3 * 1.5) / sqrt(14 * 3.5);
    assert_true(fabs(k.correlation - cor) < 1e-9);
    kld_rows_free(&all);
    const double sorted[] = {1, 2, 4, 8};
    assert_true(kld_percentile(sorted, 4, 0.5) == 3);
    assert_true(kld_percentile(sorted, 4, 1) == 8);
    assert_true(kld_percentile(sorted, 4, 0) == 1);
    assert_true(kld_percentile(sorted, 1, 0.999) == 1);
}

/* ---- memory */

static fr_status everything(const char *path, fr_engine *e, const tool_chunks *c, fr_err *er)
{
    kld_rows all = {0};
    kld_row row = {0};
    tool_scorer *s = NULL;
    logprob_file f;
    FR_TRY(logprob_file_open(path, &f, er));
    fr_status st = kld_rows_add(&all, &row, 1, er);
    if (st == FR_OK)
        st = tool_scorer_open(e, c, true, &s, er);
    if (st == FR_OK)
        st = tool_scorer_run(s, 0, NULL, NULL, er);
    tool_scorer_close(s);
    kld_rows_free(&all);
    logprob_file_close(&f);
    return st;
}

static void out_of_memory(void **state)
{
    (void)state;
    const char *path = model_temp_path("oom.bin");
    tool_chunks c = ids_in_chunks();
    fr_engine_config cfg = logits_config(MODEL_V3);
    fr_engine *e;
    cfg.n_ctx = CHUNK;
    write_small(path);
    assert_ok(fr_engine_open(&cfg, &e, &err));
    size_t before = fr_mem_total().bytes_now;
    fr_status st = FR_ENOMEM;
    uint64_t n = 0;
    while (st == FR_ENOMEM) {
        fr_mem_fail_at(++n, 0);
        st = everything(path, e, &c, &err);
        fr_mem_fail_at(0, 0);
        assert_int_equal(fr_mem_total().bytes_now, before);
    }
    assert_ok(st);
    assert_true(n > 8);
    fr_engine_close(e);
    tool_chunks_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_scores),
        cmocka_unit_test(perplexity_and_error),
        cmocka_unit_test(chunks_are_scored),
        cmocka_unit_test(text_becomes_chunks),
        cmocka_unit_test(records_keep_logarithms),
        cmocka_unit_test(files_come_back),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(divergence_of_rows),
        cmocka_unit_test(summary_of_rows),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
