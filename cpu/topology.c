#include "cpu/topology.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cpu/topology_probe.h"

/* ---- masks
 * ------------------------------------------------------------------------------------------ */

void cpu_mask_clear(cpu_mask *m)
{
    CPU_ZERO_S(sizeof *m, m->part);
}

void cpu_mask_add(cpu_mask *m, int cpu)
{
    CPU_SET_S((size_t)cpu, sizeof *m, m->part);
}

bool cpu_mask_has(const cpu_mask *m, int cpu)
{
    return CPU_ISSET_S((size_t)cpu, sizeof *m, m->part);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

fr_status cpu_mask_parse_hex(cpu_mask *m, const char *text, fr_err *err)
{
    const char *digits = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? text + 2 : text;
    size_t n = strlen(digits);
    bool right = n > 0 && n <= CPU_MAX_CPUS / 4;
    for (size_t i = 0; right && i < n; i++) {
        int value = hex_digit(digits[n - 1 - i]);
        right = value >= 0;
        for (int bit = 0; right && bit < 4; bit++)
            if (value >> bit & 1)
                cpu_mask_add(m, (int)i * 4 + bit);
    }
    if (right)
        return FR_OK;
    return fr_fail(
        err, FR_EINVAL,
        "CPU mask: found '%s', expected hexadecimal digits, bit n being CPU n (ff = CPUs "
        "0 to 7)",
        text);
}

/* A number of at most CPU_MAX_CPUS - 1 at *at, which moves behind it; -1 for anything else. */
static int parse_cpu(const char **at)
{
    int n = 0, n_digits = 0;
    for (; isdigit((unsigned char)**at) && n < CPU_MAX_CPUS; (*at)++, n_digits++)
        n = n * 10 + (**at - '0');
    return n_digits > 0 && n < CPU_MAX_CPUS ? n : -1;
}

fr_status cpu_mask_parse_list(cpu_mask *m, const char *text, fr_err *err)
{
    for (const char *at = text;; at++) {
        int from = parse_cpu(&at), to = from;
        if (*at == '-') {
            at++;
            to = parse_cpu(&at);
        }
        if (from < 0 || to < from || (*at != ',' && *at != 0))
            return fr_fail(err, FR_EINVAL,
                           "CPU range: found '%s', expected numbers and ranges as in 0-7,16", text);
        for (int i = from; i <= to; i++)
            cpu_mask_add(m, i);
        if (*at == 0)
            return FR_OK;
    }
}

/* ---- reading
 * ---------------------------------------------------------------------------------------- */

/* What this thread was allowed before it was bound. */
static _Thread_local struct {
    int n_bound;
    cpu_mask before;
} own;

int cpu_read_mask(cpu_mask *m)
{
    if (own.n_bound > 0) {
        *m = own.before;
    } else {
        cpu_mask_clear(m);
        if (sched_getaffinity(0, sizeof *m, m->part))
            return 0;
    }
    return CPU_COUNT_S(sizeof *m, m->part);
}

int cpu_count_cpus(void)
{
    cpu_mask m;
    int n = cpu_read_mask(&m);
    if (n == 0)
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}

fr_status cpu_topology_read(cpu_topology *t, fr_err *err)
{
    *t = (cpu_topology){0};
    cpu_mask m;
    int n = cpu_read_mask(&m);
    if (n == 0) { /* as many CPUs as there are, and nothing known about them */
        n = cpu_count_cpus();
        for (int i = 0; i < n && i < CPU_MAX_CPUS; i++)
            cpu_mask_add(&m, i);
    }
    t->units = FR_NEW(cpu_unit, FR_MEM_CPU, (size_t)n, err);
    if (!t->units)
        return FR_ENOMEM;
    for (int i = 0; i < CPU_MAX_CPUS && t->n_units < n; i++)
        if (cpu_mask_has(&m, i))
            t->units[t->n_units++] = (cpu_unit){i, i, 0};
    cpu_topology_probe(t->units, t->n_units);
    cpu_topology_number(t);
    return FR_OK;
}

void cpu_topology_free(cpu_topology *t)
{
    fr_mem_free(t->units);
    *t = (cpu_topology){0};
}

int cpu_count_cores(void)
{
    cpu_topology t;
    if (cpu_topology_read(&t, NULL) != FR_OK)
        return 1;
    int n = t.n_cores;
    cpu_topology_free(&t);
    return n;
}

/* ---- order and choice
 * ------------------------------------------------------------------------------------ */

static int by_place(const void *a, const void *b)
{
    const cpu_unit *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    if (x->core != y->core)
        return x->core < y->core ? -1 : 1;
    return x->cpu < y->cpu ? -1 : x->cpu > y->cpu;
}

void cpu_topology_number(cpu_topology *t)
{
    qsort(t->units, (size_t)t->n_units, sizeof *t->units, by_place);
    t->n_cores = t->n_nodes = 0;
    cpu_unit before = {-1, -1, -1};
    for (int i = 0; i < t->n_units; i++) {
        cpu_unit *u = &t->units[i], now = *u;
        bool new_node = t->n_nodes == 0 || now.node != before.node;
        t->n_nodes += new_node;
        t->n_cores += new_node || now.core != before.core;
        u->node = t->n_nodes - 1;
        u->core = t->n_cores - 1;
        before = now;
    }
}

void cpu_topology_keep(cpu_topology *t, const cpu_mask *mask)
{
    int n = 0;
    for (int i = 0; i < t->n_units; i++)
        if (cpu_mask_has(mask, t->units[i].cpu))
            t->units[n++] = t->units[i];
    t->n_units = n;
    cpu_topology_number(t);
}

void cpu_topology_keep_node(cpu_topology *t, int cpu)
{
    int node = 0, n = 0;
    for (int i = 0; i < t->n_units; i++)
        if (t->units[i].cpu == cpu)
            node = t->units[i].node;
    for (int i = 0; i < t->n_units; i++)
        if (t->units[i].node == node)
            t->units[n++] = t->units[i];
    t->n_units = n;
    cpu_topology_number(t);
}

fr_status cpu_topology_restrict(cpu_topology *t, const fr_cpu_config *cfg, fr_err *err)
{
    cpu_mask m;
    cpu_mask_clear(&m);
    if (cfg->cpu_mask)
        FR_TRY(cpu_mask_parse_hex(&m, cfg->cpu_mask, err));
    if (cfg->cpu_range)
        FR_TRY(cpu_mask_parse_list(&m, cfg->cpu_range, err));
    if (cfg->cpu_mask || cfg->cpu_range)
        cpu_topology_keep(t, &m);
    if (t->n_units == 0)
        return fr_fail(err, FR_EINVAL,
                       "CPUs: found none of --cpu-mask %s --cpu-range %s among those that this "
                       "process may use, expected at least one; see taskset -p",
                       cfg->cpu_mask ? cfg->cpu_mask : "''",
                       cfg->cpu_range ? cfg->cpu_range : "''");
    if (cfg->numa == FR_NUMA_ISOLATE)
        cpu_topology_keep_node(t, sched_getcpu());
    return FR_OK;
}

/* ---- threads
 * ---------------------------------------------------------------------------------------- */

/* The nth CPU (0: first) of a core, or -1. */
static int cpu_of_core(const cpu_topology *t, int core, int nth)
{
    for (int i = 0; i < t->n_units; i++)
        if (t->units[i].core == core && nth-- == 0)
            return t->units[i].cpu;
    return -1;
}

static int node_of_core(const cpu_topology *t, int core)
{
    for (int i = 0; i < t->n_units; i++)
        if (t->units[i].core == core)
            return t->units[i].node;
    return 0;
}

/* One round: `n` threads on cores that have an nth CPU, evenly. Returns how many of them found one;
 * their seats say which CPU. */
static int spread_round(const cpu_topology *t, int n, int nth, cpu_seat *seats)
{
    int n_cores = 0, i_core = 0, n_done = 0;
    for (int c = 0; c < t->n_cores; c++)
        n_cores += cpu_of_core(t, c, nth) >= 0;
    if (n > n_cores)
        n = n_cores;
    for (int c = 0; c < t->n_cores && n_done < n; c++) {
        int cpu = cpu_of_core(t, c, nth);
        if (cpu >= 0 && i_core++ == (int)((int64_t)n_done * n_cores / n))
            seats[n_done++] = (cpu_seat){node_of_core(t, c), c, cpu};
    }
    return n_done;
}

void cpu_topology_spread(const cpu_topology *t, int n_threads, cpu_seat *seats)
{
    int n_done = 0, n_first = 0;
    for (int nth = 0; n_done < n_threads; nth++) {
        int n = spread_round(t, n_threads - n_done, nth, seats + n_done);
        if (n == 0)
            break;
        n_done += n;
        if (nth == 0)
            n_first = n;
    }
    if (n_done == n_first) /* no core has two: a thread may have all of its core */
        for (int i = 0; i < n_done; i++)
            seats[i].cpu = -1;
    for (int i = n_done; i < n_threads; i++)
        seats[i] = seats[i % n_done];
}

cpu_seat cpu_seat_bound(const cpu_topology *t, const fr_cpu_config *cfg, int n_threads,
                        cpu_seat seat)
{
    static const cpu_seat anywhere = {-1, -1, -1};
    if (cfg->bind_cores && n_threads <= t->n_units)
        return seat;
    if (cfg->numa == FR_NUMA_DISTRIBUTE || cfg->numa == FR_NUMA_NUMACTL)
        return (cpu_seat){seat.node, -1, -1};
    return anywhere;
}

void cpu_seat_mask(const cpu_topology *t, cpu_seat seat, cpu_mask *out)
{
    cpu_mask_clear(out);
    for (int i = 0; i < t->n_units; i++) {
        const cpu_unit *u = &t->units[i];
        if ((seat.node < 0 || u->node == seat.node) && (seat.core < 0 || u->core == seat.core) &&
            (seat.cpu < 0 || u->cpu == seat.cpu))
            cpu_mask_add(out, u->cpu);
    }
}

void cpu_bind_self(const cpu_mask *m)
{
    if (own.n_bound == 0) {
        cpu_mask before;
        if (cpu_read_mask(&before) == 0)
            return;
        own.before = before;
    }
    own.n_bound++;
    sched_setaffinity(0, sizeof *m, m->part);
}

void cpu_unbind_self(void)
{
    if (own.n_bound > 0 && --own.n_bound == 0)
        sched_setaffinity(0, sizeof own.before, own.before.part);
}
