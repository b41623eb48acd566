/* What the driver's management library (NVML) knows of a GPU and the CUDA runtime does not tell. It
 * is looked for when first asked (libnvidia-ml.so.1, which the driver brings); nothing links it.
 *
 * Names and types: NVML API Reference Guide, "Device Queries". */
#ifndef FR_CUDA_DL_NVML_H
#define FR_CUDA_DL_NVML_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    unsigned pcie_generation; /* the most that GPU and slot can do; idle links run slower */
    unsigned pcie_lanes;      /* in use */
    uint64_t used_bytes;      /* of its memory, by all programs */
} fr_nvml_facts;

/* Of the GPU with this PCI address ("0000:65:00.0"); 0 for what it does not know. False without the
 * library, or when it does not know the GPU. */
bool fr_nvml_ask(const char *bus, fr_nvml_facts *out);

/* What a link of so many lanes carries one way, bytes a second, by its line code; 0: not known. */
double fr_pcie_speed(unsigned generation, unsigned lanes);

/* ---- for tests ------------------------------------------------------------------------------ */

typedef struct nvml_device nvml_device;
typedef struct {
    unsigned long long total, free, used;
} nvml_memory;

/* The functions of the library; 0 is success. */
typedef struct {
    int (*init)(void);
    int (*by_bus)(const char *bus, nvml_device **out);
    int (*memory)(nvml_device *d, nvml_memory *out);
    int (*generation)(nvml_device *d, unsigned *out);
    int (*lanes)(nvml_device *d, unsigned *out);
} nvml_api;

/* fr_nvml_ask of a library that is there. */
bool nvml_ask_api(const nvml_api *api, const char *bus, fr_nvml_facts *out);

#endif
