/* Qwen3: Qwen2 without biases, with norms over the heads of q and k, and a head size of its own. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Qwen3ForCausalLM", NULL};
static const char *const hf_model_types[] = {"qwen3", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,       APR_RULES_NORMS, APR_RULES_QKV,      APR_RULE_O,
    APR_RULES_QKV_BIASES, APR_RULE_O_BIAS, APR_RULES_QK_NORMS, APR_RULES_GATED(APR_REQUIRED),
};

static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_window, NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "qwen3",
    .n_ctx_default = 32768,
    .head_dim = 128,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias_key = "attention_bias",
    .o_bias_key = "attention_bias",
    .is_gated = true,
    .window = APR_WINDOW_QWEN,
    .keys = keys,
};

const struct apr_family apr_family_qwen3 = {
    .name = "qwen3",
    .gguf_arch = "qwen3",
    .model_type_apr = "Qwen3",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};
