/* Two plans side by side, from their JSON. The texts come from files: nothing in them is trusted.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/print.h"

enum { MAX_NAMES = 3 };

/* Tensors that moved in the same way. */
typedef struct {
    const char *from, *to; /* places, owned by the json values */
    size_t n;
    double bytes;
    const char *names[MAX_NAMES];
} move;

typedef struct {
    const json_t *a, *b;         /* old, new */
    json_t *places_a, *places_b; /* name -> "CUDA0 interleaved; CPU[32-255] plain" */
    move *moves;
    size_t n_moves, cap_moves;
    size_t n_changes;
    fr_buf *out;
    fr_err *err;
} differ;

#define SAY(d, ...) fr_buf_printf((d)->out, (d)->err, __VA_ARGS__)

static const char *text_in(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static double number_in(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static double gib(double bytes)
{
    return bytes / (double)(1 << 30);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static fr_status load(fr_str text, const char *name, json_t **out, fr_err *err)
{
    json_error_t at;
    *out = json_loadb(text.p ? text.p : "", text.n, 0, &at);
    if (!*out)
        return fr_fail(err, FR_EFORMAT, "%s: line %d: %s; expected a plan that --json wrote", name,
                       at.line, at.text);
    if (json_integer_value(json_object_get(*out, "ferry_plan")) != 1 ||
        !json_is_array(json_object_get(*out, "tensors")) ||
        !json_is_array(json_object_get(*out, "devices")))
        return fr_fail(err, FR_EFORMAT,
                       "%s: found JSON without ferry_plan 1, devices and tensors; expected a plan "
                       "that --json wrote",
                       name);
    return FR_OK;
}

/* "CUDA0 interleaved", or with "[0-31]" behind the device. */
static fr_status print_place(const json_t *t, fr_buf *out, fr_err *err)
{
    const json_t *experts = json_object_get(t, "experts");
    const char *device = text_in(t, "device");
    FR_TRY(fr_buf_printf(out, err, "%s%s", out->n ? "; " : "", device[0] ? device : "not loaded"));
    if (json_array_size(experts) == 2)
        FR_TRY(fr_buf_printf(out, err, "[%lld-%lld]",
                             (long long)json_integer_value(json_array_get(experts, 0)),
                             (long long)json_integer_value(json_array_get(experts, 1))));
    return fr_buf_printf(out, err, " %s", text_in(t, "layout"));
}

/* One entry a tensor, with all its parts and their bytes. */
static fr_status read_places(const json_t *plan, json_t **out, fr_err *err)
{
    const json_t *tensors = json_object_get(plan, "tensors");
    fr_buf text = {0};
    fr_status st = FR_OK;
    *out = json_object();
    for (size_t i = 0; i < json_array_size(tensors) && st == FR_OK;) {
        const char *name = text_in(json_array_get(tensors, i), "name");
        double bytes = 0;
        fr_buf_clear(&text);
        for (; i < json_array_size(tensors) && st == FR_OK; i++) {
            const json_t *t = json_array_get(tensors, i);
            if (strcmp(text_in(t, "name"), name) != 0)
                break;
            st = print_place(t, &text, err);
            bytes += number_in(t, "bytes");
        }
        if (st == FR_OK && json_object_set_new(*out, name,
                                               json_pack("{s:s#,s:f}", "place", text.p, (int)text.n,
                                                         "bytes", bytes)) != 0)
            st = fr_fail(err, FR_ENOMEM, "comparing plans: out of memory");
    }
    fr_buf_free(&text);
    return *out || st != FR_OK ? st : fr_fail(err, FR_ENOMEM, "comparing plans: out of memory");
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

static fr_status add_move(differ *d, const char *name, const char *from, const char *to,
                          double bytes)
{
    size_t i = 0;
    while (i < d->n_moves &&
           (strcmp(d->moves[i].from, from) != 0 || strcmp(d->moves[i].to, to) != 0))
        i++;
    if (i == d->n_moves) {
        void *moves = d->moves;
        FR_TRY(fr_mem_grow(FR_MEM_PLAN, &moves, &d->cap_moves, i + 1, sizeof *d->moves, d->err));
        d->moves = moves;
        d->moves[d->n_moves++] = (move){.from = from, .to = to};
    }
    move *m = &d->moves[i];
    if (m->n < MAX_NAMES)
        m->names[m->n] = name;
    m->n++;
    m->bytes += bytes;
    return FR_OK;
}

static fr_status find_moves(differ *d)
{
    const char *name;
    json_t *entry;
    json_object_foreach(d->places_a, name, entry)
    {
        const json_t *other = json_object_get(d->places_b, name);
        const char *from = text_in(entry, "place"),
                   *to = other ? text_in(other, "place") : "not in the new plan";
        if (strcmp(from, to) != 0)
            FR_TRY(add_move(d, name, from, to, number_in(entry, "bytes")));
    }
    json_object_foreach(d->places_b, name, entry)
    {
        if (!json_object_get(d->places_a, name))
            FR_TRY(add_move(d, name, "not in the old plan", text_in(entry, "place"),
                            number_in(entry, "bytes")));
    }
    return FR_OK;
}

static fr_status print_moves(differ *d)
{
    for (size_t i = 0; i < d->n_moves; i++) {
        const move *m = &d->moves[i];
        FR_TRY(SAY(d, "%zu tensor%s, %.3f GiB: %s -> %s\n   ", m->n, m->n == 1 ? "" : "s",
                   gib(m->bytes), m->from, m->to));
        for (size_t k = 0; k < m->n && k < MAX_NAMES; k++)
            FR_TRY(SAY(d, " %s", m->names[k]));
        FR_TRY(SAY(d, m->n > MAX_NAMES ? " ...\n" : "\n"));
        d->n_changes += m->n;
    }
    return FR_OK;
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

static fr_status print_value(differ *d, const json_t *v)
{
    if (json_is_string(v))
        return SAY(d, "%s", json_string_value(v));
    if (json_is_boolean(v))
        return SAY(d, "%s", json_is_true(v) ? "true" : "false");
    return json_is_number(v) ? SAY(d, "%.10g", json_number_value(v)) : SAY(d, "nothing");
}

/* Members of an object of plain values. */
static fr_status compare_members(differ *d, const char *key)
{
    json_t *a = json_object_get(d->a, key);
    const json_t *b = json_object_get(d->b, key);
    const char *name;
    json_t *value;
    json_object_foreach(a, name, value)
    {
        const json_t *other = json_object_get(b, name);
        if (json_equal(value, other) || json_is_object(value) || json_is_array(value))
            continue;
        FR_TRY(SAY(d, "%s: ", name));
        FR_TRY(print_value(d, value));
        FR_TRY(SAY(d, " -> "));
        FR_TRY(print_value(d, other));
        FR_TRY(SAY(d, "\n"));
        d->n_changes++;
    }
    return FR_OK;
}

static fr_status compare_devices(differ *d)
{
    const json_t *a = json_object_get(d->a, "devices"), *b = json_object_get(d->b, "devices");
    size_t n = json_array_size(a) > json_array_size(b) ? json_array_size(a) : json_array_size(b);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
        double from = gib(number_in(x, "used_bytes")), to = gib(number_in(y, "used_bytes"));
        double has = gib(number_in(x, "budget_bytes")), gets = gib(number_in(y, "budget_bytes"));
        if (from == to && has == gets)
            continue;
        FR_TRY(SAY(d, "%s: %.2f of %.2f -> %.2f of %.2f GiB used (%+.2f)\n",
                   text_in(x ? x : y, "id"), from, has, to, gets, to - from));
        d->n_changes++;
    }
    return FR_OK;
}

/* Rows of the same depth and length. */
static fr_status compare_speed(differ *d, const char *key, const char *name)
{
    const json_t *a = json_object_get(json_object_get(d->a, "predicted"), key);
    const json_t *b = json_object_get(json_object_get(d->b, "predicted"), key);
    for (size_t i = 0; i < json_array_size(a) && i < json_array_size(b); i++) {
        const json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
        double from = number_in(x, "tokens_per_second"), to = number_in(y, "tokens_per_second");
        if (number_in(x, "depth") != number_in(y, "depth") || fabs(from - to) <= 1e-6 * fabs(from))
            continue;
        FR_TRY(SAY(d, "%s at %.10g: %.1f -> %.1f tokens/s, bound by %s -> %s\n", name,
                   number_in(x, "depth"), from, to, text_in(x, "bound_by"),
                   text_in(y, "bound_by")));
        d->n_changes++;
    }
    return FR_OK;
}

static fr_status compare(differ *d)
{
    FR_TRY(read_places(d->a, &d->places_a, d->err));
    FR_TRY(read_places(d->b, &d->places_b, d->err));
    FR_TRY(compare_members(d, "model"));
    FR_TRY(compare_members(d, "options"));
    FR_TRY(compare_devices(d));
    FR_TRY(find_moves(d));
    FR_TRY(print_moves(d));
    FR_TRY(compare_speed(d, "prefill", "prompt"));
    FR_TRY(compare_speed(d, "decode", "generation"));
    return d->n_changes ? FR_OK : SAY(d, "the plans are the same\n");
}

fr_status fr_plan_diff(fr_str old_json, fr_str new_json, const char *old_name, const char *new_name,
                       fr_buf *out, size_t *n_changes, fr_err *err)
{
    differ d = {.out = out, .err = err};
    json_t *a = NULL, *b = NULL;
    fr_status st;
    FR_TRY_OUT(st, load(old_json, old_name, &a, err));
    FR_TRY_OUT(st, load(new_json, new_name, &b, err));
    d.a = a;
    d.b = b;
    st = compare(&d);
    *n_changes = d.n_changes;
out:
    fr_mem_free(d.moves);
    json_decref(d.places_a);
    json_decref(d.places_b);
    json_decref(a);
    json_decref(b);
    return st;
}
