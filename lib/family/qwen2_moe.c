/* Qwen2-MoE (Qwen1.5-MoE, Qwen2-57B-A14B): Qwen2 with routed experts and a gated shared one. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "moe.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Qwen2MoeForCausalLM", NULL};
static const char *const hf_model_types[] = {"qwen2_moe", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_O,
    APR_RULES_QKV_BIASES,
    APR_RULES_GATED(APR_IF_DENSE),
    APR_RULES_EXPERTS,
    APR_RULES_SHARED("shared_expert"),
    {APR_ROLE_SHARED_GATE,
     APR_L "mlp.shared_expert_gate.weight",
     APR_B "ffn_gate_inp_shexp.weight",
     {APR_DIM_ONE, APR_DIM_HIDDEN},
     APR_IF_SHARED_GATE},
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_EXPERTS,
};

static const struct apr_moe_keys moe = {
    .n_experts = "num_experts",
    .n_inter = "moe_intermediate_size",
    .n_inter_shared = "shared_expert_intermediate_size",
    .norm_topk = "norm_topk_prob",
    .step = "decoder_sparse_step",
    .step_from_one = true,
    .dense_list = "mlp_only_layers",
    .shared_gate = true,
};

static apr_key_fn *const keys[] = {APR_KEYS_COMMON,     apr_key_expert_inter, apr_key_expert_shared_inter,
                                   apr_key_expert_norm, apr_key_window,       NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "qwen2moe",
    .n_ctx_default = 32768,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias = true,
    .qkv_bias_key = "qkv_bias",
    .is_gated = true,
    .shared_gate = true,
    .window = APR_WINDOW_QWEN,
    .moe = &moe,
    .keys = keys,
};

const struct apr_family apr_family_qwen2_moe = {
    .name = "qwen2_moe",
    .gguf_arch = "qwen2moe",
    .model_type_apr = "Qwen2Moe",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};
