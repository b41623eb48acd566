/* Ctrl-C while a tool writes a file: the work ends at the next check, and nothing half-written
 * stays behind. */
#ifndef FR_TOOLS_INTERRUPT_H
#define FR_TOOLS_INTERRUPT_H

#include "engine/engine.h"

/* From now on SIGINT, SIGTERM and SIGHUP are only noted; a second one ends the process. */
void tool_catch_interrupts(void);

/* A signal also stops what this session computes (FR_ECANCELLED); NULL: none, before it is closed.
 */
void tool_interrupt_session(fr_session *s);

/* FR_ECANCELLED when one has come. */
fr_status tool_check_interrupt(fr_err *err);

#endif
