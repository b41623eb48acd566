/* The layout that each weight gets in memory. */
#include <stdio.h>

#include "base/log.h"
#include "model/model.h"

/* Weights that somebody reads row by row, or as floats, and those that the store makes itself. */
static bool is_fixed(const fr_model_weight *w)
{
    bool vector = w->shape.rows == 1 && w->shape.n_mat == 1;
    return w->role == FR_ROLE_TOKEN_EMBD || vector || w->derive != FR_DERIVE_NONE || !w->src;
}

/* A view of rows that stand together needs whole groups. */
static bool views_allow(const fr_model *m, int weight, int64_t group)
{
    for (int i = weight + 1; i < m->n_weights; i++) {
        const fr_model_weight *v = &m->weights[i];
        if (v->layer != m->weights[weight].layer)
            return true; /* what is derived stands in the same layer */
        if (v->derive == FR_DERIVE_VIEW && v->from == weight &&
            (v->src_row % group != 0 || v->src_step % group != 0 || v->shape.rows % group != 0))
            return false;
    }
    return true;
}

bool fr_model_layout_possible(const fr_model *m, int weight, fr_layout layout)
{
    const fr_model_weight *w = &m->weights[weight];
    const fr_weight *s = &w->shape;
    if (layout == s->layout)
        return true;
    return !is_fixed(w) && fr_type_check(s->type, layout, s->rows, s->cols, NULL) == FR_OK &&
           views_allow(m, weight, fr_layout_rows(s->type, layout));
}

static void set_layout(fr_model_weight *w, fr_layout layout)
{
    w->shape = fr_weight_make(w->shape.type, layout, w->shape.cols, w->shape.rows, w->shape.n_mat);
    w->bytes = w->shape.mat_bytes * (uint64_t)w->shape.n_mat;
}

static void set_view(fr_model_weight *v, const fr_weight *from)
{
    v->shape =
        fr_weight_make(from->type, from->layout, v->shape.cols, v->shape.rows, v->shape.n_mat);
    v->shape.mat_bytes = (size_t)v->src_step * fr_row_bytes(from->type, from->layout, from->cols);
}

/* Types with a fast layout whose shape does not let them have it. */
static void report_plain(const fr_model *m, int n, int first)
{
    const fr_weight *s = &m->weights[first].shape;
    fr_log_info("layout: %d weight%s stay%s plain, which is slower: %s has %lld rows of %lld, and "
                "groups of %s take %d",
                n, n > 1 ? "s" : "", n > 1 ? "" : "s", m->weights[first].name, (long long)s->rows,
                (long long)s->cols, fr_type_name(s->type, FR_LAYOUT_INTERLEAVED),
                fr_layout_rows(s->type, FR_LAYOUT_INTERLEAVED));
}

void fr_model_set_layouts(fr_model *m, bool fastest)
{
    int n_plain = 0, first = -1;
    for (int i = 0; i < m->n_weights; i++) {
        fr_model_weight *w = &m->weights[i];
        if (w->derive == FR_DERIVE_VIEW)
            set_view(w, &m->weights[w->from].shape);
        if (is_fixed(w))
            continue;
        set_layout(w, w->src->layout);
        const fr_weight *s = &w->shape;
        fr_layout best = fr_layout_in_memory(s->type, s->rows, s->cols);
        if (!fastest)
            continue;
        if (fr_model_layout_possible(m, i, best))
            set_layout(w, best);
        else if (fr_model_layout_possible(m, i, FR_LAYOUT_INTERLEAVED)) /* smaller groups */
            set_layout(w, FR_LAYOUT_INTERLEAVED);
        const fr_type_info *t = fr_type_get(s->type);
        if (s->layout == FR_LAYOUT_PLAIN && t->weights > 1 && t->group > 0 && n_plain++ == 0)
            first = i;
    }
    if (n_plain > 0)
        report_plain(m, n_plain, first);
}
