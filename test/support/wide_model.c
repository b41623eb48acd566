#include "support/wide_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/models.h"
#include "support/run_logits.h"

static fr_tokens ids, at;
static float *references[WIDE_REFERENCES];
static char paths[3][256];
static size_t n_vocab;

static void write_form(wide_form form, const char *file, const char *keep)
{
    const model_variant v = {.retype = true, .type = FR_TYPE_F16, .keep = keep};
    fr_err err = {0};
    snprintf(paths[form], sizeof paths[form], "%s", model_temp_path(file));
    if (model_write_variant(paths[WIDE_FILE], &v, paths[form], &err) != FR_OK) {
        fprintf(stderr, "%s: %s\n", paths[form], err.text);
        abort();
    }
}

void wide_open(const char *folder)
{
    static const char *const files[] = {
        [WIDE_EXACT] = "wide.logits.f32", [WIDE_ACT] = "wide-act.logits.f32"};
    char path[256];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/wide.ids.txt", folder);
    ids = logits_read_ids(path);
    snprintf(path, sizeof path, "%s/wide.at.txt", folder);
    at = logits_read_ids(path);
    for (int i = 0; i < WIDE_REFERENCES; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        references[i] = logits_read_f32(path, &n);
    }
    n_vocab = n / at.n;
    snprintf(paths[WIDE_FILE], sizeof paths[0], "%s/wide.gguf", folder);
    write_form(WIDE_F16, "wide-f16.gguf", NULL);
    write_form(WIDE_KV_B_0, "wide-kv_b.gguf", "blk.0.attn_kv_b");
}

void wide_close(void)
{
    for (int i = 0; i < WIDE_REFERENCES; i++)
        free(references[i]);
    fr_tokens_free(&at);
    fr_tokens_free(&ids);
}

const char *wide_path(wide_form form)
{
    return paths[form];
}

float *wide_run(const fr_engine_config *cfg)
{
    float *all = logits_run(cfg, &ids), *out = malloc(at.n * n_vocab * sizeof *out);
    for (size_t i = 0; i < at.n; i++)
        memcpy(out + i * n_vocab, all + (size_t)at.ids[i] * n_vocab, n_vocab * sizeof *out);
    free(all);
    return out;
}

size_t wide_n_logits(void)
{
    return at.n * n_vocab;
}

static double log_sum_exp(const float *x)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n_vocab; i++)
        most = fmax(most, (double)x[i]);
    for (size_t i = 0; i < n_vocab; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

static double divergence(const float *want, const float *got)
{
    double whole_want = log_sum_exp(want), whole_got = log_sum_exp(got), kl = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        double log_p = (double)want[i] - whole_want, log_q = (double)got[i] - whole_got;
        kl += exp(log_p) * (log_p - log_q);
    }
    return kl;
}

wide_distance wide_compare(const float *logits, wide_reference reference)
{
    const float *want = references[reference];
    wide_distance d = {.all = logits_distance(logits, want, wide_n_logits())};
    for (size_t i = 0; i < at.n; i++) {
        size_t from = i * n_vocab;
        d.worst = fmax(d.worst, logits_distance(logits + from, want + from, n_vocab));
        d.kl += divergence(want + from, logits + from) / (double)at.n;
    }
    return d;
}
