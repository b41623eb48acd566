/* fr_cpu_token_ffn: the bits of the operations one after the other, for any number of threads. */
#include "testing.h"

#include "base/mem.h"
#include "cpu/token_ffn.h"
#include "kern/hostile_weights.h"

enum { N_EMBD = 512, N_FF = 256, N_SHARED = 768, N_EXPERT = 16, N_USED = 3 };

typedef struct {
    fr_weight router, gate, up, down, s_gate, s_up, s_down;
    float x[N_EMBD], onto[N_EMBD];
} layer;

static fr_weight random_weight(fr_type type, int64_t cols, int64_t rows, int64_t n_mat)
{
    fr_layout layout = fr_layout_in_memory(type, rows, cols);
    fr_weight w = fr_weight_make(type, layout, cols, rows, n_mat);
    uint8_t *data = test_malloc(w.mat_bytes * (size_t)n_mat);
    assert_true(fill_weights(type, layout, W_ENCODED, rows * n_mat, cols, data));
    w.data = data;
    return w;
}

static void open_layer(layer *l, fr_type type, fr_type router, fr_type shared)
{
    l->router = random_weight(router, N_EMBD, N_EXPERT, 1);
    l->gate = random_weight(type, N_EMBD, N_FF, N_EXPERT);
    l->up = random_weight(type, N_EMBD, N_FF, N_EXPERT);
    l->down = random_weight(type, N_FF, N_EMBD, N_EXPERT);
    l->s_gate = random_weight(shared, N_EMBD, N_SHARED, 1);
    l->s_up = random_weight(type, N_EMBD, N_SHARED, 1);
    l->s_down = random_weight(shared, N_SHARED, N_EMBD, 1);
    for (int i = 0; i < N_EMBD; i++) {
        l->x[i] = test_rand_f(&rnd);
        l->onto[i] = test_rand_f(&rnd);
    }
}

static void close_layer(layer *l)
{
    fr_weight *all[] = {&l->router, &l->gate, &l->up, &l->down, &l->s_gate, &l->s_up, &l->s_down};
    for (int i = 0; i < 7; i++)
        test_free((void *)(uintptr_t)all[i]->data);
}

typedef struct {
    float logits[N_EXPERT], scratch[2 * N_EXPERT], weights[N_USED];
    int32_t ids[N_USED];
    float y[N_EMBD];
} result;

static fr_cpu_router_args selection(result *r)
{
    return (fr_cpu_router_args){.n_tokens = 1,
                                .n_expert = N_EXPERT,
                                .n_used = N_USED,
                                .n_groups = 1,
                                .n_groups_used = 1,
                                .scale = 1,
                                .logits = r->logits,
                                .scores = r->logits,
                                .ids = r->ids,
                                .weights = r->weights,
                                .scratch = r->scratch};
}

static void product(fr_cpu *cpu, const fr_weight *w, const float *x, float *y)
{
    fr_act_type type = fr_cpu_act_type(cpu, w);
    void *room = test_malloc(fr_cpu_act_bytes(type, 1, w->cols));
    fr_act act = fr_cpu_act_prepare(cpu, type, x, w->cols, 1, w->cols, room);
    fr_cpu_matmul(cpu, w, &act, 1, y, w->rows);
    test_free(room);
}

/* One operation after the other. */
static void apart(fr_cpu *cpu, const layer *l, bool routed, bool dense, bool onto, result *r)
{
    float moe[N_EMBD], gate[N_SHARED], up[N_SHARED], out[N_EMBD];
    fr_cpu_router_args select = selection(r);
    if (routed) {
        product(cpu, &l->router, l->x, r->logits);
        fr_cpu_router(cpu, &select);
        fr_cpu_moe_args a = {.gate = &l->gate,
                             .up = &l->up,
                             .down = &l->down,
                             .n_tokens = 1,
                             .n_used = N_USED,
                             .ids = r->ids,
                             .weights = r->weights,
                             .x = l->x,
                             .y = moe};
        a.scratch = test_malloc(fr_cpu_moe_scratch_bytes(cpu, a.gate, a.up, a.down, 1, N_USED));
        fr_cpu_moe(cpu, &a);
        test_free(a.scratch);
    }
    if (dense) {
        product(cpu, &l->s_gate, l->x, gate);
        product(cpu, &l->s_up, l->x, up);
        fr_cpu_swiglu(cpu, gate, up, N_SHARED, gate);
        product(cpu, &l->s_down, gate, out);
    }
    const float *first = routed ? moe : out;
    for (int i = 0; i < N_EMBD; i++)
        r->y[i] = onto ? l->onto[i] + first[i] : first[i];
    if (routed && dense)
        fr_cpu_add(cpu, r->y, out, N_EMBD, r->y);
}

static void together(fr_cpu *cpu, const layer *l, bool routed, bool dense, bool onto, result *r)
{
    fr_cpu_router_args select = selection(r);
    double seconds[FR_CPU_FFN_STAGES] = {0}, all = 0;
    fr_cpu_token_ffn_args a = {.x = l->x,
                               .onto = onto ? r->y : NULL,
                               .y = r->y,
                               .router_weight = &l->router,
                               .select = &select,
                               .seconds = seconds};
    if (routed)
        a.routed = (fr_cpu_trio){&l->gate, &l->up, &l->down};
    if (dense)
        a.dense = (fr_cpu_trio){&l->s_gate, &l->s_up, &l->s_down};
    if (onto)
        memcpy(r->y, l->onto, sizeof r->y);
    a.scratch = test_malloc(fr_cpu_token_ffn_bytes(cpu, &a));
    fr_cpu_token_ffn(cpu, &a);
    test_free(a.scratch);
    for (int i = 0; i < FR_CPU_FFN_STAGES; i++)
        all += seconds[i];
    assert_true(all > 0);
}

static void check_types(fr_type type, fr_type router, fr_type shared)
{
    static const int threads[] = {1, 2, 3, 5};
    static layer l;
    fr_err err = {0};
    open_layer(&l, type, router, shared);
    for (int i = 0; i < 4; i++) {
        fr_cpu *cpu;
        assert_ok(fr_cpu_open(&(fr_cpu_config){.n_threads = threads[i], .max_isa = FR_ISA_AUTO},
                              &cpu, &err));
        for (int form = 1; form < 4; form++)
            for (int onto = 0; onto < 2; onto++) {
                static result want, got;
                memset(&want, 0, sizeof want);
                memset(&got, 0, sizeof got);
                apart(cpu, &l, form & 1, form & 2, onto, &want);
                together(cpu, &l, form & 1, form & 2, onto, &got);
                assert_memory_equal(want.ids, got.ids, sizeof want.ids);
                assert_memory_equal(want.weights, got.weights, sizeof want.weights);
                assert_memory_equal(want.y, got.y, sizeof want.y);
            }
        fr_cpu_close(cpu);
    }
    close_layer(&l);
}

static void test_same_bits(void **state)
{
    (void)state;
    check_types(FR_TYPE_Q4_K, FR_TYPE_F32, FR_TYPE_Q4_K);
    check_types(FR_TYPE_Q4_K, FR_TYPE_Q4_K, FR_TYPE_Q8_0);
    check_types(FR_TYPE_F32, FR_TYPE_F32, FR_TYPE_F32);
    check_types(FR_TYPE_Q8_0, FR_TYPE_F16, FR_TYPE_F16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
