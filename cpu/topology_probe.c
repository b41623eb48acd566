#include "cpu/topology_probe.h"

#ifdef FERRY_HAVE_HWLOC

#include <hwloc.h>

/* Cores and nodes by their logical numbers, which follow packages, caches and cores as they are
 * nested. */
static void probe_unit(hwloc_topology_t topology, cpu_unit *u)
{
    hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(topology, (unsigned)u->cpu);
    if (!pu)
        return;
    hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, pu);
    u->core = core ? (int)core->logical_index : u->cpu;
    int os_node = hwloc_bitmap_first(pu->nodeset);
    hwloc_obj_t node =
        os_node >= 0 ? hwloc_get_numanode_obj_by_os_index(topology, (unsigned)os_node) : NULL;
    u->node = node ? (int)node->logical_index : 0;
}

void cpu_topology_probe(cpu_unit *units, int n)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology))
        return;
    hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (hwloc_topology_load(topology) == 0)
        for (int i = 0; i < n; i++)
            probe_unit(topology, &units[i]);
    hwloc_topology_destroy(topology);
}

#else

#include <stdio.h>
#include <unistd.h>

enum { MOST_NODES = 256 };

/* The lowest CPU number on the core of a CPU. */
static int first_sibling(int cpu)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    int first = cpu;
    if (f) {
        if (fscanf(f, "%d", &first) != 1 || first < 0 || first >= CPU_MAX_CPUS)
            first = cpu;
        fclose(f);
    }
    return first;
}

static int node_of(int cpu)
{
    for (int node = 0; node < MOST_NODES; node++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/node%d", cpu, node);
        if (access(path, F_OK) == 0)
            return node;
    }
    return 0;
}

void cpu_topology_probe(cpu_unit *units, int n)
{
    for (int i = 0; i < n; i++) {
        units[i].core = first_sibling(units[i].cpu);
        units[i].node = node_of(units[i].cpu);
    }
}

#endif
