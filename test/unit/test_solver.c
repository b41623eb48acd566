/* The solver on random machines and models, on all placements of tiny ones, and on machines that
 * grow. `test_solver --all` takes 1,000 machines, `--sweep` real headers and VRAM from 8 to 96 GiB
 * (test/e2e runs both); `--grow` lets 1,800 machines grow; `--bench` prints times and predictions
 * for large models. */
#include "support/plan_problems.h"
#include "testing.h"

#include <math.h>
#include <time.h>

/* Sanitizers are slow: they see fewer machines. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { MANY = 150, SWEEP_STEP = 16 };
#else
enum { MANY = 1000, SWEEP_STEP = 1 };
#endif

/* How many machines of each kind. */
static int n_random = 15, n_growing = 40, n_tiny = 30, most_gpus = 2;

static fr_err err;

/* ---- random problems --------------------------------------------------------------------
 */

/* Every unit is somewhere it may be, once; no budget is exceeded; what a rule fixed has stayed. */
static void check_placed(const plan_problem *q, const fr_solution *s)
{
    uint64_t used[FR_PLAN_MAX_DEVICES] = {0};
    for (int i = 0; i < q->p.n_items; i++) {
        const fr_item *it = &q->items[i];
        int64_t sum = 0;
        for (int d = 0; d < FR_PLAN_MAX_DEVICES; d++) {
            int64_t n = s->units[i][d];
            assert_true(n >= 0);
            assert_true(n == 0 || (it->allowed >> d & 1));
            sum += n;
            used[d] += it->fixed_bytes[d] + plan_item_bytes(it, n);
        }
        assert_int_equal(sum, it->n_units);
        if (it->fixed_device >= 0)
            assert_int_equal(s->units[i][it->fixed_device], it->n_units);
    }
    for (int d = 0; d < FR_PLAN_MAX_DEVICES; d++)
        assert_true(used[d] <= q->p.room[d]);
}

static uint64_t gpu_bytes(const plan_problem *q, const fr_solution *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < q->p.n_items; i++)
        for (int d = 1; d <= q->hw.n_gpus; d++)
            sum += plan_item_bytes(&q->items[i], s->units[i][d]);
    return sum;
}

/* The better, and of equal ones the one with more on GPUs, of the baselines that fit. */
static bool best_baseline(plan_problem *q, fr_solution *best)
{
    bool any = false;
    for (int k = 0; k < PLAN_BASELINES; k++) {
        fr_solution b;
        if (plan_solve_baseline(&q->p, (plan_baseline)k, &q->arena, &b, &err) != FR_OK)
            continue;
        check_placed(q, &b);
        if (!any || b.objective < best->objective ||
            (b.objective == best->objective && gpu_bytes(q, &b) > gpu_bytes(q, best)))
            *best = b;
        any = true;
    }
    return any;
}

/* No placement exists, even of fractions: the items that may only go to some devices exceed their
 * rooms together (Hall's condition). */
static bool is_impossible(const plan_problem *q)
{
    uint32_t all = (1u << (1 + q->hw.n_gpus)) - 1;
    for (uint32_t set = 1; set <= all; set++) {
        uint64_t bytes = 0, room = 0;
        for (int i = 0; i < q->p.n_items; i++) {
            if ((q->items[i].allowed & all & ~set) == 0)
                bytes += q->items[i].bytes;
            for (int d = 0; d <= q->hw.n_gpus; d++)
                bytes += set >> d & 1 ? q->items[i].fixed_bytes[d] : 0;
        }
        for (int d = 0; d <= q->hw.n_gpus; d++)
            room += set >> d & 1 ? q->p.room[d] : 0;
        if (bytes > room)
            return true;
    }
    return false;
}

static void check_objective(plan_problem *q, const fr_solution *s, uint64_t seed)
{
    fr_assignment a = problem_assignment(q, s->units);
    double again = plan_objective(&q->m, &q->hw, &q->o, &a);
    if (!(fabs(again - s->objective) <= 1e-9 * again))
        fail_msg("seed %d: %g, but plan_objective says %g", (int)seed, s->objective, again);
}

static void check_same(const plan_problem *q, const fr_solution *a, const fr_solution *b)
{
    assert_true(a->objective == b->objective);
    assert_memory_equal(a->units, b->units, (size_t)q->p.n_items * sizeof *a->units);
}

static void test_random(void **state)
{
    (void)state;
    int solved = 0, better = 0, missed = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)n_random; seed++) {
        plan_problem q;
        fr_solution s, again, b = {.units = NULL};
        problem_random(&q, seed);
        bool any = best_baseline(&q, &b);
        fr_status st = plan_solve(&q.p, &q.arena, &s, &err);
        if (any)
            assert_int_equal(st, FR_OK);
        if (st == FR_OK) {
            solved++;
            check_placed(&q, &s);
            check_objective(&q, &s, seed);
            if (any && s.objective > b.objective * (1 - 1e-9)) { /* equal, then */
                assert_true(s.objective <= b.objective * (1 + 1e-9));
                assert_true(gpu_bytes(&q, &s) + (1 << 20) >= gpu_bytes(&q, &b));
            }
            better += !any || s.objective < b.objective * 0.999;
        } else {
            assert_int_equal(st, FR_ENOMEM);
            missed += !is_impossible(&q);
        }
        if (st == FR_OK && seed % 10 == 0) {
            assert_ok(plan_solve(&q.p, &q.arena, &again, &err));
            check_same(&q, &s, &again);
        }
        problem_free(&q);
    }
    print_message("%d of %d solved, %d better than every baseline, %d not solved though fractions "
                  "would fit\n",
                  solved, n_random, better, missed);
    assert_true(solved > n_random / 2);
    assert_true(missed <= 1 + n_random / 50);
}

/* ---- machines that grow -----------------------------------------------------------------------
 */

/* For rounding. */
static const double SLOWER = 1e-9;

typedef struct {
    int machines, n, better; /* steps; faster than before */
    int resort,
        resort_slower; /* steps from plans of the last resort, of which nothing is promised */
    double most;       /* part by which one of these was slower */
} growth;

/* One GPU grows, or all, or some of them, or (in one step of eight) the RAM, by 16 MiB to 24 GiB
 * or, for small models, a part of what is to be placed. */
static void grow(plan_problem *q, uint64_t *rng)
{
    uint64_t all = 0, what = test_rand(rng) % 8, one = 1 + test_rand(rng) % FR_MAX_GPUS;
    for (int i = 0; i < q->p.n_items; i++)
        all += q->items[i].bytes;
    double most = fmin(24.0 * (1 << 30), 0.4 * (double)all), least = fmin(16 << 20, most / 1000);
    double part = (double)(test_rand(rng) % 1001) / 1000;
    uint64_t more = (uint64_t)(least * pow(most / least, part));
    if (q->hw.n_gpus > 0)
        one = 1 + one % (uint64_t)q->hw.n_gpus;
    for (int d = 0; d <= q->hw.n_gpus; d++) {
        bool some = what >= 6 && (test_rand(rng) & 1);
        if (what == 0 ? d == 0 : d > 0 && (what < 4 ? (uint64_t)d == one : what < 6 || some))
            q->p.room[d] += more;
    }
}

/* No step is slower than the one before it, but from a plan of the last resort. */
static void check_growth(plan_problem *q, uint64_t seed, int n_steps, growth *g)
{
    uint64_t rng = seed * 77777 + 1;
    fr_solution a, b;
    fr_status before = plan_solve(&q->p, &q->arena, &a, &err);
    g->machines++;
    for (int step = 0; step < n_steps; step++) {
        grow(q, &rng);
        fr_status st = plan_solve(&q->p, &q->arena, &b, &err);
        if (before == FR_OK) {
            bool slower = st != FR_OK || b.objective > a.objective * (1 + SLOWER);
            if (slower && !a.last_resort)
                fail_msg("seed %d, step %d: %.12g s, with less memory %.12g", (int)seed, step,
                         st == FR_OK ? b.objective : INFINITY, a.objective);
            assert_int_equal(st, FR_OK);
            check_placed(q, &b);
            g->n++;
            g->better += b.objective < a.objective * (1 - SLOWER);
            g->resort += a.last_resort;
            g->resort_slower += slower;
            g->most = fmax(g->most, b.objective / a.objective - 1);
        }
        before = st;
        a = b;
    }
    problem_free(q);
}

static void test_more_memory(void **state)
{
    static void (*const make[])(plan_problem * q, uint64_t seed) = {problem_random, problem_tiny,
                                                                    problem_alike, problem_mixed};
    static const char *const names[] = {"random", "tiny", "alike", "mixed"};
    static const int part[] = {1, 1, 8, 8}; /* of the machines: the large ones take long */
    (void)state;
    for (size_t k = 0; k < sizeof make / sizeof *make; k++) {
        growth g = {.n = 0};
        for (uint64_t seed = 1; seed <= (uint64_t)(n_growing / part[k]); seed++) {
            plan_problem q;
            make[k](&q, seed);
            check_growth(&q, seed, 5, &g);
        }
        print_message("%d %s machines, %d steps to more memory, %d of them faster, none slower; %d "
                      "from plans of the last resort, %d of them slower, by at most %.3f %%\n",
                      g.machines, names[k], g.n, g.better, g.resort, g.resort_slower, 100 * g.most);
        assert_true(g.better > 0);
        assert_true(g.resort <= g.n / 20);
    }
}

static void test_more_memory_real(void **state)
{
    (void)state;
    for (int n_gpus = 1; n_gpus <= most_gpus; n_gpus++) {
        double before = INFINITY;
        for (uint64_t vram = 12; vram <= 192; vram = vram * 4 / 3) {
            fr_hardware hw = problem_machine(n_gpus, vram << 30, 512ull << 30);
            fr_plan_options o = problem_options(16384, 512);
            plan_problem q;
            fr_solution s;
            problem_make(&q, &SHAPE_R1, &hw, &o);
            assert_ok(plan_solve(&q.p, &q.arena, &s, &err));
            if (s.objective > before)
                fail_msg("%d GPUs of %d GiB: %.9g s, less had %.9g", n_gpus, (int)vram, s.objective,
                         before);
            before = s.objective;
            problem_free(&q);
        }
    }
}

/* ---- real models and VRAM from 8 to 96 GiB ----------------------------------------------------
 */

/* Seconds that the solver minimises, of a plan with a ubatch that fits into its context: a token
 * and four tokens of prompt, behind 4096. */
static double planned_seconds(const fr_plan *p)
{
    const fr_prediction *token = &p->decode[1], *prompt = &p->prefill[1];
    assert_int_equal(token->depth, 4096);
    assert_int_equal(prompt->depth, 4096);
    return token->seconds + 4 * prompt->seconds / (double)prompt->n_tokens;
}

static double slowest; /* what was seen: part by which a step was slower */

/* Plans for machines with 8, 9, ... 96 GiB on each GPU, or, in larger steps, on the first while the
 * others have `other` GiB; none is slower than the one before. */
static int sweep(const fr_model *m, const char *name, int n_gpus, uint64_t other)
{
    double before = INFINITY;
    int n = 0;
    for (uint64_t vram = 8; vram <= 96; vram += other ? 8 : SWEEP_STEP) {
        fr_hardware hw = problem_machine(n_gpus, vram << 30, 640ull << 30);
        for (int i = 1; other > 0 && i < n_gpus; i++)
            hw.gpus[i].vram_bytes = other << 30;
        fr_plan_options o = fr_plan_defaults();
        fr_rules *rules;
        fr_plan *p;
        o.n_ctx = 32768;
        assert_ok(fr_rules_new(&rules, &err));
        fr_status st = fr_plan_make(m, &hw, rules, &o, &p, NULL, &err);
        assert_true(st == FR_OK || (st == FR_ENOMEM && before == INFINITY));
        if (st == FR_OK) {
            double seconds = planned_seconds(p);
            slowest = fmax(slowest, seconds / before - 1);
            if (seconds > before * (1 + SLOWER))
                fail_msg("%s, %d GPUs of %d GiB (the others %d): %.9g s, less had %.9g", name,
                         n_gpus, (int)vram, (int)other, seconds, before);
            before = seconds;
            n++;
        }
        fr_plan_free(p);
        fr_rules_free(rules);
    }
    return n;
}

/* Seconds of a plan with `rule` (or NULL) for a machine; INFINITY: the model does not fit. */
static double planned(const fr_model *m, const fr_hardware *hw, const char *rule, bool *resort)
{
    fr_plan_options o = fr_plan_defaults();
    fr_rules *rules;
    fr_plan *p;
    double seconds = INFINITY;
    o.n_ctx = 32768;
    assert_ok(fr_rules_new(&rules, &err));
    if (rule)
        assert_ok(fr_rules_add_cli(rules, rule, &err));
    fr_status st = fr_plan_make(m, hw, rules, &o, &p, NULL, &err);
    assert_true(st == FR_OK || st == FR_ENOMEM);
    *resort = false;
    if (st == FR_OK) {
        seconds = planned_seconds(p);
        for (size_t i = 0; i < p->notes.n; i++)
            *resort = *resort || strstr(p->notes.items[i].text, "found by a search");
    }
    fr_plan_free(p);
    fr_rules_free(rules);
    return seconds;
}

/* Plans for a machine of which one GPU or all grow, from 1 MiB on, or keep less in reserve. */
static int grow_plans(const fr_model *m, uint64_t seed, int n_steps, int *n_resort)
{
    static const char *const rules[] = {NULL, NULL, "blk\\.(7|8|9)\\..*_exps=CUDA*",
                                        "blk\\.1[0-9]\\.attn=CUDA0", "exps=CUDA0[0-3]"};
    uint64_t rng = seed * 7919 + 1, first = 4 + test_rand(&rng) % 28;
    int n_gpus = 1 + (int)(test_rand(&rng) % 3), n = 0;
    const char *rule = rules[test_rand(&rng) % 5];
    fr_hardware hw = problem_machine(n_gpus, first << 30, (96 + test_rand(&rng) % 600) << 30);
    for (int i = 0; i < n_gpus; i++) {
        hw.gpus[i].vram_bytes += (test_rand(&rng) % 8192) << 20;
        hw.gpus[i].bandwidth *= 1 + (double)(test_rand(&rng) % 3);
    }
    double before = INFINITY;
    bool was_resort = false, resort;
    for (int step = 0; step <= n_steps; step++) {
        double seconds = planned(m, &hw, rule, &resort);
        if (seconds > before * (1 + SLOWER) && !was_resort)
            fail_msg("seed %d, step %d: %.12g s, less memory had %.12g", (int)seed, step, seconds,
                     before);
        n += before < INFINITY;
        *n_resort += was_resort;
        before = seconds;
        was_resort = resort;
        uint64_t more = 1ull << (20 + test_rand(&rng) % 14), one = test_rand(&rng) % 4;
        for (int i = 0; i < n_gpus; i++)
            if (one >= (uint64_t)n_gpus || one == (uint64_t)i)
                hw.gpus[i].vram_bytes += more + test_rand(&rng) % 4096;
    }
    return n;
}

static void test_more_memory_plans(void **state)
{
    static const char *const files[] = {
        TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf"),
        TEST_FILE("data/headers/deepseek-r1-0528-iq3_xxs.header.gguf"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int n = 0, n_resort = 0;
        fr_gguf *g;
        fr_model *m;
        assert_ok(fr_gguf_open(files[i], FR_GGUF_HEADERS_ONLY, &g, &err));
        assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
        for (uint64_t seed = 1; seed <= (uint64_t)(n_growing / 8); seed++)
            n += grow_plans(m, seed, 8, &n_resort);
        print_message(
            "%s: %d steps to more memory, none slower, %d from plans of the last resort\n",
            strrchr(files[i], '/') + 1, n, n_resort);
        assert_true(n > 8);
        assert_true(n_resort <= n / 10);
        fr_model_close(m);
        fr_gguf_close(g);
    }
}

/* A plan for n GPUs of different kinds, its time and whether a note offers the search's. */
static double planned_for_kinds(const fr_model *m, uint64_t seed, bool search, bool *offered)
{
    uint64_t rng = seed * 104729 + 5;
    int n_gpus = 3 + (int)(test_rand(&rng) % 5);
    fr_hardware hw = problem_machine(n_gpus, 8ull << 30, 1024ull << 30);
    for (int i = 0; i < n_gpus; i++) {
        hw.gpus[i].vram_bytes += (test_rand(&rng) % 73728) << 20;
        hw.gpus[i].bandwidth *= 1 + (double)(test_rand(&rng) % 8) / 4;
    }
    fr_plan_options o = fr_plan_defaults();
    fr_rules *rules;
    fr_plan *p;
    o.n_ctx = 32768;
    o.search = search;
    assert_ok(fr_rules_new(&rules, &err));
    assert_ok(fr_plan_make(m, &hw, rules, &o, &p, NULL, &err));
    double seconds = planned_seconds(p);
    *offered = false;
    for (size_t i = 0; i < p->notes.n; i++) {
        *offered = *offered || strstr(p->notes.items[i].text, "--fit-search takes it");
        assert_true(search || !strstr(p->notes.items[i].text, "was found by a search;"));
    }
    fr_plan_free(p);
    fr_rules_free(rules);
    return seconds;
}

/* What --fit-search takes is faster where a note says so, and otherwise is the same plan. */
static void test_search_on_request(void **state)
{
    const char *file = TEST_FILE("data/headers/deepseek-r1-0528-iq3_xxs.header.gguf");
    int n_offered = 0;
    fr_gguf *g;
    fr_model *m;
    (void)state;
    assert_ok(fr_gguf_open(file, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
    for (uint64_t seed = 1; seed <= 8; seed++) {
        bool offered, again;
        double families = planned_for_kinds(m, seed, false, &offered);
        double searched = planned_for_kinds(m, seed, true, &again);
        assert_false(again);
        if (offered)
            assert_true(searched < families * (1 - 0.0099));
        else
            assert_true(searched == families);
        n_offered += offered;
        print_message("seed %d: %.5f s, by search %.5f s\n", (int)seed, families, searched);
    }
    assert_in_range(n_offered, 1, 7);
    fr_model_close(m);
    fr_gguf_close(g);
}

static void test_sweep(void **state)
{
    static const char *const files[] = {
        TEST_FILE("data/headers/deepseek-r1-0528-iq3_xxs.header.gguf"),
        TEST_FILE("data/headers/kimi-k2-iq2_k_r4.header.gguf"),
        TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf"),
    };
    int n = 0, unequal = 0;
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        fr_gguf *g;
        fr_model *m;
        assert_ok(fr_gguf_open(files[i], FR_GGUF_HEADERS_ONLY, &g, &err));
        assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
        const char *name = strrchr(files[i], '/') + 1;
        for (int n_gpus = 1; n_gpus <= 3; n_gpus++)
            n += sweep(m, name, n_gpus, 0);
        unequal += sweep(m, name, 2, 12) + sweep(m, name, 3, 24);
        fr_model_close(m);
        fr_gguf_close(g);
    }
    print_message("%d plans, %d of GPUs of unequal memory, a step slower by %.1e at most\n",
                  n + unequal, unequal, slowest);
}

/* ---- tiny problems, by trying everything ------------------------------------------------------
 */

typedef struct {
    plan_problem *q;
    int64_t (*units)[FR_PLAN_MAX_DEVICES];
    double best;
} exhaustive;

static bool fits(const exhaustive *x, int n)
{
    for (int d = 0; d <= x->q->hw.n_gpus; d++) {
        uint64_t used = 0;
        for (int i = 0; i < x->q->p.n_items; i++)
            used += x->q->items[i].fixed_bytes[d] +
                    (i < n ? plan_item_bytes(&x->q->items[i], x->units[i][d]) : 0);
        if (used > x->q->p.room[d])
            return false;
    }
    return true;
}

static void try_item(exhaustive *x, int i);

static void try_units(exhaustive *x, int i, int d, int64_t left)
{
    const fr_item *it = &x->q->items[i];
    bool may = it->allowed >> d & 1;
    if (d == x->q->hw.n_gpus) {
        x->units[i][d] = left;
        if ((left == 0 || may) && fits(x, i + 1))
            try_item(x, i + 1);
    } else {
        for (int64_t n = 0; n <= (may ? left : 0); n++) {
            x->units[i][d] = n;
            try_units(x, i, d + 1, left - n);
        }
    }
    x->units[i][d] = 0;
}

static void try_item(exhaustive *x, int i)
{
    if (i < x->q->p.n_items) {
        try_units(x, i, 0, x->q->items[i].n_units);
        return;
    }
    fr_assignment a = problem_assignment(x->q, x->units);
    double v = plan_objective(&x->q->m, &x->q->hw, &x->q->o, &a);
    x->best = v < x->best ? v : x->best;
}

static void test_exhaustive(void **state)
{
    (void)state;
    int n = 0, optimal = 0;
    double sum = 0, most = 0, most_searched = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)n_tiny; seed++) {
        plan_problem q;
        fr_solution s, searched;
        problem_tiny(&q, seed);
        exhaustive x = {.q = &q, .best = INFINITY};
        x.units = fr_arena_alloc(&q.arena, (size_t)q.p.n_items, sizeof *x.units, NULL);
        assert_non_null(x.units);
        try_item(&x, 0);
        fr_status st = plan_solve(&q.p, &q.arena, &s, &err);
        assert_int_equal(st, x.best < INFINITY ? FR_OK : FR_ENOMEM);
        if (st == FR_OK) {
            double gap = s.objective / x.best - 1;
            assert_true(gap > -1e-9);
            n++;
            optimal += gap < 1e-9;
            sum += gap;
            most = fmax(most, gap);
            if (plan_solve_by_search(&q.p, &q.arena, &searched, &err) == FR_OK)
                gap = fmin(gap, searched.objective / x.best - 1);
            most_searched = fmax(most_searched, gap);
        }
        problem_free(&q);
    }
    print_message("%d tiny problems: %d optimal, mean gap %.4f %%, largest %.3f %%, of the better "
                  "of this and a search %.3f %%\n",
                  n, optimal, 100 * sum / n, 100 * most, 100 * most_searched);
    assert_true(n > n_tiny / 3);
    assert_true(optimal >= n * 95 / 100);
    assert_true(most < 0.1);
    assert_true(most_searched < 0.01);
}

/* ---- corners ----------------------------------------------------------------------------------
 */

/* Attention and all else that is read for every token goes before experts. */
static void test_dense_first(void **state)
{
    (void)state;
    fr_hardware hw = problem_machine(1, 24ull << 30, 512ull << 30);
    fr_plan_options o = problem_options(16384, 512);
    plan_problem q;
    fr_solution s;
    problem_make(&q, &SHAPE_R1, &hw, &o);
    assert_ok(plan_solve(&q.p, &q.arena, &s, &err));
    for (int i = 0; i < q.p.n_items; i++) {
        if (q.items[i].kind == FR_ITEM_DENSE || q.items[i].kind == FR_ITEM_OUTPUT)
            assert_int_equal(s.units[i][1], 1);
        if (q.items[i].kind == FR_ITEM_EMBED)
            assert_int_equal(s.units[i][FR_PLAN_CPU], 1);
    }
    assert_true(gpu_bytes(&q, &s) > (uint64_t)(0.99 * (double)q.p.room[1]));
    problem_free(&q);
}

/* GPUs that -dev leaves out get nothing. */
static void test_dev(void **state)
{
    (void)state;
    fr_hardware hw = problem_machine(3, 24ull << 30, 512ull << 30);
    fr_plan_options o = problem_options(4096, 512);
    plan_problem q;
    fr_solution s;
    o.n_gpus = 1;
    o.gpus[0] = 2;
    problem_make(&q, &SHAPE_R1, &hw, &o);
    for (int i = 0; i < q.p.n_items; i++)
        q.items[i].allowed = 1u << FR_PLAN_CPU | 1u << 3;
    assert_ok(plan_solve(&q.p, &q.arena, &s, &err));
    check_placed(&q, &s);
    assert_true(gpu_bytes(&q, &s) > 20ull << 30);
    problem_free(&q);
}

static void test_too_small(void **state)
{
    (void)state;
    fr_hardware hw = problem_machine(1, 24ull << 30, 64ull << 30);
    fr_plan_options o = problem_options(4096, 512);
    plan_problem q;
    fr_solution s;
    problem_make(&q, &SHAPE_R1, &hw, &o);
    assert_int_equal(plan_solve(&q.p, &q.arena, &s, &err), FR_ENOMEM);
    assert_true(s.too_small);
    assert_non_null(strstr(err.text, "all devices: found 88.000 GiB of room, expected "));
    assert_int_equal(plan_solve(&q.p, &q.arena, &s, NULL), FR_ENOMEM);
    problem_free(&q);
}

/* Every allocation fails once. */
static void check_out_of_memory(plan_problem *q)
{
    fr_solution s;
    int n = 0;
    for (fr_status st = FR_ENOMEM; st != FR_OK; n++) {
        fr_arena arena = fr_arena_make(FR_MEM_PLAN);
        fr_mem_fail_at((uint64_t)n + 1, 0);
        st = plan_solve(&q->p, &arena, &s, &err);
        fr_mem_fail_at(0, 0);
        assert_true(st == FR_OK || (st == FR_ENOMEM && !s.too_small));
        fr_arena_free(&arena);
        assert_true(n < 1000);
    }
    assert_true(n > 1);
    problem_free(q);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    plan_problem q;
    problem_tiny(&q, 2);
    check_out_of_memory(&q);
    problem_alike(&q, 1); /* 3 GPUs: the families too */
    check_out_of_memory(&q);
}

/* A plan for which an allocation fails is never made without it: neither a search nor the families
 * are passed over. */
static void test_out_of_memory_plan(void **state)
{
    (void)state;
    const char *file = TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf");
    fr_hardware hw = problem_machine(2, 3ull << 30, 64ull << 30);
    fr_plan_options o = fr_plan_defaults();
    fr_rules *rules;
    fr_plan *p;
    fr_gguf *g;
    fr_model *m;
    o.n_ctx = 4096;
    o.search = true;
    assert_ok(fr_gguf_open(file, FR_GGUF_HEADERS_ONLY, &g, &err));
    assert_ok(fr_model_open(g, FR_MLA_AUTO, &m, &err));
    assert_ok(fr_rules_new(&rules, &err));
    uint64_t n_allocs = fr_mem_total().n_allocs;
    assert_ok(fr_plan_make(m, &hw, rules, &o, &p, NULL, &err));
    n_allocs = fr_mem_total().n_allocs - n_allocs;
    fr_plan_free(p);
    for (uint64_t n = 1; n <= n_allocs; n += 1 + n_allocs / 100) {
        fr_mem_fail_at(n, 0);
        fr_status st = fr_plan_make(m, &hw, rules, &o, &p, NULL, &err);
        fr_mem_fail_at(0, 0);
        assert_int_equal(st, FR_ENOMEM);
        assert_null(strstr(err.text, "does not fit"));
    }
    print_message("%d allocations of a plan\n", (int)n_allocs);
    fr_rules_free(rules);
    fr_model_close(m);
    fr_gguf_close(g);
}

/* ---- bench ------------------------------------------------------------------------------------
 */

static void print_rows(const char *what, const fr_prediction *rows, int n)
{
    for (int i = 0; i < n; i++)
        printf("  %-8s at %6d: %8.2f t/s, %s\n", what, (int)rows[i].depth,
               rows[i].tokens_per_second, rows[i].bound_by);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The largest problem that is promised to be solved within 2 s: the time is printed. */
static void test_time(void **state)
{
    (void)state;
    fr_hardware hw = problem_machine(8, 24ull << 30, 1024ull << 30);
    fr_plan_options o = problem_options(16384, 512);
    problem_shape shape = SHAPE_R1;
    plan_problem q;
    fr_solution s;
    shape.n_layer = 76;
    shape.n_expert = 384;
    problem_make(&q, &shape, &hw, &o);
    double start = now();
    assert_ok(plan_solve(&q.p, &q.arena, &s, &err));
    print_message("8 GPUs, %d tensors, 384 experts a layer: %.2f s\n", q.m.n_weights,
                  now() - start);
    check_placed(&q, &s);
    problem_free(&q);
}

static void bench_one(int n_gpus, int64_t n_expert, uint64_t vram, uint64_t ram)
{
    fr_hardware hw = problem_machine(n_gpus, vram << 30, ram << 30);
    fr_plan_options o = problem_options(16384, 2048);
    problem_shape shape = SHAPE_R1;
    plan_problem q;
    fr_solution s, b;
    shape.n_expert = n_expert;
    problem_make(&q, &shape, &hw, &o);
    double start = now();
    fr_status st = plan_solve(&q.p, &q.arena, &s, &err);
    printf("%d GPUs of %d GiB, %d tensors, %d experts a layer: %.3f s\n", n_gpus, (int)vram,
           q.m.n_weights, (int)n_expert, now() - start);
    if (st == FR_OK) {
        printf("  objective %.3f ms; baselines", 1e3 * s.objective);
        for (int j = 0; j < PLAN_BASELINES; j++)
            if (plan_solve_baseline(&q.p, (plan_baseline)j, &q.arena, &b, &err) == FR_OK)
                printf(" %.3f", 1e3 * b.objective);
        fr_assignment a = problem_assignment(&q, s.units);
        plan_predictions p = plan_predict(&q.m, &q.hw, &q.o, &a);
        printf("\n");
        print_rows("prompt", p.prefill, p.n_prefill);
        print_rows("decode", p.decode, p.n_decode);
    } else {
        printf("  %s\n", err.text);
    }
    problem_free(&q);
}

static void bench(void)
{
    bench_one(1, 256, 24, 512);
    bench_one(3, 256, 24, 512);
    bench_one(2, 256, 48, 512);
    bench_one(8, 384, 24, 768);
    bench_one(8, 384, 80, 768);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_more_memory),
        cmocka_unit_test(test_more_memory_real),
        cmocka_unit_test(test_more_memory_plans),
        cmocka_unit_test(test_search_on_request),
        cmocka_unit_test(test_exhaustive),
        cmocka_unit_test(test_dense_first),
        cmocka_unit_test(test_dev),
        cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_out_of_memory_plan),
        cmocka_unit_test(test_time),
    };
    const struct CMUnitTest growing[] = {cmocka_unit_test(test_more_memory),
                                         cmocka_unit_test(test_more_memory_plans)};
    const struct CMUnitTest sweeps[] = {cmocka_unit_test(test_sweep)};
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "--bench") == 0) {
        bench();
        return 0;
    }
    if (strcmp(what, "--sweep") == 0)
        return cmocka_run_group_tests(sweeps, NULL, NULL);
    if (strcmp(what, "--grow") == 0) {
        n_growing = MANY * 8 / 10;
        return cmocka_run_group_tests(growing, NULL, NULL);
    }
    if (strcmp(what, "--all") == 0) {
        n_random = MANY;
        n_tiny = MANY / 2;
        most_gpus = 4;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
