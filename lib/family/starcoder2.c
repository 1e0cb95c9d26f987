/* StarCoder2: LayerNorm, biases, a feed-forward block without gate, a sliding window. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Starcoder2ForCausalLM", NULL};
static const char *const hf_model_types[] = {"starcoder2", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_O,
    APR_RULES_NORM_BIASES,
    APR_RULES_QKV_BIASES,
    APR_RULE_O_BIAS,
    {APR_ROLE_UP,
     APR_L "mlp.c_fc.weight",
     APR_B "ffn_up.weight",
     {APR_DIM_INTER, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_UP_BIAS, APR_L "mlp.c_fc.bias", APR_B "ffn_up.bias", {APR_DIM_INTER}, APR_IF_MLP_BIAS},
    {APR_ROLE_DOWN,
     APR_L "mlp.c_proj.weight",
     APR_B "ffn_down.weight",
     {APR_DIM_HIDDEN, APR_DIM_INTER},
     APR_REQUIRED},
    {APR_ROLE_DOWN_BIAS, APR_L "mlp.c_proj.bias", APR_B "ffn_down.bias", {APR_DIM_HIDDEN}, APR_IF_MLP_BIAS},
};

static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_window, NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "starcoder2",
    .n_ctx_default = 4096,
    .rope_theta = 10000.0,
    .norm_eps = 1e-5,
    .tied = true,
    .eps_key = "norm_epsilon",
    .act_default = "gelu_pytorch_tanh",
    .norm = APR_NORM_LAYER,
    .qkv_bias_key = "use_bias",
    .o_bias_key = "use_bias",
    .mlp_bias_key = "use_bias",
    .qkv_bias = true,
    .o_bias = true,
    .mlp_bias = true,
    .activation = APR_GELU_TANH,
    .window = APR_WINDOW_ALL,
    .keys = keys,
};

const struct apr_family apr_family_starcoder2 = {
    .name = "starcoder2",
    .gguf_arch = "starcoder2",
    .model_type_apr = "StarCoder2",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};
