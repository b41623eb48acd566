/* Kinds of tensor names, and which are near to a text. */
#include "planner/rules_names.h"

#include <string.h>

enum { MAX_KINDS = 256, MAX_WORDS = 1024, MAX_NEAR = 3 };

fr_str plan_name_stem(fr_str name)
{
    static const char *const suffixes[] = {".weight", ".bias"};
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(suffixes[i]);
        if (name.n > n && memcmp(name.p + name.n - n, suffixes[i], n) == 0)
            return (fr_str){name.p, name.n - n};
    }
    return name;
}

/* ---- the index
 * ----------------------------------------------------------------------------------- */

static void add_word(plan_name_index *x, fr_str word)
{
    bool letter = false;
    for (size_t i = 0; i < word.n; i++)
        letter |= (word.p[i] | 32) >= 'a' && (word.p[i] | 32) <= 'z';
    if (!letter || word.n < 2 || x->n_words >= MAX_WORDS)
        return;
    for (size_t i = 0; i < x->n_words; i++)
        if (fr_str_eq(x->words[i], word))
            return;
    x->words[x->n_words++] = word;
}

/* All runs of whole '_' parts of each '.' part. */
static void add_words(plan_name_index *x, fr_str text)
{
    for (size_t from = 0; from < text.n; from++) {
        if (from > 0 && text.p[from - 1] != '.' && text.p[from - 1] != '_')
            continue;
        for (size_t to = from; to <= text.n; to++) {
            bool end = to == text.n || text.p[to] == '.';
            if (end || text.p[to] == '_')
                add_word(x, (fr_str){text.p + from, to - from});
            if (end)
                break;
        }
    }
}

static void add_name(plan_name_index *x, fr_str name)
{
    plan_name_kind kind = {.rest = name};
    int64_t layer = -1;
    kind.in_layers = plan_name_layer(name, &layer, &kind.rest);
    x->last_layer = layer > x->last_layer ? layer : x->last_layer;
    size_t i = 0;
    while (i < x->n_kinds &&
           (x->kinds[i].in_layers != kind.in_layers || !fr_str_eq(x->kinds[i].rest, kind.rest)))
        i++;
    if (i == MAX_KINDS)
        return;
    if (i == x->n_kinds) {
        x->kinds[x->n_kinds++] = kind;
        add_words(x, kind.rest);
    }
    plan_layers_add(&x->kinds[i].layers, layer);
}

fr_status plan_names_index(const char *const *names, size_t n, fr_arena *arena,
                           plan_name_index *out, fr_err *err)
{
    *out = (plan_name_index){.last_layer = -1};
    out->kinds = FR_ARENA_NEW(plan_name_kind, arena, MAX_KINDS, err);
    out->words = FR_ARENA_NEW(fr_str, arena, MAX_WORDS, err);
    if (!out->kinds || !out->words)
        return FR_ENOMEM;
    for (size_t i = 0; i < n; i++)
        add_name(out, fr_str_of(names[i]));
    return FR_OK;
}

/* ---- nearest
 * ------------------------------------------------------------------------------------- */

/* Distance to the kind, or to a part of it that ends where its stem ends or begins where it
 * begins: people leave out the rest, because an expression is searched anywhere in a name. */
static int kind_distance(const plan_name_kind *kind, fr_str sample)
{
    enum { CAP = 1000 };
    fr_str stem = plan_name_stem(kind->rest);
    int best = fr_edit_distance(sample, kind->rest, CAP);
    for (size_t from = 0; from < stem.n; from++) {
        if (from > 0 && stem.p[from - 1] != '_' && stem.p[from - 1] != '.')
            continue;
        int d = fr_edit_distance(sample, (fr_str){stem.p + from, stem.n - from}, CAP);
        best = d + (from > 0) < best ? d + (from > 0) : best;
    }
    return best;
}

/* The sample without "blk.N." */
static fr_str sample_rest(fr_str sample)
{
    int64_t layer;
    fr_str rest;
    if (plan_name_layer(sample, &layer, &rest))
        return rest;
    if (sample.n > 4 && memcmp(sample.p, "blk.", 4) == 0)
        sample = (fr_str){sample.p + 4, sample.n - 4};
    while (sample.n && (*sample.p == '.' || (*sample.p >= '0' && *sample.p <= '9')))
        sample.p++, sample.n--;
    return sample;
}

static fr_status print_kind(const plan_name_kind *kind, fr_buf *out, fr_err *err)
{
    FR_TRY(fr_buf_printf(out, err, "%.*s", FR_STR_ARG(kind->rest)));
    if (!kind->in_layers || plan_layers_next(&kind->layers, 0) < 0)
        return FR_OK;
    FR_TRY(fr_buf_puts(out, " (", err));
    FR_TRY(plan_layers_print(&kind->layers, out, err));
    return fr_buf_putc(out, ')', err);
}

fr_status plan_names_nearest(const plan_name_index *x, fr_str sample, fr_buf *out, fr_err *err)
{
    size_t near[MAX_NEAR], n = 0;
    int distances[MAX_NEAR];
    sample = sample_rest(sample);
    for (size_t i = 0; i < x->n_kinds; i++) {
        int d = kind_distance(&x->kinds[i], sample);
        size_t at = n;
        while (at > 0 && distances[at - 1] > d)
            at--;
        if (at >= MAX_NEAR)
            continue;
        n += n < MAX_NEAR;
        for (size_t k = n - 1; k > at; k--)
            near[k] = near[k - 1], distances[k] = distances[k - 1];
        near[at] = i;
        distances[at] = d;
    }
    for (size_t i = 0; i < n && (i == 0 || distances[i] <= distances[0] + 4); i++) {
        FR_TRY(fr_buf_puts(out, i ? ", " : "", err));
        FR_TRY(print_kind(&x->kinds[near[i]], out, err));
    }
    return FR_OK;
}
