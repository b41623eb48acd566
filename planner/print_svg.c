/* The plan as a picture: bars and a map, drawn with rectangles and text only. */
#include <stdio.h>
#include <string.h>

#include "planner/print_parts.h"

enum {
    LEFT = 150, /* of bars and maps */
    BAR_WIDTH = 700,
    BAR_HEIGHT = 26,
    BAR_STEP = 50,
    MAP_ROW = 16,
    WIDTH = LEFT + BAR_WIDTH + 40
};

static const char *const colors[PLAN_PURPOSES] = {"#4878a8", "#59a257", "#e0a030",
                                                  "#9b6bb3", "#40a6a6", "#b05050"};

typedef struct {
    const fr_plan *p;
    fr_buf *out;
    fr_err *err;
    int y;
} painter;

#define PUT(pt, ...) fr_buf_printf((pt)->out, (pt)->err, __VA_ARGS__)

static double gib(uint64_t bytes)
{
    return (double)bytes / (double)(1 << 30);
}

/* Text with what XML reserves escaped, and without what XML cannot hold. */
static fr_status put_text(painter *pt, fr_str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        int n = fr_utf8_decode(s.p + i, s.n - i, &cp);
        if (cp == '<' || cp == '&' || cp == '>' || cp == '"' || cp == '\'')
            FR_TRY(PUT(pt, "&#%u;", cp));
        else if (cp >= 32 && cp != 127 && cp < 0xFFFE)
            FR_TRY(fr_buf_add(pt->out, s.p + i, (size_t)n, pt->err));
        else
            FR_TRY(PUT(pt, "?"));
        i += (size_t)n;
    }
    return FR_OK;
}

static fr_status label(painter *pt, double x, double y, const char *attributes, fr_str text)
{
    FR_TRY(PUT(pt, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes));
    FR_TRY(put_text(pt, text));
    return PUT(pt, "</text>\n");
}

static fr_status rect(painter *pt, double x, double y, double w, double h, const char *fill)
{
    return PUT(pt, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"", x, y,
               w, h, fill);
}

/* ---- bars --------------------------------------------------------------------------------------
 */

static fr_status draw_bar(painter *pt, const fr_plan_device *v)
{
    char text[128];
    double x = LEFT, scale = v->budget > 0 ? BAR_WIDTH / (double)v->budget : 0;
    FR_TRY(label(pt, 10, pt->y + 12, "font-weight=\"bold\"", fr_str_of(v->id)));
    FR_TRY(label(pt, 10, pt->y + 26, "font-size=\"10\"", fr_str_of(v->name)));
    FR_TRY(rect(pt, x, pt->y, BAR_WIDTH, BAR_HEIGHT, "#eeeeee"));
    FR_TRY(PUT(pt, " stroke=\"#888888\"/>\n"));
    for (int i = 0; i < PLAN_PURPOSES; i++) {
        uint64_t bytes = plan_purpose_bytes(v, (plan_purpose)i);
        double w = (double)bytes * scale;
        if (bytes == 0)
            continue;
        FR_TRY(rect(pt, x, pt->y, w, BAR_HEIGHT, colors[i]));
        snprintf(text, sizeof text, "%s: %.2f GiB", plan_purpose_names[i], gib(bytes));
        FR_TRY(PUT(pt, "><title>%s</title></rect>\n", text));
        if (w > 110)
            FR_TRY(
                label(pt, x + 5, pt->y + 17, "fill=\"#ffffff\" font-size=\"11\"", fr_str_of(text)));
        x += w;
    }
    snprintf(text, sizeof text, "%.2f of %.2f GiB, %.2f free", gib(v->used), gib(v->budget),
             gib(v->free));
    FR_TRY(label(pt, LEFT, pt->y + BAR_HEIGHT + 13, "font-size=\"11\" fill=\"#555555\"",
                 fr_str_of(text)));
    pt->y += BAR_STEP;
    return FR_OK;
}

static fr_status draw_legend(painter *pt)
{
    for (int i = 0; i < PLAN_PURPOSES; i++) {
        double x = LEFT + i * 110;
        FR_TRY(rect(pt, x, pt->y, 12, 12, colors[i]));
        FR_TRY(PUT(pt, "/>\n"));
        FR_TRY(label(pt, x + 17, pt->y + 11, "font-size=\"11\"", fr_str_of(plan_purpose_names[i])));
    }
    pt->y += 40;
    return FR_OK;
}

/* ---- map ---------------------------------------------------------------------------------------
 */

/* A cell is as dark as the part of the layer's bytes that the device holds. */
static fr_status draw_cell(painter *pt, int layer, bool experts, int dev, double x, double w)
{
    uint64_t all = 0, here = plan_layer_bytes(pt->p, layer, experts, dev);
    for (int d = 0; d < pt->p->n_devices; d++)
        all += plan_layer_bytes(pt->p, layer, experts, d);
    if (here == 0)
        return FR_OK;
    FR_TRY(rect(pt, x, pt->y + 1, w - 1, MAP_ROW - 2, experts ? colors[0] : colors[1]));
    return PUT(pt,
               " fill-opacity=\"%.2f\"><title>layer %d, %s: %.3f GiB, %.0f %% on %s</title>"
               "</rect>\n",
               0.25 + 0.75 * (double)here / (double)all, layer,
               experts ? "routed experts" : "dense part", gib(here),
               100 * (double)here / (double)all, pt->p->devices[dev].id);
}

static fr_status draw_rows(painter *pt, bool experts)
{
    int n_layer = (int)pt->p->model->hp.n_layer;
    double w = (double)BAR_WIDTH / n_layer;
    for (int dev = 0; dev < pt->p->n_devices; dev++) {
        FR_TRY(label(pt, 10, pt->y + 12, "font-size=\"11\"", fr_str_of(pt->p->devices[dev].id)));
        FR_TRY(rect(pt, LEFT, pt->y + 1, BAR_WIDTH, MAP_ROW - 2, "#f4f4f4"));
        FR_TRY(PUT(pt, "/>\n"));
        for (int il = 0; il < n_layer; il++)
            FR_TRY(draw_cell(pt, il, experts, dev, LEFT + il * w, w));
        pt->y += MAP_ROW;
    }
    return FR_OK;
}

static fr_status draw_map(painter *pt)
{
    int n_layer = (int)pt->p->model->hp.n_layer;
    FR_TRY(label(pt, 10, pt->y, "font-weight=\"bold\"",
                 FR_STR("dense parts (attention, norms, shared experts) by layer")));
    pt->y += 8;
    FR_TRY(draw_rows(pt, false));
    pt->y += 24;
    FR_TRY(label(pt, 10, pt->y, "font-weight=\"bold\"", FR_STR("routed experts by layer")));
    pt->y += 8;
    FR_TRY(draw_rows(pt, true));
    for (int il = 0; il < n_layer; il += 10) {
        char number[16];
        snprintf(number, sizeof number, "%d", il);
        FR_TRY(label(pt, LEFT + (double)BAR_WIDTH / n_layer * il, pt->y + 12,
                     "font-size=\"10\" fill=\"#555555\"", fr_str_of(number)));
    }
    pt->y += 24;
    return FR_OK;
}

static fr_status draw_head(painter *pt)
{
    const fr_plan *p = pt->p;
    char text[160], size[32], kv[32];
    FR_TRY(label(pt, 10, 24, "font-size=\"16\" font-weight=\"bold\"", plan_model_name(p->model)));
    snprintf(text, sizeof text, "%s; context %lld, KV cache %s %s, ubatch %lld",
             fr_format_bytes(p->model->file_bytes, size), (long long)p->opts.n_ctx,
             fr_type_get(p->opts.type_k)->name, fr_format_bytes(p->kv_bytes, kv),
             (long long)p->opts.n_ubatch);
    FR_TRY(label(pt, 10, 42, "fill=\"#555555\"", fr_str_of(text)));
    pt->y = 60;
    return FR_OK;
}

fr_status fr_plan_print_svg(const fr_plan *p, fr_buf *out, fr_err *err)
{
    painter pt = {.p = p, .out = out, .err = err};
    int height = 60 + BAR_STEP * p->n_devices + 40 + 2 * (32 + MAP_ROW * p->n_devices) + 24;
    FR_TRY(PUT(&pt,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
               WIDTH, height, WIDTH, height));
    FR_TRY(draw_head(&pt));
    for (int dev = 0; dev < p->n_devices; dev++)
        FR_TRY(draw_bar(&pt, &p->devices[dev]));
    FR_TRY(draw_legend(&pt));
    FR_TRY(draw_map(&pt));
    return PUT(&pt, "</svg>\n");
}
