/* Tiles cover every row of every matrix once, whatever deals them out; threads stay with the rows
 * of their node; and results have the same bits on machines with two nodes. */
#include "testing.h"

#include "base/mem.h"
#include "cpu/deal_choice.h"
#include "cpu/kernels.h"
#include "cpu/numa.h"
#include "cpu/pool.h"
#include "cpu/tiles.h"

enum { MAX_MATS = 20, MAX_ROWS = 3000, MAX_UNITS = 64 };

static cpu_unit units[MAX_UNITS];

static cpu_topology machine(int n_nodes, int n_cores)
{
    cpu_topology t = {.units = units};
    for (int i = 0; i < n_nodes * n_cores; i++)
        units[t.n_units++] = (cpu_unit){i, i, i / n_cores};
    cpu_topology_number(&t);
    return t;
}

static fr_cpu *open_on(int n_nodes, int n_threads, fr_numa numa)
{
    fr_err err = {0};
    fr_cpu *cpu;
    cpu_topology t = machine(n_nodes, 8);
    fr_cpu_config cfg = {.n_threads = n_threads, .max_isa = FR_ISA_AUTO, .numa = numa};
    assert_ok(cpu_open_on(&cfg, &t, &cpu, &err));
    return cpu;
}

static void test_homes(void **state)
{
    (void)state;
    for (int64_t n_rows = 1; n_rows < MAX_ROWS; n_rows += 37)
        for (int n = 1; n <= CPU_MAX_NODES; n++) {
            int64_t next = 0, from, to, most = 0, least = n_rows;
            for (int s = 0; s < n; s++) {
                cpu_home_rows(n_rows, n, s, &from, &to);
                assert_true(from == next || from == to);
                assert_true(from % 16 == 0 || from == n_rows);
                next = to > next ? to : next;
                most = to - from > most ? to - from : most;
                least = to - from < least ? to - from : least;
            }
            assert_int_equal(next, n_rows);
            assert_true(most - least <= 2 * (n_rows >= n * 256 ? 64 : 16));
        }
}

typedef struct {
    fr_cpu *cpu;
    cpu_tiles tiles;
    _Atomic unsigned char met[MAX_MATS][MAX_ROWS];
    _Atomic int wrong;
} cover_job;

static void cover(void *arg, int i_thread, int n_threads)
{
    cover_job *j = arg;
    cpu_walk w = cpu_tiles_walk(&j->tiles, i_thread, n_threads);
    int share = cpu_pool_place(j->cpu->pool, i_thread).share;
    for (cpu_tile t; cpu_tiles_next(&j->tiles, &w, &t);) {
        const cpu_tiles_share *s = &j->tiles.shares[share];
        if (n_threads > 1 && (t.from < s->from || t.to > s->to))
            j->wrong++;
        if (t.from >= t.to || t.to - t.from > j->tiles.tile_rows || t.from % j->tiles.grain)
            j->wrong++;
        for (int64_t r = t.from; r < t.to; r++)
            j->met[t.mat][r]++;
    }
}

static void check_cover(fr_cpu *cpu, cpu_deal deal, int64_t n_mat, int64_t n_rows, int64_t rows,
                        int64_t least, int64_t grain, bool alone)
{
    static cover_job job;
    memset(&job, 0, sizeof job);
    job.cpu = cpu;
    if (least == rows)
        cpu_tiles_cut(&job.tiles, cpu, deal, n_mat, n_rows, rows, grain);
    else
        cpu_tiles_cut_ending(&job.tiles, cpu, deal, n_mat, n_rows, rows, least, grain);
    if (alone)
        cover(&job, 0, 1);
    else
        fr_cpu_run(cpu, cover, &job);
    assert_int_equal(job.wrong, 0);
    for (int64_t m = 0; m < MAX_MATS; m++)
        for (int64_t r = 0; r < n_rows; r++)
            assert_int_equal(job.met[m][r], m < n_mat);
}

static void test_every_row_once(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 5, 8, 16};
    for (int n_nodes = 1; n_nodes <= 3; n_nodes++)
        for (int i = 0; i < 6; i++) {
            fr_cpu *cpu = open_on(n_nodes, threads[i], FR_NUMA_DISTRIBUTE);
            assert_int_equal(cpu_pool_n_shares(cpu->pool), threads[i] >= n_nodes ? n_nodes : 1);
            for (int deal = 0; deal < CPU_DEAL_COUNT; deal++)
                for (int64_t n_mat = 0; n_mat <= MAX_MATS; n_mat += n_mat < 4 ? 1 : 8) {
                    check_cover(cpu, (cpu_deal)deal, n_mat, 1408, 64, 64, 16, false);
                    check_cover(cpu, (cpu_deal)deal, n_mat, 51, 8, 8, 8, false);
                    check_cover(cpu, (cpu_deal)deal, n_mat, 300, 12, 12, 4, true);
                    check_cover(cpu, (cpu_deal)deal, n_mat, 1408, 240, 16, 16, false);
                    check_cover(cpu, (cpu_deal)deal, n_mat, 51, 16, 8, 8, false);
                    check_cover(cpu, (cpu_deal)deal, n_mat, 300, 24, 4, 4, true);
                }
            fr_cpu_close(cpu);
        }
}

/* A peek is right as long as nobody else takes tiles, and sees all that is the thread's own. */
static void check_peek(const fr_cpu *cpu, cpu_deal deal, int64_t least, int i_thread, int n_threads,
                       int most)
{
    static cpu_tiles tiles;
    cpu_tiles_cut_ending(&tiles, cpu, deal, 6, 1408, 256, least, 16);
    cpu_walk w = cpu_tiles_walk(&tiles, i_thread, n_threads);
    int n_seen = 0;
    for (bool more = true; more;) {
        cpu_tile ahead, t;
        bool seen = cpu_tiles_peek(&tiles, &w, &ahead);
        more = cpu_tiles_next(&tiles, &w, &t);
        n_seen += seen;
        if (seen) {
            assert_true(more);
            assert_true(ahead.mat == t.mat && ahead.from == t.from && ahead.to == t.to);
        }
    }
    assert_in_range(n_seen, 36 / 4, most);
}

static void test_peek(void **state)
{
    (void)state;
    fr_cpu *cpu = open_on(1, 4, FR_NUMA_OFF);
    for (int deal = 0; deal < CPU_DEAL_COUNT; deal++)
        for (int i = 0; i < 4; i++)
            check_peek(cpu, (cpu_deal)deal, 256, i, 4, deal == CPU_DEAL_CLAIM ? 36 / 4 : 12);
    for (int i = 0; i < 4; i++)
        check_peek(cpu, CPU_DEAL_CLAIM, 16, i, 4, 18);
    fr_cpu_close(cpu);
}

/* Of a lane, tiles get smaller to the end, and nobody's last one is larger than the least. */
static void test_ending(void **state)
{
    (void)state;
    fr_cpu *cpu = open_on(1, 2, FR_NUMA_OFF);
    static cpu_tiles tiles;
    cpu_tiles_cut_ending(&tiles, cpu, CPU_DEAL_CLAIM, 1, 2048, 256, 16, 16);
    cpu_walk w = cpu_tiles_walk(&tiles, 0, 2);
    static const int64_t rows[] = {256, 256, 256, 128, 64, 32, 16, 16};
    cpu_tile t;
    int64_t next = 0;
    for (int lane = 0; lane < 2; lane++) { /* the other's from its end */
        for (int i = 0; i < 8; i++, next += rows[i - 1]) {
            assert_true(cpu_tiles_next(&tiles, &w, &t));
            assert_int_equal(t.to - t.from, rows[i]);
            assert_int_equal(lane == 0 ? t.from : 3072 - t.to, next);
        }
    }
    assert_false(cpu_tiles_next(&tiles, &w, &t));
    fr_cpu_close(cpu);
}

/* ---- choosing
 * --------------------------------------------------------------------------------------- */

/* Way d takes seconds[d], but every fifth call is held up. */
static cpu_deal choose(const double *seconds, int n_ways)
{
    cpu_deal_stage s = {0};
    int n = 0;
    for (; !s.decided; n++) {
        assert_true(n < 100);
        cpu_deal d = cpu_deal_now(&s, n_ways);
        assert_in_range(d, 0, n_ways - 1);
        cpu_deal_took(&s, n_ways, d, n % 5 == 4 ? 1.0 : seconds[d]);
    }
    assert_int_equal(n, n_ways * (CPU_DEAL_ROUNDS + 1));
    cpu_deal_took(&s, n_ways, CPU_DEAL_ROWS, 0); /* too late */
    assert_int_equal(cpu_deal_now(&s, n_ways), s.chosen);
    return s.chosen;
}

static void test_choosing(void **state)
{
    (void)state;
    assert_int_equal(choose((double[]){1e-3, 0.9e-3, 0.8e-3}, 3), CPU_DEAL_MATS);
    assert_int_equal(choose((double[]){1e-3, 0.9e-3, 0.8e-3}, 2), CPU_DEAL_ROWS);
    assert_int_equal(choose((double[]){1e-3, 0.97e-3, 2e-3}, 3), CPU_DEAL_CLAIM);
    static cpu_deal_table t;
    cpu_deal_key key = {.n_used = 1};
    for (int i = 0; i < CPU_DEAL_SHAPES; i++, key.n_ff++)
        assert_ptr_equal(cpu_deal_find(&t, &key), &t.shapes[i]);
    assert_null(cpu_deal_find(&t, &key));
    key.n_ff = 3;
    assert_ptr_equal(cpu_deal_find(&t, &key), &t.shapes[3]);
    for (int64_t next = 1, from, to;; next = to + 1) {
        cpu_deal_class(next, &from, &to);
        assert_true(from == next && to >= from);
        if (to == INT64_MAX)
            break;
    }
}

/* ---- results
 * ---------------------------------------------------------------------------------------- */

enum { EMBD = 512, FF = 768, EXPERTS = 9, USED = 4, TOKENS = 11 };

static uint64_t rng = 5;

static fr_weight random_weight(int64_t cols, int64_t rows, int64_t n_mat)
{
    fr_weight w = fr_weight_make(FR_TYPE_F32, FR_LAYOUT_PLAIN, cols, rows, n_mat);
    float *x = test_calloc((size_t)(cols * rows * n_mat), sizeof *x);
    for (int64_t i = 0; i < cols * rows * n_mat; i++)
        x[i] = test_rand_f(&rng);
    w.data = x;
    return w;
}

typedef struct {
    fr_weight gate, up, down, tall;
    float x[TOKENS * EMBD], weights[TOKENS * USED];
    int32_t ids[TOKENS * USED];
} layer;

/* y: of the experts; z: of a product. */
static void compute(fr_cpu *cpu, const layer *l, int64_t n, float *y, float *z)
{
    fr_cpu_moe_args a = {.gate = &l->gate,
                         .up = &l->up,
                         .down = &l->down,
                         .n_tokens = n,
                         .n_used = USED,
                         .ids = l->ids,
                         .weights = l->weights,
                         .x = l->x,
                         .y = y};
    a.scratch = test_malloc(fr_cpu_moe_scratch_bytes(cpu, &l->gate, &l->up, &l->down, n, USED));
    fr_cpu_moe(cpu, &a);
    test_free(a.scratch);
    fr_act x = fr_cpu_act_prepare(cpu, FR_ACT_F32, l->x, EMBD, n, EMBD, NULL);
    fr_cpu_matmul(cpu, &l->tall, &x, n, z, FF);
}

static void check_nodes(const layer *l, int n_nodes, int n_threads, int64_t n, const float *y,
                        const float *z)
{
    static float got_y[TOKENS * EMBD], got_z[TOKENS * FF];
    fr_cpu *cpu = open_on(n_nodes, n_threads, FR_NUMA_DISTRIBUTE);
    fr_cpu_home_weight(cpu, &l->gate); /* leaves the weights as they are */
    fr_cpu_home_weight(cpu, &l->tall);
    for (int round = 0; round < 40; round++) { /* all ways to deal experts out are tried */
        memset(got_y, 0xFF, sizeof got_y);
        memset(got_z, 0xFF, sizeof got_z);
        compute(cpu, l, n, got_y, got_z);
        assert_memory_equal(got_y, y, (size_t)(n * EMBD) * sizeof *y);
        assert_memory_equal(got_z, z, (size_t)(n * FF) * sizeof *z);
    }
    fr_cpu_moe_choice c[4];
    assert_int_equal(fr_cpu_moe_choices(cpu, c, 4), 1);
    assert_true(c[0].tokens_from <= n && n <= c[0].tokens_to);
    assert_true(c[0].up && c[0].down && c[0].up_gain >= 1 && c[0].n_experts == EXPERTS);
    fr_cpu_close(cpu);
}

static void test_same_bits_on_nodes(void **state)
{
    (void)state;
    static layer l;
    static float y[TOKENS * EMBD], z[TOKENS * FF];
    l.gate = random_weight(EMBD, FF, EXPERTS);
    l.up = random_weight(EMBD, FF, EXPERTS);
    l.down = random_weight(FF, EMBD, EXPERTS);
    l.tall = random_weight(EMBD, FF, 1);
    for (int i = 0; i < TOKENS * EMBD; i++)
        l.x[i] = test_rand_f(&rng);
    for (int i = 0; i < TOKENS * USED; i++) {
        l.ids[i] = (i / USED + i % USED * 2) % EXPERTS;
        l.weights[i] = test_rand_f(&rng);
    }
    for (int64_t n = 1; n <= TOKENS; n += TOKENS - 1) {
        fr_cpu *cpu = open_on(1, 1, FR_NUMA_OFF);
        compute(cpu, &l, n, y, z);
        fr_cpu_close(cpu);
        check_nodes(&l, 1, 3, n, y, z);
        check_nodes(&l, 2, 2, n, y, z);
        check_nodes(&l, 2, 5, n, y, z);
        check_nodes(&l, 3, 6, n, y, z);
    }
    const fr_weight *all[] = {&l.gate, &l.up, &l.down, &l.tall};
    for (int i = 0; i < 4; i++)
        test_free((void *)(uintptr_t)all[i]->data);
}

/* Every page of a weight is touched by a thread of the node that reads what it begins with. */
static void test_pages(void **state)
{
    (void)state;
    fr_weight w = fr_weight_make(FR_TYPE_F32, FR_LAYOUT_PLAIN, 700, 1100, 3);
    enum { PAGE = 4096 };
    size_t bytes = w.mat_bytes * 3;
    uint8_t *data = aligned_alloc(PAGE, (bytes + 2 * PAGE) / PAGE * PAGE);
    assert_non_null(data);
    w.data = data + 64; /* behind the header of a block */
    size_t n_pages = 0;
    for (int s = 0; s < 2; s++)
        for (int64_t m = 0; m < 3; m++) {
            int64_t from, to;
            cpu_home_rows(w.rows, 2, s, &from, &to);
            cpu_pages p = cpu_home_pages(&w, m, 2, s, PAGE);
            const uint8_t *mat = (const uint8_t *)w.data + (size_t)m * w.mat_bytes;
            size_t row_bytes = fr_row_bytes(w.type, w.layout, w.cols);
            const uint8_t *begin = mat + (size_t)from * row_bytes;
            const uint8_t *end = mat + (size_t)to * row_bytes;
            assert_true((uintptr_t)p.first % PAGE == 0);
            if (m == 0 && s == 0) /* the page that the weight begins on is its own, too */
                assert_ptr_equal(p.first, data);
            else
                assert_true(p.first >= begin && p.first < begin + PAGE);
            const uint8_t *after = p.first + p.n * PAGE;
            assert_true(after >= end && after < end + PAGE);
            n_pages += p.n;
        }
    assert_int_equal(n_pages, (bytes + 64 + PAGE - 1) / PAGE);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_homes),    cmocka_unit_test(test_every_row_once),
        cmocka_unit_test(test_peek),     cmocka_unit_test(test_ending),
        cmocka_unit_test(test_choosing), cmocka_unit_test(test_same_bits_on_nodes),
        cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
