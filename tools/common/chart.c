#include "common/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"

double tool_tick_step(double max, int most)
{
    double step = pow(10, floor(log10(max / most)));
    while (step * most < max) {
        double lead = step / pow(10, floor(log10(step) + 1e-9));
        step *= lead > 1.5 && lead < 3 ? 2.5 : 2; /* 1, 2, 5, 10 */
    }
    return step;
}

double tool_token_step(double max, int most)
{
    double step = 1;
    while (step * most < max)
        step *= 2;
    return step;
}

static bool ends_in(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && strcasecmp(path + n - m, ending) == 0;
}

#if FERRY_CAIRO

#include <cairo-svg.h>
#include <cairo.h>

/* Sizes in pixels (PNG: twice as many). */
enum {
    WIDTH = 1080,
    PLOT_HEIGHT = 340,
    LEFT = 66,  /* of a panel: numbers and their room */
    RIGHT = 22, /* of a panel */
    HEAD = 54,  /* title */
    LINE = 24,  /* of the legend */
    PANEL_TITLE = 44,
    FOOT = 58,
    SAMPLE = 34 /* a piece of line in the legend */
};

/* Okabe and Ito's palette, without the yellow that white paper swallows: told apart also by people
 * who do not see red and green apart. Markers and dashes tell them apart in print. */
static const double colours[][3] = {
    {0.000, 0.447, 0.698}, {0.835, 0.369, 0.000}, {0.000, 0.620, 0.451}, {0.800, 0.475, 0.655},
    {0.902, 0.624, 0.000}, {0.337, 0.706, 0.914}, {0.250, 0.250, 0.250}};
enum { N_COLOURS = sizeof colours / sizeof *colours, N_MARKERS = 5 };

typedef struct {
    const tool_chart *c;
    cairo_t *cr;
    double legend_lines, x_max, y_max[2];
} canvas;

/* ---- text ------------------------------------------------------------------------------------ */

static void set_font(canvas *v, double size, bool bold)
{
    cairo_select_font_face(v->cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(v->cr, size);
}

static double text_width(canvas *v, const char *text)
{
    cairo_text_extents_t e;
    cairo_text_extents(v->cr, text, &e);
    return e.x_advance;
}

/* align: 0 begins at x, 0.5 is centred there, 1 ends there. */
static void draw_text(canvas *v, double x, double y, double align, const char *text)
{
    cairo_move_to(v->cr, round(x - align * text_width(v, text)), round(y));
    cairo_show_text(v->cr, text);
}

static void grey(canvas *v, double lightness)
{
    cairo_set_source_rgb(v->cr, lightness, lightness, lightness);
}

/* ---- series ---------------------------------------------------------------------------------- */

static void set_series(canvas *v, size_t i)
{
    static const double dash[] = {7, 4};
    const double *rgb = colours[i % N_COLOURS];
    cairo_set_source_rgb(v->cr, rgb[0], rgb[1], rgb[2]);
    cairo_set_line_width(v->cr, 2.2);
    cairo_set_dash(v->cr, dash, i / N_COLOURS % 2 ? 2 : 0, 0);
}

/* Circle, square, triangle, diamond, triangle on its tip; with a white rim. */
static void draw_marker(canvas *v, size_t i, double x, double y)
{
    static const double shapes[N_MARKERS][4][2] = {
        {{0, 0}},
        {{-3.8, -3.8}, {3.8, -3.8}, {3.8, 3.8}, {-3.8, 3.8}},
        {{0, -5}, {4.6, 3.6}, {-4.6, 3.6}, {-4.6, 3.6}},
        {{0, -5.4}, {5.4, 0}, {0, 5.4}, {-5.4, 0}},
        {{0, 5}, {4.6, -3.6}, {-4.6, -3.6}, {-4.6, -3.6}}};
    size_t shape = i % N_MARKERS;
    cairo_new_path(v->cr);
    if (shape == 0)
        cairo_arc(v->cr, x, y, 4.2, 0, 2 * M_PI);
    for (int k = 0; shape > 0 && k < 4; k++)
        cairo_line_to(v->cr, x + shapes[shape][k][0], y + shapes[shape][k][1]);
    cairo_close_path(v->cr);
    cairo_set_dash(v->cr, NULL, 0, 0);
    cairo_fill_preserve(v->cr);
    cairo_set_line_width(v->cr, 1);
    grey(v, 1);
    cairo_stroke(v->cr);
}

/* Draws the legend, or only counts its lines. */
static double legend(canvas *v, bool draw)
{
    double x = LEFT, y = HEAD + LINE / 2.0, lines = 1;
    set_font(v, 13, false);
    for (size_t i = 0; i < v->c->n_series; i++) {
        double width = SAMPLE + 8 + text_width(v, v->c->series[i].label) + 26;
        if (x > LEFT && x + width > WIDTH - RIGHT) {
            x = LEFT;
            y += LINE;
            lines++;
        }
        if (draw) {
            set_series(v, i);
            cairo_move_to(v->cr, x, y);
            cairo_line_to(v->cr, x + SAMPLE, y);
            cairo_stroke(v->cr);
            set_series(v, i);
            draw_marker(v, i, x + SAMPLE / 2.0, y);
            grey(v, 0.15);
            draw_text(v, x + SAMPLE + 8, y + 4.5, 0, v->c->series[i].label);
        }
        x += width;
    }
    return lines;
}

/* ---- a panel --------------------------------------------------------------------------------- */

typedef struct {
    double x, y, width, height; /* of the area within the axes */
    double x_step, x_max, y_step, y_max;
} area;

static area area_of(const canvas *v, int panel)
{
    area a = {.y = HEAD + v->legend_lines * LINE + PANEL_TITLE, .height = PLOT_HEIGHT};
    double each = (double)WIDTH / v->c->n_panels;
    a.x = panel * each + LEFT;
    a.width = each - LEFT - RIGHT;
    a.x_step = tool_token_step(v->x_max, v->c->n_panels == 1 ? 12 : 6);
    a.x_max = v->x_max;
    a.y_step = tool_tick_step(v->y_max[panel], 6);
    a.y_max = ceil(v->y_max[panel] / a.y_step - 1e-9) * a.y_step;
    return a;
}

static double at_x(const area *a, double x)
{
    return a->x + 6 + (a->width - 12) * x / a->x_max;
}

static double at_y(const area *a, double y)
{
    return a->y + a->height * (1 - y / a->y_max);
}

static void format_tokens(double v, double step, char *out, size_t n)
{
    if (v > 0 && step >= 1024)
        snprintf(out, n, "%.0fk", v / 1024);
    else
        snprintf(out, n, "%.0f", v);
}

static void line(canvas *v, double x0, double y0, double x1, double y1)
{
    cairo_move_to(v->cr, floor(x0) + 0.5, floor(y0) + 0.5);
    cairo_line_to(v->cr, floor(x1) + 0.5, floor(y1) + 0.5);
    cairo_stroke(v->cr);
}

static void draw_axes(canvas *v, const area *a, const char *title)
{
    char text[32];
    cairo_set_dash(v->cr, NULL, 0, 0);
    cairo_set_line_width(v->cr, 1);
    set_font(v, 12.5, false);
    for (int i = 0; i * a->y_step <= a->y_max * 1.0001; i++) {
        double y = at_y(a, i * a->y_step);
        grey(v, i == 0 ? 0.35 : 0.88);
        line(v, a->x, y, a->x + a->width, y);
        grey(v, 0.3);
        snprintf(text, sizeof text, "%.*f", a->y_step < 1 ? (int)ceil(-log10(a->y_step)) : 0,
                 i * a->y_step);
        draw_text(v, a->x - 8, y + 4.5, 1, text);
    }
    for (int i = 0; i * a->x_step <= a->x_max * 1.0001; i++) {
        double x = at_x(a, i * a->x_step);
        grey(v, 0.35);
        line(v, x, a->y + a->height, x, a->y + a->height + 5);
        grey(v, 0.3);
        format_tokens(i * a->x_step, a->x_step, text, sizeof text);
        draw_text(v, x, a->y + a->height + 20, 0.5, text);
    }
    grey(v, 0.3);
    draw_text(v, a->x + a->width / 2, a->y + a->height + 42, 0.5, v->c->x_label);
    grey(v, 0.1);
    set_font(v, 14, true);
    draw_text(v, a->x, a->y - 14, 0, title);
}

static void draw_panel(canvas *v, int panel)
{
    area a = area_of(v, panel);
    draw_axes(v, &a, v->c->panels[panel]);
    for (size_t i = 0; i < v->c->n_series; i++) {
        const tool_series *s = &v->c->series[i];
        const tool_point *p = s->points[panel];
        set_series(v, i);
        cairo_set_line_join(v->cr, CAIRO_LINE_JOIN_ROUND);
        cairo_new_path(v->cr); /* text leaves a point behind */
        for (size_t k = 0; k < s->n[panel]; k++)
            cairo_line_to(v->cr, at_x(&a, p[k].x), at_y(&a, p[k].y));
        cairo_stroke(v->cr);
        size_t every = s->n[panel] / 16 + 1; /* markers must not hide the line, nor one another */
        for (size_t k = i * every / v->c->n_series; k < s->n[panel]; k += every) {
            set_series(v, i);
            draw_marker(v, i, at_x(&a, p[k].x), at_y(&a, p[k].y));
        }
    }
}

/* ---- all together ---------------------------------------------------------------------------- */

static void measure(canvas *v)
{
    v->x_max = v->y_max[0] = v->y_max[1] = 0;
    for (size_t i = 0; i < v->c->n_series; i++)
        for (int panel = 0; panel < v->c->n_panels; panel++)
            for (size_t k = 0; k < v->c->series[i].n[panel]; k++) {
                const tool_point *p = &v->c->series[i].points[panel][k];
                v->x_max = fmax(v->x_max, p->x);
                v->y_max[panel] = fmax(v->y_max[panel], p->y);
            }
    v->x_max = fmax(v->x_max, 1);
    for (int panel = 0; panel < 2; panel++)
        v->y_max[panel] = v->y_max[panel] > 0 ? v->y_max[panel] : 1;
}

static double height_of(const canvas *v)
{
    return HEAD + v->legend_lines * LINE + PANEL_TITLE + PLOT_HEIGHT + FOOT;
}

static void draw_all(canvas *v)
{
    grey(v, 1);
    cairo_paint(v->cr);
    grey(v, 0.1);
    set_font(v, 18, true);
    draw_text(v, LEFT, 36, 0, v->c->title);
    legend(v, true);
    for (int panel = 0; panel < v->c->n_panels; panel++)
        draw_panel(v, panel);
}

/* Text can only be measured with a context: the legend's lines are counted on a small one. */
static void count_legend(canvas *v)
{
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 8, 8);
    v->cr = cairo_create(s);
    v->legend_lines = legend(v, false);
    cairo_destroy(v->cr);
    cairo_surface_destroy(s);
}

static cairo_status_t take_bytes(void *user, const unsigned char *bytes, unsigned n)
{
    return fr_buf_add(user, (const char *)bytes, n, NULL) == FR_OK ? CAIRO_STATUS_SUCCESS
                                                                   : CAIRO_STATUS_NO_MEMORY;
}

static fr_status draw(const tool_chart *c, bool png, fr_buf *out, fr_err *err)
{
    enum { PNG_SCALE = 2 };
    canvas v = {.c = c};
    measure(&v);
    count_legend(&v);
    int height = (int)height_of(&v);
    cairo_surface_t *s =
        png ? cairo_image_surface_create(CAIRO_FORMAT_RGB24, WIDTH * PNG_SCALE, height * PNG_SCALE)
            : cairo_svg_surface_create_for_stream(take_bytes, out, WIDTH, height);
    v.cr = cairo_create(s);
    if (png)
        cairo_scale(v.cr, PNG_SCALE, PNG_SCALE);
    draw_all(&v);
    cairo_status_t st = cairo_status(v.cr);
    if (st == CAIRO_STATUS_SUCCESS && png)
        st = cairo_surface_write_to_png_stream(s, take_bytes, out);
    cairo_destroy(v.cr);
    cairo_surface_finish(s);
    if (st == CAIRO_STATUS_SUCCESS)
        st = cairo_surface_status(s);
    cairo_surface_destroy(s);
    if (st == CAIRO_STATUS_SUCCESS)
        return FR_OK;
    return fr_fail(err, st == CAIRO_STATUS_NO_MEMORY ? FR_ENOMEM : FR_EINTERNAL,
                   "the picture: cairo says: %s", cairo_status_to_string(st));
}

static fr_status can_draw(fr_err *err)
{
    (void)err;
    return FR_OK;
}

#else

static fr_status can_draw(fr_err *err)
{
    return fr_fail(err, FR_EUNSUPPORTED,
                   "--plot: this ferry was built without cairo, which draws; install it (Debian: "
                   "libcairo2-dev) and build again. Everything else works");
}

static fr_status draw(const tool_chart *c, bool png, fr_buf *out, fr_err *err)
{
    (void)c;
    (void)png;
    (void)out;
    return can_draw(err);
}

#endif

fr_status tool_chart_check(const char *path, fr_err *err)
{
    if (!ends_in(path, ".svg") && !ends_in(path, ".png"))
        return fr_fail(err, FR_EINVAL, "--plot: found '%s', expected a name ending in .svg or .png",
                       path);
    return can_draw(err);
}

fr_status tool_chart_write(const tool_chart *c, const char *path, fr_err *err)
{
    fr_buf bytes = {0};
    fr_out_file file;
    fr_status st;
    FR_TRY(tool_chart_check(path, err));
    FR_TRY_OUT(st, draw(c, ends_in(path, ".png"), &bytes, err));
    FR_TRY_OUT(st, fr_file_create(path, &file, err));
    st = fr_file_write(&file, bytes.p, bytes.n, err);
    if (st == FR_OK)
        st = fr_file_commit(&file, err);
    else
        fr_file_abort(&file);
out:
    fr_buf_free(&bytes);
    return st;
}
