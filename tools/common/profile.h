/* A profile of the engine as a table. */
#ifndef FR_TOOLS_PROFILE_H
#define FR_TOOLS_PROFILE_H

#include "engine/engine.h"

/* Appends, for batches and for single tokens, where the time of a step goes: a line a kind of work,
 * and with `layers` a line a layer. */
fr_status tool_profile_text(const fr_profile *p, bool layers, fr_buf *out, fr_err *err);

/* What the engine measured so far, by kind of work and by layer, on standard error (--profile). */
fr_status tool_print_profile(const fr_engine *e, fr_err *err);

#endif
