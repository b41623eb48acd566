/* The step schedule: an interpreter walks it and sees whether everybody has what they read. */
#include "testing.h"

#include "engine/schedule.h"
#include "support/models.h"

enum { MAX_VALUES = 4096, MAX_LAYERS = 64, DEVICES = 4 };

static fr_err err;

typedef struct {
    fr_gguf *g;
    fr_model *m;
    fr_graph graph;
    fr_places places;
    uint32_t weights[1024];
    int home[MAX_LAYERS], kv[MAX_LAYERS];
    bool apart[MAX_LAYERS];
} scene;

static void open_scene(scene *s, const char *path, fr_mla_mode mla)
{
    memset(s, 0, sizeof *s);
    assert_ok(fr_gguf_open(path, FR_GGUF_HEADERS_ONLY, &s->g, &err));
    assert_ok(fr_model_open(s->g, mla, &s->m, &err));
    assert_in_range(s->m->n_weights, 1, 1024);
    for (int i = 0; i < s->m->n_weights; i++)
        s->weights[i] = 1;
    s->places = (fr_places){.n_devices = DEVICES,
                            .weights = s->weights,
                            .home = s->home,
                            .kv = s->kv,
                            .n_layer = s->m->hp.n_layer};
}

static void build_graph(scene *s, bool expand)
{
    fr_graph_config cfg = {.expand = expand, .apart = s->apart};
    assert_ok(fr_graph_build(s->m, &cfg, &s->graph, &err));
    assert_in_range(s->graph.n_values, 1, MAX_VALUES);
}

static void close_scene(scene *s)
{
    fr_graph_free(&s->graph);
    fr_model_close(s->m);
    fr_gguf_close(s->g);
}

/* ---- the interpreter ---------------------------------------------------------------------------
 */

typedef struct {
    const scene *s;
    int version[MAX_VALUES];            /* as last written; 0: never */
    int has[DEVICES][MAX_VALUES];       /* version that a device has */
    uint32_t parts[MAX_VALUES];         /* devices with a part of a sum that is not done */
    uint32_t ran[8192], streamed[8192]; /* devices, by node */
} machine;

static bool is_sum(const fr_node *n)
{
    return n->op == FR_OP_MOE || n->op == FR_OP_MATMUL_IDS;
}

static void must_have(const machine *m, int device, int value, const char *what)
{
    const fr_graph *g = &m->s->graph;
    if (m->parts[value])
        fail_msg("%s reads %s before its parts were added up", what, g->values[value].name);
    if (m->version[value] == 0 || m->has[device][value] != m->version[value])
        fail_msg("%s on device %d reads %s, version %d, but has %d", what, device,
                 g->values[value].name, m->version[value], m->has[device][value]);
}

static void read_operands(const machine *m, const fr_node *n, int device)
{
    for (int k = 0; k < 3; k++)
        if (n->in[k].value >= 0)
            must_have(m, device, n->in[k].value, fr_op_name(n->op));
}

static void write_value(machine *m, int device, int value)
{
    if (value >= 0)
        m->has[device][value] = ++m->version[value];
}

/* Norms and rotations write a part of a value: the rest must be there. */
static bool writes_part(const machine *m, fr_view v)
{
    return v.value >= 0 && (v.at > 0 || v.n * v.width < m->s->graph.values[v.value].cols);
}

static void run(machine *m, const fr_step *step)
{
    const fr_node *n = &m->s->graph.nodes[step->node];
    read_operands(m, n, step->device);
    assert_false(m->ran[step->node] >> step->device & 1);
    m->ran[step->node] |= 1u << step->device;
    if (is_sum(n)) {
        int y = n->out[0].value;
        m->parts[y] |= 1u << step->device;
        return;
    }
    assert_int_equal(m->ran[step->node], 1u << step->device);
    if (n->op == FR_OP_ROPE)
        write_value(m, step->device, n->in[0].value);
    for (int k = 0; k < 2; k++) {
        if (writes_part(m, n->out[k]) && m->version[n->out[k].value] > 0)
            must_have(m, step->device, n->out[k].value, fr_op_name(n->op));
        write_value(m, step->device, n->out[k].value);
    }
}

static void finish_sum(machine *m, int value, int device)
{
    if (m->parts[value] == 1u << device) {
        m->parts[value] = 0;
        write_value(m, device, value);
    }
}

static void step_once(machine *m, const fr_schedule *sc, int i)
{
    const fr_step *step = &sc->steps[i];
    const fr_node *n = &m->s->graph.nodes[step->node];
    switch (step->kind) {
    case FR_STEP_RUN:
        run(m, step);
        break;
    case FR_STEP_STREAM:
        must_have(m, FR_PLAN_CPU, n->in[1].value, "streaming");
        for (int d = 0; d < DEVICES; d++)
            if (step->devices >> d & 1) {
                read_operands(m, n, d);
                m->parts[n->out[0].value] |= 1u << d;
            }
        m->streamed[step->node] = step->devices;
        break;
    case FR_STEP_COPY:
        must_have(m, step->from, step->value, "a copy");
        assert_int_not_equal(m->has[step->device][step->value], m->version[step->value]);
        m->has[step->device][step->value] = m->version[step->value];
        break;
    case FR_STEP_SUM:
        assert_true(m->parts[step->value] >> step->from & 1);
        assert_true(m->parts[step->value] >> step->device & 1);
        m->parts[step->value] &= ~(1u << step->from);
        break;
    }
    /* A sum is whole when the steps that add to it are over. */
    const fr_step *next = i + 1 < sc->n_steps ? step + 1 : NULL;
    bool goes_on = next && next->node == step->node && next->kind != FR_STEP_COPY;
    if (step->kind != FR_STEP_COPY && is_sum(n) && !goes_on) {
        int y = n->out[0].value;
        int device = __builtin_ctz(m->parts[y]);
        finish_sum(m, y, device);
        assert_int_equal(m->parts[y], 0);
    }
}

static void check_nodes(const machine *m, fr_stream_mode stream)
{
    const scene *s = m->s;
    for (int i = 0; i < s->graph.n_nodes; i++) {
        const fr_node *n = &s->graph.nodes[i];
        uint32_t weights = n->weight[0] >= 0 ? s->weights[n->weight[0]] : 0;
        bool few = n->op == FR_OP_MOE && s->graph.values[n->in[0].value].per_output;
        bool streams = stream >= (few ? FR_STREAM_ALL : FR_STREAM_TOKENS) && n->op == FR_OP_MOE &&
                       (weights & 1) && s->places.streaming;
        assert_int_equal(m->streamed[i], streams ? s->places.streaming : 0);
        if (is_sum(n))
            assert_int_equal(m->ran[i], streams ? weights & ~1u : weights);
        else if (n->op == FR_OP_KV_STORE || n->op == FR_OP_ATTN_LATENT ||
                 n->op == FR_OP_ATTN_EXPAND || n->op == FR_OP_ATTN_PLAIN)
            assert_int_equal(m->ran[i], 1u << s->kv[n->layer]);
        else if (weights)
            assert_int_equal(m->ran[i], weights);
        else
            assert_int_equal(__builtin_popcount(m->ran[i]), 1);
    }
}

static void interpret(const scene *s, fr_stream_mode stream)
{
    static machine m;
    fr_schedule sc;
    memset(&m, 0, sizeof m);
    m.s = s;
    assert_ok(fr_schedule_make(s->m, &s->graph, &s->places, stream, &sc, &err));
    for (int i = 0; i < sc.n_steps; i++)
        step_once(&m, &sc, i);
    must_have(&m, FR_PLAN_CPU, s->graph.logits, "the caller");
    check_nodes(&m, stream);
    fr_schedule_free(&sc);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static uint64_t state;

static uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 33) % n;
}

static void scatter(scene *s)
{
    for (int i = 0; i < s->m->n_weights; i++) {
        fr_role role = s->m->weights[i].role;
        bool routed = role == FR_ROLE_FFN_GATE_EXPS || role == FR_ROLE_FFN_UP_EXPS ||
                      role == FR_ROLE_FFN_DOWN_EXPS;
        s->weights[i] = routed ? 1 + pick((1u << DEVICES) - 1) : 1u << pick(DEVICES);
    }
    for (int il = 0; il < s->m->hp.n_layer; il++) {
        s->home[il] = (int)pick(DEVICES);
        s->kv[il] = (int)pick(DEVICES);
        s->apart[il] = pick(3) == 0;
        int gate = fr_model_weight_of(s->m, il, FR_ROLE_FFN_GATE_EXPS);
        if (gate < 0 || s->apart[il])
            continue;
        s->weights[fr_model_weight_of(s->m, il, FR_ROLE_FFN_UP_EXPS)] = s->weights[gate];
        s->weights[fr_model_weight_of(s->m, il, FR_ROLE_FFN_DOWN_EXPS)] = s->weights[gate];
    }
    s->places.streaming = pick(1u << DEVICES) & ~1u;
}

static void test_random_places(void **unused)
{
    (void)unused;
    static scene s;
    static const char *const files[] = {
        MODEL_V3, MODEL_V2LITE, TEST_FILE("data/headers/deepseek-v2-lite-q4_k_m.header.gguf")};
    state = 20261122;
    for (int i = 0; i < 600; i++) {
        fr_mla_mode mla = (fr_mla_mode)pick(4);
        open_scene(&s, files[pick(3)], mla);
        scatter(&s);
        build_graph(&s, mla >= FR_MLA_EXPAND && pick(2));
        for (int mode = 0; mode < FR_STREAM_MODES; mode++)
            interpret(&s, (fr_stream_mode)mode);
        close_scene(&s);
    }
}

/* One device: a step a node, in the graph's order, and nothing travels. */
static void test_cpu_alone(void **unused)
{
    (void)unused;
    static scene s;
    fr_places places;
    fr_schedule sc;
    open_scene(&s, MODEL_V3, FR_MLA_AUTO);
    build_graph(&s, false);
    assert_ok(fr_places_make(s.m, NULL, &places, &err));
    assert_ok(fr_schedule_make(s.m, &s.graph, &places, FR_STREAM_ALL, &sc, &err));
    assert_int_equal(sc.n_steps, s.graph.n_nodes);
    assert_int_equal(sc.used, 1);
    for (int i = 0; i < sc.n_steps; i++) {
        assert_int_equal(sc.steps[i].kind, FR_STEP_RUN);
        assert_int_equal(sc.steps[i].node, i);
    }
    fr_schedule_free(&sc);
    fr_places_free(&places);
    close_scene(&s);
}

static void everything_on(scene *s, int device)
{
    for (int i = 0; i < s->m->n_weights; i++)
        s->weights[i] = 1u << device;
    s->weights[fr_model_weight_of(s->m, -1, FR_ROLE_TOKEN_EMBD)] = 1;
    for (int il = 0; il < s->m->hp.n_layer; il++)
        s->home[il] = s->kv[il] = device;
}

/* Experts in RAM: the choice leaves the GPU before the shared expert, which the GPU computes while
 * the CPU is at the routed ones. */
static void test_overlap(void **unused)
{
    (void)unused;
    static scene s;
    fr_schedule sc;
    fr_buf text = {0};
    open_scene(&s, MODEL_V3, FR_MLA_AUTO);
    everything_on(&s, 1);
    int layer = (int)s.m->hp.n_layer - 1;
    static const fr_role roles[] = {FR_ROLE_FFN_GATE_EXPS, FR_ROLE_FFN_UP_EXPS,
                                    FR_ROLE_FFN_DOWN_EXPS};
    for (int r = 0; r < 3; r++)
        s.weights[fr_model_weight_of(s.m, layer, roles[r])] = 1;
    build_graph(&s, false);
    assert_ok(fr_schedule_make(s.m, &s.graph, &s.places, FR_STREAM_NONE, &sc, &err));
    assert_ok(fr_schedule_print(&sc, &s.graph, &text, &err));
    const char *last = NULL, *choice = NULL, *work = NULL;
    for (const char *p = text.p; (p = strstr(p, "copy expert_ids from CUDA0 to CPU")); p++)
        choice = p;
    assert_non_null(choice);
    work = strstr(choice, "matmul ");
    last = strstr(choice, "on CPU");
    assert_non_null(work);
    assert_non_null(last);
    assert_true(work < last);
    fr_buf_free(&text);
    fr_schedule_free(&sc);
    close_scene(&s);
}

/* The threshold follows the rates: fast links stream early, slow ones late or never. */
static void test_threshold(void **unused)
{
    (void)unused;
    static scene s;
    open_scene(&s, MODEL_V3, FR_MLA_AUTO);
    fr_placement placements[1024];
    fr_plan plan = {.model = s.m, .placements = placements, .n_devices = 2};
    for (int i = 0; i < s.m->n_weights; i++)
        placements[plan.n_placements++] =
            (fr_placement){.tensor = i,
                           .expert_to = s.m->weights[i].shape.n_mat - 1,
                           .bytes = s.m->weights[i].bytes};
    plan.hw.n_gpus = 1;
    plan.hw.ram_bandwidth = 80e9;
    plan.hw.cpu_int8_ops = 2e12;
    plan.hw.gpus[0].f16_ops = 70e12;
    plan.hw.gpus[0].h2d = 25e9;
    assert_true(fr_schedule_stream_from(s.m, &plan) == INT64_MAX); /* no staging buffers */
    plan.devices[1].staging = 1 << 20;
    int64_t usual = fr_schedule_stream_from(s.m, &plan);
    plan.hw.gpus[0].h2d = 2.5e9;
    int64_t slow = fr_schedule_stream_from(s.m, &plan);
    plan.hw.gpus[0].h2d = 500e9;
    assert_int_equal(fr_schedule_stream_from(s.m, &plan), FR_STREAM_LEAST);
    assert_true(usual > FR_STREAM_LEAST && usual < 100000);
    assert_true(slow > usual);
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_places),
        cmocka_unit_test(test_cpu_alone),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_threshold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
