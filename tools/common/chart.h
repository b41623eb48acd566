/* Line charts as SVG or PNG: panels side by side that share their series and the x axis. */
#ifndef FR_TOOLS_CHART_H
#define FR_TOOLS_CHART_H

#include "base/status.h"

typedef struct {
    double x, y; /* finite, >= 0 */
} tool_point;

/* One run. Its line has the same colour and marker in every panel. */
typedef struct {
    const char *label;
    const tool_point *points[2]; /* of each panel, ascending in x */
    size_t n[2];
} tool_series;

typedef struct {
    const char *title, *x_label;
    const char *panels[2]; /* titles, with the unit of y */
    int n_panels;          /* 1 or 2 */
    const tool_series *series;
    size_t n_series;
} tool_chart;

/* Writes to a path that ends in .svg or .png (FR_EINVAL otherwise). FR_EUNSUPPORTED in a build
 * without cairo, with what to install. */
fr_status tool_chart_write(const tool_chart *c, const char *path, fr_err *err);

/* Whether that path, and this build, will do: to be asked before the work is done. */
fr_status tool_chart_check(const char *path, fr_err *err);

/* The distance of an axis' ticks, so that at most `most` of them reach up to `max` > 0: 1, 2 or 5
 * times a power of ten; for tokens, a power of two. */
double tool_tick_step(double max, int most);
double tool_token_step(double max, int most);

#endif
