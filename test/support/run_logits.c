#include "support/run_logits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static void give_up(const char *what, const fr_err *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    abort();
}

fr_tokens logits_read_ids(const char *path)
{
    fr_err err = {0};
    fr_buf text = {0};
    fr_tokens ids = {0};
    if (fr_file_slurp(path, 1 << 20, &text, &err) != FR_OK)
        give_up(path, &err);
    char *at = text.p, *end;
    for (long id = strtol(at, &end, 10); end != at; id = strtol(at = end, &end, 10))
        if (fr_tokens_add(&ids, (int32_t)id, &err) != FR_OK)
            give_up(path, &err);
    fr_buf_free(&text);
    return ids;
}

float *logits_read_f32(const char *path, size_t *n)
{
    fr_err err = {0};
    fr_buf bytes = {0};
    if (fr_file_slurp(path, 1 << 28, &bytes, &err) != FR_OK)
        give_up(path, &err);
    float *values = malloc(bytes.n + 1);
    memcpy(values, bytes.p, bytes.n);
    *n = bytes.n / sizeof *values;
    fr_buf_free(&bytes);
    return values;
}

fr_engine_config logits_config(const char *model)
{
    fr_engine_config cfg = fr_engine_defaults();
    cfg.model_path = model;
    cfg.n_threads = 2;
    cfg.all_logits = true;
    return cfg;
}

typedef struct {
    float *out;
    int64_t n_vocab;
} sink;

static fr_status keep(void *user, int64_t pos, int64_t n_rows, const float *logits, fr_err *err)
{
    (void)err;
    sink *s = user;
    memcpy(s->out + pos * s->n_vocab, logits, (size_t)(n_rows * s->n_vocab) * sizeof *logits);
    return FR_OK;
}

float *logits_run(const fr_engine_config *cfg, const fr_tokens *ids)
{
    fr_err err = {0};
    fr_engine *e = NULL;
    fr_session *s = NULL;
    if (fr_engine_open(cfg, &e, &err) != FR_OK || fr_session_open(e, &s, &err) != FR_OK)
        give_up(cfg->model_path, &err);
    sink k = {.n_vocab = fr_engine_describe(e).n_vocab};
    k.out = calloc(ids->n, (size_t)k.n_vocab * sizeof *k.out);
    if (fr_session_append_all(s, ids->ids, (int64_t)ids->n, keep, &k, &err) != FR_OK)
        give_up(cfg->model_path, &err);
    fr_session_close(s);
    fr_engine_close(e);
    return k.out;
}

double logits_distance(const float *a, const float *b, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        if (isnan(d))
            return INFINITY;
        difference += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}
