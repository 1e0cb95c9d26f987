/* Every decoder family through both documents: config.json -> config -> GGUF keys -> config, and ->
 * config.json -> config. Run from the project root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "family/differ.h"
#include "family/family.h"
#include "json.h"

#define DIMS                                                                                                 \
    "\"hidden_size\":64,\"num_hidden_layers\":4,\"num_attention_heads\":4,\"num_key_value_heads\":2,"        \
    "\"intermediate_size\":96,\"vocab_size\":128,\"max_position_embeddings\":256"
#define TYPES(a, b) "\"layer_types\":[\"" a "\",\"" b "\",\"" a "\",\"" b "\"]"
#define LOCAL       "sliding_attention"
#define FULL        "full_attention"
#define EXPERTS     "\"moe_intermediate_size\":32,\"num_experts_per_tok\":2,\"norm_topk_prob\":"

/* config.json without its braces. is_bare: GGUF's keys do not tell all of it (tensors do). */
static const struct {
    const char *family, *text;
    bool is_bare;
} docs[] = {
    {"qwen2", DIMS ",\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"tie_word_embeddings\":true", false},
    {"qwen2", DIMS ",\"use_sliding_window\":true,\"sliding_window\":9,\"max_window_layers\":2", false},
    {"qwen2",
     DIMS ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":64}",
     false},
    {"qwen3", DIMS ",\"head_dim\":24,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e6}",
     false},
    {"qwen2_moe", DIMS ",\"num_experts\":8,\"shared_expert_intermediate_size\":48," EXPERTS "false", false},
    {"qwen2_moe",
     DIMS ",\"num_experts\":8,\"shared_expert_intermediate_size\":48," EXPERTS "true,\"mlp_only_layers\":[1]",
     false},
    {"qwen3_moe", DIMS ",\"num_experts\":8,\"head_dim\":32," EXPERTS "true,\"decoder_sparse_step\":2", false},
    {"llama", DIMS ",\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5}",
     false},
    {"llama", DIMS ",\"attention_bias\":true,\"mlp_bias\":true,\"rope_scaling\":null", false},
    {"llama",
     DIMS ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_"
          "factor\":4.0,"
          "\"original_max_position_embeddings\":64}",
     true},
    {"llama", DIMS ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}", true},
    {"llama",
     DIMS ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"attention_factor\":1.25,\"beta_fast\":16,"
          "\"beta_slow\":2}",
     false},
    {"mistral", DIMS ",\"sliding_window\":16,\"rms_norm_eps\":1e-5", false},
    {"mistral", DIMS ",\"sliding_window\":16," TYPES(FULL, LOCAL), false},
    {"mixtral",
     DIMS ",\"num_local_experts\":4,\"num_experts_per_tok\":2,\"sliding_window\":null,\"rope_theta\":1e6",
     false},
    {"gemma", DIMS ",\"head_dim\":32,\"rms_norm_eps\":1e-6", false},
    {"gemma2",
     DIMS ",\"head_dim\":32,\"query_pre_attn_scalar\":144,\"sliding_window\":16," TYPES(LOCAL, FULL), false},
    {"gemma2",
     DIMS ",\"head_dim\":32,\"attn_logit_softcapping\":null,\"sliding_window\":16," TYPES(FULL, LOCAL),
     false},
    {"gemma3",
     DIMS ",\"head_dim\":32,\"query_pre_attn_scalar\":32,\"sliding_window\":16,\"sliding_window_pattern\":6",
     false},
    {"gemma3",
     DIMS ",\"head_dim\":32,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8.0},\"rope_local_base_"
          "freq\":1e4,"
          "\"final_logit_softcapping\":20.0,\"sliding_window\":16," TYPES(LOCAL, FULL),
     false},
    {"phi", DIMS ",\"partial_rotary_factor\":0.5,\"hidden_act\":\"gelu_new\"", false},
    {"phi",
     DIMS
     ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5000.0,\"partial_rotary_factor\":0.25}",
     false},
    {"phi3", DIMS ",\"sliding_window\":null,\"original_max_position_embeddings\":64", false},
    {"phi3", DIMS ",\"sliding_window\":31,\"partial_rotary_factor\":0.75", false},
    {"gpt2",
     "\"n_embd\":64,\"n_layer\":2,\"n_head\":4,\"n_positions\":128,\"vocab_size\":128,\"n_inner\":null",
     false},
    {"gpt2",
     "\"n_embd\":64,\"n_layer\":2,\"n_head\":4,\"n_positions\":128,\"vocab_size\":128,\"n_inner\":100,"
     "\"scale_attn_weights\":false",
     false},
    {"deepseek_moe",
     DIMS ",\"n_routed_experts\":8,\"n_shared_experts\":2,\"first_k_dense_replace\":1," EXPERTS "false",
     false},
    {"deepseek2",
     DIMS
     ",\"n_routed_experts\":8,\"n_shared_experts\":1,\"first_k_dense_replace\":1," EXPERTS "false,"
     "\"q_lora_rank\":24,\"kv_lora_rank\":16,\"qk_nope_head_dim\":12,\"qk_rope_head_dim\":4,\"v_head_dim\":"
     "12,"
     "\"topk_method\":\"group_limited_greedy\",\"n_group\":4,\"topk_group\":2,\"routed_scaling_factor\":2.5",
     false},
    {"deepseek2",
     DIMS ",\"n_routed_experts\":8,\"q_lora_rank\":null,\"kv_lora_rank\":16,\"qk_nope_head_dim\":12,"
          "\"qk_rope_head_dim\":4,\"v_head_dim\":12," EXPERTS
          "true,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,"
          "\"mscale\":0.707,\"mscale_all_dim\":0.9,\"original_max_position_embeddings\":64}",
     false},
    {"granite",
     DIMS ",\"embedding_multiplier\":12.0,\"residual_multiplier\":0.22,\"attention_multiplier\":0.015625,"
          "\"logits_scaling\":8.0,\"tie_word_embeddings\":true",
     false},
    {"starcoder2",
     DIMS ",\"sliding_window\":32,\"use_bias\":true,\"norm_epsilon\":1e-5,\"rope_theta\":100000.0", false},
    {"stablelm", DIMS ",\"use_qkv_bias\":true,\"partial_rotary_factor\":0.25,\"use_parallel_residual\":false",
     false},
};
#define N_DOCS (sizeof docs / sizeof docs[0])

static const struct apr_family *read(size_t i, struct apr_config *c)
{
    const struct apr_family *f = apr_family_named(docs[i].family);
    char text[2048];
    struct apr_err e;
    json_t *config = NULL;
    assert_non_null(f);
    (void)snprintf(text, sizeof text, "{%s}", docs[i].text);
    assert_int_equal(apr_json_parse(text, strlen(text), "config.json", &config, &e), APR_OK);
    if (f->from_hf(f, config, c, "config.json", &e) != APR_OK) fail_msg("%zu %s: %s", i, f->name, e.text);
    json_decref(config);
    return f;
}

static void test_gguf_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_DOCS; i++) {
        struct apr_config c, back;
        struct apr_arena arena;
        struct apr_kvs kvs;
        struct apr_err e;
        const struct apr_family *f = read(i, &c);
        apr_arena_init(&arena);
        apr_kvs_init(&kvs, &arena);
        apr_kvs_str(&kvs, "general.architecture", f->gguf_arch);
        f->to_gguf(f, &c, NULL, 1, &kvs);
        assert_ptr_equal(apr_family_of_kvs(&kvs), f); /* llama, mistral and mixtral are told apart */
        back = c;                                     /* what tensors tell */
        if (docs[i].is_bare) c.rope.scaling = back.rope.scaling = APR_ROPE_PLAIN;
        if (f->from_gguf(f, &kvs, &back, "x.gguf", &e) != APR_OK) fail_msg("%zu %s: %s", i, f->name, e.text);
        const char *what = apr_config_differs(&c, &back);
        if (what) fail_msg("%zu %s: %s differs after GGUF", i, f->name, what);
        assert_int_equal(back.form, APR_FORM_GGUF);
        assert_false(back.norm_plus_one);
        apr_arena_free(&arena);
    }
}

static void test_config_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_DOCS; i++) {
        struct apr_config c, back;
        struct apr_err e;
        const struct apr_family *f = read(i, &c);
        json_t *config = json_object();
        f->to_hf(f, &c, config);
        if (f->from_hf(f, config, &back, "config.json", &e) != APR_OK)
            fail_msg("%zu %s: %s", i, f->name, e.text);
        const char *what = apr_config_differs(&c, &back);
        if (what) fail_msg("%zu %s: %s differs after config.json", i, f->name, what);
        json_decref(config);
    }
}

/* The comparison sees every field that it is there for. */
static void test_differs(void **state)
{
    (void)state;
    struct apr_config a, b;
    (void)read(0, &a);
    b = a;
    assert_null(apr_config_differs(&a, &b));
    b.norm_eps *= 1 + 1e-9;
    assert_null(apr_config_differs(&a, &b)); /* what a float loses */
#define CHANGED(change_, name_)                                                                              \
    do {                                                                                                     \
        b = a;                                                                                               \
        change_;                                                                                             \
        assert_string_equal(apr_config_differs(&a, &b), name_);                                              \
    } while (0)
    CHANGED(b.n_hidden++, "n_hidden");
    CHANGED(b.activation = APR_GELU, "activation");
    CHANGED(b.norm = APR_NORM_LAYER, "norm");
    CHANGED(b.tied = !b.tied, "tied");
    CHANGED(b.local[0] = 1, "local");
    CHANGED(b.moe.scale = 2, "moe.scale");
    CHANGED(b.norm_eps *= 1.01, "norm_eps");
    CHANGED(b.rope.theta = 5, "rope.theta");
    CHANGED(b.rope.scaling = APR_ROPE_YARN, "rope.scaling");
    CHANGED(b.rope_local.theta = 5, "rope_local");
    CHANGED(b.moe.n_groups = b.moe.n_groups_used = 2, "moe.n_groups");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_and_back),
        cmocka_unit_test(test_config_and_back),
        cmocka_unit_test(test_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
