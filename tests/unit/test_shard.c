/* Shares of a model for several GPUs: every weight is in one share, products of the shares add up to the
 * whole ones, heads find their KV head, and what cannot be cut is refused with its numbers. Lists of devices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/devices.h"
#include "gpu/shard.h"
#include "quant/quant.h"

static struct apr_err e;

struct shape {
    uint32_t n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab, type_o, type_down;
};
enum { N_LAYERS = 2 };
struct toy { /* a model of random bits */
    struct apr_arena arena;
    struct apr_gpu_layer layers[N_LAYERS];
    struct apr_gpu_desc d;
};

static uint32_t state = 1;
static uint32_t next(void)
{
    return state = state * 1664525u + 1013904223u;
}

static struct apr_gpu_mat mat(struct toy *t, uint32_t type, uint32_t n_rows, uint32_t n_cols, bool bias)
{
    const struct apr_quant *q = apr_quant_of(type);
    uint64_t row_bytes = (uint64_t)n_cols / q->block_elems * q->block_bytes;
    float *x = apr_arena_get(&t->arena, n_cols * sizeof *x), *b = NULL;
    uint8_t *p = apr_arena_get(&t->arena, row_bytes * n_rows);
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < n_cols; i++) x[i] = (float)(next() >> 8) / 8388608.0f - 1.0f;
        if (q->from_f32)
            q->from_f32(x, p + r * row_bytes, n_cols, NULL);
        else
            memcpy(p + r * row_bytes, x, row_bytes);
    }
    if (bias) b = apr_arena_get(&t->arena, n_rows * sizeof *b);
    for (uint32_t r = 0; bias && r < n_rows; r++) b[r] = (float)r + 1;
    return (struct apr_gpu_mat){p, row_bytes, type, n_rows, n_cols, b, 0};
}

static void make(struct toy *t, const struct shape *s)
{
    const uint32_t n_q = s->n_heads * s->head_dim, n_kv = s->n_heads_kv * s->head_dim;
    memset(t, 0, sizeof *t);
    apr_arena_init(&t->arena);
    for (int i = 0; i < N_LAYERS; i++) {
        struct apr_gpu_layer *l = &t->layers[i];
        l->q = mat(t, APR_F32, n_q, s->n_hidden, true), l->k = mat(t, APR_F32, n_kv, s->n_hidden, true);
        l->v = mat(t, APR_F32, n_kv, s->n_hidden, false);
        l->o = mat(t, s->type_o, s->n_hidden, n_q, true);
        l->gate = mat(t, APR_Q8_0, s->n_inter, s->n_hidden, false);
        l->up = mat(t, APR_Q8_0, s->n_inter, s->n_hidden, false);
        l->down = mat(t, i ? s->type_down : APR_F32, s->n_hidden, s->n_inter, true);
    }
    t->d = (struct apr_gpu_desc){.struct_bytes = sizeof t->d,
                                 .n_layers = N_LAYERS,
                                 .n_hidden = s->n_hidden,
                                 .n_heads = s->n_heads,
                                 .n_heads_kv = s->n_heads_kv,
                                 .head_dim = s->head_dim,
                                 .n_inter = s->n_inter,
                                 .n_vocab = s->n_vocab,
                                 .embed = mat(t, APR_F32, s->n_vocab, s->n_hidden, false),
                                 .layers = t->layers};
    t->d.head = t->d.embed;
}

/* y += m x */
static void product(const struct apr_gpu_mat *m, const double *x, double *y)
{
    float *row = malloc(m->n_cols * sizeof *row);
    assert_non_null(row);
    for (uint32_t r = 0; r < m->n_rows; r++) {
        const uint64_t stride = m->stride_bytes ? m->stride_bytes : m->row_bytes;
        const uint8_t *p = (const uint8_t *)m->data + r * stride;
        const struct apr_quant *q = apr_quant_of(m->type);
        assert_int_equal(m->row_bytes, (uint64_t)m->n_cols / q->block_elems * q->block_bytes);
        q->to_f32(p, row, m->n_cols);
        for (uint32_t i = 0; i < m->n_cols; i++) y[r] += (double)row[i] * x[i];
        if (m->bias) y[r] += (double)m->bias[r];
    }
    free(row);
}

static void fill(double *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) x[i] = (double)(next() >> 8) / 8388608.0 - 1.0;
}
static void assert_near(const double *a, const double *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= 1e-9 * (1 + fabs(a[i]))))
            fail_msg("%g instead of %g at %u", b[i], a[i], i);
}

#define MOST 4096
static double x[MOST], whole[MOST], shared[MOST];

/* Rows one behind the other are the whole product. */
static void check_rows(const struct apr_gpu_mat *m, const struct apr_gpu_mat *parts, uint32_t n)
{
    uint32_t at = 0;
    memset(whole, 0, sizeof whole), memset(shared, 0, sizeof shared);
    fill(x, m->n_cols);
    product(m, x, whole);
    for (uint32_t i = 0; i < n; at += parts[i++].n_rows) {
        assert_true(parts[i].n_rows > 0 && at + parts[i].n_rows <= m->n_rows);
        product(&parts[i], x, shared + at);
    }
    assert_int_equal(at, m->n_rows);
    assert_near(whole, shared, m->n_rows);
}
/* Columns: the products add up, the bias counted once. */
static void check_cols(const struct apr_gpu_mat *m, const struct apr_gpu_mat *parts, uint32_t n)
{
    uint32_t at = 0;
    memset(whole, 0, sizeof whole), memset(shared, 0, sizeof shared);
    fill(x, m->n_cols);
    product(m, x, whole);
    for (uint32_t i = 0; i < n; at += parts[i++].n_cols) {
        assert_true(parts[i].n_cols > 0 && at + parts[i].n_cols <= m->n_cols);
        assert_int_equal(parts[i].n_rows, m->n_rows);
        product(&parts[i], x + at, shared);
    }
    assert_int_equal(at, m->n_cols);
    assert_near(whole, shared, m->n_rows);
}

#define EACH_OF(i_layer, field)                                                                              \
    for (uint32_t i = 0; i < n; i++) parts[i] = all[i].layers[i_layer].field
#define EACH(field) EACH_OF(k, field)

static void check_all(const struct toy *t, uint32_t n)
{
    struct apr_gpu_desc *all;
    struct apr_gpu_mat parts[APR_GPU_DEVICES];
    struct apr_arena a;
    apr_arena_init(&a);
    assert_int_equal(apr_gpu_shard(&t->d, n, &a, &all, &e), APR_OK);
    for (uint32_t k = 0; k < N_LAYERS; k++) {
        const struct apr_gpu_layer *l = &t->layers[k];
        EACH(q);
        check_rows(&l->q, parts, n);
        EACH(o);
        check_cols(&l->o, parts, n);
        EACH(gate);
        check_rows(&l->gate, parts, n);
        EACH(up);
        check_rows(&l->up, parts, n);
        EACH(down);
        check_cols(&l->down, parts, n);
        for (uint32_t i = 0; i < n; i++) assert_int_equal(all[i].layers[k].gate.n_rows, all[i].n_inter);
    }
    for (uint32_t i = 0; i < n; i++) parts[i] = all[i].head;
    check_rows(&t->d.head, parts, n);
    for (uint32_t i = 0, at = 0; i < n;
         at += all[i++].n_heads) { /* the KV heads that the device's heads read */
        const uint32_t group = t->d.n_heads / t->d.n_heads_kv, first = at / group,
                       last = (at + all[i].n_heads - 1) / group;
        const uint64_t off = (uint64_t)first * t->d.head_dim;
        assert_int_equal(all[i].n_heads_kv, last - first + 1);
        assert_int_equal(all[i].n_heads % all[i].n_heads_kv, 0);
        for (uint32_t k = 0; k < N_LAYERS; k++) {
            const struct apr_gpu_mat *from = &t->layers[k].k, *to = &all[i].layers[k].k;
            assert_ptr_equal(to->data, (const uint8_t *)from->data + off * from->row_bytes);
            assert_ptr_equal(to->bias, from->bias + off);
            assert_int_equal(to->n_rows, all[i].n_heads_kv * t->d.head_dim);
            assert_int_equal(all[i].layers[k].v.n_rows, to->n_rows);
        }
        assert_int_equal(all[i].embed.n_rows, t->d.n_vocab);
        assert_int_equal(all[i].n_vocab, t->d.n_vocab);
    }
    apr_arena_free(&a);
}

static void shares_add_up(void **ctx)
{
    (void)ctx;
    static const struct {
        struct shape s;
        uint32_t n[5];
    } rows[] = {
        {{256, 8, 2, 128, 5 * 256, 1001, APR_Q4_K, APR_Q4_K}, {1, 2, 4}}, /* 2 and 3 blocks; copies of KV */
        {{96, 14, 2, 64, 608, 331, APR_Q8_0, APR_Q8_0}, {1, 2, 14}},
        {{64, 12, 12, 32, 250 * 4, 77, APR_F32, APR_BF16}, {1, 2, 3, 4, 6}},
        {{64, 4, 4, 16, 52, 64, APR_F16, APR_F32}, {1, 2, 4}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct toy t;
        make(&t, &rows[i].s);
        assert_true(t.d.n_inter <= MOST && t.d.n_vocab <= MOST);
        for (size_t k = 0; k < 5 && rows[i].n[k]; k++) check_all(&t, rows[i].n[k]);
        apr_arena_free(&t.arena);
    }
}

/* Four experts and a shared one in the second layer, no gate in the first; heads of latent attention. */
static void make_exotic(struct toy *t, struct apr_gpu_mat stacks[5][8])
{
    const struct shape s = {96, 8, 1, 48, 64, 99, APR_F32, APR_F32};
    make(t, &s);
    struct apr_gpu_experts *mix = &t->layers[1].experts;
    t->d.n_experts = 4, t->d.n_used = 2, t->d.n_inter_expert = 96, t->d.n_inter_shared = 128;
    t->d.kv_rank = 32, t->d.n_nope = 32, t->d.n_rope = 16, t->d.n_value = 24;
    for (uint32_t k = 0; k < 4; k++) {
        stacks[0][k] = mat(t, APR_Q8_0, 96, 96, false), stacks[1][k] = mat(t, APR_Q8_0, 96, 96, false);
        stacks[2][k] = mat(t, APR_Q8_0, 96, 96, false);
    }
    for (uint32_t k = 0; k < 8; k++)
        stacks[3][k] = mat(t, APR_F32, 32, 32, false), stacks[4][k] = mat(t, APR_F32, 24, 32, false);
    mix->gate = stacks[0], mix->up = stacks[1], mix->down = stacks[2];
    mix->router = mat(t, APR_F32, 4, 96, false);
    mix->shared_up = mat(t, APR_F32, 128, 96, false), mix->shared_gate = mat(t, APR_F32, 128, 96, false);
    mix->shared_down = mat(t, APR_F16, 96, 128, false);
    t->layers[0].gate = (struct apr_gpu_mat){.data = NULL};
    t->layers[1].gate = t->layers[1].up = t->layers[1].down = t->layers[0].gate;
    for (int i = 0; i < N_LAYERS; i++) {
        struct apr_gpu_latent *a = &t->layers[i].latent;
        t->layers[i].o = mat(t, APR_F32, 96, 8 * 24, true);
        t->layers[i].k = t->layers[i].v = t->layers[0].gate;
        a->kv_a = mat(t, APR_F32, 48, 96, false), a->k_b = stacks[3], a->v_b = stacks[4];
    }
}

static void experts_and_latent_heads(void **ctx)
{
    (void)ctx;
    struct toy t;
    struct apr_gpu_mat stacks[5][8], parts[APR_GPU_DEVICES];
    const uint32_t n = 2;
    struct apr_gpu_desc *all;
    make_exotic(&t, stacks);
    assert_int_equal(apr_gpu_shard(&t.d, n, &t.arena, &all, &e), APR_OK);
    for (uint32_t k = 0; k < 4; k++) {
        EACH_OF(1, experts.up[k]);
        check_rows(&stacks[1][k], parts, n);
        EACH_OF(1, experts.gate[k]);
        check_rows(&stacks[0][k], parts, n);
        EACH_OF(1, experts.down[k]);
        check_cols(&stacks[2][k], parts, n);
    }
    EACH_OF(1, experts.shared_up);
    check_rows(&t.layers[1].experts.shared_up, parts, n);
    EACH_OF(1, experts.shared_down);
    check_cols(&t.layers[1].experts.shared_down, parts, n);
    EACH_OF(0, o);
    check_cols(&t.layers[0].o, parts, n);
    EACH_OF(1, q);
    check_rows(&t.layers[1].q, parts, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct apr_gpu_layer *l = all[i].layers;
        assert_null(l[0].gate.data);
        assert_int_equal(l[0].up.n_rows, all[i].n_inter);
        assert_ptr_equal(l[0].latent.k_b, &stacks[3][i * 4]);
        assert_ptr_equal(l[1].latent.v_b, &stacks[4][i * 4]);
        assert_memory_equal(&l[1].latent.kv_a, &t.layers[1].latent.kv_a, sizeof l[1].latent.kv_a);
        assert_memory_equal(&l[1].experts.router, &t.layers[1].experts.router, sizeof l[1].experts.router);
        assert_true(all[i].n_heads == 4 && all[i].n_heads_kv == 1);
        assert_int_equal(all[i].n_inter_expert, l[1].experts.up[0].n_rows);
        assert_int_equal(all[i].n_inter_shared, 64);
    }
    assert_int_equal(all[0].n_inter_expert + all[1].n_inter_expert, 96);
    assert_int_equal(apr_gpu_shard(&t.d, 3, &t.arena, &all, &e), APR_EUNAVAIL);
    assert_non_null(strstr(e.text, "8 heads cannot be shared by 3 devices"));
    assert_int_equal(apr_gpu_shard(&t.d, 4, &t.arena, &all, &e), APR_EUNAVAIL);
    assert_non_null(strstr(e.text, "the middle of an expert of 96 in units of 32 cannot be shared by 4"));
    apr_arena_free(&t.arena);
}

/* The middle of Qwen2.5-1.5B: 35 blocks. */
static void uneven_blocks(void **ctx)
{
    (void)ctx;
    const struct shape s = {256, 8, 2, 128, 35 * 256, 1001, APR_Q4_K, APR_Q6_K};
    struct apr_gpu_desc *all;
    struct toy t;
    make(&t, &s);
    assert_int_equal(apr_gpu_shard(&t.d, 2, &t.arena, &all, &e), APR_OK);
    assert_int_equal(all[0].n_inter, 17 * 256);
    assert_int_equal(all[1].n_inter, 18 * 256);
    assert_ptr_equal(all[1].layers[1].down.data, (const uint8_t *)t.layers[1].down.data + 17 * 210);
    assert_int_equal(all[1].layers[1].down.row_bytes, 18 * 210);
    assert_int_equal(all[1].layers[1].down.stride_bytes, 35 * 210);
    assert_non_null(all[0].layers[1].down.bias);
    assert_null(all[1].layers[1].down.bias);
    assert_int_equal(all[0].head.n_rows + all[1].head.n_rows, 1001);
    apr_arena_free(&t.arena);
}

static void what_cannot_be_shared(void **ctx)
{
    (void)ctx;
    static const struct {
        struct shape s;
        uint32_t n;
        const char *why;
    } rows[] = {
        {{64, 5, 1, 32, 128, 100, APR_F32, APR_F32},
         2,
         "5 heads over 1 KV heads cannot be shared by 2 devices"},
        {{64, 28, 4, 16, 128, 100, APR_F32, APR_F32}, 7, "28 heads over 4 KV heads cannot be shared by 7"},
        {{64, 4, 4, 16, 128, 100, APR_F32, APR_F32}, 3, "a number that divides 4 can"},
        {{64, 8, 2, 64, 512, 100, APR_Q4_K, APR_Q4_K}, 4, "2 heads of 64 are 128 columns"},
        {{64, 8, 8, 32, 768, 100, APR_F32, APR_Q4_K}, 4, "768 in units of 256 cannot be shared by 4"},
        {{64, 4, 4, 16, 128, 15, APR_F32, APR_F32}, 4, "15 tokens cannot be shared by 4"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct toy t;
        struct apr_gpu_desc *all;
        make(&t, &rows[i].s);
        assert_int_equal(apr_gpu_shard(&t.d, rows[i].n, &t.arena, &all, &e), APR_EUNAVAIL);
        if (!strstr(e.text, rows[i].why)) fail_msg("row %zu: %s", i, e.text);
        apr_arena_free(&t.arena);
    }
}

static void lists_of_devices(void **ctx)
{
    (void)ctx;
    struct apr_devices d;
    assert_int_equal(apr_devices_parse(NULL, &d, &e), APR_OK);
    assert_int_equal(d.kind, APR_DEVICES_AUTO);
    assert_int_equal(apr_devices_parse("cpu", &d, &e), APR_OK);
    assert_int_equal(d.kind, APR_DEVICES_CPU);
    assert_int_equal(apr_devices_parse("cuda", &d, &e), APR_OK);
    assert_true(d.kind == APR_DEVICES_CUDA && d.n == 1 && d.i[0] == 0);
    assert_int_equal(apr_devices_parse("cuda:all", &d, &e), APR_OK);
    assert_int_equal(d.kind, APR_DEVICES_CUDA_ALL);
    assert_int_equal(apr_devices_parse("cuda:3,0,12", &d, &e), APR_OK);
    assert_true(d.kind == APR_DEVICES_CUDA && d.n == 3 && d.i[0] == 3 && d.i[1] == 0 && d.i[2] == 12);
    static const char *const bad[] = {"",          "gpu",
                                      "cuda:",     "cuda:,",
                                      "cuda:0,",   "cuda:,1",
                                      "cuda:0,,1", "cuda:0 1",
                                      "cuda:-1",   "cuda:64",
                                      "cuda:0x1",  "cuda:99999999999999999999",
                                      "cuda:1,1",  "cuda:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
                                      "CUDA",      "cuda:ALL"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (apr_devices_parse(bad[i], &d, &e) != APR_EUSAGE) fail_msg("\"%s\" was taken", bad[i]);
    assert_int_equal(apr_devices_parse("cuda:2,5,2", &d, &e), APR_EUSAGE);
    assert_non_null(strstr(e.text, "names device 2 twice"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares_add_up), cmocka_unit_test(uneven_blocks),
                                       cmocka_unit_test(experts_and_latent_heads),
                                       cmocka_unit_test(what_cannot_be_shared),
                                       cmocka_unit_test(lists_of_devices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
