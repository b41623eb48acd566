#include "cuda/dl_nvml.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static nvml_api library;
static bool is_there;

/* A data pointer as a function's, the way that POSIX has it (dlsym, "Application usage"). */
static bool find(void *lib, const char *name, void *function, size_t size)
{
    void *at = dlsym(lib, name);
    memcpy(function, &at, size);
    return at != NULL;
}

/* It stays loaded: the driver's libraries do not like to be unloaded. */
static void load(void)
{
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    is_there =
        lib && find(lib, "nvmlInit_v2", &library.init, sizeof library.init) &&
        find(lib, "nvmlDeviceGetHandleByPciBusId_v2", &library.by_bus, sizeof library.by_bus) &&
        find(lib, "nvmlDeviceGetMemoryInfo", &library.memory, sizeof library.memory) &&
        find(lib, "nvmlDeviceGetMaxPcieLinkGeneration", &library.generation,
             sizeof library.generation) &&
        find(lib, "nvmlDeviceGetCurrPcieLinkWidth", &library.lanes, sizeof library.lanes) &&
        library.init() == 0;
}

bool nvml_ask_api(const nvml_api *api, const char *bus, fr_nvml_facts *out)
{
    nvml_device *d = NULL;
    nvml_memory memory = {0};
    *out = (fr_nvml_facts){0};
    if (api->by_bus(bus, &d) != 0)
        return false;
    if (api->memory(d, &memory) == 0)
        out->used_bytes = memory.used;
    if (api->generation(d, &out->pcie_generation) != 0)
        out->pcie_generation = 0;
    if (api->lanes(d, &out->pcie_lanes) != 0)
        out->pcie_lanes = 0;
    return true;
}

bool fr_nvml_ask(const char *bus, fr_nvml_facts *out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = (fr_nvml_facts){0};
    pthread_once(&once, load);
    return is_there && nvml_ask_api(&library, bus, out);
}

/* Transfers a second and code: 2.5 and 5 G with 8b/10b, 8, 16 and 32 G with 128b/130b, 64 G in
 * flits of 256 bytes with 242 of them for packets (PCI Express Base Specification 6.0). */
double fr_pcie_speed(unsigned generation, unsigned lanes)
{
    static const double gbits[] = {0,
                                   2.5 * 8 / 10,
                                   5.0 * 8 / 10,
                                   8.0 * 128 / 130,
                                   16.0 * 128 / 130,
                                   32.0 * 128 / 130,
                                   64.0 * 242 / 256};
    if (generation >= sizeof gbits / sizeof *gbits || lanes > 32)
        return 0;
    return gbits[generation] * 1e9 / 8 * lanes;
}
