/* Spreading threads over cores and nodes, on machines that are only described here; and what the
 * threads of a pool are really bound to, on this one. */
#include "testing.h"

#include <pthread.h>

#include "base/mem.h"
#include "cpu/pool.h"

enum { MAX_UNITS = 64, MAX_SEATS = 64 };

/* n_nodes nodes of n_cores cores with n_smt hardware threads; CPUs are numbered as Linux does: the
 * first threads of all cores, then the second ones. */
static cpu_unit units[MAX_UNITS];

static cpu_topology machine(int n_nodes, int n_cores, int n_smt)
{
    cpu_topology t = {.units = units};
    int all = n_nodes * n_cores;
    for (int i = 0; i < all * n_smt; i++) {
        int core = i % all;
        units[t.n_units++] = (cpu_unit){i, 100 + core * 3, 7 + core / n_cores};
    }
    cpu_topology_number(&t);
    return t;
}

static void test_numbering(void **state)
{
    (void)state;
    cpu_topology t = machine(2, 3, 2);
    assert_int_equal(t.n_units, 12);
    assert_int_equal(t.n_cores, 6);
    assert_int_equal(t.n_nodes, 2);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(t.units[i].core, i / 2);
        assert_int_equal(t.units[i].node, i / 6);
        assert_int_equal(t.units[i].cpu, i / 2 + i % 2 * 6);
    }
    /* cores of two nodes may have the same number */
    units[0] = (cpu_unit){0, 5, 1};
    units[1] = (cpu_unit){1, 5, 0};
    cpu_topology two = {.units = units, .n_units = 2};
    cpu_topology_number(&two);
    assert_int_equal(two.n_cores, 2);
    assert_int_equal(two.units[0].cpu, 1);
}

static void test_spreading(void **state)
{
    (void)state;
    cpu_seat seats[MAX_SEATS];
    cpu_topology t = machine(2, 4, 2);
    for (int n = 1; n <= 40; n++) {
        int on_core[8] = {0}, on_node[2] = {0}, on_cpu[16] = {0};
        cpu_topology_spread(&t, n, seats);
        for (int i = 0; i < n; i++) {
            assert_in_range(seats[i].core, 0, 7);
            assert_int_equal(seats[i].node, seats[i].core / 4);
            on_core[seats[i].core]++;
            on_node[seats[i].node]++;
            assert_true(n <= 8 ? seats[i].cpu == -1 : seats[i].cpu % 8 == seats[i].core);
            if (seats[i].cpu >= 0)
                on_cpu[seats[i].cpu]++;
        }
        for (int c = 0; c < 8 && n <= 16; c++)
            assert_in_range(on_core[c], n / 8, n <= 8 ? 1 : 2);
        for (int c = 0; c < 16 && n > 8 && n <= 16; c++)
            assert_in_range(on_cpu[c], 0, 1);
        assert_in_range(on_node[0], on_node[1], on_node[1] + (n <= 16 ? 1 : 16));
    }
}

static cpu_seat bound(const cpu_topology *t, bool bind, fr_numa numa, int n_threads)
{
    cpu_seat seats[MAX_SEATS];
    cpu_topology_spread(t, n_threads, seats);
    fr_cpu_config cfg = {.bind_cores = bind, .numa = numa};
    return cpu_seat_bound(t, &cfg, n_threads, seats[n_threads - 1]);
}

static int n_cpus(const cpu_topology *t, cpu_seat seat)
{
    cpu_mask m;
    int n = 0;
    cpu_seat_mask(t, seat, &m);
    for (int i = 0; i < CPU_MAX_CPUS; i++)
        n += cpu_mask_has(&m, i);
    return n;
}

static void test_binding(void **state)
{
    (void)state;
    cpu_topology t = machine(2, 4, 2);
    assert_int_equal(n_cpus(&t, bound(&t, false, FR_NUMA_OFF, 8)), 16);
    assert_int_equal(n_cpus(&t, bound(&t, true, FR_NUMA_OFF, 8)), 2);
    assert_int_equal(n_cpus(&t, bound(&t, true, FR_NUMA_OFF, 3)), 2);
    assert_int_equal(n_cpus(&t, bound(&t, true, FR_NUMA_OFF, 12)), 1);
    assert_int_equal(n_cpus(&t, bound(&t, true, FR_NUMA_OFF, 17)), 16);       /* too many */
    assert_int_equal(n_cpus(&t, bound(&t, false, FR_NUMA_DISTRIBUTE, 8)), 8); /* a node */
    assert_int_equal(n_cpus(&t, bound(&t, false, FR_NUMA_NUMACTL, 5)), 8);
    assert_int_equal(n_cpus(&t, bound(&t, true, FR_NUMA_DISTRIBUTE, 8)), 2);
    cpu_seat last = bound(&t, true, FR_NUMA_OFF, 8);
    cpu_mask m;
    cpu_seat_mask(&t, last, &m);
    assert_true(cpu_mask_has(&m, 7) && cpu_mask_has(&m, 15));
}

static void test_masks(void **state)
{
    (void)state;
    fr_err err = {0};
    cpu_mask m;
    cpu_mask_clear(&m);
    assert_ok(cpu_mask_parse_hex(&m, "0x8000000000000000f1", &err));
    for (int i = 0; i < 100; i++)
        assert_int_equal(cpu_mask_has(&m, i), i == 0 || (i >= 4 && i < 8) || i == 71);
    cpu_mask_clear(&m);
    assert_ok(cpu_mask_parse_list(&m, "3,5-7,8191", &err));
    for (int i = 0; i < CPU_MAX_CPUS; i++)
        assert_int_equal(cpu_mask_has(&m, i), i == 3 || (i >= 5 && i < 8) || i == 8191);
    static const char *const bad_masks[] = {"", "0x", "12g", "-1", " 1"};
    static const char *const bad_lists[] = {"",     "1,", "a",   "3-2",
                                            "8192", "1-", "1;2", "99999999999"};
    for (size_t i = 0; i < sizeof bad_masks / sizeof *bad_masks; i++)
        assert_int_equal(cpu_mask_parse_hex(&m, bad_masks[i], &err), FR_EINVAL);
    for (size_t i = 0; i < sizeof bad_lists / sizeof *bad_lists; i++)
        assert_int_equal(cpu_mask_parse_list(&m, bad_lists[i], &err), FR_EINVAL);
    static char wide[CPU_MAX_CPUS / 4 + 2];
    memset(wide, '0', CPU_MAX_CPUS / 4 + 1);
    assert_int_equal(cpu_mask_parse_hex(&m, wide, &err), FR_EINVAL);
}

static void test_restricting(void **state)
{
    (void)state;
    fr_err err = {0};
    cpu_topology t = machine(2, 4, 2);
    fr_cpu_config cfg = {.cpu_mask = "1", .cpu_range = "4-5,12,70"};
    assert_ok(cpu_topology_restrict(&t, &cfg, &err));
    assert_int_equal(t.n_units, 4);
    assert_int_equal(t.n_cores, 3);
    assert_int_equal(t.n_nodes, 2);
    cpu_topology_keep_node(&t, 5);
    assert_int_equal(t.n_units, 3);
    assert_int_equal(t.n_nodes, 1);
    assert_int_equal(t.units[1].cpu, 12);
    t = machine(2, 4, 1);
    cfg = (fr_cpu_config){.cpu_range = "60"};
    assert_int_equal(cpu_topology_restrict(&t, &cfg, &err), FR_EINVAL);
    assert_non_null(strstr(err.text, "60"));
    fr_cpu *cpu;
    cfg = (fr_cpu_config){.cpu_mask = "xyz"};
    assert_int_equal(fr_cpu_open(&cfg, &cpu, &err), FR_EINVAL);
}

/* ---- this machine
 * ----------------------------------------------------------------------------------- */

typedef struct {
    cpu_mask allowed[MAX_SEATS];
} masks_job;

static void read_masks(void *arg, int i_thread, int n_threads)
{
    masks_job *j = arg;
    (void)n_threads;
    cpu_mask *m = &j->allowed[i_thread];
    cpu_mask_clear(m);
    sched_getaffinity(0, sizeof *m, m->part);
}

static bool same(const cpu_mask *a, const cpu_mask *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void check_bound(bool bind, int n_threads, const cpu_topology *t)
{
    static masks_job job;
    fr_err err = {0};
    fr_cpu *cpu;
    cpu_mask before, after, seat;
    assert_true(cpu_read_mask(&before) > 0);
    fr_cpu_config cfg = {.n_threads = n_threads, .max_isa = FR_ISA_AUTO, .bind_cores = bind};
    assert_ok(fr_cpu_open(&cfg, &cpu, &err));
    fr_cpu_run(cpu, read_masks, &job);
    cpu_seat seats[MAX_SEATS];
    cpu_topology_spread(t, n_threads, seats);
    for (int i = 0; i < n_threads; i++) {
        cpu_seat_mask(t, cpu_seat_bound(t, &cfg, n_threads, seats[i]), &seat);
        assert_true(same(&job.allowed[i], &seat));
    }
    assert_true(cpu_read_mask(&after) >
                0); /* what the process may use is not what it is bound to */
    assert_true(same(&before, &after));
    fr_cpu_close(cpu);
    cpu_mask_clear(&after);
    sched_getaffinity(0, sizeof after, after.part);
    assert_true(same(&before, &after));
}

static void test_threads_are_bound(void **state)
{
    (void)state;
    fr_err err = {0};
    cpu_topology t;
    assert_ok(cpu_topology_read(&t, &err));
    assert_int_equal(t.n_units, cpu_count_cpus());
    int most = t.n_units + 1 < MAX_SEATS ? t.n_units + 1 : MAX_SEATS;
    for (int n = 1; n <= most; n++) {
        check_bound(true, n, &t);
        check_bound(false, n, &t);
    }
    char one[16];
    snprintf(one, sizeof one, "%d", t.units[0].cpu);
    fr_cpu_config cfg = {.n_threads = 2, .cpu_range = one, .max_isa = FR_ISA_AUTO};
    fr_cpu *cpu;
    static masks_job job;
    assert_ok(fr_cpu_open(&cfg, &cpu, &err));
    fr_cpu_run(cpu, read_masks, &job);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(CPU_COUNT_S(sizeof job.allowed[i], job.allowed[i].part), 1);
        assert_true(cpu_mask_has(&job.allowed[i], t.units[0].cpu));
    }
    fr_cpu_close(cpu);
    cpu_topology_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbering),   cmocka_unit_test(test_spreading),
        cmocka_unit_test(test_binding),     cmocka_unit_test(test_masks),
        cmocka_unit_test(test_restricting), cmocka_unit_test(test_threads_are_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
