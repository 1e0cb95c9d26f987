/* Qwen3-MoE (Qwen3-30B-A3B): Qwen3 with routed experts. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "moe.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Qwen3MoeForCausalLM", NULL};
static const char *const hf_model_types[] = {"qwen3_moe", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,       APR_RULES_NORMS, APR_RULES_QKV,      APR_RULE_O,
    APR_RULES_QKV_BIASES, APR_RULE_O_BIAS, APR_RULES_QK_NORMS, APR_RULES_GATED(APR_IF_DENSE),
    APR_RULES_EXPERTS,
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_EXPERTS,
};

static const struct apr_moe_keys moe = {
    .n_experts = "num_experts",
    .n_inter = "moe_intermediate_size",
    .norm_topk = "norm_topk_prob",
    .step = "decoder_sparse_step",
    .step_from_one = true,
    .dense_list = "mlp_only_layers",
};

static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_expert_inter, apr_key_window, NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "qwen3moe",
    .n_ctx_default = 32768,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias_key = "attention_bias",
    .o_bias_key = "attention_bias",
    .is_gated = true,
    .norm_topk = true,
    .window = APR_WINDOW_QWEN,
    .moe = &moe,
    .keys = keys,
};

const struct apr_family apr_family_qwen3_moe = {
    .name = "qwen3_moe",
    .gguf_arch = "qwen3moe",
    .model_type_apr = "Qwen3Moe",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};
