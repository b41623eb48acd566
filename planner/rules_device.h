/* Help with the names of devices in rules. */
#ifndef FR_PLANNER_RULES_DEVICE_H
#define FR_PLANNER_RULES_DEVICE_H

#include "base/str.h"

/* Appends "; ..." with what somebody who wrote `text` for a device may have meant, or nothing. */
fr_status plan_device_hint(fr_str text, fr_buf *out, fr_err *err);

#endif
