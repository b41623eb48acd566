/* Where threads can run: hardware threads ("CPUs" of the system), the cores that they are on, and
 * the NUMA nodes of those; and how a number of threads is spread over them. Inside the cpu box. */
#ifndef FR_CPU_TOPOLOGY_H
#define FR_CPU_TOPOLOGY_H

#include <sched.h>

#include "cpu/cpu.h"

#define CPU_MAX_CPUS  8192 /* the kernel's own limit */
#define CPU_MAX_NODES 16   /* that weights are spread over; threads may be on more */

typedef struct {
    cpu_set_t part[CPU_MAX_CPUS / CPU_SETSIZE];
} cpu_mask;

void cpu_mask_clear(cpu_mask *m);
void cpu_mask_add(cpu_mask *m, int cpu); /* 0 <= cpu < CPU_MAX_CPUS */
bool cpu_mask_has(const cpu_mask *m, int cpu);

/* Adds the CPUs of a hexadecimal mask ("ff", "0xF0") or of a list ("0-7,16"). FR_EINVAL. */
fr_status cpu_mask_parse_hex(cpu_mask *m, const char *text, fr_err *err);
fr_status cpu_mask_parse_list(cpu_mask *m, const char *text, fr_err *err);

typedef struct {
    int cpu, core, node; /* the system's numbers until cpu_topology_number */
} cpu_unit;

/* units: by node, then core, then CPU; nodes and cores count from 0 in that order. */
typedef struct {
    cpu_unit *units;
    int n_units, n_cores, n_nodes;
} cpu_topology;

/* The CPUs that this process may use (as it started, whatever the pool binds). At least one. The
 * units are owned by the caller: cpu_topology_free. */
fr_status cpu_topology_read(cpu_topology *t, fr_err *err);
void cpu_topology_free(cpu_topology *t);

/* Brings units into order and numbers nodes and cores. */
void cpu_topology_number(cpu_topology *t);

/* Keeps the CPUs of a mask, or those of the node that a CPU is on (of the first one when it is not
 * there). */
void cpu_topology_keep(cpu_topology *t, const cpu_mask *mask);
void cpu_topology_keep_node(cpu_topology *t, int cpu);

/* What a configuration leaves. FR_EINVAL when that is nothing. */
fr_status cpu_topology_restrict(cpu_topology *t, const fr_cpu_config *cfg, fr_err *err);

/* Where a thread runs: -1 = anywhere (of the node, of the core, of the topology). */
typedef struct {
    int node, core, cpu;
} cpu_seat;

/* Spreads threads evenly over cores, and so over nodes; second hardware threads come when every
 * core has a thread. Nodes and cores are always given, cpu where threads share a core; more threads
 * than CPUs are dealt out again from the start. */
void cpu_topology_spread(const cpu_topology *t, int n_threads, cpu_seat *seats);

/* Widens a seat to what a configuration binds threads to (a core, a node, or nothing). */
cpu_seat cpu_seat_bound(const cpu_topology *t, const fr_cpu_config *cfg, int n_threads,
                        cpu_seat seat);

/* The CPUs of a seat. */
void cpu_seat_mask(const cpu_topology *t, cpu_seat seat, cpu_mask *out);

/* Binds the calling thread; the first binding of a thread remembers what it was allowed before, and
 * the last cpu_unbind_self brings that back. The system may refuse: nothing is bound then. */
void cpu_bind_self(const cpu_mask *m);
void cpu_unbind_self(void);

/* The CPUs that this process may use; their number, or 0 when the system does not say. */
int cpu_read_mask(cpu_mask *m);

/* How many CPUs this process may run on, and on how many physical cores they are (both >= 1). */
int cpu_count_cpus(void);
int cpu_count_cores(void);

#endif
