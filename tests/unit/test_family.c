/* Families: names, hyper-parameters from both worlds, keys of the export. Run from the project root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "family/family.h"
#include "json.h"

static json_t *parse(const char *text)
{
    json_t *v = NULL;
    struct apr_err e;
    assert_int_equal(apr_json_parse(text, strlen(text), "config.json", &v, &e), APR_OK);
    return v;
}

#define BASE                                                                                                 \
    "\"hidden_size\":896,\"num_hidden_layers\":24,\"num_attention_heads\":14,\"num_key_value_heads\":2,"     \
    "\"intermediate_size\":4864,\"vocab_size\":151936,\"max_position_embeddings\":32768,"                    \
    "\"rms_norm_eps\":1e-06"

static enum apr_code from_hf(const char *text, struct apr_config *c, struct apr_err *e)
{
    json_t *v = parse(text);
    enum apr_code code =
        apr_family_named("qwen2")->from_hf(apr_family_named("qwen2"), v, c, "config.json", e);
    json_decref(v);
    return code;
}

static void test_lookup(void **state)
{
    (void)state;
    const struct apr_family *f = apr_family_named("qwen2");
    json_t *by_arch = parse("{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"other\"}");
    json_t *by_type = parse("{\"model_type\":\"qwen2\"}");
    json_t *classifier =
        parse("{\"architectures\":[\"Qwen2ForSequenceClassification\"],\"model_type\":\"qwen2\"}");
    json_t *odd = parse("{\"architectures\":\"Qwen2ForCausalLM\"}");
    assert_non_null(f);
    assert_ptr_equal(apr_family_of_gguf("qwen2"), f);
    assert_null(apr_family_of_gguf("nothing"));
    assert_ptr_equal(apr_family_of_hf(by_arch), f);
    assert_ptr_equal(apr_family_of_hf(by_type), f);
    assert_null(apr_family_of_hf(classifier));
    assert_null(apr_family_of_hf(odd));
    json_decref(by_arch);
    json_decref(by_type);
    json_decref(classifier);
    json_decref(odd);
    for (size_t i = 0; apr_family_at(i); i++) { /* rows are complete and found by their own names */
        const struct apr_family *row = apr_family_at(i);
        assert_ptr_equal(apr_family_named(row->name), row);
        assert_non_null(apr_family_of_gguf(row->gguf_arch));
        assert_non_null(row->from_hf);
        assert_true(!row->from_gguf == !row->to_gguf);
        assert_true(row->n_rules > 0);
    }
}

static void test_names(void **state)
{
    (void)state;
    const struct apr_family *f = apr_family_named("qwen2");
    const struct apr_tensor_rule *r;
    uint32_t layer;
    char out[128];
    r = apr_family_rule_hf(f, "model.layers.27.self_attn.q_proj.bias", &layer);
    assert_non_null(r);
    assert_int_equal(r->role, APR_ROLE_Q_BIAS);
    assert_int_equal(layer, 27);
    assert_string_equal(apr_family_name(r->gguf, layer, out, sizeof out), "blk.27.attn_q.bias");
    assert_ptr_equal(apr_family_rule_gguf(f, out, &layer), r);
    r = apr_family_rule_gguf(f, "output.weight", &layer);
    assert_int_equal(r->role, APR_ROLE_LM_HEAD);
    assert_int_equal(layer, UINT32_MAX);
    static const char *const wrong[] = {"model.layers..self_attn.q_proj.weight",
                                        "model.layers.01.self_attn.q_proj.weight",
                                        "model.layers.-1.self_attn.q_proj.weight",
                                        "model.layers.1x.self_attn.q_proj.weight",
                                        "model.layers.4294967296.mlp.up_proj.weight",
                                        "model.layers.1.self_attn.q_proj.weight ",
                                        "model.layers.1",
                                        "",
                                        "lm_head.weight.0",
                                        "model.layers.{n}.mlp.up_proj.weight"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_null(apr_family_rule_hf(f, wrong[i], &layer));
}

static void test_config_spellings(void **state)
{
    (void)state;
    struct apr_config old, new;
    struct apr_err e;
    assert_int_equal(
        from_hf("{" BASE ",\"rope_theta\":1000000,\"torch_dtype\":\"bfloat16\",\"rope_scaling\":null,"
                "\"tie_word_embeddings\":true,\"use_sliding_window\":false,\"sliding_window\":4096}",
                &old, &e),
        APR_OK);
    assert_int_equal(from_hf("{" BASE
                             ",\"rope_parameters\":{\"rope_theta\":1000000.0,\"rope_type\":\"default\"},"
                             "\"dtype\":\"bfloat16\",\"tie_word_embeddings\":true,\"sliding_window\":null}",
                             &new, &e),
                     APR_OK);
    assert_memory_equal(&old, &new, sizeof old);
    assert_int_equal(old.head_dim, 64);
    assert_false(old.head_dim_given);
    assert_true(old.tied);
    assert_true(old.rope_theta == 1e6);
    assert_int_equal(apr_family_n_tensors(apr_family_named("qwen2"), &old), 290);
    old.tied = false;
    assert_int_equal(apr_family_n_tensors(apr_family_named("qwen2"), &old), 291);
    assert_int_equal(apr_family_dim(&old, APR_DIM_Q), 896);
    assert_int_equal(apr_family_dim(&old, APR_DIM_KV), 128);
}

static void test_config_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum apr_code code;
        const char *says;
    } cases[] = {
        {"{}", APR_EFORMAT, "$.num_hidden_layers: missing"},
        {"{" BASE ",\"num_attention_heads\":0}", APR_EFORMAT, NULL}, /* the key twice */
        {"{" BASE ",\"rope_scaling\":{\"type\":\"mrope\",\"factor\":4.0}}", APR_ELOAD, "mrope"},
        {"{" BASE ",\"rope_scaling\":{\"type\":\"linear\"}}", APR_EFORMAT, "factor"},
        {"{" BASE ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", APR_EFORMAT, "factor"},
        {"{" BASE ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1]}}", APR_EFORMAT,
         "short_factor"},
        {"{" BASE ",\"rope_parameters\":[]}", APR_EFORMAT, "expected an object"},
        {"{" BASE ",\"use_sliding_window\":true,\"sliding_window\":0}", APR_EFORMAT, "sliding_window"},
        {"{" BASE ",\"hidden_act\":\"mish\"}", APR_ELOAD, "hidden_act"},
        {"{" BASE ",\"quantization_config\":{\"quant_method\":\"awq\"}}", APR_ELOAD, "awq"},
        {"{" BASE ",\"rope_theta\":0}", APR_EFORMAT, "theta"},
        {"{" BASE ",\"rope_theta\":-1}", APR_EFORMAT, "theta"},
        {"{" BASE ",\"rope_theta\":\"big\"}", APR_EFORMAT, "rope_theta"},
        {"{" BASE ",\"head_dim\":4096}", APR_EFORMAT, "head_dim"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_config c;
        struct apr_err e;
        json_t *v = NULL;
        if (!cases[i].says) {
            assert_int_not_equal(apr_json_parse(cases[i].text, strlen(cases[i].text), "config.json", &v, &e),
                                 APR_OK);
            continue;
        }
        assert_int_equal(from_hf(cases[i].text, &c, &e), cases[i].code);
        if (!strstr(e.text, cases[i].says)) fail_msg("case %zu: %s", i, e.text);
        assert_non_null(strstr(e.text, "config.json"));
    }
}

/* Zero, huge and non-integer values of every integer. (reliability: zero / absurd hyper-parameters) */
static void test_config_ranges(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "hidden_size",       "num_hidden_layers", "num_attention_heads",    "num_key_value_heads",
        "intermediate_size", "vocab_size",        "max_position_embeddings"};
    static const char *const bad[] = {"0", "-1", "4294967295", "4294967296", "2.5", "\"8\"", "[8]", "true"};
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            struct apr_config c;
            struct apr_err e;
            json_t *config = parse("{" BASE "}"), *v = NULL;
            assert_int_equal(apr_json_parse(bad[i], strlen(bad[i]), "x", &v, &e), APR_OK);
            json_object_set_new(config, keys[k], v);
            assert_int_equal(
                apr_family_named("qwen2")->from_hf(apr_family_named("qwen2"), config, &c, "config.json", &e),
                APR_EFORMAT);
            assert_non_null(strstr(e.text, keys[k]));
            json_decref(config);
        }
    }
    struct apr_config c;
    struct apr_err e;
    json_t *config = parse("{" BASE "}");
    json_object_set_new(config, "num_hidden_layers", json_integer(513));
    assert_int_equal(
        apr_family_named("qwen2")->from_hf(apr_family_named("qwen2"), config, &c, "config.json", &e),
        APR_EFORMAT);
    json_object_set_new(config, "num_hidden_layers", json_integer(1));
    json_object_set_new(config, "num_attention_heads", json_integer(13)); /* 896 is no multiple */
    assert_int_equal(
        apr_family_named("qwen2")->from_hf(apr_family_named("qwen2"), config, &c, "config.json", &e),
        APR_EFORMAT);
    json_decref(config);
}

/* The order is llama.cpp's converter's (gguf-export facts, 3.1). */
static void test_gguf_keys(void **state)
{
    (void)state;
    static const char *const order[] = {
        "qwen2.block_count",          "qwen2.context_length",
        "qwen2.embedding_length",     "qwen2.feed_forward_length",
        "qwen2.attention.head_count", "qwen2.attention.head_count_kv",
        "qwen2.rope.freq_base",       "qwen2.attention.layer_norm_rms_epsilon",
        "general.file_type"};
    const struct apr_family *f = apr_family_named("qwen2");
    struct apr_config c, back = {.n_vocab = 4096};
    struct apr_arena arena;
    struct apr_kvs kvs;
    struct apr_err e;
    json_t *config = NULL;
    assert_int_equal(apr_json_load("tests/data/apr-demo-8M-Instruct/config.json", 1 << 20, &config, &e),
                     APR_OK);
    assert_ptr_equal(apr_family_of_hf(config), f);
    assert_int_equal(f->from_hf(f, config, &c, "config.json", &e), APR_OK);
    assert_int_equal(apr_family_n_tensors(f, &c), 99);
    apr_arena_init(&arena);
    apr_kvs_init(&kvs, &arena);
    f->to_gguf(f, &c, config, 32, &kvs);
    assert_int_equal(kvs.n, sizeof order / sizeof order[0]);
    for (size_t i = 0; i < kvs.n; i++) assert_string_equal(kvs.at[i].key.p, order[i]);
    assert_int_equal(kvs.at[6].type, APR_KV_F32);
    assert_int_equal(kvs.at[8].v.u, 32);
    assert_int_equal(f->from_gguf(f, &kvs, &back, "x.gguf", &e), APR_OK);
    assert_true((float)back.norm_eps == (float)c.norm_eps);
    back.norm_eps = c.norm_eps;
    assert_int_equal(back.form, APR_FORM_GGUF);
    back.form = c.form;
    assert_memory_equal(&back, &c, sizeof c);
    /* A head size that config.json names travels as key_length and value_length. */
    c.head_dim_given = true;
    apr_kvs_init(&kvs, &arena);
    f->to_gguf(f, &c, config, 32, &kvs);
    assert_string_equal(kvs.at[8].key.p, "qwen2.attention.key_length");
    assert_string_equal(kvs.at[9].key.p, "qwen2.attention.value_length");
    apr_arena_free(&arena);
    json_decref(config);
}

static void test_gguf_refused(void **state)
{
    (void)state;
    const struct apr_family *f = apr_family_named("qwen2");
    static const struct {
        const char *key;
        bool drop;
        uint32_t value;
    } cases[] = {{"qwen2.block_count", true, 0},
                 {"qwen2.block_count", false, 0},
                 {"qwen2.block_count", false, 513},
                 {"qwen2.block_count", false, UINT32_MAX},
                 {"qwen2.embedding_length", false, 0},
                 {"qwen2.attention.head_count", false, 0},
                 {"qwen2.attention.head_count_kv", false, 0},
                 {"qwen2.attention.head_count", false, 7},
                 {"qwen2.feed_forward_length", true, 0},
                 {"qwen2.attention.layer_norm_rms_epsilon", true, 0},
                 {"qwen2.attention.key_length", false, 2048},
                 {"qwen2.attention.value_length", false, 32},
                 {"qwen2.rope.dimension_count", false, 128},
                 {"qwen2.rope.dimension_count", false, 33},
                 {"qwen2.attention.sliding_window", false, UINT32_MAX}};
    struct apr_config c = {.n_layers = 8,
                           .n_hidden = 256,
                           .n_heads = 4,
                           .n_heads_kv = 2,
                           .head_dim = 64,
                           .n_inter = 768,
                           .n_vocab = 4096,
                           .n_ctx_train = 4096,
                           .rope_theta = 1e6,
                           .norm_eps = 1e-6};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_arena arena;
        struct apr_kvs all, kvs;
        struct apr_config back = {.n_vocab = 4096};
        struct apr_err e;
        apr_arena_init(&arena);
        apr_kvs_init(&all, &arena);
        apr_kvs_init(&kvs, &arena);
        f->to_gguf(f, &c, NULL, 32, &all);
        for (size_t k = 0; k < all.n; k++)
            if (strcmp(all.at[k].key.p, cases[i].key) != 0) apr_kvs_add(&kvs, &all.at[k]);
        if (!cases[i].drop) apr_kvs_u32(&kvs, cases[i].key, cases[i].value);
        if (f->from_gguf(f, &kvs, &back, "x.gguf", &e) == APR_OK) fail_msg("case %zu was accepted", i);
        assert_non_null(strstr(e.text, "x.gguf"));
        apr_arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup),           cmocka_unit_test(test_names),
        cmocka_unit_test(test_config_spellings), cmocka_unit_test(test_config_refused),
        cmocka_unit_test(test_config_ranges),    cmocka_unit_test(test_gguf_keys),
        cmocka_unit_test(test_gguf_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
