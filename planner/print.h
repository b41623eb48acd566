/* A plan for people and for programs. Everything here appends text to a buffer; nothing plans. */
#ifndef FR_PLANNER_PRINT_H
#define FR_PLANNER_PRINT_H

#include "planner/plan.h"

/* Tables for a terminal of `width` columns: devices with a bar each, layers, rules, predictions,
 * notes. `color`: with escape sequences. */
typedef struct {
    int width; /* < 60: 100 */
    bool color;
} fr_print_style;

fr_status fr_plan_print_text(const fr_plan *p, const fr_print_style *style, fr_buf *out,
                             fr_err *err);

/* One JSON object, schema in planner/README.md. Always valid: texts that are not UTF-8 get
 * replacement characters, numbers that are not finite become null. */
fr_status fr_plan_print_json(const fr_plan *p, fr_buf *out, fr_err *err);

/* A picture: a stacked bar for each device, and a map of layers by devices. */
fr_status fr_plan_print_svg(const fr_plan *p, fr_buf *out, fr_err *err);

/* For every tensor whose name matches: where each part is, by which rule or why, bytes, type and
 * layout, and what spoke against the other devices. FR_EINVAL for a bad expression, FR_ENOTFOUND
 * when none matches (with the nearest names). */
fr_status fr_plan_explain(const fr_plan *p, const char *regex, fr_buf *out, fr_err *err);

/* The placements as rules that give the same ones again, in the order in which they apply. */
typedef enum {
    FR_EMIT_OT, /* one -ot value for other programs: no slices, no layouts, no ',' in expressions;
                   a sliced stack goes to the device with most of it, and a note says so */
    FR_EMIT_INI /* lines "override-tensor = ...", with the machine and the sizes, for ferry */
} fr_emit_form;
fr_status fr_plan_emit(const fr_plan *p, fr_emit_form form, fr_buf *out, fr_err *err);

/* What changed from one plan to another, both as JSON texts of fr_plan_print_json. *n_changes gets
 * the number of differences. FR_EFORMAT for a text that is not such a plan; `what` names it. */
fr_status fr_plan_diff(fr_str old_json, fr_str new_json, const char *old_name, const char *new_name,
                       fr_buf *out, size_t *n_changes, fr_err *err);

#endif
