#include <stdlib.h>

#include "opts/opts.h"

fr_status fr_opts_cache_file(const char *name, fr_buf *out, fr_err *err)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    fr_buf_clear(out);
    if (cache && cache[0] == '/') /* others are to be ignored (XDG Base Directory Specification) */
        return fr_buf_printf(out, err, "%s/ferry/%s", cache, name);
    if (home && home[0] == '/')
        return fr_buf_printf(out, err, "%s/.cache/ferry/%s", home, name);
    return FR_OK;
}
