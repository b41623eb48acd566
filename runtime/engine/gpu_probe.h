/* The GPUs of a backend as the planner's hardware. */
#ifndef FR_ENGINE_GPU_PROBE_H
#define FR_ENGINE_GPU_PROBE_H

#include "cuda/cuda.h"
#include "planner/hardware.h"

/* Appends the usable devices of a backend to hw->gpus: name, the memory that is free now as the
 * budget, what is known of the rates; the link's speed from its generation and lanes where the
 * driver tells them. Everything else is as it was there (fr_hardware_defaults). Devices that cannot
 * be used, or that find no place, get a line in the log each, and so does a driver that is too old;
 * no driver or device at all is a debug line. `gpu` may be NULL: a build without a backend. */
fr_status fr_engine_probe_gpus(const fr_gpu *gpu, fr_hardware *hw, fr_err *err);

/* Times the links of all hw->gpus (fr_gpu_link_speed): some 50 ms a device. A device that has not
 * the memory for it keeps its figures, with a line in the log. */
fr_status fr_engine_measure_links(const fr_gpu *gpu, fr_hardware *hw, fr_err *err);

#endif
