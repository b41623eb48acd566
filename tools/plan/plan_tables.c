/* --kv-table, --diff, --probe. */
#include <stdio.h>

#include "plan/plan_tool.h"
#include "planner/kv_table.h"
#include "planner/print.h"

static int fail(fr_status st, const fr_err *err)
{
    int status = tool_fail(FR_TOOL_PLAN, err);
    return st == FR_EINVAL ? TOOL_USAGE : status;
}

/* ---- --kv-table --------------------------------------------------------------------------------
 */

/* The usual lengths, and that of -c among them. */
static size_t lengths_with(int64_t own, int64_t out[9])
{
    static const int64_t usual[] = {4096, 16384, 32768, 65536, 163840, 1048576};
    size_t n = 0, i = 0;
    for (; i < sizeof usual / sizeof *usual; i++) {
        if (own > 0 && own < usual[i] && (i == 0 || own > usual[i - 1]))
            out[n++] = own;
        out[n++] = usual[i];
    }
    if (own > usual[i - 1])
        out[n++] = own;
    return n;
}

/* The type of -ctk alone when it was given, else those that people use. */
static size_t types_of(const fr_options *o, fr_type out[4])
{
    static const fr_type usual[] = {FR_TYPE_F16, FR_TYPE_Q8_0, FR_TYPE_Q4_0};
    fr_layout layout;
    if (fr_opts_origin(o, FR_OPT_cache_type_k).source != FR_FROM_DEFAULT &&
        fr_type_from_name(fr_str_of(o->cache_type_k), out, &layout))
        return 1;
    for (size_t i = 0; i < 3; i++)
        out[i] = usual[i];
    return 3;
}

int plan_kv_table(const fr_options *o)
{
    fr_err err = {0};
    fr_gguf *g = NULL;
    fr_model *m = NULL;
    fr_buf text = {0};
    fr_type types[4];
    int64_t lengths[9];
    fr_kv_table_args args = {.types = types, .lengths = lengths, .kv_window = o->kv_window};
    fr_status st = FR_OK;
    if (o->model)
        FR_TRY_OUT(st, plan_open_model(o, &g, &m, &err));
    args.model = m;
    args.n_types = types_of(o, types);
    args.n_lengths = lengths_with(o->ctx_size, lengths);
    st = fr_kv_table_print(&args, &text, &err);
out:
    fr_model_close(m);
    fr_gguf_close(g);
    if (st == FR_OK)
        return plan_write(&text);
    fr_buf_free(&text);
    return fail(st, &err);
}

/* ---- --diff ------------------------------------------------------------------------------------
 */

int plan_compare(const fr_options *o)
{
    enum { MAX_JSON = 256 << 20 };
    fr_err err = {0};
    fr_buf texts[2] = {{0}}, out = {0};
    size_t n = 0;
    fr_status st = FR_OK;
    if (o->args.n != 2) {
        st = fr_fail(&err, FR_EINVAL, "--diff: found %zu files, expected two: OLD.json NEW.json",
                     o->args.n);
        goto out;
    }
    for (int i = 0; i < 2; i++)
        FR_TRY_OUT(st, fr_file_slurp(o->args.items[i].text, MAX_JSON, &texts[i], &err));
    st = fr_plan_diff((fr_str){texts[0].p, texts[0].n}, (fr_str){texts[1].p, texts[1].n},
                      o->args.items[0].text, o->args.items[1].text, &out, &n, &err);
out:
    fr_buf_free(&texts[0]);
    fr_buf_free(&texts[1]);
    if (st != FR_OK) {
        fr_buf_free(&out);
        return fail(st, &err);
    }
    int status = plan_write(&out);
    return status == 0 && n > 0 ? PLAN_NO : status;
}

/* ---- --probe -----------------------------------------------------------------------------------
 */

int plan_probe(const fr_options *o)
{
    fr_err err = {0};
    fr_hardware hw;
    fr_buf text = {0};
    fr_status st = fr_engine_hardware(o->sim, &hw, &err);
    if (st == FR_OK)
        st = fr_hardware_print_ini(&hw, &text, &err);
    if (st == FR_OK)
        return plan_write(&text);
    fr_buf_free(&text);
    return fail(st, &err);
}
