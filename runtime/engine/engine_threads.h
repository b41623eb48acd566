/* Numbers of threads that were measured once for a machine and a model, kept in a small text file.
 * Inside the engine box. */
#ifndef FR_ENGINE_THREADS_H
#define FR_ENGINE_THREADS_H

#include "cpu/thread_tune.h"
#include "model/model.h"

/* The counts for a model on the CPUs of cfg: from `path` when they are there, else measured, and
 * added to the file (NULL or "": not kept). A file that is not what was written here is measured
 * anew and overwritten, with a warning; one that cannot be written is a warning. */
fr_status engine_thread_counts(const fr_model *m, const fr_cpu_config *cfg, const char *path,
                               fr_thread_counts *out, fr_err *err);

#endif
