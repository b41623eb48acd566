/* What the machine says about its CPUs; by hwloc where ferry is built with it, else from Linux's
 * /sys. */
#ifndef FR_CPU_TOPOLOGY_PROBE_H
#define FR_CPU_TOPOLOGY_PROBE_H

#include "cpu/topology.h"

/* Fills core and node of n units whose cpu is set; the numbers only have to tell cores and nodes
 * apart, in an order in which neighbours are near. What is not known stays as it is. */
void cpu_topology_probe(cpu_unit *units, int n);

#endif
