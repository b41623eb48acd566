/* One setting at its level, and the two levels below the command line: INI file and environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "opts/opts_internal.h"

#define MAX_FILE_BYTES (4u << 20)

/* ---- one setting
 * --------------------------------------------------------------------------------- */

static bool is_refused(const opts_row *row, const char *text, bool negated)
{
    bool on;
    if (!(row->flags & OPTS_REFUSED))
        return false;
    return row->type != OPTS_BOOL || !opts_parse_bool(text, &on) || on != negated;
}

fr_status opts_apply(opts_merge *m, opts_level level, opts_match opt, const char *text,
                     fr_opt_origin origin, fr_err *err)
{
    const opts_row *row = &opts_rows[opt.id];
    if (is_refused(row, text, opt.negated))
        return fr_fail(err, FR_EUNSUPPORTED, "not supported: %s", row->note);
    if (opts_is_list(row) && m->level[opt.id] != level)
        opts_clear_list(opts_field(m->o, opt.id));
    if (level == OPTS_AT_CLI && m->o->tool == FR_TOOL_BENCH && (row->flags & OPTS_MANY)) {
        FR_TRY(opts_add_many(m->o, opt.id, text, opt.negated, err));
        m->o->origins[opt.id] = origin;
    } else {
        FR_TRY(opts_set(m->o, opt.id, text, opt.negated, origin, err));
    }
    m->level[opt.id] = (unsigned char)level;
    return FR_OK;
}

/* ---- notes
 * --------------------------------------------------------------------------------------- */

fr_status opts_note(opts_merge *m, fr_log_level level, fr_err *err, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    FR_TRY(fr_buf_putc(&m->notes, (char)level, err));
    return fr_buf_add(&m->notes, text, strlen(text) + 1, err);
}

void opts_flush_notes(opts_merge *m)
{
    for (size_t i = 0; i < m->notes.n; i += strlen(m->notes.p + i) + 1) {
        fr_log_level level = (fr_log_level)m->notes.p[i++];
        fr_log(level, "%s", m->notes.p + i);
    }
    fr_buf_clear(&m->notes);
}

/* ---- the INI file
 * -------------------------------------------------------------------------------- */

typedef enum { GLOBAL, HARDWARE, CHOSEN, OTHER } section_kind;

typedef struct {
    opts_merge *m;
    const char *path, *preset;
    opts_level level; /* of this pass: the global keys first, then the preset's */
    bool found;       /* the preset's section */
    fr_buf presets;   /* names of the sections that could be chosen: ", a, b" */
} file_pass;

/* gpu.N numa.N link.N ram links disk; *malformed when it only looks like one of them. */
static bool is_hardware(const char *section, bool *malformed)
{
    static const char *const numbered[] = {"gpu", "numa", "link"};
    static const char *const plain[] = {"ram", "links", "disk"};
    size_t n = strcspn(section, ".");
    for (int i = 0; i < 3; i++) {
        const char *number = section + n + (section[n] == '.');
        size_t digits = strspn(number, "0123456789");
        bool has_number = digits >= 1 && digits <= 4 && !number[digits];
        *malformed = false;
        if (strlen(numbered[i]) == n && memcmp(section, numbered[i], n) == 0) {
            *malformed = !has_number;
            return true;
        }
        if (strlen(plain[i]) == n && memcmp(section, plain[i], n) == 0) {
            *malformed = section[n] != 0;
            return true;
        }
    }
    return false;
}

static section_kind kind_of(const file_pass *f, const char *section)
{
    bool malformed;
    if (!*section || strcmp(section, "*") == 0)
        return GLOBAL;
    for (const opts_section *s = opts_sections; s->name; s++)
        if (strcmp(s->name, section) == 0)
            return GLOBAL;
    if (is_hardware(section, &malformed))
        return HARDWARE;
    return f->preset && strcmp(f->preset, section) == 0 ? CHOSEN : OTHER;
}

static fr_status begin_section(file_pass *f, const char *section, int line, fr_err *err)
{
    bool malformed;
    section_kind kind = kind_of(f, section);
    if (is_hardware(section, &malformed) && malformed)
        return fr_fail(
            err, FR_EFORMAT,
            "%s:%d: found [%s], expected [gpu.N], [numa.N] or [link.N] with a number, or "
            "[ram], [links], [disk]",
            f->path, line, section);
    if (kind == CHOSEN)
        f->found = true;
    if (kind == GLOBAL || kind == HARDWARE || f->level != OPTS_AT_INI)
        return FR_OK;
    return fr_buf_printf(&f->presets, err, "%s%s", f->presets.n ? ", " : "", section);
}

static fr_status keep_hardware(fr_options *o, const char *section, const char *key,
                               const char *value, int line, fr_err *err)
{
    void *hw = o->hw;
    FR_TRY(fr_mem_grow(FR_MEM_OPTS, &hw, &o->cap_hw, o->n_hw + 1, sizeof *o->hw, err));
    o->hw = hw;
    fr_hw_record *r = &o->hw[o->n_hw++]; /* from here on fr_opts_free owns what is in it */
    *r = (fr_hw_record){.file = o->config, .line = line};
    if (!(r->section = fr_mem_strndup(FR_MEM_OPTS, section, strlen(section), err)) ||
        !(r->key = fr_mem_strndup(FR_MEM_OPTS, key, strlen(key), err)) ||
        !(r->value = fr_mem_strndup(FR_MEM_OPTS, value, strlen(value), err)))
        return FR_ENOMEM;
    return FR_OK;
}

static fr_status unknown_key(fr_tool tool, const char *key, fr_err *err)
{
    fr_str near = opts_nearest(fr_str_of(key), tool, true);
    while (near.n && near.p[0] == '-')
        near.p++, near.n--;
    if (near.n)
        return fr_fail(err, FR_EINVAL,
                       "unknown key, expected an option's name; did you mean '%.*s'?",
                       FR_STR_ARG(near));
    return fr_fail(err, FR_EINVAL,
                   "unknown key, expected an option's name; "
                   "--print-reference-ini lists them all");
}

static fr_status apply_key(file_pass *f, opts_level level, const char *key, const char *value,
                           int line, fr_err *err)
{
    opts_match opt;
    fr_options *o = f->m->o;
    if (strcmp(key, "version") == 0) {
        if (strcmp(value, "1") == 0)
            return FR_OK;
        return fr_fail(err, FR_EUNSUPPORTED,
                       "found '%.40s', expected 1, the version of the file format", value);
    }
    if (!opts_find(fr_str_of(key), o->tool, true, &opt))
        return unknown_key(o->tool, key, err);
    if (opts_rows[opt.id].flags & OPTS_NO_INI)
        return fr_fail(err, FR_EINVAL, "not for INI files, expected on the command line");
    if (f->m->level[opt.id] == level && !opts_is_list(&opts_rows[opt.id]))
        FR_TRY(opts_note(f->m, FR_LOG_WARN, err,
                         "%s:%d: %s: given again after line %d; this one counts", f->path, line,
                         key, o->origins[opt.id].line));
    fr_opt_origin origin = {FR_FROM_INI, o->config, line};
    return opts_apply(f->m, level, opt, value, origin, err);
}

/* A key of a section that was not chosen: it is checked, but must not keep the tool from starting.
 */
static fr_status check_other(file_pass *f, const char *section, const char *key, int line,
                             fr_err *err)
{
    opts_match opt;
    if (strcmp(key, "version") == 0 || opts_find(fr_str_of(key), f->m->o->tool, true, &opt))
        return FR_OK;
    fr_err why;
    unknown_key(f->m->o->tool, key, &why);
    return opts_note(f->m, FR_LOG_WARN, err, "%s:%d: [%s] %s: %s", f->path, line, section, key,
                     why.text);
}

static fr_status take_key(void *user, const char *section, const char *key, const char *value,
                          int line, fr_err *err)
{
    file_pass *f = user;
    if (!key)
        return begin_section(f, section, line, err);
    section_kind kind = kind_of(f, section);
    fr_status st = FR_OK;
    if (kind == CHOSEN) {
        if (f->level == OPTS_AT_PRESET)
            st = apply_key(f, OPTS_AT_PRESET, key, value, line, err);
    } else if (f->level == OPTS_AT_PRESET) {
        return FR_OK;
    } else if (kind == GLOBAL) {
        st = apply_key(f, OPTS_AT_INI, key, value, line, err);
    } else if (kind == HARDWARE) {
        return keep_hardware(f->m->o, section, key, value, line, err);
    } else {
        return check_other(f, section, key, line, err);
    }
    return st == FR_OK ? FR_OK : fr_err_context(err, st, "%s:%d: %s", f->path, line, key);
}

static fr_status check_preset(file_pass *f, fr_err *err)
{
    if (!f->preset && f->presets.n)
        return opts_note(f->m, FR_LOG_INFO, err,
                         "%s: has the presets %s; choose one with --preset NAME", f->path,
                         f->presets.p);
    if (!f->preset || f->found)
        return FR_OK;
    if (kind_of(f, f->preset) != CHOSEN)
        return fr_fail(err, FR_EINVAL,
                       "--preset: found '%s', whose section is always applied, expected %s",
                       f->preset, f->presets.n ? f->presets.p : "the name of another section");
    return fr_fail(err, FR_ENOTFOUND, "--preset: found '%s', expected a section of %s: %s",
                   f->preset, f->path, f->presets.n ? f->presets.p : "it has none");
}

fr_status opts_apply_file(opts_merge *m, fr_err *err)
{
    file_pass f = {.m = m, .path = m->o->config, .preset = m->o->preset, .level = OPTS_AT_INI};
    fr_buf text = {0};
    fr_status st;
    FR_TRY_OUT(st, fr_file_slurp(f.path, MAX_FILE_BYTES, &text, err));
    FR_TRY_OUT(st, opts_ini_parse(f.path, text.p, text.n, take_key, &f, err));
    FR_TRY_OUT(st, check_preset(&f, err));
    f.level = OPTS_AT_PRESET;
    if (f.preset)
        st = opts_ini_parse(f.path, text.p, text.n, take_key, &f, err);
out:
    fr_buf_free(&text);
    fr_buf_free(&f.presets);
    return st;
}

/* ---- the environment
 * ----------------------------------------------------------------------------- */

/* A list variable holds one item a line. */
static fr_status apply_variable(opts_merge *m, fr_opt_id id, const char *value, fr_err *err)
{
    fr_opt_origin origin = {FR_FROM_ENV, NULL, 0};
    opts_match opt = {id, false};
    if (!opts_is_list(&opts_rows[id]))
        return opts_apply(m, OPTS_AT_ENV, opt, value, origin, err);
    fr_buf item = {0};
    fr_status st = FR_OK;
    while (st == FR_OK && *value) {
        size_t n = strcspn(value, "\n");
        fr_buf_clear(&item);
        if ((st = fr_buf_add(&item, value, n, err)) == FR_OK)
            st = opts_apply(m, OPTS_AT_ENV, opt, item.p, origin, err);
        value += n + (value[n] == '\n');
    }
    fr_buf_free(&item);
    return st;
}

fr_status opts_apply_env(opts_merge *m, bool only_file, fr_err *err)
{
    char name[OPTS_ENV_MAX];
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        bool of_file = id == FR_OPT_config || id == FR_OPT_preset;
        if ((opts_rows[id].flags & OPTS_NO_ENV) || of_file != only_file)
            continue;
        opts_env_name((fr_opt_id)id, name);
        const char *value = getenv(name);
        if (!value || !*value)
            continue;
        fr_status st = apply_variable(m, (fr_opt_id)id, value, err);
        if (st != FR_OK)
            return fr_err_context(err, st, "environment variable %s", name);
    }
    return FR_OK;
}

static bool is_variable(fr_str name)
{
    char known[OPTS_ENV_MAX];
    for (int id = 0; id < FR_OPT_COUNT; id++) {
        opts_env_name((fr_opt_id)id, known);
        if (!(opts_rows[id].flags & OPTS_NO_ENV) && fr_str_is(name, known))
            return true;
    }
    return false;
}

fr_status opts_check_env(opts_merge *m, fr_err *err)
{
    for (char **e = environ; e && *e; e++) {
        fr_str name = {*e, strcspn(*e, "=")};
        /* FERRY_SIM is read by the simulated GPUs (cuda/README.md). */
        if (strncmp(*e, "FERRY_", 6) == 0 && !is_variable(name) && !fr_str_is(name, "FERRY_SIM"))
            FR_TRY(opts_note(m, FR_LOG_WARN, err, "environment variable %.*s: no option has it",
                             FR_STR_ARG(name)));
        if (strncmp(*e, "LLAMA_ARG_", 10) == 0)
            FR_TRY(
                opts_note(m, FR_LOG_WARN, err,
                          "environment variable %.*s: not read; FERRY_ variables are (see --help)",
                          FR_STR_ARG(name)));
    }
    return FR_OK;
}
