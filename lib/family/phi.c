/* Phi-1, 1.5 and 2: attention and feed-forward side by side behind one LayerNorm, biases everywhere, a part
 * of each head turns. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"PhiForCausalLM", NULL};
static const char *const hf_model_types[] = {"phi", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULE_EMBED,
    APR_RULE_LM_HEAD,
    {APR_ROLE_LM_HEAD_BIAS, "lm_head.bias", "output.bias", {APR_DIM_VOCAB}, APR_IF_HEAD_BIAS},
    {APR_ROLE_FINAL_NORM,
     "model.final_layernorm.weight",
     "output_norm.weight",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_FINAL_NORM_BIAS,
     "model.final_layernorm.bias",
     "output_norm.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    APR_RULE_ATTN_NORM,
    {APR_ROLE_ATTN_NORM_BIAS,
     APR_L "input_layernorm.bias",
     APR_B "attn_norm.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    APR_RULES_QKV,
    APR_RULES_QKV_BIASES,
    {APR_ROLE_O,
     APR_L "self_attn.dense.weight",
     APR_B "attn_output.weight",
     {APR_DIM_HIDDEN, APR_DIM_O_IN},
     APR_REQUIRED},
    {APR_ROLE_O_BIAS,
     APR_L "self_attn.dense.bias",
     APR_B "attn_output.bias",
     {APR_DIM_HIDDEN},
     APR_IF_O_BIAS},
    {APR_ROLE_UP,
     APR_L "mlp.fc1.weight",
     APR_B "ffn_up.weight",
     {APR_DIM_INTER, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_UP_BIAS, APR_L "mlp.fc1.bias", APR_B "ffn_up.bias", {APR_DIM_INTER}, APR_IF_MLP_BIAS},
    {APR_ROLE_DOWN,
     APR_L "mlp.fc2.weight",
     APR_B "ffn_down.weight",
     {APR_DIM_HIDDEN, APR_DIM_INTER},
     APR_REQUIRED},
    {APR_ROLE_DOWN_BIAS, APR_L "mlp.fc2.bias", APR_B "ffn_down.bias", {APR_DIM_HIDDEN}, APR_IF_MLP_BIAS},
};

static void key_no_bos(const struct apr_keys *k)
{
    apr_kvs_bool(k->kvs, "tokenizer.ggml.add_bos_token", false);
}

static const char *const refused[] = {"qk_layernorm", NULL};

static apr_key_fn *const keys[] = {apr_key_context,
                                   apr_key_hidden,
                                   apr_key_inter,
                                   apr_key_blocks,
                                   apr_key_heads,
                                   apr_key_heads_kv,
                                   apr_key_eps,
                                   apr_key_rope_dims,
                                   apr_key_file_type,
                                   key_no_bos,
                                   apr_key_rope_scaling,
                                   apr_key_freq_base_odd,
                                   NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "phi2",
    .n_ctx_default = 2048,
    .rope_theta = 10000.0,
    .rope_partial = 0.5,
    .norm_eps = 1e-5,
    .eps_key = "layer_norm_eps",
    .act_default = "gelu_new",
    .norm = APR_NORM_LAYER,
    .qkv_bias = true,
    .o_bias = true,
    .mlp_bias = true,
    .head_bias = true,
    .is_parallel = true,
    .activation = APR_GELU_TANH,
    .refused = refused,
    .keys = keys,
};

const struct apr_family apr_family_phi = {
    .name = "phi",
    .gguf_arch = "phi2",
    .model_type_apr = "Phi",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};
