#include <stdio.h>
#include <string.h>

#include "imatrix/collect.h"

enum { MAX_NAMES = 8 };

static fr_status add_range(fr_buf *out, int64_t from, int64_t to, fr_err *err)
{
    const char *comma = out->n ? ", " : "";
    if (from == to)
        return fr_buf_printf(out, err, "%s%lld", comma, (long long)from);
    return fr_buf_printf(out, err, "%s%lld-%lld", comma, (long long)from, (long long)to);
}

/* "3, 7-12" for the matrices without rows; *n gets their number. */
static fr_status list_unused(const colsum_entry *e, int64_t *n, fr_buf *out, fr_err *err)
{
    *n = 0;
    fr_buf_clear(out);
    for (int64_t m = 0; m < e->n_mat; m++) {
        int64_t from = m;
        while (m < e->n_mat && e->counts[m] == 0)
            m++;
        if (m > from)
            FR_TRY(add_range(out, from, m - 1, err));
        *n += m - from;
    }
    return FR_OK;
}

static fr_status report_experts(colsum *im, const char *name, int layer, fr_buf *list,
                                int64_t *n_unused, fr_err *err)
{
    const colsum_entry *e = colsum_find(im, name);
    int64_t n;
    if (!e)
        return FR_OK;
    FR_TRY(list_unused(e, &n, list, err));
    if (n)
        fprintf(stderr, "layer %d: no token used %lld of %lld experts: %s\n", layer, (long long)n,
                (long long)e->n_mat, list->p);
    *n_unused += n;
    return FR_OK;
}

static bool is_matrix_of_layer(const fr_gguf_tensor *t)
{
    return t->n_dims >= 2 && strncmp(t->name, "blk.", 4) == 0;
}

fr_status collector_report(collector *c, fr_err *err)
{
    fr_buf list = {0}, unseen = {0};
    int64_t n_unused = 0, n_unseen = 0;
    fr_status st = FR_OK;
    for (size_t i = 0; i < fr_gguf_n_tensors(c->model) && st == FR_OK; i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(c->model, i);
        int layer;
        fr_role role;
        if (fr_tensor_name_parse(t->name, &layer, &role) && role == FR_ROLE_FFN_DOWN_EXPS)
            st = report_experts(c->im, t->name, layer, &list, &n_unused, err);
        if (st == FR_OK && is_matrix_of_layer(t) && !colsum_find(c->im, t->name) &&
            n_unseen++ < MAX_NAMES)
            st = fr_buf_printf(&unseen, err, "%s%s", unseen.n ? ", " : "", t->name);
    }
    if (n_unused)
        fprintf(stderr, "experts that no token used have counts of 0; more text may reach them\n");
    if (n_unseen)
        fprintf(stderr,
                "%lld weights of layers have no entry: %s%s; those of attn_kv_b are seen with -mla "
                "0, those of attn_k_b and attn_v_b with -mla 1\n",
                (long long)n_unseen, unseen.p ? unseen.p : "",
                n_unseen > MAX_NAMES ? " and so on" : "");
    fr_buf_free(&list);
    fr_buf_free(&unseen);
    return st;
}
