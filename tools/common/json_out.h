/* JSON that tools write. */
#ifndef FR_TOOLS_JSON_OUT_H
#define FR_TOOLS_JSON_OUT_H

#include <jansson.h>

#include "base/status.h"

/* Any bytes as a string: what is not UTF-8 becomes U+FFFD. NULL without memory, or for NULL. */
json_t *tool_json_text(const char *text);

/* A number; null when it is not finite. */
json_t *tool_json_real(double value);

/* Writes a value (NULL: FR_ENOMEM, it could not be built) and a newline; gives the value back. */
fr_status tool_json_write(const char *path, json_t *value, fr_err *err);

#endif
