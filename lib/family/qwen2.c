/* Qwen2 and Qwen2.5: GQA, RMSNorm, SwiGLU, half-split RoPE, biases on q, k and v only. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Qwen2ForCausalLM", NULL};
static const char *const hf_model_types[] = {"qwen2", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,       APR_RULES_NORMS, APR_RULES_QKV,
    APR_RULES_QKV_BIASES, APR_RULE_O,      APR_RULES_GATED(APR_REQUIRED),
};

/* Defaults: transformers' Qwen2Config. */
static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_window, NULL};

static const struct apr_decoder decoder = {
    .gguf_arch = "qwen2",
    .n_ctx_default = 32768,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias = true,
    .is_gated = true,
    .window = APR_WINDOW_QWEN,
    .keys = keys,
};

const struct apr_family apr_family_qwen2 = {
    .name = "qwen2",
    .gguf_arch = "qwen2",
    .model_type_apr = "Qwen2",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};
