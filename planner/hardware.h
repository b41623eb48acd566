/* The machine as data: what a plan may use.
 *
 * It comes from the hardware sections of an INI file ([gpu.N] [link.N] [ram] [numa.N] [disk]) or
 * from the running machine (fr_hardware_probe). The planner never asks a device itself. Units
 * inside: bytes, bytes per second, operations per second (multiply and add count two). */
#ifndef FR_PLANNER_HARDWARE_H
#define FR_PLANNER_HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum { FR_MAX_GPUS = 16, FR_MAX_NUMA = 16 };

/* A key of an INI file, as the options box keeps it. Texts are not owned. */
typedef struct {
    const char *section, *key, *value, *file;
    int line;
} fr_hw_key;

typedef struct {
    int device;          /* ordinal of the physical GPU; several [gpu.N] may share one (virtual) */
    char name[64];       /* for people */
    uint64_t vram_bytes; /* the budget: all that ferry may use of it, context included */
    uint64_t reserve_bytes; /* of it, left to the CUDA context and libraries; default 512 MiB */
    double bandwidth;       /* of device memory */
    double f16_ops, int8_ops;
    double h2d, d2h; /* of its link */
} fr_gpu_hw;

typedef struct {
    char cpus[128]; /* "0-15,32-47" */
    uint64_t bytes;
    double bandwidth;
} fr_numa_hw;

typedef struct {
    fr_gpu_hw gpus[FR_MAX_GPUS];
    int n_gpus;
    char cpu_name[64];  /* for people; may be empty */
    int n_cores;        /* physical ones; 0: unknown */
    uint64_t ram_bytes; /* the budget */
    double ram_bandwidth;
    double cpu_f32_ops, cpu_int8_ops;
    fr_numa_hw numa[FR_MAX_NUMA];
    int n_numa;            /* 0: one node, the whole RAM; a node may have 0 bytes */
    double disk_bandwidth; /* 0: unknown */
} fr_hardware;

/* A machine without GPUs and with defaults for everything else (ram_bytes: 15/16 of what this
 * machine, or this process's control group, has). The unused gpus[] hold defaults too, for whoever
 * adds GPUs: overwrite what is known. */
void fr_hardware_defaults(fr_hardware *hw);

/* Reads hardware sections over the defaults; hardware_keys.def lists the keys. Sizes take B KB MB
 * GB TB KiB MiB GiB TiB, binary under either name (bare: MiB), speeds are GB/s (1e9), compute
 * TFLOPS / TOPS. Sections gpu.N and numa.N must be numbered without a gap from 0. Errors name
 * file:line, key, found, expected, and the nearest known key. */
fr_status fr_hardware_read(const fr_hw_key *keys, size_t n, fr_hardware *out, fr_err *err);

/* What the operating system tells about this machine: RAM, NUMA nodes, threads. GPUs are added by
 * whoever knows them. */
fr_status fr_hardware_probe(fr_hardware *out, fr_err *err);

/* An INI text that fr_hardware_read understands, commented. */
fr_status fr_hardware_print_ini(const fr_hardware *hw, fr_buf *out, fr_err *err);

#endif
