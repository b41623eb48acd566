#include "common/json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

json_t *tool_json_text(const char *text)
{
    fr_buf clean = {0};
    size_t n = text ? strlen(text) : 0;
    fr_status st = text ? fr_buf_reserve(&clean, n + 1, NULL) : FR_EINVAL;
    for (size_t i = 0; st == FR_OK && i < n;) {
        uint32_t cp;
        int step = fr_utf8_decode(text + i, n - i, &cp);
        st = cp == UINT32_MAX ? fr_buf_puts(&clean, "\xEF\xBF\xBD", NULL)
                              : fr_buf_add(&clean, text + i, (size_t)step, NULL);
        i += (size_t)step;
    }
    json_t *out = st == FR_OK ? json_stringn(clean.p, clean.n) : NULL;
    fr_buf_free(&clean);
    return out;
}

json_t *tool_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

fr_status tool_json_write(const char *path, json_t *value, fr_err *err)
{
    char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(value);
    if (!text)
        return fr_fail(err, FR_ENOMEM, "%s: out of memory while writing JSON", path);
    fr_out_file file;
    fr_status st = fr_file_create(path, &file, err);
    if (st == FR_OK) {
        st = fr_file_write(&file, text, strlen(text), err);
        if (st == FR_OK)
            st = fr_file_write(&file, "\n", 1, err);
        if (st == FR_OK)
            st = fr_file_commit(&file, err);
        else
            fr_file_abort(&file);
    }
    free(text);
    return st;
}
