/* The thread pool: every thread runs once per job, barriers hold, sleepers wake, failures are
 * reported. */
#include "testing.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/mem.h"
#include "cpu/pool.h"

static fr_cpu *open_cpu(int n_threads)
{
    fr_err err = {0};
    fr_cpu *cpu = NULL;
    assert_ok(
        fr_cpu_open(&(fr_cpu_config){.n_threads = n_threads, .max_isa = FR_ISA_AUTO}, &cpu, &err));
    return cpu;
}

enum { MAX = 64 };

typedef struct {
    fr_cpu *cpu;
    int runs[MAX]; /* written by each thread for itself */
    int n_seen[MAX];
    _Atomic int arrived;
    _Atomic int too_early;
    int n_rounds;
} job;

static void count_runs(void *arg, int i_thread, int n_threads)
{
    job *j = arg;
    j->runs[i_thread]++;
    j->n_seen[i_thread] = n_threads;
}

static void test_every_thread_runs_every_job_once(void **state)
{
    (void)state;
    for (int n = 1; n <= 9; n++) {
        fr_cpu *cpu = open_cpu(n);
        job j = {.cpu = cpu};
        for (int i = 0; i < 500; i++)
            fr_cpu_run(cpu, count_runs, &j);
        for (int i = 0; i < MAX; i++) {
            assert_int_equal(j.runs[i], i < n ? 500 : 0);
            assert_int_equal(j.n_seen[i], i < n ? n : 0);
        }
        fr_cpu_close(cpu);
    }
}

/* Workers that went to sleep come back. */
static void test_sleepers_wake(void **state)
{
    (void)state;
    fr_cpu *cpu = open_cpu(3);
    job j = {.cpu = cpu};
    for (int i = 0; i < 20; i++) {
        usleep(3000);
        fr_cpu_run(cpu, count_runs, &j);
    }
    assert_int_equal(j.runs[0], 20);
    assert_int_equal(j.runs[1], 20);
    assert_int_equal(j.runs[2], 20);
    fr_cpu_close(cpu);
}

static void pass_barriers(void *arg, int i_thread, int n_threads)
{
    job *j = arg;
    for (int round = 0; round < j->n_rounds; round++) {
        if (i_thread == round % n_threads && round % 50 == 0)
            usleep(500); /* the others get to sleep */
        atomic_fetch_add(&j->arrived, 1);
        fr_cpu_barrier(j->cpu, i_thread);
        if (atomic_load(&j->arrived) < (round + 1) * n_threads)
            atomic_fetch_add(&j->too_early, 1);
        fr_cpu_barrier(j->cpu, i_thread);
    }
}

static void test_nobody_passes_a_barrier_early(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n++) {
        fr_cpu *cpu = open_cpu(n);
        job j = {.cpu = cpu, .n_rounds = 300};
        fr_cpu_run(cpu, pass_barriers, &j);
        fr_cpu_run(cpu, count_runs, &j);
        assert_int_equal(atomic_load(&j.too_early), 0);
        assert_int_equal(atomic_load(&j.arrived), 300 * n);
        fr_cpu_close(cpu);
    }
}

/* The clock counts what all threads take part in, and what the caller waited. */
static void test_clock(void **state)
{
    (void)state;
    for (int n = 1; n <= 3; n++) {
        fr_cpu *cpu = open_cpu(n);
        job j = {.cpu = cpu, .n_rounds = 10};
        fr_cpu_run(cpu, pass_barriers, &j);
        fr_cpu_clock(cpu, true);
        for (int i = 0; i < 3; i++)
            fr_cpu_run(cpu, pass_barriers, &j);
        fr_cpu_times t = fr_cpu_clock_read(cpu);
        assert_int_equal(t.n_jobs, n > 1 ? 3 : 0);
        assert_int_equal(t.n_barriers, n > 1 ? 60 : 0);
        assert_true(t.caller_wait >= 0 && t.others_busy >= 0);
        fr_cpu_clock(cpu, false);
        fr_cpu_run(cpu, pass_barriers, &j);
        assert_int_equal(fr_cpu_clock_read(cpu).n_jobs, 0);
        fr_cpu_close(cpu);
    }
}

/* Writes before a job are seen by all threads, and theirs by the caller. */
typedef struct {
    int64_t in[MAX], out[MAX];
} copy_job;

static void copy_part(void *arg, int i_thread, int n_threads)
{
    copy_job *j = arg;
    int64_t from, to;
    fr_cpu_share(MAX, 1, i_thread, n_threads, &from, &to);
    for (int64_t i = from; i < to; i++)
        j->out[i] = j->in[i] + 1;
}

static void test_memory_is_visible_both_ways(void **state)
{
    (void)state;
    fr_cpu *cpu = open_cpu(4);
    copy_job j;
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < MAX; i++)
            j.in[i] = round * i;
        fr_cpu_run(cpu, copy_part, &j);
        for (int i = 0; i < MAX; i++)
            assert_int_equal(j.out[i], round * i + 1);
    }
    fr_cpu_close(cpu);
}

static void test_share_covers_everything_once(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 70; n += 3) {
        for (int64_t grain = 1; grain <= 16; grain *= 2) {
            for (int n_threads = 1; n_threads < 12; n_threads++) {
                int64_t next = 0, from, to;
                for (int i = 0; i < n_threads; i++) {
                    fr_cpu_share(n, grain, i, n_threads, &from, &to);
                    assert_true(from <= to && (from == to || from == next));
                    assert_true(from % grain == 0 || from == n);
                    next = from < to ? to : next;
                }
                assert_int_equal(next, n);
            }
        }
    }
}

static void test_default_is_the_cores_of_the_mask(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(cpu_count_cpus(), CPU_COUNT(&before));
    assert_true(cpu_count_cores() >= 1 && cpu_count_cores() <= cpu_count_cpus());
    fr_cpu *cpu = open_cpu(0);
    assert_int_equal(fr_cpu_n_threads(cpu), cpu_count_cores());
    fr_cpu_close(cpu);
    CPU_ZERO(&one);
    for (int i = CPU_SETSIZE - 1; i >= 0 && CPU_COUNT(&one) == 0; i--) {
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cpu_count_cores(), 1);
    cpu = open_cpu(3); /* more threads than processors: spinning must let the others run */
    job j = {.cpu = cpu, .n_rounds = 100};
    fr_cpu_run(cpu, pass_barriers, &j);
    assert_int_equal(atomic_load(&j.too_early), 0);
    fr_cpu_close(cpu);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void block_seen(void *arg, int i_thread, int n_threads)
{
    sigset_t mask;
    (void)n_threads;
    sigemptyset(&mask);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    ((int *)arg)[i_thread] = sigismember(&mask, SIGINT);
}

static void test_workers_take_no_signals(void **state)
{
    (void)state;
    int blocked[3] = {-1, -1, -1};
    fr_cpu *cpu = open_cpu(3);
    fr_cpu_run(cpu, block_seen, blocked);
    assert_int_equal(blocked[0], 0);
    assert_int_equal(blocked[1], 1);
    assert_int_equal(blocked[2], 1);
    fr_cpu_close(cpu);
}

static void test_open_reports_failures(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_cpu *cpu = NULL;
    fr_cpu_config cfg = {.n_threads = CPU_MAX_THREADS + 1, .max_isa = FR_ISA_AUTO};
    assert_int_equal(fr_cpu_open(&cfg, &cpu, &err), FR_ERANGE);
    assert_non_null(strstr(err.text, "1025"));
    cfg.n_threads = 3;
    size_t before = fr_mem_tag_stats(FR_MEM_CPU).bytes_now;
    int n_failures = 0;
    for (uint64_t n = 1;; n++, n_failures++) {
        fr_mem_fail_at(n, 0);
        fr_status st = fr_cpu_open(&cfg, &cpu, &err);
        fr_mem_fail_at(0, 0);
        if (st == FR_OK)
            break;
        assert_int_equal(st, FR_ENOMEM);
        assert_int_equal(fr_mem_tag_stats(FR_MEM_CPU).bytes_now, before);
    }
    assert_true(n_failures >= 3);
    fr_cpu_close(cpu);
    assert_int_equal(fr_mem_tag_stats(FR_MEM_CPU).bytes_now, before);
    fr_cpu_close(NULL);
}

static void test_isa_names(void **state)
{
    (void)state;
    fr_err err = {0};
    fr_isa isa;
    assert_true(fr_isa_from_name("Scalar", &isa) && isa == FR_ISA_SCALAR);
    assert_true(fr_isa_from_name("avx2", &isa) && isa == FR_ISA_AVX2);
    assert_true(fr_isa_from_name("avx512", &isa) && isa == FR_ISA_AVX512);
    assert_true(fr_isa_from_name("auto", &isa) && isa == FR_ISA_AUTO);
    assert_false(fr_isa_from_name("avx3", &isa));
    fr_cpu *cpu = NULL;
    fr_cpu_config scalar = {.n_threads = 1, .max_isa = FR_ISA_SCALAR};
    assert_ok(fr_cpu_open(&scalar, &cpu, &err));
    assert_int_equal(fr_cpu_isa(cpu), FR_ISA_SCALAR);
    assert_string_equal(fr_isa_name(fr_cpu_isa(cpu)), "scalar");
    fr_cpu_close(cpu);
    fr_isa best = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi")
                      ? FR_ISA_AVX512
                  : __builtin_cpu_supports("avx2") ? FR_ISA_AVX2
                                                   : FR_ISA_SCALAR;
    cpu = open_cpu(1);
    assert_int_equal(fr_cpu_isa(cpu), best);
    fr_cpu_close(cpu);
    if (best < FR_ISA_AVX512)
        assert_int_equal(
            fr_cpu_open(&(fr_cpu_config){.n_threads = 1, .max_isa = FR_ISA_AVX512}, &cpu, &err),
            FR_EUNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_thread_runs_every_job_once),
        cmocka_unit_test(test_sleepers_wake),
        cmocka_unit_test(test_nobody_passes_a_barrier_early),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_memory_is_visible_both_ways),
        cmocka_unit_test(test_share_covers_everything_once),
        cmocka_unit_test(test_default_is_the_cores_of_the_mask),
        cmocka_unit_test(test_workers_take_no_signals),
        cmocka_unit_test(test_open_reports_failures),
        cmocka_unit_test(test_isa_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
