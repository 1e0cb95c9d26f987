/* The contract: structure, data, statistics. Run from the project root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "contract.h"

/* ---- a small model in memory -------------------------------------------------------------------------- */

enum { HIDDEN = 64, LAYERS = 2, HEADS = 4, KV = 2, HEAD_DIM = 16, INTER = 96, VOCAB = 40 };

static struct apr_model *model_make(bool tied)
{
    struct apr_model *m = apr_model_new("test.apr");
    struct apr_err e;
    char name[256];
    m->family = apr_family_named("qwen2");
    m->config = (struct apr_config){.n_layers = LAYERS,
                                    .n_hidden = HIDDEN,
                                    .n_heads = HEADS,
                                    .n_heads_kv = KV,
                                    .head_dim = HEAD_DIM,
                                    .n_inter = INTER,
                                    .n_vocab = VOCAB,
                                    .n_ctx_train = 128,
                                    .rope_theta = 1e6,
                                    .qkv_bias = true,
                                    .norm_eps = 1e-6,
                                    .tied = tied};
    for (size_t i = 0; i < m->family->n_rules; i++) {
        const struct apr_tensor_rule *r = &m->family->rules[i];
        uint32_t n = strstr(r->hf, "{n}") ? LAYERS : 1;
        if (tied && r->need == APR_UNLESS_TIED) continue;
        for (uint32_t layer = 0; layer < n; layer++) {
            struct apr_tensor *t;
            assert_int_equal(apr_model_add_tensor(m, &t, &e), APR_OK);
            t->name = apr_arena_strdup(&m->arena, apr_family_name(r->hf, layer, name, sizeof name));
            t->type = APR_F32;
            for (size_t k = 0; k < 3 && r->dims[k] != APR_DIM_NONE; k++)
                t->dims[t->n_dims++] = apr_family_dim(&m->config, r->dims[k]);
            assert_int_equal(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, &e), APR_OK);
            float *x = apr_arena_get(&m->arena, t->n_bytes);
            for (uint64_t k = 0; k < t->n_bytes / 4; k++)
                x[k] = 0.01F * (float)((int)(k * 7 % 23) - 11) + 0.001F;
            t->data = (const uint8_t *)x;
        }
    }
    assert_int_equal(apr_model_index(m, &e), APR_OK);
    return m;
}

static struct apr_tensor *tensor(struct apr_model *m, const char *name)
{
    const struct apr_tensor *t = apr_model_find(m, name);
    assert_non_null(t);
    return &m->tensors[t - m->tensors];
}

/* The verdict on m: exactly one violation, of that rule (NULL: none), with that text in it. */
static void expect_structure(const struct apr_model *m, const char *rule, const char *says, bool unsafe)
{
    struct apr_arena arena;
    struct apr_verdict v;
    apr_arena_init(&arena);
    apr_verdict_init(&v, &arena);
    apr_contract_structure(m, &v);
    if (!rule) {
        if (v.n) fail_msg("%s: %s", v.at[0].rule, v.at[0].text);
    } else {
        struct apr_err e;
        if (v.n == 0) fail_msg("expected %s", rule);
        assert_string_equal(v.at[0].rule, rule);
        if (!strstr(v.at[0].text, says)) fail_msg("%s, expected: %s", v.at[0].text, says);
        assert_int_equal(v.at[0].unsafe, unsafe);
        assert_int_equal(apr_verdict_error(&v, "test.apr", &e), APR_ECONTRACT);
        assert_non_null(strstr(e.text, rule));
    }
    apr_arena_free(&arena);
}

static void test_structure(void **state)
{
    (void)state;
    static const char *const q = "model.layers.1.self_attn.q_proj.weight",
                             *const k = "model.layers.0.self_attn.k_proj.weight";
    for (int i = 0; i < 14; i++) {
        struct apr_model *m = model_make(i == 1);
        switch (i) {
        case 0:
        case 1:
            expect_structure(m, NULL, NULL, false);
            break;
        case 2:
            tensor(m, k)->dims[0] = HIDDEN;
            tensor(m, k)->dims[1] = KV * HEAD_DIM;
            expect_structure(m, "F-LAYOUT-CONTRACT-001",
                             "weight layout violation: found [64, 32], expected [32, 64]: transposed", true);
            break;
        case 3:
            tensor(m, "model.embed_tokens.weight")->dims[0] = HIDDEN;
            tensor(m, "model.embed_tokens.weight")->dims[1] = VOCAB;
            expect_structure(m, "F-LAYOUT-CONTRACT-001", "embedding layout violation", true);
            break;
        case 4:
            tensor(m, "lm_head.weight")->dims[0] = HIDDEN;
            tensor(m, "lm_head.weight")->dims[1] = VOCAB;
            expect_structure(m, "F-LAYOUT-CONTRACT-002", "critical", true);
            break;
        case 5:
            tensor(m, "model.norm.weight")->dims[0] = HIDDEN - 1;
            expect_structure(m, "F-LAYOUT-CONTRACT-003", "vector layout violation", true);
            break;
        case 6:
            tensor(m, q)->n_bytes -= 4;
            expect_structure(m, "F-LAYOUT-CONTRACT-004", "expected 16384", true);
            break;
        case 7:
            tensor(m, q)->type = APR_I32;
            expect_structure(m, "F-TENSOR-003", "I32", true);
            break;
        case 8:
            m->config.n_layers = 3;
            expect_structure(m, "F-TENSOR-001", "missing", true);
            break;
        case 9:
            m->config.n_layers = 1;
            expect_structure(m, "F-TENSOR-002", "the model has 1 layers", false);
            break;
        case 10:
            m->config.tied = true; /* a head that is written all the same is no fault */
            expect_structure(m, NULL, NULL, false);
            break;
        case 11:
            m->vocab.kind = APR_VOCAB_BPE;
            m->vocab.n_toks = VOCAB + 1;
            m->vocab.bos_id = m->vocab.eos_id = APR_ID_NONE;
            expect_structure(m, "F-VOCAB-001", "41 tokens", true);
            break;
        case 12:
            m->vocab.kind = APR_VOCAB_BPE;
            m->vocab.n_toks = VOCAB;
            m->vocab.bos_id = APR_ID_NONE;
            m->vocab.eos_id = VOCAB;
            expect_structure(m, "F-VOCAB-002", "end token is 40", true);
            break;
        case 13:
            m->family = NULL;
            m->arch = "llama";
            expect_structure(m, "F-FAMILY-001", "found family \"llama\", expected one of: qwen2", true);
            break;
        }
        apr_model_close(m);
    }
}

static void test_config_rules(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        uint32_t heads, kv, head_dim, inter;
        double theta, eps;
        bool unsafe;
    } cases[] = {
        {"ALG-005", 0, 2, 16, 96, 1e6, 1e-6, true},        {"ALG-008", 4, 8, 16, 96, 1e6, 1e-6, true},
        {"ALG-001", 3, 1, 22, 96, 1e6, 1e-6, false},       {"ALG-002", 4, 3, 16, 96, 1e6, 1e-6, true},
        {"ALG-003", 4, 2, 14, 96, 1e6, 1e-6, false},       {"ALG-003", 4, 2, 34, 96, 1e6, 1e-6, false},
        {"ALG-004", 4, 2, 16, 64, 1e6, 1e-6, false},       {"ALG-007", 4, 2, 17, 96, 1e6, 1e-6, true},
        {"ALG-007", 4, 2, 16, 96, 0, 1e-6, false},         {"ALG-007", 4, 2, 16, 96, INFINITY, 1e-6, false},
        {"ALG-009", 4, 2, 16, 96, 1e6, 0, false},          {"ALG-009", 4, 2, 16, 96, 1e6, 1, false},
        {"ALG-009", 4, 2, 16, 96, 1e6, (double)NAN, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_model *m = model_make(false);
        m->config.n_heads = cases[i].heads;
        m->config.n_heads_kv = cases[i].kv;
        m->config.head_dim = cases[i].head_dim;
        m->config.n_inter = cases[i].inter;
        m->config.rope_theta = cases[i].theta;
        m->config.norm_eps = cases[i].eps;
        expect_structure(m, cases[i].rule, "", cases[i].unsafe);
        apr_model_close(m);
    }
}

/* A rule that the table of rules does not know could not be explained. */
static void test_rules_listed(void **state)
{
    (void)state;
    static const char *const used[] = {"F-FAMILY-001",          "F-TENSOR-001",       "F-VOCAB-002",
                                       "F-LAYOUT-CONTRACT-004", "F-DATA-QUALITY-004", "ALG-009"};
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++) {
        size_t k = 0;
        while (apr_contract_rule_at(k) && strcmp(apr_contract_rule_at(k)->id, used[i]) != 0) k++;
        assert_non_null(apr_contract_rule_at(k));
    }
}

/* ---- data --------------------------------------------------------------------------------------------- */

static void expect_data(const char *name, uint32_t n_dims, struct apr_stats s, const char *rule,
                        const char *says)
{
    struct apr_tensor t = {.name = name, .n_dims = n_dims};
    struct apr_arena arena;
    struct apr_verdict v;
    apr_arena_init(&arena);
    apr_verdict_init(&v, &arena);
    apr_contract_tensor(NULL, &t, &s, &v);
    if (!rule && v.n) fail_msg("%s: %s: %s", name, v.at[0].rule, v.at[0].text);
    if (rule) {
        if (v.n != 1) fail_msg("%s: %zu violations, expected %s", name, v.n, rule);
        assert_string_equal(v.at[0].rule, rule);
        if (!strstr(v.at[0].text, says)) fail_msg("%s, expected: %s", v.at[0].text, says);
    }
    apr_arena_free(&arena);
}

static struct apr_stats healthy(uint64_t n_zero)
{
    return (struct apr_stats){.n = 1000, .n_zero = n_zero, .sum = 3, .sum_sq = 12, .min = -1, .max = 1};
}

static void test_data(void **state)
{
    (void)state;
    const char *embed = "model.embed_tokens.weight", *w = "model.layers.0.mlp.up_proj.weight";
    const char *norm = "model.norm.weight", *bias = "model.layers.0.self_attn.k_proj.bias";
    struct apr_stats s;
    expect_data(embed, 2, healthy(500), NULL, NULL);
    expect_data(embed, 2, healthy(501), "F-DATA-QUALITY-001", "50.1 % zeros; expected at most 50 %");
    expect_data(embed, 2, healthy(945), "F-DATA-QUALITY-001", "94.5 % zeros");
    expect_data(w, 2, healthy(800), NULL, NULL);
    expect_data(w, 2, healthy(801), "F-DATA-QUALITY-001", "80.1 % zeros; expected at most 80 %");
    expect_data(norm, 1, healthy(999), NULL, NULL);
    s = (struct apr_stats){.n = 1000, .n_zero = 1000};
    expect_data(w, 2, s, "F-DATA-QUALITY-001", "all 1000 values are zero");
    expect_data(norm, 1, s, "F-DATA-QUALITY-001", "all 1000 values are zero");
    expect_data(bias, 1, s, NULL, NULL);
    s = healthy(0);
    s.n_nan = 3;
    expect_data(w, 2, s, "F-DATA-QUALITY-002", "3 NaN of 1000 values; expected none");
    expect_data(bias, 1, s, "F-DATA-QUALITY-002", "3 NaN");
    s = healthy(0);
    s.n_inf = 1;
    expect_data(norm, 1, s, "F-DATA-QUALITY-002", "1 infinite of 1000 values");
    s = healthy(0);
    s.sum_sq = 1e-14;
    expect_data(w, 2, s, "F-DATA-QUALITY-003", "L2 norm is 1e-07");
    s = healthy(0);
    s.min = s.max = 0.5F;
    expect_data(w, 2, s, "F-DATA-QUALITY-003", "all values are 0.5");
    expect_data(norm, 1, s, NULL, NULL); /* norms may be all ones */
    s = healthy(0);
    s.sum = 101001;
    expect_data(w, 2, s, "F-DATA-QUALITY-003", "mean is 101.001");
    expect_data(bias, 1, s, NULL, NULL); /* Qwen2's k biases are large */
}

static void test_embed_row(void **state)
{
    (void)state;
    struct apr_tensor t = {.name = "model.embed_tokens.weight", .n_dims = 2};
    struct apr_arena arena;
    struct apr_verdict v;
    float row[8] = {0};
    apr_arena_init(&arena);
    apr_verdict_init(&v, &arena);
    apr_contract_embed_row(&t, 20, row, 8, &v);
    assert_int_equal(v.n, 1);
    assert_string_equal(v.at[0].rule, "F-DATA-QUALITY-004");
    row[3] = 1e-3F;
    apr_contract_embed_row(&t, 20, row, 8, &v);
    assert_int_equal(v.n, 1);
    apr_arena_free(&arena);
}

/* One zero row where the rule looks, in an otherwise good model; and the scan of the good one. */
static void test_scan(void **state)
{
    (void)state;
    struct apr_pool *pool = apr_pool_open(2);
    for (int i = 0; i < 2; i++) {
        struct apr_model *m = model_make(false);
        struct apr_arena arena;
        struct apr_verdict v;
        struct apr_err e;
        apr_arena_init(&arena);
        apr_verdict_init(&v, &arena);
        struct apr_tensor *t = tensor(m, "model.embed_tokens.weight");
        if (i == 1) {
            float *copy = apr_arena_get(&m->arena, t->n_bytes);
            memcpy(copy, t->data, t->n_bytes);
            memset(copy + (size_t)(VOCAB / 2) * HIDDEN, 0, HIDDEN * sizeof *copy);
            t->data = (const uint8_t *)copy;
        }
        assert_int_equal(apr_contract_scan(m, &apr_kern_scalar, pool, &v, &e), APR_OK);
        assert_int_equal(v.n, i);
        if (i) assert_string_equal(v.at[0].rule, "F-DATA-QUALITY-004");
        assert_int_equal(v.n_tensors_checked, m->n_tensors);
        apr_arena_free(&arena);
        apr_model_close(m);
    }
    apr_pool_close(pool);
}

/* A violation of safety is named and its data is not touched: the data pointer here would fault. */
static void test_scan_skips_unsafe(void **state)
{
    (void)state;
    struct apr_pool *pool = apr_pool_open(1);
    struct apr_model *m = model_make(false);
    struct apr_arena arena;
    struct apr_verdict v;
    struct apr_err e;
    apr_arena_init(&arena);
    apr_verdict_init(&v, &arena);
    struct apr_tensor *t = tensor(m, "model.norm.weight");
    t->dims[0] = 1u << 20;
    assert_int_equal(apr_contract_scan(m, &apr_kern_scalar, pool, &v, &e), APR_OK);
    assert_int_equal(v.n_tensors_failed, 1);
    assert_int_equal(v.n_tensors_checked, m->n_tensors - 1);
    apr_arena_free(&arena);
    apr_model_close(m);
    apr_pool_close(pool);
}

/* ---- statistics --------------------------------------------------------------------------------------- */

static void stats_of(const struct apr_tensor *t, const struct apr_kern *k, unsigned n_threads,
                     struct apr_stats *s)
{
    struct apr_model m = {.path = "test"};
    struct apr_pool *pool = apr_pool_open(n_threads);
    struct apr_err e;
    if (apr_contract_stats(&m, t, k, pool, s, &e) != APR_OK) fail_msg("%s", e.text);
    apr_pool_close(pool);
}

/* The same bits for any number of threads and any kernel table, over borders of pieces and chunks. */
static void test_stats_deterministic(void **state)
{
    (void)state;
    static const uint64_t rows[] = {1, 3, 513, 1111};
    struct apr_arena arena;
    apr_arena_init(&arena);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct apr_tensor t = {.name = "w", .type = APR_F32, .n_dims = 2, .dims = {rows[r], 257}};
        struct apr_stats first, s;
        double sum = 0;
        t.n_bytes = rows[r] * 257 * 4;
        float *x = apr_arena_get(&arena, t.n_bytes);
        for (uint64_t i = 0; i < rows[r] * 257; i++) {
            x[i] = (float)((int)(i * 2654435761u % 2001) - 1000) * 1e-3F;
            sum += (double)x[i];
        }
        t.data = (const uint8_t *)x;
        stats_of(&t, &apr_kern_scalar, 1, &first);
        assert_int_equal(first.n, rows[r] * 257);
        assert_true(fabs(first.sum - sum) < 1e-9 * (double)first.n);
        for (size_t k = 0; apr_kern_at(k); k++)
            for (unsigned n_threads = 1; n_threads <= 3; n_threads++) {
                stats_of(&t, apr_kern_at(k), n_threads, &s);
                assert_memory_equal(&s, &first, sizeof s);
            }
    }
    apr_arena_free(&arena);
}

/* Packings of the original: padding does not count. 100 columns of Q8_0 in rows of 4 blocks, and flat. */
static void test_stats_packed(void **state)
{
    (void)state;
    struct apr_arena arena;
    struct apr_stats s;
    uint8_t *data;
    apr_arena_init(&arena);
    data = apr_arena_get(&arena, 3 * 4 * 34);
    for (size_t b = 0; b < 12; b++) {
        data[b * 34 + 1] = 0x3c; /* d = 1.0 as half */
        memset(data + b * 34 + 2, 1, 32);
    }
    struct apr_tensor t = {.name = "w",
                           .type = APR_Q8_0,
                           .n_dims = 2,
                           .dims = {3, 100},
                           .n_bytes = 3 * 4 * 34,
                           .packing = APR_ROWS_PADDED,
                           .data = data};
    stats_of(&t, &apr_kern_scalar, 2, &s);
    assert_int_equal(s.n, 300);
    assert_true(s.sum == 300.0);
    t.packing = APR_FLAT; /* 300 values: 9.4 blocks */
    t.n_bytes = 10 * 34;
    stats_of(&t, &apr_kern_scalar, 2, &s);
    assert_int_equal(s.n, 300);
    assert_true(s.sum == 300.0);
    /* one scale for the tensor, then a byte a value */
    struct apr_tensor q8 = {.name = "w", .type = APR_NATIVE_Q8, .n_dims = 2, .dims = {50, 200}};
    q8.n_bytes = 4 + 10000;
    data = apr_arena_get(&arena, q8.n_bytes);
    float scale = 0.5F;
    memcpy(data, &scale, 4);
    memset(data + 4, 2, 10000);
    q8.data = data;
    stats_of(&q8, &apr_kern_scalar, 2, &s);
    assert_int_equal(s.n, 10000);
    assert_true(s.sum == 10000.0);
    apr_arena_free(&arena);
}

/* More violations than are kept are still counted. */
static void test_many_violations(void **state)
{
    (void)state;
    struct apr_arena arena;
    struct apr_verdict v;
    struct apr_err e;
    apr_arena_init(&arena);
    apr_verdict_init(&v, &arena);
    for (int i = 0; i < 5000; i++) {
        char name[32];
        snprintf(name, sizeof name, "t%d", i);
        apr_verdict_add(&v, "F-TENSOR-002", apr_arena_strdup(&arena, name), false, "unexpected");
    }
    assert_int_equal(v.n + v.n_dropped, 5000);
    assert_int_equal(v.n_tensors_failed, 5000);
    assert_int_equal(apr_verdict_error(&v, "f", &e), APR_ECONTRACT);
    assert_string_equal(e.text,
                        "f: 5000 violations in 5000 tensors: F-TENSOR-002 t0: unexpected; F-TENSOR-002 t1: "
                        "unexpected; F-TENSOR-002 t2: unexpected; ...");
    apr_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_structure),         cmocka_unit_test(test_config_rules),
        cmocka_unit_test(test_rules_listed),      cmocka_unit_test(test_data),
        cmocka_unit_test(test_embed_row),         cmocka_unit_test(test_scan),
        cmocka_unit_test(test_scan_skips_unsafe), cmocka_unit_test(test_stats_deterministic),
        cmocka_unit_test(test_stats_packed),      cmocka_unit_test(test_many_violations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
